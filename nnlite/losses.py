"""Losses: layers that compare a prediction with a target and return one number to minimise.

``loss(prediction, target)`` returns a float. ``loss.backward()`` returns its gradient with respect
to the prediction, which is the argument of ``model.backward``.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from .checks import (
    as_floats,
    as_output_grad,
    boolean,
    check_is_array,
    class_indices,
    integer,
    number,
    one_of,
    positive,
)
from .engine.arrays import Array
from .engine.elementwise import sigmoid
from .engine.memory import ones
from .layer import Layer

REDUCTIONS = ("mean", "sum", "none")


class Loss(Layer):
    """Base class of losses, with reduction and sample weights.

    Parameters
    ----------
    reduction : {"mean", "sum", "none"}
        Whether the losses are averaged, summed, or returned one by one.

    Raises
    ------
    ValueError
        If the shapes of prediction and target do not match, or values are out of range or not
        finite.
    TypeError
        If the loss does not accept their dtype.

    Notes
    -----
    With losses ℓ_n and weights w_n, "sum" is Σ w_n ℓ_n and "mean" is Σ w_n ℓ_n / Σ w_n.

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> loss = nn.MeanSquaredError(reduction="mean")
    >>> prediction, target = np.array([1.0, 3.0]), np.array([0.0, 0.0])
    >>> loss(prediction, target)
    5.0
    >>> loss(prediction, target, sample_weight=[3, 1])  # (3 · 1² + 1 · 3²) / (3 + 1)
    3.0
    """

    reduction: str
    _warned = False

    def __init__(self, reduction: str = "mean") -> None:
        self.reduction = one_of(reduction, REDUCTIONS, f"{type(self).__name__}: reduction")

    def forward(
        self, prediction: Array, target: Any, sample_weight: ArrayLike | None = None
    ) -> Any:
        """Return the loss: a float, or with "none" an array with the loss of each label or value.

        Parameters
        ----------
        prediction : ndarray of shape (N, …)
        target : ndarray
            The true values.
        sample_weight : array_like of shape (N,), optional
            The weight of each sample; not negative, and not all zero.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define forward")

    def backward(self, grad: Any = 1.0, input_grad: bool = True) -> Any:
        """Return dL/d(prediction) for `grad` = dL/d(loss), a number or, with "none", an array."""
        raise NotImplementedError(f"{type(self).__name__} does not define backward")

    def _as_prediction(self, prediction: ArrayLike) -> Array:
        prediction = as_floats(self, prediction, name="predictions")
        flat = prediction.ravel(order="K")
        # If there is a NaN, it is both the minimum and the maximum. For a small batch, argmax takes
        # a fifth of the time of max.
        lowest, highest = flat.item(flat.argmin()), flat.item(flat.argmax())
        if not (math.isfinite(lowest) and math.isfinite(highest)):
            self._refuse(prediction, ~np.isfinite(prediction))
        return prediction

    def _refuse(self, prediction: Array, faults: Array) -> None:
        """Raise a ValueError that names the first prediction for which `faults` is True."""
        place = tuple(np.argwhere(faults)[0].tolist())
        value = "NaN" if np.isnan(prediction[place]) else prediction[place]
        raise ValueError(
            f"{self.label}: the predictions contain {value} at {place}, in sample {place[0]}; "
            f"training has diverged (try a smaller learning rate), or the input was not finite"
        )

    def _doubt(self, prediction: Array) -> str | None:
        """Return a warning if the predictions look unlike those that the loss expects."""
        return None

    def _warn_at_first(self, prediction: Array) -> None:
        """Warn if the predictions of the first batch look wrong."""
        if self._warned:
            return
        doubt = self._doubt(prediction)
        if doubt is not None:
            warnings.warn(f"{self.label} {doubt}", UserWarning, stacklevel=4)
        self._warned = True

    def _as_weights(
        self, sample_weight: ArrayLike | None, shape: tuple[int, ...], dtype: Any
    ) -> Any:
        """Return the weight of each loss, for losses of `shape`; 1.0 if there are no weights."""
        if sample_weight is None:
            return 1.0
        check_is_array(sample_weight, self.label)
        weights = np.asarray(sample_weight)
        if weights.dtype.kind not in "fiu":
            raise TypeError(f"{self.label}: sample weights must be numbers, got {weights.dtype}")
        if weights.shape != shape[:1]:
            raise ValueError(
                f"{self.label}: expected sample weights of shape {shape[:1]}, got {weights.shape}"
            )
        positive = weights.max() > 0 or self.reduction != "mean"
        if not (np.isfinite(weights).all() and weights.min() >= 0 and positive):
            raise ValueError(
                f"{self.label}: sample weights must be finite, not negative and, for a mean, not "
                f"all zero"
            )
        column = weights.astype(dtype).reshape(-1, *[1] * (len(shape) - 1))
        return np.broadcast_to(column, shape)

    def _reduce(self, losses: Array, weights: Any, norms: Any = None) -> tuple[Any, Any]:
        """Return the reduced loss and its derivative with respect to each loss.

        "mean" divides by the sum of `norms`, or of `weights` if `norms` is None.
        """
        if not isinstance(weights, float):
            losses = losses * weights
        if self.reduction == "none":
            return losses, weights
        total = float(np.add.reduce(losses, axis=None, dtype=np.float64))
        if self.reduction == "sum":
            return total, weights
        norms = weights if norms is None else norms
        norm = losses.size * norms if isinstance(norms, float) else float(norms.sum())
        if not norm:
            raise ValueError(
                f"{self.label}: every label of the batch is ignored or has a weight of 0, so "
                f"that there is no mean; skip such batches, or use reduction='sum'"
            )
        return total / norm, weights / norm

    def _factor(self, grad: Any, factor: Any, shape: tuple[int, ...], dtype: Any) -> Any:
        """Return dL/dℓ of each loss, given `grad` = dL/d(output of forward)."""
        if type(grad) is not float and np.ndim(grad) == 0:
            grad = number(grad, f"{self.label}: the gradient")
        if self.reduction == "none":
            grad = np.full(shape, grad, dtype) if isinstance(grad, float) else grad
            grad = as_output_grad(self, grad, shape, dtype)
        elif not isinstance(grad, float):
            raise ValueError(
                f"{self.label}: backward expects the gradient of its output, a number, "
                f"got an array of shape {np.shape(grad)}"
            )
        return grad * factor


