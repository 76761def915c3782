"""Shared work gives the results of one thread and restores the number of BLAS threads."""

from __future__ import annotations

import ctypes
import importlib
import itertools
import os
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import nnlite as nn
from nnlite.engine import blas as cores
from nnlite.engine import windows, winograd

from ..registry import Array

# Multiply-adds: up to 2^18, more, and more than 10^7, with many columns or many rows.
SHAPES = [
    (1, 784, 10),
    (64, 64, 64),
    (64, 64, 65),
    (32, 784, 128),
    (110, 784, 130),
    (1030, 784, 13),
]


class Counter:
    """A replacement for OpenBLAS that records the numbers of threads set."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self.seen: list[int] = []

    def get(self) -> int:
        return self.threads

    def set(self, threads: int) -> None:
        self.threads = threads
        self.seen.append(threads)


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Counter:
    counter = Counter(4)
    monkeypatch.setattr(cores, "_openblas", lambda: (counter.get, counter.set))
    monkeypatch.setattr(cores, "_one_thread", cores._OneThread())
    return counter


@pytest.fixture
def eager(library: Counter, monkeypatch: pytest.MonkeyPatch) -> Counter:
    """Let four threads share everything evenly, be it ever so small."""
    for limit in ("_SHORT", "_TINY", "_LARGE", "_LEAD"):
        monkeypatch.setattr(cores, limit, 0)
    return library


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("rows", "inner", "columns"), SHAPES)
def test_product_of_small_integers_is_exact(
    rows: int, inner: int, columns: int, dtype: Any, rng: np.random.Generator
) -> None:
    a, b = rng.integers(-3, 4, (rows, inner)), rng.integers(-3, 4, (columns, inner)).T
    expected = a @ b  # of integers, which BLAS does not multiply
    assert_array_equal(cores.product(a.astype(dtype), b.astype(dtype)), expected)
    out = np.empty(expected.shape, dtype)
    assert cores.product(a.astype(dtype), b.astype(dtype), out) is out
    assert_array_equal(out, expected)


@pytest.mark.parametrize(
    ("shape", "seen"),
    [
        ((1, 784, 10), []),
        ((64, 64, 64), []),
        ((1, 10_000, 1), []),
        ((1, 10_001, 1), [1, 4]),  # a dot product, which BLAS divides sooner
        ((64, 64, 65), [1, 4]),
        ((110, 784, 130), [1, 4]),
        ((1, 1024, 1024), [1, 4]),
    ],
)
def test_blas_has_one_thread_for_what_it_would_divide(
    shape: tuple[int, int, int], seen: list[int], library: Counter
) -> None:
    rows, inner, columns = shape
    cores.product(np.ones((rows, inner)), np.ones((inner, columns)))
    assert (library.seen, library.threads) == (seen, 4)


@pytest.mark.parametrize(
    ("shape", "seen"),
    [
        ((64, 64, 64), []),
        ((32, 784, 128), [1, 4]),
        ((110, 784, 130), [1, 4, 1, 4]),  # each of both is divided
        ((1600, 1600, 1), [1, 4, 1, 4]),
    ],
)
def test_products_with_a_matrix_are_those_of_single_ones(
    shape: tuple[int, int, int], seen: list[int], library: Counter, rng: np.random.Generator
) -> None:
    rows, inner, columns = shape
    a, b = rng.integers(-3, 4, (rows, inner)), rng.integers(-3, 4, (inner, columns))
    with cores.products_with(a.astype(float), columns) as multiply:
        for factor in (1, 2):
            out = np.empty((rows, columns))
            assert multiply(factor * b.astype(float), out) is out
            assert_array_equal(out, factor * (a @ b))
    assert library.seen == seen


def test_stacks_of_any_axes_are_those_of_numpy(eager: Counter, rng: np.random.Generator) -> None:
    lefts = [(3,), (2, 3), (4, 2, 3), (5, 4, 2, 3)]
    rights = [(3,), (3, 2), (4, 3, 2), (1, 4, 3, 2)]
    for left, right in itertools.product(lefts, rights):
        a, b = rng.integers(-3, 4, left), rng.integers(-3, 4, right)
        eager.seen.clear()
        result = cores.stacked_product(a.astype(float), b.astype(float))
        assert_array_equal(result, np.matmul(a, b))  # of integers, which BLAS does not multiply
        assert set(eager.seen) == {1, 4}  # once, or for each matrix
        assert eager.threads == 4


def test_number_of_threads_is_put_back_after_an_error(library: Counter) -> None:
    with pytest.raises(ValueError, match="not aligned"):
        cores.product(np.ones((100, 100)), np.ones((99, 100)))
    assert (library.seen, library.threads) == ([1, 4], 4)


def test_number_of_threads_is_put_back_when_the_last_of_several_is_done(library: Counter) -> None:
    one, inside, leave = cores._one_thread, threading.Event(), threading.Event()

    def hold() -> None:
        with one:
            inside.set()
            leave.wait(10)

    other = threading.Thread(target=hold)
    other.start()
    inside.wait(10)
    with one:
        assert library.threads == 1
    assert library.threads == 1  # the other still needs it
    leave.set()
    other.join()
    assert (library.seen, library.threads) == ([1, 4], 4)


def test_a_blas_with_one_thread_is_left_alone(library: Counter) -> None:
    library.threads = 1
    with cores._one_thread:
        pass
    assert library.seen == []


def test_another_blas_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    with cores._OneThread():
        assert cores.product(np.ones((100, 100)), np.ones((100, 100)))[0, 0] == 100


def test_the_number_of_openblas_comes_and_goes() -> None:
    threads, _ = cores._openblas()
    before = threads()
    with cores._one_thread:
        assert threads() == 1
    assert threads() == before


def test_a_sum_of_products_has_one_thread_too(library: Counter) -> None:
    assert cores.vdot(np.full((100, 100), 2.0), np.full((100, 100), 7.0)) == 140_000
    assert library.seen == []  # BLAS does not divide so few
    assert cores.vdot(np.full((100, 101), 2.0), np.full((100, 101), 7.0)) == 141_400
    assert library.seen == [1, 4]


@pytest.mark.parametrize("library", [None, object()], ids=["no file", "no such function"])
def test_a_blas_without_these_functions_is_left_alone(
    library: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(name: str) -> Any:
        if library is None:
            raise OSError(name)
        return library

    monkeypatch.setattr(ctypes, "CDLL", load)
    one = cores._OneThread()
    assert one.threads() == 1
    with one:
        assert one.threads() == 1


def test_two_that_need_one_thread_at_the_same_time_take_turns(library: Counter) -> None:
    # Slow enough that the second would come before the first is done.
    def get() -> int:
        threads = library.threads
        time.sleep(0.05)
        return threads

    def hold() -> None:
        together.wait()
        with one:
            together.wait()

    one, together = cores._one_thread, threading.Barrier(2, timeout=10)
    one._get = get
    callers = [threading.Thread(target=hold) for _ in range(2)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert (library.seen, library.threads) == ([1, 4], 4)


def test_who_comes_while_the_threads_are_put_back_has_one_all_the_same(library: Counter) -> None:
    leaving, seen = threading.Event(), []

    def put_back(threads: int) -> None:
        if threads > 1:
            leaving.set()
            time.sleep(0.1)
        library.set(threads)

    def come() -> None:
        leaving.wait(10)
        with one:
            time.sleep(0.2)
            seen.append(library.threads)

    one = cores._one_thread
    one._set = put_back
    other = threading.Thread(target=come)
    other.start()
    with one:
        pass
    other.join()
    assert (seen, library.threads) == ([1], 4)


def test_elementwise_work_on_any_memory_order_is_complete(eager: Counter) -> None:
    # Along the outermost axis, which is longer or shorter than the first one, or runs backwards.
    for shape in [(2, 9), (9, 2), (3, 2, 11)]:
        for x in (np.ones(shape), np.ones(shape[::-1]).T, np.ones(shape[::-1]).T[..., ::-1]):
            y = np.zeros_like(x)
            cores.elementwise(np.add, x, x, y)
            assert_array_equal(y, np.full(shape, 2))


# ---- shared work ----


@pytest.mark.parametrize("length", [1, 2, 3, 4, 5, 11])
def test_parts_make_up_the_range(length: int, eager: Counter) -> None:
    bounds: list[tuple[int, int]] = []
    cores.share(lambda start, stop: bounds.append((start, stop)), length, 1)
    assert len(bounds) == min(length, 4)
    starts, stops = zip(*sorted(bounds), strict=True)
    assert starts == (0, *stops[:-1])
    assert stops[-1] == length
    assert all(start < stop for start, stop in bounds)


def test_blas_has_one_thread_while_work_is_shared(eager: Counter) -> None:
    seen: list[int] = []
    cores.share(lambda start, stop: seen.append(eager.threads), 8, 1)
    assert seen == [1] * 4
    assert eager.threads == 4


def test_blas_has_its_threads_back_after_an_error(eager: Counter) -> None:
    def fail(start: int, stop: int) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        cores.share(fail, 8, 1)
    assert eager.threads == 4


def test_parts_within_a_part_are_the_same_and_take_turns(eager: Counter) -> None:
    bounds: dict[int, list[tuple[int, int]]] = {}

    def work(start: int, stop: int) -> None:
        def note(first: int, last: int) -> None:
            bounds.setdefault(start, []).append((first, last))

        cores.share(note, 100, 1)

    cores.share(work, 4, 1)
    assert list(bounds.values()) == [[(0, 25), (25, 50), (50, 75), (75, 100)]] * 4


def test_the_parts_do_not_depend_on_what_other_threads_do(eager: Counter) -> None:
    bounds: list[tuple[int, int]] = []
    inside, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with cores._one_thread:
            inside.set()
            leave.wait(10)

    other = threading.Thread(target=hold)
    other.start()
    inside.wait(10)
    cores.share(lambda start, stop: bounds.append((start, stop)), 8, 1)
    leave.set()
    other.join()
    assert sorted(bounds) == [(0, 2), (2, 4), (4, 6), (6, 8)]


def test_a_sum_is_taken_in_the_order_of_its_parts(eager: Counter) -> None:
    def term(start: int, stop: int) -> Any:
        time.sleep(0.02 * (3 - start))  # the last is ready first
        return np.array([1e16, 1.0, -1e16, 1.0])[start:stop]

    assert cores.share_sum(term, 4, 1) == 1  # ((1e16 + 1) - 1e16) + 1


@pytest.mark.parametrize("after", ["add", "get", "set"])
def test_an_interruption_leaves_the_number_of_threads_as_it_was(
    after: str, library: Counter, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Interrupted:
        """The number of threads, or the set of those within, cut short by a Ctrl-C."""

        is_armed = True

        def __init__(self, call: Any) -> None:
            self.call = call

        def __call__(self, *arguments: Any) -> Any:
            result = self.call(*arguments)
            if Interrupted.is_armed:
                Interrupted.is_armed = False
                raise KeyboardInterrupt
            return result

    class Within(set[int]):
        def add(self, ident: int) -> None:
            Interrupted(super().add)(ident)

    one = cores._one_thread
    if after == "add":
        one._within = Within()
    else:
        monkeypatch.setattr(one, f"_{after}", Interrupted(getattr(library, after)))
    with pytest.raises(KeyboardInterrupt), one:
        pass
    assert library.threads == 4
    with one:
        assert library.threads == 1
    assert library.threads == 4


@pytest.mark.parametrize("place", ["discard", "set"])
def test_an_interruption_on_leaving_does_not_keep_the_threads(
    place: str, library: Counter, monkeypatch: pytest.MonkeyPatch
) -> None:
    armed = [True]

    def interrupt() -> None:
        if armed.pop():
            armed.append(False)
            raise KeyboardInterrupt

    class Within(set[int]):
        def discard(self, ident: int) -> None:
            super().discard(ident)
            interrupt()

    def put(threads: int) -> None:
        library.set(threads)
        if threads > 1:
            interrupt()

    one = cores._one_thread
    if place == "discard":
        one._within = Within()
    else:
        monkeypatch.setattr(one, "_set", put)
    with pytest.raises(KeyboardInterrupt), one:
        pass
    assert (one._within, one._is_lowered, library.threads) == (set(), False, 4)


def test_a_handler_of_signals_may_multiply_while_the_threads_are_counted(library: Counter) -> None:
    one = cores._one_thread

    def get() -> int:
        one._get = library.get
        cores.product(np.ones((100, 100)), np.ones((100, 100)))  # as a handler does
        return library.threads

    def enter() -> None:
        with one:
            seen.append(library.threads)

    one._get, seen = get, []
    caller = threading.Thread(target=enter, daemon=True)
    caller.start()
    caller.join(10)
    assert (seen, library.threads) == ([1], 4)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_forked_process_does_not_wait_for_threads_that_it_lacks() -> None:
    script = """
