"""A batch divided among threads: which models allow it, and when it pays."""

from __future__ import annotations

import itertools

import nnlite as nn

from ..engine.blas import threads_of_products
from .activations import FORMULAS
from .losses import FORMULAS as ELEMENTWISE_LOSSES
from .source import BATCH, Code, Value

# The layers that compute each sample by itself.
_SEPARABLE = {
    *FORMULAS,
    *(nn.Sequential, nn.Residual, nn.Identity, nn.Flatten, nn.Linear, nn.Embedding, nn.LayerNorm),
    *(nn.Conv1d, nn.Conv2d, nn.MaxPool1d, nn.MaxPool2d, nn.AvgPool1d, nn.AvgPool2d),
    *(nn.RNN, nn.LSTM, nn.GRU),
    *ELEMENTWISE_LOSSES,
    *(nn.CrossEntropy, nn.NegativeLogLikelihood),
}

# In multiply-adds: what may be lost by waiting for another thread where other programs keep the
# cores busy, and what it takes to add its gradient of a parameter to that of the first thread.
_WAITING, _ADDING = 40_000_000, 300


def is_separable(model: nn.Layer, loss: nn.Layer, code: Code, values: list[Value]) -> bool:
    """Whether the gradient of a batch is the mean, or the sum, of those of its parts.

    `values` are the arrays of a call, and the output. What is drawn for a call is not divided.
    """
    return (
        all(type(layer) in _SEPARABLE for layer in (*model.layers(), loss))
        and all(value.shape[:1] == (BATCH,) for value in values)
        and not code.per_call
    )


def bounds_of_parts(code: Code, n: int) -> list[tuple[int, int]]:
    """Return the first sample and the end of the part of each thread.

    They follow from the model, the batch size and the number of threads alone, and so do the bits
    of the result.
    """
    parameters = sum(parameter.size for parameter in code.trained.values())
    work = 3 * code.multiply_adds * n  # backward has twice those of forward
    is_worth_it = work >= _WAITING + _ADDING * parameters
    parts = min(threads_of_products(), n) if is_worth_it else 1
    edges = [n * part // parts for part in range(parts + 1)]
    return list(itertools.pairwise(edges))
