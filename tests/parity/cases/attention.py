"""`MultiheadAttention` compared with ``torch.nn.MultiheadAttention``."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

import nnlite as nn

from ..case import Array, Case


def torch_attention(torch: Any, *args: Any, is_causal: bool = False, **options: Any) -> Any:
    """Return a module of PyTorch that takes what nnlite's layer takes."""

    class Attention(torch.nn.MultiheadAttention):  # type: ignore[misc]
        def forward(self, *inputs: Any) -> Any:
            query, key, value, padding, mask = (*inputs, *[None] * (5 - len(inputs)))
            key = query if key is None else key
            value = key if value is None else value
            if is_causal:
                later = torch.ones(query.shape[1], key.shape[1], dtype=torch.bool).triu(1)
                mask = later if mask is None else later | mask
            return super().forward(query, key, value, padding, False, mask)[0]

    return Attention(*args, batch_first=True, **options)


def boolean_mask(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Return a mask, True where nothing is read, that leaves the first step to each row."""
    mask = rng.random(shape) < 0.4
    mask[..., 0] = False
    return mask


def attention(
    inputs: int,
    masks: str = "",
    *,
    batch: int = 2,
    length: int = 3,
    steps: int = 4,
    heads: int = 2,
    head_size: int = 2,
    dtype: str = "float64",
    **options: Any,
) -> Case:
    """Compare attention of one to three inputs, the last with the masks "padding" and "boolean"."""
    width = heads * head_size
    kdim, vdim = options.get("kdim") or width, options.get("vdim") or width
    steps = length if inputs == 1 else steps

    def draw(rng: np.random.Generator) -> tuple[Array, ...]:
        shapes = [(batch, length, width), (batch, steps, kdim), (batch, steps, vdim)]
        drawn = [rng.normal(size=shape) for shape in shapes[:inputs]]
        if "padding" in masks:
            drawn.append(boolean_mask(rng, (batch, steps)))
        if "boolean" in masks:
            drawn.append(boolean_mask(rng, (batch * heads, length, steps)))
        return tuple(drawn)

    return Case(
        f"MultiheadAttention of {inputs} inputs, batch {batch}, {length} to {steps} steps, "
        f"{heads} heads of {head_size}, masks {masks or 'none'}, {options}, {dtype}",
        layer=lambda: nn.MultiheadAttention(width, heads, **options),
        module=lambda torch: torch_attention(torch, width, heads, **options),
        inputs=draw,
        dtype=dtype,
    )


CASES = [
    attention(1),
    attention(1, is_causal=True),
    attention(1, bias=False, heads=1),
    attention(2),
    attention(3, "padding"),
    attention(3, "padding boolean"),
    attention(3, "padding boolean", is_causal=True),
    attention(3, kdim=3, vdim=5),
    attention(3, kdim=3, bias=False),
    attention(1, heads=3, length=5, dtype="float32"),
]


@st.composite
def drawn(draw: st.DrawFn) -> Case:
    """Draw an attention of any sizes, inputs, masks and options."""
    inputs, sizes = draw(st.integers(1, 3)), st.integers(1, 4)
    options: dict[str, Any] = {"bias": draw(st.booleans()), "is_causal": draw(st.booleans())}
    masks = ""
    if inputs == 3:
        masks = draw(st.sampled_from(["", "padding", "padding boolean"]))
        options |= {"kdim": draw(st.none() | sizes), "vdim": draw(st.none() | sizes)}
    return attention(
        inputs,
        masks,
        batch=draw(sizes),
        length=draw(sizes),
        steps=draw(sizes),
        heads=draw(sizes),
        head_size=draw(sizes),
        dtype=draw(st.sampled_from(["float64", "float32"])),
        **options,
    )
