"""Search by meaning and by words at once: a dense store and BM25, joined by reciprocal rank fusion.

Cormack, Clarke and Büttcher, "Reciprocal rank fusion outperforms Condorcet and individual rank learning
methods", SIGIR 2009: the score of a passage is the sum over the lists that have it of 1 / (60 + its rank).
Left out: fusion by weighted scores.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from trainshed.data.passages import Passage
from trainshed.errors import StoreError, StoreMismatchError
from trainshed.rag.stores.base import KnowledgeStore
from trainshed.rag.stores.manifest import REBUILD, StoreManifest
from trainshed.rag.stores.saving import PASSAGES
from trainshed.rag.stores.sparse import WordIndex
from trainshed.registry import STORES

DENSE, WORDS = "dense", "words"


class HybridKnowledgeStore(KnowledgeStore):
    """A dense store and a word index over the same passages.

    A search needs the query texts besides their embeddings; its scores are fused ranks, not cosines. The word
    index is built anew at the first search or save after a change.

    Parameters
    ----------
    dense
        A store, which this one then owns, or the registered name of one to make.
    dense_options
        Arguments of the dense store's class when it is made here.
    rrf_k
        What is added to a rank.
    depth
        How many of each list are fused; at least k.
    **common
        Arguments of `KnowledgeStore`, when the dense store is made here.
    """

    name: ClassVar[str] = "hybrid"
    libraries: ClassVar[tuple[str, ...]] = ("trainshed", "torch", "bm25s")

    def __init__(
        self,
        *,
        dense: KnowledgeStore | str = "memory",
        dense_options: Mapping[str, Any] | None = None,
        rrf_k: float = 60.0,
        depth: int = 100,
        **common: Any,
    ) -> None:
        if isinstance(dense, str):
            dense = STORES.get(dense)(**(dense_options or {}), **common)
        elif common or dense_options:
            raise StoreError("a dense store that exists has its settings already", fix="leave the others out")
        assert isinstance(dense, KnowledgeStore)
        self.dense, self.rrf_k, self.depth = dense, rrf_k, depth
        self._words: WordIndex | None = None
        super().__init__(
            dimension=dense.dimension,
            normalize=dense.normalize,
            embedder=dense.embedder,
            embedder_hash=dense.embedder_hash,
            chunker=dense.chunker,
        )
        self._passages = list(dense.passages())
        for row, passage in enumerate(self._passages):
            self._rows[passage.id] = row
            self._hash.add(passage.id, passage.text)

    @property
    def index_type(self) -> str:
        """The dense store's index, and ``bm25``."""
        return f"{self.dense.index_type}+bm25"

    def _append(self, vectors: Tensor, passages: Sequence[Passage]) -> None:
        self.dense.add(passages, vectors)
        self._words = None

    def _write(self, rows: Tensor, vectors: Tensor, passages: Sequence[Passage]) -> None:
        self.dense.upsert(passages, vectors)
        self._words = None

    def delete(self, ids: Iterable[str]) -> int:
        """Remove passages and return how many there were; unknown ids count nothing."""
        with self._lock:
            ids = list(ids)
            self.dense.delete(ids)
            return super().delete(ids)

    def _keep(self, rows: Tensor) -> None:
        # the dense store was told when they were deleted, and moves its rows over by itself
        self._words = None

    def _replace(self, vectors: Tensor) -> None:
        self.dense.replace_embeddings(vectors)

    def _clear(self) -> None:
        self.dense.clear()
        self._words = None

    def _all_vectors(self) -> Tensor:
        return self.dense.embeddings()

    def _word_index(self) -> WordIndex:
        if self._words is None:
            self._words = WordIndex.build(self._passages)
        return self._words

    def _search(
        self, queries: Tensor, k: int, where: Mapping[str, Any] | None, texts: Sequence[str] | None
    ) -> tuple[Tensor, Tensor]:
        if texts is None:
            raise StoreError(
                "a hybrid store searches by words too and got no query texts",
                fix="store.search(queries, k, texts=[...]), or search store.dense",
            )
        depth = max(self.depth, k)
        rows = torch.full((len(queries), k), -1, dtype=torch.int64)
        scores = torch.full((len(queries), k), float("-inf"))
        if not len(self) or not len(queries):
            return rows, scores
        by_meaning = self.dense.search(queries, min(depth, len(self)), where=where).indices.tolist()
        admitted = self._matching(where)
        by_words = self._word_index().search(texts, depth, None if admitted is None else admitted.numpy())
        for number, (dense, sparse) in enumerate(zip(by_meaning, by_words, strict=True)):
            fused = fuse([[row for row in dense if row >= 0], sparse.tolist()], self.rrf_k)[:k]
            rows[number, : len(fused)] = torch.tensor([row for row, _ in fused], dtype=torch.int64)
            scores[number, : len(fused)] = torch.tensor([score for _, score in fused])
        return rows, scores

    def _manifest_fields(self) -> dict[str, Any]:
        dense = self.dense.manifest
        details = {"dense": dense.store, "rrf_k": self.rrf_k, "depth": self.depth}
        return {"recall": dense.recall, "recall_queries": dense.recall_queries, "details": details}

    def _write_files(self, directory: Path) -> None:
        # the passages lie with the dense store
        (directory / PASSAGES).unlink()
        self.dense.embedder, self.dense.embedder_hash = self.embedder, self.embedder_hash
        self.dense.chunker = dict(self.chunker)
        self.dense.save(directory / DENSE)
        self._word_index().save(directory / WORDS)

    @classmethod
    def _restore(cls, directory: Path, manifest: StoreManifest) -> Self:
        dense = KnowledgeStore.load(directory / DENSE, embedder_hash=manifest.embedder_hash)
        store = cls(dense=dense, rrf_k=manifest.details["rrf_k"], depth=manifest.details["depth"])
        if store._hash.hexdigest() != manifest.corpus_hash:
            raise StoreMismatchError(
                f"corpus_hash is {store._hash.hexdigest()!r}, expected {manifest.corpus_hash!r}",
                where=str(directory / DENSE),
                fix=REBUILD,
            )
        store._read_files(directory, manifest)
        return store

    def _read_files(self, directory: Path, manifest: StoreManifest) -> None:
        self._words = WordIndex.load(directory / WORDS, manifest.count)


def fuse(lists: Sequence[Sequence[int]], rrf_k: float = 60.0) -> list[tuple[int, float]]:
    """Join ranked lists of rows by reciprocal rank fusion.

    Parameters
    ----------
    lists
        Rows, best first, each at most once a list.
    rrf_k
        What is added to a rank, counted from 1.

    Returns
    -------
    list[tuple[int, float]]
        Rows and their sums of 1 / (rrf_k + rank), best first; ties by row.
    """
    scores: dict[int, float] = {}
    for ranked in lists:
        for rank, row in enumerate(ranked, start=1):
            scores[row] = scores.get(row, 0.0) + 1 / (rrf_k + rank)
    return sorted(scores.items(), key=lambda item: (-item[1], item[0]))
