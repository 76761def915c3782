"""Convolution of images and sequences, and transposed convolution."""

from __future__ import annotations

import math

import numpy as np

from .. import init
from ..checks import as_output_grad, boolean, integer, one_of
from ..engine.arrays import Array
from ..engine.axis import Axes, Axis
from ..engine.gather import BORDERS, border, gather, scatter
from ..engine.windows import (
    arrange,
    channel_sums,
    correlate,
    correlate_input,
    correlate_weight,
)
from ..parameter import Parameter
from ..random import RandomState, generator
from .window import Size, Window, as_signals, at, check_border, sizes


class _Kernels(Window):
    """Base of convolutions: channels in groups, and learned kernels."""

    in_channels: int
    out_channels: int
    groups: int
    weight: Parameter
    bias: Parameter | None

    def _set_channels(self, in_channels: int, out_channels: int, groups: int) -> None:
        name = type(self).__name__
        self.in_channels = integer(in_channels, f"{name}: in_channels")
        self.out_channels = integer(out_channels, f"{name}: out_channels")
        self.groups = integer(groups, f"{name}: groups")
        if self.in_channels % self.groups or self.out_channels % self.groups:
            raise ValueError(
                f"{name}: groups must divide in_channels={in_channels} and "
                f"out_channels={out_channels}, got {groups}"
            )

    def _kernel(self) -> tuple[int, ...]:
        """Return the size of the kernels along each axis."""
        return tuple(at(index, self.kernel_size) for index in range(self.rank))

    def _set_parameters(self, shape: tuple[int, ...], bias: bool, rng: RandomState) -> None:
        rng, fan_in = generator(rng), math.prod(shape[1:])
        self.weight = Parameter(np.empty(shape, np.float32))
        init.default_(self.weight, fan_in, rng=rng)
        self.bias = None
        if boolean(bias, f"{type(self).__name__}: bias"):
            self.bias = Parameter(np.empty(self.out_channels, np.float32))
            init.default_(self.bias, fan_in, rng=rng)


class _Conv(_Kernels):
    """Convolution over any number of axes: see `Conv2d`."""

    padding_mode: str

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Size | str = 0,
        dilation: Size = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        *,
        rng: RandomState = None,
    ) -> None:
        name, rank = type(self).__name__, self.rank
        self._set_channels(in_channels, out_channels, groups)
        self.padding_mode = one_of(padding_mode, ("zeros", *BORDERS), f"{name}: padding_mode")
        self.kernel_size = sizes(kernel_size, rank, f"{name}: kernel_size")
        self.stride = sizes(stride, rank, f"{name}: stride")
        if isinstance(padding, str):
            self.padding = one_of(padding, ("same", "valid"), f"{name}: padding")
            if padding == "same" and any(at(i, self.stride) != 1 for i in range(rank)):
                raise ValueError(f"{name}: padding='same' needs a stride of 1, got {self.stride}")
        else:
            self.padding = sizes(padding, rank, f"{name}: padding", minimum=0)
        self.dilation = sizes(dilation, rank, f"{name}: dilation")
        kernel = self.in_channels // self.groups, *self._kernel()
        self._set_parameters((self.out_channels, *kernel), bias, rng)

    def forward(self, x: Array) -> Array:
        x = arrange(as_signals(self, x, self.rank, self.in_channels, self.weight.dtype))
        axes = self.axes(x.shape)
        borders: list[tuple[int, Array, int]] = []
        if self.padding_mode != "zeros":
            x, axes, borders = self._with_border(x, axes)
        self.cache(x, axes, borders)
        bias = None if self.bias is None else self.bias.data
        return correlate(x, self.weight.data, bias, axes, self.groups)

    def backward(self, grad: Array, input_grad: bool = True) -> Array | None:
        x, axes, borders = self.cached()
        shape = (len(x), self.out_channels, *(axis.outputs for axis in axes))
        grad = arrange(as_output_grad(self, grad, shape, x.dtype))
        if self.weight.requires_grad:
            self.weight.accumulate(correlate_weight(x, grad, axes, self.groups))
        if self.bias is not None:
            self.bias.accumulate(channel_sums(grad))
        if not input_grad:
            return None
        dx = correlate_input(grad, self.weight.data, axes, self.groups)
        for index, positions, size in reversed(borders):
            dx = scatter(dx, index, positions, size)
        return dx

    def _with_border(
        self, x: Array, axes: Axes
    ) -> tuple[Array, Axes, list[tuple[int, Array, int]]]:
        """Return x with its border, the axes without padding, and where the border comes from."""
        borders = []
        for index, axis in enumerate(axes, start=2):
            total = axis.span - 1 if self.padding == "same" else 2 * axis.padding
            after = total - axis.padding
            check_border(self, self.padding_mode, axis.inputs, after)
            positions = border(self.padding_mode, axis.inputs, axis.padding, after)
            borders.append((index, positions, axis.inputs))
            x = gather(x, index, positions)
        sizes = x.shape[2:]
        bare = [axis._replace(inputs=n, padding=0) for axis, n in zip(axes, sizes, strict=True)]
        return x, tuple(bare), borders

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
    groups : int, default 1
        Number of equal parts of the channels that are convolved each by itself: outputs of group g
        depend on inputs of group g alone. With groups=in_channels the convolution is depthwise.
    bias : bool, default True
        Whether to add a learned bias to each output channel.
    padding_mode : {"zeros", "reflect", "replicate", "circular"}, default "zeros"
        What the padding consists of: zeros, or pixels of the image as in `ReflectionPad2d`,
        `ReplicationPad2d` or `CircularPad2d`.
    rng : int, numpy.random.Generator or None
        Source of the initial values, uniform on ±1/√(in_channels·kH·kW / groups) as in PyTorch.

    Attributes
    ----------
    weight : Parameter of shape (out_channels, in_channels / groups, kH, kW)
    bias : Parameter of shape (out_channels,), or None

    Raises
    ------
    ValueError
        If the groups do not divide the channels, the input is not (N, in_channels, H, W), or the
        kernel is larger than the padded image.
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
    (h, w). With groups, the sums over c and o are over the channels of one group. In the other
    padding modes the image is padded first, and a pixel gets the gradients of all its copies.

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
    weight : Parameter of shape (out_channels, in_channels / groups, kernel_size)
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


