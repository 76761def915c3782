"""Who uses the processor's cores: one thread, those of BLAS, or our own.

BLAS has threads of its own and gives a part of a product to each. Three things keep them from being
the answer to everything:

- For a product of a few million multiply-adds between steps in Python, waking and awaiting them
  leaves little of what they save, and takes many times longer where another program wants the same
  core. Such a product is computed by one thread.
- They compute nothing but products. Where a network's arrays are large, as in convolution, copies
  and sums take as long as the products do. Layers `share` such work among threads of our own.
- They await the next product in a loop, on the cores that the others need. So BLAS gets one thread
  for each part of shared work, and a product is not given to its threads if an operand was computed
  from images by ours: `memory.is_for_threads` tells it of an array. In a network with convolutions
  BLAS's threads would take away half of the cores.

We use as many threads as BLAS would, so that what limits it (``OMP_NUM_THREADS``, threadpoolctl)
limits all. Where the BLAS is not OpenBLAS, nothing is shared and BLAS does as it likes.

How a result is computed depends on its operands (shapes, memory order and origin) and on the number
of threads alone, and so do its bits.
"""

from __future__ import annotations

import ctypes
import functools
import importlib
import itertools
import os
import threading
from collections.abc import Callable
from functools import partial

import numpy as np

from . import threads
from .arrays import Array
from .memory import empty, is_for_threads, ones

# These were measured where a core makes some 50 thousand million multiply-adds a second, and goes
# through 10 GB of memory.

# Multiply-adds. Up to the first, OpenBLAS takes one thread by itself; from the second on, its
# threads are faster; from the third on, ours pay, though one of them may have to be woken.
_TINY, _LARGE, _HUGE = 1 << 18, 1 << 22, 1 << 24

# Bytes of an array from which on ours pay.
_MANY_BYTES = 1 << 21


class _OneThread:
    """Context in which OpenBLAS uses one thread; its number of threads is put back afterwards.

    Where the BLAS is another one, it does nothing. Should a Ctrl-C come between two of its lines,
    the number is put back when the same thread leaves the context the next time.
    """

    def __init__(self) -> None:
        self._get, self._set = _openblas()
        self._usual = 1  # the number of threads to put back, if it is lowered
        self._is_lowered = False
        self.begin_anew()

    def begin_anew(self) -> None:
        """Forget the threads that are within the context: a forked process has none of them."""
        self._lock = threading.Lock()
        self._within: set[int] = set()

    def __enter__(self) -> None:
        with self._lock:
            self._within.add(threading.get_ident())
            if not self._is_lowered:
                usual = self._get()
                if usual > 1:
                    self._usual, self._is_lowered = usual, True
                    self._set(1)

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._within.discard(threading.get_ident())
            if self._is_lowered and not self._within:
                self._set(self._usual)
                self._is_lowered = False

    def threads(self) -> int:
        """Return how many threads BLAS may use outside of the context."""
        return self._usual if self._is_lowered else self._get()


def _openblas() -> tuple[Callable[[], int], Callable[[int], object]]:
    """Return the functions of NumPy's OpenBLAS that get and set its number of threads."""
    try:
        # A symbol is looked up in the libraries, too, that this one is linked with.
        library = ctypes.CDLL(importlib.import_module("numpy._core._multiarray_umath").__file__)
    except (ImportError, OSError):
        return _one, _nothing
    for prefix, suffix in itertools.product(("scipy_openblas", "openblas"), ("64_", "_64", "")):
        get = getattr(library, f"{prefix}_get_num_threads{suffix}", None)
        if get is not None:
            return get, getattr(library, f"{prefix}_set_num_threads{suffix}")
    return _one, _nothing


def _one() -> int:
    return 1


def _nothing(threads: int) -> None:
    """Leave a BLAS alone that is not known."""


_one_thread = _OneThread()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: _one_thread.begin_anew())

# Whether any work has been shared. Where none was, the threads of BLAS may be awaiting the next
# product, and large arrays are better left to one thread.
_has_shared = False


def share(
    work: Callable[[int, int], object], length: int, size: int, multiply_adds: int = 0
) -> None:
    """Call ``work(start, stop)`` for parts of range(length), at the same time if it is worth it.

    Parameters
    ----------
    work : callable
        Called with the bounds of parts that make up the range. They come in any order, so no part
        may need or overwrite what another one writes.
    length : int
    size, multiply_adds : int
        About how many bytes all parts go through, and in how many multiply-adds of matrix products.
        If both are few, all is one part. In any case BLAS has one thread for a part.
    """
    global _has_shared
    is_worth_it = size >= _MANY_BYTES or multiply_adds >= _HUGE
    parts = min(_one_thread.threads(), length) if is_worth_it else 1
    if (parts == 1 and multiply_adds <= _TINY) or threads.is_busy():
        # BLAS takes one thread by itself, or has one for the sake of the work around this.
        _run(work, length, parts)
        return
    with _one_thread:
        _has_shared |= parts > 1
        _run(work, length, parts)


