"""How sure a mean is, and whether two systems differ on the same questions.

Percentile bootstrap intervals (Efron 1979), and for pairs also the randomisation test that Smucker, Allan and
Carterette (CIKM 2007) recommend for retrieval. All resampling is vectorised and repeats exactly for a seed.
Left out: corrections for many comparisons, and bias-corrected intervals.
"""

import hashlib
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trainshed.errors import ConfigError, DataError

Floats = NDArray[np.float64]

# elements of one block of resampled rows: bounds the memory to some tens of megabytes
_BLOCK = 2_000_000


@dataclass(frozen=True, slots=True)
class Resampling:
    """How intervals and p-values are computed.

    Parameters
    ----------
    samples
        Bootstrap samples for an interval; 0 leaves intervals out: their bounds are NaN.
    permutations
        Random sign flips for a p-value; with few enough pairs all ``2**n`` are enumerated instead.
    confidence
        Share of the bootstrap distribution that lies inside an interval.
    seed
        Seed of the generator; combine it with names by `stable_seed`.
    """

    samples: int = 2000
    permutations: int = 10_000
    confidence: float = 0.95
    seed: int = 0

    def __post_init__(self) -> None:
        if self.samples < 0 or self.permutations < 1:
            raise ConfigError("bootstrap samples and permutations are counts", fix="samples=2000")
        if not 0.0 < self.confidence < 1.0:
            raise ConfigError(f"confidence {self.confidence} is not between 0 and 1", fix="confidence=0.95")

    def named(self, *names: str) -> "Resampling":
        """Return the same with a seed of its own for ``names``."""
        return replace(self, seed=stable_seed(*names, seed=self.seed))


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean with its bootstrap interval; ``n`` values went into it. NaN where ``n`` is 0."""

    mean: float
    low: float
    high: float
    n: int

    def to_json(self) -> dict[str, float | int | None]:
        """Return ``{"mean", "low", "high", "n"}``, with None for NaN."""
        return {"mean": finite(self.mean), "low": finite(self.low), "high": finite(self.high), "n": self.n}

    def __str__(self) -> str:
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True, slots=True)
class PairedDifference:
    """How far a system is above a baseline on the same ``n`` questions: mean, interval, two-sided p-value."""

    mean: float
    low: float
    high: float
    p_value: float
    n: int

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval lies on one side of 0."""
        return self.low > 0 or self.high < 0

    def to_json(self) -> dict[str, float | int | bool | None]:
        """Return ``{"mean", "low", "high", "p_value", "n", "excludes_zero"}``, with None for NaN."""
        return {
            "mean": finite(self.mean),
            "low": finite(self.low),
            "high": finite(self.high),
            "p_value": finite(self.p_value),
            "n": self.n,
            "excludes_zero": self.excludes_zero,
        }


def finite(value: float) -> float | None:
    """Return the number, or None when JSON has no way to write it."""
    return float(value) if np.isfinite(value) else None


def stable_seed(*names: str, seed: int = 0) -> int:
    """Return a 63-bit seed that depends on ``seed`` and on ``names``, the same in every process."""
    text = "\x1f".join([str(seed), *names])
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8"), digest_size=8).digest(), "big") >> 1


def bootstrap_interval(
    values: ArrayLike, *, weights: ArrayLike | None = None, resampling: Resampling | None = None
) -> Interval:
    """Return the mean of some values and its percentile bootstrap interval.

    Parameters
    ----------
    values
        Shape ``[n]``; NaN stands for undefined and is left out.
    weights
        Shape ``[n]``: the mean is ``sum(values * weights) / sum(weights)``, and (value, weight) pairs are
        resampled. With token counts as weights this is the interval of a mean over all tokens.
    resampling
        Samples, confidence and seed.

    Raises
    ------
    DataError
        The shapes differ.
    """
    resampling = resampling or Resampling()
    kept, mass = _defined(values, weights)
    if kept.size == 0:
        return Interval(np.nan, np.nan, np.nan, 0)
    low, high = _bounds(_bootstrap_means(kept, mass, resampling), resampling.confidence)
    return Interval(_mean(kept, mass), low, high, kept.size)


def paired_difference(
    values: ArrayLike,
    baseline: ArrayLike,
    *,
    weights: ArrayLike | None = None,
    resampling: Resampling | None = None,
) -> PairedDifference:
    """Return how far ``values`` lie above ``baseline``, question by question.

    Parameters
    ----------
    values, baseline
        Shape ``[n]``: two systems on the same questions, in the same order. A pair with a NaN is left out.
    weights
        Shape ``[n]``, the same for both systems; see `bootstrap_interval`.
    resampling
        Samples, permutations, confidence and seed.

    Raises
    ------
    DataError
        The shapes differ.
    """
    resampling = resampling or Resampling()
    above, below = np.asarray(values, dtype=np.float64), np.asarray(baseline, dtype=np.float64)
    if above.shape != below.shape:
        raise DataError(f"values of shape {above.shape} and a baseline of shape {below.shape} are no pairs")
    kept, mass = _defined(above - below, weights)
    if kept.size == 0:
        return PairedDifference(np.nan, np.nan, np.nan, np.nan, 0)
    low, high = _bounds(_bootstrap_means(kept, mass, resampling), resampling.confidence)
    signed = kept if mass is None else kept * mass
    return PairedDifference(_mean(kept, mass), low, high, randomisation_p(signed, resampling), kept.size)


def geometric_interval(
    logs: ArrayLike, *, weights: ArrayLike, resampling: Resampling | None = None
) -> Interval:
    """Return the weighted geometric mean and its interval: ``exp`` of what `bootstrap_interval` gives.

    With mean negative log-likelihoods as ``logs`` and token counts as ``weights`` it is the perplexity.
    """
    found = bootstrap_interval(logs, weights=weights, resampling=resampling)
    mean, low, high = np.exp([found.mean, found.low, found.high])
    return Interval(float(mean), float(low), float(high), found.n)


