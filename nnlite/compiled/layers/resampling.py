"""Enlarged images and sequences."""

from __future__ import annotations

from typing import Any

import nnlite as nn

from ..forms import form
from ..source import Code, Size, Value, nest, number, numbers, product
from .gather import gathered


@form(nn.Upsample)
def upsample(layer: nn.Upsample, code: Code, x: Value) -> Value:
    """Write the columns, then the rows."""
    rank = len(x.shape) - 2
    for axis in reversed(range(2, len(x.shape))):
        x = gathered(code, x, axis, *layer.positions(axis - 2, rank, number(x.shape[axis])))
    return x


@form(nn.PixelShuffle)
def pixel_shuffle(layer: nn.PixelShuffle, code: Code, x: Value) -> Any:
    """Y[n, c, h r + i, w r + j] = x[n, c r² + i r + j, h, w]."""
    r = layer.upscale_factor
    batch, channels, height, width = (x.shape[0], *numbers(x.shape[1:]))
    y = code.new((batch, channels // r**2, height * r, width * r))
    planes = product((batch, channels // r**2))
    inner, outer = (planes, r, r, height, width), (planes, height, r, width, r)
    sizes: dict[str, Size] = dict(zip("cijhw", inner, strict=True))
    code(f"a, b = {x.view(*inner)}, {y.view(*outer)}")
    code(nest(sizes, "b[c, h, i, w, j] = a[c, i, j, h, w]"))

    def backward(dy: Value) -> None:
        with code.gradient(x) as dx:
            code(f"a, b = {dx.view(*inner)}, {dy.view(*outer)}")
            code(nest(sizes, "a[c, i, j, h, w] = b[c, h, i, w, j]"))

    return y, backward
