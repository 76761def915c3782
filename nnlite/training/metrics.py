"""Metrics: how good predictions are, in figures that people read."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..checks import integer, number
from ..engine.arrays import Array

Metric = Callable[[Any, Any], float]


def accuracy(predictions: ArrayLike, labels: ArrayLike, ignore_index: int = -100) -> float:
    """Return the share of samples whose largest score is that of their label.

    Parameters
    ----------
    predictions : array_like of shape (N, C) or (N, C, d₁, …)
        Scores of each of two classes or more: logits or probabilities.
    labels : array_like of int, shape (N,) or (N, d₁, …)
    ignore_index : int, default -100
        Labels of this value are left out, as `CrossEntropy` does. If all are, the share is NaN.

    Raises
    ------
    ValueError
        If the shapes do not fit, or if there are no samples.

    See Also
    --------
    binary_accuracy : For predictions of one score.

    Notes
    -----
    Of equal scores the first is the largest. Scores with a NaN are not right.

    Examples
    --------
    >>> import nnlite as nn
    >>> nn.accuracy([[0.1, 0.9], [0.8, 0.2]], [1, 1])
    0.5
    """
    scores, classes = _scores_and_labels(predictions, labels, "accuracy")
    right = (scores.argmax(axis=1) == classes) & ~np.isnan(scores.max(axis=1))
    return _share(right, classes != ignore_index)


def binary_accuracy(predictions: ArrayLike, targets: ArrayLike, threshold: float = 0.0) -> float:
    """Return the share of targets whose prediction is on their side of `threshold`.

    Parameters
    ----------
    predictions : array_like of any shape
        Scores of the class 1.
    targets : array_like of that shape
        0 or 1.
    threshold : float, default 0
        Predictions above it stand for 1. The default is for logits, as `BinaryCrossEntropy` takes
        them; for probabilities use 0.5.

    Raises
    ------
    ValueError
        If the shapes differ, if a target is neither 0 nor 1, or if there are no samples.

    Notes
    -----
    A prediction of NaN is not right.

    Examples
    --------
    >>> import nnlite as nn
    >>> nn.binary_accuracy([[2.0], [-1.0], [0.5], [-3.0]], [[1], [0], [0], [0]])
    0.75
    """
    scores, classes = np.asarray(predictions), np.asarray(targets)
    if scores.shape != classes.shape or not scores.size:
        raise ValueError(
            f"binary_accuracy: expected predictions and targets of one shape with N above 0, "
            f"got the shapes {scores.shape} and {classes.shape}"
        )
    wrong = classes[(classes != 0) & (classes != 1)]
    if wrong.size:
        raise ValueError(f"binary_accuracy: targets must be 0 or 1, got {wrong[0]}")
    threshold = number(threshold, "binary_accuracy: threshold")
    return float(np.mean(np.where(classes == 1, scores > threshold, scores <= threshold)))


def top_k_accuracy(
    predictions: ArrayLike, labels: ArrayLike, k: int = 5, ignore_index: int = -100
) -> float:
    """Return the share of samples whose label is among the `k` largest scores.

    Parameters
    ----------
    predictions : array_like of shape (N, C) or (N, C, d₁, …)
        Scores of each class: logits or probabilities.
    labels : array_like of int, shape (N,) or (N, d₁, …)
    k : int, default 5
        At most the number of classes.
    ignore_index : int, default -100
        Labels of this value are left out, as `CrossEntropy` does. If all are, the share is NaN.

    Raises
    ------
    ValueError
        If the shapes do not fit, if there are no samples, if a label is not the index of a class,
        or if there are fewer classes than `k`.
    TypeError
        If the labels are not integers.

    Notes
    -----
    A label counts as found when fewer than `k` other classes have a score that is as large: of
    equal scores at the limit, which say nothing, none is taken as right.

    Examples
    --------
    >>> import nnlite as nn
    >>> scores = [[0.5, 0.3, 0.2], [0.5, 0.3, 0.2]]
    >>> nn.top_k_accuracy(scores, [1, 2], k=2)
    0.5
    """
    k = integer(k, "top_k_accuracy: k")
    scores, classes = _scores_and_labels(predictions, labels, "top_k_accuracy")
    count = scores.shape[1]
    if k > count:
        raise ValueError(f"top_k_accuracy: k must be at most the {count} classes, got {k}")
    counted = classes != ignore_index
    classes = np.where(counted, classes, 0)
    _check_classes(classes, count, "top_k_accuracy")
    own = np.take_along_axis(scores, np.expand_dims(classes, 1), axis=1)
    ranks = (scores >= own).sum(axis=1)  # 0 for a NaN, which is as large as nothing
    return _share((ranks >= 1) & (ranks <= k), counted)


def confusion_matrix(predictions: ArrayLike, labels: ArrayLike) -> Array:
    """Count how often samples of each class are taken for each class.

    Parameters
    ----------
    predictions : array_like of shape (N, C) or (N, C, d₁, …)
        Scores of each class: logits or probabilities.
    labels : array_like of int, shape (N,) or (N, d₁, …)

    Returns
    -------
    ndarray of int, shape (C, C)
        Entry (i, j) counts the samples of class i whose largest score is that of class j: rows
        are the true classes, as in scikit-learn.

    Raises
    ------
    ValueError
        If the shapes do not fit, if there are no samples, or if a label is not the index of a
        class.
    TypeError
        If the labels are not integers.

    Examples
    --------
    >>> import nnlite as nn
    >>> nn.confusion_matrix([[0.1, 0.9], [0.8, 0.2], [0.3, 0.7]], [1, 1, 0])
    array([[0, 1],
           [1, 1]])
    """
    scores, classes = _scores_and_labels(predictions, labels, "confusion_matrix")
    count = scores.shape[1]
    _check_classes(classes, count, "confusion_matrix")
    pairs = classes.astype(np.intp) * count + scores.argmax(axis=1)
    return np.bincount(pairs.reshape(-1), minlength=count * count).reshape(count, count)


def named_metrics(metrics: Iterable[Metric] | Mapping[str, Metric], who: str) -> dict[str, Metric]:
    """Return `metrics` by name, having checked that each is a function of its own name."""
    if isinstance(metrics, Mapping):
        pairs = list(metrics.items())
    elif isinstance(metrics, Iterable) and not isinstance(metrics, str):
        pairs = [(getattr(metric, "__name__", ""), metric) for metric in metrics]
    else:
        raise TypeError(
            f"{who}: metrics must be a list of functions such as [accuracy], or a dict of them "
            f"by name, got {metrics!r}"
        )
    named: dict[str, Metric] = {}
    for name, metric in pairs:
        if not callable(metric):
            raise TypeError(
                f"{who}: a metric must be a function of predictions and targets, got {metric!r}"
            )
        taken = name in ("loss", "lr") or str(name).startswith("validation_")
        if not isinstance(name, str) or not name.isidentifier() or taken:
            raise ValueError(
                f"{who}: {name!r} cannot be the name of a metric; give metrics as a dict of "
                f'functions by name, such as {{"accuracy": accuracy}}'
            )
        if name in named:
            raise ValueError(f"{who}: there are two metrics of the name {name!r}")
        named[name] = metric
    return named


def _scores_and_labels(predictions: ArrayLike, labels: ArrayLike, who: str) -> tuple[Array, Array]:
    scores, classes = np.asarray(predictions), np.asarray(labels)
    if scores.ndim < 2 or classes.shape != scores.shape[:1] + scores.shape[2:] or not scores.size:
        raise ValueError(
            f"{who}: expected predictions (N, classes) and labels (N,) with N above 0, "
            f"got the shapes {scores.shape} and {classes.shape}"
        )
    if scores.shape[1] == 1:
        raise ValueError(
            f"{who}: expected the scores of two classes or more, got predictions of shape "
            f"{scores.shape}; for one score of each sample use binary_accuracy"
        )
    return scores, classes


def _share(right: Array, counted: Array) -> float:
    """Return the share of `right` in what is counted; NaN if nothing is."""
    count = int(np.count_nonzero(counted))
    return int(np.count_nonzero(right & counted)) / count if count else math.nan


def _check_classes(labels: Array, count: int, who: str) -> None:
    if labels.dtype.kind not in "iu":
        raise TypeError(
            f"{who}: expected labels of an integer dtype (class indices), got {labels.dtype}"
        )
    if labels.min() < 0 or labels.max() >= count:
        wrong = labels[(labels < 0) | (labels >= count)][0]
        raise ValueError(f"{who}: labels must be in [0, {count}) for {count} classes, got {wrong}")
