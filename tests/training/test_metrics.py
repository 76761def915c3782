"""Metrics agree with their definitions, scikit-learn and PyTorch."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import nnlite as nn

from ..registry import Array

# Rows of four scores; the second and third samples are misclassified, and the label of the
# second is the runner-up.
SCORES = np.array([[9.0, 1.0, 2.0, 3.0], [5.0, 6.0, 0.0, 1.0], [4.0, 3.0, 2.0, 1.0]])
LABELS = np.array([0, 0, 3])


class TestAccuracy:
    def test_is_the_share_of_labels_with_the_largest_score(self) -> None:
        assert nn.accuracy(SCORES, LABELS) == 1 / 3

    def test_counts_every_position_of_a_sequence(self) -> None:
        scores = np.moveaxis(np.stack([SCORES, SCORES[::-1]]), 1, 2)  # (2, 4 classes, 3 positions)
        assert nn.accuracy(scores, np.stack([LABELS, LABELS])) == 2 / 6

    @pytest.mark.parametrize(
        ("scores", "labels"),
        [
            (SCORES, LABELS[:2]),
            (SCORES, SCORES.astype(int)),
            (SCORES[0], LABELS[0]),
            (SCORES[:0], LABELS[:0]),
        ],
    )
    def test_shapes_that_do_not_fit_are_named(self, scores: Array, labels: Array) -> None:
        with pytest.raises(ValueError, match=r"accuracy: expected predictions .* got the shapes"):
            nn.accuracy(scores, labels)

    def test_probabilities_are_labels_of_their_most_probable_class(self) -> None:
        soft = np.full((3, 4), 0.1)
        soft[np.arange(3), LABELS] = 0.7
        assert nn.accuracy(SCORES, soft) == 1 / 3
        assert nn.top_k_accuracy(SCORES, soft, k=2) == 2 / 3
        assert_array_equal(nn.confusion_matrix(SCORES, soft), nn.confusion_matrix(SCORES, LABELS))

    def test_one_score_has_no_largest(self) -> None:
        with pytest.raises(ValueError, match=r"shape \(3, 1\); for one score .* binary_accuracy"):
            nn.accuracy(SCORES[:, :1], LABELS)

    def test_scores_with_a_nan_are_not_right(self) -> None:
        scores = SCORES.copy()
        scores[:, 0] = np.nan
        assert nn.accuracy(scores, [0, 0, 0]) == 0

    def test_labels_that_are_ignored_are_left_out(self) -> None:
        assert nn.accuracy(SCORES, [0, -100, 3]) == 1 / 2
        assert nn.accuracy(SCORES, LABELS, ignore_index=3) == 1 / 2
        assert np.isnan(nn.accuracy(SCORES, [-100] * 3))

    @pytest.mark.parametrize(
        ("labels", "error", "message"),
        [
            (["a", "b", "c"], TypeError, r"integer dtype .* numpy\.unique"),
            ([0.5, 1.0, 0.0], TypeError, "integer dtype"),
            ([True, False, True], TypeError, "integer dtype"),
            ([1, 2, 4], ValueError, r"in \[0, 4\) for 4 classes, got 4"),
            ([1, 2, -1], ValueError, r"in \[0, 4\) for 4 classes, got -1"),
        ],
        ids=["strings", "floats", "booleans", "one-based", "negative"],
    )
    def test_labels_are_checked_as_the_loss_checks_them(
        self, labels: Any, error: type[Exception], message: str
    ) -> None:
        for metric in (nn.accuracy, nn.confusion_matrix):
            with pytest.raises(error, match=f"^{metric.__name__}: .*{message}"):
                metric(SCORES, labels)
        with pytest.raises(error, match=f"^top_k_accuracy: .*{message}"):
            nn.top_k_accuracy(SCORES, labels, k=2)
        with pytest.raises(error, match=message):
            nn.CrossEntropy()(SCORES, labels)

    def test_fit_and_evaluate_pass_the_ignored_label_of_the_loss(self) -> None:
        # Of the labels that are not 3 one of two is predicted.
        model, loss = nn.Identity(), nn.CrossEntropy(ignore_index=3)
        metrics = {
            "default": nn.accuracy,
            "own": functools.partial(nn.accuracy, ignore_index=0),
            "plain": lambda predictions, labels: 0.25,
        }
        figures = nn.evaluate(model, loss, (SCORES, LABELS), metrics=metrics)
        assert figures["default"] == 1 / 2
        assert figures["own"] == 0
        assert figures["plain"] == 0.25


class TestClassesOnTheLastAxis:
    """Figures of scores (N, T, C) with dim=-1 are those of the same scores as (N, C, T)."""

    SCORES = np.random.default_rng(0).normal(size=(4, 5, 3))
    LABELS = np.random.default_rng(1).integers(3, size=(4, 5))

    @pytest.mark.parametrize(
        "metric",
        [
            nn.accuracy,
            functools.partial(nn.top_k_accuracy, k=2),
            nn.confusion_matrix,
            nn.precision_score,
            nn.recall_score,
            nn.f1_score,
        ],
        ids=["accuracy", "top_k", "confusion", "precision", "recall", "f1"],
    )
    def test_dim(self, metric: Any) -> None:
        expected = metric(self.SCORES.swapaxes(1, 2), self.LABELS)
        assert_array_equal(metric(self.SCORES, self.LABELS, dim=-1), expected)
        with pytest.raises(ValueError, match="classes are the last axis, use dim=-1"):
            metric(self.SCORES, self.LABELS)
        with pytest.raises(ValueError, match="dim must be 1 or -1, got 0"):
            metric(self.SCORES, self.LABELS, dim=0)

    def test_probabilities_as_targets(self) -> None:
        targets = np.eye(3)[self.LABELS]
        found = nn.accuracy(self.SCORES, targets, dim=-1)
        assert found == nn.accuracy(self.SCORES, self.LABELS, dim=-1)

    def test_fit_and_evaluate_pass_the_axis_of_the_loss(self) -> None:
        loss = nn.CrossEntropy(dim=-1, ignore_index=2)
        first_two = functools.partial(nn.top_k_accuracy, k=2)
        figures = nn.evaluate(
            nn.Identity(), loss, (self.SCORES, self.LABELS),
            metrics={"one": nn.accuracy, "two": nn.f1_score, "three": first_two}, batch_size=3,
        )  # fmt: skip
        scores = self.SCORES.swapaxes(1, 2)
        expected = {
            "one": nn.accuracy(scores, self.LABELS, ignore_index=2),
            "two": nn.f1_score(scores, self.LABELS, ignore_index=2),
            "three": nn.top_k_accuracy(scores, self.LABELS, k=2, ignore_index=2),
        }
        for name, value in expected.items():
            assert figures[name] == pytest.approx(value)

    def test_scorers_of_scikit_learn_read_the_axis_of_the_loss(self) -> None:
        pytest.importorskip("sklearn")
        pytest.importorskip("scipy")
        last = nn.evaluate(
            nn.Identity(), nn.CrossEntropy(dim=-1), (self.SCORES, self.LABELS),
            metrics=["f1_macro", "neg_log_loss"],
        )  # fmt: skip
        second = nn.evaluate(
            nn.Identity(), nn.CrossEntropy(), (self.SCORES.swapaxes(1, 2), self.LABELS),
            metrics=["f1_macro", "neg_log_loss"],
        )  # fmt: skip
        assert last == pytest.approx(second)


class TestBinaryAccuracy:
    def test_is_the_share_on_the_right_side_of_the_threshold(self) -> None:
        # Right: 2 for 1, -1 for 0, and 0, which is not above the threshold, for 0.
        logits, targets = [[2.0], [-1.0], [-2.0], [0.0]], [[1], [0], [1], [0]]
        assert nn.binary_accuracy(logits, targets) == 3 / 4
        assert nn.binary_accuracy([0.6, 0.4, 0.1], [1.0, 1.0, 0.0], threshold=0.5) == 2 / 3

    def test_is_that_of_two_classes(self, rng: np.random.Generator) -> None:
        scores, labels = rng.normal(size=(50, 2)), rng.integers(2, size=50)
        assert nn.binary_accuracy(scores[:, 1] - scores[:, 0], labels) == nn.accuracy(
            scores, labels
        )

    def test_nan_is_not_right(self) -> None:
        assert nn.binary_accuracy([np.nan, np.nan], [0, 1]) == 0

    def test_says_what_does_not_fit(self) -> None:
        with pytest.raises(ValueError, match=r"got the shapes \(3, 1\) and \(3,\)"):
            nn.binary_accuracy(SCORES[:, :1], LABELS)
        with pytest.raises(ValueError, match="targets must be 0 or 1, got 3"):
            nn.binary_accuracy(SCORES[:, 0], LABELS)
        with pytest.raises(ValueError, match="with N above 0"):
            nn.binary_accuracy([], [])

    def test_warns_of_probabilities_with_the_threshold_of_logits(self) -> None:
        probabilities, targets = [0.2, 0.4, 0.6, 0.9], [0, 0, 1, 1]
        with pytest.warns(UserWarning, match=r"use threshold=0\.5"):
            nn.binary_accuracy(probabilities, targets)
        assert nn.binary_accuracy(probabilities, targets, threshold=0.5) == 1

    def test_targets_that_are_no_numbers_are_an_error(self) -> None:
        with pytest.raises(TypeError, match="targets must be 0 or 1, got dtype <U1"):
            nn.binary_accuracy([0.2], ["a"])


class TestTopKAccuracy:
    @pytest.mark.parametrize(("k", "share"), [(1, 1 / 3), (2, 2 / 3), (3, 2 / 3), (4, 1.0)])
    def test_finds_the_label_among_the_k_largest(self, k: int, share: float) -> None:
        assert nn.top_k_accuracy(SCORES, LABELS, k) == share

    def test_the_first_is_the_accuracy(self, rng: np.random.Generator) -> None:
        scores, labels = rng.normal(size=(50, 7)), rng.integers(7, size=50)
        assert nn.top_k_accuracy(scores, labels, k=1) == nn.accuracy(scores, labels)

    def test_agrees_with_pytorch(self, rng: np.random.Generator) -> None:
        torch = pytest.importorskip("torch")
        scores, labels = rng.normal(size=(200, 20, 3)), rng.integers(20, size=(200, 3))
        top = torch.from_numpy(scores).topk(5, dim=1).indices
        expected = (top == torch.from_numpy(labels)[:, None]).any(dim=1).double().mean().item()
        assert nn.top_k_accuracy(scores, labels) == pytest.approx(expected, abs=1e-12)

    def test_labels_that_are_ignored_are_left_out(self) -> None:
        # Of the first two samples only the first has its label on top.
        assert nn.top_k_accuracy(SCORES, [0, 0, -100], k=1) == 1 / 2
        assert nn.top_k_accuracy(SCORES, LABELS, k=2, ignore_index=3) == 1
        assert np.isnan(nn.top_k_accuracy(SCORES, [-100] * 3, k=2))

    def test_scores_that_say_nothing_are_not_right(self) -> None:
        assert nn.top_k_accuracy(np.zeros((4, 3)), [0, 1, 2, 0], k=2) == 0
        assert nn.top_k_accuracy(np.full((4, 3), np.nan), [0, 1, 2, 0], k=2) == 0

    def test_says_what_is_out_of_range(self) -> None:
        with pytest.raises(ValueError, match="k must be at most the 4 classes, got 5"):
            nn.top_k_accuracy(SCORES, LABELS)
        with pytest.raises(ValueError, match=r"labels must be in \[0, 4\) for 4 classes, got -1"):
            nn.top_k_accuracy(SCORES, LABELS - 1, k=2)
        with pytest.raises(TypeError, match="labels of an integer dtype"):
            nn.top_k_accuracy(SCORES, LABELS.astype(float), k=2)
        with pytest.raises(TypeError, match="k must be an int"):
            nn.top_k_accuracy(SCORES, LABELS, k=2.0)  # type: ignore[arg-type]


class TestConfusionMatrix:
    def test_rows_are_true_classes_and_columns_predicted_ones(self) -> None:
        # Class 0 is taken for 0 and for 1, class 3 for 0.
        expected = [[1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0], [1, 0, 0, 0]]
        assert_array_equal(nn.confusion_matrix(SCORES, LABELS), expected)

    def test_agrees_with_scikit_learn(self, rng: np.random.Generator) -> None:
        # sklearn.metrics.confusion_matrix([0, 1, 2, 2, 1, 0, 2], [0, 2, 2, 1, 1, 0, 2])
        recorded = [[2, 0, 0], [0, 1, 1], [0, 1, 2]]
        predicted, labels = np.array([0, 2, 2, 1, 1, 0, 2]), np.array([0, 1, 2, 2, 1, 0, 2])
        assert_array_equal(nn.confusion_matrix(np.eye(3)[predicted], labels), recorded)

    def test_its_diagonal_is_the_accuracy(self, rng: np.random.Generator) -> None:
        scores, labels = rng.normal(size=(300, 5, 2)), rng.integers(5, size=(300, 2))
        counts = nn.confusion_matrix(scores, labels)
        assert counts.sum() == 600
        assert np.trace(counts) / 600 == nn.accuracy(scores, labels)
        assert_array_equal(counts.sum(axis=1), np.bincount(labels.reshape(-1)))

    def test_takes_small_integer_labels(self) -> None:
        # 200 classes: a uint8 times 200 would not fit into a uint8.
        labels = np.array([199], np.uint8)
        assert nn.confusion_matrix(np.eye(200)[[199]], labels)[199, 199] == 1

    def test_a_row_with_nan_is_an_error_and_ignored_labels_are_left_out(self) -> None:
        scores = SCORES.copy()
        scores[1, 2] = np.nan
        with pytest.raises(ValueError, match="predictions contain NaN in sample 1"):
            nn.confusion_matrix(scores, LABELS)
        assert nn.confusion_matrix(SCORES, [0, -100, 3]).sum() == 2

    def test_says_what_is_out_of_range(self) -> None:
        with pytest.raises(ValueError, match=r"labels must be in \[0, 4\) for 4 classes, got 4"):
            nn.confusion_matrix(SCORES, LABELS + 1)


class TestEpochMetric:
    def test_it_gets_everything_at_once_and_in_order(self) -> None:
        def spread(predictions: Array, targets: Array) -> float:
            assert_array_equal(predictions, np.arange(10.0)[:, np.newaxis])
            assert_array_equal(targets, np.zeros((10, 1)))
            return float(predictions.max() - predictions.min())

        data = np.arange(10.0)[:, np.newaxis], np.zeros((10, 1))
        loss = nn.MeanSquaredError()
        metrics = [nn.EpochMetric(spread)]
        figures = nn.evaluate(nn.Identity(), loss, data, metrics=metrics, batch_size=3)
        assert figures["spread"] == 9

    def test_figures_are_in_the_order_of_the_metrics(self) -> None:
        metrics = {"a": nn.EpochMetric(nn.accuracy), "b": nn.accuracy}
        figures = nn.evaluate(
            nn.Identity(), nn.CrossEntropy(), (SCORES, LABELS), metrics=metrics, batch_size=2
        )
        assert list(figures) == ["loss", "a", "b"]
        assert figures["a"] == figures["b"] == 1 / 3

    def test_it_gets_the_ignored_label_of_the_loss(self) -> None:
        figures = nn.evaluate(
            nn.Identity(),
            nn.CrossEntropy(ignore_index=3),
            (SCORES, LABELS),
            metrics=[nn.EpochMetric(nn.accuracy)],
        )
        assert figures["accuracy"] == 1 / 2

    def test_it_needs_a_function_that_gives_a_number(self) -> None:
        with pytest.raises(TypeError, match="EpochMetric: expected a function, got 3"):
            nn.EpochMetric(3)  # type: ignore[arg-type]
        rows = nn.EpochMetric(lambda predictions, targets: predictions)
        with pytest.raises(TypeError, match="the metric 'rows' must give a number, got an array"):
            nn.evaluate(nn.Identity(), nn.CrossEntropy(), (SCORES, LABELS), metrics={"rows": rows})


def test_scores_of_a_whole_set_agree_with_their_definitions() -> None:
    # Of class 1: TP 3, FP 1, FN 2; of class 0: TP 4, FP 2, FN 1.
    predicted = np.array([1, 1, 1, 1, 0, 0, 0, 0, 0, 0])
    labels = np.array([1, 1, 1, 0, 1, 1, 0, 0, 0, 0])
    scores = np.eye(2)[predicted]
    for arguments in (
        (scores, labels),
        (predicted - 0.5, labels),
        (scores[:, 1:] - 0.5, labels[:, None]),
    ):
        assert nn.precision_score(*arguments, pos_label=1) == 3 / 4
        assert nn.recall_score(*arguments, pos_label=1) == 3 / 5
        assert nn.f1_score(*arguments, pos_label=1) == 6 / 9
    assert nn.precision_score(scores, labels) == pytest.approx((3 / 4 + 4 / 6) / 2)
    assert nn.recall_score(scores, labels) == pytest.approx((3 / 5 + 4 / 5) / 2)
    assert nn.f1_score(scores, labels) == pytest.approx((6 / 9 + 8 / 11) / 2)
    several = np.stack([labels, 1 - labels], axis=1)
    assert nn.recall_score(several * 2.0 - 1, several) == 1
    assert nn.precision_score(scores, np.full(10, 0), pos_label=1) == 0
    assert nn.f1_score(scores[:, :1] * 0 - 1, labels[:, None] * 0) == 0
    ignored = np.where(np.arange(10) == 3, -100, labels)
    assert nn.precision_score(scores, ignored, pos_label=1) == 1
    with pytest.raises(ValueError, match="there are 2 classes, got pos_label=2"):
        nn.f1_score(scores, labels, pos_label=2)
    with pytest.raises(ValueError, match="must be 0 or 1"):
        nn.f1_score(labels + 0.5, labels + 1)


def test_r2_is_the_mean_over_the_outputs() -> None:
    targets = np.array([[1.0, 5.0, 5.0], [2.0, 5.0, 5.0], [3.0, 5.0, 5.0]])
    predictions = np.array([[1.0, 5.0, 5.0], [2.0, 5.0, 5.0], [4.0, 5.0, 6.0]])
    assert nn.r2_score(predictions, targets) == (0.5 + 1 + 0) / 3
    with pytest.raises(ValueError, match="one shape"):
        nn.r2_score(predictions[:, 0], targets)


def test_scores_of_a_whole_set_do_not_depend_on_the_batches() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(50, 1))
    data, loss = (x, x + rng.normal(size=(50, 1))), nn.MeanSquaredError()
    for size in (1, 16, 50):
        figures = nn.evaluate(nn.Identity(), loss, data, metrics=[nn.r2_score], batch_size=size)
        assert figures["r2_score"] == pytest.approx(nn.r2_score(*data))
    logits, labels = rng.normal(size=(50, 2)), rng.integers(0, 2, 50)
    recall = {"recall": functools.partial(nn.recall_score, pos_label=1)}
    data = logits, labels
    figures = nn.evaluate(nn.Identity(), nn.CrossEntropy(), data, metrics=recall, batch_size=7)
    assert figures["recall"] == nn.recall_score(*data, pos_label=1)
