"""Splits by name."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from trainshed.data.splits import SPLITS, split_groups, split_of, stable_fraction


@given(st.text())
def test_every_name_has_one_split(name: str):
    assert 0 <= stable_fraction(name) < 1
    assert split_of(name) in SPLITS


def test_fractions_never_change():
    assert [round(stable_fraction(name), 6) for name in ("", "json.dumps", "ü")] == [
        0.893168,
        0.203899,
        0.335718,
    ]


def test_the_shares_are_as_stated():
    counts = Counter(split_of(f"group {number}") for number in range(10_000))
    for name, share in {"train": 0.7, "validation": 0.1, "test": 0.2}.items():
        assert abs(counts[name] / 10_000 - share) < 0.015


@given(st.dictionaries(st.text(), st.integers(1, 9), min_size=6, max_size=40))
def test_groups_are_split_by_what_they_hold(sizes: dict[str, int]):
    chosen = split_groups(sizes)
    assert chosen == split_groups(dict(reversed(sizes.items())))
    held = Counter()
    for group, split in chosen.items():
        held[split] += sizes[group]
    largest = max(sizes.values())
    for name, share in {"train": 0.7, "validation": 0.1, "test": 0.2}.items():
        assert abs(held[name] - share * sum(sizes.values())) <= largest
