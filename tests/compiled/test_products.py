"""The product of a small batch is that of NumPy, for every number of rows and columns."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

import nnlite as nn
from nnlite.compiled import products
from nnlite.compiled.products import dot_columns, dot_in_place, dot_rows, sum_of_dots


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
@pytest.mark.parametrize("in_place", [0, 150, 1000])  # at 5 rows 0, 4 and 28 at a time
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dot_columns(rows, in_place, dtype, monkeypatch):
    monkeypatch.setattr(products, "_IN_PLACE", in_place)
    rng = np.random.default_rng(rows)
    a, b = rng.normal(size=(rows, 6)).astype(dtype), rng.normal(size=(rows, 7)).astype(dtype)
    out = np.full((6, 7), np.nan, dtype)
    dot_columns(a, b, out)
    assert_allclose(out, a.T @ b, rtol=0, atol=40 * np.finfo(dtype).eps)


@pytest.mark.parametrize("in_place", [0, 50, 300, 1000])  # 0, 4, 24 and 80 rows of 12 products
@pytest.mark.parametrize("rows", [1, 3, 4, 6, 25])
def test_dot_in_place(in_place, rows, monkeypatch):
    monkeypatch.setattr(products, "_IN_PLACE", in_place)
    rng = np.random.default_rng(rows)
    a, b = rng.normal(size=(rows, 4)), rng.normal(size=(4, 3))
    out = np.full((rows, 3), np.nan)
    dot_in_place(a, b, out)
    assert_allclose(out, np.einsum("ik,kj->ij", a, b), rtol=0, atol=1e-14)


def test_dot_in_place_of_no_rows_and_of_no_columns():
    for rows, inner, columns in ((0, 4, 3), (5, 4, 0), (5, 0, 3)):
        out = np.full((rows, columns), np.nan)
        dot_in_place(np.ones((rows, inner)), np.ones((inner, columns)), out)
        np.testing.assert_array_equal(out, np.zeros((rows, columns)))


@pytest.mark.parametrize("in_place", [0, 700, 1 << 20])
@pytest.mark.parametrize("columns", [1, 47, 48, 50])
@pytest.mark.parametrize("first", [0, 2])
@pytest.mark.parametrize("start", [0, 1])
def test_sum_of_dots(in_place, columns, first, start, monkeypatch):
    monkeypatch.setattr(products, "_IN_PLACE", in_place)
    rng = np.random.default_rng(columns)
    a, b = rng.normal(size=(3, 9, columns)), rng.normal(size=(4, 4, columns))
    out = np.full((7, 3), np.nan)
    sum_of_dots(a, first, b, start, out)
    expected = np.einsum("tik,tjk->ij", a[:, first : first + 7], b[:3, start : start + 3])
    assert_allclose(out, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", [nn.RNN, nn.LSTM, nn.GRU])
@pytest.mark.parametrize("batch", [1, 3, 70])
def test_products_of_a_sequence_as_machine_code(kind, batch):
    """At 70 samples the products of most processors are computed in pieces of unequal rows."""
    pytest.importorskip("numba")
    rng = np.random.default_rng(0)
    layer = kind(40, 90, outputs="last", rng=0).astype(np.float64)
    other = kind(40, 90, outputs="last", rng=0).astype(np.float64)
    compiled = nn.compile(other)
    x, grad = rng.normal(size=(batch, 3, 40)), rng.normal(size=(batch, 90))
    assert_allclose(compiled(x), layer(x), rtol=0, atol=1e-13)
    assert_allclose(compiled.backward(grad), layer.backward(grad), rtol=0, atol=1e-12)
    for one, two in zip(layer.parameters(), other.parameters(), strict=True):
        assert_allclose(two.grad, one.grad, rtol=0, atol=1e-11)


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
