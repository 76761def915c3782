"""The parts of `fit` that are compiled."""

from __future__ import annotations

import math
import time
from typing import Any, TypeGuard

import numpy as np

import nnlite as nn

from ..engine.arrays import Array
from ..modes import no_grad
from ..random import generator_state, load_generator_state, unmoved
from ..training.batches import Batch
from ..training.supervisor import Supervisor
from ..training.together import generators_of
from . import programs
from .compile import CompiledModel, Gradients, _check, as_batch_of
from .epochs import DividedEpochProgram, EpochProgram
from .gradients import write_passes
from .layers.containers import check_forms
from .optimizers import CompiledUpdate
from .source import FixedBatchError
from .steps import StepProgram

# Those of arrays that machine code reads.
_DTYPES = {np.dtype(code) for code in "?fd" + np.typecodes["AllInteger"]}


class CompiledFit:
    """Passes through a model and its loss, and the step of the optimizer, as native functions.

    Attributes
    ----------
    model : CompiledModel
        For validation.
    step : callable
        Moves the parameters as the optimizer's ``step`` does after ``synchronize``.
    """

    def __init__(
        self,
        model: nn.Layer,
        loss: nn.Layer,
        optimizer: nn.Optimizer,
        max_norm: float | None,
        native: bool = True,
    ) -> None:
        check_forms(model, loss, optimizer)
        self.model = CompiledModel(model, native)
        self._gradients = Gradients(model, loss, native)
        self.step = CompiledUpdate(optimizer, native)

        def build(batch: programs.Batch, n: int, free: bool) -> StepProgram:
            if not free:
                raise FixedBatchError
            made = _check(batch, model, loss)
            passes = write_passes(model, loss, batch, n, free, made)
            kind = DividedEpochProgram if passes.is_divided else EpochProgram
            return kind(passes, native, optimizer, max_norm)

        self._epochs = programs.Programs(build)
        self._can_loop = True
        self._seconds = math.inf  # of a step, as measured last

    def passes(self, batch: Batch) -> tuple[Array, float]:
        """Add the gradients of a batch, with its scale, to those of the parameters.

        Return the output of the model and the loss.
        """
        try:
            given = as_batch_of(self._gradients, batch.inputs, *batch.targets)
            loss, output = self._gradients.passes(given, batch.scale)
        except ValueError:
            with no_grad():  # the batch knows what is not finite
                batch.loss_of(self._gradients.loss, self._gradients.model(*batch.inputs))
            raise
        return output, loss

    def make_steps(self, supervisor: Supervisor) -> None:
        """Make steps of an epoch in native calls of many steps each, as far as that is possible.

        The loop of `fit` makes those that are left, from one that fails on, and raises its error.
        """
        loader = supervisor.training.train
        if not (self._can_loop and supervisor.can_loop() and _is_plain(loader)):
            return
        epoch = loader.begin()
        try:
            self._make_steps(supervisor, loader, epoch)
            if supervisor.training.stopped is None:
                loader.hand_over(epoch)
        finally:
            loader.leave(epoch)

    def _make_steps(self, supervisor: Supervisor, loader: nn.DataLoader, epoch: Any) -> None:
        training, size = supervisor.training, loader.batch_size
        data = programs.Batch(loader.arrays, loader.inputs)
        has_metrics = bool(training.tally.metrics)
        while epoch.batches < len(loader) and training.stopped is None:
            program = self._program(data, size)
            if program is None:
                break
            left = len(loader) - epoch.batches
            count = min(left, supervisor.longest_stretch(self._seconds))
            generators: list[Any] = []
            if program.code.per_call:  # something is drawn for each step, such as dropout
                count, generators = 1, generators_of(training)
            states = [generator_state(rng) for rng in generators]
            order = loader.order_of(epoch, count)
            if math.isinf(self._seconds):
                with unmoved(generators):
                    program.prepare(size, order, data)
            with supervisor.stretch():
                begun = time.perf_counter()
                targets = [array[order] for array in loader.arrays[loader.inputs :]]
                ahead = supervisor.look_ahead(program.numbers, size, targets)
                losses, outputs = program.steps(size, order, data, ahead.numbers, has_metrics)
                made = len(losses)
                epoch.batches += made
                supervisor.record(ahead, losses, outputs, program.kept)
                self._seconds = (time.perf_counter() - begun) / max(1, made)
            if made:
                supervisor.after_step(made)
            if made < count:
                for rng, state in zip(generators, states, strict=True):
                    load_generator_state(rng, state)
                break

    def _program(self, data: programs.Batch, size: int) -> Any:
        """Return the program for batches of this size, or None if there is none."""
        sample = programs.Batch([array[:size] for array in data.arrays], data.inputs)
        try:
            program, _ = self._epochs.find(sample)
        except (FixedBatchError, TypeError, ValueError):
            self._can_loop = False  # the loop of `fit` has the message
            return None
        return program if program.is_whole() else None


def _is_plain(loader: Any) -> TypeGuard[nn.DataLoader]:
    """Whether the batches of a loader are those of its arrays, which native code can read."""
    return (
        isinstance(loader, nn.DataLoader)
        and type(loader).__iter__ is nn.DataLoader.__iter__
        and loader.transform is None
        and loader.shard.size == 1
        and all(array.flags.carray and array.dtype in _DTYPES for array in loader.arrays)
    )
