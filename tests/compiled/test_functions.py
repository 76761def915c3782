"""Scalar functions of compiled models, in float32, are those of NumPy up to a few ulps."""

import math

import numpy as np
import pytest

from nnlite.compiled.routines import functions


@pytest.mark.parametrize(
    ("name", "reference", "ulps"),
    [
        ("exp", np.exp, 3),
        ("expm1", np.expm1, 4),
        ("tanh", np.tanh, 6),
        ("sigmoid", lambda x: 1 / (1 + np.exp(-x)), 3),
        ("log1p_exp", lambda x: np.logaddexp(0, x), 4),
        ("tanh_log1p_exp", lambda x: np.tanh(np.logaddexp(0, x)), 4),
        # The error of x²/2 in the exponent adds to it.
        ("normal_cdf", lambda x: [math.erfc(-value / math.sqrt(2)) / 2 for value in x], 80),
    ],
)
def test_errors(name, reference, ulps):
    function = getattr(functions, f"{name}_single")
    rng = np.random.default_rng(0)
    x = np.r_[rng.uniform(-12, 12, 3000), 10 ** rng.uniform(-20, 1, 1000), -80, 80, 0]
    x = x.astype(np.float32)
    y = np.array([function(value) for value in x])
    assert y.dtype == np.float32
    expected = np.array(reference(x.astype(np.float64)))
    assert (np.abs(y - expected) <= ulps * np.spacing(np.abs(expected).astype(np.float32))).all()


def test_normal_cdf_is_exact_to_a_few_ulps_where_it_is_not_small():
    x = np.random.default_rng(0).uniform(-2, 6, 3000).astype(np.float32)
    expected = np.array([math.erfc(-float(value) / math.sqrt(2)) / 2 for value in x])
    y = np.array([functions.normal_cdf_single(value) for value in x])
    assert (np.abs(y - expected) <= 6 * np.spacing(expected.astype(np.float32))).all()


def test_log():
    rng = np.random.default_rng(0)
    x = np.r_[10 ** rng.uniform(-44, 38, 3000), 1 + rng.uniform(-0.01, 0.01, 1000)]
    x = x.astype(np.float32)
    y = np.array([functions.log_single(value) for value in x])
    assert y.dtype == np.float32
    expected = np.log(x.astype(np.float64))
    assert (np.abs(y - expected) <= 3 * np.spacing(np.abs(expected).astype(np.float32))).all()


@pytest.mark.parametrize(("suffix", "dtype"), [("single", np.float32), ("double", np.float64)])
def test_log_outside_of_its_domain(suffix, dtype):
    log = getattr(functions, f"log_{suffix}")
    with np.errstate(all="ignore"):
        values = [log(dtype(x)) for x in (0, -0.0, -1, -np.inf, np.inf, np.nan)]
    np.testing.assert_array_equal(values, [-np.inf, -np.inf, np.nan, np.nan, np.inf, np.nan])


@pytest.mark.parametrize(("suffix", "dtype"), [("single", np.float32), ("double", np.float64)])
def test_keys_are_in_the_order_of_the_numbers(suffix, dtype):
    key, of_key = (getattr(functions, f"{name}_{suffix}") for name in ("key", "of_key"))
    tiny = np.finfo(dtype).smallest_subnormal
    numbers = np.array([-np.inf, -3, -1, -tiny, -0.0, 0.0, tiny, 1, 1.5, np.inf], dtype)
    keys = [key(number) for number in numbers]
    assert keys == sorted(set(keys))
    np.testing.assert_array_equal([of_key(each) for each in keys], numbers)
    for nan in (dtype(np.nan), -dtype(np.nan)):
        assert key(nan) > keys[-1]
        assert np.isnan(of_key(key(nan)))


@pytest.mark.parametrize(
    ("name", "ends"),
    [("tanh", (-1, 1)), ("sigmoid", (0, 1)), ("normal_cdf", (0, 1)), ("log1p_exp", (0, np.inf)),
     ("tanh_log1p_exp", (0, 1))],
)  # fmt: skip
def test_ends(name, ends):
    function = getattr(functions, f"{name}_single")
    with np.errstate(all="ignore"):
        values = [function(np.float32(x)) for x in (-np.inf, np.inf, np.nan)]
    np.testing.assert_allclose(values, [*ends, np.nan], rtol=4e-7, atol=1e-37)
