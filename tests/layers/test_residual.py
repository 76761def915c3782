"""`Residual`: the shortcut around a body, and its two gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.testing import assert_allclose, assert_array_equal

import nnlite as nn


def block(features: int = 4, hidden: int = 3) -> nn.Residual:
    made = nn.Residual(
        nn.Linear(features, hidden, rng=0), nn.Tanh(), nn.Linear(hidden, features, rng=1)
    )
    return made.astype(np.float64)


def test_the_input_is_added_to_what_the_body_makes_of_it(rng: np.random.Generator) -> None:
    residual = block()
    body = nn.Sequential(*(layer.tied() for layer in residual.body))
    x, grad = rng.normal(size=(5, 4)), rng.normal(size=(5, 4))
    assert_array_equal(residual(x), x + body(x))
    x_grad, expected = residual.backward(grad), grad + body.backward(grad)
    assert_allclose(x_grad, expected, rtol=1e-14)


def test_a_body_without_effect_leaves_the_shortcut() -> None:
    # As in a residual network whose last weights begin with zero: the block is the identity.
    residual = block()
    residual.body[2].weight.data[...] = residual.body[2].bias.data[...] = 0
    x = np.arange(8.0).reshape(2, 4)
    assert_array_equal(residual(x), x)
    assert_array_equal(residual.backward(x), x)


@given(
    shape=hnp.array_shapes(min_dims=2, max_dims=4, max_side=4),
    hidden=st.integers(1, 4),
    depth=st.integers(1, 3),
)
def test_every_gradient_agrees_with_central_differences(
    shape: tuple[int, ...], hidden: int, depth: int
) -> None:
    layers = [block(shape[-1], hidden) for _ in range(depth)]
    x = np.random.default_rng(0).normal(size=shape)
    nn.gradcheck(nn.Residual(*layers), x).raise_if_failed()


def test_it_is_a_graph_with_an_add_node(rng: np.random.Generator) -> None:
    residual = block()
    body = residual.body.tied()
    graph = nn.Graph({"through": (body, "x"), "y": (nn.Add(), "x", "through")})
    x, grad = rng.normal(size=(5, 4)), rng.normal(size=(5, 4))
    assert_allclose(residual(x), graph(x), rtol=1e-14)
    assert_allclose(residual.backward(grad), graph.backward(grad), rtol=1e-14)


def test_without_input_grad_the_first_layer_of_the_body_skips_it() -> None:
    asked: list[bool] = []

    class Asks(nn.Linear):
        def backward(self, grad: Any, input_grad: bool = True) -> Any:
            asked.append(input_grad)
            return super().backward(grad, input_grad)

    residual = nn.Residual(Asks(3, 3), Asks(3, 3))
    residual.backward(np.ones_like(residual(np.ones((2, 3)))), input_grad=False)
    assert asked == [True, False]


def test_a_large_input_gradient_is_not_lost_in_a_deep_stack() -> None:
    # The shortcut hands it on unchanged: what residual networks are for.
    model = nn.Sequential(*(block() for _ in range(50))).astype(np.float64)
    for layer in model:
        for parameter in layer.parameters():
            parameter.data *= 1e-3
    y = model(np.ones((1, 4)))
    assert_allclose(model.backward(np.ones_like(y)), 1, rtol=1e-3)


def test_a_float64_input_does_not_change_a_float32_block() -> None:
    residual = nn.Residual(nn.Linear(3, 3))
    y = residual(np.ones((2, 3)))
    assert y.dtype == np.float32
    assert residual.backward(np.ones((2, 3))).dtype == np.float32


def test_the_keys_are_those_of_the_body() -> None:
    model = nn.Sequential(nn.Residual(nn.Linear(2, 2), nn.BatchNorm1d(2, affine=False)))
    assert list(model.state_dict()) == [
        "0.body.0.weight",
        "0.body.0.bias",
        "0.body.1.running_mean",
        "0.body.1.running_var",
        "0.body.1.num_batches_tracked",
    ]


@pytest.mark.parametrize(
    ("body", "shapes"),
    [
        (nn.Linear(3, 2), r"\(4, 3\) into \(4, 2\)"),
        (nn.Linear(3, 1), r"\(4, 3\) into \(4, 1\)"),  # which NumPy would broadcast
        (nn.Reshape(3, 1), r"\(4, 3\) into \(4, 3, 1\)"),
    ],
    ids=str,
)
def test_a_body_that_changes_the_shape_is_an_error(body: nn.Layer, shapes: str) -> None:
    residual = nn.Residual(body)
    with pytest.raises(ValueError, match=f"^Residual: the body turned shape {shapes}, .* same"):
        residual(np.ones((4, 3), np.float32))
    with pytest.raises(RuntimeError, match="^Residual.*call forward"):
        residual.backward(np.ones((4, 3), np.float32))
    assert all(parameter.grad is None for parameter in residual.parameters())


def test_an_error_inside_the_body_is_that_of_the_layer(rng: np.random.Generator) -> None:
    residual = block()
    with pytest.raises(
        ValueError, match=r"^Linear\(4, 3\): expected input of shape \(N, \.\.\., 4\)"
    ):
        residual(rng.normal(size=(5, 3)))


@pytest.mark.parametrize(
    ("layers", "error", "message"),
    [
        ([5], TypeError, "expected layers, got int"),
        ([[nn.ReLU()]], TypeError, r"expected layers, got list; write Residual\(\*layers\)"),
        ([nn.ReLU], TypeError, r"expected layers, got the class ReLU; write ReLU\(\)"),
        ([None], TypeError, "expected layers, got NoneType"),
        ([layer := nn.ReLU(), layer], ValueError, "ReLU.* stands at 0 and again at 1"),
    ],
    ids=["number", "list", "class", "None", "twice"],
)
def test_what_is_not_a_body_is_an_error(
    layers: list[Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=f"^Residual: {message}"):
        nn.Residual(*layers)


def test_a_layer_inside_and_outside_of_a_block_is_an_error_that_names_tied() -> None:
    layer = nn.Linear(2, 2)
    with pytest.raises(ValueError, match=r"Linear\(2, 2\) stands at 0 and again at 1.*tied"):
        nn.Sequential(layer, nn.Residual(layer))


def test_repr_is_that_of_the_body() -> None:
    text = "Residual(\n    Linear(2, 2),\n    Residual(\n        ReLU(),\n    ),\n)"
    assert repr(nn.Residual(nn.Linear(2, 2), nn.Residual(nn.ReLU()))) == text
