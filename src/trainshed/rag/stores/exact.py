"""Exact maximum-inner-product search, in bounded memory.

A coarse pass (one matrix product and a top-k, in int8 or bfloat16 where the CPU multiplies these faster)
proposes candidates; their scores are computed anew in float64 and rounded to float32. The largest rounding
error of the coarse pass is known, so a query whose k-th score does not clear what was left out is searched
again: in float32, and at last among every row within the error. What comes back is therefore the exact
answer whatever the batch, the threads and the type: scores are the float64 inner products rounded to
float32, ties stand in row order.

Left out: approximate indexes (see `faiss`), what the rows mean (see `base`).
"""

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from trainshed.rag.stores.vectors import Precision, VectorMatrix, product, shrink

#: queries of one block, and coarse scores of one block (8 MiB in float32)
QUERY_BLOCK, BLOCK_SCORES = 256, 1 << 21
#: fewer scores than this are computed in float32: there the narrower top-k outweighs the faster product
SMALL_TYPE_SCORES = 1 << 12
#: rows up to which a single query is searched with the least calls, for these are most of its time
ONE_QUERY_ROWS = 1 << 14
_BF16_ROUNDING = 2.0**-9
_F32_ROUNDING = 2.0**-24


def exact_search(
    vectors: VectorMatrix,
    queries: Tensor,
    k: int,
    *,
    rows: Tensor | None = None,
    precision: Precision | None = None,
) -> tuple[Tensor, Tensor]:
    """Find the k rows with the largest inner product for every query.

    Parameters
    ----------
    vectors
        The matrix.
    queries
        [n, dimension] float32, finite.
    k
        How many; at least 1.
    rows
        Search only these (int64, ascending); all when None.
    precision
        Type of the coarse pass; None takes what is fastest here. The result is the same.

    Returns
    -------
    tuple[Tensor, Tensor]
        Rows [n, k] int64 and scores [n, k] float32, best first; -1 and -inf where there are fewer rows.
    """
    count = vectors.rows if rows is None else len(rows)
    found = min(k, count)
    if len(queries) == 1 and found == k and rows is None and precision is None and count <= ONE_QUERY_ROWS:
        sure = _search_one(vectors, queries, k)
        if sure is not None:
            return sure
    if found == k and len(queries) <= QUERY_BLOCK and len(queries):
        return _search_block(vectors, queries, k, rows, precision or _precision(vectors, len(queries), count))
    indices = torch.full((len(queries), k), -1, dtype=torch.int64)
    scores = torch.full((len(queries), k), float("-inf"))
    for start in range(0, len(queries) if found else 0, QUERY_BLOCK):
        part = slice(start, start + QUERY_BLOCK)
        block = queries[part]
        chosen = precision or _precision(vectors, len(block), count)
        indices[part, :found], scores[part, :found] = _search_block(vectors, block, found, rows, chosen)
    return indices, scores


def _precision(vectors: VectorMatrix, queries: int, count: int) -> Precision:
    return vectors.fastest(queries) if queries * count >= SMALL_TYPE_SCORES else "float32"


