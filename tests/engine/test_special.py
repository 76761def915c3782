"""The normal distribution function compared with the C library's erfc."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from nnlite.engine.special import normal_cdf

# The points at which one approximation takes over from another: z = 0.46875 and 4.
SEAMS = [sign * z * math.sqrt(2) for sign in (-1, 1) for z in (0.46875, 4.0)]


def exact(x: Any) -> Any:
    return np.reshape([math.erfc(-v / math.sqrt(2)) / 2 for v in np.ravel(x).tolist()], x.shape)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_it_agrees_with_erfc_along_the_whole_line(dtype: Any) -> None:
    x = np.linspace(-12, 12, 20_001).astype(dtype)
    # exp(-x²/2) at -12 has 72 times the relative error of its argument, rounded a few times.
    assert_allclose(normal_cdf(x), exact(x), rtol=300 * np.finfo(dtype).eps)
    near = np.abs(x) < 2
    assert_allclose(normal_cdf(x)[near], exact(x)[near], rtol=8 * np.finfo(dtype).eps)


@given(st.lists(st.floats(-38, 38), min_size=1, max_size=20).map(np.array))
def test_it_keeps_its_relative_precision_far_into_the_left_tail(x: Any) -> None:
    assert_allclose(normal_cdf(x), exact(x), rtol=1e-12, atol=1e-310)


@given(st.lists(st.floats(allow_nan=False), min_size=1, max_size=20).map(np.array))
def test_both_tails_sum_to_one(x: Any) -> None:
    with np.errstate(over="ignore"):
        assert_allclose(normal_cdf(x) + normal_cdf(-x), 1, rtol=4e-16)


@pytest.mark.parametrize("seam", SEAMS)
def test_it_does_not_jump_where_one_approximation_follows_another(seam: float) -> None:
    steps = seam + np.arange(-50, 51) * 1e-9
    values = normal_cdf(steps)
    density = math.exp(-seam * seam / 2) / math.sqrt(2 * math.pi)
    assert_allclose(np.diff(values), density * 1e-9, atol=4e-16)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_ends_of_the_range(dtype: Any) -> None:
    x = np.array([-np.inf, -1e4, 0, 1e4, np.inf], dtype)
    with np.errstate(all="raise", under="ignore"):
        assert_array_equal(normal_cdf(x), [0, 0, 0.5, 1, 1])
    assert np.isnan(normal_cdf(np.array([np.nan, 1.0], dtype))[0])


@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3, 4)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_shape_and_dtype_stay_and_the_input_is_not_written_to(
    shape: tuple[int, ...], dtype: Any
) -> None:
    x = np.full(shape, -1, dtype)
    y = normal_cdf(x)
    assert y.shape == shape
    assert y.dtype == dtype
    assert (x == -1).all()
