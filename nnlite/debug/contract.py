"""The layer contract beside right derivatives: purity, linearity, accumulation, memory order."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from ..engine.arrays import Array
from .isolation import leaves, map_leaves
from .probe import Probe, in_another_order

# The relative difference between two runs of the same computation: a few roundings.
_ROUNDING = 1e-9
# Rounding of a result that nearly cancels, relative to the values of about 1 that it comes from.
_CANCELLATION = 64 * float(np.finfo(np.float64).eps)
# Sums in another order round differently; a wrong order of elements is a gross error.
_REORDERED = 1e-4


class Promises:
    """The layer contract beside right derivatives.

    Attributes
    ----------
    faults : list of str
        The violations found, a sentence each.
    """

    def __init__(self, probe: Probe) -> None:
        self.faults: list[str] = []
        self._probe = probe
        self._watched: list[tuple[str, Array, Array]] = []

    # ---- arrays that were passed in or returned stay as they are ----

    def watch(self, what: str, values: Any) -> None:
        """Add the arrays in `values` to those that `report_changes` compares."""
        for array in leaves(values):
            if isinstance(array, np.ndarray):
                self._watched.append((what, array, array.copy()))

    def report_changes(self, who: str) -> None:
        """Report the watched arrays that have changed, restore them, and stop watching them."""
        unchanged = []
        for what, array, before in self._watched:
            if np.array_equal(array, before, equal_nan=True):
                unchanged.append((what, array, before))
            else:
                self.faults.append(f"{who} changes {what}")
                array[...] = before
        self._watched = unchanged

    # ---- repeated calls ----

    def keep_first(self, output: Any, weights: Any, returned: Any) -> None:
        """Store the results of the first forward and backward, with which others are compared."""
        self._is_loss = self._probe.is_loss or type(output) is float
        self._output = _copies(output)
        self._weights = weights
        self._returned = _copies(returned)
        self._gradients = _copies(self._probe.gradients())
        # A gradient that is nothing but rounding is compared on the scale of the others.
        self._scale = _largest([*self._returned, *self._gradients])

    def check_further_backwards(self) -> None:
        """Repeat backward: the same, with multiples of the gradient, without the input's."""
        probe, weights = self._probe, self._weights
        if not self._repeats("a second backward", lambda: probe.backward(weights)):
            return
        if probe.takes_grad:
            # Powers of two scale without rounding.
            all(map(self._is_linear, (-3.0, -(2.0**40), 2.0**-40)))
            self.report_changes("another backward")
        else:
            self.faults.append("backward takes no gradient, which fit and containers pass to it")
        if self._is_loss and probe.takes_grad and isinstance(weights, float):
            backward: Any = probe.layer.backward
            probe.layer.zero_grad()
            self._repeats(
                "backward without a gradient", backward, factor=1 / weights, slack=_CANCELLATION
            )
        if probe.takes_input_grad:
            self._forward_again("a second forward")
            self._repeats(
                "backward with input_grad=False",
                lambda: probe.backward(weights, input_grad=False),
                returns=False,
            )
        elif not self._is_loss:
            self.faults.append("backward has no input_grad, which containers hand to it")

    def _is_linear(self, factor: float) -> bool:
        """Report if `factor` times the gradient does not give `factor` times the result."""
        self._probe.layer.zero_grad()
        scaled = map_leaves(lambda w: factor * w, self._weights)
        return self._repeats(
            f"backward of {factor:.3g} times the gradient",
            lambda: self._probe.backward(scaled),
            factor,
            slack=_CANCELLATION,
        )

    def check_memory_order(self) -> None:
        """Repeat forward and backward for arrays that are stored in another order."""
        probe = self._probe
        probe.layer.zero_grad()
        slack = _REORDERED * self._scale + _CANCELLATION
        with probe.inputs_in_another_order():
            try:
                output = _copies(probe.forward())
            except Exception as error:
                self.faults.append(
                    f"forward of inputs in another memory order raises "
                    f"{type(error).__name__}: {error}"
                )
                return
            slack_of_outputs = _REORDERED * _largest(self._output) + _CANCELLATION
            if not _are_multiples(output, self._output, 1, slack_of_outputs):
                self.faults.append("forward gives other values for inputs in another memory order")
                return
            for what, weights in (
                ("backward after inputs in another memory order", self._weights),
                (
                    "backward of a gradient in another memory order",
                    map_leaves(in_another_order, self._weights),
                ),
            ):
                probe.layer.zero_grad()
                if not self._repeats(what, functools.partial(probe.backward, weights), slack=slack):
                    return

    def check_another_forward(self) -> None:
        """Repeat forward and backward after those for other inputs and parameters."""
        self.report_changes("another forward")
        self._forward_again("a later forward")
        self._repeats("a later backward", lambda: self._probe.backward(self._weights))

    def _forward_again(self, what: str) -> None:
        self._probe.layer.zero_grad()
        output = _copies(self._probe.forward())
        if not _are_multiples(output, self._output, 1, _ROUNDING * _largest(self._output)):
            self.faults.append(
                f"{what} gives other values for the same input: it depends on what came before, "
                f"or draws from a generator that is no attribute of a layer"
            )

    def _repeats(
        self,
        what: str,
        backward: Callable[[], Any],
        factor: float = 1.0,
        returns: bool = True,
        slack: float = 0.0,
    ) -> bool:
        """Report where `backward` does not give `factor` times what the first backward gave.

        Differences up to `slack`, times the factor, are rounding.
        """
        before = _copies(self._probe.gradients())
        count = len(self.faults)
        times = "" if factor == 1 else f"{factor:.3g} times "
        slack = abs(factor) * max(slack, _ROUNDING * self._scale)
        try:
            returned = list(leaves(backward()))
        except Exception as error:
            self.faults.append(f"{what} raises {type(error).__name__}: {error}")
            return False
        if returns and not _are_multiples(returned, self._returned, factor, slack):
            self.faults.append(f"{what} does not return {times}what the first returned")
        for name, old, new, first in zip(
            self._probe.parameters, before, self._probe.gradients(), self._gradients, strict=True
        ):
            added = new if old is None or new is None else new - old
            if _is_multiple(added, first, factor, slack):
                continue
            if _is_multiple(new, first, factor, slack):
                self.faults.append(f"{what} overwrites the gradient of {name}")
            else:
                self.faults.append(f"{what} does not add {times}what the first added to {name}")
        return len(self.faults) == count


