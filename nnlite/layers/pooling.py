"""Pooling: the maximum or the mean over windows, or over a whole image."""

from __future__ import annotations

import functools

import numpy as np

from ..checks import as_output_grad, boolean
from ..engine.arrays import Array
from ..engine.elementwise import full_like
from ..engine.windows import Axis, arrange, pool_max, pool_sum, spread_max, spread_sum
from ..layer import Layer
from .window import Size, Window, as_signals, at, sizes


class _Pool(Window):
    """Base of pooling layers: the checked options."""

    def __init__(
        self,
        kernel_size: Size,
        stride: Size | None,
        padding: Size,
        dilation: Size,
        ceil_mode: bool,
    ) -> None:
        name, rank = type(self).__name__, self.rank
        self.kernel_size = sizes(kernel_size, rank, f"{name}: kernel_size")
        self.stride = None if stride is None else sizes(stride, rank, f"{name}: stride")
        self.padding = sizes(padding, rank, f"{name}: padding", minimum=0)
        self.dilation = sizes(dilation, rank, f"{name}: dilation")
        self.ceil_mode = boolean(ceil_mode, f"{name}: ceil_mode")
        if any(2 * at(i, self.padding) > at(i, self.kernel_size) for i in range(rank)):
            raise ValueError(
                f"{name}: padding must be at most half of kernel_size={self.kernel_size}, "
                f"got {self.padding}"
            )


class _MaxPool(_Pool):
    """Max pooling over any number of axes: see `MaxPool2d`."""

    def __init__(
        self,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Size = 0,
        dilation: Size = 1,
        *,  # PyTorch's fifth position is return_indices
        ceil_mode: bool = False,
    ) -> None:
        super().__init__(kernel_size, stride, padding, dilation, ceil_mode)

    def forward(self, x: Array) -> Array:
        x = arrange(as_signals(self, x, self.rank))
        axes = self.axes(x.shape)
        y = pool_max(x, axes)
        self.cache(x, y, axes)
        return y

    def backward(self, grad: Array, input_grad: bool = True) -> Array | None:
        x, y, axes = self.cached()
        grad = as_output_grad(self, grad, y.shape, y.dtype)
        return spread_max(x, y, grad, axes) if input_grad else None


