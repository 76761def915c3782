"""Loops over windows of sequences and of images."""

from __future__ import annotations

from typing import NamedTuple

from ...engine.axis import Axes, Axis
from ..source import nest

_ONE_ROW = Axis(inputs=1, outputs=1, taps=1, stride=1, padding=0, dilation=1)


class Letters(NamedTuple):
    """The variables of loops over windows, for each axis."""

    taps: tuple[str, ...]
    outputs: tuple[str, ...]
    inputs: tuple[str, ...]


def letters_of(axes: Axes) -> Letters:
    """Return the letters of images (u, v), (i, j), (h, w), of which sequences have the second."""
    rank = len(axes)
    return Letters(("u", "v")[-rank:], ("i", "j")[-rank:], ("h", "w")[-rank:])


def slide(axes: Axes, inputs: dict[str, str], outputs: dict[str, str], body: str) -> str:
    """Return loops over all taps, and for each of them over the outputs that meet an input.

    The statements `body` are about element ``j`` of lines: of the inputs along the last axis, from
    ``start`` on, and of the outputs. `inputs` and `outputs` map the name of each line to the
    array that it is part of. With ``j`` as the only index a loop becomes vector instructions.
    """
    taps, rows, places = letters_of(axes)
    column, left = axes[-1], _offset(taps[-1], axes[-1])
    first, end = _bounds(column, left)
    start = left if first == "0" else plus(times("first", column.stride), left)
    step = "" if column.stride == 1 else f":{column.stride}"
    lines = [f"start = {start}"]
    lines += [
        f"{name} = {array}[{', '.join((*places[:-1], f'start:{step}'))}]"
        for name, array in inputs.items()
    ]
    part = ":" if first == "0" else "first:end"
    lines += [
        f"{name} = {array}[{', '.join((*rows[:-1], part))}]" for name, array in outputs.items()
    ]
    length = end if first == "0" else "end - first"
    text = "\n".join([*lines, nest({"j": length}, body)])
    for axis, tap, row, place in zip(axes[:-1], taps, rows, places, strict=False):
        top = _offset(tap, axis)
        above, below = _bounds(axis, top)
        span = below if above == "0" else f"{above}, {below}"
        text = f"{place} = {plus(times(row, axis.stride), top)}\n{text}"
        text = nest({row: span}, text)
    if first != "0":
        text = f"first, end = {first}, {end}\n{text}"
    return nest(dict(zip(taps, (axis.taps for axis in axes), strict=True)), text)


def _offset(tap: str, axis: Axis) -> str:
    """Return the input that the first output meets at a tap; it may lie in the padding."""
    return plus(times(tap, axis.dilation), -axis.padding)


def _bounds(axis: Axis, offset: str) -> tuple[str, str]:
    """Return the first output, and the end, of those that meet an input at this offset."""
    if not axis.is_padded:
        return "0", f"{axis.outputs}"
    first = f"max(0, -(({offset}) // {axis.stride}))"
    return first, f"min({axis.outputs}, ({axis.inputs - 1} - ({offset})) // {axis.stride} + 1)"


def times(name: str, factor: int) -> str:
    """Return the product as text."""
    return name if factor == 1 else f"{name} * {factor}"


def plus(first: str, second: str | int) -> str:
    """Return the sum as text."""
    if isinstance(second, str):
        return f"{first} + {second}"
    return f"{first} - {-second}" if second < 0 else f"{first} + {second}" if second else first


def rows_and_columns(axes: Axes) -> tuple[Axis, Axis]:
    """Return the axes of an image; a sequence is an image of one row."""
    return (axes[0] if len(axes) == 2 else _ONE_ROW), axes[-1]


def geometry(axes: Axes, *options: str) -> str:
    """Return these options of the windows, of rows and of columns each, as arguments."""
    return ", ".join(
        f"{getattr(axis, name)}" for name in options for axis in rows_and_columns(axes)
    )
