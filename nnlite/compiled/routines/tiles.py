"""Products of matrices, and transposes, whose elements are read where they lie.

BLAS copies its operands into an order of its own before it multiplies them. For a small batch, the
steps of a sequence or the channels of a small image that takes a good part of the time. The
functions here read operands with any distances from one element to the next: windows of an image,
which overlap, are a matrix without being copied. `products` copies a part of large operands first.

These are the plain forms. `lowering` has what Numba makes of them: a part of the result, the tile,
stays in registers until its sums are complete.
"""

from __future__ import annotations

from typing import Any

import numpy as np


def multiply(a: Any, b: Any, out: Any, add: bool) -> None:
    """Write a b, or add it to `out`: Σ_k a[i, k] b[k, j].

    `i` and `k` are one index or several. The elements of a row of `b` and `out` are neighbours in
    memory.
    """
    product = np.tensordot(a, b, b.ndim - 1)
    out[:] = out + product if add else product


def multiply_rows(a: Any, b: Any, out: Any, add: bool) -> None:
    """Write a bᵀ, or add it to `out`: Σ_k a[i, k] b[j, k].

    `k` is one index or several; the elements of the last are neighbours in memory.
    """
    axes = tuple(range(1, a.ndim))
    product = np.tensordot(a, b, (axes, axes))
    out[:] = out + product if add else product


def transpose(a: Any, out: Any) -> None:
    """Write aᵀ. The elements of a row of `a`, and of one of `out`, are neighbours in memory."""
    out[:] = a.T


def lanes(array: Any) -> int:
    """Return the number of elements of a vector register; here, for one of 64 bytes."""
    return 64 // int(array.itemsize)


def strided(array: Any, shape: tuple[int, ...], strides: tuple[int, ...]) -> Any:
    """Return elements of an array in C order, with these distances along each axis.

    They must lie within the array, and may overlap.
    """
    sizes = tuple(array.itemsize * stride for stride in strides)
    return np.lib.stride_tricks.as_strided(array, shape, sizes)
