"""Metrics files, torn and whole."""

import json
import math
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainshed.errors import RunError
from trainshed.plan.metrics import MetricsLog, read_metrics, series

numbers = st.floats(width=32) | st.integers(-(2**40), 2**40)
steps = st.lists(st.dictionaries(st.sampled_from(["train/loss", "eval/mrr@10"]), numbers), max_size=8)


def write(path, rows):
    log = MetricsLog(path)
    for step, values in enumerate(rows):
        log.write(step, values)
    return log


@given(rows=steps)
def test_what_is_written_is_read(rows):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run" / "metrics.jsonl"
        write(path, rows)
        read = read_metrics(path)
        assert [row["step"] for row in read] == list(range(len(rows)))
        for row, values in zip(read, rows, strict=True):
            for name, value in values.items():
                assert row[name] == value or (not math.isfinite(value) and math.isnan(row[name]))


@settings(max_examples=25, deadline=None)
@given(rows=steps, share=st.floats(0, 1))
def test_a_torn_last_line_is_dropped_and_writing_goes_on(rows, share):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "metrics.jsonl"
        write(path, rows)
        whole = path.read_bytes() if path.exists() else b""
        # a share, and not a place: times are written with more or fewer digits
        cut = int(share * len(whole))
        path.write_bytes(whole[:cut])
        complete = whole[:cut].count(b"\n")
        assert len(read_metrics(path)) == complete
        MetricsLog(path).write(99, {"train/loss": 1})
        read = read_metrics(path)
        assert [row["step"] for row in read] == [*range(complete), 99]


@settings(max_examples=25, deadline=None)
@given(rows=steps, last=st.integers(-1, 10))
def test_truncating_keeps_the_steps_up_to_the_checkpoint(rows, last):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "metrics.jsonl"
        log = write(path, rows)
        before = read_metrics(path)
        log.truncate_after(last)
        assert repr(read_metrics(path)) == repr([row for row in before if row["step"] <= last])


def test_every_line_is_strict_json(tmp_path):
    log = MetricsLog(tmp_path / "metrics.jsonl")
    log.write(1, {"train/loss": float("nan"), "train/tokens": 3})

    def refuse(name):
        raise AssertionError(name)

    row = json.loads(log.path.read_text(), parse_constant=refuse)
    assert row["train/loss"] is None
    assert row["train/tokens"] == 3


def test_a_series_leaves_out_the_rows_without_it(tmp_path):
    log = MetricsLog(tmp_path / "metrics.jsonl")
    log.write(1, {"a/x": 1.0})
    log.write(2, {"a/y": 5.0})
    log.write(3, {"a/x": 2.0})
    assert series(read_metrics(log.path), "a/x") == [(1, 1.0), (3, 2.0)]


def test_no_file_is_no_rows(tmp_path):
    assert read_metrics(tmp_path / "metrics.jsonl") == []
    MetricsLog(tmp_path / "metrics.jsonl").truncate_after(3)
    assert not (tmp_path / "metrics.jsonl").exists()


def test_a_full_disk_is_one_clear_error(tmp_path):
    log = MetricsLog(tmp_path / "metrics.jsonl")
    log.path.symlink_to("/dev/full")
    with pytest.raises(RunError, match="disk is full"):
        log.write(1, {"a/x": 1.0})
