"""Embedding and positions."""

from __future__ import annotations

from typing import Any

import nnlite as nn

from ...layers.embedding import sinusoids
from ..forms import form
from ..source import Code, Size, Value, fixed, nest


@form(nn.Embedding)
def embedding(layer: nn.Embedding, code: Code, x: Value) -> Any:
    """y_n = W[x_n]; dW_i is the sum of dy_n with x_n = i."""
    width = layer.embedding_dim
    weight = code.parameter(layer.weight, "weight")
    y = code.new((*x.shape, width))
    code(f"""
        wrong = False
        for i in range({x.size}):
            wrong |= ({x}[i] < 0) | ({x}[i] >= {layer.num_embeddings})
    """)
    code.fail_if("wrong", "an index is out of range")
    code(f"""
        rows = {y.view(x.size, width)}
        for i in range({x.size}):
            source, target = {weight}[{x}[i]], rows[i]
            for j in range({width}):
                target[j] = source[j]
    """)

    def backward(dy: Value) -> None:
        with code.gradient(weight) as dw:
            code(f"""
                rows = {dy.view(x.size, width)}
                {dw}[:] = 0
                for i in range({x.size}):
                    total, row = {dw}[{x}[i]], rows[i]
                    for j in range({width}):
                        total[j] += row[j]
            """)
            if layer.padding_idx is not None:
                code(f"{dw}[{layer.padding_idx}] = 0")

    return y, backward


@form(nn.SinusoidalPositions)
def sinusoidal_positions(layer: nn.SinusoidalPositions, code: Code, x: Value) -> Any:
    """y_t = x_t + p_t."""
    table = code.each_call("table", lambda n: sinusoids(*fixed(x.shape, n)[1:], code.dtype).copy())
    return _positions(code, x, f"{table}")


@form(nn.LearnedPositions)
def learned_positions(layer: nn.LearnedPositions, code: Code, x: Value) -> Any:
    """y_t = x_t + W_t; dW_t = Σ_n dy_nt."""
    weight = code.parameter(layer.weight, "weight")
    n, steps, size = x.shape
    y, backward = _positions(code, x, f"{weight}")

    def with_weight(dy: Value) -> None:
        backward(dy)
        if weight.needs_grad:
            with code.gradient(weight) as dw:
                code(f"grads = {dy.view(*x.shape)}\n{dw}[:] = 0")
                places: dict[str, Size] = {"i": n, "t": steps, "j": size}
                code(nest(places, f"{dw}[t, j] += grads[i, t, j]"))

    return y, with_weight


def _positions(code: Code, x: Value, table: str) -> Any:
    y = code.new(x.shape)
    sizes: dict[str, Size] = dict(zip("itj", x.shape, strict=True))
    code(f"a, b = {x.view(*x.shape)}, {y.view(*y.shape)}")
    code(nest(sizes, f"b[i, t, j] = a[i, t, j] + {table}[t, j]"))

    def backward(dy: Value) -> None:
        if x.needs_grad:
            code.pass_gradient(x, dy)

    return y, backward
