"""The largest values of windows.

A branch for each value would go either way, and a processor loses time with each that it has
guessed wrong. So loops select, and are long: the rows of a plane, and of several small planes, are
one line. A window begins at each position of it, also where it reaches into the next row; the
results of such windows are not used.
"""

from __future__ import annotations

import math

import numpy as np

from nnlite.compiled.routines.correlation import spread
from nnlite.compiled.routines.functions import extent, view
from nnlite.compiled.routines.table import Cube, Matrix, Numbers, Places, Vector

# Small planes are taken together, up to this number of pixels.
_PIXELS = 2048


def max_pool(
    images: Cube, out: Cube, places: Places, rows: int, taps: int,
    top: int, left: int, row_stride: int, column_stride: int, row_step: int, column_step: int,
) -> None:  # fmt: skip
    """Write the largest value of each window of a plane, and its first place in the plane.

    NaN counts as larger than every number. The place is -1 if a window has no value. Padding,
    stride and dilation are those of rows and of columns.
    """
    planes, height, width = images.shape
    count, columns = out.shape[1:]
    tall = extent(height, count, rows, row_stride, top, row_step)
    wide = extent(width, columns, taps, column_stride, left, column_step)
    row = (wide + column_stride - 1) // column_stride  # windows that begin in it
    wide = row * column_stride
    is_padded = tall > height or wide > width
    group = max(1, min(planes, _PIXELS // (tall * wide)))
    pixels, windows = group * tall * wide, group * tall * row
    line, spots = np.empty(pixels, images.dtype), np.empty(pixels, np.int32)
    for p in range(len(line)):
        line[p], spots[p] = -math.inf, -1
    for p in range(group):
        for h in range(height):
            for w in range(width):
                spots[((p * tall + top) + h) * wide + left + w] = h * width + w
    # Of each row, the columns at the first position of a stride, those at the second, and so on.
    values = np.empty((column_stride, windows), images.dtype)
    numbers = np.empty((column_stride, windows), np.int32)
    tops, firsts = np.empty((2, windows), images.dtype), np.empty((2, windows), np.int32)
    for k in range(column_stride):
        for p in range(windows):
            numbers[k, p] = spots[p * column_stride + k]
    for first in range(0, planes, group):
        some = images[first : first + group]
        end = len(some) * tall * row
        if is_padded:
            for p in range(len(some)):
                spread(some[p], line[(p * tall + top) * wide + left :], wide, 1)
        else:
            line = view(some, len(some) * height * width)
        take_apart(line, end, values)
        copy(values[0], numbers[0], tops[0], firsts[0])
        for v in range(1, taps):
            k, start = v * column_step % column_stride, v * column_step // column_stride
            select(values[k, start:end], numbers[k, start:], tops[0], firsts[0])
        last = min(rows - 1, 1)
        if last:
            copy(tops[0], firsts[0], tops[1], firsts[1])
        for u in range(1, rows):
            start = u * row_step * row
            select(tops[0, start:end], firsts[0, start:], tops[1], firsts[1])
        for p in range(len(some)):
            for i in range(count):
                start = (p * tall + i * row_stride) * row
                top_line, first_line = tops[last, start:], firsts[last, start:]
                result, found = out[first + p, i], places[first + p, i * columns :]
                for j in range(columns):
                    result[j] = top_line[j]
                for j in range(columns):
                    found[j] = first_line[j]


def take_apart(line: Vector, end: int, values: Matrix) -> None:
    """Write ``values[k, p] = line[p * len(values) + k]`` for p up to `end`."""
    step = len(values)
    if step == 2:
        first, second = values[0, :end], values[1, :end]
        for p in range(len(first)):
            first[p] = line[2 * p]
            second[p] = line[2 * p + 1]
        return
    for k in range(step):
        row, source = values[k, :end], line[k:]
        if step == 1:
            for p in range(len(row)):
                row[p] = source[p]
        else:
            for p in range(len(row)):
                row[p] = source[step * p]


def copy(values: Vector, places: Numbers, tops: Vector, firsts: Numbers) -> None:
    """Write values and places, as many as there is room for."""
    for p in range(len(tops)):
        tops[p] = values[p]
    for p in range(len(firsts)):
        firsts[p] = places[p]


def select(values: Vector, places: Numbers, tops: Vector, firsts: Numbers) -> None:
    """Replace the largest values so far, and their places, by those that are larger."""
    for p in range(len(values)):
        top, first, value, place = tops[p], firsts[p], values[p], places[p]
        is_larger = (first < 0) | (not value <= top) & (top == top)
        tops[p] = value if is_larger else top
        firsts[p] = place if is_larger else first
