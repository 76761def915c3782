"""``Training``: a run of `fit` as its callbacks see it."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sized
from typing import Any

from ..checks import integer, number
from ..layer import Layer
from ..optim.base import Optimizer
from ..processes import Processes
from .history import History, columns
from .tally import Tally, check_state
from .terms import check_terms

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
        The number, from 1, of the current epoch; between epochs, of the last one.
    batch : int
        The number, from 1, of the current batch in the epoch; 0 between epochs.
    figures : dict of str to float
        The loss and the metrics of the training data of this epoch so far.
    stopped : str or None
        The reason to end the run, if a callback has called `stop`.

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
        self.terms: dict[str, Any] = {}  # what a run that resumes this one must have too
        # Of several processes, the states of their random generators at a checkpoint.
        self.generators: list[Any] = []
        self._callbacks = list(callbacks)

    @property
    def processes(self) -> Processes:
        """The processes that train the model together."""
        return self.optimizer.processes

    @property
    def figures(self) -> dict[str, float]:
        """The loss and the metrics of the training data of this epoch so far."""
        return self.tally.figures() if self.tally.batches else {}

    def begin_epoch(self) -> bool:
        """Begin or continue an epoch; return False if the run is over."""
        # An epoch in which a callback has stopped the run still ends with its figures.
        done = len(self.history.epochs)
        if not self.batch and (self.stopped is not None or done >= self.epochs):
            return False
        self.epoch = done + 1
        return True

    def batches(self) -> Iterator[Any]:
        """Return the batches of the epoch that are still to come."""
        # A loader with a state continues where it was.
        begun = 0 if hasattr(self.train, "state_dict") else self.batch
        return itertools.islice(self.train, begun, None)

    def end_epoch(self, validation: Mapping[str, float]) -> None:
        """Put the figures of the epoch into the history."""
        if not self.tally.batches:
            raise ValueError("the training data gave no batch")
        if not self.tally.weight:
            raise ValueError("every target of the training data is ignored or has no weight")
        figures = {**self.figures, **validation, "lr": self.lr}
        self.history.append({name: figures[name] for name in self.names})
        self.batch, self.exhausted = 0, False
        self.tally.reset()

    def describe(self, seconds: float) -> str:
        """Return the figures of the last epoch, which took so long, in a line of columns."""
        figures = {name: values[-1] for name, values in self.history.items()}
        number = f"{self.epoch:{len(str(self.epochs))}}/{self.epochs}"
        return f"epoch {number}  {columns(figures)} {seconds:5.1f} s{self._ending()}"

    def describe_nothing(self) -> str:
        """Return in a line why there was no epoch to train."""
        epochs = len(self.history.epochs)
        return f"nothing to do: the history has {epochs} epochs already{self._ending()}"

    def _ending(self) -> str:
        return "" if self.stopped is None else f"; stopped, as {self.stopped}"

    def stop(self, reason: str) -> None:
        """End the run after the current step, or at once between epochs.

        An unfinished epoch ends with the figures of the batches so far.
        """
        self.stopped = str(reason)

    def methods(self, hook: str) -> list[Any]:
        """Return the method `hook` of each callback that has it."""
        methods = [getattr(callback, hook, None) for callback in self._callbacks]
        return [method for method in methods if method is not None]

    def call(self, hook: str) -> None:
        """Call the method `hook` of each callback that has it; functions after each epoch.

        ``on_resume`` undoes ``on_fit_end``, and is therefore called in the reverse order.
        """
        for callback in self._callbacks[::-1] if hook == "on_resume" else self._callbacks:
            method = getattr(callback, hook, None)
            if method is not None:
                method(self)
            elif hook == "on_epoch_end" and is_function(callback):
                callback(self)
        if self.processes.size > 1:  # a callback may have stopped the run in one of them
            self.stopped = next(filter(None, self.processes.gather(self.stopped)), None)

    def state_dict(self) -> dict[str, Any]:
        """Return the state, with those of the callbacks, for `load_state_dict`."""
        return {
            "batch": self.batch,
            "exhausted": self.exhausted,
            "lr": self.lr,
            "stopped": self.stopped,
            "terms": self.terms,
            "tally": self.tally.state_dict(),
            "history": self.history.state_dict(),
            "generators": self.generators,
            "callbacks": [
                {"name": type(callback).__name__, "state": callback.state_dict()}
                for callback in self._stateful()
            ],
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restore a state; the optimizer has loaded its own.

        Raises
        ------
        ValueError, TypeError
            If it was taken with other callbacks, metrics or options, or is no such state.
        """
        names = self.state_dict()
        for name in ("terms", "generators"):  # earlier versions did not save them
            del names[name]
        check_state(state_dict, names, "the run")
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
        if state_dict.get("terms") and self.terms:
            check_terms(state_dict["terms"], self.terms, self.optimizer)
        states = self._checked_states(state_dict["callbacks"])
        history = History()  # finds what does not fit before anything is changed
        history.load_state_dict(state_dict["history"])
        self.tally.load_state_dict(state_dict["tally"])
        self.history.load_state_dict(state_dict["history"])
        for callback, state in zip(self._stateful(), states, strict=True):
            callback.load_state_dict(state)
        self.epoch, self.batch, self.lr = len(history.epochs), batch, lr
        self.exhausted, self.stopped = exhausted, stopped
        self.generators = state_dict.get("generators") or []
        self.terms = state_dict.get("terms") or self.terms  # those that the run began with

    def _checked_states(self, entries: Any) -> list[Any]:
        """Return the states of the callbacks, having checked that they are of these callbacks."""
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
        return [entry["state"] for entry in entries]

    def _stateful(self) -> list[Any]:
        return [callback for callback in self._callbacks if hasattr(callback, "state_dict")]


def is_function(callback: Any) -> bool:
    """Whether a callback is a plain function, called at the end of every epoch."""
    return callable(callback) and not any(hasattr(callback, hook) for hook in HOOKS)
