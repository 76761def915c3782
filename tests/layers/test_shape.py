"""`Flatten`: the merged axes, and the shape of the gradient."""

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


def test_flatten_keeps_the_batch_axis_and_the_order_of_the_elements() -> None:
    images = np.arange(2 * 3 * 4 * 5, dtype=np.float32).reshape(2, 3, 4, 5)
    flatten = nn.Flatten()
    assert_array_equal(flatten(images), images.reshape(2, 60))
    assert_array_equal(flatten.backward(images.reshape(2, 60)), images)


@given(shape=hnp.array_shapes(min_dims=1, max_dims=5, max_side=3), data=st.data())
def test_flatten_merges_the_axes_from_start_to_end(
    shape: tuple[int, ...], data: st.DataObject
) -> None:
    start = data.draw(st.integers(0, len(shape) - 1))
    end = data.draw(st.integers(start, len(shape) - 1))
    expected = (*shape[:start], math.prod(shape[start : end + 1]), *shape[end + 1 :])
    x = np.random.default_rng(0).normal(size=shape)
    for start_dim in (start, start - len(shape)):
        for end_dim in (end, end - len(shape)):
            flatten = nn.Flatten(start_dim, end_dim)
            y = flatten(x)
            assert y.shape == expected
            assert_array_equal(y.ravel(), x.ravel())
            x_grad = flatten.backward(2 * y)
            assert_array_equal(x_grad, 2 * x)


def test_flatten_copies_nothing_that_it_need_not_copy() -> None:
    x = np.zeros((2, 3, 4))
    assert np.shares_memory(nn.Flatten()(x), x)


@pytest.mark.parametrize(
    ("start", "end", "shape"),
    [(1, -1, (3,)), (2, 1, (2, 2, 2)), (0, 3, (2, 2)), (-3, -1, (2, 2)), (0, -1, ())],
)
def test_axes_that_are_not_there_are_an_error(start: int, end: int, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"^Flatten\(.*\): an input of shape \(.*\) has no axes"):
        nn.Flatten(start, end)(np.ones(shape))


@pytest.mark.parametrize("dim", [1.0, "1", None, True, (1, 2)])
def test_axes_must_be_ints(dim: Any) -> None:
    with pytest.raises(TypeError, match="^Flatten: start_dim must be an int, got"):
        nn.Flatten(dim)
    with pytest.raises(TypeError, match="^Flatten: end_dim must be an int, got"):
        nn.Flatten(1, dim)
