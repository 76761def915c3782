"""Repeat a run with one number moved: finite differences of any value in a model."""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from ..engine.arrays import Array
from ..layer import Layer
from ..random import generator
from .differences import step_at
from .isolation import (
    input_names,
    intercept,
    is_floats,
    isolated_copy,
    leaves,
    package_generator_kept,
    stop_intercepting,
)
from .probe import Probe


class Replay:
    """The arguments of a trace, copied so that the same run can be repeated.

    Parameters
    ----------
    model, inputs, options, loss, target, grad
        As `trace` gets them; copied.
    """

    def __init__(
        self,
        model: Layer,
        inputs: tuple[Any, ...],
        options: Mapping[str, Any],
        loss: Layer | None,
        target: Any,
        grad: Any,
    ) -> None:
        self.model = isolated_copy(model)
        self._given = copy.deepcopy((inputs, dict(options), target, grad))
        self._loss = None if loss is None else isolated_copy(loss).astype(np.float64)
        self._state = generator().bit_generator.state

    def differences(self, wanted: Mapping[str, list[tuple[int, ...]]]) -> dict[str, list[float]]:
        """Return finite differences of the loss, in float64.

        Parameters
        ----------
        wanted : mapping of str to list of tuple of int
            The names of inputs, parameters or layers, and places in their values.

        Returns
        -------
        dict of str to list of float
            (L(v + h) - L(v - h)) / 2h for each place, or NaN where the model fails. Left out are
            values that are no arrays of floats, and layers that are called more than once.
        """
        if not wanted:
            return {}
        inputs, options, target, grad = self._given
        with package_generator_kept(), np.errstate(all="ignore"):
            generator().bit_generator.state = self._state
            probe = Probe(self.model, inputs, options)
            values = _movable(probe, wanted)

            def loss_at(output: Any) -> float:
                if self._loss is not None:
                    return float(
                        self._loss(output) if target is None else self._loss(output, target)
                    )
                if grad is None:
                    return float(sum(np.sum(leaf) for leaf in leaves(output)))
                pairs = zip(leaves(output), leaves(grad), strict=True)
                return float(sum(np.sum(leaf * g) for leaf, g in pairs if g is not None))

            def difference(value: Array, place: tuple[int, ...]) -> float:
                start, step = value[place], step_at(float(value[place]))
                try:
                    value[place] = start + step
                    above = loss_at(probe.forward())
                    value[place] = start - step
                    return (above - loss_at(probe.forward())) / (2 * step)
                except (ValueError, ArithmeticError):
                    return math.nan
                finally:
                    value[place] = start

            return {
                name: [difference(values[name], place) for place in places]
                for name, places in wanted.items()
                if name in values
            }


def _movable(probe: Probe, names: Iterable[str]) -> dict[str, Array]:
    """Return arrays by name; a change to one of them changes that value in the model."""
    inputs = zip(input_names(probe.layer, probe.inputs), leaves(probe.inputs), strict=True)
    found = {name: value for name, value in inputs if is_floats(value)}
    found.update((name, parameter.data) for name, parameter in probe.parameters.items())
    layers = {name or "output": layer for name, layer in probe.layer.named_layers()}
    watched = {name: layers[name] for name in names if name in layers and name not in found}
    outputs: dict[str, list[Any]] = {name: [] for name in watched}
    for name, layer in watched.items():
        intercept(layer, "forward", functools.partial(_record, outputs[name]))
    probe.forward()
    for name, layer in watched.items():
        stop_intercepting(layer)
        if len(outputs[name]) == 1 and isinstance(outputs[name][0], (np.ndarray, np.floating)):
            found[name] = np.zeros_like(outputs[name][0])
            intercept(layer, "forward", functools.partial(_add, found[name]))
    return found


def _record(outputs: list[Any], forward: Callable[..., Any], *inputs: Any, **options: Any) -> Any:
    output = forward(*inputs, **options)
    outputs.append(output)
    return output


def _add(offset: Array, forward: Callable[..., Any], *inputs: Any, **options: Any) -> Any:
    return forward(*inputs, **options) + offset
