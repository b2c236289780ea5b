"""Where ``trainshed train`` leaves what it made: names of their own for what lies in run directories.

::

    checkpoints/TARGET/runs/       the output directory of the plan, a directory for each run
    checkpoints/TARGET/best_model  the outputs of the target's run
    checkpoints/TARGET/vocab.json  token to number, where it has a tokenizer
    logs/TARGET/train.log          what the run printed

All but the runs are links, made anew when a run ends; nothing is copied. Left out: what is made
(`config.targets`).
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from trainshed.errors import RunError
from trainshed.files import disk_errors, write_atomic
from trainshed.plan.directory import RunDirectory
from trainshed.plan.graph import Plan, Run, read_plan

_RUNS = "runs"
_LOG = "train.log"


@dataclass(frozen=True)
class Place:
    """The directories of one target.

    Parameters
    ----------
    root
        Where ``checkpoints/`` and ``logs/`` are.
    name
        Of the target's directories in them.
    """

    root: Path
    name: str

    @property
    def checkpoints(self) -> Path:
        """``checkpoints/TARGET``."""
        return self.root / "checkpoints" / self.name

    @property
    def runs(self) -> Path:
        """The output directory of its plans."""
        return self.checkpoints / _RUNS

    @property
    def log(self) -> Path:
        """``logs/TARGET/train.log``."""
        return self.root / "logs" / self.name / _LOG


def publish_log(place: Place, plan: Plan, links: Mapping[str, str]) -> None:
    """Before it runs, link the log of the plan's last run, so that it can be followed.

    Raises
    ------
    RunError
        When something stands where one of the ``links`` will, before hours were spent on what belongs there.
    """
    for name in links:
        _check_free(place.checkpoints / name)
    _link(place.log, plan.directory(plan.runs[-1].id).log_path)


def publish_outputs(place: Place, plan: Plan, links: Mapping[str, str]) -> list[Path]:
    """Link what the runs of a plan have made.

    Parameters
    ----------
    place
        Where.
    plan
        All its runs are done.
    links
        ``{name: "stage/path below its outputs"}``; ``.`` stands for the last stage that is no evaluation.

    Returns
    -------
    list of Path
        What was made, in the order of ``links``.
    """
    made = []
    for name, target in links.items():
        stage, _, below = target.partition("/")
        run = _trained(plan) if stage == "." else plan.named(stage)
        source = plan.directory(run.id).outputs / below
        if not source.exists():
            raise RunError(f"the run {run.id} left no {below or 'outputs'}", where=str(source))
        _link(place.checkpoints / name, source)
        made.append(place.checkpoints / name)
    vocabulary = _vocabulary(plan.directory(_trained(plan).id).outputs)
    if vocabulary is not None:
        path = place.checkpoints / "vocab.json"
        write_atomic(path, json.dumps(vocabulary, ensure_ascii=False, indent=0) + "\n")
        made.append(path)
    return made


def past_runs(root: Path) -> list[tuple[str, RunDirectory]]:
    """Return every run below ``root``/checkpoints with its target's place, the latest last."""
    found = []
    for entry in sorted((root / "checkpoints").glob(f"*/{_RUNS}/*/run.json")):
        directory = RunDirectory(entry.parent)
        found.append((entry.parents[2].name, directory))
    return sorted(found, key=lambda pair: pair[1].status().started or "")


def last_plan(place: Place) -> Plan | None:
    """Return the plan that a target was last trained by; None when it never was."""
    return read_plan(place.runs.resolve()) if (place.runs / "plan.json").is_file() else None


def _trained(plan: Plan) -> Run:
    """Return the last run of a plan that is no evaluation."""
    return next(run for run in reversed(plan.runs) if run.stage != "evaluate")


def _check_free(path: Path) -> None:
    if path.exists() and not path.is_symlink():
        raise RunError(
            "something stands where a link to the result belongs",
            where=str(path),
            fix="move it away, or give another --output-dir",
        )


def _link(path: Path, target: Path) -> None:
    """Let ``path`` be a relative link to ``target``, in one step; anything else in its place is an error."""
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _check_free(path)
        partial = path.with_name(f".{path.name}.{os.getpid()}")
        partial.unlink(missing_ok=True)
        partial.symlink_to(os.path.relpath(target, path.parent.resolve()))
        os.replace(partial, path)


def _vocabulary(outputs: Path) -> dict[str, int] | None:
    """Return token to number from a ``tokenizer.json``; None where there is none."""
    path = outputs / "tokenizer.json"
    if not path.is_file():
        return None
    tokenizer = json.loads(path.read_text(encoding="utf-8"))
    found = tokenizer.get("model", {}).get("vocab", {})
    vocabulary = dict(found) if isinstance(found, dict) else {row[0]: n for n, row in enumerate(found)}
    vocabulary |= {token["content"]: token["id"] for token in tokenizer.get("added_tokens", [])}
    return dict(sorted(vocabulary.items(), key=lambda pair: pair[1]))
