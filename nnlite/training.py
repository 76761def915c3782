"""Training and what comes after it: predictions in batches, and how good they are."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from .checks import integer
from .layer import Array, Layer, no_grad


@contextlib.contextmanager
def evaluating(model: Layer) -> Iterator[None]:
    """Context in which the model is in evaluation mode; every layer gets its own mode back."""
    in_training = [layer for layer in model.layers() if layer.training]
    for layer in in_training:
        layer.training = False
    try:
        yield
    finally:
        for layer in in_training:
            layer.training = True


def predict(model: Layer, inputs: ArrayLike, batch_size: int = 256) -> Array:
    """Return the model's outputs for all `inputs`, computed batch by batch.

    The model is in evaluation mode meanwhile, and keeps no caches; its mode is put back
    afterwards.

    Parameters
    ----------
    model : Layer
    inputs : array_like of shape (N, …)
    batch_size : int, default 256
        How many samples go through the model at a time. It bounds the memory and, but for
        rounding, does not change the outputs.

    Returns
    -------
    ndarray of shape (N, …)

    Raises
    ------
    ValueError
        If there are no inputs.

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> model = nn.Sequential(nn.Linear(4, 3), nn.Softmax())
    >>> nn.predict(model, np.zeros((1000, 4), dtype=np.float32)).shape
    (1000, 3)
    """
    batch_size = integer(batch_size, "predict: batch_size")
    inputs = np.asarray(inputs)
    if inputs.ndim == 0 or not len(inputs):
        raise ValueError(f"predict: expected at least one input, got shape {inputs.shape}")
    with evaluating(model), no_grad():
        outputs = model(inputs[:batch_size])
        if len(inputs) <= batch_size:
            return np.asarray(outputs)
        everything = np.empty((len(inputs), *outputs.shape[1:]), outputs.dtype)
        everything[:batch_size] = outputs
        for start in range(batch_size, len(inputs), batch_size):
            stop = start + batch_size
            everything[start:stop] = model(inputs[start:stop])
    return everything


def accuracy(predictions: Any, labels: ArrayLike) -> float:
    """Return the share of samples whose largest score is that of their label.

    Parameters
    ----------
    predictions : array_like of shape (N, C)
        Scores of each class: logits or probabilities.
    labels : array_like of int, shape (N,)

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
    scores, labels = np.asarray(predictions), np.asarray(labels)
    if scores.ndim != 2 or labels.shape != scores.shape[:1] or not labels.size:
        raise ValueError(
            f"accuracy: expected predictions (N, classes) and labels (N,) with N above 0, "
            f"got the shapes {scores.shape} and {labels.shape}"
        )
    return float(np.mean(scores.argmax(axis=1) == labels))
