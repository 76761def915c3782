"""Plots show the right counts, images and weights."""

from __future__ import annotations

import builtins
import subprocess
import sys
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest

import nnlite as nn

matplotlib.use("Agg")

ROOT = Path(__file__).parents[1]


def texts(axes: Any) -> list[str]:
    return [text.get_text() for text in axes.texts]


def picture(axes: Any) -> np.ndarray:
    """Return the array of the only image that is drawn."""
    (image,) = axes.images
    return np.ma.filled(image.get_array().astype(float), np.nan)


@pytest.fixture
def logits() -> np.ndarray:
    """Return logits with these probabilities of the classes."""
    return np.log([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8], [0.2, 0.5, 0.3], [0.09, 0.9, 0.01]])


class TestConfusionMatrix:
    def test_it_writes_each_count_into_its_cell(self, logits: np.ndarray) -> None:
        figure = nn.plot_confusion_matrix(logits, [0, 0, 1, 2])
        counts = {}
        for text in figure.axes[0].texts:
            column, row = text.get_position()
            if column in (0, 1, 2):
                counts[row, column] = text.get_text()
        # Classes 0, 0, 1, 2 were taken for 0, 2, 1, 1.
        assert counts == {
            (0, 0): "1", (0, 1): "·", (0, 2): "1",
            (1, 0): "·", (1, 1): "1", (1, 2): "·",
            (2, 0): "·", (2, 1): "1", (2, 2): "0",
        }  # fmt: skip

    def test_it_writes_the_recall_of_each_class(self, logits: np.ndarray) -> None:
        (axes,) = nn.plot_confusion_matrix(logits, [0, 0, 1, 1]).axes
        assert texts(axes)[9:12] == ["50.0%", "100.0%", "–"]  # there is no sample of class 2

    def test_its_axes_have_the_names_of_the_classes(self, logits: np.ndarray) -> None:
        (axes,) = nn.plot_confusion_matrix(logits, [0, 0, 1, 1], names=["a", "b", "c"]).axes
        for ticks in (axes.get_xticklabels(), axes.get_yticklabels()):
            assert [tick.get_text() for tick in ticks] == ["a", "b", "c"]

    def test_another_number_of_names_is_an_error(self, logits: np.ndarray) -> None:
        with pytest.raises(ValueError, match="expected 3 names of classes, got 2"):
            nn.plot_confusion_matrix(logits, [0, 0, 1, 1], names=["a", "b"])


