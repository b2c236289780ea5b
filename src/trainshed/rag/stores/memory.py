"""Exact search in memory: one float32 matrix, saved as safetensors. Left out: indexes (see `faiss`)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from trainshed.data.passages import Passage
from trainshed.errors import StoreError
from trainshed.rag.stores.base import KnowledgeStore
from trainshed.rag.stores.exact import exact_search
from trainshed.rag.stores.manifest import REBUILD, StoreManifest
from trainshed.rag.stores.vectors import VectorMatrix

VECTORS = "vectors.safetensors"


class InMemoryKnowledgeStore(KnowledgeStore):
    """All embeddings in one matrix; searches are exact and batched (see `exact`).

    A search needs some 50 MiB beyond the matrix, whatever the number of queries, and copies of it at a
    quarter and half its size where the CPU multiplies int8 and bfloat16 faster.
    """

    name: ClassVar[str] = "memory"
    _matrix: VectorMatrix | None = None

    def _vectors(self) -> VectorMatrix:
        if self._matrix is None:
            assert self.dimension is not None
            self._matrix = VectorMatrix(self.dimension)
        return self._matrix

    def _append(self, vectors: Tensor, passages: Sequence[Passage]) -> None:
        self._vectors().append(vectors)

    def _write(self, rows: Tensor, vectors: Tensor, passages: Sequence[Passage]) -> None:
        self._vectors().write(rows, vectors)

    def _keep(self, rows: Tensor) -> None:
        self._vectors().keep(rows)

    def _replace(self, vectors: Tensor) -> None:
        self._vectors().replace(vectors.clone())

    def _clear(self) -> None:
        self._matrix = None

    def _all_vectors(self) -> Tensor:
        return torch.empty(0, self.dimension or 0) if self._matrix is None else self._matrix.view.clone()

    def _search(
        self, queries: Tensor, k: int, where: Mapping[str, Any] | None, texts: Sequence[str] | None
    ) -> tuple[Tensor, Tensor]:
        rows = self._matching(where)
        matrix = VectorMatrix(queries.shape[1]) if self._matrix is None else self._matrix
        return exact_search(matrix, queries, k, rows=rows)

    def _write_files(self, directory: Path) -> None:
        vectors = torch.empty(0, self.dimension or 0) if self._matrix is None else self._matrix.view
        save_file({"vectors": vectors}, directory / VECTORS)

    def _read_files(self, directory: Path, manifest: StoreManifest) -> None:
        vectors = read_vectors(directory / VECTORS, manifest)
        if len(vectors):
            self._vectors().replace(vectors)


def read_vectors(path: Path, manifest: StoreManifest) -> Tensor:
    """Read the vectors [count, dimension] that a manifest promises.

    Raises
    ------
    StoreError
        When the file is no safetensors file or holds something else.
    """
    try:
        vectors = load_file(path)["vectors"]
    except (SafetensorError, KeyError) as error:
        raise StoreError(f"the vectors cannot be read: {error}", where=str(path), fix=REBUILD) from error
    wanted = (manifest.count, manifest.dimension)
    if tuple(vectors.shape) != wanted or vectors.dtype != torch.float32:
        raise StoreError(
            f"the vectors are {vectors.dtype} {list(vectors.shape)}, the manifest says {list(wanted)}",
            where=str(path),
            fix=REBUILD,
        )
    return vectors
