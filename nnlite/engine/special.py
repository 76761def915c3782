"""The normal distribution function, which NumPy lacks."""

from __future__ import annotations

import math

import numpy as np

from .arrays import Array

# Coefficients of numerator and denominator, highest power first, from W. J. Cody, "Rational
# Chebyshev approximations for the error function", Mathematics of Computation 23, 1969.
# erf(z)/z in z², for z up to 0.46875:
_NEAR = (
    (
        1.85777706184603153e-1, 3.16112374387056560e0, 1.13864154151050156e2,
        3.77485237685302021e2, 3.20937758913846947e3,
    ),
    (1.0, 2.36012909523441209e1, 2.44024637934444173e2, 1.28261652607737228e3,
     2.84423683343917062e3),
)  # fmt: skip
# exp(z²) erfc(z) in z, for z from 0.46875 to 4:
_MIDDLE = (
    (
        2.15311535474403846e-8, 5.64188496988670089e-1, 8.88314979438837594e0,
        6.61191906371416295e1, 2.98635138197400131e2, 8.81952221241769090e2,
        1.71204761263407058e3, 2.05107837782607147e3, 1.23033935479799725e3,
    ),
    (
        1.0, 1.57449261107098347e1, 1.17693950891312499e2, 5.37181101862009858e2,
        1.62138957456669019e3, 3.29079923573345963e3, 4.36261909014324716e3,
        3.43936767414372164e3, 1.23033935480374942e3,
    ),
)  # fmt: skip
# z² (1/√π - z exp(z²) erfc(z)) in 1/z², for z above 4:
_FAR = (
    (
        1.63153871373020978e-2, 3.05326634961232344e-1, 3.60344899949804439e-1,
        1.25781726111229246e-1, 1.60837851487422766e-2, 6.58749161529837803e-4,
    ),
    (
        1.0, 2.56852019228982242e0, 1.87295284992346725e0, 5.27905102951428412e-1,
        6.05183413124413191e-2, 2.33520497626869185e-3,
    ),
)  # fmt: skip

# Φ(-a) exp(a²/2) / t in t = 1 / (1 + 0.27 a), for a from 0 to 14.5, interpolated at Chebyshev
# nodes; the relative error is 3e-8. For larger a, Φ(-a) is 0 in float32.
_SINGLE_SCALE = 0.27
_SINGLE = (
    2.92058334e-2, -1.27722557e-1, 1.72436097e-1, -7.23445620e-2, 1.10054217e-1,
    7.10775826e-2, 1.02063549e-1, 1.07507093e-1, 1.07722758e-1,
)  # fmt: skip


def normal_cdf(x: Array) -> Array:
    """Return Φ(x), the probability that a standard normal variable is below x.

    The error is a few units in the last place. In the left tail the error of exp(-x²/2) adds to it.
    """
    return _single(x) if x.dtype == np.float32 else _double(x)


def _single(x: Array) -> Array:
    tail, t = np.empty_like(x), np.empty_like(x)
    np.abs(x, out=tail)
    np.minimum(tail, 15, out=tail)
    np.multiply(tail, _SINGLE_SCALE, out=t)
    t += 1
    np.divide(1, t, out=t)
    tail *= tail
    tail *= -0.5
    np.exp(tail, out=tail)
    tail *= t
    tail *= _polynomial(_SINGLE, t)
    # 1 - tail for x > 0, without numpy.where, which is several times slower.
    np.subtract(x > 0, tail, out=tail)
    return np.abs(tail, out=tail)


def _double(x: Array) -> Array:
    z = np.abs(x) * math.sqrt(0.5)
    tail = np.empty_like(z)  # erfc(z)
    near, far = z <= 0.46875, z > 4
    middle = ~(near | far)
    v = z[near]
    tail[near] = 1 - v * _ratio(_NEAR, v * v)
    v = z[middle]
    tail[middle] = np.exp(-v * v) * _ratio(_MIDDLE, v)
    v = np.minimum(z[far], 40)  # beyond 40, exp(-v²) is 0 anyway
    w = 1 / (v * v)
    tail[far] = np.exp(-v * v) * (1 / math.sqrt(math.pi) - w * _ratio(_FAR, w)) / v
    tail *= 0.5
    return np.where(x > 0, 1 - tail, tail)


def _ratio(coefficients: tuple[tuple[float, ...], tuple[float, ...]], v: Array) -> Array:
    numerator, denominator = (_polynomial(powers, v) for powers in coefficients)
    return numerator / denominator


def _polynomial(coefficients: tuple[float, ...], v: Array) -> Array:
    value = np.full_like(v, coefficients[0])
    for coefficient in coefficients[1:]:
        value *= v
        value += coefficient
    return value
