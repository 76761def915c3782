"""`Conv2d`, `MaxPool2d`, `AvgPool2d`: compared with plain loops, hand calculations and PyTorch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray

import nnlite as nn
from nnlite.engine import depthwise, winograd
from nnlite.engine import windows as engine

Array = NDArray[Any]
Pair = tuple[int, int]
Pixel = tuple[int, int]


def normal(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=shape)


class Window(NamedTuple):
    """The options of a window, height before width, and an image that it fits into."""

    image: Pair
    kernel_size: Pair
    stride: Pair
    padding: Pair
    dilation: Pair

    @property
    def outputs(self) -> Pair:
        """⌊(size + 2p - d(k - 1) - 1) / s⌋ + 1."""
        height, width = (
            (size + 2 * p - d * (k - 1) - 1) // s + 1
            for size, k, s, p, d in zip(*self, strict=True)
        )
        return height, width

    def pixels(self, i: int, j: int) -> Iterator[tuple[Pixel, Pixel]]:
        """Yield each entry (u, v) of the kernel and its pixel (h, w) for output (i, j)."""
        for u in range(self.kernel_size[0]):
            for v in range(self.kernel_size[1]):
                h = i * self.stride[0] + u * self.dilation[0] - self.padding[0]
                w = j * self.stride[1] + v * self.dilation[1] - self.padding[1]
                if 0 <= h < self.image[0] and 0 <= w < self.image[1]:
                    yield (u, v), (h, w)


@st.composite
def windows(draw: st.DrawFn, pooling: bool = False, dilated: bool = True) -> Window:
    """Draw a window along each axis, and an image just large enough for it or larger."""

    def axis() -> tuple[int, int, int, int, int]:
        kernel = draw(st.integers(1, 4))
        dilation = draw(st.integers(1, 3)) if dilated else 1
        span = dilation * (kernel - 1) + 1
        padding = draw(st.integers(0, kernel // 2 if pooling else 4))
        smallest = max(1, span - 2 * padding)
        size = draw(st.integers(smallest, smallest + 4))
        return size, kernel, draw(st.integers(1, 4)), padding, dilation

    return Window(*zip(axis(), axis(), strict=True))


# ---- Conv2d ----


def conv(
    window: Window, in_channels: int, out_channels: int, bias: bool = True, groups: int = 1
) -> nn.Conv2d:
    layer = nn.Conv2d(in_channels, out_channels, *window[1:], groups, bias=bias, rng=0)
    return layer.astype(np.float64)


def test_the_seed_example_of_a_2x2_kernel_on_a_3x3_image() -> None:
    layer = nn.Conv2d(1, 1, 2, bias=False).astype(np.float64)
    layer.weight.data[...] = [[0.1, -0.1], [0.2, 0.01]]
    image = np.arange(1.0, 10.0).reshape(1, 1, 3, 3)
    assert_allclose(layer(image)[0, 0], [[0.75, 0.96], [1.38, 1.59]], rtol=1e-12)
    # By hand, with an output gradient that picks one output: its window, and the kernel there.
    x_grad = layer.backward(np.array([[[[0.0, 1.0], [0.0, 0.0]]]]))
    assert_array_equal(layer.weight.grad[0, 0], [[2, 3], [5, 6]])
    assert_array_equal(x_grad[0, 0], [[0, 0.1, -0.1], [0, 0.2, 0.01], [0, 0, 0]])


@given(
    window=windows(),
    batch=st.integers(1, 3),
    in_channels=st.integers(1, 2),
    out_channels=st.integers(1, 2),
    bias=st.booleans(),
    block=st.sampled_from([1, 1000, engine._BLOCK]),
)
def test_output_and_gradients_are_the_sums_of_the_docstring(
    window: Window, batch: int, in_channels: int, out_channels: int, bias: bool, block: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "_BLOCK", block)
        check_the_sums_of_the_docstring(window, batch, in_channels, out_channels, bias)


@st.composite
def dense_windows(draw: st.DrawFn) -> Window:
    """Draw a window of three rows without stride and dilation, for Winograd's algorithm."""
    kernel = (3, draw(st.integers(1, 4)))
    padding = (draw(st.integers(0, 4)), draw(st.integers(0, 4)))
    image = [
        draw(st.integers(smallest, smallest + 4))
        for smallest in (max(1, k - 2 * p) for k, p in zip(kernel, padding, strict=True))
    ]
    return Window((image[0], image[1]), kernel, (1, 1), padding, (1, 1))