class _ClassLoss(Loss):
    """Base class of losses of class scores, with class weights and ignored labels.

    Scores of shape (N, C, d₁, …) become a matrix (C, M) with a column for each label. With the
    classes first, sums over a few classes are sums of long rows, which is faster.
    """

    weight: Array | None
    ignore_index: int
    label_smoothing: float = 0.0

    def __init__(self, reduction: str, weight: Any, ignore_index: int) -> None:
        super().__init__(reduction)
        name = type(self).__name__
        self.weight = _as_class_weight(weight, name)
        self.ignore_index = integer(ignore_index, f"{name}: ignore_index", minimum=-math.inf)

    @property
    def _takes_masks(self) -> bool:
        """Whether a prediction of -inf masks a class."""
        return True

    def _as_scores(self, prediction: ArrayLike) -> Array:
        prediction = self._as_prediction(prediction)
        if prediction.ndim < 2:
            raise ValueError(
                f"{self.label}: expected predictions of shape (N, classes, ...), "
                f"got {prediction.shape}"
            )
        classes = prediction.shape[1]
        if self.weight is not None and len(self.weight) != classes:
            raise ValueError(
                f"{self.label}: {len(self.weight)} class weights do not fit {classes} classes"
            )
        return prediction

    def _refuse(self, prediction: Array, faults: Array) -> None:
        """Accept logits of -inf, which mask a class, unless all classes of a label are masked."""
        masked = (prediction == -math.inf) & self._takes_masks
        faults = faults & ~masked
        if faults.any():
            super()._refuse(prediction, faults)
        if prediction.ndim > 1 and masked.all(axis=1).any():
            sample = int(np.argwhere(masked.all(axis=1))[0][0])
            raise ValueError(f"{self.label}: all classes are masked (-inf) in sample {sample}")

    def _finish(self, target: _Target, losses: Array) -> tuple[Any, Any]:
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

    def _label_factor(self, target: _Target, grad: Any, factor: Any) -> Any:
        """Return dL/dℓ of each label, as one float or a row."""
        shape = target.label_shape
        if self.reduction == "none" and not isinstance(factor, float):
            factor = factor.reshape(shape)
        factor = self._factor(grad, factor, shape, target.dtype)
        return factor if isinstance(factor, float) else factor.reshape(-1)


