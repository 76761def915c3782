"""The benchmarks: the columns "BLAS" and those of the floors can be computed for every case."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import nnlite as nn
from benchmarks.cases import CASES
from benchmarks.compiled_floor import SIZES
from benchmarks.products import products_of

SIDES = ("nnlite", "blas", "floor")


@pytest.mark.parametrize(
    "case", [case for case in CASES if "blas" in case.runners], ids=lambda case: case.name
)
def test_every_case_has_a_step_of_nnlite_its_products_and_its_floor(case: Any) -> None:
    batch = case.batches(np.random.default_rng(0))[0]
    for side in SIDES:
        case.runners[side](case).step(*batch)


@pytest.mark.parametrize(
    "case",
    [case for case in CASES if "compiled floor" in case.runners],
    ids=lambda case: case.name,
)
def test_the_floor_of_a_compiled_step_makes_its_multiply_adds(case: Any) -> None:
    pytest.importorskip("numba")
    runner = case.runners["compiled floor"](case)
    runner.step()
    rows, *others = SIZES
    made = [(rows * count + rest) * math.prod(others) for *_, count, rest in
            (call.args[:5] for call in runner.calls)]  # fmt: skip
    expected = sum(product.operations for product in case.products()) / 2
    assert abs(sum(made) - expected) <= math.prod(others) * len(made) / 2


@pytest.mark.parametrize("kind", [nn.RNN, nn.LSTM, nn.GRU])
def test_the_products_of_a_recurrent_layer_are_those_of_its_formulas(kind: Any) -> None:
    samples, steps, features, size = 4, 5, 3, 6
    layer = kind(features, size)
    gates = len(layer.weight_hh_l0.data)
    products = products_of([layer], (samples, steps, features))
    # Forward and for the weight gradients, each step and sample meets every weight once, forward
    # the bias too; the gradient of the state before the first step is not needed.
    weights = gates * (size + features)
    terms = samples * steps
    expected = terms * (weights + gates) + terms * weights + (terms - samples) * gates * size
    assert sum(product.operations for product in products) == 2 * expected


def test_a_layer_with_unknown_products_is_an_error() -> None:
    model = nn.Sequential(nn.Conv1d(1, 2, 3))
    with pytest.raises(NotImplementedError, match="does not know the products of Conv1d"):
        products_of(model, (4, 1, 5))
