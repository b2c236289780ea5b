"""How a store lies on the disk: its passages in `PASSAGES`, its vectors beside them, a manifest over both.

A directory is complete or not there, and a load checks every file before it takes any. Left out: what the
manifest says (`manifest`), and the files of the vectors, which are the business of each kind of store.
"""

import json
from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, ClassVar, Self

from trainshed.data.jsonl import read_jsonl
from trainshed.data.passages import Passage
from trainshed.errors import DataError, StoreError, StoreMismatchError, did_you_mean
from trainshed.files import atomic_directory
from trainshed.rag.stores.manifest import (
    REBUILD,
    CorpusHash,
    StoreManifest,
    check_expected,
    check_files,
    library_versions,
    read_manifest,
    write_manifest,
)
from trainshed.registry import STORES

PASSAGES = "passages.jsonl"
#: manifest fields that `KnowledgeStore.load` compares when they are given
EXPECTED = ("embedder_hash", "embedder", "dimension", "normalize", "chunker", "corpus_hash", "index_type")


class SavedStore(ABC):
    """The part of a `KnowledgeStore` that saves and loads it."""

    name: ClassVar[str]
    libraries: ClassVar[tuple[str, ...]]
    dimension: int | None
    normalize: bool
    embedder: str
    embedder_hash: str
    chunker: dict[str, Any]
    _lock: AbstractContextManager[Any]
    _passages: list[Passage]
    _rows: dict[str, int]
    _hash: CorpusHash

    @property
    def manifest(self) -> StoreManifest:
        """What the store says about itself now; its files are listed once it is saved."""
        with self._lock:
            return StoreManifest(
                store=self.name,
                index_type=self.index_type,
                embedder=self.embedder,
                embedder_hash=self.embedder_hash,
                dimension=self.dimension or 0,
                normalize=self.normalize,
                metric="cosine" if self.normalize else "inner_product",
                chunker=dict(self.chunker),
                corpus_hash=self._hash.hexdigest(),
                count=len(self),
                versions=library_versions(*self.libraries),
                **self._manifest_fields(),
            )

    def _manifest_fields(self) -> dict[str, Any]:
        """Return ``recall``, ``recall_queries`` and ``details`` where the store has any."""
        return {}

    def save(self, directory: Path | str) -> None:
        """Write the store; what lay in ``directory`` stays loadable until the new one is complete."""
        directory = Path(directory)
        with self._lock, atomic_directory(directory) as partial:
            self._settle()
            with (partial / PASSAGES).open("w", encoding="utf-8") as file:
                for passage in self._passages:
                    file.write(json.dumps(passage.to_json(), ensure_ascii=False, allow_nan=False) + "\n")
            self._write_files(partial)
            write_manifest(partial, self.manifest)

    @classmethod
    def load(cls, directory: Path | str, *, embedder_hash: str | None = None, **expected: Any) -> Self:
        """Load a store that `save` wrote; `KnowledgeStore.load` takes the class from the manifest.

        Parameters
        ----------
        directory
            Where it was saved.
        embedder_hash
            Hash of the passage encoder's weights that the caller will search with.
        **expected
            Other fields of the manifest that must be as given (see `EXPECTED`); None is not compared.

        Raises
        ------
        StoreMismatchError
            When a field differs: names it, with both values.
        StoreError
            When there is no store or a file of it is damaged; nothing is loaded then.
        """
        directory = Path(directory)
        for key in expected:
            if key not in EXPECTED:
                raise StoreError(f"cannot compare {key!r}", fix=did_you_mean(key, EXPECTED))
        manifest = read_manifest(directory)
        kind: type[Self] = STORES.get(manifest.store)
        if not issubclass(kind, cls):
            raise StoreMismatchError(
                f"this is a {manifest.store!r} store, not {cls.name!r}",
                where=str(directory),
                fix="load it with KnowledgeStore.load(directory)",
            )
        check_expected(directory, manifest, {"embedder_hash": embedder_hash, **expected})
        check_files(directory, manifest)
        return kind._restore(directory, manifest)

    @classmethod
    def _restore(cls, directory: Path, manifest: StoreManifest) -> Self:
        store = cls._construct(manifest)
        try:
            passages = [Passage.from_json(row) for _, row in read_jsonl(directory / PASSAGES)]
        except DataError as error:
            raise StoreError(
                error.what, where=error.where or str(directory / PASSAGES), fix=REBUILD
            ) from error
        store._passages = passages
        store._rows = {passage.id: row for row, passage in enumerate(passages)}
        for passage in passages:
            store._hash.add(passage.id, passage.text)
        if len(store._rows) != manifest.count or store._hash.hexdigest() != manifest.corpus_hash:
            raise StoreError(
                "the passages are not those of the manifest", where=str(directory / PASSAGES), fix=REBUILD
            )
        store._read_files(directory, manifest)
        return store

    @classmethod
    @abstractmethod
    def _construct(cls, manifest: StoreManifest) -> Self:
        """Make the empty store that a manifest describes."""

    @abstractmethod
    def __len__(self) -> int: ...

    @property
    @abstractmethod
    def index_type(self) -> str:
        """Kind of index that a search uses now."""

    @abstractmethod
    def _settle(self) -> None:
        """Bring the rows in the order in which they are saved."""

    @abstractmethod
    def _write_files(self, directory: Path) -> None:
        """Write the vectors."""

    @abstractmethod
    def _read_files(self, directory: Path, manifest: StoreManifest) -> None:
        """Read what `_write_files` wrote; raise `StoreError` when it does not fit the passages."""
