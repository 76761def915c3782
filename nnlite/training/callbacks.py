"""Callbacks: code that runs between the steps and epochs of `fit`.

A callback is a function, called with the `Training` after each epoch; or an object with some of the
methods of `Callback`. The state of one with ``state_dict`` and ``load_state_dict`` is part of the
checkpoints.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ..checks import boolean, integer, number, one_of
from ..engine.arrays import Array
from ..files.checkpoint import load_checkpoint, save_checkpoint
from ..files.state import checked_path
from ..hints import Hinted, call_of
from ..layer import Layer
from ..tables import options_table
from .state import HOOKS, Training, is_function
from .together import keep_generators, load_generators


class Callback(Hinted):
    """Base class: every method that `fit` calls, doing nothing.

    Deriving from it is optional: an object with some of these methods is a callback too, and so is
    a function, which is called after each epoch.

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> class ClampWeights(nn.Callback):
    ...     def on_step_end(self, training):
    ...         for parameter in training.model.parameters():
    ...             np.clip(parameter.data, -1, 1, out=parameter.data)
    """

    def __repr__(self) -> str:
        return call_of(self)

    def _repr_html_(self) -> str:
        return options_table(self)

    def on_fit_begin(self, training: Training) -> None:
        """Before the first epoch, and before a checkpoint is resumed."""

    def on_resume(self, training: Training) -> None:
        """After a checkpoint has been resumed, also that of a finished run.

        The callbacks are called in the reverse order, so that each undoes its own `on_fit_end`.
        """

    def on_step_end(self, training: Training) -> None:
        """After each step of the optimizer."""

    def on_epoch_end(self, training: Training) -> None:
        """After each epoch, when its figures are in the history."""

    def on_fit_end(self, training: Training) -> None:
        """After the last epoch; not if `fit` ends with an exception.

        The last checkpoint is saved after it. When that is resumed, `on_resume` can undo the
        changes made here, so that more epochs continue from the end of the last one.
        """


class EarlyStopping(Callback):
    """Stop when a figure has not improved for some epochs, and restore the best weights.

    Parameters
    ----------
    monitor : str, default "validation_loss"
        The name of the figure in the history.
    patience : int, default 5
        Number of epochs in a row without improvement after which the run ends. When it is resumed
        with a larger patience, it continues.
    min_delta : float, default 0
        Only a change by more than this is an improvement.
    mode : {"min", "max"}, optional
        Whether the figure should fall or rise. Names that end in "loss" fall and names that end in
        "accuracy" rise; for others it has to be given.
    restore_best : bool, default True
        Whether the model has the weights of its best epoch when `fit` returns, also if the run was
        not stopped.

    Attributes
    ----------
    best : float or None
        The best figure so far.
    best_epoch : int
        Its epoch.

    Raises
    ------
    ValueError
        If an option is out of range, or at the start of `fit` if there is no such figure.
    TypeError
        If an option is of another type.

    References
    ----------
    L. Prechelt, "Early stopping - but when?", Neural Networks: Tricks of the Trade, Springer 1998.

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> model = nn.Sequential(nn.Linear(1, 1))
    >>> x = np.ones((4, 1), np.float32)
    >>> stopping = nn.EarlyStopping(patience=2)
    >>> history = nn.fit(  # the validation data contradict the training data
    ...     model, nn.MeanSquaredError(), nn.SGD(model.parameters(), lr=0.1), [(x, x + 9)],
    ...     validation=(x, x - 9), epochs=100, callbacks=[stopping], progress=False,
    ... )
    >>> history.epochs, stopping.best_epoch
    (array([1, 2, 3]), 1)
    """

    best: float | None
    best_epoch: int

    def __init__(
        self,
        monitor: str = "validation_loss",
        patience: int = 5,
        min_delta: float = 0.0,
        mode: str | None = None,
        restore_best: bool = True,
    ) -> None:
        if not isinstance(monitor, str):
            raise TypeError(f"EarlyStopping: monitor must be the name of a figure, got {monitor!r}")
        self.monitor = monitor
        self.patience = integer(patience, "EarlyStopping: patience")
        self.min_delta = number(min_delta, "EarlyStopping: min_delta", minimum=0)
        if mode is None:
            mode = "min" if monitor.endswith("loss") else "max" if _rises(monitor) else None
        if mode is None:
            raise ValueError(
                f"EarlyStopping: say mode='min' or mode='max', whether {monitor!r} should fall "
                f"or rise"
            )
        self.mode = one_of(mode, ("min", "max"), "EarlyStopping: mode")
        self.restore_best = boolean(restore_best, "EarlyStopping: restore_best")
        self._reset()

    def _reset(self) -> None:
        self.best, self.best_epoch, self._waited = None, 0, 0
        self._reason: str | None = None
        # The weights of the best epoch; while the model has them, those of the last epoch.
        self._weights: dict[str, Array] | None = None
        self._swapped = False

    def _repr_html_(self) -> str:
        return options_table(self, best=self.best, best_epoch=self.best_epoch)

    def on_fit_begin(self, training: Training) -> None:
        check_monitor(self.monitor, training.names, "EarlyStopping")
        self._reset()

    def on_resume(self, training: Training) -> None:
        if self._swapped:
            self._swap_weights(training.model)
        # Decide anew, with the patience of this run.
        if training.stopped == self._reason:
            training.stopped = None
        self._reason = None
        if self._waited >= self.patience and training.stopped is None:
            self._stop(training)

    def on_epoch_end(self, training: Training) -> None:
        figure = float(training.history[self.monitor][-1])
        if self._improves(figure):
            self.best, self.best_epoch, self._waited = figure, training.epoch, 0
            self._weights = training.model.state_dict() if self.restore_best else None
        else:
            self._waited += 1
        if self._waited >= self.patience:
            self._stop(training)

    def _stop(self, training: Training) -> None:
        best = ""
        if self.best is not None:
            best = f", since it was {self.best:.4g} in epoch {self.best_epoch}"
        self._reason = f"{self.monitor} has not improved for {self._waited} epochs{best}"
        training.stop(self._reason)

    def on_fit_end(self, training: Training) -> None:
        self._swap_weights(training.model)

    def _swap_weights(self, model: Layer) -> None:
        if self._weights is not None:
            weights = model.state_dict()
            model.load_state_dict(self._weights)
            self._weights, self._swapped = weights, not self._swapped

    def _improves(self, figure: float) -> bool:
        if math.isnan(figure):
            return False
        if self.best is None:
            return True
        if self.mode == "min":
            return figure < self.best - self.min_delta
        return figure > self.best + self.min_delta

    def state_dict(self) -> dict[str, Any]:
        """Return the state, with the best weights, for `load_state_dict`."""
        return {
            "monitor": self.monitor,
            "mode": self.mode,
            "best": self.best,
            "best_epoch": self.best_epoch,
            "waited": self._waited,
            "reason": self._reason,
            "weights": self._weights,
            "swapped": self._swapped,
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restore a state.

        Raises
        ------
        ValueError
            If it is of another figure or mode.
        """
        for name in ("monitor", "mode"):
            here, saved = getattr(self, name), state_dict.get(name)
            if saved not in (None, here):  # earlier versions did not save them
                raise ValueError(
                    f"EarlyStopping: the state is of {name}={saved!r:.80}, this one has {here!r}"
                )
        best = state_dict["best"]
        self.best = None if best is None else float(best)
        self.best_epoch, self._waited = int(state_dict["best_epoch"]), int(state_dict["waited"])
        weights = state_dict["weights"]
        self._weights = None if weights is None else dict(weights)
        self._reason, self._swapped = state_dict["reason"], bool(state_dict["swapped"])


