"""Sequential, Residual and Graph, and the layers inside them."""

from __future__ import annotations

from typing import Any

import nnlite as nn

from ..layers.graph import split_arguments
from .forms import form, form_of
from .source import Code, Value


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
    values: dict[str, Any] = dict(zip(layer.inputs, inputs, strict=True))

    def value(source: str | float) -> Value:
        if not isinstance(source, str):
            return code.constant(source)
        node, dot, item = source.partition(".")
        if not dot:
            found: Value = values[node]
            return found
        child = layer[node]
        outputs = child.outputs if isinstance(child, nn.Graph) else ()
        place = outputs.index(item) if item in outputs else int(item)
        chosen: Value = values[node][place]
        return chosen

    for name in layer.order:
        positional, by_keyword = split_arguments(layer.arguments[name])
        values[name] = code.apply(
            layer[name],
            child_path(path, name),
            *map(value, positional),
            **{keyword: value(source) for keyword, source in by_keyword.items()},
        )
    outputs = tuple(value(name) for name in layer.outputs)
    return outputs[0] if len(outputs) == 1 else outputs
