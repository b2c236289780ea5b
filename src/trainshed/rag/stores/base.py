"""The knowledge store: passages with their embeddings, searched by inner product.

A store keeps its passages and their order; where the vectors lie and how they are searched is the business
of the class that derives from it (`memory`, `faiss`, `qdrant`, `hybrid`). Row r of `embeddings`, of `ids` and
of `SearchResult.indices` is the r-th passage: rows stay in the order of addition, `upsert` keeps a passage's
row, `delete` moves the later ones up. Every public method holds the store's lock, so a search sees the state
before or after a change and nothing between. Left out: how a store is saved and loaded (see `saving`),
encoding (see `building`), texts in and texts out (see `rag.system`).
"""

import threading
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from trainshed.data.passages import Passage
from trainshed.errors import StoreError
from trainshed.rag.stores.checks import check_passages, check_vectors, unit_rows
from trainshed.rag.stores.filters import FilterIndex, parse_where
from trainshed.rag.stores.manifest import CorpusHash, StoreManifest
from trainshed.rag.stores.saving import EXPECTED, PASSAGES, SavedStore

# who writes a kind of store needs what `saving` calls its files
__all__ = ["EXPECTED", "PASSAGES", "KnowledgeStore", "SearchResult"]


@dataclass(frozen=True)
class SearchResult:
    """What a search found, best first.

    Attributes
    ----------
    indices
        Rows of the store, [n, k] int64; -1 where there was nothing more.
    scores
        [n, k] float32; -inf where there was nothing more.
    ids
        Passage ids of every query, only those found: a list is shorter than k where ``indices`` has -1.
    """

    indices: Tensor
    scores: Tensor
    ids: list[list[str]]


