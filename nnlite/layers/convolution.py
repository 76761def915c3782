"""Convolution of images and sequences: ``Conv2d`` and ``Conv1d``."""

from __future__ import annotations

import math

import numpy as np

from .. import init
from ..checks import as_output_grad, boolean, integer, one_of
from ..engine.arrays import Array
from ..engine.windows import arrange, channel_sums, correlate, correlate_input, correlate_weight
from ..parameter import Parameter
from ..random import RandomState, generator
from .window import Size, Window, as_signals, at, sizes


class _Conv(Window):
    """Convolution over any number of axes: see `Conv2d`."""

    in_channels: int
    out_channels: int
    weight: Parameter
    bias: Parameter | None

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Size | str = 0,
        dilation: Size = 1,
        *,
        bias: bool = True,
        rng: RandomState = None,
    ) -> None:
        name, rank = type(self).__name__, self.rank
        self.in_channels = integer(in_channels, f"{name}: in_channels")
        self.out_channels = integer(out_channels, f"{name}: out_channels")
        self.kernel_size = sizes(kernel_size, rank, f"{name}: kernel_size")
        self.stride = sizes(stride, rank, f"{name}: stride")
        if isinstance(padding, str):
            self.padding = one_of(padding, ("same", "valid"), f"{name}: padding")
            if padding == "same" and any(at(i, self.stride) != 1 for i in range(rank)):
                raise ValueError(f"{name}: padding='same' needs a stride of 1, got {self.stride}")
        else:
            self.padding = sizes(padding, rank, f"{name}: padding", minimum=0)
        self.dilation = sizes(dilation, rank, f"{name}: dilation")
        rng = generator(rng)
        kernel = (self.in_channels, *(at(i, self.kernel_size) for i in range(rank)))
        self.weight = Parameter(np.empty((self.out_channels, *kernel), np.float32))
        init.default_(self.weight, math.prod(kernel), rng=rng)
        self.bias = None
        if boolean(bias, f"{name}: bias"):
            self.bias = Parameter(np.empty(self.out_channels, np.float32))
            init.default_(self.bias, math.prod(kernel), rng=rng)

    def forward(self, x: Array) -> Array:
        x = arrange(as_signals(self, x, self.rank, self.in_channels, self.weight.dtype))
        axes = self.axes(x.shape)
        self.cache(x, axes)
        return correlate(x, self.weight.data, None if self.bias is None else self.bias.data, axes)

    def backward(self, grad: Array, input_grad: bool = True) -> Array | None:
        x, axes = self.cached()
        shape = (len(x), self.out_channels, *(axis.outputs for axis in axes))
        grad = arrange(as_output_grad(self, grad, shape, x.dtype))
        if self.weight.requires_grad:
            self.weight.accumulate(correlate_weight(x, grad, axes))
        if self.bias is not None:
            self.bias.accumulate(channel_sums(grad))
        return correlate_input(grad, self.weight.data, axes) if input_grad else None

    def multiply_adds(
        self, input_shapes: tuple[tuple[int, ...], ...], output_shape: tuple[int, ...]
    ) -> int:
        return math.prod(output_shape) * math.prod(self.weight.shape[1:])


