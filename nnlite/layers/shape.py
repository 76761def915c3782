"""Layers that change the shape of an array and keep its values."""

from __future__ import annotations

import math

from ..checks import as_floats, as_output_grad, integer
from ..engine.arrays import Array
from ..engine.memory import reshape
from ..layer import Layer
from .elementwise import Elementwise


class Flatten(Layer):
    """Merge the axes from `start_dim` to `end_dim` into one.

    Parameters
    ----------
    start_dim : int, default 1
        The first axis to merge; 1 keeps the batch axis.
    end_dim : int, default -1
        The last axis to merge.

    Raises
    ------
    ValueError
        If the input has no such axes.

    Notes
    -----
    Shapes: x (N, C, H, W), y (N, C·H·W) by default. `backward` reshapes the gradient to the shape
    of x. The output is a view of the input if the memory order allows it.

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> nn.Flatten()(np.zeros((32, 1, 28, 28))).shape
    (32, 784)
    """

    start_dim: int
    end_dim: int

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        self.start_dim = integer(start_dim, "Flatten: start_dim", -math.inf)
        self.end_dim = integer(end_dim, "Flatten: end_dim", -math.inf)

    def forward(self, x: Array) -> Array:
        x = as_floats(self, x)
        start = self.start_dim + x.ndim if self.start_dim < 0 else self.start_dim
        end = self.end_dim + x.ndim if self.end_dim < 0 else self.end_dim
        if not 0 <= start <= end < x.ndim:
            raise ValueError(
                f"{self}: an input of shape {x.shape} has no axes "
                f"{self.start_dim} to {self.end_dim} to merge"
            )
        merged = math.prod(x.shape[start : end + 1])
        shape = (*x.shape[:start], merged, *x.shape[end + 1 :])
        y = reshape(x, shape)
        self.cache(x.shape, y.shape, x.dtype)
        return y

    def backward(self, grad: Array, input_grad: bool = True) -> Array | None:
        shape, output_shape, dtype = self.cached()
        grad = as_output_grad(self, grad, output_shape, dtype)
        return grad.reshape(shape) if input_grad else None


class Reshape(Layer):
    """Reshape each sample to `shape`.

    Parameters
    ----------
    *shape : int
        Sizes of the axes after the batch axis. One of them may be -1 and is then inferred.

    Raises
    ------
    ValueError
        If the values of a sample do not fit `shape`.

    Notes
    -----
    Shapes: x (N, …), y ``(N, *shape)``. `backward` reshapes the gradient to the shape of x.

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> nn.Reshape(1, 28, 28)(np.zeros((32, 784))).shape
    (32, 1, 28, 28)
    """

    shape: tuple[int, ...]

    def __init__(self, *shape: int) -> None:
        self.shape = tuple(integer(size, "Reshape: a size", minimum=-1) for size in shape)
        if self.shape.count(-1) > 1 or 0 in self.shape:
            raise ValueError(f"Reshape: sizes must be above 0, and one may be -1; got {shape}")

    def forward(self, x: Array) -> Array:
        x = as_floats(self, x)
        try:
            y = x.reshape(len(x) if x.ndim else -1, *self.shape)
        except ValueError:
            raise ValueError(
                f"{self}: a sample of shape {x.shape[1:]} does not fit into shape {self.shape}"
            ) from None
        self.cache(x.shape, y.shape, x.dtype)
        return y

    def backward(self, grad: Array, input_grad: bool = True) -> Array | None:
        shape, output_shape, dtype = self.cached()
        grad = as_output_grad(self, grad, output_shape, dtype)
        return grad.reshape(shape) if input_grad else None

    def __repr__(self) -> str:
        return f"Reshape({', '.join(str(size) for size in self.shape)})"


class Identity(Elementwise):
    """Return the input unchanged: ``y = x`` and ``dL/dx = dL/dy``.

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> nn.Identity()(np.ones(3))
    array([1., 1., 1.])
    """

    def value(self, x: Array) -> tuple[Array, None]:
        return x, None

    def vjp(self, saved: None, grad: Array) -> Array:
        return grad
