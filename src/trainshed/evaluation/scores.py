"""Per-question values of some metrics, and what follows from them: means, intervals, comparisons, JSON.

A mean without its values can't be tested against another one, so the values are always kept. Left out: how
the values came about (`retrieval`, `generation`) and how they are shown (`report`).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainshed.errors import DataError, UnknownNameError, did_you_mean
from trainshed.evaluation.significance import (
    Interval,
    PairedDifference,
    Resampling,
    bootstrap_interval,
    finite,
    paired_difference,
)

Floats = NDArray[np.float64]

#: metrics of which less is better
LOWER_IS_BETTER = frozenset(
    {"answer_nll", "token_nll", "sequence_nll", "perplexity", "bits_per_byte", "unfinished"}
)
#: metrics of which neither more nor less is better
NEITHER_IS_BETTER = frozenset({"tokens", "kl", "ties"})


@dataclass(frozen=True)
class Scores:
    """Values of some metrics for ``n`` questions.

    Parameters
    ----------
    ids
        Id of each question.
    values
        Metric to values of shape ``[n]``; NaN where the metric is not defined for a question.
    kinds
        Kind of each question, ``""`` for none; empty when no question has one.
    weights
        Metric to weights of shape ``[n]``, for metrics whose mean is weighted.
    counts
        What else is worth knowing: questions left out, without a result, and the like.
    resampling
        How intervals and p-values are computed.
    """

    ids: tuple[str, ...]
    values: Mapping[str, Floats]
    kinds: tuple[str, ...] = ()
    weights: Mapping[str, Floats] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)
    resampling: Resampling = field(default_factory=Resampling)

    def __post_init__(self) -> None:
        n = len(self.ids)
        sizes = [np.shape(column) for column in [*self.values.values(), *self.weights.values()]]
        if any(size != (n,) for size in sizes) or (self.kinds and len(self.kinds) != n):
            raise DataError(f"{n} questions, {len(self.kinds)} kinds and values of shapes {sizes}")

    @property
    def metrics(self) -> list[str]:
        """Names of the metrics."""
        return list(self.values)

    @property
    def kind_names(self) -> list[str]:
        """The kinds of question, sorted, without the unnamed one."""
        return sorted(set(self.kinds) - {""})

    @property
    def aggregates(self) -> dict[str, Interval]:
        """Mean and interval of every metric over all questions."""
        return {metric: self.interval(metric) for metric in self.values}

    def by_kind(self) -> dict[str, dict[str, Interval]]:
        """Return mean and interval of every metric for each kind of question."""
        return {kind: {m: self.interval(m, kind=kind) for m in self.values} for kind in self.kind_names}

    def mean(self, metric: str, *, kind: str | None = None) -> float:
        """Return the mean of a metric, over all questions or those of one kind."""
        values, weights = self._column(metric, kind)
        keep = ~np.isnan(values)
        if not keep.any():
            return float("nan")
        return float(np.average(values[keep], weights=None if weights is None else weights[keep]))

    def interval(self, metric: str, *, kind: str | None = None) -> Interval:
        """Return the mean of a metric and its interval, over all questions or those of one kind.

        Raises
        ------
        UnknownNameError
            There are no values of this metric, or no questions of this kind.
        """
        values, weights = self._column(metric, kind)
        named = self.resampling.named("interval", metric, kind or "")
        return bootstrap_interval(values, weights=weights, resampling=named)

    def difference(self, baseline: "Scores", metric: str, *, kind: str | None = None) -> PairedDifference:
        """Return how far this system is above ``baseline`` on the same questions, paired by their ids.

        Raises
        ------
        DataError
            The two were not computed on the same questions.
        UnknownNameError
            One of them has no values of this metric.
        """
        rows = self._rows_of(baseline)
        values, weights = self._column(metric, kind)
        other, other_weights = baseline._values(metric)[rows], baseline.weights.get(metric)
        selected = self._selected(kind)
        if weights is not None and not (
            other_weights is not None and np.array_equal(weights, other_weights[rows][selected])
        ):
            raise DataError(
                f"the weights of {metric} differ between the two systems, so that they can't be paired",
                fix="compare systems with the same tokenizer, or use a metric without weights",
            )
        named = self.resampling.named("difference", metric, kind or "")
        return paired_difference(values, other[selected], weights=weights, resampling=named)

    def to_json(self, *, per_example: bool = True) -> dict[str, Any]:
        """Return plain numbers by metric, and beside them ``intervals``, ``by_kind`` and ``counts``.

        Parameters
        ----------
        per_example
            Add every question's values, from which `from_json` makes the object again.
        """
        result: dict[str, Any] = {
            **_numbers(self.aggregates),
            "n": len(self.ids),
            "counts": dict(self.counts),
            "by_kind": {
                kind: {"n": self.kinds.count(kind), **_numbers(row)} for kind, row in self.by_kind().items()
            },
            "resampling": {
                "samples": self.resampling.samples,
                "permutations": self.resampling.permutations,
                "confidence": self.resampling.confidence,
                "seed": self.resampling.seed,
            },
        }
        if per_example:
            result["per_example"] = {
                "ids": list(self.ids),
                "kinds": list(self.kinds),
                "values": {m: [finite(v) for v in column] for m, column in self.values.items()},
                "weights": {m: [finite(v) for v in column] for m, column in self.weights.items()},
            }
        return result

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Scores":
        """Make the scores again from what `to_json` returned, values of every question included.

        Raises
        ------
        DataError
            The values of the questions are not there.
        """
        if "per_example" not in value:
            raise DataError(
                "these scores have no per-question values", fix="write them with per_example=True"
            )
        table = value["per_example"]
        return Scores(
            ids=tuple(table["ids"]),
            values={m: np.array(column, dtype=np.float64) for m, column in table["values"].items()},
            kinds=tuple(table["kinds"]),
            weights={m: np.array(column, dtype=np.float64) for m, column in table["weights"].items()},
            counts=dict(value["counts"]),
            resampling=Resampling(**value["resampling"]),
        )

    def _selected(self, kind: str | None) -> NDArray[np.bool_]:
        if kind is None:
            return np.ones(len(self.ids), dtype=np.bool_)
        if kind not in self.kinds:
            raise UnknownNameError(
                f"no question is of kind {kind!r}", fix=did_you_mean(kind, self.kind_names)
            )
        return np.array([k == kind for k in self.kinds], dtype=np.bool_)

    def _values(self, metric: str) -> Floats:
        if metric not in self.values:
            raise UnknownNameError(f"no values of metric {metric!r}", fix=did_you_mean(metric, self.values))
        return self.values[metric]

    def _column(self, metric: str, kind: str | None) -> tuple[Floats, Floats | None]:
        values, selected = self._values(metric), self._selected(kind)
        weights = self.weights.get(metric)
        return values[selected], None if weights is None else weights[selected]

    def _rows_of(self, baseline: "Scores") -> NDArray[np.int64]:
        row = {name: i for i, name in enumerate(baseline.ids)}
        lacking = [name for name in self.ids if name not in row]
        if lacking or len(self.ids) != len(baseline.ids):
            name = f", such as {lacking[0]!r}" if lacking else ""
            raise DataError(
                f"the systems were scored on different questions: {len(self.ids)} and {len(baseline.ids)}, "
                f"{len(lacking)} of them only in the first{name}",
                fix="score both on the same questions",
            )
        return np.array([row[name] for name in self.ids], dtype=np.int64)


def example_ids(examples: Sequence[Any]) -> tuple[str, ...]:
    """Return the id of each example, or ``q<position>`` where it has none.

    Raises
    ------
    DataError
        Two examples have the same id.
    """
    ids = tuple(example.id or f"q{i}" for i, example in enumerate(examples))
    if len(set(ids)) < len(ids):
        seen: set[str] = set()
        twice = next(name for name in ids if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise DataError(f"two examples have the id {twice!r}", fix="give every example its own id, or none")
    return ids


def example_kinds(kinds: Iterable[str]) -> tuple[str, ...]:
    """Return the kinds of some examples, or ``()`` when none has one."""
    listed = tuple(kinds)
    return listed if any(listed) else ()


def _numbers(row: Mapping[str, Interval]) -> dict[str, Any]:
    plain: dict[str, Any] = {metric: finite(interval.mean) for metric, interval in row.items()}
    return {**plain, "intervals": {metric: interval.to_json() for metric, interval in row.items()}}
