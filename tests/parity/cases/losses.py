"""Losses compared with those of ``torch.nn``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import strategies as st

import nnlite as nn

from ..case import Array, Case

REDUCTIONS = ("mean", "sum", "none")

# ---- losses of class indices ----


def classes(
    name: str,
    shape: tuple[int, ...],
    reduction: str = "mean",
    scale: float = 2.0,
    dtype: str = "float64",
    ignored: int | None = None,
    soft: bool = False,
    **options: Any,
) -> Case:
    """Compare predictions of `shape` (N, C, …) with labels (N, …), or if `soft` probabilities."""
    from_probabilities = options.get("from_logits") is False

    def module(torch: Any) -> Any:
        kept = {key: value for key, value in options.items() if key != "from_logits"}
        if "weight" in kept:
            kept["weight"] = torch.tensor(kept["weight"], dtype=getattr(torch, dtype))
        # Functions, since PyTorch's modules of losses keep the weights as buffers.
        f = torch.nn.functional
        if name == "NegativeLogLikelihood":
            return lambda x, target: f.nll_loss(x, target, reduction=reduction, **kept)
        if from_probabilities:
            return lambda p, target: f.nll_loss(p.log(), target, reduction=reduction, **kept)
        return lambda x, target: f.cross_entropy(x, target, reduction=reduction, **kept)

    def inputs(rng: np.random.Generator) -> tuple[Array, Array]:
        prediction = scale * rng.normal(size=shape)
        if from_probabilities:
            prediction = rng.uniform(0.1, 1, size=shape)
            prediction /= prediction.sum(axis=1, keepdims=True)
        if name == "NegativeLogLikelihood":
            prediction -= np.logaddexp.reduce(prediction, axis=1, keepdims=True)
        if soft:
            target = rng.uniform(size=shape)
            return prediction, target / target.sum(axis=1, keepdims=True)
        target = rng.integers(shape[1], size=shape[:1] + shape[2:])
        if ignored is not None:
            target.reshape(-1)[1::2] = ignored
        return prediction, target

    listed = "".join(f", {key}={value}" for key, value in options.items())
    listed += "" if ignored is None else f", every other label {ignored}"
    listed += ", target probabilities" if soft else ""
    return Case(
        f"{name} {shape} times {scale:g}{listed}, {reduction}, {dtype}",
        layer=lambda: getattr(nn, name)(reduction, **options),
        module=module,
        inputs=inputs,
        constants=(1,) if soft else (),
        dtype=dtype,
    )


# ---- losses of numbers ----

NUMBERS: dict[str, str] = {
    "MeanSquaredError": "mse_loss",
    "MeanAbsoluteError": "l1_loss",
    "Huber": "huber_loss",
    "BinaryCrossEntropy": "binary_cross_entropy_with_logits",
}


def numbers(
    name: str,
    shape: tuple[int, ...] = (3, 2),
    reduction: str = "mean",
    scale: float = 2.0,
    dtype: str = "float64",
    **options: Any,
) -> Case:
    """Compare predictions with targets of the same shape."""
    from_probabilities = options.get("from_logits") is False

    def module(torch: Any) -> Any:
        kept = {key: value for key, value in options.items() if key != "from_logits"}
        if "pos_weight" in kept:
            kept["pos_weight"] = torch.tensor(kept["pos_weight"], dtype=getattr(torch, dtype))
        of_torch = "binary_cross_entropy" if from_probabilities else NUMBERS[name]
        function = getattr(torch.nn.functional, of_torch)
        return lambda x, target: function(x, target, reduction=reduction, **kept)

    def inputs(rng: np.random.Generator) -> tuple[Array, Array]:
        prediction = scale * rng.normal(size=shape)
        if from_probabilities:
            prediction = rng.uniform(0.05, 0.95, size=shape)
        between_0_and_1 = name == "BinaryCrossEntropy"
        target = rng.uniform(0, 1, size=shape) if between_0_and_1 else rng.normal(size=shape)
        return prediction, target

    listed = "".join(f", {key}={value}" for key, value in options.items())
    return Case(
        f"{name} {shape} times {scale:g}{listed}, {reduction}, {dtype}",
        layer=lambda: getattr(nn, name)(reduction, **options),
        module=module,
        inputs=inputs,
        constants=(1,),
        dtype=dtype,
    )


_weight = [0.5, 1.0, 2.0, 0.25, 1.5]


def _each(make: Callable[..., Case], *args: Any, **options: Any) -> list[Case]:
    return [make(*args, reduction=reduction, **options) for reduction in REDUCTIONS]


CASES = [
    *_each(classes, "CrossEntropy", (4, 5)),
    *_each(classes, "CrossEntropy", (2, 3, 2, 2)),
    *_each(classes, "CrossEntropy", (4, 5), from_logits=False),
    *_each(classes, "CrossEntropy", (4, 5), weight=_weight, label_smoothing=0.1, ignored=-100),
    classes("CrossEntropy", (1, 3, 2, 2)),
    classes("CrossEntropy", (1, 3, 4), "none", from_logits=False),
    classes("CrossEntropy", (4, 5), scale=1e4),
    classes("CrossEntropy", (4, 1)),
    classes("CrossEntropy", (4, 5), weight=_weight),
    classes("CrossEntropy", (4, 5), label_smoothing=0.3),
    classes("CrossEntropy", (4, 5), ignored=2, ignore_index=2),
    classes("CrossEntropy", (4, 5), dtype="float32"),
    classes("CrossEntropy", (4, 5), weight=_weight, label_smoothing=0.1, dtype="float32"),
    classes("CrossEntropy", (4, 5), from_logits=False, dtype="float32"),
    *_each(classes, "CrossEntropy", (4, 5), soft=True),
    *_each(classes, "CrossEntropy", (2, 5, 3), weight=_weight, label_smoothing=0.1, soft=True),
    classes("CrossEntropy", (4, 5), dtype="float32", soft=True),
    *_each(classes, "NegativeLogLikelihood", (4, 5), weight=_weight, ignored=-100),
    classes("NegativeLogLikelihood", (2, 3, 2)),
    *(case for name in NUMBERS for case in _each(numbers, name)),
    numbers("Huber", delta=0.3),
    *_each(numbers, "BinaryCrossEntropy", from_logits=False),
    numbers("BinaryCrossEntropy", pos_weight=3.0),
    numbers("BinaryCrossEntropy", scale=1e4),
    *(numbers(name, dtype="float32") for name in NUMBERS),
]

_sizes = st.integers(1, 5)
_reductions = st.sampled_from(REDUCTIONS)
_dtypes = st.sampled_from(["float64", "float32"])


@st.composite
def _drawn_classes(draw: st.DrawFn) -> Case:
    shape = tuple(draw(st.lists(_sizes, min_size=2, max_size=4)))
    name = draw(st.sampled_from(["CrossEntropy", "NegativeLogLikelihood"]))
    options: dict[str, Any] = {}
    if draw(st.booleans()):
        count = shape[1]
        options["weight"] = draw(st.lists(st.floats(0.25, 4), min_size=count, max_size=count))
    if name == "CrossEntropy" and draw(st.booleans()):
        options["label_smoothing"] = draw(st.floats(0, 1))
    elif name == "CrossEntropy" and not options and draw(st.booleans()):
        options["from_logits"] = False
    soft = name == "CrossEntropy" and options.get("from_logits", True) and draw(st.booleans())
    scale = draw(st.sampled_from([0.1, 2.0, 100.0]))
    return classes(name, shape, draw(_reductions), scale, draw(_dtypes), soft=soft, **options)


@st.composite
def _drawn_numbers(draw: st.DrawFn) -> Case:
    shape = tuple(draw(st.lists(_sizes, min_size=1, max_size=4)))
    name = draw(st.sampled_from(list(NUMBERS)))
    options: dict[str, Any] = {}
    if name == "Huber":
        options["delta"] = draw(st.floats(0.1, 3))
    elif name == "BinaryCrossEntropy" and draw(st.booleans()):
        options["pos_weight"] = draw(st.floats(0.1, 5))
    scale = draw(st.sampled_from([0.1, 2.0, 100.0]))
    return numbers(name, shape, draw(_reductions), scale, draw(_dtypes), **options)


def drawn() -> st.SearchStrategy[Case]:
    """Draw a loss for predictions with any number of axes."""
    return _drawn_classes() | _drawn_numbers()
