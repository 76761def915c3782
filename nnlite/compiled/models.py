"""The forward of a model and its backward, for a batch or by threads for parts of it."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

import nnlite as nn

from ..engine.arrays import FLOATS, Array
from ..parameter import rooms_for_grads, take_grads
from .memory import Memory
from .parallel import ParallelProgram, Stage, Variables, result
from .programs import Batch, call_values, returned
from .source import Code, Made, Sums, Value, handed_on
from .split import WHOLE, Chunks, division, is_separable


class _Divided(NamedTuple):
    """The chunks of a batch, and the variables of their forward that backward needs.

    Attributes
    ----------
    chunks : Chunks
    variables : dict of tuple to Variables
        By the first sample and the end of a chunk.
    """

    chunks: Chunks
    variables: dict[tuple[int, int], Variables]


class ModelProgram(ParallelProgram):
    """The functions ``predict``, ``forward``, ``backward`` and ``backward_parameters`` of a model.

    Threads compute parts of a large batch. Where layers need sums over the batch in forward or
    backward, other functions compute the parts, each as far as the next sums.

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
        self._given = [*given, *self._memory.names]
        doc = "Compute the output, and what backward needs."
        self._define("forward", self._given, lines, returns | {x: x for x in variables}, doc)
        passes = {"forward": (lines[: len(code.forward)], returns)}
        known = [*grads, *self._given, *variables]
        lines = [*code.backward]
        self._input_grads, found = Memory(code), [*input_grads.values()]
        self._returned_grads = self._input_grads.add_results(found, lines)
        lines = [*self._memory.unpacked(lines), *lines]
        returns = self._shaped(found, self._returned_grads)
        doc = "Compute the gradients of the inputs and of the parameters."
        self._define("backward", [*known, *self._input_grads.names], lines, returns, doc)
        passes["backward"] = lines, returns
        self._given_to_backward = [*grads, *self._input_grads.names]
        self._divide(model, call_values(code, batch, n))
        code, inputs, outputs = write_forward(model, batch, n, free, made, input_grads=False)
        code.write_backward(outputs, grads, [])
        lines = [*self._memory.unpacked(code.backward), *code.backward]
        doc = "Compute the parameters' gradients."
        self._define("backward_parameters", known, lines, {}, doc)
        passes["backward_parameters"] = lines, {}
        if self._needs_sums:
            self._define_passes(passes)
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

    def _define_passes(self, passes: dict[str, tuple[list[str], dict[str, str]]]) -> None:
        """Add functions that end where sums over the batch are needed.

        `passes` are the statements and the results of ``forward``, and then of each backward.
        """
        commits = self.code.commits
        known, after = self._given, [*commits, *passes["backward"][0]]
        for name, (lines, results) in passes.items():
            doc = f"Do what {name} does, for a part of the batch."
            stages = self.define_stages(f"{name}_part", known, lines, results, after, doc)
            self._stages[name] = stages
            if name == "forward":
                handed = itertools.chain(*[stage.results for stage in stages])
                known, after = [*known, *handed, *self._given_to_backward], []
        if commits:
            self.define("commit", known, commits, "Change the buffers.")

    def _divide(self, model: nn.Layer, given: Sequence[Value]) -> None:
        """Choose how batches are divided: for predictions, and for forward and backward."""
        self._prediction = self._training = WHOLE
        has_sums = any(isinstance(line, Sums) for line in self.code.forward)
        can_split = is_separable(self.code, [*given, *self.outputs], model)
        self._needs_sums = has_sums and can_split
        if can_split:
            if not has_sums:
                self._prediction = division(self.code, with_backward=False)
            self._training = division(self.code, with_backward=True, in_chunks=not has_sums)
            self.define_addition()
        # The largest batches that are not divided.
        self._predicted_whole = self._prediction.undivided
        self._trained_whole = self._training.undivided

    def _shaped(self, values: Sequence[Value], places: list[int]) -> dict[str, str]:
        """Return the expressions for some flat arrays with their own shapes, as results."""
        return {
            result(place): self.code.resolved(x.view(*x.shape) if x.shape else f"{x}.reshape(())")
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
        return _merged(memory, self._returned, results) if self._returned else memory

    def forward(self, values: list[Any], n: int) -> tuple[list[Array], Any]:
        """Return the outputs, and what `backward` needs."""
        memory = self._memory.make(n)
        values = values + memory
        if n > self._trained_whole and not self._training.is_whole(n):
            return self._forward_parts(values, n, memory)
        results = self.call("forward", n, values)
        if results is None:
            return memory[: len(self.outputs)], values
        count = len(self._returned)
        made = memory[: len(self.outputs) - count]
        return _merged(made, self._returned, results), [*values, *results[count:]]

    def _forward_parts(
        self, values: list[Any], n: int, memory: list[Array]
    ) -> tuple[list[Array], _Divided]:
        """Do what `forward` does, by threads for parts of the batch."""
        part_of = functools.partial(self.of_samples, self._given, values, n)
        chunks = self._training.chunks(n)
        parts = self.compute_parts(self._stages["forward"], chunks, part_of, {})
        if self._needs_sums and self.code.commits:
            self.call_with("commit", n, parts[0][0], self._bound["commit"])
        found = [*itertools.chain(*parts)]
        made = memory[: len(self.outputs) - len(self._returned)]
        outputs = _joined(made, self._returned, found)
        return outputs, _Divided(chunks, dict(zip(itertools.chain(*chunks), found, strict=True)))

    def backward(
        self,
        n: int,
        grads: Sequence[Array],
        needed: Any,
        input_grad: bool,
        missing: Sequence[int] = (),
    ) -> list[Any]:
        """Add the gradients of the parameters to theirs; return those of the inputs, if asked for.

        The function writes the gradient of a parameter that has none where it will have it. The
        gradients `grads` of the outputs `missing` are 0; inputs and parameters that only these
        depend on get none. `needed` is what `forward` has returned.
        """
        name = "backward" if input_grad else "backward_parameters"
        bound = self._bound[name]
        first = len(bound) - len(self._trained)  # the gradients are the last arrays
        own = bound[first:]
        rooms = rooms_for_grads(self._trained, own)
        memory = self._input_grads.make(n) if input_grad else []
        found: list[Any]
        if type(needed) is _Divided:
            parts = self._backward_parts(name, n, [*grads, *memory], needed, rooms)
            places = self._returned_grads if input_grad else []
            found = _joined(memory, places, itertools.chain(*parts))
        else:
            values = [*grads, *needed, *memory]
            results = self.call(name, n, values, (), (*bound[:first], *rooms))
            found = memory
            if self._returned_grads:
                found = _merged(memory, self._returned_grads, results)
        if not missing:
            take_grads(self._trained, rooms, own)
            return found
        reached = self._reached(tuple(missing))
        parameters = zip(self.code.trained, self._trained, rooms, own, strict=True)
        for name, parameter, room, other in parameters:
            if name in reached:
                take_grads([parameter], [room], [other])
        if not input_grad:
            return []
        inputs = [x.name for x in self.inputs if x.needs_grad]
        return [grad if x in reached else None for x, grad in zip(inputs, found, strict=True)]

    def _backward_parts(
        self, name: str, n: int, arrays: Sequence[Array], needed: _Divided, rooms: list[Array]
    ) -> list[list[Variables]]:
        """Let threads compute the gradients of the parts of which they have computed forward."""
        names = self._given_to_backward[: len(arrays)]

        def part_of(start: int, stop: int) -> Variables:
            return needed.variables[start, stop] | self.of_samples(names, arrays, n, start, stop)

        gradients = dict(zip(self.code.trained, rooms, strict=True))
        return self.compute_parts(self._stages[name], needed.chunks, part_of, gradients)

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


def _joined(memory: list[Array], places: list[int], chunks: Iterable[Variables]) -> list[Array]:
    """Return the results of a batch: those in memory, and those of which each chunk has a part."""
    found = [*chunks]
    rest = [np.concatenate([each[result(place)] for each in found]) for place in places]
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
    return FLOATS[1 if floats and min(floats) >= 8 else 0]
