"""Small synthetic data sets for lessons and tests: points in the plane, and a noisy curve.

Names and arguments are those of scikit-learn where it has the same data set; `rng` is its
``random_state``. The samples are in random order, so that any slice is a fair split.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..checks import fraction, integer, number, positive
from ..random import RandomState, generator

Classified = tuple[NDArray[np.float32], NDArray[np.int64]]


def make_moons(n_samples: int = 100, *, noise: float = 0.0, rng: RandomState = None) -> Classified:
    """Return two interleaving half circles of radius 1.

    Parameters
    ----------
    n_samples : int, default 100
        Total number of points; the sizes of the classes differ by at most one.
    noise : float, default 0
        Standard deviation of the Gaussian noise added to each coordinate.
    rng : int, numpy.random.Generator or None
        Source of the noise and the order.

    Returns
    -------
    points : ndarray of float32, shape (n_samples, 2)
    labels : ndarray of int64, shape (n_samples,)

    Raises
    ------
    ValueError, TypeError
        If an argument is out of range.

    Notes
    -----
    With t from 0 to π, class 0 is at ``(cos t, sin t)``, class 1 at ``(1 - cos t, 1/2 - sin t)``.

    Examples
    --------
    >>> import nnlite as nn
    >>> points, labels = nn.datasets.make_moons(200, noise=0.1, rng=0)
    >>> points.shape, points.dtype, labels.sum()
    ((200, 2), dtype('float32'), np.int64(100))
    """
    outer, inner = (np.linspace(0, np.pi, count) for count in _sizes(n_samples, 2, "make_moons"))
    classes = [
        np.stack([np.cos(outer), np.sin(outer)], axis=1),
        np.stack([1 - np.cos(inner), 0.5 - np.sin(inner)], axis=1),
    ]
    return _classified(classes, noise, rng, "make_moons")


def make_circles(
    n_samples: int = 100, *, noise: float = 0.0, factor: float = 0.8, rng: RandomState = None
) -> Classified:
    """Return a circle of radius 1 (class 0) and a smaller circle inside it (class 1).

    Parameters
    ----------
    n_samples, noise, rng
        As in `make_moons`.
    factor : float in [0, 1), default 0.8
        Radius of the inner circle.

    Returns
    -------
    points : ndarray of float32, shape (n_samples, 2)
    labels : ndarray of int64, shape (n_samples,)

    Raises
    ------
    ValueError, TypeError
        If an argument is out of range.

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> points, labels = nn.datasets.make_circles(factor=0.5, rng=0)
    >>> radii = np.hypot(*points.T)
    >>> np.allclose(radii[labels == 0], 1), np.allclose(radii[labels == 1], 0.5)
    (True, True)
    """
    factor = fraction(factor, "make_circles: factor")
    outer, inner = (
        _circle(np.linspace(0, 2 * np.pi, count, endpoint=False))
        for count in _sizes(n_samples, 2, "make_circles")
    )
    return _classified([outer, factor * inner], noise, rng, "make_circles")


def make_spirals(
    n_samples: int = 100,
    *,
    n_classes: int = 2,
    turns: float = 1.0,
    noise: float = 0.0,
    rng: RandomState = None,
) -> Classified:
    """Return intertwined spirals that start at the origin, one for each class.

    Parameters
    ----------
    n_samples, noise, rng
        As in `make_moons`.
    n_classes : int, default 2
        Number of arms.
    turns : float, default 1
        Number of times that each arm goes around the origin.

    Returns
    -------
    points : ndarray of float32, shape (n_samples, 2)
    labels : ndarray of int64, shape (n_samples,)

    Raises
    ------
    ValueError, TypeError
        If an argument is out of range.

    Notes
    -----
    Class k of K is the Archimedean spiral ``r (cos φ, sin φ)`` with ``φ = 2π (turns r + k / K)``
    and r evenly spaced on (0, 1].

    References
    ----------
    K. J. Lang, M. J. Witbrock, "Learning to tell two spirals apart", Proceedings of the 1988
    Connectionist Models Summer School.

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> points, labels = nn.datasets.make_spirals(300, n_classes=3, noise=0.02, rng=0)
    >>> np.bincount(labels)
    array([100, 100, 100])
    """
    n_classes = integer(n_classes, "make_spirals: n_classes", 2)
    turns = positive(turns, "make_spirals: turns")
    classes = []
    for k, count in enumerate(_sizes(n_samples, n_classes, "make_spirals")):
        radius = np.arange(1, count + 1) / count
        angle = 2 * np.pi * (turns * radius + k / n_classes)
        classes.append(radius[:, np.newaxis] * _circle(angle))
    return _classified(classes, noise, rng, "make_spirals")


def make_xor(n_samples: int = 100, *, noise: float = 0.0, rng: RandomState = None) -> Classified:
    """Return points of a square, of class 1 if their coordinates have different signs.

    No linear classifier is better than chance.

    Parameters
    ----------
    n_samples, noise, rng
        As in `make_moons`. The points are random too, so the sizes of the classes vary.

    Returns
    -------
    points : ndarray of float32, shape (n_samples, 2)
        Uniform on [-1, 1)², before noise.
    labels : ndarray of int64, shape (n_samples,)

    Raises
    ------
    ValueError, TypeError
        If an argument is out of range.

    Examples
    --------
    >>> import nnlite as nn
    >>> points, labels = nn.datasets.make_xor(rng=0)
    >>> bool(((points[:, 0] * points[:, 1] < 0) == labels).all())
    True
    """
    n_samples = integer(n_samples, "make_xor: n_samples", 1)
    draws = generator(rng)
    points = draws.uniform(-1, 1, (n_samples, 2))
    labels = (points[:, 0] < 0) != (points[:, 1] < 0)
    return _noisy(points, noise, draws, "make_xor"), labels.astype(np.int64)


def make_blobs(
    n_samples: int = 100,
    n_features: int = 2,
    *,
    centers: int | ArrayLike = 3,
    cluster_std: float = 1.0,
    center_box: tuple[float, float] = (-10.0, 10.0),
    rng: RandomState = None,
) -> Classified:
    """Return Gaussian clusters, one for each class.

    Parameters
    ----------
    n_samples, rng
        As in `make_moons`.
    n_features : int, default 2
        Number of coordinates; ignored if `centers` is an array.
    centers : int or array_like of shape (n_classes, n_features), default 3
        The centres, or their number if they are random.
    cluster_std : float, default 1
        Standard deviation of each coordinate within a cluster.
    center_box : tuple of two floats
        Interval of each coordinate of random centres.

    Returns
    -------
    points : ndarray of float32, shape (n_samples, n_features)
    labels : ndarray of int64, shape (n_samples,)

    Raises
    ------
    ValueError, TypeError
        If an argument is out of range.

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> points, labels = nn.datasets.make_blobs(centers=[[0, 0], [5, 5]], rng=0)
    >>> bool((points[labels == 1].mean(axis=0).round() == 5).all())
    True
    """
    draws = generator(rng)
    if np.ndim(centers) == 0:
        count = integer(centers, "make_blobs: centers")
        n_features = integer(n_features, "make_blobs: n_features")
        lowest, highest = (number(side, "make_blobs: a side of center_box") for side in center_box)
        if lowest > highest:
            raise ValueError(
                f"make_blobs: the first side of center_box must be the smaller, got {center_box}"
            )
        places = draws.uniform(lowest, highest, (count, n_features))
    else:
        places = np.asarray(centers, np.float64)
        if places.ndim != 2 or not places.size:
            raise ValueError(
                f"make_blobs: centers must be an int or of shape (n_classes, n_features), "
                f"got shape {places.shape}"
            )
    sizes = _sizes(n_samples, len(places), "make_blobs")
    classes = [np.tile(place, (size, 1)) for place, size in zip(places, sizes, strict=True)]
    return _classified(classes, cluster_std, draws, "make_blobs", "cluster_std")


def make_sine(
    n_samples: int = 100, *, periods: float = 1.0, noise: float = 0.0, rng: RandomState = None
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return points on a sine curve, for regression.

    Parameters
    ----------
    n_samples, rng
        As in `make_moons`.
    periods : float, default 1
        Number of periods between -1 and 1.
    noise : float, default 0
        Standard deviation of the Gaussian noise added to y.

    Returns
    -------
    x : ndarray of float32, shape (n_samples, 1)
        Uniform on [-1, 1).
    y : ndarray of float32, shape (n_samples, 1)
        ``sin(π periods x)`` plus noise.

    Raises
    ------
    ValueError, TypeError
        If an argument is out of range.

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> x, y = nn.datasets.make_sine(50, rng=0)
    >>> x.shape, np.allclose(y, np.sin(np.pi * x), atol=1e-6)
    ((50, 1), True)
    """
    n_samples = integer(n_samples, "make_sine: n_samples")
    periods = positive(periods, "make_sine: periods")
    draws = generator(rng)
    x = draws.uniform(-1, 1, (n_samples, 1))
    return x.astype(np.float32), _noisy(np.sin(np.pi * periods * x), noise, draws, "make_sine")


def _circle(angles: NDArray[Any]) -> NDArray[Any]:
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def _sizes(n_samples: int, n_classes: int, who: str) -> list[int]:
    """Return the number of points of each class, which differ by at most one."""
    n_samples = integer(n_samples, f"{who}: n_samples", n_classes)
    return [(n_samples + k) // n_classes for k in range(n_classes)]


def _classified(
    classes: list[NDArray[Any]], noise: float, rng: RandomState, who: str, option: str = "noise"
) -> Classified:
    """Return the points of all classes with noise and labels, in random order."""
    draws = generator(rng)
    points = np.concatenate(classes)
    labels = np.repeat(np.arange(len(classes)), [len(points) for points in classes])
    order = draws.permutation(len(points))
    return _noisy(points[order], noise, draws, who, option), labels[order].astype(np.int64)


def _noisy(
    values: NDArray[Any], noise: float, draws: np.random.Generator, who: str, option: str = "noise"
) -> NDArray[np.float32]:
    noise = number(noise, f"{who}: {option}", 0)
    return (values + noise * draws.standard_normal(values.shape)).astype(np.float32)
