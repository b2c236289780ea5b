"""A growing float32 matrix and the small copies of it that a CPU multiplies faster.

A copy in bfloat16 or int8 comes with the largest norm of what rounding took from any row, so that whoever
multiplies with it can bound the error of a product. Left out: searching (see `exact`).
"""

import time
from typing import Literal

import torch
from torch import Tensor

Precision = Literal["float32", "bfloat16", "int8"]
#: rows converted at once, so that the float32 temporaries stay small
_CONVERT_ROWS = 16_384
#: batches that stand for small ones (bound by memory) and large ones (bound by arithmetic)
FEW, MANY = 8, 64


def shrink(vectors: Tensor, precision: Precision) -> tuple[Tensor, Tensor, Tensor]:
    """Round rows to a smaller type.

    Parameters
    ----------
    vectors
        [n, d] float32.
    precision
        ``bfloat16``, or ``int8`` with one scale a row.

    Returns
    -------
    tuple[Tensor, Tensor, Tensor]
        The rounded rows [n, d], their scales [n] float32 (ones for bfloat16), and the norm of what rounding
        took from each [n] float32.
    """
    if precision == "int8":
        scales = vectors.abs().amax(dim=1).clamp_min(1e-30) / 127
        rounded = (vectors / scales[:, None]).round_().to(torch.int8)
        return rounded, scales, (vectors - rounded.float() * scales[:, None]).norm(dim=1)
    rounded = vectors.bfloat16()
    return rounded, torch.ones(len(vectors)), (vectors - rounded.float()).norm(dim=1)


class SmallCopy:
    """The rows of a matrix in a smaller type, converted as far as they are asked for.

    Parameters
    ----------
    precision
        ``bfloat16`` or ``int8``.
    """

    def __init__(self, precision: Precision) -> None:
        self.precision: Precision = precision
        self.valid = 0
        self.error = 0.0
        self._data = torch.empty(0, 0)
        self._scales = torch.empty(0)

    def rows(self, buffer: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Return the first ``count`` rows of ``buffer`` [count, d] and their scales [count]."""
        if len(self._data) != len(buffer):
            kind = torch.int8 if self.precision == "int8" else torch.bfloat16
            self._data, self._scales = torch.empty(buffer.shape, dtype=kind), torch.empty(len(buffer))
            self.valid = 0
        for start in range(self.valid, count, _CONVERT_ROWS):
            part = slice(start, min(start + _CONVERT_ROWS, count))
            self._data[part], self._scales[part], errors = shrink(buffer[part], self.precision)
            self.error = max(self.error, float(errors.max()))
        self.valid = max(self.valid, count)
        return self._data[:count], self._scales[:count]


class VectorMatrix:
    """Rows of float32 in one buffer that grows by doubling.

    Parameters
    ----------
    dimension
        Numbers in a row.
    """

    def __init__(self, dimension: int) -> None:
        self.dimension, self.rows = dimension, 0
        self._buffer = torch.empty(0, dimension)
        self._copies: dict[Precision, SmallCopy] = {}
        self._norm, self._norm_rows = 0.0, 0
        self._fastest: dict[int, Precision] = {}

    @property
    def view(self) -> Tensor:
        """The rows in use, [rows, dimension] float32; shares memory with the matrix."""
        return self._buffer[: self.rows]

    def append(self, vectors: Tensor) -> None:
        """Add rows [n, dimension] at the end; amortised constant time a row."""
        needed = self.rows + len(vectors)
        if needed > len(self._buffer):
            grown = torch.empty(max(needed, 2 * self.rows if self.rows else 0), self.dimension)
            grown[: self.rows] = self.view
            self._buffer = grown
        self._buffer[self.rows : needed] = vectors
        self.rows = needed

    def write(self, rows: Tensor, vectors: Tensor) -> None:
        """Replace the given rows."""
        if len(rows):
            self._buffer[rows] = vectors
            first = int(rows.min())
            self._norm_rows = min(self._norm_rows, first)
            for copy in self._copies.values():
                copy.valid = min(copy.valid, first)

    def keep(self, rows: Tensor) -> None:
        """Drop every row that ``rows`` (ascending) does not name; the others move up."""
        self.replace(self._buffer.index_select(0, rows))

    def replace(self, vectors: Tensor) -> None:
        """Put other rows in the place of all."""
        self._buffer, self.rows = vectors.contiguous(), len(vectors)
        self._copies, self._norm, self._norm_rows = {}, 0.0, 0

    def largest_norm(self) -> float:
        """Return at least the largest norm of a row; what was measured once is not measured again."""
        for start in range(self._norm_rows, self.rows, _CONVERT_ROWS):
            part = self._buffer[start : min(start + _CONVERT_ROWS, self.rows)]
            self._norm = max(self._norm, float(part.norm(dim=1).max()))
        self._norm_rows = self.rows
        return self._norm

    def small(self, precision: Precision) -> tuple[Tensor, Tensor, float]:
        """Return the rows in a smaller type [rows, d], their scales [rows], the largest norm of an error."""
        copy = self._copies.setdefault(precision, SmallCopy(precision))
        data, scales = copy.rows(self._buffer, self.rows)
        return data, scales, copy.error

    def fastest(self, queries: int) -> Precision:
        """Return the type in which this CPU multiplies that many queries fastest, by one short try."""
        shape = FEW if queries < 2 * FEW else MANY
        if shape not in self._fastest:
            self._fastest[shape] = fastest_precision(shape, self.dimension)
        return self._fastest[shape]


def product(queries: Tensor, rows: Tensor) -> Tensor:
    """Return ``queries @ rows.T`` [n, rows]; int32 for int8 operands."""
    if rows.dtype != torch.int8:
        return torch.mm(queries, rows.T)
    if rows.shape[1] == 1:  # torch 2.13 returns garbage for columns of one number
        return queries.int() * rows.T.int()
    return torch._int_mm(queries, rows.T)


def fastest_precision(queries: int, dimension: int) -> Precision:
    """Time small products in each type; a smaller one has to win clearly, for it asks for more candidates."""
    best: dict[Precision, float] = dict.fromkeys(("float32", "bfloat16", "int8"), float("inf"))
    left, right, scales = torch.ones(queries, dimension), torch.ones(4096, dimension), torch.ones(4096)
    pairs = {
        precision: (left, right)
        if precision == "float32"
        else (shrink(left, precision)[0], shrink(right, precision)[0])
        for precision in best
    }
    for _ in range(6):
        for precision, (one, other) in pairs.items():
            start = time.perf_counter()
            scores = product(one, other)
            if precision == "int8":
                scores.float().mul_(scales)
            best[precision] = min(best[precision], time.perf_counter() - start)
    one, other = pairs["int8"]
    # without VNNI some kernels add pairs of products in 16 bits: such a CPU must not take part
    right_sums = bool((product(one, other) == 127 * 127 * dimension).all())
    small: Precision = "int8" if right_sums and best["int8"] <= best["bfloat16"] else "bfloat16"
    return small if best[small] * 1.5 < best["float32"] else "float32"
