"""gradcheck: correct gradients pass, all kinds of errors are found, without side effects."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal, assert_equal

import nnlite as nn
from nnlite.debug.gradcheck import GradCheckResult, GradCheckRow
from nnlite.random import generator

from ..registry import Array

X = np.array([[1.0, -2.0, 0.5], [0.3, 0.1, -1.0]])


class Function(nn.Layer):
    """An elementwise function, with a derivative that may be wrong."""

    def __init__(
        self, function: Callable[[Array], Array], derivative: Callable[[Array], Array]
    ) -> None:
        self.function = function
        self.derivative = derivative

    def forward(self, x: Array) -> Any:
        self.cache(x)
        return self.function(x)

    def backward(self, grad: Array, input_grad: bool = True) -> Any:
        (x,) = self.cached()
        return grad * self.derivative(x)


class Affine(nn.Layer):
    """y = x Wᵀ + b, written as plainly as can be: the right layer that the wrong ones vary."""

    def __init__(self, in_features: int = 3, out_features: int = 2) -> None:
        rng = np.random.default_rng(0)
        self.weight = nn.Parameter(rng.normal(size=(out_features, in_features)))
        self.bias = nn.Parameter(rng.normal(size=out_features))

    def forward(self, x: Array) -> Any:
        self.cache(x)
        return x @ self.weight.data.T + self.bias.data

    def backward(self, grad: Array, input_grad: bool = True) -> Any:
        (x,) = self.cached()
        self.weight.accumulate(grad.T @ x)
        self.bias.accumulate(grad.sum(axis=0))
        return grad @ self.weight.data


class Squares(nn.Layer):
    """Mean over the batch of (p - t)²."""

    def forward(self, prediction: Array, target: Array) -> float:
        self.cache(prediction - target)
        return float(np.sum((prediction - target) ** 2) / len(prediction))

    def backward(self, grad: float = 1.0, input_grad: bool = True) -> Any:
        (difference,) = self.cached()
        return 2 * grad * difference / len(difference)


class Product(nn.Layer):
    """y = a · b, a layer of two inputs."""

    def forward(self, a: Array, b: Array) -> Any:
        self.cache(a, b)
        return a * b

    def backward(self, grad: Array, input_grad: bool = True) -> Any:
        a, b = self.cached()
        return grad * b, grad * a


class RowMaximum(nn.Layer):
    """The largest value of each row; where several tie, `shares` says what each of them gets."""

    def __init__(self, shares: Callable[[Array], Array]) -> None:
        self.shares = shares

    def forward(self, x: Array) -> Any:
        self.cache(x)
        return x.max(axis=1)

    def backward(self, grad: Array, input_grad: bool = True) -> Any:
        (x,) = self.cached()
        return grad[:, None] * self.shares(x == x.max(axis=1, keepdims=True))


class Noisy(nn.Layer):
    """A dropout of one half, which draws from a generator of its own or from the package's."""

    def __init__(self, rng: Any = None) -> None:
        self.rng = rng

    def forward(self, x: Array) -> Any:
        mask = 2.0 * (generator(self.rng).random(x.shape) < 0.5)
        self.cache(mask)
        return x * mask

    def backward(self, grad: Array, input_grad: bool = True) -> Any:
        (mask,) = self.cached()
        return grad * mask


class Centred(nn.Layer):
    """x less the mean of all batches so far: its output depends on a buffer that forward moves."""

    _buffer_names = ("running_mean",)

    def __init__(self) -> None:
        self.running_mean = np.zeros(3)

    def forward(self, x: Array) -> Any:
        self.running_mean = 0.5 * self.running_mean + 0.5
        self.cache()
        return (x - self.running_mean) ** 1

    def backward(self, grad: Array, input_grad: bool = True) -> Any:
        return grad


def row(result: GradCheckResult, name: str = "input") -> GradCheckRow:
    return next(row for row in result.rows if row.name == name)


# ---- correct gradients pass ----


def test_a_right_gradient_agrees_to_many_digits() -> None:
    result = nn.gradcheck(Affine(), X)
    assert [row.name for row in result.rows] == ["input", "weight", "bias"]
    assert [(row.compared, row.size) for row in result.rows] == [(6, 6), (6, 6), (2, 2)]
    assert max(row.error for row in result.rows) < 1e-9


SMOOTH: dict[str, tuple[Callable[[Array], Array], Callable[[Array], Array]]] = {
    "sine": (np.sin, np.cos),
    "fast sine": (lambda x: np.sin(300 * x), lambda x: 300 * np.cos(300 * x)),
    "cube": (lambda x: x**3, lambda x: 3 * x**2),
    "exponential": (np.exp, np.exp),
    "steep tanh": (lambda x: np.tanh(50 * x), lambda x: 50 * (1 - np.tanh(50 * x) ** 2)),
    "logarithm": (lambda x: np.log(np.abs(x)), lambda x: 1 / x),
    "smoothed |x|": (lambda x: np.sqrt(x**2 + 1e-6), lambda x: x / np.sqrt(x**2 + 1e-6)),
    "on a pedestal": (lambda x: 1e5 + np.sin(x), np.cos),
}
points = st.lists(
    st.floats(1e-3, 4.0).flatmap(lambda x: st.sampled_from([x, -x])), min_size=3, max_size=3
)


@given(kind=st.sampled_from(sorted(SMOOTH)), values=points)
def test_right_derivatives_of_smooth_functions_pass_however_curved(
    kind: str, values: list[float]
) -> None:
    assert nn.gradcheck(Function(*SMOOTH[kind]), np.array(values))


@given(
    kind=st.sampled_from(sorted(SMOOTH)),
    values=points,
    error=st.sampled_from([-2.0, -1.0, -0.5, -1e-3, 1e-4, 0.01, 1.0]),
    seed=st.integers(0, 2**32),
)
def test_wrong_derivatives_of_smooth_functions_are_never_excused(
    kind: str, values: list[float], error: float, seed: int
) -> None:
    function, derivative = SMOOTH[kind]
    x = np.array(values)
    # What is below rounding cannot be seen: keep to points where the function changes.
    if np.max(np.abs(derivative(x))) < 1e-3 * max(1, np.max(np.abs(function(x))) / 1e3):
        x = np.array([0.01, 0.02, -0.01])
    wrong = Function(function, lambda x: derivative(x) * (1 + error))
    result = nn.gradcheck(wrong, x, rng=seed)
    assert row(result).verdict == "FAIL"


