"""What every launcher does: take a plan, have its runs executed, say what became of each.

A launcher decides for each run, once all that it needs is done, whether it is skipped, goes on or starts
afresh; freezes its entry into the run directory; and has ``trainshed execute RUN_DIR``, or the function that
is behind it, do the rest. Left out: the places (`local`).
"""

import sys
import uuid
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from trainshed.errors import RunError
from trainshed.plan.graph import Plan, Run
from trainshed.plan.status import Decision, decide_run


@dataclass(frozen=True)
class LaunchOptions:
    """How a plan is launched.

    Parameters
    ----------
    jobs
        How many runs work at once; with more than one each has a process of its own.
    force
        Ids of runs to execute whatever is there.
    keep_going
        After a failure still execute the runs that do not depend on it.
    keep_stale
        Take results that an older source of this program made.
    grace_s
        How long workers that were asked to stop may take to save a checkpoint.
    """

    jobs: int = 1
    force: Collection[str] = ()
    keep_going: bool = False
    keep_stale: bool = False
    grace_s: float = 120.0


@dataclass(frozen=True)
class Outcome:
    """What became of one run.

    Parameters
    ----------
    run
        The run.
    action
        What was done: ``run``, ``rerun``, ``resume``, ``skip``, or ``none`` when it was not its turn.
    state
        ``done``, ``failed``, ``interrupted``, or ``not run``.
    reason
        Why it was done, skipped or not run.
    seconds
        How long it took.
    exit_code
        Of its execution; 0 when it was skipped or not run.
    """

    run: Run
    action: str
    state: str
    reason: str
    seconds: float = 0.0
    exit_code: int = 0


@dataclass
class LaunchResult:
    """What became of every run of a plan, in the order of the plan.

    Parameters
    ----------
    outcomes
        One a run.
    interrupted
        Whether the launch was stopped by a signal; its number, or None.
    """

    outcomes: list[Outcome] = field(default_factory=list)
    interrupted: int | None = None

    @property
    def exit_code(self) -> int:
        """0 when every run is done; 128 + signal when stopped; else the code of the first failure."""
        if self.interrupted is not None:
            return 128 + self.interrupted
        failed = [o.exit_code for o in self.outcomes if o.state != "done"]
        return next((code for code in failed if code), 1) if failed else 0


def prepare(plan: Plan, run: Run, options: LaunchOptions) -> Decision:
    """Decide about a run whose upstream runs are done, and freeze its entry when it is to be executed.

    Raises
    ------
    RunError
        When another process executes it.
    """
    decision = decide_run(plan, run, force=options.force, keep_stale=options.keep_stale)
    directory = plan.directory(run.id)
    if decision.action == "running":
        raise RunError(
            f"{run.name} is {decision.reason}",
            where=str(directory.path),
            fix="wait until it is done, or stop that process",
        )
    if decision.works:
        attempt = uuid.uuid4().hex[:12]
        if decision.action == "resume":
            attempt = directory.status().attempt
        directory.freeze({**plan.worker_entry(run), "attempt": attempt}, plan.worker_config(run))
    return decision


def worker_command(directory: Path) -> list[str]:
    """Return the command that executes a run directory in a process of its own."""
    return [sys.executable, "-m", "trainshed.cli.main", "execute", str(directory)]
