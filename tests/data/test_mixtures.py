"""Splits by fraction and mixtures by weight."""

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainshed.data.mixtures import draw_mixture, mixture_quotas, split_rows
from trainshed.errors import DataError


@given(
    keys=st.lists(st.integers(0, 40), min_size=1, max_size=120),
    validation=st.sampled_from([0.0, 0.1, 0.3]),
    test=st.sampled_from([0.0, 0.1, 0.5]),
    seed=st.integers(0, 3),
)
def test_splits_are_disjoint_and_keep_prompts_together(keys, validation, test, seed):
    names = [str(key) for key in keys]
    rows = list(enumerate(names))
    if len(set(names)) <= (validation > 0) + (test > 0) and validation + test > 0:
        with pytest.raises(DataError, match="too few"):
            split_rows(rows, names, validation_fraction=validation, test_fraction=test, seed=seed)
        return
    made = split_rows(rows, names, validation_fraction=validation, test_fraction=test, seed=seed)
    assert sorted(row for part in made.values() for row in part) == rows
    assert made["train"]
    for name, share in (("validation", validation), ("test", test)):
        assert bool(made[name]) is (share > 0)
    held = [{key for _, key in part} for part in made.values()]
    assert not held[0] & held[1]
    assert not held[0] & held[2]
    assert not held[1] & held[2]
    # the order of the rows does not matter
    order = list(range(len(rows)))
    random.Random(seed).shuffle(order)
    again = split_rows(
        [rows[n] for n in order],
        [names[n] for n in order],
        validation_fraction=validation,
        test_fraction=test,
        seed=seed,
    )
    assert {name: sorted(part) for name, part in again.items()} == made


def test_shares_are_met():
    keys = [str(number) for number in range(1000)]
    made = split_rows(keys, keys, validation_fraction=0.1, test_fraction=0.25, seed=0)
    assert {name: len(part) for name, part in made.items()} == {"train": 650, "validation": 100, "test": 250}
    assert made != split_rows(keys, keys, validation_fraction=0.1, test_fraction=0.25, seed=1)
    # one prompt with half of all rows does not become the test split
    keys = ["often"] * 500 + [str(number) for number in range(500)]
    for seed in range(5):
        made = split_rows(keys, keys, test_fraction=0.1, seed=seed)
        assert len(made["test"]) == 100
        assert "often" not in made["test"]


def test_quotas():
    assert mixture_quotas([30, 1000], [0.3, 0.7]) == [30, 70]
    assert mixture_quotas([30, 1000], [3, 7], limit=50) == [15, 35]
    assert mixture_quotas([30, 1000], [3, 7], limit=500) == [30, 70]
    assert mixture_quotas([10, 30], [1, 1], exhausted="repeat") == [20, 20]
    assert mixture_quotas([10, 30], [1, 1], limit=100, exhausted="repeat") == [50, 50]
    assert mixture_quotas([10, 10, 10], [1, 1, 1], limit=10) == [4, 3, 3]


@given(
    counts=st.lists(st.integers(1, 200), min_size=1, max_size=5),
    data=st.data(),
    limit=st.none() | st.integers(1, 300),
    exhausted=st.sampled_from(["stop", "repeat"]),
)
def test_mixtures_keep_their_shares(counts, data, limit, exhausted):
    weights = data.draw(st.lists(st.floats(0.05, 5), min_size=len(counts), max_size=len(counts)))
    sources = [[(source, row) for row in range(count)] for source, count in enumerate(counts)]
    drawn = draw_mixture(sources, weights, seed=3, limit=limit, exhausted=exhausted)
    assert drawn == draw_mixture(sources, weights, seed=3, limit=limit, exhausted=exhausted)
    assert limit is None or len(drawn) <= limit
    per_source = Counter(source for source, _ in drawn)
    for source, weight in enumerate(weights):
        assert abs(per_source[source] - len(drawn) * weight / sum(weights)) <= 1 + 1e-6
        times = Counter(row for owner, row in drawn if owner == source)
        turns = [times[row] for row in range(counts[source])]
        assert max(turns) - min(turns) <= 1
        if exhausted == "stop":
            assert max(turns) <= 1
    if exhausted == "stop" and limit is None:
        # one more row of some source is not to be had without repeating
        assert any(per_source[source] >= counts[source] - 1 for source in range(len(counts)))
