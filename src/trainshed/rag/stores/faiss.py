"""Search by a FAISS index that is chosen by size, with exact scores and a measured recall.

Up to 200,000 passages search is exact; up to 2 million a list of product-quantised codes proposes candidates,
beyond that with inverted lists in front of it; HNSW on request, for stores that grow all the time. Candidates
are scored anew from the float32 matrix, so scores are exact and only a passage that was not proposed can be
missing. How often that happens is measured at every build against exact search, and a build below the bound
fails. A search with a filter is always exact. Left out: FAISS on a GPU.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from trainshed.data.passages import Passage
from trainshed.errors import StoreError, did_you_mean
from trainshed.progress import say
from trainshed.rag.stores.exact import exact_search, rescore
from trainshed.rag.stores.faiss_index import (
    KINDS,
    FaissIndex,
    IndexKind,
    blas_from,
    choose_kind,
    flat_vectors,
    nearest,
    read_index,
    save_flat,
)
from trainshed.rag.stores.manifest import REBUILD, StoreManifest
from trainshed.rag.stores.memory import VECTORS, InMemoryKnowledgeStore, read_vectors

INDEX, SLOTS = "index.faiss", "slots.safetensors"
_RECALL_AT = 10
_MAX_EFFORT = 8


class FaissKnowledgeStore(InMemoryKnowledgeStore):
    """Passages in a FAISS index.

    Parameters
    ----------
    index_type
        ``flat``, ``pq``, ``hnsw``, ``ivf``, or ``auto`` by size.
    min_recall
        Recall@10 against exact search below which a build fails.
    recall_queries
        How many passages stand in for queries when it is measured; each is left out of its own answer.
    candidates
        Candidates scored exactly, for each one asked for.
    **common
        Arguments of `KnowledgeStore`.
    """

    name: ClassVar[str] = "faiss"
    libraries: ClassVar[tuple[str, ...]] = ("trainshed", "torch", "safetensors", "faiss-cpu")

    def __init__(
        self,
        *,
        index_type: IndexKind | Literal["auto"] = "auto",
        min_recall: float = 0.95,
        recall_queries: int = 256,
        candidates: int = 10,
        **common: Any,
    ) -> None:
        if index_type != "auto" and index_type not in KINDS:
            known = ("auto", *KINDS)
            raise StoreError(f"unknown index type {index_type!r}", fix=did_you_mean(str(index_type), known))
        super().__init__(**common)
        self.wanted_type, self.min_recall = index_type, min_recall
        self.recall_queries, self.candidates = recall_queries, candidates
        self._reset()

    def _reset(self) -> None:
        self._index: FaissIndex | None = None
        self._kind: IndexKind = "flat" if self.wanted_type == "auto" else self.wanted_type
        self._built = 0  # passages there were when it was built
        self._recall: float | None = None
        self._asked = 0
        self._blas_from: int | None = None

    @property
    def index_type(self) -> str:
        """Kind of index: ``flat``, ``pq``, ``hnsw`` or ``ivf``."""
        with self._lock:
            self._refresh()
            return self._kind

    def build_index(self) -> None:
        """Build the index from the passages as they are now and measure its recall.

        A search or a save does this by itself when there is no index yet, when the store has doubled since,
        or when a quarter of the index is dead.

        Raises
        ------
        StoreError
            When recall stays below the bound; the index that was there stays.
        """
        with self._lock:
            self._settle()
            vectors = self._vectors()
            kind = choose_kind(vectors.rows) if self.wanted_type == "auto" else self.wanted_type
            if kind != "flat" and vectors.rows < 1000:  # too few to train codes on, and exact is faster
                kind = "flat"
            index = None if kind == "flat" else FaissIndex.build(vectors.view, kind)
            self._blas_from = self._blas_from or blas_from(vectors.dimension)
            recall, asked = self._measure(index)
            while index is not None and recall < self.min_recall and index.effort < _MAX_EFFORT:
                index.effort *= 2
                recall, asked = self._measure(index)
            if recall < self.min_recall:
                raise StoreError(
                    f"recall@{_RECALL_AT} of the {kind!r} index is {recall:.4f} on {asked} queries, below "
                    f"{self.min_recall}",
                    fix="index_type='flat' (exact) or 'hnsw', more candidates, or a lower min_recall",
                )
            measured = f"recall@{_RECALL_AT} {recall:.4f} on {asked} queries"
            say(f"faiss index: {kind}, {vectors.rows} passages, {measured}")
            self._index, self._kind, self._built = index, kind, vectors.rows
            self._recall, self._asked = recall, asked

    def _refresh(self) -> None:
        """Build the index when there is none or it has become stale."""
        self._settle()
        count = len(self)
        if not count:
            self._reset()
            return
        crowded = self._index is not None and 4 * self._index.dead > len(self._index.slot_rows)
        if not self._built or count >= 2 * self._built or crowded:
            self.build_index()

    def _measure(self, index: FaissIndex | None) -> tuple[float, int]:
        """Return recall@10 on a sample of passages, each left out of its own answer, and its size."""
        vectors = self._vectors()
        generator = torch.Generator().manual_seed(0)
        sample = torch.randperm(vectors.rows, generator=generator)[: self.recall_queries]
        queries, k = vectors.view[sample], min(_RECALL_AT + 1, vectors.rows)
        if k < 2:
            return 1.0, 0
        found = self._nearest(queries, k, index)[0]
        true = exact_search(vectors, queries, k)[0]
        hits = total = 0
        for own, ours, theirs in zip(sample.tolist(), found.tolist(), true.tolist(), strict=True):
            wanted = [row for row in theirs if row != own][: k - 1]
            hits += len(set(wanted) & set(ours))
            total += len(wanted)
        return hits / total, len(sample)

    def _nearest(self, queries: Tensor, k: int, index: FaissIndex | None) -> tuple[Tensor, Tensor]:
        vectors = self._vectors()
        by_blas = len(queries) >= (self._blas_from or 1)
        if index is None:
            return self._flat(queries, k, by_blas=by_blas)
        rows = torch.full((len(queries), k), -1, dtype=torch.int64)
        scores = torch.full((len(queries), k), float("-inf"))
        step = 256
        for start in range(0, len(queries), step):
            part = queries[start : start + step]
            wanted = max(self.candidates * index.effort * k, k)
            near = index.candidates(part, wanted, vectors.rows, by_blas=by_blas)
            best, values = rescore(vectors.view, part, near, k)
            rows[start : start + step, : best.shape[1]] = best
            scores[start : start + step, : best.shape[1]] = values
        return rows, scores

    def _flat(self, queries: Tensor, k: int, *, by_blas: bool) -> tuple[Tensor, Tensor]:
        """Search exactly: by small types where the CPU has fast ones, else by FAISS."""
        vectors = self._vectors()
        found = min(k, vectors.rows)
        width = min(vectors.rows, found + 4)
        if not len(queries) or vectors.fastest(len(queries)) != "float32":
            return exact_search(vectors, queries, k)
        values, near = nearest(vectors.view, queries, width, by_blas=by_blas)
        rows = torch.full((len(queries), k), -1, dtype=torch.int64)
        scores = torch.full((len(queries), k), float("-inf"))
        rows[:, :found], scores[:, :found] = rescore(vectors.view, queries, near, found)
        if width < vectors.rows:
            # twice the bound of theory for a sum of d products in float32
            error = 2.0**-23 * (vectors.dimension + 8) * vectors.largest_norm() * queries.norm(dim=1).double()
            reach = values[:, -1].double() + error
            unsure = (scores[:, found - 1].double() <= reach).nonzero()[:, 0]
            if len(unsure):
                rows[unsure], scores[unsure] = exact_search(vectors, queries[unsure], k)
        return rows, scores

    def _search(
        self, queries: Tensor, k: int, where: Mapping[str, Any] | None, texts: Sequence[str] | None
    ) -> tuple[Tensor, Tensor]:
        self._refresh()
        if where or not len(self):
            return super()._search(queries, k, where, texts)
        return self._nearest(queries, k, self._index)

    def _append(self, vectors: Tensor, passages: Sequence[Passage]) -> None:
        first = self._vectors().rows
        super()._append(vectors, passages)
        if self._index is not None:
            self._index.append(vectors, first)

    def _write(self, rows: Tensor, vectors: Tensor, passages: Sequence[Passage]) -> None:
        super()._write(rows, vectors, passages)
        if self._index is not None:
            self._index.write(rows, vectors)

    def _keep(self, rows: Tensor) -> None:
        if self._index is not None:
            self._index.keep(rows, self._vectors().rows)
        super()._keep(rows)

    def _replace(self, vectors: Tensor) -> None:
        """Replace all vectors; an index that fails its bound leaves the old vectors and index."""
        before, kind = self._vectors().view, self._kind
        super()._replace(vectors)
        if self._index is None:
            self._built = 0  # measured again when it is next needed
            return
        try:
            self.build_index()
        except StoreError:
            self._vectors().replace(before)
            self._kind = kind
            raise

    def _clear(self) -> None:
        super()._clear()
        self._reset()

    def _manifest_fields(self) -> dict[str, Any]:
        details = {
            "wanted_type": self.wanted_type,
            "min_recall": self.min_recall,
            "candidates": self.candidates,
            "built_for": self._built,
            "effort": 1 if self._index is None else self._index.effort,
        }
        return {"recall": self._recall, "recall_queries": self._asked, "details": details}

    @classmethod
    def _construct(cls, manifest: StoreManifest) -> Self:
        return cls(
            index_type=manifest.details["wanted_type"],
            min_recall=manifest.details["min_recall"],
            candidates=manifest.details["candidates"],
            dimension=manifest.dimension or None,
            normalize=manifest.normalize,
            embedder=manifest.embedder,
            embedder_hash=manifest.embedder_hash,
            chunker=manifest.chunker,
        )

    def _write_files(self, directory: Path) -> None:
        self._refresh()
        if self._index is None:
            save_flat(self._all_vectors(), directory / INDEX)
            return
        super()._write_files(directory)
        save_file({"rows": torch.from_numpy(self._index.slot_rows)}, directory / SLOTS)
        self._index.save(directory / INDEX)

    def _read_files(self, directory: Path, manifest: StoreManifest) -> None:
        index = read_index(directory / INDEX)
        self._kind = manifest.index_type  # type: ignore[assignment]
        self._built, self._recall = manifest.details["built_for"], manifest.recall
        self._asked = manifest.recall_queries
        if self._kind == "flat":
            vectors, slots = flat_vectors(index), index.ntotal
        else:
            vectors = read_vectors(directory / VECTORS, manifest)
            rows = load_file(directory / SLOTS)["rows"].numpy()
            self._index, slots = FaissIndex(index, rows, manifest.details["effort"]), len(rows)
        if tuple(vectors.shape) != (manifest.count, manifest.dimension) or index.ntotal != slots:
            raise StoreError(
                "the index does not hold the passages", where=str(directory / INDEX), fix=REBUILD
            )
        if len(vectors):
            self._vectors().replace(vectors)