class Conv2d(_Conv):
    """Convolution of images with learned kernels.

    Parameters
    ----------
    in_channels, out_channels : int
        Channels of the input and of the output.
    kernel_size : int or (int, int)
        Height and width of the kernels. Here and below, one int stands for both.
    stride : int or (int, int), default 1
        Distance between the kernel's positions for neighbouring outputs.
    padding : int, (int, int), "same" or "valid", default 0
        Rows and columns of zeros added at each side of the image. "same" pads so that the output
        has the size of the input (an odd row or column goes at the end; stride 1 only). "valid"
        adds none.
    dilation : int or (int, int), default 1
        Distance between the pixels that neighbouring entries of the kernel are multiplied with.
    bias : bool, default True
        Whether to add a learned bias to each output channel.
    rng : int, numpy.random.Generator or None
        Source of the initial values, uniform on ±1/√(in_channels·kH·kW) as in PyTorch.

    Attributes
    ----------
    weight : Parameter of shape (out_channels, in_channels, kH, kW)
    bias : Parameter of shape (out_channels,), or None

    Raises
    ------
    ValueError
        If the input is not (N, in_channels, H, W), or the kernel is larger than the padded image.
    TypeError
        If the input is not of floats.

    Notes
    -----
    Shapes: x (N, C, H, W), y (N, O, H', W') with ``H' = ⌊(H + 2p - d(kH - 1) - 1) / s⌋ + 1`` for
    stride s, padding p and dilation d; W' likewise. For output pixel (i, j), entry (u, v) of the
    kernel is multiplied with the input pixel ``h = i·s + u·d - p``, ``w = j·s + v·d - p``, which is
    0 outside the image. The output is the sum over all entries and channels, a cross-correlation in
    mathematical terms::

        y[n, o, i, j] = b[o] + Σ_cuv weight[o, c, u, v] x[n, c, h, w]

    With G = dL/dy, the gradients are sums over the same pairs of pixels::

        dL/dweight[o, c, u, v] = Σ_nij G[n, o, i, j] x[n, c, h, w]
        dL/db[o]               = Σ_nij G[n, o, i, j]
        dL/dx[n, c, h, w]      = Σ_o Σ_uv G[n, o, i, j] weight[o, c, u, v]

    where the last sum is over the entries (u, v) that some output pixel (i, j) multiplies with
    (h, w).

    For large batches, kernels of three rows are applied with Winograd's algorithm. Its results
    differ from these sums by rounding. Where x is infinite, or the sum of two pixels overflows,
    they can be NaN or ±∞.

    References
    ----------
    Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, "Gradient-based learning applied to document
    recognition", Proceedings of the IEEE 86(11), 1998.

    V. Dumoulin, F. Visin, "A guide to convolution arithmetic for deep learning",
    arXiv:1603.07285, 2016.

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> layer = nn.Conv2d(1, 1, 2, bias=False).astype(np.float64)
    >>> layer.weight.data[...] = [[0.1, -0.1], [0.2, 0.01]]
    >>> x = np.arange(1.0, 10.0).reshape(1, 1, 3, 3)
    >>> layer(x)
    array([[[[0.75, 0.96],
             [1.38, 1.59]]]])
    >>> layer.backward(np.array([[[[0.0, 1.0], [0.0, 0.0]]]]))
    array([[[[ 0.  ,  0.1 , -0.1 ],
             [ 0.  ,  0.2 ,  0.01],
             [ 0.  ,  0.  ,  0.  ]]]])
    >>> layer.weight.grad
    array([[[[2., 3.],
             [5., 6.]]]])
    """

    rank = 2


class Conv1d(_Conv):
    """Convolution of sequences with learned kernels.

    Parameters and errors as in `Conv2d`, with one axis.

    Attributes
    ----------
    weight : Parameter of shape (out_channels, in_channels, kernel_size)
    bias : Parameter of shape (out_channels,), or None

    Notes
    -----
    Shapes: x (N, C, L), y (N, O, L'). Recurrent layers use (N, L, C); ``x.transpose(0, 2, 1)``
    converts one to the other. With ``l = i·s + u·d - p``::

        y[n, o, i]          = b[o] + Σ_cu weight[o, c, u] x[n, c, l]

        dL/dweight[o, c, u] = Σ_ni G[n, o, i] x[n, c, l]
        dL/db[o]            = Σ_ni G[n, o, i]
        dL/dx[n, c, l]      = Σ_o Σ_u G[n, o, i] weight[o, c, u]

    References
    ----------
    A. Waibel, T. Hanazawa, G. Hinton, K. Shikano, K. Lang, "Phoneme recognition using time-delay
    neural networks", IEEE Transactions on Acoustics, Speech, and Signal Processing 37(3), 1989.

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> layer = nn.Conv1d(1, 1, 2, bias=False).astype(np.float64)
    >>> layer.weight.data[...] = [-1.0, 1.0]
    >>> layer(np.array([[[1.0, 2.0, 4.0, 8.0]]]))
    array([[[1., 2., 4.]]])
    >>> layer.backward(np.array([[[0.0, 0.0, 1.0]]]))
    array([[[ 0.,  0., -1.,  1.]]])
    >>> layer.weight.grad
    array([[[4., 8.]]])
    """

    rank = 1
