"""`Embedding` compared with ``torch.nn.Embedding``."""

from __future__ import annotations

from hypothesis import strategies as st

import nnlite as nn

from ..case import Case


def embedding(
    shape: tuple[int, ...],
    count: int,
    size: int,
    padding_idx: int | None = None,
    index: str = "int64",
    dtype: str = "float64",
) -> Case:
    padding = "" if padding_idx is None else f", padding_idx={padding_idx}"
    return Case(
        f"Embedding({count}, {size}{padding}) of {shape} {index}, {dtype}",
        layer=lambda: nn.Embedding(count, size, padding_idx),
        module=lambda torch: torch.nn.Embedding(count, size, padding_idx),
        inputs=lambda rng: (rng.integers(count, size=shape).astype(index),),
        dtype=dtype,
    )


CASES = [
    embedding((4,), 5, 3),
    embedding((3, 4), 5, 3),
    embedding((2, 3, 2), 3, 1),
    embedding((3, 4), 1, 2),
    embedding((3, 4), 5, 3, padding_idx=0),
    embedding((3, 4), 5, 3, padding_idx=-1),
    embedding((3, 4), 5, 3, index="int32"),
    embedding((3, 4), 5, 3, dtype="float32"),
]


@st.composite
def drawn(draw: st.DrawFn) -> Case:
    """Draw an Embedding of any size, for indices with any number of axes."""
    sizes = st.integers(1, 6)
    count = draw(sizes)
    return embedding(
        tuple(draw(st.lists(sizes, min_size=1, max_size=3))),
        count,
        draw(sizes),
        draw(st.none() | st.integers(-count, count - 1)),
        draw(st.sampled_from(["int32", "int64"])),
        draw(st.sampled_from(["float64", "float32"])),
    )
