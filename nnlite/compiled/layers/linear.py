"""Linear."""

from __future__ import annotations

from typing import Any

import nnlite as nn

from ..forms import form
from ..source import Code, Value, product


@form(nn.Linear)
def linear(layer: nn.Linear, code: Code, x: Value) -> Any:
    """Y = x Wᵀ + b; dW = dyᵀ x, db = Σ dy, dx = dy W."""
    rows = product(x.shape[:-1])
    n_in, n_out = layer.in_features, layer.out_features
    weight = code.parameter(layer.weight, "weight")
    bias = None if layer.bias is None else code.parameter(layer.bias, "bias")
    y = code.new((*x.shape[:-1], n_out))
    code(f"rows, out = {x.view(rows, n_in)}, {y.view(rows, n_out)}")
    code(f"dot_rows(rows, {weight}, out)")
    if bias is not None:
        code(f"add_to_rows({bias}, out)")

    def backward(dy: Value) -> None:
        code(f"grads = {dy.view(rows, n_out)}")
        if weight.needs_grad:
            with code.gradient(weight) as dw:
                code(f"dot_columns(grads, {x.view(rows, n_in)}, {dw})")
        if bias is not None and bias.needs_grad:
            with code.gradient(bias) as db:
                code(f"column_sums(grads, {db})")
        if x.needs_grad:
            with code.gradient(x) as dx:
                code(f"matmul(grads, {weight}, {dx.view(rows, n_in)})")

    return y, backward
