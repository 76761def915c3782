"""Activations: functions without parameters, most of them elementwise."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from ..checks import as_floats, as_output_grad, integer, number, one_of, positive
from ..engine.arrays import Array
from ..engine.elementwise import (
    absolute,
    multiply,
    negative_part,
    one_minus,
    relu,
    relu_grad,
    sigmoid,
    step,
    tanh,
)
from ..engine.special import normal_cdf
from ..layer import Layer
from .elementwise import Elementwise


class ReLU(Elementwise):
    """Rectified linear unit: ``y = max(x, 0)``.

    Notes
    -----
    Shapes: x and y alike, any. At x = 0 there is no derivative, and the gradient is 0::

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

    def value(self, x: Array) -> tuple[Array, Array]:
        y = relu(x)
        return y, y

    def vjp(self, y: Array, grad: Array) -> Array:
        return relu_grad(y, grad)


class LeakyReLU(Elementwise):
    """Leaky ReLU: ``y = x`` for x > 0, otherwise ``y = negative_slope · x``.

    Parameters
    ----------
    negative_slope : float, default 0.01
        Slope for negative inputs.

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

    def value(self, x: Array) -> tuple[Array, Array]:
        if 0 < self.negative_slope <= 1:
            y = multiply(x, self.negative_slope)
            return np.maximum(x, y, out=y), x
        return x * self._slope(x), x

    def vjp(self, x: Array, grad: Array) -> Array:
        return grad * self._slope(x)

    def _slope(self, x: Array) -> Array:
        """Return dy/dx."""
        slope = x.dtype.type(self.negative_slope)
        # Exact: 1 - slope or 0, plus slope. numpy.where is several times slower.
        return np.add(step(x, 1 - slope), slope)


class ELU(Elementwise):
    """Exponential linear unit: ``y = x`` for x > 0, otherwise ``y = alpha (exp(x) - 1)``.

    Parameters
    ----------
    alpha : float, default 1
        ``-alpha`` is the limit for x → -∞.

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

    def value(self, x: Array) -> tuple[Array, Array]:
        y = negative_part(x)
        np.expm1(y, out=y)
        y *= self.alpha
        y += relu(x)
        return y, x

    def vjp(self, x: Array, grad: Array) -> Array:
        slope = negative_part(x)
        np.exp(slope, out=slope)  # 1 for x > 0
        if self.alpha != 1:
            np.multiply(slope, self.alpha, out=slope, where=x <= 0)
        slope *= grad
        return slope


class SiLU(Elementwise):
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

    def value(self, x: Array) -> tuple[Array, tuple[Array, Array]]:
        s = sigmoid(x)
        return multiply(x, s), (x, s)

    def vjp(self, saved: tuple[Array, Array], grad: Array) -> Array:
        x, s = saved
        slope = one_minus(s)
        slope *= x
        slope += 1
        slope *= s
        slope *= grad
        return slope


class Softplus(Elementwise):
    """Smooth ReLU: ``y = log(1 + exp(beta · x)) / beta``.

    Parameters
    ----------
    beta : float, default 1
        Sharpness of the bend at 0, a positive number.

    Notes
    -----
    Shapes: x and y alike, any. No intermediate value overflows, so large inputs need no threshold::

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

    def value(self, x: Array) -> tuple[Array, Array]:
        # log(1 + exp(u)) = max(u, 0) + log(1 + exp(-|u|)): exp(-|u|) cannot overflow.
        y = absolute(x)
        y *= -self.beta
        np.exp(y, out=y)
        np.log1p(y, out=y)
        y /= self.beta
        y += relu(x)
        return y, x

    def vjp(self, x: Array, grad: Array) -> Array:
        slope = sigmoid(multiply(x, self.beta))
        slope *= grad
        return slope


class GELU(Elementwise):
    """Gaussian error linear unit: ``y = x Φ(x)``, where Φ is the normal distribution function.

    Parameters
    ----------
    approximate : {"none", "tanh"}
        "none" uses the exact Φ, "tanh" an approximation with the hyperbolic tangent.

    Notes
    -----
    Shapes: x and y alike, any. With the normal density φ(x) = exp(-x²/2) / √(2π)::

        Φ(x) = (1 + erf(x / √2)) / 2        dL/dx = dL/dy · (Φ(x) + x φ(x))

    For "tanh", with u = √(2/π) (x + 0.044715 x³) and t = tanh(u)::

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

    def value(self, x: Array) -> tuple[Array, tuple[Array, Array]]:
        if self.approximate == "none":
            cdf = normal_cdf(x)
        else:
            cdf = multiply(x, x)
            cdf *= _GELU_CUBE
            cdf += 1
            cdf *= x
            cdf *= _GELU_SCALE
            np.tanh(cdf, out=cdf)
            cdf += 1
            cdf *= 0.5
        return multiply(x, cdf), (x, cdf)

    def vjp(self, saved: tuple[Array, Array], grad: Array) -> Array:
        x, cdf = saved
        slope = multiply(x, x)
        if self.approximate == "none":
            slope *= -0.5
            np.exp(slope, out=slope)
            slope *= 1 / math.sqrt(2 * math.pi)
        else:
            # cdf = (1 + t) / 2, so (1 - t²) / 2 = 2 cdf (1 - cdf).
            slope *= 6 * _GELU_CUBE * _GELU_SCALE
            slope += 2 * _GELU_SCALE
            slope *= cdf
            slope *= one_minus(cdf)
        slope *= x
        slope += cdf
        slope *= grad
        return slope


_GELU_SCALE = math.sqrt(2 / math.pi)
_GELU_CUBE = 0.044715


class Sigmoid(Elementwise):
    """Logistic function: ``y = 1 / (1 + exp(-x))``.

    Notes
    -----
    Shapes: x and y alike, any. No intermediate value overflows::

        dL/dx = dL/dy · y (1 - y)

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> nn.Sigmoid()(np.array([-1000.0, 0.0, 1000.0]))
    array([0. , 0.5, 1. ])
    """

    def value(self, x: Array) -> tuple[Array, Array]:
        y = sigmoid(x)
        return y, y

    def vjp(self, y: Array, grad: Array) -> Array:
        slope = one_minus(y)
        slope *= y
        slope *= grad
        return slope


class Tanh(Elementwise):
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

    def value(self, x: Array) -> tuple[Array, Array]:
        y = tanh(x)
        return y, y

    def vjp(self, y: Array, grad: Array) -> Array:
        slope = one_minus(multiply(y, y))
        slope *= grad
        return slope


class _AlongAxis(Layer):
    """Base of `Softmax` and `LogSoftmax`."""

    dim: int

    def __init__(self, dim: int = -1) -> None:
        self.dim = integer(dim, f"{type(self).__name__}: dim", -math.inf)

    def _below_largest(self, x: ArrayLike) -> Array:
        """Subtract the largest value along the axis from the input, so that exp cannot overflow."""
        x = as_floats(self, x)
        if not -x.ndim <= self.dim < x.ndim:
            raise ValueError(f"{self}: an input of shape {x.shape} has no axis {self.dim}")
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
