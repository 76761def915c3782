"""Random numbers: the generator of the package, and the argument ``rng=`` of everything random."""

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
# The generator for the next forked process.
_of_child: np.random.Generator | None = None
# The generators that replace it within `package_generator`.
_substitute: ContextVar[np.random.Generator | None] = ContextVar("substitute", default=None)


def seed(seed: int) -> None:
    """Seed the package's generator, which is used wherever no `rng` is given.

    Parameters
    ----------
    seed : int
        Any non-negative integer. The same seed gives the same bits on the same machine, with the
        same number of threads.

    Raises
    ------
    TypeError, ValueError
        If `seed` is not an integer, or negative.

    Notes
    -----
    A forked process, such as a worker of ``multiprocessing`` on Linux, gets its own generator,
    spawned from this one. Workers draw different numbers, and with the same seed the n-th worker
    draws the same numbers in every run. A process that is not forked starts without a seed.
    Generators passed as ``rng=``, for example to a `Dropout`, are copied with their state: pass a
    different one to each worker, or omit ``rng``.

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
    """Return `rng` if it is a generator, a new one for an int, and the package's for None.

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
    # Spawning does not advance the generator, so a fork does not change the parent's numbers.
    global _of_child
    _of_child = None if _generator is None else _generator.spawn(1)[0]


def _after_fork() -> None:
    global _generator
    _generator = _of_child


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_child=_after_fork)


@contextlib.contextmanager
def package_generator(rng: np.random.Generator) -> Iterator[None]:
    """Use `rng` as the package's generator within the context, in the calling thread only."""
    token = _substitute.set(rng)
    try:
        yield
    finally:
        _substitute.reset(token)


def generator_state(rng: np.random.Generator) -> dict[str, Any]:
    """Return the state of a generator: numbers and arrays by name."""
    return dict(rng.bit_generator.state)


def checked_generator_state(rng: np.random.Generator, state: Any) -> dict[str, Any]:
    """Return `state` if it is a valid state of `rng`; otherwise raise a ValueError."""
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
    # Two kinds of generators store a position in a buffer and do not check it when they read.
    place, length = {
        "MT19937": (reached["state"].get("pos", 0), 624),
        "Philox": (reached.get("buffer_pos", 0), 4),
    }.get(kind, (0, 0))
    if not 0 <= place <= length:
        raise ValueError(f"this is no state of a {kind} generator: it is at {place} of {length}")
    return dict(state)


def load_generator_state(rng: np.random.Generator, state: Any) -> None:
    """Set the state of a generator. After a ValueError it is unchanged."""
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


def generators_of_layers(layers: Iterable[object]) -> list[np.random.Generator]:
    """Return the package's generator and those that layers keep."""
    return [generator(), *(rng for layer in layers for rng in own_generators(layer).values())]


@contextlib.contextmanager
def unmoved(generators: Iterable[np.random.Generator]) -> Iterator[None]:
    """Context after which the generators are in the states of before."""
    states = [(rng, generator_state(rng)) for rng in generators]
    try:
        yield
    finally:
        for rng, state in states:
            load_generator_state(rng, state)


def generators_within(owner: object) -> dict[str, np.random.Generator]:
    """Return the generators inside an object, by their path in it.

    The search covers attributes, lists, tuples and dicts, the object of a bound method and the
    arguments bound by `functools.partial`, but not closures, default values and global variables.
    """
    found: dict[str, np.random.Generator] = {}
    seen: set[int] = set()
    # Breadth first, so that each generator gets the shortest path to it as its name.
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
    """Return the parts of an object, by name."""
    if hasattr(value, "__self__"):  # a bound method
        return [("__self__", value.__self__)]
    if isinstance(value, functools.partial):
        return [("func", value.func), ("args", value.args), ("keywords", value.keywords)]
    if isinstance(value, dict):
        return list(value.items())
    if isinstance(value, (list, tuple)):
        return enumerate(value)
    if isinstance(value, (type, types.ModuleType)):  # shared by many objects
        return []
    return list(getattr(value, "__dict__", {}).items())
