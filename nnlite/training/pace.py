"""``Pace``: when a run of `fit` calls the ``step`` of its learning-rate schedule."""

from __future__ import annotations

import warnings
from typing import Any

from ..checks import one_of
from ..optim.schedules import OneCycleLR, Schedule, SequentialLR
from .callbacks import check_monitor
from .state import Training


class Pace:
    """Steps the schedule of a run after each step of the optimizer or after each epoch.

    Parameters
    ----------
    training : Training
    every : {"epoch", "step"}
    monitor : str, optional
        The figure that a `ReduceLROnPlateau` gets.

    Raises
    ------
    TypeError, ValueError
        If the schedule, the optimizer and these options do not fit together.
    """

    def __init__(self, training: Training, every: str, monitor: str | None) -> None:
        self.every = one_of(every, ("epoch", "step"), "fit: schedule_every")
        self.monitor = monitor
        self._training = training
        self._schedule = schedule = training.schedule
        self._of_steps = schedule if every == "step" else None
        if monitor is not None and (schedule is None or isinstance(schedule, Schedule)):
            raise ValueError(
                f"fit: monitor={monitor!r} is for a ReduceLROnPlateau, got "
                f"schedule={schedule!r:.80}"
            )
        if schedule is None:
            return
        if isinstance(schedule, type) or not hasattr(schedule, "step"):
            raise TypeError(
                f"fit: expected a schedule such as StepLR(optimizer, ...), got {schedule!r}"
            )
        if schedule.optimizer is not training.optimizer:
            raise ValueError("fit: the schedule is of another optimizer than the one that is given")
        if not isinstance(schedule, Schedule):
            self._check_figures()
        elif every == "epoch":
            self._warn_of_long_cycles()

    def can_go_back(self) -> bool:
        """Whether `go_back` can undo `after_step`."""
        # The state of a class with a step of its own may not be all that it has.
        return self._of_steps is None or type(self._of_steps).step is Schedule.step

    def state(self) -> Any:
        """Return the state, for `go_back`."""
        return None if self._of_steps is None else self._of_steps.state_dict()

    def go_back(self, state: Any, steps: int) -> None:
        """Go back to the state that `state` returned, and make this number of steps from there."""
        if self._of_steps is not None:
            self._of_steps.load_state_dict(state)
        for _ in range(steps):
            self.after_step()

    def after_step(self) -> None:
        """Step a schedule that counts steps of the optimizer."""
        if self._of_steps is not None:
            self._of_steps.step()

    def after_epoch(self) -> None:
        """Step a schedule that counts epochs."""
        if self._schedule is None or self.every == "step":
            return
        if isinstance(self._schedule, Schedule):
            self._schedule.step()
        else:
            self._schedule.step(self._training.history[str(self.monitor)][-1])

    def _check_figures(self) -> None:
        """Check that a schedule such as `ReduceLROnPlateau` gets the figure that it needs."""
        name = type(self._schedule).__name__
        if self.every == "step":
            raise ValueError(
                f"fit: {name} needs the figures of whole epochs; use schedule_every='epoch'"
            )
        names = self._training.names
        if self.monitor is None:
            self.monitor = "validation_loss" if "validation_loss" in names else "loss"
        check_monitor(self.monitor, names, f"fit: {name}")

    def _warn_of_long_cycles(self) -> None:
        """Warn if a cycle of steps is stepped once an epoch, and does not get to its end."""
        epochs = self._training.epochs
        schedule = self._schedule
        for part in schedule.schedulers if isinstance(schedule, SequentialLR) else [schedule]:
            if isinstance(part, OneCycleLR) and part.total_steps > epochs:
                warnings.warn(
                    f"fit: OneCycleLR has total_steps={part.total_steps}, but is stepped after "
                    f"each of {epochs} epochs; use schedule_every='step' if it counts batches",
                    UserWarning,
                    stacklevel=5,
                )
