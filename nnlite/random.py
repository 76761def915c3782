"""Randomness: one generator for the package, and ``rng=`` wherever something is random."""

from __future__ import annotations

import numpy as np

RandomState = int | np.random.Generator | None

_generator = np.random.default_rng()


def seed(seed: int) -> None:
    """Restart the package's generator, which everything random uses that is not given an `rng`.

    Parameters
    ----------
    seed : int
        Any non-negative integer. The same seed gives the same bits on the same machine.

    Examples
    --------
    >>> import nnlite as nn
    >>> nn.seed(0)
    >>> first = nn.Linear(2, 1).weight.data
    >>> nn.seed(0)
    >>> bool((first == nn.Linear(2, 1).weight.data).all())
    True
    """
    global _generator
    _generator = np.random.default_rng(seed)


def generator(rng: RandomState = None) -> np.random.Generator:
    """Return the generator that `rng` stands for: itself, one seeded with an int, or the package's.

    Raises
    ------
    TypeError
        If `rng` is none of these.
    """
    if rng is None:
        return _generator
    if isinstance(rng, np.random.Generator):
        return rng
    if isinstance(rng, (int, np.integer)) and not isinstance(rng, bool):
        return np.random.default_rng(int(rng))
    raise TypeError(f"rng must be an int or a numpy.random.Generator, got {rng!r}")
