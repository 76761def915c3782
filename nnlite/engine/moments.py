"""Mean and variance, of each feature over a batch and of each row, and normalization with them.

Features are the second axis of an array (N, C, …). The functions of features see every array as
lines (A, C, B), where A merges the axes outside the features in memory and B the axes inside. They
work block by block, so that the result of one operation is still in the cache for the next. Large
arrays are shared among threads. Sums are products with ones, which BLAS computes fast.

If values vary little but are far from 0, the rounding error of their mean is as large as their
deviation. So the variance is never the mean of the squares minus the square of the mean. Instead, a
number close to the mean is subtracted from the values first, which is exact for floats close to
each other.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from .arrays import Array
from .blas import share, share_sum
from .memory import empty_like

# Approximate bytes in a block.
_BLOCK = 1 << 19
# Maximum number of corrections of a mean. Each leaves at most a thousandth of the error, which is
# the relative error of a sum.
_CORRECTIONS = 3
# Squared error of a mean, as a fraction of the variance, up to which it is not corrected.
_NEGLIGIBLE = 2.0**-30


class Mean(NamedTuple):
    """The mean of each feature, as the sum of two floats where one is not accurate enough.

    Attributes
    ----------
    near : ndarray of shape (C,)
    rest : ndarray of shape (C,), or None
        Mean minus `near`, if it is not negligible compared to the deviation of the feature.
    """

    near: Array
    rest: Array | None = None


def moments(x: Array) -> tuple[Mean, Array]:
    """Return the mean and the biased variance of each feature."""
    lines = _as_lines(x, _is_batch_last(x))
    count = x.size // x.shape[1]
    near = _total(lambda block: _sum(lines[block]), lines) / count
    rest, squares = _sums_of_centred(lines, near) / count
    for _ in range(_CORRECTIONS):
        # Once the rest is small compared to the deviation, the variance below is accurate.
        # Squares that overflow may be those of the error of a mean that is very large.
        is_off = (rest * rest > squares / 64) | np.isinf(squares)
        if not np.any(is_off) or np.array_equal(near + rest, near):
            break
        near = near + rest
        rest, squares = _sums_of_centred(lines, near) / count
    variance = np.maximum(squares - rest * rest, 0)
    mean = near + rest
    rest -= mean - near
    matters = rest * rest > variance * _NEGLIGIBLE
    return Mean(mean, np.where(matters, rest, 0) if matters.any() else None), variance


def _sums_of_centred(lines: Array, near: Array) -> Array:
    """Return the sums of x - near and of its square, for each feature."""

    def of_block(block: slice) -> Array:
        centred = lines[block] - _column(near)
        return np.array([_sum(centred), _sum(np.square(centred, out=centred))])

    return _total(of_block, lines)


def normalize(x: Array, mean: Mean, factor: Array, shift: Array | None) -> Array:
    """Return ``(x - mean) · factor + shift``, where all but x have one number per feature."""
    batch_last = _is_batch_last(x)
    lines = _as_lines(x, batch_last)
    if mean.rest is not None:
        shift = (0 if shift is None else shift) - mean.rest * factor
    y = empty_like(lines)

    def compute(start: int, stop: int) -> None:
        for block in _blocks(lines, start, stop):
            result = np.subtract(lines[block], _column(mean.near), out=y[block])
            result *= _column(factor)
            if shift is not None:
                result += _column(shift)

    share(compute, len(lines), y.nbytes)
    return _from_lines(y, x.shape, batch_last)


def gradient_sums(x: Array, mean: Mean, grad: Array) -> tuple[Array, Array]:
    """Return the sums of ``grad`` and of ``grad · (x - mean)``, for each feature."""
    batch_last = _is_batch_last(x)
    lines, flow = _as_lines(x, batch_last), _as_lines(grad, batch_last)

    def of_block(block: slice) -> Array:
        products = lines[block] - _column(mean.near)
        products *= flow[block]
        return np.array([_sum(flow[block]), _sum(products)])

    of_grad, of_products = _total(of_block, lines)
    if mean.rest is not None:
        of_products -= mean.rest * of_grad
    return of_grad, of_products


def normalize_grad(
    x: Array, mean: Mean, grad: Array, slope: Array, level: Array, factor: Array
) -> Array:
    """Return ``(grad + (x - mean) · slope - level) · factor``, with one number per feature."""
    batch_last = _is_batch_last(x)
    lines, flow = _as_lines(x, batch_last), _as_lines(grad, batch_last)
    if mean.rest is not None:
        level = level + mean.rest * slope
    dx = empty_like(lines)

    def compute(start: int, stop: int) -> None:
        for block in _blocks(lines, start, stop):
            result = np.subtract(lines[block], _column(mean.near), out=dx[block])
            result *= _column(slope)
            result += flow[block]
            result -= _column(level)
            result *= _column(factor)

    share(compute, len(lines), dx.nbytes)
    return _from_lines(dx, x.shape, batch_last)


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
    centred -= (centred @ np.ones(count, rows.dtype) / count)[:, None]
    variance = np.einsum("ij,ij->i", centred, centred) / count
    scale = 1 / np.sqrt(variance + rows.dtype.type(eps))[:, None]
    centred *= scale
    return centred, scale


def centre_groups(x: Array, groups: int) -> tuple[Array, Array, Array]:
    """Return x minus the mean of its group, with the means and the biased variances.

    A group is one of `groups` equal parts of the channels of a sample, with all positions.

    Parameters
    ----------
    x : ndarray of shape (N, C, …)
    groups : int
        A divisor of C.

    Returns
    -------
    ndarray of shape (N, C, …), ndarray of shape (N, groups), ndarray of shape (N, groups)
    """
    count = x[0].size // groups
    centred = empty_like(x)
    parts = as_groups(centred, groups)
    first: tuple[Any, ...] = (slice(None), slice(None), *[0] * (x.ndim - 1))
    near = as_groups(x, groups)[first]
    np.subtract(as_groups(x, groups), per_group(near, x), out=parts)
    rest = group_sums(centred, groups) / count
    parts -= per_group(rest, x)
    variance = group_sums(np.square(centred, out=empty_like(x)), groups) / count
    return centred, near + rest, variance


def group_sums(x: Array, groups: int) -> Array:
    """Return the sum of each group of channels of each sample, (N, groups)."""
    if not _is_batch_last(x):
        rows = x.reshape(len(x), groups, -1)
        sums: Array = rows @ np.ones(rows.shape[2], x.dtype)
        return sums
    lines = np.moveaxis(x, (2, 1, 0), (0, 1, -1)).reshape(x.shape[2], groups, -1, len(x))
    columns: Array = (np.ones((1, lines.shape[2]), x.dtype) @ lines).sum(axis=0)[:, 0]
    return columns.T


def as_groups(x: Array, groups: int) -> Array:
    """Return x (N, C, …) as (N, groups, C / groups, …), a view."""
    return x.reshape(len(x), groups, -1, *x.shape[2:])


def per_group(values: Array, x: Array) -> Array:
    """Return values (N, groups) with axes to be broadcast with `as_groups` of x."""
    return values.reshape(*values.shape, *[1] * (x.ndim - 1))


# ---- lines ----


def _is_batch_last(x: Array) -> bool:
    """Whether the batch is innermost in memory, as it is after a convolution."""
    return x.ndim > 2 and len(x) > 1 and x.strides[0] == x.itemsize


def _as_lines(x: Array, batch_last: bool) -> Array:
    """Return x (N, C, …) as (A, C, B)."""
    if x.ndim == 2:
        return x.T[None]
    if batch_last:
        x = np.moveaxis(x, (2, 1, 0), (0, 1, -1))
    return x.reshape(*x.shape[:2], -1)


def _from_lines(lines: Array, shape: tuple[int, ...], batch_last: bool) -> Array:
    """Return the array of this shape with these lines."""
    if len(shape) == 2:
        return lines[0].T
    if batch_last:
        rows = lines.reshape(shape[2], shape[1], *shape[3:], shape[0])
        return np.moveaxis(rows, (0, 1, -1), (2, 1, 0))
    return lines.reshape(shape)


def _blocks(lines: Array, start: int, stop: int) -> Iterator[slice]:
    step = max(1, _BLOCK * len(lines) // lines.nbytes)
    for first in range(start, stop, step):
        yield slice(first, min(first + step, stop))


def _column(values: Array) -> Array:
    return values[:, None]


def _total(term: Callable[[slice], Array], lines: Array) -> Array:
    """Return the sum of ``term(block)`` over the blocks of the lines."""

    def of_part(start: int, stop: int) -> Array:
        return functools.reduce(np.add, [term(block) for block in _blocks(lines, start, stop)])

    return share_sum(of_part, len(lines), lines.nbytes)


def _sum(lines: Array) -> Array:
    """Return the sum of each feature."""
    total: Array = np.matmul(lines, np.ones(lines.shape[2], lines.dtype)).sum(axis=0)
    return total
