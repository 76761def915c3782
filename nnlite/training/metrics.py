"""Metrics of classifiers and of regression."""

from __future__ import annotations

import functools
import inspect
import math
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..checks import check_is_array, class_indices, integer, number
from ..engine.arrays import Array
from ..layer import Layer
from ..losses import are_sigmoids

Metric = Callable[[Any, Any], float]


class EpochMetric:
    """A metric that is computed from all outputs of a data set, for `fit` and `evaluate`.

    Parameters
    ----------
    function : callable
        Gets the outputs of the model for all samples, and all targets, and returns a number.

    Raises
    ------
    TypeError
        If `function` is not callable.

    Notes
    -----
    The outputs for a whole data set are in memory together. `fit` computes such metrics for the
    validation data alone.

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> def worst(predictions, targets):
    ...     return np.abs(predictions - targets).max()
    >>> data = np.array([[1.0], [2.0], [3.0]]), np.array([[1.0], [4.0], [2.0]])
    >>> nn.evaluate(nn.Identity(), nn.MeanAbsoluteError(), data, metrics=[nn.EpochMetric(worst)])
    {'loss': 1.0, 'worst': 2.0}
    """

    def __init__(self, function: Metric) -> None:
        if not callable(function):
            raise TypeError(f"EpochMetric: expected a function, got {function!r:.80}")
        self.function = function
        self.__name__ = getattr(function, "__name__", "")

    def __repr__(self) -> str:
        return f"EpochMetric({self.__name__ or self.function})"

    def __call__(self, predictions: Any, targets: Any) -> float:
        """Return the figure."""
        return self.function(predictions, targets)


def accuracy(
    predictions: ArrayLike, labels: ArrayLike, ignore_index: int = -100, dim: int = 1
) -> float:
    """Return the fraction of samples whose label has the largest score.

    Parameters
    ----------
    predictions : array_like of shape (N, C) or (N, C, d₁, …)
        Scores for each of two or more classes: logits or probabilities.
    labels : array_like of int, shape (N,) or (N, d₁, …)
        Or class probabilities, floats of the shape of `predictions`, as `MixUp` gives them: the
        label is the most probable class.
    ignore_index : int, default -100
        Labels with this value are left out. If all are, the result is NaN. `fit` and `evaluate`
        pass the loss's own.
    dim : {1, -1}, default 1
        The axis of the classes. With -1, predictions have the shape (N, d₁, …, C). `fit` and
        `evaluate` pass the loss's own.

    Raises
    ------
    ValueError
        If the shapes do not match, if there are no samples, or if a label is not the index of a
        class.
    TypeError
        If the labels are not integers.

    See Also
    --------
    binary_accuracy : For predictions with one score for each sample.

    Notes
    -----
    Ties go to the first class; a row with NaN counts as wrong.

    Examples
    --------
    >>> import nnlite as nn
    >>> nn.accuracy([[0.1, 0.9], [0.8, 0.2]], [1, 1])
    0.5
    """
    scores, classes, counted = _scores_and_labels(
        predictions, labels, ignore_index, dim, "accuracy"
    )
    hits = (scores.argmax(axis=1) == classes) & ~np.isnan(scores.max(axis=1))
    return _fraction(hits, counted)


def binary_accuracy(predictions: ArrayLike, targets: ArrayLike, threshold: float = 0.0) -> float:
    """Return the fraction of targets whose prediction is on the correct side of `threshold`.

    Parameters
    ----------
    predictions : array_like of any shape
        Scores of the class 1.
    targets : array_like of that shape
        0 or 1.
    threshold : float, default 0
        Predictions above it mean 1. The default is for logits, as `BinaryCrossEntropy` takes them;
        for probabilities use 0.5.

    Raises
    ------
    ValueError
        If the shapes differ, if a target is neither 0 nor 1, or if there are no samples.
    TypeError
        If the targets are not numbers or booleans.

    Warns
    -----
    UserWarning
        If the threshold is 0 and the predictions look like probabilities, which are all above 0.

    Notes
    -----
    A prediction of NaN counts as wrong.

    Examples
    --------
    >>> import nnlite as nn
    >>> nn.binary_accuracy([[2.0], [-1.0], [0.5], [-3.0]], [[1], [0], [0], [0]])
    0.75
    """
    above, classes = _sides(predictions, targets, threshold, "binary_accuracy")
    return float(np.mean(above == classes))


