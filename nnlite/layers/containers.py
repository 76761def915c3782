"""Containers: layers made of layers."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, overload

import numpy as np

from ..checks import as_output_grad
from ..engine.arrays import Array
from ..hints import attribute_error
from ..layer import (
    Layer,
    add_path,
    check_latest_forwards,
    explain,
    latest_forwards,
    without_output,
)


class Sequential(Layer):
    """Layers in sequence: the output of each is the input of the next.

    It behaves like a list of layers: `len`, index, slice (a `Sequential` of the same layers),
    iteration, `append`, `extend`, `insert`, assignment and deletion. Containers can be nested.

    Parameters
    ----------
    *layers : Layer, or one mapping of str to Layer
        A mapping, such as a dict, names the layers: each becomes an attribute of the container,
        and its name is used in the keys of the state dict. Layers without a name are numbered.

    Raises
    ------
    TypeError
        If an argument is not a layer.
    ValueError
        If a layer occurs twice: a layer caches one forward, so its first use would get a wrong
        gradient. Use `Layer.tied` for the second. If a name is empty, contains a dot or is
        duplicate.
    RuntimeError
        In `backward`, if one of the layers was called again after the container's `forward`, or
        layers were added, replaced or removed.

    Notes
    -----
    The chain rule, layer by layer from the last::

        dL/dx_k = backward_k(dL/dx_{k+1})        x_{k+1} = forward_k(x_k)

    With ``input_grad=False``, `backward` stops at the first layer that has a parameter to train.

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(784, 32), nn.ReLU(), nn.Linear(32, 10))
    >>> model(np.zeros((5, 1, 28, 28), dtype=np.float32)).shape
    (5, 10)
    >>> model[1]
    Linear(784, 32)
    >>> model[2:]
    Sequential(
        ReLU(),
        Linear(32, 10),
    )
    >>> named = nn.Sequential({"hidden": nn.Linear(784, 32), "output": nn.Linear(32, 10)})
    >>> named.output
    Linear(32, 10)
    >>> list(named.state_dict())
    ['hidden.weight', 'hidden.bias', 'output.weight', 'output.bias']
    """

    @overload
    def __init__(self, *layers: Layer) -> None: ...
    @overload
    def __init__(self, layers: Mapping[str, Layer], /) -> None: ...
    def __init__(self, *layers: Any) -> None:
        self._names: list[str | None] = []  # None where the position is the name
        self._layers: list[Layer] = []
        if len(layers) == 1 and isinstance(layers[0], Mapping):
            self._set([*layers[0]], [*layers[0].values()])
        else:
            self.extend(layers)

    def forward(self, *inputs: Any) -> Any:
        values, layers = inputs, self._layers
        forwards: list[int] = []
        try:
            for layer in layers:
                # A call is `forward` with checks, which take longer there than here.
                call = layer.forward if type(layer).__call__ is Layer.__call__ else layer
                output = call(*values)
                if output is None:
                    raise without_output(layer)
                values = (output,)
                forwards.append(layer._cache.forwards)
        except BaseException as error:
            if forwards:
                self.drop_cache()  # the layers hold caches of two different forwards
            if isinstance(error, (TypeError, ValueError, RuntimeError)) and call is not layer:
                explain(error, layer, values, {})
            raise
        self.cache(layers, forwards)
        return values[0] if len(values) == 1 else values

    def backward(self, grad: Array, input_grad: bool = True) -> Any:
        layers, forwards = self.cached()
        if layers is not self._layers:
            raise RuntimeError(
                f"{self.label}: the layers changed after this forward; call forward again before "
                f"backward"
            )
        if not input_grad:
            first = 0
            while first < len(layers) - 1 and not layers[first].trainable():
                first += 1
            if first:
                layers, forwards = layers[first:], forwards[first:]
        check_latest_forwards(self, layers, forwards)
        index = len(layers)
        try:
            while index:
                index -= 1
                grad = layers[index].backward(grad, input_grad or index > 0)
        except (TypeError, ValueError, RuntimeError) as error:
            if grad is None and index < len(layers) - 1:
                needed = f"the layer before it, {layers[index].label}, needs dL/d(input)"
                raise _without_gradient(self, layers[index + 1], needed) from None
            add_path(error, self, layers[index], (grad,), "gradient")
            raise
        return grad if input_grad else None

    # ---- list methods ----

    def __len__(self) -> int:
        return len(self._layers)

    def __iter__(self) -> Iterator[Layer]:
        return iter(self._layers)

    @overload
    def __getitem__(self, index: int) -> Layer: ...
    @overload
    def __getitem__(self, index: slice) -> Sequential: ...
    def __getitem__(self, index: int | slice) -> Layer:
        if isinstance(index, slice):
            piece = Sequential()
            piece._set(self._names[index], self._layers[index])
            return piece
        return self._layers[index]

    def __setitem__(self, index: int, layer: Layer) -> None:
        names, layers = [*self._names], [*self._layers]
        layers[index] = layer
        if isinstance(index, slice):
            names[index] = [None] * len(layers[index])
        self._set(names, layers)

    def __delitem__(self, index: int | slice) -> None:
        names, layers = [*self._names], [*self._layers]
        del names[index], layers[index]
        self._set(names, layers)

    def append(self, layer: Layer) -> Sequential:
        """Append a layer; return the container."""
        return self.extend([layer])

    def extend(self, layers: Iterable[Layer]) -> Sequential:
        """Append several layers; return the container."""
        added = [*layers]
        self._set([*self._names, *[None] * len(added)], [*self._layers, *added])
        return self

    def insert(self, index: int, layer: Layer) -> Sequential:
        """Insert a layer before `index`; return the container."""
        names, layers = [*self._names], [*self._layers]
        names.insert(index, None)
        layers.insert(index, layer)
        self._set(names, layers)
        return self

    def _set(self, names: list[str | None], layers: list[Layer]) -> None:
        checked = _checked("Sequential", layers)
        keys = [str(index) if name is None else name for index, name in enumerate(names)]
        for key in keys:
            if not isinstance(key, str) or not key or "." in key or keys.count(key) > 1:
                raise ValueError(
                    f"Sequential: each layer needs a name of its own, without a dot, got {key!r}"
                )
        self._names, self._layers = names, checked

    def __getattr__(self, name: str) -> Layer:
        # Named layers are no attributes, so Python looks them up here.
        names = vars(self).get("_names", [])
        if name in names:
            return self._layers[names.index(name)]
        raise attribute_error(f"{type(self).__name__} has no attribute or layer {name!r}", name)

    def named_children(self) -> Iterator[tuple[str, Layer]]:
        """Yield each layer with its name, or with its position as a string."""
        for index, (name, layer) in enumerate(zip(self._names, self._layers, strict=True)):
            yield str(index) if name is None else name, layer

    def layers(self) -> list[Layer]:
        """Return this layer and all layers inside it."""
        found: list[Layer] = [self]
        for layer in self._layers:
            found += layer.layers()
        return found

    def __repr__(self) -> str:
        kind = type(self).__name__
        if any(name is not None for name in self._names):
            lines = "".join(f"{name!r}: {layer!r},\n" for name, layer in self.named_children())
            return f"{kind}({{\n{textwrap.indent(lines, '    ')}}})"
        return _constructor_call(kind, self._layers)


class Residual(Layer):
    """A layer with a shortcut around it: ``y = x + body(x)``.

    Parameters
    ----------
    *layers : Layer
        The body: one or more layers in sequence, whose output has the shape of their input.

    Attributes
    ----------
    body : Sequential

    Raises
    ------
    ValueError
        If the body changes the shape.

    Notes
    -----
    Shapes: x and y alike, any that the body accepts. The gradient flows through the body and the
    shortcut::

        dL/dx = dL/dy + body.backward(dL/dy)

    For other shortcuts use a `Graph` with an `Add` node.

    References
    ----------
    K. He, X. Zhang, S. Ren, J. Sun, "Deep residual learning for image recognition", CVPR 2016.

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> block = nn.Residual(nn.Linear(4, 4), nn.ReLU())
    >>> block(np.ones((2, 4), dtype=np.float32)).shape
    (2, 4)
    >>> list(block.state_dict())
    ['body.0.weight', 'body.0.bias']
    """

    body: Sequential

    def __init__(self, *layers: Layer) -> None:
        self.body = Sequential(*_checked("Residual", list(layers)))

    def forward(self, x: Array) -> Array:
        output: Array = self.body(x)
        if output.shape != np.shape(x):
            raise ValueError(
                f"Residual: the body turned shape {np.shape(x)} into {output.shape}, but its "
                f"output is added to its input and must have the same shape"
            )
        self.cache(output.shape, output.dtype, latest_forwards([self.body]))
        return output + np.asarray(x, output.dtype)

    def backward(self, grad: Array, input_grad: bool = True) -> Array | None:
        shape, dtype, forwards = self.cached()
        check_latest_forwards(self, [self.body], forwards)
        grad = as_output_grad(self, grad, shape, dtype)
        through = self.body.backward(grad, input_grad)
        if input_grad and through is None:
            raise _without_gradient(self, self.body, "Residual needs dL/dx")
        return grad + through if input_grad else None

    def __repr__(self) -> str:
        return _constructor_call(type(self).__name__, self.body)


def _without_gradient(container: Layer, layer: Layer, needed: str) -> TypeError:
    """Return the error for a backward of `layer` that returned None where `needed` says why not."""
    while isinstance(layer, Sequential) and len(layer):
        layer = layer[0]  # whose dL/d(input) is that of the Sequential
    error = TypeError(f"{layer.label}: backward returned None, but {needed}")
    add_path(error, container, layer, ())
    return error


def _constructor_call(name: str, layers: Iterable[Layer]) -> str:
    """Format a constructor call with one layer per line."""
    lines = "".join(f"{layer!r},\n" for layer in layers)
    return f"{name}(\n{textwrap.indent(lines, '    ')})" if lines else f"{name}()"


def _checked(container: str, layers: list[Layer]) -> list[Layer]:
    """Return `layers` after checking that they are layers and that none occurs twice."""
    for layer in layers:
        if not isinstance(layer, Layer):
            got, cure = type(layer).__name__, ""
            if isinstance(layer, (list, tuple)):
                cure = f"; write {container}(*layers)"
            elif isinstance(layer, type):
                got, cure = f"the class {layer.__name__}", f"; write {layer.__name__}()"
            raise TypeError(f"{container}: expected layers, got {got}{cure}")
    check_used_once(container, [(f"at {index}", layer) for index, layer in enumerate(layers)])
    return layers


def check_used_once(container: str, places: Iterable[tuple[str, Layer]]) -> None:
    """Raise a ValueError if a layer, or one inside it, occurs in two of the `places`."""
    found: dict[int, str] = {}
    for place, layer in places:
        for part in layer.layers():
            if id(part) in found:
                raise ValueError(
                    f"{container}: {part.label} stands {found[id(part)]} and again {place}, "
                    f"but a layer keeps the cache of one forward only; use layer.tied() there"
                )
            found[id(part)] = place
