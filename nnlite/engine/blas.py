"""Matrix products, and the use of the processor's cores: one thread, those of BLAS, or our own.

BLAS divides each product among its own threads. They are not always the best choice:

- For a product of a few million multiply-adds between steps in Python, waking and joining the
  threads costs about as much as they save, and many times more if another program competes for the
  cores. One thread computes such a product.
- BLAS computes only products. In networks with large arrays, such as convolutional ones, copies and
  sums take as long as the products. The function `share` divides such work among our own threads.
- BLAS's threads wait for the next product in a busy loop and occupy the cores that our threads
  need. So within shared work BLAS uses one thread for each part. A product does not use BLAS's
  threads either if an operand was computed from images by our threads, as `memory.is_for_threads`
  tells. In a network with convolutions they would occupy half of the cores.

The number of our threads is that of BLAS, so the limits set for BLAS (``OMP_NUM_THREADS``,
threadpoolctl) hold for both. With a BLAS other than OpenBLAS, no work is shared, and BLAS chooses
its own threads.

The algorithm, and so every bit of a result, depends only on the operands (shapes, memory order and
origin) and on the number of threads.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib
import itertools
import os
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from . import threads
from .arrays import Array
from .memory import empty, is_for_threads, ones

# Measured on cores of about 5·10¹⁰ multiply-adds and 10 GB of memory traffic per second.

# Multiply-adds. Up to the first, OpenBLAS uses one thread anyway. From the second on, its threads
# are faster. From the third on, our threads are faster even if one of them has to be woken.
_TINY, _LARGE, _HUGE = 1 << 18, 1 << 22, 1 << 24

# Bytes of an array from which on our threads are faster.
_MANY_BYTES = 1 << 21


class _OneThread:
    """Context in which OpenBLAS uses one thread. On exit the number of threads is restored.

    With another BLAS the context does nothing. If Ctrl-C arrives between two of its lines, the
    number is restored when the same thread leaves the context the next time.
    """

    def __init__(self) -> None:
        self._get, self._set = _openblas()
        self._usual = 1  # the number of threads to restore, if it was lowered
        self._is_lowered = False
        self.begin_anew()

    def begin_anew(self) -> None:
        """Forget the threads inside the context: they do not exist in a forked process."""
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
        """Return the number of threads that BLAS uses outside of the context."""
        return self._usual if self._is_lowered else self._get()


def _openblas() -> tuple[Callable[[], int], Callable[[int], object]]:
    """Return the functions of NumPy's OpenBLAS that get and set its number of threads."""
    get, put = _function("get_num_threads"), _function("set_num_threads")
    return (get, put) if get is not None else (_one, _nothing)


def _function(name: str) -> Any:
    """Return the function ``openblas_NAME`` of NumPy's OpenBLAS, or None with another BLAS."""
    try:
        # The lookup includes the libraries that this one is linked with.
        library = ctypes.CDLL(importlib.import_module("numpy._core._multiarray_umath").__file__)
    except (ImportError, OSError):
        return None
    for prefix, suffix in itertools.product(("scipy_openblas", "openblas"), ("64_", "_64", "")):
        function = getattr(library, f"{prefix}_{name}{suffix}", None)
        if function is not None:
            return function
    return None


def _one() -> int:
    return 1


def _nothing(threads: int) -> None:
    """Set the number of threads of an unknown BLAS: do nothing."""


_one_thread = _OneThread()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: _one_thread.begin_anew())


def one_thread(multiply_adds: int) -> contextlib.AbstractContextManager[object]:
    """Return a context in which BLAS uses one thread for products of this size, unless it is huge.

    It is for many products in a row that depend on each other. BLAS's threads, which wait for the
    next product in a busy loop, would save a sixth of the time of an LSTM on an idle machine, and
    take ten times as long where another program competes for the cores.
    """
    # For tiny products BLAS uses one thread anyway.
    return _one_thread if _TINY < multiply_adds < _HUGE else contextlib.nullcontext()


# Whether any work has been shared yet. If not, the threads of BLAS may be waiting in their busy
# loop, and one thread is better for large arrays.
_has_shared = False


def threads_of_products() -> int:
    """Return the number of threads that the caller may use: that of BLAS."""
    return 1 if threads.is_busy() else _one_thread.threads()


