"""Dropout."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import nnlite as nn

from ...engine.arrays import Array
from ...random import generator, own_generators
from ..forms import form
from ..source import Code, Value, fixed


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
