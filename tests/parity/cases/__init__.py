"""All comparisons, by the name of the file that their figures are recorded in.

A new module joins in three steps: write its cases beside the others, name them here, and record
them with ``python -m tests.parity.record``.
"""

from __future__ import annotations

from ..case import Case, OptimizerCase
from . import (
    activations,
    attention,
    containers,
    convolution,
    convolution1d,
    embedding,
    linear,
    losses,
    normalization,
    optimizers,
    pooling,
    recurrent,
    resampling,
    shape,
    transformer,
)

LAYERS: dict[str, list[Case]] = {
    "linear": linear.CASES,
    "activations": activations.CASES,
    "shape": shape.CASES,
    "convolution": convolution.CASES,
    "convolution1d": convolution1d.CASES,
    "pooling": pooling.CASES,
    "resampling": resampling.CASES,
    "recurrent": recurrent.CASES,
    "normalization": normalization.CASES,
    "embedding": embedding.CASES,
    "attention": attention.CASES,
    "transformer": transformer.CASES,
    "containers": containers.CASES,
    "losses": losses.CASES,
}

OPTIMIZERS: dict[str, list[OptimizerCase]] = {
    "optimizers": optimizers.CASES,
}

# Strategies that draw cases of random shapes and options, for the comparison with live PyTorch.
DRAWN_LAYERS = {
    "linear": linear.drawn(),
    "activations": activations.drawn(),
    "shape": shape.drawn(),
    "convolution": convolution.drawn(),
    "convolution1d": convolution1d.drawn(),
    "pooling": pooling.drawn(),
    "resampling": resampling.drawn(),
    "recurrent": recurrent.drawn(),
    "normalization": normalization.drawn(),
    "embedding": embedding.drawn(),
    "attention": attention.drawn(),
    "transformer": transformer.drawn(),
    "containers": containers.drawn(),
    "losses": losses.drawn(),
}

DRAWN_OPTIMIZERS = {
    "optimizers": optimizers.drawn(),
}
