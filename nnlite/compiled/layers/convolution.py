"""Convolution: with windows in place or copied, and by Winograd's algorithm."""

from __future__ import annotations

import contextlib
import math
from typing import Any, NamedTuple

import nnlite as nn

from ...engine.axis import Axes, Axis
from ...engine.gather import border
from ..forms import form
from ..routines.channels import FULL_TILE, LONG_LINE
from ..routines.functions import extent
from ..source import Code, Size, Value, joined, nest, of_one_sample, product
from .gather import gathered
from .windows import geometry, letters_of, plus, rows_and_columns, slide, times

Conv = nn.Conv1d | nn.Conv2d

# Weights of a kernel up to which what they are multiplied by stays in the cache.
_MOST_WEIGHTS = 2304
# Windows that are computed in place for each window that is used.
_MOST_WINDOWS = 4
# Channels that fill the vectors of a tile. With fewer, Winograd's sums cost more than they save.
_MANY_CHANNELS = 16
# Columns of the gradient of a row of a kernel that do.
_MANY_COLUMNS = 24


@form(nn.Conv1d, nn.Conv2d)
def convolution(layer: Conv, code: Code, x: Value) -> Any:
    """Y = W X + b with the windows of a sample as the columns of X; dW = dY Xᵀ, dX = Wᵀ dY."""
    axes = layer.axes(of_one_sample(x.shape))
    if layer.padding_mode != "zeros":
        x, axes = _with_border(layer, axes, code, x)
    if _suits_winograd(layer, axes):
        return _by_winograd(layer, axes, code, x)
    shape, groups = layer.weight.shape, layer.groups
    if _suits_channels(shape, groups, axes) or _suits_lines(shape, groups, axes):
        return _in_place(layer, axes, code, x)
    return _by_products(layer, axes, code, x)


def _with_border(layer: Conv, axes: Axes, code: Code, x: Value) -> tuple[Value, Axes]:
    """Return x with its border, and the axes without padding."""
    bare = []
    for index, axis in enumerate(axes, start=2):
        total = axis.span - 1 if layer.padding == "same" else 2 * axis.padding
        positions = border(layer.padding_mode, axis.inputs, axis.padding, total - axis.padding)
        x = gathered(code, x, index, positions)
        bare.append(axis._replace(inputs=len(positions), padding=0))
    return x, tuple(bare)


def _suits_lines(shape: tuple[int, ...], groups: int, axes: Axes) -> bool:
    # Products of many small groups cost more than windows that are not used.
    most_windows = 1 if groups == 1 else _MOST_WINDOWS
    is_dense = math.prod(axis.stride for axis in axes) <= most_windows
    has_taps = math.prod(axis.taps for axis in axes) > 1
    return is_dense and has_taps and math.prod(shape[1:]) <= _MOST_WEIGHTS


