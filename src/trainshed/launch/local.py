"""Runs on this machine: one after the other in this process, or several at once in worker processes.

In this process what a run prints is seen on the terminal and kept in ``train.log``; a worker's output goes to
its ``train.log`` and its progress is shown here. Left out: deciding what runs (`contract`), and executing it.
"""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from trainshed.errors import TrainshedError
from trainshed.launch.contract import LaunchOptions, LaunchResult, Outcome, prepare, worker_command
from trainshed.launch.display import Display
from trainshed.launch.tee import output_to
from trainshed.launch.threads import crowding_of, share_of
from trainshed.plan.graph import Plan, Run
from trainshed.plan.interrupts import Interrupted, StopRequest
from trainshed.plan.locks import locked
from trainshed.plan.status import Decision
from trainshed.progress import say

_POLL_S = 0.1
#: exit codes of runs that were asked to stop
_STOPPED = (128 + signal.SIGINT, 128 + signal.SIGTERM)


def launch(plan: Plan, execute: Callable[[Path], int], options: LaunchOptions | None = None) -> LaunchResult:
    """Execute a plan on this machine.

    Parameters
    ----------
    plan
        What to run.
    execute
        Executes a run directory in this process and returns its exit code.
    options
        How.

    Returns
    -------
    LaunchResult
        What became of each run; a failed run is data there, not an exception.

    Raises
    ------
    RunError
        When another launch works in the same output directory, or another process executes one of its runs.
    """
    options = options or LaunchOptions()
    with locked(plan.output_dir / ".launch.lock"):
        plan.save()
        launching = _Launch(plan, options)
        if options.jobs > 1 and len(plan.runs) > 1:
            _in_workers(launching)
        else:
            _in_this_process(launching, execute)
        return launching.result()


class _Launch:
    """What has become of the runs so far."""

    def __init__(self, plan: Plan, options: LaunchOptions) -> None:
        self.plan, self.options = plan, options
        self.outcomes: dict[str, Outcome] = {}
        self.failed: str | None = None
        self._working = False
        self.interrupted: int | None = None

    def result(self) -> LaunchResult:
        """Return the outcomes in the order of the plan; what had no turn was not run."""
        for run in self.plan.runs:
            if run.id not in self.outcomes:
                self.leave(run)
        return LaunchResult([self.outcomes[run.id] for run in self.plan.runs], self.interrupted)

    def blocked(self, run: Run) -> bool:
        """Whether a run will have no turn: something it needs was not done, or everything stops."""
        needed = [self.outcomes[need] for need in run.needs.values() if need in self.outcomes]
        return self.stopping or any(outcome.state != "done" for outcome in needed)

    @property
    def stopping(self) -> bool:
        """Whether nothing new is started."""
        return self.interrupted is not None or (self.failed is not None and not self.options.keep_going)

    def leave(self, run: Run) -> None:
        """Record that a run had no turn, and why."""
        needed = [self.outcomes[need] for need in run.needs.values() if need in self.outcomes]
        missing = next((outcome for outcome in needed if outcome.state != "done"), None)
        if self.interrupted is not None:
            reason = "the launch was stopped"
        elif missing is not None:
            reason = f"it needs {missing.run.name}, which {_became(missing)}"
        else:
            reason = f"{self.failed} failed (--keep-going runs what does not depend on it)"
        self.outcomes[run.id] = Outcome(run, "none", "not run", reason)
        if self.interrupted is None:
            say(f"{run.name}: not run: {reason}")

    def begin(self, run: Run) -> Decision:
        """Decide about a run whose turn it is; a skipped one is done with."""
        decision = prepare(self.plan, run, self.options)
        if decision.action == "skip":
            self.outcomes[run.id] = Outcome(run, "skip", "done", decision.reason)
            if any(self.outcomes[need].action != "skip" for need in run.needs.values()):
                # something before it ran and left the same as before: that was not foreseen
                say(f"{run.name}: skipped: {decision.reason}")
        else:
            self._tell_crowding()
            verb = {"resume": "goes on", "rerun": "runs again"}.get(decision.action, "runs")
            say(f"{run.name}: {verb}: {decision.reason}")
        return decision

    def _tell_crowding(self) -> None:
        # before the first run that works: later ones would find the load that this launch itself made
        if not self._working:
            self._working = True
            line = crowding_of([run.config for run in self.plan.runs], self.options.jobs)
            if line is not None:
                say(line)

    def end(self, decision: Decision, exit_code: int, seconds: float) -> None:
        """Record how the execution of a run ended."""
        run = decision.run
        directory = self.plan.directory(run.id)
        if exit_code in _STOPPED and self.interrupted is None:
            self.interrupted = exit_code - 128
        # one that ended before it began leaves the status of an earlier attempt
        state = directory.state() if directory.same_attempt() else "failed"
        if exit_code == 0 and state != "done":
            exit_code, state = 1, "failed"
        elif exit_code != 0 and state == "done":
            if exit_code not in _STOPPED:
                say(f"{run.name}: done, but its process then ended with code {exit_code}")
            exit_code = 0
        self.outcomes[run.id] = Outcome(run, decision.action, state, decision.reason, seconds, exit_code)
        asked = state == "interrupted" and exit_code in _STOPPED
        if state != "done" and not asked:
            self.failed = self.failed or run.name
        killed = (
            f"killed by {signal.Signals(exit_code - 128).name}, "
            if state == "interrupted" and not asked
            else ""
        )
        say(f"{run.name}: {killed}{state} after {seconds:.1f} s")


