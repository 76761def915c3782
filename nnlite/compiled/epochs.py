"""Training with many batches of a data set as one native function."""

from __future__ import annotations

import contextlib
import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np

import nnlite as nn

from ..engine.arrays import Array
from .parallel import Variables
from .parts import in_parts
from .programs import Batch, flat
from .pruning import pruned
from .source import BATCH, Value, fixed, function, nest, product, used
from .steps import DividedStepProgram, StepProgram


class EpochProgram(StepProgram):
    """The function ``steps``: the loop of training over the batches of a data set.

    It ends before a step that cannot be made, with nothing of it done: where an input is at fault,
    or where the loss or a gradient is not finite.
    """

    _keeps = True

    def _assemble(self, model: nn.Layer, loss: nn.Layer, given: Sequence[Value]) -> None:
        self._gather()
        code, update = self.code, self._update
        names = ("size", "order", "made", "numbers", "losses", "outputs", "batch", "start")
        size, order, made, numbers, losses, outputs, batch, start = map(code.name, names)
        data = [code.name(f"all_{x.name}") for x in given]
        lines = [f"{start} = {batch} * {size}", f"{BATCH} = min({size}, {order}.size - {start})"]
        for x, array in zip(given, data, strict=True):
            width = product(fixed(x.shape, 1))
            dtype = code.kinds[x.name]
            kind = "real" if dtype == code.dtype else f"np.{dtype.type.__name__}"
            copy = f"{x}[row * {width} + i] = {array}[{order}[{start} + row] * {width} + i]"
            lines += [f"{x} = np.empty({x.size}, {kind})", nest({"row": BATCH, "i": width}, copy)]
        lines = [code.resolved("\n".join(lines)), *code.forward, *code.backward, ""]
        lines += update.checks
        lines += [
            code.resolved(f"{name} = {numbers}[{batch}, {place}]")
            for place, name in enumerate(update.names)
        ]
        lines += [code.resolved("\n".join(update.lines)), *code.commits]
        (output, *_) = self.outputs  # with several, no steps are made
        width = product(fixed(output.shape, 1))
        copy = f"{outputs}[{start} * {width} + i] = {output}[i]"
        record = [
            f"{losses}[{batch}] = loss",
            f"if {outputs}.size:\n{textwrap.indent(nest({'i': output.size}, copy), '    ')}",
            f"{made}[0] += 1",
        ]
        lines.append(code.resolved("\n".join(record)))
        body = pruned("\n".join(lines))
        per_call = used(code.per_call, lines)
        arguments = [str(a) for a in (size, order, made, numbers, losses, outputs, *data)]
        bound = used([*code.arrays, *self.bindings()], [body])
        arguments += [*per_call, *bound]
        parts, body = in_parts("steps", [*arguments, str(batch)], body)
        loop = [f"for {batch!s} in range({losses!s}.size):\n{textwrap.indent(body, '    ')}"]
        loop.append("return True")
        doc = "Make steps with the batches of the samples in `order`, as long as they are finite."
        self._arguments["steps"] = per_call, bound
        self._texts += [*parts, function("steps", arguments, loop, doc)]
        kind = type(self._optimizer).__name__
        self.finish(f"Training of {model.label} with {loss.label} and {kind}")

    def prepare(self, size: int, order: Array, data: Batch) -> None:
        """Compile, with the arguments that `steps` will get."""
        self.steps(size, order[:0], data, [], False)

    def steps(
        self, size: int, order: Array, data: Batch, numbers: Sequence[list[float]], outputs: bool
    ) -> tuple[list[float], Array]:
        """Make steps; return the losses of those that were made, and the outputs of the model.

        Parameters
        ----------
        size : int
            The number of samples in a batch.
        order : ndarray of int64
            The samples of the batches.
        data : Batch
            The whole data set, of contiguous arrays.
        numbers : sequence of list of float
            Those of each step, as the method `numbers` returns them.
        outputs : bool
            Whether the outputs are asked for; there are none otherwise.
        """
        made, losses = np.zeros(1, np.int64), np.empty(len(numbers))
        shape = fixed(self.outputs[0].shape, len(order) if outputs else 0)
        results = np.empty(shape, self.code.dtype)
        rates = np.array(numbers, np.float64).reshape(len(numbers), len(self._update.names))
        arrays = [results.reshape(-1), *(array.reshape(-1) for array in data.arrays)]
        arrays += [self.code.per_call[name](len(order)) for name in self._arguments["steps"][0]]
        with contextlib.suppress(ValueError):  # the uncompiled model has the message
            self._functions["steps"](
                size, order, made, rates, losses, *arrays, *self._bound["steps"]
            )
        for _ in range(made[0]):
            self._update.advance()
        return losses[: made[0]].tolist(), results


class DividedEpochProgram(DividedStepProgram):
    """The steps of many batches, each of them computed for chunks and by several threads."""

    _keeps = True

    def prepare(self, size: int, order: Array, data: Batch) -> None:
        """Compile, with the arguments that `steps` will get."""
        with contextlib.suppress(ValueError):
            self._computed_of(data, order[:size])

    def steps(
        self, size: int, order: Array, data: Batch, numbers: Sequence[list[float]], outputs: bool
    ) -> tuple[list[float], Array]:
        """Make steps, as `EpochProgram.steps` does."""
        losses: list[float] = []
        results: list[Array] = []
        for number, of_step in enumerate(numbers):
            rows = order[number * size : (number + 1) * size]
            try:
                loss, output = self._computed_of(data, rows)
            except ValueError:
                break
            if not self.call("are_finite", len(rows), []):
                break
            self._move(len(rows), of_step)
            losses.append(loss)
            results.append(output)
        return losses, np.concatenate(results) if outputs and results else np.empty(0)

    def _computed_of(self, data: Batch, rows: Array) -> tuple[float, Any]:
        """Compute the gradients of some samples of a data set, each thread those of its own."""
        n = len(rows)
        drawn = self.drawn(n)

        def part_of(start: int, stop: int) -> Variables:
            given = zip(self.code.kinds.items(), data.arrays, strict=True)
            values = {name: flat(a.take(rows[start:stop], 0), dtype) for (name, dtype), a in given}
            return values | self.of_samples(self.code.per_call, drawn, n, start, stop)

        return self._computed(n, part_of)