import os, threading
from nnlite.engine import blas as cores
threads = cores._one_thread.threads()
inside, leave = threading.Event(), threading.Event()
def hold():
    with cores._one_thread, cores._one_thread._lock:
        inside.set()
        leave.wait(30)
other = threading.Thread(target=hold)
other.start()
inside.wait()
child = os.fork()
if not child:
    with cores._one_thread:
        pass
    os._exit(cores._openblas()[0]() != threads)
assert os.waitpid(child, 0)[1] == 0
leave.set()
other.join()
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", script], check=True, timeout=60)


def test_little_work_is_not_shared(library: Counter) -> None:
    bounds: list[tuple[int, int]] = []
    cores.share(lambda start, stop: bounds.append((start, stop)), 8, 10**6, 10**7 - 1)
    assert bounds == [(0, 8)]
    assert library.seen == [1, 4]  # one thread has all of it
    cores.share(lambda start, stop: bounds.append((start, stop)), 8, 2 * 10**6)
    cores.share(lambda start, stop: bounds.append((start, stop)), 8, 0, 10**7)
    assert len(bounds) == 5


def test_the_number_of_threads_is_the_usual_one_while_another_thread_lowers_it(
    library: Counter,
) -> None:
    one, asked, lowered = cores._one_thread, threading.Event(), threading.Event()

    def get() -> int:
        if threading.current_thread() is threading.main_thread():
            asked.set()
            lowered.wait(0.2)
        return library.threads

    def lower() -> None:
        asked.wait(10)
        with one:
            lowered.set()
            time.sleep(0.3)

    one._get = get
    other = threading.Thread(target=lower)
    other.start()
    assert one.threads() == 4
    other.join()


