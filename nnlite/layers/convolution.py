"""Convolution and pooling of images, row by row.

A batch of images has the shape (N, C, H, W). In memory, convolution keeps its rows outermost and
the batch innermost: (H, C, W, N). Layers hand on transposed views of such arrays, and take any
other order at the price of a copy. In this order matrix products do nearly all of the work:

- **Forward.** An output row depends on kH rows of the image, and in each of these, what meets
  column j of the kernel is the row itself, shifted by j. `_windows` copies the image kW times, so
  shifted, into ``lines[h, c, j, w, n]``. The kH lines that an output row depends on then follow
  each other in memory: they are a matrix of kH·C·kW rows and W·N columns, ready for the product
  with the weight, and the matrices of neighbouring output rows overlap. (The usual way, im2col,
  copies the image kH·kW times.)
- **Weight gradient.** The same matrices, times the output gradient of their row.
- **Input gradient.** An image row meets kH rows of the output gradient, and these are such a matrix
  as they lie. One product sums over output channels and kernel rows. It gives kW shifted lines,
  whose sum is the row's gradient. (The usual way, col2im, sums kH·kW shifted images.)

Kernels of three rows, the most common ones, take a third fewer multiplications in all of these, if
the batch is large: see `winograd`.

The work goes through blocks of rows that stay in the processor's cache. Which positions stride,
padding and dilation connect is worked out one axis at a time: see `_Axis`.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from .. import init
from ..checks import as_floats, as_output_grad, integer, one_of
from ..engine import winograd
from ..engine.arrays import Array
from ..engine.blas import share, share_sum
from ..engine.elementwise import where
from ..engine.memory import empty
from ..layer import Layer
from ..parameter import Parameter
from ..random import RandomState, generator

Size = int | tuple[int, int]

# About how many bytes of lines make a block.
_BLOCK = 1 << 22
# From how many samples on, and how many products in the sum of one kernel row, Winograd's
# algorithm is faster.
_MANY_SAMPLES, _MANY_TERMS = 32, 48


class _Axis(NamedTuple):
    """How a window slides along one axis.

    Tap k of the window at output o meets the input ``o·stride + k·dilation - padding``, if there
    is one: beyond both ends lies padding.
    """

    inputs: int
    outputs: int
    taps: int
    stride: int
    padding: int
    dilation: int

    @property
    def span(self) -> int:
        """How many positions a window reaches over."""
        return self.dilation * (self.taps - 1) + 1

    @property
    def is_padded(self) -> bool:
        """Whether a window reaches beyond an end."""
        end = (self.outputs - 1) * self.stride + self.span - self.padding
        return self.padding > 0 or end > self.inputs

    @property
    def is_identity(self) -> bool:
        """Whether every output meets the input at its own position and no other."""
        return self.taps == self.stride == 1 and not self.is_padded

    @property
    def is_tiled(self) -> bool:
        """Whether every input lies in exactly one window."""
        covered = self.inputs == self.outputs * self.stride and not self.is_padded
        return covered and self.taps == self.stride


@functools.lru_cache(maxsize=256)
def _by_tap(axis: _Axis) -> tuple[tuple[slice, slice], ...]:
    """Return for each tap the outputs at which it meets an input, and these inputs."""
    links = []
    for tap in range(axis.taps):
        offset = tap * axis.dilation - axis.padding
        start = max(0, -(offset // axis.stride))
        stop = max(start, min(axis.outputs, (axis.inputs - 1 - offset) // axis.stride + 1))
        first, end = (output * axis.stride + offset for output in (start, stop))
        links.append((slice(start, stop), slice(first, end, axis.stride)))
    return tuple(links)


@functools.lru_cache(maxsize=256)
def _by_input(axis: _Axis) -> tuple[tuple[slice, slice], ...]:
    """Return for each input the taps that meet it, numbered from the last, and their outputs."""
    links = []
    for position in range(axis.padding, axis.padding + axis.inputs):
        taps, outputs = [], []
        for tap in range(axis.taps):
            output, rest = divmod(position - (axis.taps - 1 - tap) * axis.dilation, axis.stride)
            if rest == 0 and 0 <= output < axis.outputs:
                taps.append(tap)
                outputs.append(output)
        links.append((_as_slice(taps), _as_slice(outputs)))
    return tuple(links)


def _as_slice(indices: list[int]) -> slice:
    """Return the slice that picks these indices: ascending and evenly spaced."""
    if not indices:
        return slice(0)
    step = indices[1] - indices[0] if len(indices) > 1 else 1
    return slice(indices[0], indices[-1] + 1, step)


class _SlidingWindow(Layer):
    """What convolution and pooling share: the options of a window, and the axes it slides along."""

    kernel_size: Size
    stride: Size | None
    padding: Size | str
    dilation: Size = 1
    ceil_mode: bool = False

    def _axes(self, x: Array) -> tuple[_Axis, _Axis]:
        """Return the axes of the rows and of the columns."""
        return self._axis(0, x.shape[2], "rows"), self._axis(1, x.shape[3], "columns")

    def _axis(self, index: int, inputs: int, name: str) -> _Axis:
        taps = _at(index, self.kernel_size)
        stride = taps if self.stride is None else _at(index, self.stride)
        dilation = _at(index, self.dilation)
        span = dilation * (taps - 1) + 1
        if isinstance(self.padding, str):
            padding = span - 1 if self.padding == "same" else 0
        else:
            padding = 2 * _at(index, self.padding)
        room = inputs + padding - span
        outputs = (room + (stride - 1 if self.ceil_mode else 0)) // stride + 1
        if outputs < 1:
            raise ValueError(
                f"{self.label}: the kernel spans {span} {name}, but the padded image has only "
                f"{inputs + padding}; use a smaller kernel, a larger image or more padding"
            )
        # As in PyTorch, no window starts in the padding at the end.
        if self.ceil_mode and (outputs - 1) * stride >= inputs + padding // 2:
            outputs -= 1
        return _Axis(inputs, outputs, taps, stride, padding // 2, dilation)


class Conv2d(_SlidingWindow):
    """Convolution of images with learned kernels.

    Parameters
    ----------
    in_channels, out_channels : int
        Channels of the input and of the output.
    kernel_size : int or (int, int)
        Height and width of the kernels; here and below, one int stands for both.
    stride : int or (int, int), default 1
        How far the kernel moves from one output to the next.
    padding : int, (int, int), "same" or "valid", default 0
        Rows and columns of zeros added at each side of the image. "same" adds as many as give
        the output the size of the input (odd ones at the end; for stride 1 only), "valid" none.
    dilation : int or (int, int), default 1
        Distance between the pixels that neighbouring entries of the kernel meet.
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
        If the input is not (N, in_channels, H, W), or if the kernel is larger than the padded
        image.
    TypeError
        If the input is not of floats.

    Notes
    -----
    Shapes: x (N, C, H, W), y (N, O, H', W') with ``H' = ⌊(H + 2p - d(kH - 1) - 1) / s⌋ + 1`` for
    stride s, padding p and dilation d, and W' alike. An output pixel (i, j) meets, at entry (u, v)
    of the kernel, the input pixel ``h = i·s + u·d - p``, ``w = j·s + v·d - p``; outside the image
    x is 0. It is the sum over all entries and channels (what mathematics calls a
    cross-correlation)::

        y[n, o, i, j] = b[o] + Σ_cuv weight[o, c, u, v] x[n, c, h, w]

    With G = dL/dy, the same pairs of pixels give the gradients::

        dL/dweight[o, c, u, v] = Σ_nij G[n, o, i, j] x[n, c, h, w]
        dL/db[o]               = Σ_nij G[n, o, i, j]
        dL/dx[n, c, h, w]      = Σ_o Σ_uv G[n, o, i, j] weight[o, c, u, v]

    where the last sum goes over the entries (u, v) for which there is an output pixel (i, j) that
    meets (h, w) there.

    With many samples, kernels of three rows are applied by Winograd's algorithm. Its outputs differ
    from these sums by rounding; where x is infinite, or so large that the sum of two of its pixels
    is, they can be NaN or ±∞.

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
        self.in_channels = integer(in_channels, "Conv2d: in_channels")
        self.out_channels = integer(out_channels, "Conv2d: out_channels")
        self.kernel_size = _size(kernel_size, "Conv2d: kernel_size")
        self.stride = _size(stride, "Conv2d: stride")
        if isinstance(padding, str):
            self.padding = one_of(padding, ("same", "valid"), "Conv2d: padding")
            if padding == "same" and self.stride not in (1, (1, 1)):
                raise ValueError(f"Conv2d: padding='same' needs a stride of 1, got {self.stride}")
        else:
            self.padding = _size(padding, "Conv2d: padding", minimum=0)
        self.dilation = _size(dilation, "Conv2d: dilation")
        rng = generator(rng)
        kernel = (self.in_channels, _at(0, self.kernel_size), _at(1, self.kernel_size))
        self.weight = Parameter(np.empty((self.out_channels, *kernel), np.float32))
        init.default_(self.weight, math.prod(kernel), rng=rng)
        self.bias = None
        if bias:
            self.bias = Parameter(np.empty(self.out_channels, np.float32))
            init.default_(self.bias, math.prod(kernel), rng=rng)

    def forward(self, x: Array) -> Array:
        weight = self.weight.data
        x = as_floats(self, x, weight.dtype)
        if x.ndim != 4 or x.shape[1] != self.in_channels:
            raise ValueError(self._shape_fault(x.shape))
        rows, columns = self._axes(x)
        image = _by_rows(x)
        bias = None if self.bias is None else self.bias.data
        y = empty((rows.outputs, self.out_channels, columns.outputs, len(x)), x.dtype, True)
        if _suits_winograd(rows, columns, self.in_channels, len(x)):
            padding, kernels = (rows.padding, columns.padding), weight.transpose(2, 0, 3, 1)
            winograd.convolve(image.swapaxes(1, 2), kernels, bias, padding, y.swapaxes(1, 2))
        else:
            _convolve(image, weight, bias, rows, columns, y)
        self.cache(image, rows, columns)
        return y.transpose(3, 1, 0, 2)

    def backward(self, grad: Array, input_grad: bool = True) -> Array | None:
        image, rows, columns = self.cached()
        shape = (image.shape[3], self.out_channels, rows.outputs, columns.outputs)
        grad = as_output_grad(self, grad, shape, image.dtype)
        lines = _by_rows(grad).reshape(rows.outputs, self.out_channels, -1)
        if self.weight.requires_grad:
            self.weight.accumulate(_weight_grad(image, lines, rows, columns))
        if self.bias is not None:
            # A product with ones sums in BLAS, faster than sum(axis=(0, 2)).
            self.bias.accumulate(np.matmul(lines, np.ones(lines.shape[2], lines.dtype)).sum(axis=0))
        if not input_grad:
            return None
        result = _input_grad(lines, self.weight.data, image.shape, rows, columns)
        return result.transpose(3, 1, 0, 2)

    def multiply_adds(
        self, input_shapes: tuple[tuple[int, ...], ...], output_shape: tuple[int, ...]
    ) -> int:
        return math.prod(output_shape) * math.prod(self.weight.shape[1:])

    def _shape_fault(self, shape: tuple[int, ...]) -> str:
        fault = f"{self.label}: expected images of shape (N, {self.in_channels}, H, W), got {shape}"
        if len(shape) == 4 and shape[3] == self.in_channels:
            return f"{fault}; the channels come before height and width: x.transpose(0, 3, 1, 2)"
        if len(shape) == 3 and shape[0] == self.in_channels:
            return f"{fault}; add a batch axis: x[None]"
        if len(shape) == 3 and self.in_channels == 1:
            return f"{fault}; add a channel axis: x[:, None]"
        return fault


