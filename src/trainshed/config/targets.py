"""Targets of ``trainshed train``: a default configuration for each, over which a user's file is laid.

A target is the name of an algorithm, or of one of the jobs below. Its default is a file of ``examples/`` that
runs on the built-in corpus. A user's file may hold as little as a learning rate; its sections ``model`` and
``data`` replace those of the default, since half of one dataset and half of another make none, and the others
are laid over it key by key. A file that names its own algorithm or pipeline is taken as it stands.

Left out: what a target leaves where (`plan.publishing`).
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainshed.config.documents import Document
from trainshed.config.load import Config, check_documents
from trainshed.config.migrations import SECTION_ALIASES
from trainshed.config.overrides import apply_overrides, read_overrides
from trainshed.config.yaml_source import read_source
from trainshed.errors import ConfigError, did_you_mean
from trainshed.registry import TRAINER_PARAMETERS

_REFERENCE = re.compile(r"\$\{stages\.([^}/]+)")
#: sections of a user's file that replace the default's instead of being laid over them
_WHOLE = ("model", "data")
#: keys of which the first, where a user gives it, takes the place of the second in a default
_INSTEAD = {"num_train_epochs": "max_steps"}
_SECTIONS = ("model", "data", "training", "rag", "evaluation")


@dataclass(frozen=True)
class Target:
    """Something that ``trainshed train --target`` makes.

    Parameters
    ----------
    name
        What the command line calls it.
    about
        One line for the listing; what its algorithm says of itself when empty.
    example
        The default: name of a file in ``examples/``.
    stage
        The stage of the default's pipeline that a user's sections are laid over; ``""`` for all stages.
    place
        Name of its directories in ``checkpoints/`` and ``logs/``.
    links
        What is found there under which name: ``{name: "stage/path below its outputs"}``; ``.`` stands for
        the only stage.
    sections
        Sections that are meant for another stage than ``stage``.
    evaluation
        The stage that ``--evaluate`` adds, where there is one.
    parts
        Targets that this one consists of, in order.
    """

    name: str
    about: str
    example: str = ""
    stage: str = ""
    place: str = ""
    links: Mapping[str, str] = field(default_factory=dict)
    sections: Mapping[str, str] = field(default_factory=dict)
    evaluation: str | None = None
    parts: tuple[str, ...] = ()


_JOBS = {
    job.name: job
    for job in (
        Target("mamba", "a Mamba-2 language model for long documents, from scratch"),
        Target("transformer", "a classifier, tagger or span finder on an encoder", place="transfer"),
        Target(
            "rag",
            "a FAISS index over documents; --evaluate measures retrieval",
            example="index",
            place="rag",
            links={
                "knowledge_store": "index/knowledge_store",
                "faiss.index": "index/knowledge_store/index.faiss",
                "metadata.json": "index/knowledge_store/manifest.json",
                "encoder": "index/retriever",
            },
            sections={"data": "corpus"},
            evaluation="report",
        ),
        Target("rag-tuning", "retriever and generator in turns", example="rag", stage="rag"),
        Target("rl", "a policy for a Gymnasium environment, by PPO", links={"final_model": "."}),
        Target(
            "rlhf",
            "a language model by supervised training, a reward model and PPO",
            example="rlhf",
            links={
                "sft_model": "sft",
                "reward_model": "reward",
                "ppo_policy": "ppo",
                "rlhf_final_model": "ppo",
            },
        ),
        Target(
            "full-pipeline",
            "mamba, transformer, rag and rl, one after the other",
            parts=("mamba", "transformer", "rag", "rl"),
        ),
    )
}
_ALIASES = {
    "full_pipeline": "full-pipeline",
    "rag_encoder": "rag",
    "rl_trained": "rl",
    "transfer": "transformer",
}


def target_names() -> list[str]:
    """Return the names of all targets: the jobs first, then every algorithm that has none of its name."""
    return [*_JOBS, *(name for name in TRAINER_PARAMETERS.names() if name not in _JOBS)]


def get_target(name: str) -> Target:
    """Return the target of this name; an unknown one is a `ConfigError`."""
    name = _ALIASES.get(name, name)
    if name not in _JOBS:
        name = TRAINER_PARAMETERS.aliases.get(name, name)
    job = _JOBS.get(name)
    if job is None:
        if name not in TRAINER_PARAMETERS.names():
            known = [*target_names(), *_ALIASES]
            raise ConfigError(f"there is no target {name!r}", where="--target", fix=did_you_mean(name, known))
        job = Target(name, "", stage=name)
    if job.parts:
        return job
    return Target(
        job.name,
        job.about,
        example=job.example or job.name,
        stage=job.stage or ("" if job.example else job.name),
        place=job.place or job.name,
        links=job.links or {"best_model": "."},
        sections=job.sections,
        evaluation=job.evaluation,
    )


def default_path(target: Target) -> Path | None:
    """Return the file of a target's default configuration; None where it has none, as plug-ins do."""
    package = Path(__file__).parents[1]
    for place in (package / "examples", package.parents[1] / "examples"):
        path = place / f"{target.example}.yaml"
        if path.is_file():
            return path
    return None


