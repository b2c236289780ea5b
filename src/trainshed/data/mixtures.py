"""Dividing rows into splits, and mixing several sources by weight; both by seed, both without leaks.

Left out: where rows come from (`loading`).
"""

import random
from collections.abc import Mapping, Sequence
from typing import Literal, TypeVar

from trainshed.data.splits import stable_fraction
from trainshed.errors import DataError

T = TypeVar("T")


def split_rows(
    rows: Sequence[T],
    keys: Sequence[str],
    *,
    validation_fraction: float = 0.0,
    test_fraction: float = 0.0,
    seed: int = 0,
) -> dict[str, list[T]]:
    """Divide rows so that those with the same key are together.

    Which split a key is in depends on the seed and on which keys there are with how many rows, and not on the
    order of the rows. Shares are of rows and are met as nearly as whole groups allow.

    Parameters
    ----------
    rows
        What to divide.
    keys
        For each row what rows that belong together share, such as `formats.prompt_key`.
    validation_fraction, test_fraction
        Shares in ``[0, 1)``; 0 makes an empty split, any other share at least one group.
    seed
        Decides the division.

    Returns
    -------
    dict
        ``train``, ``validation`` and ``test``, disjoint; each in the order of ``rows``.

    Raises
    ------
    DataError
        When there are fewer different keys than splits.
    """
    wanted = {"test": test_fraction, "validation": validation_fraction}
    parts = [name for name, share in wanted.items() if share > 0]
    sizes: dict[str, int] = {}
    for key in keys:
        sizes[key] = sizes.get(key, 0) + 1
    if parts and len(sizes) <= len(parts):
        raise DataError(
            f"{len(rows)} rows with {len(sizes)} different prompts are too few to divide into "
            f"{len(parts) + 1} splits",
            where="data.validation_fraction, data.test_fraction",
            fix="more rows, or a fraction of 0",
        )
    order = sorted(sizes, key=lambda key: (stable_fraction(f"split:{seed}:{key}"), key))
    chosen = _assigned(order, sizes, {name: wanted[name] for name in parts})
    divided: dict[str, list[T]] = {"train": [], "validation": [], "test": []}
    for row, key in zip(rows, keys, strict=True):
        divided[chosen[key]].append(row)
    return divided


def _assigned(order: Sequence[str], sizes: Mapping[str, int], shares: Mapping[str, float]) -> dict[str, str]:
    """Return the split of every group; groups come in turn, the first ones into the first split of shares."""
    total, chosen = sum(sizes.values()), dict.fromkeys(order, "train")
    left = dict.fromkeys(order)
    for number, (name, share) in enumerate(shares.items(), start=1):
        budget, taken = share * total, 0
        others = len(shares) - number + 1  # groups that the splits after this one need
        for key in list(left):
            if len(left) <= others:
                break
            # nearer to the share with this group than without it
            if taken and abs(taken + sizes[key] - budget) > abs(taken - budget):
                continue
            if not taken and sizes[key] > 2 * budget and any(sizes[k] < sizes[key] for k in left):
                continue
            chosen[key] = name
            del left[key]
            taken += sizes[key]
            if taken >= budget:
                break
        if not taken:
            smallest = min(left, key=lambda key: sizes[key])
            chosen[smallest] = name
            del left[smallest]
    return chosen


def mixture_quotas(
    counts: Sequence[int],
    weights: Sequence[float],
    *,
    limit: int | None = None,
    exhausted: Literal["stop", "repeat"] = "stop",
) -> list[int]:
    """Return how many rows a mixture takes of each source.

    A weight divided by the sum of the weights is the source's share of the mixture.

    Parameters
    ----------
    counts
        Rows of each source.
    weights
        Positive, one a source.
    limit
        Most rows of the mixture (``data.max_train_samples``).
    exhausted
        ``stop``: the mixture is as large as it can be without taking a row twice; it ends where the first
        source is used up, and of the others rows are left over. ``repeat``: the mixture has ``limit`` rows,
        or as many as all sources together, and a source that is used up begins anew.

    Returns
    -------
    list[int]
        Rounded so that they add up, each within one of its exact share.
    """
    total_weight = sum(weights)
    shares = [weight / total_weight for weight in weights]
    if exhausted == "stop":
        # against rounding: 30 rows at a share of 0.3 are 100 in all, not 99
        size = int(min(count / share + 1e-9 for count, share in zip(counts, shares, strict=True)))
        size = size if limit is None else min(size, limit)
    else:
        size = sum(counts) if limit is None else limit
    exact = [share * size for share in shares]
    quotas = [int(value + 1e-9) for value in exact]
    by_rest = sorted(range(len(exact)), key=lambda number: (quotas[number] - exact[number], number))
    for number in by_rest[: size - sum(quotas)]:
        if exhausted == "repeat" or quotas[number] < counts[number]:
            quotas[number] += 1
    return quotas


def draw_mixture(
    sources: Sequence[Sequence[T]],
    weights: Sequence[float],
    *,
    seed: int,
    limit: int | None = None,
    exhausted: Literal["stop", "repeat"] = "stop",
) -> list[T]:
    """Return the rows of a mixture, shuffled; see `mixture_quotas` for how many are of which source.

    Within a source rows are drawn without replacement. With ``repeat`` a source is drawn from in rounds: no
    row comes a time more before every row of the source has come.
    """
    quotas = mixture_quotas([len(rows) for rows in sources], weights, limit=limit, exhausted=exhausted)
    drawn: list[T] = []
    for number, (rows, quota) in enumerate(zip(sources, quotas, strict=True)):
        for turn in range(-(-quota // len(rows)) if rows else 0):
            part = list(rows)
            random.Random(f"{seed}:mixture:{number}:{turn}").shuffle(part)
            drawn += part[: quota - turn * len(rows)]
    random.Random(f"{seed}:mixture:order").shuffle(drawn)
    return drawn