def test_products_within_shared_work_leave_the_threads_alone(eager: Counter) -> None:
    def work(start: int, stop: int) -> None:
        for _ in range(2):
            cores.product(np.ones((64, 65)), np.ones((65, 64)))
            assert eager.threads == 1

    cores.share(work, 4, 1)
    assert (eager.seen, eager.threads) == ([1, 4], 4)


def test_with_one_thread_nothing_is_shared(eager: Counter) -> None:
    eager.threads = 1
    bounds: list[tuple[int, int]] = []
    cores.share(lambda start, stop: bounds.append((start, stop)), 8, 1)
    assert bounds == [(0, 8)]


@pytest.mark.parametrize(("rows", "inner", "columns"), [*SHAPES, (300, 20, 3), (5, 2, 4)])
def test_a_shared_product_of_small_integers_is_exact(
    rows: int, inner: int, columns: int, eager: Counter, rng: np.random.Generator
) -> None:
    a, b = rng.integers(-3, 4, (rows, inner)), rng.integers(-3, 4, (columns, inner)).T
    for left in (a.astype(float), np.asfortranarray(a.astype(float))):
        assert_array_equal(cores.product(left, b.astype(float)), a @ b)
    assert eager.seen == [1, 4] * 2


def test_a_layer_computes_the_same_wherever_it_stands_or_stood(rng: np.random.Generator) -> None:
    alone, moved = nn.Linear(784, 128, rng=0), nn.Linear(784, 128, rng=0)
    before = nn.Sequential(nn.Conv2d(1, 1, 3), nn.Flatten(), moved)
    del before[0], before[0]
    x = rng.normal(size=(128, 784)).astype(np.float32)
    assert_array_equal(before(x), alone(x))
    grad = rng.normal(size=(128, 128)).astype(np.float32)
    assert_array_equal(before.backward(grad), alone.backward(grad))
    assert_array_equal(moved.weight.grad, alone.weight.grad)

    within = nn.Linear(784, 128, rng=0)
    images = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1, rng=1), nn.MaxPool2d(2), nn.Flatten())
    model = nn.Sequential(images, within)
    x = rng.normal(size=(128, 1, 28, 28)).astype(np.float32)
    assert_array_equal(model(x), alone(images(x)))


