"""Losses: layers that turn a prediction and a target into one number to be made small."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np

from .checks import as_floats, as_output_grad, one_of
from .layer import Array, Layer

REDUCTIONS = ("mean", "sum", "none")


class CrossEntropy(Layer):
    """Cross-entropy of class scores against class indices.

    Parameters
    ----------
    reduction : {"mean", "sum", "none"}
        Whether the losses of the samples are averaged, summed, or returned one by one.
    from_logits : bool, default True
        True takes logits: scores of any range, as the last `Linear` gives them. False takes
        probabilities: the output of a `Softmax` layer.

    Raises
    ------
    ValueError
        If a label is out of range, if labels and predictions differ in number, if a prediction is
        not finite, or if ``from_logits=False`` gets what are not probabilities.
    TypeError
        If the labels are not integers.

    Warns
    -----
    UserWarning
        If the first batch of logits looks like probabilities: the softmax of a softmax trains,
        but badly.

    Notes
    -----
    Shapes: prediction (N, C), target (N,) of indices in [0, C); or (N, C, d₁, …) and
    (N, d₁, …), as in PyTorch. With logits x, label t and p = softmax(x)::

        loss = log Σ_j exp(x_j) - x_t          dL/dx_j = p_j - [j = t]

    The largest logit is subtracted first, so that logits of any finite size are safe. With
    probabilities p::

        loss = -log p_t                        dL/dp_j = -[j = t] / p_t

    where p_t is taken to be at least the smallest normal float. The mean divides both by the
    number of labels.

    References
    ----------
    C. Bishop, "Pattern Recognition and Machine Learning", Springer 2006, section 4.3.4.

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> loss = nn.CrossEntropy()
    >>> round(loss(np.array([[0.0, 0.0], [0.0, 1e4]]), np.array([0, 1])), 6)  # (log 2 + 0) / 2
    0.346574
    >>> loss.backward()
    array([[-0.25,  0.25],
           [ 0.  ,  0.  ]])
    """

    reduction: str
    from_logits: bool

    def __init__(self, reduction: str = "mean", from_logits: bool = True) -> None:
        self.reduction = one_of(reduction, REDUCTIONS, "CrossEntropy: reduction")
        self.from_logits = from_logits
        self._first = True

    def forward(self, prediction: Array, target: Array) -> Any:
        """Return the loss: a float, or an array of the target's shape for "none"."""
        prediction = as_floats(self, prediction, name="predictions")
        if prediction.ndim < 2:
            raise ValueError(
                f"{self}: expected predictions of shape (N, classes, …), got {prediction.shape}"
            )
        classes = prediction.shape[1]
        labels = self._labels(target, prediction.shape).reshape(-1)
        rows = prediction
        if prediction.ndim > 2:
            rows = np.moveaxis(prediction, 1, -1).reshape(-1, classes)
        if not np.isfinite(rows).all():
            raise ValueError(
                f"{self}: the predictions contain {_first_not_finite(rows)}; "
                f"training has diverged, or the input was not finite"
            )
        # Where the entry of each row's label lies in the flat array.
        picked = np.arange(0, rows.size, classes) + labels
        if self.from_logits:
            if self._first:
                self._warn_of_probabilities(rows)
            shifted = rows - rows.max(axis=1, keepdims=True)
            exponentials = np.exp(shifted)
            sums = exponentials.sum(axis=1, keepdims=True)
            losses = np.log(sums).reshape(-1) - shifted.reshape(-1)[picked]
            self.cache(prediction, picked, exponentials, sums)
        else:
            self._check_probabilities(rows)
            chosen = np.maximum(rows.reshape(-1)[picked], np.finfo(rows.dtype).tiny)
            losses = -np.log(chosen)
            self.cache(prediction, picked, None, chosen)
        self._first = False
        if self.reduction == "none":
            return losses.reshape(prediction.shape[:1] + prediction.shape[2:])
        total = float(losses.sum(dtype=np.float64))
        return total / len(losses) if self.reduction == "mean" else total

    def backward(self, grad: Any = 1.0, input_grad: bool = True) -> Array | None:
        """Return dL/d(prediction), times `grad`: a number, or an array of them for "none"."""
        prediction, picked, exponentials, scale = self.cached()
        shape, dtype, count = prediction.shape, prediction.dtype, len(picked)
        if self.reduction == "none":
            shape = shape[:1] + shape[2:]
            factor = as_output_grad(self, np.broadcast_to(grad, shape).astype(dtype), shape, dtype)
            factor = factor.reshape(count, 1)
        else:
            factor = dtype.type(grad / count if self.reduction == "mean" else grad)
        if not input_grad:
            return None
        if exponentials is None:
            result = np.zeros((count, prediction.shape[1]), dtype)
            result.reshape(-1)[picked] = np.reshape(-factor / scale.reshape(-1, 1), -1)
        else:
            result = exponentials * (factor / scale)
            result.reshape(-1)[picked] -= np.reshape(factor, -1)
        if prediction.ndim > 2:
            moved = (prediction.shape[0], *prediction.shape[2:], prediction.shape[1])
            result = np.moveaxis(result.reshape(moved), -1, 1)
        return result

    def _labels(self, target: Array, shape: tuple[int, ...]) -> Array:
        labels = np.asarray(target)
        if labels.dtype.kind not in "iu":
            raise TypeError(
                f"{self}: expected labels of an integer dtype (class indices), got {labels.dtype}"
            )
        expected = shape[:1] + shape[2:]
        if labels.shape != expected:
            raise ValueError(
                f"{self}: predictions of shape {shape} need labels of shape {expected}, "
                f"got {labels.shape}"
            )
        lowest, highest = labels.min(), labels.max()
        if lowest < 0 or highest >= shape[1]:
            raise ValueError(
                f"{self}: labels must be in [0, {shape[1]}) for {shape[1]} classes, "
                f"got {lowest if lowest < 0 else highest}"
            )
        return labels

    def _check_probabilities(self, rows: Array) -> None:
        if not _are_probabilities(rows):
            raise ValueError(
                f"{self}: expected probabilities (each row in [0, 1] with sum 1), got values in "
                f"[{rows.min():g}, {rows.max():g}] with a sum of {rows[0].sum():g} in the first "
                f"row; put nn.Softmax() at the end of the model, or use from_logits=True"
            )

    def _warn_of_probabilities(self, rows: Array) -> None:
        if _are_probabilities(rows):
            warnings.warn(
                f"{self} expects logits, but this batch looks like probabilities; leave out the "
                f"Softmax at the end of the model, or use CrossEntropy(from_logits=False)",
                UserWarning,
                stacklevel=4,
            )


def _are_probabilities(rows: Array) -> bool:
    if rows.shape[1] < 2 or rows.min() < 0:
        return False
    return bool(np.abs(rows.sum(axis=1) - 1).max() < 1e-3)


def _first_not_finite(rows: Array) -> str:
    row, column = np.argwhere(~np.isfinite(rows))[0]
    value = rows[row, column]
    name = "NaN" if math.isnan(value) else str(value)
    return f"{name} (sample {row}, class {column})"
