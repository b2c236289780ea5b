"""Metrics of answers: exact match, token F1, ROUGE-L, citations, and the likelihood of the right answer.

Exact match and F1 normalise as SQuAD does (Rajpurkar et al. 2016), ROUGE-L is the F-measure of Lin (2004)
without stemming, as the ``rouge_score`` package computes it, citations follow ALCE (Gao et al. 2023). Where
several answers are accepted the best one counts. Left out: judging by another model.
"""

import re
import string
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trainshed.errors import DataError, ModelError

Floats = NDArray[np.float64]

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_NOT_ROUGE = re.compile(r"[^a-z0-9]+")


def normalize_answer(text: str) -> str:
    """Lower the case, drop ASCII punctuation and English articles, and join the words by single spaces."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact_match(prediction: str, accepted: Iterable[str]) -> float:
    """Return 1 when the prediction equals an accepted answer after `normalize_answer`, else 0.

    An answer that normalisation empties (``"()"``, ``"the"``) is compared as it stands, in lower case.
    """
    return float(any(_tokens(prediction, answer) == _tokens(answer, answer) for answer in accepted))


def token_f1(prediction: str, accepted: Iterable[str]) -> float:
    """Return the best F1 between the prediction's tokens and an accepted answer's, as multisets; 0 to 1."""
    return max((_f1(_tokens(prediction, a), _tokens(a, a)) for a in accepted), default=0.0)


def rouge_l(prediction: str, accepted: Iterable[str]) -> float:
    """Return the best ROUGE-L F-measure between the prediction and an accepted answer; 0 to 1.

    Tokens are runs of ``a-z0-9`` in lower case; a text without any scores 0.
    """
    tokens = _NOT_ROUGE.sub(" ", prediction.lower()).split()
    best = 0.0
    for answer in accepted:
        reference = _NOT_ROUGE.sub(" ", answer.lower()).split()
        if tokens and reference:
            best = max(
                best, 2.0 * longest_common_subsequence(tokens, reference) / (len(tokens) + len(reference))
            )
    return best


def longest_common_subsequence(first: Sequence[str], second: Sequence[str]) -> int:
    """Return the length of the longest common subsequence, one row of bits at a time (Hyyrö 2004)."""
    places: dict[str, int] = {}
    for i, token in enumerate(first):
        places[token] = places.get(token, 0) | (1 << i)
    full = (1 << len(first)) - 1
    row = full
    for token in second:
        matches = row & places.get(token, 0)
        row = ((row + matches) | (row - matches)) & full
    return len(first) - row.bit_count()


def citation_scores(cited: Iterable[str], supporting: Collection[str]) -> tuple[float, float]:
    """Return the precision and the recall of an answer's citations.

    Parameters
    ----------
    cited
        Ids of the passages that the answer cites; repeats count once.
    supporting
        Ids of the passages that support it. None known: both are NaN, and left out of every mean.

    Returns
    -------
    tuple
        Share of the cited passages that support it (0 when nothing is cited), and share of the supporting
        passages that are cited.
    """
    unique, needed = set(cited), set(supporting)
    if not needed:
        return np.nan, np.nan
    right = len(unique & needed)
    return (right / len(unique) if unique else 0.0), right / len(needed)


def score_answers(predictions: Sequence[str], accepted: Sequence[Sequence[str]]) -> dict[str, Floats]:
    """Return ``exact_match``, ``f1`` and ``rouge_l`` of every prediction: each of shape ``[n]``.

    Parameters
    ----------
    predictions
        One text a question.
    accepted
        The accepted answers of each question.

    Raises
    ------
    DataError
        The lengths differ, or a question accepts no answer.
    """
    if len(predictions) != len(accepted):
        raise DataError(f"{len(predictions)} predictions for {len(accepted)} questions")
    for row, answers in enumerate(accepted):
        if isinstance(answers, str) or not answers:
            raise DataError("a question has no list of accepted answers", where=f"row {row}", fix='["42"]')
    pairs = list(zip(predictions, accepted, strict=True))
    return {
        "exact_match": np.array([exact_match(p, a) for p, a in pairs], dtype=np.float64),
        "f1": np.array([token_f1(p, a) for p, a in pairs], dtype=np.float64),
        "rouge_l": np.array([rouge_l(p, a) for p, a in pairs], dtype=np.float64),
    }


def score_citations(
    cited: Sequence[Iterable[str]], supporting: Sequence[Collection[str]]
) -> dict[str, Floats]:
    """Return ``citation_precision`` and ``citation_recall`` of every answer; see `citation_scores`."""
    if len(cited) != len(supporting):
        raise DataError(f"citations of {len(cited)} answers for {len(supporting)} questions")
    pairs = [citation_scores(c, s) for c, s in zip(cited, supporting, strict=True)]
    table = np.array(pairs, dtype=np.float64).reshape(len(pairs), 2)
    return {"citation_precision": table[:, 0], "citation_recall": table[:, 1]}


def score_likelihoods(
    total_nll: ArrayLike, n_tokens: ArrayLike
) -> tuple[dict[str, Floats], Mapping[str, Floats]]:
    """Return the negative log-likelihoods of the right answers, three ways.

    Parameters
    ----------
    total_nll
        Shape ``[n]``: sum over an answer's tokens, in nats.
    n_tokens
        Shape ``[n]``: how many tokens that were.

    Returns
    -------
    tuple
        Values of shape ``[n]`` by name, and weights by name: ``answer_nll`` (per token of an answer, each
        answer alike), ``token_nll`` (the same, weighted by its tokens, so that its mean is one over all
        tokens) and ``sequence_nll`` (per whole answer).

    Raises
    ------
    DataError
        The shapes differ, or an answer has no token.
    ModelError
        A likelihood is not a finite number.
    """
    totals, tokens = np.asarray(total_nll, dtype=np.float64), np.asarray(n_tokens, dtype=np.float64)
    if totals.ndim != 1 or totals.shape != tokens.shape:
        raise DataError(f"likelihoods of shape {totals.shape} and token counts of shape {tokens.shape}")
    if (tokens < 1).any():
        raise DataError("an answer has no token", where=f"row {int((tokens < 1).argmax())}")
    if not np.isfinite(totals).all():
        row = int((~np.isfinite(totals)).argmax())
        raise ModelError(
            f"the answer's log-likelihood is {totals[row]}",
            where=f"row {row}",
            fix="load the model in float32 or bfloat16; if that does not help, its weights are damaged",
        )
    per_token = totals / tokens
    values = {"answer_nll": per_token, "token_nll": per_token, "sequence_nll": totals}
    return values, {"token_nll": tokens}


def _tokens(text: str, reference: str) -> list[str]:
    # judged by the reference, so that both sides of a comparison are cut in the same way
    return normalize_answer(text).split() if normalize_answer(reference) else text.lower().split()


def _f1(prediction: list[str], reference: list[str]) -> float:
    if not prediction or not reference:
        return float(prediction == reference)
    common = sum((Counter(prediction) & Counter(reference)).values())
    return 2.0 * common / (len(prediction) + len(reference))
