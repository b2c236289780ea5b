"""Metrics of classifiers: accuracy, F1, average precision, and whether probabilities mean what they say.

F1, average precision and the Brier score are what scikit-learn computes; the expected calibration error is
that of Guo et al. 2017 (arXiv 1706.04599, section 2, eq. 3). Left out: entities (see `entities`), spans
(see `answers`).
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trainshed.errors import DataError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

ECE_BINS = 15
#: a probability of 0 would cost infinitely much
_SMALLEST = float(np.finfo(np.float64).tiny)


def accuracy(expected: ArrayLike, predicted: ArrayLike) -> float:
    """Return the share of equal entries; both have shape ``[n]``."""
    truth, guess = _pair(expected, predicted)
    return float((truth == guess).mean())


def f1_by_class(expected: ArrayLike, predicted: ArrayLike, classes: int) -> Floats:
    """Return the F1 of every class.

    Parameters
    ----------
    expected, predicted
        Numbers of classes, shape ``[n]``; or for several labels a text 0/1, shape ``[n, classes]``.
    classes
        How many there are.

    Returns
    -------
    ndarray
        Shape ``[classes]``; NaN for a class that is neither expected nor predicted anywhere.
    """
    truth, guess = _as_table(expected, classes), _as_table(predicted, classes)
    hits = (truth * guess).sum(axis=0)
    total = truth.sum(axis=0) + guess.sum(axis=0)
    return np.divide(2.0 * hits, total, out=np.full(classes, np.nan), where=total > 0)


def macro_f1(expected: ArrayLike, predicted: ArrayLike, classes: int) -> float:
    """Return the mean F1 of the classes that are expected or predicted; 0 when there is none."""
    found = f1_by_class(expected, predicted, classes)
    return float(np.nanmean(found)) if not np.isnan(found).all() else 0.0


def micro_f1(expected: ArrayLike, predicted: ArrayLike) -> float:
    """Return the F1 over all decisions of a 0/1 table, shape ``[n, classes]``; 0 when it holds no 1."""
    truth, guess = _pair(expected, predicted)
    total = truth.sum() + guess.sum()
    return float(2.0 * (truth * guess).sum() / total) if total else 0.0


def average_precision(expected: ArrayLike, scores: ArrayLike) -> float:
    """Return the average precision of one label: the sum of precision times the gain in recall.

    Parameters
    ----------
    expected
        0 or 1, shape ``[n]``.
    scores
        Higher is more likely, shape ``[n]``; equal ones count as one threshold.

    Returns
    -------
    float
        NaN when nothing is expected.
    """
    truth, values = np.asarray(expected, dtype=np.int64), np.asarray(scores, dtype=np.float64)
    if not truth.sum():
        return float("nan")
    order = np.argsort(-values, kind="stable")
    truth, values = truth[order], values[order]
    last_of_tie = np.append(np.flatnonzero(np.diff(values)), len(values) - 1)
    hits = np.cumsum(truth)[last_of_tie]
    precision = hits / (last_of_tie + 1)
    gain = np.diff(hits, prepend=0) / truth.sum()
    return float((precision * gain).sum())


def macro_average_precision(expected: ArrayLike, scores: ArrayLike) -> float:
    """Return the mean average precision of the labels that come up; both of shape ``[n, classes]``."""
    truth, values = np.asarray(expected), np.asarray(scores)
    found = [average_precision(truth[:, c], values[:, c]) for c in range(truth.shape[1])]
    kept = [value for value in found if not np.isnan(value)]
    return float(np.mean(kept)) if kept else float("nan")


def negative_log_likelihood(probabilities: ArrayLike, expected: ArrayLike) -> float:
    """Return the mean negative logarithm of the right class's probability, in nats.

    Parameters
    ----------
    probabilities
        Shape ``[n, classes]``.
    expected
        Numbers of classes, shape ``[n]``.
    """
    table, truth = _distribution(probabilities, expected)
    return float(-np.log(np.maximum(table[np.arange(len(truth)), truth], _SMALLEST)).mean())


def brier_score(probabilities: ArrayLike, expected: ArrayLike) -> float:
    """Return the mean squared distance to the right class, summed over classes: 0 to 2 (Brier 1950)."""
    table, truth = _distribution(probabilities, expected)
    return float(((table - np.eye(table.shape[1])[truth]) ** 2).sum(axis=1).mean())


def expected_calibration_error(probabilities: ArrayLike, expected: ArrayLike, bins: int = ECE_BINS) -> float:
    """Return the mean gap between confidence and accuracy over equal bins (arXiv 1706.04599, eq. 3).

    Parameters
    ----------
    probabilities
        Shape ``[n, classes]``; the confidence is the greatest of a row.
    expected
        Numbers of classes, shape ``[n]``.
    bins
        How many; a bin holds its upper bound and not its lower one.
    """
    table, truth = _distribution(probabilities, expected)
    confidence = table.max(axis=1)
    right = (table.argmax(axis=1) == truth).astype(np.float64)
    places = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    gaps = np.bincount(places, weights=right - confidence, minlength=bins)
    return float(np.abs(gaps).sum() / len(truth))


def classification_metrics(
    probabilities: ArrayLike, expected: ArrayLike, names: Sequence[str]
) -> dict[str, float]:
    """Return every metric of texts with one class each.

    Parameters
    ----------
    probabilities
        Shape ``[n, classes]``.
    expected
        Numbers of classes, shape ``[n]``.
    names
        Of the classes.

    Returns
    -------
    dict
        ``accuracy``, ``macro_f1``, ``ece``, ``nll``, ``brier``, and for each class ``f1/<name>`` where it is
        defined.
    """
    predicted = np.asarray(probabilities).argmax(axis=1)
    return {
        "accuracy": accuracy(expected, predicted),
        "macro_f1": macro_f1(expected, predicted, len(names)),
        "ece": expected_calibration_error(probabilities, expected),
        "nll": negative_log_likelihood(probabilities, expected),
        "brier": brier_score(probabilities, expected),
        **_named(f1_by_class(expected, predicted, len(names)), names),
    }


def multi_label_metrics(
    probabilities: ArrayLike, expected: ArrayLike, names: Sequence[str], threshold: float = 0.5
) -> dict[str, float]:
    """Return every metric of texts with any number of labels each.

    Parameters
    ----------
    probabilities
        Of each label, shape ``[n, labels]``.
    expected
        0 or 1, shape ``[n, labels]``.
    names
        Of the labels.
    threshold
        Probability above which a label is predicted.

    Returns
    -------
    dict
        ``micro_f1``, ``macro_f1``, ``average_precision`` (mean over labels that come up), ``exact_match``
        (all labels of a text right), ``nll`` (mean over decisions), and ``f1/<name>`` where it is defined.
    """
    table = np.asarray(probabilities, dtype=np.float64)
    truth = np.asarray(expected, dtype=np.int64)
    predicted = (table > threshold).astype(np.int64)
    chosen = np.where(truth == 1, table, 1.0 - table)
    return {
        "micro_f1": micro_f1(truth, predicted),
        "macro_f1": macro_f1(truth, predicted, len(names)),
        "average_precision": macro_average_precision(truth, table),
        "exact_match": float((truth == predicted).all(axis=1).mean()),
        "nll": float(-np.log(np.maximum(chosen, _SMALLEST)).mean()),
        **_named(f1_by_class(truth, predicted, len(names)), names),
    }


def _named(values: Floats, names: Sequence[str]) -> dict[str, float]:
    return {f"f1/{name}": float(v) for name, v in zip(names, values, strict=True) if not np.isnan(v)}


def _pair(expected: ArrayLike, predicted: ArrayLike) -> tuple[Ints, Ints]:
    truth, guess = np.asarray(expected, dtype=np.int64), np.asarray(predicted, dtype=np.int64)
    if truth.shape != guess.shape or not len(truth):
        raise DataError(f"predictions of shape {guess.shape} for labels of shape {truth.shape}")
    return truth, guess


def _as_table(values: ArrayLike, classes: int) -> Ints:
    array = np.asarray(values, dtype=np.int64)
    return np.eye(classes, dtype=np.int64)[array] if array.ndim == 1 else array


def _distribution(probabilities: ArrayLike, expected: ArrayLike) -> tuple[Floats, Ints]:
    table = np.asarray(probabilities, dtype=np.float64)
    truth = np.asarray(expected, dtype=np.int64)
    if table.ndim != 2 or len(table) != len(truth) or not len(truth):
        raise DataError(f"probabilities of shape {table.shape} for {len(truth)} labels")
    return table, truth
