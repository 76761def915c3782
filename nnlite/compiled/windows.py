"""Pooling, of sequences and of images, and the loops over windows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import nnlite as nn

from ..engine.axis import Axes, Axis
from .forms import form
from .source import Code, Value, nest, of_one_sample, product

_ONE_ROW = Axis(inputs=1, outputs=1, taps=1, stride=1, padding=0, dilation=1)

Pool = nn.MaxPool1d | nn.MaxPool2d | nn.AvgPool1d | nn.AvgPool2d


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


# ---- pooling ----


@form(nn.MaxPool1d, nn.MaxPool2d)
def max_pool(layer: nn.MaxPool1d | nn.MaxPool2d, code: Code, x: Value) -> Any:
    """Y = the largest input of the window; dx = Σ dy over the windows whose first maximum x is.

    NaN counts as larger than every number.
    """
    if layer.return_indices:
        raise TypeError(f"compile: {layer.label} has no compiled form that returns indices")
    axes = layer.axes(of_one_sample(x.shape))
    planes = product(x.shape[:2])
    y = code.new((*x.shape[:2], *(axis.outputs for axis in axes)))
    place = code.new(y.shape, "place", "np.int32")
    rows, columns = rows_and_columns(axes)
    images = x.view(planes, rows.inputs, columns.inputs)
    out = y.view(planes, rows.outputs, columns.outputs)
    places = place.view(planes, rows.outputs * columns.outputs)
    options = geometry(axes, "taps", "padding", "stride", "dilation")
    code(f"max_pool({images}, {out}, {places}, {options})")
    return y, lambda dy: to_maxima(code, x, dy, place)


def to_maxima(code: Code, x: Value, dy: Value, place: Value) -> None:
    """Write dx, which is dy at the places of the maxima: -1 for none."""
    inputs, outputs = product(x.shape[2:]), product(dy.shape[2:])
    planes = product(x.shape[:2])
    with code.gradient(x) as dx:
        places, grads = place.view(planes, outputs), dy.view(planes, outputs)
        code(f"add_at({places}, {grads}, {dx.view(planes, inputs)})")


@form(nn.AvgPool1d, nn.AvgPool2d)
def avg_pool(layer: nn.AvgPool1d | nn.AvgPool2d, code: Code, x: Value) -> Any:
    """Y = Σ x / a over the window, in which a inputs count; dx = Σ dy / a over the windows."""
    axes = layer.axes(of_one_sample(x.shape))
    outputs = letters_of(axes).outputs
    planes = product(x.shape[:2])
    sizes = tuple(axis.outputs for axis in axes)
    y = code.new((*x.shape[:2], *sizes))
    at = ", ".join(("plane", *outputs))
    loops = {"plane": planes} | dict(zip(outputs, sizes, strict=True))
    area = f"real({layer.divisor_override or ' * '.join(_counts(layer, axes, outputs))})"

    code(f"a, out = {x.view(planes, *x.shape[2:])}, {y.view(planes, *sizes)}\nout[:] = 0")
    code(
        nest(
            {"plane": planes},
            slide(axes, {"pixels": "a[plane]"}, {"sums": "out[plane]"}, "sums[j] += pixels[j]"),
        )
    )
    code(nest(loops, f"out[{at}] /= {area}"))

    def backward(dy: Value) -> None:
        with code.gradient(x) as dx:
            code(f"""
                grads, d_image = {dy.view(planes, *sizes)}, {dx.view(planes, *x.shape[2:])}
                parts = np.empty_like(grads)
                d_image[:] = 0
            """)
            code(nest(loops, f"parts[{at}] = grads[{at}] / {area}"))
            lines = {"pixels": "d_image[plane]"}, {"line": "parts[plane]"}
            code(nest({"plane": planes}, slide(axes, *lines, "pixels[j] += line[j]")))

    return y, backward


def _counts(layer: Any, axes: Axes, letters: tuple[str, ...]) -> Iterator[str]:
    """Return the number of positions along each axis that count in the mean of an output."""
    for axis, letter in zip(axes, letters, strict=True):
        if not axis.is_padded:
            yield f"{axis.taps}"
            continue
        around = axis.padding if layer.count_include_pad else 0
        start = plus(times(letter, axis.stride), -axis.padding)
        end = f"min({plus(start, axis.taps)}, {axis.inputs + around})"
        yield f"({end} - max({start}, {-around}))"


@form(nn.GlobalAvgPool1d, nn.GlobalAvgPool2d)
def global_avg_pool(layer: nn.Layer, code: Code, x: Value) -> Any:
    """Y = Σ x / M over the M places of a channel; dx = dy / M."""
    planes, count = product(x.shape[:2]), product(x.shape[2:])
    y = code.new(x.shape[:2])
    code(f"""
        rows = {x.view(planes, count)}
        for i in range({planes}):
            total = real(0)
            for j in range({count}):
                total += rows[i, j]
            {y}[i] = total / real({count})
    """)

    def backward(dy: Value) -> None:
        with code.gradient(x) as dx:
            code(f"""
                rows = {dx.view(planes, count)}
                for i in range({planes}):
                    rows[i] = {dy}[i] / real({count})
            """)

    return y, backward


@form(nn.GlobalMaxPool1d, nn.GlobalMaxPool2d)
def global_max_pool(layer: nn.Layer, code: Code, x: Value) -> Any:
    """Y = the largest place of a channel; dx = dy at the first maximum. NaN counts as largest."""
    planes, count = product(x.shape[:2]), product(x.shape[2:])
    y = code.new(x.shape[:2])
    place = code.new(y.shape, "place", "np.int32")
    code(f"""
        rows = {x.view(planes, count)}
        for i in range({planes}):
            last, first = key(rows[i, 0]), {count}
            for j in range({count}):
                last = max(last, key(rows[i, j]))
            top = of_key(last)
            for j in range({count}):
                is_top = (rows[i, j] == top) | (rows[i, j] != rows[i, j])
                first = min(first, j if is_top else {count})
            {y}[i], {place}[i] = top, first
    """)
    return y, lambda dy: to_maxima(code, x, dy, place)