class MaxPool2d(_MaxPool):
    """Max pooling: the largest pixel in each window of an image.

    Parameters
    ----------
    kernel_size : int or (int, int)
        Height and width of the window. Here and below, one int stands for both.
    stride : int or (int, int), optional
        Distance between the starts of neighbouring windows; kernel_size by default.
    padding : int or (int, int), default 0
        Rows and columns of -∞ added at each side of the image, at most half of kernel_size.
    dilation : int or (int, int), default 1
        Distance between neighbouring pixels of a window.
    ceil_mode : bool, default False
        Whether remaining rows and columns at the end, too few for a full window, get a smaller
        window. By default they are dropped: for example, the last row of an odd height with
        kernel_size 2.

    Raises
    ------
    ValueError
        If the input is not (N, C, H, W), or if no window fits into it.
    TypeError
        If the input is not of floats.

    Notes
    -----
    Shapes: x (N, C, H, W), y (N, C, H', W') with H' and W' as in `Conv2d`, or rounded up in ceil
    mode. For output (i, j), entry (u, v) of the window covers the pixel ``h = i·s + u·d - p``,
    ``w = j·s + v·d - p`` (stride s, padding p, dilation d)::

        y[n, c, i, j]     = max_uv x[n, c, h, w]
        dL/dx[n, c, h, w] = Σ_ij dL/dy[n, c, i, j] [the first maximum of (i, j) is at (h, w)]

    Ties go to the first pixel, row by row. NaN counts as larger than every number.

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

    rank = 2


class MaxPool1d(_MaxPool):
    """Max pooling: the largest step in each window of a sequence.

    Parameters and errors as in `MaxPool2d`, with one axis.

    Notes
    -----
    Shapes: x (N, C, L), y (N, C, L'). With ``l = i·s + u·d - p``::

        y[n, c, i]     = max_u x[n, c, l]
        dL/dx[n, c, l] = Σ_i dL/dy[n, c, i] [the first maximum of i is at l]

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

    rank = 1


class _AvgPool(_Pool):
    """Average pooling over any number of axes: see `AvgPool2d`."""

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
        name = type(self).__name__
        self.count_include_pad = boolean(count_include_pad, f"{name}: count_include_pad")

    def forward(self, x: Array) -> Array:
        x = as_signals(self, x, self.rank)
        axes = self.axes(x.shape)
        counts = functools.reduce(np.multiply.outer, map(self._counts, axes)).astype(x.dtype)
        y = pool_sum(x, axes)
        y /= counts
        self.cache(axes, counts, y.shape)
        return y

    def backward(self, grad: Array, input_grad: bool = True) -> Array | None:
        axes, counts, shape = self.cached()
        grad = as_output_grad(self, grad, shape, counts.dtype)
        return spread_sum(grad / counts, axes) if input_grad else None

    def _counts(self, axis: Axis) -> Array:
        """Return the number of positions along the axis that each window averages."""
        before, after = (axis.padding, axis.padding) if self.count_include_pad else (0, 0)
        starts = np.arange(axis.outputs) * axis.stride - axis.padding
        ends = np.minimum(starts + axis.taps, axis.inputs + after)
        return ends - np.maximum(starts, -before)


class AvgPool2d(_AvgPool):
    """Average pooling: the mean of each window of an image.

    Parameters
    ----------
    kernel_size, stride, ceil_mode
        As in `MaxPool2d`.
    padding : int or (int, int), default 0
        Rows and columns of zeros added at each side of the image, at most half of kernel_size.
    count_include_pad : bool, default True
        Whether the mean includes the zeros of the padding.

    Raises
    ------
    ValueError
        If the input is not (N, C, H, W), or if no window fits into it.
    TypeError
        If the input is not of floats.

    Notes
    -----
    Shapes and indices as in `MaxPool2d`, with dilation 1. a_ij is the number of pixels that the
    mean (i, j) is taken over; the last sum runs over the windows that contain (h, w)::

        y[n, c, i, j]     = Σ_uv x[n, c, h, w] / a_ij
        dL/dx[n, c, h, w] = Σ_ij dL/dy[n, c, i, j] / a_ij

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

    rank = 2


class AvgPool1d(_AvgPool):
    """Average pooling: the mean of each window of a sequence.

    Parameters and errors as in `AvgPool2d`, with one axis.

    Notes
    -----
    Shapes: x (N, C, L), y (N, C, L'). With ``l = i·s + u - p``::

        y[n, c, i]     = Σ_u x[n, c, l] / a_i
        dL/dx[n, c, l] = Σ_i dL/dy[n, c, i] / a_i

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

    rank = 1


class GlobalAvgPool2d(Layer):
    """Global average pooling: the mean of each channel of an image.

    After the convolutions it replaces `Flatten` and a large `Linear` layer, and the network accepts
    images of any size. In PyTorch it is ``AdaptiveAvgPool2d(1)`` and ``Flatten()``.

    Raises
    ------
    ValueError
        If the input is not (N, C, H, W).
    TypeError
        If the input is not of floats.

    Notes
    -----
    Shapes: x (N, C, H, W), y (N, C)::

        y[n, c]           = Σ_hw x[n, c, h, w] / (H·W)
        dL/dx[n, c, h, w] = dL/dy[n, c] / (H·W)

    References
    ----------
    M. Lin, Q. Chen, S. Yan, "Network in network", ICLR 2014.

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> pool = nn.GlobalAvgPool2d()
    >>> pool(np.array([[[[1.0, 2.0], [3.0, 6.0]], [[5.0, 5.0], [5.0, 5.0]]]]))
    array([[3., 5.]])
    >>> pool.backward(np.array([[8.0, 0.0]]))
    array([[[[2., 2.],
             [2., 2.]],
    <BLANKLINE>
            [[0., 0.],
             [0., 0.]]]])
    """

    def forward(self, x: Array) -> Array:
        x = as_signals(self, x, 2)
        self.cache(x)
        y: Array = x.mean(axis=(2, 3))
        return y

    def backward(self, grad: Array, input_grad: bool = True) -> Array | None:
        (x,) = self.cached()
        grad = as_output_grad(self, grad, x.shape[:2], x.dtype)
        if not input_grad:
            return None
        return full_like(x, (grad / (x.shape[2] * x.shape[3]))[:, :, None, None])


class GlobalMaxPool2d(Layer):
    """Global max pooling: the largest pixel of each channel of an image.

    In PyTorch it is ``AdaptiveMaxPool2d(1)`` and ``Flatten()``.

    Raises
    ------
    ValueError
        If the input is not (N, C, H, W).
    TypeError
        If the input is not of floats.

    Notes
    -----
    Shapes: x (N, C, H, W), y (N, C)::

        y[n, c]           = max_hw x[n, c, h, w]
        dL/dx[n, c, h, w] = dL/dy[n, c] [the first maximum of the channel is at (h, w)]

    Ties go to the first pixel, row by row. NaN counts as larger than every number.

    References
    ----------
    M. Oquab, L. Bottou, I. Laptev, J. Sivic, "Is object localization for free?", CVPR 2015.

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> pool = nn.GlobalMaxPool2d()
    >>> pool(np.array([[[[1.0, 2.0], [6.0, 3.0]]]]))
    array([[6.]])
    >>> pool.backward(np.array([[5.0]]))
    array([[[[0., 0.],
             [5., 0.]]]])
    """

    def forward(self, x: Array) -> Array:
        x = as_signals(self, x, 2)
        pixels = x.reshape(*x.shape[:2], -1)
        first = pixels.argmax(axis=2)[:, :, None]
        y: Array = np.take_along_axis(pixels, first, axis=2)[:, :, 0]
        self.cache(x.shape, first, y.dtype)
        return y

    def backward(self, grad: Array, input_grad: bool = True) -> Array | None:
        shape, first, dtype = self.cached()
        grad = as_output_grad(self, grad, shape[:2], dtype)
        if not input_grad:
            return None
        result = np.zeros((*shape[:2], shape[2] * shape[3]), dtype)
        np.put_along_axis(result, first, grad[:, :, None], axis=2)
        return result.reshape(shape)
