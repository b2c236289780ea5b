"""Does a retriever find the passages that answer? Ranking metrics of a system on examples, or of a run.

Left out: the metrics themselves (`ranking`), building the store (`rag.building`).
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any

from trainshed.data.examples import RagExample
from trainshed.errors import ConfigError, DataError, StoreError
from trainshed.evaluation.judging import Qrels, Run, from_results, judge, pool_documents
from trainshed.evaluation.ranking import (
    check_cutoff,
    default_metrics,
    metric_name,
    parse_metric,
    score_rankings,
)
from trainshed.evaluation.scores import Scores, example_ids, example_kinds
from trainshed.evaluation.significance import Resampling

if TYPE_CHECKING:
    from trainshed.rag.retriever import Retriever
    from trainshed.rag.stores.base import KnowledgeStore

LEVELS = ("passage", "document")


@dataclass(frozen=True)
class RetrievalEvaluation(Scores):
    """Ranking metrics of a retriever, per question and in the mean; see `Scores` for what can be asked of it.

    Parameters
    ----------
    rankings
        Question id to the passages (or documents) found and their scores, best first; also of questions
        that have no relevant passage and are not scored.
    """

    rankings: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def to_run(self) -> dict[str, dict[str, float]]:
        """Return the run that was scored: question id to passage id to score."""
        return {query: dict(found) for query, found in self.rankings.items()}


def evaluate_retrieval(
    system: Any,
    examples: Sequence[RagExample],
    *,
    top_k_values: Iterable[int] = (1, 3, 5, 10),
    metrics: Iterable[str] | None = None,
    relevant: Sequence[Collection[str] | Mapping[str, float]] | None = None,
    level: str = "passage",
    batch_size: int = 64,
    resampling: Resampling | None = None,
) -> RetrievalEvaluation:
    """Search for every example's query and score where its relevant passages stand.

    Parameters
    ----------
    system
        An object with ``retriever`` and ``knowledge_store`` (a `RAGSystem`), or a pair of these two.
    examples
        Questions; ``passage_id`` is the relevant passage unless ``relevant`` is given.
    top_k_values
        Cut-offs; see `trainshed.evaluation.ranking.default_metrics` for what is computed at them.
    metrics
        Names such as ``"ndcg@10"`` instead. Without a cut-off a metric looks at as many passages as the
        largest cut-off of all.
    relevant
        One set of relevant ids (or mapping to grades) a question.
    level
        ``"document"`` scores documents: each stands where its best passage stood, and ``relevant`` names
        documents.
    batch_size
        Queries encoded at once.
    resampling
        Bootstrap samples, confidence and seed.

    Raises
    ------
    DataError
        There is no example, no question has a relevant passage, or none of these is in the store.
    StoreError
        The store is empty.
    UnknownNameError
        A metric is not known.
    """
    retriever, store = retriever_and_store(system)
    if level not in LEVELS:
        raise ConfigError(f"unknown level {level!r}", fix=" or ".join(LEVELS))
    if not examples:
        raise DataError("there is no example to evaluate on", fix="a split with at least one question")
    if len(store) == 0:
        raise StoreError("the knowledge store is empty", fix="add the passages that the examples are about")
    cutoffs = sorted({check_cutoff(k) for k in top_k_values})
    names = default_metrics(cutoffs) if metrics is None else [metric_name(name) for name in metrics]
    depth = max([*cutoffs, *(parse_metric(name)[1] or 1 for name in names)])
    ids = example_ids(examples)
    documents = _documents_of(store) if level == "document" else None
    wanted = _relevant_ids(examples, relevant, documents)
    absent = _count_absent(wanted, set(documents.values()) if documents else set(store.ids))
    found = _search(retriever, store, [e.query for e in examples], depth, documents, batch_size)
    judged = from_results([list(ranking) for ranking in found], wanted, query_ids=ids)
    if not judged.query_ids:
        raise DataError("no question has a relevant passage", fix="examples with passage_id, or relevant=")
    kind_of = {name: example.kind for name, example in zip(ids, examples, strict=True)}
    counts = {
        "n_queries": len(examples),
        "n_without_relevant": len(judged.excluded),
        "n_without_results": len(judged.missing),
        "n_relevant_not_in_store": absent,
    }
    return RetrievalEvaluation(
        ids=judged.query_ids,
        values=score_rankings(judged, names),
        kinds=example_kinds(kind_of[name] for name in judged.query_ids),
        counts=counts,
        resampling=resampling or Resampling(),
        rankings=dict(zip(ids, found, strict=True)),
    )


def evaluate_run(
    run: Run,
    qrels: Qrels,
    *,
    metrics: Iterable[str],
    kinds: Mapping[str, str] | None = None,
    resampling: Resampling | None = None,
) -> RetrievalEvaluation:
    """Score a run, such as one that `trec.read_run` read, by judgements.

    Parameters
    ----------
    run
        Query id to document id to score.
    qrels
        Query id to document id to grade.
    metrics
        Names such as ``"ndcg@10"``.
    kinds
        Query id to kind of question.
    resampling
        Bootstrap samples, confidence and seed.

    Raises
    ------
    DataError
        No judged query has a relevant document, or the run has none of the judged queries.
    UnknownNameError
        A metric is not known.
    """
    names = [metric_name(name) for name in metrics]
    judged = judge(run, qrels)
    if not judged.query_ids:
        raise DataError("no judged query has a relevant document", fix="judgements with a grade above 0")
    if len(judged.missing) == len(judged.query_ids):
        known, asked = next(iter(run), ""), judged.query_ids[0]
        raise DataError(
            f"the run has none of the {len(judged.query_ids)} judged queries",
            fix=f"the same query ids in both; the run has {known!r}, the judgements have {asked!r}",
        )
    counts = {
        "n_queries": len(qrels),
        "n_without_relevant": len(judged.excluded),
        "n_without_results": len(judged.missing),
        "n_not_judged": len(run.keys() - qrels.keys()),
    }
    return RetrievalEvaluation(
        ids=judged.query_ids,
        values=score_rankings(judged, names),
        kinds=example_kinds((kinds or {}).get(name, "") for name in judged.query_ids),
        counts=counts,
        resampling=resampling or Resampling(),
        rankings=run,
    )


def retriever_and_store(system: Any) -> tuple["Retriever", "KnowledgeStore"]:
    """Return the retriever and the store of a `RAGSystem`, or of a pair of them.

    Raises
    ------
    ConfigError
        It is neither.
    """
    if isinstance(system, tuple | list) and len(system) == 2:
        return system[0], system[1]
    if hasattr(system, "retriever") and hasattr(system, "knowledge_store"):
        return system.retriever, system.knowledge_store
    raise ConfigError(
        f"cannot search with a {type(system).__name__}",
        fix="a RAGSystem, or a pair (retriever, knowledge store)",
    )


def _documents_of(store: "KnowledgeStore") -> dict[str, str]:
    # a passage that was not cut from a document is one of its own
    return {passage.id: passage.doc_id or passage.id for passage in store.passages()}


def _relevant_ids(
    examples: Sequence[RagExample],
    relevant: Sequence[Collection[str] | Mapping[str, float]] | None,
    documents: Mapping[str, str] | None,
) -> list[Collection[str] | Mapping[str, float]]:
    if relevant is not None:
        if len(relevant) != len(examples):
            raise DataError(f"{len(relevant)} sets of relevant ids for {len(examples)} examples")
        return list(relevant)
    ids = [example.passage_id for example in examples]
    if documents is not None:
        ids = [name if name is None else documents.get(name, name) for name in ids]
    return [set() if name is None else {name} for name in ids]


def _count_absent(wanted: Sequence[Collection[str] | Mapping[str, float]], known: Collection[str]) -> int:
    named = {name for one in wanted for name in one}
    absent = named - set(known)
    if named and absent == named:
        raise DataError(
            f"none of the {len(named)} relevant passages is in the store, such as {min(named)!r}",
            fix="a store that was built from the passages that the examples name",
        )
    return len(absent)


def _search(
    retriever: "Retriever",
    store: "KnowledgeStore",
    queries: Sequence[str],
    depth: int,
    documents: Mapping[str, str] | None,
    batch_size: int,
) -> list[dict[str, float]]:
    vectors = retriever.encode_queries(queries, batch_size=batch_size, progress="encode queries")
    size = len(store)
    reach = min(depth, size)
    while True:
        result = store.search(vectors, reach, texts=queries)
        scores = result.scores.tolist()
        found = [dict(zip(ids, row, strict=False)) for ids, row in zip(result.ids, scores, strict=True)]
        if documents is None:
            return found
        pooled = [pool_documents(ranking, documents) for ranking in found]
        if reach >= size or all(len(ranking) >= depth for ranking in pooled):
            return [dict(islice(ranking.items(), depth)) for ranking in pooled]
        reach = min(reach * 4, size)  # several passages of one document: look further down
