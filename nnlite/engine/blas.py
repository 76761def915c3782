"""Matrix products, and the use of the processor's cores.

BLAS would divide each product among threads of its own, which wait for each other and for the next
product in a busy loop. If another program needs one of the cores, each product then takes as long
as the system's scheduler lets that thread wait: milliseconds, for a product of microseconds. So
BLAS uses one thread here, and the function `share` divides large products, and copies and sums of
large arrays, among threads of our own. These sleep between two pieces of work. If a thread has not
begun its part when the caller is done with its own, the caller computes that part too.

The number of our threads is that of BLAS, so the limits set for BLAS (``OMP_NUM_THREADS``,
threadpoolctl) hold for both. With a BLAS other than OpenBLAS, no work is shared, and BLAS chooses
its own threads.

The parts, and so every bit of a result, depend only on the operands (shapes and memory order) and
on the number of threads.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib
import itertools
import os
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from . import threads
from .arrays import Array
from .memory import empty, ones

# Work is counted in multiply-adds. Measured on cores that do 10¹¹ of them, and read or write 20 GB
# of memory, per second; another thread wakes in 30 µs.

# Up to this much in a product, or elements in a dot product, OpenBLAS uses one thread anyway.
_TINY, _SHORT = 1 << 18, 10_000
# The least work that is divided among threads.
_LARGE = 10_000_000
# The extra work of the caller, which computes while the other threads wake.
_LEAD = 3_000_000
# The multiply-adds that take as long as reading or writing one byte.
_PER_BYTE = 5
# Parts of a product begin at a multiple of this many rows or columns, as the tiles of BLAS do.
_MULTIPLE = 8


class _OneThread:
    """Context in which OpenBLAS uses one thread. On exit the number of threads is restored.

    With another BLAS, and within shared work, the context does nothing. A thread must not enter it
    a second time before it has left it. If Ctrl-C arrives just as `__exit__` is called, the number
    is restored when the same thread leaves the context the next time.
    """

    def __init__(self) -> None:
        self._get, self._set = _openblas()
        self._usual = 1  # the number of threads to restore, if it was lowered
        self._is_lowered = False
        self.begin_anew()

    def begin_anew(self) -> None:
        """Forget the threads inside the context: they do not exist in a forked process."""
        # A handler of signals may multiply too, in a thread that has the lock.
        self._lock = threading.RLock()
        self._within: set[int] = set()

    def __enter__(self) -> None:
        if threads.is_busy():
            return
        try:
            with self._lock:
                self._within.add(threading.get_ident())
                if not self._is_lowered:
                    usual = self._get()
                    if usual > 1:
                        self._usual, self._is_lowered = usual, True
                        self._set(1)
        except BaseException:  # Ctrl-C
            self._leave()
            raise

    def __exit__(self, *error: object) -> None:
        if threads.is_busy():
            return
        try:
            self._leave()
        except BaseException:  # Ctrl-C
            self._leave()
            raise

    def _leave(self) -> None:
        with self._lock:
            self._within.discard(threading.get_ident())
            if self._is_lowered and not self._within:
                self._set(self._usual)
                self._is_lowered = False

    def threads(self) -> int:
        """Return the number of threads that BLAS uses outside of the context."""
        with self._lock:
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


def threads_of_products() -> int:
    """Return the number of threads that the caller may use: that of BLAS."""
    return 1 if threads.is_busy() else _one_thread.threads()


def share(
    function: Callable[[int, int], object],
    length: int,
    size: int,
    multiply_adds: int = 0,
    multiple: int = 1,
) -> None:
    """Call ``function(start, stop)`` for parts of range(length), in parallel if that is faster.

    Parameters
    ----------
    function : callable
        Called with the bounds of each part, in any order, so parts must be independent: none may
        read or overwrite elements that another one writes.
    length : int
    size, multiply_adds : int
        Approximate number of bytes that all parts read and write, and of multiply-adds in their
        matrix products. If both are small, there is one part. BLAS uses one thread for each part.
    multiple : int
        Parts begin at multiples of this, if `length` has at least two for each part.
    """
    work = max(multiply_adds, _PER_BYTE * size)
    saving = _LARGE / 2  # by the second thread
    parts = threads.parts(length, _one_thread.threads(), work, saving, _LEAD, multiple)
    if len(parts) > 1:
        with _one_thread:
            threads.run([partial(function, *bounds) for bounds in parts])
    elif work <= _TINY:
        function(0, length)  # BLAS uses one thread anyway
    else:
        with _one_thread:
            function(0, length)


def share_sum(
    term: Callable[[int, int], Array], length: int, size: int, multiply_adds: int = 0
) -> Array:
    """Return the sum of ``term(start, stop)`` over parts of range(length), using `share`."""
    terms: dict[int, Array] = {}

    def compute(start: int, stop: int) -> None:
        terms[start] = term(start, stop)

    share(compute, length, size, multiply_adds)
    # Always in this order, whichever part was ready first, for the same bits in each run.
    return functools.reduce(np.add, [terms[start] for start in sorted(terms)])


def shares(array: Array) -> bool:
    """Whether `elementwise` computes parts of arrays of this size in parallel."""
    return _PER_BYTE * array.nbytes >= _LARGE


def elementwise(function: Callable[..., object], *arrays: Array) -> None:
    """Call ``function(*arrays)``, an elementwise operation on large arrays of one shape.

    It is called for parts of them in parallel, if `shares` says so.
    """
    # Parts along the outermost axis in memory.
    shape, strides = arrays[0].shape, arrays[0].strides
    axis = max(range(len(shape)), key=lambda axis: (shape[axis] > 1, abs(strides[axis])))
    turned = [array.swapaxes(0, axis) for array in arrays]

    def compute(start: int, stop: int) -> None:
        function(*[array[start:stop] for array in turned])

    share(compute, len(turned[0]), arrays[0].nbytes)


def product(a: Array, b: Array, out: Array | None = None) -> Array:
    """Return the product of two matrices, as `numpy.dot`."""
    # The method `dot` does not look for operands of other types, as the function does.
    multiply_adds = a.size * b.shape[1]
    if multiply_adds <= _SHORT or (multiply_adds <= _TINY and max(len(a), b.shape[1]) > 1):
        return a.dot(b, out)
    result = empty((len(a), b.shape[1]), a.dtype) if out is None else out
    # With one row or column, reading a byte of the matrix takes as long as a multiply-add.
    work = max(multiply_adds, a.nbytes + b.nbytes)
    if work < _LARGE:
        with _one_thread:
            return a.dot(b, result)
    rows, columns = result.shape

    def of_rows(start: int, stop: int) -> None:
        np.matmul(a[start:stop], b, out=result[start:stop])

    def of_columns(start: int, stop: int) -> None:
        np.matmul(a, b[:, start:stop], out=result[:, start:stop])

    # BLAS takes longer for parts of the rows of a transposed matrix.
    if columns < _MULTIPLE or (rows > columns and a.flags.c_contiguous):
        share(of_rows, rows, 0, work, _MULTIPLE)
    else:
        share(of_columns, columns, 0, work, _MULTIPLE)
    return result


@contextlib.contextmanager
def products_with(matrix: Array, columns: int) -> Iterator[Callable[[Array, Array], Array]]:
    """Yield ``multiply(other, out)``, which writes the product of `matrix` and another matrix.

    Each other matrix has this number of columns. For many products in a row this is faster than
    `product`: BLAS is limited to one thread once, unless each product is divided.
    """
    work = matrix.size * columns
    if max(work, matrix.nbytes) >= _LARGE:
        yield partial(product, matrix)
    else:
        with _one_thread if work > _TINY else contextlib.nullcontext():
            yield matrix.dot


def stacked_product(a: Array, b: Array) -> Array:
    """Return the products of the matrices of two stacks, as `numpy.matmul`.

    Large work is divided, but for small matrices in stacks of different axes.
    """
    if a.ndim >= 2 and b.ndim == 2:
        return product(as_rows(a), b).reshape(*a.shape[:-1], b.shape[1])
    if min(a.ndim, b.ndim) < 2:
        with _one_thread:
            return np.matmul(a, b)
    stack, (rows, inner), columns = a.shape[:-2], a.shape[-2:], b.shape[-1]
    if stack == b.shape[:-2] and len(a) > 1 and rows * columns > 1:
        result = empty((*stack, rows, columns), a.dtype)

        def compute(start: int, stop: int) -> None:
            np.matmul(a[start:stop], b[start:stop], out=result[start:stop])

        share(compute, len(a), result.nbytes, a.size * columns)
        return result
    if rows * inner * columns < _LARGE:
        with _one_thread:
            return np.matmul(a, b)
    stack = np.broadcast_shapes(stack, b.shape[:-2])
    result = empty((*stack, rows, columns), a.dtype)
    left = np.broadcast_to(a, (*stack, rows, inner))
    right = np.broadcast_to(b, (*stack, *b.shape[-2:]))
    for place in np.ndindex(stack):
        product(left[place], right[place], result[place])
    return result


def vdot(a: Array, b: Array) -> float:
    """Return the sum of the products of the elements of two arrays of one shape."""
    if a.size <= _SHORT:
        return float(np.vdot(a, b))
    with _one_thread:
        return float(np.vdot(a, b))


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
        return product(a, b)
    return product(b.T, a.T).T


def column_sums(a: Array) -> Array:
    """Return the sum of each column of a matrix, as a product with ones: faster than `sum`."""
    return a[0] if len(a) == 1 else product(ones((1, len(a)), a.dtype), a)[0]
