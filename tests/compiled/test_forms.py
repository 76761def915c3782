"""The compiled form of each layer and loss agrees with the layer itself."""

import copy

import numpy as np
import pytest
from numpy.testing import assert_allclose

import nnlite as nn

from ..registry import LAYERS, LOSSES

CASES = [case for case in LAYERS if not isinstance(case.make(), nn.Lambda)]
TOLERANCE = {np.float32: {"rtol": 2e-5, "atol": 2e-5}, np.float64: {"rtol": 1e-11, "atol": 1e-11}}


def each_case(cases):
    return pytest.mark.parametrize("case", cases, ids=lambda case: case.name)


def as_tuple(value):
    return value if isinstance(value, tuple) else (value,)


def assert_same_layers(layer, compiled, inputs, rng, dtype):
    """Compare outputs, all gradients and buffers of one forward and backward."""
    expected, got = layer(*inputs), compiled(*inputs)
    assert got.dtype == expected.dtype
    assert_allclose(got, expected, **TOLERANCE[dtype])
    grad = rng.normal(size=expected.shape).astype(dtype)
    grads = zip(as_tuple(layer.backward(grad)), as_tuple(compiled.backward(grad)), strict=True)
    for one, other in grads:
        assert (one is None) == (other is None)
        if one is not None:
            assert_allclose(other, one, **TOLERANCE[dtype])
    for one, other in zip(layer.parameters(), compiled.parameters(), strict=True):
        assert_allclose(other.grad, one.grad, **TOLERANCE[dtype])
    for one, other in zip(layer.state_dict().values(), compiled.state_dict().values(), strict=True):
        assert_allclose(other, one, **TOLERANCE[dtype])


@each_case(CASES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_layer_as_plain_python(case, dtype):
    rng = np.random.default_rng(0)
    layer = case.make().astype(dtype)
    compiled = nn.compile(copy.deepcopy(layer), native=False)
    for batch in (4, 3):  # the second adds to the gradients of the first
        inputs = case.inputs(rng, batch)
        if case.takes_floats:
            inputs = tuple(x.astype(dtype) for x in inputs)
        assert_same_layers(layer, compiled, inputs, rng, dtype)


@each_case(CASES)
def test_a_layer_in_evaluation(case):
    rng = np.random.default_rng(0)
    layer = case.make().astype(np.float64)
    layer(*case.inputs(rng, 4))  # it may move running statistics
    layer.eval()
    compiled = nn.compile(copy.deepcopy(layer), native=False)
    assert_same_layers(layer, compiled, case.inputs(rng, 4), rng, np.float64)


@each_case(LOSSES)
@pytest.mark.parametrize("weighted", [False, True])
def test_a_loss_as_plain_python(case, weighted):
    loss = case.make()
    if loss.reduction == "none":
        pytest.skip("a loss of several numbers is not compiled")
    rng = np.random.default_rng(0)
    prediction, target = case.prediction(rng, 4), case.target(rng, 4)
    weights = (np.array([0.5, 2.0, 1.0, 0.25]),) if weighted else ()
    # The shift uses the input in the backward too.
    model = nn.Graph(
        {
            "y": (nn.Add(), "x", "s"),
            "s": (nn.Multiply(), "x", "shift"),
            "shift": nn.Weight(np.zeros(prediction.shape)),
        }
    )
    compiled = nn.compile(model, loss, native=False)
    assert compiled(prediction, target, *weights) == pytest.approx(
        loss(prediction, target, *weights)
    )
    assert_allclose(model["shift"].weight.grad, prediction * loss.backward(), rtol=1e-9, atol=1e-12)
