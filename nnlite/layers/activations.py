"""Activations: functions of the input alone, most of them element by element."""

from __future__ import annotations

import math

import numpy as np

from ..checks import as_floats, as_output_grad, integer, number, one_of, positive
from ..engine.arrays import FLOATS, Array
from ..engine.blas import elementwise
from ..engine.masks import pick
from ..engine.memory import empty_like
from ..engine.special import normal_cdf
from ..layer import Layer

# Arrays of the same dtype, which NumPy is quicker to compute with than with Python's numbers.
_ZERO = {dtype: np.zeros((), dtype) for dtype in FLOATS}
_ONE = {dtype: np.ones((), dtype) for dtype in FLOATS}


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
        x = as_floats(self, x)
        y = _positive_part(x)
        self.cache(y)
        return y

    def backward(self, grad: Array, input_grad: bool = True) -> Array | None:
        (y,) = self.cached()
        grad = as_output_grad(self, grad, y.shape, y.dtype)
        if not input_grad:
            return None
        result = empty_like(y)
        elementwise(_pass_where_positive, y, grad, result)
        return result


class LeakyReLU(Layer):
    """ReLU with a small slope on the left: ``y = x`` for x > 0, ``y = negative_slope · x`` else.

    Parameters
    ----------
    negative_slope : float, default 0.01

    Notes
    -----
    Shapes: x and y alike, any::

        dL/dx = dL/dy · (1 if x > 0 else negative_slope)

    References
    ----------
    A. Maas, A. Hannun, A. Ng, "Rectifier nonlinearities improve neural network acoustic models",
    ICML 2013.

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> nn.LeakyReLU(0.5)(np.array([-2.0, 0.0, 2.0]))
    array([-1.,  0.,  2.])
    """

    negative_slope: float

    def __init__(self, negative_slope: float = 0.01) -> None:
        self.negative_slope = number(negative_slope, "LeakyReLU: negative_slope")

    def forward(self, x: Array) -> Array:
        x = as_floats(self, x)
        self.cache(x)
        if 0 < self.negative_slope <= 1:
            y: Array = np.multiply(x, self.negative_slope, out=empty_like(x))
            return np.maximum(x, y, out=y)
        return x * self._slope(x)

    def backward(self, grad: Array, input_grad: bool = True) -> Array | None:
        (x,) = self.cached()
        grad = as_output_grad(self, grad, x.shape, x.dtype)
        return grad * self._slope(x) if input_grad else None

    def _slope(self, x: Array) -> Array:
        slope = x.dtype.type(self.negative_slope)
        # Several times as fast as numpy.where, and exact: the sum is 1 or 0, plus the slope or 1.
        factor: Array = np.multiply(x > 0, 1 - slope, out=empty_like(x))
        factor += slope
        return factor


class ELU(Layer):
    """Exponential linear unit: ``y = x`` for x > 0, ``y = alpha (exp(x) - 1)`` else.

    Parameters
    ----------
    alpha : float, default 1
        Minus the limit on the left.

    Notes
    -----
    Shapes: x and y alike, any::

        dL/dx = dL/dy · (1 if x > 0 else alpha exp(x))

    References
    ----------
    D. Clevert, T. Unterthiner, S. Hochreiter, "Fast and accurate deep network learning by
    exponential linear units", ICLR 2016.

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> nn.ELU()(np.array([-1000.0, 0.0, 2.0]))
    array([-1.,  0.,  2.])
    """

    alpha: float

    def __init__(self, alpha: float = 1.0) -> None:
        self.alpha = number(alpha, "ELU: alpha")

    def forward(self, x: Array) -> Array:
        x = as_floats(self, x)
        y = _negative_part(x)
        np.expm1(y, out=y)
        y *= self.alpha
        y += _positive_part(x)
        self.cache(x)
        return y

    def backward(self, grad: Array, input_grad: bool = True) -> Array | None:
        (x,) = self.cached()
        grad = as_output_grad(self, grad, x.shape, x.dtype)
        if not input_grad:
            return None
        slope = _negative_part(x)
        np.exp(slope, out=slope)  # 1 for x > 0
        if self.alpha != 1:
            np.multiply(slope, self.alpha, out=slope, where=x <= 0)
        slope *= grad
        return slope