@given(
    window=dense_windows(),
    batch=st.integers(1, 3),
    in_channels=st.integers(1, 2),
    out_channels=st.integers(1, 2),
    bias=st.booleans(),
    samples=st.sampled_from([1, 2, 128]),
)
def test_so_they_are_with_winograds_algorithm(
    window: Window, batch: int, in_channels: int, out_channels: int, bias: bool, samples: int
) -> None:
    used: list[str] = []

    def noted(name: str) -> Any:
        original = getattr(winograd, name)

        def function(*arguments: Any) -> Any:
            used.append(name)
            return original(*arguments)

        return function

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "_MANY_SAMPLES", 1)
        patch.setattr(engine, "_MANY_TERMS", 1)
        patch.setattr(winograd, "_SAMPLES", samples)
        for name in ("convolve", "kernel_gradient"):
            patch.setattr(winograd, name, noted(name))
        check_the_sums_of_the_docstring(window, batch, in_channels, out_channels, bias)
    # Forward, and back for the kernels and for the input.
    assert used == ["convolve", "kernel_gradient", "convolve"]


@given(
    window=windows(),
    batch=st.integers(1, 3),
    channels=st.integers(2, 4),
    bias=st.booleans(),
    block=st.sampled_from([1, 1000, depthwise._BLOCK]),
)
def test_so_they_are_if_each_channel_has_a_kernel_of_its_own(
    window: Window, batch: int, channels: int, bias: bool, block: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(depthwise, "_BLOCK", block)
        check_the_sums_of_the_docstring(window, batch, channels, channels, bias, groups=channels)


def check_the_sums_of_the_docstring(
    window: Window, batch: int, in_channels: int, out_channels: int, bias: bool, groups: int = 1
) -> None:
    layer = conv(window, in_channels, out_channels, bias, groups)
    weight = layer.weight.data
    x = normal(batch, in_channels, *window.image)
    grad = normal(batch, out_channels, *window.outputs, seed=1)
    y, x_grad, weight_grad = np.zeros_like(grad), np.zeros_like(x), np.zeros_like(weight)
    for n, o, i, j in np.ndindex(y.shape):
        if bias:
            y[n, o, i, j] = layer.bias.data[o]
        first = o * groups // out_channels * weight.shape[1]  # channel of the group of output o
        for c in range(weight.shape[1]):
            for (u, v), (h, w) in window.pixels(i, j):
                y[n, o, i, j] += weight[o, c, u, v] * x[n, first + c, h, w]
                x_grad[n, first + c, h, w] += weight[o, c, u, v] * grad[n, o, i, j]
                weight_grad[o, c, u, v] += x[n, first + c, h, w] * grad[n, o, i, j]
    assert_allclose(layer(x), y, rtol=1e-11, atol=1e-12)
    assert_allclose(layer.backward(grad), x_grad, rtol=1e-11, atol=1e-12)
    assert_allclose(layer.weight.grad, weight_grad, rtol=1e-11, atol=1e-12)
    if bias:
        assert_allclose(layer.bias.grad, grad.sum(axis=(0, 2, 3)), rtol=1e-11, atol=1e-12)


@given(
    window=windows(),
    batch=st.integers(1, 2),
    in_channels=st.integers(1, 2),
    out_channels=st.integers(1, 2),
    bias=st.booleans(),
)
def test_every_gradient_agrees_with_central_differences(
    window: Window, batch: int, in_channels: int, out_channels: int, bias: bool
) -> None:
    layer = conv(window, in_channels, out_channels, bias)
    assert nn.gradcheck(layer, normal(batch, in_channels, *window.image)).passed


@pytest.mark.parametrize("kernel_size", [1, 2, 3, (4, 3), (1, 6)])
@pytest.mark.parametrize("dilation", [1, 2, (1, 3)])
def test_same_padding_keeps_the_size_with_the_odd_zero_at_the_end(
    kernel_size: Any, dilation: Any
) -> None:
    same, valid = (
        nn.Conv2d(1, 1, kernel_size, padding=padding, dilation=dilation, rng=0).astype(np.float64)
        for padding in ("same", "valid")
    )
    x = normal(2, 1, 7, 9)
    totals = [
        d * (k - 1)
        for k, d in zip(np.broadcast_to(kernel_size, 2), np.broadcast_to(dilation, 2), strict=True)
    ]
    zeros = [(total // 2, total - total // 2) for total in totals]
    padded = np.pad(x, [(0, 0), (0, 0), *zeros])
    output = same(x)
    assert output.shape == x.shape
    assert_allclose(output, valid(padded), rtol=1e-12)
    grad = normal(*x.shape, seed=1)
    (top, _), (left, _) = zeros
    inside = valid.backward(grad)[:, :, top : top + 7, left : left + 9]
    assert_allclose(same.backward(grad), inside, rtol=1e-12, atol=1e-14)
    assert_allclose(same.weight.grad, valid.weight.grad, rtol=1e-12)


@pytest.mark.parametrize(
    ("stride", "dilation"),
    [(1, 1), ((2, 1), 1), ((1, 2), 1), (1, (2, 1)), (1, (1, 2)), (2, 2)],
    ids=str,
)
@pytest.mark.parametrize("kernel", [(3, 3), (2, 3), (4, 3), (3, 2), (3, 5)], ids=str)
def test_many_samples_of_any_window_are_convolved(stride: Any, dilation: Any, kernel: Any) -> None:
    # As many as Winograd's algorithm is for, which is for some of these windows only.
    layer = nn.Conv2d(24, 24, kernel, stride, 1, dilation, bias=False, rng=0).astype(np.float64)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(33, 24, 11, 13))
    (s, t), (d, e) = np.broadcast_to(stride, 2), np.broadcast_to(dilation, 2)
    padded = np.pad(x, [(0, 0), (0, 0), (1, 1), (1, 1)])
    span = d * (kernel[0] - 1) + 1, e * (kernel[1] - 1) + 1
    windows = np.lib.stride_tricks.sliding_window_view(padded, span, (2, 3))
    windows = windows[:, :, ::s, ::t, ::d, ::e]
    y = layer(x)
    assert_allclose(
        y, np.einsum("nchwuv,ocuv->nohw", windows, layer.weight.data, optimize=True), atol=1e-12
    )
    # The gradient is the transposed map: <grad, y> = <x_grad, x>, for every other x too.
    grad = rng.normal(size=y.shape)
    x_grad = layer.backward(grad)
    weight_grad = np.einsum("nchwuv,nohw->ocuv", windows, grad, optimize=True)
    assert_allclose(layer.weight.grad, weight_grad, rtol=1e-10, atol=1e-10)
    for other in (x, rng.normal(size=x.shape)):
        assert_allclose((grad * layer(other)).sum(), (x_grad * other).sum(), rtol=1e-9)


def test_one_pixel_for_each_output_with_a_stride_along_the_rows() -> None:
    layer, x = nn.Conv2d(2, 3, 1, (2, 1), rng=0).astype(np.float64), np.arange(2 * 2 * 7 * 3.0)
    x = x.reshape(2, 2, 7, 3)
    y = layer(x)
    expected = np.einsum("nchw,oc->nohw", x[:, :, ::2], layer.weight.data[:, :, 0, 0])
    assert_allclose(y, expected + layer.bias.data[:, None, None], rtol=1e-12)
    grad = np.cos(np.arange(y.size)).reshape(y.shape)
    layer.backward(grad)
    weight_grad = np.einsum("nchw,nohw->oc", x[:, :, ::2], grad)
    assert_allclose(layer.weight.grad[:, :, 0, 0], weight_grad, rtol=1e-12)


@pytest.mark.parametrize("value", [np.inf, np.nan])
def test_a_pixel_that_is_no_number_stays_within_its_windows(value: float) -> None:
    # In all rows, columns and samples of a convolution that Winograd's algorithm computes.
    layer, x = nn.Conv2d(16, 3, 3, rng=0), normal(40, 16, 9, 8).astype(np.float32)
    y = layer(x)
    for row, column in [(0, 0), (3, 4), (4, 4), (8, 7)]:
        spoilt = x.copy()
        spoilt[21, 5, row, column] = value
        windows = np.zeros(y.shape, bool)
        windows[21, :, max(row - 2, 0) : row + 1, max(column - 2, 0) : column + 1] = True
        with np.errstate(invalid="ignore"):
            assert_array_equal(np.isfinite(layer(spoilt)), ~windows)


def test_one_int_stands_for_height_and_width() -> None:
    x = normal(2, 3, 9, 9)
    by_int = nn.Conv2d(3, 2, 3, 2, 1, 2, rng=0).astype(np.float64)
    by_pair = nn.Conv2d(3, 2, (3, 3), (2, 2), [1, 1], (2, 2), rng=0).astype(np.float64)
    assert_array_equal(by_int(x), by_pair(x))


def test_float32_loses_no_more_than_rounding_over_large_images() -> None:
    layer, exact = (nn.Conv2d(16, 8, 5, padding=2, rng=0) for _ in range(2))
    exact.astype(np.float64)
    x, grad = normal(8, 16, 40, 50), normal(8, 8, 40, 50, seed=1)
    assert_allclose(layer(x.astype(np.float32)), exact(x), rtol=1e-4, atol=1e-5)
    x_grads = [each.backward(grad) for each in (layer, exact)]
    assert_allclose(*x_grads, rtol=1e-4, atol=1e-5)
    # A sum of 16,000 terms of order 1, each with a relative error of at most 6e-8.
    assert_allclose(layer.weight.grad, exact.weight.grad, rtol=1e-4, atol=1e-3)


def test_initial_values_are_uniform_within_one_over_the_root_of_fan_in() -> None:
    # The bound is PyTorch's; the variance of a uniform on ±b is b²/3. The relative error of a
    # sample variance of n such values is √(0.8 / n) = 0.004 for 57,600: five of them allowed.
    layer = nn.Conv2d(64, 100, 3, rng=0)
    bound = 1 / math.sqrt(64 * 3 * 3)
    for values in (layer.weight.data, layer.bias.data):
        assert np.abs(values).max() <= bound
    assert_allclose(layer.weight.data.astype(float).var(), bound**2 / 3, rtol=0.02)
    assert layer.bias.data.std() > 0


def test_the_same_seed_gives_the_same_layer() -> None:
    first, second, other = (nn.Conv2d(2, 3, 3, rng=seed).weight.data for seed in (7, 7, 8))
    assert_array_equal(first, second)
    assert (first != other).all()


def test_the_state_dict_has_pytorchs_names_and_shapes() -> None:
    with_bias, without = nn.Conv2d(2, 3, (5, 4)), nn.Conv2d(2, 3, (5, 4), bias=False)
    shapes = {name: value.shape for name, value in with_bias.state_dict().items()}
    assert shapes == {"weight": (3, 2, 5, 4), "bias": (3,)}
    assert list(without.state_dict()) == ["weight"]


# ---- pooling ----


@given(window=windows(pooling=True), batch=st.integers(1, 3), seed=st.integers(0, 1000))
def test_max_pooling_gives_the_largest_pixel_and_the_first_takes_the_gradient(
    window: Window, batch: int, seed: int
) -> None:
    # Few different values: windows with several largest pixels are the rule.
    x = np.random.default_rng(seed).integers(0, 3, (batch, 2, *window.image)).astype(np.float64)
    grad = normal(batch, 2, *window.outputs)
    y, x_grad = np.full_like(grad, -np.inf), np.zeros_like(x)
    for n, c, i, j in np.ndindex(y.shape):
        pixels = [pixel for _, pixel in window.pixels(i, j)]
        if pixels:
            first = max(pixels, key=lambda pixel: x[n, c][pixel])
            y[n, c, i, j] = x[n, c][first]
            x_grad[n, c][first] += grad[n, c, i, j]
    layer = nn.MaxPool2d(*window[1:])
    assert_array_equal(layer(x), y)
    assert_allclose(layer.backward(grad), x_grad, rtol=1e-12)


@given(window=windows(pooling=True, dilated=False), batch=st.integers(1, 3), include=st.booleans())
def test_average_pooling_gives_the_mean_and_shares_the_gradient(
    window: Window, batch: int, include: bool
) -> None:
    x = normal(batch, 2, *window.image)
    grad = normal(batch, 2, *window.outputs, seed=1)
    y, x_grad = np.zeros_like(grad), np.zeros_like(x)
    for n, c, i, j in np.ndindex(y.shape):
        pixels = [pixel for _, pixel in window.pixels(i, j)]
        area = math.prod(window.kernel_size) if include else len(pixels)
        for h, w in pixels:
            y[n, c, i, j] += x[n, c, h, w] / area
            x_grad[n, c, h, w] += grad[n, c, i, j] / area
    layer = nn.AvgPool2d(*window[1:4], count_include_pad=include)
    assert_allclose(layer(x), y, rtol=1e-11, atol=1e-12)
    assert_allclose(layer.backward(grad), x_grad, rtol=1e-11, atol=1e-12)


@given(window=windows(pooling=True, dilated=False), batch=st.integers(1, 2), ceil=st.booleans())
def test_pooling_gradients_agree_with_central_differences(
    window: Window, batch: int, ceil: bool
) -> None:
    shape = (batch, 2, *window.image)
    # No two pixels closer than 0.1, where a difference would step over a kink.
    x = 0.1 * np.random.default_rng(0).permutation(math.prod(shape)).reshape(shape)
    assert nn.gradcheck(nn.MaxPool2d(*window[1:4], ceil_mode=ceil), x).passed
    assert nn.gradcheck(nn.AvgPool2d(*window[1:4], ceil_mode=ceil), x).passed


POOLINGS = pytest.mark.parametrize("pooling", [nn.MaxPool2d, nn.AvgPool2d])


@POOLINGS
def test_the_stride_is_the_kernel_size_unless_given(pooling: Any) -> None:
    x = normal(1, 1, 9, 8)
    assert_array_equal(pooling((3, 2))(x), pooling((3, 2), stride=(3, 2))(x))


@POOLINGS
def test_the_last_row_and_column_of_an_odd_image_are_dropped(pooling: Any) -> None:
    x, layer = normal(2, 3, 5, 7), pooling(2)
    output = layer(x)
    assert_array_equal(output, pooling(2)(x[:, :, :4, :6]))
    x_grad = layer.backward(np.ones_like(output))
    assert not x_grad[:, :, 4].any()
    assert not x_grad[:, :, :, 6].any()
    assert x_grad[:, :, :4, :6].sum() == output.size


def test_in_ceil_mode_they_get_windows_of_what_there_is() -> None:
    x = np.arange(15.0).reshape(1, 1, 3, 5)
    largest, mean = nn.MaxPool2d(2, ceil_mode=True), nn.AvgPool2d(2, ceil_mode=True)
    assert_array_equal(largest(x)[0, 0], [[6, 8, 9], [11, 13, 14]])
    # What lies beyond the padding does not count, whatever count_include_pad says.
    assert_array_equal(mean(x)[0, 0], [[3, 5, 6.5], [10.5, 12.5, 14]])
    assert_array_equal(
        mean.backward(np.ones((1, 1, 2, 3)))[0, 0],
        [[0.25, 0.25, 0.25, 0.25, 0.5]] * 2 + [[0.5, 0.5, 0.5, 0.5, 1]],
    )


@POOLINGS
def test_in_ceil_mode_no_window_starts_in_the_padding_at_the_end(pooling: Any) -> None:
    # Windows would start at -1, 1 and 3; a fourth at 5 would hold padding alone.
    assert pooling(2, padding=1, ceil_mode=True)(np.ones((1, 1, 5, 4))).shape == (1, 1, 3, 3)


def test_zeros_of_the_padding_count_in_the_mean_unless_told_not_to() -> None:
    x = np.full((1, 1, 2, 2), 8.0)
    assert_array_equal(nn.AvgPool2d(2, padding=1)(x)[0, 0], [[2, 2], [2, 2]])
    alone = nn.AvgPool2d(2, padding=1, count_include_pad=False)
    assert_array_equal(alone(x)[0, 0], [[8, 8], [8, 8]])


def test_a_window_of_negative_pixels_and_padding_has_a_negative_maximum() -> None:
    x = -1.0 - np.arange(4.0).reshape(1, 1, 2, 2)
    assert_array_equal(nn.MaxPool2d(2, padding=1)(x)[0, 0], [[-1, -2], [-3, -4]])


@pytest.mark.parametrize("stride", [2, 1], ids=["windows side by side", "windows that overlap"])
def test_nan_counts_as_larger_than_every_number(stride: int) -> None:
    x = np.array([[[[9.0, np.nan, 2.0, 3.0], [np.nan, 5.0, 6.0, 7.0]]]])
    layer = nn.MaxPool2d(2, (2, stride))
    # The two windows of stride 2, or these and the one between them.
    expected = [np.nan, 7] if stride == 2 else [np.nan, np.nan, 7]
    assert_array_equal(layer(x)[0, 0], [expected])
    x_grad = layer.backward(np.ones((1, 1, 1, len(expected))))
    assert_array_equal(x_grad[0, 0], [[0, len(expected) - 1, 0, 0], [0, 0, 0, 1]])


@pytest.mark.parametrize("stride", [2, 1], ids=["windows side by side", "windows that overlap"])
def test_an_infinite_gradient_reaches_the_largest_pixel_alone(stride: int) -> None:
    layer = nn.MaxPool2d(2, stride)
    layer(np.array([[[[1.0, 2.0], [3.0, 4.0]]]]))
    assert_array_equal(layer.backward(np.array([[[[np.inf]]]]))[0, 0], [[0, 0], [0, np.inf]])


# ---- arrays ----

LAYERS: dict[str, Callable[[], nn.Layer]] = {
    "convolution": lambda: nn.Conv2d(3, 4, 3, padding=1, rng=0),
    "strided convolution": lambda: nn.Conv2d(3, 4, (3, 2), stride=(2, 3), dilation=2, rng=0),
    "convolution of 1×1": lambda: nn.Conv2d(3, 4, 1, rng=0),
    "convolution of patches": lambda: nn.Conv2d(3, 4, 2, stride=2, rng=0),
    "maximum": lambda: nn.MaxPool2d(2),
    "overlapping maximum": lambda: nn.MaxPool2d(3, stride=1, padding=1),
    "mean": lambda: nn.AvgPool2d((2, 3)),
    "overlapping mean": lambda: nn.AvgPool2d(3, stride=2, padding=1),
}
every_layer = pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS.keys())

ORDERS: dict[str, Callable[[Array], Array]] = {
    "(N, C, H, W)": np.ascontiguousarray,
    "(C, H, W, N)": lambda x: x.transpose(1, 2, 3, 0).copy().transpose(3, 0, 1, 2),
    "(H, C, W, N)": lambda x: x.transpose(2, 1, 3, 0).copy().transpose(3, 1, 0, 2),
    "(N, H, W, C)": lambda x: x.transpose(0, 2, 3, 1).copy().transpose(0, 3, 1, 2),
    "(W, H, C, N)": np.asfortranarray,
    "(C, H, W, N), flipped": lambda x: (
        x[:, :, ::-1, ::-1].transpose(1, 2, 3, 0).copy().transpose(3, 0, 1, 2)[:, :, ::-1, ::-1]
    ),
    "(C, H, W, N), every other column": lambda x: (
        np.repeat(x, 2, axis=3).transpose(1, 2, 3, 0).copy().transpose(3, 0, 1, 2)[:, :, :, ::2]
    ),
    "(C, H, W, N), every other sample": lambda x: (
        np.repeat(x, 2, axis=0).transpose(1, 2, 3, 0).copy().transpose(3, 0, 1, 2)[::2]
    ),
    "(N, C, H, W), part of a larger image": lambda x: np.pad(x, [(1, 1), (0, 2), (1, 2), (2, 1)])[
        1:-1, :-2, 1:-2, 2:-1
    ],
}


@every_layer
@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS.keys())
@pytest.mark.parametrize("batch", [1, 5])
def test_results_do_not_depend_on_the_order_in_memory(
    make: Callable[[], nn.Layer], order: Callable[[Array], Array], batch: int
) -> None:
    layer, plain = make().astype(np.float64), make().astype(np.float64)
    x = normal(batch, 3, 8, 9)
    output = layer(order(x))
    assert_allclose(output, plain(x), rtol=1e-12, atol=1e-14)
    grad = normal(*output.shape, seed=1)
    x_grad = layer.backward(order(grad))
    assert_allclose(x_grad, plain.backward(grad), rtol=1e-12, atol=1e-14)
    for mine, other in zip(layer.parameters(), plain.parameters(), strict=True):
        assert_allclose(mine.grad, other.grad, rtol=1e-12, atol=1e-14)


