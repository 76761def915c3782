"""Numerical slopes: central differences, and the kinks at which there is no slope to compare with.

A function is given as ``outputs(t)``: its values at the distance t from a point, along some line.
Its slope there is that of F(t) = Σ w · y(t), with fixed weights w.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import numpy as np

from ..engine.arrays import Array

Values = Sequence[Array]
# None where the function is not defined.
Outputs = Callable[[float], Values | None]

# Near ∛ε, where rounding (ε/h) and truncation (h²) are about equal; a power of two, so that
# x + h and x - h are hardly rounded.
STEP = 2.0**-17
_EPSILON = float(np.finfo(np.float64).eps)
# By how much rounding inside the function may exceed the rounding of its values.
_NOISE = 10.0
# The share of a slope by which the two sides may differ where a function counts as smooth.
_SMOOTH = 0.01


class Slopes(NamedTuple):
    """The slopes of F over a step to the right and over one to the left; NaN where undefined."""

    step: float
    right: float
    left: float

    @property
    def central(self) -> float:
        """The slope (F(h) - F(-h)) / 2h."""
        return (self.right + self.left) / 2

    @property
    def jump(self) -> float:
        """By how much the two sides differ."""
        return abs(self.right - self.left)

    @property
    def steepness(self) -> float:
        """The larger of the two magnitudes."""
        return max(abs(self.right), abs(self.left))

    def are_alike(self, floor: float) -> bool:
        """Whether the two sides differ little: there is no kink between them, and no extremum."""
        return self.jump <= _SMOOTH * max(self.steepness, floor)


class Judgement(NamedTuple):
    """Whether a slope is right ("ok"), wrong ("FAIL") or not defined ("kink")."""

    verdict: Literal["ok", "FAIL", "kink"]
    numeric: float
    error: float


def step_at(x: float) -> float:
    """Return the step for a variable of the value `x`: `STEP` · max(1, |x|) or up to twice that."""
    return math.ldexp(STEP, max(0, math.frexp(x)[1]))


def slopes(outputs: Outputs, base: Values, weights: Values, step: float) -> Slopes:
    """Return the slopes on both sides of the point where the values are `base`."""
    right = _difference(weights, outputs(step), base)
    return Slopes(step, right / step, _difference(weights, base, outputs(-step)) / step)


def relative_error(analytic: float, numeric: float, floor: float) -> float:
    """Return |a - n| / max(|a|, |n|, floor): 0 if they are equal, inf if one is not finite."""
    if analytic == numeric:
        return 0.0
    error = abs(analytic - numeric) / max(abs(analytic), abs(numeric), floor)
    return error if math.isfinite(error) else math.inf


def judge(
    outputs: Outputs,
    base: Values,
    weights: Values,
    analytic: float,
    step: float,
    tolerance: float,
    floor: float,
) -> Judgement:
    """Compare the slope `analytic` with differences over steps from 8 `step` to `step` / 32768.

    It is right if a difference of any step agrees, or Richardson's extrapolation from two of them:
    large steps suffer from curvature and from kinks nearby, small ones from rounding. A kink is
    where, down to the smallest steps that rounding leaves meaningful, the slopes on the right and
    on the left stay apart by the same amount. Nothing smooth does that: there the two approach
    each other in proportion to the step.
    """
    changing = _size_of_what_changes(weights, base, outputs(step), outputs(-step))
    floor = max(floor, _NOISE * _EPSILON * changing / step / tolerance)
    tried: list[Slopes] = []
    for exponent in range(1, -6, -1):
        found = slopes(outputs, base, weights, 8.0**exponent * step)
        estimates = [found.central]
        if tried:
            # The error of a difference is ch² + O(h⁴): two of them give c.
            estimates.append((64 * found.central - tried[-1].central) / 63)
        for estimate in estimates if found.are_alike(floor) else ():
            error = relative_error(analytic, estimate, floor)
            if error <= tolerance:
                return Judgement("ok", estimate, error)
        tried.append(found)
    if math.isfinite(analytic) and _is_kink(tried, _EPSILON * changing, tolerance, floor):
        return Judgement("kink", math.nan, math.nan)
    # At an extremum the two sides differ in sign, but not in the limit.
    centrals = [found.central for found in tried]
    errors = [relative_error(analytic, central, floor) for central in centrals]
    best = errors.index(min(errors))
    if errors[best] <= tolerance:
        return Judgement("ok", centrals[best], errors[best])
    settled = _most_settled(centrals)
    return Judgement("FAIL", centrals[settled], errors[settled])


def _difference(weights: Values, high: Values | None, low: Values | None) -> float:
    if high is None or low is None:
        return math.nan
    # The difference first: what does not change then adds no rounding.
    return float(sum(np.vdot(w, a - b) for w, a, b in zip(weights, high, low, strict=True)))


def _size_of_what_changes(weights: Values, base: Values, *others: Values | None) -> float:
    """Return Σ |w · y| over the values that differ at one of the points.

    Where none differs, a change of the largest may have been rounded away.
    """
    changing, largest = 0.0, 0.0
    for index, (weight, value) in enumerate(zip(weights, base, strict=True)):
        sizes = np.abs(weight * value)
        changes = [values[index] != value for values in others if values is not None]
        if changes:
            changing += float(np.sum(sizes, where=np.any(changes, axis=0)))
        largest = max(largest, float(np.max(sizes, initial=0)))
    return changing or largest


def _is_kink(tried: list[Slopes], rounding: float, tolerance: float, floor: float) -> bool:
    finite = [found for found in tried if math.isfinite(found.jump)]
    widest = max((found.jump for found in finite), default=0.0)
    steepest = max((found.steepness for found in finite), default=0.0)
    meaningful = [found for found in finite if rounding / found.step <= 0.01 * widest]
    jumps = [found.right - found.left for found in meaningful[-3:]]
    if len(jumps) < 3:
        return False
    jump = abs(jumps[-1])
    stays = max(jumps) - min(jumps) <= 0.1 * jump
    return stays and jump > 10 * tolerance * max(steepest, floor)


def _most_settled(estimates: list[float]) -> int:
    """Return the index of the estimate that changes least at the next smaller step."""
    changes = [abs(a - b) for a, b in itertools.pairwise(estimates)]
    return min(
        range(len(changes)),
        key=lambda index: changes[index] if math.isfinite(changes[index]) else math.inf,
    )
