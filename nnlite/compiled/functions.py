"""Scalar functions that the source of a compiled model calls.

They are plain Python, and Numba compiles them into the loops that call them. In float32, `exp`,
`sigmoid` and `tanh` are polynomials without branches, so that a loop of them becomes vector
instructions; their errors are below 3 ulps. In float64 they are those of the C library.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

# By the name in the source: the functions for float32 and for float64.
NAMES = {
    "exp": ("exp_single", "exp_double"),
    "sigmoid": ("sigmoid_single", "sigmoid_double"),
    "tanh": ("tanh_single", "tanh_double"),
    "log1p_exp": ("log1p_exp_single", "log1p_exp_double"),
    "normal_cdf": ("normal_cdf_single", "normal_cdf_double"),
    "normal_pdf": ("normal_pdf_single", "normal_pdf_double"),
}


def view(array: Any, *sizes: int) -> Any:
    """Return the array with another shape; it is in C order."""
    return array.reshape(sizes)


def part(array: Any, start: int, *sizes: int) -> Any:
    """Return the elements of a flat array from the place `start` on, with these sizes."""
    return array[start : start + math.prod(sizes)].reshape(sizes)


_single = np.float32
_int = np.int32
_LOG2_E = _single(1.44269504)
# log 2 as a sum, the first of them of few digits, so that its multiples are exact.
_LN2_HIGH, _LN2_LOW = _single(0.693359375), _single(-2.12194440e-4)


def exp_single(x: Any) -> Any:
    """Return exp(x) in float32: 2^k times a polynomial (S. Moshier, Cephes library, expf)."""
    x = min(max(x, _single(-104)), _single(89))
    k = np.floor(x * _LOG2_E + _single(0.5))
    r = x - k * _LN2_HIGH - k * _LN2_LOW
    p = _single(1.9875691500e-4)
    p = p * r + _single(1.3981999507e-3)
    p = p * r + _single(8.3334519073e-3)
    p = p * r + _single(4.1665795894e-2)
    p = p * r + _single(1.6666665459e-1)
    p = p * r + _single(5.0000001201e-1)
    p = p * r * r + r + _single(1)
    # In two factors, since 2^k itself may be out of range.
    half = _int(k) >> _int(1)
    rest = _int(k) - half
    return (
        p
        * _int((half + _int(127)) << _int(23)).view(_single)
        * _int((rest + _int(127)) << _int(23)).view(_single)
    )


def tanh_single(x: Any) -> Any:
    """Return tanh(x) in float32 (Cephes library, tanhf)."""
    z = x * x
    p = _single(-5.70498872745e-3)
    p = p * z + _single(2.06390887954e-2)
    p = p * z + _single(-5.37397155531e-2)
    p = p * z + _single(1.33314422036e-1)
    p = p * z + _single(-3.33332819422e-1)
    near = p * z * x + x
    far = _single(1) - _single(2) / (exp_single(_single(2) * abs(x)) + _single(1))
    return near if abs(x) < _single(0.625) else (-far if x < _single(0) else far)


def sigmoid_single(x: Any) -> Any:
    """Return 1 / (1 + exp(-x)) in float32."""
    return _single(1) / (_single(1) + exp_single(-x))


def log1p_exp_single(x: Any) -> Any:
    """Return log(1 + exp(x)) in float32, which does not overflow."""
    return max(x, _single(0)) + _single(math.log1p(exp_single(-abs(x))))


def normal_cdf_single(x: Any) -> Any:
    """Return the probability that a standard normal variable is below x, in float32."""
    return _single(0.5) * _single(math.erfc(-x * _single(0.7071067811865476)))


def normal_pdf_single(x: Any) -> Any:
    """Return the standard normal density in float32."""
    return _single(0.3989422804014327) * exp_single(_single(-0.5) * x * x)


def exp_double(x: Any) -> Any:
    """Return exp(x), which may be infinite."""
    return math.exp(x) if x < 709.78 else (x if x != x else math.inf)


def sigmoid_double(x: Any) -> Any:
    """Return 1 / (1 + exp(-x))."""
    return 1.0 / (1.0 + exp_double(-x))


def tanh_double(x: Any) -> Any:
    """Return tanh(x)."""
    return math.tanh(x)


def log1p_exp_double(x: Any) -> Any:
    """Return log(1 + exp(x)), which does not overflow."""
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


def normal_cdf_double(x: Any) -> Any:
    """Return Φ(x), the probability that a standard normal variable is below x."""
    return 0.5 * math.erfc(-x * 0.7071067811865476)


def normal_pdf_double(x: Any) -> Any:
    """Return the standard normal density."""
    return 0.3989422804014327 * math.exp(-0.5 * x * x)


HELPERS = tuple(name for names in NAMES.values() for name in names)
