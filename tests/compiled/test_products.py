"""The products of compiled models are those of NumPy."""

import functools
import types

import numpy as np
import pytest
from numpy.testing import assert_allclose

import nnlite as nn
from nnlite.compiled.native import functions_of
from nnlite.compiled.routines import products
from nnlite.compiled.routines.products import (
    add_matmul,
    copy_transposed,
    dot_columns,
    dot_rows,
    matmul,
    sum_of_dots,
)


@pytest.mark.parametrize("rows", [0, 1, 2, 40])
@pytest.mark.parametrize("columns", [1, 3, 64, 160])  # 64 and 160: some of them at a time
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_products(rows, columns, dtype):
    rng = np.random.default_rng(rows * columns)
    close = functools.partial(assert_allclose, rtol=0, atol=40 * np.finfo(dtype).eps)
    a, b = rng.normal(size=(rows, 7)).astype(dtype), rng.normal(size=(columns, 7)).astype(dtype)
    out = np.full((rows, columns), np.nan, dtype)
    dot_rows(a, b, out)
    close(out, np.einsum("ik,jk->ij", a, b))
    out[:] = np.nan
    matmul(a, np.ascontiguousarray(b.T), out)
    close(out, np.einsum("ik,jk->ij", a, b))
    add_matmul(a, np.ascontiguousarray(b.T), out)
    close(out, 2 * np.einsum("ik,jk->ij", a, b))
    b, out = rng.normal(size=(rows, columns)).astype(dtype), np.full((7, columns), np.nan, dtype)
    dot_columns(a, b, out)
    close(out, np.einsum("ki,kj->ij", a, b))


@pytest.mark.parametrize("is_native", [False, True])
@pytest.mark.parametrize(
    "shape",
    [
        (130, 300, 50),  # three depths of a panel
        (5, 40, 96),
        (33, 40, 64),
        (33, 9, 784),
        (33, 400, 512),  # of more bytes than are read again for a few rows
        (130, 20, 790),  # three panels
        (512, 1, 30),
        (512, 130, 30),  # elements 4096 bytes apart
        (130, 0, 90),
        (130, 70, 2),  # few columns, as rows
        (7, 64, 4),
    ],
)
def test_panels(shape, is_native):
    """Many rows, or rows that conflict in the cache, in one panel or in several."""
    rows, terms, columns = shape
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(rows, terms)), rng.normal(size=(terms, columns))
    out = np.full((rows, columns), np.nan)
    called = products
    if is_native:
        pytest.importorskip("numba")
        called = types.SimpleNamespace(**{
            name: functions_of(f"""
from nnlite.compiled.routines.products import {name}
import numpy as np
real = np.float64


def call(a, b, out):
    {name}(a, b, out)
""", True)["call"]
            for name in ("matmul", "add_matmul", "dot_rows", "dot_columns")
        })  # fmt: skip
    for name, left, right in (
        ("matmul", a, b),
        ("dot_rows", a, np.ascontiguousarray(b.T)),
        ("dot_columns", np.ascontiguousarray(a.T), b),
    ):
        out[:] = np.nan
        getattr(called, name)(left, right, out)
        assert_allclose(out, np.einsum("ik,kj->ij", a, b), rtol=0, atol=1e-12)
    called.add_matmul(a, b, out)
    assert_allclose(out, 2 * np.einsum("ik,kj->ij", a, b), rtol=0, atol=1e-12)


def test_matmul_without_terms():
    out = np.full((5, 3), np.nan)
    matmul(np.ones((5, 0)), np.ones((0, 3)), out)
    np.testing.assert_array_equal(out, np.zeros((5, 3)))


# A part of the columns, one, two or all of the three steps at a time.
@pytest.mark.parametrize("depth", [20, 50, 100, 512])
@pytest.mark.parametrize("panel", [(1, 0), (2, 1), (384, 16)])
@pytest.mark.parametrize("columns", [0, 1, 50])
@pytest.mark.parametrize("rows", [9, 7])
def test_sum_of_dots(depth, panel, columns, rows, monkeypatch):
    monkeypatch.setattr(products, "_DEPTH", depth)
    monkeypatch.setattr(products, "_PANEL", panel[0])
    monkeypatch.setattr(products, "_REST", panel[1])
    rng = np.random.default_rng(columns)
    a, b = rng.normal(size=(3, 9, columns)), rng.normal(size=(4, 4, columns))
    out = np.full((rows, 3), np.nan)
    sum_of_dots(a, b, out)
    expected = np.einsum("tik,tjk->ij", a[:, :rows], b[:3, :3])
    assert_allclose(out, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("is_native", [False, True])
@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (40, 1), (0, 3), (3, 0), (7, 40), (16, 16)])
def test_copy_transposed(shape, is_native):
    """Of parts of rows, to parts of rows."""
    call = copy_transposed
    if is_native:
        pytest.importorskip("numba")
        call = functions_of("""
from nnlite.compiled.routines.products import copy_transposed
import numpy as np
real = np.float32


def call(a, out, rows, columns):
    copy_transposed(a[:, 1 : 1 + columns], out[1:, 2 : 2 + rows])
""", True)["call"]  # fmt: skip
    rows, columns = shape
    a = np.arange(rows * (columns + 3.0)).astype(np.float32).reshape(rows, columns + 3)
    out = np.full((columns + 1, rows + 3), np.nan, np.float32)
    expected = out.copy()
    expected[1:, 2 : 2 + rows] = a[:, 1 : 1 + columns].T
    if is_native:
        call(a, out, rows, columns)
    else:
        call(a[:, 1 : 1 + columns], out[1:, 2 : 2 + rows])
    np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("kind", [nn.RNN, nn.LSTM, nn.GRU])
def test_products_of_a_sequence_as_machine_code(kind):
    pytest.importorskip("numba")
    rng = np.random.default_rng(0)
    layer = kind(40, 90, outputs="last", rng=0).astype(np.float64)
    other = kind(40, 90, outputs="last", rng=0).astype(np.float64)
    compiled = nn.compile(other)
    for batch in (1, 3, 70):
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
