"""Initial values: gains, fans, bounds and moments of the distributions."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

import nnlite as nn
from nnlite import init

# 80,000 elements: the mean of n draws deviates by σ/√n, the sample variance of a uniform
# distribution by σ²·√(0.8/n) and that of a normal one by σ²·√(2/n). Five of them are allowed.
SHAPE = (200, 400)
N = 80_000


def parameter(*shape: int) -> nn.Parameter:
    return nn.Parameter(np.zeros(shape or SHAPE, np.float32))


@pytest.mark.parametrize(
    ("nonlinearity", "gain"),
    [
        ("linear", 1),
        ("sigmoid", 1),
        ("tanh", 5 / 3),
        ("relu", math.sqrt(2)),
        ("leaky_relu", math.sqrt(2 / (1 + 0.01**2))),
        ("selu", 3 / 4),
    ],
)
def test_gains_are_those_in_common_use(nonlinearity: str, gain: float) -> None:
    assert init.calculate_gain(nonlinearity) == pytest.approx(gain, rel=1e-15)


def test_the_gain_of_a_leaky_relu_depends_on_its_slope() -> None:
    # Slope 0 is a ReLU, slope 1 is linear.
    assert init.calculate_gain("leaky_relu", 0) == init.calculate_gain("relu")
    assert init.calculate_gain("leaky_relu", 1) == init.calculate_gain("linear")


@pytest.mark.parametrize("slope", [0.0, 0.1, 1.0])
def test_the_gain_keeps_the_second_moment_of_a_leaky_relu(slope: float) -> None:
    # With x ~ N(0, g²): E[f(x)²] = g² (1 + slope²) / 2, which is to be 1.
    gain = init.calculate_gain("leaky_relu", slope)
    assert gain**2 * (1 + slope**2) / 2 == pytest.approx(1)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((3, 5), (5, 3)), ((8, 4, 3, 2), (24, 48)), ((6, 2, 7), (14, 42)), ((1, 1), (1, 1))],
)
def test_fans_count_the_kernel(shape: tuple[int, ...], expected: tuple[int, int]) -> None:
    assert init.fans(parameter(*shape)) == expected


UNIFORM: list[tuple[Callable[..., Any], dict[str, Any], float]] = [
    (init.xavier_uniform_, {}, math.sqrt(6 / 600)),
    (init.xavier_uniform_, {"gain": 2.0}, 2 * math.sqrt(6 / 600)),
    (init.kaiming_uniform_, {}, math.sqrt(6 / 400)),
    (init.kaiming_uniform_, {"a": 1.0}, math.sqrt(3 / 400)),
    (init.kaiming_uniform_, {"mode": "fan_out"}, math.sqrt(6 / 200)),
    (init.kaiming_uniform_, {"nonlinearity": "tanh"}, 5 / 3 * math.sqrt(3 / 400)),
    (init.kaiming_uniform_, {"a": math.sqrt(5)}, 1 / math.sqrt(400)),
    (init.default_, {"fan_in": 400}, 1 / math.sqrt(400)),
    (init.uniform_, {"low": -0.5, "high": 0.5}, 0.5),
]


@pytest.mark.parametrize(("function", "options", "bound"), UNIFORM)
def test_uniform_values_fill_their_interval(
    function: Callable[..., Any], options: dict[str, Any], bound: float
) -> None:
    target = parameter()
    assert function(target, **options, rng=0) is target
    values = target.data.astype(np.float64)
    assert np.abs(values).max() <= bound * (1 + 1e-6)
    assert np.abs(values).max() > 0.999 * bound
    variance = bound**2 / 3
    assert abs(values.mean()) < 5 * math.sqrt(variance / N)
    assert values.var() == pytest.approx(variance, rel=5 * math.sqrt(0.8 / N))


NORMAL: list[tuple[Callable[..., Any], dict[str, Any], float]] = [
    (init.xavier_normal_, {}, math.sqrt(2 / 600)),
    (init.xavier_normal_, {"gain": 2.0}, 2 * math.sqrt(2 / 600)),
    (init.kaiming_normal_, {}, math.sqrt(2 / 400)),
    (init.kaiming_normal_, {"mode": "fan_out"}, math.sqrt(2 / 200)),
    (init.kaiming_normal_, {"nonlinearity": "linear"}, 1 / math.sqrt(400)),
    (init.normal_, {"std": 0.3}, 0.3),
]


@pytest.mark.parametrize(("function", "options", "deviation"), NORMAL)
def test_normal_values_have_their_deviation(
    function: Callable[..., Any], options: dict[str, Any], deviation: float
) -> None:
    target = parameter()
    assert function(target, **options, rng=0) is target
    values = target.data.astype(np.float64)
    assert abs(values.mean()) < 5 * deviation / math.sqrt(N)
    assert values.var() == pytest.approx(deviation**2, rel=5 * math.sqrt(2 / N))
    # A normal distribution, not another one of that deviation: 4.55 % lie beyond two of them.
    outside = (np.abs(values) > 2 * deviation).mean()
    assert outside == pytest.approx(0.0455, abs=5 * math.sqrt(0.0455 / N))


def test_moments_can_be_moved() -> None:
    assert init.normal_(parameter(), mean=3.0, std=0.1, rng=0).data.mean() == pytest.approx(
        3, abs=0.01
    )
    values = init.uniform_(parameter(), 2.0, 3.0, rng=0).data
    assert values.min() >= 2
    assert values.max() <= 3


@given(rows=st.integers(1, 8), columns=st.integers(1, 8), gain=st.sampled_from([0.5, 1.0, 2.0]))
def test_orthogonal_rows_or_columns_are_orthonormal_times_the_gain(
    rows: int, columns: int, gain: float
) -> None:
    target = nn.Parameter(np.zeros((rows, columns)))
    w = init.orthogonal_(target, gain, rng=0).data / gain
    product = w @ w.T if rows <= columns else w.T @ w
    assert_allclose(product, np.eye(min(rows, columns)), atol=1e-12)


def test_orthogonal_takes_the_axes_after_the_first_as_one() -> None:
    w = init.orthogonal_(parameter(4, 2, 3, 3), rng=0).data.reshape(4, 18)
    assert_allclose(w @ w.T, np.eye(4), atol=1e-6)


def test_orthogonal_matrices_are_drawn_without_a_preference() -> None:
    # Every entry of a uniformly random orthogonal matrix has mean 0 and variance 1/n.
    rng = np.random.default_rng(0)
    draws = np.array([init.orthogonal_(parameter(3, 3), rng=rng).data for _ in range(2000)])
    assert np.abs(draws.mean(axis=0)).max() < 5 * math.sqrt(1 / 3 / 2000)
    assert_allclose((draws**2).mean(axis=0), 1 / 3, rtol=0.15)


def test_constants() -> None:
    assert (init.ones_(parameter(2, 3)).data == 1).all()
    assert (init.constant_(parameter(2, 3), -2.5).data == -2.5).all()
    ones = init.ones_(parameter(2, 3))
    assert init.zeros_(ones) is ones
    assert (ones.data == 0).all()


RANDOM = [
    init.uniform_,
    init.normal_,
    init.xavier_uniform_,
    init.xavier_normal_,
    init.kaiming_uniform_,
    init.kaiming_normal_,
    init.orthogonal_,
]


@pytest.mark.parametrize("function", RANDOM)
def test_the_same_seed_gives_the_same_values(function: Callable[..., Any]) -> None:
    expected = function(parameter(3, 4), rng=5).data
    assert_array_equal(function(parameter(3, 4), rng=5).data, expected)
    assert_array_equal(function(parameter(3, 4), rng=np.random.default_rng(5)).data, expected)
    assert (function(parameter(3, 4), rng=6).data != expected).any()
    nn.seed(5)
    assert_array_equal(function(parameter(3, 4)).data, expected)


@pytest.mark.parametrize("function", RANDOM)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_values_are_written_in_place_and_keep_the_dtype(
    function: Callable[..., Any], dtype: Any
) -> None:
    target = nn.Parameter(np.zeros((3, 4), dtype))
    data = target.data
    function(target, rng=0)
    assert target.data is data
    assert data.dtype == dtype
    assert (data != 0).any()


@pytest.mark.parametrize("function", RANDOM[2:])
def test_a_weight_needs_two_axes(function: Callable[..., Any]) -> None:
    target = parameter(3)
    with pytest.raises(ValueError, match=r"two axes or more, got shape \(3,\)"):
        function(target)
    assert (target.data == 0).all()


@pytest.mark.parametrize("function", [init.kaiming_uniform_, init.kaiming_normal_])
def test_unknown_modes_and_nonlinearities_are_errors_that_list_the_known_ones(
    function: Callable[..., Any],
) -> None:
    target = parameter(3, 4)
    with pytest.raises(ValueError, match="mode must be one of 'fan_in', 'fan_out'; got 'fan'"):
        function(target, mode="fan")
    with pytest.raises(ValueError, match=r"nonlinearity must be one of 'linear'.*; got 'swish'"):
        function(target, nonlinearity="swish")
    assert (target.data == 0).all()


@pytest.mark.parametrize("function", RANDOM)
def test_rng_must_be_an_int_or_a_generator(function: Callable[..., Any]) -> None:
    with pytest.raises(TypeError, match="rng must be an int or a"):
        function(parameter(3, 4), rng="0")
