"""How far the runs in worker processes are: a bar each on a terminal, a plain line now and then otherwise.

Left out: the progress of a run in this process, which shows itself.
"""

import time
from collections.abc import Iterable
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from trainshed.plan.graph import Plan, Run
from trainshed.progress import PLAIN_INTERVAL_S, say

_INTERVAL_S = 0.5


class Display:
    """Shows the progress that workers write into their run directories; a context manager.

    Parameters
    ----------
    plan
        The plan whose runs are shown.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._shown = 0.0
        self._bars: dict[str, TaskID] = {}
        self._progress: Progress | None = None

    def __enter__(self) -> "Display":
        console = Console(stderr=True)
        if console.is_terminal:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
            )
            self._progress = Progress(*columns, console=console, transient=True)
            self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._progress is not None:
            self._progress.stop()

    def update(self, runs: Iterable[Run]) -> None:
        """Show how far the runs that work now are; cheap when called often."""
        now = time.monotonic()
        if now - self._shown < (_INTERVAL_S if self._progress else PLAIN_INTERVAL_S):
            return
        first, self._shown = self._shown == 0.0, now
        if self._progress is not None:
            self._bar(self._progress, list(runs))
        elif not first:
            for run in runs:
                step, total = self._step(run)
                if step is not None:
                    say(f"{run.name}: {step}" + (f"/{total}" if total else ""))

    def _step(self, run: Run) -> tuple[int | None, int | None]:
        status = self._plan.directory(run.id).status()
        return status.step, status.total

    def _bar(self, progress: Progress, runs: list[Run]) -> None:
        working = {run.id for run in runs}
        for run_id in [name for name in self._bars if name not in working]:
            progress.remove_task(self._bars.pop(run_id))
        for run in runs:
            step, total = self._step(run)
            if run.id not in self._bars:
                self._bars[run.id] = progress.add_task(run.name, total=total)
            progress.update(self._bars[run.id], completed=step or 0, total=total)
