"""Convolution and pooling of sequences: the same as of images that have a single row.

A batch of sequences has the shape (N, C, L). A layer here shows it as images (N, C, 1, L) to the
layer of ``convolution`` that does the work, at the price of a view, and hands on what comes back
without the axis of rows.
"""

from __future__ import annotations

import copy
import math
from typing import Any

from ..checks import as_floats, as_output_grad, boolean, integer, one_of
from ..engine.arrays import Array
from ..layer import Layer
from ..parameter import Parameter
from ..random import RandomState
from .convolution import AvgPool2d, Conv2d, MaxPool2d


class _SequenceWindow(Layer):
    """What convolution and pooling share: the check of the input, and the way over images."""

    kernel_size: int
    stride: int | None
    padding: int | str
    dilation: int = 1
    ceil_mode: bool = False

    # The layer of images, in a tuple, so that it does not count as a sub-layer. What runs is a
    # copy, which is a part of the cache and goes with it.
    _template: tuple[Layer]

    def _check_shape(self, shape: tuple[int, ...]) -> None:
        """Raise a ValueError unless `shape` is that of sequences that a window fits into."""
        fault = self._shape_fault(shape)
        if fault:
            raise ValueError(f"{self.label}: {fault}")
        span = self.dilation * (self.kernel_size - 1) + 1
        if isinstance(self.padding, str):
            length = shape[2] + (span - 1 if self.padding == "same" else 0)
        else:
            length = shape[2] + 2 * self.padding
        # In ceil mode, a window may lack as much as the last step to it is long, less one.
        lacking = (self.stride or self.kernel_size) - 1 if self.ceil_mode else 0
        if span > length + lacking:
            raise ValueError(
                f"{self.label}: the kernel spans {span} steps, but the padded sequence has only "
                f"{length}; use a smaller kernel, a longer sequence or more padding"
            )

    def _shape_fault(self, shape: tuple[int, ...]) -> str:
        """Return what is wrong with the shape of the input, or nothing."""
        if len(shape) == 3:
            return ""
        cure = "; add a batch axis: x[None]" if len(shape) == 2 else ""
        return f"expected sequences of shape (N, C, L), got {shape}{cure}"

    def forward(self, x: Array) -> Array:
        x = as_floats(self, x)
        self._check_shape(x.shape)
        layer = copy.copy(self._template[0])
        y: Array = layer.forward(x[:, :, None])[:, :, 0]
        self.cache(layer, y.shape, y.dtype)
        return y

    def backward(self, grad: Array, input_grad: bool = True) -> Array | None:
        layer, shape, dtype = self.cached()
        grad = as_output_grad(self, grad, shape, dtype)
        result = layer.backward(grad[:, :, None], input_grad)
        return result[:, :, 0] if input_grad else None