class KnowledgeStore(SavedStore):
    """Passages and their embeddings.

    Parameters
    ----------
    dimension
        Numbers in an embedding; taken from the first ones when None.
    normalize
        Scale embeddings and queries to length 1, so that scores are cosines. Zeros stay zeros, and what has
        length 1 to within 1e-6 is left as it is.
    embedder, embedder_hash
        Name of the passage encoder and hash of its weights, for the manifest.
    chunker
        Settings that cut the documents, for the manifest.
    """

    name: ClassVar[str]
    #: distributions whose versions the manifest records
    libraries: ClassVar[tuple[str, ...]] = ("trainshed", "torch", "safetensors")

    def __init__(
        self,
        *,
        dimension: int | None = None,
        normalize: bool = True,
        embedder: str = "",
        embedder_hash: str = "",
        chunker: Mapping[str, Any] | None = None,
    ) -> None:
        self.dimension, self.normalize = dimension, normalize
        self.embedder, self.embedder_hash = embedder, embedder_hash
        self.chunker = dict(chunker or {})
        self._lock = threading.RLock()
        self._forget()

    def _forget(self) -> None:
        self._passages: list[Passage] = []
        self._rows: dict[str, int] = {}
        self._dead: set[int] = set()  # rows deleted but not yet moved over
        self._hash = CorpusHash()
        self._filters: FilterIndex | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.RLock())

    @classmethod
    def _construct(cls, manifest: StoreManifest) -> Self:
        return cls(
            dimension=manifest.dimension or None,
            normalize=manifest.normalize,
            embedder=manifest.embedder,
            embedder_hash=manifest.embedder_hash,
            chunker=manifest.chunker,
        )

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, identity: object) -> bool:
        return identity in self._rows

    @property
    def count(self) -> int:
        """Number of passages."""
        return len(self)

    @property
    def index_type(self) -> str:
        """Kind of index that a search uses now."""
        return "exact"

    @property
    def ids(self) -> list[str]:
        """Passage ids in row order."""
        with self._lock:
            self._settle()
            return [passage.id for passage in self._passages]

    def passages(self) -> Iterator[Passage]:
        """Iterate over the passages as they are now, in row order."""
        with self._lock:
            self._settle()
            return iter(list(self._passages))

    def get(self, ids: Sequence[str]) -> list[Passage]:
        """Return the passages with these ids, in the order asked; an unknown id is a `StoreError`."""
        with self._lock:
            for identity in ids:
                if identity not in self._rows:
                    raise StoreError(f"the store has no passage {identity!r}", fix="ids are in store.ids")
            return [self._passages[self._rows[identity]] for identity in ids]

    def embeddings(self) -> Tensor:
        """Return a copy of all embeddings in row order, [N, dimension] float32."""
        with self._lock:
            self._settle()
            return self._all_vectors()

    def add(self, passages: Sequence[Passage], embeddings: Tensor) -> None:
        """Add new passages at the end.

        Parameters
        ----------
        passages
            With ids that neither the store nor the batch has already.
        embeddings
            [n, dimension], finite.

        Raises
        ------
        StoreError
            When an id is taken or the embeddings do not fit; nothing is added then.
        """
        with self._lock:
            check_passages(passages)
            vectors = self._checked_batch(passages, embeddings)
            for passage in passages:
                if passage.id in self._rows:
                    raise StoreError(
                        f"the passage id {passage.id!r} is in the store already", fix="use upsert"
                    )
            self._add(passages, vectors)

    def upsert(self, passages: Sequence[Passage], embeddings: Tensor) -> None:
        """Add passages, or replace those whose ids the store has; these keep their rows."""
        with self._lock:
            check_passages(passages)
            vectors = self._checked_batch(passages, embeddings)
            known = [i for i, passage in enumerate(passages) if passage.id in self._rows]
            if known:
                rows = torch.tensor([self._rows[passages[i].id] for i in known])
                self._write(rows, vectors[known], [passages[i] for i in known])
                for i in known:
                    self._place(passages[i])
            new = [i for i, passage in enumerate(passages) if passage.id not in self._rows]
            self._add([passages[i] for i in new], vectors[new])

    def _place(self, passage: Passage) -> None:
        row = self._rows[passage.id]
        self._hash.remove(passage.id, self._passages[row].text)
        self._hash.add(passage.id, passage.text)
        self._passages[row] = passage
        self._filters = None

    def _add(self, passages: Sequence[Passage], vectors: Tensor) -> None:
        if not passages:
            return
        self.dimension = vectors.shape[1]
        self._append(vectors, passages)
        for passage in passages:
            self._rows[passage.id] = len(self._passages)
            self._passages.append(passage)
            self._hash.add(passage.id, passage.text)
        self._filters = None

    def delete(self, ids: Iterable[str]) -> int:
        """Remove passages and return how many there were; unknown ids count nothing."""
        with self._lock:
            known = [identity for identity in dict.fromkeys(ids) if identity in self._rows]
            for identity in known:
                row = self._rows.pop(identity)
                self._hash.remove(identity, self._passages[row].text)
                self._dead.add(row)
            self._filters = None if known else self._filters
            return len(known)

    def _settle(self) -> None:
        """Move the rows over those deleted since; once for many deletions."""
        if self._dead:
            keep = [row for row in range(len(self._passages)) if row not in self._dead]
            self._keep(torch.tensor(keep, dtype=torch.int64))
            self._passages = [self._passages[row] for row in keep]
            self._rows = {passage.id: row for row, passage in enumerate(self._passages)}
            self._dead, self._filters = set(), None

    def clear(self) -> None:
        """Remove everything; dimension and manifest fields stay."""
        with self._lock:
            self._clear()
            self._forget()

    def replace_embeddings(self, embeddings: Tensor, *, embedder_hash: str | None = None) -> None:
        """Put new embeddings in the place of all, at once: a search sees all old ones or all new ones.

        Parameters
        ----------
        embeddings
            [N, dimension] in row order.
        embedder_hash
            Hash of the weights that made them; unknown when None, and then a `load` that expects one refuses.
        """
        with self._lock:
            self._settle()
            vectors = self._checked_batch(self._passages, embeddings)
            if len(vectors):
                self._replace(vectors)
            self.embedder_hash = embedder_hash or ""

    def search(
        self,
        queries: Tensor,
        k: int,
        *,
        where: Mapping[str, Any] | None = None,
        texts: Sequence[str] | None = None,
    ) -> SearchResult:
        """Find the k best passages for every query.

        Parameters
        ----------
        queries
            [n, dimension], finite.
        k
            How many; at least 1. Where there are fewer, rows are filled with -1 and -inf.
        where
            Metadata filter, applied before the k best are taken (see `filters`).
        texts
            The n query texts, for stores that also search by words.
        """
        if k < 1:
            raise StoreError(f"k is {k}", fix="k of at least 1")
        with self._lock:
            self._settle()
            vectors = self._checked(queries, "query")
            if texts is not None and len(texts) != len(vectors):
                raise StoreError(
                    f"{len(vectors)} queries came with {len(texts)} texts", fix="one text a query"
                )
            indices, scores = self._search(vectors, k, where, texts)
            passages = self._passages
            ids = [[passages[row].id for row in rows if row >= 0] for rows in indices.tolist()]
            return SearchResult(indices, scores, ids)

    def _matching(self, where: Mapping[str, Any] | None) -> Tensor | None:
        """Return the rows that a filter admits, ascending; None when there is no filter."""
        if not where:
            return None
        conditions = parse_where(where)
        if self._filters is None:
            self._filters = FilterIndex(self._passages)
        return torch.from_numpy(self._filters.rows(conditions))

    def _checked_batch(self, passages: Sequence[Passage], embeddings: Tensor) -> Tensor:
        if len(passages) != len(embeddings):
            raise StoreError(
                f"{len(passages)} passages came with {len(embeddings)} embeddings", fix="one a passage"
            )
        return self._checked(embeddings, "embedding", passages)

    def _checked(self, vectors: Tensor, what: str, passages: Sequence[Passage] = ()) -> Tensor:
        vectors = check_vectors(vectors, what, self.dimension, passages)
        return unit_rows(vectors) if self.normalize else vectors

    @abstractmethod
    def _append(self, vectors: Tensor, passages: Sequence[Passage]) -> None:
        """Take in vectors [n, dimension] as the next rows."""

    @abstractmethod
    def _write(self, rows: Tensor, vectors: Tensor, passages: Sequence[Passage]) -> None:
        """Replace the vectors and passages of rows."""

    @abstractmethod
    def _keep(self, rows: Tensor) -> None:
        """Drop every row that ``rows`` does not name."""

    @abstractmethod
    def _replace(self, vectors: Tensor) -> None:
        """Replace all vectors."""

    @abstractmethod
    def _clear(self) -> None:
        """Drop all rows."""

    @abstractmethod
    def _all_vectors(self) -> Tensor:
        """Return a copy of all vectors, [N, dimension]."""

    @abstractmethod
    def _search(
        self, queries: Tensor, k: int, where: Mapping[str, Any] | None, texts: Sequence[str] | None
    ) -> tuple[Tensor, Tensor]:
        """Return rows [n, k] int64 and scores [n, k] float32."""
