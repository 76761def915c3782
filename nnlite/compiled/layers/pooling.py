"""Pooling, of sequences and of images."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

import nnlite as nn

from ...engine.axis import Axes
from ..forms import form
from ..source import (
    Code,
    Shape,
    Size,
    Value,
    joined,
    largest,
    nest,
    numbers,
    of_one_sample,
    product,
)
from .windows import geometry, letters_of, plus, rows_and_columns, slide, times


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
    body = f"""
        first = {count}
        for j in range({count}):
            is_top = (rows[i, j] == top) | (rows[i, j] != rows[i, j])
            first = min(first, j if is_top else {count})
        {y}[i], {place}[i] = top, first
    """
    code(f"rows = {x.view(planes, count)}")
    code(nest({"i": planes}, joined(largest(count, lambda j: f"rows[i, {j}]"), body)))
    return y, lambda dy: to_maxima(code, x, dy, place)


# ---- adaptive pooling ----


def _windows(layer: Any, code: Code, x: Value) -> tuple[Shape, tuple[Size, ...], str]:
    """Return the output's shape, that of a plane as an image, and the loops over a window."""
    shape = of_one_sample(x.shape)
    windows = layer.windows(shape)
    outputs: Shape = (*x.shape[:2], *map(len, windows))
    image: tuple[Size, ...] = (product(x.shape[:2]), *((1,) * (4 - len(shape))), *x.shape[2:])
    loops = []
    for letter, place, parts in zip(
        "ij", "hw", [[slice(0, 1)]] * (4 - len(shape)) + windows, strict=True
    ):
        bounds = np.array([(part.start, part.stop) for part in parts])
        name = code.argument("bounds", bounds)
        loops.append(f"for {place} in range({name}[{letter}, 0], {name}[{letter}, 1]):")
    return outputs, image, "\n    ".join(loops)


def _without_overlap(
    layer: Any, code: Code, x: Value, of_plane: Any, pool: Any, kinds: tuple[Any, Any]
) -> Any:
    """Write pooling of equal windows that do not overlap, as the layers of a kernel do it.

    `of_plane` writes that of a single window, and `pool` that of a layer, which is of one of the
    `kinds`. Return None if the windows are others.
    """
    sizes = numbers(x.shape[2:])
    counts = [len(windows) for windows in layer.windows(of_one_sample(x.shape))]
    if any(size % count for size, count in zip(sizes, counts, strict=True)):
        return None
    if set(counts) == {1}:
        y, backward = of_plane(layer, code, x)
        return y.with_shape((*y.shape, *counts)), backward
    kernel = tuple(size // count for size, count in zip(sizes, counts, strict=True))
    kind = kinds[len(kernel) - 1]
    return pool(kind(kernel), code, x)


@form(nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d)
def adaptive_avg_pool(layer: Any, code: Code, x: Value) -> Any:
    """Y = the mean of a window; dx = Σ dy / a over the windows of a inputs."""
    kinds = nn.AvgPool1d, nn.AvgPool2d
    pooled = _without_overlap(layer, code, x, global_avg_pool, avg_pool, kinds)
    if pooled is not None:
        return pooled
    outputs, image, loops = _windows(layer, code, x)
    y = code.new(outputs)
    sizes: dict[str, Size] = {
        "p": image[0], "i": outputs[2] if len(outputs) == 4 else 1, "j": outputs[-1]
    }  # fmt: skip
    code(f"a, b = {x.view(*image)}, {y.view(*sizes.values())}")
    code(nest(sizes, f"""
total, count = real(0), 0
{loops}
        total += a[p, h, w]
        count += 1
b[p, i, j] = total / real(count)
"""))  # fmt: skip

    def backward(dy: Value) -> None:
        with code.gradient(x) as dx:
            code(f"d, g = {dx.view(*image)}, {dy.view(*sizes.values())}\n{dx}[:] = 0")
            code(nest(sizes, f"""
count = 0
{loops}
        count += 1
{loops}
        d[p, h, w] += g[p, i, j] / real(count)
"""))  # fmt: skip

    return y, backward


@form(nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d)
def adaptive_max_pool(layer: Any, code: Code, x: Value) -> Any:
    """Y = the largest input of a window; dx = Σ dy over the windows whose first maximum x is."""
    if layer.return_indices:
        raise TypeError(f"compile: {layer.label} has no compiled form that returns indices")
    kinds = nn.MaxPool1d, nn.MaxPool2d
    pooled = _without_overlap(layer, code, x, global_max_pool, max_pool, kinds)
    if pooled is not None:
        return pooled
    outputs, image, loops = _windows(layer, code, x)
    y = code.new(outputs)
    place = code.new(outputs, "place", "np.int32")
    sizes: dict[str, Size] = {
        "p": image[0], "i": outputs[2] if len(outputs) == 4 else 1, "j": outputs[-1]
    }  # fmt: skip
    views = [each.view(*sizes.values()) for each in (y, place)]
    code(f"a, b, places = {x.view(*image)}, {', '.join(views)}")
    code(nest(sizes, f"""
top, first = real(-math.inf), -1
{loops}
        if first < 0 or (not a[p, h, w] <= top and top == top):
            top, first = a[p, h, w], h * {image[-1]} + w
b[p, i, j], places[p, i, j] = top, first
"""))  # fmt: skip
    return y, lambda dy: to_maxima(code, x, dy, place)
