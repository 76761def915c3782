"""The base classes of losses: reduction, sample weights, checks of prediction and target."""

from __future__ import annotations

import math
import warnings
from typing import Any, ClassVar, NoReturn

import numpy as np
from numpy.typing import ArrayLike

from ..checks import as_floats, as_output_grad, check_is_array, integer, number, one_of
from ..engine.arrays import Array
from ..layer import Layer

REDUCTIONS = ("mean", "sum", "none")


class LossValue(float):
    """The number that a loss returns, which has no gradient of its own."""

    def backward(self) -> NoReturn:
        """Say where the gradient comes from."""
        raise TypeError(
            "the value of a loss is a plain number; the loss itself has the gradient: "
            "value = loss(model(x), y), then model.backward(loss.backward())"
        )

    def item(self) -> float:
        """Return it as a float."""
        return float(self)


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
    takes_target: ClassVar[bool] = True
    """Whether a call takes a target after the predictions."""
    _reductions: tuple[str, ...] = REDUCTIONS
    _warned = False

    def __init__(self, reduction: str = "mean") -> None:
        if isinstance(reduction, np.ndarray):
            name = type(self).__name__
            raise ValueError(
                f"{name}: reduction must be one of {', '.join(map(repr, self._reductions))}, got "
                f"an array; to compare arrays, call the loss: {name}()(prediction, target)"
            )
        self.reduction = one_of(reduction, self._reductions, f"{type(self).__name__}: reduction")

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        value = super().__call__(*inputs, **options)
        return LossValue(value) if isinstance(value, float) else value

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

    def of_outputs(self, outputs: Any, *others: Any) -> Any:
        """Return the loss of what a model returns, as `fit` and `evaluate` compute it.

        A loss of several predictions takes a tuple of them from a model of several outputs.

        Parameters
        ----------
        outputs : ndarray, or tuple of ndarray
        *others
            The target, if `takes_target`, and the sample weights, if there are any.
        """
        return self(outputs, *others)

    def _each(self, outputs: Any, *names: str) -> tuple[Any, ...]:
        """Return the outputs of a model, or raise a TypeError unless there is one for each name."""
        if not isinstance(outputs, tuple) or len(outputs) != len(names):
            got = f"{len(outputs)} outputs" if isinstance(outputs, tuple) else "one output"
            raise TypeError(
                f"{self.label}: expected a model of {len(names)} outputs, {', '.join(names)}, got "
                f"{got}; a Graph with a tuple of outputs returns several"
            )
        return outputs

    def _as_prediction(
        self, prediction: ArrayLike, dtype: Any = None, name: str = "predictions"
    ) -> Array:
        if isinstance(prediction, tuple):
            raise TypeError(
                f"{self.label}: expected {name} as one array, got a tuple of {len(prediction)}"
            )
        prediction = as_floats(self, prediction, dtype, name)
        flat = prediction.ravel(order="K")
        # If there is a NaN, it is both the minimum and the maximum. For a small batch, argmax takes
        # a fifth of the time of max.
        lowest, highest = flat.item(flat.argmin()), flat.item(flat.argmax())
        if not (math.isfinite(lowest) and math.isfinite(highest)):
            self._refuse(prediction, ~np.isfinite(prediction), name)
        return prediction

    def _refuse(self, prediction: Array, faults: Array, name: str) -> None:
        """Raise a ValueError that names the first prediction for which `faults` is True."""
        place = tuple(np.argwhere(faults)[0].tolist())
        value = "NaN" if np.isnan(prediction[place]) else prediction[place]
        raise ValueError(
            f"{self.label}: the {name} contain {value} at {place}, in sample {place[0]}; "
            f"training has diverged (try a smaller learning rate), or the input was not finite"
        )

    def _as_target(
        self, target: ArrayLike, shape: tuple[int, ...], dtype: Any, name: str = "targets"
    ) -> Array:
        """Return finite numbers of `shape`, as an array of `dtype`."""
        check_is_array(target, self)
        wanted = np.asarray(target)
        if wanted.dtype.kind not in "fiu":
            cure = "; convert them with .astype(float)" if wanted.dtype.kind == "b" else ""
            raise TypeError(f"{self.label}: {name} must be numbers, got dtype {wanted.dtype}{cure}")
        if wanted.shape != shape:
            raise ValueError(
                f"{self.label}: predictions of shape {shape} need {name} of the same "
                f"shape, got {wanted.shape}; broadcasting is not applied here, as it hides mistakes"
            )
        wanted = wanted.astype(dtype, copy=False)
        if not np.isfinite(wanted).all():
            raise ValueError(f"{self.label}: the {name} are not finite")
        return wanted

    def _doubt(self, prediction: Array) -> str | None:
        """Return a warning if the predictions look unlike those that the loss expects."""
        return None

    def _warn_at_first(self, prediction: Array) -> None:
        """Warn if the predictions of the first batch look wrong."""
        if self._warned:
            return
        doubt = self._doubt(prediction)
        if doubt is not None:
            warnings.warn(f"{self.label} {doubt}", UserWarning, stacklevel=5)
        self._warned = True

    def _as_weights(
        self, sample_weight: ArrayLike | None, shape: tuple[int, ...], dtype: Any
    ) -> Any:
        """Return the weight of each loss, for losses of `shape`; 1.0 if there are no weights."""
        if sample_weight is None:
            return 1.0
        check_is_array(sample_weight, self)
        weights = np.asarray(sample_weight)
        if weights.dtype.kind not in "fiu":
            raise TypeError(f"{self.label}: sample weights must be numbers, got {weights.dtype}")
        if weights.shape != shape[:1]:
            raise ValueError(
                f"{self.label}: expected sample weights of shape {shape[:1]}, got {weights.shape}"
            )
        positive = weights.max() > 0 or self.reduction in ("sum", "none")
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
        wanted = self._as_target(target, prediction.shape, prediction.dtype)
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


def as_power(value: Any, what: str) -> int:
    """Return an exponent that is 1 or 2, or raise an error that names it `what`."""
    power = integer(value, what)
    if power > 2:
        raise ValueError(f"{what} must be 1 or 2, got {power}")
    return power


def bounded(values: Array) -> Array:
    """Limit infinite values to the largest finite numbers of their dtype."""
    largest = np.finfo(values.dtype).max
    return np.clip(values, -largest, largest)
