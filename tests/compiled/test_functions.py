"""Scalar functions of compiled models, in float32, are those of NumPy up to a few ulps."""

import numpy as np
import pytest

from nnlite.compiled import functions


@pytest.mark.parametrize(
    ("name", "reference", "ulps"),
    [("exp", np.exp, 3), ("tanh", np.tanh, 6), ("sigmoid", lambda x: 1 / (1 + np.exp(-x)), 3)],
)
def test_errors(name, reference, ulps):
    function = getattr(functions, f"{name}_single")
    rng = np.random.default_rng(0)
    x = np.r_[rng.uniform(-12, 12, 3000), 10 ** rng.uniform(-20, 1, 1000), -80, 80, 0]
    x = x.astype(np.float32)
    y = np.array([function(value) for value in x])
    assert y.dtype == np.float32
    expected = reference(x.astype(np.float64))
    assert (np.abs(y - expected) <= ulps * np.spacing(np.abs(expected).astype(np.float32))).all()


@pytest.mark.parametrize(("name", "ends"), [("tanh", (-1, 1)), ("sigmoid", (0, 1))])
def test_ends(name, ends):
    function = getattr(functions, f"{name}_single")
    with np.errstate(all="ignore"):
        values = [function(np.float32(x)) for x in (-np.inf, np.inf, np.nan)]
    np.testing.assert_allclose(values, [*ends, np.nan], rtol=4e-7, atol=1e-37)
