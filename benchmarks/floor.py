"""The floor: the necessary work of a step in NumPy.

Besides its matrix products, a step needs passes over memory for each bias, activation, loss and
parameter. The side "floor" makes only these calls, one after the other, on prepared arrays and with
reused memory: no layers, no checks, no new arrays, and no copies that turn a convolution into a
matrix product. The computed numbers are meaningless. A real step can be faster than this floor if
its convolutions need fewer products, by Winograd's algorithm, or if it shares the passes over
memory among threads.

There is one function for each kind of layer. It returns the calls of the forward and of the
backward pass, which need no arguments.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .products import Call, Shape, layers_of

Array = NDArray[Any]
Calls = tuple[list[Call], list[Call]]

_PIECE = 32768  # elements of a long vector that stay in the cache from one call to the next


def of_model(model: Any, shape: Shape, backward: bool = True) -> list[Call]:
    """Return the passes of an nnlite model, without its matrix products.

    Raises
    ------
    NotImplementedError
        If `_LAYERS` has no entry for a layer.
    """
    calls: list[Call] = []
    for layer, given, output in layers_of(model, shape):
        name = type(layer).__name__
        if name not in _LAYERS:
            raise NotImplementedError(f"benchmarks/floor.py does not know the passes of {name}")
        forward, back = _LAYERS[name](layer, given, output)
        calls += forward + back if backward else forward
    return calls


def of_cross_entropy(samples: int, classes: int) -> list[Call]:
    """Return the passes of the loss and of its gradient with respect to the logits."""
    x, row = _array(samples, classes), _array(samples, 1)
    return [
        partial(np.max, x, 1, row, keepdims=True),
        partial(np.subtract, x, row, x),
        partial(np.exp, x, x),
        partial(np.sum, x, 1, None, row, keepdims=True),
        partial(np.log, row, row),
        partial(np.multiply, x, row, x),
    ]


def of_sgd(size: int) -> list[Call]:
    """Return the passes of SGD with momentum over `size` contiguous parameters."""
    calls: list[Call] = []
    value, grad, direction = _array(size), _array(size), _array(size)
    factor = np.float32(0.5)
    for start in range(0, size, _PIECE):
        v, g, d = (array[start : start + _PIECE] for array in (value, grad, direction))
        scaled = np.empty_like(v)
        calls += [
            partial(np.multiply, d, factor, d),
            partial(np.add, d, g, d),
            partial(np.multiply, d, factor, scaled),
            partial(np.subtract, v, scaled, v),
        ]
    return calls


def of_adam(size: int) -> list[Call]:
    """Return the passes of Adam over `size` contiguous parameters."""
    calls: list[Call] = []
    value, grad, mean, square = _array(size), _array(size), _array(size), _array(size)
    factor = np.float32(0.5)
    for start in range(0, size, _PIECE):
        v, g, m, s = (array[start : start + _PIECE] for array in (value, grad, mean, square))
        work = np.empty_like(v)
        calls += [
            partial(np.subtract, g, m, work),
            partial(np.multiply, work, factor, work),
            partial(np.add, m, work, m),
            partial(np.multiply, g, g, work),
            partial(np.multiply, work, factor, work),
            partial(np.multiply, s, factor, s),
            partial(np.add, s, work, s),
            partial(np.sqrt, s, work),
            partial(np.add, work, factor, work),
            partial(np.divide, m, work, work),
            partial(np.multiply, work, factor, work),
            partial(np.subtract, v, work, v),
        ]
    return calls


OPTIMIZERS = {"SGD": of_sgd, "Adam": of_adam}


def _of_linear(layer: Any, given: Shape, output: Shape) -> Calls:
    """Return the addition of the bias; the sum for its gradient, as a product."""
    rows, columns = math.prod(output[:-1]), output[-1]
    y, bias, ones = _array(rows, columns), _array(columns), _array(1, rows)
    return [partial(np.add, y, bias, y)], [partial(np.dot, ones, y, _array(1, columns))]


def _of_convolution(layer: Any, given: Shape, output: Shape) -> Calls:
    """Return the same, with the channels outermost."""
    channels, places = output[1], output[0] * math.prod(output[2:])
    y, bias, ones = _array(channels, places), _array(channels, 1), _array(places, 1)
    return [partial(np.add, y, bias, y)], [partial(np.dot, y, ones, _array(channels, 1))]


def _of_relu(layer: Any, given: Shape, output: Shape) -> Calls:
    """Return the maximum; the mask, and the product with it."""
    y, zeros, mask = _array(*output), np.zeros(output, np.float32), np.empty(output, bool)
    return (
        [partial(np.maximum, y, zeros, out=y)],
        [partial(np.greater, y, np.float32(0), mask), partial(np.multiply, y, mask, y)],
    )


def _of_sigmoid(layer: Any, given: Shape, output: Shape) -> Calls:
    """Return 1 / (1 + exp(-x)); and the product with y (1 - y)."""
    y, work, one = _array(*output), _array(*output), np.float32(1)
    return (
        [
            partial(np.negative, y, work),
            partial(np.exp, work, work),
            partial(np.add, work, one, work),
            partial(np.divide, one, work, y),
        ],
        [
            partial(np.subtract, one, y, work),
            partial(np.multiply, work, y, work),
            partial(np.multiply, work, y, work),
        ],
    )


def _of_log(layer: Any, given: Shape, output: Shape) -> Calls:
    """Return the logarithm; the quotient."""
    y, work = _array(*output), _array(*output)
    return [partial(np.log, y, work)], [partial(np.divide, y, y, work)]


def _of_pooling(layer: Any, given: Shape, output: Shape) -> Calls:
    """Return the maxima over a window; for each position the mask and the product with it."""
    y, mask = _array(*output), np.empty(output, bool)
    window = math.prod(given) // math.prod(output)
    return (
        [partial(np.maximum, y, y, out=y)] * (window - 1),
        [partial(np.equal, y, y, mask), partial(np.multiply, y, mask, y)] * window,
    )


def _of_recurrent(layer: Any, given: Shape, output: Shape) -> Calls:
    """Return, for each step, the tanh; the factor 1 - h², and the product with it."""
    samples, steps = given[:2]
    state, grad = _array(layer.hidden_size, samples), _array(layer.hidden_size, samples)
    everything, ones = _array(layer.hidden_size, samples * steps), _array(samples * steps, 1)
    forward: list[Call] = [partial(np.tanh, state, state)]
    backward: list[Call] = [
        partial(np.multiply, state, state, grad),
        partial(np.subtract, np.float32(1), grad, grad),
        partial(np.multiply, grad, state, grad),
    ]
    bias_grad = partial(np.dot, everything, ones, _array(layer.hidden_size, 1))
    return forward * steps, [*backward * steps, bias_grad]


def _of_lstm(layer: Any, given: Shape, output: Shape) -> Calls:
    """Return, for each step, the passes of the gates and of both states."""
    samples, steps = given[:2]
    gates, sums = _array(4, layer.hidden_size, samples), _array(4, layer.hidden_size, samples)
    state, grad = _array(layer.hidden_size, samples), _array(layer.hidden_size, samples)
    everything, ones = _array(4 * layer.hidden_size, samples * steps), _array(samples * steps, 1)
    forward: list[Call] = [
        partial(np.tanh, gates, gates),
        partial(np.multiply, gates, np.float32(0.5), gates),  # from tanh to the logistic function
        partial(np.add, gates, np.float32(0.5), gates),
        *[partial(np.multiply, state, state, state)] * 3,
        partial(np.add, state, state, state),
        partial(np.tanh, state, state),
    ]
    backward: list[Call] = [
        partial(np.subtract, np.float32(1), gates, sums),
        *[partial(np.multiply, gates, sums, sums)] * 3,
        *[partial(np.multiply, state, grad, grad)] * 2,
        partial(np.add, state, grad, grad),
    ]
    bias_grad = partial(np.dot, everything, ones, _array(4 * layer.hidden_size, 1))
    return forward * steps, [*backward * steps, bias_grad]


def _of_gru(layer: Any, given: Shape, output: Shape) -> Calls:
    """Return, for each step, the passes of the gates and of the state."""
    samples, steps = given[:2]
    gates, sums = _array(3, layer.hidden_size, samples), _array(3, layer.hidden_size, samples)
    state, grad = _array(layer.hidden_size, samples), _array(layer.hidden_size, samples)
    everything, ones = _array(3 * layer.hidden_size, samples * steps), _array(samples * steps, 1)
    logistic = gates[:2]
    forward: list[Call] = [
        partial(np.tanh, gates, gates),
        partial(np.multiply, logistic, np.float32(0.5), logistic),
        partial(np.add, logistic, np.float32(0.5), logistic),
        *[partial(np.multiply, state, state, state)] * 2,
        *[partial(np.add, state, state, state)] * 3,
    ]
    backward: list[Call] = [
        partial(np.subtract, np.float32(1), gates, sums),
        *[partial(np.multiply, gates, sums, sums)] * 2,
        *[partial(np.multiply, state, grad, grad)] * 4,
        *[partial(np.add, state, grad, grad)] * 2,
    ]
    bias_grad = partial(np.dot, everything, ones, _array(3 * layer.hidden_size, 1))
    return forward * steps, [*backward * steps, bias_grad]


def _of_batch_norm(layer: Any, given: Shape, output: Shape) -> Calls:
    """Return both sums over a channel and the affine map; the same for the gradient."""
    channels = output[1]
    y, ones = _array(channels, math.prod(output) // channels), _array(math.prod(output) // channels)
    column, sums = _array(channels, 1), _array(channels)
    both: list[Call] = [
        partial(np.dot, y, ones, sums),
        partial(np.einsum, "ij,ij->i", y, y, out=sums),
        partial(np.multiply, y, column, y),
        partial(np.add, y, column, y),
    ]
    return both, [*both, partial(np.add, y, y, y)]


def _of_group_norm(layer: Any, given: Shape, output: Shape) -> Calls:
    """Return the same, with a channel for each group of each sample."""
    groups = output[0] * layer.num_groups
    return _of_batch_norm(layer, given, (1, groups, math.prod(output) // groups))


def _of_flatten(layer: Any, given: Shape, output: Shape) -> Calls:
    """Return nothing: it is another view of the same memory."""
    return [], []


def _of_transformer(layer: Any, given: Shape, output: Shape) -> Calls:
    """Return the softmax, ReLU, both sums with a shortcut and both normalizations."""
    samples, steps, width = given
    scores = _array(samples * layer.nhead * steps, steps)
    totals, column = _array(len(scores)), _array(len(scores), 1)
    hidden, x = _array(samples * steps, layer.dim_feedforward), _array(samples * steps, width)
    sums, scale = _array(len(x)), _array(len(x), 1)
    softmax: list[Call] = [
        partial(np.einsum, "ij->i", scores, out=totals),
        partial(np.multiply, scores, column, scores),
    ]
    each: list[Call] = [
        partial(np.add, x, x, x),
        partial(np.einsum, "ij,ij->i", x, x, out=sums),
        partial(np.multiply, x, scale, x),
        partial(np.multiply, x, x[0], x),
    ]
    forward = [
        partial(np.exp, scores, scores),
        *softmax,
        partial(np.maximum, hidden, 0, out=hidden),
    ]
    backward = [
        *softmax,
        partial(np.multiply, scores, scores, scores),
        partial(np.multiply, hidden, hidden, hidden),
    ]
    return [*forward, *each * 2], [*backward, *each * 2]


_LAYERS: dict[str, Callable[[Any, Shape, Shape], Calls]] = {
    "Linear": _of_linear,
    "Conv2d": _of_convolution,
    "ReLU": _of_relu,
    "Sigmoid": _of_sigmoid,
    "Log": _of_log,
    "MaxPool2d": _of_pooling,
    "Flatten": _of_flatten,
    "BatchNorm2d": _of_batch_norm,
    "ConvTranspose2d": _of_convolution,
    "GroupNorm": _of_group_norm,
    "RNN": _of_recurrent,
    "LSTM": _of_lstm,
    "GRU": _of_gru,
    "TransformerEncoderLayer": _of_transformer,
}


def _array(*shape: int) -> Array:
    return np.full(shape, 0.5, np.float32)
