"""Random numbers: the seed of the package, and generators passed as arguments."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import nnlite as nn
from nnlite.random import (
    checked_generator_state,
    generator,
    generator_state,
    generators_within,
    load_generator_state,
    own_generators,
)


def test_the_package_seed_decides_all_that_is_random_after_it() -> None:
    def draw() -> list[Any]:
        model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
        loader = nn.DataLoader(np.arange(20), batch_size=6, shuffle=True)
        return [*model.state_dict().values(), *loader]

    nn.seed(7)
    first = draw()
    nn.seed(7)
    for a, b in zip(first, draw(), strict=True):
        assert_array_equal(a, b)
    assert any((a != b).any() for a, b in zip(first, draw(), strict=True))
    nn.seed(8)
    assert any((a != b).any() for a, b in zip(first, draw(), strict=True))


def test_a_generator_of_ones_own_leaves_the_package_generator_alone() -> None:
    nn.seed(0)
    expected = nn.Linear(3, 3).weight.data
    nn.seed(0)
    nn.Linear(3, 3, rng=1)
    nn.Linear(3, 3, rng=np.random.default_rng(1))
    assert_array_equal(nn.Linear(3, 3).weight.data, expected)


def test_numpys_global_seed_has_no_part_in_it() -> None:
    nn.seed(0)
    before = np.random.get_state()[1].copy()  # noqa: NPY002 - the global state is the point
    expected = nn.Linear(3, 3).weight.data
    assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002
    nn.seed(0)
    np.random.seed(5)  # noqa: NPY002
    assert_array_equal(nn.Linear(3, 3).weight.data, expected)


def test_without_a_seed_every_run_is_another() -> None:
    code = "import nnlite as nn; print(nn.Linear(3, 3).weight.data.tobytes())"
    runs = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout
        for _ in range(2)
    ]
    assert runs[0] != runs[1]


def test_a_seed_gives_the_same_bits_in_another_process() -> None:
    code = "import nnlite as nn; nn.seed(3); print(nn.Linear(3, 3).weight.data.tobytes().hex())"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    nn.seed(3)
    assert run.stdout.strip() == nn.Linear(3, 3).weight.data.tobytes().hex()


def test_an_int_a_generator_or_nothing_stand_for_a_generator() -> None:
    mine = np.random.default_rng(5)
    assert generator(mine) is mine
    assert generator(5).random() == np.random.default_rng(5).random()
    assert generator(np.int64(5)).random() == np.random.default_rng(5).random()
    assert generator() is generator(None)


@pytest.mark.parametrize(
    "rng",
    ["0", 1.5, True, [1], np.random, np.random.RandomState(0)],
)
def test_nothing_else_does(rng: Any) -> None:
    with pytest.raises(TypeError, match=r"rng must be an int or a numpy\.random\.Generator, got"):
        generator(rng)


@pytest.mark.parametrize(("seed", "error"), [(-1, ValueError), (1.5, TypeError), ("a", TypeError)])
def test_a_seed_must_be_a_non_negative_int(seed: Any, error: type[Exception]) -> None:
    nn.seed(0)
    expected = nn.Linear(2, 2).weight.data
    nn.seed(0)
    with pytest.raises(error):
        nn.seed(seed)
    assert_array_equal(nn.Linear(2, 2).weight.data, expected)


# ---- states of generators ----

KINDS = [np.random.PCG64, np.random.PCG64DXSM, np.random.MT19937, np.random.Philox, np.random.SFC64]


@pytest.mark.parametrize("kind", KINDS)
def test_a_generator_goes_on_from_its_state(kind: Any) -> None:
    first, second = np.random.Generator(kind(1)), np.random.Generator(kind(2))
    first.random(5, np.float32)  # half of a draw of 64 bits is left over
    load_generator_state(second, generator_state(first))
    assert_array_equal(second.random(700, np.float32), first.random(700, np.float32))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "change",
    [
        lambda state: None,
        lambda state: [1],
        lambda state: {},
        lambda state: {**state, "bit_generator": "Dice"},
        lambda state: {"bit_generator": state["bit_generator"]},
        lambda state: {**state, "state": None},
        lambda state: {**state, "state": {}},
        lambda state: {**state, "state": dict.fromkeys(state["state"], "x")},
        lambda state: {**state, "state": dict.fromkeys(state["state"], 2**200)},
        lambda state: {**state, "state": dict.fromkeys(state["state"], np.zeros(3, np.uint64))},
    ],
)
def test_a_state_that_is_none_is_an_error_and_changes_nothing(kind: Any, change: Any) -> None:
    rng, twin = np.random.Generator(kind(1)), np.random.Generator(kind(1))
    with pytest.raises(ValueError, match=f"state of a {kind.__name__} generator"):
        load_generator_state(rng, change(generator_state(rng)))
    assert_array_equal(rng.random(5), twin.random(5))


def test_a_state_can_be_checked_without_being_loaded() -> None:
    rng, other = np.random.default_rng(1), np.random.default_rng(2)
    checked_generator_state(rng, generator_state(other))
    assert rng.random() == np.random.default_rng(1).random()


def test_the_generators_that_an_object_keeps_are_found_by_name() -> None:
    dropout = nn.Dropout(rng=3)
    assert own_generators(dropout) == {"_rng": dropout._rng}
    assert own_generators(nn.Dropout()) == {}
    assert own_generators(np.negative) == {}


class Noise:
    """An object with a generator and two methods that use it."""

    def __init__(self, rng: np.random.Generator, *others: Any) -> None:
        self.rng = rng
        self.others = others

    def apply(self, batch: Any) -> Any:
        return batch + self.rng.normal(size=batch.shape)


def add_noise(batch: Any, rng: np.random.Generator) -> Any:
    return batch + rng.normal(size=batch.shape)


def test_the_generators_within_an_object_are_found_by_where_they_are() -> None:
    first, second = np.random.default_rng(1), np.random.default_rng(2)
    for owner, expected in [
        (first, {"": first}),
        (Noise(first), {"rng": first}),
        (Noise(first).apply, {"__self__.rng": first}),
        (functools.partial(add_noise, rng=first), {"keywords.rng": first}),
        (functools.partial(np.subtract, first), {"args.0": first}),
        (first.permutation, {"__self__": first}),
        (functools.partial(Noise(first).apply), {"func.__self__.rng": first}),
        (Noise(first, [{"more": Noise(second)}]), {"rng": first, "others.0.0.more.rng": second}),
        (Noise, {}),
        (np.negative, {}),
        (np.random, {}),
        (len, {}),
    ]:
        assert generators_within(owner) == expected


def test_a_generator_that_several_share_is_found_once_where_it_is_nearest() -> None:
    shared = np.random.default_rng(1)
    circle: list[Any] = [Noise(shared, [shared, Noise(shared)]), shared]
    circle.append(circle)
    assert generators_within(circle) == {"1": shared}


# ---- seeds and processes ----


@pytest.mark.parametrize("wrong", ["a", None, 1.5, True, [1, 2]])
def test_a_seed_that_is_no_integer_is_an_error(wrong: Any) -> None:
    with pytest.raises(TypeError, match="^seed must be an int, got "):
        nn.seed(wrong)


def test_a_negative_seed_is_an_error() -> None:
    with pytest.raises(ValueError, match="^seed must be at least 0, got -1"):
        nn.seed(-1)
    with pytest.raises(ValueError, match="^rng must be at least 0, got -1"):
        nn.Linear(2, 2, rng=-1)


def forked_draws(count: int) -> list[bytes]:
    """Return the weights that each of several forked processes draws first."""
    draws = []
    for _ in range(count):
        reading, writing = os.pipe()
        child = os.fork()
        if not child:
            os.write(writing, nn.Linear(3, 3).weight.data.tobytes())
            os._exit(0)
        os.waitpid(child, 0)
        draws.append(os.read(reading, 100))
        os.close(reading)
        os.close(writing)
    return draws


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_forked_processes_draw_different_numbers_that_the_seed_decides() -> None:
    nn.seed(0)
    expected = nn.Linear(3, 3).weight.data.tobytes()
    nn.seed(0)
    first = forked_draws(3)
    assert nn.Linear(3, 3).weight.data.tobytes() == expected  # the parent's draws are the same
    assert len({*first, expected}) == 4
    nn.seed(0)
    assert forked_draws(3) == first
