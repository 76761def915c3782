"""What keeps an interrupt or a loss of NaN from leaving a model half trained or ruined."""

from __future__ import annotations

import contextlib
import math
import signal
import threading
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Any

import numpy as np

from ..layer import Layer
from ..parameter import Parameter


class NotFiniteError(ValueError):
    """A loss or a gradient is not finite."""


class NotFiniteInputError(NotFiniteError):
    """A loss is not finite because the data are not."""


class LastGood:
    """The weights of before the latest step, to return to if the loss after it is not finite.

    Parameters and buffers are copied before each step: two passes over the weights, for the promise
    that a run that ends early leaves a model that can be used.
    """

    def __init__(self, model: Layer, parameters: Iterable[Parameter]) -> None:
        self.parameters = list(parameters)
        self.values = [parameter.data.copy() for parameter in self.parameters]
        self.owners = [
            (layer, name)
            for layer in model.layers()
            for name in layer._buffer_names
            if getattr(layer, name) is not None
        ]
        # Whether the loss was finite with the weights as they are now, and with any so far.
        self.proven = self.ever_proven = False
        self._moving = False

    @contextlib.contextmanager
    def step(self) -> Iterator[None]:
        """Context of a step; if it ends with an exception, the model is as it was before it."""
        buffers = [getattr(layer, name).copy() for layer, name in self.owners]
        self._moving = False
        try:
            yield
        except BaseException:
            for (layer, name), buffer in zip(self.owners, buffers, strict=True):
                getattr(layer, name)[...] = buffer
            if self._moving:
                self._put_back()
            raise

    def prove(self) -> None:
        """Take note that the loss was finite with the weights as they are now."""
        self.proven = self.ever_proven = True

    def keep_parameters(self) -> None:
        """Take note of the parameters, which the step is about to change."""
        for value, parameter in zip(self.values, self.parameters, strict=True):
            np.copyto(value, parameter.data)
        self.proven, self._moving = False, True

    def restore(self, error: NotFiniteError) -> str:
        """Go back to the latest weights that `error` does not speak against, and say which."""
        if isinstance(error, NotFiniteInputError):
            return "the model has the weights of before this batch"
        if not self.ever_proven:
            return "the model has the weights that the run began with"
        if not self.proven:
            self._put_back()
        return "the model has the last weights with which the loss was finite"

    def _put_back(self) -> None:
        for value, parameter in zip(self.values, self.parameters, strict=True):
            parameter.data[...] = value


class Interrupts:
    """Context in which Ctrl-C waits for the end of a step, so that no step is half done.

    Where somebody else handles the signal, or in another thread than the main one, it does nothing.
    """

    def __init__(self) -> None:
        self._holding = self._pending = self._installed = False

    def __enter__(self) -> Interrupts:
        in_main = threading.current_thread() is threading.main_thread()
        if in_main and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, self._receive)
            self._installed = True
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._installed:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            self._installed = False

    def _receive(self, signal_number: int, frame: Any) -> None:
        # Who presses it twice does not want to wait: the step under way is given up.
        if not self._holding or self._pending:
            raise KeyboardInterrupt
        self._pending = True

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Context that Ctrl-C does not interrupt, but ends with."""
        self._holding = True
        try:
            yield
        finally:
            self._holding = False
        if self._pending:
            raise KeyboardInterrupt


def check_gradients(parameters: Iterable[Parameter]) -> None:
    """Raise a NotFiniteError if a gradient has an element that is not finite."""
    for parameter in parameters:
        grad = parameter.grad
        # The sum of squares is the fast look; it may overflow where all elements are finite.
        if grad is None or math.isfinite(np.vdot(grad, grad)):
            continue
        if not np.isfinite(grad).all():
            raise NotFiniteError(
                f"the gradient of the parameter of shape {grad.shape} contains NaN or infinity"
            )
