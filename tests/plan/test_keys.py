"""What a key sees and what it does not."""

import os
import re
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainshed.errors import DataError
from trainshed.files import digest_file
from trainshed.plan.keys import VERSIONED_PACKAGES, DigestCache, package_versions, run_key, source_digest


def settle(path):
    os.utime(path, ns=(10**9, 10**9))


def counting():
    calls = []

    def compute(path):
        calls.append(path)
        return digest_file(path)

    return calls, compute


def test_a_settled_file_is_read_once_also_by_the_next_process(tmp_path):
    data = tmp_path / "data.jsonl"
    data.write_text("one")
    settle(data)
    calls, compute = counting()
    cache = DigestCache(tmp_path / "digests.json")
    first = cache.file(data, compute)
    assert cache.file(data, compute) == first
    cache.save()
    assert DigestCache(tmp_path / "digests.json").file(data, compute) == first
    assert len(calls) == 1


def test_a_file_that_was_just_written_is_read_each_time(tmp_path):
    data = tmp_path / "data.jsonl"
    data.write_text("one")
    calls, compute = counting()
    cache = DigestCache()
    cache.file(data, compute)
    cache.file(data, compute)
    assert len(calls) == 2


def test_a_changed_file_has_another_digest(tmp_path):
    data = tmp_path / "data.jsonl"
    data.write_text("one")
    settle(data)
    cache = DigestCache()
    before = cache.input(data)
    data.write_text("two")
    assert cache.input(data) != before


def test_a_directory_is_its_files_and_their_names(tmp_path):
    folder = tmp_path / "docs"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "a.txt").write_text("a")
    cache = DigestCache()
    before = cache.input(folder)
    assert cache.input(folder) == before
    (folder / "deep" / "a.txt").rename(folder / "deep" / "b.txt")
    assert cache.input(folder) != before


def test_a_missing_input_is_told(tmp_path):
    with pytest.raises(DataError, match="input not found") as caught:
        DigestCache().input(tmp_path / "nothing.jsonl")
    assert caught.value.where == str(tmp_path / "nothing.jsonl")


def test_a_damaged_cache_costs_time_only(tmp_path):
    (tmp_path / "digests.json").write_text("{ torn")
    data = tmp_path / "data"
    data.write_text("x")
    settle(data)
    cache = DigestCache(tmp_path / "digests.json")
    cache.file(data)
    cache.save()
    assert str(data) in (tmp_path / "digests.json").read_text()


@pytest.mark.parametrize(
    ("changed", "same"),
    [
        ("x = 1  # why\n", True),
        ('"""Other words."""\n\nx   =   1\n', True),
        ("x = 2\n", False),
        ("x = 1\ny = 1\n", False),
    ],
)
def test_the_source_digest_sees_code_and_not_layout(tmp_path, changed, same):
    root = tmp_path / "package"
    (root / "trainers").mkdir(parents=True)
    file = root / "trainers" / "lsr.py"
    file.write_text('"""Words."""\nx = 1\n')
    before = source_digest(DigestCache(), root=root)
    file.write_text(changed)
    assert (source_digest(DigestCache(), root=root) == before) is same


def test_the_source_digest_leaves_out_what_decides_no_result(tmp_path):
    root = tmp_path / "package"
    for name in ("cli", "launch", "rag"):
        (root / name).mkdir(parents=True)
        (root / name / "a.py").write_text("x = 1\n")
    before = source_digest(DigestCache(), root=root)
    (root / "cli" / "a.py").write_text("x = 2\n")
    (root / "launch" / "new.py").write_text("x = 2\n")
    assert source_digest(DigestCache(), root=root) == before
    plugin = tmp_path / "plugin.py"
    plugin.write_text("y = 1\n")
    assert source_digest(DigestCache(), [plugin], root=root) != before
    (root / "rag" / "b.txt").write_text("data")
    assert source_digest(DigestCache(), root=root) != before


def test_versions_are_of_what_is_installed():
    versions = package_versions(["torch", "no-such-package"])
    assert set(versions) == {"python", "torch"}


parts = st.fixed_dictionaries(
    {
        "stage": st.sampled_from(["train", "index"]),
        "hyper": st.dictionaries(st.sampled_from("ab"), st.integers() | st.text(max_size=3)),
        "inputs": st.lists(st.sampled_from(["d1", "d2"]), max_size=2),
        "upstream": st.dictionaries(st.sampled_from(["corpus", "index"]), st.sampled_from(["k1", "k2"])),
        "versions": st.dictionaries(st.just("torch"), st.sampled_from(["1", "2"])),
    }
)


def key_of(part):
    return run_key(
        part["stage"],
        part["hyper"],
        inputs=part["inputs"],
        upstream=part["upstream"],
        versions=part["versions"],
    )


@given(one=parts, other=parts)
def test_keys_are_equal_exactly_when_their_parts_are(one, other):
    assert (key_of(one) == key_of(other)) is (one == other)
    assert len(key_of(one)) == 32
    backwards = {**one, "hyper": dict(reversed(one["hyper"].items()))}
    assert key_of(backwards) == key_of(one)


def test_the_version_of_every_extra_that_computes_counts():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    only_shown = {"tensorboard", "trackio", "wandb", "mlflow", "docs", "dev", "all", "pdf"}
    for extra, packages in project["optional-dependencies"].items():
        names = {re.split(r"[<>=!\[]", package)[0] for package in packages}
        assert extra in only_shown or names <= set(VERSIONED_PACKAGES), extra