@every_layer
def test_what_was_handed_out_stays_as_it_was_while_memory_is_used_again(
    make: Callable[[], nn.Layer],
) -> None:
    layer = make()
    kept: list[tuple[Array, Array]] = []
    for step in range(4):
        # Large enough that its memory is worth using again.
        x = normal(64, 3, 24, 24, seed=step).astype(np.float32)
        output = layer(x)
        grad = normal(*output.shape, seed=step).astype(np.float32)
        x_grad = layer.backward(grad)
        kept += [(array, array.copy()) for array in (x, output[3:5], grad, x_grad[..., ::2])]
        del output, x_grad
        for array, before in kept:
            assert_array_equal(array, before)


def test_flatten_after_pooling_copies_nothing_either_way() -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3, rng=0), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten())
    pooled = model[:3](normal(8, 1, 10, 10).astype(np.float32))
    flat = model[3](pooled)
    assert flat.shape == (8, 4 * 4 * 4)
    assert np.shares_memory(flat, pooled)
    grad = np.asfortranarray(flat)
    assert np.shares_memory(model[3].backward(grad), grad)


# ---- errors ----


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: nn.Conv2d(0, 1, 3), ValueError, "Conv2d: in_channels must be at least 1, got 0"),
        (lambda: nn.Conv2d(1, 1.0, 3), TypeError, "Conv2d: out_channels must be an int, got 1.0"),
        (lambda: nn.Conv2d(1, 1, 0), ValueError, "Conv2d: kernel_size must be at least 1, got 0"),
        (lambda: nn.Conv2d(1, 1, (3, 3, 3)), ValueError, "kernel_size must be an int or a pair"),
        (lambda: nn.Conv2d(1, 1, "3"), TypeError, "Conv2d: kernel_size must be an int, got '3'"),
        (lambda: nn.Conv2d(1, 1, 3, 0), ValueError, "Conv2d: stride must be at least 1, got 0"),
        (lambda: nn.Conv2d(1, 1, 3, (1, 0)), ValueError, "Conv2d: stride must be at least 1"),
        (lambda: nn.Conv2d(1, 1, 3, padding=-1), ValueError, "Conv2d: padding must be at least 0"),
        (
            lambda: nn.Conv2d(1, 1, 3, padding="full"),
            ValueError,
            "padding.*'same', 'valid'.*'full'",
        ),
        (lambda: nn.Conv2d(1, 1, 3, 2, "same"), ValueError, "padding='same' needs a stride of 1"),
        (lambda: nn.Conv2d(1, 1, 3, dilation=0), ValueError, "Conv2d: dilation must be at least 1"),
        (lambda: nn.MaxPool2d(0), ValueError, "MaxPool2d: kernel_size must be at least 1, got 0"),
        (lambda: nn.MaxPool2d(2, 0), ValueError, "MaxPool2d: stride must be at least 1, got 0"),
        (lambda: nn.MaxPool2d(2, dilation=0), ValueError, "MaxPool2d: dilation must be at least 1"),
        (lambda: nn.MaxPool2d((2, 3), padding=2), ValueError, "at most half.*\\(2, 3\\), got 2"),
        (lambda: nn.AvgPool2d(2, (2, 0)), ValueError, "AvgPool2d: stride must be at least 1"),
        (lambda: nn.AvgPool2d(3, padding=(1, 2)), ValueError, "at most half.*3, got \\(1, 2\\)"),
    ],
)
def test_an_option_that_makes_no_sense_is_an_error(
    make: Callable[[], nn.Layer], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        make()


CONV = "^Conv2d\\(3, 4, 5\\): "
NOT_3_CHANNELS = CONV + "expected images of shape \\(N, 3, H, W\\), got "


@pytest.mark.parametrize(
    ("layer", "shape", "message"),
    [
        (nn.Conv2d(3, 4, 5), (2, 1, 8, 8), NOT_3_CHANNELS + "\\(2, 1, 8, 8\\)$"),
        (nn.Conv2d(3, 4, 5), (2, 192), NOT_3_CHANNELS + "\\(2, 192\\)$"),
        (nn.Conv2d(3, 4, 5), (3, 8, 8), NOT_3_CHANNELS + ".*add a batch axis: x\\[None\\]"),
        (nn.Conv2d(3, 4, 5), (2, 8, 8, 3), NOT_3_CHANNELS + ".*x\\.transpose\\(0, 3, 1, 2\\)"),
        (nn.Conv2d(1, 4, 5), (2, 8, 8), "add a channel axis: x\\[:, None\\]"),
        (nn.Conv2d(3, 4, 5), (2, 3, 4, 9), CONV + "the kernel spans 5 rows, .* image has only 4"),
        (nn.Conv2d(3, 4, 5), (2, 3, 9, 4), CONV + "the kernel spans 5 columns, .* has only 4"),
        (
            nn.Conv2d(1, 1, 3, padding=1, dilation=3),
            (1, 1, 4, 9),
            "the kernel spans 7 rows, but the padded image has only 6; use a smaller kernel",
        ),
        (nn.MaxPool2d(3), (2, 1, 2, 5), "^MaxPool2d\\(3\\): the kernel spans 3 rows.*only 2"),
        (nn.MaxPool2d(3), (1, 5, 5), "^MaxPool2d\\(3\\): expected .*\\(N, C, H, W\\).*x\\[None\\]"),
        (nn.AvgPool2d(3), (2, 1, 5, 2), "^AvgPool2d\\(3\\): the kernel spans 3 columns.*only 2"),
        (
            nn.AvgPool2d(3),
            (2, 25),
            "^AvgPool2d\\(3\\): expected .*, got \\(2, 25\\)$",
        ),
    ],
)
def test_images_that_do_not_fit_are_an_error_that_names_the_layer(
    layer: nn.Layer, shape: tuple[int, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        layer(np.ones(shape, np.float32))


def test_a_forward_that_fails_leaves_the_last_one_in_place() -> None:
    layer = nn.Conv2d(1, 2, 3, rng=0)
    grad = np.ones_like(layer(np.ones((2, 1, 4, 4), np.float32)))
    expected = layer.backward(grad)
    with pytest.raises(ValueError, match="spans 3 rows"):
        layer(np.ones((2, 1, 2, 4), np.float32))
    assert_array_equal(layer.backward(grad), expected)


# ---- against PyTorch ----


@pytest.fixture(scope="module")
def torch() -> Any:
    return pytest.importorskip("torch")


def assert_same_as_pytorch(layer: nn.Layer, module: Any, x: Array, dtype: str, torch: Any) -> None:
    """Give both the parameters of the module, and compare output and all gradients."""
    module = module.to(getattr(torch, dtype))
    layer.astype(dtype)
    layer.load_state_dict({name: value.numpy() for name, value in module.state_dict().items()})
    tensor = torch.tensor(x.astype(dtype), requires_grad=True)
    expected = module(tensor)
    grad = normal(*expected.shape, seed=1).astype(dtype)
    expected.backward(torch.tensor(grad))
    tolerance = (
        {"rtol": 1e-11, "atol": 1e-12} if dtype == "float64" else {"rtol": 1e-4, "atol": 1e-4}
    )
    assert_allclose(layer(x.astype(dtype)), expected.detach().numpy(), **tolerance)
    assert_allclose(layer.backward(grad), tensor.grad.numpy(), **tolerance)
    parameters = dict(module.named_parameters())
    assert [name for name, _ in layer.named_parameters()] == list(parameters)
    for name, parameter in layer.named_parameters():
        assert_allclose(parameter.grad, parameters[name].grad.numpy(), **tolerance)


both_dtypes = pytest.mark.parametrize("dtype", ["float64", "float32"])


@both_dtypes
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"bias": False},
        {"stride": 2},
        {"stride": (3, 1), "padding": (0, 2)},
        {"padding": 4},
        {"dilation": 2},
        {"stride": 2, "padding": 1, "dilation": (1, 3)},
        {"kernel_size": 1, "stride": 2},
        {"kernel_size": (1, 4), "padding": "same"},
        {"kernel_size": (4, 3), "padding": "same", "dilation": 2},
        {"kernel_size": 5, "padding": "valid"},
        {"kernel_size": 4, "stride": 4},
        {"kernel_size": (11, 12)},
    ],
    ids=str,
)
# PyTorch says that it copies the input for an even kernel with padding="same".
@pytest.mark.filterwarnings("ignore:Using padding='same'")
def test_conv2d_equals_pytorchs(options: dict[str, Any], dtype: str, torch: Any) -> None:
    options = {"kernel_size": 3, **options}
    layer, module = nn.Conv2d(3, 4, **options), torch.nn.Conv2d(3, 4, **options)
    assert_same_as_pytorch(layer, module, normal(5, 3, 11, 12), dtype, torch)


