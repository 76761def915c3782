"""The numbers where a mask is True, and 0 elsewhere, in a fraction of the time of `numpy.where`."""

from __future__ import annotations

import numpy as np

from .arrays import FLOATS, Array

# Integers of the same size as each float.
_BITS = {dtype: np.dtype(f"i{dtype.itemsize}") for dtype in FLOATS}


def pick(values: Array, where: Array, out: Array | None = None) -> Array:
    """Return the floats `values` where `where` is True, and 0 elsewhere; `where` is used up."""
    # Not a product, which would make NaN of infinity: True is 1, and -1 has all bits set.
    mask = where.view(np.int8)
    np.negative(mask, out=mask)
    bits = _BITS[values.dtype]
    picked = np.bitwise_and(values.view(bits), mask, out=None if out is None else out.view(bits))
    return picked.view(values.dtype)