def test_an_extremum_is_no_kink() -> None:
    x = np.array([[0.0, 1.0]])
    assert nn.gradcheck(Function(np.square, lambda x: 2 * x), x).rows[0].kinks == 0
    assert nn.gradcheck(Function(np.square, lambda x: 2 * x + 1e-3), x).rows[0].verdict == "FAIL"


def test_a_gradient_that_is_only_rounding_counts_as_zero() -> None:
    class Normalised(nn.Layer):
        """Takes the mean of the batch away again, so that the bias before it has no effect."""

        def forward(self, x: Array) -> Any:
            self.cache()
            return x - x.mean(axis=0)

        def backward(self, grad: Array, input_grad: bool = True) -> Any:
            return grad - grad.mean(axis=0)

    x = np.random.default_rng(0).normal(100, 1, (50, 3))
    result = nn.gradcheck(nn.Sequential(Affine(), Normalised()), x)
    assert result
    assert abs(row(result, "0.bias").analytic) < 1e-12


@pytest.mark.parametrize("margin", [10.0, 15.0, 20.0, 25.0, 30.0, 40.0, 100.0])
@pytest.mark.parametrize(
    ("layer", "target"),
    [
        (nn.CrossEntropy(), (np.array([1, 2, 0]),)),
        (nn.CrossEntropy(reduction="sum"), (np.array([1, 2, 0]),)),
        (nn.Softmax(), ()),
        (nn.LogSoftmax(), ()),
        (nn.Sequential(nn.Linear(5, 5, rng=0), nn.Softmax()), ()),
    ],
    ids=["mean", "sum", "Softmax", "LogSoftmax", "in a model"],
)
def test_a_confident_classifier_is_no_error(
    layer: nn.Layer, target: tuple[Array, ...], margin: float
) -> None:
    logits = np.random.default_rng(0).normal(size=(3, 5))
    logits[range(3), [1, 2, 0]] += margin
    nn.gradcheck(layer, logits, *target).raise_if_failed()


def test_a_wrong_gradient_of_a_confident_classifier_is_found() -> None:
    class Wrong(nn.CrossEntropy):
        def backward(self, grad: float = 1.0, input_grad: bool = True) -> Any:
            return 1.1 * super().backward(grad, input_grad)

    logits = np.array([[20.0, 0.0, 0.5]])  # the loss is 5e-9
    assert not nn.gradcheck(Wrong(), logits, np.array([0]))


@pytest.mark.parametrize("x", [1e-2, 1e-6, 1e-8, 1e-12, 1e-30])
@pytest.mark.parametrize(
    ("function", "derivative"),
    [
        (np.sqrt, lambda x: 0.5 / np.sqrt(x)),
        (np.log, lambda x: 1 / x),
        (np.reciprocal, lambda x: -1 / x**2),
        (lambda x: x**1.5, lambda x: 1.5 * np.sqrt(x)),
    ],
    ids=["sqrt", "log", "1/x", "x^1.5"],
)
def test_the_edge_of_a_domain_may_be_near(
    function: Callable[[Array], Array], derivative: Callable[[Array], Array], x: float
) -> None:
    for points in (np.array([x, 3 * x]), np.array([x, 0.7, 2.0])):
        nn.gradcheck(Function(function, derivative), points).raise_if_failed()
    wrong = Function(function, lambda x: derivative(x) * (1 + 1e-4))
    assert not nn.gradcheck(wrong, np.array([x, 3 * x]))


def test_the_edge_of_a_domain_may_be_near_one_of_many_elements() -> None:
    x = np.random.default_rng(0).uniform(0.5, 2, 3000)
    x[7] = 1e-8
    assert nn.gradcheck(nn.Sqrt(), x, max_elements=20)


@pytest.mark.parametrize("offset", [1e2, 1e4, 1e6])
def test_a_large_offset_is_no_error(offset: float) -> None:
    rng = np.random.default_rng(0)
    linear = nn.Linear(8, 8, rng=0)
    linear.bias.data[:] = offset  # type: ignore[union-attr]
    nn.gradcheck(nn.LayerNorm(16), offset + rng.normal(size=(3, 16))).raise_if_failed()
    nn.gradcheck(nn.BatchNorm1d(6), offset + rng.normal(size=(5, 6))).raise_if_failed()
    model = nn.Sequential(linear, nn.LayerNorm(8))
    nn.gradcheck(model, rng.normal(size=(3, 8))).raise_if_failed()


def test_a_slight_error_at_a_large_offset_is_found() -> None:
    class Slight(nn.LayerNorm):
        def backward(self, grad: Array, input_grad: bool = True) -> Any:
            result = super().backward(grad, input_grad)
            return result if result is None else result * (1 + 1e-4)

    x = 1e4 + np.random.default_rng(0).normal(size=(3, 16))
    assert not nn.gradcheck(Slight(16), x)


def test_saturation_is_no_error() -> None:
    assert nn.gradcheck(nn.Sigmoid(), np.array([-800.0, -40.0, 0.0, 40.0, 800.0]))
    assert nn.gradcheck(nn.CrossEntropy(), np.array([[1e4, -1e4], [0.0, 3.0]]), np.array([1, 0]))


# ---- errors are found ----


def wrong_sign(x: Array) -> Any:
    return -np.cos(x)


class ForgottenTerm(nn.Layer):
    def forward(self, x: Array) -> Any:
        e = np.exp(x)
        self.cache(e / e.sum(axis=1, keepdims=True))
        return e / e.sum(axis=1, keepdims=True)

    def backward(self, grad: Array, input_grad: bool = True) -> Any:
        (y,) = self.cached()
        return y * grad  # without - y Σ y grad


