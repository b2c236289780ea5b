"""Approximate candidates from FAISS, with labels that stay right through changes, and its BLAS switch tamed.

Every vector gets the next slot of the FAISS index. A replaced or deleted vector leaves a dead slot behind (no
index type that is fast here can remove one), which is skipped and goes at the next rebuild. Left out: exact
scores and when to rebuild (see `faiss`).
"""

import contextlib
import math
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from trainshed.errors import MissingExtraError, StoreError
from trainshed.rag.stores.manifest import REBUILD

try:
    import faiss
except ImportError as error:
    raise MissingExtraError("FAISS is not installed", fix="pip install 'trainshed[faiss]'") from error

IndexKind = Literal["flat", "pq", "hnsw", "ivf"]
KINDS: tuple[IndexKind, ...] = ("flat", "pq", "hnsw", "ivf")
#: up to these sizes exact search and a flat list of product-quantised codes are the better choice
EXACT_UP_TO, FLAT_CODES_UP_TO = 200_000, 2_000_000
# the threshold below is one number for the whole process: whoever sets it keeps others out until it is back
_THRESHOLD_LOCK = threading.Lock()


def choose_kind(count: int) -> IndexKind:
    """Return the index for a number of passages: exact, then quantised codes, then with inverted lists."""
    if count <= EXACT_UP_TO:
        return "flat"
    return "pq" if count <= FLAT_CODES_UP_TO else "ivf"


