"""The layers of transformers: attention and a small network for each step, with shortcuts."""

from __future__ import annotations

from collections.abc import Callable
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..checks import as_floats, as_output_grad, boolean, integer, number, one_of
from ..engine.arrays import Array
from ..layer import Layer, check_latest_forwards, latest_forwards
from ..random import RandomState, generator
from .activations import GELU, ReLU
from .attention import MultiheadAttention
from .dropout import Dropout
from .linear import Linear
from .normalization import LayerNorm

_ACTIVATIONS: dict[str, type[Layer]] = {"relu": ReLU, "gelu": GELU}


class _TransformerLayer(Layer):
    """Base of the two layers: what is around attention and the network of each step."""

    _accepted = MappingProxyType({"batch_first": (True,)})

    d_model: int
    nhead: int
    dim_feedforward: int
    dropout: float
    activation: str
    layer_norm_eps: float
    norm_first: bool
    bias: bool
    is_causal: bool

    def __init__(
        self,
        d_model: int,
        nhead: int,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation: str = "relu",
        layer_norm_eps: float = 1e-5,
        *,
        norm_first: bool = False,
        bias: bool = True,
        is_causal: bool = False,
        rng: RandomState = None,
    ) -> None:
        name = type(self).__name__
        self.d_model = width = integer(d_model, f"{name}: d_model")
        self.nhead = integer(nhead, f"{name}: nhead")
        if self.d_model % self.nhead:
            raise ValueError(
                f"{name}: nhead must divide d_model, got {self.nhead} heads for {width} features"
            )
        self.dim_feedforward = integer(dim_feedforward, f"{name}: dim_feedforward")
        self.dropout = number(dropout, f"{name}: dropout", 0, 1)
        self.activation = one_of(activation, tuple(_ACTIVATIONS), f"{name}: activation")
        self.layer_norm_eps = number(layer_norm_eps, f"{name}: layer_norm_eps", minimum=0)
        self.norm_first = boolean(norm_first, f"{name}: norm_first")
        self.bias = boolean(bias, f"{name}: bias")
        self.is_causal = boolean(is_causal, f"{name}: is_causal")
        rng = rng if rng is None else generator(rng)
        # In the order of PyTorch's state dict.
        self.self_attn = MultiheadAttention(
            width, nhead, self.dropout, self.bias, is_causal=self.is_causal, rng=rng
        )
        if self._attentions == 2:
            self.multihead_attn = MultiheadAttention(width, nhead, self.dropout, self.bias, rng=rng)
        self.linear1 = Linear(width, self.dim_feedforward, self.bias, rng=rng)
        self.hidden_activation: Layer = _ACTIVATIONS[self.activation]()
        self.hidden_dropout: Layer = Dropout(self.dropout, rng=rng)
        self.linear2 = Linear(self.dim_feedforward, width, self.bias, rng=rng)
        for index in range(1, self._attentions + 2):
            setattr(self, f"norm{index}", LayerNorm(width, self.layer_norm_eps, bias=self.bias))
            setattr(self, f"dropout{index}", Dropout(self.dropout, rng=rng))

    _attentions = 1

    def _around(self, index: int, x: Array, part: Callable[[Array], Array]) -> Array:
        """Apply a part of the layer with its normalization, dropout and shortcut."""
        norm, dropout = getattr(self, f"norm{index}"), getattr(self, f"dropout{index}")
        y: Array = x + dropout(part(norm(x))) if self.norm_first else norm(x + dropout(part(x)))
        return y

    def _around_back(self, index: int, grad: Array, part: Callable[[Array], Array]) -> Array:
        """Return dL/dx of `_around`, given the backward of the part."""
        norm, dropout = getattr(self, f"norm{index}"), getattr(self, f"dropout{index}")
        dx: Array
        if self.norm_first:
            dx = grad + norm.backward(part(dropout.backward(grad)))
        else:
            grad = norm.backward(grad)
            dx = grad + part(dropout.backward(grad))
        return dx

    def _feed_forward(self, x: Array) -> Array:
        hidden = self.hidden_dropout(self.hidden_activation(self.linear1(x)))
        y: Array = self.linear2(hidden)
        return y

    def _feed_forward_back(self, grad: Array) -> Array:
        d_hidden: Any = self.linear2.backward(grad)
        d_hidden = self.hidden_activation.backward(self.hidden_dropout.backward(d_hidden))
        dx: Any = self.linear1.backward(d_hidden)
        return np.asarray(dx)

    def _floats(self, x: Array, name: str) -> Array:
        return as_floats(self, x, self.linear1.weight.dtype, name)

    def _remember(self, y: Array) -> Array:
        """Cache what `_flow` checks; return the output."""
        self.cache(y.shape, latest_forwards(self.children()))
        return y

    def _flow(self, grad: Array) -> Array:
        """Check that dL/dy fits the last forward; return it as floats."""
        shape, forwards = self.cached()
        check_latest_forwards(self, [*self.children()], forwards)
        return as_output_grad(self, grad, shape, self.linear1.weight.dtype)


