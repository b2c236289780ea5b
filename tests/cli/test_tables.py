"""Text tables, sizes, times and curves."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainshed.cli.tables import duration, elapsed, size, sparkline, table


def test_columns_are_aligned():
    assert table(["a", "long"], [["wide cell", "x"], ["y", ""]]) == "a          long\nwide cell  x\ny"


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (5 * 1024**3, "5.0 GiB"), (2**50, "1024.0 TiB")],
)
def test_sizes(count, text):
    assert size(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (59.94, "59.9 s"), (60, "1 min 00 s"), (3599.6, "1 h 00 min"), (7260, "2 h 01 min")],
)
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_elapsed():
    assert elapsed("2026-01-01T00:00:00+00:00", "2026-01-01T00:01:30+00:00") == 90
    assert elapsed(None, None) is None
    assert elapsed("2026-01-01T00:00:00+00:00", None) > 0


@given(values=st.lists(st.floats(-1e9, 1e9) | st.just(math.nan), max_size=200), width=st.integers(1, 80))
def test_curves_fit(values, width):
    line = sparkline(values, width)
    assert len(line) <= width
    finite = [value for value in values if value == value]
    assert len(line) == (min(width, len(values)) if finite else 0)


def test_a_curve_goes_from_low_to_high():
    assert sparkline([1, 2, 3, math.nan, 4], 5) == "▁▃▆ █"
    assert sparkline([5, 5]) == "▁▁"
