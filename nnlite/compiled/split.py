"""A batch divided among threads: which models allow it, and when it pays."""

from __future__ import annotations

import functools
import math
import re
from typing import NamedTuple

import nnlite as nn

from ..engine.blas import threads_of_products
from ..engine.threads import parts
from .source import BATCH, Code, Value

# In multiply-adds: the delay of waiting for another thread on a busy machine; the time to add one
# element of its gradients; and the head start of the calling thread, which computes while the
# others wake.
_WAITING, _ADDING, _LEAD = 10_000_000, 75, 4_000_000

# Bytes of arrays that stay in the cache. The arrays of a chunk of a step may also take `_TIMES` the
# size of the parameters: adding the gradients of smaller chunks would take much of their time.
_CACHED, _TIMES = 1 << 23, 8
# Parts have an even number of samples, for tiles of rows; or, where the samples are the columns of
# products, a multiple of the elements of a vector.
_ROWS, _FILLING = 2, 16
# Bytes of a vector register, the largest that there is. A thread takes as long for a part of it as
# for all.
_REGISTER = 64
# The allocation of an array with an axis of the batch size, and of one whose last axis it is.
_ARRAY = re.compile(rf"np\.(?:empty|zeros)\((.*\b{BATCH!s}\b.*), real\)")
_COLUMNS = re.compile(rf"np\.(?:empty|zeros)\(\(.*, {BATCH!s}\), real\)")

# Of each thread: the first sample and the end of each of its chunks, one after another.
Chunks = tuple[tuple[tuple[int, int], ...], ...]


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
    """How batches are divided: among threads, and by each of them into chunks.

    It follows from the model, the batch size and the number of threads alone, and so do the bits of
    the result.

    Attributes
    ----------
    work : int
        The multiply-adds of a sample.
    cost : float
        The least saving, in multiply-adds, for which another thread is used.
    lead : float
        Multiply-adds that the first thread computes beyond its equal part.
    multiple : int
        Parts begin at multiples of this many samples, if there are enough of them.
    chunk_size : float
        The largest number of samples that a thread computes at a time.
    vector : int
        The number of samples that take as long as one.
    """

    work: int
    cost: float
    lead: float
    multiple: int
    chunk_size: float
    vector: int = 1

    @property
    def undivided(self) -> float:
        """The largest batch size that is not divided."""
        saving = 2 * self.cost / max(1, self.work)
        least = math.ceil(saving) - 1 if math.isfinite(saving) else saving
        if self.vector > 1:
            least = max(least, self.vector)
        return min(least, self.chunk_size)

    def chunks(self, n: int) -> Chunks:
        """Return the chunks of n samples."""
        return _chunks(self, n, threads_of_products())

    def is_whole(self, n: int) -> bool:
        """Whether n samples are one chunk."""
        return self.chunks(n) == (((0, n),),)


WHOLE = Division(0, math.inf, 0, 1, math.inf)
"""All samples at once."""


def division(code: Code, with_backward: bool, in_chunks: bool = True) -> Division:
    """Return how the batches of a program are divided whose samples are separable.

    The arrays that forward allocates for a chunk take up to `_CACHED` bytes, so that they stay in
    the cache; those of backward come on top. They may be as large as the parameters, all of which
    each chunk reads, and `_TIMES` as large where it adds gradients too.
    """
    lines = "\n".join(code.forward)
    numbers = sum(math.prod(map(int, re.findall(r"\d+", shape))) for shape in _ARRAY.findall(lines))
    parameters = sum(getattr(*place).nbytes for place in code.arrays.values())
    limit = max(_CACHED, _TIMES * parameters if with_backward else parameters)
    size = limit // max(1, numbers * code.dtype.itemsize)
    if size >= _FILLING:
        size = round(size / _FILLING) * _FILLING
    trained = sum(parameter.size for parameter in code.trained.values())
    passes = 3 if with_backward else 1  # backward has twice the products of forward
    has_columns = _COLUMNS.search(lines) is not None
    return Division(
        work=passes * code.multiply_adds,
        cost=_WAITING + (_ADDING * trained if with_backward else 0),
        lead=_LEAD,
        multiple=_FILLING if has_columns else _ROWS,
        chunk_size=max(1, size) if in_chunks else math.inf,
        vector=max(1, _REGISTER // code.dtype.itemsize) if has_columns else 1,
    )


@functools.lru_cache(maxsize=1024)
def _chunks(division: Division, n: int, threads: int) -> Chunks:
    work, cost, lead, multiple, size, vector = division
    limit = min(threads, math.ceil(n / vector))
    bounds = parts(n, limit, work * n, cost, lead, multiple)
    return tuple(in_chunks(start, stop, size) for start, stop in bounds)


def in_chunks(start: int, stop: int, size: float) -> tuple[tuple[int, int], ...]:
    """Return the first sample and the end of chunks of up to `size` samples, about equal."""
    if stop - start <= size:
        return ((start, stop),)
    count = math.ceil((stop - start) / size)
    length = math.ceil((stop - start) / count)
    if size >= _FILLING:
        length += -length % _FILLING
    return tuple((first, min(first + length, stop)) for first in range(start, stop, length))
