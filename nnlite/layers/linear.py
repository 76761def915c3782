"""``Linear``: the fully connected layer."""

from __future__ import annotations

import math

import numpy as np

from .. import init
from ..checks import as_floats, as_output_grad, boolean, integer
from ..engine.arrays import Array
from ..engine.blas import affine, as_rows, matmul
from ..layer import Layer
from ..parameter import Parameter
from ..random import RandomState, generator


class Linear(Layer):
    """Fully connected layer: ``y = x Wᵀ + b``.

    Parameters
    ----------
    in_features, out_features : int
        Sizes of the last axis of the input and of the output.
    bias : bool, default True
        Whether to add a learned bias.
    rng : int, numpy.random.Generator or None
        Source of the initial values, uniform on ±1/√in_features as in PyTorch.

    Attributes
    ----------
    weight : Parameter of shape (out_features, in_features)
    bias : Parameter of shape (out_features,), or None

    Raises
    ------
    ValueError
        If the last axis of the input does not have size in_features, or there is no batch axis.
    TypeError
        If the input is not of floats.

    Notes
    -----
    Shapes: x (N, …, in_features), y (N, …, out_features). With G = dL/dy, and all axes of x and G
    but the last merged into one::

        dL/dx = G W        dL/dW = Gᵀ x        dL/db = Σ_n G_n

    References
    ----------
    I. Goodfellow, Y. Bengio, A. Courville, "Deep Learning", MIT Press 2016, section 6.5.

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> layer = nn.Linear(3, 2, rng=0)
    >>> layer
    Linear(3, 2)
    >>> layer(np.ones((4, 3), dtype=np.float32)).shape
    (4, 2)
    >>> layer.backward(np.ones((4, 2))).shape, layer.weight.grad.shape
    ((4, 3), (2, 3))
    """

    in_features: int
    out_features: int
    weight: Parameter
    bias: Parameter | None

    def __init__(
        self, in_features: int, out_features: int, bias: bool = True, *, rng: RandomState = None
    ) -> None:
        self.in_features = integer(in_features, "Linear: in_features")
        self.out_features = integer(out_features, "Linear: out_features")
        rng = generator(rng)
        self.weight = Parameter(np.empty((self.out_features, self.in_features), np.float32))
        init.default_(self.weight, self.in_features, rng=rng)
        self.bias = None
        if boolean(bias, "Linear: bias"):
            self.bias = Parameter(np.empty(self.out_features, np.float32))
            init.default_(self.bias, self.in_features, rng=rng)

    def forward(self, x: Array) -> Array:
        weight = self.weight.data
        x = as_floats(self, x, weight.dtype)
        if x.ndim < 2 or x.shape[-1] != self.in_features:
            raise ValueError(self._shape_fault(x.shape))
        rows = as_rows(x)
        self.cache(rows, x.shape)
        y = affine(rows, weight, None if self.bias is None else self.bias.data)
        return y if x.ndim == 2 else y.reshape(*x.shape[:-1], self.out_features)

    def backward(self, grad: Array, input_grad: bool = True) -> Array | None:
        rows, shape = self.cached()
        grad = as_output_grad(self, grad, (*shape[:-1], self.out_features), rows.dtype)
        grad = as_rows(grad)
        self.weight.accumulate_product(grad.T, rows)  # dL/dW = Gᵀ x
        if self.bias is not None:
            self.bias.accumulate_sums(grad)  # dL/db = Σ_n G_n
        if not input_grad:
            return None
        dx = matmul(grad, self.weight.data, like=rows)  # dL/dx = G W
        return dx if len(shape) == 2 else dx.reshape(shape)

    def multiply_adds(
        self, input_shapes: tuple[tuple[int, ...], ...], output_shape: tuple[int, ...]
    ) -> int:
        return math.prod(output_shape) * self.in_features

    def _shape_fault(self, shape: tuple[int, ...]) -> str:
        fault = f"{self}: expected input of shape (N, ..., {self.in_features}), got {shape}"
        if shape == (self.in_features,):
            return f"{fault}; add a batch axis: x[None]"
        if len(shape) > 2 and np.prod(shape[1:]) == self.in_features:
            return f"{fault}; put nn.Flatten() before it"
        return fault
