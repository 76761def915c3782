"""The loss of a model and its gradients, for a batch or by threads for parts of it."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

import nnlite as nn

from ..engine.arrays import Array
from .native import interruption_of
from .programs import Batch, Program, call_values, returned, write_forward
from .source import Code, Made, Sums, Value, fixed, function, handed_on, stages
from .split import WHOLE, Chunks, Division, division, is_separable

_ADDITION = """\
for i in range(total.size):
    total[i] = real(factor) * total[i] + real(weight) * part[i]"""


# From the first sample and the end of a part of a batch to its values by name.
PartOf = Callable[[int, int], dict[str, Any]]


class _Stage(NamedTuple):
    """A function of the stages in which threads compute the gradients of parts of a batch.

    Attributes
    ----------
    name : str
    results : list of str
        The variables that it returns.
    sums : tuple of str
        Those of them that are then summed over the parts.
    """

    name: str
    results: list[str]
    sums: tuple[str, ...]


class Passes(NamedTuple):
    """Forward, loss and backward of a model as statements, for batches such as one of n samples.

    Attributes
    ----------
    code : Code
    model, loss : Layer
    given, outputs : sequence of Value
        The arguments of a call, and the outputs of the model.
    division : Division
        How batches are divided.
    is_divided : bool
        Whether those such as this one are: then all can be, and else none.
    needs_sums : bool
        Whether threads wait for each other, for sums over the batch.
    """

    code: Code
    model: nn.Layer
    loss: nn.Layer
    given: Sequence[Value]
    outputs: list[Value]
    division: Division
    is_divided: bool
    needs_sums: bool


def write_passes(
    model: nn.Layer, loss: nn.Layer, batch: Batch, n: int, free: bool, made: Made
) -> Passes:
    """Write forward, loss and backward of a model."""
    code, inputs, outputs = write_forward(model, batch, n, free, made, input_grads=False)
    others = call_values(code, batch, n)[len(inputs) :]
    code.apply_loss(loss, *outputs, *others)
    given = [*inputs, *others]
    can_split = is_separable(code, [*given, *outputs], model, loss)
    has_sums = any(isinstance(line, Sums) for line in code.forward)
    plan = division(code, with_backward=True, in_chunks=not has_sums) if can_split else WHOLE
    is_divided = not plan.is_whole(n)
    needs_sums = has_sums and is_divided
    code.write_backward([], [], [], of_part=needs_sums)
    return Passes(code, model, loss, given, outputs, plan, is_divided, needs_sums)


class LossProgram(Program):
    """The function ``gradients`` of a model with its loss.

    Threads compute parts of a large batch. Where layers need sums over the batch, the function
    ends, and another goes on.
    """

    def __init__(self, passes: Passes, native: bool) -> None:
        super().__init__(passes.code, native)
        self.outputs = passes.outputs
        self._division, self._is_divided = passes.division, passes.is_divided
        self._needs_sums = passes.needs_sums
        self._averages = bool(passes.code.divisor)
        # The gradients by name: of the part of each thread but the first, and, of each thread, of a
        # chunk before they are added.
        self._gradients_of_parts: list[dict[str, Array]] = []
        self._gradients_of_chunks: list[dict[str, Array]] = []
        self._assemble(passes.model, passes.loss, passes.given)

    def _assemble(self, model: nn.Layer, loss: nn.Layer, given: Sequence[Value]) -> None:
        self._define_gradients(given)
        self.finish(f"Compiled {model.label} with {loss.label}")

    def _define_gradients(self, given: Sequence[Value]) -> None:
        """Define ``gradients``; or a function for each stage, and ``commit`` for the buffers."""
        code = self.code
        outputs = [y.name for y in self.outputs]
        end = f"return {', '.join(['loss', f'float({code.divisor or 1})', *outputs])}"
        lines, commits = [*code.forward, *code.backward], code.commits
        if self._needs_sums:
            parts, sums = stages(lines)
        else:
            parts, sums, commits = [[*lines, *commits]], [], []
        self._stages: list[_Stage] = []
        known = [*[x.name for x in given], *code.per_call]
        for index, names in enumerate(sums):
            later = [line for part in parts[index + 1 :] for line in part]
            results = handed_on(parts[index], [*later, end, *commits])
            name, doc = f"gradients_{index}", "Return what the functions after this one need."
            self.define(name, known, [*parts[index], *returned(results)], doc)
            self._stages.append(_Stage(name, results, names))
            known = list(dict.fromkeys([*known, *results]))
        results = handed_on(parts[-1], commits)
        doc = "Compute the gradients; return the loss, its divisor and the outputs."
        self.define("gradients", known, [*parts[-1], ", ".join([end, *results])], doc)
        variables = ["loss", "divisor", *self._output_names, *results]
        self._stages.append(_Stage("gradients", variables, ()))
        if commits:
            self.define("commit", [*known, *results], commits, "Change the buffers.")
        if self._is_divided:
            doc = "Add the gradients of a part of the batch to those of others."
            arguments = ["total", "factor", "part", "weight"]
            self._texts.append(function("add", arguments, [_ADDITION], doc))

    def bind_anew(self) -> None:
        super().bind_anew()
        self._gradients_of_parts, self._gradients_of_chunks = [], []

    def suits(self, n: int) -> bool:
        return self._is_divided or self._division.is_whole(n)

    def compute(self, values: Sequence[Any], n: int) -> tuple[float, Any]:
        """Compute the gradients, for `accumulate`; return the loss and the output, or outputs."""
        loss, output = self._computed(n, functools.partial(self._part, values, n))
        self._commit(n)
        return loss, output

    def _part(self, values: Sequence[Any], n: int, start: int, stop: int) -> dict[str, Any]:
        """Return the values of some of the n samples of a call, by name."""
        return {
            name: self._of_samples(array, name, n, start, stop)
            for name, array in zip(self.names, values, strict=True)
        }

    def _computed(self, n: int, part_of: PartOf) -> tuple[float, Any]:
        """Compute the gradients; what is divided leaves the buffers to `_commit`.

        ``part_of(start, stop)`` returns the values of some of the n samples, by name.
        """
        if self._is_divided and not self._division.is_whole(n):
            try:
                return self._compute_chunks(n, part_of, self._division.chunks(n))
            except ValueError:  # labels of a chunk may all be ignored, where those of all are not
                pass
        if self._needs_sums:
            return self._compute_chunks(n, part_of, WHOLE.chunks(n))
        loss, _, *outputs = self._call_with("gradients", n, part_of(0, n), self._bound["gradients"])
        return float(loss), self._shaped(outputs, n)

    @property
    def _output_names(self) -> list[str]:
        """The names of the outputs among the variables of a part."""
        return [f"output_{index}" for index in range(len(self.outputs))]

    def _shaped(self, flat: Sequence[Array], n: int) -> Any:
        """Return the output of n samples, or the tuple of several."""
        arrays = [y.reshape(fixed(of.shape, n)) for y, of in zip(flat, self.outputs, strict=True)]
        return arrays[0] if len(arrays) == 1 else tuple(arrays)

    def _commit(self, n: int) -> None:
        """Change the buffers, by what was computed last."""
        if self._needs_sums and self.code.commits:
            self._call_with("commit", n, self._first_variables, self._bound["commit"])

    def _compute_chunks(self, n: int, part_of: PartOf, chunks: Chunks) -> tuple[float, Any]:
        """Let each thread compute the gradients of its chunks, and add them."""
        while len(self._gradients_of_parts) < len(chunks) - 1:
            self._gradients_of_parts.append(super().bindings())
        while max(map(len, chunks)) > 1 and len(self._gradients_of_chunks) < len(chunks):
            self._gradients_of_chunks.append(super().bindings())
        gradients = [self._gradients, *self._gradients_of_parts]
        # The variables of each chunk, by name. The values are picked by its thread.
        parts: list[list[dict[str, Any]]] = [[{} for _ in part] for part in chunks]
        self._first_variables = parts[0][0]

        def compute(stage: _Stage, part: int) -> None:
            divisor = 0.0
            for index, (start, stop) in enumerate(chunks[part]):
                variables, own = parts[part][index], gradients[part]
                if index:
                    own = self._gradients_of_chunks[part]
                if not variables:
                    variables.update(part_of(start, stop))
                self._compute_chunk(stage, variables, stop - start, own)
                if index:
                    self._add(gradients[part], divisor, own, variables["divisor"])
                divisor += variables.get("divisor", 0.0)  # which the last stage returns

        for stage in self._stages:
            calls = [functools.partial(compute, stage, part) for part in range(len(parts))]
            self._run_parts(stage.name, calls)
            for name in stage.sums:  # with them, a part is one chunk
                total = functools.reduce(np.add, [part[0][name] for part in parts])
                for part in parts:
                    part[0][name][...] = total
        divisors = [sum(variables["divisor"] for variables in part) for part in parts]
        for index in range(1, len(parts)):
            self._add(gradients[0], sum(divisors[:index]), gradients[index], divisors[index])
        found = list(itertools.chain(*parts))
        weights = [each["divisor"] / sum(divisors) if self._averages else 1.0 for each in found]
        loss = sum(weight * each["loss"] for weight, each in zip(weights, found, strict=True))
        outputs = [np.concatenate([each[name] for each in found]) for name in self._output_names]
        return float(loss), self._shaped(outputs, n)

    def _compute_chunk(
        self, stage: _Stage, variables: dict[str, Any], n: int, gradients: dict[str, Array]
    ) -> None:
        """Call the function of a stage for n samples, with arrays for their gradients."""
        arrays = zip(self._arguments[stage.name][1], self._bound[stage.name], strict=True)
        bound = [gradients.get(name, array) for name, array in arrays]
        results = self._call_with(stage.name, n, variables, bound)
        variables.update(zip(stage.results, results or (), strict=True))

    def _call_with(
        self, name: str, n: int, variables: dict[str, Any], bound: Sequence[Array]
    ) -> Any:
        """Call a function with what it takes of the variables of a chunk."""
        given = [variables[name] for name in self._arguments[name][0]]
        try:
            return self._functions[name](n, *given, *bound)
        except SystemError as error:
            raise interruption_of(error) from None

    def _add(
        self,
        total: dict[str, Array],
        divisor: float,
        gradients: dict[str, Array],
        other_divisor: float,
    ) -> None:
        """Add gradients of other samples to a total; those of means are weighted by divisors."""
        factor = weight = 1.0
        if self._averages and not self._needs_sums:
            whole = divisor + other_divisor
            factor, weight = divisor / whole, other_divisor / whole
        for name, grad in gradients.items():
            self._functions["add"](total[name].reshape(-1), factor, grad.reshape(-1), weight)
