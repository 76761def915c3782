"""Losses of class scores other than `CrossEntropy`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..checks import boolean, class_indices, number
from ..engine.arrays import Array
from .base import REDUCTIONS, ElementwiseLoss, Loss, as_power
from .scores import (
    ClassLoss,
    Labels,
    as_class_weight,
    as_columns,
    check_class_weight,
)


class NegativeLogLikelihood(ClassLoss):
    """Negative log-likelihood of class indices, given log-probabilities: ``ℓ = -w_t x_t``.

    Parameters
    ----------
    reduction : {"mean", "sum", "none"}
    weight : array_like of shape (C,), or dict, optional
        The weight of each class. "mean" divides by the sum of the labels' weights.
    ignore_index : int, default -100
        Labels with this value do not contribute to the loss.
    dim : {1, -1}, default 1
        The axis of the classes. It is -1 for sequences (N, T, C).

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
    Shapes: prediction (N, C), target (N,); or as in `CrossEntropy` with more axes::

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
        dim: int = 1,
    ) -> None:
        super().__init__(reduction, weight, ignore_index, dim)

    def forward(
        self, prediction: Array, target: Any, sample_weight: ArrayLike | None = None
    ) -> Any:
        prediction = self._as_scores(prediction)
        scores = as_columns(prediction)
        q = Labels(self, prediction, target, sample_weight)
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
        return self._from_columns(result, shape)

    def _doubt(self, scores: Array) -> str | None:
        return of_positive_logs(scores) or super()._doubt(scores)


class Focal(ClassLoss):
    """Cross-entropy in which labels that are predicted well count less.

    Parameters
    ----------
    reduction : {"mean", "sum", "none"}
    gamma : float, default 2
        Focusing parameter γ, at least 0. With 0 the loss is `CrossEntropy`.
    weight : array_like of shape (C,), or dict, optional
        The weight of each class, the α of the paper. "mean" divides by the sum of the labels'
        weights.
    ignore_index, dim
        As for `CrossEntropy`.

    Raises
    ------
    ValueError, TypeError
        As in `CrossEntropy`.

    Notes
    -----
    Shapes: logits (N, C), target (N,); or as in `CrossEntropy` with more axes. With p = softmax(x),
    label t and q = p_t::

        ℓ = -w_t (1 - q)^γ log q
        dℓ/dx_j = w_t (1 - q)^γ (1 - γ q log q / (1 - q)) (p_j - [j = t])

    For the binary loss of the paper, use two classes, the first of a logit of 0.

    References
    ----------
    T.-Y. Lin et al., "Focal loss for dense object detection", ICCV 2017.

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> loss = nn.Focal(gamma=2.0)
    >>> round(loss(np.array([[0.0, 0.0]]), np.array([0])), 6)  # (1/2)² log 2
    0.173287
    """

    gamma: float

    def __init__(
        self,
        reduction: str = "mean",
        gamma: float = 2.0,
        *,
        weight: ArrayLike | Mapping[int, float] | None = None,
        ignore_index: int = -100,
        dim: int = 1,
    ) -> None:
        super().__init__(reduction, weight, ignore_index, dim)
        self.gamma = number(gamma, "Focal: gamma", minimum=0)

    def forward(
        self, prediction: Array, target: Any, sample_weight: ArrayLike | None = None
    ) -> Any:
        prediction = self._as_scores(prediction)
        scores = as_columns(prediction)
        labels = Labels(self, prediction, target, sample_weight)
        self._warn_at_first(scores)
        shifted = scores - scores.max(axis=0)
        p = np.exp(shifted)
        sums = p.sum(axis=0)
        p /= sums
        log_q = labels.chosen(shifted) - np.log(sums)
        rest = -np.expm1(log_q)  # 1 - q
        hardness = labels.peaks * rest**self.gamma
        value, factor = self._finish(labels, -hardness * log_q)
        # -q log q / (1 - q) is 1 at q = 1.
        ratio = np.divide(-np.exp(log_q) * log_q, rest, out=np.ones_like(rest), where=rest > 0)
        self.cache(prediction.shape, labels, p, hardness * (1 + self.gamma * ratio), factor)
        return value

    def backward(self, grad: Any = 1.0, input_grad: bool = True) -> Any:
        shape, labels, p, slope, factor = self.cached()
        slope = slope * self._label_factor(labels, grad, factor)
        if not input_grad:
            return None
        result = slope * p
        result.reshape(-1)[labels.places] -= slope
        return self._from_columns(result, shape)


