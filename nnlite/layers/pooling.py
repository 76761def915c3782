"""Pooling over whole images: what is left is a number for each channel."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..checks import as_floats, as_output_grad
from ..engine.arrays import Array
from ..engine.memory import empty_like
from ..layer import Layer


class _GlobalPool2d(Layer):
    """What the two share: the check of their input."""

    def _images(self, x: Any) -> Array:
        x = as_floats(self, x)
        if x.ndim != 4:
            cure = "; add a batch axis: x[None]" if x.ndim == 3 else ""
            raise ValueError(f"{self}: expected images of shape (N, C, H, W), got {x.shape}{cure}")
        return x


class GlobalAvgPool2d(_GlobalPool2d):
    """The mean of each channel of an image.

    It takes the place of `Flatten` and large `Linear` layers behind convolutions, and lets the
    network take images of any size. In PyTorch it is ``AdaptiveAvgPool2d(1)`` and ``Flatten()``.

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
        x = self._images(x)
        y: Array = x.mean(axis=(2, 3))
        self.cache(x)
        return y

    def backward(self, grad: Array, input_grad: bool = True) -> Array | None:
        (x,) = self.cached()
        grad = as_output_grad(self, grad, x.shape[:2], x.dtype)
        if not input_grad:
            return None
        result = empty_like(x)
        result[...] = (grad / (x.shape[2] * x.shape[3]))[:, :, None, None]
        return result


class GlobalMaxPool2d(_GlobalPool2d):
    """The largest pixel of each channel of an image.

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

    where "first" is meant row by row. NaN counts as larger than every number.

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
        x = self._images(x)
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
