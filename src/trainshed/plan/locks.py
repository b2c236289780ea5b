"""A lock on a directory that its owner's death releases.

``flock`` on the file ``lock``: the kernel drops it when the owner dies, however it dies. The file names the
owner for whoever finds the lock held. Left out: locks across machines whose file system has no ``flock``.
"""

import contextlib
import fcntl
import os
import socket
import time
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from trainshed.errors import RunError
from trainshed.files import disk_errors

#: how long to wait for somebody who only looks whether the lock is free
_PATIENCE_S = 1.0


@dataclass(frozen=True)
class Owner:
    """Who holds a lock: a process on a host."""

    pid: int
    host: str

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


class _Held:
    """An open lock file; a fork of this process gives its copy away, so that only this process holds it."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor: int | None = descriptor
        reference = weakref.ref(self)

        def close_in_child() -> None:
            held = reference()
            if held is not None:
                held.close()

        os.register_at_fork(after_in_child=close_in_child)

    def close(self) -> None:
        if self.descriptor is not None:
            os.close(self.descriptor)
            self.descriptor = None


def _acquire(path: Path) -> int | None:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return descriptor
        except BlockingIOError:
            if time.monotonic() > deadline:
                os.close(descriptor)
                return None
            time.sleep(0.02)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock file ``path`` while the block runs.

    Raises
    ------
    RunError
        When another process, which the message names, holds it.
    """
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = _acquire(path)
    if descriptor is None:
        owner = lock_owner(path)
        raise RunError(
            f"this is being run already, by {owner or 'another process'}",
            where=str(path.parent),
            fix="wait until it is done, or stop it",
        )
    held = _Held(descriptor)
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()} {socket.gethostname()}\n".encode(), 0)
        yield
    finally:
        # before the copy of a fork that has not yet run its first line
        fcntl.flock(descriptor, fcntl.LOCK_UN)
        held.close()


def lock_owner(path: Path) -> Owner | None:
    """Return who holds the lock file ``path`` now, or None when it is free."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return None
    except BlockingIOError:
        pid, _, host = os.pread(descriptor, 256, 0).decode("utf-8", "replace").strip().partition(" ")
        return Owner(int(pid) if pid.isdigit() else 0, host or "an unknown host")
    finally:
        os.close(descriptor)
