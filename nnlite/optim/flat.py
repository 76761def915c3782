"""The flat arrays behind an optimizer: many parameters laid out in one block of memory."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np

from ..changes import changes
from ..engine.arrays import Array
from ..engine.memory import lay_out
from ..parameter import Parameter

# Decayed averages become subnormal, and arithmetic on subnormals is slow: flush them to zero every
# this many steps.
_STEPS_TO_FLUSH = 64


class FlatBlock:
    """Parameters of one dtype in one flat array, and their gradients and state in others.

    Parameters
    ----------
    parameters : list of Parameter
        Of one dtype.
    steps : list of int
        The number of steps that each parameter has taken before.
    state : list of list of ndarray
        For each array of `Optimizer.state_names`, the part of each parameter.

    Attributes
    ----------
    values, grads : ndarray, one-dimensional
        The memory of ``Parameter.data`` and ``Parameter.grad``.
    state : list of ndarray, one-dimensional
    bounds : list of (int, int)
        Where each parameter begins and ends in these arrays.
    """

    def __init__(
        self, parameters: list[Parameter], steps: list[int], state: list[list[Array]]
    ) -> None:
        self.parameters = parameters
        self._steps = steps
        self._uncounted = 0  # further steps of those that move
        self.shapes = [parameter.shape for parameter in parameters]
        ends = list(itertools.accumulate(parameter.size for parameter in parameters))
        self.bounds = list(zip([0, *ends[:-1]], ends, strict=True))
        # The places of the parameters that have a gradient, as of these notes of changes.
        self._moving: list[int] = []
        self._changed: tuple[object, object] = object(), object()
        # The note of changes as of which all values were in place.
        self._gathered: object = object()
        self._lay_out_values()
        self._lay_out_grads()
        self.state = []
        for parts in state:
            flat, _ = lay_out(self.shapes, self.values.dtype)
            self.state.append(np.concatenate([part.reshape(-1) for part in parts], out=flat))

    def __reduce__(self) -> tuple[Any, ...]:
        # Copies of the flat array and of its views would no longer share memory.
        parts = [self.parts(array) for array in self.state]
        return FlatBlock, (self.parameters, self.steps, parts)

    @property
    def steps(self) -> list[int]:
        """The number of steps that each parameter has taken."""
        self._settle()
        return self._steps

    def _settle(self) -> None:
        """Add the steps that were counted to those of each parameter that has moved."""
        count = self._uncounted
        if count:
            steps = [*self._steps]
            for place in self._moving:
                steps[place] += count
            self._steps, self._uncounted = steps, self._uncounted - count

    def parts(self, flat: Array) -> list[Array]:
        """Return the part of a flat array that belongs to each parameter."""
        return [flat[start:stop] for start, stop in self.bounds]

    def gathered(self) -> list[FlatBlock]:
        """Copy values and gradients back into the flat arrays where they have been replaced.

        Returns
        -------
        list of FlatBlock
            This block; or several in its place, if its parameters are of several dtypes now.
        """
        attributes = changes.attributes
        if attributes is not self._gathered:
            self._gathered = attributes
            kept = zip(self.parameters, self._value_views, strict=True)
            if any(parameter.data is not view for parameter, view in kept):
                groups = by_dtype(self.parameters)
                if len(groups) > 1 or self.parameters[0].dtype != self.values.dtype:
                    return [self._restricted_to(parameters) for parameters in groups]
                self._lay_out_values()
        for parameter in self.parameters:
            if parameter.has_grad_outside(self.grads):
                self._lay_out_grads()
                break
        return [self]

    def _restricted_to(self, parameters: list[Parameter]) -> FlatBlock:
        """Return a block of some of the parameters, with their state."""
        places = [self.parameters.index(parameter) for parameter in parameters]
        state = [self.parts(array) for array in self.state]
        return FlatBlock(
            parameters,
            [self.steps[place] for place in places],
            [[parts[place] for place in places] for parts in state],
        )

    def runs(self) -> Iterator[tuple[int, int, int]]:
        """Yield (step, start, stop) of each stretch that has gradients and equal numbers of steps.

        Neighbours of equal numbers of steps make one stretch.
        """
        moving, steps = self._moving_places(), self.steps
        if len(moving) == len(steps) == steps.count(steps[0]):
            yield steps[0], 0, self.values.size  # the usual case
            return
        run: tuple[int, int, int] | None = None
        for place in moving:
            start, stop = self.bounds[place]
            step = steps[place]
            if run is not None and run[0] == step and run[2] == start:
                run = (step, run[1], stop)
                continue
            if run is not None:
                yield run
            run = (step, start, stop)
        if run is not None:
            yield run

    def count(self) -> None:
        """Count a step of every parameter that has a gradient."""
        moving = self._moving_places()
        self._uncounted += 1
        if moving and (self._steps[moving[0]] + self._uncounted) % _STEPS_TO_FLUSH == 0:
            self._flush_subnormals()

    def take_back(self) -> None:
        """Count one step less. Subnormals that were flushed stay 0."""
        self._moving_places()
        self._uncounted -= 1

    def steps_to_flush(self) -> int:
        """Return the number of steps until subnormals are flushed."""
        return min(_STEPS_TO_FLUSH - step % _STEPS_TO_FLUSH for step in self.steps)

    def _moving_places(self) -> list[int]:
        """Return the places of the parameters that have a gradient."""
        attributes, gradients = self._changed
        if attributes is not changes.attributes or gradients is not changes.gradients:
            self._settle()
            changed = changes.attributes, changes.gradients
            self._moving = [
                place for place, parameter in enumerate(self.parameters) if parameter.is_moving
            ]
            self._changed = changed  # not before, as Ctrl-C may arrive meanwhile
        return self._moving

    def _flush_subnormals(self) -> None:
        tiny = np.finfo(self.values.dtype).tiny
        for array in self.state:
            np.copyto(array, 0, where=np.abs(array) < tiny)

    def _lay_out_values(self) -> None:
        self.values, self._value_views = lay_out(self.shapes, self.parameters[0].dtype)
        for parameter, view in zip(self.parameters, self._value_views, strict=True):
            parameter.keep_in(data=view)

    def _lay_out_grads(self) -> None:
        self.grads, views = lay_out(self.shapes, self.values.dtype)
        for parameter, view in zip(self.parameters, views, strict=True):
            parameter.keep_in(grad=view)


def by_dtype(parameters: list[Parameter]) -> list[list[Parameter]]:
    """Return the parameters in groups of one dtype each."""
    groups: dict[Any, list[Parameter]] = {}
    for parameter in parameters:
        groups.setdefault(parameter.dtype, []).append(parameter)
    return list(groups.values())