class MultiMargin(Loss):
    """Multi-class hinge loss: every class should score less than the label by a margin.

    Parameters
    ----------
    reduction : {"mean", "sum", "none"}
        The mean is over the samples, also with class weights, as in PyTorch.
    p : {1, 2}, default 1
        2 squares the excesses.
    margin : float, default 1
        Distance of the label's score from the others that costs nothing, at least 0.
    weight : array_like of shape (C,), or dict, optional
        The weight of each class.

    Raises
    ------
    ValueError, TypeError
        If an option is out of range, or labels or predictions are not those of `CrossEntropy`.

    Notes
    -----
    Shapes: scores (N, C), target (N,) of indices in [0, C). With z_j = margin - x_t + x_j::

        ℓ = w_t Σ_{j≠t} max(z_j, 0)^p / C
        dℓ/dx_j = w_t p z_j^(p-1) / C           for j ≠ t and z_j > 0, else 0
        dℓ/dx_t = -Σ_{j≠t} dℓ/dx_j

    References
    ----------
    K. Crammer, Y. Singer, "On the algorithmic implementation of multiclass kernel-based vector
    machines", JMLR 2, 2001. J. Weston, C. Watkins, "Support vector machines for multi-class pattern
    recognition", ESANN 1999.

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> loss = nn.MultiMargin()
    >>> loss(np.array([[1.0, 0.5, -3.0, 1.0]]), np.array([0]))  # (0.5 + 0 + 1) / 4
    0.375
    >>> loss.backward()
    array([[-0.5 ,  0.25,  0.  ,  0.25]])
    """

    p: int
    margin: float
    weight: Array | None

    def __init__(
        self,
        reduction: str = "mean",
        p: int = 1,
        margin: float = 1.0,
        weight: ArrayLike | Mapping[int, float] | None = None,
    ) -> None:
        super().__init__(reduction)
        self.p = as_power(p, "MultiMargin: p")
        self.margin = number(margin, "MultiMargin: margin", minimum=0)
        self.weight = as_class_weight(weight, "MultiMargin")

    def forward(
        self, prediction: Array, target: Any, sample_weight: ArrayLike | None = None
    ) -> Any:
        scores = self._as_prediction(prediction)
        if scores.ndim != 2:
            raise ValueError(
                f"{self.label}: expected predictions of shape (N, classes), got {scores.shape}"
            )
        labels, _ = class_indices(target, scores, None, self)
        weights = self._as_weights(sample_weight, labels.shape, scores.dtype)
        classes = scores.shape[1]
        scale: Any = 1 / classes
        if self.weight is not None:
            check_class_weight(self, self.weight, classes)
            scale = (self.weight[labels] / classes).astype(scores.dtype)
        z = self.margin + scores - scores[np.arange(len(scores)), labels][:, None]
        z[np.arange(len(scores)), labels] = 0
        np.maximum(z, 0, out=z)
        value, factor = self._reduce(scale * (z**self.p).sum(axis=1), weights)
        self.cache(labels, z, scale, factor)
        return value

    def backward(self, grad: Any = 1.0, input_grad: bool = True) -> Any:
        labels, z, scale, factor = self.cached()
        factor = scale * self._factor(grad, factor, labels.shape, z.dtype)
        if not input_grad:
            return None
        slopes = np.sign(z) if self.p == 1 else 2 * z
        slopes[np.arange(len(z)), labels] = -slopes.sum(axis=1)
        return slopes * (factor if isinstance(factor, float) else factor[:, None])


class KLDivergence(ElementwiseLoss):
    """Kullback-Leibler divergence of predicted distributions from target distributions.

    Parameters
    ----------
    reduction : {"mean", "batchmean", "sum", "none"}
        "batchmean" is the sum over the batch divided by the number of samples: the mean divergence.
        "mean" divides by the number of all elements, as in PyTorch.
    log_target : bool, default False
        Whether the targets are logarithms of probabilities, as the predictions are.

    Raises
    ------
    ValueError
        If the targets are not distributions: in [0, 1], with a sum of 1 over axis 1 or over the
        last axis.

    Warns
    -----
    UserWarning
        If the first batch has positive values, which are logits or probabilities, not
        log-probabilities.

    Notes
    -----
    Shapes: prediction and target alike, (N, C, …) or (N, …, C). The prediction x is a
    log-probability, the output of a `LogSoftmax` layer; with target probabilities t::

        ℓ = t (log t - x)       dℓ/dx = -t

    and ℓ = 0 for t = 0.

    References
    ----------
    S. Kullback, R. Leibler, "On information and sufficiency", Annals of Mathematical Statistics 22,
    1951.

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> loss = nn.KLDivergence("batchmean")
    >>> x, t = np.log([[0.5, 0.5]]), np.array([[1.0, 0.0]])
    >>> round(loss(x, t), 6)  # log 2
    0.693147
    >>> loss.backward()
    array([[-1., -0.]])
    """

    log_target: bool
    _reductions = (*REDUCTIONS, "batchmean")

    def __init__(self, reduction: str = "mean", log_target: bool = False) -> None:
        super().__init__(reduction)
        self.log_target = boolean(log_target, "KLDivergence: log_target")

    def _check(self, prediction: Array, target: Array) -> None:
        t = np.exp(target) if self.log_target else target
        axes = {1, t.ndim - 1} if t.ndim > 1 else {0}
        if t.min() < 0 or all(np.abs(t.sum(axis=axis) - 1).max() > 1e-3 for axis in axes):
            logs = "logarithms of " if self.log_target else ""
            raise ValueError(
                f"{self.label}: the targets must be {logs}probabilities with a sum of 1 over the "
                f"classes, got values in [{target.min():g}, {target.max():g}]"
            )

    def _doubt(self, prediction: Array) -> str | None:
        return of_positive_logs(prediction)

    def _reduce(self, losses: Array, weights: Any, norms: Any = None) -> tuple[Any, Any]:
        if self.reduction == "batchmean":
            norms = weights / (losses.size // len(losses))
        return super()._reduce(losses, weights, norms)

    def losses(self, prediction: Array, target: Array) -> Array:
        if self.log_target:
            return np.exp(target) * (target - prediction)
        logs = np.log(target, out=np.zeros_like(target), where=target > 0)
        return target * (logs - prediction)

    def slopes(self, prediction: Array, target: Array) -> Array:
        return -np.exp(target) if self.log_target else -target


def of_positive_logs(logs: Array) -> str | None:
    """Return a warning if log-probabilities are positive."""
    if logs.max() <= 1e-3:
        return None
    return (
        "expects log-probabilities, but these predictions have positive values; end the model "
        "with nn.LogSoftmax(), or use CrossEntropy, which takes logits"
    )
