"""Citations: which passages an answer rests on, and where it stands in them."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainshed.data.passages import Passage
from trainshed.rag.answers import Citation, RAGResponse, RetrievedPassage, cite


def found_of(*texts: str) -> list[RetrievedPassage]:
    return [
        RetrievedPassage(Passage(f"p{i}", text, start=50 * i, end=50 * i + len(text)), 1.0 - i / 10, i + 1)
        for i, text in enumerate(texts)
    ]


def test_the_largest_share_comes_first_and_small_ones_are_left_out():
    found = found_of("it is blue", "it is Red", "nothing")
    citations = cite("red", found, [0.25, 0.7, 0.05])
    assert [(c.passage_id, c.number, c.share, c.span) for c in citations] == [
        ("p1", 1, 0.7, (6, 9)),
        ("p0", 2, 0.25, None),
    ]
    assert citations[0].document_span == (56, 59)
    assert citations[1].document_span == (0, 10)
    assert [c.score for c in citations] == [0.9, 1.0]


def test_one_passage_is_cited_however_small_its_share():
    assert [c.passage_id for c in cite("x", found_of("a", "b"), [0.05, 0.06])] == ["p1"]
    assert cite("x", [], []) == []


@pytest.mark.parametrize(
    ("answer", "text", "span"),
    [
        ("Paris.", "in Paris, France", (3, 8)),
        ("paris", "in Paris and paris", (13, 18)),
        ("", "text", None),
        (".", "a. b", None),
        # lower case of the dotted I is two characters: positions would be wrong
        ("paris", "İ in Paris", None),
    ],
)
def test_where_the_answer_stands(answer, text, span):
    assert cite(answer, found_of(text), [1.0])[0].span == span


def test_a_passage_without_an_end_ends_with_its_text():
    assert Citation(Passage("p", "four", start=7), 1.0, 1.0).document_span == (7, 11)


def test_a_response_goes_to_json():
    found = found_of("the red cat")
    response = RAGResponse("red", cite("red", found, [1.0]), found)
    assert str(response) == "red"
    data = json.loads(json.dumps(response.to_json()))
    assert data["response"] == "red"
    assert data["citations"][0]["span"] == [4, 7]
    assert data["citations"][0]["passage_id"] == "p0"


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8), st.floats(0, 1))
def test_every_passage_above_the_limit_is_cited_once(shares, limit):
    citations = cite("x", found_of(*["text"] * len(shares)), shares, min_share=limit)
    assert [c.number for c in citations] == list(range(1, len(citations) + 1))
    assert [c.share for c in citations] == sorted((c.share for c in citations), reverse=True)
    assert citations[0].share == max(shares)
    assert {c.passage_id for c in citations[1:]} | {citations[0].passage_id} >= {
        f"p{i}" for i, share in enumerate(shares) if share >= limit
    }
