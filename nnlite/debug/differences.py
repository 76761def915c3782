"""Numerical slopes: central differences, their rounding errors, and kinks.

A function is given as ``outputs(t)``: its values at the distance t from a point, along some line.
Its slope is that of F(t) = Σ w · y(t) at 0, with fixed weights w.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
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
# The rounding inside a function, in units of the rounding of its values.
_NOISE = 10.0
# The error of a difference, in units of the range of the errors over smaller steps. The range of
# three to six errors is about two standard deviations.
_SCATTER = 4.0
# Scatter that costs more than half of the digits is not rounding.
_MOST_SCATTER = 2.0**-26
# The fraction of a slope by which the two sides may differ where a function counts as smooth.
_SMOOTH = 0.01


class Slopes(NamedTuple):
    """The slopes of F over one step to the right and one to the left; NaN where F is undefined."""

    step: float
    right: float
    left: float

    @property
    def central(self) -> float:
        """The slope (F(h) - F(-h)) / 2h."""
        return (self.right + self.left) / 2

    @property
    def jump(self) -> float:
        """The difference between the two sides."""
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


def finest_step_at(x: float) -> float:
    """Return the smallest step at which x + h is exact; for 0, about 1e-34."""
    return 8 * math.ulp(x or 2.0**-64)


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
    *,
    finest: float = math.inf,
    magnitude: float = 0.0,
    convex: bool = False,
) -> Judgement:
    """Compare the slope `analytic` with differences over many steps.

    Seven steps from 8 `step` to `step` / 32768 are tried, and smaller ones down to `finest` where
    the function is too steep or curved for those: near a pole, or at the edge of its domain. The
    slope is right if a difference agrees, or Richardson's extrapolation from two of them: large
    steps suffer from curvature and from kinks nearby, small ones from rounding.

    At a kink, the slopes on the right and on the left stay apart by the same amount, down to the
    smallest steps that rounding leaves meaningful. Nothing smooth does that: there the two
    approach each other in proportion to the step. If `convex`, every output is taken for a convex
    or concave function near the kink, and `analytic` has to lie between its one-sided slopes.

    Rounding is measured by the scatter of the differences over smaller steps. Where no value
    changes at all, a change may have been lost in intermediate values of the size `magnitude`.
    """
    changing, largest = _sizes(weights, base, outputs(step), outputs(-step))
    rounding = _NOISE * _EPSILON * changing
    floor = max(floor, (rounding + _NOISE * _EPSILON * largest) / step / tolerance)
    tried: list[Slopes] = []

    def agreement(steps: Iterable[float]) -> Judgement | None:
        for size in steps:
            found = slopes(outputs, base, weights, size)
            tried.append(found)
            if found.are_alike(floor) and is_resolved(found):
                judgement = _compare(analytic, tried, floor, tolerance)
                if judgement.verdict == "ok":
                    return judgement
        return None

    def is_resolved(found: Slopes) -> bool:
        return rounding / found.step <= max(tolerance * floor, _SMOOTH * found.steepness)

    coarse = [8.0**exponent * step for exponent in range(1, -6, -1)]
    if agreed := agreement(coarse):
        return agreed
    kink = _kink(tried, rounding / _NOISE, tolerance, floor)
    if kink is not None and math.isfinite(analytic):
        nearest = _nearest_subgradient(outputs, base, weights, analytic, kink.step)
        if convex and nearest != analytic:
            return Judgement("FAIL", nearest, relative_error(analytic, nearest, floor))
        return Judgement("kink", math.nan, math.nan)
    # At an extremum the two sides differ in sign, but not in the limit.
    for found in filter(is_resolved, tried):
        error = relative_error(analytic, found.central, floor)
        if error <= tolerance:
            return Judgement("ok", found.central, error)
    # Nothing is left to see where no value changes any more.
    fine = (coarse[-1] / 8.0**exponent for exponent in itertools.count(1))
    if agreed := agreement(
        itertools.takewhile(lambda size: size >= finest and tried[-1].steepness != 0, fine)
    ):
        return agreed
    settled, uncertainty = _settled(tried, rounding, max(magnitude, largest))
    return _compare(analytic, tried[: settled + 1], max(floor, uncertainty / tolerance), tolerance)


def _compare(analytic: float, tried: Sequence[Slopes], floor: float, tolerance: float) -> Judgement:
    """Compare with the last of the differences and with its extrapolation."""
    estimates = [tried[-1].central]
    if len(tried) > 1:
        # The error of a difference is ch² + O(h⁴): two of them give c.
        estimates.append((64 * tried[-1].central - tried[-2].central) / 63)
    judgements = [
        Judgement("ok" if error <= tolerance else "FAIL", estimate, error)
        for estimate in estimates
        for error in (relative_error(analytic, estimate, floor),)
    ]
    return next((each for each in judgements if each.verdict == "ok"), judgements[0])


def _difference(weights: Values, high: Values | None, low: Values | None) -> float:
    if high is None or low is None:
        return math.nan
    # The difference first: unchanged values then add no rounding.
    return float(sum(np.vdot(w, a - b) for w, a, b in zip(weights, high, low, strict=True)))


def _sizes(weights: Values, base: Values, *others: Values | None) -> tuple[float, float]:
    """Return Σ |w · y| over the values that differ at one of the points, and the largest |w · y|.

    The largest counts even if it stays: its change may have been rounded away.
    """
    changing, largest = 0.0, 0.0
    for index, (weight, value) in enumerate(zip(weights, base, strict=True)):
        sizes = np.abs(weight * value)
        changes = [values[index] != value for values in others if values is not None]
        if changes:
            changing += float(np.sum(sizes, where=np.any(changes, axis=0)))
        largest = max(largest, float(np.max(sizes, initial=0)))
    return changing, largest


def _kink(tried: list[Slopes], rounding: float, tolerance: float, floor: float) -> Slopes | None:
    """Return the slopes over the smallest meaningful step if there is a kink."""
    finite = [found for found in tried if math.isfinite(found.jump)]
    widest = max((found.jump for found in finite), default=0.0)
    steepest = max((found.steepness for found in finite), default=0.0)
    meaningful = [found for found in finite if rounding / found.step <= 0.01 * widest]
    jumps = [found.right - found.left for found in meaningful[-3:]]
    if len(jumps) < 3:
        return None
    jump = abs(jumps[-1])
    stays = max(jumps) - min(jumps) <= 0.1 * jump
    return meaningful[-1] if stays and jump > 10 * tolerance * max(steepest, floor) else None


def _nearest_subgradient(
    outputs: Outputs, base: Values, weights: Values, analytic: float, step: float
) -> float:
    """Return the number nearest to `analytic` between the one-sided slopes of all outputs.

    Each output may use either side, or anything between, whatever the others use.
    """
    lower, upper = 0.0, 0.0
    for weight, y, high, low in zip(
        weights, base, outputs(step) or base, outputs(-step) or base, strict=True
    ):
        right, left = weight * (high - y) / step, weight * (y - low) / step
        lower += float(np.sum(np.minimum(right, left)))
        upper += float(np.sum(np.maximum(right, left)))
    slack = 2 * _SMOOTH * (upper - lower)
    return min(max(analytic, lower - slack), upper + slack)


def _settled(tried: list[Slopes], rounding: float, magnitude: float) -> tuple[int, float]:
    """Return the index of the slopes that change least at the next step, and their uncertainty.

    Parameters
    ----------
    tried : list of Slopes
        From large steps to small ones.
    rounding : float
        The error of F that is expected from its values.
    magnitude : float
        The size of intermediate values, whose rounding shows where F stays the same.
    """
    if any(found.steepness == 0 for found in tried):
        changes = [abs(slope) * step for step, *sides in tried for slope in sides if slope]
        rounding += min([_NOISE * _EPSILON * magnitude, *filter(math.isfinite, changes)])

    def unrest(index: int) -> float:
        change = abs(tried[index].central - tried[index + 1].central)
        return max(change, rounding / tried[index].step) if math.isfinite(change) else math.inf

    settled = min(range(len(tried) - 1), key=unrest)
    found = tried[settled]
    # In F itself. Their range, since a step of F at the point would add the same to all.
    errors = [
        other.step * (other.central - found.central)
        for other in tried[settled + 1 :]
        if math.isfinite(other.central)
    ]
    scatter = max(errors, default=0.0) - min(errors, default=0.0)
    if scatter <= _MOST_SCATTER * magnitude:
        rounding = max(rounding, _SCATTER * scatter)
    return settled, rounding / found.step
