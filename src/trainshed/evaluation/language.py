"""A language model that is measured alone, and the values of its metrics.

Left out: the measures (`perplexity`, `preferences`, `completions`, `win_rate`, `harness`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from trainshed.errors import ConfigError
from trainshed.evaluation.scores import Scores
from trainshed.evaluation.significance import (
    Interval,
    PairedDifference,
    geometric_difference,
    geometric_interval,
)

#: metrics whose mean is the weighted geometric one
GEOMETRIC = frozenset({"perplexity"})


@dataclass(frozen=True)
class LanguageModel:
    """A model with its tokenizer.

    Parameters
    ----------
    model
        Any causal language model of `transformers`, plain or with adapters.
    tokenizer
        Its tokenizer.
    max_length
        Most tokens that it is to read at once; what it can when None.
    """

    model: Any
    tokenizer: Any
    max_length: int | None = None

    @property
    def limit(self) -> int | None:
        """Most tokens that the model reads at once; None where nothing limits them.

        Raises
        ------
        ConfigError
            When more are asked for than it can read.
        """
        reads = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        if self.max_length is not None and reads is not None and self.max_length > reads:
            raise ConfigError(
                f"the model reads {reads} tokens, not {self.max_length}",
                where="evaluation.max_length",
                fix=f"at most {reads}, or leave it out",
            )
        return reads if self.max_length is None else self.max_length

    def shares_tokens_with(self, other: "LanguageModel") -> bool:
        """Return whether the two models speak of the same tokens."""
        sizes = {lm.model.config.get_text_config().vocab_size for lm in (self, other)}
        return len(sizes) == 1 and self.tokenizer.get_vocab() == other.tokenizer.get_vocab()


@dataclass(frozen=True)
class LanguageScores(Scores):
    """Values of a language model's metrics for ``n`` rows; see `Scores`.

    Where a metric is weighted by tokens and two models have different ones, there is no difference to test:
    it is not a number, and its ``n`` is 0.
    """

    def mean(self, metric: str, *, kind: str | None = None) -> float:
        """Return the mean of a metric; the geometric one of those in `GEOMETRIC`."""
        if metric not in GEOMETRIC:
            return super().mean(metric, kind=kind)
        values, weights = self._column(metric, kind)
        keep = ~np.isnan(values)
        if not keep.any():
            return float("nan")
        return float(
            np.exp(np.average(np.log(values[keep]), weights=None if weights is None else weights[keep]))
        )

    def interval(self, metric: str, *, kind: str | None = None) -> Interval:
        """Return the mean of a metric and its interval."""
        if metric not in GEOMETRIC:
            return super().interval(metric, kind=kind)
        values, weights = self._column(metric, kind)
        named = self.resampling.named("interval", metric, kind or "")
        mass = np.ones_like(values) if weights is None else weights
        return geometric_interval(np.log(values), weights=mass, resampling=named)

    def difference(self, baseline: Scores, metric: str, *, kind: str | None = None) -> PairedDifference:
        """Return how far this model is above ``baseline`` on the same rows."""
        rows = self._rows_of(baseline)
        own, other = self.weights.get(metric), baseline.weights.get(metric)
        if own is not None and (other is None or not np.array_equal(own, other[rows])):
            return PairedDifference(np.nan, np.nan, np.nan, np.nan, 0)
        if metric not in GEOMETRIC:
            return super().difference(baseline, metric, kind=kind)
        values, weights = self._column(metric, kind)
        before = baseline._values(metric)[rows][self._selected(kind)]
        mass = np.ones_like(values) if weights is None else weights
        named = self.resampling.named("difference", metric, kind or "")
        return geometric_difference(np.log(values), np.log(before), weights=mass, resampling=named)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "LanguageScores":
        """Make the scores again from what `to_json` returned, values of every row included."""
        plain = Scores.from_json(value)
        return cls(plain.ids, plain.values, plain.kinds, plain.weights, plain.counts, plain.resampling)


def row_ids(rows: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """Return the ``id`` of each row; their numbers, ``row1`` and on, where some have none or the same."""
    given = [str(row["id"]) for row in rows if row.get("id") is not None]
    if len(set(given)) == len(rows):
        return tuple(given)
    return tuple(f"row{number}" for number in range(1, len(rows) + 1))