def top_k_accuracy(
    predictions: ArrayLike, labels: ArrayLike, k: int = 5, ignore_index: int = -100, dim: int = 1
) -> float:
    """Return the fraction of samples whose label is among the `k` largest scores.

    Parameters
    ----------
    predictions, labels, ignore_index
        As `accuracy` takes them.
    k : int, default 5
        At most the number of classes.

    Raises
    ------
    ValueError, TypeError
        As `accuracy`; also if there are fewer classes than `k`.

    Notes
    -----
    A label counts as found if fewer than `k` other classes have a score that is as large. Ties at
    the k-th place therefore count as wrong.

    Examples
    --------
    >>> import nnlite as nn
    >>> scores = [[0.5, 0.3, 0.2], [0.5, 0.3, 0.2]]
    >>> nn.top_k_accuracy(scores, [1, 2], k=2)
    0.5
    """
    k = integer(k, "top_k_accuracy: k")
    scores, classes, counted = _scores_and_labels(
        predictions, labels, ignore_index, dim, "top_k_accuracy"
    )
    if k > scores.shape[1]:
        raise ValueError(
            f"top_k_accuracy: k must be at most the {scores.shape[1]} classes, got {k}"
        )
    own = np.take_along_axis(scores, np.expand_dims(np.where(counted, classes, 0), 1), axis=1)
    ranks = (scores >= own).sum(axis=1)  # 0 for a NaN, which is not >= anything
    return _fraction((ranks >= 1) & (ranks <= k), counted)


def confusion_matrix(
    predictions: ArrayLike, labels: ArrayLike, ignore_index: int = -100, dim: int = 1
) -> Array:
    """Count how often each class is predicted for the samples of each class.

    Parameters
    ----------
    predictions, labels, ignore_index
        As `accuracy` takes them.

    Returns
    -------
    ndarray of int, shape (C, C)
        Entry (i, j) counts the samples of class i whose largest score is that of class j: rows
        are the true classes, as in scikit-learn.

    Raises
    ------
    ValueError, TypeError
        As `accuracy`; also if a prediction is NaN, which belongs into no column.

    Examples
    --------
    >>> import nnlite as nn
    >>> nn.confusion_matrix([[0.1, 0.9], [0.8, 0.2], [0.3, 0.7]], [1, 1, 0])
    array([[0, 1],
           [1, 1]])
    """
    return _confusion(predictions, labels, ignore_index, dim, "confusion_matrix")


def precision_score(
    predictions: ArrayLike,
    labels: ArrayLike,
    pos_label: int | None = None,
    threshold: float = 0.0,
    ignore_index: int = -100,
    dim: int = 1,
) -> float:
    """Return the precision: of the samples predicted to be of a class, the fraction that is.

    Parameters
    ----------
    predictions : array_like
        Scores of two or more classes, (N, C) or (N, C, d₁, …), of which the largest is predicted;
        or one score for each label, of the shape of `labels`, (N,) or (N, K): K labels of their own
        as in `BinaryCrossEntropy`.
    labels : array_like
        Class indices, (N,) or (N, d₁, …); or 0 and 1, of the shape of `predictions`.
    pos_label : int, optional
        The class, or the column of `labels`, whose figure is returned: 1 for the usual figure of
        two classes. By default the mean over all of them ("macro").
    threshold : float, default 0
        One score for each label means 1 above it: 0 for logits, 0.5 for probabilities.
    ignore_index : int, default -100
        Class indices with this value are left out.
    dim : {1, -1}, default 1
        The axis of the classes, as `accuracy` takes it.

    Returns
    -------
    float
        A class without a prediction, or without a sample, has the figure 0.

    Raises
    ------
    ValueError, TypeError
        As `confusion_matrix` and `binary_accuracy`; also if `pos_label` is not a class.

    Notes
    -----
    With the counts of a class, right ones TP, other samples predicted to be of it FP, and samples
    of it predicted otherwise FN::

        precision = TP / (TP + FP)     recall = TP / (TP + FN)     F1 = 2 TP / (2 TP + FP + FN)

    They are no means over batches: `fit` computes them for the validation data, from all outputs.

    Examples
    --------
    >>> import nnlite as nn
    >>> scores, labels = [[0.1, 0.9], [0.2, 0.8], [0.3, 0.7], [0.9, 0.1]], [1, 0, 1, 1]
    >>> round(nn.precision_score(scores, labels, pos_label=1), 4)
    0.6667
    """
    hits, predicted, _ = _class_counts(
        predictions, labels, threshold, ignore_index, dim, "precision_score"
    )
    return _averaged(hits, predicted, pos_label, "precision_score")


