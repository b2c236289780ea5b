"""What a run prints goes to the terminal and to its ``train.log``.

A bar that redraws itself reaches the log once, in its last form. Left out: what libraries written in C print
past Python; in worker processes, whose whole output is the log, that is in it too.
"""

import contextlib
import io
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

_ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b\][^\x07]*\x07")


class Tee(io.TextIOBase):
    """A stream that passes everything on to another one and, while `logging_to` holds, to a log file.

    Parameters
    ----------
    stream
        Where everything goes.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._log: TextIO | None = None
        self._line = ""

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """Of the stream behind."""
        return self._stream.encoding

    def isatty(self) -> bool:
        """Whether the stream behind is a terminal."""
        return self._stream.isatty()

    def fileno(self) -> int:
        """File number of the stream behind."""
        return self._stream.fileno()

    def writable(self) -> bool:
        """Return True."""
        return True

    def flush(self) -> None:
        """Flush both."""
        self._stream.flush()
        if self._log is not None:
            self._log.flush()

    def write(self, text: str) -> int:
        """Write to the stream, and complete lines to the log."""
        self._stream.write(text)
        if self._log is not None:
            *lines, rest = (self._line + text).split("\n")
            for line in lines:
                self._log.write(_last_form(line) + "\n")
            self._line = rest.rpartition("\r")[2] if not rest.endswith("\r") else rest
            if lines:
                self._log.flush()
        return len(text)

    @contextlib.contextmanager
    def logging_to(self, log: TextIO) -> Iterator[None]:
        """Copy to ``log`` while the block runs."""
        self._log, self._line = log, ""
        try:
            yield
        finally:
            if self._line:
                log.write(_last_form(self._line) + "\n")
            log.flush()
            self._log, self._line = None, ""


def _last_form(line: str) -> str:
    """Return what a terminal would show in the end of a line that was written over itself."""
    return _ESCAPE.sub("", line.rstrip("\r").rpartition("\r")[2])


@contextlib.contextmanager
def output_to(path: Path) -> Iterator[None]:
    """Copy what Python prints on stdout and stderr to the end of a file while the block runs."""
    out, err = sys.stdout, sys.stderr
    path.parent.mkdir(parents=True, exist_ok=True)
    tees = Tee(out), Tee(err)
    with path.open("a", encoding="utf-8") as log, tees[0].logging_to(log), tees[1].logging_to(log):
        sys.stdout, sys.stderr = tees
        try:
            yield
        finally:
            sys.stdout, sys.stderr = out, err
