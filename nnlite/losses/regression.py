"""Losses of numbers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..checks import boolean, number, positive
from ..engine.arrays import Array
from .base import ElementwiseLoss, Loss


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


class SmoothL1(ElementwiseLoss):
    """Squared error over `beta` near the target, absolute error far from it.

    Parameters
    ----------
    reduction : {"mean", "sum", "none"}
    beta : float, default 1
        Error above which the loss is linear. With 0 the loss is the absolute error.

    Notes
    -----
    Shapes: prediction and target alike, (N, …). With d = x - t::

        ℓ = d² / (2 beta)       dℓ/dx = d / beta        for |d| < beta
        ℓ = |d| - beta / 2      dℓ/dx = sign(d)         elsewhere

    It is `Huber` with ``delta=beta``, divided by beta.

    References
    ----------
    R. Girshick, "Fast R-CNN", ICCV 2015.

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> nn.SmoothL1("none", beta=2.0)(np.array([1.0, 3.0]), np.array([0.0, 0.0]))
    array([0.25, 2.  ])
    """

    beta: float

    def __init__(self, reduction: str = "mean", beta: float = 1.0) -> None:
        super().__init__(reduction)
        self.beta = number(beta, "SmoothL1: beta", minimum=0)

    def losses(self, prediction: Array, target: Array) -> Array:
        distance = np.abs(prediction - target)
        if not self.beta:
            return distance
        near = np.minimum(distance, self.beta)
        return near / self.beta * (distance - near / 2)

    def slopes(self, prediction: Array, target: Array) -> Array:
        d = prediction - target
        return np.clip(d / self.beta, -1, 1) if self.beta else np.sign(d)


class Quantile(ElementwiseLoss):
    """Quantile or pinball loss, whose minimum over a constant is a quantile of the targets.

    Parameters
    ----------
    reduction : {"mean", "sum", "none"}
    quantile : float between 0 and 1, default 0.5
        The quantile q to predict. 0.5 predicts the median.

    Notes
    -----
    Shapes: prediction and target alike, (N, …). At x = t there is no derivative, and 0 is used::

        ℓ = q (t - x)           dℓ/dx = -q              for x < t
        ℓ = (1 - q) (x - t)     dℓ/dx = 1 - q           for x > t

    References
    ----------
    R. Koenker, G. Bassett, "Regression quantiles", Econometrica 46, 1978.

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> nn.Quantile("none", quantile=0.75)(np.array([1.0, 3.0]), np.array([2.0, 2.0]))
    array([0.75, 0.25])
    """

    quantile: float

    def __init__(self, reduction: str = "mean", quantile: float = 0.5) -> None:
        super().__init__(reduction)
        self.quantile = number(quantile, "Quantile: quantile", 0, 1)

    def losses(self, prediction: Array, target: Array) -> Array:
        d = target - prediction
        return np.maximum(self.quantile * d, (self.quantile - 1) * d)

    def slopes(self, prediction: Array, target: Array) -> Array:
        d = target - prediction
        slopes = np.where(d < 0, 1 - self.quantile, np.where(d > 0, -self.quantile, 0))
        return slopes.astype(prediction.dtype)


class PoissonNLL(ElementwiseLoss):
    """Negative log-likelihood of counts that have a Poisson distribution.

    Parameters
    ----------
    reduction : {"mean", "sum", "none"}
    log_input : bool, default True
        True if the prediction is the logarithm of the rate, False if it is the rate.
    full : bool, default False
        Whether the term log t! is added, as Stirling's approximation for targets above 1.
    eps : float, default 1e-8
        Added to a rate before its logarithm is taken, with ``log_input=False``.

    Raises
    ------
    ValueError
        If a target is negative, or a rate is with ``log_input=False``.

    Notes
    -----
    Shapes: prediction and target alike, (N, …)::

        ℓ = exp(x) - t x            dℓ/dx = exp(x) - t              with log_input
        ℓ = x - t log(x + eps)      dℓ/dx = 1 - t / (x + eps)       without

    With `full`, t log t - t + log(2πt)/2 is added for t > 1.

    References
    ----------
    P. McCullagh, J. Nelder, "Generalized linear models", Chapman and Hall 1989, chapter 6.

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> loss = nn.PoissonNLL()
    >>> loss(np.array([0.0, 0.0]), np.array([1, 3]))
    1.0
    >>> loss.backward()  # (1 - t) / 2
    array([ 0., -1.])
    """

    log_input: bool
    full: bool
    eps: float

    def __init__(
        self,
        reduction: str = "mean",
        log_input: bool = True,
        full: bool = False,
        eps: float = 1e-8,
    ) -> None:
        super().__init__(reduction)
        self.log_input = boolean(log_input, "PoissonNLL: log_input")
        self.full = boolean(full, "PoissonNLL: full")
        self.eps = number(eps, "PoissonNLL: eps", minimum=0)

    def _check(self, prediction: Array, target: Array) -> None:
        if target.min() < 0:
            raise ValueError(f"{self.label}: targets are counts, got {target.min():g}")
        if not self.log_input and prediction.min() < 0:
            raise ValueError(
                f"{self.label}: expected rates of at least 0, got {prediction.min():g}; end the "
                f"model with nn.Softplus(), or use log_input=True"
            )

    def losses(self, prediction: Array, target: Array) -> Array:
        if self.log_input:
            losses = np.exp(prediction) - target * prediction
        else:
            losses = prediction - target * np.log(prediction + self.eps)
        if self.full:
            t = np.maximum(target, 1)
            stirling = t * np.log(t) - t + 0.5 * np.log(2 * math.pi * t)
            losses += np.where(target > 1, stirling, 0)
        return losses

    def slopes(self, prediction: Array, target: Array) -> Array:
        if self.log_input:
            return np.exp(prediction) - target
        return 1 - target / (prediction + self.eps)


class GaussianNLL(Loss):
    """Negative log-likelihood of numbers under normal distributions of predicted variances.

    ``loss(mean, target, var)`` takes two predictions: the mean and the variance of each number.
    ``loss.backward()`` returns the gradients of both. `fit` takes a model of two outputs.

    Parameters
    ----------
    reduction : {"mean", "sum", "none"}
    full : bool, default False
        Whether the constant log(2π)/2 is added.
    eps : float, default 1e-6
        The smallest variance: smaller ones count as it.

    Raises
    ------
    ValueError
        If a variance is negative.

    Notes
    -----
    Shapes: mean and target alike, (N, …). The variances have the same shape; or one element in the
    last axis, or no last axis, if all numbers there have the same variance. With the mean x, the
    target t and v = max(variance, eps)::

        ℓ = (log v + (x - t)² / v) / 2
        dℓ/dx = (x - t) / v
        dℓ/dv = (1/v - (x - t)² / v²) / 2

    The gradient of a variance below eps is that at eps, so that it can rise.

    References
    ----------
    D. Nix, A. Weigend, "Estimating the mean and variance of the target probability distribution",
    ICNN 1994.

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> loss = nn.GaussianNLL()
    >>> mean, target, var = np.array([[1.0], [5.0]]), np.array([[1.0], [3.0]]), np.ones((2, 1))
    >>> loss(mean, target, var)  # (0 + 2²/2) / 2
    1.0
    >>> loss.backward()
    (array([[0.],
           [1.]]), array([[ 0.25],
           [-0.75]]))
    """

    full: bool
    eps: float

    def __init__(self, reduction: str = "mean", full: bool = False, eps: float = 1e-6) -> None:
        super().__init__(reduction)
        self.full = boolean(full, "GaussianNLL: full")
        self.eps = positive(eps, "GaussianNLL: eps")

    def forward(  # type: ignore[override]
        self, prediction: Array, target: Any, var: Array, sample_weight: ArrayLike | None = None
    ) -> Any:
        """Return the loss: a float, or with "none" an array with the loss of each value.

        Parameters
        ----------
        prediction, target : ndarray of shape (N, …)
            The predicted means and the true values.
        var : ndarray of shape (N, …)
            The predicted variances.
        sample_weight : array_like of shape (N,), optional
            The weight of each sample; not negative, and not all zero.
        """
        prediction = self._as_prediction(prediction)
        target = self._as_target(target, prediction.shape, prediction.dtype)
        var = self._as_prediction(var, prediction.dtype, "variances")
        v = self._spread(var, prediction.shape)
        weights = self._as_weights(sample_weight, prediction.shape, prediction.dtype)
        d = prediction - target
        losses = (np.log(v) + d * d / v) / 2
        if self.full:
            losses += math.log(2 * math.pi) / 2
        value, factor = self._reduce(losses, weights)
        self.cache(d, v, var.shape, factor)
        return value

    def of_outputs(self, outputs: Any, *others: Any) -> Any:
        mean, var = self._each(outputs, "mean", "var")
        target, *sample_weight = others
        return self(mean, target, var, *sample_weight)

    def _spread(self, var: Array, shape: tuple[int, ...]) -> Array:
        """Return the variances, at least eps, with an axis that broadcasts with `shape`."""
        if var.shape not in (shape, (*shape[:-1], 1), shape[:-1]):
            raise ValueError(
                f"{self.label}: predictions of shape {shape} need variances of the same shape, or "
                f"of {(*shape[:-1], 1)}, got {var.shape}"
            )
        if var.min() < 0:
            raise ValueError(
                f"{self.label}: expected variances of at least 0, got {var.min():g}; let the model "
                f"predict their logarithm, and use nn.Exp() on it"
            )
        v = np.maximum(var, self.eps)
        return v if var.ndim == len(shape) else v[..., None]

    def backward(self, grad: Any = 1.0, input_grad: bool = True) -> Any:
        """Return dL/d(mean) and dL/d(variance)."""
        d, v, var_shape, factor = self.cached()
        factor = self._factor(grad, factor, d.shape, d.dtype)
        if not input_grad:
            return None
        of_var = (1 / v - np.square(d / v)) / 2 * factor
        if v.shape != d.shape:
            of_var = of_var.sum(axis=-1)
        return d / v * factor, of_var.reshape(var_shape)