def _run(calls: list[Any], runs: list[int]) -> None:
    """Run the calls, and note how many there are."""
    runs.append(len(calls))
    run(calls)


run = cores.threads.run

LAYERS: dict[str, Any] = {
    "convolution": (lambda: nn.Conv2d(3, 4, 3, padding=1, rng=0), (5, 3, 7, 6)),
    "strided": (lambda: nn.Conv2d(3, 4, (3, 2), 2, 1, 2, rng=0), (5, 3, 9, 8)),
    "pointwise": (lambda: nn.Conv2d(3, 4, 1, rng=0), (5, 3, 4, 5)),
    "pointwise, strided": (lambda: nn.Conv2d(3, 4, 1, (2, 1), rng=0), (5, 3, 9, 5)),
    "Winograd": (lambda: nn.Conv2d(16, 16, 3, padding=1, rng=0), (33, 16, 7, 6)),
    "largest": (lambda: nn.MaxPool2d(2), (5, 3, 8, 6)),
    "largest, overlapping": (lambda: nn.MaxPool2d(3, 1), (5, 3, 6, 8)),
    "mean": (lambda: nn.AvgPool2d(2), (5, 3, 8, 6)),
    "ReLU": (nn.ReLU, (5, 3, 6, 8)),
    "linear": (lambda: nn.Linear(9, 7, rng=0), (6, 9)),
    "batch norm": (lambda: nn.BatchNorm2d(3), (5, 3, 6, 8)),
}


