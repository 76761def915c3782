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


def group_norm(
    shape: tuple[int, ...], groups: int, offset: float = 1.0, dtype: str = "float64", **options: Any
) -> Case:
    listed = "".join(f", {key}={value}" for key, value in options.items())
    return Case(
        f"GroupNorm {shape} in {groups} groups plus {offset:g}{listed}, {dtype}",
        layer=lambda: nn.GroupNorm(groups, shape[1], **options),
        module=lambda torch: torch.nn.GroupNorm(groups, shape[1], **options),
        inputs=lambda rng: (rng.normal(size=shape) + offset,),
        dtype=dtype,
    )


_BATCHES = [("BatchNorm1d", (5, 3)), ("BatchNorm1d", (2, 3, 4)), ("BatchNorm2d", (2, 3, 2, 2))]
_BATCH_OPTIONS: list[dict[str, Any]] = [
    {"eps": 0.5, "momentum": 0.3},
    {"momentum": None},
    {"affine": False},
    {"bias": False},
    {"track_running_stats": False},
]
_INSTANCES = {"InstanceNorm1d": (2, 3, 4), "InstanceNorm2d": (3, 2, 2, 3)}
_EVERYTHING: dict[str, Any] = {"affine": True, "track_running_stats": True, "momentum": 0.3}

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
    *(
        batch_norm(name, shape, training, **{"track_running_stats": False} | options)
        for name, shape in _INSTANCES.items()
        for training in (True, False)
        for options in ({}, {"affine": True, "eps": 0.5}, _EVERYTHING)
    ),
    batch_norm("InstanceNorm2d", (2, 3, 2, 2), dtype="float32", **_EVERYTHING),
    group_norm((2, 4, 3, 2), 2),
    group_norm((2, 4, 3, 2), 2, dtype="float32"),
    group_norm((3, 6), 2, eps=0.5),
    group_norm((1, 3, 5), 1, affine=False),
    group_norm((2, 3, 5), 3, bias=False),
    group_norm((2, 4, 3), 2, offset=1000.0),
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
def _drawn_group_norm(draw: st.DrawFn) -> Case:
    groups, members = draw(_sizes), draw(_sizes)
    sizes = draw(st.lists(_sizes, max_size=2))
    # With one value in each group, all results are 0 but for rounding.
    members = max(members, 2)
    return group_norm(
        (draw(_sizes), groups * members, *sizes),
        groups,
        offset=draw(st.sampled_from([0.0, 3.0])),
        dtype=draw(_dtypes),
        eps=draw(_eps),
        affine=draw(st.booleans()),
        bias=draw(st.booleans()),
    )


@st.composite
def _drawn_instance_norm(draw: st.DrawFn) -> Case:
    name = draw(st.sampled_from(list(_INSTANCES)))
    sizes = [draw(_sizes) for _ in _INSTANCES[name]]
    return batch_norm(
        name,
        (*sizes[:-1], max(2, sizes[-1])),
        training=draw(st.booleans()),
        offset=draw(st.sampled_from([0.0, 3.0])),
        dtype=draw(_dtypes),
        eps=draw(_eps),
        momentum=draw(st.floats(0, 1)),
        affine=draw(st.booleans()),
        track_running_stats=draw(st.booleans()),
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
    return st.one_of(
        _drawn_batch_norm(),
        _drawn_layer_norm(),
        _drawn_rms_norm(),
        _drawn_group_norm(),
        _drawn_instance_norm(),
    )
