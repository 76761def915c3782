"""The loss of a model and its gradients, for a batch or by threads for parts of it."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

import nnlite as nn

from ..engine.arrays import Array
from .losses import check_reduction
from .models import write_forward
from .parallel import DIVISOR, ParallelProgram, PartOf, result
from .programs import Batch, call_values
from .source import Code, Made, Sums, Value, fixed
from .split import WHOLE, Chunks, Division, division, is_separable


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
    check_reduction(loss)  # it may have been changed
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


class LossProgram(ParallelProgram):
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
        self._weighs = self._averages and not self._needs_sums
        self._assemble(passes.model, passes.loss, passes.given)

    def _assemble(self, model: nn.Layer, loss: nn.Layer, given: Sequence[Value]) -> None:
        self._define_gradients(given)
        self.finish(f"Compiled {model.label} with {loss.label}")

    def _define_gradients(self, given: Sequence[Value]) -> None:
        """Define ``gradients``; or a function for each stage, and ``commit`` for the buffers."""
        code = self.code
        lines, commits = [*code.forward, *code.backward], code.commits
        if not self._needs_sums:
            lines, commits = ["\n".join([*lines, *commits])], []  # one function
        known = [*[x.name for x in given], *code.per_call]
        results = {"loss": "loss", DIVISOR: f"float({code.divisor or 1})"}
        results |= {result(place): y.name for place, y in enumerate(self.outputs)}
        doc = "Compute the gradients; return the loss, its divisor and the outputs."
        self._stages = self.define_stages("gradients", known, lines, results, commits, doc)
        if commits:
            known += itertools.chain(*[stage.results for stage in self._stages])
            self.define("commit", known, commits, "Change the buffers.")
        if self._is_divided:
            self.define_addition()

    def suits(self, n: int) -> bool:
        return self._is_divided or self._division.is_whole(n)

    def compute(self, values: Sequence[Any], n: int) -> tuple[float, Any]:
        """Compute the gradients, for `accumulate`; return the loss and the output, or outputs."""
        loss, output = self._computed(n, self._part_of(values, n))
        self._commit(n)
        return loss, output

    def _part_of(self, values: Sequence[Any], n: int) -> PartOf:
        """Return the function that returns the values of some of the n samples of a call."""
        return functools.partial(self.of_samples, self.names, values, n)

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
        loss, _, *outputs = self.call_with("gradients", n, part_of(0, n), self._bound["gradients"])
        return float(loss), self._shaped(outputs, n)

    def _shaped(self, flat: Sequence[Array], n: int) -> Any:
        """Return the output of n samples, or the tuple of several."""
        arrays = [y.reshape(fixed(of.shape, n)) for y, of in zip(flat, self.outputs, strict=True)]
        return arrays[0] if len(arrays) == 1 else tuple(arrays)

    def _commit(self, n: int) -> None:
        """Change the buffers, by what was computed last."""
        if self._needs_sums and self.code.commits:
            self.call_with("commit", n, self._first_variables, self._bound["commit"])

    def _compute_chunks(self, n: int, part_of: PartOf, chunks: Chunks) -> tuple[float, Any]:
        """Let each thread compute the gradients of its chunks, and add them."""
        parts = self.compute_parts(self._stages, chunks, part_of, self._gradients)
        self._first_variables = parts[0][0]
        found = list(itertools.chain(*parts))
        divisor = sum(each[DIVISOR] for each in found)
        weights = [each[DIVISOR] / divisor if self._averages else 1.0 for each in found]
        loss = sum(weight * each["loss"] for weight, each in zip(weights, found, strict=True))
        names = map(result, range(len(self.outputs)))
        outputs = [np.concatenate([each[name] for each in found]) for name in names]
        return float(loss), self._shaped(outputs, n)
