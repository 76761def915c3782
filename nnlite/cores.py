"""Who uses the processor's cores: one thread, those of BLAS, or our own.

BLAS has threads of its own and gives a part of a product to each. Three things keep them from being
the answer to everything:

- For a product of a few million multiply-adds between steps in Python, waking and awaiting them
  takes longer than what they save, and many times longer where another program wants the same core.
  Such a product is computed by one thread.
- They compute nothing but products. Where a network's arrays are large, as in convolution, copies
  and sums take as long as the products do. Layers `share` such work among threads of our own.
- They await the next product in a loop, on the cores that the others need. So BLAS gets one thread
  for each part of shared work; and once a process has shared any, it leaves no product to them.
  (The last bit of a product can depend on how it is computed, and so on whether a process has.)

We use as many threads as BLAS would, so that what limits it (``OMP_NUM_THREADS``, threadpoolctl)
limits all. Where the BLAS is not OpenBLAS, nothing is shared and BLAS does as it likes.
"""

from __future__ import annotations

import ctypes
import importlib
import itertools
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import threads

# Multiply-adds. Up to the first, OpenBLAS takes one thread by itself; from the second on, more
# threads are faster; from the third on, ours pay, though one of them may have to be woken.
_TINY, _LARGE, _HUGE = 1 << 18, 1 << 22, 1 << 25

# Bytes of an array from which on ours pay: it takes a few tenths of a millisecond to write.
_MANY_BYTES = 1 << 22


class _OneThread:
    """Context in which OpenBLAS uses one thread; its number of threads is put back afterwards.

    Where the BLAS is another one, it does nothing.
    """

    def __init__(self) -> None:
        self._get, self._set = _openblas()
        self._lock = threading.Lock()
        self._holders = 0
        self._threads = 1

    def __enter__(self) -> None:
        with self._lock:
            if not self._holders:
                self._threads = self._get()
                if self._threads > 1:
                    self._set(1)
            self._holders += 1

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._holders -= 1
            if not self._holders and self._threads > 1:
                self._set(self._threads)

    def threads(self) -> int:
        """How many threads BLAS may use now: within the context it is one."""
        return self._get()


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
_has_shared = False


def share(
    work: Callable[[int, int], object], length: int, size: int, multiply_adds: int = 0
) -> None:
    """Call ``work(start, stop)`` for parts of range(length), at once if there is enough to do.

    Parameters
    ----------
    work : callable
        Called with the bounds of parts that make up the range. They come in any order, so no part
        may need or overwrite what another one writes.
    length : int
    size, multiply_adds : int
        How many bytes all parts write, and in how many multiply-adds of matrix products. If both
        are few, all is one part, and BLAS has one thread for it too.
    """
    global _has_shared
    is_worth_it = size >= _MANY_BYTES or multiply_adds >= _HUGE
    parts = min(_one_thread.threads(), length) if is_worth_it else 1
    if parts < 2:
        with _one_thread:
            work(0, length)
        return
    _has_shared = True
    edges = [length * part // parts for part in range(parts + 1)]
    with _one_thread:
        threads.run([partial(work, *bounds) for bounds in itertools.pairwise(edges)])


def elementwise(function: Callable[..., object], *arrays: NDArray[Any]) -> None:
    """Call ``function(*arrays)``, which goes element by element through arrays of one shape.

    In a process that has shared work before, parts of large arrays are computed at once.
    """
    size = arrays[0].nbytes
    if size < _MANY_BYTES or not _has_shared:
        function(*arrays)
        return
    # Parts along the axis that lies outermost in memory.
    strides = arrays[0].strides
    axis = max(range(len(strides)), key=lambda axis: abs(strides[axis]))
    turned = [array.swapaxes(0, axis) for array in arrays]

    def compute(start: int, stop: int) -> None:
        function(*[array[start:stop] for array in turned])

    share(compute, len(turned[0]), size)


def product(a: NDArray[Any], b: NDArray[Any], out: NDArray[Any] | None = None) -> NDArray[Any]:
    """Return the product of two matrices, as `numpy.dot`."""
    rows, columns = len(a), b.shape[1]
    multiply_adds = a.size * columns
    # A product with one row takes as long as it takes to read the matrix, which BLAS's threads do
    # from caches of their own.
    if multiply_adds <= _TINY or rows == 1:
        return np.dot(a, b, out)
    if multiply_adds < (_HUGE if _has_shared else _LARGE):
        with _one_thread:
            return np.dot(a, b, out)
    if not _has_shared:
        return np.dot(a, b, out)
    result = np.empty((rows, columns), a.dtype) if out is None else out

    def of_rows(start: int, stop: int) -> None:
        np.matmul(a[start:stop], b, out=result[start:stop])

    def of_columns(start: int, stop: int) -> None:
        np.matmul(a, b[:, start:stop], out=result[:, start:stop])

    by_rows = rows > columns
    share(of_rows if by_rows else of_columns, max(rows, columns), result.nbytes, multiply_adds)
    return result
