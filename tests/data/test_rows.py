"""Rows of every kind of source."""

import json
from pathlib import Path

import datasets
import pytest

from trainshed.data.jsonl import write_jsonl
from trainshed.data.rows import has_split, known_splits, open_rows
from trainshed.errors import DataError


def rows_of(source, **options) -> list:
    return [row for _, row in open_rows(source, **options)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_jsonl(tmp_path / "train.jsonl", [{"a": 1}, {"a": 2}])
    write_jsonl(tmp_path / "dev.jsonl", [{"a": 3}])
    datasets.Dataset.from_list([{"a": 4}]).to_parquet(tmp_path / "test.parquet")
    return tmp_path


def test_a_directory_has_a_file_a_split(folder: Path):
    assert known_splits(folder) == ["dev", "test", "train"]
    assert rows_of(folder) == rows_of(folder, split="train") == [{"a": 1}, {"a": 2}]
    assert rows_of(folder, split="validation") == [{"a": 3}]
    assert rows_of(folder, split="test") == [{"a": 4}]
    with pytest.raises(DataError, match="no split 'tests'") as caught:
        rows_of(folder, split="tests")
    assert caught.value.where == str(folder)
    assert caught.value.fix.startswith("did you mean 'test'?")


def test_shards_are_one_split(tmp_path: Path):
    (tmp_path / "data").mkdir()
    for shard in range(3):
        path = tmp_path / "data" / f"train-{shard:05d}-of-00003.parquet"
        datasets.Dataset.from_list([{"a": shard}]).to_parquet(path)
    assert rows_of(tmp_path) == [{"a": 0}, {"a": 1}, {"a": 2}]


def test_a_file_is_picked_by_its_split_column(tmp_path: Path):
    path = tmp_path / "all.jsonl"
    write_jsonl(path, [{"a": 1, "split": "train"}, {"a": 2, "split": "test"}])
    assert known_splits(path) == ["test", "train"]
    assert [row["a"] for row in rows_of(path, split="test")] == [2]
    assert [row["a"] for row in rows_of(path)] == [1, 2]
    with pytest.raises(DataError, match="no row has the split 'validation'"):
        rows_of(path, split="validation")


def test_an_undivided_file_is_never_read_as_another_split(tmp_path: Path):
    write_jsonl(tmp_path / "all.jsonl", [{"a": 1}])
    write_jsonl(tmp_path / "test.jsonl", [{"a": 2}])
    assert known_splits(tmp_path / "all.jsonl") == []
    assert rows_of(tmp_path / "all.jsonl", split="train") == [{"a": 1}]
    assert rows_of(tmp_path / "test.jsonl", split="test") == [{"a": 2}]
    with pytest.raises(DataError, match="single file has no split 'test'"):
        rows_of(tmp_path / "all.jsonl", split="test")


def test_which_splits_a_source_has(folder: Path, tmp_path: Path):
    write_jsonl(tmp_path / "questions.jsonl", [{"a": 1}])
    for split, there in (("train", True), ("questions", True), ("validation", False)):
        assert has_split(tmp_path / "questions.jsonl", split) == there
    write_jsonl(tmp_path / "all.jsonl", [{"a": 1, "split": "train"}, {"a": 2, "split": "test"}])
    assert has_split(tmp_path / "all.jsonl", "test")
    assert not has_split(tmp_path / "all.jsonl", "validation")
    (tmp_path / "data").mkdir()
    for name in ("train", "dev"):
        write_jsonl(tmp_path / "data" / f"{name}.jsonl", [{"a": 1}])
    assert has_split(tmp_path / "data", "validation") == bool(rows_of(tmp_path / "data", split="validation"))
    assert not has_split(tmp_path / "data", "test")


def test_saved_and_given_datasets(tmp_path: Path):
    one = datasets.Dataset.from_list([{"a": 1}])
    both = datasets.DatasetDict({"train": one, "test": datasets.Dataset.from_list([{"a": 2}])})
    both.save_to_disk(tmp_path / "both")
    for source in (both, tmp_path / "both"):
        assert known_splits(source) == ["test", "train"]
        assert rows_of(source) == [{"a": 1}]
        assert rows_of(source, split="test") == [{"a": 2}]
    assert known_splits(one) == known_splits([{"a": 1}]) == []


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        ("a.json", b'{"a": 1}', "holds an object"),
        ("a.json", b'[{"a": 1}, 2]', "item is a number"),
        ("a.json", b"[", "not valid JSON"),
        ("a.json", b'["\xe9"]', "not UTF-8"),
        ("a.parquet", b"PAR1 nothing", "not readable Parquet"),
        ("a.parquet", b"", "not readable Parquet"),
        ("a.jsonl", b"", "empty"),
        ("a.json", b"[]", "empty"),
        ("a.csv", b"a,b", r"cannot read a dataset from a \.csv"),
    ],
)
def test_a_bad_file_is_named(tmp_path: Path, name: str, content: bytes, what: str):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError, match=what) as caught:
        rows_of(path)
    assert str(path) in caught.value.where
    assert caught.value.fix


def test_a_cut_parquet_file_is_named(tmp_path: Path):
    path = tmp_path / "a.parquet"
    datasets.Dataset.from_list([{"a": "x" * 1000}] * 100).to_parquet(path)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(DataError, match="not readable Parquet"):
        rows_of(path)


def test_a_damaged_saved_dataset_is_named(tmp_path: Path):
    datasets.Dataset.from_list([{"a": 1}]).save_to_disk(tmp_path / "saved")
    (tmp_path / "saved" / "state.json").write_text(json.dumps({"nothing": 1}))
    with pytest.raises(DataError, match="save_to_disk"):
        rows_of(tmp_path / "saved")


def test_a_missing_path_names_the_nearest(folder: Path):
    with pytest.raises(DataError, match="does not exist") as caught:
        rows_of(folder / "trian.jsonl")
    assert caught.value.fix == f"did you mean {folder / 'train.jsonl'}?"
    with pytest.raises(DataError, match="does not exist"):
        known_splits(folder / "nowhere.jsonl")
    (folder / "empty").mkdir()
    with pytest.raises(DataError, match="holds no dataset"):
        rows_of(folder / "empty")


def test_an_unknown_name_is_neither_path_nor_hub_dataset():
    with pytest.raises(DataError, match="neither a local path nor a hub dataset that can be reached"):
        rows_of("no-such-owner-at-all/no-such-dataset")


def test_other_objects_are_refused():
    with pytest.raises(DataError, match="'int' objects are no datasets"):
        open_rows(3)
    with pytest.raises(DataError, match=r"(?s)item is a string, not a dict.*item 2"):
        rows_of([{"a": 1}, "b"])
