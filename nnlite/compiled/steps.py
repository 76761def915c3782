"""A training step as one native function, or as one for the gradients and one for the update."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

import nnlite as nn

from ..changes import changes
from ..engine.arrays import Array
from ..engine.blas import share
from .gradients import LossProgram, Passes
from .native import is_of_handler
from .optimizers import Update
from .programs import OutdatedError
from .source import BATCH, Value, used

# Bytes of parameters, gradients and state from which on threads move them sooner than one does.
# `share` begins with fewer, which does not pay here.
_SHARED = 1 << 23


class StepProgram(LossProgram):
    """The function ``step`` of a model, its loss and its optimizer."""

    _keeps = False  # whether a step copies what it moves
    # Of the function's arrays: the statements by which they are parts of the optimizer's.
    _flat: Mapping[str, str] = {}

    def __init__(
        self,
        passes: Passes,
        native: bool,
        optimizer: nn.Optimizer,
        max_norm: float | None,
    ) -> None:
        self._optimizer = optimizer
        self._max_norm = max_norm
        self._seen_gradients: object = object()  # of `changes`, when `fits` was true
        super().__init__(passes, native)

    def _assemble(self, model: nn.Layer, loss: nn.Layer, given: Sequence[Value]) -> None:
        code = self.code
        self._gather()
        self._flat = self._parts_of_flat_arrays()
        update = "\n" + code.resolved("\n".join(self._update.lines))
        lines = [*code.forward, *code.backward, update, *code.commits, "return loss"]
        lines = [*[self._flat[name] for name in used(self._flat, lines)], *lines]
        doc = "Make a training step, and return the loss before it."
        names = [*[x.name for x in given], *code.per_call]
        self.define("step", names, lines, doc, self._update.names)
        kind = type(self._optimizer).__name__
        self.finish(f"Compiled step of {model.label} with {loss.label} and {kind}")

    def _gather(self) -> None:
        """Make a gradient for each parameter, and write the update of all that have one."""
        self._optimizer.zero_grad()
        for parameter in self.code.trained.values():
            parameter.accumulate(np.zeros_like(parameter.data))
        runs = self._optimizer.runs()
        self._update = Update(self._optimizer, runs, self._max_norm, self._keeps)

    def is_current(self, evaluates: bool | None) -> bool:
        return (
            changes.gradients is self._seen_gradients
            and LossProgram.is_current(self, evaluates)  # quicker than super()
            and self._update.is_current()
        )

    def fits(self) -> bool:
        self._seen_gradients = changes.gradients
        return self._update.fits() and super().fits()

    def bindings(self) -> dict[str, Any]:
        grads = {name: parameter.grad for name, parameter in self.code.trained.items()}
        return grads | self._update.arrays

    def places(self) -> list[tuple[Any, str]]:
        # Those that are frozen, or of another model, are to have no gradient.
        parameters = dict.fromkeys([*self.code.trained.values(), *self._optimizer.parameters()])
        return [*super().places(), *((parameter, "grad") for parameter in parameters)]

    def _parts_of_flat_arrays(self) -> dict[str, str]:
        """Return the statements by which arrays are parts of those that the optimizer moves.

        A call takes time for each array that it is given.
        """
        places = {name: getattr(*place) for name, place in self.code.arrays.items()}
        arrays = places | {name: p.grad for name, p in self.code.trained.items()}
        flat = [item for item in self._update.arrays.items() if item[0].endswith(("value", "grad"))]
        found = {}
        for name, array in arrays.items():
            for of_flat, whole in flat:
                start = _place_within(whole, array)
                if start is not None:
                    sizes = ", ".join(map(str, array.shape))
                    found[name] = f"{name!s} = part({of_flat}, {start}, {sizes})"
        return found

    def bound_names(self) -> list[str]:
        return [name for name in super().bound_names() if name not in self._flat]

    def bind_anew(self) -> None:
        if self._flat and self._flat != self._parts_of_flat_arrays():
            raise OutdatedError
        super().bind_anew()

    def bind(self) -> None:
        if not self._arrays.are_same() or self._update.is_overtaken():
            lines = self._update.lines
            self._gather()
            if self._update.lines != lines:  # the optimizer's flat arrays are in other pieces
                raise OutdatedError
            self.bind_anew()

    @property
    def kept(self) -> list[tuple[Array, Array]]:
        """The arrays that a step moves, each with a copy of what it was before the last step."""
        return self._update.kept

    def is_whole(self) -> bool:
        """Whether a step is all of it: of one output, and every gradient is the optimizer's."""
        moved = {id(parameter) for parameter in self._optimizer.parameters()}
        (output, *others) = self.outputs
        is_one = not others and output.shape[:1] == (BATCH,)
        return is_one and all(id(parameter) in moved for parameter in self.code.trained.values())

    def numbers(self, ahead: int) -> list[float] | None:
        """Return the numbers of the step after `ahead` others, with the options as they are now.

        None if the source is of other options.
        """
        return self._update.numbers(ahead) if self._update.fits() else None

    def step(self, values: Sequence[Any], n: int) -> float:
        """Make a step; return the loss before it."""
        update = self._update
        numbers = update.numbers()
        # Ctrl-C in machine code is raised when it has ended: the step was made, and must count.
        update.advance()
        try:
            return float(self.call("step", n, values, numbers))
        except BaseException as error:
            if not self._was_made(error, "step"):
                self._optimizer.take_back()  # after which the update is not current
            raise

    def _was_made(self, error: BaseException, name: str) -> bool:
        """Whether a function of machine code has ended before an error was raised."""
        return self._functions.is_compiled(name) and is_of_handler(error)


