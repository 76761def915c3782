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


def prelu(shape: tuple[int, ...], channels: int, dtype: str = "float64") -> Case:
    return Case(
        f"PReLU {shape} with {channels} slopes, {dtype}",
        layer=lambda: nn.PReLU(channels),
        module=lambda torch: torch.nn.PReLU(channels),
        inputs=normal(shape),
        dtype=dtype,
    )


ELEMENTWISE: list[tuple[str, dict[str, Any]]] = [
    ("ReLU", {}),
    ("LeakyReLU", {}),
    ("LeakyReLU", {"negative_slope": 0.3}),
    ("ELU", {}),
    ("ELU", {"alpha": 0.5}),
    ("SELU", {}),
    ("SiLU", {}),
    ("Mish", {}),
    ("ReLU6", {}),
    ("Hardtanh", {}),
    ("Hardtanh", {"min_val": -0.5, "max_val": 2.5}),
    ("Hardswish", {}),
    ("Softplus", {}),
    ("Softplus", {"beta": 2.0}),
    ("Softplus", {"beta": 0.5, "threshold": 0.7}),
    ("Softsign", {}),
    ("LogSigmoid", {}),
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
            f"{name} where pieces meet",
            layer=lambda name=name: getattr(nn, name)(),
            module=lambda torch, name=name: getattr(torch.nn, name)(),
            inputs=lambda rng: (np.array([[-0.0, 0.0, 1.0, -1.0, 3.0, -3.0, 6.0, -6.0]]),),
        )
        for name in (
            *("ReLU", "LeakyReLU", "ELU", "SELU"),
            *("ReLU6", "Hardtanh", "Hardswish", "PReLU"),
        )
    ),
    # In float64, PyTorch's gradient has a 1/6 that is rounded to float32.
    activation("Hardsigmoid", (3, 4), dtype="float32"),
    prelu((3, 4), 1),
    prelu((3, 4), 4),
    prelu((2, 3, 2, 2), 3),
    prelu((2, 3, 4), 3, "float32"),
    activation("GLU", (3, 4)),
    activation("GLU", (3, 4), scale=100.0, dim=1),
    activation("GLU", (2, 4, 3), dim=-2),
    activation("GLU", (4, 3), dtype="float32", dim=0),
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
        key: value * draw(st.floats(0.25, 2)) if isinstance(value, float) else value
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


@st.composite
def _drawn_prelu(draw: st.DrawFn) -> Case:
    shape = draw(_shapes)
    channels = shape[1] if len(shape) > 1 and draw(st.booleans()) else 1
    return prelu(shape, channels, draw(_dtypes))


@st.composite
def _drawn_glu(draw: st.DrawFn) -> Case:
    shape = list(draw(_shapes))
    dim = draw(st.integers(-len(shape), len(shape) - 1))
    shape[dim] *= 2
    return activation("GLU", tuple(shape), draw(_scales), draw(_dtypes), dim=dim)


def drawn() -> st.SearchStrategy[Case]:
    """Draw an activation for an input of any shape."""
    hardsigmoid = st.builds(activation, st.just("Hardsigmoid"), _shapes, dtype=st.just("float32"))
    return st.one_of(
        _drawn_elementwise(), hardsigmoid, _drawn_prelu(), _drawn_glu(), _drawn_along_an_axis()
    )
