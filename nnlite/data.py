"""Batches: ``DataLoader`` cuts arrays into the pieces that a training step takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from .checks import integer
from .layer import Array
from .random import RandomState, generator


class DataLoader:
    """Iterate over arrays in batches along their first axis.

    Parameters
    ----------
    *arrays : array_like
        One array or several of the same length, such as images and labels.
    batch_size : int, default 1
        Samples in a batch.
    shuffle : bool, default False
        Whether to draw a new order for each epoch.
    drop_last : bool, default False
        Whether to leave out the last batch where it is smaller than the others.
    transform : callable, optional
        Gets the arrays of each batch and returns what is handed out in their place: with images
        and labels, ``transform(images, labels)`` returns a pair. It may change the arrays that it
        gets when they are copies, which they are when `shuffle` is True.
    rng : int, numpy.random.Generator or None
        Source of the orders. An int gives the same orders in every run, and still another order
        in each epoch.

    Raises
    ------
    ValueError
        If there are no arrays or no samples, if the lengths differ, or if there is no batch
        because of `drop_last`.

    Notes
    -----
    Each iteration over the loader is one epoch. Batches of a single array are arrays; of several,
    tuples of arrays. With `shuffle` a batch is a copy, else a view of the data.

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> images, labels = np.zeros((10, 4), dtype=np.float32), np.arange(10)
    >>> loader = nn.DataLoader(images, labels, batch_size=4, shuffle=True, rng=0)
    >>> len(loader)
    3
    >>> for x, y in loader:
    ...     print(x.shape, y)
    (4, 4) [4 6 2 7]
    (4, 4) [3 5 9 0]
    (2, 4) [8 1]
    """

    arrays: tuple[Array, ...]
    batch_size: int
    shuffle: bool
    drop_last: bool
    transform: Callable[..., Any] | None

    def __init__(
        self,
        *arrays: ArrayLike,
        batch_size: int = 1,
        shuffle: bool = False,
        drop_last: bool = False,
        transform: Callable[..., Any] | None = None,
        rng: RandomState = None,
    ) -> None:
        if not arrays:
            raise ValueError("DataLoader: expected at least one array")
        self.arrays = tuple(_as_samples(array) for array in arrays)
        self.batch_size = integer(batch_size, "DataLoader: batch_size")
        self.shuffle = shuffle
        self.drop_last = drop_last
        if transform is not None and not callable(transform):
            raise TypeError(f"DataLoader: transform must be callable, got {transform!r}")
        self.transform = transform
        # None stays None: the package's generator is looked up when an epoch begins, so that
        # nn.seed() holds for loaders that were made before it.
        self._rng = None if rng is None else generator(rng)
        lengths = [len(array) for array in self.arrays]
        if len(set(lengths)) > 1:
            listed = " and ".join(str(array.shape) for array in self.arrays)
            raise ValueError(
                f"DataLoader: all arrays need the same length, got the shapes {listed}"
            )
        if not lengths[0]:
            raise ValueError("DataLoader: the arrays are empty; there is nothing to iterate over")
        if not len(self):
            raise ValueError(
                f"DataLoader: drop_last leaves no batch of {lengths[0]} samples with "
                f"batch_size={self.batch_size}; use a smaller batch_size"
            )

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        samples = len(self.arrays[0])
        return samples // self.batch_size if self.drop_last else -(-samples // self.batch_size)

    def __iter__(self) -> Iterator[Any]:
        samples, size = len(self.arrays[0]), self.batch_size
        order = generator(self._rng).permutation(samples) if self.shuffle else None
        for start in range(0, len(self) * size, size):
            if order is None:
                batch = tuple(array[start : start + size] for array in self.arrays)
            else:
                picked = order[start : start + size]
                batch = tuple(array[picked] for array in self.arrays)
            if self.transform is not None:
                yield self.transform(*batch)
            else:
                yield batch if len(batch) > 1 else batch[0]


def _as_samples(values: ArrayLike) -> Array:
    if isinstance(values, tuple) and all(isinstance(item, np.ndarray) for item in values):
        raise TypeError(
            "DataLoader: expected arrays, got a tuple of arrays; write DataLoader(*arrays)"
        )
    try:
        array = np.asarray(values)
    except ValueError as error:  # nested lists of several lengths
        raise ValueError(f"DataLoader: an array is needed, not a ragged list: {error}") from None
    if array.ndim == 0:
        raise TypeError(f"DataLoader: expected arrays, got {type(values).__name__}")
    return array
