"""Linear, Embedding, Dropout, Softmax, and the layers that only change the shape."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

import nnlite as nn

from ..engine.arrays import Array
from ..random import generator, own_generators
from .forms import form
from .source import Code, Shape, Size, Value, counted_axis, fixed, numbers, product


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


@form(nn.Dropout, nn.Dropout1d, nn.Dropout2d)
def dropout(layer: nn.Dropout, code: Code, x: Value) -> Any:
    """Y = x m / (1 - p) with a mask m of zeros and ones, drawn before each call."""
    if not code.is_training(layer) or not layer.p:
        return x
    rng = next(iter(own_generators(layer).values()), None)

    def draw(n: int) -> Array:
        shape = fixed(x.shape, n)
        noise = generator(rng).random(layer.mask_shape(shape), np.float32)
        # Of one kind for machine code: a broadcast array is read-only, and may have no order.
        return noise if noise.shape == shape else np.broadcast_to(noise, shape).copy()

    return dropped(code, x, layer.p, draw)


def dropped(code: Code, x: Value, p: float, draw: Callable[[int], Array]) -> Any:
    """Return x with the elements set to 0 whose noise, ``draw(n)``, is below p."""
    noise = code.each_call("noise", lambda n: draw(n).reshape(-1), by_sample=True)
    scale = f"real({1 / (1 - p) if p < 1 else 0.0!r})"
    # The noise is of float32, and is compared as such.
    keeps = f"{noise}[i] >= np.float32({p!r})"
    y = code.new(x.shape)
    code(f"""
        for i in range({x.size}):
            {y}[i] = {x}[i] * ({scale} if {keeps} else real(0))
    """)

    def backward(dy: Value) -> None:
        with code.gradient(x) as dx:
            code(f"""
                for i in range({x.size}):
                    {dx}[i] = {dy}[i] * ({scale} if {keeps} else real(0))
            """)

    return y, backward


def lines_along(code: Code, shape: Shape, dim: int) -> tuple[str, Size, str]:
    """Return the sizes before, of and behind the axis `dim`, as text."""
    axis = counted_axis(dim, shape)
    return product(shape[:axis]), shape[axis], product(shape[axis + 1 :])


@form(nn.Softmax)
def softmax(layer: nn.Softmax, code: Code, x: Value) -> Any:
    """y_j = exp(x_j) / Σ_k exp(x_k); dx = y (dy - Σ_k dy_k y_k)."""
    before, size, behind = lines_along(code, x.shape, layer.dim)
    y = code.new(x.shape)
    code(f"""
        a, b = {x.view(before, size, behind)}, {y.view(before, size, behind)}
        for i in range({before}):
            for k in range({behind}):
                last = key(a[i, 0, k])
                for j in range({size}):
                    last = max(last, key(a[i, j, k]))
                top = of_key(last)
                total = real(0)
                for j in range({size}):
                    b[i, j, k] = exp(a[i, j, k] - top)
                    total += b[i, j, k]
                for j in range({size}):
                    b[i, j, k] /= total
    """)

    def backward(dy: Value) -> None:
        with code.gradient(x) as dx:
            code(f"""
                a, b = {y.view(before, size, behind)}, {dy.view(before, size, behind)}
                c = {dx.view(before, size, behind)}
                for i in range({before}):
                    for k in range({behind}):
                        total = real(0)
                        for j in range({size}):
                            total += a[i, j, k] * b[i, j, k]
                        for j in range({size}):
                            c[i, j, k] = a[i, j, k] * (b[i, j, k] - total)
            """)

    return y, backward


@form(nn.LogSoftmax)
def log_softmax(layer: nn.LogSoftmax, code: Code, x: Value) -> Any:
    """y_j = x_j - log Σ_k exp(x_k); dx = dy - exp(y) Σ_k dy_k."""
    before, size, behind = lines_along(code, x.shape, layer.dim)
    y = code.new(x.shape)
    code(f"""
        a, b = {x.view(before, size, behind)}, {y.view(before, size, behind)}
        for i in range({before}):
            for k in range({behind}):
                last = key(a[i, 0, k])
                for j in range({size}):
                    last = max(last, key(a[i, j, k]))
                top = of_key(last)
                total = real(0)
                for j in range({size}):
                    total += exp(a[i, j, k] - top)
                log_total = real(math.log(total))
                for j in range({size}):
                    b[i, j, k] = a[i, j, k] - top - log_total
    """)

    def backward(dy: Value) -> None:
        with code.gradient(x) as dx:
            code(f"""
                a, b = {y.view(before, size, behind)}, {dy.view(before, size, behind)}
                c = {dx.view(before, size, behind)}
                for i in range({before}):
                    for k in range({behind}):
                        total = real(0)
                        for j in range({size}):
                            total += b[i, j, k]
                        for j in range({size}):
                            c[i, j, k] = b[i, j, k] - exp(a[i, j, k]) * total
            """)

    return y, backward


@form(nn.Flatten)
def flatten(layer: nn.Flatten, code: Code, x: Value) -> Value:
    """Every value is a flat array already."""
    rank = len(x.shape)
    start, end = layer.start_dim % rank, layer.end_dim % rank
    merged = _size(x.shape[start : end + 1])
    return x.with_shape((*x.shape[:start], merged, *x.shape[end + 1 :]))


@form(nn.Reshape)
def reshape(layer: nn.Reshape, code: Code, x: Value) -> Value:
    """Every value is a flat array already."""
    sizes = layer.shape
    if -1 in sizes:
        rest = math.prod(numbers(x.shape[1:]))
        sizes = tuple(rest // -int(np.prod(sizes)) if size == -1 else size for size in sizes)
    return x.with_shape((x.shape[0], *sizes))


def _size(sizes: Shape) -> Size:
    text = product(sizes)
    return int(text) if text.isdecimal() else text


@form(nn.Identity)
def identity(layer: nn.Identity, code: Code, x: Value) -> Value:
    """Y = x."""
    return x
