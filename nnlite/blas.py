"""Matrix products, with as many threads as they are worth.

BLAS has threads of its own and gives half a product to each. For a product of a few million
multiply-adds between steps in Python, waking and awaiting the others takes longer than what they
save, and many times longer where another program wants the same core. Such products are computed by
one thread.
"""

from __future__ import annotations

import ctypes
import importlib
import itertools
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Multiply-adds. Up to the first, OpenBLAS takes one thread by itself; from the second on, more
# threads are faster.
_TINY, _LARGE = 1 << 18, 1 << 22


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


def product(a: NDArray[Any], b: NDArray[Any], out: NDArray[Any] | None = None) -> NDArray[Any]:
    """Return the product of two matrices, as `numpy.dot`."""
    if _TINY < a.size * b.shape[1] < _LARGE:
        with _one_thread:
            return np.dot(a, b, out)
    return np.dot(a, b, out)
