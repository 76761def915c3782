"""Activations compared with those of ``torch.nn``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import strategies as st

import nnlite as nn

from ..case import Array, Case


def normal(shape: tuple[int, ...], scale: float = 2.0) -> Callable[..., tuple[Array, ...]]:
    return lambda rng: (scale * rng.normal(size=shape),)


def activation(
    name: str, shape: tuple[int, ...], scale: float = 2.0, dtype: str = "float64", **options: Any
) -> Case:
    """Compare the layer with the module of the same name and options."""
    listed = "".join(f", {key}={value}" for key, value in options.items())
    return Case(
        f"{name} {shape} times {scale:g}{listed}, {dtype}",
        layer=lambda: getattr(nn, name)(**options),
        module=lambda torch: getattr(torch.nn, name)(**options),
        inputs=normal(shape, scale),
        dtype=dtype,
    )


def softplus(shape: tuple[int, ...], dtype: str = "float64", beta: float = 1.0) -> Case:
    """Compare with PyTorch's without its threshold, beyond which it takes x for the result."""
    return Case(
        f"Softplus {shape}, beta={beta}, {dtype}",
        layer=lambda: nn.Softplus(beta),
        module=lambda torch: torch.nn.Softplus(beta, threshold=500),
        inputs=normal(shape, 10.0),
        dtype=dtype,
    )


ELEMENTWISE: list[tuple[str, dict[str, Any]]] = [
    ("ReLU", {}),
    ("LeakyReLU", {}),
    ("LeakyReLU", {"negative_slope": 0.3}),
    ("ELU", {}),
    ("ELU", {"alpha": 0.5}),
    ("SiLU", {}),
    ("GELU", {}),
    ("GELU", {"approximate": "tanh"}),
    ("Sigmoid", {}),
    ("Tanh", {}),
]

CASES = [
    *(activation(name, (3, 4), **options) for name, options in ELEMENTWISE),
    *(activation(name, (3, 4), scale=100.0, **options) for name, options in ELEMENTWISE),
    *(activation(name, (3, 4), dtype="float32", **options) for name, options in ELEMENTWISE),
    *(
        Case(
            f"{name} at zero",
            layer=lambda name=name: getattr(nn, name)(),
            module=lambda torch, name=name: getattr(torch.nn, name)(),
            inputs=lambda rng: (np.array([[-0.0, 0.0, 1.0, -1.0]]),),
        )
        for name in ("ReLU", "LeakyReLU", "ELU")
    ),
    softplus((3, 4)),
    softplus((3, 4), beta=2.0),
    softplus((3, 4), dtype="float32"),
    *(
        case
        for name in ("Softmax", "LogSoftmax")
        for case in (
            activation(name, (3, 4), dim=-1),
            activation(name, (3, 4), dim=0),
            activation(name, (2, 3, 2, 2), dim=1),
            activation(name, (3, 4), scale=1000.0, dim=1),
            activation(name, (3, 4), dtype="float32", dim=1),
        )
    ),
]

_shapes = st.lists(st.integers(1, 5), min_size=1, max_size=4).map(tuple)
_dtypes = st.sampled_from(["float64", "float32"])
_scales = st.sampled_from([0.1, 2.0, 100.0])


@st.composite
def _drawn_elementwise(draw: st.DrawFn) -> Case:
    name, options = draw(st.sampled_from(ELEMENTWISE))
    options = {
        key: draw(st.floats(0.05, 2)) if isinstance(value, float) else value
        for key, value in options.items()
    }
    return activation(name, draw(_shapes), draw(_scales), draw(_dtypes), **options)


@st.composite
def _drawn_along_an_axis(draw: st.DrawFn) -> Case:
    shape = draw(_shapes)
    return activation(
        draw(st.sampled_from(["Softmax", "LogSoftmax"])),
        shape,
        draw(_scales),
        draw(_dtypes),
        dim=draw(st.integers(-len(shape), len(shape) - 1)),
    )


def drawn() -> st.SearchStrategy[Case]:
    """Draw an activation for an input of any shape."""
    drawn_softplus = st.builds(softplus, _shapes, _dtypes, st.floats(0.1, 3))
    return _drawn_elementwise() | _drawn_along_an_axis() | drawn_softplus
