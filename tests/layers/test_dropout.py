"""`Dropout`: the fraction of zeros, the source of randomness, and evaluation mode."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.testing import assert_array_equal

import nnlite as nn

from ..registry import Array

shapes = hnp.array_shapes(min_dims=1, max_dims=4, max_side=5)
probabilities = st.floats(0, 0.9)


def noise(dropout: nn.Layer, shape: tuple[int, ...] = (3, 40)) -> Array:
    """Return the factors by which the next forward multiplies its input."""
    return dropout(np.ones(shape))


# ---- how much ----


@pytest.mark.parametrize("p", [0.05, 0.25, 0.5, 0.9])
def test_a_share_of_p_is_dropped_and_the_rest_scaled_to_keep_the_mean(p: float) -> None:
    y = noise(nn.Dropout(p, rng=0), (200, 500))
    assert set(np.unique(y)) == {0.0, 1 / (1 - p)}
    # The fraction of zeros in 100,000 draws is binomial: allow five standard deviations.
    deviation = math.sqrt(p * (1 - p) / y.size)
    assert abs((y == 0).mean() - p) < 5 * deviation
    assert abs(y.mean() - 1) < 5 * deviation / (1 - p)


def test_neighbours_rows_and_forwards_are_dropped_independently() -> None:
    dropout = nn.Dropout(0.5, rng=0)
    first, second = (noise(dropout, (200, 500)) == 0 for _ in range(2))
    limit = 0.5 + 5 * 0.5 / math.sqrt(first.size - 500)
    assert 1 - limit < (first == second).mean() < limit
    assert 1 - limit < (first[1:] == first[:-1]).mean() < limit
    assert 1 - limit < (first[:, 1:] == first[:, :-1]).mean() < limit


@given(shape=shapes, p=probabilities, seed=st.integers(0, 99))
def test_every_output_is_zero_or_the_scaled_input(
    shape: tuple[int, ...], p: float, seed: int
) -> None:
    x = np.random.default_rng(seed).normal(size=shape)
    y = nn.Dropout(p, rng=seed)(x)
    assert (np.isclose(y, x / (1 - p), rtol=1e-12) | (y == 0)).all()


def test_probabilities_of_zero_and_one(rng: np.random.Generator) -> None:
    x = rng.normal(size=(3, 4))
    nothing, everything = nn.Dropout(0), nn.Dropout(1)
    assert_array_equal(nothing(x), x)
    assert_array_equal(nothing.backward(x), x)
    assert_array_equal(everything(x), np.zeros((3, 4)))
    assert_array_equal(everything.backward(x), np.zeros((3, 4)))


# ---- gradients ----


@given(shape=shapes, p=probabilities, seed=st.integers(0, 99))
def test_gradients_agree_with_central_differences(
    shape: tuple[int, ...], p: float, seed: int
) -> None:
    x = np.random.default_rng(1).normal(size=shape)
    nn.gradcheck(nn.Dropout(p, rng=seed), x).raise_if_failed()
    nn.gradcheck(nn.Dropout(p), x).raise_if_failed()  # with the package's generator


def test_the_gradient_is_dropped_where_the_input_was() -> None:
    dropout = nn.Dropout(0.4, rng=0)
    y = noise(dropout)
    assert_array_equal(dropout.backward(np.ones_like(y)), y)
    assert_array_equal(dropout.backward(3 * np.ones_like(y)), 3 * y)  # the same mask once more


# ---- modes ----


def test_evaluation_hands_on_the_input_and_draws_nothing(rng: np.random.Generator) -> None:
    x = rng.normal(size=(3, 4)).astype(np.float32)
    source = np.random.default_rng(0)
    dropout = nn.Dropout(0.5, rng=source).eval()
    before = source.bit_generator.state
    assert_array_equal(dropout(x), x)
    assert_array_equal(dropout.backward(x), x)
    assert source.bit_generator.state == before


def test_training_and_evaluation_take_turns() -> None:
    dropout, reference = nn.Dropout(0.5, rng=0), nn.Dropout(0.5, rng=0)
    first, second = noise(reference), noise(reference)
    assert_array_equal(noise(dropout), first)
    assert_array_equal(noise(dropout.eval()), np.ones_like(first))
    assert_array_equal(noise(dropout.train()), second)


def test_backward_is_that_of_the_mode_in_which_forward_was() -> None:
    dropout = nn.Dropout(0.5, rng=0)
    y = noise(dropout)
    assert_array_equal(dropout.eval().backward(np.ones_like(y)), y)
    noise(dropout)
    assert_array_equal(dropout.train().backward(np.ones_like(y)), np.ones_like(y))


def test_the_mode_of_a_model_reaches_it() -> None:
    model = nn.Sequential(nn.Residual(nn.Dropout(0.5, rng=0)))
    assert_array_equal(noise(model.eval()), 2 * np.ones((3, 40)))
    assert set(np.unique(noise(model.train()))) == {1.0, 3.0}


# ---- randomness ----


@pytest.mark.parametrize(
    "make",
    [lambda: 7, lambda: np.int64(7), lambda: np.random.default_rng(7)],
    ids=["int", "NumPy int", "generator"],
)
def test_the_same_rng_drops_the_same(make: Callable[[], Any]) -> None:
    a, b, other = nn.Dropout(0.5, rng=make()), nn.Dropout(0.5, rng=7), nn.Dropout(0.5, rng=8)
    for _ in range(3):
        y = noise(a)
        assert_array_equal(y, noise(b))
        assert (y != noise(other)).any()


def test_without_rng_the_seed_of_the_package_decides() -> None:
    dropout = nn.Dropout(0.5)
    nn.seed(3)
    first, second = noise(dropout), noise(dropout)
    assert (first != second).any()
    nn.seed(3)
    assert_array_equal(noise(dropout), first)
    assert_array_equal(noise(nn.Dropout(0.5)), second)


def test_with_an_rng_the_generator_of_the_package_is_not_touched() -> None:
    nn.seed(3)
    first = noise(nn.Dropout(0.5))
    nn.seed(3)
    noise(nn.Dropout(0.5, rng=0))
    assert_array_equal(noise(nn.Dropout(0.5)), first)


def test_layers_that_share_a_generator_draw_in_turn() -> None:
    source = np.random.default_rng(0)
    a, b = nn.Dropout(0.5, rng=source), nn.Dropout(0.5, rng=source)
    reference = nn.Dropout(0.5, rng=0)
    for dropout in (a, b, a):
        assert_array_equal(noise(dropout), noise(reference))


def test_the_same_is_dropped_in_float32_and_float64() -> None:
    a, b = nn.Dropout(0.5, rng=0), nn.Dropout(0.5, rng=0)
    y = a(np.ones((4, 5), np.float32))
    assert y.dtype == np.float32
    assert_array_equal(y, b(np.ones((4, 5))))


def test_the_same_is_dropped_whatever_the_memory_order(rng: np.random.Generator) -> None:
    a, b = nn.Dropout(0.5, rng=0), nn.Dropout(0.5, rng=0)
    x = rng.normal(size=(2, 3, 4, 5))
    assert_array_equal(a(np.asfortranarray(x)), b(x))
    assert_array_equal(a.backward(np.asfortranarray(x)), b.backward(x))


@pytest.mark.parametrize(
    "duplicate",
    [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))],
    ids=["deepcopy", "pickle"],
)
def test_a_copy_goes_on_with_the_same_noise(duplicate: Callable[[Any], Any]) -> None:
    dropout = nn.Dropout(0.5, rng=0)
    noise(dropout)
    twin = duplicate(dropout)
    for _ in range(3):
        assert_array_equal(noise(twin), noise(dropout))


def test_a_tied_layer_draws_noise_of_its_own_and_keeps_it() -> None:
    dropout = nn.Dropout(0.5, rng=0)
    twin = dropout.tied()
    a, b = noise(dropout), noise(twin)
    assert (a != b).any()
    assert_array_equal(dropout.backward(np.ones_like(a)), a)
    assert_array_equal(twin.backward(np.ones_like(b)), b)


# ---- errors ----


@pytest.mark.parametrize(
    ("p", "error", "message"),
    [
        (1.5, ValueError, "p must be between 0 and 1, got 1.5"),
        (-0.1, ValueError, "p must be between 0 and 1, got -0.1"),
        (math.nan, ValueError, "p must be finite, got nan"),
        ("0.5", TypeError, "p must be a number, got '0.5'"),
        (None, TypeError, "p must be a number, got None"),
        (True, TypeError, "p must be a number, got True"),
        ([0.5], TypeError, "p must be a number"),
    ],
)
def test_a_probability_out_of_range_is_an_error(
    p: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=f"^Dropout: {message}"):
        nn.Dropout(p)


@pytest.mark.parametrize("rng", ["0", 0.5, True, np.random.RandomState(0)])
def test_rng_must_be_an_int_or_a_generator(rng: Any) -> None:
    with pytest.raises(TypeError, match="^rng must be an int or a numpy.random.Generator, got"):
        nn.Dropout(0.5, rng=rng)


def test_an_input_that_is_refused_draws_nothing() -> None:
    dropout, reference = nn.Dropout(0.5, rng=0), nn.Dropout(0.5, rng=0)
    for wrong in (np.ones((3, 4), int), np.ones((0, 4))):
        with pytest.raises((TypeError, ValueError), match=r"^Dropout\(\): "):
            dropout(wrong)
    assert_array_equal(noise(dropout), noise(reference))
