"""Randomness: one generator for the package, and ``rng=`` wherever something is random."""

from __future__ import annotations

import contextlib
import copy
import functools
import os
import types
from collections.abc import Iterable, Iterator, Mapping
from contextvars import ContextVar
from typing import Any, TypeAlias

import numpy as np

RandomState: TypeAlias = "int | np.random.Generator | None"

# Created on first use: importing numpy.random takes longer than most of nnlite.
_generator: np.random.Generator | None = None
# The generator of the next forked process.
_of_child: np.random.Generator | None = None
# What stands in for it within `package_generator`.
_substitute: ContextVar[np.random.Generator | None] = ContextVar("substitute", default=None)


def seed(seed: int) -> None:
    """Restart the package's generator, which everything random uses that is not given an `rng`.

    Parameters
    ----------
    seed : int
        Any non-negative integer. The same seed gives the same bits on the same machine.

    Raises
    ------
    TypeError, ValueError
        If `seed` is no integer, or negative.

    Notes
    -----
    A forked process, such as a worker of ``multiprocessing`` on Linux, goes on with a generator of
    its own, spawned from this one: workers draw different numbers, and after the same seed the
    first worker, the second and so on draw the same ones again. A process that is not forked starts
    without a seed. Generators that were passed as ``rng=``, such as that of a `Dropout`, are
    copied with their state: pass each worker one of its own, or leave ``rng`` out.

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
    _generator = _seeded(seed, "seed")


def generator(rng: RandomState = None) -> np.random.Generator:
    """Return the generator that `rng` stands for: itself, one seeded with an int, or the package's.

    Raises
    ------
    TypeError, ValueError
        If `rng` is none of these, or negative.
    """
    global _generator
    if rng is None:
        substitute = _substitute.get()
        if substitute is not None:
            return substitute
        if _generator is None:
            _generator = np.random.default_rng()
        return _generator
    if isinstance(rng, np.random.Generator):
        return rng
    return _seeded(rng, "rng", "an int or a numpy.random.Generator")


def _seeded(seed: int, what: str, expected: str = "an int") -> np.random.Generator:
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)):
        raise TypeError(f"{what} must be {expected}, got {seed!r:.80}")
    if seed < 0:
        raise ValueError(f"{what} must be at least 0, got {seed}")
    return np.random.default_rng(int(seed))


def _before_fork() -> None:
    # Spawning moves no generator on: a fork changes none of the parent's draws.
    global _of_child
    _of_child = None if _generator is None else _generator.spawn(1)[0]


def _after_fork() -> None:
    global _generator
    _generator = _of_child


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_child=_after_fork)


@contextlib.contextmanager
def package_generator(rng: np.random.Generator) -> Iterator[None]:
    """Use `rng` as the package's generator within the context, for the calling thread alone."""
    token = _substitute.set(rng)
    try:
        yield
    finally:
        _substitute.reset(token)


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


def branch(rng: np.random.Generator, number: int) -> None:
    """Restart `rng` with a stream of numbers that its present state and `number` define."""
    entropy = copy.deepcopy(rng).integers(1 << 32, size=4)
    seeds = np.random.SeedSequence([*map(int, entropy), number])
    rng.bit_generator.state = type(rng.bit_generator)(seeds).state


def own_generators(owner: object) -> dict[str, np.random.Generator]:
    """Return the generators that are attributes of an object, by name."""
    attributes = getattr(owner, "__dict__", {})
    return {
        name: value for name, value in attributes.items() if isinstance(value, np.random.Generator)
    }


def generators_within(owner: object) -> dict[str, np.random.Generator]:
    """Return the generators that an object is made of, by where in it they are.

    They are looked for in attributes, lists, tuples and dicts, in the object of a bound method and
    in what `functools.partial` binds; not in closures, default values and global variables.
    """
    found: dict[str, np.random.Generator] = {}
    seen: set[int] = set()
    # The nearest first: so the name of a generator is the shortest of those that lead to it.
    waiting: list[tuple[str, object]] = [("", owner)]
    for path, value in waiting:
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, np.random.Generator):
            found[path] = value
            continue
        waiting += [(f"{path}.{name}" if path else str(name), part) for name, part in _parts(value)]
    return found


def _parts(value: object) -> Iterable[tuple[object, object]]:
    """Return what an object is made of, by name."""
    if hasattr(value, "__self__"):  # a bound method
        return [("__self__", value.__self__)]
    if isinstance(value, functools.partial):
        return [("func", value.func), ("args", value.args), ("keywords", value.keywords)]
    if isinstance(value, dict):
        return list(value.items())
    if isinstance(value, (list, tuple)):
        return enumerate(value)
    if isinstance(value, (type, types.ModuleType)):  # these are not part of one object alone
        return []
    return list(getattr(value, "__dict__", {}).items())