class _Pool2d(_SlidingWindow):
    """What the pooling layers share: the checks of their options and of their input."""

    def __init__(
        self,
        kernel_size: Size,
        stride: Size | None,
        padding: Size,
        dilation: Size,
        ceil_mode: bool,
    ) -> None:
        name = type(self).__name__
        self.kernel_size = _size(kernel_size, f"{name}: kernel_size")
        self.stride = None if stride is None else _size(stride, f"{name}: stride")
        self.padding = _size(padding, f"{name}: padding", minimum=0)
        self.dilation = _size(dilation, f"{name}: dilation")
        self.ceil_mode = bool(ceil_mode)
        if any(2 * _at(i, self.padding) > _at(i, self.kernel_size) for i in (0, 1)):
            raise ValueError(
                f"{name}: padding must be at most half of kernel_size={self.kernel_size}, "
                f"got {self.padding}"
            )

    def _axes(self, x: Array) -> tuple[_Axis, _Axis]:
        if x.ndim != 4:
            cure = "; add a batch axis: x[None]" if x.ndim == 3 else ""
            raise ValueError(
                f"{self.label}: expected images of shape (N, C, H, W), got {x.shape}{cure}"
            )
        return super()._axes(x)


class MaxPool2d(_Pool2d):
    """The largest pixel of each window of an image.

    Parameters
    ----------
    kernel_size : int or (int, int)
        Height and width of the window; here and below, one int stands for both.
    stride : int or (int, int), optional
        How far the window moves from one output to the next; kernel_size if left out.
    padding : int or (int, int), default 0
        Rows and columns of -∞ added at each side of the image, at most half of kernel_size.
    dilation : int or (int, int), default 1
        Distance between neighbouring pixels of a window.
    ceil_mode : bool, default False
        Whether the rows and columns that are left at the end, too few for a window, get a smaller
        one. Otherwise they are dropped, such as the last row of an odd image under windows of 2.

    Raises
    ------
    ValueError
        If the input is not (N, C, H, W), or if no window fits into it.
    TypeError
        If the input is not of floats.

    Notes
    -----
    Shapes: x (N, C, H, W), y (N, C, H', W') with H' and W' as for `Conv2d`, or rounded up in ceil
    mode. Output (i, j) meets, at entry (u, v) of the window, the pixel ``h = i·s + u·d - p``,
    ``w = j·s + v·d - p``::

        y[n, c, i, j]     = max_uv x[n, c, h, w]
        dL/dx[n, c, h, w] = Σ_ij dL/dy[n, c, i, j] [the first maximum of (i, j) is at (h, w)]

    where "first" is meant row by row. NaN counts as larger than every number.

    References
    ----------
    D. Scherer, A. Müller, S. Behnke, "Evaluation of pooling operations in convolutional
    architectures for object recognition", ICANN 2010.

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> pool = nn.MaxPool2d(2)
    >>> pool(np.array([[[[1.0, 2.0, 7.0], [4.0, 3.0, 9.0]]]]))
    array([[[[4.]]]])
    >>> pool.backward(np.array([[[[5.0]]]]))
    array([[[[0., 0., 0.],
             [5., 0., 0.]]]])
    """

    def __init__(
        self,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Size = 0,
        dilation: Size = 1,
        ceil_mode: bool = False,
    ) -> None:
        super().__init__(kernel_size, stride, padding, dilation, ceil_mode)

    def forward(self, x: Array) -> Array:
        x = as_floats(self, x)
        rows, columns = self._axes(x)
        image = _by_rows(x)
        y = _pool(np.maximum, -np.inf, image, rows, columns)
        self.cache(image, y, rows, columns)
        return y.transpose(3, 1, 0, 2)

    def backward(self, grad: Array, input_grad: bool = True) -> Array | None:
        image, y, rows, columns = self.cached()
        grad = as_output_grad(self, grad, y.transpose(3, 1, 0, 2).shape, y.dtype)
        if not input_grad:
            return None
        result = empty(image.shape, image.dtype, True)
        grad = _by_rows(grad)

        def spread(rows: _Axis, inputs: slice, outputs: slice) -> None:
            _spread_to_maxima(
                image[inputs], y[outputs], grad[outputs], result[inputs], rows, columns
            )

        _share_windows(spread, rows, result.nbytes)
        return result.transpose(3, 1, 0, 2)


