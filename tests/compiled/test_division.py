"""How a batch is divided into parts of threads, and these into chunks."""

import math
import types

import numpy as np
import pytest

import nnlite as nn
from nnlite.compiled import split


def code_of(model, x):
    """Return the code of a compiled model that was called."""
    compiled = nn.compile(model, native=False)
    nn.predict(compiled, x)
    return compiled._programs.latest.code


def test_a_perceptron():
    """Of 51 parameters and 42 multiply-adds; layers and ReLU have 6, 6 and 3 numbers of 8 bytes."""
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)).astype(np.float64)
    code = code_of(model, np.zeros((2, 4)))
    samples = round((1 << 23) / (15 * 8) / 16) * 16
    step = split.Division(3 * 42, 10_000_000 + 75 * 51, 4_000_000, 2, samples)
    assert split.division(code, with_backward=True) == step
    prediction = split.Division(42, 10_000_000, 4_000_000, 2, samples)
    assert split.division(code, with_backward=False) == prediction
    assert split.division(code, True, in_chunks=False).chunk_size == math.inf


def test_samples_are_columns_in_a_recurrent_layer():
    code = code_of(nn.LSTM(4, 5), np.zeros((2, 3, 4), np.float32))
    division = split.division(code, with_backward=True)
    assert division.multiple == division.vector == 16
    code = code_of(nn.LSTM(4, 5).astype(np.float64), np.zeros((2, 3, 4)))
    assert split.division(code, with_backward=True).vector == 8


# Bytes that fit, for arrays of 25 floats a sample, and the parameters, each as a number of samples.
@pytest.mark.parametrize(
    ("fitting", "of_parameters", "samples"),
    [(0, 0, 1), (3, 0, 3), (15, 0, 15), (16, 0, 16), (23, 0, 16), (25, 0, 32), (3, 25, 32)],
)
@pytest.mark.parametrize("with_backward", [False, True])
def test_chunks_fit_and_fill_registers(fitting, of_parameters, samples, with_backward, monkeypatch):
    lines = ["y = np.empty(n * 10, real)", "s = np.zeros((3, 5, n), real)", "w = np.empty(7, real)"]
    holder = types.SimpleNamespace(weight=np.zeros(25 * of_parameters, np.float32))
    code = types.SimpleNamespace(
        forward=lines,
        arrays={"weight": (holder, "weight")},
        dtype=np.dtype(np.float32),
        multiply_adds=1,
        trained={},
    )
    monkeypatch.setattr(split, "_CACHED", 25 * 4 * fitting)
    monkeypatch.setattr(split, "_TIMES", 2)
    if with_backward and of_parameters:
        samples = 48  # 2 * 25
    assert split.division(code, with_backward).chunk_size == samples


@pytest.mark.parametrize(
    ("chunk_size", "sizes"),
    [
        (1, [1] * 50),
        (15, [13, 13, 13, 11]),
        (16, [16, 16, 16, 2]),
        (48, [32, 18]),
        (64, [50]),
        (math.inf, [50]),
    ],
)
def test_chunks_are_about_equal(chunk_size, sizes):
    bounds = split.in_chunks(7, 57, chunk_size)
    assert [stop - start for start, stop in bounds] == sizes
    assert [start for start, _ in bounds] == [7, *(stop for _, stop in bounds[:-1])]


# Of work 100 a sample, with a cost of 1000: the second thread pays from 20 samples on, the third
# from 60. The first thread computes as much as 8 samples alone.
@pytest.mark.parametrize(
    ("n", "threads", "sizes"),
    [
        (19, 2, [19]),
        (20, 2, [16, 4]),
        (64, 1, [64]),
        (64, 2, [36, 28]),
        (64, 8, [28, 16, 20]),
        (800, 2, [404, 396]),
    ],
)
def test_threads_get_parts_that_pay(n, threads, sizes, monkeypatch):
    monkeypatch.setattr(split, "threads_of_products", lambda: threads)
    division = split.Division(100, 1000, 800, 4, math.inf)
    chunks = division.chunks(n)
    assert [stop - start for ((start, stop),) in chunks] == sizes
    assert [start for ((start, _),) in chunks] == [0, *(stop for ((_, stop),) in chunks[:-1])]
    assert division.is_whole(n) == (len(sizes) == 1)


@pytest.mark.parametrize(
    ("cost", "chunk_size", "undivided"),
    [(1000, math.inf, 19), (1001, math.inf, 20), (1000, 7, 7), (0, 7, -1), (math.inf, 7, 7)],
)
def test_the_largest_batch_that_is_not_divided(cost, chunk_size, undivided, monkeypatch):
    monkeypatch.setattr(split, "threads_of_products", lambda: 2)
    division = split.Division(100, cost, 0, 1, chunk_size)
    assert division.undivided == undivided
    for n in range(2, 30):
        assert division.is_whole(n) == (n <= undivided)


@pytest.mark.parametrize(("n", "sizes"), [(16, [16]), (17, [8, 9]), (40, [13, 14, 13])])
def test_a_vector_of_columns_is_one_part(n, sizes, monkeypatch):
    monkeypatch.setattr(split, "threads_of_products", lambda: 3)
    division = split.Division(100, 1, 0, 16, math.inf, 16)
    chunks = division.chunks(n)
    assert [stop - start for ((start, stop),) in chunks] == sizes
    assert division.undivided == 16


def test_nothing_is_divided():
    assert split.WHOLE.undivided == math.inf
    assert split.WHOLE.is_whole(10**9)
