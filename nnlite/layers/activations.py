"""Activations of single elements."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from ..checks import as_floats, as_output_grad, integer, number, one_of, positive
from ..engine.arrays import Array
from ..engine.elementwise import (
    absolute,
    log1p_exp,
    multiply,
    negative_part,
    one_minus,
    relu,
    relu_grad,
    sigmoid,
    step,
    tanh,
    where,
)
from ..engine.memory import empty_like
from ..engine.special import normal_cdf
from ..layer import Layer
from ..parameter import Parameter
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


class SELU(ELU):
    """Scaled ELU: ``y = scale · x`` for x > 0, otherwise ``y = scale · alpha (exp(x) - 1)``.

    Notes
    -----
    Shapes: x and y alike, any::

        dL/dx = dL/dy · scale · (1 if x > 0 else alpha exp(x))

    scale = 1.0507… and alpha = 1.6733… are the solution of two equations: for x of a standard
    normal distribution, y has mean 0 and variance 1 again. A deep network of `Linear` layers with
    normal weights of variance 1 / in_features keeps these moments without normalisation.

    References
    ----------
    G. Klambauer, T. Unterthiner, A. Mayr, S. Hochreiter, "Self-normalizing neural networks",
    NeurIPS 2017.

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> nn.SELU()(np.array([-1000.0, 0.0, 1.0])).round(4)
    array([-1.7581,  0.    ,  1.0507])
    """

    scale = 1.0507009873554805

    def __init__(self) -> None:
        super().__init__(alpha=1.6732632423543772)

    def value(self, x: Array) -> tuple[Array, Array]:
        y, x = super().value(x)
        y *= self.scale
        return y, x

    def vjp(self, x: Array, grad: Array) -> Array:
        slope = super().vjp(x, grad)
        slope *= self.scale
        return slope


class Hardtanh(Elementwise):
    """Clipping: ``y = min(max(x, min_val), max_val)``.

    Parameters
    ----------
    min_val, max_val : float, default -1 and 1
        The smallest and the largest output.

    Raises
    ------
    ValueError
        If `max_val` is not above `min_val`.

    Notes
    -----
    Shapes: x and y alike, any. At the two bends there is no derivative, and the gradient is 0::

        dL/dx = dL/dy · [min_val < x < max_val]

    References
    ----------
    R. Collobert, "Large scale machine learning", PhD thesis, Université Paris 6, 2004.

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> nn.Hardtanh()(np.array([-2.0, 0.5, 2.0]))
    array([-1. ,  0.5,  1. ])
    """

    min_val: float
    max_val: float

    def __init__(self, min_val: float = -1.0, max_val: float = 1.0) -> None:
        name = type(self).__name__
        self.min_val = number(min_val, f"{name}: min_val")
        self.max_val = number(max_val, f"{name}: max_val")
        if not self.min_val < self.max_val:
            raise ValueError(f"{name}: max_val must be above min_val={min_val}, got {max_val}")

    def value(self, x: Array) -> tuple[Array, Array]:
        y = _clipped(x, self.min_val, self.max_val)
        return y, y

    def vjp(self, y: Array, grad: Array) -> Array:
        return where(_is_between(y, self.min_val, self.max_val), grad)


class ReLU6(Hardtanh):
    """ReLU with an upper bound: ``y = min(max(x, 0), 6)``.

    Notes
    -----
    Shapes: x and y alike, any. At the two bends there is no derivative, and the gradient is 0::

        dL/dx = dL/dy · [0 < x < 6]

    References
    ----------
    A. Krizhevsky, "Convolutional deep belief networks on CIFAR-10", 2010.

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> nn.ReLU6()(np.array([-1.0, 3.0, 8.0]))
    array([0., 3., 6.])
    """

    def __init__(self) -> None:
        super().__init__(0.0, 6.0)


class Hardsigmoid(Elementwise):
    """Sigmoid in three straight pieces: ``y = min(max(x + 3, 0), 6) / 6``.

    Notes
    -----
    Shapes: x and y alike, any. At the two bends there is no derivative, and the gradient is 0::

        dL/dx = dL/dy · [-3 < x < 3] / 6

    References
    ----------
    M. Courbariaux, Y. Bengio, J.-P. David, "BinaryConnect: training deep neural networks with
    binary weights during propagations", NeurIPS 2015.

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> nn.Hardsigmoid()(np.array([-4.0, 0.0, 1.5, 4.0]))
    array([0.  , 0.5 , 0.75, 1.  ])
    """

    def value(self, x: Array) -> tuple[Array, Array]:
        y = _hardsigmoid(x)
        return y, y

    def vjp(self, y: Array, grad: Array) -> Array:
        slope = where(_is_between(y, 0, 1), grad)
        slope /= 6
        return slope


class Hardswish(Elementwise):
    """SiLU with a `Hardsigmoid` h in place of the sigmoid: ``y = x h(x)``.

    Notes
    -----
    Shapes: x and y alike, any. At x = -3 and 3 there is no derivative; the gradient is that of the
    outer piece::

        dL/dx = dL/dy · (h(x) + [-3 < x < 3] x / 6)

    References
    ----------
    A. Howard et al., "Searching for MobileNetV3", ICCV 2019.

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> nn.Hardswish()(np.array([-4.0, 0.0, 1.5, 4.0]))
    array([-0.   ,  0.   ,  1.125,  4.   ])
    """

    def value(self, x: Array) -> tuple[Array, tuple[Array, Array]]:
        h = _hardsigmoid(x)
        return multiply(x, h), (x, h)

    def vjp(self, saved: tuple[Array, Array], grad: Array) -> Array:
        x, h = saved
        slope = where(_is_between(h, 0, 1), x)
        slope /= 6
        slope += h
        slope *= grad
        return slope


def _hardsigmoid(x: Array) -> Array:
    y = _clipped(x + 3, 0, 6)
    y /= 6
    return y


def _clipped(x: Array, low: float, high: float) -> Array:
    y: Array = np.clip(x, low, high, out=empty_like(x))
    return y


def _is_between(y: Array, low: float, high: float) -> Array:
    """Whether clipping to [low, high], whose result is y, kept the value; True for NaN."""
    return (y != low) & (y != high)


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


class Mish(Elementwise):
    """Self-gated smooth ReLU: ``y = x tanh(log(1 + exp(x)))``.

    Notes
    -----
    Shapes: x and y alike, any. With t = tanh(log(1 + exp(x)))::

        dL/dx = dL/dy · (t + x (1 - t²) σ(x))

    because σ(x) is the derivative of log(1 + exp(x)).

    References
    ----------
    D. Misra, "Mish: a self regularized non-monotonic activation function", BMVC 2020.

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> nn.Mish()(np.array([-1000.0, 0.0, 1000.0]))
    array([  -0.,    0., 1000.])
    """

    def value(self, x: Array) -> tuple[Array, tuple[Array, Array]]:
        t = tanh(log1p_exp(x))
        return multiply(x, t), (x, t)

    def vjp(self, saved: tuple[Array, Array], grad: Array) -> Array:
        x, t = saved
        slope = one_minus(multiply(t, t))
        slope *= x
        slope *= sigmoid(x)
        slope += t
        slope *= grad
        return slope


class Softplus(Elementwise):
    """Smooth ReLU: ``y = log(1 + exp(beta · x)) / beta``.

    Parameters
    ----------
    beta : float, default 1
        Sharpness of the bend at 0, a positive number.
    threshold : float, default 20
        Above ``beta · x = threshold``, y = x. By default the difference is below 3e-9 / beta.

    Notes
    -----
    Shapes: x and y alike, any. No intermediate value overflows, whatever the threshold::

        dL/dx = dL/dy · (1 if beta · x > threshold else σ(beta · x))

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
    threshold: float

    def __init__(self, beta: float = 1.0, threshold: float = 20.0) -> None:
        self.beta = positive(beta, "Softplus: beta")
        self.threshold = number(threshold, "Softplus: threshold")

    def value(self, x: Array) -> tuple[Array, Array]:
        scaled = multiply(x, self.beta)
        y = log1p_exp(scaled)
        y /= self.beta
        np.copyto(y, x, where=scaled > self.threshold)
        return y, scaled

    def vjp(self, scaled: Array, grad: Array) -> Array:
        slope = sigmoid(scaled)
        np.copyto(slope, 1, where=scaled > self.threshold)
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


