"""Batches as a model and its loss take them, and the figures that run over them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from ..checks import integer, number
from ..engine.arrays import Array
from ..layer import Layer
from .metrics import Metric
from .safeguards import NotFiniteError, NotFiniteInputError


class Batch(NamedTuple):
    """What a loader has handed out: inputs of the model, and what the loss gets beside its outputs.

    The targets are followed by the sample weights, if there are any. The weight of the batch is
    what its mean loss is divided by, and NaN where sample weights and targets do not fit. Counted
    are the targets that the loss does not ignore.
    """

    inputs: tuple[Any, ...]
    targets: tuple[Any, ...]
    weight: float
    counted: int

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
        if math.isnan(self.weight):
            raise ValueError(
                f"sample weights must be numbers of at least 0, one for each sample, got the shape "
                f"{np.shape(self.targets[1])}"
            )
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
    return Batch(inputs, tuple(targets), *_weight_and_count(loss, *targets))


def _weight_and_count(loss: Layer, targets: Any, sample_weight: Any = None) -> tuple[float, int]:
    """Return what `loss` divides by for the mean, and how many targets it does not ignore.

    The first is Σ w c over targets of weight w and class weight c.
    """
    targets = np.asarray(targets)
    labelled = targets.dtype.kind in "iu"
    class_weight = getattr(loss, "weight", None)
    if not labelled or not isinstance(class_weight, np.ndarray):  # a Parameter is something else
        class_weight = None
    ignored = getattr(loss, "ignore_index", None) if labelled else None
    count = targets.size if ignored is None else int(np.count_nonzero(targets != ignored))
    if sample_weight is None and class_weight is None:
        return float(count), count
    try:
        return _weight(targets, sample_weight, class_weight, ignored), count
    except (ValueError, TypeError):  # the loss says better what does not fit
        return math.nan, count


def _weight(targets: Array, sample_weight: Any, class_weight: Any, ignored: int | None) -> float:
    weights: Any = 1.0
    if sample_weight is not None:
        weights = np.asarray(sample_weight, np.float64).reshape(-1, *[1] * (targets.ndim - 1))
    if class_weight is not None:
        # Labels out of range are for the loss to complain about.
        weights = weights * np.take(class_weight, targets, mode="clip")
    if ignored is not None:
        weights = weights * (targets != ignored)
    weights = np.broadcast_to(weights, targets.shape)
    total = float(weights.sum())
    # Weights that cancel are no weights of 0, but wrong.
    return total if total or not weights.any() else math.nan


class Tally:
    """The loss and the metrics of all batches so far, as those of one batch of all their samples.

    For the reduction "sum" the loss is the sum. Metrics are means, weighted by the targets that are
    not ignored; a batch that has none is not given to them.
    """

    def __init__(self, loss: Layer, metrics: Mapping[str, Metric]) -> None:
        self.averages = averages(loss)
        self.metrics = dict(metrics)
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self.loss = self.weight = 0.0
        self.batches = self.counted = 0
        self.totals = dict.fromkeys(self.metrics, 0.0)

    def add(self, value: float, predictions: Array, batch: Batch) -> None:
        """Take in the loss `value` and the metrics of a batch."""
        self.loss += value * batch.weight if self.averages else value
        self.weight += batch.weight
        self.batches += 1
        self.counted += batch.counted
        if not batch.counted:
            return
        for name, metric in self.metrics.items():
            figure = metric(predictions, batch.targets[0])
            if np.ndim(figure) != 0:
                raise TypeError(
                    f"the metric {name!r} must give a number, got an array of shape "
                    f"{np.shape(figure)}"
                )
            self.totals[name] += float(figure) * batch.counted

    def figures(self) -> dict[str, float]:
        """Return the loss and the metrics by name; NaN is the mean over nothing."""
        loss = _ratio(self.loss, self.weight) if self.averages else self.loss
        means = {name: _ratio(total, self.counted) for name, total in self.totals.items()}
        return {"loss": loss, **means}

    def state_dict(self) -> dict[str, Any]:
        """Return what `load_state_dict` needs to go on from here."""
        return {
            "loss": self.loss,
            "weight": self.weight,
            "batches": self.batches,
            "counted": self.counted,
            "totals": dict(self.totals),
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from where `state_dict` was taken; if it does not fit, nothing is changed."""
        check_state(state_dict, self.state_dict(), "the tally")
        totals = state_dict["totals"]
        check_state(totals, {}, "the totals of the metrics")
        if set(totals) != set(self.metrics):
            raise ValueError(
                f"the checkpoint is of a run with the metrics [{', '.join(totals)}], this one "
                f"has [{', '.join(self.metrics)}]; resume with the metrics that it began with"
            )
        loss = number(state_dict["loss"], "the loss of the epoch so far")
        weight = number(state_dict["weight"], "the weight of the epoch so far", 0)
        batches = integer(state_dict["batches"], "the batches of the epoch so far", 0)
        counted = integer(state_dict["counted"], "the targets of the epoch so far", 0)
        # A metric may be NaN.
        totals = {name: float(totals[name]) for name in self.metrics}
        self.loss, self.weight, self.totals = loss, weight, totals
        self.batches, self.counted = batches, counted


def check_state(state: Any, names: Mapping[str, Any], what: str) -> None:
    """Raise a ValueError if `state` is no mapping that has all of `names`."""
    if not isinstance(state, Mapping):
        raise ValueError(f"the state of {what} must be a dict, got {state!r:.80}")
    missing = [name for name in names if name not in state]
    if missing:
        raise ValueError(f"the state of {what} lacks {missing[0]!r}")


def _ratio(total: float, count: float) -> float:
    return total / count if count else math.nan


def averages(loss: Layer) -> bool:
    """Whether the loss of a batch is a mean over it, and not a sum."""
    return getattr(loss, "reduction", "mean") != "sum"
