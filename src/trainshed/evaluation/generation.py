"""How good are the answers? Metrics of predicted texts, of citations, and of the right answer's likelihood.

Works on what a system has said already (or a function that says it), so that anything that answers can be
scored. Left out: running a whole RAG system (see `system`).
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trainshed.data.examples import RagExample
from trainshed.errors import DataError
from trainshed.evaluation.answers import score_answers, score_citations, score_likelihoods
from trainshed.evaluation.scores import Scores, example_ids, example_kinds
from trainshed.evaluation.significance import Resampling

#: total negative log-likelihood and token count of each answer, each of shape ``[n]``
Likelihoods = tuple[ArrayLike, ArrayLike]


@dataclass(frozen=True)
class GenerationEvaluation(Scores):
    """Metrics of answers, per question and in the mean; see `Scores` for what can be asked of it.

    Parameters
    ----------
    predictions
        The answers that were scored, in the order of ``ids``; empty when only likelihoods were.
    """

    predictions: tuple[str, ...] = ()


def evaluate_generation(
    answers: Callable[[list[str]], Sequence[str]] | Sequence[str] | None,
    examples: Sequence[RagExample],
    *,
    nll: Callable[[list[str], list[str]], Likelihoods] | Likelihoods | None = None,
    citations: Sequence[Iterable[str]] | None = None,
    supporting: Sequence[Collection[str]] | None = None,
    resampling: Resampling | None = None,
) -> GenerationEvaluation:
    """Score answers to the questions of some examples.

    Parameters
    ----------
    answers
        The predicted texts, or a function from queries to them, or None to score likelihoods only.
    examples
        Questions with their accepted answers.
    nll
        Total negative log-likelihood (nats) and number of tokens of each example's ``response``: two arrays
        or tensors of shape ``[n]``, or a function from (queries, responses) to them.
    citations
        Ids of the passages that each answer cites.
    supporting
        Ids of the passages that support each answer; the example's ``passage_id`` by default.
    resampling
        Bootstrap samples, confidence and seed.

    Returns
    -------
    GenerationEvaluation
        ``exact_match``, ``f1``, ``rouge_l`` with answers; ``answer_nll``, ``token_nll``, ``sequence_nll``
        with likelihoods; ``citation_precision``, ``citation_recall`` with citations.

    Raises
    ------
    DataError
        There is nothing to score, or the lengths differ.
    ModelError
        A likelihood is not a finite number.
    """
    if not examples:
        raise DataError("there is no example to evaluate on", fix="a split with at least one question")
    if answers is None and nll is None and citations is None:
        raise DataError("neither answers nor likelihoods nor citations are given", fix="answers=[...]")
    queries = [example.query for example in examples]
    counts = {"n_examples": len(examples)}
    predictions = list(answers(queries) if callable(answers) else answers or ())
    values: dict[str, NDArray[np.float64]] = {}
    if answers is not None:
        values.update(score_answers(predictions, [example.accepted for example in examples]))
        counts["n_empty_answers"] = sum(not text.strip() for text in predictions)
    weights: Mapping[str, NDArray[np.float64]] = {}
    if nll is not None:
        likelihoods = nll(queries, [e.response for e in examples]) if callable(nll) else nll
        scored, weights = score_likelihoods(*likelihoods)
        values.update(scored)
    if citations is not None:
        values.update(score_citations(citations, _supporting(examples) if supporting is None else supporting))
    return GenerationEvaluation(
        ids=example_ids(examples),
        values=values,
        kinds=example_kinds(example.kind for example in examples),
        weights=weights,
        counts=counts,
        resampling=resampling or Resampling(),
        predictions=tuple(predictions),
    )


def _supporting(examples: Sequence[RagExample]) -> list[set[str]]:
    return [set() if example.passage_id is None else {example.passage_id} for example in examples]
