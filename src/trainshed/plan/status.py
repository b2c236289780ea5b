"""What will happen to each run of a plan, and why, in words.

``run`` it has no result yet; ``rerun`` it has one that holds no longer; ``resume`` it goes on from a
checkpoint; ``skip`` it is done; ``running`` another process is at it. Left out: doing it (`launch`).
"""

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainshed.errors import RunError
from trainshed.files import read_json
from trainshed.plan.directory import RunDirectory, RunStatus
from trainshed.plan.graph import Plan, Run

#: differences that a reason names before it only counts them
_SHOWN = 3


@dataclass(frozen=True)
class Decision:
    """What will happen to a run.

    Parameters
    ----------
    run
        The run.
    action
        ``run``, ``rerun``, ``resume``, ``skip`` or ``running``.
    reason
        Why, in words.
    """

    run: Run
    action: str
    reason: str

    @property
    def works(self) -> bool:
        """Whether the run will be executed."""
        return self.action in ("run", "rerun", "resume")


def decide(plan: Plan, *, force: Collection[str] = (), keep_stale: bool = False) -> list[Decision]:
    """Return what would happen to every run if the plan were launched now; nothing is written.

    Parameters
    ----------
    plan
        The plan.
    force
        Ids of runs to execute whatever is there.
    keep_stale
        Take results that an older source of this program made.
    """
    former = Former(plan)
    decisions: dict[str, Decision] = {}
    for run in plan.runs:
        decision = decide_run(plan, run, force=force, keep_stale=keep_stale, former=former)
        working = [name for name, run_id in run.needs.items() if decisions[run_id].action != "skip"]
        if working and decision.action in ("skip", "resume"):
            decision = Decision(run, "rerun", f"upstream {working[0]} will run")
        elif working and decision.action == "run" and decision.reason == NEVER:
            decision = Decision(run, "run", f"{NEVER}; upstream {working[0]} will run")
        decisions[run.id] = decision
    return list(decisions.values())


NEVER = "never run"


def decide_run(
    plan: Plan,
    run: Run,
    *,
    force: Collection[str] = (),
    keep_stale: bool = False,
    former: "Former | None" = None,
) -> Decision:
    """Return what happens to one run as its directory and its upstream directories are now."""
    directory = plan.directory(run.id)
    owner = directory.owner()
    if owner is not None:
        return Decision(run, "running", f"being run by {owner}")
    try:
        status = directory.status()
    except RunError as error:
        return Decision(run, "rerun", error.what)
    if status.state == "pending":
        why = "forced" if run.id in force else (former or Former(plan)).why_new(run)
        return Decision(run, "run", why)
    again = "rerun" if status.state == "done" else "run"
    reason = "forced" if run.id in force else _outdated(plan, run, status, keep_stale)
    if reason is None and status.state == "done":
        damage = directory.damage()
        if damage is None:
            return Decision(run, "skip", _finished(status, plan))
        return Decision(run, "rerun", damage)
    if reason is not None:
        return Decision(run, again, reason)
    action = "resume" if directory.has_checkpoint() else "run"
    return Decision(run, action, _stopped(status, directory))


def _finished(status: RunStatus, plan: Plan) -> str:
    stale = "" if status.source == plan.source else "; made by an older source, kept"
    return f"finished {status.ended}, outputs intact{stale}"


def _stopped(status: RunStatus, directory: RunDirectory) -> str:
    if status.state == "failed":
        said = f"failed: {(status.error or {}).get('what')}"
    else:
        at = f" at step {status.step}" + (f"/{status.total}" if status.total else "") if status.step else ""
        said = f"interrupted{at}"
    return said if directory.has_checkpoint() else f"{said}; no checkpoint to go on from"


def _outdated(plan: Plan, run: Run, status: RunStatus, keep_stale: bool) -> str | None:
    """Return why what a run left holds no longer, or None."""
    if status.key != run.key:
        return "its directory holds another run"
    if status.source != plan.source and not keep_stale:
        return f"the program changed ({status.source[:8]} -> {plan.source[:8]}; --keep-stale keeps results)"
    for name, run_id in run.needs.items():
        upstream = plan.directory(run_id).status()
        if upstream.state == "done" and status.upstream.get(name) != upstream.outputs_digest():
            return f"outputs of {name} changed"
    return None


class Former:
    """Run directories beside those of a plan, which earlier configurations left."""

    def __init__(self, plan: Plan) -> None:
        self._current = {run.id for run in plan.runs}
        self._plan = plan
        self._by_name: dict[str, list[Path]] | None = None

    def _directories(self, name: str) -> list[Path]:
        if self._by_name is None:
            self._by_name = {}
            root = self._plan.output_dir
            for path in sorted(root.iterdir()) if root.is_dir() else ():
                if path.name not in self._current and (path / "run.json").exists():
                    self._by_name.setdefault(path.name.rpartition("-")[0], []).append(path)
        return self._by_name.get(name, [])

    def why_new(self, run: Run) -> str:
        """Return how a run that has no directory yet differs from the last one of its name."""
        paths = self._directories(run.id.rpartition("-")[0])
        if not paths:
            return NEVER
        newest = max(paths, key=lambda path: (path / "run.json").stat().st_mtime_ns)
        try:
            entry = read_json(newest / "run.json")
            found = list(self._differences(entry, run))
        except (OSError, ValueError, KeyError, AttributeError):
            # somebody else's file or a damaged one: there is nothing to compare with
            return NEVER
        more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        return ", ".join(found[:_SHOWN]) + more if found else NEVER

    def _differences(self, entry: Mapping[str, Any], run: Run) -> Iterator[str]:
        for name, old, new in differences(entry["hyper_parameters"], run.hyper_parameters):
            yield f"config {name} {old} -> {new}"
        if sorted(entry["inputs"].values()) != sorted(run.inputs.values()):
            for path, digest in run.inputs.items():
                if entry["inputs"].get(path) != digest:
                    yield f"input {path} changed"
        if entry["stage"] != run.stage:
            yield f"stage {entry['stage']} -> {run.stage}"
        for name, old, new in differences(entry["versions"], self._plan.versions):
            yield f"{name} {old} -> {new}"
        for name, run_id in run.needs.items():
            if entry["needs"].get(name) != run_id:
                yield f"upstream {name} is another"


def _flat(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        for name, item in value.items():
            yield from _flat(item, f"{prefix}.{name}" if prefix else str(name))
    else:
        yield prefix, value


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 40 else f"{text[:37]}..."


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Return the dotted names whose values differ, with both values as short text."""
    before, after = dict(_flat(old)), dict(_flat(new))
    nothing = object()
    names = [name for name in {**before, **after} if before.get(name, nothing) != after.get(name, nothing)]
    missing = "(not set)"
    return [
        (
            name,
            _shown(before[name]) if name in before else missing,
            _shown(after[name]) if name in after else missing,
        )
        for name in names
    ]
