"""Batches as a model and its loss take them, and the figures that run over them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from .layer import Array, Layer
from .metrics import Metric
from .safeguards import NotFiniteError, NotFiniteInputError


class Batch(NamedTuple):
    """What a loader has handed out: inputs of the model, and what the loss gets beside its outputs.

    The targets are followed by the sample weights, if there are any. The weight of the batch is
    what its mean loss was divided by.
    """

    inputs: tuple[Any, ...]
    targets: tuple[Any, ...]
    weight: float

    def loss_of(self, loss: Layer, predictions: Any) -> float:
        """Return the loss, or raise a NotFiniteError that says what is not finite."""
        try:
            value = loss(predictions, *self.targets)
        except ValueError as error:
            if np.isfinite(predictions).all():
                raise
            self._check_finite()
            raise NotFiniteError(str(error)) from error
        if not math.isfinite(value):
            self._check_finite()
            raise NotFiniteError(f"the loss is {value}")
        return float(value)

    def _check_finite(self) -> None:
        for array in map(np.asarray, (*self.inputs, *self.targets)):
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                raise NotFiniteInputError("the data of this batch contain NaN or infinity")


def as_batch(given: Any, loss: Layer) -> Batch:
    """Return what a loader has handed out as a `Batch`."""
    if not isinstance(given, (tuple, list)) or len(given) not in (2, 3):
        what = f"{len(given)} items" if isinstance(given, (tuple, list)) else type(given).__name__
        raise TypeError(
            f"a batch must be a pair (inputs, targets), or have sample weights as a third item, "
            f"got {what}"
        )
    inputs, *targets = given
    inputs = inputs if isinstance(inputs, tuple) else (inputs,)
    return Batch(inputs, tuple(targets), _weight(loss, *targets))


def _weight(loss: Layer, targets: Any, sample_weight: Any = None) -> float:
    """Return what `loss` divides by for the mean: Σ w c over targets of weight w and class c."""
    targets = np.asarray(targets)
    labelled = targets.dtype.kind in "iu"
    class_weight = getattr(loss, "weight", None)
    if not labelled or not isinstance(class_weight, np.ndarray):  # a Parameter is something else
        class_weight = None
    ignored = getattr(loss, "ignore_index", None) if labelled else None
    if sample_weight is None and class_weight is None:
        return float(targets.size if ignored is None else np.count_nonzero(targets != ignored))
    weights: Any = 1.0
    if sample_weight is not None:
        weights = np.asarray(sample_weight, np.float64).reshape(-1, *[1] * (targets.ndim - 1))
    if class_weight is not None:
        # Labels out of range are for the loss to complain about.
        weights = weights * np.take(class_weight, targets, mode="clip")
    if ignored is not None:
        weights = weights * (targets != ignored)
    return float(np.broadcast_to(weights, targets.shape).sum())


class Tally:
    """The loss and the metrics of all batches so far, as those of one batch of all their samples.

    For the reduction "sum" the loss is the sum. Metrics are means, weighted by samples.
    """

    def __init__(self, loss: Layer, metrics: Mapping[str, Metric]) -> None:
        self.averages = averages(loss)
        self.metrics = dict(metrics)
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self.loss = self.weight = 0.0
        self.samples = 0
        self.totals = dict.fromkeys(self.metrics, 0.0)

    def add(self, value: float, predictions: Array, batch: Batch) -> None:
        """Take in the loss `value` and the metrics of a batch."""
        self.loss += value * batch.weight if self.averages else value
        self.weight += batch.weight
        samples = len(batch.targets[0])
        self.samples += samples
        for name, metric in self.metrics.items():
            figure = metric(predictions, batch.targets[0])
            if np.ndim(figure) != 0:
                raise TypeError(
                    f"the metric {name!r} must give a number, got an array of shape "
                    f"{np.shape(figure)}"
                )
            self.totals[name] += float(figure) * samples

    def figures(self) -> dict[str, float]:
        """Return the loss and the metrics by name."""
        means = {name: total / self.samples for name, total in self.totals.items()}
        return {"loss": self.loss / self.weight if self.averages else self.loss, **means}

    def state_dict(self) -> dict[str, Any]:
        """Return what `load_state_dict` needs to go on from here."""
        return {
            "loss": self.loss,
            "weight": self.weight,
            "samples": self.samples,
            "totals": dict(self.totals),
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from where `state_dict` was taken."""
        totals = state_dict["totals"]
        if set(totals) != set(self.metrics):
            raise ValueError(
                f"the checkpoint is of a run with the metrics [{', '.join(totals)}], this one "
                f"has [{', '.join(self.metrics)}]; resume with the metrics that it began with"
            )
        self.loss, self.weight = float(state_dict["loss"]), float(state_dict["weight"])
        self.samples = int(state_dict["samples"])
        self.totals = {name: float(totals[name]) for name in self.metrics}


def averages(loss: Layer) -> bool:
    """Whether the loss of a batch is a mean over it, and not a sum."""
    return getattr(loss, "reduction", "mean") != "sum"
