"""Softmax, LogSoftmax and GLU, along an axis."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import nnlite as nn

from ..forms import form
from ..source import Code, Size, Value, counted_axis, joined, largest, lines_along, nest


def softmax_of(size: Size, at: Callable[[str], str]) -> str:
    """Return statements that compute b = softmax(a), and ``top`` and ``total`` of a line.

    ``at(j)`` is the index of its element j.
    """
    body = f"""
        total = real(0)
        for j in range({size}):
            b{at("j")} = exp(a{at("j")} - top)
            total += b{at("j")}
        for j in range({size}):
            b{at("j")} /= total
    """
    return joined(largest(size, lambda j: f"a{at(j)}"), body)


@form(nn.Softmax)
def softmax(layer: nn.Softmax, code: Code, x: Value) -> Any:
    """y_j = exp(x_j) / Σ_k exp(x_k); dx = y (dy - Σ_k dy_k y_k)."""
    before, size, behind = lines_along(x.shape, layer.dim)
    y = code.new(x.shape)
    code(f"a, b = {x.view(before, size, behind)}, {y.view(before, size, behind)}")
    code(nest({"i": before, "k": behind}, softmax_of(size, lambda j: f"[i, {j}, k]")))

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
    before, size, behind = lines_along(x.shape, layer.dim)
    y = code.new(x.shape)
    code(f"a, b = {x.view(before, size, behind)}, {y.view(before, size, behind)}")
    body = f"""
        total = real(0)
        for j in range({size}):
            total += exp(a[i, j, k] - top)
        log_total = real(math.log(total))
        for j in range({size}):
            b[i, j, k] = a[i, j, k] - top - log_total
    """
    top = largest(size, lambda j: f"a[i, {j}, k]")
    code(nest({"i": before, "k": behind}, joined(top, body)))

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


@form(nn.GLU)
def glu(layer: nn.GLU, code: Code, x: Value) -> Any:
    """Y = a σ(b) for the halves a, b of x; da = dy σ(b), db = dy a σ(b) (1 - σ(b))."""
    axis = counted_axis(layer.dim, x.shape)
    before, size, behind = lines_along(x.shape, axis)
    half = size // 2
    y = code.new((*x.shape[:axis], half, *x.shape[axis + 1 :]))
    halves, whole = (before, half, behind), (before, 2, half, behind)
    sizes: dict[str, Size] = {"i": before, "j": half, "k": behind}
    code(f"a, b = {x.view(*whole)}, {y.view(*halves)}")
    code(nest(sizes, "b[i, j, k] = a[i, 0, j, k] * sigmoid(a[i, 1, j, k])"))

    def backward(dy: Value) -> None:
        with code.gradient(x) as dx:
            code(f"a, b, g = {x.view(*whole)}, {dx.view(*whole)}, {dy.view(*halves)}")
            body = """
                gate = sigmoid(a[i, 1, j, k])
                b[i, 0, j, k] = g[i, j, k] * gate
                b[i, 1, j, k] = b[i, 0, j, k] * a[i, 0, j, k] * (real(1) - gate)
            """
            code(nest(sizes, body))

    return y, backward
