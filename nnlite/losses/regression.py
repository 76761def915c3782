"""Losses of numbers."""

from __future__ import annotations

import numpy as np

from ..checks import positive
from ..engine.arrays import Array
from .base import ElementwiseLoss


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
