"""A function and its derivative as a layer, for what is too small for a class of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..checks import as_floats, as_output_grad
from ..engine.arrays import Array
from ..layer import Layer


class Lambda(Layer):
    """A function with its derivative.

    Parameters
    ----------
    function : callable
        ``function(x)`` returns y. It gets the input as an array that cannot be written into.
    derivative : callable, optional
        ``derivative(x)`` returns the derivative of a `function` that works element by element, of
        the shape of x, or one number. Booleans count as 0 and 1.
    vjp : callable, optional
        For any other function, in place of `derivative`: ``vjp(x, grad)`` returns dL/dx for
        grad = dL/dy, the vector-Jacobian product.

    Raises
    ------
    TypeError
        If `function` is not callable, or not just one of `derivative` and `vjp` is given; if the
        input is not of floats, or a function returns something that is no array of real numbers.
    ValueError
        If a function returns another shape than it has to.

    Notes
    -----
    Shapes: x any; y alike with a `derivative`, and any with a `vjp`::

        y     = function(x)
        dL/dx = dL/dy · derivative(x)        or vjp(x, dL/dy)

    What the functions return is converted to the dtype of x, so that a constant of float64 in them
    does no harm. `nn.gradcheck` tells whether the derivative is that of the function. Functions
    that are lambda expressions cannot be pickled; a state dict needs no pickle and has no part of
    them.

    References
    ----------
    A. Griewank, A. Walther, "Evaluating Derivatives", 2nd edition, SIAM 2008, section 3.2.

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> sine = nn.Lambda(np.sin, np.cos)
    >>> x = np.array([0.0, 1.0, 2.0])
    >>> nn.gradcheck(sine, x).passed
    True
    >>> nn.gradcheck(nn.Lambda(np.cos, np.sin), x).passed
    False

    A function that is not elementwise: the steps of a sequence in reverse.

    >>> reverse = nn.Lambda(lambda x: x[:, ::-1], vjp=lambda x, grad: grad[:, ::-1])
    >>> reverse(np.array([[1.0, 2.0, 3.0]]))
    array([[3., 2., 1.]])
    """

    function: Callable[[Array], Any]
    derivative: Callable[[Array], Any] | None
    vjp: Callable[[Array, Array], Any] | None

    def __init__(
        self,
        function: Callable[[Array], Any],
        derivative: Callable[[Array], Any] | None = None,
        *,
        vjp: Callable[[Array, Array], Any] | None = None,
    ) -> None:
        for name, value in (("function", function), ("derivative", derivative), ("vjp", vjp)):
            if not callable(value) and (value is not None or name == "function"):
                raise TypeError(f"Lambda: {name} must be a function, got {value!r}")
        if (derivative is None) == (vjp is None):
            raise TypeError(
                "Lambda: expected derivative=, for a function that works element by element, or "
                "vjp=, for any other; got " + ("neither" if vjp is None else "both")
            )
        self.function = function
        self.derivative = derivative
        self.vjp = vjp

    def forward(self, x: Array) -> Array:
        x = as_floats(self, x)
        shapes = () if self.vjp else (x.shape,)
        y = _own(self._checked("function", self.function(_read_only(x)), x.dtype, *shapes))
        self.cache(x, y.shape)
        return y

    def backward(self, grad: Array, input_grad: bool = True) -> Array | None:
        x, shape = self.cached()
        grad = as_output_grad(self, grad, shape, x.dtype)
        if not input_grad:
            return None
        if self.derivative is not None:
            slope = self.derivative(_read_only(x))
            return grad * self._checked("derivative", slope, x.dtype, x.shape, ())
        assert self.vjp is not None
        result = self.vjp(_read_only(x), _read_only(grad))
        return _own(self._checked("vjp", result, x.dtype, x.shape))

    def _checked(self, name: str, value: Any, dtype: Any, *shapes: tuple[int, ...]) -> Array:
        """Return what a function returned as an array of `dtype` and, if any, one of `shapes`."""
        array = np.asarray(value)
        if array.dtype.kind not in "biuf":
            raise TypeError(
                f"{self.label}: {name} must return an array of real numbers, "
                f"got {type(value).__name__} of dtype {array.dtype}"
            )
        if shapes and array.shape not in shapes:
            cure = "" if self.vjp else "; for a function that is not elementwise, give vjp="
            raise ValueError(
                f"{self.label}: {name} must return an array of shape {shapes[0]}, "
                f"got {array.shape}{cure}"
            )
        return array.astype(dtype, copy=False)

    def __repr__(self) -> str:
        functions = [_name(self.function)]
        if self.derivative is not None:
            functions.append(_name(self.derivative))
        if self.vjp is not None:
            functions.append(f"vjp={_name(self.vjp)}")
        return f"Lambda({', '.join(functions)})"


def _read_only(array: Array) -> Array:
    view = array.view()
    view.flags.writeable = False
    return view


def _own(array: Array) -> Array:
    """Return `array`, or a copy if it is a view of what a function was given."""
    return array if array.flags.writeable else array.copy()


def _name(function: Callable[..., Any]) -> str:
    return getattr(function, "__name__", repr(function))
