"""``Embedding``: a table of vectors, looked up by index."""

from __future__ import annotations

import numpy as np

from .. import init
from ..checks import as_output_grad, check_is_array, integer
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
