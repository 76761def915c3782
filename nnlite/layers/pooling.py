"""Pooling: the maximum or the mean over windows, or over a whole image."""

from __future__ import annotations

import functools
import itertools
import math
from typing import Any, ClassVar

import numpy as np

from ..checks import as_output_grad, boolean, integer
from ..engine.arrays import Array
from ..engine.axis import Axis
from ..engine.elementwise import full_like
from ..engine.windows import (
    arrange,
    places_of_maxima,
    pool_max,
    pool_sum,
    spread_max,
    spread_sum,
)
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

    return_indices: bool

    def __init__(
        self,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Size = 0,
        dilation: Size = 1,
        return_indices: bool = False,
        ceil_mode: bool = False,
    ) -> None:
        super().__init__(kernel_size, stride, padding, dilation, ceil_mode)
        self.return_indices = boolean(return_indices, f"{type(self).__name__}: return_indices")

    def forward(self, x: Array) -> Any:
        x = arrange(as_signals(self, x, self.rank))
        axes = self.axes(x.shape)
        y = pool_max(x, axes)
        self.cache(x, y, axes)
        return (y, places_of_maxima(x, y, axes)) if self.return_indices else y

    def backward(self, grad: Any, input_grad: bool = True) -> Array | None:
        x, y, axes = self.cached()
        if isinstance(grad, tuple):
            grad = grad[0]  # the indices have none
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
    return_indices : bool, default False
        Whether to return also where the maxima are: an integer array of the shape of y, with
        the place ``h·W + w`` of each in its channel. `backward` takes the gradient of y all the
        same.
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
    divisor_override: int | None = None

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
        if self.divisor_override is not None:
            counts[...] = self.divisor_override
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
    divisor_override : int, optional
        Divides the sum of each window, in place of the number of its pixels.

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

    def __init__(
        self,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Size = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ) -> None:
        super().__init__(kernel_size, stride, padding, ceil_mode, count_include_pad)
        if divisor_override is not None:
            self.divisor_override = integer(divisor_override, "AvgPool2d: divisor_override")


