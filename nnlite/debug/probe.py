"""A copy of a layer whose every ``forward`` starts from the same state."""

from __future__ import annotations

import contextlib
import copy
import inspect
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from ..engine.arrays import Array
from ..layer import Layer
from ..random import generator
from .differences import Outputs
from .isolation import isolated_copy, leaves, map_leaves


class Probe:
    """A float64 copy of a layer with its inputs, whose every forward starts from the same state.

    The state consists of the buffers, the package's generator, and every generator that is an
    attribute of a layer.

    Attributes
    ----------
    layer : Layer
    inputs : tuple
        Copies; floats as float64 arrays in C order.
    parameters : dict of str to Parameter
    takes_grad, takes_input_grad : bool
        Whether ``backward`` has these arguments.
    is_loss : bool
        Whether ``backward`` takes no gradient, or has a number for default.
    """

    def __init__(self, layer: Layer, inputs: tuple[Any, ...], options: Mapping[str, Any]) -> None:
        self.layer = isolated_copy(layer).astype(np.float64)
        self.inputs = map_leaves(_as_float64, inputs)
        self.parameters = dict(self.layer.named_parameters())
        self._options = copy.deepcopy(dict(options))
        parts = self.layer.layers()
        self._buffers = [
            (part, name, copy.copy(getattr(part, name)))
            for part in parts
            for name in part._buffer_names
        ]
        generators = [generator(), *_generators([vars(part) for part in parts])]
        self._states = [(g.bit_generator, g.bit_generator.state) for g in generators]
        arguments = list(inspect.signature(self.layer.backward).parameters.values())
        self.takes_grad = bool(arguments) and arguments[0].name != "input_grad"
        self.takes_input_grad = any(
            argument.name == "input_grad" or argument.kind is argument.VAR_KEYWORD
            for argument in arguments
        )
        self.is_loss = not self.takes_grad or isinstance(arguments[0].default, (int, float))

    def forward(self) -> Any:
        """Restore the initial state and return the output."""
        for bit_generator, state in self._states:
            bit_generator.state = state
        for part, name, value in self._buffers:
            setattr(part, name, copy.copy(value))
        return self.layer.forward(*self.inputs, **self._options)

    def backward(self, grad: Any, **options: bool) -> Any:
        """Call backward, with the gradient `grad` if it takes one."""
        backward: Any = self.layer.backward
        return backward(grad, **options) if self.takes_grad else backward()

    @contextlib.contextmanager
    def inputs_in_another_order(self) -> Iterator[None]:
        """Context in which the inputs are stored in another memory order."""
        given = self.inputs
        self.inputs = map_leaves(in_another_order, given)
        try:
            yield
        finally:
            self.inputs = given

    def gradients(self) -> tuple[Array | None, ...]:
        """Return the gradient of each parameter."""
        return tuple(parameter.grad for parameter in self.parameters.values())

    def along(self, *moves: tuple[Array, Any, Any]) -> Outputs:
        """Return the outputs as a function of t, with each array moved by t times a direction.

        Parameters
        ----------
        *moves : (ndarray, index, direction)
            An input or the data of a parameter, the index of the elements that move, and the
            direction.
        """
        starts = [np.copy(array[index]) for array, index, _ in moves]

        def outputs(t: float) -> list[Array] | None:
            try:
                for (array, index, direction), start in zip(moves, starts, strict=True):
                    array[index] = start + t * direction
                return [np.array(leaf, np.float64) for leaf in leaves(self.forward())]
            except (ValueError, ArithmeticError):
                return None
            finally:
                for (array, index, _), start in zip(moves, starts, strict=True):
                    array[index] = start

        return outputs


def in_another_order(value: Any) -> Any:
    """Return an array with its elements stored in reversed order of the axes and with gaps."""
    if not isinstance(value, np.ndarray):
        return value
    stored = np.zeros((*value.shape[::-1], 2), value.dtype)
    reordered = stored[..., 0].T
    reordered[...] = value
    return reordered


def _as_float64(value: Any) -> Any:
    if isinstance(value, (np.ndarray, np.generic, float, list)):
        array = np.array(value, order="C")
        return array.astype(np.float64) if array.dtype.kind == "f" else array
    return copy.deepcopy(value)


def _generators(value: Any) -> Iterator[np.random.Generator]:
    if isinstance(value, np.random.Generator):
        yield value
    elif isinstance(value, (list, tuple, dict)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _generators(item)
