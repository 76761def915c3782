"""`GlobalAvgPool2d` and `GlobalMaxPool2d`: hand calculations, images of any size, and errors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.testing import assert_allclose, assert_array_equal

import nnlite as nn

POOLINGS = pytest.mark.parametrize("pooling", [nn.GlobalAvgPool2d, nn.GlobalMaxPool2d])
image_shapes = hnp.array_shapes(min_dims=4, max_dims=4, max_side=5)


@given(shape=image_shapes, seed=st.integers(0, 100))
def test_each_channel_becomes_its_mean_or_its_largest_pixel(
    shape: tuple[int, ...], seed: int
) -> None:
    x = np.random.default_rng(seed).normal(size=shape)
    mean, largest = nn.GlobalAvgPool2d()(x), nn.GlobalMaxPool2d()(x)
    assert mean.shape == largest.shape == shape[:2]
    for n, c in np.ndindex(shape[:2]):
        pixels = x[n, c].ravel().tolist()
        assert mean[n, c] == pytest.approx(sum(pixels) / len(pixels), rel=1e-12)
        assert largest[n, c] == max(pixels)


@POOLINGS
@given(shape=image_shapes)
def test_every_gradient_agrees_with_central_differences(
    pooling: Any, shape: tuple[int, ...]
) -> None:
    # No two pixels closer than 0.1, where a difference would step over a kink.
    x = 0.1 * np.random.default_rng(0).permutation(np.prod(shape)).reshape(shape)
    nn.gradcheck(pooling(), x.astype(np.float64)).raise_if_failed()


def test_the_mean_shares_the_gradient_and_the_first_largest_pixel_takes_it() -> None:
    x = np.array([[[[1.0, 7.0, 7.0], [7.0, 2.0, 0.0]]]])
    mean, largest = nn.GlobalAvgPool2d(), nn.GlobalMaxPool2d()
    assert_array_equal(mean(x), [[4]])
    assert_array_equal(mean.backward(np.array([[12.0]])), np.full((1, 1, 2, 3), 2.0))
    assert_array_equal(largest(x), [[7]])
    assert_array_equal(largest.backward(np.array([[5.0]])), [[[[0, 5, 0], [0, 0, 0]]]])


def test_nan_counts_as_larger_than_every_number() -> None:
    pool = nn.GlobalMaxPool2d()
    assert np.isnan(pool(np.array([[[[np.inf, np.nan, np.nan]]]])))
    assert_array_equal(pool.backward(np.ones((1, 1))), [[[[0, 1, 0]]]])


def test_the_mean_of_a_large_image_loses_no_more_than_rounding() -> None:
    # A running sum of 250,000 numbers near 1 in float32 would be off by 1e-3.
    x = np.random.default_rng(0).uniform(0.5, 1.5, (1, 2, 500, 500))
    for order in ("C", "F"):
        y = nn.GlobalAvgPool2d()(np.array(x, np.float32, order=order))
        assert_allclose(y, x.mean(axis=(2, 3)), rtol=2e-5)


@POOLINGS
def test_a_network_that_ends_in_it_takes_images_of_any_size(pooling: Any) -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3, rng=0), nn.ReLU(), pooling(), nn.Linear(4, 2))
    for size in (5, 8, 13):
        x = np.random.default_rng(0).normal(size=(3, 1, size, size)).astype(np.float32)
        assert model(x).shape == (3, 2)
        assert model.backward(np.ones((3, 2), np.float32)).shape == x.shape


@POOLINGS
@pytest.mark.parametrize("shape", [(3, 4), (3, 4, 5), (1, 2, 3, 4, 5)])
def test_what_is_no_batch_of_images_is_an_error(pooling: Any, shape: tuple[int, ...]) -> None:
    cure = r"; add a batch axis: x\[None\]" if len(shape) == 3 else ""
    got = r"\(" + ", ".join(map(str, shape)) + r"\)"
    message = rf"^{pooling.__name__}\(\): expected images of shape \(N, C, H, W\), got {got}{cure}$"
    with pytest.raises(ValueError, match=message):
        pooling()(np.ones(shape))


@pytest.mark.parametrize("kind", [nn.MaxPool1d, nn.MaxPool2d])
def test_the_fifth_position_of_max_pooling_is_not_taken_for_ceil_mode(kind: Any) -> None:
    pooling = kind(2, 2, 0, 1, True)
    assert (pooling.return_indices, pooling.ceil_mode) == (True, False)