class ForgottenAverage(Squares):
    def backward(self, grad: float = 1.0, input_grad: bool = True) -> Any:
        (difference,) = self.cached()
        return 2 * grad * difference


class ForgottenGrad(Squares):
    def backward(self, grad: float = 1.0, input_grad: bool = True) -> Any:
        (difference,) = self.cached()
        return 2 * difference / len(difference)


class AccumulatedTwice(Affine):
    def backward(self, grad: Array, input_grad: bool = True) -> Any:
        self.weight.accumulate(grad.T @ self.cached()[0])
        return super().backward(grad, input_grad)


class ForgottenBias(Affine):
    def backward(self, grad: Array, input_grad: bool = True) -> Any:
        (x,) = self.cached()
        self.weight.accumulate(grad.T @ x)
        return grad @ self.weight.data


class HalfABias(Affine):
    def backward(self, grad: Array, input_grad: bool = True) -> Any:
        self.bias.accumulate(-grad.sum(axis=0) * [0, 1])
        return super().backward(grad, input_grad)


class KeepsTheFirstInput(Affine):
    def forward(self, x: Array) -> Any:
        y = super().forward(x)
        self.first = getattr(self, "first", x.copy())
        self.cache(self.first)
        return y


class OneInputOnly(Product):
    def backward(self, grad: Array, input_grad: bool = True) -> Any:
        _, b = self.cached()
        return grad * b, None


class Swapped(Product):
    def backward(self, grad: Array, input_grad: bool = True) -> Any:
        a, b = self.cached()
        return grad * a, grad * b


@pytest.mark.parametrize(
    ("layer", "inputs", "name", "error"),
    [
        pytest.param(Function(np.sin, wrong_sign), (X,), "input", 2, id="wrong sign"),
        pytest.param(ForgottenTerm(), (X,), "input", None, id="missing term"),
        pytest.param(ForgottenAverage(), (X, X[::-1]), "input[0]", 1 / 2, id="no batch average"),
        pytest.param(ForgottenGrad(), (X, X[::-1]), "input[0]", None, id="grad not used"),
        pytest.param(AccumulatedTwice(), (X,), "weight", 1 / 2, id="accumulated twice"),
        pytest.param(ForgottenBias(), (X,), "bias", 1, id="no gradient"),
        pytest.param(HalfABias(), (X,), "bias", 1, id="one element"),
        pytest.param(OneInputOnly(), (X, X + 1), "input[1]", 1, id="no gradient of an input"),
        pytest.param(KeepsTheFirstInput(), (X,), "weight", None, id="cached only once"),
        pytest.param(Swapped(), (X, X + 1), "input[0]", None, id="gradients swapped"),
        pytest.param(
            Function(np.square, lambda x: 2 * x * (1 + 1e-5)), (X,), "input", 1e-5, id="slight"
        ),
        pytest.param(
            Function(np.sin, lambda x: np.nan * x), (X,), "input", np.inf, id="not a number"
        ),
    ],
)
def test_a_wrong_gradient_fails_where_it_is_wrong(
    layer: nn.Layer, inputs: tuple[Array, ...], name: str, error: float | None
) -> None:
    result = nn.gradcheck(layer, *inputs)
    assert not result
    assert [row.name for row in result.rows if row.verdict == "FAIL"] == [name] + (
        ["input[1]"] if isinstance(layer, Swapped) else []
    )
    if error is not None:
        assert row(result, name).error == pytest.approx(error, rel=1e-3)


def test_the_worst_element_is_named_with_both_derivatives() -> None:
    wrong = np.zeros((2, 3))
    wrong[1, 2] = 1
    layer = Function(lambda x: 3 * x, lambda x: 3 + 6 * wrong)
    worst = row(nn.gradcheck(layer, X))
    assert worst.where == (1, 2)
    assert worst.error == pytest.approx(2 / 3)
    assert worst.analytic == pytest.approx(3 * worst.numeric)
    assert 1.5 <= abs(worst.numeric) <= 3  # a weight of magnitude ½ to 1, times 3


def test_of_several_wrong_elements_the_worst_is_named() -> None:
    wrong = np.array([[0.01, 0, 0], [0, 1, 0.1]])
    assert row(nn.gradcheck(Function(lambda x: x, lambda x: 1 + wrong), X)).where == (1, 1)


def test_one_wrong_element_of_many_is_found_though_not_all_are_tried() -> None:
    class OneWrong(Affine):
        def backward(self, grad: Array, input_grad: bool = True) -> Any:
            error = np.zeros(self.weight.shape)
            error[37, 411] = 0.1
            self.weight.accumulate(error * np.sum(grad))
            return super().backward(grad, input_grad)

    x = np.random.default_rng(0).normal(size=(2, 1000))
    result = nn.gradcheck(OneWrong(1000, 50), x, max_elements=20, rng=0)
    assert [row.verdict for row in result.rows] == ["ok", "FAIL", "ok"]
    assert row(result, "weight").where is None
    assert "direction" in str(result)
    assert nn.gradcheck(Affine(1000, 50), x, max_elements=20, rng=0)


@pytest.mark.parametrize("seed", range(4))
def test_swapped_elements_of_many_are_found(seed: int) -> None:
    x, slopes = np.random.default_rng(0).normal(size=(2, 40_000))
    swapped = slopes.copy()
    swapped[[123, 30_000]] = slopes[[30_000, 123]]
    assert nn.gradcheck(Function(lambda x: x * slopes, lambda x: slopes), x, max_elements=5)
    layer = Function(lambda x: x * slopes, lambda x: swapped)
    assert not nn.gradcheck(layer, x, max_elements=5, rng=seed)


@pytest.mark.parametrize("seed", range(12))
def test_swapped_signs_of_many_are_found(seed: int) -> None:
    class Dot(Function):
        """The sum of all values of a linear function."""

        def forward(self, x: Array) -> Any:
            return super().forward(x).sum()

    signs = np.where(np.arange(2000) % 2, 1.0, -1.0)
    swapped = signs.copy()
    swapped[[122, 1501]] = signs[[1501, 122]]
    x = np.random.default_rng(0).normal(size=2000)
    assert nn.gradcheck(Dot(lambda x: x * signs, lambda x: signs), x, max_elements=5)
    layer = Dot(lambda x: x * signs, lambda x: swapped)
    assert not nn.gradcheck(layer, x, max_elements=5, rng=seed)