def geometric_difference(
    logs: ArrayLike, baseline: ArrayLike, *, weights: ArrayLike, resampling: Resampling | None = None
) -> PairedDifference:
    """Return how far one weighted geometric mean lies above another on the same questions.

    Each bootstrap sample draws questions, with both values of each; the p-value is that of the mean
    difference of the logarithms (`paired_difference`).

    Parameters
    ----------
    logs, baseline
        Shape ``[n]``: logarithms of two systems' values. A pair with a NaN is left out.
    weights
        Shape ``[n]``, the same for both.
    resampling
        Samples, permutations, confidence and seed.
    """
    resampling = resampling or Resampling()
    plain = paired_difference(logs, baseline, weights=weights, resampling=resampling)
    if plain.n == 0:
        return plain
    above, below = np.asarray(logs, dtype=np.float64), np.asarray(baseline, dtype=np.float64)
    undefined = np.isnan(above) | np.isnan(below)
    means, drawn = [], []
    for values in (above, below):
        kept, mass = _defined(np.where(undefined, np.nan, values), weights)
        means.append(np.exp(_mean(kept, mass)))
        # the same seed draws the same questions
        drawn.append(np.exp(_bootstrap_means(kept, mass, resampling)))
    low, high = _bounds(drawn[0] - drawn[1], resampling.confidence)
    return PairedDifference(float(means[0] - means[1]), low, high, plain.p_value, plain.n)


def randomisation_p(differences: ArrayLike, resampling: Resampling | None = None) -> float:
    """Return the two-sided p-value of the paired randomisation test.

    The share of sign assignments whose absolute sum is at least the observed one; exact when all of them are
    no more than ``resampling.permutations``, else ``(1 + count) / (1 + permutations)``.

    Parameters
    ----------
    differences
        Shape ``[n]``: one difference a question.
    resampling
        Permutations and seed.
    """
    resampling = resampling or Resampling()
    magnitudes = np.abs(np.asarray(differences, dtype=np.float64))
    observed = abs(float(np.sum(differences)))
    magnitudes = magnitudes[magnitudes > 0]  # the sign of a zero changes nothing
    if magnitudes.size == 0:
        return 1.0
    threshold = observed - 1e-9 * float(magnitudes.max())  # sums in another order differ in the last digits
    exact = magnitudes.size < 63 and 2**magnitudes.size <= resampling.permutations
    if exact:
        codes = np.arange(2**magnitudes.size)
        signs = 1.0 - 2.0 * ((codes[:, None] >> np.arange(magnitudes.size)) & 1)
        return float(np.mean(np.abs(signs @ magnitudes) >= threshold))
    sums = _random_sign_sums(magnitudes, resampling)
    return float((1 + np.count_nonzero(np.abs(sums) >= threshold)) / (1 + resampling.permutations))


def _defined(values: ArrayLike, weights: ArrayLike | None) -> tuple[Floats, Floats | None]:
    given = np.asarray(values, dtype=np.float64)
    if given.ndim != 1:
        raise DataError(f"values of shape {given.shape}", fix="one value a question")
    keep = ~np.isnan(given)
    if weights is None:
        return given[keep], None
    mass = np.asarray(weights, dtype=np.float64)
    if mass.shape != given.shape:
        raise DataError(f"values of shape {given.shape} and weights of shape {mass.shape}")
    keep &= mass > 0
    return given[keep], mass[keep]


def _mean(values: Floats, weights: Floats | None) -> float:
    return float(values.mean() if weights is None else np.average(values, weights=weights))


def _bounds(means: Floats, confidence: float) -> tuple[float, float]:
    if not means.size:
        return float("nan"), float("nan")
    tail = (1.0 - confidence) / 2.0
    low, high = np.quantile(means, [tail, 1.0 - tail])
    return float(low), float(high)


def _bootstrap_means(values: Floats, weights: Floats | None, resampling: Resampling) -> Floats:
    generator = np.random.default_rng(resampling.seed)
    n, samples = values.size, resampling.samples
    distinct, counts = np.unique(values, return_counts=True)
    if weights is None and distinct.size * 8 <= n:
        # many values are equal (hits, reciprocal ranks): drawing how often each occurs comes to the same
        drawn = generator.multinomial(n, counts / n, size=samples)
        return drawn @ distinct / n
    means = np.empty(samples)
    rows = max(1, _BLOCK // n)
    for start in range(0, samples, rows):
        stop = min(start + rows, samples)
        index = generator.integers(0, n, size=(stop - start, n))
        if weights is None:
            means[start:stop] = values[index].mean(axis=1)
        else:
            means[start:stop] = (values * weights)[index].sum(axis=1) / weights[index].sum(axis=1)
    return means


def _random_sign_sums(magnitudes: Floats, resampling: Resampling) -> Floats:
    generator = np.random.default_rng(resampling.seed)
    distinct, counts = np.unique(magnitudes, return_counts=True)
    sums = np.empty(resampling.permutations)
    rows = max(1, _BLOCK // distinct.size)
    for start in range(0, resampling.permutations, rows):
        stop = min(start + rows, resampling.permutations)
        if distinct.size == magnitudes.size:
            signs = 2.0 * generator.integers(0, 2, size=(stop - start, distinct.size)) - 1.0
        else:  # of equal magnitudes only the number of positive ones matters
            signs = 2.0 * generator.binomial(counts, 0.5, size=(stop - start, distinct.size)) - counts
        sums[start:stop] = signs @ distinct
    return sums
