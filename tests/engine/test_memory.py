"""Memory is reused only when no reference to it is left."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

import nnlite as nn
from nnlite.engine import memory

from ..registry import Array

LARGE = (300, 300)  # of float32: 360 kB, more than the pool leaves to malloc


class Keeper:
    """Keeps an array in an attribute, as the users of `is_held` do."""

    def __init__(self, array: Array) -> None:
        self.array = array

    def is_held(self) -> bool:
        array = self.array
        return memory.is_held(array)


class Subclass(np.ndarray):  # type: ignore[type-arg]
    """An array of another class."""


HOLDS: dict[str, Callable[[Array], Any]] = {
    "a name": lambda a: a,
    "a list": lambda a: [a],
    "a view": lambda a: a[1:],
    "a view of a view": lambda a: a[1:][:, ::2].T,
    "a reshaped view": lambda a: a.reshape(-1),
    "other bytes": lambda a: a.view(np.uint8),
    "a subclass": lambda a: a.view(Subclass),
    "a broadcast": lambda a: np.broadcast_to(a, (2, *a.shape)),
    "strides": lambda a: np.lib.stride_tricks.as_strided(a, (2,), (4,)),
    "a memoryview": memoryview,
    "a buffer": lambda a: np.frombuffer(memoryview(a).cast("B"), np.uint8),
    "an iterator": iter,
    "a flat iterator": lambda a: a.flat,
    "a closure": lambda a: lambda: a,
    "an array of objects": lambda a: np.array([a, None], object)[:1],
}
every_hold = pytest.mark.parametrize("hold", HOLDS.values(), ids=HOLDS.keys())


@every_hold
def test_an_array_that_anything_refers_to_is_held(hold: Callable[[Array], Any]) -> None:
    keeper = Keeper(np.zeros((4, 6), np.float32))
    assert not keeper.is_held()
    held = hold(keeper.array)
    assert keeper.is_held()
    del held
    assert not keeper.is_held()


@every_hold
def test_an_array_of_an_arena_is_held_whatever_its_neighbours(hold: Callable[[Array], Any]) -> None:
    _, arrays = memory.lay_out([(4, 6), (4, 6), (2,)], np.dtype(np.float32))
    keepers = [Keeper(array) for array in arrays]
    del arrays
    assert [keeper.is_held() for keeper in keepers] == [False, False, False]
    held = hold(keepers[1].array)
    assert [keeper.is_held() for keeper in keepers] == [False, True, False]
    del held
    assert not keepers[1].is_held()


@given(st.lists(st.lists(st.integers(0, 4), max_size=3).map(tuple), min_size=1, max_size=6))
def test_arrays_of_an_arena_lie_one_after_the_other(shapes: list[tuple[int, ...]]) -> None:
    for dtype in (np.dtype(np.float32), np.dtype(np.float64)):
        flat, arrays = memory.lay_out(shapes, dtype)
        assert [array.shape for array in arrays] == shapes
        assert type(flat) is np.ndarray
        assert all(type(array) is np.ndarray for array in arrays)
        assert {array.dtype for array in arrays} == {dtype} == {flat.dtype}
        assert (flat == 0).all()
        flat[...] = np.arange(flat.size)
        joined = np.concatenate([array.reshape(-1) for array in arrays])
        assert_array_equal(joined, np.arange(flat.size))


@given(st.lists(st.integers(0, 9), max_size=3).map(tuple), st.sampled_from(["f4", "f8"]))
def test_memory_of_parameters_begins_at_a_cache_line(shape: tuple[int, ...], kind: str) -> None:
    dtype = np.dtype(kind)
    parameter = nn.Parameter(np.ones(shape, dtype))
    parameter.accumulate(np.ones(shape, dtype))
    arrays = [memory.aligned(shape, dtype), parameter.data, parameter.grad]
    arrays += memory.lay_out([shape, shape], dtype)[:1]
    parameter.data = np.zeros(shape)
    for array in [*arrays, parameter.data]:
        assert array is not None
        assert array.ctypes.data % 64 == 0
        assert array.dtype == dtype
        assert array.flags.c_contiguous


@every_hold
def test_memory_that_anything_refers_to_is_not_used_again(hold: Callable[[Array], Any]) -> None:
    array = memory.empty(LARGE, np.dtype(np.float32))
    address = array.ctypes.data
    held = hold(array)
    del array
    others = {memory.empty(LARGE, np.dtype(np.float32)).ctypes.data for _ in range(10)}
    assert address not in others
    del held
    assert address in {memory.empty(LARGE, np.dtype(np.float32)).ctypes.data for _ in range(10)}


def test_memory_that_nobody_can_see_is_used_again() -> None:
    def address() -> int:
        return memory.empty((301, 300), np.dtype(np.float32)).ctypes.data

    assert len({address() for _ in range(20)}) == 1


@given(
    shape=st.lists(st.integers(1, 200), min_size=1, max_size=3).map(tuple),
    dtype=st.sampled_from([np.float32, np.float64, np.int64, np.bool_]),
)
def test_empty_has_the_shape_and_dtype_asked_for(shape: tuple[int, ...], dtype: Any) -> None:
    array = memory.empty(shape, np.dtype(dtype))
    assert array.shape == shape
    assert array.dtype == dtype
    assert array.flags.c_contiguous
    assert array.flags.writeable
    assert array.flags.aligned
    array[...] = 1


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=60))
def test_arrays_that_live_at_the_same_time_never_share_memory(
    steps: list[tuple[int, bool]],
) -> None:
    alive: dict[int, Array] = {}
    for number, (place, drop) in enumerate(steps):
        if drop:
            alive.pop(place, None)
        else:
            alive[place] = memory.empty(LARGE, np.dtype(np.float32))[place:]
            alive[place][...] = number
        for a in alive.values():
            assert len(np.unique(a[0])) == 1
        values = [a[0, 0] for a in alive.values()]
        assert len(set(values)) == len(values)


def test_threads_do_not_share_memory_that_both_use() -> None:
    faults: list[str] = []

    def work(number: int) -> None:
        for _ in range(200):
            array = memory.empty(LARGE, np.dtype(np.float32))
            array[...] = number
            twin = memory.empty(LARGE, np.dtype(np.float32))
            twin[...] = -number
            if (array != number).any() or (twin != -number).any():
                faults.append(f"thread {number} saw another one's values")

    threads = [threading.Thread(target=work, args=(number,)) for number in (1, 2, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults


def test_buffers_of_sizes_that_are_no_longer_asked_for_are_given_back() -> None:
    def kept() -> int:
        return sum(
            buffer.nbytes for entries in memory._pool.buffers.values() for buffer, _ in entries
        )

    held = [memory.empty((k + 400, 400), np.dtype(np.float32)) for k in range(50)]
    full = kept()
    del held
    for size in range(700):
        memory.empty((1000 + size % 2, 100), np.dtype(np.float32))
    # New sizes are when the old ones are looked through.
    memory.empty((999, 101), np.dtype(np.float32))
    assert kept() < full / 10


def test_results_of_a_large_model_that_are_held_do_not_change(rng: np.random.Generator) -> None:
    model = nn.Sequential(nn.Linear(200, 200), nn.ReLU(), nn.Linear(200, 200), nn.Sigmoid())
    optimizer = nn.SGD(model.parameters(), lr=0.1, momentum=0.9)
    seen: list[tuple[Array, Array]] = []
    for step in range(9):
        x = rng.normal(size=(200, 200)).astype(np.float32)
        y = model(x)
        grad = rng.normal(size=y.shape).astype(np.float32)
        optimizer.zero_grad()
        x_grad = model.backward(grad)
        # Some are held for good, some through a view, and some for no longer than this step.
        if step % 3 == 0:
            seen += [(array, array.copy()) for array in (y, x_grad, model[0].weight.grad)]
        elif step % 3 == 1:
            seen += [(array[5:].T, array[5:].T.copy()) for array in (y, x_grad)]
        optimizer.step()
        for array, before in seen:
            assert_array_equal(array, before)


def test_training_with_memory_used_again_gives_the_same_bits_as_without(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def train() -> dict[str, Array]:
        model = nn.Sequential(nn.Linear(200, 200, rng=0), nn.ReLU(), nn.Linear(200, 10, rng=1))
        loss = nn.CrossEntropy()
        optimizer = nn.SGD(model.parameters(), lr=0.1, momentum=0.9)
        rng = np.random.default_rng(0)
        for _ in range(5):
            x = rng.normal(size=(200, 200)).astype(np.float32)
            loss(model(x), rng.integers(10, size=200))
            optimizer.zero_grad()
            model.backward(loss.backward())
            optimizer.step()
        return model.state_dict()

    used_again = train()
    monkeypatch.setattr(memory, "_COUNTED", False)
    fresh = train()
    for name in fresh:
        assert_array_equal(used_again[name], fresh[name])


def test_of_memory_that_nobody_uses_only_so_much_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_pool", memory._Pool())
    monkeypatch.setattr(memory, "_SPARE", 1 << 20)
    held = [memory.empty((1 << 18, n), np.dtype(np.uint8)) for n in (1, 2, 3, 4, 5)]
    kept = held.pop()
    del held  # 10 of 15 quarters of a megabyte are spare now
    memory.empty((1 << 18, 6), np.dtype(np.uint8))
    sizes = sorted(size >> 18 for size in memory._pool.buffers)
    assert sizes == [
        4,
        5,
        6,
    ]  # the latest megabyte of the spare ones, what is held, and what is new
    del kept