class TransformerEncoderLayer(_TransformerLayer):
    """Self-attention, and a network of two linear layers for each step, each with a shortcut.

    Parameters
    ----------
    d_model : int
        Number of features of the input and of the output.
    nhead : int
        Number of heads, a divisor of `d_model`.
    dim_feedforward : int, default 2048
        Number of features between the two linear layers.
    dropout : float, default 0.1
        Probability of setting an attention weight, a hidden feature, or a feature that is added to
        a shortcut to 0, in training mode.
    activation : {"relu", "gelu"}
        The activation function between the linear layers.
    layer_norm_eps : float, default 1e-5
        Added to the variance of the normalizations.
    norm_first : bool, default False
        Whether each part normalizes its input, and not the sum with its output.
    bias : bool, default True
        Whether the linear layers, attention and normalizations have biases.
    is_causal : bool, default False
        Whether each step sees only the steps up to its own.
    rng : int, numpy.random.Generator or None
        Source of the initial values and of the dropout.

    Attributes
    ----------
    self_attn : MultiheadAttention
    linear1, linear2 : Linear
    norm1, norm2 : LayerNorm

    Raises
    ------
    ValueError
        If `nhead` does not divide `d_model`; if the input or a mask has a wrong shape.

    Notes
    -----
    Shapes: x and y (N, L, d_model). Dropout is left out here::

        z = norm1(x + self_attn(x))                    z = x + self_attn(norm1(x))
        y = norm2(z + linear2(f(linear1(z))))          y = z + linear2(f(linear1(norm2(z))))

    on the left by default, on the right with `norm_first`. The gradient of each sum flows through
    its part and its shortcut, as in `Residual`. A stack of these layers is a `Sequential`; with the
    names of the example it has the keys of ``torch.nn.TransformerEncoder``.

    References
    ----------
    A. Vaswani et al., "Attention is all you need", NeurIPS 2017. R. Xiong et al., "On layer
    normalization in the transformer architecture", ICML 2020, for `norm_first`.

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> encoder = nn.Sequential({
    ...     "layers": nn.Sequential(*(nn.TransformerEncoderLayer(8, 2, 16) for _ in range(3))),
    ...     "norm": nn.LayerNorm(8),
    ... })
    >>> encoder(np.ones((4, 5, 8), np.float32)).shape
    (4, 5, 8)
    >>> list(encoder.state_dict())[:2]
    ['layers.0.self_attn.in_proj_weight', 'layers.0.self_attn.in_proj_bias']
    """

    def forward(
        self,
        src: Array,
        src_mask: ArrayLike | None = None,
        src_key_padding_mask: ArrayLike | None = None,
    ) -> Array:
        """Return the output for the sequences `src`.

        Parameters
        ----------
        src : ndarray of shape (N, L, d_model)
        src_mask, src_key_padding_mask : array_like, optional
            As the masks of `MultiheadAttention`: True is not read.

        Returns
        -------
        ndarray of shape (N, L, d_model)
        """

        def attend(x: Array) -> Array:
            y: Array = self.self_attn(x, None, None, src_key_padding_mask, src_mask)
            return y

        x = self._around(1, self._floats(src, "src"), attend)
        return self._remember(self._around(2, x, self._feed_forward))

    def backward(self, grad: Array, input_grad: bool = True) -> Array | None:
        grad = self._around_back(2, self._flow(grad), self._feed_forward_back)
        dx = self._around_back(1, grad, self.self_attn.backward)
        return dx if input_grad else None


