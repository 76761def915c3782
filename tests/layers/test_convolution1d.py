"""`Conv1d`, `MaxPool1d`, `AvgPool1d`: compared with plain loops and hand calculations; errors."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray

import nnlite as nn

Array = NDArray[Any]


def normal(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=shape)


class Window(NamedTuple):
    """The options of a window, and the length of a sequence that it fits into."""

    length: int
    kernel_size: int
    stride: int
    padding: int
    dilation: int

    @property
    def outputs(self) -> int:
        """⌊(L + 2p - d(k - 1) - 1) / s⌋ + 1."""
        span = self.dilation * (self.kernel_size - 1) + 1
        return (self.length + 2 * self.padding - span) // self.stride + 1

    def steps(self, i: int) -> Iterator[tuple[int, int]]:
        """Yield each entry u of the kernel and its step l for output i."""
        for u in range(self.kernel_size):
            step = i * self.stride + u * self.dilation - self.padding
            if 0 <= step < self.length:
                yield u, step


@st.composite
def windows(draw: st.DrawFn, pooling: bool = False, dilated: bool = True) -> Window:
    """Draw a window, and a sequence just long enough for it or longer."""
    kernel = draw(st.integers(1, 5))
    dilation = draw(st.integers(1, 3)) if dilated else 1
    padding = draw(st.integers(0, kernel // 2 if pooling else 4))
    smallest = max(1, dilation * (kernel - 1) + 1 - 2 * padding)
    length = draw(st.integers(smallest, smallest + 5))
    return Window(length, kernel, draw(st.integers(1, 4)), padding, dilation)


# ---- Conv1d ----


def conv(window: Window, in_channels: int, out_channels: int, bias: bool = True) -> nn.Conv1d:
    layer = nn.Conv1d(in_channels, out_channels, *window[1:], bias=bias, rng=0)
    return layer.astype(np.float64)


@given(
    window=windows(),
    batch=st.integers(1, 3),
    in_channels=st.integers(1, 2),
    out_channels=st.integers(1, 2),
    bias=st.booleans(),
)
def test_output_and_gradients_are_the_sums_of_the_docstring(
    window: Window, batch: int, in_channels: int, out_channels: int, bias: bool
) -> None:
    layer = conv(window, in_channels, out_channels, bias)
    weight = layer.weight.data
    x = normal(batch, in_channels, window.length)
    grad = normal(batch, out_channels, window.outputs, seed=1)
    y, x_grad, weight_grad = np.zeros_like(grad), np.zeros_like(x), np.zeros_like(weight)
    for n, o, i in np.ndindex(y.shape):
        if bias:
            y[n, o, i] = layer.bias.data[o]
        for c in range(in_channels):
            for u, step in window.steps(i):
                y[n, o, i] += weight[o, c, u] * x[n, c, step]
                x_grad[n, c, step] += weight[o, c, u] * grad[n, o, i]
                weight_grad[o, c, u] += x[n, c, step] * grad[n, o, i]
    assert_allclose(layer(x), y, rtol=1e-11, atol=1e-12)
    assert_allclose(layer.backward(grad), x_grad, rtol=1e-11, atol=1e-12)
    assert_allclose(layer.weight.grad, weight_grad, rtol=1e-11, atol=1e-12)
    if bias:
        assert_allclose(layer.bias.grad, grad.sum(axis=(0, 2)), rtol=1e-11, atol=1e-12)


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
    nn.gradcheck(layer, normal(batch, in_channels, window.length)).raise_if_failed()


@pytest.mark.parametrize("kernel_size", [1, 2, 3, 6])
@pytest.mark.parametrize("dilation", [1, 2])
def test_same_padding_keeps_the_length_with_the_odd_zero_at_the_end(
    kernel_size: int, dilation: int
) -> None:
    same, valid = (
        nn.Conv1d(2, 3, kernel_size, padding=p, dilation=dilation, rng=0).astype(np.float64)
        for p in ("same", "valid")
    )
    x = normal(2, 2, 9)
    zeros = dilation * (kernel_size - 1)
    padded = np.pad(x, [(0, 0), (0, 0), (zeros // 2, zeros - zeros // 2)])
    assert same(x).shape == (2, 3, 9)
    assert_allclose(same(x), valid(padded), rtol=1e-12)


def test_initial_values_are_uniform_within_one_over_the_root_of_fan_in() -> None:
    # The bound is PyTorch's; the variance of a uniform on ±b is b²/3. The relative error of a
    # sample variance of n such values is √(0.8 / n) = 0.005 for 32,000: four of them allowed.
    layer = nn.Conv1d(64, 100, 5, rng=0)
    bound = 1 / math.sqrt(64 * 5)
    for values in (layer.weight.data, layer.bias.data):
        assert np.abs(values).max() <= bound
    assert_allclose(layer.weight.data.astype(float).var(), bound**2 / 3, rtol=0.02)
    assert layer.bias.data.std() > 0


def test_the_same_seed_gives_the_same_layer() -> None:
    nn.seed(3)
    first = nn.Conv1d(2, 3, 3).weight.data
    nn.seed(3)
    second, third = (nn.Conv1d(2, 3, 3).weight.data for _ in range(2))
    assert_array_equal(first, second)
    assert (second != third).all()


def test_the_state_dict_has_pytorchs_names_and_shapes() -> None:
    with_bias, without = nn.Conv1d(2, 3, 5), nn.Conv1d(2, 3, 5, bias=False)
    shapes = {name: value.shape for name, value in with_bias.state_dict().items()}
    assert shapes == {"weight": (3, 2, 5), "bias": (3,)}
    assert list(without.state_dict()) == ["weight"]
    assert [name for name, _ in nn.Sequential(with_bias).named_layers()] == ["", "0"]


def test_parameters_that_have_changed_are_those_that_count() -> None:
    layer, x = conv(Window(6, 3, 1, 0, 1), 2, 2), normal(2, 2, 6)
    grad = np.ones_like(layer(x))
    once, x_grad = layer(x) - layer.bias.data[:, None], layer.backward(grad)
    layer.weight.data *= 2  # as an optimizer moves it
    # Values linear in the weight double with it; backward uses the current weight.
    assert_allclose(layer.backward(grad), 2 * x_grad, rtol=1e-12)
    assert_allclose(layer(x) - layer.bias.data[:, None], 2 * once, rtol=1e-12)
    layer.load_state_dict({"weight": np.zeros((2, 2, 3)), "bias": np.array([5.0, 7.0])})
    assert_array_equal(layer(x)[0, :, 0], [5, 7])
    layer.weight, layer.bias = nn.Parameter(np.zeros((2, 2, 3))), None
    assert_array_equal(layer(x), np.zeros((2, 2, 4)))


@pytest.mark.parametrize("frozen_at_forward", [False, True])
def test_whether_the_weight_is_frozen_counts_at_backward(frozen_at_forward: bool) -> None:
    layer, x = nn.Conv1d(1, 1, 2), normal(1, 1, 4).astype(np.float32)
    layer.weight.requires_grad = not frozen_at_forward
    y = layer(x)
    layer.weight.requires_grad = frozen_at_forward
    layer.backward(np.ones_like(y))
    assert (layer.weight.grad is not None) == frozen_at_forward
    assert layer.bias.grad is not None


def test_it_learns_a_filter_with_an_optimizer() -> None:
    model, loss = nn.Sequential(nn.Conv1d(1, 1, 3, rng=0)), nn.MeanSquaredError()
    optimizer = nn.Adam(model.parameters(), lr=0.05)
    x = normal(64, 1, 20).astype(np.float32)
    target = x[:, :, :-2] - 2 * x[:, :, 1:-1] + x[:, :, 2:]
    for _ in range(300):
        loss(model(x), target)
        optimizer.zero_grad()
        model.backward(loss.backward(), input_grad=False)
        optimizer.step()
    assert_allclose(model[0].weight.data, [[[1, -2, 1]]], atol=1e-3)


def test_the_batch_stays_innermost_in_memory_from_layer_to_layer() -> None:
    model = nn.Sequential(nn.Conv1d(2, 4, 3), nn.ReLU(), nn.MaxPool1d(2), nn.Conv1d(4, 3, 2))
    x = normal(16, 2, 20).astype(np.float32)
    for layer in model:
        x = layer(x)
        assert x.strides[0] == x.itemsize
    grad = np.ones_like(x)
    for layer in reversed(list(model)):
        grad = layer.backward(grad)
        assert grad.strides[0] == grad.itemsize


# ---- pooling ----


@given(window=windows(pooling=True), batch=st.integers(1, 3), seed=st.integers(0, 1000))
def test_max_pooling_gives_the_largest_step_and_the_first_takes_the_gradient(
    window: Window, batch: int, seed: int
) -> None:
    # Few different values: windows with several largest steps are the rule.
    x = np.random.default_rng(seed).integers(0, 3, (batch, 2, window.length)).astype(np.float64)
    grad = normal(batch, 2, window.outputs)
    y, x_grad = np.full_like(grad, -np.inf), np.zeros_like(x)
    for n, c, i in np.ndindex(y.shape):
        steps = [step for _, step in window.steps(i)]
        if steps:
            first = max(steps, key=lambda step: x[n, c, step])
            y[n, c, i] = x[n, c, first]
            x_grad[n, c, first] += grad[n, c, i]
    layer = nn.MaxPool1d(*window[1:])
    assert_array_equal(layer(x), y)
    assert_allclose(layer.backward(grad), x_grad, rtol=1e-12)


@given(window=windows(pooling=True, dilated=False), batch=st.integers(1, 3), include=st.booleans())
def test_average_pooling_gives_the_mean_and_shares_the_gradient(
    window: Window, batch: int, include: bool
) -> None:
    x, grad = normal(batch, 2, window.length), normal(batch, 2, window.outputs, seed=1)
    y, x_grad = np.zeros_like(grad), np.zeros_like(x)
    for n, c, i in np.ndindex(y.shape):
        steps = [step for _, step in window.steps(i)]
        count = window.kernel_size if include else len(steps)
        for step in steps:
            y[n, c, i] += x[n, c, step] / count
            x_grad[n, c, step] += grad[n, c, i] / count
    layer = nn.AvgPool1d(*window[1:4], count_include_pad=include)
    assert_allclose(layer(x), y, rtol=1e-11, atol=1e-12)
    assert_allclose(layer.backward(grad), x_grad, rtol=1e-11, atol=1e-12)


@given(window=windows(pooling=True, dilated=False), ceil=st.booleans())
def test_gradients_of_pooling_agree_with_central_differences(window: Window, ceil: bool) -> None:
    # No two steps closer than 0.1, where a difference would step over a kink.
    x = 0.1 * np.random.default_rng(0).permutation(2 * window.length).reshape(2, 1, -1)
    for layer in (
        nn.MaxPool1d(*window[1:4], ceil_mode=ceil),
        nn.AvgPool1d(*window[1:4], ceil_mode=ceil),
    ):
        nn.gradcheck(layer, x).raise_if_failed()


POOLINGS = pytest.mark.parametrize("pooling", [nn.MaxPool1d, nn.AvgPool1d])


@POOLINGS
def test_steps_that_are_left_at_the_end_are_dropped_unless_in_ceil_mode(pooling: Any) -> None:
    x = np.array([[[1.0, 3.0, 2.0, 4.0, 8.0]]])
    assert pooling(2)(x).shape == pooling(2, stride=2)(x).shape == (1, 1, 2)
    assert_array_equal(pooling(2, ceil_mode=True)(x)[0, 0, 2:], [8])
    # The one window is two steps longer than the sequence, and the next would begin at 3.
    assert pooling(4, stride=3, ceil_mode=True)(x[:, :, :2]).shape == (1, 1, 1)
    with pytest.raises(ValueError, match="spans 4 steps"):
        pooling(4, stride=2, ceil_mode=True)(x[:, :, :2])


def test_nan_counts_as_larger_than_every_number() -> None:
    assert_array_equal(nn.MaxPool1d(2)(np.array([[[9.0, np.nan, 1.0, 2.0]]])), [[[np.nan, 2]]])


@pytest.mark.parametrize("layer", [nn.Conv1d(2, 3, 3), nn.MaxPool1d(2)], ids=str)
def test_the_input_is_let_go_with_the_cache(layer: nn.Layer) -> None:
    x = np.asfortranarray(normal(4, 2, 6).astype(np.float32))
    layer(x)
    input_memory = weakref.ref(x)
    layer.astype(np.float64)
    del x
    assert input_memory() is None


# ---- errors ----


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: nn.Conv1d(0, 1, 3), ValueError, "Conv1d: in_channels must be at least 1, got 0"),
        (lambda: nn.Conv1d(1, 1.0, 3), TypeError, "Conv1d: out_channels must be an int, got 1.0"),
        (lambda: nn.Conv1d(1, 1, 0), ValueError, "Conv1d: kernel_size must be at least 1, got 0"),
        (lambda: nn.Conv1d(1, 1, (3, 3)), TypeError, r"Conv1d: kernel_size .* int, got \(3, 3\)"),
        (lambda: nn.Conv1d(1, 1, 3, 0), ValueError, "Conv1d: stride must be at least 1, got 0"),
        (lambda: nn.Conv1d(1, 1, 3, padding=-1), ValueError, "Conv1d: padding must be at least 0"),
        (lambda: nn.Conv1d(1, 1, 3, padding="full"), ValueError, "Conv1d: padding.*'same'.*'full'"),
        (lambda: nn.Conv1d(1, 1, 3, 2, "same"), ValueError, "Conv1d: padding='same' .* stride"),
        (lambda: nn.Conv1d(1, 1, 3, dilation=0), ValueError, "Conv1d: dilation must be at least 1"),
        (lambda: nn.MaxPool1d(0), ValueError, "MaxPool1d: kernel_size must be at least 1, got 0"),
        (lambda: nn.MaxPool1d(2, 0), ValueError, "MaxPool1d: stride must be at least 1, got 0"),
        (lambda: nn.MaxPool1d(2, dilation=0), ValueError, "MaxPool1d: dilation must be at least 1"),
        (lambda: nn.MaxPool1d(3, padding=2), ValueError, "MaxPool1d: .* half of .*=3, got 2"),
        (lambda: nn.AvgPool1d(2, "2"), TypeError, "AvgPool1d: stride must be an int, got '2'"),
        (lambda: nn.AvgPool1d(3, padding=2), ValueError, "AvgPool1d: .* half of .*=3, got 2"),
    ],
)
def test_an_option_that_makes_no_sense_is_an_error(
    make: Callable[[], nn.Layer], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=f"^{message}"):
        make()


CONV = r"^Conv1d\(3, 4, 5\): "
NOT_3_CHANNELS = CONV + r"expected sequences of shape \(N, 3, L\), got "


@pytest.mark.parametrize(
    ("layer", "shape", "message"),
    [
        (nn.Conv1d(3, 4, 5), (2, 1, 8), NOT_3_CHANNELS + r"\(2, 1, 8\)$"),
        (nn.Conv1d(3, 4, 5), (2, 3, 8, 8), NOT_3_CHANNELS + r"\(2, 3, 8, 8\)$"),
        (nn.Conv1d(3, 4, 5), (3, 8), NOT_3_CHANNELS + r".*add a batch axis: x\[None\]"),
        (nn.Conv1d(3, 4, 5), (2, 8, 3), NOT_3_CHANNELS + r".*x\.transpose\(0, 2, 1\)"),
        (nn.Conv1d(1, 4, 5), (2, 8), r"add a channel axis: x\[:, None\]"),
        (nn.Conv1d(3, 4, 5), (2, 3, 4), CONV + "the kernel spans 5 steps, .* sequence has only 4"),
        (
            nn.Conv1d(1, 1, 3, padding=1, dilation=3),
            (1, 1, 4),
            "the kernel spans 7 steps, but the padded sequence has only 6; use a smaller kernel",
        ),
        (nn.MaxPool1d(3), (2, 1, 2), r"^MaxPool1d\(3\): the kernel spans 3 steps.*only 2"),
        (nn.MaxPool1d(3), (5, 5), r"^MaxPool1d\(3\): expected .*\(N, C, L\).*x\[None\]"),
        (nn.AvgPool1d(3), (2, 1, 5, 2), r"^AvgPool1d\(3\): expected .*, got \(2, 1, 5, 2\)$"),
    ],
)
def test_sequences_that_do_not_fit_are_an_error_that_names_the_layer(
    layer: nn.Layer, shape: tuple[int, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        layer(np.ones(shape, np.float32))


def test_a_size_may_stand_in_a_tuple_as_pytorch_prints_it() -> None:
    assert repr(nn.Conv1d(1, 2, (3,), stride=(2,))) == "Conv1d(1, 2, 3, stride=2)"
