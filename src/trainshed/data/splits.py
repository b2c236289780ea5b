"""Splits that depend on names alone. Left out: random splits, which would need a seed to be repeated."""

import hashlib
from collections.abc import Mapping

SPLITS = ("train", "validation", "test")
#: upper bounds of a group's stable fraction
_BOUNDS = (("train", 0.7), ("validation", 0.8), ("test", 1.0))


def stable_fraction(text: str) -> float:
    """Return a number in [0, 1) that depends on ``text`` alone."""
    digest = hashlib.blake2b(text.encode("utf-8"), digest_size=8).digest()
    # 53 bits: with more, the largest ones would round up to 1
    return (int.from_bytes(digest, "big") >> 11) / 2**53


def split_groups(sizes: Mapping[str, int]) -> dict[str, str]:
    """Return the split of every group so that the shares hold for things, not only for groups.

    Unlike `split_of` this depends on what else there is, and a few groups do not end up in one split.

    Parameters
    ----------
    sizes
        How many things each group holds.
    """
    total, before, result = sum(sizes.values()), 0, {}
    for group in sorted(sizes, key=lambda name: stable_fraction(f"split:{name}")):
        middle = (before + sizes[group] / 2) / total
        result[group] = next(name for name, bound in _BOUNDS if middle < bound)
        before += sizes[group]
    return result


def split_of(group: str) -> str:
    """Return the split of a group of things that belong together: 70 % train, 10 % validation, 20 % test."""
    fraction = stable_fraction(f"split:{group}")
    return next(name for name, bound in _BOUNDS if fraction < bound)
