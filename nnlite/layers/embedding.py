"""``Embedding``, a table of vectors that are looked up by index, and vectors of positions."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from .. import init
from ..checks import as_floats, as_output_grad, check_is_array, integer
from ..engine.arrays import Array
from ..layer import Layer
from ..parameter import Parameter
from ..random import RandomState


class Embedding(Layer):
    """Table of vectors, looked up by index: ``y = W[x]``.

    Parameters
    ----------
    num_embeddings : int
        Number of vectors.
    embedding_dim : int
        Size of each vector.
    padding_idx : int, optional
        Index of a vector that starts as zeros and gets no gradient.
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
        If an index is not in [0, num_embeddings), or the input is empty.

    Notes
    -----
    Shapes: x (N, …) of integers, y (N, …, embedding_dim). Indices have no gradient, so `backward`
    returns None. With G = dL/dy, the gradient of a vector is the sum over all places where it was
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
        check_is_array(x, self)
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
        # Sort the rows by index, then sum each run of equal indices.
        flat = indices.reshape(-1)
        order = np.argsort(flat, kind="stable")
        used, starts = np.unique(flat[order], return_index=True)
        d_weight = np.zeros_like(self.weight.data)
        d_weight[used] = np.add.reduceat(grad.reshape(-1, self.embedding_dim)[order], starts)
        if self.padding_idx is not None:
            d_weight[self.padding_idx] = 0
        self.weight.accumulate(d_weight)


class SinusoidalPositions(Layer):
    """Add a fixed vector for each position of a sequence: ``y_t = x_t + p_t``.

    Notes
    -----
    Shapes: x and y (N, L, E). The vectors are waves of wavelengths from 2π to 10,000 · 2π::

        p_t[2i] = sin(t / 10000^(2i/E))        p_t[2i+1] = cos(t / 10000^(2i/E))

        dL/dx = dL/dy

    It has no parameters and no longest sequence.

    Raises
    ------
    ValueError
        If the input does not have three axes.

    References
    ----------
    A. Vaswani et al., "Attention is all you need", NeurIPS 2017, section 3.5.

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> nn.SinusoidalPositions()(np.zeros((1, 2, 4))).round(4)
    array([[[0.    , 1.    , 0.    , 1.    ],
            [0.8415, 0.5403, 0.01  , 1.    ]]])
    """

    def forward(self, x: Array) -> Array:
        x = _sequences(self, as_floats(self, x), "E")
        self.cache(x.shape, x.dtype)
        return x + sinusoids(*x.shape[1:], x.dtype)

    def backward(self, grad: Array, input_grad: bool = True) -> Array | None:
        grad = as_output_grad(self, grad, *self.cached())
        return grad if input_grad else None


class LearnedPositions(Layer):
    """Add a learned vector for each position of a sequence: ``y_t = x_t + W_t``.

    Parameters
    ----------
    max_len : int
        Number of positions.
    embed_dim : int
        Size E of each vector.
    rng : int, numpy.random.Generator or None
        Source of the initial values, normal with standard deviation 0.02 as in BERT and GPT.

    Attributes
    ----------
    weight : Parameter of shape (max_len, embed_dim)

    Raises
    ------
    ValueError
        If the input has another number of features, or more than `max_len` steps.

    Notes
    -----
    Shapes: x and y (N, L, embed_dim) with L up to max_len. With G = dL/dy::

        dL/dx = G        dL/dW_t = Σ_n G_nt for t < L, and 0 for the others

    References
    ----------
    J. Gehring et al., "Convolutional sequence to sequence learning", ICML 2017.

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> positions = nn.LearnedPositions(10, 4)
    >>> positions(np.zeros((2, 3, 4), np.float32)).shape
    (2, 3, 4)
    """

    max_len: int
    embed_dim: int
    weight: Parameter

    def __init__(self, max_len: int, embed_dim: int, *, rng: RandomState = None) -> None:
        self.max_len = integer(max_len, "LearnedPositions: max_len")
        self.embed_dim = integer(embed_dim, "LearnedPositions: embed_dim")
        self.weight = Parameter(np.empty((self.max_len, self.embed_dim), np.float32))
        init.normal_(self.weight, 0.0, 0.02, rng=rng)

    def forward(self, x: Array) -> Array:
        x = _sequences(self, as_floats(self, x, self.weight.dtype), self.embed_dim)
        if x.shape[1] > self.max_len:
            raise ValueError(
                f"{self.label}: the sequences have {x.shape[1]} steps, more than max_len"
            )
        self.cache(x.shape)
        return x + self.weight.data[: x.shape[1]]

    def backward(self, grad: Array, input_grad: bool = True) -> Array | None:
        (shape,) = self.cached()
        grad = as_output_grad(self, grad, shape, self.weight.dtype)
        d_weight = np.zeros_like(self.weight.data)
        d_weight[: shape[1]] = grad.sum(axis=0)
        self.weight.accumulate(d_weight)
        return grad if input_grad else None


def _sequences(layer: Layer, x: Array, size: int | str) -> Array:
    """Return `x` after checking that it has shape (N, L, size)."""
    if x.ndim != 3 or size not in ("E", x.shape[2]):
        raise ValueError(f"{layer.label}: expected input of shape (N, L, {size}), got {x.shape}")
    return x


@functools.lru_cache(maxsize=16)
def sinusoids(length: int, size: int, dtype: np.dtype[Any]) -> Array:
    """Return the vectors of `SinusoidalPositions`, (length, size), to be read only."""
    waves = np.arange(size)
    angles = np.arange(length)[:, None] / 10000.0 ** (waves // 2 * 2 / size)
    table = np.where(waves % 2, np.cos(angles), np.sin(angles)).astype(dtype)
    table.flags.writeable = False
    return table
