"""Activations: functions of the input alone, most of them element by element."""

from __future__ import annotations

import numpy as np

from .checks import as_floats, as_output_grad, integer
from .layer import Array, Layer


class ReLU(Layer):
    """Rectified linear unit: ``y = max(x, 0)``.

    Notes
    -----
    Shapes: x and y alike, any. The gradient passes where the output is positive; at x = 0, where
    there is no derivative, it is 0::

        dL/dx = dL/dy · [y > 0]

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> relu = nn.ReLU()
    >>> relu(np.array([-1.0, 0.0, 2.0]))
    array([0., 0., 2.])
    >>> relu.backward(np.array([5.0, 5.0, 5.0]))
    array([0., 0., 5.])
    """

    def forward(self, x: Array) -> Array:
        y = np.maximum(as_floats(self, x), 0)
        self.cache(y)
        return y

    def backward(self, grad: Array, input_grad: bool = True) -> Array | None:
        (y,) = self.cached()
        grad = as_output_grad(self, grad, y.shape, y.dtype)
        if not input_grad:
            return None
        # Not a product: an infinite gradient times 0 would be NaN. True is 1, and -1 all bits set.
        mask = np.negative((y > 0).view(np.int8))
        bits = np.dtype(f"i{y.itemsize}")
        return (grad.view(bits) & mask).view(y.dtype)


class Sigmoid(Layer):
    """Logistic function: ``y = 1 / (1 + exp(-x))``.

    Notes
    -----
    Shapes: x and y alike, any. No intermediate value overflows, whatever the input::

        dL/dx = dL/dy · y (1 - y)

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> nn.Sigmoid()(np.array([-1000.0, 0.0, 1000.0]))
    array([0. , 0.5, 1. ])
    """

    def forward(self, x: Array) -> Array:
        y = sigmoid(as_floats(self, x))
        self.cache(y)
        return y

    def backward(self, grad: Array, input_grad: bool = True) -> Array | None:
        (y,) = self.cached()
        grad = as_output_grad(self, grad, y.shape, y.dtype)
        return grad * (y * (1 - y)) if input_grad else None


def sigmoid(x: Array) -> Array:
    """Return 1 / (1 + exp(-x)) with a relative error of a few ulps at either end."""
    # exp(-|x|) cannot overflow; for negative x, σ(x) = e / (1 + e) with e = exp(x).
    e: Array = np.exp(-np.abs(x))
    y: Array = np.where(x >= 0, 1, e) / (1 + e)
    return y


class Tanh(Layer):
    """Hyperbolic tangent: ``y = tanh(x)``.

    Notes
    -----
    Shapes: x and y alike, any::

        dL/dx = dL/dy · (1 - y²)

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> nn.Tanh()(np.array([-100.0, 0.0, 100.0]))
    array([-1.,  0.,  1.])
    """

    def forward(self, x: Array) -> Array:
        y = np.tanh(as_floats(self, x))
        self.cache(y)
        return y

    def backward(self, grad: Array, input_grad: bool = True) -> Array | None:
        (y,) = self.cached()
        grad = as_output_grad(self, grad, y.shape, y.dtype)
        return grad * (1 - y * y) if input_grad else None


class Softmax(Layer):
    """Normalised exponentials along an axis: ``y_i = exp(x_i) / Σ_j exp(x_j)``.

    Parameters
    ----------
    dim : int, default -1
        The axis along which the outputs sum to 1.

    Notes
    -----
    Shapes: x and y alike, any. The largest input is subtracted first, which changes nothing in
    exact arithmetic and keeps the exponentials from overflowing. The Jacobian is
    ``dy_i/dx_j = y_i ([i = j] - y_j)``, so::

        dL/dx = y · (dL/dy - Σ_j dL/dy_j y_j)

    To train a classifier, leave this layer out and give the logits to `CrossEntropy`, which is
    faster and more accurate; or say ``CrossEntropy(from_logits=False)``.

    Raises
    ------
    ValueError
        If the input has no axis `dim`.

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> nn.Softmax()(np.array([[0.0, 0.0], [1000.0, 0.0]]))
    array([[0.5, 0.5],
           [1. , 0. ]])
    """

    dim: int

    def __init__(self, dim: int = -1) -> None:
        self.dim = integer(dim, "Softmax: dim", minimum=-64)

    def forward(self, x: Array) -> Array:
        x = as_floats(self, x)
        if not -x.ndim <= self.dim < x.ndim:
            raise ValueError(f"{self}: an input of shape {x.shape} has no axis {self.dim}")
        y: Array = np.exp(x - x.max(axis=self.dim, keepdims=True))
        y /= y.sum(axis=self.dim, keepdims=True)
        self.cache(y)
        return y

    def backward(self, grad: Array, input_grad: bool = True) -> Array | None:
        (y,) = self.cached()
        grad = as_output_grad(self, grad, y.shape, y.dtype)
        if not input_grad:
            return None
        grad_input: Array = y * (grad - np.sum(grad * y, axis=self.dim, keepdims=True))
        return grad_input