@pytest.mark.parametrize("factor", [0.0, 0.9, 1.1, 2.0, -1.0])
@pytest.mark.parametrize("size", [1e-3, 1e-5])
def test_a_small_wrong_element_among_many_is_found(size: float, factor: float) -> None:
    x = np.random.default_rng(0).normal(size=10_000)
    slopes = np.ones(10_000)
    slopes[4321] = size
    wrong = slopes.copy()
    wrong[4321] *= factor
    layer = Function(lambda x: x * slopes, lambda x: wrong)
    assert not nn.gradcheck(layer, x, max_elements=5, rng=0)


# ---- broken promises ----


class Overwrites(Affine):
    def backward(self, grad: Array, input_grad: bool = True) -> Any:
        (x,) = self.cached()
        self.weight.grad = grad.T @ x
        self.bias.accumulate(grad.sum(axis=0))
        return grad @ self.weight.data


class AddsUpInputGradients(Affine):
    def backward(self, grad: Array, input_grad: bool = True) -> Any:
        self.total = getattr(self, "total", 0) + super().backward(grad)
        return self.total


class UsesTheCacheUp(Affine):
    def backward(self, grad: Array, input_grad: bool = True) -> Any:
        result = super().backward(grad)
        self.drop_cache()
        return result


class ScalesItsGrad(Affine):
    def backward(self, grad: Array, input_grad: bool = True) -> Any:
        result = super().backward(grad)
        grad *= 2
        return result


class ScalesItsInput(Affine):
    def forward(self, x: Array) -> Any:
        y = super().forward(x.copy())
        x *= 2
        return y


class ScalesItsInputBackwards(Affine):
    def backward(self, grad: Array, input_grad: bool = True) -> Any:
        result = super().backward(grad)
        self.cached()[0][...] = 0
        return result


class MovesItsWeight(Affine):
    def backward(self, grad: Array, input_grad: bool = True) -> Any:
        result = super().backward(grad)
        self.weight.data -= 0.1
        return result


class ReusesItsOutput(Affine):
    def forward(self, x: Array) -> Any:
        y = super().forward(x)
        self.output = getattr(self, "output", y)
        self.output[...] = y
        return self.output


class ReusesItsGradient(Affine):
    def backward(self, grad: Array, input_grad: bool = True) -> Any:
        result = super().backward(grad)
        self.result = getattr(self, "result", result)
        self.result[...] = result
        return self.result


class LosesWithoutInputGrad(Affine):
    def backward(self, grad: Array, input_grad: bool = True) -> Any:
        if not input_grad:
            return None
        return super().backward(grad)


class FailsWithoutInputGrad(Affine):
    def backward(self, grad: Array, input_grad: bool = True) -> Any:
        if not input_grad:
            raise KeyError("dx")
        return super().backward(grad)


class NoInputGrad(Affine):
    def backward(self, grad: Array) -> Any:  # type: ignore[override]
        return super().backward(grad)


class Clips(Affine):
    def backward(self, grad: Array, input_grad: bool = True) -> Any:
        return super().backward(np.clip(grad, -1, 1))


class Single(Affine):
    def forward(self, x: Array) -> Any:
        return super().forward(x).astype(np.float32)


class SingleGradient(Affine):
    def backward(self, grad: Array, input_grad: bool = True) -> Any:
        return super().backward(grad).astype(np.float32)


class SumsItsGradient(Affine):
    def backward(self, grad: Array, input_grad: bool = True) -> Any:
        return super().backward(grad).sum(axis=0, keepdims=True)


class NoOutput(Affine):
    def forward(self, x: Array) -> Any:
        super().forward(x)


class NoGradient(Affine):
    def backward(self, grad: Array, input_grad: bool = True) -> Any:
        super().backward(grad)


class NotFinite(Affine):
    def forward(self, x: Array) -> Any:
        return super().forward(x) * np.inf


class Counts(Affine):
    def forward(self, x: Array) -> Any:
        self.calls = getattr(self, "calls", 0) + 1
        return super().forward(x) + self.calls


class DrawsFromNowhere(Affine):
    numbers = iter(np.random.default_rng(0).random(10000))

    def forward(self, x: Array) -> Any:
        return super().forward(x) * next(self.numbers)


class ThreeGradients(Product):
    def backward(self, grad: Array, input_grad: bool = True) -> Any:
        return (*super().backward(grad), grad)


class LossThatNeedsItsGrad(Squares):
    def backward(self, grad: float = 2.0, input_grad: bool = True) -> Any:
        return super().backward(grad)


