"""`evaluate_rag_pipeline`: score whatever searches on a file of questions and the documents that answer them.

Left out: intervals and per-question values (see `retrieval`), and answers (see `generation`).
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from trainshed.data.jsonl import json_type, read_jsonl
from trainshed.errors import ConfigError, DataError, StoreError
from trainshed.evaluation.judging import from_results
from trainshed.evaluation.ranking import check_cutoff, score_rankings
from trainshed.progress import say, track
from trainshed.rag.stores.base import KnowledgeStore

_LAYOUT = '{"query": "...", "relevant_docs": ["doc-1"]}'
# passages looked at for one document, when the file names documents and the index holds passages
_PASSAGES_PER_DOCUMENT = 4


class Hit(NamedTuple):
    """What a search found: the id of a passage, and that of its document where it is known."""

    passage: str
    document: str = ""


def evaluate_rag_pipeline(
    indexer: Any, eval_file: str | Path, top_k_values: Iterable[int] = (1, 3, 5, 10)
) -> dict[str, float]:
    """Return recall and nDCG at some cut-offs and the mean reciprocal rank, over the questions of a file.

    Parameters
    ----------
    indexer
        What searches. One of: a `RAGSystem` (anything with ``batch_retrieve(queries, top_k)`` or
        ``retrieve(query, top_k)``); a pair ``(retriever, knowledge store)``; anything with
        ``search(query, top_k)``. A search returns a list, best first, of passages, retrieved passages, ids
        (strings or whole numbers), ``(id, score)`` pairs, or mappings with ``id``, ``passage_id``, ``index``
        or ``doc_id``.
    eval_file
        JSON Lines of ``{"query": str, "relevant_docs": [id, ...]}``; ids of passages or of documents, as
        strings or whole numbers. A question without relevant documents is left out, and a line says so.
    top_k_values
        The cut-offs.

    Returns
    -------
    dict
        ``recall@k`` and ``ndcg@k`` for each ``k`` (every relevant document has the gain 1), and ``mrr`` among
        the first ``max(top_k_values)``. Where the file names documents, each stands where its best passage
        stood.

    Raises
    ------
    DataError
        The file is missing or empty, or a line is malformed; with its number.
    ConfigError
        The indexer can't be searched, or a cut-off is not a positive whole number.
    """
    cutoffs = sorted({check_cutoff(k) for k in top_k_values})
    if not cutoffs:
        raise ConfigError("top_k_values is empty", fix="[1, 3, 5]")
    queries, relevant = _read_questions(Path(eval_file))
    depth = cutoffs[-1]
    found = _search_all(indexer, queries, depth)
    if _names_documents(found, relevant):
        found = _search_all(indexer, queries, depth * _PASSAGES_PER_DOCUMENT)
        ids = [list(dict.fromkeys(hit.document or hit.passage for hit in hits))[:depth] for hits in found]
    else:
        ids = [[hit.passage for hit in hits[:depth]] for hits in found]
    judged = from_results(ids, relevant)
    if judged.excluded:
        say(f"{len(judged.excluded)} of {len(queries)} questions have no relevant document and are left out")
    if not judged.query_ids:
        raise DataError("no question has a relevant document", where=str(eval_file), fix=_LAYOUT)
    if not judged.hit_query.size:
        say("no relevant document was found for any question: do the ids of the file name what is indexed?")
    names = [f"{stem}@{k}" for stem in ("recall", "ndcg") for k in cutoffs]
    means = {name: float(np.mean(v)) for name, v in score_rankings(judged, [*names, f"mrr@{depth}"]).items()}
    return {**{name: means[name] for name in names}, "mrr": means[f"mrr@{depth}"]}


def _read_questions(path: Path) -> tuple[list[str], list[set[str]]]:
    queries: list[str] = []
    relevant: list[set[str]] = []
    for number, row in read_jsonl(path):
        where = f"{path}, line {number}"
        query, documents = row.get("query"), row.get("relevant_docs")
        if not isinstance(query, str) or not query.strip():
            raise DataError(f"the field 'query' is {_found(row, 'query')}", where=where, fix=_LAYOUT)
        if not isinstance(documents, list):
            raise DataError(
                f"the field 'relevant_docs' is {_found(row, 'relevant_docs')}", where=where, fix=_LAYOUT
            )
        bad = [d for d in documents if isinstance(d, bool) or not isinstance(d, str | int)]
        if bad:
            raise DataError(
                f"a relevant document is {bad[0]!r}", where=where, fix="a string or a whole number"
            )
        queries.append(query)
        relevant.append({str(document) for document in documents})
    if not queries:
        raise DataError("the file holds no question", where=str(path), fix=f"lines such as: {_LAYOUT}")
    return queries, relevant


def _found(row: Mapping[str, Any], key: str) -> str:
    if key not in row:
        return f"missing; there are {', '.join(map(repr, row)) or 'no fields'}"
    return "an empty string" if isinstance(row[key], str) else json_type(row[key])


def _search_all(indexer: Any, queries: list[str], top_k: int) -> list[list[Hit]]:
    if isinstance(indexer, tuple | list) and len(indexer) == 2:
        return _search_store(indexer[0], indexer[1], queries, top_k)
    if callable(getattr(indexer, "batch_retrieve", None)):
        results = indexer.batch_retrieve(queries, top_k)
    elif callable(getattr(indexer, "retrieve", None)):
        results = [indexer.retrieve(query, top_k) for query in track(queries, "search")]
    elif callable(getattr(indexer, "search", None)) and not isinstance(indexer, KnowledgeStore):
        results = [indexer.search(query, top_k) for query in track(queries, "search")]
    else:
        raise ConfigError(
            f"cannot search with a {type(indexer).__name__}",
            fix="a RAGSystem, a pair (retriever, knowledge store), or an object with search(query, top_k)",
        )
    return [[_hit(item) for item in found] for found in results]


def _search_store(retriever: Any, store: Any, queries: list[str], top_k: int) -> list[list[Hit]]:
    if len(store) == 0:
        raise StoreError("the knowledge store is empty", fix="add passages first")
    vectors = retriever.encode_queries(queries, batch_size=64, progress="encode queries")
    result = store.search(vectors, min(top_k, len(store)), texts=queries)
    return [[_hit(passage) for passage in store.get(ids)] for ids in result.ids]


def _hit(item: Any) -> Hit:
    if isinstance(item, tuple | list) and item:
        return _hit(item[0])
    if isinstance(item, str | int | np.integer) and not isinstance(item, bool):
        return Hit(str(item))
    if isinstance(item, Mapping):
        names = [
            str(item[key]) for key in ("id", "passage_id", "index", "doc_id") if item.get(key) is not None
        ]
        if names:
            return Hit(names[0], str(item.get("doc_id") or ""))
    passage = getattr(item, "passage", item)
    if hasattr(passage, "id"):
        return Hit(str(passage.id), str(getattr(passage, "doc_id", "") or ""))
    raise ConfigError(
        f"a search returned {item!r}",
        fix="passages, ids, (id, score) pairs, or mappings with 'id' or 'doc_id'",
    )


def _names_documents(found: Sequence[Sequence[Hit]], relevant: Sequence[set[str]]) -> bool:
    """Whether some relevant id is that of a hit's document, and not of the passage itself."""
    hits = [(hit, wanted) for ranking, wanted in zip(found, relevant, strict=True) for hit in ranking]
    return any(hit.document in wanted and hit.passage not in wanted for hit, wanted in hits)
