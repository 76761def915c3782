"""Products of two matrices: in tiles if they are small, and by BLAS if they are large."""

from __future__ import annotations

import numpy as np

from nnlite.compiled.routines import Cube, Matrix
from nnlite.compiled.tiles import multiply, multiply_rows

# Multiply-adds from which on BLAS's copies of the operands pay.
_LARGE = 8_000_000
# Bytes at whose multiples addresses take the same places in the first-level cache.
_PAGE = 4096
# Numbers of a row that, with those of six other rows, stay in the first-level cache.
_LONG = 768


def matmul(a: Matrix, b: Matrix, out: Matrix) -> None:
    """Write a b."""
    if b.shape[1] == 1:
        multiply_rows(b.reshape(1, len(b)), a, out.reshape(1, len(a)), False)
    elif len(a) == 1 or _suits_blas(len(a), b):
        np.dot(a, b, out)  # also of one row: BLAS reads the matrix from end to end
    else:
        multiply(a, b, out, False)


def dot_rows(a: Matrix, b: Matrix, out: Matrix) -> None:
    """Write a bᵀ: the dot product of each row of `a` with each row of `b`."""
    if len(a) * b.size > _LARGE:
        np.dot(a, b.T, out)
    else:
        multiply_rows(a, b, out, False)


def dot_columns(a: Matrix, b: Matrix, out: Matrix) -> None:
    """Write aᵀ b: the dot product of each column of `a` with each column of `b`."""
    if len(a) == 1:  # no sums
        for i in range(a.shape[1]):
            for j in range(b.shape[1]):
                out[i, j] = a[0, i] * b[0, j]
    elif _suits_blas(a.shape[1], b):
        np.dot(a.T, b, out)
    else:
        multiply(a.T, b, out, False)


def sum_of_dots(a: Cube, first: int, b: Cube, start: int, out: Matrix) -> None:
    """Write Σ_t a[t] b[t]ᵀ over the t of `a`, for as many rows of both as `out` has.

    They begin at `first` and at `start`.
    """
    rows, terms = out.shape
    times = max(1, _LONG // max(1, a.shape[2]))
    for t in range(0, len(a), times):
        left = a[t : t + times, first : first + rows].transpose(1, 0, 2)
        right = b[t : min(t + times, len(a)), start : start + terms].transpose(1, 0, 2)
        multiply_rows(left, right, out, t > 0)


def _suits_blas(rows: int, b: Matrix) -> bool:
    """Whether BLAS is faster for a product of this many rows with b."""
    return rows * b.size > _LARGE or b.shape[1] * b.itemsize % _PAGE == 0
