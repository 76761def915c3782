"""Augmentation: random small changes of images, so that a network never sees the same image twice.

Each pixel of the new image is interpolated between the four pixels around its origin in the old
one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..checks import number, positive
from ..engine.arrays import FLOATS, Array
from ..random import RandomState, generator

# Pixels in one block, whose intermediate results fit into the processor's cache.
_PIXELS = 12_000


class RandomAffine:
    """Rotate, shift and scale each image of a batch at random, each differently.

    Pass it as the ``transform`` of a `DataLoader`, which calls it with each batch.

    Parameters
    ----------
    degrees : float, default 0
        Maximum rotation. The angle is uniform on ±degrees.
    shift : float, default 0
        Maximum shift along each axis in pixels, uniform on ±shift. Fractions of pixels occur.
    scale : tuple of two floats, optional
        Smallest and largest scale factor; the factor is uniform between them.
    fill : float, default 0
        Value outside the image. The value of black, also after normalisation, is
        ``images.min()``.
    rng : int, numpy.random.Generator or None
        Source of the random maps. The ``state_dict`` of a `DataLoader` includes the state of this
        generator, and every checkpoint that of the package's.

    Raises
    ------
    ValueError, TypeError
        If an argument is out of range. In a call, if the first array is not of floats or not of
        shape (N, C, H, W).

    See Also
    --------
    DataLoader : Calls it, as its ``transform``.

    Notes
    -----
    The scale s, rotation R and shift t move the pixel at p, relative to the centre of the image, to
    ``s R p + t``. So the new pixel at q is the value of the old image at ``R⁻¹ (q - t) / s``, by
    bilinear interpolation between the four pixels there. Beyond the border the image fades into
    `fill` within one pixel. Positive angles rotate to the left.

    The arguments have the names of torchvision's RandomAffine, except for `shift`: its
    ``translate`` is a fraction of the image's size.

    References
    ----------
    P. Simard, D. Steinkraus, J. Platt, "Best practices for convolutional neural networks applied to
    visual document analysis", ICDAR 2003.

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> (images, labels), _ = nn.datasets.mnist()
    >>> transform = nn.RandomAffine(degrees=10, shift=2, fill=images.min(), rng=0)
    >>> loader = nn.DataLoader(images, labels, batch_size=64, shuffle=True, transform=transform)
    >>> batch, classes = next(iter(loader))
    >>> batch.shape, batch.dtype
    ((64, 1, 28, 28), dtype('float32'))
    """

    degrees: float
    shift: float
    scale: tuple[float, float] | None
    fill: float
    rng: np.random.Generator | None

    def __init__(
        self,
        degrees: float = 0.0,
        shift: float = 0.0,
        scale: tuple[float, float] | None = None,
        fill: float = 0.0,
        rng: RandomState = None,
    ) -> None:
        self.degrees = number(degrees, "RandomAffine: degrees", minimum=0)
        self.shift = number(shift, "RandomAffine: shift", minimum=0)
        self.scale = None if scale is None else _interval(scale)
        self.fill = number(fill, "RandomAffine: fill")
        # None is kept, so that nn.seed() also affects a transform that was made before it.
        self.rng = None if rng is None else generator(rng)

    def __call__(self, images: ArrayLike, *others: Any) -> Any:
        """Return the images, each with a random map of its own, and the other arguments unchanged.

        Parameters
        ----------
        images : array_like of floats, shape (N, C, H, W)
        *others
            Other arrays of the batch, such as labels. If there are any, a tuple is returned.

        Returns
        -------
        ndarray of the shape and dtype of `images`, or tuple of it and `others`
        """
        array = _as_images(images)
        angles, *shifts, sizes = generator(self.rng).uniform(-1, 1, (4, len(array)))
        lowest, highest = self.scale or (1.0, 1.0)
        moved = affine(
            array,
            self.degrees * angles,
            self.shift * np.stack(shifts, axis=1),
            (highest + lowest) / 2 + (highest - lowest) / 2 * sizes,
            self.fill,
        )
        return (moved, *others) if others else moved

    def __repr__(self) -> str:
        options = {"degrees": self.degrees, "shift": self.shift, "scale": self.scale}
        given = [f"{name}={value!r}" for name, value in options.items() if value]
        if self.fill:
            given.append(f"fill={self.fill:g}")
        return f"RandomAffine({', '.join(given)})"


def affine(
    images: Array, degrees: ArrayLike, shifts: ArrayLike, scales: ArrayLike = 1.0, fill: float = 0.0
) -> Array:
    """Return images of shape (N, C, H, W) rotated, shifted and scaled as in `RandomAffine`.

    Parameters
    ----------
    images : ndarray of floats, shape (N, C, H, W)
    degrees : array_like of shape (N,) or ()
        Angles; positive angles rotate to the left.
    shifts : array_like of shape (N, 2) or (2,)
        Shifts down and to the right, in pixels.
    scales : array_like of shape (N,) or ()
    fill : float
    """
    count, channels, height, width = images.shape
    radians = np.broadcast_to(np.deg2rad(np.asarray(degrees, np.float64)), count)
    shifts = np.broadcast_to(np.asarray(shifts, np.float64), (count, 2))
    cosine, sine = np.cos(radians) / scales, np.sin(radians) / scales
    # The row and the column of each pixel's origin are sums of a term that depends only on its row
    # and one that depends only on its column. Rows count downwards; 1 is for the border.
    y = np.arange(height) - (height - 1) / 2 - shifts[:, :1]
    x = np.arange(width) - (width - 1) / 2 - shifts[:, 1:]
    cosine, sine = cosine[:, np.newaxis], sine[:, np.newaxis]
    rows = cosine * y + (height + 1) / 2, sine * x
    columns = cosine * x + (width + 1) / 2, -sine * y

    moved = np.empty(images.shape, images.dtype)
    size = max(1, _PIXELS // (channels * height * width))
    for start in range(0, count, size):
        part = slice(start, start + size)
        _look_up(
            images[part],
            _outer_sum(rows[0][part], rows[1][part], height, images.dtype),
            _outer_sum(columns[1][part], columns[0][part], width, images.dtype),
            fill,
            moved[part],
        )
    return moved


def _outer_sum(of_rows: Array, of_columns: Array, length: int, dtype: np.dtype[Any]) -> Array:
    """Return positions (N, H, W) along one axis of the image with its border."""
    places = of_rows.astype(dtype)[:, :, np.newaxis] + of_columns.astype(dtype)[:, np.newaxis]
    return np.clip(places, 0, length + 1, out=places)


def _look_up(images: Array, rows: Array, columns: Array, fill: float, out: Array) -> None:
    """Write the bilinear interpolation at the positions into `out`; they are overwritten."""
    count, channels, height, width = images.shape
    # One pixel on each side for the fade, and one more at the end, where interpolation at the last
    # pixel reads the next one.
    bordered = np.full((count, channels, height + 3, width + 3), fill, images.dtype)
    bordered[:, :, 1:-2, 1:-2] = images
    stride = width + 3
    upper, left = np.floor(rows), np.floor(columns)
    rows -= upper
    columns -= left
    index = upper.astype(np.intp)
    index *= stride
    index += left.astype(np.intp)
    planes = np.arange(count * channels).reshape(count, channels, 1, 1) * ((height + 3) * stride)
    corners = index[:, np.newaxis] + planes
    down, right = rows[:, np.newaxis], columns[:, np.newaxis]
    pixels = bordered.reshape(-1)
    # All positions are inside. mode="clip" only saves `take` a check of each index.
    top, top_right, bottom, bottom_right = (
        pixels[offset:].take(corners, mode="clip") for offset in (0, 1, stride, stride + 1)
    )
    for near, far in ((top, top_right), (bottom, bottom_right)):
        far -= near
        far *= right
        near += far
    bottom -= top
    bottom *= down
    np.add(top, bottom, out=out)


def _as_images(images: ArrayLike) -> Array:
    array = np.asarray(images)
    if array.ndim != 4 or not array.size:
        raise ValueError(
            f"RandomAffine: expected images of shape (N, C, H, W) with at least one pixel, "
            f"got shape {array.shape}; add an axis where there is but one channel"
        )
    if array.dtype not in FLOATS:
        raise TypeError(
            f"RandomAffine: expected images of float32 or float64, got {array.dtype}; "
            f"convert them with .astype(numpy.float32)"
        )
    return array


def _interval(scale: Any) -> tuple[float, float]:
    if not isinstance(scale, (tuple, list)) or len(scale) != 2:
        raise TypeError(
            f"RandomAffine: scale must be a pair of factors such as (0.9, 1.1), got {scale!r}"
        )
    lowest, highest = (positive(factor, "RandomAffine: a factor of scale") for factor in scale)
    if lowest > highest:
        raise ValueError(
            f"RandomAffine: the first factor of scale must be the smaller one, got {scale!r}"
        )
    return lowest, highest
