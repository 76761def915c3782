"""Layers that join, split and reorder arrays, and the networks that are made of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

import nnlite as nn

shapes = st.lists(st.integers(1, 4), min_size=2, max_size=4).map(tuple)


def normal(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).normal(size=shape)


@settings(max_examples=15)
@given(shape=shapes, data=st.data(), count=st.integers(1, 3))
def test_nodes_are_those_of_numpy(shape: tuple[int, ...], data: st.DataObject, count: int) -> None:
    dim = data.draw(st.integers(-len(shape), len(shape) - 1))
    arrays = [normal(*shape, seed=seed) for seed in range(count)]
    x = arrays[0]
    joined = nn.Concatenate(dim)(*arrays)
    assert_array_equal(joined, np.concatenate(arrays, dim))
    assert_array_equal(nn.Stack(dim)(*arrays), np.stack(arrays, dim))
    parts = nn.Split(shape[dim], dim)(joined)
    for part, array in zip(parts, arrays, strict=True):
        assert_array_equal(part, array)
    order = data.draw(st.permutations(range(len(shape))))
    assert_array_equal(nn.Permute(*order)(x), np.transpose(x, order))
    assert_array_equal(nn.Unsqueeze(dim)(x), np.expand_dims(x, dim))
    assert_array_equal(nn.Squeeze(dim)(nn.Unsqueeze(dim)(x)), x)
    start = data.draw(st.integers(-shape[dim], shape[dim] - 1))
    index = (*[slice(None)] * (dim % len(shape)), slice(start, None, 2))
    assert_array_equal(nn.Slice(start, None, 2, dim=dim)(x), x[index])


@settings(max_examples=15)
@given(shape=shapes, data=st.data())
def test_gradients(shape: tuple[int, ...], data: st.DataObject) -> None:
    dim = data.draw(st.integers(1, len(shape) - 1))
    x, other = normal(*shape), normal(*shape, seed=1)
    for layer in (nn.Concatenate(dim), nn.Stack(dim)):
        assert nn.gradcheck(layer, x, other).passed
    order = data.draw(st.permutations(range(1, len(shape))))
    for layer in (nn.Permute(0, *order), nn.Slice(-1, dim=dim), nn.Unsqueeze(dim)):
        assert nn.gradcheck(layer, x).passed
    parts = nn.Split((1, shape[dim]), dim)
    widened = np.concatenate([x, np.take(other, [0], dim)], dim)
    graph = nn.Graph({"parts": (parts, "x"), "y": (nn.Square(), "parts.1")})
    assert nn.gradcheck(graph, widened).passed


@pytest.mark.parametrize(
    ("layer", "arrays", "message"),
    [
        (nn.Concatenate(), [normal(2, 3), normal(3, 3)], r"size of axis 1 alone, got \(2, 3\), "),
        (nn.Concatenate(2), [normal(2, 3)], "has no axis 2"),
        (nn.Stack(), [normal(2, 3), normal(2, 4)], "inputs of one shape"),
        (nn.Split(()), [normal(2, 3)], "do not add up"),
        (nn.Split((1, 1)), [normal(2, 3)], "do not add up to that of the axis, 3"),
        (nn.Slice(3), [normal(2, 3)], "is empty"),
        (nn.Permute(0, 0), [normal(2, 3)], "each must be named once"),
        (nn.Permute(0, 1), [normal(2, 3, 4)], "has 3 axes"),
        (nn.Squeeze(1), [normal(2, 3)], "expected an axis of size 1"),
        (nn.Unsqueeze(4), [normal(2, 3)], "has no axis 4"),
        (nn.Unflatten(1, (2, -1)), [normal(2, 3)], "does not fit into"),
    ],
    ids=repr,
)
def test_what_does_not_fit_is_said(layer: nn.Layer, arrays: list[Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"{type(layer).__name__}.*{message}"):
        layer(*arrays)


def test_no_input_and_a_stray_float64() -> None:
    with pytest.raises(TypeError, match="expected one input or more"):
        nn.Concatenate()()
    mixed = [normal(2, 3).astype(np.float32), normal(2, 3)]
    for layer in (nn.Concatenate(), nn.Stack()):
        assert layer(*mixed).dtype == np.float32


def test_the_last_step_of_a_sequence_in_a_sequential() -> None:
    model = nn.Sequential(nn.GRU(3, 4), nn.Slice(-1), nn.Squeeze(1), nn.Linear(4, 2)).double()
    x = normal(5, 6, 3)
    assert_array_equal(model(x), model[3](model[0](x)[:, -1]))
    assert nn.gradcheck(model, x).passed


# ---- networks ----


def block(in_channels: int, out_channels: int) -> nn.Layer:
    """Return a convolution of a U-Net that keeps the size of the image."""
    return nn.Sequential(nn.Conv2d(in_channels, out_channels, 3, padding=1, rng=0), nn.Tanh())


def doubled(channels: int, side: int) -> nn.Layer:
    """Return layers that repeat each pixel of an image of this side twice in each direction."""
    return nn.Sequential(
        nn.Reshape(channels, side, 1, side, 1),
        nn.Graph(
            {"pairs": (nn.Concatenate(3), "x", "x"), "y": (nn.Concatenate(5), "pairs", "pairs")}
        ),
        nn.Reshape(channels, 2 * side, 2 * side),
    )


def test_a_u_net_finds_the_shape_in_a_noisy_image() -> None:
    nn.seed(0)
    unet = nn.Graph(
        {
            "high": (block(1, 4), "image"),
            "pooled": (nn.MaxPool2d(2), "high"),
            "low": (block(4, 8), "pooled"),
            "up": (doubled(8, 4), "low"),
            "both": (nn.Concatenate(), "high", "up"),
            "merged": (block(12, 4), "both"),
            "mask": (nn.Conv2d(4, 1, 1), "merged"),
        },
        inputs="image",
    )
    unet["mask"].bias.data[...] = -1.5  # type: ignore[attr-defined]  # most pixels are outside
    rng = np.random.default_rng(0)
    corner = rng.integers(0, 5, size=(2, 200, 1, 1, 1))
    row, column = np.mgrid[:8, :8]
    masks = (abs(row - corner[0] - 1.5) < 2) & (abs(column - corner[1] - 1.5) < 2)
    images = (masks + 0.3 * rng.normal(size=masks.shape)).astype(np.float32)
    nn.fit(
        unet, nn.BinaryCrossEntropy(), nn.Adam(unet.parameters(), lr=0.01),
        nn.DataLoader(images, masks.astype(np.float32), batch_size=20, shuffle=True),
        epochs=6, progress=False,
    )  # fmt: skip
    assert ((unet(images) > 0) == masks).mean() > 0.98


def test_a_dense_block_hands_all_features_on() -> None:
    dense = nn.Graph(
        {
            "a": (block(2, 3), "x"),
            "xa": (nn.Concatenate(), "x", "a"),
            "b": (block(5, 3), "xa"),
            "xab": (nn.Concatenate(), "x", "a", "b"),
        }
    )
    x = normal(2, 2, 4, 4)
    y = dense(x)
    assert y.shape == (2, 8, 4, 4)
    assert_array_equal(y[:, :2], x.astype(np.float32))
    assert nn.gradcheck(dense, x).passed


def test_a_siamese_network_has_one_encoder_for_both_inputs() -> None:
    encoder = nn.Sequential(nn.Linear(4, 6, rng=0), nn.Tanh())
    siamese = nn.Graph(
        {
            "a": (encoder, "left"),
            "b": (encoder.tied(), "right"),
            "difference": (nn.Subtract(), "a", "b"),
            "distance": (nn.Abs(), "difference"),
            "same": (nn.Linear(6, 1, rng=1), "distance"),
        },
        inputs=("left", "right"),
    )
    assert len(list(siamese.parameters())) == 4
    left, right = normal(3, 4), normal(3, 4, seed=1)
    assert_array_equal(siamese(left, right), siamese(right, left))
    assert nn.gradcheck(siamese, left, right).passed
