"""Passages in Qdrant: embedded in memory, embedded in a directory, or a server.

The collection holds vectors and whole passages (as payload), so other programs can use it too. In memory, a
saved store carries its content; by path or address the collection itself is where the content lies, and what
`save` writes refers to it. Filters go to Qdrant where it means the same by them, and as a list of points
where it does not (strings with an order, keys with odd characters). Qdrant's embedded mode keeps its
directory in a format of its own, pickles in SQLite: open only what you wrote. Left out: sharding,
quantisation, other vectors.
"""

import contextlib
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from trainshed.data.passages import Passage
from trainshed.errors import DataError, MissingExtraError, StoreError, StoreMismatchError
from trainshed.rag.stores.base import KnowledgeStore
from trainshed.rag.stores.filters import parse_where
from trainshed.rag.stores.manifest import REBUILD, StoreManifest
from trainshed.rag.stores.memory import VECTORS, read_vectors
from trainshed.rag.stores.saving import PASSAGES

try:
    from qdrant_client import QdrantClient, models
    from qdrant_client.http.exceptions import ApiException

    from trainshed.rag.stores.qdrant_filters import native_condition
except ImportError as error:
    raise MissingExtraError(
        "the Qdrant client is not installed", fix="pip install 'trainshed[qdrant]'"
    ) from error


@contextlib.contextmanager
def _qdrant_errors(where: str) -> Iterator[None]:
    """Turn what Qdrant raises for a server or a disk that fails into a `StoreError`."""
    try:
        yield
    except (ApiException, sqlite3.Error, OSError) as error:
        raise StoreError(
            f"Qdrant failed: {error}", where=where, fix="check the server or the disk"
        ) from error


