"""`Lambda`: a function and its derivative, their results, and errors."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.testing import assert_allclose, assert_array_equal

import nnlite as nn

FUNCTIONS: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    "sin": (np.sin, np.cos),
    "cube": (lambda x: x**3, lambda x: 3 * x**2),
    "logistic": (lambda x: 1 / (1 + np.exp(-x)), lambda x: np.exp(-x) / (1 + np.exp(-x)) ** 2),
    "twice": (lambda x: 2 * x, lambda x: 2),
    "identity": (lambda x: x, np.ones_like),
}
every_function = pytest.mark.parametrize(
    ("function", "derivative"), FUNCTIONS.values(), ids=FUNCTIONS.keys()
)
shapes = hnp.array_shapes(min_dims=1, max_dims=4, max_side=4)


@every_function
@given(shape=shapes, seed=st.integers(0, 100))
def test_output_and_gradient_are_those_of_the_functions(
    function: Any, derivative: Any, shape: tuple[int, ...], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    x, grad = rng.normal(size=shape), rng.normal(size=shape)
    layer = nn.Lambda(function, derivative)
    assert_array_equal(layer(x), function(x))
    assert_array_equal(layer.backward(grad), grad * derivative(x))


@every_function
@given(shape=shapes, factor=st.floats(-2, 2).filter(lambda factor: abs(factor - 1) > 1e-3))
def test_gradcheck_passes_the_derivative_and_no_other(
    function: Any, derivative: Any, shape: tuple[int, ...], factor: float
) -> None:
    x = np.random.default_rng(0).normal(size=shape)
    assert nn.gradcheck(nn.Lambda(function, derivative), x).passed
    assert not nn.gradcheck(nn.Lambda(function, lambda x: factor * derivative(x)), x).passed


def test_gradcheck_finds_a_function_that_is_not_elementwise_after_all() -> None:
    x = np.random.default_rng(0).normal(size=(2, 3))
    running_sum = nn.Lambda(lambda x: np.cumsum(x, axis=1), np.ones_like)
    assert not nn.gradcheck(running_sum, x).passed
    right = nn.Lambda(
        lambda x: np.cumsum(x, axis=1),
        vjp=lambda x, grad: np.cumsum(grad[:, ::-1], axis=1)[:, ::-1],
    )
    assert nn.gradcheck(right, x).passed


@given(shape=hnp.array_shapes(min_dims=2, max_dims=4, max_side=4))
def test_with_a_vjp_the_output_has_any_shape(shape: tuple[int, ...]) -> None:
    total = nn.Lambda(
        lambda x: np.sum(x**2, axis=-1),
        vjp=lambda x, grad: 2 * x * grad[..., None],
    )
    x = np.random.default_rng(0).normal(size=shape)
    assert total(x).shape == shape[:-1]
    nn.gradcheck(total, x).raise_if_failed()


def test_it_trains_in_a_network_like_the_layer_that_it_imitates() -> None:
    relu = nn.Lambda(lambda x: np.maximum(x, 0), lambda x: x > 0)
    x = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    results = []
    for activation in (relu, nn.ReLU()):
        model = nn.Sequential(nn.Linear(4, 8, rng=0), activation, nn.Linear(8, 2, rng=1))
        output = model(x)
        results.append([output, model.backward(np.ones_like(output)), model[0].weight.grad])
    for mine, expected in zip(*results, strict=True):
        assert mine.dtype == np.float32
        assert_allclose(mine, expected, rtol=1e-6)


# ---- results of the functions ----


@pytest.mark.parametrize(
    ("returned", "expected"),
    [
        (np.array([1.5, 2.5]), [1.5, 2.5]),
        ([1, 2], [1, 2]),
        (np.array([True, False]), [1, 0]),
        (np.array([1, 2], np.uint8), [1, 2]),
    ],
    ids=["float64", "list", "bool", "uint8"],
)
def test_whatever_numbers_they_return_a_float32_network_stays_float32(
    returned: Any, expected: list[float]
) -> None:
    x, grad = np.ones(2, np.float32), np.full(2, 2, np.float32)
    by_derivative = nn.Lambda(lambda x: returned, lambda x: returned)
    by_vjp = nn.Lambda(lambda x: returned, vjp=lambda x, grad: returned)
    for layer, factor in ((by_derivative, 2), (by_vjp, 1)):
        y = layer(x)
        x_grad = layer.backward(grad)
        assert y.dtype == x_grad.dtype == np.float32
        assert_array_equal(y, expected)
        assert_array_equal(x_grad, factor * np.array(expected))


def test_a_float64_constant_does_no_harm_and_a_float64_network_stays_float64() -> None:
    table = np.linspace(0, 1, 3)
    layer = nn.Lambda(lambda x: x * table, lambda x: table + 0 * x)
    for dtype in (np.float32, np.float64):
        assert layer(np.ones((2, 3), dtype)).dtype == dtype
        assert layer.backward(np.ones((2, 3))).dtype == dtype


X = np.ones((2, 3))
NOT_NUMBERS = r"must return an array of real numbers, got "


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (np.ones((3, 2)), ValueError, r"must return an array of shape \(2, 3\), got \(3, 2\)"),
        (np.ones(3), ValueError, r"must return an array of shape \(2, 3\), got \(3,\)"),
        (None, TypeError, NOT_NUMBERS + "NoneType of dtype object"),
        (1j * X, TypeError, NOT_NUMBERS + "ndarray of dtype complex128"),
        ("abc", TypeError, NOT_NUMBERS + "str"),
    ],
    ids=["transposed", "one row", "None", "complex", "str"],
)
def test_what_does_not_fit_is_an_error_that_names_the_function(
    value: Any, error: type[Exception], message: str
) -> None:
    def f(x: Any) -> Any:
        return value

    def g(x: Any, grad: Any) -> Any:
        return value

    with pytest.raises(error, match=rf"^Lambda\(f, cos\): function {message}"):
        nn.Lambda(f, np.cos)(X)
    for name, layer in {
        "derivative": nn.Lambda(np.sin, f),
        "vjp": nn.Lambda(np.sin, vjp=g),
    }.items():
        layer(X)
        with pytest.raises(error, match=rf"^{re.escape(repr(layer))}: {name} {message}"):
            layer.backward(X)


def test_a_number_is_a_derivative_but_no_output() -> None:
    layer = nn.Lambda(np.negative, lambda x: -1.0)
    layer(X)
    assert_array_equal(layer.backward(X), -X)
    with pytest.raises(ValueError, match=r"shape \(2, 3\), got \(\); .*not elementwise, give vjp="):
        nn.Lambda(np.sum, np.ones_like)(X)


# ---- memory ----


def test_the_functions_cannot_write_into_what_they_get() -> None:
    def spoil(x: Any, *grad: Any) -> Any:
        for array in (x, *grad):
            with pytest.raises(ValueError, match="read-only"):
                array += 1
        return x

    x, grad = np.zeros(3), np.ones(3)
    for layer in (nn.Lambda(spoil, spoil), nn.Lambda(spoil, vjp=spoil)):
        layer(x)
        layer.backward(grad)
    assert_array_equal(x, 0)
    assert_array_equal(grad, 1)


def test_a_view_that_they_return_becomes_memory_of_its_own() -> None:
    layer = nn.Lambda(lambda x: x[::-1], vjp=lambda x, grad: grad[::-1])
    x, grad = np.arange(3.0), np.arange(3.0)
    y, x_grad = layer(x), layer.backward(grad)
    y[...] = x_grad[...] = 9
    assert_array_equal(x, [0, 1, 2])
    assert_array_equal(grad, [0, 1, 2])


def test_without_input_grad_no_derivative_is_computed() -> None:
    layer = nn.Lambda(np.sin, lambda x: pytest.fail("the derivative was called"))
    y = layer(X)
    assert layer.backward(y, input_grad=False) is None


# ---- construction, repr, files ----


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((1.0, np.cos), {}, "function must be a function, got 1.0"),
        ((None, np.cos), {}, "function must be a function, got None"),
        ((np.sin, 3), {}, "derivative must be a function, got 3"),
        ((np.sin,), {"vjp": "cos"}, "vjp must be a function, got 'cos'"),
        ((np.sin,), {}, "expected derivative=.* or vjp=.*; got neither"),
        ((np.sin, np.cos), {"vjp": np.multiply}, "expected derivative=.* or vjp=.*; got both"),
    ],
)
def test_what_makes_no_layer_is_an_error(
    arguments: tuple[Any, ...], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(TypeError, match=f"^Lambda: {message}"):
        nn.Lambda(*arguments, **options)


def test_repr_has_the_names_of_the_functions() -> None:
    assert repr(nn.Lambda(np.sin, np.cos)) == "Lambda(sin, cos)"
    assert repr(nn.Lambda(np.sin, vjp=lambda x, grad: x)) == "Lambda(sin, vjp=<lambda>)"


def test_a_model_with_it_is_saved_and_loaded(tmp_path: Path) -> None:
    def model(seed: int) -> nn.Sequential:
        return nn.Sequential(nn.Lambda(lambda x: x**2, lambda x: 2 * x), nn.Linear(3, 2, rng=seed))

    first, second = model(0), model(1)
    assert list(first.state_dict()) == ["1.weight", "1.bias"]
    nn.save(first, tmp_path / "model.npz")
    second.load_state_dict(nn.load_state(tmp_path / "model.npz"))
    assert_array_equal(second(X), first(X))
