"""Which lists are values and which are axes."""

from typing import Annotated, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, JsonValue

from trainshed.config.axes import (
    annotation_depth,
    is_axis,
    literal_words,
    nullable,
    takes_booleans,
    takes_scalars,
    value_depth,
)

Count = Annotated[int, Field(ge=1)]


@pytest.mark.parametrize(
    ("annotation", "depth", "null", "scalars", "booleans"),
    [
        (int, 0, False, True, False),
        (bool, 0, False, True, True),
        (str | None, 0, True, True, False),
        (Count | None, 0, True, True, False),
        (list[str], 1, False, False, False),
        (list[Count] | None, 1, True, False, False),
        (Annotated[list[str], Field(min_length=1)], 1, False, False, False),
        (list[list[str]], 2, False, False, False),
        (str | list[str] | None, 1, True, True, False),
        (tuple[int, ...], 1, False, False, False),
        (dict[str, list[str]], 0, False, True, False),
        (dict[str, JsonValue] | str, 0, False, True, False),
        (str | bool, 0, False, True, True),
        (Literal["a", "b"] | None, 0, True, True, False),
    ],
)
def test_annotations(annotation, depth, null, scalars, booleans):
    assert annotation_depth(annotation) == depth
    assert nullable(annotation) is null
    assert takes_scalars(annotation) is scalars
    assert takes_booleans(annotation) is booleans


def test_words():
    assert literal_words(Literal["a", "b"] | None) == ["a", "b"]
    assert literal_words(str | None) == []


@given(st.recursive(st.integers(), lambda inner: st.lists(inner, max_size=3), max_leaves=8))
def test_wrapping_a_value_in_a_list_makes_it_one_deeper(value):
    assert value_depth([value]) == value_depth(value) + 1
    assert is_axis(value, int) == isinstance(value, list)
    assert is_axis([[value]], list[int])
