"""`Linear` compared with ``torch.nn.Linear``, alone and in a network."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

import nnlite as nn

from ..case import Case


def linear(
    shape: tuple[int, ...], out_features: int, bias: bool = True, dtype: str = "float64"
) -> Case:
    return Case(
        f"Linear {shape} to {out_features}{'' if bias else ' without bias'}, {dtype}",
        layer=lambda: nn.Linear(shape[-1], out_features, bias=bias),
        module=lambda torch: torch.nn.Linear(shape[-1], out_features, bias=bias),
        inputs=lambda rng: (rng.normal(size=shape),),
        dtype=dtype,
    )


def _torch_network(torch: Any) -> Any:
    t = torch.nn
    return t.Sequential(
        t.Flatten(), t.Linear(8, 5), t.ReLU(), t.Sequential(t.Linear(5, 4), t.Tanh()), t.Softmax(1)
    )


def _network() -> nn.Layer:
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(8, 5),
        nn.ReLU(),
        nn.Sequential(nn.Linear(5, 4), nn.Tanh()),
        nn.Softmax(1),
    )


CASES = [
    linear((3, 4), 2),
    linear((3, 4), 2, bias=False),
    linear((2, 3, 4), 2),
    linear((1, 1), 1),
    linear((3, 4), 2, dtype="float32"),
    Case(
        "Sequential with all activations",
        layer=_network,
        module=_torch_network,
        inputs=lambda rng: (rng.normal(size=(3, 2, 2, 2)),),
    ),
]


@st.composite
def drawn(draw: st.DrawFn) -> Case:
    """Draw a Linear of any size, for inputs with any number of axes."""
    sizes = st.integers(1, 6)
    return linear(
        tuple(draw(st.lists(sizes, min_size=2, max_size=4))),
        draw(sizes),
        draw(st.booleans()),
        draw(st.sampled_from(["float64", "float32"])),
    )
