"""`trainshed execute`: what a launcher relies on."""

import json
import os

import pytest

from trainshed.cli.execute import _full_disk, _machine
from trainshed.errors import ConfigError, RunError
from trainshed.plan.directory import RunDirectory


def test_a_frozen_run_is_executed_without_its_configuration_file(project, undisturbed):
    project("run", "p.yaml", FAKE_FAIL="first:data")
    project.config.unlink()
    project.trace()
    directory = project.directory("first")
    done = project("execute", directory)
    assert done.returncode == 0, done.stderr
    assert project.trace() == ["first start at 9"], "the same attempt goes on from its checkpoint"
    assert json.loads((directory / "status.json").read_text())["state"] == "done"
    assert project("execute", directory).returncode == 0
    assert project.trace() == [], "an attempt that is done is not done again"


def test_what_is_upstream_must_be_done(project):
    project("run", "p.yaml", FAKE_FAIL="second:data")
    entry = project.directory("second") / "run.json"
    first = project.directory("first")
    (first / "status.json").unlink()
    done = project("execute", entry.parent)
    assert done.returncode == 1
    assert "it needs first, which is pending" in done.stderr
    assert str(first) in done.stderr


def test_what_is_upstream_must_be_as_it_was_written(project, undisturbed):
    project("run", "p.yaml", FAKE_FAIL="second:data")
    weights = project.directory("first") / "outputs" / "model" / "weights.txt"
    weights.write_text(weights.read_text()[:-1])
    done = project("execute", project.directory("second"))
    assert done.returncode == 1
    assert "it needs first, whose outputs/model/weights.txt is damaged" in done.stderr
    assert f"where: {weights.parents[2]}" in done.stderr
    project.run_ok()
    assert project.weights() == undisturbed


def test_a_lock_that_is_held_is_refused(project):
    project("run", "p.yaml", FAKE_FAIL="first:data")
    directory = project.directory("first")
    before = (directory / "status.json").read_bytes()
    with RunDirectory(directory).locked():
        done = project("execute", directory)
    assert done.returncode == 1
    assert f"run already, by process {os.getpid()} on" in done.stderr
    assert (directory / "status.json").read_bytes() == before


def test_no_run_directory(project):
    done = project("execute", project.path)
    assert done.returncode == 1
    assert "not a run directory" in done.stderr
    assert "Traceback" not in done.stderr


def test_environment_and_threads_hold_for_the_run_only(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    config = {"environment": {"MINE": "x"}, "execution": {"threads": 2}}
    with _machine(config):
        assert (os.environ["OMP_NUM_THREADS"], os.environ["MKL_NUM_THREADS"]) == ("2", "2")
        assert os.environ["MINE"] == "x"
    assert os.environ["OMP_NUM_THREADS"] == "7"
    assert "MKL_NUM_THREADS" not in os.environ
    assert "MINE" not in os.environ


def test_a_secret_comes_from_the_environment_of_the_worker(monkeypatch):
    monkeypatch.setenv("MY_KEY", "a$HOME")
    config = {"environment": {"KEY": "x-${env:MY_KEY}"}, "execution": {"threads": None}}
    with _machine(config):
        assert os.environ["KEY"] == "x-a$HOME"
    monkeypatch.delenv("MY_KEY")
    with pytest.raises(ConfigError, match="MY_KEY is not set"), _machine(config):
        pass


@pytest.mark.parametrize(
    ("error", "full"),
    [
        (OSError(28, "No space left on device"), True),
        (OSError(27, "File too large"), False),
        (RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"), True),
        (OSError(2, "No such file"), False),
        (ValueError("x"), False),
    ],
)
def test_a_full_disk_is_known_however_it_is_told(tmp_path, error, full):
    wrapped = TypeError("wrapped")
    wrapped.__cause__ = error
    for seen in (error, wrapped):
        found = _full_disk(RunDirectory(tmp_path), seen)
        assert isinstance(found, RunError) is full