class SiLU(Layer):
    """Sigmoid linear unit, also called swish: ``y = x σ(x)``.

    Notes
    -----
    Shapes: x and y alike, any. With s = σ(x)::

        dL/dx = dL/dy · s (1 + x (1 - s))

    References
    ----------
    S. Elfwing, E. Uchibe, K. Doya, "Sigmoid-weighted linear units for neural network function
    approximation in reinforcement learning", Neural Networks 107, 2018.

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> nn.SiLU()(np.array([0.0, 1000.0]))
    array([   0., 1000.])
    """

    def forward(self, x: Array) -> Array:
        x = as_floats(self, x)
        s = sigmoid(x)
        self.cache(x, s)
        return x * s

    def backward(self, grad: Array, input_grad: bool = True) -> Array | None:
        x, s = self.cached()
        grad = as_output_grad(self, grad, x.shape, x.dtype)
        if not input_grad:
            return None
        slope = 1 - s
        slope *= x
        slope += 1
        slope *= s
        slope *= grad
        return slope


class Softplus(Layer):
    """Smooth ReLU: ``y = log(1 + exp(beta · x)) / beta``.

    Parameters
    ----------
    beta : float, default 1
        How sharp the bend is; above 0.

    Notes
    -----
    Shapes: x and y alike, any. Nothing overflows, so no threshold is needed for large inputs::

        dL/dx = dL/dy · σ(beta · x)

    References
    ----------
    C. Dugas et al., "Incorporating second-order functional knowledge for better option pricing",
    NeurIPS 2000.

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> nn.Softplus()(np.array([-1000.0, 1000.0]))
    array([   0., 1000.])
    """

    beta: float

    def __init__(self, beta: float = 1.0) -> None:
        self.beta = positive(beta, "Softplus: beta")

    def forward(self, x: Array) -> Array:
        x = as_floats(self, x)
        self.cache(x)
        y: Array = np.abs(x, out=empty_like(x))
        y *= -self.beta
        np.exp(y, out=y)
        np.log1p(y, out=y)
        y /= self.beta
        y += _positive_part(x)
        return y

    def backward(self, grad: Array, input_grad: bool = True) -> Array | None:
        (x,) = self.cached()
        grad = as_output_grad(self, grad, x.shape, x.dtype)
        if not input_grad:
            return None
        slope = sigmoid(self.beta * x)
        slope *= grad
        return slope


class GELU(Layer):
    """Gaussian error linear unit: ``y = x Φ(x)``, with Φ the normal distribution function.

    Parameters
    ----------
    approximate : {"none", "tanh"}
        Whether to use Φ itself, or a curve of the hyperbolic tangent near it.

    Notes
    -----
    Shapes: x and y alike, any. With the normal density φ(x) = exp(-x²/2) / √(2π)::

        Φ(x) = (1 + erf(x / √2)) / 2        dL/dx = dL/dy · (Φ(x) + x φ(x))

    and for "tanh", with u = √(2/π) (x + 0.044715 x³) and t = tanh(u)::

        y = x (1 + t) / 2       dL/dx = dL/dy · ((1 + t) / 2 + x (1 - t²) u' / 2)

    References
    ----------
    D. Hendrycks, K. Gimpel, "Gaussian error linear units", arXiv:1606.08415.

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> nn.GELU()(np.array([-10.0, 0.0, 10.0])).round(6)
    array([-0.,  0., 10.])
    """

    approximate: str

    def __init__(self, approximate: str = "none") -> None:
        self.approximate = one_of(approximate, ("none", "tanh"), "GELU: approximate")

    def forward(self, x: Array) -> Array:
        x = as_floats(self, x)
        if self.approximate == "none":
            share = normal_cdf(x)
        else:
            share = np.multiply(x, x, out=empty_like(x))
            share *= _GELU_CUBE
            share += 1
            share *= x
            share *= _GELU_SCALE
            np.tanh(share, out=share)
            share += 1
            share *= 0.5
        self.cache(x, share)
        return x * share

    def backward(self, grad: Array, input_grad: bool = True) -> Array | None:
        x, share = self.cached()
        grad = as_output_grad(self, grad, x.shape, x.dtype)
        if not input_grad:
            return None
        slope = np.multiply(x, x, out=empty_like(x))
        if self.approximate == "none":
            slope *= -0.5
            np.exp(slope, out=slope)
            slope *= 1 / math.sqrt(2 * math.pi)
        else:
            # share = (1 + t) / 2, so that (1 - t²) / 2 = 2 share (1 - share).
            slope *= 6 * _GELU_CUBE * _GELU_SCALE
            slope += 2 * _GELU_SCALE
            slope *= share
            slope *= 1 - share
        slope *= x
        slope += share
        slope *= grad
        return slope


