"""``Elementwise``: the base of layers that compute each output from the input at its place."""

from __future__ import annotations

from typing import Any

from numpy.typing import ArrayLike

from ..checks import as_floats, as_output_grad
from ..engine.arrays import Array
from ..layer import Layer


class Elementwise(Layer):
    """A function of one input, element by element: its output has the shape of the input.

    A subclass defines `value` and `vjp`; checks and caching are here.
    """

    def value(self, x: Array) -> tuple[Array, Any]:
        """Return the output for `x`, and whatever `vjp` needs."""
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
