"""Compiled convolution, in each of its ways, and max pooling agree with the layers."""

import copy
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

import nnlite as nn
from nnlite.compiled.routines import winograd

SIZES = st.integers(6, 11)
BATCHES = st.integers(1, 3)


def winograd_saves(value):
    """Context in which the plain source always uses Winograd's algorithm, or never."""
    return mock.patch.object(winograd, "_saves", return_value=value)


@st.composite
def narrow(draw):
    """A convolution whose windows are multiplied in place."""
    rank = draw(st.integers(1, 2))
    kind = (nn.Conv1d, nn.Conv2d)[rank - 1]
    layer = kind(
        draw(st.integers(1, 3)),
        draw(st.integers(1, 4)),
        draw(st.integers(2, 4)),
        padding=draw(st.sampled_from([0, 1, "same"])),
        dilation=draw(st.integers(1, 2)),
        bias=draw(st.booleans()),
    )
    return layer, (draw(BATCHES), layer.in_channels, *[draw(SIZES) for _ in range(rank)])


@st.composite
def grouped(draw):
    """A convolution in groups or with a border: in place, or with copies if the stride is large."""
    rank = draw(st.integers(1, 2))
    kind = (nn.Conv1d, nn.Conv2d)[rank - 1]
    groups = draw(st.integers(1, 3))
    layer = kind(
        groups * draw(st.integers(1, 2)),
        groups * draw(st.integers(1, 2)),
        draw(st.integers(1, 3)),
        stride=draw(st.integers(1, 3)),
        padding=draw(st.integers(0, 3)),
        dilation=draw(st.integers(1, 2)),
        groups=groups,
        bias=draw(st.booleans()),
        padding_mode=draw(st.sampled_from(["zeros", "reflect", "replicate", "circular"])),
    )
    return layer, (draw(BATCHES), layer.in_channels, *[draw(SIZES) for _ in range(rank)])


@st.composite
def wide(draw):
    """A convolution of many channels, by Winograd's algorithm."""
    layer = nn.Conv2d(
        draw(st.integers(16, 18)),
        draw(st.integers(16, 18)),
        3,
        padding=draw(st.integers(0, 3)),
        bias=draw(st.booleans()),
    )
    return layer, (draw(BATCHES), layer.in_channels, draw(st.integers(3, 7)), draw(SIZES))


@st.composite
def many(draw):
    """A convolution of many channels, or a transposed one, with any windows."""
    kind = draw(st.sampled_from([nn.Conv1d, nn.Conv2d, nn.ConvTranspose1d, nn.ConvTranspose2d]))
    groups = draw(st.integers(1, 2))
    layer = kind(
        groups * draw(st.integers(16, 18)),
        groups * draw(st.sampled_from([16, 33])),
        draw(st.integers(2, 3)),
        stride=draw(st.integers(1, 3)),
        padding=draw(st.integers(0, 1)),
        dilation=draw(st.integers(1, 2)),
        groups=groups,
        bias=draw(st.booleans()),
    )
    sizes = st.integers(6, 14)
    return layer, (draw(BATCHES), layer.in_channels, *[draw(sizes) for _ in range(layer.rank)])


@st.composite
def pooling(draw):
    """Max pooling, with windows beyond the ends or without."""
    kind = draw(st.sampled_from([nn.MaxPool1d, nn.MaxPool2d]))
    layer = kind(
        draw(st.integers(2, 3)),
        draw(st.integers(1, 3)),
        draw(st.integers(0, 1)),
        dilation=draw(st.integers(1, 2)),
        ceil_mode=draw(st.booleans()),
    )
    return layer, (draw(BATCHES), 2, *[draw(SIZES) for _ in range(layer.rank)])


@pytest.mark.parametrize(
    "drawn", [narrow, grouped, wide, many, pooling], ids=lambda drawn: drawn.__name__
)
@settings(max_examples=8, deadline=None)
@given(data=st.data(), seed=st.integers(0, 99))
def test_it_agrees_with_the_layer(drawn, data, seed):
    nn.seed(seed)
    layer, shape = data.draw(drawn())
    layer.astype(np.float64)
    compiled = nn.compile(copy.deepcopy(layer), native=False)
    rng = np.random.default_rng(seed)
    x = rng.integers(-9, 9, shape) + rng.normal(size=shape) * data.draw(st.integers(0, 1))
    y = layer(x)
    grad = rng.normal(size=y.shape)
    with winograd_saves(data.draw(st.booleans())):
        assert_allclose(compiled(x), y, rtol=1e-10, atol=1e-10)
        assert_allclose(compiled.backward(grad), layer.backward(grad), rtol=1e-10, atol=1e-10)
    for one, other in zip(compiled.parameters(), layer.parameters(), strict=True):
        assert_allclose(one.grad, other.grad, rtol=1e-10, atol=1e-10)


def check_machine_code(model, in_channels, batch=3):
    compiled = nn.compile(copy.deepcopy(model))
    x = np.random.default_rng(0).normal(size=(batch, in_channels, 9, 8)).astype(np.float32)
    y = model(x)
    assert_allclose(compiled(x), y, rtol=1e-5, atol=1e-5)
    assert_allclose(compiled.backward(y), model.backward(y), rtol=2e-5, atol=2e-5)
    for one, other in zip(compiled.parameters(), model.parameters(), strict=True):
        assert (one.grad is None) == (other.grad is None)
        if one.grad is not None:
            assert_allclose(one.grad, other.grad, rtol=2e-5, atol=1e-4)