@pytest.mark.parametrize(
    ("layer", "fault"),
    [
        (Overwrites(), "a second backward overwrites the gradient of weight"),
        (AddsUpInputGradients(), "a second backward does not return what the first returned"),
        (UsesTheCacheUp(), "a second backward raises RuntimeError.*forward"),
        (ScalesItsGrad(), "backward changes the gradient that it is given"),
        (ScalesItsInput(), "forward changes input"),
        (ScalesItsInputBackwards(), "backward changes input"),
        (MovesItsWeight(), "backward changes weight"),
        (ReusesItsOutput(), "another forward changes an output that forward has returned"),
        (ReusesItsGradient(), "another backward changes a gradient that backward has returned"),
        (LosesWithoutInputGrad(), "with input_grad=False does not add what .* to weight"),
        (FailsWithoutInputGrad(), "with input_grad=False raises KeyError: 'dx'"),
        (NoInputGrad(), "backward has no input_grad"),
        (Clips(), "backward of -3 times the gradient does not return -3 times"),
        (Single(), "forward returns float32"),
        (SingleGradient(), "the gradient of input is float32"),
        (SumsItsGradient(), r"the gradient of input is of shape \(1, 3\) instead of \(2, 3\)"),
        (NoOutput(), "forward returns None"),
        (NoGradient(), "backward gives no gradient for input"),
        (ForgottenBias(), "backward gives no gradient for bias"),
        (NotFinite(), "not finite"),
        (Counts(), "a second forward gives other values for the same input"),
        (DrawsFromNowhere(), "a second forward gives other values for the same input"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Layer) else "",
)
def test_a_broken_promise_is_a_fault(layer: nn.Layer, fault: str) -> None:
    result = nn.gradcheck(layer, X)
    assert not result
    assert any(re.search(fault, found) for found in result.faults), result


def test_a_wrong_number_of_gradients_is_a_fault() -> None:
    result = nn.gradcheck(ThreeGradients(), X, X)
    assert result.faults == ("backward returns 3 gradients for 2 inputs",)


def test_one_gradient_for_two_inputs_is_a_fault() -> None:
    class One(Product):
        def backward(self, grad: Array, input_grad: bool = True) -> Any:
            return super().backward(grad)[0]

    assert nn.gradcheck(One(), X, X).faults == ("backward returns 1 gradients for 2 inputs",)


def test_a_loss_has_to_be_differentiated_without_a_gradient_too() -> None:
    result = nn.gradcheck(LossThatNeedsItsGrad(), X, X[::-1])
    assert any("backward without a gradient" in fault for fault in result.faults)


def test_a_loss_whose_backward_takes_no_gradient_is_a_fault() -> None:
    class Plain(Squares):
        def backward(self) -> Any:  # type: ignore[override]
            return super().backward()

    result = nn.gradcheck(Plain(), X, X[::-1])
    assert result.faults == ("backward takes no gradient, which fit and containers pass to it",)
    assert row(result, "input[0]").verdict == "ok"


def test_a_loss_whose_backward_has_no_default_is_a_fault() -> None:
    class NoDefault(Squares):
        def backward(self, grad: float, input_grad: bool = True) -> Any:  # type: ignore[override]
            return super().backward(grad), None

    (fault,) = nn.gradcheck(NoDefault(), X, X[::-1], constants=[1]).faults
    assert "backward without a gradient raises TypeError" in fault


# ---- linearity ----


class Doubles(nn.Layer):
    """y = 2 x, with a gradient that is changed by a function."""

    def __init__(self, change: Callable[[Array], Array]) -> None:
        self.change = change

    def forward(self, x: Array) -> Any:
        self.cache()
        return 2 * x

    def backward(self, grad: Array, input_grad: bool = True) -> Any:
        self.cached()
        return self.change(2 * grad)


@pytest.mark.parametrize(
    "change",
    [
        *(lambda grad, c=c: np.clip(grad, -c, c) for c in (1.0, 10.0, 1e3, 1e9)),
        *(lambda grad, c=c: grad * min(1, c / np.linalg.norm(grad)) for c in (1.0, 10.0, 1e9)),
        *(lambda grad, c=c: np.where(np.abs(grad) < c, 0, grad) for c in (1e-3, 1e-9)),
        np.abs,
    ],
    ids=[
        *("clip 1", "clip 10", "clip 1e3", "clip 1e9"),
        *("norm 1", "norm 10", "norm 1e9"),
        *("dead below 1e-3", "dead below 1e-9", "magnitude"),
    ],
)
def test_a_backward_that_is_not_linear_is_found_at_any_size(
    change: Callable[[Array], Array],
) -> None:
    assert nn.gradcheck(Doubles(lambda grad: grad), X)
    assert not nn.gradcheck(Doubles(change), X)


# ---- memory order ----


class FillsC(nn.Layer):
    """y = x³, by way of flat views: right for arrays in C order alone."""

    def __init__(self, where: str) -> None:
        self.where = where

    def forward(self, x: Array) -> Any:
        self.cache(x)
        y = np.zeros_like(x)
        if self.where == "forward":
            y.reshape(-1)[:] = x.reshape(-1) ** 3  # writes into a copy, unless x is in C order
        else:
            y[...] = x**3
        return y

    def backward(self, grad: Array, input_grad: bool = True) -> Any:
        (x,) = self.cached()
        slope = 3 * x**2
        if self.where == "like x":
            dx = np.zeros_like(x)
            dx.reshape(-1)[:] = (slope * grad).reshape(-1)
        elif self.where == "like grad":
            dx = np.zeros_like(grad)
            dx.reshape(-1)[:] = (slope * grad).reshape(-1)
        elif self.where == "memory":
            dx = np.array(slope)
            dx.ravel("K")[:] *= grad.ravel("K")
        elif self.where == "strides":
            grad = np.lib.stride_tricks.as_strided(grad, strides=np.zeros(x.shape).strides)
            dx = slope * grad
        else:
            dx = slope * grad
        return dx


@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 4), (2, 3, 4, 5)])
@pytest.mark.parametrize(
    ("where", "fault"),
    [
        ("forward", "forward gives other values for inputs in another memory order"),
        ("like x", "backward after inputs in another memory order does not return"),
        ("memory", "backward after inputs in another memory order does not return"),
        ("like grad", "backward of a gradient in another memory order does not return"),
        ("strides", "backward of a gradient in another memory order does not return"),
    ],
)
def test_relying_on_the_memory_order_is_a_fault(
    where: str, fault: str, shape: tuple[int, ...]
) -> None:
    x = np.random.default_rng(0).normal(size=shape)
    assert nn.gradcheck(FillsC("nowhere"), x)
    assert nn.gradcheck(FillsC("nowhere"), np.asfortranarray(x))
    for stored in (x, np.asfortranarray(x)):
        (found,) = nn.gradcheck(FillsC(where), stored).faults
        assert fault in found


def test_an_array_of_one_axis_may_have_gaps() -> None:
    (fault,) = nn.gradcheck(FillsC("strides"), X[0]).faults
    assert "backward of a gradient in another memory order" in fault


