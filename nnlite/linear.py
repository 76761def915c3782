"""Weights that meet the input in a product, or by its index: ``Linear`` and ``Embedding``."""

from __future__ import annotations

import math

import numpy as np

from . import init
from .checks import as_floats, as_output_grad, integer
from .cores import product
from .layer import Array, Layer, Parameter
from .memory import ones
from .random import RandomState, generator


class Linear(Layer):
    """Affine map of the last axis: ``y = x Wᵀ + b``.

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
        If the last axis of the input is not in_features, or if there is no batch axis.
    TypeError
        If the input is not of floats.

    Notes
    -----
    Shapes: x (N, …, in_features), y (N, …, out_features). With G = dL/dy, and x and G flattened
    to matrices of in_features and out_features columns::

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
        if bias:
            self.bias = Parameter(np.empty(self.out_features, np.float32))
            init.default_(self.bias, self.in_features, rng=rng)

    def forward(self, x: Array) -> Array:
        weight = self.weight.data
        x = as_floats(self, x, weight.dtype)
        if x.ndim < 2 or x.shape[-1] != self.in_features:
            raise ValueError(self._shape_fault(x.shape))
        rows = x if x.ndim == 2 else x.reshape(-1, self.in_features)
        # BLAS packs the transposed matrix, so let it be the smaller one.
        output: Array
        if 1 < len(rows) < self.out_features:
            output = product(weight, rows.T, None, self._beside_images).T
        else:
            output = product(rows, weight.T, None, self._beside_images)
        if self.bias is not None:
            # NumPy adds to a row in half the time that it needs for a matrix of one row.
            target = output[0] if len(output) == 1 else output
            target += self.bias.data
        self.cache(x.shape, rows)
        return output if x.ndim == 2 else output.reshape(*x.shape[:-1], self.out_features)

    def backward(self, grad: Array, input_grad: bool = True) -> Array | None:
        shape, rows = self.cached()
        grad = as_output_grad(self, grad, (*shape[:-1], self.out_features), rows.dtype)
        grad = grad if grad.ndim == 2 else grad.reshape(-1, self.out_features)
        self.weight.accumulate_product(grad.T, rows, self._beside_images)
        if self.bias is not None:
            self.bias.accumulate_product(ones((1, len(grad)), grad.dtype), grad)
        if not input_grad:
            return None
        if rows.flags.c_contiguous:
            result = product(grad, self.weight.data, None, self._beside_images)
        else:
            # In the memory order of the input: whoever gets the gradient can read both alike.
            result = product(self.weight.data.T, grad.T, None, self._beside_images).T
        return result if len(shape) == 2 else result.reshape(shape)

    def multiply_adds(
        self, input_shapes: tuple[tuple[int, ...], ...], output_shape: tuple[int, ...]
    ) -> int:
        return math.prod(output_shape) * self.in_features

    def _shape_fault(self, shape: tuple[int, ...]) -> str:
        fault = f"{self}: expected input of shape (N, …, {self.in_features}), got {shape}"
        if shape == (self.in_features,):
            return f"{fault}; add a batch axis: x[None]"
        if len(shape) > 2 and np.prod(shape[1:]) == self.in_features:
            return f"{fault}; put nn.Flatten() before it"
        return fault


class Embedding(Layer):
    """Table of vectors, looked up by index: ``y = W[x]``.

    Parameters
    ----------
    num_embeddings : int
        Number of vectors.
    embedding_dim : int
        Size of each.
    padding_idx : int, optional
        The vector of this index is zero at first, and gets no gradient.
    rng : int, numpy.random.Generator or None
        Source of the initial values, standard normal as in PyTorch.

    Attributes
    ----------
    weight : Parameter of shape (num_embeddings, embedding_dim)

    Raises
    ------
    TypeError
        If the input is not of integers.
    ValueError
        If an index is not in [0, num_embeddings), or if there are none.

    Notes
    -----
    Shapes: x of integers (N, …), y (N, …, embedding_dim). The indices have no gradient, so
    `backward` returns None; with G = dL/dy, a vector gets the sum over the places where it was
    looked up::

        dL/dW_i = Σ_{n: x_n = i} G_n

    References
    ----------
    Y. Bengio, R. Ducharme, P. Vincent, C. Jauvin, "A neural probabilistic language model", Journal
    of Machine Learning Research 3, 2003.

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> table = nn.Embedding(5, 2, rng=0)
    >>> table(np.array([[1, 4, 1]])).shape
    (1, 3, 2)
    >>> table.backward(np.ones((1, 3, 2)))
    >>> table.weight.grad[:, 0]
    array([0., 2., 0., 0., 1.], dtype=float32)
    """

    num_embeddings: int
    embedding_dim: int
    padding_idx: int | None
    weight: Parameter

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        *,
        rng: RandomState = None,
    ) -> None:
        self.num_embeddings = integer(num_embeddings, "Embedding: num_embeddings")
        self.embedding_dim = integer(embedding_dim, "Embedding: embedding_dim")
        self.weight = Parameter(np.empty((self.num_embeddings, self.embedding_dim), np.float32))
        init.normal_(self.weight, rng=rng)
        self.padding_idx = None
        if padding_idx is not None:
            index = integer(padding_idx, "Embedding: padding_idx", -self.num_embeddings)
            if index >= self.num_embeddings:
                raise ValueError(
                    f"Embedding: padding_idx must be below {self.num_embeddings}, got {index}"
                )
            self.padding_idx = index % self.num_embeddings
            self.weight.data[self.padding_idx] = 0

    def forward(self, x: Array) -> Array:
        indices = np.asarray(x)
        if indices.dtype.kind not in "iu":
            raise TypeError(f"{self}: expected indices of an integer dtype, got {indices.dtype}")
        if not indices.size:
            raise ValueError(f"{self}: the input is empty: it has shape {indices.shape}")
        if indices.min() < 0 or indices.max() >= self.num_embeddings:
            wrong = indices.min() if indices.min() < 0 else indices.max()
            raise ValueError(f"{self}: indices must be in [0, {self.num_embeddings}), got {wrong}")
        self.cache(indices)
        return self.weight.data[indices]

    def backward(self, grad: Array, input_grad: bool = True) -> None:
        (indices,) = self.cached()
        shape = (*indices.shape, self.embedding_dim)
        grad = as_output_grad(self, grad, shape, self.weight.dtype)
        # Rows of the same index side by side, and then one sum for each index.
        flat = indices.reshape(-1)
        order = np.argsort(flat, kind="stable")
        used, starts = np.unique(flat[order], return_index=True)
        d_weight = np.zeros_like(self.weight.data)
        d_weight[used] = np.add.reduceat(grad.reshape(-1, self.embedding_dim)[order], starts)
        if self.padding_idx is not None:
            d_weight[self.padding_idx] = 0
        self.weight.accumulate(d_weight)
