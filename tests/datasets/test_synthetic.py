"""Synthetic data sets lie on their curves, are in random order, and agree with scikit-learn's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import nnlite as nn
from nnlite.datasets import (
    make_blobs,
    make_circles,
    make_moons,
    make_sine,
    make_spirals,
    make_xor,
)

ALL = [make_blobs, make_circles, make_moons, make_sine, make_spirals, make_xor]


def in_order(points: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Points with their labels, sorted by rows, and rounded so that they can be."""
    rows = np.column_stack([points, labels]).round(5) + 0.0  # no -0
    return rows[np.lexsort(rows.T)]


@pytest.mark.parametrize("make", ALL)
class TestAll:
    def test_inputs_are_float32_and_in_their_number(self, make: Callable[..., Any]) -> None:
        x, y = make(31, rng=0)
        assert x.dtype == np.float32
        assert len(x) == len(y) == 31
        assert y.dtype == (np.float32 if make is make_sine else np.int64)

    def test_the_same_seed_gives_the_same_bits(self, make: Callable[..., Any]) -> None:
        first, again, other = make(rng=1), make(rng=1), make(rng=2)
        for array, expected, different in zip(first, again, other, strict=True):
            assert array.tobytes() == expected.tobytes()
            assert array.tobytes() != different.tobytes()

    def test_without_rng_it_uses_the_packages_generator(self, make: Callable[..., Any]) -> None:
        nn.seed(3)
        first = make()
        nn.seed(3)
        assert make()[0].tobytes() == first[0].tobytes()

    @pytest.mark.parametrize(
        ("options", "error", "message"),
        [
            ({"n_samples": 0}, ValueError, "n_samples must be at least"),
            ({"n_samples": 1.5}, TypeError, "n_samples must be an int"),
            ({"rng": "a"}, TypeError, "rng must be an int or a numpy.random.Generator"),
        ],
    )
    def test_a_bad_argument_is_named(
        self, make: Callable[..., Any], options: Any, error: type[Exception], message: str
    ) -> None:
        with pytest.raises(error, match=message):
            make(**options)


@pytest.mark.parametrize(
    ("make", "option"),
    [(make, "cluster_std" if make is make_blobs else "noise") for make in ALL],
)
class TestNoise:
    def test_it_has_the_standard_deviation_asked_for(
        self, make: Callable[..., Any], option: str
    ) -> None:
        # The noise is drawn last: it is the difference of two data sets of the same seed.
        noisy, plain = make(20_000, **{option: 0.3}, rng=0), make(20_000, **{option: 0.0}, rng=0)
        index = 1 if make is make_sine else 0
        difference = noisy[index] - plain[index]
        assert abs(difference.std() - 0.3) < 0.01
        assert abs(difference.mean()) < 0.01

    def test_it_is_not_negative(self, make: Callable[..., Any], option: str) -> None:
        with pytest.raises(ValueError, match=f"{make.__name__}: {option} must be at least 0"):
            make(**{option: -1})


@pytest.mark.parametrize("make", [make_blobs, make_circles, make_moons, make_spirals])
def test_classes_are_of_equal_size_and_mixed(make: Callable[..., Any]) -> None:
    _, labels = make(301, rng=0)
    counts = np.bincount(labels)
    assert counts.max() - counts.min() <= 1
    assert abs(labels[:100].mean() - labels.mean()) < 0.2


@pytest.mark.parametrize("count", [100, 101])
@pytest.mark.parametrize("name", ["make_moons", "make_circles"])
def test_the_points_are_those_of_scikit_learn(name: str, count: int) -> None:
    datasets = pytest.importorskip("sklearn.datasets")
    expected = in_order(*getattr(datasets, name)(count, random_state=0))
    np.testing.assert_allclose(in_order(*getattr(nn.datasets, name)(count, rng=0)), expected)


def test_circles_have_the_radius_asked_for() -> None:
    points, labels = make_circles(50, factor=0.3, rng=0)
    np.testing.assert_allclose(np.hypot(*points.T), np.where(labels == 1, 0.3, 1), rtol=1e-6)


@pytest.mark.parametrize("classes", [2, 3, 5])
@pytest.mark.parametrize("turns", [0.5, 2.0])
def test_arms_of_a_spiral_wind_by_their_turns_and_differ_by_an_angle(
    classes: int, turns: float
) -> None:
    points, labels = make_spirals(60 * classes, n_classes=classes, turns=turns, rng=0)
    radius = np.hypot(*points.T)
    angle = np.arctan2(points[:, 1], points[:, 0]) - 2 * np.pi * labels / classes
    # Along an arm the angle is proportional to the radius, but for whole turns.
    rest = np.cos(angle - 2 * np.pi * turns * radius)
    np.testing.assert_allclose(rest, 1, atol=1e-5)
    assert radius.max() == pytest.approx(1)


def test_the_classes_of_xor_are_pairs_of_opposite_quadrants() -> None:
    points, labels = make_xor(4000, rng=0)
    for signs, expected in [((1, 1), 0), ((-1, -1), 0), ((1, -1), 1), ((-1, 1), 1)]:
        inside = (np.sign(points) == signs).all(axis=1)
        assert set(labels[inside]) == {expected}
        assert abs(inside.mean() - 0.25) < 0.03
    assert np.abs(points).max() <= 1


def test_blobs_are_around_their_centres() -> None:
    centers = np.array([[0.0, 5.0, -3.0], [10.0, 0.0, 2.0]])
    points, labels = make_blobs(20_000, centers=centers, cluster_std=0.5, rng=0)
    for k in range(2):
        np.testing.assert_allclose(points[labels == k].mean(axis=0), centers[k], atol=0.02)
        np.testing.assert_allclose(points[labels == k].std(axis=0), 0.5, atol=0.02)


def test_centres_of_blobs_are_drawn_from_their_box() -> None:
    points, labels = make_blobs(400, 3, centers=200, cluster_std=0, center_box=(2.0, 4.0), rng=0)
    assert points.shape == (400, 3)
    assert len(set(labels)) == 200
    assert 2 <= points.min() < 2.1
    assert 3.9 < points.max() <= 4


def test_a_sine_has_its_periods() -> None:
    x, y = make_sine(200, periods=3, rng=0)
    assert x.shape == y.shape == (200, 1)
    np.testing.assert_allclose(y, np.sin(3 * np.pi * x), atol=1e-6)
    assert abs(x.mean()) < 0.1


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (make_circles, {"factor": 1}, "factor must be below 1"),
        (make_spirals, {"n_classes": 1}, "n_classes must be at least 2"),
        (make_spirals, {"turns": 0}, "turns must be above 0"),
        (make_sine, {"periods": 0}, "periods must be above 0"),
        (make_blobs, {"centers": [1.0, 2.0]}, r"centers must be an int or of shape .* \(2,\)"),
        (make_blobs, {"center_box": (1, -1)}, "first side of center_box must be the smaller"),
    ],
)
def test_an_option_out_of_range_is_named(
    make: Callable[..., Any], options: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=f"{make.__name__}: .*{message}"):
        make(**options)