class AvgPool2d(_Pool2d):
    """The mean of each window of an image.

    Parameters
    ----------
    kernel_size : int or (int, int)
        Height and width of the window; here and below, one int stands for both.
    stride : int or (int, int), optional
        How far the window moves from one output to the next; kernel_size if left out.
    padding : int or (int, int), default 0
        Rows and columns of zeros added at each side of the image, at most half of kernel_size.
    ceil_mode : bool, default False
        Whether the rows and columns that are left at the end, too few for a window, get a smaller
        one. Otherwise they are dropped.
    count_include_pad : bool, default True
        Whether the zeros of the padding count in the mean.

    Raises
    ------
    ValueError
        If the input is not (N, C, H, W), or if no window fits into it.
    TypeError
        If the input is not of floats.

    Notes
    -----
    Shapes: x (N, C, H, W), y (N, C, H', W') with H' and W' as for `Conv2d`, or rounded up in ceil
    mode. Output (i, j) meets, at entry (u, v) of the window, the pixel ``h = i·s + u - p``,
    ``w = j·s + v - p``. With a_ij the number of pixels that count in its mean::

        y[n, c, i, j]     = Σ_uv x[n, c, h, w] / a_ij
        dL/dx[n, c, h, w] = Σ_ij dL/dy[n, c, i, j] / a_ij

    where the last sum goes over the windows that (h, w) lies in.

    References
    ----------
    Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, "Gradient-based learning applied to document
    recognition", Proceedings of the IEEE 86(11), 1998.

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> pool = nn.AvgPool2d(2)
    >>> pool(np.array([[[[1.0, 2.0, 7.0], [4.0, 3.0, 9.0]]]]))
    array([[[[2.5]]]])
    >>> pool.backward(np.array([[[[4.0]]]]))
    array([[[[1., 1., 0.],
             [1., 1., 0.]]]])
    """

    count_include_pad: bool

    def __init__(
        self,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Size = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
    ) -> None:
        super().__init__(kernel_size, stride, padding, 1, ceil_mode)
        self.count_include_pad = bool(count_include_pad)

    def forward(self, x: Array) -> Array:
        x = as_floats(self, x)
        rows, columns = self._axes(x)
        y = _pool(np.add, 0, _by_rows(x), rows, columns)
        areas = np.outer(self._counts(rows), self._counts(columns)).astype(x.dtype)
        areas = areas[:, None, :, None]
        y /= areas
        self.cache(x.shape, areas, rows, columns)
        return y.transpose(3, 1, 0, 2)

    def backward(self, grad: Array, input_grad: bool = True) -> Array | None:
        (batch, channels, height, width), areas, rows, columns = self.cached()
        shape = (batch, channels, rows.outputs, columns.outputs)
        grad = as_output_grad(self, grad, shape, areas.dtype)
        if not input_grad:
            return None
        shares = _by_rows(grad) / areas
        lines = empty((rows.outputs, channels, width, batch), areas.dtype)
        lines.fill(0)
        for outputs, inputs in _by_tap(columns):
            lines[:, :, inputs] += shares[:, :, outputs]
        result = empty((height, channels, width, batch), areas.dtype, True)
        result.fill(0)
        for outputs, inputs in _by_tap(rows):
            result[inputs] += lines[outputs]
        return result.transpose(3, 1, 0, 2)

    def _counts(self, axis: _Axis) -> Array:
        """Return how many positions along the axis count in each window."""
        before, after = (axis.padding, axis.padding) if self.count_include_pad else (0, 0)
        starts = np.arange(axis.outputs) * axis.stride - axis.padding
        ends = np.minimum(starts + axis.taps, axis.inputs + after)
        return ends - np.maximum(starts, -before)


