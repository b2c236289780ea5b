"""From a ranking and judgements to the ranks at which relevant documents stand.

Ranks are those of trec_eval (https://github.com/usnistgov/trec_eval): scores in single precision, equal ones
by document id, descending. Left out: the metrics (`ranking`) and reading files (`trec`, `beir`).
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trainshed.errors import DataError

#: query id -> document id -> score; higher is better
Run = Mapping[str, Mapping[str, float]]
#: query id -> document id -> grade; above 0 is relevant
Qrels = Mapping[str, Mapping[str, float]]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Judged:
    """Where the relevant documents of ``n`` queries stand in a ranking; made by `judge` and its like.

    Parameters
    ----------
    query_ids
        The queries that are scored: those with at least one relevant document.
    hit_query, hit_rank, hit_grade
        One entry per relevant document that was found, sorted by query and rank: row in ``query_ids``,
        rank from 1, grade above 0. Each has shape ``[h]``.
    ideal_query, ideal_rank, ideal_grade
        The same for the best possible ranking: every relevant document by falling grade. Shape ``[m]``.
    excluded
        Queries without any relevant document: no metric is defined for them.
    missing
        Scored queries for which the run has nothing: every metric is 0 for them.
    """

    query_ids: tuple[str, ...]
    hit_query: Ints
    hit_rank: Ints
    hit_grade: Floats
    ideal_query: Ints
    ideal_rank: Ints
    ideal_grade: Floats
    excluded: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()

    @property
    def n_relevant(self) -> Ints:
        """Number of relevant documents of each query, found or not: shape ``[n]``."""
        return np.bincount(self.ideal_query, minlength=len(self.query_ids))


def rank_documents(scores: Mapping[str, float], *, where: str = "run") -> list[str]:
    """Return a query's documents, best first, in trec_eval's order.

    Scores are compared in single precision, and equal ones are ordered by document id, descending.

    Parameters
    ----------
    scores
        Document id to score.
    where
        What an error names.

    Raises
    ------
    DataError
        A score is not a number.
    """
    documents = list(scores)
    with np.errstate(over="ignore"):
        values = np.fromiter(scores.values(), dtype=np.float64, count=len(documents)).astype(np.float32)
    if np.isnan(values).any():
        bad = documents[int(np.isnan(values).argmax())]
        raise DataError(f"the score of document {bad!r} is not a number", where=where)
    order = np.argsort(-values, kind="stable")
    ranked = values[order]
    if (ranked[1:] == ranked[:-1]).any():
        pairs = sorted(zip(values.tolist(), documents, strict=True), reverse=True)
        return [document for _, document in pairs]
    return [documents[i] for i in order]


def judge(run: Run, qrels: Qrels) -> Judged:
    """Find the relevant documents of every judged query in a run.

    Queries of the run that nobody judged are ignored. Documents that nobody judged, and those with a grade
    of 0 or below, are not relevant.

    Parameters
    ----------
    run
        Query id to document id to score.
    qrels
        Query id to document id to grade.

    Raises
    ------
    DataError
        A score is not a number.
    """
    queries = list(qrels)
    ranked = [rank_documents(run.get(query, {}), where=f"query {query!r}") for query in queries]
    return from_results(ranked, [qrels[query] for query in queries], query_ids=queries)


def from_results(
    ids: Sequence[Sequence[str]],
    relevant: Sequence[Collection[str] | Mapping[str, float]],
    *,
    query_ids: Sequence[str] | None = None,
) -> Judged:
    """Judge results that are ranked already, best first.

    Parameters
    ----------
    ids
        The documents found for each query. A document that is listed twice counts where it first stands,
        and the ones below it move up.
    relevant
        The relevant documents of each query: a set (grade 1 each) or a mapping to grades.
    query_ids
        Names of the queries; their position by default.

    Raises
    ------
    DataError
        The lengths differ, or a query is named twice.
    """
    names = [str(i) for i in range(len(ids))] if query_ids is None else list(query_ids)
    if not len(names) == len(ids) == len(relevant):
        raise DataError(f"{len(names)} queries, {len(ids)} rankings and {len(relevant)} sets of judgements")
    _refuse_duplicates(names)
    scored: list[str] = []
    excluded: list[str] = []
    missing: list[str] = []
    hits: list[tuple[int, int, float]] = []
    ideal: list[tuple[int, int, float]] = []
    for name, found, judgements in zip(names, ids, relevant, strict=True):
        grades = _positive_grades(judgements)
        if not grades:
            excluded.append(name)
            continue
        row = len(scored)
        scored.append(name)
        if not found:
            missing.append(name)
        best = sorted(grades.values(), reverse=True)
        ideal.extend((row, rank, grade) for rank, grade in enumerate(best, 1))
        unique = dict.fromkeys(found)
        hits.extend((row, rank, grades[doc]) for rank, doc in enumerate(unique, 1) if doc in grades)
    return Judged(tuple(scored), *_columns(hits), *_columns(ideal), tuple(excluded), tuple(missing))


def from_ranks(ranks: ArrayLike, *, query_ids: Sequence[str] | None = None) -> Judged:
    """Judge queries that have one relevant document each, from its rank.

    Parameters
    ----------
    ranks
        Shape ``[n]``: rank from 1 of the relevant document; 0, a negative number, NaN or infinity when it
        was not found.
    query_ids
        Names of the queries; their position by default.
    """
    given = np.asarray(ranks, dtype=np.float64)
    names = [str(i) for i in range(given.size)] if query_ids is None else list(query_ids)
    if given.ndim != 1 or len(names) != given.size:
        raise DataError(f"{len(names)} queries and ranks of shape {given.shape}", fix="one rank a query")
    _refuse_duplicates(names)
    found = np.flatnonzero(np.isfinite(given) & (given >= 1))
    rows = np.arange(given.size)
    return Judged(
        query_ids=tuple(names),
        hit_query=found,
        hit_rank=given[found].astype(np.int64),
        hit_grade=np.ones(found.size),
        ideal_query=rows,
        ideal_rank=np.ones_like(rows),
        ideal_grade=np.ones(given.size),
        missing=tuple(names[i] for i in np.setdiff1d(rows, found)),
    )


def pool_documents(
    scores: Mapping[str, float], document_of: Mapping[str, str] | Callable[[str], str]
) -> dict[str, float]:
    """Turn a query's passages into documents, each with the score of its best passage.

    Parameters
    ----------
    scores
        Passage id to score.
    document_of
        The document of a passage, as a mapping or a function.

    Returns
    -------
    dict
        Document id to score, in the order in which ``scores`` first names them.
    """
    lookup = document_of.__getitem__ if isinstance(document_of, Mapping) else document_of
    pooled: dict[str, float] = {}
    for passage, score in scores.items():
        document = lookup(passage)
        pooled[document] = max(score, pooled.get(document, score))
    return pooled


def _positive_grades(judgements: Collection[str] | Mapping[str, float]) -> Mapping[str, float]:
    if isinstance(judgements, str):
        raise DataError(f"the relevant documents {judgements!r} are one string", fix="a set of ids")
    if isinstance(judgements, Mapping):
        return {document: float(grade) for document, grade in judgements.items() if grade > 0}
    return dict.fromkeys(judgements, 1.0)


def _refuse_duplicates(names: Sequence[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise DataError(f"the query id {name!r} is there twice", fix="give every query its own id")
        seen.add(name)


def _columns(rows: list[tuple[int, int, float]]) -> tuple[Ints, Ints, Floats]:
    table = np.array(rows, dtype=np.float64).reshape(len(rows), 3)
    return table[:, 0].astype(np.int64), table[:, 1].astype(np.int64), table[:, 2]
