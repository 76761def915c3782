"""The largest values of windows.

A branch for each value would go either way, and a processor loses time with each that it has
guessed wrong. So loops select, and are long: the rows of a plane, and of several small planes, are
one line. A window begins at each position of it, also where it reaches into the next row; the
results of such windows are not used.
"""

from __future__ import annotations

import math

import numpy as np

from nnlite.compiled.functions import view
from nnlite.compiled.routines import Cube, Places, Vector

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
    tall = max(top + height, (count - 1) * row_stride + (rows - 1) * row_step + 1)
    wide = max(left + width, (columns - 1) * column_stride + (taps - 1) * column_step + 1)
    row = (wide + column_stride - 1) // column_stride  # windows that begin in it
    wide = row * column_stride
    is_padded = tall > height or wide > width
    group = max(1, min(planes, _PIXELS // (tall * wide)))
    windows = group * tall * row
    line, spots = (
        np.empty(group * tall * wide, images.dtype),
        np.empty(group * tall * wide, np.int32),
    )
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
        _copy(spots[k:], column_stride, numbers[k])
    for first in range(0, planes, group):
        some = images[first : first + group]
        end = len(some) * tall * row
        if is_padded:
            for p in range(len(some)):
                for h in range(height):
                    start = (p * tall + top + h) * wide + left
                    _copy(some[p, h], 1, line[start : start + width])
        else:
            line = view(some, len(some) * height * width)
        for k in range(column_stride):
            _copy(line[k:], column_stride, values[k, :end])
        _copy(values[0], 1, tops[0])
        _copy(numbers[0], 1, firsts[0])
        for v in range(1, taps):
            k, start = v * column_step % column_stride, v * column_step // column_stride
            _select(values[k, start:end], numbers[k, start:], tops[0], firsts[0])
        last = min(rows - 1, 1)
        if last:
            _copy(tops[0], 1, tops[last])
            _copy(firsts[0], 1, firsts[last])
        for u in range(1, rows):
            start = u * row_step * row
            _select(tops[0, start:end], firsts[0, start:], tops[last], firsts[last])
        for p in range(len(some)):
            for i in range(count):
                start = (p * tall + i * row_stride) * row
                _copy(tops[last, start:], 1, out[first + p, i])
                _copy(firsts[last, start:], 1, places[first + p, i * columns : (i + 1) * columns])


def _copy(values: Vector, step: int, out: Vector) -> None:
    """Write every value that is `step` further on."""
    if step == 1:
        for p in range(len(out)):
            out[p] = values[p]
    elif step == 2:
        for p in range(len(out)):
            out[p] = values[2 * p]
    else:
        for p in range(len(out)):
            out[p] = values[step * p]


def _select(values: Vector, places: Vector, tops: Vector, firsts: Vector) -> None:
    """Replace the largest values so far, and their places, by those that are larger."""
    for p in range(len(values)):
        top, first, value, place = tops[p], firsts[p], values[p], places[p]
        is_larger = (first < 0) | (not value <= top) & (top == top)
        tops[p] = value if is_larger else top
        firsts[p] = place if is_larger else first
