"""Which lists are values and which are sweep axes: the nesting of a value against what its field takes.

A list where the field takes a scalar is an axis; where it takes a list, a list is a value and a list of lists
an axis. Left out: multiplying the axes (`sweep`).
"""

import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from trainshed.config.yaml_source import KeyPath


def annotation_depth(annotation: Any) -> int:
    """Return how deep a value of this type nests lists: 0 for scalars and mappings, 1 for ``list[str]``."""
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return annotation_depth(typing.get_args(annotation)[0])
    if origin in (typing.Union, types.UnionType):
        return max(annotation_depth(part) for part in typing.get_args(annotation))
    if origin in (list, tuple, set, frozenset):
        return 1 + annotation_depth(typing.get_args(annotation)[0])
    return 0


def nullable(annotation: Any) -> bool:
    """Say whether a field of this type may be null."""
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return nullable(typing.get_args(annotation)[0])
    if origin in (typing.Union, types.UnionType):
        return any(part is type(None) or nullable(part) for part in typing.get_args(annotation))
    return annotation is type(None)


def literal_words(annotation: Any) -> list[str]:
    """Return the words that a type takes, when they are fixed."""
    if typing.get_origin(annotation) is typing.Literal:
        return [str(word) for word in typing.get_args(annotation)]
    return [word for part in typing.get_args(annotation) for word in literal_words(part)]


def takes_scalars(annotation: Any) -> bool:
    """Say whether a field of this type takes anything but a list or null."""
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return takes_scalars(typing.get_args(annotation)[0])
    if origin in (typing.Union, types.UnionType):
        parts = typing.get_args(annotation)
        return any(takes_scalars(part) for part in parts if part is not type(None))
    return origin not in (list, tuple, set, frozenset)


def value_depth(value: Any) -> int:
    """Return how deep a value nests lists."""
    if not isinstance(value, list):
        return 0
    return 1 + max((value_depth(item) for item in value), default=0)


@dataclass(frozen=True)
class Axis:
    """One list that multiplies runs.

    Parameters
    ----------
    source
        Where it stands in the configuration; this is its identity, so that stages that share it go together.
    key
        Section and key that it gives values to.
    values
        What it goes through, in order.
    """

    source: KeyPath
    key: KeyPath
    values: tuple[Any, ...]


def is_axis(value: Any, annotation: Any) -> bool:
    """Say whether a value multiplies runs, given the type of its field."""
    return value_depth(value) > annotation_depth(annotation)


def axis_problem(value: list[Any], annotation: Any) -> str | None:
    """Return what is wrong with an axis: no values, or nested too deep."""
    if not value:
        return "an empty list makes no runs"
    twice = next((item for i, item in enumerate(value) if any(_same(item, v) for v in value[:i])), None)
    if twice is not None:
        return f"the value {twice!r} is there twice, which would make the same run twice"
    if any(is_axis(item, annotation) for item in value):
        depth = annotation_depth(annotation)
        takes = "a list" if depth else "a single value"
        return f"nested too deep: the field takes {takes}, and a list of such makes one run for each"
    return None


_WORDS = {bool: "true or false", int: "an integer", float: "a number", str: "text", dict: "a mapping"}


def in_words(annotation: Any) -> list[str]:
    """Return what a type takes, in words, null left out; empty for types that have no words here."""
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return in_words(typing.get_args(annotation)[0])
    if origin in (typing.Union, types.UnionType):
        return [word for part in typing.get_args(annotation) for word in in_words(part)]
    if origin is list:
        return ["a list"]
    word = _WORDS.get(origin or annotation)
    return [word] if word else []


def _same(one: Any, other: Any) -> bool:
    """Say whether two values are the same; unlike in Python, true is not 1."""
    return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)


def takes_booleans(annotation: Any) -> bool:
    """Say whether a field of this type takes true and false, by themselves or within something."""
    arguments = typing.get_args(annotation)
    return annotation is bool or any(takes_booleans(part) for part in arguments)


def as_field_value(value: Any, annotation: Any) -> Any:
    """Return a value as its field takes it: a single item where only a list is taken is a list of one."""
    if value is None or isinstance(value, list) or takes_scalars(annotation):
        return value
    if isinstance(value, dict) and not any(_is_section(item) for item in typing.get_args(annotation)):
        return value
    return [value]


def _is_section(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


Assignment = Mapping[KeyPath, int]
"""Which value each axis has: index by the source of the axis."""