class AvgPool1d(_AvgPool):
    """Average pooling: the mean of each window of a sequence.

    Parameters and errors as in `AvgPool2d`, with one axis and without `divisor_override`.

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


class _GlobalAvgPool(Layer):
    """Global average pooling over any number of axes: see `GlobalAvgPool2d`."""

    rank: ClassVar[int]

    def forward(self, x: Array) -> Array:
        x = as_signals(self, x, self.rank)
        self.cache(x)
        y: Array = x.mean(axis=tuple(range(2, x.ndim)))
        return y

    def backward(self, grad: Array, input_grad: bool = True) -> Array | None:
        (x,) = self.cached()
        grad = as_output_grad(self, grad, x.shape[:2], x.dtype)
        if not input_grad:
            return None
        mean = grad / math.prod(x.shape[2:])
        return full_like(x, mean.reshape(*mean.shape, *[1] * self.rank))


class GlobalAvgPool2d(_GlobalAvgPool):
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

    rank = 2


class GlobalAvgPool1d(_GlobalAvgPool):
    """Global average pooling: the mean of each channel of a sequence.

    In PyTorch it is ``AdaptiveAvgPool1d(1)`` and ``Flatten()``. Errors as in `GlobalAvgPool2d`.

    Notes
    -----
    Shapes: x (N, C, L), y (N, C)::

        y[n, c]        = Σ_l x[n, c, l] / L
        dL/dx[n, c, l] = dL/dy[n, c] / L

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> nn.GlobalAvgPool1d()(np.array([[[1.0, 2.0, 6.0]]]))
    array([[3.]])
    """

    rank = 1


class _GlobalMaxPool(Layer):
    """Global max pooling over any number of axes: see `GlobalMaxPool2d`."""

    rank: ClassVar[int]

    def forward(self, x: Array) -> Array:
        x = as_signals(self, x, self.rank)
        places = x.reshape(*x.shape[:2], -1)
        first = places.argmax(axis=2)[:, :, None]
        y: Array = np.take_along_axis(places, first, axis=2)[:, :, 0]
        self.cache(x.shape, first, y.dtype)
        return y

    def backward(self, grad: Array, input_grad: bool = True) -> Array | None:
        shape, first, dtype = self.cached()
        grad = as_output_grad(self, grad, shape[:2], dtype)
        if not input_grad:
            return None
        result = np.zeros((*shape[:2], math.prod(shape[2:])), dtype)
        np.put_along_axis(result, first, grad[:, :, None], axis=2)
        return result.reshape(shape)


class GlobalMaxPool2d(_GlobalMaxPool):
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

    rank = 2


class GlobalMaxPool1d(_GlobalMaxPool):
    """Global max pooling: the largest step of each channel of a sequence.

    In PyTorch it is ``AdaptiveMaxPool1d(1)`` and ``Flatten()``. Errors as in `GlobalMaxPool2d`.

    Notes
    -----
    Shapes: x (N, C, L), y (N, C)::

        y[n, c]        = max_l x[n, c, l]
        dL/dx[n, c, l] = dL/dy[n, c] [the first maximum of the channel is at l]

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> nn.GlobalMaxPool1d()(np.array([[[1.0, 6.0, 2.0]]]))
    array([[6.]])
    """

    rank = 1


class _AdaptivePool(Layer):
    """Base of adaptive pooling: windows that divide each axis into a given number of parts."""

    rank: ClassVar[int]
    output_size: Any

    def __init__(self, output_size: Any) -> None:
        name = type(self).__name__
        what = f"{name}: output_size"
        several = isinstance(output_size, (tuple, list))
        if several and len(output_size) != self.rank:
            raise ValueError(f"{what} must be an int or {self.rank} of them, got {output_size!r}")
        given = output_size if several else (output_size,)
        checked = tuple(None if size is None else integer(size, what) for size in given)
        self.output_size = checked if several else checked[0]

    def windows(self, shape: tuple[int, ...]) -> list[list[slice]]:
        """Return the windows along each axis of an input of this shape."""
        given = self.output_size if isinstance(self.output_size, tuple) else (self.output_size,)
        targets = given * (self.rank // len(given))
        return [
            [slice(part * size // parts, -(-(part + 1) * size // parts)) for part in range(parts)]
            for size, parts in (
                (size, size if target is None else target)
                for size, target in zip(shape[2:], targets, strict=True)
            )
        ]


class _AdaptiveAvgPool(_AdaptivePool):
    """Adaptive average pooling over any number of axes: see `AdaptiveAvgPool2d`."""

    def forward(self, x: Array) -> Array:
        y = x = as_signals(self, x, self.rank)
        windows = self.windows(x.shape)
        for axis, parts in enumerate(windows, start=2):
            moved = np.moveaxis(y, axis, 0)
            y = np.moveaxis(np.stack([moved[part].mean(axis=0) for part in parts]), 0, axis)
        self.cache(x.shape, windows, y.shape, y.dtype)
        return y

    def backward(self, grad: Array, input_grad: bool = True) -> Array | None:
        x_shape, windows, shape, dtype = self.cached()
        grad = as_output_grad(self, grad, shape, dtype)
        if not input_grad:
            return None
        for axis, parts in reversed(list(enumerate(windows, start=2))):
            flow = np.moveaxis(grad, axis, 0)
            dx = np.zeros((x_shape[axis], *flow.shape[1:]), dtype)
            for part, each in zip(parts, flow, strict=True):
                dx[part] += each / (part.stop - part.start)
            grad = np.moveaxis(dx, 0, axis)
        return grad


class AdaptiveAvgPool2d(_AdaptiveAvgPool):
    """Average pooling to a given size, whatever the size of the image.

    Parameters
    ----------
    output_size : int, None or (int or None, int or None)
        Height and width of the output; one int stands for both. None keeps the size of the input.

    Raises
    ------
    ValueError
        If the input is not (N, C, H, W).
    TypeError
        If the input is not of floats.

    Notes
    -----
    Shapes: x (N, C, H, W), y (N, C, H', W'). Window i of H' covers the rows from ``⌊i H / H'⌋`` up
    to, but not including, ``⌈(i + 1) H / H'⌉``; the columns likewise. Windows overlap where the
    sizes do not divide. a_ij is the number of pixels in window (i, j)::

        y[n, c, i, j]     = Σ_hw x[n, c, h, w] / a_ij        over the window
        dL/dx[n, c, h, w] = Σ_ij dL/dy[n, c, i, j] / a_ij    over the windows that contain (h, w)

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> nn.AdaptiveAvgPool2d((1, 2))(np.array([[[[1.0, 2.0, 6.0]]]]))
    array([[[[1.5, 4. ]]]])
    """

    rank = 2


class AdaptiveAvgPool1d(_AdaptiveAvgPool):
    """Average pooling to a given length, whatever the length of the sequence.

    Parameters, formulas and errors as in `AdaptiveAvgPool2d`, with one axis.

    Notes
    -----
    Shapes: x (N, C, L), y (N, C, L').

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> nn.AdaptiveAvgPool1d(2)(np.array([[[1.0, 2.0, 6.0]]]))
    array([[[1.5, 4. ]]])
    """

    rank = 1


class _AdaptiveMaxPool(_AdaptivePool):
    """Adaptive max pooling over any number of axes: see `AdaptiveMaxPool2d`."""

    return_indices: bool

    def __init__(self, output_size: Any, return_indices: bool = False) -> None:
        super().__init__(output_size)
        self.return_indices = boolean(return_indices, f"{type(self).__name__}: return_indices")

    def forward(self, x: Array) -> Any:
        x = as_signals(self, x, self.rank)
        windows = self.windows(x.shape)
        places = np.arange(math.prod(x.shape[2:])).reshape(x.shape[2:])
        first = []
        for window in itertools.product(*windows):
            index = (slice(None), slice(None), *window)
            pixels = x[index].reshape(*x.shape[:2], -1)
            first.append(places[window].reshape(-1)[pixels.argmax(axis=2)])
        indices = np.stack(first, axis=2)
        y: Array = np.take_along_axis(x.reshape(*x.shape[:2], -1), indices, axis=2)
        y = y.reshape(*x.shape[:2], *map(len, windows))
        self.cache(x.shape, indices, y.shape, y.dtype)
        return (y, indices.reshape(y.shape)) if self.return_indices else y

    def backward(self, grad: Any, input_grad: bool = True) -> Array | None:
        x_shape, indices, shape, dtype = self.cached()
        if isinstance(grad, tuple):
            grad = grad[0]  # the indices have none
        grad = as_output_grad(self, grad, shape, dtype).reshape(indices.shape)
        if not input_grad:
            return None
        dx = np.zeros((*x_shape[:2], math.prod(x_shape[2:])), dtype)
        for window in range(indices.shape[2]):  # one by one: two may have the same maximum
            place = indices[:, :, window, None]
            total = np.take_along_axis(dx, place, axis=2) + grad[:, :, window, None]
            np.put_along_axis(dx, place, total, axis=2)
        return dx.reshape(x_shape)


class AdaptiveMaxPool2d(_AdaptiveMaxPool):
    """Max pooling to a given size, whatever the size of the image.

    Parameters
    ----------
    output_size : int, None or (int or None, int or None)
        Height and width of the output; one int stands for both. None keeps the size of the input.
    return_indices : bool, default False
        Whether to return also where the maxima are, as in `MaxPool2d`.

    Raises
    ------
    ValueError
        If the input is not (N, C, H, W).
    TypeError
        If the input is not of floats.

    Notes
    -----
    Shapes: x (N, C, H, W), y (N, C, H', W'). The windows are those of `AdaptiveAvgPool2d`::

        y[n, c, i, j]     = max_hw x[n, c, h, w]             over the window
        dL/dx[n, c, h, w] = Σ_ij dL/dy[n, c, i, j] [the first maximum of (i, j) is at (h, w)]

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> nn.AdaptiveMaxPool2d((1, 2))(np.array([[[[1.0, 2.0, 6.0]]]]))
    array([[[[2., 6.]]]])
    """

    rank = 2


class AdaptiveMaxPool1d(_AdaptiveMaxPool):
    """Max pooling to a given length, whatever the length of the sequence.

    Parameters, formulas and errors as in `AdaptiveMaxPool2d`, with one axis.

    Notes
    -----
    Shapes: x (N, C, L), y (N, C, L').

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> nn.AdaptiveMaxPool1d(2)(np.array([[[1.0, 2.0, 6.0]]]))
    array([[[2., 6.]]])
    """

    rank = 1
