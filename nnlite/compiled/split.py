"""A batch divided among threads: which models allow it, and when it pays."""

from __future__ import annotations

import itertools
import math
import re

import nnlite as nn

from ..engine.blas import threads_of_products
from .source import BATCH, Code, Value

# In multiply-adds: what may be lost by waiting for another thread where other programs keep the
# cores busy, and what it takes to add its gradient of a parameter to that of the first thread.
_WAITING, _ADDING = 20_000_000, 150

# Bytes of arrays that stay in the cache; and from how many times those of the parameters on the
# time of adding their gradients does not matter.
_CACHED, _TIMES = 1 << 23, 8
# Samples that fill vector registers: in a recurrent layer they are the columns of the products.
_FILLING = 16
# The allocation of an array with an axis of the batch size.
_ARRAY = re.compile(rf"np\.(?:empty|zeros)\((.*\b{BATCH!s}\b.*), real\)")


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


def samples_to_divide(code: Code) -> float:
    """Return the size from which on a batch may be divided for a prediction."""
    return _WAITING / max(1, code.multiply_adds)


def samples_at_a_time(code: Code, with_backward: bool) -> int:
    """Return how many samples a thread computes at a time, at least one.

    Their arrays stay in the cache, or at least in memory that the C library keeps for later calls.
    There are more samples if there are many parameters: each part of a batch reads all of them, and
    adds its gradients to those of the others.
    """
    shapes = _ARRAY.findall("\n".join(code.forward))
    numbers = sum(math.prod(map(int, re.findall(r"\d+", shape))) for shape in shapes)
    parameters = sum(getattr(*place).nbytes for place in code.arrays.values())
    limit = max(_CACHED, _TIMES * parameters if with_backward else parameters)
    samples = limit // max(1, numbers * code.dtype.itemsize)
    if samples >= _FILLING:
        return round(samples / _FILLING) * _FILLING
    return max(1, samples)


def in_turn(start: int, stop: int, at_a_time: float) -> list[tuple[int, int]]:
    """Return the first sample and the end of parts that a thread computes one after another."""
    if stop - start <= at_a_time:
        return [(start, stop)]
    parts = math.ceil((stop - start) / at_a_time)
    size = math.ceil((stop - start) / parts)
    if at_a_time >= _FILLING:
        size += -size % _FILLING
    return [(first, min(first + size, stop)) for first in range(start, stop, size)]


def bounds_of_parts(code: Code, n: int, with_backward: bool) -> list[tuple[int, int]]:
    """Return the first sample and the end of the part of each thread.

    They follow from the model, the batch size and the number of threads alone, and so do the bits
    of the result.
    """
    work = code.multiply_adds * n
    if with_backward:
        parameters = sum(parameter.size for parameter in code.trained.values())
        work = 3 * work - _ADDING * parameters  # backward has twice those of forward
    parts = min(threads_of_products(), n) if work >= _WAITING else 1
    edges = [n * part // parts for part in range(parts + 1)]
    return list(itertools.pairwise(edges))
