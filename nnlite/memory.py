"""Memory that is used again as soon as nobody can see it any more.

A fresh array of a megabyte costs more in page faults than the arithmetic that fills it, so layers
take large arrays from here. CPython counts the references to every object, and every view of an
array holds one to the array that owns the memory: when nothing but the pool refers to a buffer,
nobody can read it, and writing into it again breaks no promise. Where references cannot be counted
(another interpreter, no global lock), everything counts as held and nothing is used again.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray


def _count_references() -> bool:
    has_lock = getattr(sys, "_is_gil_enabled", lambda: True)()
    return sys.implementation.name == "cpython" and bool(has_lock)


_COUNTED = _count_references()


def _references(array: NDArray[Any]) -> int:
    return sys.getrefcount(array)


class _Owner:
    """Keeps an array as the users of `is_held` do, to measure how many references that makes."""

    def __init__(self) -> None:
        self.array = np.empty(0)

    def references(self) -> int:
        array = self.array
        return _references(array)


_UNHELD = _Owner().references()


def is_held(array: NDArray[Any]) -> bool:
    """Whether anything but one attribute and the caller's one local variable refers to `array`.

    A view counts for the array that owns its memory, or for the nearest array below it whose base
    is not an array.
    """
    return not _COUNTED or sys.getrefcount(array) > _UNHELD