class LogSigmoid(Elementwise):
    """Logarithm of the logistic function: ``y = log σ(x) = -log(1 + exp(-x))``.

    Notes
    -----
    Shapes: x and y alike, any. No intermediate value overflows::

        dL/dx = dL/dy · (1 - σ(x))

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> nn.LogSigmoid()(np.array([-1000.0, 0.0, 1000.0])).round(4)
    array([-1.000e+03, -6.931e-01, -0.000e+00])
    """

    def value(self, x: Array) -> tuple[Array, Array]:
        y = log1p_exp(-x)
        return np.negative(y, out=y), x

    def vjp(self, x: Array, grad: Array) -> Array:
        slope = sigmoid(-x)  # 1 - σ(x)
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


class Softsign(Elementwise):
    """Sigmoid with slow saturation: ``y = x / (1 + |x|)``.

    Notes
    -----
    Shapes: x and y alike, any::

        dL/dx = dL/dy / (1 + |x|)²

    References
    ----------
    J. Bergstra, G. Desjardins, P. Lamblin, Y. Bengio, "Quadratic polynomials learn better image
    features", Université de Montréal, technical report 1337, 2009.

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> nn.Softsign()(np.array([-1.0, 0.0, 3.0]))
    array([-0.5 ,  0.  ,  0.75])
    """

    def value(self, x: Array) -> tuple[Array, Array]:
        d = absolute(x)
        d += 1
        return x / d, d

    def vjp(self, d: Array, grad: Array) -> Array:
        slope = grad / d
        slope /= d
        return slope


