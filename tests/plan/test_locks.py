"""Locks between processes."""

import os
import signal
import subprocess
import sys

import pytest

from trainshed.errors import RunError
from trainshed.plan.locks import lock_owner, locked

HOLD = """
import sys, os, time, pathlib
from trainshed.plan.locks import locked
with locked(pathlib.Path(sys.argv[1])):
    if sys.argv[2] == "fork" and os.fork() == 0:
        time.sleep(60)
        os._exit(0)
    print("held", flush=True)
    sys.stdin.readline()
print("released", flush=True)
sys.stdin.read()
"""


def hold(path, kind="plain"):
    command = [sys.executable, "-c", HOLD, str(path), kind]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout.readline() == "held\n"
    return process


def end(process):
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    process.stdin.close()
    process.stdout.close()


def test_a_held_lock_is_refused_and_its_owner_named(tmp_path):
    path = tmp_path / "run" / "lock"
    with locked(path):
        assert lock_owner(path).pid == os.getpid()
        with pytest.raises(RunError, match=rf"process {os.getpid()} on ") as caught, locked(path):
            pass
        assert caught.value.where == str(path.parent)
    assert lock_owner(path) is None
    with locked(path):
        pass


def test_a_lock_of_another_process_is_free_once_that_is_killed(tmp_path):
    path = tmp_path / "lock"
    process = hold(path)
    try:
        assert lock_owner(path).pid == process.pid
        with pytest.raises(RunError, match=f"process {process.pid} "), locked(path):
            pass
    finally:
        end(process)
    assert process.returncode == -signal.SIGKILL
    assert lock_owner(path) is None
    with locked(path):
        pass


def test_a_forked_child_does_not_keep_the_lock(tmp_path):
    path = tmp_path / "lock"
    process = hold(path, "fork")
    try:
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == "released\n"
        assert lock_owner(path) is None
    finally:
        end(process)


def test_no_file_is_no_owner(tmp_path):
    assert lock_owner(tmp_path / "lock") is None
    assert not (tmp_path / "lock").exists()
