"""Filters: what each operator admits, and what is refused."""

import pytest

from trainshed.data.passages import Passage
from trainshed.errors import StoreError
from trainshed.rag.stores.filters import FilterIndex, parse_where

PASSAGES = [
    Passage(
        "a",
        "t",
        title="One",
        doc_id="d1",
        chunk_id=0,
        source="x.txt",
        metadata={"n": 1, "s": "b", "flag": True},
    ),
    Passage(
        "b",
        "t",
        title="Two",
        doc_id="d1",
        chunk_id=1,
        source="y.txt",
        metadata={"n": 2.5, "s": "c", "tags": ["u", "v"]},
    ),
    Passage("c", "t", title="One", doc_id="d2", chunk_id=0, metadata={"n": "2", "flag": False, "tags": []}),
    Passage("d", "t", metadata={"n": None, "flag": 1, "nested": {"deep": 1}}),
]


@pytest.mark.parametrize(
    ("where", "wanted"),
    [
        ({}, "abcd"),
        ({"doc_id": "d1"}, "ab"),
        ({"doc_id": "d1", "chunk_id": 1}, "b"),
        ({"title": ["One", "Three"]}, "ac"),
        ({"title": []}, ""),
        ({"id": {"$in": ["d", "a"]}}, "ad"),
        ({"source": {"$ne": "x.txt"}}, "bcd"),
        ({"source": {"$nin": ["x.txt", ""]}}, "b"),
        ({"n": 1}, "a"),
        ({"n": 1.0}, "a"),
        ({"n": {"$gte": 1, "$lte": 2.5}}, "ab"),
        ({"n": {"$gt": 1}}, "b"),
        ({"n": {"$gte": "1"}}, "c"),
        ({"n": None}, "d"),
        ({"s": None}, "cd"),
        ({"tags": None}, "acd"),
        ({"tags": "v"}, "b"),
        ({"tags": ["v", None]}, "abcd"),
        ({"flag": True}, "a"),
        ({"flag": 1}, "d"),
        ({"flag": False}, "c"),
        ({"flag": {"$nin": [True, False]}}, "bd"),
        ({"missing": "x"}, ""),
        ({"missing": {"$ne": "x"}}, "abcd"),
        ({"nested": "x"}, ""),
    ],
)
def test_admits(where, wanted):
    rows = FilterIndex(PASSAGES).rows(parse_where(where))
    assert "".join(PASSAGES[row].id for row in rows) == wanted


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ({"n": {"$gtt": 1}}, r"unknown operator '\$gtt'.*\n.*'n'.*\n.*did you mean '\$gt"),
        ({"n": {"$gt": [1]}}, "needs a number or a string"),
        ({"n": {"$gt": True}}, "needs a number or a string"),
        ({"n": {"$in": "abc"}}, "needs a list"),
        ({"n": {"$eq": {"a": 1}}}, "cannot filter on the value"),
        ({"n": [["a"]]}, "cannot filter on the value"),
    ],
)
def test_refuses(where, message):
    with pytest.raises(StoreError, match=message):
        parse_where(where)