class TestMistakes:
    images = np.arange(4 * 6, dtype=np.float32).reshape(4, 1, 2, 3)

    def test_the_worst_comes_first_with_its_probabilities(self, logits: np.ndarray) -> None:
        (axes,) = nn.plot_mistakes(self.images, logits, [0, 0, 0, 2], names=["A", "B", "C"]).axes
        # The second, third and fourth are wrong; their labels have 0.1, 0.2 and 0.01.
        assert texts(axes)[:6] == [
            "B   90.0%", "C   1.0%", "C   80.0%", "A   10.0%", "B   50.0%", "A   20.0%",
        ]  # fmt: skip

    def test_probabilities_are_taken_as_they_are(self, logits: np.ndarray) -> None:
        (axes,) = nn.plot_mistakes(
            self.images, np.exp(logits), [0, 1, 1, 1], from_logits=False
        ).axes
        assert texts(axes)[:2] == ["2   80.0%", "1   10.0%"]

    def test_it_draws_the_images_themselves(self, logits: np.ndarray) -> None:
        images = np.random.default_rng(0).random((4, 1, 5, 5))
        images[:, :, 0, 0], images[:, :, 4, 4] = 0, 1  # the darkest and the lightest
        (axes,) = nn.plot_mistakes(images, logits, [0, 0, 1, 2], count=2).axes
        drawn = picture(axes)
        np.testing.assert_array_equal(drawn[:5, :5], images[3, 0])
        np.testing.assert_array_equal(drawn[:5, -5:], images[1, 0])
        assert np.isnan(drawn[:, 5]).all()

    def test_images_in_colour_stay_in_colour(self, logits: np.ndarray) -> None:
        images = np.random.default_rng(0).random((4, 3, 5, 5))
        images[:, :, 0, 0], images[:, :, 4, 4] = 0, 1
        (axes,) = nn.plot_mistakes(images, logits, [0, 0, 1, 1], count=1).axes
        np.testing.assert_array_equal(picture(axes), np.moveaxis(images[1], 0, -1))

    def test_without_mistakes_it_says_so(self, logits: np.ndarray) -> None:
        (axes,) = nn.plot_mistakes(self.images, logits, [0, 2, 1, 1]).axes
        assert axes.get_title(loc="left") == "no mistakes"
        assert not axes.images

    def test_bad_shapes_are_a_clear_error(self, logits: np.ndarray) -> None:
        with pytest.raises(ValueError, match=r"1 or 3 channels, got shape \(4, 2, 3\)"):
            nn.plot_mistakes(self.images[:, 0], logits, [0, 1, 1, 1])
        with pytest.raises(ValueError, match=r"shape \(3, classes\) .* got shape \(4, 3\)"):
            nn.plot_mistakes(self.images[:3], logits, [0, 1, 1, 1])
        with pytest.raises(ValueError, match=r"labels must be in \[0, 3\) for 3 classes, got 3"):
            nn.plot_mistakes(self.images, logits, [0, 1, 1, 3])


class TestWeights:
    def test_units_over_pixels_are_images_the_largest_first(self) -> None:
        model = nn.Sequential(nn.Flatten(), nn.Linear(25, 3), nn.Linear(3, 2))
        weights = model[1].weight.data
        weights *= np.array([[1.0], [3.0], [2.0]], np.float32) / np.linalg.norm(
            weights, axis=1, keepdims=True
        )
        (axes,) = nn.plot_weights(model, image_shape=(1, 5, 5), count=2).axes
        drawn = picture(axes)[::4, ::4]  # each weight is 24 // 5 = 4 wide
        largest = weights[1].reshape(5, 5)
        np.testing.assert_allclose(drawn[:5, :5], largest / np.abs(largest).max(), rtol=1e-6)
        assert axes.get_title(loc="left").endswith("the 2 largest of 3")

    def test_kernels_of_all_channels_are_drawn(self) -> None:
        (axes,) = nn.plot_weights(nn.Sequential(nn.Conv2d(2, 4, 8))).axes
        # Eight tiles of 8 × 8 weights, each 24 // 8 = 3 wide, with seven gaps of 3 between them.
        assert picture(axes).shape == (24, 8 * 24 + 7 * 3)

    @pytest.mark.parametrize(("kind", "gates"), [(nn.RNN, 1), (nn.GRU, 3), (nn.LSTM, 4)])
    def test_a_recurrent_layer_is_drawn_gate_by_gate(self, kind: Any, gates: int) -> None:
        layer = kind(5, 7)
        figure = nn.plot_weights(nn.Sequential(layer))
        drawn = [picture(axes) for axes in figure.axes]
        assert [array.shape for array in drawn] == [(5, 7)] * gates
        units = np.concatenate(drawn).T  # a unit with its weights in all gates
        expected = layer.weight_ih_l0.data.reshape(gates, 7, 5).transpose(1, 0, 2).reshape(7, -1)
        assert {tuple(unit) for unit in units} == {tuple(unit) for unit in expected}

    def test_its_units_are_in_the_order_of_what_they_weigh(self) -> None:
        layer = nn.RNN(3, 3)
        layer.weight_ih_l0.data[:] = [[0, 0, 1], [2, 0, 0], [0, -3, 0]]
        (axes,) = nn.plot_weights(nn.Sequential(layer)).axes
        np.testing.assert_array_equal(picture(axes), np.diag([2, -3, 1]))

    def test_other_weights_are_a_matrix(self) -> None:
        model = nn.Sequential(nn.Linear(6, 4))
        for shape in (None, (1, 5, 5)):
            (axes,) = nn.plot_weights(model, image_shape=shape).axes
            np.testing.assert_array_equal(picture(axes), model[0].weight.data)

    def test_a_model_without_weights_is_an_error(self) -> None:
        with pytest.raises(ValueError, match="has no layer with weights to draw"):
            nn.plot_weights(nn.Sequential(nn.ReLU()))


