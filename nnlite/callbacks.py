"""Callbacks: what a user wants done between the steps and epochs of `fit`.

A callback is a function, called with the `Training` after each epoch; or an object with methods of
the names in `Callback`, of which it may have any. One with a ``state_dict`` and a
``load_state_dict`` has its state in the checkpoints.
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from typing import Any

from .batches import Tally, check_state
from .checkpoint import checked_path, load_checkpoint, save_checkpoint
from .checks import integer, number, one_of
from .history import History, listed
from .layer import Array, Layer
from .optim import Optimizer

HOOKS = ("on_fit_begin", "on_resume", "on_step_end", "on_epoch_end", "on_fit_end")


class Training:
    """A run of `fit` as its callbacks see it.

    Attributes
    ----------
    model : Layer
    loss : Layer
    optimizer : Optimizer
    schedule : Schedule, ReduceLROnPlateau or None
    train : iterable
        The training data.
    history : History
        The figures of the epochs so far.
    names : tuple of str
        The names of the figures that each epoch will have.
    epochs : int
        The number of the last epoch.
    epoch : int
        The number, from 1, of the epoch that is under way or was the last to end.
    batch : int
        The number, from 1, of the batch in the epoch; 0 between epochs.
    figures : dict of str to float
        The loss and the metrics of the training data of this epoch so far.
    stopped : str or None
        Why the run is to end, if a callback has called `stop`.

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> model = nn.Sequential(nn.Linear(2, 1))
    >>> batches = [(np.ones((4, 2), np.float32), np.zeros((4, 1), np.float32))]
    >>> def report(training):
    ...     print(f"epoch {training.epoch} of {training.epochs}")
    ...     if training.epoch == 2:
    ...         training.stop("two are enough")
    >>> optimizer = nn.SGD(model.parameters(), lr=0.1)
    >>> history = nn.fit(
    ...     model, nn.MeanSquaredError(), optimizer, batches, epochs=5, callbacks=[report],
    ...     progress=False,
    ... )
    epoch 1 of 5
    epoch 2 of 5
    """

    def __init__(
        self,
        model: Layer,
        loss: Layer,
        optimizer: Optimizer,
        schedule: Any,
        train: Iterable[Any],
        history: History,
        tally: Tally,
        names: tuple[str, ...],
        epochs: int,
        callbacks: Iterable[Any],
    ) -> None:
        self.model, self.loss = model, loss
        self.optimizer, self.schedule = optimizer, schedule
        self.train, self.history, self.tally, self.names = train, history, tally, names
        self.epochs, self.epoch, self.batch = epochs, len(history.epochs), 0
        self.exhausted = False  # whether all batches of the epoch have been taken from `train`
        self.lr = optimizer.lr  # that of the latest step
        self.stopped: str | None = None
        self._callbacks = _checked(callbacks)

    @property
    def figures(self) -> dict[str, float]:
        """The loss and the metrics of the training data of this epoch so far."""
        return self.tally.figures() if self.tally.batches else {}

    def begin_epoch(self) -> bool:
        """Begin an epoch, or go on with it; return False if there is none to come."""
        # An epoch in which a callback has stopped the run still ends with its figures.
        done = len(self.history.epochs)
        if not self.batch and (self.stopped is not None or done >= self.epochs):
            return False
        self.epoch = done + 1
        return True

    def batches(self) -> Iterator[Any]:
        """Return the batches of the epoch that are still to come."""
        # A loader that has a state knows by itself where it is.
        begun = 0 if hasattr(self.train, "state_dict") else self.batch
        return itertools.islice(self.train, begun, None)

    def end_epoch(self, validation: Mapping[str, float]) -> None:
        """Put the figures of the epoch into the history."""
        if not self.tally.batches:
            raise ValueError("the training data gave no batch")
        figures = {**self.figures, **validation, "lr": self.lr}
        self.history.append({name: figures[name] for name in self.names})
        self.batch, self.exhausted = 0, False
        self.tally.reset()

    def describe(self) -> str:
        """Return the figures of the last epoch in a line."""
        figures = {name: values[-1] for name, values in self.history.items()}
        return f"epoch {self.epoch}/{self.epochs}: {listed(figures)}{self._ending()}"

    def describe_nothing(self) -> str:
        """Return in a line why there was no epoch to train."""
        epochs = len(self.history.epochs)
        return f"nothing to do: the history has {epochs} epochs already{self._ending()}"

    def _ending(self) -> str:
        return "" if self.stopped is None else f"; stopped, as {self.stopped}"

    def stop(self, reason: str) -> None:
        """Have the run end: after the step that is under way, or now between epochs.

        An epoch that is not over ends with the figures of the batches that it has had.
        """
        self.stopped = str(reason)

    def call(self, hook: str) -> None:
        """Call the method `hook` of each callback that has it; functions after each epoch."""
        for callback in self._callbacks:
            method = getattr(callback, hook, None)
            if method is not None:
                method(self)
            elif hook == "on_epoch_end" and _is_function(callback):
                callback(self)

    def state_dict(self) -> dict[str, Any]:
        """Return what `load_state_dict` needs to go on from here, with the callbacks' states."""
        return {
            "batch": self.batch,
            "exhausted": self.exhausted,
            "lr": self.lr,
            "stopped": self.stopped,
            "tally": self.tally.state_dict(),
            "history": self.history.state_dict(),
            "callbacks": [
                {"name": type(callback).__name__, "state": callback.state_dict()}
                for callback in self._stateful()
            ],
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from where `state_dict` was taken.

        Raises
        ------
        ValueError, TypeError
            If it was taken with other callbacks or metrics, or is no such state.
        """
        check_state(state_dict, self.state_dict(), "the run")
        batch = integer(state_dict["batch"], "the batch of the state", 0)
        if isinstance(self.train, Sized) and batch > len(self.train):
            raise ValueError(
                f"the state is {batch} batches into an epoch, which has {len(self.train)}"
            )
        exhausted = state_dict["exhausted"]
        if not isinstance(exhausted, bool):
            raise ValueError(f"exhausted must be True or False, got {exhausted!r:.80}")
        lr = number(state_dict["lr"], "the learning rate of the state")
        stopped = state_dict["stopped"]
        if stopped is not None and not isinstance(stopped, str):
            raise ValueError(f"stopped must be the reason or None, got {stopped!r:.80}")
        entries = state_dict["callbacks"]
        if not isinstance(entries, (list, tuple)):
            raise ValueError(f"the states of the callbacks must be a list, got {entries!r:.80}")
        for entry in entries:
            check_state(entry, {"name": "", "state": None}, "a callback")
        names = [str(entry["name"]) for entry in entries]
        wanted = [type(callback).__name__ for callback in self._stateful()]
        if names != wanted:
            raise ValueError(
                f"the checkpoint is of a run with the callbacks [{', '.join(names)}], this "
                f"one has [{', '.join(wanted)}]; resume with the callbacks that it began with"
            )
        history = History()  # that what does not fit is found before anything is changed
        history.load_state_dict(state_dict["history"])
        self.tally.load_state_dict(state_dict["tally"])
        self.history.load_state_dict(state_dict["history"])
        for callback, entry in zip(self._stateful(), entries, strict=True):
            callback.load_state_dict(entry["state"])
        self.epoch, self.batch, self.lr = len(history.epochs), batch, lr
        self.exhausted, self.stopped = exhausted, stopped

    def _stateful(self) -> list[Any]:
        return [callback for callback in self._callbacks if hasattr(callback, "state_dict")]


class Callback:
    """Base class with every method that `fit` calls, each of which does nothing.

    Deriving from it is not needed: an object with some of these methods will do, and so will a
    function, which is called after each epoch.

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> class ClampWeights(nn.Callback):
    ...     def on_step_end(self, training):
    ...         for parameter in training.model.parameters():
    ...             np.clip(parameter.data, -1, 1, out=parameter.data)
    """

    def on_fit_begin(self, training: Training) -> None:
        """Before the first epoch, and before a checkpoint is resumed."""

    def on_resume(self, training: Training) -> None:
        """After a checkpoint has been resumed, be it of a run that has ended."""

    def on_step_end(self, training: Training) -> None:
        """After each step of the optimizer."""

    def on_epoch_end(self, training: Training) -> None:
        """After each epoch, when the history has its figures."""

    def on_fit_end(self, training: Training) -> None:
        """After the last epoch; not if `fit` ends with an exception.

        The last checkpoint is saved after it. When that is resumed, `on_resume` can take back what
        was changed here, for more epochs to go on from where the last one ended.
        """


class EarlyStopping(Callback):
    """Stop when a figure has not improved for a while, and go back to the best weights.

    Parameters
    ----------
    monitor : str, default "validation_loss"
        The name of the figure in the history.
    patience : int, default 5
        After so many epochs in a row without improvement the run ends. When it is resumed with a
        larger patience, it goes on.
    min_delta : float, default 0
        An improvement is a change by more than this.
    mode : {"min", "max"}, optional
        Whether the figure should fall or rise. Names that end in "loss" fall and names that end in
        "accuracy" rise; for others it has to be given.
    restore_best : bool, default True
        Whether the model has the weights of its best epoch when `fit` returns, whether it was
        stopped or has run to its last epoch.

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
        if not isinstance(restore_best, bool):
            raise TypeError(
                f"EarlyStopping: restore_best must be True or False, got {restore_best!r}"
            )
        self.restore_best = restore_best
        self._reset()

    def _reset(self) -> None:
        self.best, self.best_epoch, self._waited = None, 0, 0
        self._reason: str | None = None
        # Those of the best epoch; or, while the model has these, those of the last.
        self._weights: dict[str, Array] | None = None
        self._swapped = False

    def on_fit_begin(self, training: Training) -> None:
        check_monitor(self.monitor, training.names, "EarlyStopping")
        self._reset()

    def on_resume(self, training: Training) -> None:
        if self._swapped:
            self._swap_weights(training.model)
        if training.stopped == self._reason and self._waited < self.patience:
            training.stopped = self._reason = None

    def on_epoch_end(self, training: Training) -> None:
        figure = float(training.history[self.monitor][-1])
        if self._improves(figure):
            self.best, self.best_epoch, self._waited = figure, training.epoch, 0
            self._weights = training.model.state_dict() if self.restore_best else None
        else:
            self._waited += 1
        if self._waited >= self.patience:
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
        """Return what `load_state_dict` needs to go on from here, with the best weights."""
        return {
            "best": self.best,
            "best_epoch": self.best_epoch,
            "waited": self._waited,
            "reason": self._reason,
            "weights": self._weights,
            "swapped": self._swapped,
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from where `state_dict` was taken."""
        best = state_dict["best"]
        self.best = None if best is None else float(best)
        self.best_epoch, self._waited = int(state_dict["best_epoch"]), int(state_dict["waited"])
        weights = state_dict["weights"]
        self._weights = None if weights is None else dict(weights)
        self._reason, self._swapped = state_dict["reason"], bool(state_dict["swapped"])


class Checkpoint:
    """Where and how often `fit` saves a checkpoint, for its argument ``checkpoint``.

    Parameters
    ----------
    path : str or path-like
        The file, which each checkpoint replaces.
    every : int, default 1
        After so many epochs; and always after the last, and once more when the callbacks have had
        their `on_fit_end`, so that the file has the model that `fit` leaves.
    every_batches : int, optional
        And within an epoch after so many batches, at the next step.

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
        self.every = integer(every, "Checkpoint: every")
        if every_batches is not None:
            every_batches = integer(every_batches, "Checkpoint: every_batches")
        self.every_batches = every_batches

    def after_step(self, training: Training, batches: int) -> None:
        """Save if it is time, after a step of so many batches."""
        every = self.every_batches
        if every is not None and training.batch // every > (training.batch - batches) // every:
            self._file(save_checkpoint, training)

    def after_epoch(self, training: Training) -> None:
        """Save if it is time, after an epoch."""
        last = training.epoch >= training.epochs or training.stopped is not None
        if last or training.epoch % self.every == 0:
            self._file(save_checkpoint, training)

    def after_fit(self, training: Training) -> None:
        """Save the model as the callbacks have left it."""
        self._file(save_checkpoint, training)

    def resume(self, training: Training) -> None:
        """Go on from the file, if there is one."""
        if os.path.exists(self.path):
            self._file(load_checkpoint, training)
            training.call("on_resume")

    def _file(self, save_or_load: Callable[..., Any], training: Training) -> None:
        loader = training.train if hasattr(training.train, "state_dict") else None
        save_or_load(
            self.path,
            model=training.model,
            loss=training.loss,
            optimizer=training.optimizer,
            schedule=training.schedule,
            loader=loader,
            training=training,
        )

    def __repr__(self) -> str:
        return f"Checkpoint({self.path!r}, every={self.every}, every_batches={self.every_batches})"


def check_monitor(monitor: str, names: tuple[str, ...], who: str) -> None:
    """Raise a ValueError if the history will have no figure of the name `monitor`."""
    if monitor not in names:
        cure = "; give fit validation data" if monitor.startswith("validation_") else ""
        raise ValueError(
            f"{who}: there is no {monitor!r} to monitor, only {', '.join(map(repr, names))}{cure}"
        )


def _rises(monitor: str) -> bool:
    return monitor.endswith("accuracy")


def _checked(callbacks: Iterable[Any]) -> list[Any]:
    """Return the callbacks, having checked that each has something that can be called."""
    if not isinstance(callbacks, Iterable) or isinstance(callbacks, str):
        raise TypeError(
            f"fit: callbacks must be a list, got {callbacks!r:.80}; write callbacks=[…]"
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
        if not hooks and not _is_function(callback):
            raise TypeError(
                f"fit: a callback must be a function or have one of the methods "
                f"{', '.join(HOOKS)}, got {callback!r:.80}"
            )
    return callbacks


def _is_function(callback: Any) -> bool:
    return callable(callback) and not any(hasattr(callback, hook) for hook in HOOKS)
