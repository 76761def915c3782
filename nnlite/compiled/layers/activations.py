"""Elementwise layers: the output and the gradient of one element each.

In an entry, ``x`` and ``y`` are an element of input and output, ``dy`` is dL/dy; the second
expression is dL/dx.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import nnlite as nn

from ..forms import form
from ..source import Code, Value, elements, product

Formulas = Callable[[Any], tuple[str, str]]


def _real(number: float) -> str:
    return f"real({number!r})"


def _elu(layer: nn.ELU) -> tuple[str, str]:
    alpha = _real(layer.alpha)
    return (
        f"x if x > 0 else {alpha} * expm1(min(x, real(0)))",
        f"dy if x > 0 else dy * {alpha} * exp(min(x, real(0)))",
    )


def _selu(layer: nn.SELU) -> tuple[str, str]:
    alpha, scale = _real(layer.alpha), _real(layer.scale)
    return (
        f"{scale} * (x if x > 0 else {alpha} * expm1(min(x, real(0))))",
        f"dy * {scale} * (real(1) if x > 0 else {alpha} * exp(min(x, real(0))))",
    )


def _softplus(layer: nn.Softplus) -> tuple[str, str]:
    beta, threshold = _real(layer.beta), _real(layer.threshold)
    return (
        f"x if {beta} * x > {threshold} else log1p_exp({beta} * x) / {beta}",
        f"dy if {beta} * x > {threshold} else dy * sigmoid({beta} * x)",
    )


def _hardtanh(layer: nn.Hardtanh) -> tuple[str, str]:
    low, high = _real(layer.min_val), _real(layer.max_val)
    return (
        f"{low} if x < {low} else ({high} if x > {high} else x)",
        f"real(0) if y == {low} or y == {high} else dy",
    )


_HARDSIGMOID = "min(max(x + real(3), real(0)), real(6)) / real(6)"
_SOFT_GATE = "tanh_log1p_exp(x)"


def _gelu(layer: nn.GELU) -> tuple[str, str]:
    if layer.approximate == "none":
        return "x * normal_cdf(x)", "dy * (normal_cdf(x) + x * normal_pdf(x))"
    scale, cube = math.sqrt(2 / math.pi), 0.044715
    t = f"tanh({_real(scale)} * (x + {_real(cube)} * x * x * x))"
    slope = f"({_real(scale)} * (real(1) + {_real(3 * cube)} * x * x))"
    return (
        f"real(0.5) * x * (real(1) + {t})",
        f"dy * real(0.5) * (real(1) + {t} + x * (real(1) - {t} * {t}) * {slope})",
    )


def _power(layer: nn.Power) -> tuple[str, str]:
    exponent = layer.exponent
    slope = f"dy * {_real(exponent)} * x ** {_real(exponent - 1)}"
    # The formula would be 0 · inf at x = 0.
    return f"x ** {_real(exponent)}", slope if exponent else "real(0)"


FORMULAS: dict[type, Formulas] = {
    nn.ReLU: lambda layer: ("real(0) if x < 0 else x", "real(0) if y == 0 else dy"),
    nn.LeakyReLU: lambda layer: (
        f"x if x > 0 else {_real(layer.negative_slope)} * x",
        f"dy if x > 0 else {_real(layer.negative_slope)} * dy",
    ),
    nn.ELU: _elu,
    nn.SiLU: lambda layer: (
        "x * sigmoid(x)",
        "dy * sigmoid(x) * (real(1) + x * (real(1) - sigmoid(x)))",
    ),
    nn.Softplus: _softplus,
    nn.SELU: _selu,
    nn.Mish: lambda layer: (
        f"x * {_SOFT_GATE}",
        f"dy * ({_SOFT_GATE} + x * (real(1) - {_SOFT_GATE} * {_SOFT_GATE}) * sigmoid(x))",
    ),
    nn.ReLU6: _hardtanh,
    nn.Hardtanh: _hardtanh,
    nn.Hardsigmoid: lambda layer: (
        _HARDSIGMOID,
        "real(0) if y == 0 or y == 1 else dy / real(6)",
    ),
    nn.Hardswish: lambda layer: (
        f"x * ({_HARDSIGMOID})",
        "real(0) if x <= -3 else (dy if x >= 3 else dy * (x / real(3) + real(0.5)))",
    ),
    nn.LogSigmoid: lambda layer: ("-log1p_exp(-x)", "dy * sigmoid(-x)"),
    nn.Softsign: lambda layer: (
        "x / (real(1) + abs(x))",
        "dy / ((real(1) + abs(x)) * (real(1) + abs(x)))",
    ),
    nn.GELU: _gelu,
    nn.Sigmoid: lambda layer: ("sigmoid(x)", "dy * y * (real(1) - y)"),
    nn.Tanh: lambda layer: ("tanh(x)", "dy * (real(1) - y * y)"),
    nn.Negative: lambda layer: ("-x", "-dy"),
    nn.Abs: lambda layer: ("abs(x)", "dy if x > 0 else (-dy if x < 0 else real(0) * x)"),
    nn.Reciprocal: lambda layer: ("real(1) / x", "-dy * y * y"),
    nn.Square: lambda layer: ("x * x", "real(2) * dy * x"),
    nn.Sqrt: lambda layer: ("math.sqrt(x)", "dy / (real(2) * y)"),
    nn.Power: _power,
    nn.Exp: lambda layer: ("exp(x)", "dy * y"),
    nn.Log: lambda layer: ("log(x)", "dy / x"),
}


@form(*FORMULAS)
def elementwise(layer: nn.Layer, code: Code, x: Value) -> Any:
    """Write y[i] = f(x[i]) and dx[i] = f'(x[i]) dy[i]."""
    value, slope = FORMULAS[type(layer)](layer)
    y = code.new(x.shape)

    code(f"""
        for i in range({x.size}):
            {y}[i] = {elements(value, x=x)}
    """)

    def backward(dy: Value) -> None:
        with code.gradient(x) as dx:
            code(f"""
                for i in range({x.size}):
                    {dx}[i] = {elements(slope, x=x, y=y, dy=dy)}
            """)

    return y, backward


