"""Losses: layers that turn a prediction and a target into one number, which training makes small.

``loss(prediction, target)`` is a float, and ``loss.backward()`` its gradient with respect to the
prediction, ready for ``model.backward``.
"""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from .checks import as_floats, as_output_grad, integer, number, one_of, positive
from .engine.arrays import Array
from .engine.elementwise import sigmoid
from .engine.memory import ones
from .layer import Layer

REDUCTIONS = ("mean", "sum", "none")

_ANY_INT = -(2**63)


class Loss(Layer):
    """Base class: reduction and sample weights.

    Parameters
    ----------
    reduction : {"mean", "sum", "none"}
        Whether the losses are averaged, summed, or returned one by one.

    Raises
    ------
    ValueError
        If predictions and targets do not fit, are out of range, or are not finite.
    TypeError
        If they are of a dtype that the loss cannot take.

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

    def __init__(self, reduction: str = "mean") -> None:
        self.reduction = one_of(reduction, REDUCTIONS, f"{type(self).__name__}: reduction")

    def forward(
        self, prediction: Array, target: Any, sample_weight: ArrayLike | None = None
    ) -> Any:
        """Return the loss: a float, or for "none" an array with the loss of each label or value.

        Parameters
        ----------
        prediction : ndarray of shape (N, …)
        target : ndarray
            What was to be predicted.
        sample_weight : array_like of shape (N,), optional
            How much each sample counts; not negative, and not all zero.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define forward")

    def backward(self, grad: Any = 1.0, input_grad: bool = True) -> Any:
        """Return dL/d(prediction), for `grad` = dL/d(loss): a number, or for "none" an array."""
        raise NotImplementedError(f"{type(self).__name__} does not define backward")

    def _as_prediction(self, prediction: ArrayLike) -> Array:
        prediction = as_floats(self, prediction, name="predictions")
        flat = prediction.ravel(order="K")
        # NaN counts as the smallest and the largest. For a small batch, argmax takes a fifth of
        # the time of max.
        lowest, highest = flat.item(flat.argmin()), flat.item(flat.argmax())
        if not (math.isfinite(lowest) and math.isfinite(highest)):
            place = tuple(np.argwhere(~np.isfinite(prediction))[0].tolist())
            value = "NaN" if np.isnan(prediction[place]) else prediction[place]
            raise ValueError(
                f"{self.label}: the predictions contain {value} at {place}, in sample {place[0]}; "
                f"training has diverged (try a smaller learning rate), or the input was not finite"
            )
        return prediction

    def _as_weights(
        self, sample_weight: ArrayLike | None, shape: tuple[int, ...], dtype: Any
    ) -> Any:
        """Return the weight of each loss, for losses of `shape`; 1.0 stands for no weights."""
        if sample_weight is None:
            return 1.0
        weights = np.asarray(sample_weight)
        if weights.dtype.kind not in "fiu":
            raise TypeError(f"{self.label}: sample weights must be numbers, got {weights.dtype}")
        if weights.shape != shape[:1]:
            raise ValueError(
                f"{self.label}: expected sample weights of shape {shape[:1]}, got {weights.shape}"
            )
        if not (np.isfinite(weights).all() and weights.min() >= 0 and weights.max() > 0):
            raise ValueError(
                f"{self.label}: sample weights must be finite, not negative and not all zero"
            )
        column = weights.astype(dtype).reshape(-1, *[1] * (len(shape) - 1))
        return np.broadcast_to(column, shape)

    def _reduce(self, losses: Array, weights: Any, norms: Any = None) -> tuple[Any, Any]:
        """Return the reduced losses, and the factor of each one's gradient in theirs.

        `norms` are the weights that "mean" divides by the sum of; None stands for `weights`.
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
        return total / norm, weights / norm

    def _factor(self, grad: Any, factor: Any, shape: tuple[int, ...], dtype: Any) -> Any:
        """Return dL/dℓ of each loss, given `grad` = dL/d(what forward returned)."""
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


class CrossEntropy(Loss):
    """Cross-entropy of class scores against class indices.

    Parameters
    ----------
    reduction : {"mean", "sum", "none"}
        Whether the losses of the labels are averaged, summed, or returned one by one.
    from_logits : bool, default True
        True takes logits: scores of any range, as the last `Linear` gives them. False takes
        probabilities: the output of a `Softmax` layer.
    weight : array_like of shape (C,), optional
        How much each class counts. The mean is weighted too, as in PyTorch.
    label_smoothing : float in [0, 1], default 0
        Share ε of the target that is spread evenly over all classes.
    ignore_index : int, default -100
        Labels of this value count for nothing.

    Raises
    ------
    ValueError
        If a label is out of range, if labels and predictions differ in number, if every label is
        ignored, if a prediction is not finite, or if ``from_logits=False`` gets what are not
        probabilities.
    TypeError
        If the labels are not integers.

    Warns
    -----
    UserWarning
        If the first batch of logits looks like probabilities: a network that ends with a `Softmax`
        trains on its outputs as if they were logits, but badly.

    Notes
    -----
    Shapes: prediction (N, C), target (N,) of indices in [0, C); or (N, C, d₁, …) and
    (N, d₁, …), as in PyTorch. With logits x, label t and p = softmax(x)::

        ℓ = log Σ_j exp(x_j) - x_t          dℓ/dx_j = p_j - [j = t]

    The largest logit is subtracted first, so that logits of any finite size are safe. With
    probabilities p, taken to be at least the smallest normal float::

        ℓ = -log p_t                        dℓ/dp_j = -[j = t] / p_t

    With class weights w and smoothing ε the target is q_j = w_j ((1-ε)[j = t] + ε/C), and::

        ℓ = -Σ_j q_j log p_j                dℓ/dx_j = p_j Σ_k q_k - q_j

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
    """

    from_logits: bool
    weight: Array | None
    label_smoothing: float
    ignore_index: int

    def __init__(
        self,
        reduction: str = "mean",
        from_logits: bool = True,
        *,
        weight: ArrayLike | None = None,
        label_smoothing: float = 0.0,
        ignore_index: int = -100,
    ) -> None:
        super().__init__(reduction)
        self.from_logits = from_logits
        self.weight = _as_class_weight(weight, "CrossEntropy")
        self.label_smoothing = number(label_smoothing, "CrossEntropy: label_smoothing", 0, 1)
        self.ignore_index = integer(ignore_index, "CrossEntropy: ignore_index", _ANY_INT)
        self._warned = False

    def forward(
        self, prediction: Array, target: Any, sample_weight: ArrayLike | None = None
    ) -> Any:
        prediction = self._as_prediction(prediction)
        targets = _Targets(self, prediction, target, sample_weight)
        scores = targets.scores
        if self.from_logits:
            self._warn_of_probabilities(scores)
            shifted = scores - np.maximum.reduce(scores, axis=0)
            probabilities = np.exp(shifted)
            sums = np.dot(ones(scores.shape[:1], scores.dtype), probabilities)
            probabilities /= sums
            value, factor = targets.reduce(shifted, np.log(sums))
        else:
            self._check_probabilities(scores)
            probabilities = np.maximum(scores, np.finfo(scores.dtype).tiny)
            value, factor = targets.reduce(np.log(probabilities))
        self.cache(targets, probabilities, factor)
        return value

    def backward(self, grad: Any = 1.0, input_grad: bool = True) -> Any:
        targets, probabilities, factor = self.cached()
        factor = targets.factor(grad, factor)
        if not input_grad:
            return None
        if self.from_logits:
            result = probabilities * targets.totals(factor)
            targets.subtract_from(result, factor)
        else:
            result = np.zeros_like(probabilities)
            targets.subtract_from(result, factor)
            result /= probabilities
        return targets.shaped(result)

    def _check_probabilities(self, scores: Array) -> None:
        if not _are_probabilities(scores):
            raise ValueError(
                f"{self.label}: expected probabilities (in [0, 1], with a sum of 1 over the "
                f"classes), got values in [{scores.min():g}, {scores.max():g}] with a sum of "
                f"{scores[:, 0].sum():g} for the first sample; end the model with nn.Softmax(), "
                f"or use from_logits=True"
            )

    def _warn_of_probabilities(self, scores: Array) -> None:
        if not self._warned and len(scores) > 1 and _are_probabilities(scores):
            warnings.warn(
                f"{self.label} expects logits, but these predictions look like probabilities; "
                f"leave out the Softmax at the end of the model, or use "
                f"CrossEntropy(from_logits=False)",
                UserWarning,
                stacklevel=4,
            )
        self._warned = True


class NegativeLogLikelihood(Loss):
    """Negative log-likelihood of class indices, given log-probabilities: ``ℓ = -w_t x_t``.

    Parameters
    ----------
    reduction : {"mean", "sum", "none"}
    weight : array_like of shape (C,), optional
        How much each class counts; "mean" divides by the sum of the labels' weights.
    ignore_index : int, default -100
        Labels of this value count for nothing.

    Raises
    ------
    ValueError, TypeError
        As `CrossEntropy`.

    Notes
    -----
    Shapes: prediction (N, C), target (N,); or (N, C, d₁, …) and (N, d₁, …)::

        dℓ/dx_j = -w_t [j = t]

    After a `LogSoftmax` it is the same as `CrossEntropy` of the logits.

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

    weight: Array | None
    ignore_index: int
    label_smoothing: float = 0.0

    def __init__(
        self,
        reduction: str = "mean",
        *,
        weight: ArrayLike | None = None,
        ignore_index: int = -100,
    ) -> None:
        super().__init__(reduction)
        self.weight = _as_class_weight(weight, "NegativeLogLikelihood")
        self.ignore_index = integer(ignore_index, "NegativeLogLikelihood: ignore_index", _ANY_INT)

    def forward(
        self, prediction: Array, target: Any, sample_weight: ArrayLike | None = None
    ) -> Any:
        prediction = self._as_prediction(prediction)
        targets = _Targets(self, prediction, target, sample_weight)
        value, factor = targets.reduce(targets.scores)
        self.cache(targets, factor)
        return value

    def backward(self, grad: Any = 1.0, input_grad: bool = True) -> Any:
        targets, factor = self.cached()
        factor = targets.factor(grad, factor)
        if not input_grad:
            return None
        result = np.zeros_like(targets.scores)
        targets.subtract_from(result, factor)
        return targets.shaped(result)


