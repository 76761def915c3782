"""The matrix products of a step, to time NumPy's BLAS on them alone.

A library in NumPy cannot be faster than its matrix products. The side "BLAS" of a case computes
only these, on prepared operands. Its time as a fraction of the whole step shows how close a library
is to this limit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Shape = tuple[int, ...]
Call = Callable[[], Any]


@dataclass(frozen=True)
class Product:
    """``left @ right`` of the shapes (rows, inner) and (inner, columns), `times` over.

    A transposed operand is a view of an array in C order, as in the layer.
    """

    rows: int
    inner: int
    columns: int
    left_transposed: bool = False
    right_transposed: bool = False
    times: int = 1

    @property
    def operations(self) -> int:
        """Floating-point operations: a multiplication and an addition for each term."""
        return 2 * self.rows * self.inner * self.columns * self.times

    def calls(self, rng: np.random.Generator) -> list[Call]:
        """Return one call for each repetition of the product, each with its own operands."""
        left = _matrix(rng, self.rows, self.inner, self.left_transposed)
        right = _matrix(rng, self.inner, self.columns, self.right_transposed)
        out = np.empty((self.rows, self.columns), np.float32)
        return [partial(np.dot, left, right, out)] * self.times


def _matrix(rng: np.random.Generator, rows: int, columns: int, transposed: bool) -> Array:
    if transposed:
        return _matrix(rng, columns, rows, False).T
    return rng.standard_normal((rows, columns), np.float32)


def products_of(
    model: Any, shape: Shape, backward: bool = True, input_grad: bool = False
) -> list[Product]:
    """Return the matrix products of a forward, and backward, pass through an nnlite model.

    Parameters
    ----------
    model : nnlite.Sequential
    shape : tuple of int
        The shape of its input.
    backward : bool, default True
        False for the forward pass only.
    input_grad : bool, default False
        Whether to include the gradient of the input of the first layer with products.

    Raises
    ------
    NotImplementedError
        If a layer has matrices but no entry in `_LAYERS`.
    """
    products: list[Product] = []
    for layer, given, output in layers_of(model, shape):
        needed = _products_of_layer(layer, given, output)
        if needed is None:
            continue
        first = not products
        products += needed.forward
        if backward:
            products += needed.backward
            if input_grad or not first:
                products += needed.input_grad
    return products


def layers_of(model: Any, shape: Shape) -> Iterator[tuple[Any, Shape, Shape]]:
    """Yield each layer of a model with the shapes of its input and output."""
    x: Any = np.zeros(shape, np.float32)
    for layer in model:
        given, x = x.shape, layer(x)
        yield layer, given, x.shape


class _LayerProducts(NamedTuple):
    """The products of one layer; those in `input_grad` are only needed by the layer before."""

    forward: list[Product]
    backward: list[Product]
    input_grad: list[Product]


def _products_of_layer(layer: Any, given: Shape, output: Shape) -> _LayerProducts | None:
    name = type(layer).__name__
    if name in _LAYERS:
        return _LAYERS[name](layer, given, output)
    if any(parameter.data.ndim > 1 for parameter in layer.parameters()):
        raise NotImplementedError(f"benchmarks/products.py does not know the products of {name}")
    return None


def _of_linear(layer: Any, given: Shape, output: Shape) -> _LayerProducts:
    """Return ``x Wᵀ``; ``Gᵀ x``; ``G W``."""
    rows, inputs, outputs = math.prod(given[:-1]), given[-1], output[-1]
    return _LayerProducts(
        [Product(rows, inputs, outputs, right_transposed=True)],
        [Product(outputs, rows, inputs, left_transposed=True)],
        [Product(rows, outputs, inputs)],
    )


def _of_convolution(layer: Any, given: Shape, output: Shape) -> _LayerProducts:
    """Return ``W windows``; ``windows Gᵀ``; ``Wᵀ G``, for each row of the image."""
    samples, channels, rows, columns = output
    in_channels, height, width = layer.weight.shape[1:]
    window, places = in_channels * height * width, samples * columns
    channels, groups = channels // layer.groups, layer.groups
    return _LayerProducts(
        [Product(channels, window, places, times=rows * groups)],
        [Product(window, places, channels, right_transposed=True, times=rows * groups)],
        [Product(in_channels * width, channels * height, places, times=given[2] * groups)],
    )


def _of_transposed_convolution(layer: Any, given: Shape, output: Shape) -> _LayerProducts:
    """Return those of the convolution of the output, of which this is the input gradient."""
    convolution = _of_convolution(layer, output, given)
    return _LayerProducts(convolution.input_grad, convolution.backward, convolution.forward)


def _of_recurrent(layer: Any, given: Shape, output: Shape) -> _LayerProducts:
    """Return ``[W_hh W_ih b] [h; x; 1]`` of each step; ``W_hhᵀ G`` of each, and of all together.

    A `GRU` also multiplies a block of zeros, which is not counted.
    """
    samples, steps = given[0], given[1]
    needed = _LayerProducts([], [], [])
    for name, recurrent in layer.named_parameters():
        if not name.startswith("weight_hh_"):
            continue
        gates, states = recurrent.shape
        inputs = getattr(layer, name.replace("_hh_", "_ih_")).shape[1]
        terms = samples * steps
        needed.forward.append(Product(gates, states + inputs + layer.bias, samples, times=steps))
        needed.backward.append(
            Product(states, gates, samples, left_transposed=True, times=steps - 1)
        )
        needed.backward.append(Product(gates, terms, states, right_transposed=True))
        needed.backward.append(Product(gates, terms, inputs, right_transposed=True))
        below = needed.input_grad if "_hh_l0" in name else needed.backward
        below.append(Product(inputs, gates, terms, left_transposed=True))
    return needed


def _of_transformer(layer: Any, given: Shape, output: Shape) -> _LayerProducts:
    """Return those of the four linear maps, and of attention: two forward, four backward."""
    samples, steps, width = given
    rows, heads, hidden = samples * steps, samples * layer.nhead, layer.dim_feedforward
    size = width // layer.nhead
    first, *others = (
        _of_linear(None, (rows, inputs), (rows, outputs))
        for inputs, outputs in (
            (width, 3 * width), (width, width), (width, hidden), (hidden, width)
        )
    )  # fmt: skip
    needed = _LayerProducts(first.forward, first.backward, first.input_grad)
    for linear in others:
        needed.forward.extend(linear.forward)
        needed.backward.extend(linear.backward + linear.input_grad)
    scores = Product(steps, size, steps, right_transposed=True, times=heads)
    read = Product(steps, steps, size, times=heads)
    transposed = Product(steps, steps, size, left_transposed=True, times=heads)
    needed.forward.extend([scores, read])
    needed.backward.extend([transposed, scores, read, transposed])
    return needed


_LAYERS = {
    "Linear": _of_linear,
    "TransformerEncoderLayer": _of_transformer,
    "Conv2d": _of_convolution,
    "ConvTranspose2d": _of_transposed_convolution,
    "RNN": _of_recurrent,
    "LSTM": _of_recurrent,
    "GRU": _of_recurrent,
}
