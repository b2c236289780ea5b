"""Metrics of rankings: recall, precision, hit, MRR, nDCG and MAP, for many queries at once.

Each metric is a few array operations on a sparse table of hits (`judging.Judged`), with one value a query.
Gains and normalisation are those of trec_eval, with two differences in what is averaged: a query that the run
lacks scores 0 instead of being left out, and one that has no relevant document is left out and counted.
Left out: measures that need the judged non-relevant documents.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from trainshed.errors import ConfigError, UnknownNameError, nearest
from trainshed.evaluation.judging import Floats, Ints, Judged


def recall(judged: Judged, k: int | None = None) -> Floats:
    """Return the share of a query's relevant documents among its first ``k``: shape ``[n]``."""
    return _count_found(judged, k) / judged.n_relevant


def precision(judged: Judged, k: int) -> Floats:
    """Return the share of relevant documents among the first ``k``; over ``k`` even if fewer were found."""
    return _count_found(judged, k) / k


def hit(judged: Judged, k: int | None = None) -> Floats:
    """Return 1 for each query with a relevant document among its first ``k``, else 0: shape ``[n]``."""
    return (_count_found(judged, k) > 0).astype(np.float64)


def reciprocal_rank(judged: Judged, k: int | None = None) -> Floats:
    """Return one over the rank of the first relevant document, 0 when it is not among the first ``k``."""
    values = np.zeros(len(judged.query_ids))
    queries, first = np.unique(judged.hit_query, return_index=True)
    ranks = judged.hit_rank[first]
    inside = ranks <= _limit(k)
    values[queries[inside]] = 1.0 / ranks[inside]
    return values


def ndcg(judged: Judged, k: int | None = None, *, exponential: bool = False) -> Floats:
    """Return the discounted gain of the first ``k`` over that of the best possible ranking: shape ``[n]``.

    Järvelin and Kekäläinen (2002) with the discount ``1 / log2(rank + 1)``.

    Parameters
    ----------
    judged
        The hits.
    k
        How many documents count; all by default.
    exponential
        Gain ``2**grade - 1`` (Burges et al. 2005) instead of the grade itself (trec_eval).
    """
    found = _discounted(judged, judged.hit_query, judged.hit_rank, judged.hit_grade, k, exponential)
    best = _discounted(judged, judged.ideal_query, judged.ideal_rank, judged.ideal_grade, k, exponential)
    return found / best


def ndcg_exponential(judged: Judged, k: int | None = None) -> Floats:
    """Return nDCG with the gain ``2**grade - 1``; see `ndcg`."""
    return ndcg(judged, k, exponential=True)


def average_precision(judged: Judged, k: int | None = None) -> Floats:
    """Return the mean, over all relevant documents, of the precision at each one's rank: shape ``[n]``.

    A relevant document that is not among the first ``k`` adds 0.
    """
    n = len(judged.query_ids)
    first = np.searchsorted(judged.hit_query, np.arange(n))
    nth = np.arange(judged.hit_query.size) - first[judged.hit_query] + 1
    gains = np.where(judged.hit_rank <= _limit(k), nth / judged.hit_rank, 0.0)
    return _sum_by_query(judged.hit_query, gains, n) / judged.n_relevant


#: name of a metric -> its function; the part after ``@`` is the cut-off
METRICS: Mapping[str, Callable[..., Floats]] = {
    "hit": hit,
    "map": average_precision,
    "mrr": reciprocal_rank,
    "ndcg": ndcg,
    "ndcg_exp": ndcg_exponential,
    "precision": precision,
    "recall": recall,
}
_ALIASES = {"ap": "map", "p": "precision", "r": "recall", "recip_rank": "mrr", "rr": "mrr", "success": "hit"}
_NEEDS_CUTOFF = ("precision",)