class _ConvTranspose(_Kernels):
    """Transposed convolution over any number of axes: see `ConvTranspose2d`."""

    padding: Size
    stride: Size
    output_padding: Size
    padding_mode: str

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Size = 0,
        output_padding: Size = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: Size = 1,
        padding_mode: str = "zeros",
        *,
        rng: RandomState = None,
    ) -> None:
        name, rank = type(self).__name__, self.rank
        self._set_channels(in_channels, out_channels, groups)
        self.kernel_size = sizes(kernel_size, rank, f"{name}: kernel_size")
        self.stride = sizes(stride, rank, f"{name}: stride")
        self.padding = sizes(padding, rank, f"{name}: padding", minimum=0)
        self.output_padding = sizes(output_padding, rank, f"{name}: output_padding", minimum=0)
        self.dilation = sizes(dilation, rank, f"{name}: dilation")
        if padding_mode != "zeros":
            raise ValueError(f"{name}: padding_mode must be 'zeros', got {padding_mode!r}")
        self.padding_mode = padding_mode
        for index in range(rank):
            limit = max(at(index, self.stride), at(index, self.dilation))
            if at(index, self.output_padding) >= limit:
                raise ValueError(
                    f"{name}: output_padding must be below stride={self.stride} or "
                    f"dilation={self.dilation}, got {self.output_padding}"
                )
        kernel = self.out_channels // self.groups, *self._kernel()
        self._set_parameters((self.in_channels, *kernel), bias, rng)

    def forward(self, x: Array) -> Array:
        x = arrange(as_signals(self, x, self.rank, self.in_channels, self.weight.dtype))
        axes = self.axes(x.shape)
        self.cache(x, axes)
        y = correlate_input(x, self.weight.data, axes, self.groups)
        if self.bias is not None:
            y += self.bias.data.reshape(-1, *[1] * self.rank)
        return y

    def backward(self, grad: Array, input_grad: bool = True) -> Array | None:
        x, axes = self.cached()
        shape = (len(x), self.out_channels, *(axis.inputs for axis in axes))
        grad = arrange(as_output_grad(self, grad, shape, x.dtype))
        if self.weight.requires_grad:
            self.weight.accumulate(correlate_weight(grad, x, axes, self.groups))
        if self.bias is not None:
            self.bias.accumulate(channel_sums(grad))
        return correlate(grad, self.weight.data, None, axes, self.groups) if input_grad else None

    def axes(self, shape: tuple[int, ...]) -> Axes:
        """Return the axes of the convolution that has the outputs of this one as its inputs."""
        return tuple(self._axis(index, size) for index, size in enumerate(shape[2:]))

    def _axis(self, index: int, inputs: int) -> Axis:
        stride, dilation, padding, extra, taps = (
            at(index, option)
            for option in (
                *(self.stride, self.dilation, self.padding),
                *(self.output_padding, self.kernel_size),
            )
        )
        outputs = (inputs - 1) * stride - 2 * padding + dilation * (taps - 1) + extra + 1
        if outputs < 1:
            raise ValueError(
                f"{self.label}: padding={self.padding} leaves nothing of the output for an input "
                f"of size {inputs}; use less padding"
            )
        return Axis(outputs, inputs, taps, stride, padding, dilation)

    def multiply_adds(
        self, input_shapes: tuple[tuple[int, ...], ...], output_shape: tuple[int, ...]
    ) -> int:
        return math.prod(input_shapes[0]) * math.prod(self.weight.shape[1:])


