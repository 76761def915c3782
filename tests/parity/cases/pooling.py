"""Global pooling compared with PyTorch's adaptive pooling to one pixel."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

import nnlite as nn

from ..case import Case


def pool(
    kind: str,
    shape: tuple[int, ...],
    dtype: str = "float64",
    order: tuple[int, ...] = (0, 1, 2, 3),
) -> Case:
    def images(rng: np.random.Generator) -> np.ndarray:  # type: ignore[type-arg]
        # Rounded, so that there are several largest pixels, of which the first counts. The axes
        # lie in memory in the given order.
        drawn = rng.normal(size=[shape[axis] for axis in order]).round(1)
        return drawn.transpose(np.argsort(order))

    return Case(
        f"Global{kind}Pool2d of {shape} in the order {order}, {dtype}",
        layer=lambda: getattr(nn, f"Global{kind}Pool2d")(),
        module=lambda torch: torch.nn.Sequential(
            getattr(torch.nn, f"Adaptive{kind}Pool2d")(1), torch.nn.Flatten()
        ),
        inputs=lambda rng: (images(rng),),
        dtype=dtype,
    )


CASES = [
    pool(kind, shape, dtype, order)
    for kind in ("Avg", "Max")
    for shape, dtype, order in [
        ((2, 3, 4, 5), "float64", (0, 1, 2, 3)),
        ((2, 3, 4, 5), "float64", (2, 1, 3, 0)),
        ((1, 2, 3, 1), "float64", (0, 1, 2, 3)),
        ((2, 2, 3, 3), "float32", (0, 1, 2, 3)),
    ]
]


@st.composite
def drawn(draw: st.DrawFn) -> Case:
    """Draw a kind, and images of any size and order."""
    return pool(
        draw(st.sampled_from(["Avg", "Max"])),
        tuple(draw(st.integers(1, 5)) for _ in range(4)),
        draw(st.sampled_from(["float64", "float32"])),
        tuple(draw(st.permutations(range(4)))),
    )