@pytest.mark.parametrize("innermost", [0, 1, 2, 3])
@pytest.mark.parametrize("name", LAYERS)
def test_shared_layers_compute_the_same(
    name: str,
    innermost: int,
    library: Counter,
    monkeypatch: pytest.MonkeyPatch,
    rng: np.random.Generator,
) -> None:
    make, shape = LAYERS[name]
    x = rng.normal(size=shape)
    if innermost < x.ndim:
        x = np.moveaxis(np.ascontiguousarray(np.moveaxis(x, innermost, -1)), -1, innermost)
    results = []
    for shared in (False, True):
        for limit in ("_SHORT", "_TINY", "_LARGE", "_LEAD"):
            monkeypatch.setattr(cores, limit, 0 if shared else 2**62)
        runs: list[int] = []
        monkeypatch.setattr(cores.threads, "run", lambda calls, runs=runs: _run(calls, runs))
        layer = make().astype(np.float64)
        y = layer(x)
        grad = np.random.default_rng(1).normal(size=y.shape)
        results.append([y, layer.backward(grad), *(p.grad for p in layer.parameters())])
        assert bool(runs) == (shared and "overlapping" not in name)
    for alone, together in zip(*results, strict=True):
        assert_allclose(together, alone, rtol=1e-12, atol=1e-12)


