"""A filter's conditions as Qdrant's own, where it means the same by them. Left out: search (see `qdrant`)."""

import math
import re
from typing import Any

from qdrant_client import models

from trainshed.rag.stores.filters import FIELDS, Condition, kind_of

_RANGE_NAMES = {"$gt": "gt", "$gte": "gte", "$lt": "lt", "$lte": "lte"}
_PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
#: Qdrant compares numbers as float64
_EXACT_UP_TO = 1 << 53
#: more alternatives than this go as a list of points
_MOST_ALTERNATIVES = 64


def native_condition(condition: Condition) -> Any | None:
    """Return Qdrant's condition of the same meaning, or None where it has none.

    It has none for strings with an order, numbers beyond 2**53, and keys that its path syntax would read
    otherwise.
    """
    if condition.key not in FIELDS and not _PLAIN_KEY.fullmatch(condition.key):
        return None
    key = condition.key if condition.key in FIELDS else f"metadata.{condition.key}"
    if condition.operator in _RANGE_NAMES:
        if not _is_exact_number(condition.operand):
            return None
        bounds = models.Range(**{_RANGE_NAMES[condition.operator]: float(condition.operand)})
        return models.FieldCondition(key=key, range=bounds)
    alternatives = _alternatives(key, condition.operand)
    if alternatives is None:
        return None
    if condition.operator == "$nin":
        return models.Filter(must_not=alternatives)
    return models.Filter(should=alternatives)


def _alternatives(key: str, values: tuple[Any, ...]) -> list[Any] | None:
    """Return one condition for all strings and one for each other value; None where one has no match."""
    strings = [value for value in values if isinstance(value, str)]
    others = [value for value in values if not isinstance(value, str)]
    if not values or len(others) > _MOST_ALTERNATIVES:
        return None
    found: list[Any] = []
    if strings:
        found.append(models.FieldCondition(key=key, match=models.MatchAny(any=strings)))
    for value in others:
        if value is None:
            found.append(models.IsEmptyCondition(is_empty=models.PayloadField(key=key)))
            found.append(models.IsNullCondition(is_null=models.PayloadField(key=key)))
        elif isinstance(value, bool):
            found.append(models.FieldCondition(key=key, match=models.MatchValue(value=value)))
        elif _is_exact_number(value):  # as a range, for Qdrant matches 1 to 1 but not to 1.0
            found.append(
                models.FieldCondition(key=key, range=models.Range(gte=float(value), lte=float(value)))
            )
        else:
            return None
    return found


def _is_exact_number(value: Any) -> bool:
    return kind_of(value) == "number" and math.isfinite(value) and abs(value) <= _EXACT_UP_TO
