"""Products in tiles are those of NumPy: as plain Python, and as instructions of any width."""

import functools
import types

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from nnlite.compiled.routines import tiles


@functools.cache
def functions_for(width):
    """Return the functions: plain, or as Numba compiles them for registers of this many bits."""
    if width is None:
        return tiles
    numba = pytest.importorskip("numba")
    from nnlite.compiled import lowering, native

    native._numba()

    def wide(function):
        jitted = numba.njit(function, error_model="numpy")

        def call(*arguments):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(lowering, "_bits_of_registers", lambda: width)
                return jitted(*arguments)

        return call

    multiply, multiply_rows, strided = tiles.multiply, tiles.multiply_rows, tiles.strided
    transpose, lanes = tiles.transpose, tiles.lanes
    return types.SimpleNamespace(
        multiply=wide(lambda a, b, out, add: multiply(a, b, out, add)),
        multiply_rows=wide(lambda a, b, out, add: multiply_rows(a, b, out, add)),
        transpose=wide(lambda a, out: transpose(a, out)),
        lanes=wide(lambda array: lanes(array)),
        strided=wide(lambda array, shape, strides: strided(array, shape, strides)),
    )


sizes = st.sampled_from([0, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 23, 24, 25, 31, 33, 49, 97])
few = st.integers(0, 9)


@pytest.mark.parametrize("width", [None, 128, 256, 512])
@given(few, st.integers(0, 3), few, sizes, st.booleans(), st.sampled_from("fd"), st.integers(0, 9))
@settings(deadline=None)
def test_multiply(width, rows, outer, inner, columns, add, dtype, seed):
    rng = np.random.default_rng(seed)
    a = rng.normal(size=(inner, rows, outer)).astype(dtype).transpose(1, 2, 0)
    b = rng.normal(size=(outer, inner, columns + 2)).astype(dtype)[:, :, 1:-1]
    out = rng.normal(size=(rows + 1, columns + 3)).astype(dtype)
    expected = out.copy()
    expected[1:, 2:-1] = add * out[1:, 2:-1] + np.einsum("iuv,uvj->ij", a, b)
    functions_for(width).multiply(a, b, out[1:, 2:-1], add)
    assert_allclose(out, expected, rtol=0, atol=300 * np.finfo(dtype).eps)


@pytest.mark.parametrize("width", [None, 128, 256, 512])
@given(few, st.integers(0, 3), few, sizes, st.booleans(), st.sampled_from("fd"), st.integers(0, 9))
@settings(deadline=None)
def test_multiply_rows_of_several_axes(width, rows, outer, terms, columns, add, dtype, seed):
    rng = np.random.default_rng(seed)
    a = rng.normal(size=(terms, rows, 2, outer)).astype(dtype).transpose(3, 1, 2, 0)
    b = rng.normal(size=(terms, columns)).astype(dtype)
    out = rng.normal(size=(rows, outer, 3, columns)).astype(dtype)[:, :, 1:].transpose(1, 0, 2, 3)
    expected = add * out + np.einsum("uivk,kj->uivj", a, b)
    functions_for(width).multiply(a, b, out, add)
    assert_allclose(out, expected, rtol=0, atol=300 * np.finfo(dtype).eps)


@pytest.mark.parametrize("width", [None, 128, 256, 512])
@given(few, st.integers(0, 3), sizes, few, st.booleans(), st.sampled_from("fd"), st.integers(0, 9))
@settings(deadline=None)
def test_multiply_rows(width, rows, outer, inner, columns, add, dtype, seed):
    rng = np.random.default_rng(seed)
    a = rng.normal(size=(outer, rows, inner + 1)).astype(dtype).transpose(1, 0, 2)[:, :, 1:]
    b = rng.normal(size=(columns, outer, inner)).astype(dtype)
    out = rng.normal(size=(columns, rows + 1)).astype(dtype).T
    expected = out.copy()
    expected[1:] = add * out[1:] + np.einsum("iuv,juv->ij", a, b)
    functions_for(width).multiply_rows(a, b, out[1:], add)
    assert_allclose(out, expected, rtol=0, atol=1000 * np.finfo(dtype).eps)


@pytest.mark.parametrize("width", [None, 128, 256, 512])
@given(sizes, sizes, st.sampled_from("fd"))
@settings(deadline=None)
def test_transpose(width, rows, columns, dtype):
    a = np.arange(rows * (columns + 3.0)).astype(dtype).reshape(rows, columns + 3)[:, 1:-2]
    out = np.full((columns + 1, rows + 3), np.nan, dtype)
    expected = out.copy()
    expected[1:, 2:-1] = a.T
    functions_for(width).transpose(a, out[1:, 2:-1])
    assert_array_equal(out, expected)


@pytest.mark.parametrize("width", [128, 256, 512])
def test_lanes(width):
    for dtype in (np.float32, np.float64):
        array = np.empty(3, dtype)
        assert functions_for(width).lanes(array) == width // 8 // array.itemsize
        assert tiles.lanes(array) == 64 // array.itemsize


@pytest.mark.parametrize("width", [None, 256])
def test_windows_that_overlap(width):
    """The windows of an image, as a matrix that is not copied."""
    rng = np.random.default_rng(0)
    image, kernels = rng.normal(size=(2, 40)), rng.normal(size=(5, 2, 3, 3))
    windows = functions_for(width).strided(image, (2, 3, 3, 22), (40, 8, 1, 1))
    np.testing.assert_array_equal(windows[1, 2, 1], image[1, 17:39])
    out = np.zeros((5, 22))
    functions_for(width).multiply(kernels, windows, out, False)
    assert_allclose(out, np.einsum("ocuv,cuvp->op", kernels, windows), rtol=0, atol=1e-13)


@pytest.mark.parametrize("width", [None, 256])
def test_nan_stays_in_its_row_and_column(width):
    a, b = np.ones((6, 3)), np.ones((3, 9))
    a[1, 1], b[2, 8] = np.nan, np.inf
    out, rows = np.empty((6, 9)), np.empty((6, 9))
    functions_for(width).multiply(a, b, out, False)
    functions_for(width).multiply_rows(a, np.ascontiguousarray(b.T), rows, False)
    expected = np.full((6, 9), 3.0)
    expected[:, 8] = np.inf
    expected[1] = np.nan
    np.testing.assert_array_equal(out, expected)
    np.testing.assert_array_equal(rows, expected)
