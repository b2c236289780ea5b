"""Which keys a stage sets and does not read, and who reads them: such a key would have no effect.

Left out: keys that nobody knows (`checking`), and those of ``training`` (`stages`), which are an algorithm's
own.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from trainshed.config.evaluation import READ_BY
from trainshed.config.fields import all_trainer_parameters, keys_of, training_keys
from trainshed.config.parameters import TrainerParameters
from trainshed.config.resolved import reads
from trainshed.config.schema import SECTIONS
from trainshed.config.yaml_source import KeyPath
from trainshed.registry import STAGES

Read = Mapping[str, Collection[str] | None]
"""Section to keys, None for all of them."""


@dataclass(frozen=True)
class Unread:
    """A key, or a whole section, that has no effect where it stands.

    Parameters
    ----------
    path
        Section, and key unless it is the whole section.
    what
        Who does not read it.
    fix
        What would be right.
    """

    path: KeyPath
    what: str
    fix: str


def find_unread(
    kind: str,
    read: Iterable[Read],
    given: Mapping[str, Any],
    parameters: Mapping[str, type[TrainerParameters]],
    measured: Iterable[Collection[str]] = (),
) -> Iterator[Unread]:
    """Return what a stage sets without effect.

    Parameters
    ----------
    kind
        What the stage does.
    read
        What it reads, with each of its algorithms; of what its kind may read only what applies to it.
    given
        Section to keys, as it sets them.
    parameters
        Of its algorithms, when it trains.
    measured
        What it measures, when it evaluates, in each of its runs.
    """
    applying = list(read)
    declared = [reads(kind, p) for p in parameters.values()] or [reads(kind, None)]
    who = f"a stage of kind {kind!r}"
    manner = _manner(kind, measured)
    if parameters:
        who += f" with algorithm{'s' if len(parameters) > 1 else ''} {', '.join(parameters)}"
    for section, values in given.items():
        if section == "environment" or (section == "training" and parameters):
            continue
        if section != "execution" and not any(section in sections for sections in declared):
            yield Unread(
                (section,), f"{who} does not read the section {section!r}", _fix(section, None, parameters)
            )
            continue
        for key in _given_keys(section, values):
            if not any(_is_read(sections, section, key) for sections in applying):
                at_times = any(_is_read(sections, section, key) for sections in declared)
                what = f"{who}{manner if at_times else ''} does not read {section}.{key}"
                fix = _measures_fix(key) if at_times and section == "evaluation" else None
                yield Unread((section, key), what, fix or _fix(section, key, parameters))


def _manner(kind: str, measured: Iterable[Collection[str]]) -> str:
    """Return how a stage does what its kind does, where that decides what it reads."""
    if kind == "corpus":
        return " without data.documents"
    names = sorted({name for chosen in measured for name in chosen})
    return f" that measures {', '.join(names)}" if names else " of a RAG system"


def _measures_fix(key: str) -> str:
    """Return what would be right where an evaluation does not read a key of its own section."""
    names = [name for name, keys in READ_BY.items() if key in keys]
    if not names:
        return "leave it out: it is read where a RAG system is measured, without language_model"
    return f"leave it out, or measure what reads it: {', '.join(names)}"


def readers(section: str, key: str | None) -> list[str]:
    """Return who reads a key, or with None anything of a section: kinds of stages, ``train with lsr``."""
    found = [
        f"{kind} with data.documents" if (kind, section) == ("corpus", "rag") else kind
        for kind in STAGES.names()
        if kind != "train" and _is_read(reads(kind, None), section, key)
    ]
    every = all_trainer_parameters()
    training = [name for name, p in every.items() if _is_read(reads("train", p), section, key)]
    if section == "training" or len(training) == len(every):
        return sorted([*found, "train"])
    others = [name for name in every if name not in training]
    if len(others) < len(training) / 4:
        return [*found, f"train with all but {', '.join(others)}"]
    return found + [f"train with {name}" for name in training]


def _is_read(read: Read, section: str, key: str | None) -> bool:
    if section not in read:
        return False
    keys = read[section]
    return key is None or keys is None or key in keys


def _given_keys(section: str, values: Mapping[str, Any]) -> Iterator[str]:
    """Return the known keys that have a value; settings of ``execution`` are for whoever runs the stage."""
    specs = keys_of(SECTIONS[section])
    for key, value in values.items():
        if value is not None and key in specs and not (section == "execution" and specs[key].setting):
            yield key


def _fix(section: str, key: str | None, parameters: Mapping[str, type[TrainerParameters]]) -> str:
    if key is not None and any(key in training_keys(p) for p in parameters.values()):
        return f"set training.{key}, which this algorithm has of its own, or leave it out"
    return f"read by: {', '.join(readers(section, key))}; move it there, or leave it out"
