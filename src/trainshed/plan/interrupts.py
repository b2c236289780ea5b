"""Stopping a run so that it can go on later.

The first SIGINT or SIGTERM inside `StopRequest.graceful` only sets a flag: the training loop sees it at the
end of its step, saves a checkpoint and calls `StopRequest.check`. Outside such a block, and at the second
signal, the run is interrupted where it stands, which is safe because everything is written atomically.
"""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType


class Interrupted(KeyboardInterrupt):
    """A run was asked to stop; not an `Exception`, so that no handler for errors takes it for one."""

    def __init__(self, signum: int = signal.SIGINT) -> None:
        self.signum = signum
        super().__init__(f"stopped by {signal.Signals(signum).name}")


class StopRequest:
    """Whether a run was asked to stop."""

    def __init__(self) -> None:
        self.signum: int | None = None
        self._graceful = 0

    @property
    def requested(self) -> bool:
        """Whether a signal has come."""
        return self.signum is not None

    @contextlib.contextmanager
    def graceful(self) -> Iterator["StopRequest"]:
        """Say that the block looks at `requested` itself, at the end of each step."""
        self._graceful += 1
        try:
            yield self
        finally:
            self._graceful -= 1

    def check(self) -> None:
        """Raise `Interrupted` when a signal has come."""
        if self.signum is not None:
            raise Interrupted(self.signum)

    def receive(self, signum: int, frame: FrameType | None = None) -> None:
        """Take a signal: the handler that `listening` installs."""
        first = self.signum is None
        self.signum = signum
        if not (first and self._graceful):
            raise Interrupted(signum)
        # a handler may have interrupted a print, so it must not print itself
        os.write(2, b"\nstopping after this step; once more to stop at once\n")

    @contextlib.contextmanager
    def listening(self) -> Iterator["StopRequest"]:
        """Receive SIGINT and SIGTERM while the block runs; does nothing outside the main thread."""
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        before = {number: signal.signal(number, self.receive) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
