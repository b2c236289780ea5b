"""``trainshed execute RUN_DIR``: do one frozen run, here and now; what every launcher ends in.

It takes the run's lock, sets threads and environment variables before anything heavy is imported, calls the
stage, and records how it ended. It never plans: the same attempt goes on from its checkpoint, another one
starts afresh. Left out: deciding what runs (`launch`), and the work itself (`stages`).
"""

import contextlib
import errno
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

from trainshed.cli.examples import ExampleCommand
from trainshed.cli.plugins import import_plugins
from trainshed.config.interpolation import fill_environment
from trainshed.config.resolved import RunConfig
from trainshed.errors import ConfigError, RunError, TrainshedError
from trainshed.plan.directory import RunDirectory, utc_now
from trainshed.plan.interrupts import StopRequest
from trainshed.progress import say
from trainshed.registry import STAGES
from trainshed.stages.context import StageContext, StageResult


@click.command(
    "execute",
    cls=ExampleCommand,
    examples=("trainshed execute outputs/rag/lsr-1a2b3c4d",),
)
@click.argument("run_dir", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--watch-parent", is_flag=True, help="Stop when stdin closes: the launcher has died.")
@click.pass_context
def command(ctx: click.Context, run_dir: Path, watch_parent: bool) -> None:
    """Execute the run that was frozen into RUN_DIR; launchers call this, people use `trainshed run`."""
    if watch_parent:
        threading.Thread(target=_stop_when_orphaned, daemon=True).start()
    ctx.exit(execute_run(run_dir.resolve(), debug=ctx.obj.debug))


def _stop_when_orphaned() -> None:
    # not sys.stdin: its lock, held by this thread, would abort the interpreter when it ends
    while os.read(0, 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def execute_run(path: Path, *, debug: bool = False) -> int:
    """Execute a run directory in this process and record how it ended.

    Parameters
    ----------
    path
        The run directory.
    debug
        Show the traceback of an error, which ``train.log`` always has.

    Returns
    -------
    int
        Exit code: 0 done, 128 + signal when stopped, else that of the error.
    """
    directory = RunDirectory(path)
    stop = StopRequest()
    try:
        with stop.listening(), directory.locked():
            if directory.same_attempt() and directory.status().state == "done":
                return 0
            try:
                _do(directory, stop)
            except KeyboardInterrupt:
                if directory.status().state != "done":
                    _record(directory.interrupt)
                return 128 + (stop.signum or signal.SIGINT)
            except Exception as error:  # noqa: BLE001 - the one boundary where a run's failure becomes data
                return _failed(directory, error, debug)
            return 0
    except TrainshedError as error:
        say(str(error))
        return error.exit_code


def _do(directory: RunDirectory, stop: StopRequest) -> None:
    entry = directory.entry()
    inputs, upstream = _upstream(directory, entry)
    resume = directory.same_attempt() and directory.has_checkpoint()
    directory.start(resume=resume, upstream=upstream)
    _log(
        directory,
        f"--- {entry['id']} {'goes on' if resume else 'starts'} {utc_now()}, process {os.getpid()}\n",
    )
    with _machine(directory.config()):
        import_plugins(entry.get("imports", ()))
        config = RunConfig.from_json(directory.config())
        stage = STAGES.get(entry["stage"])
        result = stage(StageContext(directory, config, inputs, stop))
        if not isinstance(result, StageResult):
            raise TypeError(
                f"the stage {entry['stage']!r} returned {type(result).__name__}, not a StageResult"
            )
        stop.check()
        directory.finish(result.metrics)


def _upstream(directory: RunDirectory, entry: dict[str, Any]) -> tuple[dict[str, Path], dict[str, str]]:
    """Return the outputs directory of each upstream run and the digest of what is in it."""
    inputs, digests = {}, {}
    for name, run_id in entry["needs"].items():
        upstream = RunDirectory(directory.path.parent / run_id)
        status = upstream.status()
        if status.state != "done":
            raise RunError(
                f"it needs {name}, which is {upstream.state()}",
                where=str(upstream.path),
                fix="run the whole configuration with `trainshed run`",
            )
        damage = upstream.damage()
        if damage is not None:
            raise RunError(
                f"it needs {name}, whose {damage}",
                where=str(upstream.path),
                fix="run the whole configuration with `trainshed run`, which makes it again",
            )
        inputs[name], digests[name] = upstream.outputs, status.outputs_digest()
    return inputs, digests


def _variable(name: str, written: str) -> str:
    """Return the value of an environment variable as the configuration writes it."""
    try:
        # a secret that ${env:NAME} stands for is taken as it is, whatever `$` it holds
        return fill_environment(os.path.expandvars(written), os.environ)
    except KeyError as error:
        raise ConfigError(
            f"the environment variable {error.args[0]} is not set", where=f"environment.{name}"
        ) from None


@contextlib.contextmanager
def _machine(config: dict[str, Any]) -> Iterator[None]:
    """Set threads and environment variables while the block runs."""
    changes = {name: _variable(name, value) for name, value in config["environment"].items()}
    threads = config["execution"]["threads"]
    if threads is not None:
        changes |= dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))
    before = {name: os.environ.get(name) for name in changes}
    os.environ.update(changes)
    torch = sys.modules.get("torch")
    # an earlier run in this process has imported it: the variable comes too late
    used = torch.get_num_threads() if torch is not None and threads is not None else None
    if torch is not None and threads is not None:
        torch.set_num_threads(threads)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        if torch is not None and used is not None:
            torch.set_num_threads(used)


def _failed(directory: RunDirectory, error: Exception, debug: bool) -> int:
    """Record a failure, tell it, and return the exit code."""
    trace = "".join(traceback.format_exception(error))
    with contextlib.suppress(OSError):
        # no room for the traceback must not hide the error itself
        _log(directory, trace)
    known = _full_disk(directory, error) or error
    _record(lambda: directory.fail(known))
    if debug:
        click.echo(trace, err=True)
    if isinstance(known, TrainshedError):
        say(str(known))
        return known.exit_code
    say(f"{type(known).__name__}: {known}\n  where: {directory.path}\n  trace: {directory.log_path}")
    return 1


def _record(write: Callable[[], None]) -> None:
    try:
        write()
    except RunError as error:
        # the status stays "running" with its lock free, which reads as interrupted
        say(f"how the run ended could not be recorded: {error.what}")


def _full_disk(directory: RunDirectory, error: BaseException) -> RunError | None:
    """Return a `RunError` when a full disk lies behind an error; Rust libraries tell that as text only."""
    seen: BaseException | None = error
    while seen is not None:
        full = isinstance(seen, OSError) and seen.errno in (errno.ENOSPC, errno.EDQUOT)
        if not isinstance(seen, TrainshedError) and (full or "No space left on device" in str(seen)):
            return RunError(
                "the disk is full; what was complete before is still intact",
                where=str(directory.path),
                fix="free some space and run the same command again: it goes on from there",
            )
        seen = seen.__cause__ or seen.__context__
    return None


def _log(directory: RunDirectory, text: str) -> None:
    with directory.log_path.open("a", encoding="utf-8") as log:
        log.write(text)
