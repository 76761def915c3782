"""Saliency is the gradient of a score, and Grad-CAM the weighted sum of a layer's channels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import nnlite as nn


@pytest.fixture
def images(rng: np.random.Generator) -> np.ndarray:
    return rng.normal(size=(3, 2, 6, 8))


def network() -> nn.Sequential:
    """A network whose Grad-CAM is its class activation map: the last layer weighs the channels."""
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, rng=0), nn.Tanh(), nn.GlobalAvgPool2d(), nn.Linear(4, 5, rng=1)
    ).astype(np.float64)


def test_saliency_is_the_finite_difference_of_the_score(images: np.ndarray) -> None:
    model, step = network(), 1e-6
    target = np.array([4, 0, 2])
    found = nn.saliency(model, images, target)
    differences = np.zeros_like(images)
    for place in np.ndindex(images.shape):
        moved = images.copy()
        moved[place] += step
        score = (model(moved) - model(images))[place[0], target[place[0]]]
        differences[place] = score / step
    np.testing.assert_allclose(found, np.abs(differences).max(axis=1), atol=1e-6)


def test_without_a_target_it_is_that_of_the_highest_score(images: np.ndarray) -> None:
    model = network()
    best = model(images).argmax(axis=1)
    for function in (nn.saliency, nn.grad_cam):
        np.testing.assert_array_equal(function(model, images), function(model, images, best))
        one = function(model, images, target=3)
        np.testing.assert_array_equal(one, function(model, images, [3, 3, 3]))


def test_grad_cam_is_the_class_activation_map(images: np.ndarray) -> None:
    model = network()
    features = model[1](model[0](images))
    weights = model[3].weight.data[2]
    # ds/dA is the weight of the channel divided by the number of places.
    expected = np.maximum(np.einsum("k,nkij->nij", weights / 24, features), 0)
    model_of_that_size = nn.Sequential(nn.Identity(), *model)
    found = nn.grad_cam(model_of_that_size, images, 2, layer="2")
    assert found.shape == (3, 6, 8)
    # The middle of an image that is enlarged keeps the mean; its corners keep their values.
    np.testing.assert_allclose(found[:, 0, 0], expected[:, 0, 0])
    np.testing.assert_allclose(found[:, -1, -1], expected[:, -1, -1])
    np.testing.assert_allclose(found.max(axis=(1, 2)), expected.max(axis=(1, 2)), rtol=0.35)
    assert (found >= 0).all()


def test_maps_are_enlarged_as_pytorch_does() -> None:
    # torch.nn.functional.interpolate([[0, 4], [8, 12]], size=(4, 4), mode="bilinear").
    expected = [[0, 1, 3, 4], [2, 3, 5, 6], [6, 7, 9, 10], [8, 9, 11, 12]]
    model = nn.Sequential(nn.AvgPool2d(2), nn.Flatten(), nn.Linear(4, 1, bias=False))
    model[2].weight.data[...] = 1
    pixels = np.kron([[0.0, 4], [8, 12]], np.ones((2, 2)))[None, None]
    np.testing.assert_allclose(nn.grad_cam(model, pixels, 0)[0], expected)


def test_the_last_layer_with_places_is_the_default() -> None:
    model = nn.Sequential(
        nn.Conv2d(1, 3, 3, rng=0), nn.ReLU(), nn.Conv2d(3, 4, 3, rng=1), nn.ReLU(),
        nn.GlobalMaxPool2d(), nn.Linear(4, 2, rng=2),
    )  # fmt: skip
    images = np.random.default_rng(0).normal(size=(2, 1, 9, 9)).astype(np.float32)
    np.testing.assert_array_equal(nn.grad_cam(model, images), nn.grad_cam(model, images, layer="3"))


def test_the_model_stays_as_it_is(images: np.ndarray) -> None:
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Flatten(), nn.Linear(96, 3)
    ).astype(np.float64)
    model(images)
    before, state = model.state_dict(), nn.random.generator().bit_generator.state
    nn.saliency(model, images)
    nn.grad_cam(model, images)
    assert model.training
    assert nn.random.generator().bit_generator.state == state
    assert all(parameter.grad is None for parameter in model.parameters())
    np.testing.assert_equal(model.state_dict(), before)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x: nn.saliency(nn.Flatten, x), TypeError, "got the class Flatten"),
        (lambda x: nn.saliency(network(), x[0]), ValueError, r"images of shape \(N, C, H, W\)"),
        (lambda x: nn.saliency(network(), x[:0]), ValueError, r"got shape \(0, 2, 6, 8\)"),
        (lambda x: nn.saliency(network(), x, 5), ValueError, r"class in \[0, 5\).*got 5"),
        (lambda x: nn.saliency(network(), x, [0, 1]), ValueError, "each of the 3 images"),
        (lambda x: nn.grad_cam(network(), x, -1), ValueError, "got -1"),
        (lambda x: nn.grad_cam(network(), x, layer="9"), ValueError, "got '9'; there are"),
        (lambda x: nn.grad_cam(network(), x, layer="2"), ValueError, "got '2'"),
        (lambda x: nn.grad_cam(network()[:2], x), ValueError, r"scores \(N, classes\), got \(3, 4"),
        (lambda x: nn.grad_cam(nn.Sequential(nn.Flatten(), nn.Linear(96, 2)), x), ValueError,
         "layer must be one whose output is"),
    ],
)  # fmt: skip
def test_bad_arguments(images: np.ndarray, call: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        call(images)
