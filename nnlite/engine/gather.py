"""Values at chosen positions along one axis of images and sequences, and the gradient.

Borders that repeat pixels and enlarged images are both such a choice: see `border` and `nearest`.
All functions keep the memory order of their input.
"""

from __future__ import annotations

import numpy as np

from .arrays import Array
from .memory import empty, orders

BORDERS = ("reflect", "replicate", "circular")


def gather(x: Array, axis: int, positions: Array) -> Array:
    """Return ``numpy.take(x, positions, axis)``."""
    y = _empty(x, axis, len(positions))
    np.take(np.moveaxis(x, axis, 0), positions, axis=0, out=np.moveaxis(y, axis, 0), mode="clip")
    return y


def scatter(grad: Array, axis: int, positions: Array, size: int) -> Array:
    """Return the gradient of x, with `size` places along the axis, in `gather`."""
    dx = _empty(grad, axis, size)
    dx.fill(0)
    sums, flow = np.moveaxis(dx, axis, 0), np.moveaxis(grad, axis, 0)
    for part, position in zip(flow, positions, strict=True):
        sums[position] += part
    return dx


def border(mode: str, size: int, before: int, after: int) -> Array:
    """Return the positions of `size` pixels, with a border before and after them.

    The border is the mirror image without the edge itself ("reflect"), the edge ("replicate"), or
    the opposite end ("circular").
    """
    positions = np.arange(-before, size + after)
    if mode == "reflect":
        return size - 1 - np.abs(size - 1 - np.abs(positions))
    return positions.clip(0, size - 1) if mode == "replicate" else positions % size


def _empty(x: Array, axis: int, size: int) -> Array:
    """Return an uninitialised array like x, with another size of one axis."""
    order, back = orders(x.strides)
    sizes = [size if each == axis else x.shape[each] for each in order]
    return empty(tuple(sizes), x.dtype).transpose(back)