def _suits_channels(shape: tuple[int, ...], groups: int, axes: Axes) -> bool:
    has_taps = math.prod(axis.taps for axis in axes) > 1
    return has_taps and min(shape[0] // groups, shape[1]) >= _MANY_CHANNELS


def _suits_winograd(layer: Conv, axes: Axes) -> bool:
    is_wide = layer.groups == 1 and min(layer.in_channels, layer.out_channels) >= _MANY_CHANNELS
    kernel = [(axis.taps, axis.stride, axis.dilation) for axis in axes]
    return is_wide and kernel == [(3, 1, 1)] * 2


def _bias_gradient(code: Code, bias: Value | None, dy: Value) -> None:
    """Write db, the sum of dy for each channel."""
    if bias is None or not bias.needs_grad:
        return
    with code.gradient(bias) as db:
        code(f"channel_sums({dy.view(*dy.shape[:2], product(dy.shape[2:]))}, {db})")


# ---- matrix products ----


class _Windows(NamedTuple):
    """The windows of an image (C, H, W), as an array (C, kH, kW, H', W') of their values.

    No window reaches beyond an end of the padded image.
    """

    channels: int
    axes: Axes

    @property
    def shape(self) -> str:
        """The shape of the array, in the source."""
        taps, outputs = [axis.taps for axis in self.axes], [axis.outputs for axis in self.axes]
        return ", ".join(map(str, (self.channels, *taps, *outputs)))

    @property
    def places(self) -> int:
        """Number of windows of a channel."""
        return math.prod(axis.outputs for axis in self.axes)

    @property
    def padded(self) -> tuple[int, ...]:
        """The sizes of the padded image."""
        return tuple(_extent(axis) for axis in self.axes)

    def rows(self, groups: int) -> int:
        """Return the number of values of a window in the channels of a group."""
        return self.channels // groups * math.prod(axis.taps for axis in self.axes)

    def empty_image(self, function: str) -> str:
        """Return the call of NumPy's `function` that makes a padded image."""
        return f"np.{function}(({self.channels}, {', '.join(map(str, self.padded))}), real)"

    def each_pixel(self, statement: str) -> str:
        """Return loops over the pixels: {pixel} in the image, and {place} in the padded one."""
        letters = letters_of(self.axes).inputs
        sizes: dict[str, Size] = {"c": self.channels}
        sizes |= zip(letters, (axis.inputs for axis in self.axes), strict=True)
        place = ("c", *map(plus, letters, [axis.padding for axis in self.axes]))
        return nest(sizes, statement.format(pixel=", ".join(sizes), place=", ".join(place)))

    def each_tap(self, image: str, windows: str, statement: str) -> str:
        """Return loops over pixels[j] of the padded `image` and line[j] of the `windows`."""
        loops = tuple(
            axis._replace(inputs=size, padding=0)
            for axis, size in zip(self.axes, self.padded, strict=True)
        )
        taps = ", ".join(("c", *letters_of(self.axes).taps))
        lines = {"pixels": f"{image}[c]"}, {"line": f"{windows}[{taps}]"}
        return nest({"c": self.channels}, slide(loops, *lines, statement))


def _extent(axis: Axis) -> int:
    """Return the number of positions along an axis, with padding."""
    return extent(axis.inputs, axis.outputs, axis.taps, axis.stride, axis.padding, axis.dilation)


def _by_products(layer: Conv, axes: Axes, code: Code, x: Value) -> Any:
    """Matrix products of copied windows (im2col): the columns of a matrix for each group.

    An input gets the sum of dX over the windows that it lies in.
    """
    windows = _Windows(layer.in_channels, axes)
    batch, groups = x.shape[0], layer.groups
    out_channels = layer.out_channels // groups
    rows, places = windows.rows(groups), windows.places
    is_padded = windows.padded != tuple(x.shape[2:])
    is_copied = any(axis.taps > 1 or axis.stride > 1 for axis in axes) or is_padded

    weight = code.parameter(layer.weight, "weight")
    bias = None if layer.bias is None else code.parameter(layer.bias, "bias")
    y = code.new((batch, layer.out_channels, *(axis.outputs for axis in axes)))
    kernels = f"{weight}.reshape({groups}, {out_channels}, {rows})"
    images = x.view(*x.shape)
    columns = f"{x.view(batch, groups, rows, places)}[b]"
    if is_copied:
        columns = "columns"

    def load() -> str:
        """Write the columns of sample b."""
        if not is_copied:
            return ""
        image = "image = images[b]"
        if is_padded:
            image = windows.each_pixel("image[{place}] = images[b, {pixel}]")
        return joined(image, windows.each_tap("image", "column", "line[j] = pixels[j]"))

    def buffers() -> str:
        """Write the arrays that `load` fills."""
        if not is_copied:
            return ""
        lines = [f"images = {images}", f"columns = np.empty(({groups}, {rows}, {places}), real)"]
        lines.append(f"column = columns.reshape({windows.shape})")
        if is_padded:
            lines.append(f"image = {windows.empty_image('zeros')}")
        return "\n".join(lines)

    def each_sample(*parts: str) -> None:
        code(nest({"b": batch}, "\n".join(part for part in parts if part)))

    def out(value: Value) -> str:
        return value.view(batch, groups, out_channels, places)

    def each_group(statements: str) -> str:
        return nest({"g": groups}, statements)

    add_bias = ""
    if bias is not None:
        body = f"out[b, g, o, p] += {bias}[{plus(times('g', out_channels), 'o')}]"
        add_bias = nest({"g": groups, "o": out_channels, "p": places}, body)
    code(f"{buffers()}\nkernels, out = {kernels}, {out(y)}")
    each_sample(load(), each_group(f"matmul(kernels[g], {columns}[g], out[b, g])"), add_bias)

    def backward(dy: Value) -> None:
        _bias_gradient(code, bias, dy)
        if weight.needs_grad:
            with code.gradient(weight) as dw:
                code(f"""
                    grads, total = {out(dy)}, {dw}.reshape({groups}, {out_channels * rows})
                    product = np.empty(({out_channels}, {rows}), real)
                    part = product.reshape(-1)
                    total[:] = 0
                """)
                code(buffers())
                add = joined(
                    f"dot_rows(grads[b, g], {columns}[g], product)",
                    nest({"k": out_channels * rows}, "total[g, k] += part[k]"),
                )
                each_sample(load(), each_group(add))
        if x.needs_grad:
            with code.gradient(x) as dx:
                code(f"grads, kernels, d_images = {out(dy)}, {kernels}, {dx.view(*x.shape)}")
                if not is_copied:
                    target = f"{dx.view(batch, groups, rows, places)}[b, g]"
                    each_sample(each_group(f"dot_columns(kernels[g], grads[b, g], {target})"))
                    return
                code(f"""
                    d_columns = np.empty(({groups}, {rows}, {places}), real)
                    d_image = {windows.empty_image("empty")}
                    d_column = d_columns.reshape({windows.shape})
                """)
                each_sample(
                    each_group("dot_columns(kernels[g], grads[b, g], d_columns[g])"),
                    "d_image[:] = 0",
                    windows.each_tap("d_image", "d_column", "pixels[j] += line[j]"),
                    windows.each_pixel("d_images[b, {pixel}] = d_image[{place}]"),
                )

    return y, backward


# ---- windows in place ----


def _in_place(layer: Conv, axes: Axes, code: Code, x: Value) -> Any:
    """Products of windows: see `correlation` and `channels`."""
    rows, columns = rows_and_columns(axes)
    weight = code.parameter(layer.weight, "weight")
    bias = None if layer.bias is None else code.parameter(layer.bias, "bias")
    y = code.new((x.shape[0], layer.out_channels, *(axis.outputs for axis in axes)))
    images = x.view(*x.shape[:2], rows.inputs, columns.inputs)
    kernels = _of_images(weight)
    options = geometry(axes, "padding", "stride", "dilation")
    forward, of_kernels, of_images = _routines(layer.weight.shape, layer.groups, axes)

    def results(value: Value) -> str:
        return value.view(*y.shape[:2], rows.outputs, columns.outputs)

    shift = f"{bias}" if bias else f"np.zeros({layer.out_channels}, real)"
    code(f"{forward}({images}, {kernels}, {shift}, {results(y)}, {options})")

    def backward(dy: Value) -> None:
        _bias_gradient(code, bias, dy)
        grads = results(dy)
        if weight.needs_grad:
            with code.gradient(weight) as dw:
                code(f"{of_kernels}({images}, {grads}, {_of_images(dw)}, {options})")
        if x.needs_grad:
            with code.gradient(x) as dx:
                d_images = dx.view(*x.shape[:2], rows.inputs, columns.inputs)
                code(f"{of_images}({grads}, {kernels}, {d_images}, {options})")

    return y, backward


def _of_images(kernels: Value) -> str:
    """Return kernels as those of images; a kernel of sequences is one of a single row."""
    *channels, taps = kernels.shape
    return f"{kernels}" if len(kernels.shape) == 4 else kernels.view(*channels, 1, taps)


def _routines(shape: tuple[int, ...], groups: int, axes: Axes) -> tuple[str, str, str]:
    """Return the routines for the result and for the gradients of the kernels and the images.

    The kernels are of this shape.
    """
    count, channels = shape[0] // groups, shape[1]
    is_long = math.prod(axis.outputs for axis in axes) >= LONG_LINE
    suits_lines = _suits_lines(shape, groups, axes)
    suits_channels = _suits_channels(shape, groups, axes)

    def in_lines(columns: int) -> bool:
        return suits_lines and (is_long or not suits_channels or columns < FULL_TILE)

    columns = channels * (axes[-1].taps if axes[-1].dilation == 1 else 1)
    has_columns = suits_channels or columns >= _MANY_COLUMNS
    return (
        "correlate" if in_lines(count) else "convolve",
        "convolve_kernels" if has_columns else "correlate_kernels",
        "correlate_images" if in_lines(channels) else "convolve_images",
    )


# ---- transposed ----


@form(nn.ConvTranspose1d, nn.ConvTranspose2d)
def transposed_convolution(
    layer: nn.ConvTranspose1d | nn.ConvTranspose2d, code: Code, x: Value
) -> Any:
    """Y = Wᵀ X summed over windows; dX = W dY and dW = X dYᵀ with the windows of dY as columns.

    It is the input gradient of the convolution of these `axes`, whose input is y and output x.
    """
    axes = layer.axes(of_one_sample(x.shape))
    shape, groups = layer.weight.shape, layer.groups
    if _suits_channels(shape, groups, axes) and shape[1] >= FULL_TILE:
        return _transposed_in_place(layer, axes, code, x)
    windows = _Windows(layer.out_channels, axes)
    batch, in_channels = x.shape[0], layer.in_channels // groups
    rows, places = windows.rows(groups), windows.places
    weight = code.parameter(layer.weight, "weight")
    bias = None if layer.bias is None else code.parameter(layer.bias, "bias")
    y = code.new((batch, layer.out_channels, *(axis.inputs for axis in axes)))

    def matrices(value: Value) -> str:
        return value.view(batch, groups, in_channels, places)

    def buffers(function: str) -> str:
        return f"""
            columns = np.empty(({groups}, {rows}, {places}), real)
            column = columns.reshape({windows.shape})
            image = {windows.empty_image(function)}
            kernels = {weight}.reshape({groups}, {in_channels}, {rows})
        """

    code(buffers("empty"))
    code(f"lines, images = {matrices(x)}, {y.view(*y.shape)}")
    shift = f" + {bias}[c]" if bias else ""
    each_sample = joined(
        nest({"g": groups}, "dot_columns(kernels[g], lines[b, g], columns[g])"),
        "image[:] = 0",
        windows.each_tap("image", "column", "pixels[j] += line[j]"),
        windows.each_pixel("images[b, {pixel}] = image[{place}]" + shift),
    )
    code(nest({"b": batch}, each_sample))

    def backward(dy: Value) -> None:
        _bias_gradient(code, bias, dy)
        load = joined(
            windows.each_pixel("image[{place}] = grads[b, {pixel}]"),
            windows.each_tap("image", "column", "line[j] = pixels[j]"),
        )
        if weight.needs_grad or x.needs_grad:
            code(buffers("zeros"))
            code(f"grads, lines = {dy.view(*dy.shape)}, {matrices(x)}")
        if weight.needs_grad:
            with code.gradient(weight) as dw:
                code(f"""
                    total = {dw}.reshape({groups}, {in_channels * rows})
                    product = np.empty(({in_channels}, {rows}), real)
                    part = product.reshape(-1)
                    total[:] = 0
                """)
                add = joined(
                    "dot_rows(lines[b, g], columns[g], product)",
                    nest({"k": in_channels * rows}, "total[g, k] += part[k]"),
                )
                code(nest({"b": batch}, joined(load, nest({"g": groups}, add))))
        if x.needs_grad:
            with code.gradient(x) as dx:
                code(f"flows = {matrices(dx)}")
                multiply = nest({"g": groups}, "matmul(kernels[g], columns[g], flows[b, g])")
                code(nest({"b": batch}, joined(load, multiply)))

    return y, backward


def _transposed_in_place(
    layer: nn.ConvTranspose1d | nn.ConvTranspose2d, axes: Axes, code: Code, x: Value
) -> Any:
    """Write the gradient of the images of a convolution as y, and the convolution of dy as dx."""
    rows, columns = rows_and_columns(axes)
    weight = code.parameter(layer.weight, "weight")
    bias = None if layer.bias is None else code.parameter(layer.bias, "bias")
    y = code.new((x.shape[0], layer.out_channels, *(axis.inputs for axis in axes)))
    kernels = _of_images(weight)
    options = geometry(axes, "padding", "stride", "dilation")
    forward, of_kernels, of_images = _routines(layer.weight.shape, layer.groups, axes)

    def smaller(value: Value) -> str:
        return value.view(*x.shape[:2], rows.outputs, columns.outputs)

    def larger(value: Value) -> str:
        return value.view(*y.shape[:2], rows.inputs, columns.inputs)

    code(f"{of_images}({smaller(x)}, {kernels}, {larger(y)}, {options})")
    if bias is not None:
        places = product(y.shape[2:])
        code(f"lines = {y.view(*y.shape[:2], places)}")
        loops = {"b": x.shape[0], "c": layer.out_channels, "p": places}
        code(nest(loops, f"lines[b, c, p] += {bias}[c]"))

    def backward(dy: Value) -> None:
        _bias_gradient(code, bias, dy)
        if weight.needs_grad:
            with code.gradient(weight) as dw:
                code(f"{of_kernels}({larger(dy)}, {smaller(x)}, {_of_images(dw)}, {options})")
        if x.needs_grad:
            with code.gradient(x) as dx:
                zeros = f"np.zeros({layer.in_channels}, real)"
                given = f"{larger(dy)}, {kernels}, {zeros}, {smaller(dx)}"
                code(f"{forward}({given}, {options})")

    return y, backward


# ---- Winograd's algorithm ----


def _by_winograd(layer: Conv, axes: Axes, code: Code, x: Value) -> Any:
    """Winograd's algorithm for kernels of 3x3: see `winograd`."""
    rows, columns = axes
    weight = code.parameter(layer.weight, "weight")
    bias = None if layer.bias is None else code.parameter(layer.bias, "bias")
    y = code.new((x.shape[0], layer.out_channels, rows.outputs, columns.outputs))
    shift = f"{bias}" if bias else f"np.zeros({layer.out_channels}, real)"
    code(f"winograd({x.view(*x.shape)}, {weight}, {shift}, {y.view(*y.shape)})")

    def backward(dy: Value) -> None:
        grads = dy.view(*y.shape)
        _bias_gradient(code, bias, dy)
        of_kernels = of_images = "np.empty((0, 0, 0, 0), real)"  # to be left out
        with contextlib.ExitStack() as gradients:
            if weight.needs_grad:
                of_kernels = str(gradients.enter_context(code.gradient(weight)))
            if x.needs_grad:
                of_images = gradients.enter_context(code.gradient(x)).view(*x.shape)
            given = f"{x.view(*x.shape)}, {grads}, {weight}"
            code(f"winograd_backward({given}, {of_kernels}, {of_images})")

    return y, backward
