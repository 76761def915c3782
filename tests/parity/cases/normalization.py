"""Normalisation compared with that of ``torch.nn``, in training and evaluation."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

import nnlite as nn

from ..case import Case


def batch_norm(
    name: str,
    shape: tuple[int, ...],
    training: bool = True,
    offset: float = 1.0,
    dtype: str = "float64",
    **options: Any,
) -> Case:
    """Compare on a batch of `shape`; in evaluation with running statistics that are not 0 and 1."""
    features = shape[1]
    mean, variance = np.linspace(-1, 1, features), np.linspace(0.5, 2, features)
    tracks = options.get("track_running_stats", True)

    def layer() -> nn.Layer:
        made: nn.Layer = getattr(nn, name)(features, **options)
        if tracks:
            made.running_mean[...], made.running_var[...] = mean, variance
        return made

    def module(torch: Any) -> Any:
        made = getattr(torch.nn, name)(features, **options)
        if tracks:
            made.running_mean.copy_(torch.tensor(mean))
            made.running_var.copy_(torch.tensor(variance))
        return made

    listed = "".join(f", {key}={value}" for key, value in options.items())
    mode = "training" if training else "evaluation"
    return Case(
        f"{name} {shape} plus {offset:g}{listed}, {mode}, {dtype}",
        layer=layer,
        module=module,
        inputs=lambda rng: (rng.normal(size=shape) + offset,),
        training=training,
        dtype=dtype,
    )


def layer_norm(
    shape: tuple[int, ...],
    rank: int,
    offset: float = 1.0,
    dtype: str = "float64",
    **options: Any,
) -> Case:
    """Compare on an input of `shape`, normalised over its last `rank` axes."""
    sizes = shape[-rank:]
    listed = "".join(f", {key}={value}" for key, value in options.items())
    return Case(
        f"LayerNorm {shape} over {sizes} plus {offset:g}{listed}, {dtype}",
        layer=lambda: nn.LayerNorm(sizes, **options),
        module=lambda torch: torch.nn.LayerNorm(sizes, **options),
        inputs=lambda rng: (rng.normal(size=shape) + offset,),
        dtype=dtype,
    )


def rms_norm(shape: tuple[int, ...], rank: int, dtype: str = "float64", **options: Any) -> Case:
    """Compare on an input of `shape`, normalised over its last `rank` axes."""
    sizes = shape[-rank:]
    listed = "".join(f", {key}={value}" for key, value in options.items())
    return Case(
        f"RMSNorm {shape} over {sizes}{listed}, {dtype}",
        layer=lambda: nn.RMSNorm(sizes, **options),
        module=lambda torch: torch.nn.RMSNorm(sizes, **options),
        inputs=lambda rng: (rng.normal(size=shape),),
        dtype=dtype,
    )


_BATCHES = [("BatchNorm1d", (5, 3)), ("BatchNorm1d", (2, 3, 4)), ("BatchNorm2d", (2, 3, 2, 2))]
_BATCH_OPTIONS: list[dict[str, Any]] = [
    {"eps": 0.5, "momentum": 0.3},
    {"momentum": None},
    {"affine": False},
    {"track_running_stats": False},
]

CASES = [
    *(
        batch_norm(name, shape, training, dtype=dtype)
        for name, shape in _BATCHES
        for training in (True, False)
        for dtype in ("float64", "float32")
    ),
    *(
        batch_norm("BatchNorm1d", (2, 3, 2), training, **options)
        for training in (True, False)
        for options in _BATCH_OPTIONS
    ),
    batch_norm("BatchNorm2d", (1, 2, 3, 2)),
    batch_norm("BatchNorm1d", (4, 1), momentum=0.0),
    batch_norm("BatchNorm1d", (4, 2), momentum=1.0),
    batch_norm("BatchNorm1d", (6, 2), offset=1000.0),
    layer_norm((3, 4), 1),
    layer_norm((2, 3, 4), 1),
    layer_norm((2, 3, 4), 2),
    layer_norm((2, 2, 3, 2), 3, eps=0.5),
    layer_norm((3, 4), 1, bias=False),
    layer_norm((3, 4), 1, elementwise_affine=False),
    layer_norm((3, 1), 1),
    layer_norm((3, 4), 1, offset=1000.0),
    layer_norm((3, 4), 1, dtype="float32"),
    layer_norm((2, 3, 4), 2, dtype="float32"),
    rms_norm((3, 4), 1),
    rms_norm((2, 3, 4), 2, eps=0.5),
    rms_norm((3, 4), 1, elementwise_affine=False),
    rms_norm((2, 3, 4), 1, dtype="float32"),
]

_sizes = st.integers(1, 5)
_dtypes = st.sampled_from(["float64", "float32"])
# Down to where float32 can still tell the variance of few values from rounding.
_eps = st.sampled_from([1e-2, 0.1, 1.0])


@st.composite
def _drawn_batch_norm(draw: st.DrawFn) -> Case:
    name = draw(st.sampled_from(["BatchNorm1d", "BatchNorm2d"]))
    ranks = (2, 3) if name == "BatchNorm1d" else (4,)
    shape = tuple(draw(_sizes) for _ in range(draw(st.sampled_from(ranks))))
    shape = (max(2, shape[0]), *shape[1:])
    return batch_norm(
        name,
        shape,
        training=draw(st.booleans()),
        offset=draw(st.sampled_from([0.0, 3.0])),
        dtype=draw(_dtypes),
        eps=draw(_eps),
        momentum=draw(st.none() | st.floats(0, 1)),
        affine=draw(st.booleans()),
        track_running_stats=draw(st.booleans()),
    )


@st.composite
def _drawn_layer_norm(draw: st.DrawFn) -> Case:
    shape = tuple(draw(st.lists(_sizes, min_size=2, max_size=4)))
    return layer_norm(
        shape,
        draw(st.integers(1, len(shape) - 1)),
        offset=draw(st.sampled_from([0.0, 3.0])),
        dtype=draw(_dtypes),
        eps=draw(_eps),
        elementwise_affine=draw(st.booleans()),
        bias=draw(st.booleans()),
    )


@st.composite
def _drawn_rms_norm(draw: st.DrawFn) -> Case:
    shape = tuple(draw(st.lists(_sizes, min_size=2, max_size=4)))
    return rms_norm(
        shape,
        draw(st.integers(1, len(shape) - 1)),
        dtype=draw(_dtypes),
        eps=draw(_eps),
        elementwise_affine=draw(st.booleans()),
    )


def drawn() -> st.SearchStrategy[Case]:
    """Draw a normalisation of any shape and options."""
    return _drawn_batch_norm() | _drawn_layer_norm() | _drawn_rms_norm()