def _width(k: int, count: int, precision: Precision) -> int:
    """How many candidates to take: the coarser the type, the more, or too many queries are searched again.

    torch's top-k is several times faster while 64 * width <= count.
    """
    if precision == "float32":
        return min(count, k + 4)
    if precision == "bfloat16":
        return min(count, max(k + k // 2 + 8, min(count // 64, max(4 * k, 32))))
    return min(count, max(2 * k + 8, min(count // 64, max(8 * k, 64))))


def _search_block(
    vectors: VectorMatrix, queries: Tensor, k: int, rows: Tensor | None, precision: Precision
) -> tuple[Tensor, Tensor]:
    """Search one block of queries; every returned row is certain."""
    count = vectors.rows if rows is None else len(rows)
    width = _width(k, count, precision)
    values, candidates, error = _coarse(vectors, queries, width, rows, precision)
    indices, scores = rescore(vectors.view, queries, candidates.numpy(), k)
    if width == count:
        return indices, scores
    unsure = (scores[:, -1].double() <= values[:, -1] + error).nonzero()[:, 0]
    if len(unsure) and precision != "float32":
        indices[unsure], scores[unsure] = _search_block(vectors, queries[unsure], k, rows, "float32")
    elif len(unsure):
        for row in unsure.tolist():
            indices[row], scores[row] = _search_near(
                vectors, queries[row : row + 1], k, rows, scores[row, -1]
            )
    return indices, scores


def _search_one(vectors: VectorMatrix, query: Tensor, k: int) -> tuple[Tensor, Tensor] | None:
    """Search for one query as `_search_block` does in int8; None where that is slower or stays unsure."""
    count = vectors.rows
    width = min(count, 4 * k + 16)
    if count < 512 or width == count or vectors.fastest(1) != "int8":
        return None
    data, scales, rounded = vectors.small("int8")
    left = query.numpy()[0]
    scale = max(float(np.abs(left).max()), 1e-30) / 127
    small = np.rint(left / np.float32(scale)).astype(np.int8)
    lost = left - small * np.float32(scale)
    norm, left_rounded = math.sqrt(left @ left), math.sqrt(lost @ lost)
    largest = vectors.largest_norm()
    coarse = product(torch.from_numpy(small)[None], data).numpy()[0] * (scales.numpy() * np.float32(scale))
    candidates = np.argpartition(coarse, count - width)[count - width :]
    error = 2 * (vectors.dimension + 8) * _F32_ROUNDING * largest * norm
    error += 1.00001 * (norm * rounded + left_rounded * (largest + rounded))
    # the norms above are of float32 sums, and so a little less than what they should bound
    error *= 1.00001
    scores = (vectors.view.numpy()[candidates].astype(np.float64) @ left.astype(np.float64)).astype(
        np.float32
    )
    order = np.lexsort((candidates, -scores))[:k]
    best = scores[order]
    if float(best[-1]) <= float(coarse[candidates[0]]) + error:
        return None
    return torch.from_numpy(candidates[order])[None], torch.from_numpy(best)[None]


def _coarse(
    vectors: VectorMatrix, queries: Tensor, width: int, rows: Tensor | None, precision: Precision
) -> tuple[Tensor, Tensor, Tensor]:
    """Return coarse scores [n, width], best first, their rows, and how far one may be off [n] float64."""
    norms, largest = queries.norm(dim=1).double(), vectors.largest_norm()
    # twice the bound of theory for a sum of d products in float32
    error = 2 * (vectors.dimension + 8) * _F32_ROUNDING * largest * norms
    if precision == "float32":
        values, positions = _best(queries, _blocks(vectors.view, None, rows, len(queries)), width)
        if torch.get_float32_matmul_precision() != "highest":  # the process allows products in bfloat16
            error = error + 6 * _BF16_ROUNDING * largest * norms
    else:
        data, scales, rounded = vectors.small(precision)
        left, left_scales, left_rounded = shrink(queries, precision)
        block_scales = scales if precision == "int8" else None
        values, positions = _best(left, _blocks(data, block_scales, rows, len(queries)), width)
        error = error + 1.00001 * (norms * rounded + left_rounded.double() * (largest + rounded))
        if precision == "int8":
            values = values * left_scales[:, None]
        else:
            error = error + 2 * _BF16_ROUNDING * values[:, -1].double().abs()
    return values.double(), positions if rows is None else rows[positions], error


def _blocks(
    matrix: Tensor, scales: Tensor | None, rows: Tensor | None, queries: int
) -> Iterator[tuple[int, Tensor, Tensor | None]]:
    """Yield (first position, rows [b, d], their scales [b]) of what is searched."""
    count, step = len(matrix) if rows is None else len(rows), max(1024, BLOCK_SCORES // queries)
    for start in range(0, count, step):
        part = slice(start, min(start + step, count))
        if rows is None:
            yield start, matrix[part], None if scales is None else scales[part]
        else:
            yield start, matrix.index_select(0, rows[part]), None if scales is None else scales[rows[part]]


def _best(
    queries: Tensor, blocks: Iterator[tuple[int, Tensor, Tensor | None]], width: int
) -> tuple[Tensor, Tensor]:
    """Return the ``width`` best products of every query over all blocks, and their positions."""
    parts: list[tuple[Tensor, Tensor]] = []
    for start, block, scales in blocks:
        scores = product(queries, block)
        if scales is not None:
            scores = scores.float().mul_(scales)
        values, positions = scores.topk(min(width, len(block)), dim=1)
        parts.append((values, positions + start if start else positions))
    if len(parts) == 1:
        return parts[0]
    values, order = torch.cat([part[0] for part in parts], 1).topk(width, dim=1)
    return values, torch.cat([part[1] for part in parts], 1).gather(1, order)


def _search_near(
    vectors: VectorMatrix, query: Tensor, k: int, rows: Tensor | None, threshold: Tensor
) -> tuple[Tensor, Tensor]:
    """Search among all rows whose score may reach ``threshold``, such as a crowd of duplicates."""
    margin = 4 * (vectors.dimension + 8) * _F32_ROUNDING
    if torch.get_float32_matmul_precision() != "highest":
        margin += 6 * _BF16_ROUNDING
    lowest = threshold.double() - margin * query.double().norm() * vectors.largest_norm()
    near = []
    for start, block, _ in _blocks(vectors.view, None, rows, 1):
        near.append((torch.mm(query, block.T)[0].double() >= lowest).nonzero()[:, 0] + start)
    positions = torch.cat(near)
    candidates = positions if rows is None else rows[positions]
    indices, scores = rescore(vectors.view, query, candidates.numpy()[None], k)
    return indices[0], scores[0]


def rescore(matrix: Tensor, queries: Tensor, candidates: np.ndarray, k: int) -> tuple[Tensor, Tensor]:
    """Order candidate rows by their inner product in float64 rounded to float32, then by row.

    Parameters
    ----------
    matrix
        [rows, d] float32.
    queries
        [n, d] float32.
    candidates
        [n, c] int64 rows of the matrix, c >= k; -1 stands for none.
    k
        How many to return.

    Returns
    -------
    tuple[Tensor, Tensor]
        Rows [n, k] int64 and scores [n, k] float32; -1 and -inf where a query has fewer candidates.
    """
    rows, left = matrix.numpy(), queries.numpy().astype(np.float64)
    scores = np.empty(candidates.shape, dtype=np.float32)
    # a few queries at a time, so that what is gathered stays in the cache
    step = max(1, (1 << 18) // (candidates.shape[1] * rows.shape[1]))
    for start in range(0, len(left), step):
        part = slice(start, start + step)
        gathered = rows[candidates[part]].astype(np.float64)
        scores[part] = np.matmul(gathered, left[part, :, None])[:, :, 0]
    scores[candidates < 0] = -np.inf
    order = np.lexsort((candidates, -scores), axis=-1)[:, :k]
    return (
        torch.from_numpy(np.take_along_axis(candidates, order, -1)),
        torch.from_numpy(np.take_along_axis(scores, order, -1)),
    )