def test_an_error_for_another_memory_order_is_a_fault() -> None:
    class Flat(Affine):
        def forward(self, x: Array) -> Any:
            if not x.flags.c_contiguous:
                raise BufferError("not contiguous")
            return super().forward(x)

    (fault,) = nn.gradcheck(Flat(), X).faults
    assert fault == "forward of inputs in another memory order raises BufferError: not contiguous"


# ---- kinks ----


@pytest.mark.parametrize("distance", [0, 1e-12, 1e-9, 1e-7, 1e-5, 1e-3])
@pytest.mark.parametrize("sign", [1, -1])
def test_a_relu_passes_at_any_distance_from_its_kink(distance: float, sign: int) -> None:
    assert nn.gradcheck(nn.ReLU(), np.array([[sign * distance, 1.0, -1.0]]))


def test_elements_on_a_kink_are_counted_and_compared_nearby() -> None:
    result = nn.gradcheck(nn.ReLU(), np.array([[0.0, 1.0, 0.0, -1.0]]))
    assert result
    assert (row(result).kinks, row(result).compared) == (2, 4)
    assert "2 elements lie on a kink" in str(result)


@pytest.mark.parametrize(
    ("function", "derivative"),
    [
        (np.abs, lambda x: -np.sign(x)),
        (np.abs, lambda x: np.sign(x) * 0.99),
        (lambda x: np.maximum(x, 0), lambda x: 1.0 * (x <= 0)),
        (lambda x: np.maximum(x, 0), lambda x: 0.5 + 0 * x),
    ],
    ids=["sign", "scale", "side", "half"],
)
@pytest.mark.parametrize("x", [[0.0, 0.0], [0.0, 1.0], [1e-10, -1e-10], [1e-8, 0.0], [1.0, -1.0]])
def test_a_kink_excuses_no_error(
    function: Callable[[Array], Array], derivative: Callable[[Array], Array], x: list[float]
) -> None:
    assert not nn.gradcheck(Function(function, derivative), np.array(x))


@pytest.mark.parametrize(
    ("function", "derivative", "least", "most"),
    [
        (np.abs, np.sign, -1, 1),
        (lambda x: np.maximum(x, 0), lambda x: 1.0 * (x > 0), 0, 1),
        (lambda x: np.minimum(x, 0.1 * x), lambda x: np.where(x > 0, 0.1, 1.0), 0.1, 1),
        (lambda x: np.clip(x, -1, 0), lambda x: 1.0 * ((x > -1) & (x < 0)), 0, 1),
    ],
    ids=["abs", "relu", "leaky", "clip"],
)
def test_at_a_kink_the_gradient_lies_between_the_slopes_of_both_sides(
    function: Callable[[Array], Array],
    derivative: Callable[[Array], Array],
    least: float,
    most: float,
) -> None:
    x = np.array([[0.0, 1.5, -1.5], [-0.3, 0.0, 0.0]])
    for inside in (least, (least + most) / 2, most):
        layer = Function(function, lambda x, s=inside: np.where(x == 0, s, derivative(x)))
        assert nn.gradcheck(layer, x)
    for outside in (least - 0.1, most + 0.1, 5.0, -5.0):
        layer = Function(function, lambda x, s=outside: np.where(x == 0, s, derivative(x)))
        assert row(nn.gradcheck(layer, x)).verdict == "FAIL"


def test_windows_that_overlap_choose_among_ties_each_for_itself() -> None:
    # Equal values, weighted with either sign: the sum may lie outside of the slopes of F.
    for seed in range(5):
        assert nn.gradcheck(nn.MaxPool2d(3, stride=1), np.ones((1, 1, 5, 5)), rng=seed)


def test_not_a_number_is_no_derivative_at_a_kink_either() -> None:
    def sign_or_nan(x: Array) -> Any:
        return np.where(x == 0, np.nan, np.sign(x))

    assert nn.gradcheck(Function(np.abs, sign_or_nan), np.array([1.0, -1.0]))
    assert not nn.gradcheck(Function(np.abs, sign_or_nan), np.array([0.0, -1.0]))


@pytest.mark.parametrize(
    "shares",
    [
        lambda ties: ties & (np.cumsum(ties, axis=1) == 1),
        lambda ties: ties / ties.sum(axis=1, keepdims=True),
    ],
    ids=["first", "evenly"],
)
def test_either_way_to_share_the_gradient_of_a_tie_passes(
    shares: Callable[[Array], Array],
) -> None:
    x = np.array([[0.0, 0.0, -1.0], [3.0, 2.0, 1.0], [5.0, 5.0, 5.0]])
    result = nn.gradcheck(RowMaximum(shares), x)
    assert result
    assert row(result).kinks == 5


def test_giving_the_whole_gradient_to_all_that_tie_fails() -> None:
    everything = RowMaximum(lambda ties: ties)
    assert nn.gradcheck(everything, np.array([[3.0, 2.0, 1.0]]))
    result = nn.gradcheck(everything, np.array([[3.0, 3.0, 1.0]]))
    assert not result
    assert "where values tie" in result.faults[0]


def test_a_direction_through_kinks_is_compared_nearby() -> None:
    def wrong_near_zero(x: Array) -> Any:
        return np.where(np.abs(x) < 0.01, -1, 1) * np.sign(x)

    x = np.ones(1000)
    x[::100] = 0
    assert nn.gradcheck(Function(np.abs, np.sign), x, max_elements=2)
    assert not nn.gradcheck(Function(np.abs, wrong_near_zero), x, max_elements=2)


def test_a_parameter_on_a_kink_is_compared_nearby() -> None:
    class AbsoluteFactor(nn.Layer):
        def __init__(self, sign: float) -> None:
            self.sign = sign
            self.weight = nn.Parameter(np.zeros(3))

        def forward(self, x: Array) -> Any:
            self.cache(x)
            return np.abs(self.weight.data) * x

        def backward(self, grad: Array, input_grad: bool = True) -> Any:
            (x,) = self.cached()
            self.weight.accumulate(self.sign * np.sum(grad * x, axis=0) * np.sign(self.weight.data))
            return grad * np.abs(self.weight.data)

    result = nn.gradcheck(AbsoluteFactor(1), X)
    assert result
    assert row(result, "weight").kinks == 3
    assert row(nn.gradcheck(AbsoluteFactor(-1), X), "weight").verdict == "FAIL"


