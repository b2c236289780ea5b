"""Running a program that nobody has read, with little to harm and little time.

Each program runs in a Python process of its own: a new session (so that all of it can be killed), an empty
temporary directory as working and home directory, no environment of ours, no input, and limits of CPU time,
address space, file size, open files and core dumps (`resource`). Where the system allows unprivileged
namespaces (`unshare`), it also has no network and a process space of its own, which dies with it.

What this is not: a boundary against an attacker. Without namespaces a program may open sockets, start
processes that leave its session, and read files that this user may read. Run training on untrusted prompts in
a container or a virtual machine. Left out: languages other than Python.
"""

import contextlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_NAMESPACES = ("--user", "--map-root-user", "--net", "--pid", "--fork", "--kill-child", "--mount-proc")
#: what a program may leave in the report, in bytes
_MOST_REPORTED = 65_536

#: what the child runs; the program comes by standard input, so that no file holds the nonce
_BOOTSTRAP = r"""
import json, os, resource, sys
job = json.loads(sys.stdin.buffer.read())
def limit(kind, value):
    hard = resource.getrlimit(kind)[1]
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(kind, (value, value))
limit(resource.RLIMIT_CORE, 0)
limit(resource.RLIMIT_CPU, job["cpu_s"])
limit(resource.RLIMIT_FSIZE, job["file_bytes"])
limit(resource.RLIMIT_NOFILE, 64)
limit(resource.RLIMIT_AS, job["memory_bytes"])
channel, nothing = os.dup(1), os.open(os.devnull, os.O_RDWR)
for stream in (0, 1, 2):
    os.dup2(nothing, stream)
program, tests, nonce = job["program"], job["tests"], job["nonce"]
del job
def told(error):
    return f"{type(error).__name__}: {error}"[:300]
passed, why = 0, None
space = {"__name__": "program"}
try:
    exec(compile(program, "program", "exec"), space)
except BaseException as error:
    why = told(error)
else:
    for test in tests:
        try:
            exec(compile(test, "test", "exec"), space)
            passed += 1
        except BaseException as error:
            why = why or told(error)
os.write(channel, json.dumps({"nonce": nonce, "passed": passed, "why": why}).encode())
os._exit(0)
"""


@dataclass(frozen=True)
class Limits:
    """What a program may take.

    Parameters
    ----------
    time_s
        Real time; CPU time is limited to the same, rounded up.
    memory_bytes
        Address space.
    file_bytes
        Largest file.
    """

    time_s: float = 5.0
    memory_bytes: int = 512 * 2**20
    file_bytes: int = 4 * 2**20


@dataclass(frozen=True)
class Outcome:
    """What became of a program.

    Parameters
    ----------
    passed, tests
        How many of its tests passed, of how many.
    why
        Why the first of them did not, or None.
    """

    passed: int
    tests: int
    why: str | None = None


def namespaces_work() -> bool:
    """Return whether this system lets a user's program have namespaces of its own; starts one to see."""
    if shutil.which("unshare") is None:
        return False
    done = subprocess.run(
        ["unshare", *_NAMESPACES, "true"], capture_output=True, check=False, timeout=10, env={}
    )
    return done.returncode == 0


def run_tests(program: str, tests: Sequence[str], *, limits: Limits, isolated: bool) -> Outcome:
    """Run a program, then tests in its name space, and say how many passed.

    A program that ends the process, waits, or takes too much fails its tests: they count as passed only when
    the child says so with a number that the program was not given.

    Parameters
    ----------
    program
        Python text.
    tests
        Python texts, each run after the program; one that raises has failed.
    limits
        What it may take.
    isolated
        Whether to use namespaces, as `namespaces_work` found.
    """
    nonce = secrets.token_hex(16)
    job = {
        "program": program,
        "tests": list(tests),
        "nonce": nonce,
        "cpu_s": max(1, round(limits.time_s + 0.5)),
        "memory_bytes": limits.memory_bytes,
        "file_bytes": limits.file_bytes,
    }
    command = [sys.executable, "-I", "-S", "-B", "-X", "utf8", "-c", _BOOTSTRAP]
    if isolated:
        command = [shutil.which("unshare") or "unshare", *_NAMESPACES, *command]
    with tempfile.TemporaryDirectory(prefix="trainshed-program-", ignore_cleanup_errors=True) as place:
        report = Path(place) / "report"
        work = Path(place) / "work"
        work.mkdir()
        with report.open("wb") as channel:
            ended = _run(command, json.dumps(job).encode(), work, channel.fileno(), limits.time_s)
        return _outcome(report, nonce, len(tests), ended)


def _run(command: list[str], text: bytes, work: Path, channel: int, time_s: float) -> str:
    """Run the child to its end, or to the end of its time, and return how it ended."""
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=channel,
        stderr=subprocess.DEVNULL,
        cwd=work,
        env={"HOME": str(work), "LC_ALL": "C.UTF-8", "PATH": "/usr/bin:/bin"},
        start_new_session=True,
    )
    try:
        process.communicate(text, timeout=time_s)
        code = process.returncode
        return f"the program ended the process with code {code}" if code >= 0 else _killed_by(-code)
    except subprocess.TimeoutExpired:
        return f"timed out after {time_s:g} s"
    finally:
        # what the program started goes with it
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _killed_by(number: int) -> str:
    names = {
        signal.SIGXCPU: "took too much CPU time",
        signal.SIGKILL: "was killed",
        signal.SIGXFSZ: "wrote too much",
    }
    return f"the program {names.get(signal.Signals(number), f'was stopped by signal {number}')}"


def _outcome(report: Path, nonce: str, tests: int, ended: str) -> Outcome:
    with report.open("rb") as file:
        text = file.read(_MOST_REPORTED)
    try:
        found = json.loads(text)
        if found["nonce"] == nonce:
            return Outcome(int(found["passed"]), tests, found["why"])
    except (ValueError, KeyError, TypeError):
        pass  # what is there was not written by the bootstrap: the program did not come to its end
    return Outcome(0, tests, ended)
