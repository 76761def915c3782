"""`Residual`, `Reshape`, `Identity` and `Dropout`, alone and together, compared with PyTorch's."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

import nnlite as nn

from ..case import Case


def _torch_residual(torch: Any, *modules: Any) -> Any:
    class Residual(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.body = torch.nn.Sequential(*modules)

        def forward(self, x: Any) -> Any:
            return x + self.body(x)

    return Residual()


def residual(shape: tuple[int, ...], hidden: int, dtype: str = "float64") -> Case:
    size = shape[-1]
    return Case(
        f"Residual of {size} to {hidden} and back for {shape}, {dtype}",
        layer=lambda: nn.Residual(nn.Linear(size, hidden), nn.Tanh(), nn.Linear(hidden, size)),
        module=lambda torch: _torch_residual(
            torch,
            torch.nn.Linear(size, hidden),
            torch.nn.Tanh(),
            torch.nn.Linear(hidden, size),
        ),
        inputs=lambda rng: (rng.normal(size=shape),),
        dtype=dtype,
    )


def dropout(p: float, training: bool) -> Case:
    """Compare where nothing is left to chance: in evaluation, or with a probability of 0 or 1."""
    return Case(
        f"Dropout({p}) in {'training' if training else 'evaluation'}",
        layer=lambda: nn.Dropout(p),
        module=lambda torch: torch.nn.Dropout(p),
        inputs=lambda rng: (rng.normal(size=(3, 4)),),
        training=training,
    )


def reshape(shape: tuple[int, ...], sizes: tuple[int, ...]) -> Case:
    return Case(
        f"Reshape{sizes} of {shape}",
        layer=lambda: nn.Reshape(*sizes),
        module=lambda torch: lambda x: x.reshape(shape[0], *sizes),
        inputs=lambda rng: (rng.normal(size=shape),),
    )


def _torch_stack(torch: Any) -> Any:
    t = torch.nn
    return t.Sequential(
        t.Unflatten(1, (2, 2, 2)),
        t.BatchNorm2d(2),
        t.Flatten(),
        _torch_residual(torch, t.LayerNorm(8), t.Linear(8, 8), t.GELU(), t.Identity()),
        t.BatchNorm1d(8),
        t.Linear(8, 3),
        t.LogSoftmax(1),
    )


def _stack() -> nn.Layer:
    return nn.Sequential(
        nn.Reshape(2, 2, 2),
        nn.BatchNorm2d(2),
        nn.Flatten(),
        nn.Residual(nn.LayerNorm(8), nn.Linear(8, 8), nn.GELU(), nn.Identity()),
        nn.BatchNorm1d(8),
        nn.Linear(8, 3),
        nn.LogSoftmax(),
    )


CASES = [
    residual((3, 4), 2),
    residual((2, 3, 4), 5),
    residual((3, 4), 2, dtype="float32"),
    Case(
        "Residual of a Residual",
        layer=lambda: nn.Residual(nn.Tanh(), nn.Residual(nn.Linear(3, 3))),
        module=lambda torch: _torch_residual(
            torch, torch.nn.Tanh(), _torch_residual(torch, torch.nn.Linear(3, 3))
        ),
        inputs=lambda rng: (rng.normal(size=(4, 3)),),
    ),
    *(
        Case(
            f"Sequential with normalisation and a shortcut, {mode}",
            layer=_stack,
            module=_torch_stack,
            inputs=lambda rng: (rng.normal(size=(4, 8)),),
            training=mode == "training",
        )
        for mode in ("training", "evaluation")
    ),
    dropout(0.5, training=False),
    dropout(0.0, training=True),
    dropout(1.0, training=True),
    reshape((3, 12), (2, 6)),
    reshape((3, 12), (2, -1, 3)),
    reshape((3, 2, 2), (-1,)),
    reshape((2, 1), ()),
    Case(
        "Identity",
        layer=nn.Identity,
        module=lambda torch: torch.nn.Identity(),
        inputs=lambda rng: (rng.normal(size=(3, 4)),),
    ),
]


def drawn() -> st.SearchStrategy[Case]:
    """Draw a Residual of any size, for inputs with any number of axes."""
    sizes = st.integers(1, 5)
    shapes = st.lists(sizes, min_size=2, max_size=4).map(tuple)
    return st.builds(residual, shapes, sizes, st.sampled_from(["float64", "float32"]))