def _suits_winograd(rows: _Axis, columns: _Axis, in_channels: int, batch: int) -> bool:
    """Whether Winograd's algorithm is there for a convolution, and faster."""
    is_dense = all(axis.stride == axis.dilation == 1 for axis in (rows, columns))
    is_large = batch >= _MANY_SAMPLES and columns.taps * in_channels >= _MANY_TERMS
    return rows.taps == 3 and is_dense and is_large


def _convolve(
    image: Array, weight: Array, bias: Array | None, rows: _Axis, columns: _Axis, y: Array
) -> None:
    """Write the convolution of `image` (H, C, W, N) into `y` (H', O, W', N)."""
    out_channels = len(weight)
    lines = y.reshape(rows.outputs, out_channels, -1)
    kernels = weight.transpose(0, 2, 1, 3).reshape(out_channels, -1)

    def convolve(start: int, stop: int) -> None:
        for block, windows in _windows(image, rows, columns, out_channels, start, stop):
            np.matmul(kernels, windows, out=lines[block])
            if bias is not None:
                lines[block] += bias[:, None]

    share(convolve, rows.outputs, y.nbytes, y.size * kernels.shape[1])


def _weight_grad(image: Array, lines: Array, rows: _Axis, columns: _Axis) -> Array:
    """Return dL/dweight, given the lines (H', O, W'·N) of the output gradient."""
    channels, out_channels = image.shape[1], lines.shape[1]
    if _suits_winograd(rows, columns, channels, image.shape[3]):
        kernels = winograd.kernel_gradient(image, lines, _by_tap(columns), rows.padding)
        return kernels.transpose(3, 1, 0, 2)
    shape = rows.taps, channels, columns.taps, out_channels
    terms = math.prod(shape[:3])

    def correlate(start: int, stop: int) -> Array:
        total = np.zeros((terms, out_channels), image.dtype)
        for block, windows in _windows(image, rows, columns, out_channels, start, stop):
            total += np.matmul(windows, lines[block].swapaxes(1, 2)).sum(axis=0)
        return total

    total = share_sum(correlate, rows.outputs, lines.nbytes, lines.size * terms)
    return total.reshape(shape).transpose(3, 1, 0, 2)


