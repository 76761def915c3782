"""Scalar functions that the source of a compiled model, and its routines, call.

They are plain Python, and Numba compiles them into the loops that call them. In float32 they are
polynomials without branches, so that a loop of them becomes vector instructions. Their errors are
at most 4 ulps, and 6 for `tanh` and the normal distribution, in whose tails they grow with x². In
float64 they are those of the C library.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

# By the name in the source: the functions for float32 and for float64.
NAMES = (
    "exp",
    "expm1",
    "sigmoid",
    "tanh",
    "key",
    "of_key",
    "log",
    "log1p_exp",
    "tanh_log1p_exp",
    "normal_cdf",
    "normal_pdf",
)


def view(array: Any, *sizes: int) -> Any:
    """Return the array with another shape; it is in C order."""
    return array.reshape(sizes)


def part(array: Any, start: int, *sizes: int) -> Any:
    """Return the elements of a flat array from the place `start` on, with these sizes."""
    return array[start : start + math.prod(sizes)].reshape(sizes)


def extent(inputs: int, outputs: int, taps: int, stride: int, padding: int, dilation: int) -> int:
    """Return the number of positions along an axis of windows, with padding."""
    return max(padding + inputs, (outputs - 1) * stride + (taps - 1) * dilation + 1)


def odd_lines(size: int) -> int:
    """Return a length with room for `size` elements: an odd number of cache lines.

    Lines of a power of two would take each other's place in the cache.
    """
    return ((size + 15) // 16 | 1) * 16


_single = np.float32
_double = np.float64
_int = np.int32
_long = np.int64
_LOG2_E = _single(1.44269504)
# log 2 as a sum, the first of them of few digits, so that its multiples are exact.
_LN2_HIGH, _LN2_LOW = _single(0.693359375), _single(-2.12194440e-4)


def key_single(x: Any) -> Any:
    """Return an integer that is the larger, the larger x is, and the largest of all for NaN.

    The largest of integers is found by vector instructions. That of numbers that may be NaN is not.
    """
    bits = _single(x).view(_int)
    key = _int(bits ^ _int(_int(bits >> _int(31)) & _int(0x7FFFFFFF)))
    return key if x == x else _int(0x7FFFFFFF)


def of_key_single(key: Any) -> Any:
    """Return the number whose key it is."""
    return _int(key ^ _int(_int(key >> _int(31)) & _int(0x7FFFFFFF))).view(_single)


def exp_parts(x: Any) -> Any:
    """Return exp(r) - 1 and k in float32, with x = k log 2 + r (S. Moshier, Cephes, expf)."""
    x = min(max(x, _single(-104)), _single(89))
    k = np.floor(x * _LOG2_E + _single(0.5))
    r = x - k * _LN2_HIGH - k * _LN2_LOW
    p = _single(1.9875691500e-4)
    p = p * r + _single(1.3981999507e-3)
    p = p * r + _single(8.3334519073e-3)
    p = p * r + _single(4.1665795894e-2)
    p = p * r + _single(1.6666665459e-1)
    p = p * r + _single(5.0000001201e-1)
    return p * r * r + r, k


def times_power_of_two(x: Any, k: Any) -> Any:
    """Return 2^k x in float32; k is a number without fraction."""
    # In two factors, since 2^k itself may be out of range.
    half = _int(k) >> _int(1)
    rest = _int(k) - half
    return (
        x
        * _int((half + _int(127)) << _int(23)).view(_single)
        * _int((rest + _int(127)) << _int(23)).view(_single)
    )


def exp_single(x: Any) -> Any:
    """Return exp(x) in float32."""
    rest, k = exp_parts(x)
    return times_power_of_two(rest + _single(1), k)


def expm1_single(x: Any) -> Any:
    """Return exp(x) - 1 in float32, exact to a few ulps near 0 too."""
    rest, k = exp_parts(x)
    return rest if k == 0 else times_power_of_two(rest + _single(1), k) - _single(1)


def tanh_single(x: Any) -> Any:
    """Return tanh(x) in float32: x times a quotient of polynomials of x².

    Their coefficients make the largest relative error up to |x| = 9 the smallest; x beyond counts
    as 9.
    """
    x = min(max(x, _single(-9)), _single(9))
    z = x * x
    p = _single(-1.2245037254e-11)
    p = p * z + _single(3.0640931636e-08)
    p = p * z + _single(2.8030666638e-05)
    p = p * z + _single(3.8694768452e-03)
    p = p * z + _single(1.3680831829e-01)
    p = p * z + _single(1)
    q = _single(1.2889893877e-06)
    q = q * z + _single(3.9406578636e-04)
    q = q * z + _single(2.7250043398e-02)
    q = q * z + _single(4.7014163924e-01)
    q = q * z + _single(1)
    return min(max(x * p / q, _single(-1)), _single(1))


def sigmoid_single(x: Any) -> Any:
    """Return 1 / (1 + exp(-x)) in float32."""
    return _single(1) / (_single(1) + exp_single(-x))


def artanh_series(z: Any) -> Any:
    """Return artanh(s) / s in float32 with z = s² up to 1/9: 1 + z/3 + z²/5 + ..."""
    p = _single(1 / 13)
    p = p * z + _single(1 / 11)
    p = p * z + _single(1 / 9)
    p = p * z + _single(1 / 7)
    p = p * z + _single(1 / 5)
    p = p * z + _single(1 / 3)
    return p * z + _single(1)


def log_single(x: Any) -> Any:
    """Return log(x) in float32: of x = 2^k m it is k log 2 + 2 artanh((m - 1) / (m + 1))."""
    is_tiny = x < _single(1.17549435e-38)  # subnormal, for which m has no place
    scaled = x * (_single(8388608) if is_tiny else _single(1))
    bits = _single(scaled).view(_int)
    # m is from √½ to √2, whose bits are those of 1 plus or minus a constant.
    k = (bits - _int(0x3F3504F3)) >> _int(23)
    m = _int(bits - (k << _int(23))).view(_single)
    s = (m - _single(1)) / (m + _single(1))
    power = _single(k - _int(23) if is_tiny else k)
    y = power * _LN2_HIGH + (power * _LN2_LOW + _single(2) * s * artanh_series(s * s))
    y = y if x < _single(math.inf) else x  # infinity, and NaN
    return y if x > _single(0) else (_single(-math.inf) if x == _single(0) else _single(math.nan))


def log1p_exp_single(x: Any) -> Any:
    """Return log(1 + exp(x)) in float32, which does not overflow.

    log(1 + y) is 2 artanh(y / (y + 2)).
    """
    y = exp_single(-abs(x))
    s = y / (y + _single(2))
    return max(x, _single(0)) + _single(2) * s * artanh_series(s * s)


def normal_cdf_single(x: Any) -> Any:
    """Return the probability that a standard normal variable is below x, in float32.

    The tail is exp(-x²/2) t times a polynomial in t = 1 / (1 + 0.27 |x|): see `engine.special`.
    """
    a = min(abs(x), _single(15))
    t = _single(1) / (_single(1) + _single(0.27) * a)
    p = _single(2.92058334e-2)
    p = p * t - _single(1.27722557e-1)
    p = p * t + _single(1.72436097e-1)
    p = p * t - _single(7.23445620e-2)
    p = p * t + _single(1.10054217e-1)
    p = p * t + _single(7.10775826e-2)
    p = p * t + _single(1.02063549e-1)
    p = p * t + _single(1.07507093e-1)
    p = p * t + _single(1.07722758e-1)
    tail = exp_single(_single(-0.5) * a * a) * t * p
    return _single(1) - tail if x > _single(0) else tail


def tanh_log1p_exp_single(x: Any) -> Any:
    """Return tanh(log(1 + exp(x))) in float32: n / (n + 2) with n = y (y + 2) and y = exp(x).

    From x = 20 on it is 1.
    """
    y = exp_single(min(x, _single(20)))
    n = y * (y + _single(2))
    return _single(1) if x > _single(20) else n / (n + _single(2))


def normal_pdf_single(x: Any) -> Any:
    """Return the standard normal density in float32."""
    return _single(0.3989422804014327) * exp_single(_single(-0.5) * x * x)


def key_double(x: Any) -> Any:
    """Return an integer that is the larger, the larger x is: see `key_single`."""
    bits = _double(x).view(_long)
    return bits ^ ((bits >> 63) & 0x7FFFFFFFFFFFFFFF) if x == x else _long(0x7FFFFFFFFFFFFFFF)


def of_key_double(key: Any) -> Any:
    """Return the number whose key it is."""
    return _long(key ^ ((key >> 63) & 0x7FFFFFFFFFFFFFFF)).view(_double)


def exp_double(x: Any) -> Any:
    """Return exp(x), which may be infinite."""
    return math.exp(x) if x < 709.78 else (x if x != x else math.inf)


def expm1_double(x: Any) -> Any:
    """Return exp(x) - 1, which may be infinite."""
    return math.expm1(x) if x < 709.78 else (x if x != x else math.inf)


def sigmoid_double(x: Any) -> Any:
    """Return 1 / (1 + exp(-x))."""
    return 1.0 / (1.0 + exp_double(-x))


def tanh_double(x: Any) -> Any:
    """Return tanh(x)."""
    return math.tanh(x)


def log_double(x: Any) -> Any:
    """Return log(x), -inf for 0 and NaN for what is below."""
    return math.log(x) if x > 0 else (-math.inf if x == 0 else math.nan)


def log1p_exp_double(x: Any) -> Any:
    """Return log(1 + exp(x)), which does not overflow."""
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


def tanh_log1p_exp_double(x: Any) -> Any:
    """Return tanh(log(1 + exp(x)))."""
    return math.tanh(log1p_exp_double(x))


def normal_cdf_double(x: Any) -> Any:
    """Return Φ(x), the probability that a standard normal variable is below x."""
    return 0.5 * math.erfc(-x * 0.7071067811865476)


def normal_pdf_double(x: Any) -> Any:
    """Return the standard normal density."""
    return 0.3989422804014327 * math.exp(-0.5 * x * x)


HELPERS = (
    *("extent", "odd_lines"),
    *("exp_parts", "times_power_of_two", "artanh_series"),
    *(f"{name}_{kind}" for name in NAMES for kind in ("single", "double")),
)