def share(
    work: Callable[[int, int], object], length: int, size: int, multiply_adds: int = 0
) -> None:
    """Call ``work(start, stop)`` for parts of range(length), in parallel if that is faster.

    Parameters
    ----------
    work : callable
        Called with the bounds of each part, in any order, so parts must be independent: none may
        read or overwrite elements that another one writes.
    length : int
    size, multiply_adds : int
        Approximate number of bytes that all parts read and write, and of multiply-adds in their
        matrix products. If both are small, there is one part. BLAS uses one thread for each part.
    """
    global _has_shared
    is_worth_it = size >= _MANY_BYTES or multiply_adds >= _HUGE
    parts = min(_one_thread.threads(), length) if is_worth_it else 1
    if (parts == 1 and multiply_adds <= _TINY) or threads.is_busy():
        # BLAS uses one thread anyway, or is limited to one by the caller's own `share`.
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
    """Return the sum of ``term(start, stop)`` over parts of range(length), using `share`."""
    terms: dict[int, Array] = {}

    def work(start: int, stop: int) -> None:
        terms[start] = term(start, stop)

    share(work, length, size, multiply_adds)
    # Always in this order, whichever part was ready first, for the same bits in each run.
    return functools.reduce(np.add, [terms[start] for start in sorted(terms)])


def shares(array: Array) -> bool:
    """Whether `elementwise` computes parts of arrays of this size in parallel."""
    return _has_shared and array.nbytes >= _MANY_BYTES


def elementwise(function: Callable[..., object], *arrays: Array) -> None:
    """Call ``function(*arrays)``, an elementwise operation on arrays of one shape.

    In a process that has shared work before, parts of large arrays are computed in parallel.
    """
    if not shares(arrays[0]):
        function(*arrays)
        return
    # Parts along the outermost axis in memory.
    shape, strides = arrays[0].shape, arrays[0].strides
    axis = max(range(len(shape)), key=lambda axis: (shape[axis] > 1, abs(strides[axis])))
    turned = [array.swapaxes(0, axis) for array in arrays]

    def compute(start: int, stop: int) -> None:
        function(*[array[start:stop] for array in turned])

    share(compute, len(turned[0]), arrays[0].nbytes)


def product(a: Array, b: Array, out: Array | None = None, like: Array | None = None) -> Array:
    """Return the product of two matrices, as `numpy.dot`.

    BLAS uses one thread if one of the operands, or `like`, is an array for our own threads.
    """
    # The method `dot` does not look for operands of other types, as the function does.
    multiply_adds = a.size * b.shape[1]
    if multiply_adds <= _TINY:
        return a.dot(b, out)
    rows, columns = len(a), b.shape[1]
    is_large = multiply_adds >= _LARGE
    for_threads = is_large and any(
        array is not None and is_for_threads(array) for array in (a, b, like)
    )
    # The time of a product with one row is that of reading the matrix, and each of BLAS's threads
    # reads from its own cache.
    if rows == 1 or (is_large and not for_threads):
        return a.dot(b, out)
    result = empty((rows, columns), a.dtype, for_threads) if out is None else out
    if multiply_adds < _HUGE:
        with _one_thread:
            return a.dot(b, result)

    def of_rows(start: int, stop: int) -> None:
        np.matmul(a[start:stop], b, out=result[start:stop])

    def of_columns(start: int, stop: int) -> None:
        np.matmul(a, b[:, start:stop], out=result[:, start:stop])

    by_rows = rows > columns
    share(of_rows if by_rows else of_columns, max(rows, columns), result.nbytes, multiply_adds)
    return result


def stacked_product(a: Array, b: Array) -> Array:
    """Return the products of the matrices of two stacks (N, …, n, k) and (N, …, k, m).

    Each product is too small for BLAS's threads; large stacks are shared among ours.
    """
    result = empty((*a.shape[:-1], b.shape[-1]), a.dtype)

    def compute(start: int, stop: int) -> None:
        np.matmul(a[start:stop], b[start:stop], out=result[start:stop])

    share(compute, len(a), result.nbytes, a.size * b.shape[-1])
    return result


def as_rows(x: Array) -> Array:
    """Return `x` as a matrix, with all axes but the last merged."""
    return x if x.ndim == 2 else x.reshape(-1, x.shape[-1])


def affine(x: Array, weight: Array, bias: Array | None) -> Array:
    """Return x Wᵀ + b for the rows of `x`."""
    # BLAS packs the transposed matrix, so transpose the smaller one.
    y = product(weight, x.T).T if 1 < len(x) < len(weight) else product(x, weight.T)
    if bias is not None:
        # NumPy adds two vectors in half the time of adding a vector to a matrix of one row.
        target = y[0] if len(y) == 1 else y
        target += bias
    return y


def matmul(a: Array, b: Array, like: Array) -> Array:
    """Return the product of two matrices, in the memory order of `like`.

    A later operation on the product and `like` then reads both contiguously.
    """
    if like.flags.c_contiguous:
        return product(a, b, like=like)
    return product(b.T, a.T, like=like).T


def column_sums(a: Array) -> Array:
    """Return the sum of each column of a matrix, as a product with ones: faster than `sum`."""
    return a[0] if len(a) == 1 else product(ones((1, len(a)), a.dtype), a)[0]
