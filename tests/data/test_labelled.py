"""Rows with labels: what is read, how splits are made, and what is refused with its row."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainshed.config.schema import DataSection
from trainshed.data.jsonl import write_jsonl
from trainshed.data.labelled import (
    LabelledExample,
    SpanExample,
    builtin_labelled,
    check_labels,
    label_counts,
    label_names,
    locate_answer,
    read_splits,
    span_reader,
    text_reader,
    words_reader,
)
from trainshed.errors import ConfigError, DataError

TEXT = text_reader(text="text", label="label")


def test_labels_are_names():
    assert TEXT({"text": "a", "label": 2}, "row 1").labels == ("2",)
    assert TEXT({"text": "a", "label": True}, "row 1").labels == ("true",)
    assert TEXT({"text": ["a", "b"], "label": "x"}, "row 1").text == "a\nb"
    read = text_reader(text="t", label="l", pair="p", several=True)
    assert read({"t": "a", "p": "q", "l": ["x", 1, "x"]}, "row 1") == LabelledExample(
        "a", ("x", "1"), "q", "row 1"
    )
    assert read({"t": "a", "p": "q", "l": []}, "row 1").labels == ()


def test_names_are_sorted_as_numbers_when_they_are():
    assert label_names([LabelledExample("", (label,)) for label in ("10", "9", "-1")]) == ("-1", "9", "10")
    assert label_names([LabelledExample("", (label,)) for label in ("10", "9", "b")]) == ("10", "9", "b")
    assert label_counts([LabelledExample("", ("a", "b")), LabelledExample("", ("a",))]) == {"a": 2, "b": 1}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"text": "a"}, "no column 'label'"),
        ({"text": "a", "lable": "x"}, "did you mean|Known|known"),
        ({"text": "a", "label": None}, "label is null"),
        ({"text": "a", "label": 1.5}, "label is a number"),
        ({"text": "a", "label": ["x"]}, "label is a list"),
        ({"text": " ", "label": "x"}, "an empty string"),
        ({"text": 3, "label": "x"}, "a number"),
    ],
)
def test_rows_that_cannot_be_used(row, message):
    with pytest.raises(DataError, match=message) as caught:
        TEXT(row, "data.jsonl, line 7")
    assert "data.jsonl, line 7" in str(caught.value)


def test_words_and_labels_are_as_many():
    read = words_reader(words="tokens", label="tags")
    assert read({"tokens": ["a", "b"], "tags": ["O", 3]}, "row 1").labels == ("O", "3")
    with pytest.raises(DataError, match=r"2 words have 1 labels[\s\S]*row 1"):
        read({"tokens": ["a", "b"], "tags": ["O"]}, "row 1")
    with pytest.raises(DataError, match="no word"):
        read({"tokens": [], "tags": []}, "row 1")


def test_answers_in_their_shapes():
    read = span_reader({})
    row = {"question": "q", "context": "a red cat"}
    expected = SpanExample("q", "a red cat", ("red",), 2, 5, "", "row 1")
    assert read({**row, "answer": "red"}, "row 1") == expected
    assert read({**row, "answer": "red", "answer_start": 2}, "row 1") == expected
    assert read({**row, "answers": ["red"], "answer_start": [2]}, "row 1") == expected
    assert read({**row, "answers": {"text": ["red"], "answer_start": [2]}}, "row 1") == expected
    assert read({**row, "answers": []}, "row 1") == SpanExample("q", "a red cat", (), where="row 1")
    named = span_reader({"question": "Q", "answer": "A"})
    assert named({"Q": "q", "context": "a red cat", "A": "RED"}, "row 1").start == 2


def test_answers_that_do_not_stand_where_they_should():
    read = span_reader({})
    row = {"question": "q", "context": "a red cat", "answer": "red"}
    with pytest.raises(DataError, match=r"at character 3 of the context stands 'ed '[\s\S]*row 1"):
        read({**row, "answer_start": 3}, "row 1")
    with pytest.raises(DataError, match=r"does not hold the answer 'dog'[\s\S]*row 1"):
        read({**row, "answer": "dog"}, "row 1")


@given(st.text(min_size=1), st.text(), st.text())
def test_an_answer_that_is_there_is_found(answer, before, after):
    context = before + answer + after
    start, found = locate_answer(context, [answer])
    assert context[start : start + len(found)] == found == answer
    assert start <= len(before)


def test_splits_of_a_directory_a_column_and_one_table(tmp_path):
    rows = [{"text": f"text {i}", "label": i % 3} for i in range(60)]
    for split, part in (("train", rows[:40]), ("dev", rows[40:])):
        write_jsonl(tmp_path / "parts" / f"{split}.jsonl", part)
    found = read_splits(DataSection(dataset_name=str(tmp_path / "parts"), max_train_samples=5), TEXT)
    assert {name: len(examples) for name, examples in found.items()} == {"train": 5, "validation": 20}
    named = [{**row, "split": "train" if i else "test"} for i, row in enumerate(rows)]
    write_jsonl(tmp_path / "named.jsonl", named)
    found = read_splits(DataSection(dataset_name=str(tmp_path / "named.jsonl")), TEXT)
    assert {name: len(examples) for name, examples in found.items()} == {"train": 59, "test": 1}
    write_jsonl(tmp_path / "one.jsonl", rows)
    found = read_splits(DataSection(dataset_name=str(tmp_path / "one.jsonl"), max_eval_samples=1), TEXT)
    assert sum(len(examples) for examples in found.values()) < 60
    assert len(found["validation"]) == 1
    write_jsonl(tmp_path / "few.jsonl", rows[:2])
    with pytest.raises(DataError, match="too few to split"):
        read_splits(DataSection(dataset_name=str(tmp_path / "few.jsonl")), TEXT)
    with pytest.raises(ConfigError, match="no dataset"):
        read_splits(DataSection(), TEXT)


def test_the_built_in_corpus_has_classes_and_splits_share_nothing(builtin_corpus):
    found = builtin_labelled(builtin_corpus)
    names = {split: set(label_names(examples)) for split, examples in found.items()}
    assert names["train"] == {"class", "function", "method", "module", "property", "topic"}
    assert names["validation"] | names["test"] <= names["train"]
    seen = {split: {example.text for example in examples} for split, examples in found.items()}
    assert not seen["train"] & (seen["validation"] | seen["test"])
    assert len(found["train"]) > 2000
    assert {example.labels[0] for example in found["train"][:100]} >= {"class", "function", "method", "topic"}


def test_the_first_unknown_label_is_named():
    examples = [LabelledExample("a", ("x",), where="row 1"), LabelledExample("b", ("z",), where="row 2")]
    with pytest.raises(DataError, match=r"'z'[\s\S]*row 2[\s\S]*x, y"):
        check_labels(examples, ["x", "y"])