def test_convolutions_of_several_ways_as_machine_code():
    pytest.importorskip("numba")
    nn.seed(0)
    layers = nn.Conv2d(2, 16, 3), nn.ReLU(), nn.Conv2d(16, 17, 3, padding=1), nn.MaxPool2d(2)
    model = nn.Sequential(*layers)
    check_machine_code(model, in_channels=2)


@pytest.mark.parametrize(("batch", "saves"), [(1, False), (20, True)])
@pytest.mark.parametrize("frozen", [False, True])
def test_winograd_where_it_saves_time_as_machine_code(batch, saves, frozen):
    pytest.importorskip("numba")
    nn.seed(0)
    model = nn.Conv2d(48, 64, 3, padding=1)
    model.weight.requires_grad = not frozen
    result = np.empty((batch, 64, 9, 8), np.float32)
    assert winograd._saves(model.weight.data, result, tiles=5 * 5) == saves
    check_machine_code(model, 48, batch)


def test_convolutions_of_many_channels_as_machine_code():
    pytest.importorskip("numba")
    nn.seed(0)
    transposed = nn.ConvTranspose2d(32, 36, 2, stride=2)
    model = nn.Sequential(nn.Conv2d(16, 32, 3, stride=2), transposed)
    check_machine_code(model, in_channels=16)


@pytest.mark.parametrize("options", [{}, {"stride": 2}, {"stride": 3}, {"padding_mode": "reflect"}])
def test_depthwise_convolution_as_machine_code(options):
    pytest.importorskip("numba")
    nn.seed(0)
    model = nn.Conv2d(3, 6, 3, padding=1, groups=3, **options)
    check_machine_code(model, in_channels=3)


def test_a_nan_is_the_maximum_of_its_windows():
    x = np.arange(16.0).reshape(1, 1, 4, 4)
    x[0, 0, 1, 2] = np.nan
    layer = nn.MaxPool2d(2, stride=1)
    compiled = nn.compile(layer, native=False)
    y = compiled(x)
    assert_allclose(np.isnan(y[0, 0]), [[0, 1, 1], [0, 1, 1], [0, 0, 0]])
    assert compiled.backward(np.ones_like(y))[0, 0, 1, 2] == 4


@pytest.mark.parametrize(
    "layer",
    [
        *(nn.MaxPool2d(2), nn.MaxPool2d(3, 2), nn.MaxPool2d(3, 1, 1)),
        *(nn.MaxPool2d(2, 3, 1, dilation=2), nn.MaxPool2d(2, ceil_mode=True)),
    ],
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_first_maxima_as_machine_code(layer, dtype):
    pytest.importorskip("numba")
    rng = np.random.default_rng(0)
    x = rng.integers(0, 3, size=(5, 7, 11, 13)).astype(dtype)  # 14 planes at a time, and ties
    x[x == 0] = -np.inf
    x[rng.random(x.shape) < 0.05] = np.nan
    compiled, y = nn.compile(copy.deepcopy(layer)), layer(x)
    grad = rng.normal(size=y.shape).astype(dtype)
    assert_array_equal(compiled(x), y)
    assert_allclose(compiled.backward(grad), layer.backward(grad), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("frozen", [False, True])
def test_groups_of_samples_of_which_the_last_is_smaller(frozen):
    nn.seed(0)
    layer = nn.Conv2d(16, 17, 3, padding=1).astype(np.float64)
    layer.weight.requires_grad = not frozen
    compiled = nn.compile(copy.deepcopy(layer), native=False)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(11, 16, 7, 8))  # 20 tiles: 6 samples at a time
    y = layer(x)
    grad = rng.normal(size=y.shape)
    with winograd_saves(True):
        assert_allclose(compiled(x), y, rtol=1e-10, atol=1e-10)
        assert_allclose(compiled.backward(grad), layer.backward(grad), rtol=1e-10, atol=1e-10)
    weight, _ = compiled.parameters()
    assert (weight.grad is None) == frozen
    if not frozen:
        assert_allclose(weight.grad, layer.weight.grad, rtol=1e-10, atol=1e-10)


def test_many_kernels_are_computed_in_several_blocks():
    rng = np.random.default_rng(0)
    kernels = rng.normal(size=(30, 40, 3, 3))  # 1,200: more than two blocks
    factors, result = np.empty((16, 30, 40)), np.empty_like(kernels)
    winograd.kernel_sums(kernels, factors)
    of_taps = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]])
    expected = np.einsum("ku,lv,ocuv->kloc", of_taps, of_taps, kernels)
    assert_allclose(factors, expected.reshape(16, 30, 40), rtol=0, atol=1e-14)
    winograd.kernel_gradients(factors, result)
    expected = np.einsum("ku,lv,kloc->ocuv", of_taps, of_taps, factors.reshape(4, 4, 30, 40))
    assert_allclose(result, expected, rtol=0, atol=1e-13)


def test_the_first_convolution_has_no_gradient_of_its_input():
    nn.seed(0)
    model = nn.Sequential(nn.Conv2d(16, 16, 3), nn.Flatten(), nn.Linear(16 * 4 * 5, 2))
    model.astype(np.float64)
    reference, loss = copy.deepcopy(model), nn.CrossEntropy()
    x, labels = np.random.default_rng(0).normal(size=(3, 16, 6, 7)), np.array([0, 1, 0])
    step = nn.compile(model, nn.CrossEntropy(), nn.SGD(model.parameters(), lr=0.1), native=False)
    step(x, labels)
    assert "d_x" not in step.source
    loss(reference(x), labels)
    reference.backward(loss.backward(), input_grad=False)
    for one, other in zip(model.parameters(), reference.parameters(), strict=True):
        assert_allclose(one.grad, other.grad, rtol=1e-10, atol=1e-10)
