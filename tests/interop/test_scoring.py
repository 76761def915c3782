"""Metrics of scikit-learn, by name, are computed once, from all outputs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nnlite as nn

metrics = pytest.importorskip("sklearn.metrics")
special = pytest.importorskip("scipy.special")


def evaluate(loss: nn.Loss, outputs: Any, targets: Any, *names: str) -> list[float]:
    """The figures of these outputs, in batches of 7."""
    figures = nn.evaluate(nn.Identity(), loss, (outputs, targets), metrics=names, batch_size=7)
    assert list(figures) == ["loss", *names]
    return [figures[name] for name in names]


class TestClasses:
    def test_several_classes(self, rng: np.random.Generator) -> None:
        scores, labels = rng.normal(size=(60, 4)), rng.integers(0, 4, 60)
        scores[np.arange(60), labels] += 1
        classes, rows = scores.argmax(axis=1), special.softmax(scores, axis=1)
        assert evaluate(
            nn.CrossEntropy(),
            scores,
            labels,
            "f1_macro",
            "balanced_accuracy",
            "roc_auc_ovr",
            "neg_log_loss",
            "matthews_corrcoef",
        ) == pytest.approx(
            [
                metrics.f1_score(labels, classes, average="macro"),
                metrics.balanced_accuracy_score(labels, classes),
                metrics.roc_auc_score(labels, rows, multi_class="ovr"),
                -metrics.log_loss(labels, rows),
                metrics.matthews_corrcoef(labels, classes),
            ]
        )

    def test_two_classes_and_two_outputs(self, rng: np.random.Generator) -> None:
        scores, labels = rng.normal(size=(60, 2)), rng.integers(0, 2, 60)
        assert evaluate(nn.CrossEntropy(), scores, labels, "roc_auc", "f1") == pytest.approx(
            [
                metrics.roc_auc_score(labels, scores[:, 1] - scores[:, 0]),
                metrics.f1_score(labels, scores.argmax(axis=1)),
            ]
        )

    @pytest.mark.parametrize("shape", [(60,), (60, 1)])
    def test_two_classes_and_one_output(
        self, rng: np.random.Generator, shape: tuple[int, ...]
    ) -> None:
        scores, labels = rng.normal(size=60), rng.integers(0, 2, 60)
        names = ["roc_auc", "average_precision", "f1", "neg_brier_score"]
        probabilities = 1 / (1 + np.exp(-scores))
        data = scores.reshape(shape), labels.reshape(shape).astype(float)
        assert evaluate(nn.BinaryCrossEntropy(), *data, *names) == pytest.approx(
            [
                metrics.roc_auc_score(labels, scores),
                metrics.average_precision_score(labels, scores),
                metrics.f1_score(labels, scores > 0),
                -np.mean((probabilities - labels) ** 2),
            ]
        )

    def test_several_labels(self, rng: np.random.Generator) -> None:
        scores, labels = rng.normal(size=(60, 3)), rng.integers(0, 2, (60, 3))
        data = scores, labels.astype(float)
        assert evaluate(nn.BinaryCrossEntropy(), *data, "f1_micro", "roc_auc") == pytest.approx(
            [
                metrics.f1_score(labels, scores > 0, average="micro"),
                metrics.roc_auc_score(labels, scores),
            ]
        )

    def test_outputs_are_read_as_the_loss_reads_them(self, rng: np.random.Generator) -> None:
        scores, labels = rng.normal(size=(60, 3)), rng.integers(0, 3, 60)
        rows = special.softmax(scores, axis=1)
        expected = [-metrics.log_loss(labels, rows)]
        for loss, outputs in [
            (nn.CrossEntropy(), scores),
            (nn.CrossEntropy(from_logits=False), rows),
            (nn.NegativeLogLikelihood(), np.log(rows)),
        ]:
            assert evaluate(loss, outputs, labels, "neg_log_loss") == pytest.approx(expected)

    def test_ignored_targets_are_left_out_and_positions_are_samples(
        self, rng: np.random.Generator
    ) -> None:
        scores, labels = rng.normal(size=(20, 3, 5)), rng.integers(0, 3, (20, 5))
        labels[rng.random((20, 5)) < 0.3] = -100
        labels[:7] = -100  # a whole batch
        counted = labels != -100
        expected = metrics.f1_score(
            labels[counted], scores.argmax(axis=1)[counted], average="macro"
        )
        assert evaluate(nn.CrossEntropy(), scores, labels, "f1_macro") == pytest.approx([expected])

    def test_target_probabilities_mean_their_most_probable_class(
        self, rng: np.random.Generator
    ) -> None:
        scores, soft = rng.normal(size=(30, 3)), special.softmax(rng.normal(size=(30, 3)), axis=1)
        expected = metrics.f1_score(soft.argmax(axis=1), scores.argmax(axis=1), average="macro")
        assert evaluate(nn.CrossEntropy(), scores, soft, "f1_macro") == pytest.approx([expected])


def test_numbers(rng: np.random.Generator) -> None:
    outputs, targets = rng.normal(size=(2, 50, 2))
    names = "r2", "neg_root_mean_squared_error"
    assert evaluate(nn.MeanSquaredError(), outputs, targets, *names) == pytest.approx(
        [
            metrics.r2_score(targets, outputs),
            -metrics.root_mean_squared_error(targets, outputs),
        ]
    )


class TestFit:
    def fit(self, **options: Any) -> nn.History:
        points, labels = nn.datasets.make_moons(200, noise=0.1, rng=0)
        model = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 2))
        optimizer = nn.Adam(model.parameters(), lr=0.05)
        loader = nn.DataLoader(points[:150], labels[:150], batch_size=50, shuffle=True)
        options = {"validation": (points[150:], labels[150:]), **options}
        return nn.fit(
            model, nn.CrossEntropy(), optimizer, loader, progress=False, epochs=4, **options
        )

    def test_the_validation_data_have_them_and_the_training_data_have_not(self) -> None:
        history = self.fit(metrics=["f1", nn.accuracy])
        assert "f1" not in history
        assert len(history["accuracy"]) == len(history["validation_f1"]) == 4
        assert 0 < history["validation_f1"][-1] <= 1

    def test_a_mapping_gives_them_other_names(self) -> None:
        history = self.fit(metrics={"auc": "roc_auc"})
        assert len(history["validation_auc"]) == 4

    def test_they_can_be_monitored(self) -> None:
        stop = nn.EarlyStopping("validation_f1", mode="max", patience=1, min_delta=2)
        assert len(self.fit(metrics=["f1"], callbacks=[stop]).epochs) < 4

    def test_a_run_can_be_resumed(self, tmp_path: Path) -> None:
        path = tmp_path / "run.npz"
        self.fit(metrics=["f1", nn.accuracy], checkpoint=path)
        history = self.fit(metrics=["f1", nn.accuracy], checkpoint=path, resume=True)
        assert len(history["validation_f1"]) == 4

    def test_without_validation_data_there_is_nothing_to_compute_them_from(self) -> None:
        with pytest.raises(ValueError, match="fit: the metric 'f1' .* give validation="):
            self.fit(metrics=["f1"], validation=None)

    @pytest.mark.parametrize("name", ["f2", "f1-macro"])
    def test_an_unknown_name_is_an_error_before_the_first_epoch(self, name: str) -> None:
        with pytest.raises(ValueError, match=f"fit: '{name}' is not a valid scoring value"):
            self.fit(metrics=[name])


def test_without_scikit_learn_the_error_says_what_to_install() -> None:
    script = (
        "import sys, numpy; sys.modules['sklearn'] = None\n"
        "import nnlite as nn\n"
        "data = numpy.zeros((2, 2)), numpy.array([0, 1])\n"
        "nn.evaluate(nn.Identity(), nn.CrossEntropy(), data, metrics=['f1'])"
    )
    root = Path(nn.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=root, check=False
    )
    assert "pip install scikit-learn" in done.stderr
