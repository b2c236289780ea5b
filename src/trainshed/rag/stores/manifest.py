"""What a saved knowledge store says about itself, and the checks against it before anything is read.

Left out: the content (see the stores).
"""

import hashlib
import platform
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from trainshed.errors import StoreError, StoreMismatchError
from trainshed.files import digest_file, read_json, recover_directory, write_json

MANIFEST = "manifest.json"
FORMAT_VERSION = 1
REBUILD = "build it again with trainshed.rag.building.build_store(passages, retriever, ...)"


@dataclass
class StoreManifest:
    """Everything that decides whether a store may serve a retriever.

    Attributes
    ----------
    store, index_type
        Registered name of the store and the kind of index in it.
    embedder, embedder_hash
        Name of the passage encoder and hash of its weights; empty when unknown.
    dimension, normalize, metric
        Of the embeddings; dimension 0 when the store never held one.
    chunker
        Settings that cut the documents.
    corpus_hash, count
        Hash over ids and texts in any order, and the number of passages.
    recall, recall_queries
        Recall@10 of the index against exact search and on how many queries it was measured; recall is None
        where search is exact.
    details
        What only this kind of store has.
    versions
        Libraries that wrote it.
    files
        Name of every file to its size in bytes and digest.
    """

    store: str
    index_type: str
    embedder: str = ""
    embedder_hash: str = ""
    dimension: int = 0
    normalize: bool = True
    metric: str = "cosine"
    chunker: dict[str, Any] = field(default_factory=dict)
    corpus_hash: str = ""
    count: int = 0
    recall: float | None = None
    recall_queries: int = 0
    details: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    format_version: int = FORMAT_VERSION


class CorpusHash:
    """Hash of a set of passages that does not depend on their order and follows additions and removals.

    The sum modulo 2**256 of one BLAKE2b a passage, over its id and text.
    """

    def __init__(self) -> None:
        self._sum = 0

    @staticmethod
    def _of(identity: str, text: str) -> int:
        data = f"{len(identity)}:{identity}{text}".encode()
        return int.from_bytes(hashlib.blake2b(data, digest_size=32).digest(), "big")

    def add(self, identity: str, text: str) -> None:
        """Take a passage in."""
        self._sum = (self._sum + self._of(identity, text)) % (1 << 256)

    def remove(self, identity: str, text: str) -> None:
        """Take a passage out."""
        self._sum = (self._sum - self._of(identity, text)) % (1 << 256)

    def hexdigest(self) -> str:
        """Return the hash in hex."""
        return f"{self._sum:064x}"[:32]


def corpus_hash(passages: Iterable[Any]) -> str:
    """Return the hash over ids and texts of passages, the same in any order."""
    total = CorpusHash()
    for passage in passages:
        total.add(passage.id, passage.text)
    return total.hexdigest()


def library_versions(*names: str) -> dict[str, str]:
    """Return the installed version of each distribution, and Python's."""
    found = {"python": platform.python_version()}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "unknown"
    return found


def write_manifest(directory: Path, manifest: StoreManifest) -> None:
    """Write the manifest last, with the size and digest of every file that already lies in ``directory``."""
    files = sorted(path for path in directory.rglob("*") if path.is_file() and path != directory / MANIFEST)
    manifest.files = {
        path.relative_to(directory).as_posix(): {"bytes": path.stat().st_size, "digest": digest_file(path)}
        for path in files
    }
    write_json(directory / MANIFEST, asdict(manifest))


def read_manifest(directory: Path) -> StoreManifest:
    """Read a store's manifest.

    Raises
    ------
    StoreError
        When there is no store, or its manifest is damaged or of another format.
    """
    path = directory / MANIFEST
    if directory.parent.is_dir():
        recover_directory(directory)
    if not path.is_file():
        raise StoreError("there is no knowledge store here", where=str(directory), fix=REBUILD)
    try:
        data = read_json(path)
        written = data["format_version"]
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(f"the manifest is damaged: {error}", where=str(path), fix=REBUILD) from error
    if written != FORMAT_VERSION:
        raise StoreError(
            f"the store has format {written}, this version reads format {FORMAT_VERSION}",
            where=str(path),
            fix=REBUILD,
        )
    if set(data) != {item.name for item in fields(StoreManifest)}:
        raise StoreError(
            "the manifest is damaged: it lacks fields or has unknown ones", where=str(path), fix=REBUILD
        )
    return StoreManifest(**data)


def check_expected(directory: Path, manifest: StoreManifest, expected: Mapping[str, Any]) -> None:
    """Compare the fields that a caller knows; a value of None is not compared.

    Raises
    ------
    StoreMismatchError
        Names every field that differs, with both values.
    """
    differences = [
        f"{name} is {getattr(manifest, name)!r}, expected {value!r}"
        for name, value in expected.items()
        if value is not None and getattr(manifest, name) != value
    ]
    if differences:
        raise StoreMismatchError(
            "the knowledge store was built by something else: " + "; ".join(differences),
            where=str(directory),
            fix=REBUILD,
        )


def check_files(directory: Path, manifest: StoreManifest) -> None:
    """Check that every file is there with its size and digest.

    Raises
    ------
    StoreError
        Names the first file that is missing or damaged.
    """
    for name, known in manifest.files.items():
        path = directory / name
        if not path.is_file():
            raise StoreError(f"the file {name!r} of the store is missing", where=str(directory), fix=REBUILD)
        if path.stat().st_size != known["bytes"]:
            raise StoreError(
                f"the file has {path.stat().st_size} bytes, the manifest says {known['bytes']}",
                where=str(path),
                fix=REBUILD,
            )
        if digest_file(path) != known["digest"]:
            raise StoreError(
                "the file's digest is not the manifest's: it is damaged", where=str(path), fix=REBUILD
            )
