"""Losses of embeddings, whose distances should follow their similarity."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..checks import boolean, number, positive
from ..engine.arrays import Array
from .base import Loss


class TripletMargin(Loss):
    """Let an anchor be closer to a positive than to a negative example, by a margin.

    ``loss(anchor, positive, negative)`` takes three batches of embeddings, and ``loss.backward()``
    returns the gradients of all three. `fit` takes a model of three outputs, and batches of its
    inputs without targets.

    Parameters
    ----------
    reduction : {"mean", "sum", "none"}
    margin : float, default 1
        Above 0.
    p : float, default 2
        The distance is the p-norm of the difference; at least 1.
    eps : float, default 1e-6
        Added to each difference, so that the distance of equal embeddings has a gradient.
    swap : bool, default False
        Whether the distance of the negative is its distance from the anchor or from the positive,
        whichever is smaller.

    Raises
    ------
    ValueError
        If an option is out of range, or the shapes differ.

    Notes
    -----
    Shapes: three times (N, …, D); the losses are (N, …). With d(x, y) = ‖x - y + eps‖_p::

        z = margin + d(a, p) - d(a, n)          ℓ = max(z, 0)
        ∂d/∂x = sign(u) (|u| / d)^(p-1)         with u = x - y + eps;  ∂d/∂y = -∂d/∂x
        dℓ/da = ∂d(a, p)/∂a - ∂d(a, n)/∂a       for z > 0, else 0
        dℓ/dp = ∂d(a, p)/∂p,    dℓ/dn = -∂d(a, n)/∂n

    With `swap`, d(p, n) takes the place of d(a, n) where it is smaller.

    References
    ----------
    F. Schroff, D. Kalenichenko, J. Philbin, "FaceNet: a unified embedding for face recognition and
    clustering", CVPR 2015. V. Balntas et al., "Learning local feature descriptors with triplets and
    shallow convolutional neural networks", BMVC 2016 (swap).

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> loss = nn.TripletMargin(eps=0.0)
    >>> a, p, n = np.array([[0.0, 0.0]]), np.array([[2.0, 0.0]]), np.array([[0.0, 2.5]])
    >>> loss(a, p, n)  # 1 + 2 - 2.5
    0.5
    >>> loss.backward()
    (array([[-1.,  1.]]), array([[1., 0.]]), array([[ 0., -1.]]))
    """

    takes_target = False
    margin: float
    p: float
    eps: float
    swap: bool

    def __init__(
        self,
        reduction: str = "mean",
        margin: float = 1.0,
        p: float = 2.0,
        eps: float = 1e-6,
        swap: bool = False,
    ) -> None:
        super().__init__(reduction)
        self.margin = positive(margin, "TripletMargin: margin")
        self.p = number(p, "TripletMargin: p", minimum=1)
        self.eps = number(eps, "TripletMargin: eps", minimum=0)
        self.swap = boolean(swap, "TripletMargin: swap")

    def forward(  # type: ignore[override]
        self,
        anchor: Array,
        positive: Array,
        negative: Array,
        sample_weight: ArrayLike | None = None,
    ) -> Any:
        """Return the loss: a float, or with "none" an array with the loss of each triplet.

        Parameters
        ----------
        anchor, positive, negative : ndarray of shape (N, …, D)
            Embeddings. The positive is of the anchor's class, the negative of another.
        sample_weight : array_like of shape (N,), optional
            The weight of each triplet; not negative, and not all zero.
        """
        a = self._as_prediction(anchor, name="anchors")
        p = self._as_prediction(positive, a.dtype, "positives")
        n = self._as_prediction(negative, a.dtype, "negatives")
        check_same_shape(self, a, p, "the positives")
        check_same_shape(self, a, n, "the negatives")
        weights = self._as_weights(sample_weight, a.shape[:-1], a.dtype)
        near, of_near = self._distance(a, p)
        far, of_far = self._distance(a, n)
        swapped = np.zeros_like(far, bool)
        if self.swap:
            other, of_other = self._distance(p, n)
            swapped = other < far
            far = np.where(swapped, other, far)
            of_far = np.where(swapped[..., None], of_other, of_far)
        z = self.margin + near - far
        value, factor = self._reduce(np.maximum(z, 0), weights)
        self.cache(z > 0, of_near, of_far, swapped, factor)
        return value

    def of_outputs(self, outputs: Any, *others: Any) -> Any:
        return self(*self._each(outputs, "anchor", "positive", "negative"), *others)

    def _distance(self, x: Array, y: Array) -> tuple[Array, Array]:
        """Return d(x, y) and its derivative with respect to x, which is 0 where d is."""
        u = x - y + self.eps
        size = np.abs(u)
        largest = size.max(axis=-1, keepdims=True)  # so that no power overflows
        scaled = size / np.where(largest > 0, largest, 1)
        d = largest * (scaled**self.p).sum(axis=-1, keepdims=True) ** (1 / self.p)
        return d[..., 0], np.sign(u) * (size / np.where(d > 0, d, 1)) ** (self.p - 1)

    def backward(self, grad: Any = 1.0, input_grad: bool = True) -> Any:
        """Return dL/d(anchor), dL/d(positive) and dL/d(negative)."""
        costs, of_near, of_far, swapped, factor = self.cached()
        factor = self._factor(grad, factor, costs.shape, of_near.dtype)
        if not input_grad:
            return None
        scale = (costs * factor).astype(of_near.dtype)[..., None]
        near, far = scale * of_near, scale * of_far
        from_anchor = far * ~swapped[..., None]
        return near - from_anchor, from_anchor - far - near, far


class CosineEmbedding(Loss):
    """Let similar pairs point in the same direction, and others in directions that differ.

    ``loss(x, y, target)`` takes two batches of embeddings, and ``loss.backward()`` returns the
    gradients of both. `fit` takes a model of two outputs.

    Parameters
    ----------
    reduction : {"mean", "sum", "none"}
    margin : float in [-1, 1], default 0
        Cosine up to which a pair that is not similar costs nothing.

    Raises
    ------
    ValueError
        If a target is neither -1 nor 1, if the shapes differ, or if `margin` is out of range.

    Notes
    -----
    Shapes: x and y (N, …, D), target (N, …): 1 for similar pairs, -1 for others. With
    c = x·y / (‖x‖ ‖y‖)::

        ℓ = 1 - c               dℓ/dc = -1      for a target of 1
        ℓ = max(c - margin, 0)  dℓ/dc = 1       for a target of -1 and c > margin, else 0
        ∂c/∂x = (y / ‖y‖ - c x / ‖x‖) / ‖x‖     and likewise for y

    1e-12 is added to the squares of the norms, so that embeddings of 0 have a cosine of 0.

    References
    ----------
    PyTorch's ``torch.nn.CosineEmbeddingLoss``.

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> loss = nn.CosineEmbedding("none")
    >>> x, y = np.array([[1.0, 0.0], [1.0, 0.0]]), np.array([[0.0, 2.0], [3.0, 0.0]])
    >>> loss(x, y, np.array([1, -1]))
    array([1., 1.])
    """

    margin: float

    def __init__(self, reduction: str = "mean", margin: float = 0.0) -> None:
        super().__init__(reduction)
        self.margin = number(margin, "CosineEmbedding: margin", -1, 1)

    def forward(  # type: ignore[override]
        self, x: Array, y: Array, target: Any, sample_weight: ArrayLike | None = None
    ) -> Any:
        """Return the loss: a float, or with "none" an array with the loss of each pair.

        Parameters
        ----------
        x, y : ndarray of shape (N, …, D)
            Embeddings.
        target : ndarray of shape (N, …)
            1 for similar pairs, -1 for others.
        sample_weight : array_like of shape (N,), optional
            The weight of each pair; not negative, and not all zero.
        """
        x = self._as_prediction(x, name="first embeddings")
        y = self._as_prediction(y, x.dtype, "second embeddings")
        check_same_shape(self, x, y, "the second embeddings")
        target = self._as_target(target, x.shape[:-1], x.dtype)
        if (np.abs(target) != 1).any():
            raise ValueError(
                f"{self.label}: targets must be -1 or 1, got values in [{target.min():g}, "
                f"{target.max():g}]; for labels 0 and 1 use 2 * labels - 1"
            )
        weights = self._as_weights(sample_weight, target.shape, x.dtype)
        x_norm, y_norm = (np.sqrt(np.square(v).sum(axis=-1, keepdims=True) + 1e-12) for v in (x, y))
        unit_x, unit_y = x / x_norm, y / y_norm
        c = (unit_x * unit_y).sum(axis=-1)
        excess = c - self.margin
        value, factor = self._reduce(np.where(target > 0, 1 - c, np.maximum(excess, 0)), weights)
        slope = np.where(target > 0, -1, excess > 0).astype(x.dtype)
        self.cache((unit_x, x_norm), (unit_y, y_norm), c[..., None], slope, factor)
        return value

    def of_outputs(self, outputs: Any, *others: Any) -> Any:
        return self(*self._each(outputs, "x", "y"), *others)

    def backward(self, grad: Any = 1.0, input_grad: bool = True) -> Any:
        """Return dL/dx and dL/dy."""
        (x, x_norm), (y, y_norm), c, slope, factor = self.cached()
        factor = self._factor(grad, factor, slope.shape, slope.dtype)
        if not input_grad:
            return None
        of_c = (slope * factor)[..., None]
        return of_c * (y - c * x) / x_norm, of_c * (x - c * y) / y_norm


def check_same_shape(loss: Loss, first: Array, other: Array, name: str) -> None:
    """Raise a ValueError unless both are (N, …, D) of the same shape."""
    if first.ndim < 2 or other.shape != first.shape:
        raise ValueError(
            f"{loss.label}: expected {name} in the shape (N, ..., D) of the first input, "
            f"{first.shape}, got {other.shape}"
        )
