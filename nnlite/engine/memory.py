"""Memory that is used again as soon as nobody can see it any more.

A fresh array of a megabyte costs more in page faults than the arithmetic that fills it, so layers
take large arrays from here. CPython counts the references to every object, and every view of an
array holds one to the array that owns the memory: when nothing but the pool refers to a buffer,
nobody can read it, and writing into it again breaks no promise. Where references cannot be counted
(another interpreter, no global lock), everything counts as held and nothing is used again.
"""

from __future__ import annotations

import functools
import itertools
import math
import sys
import threading
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


class _Arena(np.ndarray[Any, np.dtype[Any]]):
    """Owner of memory that several arrays share.

    NumPy makes the owner of the memory the base of a view of a view, but it stops short of a
    subclass. So an array in an arena is the base of its own views, and `is_held` tells of each
    array whether anybody looks at it, whatever happens to its neighbours.
    """


def lay_out(
    shapes: list[tuple[int, ...]], dtype: np.dtype[Any]
) -> tuple[NDArray[Any], list[NDArray[Any]]]:
    """Return a flat array of zeros, and arrays of these shapes one after the other in its memory.

    The base of the flat array and of all the others is one and the same object.
    """
    sizes = [math.prod(shape) for shape in shapes]
    arena: _Arena = _Arena(sum(sizes), dtype)
    arena.fill(0)
    offsets = [0, *itertools.accumulate(size * dtype.itemsize for size in sizes)]
    arrays = [
        np.ndarray(shape, dtype, buffer=arena, offset=offset)
        for shape, offset in zip(shapes, offsets, strict=False)
    ]
    return arena.view(np.ndarray), arrays


_SMALL = 1 << 17  # bytes; below this, malloc serves as well
_PATIENCE = 512  # calls of `empty`, after which a buffer that none of them used is given back
_SPARE = 1 << 25  # bytes that nobody uses, beyond which some are given back before more are taken


class _ForThreads(np.ndarray[Any, np.dtype[Any]]):
    """Owner of memory for arrays that threads of our own work on."""


def is_for_threads(array: NDArray[Any]) -> bool:
    """Whether `array` was made by ``empty(..., for_threads=True)``, or is a view of such an array.

    `empty_like` hands this on, so that it holds for all arrays that are computed from images.
    """
    # The memory's owner is the base of an array and, being a subclass, not that of a view of it.
    base = array.base
    return type(base) is _ForThreads or type(getattr(base, "base", None)) is _ForThreads


class _Pool(threading.local):
    """Buffers by owner and size, each with the number of the call that used it last."""

    def __init__(self) -> None:
        self.buffers: dict[tuple[type, int], list[list[Any]]] = {}
        self.calls = 0


_pool = _Pool()


def empty(shape: tuple[int, ...], dtype: np.dtype[Any], for_threads: bool = False) -> NDArray[Any]:
    """Return an uninitialised C-ordered array, as `numpy.empty`, in used memory where there is any.

    The memory was part of an earlier array that nobody can see any more. `for_threads` marks the
    array as one that threads of our own work on: see `is_for_threads`.
    """
    owner: type[NDArray[Any]] = _ForThreads if for_threads else np.ndarray
    size = math.prod(shape) * dtype.itemsize
    array: NDArray[Any]
    if size < _SMALL:
        array = owner(shape, dtype)
        return array.view(np.ndarray) if for_threads else array
    _pool.calls += 1
    for entry in _pool.buffers.get((owner, size), ()):
        buffer = entry[0]
        if not is_held(buffer):
            entry[1] = _pool.calls
            array = np.ndarray(shape, dtype, buffer=buffer)
            return array
    _give_back()
    buffer = owner(size, np.uint8)
    if _COUNTED:
        _pool.buffers.setdefault((owner, size), []).append([buffer, _pool.calls])
    array = np.ndarray(shape, dtype, buffer=buffer)
    return array


def empty_like(array: NDArray[Any]) -> NDArray[Any]:
    """Return an uninitialised array, as `numpy.empty_like`, in used memory where there is any.

    Its axes lie in memory in the same order as those of `array`, and it is for threads alike.
    """
    for_threads = array.base is not None and is_for_threads(array)
    if array.nbytes < _SMALL and not for_threads:
        return np.empty_like(array)
    if array.flags.c_contiguous:
        return empty(array.shape, array.dtype, for_threads)
    order, back = _orders(array.strides)
    shape = tuple(array.shape[axis] for axis in order)
    return empty(shape, array.dtype, for_threads).transpose(back)


def reshape(x: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """Return `x` in another shape, as `numpy.reshape`.

    Where the first axis stays and lies innermost in memory, as in arrays of images, it stays
    innermost: a copy, if there has to be one, is of long stretches.
    """
    if shape[0] != len(x) or x.strides[0] != x.itemsize:
        return x.reshape(shape)
    rows = x.transpose(*range(1, x.ndim), 0)
    if not rows.flags.c_contiguous:
        copied = empty(rows.shape, x.dtype, is_for_threads(x))
        copied[...] = rows
        rows = copied
    return rows.reshape(*shape[1:], len(x)).transpose(-1, *range(len(shape) - 1))


@functools.lru_cache(maxsize=256)
def _orders(strides: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the order in which the axes lie in memory, and the one that leads back."""
    order = sorted(range(len(strides)), key=lambda axis: -abs(strides[axis]))
    return tuple(order), tuple(sorted(range(len(order)), key=order.__getitem__))


@functools.lru_cache(maxsize=64)
def ones(shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return an array of ones to read from, made once: a product with it sums faster than `sum`."""
    array = np.ones(shape, dtype)
    array.flags.writeable = False
    return array


def _give_back() -> None:
    """Let go of the buffers that no call has used for long; who holds one of them keeps it.

    Of those that nobody holds, the ones that were used last stay, as long as they are not too much.
    """
    oldest, spare = _pool.calls - _PATIENCE, 0
    latest_first = sorted(itertools.chain(*_pool.buffers.values()), key=lambda entry: -entry[1])
    _pool.buffers.clear()
    for entry in latest_first:
        buffer = entry[0]
        is_spare = not is_held(buffer)
        spare += is_spare * buffer.nbytes
        if entry[1] > oldest and not (is_spare and spare > _SPARE):
            _pool.buffers.setdefault((type(buffer), buffer.nbytes), []).append(entry)
