"""Products of two matrices, in tiles: of small ones as they are, of large ones in copied panels."""

from __future__ import annotations

import numpy as np

from nnlite.compiled.routines.functions import view
from nnlite.compiled.routines.table import Cube, Matrix, Rows, Vector
from nnlite.compiled.routines.tiles import lanes, multiply, multiply_rows, strided, transpose

# Rows that are a multiple of `_CONFLICT` bytes apart evict each other from the first-level cache.
# Elements that are a multiple of `_PAGE` bytes apart map to a single set of it.
_CONFLICT, _PAGE = 256, 4096
# Rows of the result from which on a copy of a panel of b pays, and from which on it does if the
# rows of b conflict.
_MANY, _SOME = 128, 32
# Elements of one cache line, or of two.
_ALIGNMENT = 16
# Columns of a panel; the most columns that are added to the last one in place of another; and rows.
_PANEL, _REST, _DEPTH = 384, 16, 128
# Rows of `a` that are copied at a time if the elements of its columns conflict.
_BLOCK = 64
# Columns of the result that are too few for the vectors of a tile's row.
_NARROW = 24
# Vectors of a row from which on dot products of rows are faster than tiles with vectors that are at
# most half full.
_LONG = 4
# Bytes of b that are too many to be read again for every few rows of the result.
_FAR = 800_000


def matmul(a: Matrix, b: Matrix, out: Matrix) -> None:
    """Write a b."""
    _matmul(a, b, out, False)


def add_matmul(a: Matrix, b: Matrix, out: Matrix) -> None:
    """Add a b to `out`."""
    _matmul(a, b, out, True)


def _matmul(a: Matrix, b: Matrix, out: Matrix, add: bool) -> None:
    (rows, terms), columns = a.shape, b.shape[1]
    if columns == 1:
        multiply_rows(view(b, 1, terms), a, view(out, 1, rows), add)
    elif 2 * columns <= lanes(out) and terms >= _LONG * lanes(out):
        lines, sums = np.empty((columns, terms), out.dtype), np.empty((columns, rows), out.dtype)
        copy_transposed(b, lines)
        if add:
            copy_transposed(out, sums)
        multiply_rows(lines, a, sums, add)
        copy_transposed(sums, out)
    else:
        product(view(a, a.size), terms, 1, view(b, b.size), columns, 1, terms, out, add)


def dot_rows(a: Matrix, b: Matrix, out: Matrix) -> None:
    """Write a bᵀ: the dot product of each row of `a` with each row of `b`."""
    (rows, columns), terms = out.shape, a.shape[1]
    # In a tile of dot products each ends with the sum of the elements of a vector, which for short
    # rows takes longer than a transposed copy of b.
    is_short = rows > 1 and 2 * terms <= lanes(out) * rows
    if columns > _NARROW and (is_short or (rows >= _SOME and b.size * b.itemsize > _FAR)):
        product(view(a, a.size), terms, 1, view(b, b.size), 1, terms, terms, out, False)
    else:
        multiply_rows(a, b, out, False)


def dot_columns(a: Matrix, b: Matrix, out: Matrix) -> None:
    """Write aᵀ b: the dot product of each column of `a` with each column of `b`."""
    (terms, rows), columns = a.shape, b.shape[1]
    if terms == 1:  # no sums
        for i in range(rows):
            for j in range(columns):
                out[i, j] = a[0, i] * b[0, j]
    else:
        product(view(a, a.size), 1, rows, view(b, b.size), columns, 1, terms, out, False)


def sum_of_dots(a: Cube, b: Cube, out: Matrix) -> None:
    """Write Σ_t a[t] b[t]ᵀ over the t of `a`, for as many rows of both as `out` has."""
    (rows, terms), columns = out.shape, a.shape[2]
    times, step = max(1, _DEPTH // max(1, columns)), max(1, min(columns, _DEPTH))
    panel = view(_aligned(times * step * (_PANEL + _REST), out), times, step, _PANEL + _REST)
    for t in range(0, len(a), times):
        for k in range(0, max(1, columns), step):  # without samples, the result is 0
            count, depth = min(times, len(a) - t), min(step, columns - k)
            line = view(a[t:], a[t:].size)[k:]
            left = strided(line, (rows, count, depth), (columns, a.shape[1] * columns, 1))
            j = 0
            while j < terms:
                width = _width(terms - j)
                right = panel[:count, :depth, :width]
                for i in range(count):
                    source = b[t + i, j : j + width, k : k + depth]
                    transpose(source, right[i])
                multiply(left, right, out[:, j : j + width], t > 0 or k > 0)
                j += width


def copy_transposed(a: Rows, out: Rows) -> None:
    """Write aᵀ."""
    if min(a.shape) > 1:
        transpose(a, out)
        return
    for i in range(a.shape[0]):  # of a single row or column, squares would be mostly empty
        for j in range(a.shape[1]):
            out[j, i] = a[i, j]


def product(
    a: Vector,
    row_a: int,
    column_a: int,
    b: Vector,
    row_b: int,
    column_b: int,
    terms: int,
    out: Matrix,
    add: bool,
) -> None:
    """Write the product of two matrices, or add it to `out`.

    For many rows, one panel of b after another is copied.

    The rows of `a` are `row_a` elements apart and its columns `column_a`, one of which is 1; so it
    is with b.
    """
    (rows, columns), size, width = out.shape, out.itemsize, _PANEL + _REST
    left = strided(a, (rows, terms), (row_a, column_a))
    right = strided(b, (terms, columns), (row_b, column_b))
    if column_b == 1 and rows < (_SOME if row_b * size % _CONFLICT == 0 else _MANY):
        multiply(left, right, out, add)
        return
    memory = _aligned(_DEPTH * (width + _BLOCK), out)
    panel = view(memory[: _DEPTH * width], _DEPTH, width)
    block = view(memory[_DEPTH * width :], _BLOCK, _DEPTH)
    is_copied = column_a * size % _PAGE == 0
    height = _BLOCK if is_copied else max(1, rows)
    for k in range(0, max(1, terms), _DEPTH):  # without terms, the result is 0
        depth = min(_DEPTH, terms - k)
        j = 0
        while j < columns:
            count = _width(columns - j)
            if column_b == 1:
                for row in range(depth):
                    source, target = b[(k + row) * row_b + j :], panel[row]
                    for column in range(count):
                        target[column] = source[column]
            else:
                transpose(right[k : k + depth, j : j + count].T, panel[:depth, :count])
            for i in range(0, rows, height):
                few = left[i : i + height, k : k + depth]
                if is_copied:
                    transpose(few.T, block[: len(few), :depth])
                    few = block[: len(few), :depth]
                multiply(
                    few, panel[:depth, :count], out[i : i + height, j : j + count], add or k > 0
                )
            j += count


def _width(columns: int) -> int:
    """Return the width of the next panel of the columns that are left."""
    return columns if columns <= _PANEL + _REST else _PANEL


def _aligned(size: int, like: Matrix) -> Vector:
    """Return an array of the dtype of a matrix that begins at a cache line."""
    line = np.empty(size + _ALIGNMENT, like.dtype)
    start = -line.ctypes.data % (_ALIGNMENT * line.itemsize) // line.itemsize
    return line[start : start + size]
