"""Rows of every format made of a corpus."""

import pytest

from trainshed.config.formats import FORMATS
from trainshed.data.corpus import make_corpus
from trainshed.data.corpus_rows import corpus_rows, liked_format
from trainshed.data.examples import RagExample
from trainshed.data.formats import RowFormat, check_row
from trainshed.errors import DataError


@pytest.mark.parametrize("name", FORMATS)
def test_rows_are_of_their_format_and_the_same_each_time(small_corpus, name):
    fmt = RowFormat(name, conversational=name == "messages")
    for split in ("train", "test"):
        rows = corpus_rows(small_corpus, name, split)
        assert rows == corpus_rows(small_corpus, name, split)
        assert all(check_row(row, fmt, where) == row for where, row in rows)


def test_worse_answers_are_plausible_and_wrong(small_corpus):
    examples = small_corpus.splits["train"]
    accepted = {f"Question: {e.query}\nAnswer:": set(e.accepted) for e in examples}
    by_kind = {}
    for example in examples:
        by_kind.setdefault(example.kind, set()).add(example.response)
    kinds = {f"Question: {e.query}\nAnswer:": e.kind for e in examples}
    rows = [row for _, row in corpus_rows(small_corpus, "preference", "train")]
    assert len(rows) > 0.9 * len(examples)
    for row in rows:
        assert row["chosen"].strip() in accepted[row["prompt"]]
        assert row["rejected"].strip() not in accepted[row["prompt"]]
        assert row["rejected"].strip() in by_kind[kinds[row["prompt"]]]


def test_splits_share_no_passage(small_corpus):
    texts = [{row["text"] for _, row in corpus_rows(small_corpus, "text", s)} for s in ("train", "test")]
    assert not texts[0] & texts[1]


def test_a_question_of_an_earlier_split_does_not_come_again():
    asked = [RagExample("Why  is it?", "a", id="1", kind="k"), RagExample("How?", "b", id="2", kind="k")]
    again = [RagExample("why is it?", "c", id="3", kind="k"), RagExample("Who?", "d", id="4", kind="k")]
    corpus = make_corpus([], {"train": asked, "test": again}, {})
    for name in ("prompt-completion", "messages", "preference", "prompt"):
        assert len(corpus_rows(corpus, name, "train")) == 2
        ((_, row),) = corpus_rows(corpus, name, "test")
        assert "Who?" in str(row)


def test_conversations_come_last():
    assert liked_format(("messages", "prompt-completion", "text")) == "prompt-completion"
    assert liked_format(("messages",)) == "messages"
    assert liked_format(("text", "prompt-completion")) == "text"
    assert liked_format(()) == "prompt-completion"


def test_an_unknown_split(small_corpus):
    with pytest.raises(DataError, match="no split 'tset'"):
        corpus_rows(small_corpus, "prompt", "tset")