def load_target(
    target: Target,
    path: Path | None = None,
    overrides: Iterable[str] = (),
    *,
    evaluate: bool = False,
    environ: Mapping[str, str] | None = None,
) -> Config:
    """Return the checked configuration of a target.

    Parameters
    ----------
    target
        Of which the default is taken.
    path
        The user's file; None for the default alone.
    overrides
        ``section.key=value``, laid over both; they are meant for the target's own stage.
    evaluate
        Keep the stage that measures, which the default has for some targets.
    environ
        Environment that ``${env:NAME}`` reads.

    Raises
    ------
    ConfigError
        With every problem that was found: file, line, key, and what would be right.
    """
    if evaluate and target.evaluation is None:
        raise ConfigError(
            f"the target {target.name!r} has no evaluation of its own",
            where="--evaluate",
            fix="training.eval_strategy=epoch evaluates while it trains",
        )
    above = read_overrides(overrides)
    default = default_path(target)
    file = None if path is None else Document.from_source(read_source(path))
    if file is not None and (_is_whole(file) or default is None):
        _check_algorithm(file, target)
        return check_documents(file, above, environ=environ)
    if default is None:
        raise ConfigError(
            f"the target {target.name!r} has no default configuration",
            where="--target",
            fix="give --config F",
        )
    base = Document.from_source(read_source(default))
    layers = [] if file is None else [file]
    return check_documents(
        base,
        above,
        layers=layers,
        environ=environ,
        shape=lambda document, laid, whole: _lay(document, laid, target, whole=whole),
        prune=lambda document: _prune(document, target, evaluate=evaluate),
    )


def _execution(document: Document) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in ("execution", *(old for old, new in SECTION_ALIASES.items() if new == "execution")):
        section = document.data.get(name)
        found |= section if isinstance(section, dict) else {}
    return found


def _is_whole(document: Document) -> bool:
    return "pipeline" in document.data or "algorithm" in _execution(document)


def _check_algorithm(document: Document, target: Target) -> None:
    """Refuse a file of another algorithm than the target's."""
    named = _execution(document).get("algorithm")
    if not isinstance(named, str) or (target.name in _JOBS and target.name not in TRAINER_PARAMETERS.names()):
        return
    if TRAINER_PARAMETERS.aliases.get(named, named) != target.name:
        raise ConfigError(
            f"the file is for the algorithm {named!r}, the target is {target.name!r}",
            where=document.name,
            fix=f"--target {named}, or leave execution.algorithm out",
        )


def _lay(document: Document, laid: Document, target: Target, *, whole: bool) -> None:
    """Lay a user's sections over the default, in place; both under native names.

    Parameters
    ----------
    document
        The default.
    laid
        The file, or overrides.
    target
        Says which stage they are meant for.
    whole
        Whether `_WHOLE` sections replace those of the default.
    """
    moved = Document(laid.name)
    for name, content in laid.data.items():
        stage = target.sections.get(name, target.stage)
        inside = name in _SECTIONS and stage and isinstance(document.get(("pipeline", stage)), dict)
        path = ("pipeline", stage, name) if inside else (name,)
        moved.put(path, content, {(): laid.place((name,)), **laid.places_below((name,))})
        if whole and name in _WHOLE and isinstance(content, dict):
            document.remove(path)
        given = content if name == "training" and isinstance(content, dict) else {}
        for first, second in _INSTEAD.items():
            if first in given and second not in given:
                document.remove((*path, second))
    apply_overrides(document, moved)


def _prune(document: Document, target: Target, *, evaluate: bool) -> None:
    """Drop the stages of a default that nothing needs once the user's sections are laid over it, in place."""
    pipeline = document.data.get("pipeline")
    if not isinstance(pipeline, dict):
        return
    wanted = [target.stage] if target.stage in pipeline else list(pipeline)
    if target.evaluation is not None and target.evaluation in wanted and not evaluate:
        wanted.remove(target.evaluation)
    shared = {name: content for name, content in document.data.items() if name != "pipeline"}
    needed: set[str] = set()
    while wanted:
        name = wanted.pop()
        if name in needed or name not in pipeline:
            continue
        needed.add(name)
        entry = pipeline[name] if isinstance(pipeline[name], dict) else {}
        needs = entry.get("needs") or []
        wanted += [needs] if isinstance(needs, str) else list(needs)
        own = {**shared, **entry}
        wanted += _REFERENCE.findall(str(own))
    for name in [name for name in pipeline if name not in needed]:
        document.remove(("pipeline", name))
