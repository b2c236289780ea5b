"""The run directory: the only place where a launcher, a worker and a reader meet.

::

    RUN_DIR/
      run.json       the frozen entry of the plan: name, stage, key, hyper-parameters, upstream directories
      config.json    the whole resolved configuration that the worker reads
      status.json    state, progress, error, outputs with their digests, final metrics
      metrics.jsonl  what was measured, a line per step
      train.log      what was printed
      checkpoints/   what a killed run goes on from
      outputs/       the artifacts; trusted only when status.json says done
      lock           held while the run is executed

Left out: deciding what to run (see `plan.status`) and running it (see `launch`).
"""

import contextlib
import dataclasses
import os
import shutil
import socket
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from trainshed.errors import RunError, TrainshedError
from trainshed.files import canonical_json, digest_file, digest_text, disk_errors, read_json, write_json
from trainshed.plan.locks import Owner, lock_owner, locked
from trainshed.plan.metrics import MetricsLog

#: progress is written to the disk at most this often
_PROGRESS_INTERVAL_S = 2.0


def utc_now() -> str:
    """Return the time now as ISO 8601 in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


@dataclass
class RunStatus:
    """What ``status.json`` says.

    Parameters
    ----------
    state
        One of ``pending``, ``running``, ``done``, ``failed``, ``interrupted``, as last written.
    key, name, stage
        Of the run that last executed here.
    source
        Digest of the program that executed it.
    attempt
        Which attempt of the launcher this was; the same attempt goes on from its checkpoint.
    upstream
        For each upstream run, the digest of the outputs that were read.
    pid, host
        Of the process that last executed it.
    started, ended
        ISO 8601 in UTC.
    step, total
        How far it is.
    error
        ``{"type", "what", "where", "fix"}`` of a failed run.
    outputs
        ``{relative path: {"digest", "size", "mtime_ns"}}`` of a finished run.
    metrics
        The final metrics of a finished run.
    """

    state: str = "pending"
    key: str = ""
    name: str = ""
    stage: str = ""
    source: str = ""
    attempt: str = ""
    upstream: dict[str, str] = field(default_factory=dict)
    pid: int | None = None
    host: str | None = None
    started: str | None = None
    ended: str | None = None
    step: int | None = None
    total: int | None = None
    error: dict[str, str | None] | None = None
    outputs: dict[str, dict[str, Any]] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "RunStatus":
        """Read what `dataclasses.asdict` wrote; keys of a later version are ignored."""
        known = {item.name for item in dataclasses.fields(cls)}
        return cls(**{name: item for name, item in value.items() if name in known})

    def outputs_digest(self) -> str:
        """Return one digest over the names and contents of all outputs."""
        return digest_text(canonical_json({name: row["digest"] for name, row in self.outputs.items()}))


class RunDirectory:
    """One run's directory; making the object touches nothing.

    Parameters
    ----------
    path
        The directory.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._progress_written = 0.0

    def __repr__(self) -> str:
        return f"RunDirectory({str(self.path)!r})"

    @property
    def entry_path(self) -> Path:
        """``run.json``."""
        return self.path / "run.json"

    @property
    def config_path(self) -> Path:
        """``config.json``."""
        return self.path / "config.json"

    @property
    def status_path(self) -> Path:
        """``status.json``."""
        return self.path / "status.json"

    @property
    def metrics_path(self) -> Path:
        """``metrics.jsonl``."""
        return self.path / "metrics.jsonl"

    @property
    def log_path(self) -> Path:
        """``train.log``."""
        return self.path / "train.log"

    @property
    def checkpoints(self) -> Path:
        """``checkpoints/``: survives a kill; emptied when the run starts afresh."""
        return self.path / "checkpoints"

    @property
    def outputs(self) -> Path:
        """``outputs/``: empty whenever the run starts, also when it goes on from a checkpoint."""
        return self.path / "outputs"

    def metrics(self) -> MetricsLog:
        """Return the log that this run's measurements go to."""
        return MetricsLog(self.metrics_path)

    # -- reading -------------------------------------------------------------------------------------

    def entry(self) -> dict[str, Any]:
        """Return ``run.json``; a `RunError` says when this is no run directory."""
        value = self._read(self.entry_path)
        if value is None:
            raise RunError("not a run directory: it has no run.json", where=str(self.path))
        return value

    def config(self) -> dict[str, Any]:
        """Return ``config.json``; a `RunError` says when there is none."""
        value = self._read(self.config_path)
        if value is None:
            raise RunError("not a run directory: it has no config.json", where=str(self.path))
        return value

    def status(self) -> RunStatus:
        """Return ``status.json`` as it stands; pending when there is none."""
        value = self._read(self.status_path)
        return RunStatus() if value is None else RunStatus.from_json(value)

    @staticmethod
    def _read(path: Path) -> dict[str, Any] | None:
        try:
            value = read_json(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except ValueError as error:
            raise RunError(
                f"{path.name} is damaged: {error}",
                where=str(path),
                fix="delete this file and run the same command again",
            ) from error
        if not isinstance(value, dict):
            raise RunError(f"{path.name} is damaged: not a JSON object", where=str(path))
        return value

    def owner(self) -> Owner | None:
        """Return who executes this run now, or None."""
        return lock_owner(self.path / "lock")

    def state(self) -> str:
        """Return the state as ``status.json`` says, but ``interrupted`` when a running run's process died."""
        state = self.status().state
        if state != "running" or self.owner() is not None:
            return state
        # it may have ended, and let the lock go, between the two looks
        state = self.status().state
        return "interrupted" if state == "running" else state

    def has_checkpoint(self) -> bool:
        """Whether ``checkpoints/`` holds anything but partial files, whose names begin with a dot."""
        return self.checkpoints.is_dir() and any(
            not entry.name.startswith(".") for entry in os.scandir(self.checkpoints)
        )

    def damage(self) -> str | None:
        """Return what is wrong with the outputs of a finished run, or None when they are intact.

        A file whose size and modification time are as recorded is not read again.
        """
        for name, recorded in self.status().outputs.items():
            path = self.outputs / name
            try:
                found = path.stat()
            except (FileNotFoundError, NotADirectoryError):
                return f"outputs/{name} is missing"
            if found.st_size != recorded["size"]:
                return f"outputs/{name} is damaged: {found.st_size} bytes, not {recorded['size']}"
            if found.st_mtime_ns != recorded["mtime_ns"] and digest_file(path) != recorded["digest"]:
                return f"outputs/{name} is damaged: its content is not what the run wrote"
        return None

    def intact(self) -> bool:
        """Whether every recorded output is there with the recorded content."""
        return self.damage() is None

    # -- writing, by the launcher --------------------------------------------------------------------

    def freeze(self, entry: Mapping[str, Any], config: Mapping[str, Any]) -> None:
        """Write ``run.json`` and ``config.json``, which the worker executes."""
        write_json(self.config_path, config)
        write_json(self.entry_path, entry)
        try:
            fresh = self.status().state == "pending"
        except RunError:
            fresh = True
        if fresh:
            write_json(self.status_path, dataclasses.asdict(self._named("pending", entry)))

    # -- writing, by the worker, while it holds the lock ----------------------------------------------

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold this run while the block runs; a `RunError` names the process that has it already."""
        with locked(self.path / "lock"):
            yield

    @staticmethod
    def _named(state: str, entry: Mapping[str, Any]) -> RunStatus:
        return RunStatus(
            state=state,
            key=entry["key"],
            name=entry["name"],
            stage=entry["stage"],
            source=entry.get("source", ""),
            attempt=entry.get("attempt", ""),
        )

    def same_attempt(self) -> bool:
        """Whether ``run.json`` asks for the attempt that ``status.json`` is about."""
        status = self.status()
        return status.state != "pending" and status.attempt == self.entry().get("attempt", "")

    def start(self, *, resume: bool = False, upstream: Mapping[str, str] | None = None) -> None:
        """Say that the run is running.

        Parameters
        ----------
        resume
            Keep checkpoints and metrics. ``outputs/`` is emptied either way.
        upstream
            For each upstream run, the digest of the outputs that will be read.
        """
        with disk_errors(self.path):
            status = self._named("running", self.entry())
            previous = self.status()
            if resume:
                status.step, status.total = previous.step, previous.total
            status.upstream = dict(upstream or {})
            status.pid, status.host, status.started = os.getpid(), socket.gethostname(), utc_now()
            # first the state, then the removal: a kill between them must not leave "done" without outputs
            write_json(self.status_path, dataclasses.asdict(status))
            shutil.rmtree(self.outputs, ignore_errors=True)
            if not resume:
                shutil.rmtree(self.checkpoints, ignore_errors=True)
                self.metrics_path.unlink(missing_ok=True)
            self.outputs.mkdir()
            self.checkpoints.mkdir(exist_ok=True)

    def progress(self, step: int, total: int | None = None) -> None:
        """Say how far the run is; cheap, so call it at every step."""
        now = time.monotonic()
        if now - self._progress_written < _PROGRESS_INTERVAL_S:
            return
        self._progress_written = now
        status = self.status()
        status.step, status.total = step, total if total is not None else status.total
        write_json(self.status_path, dataclasses.asdict(status))

    def finish(self, metrics: Mapping[str, float] | None = None) -> None:
        """Record every file below ``outputs/`` and say that the run is done."""
        status = self.status()
        status.outputs = record_files(self.outputs)
        status.metrics = {name: float(value) for name, value in (metrics or {}).items()}
        if status.total is not None:
            status.step = status.total
        self._end(status, "done")

    def fail(self, error: BaseException) -> None:
        """Record why the run failed."""
        status = self.status()
        status.error = describe_error(error)
        self._end(status, "failed")

    def interrupt(self) -> None:
        """Record that the run was stopped and can go on."""
        self._end(self.status(), "interrupted")

    def _end(self, status: RunStatus, state: str) -> None:
        status.state, status.ended = state, utc_now()
        write_json(self.status_path, dataclasses.asdict(status))


def describe_error(error: BaseException) -> dict[str, str | None]:
    """Return the type, what, where and fix of an error as ``status.json`` records them."""
    if isinstance(error, TrainshedError):
        return {"type": type(error).__name__, "what": error.what, "where": error.where, "fix": error.fix}
    what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return {"type": type(error).__name__, "what": what, "where": None, "fix": None}


def record_files(root: Path) -> dict[str, dict[str, Any]]:
    """Sync every file below ``root`` and return its digest, size and modification time by relative name."""
    recorded: dict[str, dict[str, Any]] = {}
    with disk_errors(root):
        for path in sorted(root.rglob("*")):
            if not path.is_file():
                continue
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
                found = os.fstat(descriptor)
            finally:
                os.close(descriptor)
            recorded[path.relative_to(root).as_posix()] = {
                "digest": digest_file(path),
                "size": found.st_size,
                "mtime_ns": found.st_mtime_ns,
            }
    return recorded