def output_fault(output: Any) -> str | None:
    """Return the fault of an output of a layer whose inputs and parameters are float64, if any."""
    if not isinstance(output, (np.ndarray, np.generic, float)):
        return f"forward returns {_kind(output)} instead of an array or a float"
    dtype = np.asarray(output).dtype
    if dtype != np.float64:
        return f"forward returns {dtype}, where inputs and parameters are float64"
    if not np.isfinite(output).all():
        return "forward returns values that are not finite; check at another point"
    return None


def gradient_fault(name: str, gradient: Any, shape: tuple[int, ...]) -> str | None:
    """Return the fault of a gradient that should be float64 and of `shape`, if any."""
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


def _are_multiples(values: list[Any], expected: list[Any], factor: float, slack: float) -> bool:
    return len(values) == len(expected) and all(
        _is_multiple(value, other, factor, slack)
        for value, other in zip(values, expected, strict=True)
    )


def _is_multiple(value: Any, expected: Any, factor: float, slack: float) -> bool:
    """Whether `value` is `factor` times `expected`, but for rounding and for `slack`."""
    if value is None or expected is None:
        return value is expected
    if np.shape(value) != np.shape(expected):
        return False
    wanted = factor * np.asarray(expected)
    return bool(np.allclose(value, wanted, _ROUNDING, slack, equal_nan=True))
