"""The layers of transformers compared with PyTorch's."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

import nnlite as nn

from ..case import Array, Case
from .attention import boolean_mask


def encoder_layer(
    batch: int = 2,
    length: int = 3,
    heads: int = 2,
    head_size: int = 2,
    hidden: int = 3,
    masked: bool = False,
    dtype: str = "float64",
    **options: Any,
) -> Case:
    width = heads * head_size

    def draw(rng: np.random.Generator) -> tuple[Array, ...]:
        x = rng.normal(size=(batch, length, width))
        if not masked:
            return (x,)
        return x, boolean_mask(rng, (length, length)), boolean_mask(rng, (batch, length))

    return Case(
        f"TransformerEncoderLayer, batch {batch}, {length} steps, {heads} heads of {head_size}, "
        f"{hidden} hidden, {'masked, ' if masked else ''}{options}, {dtype}",
        layer=lambda: nn.TransformerEncoderLayer(width, heads, hidden, 0.0, **options),
        module=lambda torch: torch.nn.TransformerEncoderLayer(
            width, heads, hidden, 0.0, batch_first=True, **options
        ),
        inputs=draw,
        dtype=dtype,
    )


def decoder_layer(
    batch: int = 2,
    length: int = 3,
    steps: int = 4,
    heads: int = 2,
    head_size: int = 2,
    hidden: int = 3,
    masked: bool = False,
    dtype: str = "float64",
    **options: Any,
) -> Case:
    width = heads * head_size

    def draw(rng: np.random.Generator) -> tuple[Array, ...]:
        x, memory = rng.normal(size=(batch, length, width)), rng.normal(size=(batch, steps, width))
        shapes = [(length, length), (length, steps), (batch, length), (batch, steps)]
        return x, memory, *(boolean_mask(rng, shape) for shape in shapes if masked)

    return Case(
        f"TransformerDecoderLayer, batch {batch}, {length} to {steps} steps, {heads} heads of "
        f"{head_size}, {hidden} hidden, {'masked, ' if masked else ''}{options}, {dtype}",
        layer=lambda: nn.TransformerDecoderLayer(width, heads, hidden, 0.0, **options),
        module=lambda torch: torch.nn.TransformerDecoderLayer(
            width, heads, hidden, 0.0, batch_first=True, **options
        ),
        inputs=draw,
        dtype=dtype,
    )


CASES = [
    encoder_layer(),
    encoder_layer(norm_first=True, activation="gelu", masked=True),
    encoder_layer(bias=False, layer_norm_eps=0.1, dtype="float32"),
    decoder_layer(masked=True),
    decoder_layer(norm_first=True, activation="gelu"),
]


@st.composite
def drawn(draw: st.DrawFn) -> Case:
    """Draw a layer of any sizes and options."""
    sizes = st.integers(1, 4)
    make, names = draw(
        st.sampled_from(
            [(encoder_layer, "batch length heads"), (decoder_layer, "batch length steps heads")]
        )
    )
    return make(
        **{name: draw(sizes) for name in names.split()},
        # Normalized over one or two features, rounding in float32 is magnified.
        head_size=draw(st.integers(3, 4)),
        hidden=draw(sizes),
        masked=draw(st.booleans()),
        norm_first=draw(st.booleans()),
        activation=draw(st.sampled_from(["relu", "gelu"])),
        bias=draw(st.booleans()),
        layer_norm_eps=draw(st.sampled_from([1e-2, 0.1])),
    )
