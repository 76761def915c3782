"""Borders of images and sequences."""

from __future__ import annotations

from typing import Any

import nnlite as nn

from ...engine.gather import border
from ..forms import form
from ..source import Code, Size, Value, nest, number
from .gather import gathered
from .windows import plus


@form(
    *(nn.ReflectionPad1d, nn.ReflectionPad2d, nn.ReplicationPad1d, nn.ReplicationPad2d),
    *(nn.CircularPad1d, nn.CircularPad2d),
)
def repeating_pad(layer: Any, code: Code, x: Value) -> Value:
    """Write each axis with its border, one after the other."""
    for axis, (before, after) in enumerate(layer.borders(), start=2):
        x = gathered(code, x, axis, border(layer.mode, number(x.shape[axis]), before, after))
    return x


@form(nn.ConstantPad1d, nn.ConstantPad2d, nn.ZeroPad1d, nn.ZeroPad2d)
def constant_pad(layer: Any, code: Code, x: Value) -> Any:
    """Y is x inside a border of a constant; dx is that part of dy."""
    borders = layer.borders()
    letters = ("h", "w")[-len(borders) :]
    sizes = [
        before + number(size) + after
        for size, (before, after) in zip(x.shape[2:], borders, strict=True)
    ]
    y = code.new((*x.shape[:2], *sizes))
    loops: dict[str, Size] = dict(zip(("i", "c", *letters), x.shape, strict=True))
    inside = map(plus, letters, [before for before, _ in borders])
    at, at_inside = ", ".join(loops), ", ".join(("i", "c", *inside))
    code(f"{y}[:] = {layer.value!r}\na, b = {x.view(*x.shape)}, {y.view(*y.shape)}")
    code(nest(loops, f"b[{at_inside}] = a[{at}]"))

    def backward(dy: Value) -> None:
        with code.gradient(x) as dx:
            code(f"b, g = {dx.view(*x.shape)}, {dy.view(*dy.shape)}")
            code(nest(loops, f"b[{at}] = g[{at_inside}]"))

    return y, backward
