"""The run directory: states, damage, kills."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainshed.errors import DataError, RunError
from trainshed.plan.directory import RunDirectory, RunStatus

ENTRY = {
    "id": "lsr-00",
    "name": "lsr",
    "stage": "train",
    "key": "k",
    "source": "s",
    "attempt": "a",
    "needs": {},
}


@pytest.fixture
def directory(tmp_path):
    directory = RunDirectory(tmp_path / "lsr-00")
    directory.freeze(ENTRY, {"execution": {}})
    return directory


def finished(directory, files):
    directory.start()
    for name, data in files.items():
        path = directory.outputs / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    directory.finish({"train/loss": 1})
    return directory


def test_the_states_of_a_life(directory):
    assert RunDirectory(directory.path / "nothing").state() == "pending"
    assert directory.state() == "pending"
    with directory.locked():
        directory.start()
        assert directory.state() == "running"
        directory.finish({"train/loss": 1})
    assert directory.state() == "done"
    status = directory.status()
    assert (status.key, status.name, status.stage, status.source) == ("k", "lsr", "train", "s")
    assert status.pid == os.getpid()
    assert status.started <= status.ended
    assert status.metrics == {"train/loss": 1.0}


def test_running_with_a_free_lock_is_interrupted(directory):
    directory.start()
    assert directory.status().state == "running"
    assert directory.state() == "interrupted"


def test_a_failure_keeps_what_where_and_fix(directory):
    directory.start()
    directory.fail(DataError("no rows", where="a.jsonl", fix="add some"))
    assert directory.state() == "failed"
    assert directory.status().error == {
        "type": "DataError",
        "what": "no rows",
        "where": "a.jsonl",
        "fix": "add some",
    }
    directory.fail(ZeroDivisionError("by zero"))
    assert directory.status().error["what"] == "ZeroDivisionError: by zero"


def test_starting_afresh_empties_and_going_on_keeps(directory):
    finished(directory, {"old.txt": b"old"})
    (directory.checkpoints / "1").mkdir()
    directory.metrics().write(1, {"a/b": 1})
    directory.start(resume=True, upstream={"corpus": "d"})
    assert list(directory.outputs.iterdir()) == []
    assert directory.has_checkpoint()
    assert directory.metrics_path.exists()
    assert directory.status().upstream == {"corpus": "d"}
    directory.start()
    assert not directory.has_checkpoint()
    assert not directory.metrics_path.exists()


def test_partial_files_are_no_checkpoint(directory):
    directory.start()
    (directory.checkpoints / ".1.partial").mkdir()
    assert not directory.has_checkpoint()


def test_done_is_taken_back_before_outputs_are_removed(directory, monkeypatch):
    finished(directory, {"a.txt": b"a"})

    def die(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(shutil, "rmtree", die)
    with pytest.raises(KeyboardInterrupt):
        directory.start()
    assert directory.state() == "interrupted"


@settings(max_examples=15, deadline=None)
@given(
    files=st.dictionaries(
        st.sampled_from(["a.bin", "model/b.bin", "model/c.txt"]), st.binary(max_size=40), min_size=1
    ),
    data=st.data(),
)
def test_any_change_of_content_is_noticed(files, data):
    with tempfile.TemporaryDirectory() as folder:
        directory = RunDirectory(Path(folder) / "run")
        directory.freeze(ENTRY, {})
        finished(directory, files)
        assert directory.intact()
        name = data.draw(st.sampled_from(sorted(files)))
        new = data.draw(st.binary(max_size=41).filter(lambda content: content != files[name]))
        path = directory.outputs / name
        path.write_bytes(new)
        os.utime(path, ns=(1, directory.status().outputs[name]["mtime_ns"] + 1))
        assert name in directory.damage()
        path.write_bytes(files[name])
        os.utime(path, ns=(1, 1))
        assert directory.intact(), "the same content with another time is intact"
        path.unlink()
        assert directory.damage() == f"outputs/{name} is missing"


def test_an_unchanged_file_is_not_read_again(directory, monkeypatch):
    finished(directory, {"a.txt": b"a"})
    monkeypatch.setattr("trainshed.plan.directory.digest_file", lambda path: pytest.fail("read again"))
    assert directory.intact()


def test_a_damaged_status_is_told_and_replaced(directory):
    directory.status_path.write_text('{"state": "do')
    with pytest.raises(RunError, match=r"status\.json is damaged") as caught:
        directory.status()
    assert caught.value.where == str(directory.status_path)
    directory.freeze(ENTRY, {})
    assert directory.state() == "pending"


def test_a_directory_of_something_else_is_told(tmp_path):
    with pytest.raises(RunError, match="not a run directory"):
        RunDirectory(tmp_path).entry()
    with pytest.raises(RunError, match="not a run directory"):
        RunDirectory(tmp_path).config()


def test_progress_is_written_now_and_then(directory):
    directory.start()
    for step in range(1, 200):
        directory.progress(step, 200)
    assert directory.status().step == 1
    assert directory.status().total == 200
    directory.finish()
    assert directory.status().step == 200


def test_a_status_of_a_later_version_is_read():
    assert RunStatus.from_json({"state": "done", "invented": 1}).state == "done"


def test_the_same_attempt_goes_on(directory):
    assert not directory.same_attempt()
    directory.start()
    assert directory.same_attempt()
    directory.freeze({**ENTRY, "attempt": "b"}, {})
    assert not directory.same_attempt()


def test_a_kill_while_status_is_written_leaves_a_whole_one(directory):
    script = """
import sys
from trainshed.plan.directory import RunDirectory
directory = RunDirectory(sys.argv[1])
directory.start()
print("going", flush=True)
while True:
    directory._progress_written = 0
    directory.progress(7, 100)
"""
    for _ in range(3):
        process = subprocess.Popen(
            [sys.executable, "-c", script, str(directory.path)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout.readline() == "going\n"
        process.stdout.close()
        process.kill()
        process.wait()
        assert json.loads(directory.status_path.read_text())["state"] == "running"
        assert directory.state() == "interrupted"