class CrossEntropy(_ClassLoss):
    """Cross-entropy of class scores against class indices or class probabilities.

    Parameters
    ----------
    reduction : {"mean", "sum", "none"}
        Whether the losses of the labels are averaged, summed, or returned one by one.
    from_logits : bool, default True
        True for logits, unbounded scores such as the output of a `Linear` layer. False for
        probabilities, the output of a `Softmax` layer.
    weight : array_like of shape (C,), or dict, optional
        The weight of each class: an array, or a dict from class index to weight. For class indices,
        "mean" is the weighted mean, as in PyTorch. `nnlite.class_weights` computes balanced
        weights.
    label_smoothing : float in [0, 1], default 0
        Fraction ε of the target that is distributed evenly over all classes.
    ignore_index : int, default -100
        Labels with this value do not contribute to the loss.

    Raises
    ------
    ValueError
        If a label is out of range, if the numbers of labels and predictions differ, if target
        probabilities do not sum to 1, if all labels are ignored and the reduction is "mean", if a
        prediction is NaN or +inf, if the loss is infinite, or if predictions are not probabilities
        with ``from_logits=False``.
    TypeError
        If the labels are neither integers nor probabilities.

    Warns
    -----
    UserWarning
        If the first batch of logits looks like probabilities, since a network that ends with a
        `Softmax` trains badly on a loss of logits. Also if there is only one class, since the loss
        is then always 0.

    Notes
    -----
    Shapes: prediction (N, C), target (N,) of indices in [0, C); or (N, C, d₁, …) and
    (N, d₁, …), as in PyTorch. A target of floats has the shape of the prediction and contains the
    probability of each class. With logits x, label t and p = softmax(x)::

        ℓ = log Σ_j exp(x_j) - x_t          dℓ/dx_j = p_j - [j = t]

    The largest logit is subtracted first, so that no finite logit overflows. A logit of -inf masks
    its class: the probability and the gradient are 0. With probabilities p, clipped below at the
    smallest normal float::

        ℓ = -log p_t                        dℓ/dp_j = -[j = t] / p_t

    Each dℓ/dp_j is limited to the largest float. In general, with target probabilities y (one-hot
    for class indices), class weights w and smoothing ε, the target is
    q_j = w_j ((1-ε) y_j + ε/C), and::

        ℓ = -Σ_j q_j log p_j                dℓ/dx_j = p_j Σ_k q_k - q_j

    "mean" divides by the sum of the labels' weights w_t, or by the number of labels if the target
    is probabilities. If all labels are ignored, "sum" is 0, "none" is zeros and "mean" is a
    ValueError.

    References
    ----------
    C. Bishop, "Pattern Recognition and Machine Learning", Springer 2006, section 4.3.4.
    C. Szegedy et al., "Rethinking the Inception architecture for computer vision", CVPR 2016,
    section 7 (label smoothing).

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

    Class probabilities as the target, as in mixup and distillation:

    >>> round(loss(np.array([[0.0, 0.0]]), np.array([[0.7, 0.3]])), 6)
    0.693147
    >>> loss.backward()
    array([[-0.2,  0.2]])
    """

    from_logits: bool

    def __init__(
        self,
        reduction: str = "mean",
        from_logits: bool = True,
        *,
        weight: ArrayLike | Mapping[int, float] | None = None,
        label_smoothing: float = 0.0,
        ignore_index: int = -100,
    ) -> None:
        super().__init__(reduction, weight, ignore_index)
        self.from_logits = boolean(from_logits, "CrossEntropy: from_logits")
        self.label_smoothing = number(label_smoothing, "CrossEntropy: label_smoothing", 0, 1)

    def forward(
        self, prediction: Array, target: Any, sample_weight: ArrayLike | None = None
    ) -> Any:
        prediction = self._as_scores(prediction)
        scores = _as_columns(prediction)
        q = self._target(prediction, target, sample_weight)
        if self.from_logits:
            self._warn_at_first(scores)
            shifted = scores - np.maximum.reduce(scores, axis=0)
            p = np.exp(shifted)
            sums = np.dot(ones(scores.shape[:1], scores.dtype), p)
            p /= sums
            losses = q.cross_entropy(shifted, np.log(sums))
        else:
            self._check_probabilities(scores)
            p = np.maximum(scores, np.finfo(scores.dtype).tiny)
            losses = q.cross_entropy(np.log(p))
        value, factor = self._finish(q, losses)
        self.cache(prediction.shape, q, p, factor)
        return value

    def backward(self, grad: Any = 1.0, input_grad: bool = True) -> Any:
        shape, q, p, factor = self.cached()
        factor = self._label_factor(q, grad, factor)
        if not input_grad:
            return None
        if self.from_logits:
            result = p * q.totals(factor)
            q.subtract_from(result, factor)
        else:
            result = np.zeros_like(p)
            q.subtract_from(result, factor)
            with np.errstate(over="ignore"):
                result = _bounded(result / p)
        return _from_columns(result, shape)

    def _target(self, prediction: Array, target: Any, sample_weight: Any) -> _Target:
        if np.ndim(target) != 1 and np.asarray(target).dtype.kind == "f":
            check_is_array(target, self.label)
            return _Probabilities(self, prediction, np.asarray(target), sample_weight)
        return _Labels(self, prediction, target, sample_weight)

    @property
    def _takes_masks(self) -> bool:
        return self.from_logits

    def _doubt(self, scores: Array) -> str | None:
        if len(scores) == 1:
            return (
                "has got the scores of a single class, whose loss is always 0; for one yes-or-no "
                "score use BinaryCrossEntropy"
            )
        if _are_distributions(scores):
            return (
                "expects logits, but these predictions look like probabilities; leave out the "
                "Softmax at the end of the model, or use CrossEntropy(from_logits=False)"
            )
        return None

    def _check_probabilities(self, scores: Array) -> None:
        if not _are_distributions(scores):
            raise ValueError(
                f"{self.label}: expected probabilities (in [0, 1], with a sum of 1 over the "
                f"classes), got values in [{scores.min():g}, {scores.max():g}] with a sum of "
                f"{scores[:, 0].sum():g} for the first sample; end the model with nn.Softmax(), "
                f"or use from_logits=True"
            )