class Conv1d(_SequenceWindow):
    """Convolution of sequences with learned kernels.

    Parameters
    ----------
    in_channels, out_channels : int
        Channels of the input and of the output.
    kernel_size : int
        Length of the kernels.
    stride : int, default 1
        How far the kernel moves from one output to the next.
    padding : int, "same" or "valid", default 0
        Zeros added at each end of the sequence. "same" adds as many as give the output the length
        of the input (an odd one at the end; for stride 1 only), "valid" none.
    dilation : int, default 1
        Distance between the steps that neighbouring entries of the kernel meet.
    bias : bool, default True
        Whether to add a learned bias to each output channel.
    rng : int, numpy.random.Generator or None
        Source of the initial values, uniform on ±1/√(in_channels·kernel_size) as in PyTorch.

    Attributes
    ----------
    weight : Parameter of shape (out_channels, in_channels, kernel_size)
    bias : Parameter of shape (out_channels,), or None

    Raises
    ------
    ValueError
        If the input is not (N, in_channels, L), or if the kernel is longer than the padded
        sequence.
    TypeError
        If the input is not of floats.

    Notes
    -----
    Shapes: x (N, C, L), y (N, O, L') with ``L' = ⌊(L + 2p - d(k - 1) - 1) / s⌋ + 1`` for
    kernel_size k, stride s, padding p and dilation d. Recurrent layers have their sequences as
    (N, L, C): ``x.transpose(0, 2, 1)`` leads from one to the other. Output i meets, at entry u of
    the kernel, the step ``l = i·s + u·d - p``; outside the sequence x is 0::

        y[n, o, i] = b[o] + Σ_cu weight[o, c, u] x[n, c, l]

    With G = dL/dy, the same pairs give the gradients::

        dL/dweight[o, c, u] = Σ_ni G[n, o, i] x[n, c, l]
        dL/db[o]            = Σ_ni G[n, o, i]
        dL/dx[n, c, l]      = Σ_o Σ_u G[n, o, i] weight[o, c, u]

    where the last sum goes over the entries u for which there is an output i that meets l there.

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

    in_channels: int
    out_channels: int
    weight: Parameter
    bias: Parameter | None

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        padding: int | str = 0,
        dilation: int = 1,
        *,
        bias: bool = True,
        rng: RandomState = None,
    ) -> None:
        self.in_channels = integer(in_channels, "Conv1d: in_channels")
        self.out_channels = integer(out_channels, "Conv1d: out_channels")
        self.kernel_size = _length(kernel_size, "Conv1d: kernel_size")
        self.stride = _length(stride, "Conv1d: stride")
        if isinstance(padding, str):
            self.padding = one_of(padding, ("same", "valid"), "Conv1d: padding")
            if padding == "same" and self.stride != 1:
                raise ValueError(f"Conv1d: padding='same' needs a stride of 1, got {self.stride}")
        else:
            self.padding = _length(padding, "Conv1d: padding", minimum=0)
        self.dilation = _length(dilation, "Conv1d: dilation")
        layer = Conv2d(
            self.in_channels,
            self.out_channels,
            (1, self.kernel_size),
            (1, self.stride),
            self.padding if isinstance(self.padding, str) else (0, self.padding),
            (1, self.dilation),
            bias=boolean(bias, "Conv1d: bias"),
            rng=rng,
        )
        self.weight = layer.weight = Parameter(layer.weight.data[:, :, 0])
        self.bias = layer.bias
        self._template = (layer,)

    def forward(self, x: Array) -> Array:
        x = as_floats(self, x, self.weight.dtype)
        self._check_shape(x.shape)
        layer: Any = copy.copy(self._template[0])
        layer.weight, layer.bias = Parameter(self.weight.data[:, :, None]), self.bias
        y: Array = layer.forward(x[:, :, None])[:, :, 0]
        self.cache(layer, y.shape, y.dtype)
        return y

    def backward(self, grad: Array, input_grad: bool = True) -> Array | None:
        layer, _, _ = self.cached()
        weight = layer.weight
        weight.data, weight.requires_grad = self.weight.data[:, :, None], self.weight.requires_grad
        weight.zero_grad()
        x_grad = super().backward(grad, input_grad)
        if weight.grad is not None:
            self.weight.accumulate(weight.grad[:, :, 0])
        return x_grad

    def multiply_adds(
        self, input_shapes: tuple[tuple[int, ...], ...], output_shape: tuple[int, ...]
    ) -> int:
        return math.prod(output_shape) * self.in_channels * self.kernel_size

    def _shape_fault(self, shape: tuple[int, ...]) -> str:
        if len(shape) == 3 and shape[1] == self.in_channels:
            return ""
        fault = f"expected sequences of shape (N, {self.in_channels}, L), got {shape}"
        if len(shape) == 3 and shape[2] == self.in_channels:
            return f"{fault}; the channels come before the length: x.transpose(0, 2, 1)"
        if len(shape) == 2 and shape[0] == self.in_channels:
            return f"{fault}; add a batch axis: x[None]"
        if len(shape) == 2 and self.in_channels == 1:
            return f"{fault}; add a channel axis: x[:, None]"
        return fault


class _Pool1d(_SequenceWindow):
    """What the pooling layers share: the checks of their options."""

    def __init__(
        self,
        kernel_size: int,
        stride: int | None,
        padding: int,
        dilation: int,
        ceil_mode: bool,
    ) -> None:
        name = type(self).__name__
        self.kernel_size = _length(kernel_size, f"{name}: kernel_size")
        self.stride = None if stride is None else _length(stride, f"{name}: stride")
        self.padding = _length(padding, f"{name}: padding", minimum=0)
        self.dilation = _length(dilation, f"{name}: dilation")
        self.ceil_mode = boolean(ceil_mode, f"{type(self).__name__}: ceil_mode")
        if 2 * self.padding > self.kernel_size:
            raise ValueError(
                f"{name}: padding must be at most half of kernel_size={self.kernel_size}, "
                f"got {self.padding}"
            )

    @property
    def _window(self) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
        """The kernel size, stride and padding of the layer of images."""
        assert isinstance(self.padding, int)
        return (1, self.kernel_size), (1, self.stride or self.kernel_size), (0, self.padding)


class MaxPool1d(_Pool1d):
    """The largest step of each window of a sequence.

    Parameters
    ----------
    kernel_size : int
        Length of the window.
    stride : int, optional
        How far the window moves from one output to the next; kernel_size if left out.
    padding : int, default 0
        How many steps of -∞ are added at each end, at most half of kernel_size.
    dilation : int, default 1
        Distance between neighbouring steps of a window.
    ceil_mode : bool, default False
        Whether the steps that are left at the end, too few for a window, get a smaller one.
        Otherwise they are dropped.

    Raises
    ------
    ValueError
        If the input is not (N, C, L), or if no window fits into it.
    TypeError
        If the input is not of floats.

    Notes
    -----
    Shapes: x (N, C, L), y (N, C, L') with L' as for `Conv1d`, or rounded up in ceil mode. Output i
    meets, at entry u of the window, the step ``l = i·s + u·d - p``::

        y[n, c, i]     = max_u x[n, c, l]
        dL/dx[n, c, l] = Σ_i dL/dy[n, c, i] [the first maximum of i is at l]

    NaN counts as larger than every number.

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> pool = nn.MaxPool1d(2)
    >>> pool(np.array([[[1.0, 2.0, 8.0, 4.0, 9.0]]]))
    array([[[2., 8.]]])
    >>> pool.backward(np.array([[[5.0, 6.0]]]))
    array([[[0., 5., 6., 0., 0.]]])
    """

    def __init__(
        self,
        kernel_size: int,
        stride: int | None = None,
        padding: int = 0,
        dilation: int = 1,
        ceil_mode: bool = False,
    ) -> None:
        super().__init__(kernel_size, stride, padding, dilation, ceil_mode)
        self._template = (MaxPool2d(*self._window, (1, self.dilation), self.ceil_mode),)


class AvgPool1d(_Pool1d):
    """The mean of each window of a sequence.

    Parameters
    ----------
    kernel_size : int
        Length of the window.
    stride : int, optional
        How far the window moves from one output to the next; kernel_size if left out.
    padding : int, default 0
        How many zeros are added at each end, at most half of kernel_size.
    ceil_mode : bool, default False
        Whether the steps that are left at the end, too few for a window, get a smaller one.
        Otherwise they are dropped.
    count_include_pad : bool, default True
        Whether the zeros of the padding count in the mean.

    Raises
    ------
    ValueError
        If the input is not (N, C, L), or if no window fits into it.
    TypeError
        If the input is not of floats.

    Notes
    -----
    Shapes: x (N, C, L), y (N, C, L') with L' as for `Conv1d`, or rounded up in ceil mode. Output i
    meets, at entry u of the window, the step ``l = i·s + u - p``. With a_i the number of steps that
    count in its mean::

        y[n, c, i]     = Σ_u x[n, c, l] / a_i
        dL/dx[n, c, l] = Σ_i dL/dy[n, c, i] / a_i

    where the last sum goes over the windows that l lies in.

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> pool = nn.AvgPool1d(2)
    >>> pool(np.array([[[1.0, 2.0, 8.0, 4.0, 9.0]]]))
    array([[[1.5, 6. ]]])
    >>> pool.backward(np.array([[[5.0, 6.0]]]))
    array([[[2.5, 2.5, 3. , 3. , 0. ]]])
    """

    count_include_pad: bool

    def __init__(
        self,
        kernel_size: int,
        stride: int | None = None,
        padding: int = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
    ) -> None:
        super().__init__(kernel_size, stride, padding, 1, ceil_mode)
        self.count_include_pad = boolean(count_include_pad, "AvgPool1d: count_include_pad")
        self._template = (AvgPool2d(*self._window, self.ceil_mode, self.count_include_pad),)


def _length(value: Any, what: str, minimum: int = 1) -> int:
    """Return `value`, an int of at least `minimum` or a tuple of one, or raise an error."""
    if isinstance(value, (tuple, list)) and len(value) == 1:
        value = value[0]
    return integer(value, what, minimum)