def parse_metric(name: str) -> tuple[str, int | None]:
    """Split ``"ndcg@10"`` into ``("ndcg", 10)``; without ``@`` the cut-off is None.

    Names are not case-sensitive; ``P``, ``R``, ``success``, ``RR`` and ``AP`` are known too.

    Raises
    ------
    UnknownNameError
        No such metric; the error names the nearest one.
    ConfigError
        The cut-off is not a positive whole number, or is missing where the metric needs one.
    """
    stem, at, cutoff = name.strip().lower().partition("@")
    stem = _ALIASES.get(stem, stem)
    if stem not in METRICS:
        near = nearest(stem, METRICS)
        listed = ", ".join(sorted(METRICS))
        fix = f"known: {listed}, each with an optional cut-off such as @10"
        raise UnknownNameError(
            f"unknown ranking metric {name!r}",
            fix=f"did you mean {near + at + cutoff!r}? {fix}" if near else fix,
        )
    if at and not (re.fullmatch(r"[0-9]+", cutoff) and int(cutoff) > 0):
        raise ConfigError(f"the cut-off of metric {name!r} is not a positive whole number", fix=f"{stem}@10")
    if not at and stem in _NEEDS_CUTOFF:
        raise ConfigError(f"metric {name!r} needs a cut-off", fix=f"{stem}@10")
    return stem, int(cutoff) if at else None


def metric_name(name: str) -> str:
    """Return the name under which a metric's values are kept: ``"P@5"`` becomes ``"precision@5"``."""
    stem, k = parse_metric(name)
    return stem if k is None else f"{stem}@{k}"


def default_metrics(top_k_values: Iterable[int]) -> list[str]:
    """Return the metrics that a report computes for some cut-offs.

    Recall, hit, precision and nDCG at each, MRR and MAP at the largest.

    Raises
    ------
    ConfigError
        A cut-off is not a positive whole number, or there is none.
    """
    cutoffs = sorted({check_cutoff(k) for k in top_k_values})
    if not cutoffs:
        raise ConfigError("top_k_values is empty", fix="[1, 5, 10]")
    each = [f"{stem}@{k}" for stem in ("recall", "hit", "precision", "ndcg") for k in cutoffs]
    return [f"mrr@{cutoffs[-1]}", f"map@{cutoffs[-1]}", *each]


def headline_metrics(top_k_values: Iterable[int]) -> list[str]:
    """Return those of `default_metrics` that a table shows: MRR, nDCG, MAP at the largest, recall at each."""
    names = default_metrics(top_k_values)
    top = names[0].partition("@")[2]
    return [
        f"mrr@{top}",
        f"ndcg@{top}",
        f"map@{top}",
        *(name for name in names if name.startswith("recall@")),
    ]


def check_cutoff(k: Any) -> int:
    """Return ``k`` when it is a positive whole number, else raise `ConfigError`."""
    if isinstance(k, bool) or not isinstance(k, int | np.integer) or k < 1:
        raise ConfigError(
            f"the cut-off {k!r} is not a positive whole number", where="top_k_values", fix="[1, 5, 10]"
        )
    return int(k)


def score_rankings(judged: Judged, metrics: Iterable[str]) -> dict[str, Floats]:
    """Return the values of some metrics for every scored query.

    Parameters
    ----------
    judged
        What `judge`, `from_results` or `from_ranks` returned.
    metrics
        Names such as ``"ndcg@10"``.

    Returns
    -------
    dict
        Name to values of shape ``[n]``, in the order of ``judged.query_ids``.

    Raises
    ------
    UnknownNameError
        No such metric.
    """
    values = {}
    for name in metrics:
        stem, k = parse_metric(name)
        values[metric_name(name)] = METRICS[stem](judged, k)
    return values


def _limit(k: int | None) -> float:
    return np.inf if k is None else k


def _count_found(judged: Judged, k: int | None) -> Floats:
    inside = judged.hit_query[judged.hit_rank <= _limit(k)]
    return np.bincount(inside, minlength=len(judged.query_ids)).astype(np.float64)


def _discounted(
    judged: Judged, query: Ints, rank: Ints, grade: Floats, k: int | None, exponential: bool
) -> Floats:
    gain = np.exp2(grade) - 1.0 if exponential else grade
    gain = np.where(rank <= _limit(k), gain / np.log2(rank + 1.0), 0.0)
    return _sum_by_query(query, gain, len(judged.query_ids))


def _sum_by_query(query: Ints, weights: Floats, n: int) -> Floats:
    return np.bincount(query, weights=weights, minlength=n).astype(np.float64)  # integers when there are none
