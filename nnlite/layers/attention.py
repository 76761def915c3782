"""``MultiheadAttention``: each step of a sequence reads from all steps of a sequence."""

from __future__ import annotations

import math
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from .. import init
from ..checks import as_floats, as_output_grad, boolean, check_is_array, integer, number
from ..engine.arrays import Array
from ..engine.blas import affine, as_rows, column_sums, matmul, product, stacked_product
from ..engine.elementwise import multiply
from ..layer import Layer, check_latest_forwards, latest_forwards
from ..parameter import Parameter
from ..random import RandomState, generator
from .dropout import Dropout
from .linear import Linear


class MultiheadAttention(Layer):
    """Scaled dot-product attention in several heads.

    Parameters
    ----------
    embed_dim : int
        Number of features E of the query and of the output.
    num_heads : int
        Number of heads H, a divisor of `embed_dim`. Each has D = E / H features.
    dropout : float, default 0
        Probability of setting an attention weight to 0, in training mode.
    bias : bool, default True
        Whether to add biases to the projections.
    kdim, vdim : int, optional
        Numbers of features of the key and of the value; `embed_dim` if omitted.
    is_causal : bool, default False
        Whether each step of the query sees only the steps of the key up to its own.
    rng : int, numpy.random.Generator or None
        Source of the initial values, with PyTorch's distributions, and of the dropout.

    Attributes
    ----------
    in_proj_weight : Parameter of shape (3 · embed_dim, embed_dim)
        W_q, W_k and W_v, one below the other. If `kdim` or `vdim` differ from `embed_dim`, there
        are `q_proj_weight`, `k_proj_weight` and `v_proj_weight` instead.
    in_proj_bias : Parameter of shape (3 · embed_dim,), or None
    out_proj : Linear
        W_o and b_o.

    Raises
    ------
    ValueError
        If `num_heads` does not divide `embed_dim`; if the inputs or a mask have a wrong shape.
    TypeError
        If an input is not of floats, or a mask is neither of booleans nor of floats.

    Notes
    -----
    Shapes: query (N, L, embed_dim), key (N, S, kdim), value (N, S, vdim), y (N, L, embed_dim). For
    each head, with its rows of W_q, W_k and W_v, and M the sum of all masks::

        Q = query W_qᵀ + b_q        K = key W_kᵀ + b_k        V = value W_vᵀ + b_v
        A = softmax(Q Kᵀ / √D + M)                            over the steps of the key
        y = [A_1 V_1, …, A_H V_H] W_oᵀ + b_o

    If all steps of the key are masked for a step of the query, its weights A are zeros: it reads
    nothing, and no output or gradient is NaN. With dO, the gradient of A V for a head::

        dV = Aᵀ dO        dA = dO Vᵀ        dS = A · (dA - Σ_s A dA)
        dQ = dS K / √D    dK = dSᵀ Q / √D

    and dQ, dK and dV are the gradients of the outputs of three linear layers.

    References
    ----------
    A. Vaswani et al., "Attention is all you need", NeurIPS 2017.

    Examples
    --------
    Self-attention and cross-attention:

    >>> import numpy as np
    >>> import nnlite as nn
    >>> attention = nn.MultiheadAttention(8, 2, rng=0)
    >>> x, memory = np.ones((4, 5, 8), np.float32), np.ones((4, 3, 8), np.float32)
    >>> attention(x).shape, attention(x, memory).shape
    ((4, 5, 8), (4, 5, 8))
    >>> [grad.shape for grad in attention.backward(np.ones((4, 5, 8)))]
    [(4, 5, 8), (4, 3, 8)]

    Sequences of different lengths, in a `Graph` whose second input is the mask:

    >>> model = nn.Graph({
    ...     "y": (attention, "x", {"key_padding_mask": "padding"}),
    ... }, inputs=("x", "padding"))
    >>> lengths = np.array([5, 2, 3, 1])
    >>> model(x, np.arange(5) >= lengths[:, None]).shape
    (4, 5, 8)
    """

    _accepted = MappingProxyType({"batch_first": (True,)})

    embed_dim: int
    num_heads: int
    dropout: float
    bias: bool
    kdim: int | None
    vdim: int | None
    is_causal: bool
    in_proj_weight: Parameter | None
    in_proj_bias: Parameter | None
    out_proj: Linear
    weights_dropout: Layer

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        dropout: float = 0.0,
        bias: bool = True,
        *,
        kdim: int | None = None,
        vdim: int | None = None,
        is_causal: bool = False,
        rng: RandomState = None,
    ) -> None:
        name = type(self).__name__
        self.embed_dim = width = integer(embed_dim, f"{name}: embed_dim")
        self.num_heads = integer(num_heads, f"{name}: num_heads")
        if width % self.num_heads:
            raise ValueError(
                f"{name}: num_heads must divide embed_dim, got {self.num_heads} heads for "
                f"{width} features"
            )
        self.dropout = number(dropout, f"{name}: dropout", 0, 1)
        self.bias = boolean(bias, f"{name}: bias")
        self.kdim = kdim if kdim is None else integer(kdim, f"{name}: kdim")
        self.vdim = vdim if vdim is None else integer(vdim, f"{name}: vdim")
        self.is_causal = boolean(is_causal, f"{name}: is_causal")
        rng = rng if rng is None else generator(rng)
        if self._widths == (width, width, width):
            shapes: dict[str, tuple[int, ...]] = {"in_proj_weight": (3 * width, width)}
        else:
            letters = zip("qkv", self._widths, strict=True)
            shapes = {f"{letter}_proj_weight": (width, size) for letter, size in letters}
        self.in_proj_weight = None
        for attribute, shape in shapes.items():
            weight = Parameter(np.empty(shape, np.float32))
            init.xavier_uniform_(weight, rng=rng)
            setattr(self, attribute, weight)
        self.in_proj_bias = Parameter(np.zeros(3 * width, np.float32)) if self.bias else None
        self.out_proj = Linear(width, width, self.bias, rng=rng)
        if self.out_proj.bias is not None:
            self.out_proj.bias.data[...] = 0
        self.weights_dropout = Dropout(self.dropout, rng=rng)

    @property
    def _widths(self) -> tuple[int, int, int]:
        """The numbers of features of query, key and value."""
        return self.embed_dim, self.kdim or self.embed_dim, self.vdim or self.embed_dim

    def forward(
        self,
        query: Array,
        key: Array | None = None,
        value: Array | None = None,
        key_padding_mask: ArrayLike | None = None,
        attn_mask: ArrayLike | None = None,
        *,
        need_weights: bool = False,
        average_attn_weights: bool = True,
    ) -> Array | tuple[Array, Array]:
        """Return what the steps of the query read from the value.

        Parameters
        ----------
        query : ndarray of shape (N, L, embed_dim)
        key : ndarray of shape (N, S, kdim), optional
            The query itself if omitted: self-attention.
        value : ndarray of shape (N, S, vdim), optional
            The key itself if omitted.
        key_padding_mask : array_like of shape (N, S), optional
            True where a step of the key is padding, which is not read; or floats that are added to
            the scores. As in PyTorch, and unlike the mask of the recurrent layers, True is masked.
        attn_mask : array_like of shape (L, S) or (N · num_heads, L, S), optional
            True where a step of the query must not read from a step of the key; or floats that are
            added to the scores.
        need_weights : bool, default False
            Whether to return the weights too. They have no gradient.
        average_attn_weights : bool, default True
            Whether these are the mean over the heads.

        Returns
        -------
        ndarray of shape (N, L, embed_dim)
            With `need_weights` a tuple of this and of the weights A, after the dropout: (N, L, S),
            or (N, num_heads, L, S) if they are not averaged.
        """
        inputs = self._inputs(query, key, value)
        batch, length, steps = len(inputs[0]), inputs[0].shape[1], inputs[1].shape[1]
        masks = self._masks(key_padding_mask, attn_mask, batch, length, steps)
        self.drop_cache()  # its memory is free for this forward

        rows = [as_rows(x) for x in inputs]
        biases = [None] * 3 if self.in_proj_bias is None else np.split(self.in_proj_bias.data, 3)
        q, k, v = (
            self._heads(affine(x, weight, bias), batch)
            for x, weight, bias in zip(rows, self._weights(), biases, strict=True)
        )
        scores = stacked_product(q, k.swapaxes(-1, -2))
        scores *= scores.dtype.type(self._scale)
        for mask in masks:
            scores += mask
        weights = _softmax(scores)
        dropped = self.weights_dropout(weights)
        heads = stacked_product(dropped, v)
        y: Array = self.out_proj(heads.swapaxes(1, 2).reshape(batch, length, self.embed_dim))

        count = 3 if value is not None else 1 if key is None else 2
        forwards = latest_forwards([self.out_proj, self.weights_dropout])
        self.cache(rows, q, k, v, weights, dropped, count, forwards)
        if not need_weights:
            return y
        return y, dropped.mean(axis=1) if average_attn_weights else np.array(dropped)

    def backward(self, grad: Array, input_grad: bool = True) -> Any:
        """Return dL/d(query), or a tuple with dL/d(key) and dL/d(value) if `forward` had them."""
        rows, q, k, v, weights, dropped, count, forwards = self.cached()
        check_latest_forwards(self, [self.out_proj, self.weights_dropout], forwards)
        batch, _, length, _ = q.shape
        shape = (batch, length, self.embed_dim)
        grad = as_output_grad(self, grad, shape, self.out_proj.weight.dtype)
        d_heads = self._heads(np.asarray(self.out_proj.backward(grad)), batch)

        dv = stacked_product(dropped.swapaxes(-1, -2), d_heads)  # dV = Aᵀ dO
        d_weights = self.weights_dropout.backward(
            stacked_product(d_heads, v.swapaxes(-1, -2))  # dA = dO Vᵀ
        )
        d_scores = multiply(weights, d_weights)  # dS = A · (dA - Σ A dA)
        d_scores -= weights * d_scores.sum(axis=-1, keepdims=True)
        d_scores *= d_scores.dtype.type(self._scale)
        dq = stacked_product(d_scores, k)  # dQ = dS K / √D
        dk = stacked_product(d_scores.swapaxes(-1, -2), q)  # dK = dSᵀ Q / √D

        flows = [as_rows(self._merged(d)) for d in (dq, dk, dv)]
        self._accumulate(flows, rows)
        if not input_grad:
            return None
        grads = [
            matmul(flow, weight, like=flow).reshape(batch, -1, weight.shape[1])
            for flow, weight in zip(flows, self._weights(), strict=True)
        ]
        while len(grads) > count:  # the value is the key, and the key may be the query
            last = grads.pop()
            grads[-1] += last
        return tuple(grads) if count > 1 else grads[0]

    def _accumulate(self, flows: list[Array], rows: list[Array]) -> None:
        """Add to the gradients of the projections, given those of their outputs."""
        if self.in_proj_bias is not None:
            self.in_proj_bias.accumulate(np.concatenate([column_sums(flow) for flow in flows]))
        products = [product(flow.T, x) for flow, x in zip(flows, rows, strict=True)]
        if self.in_proj_weight is not None:
            self.in_proj_weight.accumulate(np.concatenate(products))
        else:
            for letter, d_weight in zip("qkv", products, strict=True):
                getattr(self, f"{letter}_proj_weight").accumulate(d_weight)

    def multiply_adds(
        self, input_shapes: tuple[tuple[int, ...], ...], output_shape: tuple[int, ...]
    ) -> int:
        batch, length, width = output_shape
        shapes = [shape for shape in input_shapes if len(shape) == 3]  # without the masks
        steps = shapes[min(1, len(shapes) - 1)][1]
        size, key_size, value_size = self._widths
        projections = batch * width * (length * size + steps * (key_size + value_size))
        return projections + 2 * batch * length * steps * width

    # ---- projections and heads ----

    def _weights(self) -> list[Array]:
        """Return W_q, W_k and W_v."""
        if self.in_proj_weight is not None:
            return np.split(self.in_proj_weight.data, 3)
        return [getattr(self, f"{letter}_proj_weight").data for letter in "qkv"]

    @property
    def _scale(self) -> float:
        return 1 / math.sqrt(self.embed_dim // self.num_heads)

    def _heads(self, features: Array, batch: int) -> Array:
        """Return features, of all steps of a batch, as an array (N, H, steps, D)."""
        return features.reshape(
            batch, -1, self.num_heads, self.embed_dim // self.num_heads
        ).swapaxes(1, 2)

    def _merged(self, heads: Array) -> Array:
        """Return an array (N, H, steps, D) as (N, steps, E)."""
        return heads.swapaxes(1, 2).reshape(len(heads), -1, self.embed_dim)

    # ---- inputs ----

    def _inputs(self, query: Array, key: Array | None, value: Array | None) -> list[Array]:
        """Return query, key and value as floats; check their shapes."""
        if key is None and value is not None:
            raise TypeError(f"{self.label}: a value needs a key; pass query, key and value")
        key = query if key is None else key
        value = key if value is None else value
        arrays = []
        for name, given, size in zip(
            ("query", "key", "value"), (query, key, value), self._widths, strict=True
        ):
            x = as_floats(self, given, self.out_proj.weight.dtype, name)
            if x.ndim != 3 or x.shape[-1] != size:
                cure = "; add a batch axis: x[None]" if x.ndim == 2 else ""
                steps = "L" if name == "query" else "S"
                raise ValueError(
                    f"{self.label}: expected {name} of shape (N, {steps}, {size}), "
                    f"got {x.shape}{cure}"
                )
            arrays.append(x)
        query, key, value = arrays
        if len(query) != len(key) or key.shape[:2] != value.shape[:2]:
            raise ValueError(
                f"{self.label}: query, key and value need the same batch size, and key and value "
                f"the same number of steps, got {query.shape}, {key.shape} and {value.shape}"
            )
        return arrays

    def _masks(
        self,
        padding: ArrayLike | None,
        mask: ArrayLike | None,
        batch: int,
        length: int,
        steps: int,
    ) -> list[Array]:
        """Return all masks as numbers to add to the scores (N, H, L, S)."""
        masks = []
        if padding is not None:
            numbers = self._numbers(padding, "key_padding_mask", (batch, steps))
            masks.append(numbers[:, None, None])
        if mask is not None:
            per_head = (batch * self.num_heads, length, steps)
            numbers = self._numbers(mask, "attn_mask", (length, steps), per_head)
            masks.append(
                numbers if numbers.ndim == 2 else numbers.reshape(batch, -1, length, steps)
            )
        if self.is_causal:
            later = np.triu(np.ones((length, steps), np.bool_), 1)
            masks.append(self._numbers(later, "is_causal", later.shape))
        return masks

    def _numbers(self, mask: ArrayLike, name: str, *shapes: tuple[int, ...]) -> Array:
        """Return a mask as floats, -inf where a mask of booleans is True; check its shape."""
        check_is_array(mask, self)
        array = np.asarray(mask)
        if array.dtype.kind not in "bf":
            raise TypeError(
                f"{self.label}: expected {name} of booleans, True where nothing is read, or of "
                f"floats to add to the scores, got dtype {array.dtype}; convert it with "
                f".astype(bool)"
            )
        if array.shape not in shapes:
            expected = " or ".join(map(str, shapes))
            raise ValueError(
                f"{self.label}: expected {name} of shape {expected}, got {array.shape}"
            )
        dtype = self.out_proj.weight.dtype
        if array.dtype.kind == "f":
            numbers = array.astype(dtype, copy=False)
            if not (numbers < math.inf).all():
                raise ValueError(f"{self.label}: {name} contains NaN or +infinity")
            return numbers
        return np.where(array, dtype.type(-math.inf), dtype.type(0))


def _softmax(scores: Array) -> Array:
    """Replace each row of `scores` by its softmax, and a row of -inf by zeros; return the array."""
    top = scores.max(axis=-1, keepdims=True)
    top[top == -math.inf] = 0
    scores -= top
    np.exp(scores, out=scores)
    total = scores.sum(axis=-1, keepdims=True)
    total[total == 0] = 1
    scores /= total
    return scores
