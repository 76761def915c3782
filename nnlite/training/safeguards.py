"""Safeguards of a run: an interrupt or a loss of NaN must not leave a half-trained model."""

from __future__ import annotations

import contextlib
import math
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from ..engine.arrays import Array
from ..engine.blas import vdot
from ..layer import Layer
from ..parameter import Parameter


class NotFiniteError(ValueError):
    """A loss or a gradient is not finite."""


class NotFiniteInputError(NotFiniteError):
    """A loss is not finite because the data are not."""


class LastGood:
    """Context of each step, which an exception undoes; and the weights of before the last step.

    The buffers are copied before each step, and the parameters that the optimizer is about to move.

    Parameters
    ----------
    model : Layer
    parameters : iterable of Parameter
        Those of the optimizer.
    enabled : bool
        False copies nothing, and undoes nothing.
    """

    def __init__(self, model: Layer, parameters: Iterable[Parameter], enabled: bool = True) -> None:
        self._enabled = enabled
        self._parameters = list(parameters)
        self._copies: list[Array | None] = [None] * len(self._parameters)
        self._owners = [
            (layer, name)
            for layer in model.layers()
            for name, _ in layer.named_buffers(recurse=False)
        ]
        self._buffers: list[Array] = []
        self._kept: list[tuple[Array, Array]] = []  # what the last step has moved, and copies
        # Whether the loss was finite with the weights as they are now, and with any so far.
        self._proven = self._ever_proven = False
        self._moving = False

    def __enter__(self) -> None:
        self._moving = False
        if self._enabled:
            self._buffers = [getattr(layer, name).copy() for layer, name in self._owners]

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        if kind is None or not self._enabled:
            return
        for (layer, name), buffer in zip(self._owners, self._buffers, strict=True):
            getattr(layer, name)[...] = buffer
        if self._moving:
            self._put_back()

    def buffers(self) -> list[Array]:
        """Return the buffers of the model."""
        return [getattr(layer, name) for layer, name in self._owners]

    def prove(self) -> None:
        """Record that the loss is finite with the weights as they are now."""
        self._proven = self._ever_proven = True

    def keep_parameters(self) -> None:
        """Copy the parameters that have a gradient, which the optimizer is about to move."""
        if not self._enabled:
            return
        self._kept = []
        for place, parameter in enumerate(self._parameters):
            if parameter.grad is None:
                continue
            copied = self._copies[place]
            if copied is None or copied.dtype != parameter.dtype:
                copied = self._copies[place] = parameter.data.copy()
            else:
                np.copyto(copied, parameter.data)
            self._kept.append((parameter.data, copied))
        self._proven, self._moving = False, True

    def have_moved(self, kept: list[tuple[Array, Array]]) -> None:
        """Record that steps with finite losses have moved arrays: each with a copy of before."""
        self._kept = kept
        self._proven, self._ever_proven = False, True

    def restore(self, error: NotFiniteError) -> str:
        """Restore the last weights that `error` does not speak against, and say which they are."""
        if not self._enabled:
            return "the model keeps its weights, as rollback is off"
        if isinstance(error, NotFiniteInputError):
            return "the model has the weights of before this batch"
        if not self._ever_proven:
            return "the model has the weights that the run began with"
        if not self._proven:
            self._put_back()
        return "the model has the last weights with which the loss was finite"

    def _put_back(self) -> None:
        for array, copy in self._kept:
            array[...] = copy


class Interrupts:
    """Context of a run in which Ctrl-C waits for the end of a step, or of a file that is written.

    It does nothing where the program handles the signal itself, or in another thread than the main
    one.
    """

    def __init__(self) -> None:
        self._holding = self._firmly = self._pending = self._installed = False

    def __enter__(self) -> Interrupts:
        in_main = threading.current_thread() is threading.main_thread()
        if in_main and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, self._receive)
            self._installed = True
        return self

    def __exit__(self, *error: object) -> None:
        if self._installed:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            self._installed = False

    def _receive(self, signal_number: int, frame: Any) -> None:
        # The second Ctrl-C does not wait: the step or the file under way is given up.
        if not self._holding or (self._pending and not self._firmly):
            raise KeyboardInterrupt
        self._pending = True

    @contextlib.contextmanager
    def held(self, firmly: bool = False) -> Iterator[None]:
        """Defer Ctrl-C to the end of the block; with `firmly`, the second one too."""
        self._holding, self._firmly = True, firmly
        try:
            yield
        finally:
            self._holding = self._firmly = False
        if self._pending:
            raise KeyboardInterrupt


def check_gradients(parameters: Iterable[Parameter]) -> None:
    """Raise a NotFiniteError if a gradient has an element that is not finite."""
    for parameter in parameters:
        grad = parameter.grad
        # The sum of squares is quick to compute; it may overflow where all elements are finite.
        if grad is None or math.isfinite(vdot(grad, grad)):
            continue
        if not np.isfinite(grad).all():
            raise NotFiniteError(
                f"the gradient of the parameter of shape {grad.shape} contains NaN or infinity"
            )


@contextlib.contextmanager
def naming(place: Callable[[], str]) -> Iterator[None]:
    """Context in which the message of an error begins with its place."""
    try:
        yield
    except (ValueError, TypeError) as error:
        # Subclasses such as UnicodeError take other arguments than a message.
        if type(error) not in (ValueError, TypeError, NotFiniteError, NotFiniteInputError):
            raise
        raise type(error)(f"{place()}: {error}") from error
