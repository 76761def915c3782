"""Borders, enlarged images and adaptive pooling."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

import nnlite as nn

from ..engine.arrays import Array
from ..engine.gather import border
from .forms import form
from .source import Code, Shape, Size, Value, nest, number, numbers, of_one_sample, product
from .windows import avg_pool, global_avg_pool, global_max_pool, max_pool, plus, to_maxima

# ---- values at chosen positions ----


def gathered(code: Code, x: Value, axis: int, positions: Array, t: Array | None = None) -> Value:
    """Write y_i = x_k along an axis, or (1 - t) x_k + t x_(k+1), and keep its backward."""
    size = number(x.shape[axis])
    before, behind = product(x.shape[:axis]), product(x.shape[axis + 1 :])
    shape: Shape = (*x.shape[:axis], len(positions), *x.shape[axis + 1 :])
    y = code.new(shape)
    k = code.each_call("positions", functools.partial(_unchanged, positions.astype(np.int64)))
    sizes: dict[str, Size] = {"i": before, "o": len(positions), "j": behind}
    if t is None:
        at, back = f"a[i, {k}[o], j]", f"d[i, {k}[o], j] += g[i, o, j]"
    else:
        part = code.each_call("parts", functools.partial(_unchanged, t.astype(code.dtype)))
        following = f"min({k}[o] + 1, {size - 1})"
        at = f"(real(1) - {part}[o]) * a[i, {k}[o], j] + {part}[o] * a[i, {following}, j]"
        back = (
            f"d[i, {k}[o], j] += (real(1) - {part}[o]) * g[i, o, j]\n"
            f"d[i, {following}, j] += {part}[o] * g[i, o, j]"
        )
    code(f"a, b = {x.view(before, size, behind)}, {y.view(*sizes.values())}")
    code(nest(sizes, f"b[i, o, j] = {at}"))

    def backward(dy: Value) -> None:
        with code.gradient(x) as dx:
            code(f"d, g = {dx.view(before, size, behind)}, {dy.view(*sizes.values())}")
            code(f"{dx}[:] = 0")
            code(nest(sizes, back))

    code.tape(y, backward)
    return Value(y.name, y.shape, x.needs_grad)


@form(
    *(nn.ReflectionPad1d, nn.ReflectionPad2d, nn.ReplicationPad1d, nn.ReplicationPad2d),
    *(nn.CircularPad1d, nn.CircularPad2d),
)
def repeating_pad(layer: Any, code: Code, x: Value) -> Value:
    """Write each axis with its border, one after the other."""
    for axis, (before, after) in enumerate(layer.borders(), start=2):
        x = gathered(code, x, axis, border(layer.mode, number(x.shape[axis]), before, after))
    return x


@form(nn.ConstantPad1d, nn.ConstantPad2d, nn.ZeroPad1d, nn.ZeroPad2d)
def constant_pad(layer: Any, code: Code, x: Value) -> Any:
    """Y is x inside a border of a constant; dx is that part of dy."""
    borders = layer.borders()
    letters = ("h", "w")[-len(borders) :]
    sizes = [
        before + number(size) + after
        for size, (before, after) in zip(x.shape[2:], borders, strict=True)
    ]
    y = code.new((*x.shape[:2], *sizes))
    loops: dict[str, Size] = dict(zip(("i", "c", *letters), x.shape, strict=True))
    inside = map(plus, letters, [before for before, _ in borders])
    at, at_inside = ", ".join(loops), ", ".join(("i", "c", *inside))
    code(f"{y}[:] = {layer.value!r}\na, b = {x.view(*x.shape)}, {y.view(*y.shape)}")
    code(nest(loops, f"b[{at_inside}] = a[{at}]"))

    def backward(dy: Value) -> None:
        with code.gradient(x) as dx:
            code(f"b, g = {dx.view(*x.shape)}, {dy.view(*dy.shape)}")
            code(nest(loops, f"b[{at}] = g[{at_inside}]"))

    return y, backward


@form(nn.Upsample)
def upsample(layer: nn.Upsample, code: Code, x: Value) -> Value:
    """Write the columns, then the rows."""
    rank = len(x.shape) - 2
    for axis in reversed(range(2, len(x.shape))):
        x = gathered(code, x, axis, *layer.positions(axis - 2, rank, number(x.shape[axis])))
    return x


@form(nn.PixelShuffle)
def pixel_shuffle(layer: nn.PixelShuffle, code: Code, x: Value) -> Any:
    """Y[n, c, h r + i, w r + j] = x[n, c r² + i r + j, h, w]."""
    r = layer.upscale_factor
    batch, channels, height, width = (x.shape[0], *numbers(x.shape[1:]))
    y = code.new((batch, channels // r**2, height * r, width * r))
    planes = product((batch, channels // r**2))
    inner, outer = (planes, r, r, height, width), (planes, height, r, width, r)
    sizes: dict[str, Size] = dict(zip("cijhw", inner, strict=True))
    code(f"a, b = {x.view(*inner)}, {y.view(*outer)}")
    code(nest(sizes, "b[c, h, i, w, j] = a[c, i, j, h, w]"))

    def backward(dy: Value) -> None:
        with code.gradient(x) as dx:
            code(f"a, b = {dx.view(*inner)}, {dy.view(*outer)}")
            code(nest(sizes, "a[c, i, j, h, w] = b[c, h, i, w, j]"))

    return y, backward


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
        name = code.each_call("bounds", functools.partial(_unchanged, bounds))
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


def _unchanged(array: Array, n: int) -> Array:
    """Return an array for a batch of any size."""
    return array


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
