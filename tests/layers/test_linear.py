"""`Linear`: formula, gradients for all shapes, initial values, and errors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

import nnlite as nn

sizes = st.integers(1, 5)


def test_the_output_is_x_times_the_transposed_weight_plus_the_bias() -> None:
    layer = nn.Linear(3, 2).astype(np.float64)
    layer.weight.data[...] = [[1, 2, 3], [4, 5, 6]]
    layer.bias.data[...] = [10, 20]
    # By hand: 1·1 + 2·0 + 3·(-1) + 10 = 8, 4·1 + 5·0 + 6·(-1) + 20 = 18.
    assert_array_equal(layer(np.array([[1.0, 0.0, -1.0], [0.0, 1.0, 0.0]])), [[8, 18], [12, 25]])


def test_the_gradients_are_those_of_the_derivation() -> None:
    layer = nn.Linear(3, 2).astype(np.float64)
    layer.weight.data[...] = [[1, 2, 3], [4, 5, 6]]
    layer(np.array([[1.0, 0.0, -1.0], [0.0, 1.0, 0.0]]))
    x_grad = layer.backward(np.array([[1.0, 0.0], [2.0, -1.0]]))
    # G W, Gᵀ x and the sum of the rows of G.
    assert_array_equal(x_grad, [[1, 2, 3], [-2, -1, 0]])
    assert_array_equal(layer.weight.grad, [[1, 2, -1], [0, -1, 0]])
    assert_array_equal(layer.bias.grad, [3, -1])


@given(
    batch=sizes,
    middle=st.lists(sizes, max_size=2),
    in_features=sizes,
    out_features=sizes,
    bias=st.booleans(),
)
def test_every_gradient_agrees_with_central_differences_for_all_shapes(
    batch: int, middle: list[int], in_features: int, out_features: int, bias: bool
) -> None:
    layer = nn.Linear(in_features, out_features, bias, rng=0)
    x = np.random.default_rng(1).normal(size=(batch, *middle, in_features))
    assert nn.gradcheck(layer, x).passed


@given(batch=sizes, middle=st.lists(sizes, min_size=1, max_size=2))
def test_axes_in_the_middle_are_more_samples(batch: int, middle: list[int]) -> None:
    layer, flat = (nn.Linear(3, 2, rng=0).astype(np.float64) for _ in range(2))
    x = np.random.default_rng(1).normal(size=(batch, *middle, 3))
    output = layer(x)
    assert output.shape == (batch, *middle, 2)
    assert_allclose(output.reshape(-1, 2), flat(x.reshape(-1, 3)), rtol=1e-12)
    grad = np.random.default_rng(2).normal(size=output.shape)
    x_grad, flat_grad = layer.backward(grad), flat.backward(grad.reshape(-1, 2))
    assert_allclose(x_grad.reshape(-1, 3), flat_grad, rtol=1e-12)
    assert_allclose(layer.weight.grad, flat.weight.grad, rtol=1e-12)
    assert_allclose(layer.bias.grad, flat.bias.grad, rtol=1e-12)


def test_initial_values_are_uniform_within_one_over_the_root_of_in_features() -> None:
    # The bound is PyTorch's; the variance of a uniform on ±b is b²/3. The relative error of a
    # sample variance of n such values is √(0.8 / n) = 0.003 for 90,000: five of them allowed.
    layer = nn.Linear(300, 300, rng=0)
    bound = 1 / np.sqrt(300)
    for values in (layer.weight.data, layer.bias.data):
        assert np.abs(values).max() <= bound
    assert_allclose(layer.weight.data.astype(float).var(), bound**2 / 3, rtol=0.015)
    assert abs(layer.weight.data.mean()) < 5 * bound / np.sqrt(3 * 90_000)
    assert layer.bias.data.std() > 0


def test_the_same_seed_gives_the_same_layer() -> None:
    by_rng = [nn.Linear(4, 3, rng=7) for _ in range(2)]
    assert_array_equal(by_rng[0].weight.data, by_rng[1].weight.data)
    assert_array_equal(by_rng[0].bias.data, by_rng[1].bias.data)
    generator = np.random.default_rng(7)
    assert_array_equal(nn.Linear(4, 3, rng=generator).weight.data, by_rng[0].weight.data)
    assert (nn.Linear(4, 3, rng=generator).weight.data != by_rng[0].weight.data).any()


def test_weight_and_bias_are_not_the_same_draws() -> None:
    layer = nn.Linear(4, 4, rng=0)
    assert (layer.weight.data[0] != layer.bias.data).all()


def test_without_bias_there_is_none() -> None:
    layer = nn.Linear(4, 3, bias=False)
    assert layer.bias is None
    assert list(layer.state_dict()) == ["weight"]


def test_weights_set_by_hand_as_python_numbers_keep_the_layer_float32() -> None:
    layer = nn.Linear(2, 1)
    layer.weight.data = np.array([[1.0, 2.0]])
    output = layer(np.array([[3.0, 4.0]], np.float32))
    layer.backward(np.ones((1, 1)))
    assert output.dtype == np.float32
    assert layer.weight.grad.dtype == np.float32
    assert_array_equal(layer.weight.grad, [[3, 4]])


@pytest.mark.parametrize(
    ("in_features", "out_features", "error", "message"),
    [
        (0, 2, ValueError, "Linear: in_features must be at least 1, got 0"),
        (2, -1, ValueError, "Linear: out_features must be at least 1, got -1"),
        (2.0, 2, TypeError, r"Linear: in_features must be an int, got 2\.0"),
        (2, "3", TypeError, "Linear: out_features must be an int, got '3'"),
        (True, 2, TypeError, "Linear: in_features must be an int, got True"),
        (None, 2, TypeError, "Linear: in_features must be an int, got None"),
        ((3, 4), 2, TypeError, r"Linear: in_features must be an int, got \(3, 4\)"),
    ],
)
def test_sizes_must_be_positive_ints(
    in_features: Any, out_features: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=f"^{message}$"):
        nn.Linear(in_features, out_features)


def test_a_numpy_int_is_an_int() -> None:
    assert repr(nn.Linear(np.int64(3), np.uint8(2))) == "Linear(3, 2)"


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((5, 7), r"expected input of shape \(N, ..., 12\), got \(5, 7\)$"),
        ((12,), r"got \(12,\); add a batch axis: x\[None\]$"),
        ((), r"expected input of shape \(N, ..., 12\), got \(\)$"),
        ((5, 1, 3, 4), r"got \(5, 1, 3, 4\); put nn\.Flatten\(\) before it$"),
        ((5, 3, 4), r"got \(5, 3, 4\); put nn\.Flatten\(\) before it$"),
        ((5, 1, 28, 28), r"expected input of shape \(N, ..., 12\), got \(5, 1, 28, 28\)$"),
        ((12, 5), r"expected input of shape \(N, ..., 12\), got \(12, 5\)$"),
    ],
    ids=["features", "no batch", "number", "images", "grey images", "other images", "transposed"],
)
def test_an_input_of_the_wrong_shape_is_an_error_that_names_the_cure(
    shape: tuple[int, ...], message: str
) -> None:
    layer = nn.Linear(12, 2)
    with pytest.raises(ValueError, match=r"^Linear\(12, 2\): .*" + message):
        layer(np.ones(shape, np.float32))


@pytest.mark.parametrize("rng", ["0", 1.5, np.random, [1], True])
def test_rng_must_be_an_int_or_a_generator(rng: Any) -> None:
    with pytest.raises(TypeError, match=r"rng must be an int or a numpy\.random\.Generator"):
        nn.Linear(2, 2, rng=rng)