class ConvTranspose2d(_ConvTranspose):
    """Transposed convolution of images: the gradient of a `Conv2d` as a layer.

    It enlarges an image as a convolution of the same stride reduces it: decoders and generators
    consist of it.

    Parameters
    ----------
    in_channels, out_channels : int
        Channels of the input and of the output.
    kernel_size : int or (int, int)
        Height and width of the kernels. Here and below, one int stands for both.
    stride : int or (int, int), default 1
        Distance between the kernel's positions for neighbouring inputs.
    padding : int or (int, int), default 0
        Rows and columns that are cut off at each side of the output.
    output_padding : int or (int, int), default 0
        Rows and columns added to the output at the bottom and right, fewer than the stride or the
        dilation: several sizes become the same in a convolution, and this chooses among them.
    groups : int, default 1
        As in `Conv2d`.
    bias : bool, default True
        Whether to add a learned bias to each output channel.
    dilation : int or (int, int), default 1
        Distance between the outputs of neighbouring entries of the kernel.
    padding_mode : {"zeros"}
        The only mode, as in PyTorch.
    rng : int, numpy.random.Generator or None
        Source of the initial values, uniform on ±1/√(out_channels·kH·kW / groups) as in PyTorch.

    Attributes
    ----------
    weight : Parameter of shape (in_channels, out_channels / groups, kH, kW)
    bias : Parameter of shape (out_channels,), or None

    Raises
    ------
    ValueError
        If the groups do not divide the channels, the output padding is too large, the input is not
        (N, in_channels, H, W), or the padding leaves nothing of the output.

    Notes
    -----
    Shapes: x (N, C, H, W), y (N, O, H', W') with ``H' = (H - 1) s - 2p + d(kH - 1) + op + 1`` for
    stride s, padding p, dilation d and output padding op; W' likewise. Input pixel (i, j) times
    entry (u, v) of the kernel is added to the output pixel ``h = i·s + u·d - p``,
    ``w = j·s + v·d - p``, unless that is outside the output. These are the pairs of pixels of a
    `Conv2d` with the same options, with inputs and outputs exchanged::

        y[n, o, h, w] = b[o] + Σ_c Σ_ijuv weight[c, o, u, v] x[n, c, i, j]

    where the sum is over the pixels (i, j) and entries (u, v) that meet in (h, w): what `Conv2d`
    computes for its dL/dx. So the gradient is a convolution. With G = dL/dy::

        dL/dx[n, c, i, j]      = Σ_ouv weight[c, o, u, v] G[n, o, h, w]
        dL/dweight[c, o, u, v] = Σ_nij x[n, c, i, j] G[n, o, h, w]
        dL/db[o]               = Σ_nhw G[n, o, h, w]

    References
    ----------
    V. Dumoulin, F. Visin, "A guide to convolution arithmetic for deep learning",
    arXiv:1603.07285, 2016.

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> layer = nn.ConvTranspose2d(1, 1, 2, stride=2, bias=False).astype(np.float64)
    >>> layer.weight.data[...] = [[1.0, 2.0], [3.0, 4.0]]
    >>> layer(np.array([[[[1.0, 10.0]]]]))
    array([[[[ 1.,  2., 10., 20.],
             [ 3.,  4., 30., 40.]]]])
    """

    rank = 2


class ConvTranspose1d(_ConvTranspose):
    """Transposed convolution of sequences: the gradient of a `Conv1d` as a layer.

    Parameters and errors as in `ConvTranspose2d`, with one axis.

    Attributes
    ----------
    weight : Parameter of shape (in_channels, out_channels / groups, kernel_size)
    bias : Parameter of shape (out_channels,), or None

    Notes
    -----
    Shapes: x (N, C, L), y (N, O, L'). With ``l = i·s + u·d - p``::

        y[n, o, l]          = b[o] + Σ_c Σ_iu weight[c, o, u] x[n, c, i]

        dL/dx[n, c, i]      = Σ_ou weight[c, o, u] G[n, o, l]
        dL/dweight[c, o, u] = Σ_ni x[n, c, i] G[n, o, l]
        dL/db[o]            = Σ_nl G[n, o, l]

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> layer = nn.ConvTranspose1d(1, 1, 3, stride=2, bias=False).astype(np.float64)
    >>> layer.weight.data[...] = [1.0, 2.0, 3.0]
    >>> layer(np.array([[[1.0, 10.0]]]))
    array([[[ 1.,  2., 13., 20., 30.]]])
    """

    rank = 1