class NegativeLogLikelihood(_ClassLoss):
    """Negative log-likelihood of class indices, given log-probabilities: ``ℓ = -w_t x_t``.

    Parameters
    ----------
    reduction : {"mean", "sum", "none"}
    weight : array_like of shape (C,), or dict, optional
        The weight of each class. "mean" divides by the sum of the labels' weights.
    ignore_index : int, default -100
        Labels with this value do not contribute to the loss.

    Raises
    ------
    ValueError, TypeError
        As in `CrossEntropy`.

    Warns
    -----
    UserWarning
        If the first batch has positive values, which are logits or probabilities, not
        log-probabilities.

    Notes
    -----
    Shapes: prediction (N, C), target (N,); or (N, C, d₁, …) and (N, d₁, …)::

        dℓ/dx_j = -w_t [j = t]

    `LogSoftmax` followed by this loss equals `CrossEntropy` of the logits.

    References
    ----------
    C. Bishop, "Pattern Recognition and Machine Learning", Springer 2006, section 4.3.4.

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> loss = nn.NegativeLogLikelihood()
    >>> loss(np.array([[-0.5, -1.0], [-2.0, -0.25]]), np.array([0, 1]))
    0.375
    >>> loss.backward()
    array([[-0.5,  0. ],
           [ 0. , -0.5]])
    """

    def __init__(
        self,
        reduction: str = "mean",
        *,
        weight: ArrayLike | Mapping[int, float] | None = None,
        ignore_index: int = -100,
    ) -> None:
        super().__init__(reduction, weight, ignore_index)

    def forward(
        self, prediction: Array, target: Any, sample_weight: ArrayLike | None = None
    ) -> Any:
        prediction = self._as_scores(prediction)
        scores = _as_columns(prediction)
        q = _Labels(self, prediction, target, sample_weight)
        self._warn_at_first(scores)
        value, factor = self._finish(q, q.cross_entropy(scores))
        self.cache(prediction.shape, q, scores, factor)
        return value

    def backward(self, grad: Any = 1.0, input_grad: bool = True) -> Any:
        shape, q, scores, factor = self.cached()
        factor = self._label_factor(q, grad, factor)
        if not input_grad:
            return None
        result = np.zeros_like(scores)
        q.subtract_from(result, factor)
        return _from_columns(result, shape)

    def _doubt(self, scores: Array) -> str | None:
        if scores.max() <= 1e-3:
            return None
        return (
            "expects log-probabilities, but these predictions have positive values; end the model "
            "with nn.LogSoftmax(), or use CrossEntropy, which takes logits"
        )