def recall_score(
    predictions: ArrayLike,
    labels: ArrayLike,
    pos_label: int | None = None,
    threshold: float = 0.0,
    ignore_index: int = -100,
    dim: int = 1,
) -> float:
    """Return the recall: of the samples of a class, the fraction predicted to be of it.

    Parameters, errors and formula as in `precision_score`.

    Examples
    --------
    >>> import nnlite as nn
    >>> scores, labels = [[0.1, 0.9], [0.2, 0.8], [0.3, 0.7], [0.9, 0.1]], [1, 0, 1, 1]
    >>> round(nn.recall_score(scores, labels, pos_label=1), 4)
    0.6667
    """
    hits, _, true = _class_counts(predictions, labels, threshold, ignore_index, dim, "recall_score")
    return _averaged(hits, true, pos_label, "recall_score")


def f1_score(
    predictions: ArrayLike,
    labels: ArrayLike,
    pos_label: int | None = None,
    threshold: float = 0.0,
    ignore_index: int = -100,
    dim: int = 1,
) -> float:
    """Return the F1 score, the harmonic mean of precision and recall.

    Parameters, errors and formula as in `precision_score`.

    Examples
    --------
    >>> import nnlite as nn
    >>> scores, labels = [[0.1, 0.9], [0.2, 0.8], [0.3, 0.7], [0.9, 0.1]], [1, 0, 1, 0]
    >>> nn.f1_score(scores, labels, pos_label=1)
    0.8
    """
    hits, predicted, true = _class_counts(
        predictions, labels, threshold, ignore_index, dim, "f1_score"
    )
    return _averaged(2 * hits, predicted + true, pos_label, "f1_score")


def r2_score(predictions: ArrayLike, targets: ArrayLike) -> float:
    """Return the coefficient of determination R² of a regression.

    Parameters
    ----------
    predictions, targets : array_like of one shape, (N,) or (N, …)

    Returns
    -------
    float
        The mean over the outputs of a sample. 1 is perfect, 0 is as good as the mean of the
        targets. An output whose target is constant has 1 if it is predicted exactly, otherwise 0.

    Raises
    ------
    ValueError
        If the shapes differ, or if there are no samples.

    Notes
    -----
    For each output::

        R² = 1 - Σ_n (t_n - y_n)² / Σ_n (t_n - mean(t))²

    It is no mean over batches: `fit` computes it for the validation data, from all outputs.

    Examples
    --------
    >>> import nnlite as nn
    >>> nn.r2_score([1.0, 2.0, 4.0], [1.0, 2.0, 3.0])
    0.5
    """
    check_is_array(predictions, "r2_score")
    check_is_array(targets, "r2_score")
    predicted, true = np.asarray(predictions, np.float64), np.asarray(targets, np.float64)
    if predicted.shape != true.shape or not true.size or not true.ndim:
        raise ValueError(
            f"r2_score: expected predictions and targets of one shape with N above 0, "
            f"got the shapes {predicted.shape} and {true.shape}"
        )
    residual = np.square(true - predicted).sum(axis=0)
    total = np.square(true - true.mean(axis=0)).sum(axis=0)
    constant = total == 0
    explained = 1 - residual / np.where(constant, 1, total)
    return float(np.mean(np.where(constant, residual == 0, explained)))