class QdrantKnowledgeStore(KnowledgeStore):
    """Passages in a Qdrant collection.

    A collection that exists is opened with what it holds; its vectors must have been written by this class.

    Parameters
    ----------
    path
        Directory of an embedded Qdrant; one process at a time.
    url
        Address of a server; neither of both means embedded in memory.
    api_key
        Of the server; never saved.
    collection
        Name of the collection.
    exact
        Ask Qdrant for exact search; else a server uses its index where it has one.
    batch_size
        Points sent or fetched at once.
    **common
        Arguments of `KnowledgeStore`.
    """

    name: ClassVar[str] = "qdrant"
    libraries: ClassVar[tuple[str, ...]] = ("trainshed", "torch", "safetensors", "qdrant-client")

    def __init__(
        self,
        *,
        path: Path | str | None = None,
        url: str | None = None,
        api_key: str | None = None,
        collection: str = "trainshed",
        exact: bool = True,
        batch_size: int = 256,
        **common: Any,
    ) -> None:
        if path is not None and url is not None:
            raise StoreError("a Qdrant store has a path or a url", fix="give one of them, or none for memory")
        super().__init__(**common)
        self.path, self.url = None if path is None else Path(path).absolute(), url
        self.collection, self.exact, self.batch_size = collection, exact, batch_size
        self._points: list[int] = []  # the Qdrant id of every row, ascending
        self._client = self._connect(api_key)
        with _qdrant_errors(self._where):
            if self._client.collection_exists(collection):
                self._open()

    @property
    def _where(self) -> str:
        return f"collection {self.collection!r} at {self.url or self.path or 'memory'}"

    def _connect(self, api_key: str | None) -> QdrantClient:
        if self.url is not None:
            return QdrantClient(url=self.url, api_key=api_key)
        if self.path is None:
            return QdrantClient(":memory:")
        try:
            return QdrantClient(path=str(self.path))
        except RuntimeError as error:  # another process has it open
            raise StoreError(
                str(error), where=str(self.path), fix="close it there, or use a Qdrant server"
            ) from error

    def close(self) -> None:
        """Close the connection; an embedded directory can then be opened by others."""
        self._client.close()

    @property
    def index_type(self) -> str:
        """``exact``, or ``hnsw`` where the server's index is used."""
        return "exact" if self.exact or self.url is None else "hnsw"

    def _generation(self) -> str | None:
        """Return the collection that the name, an alias, stands for now; None when there is none."""
        aliases = self._client.get_aliases().aliases
        return next((a.collection_name for a in aliases if a.alias_name == self.collection), None)

    def _create(self, generation: str, dimension: int) -> None:
        """Make an empty collection; what a killed process left under its name goes."""
        if self._client.collection_exists(generation):
            self._client.delete_collection(generation)
        params = models.VectorParams(size=dimension, distance=models.Distance.DOT)
        self._client.create_collection(generation, vectors_config=params)

    def _point_at(self, generation: str) -> None:
        """Let the name stand for another collection, in one step."""
        delete = models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=self.collection))
        create = models.CreateAliasOperation(
            create_alias=models.CreateAlias(collection_name=generation, alias_name=self.collection)
        )
        steps: list[Any] = [create] if self._generation() is None else [delete, create]
        self._client.update_collection_aliases(change_aliases_operations=steps)

    def _open(self) -> None:
        """Take over the collection that exists."""
        vectors = self._client.get_collection(self.collection).config.params.vectors
        ours = isinstance(vectors, models.VectorParams) and vectors.distance == models.Distance.DOT
        if not ours or self._generation() is None:
            raise StoreMismatchError(
                "the collection was not made by this store", where=self._where, fix="another collection name"
            )
        if self.dimension not in (None, vectors.size):
            raise StoreMismatchError(
                f"dimension is {vectors.size}, expected {self.dimension}", where=self._where, fix=REBUILD
            )
        self.dimension = vectors.size
        for record in self._scroll(vectors=False):
            try:
                passage = Passage.from_json(record.payload or {})
            except DataError as error:
                where = f"point {record.id} of {self._where}"
                raise StoreError(error.what, where=where, fix="a collection that this store wrote") from error
            self._rows[passage.id] = len(self._passages)
            self._passages.append(passage)
            self._points.append(int(record.id))
            self._hash.add(passage.id, passage.text)

    def _scroll(self, *, vectors: bool) -> Iterator[models.Record]:
        """Yield every point by ascending id."""
        offset = None
        while True:
            records, offset = self._client.scroll(
                self.collection,
                limit=self.batch_size,
                offset=offset,
                with_payload=not vectors,
                with_vectors=vectors,
            )
            yield from records
            if offset is None:
                return

    def _send(self, name: str, points: Sequence[int], vectors: Tensor, passages: Sequence[Passage]) -> None:
        for start in range(0, len(points), self.batch_size):
            part = slice(start, start + self.batch_size)
            batch = models.Batch(
                ids=list(points[part]),
                vectors=vectors[part].tolist(),
                payloads=[passage.to_json() for passage in passages[part]],
            )
            self._client.upsert(name, batch, wait=True)

    def _append(self, vectors: Tensor, passages: Sequence[Passage]) -> None:
        first = self._points[-1] + 1 if self._points else 0
        new = list(range(first, first + len(passages)))
        with _qdrant_errors(self._where):
            if self._generation() is None:
                generation = f"{self.collection}-00000001"
                self._create(generation, vectors.shape[1])
                self._point_at(generation)
            try:
                self._send(self.collection, new, vectors, passages)
            except BaseException:
                self._client.delete(self.collection, models.PointIdsList(points=new), wait=True)
                raise
        self._points += new

    def _write(self, rows: Tensor, vectors: Tensor, passages: Sequence[Passage]) -> None:
        with _qdrant_errors(self._where):
            points = [self._points[row] for row in rows.tolist()]
            self._send(self.collection, points, vectors, passages)

    def _keep(self, rows: Tensor) -> None:
        kept = [self._points[row] for row in rows.tolist()]
        gone = sorted(set(self._points) - set(kept))
        with _qdrant_errors(self._where):
            for start in range(0, len(gone), 10_000):
                batch = models.PointIdsList(points=gone[start : start + 10_000])
                self._client.delete(self.collection, batch, wait=True)
        self._points = kept

    def delete(self, ids: Iterable[str]) -> int:
        """Remove passages and return how many there were; the collection has them no longer afterwards."""
        with self._lock:
            count = super().delete(ids)
            self._settle()
            return count

    def _replace(self, vectors: Tensor) -> None:
        """Write a new collection, let the name stand for it in one step, and drop the old one."""
        with _qdrant_errors(self._where):
            old = self._generation()
            assert old is not None
            stem, _, number = old.rpartition("-")
            new = f"{stem}-{int(number) + 1:08d}"
            self._create(new, vectors.shape[1])
            self._send(new, self._points, vectors, self._passages)
            self._point_at(new)
            self._client.delete_collection(old)

    def _clear(self) -> None:
        with _qdrant_errors(self._where):
            generation = self._generation()
            if generation is not None:
                delete = models.DeleteAliasOperation(
                    delete_alias=models.DeleteAlias(alias_name=self.collection)
                )
                self._client.update_collection_aliases(change_aliases_operations=[delete])
                self._client.delete_collection(generation)
        self._points = []

    def _all_vectors(self) -> Tensor:
        vectors = torch.empty(len(self._points), self.dimension or 0)
        if self._points:
            with _qdrant_errors(self._where):
                for row, record in enumerate(self._scroll(vectors=True)):
                    vectors[row] = torch.tensor(record.vector)
        return vectors

    def _search(
        self, queries: Tensor, k: int, where: Mapping[str, Any] | None, texts: Sequence[str] | None
    ) -> tuple[Tensor, Tensor]:
        rows = torch.full((len(queries), k), -1, dtype=torch.int64)
        scores = torch.full((len(queries), k), float("-inf"))
        condition = self._filter(where)
        if not self._points or not len(queries):
            return rows, scores
        requests = [
            models.QueryRequest(
                query=query,
                limit=min(k, len(self._points)),
                filter=condition,
                # embedded Qdrant is always exact and warns about being told
                params=None if self.url is None else models.SearchParams(exact=self.exact),
            )
            for query in queries.tolist()
        ]
        points = np.asarray(self._points)
        with _qdrant_errors(self._where):
            for start in range(0, len(requests), self.batch_size):
                part = requests[start : start + self.batch_size]
                for number, answer in enumerate(
                    self._client.query_batch_points(self.collection, part), start
                ):
                    row = np.searchsorted(points, [int(point.id) for point in answer.points])
                    score = np.asarray([point.score for point in answer.points], dtype=np.float32)
                    order = np.lexsort((row, -score))
                    rows[number, : len(row)] = torch.from_numpy(row[order])
                    scores[number, : len(row)] = torch.from_numpy(score[order])
        return rows, scores

    def _filter(self, where: Mapping[str, Any] | None) -> models.Filter | None:
        if not where:
            return None
        must: list[Any] = []
        for condition in parse_where(where):
            native = native_condition(condition)
            if native is None:
                admitted = self._matching({condition.key: {condition.operator: condition.operand}})
                assert admitted is not None
                native = models.HasIdCondition(has_id=[self._points[row] for row in admitted.tolist()])
            must.append(native)
        return models.Filter(must=must)

    def _manifest_fields(self) -> dict[str, Any]:
        details = {
            "path": None if self.path is None else str(self.path),
            "url": self.url,
            "collection": self.collection,
            "exact": self.exact,
            "generation": self._generation(),
        }
        return {"details": details}

    @classmethod
    def _construct(cls, manifest: StoreManifest) -> Self:
        details = {key: value for key, value in manifest.details.items() if key != "generation"}
        return cls(
            **details,
            dimension=manifest.dimension or None,
            normalize=manifest.normalize,
            embedder=manifest.embedder,
            embedder_hash=manifest.embedder_hash,
            chunker=manifest.chunker,
        )

    @classmethod
    def _restore(cls, directory: Path, manifest: StoreManifest) -> Self:
        if manifest.details["path"] is None and manifest.details["url"] is None:
            return super()._restore(directory, manifest)
        store = cls._construct(manifest)
        held = {
            "count": len(store),
            "corpus_hash": store._hash.hexdigest(),
            "generation": store._generation(),
        }
        saved = {"count": manifest.count, "corpus_hash": manifest.corpus_hash, **manifest.details}
        changed = [
            f"{key} is {value!r}, expected {saved[key]!r}"
            for key, value in held.items()
            if value != saved[key]
        ]
        if changed:
            store.close()
            raise StoreMismatchError(
                "the collection has changed since it was saved: " + "; ".join(changed),
                where=store._where,
                fix=f"save the open store after changing it, or {REBUILD}",
            )
        return store

    def _write_files(self, directory: Path) -> None:
        if self.path is None and self.url is None:
            save_file({"vectors": self._all_vectors()}, directory / VECTORS)
        else:
            (directory / PASSAGES).unlink()

    def _read_files(self, directory: Path, manifest: StoreManifest) -> None:
        vectors = read_vectors(directory / VECTORS, manifest)
        if len(vectors):
            self._append(vectors, self._passages)
