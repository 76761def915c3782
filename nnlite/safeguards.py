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

from .layer import Layer, Parameter


class NotFiniteError(ValueError):
    """A loss or a gradient is not finite."""


class NotFiniteInputError(NotFiniteError):
    """A loss is not finite because the data are not."""


class LastGood:
    """The weights of before the latest step, to return to if the loss after it is not finite.

    Parameters and buffers are copied before each step. That takes some hundredths of the time of
    the step itself, for the promise that a run that diverges leaves a model that can be used.
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
        # Whether the loss was finite with the weights as they are now.
        self.proven = False
        self.keep_buffers()

    def keep_buffers(self) -> None:
        """Take note of the buffers, which a forward changes."""
        self.buffers = [getattr(layer, name).copy() for layer, name in self.owners]

    def keep_parameters(self) -> None:
        """Take note of the parameters, which a step is about to change."""
        for value, parameter in zip(self.values, self.parameters, strict=True):
            np.copyto(value, parameter.data)
        self.proven = False

    def restore(self, error: NotFiniteError) -> None:
        """Go back to the latest weights that `error` does not speak against."""
        for (layer, name), buffer in zip(self.owners, self.buffers, strict=True):
            getattr(layer, name)[...] = buffer
        if not self.proven and not isinstance(error, NotFiniteInputError):
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
        # Who presses it twice does not want to wait.
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
            self._pending = False
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
