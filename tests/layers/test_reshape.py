"""`Reshape` and `Identity`: values and gradients."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.testing import assert_array_equal

import nnlite as nn

shapes = hnp.array_shapes(min_dims=1, max_dims=4, max_side=4)


@given(shape=shapes, data=st.data())
def test_each_sample_gets_the_shape_and_keeps_the_order_of_its_values(
    shape: tuple[int, ...], data: st.DataObject
) -> None:
    # Any order of the factors of a sample's size is a shape that it fits into.
    sizes = tuple(data.draw(st.permutations([*shape[1:], 1])))
    x = np.random.default_rng(0).normal(size=shape)
    places = [None, *range(len(sizes))]
    left_over = data.draw(st.sampled_from(places))
    given_sizes = tuple(-1 if place == left_over else size for place, size in enumerate(sizes))
    reshape = nn.Reshape(*given_sizes)
    y = reshape(x)
    assert y.shape == (shape[0], *sizes)
    assert_array_equal(y.ravel(), x.ravel())
    assert_array_equal(reshape.backward(2 * y), 2 * x)
    assert reshape.backward(y, input_grad=False) is None


def test_images_from_rows_and_back() -> None:
    rows = np.arange(24.0).reshape(2, 12)
    model = nn.Sequential(nn.Reshape(3, 2, 2), nn.Flatten())
    assert model[0](rows).shape == (2, 3, 2, 2)
    assert_array_equal(model(rows), rows)
    assert_array_equal(model.backward(rows), rows)


@given(shape=shapes)
def test_gradients_agree_with_central_differences(shape: tuple[int, ...]) -> None:
    x = np.random.default_rng(0).normal(size=shape)
    nn.gradcheck(nn.Reshape(math.prod(shape[1:])), x).raise_if_failed()
    nn.gradcheck(nn.Identity(), x).raise_if_failed()


def test_nothing_is_copied_that_need_not_be() -> None:
    x = np.zeros((2, 6))
    assert np.shares_memory(nn.Reshape(3, 2)(x), x)
    assert np.shares_memory(nn.Identity()(x), x)


def test_images_that_lie_in_another_memory_order_keep_their_logical_one() -> None:
    x = np.arange(24.0).reshape(2, 3, 2, 2)
    innermost = x.transpose(2, 1, 3, 0).copy().transpose(3, 1, 0, 2)
    assert_array_equal(nn.Reshape(12)(innermost), x.reshape(2, 12))


@pytest.mark.parametrize(
    ("sizes", "shape"),
    [((5,), (2, 3)), ((2, -1), (2, 3)), ((4, 4), (3, 4)), ((), (2, 3)), ((2,), (4,))],
    ids=str,
)
def test_a_sample_that_does_not_fit_is_an_error(
    sizes: tuple[int, ...], shape: tuple[int, ...]
) -> None:
    with pytest.raises(ValueError, match=r"^Reshape\(.*\): a sample of shape .* does not fit into"):
        nn.Reshape(*sizes)(np.ones(shape))


@pytest.mark.parametrize(
    ("sizes", "error", "message"),
    [
        ((0,), ValueError, "sizes must be above 0"),
        ((-1, -1), ValueError, "one may be -1"),
        ((-2,), ValueError, "a size must be at least -1, got -2"),
        ((2.0,), TypeError, "a size must be an int, got 2.0"),
        (((2, 3),), TypeError, r"a size must be an int, got \(2, 3\)"),
        ((None,), TypeError, "a size must be an int, got None"),
    ],
    ids=str,
)
def test_sizes_out_of_range_are_an_error(
    sizes: tuple[Any, ...], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=f"^Reshape: .*{message}"):
        nn.Reshape(*sizes)


def test_repr_is_the_call() -> None:
    assert repr(nn.Reshape(2, -1)) == "Reshape(2, -1)"
    assert repr(nn.Identity()) == "Identity()"
