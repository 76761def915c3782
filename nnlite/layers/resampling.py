"""Enlarging images and sequences: ``Upsample`` and ``PixelShuffle``."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..checks import as_floats, as_output_grad, boolean, integer, one_of, positive
from ..engine.arrays import Array
from ..engine.gather import gather, scatter
from ..layer import Layer
from .window import as_signals

# The number of axes after the channels that a mode is for.
_RANKS = {"nearest": (1, 2), "linear": (1,), "bilinear": (2,)}


class Upsample(Layer):
    """Enlarge images or sequences by repeating or interpolating their values.

    Parameters
    ----------
    size : int or (int, int), optional
        The size of the output: the length, or height and width. One int stands for both.
    scale_factor : float or (float, float), optional
        The size of the output divided by that of the input, rounded down. Either `size` or
        `scale_factor` is given.
    mode : {"nearest", "linear", "bilinear"}, default "nearest"
        "nearest" repeats values; "linear" interpolates sequences and "bilinear" images.
    align_corners : bool, optional
        Whether interpolation maps the centres of the corner pixels to each other. By default it
        maps their outer edges to each other.

    Raises
    ------
    ValueError
        If not one of `size` and `scale_factor` is given, if `align_corners` is given for "nearest",
        if the input has other axes than the mode is for, or if the output would have no values.

    Notes
    -----
    Shapes: x (N, C, L) or (N, C, H, W), y with other sizes of the last axes. Along each axis,
    output i lies at the input position p(i), for sizes n and m of input and output::

        nearest                 p(i) = ⌊i n / m⌋
        align_corners=False     p(i) = max((i + 1/2) n / m - 1/2, 0)
        align_corners=True      p(i) = i (n - 1) / (m - 1)

    With a scale factor f, n / m is 1 / f. Interpolation mixes the values at ``k = ⌊p⌋`` and k + 1
    (or k at the end) with ``t = p - k``; a value gets the gradient of its outputs in the same
    proportion::

        y_i = (1 - t_i) x_k + t_i x_(k+1)

        dL/dx_j = Σ_i dL/dy_i ((1 - t_i) [k_i = j] + t_i [k_i + 1 = j])

    Images are interpolated along the columns, then along the rows.

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> x = np.array([[[[1.0, 3.0]]]])
    >>> nn.Upsample(scale_factor=2)(x)
    array([[[[1., 1., 3., 3.],
             [1., 1., 3., 3.]]]])
    >>> nn.Upsample(scale_factor=(1, 2), mode="bilinear")(x)
    array([[[[1. , 1.5, 2.5, 3. ]]]])
    >>> nn.Upsample((1, 3), mode="bilinear", align_corners=True)(x)
    array([[[[1., 2., 3.]]]])
    """

    size: int | tuple[int, ...] | None
    scale_factor: float | tuple[float, ...] | None
    mode: str
    align_corners: bool | None

    def __init__(
        self,
        size: int | tuple[int, ...] | None = None,
        scale_factor: float | tuple[float, ...] | None = None,
        mode: str = "nearest",
        align_corners: bool | None = None,
    ) -> None:
        if (size is None) == (scale_factor is None):
            raise ValueError("Upsample: give either size or scale_factor")
        self.size = None if size is None else _each(size, integer, "size")
        self.scale_factor = None
        if scale_factor is not None:
            self.scale_factor = _each(scale_factor, positive, "scale_factor")
        self.mode = one_of(mode, tuple(_RANKS), "Upsample: mode")
        self.align_corners = align_corners
        if align_corners is not None:
            self.align_corners = boolean(align_corners, "Upsample: align_corners")
            if mode == "nearest":
                raise ValueError("Upsample: align_corners is for the modes that interpolate")

    def forward(self, x: Array) -> Array:
        x = as_floats(self, x)
        ranks = _RANKS[self.mode]
        x = as_signals(self, x, x.ndim - 2 if x.ndim - 2 in ranks else ranks[-1])
        y, steps = x, []
        for axis in reversed(range(2, x.ndim)):
            step = axis, y.shape[axis], *self.positions(axis - 2, x.ndim - 2, y.shape[axis])
            y = _interpolated(y, *step)
            steps.append(step)
        self.cache(steps, y.shape, y.dtype)
        return y

    def backward(self, grad: Array, input_grad: bool = True) -> Array | None:
        steps, shape, dtype = self.cached()
        grad = as_output_grad(self, grad, shape, dtype)
        if not input_grad:
            return None
        for step in reversed(steps):
            grad = _spread(grad, *step)
        return grad

    def positions(self, index: int, rank: int, inputs: int) -> tuple[Array, Array | None]:
        """Return k and t for each output along axis `index` of `rank`; t is None for "nearest"."""
        given: Any = self.size if self.scale_factor is None else self.scale_factor
        if isinstance(given, tuple) and len(given) != rank:
            raise ValueError(f"{self.label}: expected input with {len(given)} axes of positions")
        option = given[index] if isinstance(given, tuple) else given
        outputs = option if self.scale_factor is None else math.floor(inputs * option)
        if outputs < 1:
            raise ValueError(f"{self.label}: nothing is left of an axis of size {inputs}")
        ratio = inputs / outputs if self.scale_factor is None else 1 / option
        places = np.arange(outputs)
        if self.mode == "nearest":
            # In float32, as PyTorch computes it, which decides where the product is an integer.
            nearest = np.floor(places.astype(np.float32) * np.float32(ratio)).astype(np.intp)
            return nearest.clip(max=inputs - 1), None
        if self.align_corners:
            positions = places * ((inputs - 1) / max(1, outputs - 1))
        else:
            positions = ((places + 0.5) * ratio - 0.5).clip(min=0)
        k = positions.astype(np.intp).clip(max=inputs - 1)
        return k, positions - k


def _interpolated(x: Array, axis: int, inputs: int, k: Array, t: Array | None) -> Array:
    """Return (1 - t) x_k + t x_(k+1) along the axis."""
    y = gather(x, axis, k)
    if t is not None:
        t = _along(t, axis, x)
        y *= 1 - t
        following = gather(x, axis, (k + 1).clip(max=inputs - 1))
        following *= t
        y += following
    return y


def _spread(grad: Array, axis: int, inputs: int, k: Array, t: Array | None) -> Array:
    """Return the gradient of x in `_interpolated`."""
    if t is None:
        return scatter(grad, axis, k, inputs)
    t = _along(t, axis, grad)
    dx = scatter(grad * (1 - t), axis, k, inputs)
    dx += scatter(grad * t, axis, (k + 1).clip(max=inputs - 1), inputs)
    return dx


def _along(t: Array, axis: int, x: Array) -> Array:
    """Return t in the dtype of x, to be broadcast along the axis."""
    return t.astype(x.dtype).reshape(-1, *[1] * (x.ndim - 1 - axis))


def _each(value: Any, check: Any, name: str) -> Any:
    """Check one number or several."""
    what = f"Upsample: {name}"
    if isinstance(value, (tuple, list)):
        return tuple(check(each, what) for each in value)
    return check(value, what)


class PixelShuffle(Layer):
    """Rearrange channels into pixels: (N, C·r², H, W) becomes (N, C, H·r, W·r).

    Parameters
    ----------
    upscale_factor : int
        The factor r by which height and width grow.

    Raises
    ------
    ValueError
        If the input is not of images whose number of channels is a multiple of r².

    Notes
    -----
    After a convolution it enlarges an image as a transposed convolution does, without the uneven
    overlap of its kernels. The values stay the same, so `backward` puts each gradient back::

        y[n, c, h·r + i, w·r + j] = x[n, c·r² + i·r + j, h, w]

    References
    ----------
    W. Shi et al., "Real-time single image and video super-resolution using an efficient sub-pixel
    convolutional neural network", CVPR 2016.

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> nn.PixelShuffle(2)(np.array([[[[1.0]], [[2.0]], [[3.0]], [[4.0]]]]))
    array([[[[1., 2.],
             [3., 4.]]]])
    """

    upscale_factor: int

    def __init__(self, upscale_factor: int) -> None:
        self.upscale_factor = integer(upscale_factor, "PixelShuffle: upscale_factor")

    def forward(self, x: Array) -> Array:
        x, r = as_signals(self, x, 2), self.upscale_factor
        n, channels, h, w = x.shape
        if channels % r**2:
            raise ValueError(
                f"{self}: expected a multiple of {r**2} channels, got input of shape {x.shape}"
            )
        self.cache(x.shape, x.dtype)
        parts = x.reshape(n, -1, r, r, h, w)
        return parts.transpose(0, 1, 4, 2, 5, 3).reshape(n, -1, h * r, w * r)

    def backward(self, grad: Array, input_grad: bool = True) -> Array | None:
        (n, channels, h, w), dtype = self.cached()
        r = self.upscale_factor
        grad = as_output_grad(self, grad, (n, channels // r**2, h * r, w * r), dtype)
        if not input_grad:
            return None
        parts = grad.reshape(n, -1, h, r, w, r)
        return parts.transpose(0, 1, 3, 5, 2, 4).reshape(n, channels, h, w)
