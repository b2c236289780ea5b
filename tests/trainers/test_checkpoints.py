"""Which checkpoint a training goes on from, and what is said when none can be."""

import json
import re

import pytest

from trainshed.errors import CheckpointError
from trainshed.trainers.checkpoints import MANIFEST, damage, latest_checkpoint, write_manifest


@pytest.fixture
def directory(tmp_path):
    """Three whole checkpoints."""
    for step in (2, 4, 10):
        path = tmp_path / f"checkpoint-{step}"
        path.mkdir()
        (path / "weights").write_bytes(bytes(range(step)))
        (path / "state.json").write_text(json.dumps({"step": step}))
        write_manifest(path, "mine")
    return tmp_path


def contents(directory):
    return {
        path.relative_to(directory).as_posix(): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file()
    }


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def other_shape(path, value):
    (path / MANIFEST).write_text(json.dumps(value))


SPOILED = {
    "flipped": (lambda path: flip(path / "weights"), "weights is damaged"),
    "cut": (lambda path: (path / "weights").write_bytes(b"\0"), "weights is damaged"),
    "gone": (lambda path: (path / "weights").unlink(), "weights is missing"),
    "no manifest": (lambda path: (path / MANIFEST).unlink(), "it has no manifest.json"),
    "cut manifest": (lambda path: (path / MANIFEST).write_text('{"files": '), "manifest.json is damaged"),
    "a list": (lambda path: other_shape(path, []), "manifest.json is damaged"),
    "no fingerprint": (lambda path: other_shape(path, {"files": {}}), "manifest.json is damaged"),
    "no files": (lambda path: other_shape(path, {"fingerprint": ""}), "manifest.json is damaged"),
    "no size": (
        lambda path: other_shape(path, {"fingerprint": "", "files": {"weights": {}}}),
        "manifest.json is damaged",
    ),
    "files as a list": (
        lambda path: other_shape(path, {"fingerprint": "", "files": ["weights"]}),
        "manifest.json is damaged",
    ),
}
spoiled = pytest.mark.parametrize(("spoil", "wrong"), SPOILED.values(), ids=SPOILED)


def test_the_newest_whole_one_is_taken(directory, capsys):
    before = contents(directory)
    assert latest_checkpoint(directory, "mine") == directory / "checkpoint-10"
    assert capsys.readouterr().err == f"going on from step 10 ({directory / 'checkpoint-10'})\n"
    assert contents(directory) == before
    assert damage(directory / "checkpoint-10") is None


def test_without_checkpoints_there_is_nothing_to_go_on_from(tmp_path, capsys):
    (tmp_path / ".checkpoint-2.partial").mkdir()
    assert latest_checkpoint(tmp_path, "mine") is None
    assert latest_checkpoint(tmp_path / "none", "mine") is None
    assert capsys.readouterr().err == ""


@spoiled
def test_a_damaged_one_is_told_and_the_one_before_taken(directory, capsys, spoil, wrong):
    newest = directory / "checkpoint-10"
    spoil(newest)
    assert damage(newest) == wrong
    assert latest_checkpoint(directory, "mine") == directory / "checkpoint-4"
    told = capsys.readouterr().err.splitlines()
    assert told == [
        f"checkpoint-10 is not usable and is removed: {wrong} ({newest})",
        f"going on from step 4 ({directory / 'checkpoint-4'})",
    ]
    assert sorted(path.name for path in directory.iterdir()) == ["checkpoint-2", "checkpoint-4"]


@spoiled
def test_when_all_are_damaged_nothing_is_begun_and_nothing_removed(directory, spoil, wrong):
    for path in directory.iterdir():
        spoil(path)
    before = contents(directory)
    for _ in range(2):
        with pytest.raises(CheckpointError, match=re.escape(f"checkpoint-10: {wrong}")) as caught:
            latest_checkpoint(directory, "mine")
        assert caught.value.where == str(directory)
        assert "delete" in caught.value.fix
        assert "--force" in caught.value.fix
        assert contents(directory) == before


def test_one_of_another_training_is_refused_and_nothing_removed(directory):
    flip(directory / "checkpoint-10" / "weights")
    before = contents(directory)
    with pytest.raises(CheckpointError, match="another training") as caught:
        latest_checkpoint(directory, "other")
    assert caught.value.where == str(directory / "checkpoint-4")
    assert contents(directory) == before


def test_a_file_that_the_disk_cannot_read_is_damage(directory, monkeypatch):
    def fail(path):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("trainshed.trainers.checkpoints.digest_file", fail)
    assert damage(directory / "checkpoint-2") == "state.json cannot be read: Input/output error"
