"""Sequential, Residual and Graph, and the layers inside them."""

from __future__ import annotations

from typing import Any

import nnlite as nn

from ...layers.graph import traversed
from ..forms import form, form_of, place_in_model
from ..source import Code, Value


def child_path(path: str, name: str) -> str:
    """Return the dotted name of a sub-layer."""
    return f"{path}.{name}" if path else name


def check_forms(model: nn.Layer, *others: Any) -> None:
    """Raise a TypeError if a layer of the model, or a loss or an optimizer, has no form."""
    _check_layer(model, "")
    for other in others:
        form_of(other)


def _check_layer(layer: nn.Layer, path: str) -> None:
    form_of(layer, path)
    if isinstance(layer, nn.Loss):
        raise TypeError(
            f"compile: {layer.label}{place_in_model(path)} is a loss; give it with the model, as "
            f"in nnlite.compile(model, loss)"
        )
    if isinstance(layer, (nn.Sequential, nn.Residual, nn.Graph)):
        for name, child in layer.named_children():
            _check_layer(child, child_path(path, name))


@form(nn.Sequential)
def sequential(layer: nn.Sequential, code: Code, x: Value) -> Any:
    """Write one layer after the other."""
    path = code.path
    for name, child in layer.named_children():
        x = code.apply(child, child_path(path, name), x)
    return x


@form(nn.Residual)
def residual(layer: nn.Residual, code: Code, x: Value) -> Any:
    """Y = x + f(x)."""
    fx = code.apply(layer.body, child_path(code.path, "body"), x)
    return add(code, x, fx)


def add(code: Code, a: Value, b: Value) -> Any:
    """Write a + b, of one shape; the gradient of both is that of the sum."""
    y = code.new(a.shape)
    code(f"""
        for i in range({y.size}):
            {y}[i] = {a}[i] + {b}[i]
    """)

    def backward(dy: Value) -> None:
        for operand in (a, b):
            if operand.needs_grad:
                code.pass_gradient(operand, dy)

    return y, backward


@form(nn.Graph)
def graph(layer: nn.Graph, code: Code, *inputs: Value) -> Any:
    """Write the nodes in the order in which `Graph` computes them."""
    path = code.path

    def apply(name: str, child: nn.Layer, /, *given: Value, **by_keyword: Value) -> Any:
        return code.apply(child, child_path(path, name), *given, **by_keyword)

    return traversed(layer, inputs, apply, code.constant)