class TestReport:
    def model(self) -> nn.Sequential:
        return nn.Sequential(nn.Flatten(), nn.Linear(9, 3))

    def data(self) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(0)
        return rng.normal(size=(20, 1, 3, 3)).astype(np.float32), rng.integers(0, 3, 20)

    @pytest.mark.parametrize("ending", ["png", "svg", "pdf"])
    def test_it_has_curves_and_pictures_and_becomes_a_file(
        self, tmp_path: Path, ending: str
    ) -> None:
        history = nn.History()
        history.append({"loss": 0.5, "accuracy": 0.5})
        history.append({"loss": 0.4, "accuracy": 0.75})
        figure = nn.plot_report(self.model(), history, *self.data())
        titles = [axes.get_title(loc="left") for axes in figure.axes]
        titles += [axes.get_title(loc="left") for part in figure.subfigs for axes in part.axes]
        assert {"loss", "accuracy", "confusion matrix", "worst mistakes"} <= set(titles)
        figure.savefig(tmp_path / f"report.{ending}")
        assert (tmp_path / f"report.{ending}").stat().st_size > 10_000
        matplotlib.pyplot.close(figure)

    def test_its_title_has_the_accuracy(self) -> None:
        images, labels = self.data()
        model = self.model()
        figure = nn.plot_report(model, nn.History(), images, labels)
        right = int((model(images).argmax(axis=1) == labels).sum())
        assert figure.get_suptitle() == (
            f"{right / 20:.2%} of 20 images classified correctly, {20 - right} incorrectly"
        )


def test_without_matplotlib_it_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch, logits: np.ndarray
) -> None:
    real_import = builtins.__import__

    def without_matplotlib(name: str, *args: Any, **options: Any) -> Any:
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real_import(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", without_matplotlib)
    with pytest.raises(ImportError, match=r"plot_weights needs .* pip install matplotlib"):
        nn.plot_weights(nn.Linear(2, 2))
    with pytest.raises(ImportError, match=r"plot_mistakes needs .* pip install matplotlib"):
        nn.plot_mistakes(np.zeros((4, 1, 2, 2)), logits, [0, 0, 0, 0])
    with pytest.raises(ImportError, match=r"pip install matplotlib"):
        nn.plot_confusion_matrix(logits, [0, 0, 0, 0])
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    with pytest.raises(ImportError, match=r"pip install matplotlib"):
        nn.plot_report(model, nn.History(), np.zeros((1, 1, 2, 2), np.float32), [0])


class TestGradients:
    def test_it_draws_the_root_mean_squares(self) -> None:
        model, loss = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)), nn.MeanSquaredError()
        loss(model(np.ones((5, 3), np.float32)), np.ones((5, 2)))
        model.backward(loss.backward())
        (axes,) = nn.plot_gradients(model).axes
        values, grads = (line.get_xdata() for line in axes.lines)
        for index, parameter in enumerate(model.parameters()):
            assert values[index] == pytest.approx(np.sqrt(np.mean(parameter.data**2)), rel=1e-5)
            assert grads[index] == pytest.approx(np.sqrt(np.mean(parameter.grad**2)), rel=1e-5)
        names = [tick.get_text() for tick in axes.get_yticklabels()]
        assert names == ["0.weight", "0.bias", "1.weight", "1.bias"]

    def test_missing_gradients_and_zeros_are_written(self) -> None:
        model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
        model[0].weight.accumulate(np.zeros((4, 3)))
        (axes,) = nn.plot_gradients(model).axes
        assert texts(axes) == ["gradient 0", *["no gradient"] * 3]

    def test_without_any_it_is_an_error(self) -> None:
        with pytest.raises(ValueError, match="no parameter of Linear.* call backward first"):
            nn.plot_gradients(nn.Linear(2, 2))


