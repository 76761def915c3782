"""A trace as a web page: forward and backward, step by step."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ..engine.arrays import Array
from ..web.document import Document, packed
from .isolation import leaves
from .replay import Replay

if TYPE_CHECKING:
    from .trace import Run, Trace, TraceEntry

# How many samples the page has, how many numbers of all arrays together and of one array, and how
# many finite differences of each array.
_SAMPLES = 16
_NUMBERS = 1 << 20
_NUMBERS_EACH = 1 << 15
_DIFFERENCES = 64
# How many numbers may be computed for finite differences: each takes two runs of the model.
_WORK = 1 << 26
_BINS = 24

# Each layer in words: its forward, and its backward.
WORDS = {
    "Linear": (
        "Each output is a weighted sum of all inputs, plus a bias.",
        "Each input gets the gradients of all outputs, weighted by the same weights. Each weight "
        "gets the product of its input and the gradient of its output, summed over the batch.",
    ),
    "ReLU": (
        "Negative inputs become 0, and positive ones pass as they are.",
        "The gradient passes where the input was positive. Where it was negative, a small change "
        "of the input changes nothing, so that the gradient is 0.",
    ),
    "LeakyReLU": (
        "Positive inputs pass as they are, and negative ones are multiplied by a small slope.",
        "The gradient passes where the input was positive, and is multiplied by the slope where "
        "it was negative.",
    ),
    "Sigmoid": (
        "Every input is squeezed between 0 and 1.",
        "The gradient is multiplied by the slope y (1 - y): at most 1/4, and nearly 0 where the "
        "output is near 0 or 1.",
    ),
    "Tanh": (
        "Every input is squeezed between -1 and 1.",
        "The gradient is multiplied by the slope 1 - y²: nearly 0 where the output is near ±1.",
    ),
    "Conv2d": (
        "A small kernel slides over the image. Each output is the weighted sum of the pixels "
        "below it.",
        "Each pixel gets the gradients of all outputs that it took part in, weighted by the "
        "entries of the kernel that it met.",
    ),
    "MaxPool2d": (
        "Of each window only the largest pixel is kept.",
        "The gradient goes to the pixel that was the largest; the others changed nothing.",
    ),
    "Dropout": (
        "In training some inputs are set to 0 at random, and the others scaled up.",
        "The gradient passes where the input was kept, with the same factor.",
    ),
    "Flatten": (
        "The same numbers, as one vector for each sample.",
        "The same gradients, in the shape of the input.",
    ),
    "Softmax": (
        "Scores become probabilities: all positive, with the sum 1.",
        "More probability for one class is less for the others, so that every input has a part in "
        "the gradient of every output.",
    ),
    "BatchNorm1d": (
        "Each feature is shifted and scaled to mean 0 and variance 1 over the batch.",
        "A change that all samples share is subtracted again by the mean, so that the gradients of "
        "a feature sum to 0 over the batch.",
    ),
    "GlobalAvgPool2d": (
        "Of each channel the mean over all pixels is kept.",
        "Every pixel gets the same part of the gradient: 1 / (number of pixels).",
    ),
    "Add": (
        "The inputs are added.",
        "A change of either input changes the sum as much: the gradient is copied to both.",
    ),
    "Subtract": (
        "The second input is subtracted from the first.",
        "The first input gets the gradient as it is, the second with the other sign.",
    ),
    "Multiply": (
        "The inputs are multiplied.",
        "Each input gets the gradient times the other input.",
    ),
    "Divide": (
        "The first input is divided by the second.",
        "The larger the divisor, the smaller the gradient that passes.",
    ),
    "MatMul": (
        "Each output is a sum of products of a row and a column.",
        "Each matrix gets the gradient times the other matrix, transposed.",
    ),
    "Square": ("Every input is squared.", "The gradient is multiplied by the slope 2x."),
    "Log": (
        "The natural logarithm of every input.",
        "The gradient is divided by the input: it is large where the input is near 0.",
    ),
    "Exp": (
        "The exponential of every input.",
        "The slope of the exponential is itself: the gradient is multiplied by the output.",
    ),
    "Sum": (
        "All inputs are added.",
        "Every input gets the whole gradient of the sum.",
    ),
    "Mean": (
        "The mean of the inputs.",
        "Every input gets the gradient, divided by their number.",
    ),
    "BinaryCrossEntropy": (
        "The score becomes a probability; the loss is minus the logarithm of that of the right "
        "answer, averaged.",
        "Backpropagation begins here: the gradient of each score is its probability minus the "
        "target, divided by the number of scores.",
    ),
    "CrossEntropy": (
        "The logits become probabilities; the loss is minus the logarithm of that of the right "
        "class, averaged over the batch.",
        "Backpropagation begins here: the gradient of each logit is its probability, minus 1 for "
        "the right class, divided by the number of samples.",
    ),
    "MeanSquaredError": (
        "The loss is the mean of the squared differences between outputs and targets.",
        "Backpropagation begins here: the gradient is twice the difference, divided by the number "
        "of values.",
    ),
}


def steps(trace: Trace, run: Run, replay: Replay, title: str) -> Document:
    """Return the page that steps through a trace.

    Parameters
    ----------
    trace : Trace
    run : Run
        Its run.
    replay : Replay
        Repeats the run for the finite differences.
    title : str
    """
    layers = run.steps()
    entries = [*trace.inputs]
    for layer, parameters, _ in layers:
        entries += [layer, *parameters]
    entries += [trace.loss] if trace.loss is not None else []
    batch = _batch_size(trace)
    weights = {entry.name for _, own, _ in layers for entry in own}
    writer = _Writer(entries, batch, weights)
    numeric = replay.differences(writer.places)
    classes = {entry.name: kind for entry, _, kind in layers}
    if trace.loss is not None and run.loss_class is not None:
        classes[trace.loss.name] = run.loss_class
    owned = {entry.name: [p.name for p in own] for entry, own, _ in layers}
    inputs = {entry.name for entry in trace.inputs}
    return Document(
        "steps.html",
        ("steps.js",),
        {
            "title": title,
            "samples": writer.samples,
            "batch": batch,
            "entries": [
                {
                    "name": entry.name,
                    "label": entry.label,
                    "kind": "input" if entry.name in inputs else
                    "parameter" if entry.name in weights else
                    "loss" if entry is trace.loss else "layer",
                    "sources": entry.sources,
                    "parameters": owned.get(entry.name, []),
                    "arrays": writer.arrays(entry, numeric.get(entry.name, [])),
                    **_explanation(classes.get(entry.name)),
                }
                for entry in entries
            ],
            "problems": [problem._asdict() for problem in trace.problems()],
            "error": None if trace.error is None else str(trace.error),
        },
        height=820,
    )  # fmt: skip


def _batch_size(trace: Trace) -> int | None:
    """Return the length of the first axis, if the inputs and the output share it."""
    arrays = [np.asarray(leaf) for entry in trace.inputs for leaf in leaves(entry.value)]
    lengths = {array.shape[0] if array.ndim else None for array in arrays}
    return lengths.pop() if len(lengths) == 1 else None


class _Writer:
    """Writes values and gradients, cut to what a page can hold."""

    def __init__(self, entries: list[TraceEntry], batch: int | None, parameters: set[str]) -> None:
        self._batch, self._parameters = batch, parameters
        arrays = [array for entry in entries for array in _arrays(entry.value)]
        self._limit = min(_NUMBERS_EACH, _NUMBERS // (2 * max(len(arrays), 1)))
        total = sum(array.size for array in arrays)
        movable = [entry for entry in entries if _is_movable(entry)]
        counts = [min(_arrays(entry.grad)[0].size, _DIFFERENCES) for entry in movable]
        runs = _WORK // max(2 * total, 1)
        most = _DIFFERENCES if sum(counts) <= runs else runs // max(len(counts), 1)
        self.places = {entry.name: self._places(entry, most) for entry in movable if most}
        sizes = [
            array.size // len(array)
            for entry in entries
            for array in _arrays(entry.value)
            if self._has_samples(entry, array)
        ]
        self.samples = 1
        if batch is not None:
            fitting = self._limit // max(sizes, default=1)
            self.samples = max(1, min(batch, _SAMPLES, fitting))

    def _has_samples(self, entry: TraceEntry, array: Array) -> bool:
        is_sample = entry.name not in self._parameters and self._batch is not None
        return is_sample and array.ndim > 0 and len(array) == self._batch

    def _places(self, entry: TraceEntry, most: int) -> list[tuple[int, ...]]:
        """Return the places at which a finite difference is wanted.

        They are those of the first samples, and in each of the largest gradients.
        """
        sizes = np.abs(_arrays(entry.grad)[0])
        rows = sizes.reshape(len(sizes) if self._has_samples(entry, sizes) else 1, -1)
        width = rows.shape[1]
        rows = rows[: most // width + 1]
        order = np.argpartition(-rows, min(most, width) - 1, axis=1)[:, :most]
        ranks = np.argsort(-np.take_along_axis(rows, order, axis=1), axis=1, kind="stable")
        order = np.take_along_axis(order, ranks, axis=1)
        flat = (order + width * np.arange(len(order))[:, None]).reshape(-1)[:most]
        return [
            tuple(map(int, np.unravel_index(index, sizes.shape))) if sizes.ndim else ()
            for index in flat
        ]

    def arrays(self, entry: TraceEntry, numeric: list[float]) -> list[dict[str, Any]]:
        """Return what the page shows of an entry: its values, and their gradients."""
        values = _arrays(entry.value)
        grads: list[Array | None] = [*_arrays(entry.grad)]
        if len(grads) != len(values):
            grads = [None] * len(values)
        found = [self._array(entry, value, grad) for value, grad in zip(values, grads, strict=True)]
        places = self.places.get(entry.name, [])
        if len(found) == 1 and len(numeric) == len(places):
            kept = found[0]["value"]["shape"]
            pairs = zip(places, numeric, strict=True)
            found[0]["numeric"] = [
                [int(np.ravel_multi_index(place, kept)) if kept else 0, number]
                for place, number in pairs
                if math.isfinite(number) and all(i < n for i, n in zip(place, kept, strict=True))
            ]
        return found

    def _array(self, entry: TraceEntry, value: Array, grad: Array | None) -> dict[str, Any]:
        has_samples = self._has_samples(entry, value)
        sizes = list(value.shape)
        if has_samples:
            sizes[0] = self.samples
        for axis in range(int(has_samples), len(sizes)):
            rest = math.prod(sizes) // max(sizes[axis], 1)
            sizes[axis] = max(1, min(sizes[axis], self._limit // max(rest, 1)))
        kept = tuple(slice(size) for size in sizes)
        return {
            "shape": value.shape,
            "has_samples": has_samples,
            "value": packed(value[kept]),
            "grad": None if grad is None else packed(grad[kept]),
            "numeric": [],
            "statistics": {
                "value": _statistics(value),
                "grad": None if grad is None else _statistics(grad),
            },
        }


def _is_movable(entry: TraceEntry) -> bool:
    """Whether the value is one array with a gradient, so that finite differences say something."""
    return len(_arrays(entry.grad)) == 1 and not isinstance(entry.value, tuple)


def _arrays(values: Any) -> list[Array]:
    """Return the leaves that are numbers, as arrays of floats."""
    found = [np.asarray(leaf) for leaf in leaves(values) if leaf is not None]
    return [array for array in found if array.dtype.kind in "biuf" and array.size]


def _statistics(array: Array) -> dict[str, Any]:
    """Return the figures and the histogram of the whole array."""
    values = array.astype(np.float64).reshape(-1)
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    counts = np.histogram(finite, bins=_BINS, range=(low, high) if low < high else None)[0]
    return {
        "min": low,
        "max": high,
        "rms": float(np.sqrt(np.mean(np.square(finite)))) if finite.size else 0.0,
        "zeros": int((values == 0).sum()),
        "size": values.size,
        "bad": int(values.size - finite.size),
        "histogram": [int(count) for count in counts],
    }


def _explanation(kind: type | None) -> Mapping[str, Any]:
    """Return the formulas of a class, from its docstring, and what it does in words."""
    if kind is None:
        return {"forward": [], "backward": [], "words": ["", ""]}
    forward, backward = formulas(kind)
    return {"forward": forward, "backward": backward, "words": WORDS.get(kind.__name__, ("", ""))}


def formulas(kind: type) -> tuple[list[str], list[str]]:
    """Return the lines of formulas, forward and backward, in the docstring of a layer.

    They are the first formula of its summary, and the literal blocks of its notes; gradients are
    the lines that begin with ``dL/``.
    """
    text = inspect.getdoc(kind) or ""
    summary, _, rest = text.partition("\n\n")
    forward: list[str] = re.findall(r"``([^`]*=[^`]*)``", summary)[:1]
    backward: list[str] = []
    notes = re.search(r"^Notes\n-+\n(.*?)(?=^\S[^\n]*\n-+\n|\Z)", rest, re.DOTALL | re.MULTILINE)
    blocks = re.findall(r"::\n\n((?: {4}[^\n]*\n|\n)+)", f"{notes[1]}\n" if notes else "")
    for line in inspect.cleandoc("\n".join(blocks)).splitlines() if blocks else []:
        for part in re.split(r"\s{3,}(?=dL/)", line.rstrip()):
            if part.strip():
                (backward if part.lstrip().startswith("dL/") else forward).append(part.strip())
    return forward, backward
