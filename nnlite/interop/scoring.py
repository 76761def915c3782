"""Metrics of scikit-learn, by name, for the outputs of a model: see `fit` and `evaluate`."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

try:
    from scipy.special import expit, softmax
    from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
    from sklearn.metrics import get_scorer
except ImportError as error:
    raise ImportError(
        "metrics are named as scikit-learn names its scorers; install it with: "
        "pip install scikit-learn; nnlite's own are functions: metrics=[nnlite.accuracy]"
    ) from error

import nnlite as nn

from ..engine.arrays import Array


def probabilities(outputs: Array, loss: nn.Layer, by_columns: bool) -> Array:
    """Return the probabilities that a model means by its outputs, as its loss reads them.

    With `by_columns` each output is that of a label of its own, otherwise a row sums to 1.
    """
    if isinstance(loss, nn.NegativeLogLikelihood):
        return np.exp(outputs)
    if not getattr(loss, "from_logits", True):
        return outputs
    return expit(outputs) if by_columns else softmax(outputs, axis=getattr(loss, "dim", 1))


class _Numbers(RegressorMixin, BaseEstimator):
    """A regressor that gets a model's outputs, and predicts them."""

    def predict(self, outputs: Array) -> Array:
        return outputs


class _Classes(ClassifierMixin, BaseEstimator):
    """A classifier that gets a model's probabilities (N, classes), and predicts from them."""

    def __init__(self, count: int) -> None:
        self.classes_ = np.arange(count)

    def predict(self, rows: Array) -> Array:
        return rows.argmax(axis=1)

    def predict_proba(self, rows: Array) -> Array:
        return rows


class _Labels(_Classes):
    """A classifier for several labels, each with a probability of its own."""

    def predict(self, rows: Array) -> Array:
        return (rows > 0.5).astype(int)


def scorer(name: str, loss: nn.Layer) -> Callable[[Array, Array], float]:
    """Return the scorer of scikit-learn of this name as a function of outputs and targets.

    Raises
    ------
    ValueError
        If scikit-learn has no such scorer.
    """
    score = get_scorer(name)
    ignored, dim = getattr(loss, "ignore_index", None), getattr(loss, "dim", 1)

    def figure(outputs: Array, targets: Array) -> float:
        labelled = targets.dtype.kind in "iu"
        if isinstance(loss, nn.BinaryCrossEntropy):
            rows, truth = probabilities(outputs, loss, True), (targets > 0.5).astype(int)
            if truth.size > len(truth):
                return float(score(_Labels(rows.shape[1]), rows, truth))
            rows = rows.reshape(-1, 1)
            return float(score(_Classes(2), np.hstack([1 - rows, rows]), truth.reshape(-1)))
        if not labelled and not isinstance(loss, nn.CrossEntropy):
            return float(score(_Numbers(), outputs, targets))
        truth = targets if labelled else targets.argmax(axis=dim)
        classes = outputs.shape[dim]
        # Positions of a sequence or an image are samples of their own.
        rows = np.moveaxis(probabilities(outputs, loss, False), dim, -1).reshape(-1, classes)
        counted = truth.reshape(-1) != ignored
        return float(score(_Classes(classes), rows[counted], truth.reshape(-1)[counted]))

    return figure