class TestHistograms:
    def test_each_epoch_is_a_column(self) -> None:
        x = np.random.default_rng(0).normal(size=(16, 2)).astype(np.float32)
        model = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 1))
        histograms = nn.Histograms(x)
        nn.fit(
            model, nn.MeanSquaredError(), nn.SGD(model.parameters(), lr=0.1), [(x, x[:, :1])],
            epochs=2, callbacks=[histograms], progress=False,
        )  # fmt: skip
        figure = nn.plot_histograms(histograms)
        titles = [axes.get_title(loc="left") for axes in figure.axes]
        assert titles[:7] == [
            "0.weight", "0.bias", "2.weight", "2.bias", "output of 0", "output of 1", "output of 2"
        ]  # fmt: skip
        columns = figure.axes[0].collections
        assert len(columns) == 3
        counts, edges = histograms.weights["0.weight"][2]
        np.testing.assert_allclose(columns[2].get_array().ravel(), counts / counts.max())
        corners = columns[2].get_coordinates()
        np.testing.assert_allclose(corners[:, 0, 1], edges)
        assert corners[0, :, 0].tolist() == [1.5, 2.5]

    def test_nothing_recorded_is_an_error(self) -> None:
        with pytest.raises(ValueError, match="give the callback to fit first"):
            nn.plot_histograms(nn.Histograms())


class TestHeatmaps:
    def test_maps_lie_over_their_images(self, rng: np.random.Generator) -> None:
        images, maps = rng.random((3, 1, 5, 6)), rng.random((3, 5, 6))
        figure = nn.plot_heatmaps(images, maps, titles=["a", "b", "c"])
        assert [axes.get_title() for axes in figure.axes] == ["a", "b", "c"]
        below, above = figure.axes[1].images
        image = images[1, 0]
        np.testing.assert_allclose(below.get_array(), (image - image.min()) / np.ptp(image))
        np.testing.assert_allclose(above.get_array(), maps[1] / maps[1].max())

    def test_a_map_of_zeros_is_drawn(self) -> None:
        nn.plot_heatmaps(np.ones((1, 3, 4, 4)), np.zeros((1, 4, 4)))

    def test_bad_shapes_are_a_clear_error(self) -> None:
        with pytest.raises(ValueError, match=r"expected maps of shape \(2, 4, 4\)"):
            nn.plot_heatmaps(np.ones((2, 1, 4, 4)), np.ones((2, 4, 5)))
        with pytest.raises(ValueError, match="expected 2 titles, got 1"):
            nn.plot_heatmaps(np.ones((2, 1, 4, 4)), np.ones((2, 4, 4)), titles=["a"])


def test_plots_need_no_display(tmp_path: Path) -> None:
    script = """
import numpy as np
import nnlite as nn
x = np.ones((4, 1, 5, 5), np.float32)
model, loss = nn.Sequential(nn.Flatten(), nn.Linear(25, 2)), nn.CrossEntropy()
histograms = nn.Histograms(x)
history = nn.fit(
    model, loss, nn.SGD(model.parameters(), lr=0.1), [(x, np.arange(4) % 2)],
    callbacks=[histograms], progress=False,
)
for figure in (history.plot(), nn.plot_weights(model), nn.plot_gradients(model),
               nn.plot_histograms(histograms), nn.plot_heatmaps(x, nn.saliency(model, x)),
               nn.diagnose(model, loss, (x, np.arange(4) % 2)).plot()):
    figure.savefig("figure.png")
"""
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env=environment, check=True)
