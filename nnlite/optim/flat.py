"""The flat arrays behind an optimizer: many parameters laid out in one block of memory."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np

from ..engine.arrays import Array
from ..engine.memory import lay_out
from ..parameter import Parameter


class _Block:
    """Parameters of one dtype laid out in one flat array, with their gradients and state."""

    def __init__(
        self, parameters: list[Parameter], steps: list[int], state: list[list[Array]]
    ) -> None:
        """Lay out `parameters`, that have moved so many `steps`, each with its part of `state`."""
        self.parameters = parameters
        self.steps = steps
        self.shapes = [parameter.shape for parameter in parameters]
        ends = list(itertools.accumulate(parameter.size for parameter in parameters))
        self.bounds = list(zip([0, *ends[:-1]], ends, strict=True))
        self._lay_out_values()
        self._lay_out_grads()
        self.state = [
            np.concatenate([part.reshape(-1) for part in parts], dtype=self.values.dtype)
            for parts in state
        ]

    def __reduce__(self) -> tuple[Any, ...]:
        # A copy of the flat arrays and of the views would no longer share their memory.
        return _Block, (self.parameters, self.steps, [self._parts(array) for array in self.state])

    def _parts(self, flat: Array) -> list[Array]:
        return [flat[start:stop] for start, stop in self.bounds]

    def gathered(self) -> list[_Block]:
        """Bring values and gradients back into the flat arrays, if somebody has replaced them.

        Return this block; or several in its place, if its parameters are of several dtypes now.
        """
        values_in_place = grads_in_place = True
        for parameter, view in zip(self.parameters, self.value_views, strict=True):
            value_is_there, grad_is_there = parameter.is_kept_in(view, self.grads)
            values_in_place &= value_is_there
            grads_in_place &= grad_is_there
        if not values_in_place:
            groups = _by_dtype(self.parameters)
            if len(groups) > 1 or self.parameters[0].dtype != self.values.dtype:
                return [self._with(parameters) for parameters in groups]
            self._lay_out_values()
        if not grads_in_place:
            self._lay_out_grads()
        return [self]

    def _with(self, parameters: list[Parameter]) -> _Block:
        """Return a block of these of the parameters, with their state."""
        places = [self.parameters.index(parameter) for parameter in parameters]
        state = [self._parts(array) for array in self.state]
        return _Block(
            parameters,
            [self.steps[place] for place in places],
            [[parts[place] for place in places] for parts in state],
        )

    def runs(self) -> Iterator[tuple[int, int, int]]:
        """Yield (step, start, stop) of each stretch that has gradients and has moved alike."""
        run: tuple[int, int, int] | None = None
        for parameter, (start, stop), step in zip(
            self.parameters, self.bounds, self.steps, strict=True
        ):
            if parameter.grad is None or not parameter.requires_grad:
                continue
            if run is not None and run[0] == step and run[2] == start:
                run = (step, run[1], stop)
                continue
            if run is not None:
                yield run
            run = (step, start, stop)
        if run is not None:
            yield run

    def count(self, counts: bool) -> None:
        """Count a step, if it counts, of every parameter that has a gradient."""
        for index, parameter in enumerate(self.parameters):
            if parameter.grad is not None and parameter.requires_grad:
                self.steps[index] += counts

    def _lay_out_values(self) -> None:
        self.values, self.value_views = lay_out(self.shapes, self.parameters[0].dtype)
        for parameter, view in zip(self.parameters, self.value_views, strict=True):
            parameter.keep_in(data=view)

    def _lay_out_grads(self) -> None:
        self.grads, views = lay_out(self.shapes, self.values.dtype)
        for parameter, view in zip(self.parameters, views, strict=True):
            parameter.keep_in(grad=view)


def _by_dtype(parameters: list[Parameter]) -> list[list[Parameter]]:
    groups: dict[Any, list[Parameter]] = {}
    for parameter in parameters:
        groups.setdefault(parameter.dtype, []).append(parameter)
    return list(groups.values())
