"""Functions without parameters that ONNX has as operators and nnlite not as layers.

Each function of one array is called with x, and has a method ``vjp(x, grad)``: `as_layer` makes a
`Lambda` of it. They are classes and no closures, so that a model with them can be pickled.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

import nnlite as nn

from ...engine.special import normal_cdf

Array = np.ndarray[Any, Any]


class Function:
    """A function of one array, and the gradient of its input."""

    def __call__(self, x: Array) -> Array:
        """Return y."""
        raise NotImplementedError

    def vjp(self, x: Array, grad: Array) -> Array:
        """Return dL/dx for `grad` = dL/dy."""
        raise NotImplementedError

    @property
    def __name__(self) -> str:
        options = ", ".join(f"{name}={value}" for name, value in vars(self).items())
        return f"{type(self).__name__}({options})"


def as_layer(function: Function) -> nn.Lambda:
    """Return the layer that computes `function`."""
    return nn.Lambda(function, vjp=function.vjp)


class Slice(Function):
    """A part along some axes, as a slice of each."""

    def __init__(self, slices: dict[int, slice]) -> None:
        self.slices = slices

    def _index(self, x: Array) -> tuple[slice, ...]:
        index = [slice(None)] * x.ndim
        for axis, part in self.slices.items():
            index[axis] = part
        return tuple(index)

    def __call__(self, x: Array) -> Array:
        return x[self._index(x)]

    def vjp(self, x: Array, grad: Array) -> Array:
        result = np.zeros_like(x)
        result[self._index(x)] = grad
        return result


class Max(Function):
    """The maximum over some axes, or over all; equal ones get equal parts of the gradient."""

    def __init__(self, axes: tuple[int, ...] | None, keepdims: bool) -> None:
        self.axes = axes
        self.keepdims = keepdims

    def __call__(self, x: Array) -> Array:
        return np.max(x, self.axes, keepdims=self.keepdims)

    def vjp(self, x: Array, grad: Array) -> Array:
        highest = np.max(x, self.axes, keepdims=True)
        is_highest = x == highest
        return is_highest * grad.reshape(highest.shape) / is_highest.sum(self.axes, keepdims=True)


class Erf(Function):
    """The error function."""

    def __call__(self, x: Array) -> Array:
        return 2 * normal_cdf(x * x.dtype.type(math.sqrt(2))) - 1

    def vjp(self, x: Array, grad: Array) -> Array:
        return grad * (2 / math.sqrt(math.pi)) * np.exp(-x * x)
