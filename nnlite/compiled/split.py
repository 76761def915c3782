"""A batch divided among threads: which models allow it, and when it pays."""

from __future__ import annotations

import functools
import itertools
import math
import re
from typing import NamedTuple

import nnlite as nn

from ..engine.blas import threads_of_products
from .source import BATCH, Code, Value

# In multiply-adds: what may be lost by waiting for another thread where other programs keep the
# cores busy; what it takes to add its gradient of a parameter to that of the first thread; and what
# this one computes before the other begins, and while it ends.
_WAITING, _ADDING, _HEAD_START = 20_000_000, 150, 4_000_000

# Bytes of arrays that stay in the cache; and from how many times those of the parameters on the
# time of adding their gradients does not matter.
_CACHED, _TIMES = 1 << 23, 8
# Samples that are computed together: rows of a tile, for which an even number is enough; and the
# elements of registers, where the samples are the columns of products.
_ROWS, _FILLING = 2, 16
# The allocation of an array with an axis of the batch size, and of one whose last axis it is.
_ARRAY = re.compile(rf"np\.(?:empty|zeros)\((.*\b{BATCH!s}\b.*), real\)")
_COLUMNS = re.compile(rf"np\.(?:empty|zeros)\(\(.*, {BATCH!s}\), real\)")

# Of each thread: the first sample and the end of what it computes, one after another.
Turns = tuple[tuple[tuple[int, int], ...], ...]


def is_separable(code: Code, values: list[Value], *objects: nn.Layer) -> bool:
    """Whether parts of a batch can be computed one by one, by a model and its loss if it has one.

    The gradient of the batch is then the mean, or the sum, of those of its parts. `values` are the
    arrays of a call, and the outputs. The samples must be the first axis of each of them, and of
    all between. Of layers that are not of this package, nothing is known. Layers that relate the
    samples to each other write sums over the batch.
    """
    return (
        code.is_by_sample
        and all(value.shape[:1] == (BATCH,) for value in values)
        and all(
            type(layer).__module__.startswith("nnlite.")
            for each in objects
            for layer in each.layers()
        )
    )


class Division(NamedTuple):
    """How batches are divided: among threads, and by each of them into turns.

    It follows from the model, the batch size and the number of threads alone, and so do the bits of
    the result.

    Attributes
    ----------
    work : int
        The multiply-adds of a sample.
    cost, head_start : float
        In multiply-adds: what another thread must save, and what the first one does alone.
    together : int
        Samples that are computed together: most parts have a multiple of them.
    at_a_time : float
        Samples that a thread computes at a time.
    """

    work: int
    cost: float
    head_start: float
    together: int
    at_a_time: float

    @property
    def undivided(self) -> float:
        """The batch size up to which all is computed at once."""
        return min(2 * self.cost / max(1, self.work), self.at_a_time)

    def turns(self, n: int) -> Turns:
        """Return the bounds of what each thread computes of n samples."""
        return _turns(self, n, threads_of_products())


WHOLE = Division(0, math.inf, 0, 1, math.inf)
"""All samples at once."""


def division(code: Code, with_backward: bool, in_turns: bool = True) -> Division:
    """Return how the batches of a program are divided whose samples are separable.

    The arrays of the samples that are computed at a time stay in the cache, or at least in memory
    that the C library keeps for later calls. There are more samples if there are many parameters:
    each part of a batch reads all of them, and adds its gradients to those of the others.
    """
    lines = "\n".join(code.forward)
    numbers = sum(math.prod(map(int, re.findall(r"\d+", shape))) for shape in _ARRAY.findall(lines))
    parameters = sum(getattr(*place).nbytes for place in code.arrays.values())
    limit = max(_CACHED, _TIMES * parameters if with_backward else parameters)
    at_a_time = limit // max(1, numbers * code.dtype.itemsize)
    if at_a_time >= _FILLING:
        at_a_time = round(at_a_time / _FILLING) * _FILLING
    trained = sum(parameter.size for parameter in code.trained.values())
    return Division(
        # Backward has twice those of forward.
        work=code.multiply_adds * (3 if with_backward else 1),
        cost=(_WAITING + (_ADDING * trained if with_backward else 0)) / 2,
        head_start=_HEAD_START,
        together=_FILLING if _COLUMNS.search(lines) else _ROWS,
        at_a_time=max(1, at_a_time) if in_turns else math.inf,
    )


@functools.lru_cache(maxsize=1024)
def _turns(division: Division, n: int, threads: int) -> Turns:
    work, parts, together = division.work * n, 1, division.together
    # A part more saves work / parts - work / (parts + 1).
    while parts < min(threads, n) and work >= division.cost * parts * (parts + 1):
        parts += 1
    # What each thread but the first computes.
    share = n * (1 - min(1, division.head_start / max(1, work))) / parts
    if n < 2 * together * parts:
        together = 1
    edges = [round((n - share * left) / together) * together for left in range(parts - 1, 0, -1)]
    bounds = itertools.pairwise([0, *edges, n])
    return tuple(in_turn(start, stop, division.at_a_time) for start, stop in bounds)


def in_turn(start: int, stop: int, at_a_time: float) -> tuple[tuple[int, int], ...]:
    """Return the first sample and the end of parts that a thread computes one after another."""
    if stop - start <= at_a_time:
        return ((start, stop),)
    parts = math.ceil((stop - start) / at_a_time)
    size = math.ceil((stop - start) / parts)
    if at_a_time >= _FILLING:
        size += -size % _FILLING
    return tuple((first, min(first + size, stop)) for first in range(start, stop, size))