class Checkpoint(Hinted):
    """The file and the interval of the checkpoints of `fit`, for its argument ``checkpoint``.

    Parameters
    ----------
    path : str or path-like
        The file, which each checkpoint replaces. A relative path is relative to the working
        directory at this moment; changing the directory later does not move the file.
    every : int, default 1
        Interval in epochs. A checkpoint is also saved after the last epoch, and once more after the
        callbacks' `on_fit_end`, so that the file has the model that `fit` leaves.
    every_batches : int, optional
        Interval in batches within an epoch; the checkpoint is saved at the next step.

    Raises
    ------
    ValueError
        If a number is below 1, or if the name of the file does not end in ``.npz``.

    Examples
    --------
    >>> import nnlite as nn
    >>> nn.Checkpoint("run.npz", every_batches=1000)
    Checkpoint('run.npz', every=1, every_batches=1000)
    """

    def __init__(
        self, path: str | os.PathLike[str], every: int = 1, every_batches: int | None = None
    ) -> None:
        self.path = checked_path(path, "Checkpoint")
        self.file = os.path.abspath(self.path)
        self.every = integer(every, "Checkpoint: every")
        if every_batches is not None:
            every_batches = integer(every_batches, "Checkpoint: every_batches")
        self.every_batches = every_batches

    def after_step(self, training: Training, batches: int) -> None:
        """Save if the interval has passed, after a step of this number of batches."""
        every = self.every_batches
        if every is not None and training.batch // every > (training.batch - batches) // every:
            self._save(training)

    def after_epoch(self, training: Training) -> None:
        """Save if the interval has passed or the run is over, after an epoch."""
        last = training.epoch >= training.epochs or training.stopped is not None
        if last or training.epoch % self.every == 0:
            self._save(training)

    def after_fit(self, training: Training) -> None:
        """Save the model as the callbacks have left it."""
        self._save(training)

    def resume(self, training: Training) -> None:
        """Continue from the file, if it exists."""
        processes = training.processes
        if processes.broadcast(os.path.exists(self.file)):
            processes.call(lambda: self._file(load_checkpoint, training))
            load_generators(training)
            training.call("on_resume")

    def _save(self, training: Training) -> None:
        """Save in the process of rank 0, for all."""
        keep_generators(training)
        training.processes.call(
            lambda: self._file(save_checkpoint, training) if not training.processes.rank else None
        )

    def _file(self, save_or_load: Callable[..., Any], training: Training) -> None:
        loader = training.train if hasattr(training.train, "state_dict") else None
        save_or_load(
            self.file,
            model=training.model,
            loss=training.loss,
            optimizer=training.optimizer,
            schedule=training.schedule,
            loader=loader,
            training=training,
        )

    def __repr__(self) -> str:
        return f"Checkpoint({self.path!r}, every={self.every}, every_batches={self.every_batches})"

    def _repr_html_(self) -> str:
        return options_table(self)