class _Targets:
    """The labels of a batch, and the target distribution q that they stand for.

    Scores (N, C, d₁, …) become a matrix (C, M) with a column for each label: with the classes
    first, a sum over a few classes runs along the samples, which is faster. Then q is
    w_j ((1-ε)[j = t] + ε/C), or 0 where the label is ignored.
    """

    def __init__(
        self,
        loss: CrossEntropy | NegativeLogLikelihood,
        prediction: Array,
        target: ArrayLike,
        sample_weight: ArrayLike | None,
    ) -> None:
        self.loss = loss
        self.shape = shape = prediction.shape
        labels, any_ignored = self._checked(shape, np.asarray(target))
        self.label_shape = labels.shape
        classes = shape[1]
        scores = prediction.T if len(shape) == 2 else np.moveaxis(prediction, 1, 0)
        self.scores = np.ascontiguousarray(scores).reshape(classes, -1)

        # The weight of each label: a float where all are alike.
        self.weights: Any = loss._as_weights(sample_weight, labels.shape, prediction.dtype)
        labels = labels.reshape(-1)
        if not isinstance(self.weights, float):
            self.weights = self.weights.reshape(-1)
        if any_ignored:
            counted = labels != loss.ignore_index
            self.weights = self.weights * counted.astype(prediction.dtype)
            labels = np.where(counted, labels, 0)
        if loss.weight is None:
            self.peaks: Any = 1.0 - loss.label_smoothing
            self.floors: Any = loss.label_smoothing / classes
            self.norms = self.weights
        else:
            class_weight = loss.weight.astype(prediction.dtype)
            chosen = class_weight[labels]
            self.peaks = (1 - loss.label_smoothing) * chosen
            self.floors = (loss.label_smoothing / classes) * class_weight.reshape(-1, 1)
            self.norms = self.weights * chosen
        # Where the score of each label lies in the flattened matrix.
        self.places = labels * labels.size + np.arange(labels.size)

    def _checked(self, shape: tuple[int, ...], labels: Array) -> tuple[Array, bool]:
        """Return the labels, and whether any of them is to be ignored."""
        loss = self.loss
        if len(shape) < 2:
            raise ValueError(
                f"{loss.label}: expected predictions of shape (N, classes, …), got {shape}"
            )
        if labels.dtype.kind not in "iu":
            raise TypeError(
                f"{loss.label}: expected labels of an integer dtype (class indices), got "
                f"{labels.dtype}, shape {labels.shape}; turn one-hot rows into indices with argmax"
            )
        expected = shape[:1] + shape[2:]
        if labels.shape != expected:
            cure = "; turn one-hot rows into indices with argmax" if labels.shape == shape else ""
            raise ValueError(
                f"{loss.label}: predictions of shape {shape} need labels of shape {expected}, "
                f"got {labels.shape}{cure}"
            )
        classes = shape[1]
        if loss.weight is not None and len(loss.weight) != classes:
            raise ValueError(
                f"{loss.label}: {len(loss.weight)} class weights do not fit {classes} classes"
            )
        indices = labels.astype(np.intp, copy=False)
        # Without its sign, a negative number is a large one: one look finds both faults.
        unsigned = indices.view(np.uintp)
        if unsigned.item(unsigned.argmax()) < classes:
            return indices, loss.ignore_index in range(classes) and loss.ignore_index in labels
        counted = labels[labels != loss.ignore_index]
        wrong = counted[(counted < 0) | (counted >= classes)]
        if wrong.size:
            raise ValueError(
                f"{loss.label}: labels must be in [0, {classes}) for {classes} classes, "
                f"got {wrong[0]}"
            )
        return indices, True

    def reduce(self, logs: Array, log_sums: Any = 0.0) -> tuple[Any, Any]:
        """Return the reduced loss, and the factor of each label's gradient.

        The log-probabilities are ``logs - log_sums``.
        """
        losses = (log_sums - logs.take(self.places)) * self.peaks
        if self.loss.label_smoothing:
            losses += ((log_sums - logs) * self.floors).sum(axis=0)
        norms = self.norms
        if not isinstance(norms, float) and not norms.any():
            raise ValueError(
                f"{self.loss.label}: every label of the batch is ignored or has no weight"
            )
        value, factor = self.loss._reduce(losses, self.weights, norms)
        if self.loss.reduction == "none":
            value = value.reshape(self.label_shape)
        return value, factor

    def factor(self, grad: Any, factor: Any) -> Any:
        """Return dL/dℓ of each label, as a float or a row."""
        if self.loss.reduction == "none" and not isinstance(factor, float):
            factor = factor.reshape(self.label_shape)
        factor = self.loss._factor(grad, factor, self.label_shape, self.scores.dtype)
        return factor if isinstance(factor, float) else factor.reshape(-1)

    def totals(self, factor: Any) -> Any:
        """Return factor · Σ_j q_j."""
        if self.loss.weight is None:
            return factor
        return factor * (self.peaks + self.floors.sum())

    def subtract_from(self, result: Array, factor: Any) -> None:
        """Subtract factor · q from `result`, in place."""
        if self.loss.label_smoothing:
            result -= factor * self.floors
        result.reshape(-1)[self.places] -= factor * self.peaks

    def shaped(self, result: Array) -> Array:
        """Return `result`, which has the shape of the scores, in the shape of the predictions."""
        if len(self.shape) == 2:
            return result.T
        return np.moveaxis(result.reshape(self.shape[1], self.shape[0], *self.shape[2:]), 0, 1)