_GELU_SCALE = math.sqrt(2 / math.pi)
_GELU_CUBE = 0.044715


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
        if not input_grad:
            return None
        slope = _ONE[y.dtype] - y
        slope *= y
        slope *= grad
        return slope


def sigmoid(x: Array) -> Array:
    """Return 1 / (1 + exp(-x)), with a relative error of a few ulps."""
    y: Array = np.negative(x, out=empty_like(x))
    _exp(y)
    np.add(y, _ONE[y.dtype], out=y)
    return np.reciprocal(y, out=y)


@np.errstate(over="ignore")  # as a decorator it takes a third less time than in a with statement
def _exp(y: Array) -> None:
    """Turn y into exp(y), which may be infinite."""
    np.exp(y, out=y)


def _positive_part(x: Array) -> Array:
    """Return max(x, 0)."""
    y = empty_like(x)
    elementwise(_clip_at_zero, x, y)
    return y


def _clip_at_zero(x: Array, y: Array) -> None:
    np.maximum(x, _ZERO[x.dtype], out=y)


def _pass_where_positive(y: Array, grad: Array, result: Array) -> None:
    """Write into `result` the gradient where y, which is 0 or above, or NaN, is not 0."""
    pick(grad, np.asarray(y != _ZERO[y.dtype]), out=result)


def _negative_part(x: Array) -> Array:
    """Return min(x, 0)."""
    return np.minimum(x, _ZERO[x.dtype], out=empty_like(x))


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
        if not input_grad:
            return None
        slope = np.multiply(y, y, out=empty_like(y))
        np.subtract(1, slope, out=slope)
        slope *= grad
        return slope


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
        x = _with_axis(self, as_floats(self, x), self.dim)
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


class LogSoftmax(Layer):
    """Logarithm of the softmax along an axis: ``y_i = x_i - log Σ_j exp(x_j)``.

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

    dim: int

    def __init__(self, dim: int = -1) -> None:
        self.dim = integer(dim, "LogSoftmax: dim", minimum=-64)

    def forward(self, x: Array) -> Array:
        x = _with_axis(self, as_floats(self, x), self.dim)
        y = x - x.max(axis=self.dim, keepdims=True)
        y -= np.log(np.exp(y).sum(axis=self.dim, keepdims=True))
        self.cache(y)
        return y

    def backward(self, grad: Array, input_grad: bool = True) -> Array | None:
        (y,) = self.cached()
        grad = as_output_grad(self, grad, y.shape, y.dtype)
        if not input_grad:
            return None
        return grad - np.exp(y) * grad.sum(axis=self.dim, keepdims=True)


def _with_axis(layer: Layer, x: Array, dim: int) -> Array:
    """Return `x`, having checked that it has the axis `dim`."""
    if not -x.ndim <= dim < x.ndim:
        raise ValueError(f"{layer}: an input of shape {x.shape} has no axis {dim}")
    return x