def check_monitor(monitor: str, names: tuple[str, ...], who: str) -> None:
    """Raise a ValueError if the history will have no figure of the name `monitor`."""
    if monitor not in names:
        cure = "; give fit validation data" if monitor.startswith("validation_") else ""
        raise ValueError(
            f"{who}: there is no {monitor!r} to monitor, only {', '.join(map(repr, names))}{cure}"
        )


def _rises(monitor: str) -> bool:
    return monitor.endswith("accuracy")


def checked_callbacks(callbacks: Iterable[Any]) -> list[Any]:
    """Return the callbacks, having checked that each has a method that is called."""
    if not isinstance(callbacks, Iterable) or isinstance(callbacks, str):
        raise TypeError(
            f"fit: callbacks must be a list, got {callbacks!r:.80}; write callbacks=[...]"
        )
    callbacks = list(callbacks)
    for callback in callbacks:
        if isinstance(callback, type):
            raise TypeError(
                f"fit: a callback must be an object, got the class {callback.__name__}; "
                f"write {callback.__name__}()"
            )
        if isinstance(callback, Checkpoint):
            raise TypeError(
                "fit: a Checkpoint is no callback, as it is saved after all of them; "
                "give it as checkpoint="
            )
        hooks = [name for name in dir(callback) if name.startswith("on_")]
        unknown = [name for name in hooks if name not in HOOKS]
        if unknown:
            raise ValueError(
                f"fit: nothing calls {unknown[0]} of the callback {type(callback).__name__}; "
                f"the methods of a callback are {', '.join(HOOKS)}"
            )
        if hasattr(callback, "state_dict") and not hasattr(callback, "load_state_dict"):
            raise TypeError(
                f"fit: the callback {type(callback).__name__} has a state_dict, but no "
                f"load_state_dict to resume with"
            )
        if not hooks and not is_function(callback):
            raise TypeError(
                f"fit: a callback must be a function or have one of the methods "
                f"{', '.join(HOOKS)}, got {callback!r:.80}"
            )
    return callbacks
