"""Products in which a copy of the operands would take much of the time.

BLAS copies its operands into an order of its own before it multiplies them. For a small batch, and
for the small products of a recurrent layer, the copy takes as long as a good part of the product.
The functions here multiply the matrices in place: in loops, or by the kernels that OpenBLAS has for
small matrices on processors with AVX-512.
"""

from __future__ import annotations

import numpy as np

from nnlite.compiled.routines import Cube, Matrix
from nnlite.engine.blas import core_of_products

# BLAS is faster for fewer rows than the first number, and for more than the second, and if `b` does
# not stay in the second-level cache.
_FEW, _MANY, _LARGE = 4, 128, 1 << 18
# Multiply-adds of a product up to which OpenBLAS reads both matrices in place, if it ever does. The
# second matrix must not be transposed.
_IN_PLACE = 1_000_000 if core_of_products() in ("SkylakeX", "Cooperlake", "SapphireRapids") else 0
# Pieces of a product up to which a copy of the transposed first matrix pays.
_PIECES = 32
# Columns of the first matrix from which on a sum of products is computed one by one.
_LONG = 48


def dot_rows(a: Matrix, b: Matrix, out: Matrix) -> None:
    """Write a bᵀ: the dot product of each row of `a` with each row of `b`.

    Twelve sums at a time, so that each number that is read is used three or four times. Behind the
    last row, the last one is computed again.
    """
    rows, columns = len(a), len(b)
    if rows < _FEW or rows > _MANY or b.size > _LARGE:
        np.dot(a, b.T, out)
        return
    zero = a.dtype.type(0)
    for i in range(0, rows, 4):
        i1, i2, i3 = min(i + 1, rows - 1), min(i + 2, rows - 1), min(i + 3, rows - 1)
        for j in range(0, columns, 3):
            j1, j2 = min(j + 1, columns - 1), min(j + 2, columns - 1)
            s00 = s01 = s02 = s10 = s11 = s12 = zero
            s20 = s21 = s22 = s30 = s31 = s32 = zero
            for k in range(a.shape[1]):
                s00 += a[i, k] * b[j, k]
                s01 += a[i, k] * b[j1, k]
                s02 += a[i, k] * b[j2, k]
                s10 += a[i1, k] * b[j, k]
                s11 += a[i1, k] * b[j1, k]
                s12 += a[i1, k] * b[j2, k]
                s20 += a[i2, k] * b[j, k]
                s21 += a[i2, k] * b[j1, k]
                s22 += a[i2, k] * b[j2, k]
                s30 += a[i3, k] * b[j, k]
                s31 += a[i3, k] * b[j1, k]
                s32 += a[i3, k] * b[j2, k]
            out[i, j], out[i, j1], out[i, j2] = s00, s01, s02
            out[i1, j], out[i1, j1], out[i1, j2] = s10, s11, s12
            out[i2, j], out[i2, j1], out[i2, j2] = s20, s21, s22
            out[i3, j], out[i3, j1], out[i3, j2] = s30, s31, s32


def dot_columns(a: Matrix, b: Matrix, out: Matrix) -> None:
    """Write aᵀ b: the dot product of each column of `a` with each column of `b`.

    With one row each is a single product, and BLAS would go through the result twice.
    """
    samples, rows = a.shape
    if samples == 1:
        for i in range(rows):
            for j in range(b.shape[1]):
                out[i, j] = a[0, i] * b[0, j]
        return
    in_place = _rows_in_place(samples * b.shape[1])
    if not in_place < rows <= _PIECES * in_place:
        np.dot(a.T, b, out)
        return
    turned = np.empty((rows, samples), a.dtype)
    for i in range(rows):
        for k in range(samples):
            turned[i, k] = a[k, i]
    dot_in_place(turned, b, out)


def dot_in_place(a: Matrix, b: Matrix, out: Matrix) -> None:
    """Write a b, as many rows at a time as OpenBLAS multiplies in place."""
    rows = _rows_in_place(a.shape[1] * b.shape[1])
    if rows == 0:
        np.dot(a, b, out)
        return
    for i in range(0, len(a), rows):
        np.dot(a[i : i + rows], b, out[i : i + rows])


def sum_of_dots(a: Cube, first: int, b: Cube, start: int, out: Matrix) -> None:
    """Write Σ_t a[t] b[t]ᵀ over the t of `a`, for as many rows of both as `out` has.

    They begin at `first` and at `start`. The sum is a single product, with the matrices of all t
    side by side, or if they are wide enough a product for each t, in place.
    """
    times, columns, terms = len(a), a.shape[2], out.shape[1]
    rows = min(_rows_in_place(columns * terms), len(out))
    if rows == 0 or columns < _LONG:
        side_by_side = np.empty((len(out), times, columns), a.dtype)
        turned = np.empty((times * columns, terms), a.dtype)
        for t in range(times):
            for i in range(len(out)):
                for k in range(columns):
                    side_by_side[i, t, k] = a[t, first + i, k]
            for j in range(terms):
                for k in range(columns):
                    turned[t * columns + k, j] = b[t, start + j, k]
        np.dot(side_by_side.reshape(len(out), times * columns), turned, out)
        return
    out[:] = 0
    total = out.reshape(-1)
    turned = np.empty((columns, terms), a.dtype)
    part = np.empty((rows, terms), a.dtype)
    for t in range(times):
        for j in range(terms):
            for k in range(columns):
                turned[k, j] = b[t, start + j, k]
        for top in range(0, len(out), rows):
            count = min(rows, len(out) - top)
            np.dot(a[t, first + top : first + top + count], turned, part[:count])
            line, more = total[top * terms :], part.reshape(-1)
            for i in range(count * terms):
                line[i] += more[i]


def _rows_in_place(multiply_adds: int) -> int:
    """Return how many rows at a time, of this size, are multiplied in place: a multiple of 4."""
    return _IN_PLACE // max(1, multiply_adds) // 4 * 4