def _as_class_weight(weight: ArrayLike | None, name: str) -> Array | None:
    if weight is None:
        return None
    weights = np.array(weight, np.float64)
    if weights.ndim != 1 or not np.isfinite(weights).all() or (weights < 0).any():
        raise ValueError(f"{name}: weight must be a finite, non-negative number for each class")
    return weights


def _are_probabilities(scores: Array) -> bool:
    """Whether each column of (C, M) is a distribution over the classes."""
    return scores.min() >= 0 and bool(np.abs(scores.sum(axis=0) - 1).max() < 1e-3)


class ElementwiseLoss(Loss):
    """Base class of the losses of one predicted number against one target number.

    A subclass defines `losses` and `slopes`; the reductions run over all numbers of the batch.
    """

    def losses(self, prediction: Array, target: Array) -> Array:
        """Return ℓ of each number."""
        raise NotImplementedError(f"{type(self).__name__} does not define losses")

    def slopes(self, prediction: Array, target: Array) -> Array:
        """Return dℓ/d(prediction) of each number."""
        raise NotImplementedError(f"{type(self).__name__} does not define slopes")

    def _check(self, prediction: Array, target: Array) -> None:
        """Raise a ValueError if a value is out of the range that the loss is defined on."""

    def forward(
        self, prediction: Array, target: Any, sample_weight: ArrayLike | None = None
    ) -> Any:
        prediction = self._as_prediction(prediction)
        wanted = np.asarray(target)
        if wanted.dtype.kind not in "fiu":
            raise TypeError(f"{self.label}: targets must be numbers, got dtype {wanted.dtype}")
        if wanted.shape != prediction.shape:
            raise ValueError(
                f"{self.label}: predictions of shape {prediction.shape} need targets of the same "
                f"shape, got {wanted.shape}; broadcasting is not applied here, as it hides mistakes"
            )
        wanted = wanted.astype(prediction.dtype, copy=False)
        if not np.isfinite(wanted).all():
            raise ValueError(f"{self.label}: the targets are not finite")
        self._check(prediction, wanted)
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
    Shapes: prediction and target alike, (N, …). At x = t, where there is no derivative, it is 0::

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
        Where one turns into the other; above 0.

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
    """Cross-entropy of a yes-or-no score against 0, 1 or a probability between them.

    Parameters
    ----------
    reduction : {"mean", "sum", "none"}
    from_logits : bool, default True
        True takes logits, of any range. False takes probabilities: the output of a `Sigmoid`.
    pos_weight : float, default 1
        How much more a positive counts than a negative.

    Raises
    ------
    ValueError
        If a target is not in [0, 1]; if with ``from_logits=False`` a prediction is not.

    Notes
    -----
    Shapes: prediction and target alike, (N, …). With logit x, p = σ(x), target t and c the
    `pos_weight`::

        ℓ = -(c t log p + (1-t) log(1-p))       dℓ/dx = (1-t) p - c t (1-p)

    The logarithms are computed from x without a detour over p, so that no logit overflows or
    rounds to a loss of 0. With probabilities, p and 1-p are taken to be at least the smallest
    normal float, and::

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
        self.from_logits = from_logits
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

    def losses(self, prediction: Array, target: Array) -> Array:
        positive = self.pos_weight * target
        if self.from_logits:
            # -log σ(x) = max(-x, 0) + log(1 + exp(-|x|)), and -log(1 - σ(x)) is that of -x.
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
        return (1 - target) / no - positive / yes
