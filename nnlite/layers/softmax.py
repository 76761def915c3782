"""``Softmax``, ``LogSoftmax`` and ``GLU``: activations along one axis."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from ..checks import as_floats, as_output_grad, integer
from ..engine.arrays import Array
from ..engine.elementwise import multiply, one_minus, sigmoid
from ..layer import Layer


class GLU(Layer):
    """Gated linear unit: ``y = a · σ(b)``, where a and b are the halves of the input.

    Parameters
    ----------
    dim : int, default -1
        The axis that is halved.

    Raises
    ------
    ValueError
        If the input has no axis `dim`, or one of odd size.

    Notes
    -----
    Shapes: x any, y with half the size along `dim`. With s = σ(b)::

        dL/da = dL/dy · s        dL/db = dL/dy · a s (1 - s)

    References
    ----------
    Y. Dauphin, A. Fan, M. Auli, D. Grangier, "Language modeling with gated convolutional
    networks", ICML 2017.

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> nn.GLU()(np.array([[3.0, 4.0, 0.0, 1000.0]]))
    array([[1.5, 4. ]])
    """

    dim: int

    def __init__(self, dim: int = -1) -> None:
        self.dim = integer(dim, "GLU: dim", -math.inf)

    def forward(self, x: ArrayLike) -> Array:
        x = as_floats(self, x)
        _check_axis(self, x)
        if x.shape[self.dim] % 2:
            raise ValueError(
                f"{self}: axis {self.dim} of an input of shape {x.shape} cannot be halved; "
                f"its size must be even"
            )
        a, b = np.split(x, 2, axis=self.dim)
        s = sigmoid(b)
        self.cache(a, s)
        return multiply(a, s)

    def backward(self, grad: Array, input_grad: bool = True) -> Array | None:
        a, s = self.cached()
        grad = as_output_grad(self, grad, a.shape, a.dtype)
        if not input_grad:
            return None
        da = grad * s
        return np.concatenate([da, da * a * one_minus(s)], axis=self.dim)


class _AlongAxis(Layer):
    """Base of `Softmax` and `LogSoftmax`."""

    dim: int

    def __init__(self, dim: int = -1) -> None:
        self.dim = integer(dim, f"{type(self).__name__}: dim", -math.inf)

    def _below_largest(self, x: ArrayLike) -> Array:
        """Subtract the largest value along the axis from the input, so that exp cannot overflow."""
        x = as_floats(self, x)
        _check_axis(self, x)
        return np.subtract(x, x.max(axis=self.dim, keepdims=True))


class Softmax(_AlongAxis):
    """Softmax along an axis: ``y_i = exp(x_i) / Σ_j exp(x_j)``.

    Parameters
    ----------
    dim : int, default -1
        The axis along which the outputs sum to 1.

    Notes
    -----
    Shapes: x and y alike, any. The largest input is subtracted first, so that exp cannot overflow;
    in exact arithmetic this does not change y. The Jacobian is
    ``dy_i/dx_j = y_i ([i = j] - y_j)``, so::

        dL/dx = y · (dL/dy - Σ_j dL/dy_j y_j)

    To train a classifier, omit this layer and pass the logits to `CrossEntropy`, which is faster
    and more accurate. With this layer, use ``CrossEntropy(from_logits=False)``.

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

    def forward(self, x: ArrayLike) -> Array:
        y = np.exp(self._below_largest(x))
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


class LogSoftmax(_AlongAxis):
    """Log-softmax along an axis: ``y_i = x_i - log Σ_j exp(x_j)``.

    Parameters
    ----------
    dim : int, default -1
        The axis along which the exponentials of the outputs sum to 1.

    Raises
    ------
    ValueError
        If the input has no axis `dim`.

    Notes
    -----
    Shapes: x and y alike, any. The largest input is subtracted first::

        dL/dx = dL/dy - exp(y) · Σ_j dL/dy_j

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> nn.LogSoftmax()(np.array([[0.0, -1000.0]]))
    array([[    0., -1000.]])
    """

    def forward(self, x: ArrayLike) -> Array:
        y = self._below_largest(x)
        y -= np.log(np.exp(y).sum(axis=self.dim, keepdims=True))
        self.cache(y)
        return y

    def backward(self, grad: Array, input_grad: bool = True) -> Array | None:
        (y,) = self.cached()
        grad = as_output_grad(self, grad, y.shape, y.dtype)
        if not input_grad:
            return None
        return grad - np.exp(y) * grad.sum(axis=self.dim, keepdims=True)


def _check_axis(layer: GLU | _AlongAxis, x: Array) -> None:
    """Raise a ValueError if `x` does not have the axis ``layer.dim``."""
    if not -x.ndim <= layer.dim < x.ndim:
        raise ValueError(f"{layer}: an input of shape {x.shape} has no axis {layer.dim}")
