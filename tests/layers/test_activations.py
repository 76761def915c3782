"""Activations: formulas, gradients for all shapes, and extreme values."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.testing import assert_allclose, assert_array_equal

import nnlite as nn

shapes = hnp.array_shapes(min_dims=1, max_dims=4, max_side=4)
ELEMENTWISE: dict[str, Callable[[], nn.Layer]] = {
    "ReLU": nn.ReLU,
    "LeakyReLU": lambda: nn.LeakyReLU(0.2),
    "ELU": lambda: nn.ELU(1.5),
    "SiLU": nn.SiLU,
    "SELU": nn.SELU,
    "Mish": nn.Mish,
    "ReLU6": nn.ReLU6,
    "Hardtanh": lambda: nn.Hardtanh(-0.3, 1.1),
    "Hardswish": nn.Hardswish,
    "Hardsigmoid": nn.Hardsigmoid,
    "Softplus": lambda: nn.Softplus(3.0),
    "Softsign": nn.Softsign,
    "LogSigmoid": nn.LogSigmoid,
    "PReLU": nn.PReLU,
    "GELU": nn.GELU,
    "GELU of tanh": lambda: nn.GELU("tanh"),
    "Sigmoid": nn.Sigmoid,
    "Tanh": nn.Tanh,
}


def finite(limit: float, width: int = 64) -> st.SearchStrategy[Any]:
    dtype = np.dtype(f"f{width // 8}")
    elements = st.floats(-limit, limit, width=width, allow_subnormal=False)
    return hnp.arrays(dtype, shapes, elements=elements)


@pytest.mark.parametrize("activation", ELEMENTWISE.values(), ids=ELEMENTWISE.keys())
@given(shape=shapes)
def test_gradients_agree_with_central_differences_for_all_shapes(
    activation: Callable[[], nn.Layer], shape: tuple[int, ...]
) -> None:
    x = np.random.default_rng(1).normal(size=shape)
    x[np.abs(x) < 0.05] = 0.05  # some have no derivative at 0
    assert nn.gradcheck(activation(), x).passed


@pytest.mark.parametrize("kind", [nn.Softmax, nn.LogSoftmax])
@given(shape=shapes, data=st.data())
def test_softmax_gradients_agree_with_central_differences_along_every_axis(
    kind: type[nn.Layer], shape: tuple[int, ...], data: st.DataObject
) -> None:
    dim = data.draw(st.integers(-len(shape), len(shape) - 1))
    assert nn.gradcheck(kind(dim), np.random.default_rng(1).normal(size=shape)).passed


# ---- ReLU ----


def test_relu_keeps_what_is_positive() -> None:
    relu = nn.ReLU()
    assert_array_equal(relu(np.array([[-2.0, -0.0, 0.0, 3.0]])), [[0, 0, 0, 3]])
    # At 0 there is no derivative; as in PyTorch, 0 is used.
    assert_array_equal(relu.backward(np.ones((1, 4))), [[0, 0, 0, 1]])


def test_relu_stops_an_infinite_gradient_where_its_output_is_zero() -> None:
    # PyTorch selects rather than multiplies: torch.relu's gradient is 0 there, not NaN.
    relu = nn.ReLU()
    relu(np.array([[-1.0, 1.0, -1.0]]))
    assert_array_equal(relu.backward(np.array([[np.inf, np.inf, np.nan]])), [[0, np.inf, 0]])


# ---- Sigmoid ----


def test_sigmoid_at_known_points() -> None:
    x = np.array([0.0, math.log(3), -math.log(3)])
    assert_allclose(nn.Sigmoid()(x), [0.5, 0.75, 0.25], rtol=1e-15)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sigmoid_is_exact_at_both_ends_and_never_overflows(dtype: Any) -> None:
    x = np.array([-80.0, -30.0, 30.0, 80.0, -1e4, 1e4, -np.inf, np.inf], dtype)
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        y = nn.Sigmoid()(x)
    # For large -x, σ(x) is exp(x) to full relative precision.
    assert_allclose(y[:2], [math.exp(-80), math.exp(-30) / (1 + math.exp(-30))], rtol=1e-6)
    assert_array_equal(y[3:], [1, 0, 1, 0, 1])


@given(finite(700))
def test_sigmoid_of_minus_x_is_one_minus_sigmoid_of_x(x: Any) -> None:
    assert_allclose(nn.Sigmoid()(-x), 1 - nn.Sigmoid()(x), rtol=1e-15, atol=1e-15)


# ---- Tanh ----


def test_tanh_at_known_points() -> None:
    # tanh(log(3) / 2) = (3 - 1) / (3 + 1)
    x = np.array([0.0, math.log(3) / 2, -math.log(3) / 2, -1e4, 1e4])
    assert_allclose(nn.Tanh()(x), [0, 0.5, -0.5, -1, 1], rtol=1e-15)


# ---- the relatives of ReLU ----


def test_leaky_relu_at_known_points() -> None:
    leaky = nn.LeakyReLU(0.25)
    assert_array_equal(leaky(np.array([-4.0, 0.0, 2.0])), [-1, 0, 2])
    assert_array_equal(leaky.backward(np.ones(3)), [0.25, 0.25, 1])


def test_elu_at_known_points() -> None:
    elu = nn.ELU(2.0)
    assert_allclose(elu(np.array([-math.log(4), 3.0, -1e4])), [-1.5, 3, -2], rtol=1e-15)
    assert_allclose(elu.backward(np.ones(3)), [0.5, 1, 0], rtol=1e-15)


def test_silu_at_known_points() -> None:
    # σ(log 3) = 3/4, and the derivative is s (1 + x (1 - s)).
    silu = nn.SiLU()
    x = math.log(3)
    assert_allclose(silu(np.array([x, -x, 0.0])), [0.75 * x, -0.25 * x, 0], rtol=1e-14)
    assert_allclose(
        silu.backward(np.ones(3)), [0.75 * (1 + x / 4), 0.25 * (1 - 0.75 * x), 0.5], rtol=1e-14
    )


def test_softplus_at_known_points() -> None:
    softplus = nn.Softplus(2.0)
    x = np.array([0.0, math.log(3) / 2, 1e4, -1e4])
    assert_allclose(softplus(x), [math.log(2) / 2, math.log(2), 1e4, 0], rtol=1e-15)
    assert_allclose(softplus.backward(np.ones(4)), [0.5, 0.75, 1, 0], rtol=1e-15)


def test_softplus_of_negative_inputs_keeps_its_relative_precision() -> None:
    assert_allclose(nn.Softplus()(np.array([-30.0, -700.0])), np.exp([-30, -700]), rtol=1e-12)


def test_softplus_is_x_above_its_threshold() -> None:
    softplus = nn.Softplus(2.0, threshold=1.0)
    assert_allclose(
        softplus(np.array([0.0, 0.5, 0.6])), [math.log(2) / 2, math.log1p(math.e) / 2, 0.6]
    )
    assert_allclose(softplus.backward(np.ones(3)), [0.5, 1 / (1 + math.exp(-1)), 1])


def test_selu_keeps_mean_zero_and_variance_one_of_a_normal_distribution() -> None:
    # Gauss-Hermite quadrature on each side of the bend would do too; a fine grid is plainer.
    x = np.linspace(-12, 12, 240_001)
    density = np.exp(-(x**2) / 2) / math.sqrt(2 * math.pi) * (x[1] - x[0])
    y = nn.SELU()(x)
    assert_allclose([density @ y, density @ y**2], [0, 1], atol=1e-8)


def test_mish_at_known_points() -> None:
    # tanh(log u) = (u² - 1) / (u² + 1), and u = 1 + exp(x) is 3 for x = log 2.
    mish = nn.Mish()
    x = math.log(2)
    assert_allclose(mish(np.array([x, 0.0, 1e4, -1e4])), [0.8 * x, 0, 1e4, 0], rtol=1e-14)
    expected = [0.8 + x * 0.36 * 2 / 3, 0.6, 1, 0]
    assert_allclose(mish.backward(np.ones(4)), expected, rtol=1e-14)


def test_pieces_of_the_hard_activations() -> None:
    x = np.array([-4.0, -3.0, -1.0, 0.0, 1.0, 3.0, 7.0])
    for layer, y, slope in (
        (nn.Hardtanh(-1, 2), [-1, -1, -1, 0, 1, 2, 2], [0, 0, 0, 1, 1, 0, 0]),
        (nn.ReLU6(), [0, 0, 0, 0, 1, 3, 6], [0, 0, 0, 0, 1, 1, 0]),
        (
            nn.Hardsigmoid(),
            np.array([0, 0, 2, 3, 4, 6, 6]) / 6,
            np.array([0, 0, 1, 1, 1, 0, 0]) / 6,
        ),
        (
            nn.Hardswish(),
            np.array([0, 0, -2, 0, 4, 18, 42]) / 6,
            np.array([0, 0, 1, 3, 5, 6, 6]) / 6,
        ),
    ):
        assert_allclose(layer(x), y, rtol=1e-15)
        assert_allclose(layer.backward(np.ones(7)), slope, rtol=1e-15)


@pytest.mark.parametrize("layer", [nn.Hardtanh(), nn.ReLU6(), nn.Hardsigmoid(), nn.Hardswish()])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_gradients_of_a_scalar(layer: nn.Layer, dtype: Any) -> None:
    layer(np.full((), 0.5, dtype))
    grad = layer.backward(np.ones((), dtype))
    assert grad.shape == ()
    assert grad.dtype == dtype
    layer(np.full(1, 0.5, dtype))
    np.testing.assert_array_equal(grad, layer.backward(np.ones(1, dtype))[0])


def test_softsign_and_log_sigmoid_at_known_points() -> None:
    softsign = nn.Softsign()
    assert_allclose(softsign(np.array([-3.0, 0.0, 1.0])), [-0.75, 0, 0.5])
    assert_allclose(softsign.backward(np.ones(3)), [1 / 16, 1, 0.25])
    log_sigmoid = nn.LogSigmoid()
    x = np.array([math.log(3), -math.log(3), -1e4, 1e4])
    assert_allclose(log_sigmoid(x), [math.log(0.75), math.log(0.25), -1e4, 0], rtol=1e-14)
    assert_allclose(log_sigmoid.backward(np.ones(4)), [0.25, 0.75, 1, 0], rtol=1e-14)


def test_a_slope_of_prelu_gets_the_sum_over_its_channel() -> None:
    prelu = nn.PReLU(2)
    prelu.weight.data[...] = [0.5, 2.0]
    x = np.array([[[-1.0, 2.0], [-3.0, 4.0]], [[-5.0, 6.0], [7.0, -8.0]]])
    assert_array_equal(prelu(x), [[[-0.5, 2], [-6, 4]], [[-2.5, 6], [7, -16]]])
    grad = np.array([[[1, 10], [1, 10]], [[1, 10], [1, 10]]], float)
    assert_array_equal(prelu.backward(grad), [[[0.5, 10], [2, 10]], [[0.5, 10], [1, 20]]])
    assert_array_equal(prelu.weight.grad, [-6, -83])


def test_glu_gates_one_half_with_the_other() -> None:
    glu = nn.GLU()
    assert_allclose(glu(np.array([[2.0, 3.0, 0.0, math.log(3)]])), [[1, 2.25]])
    assert_allclose(glu.backward(np.ones((1, 2))), [[0.5, 0.75, 0.5, 3 * 0.75 * 0.25]])


@given(shape=shapes, data=st.data())
def test_gradients_of_glu_and_prelu_agree_with_central_differences(
    shape: tuple[int, ...], data: st.DataObject
) -> None:
    dim = data.draw(st.integers(-len(shape), len(shape) - 1))
    doubled = [size * 2 if axis == dim % len(shape) else size for axis, size in enumerate(shape)]
    rng = np.random.default_rng(1)
    assert nn.gradcheck(nn.GLU(dim), rng.normal(size=doubled)).passed
    x = np.abs(rng.normal(size=(2, *shape))) + 0.05
    assert nn.gradcheck(nn.PReLU(shape[0]), x * rng.choice([-1, 1], x.shape)).passed


@pytest.mark.parametrize(
    ("layer", "shape", "message"),
    [
        (nn.GLU(), (2, 3), r"GLU\(\): axis -1 of an input of shape \(2, 3\) cannot be halved"),
        (nn.GLU(2), (2, 4), r"GLU\(dim=2\): an input of shape \(2, 4\) has no axis 2"),
        (nn.PReLU(3), (2, 4), r"PReLU\(.*3\): expected input of shape \(N, 3, ...\), got \(2, 4\)"),
        (nn.PReLU(3), (3,), r"PReLU\(.*3\): expected input of shape \(N, 3, ...\), got \(3,\)"),
    ],
    ids=str,
)
def test_inputs_of_a_wrong_shape_are_an_error(
    layer: nn.Layer, shape: tuple[int, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        layer(np.ones(shape))


@given(finite(38))
def test_gelu_is_x_times_the_normal_distribution_function(x: Any) -> None:
    # Python's erfc is that of the C library, exact to the last digits in either tail.
    cdf = np.reshape([math.erfc(-value / math.sqrt(2)) / 2 for value in x.flat], x.shape)
    assert_allclose(nn.GELU()(x), x * cdf, rtol=2e-12, atol=1e-300)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_gelu_of_tanh_is_near_gelu(dtype: Any) -> None:
    # Hendrycks and Gimpel's approximation is within 5e-4 of it.
    x = np.linspace(-8, 8, 400).astype(dtype)
    assert_allclose(nn.GELU("tanh")(x), nn.GELU()(x), atol=5e-4)
    assert (nn.GELU("tanh")(x) != nn.GELU()(x)).any()


@pytest.mark.parametrize("activation", ELEMENTWISE.values(), ids=ELEMENTWISE.keys())
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_inputs_of_ten_thousand_are_harmless(
    activation: Callable[[], nn.Layer], dtype: Any
) -> None:
    layer = activation()
    with np.errstate(all="raise", under="ignore"):
        y = layer(np.array([-1e4, -1e2, 0, 1e2, 1e4], dtype))
        x_grad = layer.backward(np.ones(5, dtype))
    assert np.isfinite(y).all()
    assert np.isfinite(x_grad).all()


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: nn.LeakyReLU("a"), TypeError, "LeakyReLU: negative_slope must be a number"),
        (lambda: nn.LeakyReLU(math.nan), ValueError, "LeakyReLU: negative_slope must be finite"),
        (lambda: nn.ELU(None), TypeError, "ELU: alpha must be a number"),
        (lambda: nn.Softplus(0), ValueError, "Softplus: beta must be above 0"),
        (lambda: nn.Softplus(-1), ValueError, "Softplus: beta must be at least 0"),
        (lambda: nn.GELU("exact"), ValueError, "GELU: approximate must be one of 'none', 'tanh'"),
        (lambda: nn.Softplus(threshold="x"), TypeError, "Softplus: threshold must be a number"),
        (lambda: nn.Hardtanh(1, 1), ValueError, "Hardtanh: max_val must be above min_val=1, got 1"),
        (lambda: nn.PReLU(0), ValueError, "PReLU: num_parameters must be at least 1"),
        (lambda: nn.GLU(0.5), TypeError, "GLU: dim must be an int"),
        (lambda: nn.LogSoftmax(0.5), TypeError, "LogSoftmax: dim must be an int"),
    ],
)
def test_options_out_of_range_are_an_error(
    make: Callable[[], nn.Layer], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=f"^{message}"):
        make()


# ---- LogSoftmax ----


def test_log_softmax_at_known_points() -> None:
    x = np.log([[1.0, 2.0, 5.0]]) + 100
    assert_allclose(nn.LogSoftmax()(x), np.log([[1 / 8, 2 / 8, 5 / 8]]), rtol=1e-13)


def test_log_softmax_keeps_what_softmax_rounds_to_zero() -> None:
    x = np.array([[0.0, -1e4]])
    assert_array_equal(nn.Softmax()(x), [[1, 0]])
    assert_array_equal(nn.LogSoftmax()(x), [[0, -1e4]])


@given(finite(100), st.data())
def test_log_softmax_is_the_logarithm_of_softmax(x: Any, data: st.DataObject) -> None:
    dim = data.draw(st.integers(-x.ndim, x.ndim - 1))
    assert_allclose(nn.LogSoftmax(dim)(x), np.log(nn.Softmax(dim)(x)), rtol=1e-12, atol=1e-12)


# ---- Softmax ----


def test_softmax_at_known_points() -> None:
    x = np.log([[1.0, 2.0, 5.0]])
    assert_allclose(nn.Softmax()(x), [[0.125, 0.25, 0.625]], rtol=1e-15)


@given(finite(1e4), st.data())
def test_softmax_sums_to_one_along_its_axis_whatever_the_input(x: Any, data: st.DataObject) -> None:
    dim = data.draw(st.integers(-x.ndim, x.ndim - 1))
    y = nn.Softmax(dim)(x)
    assert_allclose(y.sum(axis=dim), 1, rtol=1e-12)
    assert (y >= 0).all()


@given(finite(100), st.floats(-1e4, 1e4))
def test_softmax_does_not_change_when_a_number_is_added_to_all_inputs(x: Any, shift: float) -> None:
    assert_allclose(nn.Softmax()(x + shift), nn.Softmax()(x), rtol=1e-9, atol=1e-300)


def test_softmax_is_stable_at_the_ends_of_the_range() -> None:
    x = np.array([[1e4, 0.0], [-1e4, 0.0], [1e4, 1e4], [-1e4, -1e4]], np.float32)
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        y = nn.Softmax()(x)
    assert_array_equal(y, [[1, 0], [0, 1], [0.5, 0.5], [0.5, 0.5]])


def test_softmax_takes_minus_infinity_as_a_mask() -> None:
    x = np.array([[0.0, -np.inf, 0.0]])
    softmax = nn.Softmax()
    assert_array_equal(softmax(x), [[0.5, 0, 0.5]])
    assert_array_equal(softmax.backward(np.array([[1.0, 5.0, 0.0]])), [[0.25, 0, -0.25]])


def test_softmax_gradient_is_the_product_with_the_whole_jacobian(rng: np.random.Generator) -> None:
    softmax = nn.Softmax()
    x, grad = rng.normal(size=(4, 5)), rng.normal(size=(4, 5))
    y = softmax(x)
    for row, row_grad, x_grad in zip(y, grad, softmax.backward(grad), strict=True):
        jacobian = np.diag(row) - np.outer(row, row)
        assert_allclose(x_grad, jacobian @ row_grad, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("dim", [1.5, "1", None, True])
def test_the_axis_of_softmax_must_be_an_int(dim: Any) -> None:
    with pytest.raises(TypeError, match="^Softmax: dim must be an int, got"):
        nn.Softmax(dim)


@pytest.mark.parametrize("dim", [2, -3])
@pytest.mark.parametrize("kind", [nn.Softmax, nn.LogSoftmax])
def test_softmax_over_an_axis_that_is_not_there_is_an_error(kind: Any, dim: int) -> None:
    message = rf"^{kind.__name__}\(dim={dim}\): an input of shape \(2, 3\) has no axis {dim}$"
    with pytest.raises(ValueError, match=message):
        kind(dim)(np.ones((2, 3)))


def test_the_gradient_of_elu_keeps_its_precision_far_to_the_left() -> None:
    elu = nn.ELU()
    elu(np.array([-30.0, -10.0], np.float32))
    assert_allclose(elu.backward(np.ones(2, np.float32)), np.exp([-30.0, -10.0]), rtol=1e-5)
