"""Metadata filters: which passages a ``where`` mapping admits.

``{"lang": "en", "year": {"$gte": 2000}, "doc_id": ["a", "b"]}``: every key must hold. A value means equality,
a list membership, a mapping its operators (``$eq $ne $in $nin $gt $gte $lt $lte``). Keys are the passage's
own fields (``id doc_id chunk_id source title``) or keys of its metadata. A list in the metadata matches when
one of its elements does; None stands for a key that is missing, null or an empty list; true is not 1; numbers
and strings have an order, each among themselves. Left out: nested keys, or-combinations.
"""

import numbers
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from trainshed.data.passages import Passage
from trainshed.errors import StoreError, did_you_mean

FIELDS = ("id", "doc_id", "chunk_id", "source", "title")
_RANGES: Mapping[str, Callable[[Any, Any], bool]] = {
    "$gt": lambda value, bound: value > bound,
    "$gte": lambda value, bound: value >= bound,
    "$lt": lambda value, bound: value < bound,
    "$lte": lambda value, bound: value <= bound,
}
OPERATORS = ("$eq", "$ne", "$in", "$nin", *_RANGES)


@dataclass(frozen=True)
class Condition:
    """One test of one key.

    Attributes
    ----------
    key
        Field or metadata key.
    operator
        ``$in``, ``$nin``, or one of the four ranges; equality is membership in a list of one.
    operand
        A tuple for ``$in`` and ``$nin``, else a number or a string.
    """

    key: str
    operator: str
    operand: Any


def parse_where(where: Mapping[str, Any]) -> list[Condition]:
    """Return the conditions of a filter.

    Raises
    ------
    StoreError
        When an operator is unknown or an operand has the wrong type; names the key.
    """
    conditions = []
    for key, wanted in where.items():
        tests = wanted if isinstance(wanted, Mapping) else {"$in" if _is_list(wanted) else "$eq": wanted}
        for operator, operand in tests.items():
            conditions.append(_condition(key, operator, operand))
    return conditions


def _condition(key: str, operator: str, operand: Any) -> Condition:
    where = f"filter key {key!r}"
    if operator not in OPERATORS:
        raise StoreError(
            f"unknown operator {operator!r} in a filter", where=where, fix=did_you_mean(operator, OPERATORS)
        )
    if operator in _RANGES:
        if kind_of(operand) not in ("number", "string"):
            raise StoreError(f"{operator} needs a number or a string, got {operand!r}", where=where)
        return Condition(key, operator, operand)
    several = operator in ("$in", "$nin")
    if several and not _is_list(operand):
        raise StoreError(f"{operator} needs a list, got {operand!r}", where=where)
    values = tuple(operand) if several else (operand,)
    for value in values:
        if kind_of(value) is None:
            raise StoreError(
                f"cannot filter on the value {value!r}", where=where, fix="a string, number, boolean or null"
            )
    return Condition(key, {"$eq": "$in", "$ne": "$nin"}.get(operator, operator), values)


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence | set | frozenset) and not isinstance(value, str | bytes)


def kind_of(value: Any) -> str | None:
    """Return ``null``, ``boolean``, ``number`` or ``string``; None for anything else."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, numbers.Real):
        return "number"
    return "string" if isinstance(value, str) else None


def values_of(passage: Passage, key: str) -> tuple[Any, ...]:
    """Return what a passage has under a key: several values for a list, one null when there is nothing."""
    value: Any = getattr(passage, key) if key in FIELDS else passage.metadata.get(key)
    if not _is_list(value):
        return (value,)
    return tuple(value) or (None,)


class FilterIndex:
    """For every key that was filtered on, which rows have which value; made when first asked for.

    Parameters
    ----------
    passages
        Passages in row order.
    """

    def __init__(self, passages: Sequence[Passage]) -> None:
        self._passages = passages
        self._columns: dict[str, dict[tuple[str, Any], np.ndarray]] = {}

    def rows(self, conditions: Iterable[Condition]) -> np.ndarray:
        """Return the rows that satisfy every condition, ascending int64."""
        admitted = np.ones(len(self._passages), dtype=bool)
        for condition in conditions:
            admitted &= self._admitted(condition)
        return admitted.nonzero()[0]

    def _admitted(self, condition: Condition) -> np.ndarray:
        column = self._column(condition.key)
        if condition.operator in _RANGES:
            test, kind = _RANGES[condition.operator], kind_of(condition.operand)
            hits = [
                rows for (of, value), rows in column.items() if of == kind and test(value, condition.operand)
            ]
        else:
            wanted = {(kind_of(value), value) for value in condition.operand}
            hits = [column[value] for value in wanted if value in column]
        mask = np.zeros(len(self._passages), dtype=bool)
        for rows in hits:
            mask[rows] = True
        return ~mask if condition.operator == "$nin" else mask

    def _column(self, key: str) -> dict[tuple[str, Any], np.ndarray]:
        if key not in self._columns:
            found: dict[tuple[str, Any], list[int]] = {}
            for row, passage in enumerate(self._passages):
                for value in values_of(passage, key):
                    kind = kind_of(value)
                    if kind is not None:
                        found.setdefault((kind, value), []).append(row)
            self._columns[key] = {value: np.asarray(rows) for value, rows in found.items()}
        return self._columns[key]
