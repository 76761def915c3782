"""``Processes``: those that train one model together. Without MPI, a single one."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from .engine.arrays import Array
from .random import RandomState, branch, generator, generator_state, load_generator_state

T = TypeVar("T")


class Processes:
    """The processes of a run. This base class is a single one; `interop.mpi` has the others.

    Each method is called by all processes, in the same order.

    Attributes
    ----------
    rank : int
        The number of this process, from 0.
    size : int
        The number of processes.
    """

    rank = 0
    size = 1

    def part(self, start: int, stop: int) -> slice:
        """Return this process's part of the samples from `start` to `stop`; it may be empty."""
        count = stop - start
        first, end = (count * rank // self.size for rank in (self.rank, self.rank + 1))
        return slice(start + first, start + end)

    def call(self, compute: Callable[[], T]) -> list[T]:
        """Return the results of `compute` in all processes; an exception in one is raised in all.

        It is the one of the lowest rank.
        """
        return [compute()]

    def gather(self, value: T) -> list[T]:
        """Return the values of all processes in the order of their ranks."""
        return self.call(lambda: value)

    def broadcast(self, value: T) -> T:
        """Return the value of rank 0."""
        values: list[Any] = self.call(lambda: value if self.rank == 0 else None)
        return values[0]

    def sum(self, compute: Callable[[], Sequence[float]]) -> list[float]:
        """Return the sums of the numbers that `compute` returns: the same bits in all processes."""
        return [sum(column) for column in zip(*self.call(compute), strict=True)]

    def check_same(self, facts: Mapping[str, Any], who: str, cure: str) -> None:
        """Raise a ValueError that names the first process with other facts than rank 0."""
        everywhere = self.gather(facts)

        def compare() -> None:
            for rank, theirs in enumerate(everywhere):
                for name in {**everywhere[0], **theirs}:
                    first, other = everywhere[0].get(name), theirs.get(name)
                    if first != other:
                        raise ValueError(
                            f"{who}: {name} is {other!s:.200} in the process of rank {rank}, and "
                            f"{first!s:.200} in that of rank 0; {cure}"
                        )

        self.call(compare if self.rank == 0 else lambda: None)

    def spread(self, generators: Sequence[np.random.Generator]) -> None:
        """Let each process draw numbers of its own, which the generators of rank 0 determine."""
        states = self.broadcast([generator_state(rng) for rng in generators])
        for rng, state in zip(generators, states, strict=True):
            load_generator_state(rng, state)
            if self.rank:
                branch(rng, self.rank)

    def permutation(self, rng: RandomState, length: int) -> Array:
        """Return a random order, the same in all processes; rank 0 draws it."""
        order = self.broadcast(generator(rng).permutation(length) if self.rank == 0 else None)
        assert order is not None
        return order

    def guard(self) -> contextlib.AbstractContextManager[None]:
        """Context of a run: an exception in one process ends the block in all of them."""
        return contextlib.nullcontext()

    def sum_gradients(self, optimizer: Any) -> None:
        """Replace each gradient of an `Optimizer` by its sum over all processes."""

    def average(self, arrays: Sequence[Array]) -> None:
        """Replace each array, of one dtype, by its mean over all processes."""


ALONE = Processes()