def _run(work: Callable[[int, int], object], length: int, parts: int) -> None:
    if parts == 1:
        work(0, length)
        return
    edges = [length * part // parts for part in range(parts + 1)]
    threads.run([partial(work, *bounds) for bounds in itertools.pairwise(edges)])


def share_sum(
    term: Callable[[int, int], Array], length: int, size: int, multiply_adds: int = 0
) -> Array:
    """Return the sum of ``term(start, stop)`` over parts of range(length), shared as by `share`."""
    terms: dict[int, Array] = {}

    def work(start: int, stop: int) -> None:
        terms[start] = term(start, stop)

    share(work, length, size, multiply_adds)
    # In this order, whichever part was ready first.
    return functools.reduce(np.add, [terms[start] for start in sorted(terms)])


def elementwise(function: Callable[..., object], *arrays: Array) -> None:
    """Call ``function(*arrays)``, which goes element by element through arrays of one shape.

    In a process that has shared work before, parts of large arrays are computed at the same time.
    """
    size = arrays[0].nbytes
    if size < _MANY_BYTES or not _has_shared:
        function(*arrays)
        return
    # Parts along the axis that lies outermost in memory.
    shape, strides = arrays[0].shape, arrays[0].strides
    axis = max(range(len(shape)), key=lambda axis: (shape[axis] > 1, abs(strides[axis])))
    turned = [array.swapaxes(0, axis) for array in arrays]

    def compute(start: int, stop: int) -> None:
        function(*[array[start:stop] for array in turned])

    share(compute, len(turned[0]), size)


def product(a: Array, b: Array, out: Array | None = None, like: Array | None = None) -> Array:
    """Return the product of two matrices, as `numpy.dot`.

    The threads of BLAS stay asleep if one of the operands, or `like`, is an array for our own.
    """
    multiply_adds = a.size * b.shape[1]
    if multiply_adds <= _TINY:
        return np.dot(a, b, out)
    rows, columns = len(a), b.shape[1]
    is_large = multiply_adds >= _LARGE
    for_threads = is_large and any(
        array is not None and is_for_threads(array) for array in (a, b, like)
    )
    # A product with one row takes as long as it takes to read the matrix, which BLAS's threads do
    # from caches of their own.
    if rows == 1 or (is_large and not for_threads):
        return np.dot(a, b, out)
    result = empty((rows, columns), a.dtype, for_threads) if out is None else out
    if multiply_adds < _HUGE:
        with _one_thread:
            return np.dot(a, b, result)

    def of_rows(start: int, stop: int) -> None:
        np.matmul(a[start:stop], b, out=result[start:stop])

    def of_columns(start: int, stop: int) -> None:
        np.matmul(a, b[:, start:stop], out=result[:, start:stop])

    by_rows = rows > columns
    share(of_rows if by_rows else of_columns, max(rows, columns), result.nbytes, multiply_adds)
    return result


def as_rows(x: Array) -> Array:
    """Return `x` as a matrix: all axes but the last in one."""
    return x if x.ndim == 2 else x.reshape(-1, x.shape[-1])


def affine(x: Array, weight: Array, bias: Array | None) -> Array:
    """Return x Wᵀ + b for the rows of `x`."""
    # BLAS packs the transposed matrix, so let it be the smaller one.
    y = product(weight, x.T).T if 1 < len(x) < len(weight) else product(x, weight.T)
    if bias is not None:
        # NumPy adds to a row in half the time that it needs for a matrix of one row.
        target = y[0] if len(y) == 1 else y
        target += bias
    return y


def matmul(a: Array, b: Array, like: Array) -> Array:
    """Return the product of two matrices, in the memory order of `like`.

    Whoever reads the product and `like` together then reads both along memory.
    """
    if like.flags.c_contiguous:
        return product(a, b, like=like)
    return product(b.T, a.T, like=like).T


def column_sums(a: Array) -> Array:
    """Return the sum of each column of a matrix: a product with ones is faster than `sum`."""
    return product(ones((1, len(a)), a.dtype), a)[0]
