"""Progress of long work: a bar on a terminal, a plain line now and then otherwise.

Left out: metrics (see `plan.metrics`). Everything goes to stderr, so that stdout stays for results.
"""

import contextlib
import sys
import time
from collections.abc import Iterable, Iterator, Sized
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

T = TypeVar("T")

#: seconds between two plain lines
PLAIN_INTERVAL_S = 10.0


class Task:
    """One piece of work whose progress is shown; made by `task`."""

    def __init__(self, description: str, total: int | None, bar: Progress | None) -> None:
        self.description, self.total, self.done = description, total, 0
        self._bar = bar
        self._started = self._printed = time.monotonic()
        self._id = bar.add_task(description, total=total, note="") if bar else None

    def advance(self, steps: int = 1, note: str = "") -> None:
        """Say that ``steps`` more are done; ``note`` is shown beside the bar."""
        self.update(self.done + steps, note)

    def update(self, done: int, note: str = "") -> None:
        """Say how many steps are done in all."""
        self.done = done
        if self._bar is not None and self._id is not None:
            self._bar.update(self._id, completed=done, note=note)
            return
        now = time.monotonic()
        if now - self._printed >= PLAIN_INTERVAL_S or (self.total and done >= self.total):
            self._printed = now
            of = f"/{self.total}" if self.total else ""
            line = f"{self.description}: {done}{of} after {now - self._started:.0f} s"
            print(f"{line}  {note}".rstrip(), file=sys.stderr, flush=True)  # noqa: T201


@contextlib.contextmanager
def task(description: str, total: int | None = None) -> Iterator[Task]:
    """Show the progress of one piece of work while the block runs."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield Task(description, total, None)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console, transient=False) as bar:
        yield Task(description, total, bar)


def track(items: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
    """Iterate over ``items`` and show how far it is."""
    if total is None and isinstance(items, Sized):
        total = len(items)
    with task(description, total) as shown:
        for item in items:
            yield item
            shown.advance()


def say(line: str) -> None:
    """Print one line for the user on stderr, above any bar."""
    # not a Console of its own: that would write past the one that draws the bar
    print(line, file=sys.stderr, flush=True)  # noqa: T201