@form(nn.PReLU)
def prelu(layer: nn.PReLU, code: Code, x: Value) -> Any:
    """Y = x where x > 0, otherwise weight x, with one weight per channel or one for all."""
    weight = code.parameter(layer.weight, "weight")
    is_shared = layer.num_parameters == 1
    sizes = (1, 1, x.size) if is_shared else (*x.shape[:2], product(x.shape[2:]))
    channel = "0" if is_shared else "j"
    y = code.new(x.shape)
    code(f"a, b = {x.view(*sizes)}, {y.view(*sizes)}")
    code(f"""
        for i in range({sizes[0]}):
            for j in range({sizes[1]}):
                slope, source, target = {weight}[{channel}], a[i, j], b[i, j]
                for k in range({sizes[2]}):
                    target[k] = source[k] if source[k] > 0 else slope * source[k]
    """)

    def backward(dy: Value) -> None:
        code(f"a, g = {x.view(*sizes)}, {dy.view(*sizes)}")
        if weight.needs_grad:
            with code.gradient(weight) as dw:
                code(f"""
                    {dw}[:] = 0
                    for i in range({sizes[0]}):
                        for j in range({sizes[1]}):
                            total, source, flow = real(0), a[i, j], g[i, j]
                            for k in range({sizes[2]}):
                                total += real(0) if source[k] > 0 else flow[k] * source[k]
                            {dw}[{channel}] += total
                """)
        if x.needs_grad:
            with code.gradient(x) as dx:
                code(f"b = {dx.view(*sizes)}")
                code(f"""
                    for i in range({sizes[0]}):
                        for j in range({sizes[1]}):
                            slope, source, flow = {weight}[{channel}], a[i, j], g[i, j]
                            target = b[i, j]
                            for k in range({sizes[2]}):
                                target[k] = flow[k] if source[k] > 0 else slope * flow[k]
                """)

    return y, backward
