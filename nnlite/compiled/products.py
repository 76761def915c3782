"""The products of a small batch, with the weights of a layer and for their gradient.

BLAS copies its operands into an order of its own before it multiplies them. With few rows the copy
takes as long as the product. The loops here read both matrices in place.
"""

from __future__ import annotations

import numpy as np

from nnlite.compiled.routines import Matrix

# BLAS is faster for fewer rows than the first number, and for more than the second, and if `b` does
# not stay in the second-level cache.
_FEW, _MANY, _LARGE = 4, 128, 1 << 18


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
    if len(a) != 1:
        np.dot(a.T, b, out)
        return
    for i in range(a.shape[1]):
        for j in range(b.shape[1]):
            out[i, j] = a[0, i] * b[0, j]
