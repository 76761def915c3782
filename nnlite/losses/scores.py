"""The base of losses of class scores, and the target distributions that they compare with."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..checks import class_indices, integer
from ..engine.arrays import Array
from .base import Loss


class ClassLoss(Loss):
    """Base class of losses of class scores, with class weights and ignored labels.

    Scores of shape (N, C, d₁, …) become a matrix (C, M) with a column for each label. With the
    classes first, sums over a few classes are sums of long rows, which is faster.
    """

    weight: Array | None
    ignore_index: int
    dim: int
    label_smoothing: float = 0.0

    def __init__(self, reduction: str, weight: Any, ignore_index: int, dim: int) -> None:
        super().__init__(reduction)
        name = type(self).__name__
        self.weight = as_class_weight(weight, name)
        self.ignore_index = integer(ignore_index, f"{name}: ignore_index", minimum=-math.inf)
        self.dim = integer(dim, f"{name}: dim", minimum=-1)
        if self.dim not in (1, -1):
            raise ValueError(f"{name}: dim must be 1 or -1, got {dim}")

    @property
    def _takes_masks(self) -> bool:
        """Whether a prediction of -inf masks a class."""
        return True

    def _as_scores(self, prediction: ArrayLike) -> Array:
        """Return the scores as (N, C, d₁, …)."""
        prediction = self._as_prediction(prediction)
        if prediction.ndim < 2:
            raise ValueError(
                f"{self.label}: expected predictions of shape (N, classes, ...), "
                f"got {prediction.shape}"
            )
        prediction = prediction if self.dim == 1 else np.moveaxis(prediction, self.dim, 1)
        if self.weight is not None:
            check_class_weight(self, self.weight, prediction.shape[1])
        return prediction

    def _refuse(self, prediction: Array, faults: Array, name: str) -> None:
        """Accept logits of -inf, which mask a class, unless all classes of a label are masked."""
        masked = (prediction == -math.inf) & self._takes_masks
        faults = faults & ~masked
        if faults.any():
            super()._refuse(prediction, faults, name)
        if prediction.ndim > 1 and masked.all(axis=self.dim).any():
            sample = int(np.argwhere(masked.all(axis=self.dim))[0][0])
            raise ValueError(f"{self.label}: all classes are masked (-inf) in sample {sample}")

    def _doubt(self, scores: Array) -> str | None:
        if len(scores) > 1:
            return None
        return (
            "has got the scores of a single class, whose loss is always 0; for one yes-or-no "
            "score use BinaryCrossEntropy"
        )

    def _finish(self, target: Target, losses: Array) -> tuple[Any, Any]:
        """Reduce the losses of the labels; return the value and its derivative for each."""
        value, factor = self._reduce(losses, target.weights, target.norms)
        if self.reduction == "none":
            value = value.reshape(target.label_shape)
        if not (math.isfinite(value) if type(value) is float else np.isfinite(value).all()):
            sample = target.sample_of(int(np.argmax(~np.isfinite(losses))))
            raise ValueError(
                f"{self.label}: the loss of sample {sample} is infinite: its label, or with label "
                f"smoothing part of its target, is a masked class (score of -inf), or its scores "
                f"are too far apart for {target.dtype}"
            )
        return value, factor

    def _label_factor(self, target: Target, grad: Any, factor: Any) -> Any:
        """Return dL/dℓ of each label, as one float or a row."""
        shape = target.label_shape
        if self.reduction == "none" and not isinstance(factor, float):
            factor = factor.reshape(shape)
        factor = self._factor(grad, factor, shape, target.dtype)
        return factor if isinstance(factor, float) else factor.reshape(-1)

    def _from_columns(self, columns: Array, shape: tuple[int, ...]) -> Array:
        """Return a matrix (C, M) in the layout of the prediction, for scores of `shape`."""
        scores = from_columns(columns, shape)
        return scores if self.dim == 1 else np.moveaxis(scores, 1, self.dim)


class Target:
    """The target distribution q of each label of a batch, with a column of scores for each.

    Attributes
    ----------
    label_shape : tuple of int
        (N, d₁, …).
    weights : float or row
        The weight of each label's loss: that of its sample, or 0 if the label is ignored.
    norms : float or row
        Their sum is the divisor of "mean".
    """

    def __init__(self, loss: ClassLoss, prediction: Array, sample_weight: ArrayLike | None) -> None:
        self.dtype = prediction.dtype
        self.label_shape = prediction.shape[:1] + prediction.shape[2:]
        self.weights: Any = 1.0
        if sample_weight is not None:
            weights = loss._as_weights(sample_weight, self.label_shape, self.dtype)
            self.weights = weights.reshape(-1)
        self.norms = self.weights

    def sample_of(self, column: int) -> int:
        """Return the index of the sample of a column."""
        return column // math.prod(self.label_shape[1:])

    def cross_entropy(self, logs: Array, log_sums: Any = 0.0) -> Array:
        """Return -Σ_j q_j log p_j of each label, where log p = logs - log_sums."""
        raise NotImplementedError

    def totals(self, factor: Any) -> Any:
        """Return factor · Σ_j q_j of each label."""
        raise NotImplementedError

    def subtract_from(self, result: Array, factor: Any) -> None:
        """Subtract factor · q from `result` (C, M), in place."""
        raise NotImplementedError


class Labels(Target):
    """Class indices t: q_j = peak [j = t] + floor_j, where label smoothing gives the floor."""

    def __init__(
        self, loss: ClassLoss, prediction: Array, target: Any, sample_weight: ArrayLike | None
    ) -> None:
        super().__init__(loss, prediction, sample_weight)
        labels, any_ignored = class_indices(target, prediction, loss.ignore_index, loss)
        labels = labels.ravel()
        if any_ignored:
            counted = labels != loss.ignore_index
            self.weights = self.norms = self.weights * counted.astype(self.dtype)
            labels = np.where(counted, labels, 0)
        classes = prediction.shape[1]
        self.peaks: Any = 1.0 - loss.label_smoothing
        self.floors: Any = loss.label_smoothing / classes
        self.smooth = loss.label_smoothing > 0
        self.weighted = loss.weight is not None
        if loss.weight is not None:
            weight = loss.weight.astype(self.dtype)
            of_label = weight[labels]
            self.norms = self.weights * of_label
            self.peaks = self.peaks * of_label
            self.floors = self.floors * weight.reshape(-1, 1)
        # Position of each label's score in the flattened matrix.
        self.places = labels * labels.size + np.arange(labels.size)

    def chosen(self, logs: Array) -> Array:
        """Return the value of each label; 0 where its weight is 0, since it may be -inf there."""
        values: Array = logs.take(self.places)
        return values if isinstance(self.weights, float) else np.where(self.weights, values, 0)

    def cross_entropy(self, logs: Array, log_sums: Any = 0.0) -> Array:
        losses: Array = log_sums - self.chosen(logs)
        if self.smooth or self.weighted:  # otherwise the peaks are 1
            losses = losses * self.peaks
        if self.smooth:
            losses += ((log_sums - logs) * self.floors).sum(axis=0)
        return losses

    def totals(self, factor: Any) -> Any:
        return factor * (self.peaks + self.floors.sum()) if self.weighted else factor

    def subtract_from(self, result: Array, factor: Any) -> None:
        if self.smooth:
            result -= factor * self.floors
        result.reshape(-1)[self.places] -= factor * self.peaks


class Probabilities(Target):
    """Class probabilities y: q_j = w_j ((1-ε) y_j + ε/C)."""

    def __init__(
        self, loss: ClassLoss, prediction: Array, target: Array, sample_weight: ArrayLike | None
    ) -> None:
        super().__init__(loss, prediction, sample_weight)
        if loss.dim != 1 and target.ndim == prediction.ndim:
            target = np.moveaxis(target, loss.dim, 1)
        if target.shape != prediction.shape:
            raise ValueError(
                f"{loss.label}: predictions of shape {prediction.shape} need labels of shape "
                f"{self.label_shape}, or target probabilities of their own shape, got shape "
                f"{target.shape} and dtype {target.dtype}"
            )
        y = as_columns(target.astype(self.dtype, copy=False))
        if not are_distributions(y):
            raise ValueError(
                f"{loss.label}: target probabilities must be in [0, 1] and sum to 1 over the "
                f"classes, got values in [{y.min():g}, {y.max():g}] with sums in "
                f"[{y.sum(axis=0).min():g}, {y.sum(axis=0).max():g}]; for class indices, turn "
                f"one-hot rows into indices with argmax(axis=1)"
            )
        q = (1 - loss.label_smoothing) * y + loss.label_smoothing / len(y)
        self.q = q if loss.weight is None else q * loss.weight.astype(self.dtype).reshape(-1, 1)

    def cross_entropy(self, logs: Array, log_sums: Any = 0.0) -> Array:
        # The score of a class of probability 0 may be -inf: 0 · log 0 = 0.
        losses: Array = np.multiply(
            self.q, log_sums - logs, where=self.q > 0, out=np.zeros_like(logs)
        ).sum(axis=0)
        return losses

    def totals(self, factor: Any) -> Any:
        return factor * self.q.sum(axis=0)

    def subtract_from(self, result: Array, factor: Any) -> None:
        result -= factor * self.q


def as_columns(scores: Array) -> Array:
    """Return scores (N, C, d₁, …) as a matrix (C, M) with a column for each label."""
    if scores.ndim == 2:
        return np.ascontiguousarray(scores.T)
    return np.ascontiguousarray(np.moveaxis(scores, 1, 0)).reshape(scores.shape[1], -1)


def from_columns(columns: Array, shape: tuple[int, ...]) -> Array:
    """Reshape a matrix (C, M) to the `shape` of the scores."""
    if len(shape) == 2:
        return columns.T
    return np.moveaxis(columns.reshape(shape[1], shape[0], *shape[2:]), 0, 1)


def are_distributions(columns: Array) -> bool:
    """Whether each column of a matrix (C, M) is a distribution over the classes."""
    return columns.min() >= 0 and bool(np.abs(columns.sum(axis=0) - 1).max() < 1e-3)


def class_weights(labels: ArrayLike, classes: int | None = None) -> Array:
    """Return balanced class weights, with which every class has the same total weight.

    Parameters
    ----------
    labels : array_like of int
        The class indices of the training data.
    classes : int, optional
        Number of classes C; by default one more than the largest label.

    Returns
    -------
    ndarray of float64, shape (C,)
        n / (C n_c) for a class with n_c of the n labels, as scikit-learn's "balanced".

    Raises
    ------
    TypeError
        If the labels are not integers.
    ValueError
        If there are no labels, a label is out of range, or a class has no label.

    Examples
    --------
    >>> import nnlite as nn
    >>> nn.class_weights([0, 0, 0, 1])
    array([0.66666667, 2.        ])
    >>> nn.CrossEntropy(weight=nn.class_weights([0, 0, 0, 1]))
    CrossEntropy(weight=[0.6666666666666666, 2.0])
    """
    indices = np.asarray(labels)
    if indices.dtype.kind not in "iu":
        raise TypeError(
            f"class_weights: expected labels of an integer dtype (class indices), got "
            f"{indices.dtype}"
        )
    if not indices.size or indices.min() < 0:
        raise ValueError("class_weights: expected labels of at least 0, and at least one of them")
    counts = np.bincount(indices.reshape(-1))
    count = len(counts) if classes is None else integer(classes, "class_weights: classes")
    if len(counts) > count:
        raise ValueError(
            f"class_weights: labels must be in [0, {count}) for {count} classes, "
            f"got {len(counts) - 1}"
        )
    counts = np.pad(counts, (0, count - len(counts)))
    if not counts.all():
        raise ValueError(
            f"class_weights: no label is of class {int(counts.argmin())}, so that it has no weight"
        )
    return indices.size / (count * counts)


def as_class_weight(weight: ArrayLike | Mapping[int, float] | None, name: str) -> Array | None:
    """Return class weights as float64, or None."""
    if weight is None:
        return None
    if isinstance(weight, Mapping):
        if sorted(weight, key=repr) != sorted(range(len(weight)), key=repr):
            raise ValueError(
                f"{name}: weight as a dict needs a weight for each class index from 0 on, "
                f"got those of {list(weight)!r:.80}"
            )
        weight = [weight[index] for index in range(len(weight))]
    if isinstance(weight, str):
        raise TypeError(
            f"{name}: weight must be a number for each class, got {weight!r}; for balanced "
            f"classes use weight=nn.class_weights(labels)"
        )
    try:
        weights = np.array(weight, np.float64)
    except (TypeError, ValueError):
        raise TypeError(
            f"{name}: weight must be a number for each class, got {weight!r:.80}"
        ) from None
    if weights.ndim != 1 or not np.isfinite(weights).all() or (weights < 0).any():
        raise ValueError(f"{name}: weight must be a finite, non-negative number for each class")
    return weights


def check_class_weight(loss: Loss, weight: Array, classes: int) -> None:
    """Raise a ValueError unless there is a weight for each class."""
    if len(weight) != classes:
        raise ValueError(f"{loss.label}: {len(weight)} class weights do not fit {classes} classes")
