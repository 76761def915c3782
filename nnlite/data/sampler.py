"""Samplers: the samples of an epoch of a ``DataLoader`` and their order."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike

from ..checks import boolean, integer
from ..engine.arrays import Array
from ..random import RandomState, generator


class WeightedRandomSampler:
    """Draw the samples of an epoch at random, with probabilities proportional to weights.

    Pass it as the ``sampler`` of a `DataLoader`. If the weight of each sample is 1 / (size of its
    class), the classes of an imbalanced data set appear equally often.

    Parameters
    ----------
    weights : array_like of shape (N,)
        A non-negative weight for each sample; they need not sum to 1.
    num_samples : int, optional
        Number of draws in an epoch; N by default.
    replacement : bool, default True
        Whether a sample can be drawn several times in an epoch.
    rng : int, numpy.random.Generator or None
        Source of the random numbers.

    Raises
    ------
    ValueError, TypeError
        If the weights are not non-negative numbers with a positive sum, or if fewer than
        `num_samples` of them are positive without replacement.

    Examples
    --------
    Nine samples of class 0 and three of class 1:

    >>> import numpy as np
    >>> import nnlite as nn
    >>> labels = np.repeat([0, 1], [9, 3])
    >>> sampler = nn.WeightedRandomSampler(1 / np.bincount(labels)[labels], 1000, rng=0)
    >>> loader = nn.DataLoader(labels, batch_size=1000, sampler=sampler)
    >>> np.bincount(next(iter(loader)))
    array([473, 527])
    """

    probabilities: Array
    num_samples: int
    replacement: bool
    rng: np.random.Generator | None

    def __init__(
        self,
        weights: ArrayLike,
        num_samples: int | None = None,
        replacement: bool = True,
        rng: RandomState = None,
    ) -> None:
        weights = np.asarray(weights)
        if weights.dtype.kind not in "iuf" or weights.ndim != 1:
            raise TypeError(
                f"WeightedRandomSampler: expected weights of shape (N,), got {weights.dtype} of "
                f"shape {weights.shape}"
            )
        weights = weights.astype(np.float64)
        total = weights.sum()
        if not (weights >= 0).all() or not 0 < total < np.inf:
            raise ValueError(
                "WeightedRandomSampler: the weights must be finite, at least 0, and not all 0"
            )
        count = len(weights) if num_samples is None else num_samples
        self.probabilities = weights / total
        self.num_samples = integer(count, "WeightedRandomSampler: num_samples")
        self.replacement = boolean(replacement, "WeightedRandomSampler: replacement")
        available = int(np.count_nonzero(weights))
        if not self.replacement and self.num_samples > available:
            raise ValueError(
                f"WeightedRandomSampler: cannot draw {self.num_samples} samples without "
                f"replacement from {available} whose weight is above 0"
            )
        # None is kept, so that nn.seed() also affects a sampler that was made before it.
        self.rng = None if rng is None else generator(rng)

    def __repr__(self) -> str:
        return (
            f"WeightedRandomSampler({len(self.probabilities)} weights, "
            f"num_samples={self.num_samples}, replacement={self.replacement})"
        )

    def __len__(self) -> int:
        """Return the number of draws in an epoch."""
        return self.num_samples

    def __iter__(self) -> Iterator[int]:
        draws = generator(self.rng).choice(
            len(self.probabilities), self.num_samples, self.replacement, self.probabilities
        )
        return iter(draws.tolist())
