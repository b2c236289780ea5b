"""Datasets in, datasets out."""

import datasets
import pytest

from trainshed.data.class_order import one_class_batches
from trainshed.data.exporting import convert_dataset, nemo_row, nemo_target, write_dataset
from trainshed.data.formats import RowFormat
from trainshed.data.jsonl import write_jsonl
from trainshed.data.rows import open_rows
from trainshed.errors import ConfigError, DataError


def pairs(count, start=0):
    return [
        {"prompt": f"q{n}", "chosen": f"good {n}", "rejected": f"bad {n}"}
        for n in range(start, start + count)
    ]


def rows_of(path, split=None):
    return [row for _, row in open_rows(path, split=split)]


def test_the_files_of_a_directory_are_one_table_unless_they_are_splits(tmp_path):
    write_jsonl(tmp_path / "a.jsonl", pairs(2))
    datasets.Dataset.from_list(pairs(2, 2)).to_json(tmp_path / "b.json", lines=False)
    made = convert_dataset(str(tmp_path))
    assert made.splits == {"train": pairs(4)}
    assert "a, b are read as one table" in made.notes[0]
    write_jsonl(tmp_path / "s" / "train.jsonl", pairs(2))
    write_jsonl(tmp_path / "s" / "dev.jsonl", pairs(2, 2))
    assert convert_dataset(str(tmp_path / "s")).splits == {"train": pairs(2), "validation": pairs(2, 2)}


def test_fractions(tmp_path):
    write_jsonl(tmp_path / "a.jsonl", pairs(40))
    made = convert_dataset(
        str(tmp_path / "a.jsonl"), target="unpaired", fractions={"validation": 0.1, "test": 0.2}
    )
    assert {name: len(rows) for name, rows in made.splits.items()} == {
        "train": 56,
        "validation": 8,
        "test": 16,
    }
    assert all(one_class_batches(rows, 8) == [] for rows in made.splits.values())
    assert made.format == RowFormat("unpaired")
    whole = convert_dataset(str(tmp_path / "a.jsonl"), fractions={"validation": 0.0, "test": 0.0})
    assert list(whole.splits) == ["train"]
    write_jsonl(tmp_path / "s" / "train.jsonl", pairs(20))
    write_jsonl(tmp_path / "s" / "test.jsonl", pairs(2, 20))
    with pytest.raises(DataError, match="has a split test already"):
        convert_dataset(str(tmp_path / "s"), fractions={"test": 0.1})


def test_what_is_written_is_read_again(tmp_path):
    splits = {"train": pairs(5), "test": pairs(2, 5)}
    assert write_dataset(splits, tmp_path / "d") == [
        tmp_path / "d" / "train.jsonl",
        tmp_path / "d" / "test.jsonl",
    ]
    write_dataset(splits, tmp_path / "saved", as_datasets=True)
    for place in ("d", "saved"):
        assert {name: rows_of(tmp_path / place, name) for name in splits} == splits
        assert convert_dataset(str(tmp_path / place)).splits == splits
    write_dataset({"train": pairs(5)}, tmp_path / "one.jsonl")
    assert rows_of(tmp_path / "one.jsonl") == pairs(5)


def test_nothing_is_overwritten(tmp_path):
    write_jsonl(tmp_path / "a.jsonl", [{"kept": 1}])
    with pytest.raises(ConfigError, match="nothing is overwritten"):
        write_dataset({"train": pairs(1)}, tmp_path / "a.jsonl")
    assert rows_of(tmp_path / "a.jsonl") == [{"kept": 1}]
    with pytest.raises(ConfigError, match="one file cannot hold"):
        write_dataset({"train": pairs(1), "test": pairs(1)}, tmp_path / "b.jsonl")
    assert not (tmp_path / "b.jsonl").exists()


def test_nemo():
    assert nemo_row(pairs(1)[0], RowFormat("preference")) == {
        "context": [{"role": "user", "content": "q0"}],
        "completions": [
            {"rank": 0, "completion": [{"role": "assistant", "content": "good 0"}]},
            {"rank": 1, "completion": [{"role": "assistant", "content": "bad 0"}]},
        ],
    }
    assert [nemo_target(name) for name in ("preference", "prompt-completion", "messages", "text")] == [
        "preference",
        "messages",
        "messages",
        "text",
    ]
    with pytest.raises(DataError, match="NeMo-RL has no rows like text"):
        nemo_row({"text": "t"}, RowFormat("text"))
