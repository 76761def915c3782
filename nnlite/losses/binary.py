"""Losses of yes-or-no decisions."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..checks import boolean, number
from ..engine.arrays import Array
from ..engine.elementwise import sigmoid
from .base import ElementwiseLoss, as_power, bounded


class BinaryCrossEntropy(ElementwiseLoss):
    """Cross-entropy of the score of a binary decision against a target in [0, 1].

    Parameters
    ----------
    reduction : {"mean", "sum", "none"}
    from_logits : bool, default True
        True for logits, unbounded scores. False for probabilities, the output of a `Sigmoid`.
    weight : array_like, optional
        Weight of each loss, of a shape that broadcasts to that of the prediction: for K outputs,
        one number for each. "mean" divides by the number of losses nevertheless, as in PyTorch.
    pos_weight : float or array_like, default 1
        Weight of positive targets relative to negative ones: for all outputs, or for each.

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
    Shapes: prediction and target alike, (N, …). With logit x, p = σ(x), target t,
    c = `pos_weight` and w = `weight`::

        ℓ = -w (c t log p + (1-t) log(1-p))     dℓ/dx = w ((1-t) p - c t (1-p))

    The logarithms are computed from x, not from p, so that no logit overflows or rounds to a loss
    of 0. With probabilities, p and 1-p are clipped below at the smallest normal float, and::

        dℓ/dp = w ((1-t) / (1-p) - c t / p)

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
    weight: float | Array | None
    pos_weight: float | Array

    def __init__(
        self,
        reduction: str = "mean",
        from_logits: bool = True,
        *,
        weight: ArrayLike | None = None,
        pos_weight: ArrayLike = 1.0,
    ) -> None:
        super().__init__(reduction)
        self.from_logits = boolean(from_logits, "BinaryCrossEntropy: from_logits")
        self.weight = None if weight is None else _as_weight(weight, "weight")
        self.pos_weight = _as_weight(pos_weight, "pos_weight")

    def _check(self, prediction: Array, target: Array) -> None:
        for name in ("weight", "pos_weight"):
            shape = np.shape(getattr(self, name))
            if shape and not _broadcasts(shape, prediction.shape):
                raise ValueError(
                    f"{self.label}: {name} of shape {shape} does not broadcast to predictions of "
                    f"shape {prediction.shape}"
                )
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

    def _factors(self, target: Array) -> tuple[Array, Array]:
        """Return the weights w c t of log p and w (1-t) of log(1-p)."""
        weight = 1.0 if self.weight is None else _as_dtype(self.weight, target.dtype)
        yes = _as_dtype(self.pos_weight, target.dtype) * target
        return weight * yes, weight * (1 - target)

    def losses(self, prediction: Array, target: Array) -> Array:
        yes, no = self._factors(target)
        if self.from_logits:
            # -log σ(x) = max(-x, 0) + log(1 + exp(-|x|)), and -log(1 - σ(x)) = -log σ(-x).
            rest = np.log1p(np.exp(-np.abs(prediction)))
            return yes * (np.maximum(-prediction, 0) + rest) + no * (
                np.maximum(prediction, 0) + rest
            )
        tiny = np.finfo(prediction.dtype).tiny
        return -(
            yes * np.log(np.maximum(prediction, tiny))
            + no * np.log(np.maximum(1 - prediction, tiny))
        )

    def slopes(self, prediction: Array, target: Array) -> Array:
        yes, no = self._factors(target)
        if self.from_logits:
            return no * sigmoid(prediction) - yes * sigmoid(-prediction)
        tiny = np.finfo(prediction.dtype).tiny
        return bounded(no / np.maximum(1 - prediction, tiny) - yes / np.maximum(prediction, tiny))

    def backward(self, grad: Any = 1.0, input_grad: bool = True) -> Any:
        with np.errstate(over="ignore"):
            result = super().backward(grad, input_grad)
        return bounded(result) if input_grad and not self.from_logits else result


class Hinge(ElementwiseLoss):
    """Hinge loss of the score of a binary decision against a target of -1 or 1.

    Parameters
    ----------
    reduction : {"mean", "sum", "none"}
    margin : float, default 1
        Scores with the sign of the target that are further from 0 than this cost nothing.
    p : {1, 2}, default 1
        2 squares the loss.

    Raises
    ------
    ValueError
        If a target is neither -1 nor 1, or an option is out of range.

    Notes
    -----
    Shapes: prediction and target alike, (N, …). With z = margin - t x::

        ℓ = max(z, 0)^p         dℓ/dx = -p t z^(p-1)    for z > 0, else 0

    With the penalty of an optimizer's `weight_decay` it trains a support vector machine.

    References
    ----------
    C. Bishop, "Pattern Recognition and Machine Learning", Springer 2006, section 7.1.2.

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> loss = nn.Hinge("none")
    >>> loss(np.array([2.0, 0.5, -1.0]), np.array([1, 1, 1]))
    array([0. , 0.5, 2. ])
    >>> loss.backward()
    array([-0., -1., -1.])
    """

    margin: float
    p: int

    def __init__(self, reduction: str = "mean", margin: float = 1.0, p: int = 1) -> None:
        super().__init__(reduction)
        self.margin = number(margin, "Hinge: margin", minimum=0)
        self.p = as_power(p, "Hinge: p")

    def _check(self, prediction: Array, target: Array) -> None:
        if (np.abs(target) != 1).any():
            raise ValueError(
                f"{self.label}: targets must be -1 or 1, got values in [{target.min():g}, "
                f"{target.max():g}]; for labels 0 and 1 use 2 * labels - 1"
            )

    def losses(self, prediction: Array, target: Array) -> Array:
        z = np.maximum(self.margin - target * prediction, 0)
        return z if self.p == 1 else z * z

    def slopes(self, prediction: Array, target: Array) -> Array:
        z = np.maximum(self.margin - target * prediction, 0)
        return -target * (np.sign(z) if self.p == 1 else 2 * z)


def _as_weight(weight: ArrayLike, name: str) -> float | Array:
    """Return a number of at least 0, or a float64 array of such numbers."""
    what = f"BinaryCrossEntropy: {name}"
    if not isinstance(weight, (list, tuple, np.ndarray)):
        return number(weight, what, minimum=0)
    try:
        weights = np.array(weight, np.float64)
    except (TypeError, ValueError):
        raise TypeError(f"{what} must be numbers, got {weight!r:.80}") from None
    if not np.isfinite(weights).all() or (weights < 0).any():
        raise ValueError(f"{what} must be finite and not negative, got {weight!r:.80}")
    return weights


def _as_dtype(weight: float | Array, dtype: Any) -> Any:
    return weight if isinstance(weight, float) else weight.astype(dtype)


def _broadcasts(shape: tuple[int, ...], to: tuple[int, ...]) -> bool:
    try:
        return np.broadcast_shapes(shape, to) == to
    except ValueError:
        return False


def are_sigmoids(values: Array) -> bool:
    """Whether the values look like outputs of a `Sigmoid` rather than logits."""
    if values.size < 4 or values.min() < 0 or values.max() > 1:
        return False
    # Logits of a new network may all be slightly above 0.
    saturated = values.size >= 16 and values.max() - values.min() > 0.5
    return saturated or abs(values.mean() - 0.5) < 0.25
