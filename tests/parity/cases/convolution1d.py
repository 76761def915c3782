"""`Conv1d`, `MaxPool1d` and `AvgPool1d` compared with PyTorch's."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

import nnlite as nn

from ..case import Array, Case

Order = tuple[int, int, int]


def sequences(rng: np.random.Generator, shape: tuple[int, ...], order: Order) -> Array:
    """Draw sequences whose axes lie in memory in this order, the outermost first."""
    drawn = rng.normal(size=[shape[axis] for axis in order])
    return drawn.transpose(np.argsort(order))


def conv1d(
    shape: tuple[int, ...],
    out_channels: int,
    options: dict[str, Any],
    dtype: str = "float64",
    order: Order = (0, 1, 2),
) -> Case:
    return Case(
        f"Conv1d {shape} in the order {order} to {out_channels}, {options}, {dtype}",
        layer=lambda: nn.Conv1d(shape[1], out_channels, **options),
        module=lambda torch: torch.nn.Conv1d(shape[1], out_channels, **options),
        inputs=lambda rng: (sequences(rng, shape, order),),
        dtype=dtype,
    )


def pool(
    kind: str, shape: tuple[int, ...], options: dict[str, Any], order: Order = (0, 1, 2)
) -> Case:
    return Case(
        f"{kind} {shape} in the order {order}, {options}",
        layer=lambda: getattr(nn, kind)(**options),
        module=lambda torch: getattr(torch.nn, kind)(**options),
        # Rounded: many windows have several largest steps, of which the first counts.
        inputs=lambda rng: (sequences(rng, shape, order).round(1),),
    )


SEQUENCES = (2, 3, 8)

CASES = [
    conv1d(SEQUENCES, 2, {"kernel_size": 3}),
    conv1d(SEQUENCES, 2, {"kernel_size": 3}, "float32"),
    conv1d(SEQUENCES, 2, {"kernel_size": 3, "bias": False}),
    conv1d(SEQUENCES, 2, {"kernel_size": 1}),
    conv1d(SEQUENCES, 2, {"kernel_size": 8}),
    conv1d(SEQUENCES, 2, {"kernel_size": 3, "padding": "same"}),
    conv1d(SEQUENCES, 2, {"kernel_size": 3, "padding": "same", "dilation": 3}),
    conv1d(SEQUENCES, 2, {"kernel_size": 5, "padding": "valid"}),
    conv1d(SEQUENCES, 2, {"kernel_size": 2, "stride": 3, "padding": 1}),
    conv1d(SEQUENCES, 2, {"kernel_size": 3, "stride": 2, "dilation": 2, "padding": 2}),
    conv1d((1, 3, 8), 2, {"kernel_size": 3, "stride": 2}),
    conv1d(SEQUENCES, 2, {"kernel_size": 3}, order=(1, 2, 0)),
    pool("MaxPool1d", SEQUENCES, {"kernel_size": 2}),
    pool("MaxPool1d", SEQUENCES, {"kernel_size": 3, "ceil_mode": True}),
    pool("MaxPool1d", SEQUENCES, {"kernel_size": 3, "stride": 1, "padding": 1}),
    pool("MaxPool1d", SEQUENCES, {"kernel_size": 3, "stride": 2, "dilation": 3}),
    pool("AvgPool1d", SEQUENCES, {"kernel_size": 2}),
    pool("AvgPool1d", SEQUENCES, {"kernel_size": 3, "padding": 1, "ceil_mode": True}),
    pool(
        "AvgPool1d",
        SEQUENCES,
        {"kernel_size": 3, "stride": 2, "padding": 1, "count_include_pad": False},
    ),
]


@st.composite
def drawn(draw: st.DrawFn) -> Case:
    """Draw a layer with all its options, and sequences that a window of it fits into."""
    kind = draw(st.sampled_from(["Conv1d", "MaxPool1d", "AvgPool1d"]))
    kernel = draw(st.integers(1, 5))
    dilation = 1 if kind == "AvgPool1d" else draw(st.integers(1, 3))
    options: dict[str, Any] = {"kernel_size": kernel, "stride": draw(st.integers(1, 4))}
    if kind != "AvgPool1d":
        options["dilation"] = dilation
    else:
        options["count_include_pad"] = draw(st.booleans())
    if kind == "Conv1d":
        options["padding"] = draw(st.integers(0, 4))
    else:
        # With both padding and dilation a window may hold padding alone, for which PyTorch's
        # gradient goes to a step that is not in it.
        options["padding"] = draw(st.integers(0, kernel // 2)) if dilation == 1 else 0
        options["ceil_mode"] = draw(st.booleans())
    smallest = max(1, dilation * (kernel - 1) + 1 - 2 * options["padding"])
    length = smallest + draw(st.integers(0, 4))
    shape = (draw(st.integers(1, 3)), draw(st.integers(1, 3)), length)
    order = draw(st.permutations(range(3)).map(tuple))
    if kind == "Conv1d":
        options["bias"] = draw(st.booleans())
        dtype = draw(st.sampled_from(["float64", "float32"]))
        return conv1d(shape, draw(st.integers(1, 3)), options, dtype, order)
    return pool(kind, shape, options, order)
