"""``CrossEntropy``: the loss of classifiers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..checks import boolean, check_is_array, number
from ..engine.arrays import Array
from ..engine.blas import column_sums
from .base import bounded
from .scores import ClassLoss, Labels, Probabilities, Target, are_distributions, as_columns


class CrossEntropy(ClassLoss):
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
    dim : {1, -1}, default 1
        The axis of the classes. It is -1 for sequences (N, T, C).

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
    (N, d₁, …), as in PyTorch; or (N, d₁, …, C) and (N, d₁, …) with ``dim=-1``. A target of floats
    has the shape of the prediction and contains the probability of each class. With logits x,
    label t and p = softmax(x)::

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
        dim: int = 1,
    ) -> None:
        super().__init__(reduction, weight, ignore_index, dim)
        self.from_logits = boolean(from_logits, "CrossEntropy: from_logits")
        self.label_smoothing = number(label_smoothing, "CrossEntropy: label_smoothing", 0, 1)

    def forward(
        self, prediction: Array, target: Any, sample_weight: ArrayLike | None = None
    ) -> Any:
        prediction = self._as_scores(prediction)
        scores = as_columns(prediction)
        q = self._target(prediction, target, sample_weight)
        self._warn_at_first(scores)
        if self.from_logits:
            shifted = scores - np.maximum.reduce(scores, axis=0)
            p = np.exp(shifted)
            sums = column_sums(p)
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
            result = p * q.totals(factor)  # dL/dx = (p - q) / n if Σ q = 1, and factor = 1/n
            q.subtract_from(result, factor)
        else:
            result = np.zeros_like(p)  # dL/dp = -q / (n p)
            q.subtract_from(result, factor)
            with np.errstate(over="ignore"):
                result = bounded(result / p)
        return self._from_columns(result, shape)

    def _target(self, prediction: Array, target: Any, sample_weight: Any) -> Target:
        values = np.asarray(target)
        if values.ndim != 1 and values.dtype.kind == "f":
            check_is_array(target, self)
            return Probabilities(self, prediction, values, sample_weight)
        return Labels(self, prediction, target, sample_weight)

    @property
    def _takes_masks(self) -> bool:
        return self.from_logits

    def _doubt(self, scores: Array) -> str | None:
        if len(scores) == 1 or not self.from_logits or not are_distributions(scores):
            return super()._doubt(scores)
        return (
            "expects logits, but these predictions look like probabilities; leave out the "
            "Softmax at the end of the model, or use CrossEntropy(from_logits=False)"
        )

    def _check_probabilities(self, scores: Array) -> None:
        if not are_distributions(scores):
            raise ValueError(
                f"{self.label}: expected probabilities (in [0, 1], with a sum of 1 over the "
                f"classes), got values in [{scores.min():g}, {scores.max():g}] with a sum of "
                f"{scores[:, 0].sum():g} for the first sample; end the model with nn.Softmax(), "
                f"or use from_logits=True"
            )
