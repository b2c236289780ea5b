"""Passages through JSON and from tables of others."""

from pathlib import Path

import pytest

from trainshed.data.jsonl import write_jsonl
from trainshed.data.passages import Passage, read_passages, write_passages
from trainshed.errors import DataError

FULL = Passage(
    "d#3",
    "Bees dance.",
    title="Bees",
    doc_id="d",
    chunk_id=3,
    start=5,
    end=16,
    source="bees.md",
    metadata={"k": [1]},
)


def test_a_passage_goes_through_json(tmp_path: Path):
    passages = [FULL, Passage("other", "Ants\nmarch.")]
    assert [Passage.from_json(passage.to_json()) for passage in passages] == passages
    write_passages(tmp_path / "passages.jsonl", passages)
    assert read_passages(tmp_path / "passages.jsonl") == passages


@pytest.mark.parametrize(
    ("row", "what"),
    [
        ({"id": "a"}, "'text' of a passage is nothing"),
        ({"id": "a", "text": "  "}, "'text' of a passage is an empty string"),
        ({"id": None, "text": "t"}, "'id' of a passage is null"),
        ({"id": "a", "text": "t", "chunk_id": "1"}, "'chunk_id' of a passage is a string"),
        ({"id": "a", "text": "t", "metadata": []}, "'metadata' of a passage is a list"),
        ({"id": "a", "text": "t", "titel": "x"}, "unknown field 'titel'"),
    ],
)
def test_a_wrong_field_is_named(row: dict, what: str):
    with pytest.raises(DataError, match=what) as caught:
        Passage.from_json(row)
    assert caught.value.fix


def test_foreign_columns_are_mapped_or_kept_as_metadata(tmp_path: Path):
    path = tmp_path / "table.jsonl"
    write_jsonl(path, [{"pid": 7, "body": "Bees.", "year": 1990}, {"pid": 8, "body": "Ants.", "year": 1991}])
    passages = read_passages(path, columns={"id": "pid", "text": "body"})
    assert [(p.id, p.text, p.metadata) for p in passages] == [
        ("7", "Bees.", {"year": 1990}),
        ("8", "Ants.", {"year": 1991}),
    ]
    assert [p.id for p in read_passages(path, columns={"text": "body"})] == ["1", "2"]


@pytest.mark.parametrize(
    ("rows", "what", "line"),
    [
        ([{"id": "a", "text": "t"}, {"id": "a", "text": "u"}], "id 'a' stands at .*line 1 already", 2),
        ([{"id": "a", "text": "t"}, {"id": "b", "txt": "u"}], "no column 'text'", 2),
        ([{"id": "a", "text": None}], "value of 'text' is null", 1),
    ],
)
def test_a_wrong_row_is_named(tmp_path: Path, rows: list, what: str, line: int):
    path = tmp_path / "passages.jsonl"
    write_jsonl(path, rows)
    with pytest.raises(DataError, match=what) as caught:
        read_passages(path)
    assert caught.value.where == f"{path}, line {line}"


def test_a_file_without_passages_is_an_error(tmp_path: Path):
    path = tmp_path / "passages.jsonl"
    path.write_text("\n")
    with pytest.raises(DataError, match="empty"):
        read_passages(path)
