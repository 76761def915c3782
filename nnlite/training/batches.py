"""Batches as a model and its loss take them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from ..data.loader import DataLoader, as_array
from ..engine.arrays import Array
from ..layer import Layer
from ..losses.scores import ClassLoss
from ..processes import ALONE, Processes
from .safeguards import NotFiniteError, NotFiniteInputError


class Batch(NamedTuple):
    """A batch of a loader: inputs of the model, and the other arguments of the loss.

    Attributes
    ----------
    inputs : tuple
        Empty if all samples of the batch are in the parts of other processes.
    targets : tuple
        The targets, if the loss takes any, and after them the sample weights, if there are any.
    weight : float
        The divisor of the mean loss of the batch; NaN if sample weights and targets do not fit.
    counted : int
        The number of targets that the loss does not ignore.
    number : int
        The number of the batch in the epoch, from 1.
    scale : float
        The factor of its gradient in the step: the fraction of the step's weight, where several
        batches make a step, or several processes. 0 if no target counts.
    elsewhere : bool
        Whether no target counts here, but some do in the parts of other processes.
    """

    inputs: tuple[Any, ...]
    targets: tuple[Any, ...]
    weight: float
    counted: int
    number: int = 0
    scale: float = 1.0
    elsewhere: bool = False

    def loss_of(self, loss: Layer, predictions: Any) -> float:
        """Return the loss, or raise a NotFiniteError that says what is not finite."""
        try:
            value = getattr(loss, "of_outputs", loss)(predictions, *self.targets)
        except ValueError as error:
            if all(np.isfinite(output).all() for output in as_outputs(predictions)):
                raise
            self._check_finite()
            raise NotFiniteError(str(error)) from error
        if not math.isfinite(value):
            self._check_finite()
            raise NotFiniteError(f"the loss is {value}")
        if math.isnan(self.weight):
            raise ValueError(
                f"sample weights must be numbers of at least 0, one for each sample, got the shape "
                f"{np.shape(self.targets[-1])}"
            )
        return float(value)

    def _check_finite(self) -> None:
        for array in map(np.asarray, (*self.inputs, *self.targets)):
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                raise NotFiniteInputError("the data of this batch contain NaN or infinity")


def as_batch(given: Any, loss: Layer) -> Batch:
    """Return the item of a loader as a `Batch`."""
    if isinstance(given, tuple) and not given:
        return Batch((), (), 0.0, 0)
    if not takes_target(loss):
        return _without_targets(given, loss)
    if not isinstance(given, (tuple, list)) or len(given) not in (2, 3):
        what = f"{len(given)} items" if isinstance(given, (tuple, list)) else type(given).__name__
        raise TypeError(
            f"a batch must be a pair (inputs, targets), or have sample weights as a third item, "
            f"got {what}"
        )
    inputs, *targets = given
    inputs = inputs if isinstance(inputs, tuple) else (inputs,)
    return Batch(inputs, tuple(targets), *weight_and_count(loss, *targets))


def _without_targets(given: Any, loss: Layer) -> Batch:
    """Return a batch for a loss that compares the outputs of a model with each other."""
    items = tuple(given) if isinstance(given, (tuple, list)) else (given,)
    inputs, *weights = items if isinstance(items[0], tuple) else (items,)
    if len(weights) > 1:
        raise TypeError(
            f"{loss.label} takes no target: a batch must have the inputs, or be a pair (tuple of "
            f"inputs, sample weights), got {len(items)} items"
        )
    count = len(np.asarray(inputs[0]))
    return Batch(inputs, tuple(weights), *weight_and_count(loss, np.empty(count), *weights))


def takes_target(loss: Layer) -> bool:
    """Whether the loss is called with a target, which a batch then has after its inputs."""
    return getattr(loss, "takes_target", True)


def as_outputs(predictions: Any) -> tuple[Any, ...]:
    """Return the outputs of a model, of which there may be one."""
    return predictions if isinstance(predictions, tuple) else (predictions,)


def weight_and_count(loss: Layer, targets: Any, sample_weight: Any = None) -> tuple[float, int]:
    """Return the divisor of the mean of `loss`, and the number of targets that it does not ignore.

    The divisor is Σ w c over targets of weight w and class weight c.
    """
    targets = np.asarray(targets)
    labelled = targets.dtype.kind in "iu"
    class_weight = loss.weight if labelled and isinstance(loss, ClassLoss) else None
    ignored = getattr(loss, "ignore_index", None) if labelled else None
    count = targets.size if ignored is None else int(np.count_nonzero(targets != ignored))
    if sample_weight is None and class_weight is None:
        return float(count), count
    try:
        return _weight(targets, sample_weight, class_weight, ignored), count
    except (ValueError, TypeError):  # the loss has the better message
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
    # Weights of both signs that cancel are an error, not weights of 0.
    return total if total or not weights.any() else math.nan


def averages(loss: Layer) -> bool:
    """Whether the loss of a batch is a mean over it, and not a sum."""
    return getattr(loss, "reduction", "mean") != "sum"


# ---- data sets ----


def are_arrays(data: Any) -> bool:
    """Whether `data` are arrays of a whole data set, and not batches."""
    if not isinstance(data, (tuple, list)):
        return False
    # An item that is an array, or a list of numbers, is not a batch: a batch is a pair of arrays.
    return any(isinstance(item, np.ndarray) for item in data) or (
        isinstance(data, tuple) and not all(_has_arrays(item) for item in data)
    )


def _has_arrays(item: Any) -> bool:
    return isinstance(item, (tuple, list)) and any(
        isinstance(part, np.ndarray) or _has_arrays(part) for part in item
    )


def batches_of(data: Iterable[Any], batch_size: int, processes: Processes = ALONE) -> DataLoader:
    """Return the batches of arrays (inputs, ...), where inputs may be a tuple of several.

    Each of the processes gets `batch_size` samples of a batch.
    """
    inputs, *others = data
    if isinstance(inputs, tuple):
        inputs = tuple(as_array(array, "DataLoader") for array in inputs)
    return DataLoader(inputs, *others, batch_size=batch_size * processes.size, shard=processes)
