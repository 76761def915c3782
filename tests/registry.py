"""Every public layer and loss, for the tests of what they all promise.

A new layer joins with one line in `LAYERS`, a new loss with one line in `LOSSES`: the tests of the
contract in ``test_layer.py`` and ``test_losses.py`` then run for it too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

import nnlite as nn

Array = NDArray[Any]
Inputs = Callable[[np.random.Generator, int], tuple[Array, ...]]


def normal(*shapes: tuple[int, ...]) -> Inputs:
    """Make inputs of normal draws: for each shape, one float64 array (batch, *shape)."""

    def inputs(rng: np.random.Generator, batch: int) -> tuple[Array, ...]:
        return tuple(rng.normal(size=(batch, *shape)) for shape in shapes)

    return inputs


def above_zero(*shapes: tuple[int, ...]) -> Inputs:
    """Make inputs as `normal` does, of draws between 1/2 and 2."""

    def inputs(rng: np.random.Generator, batch: int) -> tuple[Array, ...]:
        return tuple(rng.uniform(0.5, 2, size=(batch, *shape)) for shape in shapes)

    return inputs


def away_from(*kinks: float, shape: tuple[int, ...]) -> Inputs:
    """Make one input of normal draws, none closer than 0.05 to a point without a derivative."""

    def inputs(rng: np.random.Generator, batch: int) -> tuple[Array, ...]:
        x = rng.normal(size=(batch, *shape))
        for kink in kinks:
            x = np.where(np.abs(x - kink) < 0.05, kink + 0.05, x)
        return (x,)

    return inputs


def indices(below: int, *shape: int) -> Inputs:
    """Make one input of integers (batch, *shape) from 0 up to, but not including, `below`."""
    return lambda rng, batch: (rng.integers(below, size=(batch, *shape)),)


def sine_vjp(x: Array, grad: Array) -> Array:
    """Return the gradient of the sine of x."""
    return grad * np.cos(x)


@dataclass(frozen=True)
class LayerCase:
    """A layer, and inputs that it takes.

    Attributes
    ----------
    name : str
        What the test is called.
    make : callable
        Returns a new layer, with the same values each time.
    inputs : callable
        ``inputs(rng, batch)`` returns the inputs of `forward`, float64, batch axis first.
    per_sample : bool
        Whether a sample's output depends on that sample alone: not so for normalisation over a
        batch, or where each call draws anew.
    takes_floats : bool
        Whether the inputs are floats: not so for indices.
    hands_on_views : bool
        Whether the output is a view of the input, as with layers that only change the shape.
    spreads_nan : bool
        Whether a NaN anywhere in a sample shows in its output.
    repeats_itself : bool
        Whether the same inputs give the same output again: not so where each call draws anew.
    """

    name: str
    make: Callable[[], nn.Layer]
    inputs: Inputs
    per_sample: bool = True
    takes_floats: bool = True
    hands_on_views: bool = False
    spreads_nan: bool = True
    repeats_itself: bool = True


LAYERS = [
    LayerCase("Linear", lambda: nn.Linear(4, 3, rng=0), normal((4,))),
    LayerCase("Linear without bias", lambda: nn.Linear(4, 3, bias=False, rng=0), normal((4,))),
    LayerCase("Linear on sequences", lambda: nn.Linear(4, 3, rng=0), normal((5, 4))),
    LayerCase("Linear, tied", lambda: nn.Linear(4, 3, rng=0).tied(), normal((4,))),
    LayerCase("ReLU", nn.ReLU, away_from(0, shape=(2, 3))),
    LayerCase("LeakyReLU", lambda: nn.LeakyReLU(0.1), away_from(0, shape=(2, 3))),
    LayerCase("ELU", lambda: nn.ELU(0.5), away_from(0, shape=(2, 3))),
    LayerCase("SiLU", nn.SiLU, normal((2, 3))),
    LayerCase("SELU", nn.SELU, away_from(0, shape=(2, 3))),
    LayerCase("Mish", nn.Mish, normal((2, 3))),
    LayerCase("ReLU6", nn.ReLU6, away_from(0, 6, shape=(2, 3))),
    LayerCase("Hardtanh", lambda: nn.Hardtanh(-0.5, 0.75), away_from(-0.5, 0.75, shape=(2, 3))),
    LayerCase("Hardswish", nn.Hardswish, away_from(-3, 3, shape=(2, 3))),
    LayerCase("Hardsigmoid", nn.Hardsigmoid, away_from(-3, 3, shape=(2, 3))),
    LayerCase("Softplus", lambda: nn.Softplus(2.0), normal((2, 3))),
    LayerCase("Softplus with a low threshold", lambda: nn.Softplus(1.0, 0.5), normal((2, 3))),
    LayerCase("Softsign", nn.Softsign, normal((2, 3))),
    LayerCase("LogSigmoid", nn.LogSigmoid, normal((2, 3))),
    LayerCase("PReLU", nn.PReLU, away_from(0, shape=(2, 3))),
    LayerCase("PReLU of channels", lambda: nn.PReLU(2, 0.1), away_from(0, shape=(2, 3))),
    LayerCase("GLU", nn.GLU, normal((2, 6))),
    LayerCase("GLU of channels", lambda: nn.GLU(1), normal((2, 3))),
    LayerCase("GELU", nn.GELU, normal((2, 3))),
    LayerCase("GELU of tanh", lambda: nn.GELU("tanh"), normal((2, 3))),
    LayerCase("Sigmoid", nn.Sigmoid, normal((2, 3))),
    LayerCase("Tanh", nn.Tanh, normal((2, 3))),
    LayerCase("Softmax", nn.Softmax, normal((4,))),
    LayerCase("Softmax over channels", lambda: nn.Softmax(dim=1), normal((3, 2, 2))),
    LayerCase("LogSoftmax", nn.LogSoftmax, normal((4,))),
    LayerCase("LogSoftmax over channels", lambda: nn.LogSoftmax(dim=1), normal((3, 2, 2))),
    LayerCase("Flatten", nn.Flatten, normal((3, 2, 2)), hands_on_views=True),
    LayerCase(
        "Flatten of two axes", lambda: nn.Flatten(1, 2), normal((3, 2, 2)), hands_on_views=True
    ),
    LayerCase(
        "Sequential without parameters",
        lambda: nn.Sequential(nn.Tanh(), nn.Softmax()),
        normal((3,)),
    ),
    LayerCase(
        "Sequential",
        lambda: nn.Sequential(
            nn.Linear(6, 4, rng=0), nn.Tanh(), nn.Sequential(nn.Linear(4, 3, rng=1), nn.Softmax())
        ),
        normal((6,)),
    ),
    LayerCase(
        "Sequential of a Flatten first",
        lambda: nn.Sequential(nn.Flatten(), nn.Linear(6, 4, rng=0), nn.Sigmoid()),
        normal((2, 3)),
    ),
    LayerCase("Reshape", lambda: nn.Reshape(3, -1), normal((2, 6)), hands_on_views=True),
    LayerCase("Unflatten", lambda: nn.Unflatten(1, (3, -1)), normal((6, 2)), hands_on_views=True),
    LayerCase("Squeeze", lambda: nn.Squeeze(-1), normal((3, 1)), hands_on_views=True),
    LayerCase("Unsqueeze", lambda: nn.Unsqueeze(1), normal((3,)), hands_on_views=True),
    LayerCase("Permute", lambda: nn.Permute(0, 3, 1, 2), normal((2, 3, 4)), hands_on_views=True),
    LayerCase(
        "Slice",
        lambda: nn.Slice(1, -1, 2, dim=2),
        normal((3, 6)),
        hands_on_views=True,
        spreads_nan=False,
    ),
    LayerCase("Concatenate", nn.Concatenate, normal((3, 2), (1, 2), (2, 2)), hands_on_views=True),
    LayerCase("Stack", lambda: nn.Stack(-1), normal((3,), (3,)), hands_on_views=True),
    LayerCase(
        "Split in a Graph",
        lambda: nn.Graph(
            {"parts": (nn.Split(2), "x"), "y": (nn.Subtract(), "parts.0", "parts.1")},
        ),
        normal((4, 3)),
    ),
    LayerCase("Identity", nn.Identity, normal((2, 3)), hands_on_views=True),
    LayerCase(
        "BatchNorm1d of sequences", lambda: nn.BatchNorm1d(2), normal((2, 4)), per_sample=False
    ),
    LayerCase("BatchNorm2d", lambda: nn.BatchNorm2d(3), normal((3, 2, 2)), per_sample=False),
    LayerCase(
        "BatchNorm2d without parameters",
        lambda: nn.BatchNorm2d(3, eps=0.1, momentum=None, affine=False),
        normal((3, 2, 2)),
        per_sample=False,
    ),
    LayerCase(
        "BatchNorm2d without running statistics",
        lambda: nn.BatchNorm2d(3, track_running_stats=False),
        normal((3, 2, 2)),
        per_sample=False,
    ),
    LayerCase(
        "BatchNorm1d without bias",
        lambda: nn.BatchNorm1d(3, bias=False),
        normal((3, 2)),
        per_sample=False,
    ),
    LayerCase("GroupNorm", lambda: nn.GroupNorm(2, 4), normal((4, 3, 2))),
    LayerCase("GroupNorm of features", lambda: nn.GroupNorm(2, 6, bias=False), normal((6,))),
    LayerCase(
        "GroupNorm without parameters", lambda: nn.GroupNorm(1, 4, affine=False), normal((4, 3))
    ),
    LayerCase("InstanceNorm1d", lambda: nn.InstanceNorm1d(2), normal((2, 4))),
    LayerCase("InstanceNorm2d", lambda: nn.InstanceNorm2d(2, affine=True), normal((2, 3, 2))),
    LayerCase(
        "InstanceNorm1d with running statistics",
        lambda: nn.InstanceNorm1d(2, 1e-3, 0.3, True, True),
        normal((2, 4)),
    ),
    LayerCase("LayerNorm", lambda: nn.LayerNorm(4), normal((4,))),
    LayerCase("LayerNorm of two axes", lambda: nn.LayerNorm((2, 3)), normal((5, 2, 3))),
    LayerCase("LayerNorm without bias", lambda: nn.LayerNorm(4, bias=False), normal((3, 4))),
    LayerCase(
        "LayerNorm without parameters",
        lambda: nn.LayerNorm(4, elementwise_affine=False),
        normal((4,)),
    ),
    LayerCase("RMSNorm", lambda: nn.RMSNorm(4), normal((4,))),
    LayerCase(
        "RMSNorm of two axes",
        lambda: nn.RMSNorm((2, 3), 0.1, elementwise_affine=False),
        normal((5, 2, 3)),
    ),
    LayerCase(
        "Dropout",
        lambda: nn.Dropout(0.5, rng=0),
        normal((2, 3)),
        per_sample=False,
        repeats_itself=False,
    ),
    LayerCase(
        "Dropout1d",
        lambda: nn.Dropout1d(0.5, rng=0),
        normal((4, 3)),
        per_sample=False,
        repeats_itself=False,
    ),
    LayerCase(
        "Dropout2d",
        lambda: nn.Dropout2d(0.5, rng=0),
        normal((4, 3, 2)),
        per_sample=False,
        repeats_itself=False,
    ),
    LayerCase("Dropout of nothing", lambda: nn.Dropout(0.0), normal((2, 3)), hands_on_views=True),
    LayerCase("Embedding", lambda: nn.Embedding(6, 3, rng=0), indices(6, 4), takes_floats=False),
    LayerCase("Residual", lambda: nn.Residual(nn.Linear(4, 4, rng=0), nn.Tanh()), normal((4,))),
    LayerCase(
        "Residual of a Residual",
        lambda: nn.Residual(
            nn.Linear(4, 3, rng=0),
            nn.Tanh(),
            nn.Residual(nn.Linear(3, 3, rng=1)),
            nn.Linear(3, 4, rng=2),
        ),
        normal((4,)),
    ),
    LayerCase("Conv2d", lambda: nn.Conv2d(2, 3, 3, rng=0), normal((2, 5, 4))),
    LayerCase(
        "Conv2d with padding, stride and dilation",
        lambda: nn.Conv2d(2, 3, (2, 3), stride=2, padding=1, dilation=(2, 1), bias=False, rng=0),
        normal((2, 5, 6)),
    ),
    LayerCase(
        "Conv2d of many channels", lambda: nn.Conv2d(16, 2, 3, padding=1, rng=0), normal((16, 5, 4))
    ),
    LayerCase("Conv2d in groups", lambda: nn.Conv2d(4, 6, 3, groups=2, rng=0), normal((4, 5, 4))),
    LayerCase(
        "Conv2d, depthwise, with circular padding",
        lambda: nn.Conv2d(3, 6, 3, padding=(1, 2), groups=3, padding_mode="circular", rng=0),
        normal((3, 5, 4)),
    ),
    LayerCase(
        "Conv1d with reflected padding",
        lambda: nn.Conv1d(2, 3, 4, padding="same", padding_mode="reflect", rng=0),
        normal((2, 5)),
    ),
    LayerCase("ConvTranspose2d", lambda: nn.ConvTranspose2d(2, 3, 3, rng=0), normal((2, 3, 4))),
    LayerCase(
        "ConvTranspose2d in groups with all options",
        lambda: nn.ConvTranspose2d(4, 2, (2, 3), 2, 1, (1, 0), 2, False, (1, 2), rng=0),
        normal((4, 3, 4)),
    ),
    LayerCase("ConvTranspose1d", lambda: nn.ConvTranspose1d(2, 3, 4, 2, 1, rng=0), normal((2, 4))),
    LayerCase("Upsample", lambda: nn.Upsample(scale_factor=2.0), normal((2, 3, 2))),
    LayerCase("Upsample to a size", lambda: nn.Upsample((5, 2)), normal((2, 3, 4))),
    LayerCase(
        "Upsample, linear",
        lambda: nn.Upsample(scale_factor=1.5, mode="linear"),
        normal((2, 4)),
    ),
    LayerCase(
        "Upsample, bilinear",
        lambda: nn.Upsample((5, 3), mode="bilinear", align_corners=True),
        normal((2, 3, 4)),
    ),
    LayerCase("PixelShuffle", lambda: nn.PixelShuffle(2), normal((8, 2, 3))),
    LayerCase("ZeroPad1d", lambda: nn.ZeroPad1d((2, 0)), normal((2, 3))),
    LayerCase("ZeroPad2d", lambda: nn.ZeroPad2d(1), normal((2, 3, 2))),
    LayerCase("ConstantPad1d", lambda: nn.ConstantPad1d(1, 0.5), normal((2, 3))),
    LayerCase("ConstantPad2d", lambda: nn.ConstantPad2d((1, 0, 2, 1), 0.5), normal((2, 3, 2))),
    LayerCase("ReflectionPad1d", lambda: nn.ReflectionPad1d(2), normal((2, 4))),
    LayerCase("ReflectionPad2d", lambda: nn.ReflectionPad2d((1, 2, 0, 1)), normal((2, 3, 4))),
    LayerCase("ReplicationPad1d", lambda: nn.ReplicationPad1d((0, 3)), normal((2, 2))),
    LayerCase("ReplicationPad2d", lambda: nn.ReplicationPad2d((1, 3, 0, 1)), normal((2, 3, 2))),
    LayerCase("CircularPad1d", lambda: nn.CircularPad1d(2), normal((2, 3))),
    LayerCase("CircularPad2d", lambda: nn.CircularPad2d((1, 2, 0, 3)), normal((2, 3, 2))),
    LayerCase("MaxPool2d", lambda: nn.MaxPool2d(2), normal((2, 4, 6))),
    LayerCase("MaxPool2d that overlaps", lambda: nn.MaxPool2d(3, 1, 1), normal((2, 4, 3))),
    LayerCase("AvgPool2d", lambda: nn.AvgPool2d(2), normal((2, 4, 6))),
    LayerCase(
        "AvgPool2d with a divisor", lambda: nn.AvgPool2d(2, divisor_override=3), normal((2, 4, 5))
    ),
    LayerCase("AdaptiveAvgPool1d", lambda: nn.AdaptiveAvgPool1d(2), normal((2, 6))),
    LayerCase("AdaptiveAvgPool2d", lambda: nn.AdaptiveAvgPool2d((2, None)), normal((2, 4, 3))),
    LayerCase(
        "AdaptiveAvgPool2d of overlapping windows",
        lambda: nn.AdaptiveAvgPool2d((2, 4)),
        normal((2, 5, 3)),
    ),
    LayerCase(
        "AdaptiveAvgPool1d of windows that overlap", lambda: nn.AdaptiveAvgPool1d(3), normal((2, 5))
    ),
    LayerCase(
        "AdaptiveMaxPool2d of overlapping windows",
        lambda: nn.AdaptiveMaxPool2d((2, 4)),
        normal((2, 5, 3)),
    ),
    LayerCase("AdaptiveMaxPool1d", lambda: nn.AdaptiveMaxPool1d(3), normal((2, 6))),
    LayerCase("AdaptiveMaxPool2d", lambda: nn.AdaptiveMaxPool2d(2), normal((2, 4, 6))),
    LayerCase(
        "AdaptiveAvgPool2d of one window", lambda: nn.AdaptiveAvgPool2d(1), normal((2, 4, 3))
    ),
    LayerCase("AdaptiveMaxPool1d of one window", lambda: nn.AdaptiveMaxPool1d(1), normal((2, 6))),
    LayerCase(
        "AdaptiveMaxPool2d of one window", lambda: nn.AdaptiveMaxPool2d(1), normal((2, 4, 3))
    ),
    LayerCase("GlobalAvgPool1d", nn.GlobalAvgPool1d, normal((2, 4))),
    LayerCase("GlobalMaxPool1d", nn.GlobalMaxPool1d, normal((2, 4))),
    LayerCase("GlobalAvgPool2d", nn.GlobalAvgPool2d, normal((2, 4, 3))),
    LayerCase("GlobalMaxPool2d", nn.GlobalMaxPool2d, normal((2, 4, 3))),
    LayerCase("Conv1d", lambda: nn.Conv1d(2, 3, 3, rng=0), normal((2, 5))),
    LayerCase(
        "Conv1d with padding, stride and dilation",
        lambda: nn.Conv1d(2, 3, 3, stride=2, padding=1, dilation=2, bias=False, rng=0),
        normal((2, 6)),
    ),
    LayerCase("MaxPool1d", lambda: nn.MaxPool1d(2), normal((2, 6))),
    LayerCase("MaxPool1d that overlaps", lambda: nn.MaxPool1d(3, 1, 1), normal((2, 4))),
    LayerCase("AvgPool1d", lambda: nn.AvgPool1d(3, 2, 1), normal((2, 6))),
    LayerCase("RNN", lambda: nn.RNN(3, 4, rng=0), normal((5, 3))),
    LayerCase(
        "RNN of two layers, the last output",
        lambda: nn.RNN(3, 2, num_layers=2, outputs="last", rng=0),
        normal((4, 3)),
    ),
    LayerCase("LSTM", lambda: nn.LSTM(3, 4, rng=0), normal((5, 3))),
    LayerCase(
        "LSTM in both directions",
        lambda: nn.LSTM(3, 2, bidirectional=True, rng=0),
        normal((4, 3)),
    ),
    LayerCase("GRU", lambda: nn.GRU(3, 4, rng=0), normal((5, 3))),
    LayerCase("MultiheadAttention", lambda: nn.MultiheadAttention(4, 2, rng=0), normal((3, 4))),
    LayerCase(
        "MultiheadAttention of three inputs",
        lambda: nn.MultiheadAttention(4, 2, bias=False, kdim=3, vdim=2, rng=0),
        normal((3, 4), (5, 3), (5, 2)),
    ),
    LayerCase(
        "TransformerEncoderLayer",
        lambda: nn.TransformerEncoderLayer(4, 2, 6, 0.0, "gelu", rng=0),
        normal((3, 4)),
    ),
    LayerCase(
        "TransformerEncoderLayer with norm_first",
        lambda: nn.TransformerEncoderLayer(4, 1, 6, 0.0, norm_first=True, is_causal=True, rng=0),
        normal((3, 4)),
        spreads_nan=False,
    ),
    LayerCase(
        "TransformerDecoderLayer",
        lambda: nn.TransformerDecoderLayer(4, 2, 6, 0.0, "gelu", bias=False, rng=0),
        normal((3, 4), (5, 4)),
    ),
    LayerCase("SinusoidalPositions", nn.SinusoidalPositions, normal((3, 5)), hands_on_views=True),
    LayerCase(
        "LearnedPositions",
        lambda: nn.LearnedPositions(3, 5, rng=0),
        normal((3, 5)),
        hands_on_views=True,
    ),
    LayerCase("RNNCell", lambda: nn.RNNCell(3, 4, rng=0), normal((3,))),
    LayerCase(
        "RNNCell of relu without bias",
        lambda: nn.RNNCell(3, 4, bias=False, nonlinearity="relu", rng=0),
        normal((3,), (4,)),
    ),
    LayerCase(
        "LSTMCell twice in a Graph",
        lambda: nn.Graph(
            {
                "first": (nn.LSTMCell(3, 4, rng=0), "x"),
                "second": (nn.LSTMCell(3, 4, rng=1), "x", "first.0", "first.1"),
                "y": (nn.Concatenate(), "second.0", "second.1"),
            }
        ),
        normal((3,)),
    ),
    LayerCase("GRUCell", lambda: nn.GRUCell(3, 4, rng=0), normal((3,))),
    LayerCase("GRUCell with a state", lambda: nn.GRUCell(3, 4, rng=0), normal((3,), (4,))),
    LayerCase("Lambda", lambda: nn.Lambda(np.sin, np.cos), normal((2, 3))),
    LayerCase("Lambda with a vjp", lambda: nn.Lambda(np.sin, vjp=sine_vjp), normal((2, 3))),
    LayerCase("Add", nn.Add, normal((3,), (3,), (3,)), hands_on_views=True),
    LayerCase("Subtract", nn.Subtract, normal((3,), (3,)), hands_on_views=True),
    LayerCase("Multiply", nn.Multiply, normal((3,), (3,), (3,))),
    LayerCase("Divide", nn.Divide, above_zero((3,), (3,))),
    LayerCase("Maximum", nn.Maximum, normal((3,), (3,))),
    LayerCase("Minimum", nn.Minimum, normal((3,), (3,))),
    LayerCase("MatMul", nn.MatMul, normal((2, 3), (3, 2))),
    LayerCase("Negative", nn.Negative, normal((2, 3))),
    LayerCase("Abs", nn.Abs, away_from(0, shape=(2, 3))),
    LayerCase("Reciprocal", nn.Reciprocal, above_zero((2, 3))),
    LayerCase("Square", nn.Square, normal((2, 3))),
    LayerCase("Sqrt", nn.Sqrt, above_zero((2, 3))),
    LayerCase("Power", lambda: nn.Power(3), normal((2, 3))),
    LayerCase("Exp", nn.Exp, normal((2, 3))),
    LayerCase("Log", nn.Log, above_zero((2, 3))),
    LayerCase("Sum", lambda: nn.Sum(dim=1), normal((2, 3))),
    LayerCase("Mean", lambda: nn.Mean(dim=-1), normal((2, 3))),
    LayerCase(
        "Graph",
        lambda: nn.Graph(
            {
                "h": (nn.Linear(4, 3, rng=0), "x"),
                "a": (nn.Tanh(), "h"),
                "r": (nn.Linear(3, 4, rng=1), "a"),
                "y": (nn.Add(), "x", "r"),
            }
        ),
        normal((4,)),
    ),
    LayerCase(
        "Graph of two inputs",
        lambda: nn.Graph(
            {
                "h": (nn.Linear(4, 3, rng=0), "x"),
                "y": (nn.Multiply(), "h", "z"),
            },
            inputs=("x", "z"),
        ),
        normal((4,), (3,)),
    ),
]


@dataclass(frozen=True)
class LossCase:
    """A loss, and what it takes.

    Attributes
    ----------
    name : str
        What the test is called.
    make : callable
        Returns a new loss.
    prediction, target : callable
        ``prediction(rng, batch)`` returns predictions, float64, batch axis first.
    weight : callable
        ``weight(target)`` returns the sum of the weights that the mean over `target` divides by.
    """

    name: str
    make: Callable[[], nn.Layer]
    prediction: Callable[[np.random.Generator, int], Array]
    target: Callable[[np.random.Generator, int], Array]
    weight: Callable[[Array], float] = lambda target: target.size


Draw = Callable[[np.random.Generator, int], Array]


def _numbers(*shape: int) -> Draw:
    return lambda rng, batch: rng.normal(size=(batch, *shape))


def _fractions(*shape: int) -> Draw:
    return lambda rng, batch: rng.uniform(0.1, 0.9, size=(batch, *shape))


def _distributions(*shape: int) -> Draw:
    def draw(rng: np.random.Generator, batch: int) -> Array:
        p = rng.uniform(0.1, 1, size=(batch, *shape))
        return p / p.sum(axis=1, keepdims=True)

    return draw


def _log_distributions(*shape: int) -> Draw:
    draw = _distributions(*shape)
    return lambda rng, batch: np.log(draw(rng, batch))


def _labels(classes: int, *shape: int) -> Draw:
    return lambda rng, batch: rng.integers(classes, size=(batch, *shape))


def _signs(*shape: int) -> Draw:
    return lambda rng, batch: rng.choice([-1.0, 1.0], size=(batch, *shape))


def _distributions_over_the_last(*shape: int) -> Draw:
    def draw(rng: np.random.Generator, batch: int) -> Array:
        p = rng.uniform(0.1, 1, size=(batch, *shape))
        return p / p.sum(axis=-1, keepdims=True)

    return draw


def _labels_but_the_last(classes: int) -> Draw:
    def draw(rng: np.random.Generator, batch: int) -> Array:
        labels = rng.integers(classes, size=batch)
        labels[max(1, batch - 1) :] = -100
        return labels

    return draw


CLASS_WEIGHTS = np.array([0.5, 1.0, 2.0, 0.25, 1.5])

LOSSES = [
    LossCase("CrossEntropy", nn.CrossEntropy, _numbers(5), _labels(5)),
    LossCase("CrossEntropy, sum", lambda: nn.CrossEntropy("sum"), _numbers(5), _labels(5)),
    LossCase("CrossEntropy, none", lambda: nn.CrossEntropy("none"), _numbers(5), _labels(5)),
    LossCase("CrossEntropy of pixels", nn.CrossEntropy, _numbers(3, 2, 2), _labels(3, 2, 2)),
    LossCase(
        "CrossEntropy of probabilities",
        lambda: nn.CrossEntropy(from_logits=False),
        _distributions(5),
        _labels(5),
    ),
    LossCase(
        "CrossEntropy of probabilities of pixels, none",
        lambda: nn.CrossEntropy("none", from_logits=False),
        _distributions(3, 2),
        _labels(3, 2),
    ),
    LossCase(
        "CrossEntropy with class weights and label smoothing",
        lambda: nn.CrossEntropy(weight=CLASS_WEIGHTS, label_smoothing=0.1),
        _numbers(5),
        _labels(5),
        weight=lambda target: CLASS_WEIGHTS[target].sum(),
    ),
    LossCase(
        "CrossEntropy of target probabilities with class weights and label smoothing",
        lambda: nn.CrossEntropy(weight=CLASS_WEIGHTS, label_smoothing=0.1),
        _numbers(5),
        _distributions(5),
    ),
    LossCase(
        "CrossEntropy of probabilities against target probabilities of pixels, none",
        lambda: nn.CrossEntropy("none", from_logits=False),
        _distributions(3, 2),
        _distributions(3, 2),
    ),
    LossCase(
        "CrossEntropy with ignored labels",
        nn.CrossEntropy,
        _numbers(5),
        _labels_but_the_last(5),
        weight=lambda target: (target != -100).sum(),
    ),
    LossCase("NegativeLogLikelihood", nn.NegativeLogLikelihood, _log_distributions(5), _labels(5)),
    LossCase(
        "NegativeLogLikelihood with class weights, none",
        lambda: nn.NegativeLogLikelihood("none", weight=CLASS_WEIGHTS),
        _log_distributions(5, 2),
        _labels(5, 2),
    ),
    LossCase("MeanSquaredError", nn.MeanSquaredError, _numbers(2, 3), _numbers(2, 3)),
    LossCase("MeanAbsoluteError", nn.MeanAbsoluteError, _numbers(3), _numbers(3)),
    LossCase(
        "MeanAbsoluteError, none", lambda: nn.MeanAbsoluteError("none"), _numbers(), _numbers()
    ),
    LossCase("Huber", lambda: nn.Huber(delta=0.5), _numbers(3), _numbers(3)),
    LossCase("Huber, sum", lambda: nn.Huber("sum", delta=2.0), _numbers(3), _numbers(3)),
    LossCase(
        "CrossEntropy of sequences", lambda: nn.CrossEntropy(dim=-1), _numbers(2, 5), _labels(5, 2)
    ),
    LossCase(
        "CrossEntropy of sequences against probabilities, none",
        lambda: nn.CrossEntropy("none", dim=-1),
        _numbers(2, 5),
        _distributions_over_the_last(2, 5),
    ),
    LossCase("Focal", nn.Focal, _numbers(5), _labels(5)),
    LossCase(
        "Focal of sequences with class weights, none",
        lambda: nn.Focal("none", gamma=0.5, weight=CLASS_WEIGHTS, dim=-1),
        _numbers(2, 5),
        _labels(5, 2),
    ),
    LossCase(
        "Focal with class weights and ignored labels",
        lambda: nn.Focal(weight=CLASS_WEIGHTS),
        _numbers(5),
        _labels_but_the_last(5),
        weight=lambda target: CLASS_WEIGHTS[target[target >= 0]].sum(),
    ),
    LossCase("MultiMargin", nn.MultiMargin, _numbers(5), _labels(5), weight=len),
    LossCase(
        "MultiMargin of squares with class weights, sum",
        lambda: nn.MultiMargin("sum", p=2, margin=0.5, weight=CLASS_WEIGHTS),
        _numbers(5),
        _labels(5),
    ),
    LossCase("MultiMargin, none", lambda: nn.MultiMargin("none"), _numbers(5), _labels(5)),
    LossCase("KLDivergence", nn.KLDivergence, _log_distributions(5), _distributions(5)),
    LossCase(
        "KLDivergence of sequences, batchmean",
        lambda: nn.KLDivergence("batchmean"),
        _log_distributions(5, 2),
        _distributions_over_the_last(5, 2),
        weight=len,
    ),
    LossCase(
        "KLDivergence of logarithms, none",
        lambda: nn.KLDivergence("none", log_target=True),
        _log_distributions(6),
        _log_distributions(6),
    ),
    LossCase("BinaryCrossEntropy", nn.BinaryCrossEntropy, _numbers(3), _fractions(3)),
    LossCase(
        "BinaryCrossEntropy of probabilities",
        lambda: nn.BinaryCrossEntropy("sum", from_logits=False),
        _fractions(3),
        _fractions(3),
    ),
    LossCase(
        "BinaryCrossEntropy with a weight of positives, none",
        lambda: nn.BinaryCrossEntropy("none", pos_weight=3.0),
        _numbers(3),
        _labels(2, 3),
    ),
    LossCase(
        "BinaryCrossEntropy with weights of each output",
        lambda: nn.BinaryCrossEntropy(weight=[1.0, 0.5, 0.0], pos_weight=[3.0, 1.0, 0.5]),
        _numbers(2, 3),
        _labels(2, 2, 3),
    ),
    LossCase("Hinge", nn.Hinge, _numbers(3), _signs(3)),
    LossCase("Hinge, squared, sum", lambda: nn.Hinge("sum", 0.5, p=2), _numbers(3), _signs(3)),
    LossCase("SmoothL1", lambda: nn.SmoothL1(beta=0.5), _numbers(3), _numbers(3)),
    LossCase(
        "SmoothL1 of 0, none", lambda: nn.SmoothL1("none", beta=0.0), _numbers(3), _numbers(3)
    ),
    LossCase("Quantile", lambda: nn.Quantile(quantile=0.9), _numbers(3), _numbers(3)),
    LossCase("PoissonNLL", nn.PoissonNLL, _numbers(3), _labels(5, 3)),
    LossCase(
        "PoissonNLL of rates, full, none",
        lambda: nn.PoissonNLL("none", log_input=False, full=True),
        _fractions(3),
        _labels(5, 3),
    ),
]
