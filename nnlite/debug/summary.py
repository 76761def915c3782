"""The layers of a model and their costs: the table of ``model.summary(input_shape)``."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..checks import integer, shown
from ..engine.arrays import Array
from ..layer import Layer
from ..modes import no_grad
from ..tables import Table
from .isolation import (
    input_names,
    intercept,
    isolated_copy,
    leaves,
    map_leaves,
    package_generator_kept,
    stop_intercepting,
)

Shape = tuple[int, ...]


@dataclass
class LayerSummary:
    """A line of a `Summary`: one layer, without its sub-layers.

    Attributes
    ----------
    name : str
        The dotted name, as in the state dict; empty for the model itself.
    label : str
        The layer as it prints, or its class if that is long.
    depth : int
        Number of layers that contain it.
    has_layers : bool
        Whether it has sub-layers.
    output_shape : tuple of int, or tuple of them
        The shape of the last output; None if the layer was not called.
    parameters, trainable_parameters : int
        Number of elements of its own parameters, and of those that take a gradient, without those
        counted in an earlier line.
    shared_parameters : int
        Number of elements counted in an earlier line: see `nnlite.Layer.tied`.
    multiply_adds : int
        The sum of `nnlite.Layer.multiply_adds` over all calls.
    output_bytes : int
        Memory allocated for its outputs: 0 if they are views of its inputs or the output of a
        sub-layer.
    """

    name: str
    label: str
    depth: int
    has_layers: bool
    output_shape: Any = None
    parameters: int = 0
    trainable_parameters: int = 0
    shared_parameters: int = 0
    multiply_adds: int = 0
    output_bytes: int = 0


class Summary:
    """The layers of a model with their output shapes, parameters, multiply-adds and memory.

    Printed, it is a table; in a notebook it shows as HTML.

    Attributes
    ----------
    layers : list of LayerSummary
        The model and all its layers in the order of `nnlite.Layer.named_layers`, each once.
    parameters, trainable_parameters, frozen_parameters : int
        Number of elements of all parameters; a parameter that several layers share counts once.
    buffers : int
        Number of elements of the buffers, such as running means, which are no parameters.
    multiply_adds : int
        Multiply-adds of one forward of the batch: those of matrix products and convolutions, as is
        usual. A backward takes about twice as many. One multiply-add is two floating-point
        operations (FLOPs).
    state_bytes : int
        Memory of parameters and buffers. The gradients take as much as the trainable parameters
        again, and so does each array of an optimizer's state: one for momentum, two for Adam.
    activation_bytes : int
        Memory of the inputs and of the outputs of all layers for the batch. Training keeps most of
        it until the backward. Other arrays that a layer caches, and temporary ones, are not
        counted.

    Notes
    -----
    The figures come from one forward of a copy of the model, in evaluation mode and without caches.
    The inputs are ones if they are floats, and zeros if they are integers. The model's mode,
    caches, buffers and generators are left unchanged.

    Examples
    --------
    >>> import nnlite as nn
    >>> model = nn.Sequential(
    ...     nn.Residual(nn.Conv2d(1, 1, 3, padding=1), nn.ReLU()),
    ...     nn.Flatten(),
    ...     nn.Linear(784, 10),
    ... )
    >>> summary = model.summary((1, 28, 28), batch_size=32)
    >>> summary
    summary of Sequential for input (32, 1, 28, 28) of float32
    name      layer                             output shape     parameters  multiply-adds   memory
              Sequential                        (32, 10)
    0           Residual                        (32, 1, 28, 28)                              100 kB
    0.body        Sequential                    (32, 1, 28, 28)
    0.body.0        Conv2d(1, 1, 3, padding=1)  (32, 1, 28, 28)          10        225,792   100 kB
    0.body.1        ReLU()                      (32, 1, 28, 28)           0              0   100 kB
    1           Flatten()                       (32, 784)                 0              0      0 B
    2           Linear(784, 10)                 (32, 10)              7,850        250,880  1.28 kB
    7,860 parameters: 7,860 trainable
    476,672 multiply-adds for one forward of the batch
    31.4 kB of parameters and buffers, 403 kB of inputs and outputs of layers
    >>> summary.parameters
    7860
    """

    def __init__(self, title: str, run: _Run) -> None:
        self.layers = run.layers
        self.parameters = sum(layer.parameters for layer in run.layers)
        self.trainable_parameters = sum(layer.trainable_parameters for layer in run.layers)
        self.frozen_parameters = self.parameters - self.trainable_parameters
        self.buffers = run.buffers
        self.multiply_adds = sum(layer.multiply_adds for layer in run.layers)
        self.state_bytes = run.state_bytes
        self.activation_bytes = run.input_bytes + sum(layer.output_bytes for layer in run.layers)
        self._title = title

    def _table(self, indentation: str = "  ") -> Table:
        header = ["name", "layer", "output shape", "parameters", "multiply-adds", "memory"]
        rows = [_cells(layer, indentation) for layer in self.layers]
        parameters = f"{self.parameters:,} parameters: {self.trainable_parameters:,} trainable"
        if self.frozen_parameters:
            parameters += f", {self.frozen_parameters:,} frozen"
        if self.buffers:
            parameters += f"; {self.buffers:,} numbers in buffers"
        return Table(
            header,
            rows,
            numeric=header[3:],
            title=self._title,
            notes=[
                parameters,
                f"{self.multiply_adds:,} multiply-adds for one forward of the batch",
                f"{_size(self.state_bytes)} of parameters and buffers, "
                f"{_size(self.activation_bytes)} of inputs and outputs of layers",
            ],
        )

    def __repr__(self) -> str:
        return str(self._table())

    def _repr_html_(self) -> str:
        # HTML makes several spaces one.
        return self._table(indentation="\u00a0" * 4).to_html()


def summarize(model: Layer, input_shape: Any, batch_size: int, dtype: Any) -> Summary:
    """Return the summary of a model, as `Layer.summary` does."""
    batch_size = integer(batch_size, "summary: batch_size")
    shapes = _shapes(input_shape)
    dtypes = _dtypes(dtype, model, len(shapes))
    # Ones, since a logarithm or a quotient is undefined at 0; and 0 is always a valid index.
    inputs = tuple(
        np.full((batch_size, *shape), kind.kind == "f", kind)
        for shape, kind in zip(shapes, dtypes, strict=True)
    )
    names = input_names(model, inputs)
    given = ", ".join(
        f"{name} {array.shape} of {array.dtype}" for name, array in zip(names, inputs, strict=True)
    )
    run = _Run(model, inputs)
    with package_generator_kept(), no_grad(), np.errstate(all="ignore"):
        run.go(given)
    return Summary(f"summary of {model.label} for {given}", run)


class _Run:
    """One forward of a copy of the model, which fills a line for each layer."""

    def __init__(self, model: Layer, inputs: tuple[Array, ...]) -> None:
        self.layers: list[LayerSummary] = []
        self.input_bytes = sum(array.nbytes for array in inputs)
        self.state_bytes = 0
        self.buffers = 0
        self._model = isolated_copy(model).eval()
        self._inputs = inputs
        # The arrays counted so far: parameters, buffers, inputs and outputs.
        self._seen: list[Any] = [*inputs]
        self._fault: tuple[str, str] | None = None
        counted: set[int] = set()
        for name, depth, layer in _walk(self._model, "", 0, set()):
            line = LayerSummary(name, layer.label, depth, any(layer.named_children()))
            for parameter in layer.parameters(recurse=False):
                if id(parameter) in counted:
                    line.shared_parameters += parameter.size
                    continue
                counted.add(id(parameter))
                line.parameters += parameter.size
                line.trainable_parameters += parameter.size if parameter.requires_grad else 0
                self._count_state(parameter.data)
            for buffer in layer.buffers(recurse=False):
                if id(buffer) not in counted:
                    counted.add(id(buffer))
                    self.buffers += buffer.size
                    self._count_state(buffer)
            self.layers.append(line)
            intercept(layer, "forward", functools.partial(self._report, line, layer))

    def _count_state(self, array: Array) -> None:
        self.state_bytes += array.nbytes
        self._seen.append(array)

    def _report(
        self,
        line: LayerSummary,
        layer: Layer,
        forward: Callable[..., Any],
        *inputs: Any,
        **options: Any,
    ) -> Any:
        """Call `forward`, and fill the line of its layer."""
        try:
            output = forward(*inputs, **options)
        except Exception as error:
            # The innermost layer knows best.
            self._fault = self._fault or (line.name, str(error))
            raise
        line.output_shape = map_leaves(np.shape, output)
        line.multiply_adds += layer.multiply_adds(
            tuple(map_leaves(np.shape, value) for value in inputs), line.output_shape
        )
        for array in leaves(output):
            if not any(np.may_share_memory(array, other) for other in self._seen):
                line.output_bytes += np.asarray(array).nbytes
                self._seen.append(array)
        return output

    def go(self, given: str) -> None:
        """Run forward; an error names the layer in which it was raised."""
        try:
            self._model(*self._inputs)
        except Exception as error:
            # Errors of other classes may have arguments that are no message.
            if self._fault and type(error) in (TypeError, ValueError, RuntimeError):
                name, message = self._fault
                place = f"layer {name!r}: " if name else ""
                error.args = (f"{place}{message} (summary gave the model {given})",)
            raise
        finally:
            for layer in self._model.layers():
                stop_intercepting(layer)
            del self._model, self._inputs, self._seen


def _walk(layer: Layer, name: str, depth: int, seen: set[int]) -> Iterator[tuple[str, int, Layer]]:
    """Yield name, depth and layer, for `layer` and all its sub-layers, each once."""
    if id(layer) in seen:
        return
    seen.add(id(layer))
    yield name, depth, layer
    for child_name, child in layer.named_children():
        yield from _walk(child, f"{name}.{child_name}" if name else child_name, depth + 1, seen)


def _shapes(input_shape: Any) -> list[Shape]:
    """Return the shape of a sample of each input."""
    several = isinstance(input_shape, (list, tuple)) and (
        input_shape == [] or any(isinstance(item, (list, tuple)) for item in input_shape)
    )
    try:
        return [_shape(item) for item in (input_shape if several else [input_shape])]
    except (TypeError, ValueError):
        raise ValueError(
            f"summary: input_shape must be the shape of a sample without the batch axis, such as "
            f"(1, 28, 28), or a list of shapes; got {shown(input_shape)}"
        ) from None


def _shape(sizes: Any) -> Shape:
    sizes = sizes if isinstance(sizes, (list, tuple)) else (sizes,)
    return tuple(integer(size, "a size") for size in sizes)


def _dtypes(dtype: Any, model: Layer, count: int) -> list[np.dtype[Any]]:
    """Return the dtype of each input."""
    if dtype is None:
        parameter = next(model.parameters(), None)
        dtype = np.float32 if parameter is None else parameter.dtype
    given = dtype if isinstance(dtype, (list, tuple)) else [dtype] * count
    if len(given) != count:
        raise ValueError(f"summary: got {len(given)} dtypes for {count} input(s)")
    dtypes = [np.dtype(each) for each in given]
    for each in dtypes:
        if each.kind not in "fiub":
            raise TypeError(f"summary: dtype must be of real numbers, got {each}")
    return dtypes


def _cells(layer: LayerSummary, indentation: str) -> list[str]:
    parameters = f"{layer.parameters:,}"
    if layer.trainable_parameters < layer.parameters:
        parameters = f"{'partly ' * (layer.trainable_parameters > 0)}frozen {parameters}"
    if layer.shared_parameters:
        parameters = f"shared + {parameters}" if layer.parameters else "shared"
    costs = [parameters, f"{layer.multiply_adds:,}", _size(layer.output_bytes)]
    if layer.has_layers:
        # The lines below show the costs of its sub-layers.
        costs = ["" if cost in ("0", "0 B") else cost for cost in costs]
    shape = "not called" if layer.output_shape is None else str(layer.output_shape)
    return [layer.name, indentation * layer.depth + layer.label, shape, *costs]


def _size(count: float) -> str:
    """Format a number of bytes with three digits."""
    units = ["B", "kB", "MB", "GB", "TB"]
    while count >= 999.5 and len(units) > 1:
        count /= 1000
        units.pop(0)
    return f"{count:.3g} {units[0]}"