def test_a_kink_with_nothing_to_compare_nearby_does_not_pass() -> None:
    def only_near_zero(x: Array) -> Any:
        if np.max(np.abs(x)) > 2e-5:
            raise ValueError("outside of the domain")
        return np.abs(x)

    result = nn.gradcheck(Function(only_near_zero, np.sign), np.zeros(4))
    assert not result
    assert (row(result).verdict, row(result).compared, row(result).kinks) == ("kink", 0, 0)
    assert "no derivative to compare with" in str(result)


def test_a_network_is_checked_although_all_its_units_are_on_a_kink() -> None:
    def network(derivative: Callable[[Array], Array]) -> nn.Layer:
        relu = Function(lambda x: np.maximum(x, 0), derivative)
        return nn.Sequential(nn.Linear(3, 4, bias=False, rng=0), relu, nn.Linear(4, 2, rng=1))

    zeros = np.zeros((2, 3))
    assert nn.gradcheck(network(lambda x: x > 0), zeros)
    assert not nn.gradcheck(network(lambda x: -1.0 * (x > 0)), zeros)


def test_a_step_is_no_kink() -> None:
    straight_through = Function(np.round, np.ones_like)
    assert row(nn.gradcheck(straight_through, np.array([0.3, 1.8]))).verdict == "FAIL"


def test_what_is_not_defined_beside_the_point_fails_and_says_so() -> None:
    with np.errstate(divide="ignore"):
        result = nn.gradcheck(
            Function(np.sqrt, lambda x: 0.5 / np.sqrt(np.maximum(x, 1e-300))), np.array([0.0, 4.0])
        )
    assert not result
    assert "not defined on both sides" in str(result)


# ---- randomness and buffers ----


@pytest.mark.parametrize("rng", [None, 3], ids=["package", "own"])
def test_every_forward_draws_the_same(rng: int | None) -> None:
    layer = Noisy(None if rng is None else np.random.default_rng(rng))
    x = np.random.default_rng(0).normal(size=(10, 10))
    assert nn.gradcheck(layer, x)
    assert nn.gradcheck(nn.Sequential(layer, Affine(10, 2)), x)


def test_every_forward_starts_from_the_same_buffers() -> None:
    assert nn.gradcheck(Centred(), X)
    assert nn.gradcheck(nn.Sequential(Affine(), Affine(2, 3), Centred()), X)


# ---- arguments and side effects ----


def plain(value: Any) -> Any:
    """Return copies of all that hangs on a layer but its cache, in a form that can be compared."""
    if isinstance(value, nn.Layer):
        return {name: plain(item) for name, item in vars(value).items() if name != "_cache"}
    if isinstance(value, nn.Parameter):
        return value.data.copy(), copy.copy(value.grad), value.dtype
    if isinstance(value, np.random.Generator):
        return value.bit_generator.state
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return copy.deepcopy(value)


@pytest.mark.parametrize("kind", ["passes", "fails", "raises"])
def test_nothing_is_touched(kind: str) -> None:
    class Raises(Affine):
        def backward(self, grad: Array, input_grad: bool = True) -> Any:
            raise ZeroDivisionError

    last = {"passes": Affine, "fails": AccumulatedTwice, "raises": Raises}[kind](3, 2)
    noisy = Noisy(np.random.default_rng(1))
    model = nn.Sequential(nn.Linear(3, 3), Noisy(), noisy, Centred(), last).eval()
    x = X.astype(np.float32)
    model(x)
    if kind != "raises":
        model.backward(np.ones((2, 2)))
    parameters = [(p, p.data, p.grad) for p in model.parameters()]
    caches = [layer._cache.values for _, layer in model.named_layers()]
    before, inputs = plain([model, generator()]), x.copy()
    if kind == "raises":
        with pytest.raises(ZeroDivisionError):
            nn.gradcheck(model, x)
    else:
        assert bool(nn.gradcheck(model, x)) is (kind == "passes")
    assert_equal(plain([model, generator()]), before)
    assert_array_equal(x, inputs)
    for parameter, data, grad in parameters:
        assert parameter.data is data
        assert parameter.grad is grad
    for (_, layer), cache in zip(model.named_layers(), caches, strict=True):
        assert layer._cache.values is cache


def test_a_layer_that_spoils_its_inputs_does_not_spoil_the_callers() -> None:
    x, labels = X.copy(), np.array([0, 1])

    class Spoils(nn.CrossEntropy):
        def forward(self, prediction: Array, target: Array) -> Any:
            result = super().forward(prediction.copy(), target.copy())
            prediction[...] = 0
            target[...] = 0
            return result

    assert not nn.gradcheck(Spoils(), x, labels)
    assert_array_equal(x, X)
    assert_array_equal(labels, [0, 1])


def test_a_float32_model_is_checked_in_float64() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    assert nn.gradcheck(model, X.astype(np.float32))
    assert all(parameter.dtype == np.float32 for parameter in model.parameters())


def test_integers_are_passed_on_and_not_checked() -> None:
    class Lookup(nn.Layer):
        def __init__(self) -> None:
            self.weight = nn.Parameter(np.eye(4))

        def forward(self, indices: Array) -> Any:
            assert indices.dtype == np.int8
            self.cache(indices)
            return self.weight.data[indices]

        def backward(self, grad: Array, input_grad: bool = True) -> Any:
            (indices,) = self.cached()
            total = np.zeros(self.weight.shape)
            np.add.at(total, indices, grad)
            self.weight.accumulate(total)

    result = nn.gradcheck(Lookup(), np.array([[0, 2], [2, 2]], dtype=np.int8))
    assert result
    assert [row.name for row in result.rows] == ["weight"]


def test_several_inputs_are_all_checked() -> None:
    result = nn.gradcheck(Product(), X, X + 1)
    assert result
    assert [row.name for row in result.rows] == ["input[0]", "input[1]"]


