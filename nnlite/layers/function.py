"""``Lambda``: a function and its derivative as a layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..checks import as_floats, as_output_grad
from ..engine.arrays import Array
from ..layer import Layer


class Lambda(Layer):
    """A layer made of a function and its derivative, for functions too small for a class.

    Parameters
    ----------
    function : callable
        ``function(x)`` returns y. The array x is read-only.
    derivative : callable, optional
        For an elementwise `function`: ``derivative(x)`` returns its derivative, an array of the
        shape of x or one number. Booleans count as 0 and 1.
    vjp : callable, optional
        For any other function, instead of `derivative`: ``vjp(x, grad)`` returns dL/dx for
        grad = dL/dy, the vector-Jacobian product.

    Raises
    ------
    TypeError
        If `function` is not callable, or both or neither of `derivative` and `vjp` are given; if
        the input is not of floats, or a function does not return an array of real numbers.
    ValueError
        If a function returns an array of the wrong shape.

    Notes
    -----
    Shapes: x any; y alike with a `derivative`, and any with a `vjp`::

        y     = function(x)
        dL/dx = dL/dy · derivative(x)        or vjp(x, dL/dy)

    The values that the functions return are converted to the dtype of x, so a float64 constant in
    them does no harm. `nn.gradcheck` verifies the derivative. A layer made of lambda expressions
    cannot be pickled; its state dict can be saved, since it does not contain the functions.

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

    A function that is not elementwise: reverse the steps of a sequence.

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
        """Return `value`, the result of a function, as an array of `dtype`; check its shape."""
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
    """Return `array`, or a copy if it is a view of the array that a function was given."""
    return array if array.flags.writeable else array.copy()


def _name(function: Callable[..., Any]) -> str:
    return getattr(function, "__name__", repr(function))