class _Target:
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

    def __init__(
        self, loss: _ClassLoss, prediction: Array, sample_weight: ArrayLike | None
    ) -> None:
        self.dtype = prediction.dtype
        self.label_shape = prediction.shape[:1] + prediction.shape[2:]
        weights = loss._as_weights(sample_weight, self.label_shape, self.dtype)
        self.weights = self.norms = weights if isinstance(weights, float) else weights.reshape(-1)

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


class _Labels(_Target):
    """Class indices t: q_j = peak [j = t] + floor_j, where label smoothing gives the floor."""

    def __init__(
        self, loss: _ClassLoss, prediction: Array, target: Any, sample_weight: ArrayLike | None
    ) -> None:
        super().__init__(loss, prediction, sample_weight)
        labels, any_ignored = class_indices(target, prediction, loss.ignore_index, loss)
        labels = labels.reshape(-1)
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

    def cross_entropy(self, logs: Array, log_sums: Any = 0.0) -> Array:
        chosen = logs.take(self.places)
        if not isinstance(self.weights, float):
            chosen = np.where(self.weights, chosen, 0)  # the score of an ignored label may be -inf
        losses: Array = (log_sums - chosen) * self.peaks
        if self.smooth:
            losses += ((log_sums - logs) * self.floors).sum(axis=0)
        return losses

    def totals(self, factor: Any) -> Any:
        return factor * (self.peaks + self.floors.sum()) if self.weighted else factor

    def subtract_from(self, result: Array, factor: Any) -> None:
        if self.smooth:
            result -= factor * self.floors
        result.reshape(-1)[self.places] -= factor * self.peaks


class _Probabilities(_Target):
    """Class probabilities y: q_j = w_j ((1-ε) y_j + ε/C)."""

    def __init__(
        self, loss: _ClassLoss, prediction: Array, target: Array, sample_weight: ArrayLike | None
    ) -> None:
        super().__init__(loss, prediction, sample_weight)
        if target.shape != prediction.shape:
            raise ValueError(
                f"{loss.label}: predictions of shape {prediction.shape} need labels of shape "
                f"{self.label_shape}, or target probabilities of their own shape, got shape "
                f"{target.shape} and dtype {target.dtype}"
            )
        y = _as_columns(target.astype(self.dtype, copy=False))
        if not _are_distributions(y):
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


def _as_columns(scores: Array) -> Array:
    """Return scores (N, C, d₁, …) as a matrix (C, M) with a column for each label."""
    columns = scores.T if scores.ndim == 2 else np.moveaxis(scores, 1, 0)
    return np.ascontiguousarray(columns).reshape(scores.shape[1], -1)


def _from_columns(columns: Array, shape: tuple[int, ...]) -> Array:
    """Reshape a matrix (C, M) to the `shape` of the scores."""
    if len(shape) == 2:
        return columns.T
    return np.moveaxis(columns.reshape(shape[1], shape[0], *shape[2:]), 0, 1)


def _bounded(values: Array) -> Array:
    """Limit infinite values to the largest finite numbers of their dtype."""
    largest = np.finfo(values.dtype).max
    return np.clip(values, -largest, largest)


def _are_distributions(columns: Array) -> bool:
    """Whether each column of a matrix (C, M) is a distribution over the classes."""
    return columns.min() >= 0 and bool(np.abs(columns.sum(axis=0) - 1).max() < 1e-3)


def are_sigmoids(values: Array) -> bool:
    """Whether the values look like outputs of a `Sigmoid` rather than logits."""
    if values.size < 4 or values.min() < 0 or values.max() > 1:
        return False
    # Logits of a new network may all be slightly above 0.
    saturated = values.size >= 16 and values.max() - values.min() > 0.5
    return saturated or abs(values.mean() - 0.5) < 0.25


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


def _as_class_weight(weight: ArrayLike | Mapping[int, float] | None, name: str) -> Array | None:
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


