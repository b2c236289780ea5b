"""Where a saved RAG system lies: in a directory, in the outputs of a run, or in those of a plan's runs.

Left out: loading it (see `system`); nothing heavy is imported here.
"""

from collections.abc import Sequence
from pathlib import Path

from trainshed.errors import ModelError
from trainshed.plan.directory import RunDirectory
from trainshed.plan.graph import Plan, read_plan

SYSTEM_FILE = "system.json"
#: the kind of stage that leaves a system
_STAGE = "evaluate"
_FIX = (
    f"the output directory of a plan with a stage `{_STAGE}`, the directory of such a run, or what "
    "RAGSystem.save wrote"
)
_GO_ON = "run its configuration again with `trainshed run`, to the end"
#: systems that an error names before it only counts them
_SHOWN = 8


def find_system(path: Path) -> Path:
    """Return the directory that holds ``system.json``, for `RAGSystem.load`.

    Parameters
    ----------
    path
        What `RAGSystem.save` wrote, the directory of a run, or the output directory of a plan, one run of
        which left a system. What runs of earlier configurations left in an output directory does not count.

    Raises
    ------
    ModelError
        When there is no system, the run that would leave it is not done, or there are several.
    RunError
        When ``plan.json`` or ``status.json`` is damaged.
    """
    if not path.is_dir():
        what = "this is no directory" if path.exists() else "the directory does not exist"
        raise ModelError(what, where=str(path), fix=_FIX)
    if (path / SYSTEM_FILE).is_file():
        return path
    run = RunDirectory(path)
    if _left_system(run):
        return run.outputs
    if run.entry_path.is_file():
        raise _without(run)
    plan = read_plan(path) if (path / "plan.json").is_file() else None
    if plan is None:
        runs = [RunDirectory(child) for child in sorted(path.iterdir())]
    else:
        runs = [plan.directory(planned.id) for planned in plan.runs]
    found = [candidate for candidate in runs if _left_system(candidate)]
    if len(found) != 1:
        raise _several(path, found) if found else _none(path, plan)
    return found[0].outputs


def _left_system(run: RunDirectory) -> bool:
    """Whether a run is done and left a system; outputs without a run's records are taken as they are."""
    there = (run.outputs / SYSTEM_FILE).is_file()
    return there and (not run.entry_path.is_file() or run.state() == "done")


def _without(run: RunDirectory) -> ModelError:
    state, stage = run.state(), run.entry()["stage"]
    if stage == _STAGE and state != "done":
        what = f"this run has not left a RAG system: it is {state}"
        return ModelError(what, where=str(run.path), fix=_GO_ON)
    return ModelError(f"this run left no RAG system: its stage is {stage}", where=str(run.path), fix=_FIX)


def _several(path: Path, found: Sequence[RunDirectory]) -> ModelError:
    names = [str(run.path) for run in found[:_SHOWN]]
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    what = f"{len(found)} RAG systems are here, and nothing says which one is meant"
    return ModelError(what, where=str(path), fix=f"one of {', '.join(names)}{more}")


def _none(path: Path, plan: Plan | None) -> ModelError:
    if plan is None:
        return ModelError("there is no RAG system here", where=str(path), fix=_FIX)
    states = {run.name: plan.directory(run.id).state() for run in plan.runs if run.stage == _STAGE}
    waiting = [f"{name} is {state}" for name, state in states.items() if state != "done"]
    if not waiting:
        return ModelError("no run of this plan leaves a RAG system", where=str(path), fix=_FIX)
    more = f" and {len(waiting) - _SHOWN} more" if len(waiting) > _SHOWN else ""
    what = f"no run of this plan has left a RAG system: {', '.join(waiting[:_SHOWN])}{more}"
    return ModelError(what, where=str(path), fix=_GO_ON)