class PReLU(Layer):
    """Leaky ReLU with a learned slope: ``y = x`` for x > 0, otherwise ``y = weight · x``.

    Parameters
    ----------
    num_parameters : int, default 1
        1 for one slope, or the number of channels (the size of the second axis) for one of each.
    init : float, default 0.25
        Initial value of the slopes.

    Attributes
    ----------
    weight : Parameter of shape (num_parameters,)

    Raises
    ------
    ValueError
        If the input does not have `num_parameters` channels.

    Notes
    -----
    Shapes: x and y alike, any; (N, C, …) for one slope per channel. In the sum, i runs over the
    elements to which the slope applies::

        dL/dx      = dL/dy · (1 if x > 0 else weight)
        dL/dweight = Σ_i dL/dy_i min(x_i, 0)

    Weight decay pulls the slopes to 0, and so the layer to a ReLU; the paper does without it.

    References
    ----------
    K. He, X. Zhang, S. Ren, J. Sun, "Delving deep into rectifiers: surpassing human-level
    performance on ImageNet classification", ICCV 2015.

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> prelu = nn.PReLU()
    >>> prelu(np.array([[-2.0, 4.0]], dtype=np.float32))
    array([[-0.5,  4. ]], dtype=float32)
    >>> prelu.backward(np.ones((1, 2)))
    array([[0.25, 1.  ]], dtype=float32)
    >>> prelu.weight.grad
    array([-2.], dtype=float32)
    """

    num_parameters: int
    init: float
    weight: Parameter

    def __init__(self, num_parameters: int = 1, init: float = 0.25) -> None:
        self.num_parameters = integer(num_parameters, "PReLU: num_parameters")
        self.init = number(init, "PReLU: init")
        self.weight = Parameter(np.full(self.num_parameters, self.init, np.float32))

    def forward(self, x: ArrayLike) -> Array:
        x = as_floats(self, x, self.weight.dtype)
        if self.num_parameters > 1 and x.shape[1:2] != (self.num_parameters,):
            raise ValueError(
                f"{self.label}: expected input of shape (N, {self.num_parameters}, ...), "
                f"got {x.shape}"
            )
        self.cache(x)
        y = relu(x)
        y += negative_part(x) * self._slopes(x.ndim)
        return y

    def backward(self, grad: Array, input_grad: bool = True) -> Array | None:
        (x,) = self.cached()
        grad = as_output_grad(self, grad, x.shape, x.dtype)
        if self.weight.requires_grad:
            products = np.multiply(grad, negative_part(x))
            others = tuple(axis for axis in range(x.ndim) if axis != 1 or self.num_parameters == 1)
            self.weight.accumulate(products.sum(axis=others).reshape(self.num_parameters))
        return np.where(x > 0, grad, grad * self._slopes(x.ndim)) if input_grad else None

    def _slopes(self, rank: int) -> Array:
        """Return the slopes with the axes of an input, to be broadcast."""
        return self.weight.data.reshape(-1, *[1] * max(0, rank - 2))
