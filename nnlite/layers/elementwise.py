"""``Elementwise``: the base of layers that apply one function to every element."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

from numpy.typing import ArrayLike

from ..checks import as_floats, as_output_grad
from ..engine.arrays import Array
from ..layer import Layer


class Elementwise(Layer):
    """Base of layers that apply a function to each element of one input.

    A subclass defines `value` and `vjp`; this class checks the arrays and caches.
    """

    _accepted = MappingProxyType({"inplace": (False, True)})

    def value(self, x: Array) -> tuple[Array, Any]:
        """Return the output for `x`, and the values that `vjp` needs."""
        raise NotImplementedError(f"{type(self).__name__} does not define value")

    def vjp(self, saved: Any, grad: Array) -> Array:
        """Return dL/dx for `grad` = dL/dy and the second result of `value`."""
        raise NotImplementedError(f"{type(self).__name__} does not define vjp")

    def forward(self, x: ArrayLike) -> Array:
        y, saved = self.value(as_floats(self, x))
        self.cache(saved, y.shape, y.dtype)
        return y

    def backward(self, grad: Array, input_grad: bool = True) -> Array | None:
        saved, shape, dtype = self.cached()
        grad = as_output_grad(self, grad, shape, dtype)
        return self.vjp(saved, grad) if input_grad else None