def test_inputs_that_a_layer_names_go_by_their_names() -> None:
    product = Product()
    product.inputs = ("left", "right")  # type: ignore[attr-defined]
    assert [row.name for row in nn.gradcheck(product, X, X).rows] == ["left", "right"]


def test_inputs_and_outputs_may_be_nested_in_tuples() -> None:
    class Step(nn.Layer):
        """h' = c · x, c' = h + c."""

        def forward(self, x: Array, state: tuple[Array, Array]) -> Any:
            h, c = state
            self.cache(x, c)
            return c * x, h + c

        def backward(self, grad: Any, input_grad: bool = True) -> Any:
            x, c = self.cached()
            dh, dc = grad
            return dh * c, (dc, dh * x + dc)

    result = nn.gradcheck(Step(), X, (X + 1, X - 1))
    assert result
    assert [row.name for row in result.rows] == ["input[0]", "input[1][0]", "input[1][1]"]


def test_scalars_and_layers_without_inputs_are_checked() -> None:
    class Weight(nn.Layer):
        def __init__(self) -> None:
            self.value = nn.Parameter(np.array(3.0))

        def forward(self) -> Any:
            self.cache()
            return self.value.data**2

        def backward(self, grad: Array, input_grad: bool = True) -> Any:
            self.value.accumulate(2 * self.value.data * grad)

    assert nn.gradcheck(Product(), 3.0, -4.0)
    assert nn.gradcheck(Weight())


def test_a_loss_may_leave_its_target_without_a_gradient() -> None:
    result = nn.gradcheck(Squares(), X, X[::-1])
    assert result
    assert row(result, "input[1]").verdict == "constant"


def test_constants_are_not_checked() -> None:
    assert not nn.gradcheck(OneInputOnly(), X, X + 1)
    result = nn.gradcheck(OneInputOnly(), X, X + 1, constants=[1])
    assert result
    assert row(result, "input[1]").verdict == "constant"


def test_options_are_given_to_forward() -> None:
    class Power(nn.Layer):
        def forward(self, x: Array, exponent: int = 1) -> Any:
            self.cache(x, exponent)
            return x**exponent

        def backward(self, grad: Array, input_grad: bool = True) -> Any:
            x, exponent = self.cached()
            return grad * exponent * x ** (exponent - 1)

    result = nn.gradcheck(Power(), np.array([2.0]), options={"exponent": 3})
    assert result
    assert 6 <= abs(row(result).analytic) <= 12  # 3 · 2², times a weight of ½ to 1


def test_a_frozen_parameter_is_not_checked() -> None:
    layer = ForgottenBias()
    layer.bias.requires_grad = False
    result = nn.gradcheck(layer, X)
    assert result
    assert row(result, "bias").verdict == "frozen"


def test_a_shared_parameter_is_checked_once_with_the_sum_of_its_gradients() -> None:
    step = nn.Linear(3, 3)
    result = nn.gradcheck(nn.Sequential(step, nn.Tanh(), step.tied()), X)
    assert result
    assert [row.name for row in result.rows] == ["input", "0.weight", "0.bias"]


def test_the_mode_is_that_of_the_model() -> None:
    class ByMode(nn.Layer):
        def forward(self, x: Array) -> Any:
            self.cache()
            return 5 * x if self.training else x

        def backward(self, grad: Array, input_grad: bool = True) -> Any:
            return grad

    assert not nn.gradcheck(ByMode(), X)
    assert nn.gradcheck(ByMode().eval(), X)


# ---- the result ----


def test_the_same_rng_gives_the_same_result() -> None:
    assert nn.gradcheck(Affine(), X, rng=5) == nn.gradcheck(Affine(), X, rng=5)
    assert nn.gradcheck(Affine(), X, rng=5) != nn.gradcheck(Affine(), X, rng=6)


def test_the_table_names_what_was_checked_and_the_verdict() -> None:
    lines = str(nn.gradcheck(AccumulatedTwice(), X)).splitlines()
    assert "AccumulatedTwice" in lines[0]
    assert "FAILED" in lines[0]
    assert lines[1].split() == (
        ["name", "shape", "compared", "error", "where", "analytic", "numeric", "verdict"]
    )
    assert [line.split()[0] for line in lines[2:]] == ["input", "weight", "bias"]
    assert [line.split()[-1] for line in lines[2:]] == ["ok", "FAIL", "ok"]


def test_a_failure_can_be_raised_with_its_table() -> None:
    nn.gradcheck(Affine(), X).raise_if_failed()
    with pytest.raises(AssertionError, match=r"weight .*FAIL"):
        nn.gradcheck(AccumulatedTwice(), X).raise_if_failed()


def test_the_table_is_html_in_a_notebook() -> None:
    class Odd(Affine):
        def __repr__(self) -> str:
            return "<script>&"

    html = nn.gradcheck(Odd(), X)._repr_html_()
    assert "<script>" not in html
    assert "&lt;script&gt;&amp;" in html
    assert "<td" in html


# ---- bad input ----


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: nn.gradcheck(nn.ReLU, X), TypeError, "the class ReLU"),
        (lambda: nn.gradcheck(np.sin, X), TypeError, "expected a layer.*ufunc"),
        (lambda: nn.gradcheck(nn.ReLU(), np.array([np.nan])), ValueError, "input.*not finite"),
        (lambda: nn.gradcheck(nn.ReLU(), np.array([1, 2])), ValueError, "no input of floats"),
        (lambda: nn.gradcheck(nn.ReLU(), X, tolerance=0), ValueError, "tolerance"),
        (lambda: nn.gradcheck(nn.ReLU(), X, constants=[1]), ValueError, "position 1"),
        (lambda: nn.gradcheck(nn.ReLU(), X, max_elements=0), ValueError, "max_elements"),
        (lambda: nn.gradcheck(nn.Linear(4, 2), X), ValueError, r"Linear\(4, 2\).*\(2, 3\)"),
    ],
)
def test_bad_input_is_one_clear_sentence(
    call: Callable[[], Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        call()
