"""Containers: layers made of layers."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator
from typing import Any, overload

import numpy as np

from ..checks import as_output_grad
from ..engine.arrays import Array
from ..layer import Layer


class Sequential(Layer):
    """Layers one after the other: the output of each is the input of the next.

    It behaves like a list of layers: `len`, index, slice (a `Sequential` of the same layers),
    iteration, `append`, `extend`, `insert`, assignment and deletion. It nests.

    Parameters
    ----------
    *layers : Layer

    Raises
    ------
    TypeError
        If something is not a layer.
    ValueError
        If the same layer stands in it twice: each layer keeps the cache of one forward, so the
        second use would spoil the first one's gradient. Use `Layer.tied` for the second.

    Notes
    -----
    The chain rule, layer by layer from the last::

        dL/dx_k = backward_k(dL/dx_{k+1})        x_{k+1} = forward_k(x_k)

    With ``input_grad=False``, backward stops at the first layer that has something to train.

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
    """

    def __init__(self, *layers: Layer) -> None:
        self._layers: list[Layer] = []
        self.extend(layers)

    def forward(self, *inputs: Any) -> Any:
        for layer in self._layers:
            inputs = (layer.forward(*inputs),)
            self._cache = None  # should a later layer fail, the caches are of two forwards
        self.cache(True)
        return inputs[0] if len(inputs) == 1 else inputs

    def backward(self, grad: Array, input_grad: bool = True) -> Any:
        self.cached()
        last = len(self._layers) - 1
        stop = 0
        if not input_grad:
            while stop < last and not self._layers[stop].trainable():
                stop += 1
        for index in range(last, stop - 1, -1):
            grad = self._layers[index].backward(grad, input_grad or index > stop)
        return grad if input_grad else None

    # ---- a list of layers ----

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
            return Sequential(*self._layers[index])
        return self._layers[index]

    def __setitem__(self, index: int, layer: Layer) -> None:
        layers = list(self._layers)
        layers[index] = layer
        self._layers = _checked("Sequential", layers)

    def __delitem__(self, index: int | slice) -> None:
        layers = list(self._layers)
        del layers[index]
        self._layers = layers

    def append(self, layer: Layer) -> Sequential:
        """Add a layer at the end; return the container."""
        return self.extend([layer])

    def extend(self, layers: Iterable[Layer]) -> Sequential:
        """Add layers at the end; return the container."""
        self._layers = _checked("Sequential", [*self._layers, *layers])
        return self

    def insert(self, index: int, layer: Layer) -> Sequential:
        """Put a layer before the one at `index`; return the container."""
        layers = list(self._layers)
        layers.insert(index, layer)
        self._layers = _checked("Sequential", layers)
        return self

    def named_children(self) -> Iterator[tuple[str, Layer]]:
        """Yield the position, as a string, and the layer of each layer."""
        for index, layer in enumerate(self._layers):
            yield str(index), layer

    def layers(self) -> list[Layer]:
        """Return this layer and all below it."""
        found: list[Layer] = [self]
        for layer in self._layers:
            found += layer.layers()
        return found

    def __repr__(self) -> str:
        return _constructor_call(type(self).__name__, self._layers)


class Residual(Layer):
    """A layer with a shortcut around it: ``y = x + body(x)``.

    Parameters
    ----------
    *layers : Layer
        The body: one layer, or several in sequence. Its output has the shape of its input.

    Attributes
    ----------
    body : Sequential

    Raises
    ------
    ValueError
        If the body changes the shape.

    Notes
    -----
    Shapes: x and y alike, any that the body takes. The gradient goes both ways::

        dL/dx = dL/dy + body.backward(dL/dy)

    A `Graph` does the same, and more, with an `Add` node.

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
        output: Array = self.body.forward(x)
        self._cache = None  # the body has another one now
        if output.shape != np.shape(x):
            raise ValueError(
                f"Residual: the body turned shape {np.shape(x)} into {output.shape}, but its "
                f"output is added to its input and must have the same shape"
            )
        self.cache(output.shape, output.dtype)
        return output + np.asarray(x, output.dtype)

    def backward(self, grad: Array, input_grad: bool = True) -> Array | None:
        shape, dtype = self.cached()
        grad = as_output_grad(self, grad, shape, dtype)
        through = self.body.backward(grad, input_grad)
        return grad + through if input_grad else None

    def __repr__(self) -> str:
        return _constructor_call(type(self).__name__, self.body)


def _constructor_call(name: str, layers: Iterable[Layer]) -> str:
    """Return a constructor call with one layer on each line."""
    lines = "".join(f"{layer!r},\n" for layer in layers)
    return f"{name}(\n{textwrap.indent(lines, '    ')})" if lines else f"{name}()"


def _checked(container: str, layers: list[Layer]) -> list[Layer]:
    """Return `layers`, having checked that they are layers and that none stands in them twice."""
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
    """Raise a ValueError if a layer, or one below it, stands in two of the `places`."""
    found: dict[int, str] = {}
    for place, layer in places:
        for part in layer.layers():
            if id(part) in found:
                raise ValueError(
                    f"{container}: {part.label} stands {found[id(part)]} and again {place}, "
                    f"but a layer keeps the cache of one forward only; use layer.tied() there"
                )
            found[id(part)] = place