@both_dtypes
@pytest.mark.parametrize("ceil_mode", [False, True])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"stride": 1},
        {"stride": (3, 1), "padding": 1},
        {"kernel_size": 3, "stride": 2, "padding": 1},
        {"kernel_size": (1, 4), "padding": (0, 2)},
        {"kernel_size": 2, "stride": 3},
        {"kernel_size": 3, "dilation": 2, "padding": 1},
        {"kernel_size": 2, "dilation": (1, 5), "stride": (2, 1)},
    ],
    ids=str,
)
def test_pooling_equals_pytorchs(
    options: dict[str, Any], ceil_mode: bool, dtype: str, torch: Any
) -> None:
    options = {"kernel_size": 2, **options, "ceil_mode": ceil_mode}
    # Whole numbers in float32 too: many windows have several largest pixels.
    x = normal(4, 3, 7, 10).round()
    layer, module = nn.MaxPool2d(**options), torch.nn.MaxPool2d(**options)
    assert_same_as_pytorch(layer, module, x, dtype, torch)
    if "dilation" not in options:
        for include in (False, True):
            options["count_include_pad"] = include
            layer, module = nn.AvgPool2d(**options), torch.nn.AvgPool2d(**options)
            assert_same_as_pytorch(layer, module, x, dtype, torch)


@both_dtypes
def test_a_network_equals_pytorchs(dtype: str, torch: Any) -> None:
    def network(package: Any) -> Any:
        return package.Sequential(
            package.Conv2d(1, 8, 5, padding=2),
            package.ReLU(),
            package.MaxPool2d(2),
            package.Conv2d(8, 16, 5),
            package.Tanh(),
            package.AvgPool2d(2),
            package.Flatten(),
            package.Linear(400, 10),
        )

    assert_same_as_pytorch(network(nn), network(torch.nn), normal(6, 1, 28, 28), dtype, torch)