# Figures of a whole data set, which no mean over batches gives.
_OF_ALL_OUTPUTS = (f1_score, precision_score, r2_score, recall_score)


def means_of(metrics: Mapping[str, Metric]) -> dict[str, Metric]:
    """Return the metrics that are means over batches."""
    return {name: value for name, value in metrics.items() if not isinstance(value, EpochMetric)}


def named_metrics(
    metrics: Iterable[Metric | str] | Mapping[str, Metric | str], loss: Layer, who: str
) -> dict[str, Metric]:
    """Return `metrics` by name, having checked that each is a function of its own name.

    A string is a scorer of scikit-learn. Functions that take an ``ignore_index`` or a ``dim`` get
    that of the loss.
    """
    if isinstance(metrics, Mapping):
        pairs = list(metrics.items())
    elif isinstance(metrics, Iterable) and not isinstance(metrics, str):
        pairs = [
            (metric if isinstance(metric, str) else getattr(metric, "__name__", ""), metric)
            for metric in metrics
        ]
    else:
        raise TypeError(
            f"{who}: metrics must be a list of functions such as [accuracy] or of names such as "
            f"['f1_macro'], or a dict of them by name, got {metrics!r}"
        )
    named: dict[str, Metric] = {}
    for name, metric in pairs:
        if isinstance(metric, str):
            metric = _scorer(metric, loss, who)
        elif getattr(metric, "func", metric) in _OF_ALL_OUTPUTS:  # also with options bound
            metric = EpochMetric(metric)
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
        named[name] = _with_options(metric, loss)
    return named


def _scorer(name: str, loss: Layer, who: str) -> EpochMetric:
    # scikit-learn is an extra, and takes a second to import.
    from ..interop.scoring import scorer

    try:
        return EpochMetric(scorer(name, loss))
    except ValueError as error:
        raise ValueError(
            f"{who}: {error} nnlite's own metrics are functions: metrics=[nnlite.accuracy]"
        ) from None


def _with_options(metric: Callable[..., float], loss: Layer) -> Metric:
    """Return `metric` with those options of the loss that it takes and that are not bound."""
    if isinstance(metric, EpochMetric):
        return EpochMetric(_with_options(metric.function, loss))
    try:
        taken = set(inspect.signature(metric).parameters) - set(getattr(metric, "keywords", {}))
    except (TypeError, ValueError):  # a function without a signature
        return metric
    options = {
        name: getattr(loss, name)
        for name in ("ignore_index", "dim")
        if name in taken and hasattr(loss, name)
    }
    return functools.partial(metric, **options) if options else metric


def _scores_and_labels(
    predictions: ArrayLike, labels: ArrayLike, ignore_index: int, dim: int, who: str
) -> tuple[Array, Array, Array]:
    """Return scores (N, C, …), the class indices, and which of these are not to be ignored."""
    check_is_array(predictions, who)
    check_is_array(labels, who)
    if integer(dim, f"{who}: dim", minimum=-1) not in (1, -1):
        raise ValueError(f"{who}: dim must be 1 or -1, got {dim}")
    given = scores = np.asarray(predictions)
    if scores.ndim > 1:
        scores = np.moveaxis(scores, dim, 1)
        targets = np.asarray(labels)
        if targets.dtype.kind == "f" and targets.shape == given.shape:
            labels = targets.argmax(axis=dim)
    if (
        scores.ndim < 2
        or np.shape(labels) != scores.shape[:1] + scores.shape[2:]
        or not scores.size
    ):
        are_last = given.ndim > 2 and np.shape(labels) == given.shape[:-1]
        cure = "; where the classes are the last axis, use dim=-1" if are_last else ""
        raise ValueError(
            f"{who}: expected predictions (N, classes) and labels (N,) with N above 0, "
            f"got the shapes {given.shape} and {np.shape(labels)}{cure}"
        )
    if scores.dtype.kind not in "fiu":
        raise TypeError(f"{who}: predictions must be numbers, got dtype {scores.dtype}")
    if scores.shape[1] == 1:
        raise ValueError(
            f"{who}: expected the scores of two classes or more, got predictions of shape "
            f"{given.shape}; for one score of each sample use binary_accuracy"
        )
    classes, _ = class_indices(labels, scores, ignore_index, who)
    return scores, classes, classes != ignore_index


