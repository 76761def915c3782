"""The product of a small batch is that of NumPy, for every number of rows and columns."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

import nnlite as nn
from nnlite.compiled.products import dot_columns, dot_rows


@pytest.mark.parametrize("rows", [*range(1, 10), 128, 129])
@pytest.mark.parametrize("columns", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dot_rows(rows, columns, dtype):
    rng = np.random.default_rng(rows * columns)
    a, b = rng.normal(size=(rows, 7)).astype(dtype), rng.normal(size=(columns, 7)).astype(dtype)
    out = np.full((rows, columns), np.nan, dtype)
    dot_rows(a, b, out)
    assert_allclose(out, a @ b.T, rtol=0, atol=40 * np.finfo(dtype).eps)


@pytest.mark.parametrize("rows", [0, 1, 2, 5])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dot_columns(rows, dtype):
    rng = np.random.default_rng(rows)
    a, b = rng.normal(size=(rows, 3)).astype(dtype), rng.normal(size=(rows, 7)).astype(dtype)
    out = np.full((3, 7), np.nan, dtype)
    dot_columns(a, b, out)
    assert_allclose(out, a.T @ b, rtol=0, atol=40 * np.finfo(dtype).eps)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_native(dtype):
    pytest.importorskip("numba")
    nn.seed(0)
    model = nn.Linear(50, 5).astype(dtype)
    compiled = nn.compile(model)
    for rows in (1, 3, 4, 5, 6, 7, 8, 128, 129):
        x = np.random.default_rng(rows).normal(size=(rows, 50)).astype(dtype)
        assert_allclose(nn.predict(compiled, x), model(x), rtol=0, atol=200 * np.finfo(dtype).eps)


def test_nan_and_infinity_stay_in_their_row():
    a, b = np.ones((6, 3), np.float32), np.ones((4, 3), np.float32)
    a[1, 1], a[4, 2], b[3, 0] = np.nan, np.inf, 0
    out = np.empty((6, 4), np.float32)
    dot_rows(a, b, out)
    np.testing.assert_array_equal(out, a @ b.T)