class TransformerDecoderLayer(_TransformerLayer):
    """Self-attention, attention to another sequence, and a network for each step, with shortcuts.

    Parameters as in `TransformerEncoderLayer`; `is_causal` is of the self-attention.

    Attributes
    ----------
    self_attn, multihead_attn : MultiheadAttention
    linear1, linear2 : Linear
    norm1, norm2, norm3 : LayerNorm

    Raises
    ------
    ValueError
        If `nhead` does not divide `d_model`; if an input or a mask has a wrong shape.

    Notes
    -----
    Shapes: x and y (N, L, d_model), memory (N, S, d_model). Without `norm_first` and dropout::

        u = norm1(x + self_attn(x))
        v = norm2(u + multihead_attn(u, memory))
        y = norm3(v + linear2(f(linear1(v))))

    With `norm_first`, each part gets ``norm(x)`` and its output is added to x. `backward` returns
    dL/dx and dL/dmemory.

    References
    ----------
    A. Vaswani et al., "Attention is all you need", NeurIPS 2017.

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> decoder = nn.TransformerDecoderLayer(8, 2, 16, is_causal=True)
    >>> decoder(np.ones((4, 5, 8), np.float32), np.ones((4, 3, 8), np.float32)).shape
    (4, 5, 8)
    >>> [grad.shape for grad in decoder.backward(np.ones((4, 5, 8)))]
    [(4, 5, 8), (4, 3, 8)]
    """

    multihead_attn: MultiheadAttention
    _attentions = 2

    def forward(
        self,
        tgt: Array,
        memory: Array,
        tgt_mask: ArrayLike | None = None,
        memory_mask: ArrayLike | None = None,
        tgt_key_padding_mask: ArrayLike | None = None,
        memory_key_padding_mask: ArrayLike | None = None,
    ) -> Array:
        """Return the output for the sequences `tgt`, which read from `memory`.

        Parameters
        ----------
        tgt : ndarray of shape (N, L, d_model)
        memory : ndarray of shape (N, S, d_model)
        tgt_mask, tgt_key_padding_mask : array_like, optional
            The masks of the self-attention: see `MultiheadAttention`.
        memory_mask, memory_key_padding_mask : array_like, optional
            Those of the attention to the memory.

        Returns
        -------
        ndarray of shape (N, L, d_model)
        """

        def attend(x: Array) -> Array:
            y: Array = self.self_attn(x, None, None, tgt_key_padding_mask, tgt_mask)
            return y

        def read(x: Array) -> Array:
            y: Array = self.multihead_attn(x, memory, None, memory_key_padding_mask, memory_mask)
            return y

        x = self._around(1, self._floats(tgt, "tgt"), attend)
        x = self._around(2, x, read)
        return self._remember(self._around(3, x, self._feed_forward))

    def backward(self, grad: Array, input_grad: bool = True) -> tuple[Array, Array] | None:
        """Return dL/d(tgt) and dL/d(memory)."""
        d_memory: list[Array] = []

        def read_back(grad: Array) -> Array:
            dx: Array
            dx, of_memory = self.multihead_attn.backward(grad)
            d_memory.append(of_memory)
            return dx

        grad = self._around_back(3, self._flow(grad), self._feed_forward_back)
        grad = self._around_back(2, grad, read_back)
        dx = self._around_back(1, grad, self.self_attn.backward)
        return (dx, d_memory[0]) if input_grad else None
