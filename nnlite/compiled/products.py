"""Products of two matrices: in tiles if they are small, and by BLAS if they are large."""

from __future__ import annotations

import numpy as np

from nnlite.compiled.functions import view
from nnlite.compiled.routines import Cube, Matrix
from nnlite.compiled.tiles import multiply, multiply_rows, strided

# Multiply-adds from which on BLAS's copies of both operands pay.
_LARGE = 60_000_000
# BLAS computes no product of fewer multiply-adds than the first. In a tile, a dot product ends with
# the sum of the elements of a vector: the second is its time, in numbers that BLAS could copy. From
# the third on, multiply-adds for each number that BLAS copies, its copies pay.
_SMALL, _SUM, _OFTEN = 50_000, 6, 80
# Rows of the result from which on a copy of a panel of b pays, and from which on it does if the
# rows of b are a multiple of these bytes long: they take each other's place in the cache.
_MANY, _SOME, _CONFLICT = 128, 32, 256
# Columns and rows of a panel.
_PANEL, _DEPTH = 48, 512
# Numbers of a row that, with those of six other rows, stay in the first-level cache.
_LONG = 768


def matmul(a: Matrix, b: Matrix, out: Matrix) -> None:
    """Write a b."""
    if b.shape[1] == 1:
        multiply_rows(view(b, 1, len(b)), a, view(out, 1, len(a)), False)
    elif len(a) == 1 or len(a) * b.size > _LARGE:
        np.dot(a, b, out)  # also of one row: BLAS reads the matrix from end to end
    else:
        strided_product(a, a.shape[1], 1, b, out)


def dot_rows(a: Matrix, b: Matrix, out: Matrix) -> None:
    """Write a bᵀ: the dot product of each row of `a` with each row of `b`."""
    rows, columns = out.shape
    work, copies = rows * b.size, a.size + b.size
    pays = _SUM * rows * columns > copies or work > _OFTEN * copies
    if work > _LARGE or (work > _SMALL and pays):
        np.dot(a, b.T, out)
    else:
        multiply_rows(a, b, out, False)


def dot_columns(a: Matrix, b: Matrix, out: Matrix) -> None:
    """Write aᵀ b: the dot product of each column of `a` with each column of `b`."""
    if len(a) == 1:  # no sums
        for i in range(a.shape[1]):
            for j in range(b.shape[1]):
                out[i, j] = a[0, i] * b[0, j]
    elif a.shape[1] * b.size > _LARGE:
        np.dot(a.T, b, out)
    else:
        strided_product(a, 1, a.shape[1], b, out)


def sum_of_dots(a: Cube, first: int, b: Cube, start: int, out: Matrix) -> None:
    """Write Σ_t a[t] b[t]ᵀ over the t of `a`, for as many rows of both as `out` has.

    They begin at `first` and at `start`.
    """
    rows, terms = out.shape
    columns = a.shape[2]
    of_a, of_b = (columns, a.shape[1] * columns, 1), (columns, b.shape[1] * columns, 1)
    times = max(1, _LONG // max(1, columns))
    for t in range(0, len(a), times):
        count = min(times, len(a) - t)
        left = strided(view(a[t:], a[t:].size)[first * columns :], (rows, count, columns), of_a)
        right = strided(view(b[t:], b[t:].size)[start * columns :], (terms, count, columns), of_b)
        multiply_rows(left, right, out, t > 0)


def strided_product(a: Matrix, down: int, along: int, b: Matrix, out: Matrix) -> None:
    """Write the product of a matrix within `a` and b, a panel of b after the other for many rows.

    In `a` the elements of a column of the matrix are `down` apart, and those of a row `along`.
    """
    rows, columns = out.shape
    terms, strides = len(b), (down, along)
    if rows < (_MANY if columns * b.itemsize % _CONFLICT else _SOME):
        multiply(strided(a, (rows, terms), strides), b, out, False)
        return
    line, panel = view(a, a.size), np.empty((_DEPTH, _PANEL), b.dtype)
    for start in range(0, max(1, terms), _DEPTH):  # without terms, the result is 0
        depth = min(_DEPTH, terms - start)
        left = strided(line[start * along :], (rows, depth), strides)
        for j in range(0, columns, _PANEL):
            count = min(_PANEL, columns - j)
            for k in range(depth):
                source, target = b[start + k, j : j + count], panel[k]
                for column in range(count):
                    target[column] = source[column]
            multiply(left, panel[:depth, :count], out[:, j : j + count], start > 0)
