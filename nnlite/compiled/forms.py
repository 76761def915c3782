"""The table of compiled forms: what writes the source of each layer, loss and optimizer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

Form = Callable[..., Any]
Function = TypeVar("Function", bound=Form)

FORMS: dict[type, Form] = {}
"""The form of each class that has one, after ``compile`` has been imported."""


def form(*kinds: type) -> Callable[[Function], Function]:
    """Return a decorator that registers the compiled form of layers, losses or optimizers.

    The form of a layer is called as ``form(layer, code, *inputs)``. It writes the forward with
    ``code("...")``, and returns its output and a function that writes the backward, given the
    gradient of the output; or its output alone, if it writes nothing. If the shape of the output is
    not that of the layer's own ``forward``, the first call raises a TypeError.

    A form may read parameters, buffers, and attributes that are named like an argument of
    ``__init__``: later calls detect changes of these only. Write one statement per line.

    Parameters
    ----------
    *kinds : type
        The classes. A subclass needs a form of its own, since it may compute something else.

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> from nnlite.compiled.forms import form
    >>> class Double(nn.Layer):
    ...     def forward(self, x):
    ...         self.cache()
    ...         return 2 * x
    ...     def backward(self, grad, input_grad=True):
    ...         return 2 * grad
    >>> @form(Double)
    ... def double(layer, code, x):
    ...     y = code.new(x.shape)
    ...     code(f'''
    ...         for i in range({x.size}):
    ...             {y}[i] = real(2) * {x}[i]
    ...     ''')
    ...     def backward(dy):
    ...         with code.gradient(x) as dx:
    ...             code(f'''
    ...                 for i in range({x.size}):
    ...                     {dx}[i] = real(2) * {dy}[i]
    ...             ''')
    ...     return y, backward
    >>> nn.compile(Double(), native=False)(np.ones((1, 2), np.float32))
    array([[2., 2.]], dtype=float32)
    """

    def register(function: Function) -> Function:
        for kind in kinds:
            FORMS[kind] = function
        return function

    return register


def form_of(layer: Any, path: str = "") -> Form:
    """Return the form of a layer, loss or optimizer, or raise a TypeError that names it."""
    found, own = FORMS.get(type(layer)), methods_of(layer)
    if found is None or own:
        where = place_in_model(path)
        label = getattr(layer, "label", type(layer).__name__)
        if own:
            raise TypeError(
                f"compile: {label}{where} was given another {next(iter(own))}, which has no "
                f"compiled form; write it as a class of its own, or train uncompiled"
            )
        raise TypeError(
            f"compile: {label}{where} has no compiled form; register one with "
            f"@nnlite.compiled.forms.form({type(layer).__name__}), or train uncompiled"
        )
    return found


def place_in_model(path: str) -> str:
    """Return the words of a message that say where in the model a layer is."""
    return f" ({path!r} in the model)" if path else ""


def methods_of(layer: Any) -> dict[str, Any]:
    """Return the methods of this object alone that replace, and do not wrap, those of its class."""
    own = {name: vars(layer)[name] for name in ("forward", "backward") if name in vars(layer)}
    return {name: method for name, method in own.items() if not hasattr(method, "__wrapped__")}


def backward_of(result: Any) -> tuple[Any, Callable[..., None] | None]:
    """Return the output and the backward of what a form returned."""
    if isinstance(result, tuple) and len(result) == 2 and callable(result[1]):
        return result
    return result, None