class ElementwiseLoss(Loss):
    """Base class of losses that compare each predicted number with one target number.

    A subclass defines `losses` and `slopes`. Reductions are over all numbers of the batch.
    """

    def losses(self, prediction: Array, target: Array) -> Array:
        """Return ℓ of each number."""
        raise NotImplementedError(f"{type(self).__name__} does not define losses")

    def slopes(self, prediction: Array, target: Array) -> Array:
        """Return dℓ/d(prediction) of each number."""
        raise NotImplementedError(f"{type(self).__name__} does not define slopes")

    def _check(self, prediction: Array, target: Array) -> None:
        """Raise a ValueError if a value is outside the domain of the loss."""

    def forward(
        self, prediction: Array, target: Any, sample_weight: ArrayLike | None = None
    ) -> Any:
        prediction = self._as_prediction(prediction)
        check_is_array(target, self.label)
        wanted = np.asarray(target)
        if wanted.dtype.kind not in "fiu":
            cure = "; convert them with .astype(float)" if wanted.dtype.kind == "b" else ""
            raise TypeError(
                f"{self.label}: targets must be numbers, got dtype {wanted.dtype}{cure}"
            )
        if wanted.shape != prediction.shape:
            raise ValueError(
                f"{self.label}: predictions of shape {prediction.shape} need targets of the same "
                f"shape, got {wanted.shape}; broadcasting is not applied here, as it hides mistakes"
            )
        wanted = wanted.astype(prediction.dtype, copy=False)
        if not np.isfinite(wanted).all():
            raise ValueError(f"{self.label}: the targets are not finite")
        self._check(prediction, wanted)
        self._warn_at_first(prediction)
        weights = self._as_weights(sample_weight, prediction.shape, prediction.dtype)
        value, factor = self._reduce(self.losses(prediction, wanted), weights)
        self.cache(prediction, wanted, factor)
        return value

    def backward(self, grad: Any = 1.0, input_grad: bool = True) -> Any:
        prediction, target, factor = self.cached()
        factor = self._factor(grad, factor, prediction.shape, prediction.dtype)
        return self.slopes(prediction, target) * factor if input_grad else None


class MeanSquaredError(ElementwiseLoss):
    """Squared error: ``ℓ = (x - t)²``.

    Parameters
    ----------
    reduction : {"mean", "sum", "none"}
        The mean is over all numbers of the batch, as in PyTorch.

    Notes
    -----
    Shapes: prediction and target alike, (N, …)::

        dℓ/dx = 2 (x - t)

    References
    ----------
    C. Bishop, "Pattern Recognition and Machine Learning", Springer 2006, section 3.1.1.

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> loss = nn.MeanSquaredError()
    >>> loss(np.array([[1.0], [3.0]]), np.array([[0.0], [0.0]]))
    5.0
    >>> loss.backward()
    array([[1.],
           [3.]])
    """

    def losses(self, prediction: Array, target: Array) -> Array:
        return np.square(prediction - target)

    def slopes(self, prediction: Array, target: Array) -> Array:
        return 2 * (prediction - target)


class MeanAbsoluteError(ElementwiseLoss):
    """Absolute error: ``ℓ = |x - t|``.

    Parameters
    ----------
    reduction : {"mean", "sum", "none"}

    Notes
    -----
    Shapes: prediction and target alike, (N, …). At x = t there is no derivative, and 0 is used::

        dℓ/dx = sign(x - t)

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> nn.MeanAbsoluteError()(np.array([[1.0], [-3.0]]), np.array([[0.0], [0.0]]))
    2.0
    """

    def losses(self, prediction: Array, target: Array) -> Array:
        return np.abs(prediction - target)

    def slopes(self, prediction: Array, target: Array) -> Array:
        return np.sign(prediction - target)


class Huber(ElementwiseLoss):
    """Squared error near the target, absolute error far from it.

    Parameters
    ----------
    reduction : {"mean", "sum", "none"}
    delta : float, default 1
        Error above which the loss is linear, a positive number.

    Notes
    -----
    Shapes: prediction and target alike, (N, …). With d = x - t::

        ℓ = d² / 2              dℓ/dx = d               for |d| ≤ delta
        ℓ = delta (|d| - delta/2)    dℓ/dx = delta sign(d)   elsewhere

    References
    ----------
    P. Huber, "Robust estimation of a location parameter", Annals of Mathematical Statistics 35,
    1964.

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> nn.Huber(reduction="none")(np.array([1.0, 3.0]), np.array([0.0, 0.0]))
    array([0.5, 2.5])
    """

    delta: float

    def __init__(self, reduction: str = "mean", delta: float = 1.0) -> None:
        super().__init__(reduction)
        self.delta = positive(delta, "Huber: delta")

    def losses(self, prediction: Array, target: Array) -> Array:
        distance = np.abs(prediction - target)
        near = np.minimum(distance, self.delta)
        return near * (distance - near / 2)

    def slopes(self, prediction: Array, target: Array) -> Array:
        return np.clip(prediction - target, -self.delta, self.delta)


