"""Randomness: one generator for the package, and ``rng=`` wherever something is random."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np

RandomState: TypeAlias = "int | np.random.Generator | None"

# Made when it is first needed: to import numpy.random takes longer than most of nnlite.
_generator: np.random.Generator | None = None


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
    global _generator
    if rng is None:
        if _generator is None:
            _generator = np.random.default_rng()
        return _generator
    if isinstance(rng, np.random.Generator):
        return rng
    if isinstance(rng, (int, np.integer)) and not isinstance(rng, bool):
        return np.random.default_rng(int(rng))
    raise TypeError(f"rng must be an int or a numpy.random.Generator, got {rng!r}")


def generator_state(rng: np.random.Generator) -> dict[str, Any]:
    """Return the state of a generator, from which it can go on: numbers and arrays by name."""
    return dict(rng.bit_generator.state)


def checked_generator_state(rng: np.random.Generator, state: Any) -> dict[str, Any]:
    """Return `state` if it is one that `rng` can be in, and raise a ValueError otherwise."""
    kind = type(rng.bit_generator).__name__
    given = state.get("bit_generator") if isinstance(state, Mapping) else type(state).__name__
    if given != kind:
        raise ValueError(f"expected the state of a {kind} generator, got {given!r:.80}")
    trial = copy.deepcopy(rng.bit_generator)
    try:
        trial.state = dict(state)
        reached: Any = trial.state
    except Exception as error:
        raise ValueError(f"this is no state of a {kind} generator: {error}") from None
    # Two kinds keep a place in a buffer, and read there without another look.
    place, length = {
        "MT19937": (reached["state"].get("pos", 0), 624),
        "Philox": (reached.get("buffer_pos", 0), 4),
    }.get(kind, (0, 0))
    if not 0 <= place <= length:
        raise ValueError(f"this is no state of a {kind} generator: it is at {place} of {length}")
    return dict(state)


def load_generator_state(rng: np.random.Generator, state: Any) -> None:
    """Let a generator go on from `state`; a ValueError leaves it as it is."""
    rng.bit_generator.state = checked_generator_state(rng, state)


def own_generators(owner: object) -> dict[str, np.random.Generator]:
    """Return the generators that are attributes of an object, by name."""
    attributes = getattr(owner, "__dict__", {})
    return {
        name: value for name, value in attributes.items() if isinstance(value, np.random.Generator)
    }
