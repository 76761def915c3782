"""Losses of yes-or-no decisions."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..checks import boolean, number
from ..engine.arrays import Array
from ..engine.elementwise import sigmoid
from .base import ElementwiseLoss, bounded


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
        return bounded((1 - target) / no - positive / yes)

    def backward(self, grad: Any = 1.0, input_grad: bool = True) -> Any:
        with np.errstate(over="ignore"):
            result = super().backward(grad, input_grad)
        return bounded(result) if input_grad and not self.from_logits else result


def are_sigmoids(values: Array) -> bool:
    """Whether the values look like outputs of a `Sigmoid` rather than logits."""
    if values.size < 4 or values.min() < 0 or values.max() > 1:
        return False
    # Logits of a new network may all be slightly above 0.
    saturated = values.size >= 16 and values.max() - values.min() > 0.5
    return saturated or abs(values.mean() - 0.5) < 0.25
