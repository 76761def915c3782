"""The promises of the layer contract that are no matter of one number, put to the test."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..engine.arrays import Array
from .isolation import leaves, map_leaves
from .probe import Probe

# How far the same computation, done twice, may differ: a few roundings.
_ROUNDING = 1e-9


class Promises:
    """What a layer promises beside right gradients, and where it breaks its word.

    Attributes
    ----------
    faults : list of str
        The promises that were found broken, each in a sentence.
    """

    def __init__(self, probe: Probe) -> None:
        self.faults: list[str] = []
        self._probe = probe
        self._watched: list[tuple[str, Array, Array]] = []

    # ---- nothing handed over is changed ----

    def watch(self, what: str, values: Any) -> None:
        """Have the arrays in `values` looked at by `report_changes`."""
        for array in leaves(values):
            if isinstance(array, np.ndarray):
                self._watched.append((what, array, array.copy()))

    def report_changes(self, who: str) -> None:
        """Report which watched arrays have changed, undo it, and watch them no more."""
        unchanged = []
        for what, array, before in self._watched:
            if np.array_equal(array, before, equal_nan=True):
                unchanged.append((what, array, before))
            else:
                self.faults.append(f"{who} changes {what}")
                array[...] = before
        self._watched = unchanged

    # ---- the same again gives the same again ----

    def keep_first(self, output: Any, weights: Any, returned: Any) -> None:
        """Take what the first forward and backward gave for what all others have to give."""
        self._output = _copies(output)
        self._weights = weights
        self._returned = _copies(returned)
        self._gradients = _copies(self._probe.gradients())
        # A gradient that is nothing but rounding is compared on the scale of the others.
        self._scale = _largest([*self._returned, *self._gradients])

    def check_further_backwards(self) -> None:
        """Go back again: once more, with another gradient, and without the input's."""
        probe, weights = self._probe, self._weights
        if not self._repeats("a second backward", lambda: probe.backward(weights)):
            return
        if probe.takes_grad:
            scaled = map_leaves(lambda w: -3 * w, weights)
            what = "backward of -3 times the gradient"
            self._repeats(what, lambda: probe.backward(scaled), factor=-3)
            self.report_changes("another backward")
        if probe.is_loss and isinstance(weights, float):
            backward: Any = probe.layer.backward
            self._repeats("backward without a gradient", backward, factor=1 / weights)
        if probe.takes_input_grad:
            self._forward_again("a second forward")
            self._repeats(
                "backward with input_grad=False",
                lambda: probe.backward(weights, input_grad=False),
                returns=False,
            )
        elif not probe.is_loss:
            self.faults.append("backward has no input_grad, which containers hand to it")

    def check_another_forward(self) -> None:
        """Go forward and back once more, after other inputs and parameters."""
        self.report_changes("another forward")
        self._forward_again("a later forward")
        self._repeats("a later backward", lambda: self._probe.backward(self._weights))

    def _forward_again(self, what: str) -> None:
        self._probe.layer.zero_grad()
        output = _copies(self._probe.forward())
        if not _are_multiples(output, self._output, 1, _largest(self._output)):
            self.faults.append(
                f"{what} gives other values for the same input: it depends on what came before, "
                f"or draws from a generator that is no attribute of a layer"
            )

    def _repeats(
        self, what: str, backward: Callable[[], Any], factor: float = 1.0, returns: bool = True
    ) -> bool:
        """Report where `backward` does not give `factor` times what the first one gave."""
        before = _copies(self._probe.gradients())
        count = len(self.faults)
        times = "" if factor == 1 else f"{factor:.3g} times "
        try:
            returned = list(leaves(backward()))
        except Exception as error:
            self.faults.append(f"{what} raises {type(error).__name__}: {error}")
            return False
        if returns and not _are_multiples(returned, self._returned, factor, self._scale):
            self.faults.append(f"{what} does not return {times}what the first returned")
        for name, old, new, first in zip(
            self._probe.parameters, before, self._probe.gradients(), self._gradients, strict=True
        ):
            added = new if old is None or new is None else new - old
            if _is_multiple(added, first, factor, self._scale):
                continue
            if _is_multiple(new, first, factor, self._scale):
                self.faults.append(f"{what} overwrites the gradient of {name}")
            else:
                self.faults.append(f"{what} does not add {times}what the first added to {name}")
        return len(self.faults) == count


def output_fault(output: Any) -> str | None:
    """Return what is wrong with an output of a layer whose inputs and parameters are float64."""
    if not isinstance(output, (np.ndarray, np.generic, float)):
        return f"forward returns {_kind(output)} instead of an array or a float"
    dtype = np.asarray(output).dtype
    if dtype != np.float64:
        return f"forward returns {dtype}, where inputs and parameters are float64"
    if not np.isfinite(output).all():
        return "forward returns values that are not finite; check at another point"
    return None


def gradient_fault(name: str, gradient: Any, shape: tuple[int, ...]) -> str | None:
    """Return what is wrong with a gradient that should be of `shape` and float64."""
    if not isinstance(gradient, (np.ndarray, np.generic, float)):
        return f"the gradient of {name} is {_kind(gradient)} instead of an array"
    if np.shape(gradient) != shape:
        return f"the gradient of {name} is of shape {np.shape(gradient)} instead of {shape}"
    dtype = np.asarray(gradient).dtype
    if dtype != np.float64:
        return f"the gradient of {name} is {dtype}, where everything is float64"
    return None


def _kind(value: Any) -> str:
    return "None" if value is None else f"a {type(value).__name__}"


def _copies(values: Any) -> list[Any]:
    return [None if leaf is None else np.array(leaf) for leaf in leaves(values)]


def _largest(values: list[Any]) -> float:
    sizes = [np.abs(value) for value in values if value is not None]
    return max((float(np.max(s, where=np.isfinite(s), initial=0)) for s in sizes), default=0.0)


def _are_multiples(values: list[Any], expected: list[Any], factor: float, scale: float) -> bool:
    return len(values) == len(expected) and all(
        _is_multiple(value, other, factor, scale)
        for value, other in zip(values, expected, strict=True)
    )


def _is_multiple(value: Any, expected: Any, factor: float, scale: float) -> bool:
    """Whether `value` is `factor` times `expected`, but for a few roundings of their `scale`."""
    if value is None or expected is None:
        return value is expected
    if np.shape(value) != np.shape(expected):
        return False
    wanted = factor * np.asarray(expected)
    return bool(np.allclose(value, wanted, _ROUNDING, _ROUNDING * scale, equal_nan=True))
