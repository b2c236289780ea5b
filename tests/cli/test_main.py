"""The command itself: help, errors, exit codes, and what it imports."""

import subprocess
import sys

import click
import pytest

from trainshed import __version__
from trainshed.cli.main import VERBS, main
from trainshed.registry import load_attribute

HEAVY = "{'torch', 'transformers', 'datasets', 'sentence_transformers', 'numpy', 'pandas', 'pyarrow'}"
SCRIPT = f"""
import sys
from trainshed.cli.main import main
try:
    main(sys.argv[1:])
except SystemExit as end:
    assert not end.code, end.code
found = {HEAVY} & set(sys.modules)
sys.exit(f"imported {{found}}" if found else 0)
"""
SWEEP = """\
execution:
  algorithm: lsr
  seed: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
training:
  learning_rate: [1.0e-5, 2.0e-5, 3.0e-5, 4.0e-5, 5.0e-5, 6.0e-5, 7.0e-5, 8.0e-5, 9.0e-5, 1.0e-4]
  num_train_epochs: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]
"""


def call(capsys, *arguments):
    with pytest.raises(SystemExit) as end:
        main(arguments)
    told = capsys.readouterr()
    return end.value.code, told.out, told.err


def light(*arguments, cwd=None):
    return subprocess.run(
        [sys.executable, "-c", SCRIPT, *arguments], cwd=cwd, capture_output=True, text=True, check=False
    )


def test_help_imports_nothing_heavy():
    done = light("--help")
    assert done.returncode == 0, done.stderr
    for name, verb in VERBS.items():
        assert (name in done.stdout) is not verb.hidden
    assert "Examples:" in done.stdout


def test_a_plan_of_a_thousand_runs_imports_nothing_heavy(tmp_path):
    (tmp_path / "sweep.yaml").write_text(SWEEP)
    done = light("plan", "sweep.yaml", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "1000 run in " in done.stdout
    assert "lsr.999-" in done.stdout
    assert not (tmp_path / "outputs").exists()


def test_the_listing_imports_no_verb():
    script = (
        "import sys\nfrom trainshed.cli.main import main\ntry:\n    main(['--help'])\nexcept SystemExit:\n"
    )
    script += (
        "    assert not [m for m in sys.modules if m.startswith(('trainshed.cli.r', 'trainshed.config'))]\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_is_there_and_its_help_has_examples(verb):
    command = load_attribute(VERBS[verb].target)
    assert isinstance(command, click.Command)
    text = command.get_help(click.Context(command, info_name=f"trainshed {verb}"))
    assert f"  trainshed {verb}" in text.replace("Usage: trainshed", ""), text


def test_an_unknown_verb_names_the_one_meant(capsys):
    code, _, error = call(capsys, "paln", "x.yaml")
    assert code == 2
    assert "no such verb: 'paln'" in error
    assert "did you mean 'plan'?" in error
    assert "execute" not in error


def test_the_version(capsys):
    assert call(capsys, "--version") == (0, f"trainshed, version {__version__}\n", "")


def test_a_known_error_has_no_traceback_unless_asked_for(capsys, tmp_path):
    path = tmp_path / "bad.yaml"
    path.write_text("execution:\n  algorithm: lsr\n  sed: 1\n")
    code, out, error = call(capsys, "plan", str(path))
    assert (code, out) == (2, "")
    assert error.startswith("error: ")
    assert "seed" in error
    assert "Traceback" not in error
    code, _, error = call(capsys, "--debug", "plan", str(path))
    assert code == 2
    assert "Traceback" in error


def test_a_missing_file_is_told(capsys):
    code, _, error = call(capsys, "run", "nowhere.yaml")
    assert code == 2
    assert "'nowhere.yaml' does not exist" in error


def test_a_reader_that_has_enough_is_no_error():
    done = subprocess.run(
        f"{sys.executable} -m trainshed.cli.main --help | head -1; exit ${{PIPESTATUS[0]}}",
        shell=True,
        executable="/bin/bash",
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


def test_plug_ins_that_are_not_there_are_told(capsys, tmp_path):
    code, _, error = call(capsys, "--import", "no_such_module", "list", "stages")
    assert (code, "no module named 'no_such_module'" in error) == (2, True)
    code, _, error = call(capsys, "--import", str(tmp_path / "none.py"), "list", "stages")
    assert (code, "plug-in file not found" in error) == (2, True)
