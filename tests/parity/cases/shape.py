"""`Flatten` compared with ``torch.nn.Flatten``."""

from __future__ import annotations

from hypothesis import strategies as st

import nnlite as nn

from ..case import Case


def flatten(shape: tuple[int, ...], start_dim: int, end_dim: int) -> Case:
    return Case(
        f"Flatten {shape} from {start_dim} to {end_dim}",
        layer=lambda: nn.Flatten(start_dim, end_dim),
        module=lambda torch: torch.nn.Flatten(start_dim, end_dim),
        inputs=lambda rng: (rng.normal(size=shape),),
    )


CASES = [
    flatten((2, 3, 2, 2), 1, -1),
    flatten((2, 3, 2, 2), 0, -1),
    flatten((2, 3, 2, 2), 1, 2),
    flatten((2, 3, 2, 2), -2, -1),
    flatten((2, 3), 1, 1),
]


@st.composite
def drawn(draw: st.DrawFn) -> Case:
    """Draw a Flatten of any axes, counted from either end."""
    shape = tuple(draw(st.lists(st.integers(1, 4), min_size=1, max_size=5)))
    start = draw(st.integers(0, len(shape) - 1))
    end = draw(st.integers(start, len(shape) - 1))
    from_behind = st.sampled_from([0, len(shape)])
    return flatten(shape, start - draw(from_behind), end - draw(from_behind))