def _place_within(whole: Array, array: Array) -> int | None:
    """Return the place in a flat array at which another array begins; None if it is elsewhere."""
    if array.dtype != whole.dtype or not array.ndim or not array.flags.c_contiguous:
        return None
    first, start = (each.__array_interface__["data"][0] for each in (whole, array))
    is_part = first <= start and start + array.nbytes <= first + whole.nbytes
    return (start - first) // whole.itemsize if is_part else None


class DividedStepProgram(StepProgram):
    """A step whose gradients are computed for chunks of the batch, and by several threads.

    The function ``gradients`` computes them, and ``update`` moves the parameters.
    """

    def _assemble(self, model: nn.Layer, loss: nn.Layer, given: Sequence[Value]) -> None:
        self._gather()
        self._define_gradients(given)
        if self._keeps:
            lines = [*self._update.checks, "return True"]
            self.define("are_finite", [], lines, "Return whether all gradients are finite.")
        lines = [self.code.resolved("\n".join(self._update.lines))]
        self.define("update", [], lines, "Move the parameters.", self._update.names)
        kind = type(self._optimizer).__name__
        self.finish(f"Compiled step of {model.label} with {loss.label} and {kind}")

    def step(self, values: Sequence[Any], n: int) -> float:
        loss, _ = self._computed(n, self._part_of(values, n))
        self._move(n, self._update.numbers())
        return loss

    def _move(self, n: int, numbers: Sequence[float]) -> None:
        """Move the parameters and the buffers, by what was computed last for n samples.

        Threads move parts of many parameters, unless all gradients are clipped together.
        """
        arrays = self._bound["update"]
        length = max(map(len, arrays), default=1)

        def update(start: int, stop: int) -> None:
            parts = [a[len(a) * start // length : len(a) * stop // length] for a in arrays]
            self.call("update", n, [], numbers, parts)

        size = sum(array.nbytes for array in arrays)
        self._update.advance()  # before, as in `StepProgram.step`
        try:
            if "update" in self._compiled and self._max_norm is None and size >= _SHARED:
                share(update, length, size)
            else:
                update(0, length)
                self._compiled.add("update")
        except BaseException as error:
            if self._was_made(error, "update"):
                self._commit(n)
            else:
                self._optimizer.take_back()
            raise
        self._commit(n)
