"""Convolution and pooling, of sequences and of images: what the window meets is a nest of loops."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import nnlite as nn

from ..engine.windows import Axes, Axis
from .forms import form
from .source import Code, Value, fixed, nest, product

Conv = nn.Conv1d | nn.Conv2d
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
    start = left if first == "0" else _sum(_times("first", column.stride), left)
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
        text = f"{place} = {_sum(_times(row, axis.stride), top)}\n{text}"
        text = nest({row: span}, text)
    if first != "0":
        text = f"first, end = {first}, {end}\n{text}"
    return nest(dict(zip(taps, (axis.taps for axis in axes), strict=True)), text)


def _offset(tap: str, axis: Axis) -> str:
    """Return the input that the first output meets at a tap; it may lie in the padding."""
    return _sum(_times(tap, axis.dilation), -axis.padding)


def _bounds(axis: Axis, offset: str) -> tuple[str, str]:
    """Return the first output, and the end, of those that meet an input at this offset."""
    if not axis.is_padded:
        return "0", f"{axis.outputs}"
    first = f"max(0, -(({offset}) // {axis.stride}))"
    return first, f"min({axis.outputs}, ({axis.inputs - 1} - ({offset})) // {axis.stride} + 1)"


def _times(name: str, factor: int) -> str:
    return name if factor == 1 else f"{name} * {factor}"


def _sum(first: str, second: str | int) -> str:
    if isinstance(second, str):
        return f"{first} + {second}"
    return f"{first} - {-second}" if second < 0 else f"{first} + {second}" if second else first


def flat(letters: tuple[str, ...], sizes: tuple[int, ...]) -> str:
    """Return the expression for the place of an element in a flat array of these sizes."""
    steps = [math.prod(sizes[index + 1 :]) for index in range(len(sizes))]
    return " + ".join(map(_times, letters, steps))


# ---- convolution ----


@form(nn.Conv1d, nn.Conv2d)
def convolution(layer: Conv, code: Code, x: Value) -> Any:
    """Y = W X + b with the windows of a sample as the columns of X; dW = dY Xᵀ, dX = Wᵀ dY.

    An input gets the sum of dX over the windows that it lies in.
    """
    if layer.groups > 1 or layer.padding_mode != "zeros":
        from .kernels import grouped_convolution

        return grouped_convolution(layer, code, x)
    axes = layer.axes(fixed(x.shape, 1))
    letters = letters_of(axes)
    batch, channels = x.shape[0], layer.in_channels
    outputs = tuple(axis.outputs for axis in axes)
    taps = tuple(axis.taps for axis in axes)
    rows, places = channels * math.prod(taps), math.prod(outputs)
    # The padded image, in which no window reaches beyond an end.
    padded = tuple(axis.inputs + 2 * axis.padding for axis in axes)
    if layer.padding == "same":
        padded = tuple(axis.inputs + axis.span - 1 for axis in axes)
    loops = tuple(
        axis._replace(inputs=size, padding=0) for axis, size in zip(axes, padded, strict=True)
    )
    interior = ", ".join(f"{axis.padding}:{axis.padding + axis.inputs}" for axis in axes)
    is_padded = padded != tuple(x.shape[2:])
    is_copied = any(axis.taps > 1 or axis.stride > 1 for axis in axes) or is_padded
    by_tap = f"reshape({', '.join(map(str, (channels, *taps, *outputs)))})"
    at_tap = ", ".join(("c", *letters.taps))

    weight = code.parameter(layer.weight, "weight")
    bias = None if layer.bias is None else code.parameter(layer.bias, "bias")
    y = code.new((batch, layer.out_channels, *outputs))
    kernels = f"{weight}.reshape({layer.out_channels}, {rows})"
    images = x.view(*x.shape)
    columns = f"{x.view(batch, rows, places)}[b]"
    if is_copied:
        columns = "columns"

    def windows() -> str:
        """Write the columns of sample b."""
        if not is_copied:
            return ""
        image = "image = images[b]"
        if is_padded:
            image = f"image[:, {interior}] = images[b]"
        lines = {"pixels": "image[c]"}, {"line": f"column[{at_tap}]"}
        copy = slide(loops, *lines, "line[j] = pixels[j]")
        return f"{image}\n{nest({'c': channels}, copy)}"

    def buffers() -> str:
        """Write the arrays that `windows` fills."""
        if not is_copied:
            return ""
        lines = [f"images = {images}", f"columns = np.empty(({rows}, {places}), real)"]
        lines.append(f"column = columns.{by_tap}")
        if is_padded:
            lines.append(f"image = np.zeros(({channels}, {', '.join(map(str, padded))}), real)")
        return "\n".join(lines)

    def each_sample(*parts: str) -> None:
        code(nest({"b": batch}, "\n".join(part for part in parts if part)))

    def out(value: Value) -> str:
        return value.view(batch, layer.out_channels, places)

    add_bias = ""
    if bias is not None:
        body = f"out[b, o, p] += {bias}[o]"
        add_bias = nest({"o": layer.out_channels, "p": places}, body)
    code(f"{buffers()}\nkernels, out = {kernels}, {out(y)}")
    each_sample(windows(), f"np.dot(kernels, {columns}, out[b])", add_bias)

    def backward(dy: Value) -> None:
        if bias is not None and bias.needs_grad:
            with code.gradient(bias) as db:
                code(f"""
                    grads = {out(dy)}
                    {db}[:] = 0
                    for b in range({batch}):
                        for o in range({layer.out_channels}):
                            total = real(0)
                            for p in range({places}):
                                total += grads[b, o, p]
                            {db}[o] += total
                """)
        if weight.needs_grad:
            with code.gradient(weight) as dw:
                code(f"""
                    grads, total = {out(dy)}, {dw}.reshape({layer.out_channels}, {rows})
                    part = np.empty_like(total)
                    total[:] = 0
                """)
                code(buffers())
                each_sample(windows(), f"np.dot(grads[b], {columns}.T, part)\ntotal += part")
        if x.needs_grad:
            with code.gradient(x) as dx:
                code(f"grads, kernels, d_images = {out(dy)}, {kernels}, {dx.view(*x.shape)}")
                if not is_copied:
                    target = f"{dx.view(batch, rows, places)}[b]"
                    each_sample(f"np.dot(kernels.T, grads[b], {target})")
                    return
                code(f"""
                    d_columns = np.empty(({rows}, {places}), real)
                    d_image = np.empty(({channels}, {", ".join(map(str, padded))}), real)
                """)
                code(f"d_column = d_columns.{by_tap}")
                lines = {"pixels": "d_image[c]"}, {"line": f"d_column[{at_tap}]"}
                add = slide(loops, *lines, "pixels[j] += line[j]")
                each_sample(
                    "np.dot(kernels.T, grads[b], d_columns)\nd_image[:] = 0",
                    nest({"c": channels}, add),
                    f"d_images[b] = d_image[:, {interior}]",
                )

    return y, backward


# ---- pooling ----


@form(nn.MaxPool1d, nn.MaxPool2d)
def max_pool(layer: nn.MaxPool1d | nn.MaxPool2d, code: Code, x: Value) -> Any:
    """Y = the largest input of the window; dx = Σ dy over the windows whose first maximum x is.

    NaN counts as larger than every number.
    """
    if layer.return_indices:
        raise TypeError(f"compile: {layer.label} has no compiled form that returns indices")
    axes = layer.axes(fixed(x.shape, 1))
    inputs = letters_of(axes).inputs
    planes = product(x.shape[:2])
    sizes = tuple(axis.outputs for axis in axes)
    y = code.new((*x.shape[:2], *sizes))
    place = code.new(y.shape, "place", "np.int32")
    code(f"""
        a, out = {x.view(planes, *x.shape[2:])}, {y.view(planes, *sizes)}
        places = {place.view(planes, *sizes)}
        {y}[:] = -math.inf
        {place}[:] = -1
    """)
    line = ("start + j" if axes[-1].stride == 1 else f"start + j * {axes[-1].stride}",)
    index = flat((*inputs[:-1], *line), tuple(axis.inputs for axis in axes))
    body = f"""
        value, top = pixels[j], maxima[j]
        is_larger = spots[j] < 0 or (not value <= top and top == top)
        maxima[j] = value if is_larger else top
        spots[j] = {index} if is_larger else spots[j]
    """
    lines = {"pixels": "a[plane]"}, {"maxima": "out[plane]", "spots": "places[plane]"}
    code(nest({"plane": planes}, slide(axes, *lines, body)))
    return y, lambda dy: to_maxima(code, x, dy, place)


def to_maxima(code: Code, x: Value, dy: Value, place: Value) -> None:
    """Write dx, which is dy at the places of the maxima: -1 for none."""
    inputs, outputs = product(x.shape[2:]), product(dy.shape[2:])
    planes = product(x.shape[:2])
    with code.gradient(x) as dx:
        code(f"""
            {dx}[:] = 0
            rows, grads = {dx.view(planes, inputs)}, {dy.view(planes, outputs)}
            places = {place.view(planes, outputs)}
            for plane in range({planes}):
                for i in range({outputs}):
                    if places[plane, i] >= 0:
                        rows[plane, places[plane, i]] += grads[plane, i]
        """)


@form(nn.AvgPool1d, nn.AvgPool2d)
def avg_pool(layer: nn.AvgPool1d | nn.AvgPool2d, code: Code, x: Value) -> Any:
    """Y = Σ x / a over the window, in which a inputs count; dx = Σ dy / a over the windows."""
    axes = layer.axes(fixed(x.shape, 1))
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
        start = _sum(_times(letter, axis.stride), -axis.padding)
        end = f"min({_sum(start, axis.taps)}, {axis.inputs + around})"
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
            top, first = rows[i, 0], 0
            for j in range(1, {count}):
                if not rows[i, j] <= top and top == top:
                    top, first = rows[i, j], j
            {y}[i], {place}[i] = top, first
    """)
    return y, lambda dy: to_maxima(code, x, dy, place)