def _became(outcome: Outcome) -> str:
    return {"not run": "was not run", "interrupted": "was interrupted"}.get(outcome.state, "failed")


def _in_this_process(launching: _Launch, execute: Callable[[Path], int]) -> None:
    for run in launching.plan.runs:
        if launching.blocked(run):
            launching.leave(run)
            continue
        try:
            decision = launching.begin(run)
            if decision.works:
                directory = launching.plan.directory(run.id)
                started = time.monotonic()
                with output_to(directory.log_path):
                    code = execute(directory.path)
                launching.end(decision, code, time.monotonic() - started)
        except KeyboardInterrupt:
            launching.interrupted = signal.SIGINT


@dataclass
class _Worker:
    """A process that executes a run."""

    decision: Decision
    process: subprocess.Popen[bytes]
    started: float

    @property
    def run(self) -> Run:
        """The run it executes."""
        return self.decision.run


def _in_workers(launching: _Launch) -> None:
    stop = StopRequest()
    workers: list[_Worker] = []
    with stop.listening(), stop.graceful(), Display(launching.plan) as display, _no_orphans(workers):
        error = None
        while not stop.requested:
            try:
                started = _start_ready(launching, workers)
            except TrainshedError as problem:
                # let the workers that are busy finish before telling
                error, started = problem, False
                launching.failed = launching.failed or "the launch"
            if not workers and not started:
                break
            _collect(launching, workers)
            display.update([worker.run for worker in workers])
            if workers:
                time.sleep(_POLL_S)
        if stop.requested:
            launching.interrupted = stop.signum
            _stop_workers(launching, workers)
    if error is not None:
        raise error


def _start_ready(launching: _Launch, workers: list[_Worker]) -> bool:
    """Give every run whose turn it is a worker, as far as there is room; return whether anything changed."""
    changed = False
    busy = {worker.run.id for worker in workers}
    for run in launching.plan.runs:
        if run.id in launching.outcomes or run.id in busy:
            continue
        if launching.blocked(run):
            if not launching.stopping:
                launching.leave(run)
                changed = True
            continue
        ready = all(need in launching.outcomes for need in run.needs.values())
        if ready and len(workers) < launching.options.jobs:
            decision = launching.begin(run)
            changed = True
            if decision.works:
                workers.append(_start(launching, decision))
    return changed


def _start(launching: _Launch, decision: Decision) -> _Worker:
    directory = launching.plan.directory(decision.run.id)
    environment = dict(os.environ)
    environment.setdefault("OMP_NUM_THREADS", str(share_of(launching.options.jobs)))
    with directory.log_path.open("ab") as log:
        # the pipe on stdin closes when this process dies, however it dies: that is how a worker learns of it;
        # a session of its own keeps Ctrl-C on the terminal from reaching it twice
        process = subprocess.Popen(
            [*worker_command(directory.path), "--watch-parent"],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            env=environment,
            start_new_session=True,
        )
    return _Worker(decision, process, time.monotonic())


def _collect(launching: _Launch, workers: list[_Worker]) -> None:
    """Record the workers that have ended."""
    for worker in list(workers):
        code = worker.process.poll()
        if code is None:
            continue
        workers.remove(worker)
        # the log of a worker is not seen here, so tell what went wrong
        launching.end(worker.decision, code if code >= 0 else 128 - code, time.monotonic() - worker.started)
        _tell_failure(launching, worker.run)


def _tell_failure(launching: _Launch, run: Run) -> None:
    directory = launching.plan.directory(run.id)
    if launching.outcomes[run.id].state == "failed":
        error = directory.status().error or {"what": "it ended without saying why"}
        say(f"{run.name}: {error['what']}")
        for name in ("where", "fix"):
            if error.get(name):
                say(f"  {name}: {error[name]}")
        say(f"  log: {directory.log_path}")


def _stop_workers(launching: _Launch, workers: list[_Worker]) -> None:
    """Ask the workers to save a checkpoint and stop; kill those that take too long."""
    for worker in workers:
        worker.process.terminate()
    deadline = time.monotonic() + launching.options.grace_s
    with contextlib.suppress(Interrupted):
        while workers and time.monotonic() < deadline:
            _collect(launching, workers)
            time.sleep(_POLL_S)
    for worker in workers:
        worker.process.kill()
        worker.process.wait()
    _collect(launching, workers)


@contextlib.contextmanager
def _no_orphans(workers: list[_Worker]) -> Iterator[None]:
    """Leave no worker behind when the block ends by an exception."""
    try:
        yield
    finally:
        for worker in workers:
            worker.process.kill()
            worker.process.wait()