def factory_string(kind: IndexKind, dimension: int, count: int) -> str:
    """Return what `faiss.index_factory` calls an index of this kind; codes are 4 bits a pair of numbers."""
    codes = f"PQ{dimension // 2}x4fs" if dimension % 2 == 0 else "SQ8"
    lists = max(1, min(round(4 * math.sqrt(count)), count // 39))
    return {"flat": "Flat", "pq": codes, "hnsw": "HNSW32", "ivf": f"IVF{lists},{codes}"}[kind]


@contextlib.contextmanager
def blas(use: bool) -> Iterator[None]:
    """Make FAISS compute distances by matrix products, or not, inside the block; then put its switch back.

    Left alone, FAISS 1.15 goes through the vectors one query at a time up to n * d = 128,000, which is
    several times slower from some eight queries on.
    """
    with _THRESHOLD_LOCK:
        before = faiss.cvar.distance_compute_blas_threshold
        faiss.cvar.distance_compute_blas_threshold = 1 if use else (1 << 30)
        try:
            yield
        finally:
            faiss.cvar.distance_compute_blas_threshold = before


def blas_from(dimension: int, batches: tuple[int, ...] = (2, 4, 8, 16, 32)) -> int:
    """Return the number of queries from which matrix products are faster here, by some short tries."""
    rows = np.ones((8192, dimension), dtype=np.float32)
    for queries in batches:
        seconds = {True: math.inf, False: math.inf}
        for _ in range(2):
            for use in seconds:
                with blas(use):
                    start = time.perf_counter()
                    faiss.knn(rows[:queries], rows, 10, metric=faiss.METRIC_INNER_PRODUCT)
                    seconds[use] = min(seconds[use], time.perf_counter() - start)
        if seconds[True] < seconds[False]:
            return queries
    return 2 * batches[-1]


class FaissIndex:
    """A FAISS index over slots, and which row of the store each slot is.

    Parameters
    ----------
    index
        A trained FAISS index.
    slot_rows
        [slots] int64: the row of every slot, -1 where it is dead.
    effort
        Multiplies how much of the index a search looks at.
    """

    def __init__(self, index: Any, slot_rows: np.ndarray, effort: int = 1) -> None:
        self.index, self.slot_rows, self.effort = index, slot_rows, effort

    @classmethod
    def build(cls, vectors: Tensor, kind: IndexKind) -> "FaissIndex":
        """Train an index on vectors [n, d] and add them."""
        count, dimension = vectors.shape
        index: Any = faiss.index_factory(
            dimension, factory_string(kind, dimension, count), faiss.METRIC_INNER_PRODUCT
        )
        if kind == "hnsw":
            index.hnsw.efConstruction = 100
        rows = vectors.numpy()
        # codes need some thousands of examples, not millions; a stride takes them from the whole
        index.train(rows[:: max(1, count // 100_000)])
        index.add(rows)
        return cls(index, np.arange(count, dtype=np.int64))

    @property
    def dead(self) -> int:
        """Number of dead slots."""
        return int((self.slot_rows < 0).sum())

    def append(self, vectors: Tensor, first_row: int) -> None:
        """Add vectors [n, d] that are the rows from ``first_row`` on."""
        self.index.add(vectors.numpy())
        self.slot_rows = np.concatenate([self.slot_rows, np.arange(first_row, first_row + len(vectors))])

    def write(self, rows: Tensor, vectors: Tensor) -> None:
        """Replace the vectors of rows: their slots die, new ones take their place."""
        self.slot_rows = np.where(np.isin(self.slot_rows, rows.numpy()), -1, self.slot_rows)
        self.index.add(vectors.numpy())
        self.slot_rows = np.concatenate([self.slot_rows, rows.numpy()])

    def keep(self, rows: Tensor, count: int) -> None:
        """Drop every row of ``count`` that ``rows`` does not name; the others move up."""
        moved = np.full(count + 1, -1, dtype=np.int64)  # the last one stands for slots that are dead already
        moved[rows.numpy()] = np.arange(len(rows))
        self.slot_rows = moved[self.slot_rows]

    def candidates(self, queries: Tensor, wanted: int, alive: int, *, by_blas: bool) -> np.ndarray:
        """Return rows near the queries, [n, c] int64 with -1 for none.

        At least ``wanted`` live ones a query as long as the index finds so many: where dead slots crowd the
        neighbourhood, more are asked for.
        """
        ask = wanted = min(wanted, alive)
        while True:
            with blas(by_blas):
                _, slots = self.index.search(queries.numpy(), ask, params=self._parameters(ask))
            rows = np.where(slots >= 0, self.slot_rows[slots], -1)
            # short of live ones although the index had more to give
            crowded = ((rows >= 0).sum(axis=1) < wanted) & (slots[:, -1] >= 0)
            if not crowded.any() or ask >= len(self.slot_rows):
                return rows
            ask = min(2 * ask, len(self.slot_rows))

    def _parameters(self, ask: int) -> Any:
        library: Any = faiss  # its stubs lack some of what it has
        if isinstance(self.index, faiss.IndexHNSW):
            return library.SearchParametersHNSW(efSearch=max(64 * self.effort, ask))
        if isinstance(self.index, faiss.IndexIVF):
            return library.SearchParametersIVF(nprobe=min(64 * self.effort, self.index.nlist))
        return None

    def save(self, path: Path) -> None:
        """Write the FAISS index."""
        faiss.write_index(self.index, str(path))


def nearest(vectors: Tensor, queries: Tensor, width: int, *, by_blas: bool) -> tuple[Tensor, np.ndarray]:
    """Return the largest inner products [n, width] in float32 and their rows, by FAISS without an index."""
    with blas(by_blas):
        values, rows = faiss.knn(queries.numpy(), vectors.numpy(), width, metric=faiss.METRIC_INNER_PRODUCT)
    return torch.from_numpy(values), rows


def save_flat(vectors: Tensor, path: Path) -> None:
    """Write vectors [n, d] as a plain FAISS index."""
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors.numpy())
    faiss.write_index(index, str(path))


def read_index(path: Path) -> Any:
    """Read a FAISS index.

    Raises
    ------
    StoreError
        When FAISS cannot.
    """
    try:
        return faiss.read_index(str(path))
    except RuntimeError as error:
        raise StoreError(f"FAISS cannot read the index: {error}", where=str(path), fix=REBUILD) from error


def flat_vectors(index: Any) -> Tensor:
    """Return the vectors [n, d] of a flat index."""
    return torch.from_numpy(index.reconstruct_n(0, index.ntotal).copy())
