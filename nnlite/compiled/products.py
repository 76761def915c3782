"""Products of two matrices: in tiles if they are small, and by BLAS if they are large."""

from __future__ import annotations

from typing import Any

import numpy as np

from nnlite.compiled.functions import view
from nnlite.compiled.routines import Cube, Matrix, Vector
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
# Elements of one cache line, or of two.
_ALIGNMENT = 16
# Columns of a panel; the most columns that are added to the last one in place of another; and rows.
_PANEL, _REST, _DEPTH = 384, 16, 128


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
    (rows, terms), columns = out.shape, a.shape[2]
    times, step = max(1, _DEPTH // max(1, columns)), max(1, min(columns, _DEPTH))
    panel = view(_panel(times * step, b.dtype), times, step, _PANEL + _REST)
    for t in range(0, len(a), times):
        for k in range(0, max(1, columns), step):  # without samples, the result is 0
            count, depth = min(times, len(a) - t), min(step, columns - k)
            line = view(a[t:], a[t:].size)[first * columns + k :]
            left = strided(line, (rows, count, depth), (columns, a.shape[1] * columns, 1))
            j = 0
            while j < terms:
                width = _width(terms - j)
                for i in range(count):
                    for column in range(width):
                        source = b[t + i, start + j + column, k : k + depth]
                        for place in range(depth):
                            panel[i, place, column] = source[place]
                right = panel[:count, :depth, :width]
                multiply(left, right, out[:, j : j + width], t > 0 or k > 0)
                j += width


def strided_product(a: Matrix, down: int, along: int, b: Matrix, out: Matrix) -> None:
    """Write the product of a matrix within `a` and b, one panel of b after another for many rows.

    In `a` the elements of a column of the matrix are `down` apart, and those of a row `along`.
    """
    rows, columns = out.shape
    terms, strides = len(b), (down, along)
    if rows < (_MANY if columns * b.itemsize % _CONFLICT else _SOME):
        multiply(strided(a, (rows, terms), strides), b, out, False)
        return
    line, panel = view(a, a.size), view(_panel(_DEPTH, b.dtype), _DEPTH, _PANEL + _REST)
    for start in range(0, max(1, terms), _DEPTH):  # without terms, the result is 0
        depth = min(_DEPTH, terms - start)
        left = strided(line[start * along :], (rows, depth), strides)
        j = 0
        while j < columns:
            count = _width(columns - j)
            for k in range(depth):
                source, target = b[start + k, j : j + count], panel[k]
                for column in range(count):
                    target[column] = source[column]
            multiply(left, panel[:depth, :count], out[:, j : j + count], start > 0)
            j += count


def _width(columns: int) -> int:
    """Return the width of the next panel of the columns that are left."""
    return columns if columns <= _PANEL + _REST else _PANEL


def _panel(rows: int, dtype: Any) -> Vector:
    """Return memory for a panel that begins at a cache line."""
    line = np.empty(rows * (_PANEL + _REST) + _ALIGNMENT, dtype)
    start = -line.ctypes.data % (_ALIGNMENT * line.itemsize) // line.itemsize
    return line[start : start + rows * (_PANEL + _REST)]
