"""``Supervisor``: everything that `fit` does beside the arithmetic of its loop."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..engine.arrays import Array
from .arguments import in_training
from .batches import Batch, as_batch, averages, takes_target, weight_and_count
from .callbacks import Callback, Checkpoint
from .pace import Pace
from .progress import Progress
from .safeguards import Interrupts, LastGood, NotFiniteError, naming
from .state import Training
from .together import begin_together, weight_of_step

# Where many steps are made at a time: seconds after which Ctrl-C and the bar have their turn.
_SECONDS = 0.05


@dataclass
class Ahead:
    """The next steps, and the data that their update needs: see `Supervisor.look_ahead`.

    Attributes
    ----------
    state : object
        The state of the schedule before the first step, for `Pace.go_back`.
    stepped : int
        How often the schedule has made a step since.
    batches : list of Batch
        Without their inputs.
    numbers : list of list of float
        The numbers that the update of each step takes, such as learning rates.
    rates : list of float
        The learning rate of each step.
    """

    state: Any
    stepped: int = 0
    batches: list[Batch] = field(default_factory=list)
    numbers: list[list[float]] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)


class Supervisor:
    """Contexts and calls around the loop of `fit`: for the run, each epoch and each step.

    Parameters
    ----------
    training : Training
        The run as its callbacks see it.
    pace : Pace
        Steps the schedule.
    good : LastGood
        Undoes a step that fails.
    checkpoint : Checkpoint, optional
    resume : bool
        Whether the run continues from the checkpoint.
    progress : Progress

    Attributes
    ----------
    training : Training
    """

    def __init__(
        self,
        training: Training,
        pace: Pace,
        good: LastGood,
        checkpoint: Checkpoint | None,
        resume: bool,
        progress: Progress,
    ) -> None:
        self.training = training
        self._pace = pace
        self._good = good
        self._checkpoint, self._resume = checkpoint, resume
        self._progress = progress
        self._interrupts = Interrupts()

    @contextlib.contextmanager
    def run(self) -> Iterator[None]:
        """Context of the run: the model is in training mode; Ctrl-C waits for steps and files."""
        training, checkpoint = self.training, self._checkpoint
        quiet = np.errstate(over="ignore", invalid="ignore")  # the loss reports an overflow
        with (
            training.processes.guard(), quiet, in_training(training.model), self._interrupts
        ):  # fmt: skip
            begin_together(training)
            training.call("on_fit_begin")
            if checkpoint is not None and self._resume:
                checkpoint.resume(training)
            first = training.epoch
            yield
            trained = training.epoch > first
            if not trained:
                self._progress.print_nothing_to_do()
            training.call("on_fit_end")
            if checkpoint is not None and (trained or self._resume):
                with self._interrupts.held():
                    checkpoint.after_fit(training)

    @contextlib.contextmanager
    def epoch(self) -> Iterator[None]:
        """Context of an epoch: an error names the batch, and restores weights that are finite."""
        with naming(self._place), self._progress.epoch():
            try:
                yield
            except NotFiniteError as error:
                raise ValueError(f"{error}; {self._good.restore(error)}") from error

    def _place(self) -> str:
        batch = f", batch {self.training.batch}" if self.training.batch else ""
        return f"fit: epoch {self.training.epoch}{batch}"

    def steps(self, accumulate: int) -> Iterator[list[Batch]]:
        """Yield the batches of each step, with their numbers and the scales of their gradients."""
        training = self.training
        batches = iter(()) if training.exhausted else training.batches()
        while not training.exhausted and training.stopped is None:
            given = list(itertools.islice(batches, accumulate))
            # A checkpoint after this step has to know that the loader's epoch is over.
            training.exhausted = len(given) < accumulate
            step = []
            for item in given:
                training.batch += 1
                step.append(as_batch(item, training.loss)._replace(number=training.batch))
            total = weight_of_step(step, training.processes)
            if not step:
                break
            yield _scaled(step, total, averages(training.loss))

    @contextlib.contextmanager
    def step(self) -> Iterator[None]:
        """Context of a step: Ctrl-C waits for its end, and an exception undoes it."""
        with self._interrupts.held():
            with self._good:
                yield
                self.training.processes.average(self._good.buffers())
            self.training.lr = self.training.optimizer.lr
            self._pace.after_step()

    def measure(self, batch: Batch, predictions: Any, loss: float | None = None) -> None:
        """Compute loss and metrics of a batch, or raise an error if the loss is not finite.

        A compiled model has computed the loss already.
        """
        if self.training.tally.add(predictions, batch, loss):
            self._good.prove()

    def after_step(self, batches: int) -> None:
        """Call the callbacks, save a checkpoint if it is time, and move the bar."""
        self.training.call("on_step_end")
        if self._checkpoint is not None:
            with self._interrupts.held():
                self._checkpoint.after_step(self.training, batches)
        self._progress.advance(batches)

    # ---- many steps at a time ----

    def can_loop(self) -> bool:
        """Whether `look_ahead` and `record` can be used in place of `step` and `measure`."""
        return takes_target(self.training.loss)

    def longest_stretch(self, seconds: float) -> int:
        """Return the number of steps that may be made at a time, if each takes so long.

        It is 1 if a callback looks at each step, or if the schedule cannot take its steps back.
        Checkpoints are saved between stretches, and the optimizer flushes subnormals there.
        """
        training = self.training
        if any(getattr(method, "__func__", None) is not Callback.on_step_end
               for method in training.methods("on_step_end")):  # fmt: skip
            return 1
        if not self._pace.can_go_back():
            return 1
        longest = [int(_SECONDS / seconds), training.optimizer.steps_to_flush()]
        if self._checkpoint is not None and self._checkpoint.every_batches is not None:
            every = self._checkpoint.every_batches
            longest.append(every - training.batch % every)
        return max(1, min(longest))

    def stretch(self) -> contextlib.AbstractContextManager[None]:
        """Return a context of many steps: Ctrl-C waits for its end, the second one too."""
        return self._interrupts.held(firmly=True)

    def look_ahead(
        self, numbers: Callable[[int], list[float] | None], size: int, targets: list[Array]
    ) -> Ahead:
        """Step the schedule between the next steps, and return these steps.

        They end before a step that only the loop of `fit` can make: one without numbers, or with a
        batch in which no target counts.

        Parameters
        ----------
        numbers : callable
            ``numbers(i)`` returns those of the step after `i` others.
        size : int
            The number of samples in a batch.
        targets : list of ndarray
            The targets of all samples, and their weights if they have any.
        """
        training = self.training
        ahead = Ahead(self._pace.state())
        for start in range(0, len(targets[0]), size):
            given = [array[start : start + size] for array in targets]
            batch = Batch((), tuple(given), *weight_and_count(training.loss, *given))
            if ahead.batches:
                try:
                    self._pace.after_step()
                except Exception:  # raised again by `record`, after the step
                    break
                ahead.stepped += 1
            of_step = numbers(len(ahead.batches))
            if of_step is None or not batch.weight > 0:
                break
            ahead.numbers.append(of_step)
            ahead.rates.append(training.optimizer.lr)
            ahead.batches.append(batch)
        return ahead

    def record(
        self, ahead: Ahead, losses: list[float], outputs: Array, kept: list[tuple[Array, Array]]
    ) -> None:
        """Record the steps that were made of those that `look_ahead` has returned.

        Parameters
        ----------
        ahead : Ahead
        losses : list of float
            Those of the steps that were made.
        outputs : ndarray
            Of all of them, or empty if there are no metrics.
        kept : list of (ndarray, ndarray)
            The arrays that were moved, with copies of before the last step.
        """
        training, made = self.training, len(losses)
        if made < ahead.stepped:
            self._pace.go_back(ahead.state, made)
        if not made:
            return
        self._good.have_moved(kept)
        stop = 0
        for loss, batch, lr in zip(losses, ahead.batches, ahead.rates, strict=False):
            training.batch, training.lr = training.batch + 1, lr
            start, stop = stop, stop + len(batch.targets[0])
            training.tally.add(outputs[start:stop] if len(outputs) else None, batch, loss)
        if made > ahead.stepped:
            self._pace.after_step()

    def end_epoch(self, validation: Mapping[str, float]) -> None:
        """Put the figures of the epoch into the history, and step the schedule."""
        with self._interrupts.held():
            self.training.end_epoch(validation)
            self._pace.after_epoch()

    def after_epoch(self) -> None:
        """Call the callbacks, save a checkpoint if it is time, and print the figures."""
        self.training.call("on_epoch_end")
        if self._checkpoint is not None:
            with self._interrupts.held():
                self._checkpoint.after_epoch(self.training)
        self._progress.print_epoch()


def _scaled(step: list[Batch], total: float, mean: bool) -> list[Batch]:
    """Return the batches with the scales that make their gradients those of one batch."""
    if not total:
        return [batch._replace(scale=0.0) for batch in step]
    return [
        batch._replace(
            scale=batch.weight / total if mean else float(batch.weight != 0),
            elsewhere=not batch.weight,
        )
        for batch in step
    ]
