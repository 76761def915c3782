"""Slopes: correct, wrong or at a kink, with rounding and curvature of known size."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest

from nnlite.debug.differences import (
    STEP,
    Judgement,
    finest_step_at,
    judge,
    relative_error,
    slopes,
    step_at,
)

from ..registry import Array


def judged(
    function: Callable[[float], Any],
    analytic: float,
    tolerance: float = 1e-6,
    floor: float = 0.0,
    **options: Any,
) -> Judgement:
    def outputs(t: float) -> list[Array] | None:
        value = function(t)
        return None if value is None else [np.asarray(value, np.float64)]

    base = outputs(0.0)
    assert base is not None
    weights = [np.ones(base[0].shape)]
    return judge(outputs, base, weights, analytic, STEP, tolerance, floor, **options)


def rounded_to(unit: float, function: Callable[[float], float]) -> Callable[[float], float]:
    """Return the function with its values rounded to multiples of `unit`."""
    return lambda t: unit * round(function(t) / unit)


def test_the_step_is_about_the_cube_root_of_the_rounding_unit() -> None:
    assert 0.7 < STEP / np.finfo(np.float64).eps ** (1 / 3) < 1.3


@pytest.mark.parametrize("x", [0.0, 1e-5, 0.3, 1.0, -1.0, 7.5, 1e6, -1e-300])
def test_the_step_grows_with_the_variable_and_is_hardly_rounded(x: float) -> None:
    step = step_at(x)
    assert STEP * max(1, abs(x)) <= step <= 2 * STEP * max(1, abs(x))
    assert (x + step) - x == pytest.approx(step, rel=1e-10)
    assert x - (x - step) == pytest.approx(step, rel=1e-10)


@pytest.mark.parametrize(
    ("analytic", "numeric", "floor", "error"),
    [
        (2, 1, 0, 0.5),
        (1, 2, 0, 0.5),
        (1, -1, 0, 2),
        (-3, -3, 0, 0),
        (0, 0, 0, 0),
        (1, 2, 10, 0.1),
        (math.nan, 1, 0, math.inf),
        (1, math.nan, 0, math.inf),
        (math.inf, 1, 0, math.inf),
        (math.nan, math.nan, 0, math.inf),
    ],
)
def test_the_relative_error_is_that_of_the_larger_of_the_two(
    analytic: float, numeric: float, floor: float, error: float
) -> None:
    assert relative_error(analytic, numeric, floor) == error


def test_the_slopes_of_both_sides_are_weighted_sums_over_all_outputs() -> None:
    def outputs(t: float) -> list[Array]:
        return [np.array([abs(t), 2 * t]), np.array(3 * t)]

    weights = [np.array([1.0, 10.0]), np.array(100.0)]
    found = slopes(outputs, outputs(0.0), weights, 0.25)
    assert (found.right, found.left) == (321, 319)
    assert (found.central, found.jump) == (320, 2)


@pytest.mark.parametrize(
    ("function", "slope"),
    [
        (math.sin, 1.0),
        (lambda t: math.exp(1000 * t), 1000.0),
        (lambda t: math.log(t + 1e-5) if t > -1e-5 else None, 1e5),
        (lambda t: t**2, 0.0),
        (lambda t: math.cos(t), 0.0),
        (lambda t: max(t - 1e-6, 0), 0.0),
        (lambda t: max(t - 1e-8, 0), 0.0),
        (lambda t: abs(t + 1e-8), 1.0),
    ],
)
def test_right_slopes_are_ok_and_others_fail(
    function: Callable[[float], float], slope: float
) -> None:
    assert judged(function, slope).verdict == "ok"
    for wrong in (slope * (1 + 1e-4) + 1e-4, -slope - 1, slope + 1):
        found = judged(function, wrong)
        assert found.verdict == "FAIL"
        assert found.numeric == pytest.approx(slope, rel=1e-4, abs=1e-4)


def test_two_differences_are_extrapolated_where_none_is_good_enough() -> None:
    # The error of a difference over h is 86000 h², and up to 4e-12 / h from rounding.
    function = rounded_to(4e-12, lambda t: t + 86_000 * t**3)
    differences = [
        (function(h) - function(-h)) / (2 * h) for h in (STEP * 8.0**k for k in range(-5, 2))
    ]
    assert min(abs(difference - 1) for difference in differences) > 1.5e-6
    assert judged(function, 1.0, tolerance=1e-6).verdict == "ok"
    assert judged(function, 1.0 + 1e-5, tolerance=1e-6).verdict == "FAIL"


def test_what_is_only_rounding_counts_as_zero() -> None:
    ulp = 2.0**-52
    many = np.ones(10_000)
    # Each of many values of 1 is off by its last bit on one side: that looks like a slope.
    assert judged(lambda t: many * (1 + ulp * (t > 0)), 0.0).verdict == "ok"
    assert judged(lambda t: many * (1 + 1e4 * ulp * (t > 0)), 0.0).verdict == "FAIL"


def test_values_that_stay_as_they_are_lend_nothing_to_those_that_change() -> None:
    pedestal = np.full(10_000, 1e3)

    def function(t: float) -> Any:
        return np.append(pedestal, t)

    assert judged(function, 1.0).verdict == "ok"
    assert judged(function, 1.0 + 1e-5).verdict == "FAIL"


def test_a_slope_too_small_to_change_a_value_is_zero_and_a_larger_one_is_not() -> None:
    assert judged(lambda t: 1.0, 1e-14).verdict == "ok"
    assert judged(lambda t: 1.0, 1e-3).verdict == "FAIL"
    assert judged(lambda t: 0.0, 1e-12).verdict == "FAIL"
    assert judged(lambda t: 0.0, 0.0).verdict == "ok"


@pytest.mark.parametrize("pedestal", [0.0, 1.0, 1e4])
@pytest.mark.parametrize(
    "kink",
    [
        abs,
        lambda t: max(t, 0),
        lambda t: min(t, 3 * t),
        lambda t: math.sin(t) + 0.01 * abs(t),
        lambda t: abs(t) + 1000 * t**2,
    ],
)
def test_a_kink_is_told_whatever_the_values_are_added_to(
    kink: Callable[[float], float], pedestal: float
) -> None:
    assert judged(lambda t: pedestal + kink(t), 7.0).verdict == "kink"


@pytest.mark.parametrize(
    "smooth",
    [
        lambda t: math.sqrt(t**2 + 1e-12),
        lambda t: 1e5 * t**2,
        lambda t: math.sin(1e4 * t),
        lambda t: float(t > 0),
        lambda t: math.sqrt(abs(t)),
        lambda t: round(t * 1e6) / 1e6,
        rounded_to(1e-9, math.sin),
        lambda t: np.float64(np.float32(1 + t)),
    ],
)
def test_nothing_else_is_told_to_be_a_kink(smooth: Callable[[float], float]) -> None:
    assert judged(smooth, 7.0).verdict == "FAIL"


def test_what_is_not_finite_is_no_slope_even_at_a_kink() -> None:
    assert judged(abs, math.nan).verdict == "FAIL"
    assert judged(abs, math.inf).verdict == "FAIL"


@pytest.mark.parametrize(
    "edge",
    [
        lambda t: None if t < 0 else t,
        lambda t: None if t else 1.0,
        lambda t: math.nan if t < 0 else t,
        lambda t: math.inf if t > 0 else t,
    ],
)
def test_where_a_side_is_missing_there_is_no_slope(edge: Callable[[float], Any]) -> None:
    found = judged(edge, 1.0)
    assert found.verdict == "FAIL"
    assert found.error == math.inf


def test_an_edge_within_the_largest_step_does_no_harm() -> None:
    assert judged(lambda t: None if abs(t) > STEP / 10 else math.sin(t), 1.0).verdict == "ok"


@pytest.mark.parametrize("x", [0.0, 1e-8, 0.3, 1.0, 1e6])
def test_the_finest_step_moves_a_variable_exactly(x: float) -> None:
    step = 2.0 ** math.ceil(math.log2(finest_step_at(x)))
    assert (x + step) - x == step
    assert step < max(x, 2.0**-64) * 2.0**-48


@pytest.mark.parametrize("x", [1e-4, 1e-8, 1e-12, 1e-30])
@pytest.mark.parametrize(
    ("function", "slope"),
    [(math.sqrt, lambda x: 0.5 / math.sqrt(x)), (math.log, lambda x: 1 / x)],
    ids=["sqrt", "log"],
)
def test_smaller_steps_are_taken_near_the_edge_of_a_domain(
    function: Callable[[float], float], slope: Callable[[float], float], x: float
) -> None:
    def moved(t: float) -> Any:
        return function(x + t) if x + t > 0 else None

    finest = finest_step_at(x)
    assert judged(moved, slope(x), finest=finest).verdict == "ok"
    assert judged(moved, slope(x) * (1 + 1e-5), finest=finest).verdict == "FAIL"


def test_rounding_of_intermediate_values_is_measured() -> None:
    # The slope is 1e-9; values are multiples of 2e-16.
    function = rounded_to(2.0**-52, lambda t: 1e-9 * math.sin(t))
    finest = finest_step_at(1.0)
    assert judged(function, 1e-9, finest=finest, magnitude=1.0).verdict == "ok"
    assert judged(function, 1.1e-9, finest=finest, magnitude=1.0).verdict == "FAIL"
    # Too small to be seen at all, beside intermediate values of 1.
    assert judged(lambda t: 0.0, 1e-12, magnitude=1.0).verdict == "ok"
    assert judged(lambda t: 0.0, 1e-9, magnitude=1.0).verdict == "FAIL"


def test_noise_of_half_of_the_digits_excuses_nothing() -> None:
    for noise, verdict in ((1e-12, "ok"), (1e-5, "FAIL")):
        noisy = partial(lambda t, a: math.sin(t) + a * math.sin(1e12 * t), a=noise)
        assert judged(noisy, 1 + 1e-8, finest=1e-15, magnitude=1.0).verdict == verdict


@pytest.mark.parametrize("analytic", [-1.0, 0.0, 2.0, 3.0])
def test_between_the_slopes_of_both_sides_is_a_subgradient(analytic: float) -> None:
    def kink(t: float) -> Any:
        return np.array([max(t, 0.0), max(-t, 0.0), 3 * max(t, 0.0)])

    # The outputs may choose from [0, 1], [-1, 0] and [0, 3], each for itself.
    assert judged(kink, analytic, convex=True).verdict == "kink"


@pytest.mark.parametrize(("analytic", "nearest"), [(-1.5, -1.1), (4.5, 4.1)])
def test_outside_of_the_slopes_of_both_sides_is_an_error(analytic: float, nearest: float) -> None:
    def kink(t: float) -> Any:
        return np.array([max(t, 0.0), max(-t, 0.0), 3 * max(t, 0.0)])

    assert judged(kink, analytic).verdict == "kink"
    found = judged(kink, analytic, convex=True)
    assert found.verdict == "FAIL"
    assert found.numeric == pytest.approx(nearest, rel=1e-6)
