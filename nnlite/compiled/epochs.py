"""Training with many batches of a data set as one native function."""

from __future__ import annotations

import contextlib
import textwrap
from collections.abc import Sequence

import numpy as np

import nnlite as nn

from ..engine.arrays import Array
from .programs import StepProgram
from .source import BATCH, Value, fixed, function, nest, product, used


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
        lines += [
            f"if not math.isfinite(np.dot({name}, {name})):\n    return"
            for name in update.arrays
            if name.endswith("_grad")
        ]
        lines += [
            code.resolved(f"{name} = {numbers}[{batch}, {place}]")
            for place, name in enumerate(update.names)
        ]
        lines += [code.resolved("\n".join(update.lines)), *code.commits]
        width = product(fixed(self.output.shape, 1))
        copy = f"{outputs}[{start} * {width} + i] = {self.output}[i]"
        record = [
            f"{losses}[{batch}] = loss",
            f"if {outputs}.size:\n{textwrap.indent(nest({'i': self.output.size}, copy), '    ')}",
            f"{made}[0] += 1",
        ]
        lines.append(code.resolved("\n".join(record)))
        body = "\n".join(lines)
        loop = [f"for {batch!s} in range({losses!s}.size):\n{textwrap.indent(body, '    ')}"]
        per_call = used(code.per_call, lines)
        arguments = [str(a) for a in (size, order, made, numbers, losses, outputs, *data)]
        arguments += per_call
        bound = used([*code.arrays, *self.bindings()], loop)
        doc = "Make steps with the batches of the samples in `order`, as long as they are finite."
        self._arguments["steps"] = per_call, bound
        self._texts.append(function("steps", [*arguments, *bound], loop, doc))
        kind = type(self._optimizer).__name__
        self.finish(f"Training of {model.label} with {loss.label} and {kind}")

    @property
    def kept(self) -> list[tuple[Array, Array]]:
        """The arrays that a step moves, each with a copy of what it was before the last step."""
        return self._update.kept

    def can_run(self, n: int) -> bool:
        """Whether a step with a batch of `n` samples is this function, on one thread."""
        moved = {id(parameter) for parameter in self._optimizer.parameters()}
        return (
            self.output.shape[:1] == (BATCH,)
            and all(id(parameter) in moved for parameter in self.code.trained.values())
            and len(self.bounds(n)) == 1
        )

    @property
    def is_single(self) -> bool:
        """Whether a call makes one step, since something is drawn for each, such as dropout."""
        return bool(self.code.per_call)

    def numbers(self, ahead: int) -> list[float] | None:
        """Return the numbers of the step after `ahead` others, with the options as they are now.

        None if the source is of other options.
        """
        return self._update.numbers(ahead) if self._update.fits() else None

    def steps(
        self,
        size: int,
        order: Array,
        data: Sequence[Array],
        numbers: Sequence[list[float]],
        with_outputs: bool,
    ) -> tuple[list[float], Array]:
        """Make steps; return the losses of those that were made, and the outputs of the model.

        Parameters
        ----------
        size : int
            The number of samples in a batch.
        order : ndarray of int64
            The samples of the batches.
        data : sequence of ndarray
            The arrays of the data set, contiguous.
        numbers : sequence of list of float
            Those of each step, as the method `numbers` returns them.
        with_outputs : bool
            Whether the outputs are asked for; there are none otherwise.
        """
        made, losses = np.zeros(1, np.int64), np.empty(len(numbers))
        shape = fixed(self.output.shape, len(order) if with_outputs else 0)
        outputs = np.empty(shape, self.code.dtype)
        rates = np.array(numbers, np.float64).reshape(len(numbers), len(self._update.names))
        arrays = [outputs.reshape(-1), *(array.reshape(-1) for array in data)]
        arrays += [self.code.per_call[name](len(order)) for name in self._arguments["steps"][0]]
        with contextlib.suppress(ValueError):  # the uncompiled model has the message
            self._run("steps", size, order, made, rates, losses, *arrays, *self._bound["steps"])
        for _ in range(made[0]):
            self._update.advance()
        return losses[: made[0]].tolist(), outputs
