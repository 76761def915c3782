"""The positions of windows along one axis of an image or a sequence."""

from __future__ import annotations

import functools
from typing import NamedTuple


class _Numbers(NamedTuple):
    inputs: int
    outputs: int
    taps: int
    stride: int
    padding: int
    dilation: int


class Axis(_Numbers):
    """The positions of a window along one axis.

    Tap k of the window for output o covers the input ``o·stride + k·dilation - padding``, or
    padding if that is beyond an end of the input. The properties are computed once for each object.
    """

    @functools.cached_property
    def span(self) -> int:
        """Number of positions from the first to the last tap of a window."""
        return self.dilation * (self.taps - 1) + 1

    @functools.cached_property
    def is_padded(self) -> bool:
        """Whether a window extends beyond an end of the input."""
        end = (self.outputs - 1) * self.stride + self.span - self.padding
        return self.padding > 0 or end > self.inputs

    @functools.cached_property
    def is_identity(self) -> bool:
        """Whether each window covers exactly the input at the position of its output."""
        return self.taps == self.stride == 1 and self.inputs == self.outputs and not self.is_padded

    @functools.cached_property
    def is_tiled(self) -> bool:
        """Whether every input lies in exactly one window."""
        covered = self.inputs == self.outputs * self.stride and not self.is_padded
        return covered and self.taps == self.stride


Axes = tuple[Axis, ...]
"""The axes of an image, rows first, or the one axis of a sequence."""

Links = tuple[tuple[slice, slice], ...]
"""Pairs of slices that belong together, such as outputs and the inputs that they depend on."""


@functools.lru_cache(maxsize=256)
def by_tap(axis: Axis) -> Links:
    """Return for each tap the outputs for which it covers an input, and these inputs."""
    links = []
    for tap in range(axis.taps):
        offset = tap * axis.dilation - axis.padding
        start = max(0, -(offset // axis.stride))
        stop = max(start, min(axis.outputs, (axis.inputs - 1 - offset) // axis.stride + 1))
        first, end = (output * axis.stride + offset for output in (start, stop))
        links.append((slice(start, stop), slice(first, end, axis.stride)))
    return tuple(links)


@functools.lru_cache(maxsize=256)
def by_input(axis: Axis) -> Links:
    """Return for each input the taps that cover it, numbered from the last, and their outputs."""
    links = []
    for position in range(axis.padding, axis.padding + axis.inputs):
        taps, outputs = [], []
        for tap in range(axis.taps):
            output, rest = divmod(position - (axis.taps - 1 - tap) * axis.dilation, axis.stride)
            if rest == 0 and 0 <= output < axis.outputs:
                taps.append(tap)
                outputs.append(output)
        links.append((_as_slice(taps), _as_slice(outputs)))
    return tuple(links)


def _as_slice(indices: list[int]) -> slice:
    """Return the slice that selects these indices, which are ascending and evenly spaced."""
    if not indices:
        return slice(0)
    step = indices[1] - indices[0] if len(indices) > 1 else 1
    return slice(indices[0], indices[-1] + 1, step)
