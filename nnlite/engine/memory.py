"""A pool of memory for large arrays, reused when no array refers to it any more.

The page faults of a new array of a megabyte cost more than the arithmetic that fills it, so layers
take large arrays from this pool. CPython counts the references to each object, and every view of
an array holds a reference to the array that owns the memory. If only the pool refers to a buffer,
no other code can read it, and it is safe to overwrite. Where references cannot be counted (another
interpreter, free-threaded Python), every buffer counts as held and none is reused.
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
    """Holds an array as the callers of `is_held` do, to measure the number of references."""

    def __init__(self) -> None:
        self.array = np.empty(0)

    def references(self) -> int:
        array = self.array
        return _references(array)


_UNHELD = _Owner().references()


def is_held(array: NDArray[Any]) -> bool:
    """Whether `array` has references besides one attribute and one local variable of the caller.

    A view is a reference to the array that owns its memory, or to the nearest array below it whose
    base is not an array.
    """
    return not _COUNTED or sys.getrefcount(array) > _UNHELD


class _Arena(np.ndarray[Any, np.dtype[Any]]):
    """Owner of memory in which several arrays may lie.

    The base of a view of a view is usually the owner of the memory, but NumPy stops at a subclass.
    So an array in an arena is the base of its own views, and `is_held` can tell for each array,
    independently of its neighbours, whether it is in use.
    """


_LINE = 64  # bytes of a cache line


def aligned(shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return an uninitialised array in C order that begins at a cache line.

    A vector that lies in two lines takes twice as long to read.
    """
    return _at_line(_Arena(math.prod(shape) * dtype.itemsize + _LINE, np.uint8), shape, dtype)


def _at_line(
    arena: _Arena, shape: tuple[int, ...], dtype: np.dtype[Any], offset: int = 0
) -> NDArray[Any]:
    """Return an array in an arena, `offset` bytes after the beginning of its first whole line."""
    start = -arena.__array_interface__["data"][0] % _LINE
    return np.ndarray(shape, dtype, buffer=arena, offset=start + offset)


def lay_out(
    shapes: list[tuple[int, ...]], dtype: np.dtype[Any]
) -> tuple[NDArray[Any], list[NDArray[Any]]]:
    """Return a flat array of zeros, and arrays of these shapes as consecutive parts of its memory.

    All these arrays, the flat one too, have the same object as their base. The flat one begins at a
    cache line.
    """
    sizes = [math.prod(shape) * dtype.itemsize for shape in shapes]
    arena = _Arena(sum(sizes) + _LINE, np.uint8)
    arena.fill(0)
    offsets = itertools.accumulate(sizes, initial=0)
    flat = _at_line(arena, (sum(sizes) // dtype.itemsize,), dtype)
    places = zip(shapes, offsets, strict=False)
    return flat, [_at_line(arena, shape, dtype, offset) for shape, offset in places]


_SMALL = 1 << 17  # bytes; below this, malloc is as fast
_PATIENCE = 512  # calls of `empty` after which an unused buffer is released
_SPARE = 1 << 27  # bytes of unused buffers from which on some are released before a new one is made


class _Pool(threading.local):
    """Buffers by size, each with the number of the last call that used it."""

    def __init__(self) -> None:
        self.buffers: dict[int, list[list[Any]]] = {}
        self.calls = 0


_pool = _Pool()


def empty(shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return an uninitialised C-ordered array, as `numpy.empty`, in reused memory if possible."""
    size = math.prod(shape) * dtype.itemsize
    if size < _SMALL:
        return np.ndarray(shape, dtype)
    _pool.calls += 1
    for entry in _pool.buffers.get(size, ()):
        buffer = entry[0]
        if not is_held(buffer):
            entry[1] = _pool.calls
            return np.ndarray(shape, dtype, buffer=buffer)
    _give_back()
    buffer = np.ndarray(size, np.uint8)
    if _COUNTED:
        _pool.buffers.setdefault(size, []).append([buffer, _pool.calls])
    return np.ndarray(shape, dtype, buffer=buffer)


def empty_like(array: NDArray[Any]) -> NDArray[Any]:
    """Return an uninitialised array, as `numpy.empty_like`, in reused memory if possible."""
    reused = reused_like(array)
    return np.empty_like(array) if reused is None else reused


def reused_like(array: NDArray[Any]) -> NDArray[Any] | None:
    """Return `empty_like(array)` if it is in reused memory, and otherwise None.

    It is the `out` of a NumPy function. With None the function allocates a small result itself,
    which takes less time.
    """
    if array.nbytes < _SMALL:
        # Without `out`, NumPy would return a number for an array without axes.
        return None if array.ndim else np.empty_like(array)
    if array.flags.c_contiguous:
        return empty(array.shape, array.dtype)
    order, back = orders(array.strides)
    return empty(tuple(array.shape[axis] for axis in order), array.dtype).transpose(back)


def reshape(x: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """Return `x` in another shape, as `numpy.reshape`.

    If the first axis keeps its size and is innermost in memory, as in arrays of images, it stays
    innermost, so that a copy, if one is needed, moves long contiguous pieces.
    """
    if shape[0] != len(x) or x.strides[0] != x.itemsize:
        return x.reshape(shape)
    rows = x.transpose(*range(1, x.ndim), 0)
    if not rows.flags.c_contiguous:
        copied = empty(rows.shape, x.dtype)
        copied[...] = rows
        rows = copied
    return rows.reshape(*shape[1:], len(x)).transpose(-1, *range(len(shape) - 1))


@functools.lru_cache(maxsize=256)
def orders(strides: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the memory order of the axes, and its inverse."""
    order = sorted(range(len(strides)), key=lambda axis: -abs(strides[axis]))
    return tuple(order), tuple(sorted(range(len(order)), key=order.__getitem__))


@functools.lru_cache(maxsize=64)
def ones(shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return a cached array of ones, to be read only: a product with it is faster than `sum`."""
    array = np.ones(shape, dtype)
    array.flags.writeable = False
    return array


def _give_back() -> None:
    """Release buffers that no call has used for long. An array in such a buffer stays valid.

    Of the other unused buffers, keep the most recent ones, up to a limit of bytes.
    """
    oldest, spare = _pool.calls - _PATIENCE, 0
    latest_first = sorted(itertools.chain(*_pool.buffers.values()), key=lambda entry: -entry[1])
    _pool.buffers.clear()
    for entry in latest_first:
        buffer = entry[0]
        is_spare = not is_held(buffer)
        spare += is_spare * buffer.nbytes
        if entry[1] > oldest and not (is_spare and spare > _SPARE):
            _pool.buffers.setdefault(buffer.nbytes, []).append(entry)
