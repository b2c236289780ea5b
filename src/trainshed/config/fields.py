"""What each key of each section takes, whichever class says so. Left out: checking values (`checking`)."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from trainshed.config.migrations import KEY_ALIASES
from trainshed.config.parameters import TrainerParameters
from trainshed.config.schema import SECTIONS
from trainshed.errors import UnknownNameError, nearest
from trainshed.registry import TRAINER_PARAMETERS

#: arguments that decide the result only when the best checkpoint is what comes out
CHECKPOINT_ARGUMENTS = frozenset({"save_steps", "save_strategy"})


@dataclass(frozen=True, slots=True)
class KeySpec:
    """What one key takes, and what its class says about it."""

    annotation: Any
    description: str
    setting: bool = False
    whole_plan: bool = False
    input: bool = False


@functools.cache
def keys_of(model: type[BaseModel]) -> Mapping[str, KeySpec]:
    """Return the keys of a pydantic class."""
    specs: dict[str, KeySpec] = {}
    for name, field in model.model_fields.items():
        extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
        annotation: Any = field.annotation
        marks = {mark: bool(extra.get(mark)) for mark in ("setting", "whole_plan", "input")}
        specs[name] = KeySpec(annotation, field.description or "", **marks)
    return specs


@functools.cache
def training_keys(parameters: type[TrainerParameters]) -> Mapping[str, KeySpec]:
    """Return the keys that ``training`` takes for an algorithm, hidden ones left out."""
    others = keys_of(parameters.table().model())
    shown = {name: spec for name, spec in others.items() if name not in parameters.hidden_arguments}
    return {**shown, **keys_of(parameters)}


def canonical_algorithm(name: str) -> str:
    """Return the registered name of an algorithm, or raise `UnknownNameError`."""
    try:
        return TRAINER_PARAMETERS.canonical(name)
    except UnknownNameError as error:
        raise UnknownNameError(f"unknown algorithm {name!r}", fix=error.fix) from None


def all_trainer_parameters() -> dict[str, type[TrainerParameters]]:
    """Return the parameters of every registered trainer, importing their files."""
    return {name: TRAINER_PARAMETERS.get(name) for name in TRAINER_PARAMETERS.names()}


def suggestion(section: str, key: str, known: Mapping[str, KeySpec]) -> str:
    """Return what to write instead of a key that its section does not know."""
    elsewhere = [name for name, model in SECTIONS.items() if key in model.model_fields and name != section]
    trainers = [name for name, p in all_trainer_parameters().items() if key in training_keys(p)]
    if trainers and section != "training":
        elsewhere.append("training")
    if elsewhere:
        return f"the key belongs to {' or '.join(f'{name}.{key}' for name in elsewhere)}"
    if trainers:
        return f"it belongs to the algorithm {' or '.join(trainers[:4])}"
    near = nearest(key, [*known, *KEY_ALIASES.get(section, {})])
    if near:
        return f"did you mean {near!r}?"
    return f"known: {', '.join(sorted(known))}" if len(known) < 40 else "`trainshed schema` lists the keys"
