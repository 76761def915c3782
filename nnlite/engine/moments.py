"""Mean and variance, of each feature over a batch and of each row, and normalization with them.

Features are the second axis of an array (N, C, …); or, with one number for each of them and each
sample, its channels or groups of them. The functions of features see every array as lines
(A, C, B), where A merges the axes outside the features in memory and B the axes inside: see
`_Lines`. They work block by block, so that the result of one operation is still in the cache for
the next. Large arrays are shared among threads. Sums are products with ones, which BLAS computes
fast.

If values vary little but are far from 0, the rounding error of their mean is as large as their
deviation. So the variance is never the mean of the squares minus the square of the mean. Instead, a
number close to the mean is subtracted from the values first, which is exact for floats close to
each other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from .arrays import Array
from .blas import product, share, share_sum
from .memory import empty_like, ones

# Approximate bytes in a block.
_BLOCK = 1 << 21
# Maximum number of corrections of a mean. Each leaves at most a thousandth of the error, which is
# the relative error of a sum.
_CORRECTIONS = 3
# Squared error of a mean, as a fraction of the variance, up to which it is not corrected.
_NEGLIGIBLE = 2.0**-40


class Mean(NamedTuple):
    """The mean of each feature, as the sum of two floats where one is not accurate enough.

    Attributes
    ----------
    near : ndarray of shape (C,) or (N, groups)
    rest : ndarray of the same shape, or None
        Mean minus `near`, if it is not negligible compared to the deviation of the feature.
    """

    near: Array
    rest: Array | None = None


def moments(x: Array, groups: int | None = None) -> tuple[Mean, Array]:
    """Return the mean and the biased variance of each feature.

    Parameters
    ----------
    x : ndarray of shape (N, C, …)
    groups : int, optional
        A divisor of C. The features are then as many equal parts of the channels of each sample,
        and the results have shape (N, groups).
    """
    lines = _Lines(x, groups)
    sums = _sums(x, lines)
    count = x.size // sums.size
    near = sums / count
    rest, squares = _sums_of_centred(x, near, lines) / count
    for _ in range(_CORRECTIONS):
        # Once the rest is small compared to the deviation, the variance below is accurate.
        # Squares that overflow may be those of the error of a mean that is very large.
        is_off = (rest * rest > squares / 64) | np.isinf(squares)
        if not np.any(is_off) or np.array_equal(near + rest, near):
            break
        near = near + rest
        rest, squares = _sums_of_centred(x, near, lines) / count
    variance = np.maximum(squares - rest * rest, 0)
    mean = near + rest
    rest -= mean - near
    matters = rest * rest > variance * _NEGLIGIBLE
    return Mean(mean, np.where(matters, rest, 0) if matters.any() else None), variance


def _sums(x: Array, lines: _Lines) -> Array:
    """Return the sum of each feature."""
    values = lines.of(x)

    def add(total: Array, start: int, stop: int) -> None:
        for block in _blocks(values, start, stop):
            lines.add(total[0], values[block])

    return _total(add, 1, values, lines)[0]


def _sums_of_centred(x: Array, near: Array, lines: _Lines) -> Array:
    """Return the sums of x - near and of its square, for each feature."""
    values = lines.of(x)

    def add(total: Array, start: int, stop: int) -> None:
        centre = lines.column(near)
        for block in _blocks(values, start, stop):
            centred = values[block] - centre
            lines.add(total[0], centred)
            lines.add(total[1], np.square(centred, out=centred))

    return _total(add, 2, values, lines)


def normalize(x: Array, mean: Mean, factor: Array, shift: Array | None) -> Array:
    """Return ``(x - mean) · factor + shift``, where all but x have one number per feature.

    The features are channels, or channels of each sample. `mean` may be that of groups of them.
    """
    lines = _Lines.of_channels(x, mean)
    if mean.rest is not None:
        shift = (0 if shift is None else shift) - by_channel(mean.rest, x) * factor
    values = lines.of(x)
    y = empty_like(values)

    def compute(start: int, stop: int) -> None:
        centre, slope = lines.column(mean.near), lines.column(factor)
        level = None if shift is None else lines.column(shift)
        for block in _blocks(values, start, stop):
            result = np.subtract(values[block], centre, out=y[block])
            result *= slope
            if level is not None:
                result += level

    share(compute, len(values), y.nbytes)
    return lines.back(y)


def gradient_sums(x: Array, mean: Mean, grad: Array) -> Array:
    """Return the sums of ``grad`` and of ``grad · (x - mean)``, features as in `normalize`."""
    lines = _Lines.of_channels(x, mean)
    values, flow = lines.of(x), lines.of(grad)

    def add(total: Array, start: int, stop: int) -> None:
        centre = lines.column(mean.near)
        for block in _blocks(values, start, stop):
            products = values[block] - centre
            products *= flow[block]
            lines.add(total[0], flow[block])
            lines.add(total[1], products)

    sums = _total(add, 2, values, lines)
    if mean.rest is not None:
        sums[1] -= by_channel(mean.rest, x) * sums[0]
    return sums


def normalize_grad(
    x: Array, mean: Mean, grad: Array, factor: Array, slope: Array, level: Array
) -> Array:
    """Return ``grad · factor + (x - mean) · slope - level``, features as in `normalize`.

    `slope` and `level`, like the mean, may be those of groups.
    """
    lines = _Lines.of_channels(x, mean)
    values, flow = lines.of(x), lines.of(grad)
    if mean.rest is not None:
        level = level + mean.rest * slope
    dx = empty_like(values)

    def compute(start: int, stop: int) -> None:
        centre, of_grad, of_x, shift = map(lines.column, (mean.near, factor, slope, level))
        for block in _blocks(values, start, stop):
            result = np.subtract(values[block], centre, out=dx[block])
            result *= of_x
            result -= shift
            result += flow[block] * of_grad

    share(compute, len(values), dx.nbytes)
    return lines.back(dx)


def by_channel(values: Array, x: Array) -> Array:
    """Return numbers of groups of channels of each sample, (N, groups), for each channel, (N, C).

    Numbers of each channel, (C,) or (N, C), stay as they are.
    """
    channels = x.shape[1]
    return values if values.shape[-1] == channels else _repeated(values, channels)


def _repeated(values: Array, channels: int) -> Array:
    """Return (N, groups) as (N, C), in less time than `numpy.repeat`."""
    samples, groups = values.shape
    by_group = np.empty((samples, groups, channels // groups), values.dtype)
    by_group[...] = values[:, :, None]
    return by_group.reshape(samples, channels)


def standardize(rows: Array, eps: float) -> tuple[Array, Array]:
    """Return ``(x - mean) · scale`` for each row, and ``scale = 1 / √(variance + eps)``.

    Parameters
    ----------
    rows : ndarray of shape (N, M)
    eps : float

    Returns
    -------
    ndarray of shape (N, M), ndarray of shape (N, 1)
    """
    count = rows.shape[1]
    centred = np.subtract(rows, rows[:, :1], out=empty_like(rows))
    centred -= product(centred, ones((count, 1), rows.dtype)) / count
    variance = np.einsum("ij,ij->i", centred, centred) / count
    scale = 1 / np.sqrt(variance + rows.dtype.type(eps))[:, None]
    centred *= scale
    return centred, scale


# ---- lines ----


class _Lines:
    """Arrays of the shape and memory order of `x` as lines (A, C, B).

    With features of each sample, C / groups channels each, they are (A, C, B, N) if the batch is
    innermost in memory, and otherwise (1, N·groups, B).
    """

    def __init__(self, x: Array, groups: int | None) -> None:
        self._shape = x.shape
        self._batch_last = _is_batch_last(x)
        self._groups = groups

    @classmethod
    def of_channels(cls, x: Array, mean: Mean) -> _Lines:
        """Return lines whose features are channels: of each sample, if `mean` is."""
        return cls(x, x.shape[1] if mean.near.ndim == 2 else None)

    def of(self, x: Array) -> Array:
        """Return the lines of an array (N, C, …)."""
        if self._batch_last:
            rows = np.moveaxis(x, (2, 1, 0), (0, 1, -1))
            ends = () if self._groups is None else (len(x),)
            return rows.reshape(*rows.shape[:2], -1, *ends)
        if self._groups is not None:
            return x.reshape(1, len(x) * self._groups, -1)
        return x.T[None] if x.ndim == 2 else x.reshape(*x.shape[:2], -1)

    def back(self, lines: Array) -> Array:
        """Return the array with these lines."""
        if self._batch_last:
            samples, channels, height, *widths = self._shape
            rows = lines.reshape(height, channels, *widths, samples)
            return np.moveaxis(rows, (0, 1, -1), (2, 1, 0))
        is_turned = len(self._shape) == 2 and self._groups is None
        return lines[0].T if is_turned else lines.reshape(self._shape)

    def column(self, values: Array) -> Array:
        """Return one number per feature, or group of them, to be broadcast with lines."""
        if self._groups is None:
            return values[:, None]
        if not self._batch_last:
            by_line = values if values.shape[1] == self._groups else _repeated(values, self._groups)
            return by_line.reshape(-1, 1)
        # Repeated for all positions of a line, since NumPy's loops over the samples alone are short
        # and take twice as long.
        samples, channels, _, *widths = self._shape
        repeats = channels * math.prod(widths) // values.shape[1]
        return np.repeat(values.T[:, None], repeats, axis=1).reshape(channels, -1, samples)

    def zeros(self, count: int, lines: Array) -> Array:
        """Return `count` arrays of zeros, for `add`."""
        return np.zeros((count, *lines.shape[1 : 4 if lines.ndim == 4 else 2]), lines.dtype)

    def add(self, total: Array, lines: Array) -> None:
        """Add each feature to its total."""
        if lines.ndim == 3 and lines.shape[2] > 1:
            total += np.matmul(lines, ones(lines.shape[2:], lines.dtype)).sum(axis=0)
            return
        # One addition takes less time than a small product with ones for each channel of a row.
        for line in lines:
            total += line.reshape(total.shape)

    def sums(self, totals: Array) -> Array:
        """Return what has been added as arrays of one number per feature."""
        if self._groups is None:
            return totals
        count, samples = len(totals), self._shape[0]
        if totals.ndim == 2:
            return totals.reshape(count, samples, -1)
        return totals.reshape(count, self._groups, -1, samples).sum(axis=2).swapaxes(1, 2)


def _is_batch_last(x: Array) -> bool:
    """Whether the batch is innermost in memory, as it is after a convolution."""
    return x.ndim > 2 and len(x) > 1 and x.strides[0] == x.itemsize


def _blocks(lines: Array, start: int, stop: int) -> Iterator[slice]:
    step = max(1, _BLOCK * len(lines) // lines.nbytes)
    for first in range(start, stop, step):
        yield slice(first, min(first + step, stop))


def _total(
    add: Callable[[Array, int, int], None], count: int, values: Array, lines: _Lines
) -> Array:
    """Return `count` sums of each feature, of the parts that ``add(total, start, stop)`` adds."""

    def of_part(start: int, stop: int) -> Array:
        total = lines.zeros(count, values)
        add(total, start, stop)
        return lines.sums(total)

    return share_sum(of_part, len(values), values.nbytes)