def _windows(
    image: Array, rows: _Axis, columns: _Axis, out_channels: int, first_row: int, last_row: int
) -> Iterator[tuple[slice, Array]]:
    """Yield blocks of the output rows and the windows (rows, kH·C·kW, W'·N) that they meet."""
    _, channels, _, batch = image.shape
    line = (channels, columns.taps, columns.outputs, batch)
    if rows.taps == 1 and not rows.is_padded and columns.is_identity:
        pixels = image[:: rows.stride][first_row:last_row]
        yield slice(first_row, last_row), pixels.reshape(len(pixels), channels, -1)
        return
    # A block's lines fit into _BLOCK bytes, and so do its products in the weight gradient.
    room = _BLOCK // image.itemsize
    fitting = (room // math.prod(line) - rows.span) // rows.stride + 1
    fitting = min(fitting, room // (rows.taps * channels * columns.taps * out_channels))
    step = min(last_row - first_row, max(rows.taps, fitting))
    lines = empty(((step - 1) * rows.stride + rows.span, *line), image.dtype)
    if columns.is_padded:
        lines.fill(0)
    for start in range(first_row, last_row, step):
        stop = min(start + step, last_row)
        top = start * rows.stride - rows.padding
        height = (stop - start - 1) * rows.stride + rows.span
        first, end = (min(max(edge - top, 0), height) for edge in (0, rows.inputs))
        lines[:first] = 0
        lines[end:height] = 0
        for tap, (outputs, inputs) in enumerate(_by_tap(columns)):
            lines[first:end, :, tap, outputs] = image[top + first : top + end, :, inputs]
        to_line, _, to_row, _, to_pixel = lines.strides
        windows: Array = np.ndarray(
            (stop - start, rows.taps, channels * columns.taps, columns.outputs * batch),
            image.dtype,
            buffer=lines,
            strides=(rows.stride * to_line, rows.dilation * to_line, to_row, to_pixel),
        )
        if rows.dilation > 1:
            # The lines of a window do not follow each other: this takes a copy.
            copied = empty(windows.shape, image.dtype)
            copied[...] = windows
            windows = copied
        yield slice(start, stop), windows.reshape(stop - start, -1, windows.shape[3])


def _input_grad(
    lines: Array, weight: Array, shape: tuple[int, ...], rows: _Axis, columns: _Axis
) -> Array:
    """Return dL/dx as (H, C, W, N), given the lines (H', O, W'·N) of the output gradient."""
    height, channels, _, batch = shape
    lines = np.ascontiguousarray(lines)
    if _suits_winograd(rows, columns, lines.shape[1], batch):
        # It is a convolution of the output gradient, with the kernels turned by 180°.
        by_pixel = lines.reshape(rows.outputs, -1, columns.outputs, batch).swapaxes(1, 2)
        turned = weight[:, :, ::-1, ::-1].transpose(2, 1, 3, 0)
        padding = 2 - rows.padding, columns.taps - 1 - columns.padding
        grad = empty(shape, lines.dtype, True)
        winograd.convolve(by_pixel, turned, None, padding, grad.swapaxes(1, 2))
        return grad
    # (kW·C, kH, O), with the kernel's rows in reverse order.
    kernels = weight[:, :, ::-1].transpose(3, 1, 2, 0).reshape(-1, rows.taps, lines.shape[1])
    grad = empty(shape, lines.dtype, True)
    line = (columns.taps, channels, columns.outputs, batch)

    def spread(first_row: int, last_row: int) -> None:
        step = min(last_row - first_row, max(1, _BLOCK // (math.prod(line) * grad.itemsize)))
        shifted = empty((step, *line), grad.dtype)
        products = shifted.reshape(step, len(kernels), -1)
        for start in range(first_row, last_row, step):
            stop = min(start + step, last_row)
            for row, (taps, outputs) in enumerate(_by_input(rows)[start:stop]):
                kernel = kernels[:, taps].reshape(len(kernels), -1)
                np.matmul(kernel, lines[outputs].reshape(-1, lines.shape[2]), out=products[row])
            block = grad[start:stop]
            block.fill(0)
            for tap, (outputs, inputs) in enumerate(_by_tap(columns)):
                block[:, :, inputs] += shifted[: len(block), tap, :, outputs]

    share(spread, height, grad.nbytes, lines.size * len(kernels) * rows.taps)
    return grad


def _pool(combine: np.ufunc, neutral: float, image: Array, rows: _Axis, columns: _Axis) -> Array:
    """Combine the pixels of each window, rows first, into an array indexed as (H', C, W', N).

    In memory the channels lie outermost: so `Flatten`, which often follows, has nothing to copy.
    """
    _, channels, width, batch = image.shape
    lines = empty((rows.outputs, channels, width, batch), image.dtype)
    pooled = empty((channels, rows.outputs, columns.outputs, batch), image.dtype, True).swapaxes(
        0, 1
    )

    def pool(rows: _Axis, inputs: slice, outputs: slice) -> None:
        part, line, target = image[inputs], lines[outputs], pooled[outputs]
        _combine(combine, neutral, rows, part, line)
        _combine(combine, neutral, columns, line.swapaxes(0, 2), target.swapaxes(0, 2))

    _share_windows(pool, rows, image.nbytes)
    return pooled


def _combine(combine: np.ufunc, neutral: float, axis: _Axis, source: Array, target: Array) -> None:
    """Combine what the windows along the first axis meet."""
    if axis.is_padded:
        target.fill(neutral)
    for tap, (outputs, inputs) in enumerate(_by_tap(axis)):
        if tap == 0 and not axis.is_padded:
            target[outputs] = source[inputs]
        else:
            combine(target[outputs], source[inputs], out=target[outputs])


def _share_windows(work: Callable[[_Axis, slice, slice], None], rows: _Axis, size: int) -> None:
    """Call ``work(rows, inputs, outputs)`` for parts of the rows, if no two windows share a row."""
    if not rows.is_tiled:
        work(rows, slice(None), slice(None))
        return

    def work_on(start: int, stop: int) -> None:
        count, stride = stop - start, rows.stride
        if count == rows.outputs:
            work(rows, slice(None), slice(None))
            return
        part = rows._replace(inputs=count * stride, outputs=count)
        work(part, slice(start * stride, stop * stride), slice(start, stop))

    share(work_on, rows.outputs, size)


def _spread_to_maxima(
    image: Array, y: Array, grad: Array, result: Array, rows: _Axis, columns: _Axis
) -> None:
    """Write into `result` the gradient of each window at its first maximum, and 0 elsewhere."""
    y, grad = np.ascontiguousarray(y), np.ascontiguousarray(grad)
    pending = np.ones(y.shape, bool)  # the windows whose maximum is still to come
    with_nan = np.isnan(y).any()
    tiled = rows.is_tiled and columns.is_tiled
    if not tiled:
        result.fill(0)
    last = rows.taps * columns.taps - 1
    taps = itertools.product(_by_tap(rows), _by_tap(columns))
    for index, ((i, h), (j, w)) in enumerate(taps):
        if tiled and index == last:
            found = pending  # where it was nowhere else
        else:
            found = image[h, :, w] == y[i, :, j]
            if with_nan:
                found |= np.isnan(image[h, :, w])
            found &= pending[i, :, j]
            pending[i, :, j] ^= found
        if tiled:
            where(found, grad[i, :, j], out=result[h, :, w])
        else:
            result[h, :, w] += where(found, grad[i, :, j])


def _by_rows(x: Array) -> Array:
    """Return x as (H, C, W, N), copied if the batch is not innermost in memory."""
    rows = x.transpose(2, 1, 3, 0)
    return rows if x.strides[0] == x.itemsize or len(x) == 1 else np.ascontiguousarray(rows)


def _at(index: int, size: Size) -> int:
    return size if isinstance(size, int) else size[index]


def _size(value: Size, what: str, minimum: int = 1) -> Size:
    """Return `value`, an int or a pair of ints of at least `minimum`, or raise an error."""
    if isinstance(value, (tuple, list)):
        if len(value) != 2:
            raise ValueError(f"{what} must be an int or a pair (height, width), got {value!r}")
        return integer(value[0], what, minimum), integer(value[1], what, minimum)
    return integer(value, what, minimum)
