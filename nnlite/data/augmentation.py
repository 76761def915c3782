"""Augmentation: random small changes of images, so that a network never sees the same image twice.

Each class works on whole batches, as the ``transform`` of a `DataLoader`, alone or in a `Compose`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import ArrayLike

from ..checks import integer, number, positive
from ..engine.arrays import FLOATS, Array
from ..random import RandomState, generator

# Pixels in one block, whose intermediate results fit into the processor's cache.
_PIXELS = 12_000


class Compose:
    """Apply several transforms in order.

    Parameters
    ----------
    transforms : sequence of callable
        Each is called with the arrays of a batch and returns the changed arrays.

    Raises
    ------
    TypeError
        If a transform is not callable.

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> transform = nn.Compose([nn.RandomCrop(28, padding=4), nn.RandomHorizontalFlip()])
    >>> images, labels = np.zeros((10, 3, 28, 28), np.float32), np.arange(10)
    >>> loader = nn.DataLoader(images, labels, batch_size=5, transform=transform)
    >>> [batch.shape for batch, _ in loader]
    [(5, 3, 28, 28), (5, 3, 28, 28)]
    """

    transforms: tuple[Callable[..., Any], ...]

    def __init__(self, transforms: Iterable[Callable[..., Any]]) -> None:
        self.transforms = tuple(transforms)
        for transform in self.transforms:
            if not callable(transform):
                raise TypeError(f"Compose: a transform must be callable, got {transform!r:.80}")

    def __call__(self, *arrays: Any) -> Any:
        """Return the result of the last transform."""
        batch = arrays
        for transform in self.transforms:
            given = transform(*batch)
            batch = given if isinstance(given, tuple) else (given,)
        return batch if len(batch) > 1 else batch[0]

    def __repr__(self) -> str:
        return f"Compose({list(self.transforms)!r})"


class _ImageTransform:
    """Base of transforms of the images of a batch, which leave labels unchanged.

    A subclass defines `change`, which must not write into its argument.
    """

    rng: np.random.Generator | None

    def __init__(self, rng: RandomState) -> None:
        # None is kept, so that nn.seed() also affects a transform that was made before it.
        self.rng = None if rng is None else generator(rng)

    def change(self, images: Array, rng: np.random.Generator) -> Array:
        """Return the images (N, C, H, W), each changed at random."""
        raise NotImplementedError(f"{type(self).__name__} does not define change")

    def __call__(self, images: ArrayLike, *others: Any) -> Any:
        """Return the images, each changed at random, and the other arguments unchanged.

        Parameters
        ----------
        images : array_like of floats, shape (N, C, H, W)
        *others
            Other arrays of the batch, such as labels. If there are any, a tuple is returned.

        Returns
        -------
        ndarray of the dtype of `images`, or tuple of it and `others`
        """
        changed = self.change(_as_images(images, type(self).__name__), generator(self.rng))
        return (changed, *others) if others else changed


class RandomHorizontalFlip(_ImageTransform):
    """Flip each image of a batch horizontally with probability `p`.

    Parameters
    ----------
    p : float, default 0.5
        Probability that an image is flipped.
    rng : int, numpy.random.Generator or None
        Source of the random numbers. The ``state_dict`` of a `DataLoader` includes the state of
        this generator, and every checkpoint that of the package's.

    Raises
    ------
    ValueError, TypeError
        If `p` is not a probability. In a call, if the first array is not of floats or not of shape
        (N, C, H, W).

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> nn.RandomHorizontalFlip(p=1)(np.array([[[[1.0, 2.0, 3.0]]]]))
    array([[[[3., 2., 1.]]]])
    """

    p: float

    def __init__(self, p: float = 0.5, rng: RandomState = None) -> None:
        self.p = number(p, "RandomHorizontalFlip: p", 0, 1)
        super().__init__(rng)

    def change(self, images: Array, rng: np.random.Generator) -> Array:
        """Return the images, some of them mirrored."""
        flipped = rng.random((len(images), 1, 1, 1)) < self.p
        return np.where(flipped, images[..., ::-1], images)

    def __repr__(self) -> str:
        return f"RandomHorizontalFlip(p={self.p:g})"


class RandomCrop(_ImageTransform):
    """Crop each image of a batch to a window at a random position.

    Usually `size` is the size of the images, and the crop shifts them by up to `padding` pixels.

    Parameters
    ----------
    size : int or tuple of int
        Height and width of the window. One int stands for both.
    padding : int, default 0
        Number of pixels added on all four sides before the crop.
    fill : float, default 0
        Value of these pixels. The value of black, also after normalisation, is ``images.min()``.
    rng : int, numpy.random.Generator or None
        As in `RandomHorizontalFlip`.

    Raises
    ------
    ValueError, TypeError
        If an argument is out of range. In a call, if the window is larger than the padded images,
        or the first array is not of floats or not of shape (N, C, H, W).

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> nn.RandomCrop(24)(np.zeros((16, 1, 28, 28))).shape
    (16, 1, 24, 24)
    """

    size: tuple[int, int]
    padding: int
    fill: float

    def __init__(
        self,
        size: int | tuple[int, int],
        padding: int = 0,
        fill: float = 0.0,
        rng: RandomState = None,
    ) -> None:
        sides = size if isinstance(size, (tuple, list)) else (size, size)
        if len(sides) != 2:
            raise TypeError(f"RandomCrop: size must be an int or a pair of them, got {size!r}")
        height, width = (integer(side, "RandomCrop: size") for side in sides)
        self.size = height, width
        self.padding = integer(padding, "RandomCrop: padding", 0)
        self.fill = number(fill, "RandomCrop: fill")
        super().__init__(rng)

    def change(self, images: Array, rng: np.random.Generator) -> Array:
        """Return a window of each image."""
        margin = (self.padding, self.padding)
        padded = np.pad(images, ((0, 0), (0, 0), margin, margin), constant_values=self.fill)
        if any(side > room for side, room in zip(self.size, padded.shape[2:], strict=True)):
            raise ValueError(
                f"RandomCrop: expected images of at least {self.size} with the padding of "
                f"{self.padding}, got shape {images.shape}; use a smaller size or more padding"
            )
        windows = sliding_window_view(padded, self.size, axis=(2, 3))
        count, _, rows, columns = windows.shape[:4]
        tops, lefts = rng.integers(0, rows, count), rng.integers(0, columns, count)
        return windows[np.arange(count), :, tops, lefts]

    def __repr__(self) -> str:
        fill = f", fill={self.fill:g}" if self.fill else ""
        return f"RandomCrop(size={self.size}, padding={self.padding}{fill})"


class RandomErasing(_ImageTransform):
    """Overwrite a random rectangle in each image of a batch with probability `p`.

    Parameters
    ----------
    p : float, default 0.5
        Probability that an image is changed.
    scale : tuple of two floats
        Minimum and maximum area of the rectangle, as fractions of the image.
    ratio : tuple of two floats
        Minimum and maximum ratio of its height to its width.
    value : float, default 0
        Value of the pixels in the rectangle.
    rng : int, numpy.random.Generator or None
        As in `RandomHorizontalFlip`.

    Raises
    ------
    ValueError, TypeError
        If an argument is out of range. In a call, if the first array is not of floats or not of
        shape (N, C, H, W).

    Notes
    -----
    The area is uniform between its limits, and the ratio is log-uniform. A side longer than the
    image is cut to its length. All channels of an image are erased at the same position.

    References
    ----------
    Z. Zhong, L. Zheng, G. Kang, S. Li, Y. Yang, "Random erasing data augmentation", AAAI 2020.

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> erase = nn.RandomErasing(p=1, scale=(0.25, 0.25), ratio=(1, 1), rng=0)
    >>> erase(np.ones((1, 1, 4, 4)))[0, 0]
    array([[0., 0., 1., 1.],
           [0., 0., 1., 1.],
           [1., 1., 1., 1.],
           [1., 1., 1., 1.]])
    """

    p: float
    scale: tuple[float, float]
    ratio: tuple[float, float]
    value: float

    def __init__(
        self,
        p: float = 0.5,
        scale: tuple[float, float] = (0.02, 0.33),
        ratio: tuple[float, float] = (0.3, 3.3),
        value: float = 0.0,
        rng: RandomState = None,
    ) -> None:
        self.p = number(p, "RandomErasing: p", 0, 1)
        self.scale = _interval(scale, "RandomErasing: scale")
        if self.scale[1] > 1:
            raise ValueError(f"RandomErasing: scale must be at most 1, got {scale!r}")
        self.ratio = _interval(ratio, "RandomErasing: ratio")
        self.value = number(value, "RandomErasing: value")
        super().__init__(rng)

    def change(self, images: Array, rng: np.random.Generator) -> Array:
        """Return the images, some of them with an erased rectangle."""
        count, _, height, width = images.shape
        area = rng.uniform(*self.scale, count) * height * width
        lowest, highest = np.log(self.ratio)
        ratio = np.exp(rng.uniform(lowest, highest, count))
        rows = self._span(np.sqrt(area * ratio), height, rng)
        columns = self._span(np.sqrt(area / ratio), width, rng)
        erased = rng.random((count, 1, 1, 1)) < self.p
        inside = rows[:, np.newaxis, :, np.newaxis] & columns[:, np.newaxis, np.newaxis, :]
        return np.where(inside & erased, images.dtype.type(self.value), images)

    @staticmethod
    def _span(lengths: Array, side: int, rng: np.random.Generator) -> Array:
        """Return a mask (N, side), True in an interval at a random position."""
        rounded = np.clip(np.rint(lengths), 1, side).astype(int)
        first = rng.integers(0, side - rounded + 1)[:, np.newaxis]
        pixels = np.arange(side)
        return (first <= pixels) & (pixels < first + rounded[:, np.newaxis])

    def __repr__(self) -> str:
        return (
            f"RandomErasing(p={self.p:g}, scale={self.scale}, ratio={self.ratio}, "
            f"value={self.value:g})"
        )


class GaussianNoise(_ImageTransform):
    """Add Gaussian noise to each pixel of a batch.

    Parameters
    ----------
    mean : float, default 0
    sigma : float, default 0.1
        Mean and standard deviation of the noise, in units of the pixel values.
    rng : int, numpy.random.Generator or None
        As in `RandomHorizontalFlip`.

    Raises
    ------
    ValueError, TypeError
        If an argument is out of range. In a call, if the first array is not of floats or not of
        shape (N, C, H, W).

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> noisy = nn.GaussianNoise(sigma=0.5, rng=0)(np.zeros((8, 1, 28, 28), np.float32))
    >>> noisy.dtype, round(float(noisy.std()), 1)
    (dtype('float32'), 0.5)
    """

    mean: float
    sigma: float

    def __init__(self, mean: float = 0.0, sigma: float = 0.1, rng: RandomState = None) -> None:
        self.mean = number(mean, "GaussianNoise: mean")
        self.sigma = number(sigma, "GaussianNoise: sigma", 0)
        super().__init__(rng)

    def change(self, images: Array, rng: np.random.Generator) -> Array:
        """Return the images with noise added."""
        noise = rng.standard_normal(images.shape, images.dtype)
        noise *= self.sigma
        noise += self.mean
        noise += images
        return noise

    def __repr__(self) -> str:
        return f"GaussianNoise(mean={self.mean:g}, sigma={self.sigma:g})"


class MixUp:
    """Mix each sample of a batch with another one, and their labels with the same weights.

    The labels become class probabilities, which `CrossEntropy` accepts.

    Parameters
    ----------
    num_classes : int
        Number of classes.
    alpha : float, default 1
        Parameter of the beta distribution of the mixing weight. Small values hardly change the
        samples; with 1 the weight is uniform on [0, 1].
    rng : int, numpy.random.Generator or None
        As in `RandomHorizontalFlip`.

    Raises
    ------
    ValueError, TypeError
        If an argument is out of range. In a call, if the inputs are not floats or the labels are
        neither class indices of shape (N,) nor probabilities of shape (N, num_classes).

    Notes
    -----
    Each batch draws one λ from Beta(alpha, alpha) and one random permutation π of its samples::

        x'_n = λ x_n + (1 - λ) x_π(n)
        y'_n = λ y_n + (1 - λ) y_π(n)       y: one-hot, or probabilities

    References
    ----------
    H. Zhang, M. Cisse, Y. N. Dauphin, D. Lopez-Paz, "mixup: Beyond empirical risk minimization",
    ICLR 2018.

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> mixed, targets = nn.MixUp(3, rng=0)(np.array([[1.0], [2.0]]), np.array([0, 2]))
    >>> targets.sum(axis=1)
    array([1., 1.])
    >>> nn.CrossEntropy()(np.zeros((2, 3)), targets) == float(np.log(3))
    True
    """

    num_classes: int
    alpha: float
    rng: np.random.Generator | None

    def __init__(self, num_classes: int, alpha: float = 1.0, rng: RandomState = None) -> None:
        self.num_classes = integer(num_classes, "MixUp: num_classes", 2)
        self.alpha = positive(alpha, "MixUp: alpha")
        self.rng = None if rng is None else generator(rng)

    def __call__(self, inputs: ArrayLike, labels: ArrayLike) -> tuple[Array, Array]:
        """Return the mixed samples and targets.

        Parameters
        ----------
        inputs : array_like of floats, shape (N, ...)
        labels : array_like of int, shape (N,), or of floats, shape (N, num_classes)

        Returns
        -------
        inputs : ndarray of the shape and dtype of `inputs`
        targets : ndarray of that dtype, shape (N, num_classes)
        """
        x, y = _as_float_array(inputs, "MixUp"), np.asarray(labels)
        if y.dtype.kind in "iu" and y.shape == x.shape[:1]:
            if y.size and not 0 <= y.min() <= y.max() < self.num_classes:
                raise ValueError(
                    f"MixUp: labels must be in [0, {self.num_classes}), got {y.min()} to {y.max()}"
                )
            y = np.eye(self.num_classes, dtype=x.dtype)[y]
        elif y.dtype.kind != "f" or y.shape != (*x.shape[:1], self.num_classes):
            raise ValueError(
                f"MixUp: expected class indices of shape {x.shape[:1]}, or probabilities of shape "
                f"{(*x.shape[:1], self.num_classes)}, got {y.dtype} of shape {y.shape}"
            )
        rng = generator(self.rng)
        weight, order = x.dtype.type(rng.beta(self.alpha, self.alpha)), rng.permutation(len(x))
        y = y.astype(x.dtype, copy=False)
        return weight * x + (1 - weight) * x[order], weight * y + (1 - weight) * y[order]

    def __repr__(self) -> str:
        return f"MixUp(num_classes={self.num_classes}, alpha={self.alpha:g})"


class RandomAffine(_ImageTransform):
    """Rotate, shift and scale each image of a batch at random, each differently.

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
        self.scale = None if scale is None else _interval(scale, "RandomAffine: scale")
        self.fill = number(fill, "RandomAffine: fill")
        super().__init__(rng)

    def change(self, images: Array, rng: np.random.Generator) -> Array:
        """Return the images, each with a random map of its own."""
        angles, *shifts, sizes = rng.uniform(-1, 1, (4, len(images)))
        lowest, highest = self.scale or (1.0, 1.0)
        return affine(
            images,
            self.degrees * angles,
            self.shift * np.stack(shifts, axis=1),
            (highest + lowest) / 2 + (highest - lowest) / 2 * sizes,
            self.fill,
        )

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

    Each pixel of the new image is interpolated between the four pixels around its origin in the old
    image.

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


def _as_images(images: ArrayLike, who: str) -> Array:
    array = _as_float_array(images, who)
    if array.ndim != 4 or not array.size:
        raise ValueError(
            f"{who}: expected images of shape (N, C, H, W) with at least one pixel, "
            f"got shape {array.shape}; add an axis where there is but one channel"
        )
    return array


def _as_float_array(values: ArrayLike, who: str) -> Array:
    array = np.asarray(values)
    if array.dtype not in FLOATS:
        raise TypeError(
            f"{who}: expected images of float32 or float64, got {array.dtype}; "
            f"convert them with .astype(numpy.float32)"
        )
    return array


def _interval(limits: Any, what: str) -> tuple[float, float]:
    if not isinstance(limits, (tuple, list)) or len(limits) != 2:
        raise TypeError(f"{what} must be a pair of factors such as (0.9, 1.1), got {limits!r}")
    lowest, highest = (positive(limit, f"{what}: a factor") for limit in limits)
    if lowest > highest:
        raise ValueError(f"{what}: the first factor must be the smaller one, got {limits!r}")
    return lowest, highest
