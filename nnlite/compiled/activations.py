"""Elementwise layers: the output and the gradient of one element each.

In an entry, ``x`` and ``y`` are an element of input and output, ``dy`` is dL/dy; the second
expression is dL/dx.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import nnlite as nn

from .forms import form
from .source import Code, Value

Formulas = Callable[[Any], tuple[str, str]]


def _real(number: float) -> str:
    return f"real({number!r})"


def _elu(layer: nn.ELU) -> tuple[str, str]:
    alpha = _real(layer.alpha)
    return (
        f"x if x > 0 else {alpha} * (exp(min(x, real(0))) - real(1))",
        f"dy if x > 0 else dy * {alpha} * exp(min(x, real(0)))",
    )


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
    return f"x ** {_real(exponent)}", f"dy * {_real(exponent)} * x ** {_real(exponent - 1)}"


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
    nn.Softplus: lambda layer: (
        f"log1p_exp({_real(layer.beta)} * x) / {_real(layer.beta)}",
        f"dy * sigmoid({_real(layer.beta)} * x)",
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
    nn.Log: lambda layer: ("math.log(x)", "dy / x"),
}


@form(*FORMULAS)
def elementwise(layer: nn.Layer, code: Code, x: Value) -> Any:
    """Write y[i] = f(x[i]) and dx[i] = f'(x[i]) dy[i]."""
    value, slope = FORMULAS[type(layer)](layer)
    y = code.new(x.shape)

    def at(formula: str) -> str:
        arrays = {"x": x, "y": y, "dy": dy}
        return re.sub(r"\b(x|y|dy)\b", lambda match: f"{arrays[match[0]]}[i]", formula)

    dy = Value("", x.shape)
    code(f"""
        for i in range({x.size}):
            {y}[i] = {at(value)}
    """)

    def backward(grad: Value) -> None:
        nonlocal dy
        dy = grad
        with code.gradient(x) as dx:
            code(f"""
                for i in range({x.size}):
                    {dx}[i] = {at(slope)}
            """)

    return y, backward