def _confusion(
    predictions: ArrayLike, labels: ArrayLike, ignore_index: int, dim: int, who: str
) -> Array:
    scores, classes, counted = _scores_and_labels(predictions, labels, ignore_index, dim, who)
    if np.isnan(scores).any():
        sample = int(np.argwhere(np.isnan(scores))[0][0])
        raise ValueError(f"{who}: the predictions contain NaN in sample {sample}")
    count = scores.shape[1]
    pairs = (classes * count + scores.argmax(axis=1))[counted]
    return np.bincount(pairs, minlength=count * count).reshape(count, count)


def _sides(
    predictions: ArrayLike, targets: ArrayLike, threshold: float, who: str
) -> tuple[Array, Array]:
    """Return the predicted classes, -1 for a NaN, and the true ones: 0 or 1 for each score."""
    check_is_array(predictions, who)
    check_is_array(targets, who)
    scores, classes = np.asarray(predictions), np.asarray(targets)
    if scores.shape != classes.shape or not scores.size:
        raise ValueError(
            f"{who}: expected predictions and targets of one shape with N above 0, "
            f"got the shapes {scores.shape} and {classes.shape}"
        )
    if classes.dtype.kind not in "biuf":
        raise TypeError(f"{who}: targets must be 0 or 1, got dtype {classes.dtype}")
    wrong = classes[(classes != 0) & (classes != 1)]
    if wrong.size:
        raise ValueError(f"{who}: targets must be 0 or 1, got {wrong[0]}")
    threshold = number(threshold, f"{who}: threshold")
    if threshold == 0 and are_sigmoids(scores):
        warnings.warn(
            f"{who}: these predictions look like probabilities, which are all above the "
            f"threshold of 0; use threshold=0.5",
            UserWarning,
            stacklevel=3,
        )
    return np.where(np.isnan(scores), -1, scores > threshold), classes


def _class_counts(
    predictions: ArrayLike,
    labels: ArrayLike,
    threshold: float,
    ignore_index: int,
    dim: int,
    who: str,
) -> tuple[Array, Array, Array]:
    """Return three counts for each class: correct predictions, all predictions, and samples."""
    if np.shape(predictions) != np.shape(labels):
        counts = _confusion(predictions, labels, ignore_index, dim, who)
        return counts.diagonal(), counts.sum(axis=0), counts.sum(axis=1)
    above, classes = _sides(predictions, labels, threshold, who)
    if (above < 0).any():
        raise ValueError(f"{who}: the predictions contain NaN")
    predicted, true = (sides.reshape(len(sides), -1) == 1 for sides in (above, classes))
    return (predicted & true).sum(axis=0), predicted.sum(axis=0), true.sum(axis=0)


def _averaged(counts: Array, totals: Array, pos_label: int | None, who: str) -> float:
    """Return the fraction of a class, or the mean over all; 0 where there is nothing to count."""
    fractions = counts / np.maximum(totals, 1)
    if pos_label is None:
        return float(fractions.mean())
    if len(fractions) == 1 and pos_label == 1:  # one score: that of class 1
        return float(fractions[0])
    if not 0 <= integer(pos_label, f"{who}: pos_label", 0) < len(fractions):
        raise ValueError(f"{who}: there are {len(fractions)} classes, got pos_label={pos_label}")
    return float(fractions[pos_label])


def _fraction(hits: Array, counted: Array) -> float:
    """Return the fraction of hits among those counted, or NaN if there are none."""
    count = int(np.count_nonzero(counted))
    return int(np.count_nonzero(hits & counted)) / count if count else math.nan
