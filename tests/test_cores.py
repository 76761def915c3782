"""Products are those of numpy.dot, and leave the number of BLAS threads as it was."""

from __future__ import annotations

import importlib
import threading
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from nnlite import blas

# Multiply-adds: where one thread begins to be forced, and where it ends.
SHAPES = [
    (1, 784, 10),
    (64, 64, 64),
    (64, 64, 65),
    (32, 784, 128),
    (64, 256, 255),
    (64, 256, 256),
]


class Counter:
    """What stands for OpenBLAS: it has a number of threads, and notes the numbers that it had."""

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
    monkeypatch.setattr(blas, "_openblas", lambda: (counter.get, counter.set))
    monkeypatch.setattr(blas, "_one_thread", blas._OneThread())
    return counter


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("rows", "inner", "columns"), SHAPES)
def test_product_of_small_integers_is_exact(
    rows: int, inner: int, columns: int, dtype: Any, rng: np.random.Generator
) -> None:
    a, b = rng.integers(-3, 4, (rows, inner)), rng.integers(-3, 4, (columns, inner)).T
    expected = a @ b  # of integers, which BLAS does not multiply
    assert_array_equal(blas.product(a.astype(dtype), b.astype(dtype)), expected)
    out = np.empty(expected.shape, dtype)
    assert blas.product(a.astype(dtype), b.astype(dtype), out) is out
    assert_array_equal(out, expected)


def test_one_thread_computes_what_is_small_but_not_tiny(library: Counter) -> None:
    for rows, inner, columns in SHAPES:
        library.seen.clear()
        blas.product(np.ones((rows, inner)), np.ones((inner, columns)))
        forced = 2**18 < rows * inner * columns < 2**22
        assert library.seen == ([1, 4] if forced else [])
        assert library.threads == 4


def test_number_of_threads_is_put_back_after_an_error(library: Counter) -> None:
    with pytest.raises(ValueError, match="not aligned"):
        blas.product(np.ones((100, 100)), np.ones((99, 100)))
    assert (library.seen, library.threads) == ([1, 4], 4)


def test_number_of_threads_is_put_back_when_the_last_of_several_is_done(library: Counter) -> None:
    one, inside, leave = blas._one_thread, threading.Event(), threading.Event()

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
    with blas._one_thread:
        pass
    assert library.seen == []


def test_another_blas_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    with blas._OneThread():
        assert blas.product(np.ones((100, 100)), np.ones((100, 100)))[0, 0] == 100


def test_the_number_of_openblas_comes_and_goes() -> None:
    threads, _ = blas._openblas()
    before = threads()
    with blas._one_thread:
        assert threads() == 1
    assert threads() == before