class BinaryCrossEntropy(ElementwiseLoss):
    """Cross-entropy of the score of a binary decision against a target in [0, 1].

    Parameters
    ----------
    reduction : {"mean", "sum", "none"}
    from_logits : bool, default True
        True for logits, unbounded scores. False for probabilities, the output of a `Sigmoid`.
    pos_weight : float, default 1
        Weight of positive targets relative to negative ones.

    Raises
    ------
    ValueError
        If a target is not in [0, 1], or a prediction is not with ``from_logits=False``.

    Warns
    -----
    UserWarning
        If the first batch of logits looks like probabilities, the output of a `Sigmoid`.

    Notes
    -----
    Shapes: prediction and target alike, (N, …). With logit x, p = σ(x), target t and
    c = `pos_weight`::

        ℓ = -(c t log p + (1-t) log(1-p))       dℓ/dx = (1-t) p - c t (1-p)

    The logarithms are computed from x, not from p, so that no logit overflows or rounds to a loss
    of 0. With probabilities, p and 1-p are clipped below at the smallest normal float, and::

        dℓ/dp = (1-t) / (1-p) - c t / p

    References
    ----------
    C. Bishop, "Pattern Recognition and Machine Learning", Springer 2006, section 4.3.2.

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> loss = nn.BinaryCrossEntropy()
    >>> round(loss(np.array([[0.0], [-1000.0]]), np.array([[1], [0]])), 6)  # (log 2 + 0) / 2
    0.346574
    >>> loss.backward()
    array([[-0.25],
           [ 0.  ]])
    """

    from_logits: bool
    pos_weight: float

    def __init__(
        self, reduction: str = "mean", from_logits: bool = True, *, pos_weight: float = 1.0
    ) -> None:
        super().__init__(reduction)
        self.from_logits = boolean(from_logits, "BinaryCrossEntropy: from_logits")
        self.pos_weight = number(pos_weight, "BinaryCrossEntropy: pos_weight", minimum=0)

    def _check(self, prediction: Array, target: Array) -> None:
        if target.min() < 0 or target.max() > 1:
            raise ValueError(
                f"{self.label}: targets must be in [0, 1], "
                f"got values in [{target.min():g}, {target.max():g}]"
            )
        if not self.from_logits and (prediction.min() < 0 or prediction.max() > 1):
            raise ValueError(
                f"{self.label}: expected probabilities in [0, 1], got values in "
                f"[{prediction.min():g}, {prediction.max():g}]; end the model with nn.Sigmoid(), "
                f"or use from_logits=True"
            )

    def _doubt(self, prediction: Array) -> str | None:
        if not (self.from_logits and are_sigmoids(prediction)):
            return None
        return (
            "expects logits, but these predictions look like probabilities; leave out the Sigmoid "
            "at the end of the model, or use BinaryCrossEntropy(from_logits=False)"
        )

    def losses(self, prediction: Array, target: Array) -> Array:
        positive = self.pos_weight * target
        if self.from_logits:
            # -log σ(x) = max(-x, 0) + log(1 + exp(-|x|)), and -log(1 - σ(x)) = -log σ(-x).
            rest = np.log1p(np.exp(-np.abs(prediction)))
            yes, no = np.maximum(-prediction, 0) + rest, np.maximum(prediction, 0) + rest
            return positive * yes + (1 - target) * no
        tiny = np.finfo(prediction.dtype).tiny
        logs = np.log(np.maximum(prediction, tiny)), np.log(np.maximum(1 - prediction, tiny))
        return -(positive * logs[0] + (1 - target) * logs[1])

    def slopes(self, prediction: Array, target: Array) -> Array:
        positive = self.pos_weight * target
        if self.from_logits:
            return (1 - target) * sigmoid(prediction) - positive * sigmoid(-prediction)
        tiny = np.finfo(prediction.dtype).tiny
        no, yes = np.maximum(1 - prediction, tiny), np.maximum(prediction, tiny)
        return _bounded((1 - target) / no - positive / yes)

    def backward(self, grad: Any = 1.0, input_grad: bool = True) -> Any:
        with np.errstate(over="ignore"):
            result = super().backward(grad, input_grad)
        return _bounded(result) if input_grad and not self.from_logits else result
