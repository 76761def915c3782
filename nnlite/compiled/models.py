"""The forward of a model and its backward, for a batch or by threads for parts of it."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

import nnlite as nn

from ..engine.arrays import FLOATS, Array
from ..parameter import rooms_for_grads, take_grads
from .memory import Memory
from .parallel import ParallelProgram, Stage, Variables
from .programs import Batch, call_values, returned
from .source import Code, Made, Sums, Value, handed_on
from .split import WHOLE, division, is_separable


class ModelProgram(ParallelProgram):
    """The functions ``predict``, ``forward``, ``backward`` and ``backward_parameters`` of a model.

    Threads compute parts of the predictions of a large batch.

    Attributes
    ----------
    inputs, outputs : list of Value
        Without masks, of which there are no gradients.
    returns_new : bool
        Whether no output can be a view of an input or of a parameter.
    """

    def __init__(
        self, model: nn.Layer, batch: Batch, n: int, free: bool, native: bool, made: Made
    ) -> None:
        code, inputs, outputs = write_forward(model, batch, n, free, made, input_grads=True)
        super().__init__(code, native)
        given = [*batch.names, *code.per_call]
        grads = [f"grad_{i}" if i else "grad" for i in range(len(outputs))]
        input_grads = code.write_backward(outputs, grads, inputs)
        inputs = [x if x.name in input_grads else Value(x.name, x.shape) for x in inputs]
        self.inputs, self.outputs = inputs[: _inputs_with_gradients(model)], outputs
        self._trained = list(code.trained.values())
        self._stages: dict[str, list[Stage]] = {}
        lines = [*code.forward, *code.commits]
        self._results = Memory(code)
        self._returned = self._results.add_results(outputs, lines)
        self.returns_new = not self._returned
        returns = self._shaped(outputs, self._returned)
        known = [*given, *self._results.names]
        self._define("predict", known, lines, returns, "Compute the output.")
        self._memory = self._results.copy()
        variables = handed_on(code.forward, code.backward)
        variables = [x for x in variables if x not in self._memory.lines]
        variables = self._memory.add_parts(variables, lines)
        known = [*given, *self._memory.names]
        doc = "Compute the output, and what backward needs."
        self._define("forward", known, lines, returns | {x: x for x in variables}, doc)
        known = [*grads, *known, *variables]
        lines = [*code.backward]
        self._input_grads, found = Memory(code), [*input_grads.values()]
        self._returned_grads = self._input_grads.add_results(found, lines)
        lines = [*self._memory.unpacked(lines), *lines]
        returns = self._shaped(found, self._returned_grads)
        doc = "Compute the gradients of the inputs and of the parameters."
        self._define("backward", [*known, *self._input_grads.names], lines, returns, doc)
        self._divide(model, call_values(code, batch, n))
        code, inputs, outputs = write_forward(model, batch, n, free, made, input_grads=False)
        code.write_backward(outputs, grads, [])
        lines = [*self._memory.unpacked(code.backward), *code.backward]
        doc = "Compute the parameters' gradients."
        self._define("backward_parameters", known, lines, {}, doc)
        self.finish(f"Compiled {model.label}")
        # Arrays of the same shapes without memory, with which `_reached` writes the model again.
        empty = [np.broadcast_to(array.dtype.type(0), array.shape) for array in batch.arrays]
        self._written = functools.partial(
            write_forward, model, batch._replace(arrays=empty), n, free, made, input_grads=True
        )
        self._reached_without: dict[tuple[int, ...], set[str]] = {}

    def _define(
        self, name: str, known: Sequence[str], lines: list[str], results: dict[str, str], doc: str
    ) -> None:
        """Add a function that returns these expressions; threads get them by name."""
        self.define(name, known, [*lines, *returned([*results.values()])], doc)
        self._stages[name] = [Stage(name, [*results])]

    def _divide(self, model: nn.Layer, given: Sequence[Value]) -> None:
        """Choose how the batches of predictions are divided."""
        self._prediction = WHOLE
        has_sums = any(isinstance(line, Sums) for line in self.code.forward)
        if not has_sums and is_separable(self.code, [*given, *self.outputs], model):
            self._prediction = division(self.code, with_backward=False)
        self._predicted_whole = self._prediction.undivided  # the largest batch

    def _shaped(self, values: Sequence[Value], places: list[int]) -> dict[str, str]:
        """Return the expressions for some flat arrays with their own shapes, as results."""
        return {
            _result(place): self.code.resolved(x.view(*x.shape) if x.shape else f"{x}.reshape(())")
            for place, x in enumerate(values)
            if place in places
        }

    def predict(self, values: Sequence[Any], n: int) -> list[Array]:
        """Return the outputs; threads compute parts of a large batch, some samples at a time."""
        memory = self._results.make(n)
        if n > self._predicted_whole:
            names = [*self.names, *self._results.names]
            part_of = functools.partial(self.of_samples, names, [*values, *memory], n)
            chunks = self._prediction.chunks(n)
            parts = self.compute_parts(self._stages["predict"], chunks, part_of, {})
            return _joined(memory, self._returned, itertools.chain(*parts))
        results = self.call("predict", n, [*values, *memory])
        return _merged(memory, self._returned, results)

    def forward(self, values: list[Any], n: int) -> tuple[list[Array], list[Any]]:
        """Return the outputs, and the values of a call of `backward` behind the gradients."""
        memory = self._memory.make(n)
        values = values + memory
        results = self.call("forward", n, values)
        if results is None:
            return memory[: len(self.outputs)], values
        count = len(self._returned)
        made = memory[: len(self.outputs) - count]
        return _merged(made, self._returned, results), [*values, *results[count:]]

    def backward(
        self, n: int, values: Sequence[Any], input_grad: bool, missing: Sequence[int] = ()
    ) -> list[Any]:
        """Add the gradients of the parameters to theirs; return those of the inputs, if asked for.

        The function writes the gradient of a parameter that has none where it will have it. The
        gradients of the outputs `missing` are 0; inputs and parameters that only these depend on
        get none.
        """
        name = "backward" if input_grad else "backward_parameters"
        bound, memory = self._bound[name], []
        first = len(bound) - len(self._trained)  # the gradients are the last arrays
        own = bound[first:]
        grads = rooms_for_grads(self._trained, own)
        if input_grad:
            memory = self._input_grads.make(n)
            values = [*values, *memory]
        results = self.call(name, n, values, (), (*bound[:first], *grads))
        found: list[Any] = _merged(memory, self._returned_grads, results)
        if not missing:
            take_grads(self._trained, grads, own)
            return found
        reached = self._reached(tuple(missing))
        parameters = zip(self.code.trained, self._trained, grads, own, strict=True)
        for name, parameter, grad, other in parameters:
            if name in reached:
                take_grads([parameter], [grad], [other])
        if not input_grad:
            return []
        inputs = [x.name for x in self.inputs if x.needs_grad]
        return [grad if x in reached else None for x, grad in zip(inputs, found, strict=True)]

    def _reached(self, missing: tuple[int, ...]) -> set[str]:
        """Return the names of the inputs and the parameters that the other outputs depend on."""
        if missing not in self._reached_without:
            code, inputs, outputs = self._written()
            others = [y for place, y in enumerate(outputs) if place not in missing]
            grads = [f"grad_{i}" for i in range(len(others))]
            input_grads = code.write_backward(others, grads, inputs)
            self._reached_without[missing] = {*code.trained, *input_grads}
        return self._reached_without[missing]


def _merged(
    memory: list[Array], places: list[int], returned: Sequence[Array] | None
) -> list[Array]:
    """Return the results in their order: those in memory, and those returned for their places."""
    for place, array in zip(places, returned or (), strict=False):
        memory.insert(place, array)
    return memory


def _result(place: int) -> str:
    """Return the name of an output, or of the gradient of an input, among variables."""
    return f"result {place}"  # with a space, as no variable has


def _joined(memory: list[Array], places: list[int], chunks: Iterable[Variables]) -> list[Array]:
    """Return the results of a batch: those in memory, and those of which each chunk has a part."""
    found = [*chunks]
    rest = [np.concatenate([each[_result(place)] for each in found]) for place in places]
    return _merged(memory, places, rest)


def write_forward(
    model: nn.Layer, batch: Batch, n: int, free: bool, made: Made, input_grads: bool
) -> tuple[Code, list[Value], list[Value]]:
    """Write the forward of a model; return the code, the inputs and the outputs.

    For `made` see `Code`.
    """
    code = Code(_dtype_of(model, batch), free, n, made)
    given = batch._replace(arrays=batch.arrays[: batch.inputs])
    values = call_values(code, given, n)
    inputs, others = values[: batch.positional], values[batch.positional :]
    if input_grads:
        first = inputs[: _inputs_with_gradients(model)]
        is_float = {x.name: code.kinds[x.name].kind == "f" for x in first}
        inputs = [Value(x.name, x.shape, is_float.get(x.name, False)) for x in inputs]
    by_keyword = dict(zip(batch.keywords, others, strict=True))
    output = code.apply(model, "", *inputs, **by_keyword)
    return code, inputs, list(output) if isinstance(output, tuple) else [output]


def _inputs_with_gradients(model: nn.Layer) -> int | None:
    """Return the number of inputs before the masks, or None if the model takes no masks."""
    if isinstance(model, nn.MultiheadAttention):
        return 3
    if isinstance(model, nn.TransformerEncoderLayer):
        return 1
    return 2 if isinstance(model, nn.TransformerDecoderLayer) else None


def _dtype_of(model: nn.Layer, batch: Batch) -> np.dtype[Any]:
    """Return the dtype of all floats of a program: that of the parameters, if there are any."""
    dtypes = {parameter.dtype for parameter in model.parameters()}
    if len(dtypes) > 1:
        raise TypeError("compile: the parameters are of several dtypes; use model.astype")
    if dtypes:
        return dtypes.pop()
    floats = [array.dtype.itemsize for array in batch.arrays if array.dtype.kind == "f"]
    return FLOATS[bool(floats) and min(floats) >= 8]