def test_the_sums_do_not_depend_on_which_thread_is_the_first(
    eager: Counter, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    conv, norm = nn.Conv2d(3, 4, 3, rng=0), nn.BatchNorm2d(3)
    x, grads = rng.normal(size=(11, 3, 13, 12)).astype(np.float32), {}
    for order in (1, -1):
        monkeypatch.setattr(cores.threads, "run", partial(run_one_by_one, order=order))
        for layer in (conv, norm):
            y = layer.zero_grad() or layer(x)
            layer.backward(np.cos(np.arange(y.size, dtype=np.float32)).reshape(y.shape))
        grads[order] = [conv.weight.grad.copy(), norm.weight.grad.copy(), norm.bias.grad.copy()]
    for one, other in zip(grads[1], grads[-1], strict=True):
        assert_array_equal(one, other)


def run_one_by_one(calls: list[Any], order: int) -> None:
    for call in calls[::order]:
        call()


def _own_rows(y: Array, rows: slice) -> None:
    """Check that numbers are in these rows, and NaN in all others."""
    expected = np.zeros(y.shape, bool)
    expected[:, :, rows] = True
    assert_array_equal(np.isfinite(y), expected)


@pytest.mark.parametrize(
    ("name", "direction"),
    [
        *[
            (name, "forward")
            for name in ("convolution", "pointwise", "Winograd", "largest", "mean")
        ],
        *[(name, "backward") for name in ("convolution", "pointwise", "Winograd", "largest")],
    ],
)
@pytest.mark.parametrize("part", [(0, 2), (1, 4), (2, 3)])
def test_a_part_writes_its_own_rows_only(
    name: str, direction: str, part: tuple[int, int], monkeypatch: pytest.MonkeyPatch, rng: Any
) -> None:
    def unknown(shape: Any, dtype: Any) -> Array:
        return np.full(shape, np.nan, dtype)

    def share_one(work: Any, length: int, *sizes: int) -> None:
        work(part[0], min(part[1], length))
        lengths.append(length)

    lengths: list[int] = []
    make, shape = LAYERS[name]
    x = rng.normal(size=shape)
    layer = make().astype(np.float64)
    for parameter in layer.parameters():
        parameter.requires_grad = False
    grad = rng.normal(size=layer(x).shape)
    line = grad.itemsize * x[:, :, 0].size * 3  # of the input gradient
    for module in (windows, winograd):
        monkeypatch.setattr(module, "share", share_one)
        monkeypatch.setattr(module, "empty", unknown)
    for block in (1, 2 * line, windows._BLOCK):
        monkeypatch.setattr(windows, "_BLOCK", block)
        lengths.clear()
        if direction == "forward":
            y = layer(x)
        else:
            with pytest.MonkeyPatch.context() as whole:
                for module in (windows, winograd):
                    whole.setattr(module, "share", lambda work, length, *sizes: work(0, length))
                layer(x)
            y = layer.backward(grad)
        rows = -(-y.shape[2] // lengths[0])  # Winograd's algorithm goes through pairs
        _own_rows(y, slice(part[0] * rows, part[1] * rows))


@pytest.mark.skipif(
    not Path("/proc/self/schedstat").exists() or cores._openblas()[0] is cores._one,
    reason="needs Linux's times of threads, and OpenBLAS",
)
def test_the_threads_of_blas_stay_asleep() -> None:
    threads = {"OMP_NUM_THREADS": "3", "OPENBLAS_NUM_THREADS": "3"}
    script = [sys.executable, "-m", "tests.engine.threads_of_blas"]
    done = subprocess.run(
        script,
        capture_output=True,
        text=True,
        env=os.environ | threads,
        cwd=Path(__file__).parents[2],
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "NumPy\n"
