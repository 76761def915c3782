"""Layers that reshape, reorder, join and take parts of arrays."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

import nnlite as nn

from ...layers.shape import filled
from ..forms import form
from ..source import (
    Code,
    Shape,
    Size,
    Value,
    counted_axis,
    lines_along,
    nest,
    number,
    numbers,
    product,
)


@form(nn.Flatten)
def flatten(layer: nn.Flatten, code: Code, x: Value) -> Value:
    """Every value is a flat array already."""
    rank = len(x.shape)
    start, end = layer.start_dim % rank, layer.end_dim % rank
    merged = _size(x.shape[start : end + 1])
    return x.with_shape((*x.shape[:start], merged, *x.shape[end + 1 :]))


@form(nn.Reshape)
def reshape(layer: nn.Reshape, code: Code, x: Value) -> Value:
    """Every value is a flat array already."""
    sizes = layer.shape
    if -1 in sizes:
        rest = math.prod(numbers(x.shape[1:]))
        sizes = tuple(rest // -int(np.prod(sizes)) if size == -1 else size for size in sizes)
    return x.with_shape((x.shape[0], *sizes))


def _size(sizes: Shape) -> Size:
    text = product(sizes)
    return int(text) if text.isdecimal() else text


@form(nn.Identity)
def identity(layer: nn.Identity, code: Code, x: Value) -> Value:
    """Y = x."""
    return x


@form(nn.Squeeze)
def squeeze(layer: nn.Squeeze, code: Code, x: Value) -> Value:
    """Every value is a flat array already."""
    axis = counted_axis(layer.dim, x.shape)
    return x.with_shape((*x.shape[:axis], *x.shape[axis + 1 :]))


@form(nn.Unsqueeze)
def unsqueeze(layer: nn.Unsqueeze, code: Code, x: Value) -> Value:
    """Every value is a flat array already."""
    axis = layer.dim % (len(x.shape) + 1)
    return x.with_shape((*x.shape[:axis], 1, *x.shape[axis:]))


@form(nn.Unflatten)
def unflatten(layer: nn.Unflatten, code: Code, x: Value) -> Value:
    """Every value is a flat array already."""
    axis = counted_axis(layer.dim, x.shape)
    sizes = filled(layer.unflattened_size, number(x.shape[axis])) or ()
    return x.with_shape((*x.shape[:axis], *sizes, *x.shape[axis + 1 :]))


@form(nn.Permute)
def permute(layer: nn.Permute, code: Code, x: Value) -> Any:
    """Copy every element to its place, and its gradient back."""
    axes = [dim % len(x.shape) for dim in layer.dims]
    y = code.new(tuple(x.shape[axis] for axis in axes))
    sizes: dict[str, Size] = {f"i{axis}": size for axis, size in enumerate(x.shape)}
    of_x = ", ".join(sizes)
    of_y = ", ".join(f"i{axis}" for axis in axes)
    code(f"a, b = {x.view(*x.shape)}, {y.view(*y.shape)}")
    code(nest(sizes, f"b[{of_y}] = a[{of_x}]"))

    def backward(dy: Value) -> None:
        with code.gradient(x) as dx:
            code(f"a, b = {dx.view(*x.shape)}, {dy.view(*y.shape)}")
            code(nest(sizes, f"a[{of_x}] = b[{of_y}]"))

    return y, backward


@form(nn.Slice)
def slice_(layer: nn.Slice, code: Code, x: Value) -> Any:
    """Copy a part along an axis; the gradient of the rest is 0."""
    axis = counted_axis(layer.dim, x.shape)
    places = range(number(x.shape[axis]))[layer.start : layer.stop : layer.step]
    y = code.new((*x.shape[:axis], len(places), *x.shape[axis + 1 :]))
    _copy(code, axis, x, y, places)

    def backward(dy: Value) -> None:
        with code.gradient(x) as dx:
            code(f"{dx}[:] = 0")
            _copy(code, axis, dx, dy, places, back=True)

    return y, backward


@form(nn.Split)
def split(layer: nn.Split, code: Code, x: Value) -> Any:
    """Copy the parts along an axis."""
    axis = counted_axis(layer.dim, x.shape)
    parts, start = [], 0
    for size in layer.sections(number(x.shape[axis])):
        y = code.new((*x.shape[:axis], size, *x.shape[axis + 1 :]))
        _copy(code, axis, x, y, range(start, start + size))
        parts.append((y, range(start, start + size)))
        start += size

    def backward(*grads: Value) -> None:
        with code.gradient(x) as dx:
            for (_, places), dy in zip(parts, grads, strict=True):
                _copy(code, axis, dx, dy, places, back=True)

    return tuple(y for y, _ in parts), backward


@form(nn.Concatenate)
def concatenate(layer: nn.Concatenate, code: Code, *inputs: Value) -> Any:
    """Copy the inputs side by side."""
    axis = counted_axis(layer.dim, inputs[0].shape)
    return _joined(code, axis, inputs)


@form(nn.Stack)
def stack(layer: nn.Stack, code: Code, *inputs: Value) -> Any:
    """Copy the inputs side by side, along a new axis."""
    shape = inputs[0].shape
    axis = layer.dim % (len(shape) + 1)
    with_axis = (*shape[:axis], 1, *shape[axis:])
    return _joined(code, axis, [x.with_shape(with_axis) for x in inputs])


def _joined(code: Code, axis: int, inputs: Any) -> Any:
    sizes = [number(x.shape[axis]) for x in inputs]
    shape = inputs[0].shape
    y = code.new((*shape[:axis], sum(sizes), *shape[axis + 1 :]))
    places = [range(sum(sizes[:k]), sum(sizes[: k + 1])) for k in range(len(sizes))]
    for x, part in zip(inputs, places, strict=True):
        _copy(code, axis, y, x, part, back=True)

    def backward(dy: Value) -> None:
        for x, part in zip(inputs, places, strict=True):
            if x.needs_grad:
                with code.gradient(x) as dx:
                    _copy(code, axis, dy, dx, part)

    return y, backward


def _copy(
    code: Code, axis: int, whole: Value, part: Value, places: range, back: bool = False
) -> None:
    """Write the copy of `places` of an axis of `whole` to `part`, or back."""
    before, size, behind = lines_along(whole.shape, axis)
    code(f"a = {whole.view(before, size, behind)}")
    code(f"b = {part.view(before, part.shape[axis], behind)}")
    place = f"a[i, {places.start} + j * {places.step}, k]"
    body = f"{place} = b[i, j, k]" if back else f"b[i, j, k] = {place}"
    code(nest({"i": before, "j": len(places), "k": behind}, body))
