"""Augmentation: each image gets its own random changes, within the documented limits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import nnlite as nn
from nnlite.data.augmentation import affine


def images(*shape: int, dtype: type = np.float64) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype(dtype)


class TestAffine:
    def test_nothing_changes_without_a_rotation_and_a_shift(self) -> None:
        x = images(3, 2, 5, 8)
        moved = affine(x, 0, (0, 0))
        np.testing.assert_array_equal(moved, x)
        assert not np.shares_memory(moved, x)

    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    @pytest.mark.parametrize(("down", "right"), [(1, 0), (0, 2), (-2, 1), (-1, -3), (9, 0)])
    def test_a_shift_by_whole_pixels_is_exact(self, down: int, right: int, dtype: type) -> None:
        x = images(2, 2, 5, 8, dtype=dtype)
        # Room all around is cut off again.
        wide = np.pad(x, ((0, 0), (0, 0), (9, 9), (9, 9)), constant_values=7)
        expected = np.roll(wide, (down, right), axis=(2, 3))[:, :, 9:-9, 9:-9]
        np.testing.assert_array_equal(affine(x, 0, (down, right), fill=7), expected)

    def test_half_a_pixel_is_the_mean_of_two(self) -> None:
        x = np.array([[[[2.0, 4.0, 8.0]]]])
        np.testing.assert_allclose(affine(x, 0, (0, 0.5)), [[[[1.0, 3.0, 6.0]]]])
        np.testing.assert_allclose(affine(x, 0, (0, -0.5)), [[[[3.0, 6.0, 4.0]]]])

    @pytest.mark.parametrize("size", [6, 7])
    @pytest.mark.parametrize("turns", [1, 2, 3])
    def test_quarter_turns_go_to_the_left_and_are_exact(self, size: int, turns: int) -> None:
        x = images(2, 3, size, size)
        expected = np.rot90(x, turns, axes=(2, 3))
        np.testing.assert_allclose(affine(x, 90 * turns, (0, 0)), expected, atol=1e-12)

    def test_a_factor_of_three_stretches_a_pixel_to_a_pyramid(self) -> None:
        x = np.zeros((1, 1, 5, 5))
        x[0, 0, 2, 2] = 9.0
        ramp = 1 - np.abs([-2, -1, 0, 1, 2]) / 3  # pixel q comes from q / 3
        expected = 9 * np.outer(ramp, ramp)
        np.testing.assert_allclose(affine(x, 0, (0, 0), 3.0)[0, 0], expected)

    def test_each_image_has_its_own_map(self) -> None:
        x = images(3, 1, 6, 6)
        degrees, shifts, scales = [10, -30, 0], [(0, 1), (2, -1.5), (0, 0)], [1, 0.8, 1.2]
        together = affine(x, degrees, shifts, scales)
        for i in range(3):
            alone = affine(x[i : i + 1], degrees[i], shifts[i], scales[i])
            np.testing.assert_array_equal(together[i : i + 1], alone)

    def test_it_is_the_same_whatever_the_pieces_are(self, monkeypatch: pytest.MonkeyPatch) -> None:
        x = images(7, 2, 4, 5)
        shifts = np.linspace(-1, 1, 14).reshape(7, 2)
        at_once = affine(x, 20, shifts)
        monkeypatch.setattr("nnlite.data.augmentation._PIXELS", 100)
        np.testing.assert_array_equal(affine(x, 20, shifts), at_once)

    @pytest.mark.parametrize("shape", [(4, 1, 28, 28), (1, 3, 7, 12), (2, 2, 1, 5), (3, 1, 1, 1)])
    def test_it_is_pytorchs_grid_sample(self, shape: tuple[int, ...]) -> None:
        torch = pytest.importorskip("torch")
        x = images(*shape)
        count, _, height, width = shape
        rng = np.random.default_rng(1)
        degrees = rng.uniform(-180, 180, count)
        down, right = rng.uniform(-3, 3, (2, count))
        scales = rng.uniform(0.5, 2, count)
        # grid_sample wants for each pixel the place it comes from, in half widths and heights of
        # the image: the inverse of the map, conjugated with diag(W / 2, H / 2). y runs downwards.
        inverses = []
        for angle, dy, dx, scale in zip(np.deg2rad(degrees), down, right, scales, strict=True):
            turned = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
            forward = np.eye(3)
            forward[:2, :2], forward[:2, 2] = scale * turned, (dx, dy)
            units = np.diag([2 / width, 2 / height, 1])
            inverses.append((units @ np.linalg.inv(forward) @ np.linalg.inv(units))[:2])
        grid = torch.nn.functional.affine_grid(
            torch.from_numpy(np.array(inverses)), list(shape), align_corners=False
        )
        expected = torch.nn.functional.grid_sample(
            torch.from_numpy(x), grid, padding_mode="zeros", align_corners=False
        )
        moved = affine(x, degrees, np.stack([down, right], axis=1), scales)
        np.testing.assert_allclose(moved, expected.numpy(), atol=1e-12)


class TestRandomAffine:
    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    @pytest.mark.parametrize("shape", [(1, 1, 28, 28), (5, 3, 7, 4), (2, 1, 1, 1)])
    def test_shape_and_dtype_stay_and_the_images_are_not_touched(
        self, shape: tuple[int, ...], dtype: type
    ) -> None:
        x = images(*shape, dtype=dtype)
        before = x.copy()
        moved = nn.RandomAffine(degrees=30, shift=2, scale=(0.8, 1.2), rng=0)(x)
        assert (moved.shape, moved.dtype) == (x.shape, x.dtype)
        assert not np.shares_memory(moved, x)
        np.testing.assert_array_equal(x, before)

    def test_the_order_in_memory_does_not_matter(self) -> None:
        x = images(4, 2, 6, 5)
        strided = np.asfortranarray(x)[:, :, ::-1]
        expected = nn.RandomAffine(20, 1, rng=3)(np.ascontiguousarray(strided))
        np.testing.assert_array_equal(nn.RandomAffine(20, 1, rng=3)(strided), expected)

    def test_labels_pass_through(self) -> None:
        x, labels, weights = images(4, 1, 6, 6), np.arange(4), np.ones(4)
        moved, *others = nn.RandomAffine(shift=1, rng=0)(x, labels, weights)
        assert moved.shape == x.shape
        assert others[0] is labels
        assert others[1] is weights

    def test_without_an_option_it_changes_nothing(self) -> None:
        x = images(3, 1, 9, 9)
        np.testing.assert_array_equal(nn.RandomAffine()(x), x)

    def test_shifts_are_spread_evenly_over_their_range(self) -> None:
        # On a plane that rises by 1 from pixel to pixel, the change is minus the shift.
        ramp = np.arange(31.0)
        down = np.broadcast_to(ramp[:, np.newaxis], (4000, 1, 31, 31))
        right = np.broadcast_to(ramp, (4000, 1, 31, 31))
        for plane in (down, right):
            shifts = 15 - nn.RandomAffine(shift=2, rng=0)(plane)[:, 0, 15, 15]
            assert -2 <= shifts.min() < -1.98
            assert 1.98 < shifts.max() <= 2
            # A uniform distribution on ±2 has the standard deviation 2 / √3.
            assert abs(shifts.mean()) < 0.08
            assert abs(shifts.std() - 2 / np.sqrt(3)) < 0.04

    def test_angles_and_factors_are_spread_evenly_over_their_ranges(self) -> None:
        # The plane x, turned by an angle a to the left and grown by s, is x cos(a) - y sin(a), over
        # s: from two pixels follow both.
        plane = np.broadcast_to(np.arange(31.0) - 15, (4000, 1, 31, 31))
        moved = nn.RandomAffine(degrees=30, scale=(0.5, 2), rng=0)(plane)[:, 0]
        along, across = moved[:, 15, 18] / 3, moved[:, 12, 15] / 3
        angles = np.rad2deg(np.arctan2(across, along))
        factors = 1 / np.hypot(along, across)
        for values, lowest, highest in ((angles, -30, 30), (factors, 0.5, 2)):
            width = highest - lowest
            assert lowest - 1e-9 <= values.min() < lowest + 0.01 * width
            assert highest - 0.01 * width < values.max() <= highest + 1e-9
            assert abs(values.mean() - (lowest + highest) / 2) < 0.02 * width
            assert abs(values.std() - width / np.sqrt(12)) < 0.01 * width

    def test_the_same_seed_gives_the_same_images(self) -> None:
        x = images(4, 1, 8, 8)
        first, second = nn.RandomAffine(10, 2, rng=5), nn.RandomAffine(10, 2, rng=5)
        for _ in range(2):
            np.testing.assert_array_equal(first(x), second(x))
        assert not np.array_equal(first(x), first(x))

    def test_without_rng_it_uses_the_packages_generator(self) -> None:
        x, transform = images(4, 1, 8, 8), nn.RandomAffine(10, 2)
        nn.seed(3)
        first = transform(x)
        nn.seed(3)
        np.testing.assert_array_equal(transform(x), first)

    def test_the_state_of_a_loader_has_its_generator(self) -> None:
        x = images(6, 1, 8, 8)

        def loader(seed: int) -> nn.DataLoader:
            return nn.DataLoader(x, batch_size=2, transform=nn.RandomAffine(10, 2, rng=seed))

        first, second = loader(1), loader(2)
        list(first)
        second.load_state_dict(first.state_dict())
        for expected, batch in zip(first, second, strict=True):
            np.testing.assert_array_equal(batch, expected)

    def test_repr_reads_like_the_call(self) -> None:
        transform = nn.RandomAffine(degrees=10, shift=2, scale=(0.9, 1.1), fill=-0.5, rng=0)
        text = "RandomAffine(degrees=10.0, shift=2.0, scale=(0.9, 1.1), fill=-0.5)"
        assert repr(transform) == text
        assert repr(nn.RandomAffine(rng=0)) == "RandomAffine()"

    @pytest.mark.parametrize(
        ("options", "error", "message"),
        [
            ({"degrees": -1}, ValueError, "RandomAffine: degrees must be at least 0, got -1"),
            ({"shift": float("nan")}, ValueError, "RandomAffine: shift must be finite"),
            ({"shift": "2"}, TypeError, "RandomAffine: shift must be a number"),
            ({"scale": 1.1}, TypeError, "scale must be a pair of factors such as"),
            ({"scale": (1.1, 0.9)}, ValueError, "the first factor must be the smaller"),
            ({"scale": (0, 1)}, ValueError, "scale: a factor must be above 0, got 0"),
            ({"fill": None}, TypeError, "RandomAffine: fill must be a number"),
            ({"rng": "seed"}, TypeError, "rng must be an int or a numpy.random.Generator"),
        ],
    )
    def test_a_bad_option_is_a_clear_error(
        self, options: dict[str, object], error: type[Exception], message: str
    ) -> None:
        with pytest.raises(error, match=message):
            nn.RandomAffine(**options)  # type: ignore[arg-type]

    def test_bad_images_are_a_clear_error(self) -> None:
        transform = nn.RandomAffine(10, 2)
        with pytest.raises(ValueError, match=r"shape \(N, C, H, W\).*got shape \(28, 28\)"):
            transform(np.zeros((28, 28)))
        with pytest.raises(ValueError, match="at least one pixel"):
            transform(np.zeros((0, 1, 28, 28)))
        with pytest.raises(TypeError, match=r"got uint8; convert them with \.astype"):
            transform(np.zeros((2, 1, 28, 28), np.uint8))


IMAGE_TRANSFORMS = [
    lambda rng: nn.RandomHorizontalFlip(rng=rng),
    lambda rng: nn.RandomCrop(8, padding=2, rng=rng),
    lambda rng: nn.RandomErasing(rng=rng),
    lambda rng: nn.GaussianNoise(rng=rng),
    lambda rng: nn.RandomAffine(20, 2, rng=rng),
]


@pytest.mark.parametrize("make", IMAGE_TRANSFORMS)
class TestImageTransforms:
    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    def test_shape_and_dtype_stay_and_the_images_are_not_touched(
        self, make: Callable[..., Any], dtype: type
    ) -> None:
        x = images(20, 2, 8, 8, dtype=dtype)
        x.flags.writeable = False
        changed = make(0)(x)
        assert (changed.shape, changed.dtype) == (x.shape, x.dtype)
        assert not np.shares_memory(changed, x)
        assert not np.array_equal(changed, x)

    def test_labels_pass_through(self, make: Callable[..., Any]) -> None:
        labels = np.arange(3)
        assert make(0)(images(3, 1, 8, 8), labels)[1] is labels

    def test_the_state_of_a_loader_has_its_generator(self, make: Callable[..., Any]) -> None:
        x = images(6, 1, 8, 8)
        first, second = (
            nn.DataLoader(x, batch_size=2, transform=nn.Compose([make(seed)])) for seed in (1, 2)
        )
        list(first)
        second.load_state_dict(first.state_dict())
        for expected, batch in zip(first, second, strict=True):
            np.testing.assert_array_equal(batch, expected)

    def test_without_rng_it_uses_the_packages_generator(self, make: Callable[..., Any]) -> None:
        x, transform = images(4, 1, 8, 8), make(None)
        nn.seed(3)
        first = transform(x)
        nn.seed(3)
        np.testing.assert_array_equal(transform(x), first)

    def test_bad_images_are_a_clear_error(self, make: Callable[..., Any]) -> None:
        transform = make(0)
        name = type(transform).__name__
        with pytest.raises(ValueError, match=rf"{name}: .*\(N, C, H, W\).*got shape \(8, 8\)"):
            transform(np.zeros((8, 8)))
        with pytest.raises(TypeError, match=f"{name}: .*got uint8; convert them"):
            transform(np.zeros((2, 1, 8, 8), np.uint8))

    def test_repr_can_be_typed_back_in(self, make: Callable[..., Any]) -> None:
        transform = make(0)
        again = eval(f"nn.{transform!r}")
        assert repr(again) == repr(transform)


class TestRandomHorizontalFlip:
    @pytest.mark.parametrize("p", [0.0, 0.3, 1.0])
    def test_it_mirrors_with_its_probability(self, p: float) -> None:
        x = images(5000, 1, 1, 3)
        flipped = nn.RandomHorizontalFlip(p, rng=0)(x)
        mirrored = (flipped == x[..., ::-1]).all(axis=(1, 2, 3))
        assert (mirrored | (flipped == x).all(axis=(1, 2, 3))).all()
        assert abs(mirrored.mean() - p) < 0.02

    @pytest.mark.parametrize("p", [-0.1, 1.1])
    def test_p_is_a_probability(self, p: float) -> None:
        with pytest.raises(ValueError, match="RandomHorizontalFlip: p must be between 0 and 1"):
            nn.RandomHorizontalFlip(p)


class TestRandomCrop:
    def test_every_window_comes_equally_often(self) -> None:
        # The pixels of an image are numbered: the first of a window says which it is.
        x = np.broadcast_to(np.arange(20.0).reshape(4, 5), (9000, 2, 4, 5))
        cropped = nn.RandomCrop((2, 3), rng=0)(x)
        assert cropped.shape == (9000, 2, 2, 3)
        first = cropped[:, 0, 0, 0]
        window = np.array([[0, 1, 2], [5, 6, 7]])
        np.testing.assert_array_equal(
            cropped, np.broadcast_to(window, cropped.shape) + first[:, None, None, None]
        )
        places, counts = np.unique(first, return_counts=True)
        assert places.tolist() == [0, 1, 2, 5, 6, 7, 10, 11, 12]
        assert abs(counts - 1000).max() < 150

    def test_padding_is_filled(self) -> None:
        cropped = nn.RandomCrop(4, padding=1, fill=7, rng=0)(np.zeros((1, 1, 2, 2)))
        expected = np.full((4, 4), 7.0)
        expected[1:3, 1:3] = 0
        np.testing.assert_array_equal(cropped[0, 0], expected)

    @pytest.mark.parametrize(
        ("options", "error", "message"),
        [
            ({"size": 0}, ValueError, "size must be at least 1"),
            ({"size": (1, 2, 3)}, TypeError, "an int or a pair"),
            ({"size": 2.0}, TypeError, "size must be an int"),
            ({"size": 2, "padding": -1}, ValueError, "padding must be at least 0"),
        ],
    )
    def test_a_bad_option_is_named(
        self, options: Any, error: type[Exception], message: str
    ) -> None:
        with pytest.raises(
            error, match=f"RandomCrop: {message}|RandomCrop: size must be {message}"
        ):
            nn.RandomCrop(**options)

    def test_a_window_larger_than_the_image_is_an_error(self) -> None:
        with pytest.raises(ValueError, match=r"at least \(9, 6\) .*more padding"):
            nn.RandomCrop((9, 6), padding=1)(images(2, 1, 6, 6))


class TestRandomErasing:
    def test_the_rectangle_has_the_area_and_the_ratio_asked_for(self) -> None:
        x = np.zeros((500, 2, 40, 60))
        erased = nn.RandomErasing(1, (0.05, 0.2), (0.5, 2), value=3, rng=0)(x) == 3
        np.testing.assert_array_equal(erased[:, 0], erased[:, 1])
        rows, columns = erased[:, 0].any(axis=2), erased[:, 0].any(axis=1)
        heights, widths = rows.sum(axis=1), columns.sum(axis=1)
        np.testing.assert_array_equal(erased[:, 0], rows[:, :, None] & columns[:, None, :])
        for line in (rows, columns):  # without a gap
            assert (
                np.abs(np.diff(np.pad(line, ((0, 0), (1, 1))).astype(int))).sum(axis=1) == 2
            ).all()
        # Sides are rounded to whole pixels.
        area, ratio = heights * widths / 2400, heights / widths
        assert 0.04 < area.min() < 0.06
        assert 0.19 < area.max() < 0.21
        assert abs(area.mean() - 0.125) < 0.006
        assert 0.45 < ratio.min() < 0.55
        assert 1.8 < ratio.max() < 2.2
        assert abs(np.log(ratio).mean()) < 0.06

    def test_every_pixel_is_reached(self) -> None:
        erased = nn.RandomErasing(1, value=1, rng=0)(np.zeros((3000, 1, 6, 5)))
        assert (erased.mean(axis=0) > 0.02).all()

    def test_a_side_longer_than_the_image_is_cut(self) -> None:
        erased = nn.RandomErasing(1, (1, 1), (4, 4), value=1, rng=0)(np.zeros((3, 1, 4, 4)))
        assert (erased.sum(axis=(1, 2, 3)) == 4 * 2).all()  # 8 by 2, cut to 4 by 2

    def test_p_is_the_fraction_of_images_that_change(self) -> None:
        erased = nn.RandomErasing(0.2, value=1, rng=0)(np.zeros((5000, 1, 6, 6)))
        assert abs(erased.any(axis=(1, 2, 3)).mean() - 0.2) < 0.02

    @pytest.mark.parametrize(
        ("options", "error", "message"),
        [
            ({"p": 2}, ValueError, "p must be between 0 and 1"),
            ({"scale": (0.1, 1.5)}, ValueError, "scale must be at most 1"),
            ({"scale": (0.3, 0.1)}, ValueError, "scale: the first factor must be the smaller"),
            ({"ratio": 2}, TypeError, "ratio must be a pair"),
            ({"ratio": (0, 1)}, ValueError, "ratio: a factor must be above 0"),
        ],
    )
    def test_a_bad_option_is_named(
        self, options: Any, error: type[Exception], message: str
    ) -> None:
        with pytest.raises(error, match=f"RandomErasing: {message}"):
            nn.RandomErasing(**options)


def test_gaussian_noise_has_its_mean_and_deviation() -> None:
    x = images(200, 1, 20, 20)
    noise = nn.GaussianNoise(0.5, 2, rng=1)(x) - x
    assert abs(noise.mean() - 0.5) < 0.03
    assert abs(noise.std() - 2) < 0.03
    assert abs(np.corrcoef(noise.ravel(), x.ravel())[0, 1]) < 0.02
    with pytest.raises(ValueError, match="GaussianNoise: sigma must be at least 0"):
        nn.GaussianNoise(sigma=-1)


class TestMixUp:
    def test_samples_and_targets_are_mixed_in_the_same_ratio(self) -> None:
        # With one-hot samples that are their labels, both must come out equal.
        labels = np.array([0, 1, 2, 3, 0])
        x, y = nn.MixUp(4, rng=1)(np.eye(4)[labels], labels)
        np.testing.assert_allclose(x, y)
        assert len(np.unique(x[(x > 0) & (x < 1)].round(12))) == 2  # λ and 1 - λ

    def test_the_ratio_has_a_beta_distribution(self) -> None:
        transform = nn.MixUp(2, alpha=0.4, rng=0)
        ratios = []
        for _ in range(3000):
            _, y = transform(np.zeros((2, 1)), np.array([0, 1]))
            ratios.append(y[0, 0])
        # One permutation in two changes nothing. Beta(a, a) has the variance 1 / (4 (2a + 1)).
        mixed = np.array([ratio for ratio in ratios if ratio not in (0, 1)])
        assert abs(len(mixed) / 3000 - 0.5) < 0.05
        assert abs(mixed.mean() - 0.5) < 0.04
        assert abs(mixed.var() - 1 / (4 * 1.8)) < 0.01

    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    def test_the_dtype_is_that_of_the_inputs(self, dtype: type) -> None:
        x, y = nn.MixUp(3, rng=0)(images(4, 1, 2, 2, dtype=dtype), np.array([0, 1, 2, 0]))
        assert x.dtype == y.dtype == dtype

    def test_probabilities_are_mixed_too(self) -> None:
        soft = np.array([[0.7, 0.3], [0.2, 0.8]])
        x, y = nn.MixUp(2, rng=0)(soft, soft)
        np.testing.assert_allclose(x, y)

    def test_a_model_trains_on_it_and_is_measured_on_the_most_probable_class(self) -> None:
        points, labels = nn.datasets.make_blobs(200, centers=[[-3, 0], [3, 0]], rng=0)
        nn.seed(0)
        model = nn.Linear(2, 2)
        history = nn.fit(
            model,
            nn.CrossEntropy(),
            nn.SGD(model.parameters(), lr=0.1),
            nn.DataLoader(points, labels, batch_size=20, transform=nn.MixUp(2, 0.2)),
            epochs=3,
            metrics=[nn.accuracy],
            progress=False,
        )
        assert history["accuracy"][-1] > 0.8
        assert nn.accuracy(model(points), labels) > 0.98

    @pytest.mark.parametrize(
        ("labels", "message"),
        [
            ([0, 2], r"labels must be in \[0, 2\), got 0 to 2"),
            ([-1, 1], "got -1 to 1"),
            ([0, 1, 1], r"class indices of shape \(2,\).*got int64 of shape \(3,\)"),
            ([[0.5, 0.2, 0.3]] * 2, r"probabilities of shape \(2, 2\), got float64"),
            (["a", "b"], "got <U1"),
        ],
    )
    def test_labels_are_checked(self, labels: Any, message: str) -> None:
        with pytest.raises(ValueError, match=f"MixUp: .*{message}"):
            nn.MixUp(2)(np.zeros((2, 3)), np.array(labels))

    def test_options_are_checked(self) -> None:
        with pytest.raises(ValueError, match="MixUp: num_classes must be at least 2"):
            nn.MixUp(1)
        with pytest.raises(ValueError, match="MixUp: alpha must be above 0"):
            nn.MixUp(2, 0)


class TestCompose:
    def test_each_gets_what_the_one_before_returns(self) -> None:
        double = nn.Compose([lambda x: x + 1, lambda x: x * 2])
        assert double(3) == 8
        swap = nn.Compose([lambda x, y: (y, x), lambda x, y: (x - y, y)])
        assert swap(1, 5) == (4, 1)

    def test_a_transform_must_be_callable(self) -> None:
        with pytest.raises(TypeError, match="Compose: a transform must be callable, got 3"):
            nn.Compose([3])  # type: ignore[list-item]
