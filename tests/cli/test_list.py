"""`trainshed list`: every kind, nothing imported."""

import subprocess
import sys

import pytest

from trainshed.cli.list import describe
from trainshed.registry import REGISTRIES, Registry

SCRIPT = """
import sys
from trainshed.cli.main import main
try:
    main(["list", sys.argv[1]])
except SystemExit as end:
    assert not end.code
found = {"torch", "transformers", "numpy", "datasets"} & set(sys.modules)
sys.exit(f"imported {found}" if found else 0)
"""


@pytest.mark.parametrize("kind", REGISTRIES)
def test_every_name_has_a_line_and_nothing_heavy_is_imported(kind):
    done = subprocess.run([sys.executable, "-c", SCRIPT, kind], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    listed, _, others = done.stdout.partition("\nalso: ")
    rows = {line.split()[0]: line.split(maxsplit=1)[1] for line in listed.splitlines()[1:]}
    aliases = dict(pair.split(" = ") for pair in others.strip().split(", ") if pair)
    assert aliases == REGISTRIES[kind].aliases
    assert set(rows) == set(REGISTRIES[kind].names())
    assert not [line for line in rows.values() if "not installed: trainshed" in line]


def test_plug_ins_are_listed(project):
    told = [line.split(maxsplit=1) for line in project("list", "stages").stdout.splitlines()]
    assert ["fake_train", "Go through steps that depend on each other."] in told


def test_descriptions():
    registry = Registry(
        "thing",
        {"here": "json.decoder:JSONDecoder", "gone": "no_such_package.x:Y", "own": "trainshed.files:x"},
    )
    assert describe(registry, "here") == "Simple JSON <https://json.org> decoder"
    assert describe(registry, "gone") == "not installed: no_such_package.x"
    assert describe(registry, "own").startswith("Writing so that a crash leaves the last complete state")
    registry.add("object", test_plug_ins_are_listed)
    assert describe(registry, "object") == ""
