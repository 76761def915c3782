"""Metrics: how good predictions are, in figures that people read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from .checks import integer
from .layer import Array

Metric = Callable[[Any, Any], float]


def accuracy(predictions: ArrayLike, labels: ArrayLike) -> float:
    """Return the share of samples whose largest score is that of their label.

    Parameters
    ----------
    predictions : array_like of shape (N, C) or (N, C, d₁, …)
        Scores of each class: logits or probabilities.
    labels : array_like of int, shape (N,) or (N, d₁, …)

    Raises
    ------
    ValueError
        If the shapes do not fit, or if there are no samples.

    Examples
    --------
    >>> import nnlite as nn
    >>> nn.accuracy([[0.1, 0.9], [0.8, 0.2]], [1, 1])
    0.5
    """
    scores, classes = _scores_and_labels(predictions, labels, "accuracy")
    return float(np.mean(scores.argmax(axis=1) == classes))


def top_k_accuracy(predictions: ArrayLike, labels: ArrayLike, k: int = 5) -> float:
    """Return the share of samples whose label is among the `k` largest scores.

    Parameters
    ----------
    predictions : array_like of shape (N, C) or (N, C, d₁, …)
        Scores of each class: logits or probabilities.
    labels : array_like of int, shape (N,) or (N, d₁, …)
    k : int, default 5
        At most the number of classes.

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
    _check_classes(classes, count, "top_k_accuracy")
    own = np.take_along_axis(scores, np.expand_dims(classes, 1), axis=1)
    ranks = (scores >= own).sum(axis=1)  # 0 for a NaN, which is as large as nothing
    return float(np.mean((ranks >= 1) & (ranks <= k)))


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
        if not isinstance(name, str) or not name.isidentifier() or name in ("loss", "lr"):
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
    return scores, classes


def _check_classes(labels: Array, count: int, who: str) -> None:
    if labels.dtype.kind not in "iu":
        raise TypeError(
            f"{who}: expected labels of an integer dtype (class indices), got {labels.dtype}"
        )
    if labels.min() < 0 or labels.max() >= count:
        wrong = labels[(labels < 0) | (labels >= count)][0]
        raise ValueError(f"{who}: labels must be in [0, {count}) for {count} classes, got {wrong}")
