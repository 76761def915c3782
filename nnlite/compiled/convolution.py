"""Convolution, in three ways: matrix products, loops, and Winograd's algorithm."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import nnlite as nn

from ..engine.windows import Axes, Axis
from .forms import form
from .kernels import grouped_convolution
from .source import Code, Size, Value, fixed, joined, nest, product
from .windows import letters_of, plus, slide, times

Conv = nn.Conv1d | nn.Conv2d

# Up to these numbers of channels loops are faster than products of small matrices.
_FEW_INPUTS, _FEW_OUTPUTS = 16, 32
# Taps of a row for loops, which keep them in registers.
_MOST_TAPS = 7
# From this number of channels on Winograd's algorithm saves more than its sums cost.
_MANY_CHANNELS = 16
# The axis of rows for a sequence, which has none.
_ONE_ROW = Axis(inputs=1, outputs=1, taps=1, stride=1, padding=0, dilation=1)


@form(nn.Conv1d, nn.Conv2d)
def convolution(layer: Conv, code: Code, x: Value) -> Any:
    """Y = W X + b with the windows of a sample as the columns of X; dW = dY Xᵀ, dX = Wᵀ dY."""
    if layer.groups > 1 or layer.padding_mode != "zeros":
        return grouped_convolution(layer, code, x)
    axes = layer.axes(fixed(x.shape, 1))
    channels = layer.in_channels, layer.out_channels
    # The other ways compute dX as a convolution of dY, padded, with the turned kernels.
    if all(axis.stride == 1 and axis.padding < axis.span for axis in axes):
        if _suits_loops(axes, *channels):
            return _by_loops(layer, code, x)
        kernel = [(axis.taps, axis.dilation) for axis in axes]
        if kernel == [(3, 1), (3, 1)] and min(channels) >= _MANY_CHANNELS:
            return _by_winograd(layer, code, x)
    return _by_products(layer, code, x)


def _suits_loops(axes: Axes, in_channels: int, out_channels: int) -> bool:
    is_narrow = in_channels <= _FEW_INPUTS and out_channels <= _FEW_OUTPUTS
    return is_narrow and 1 < axes[-1].taps <= _MOST_TAPS


def _bias_gradient(code: Code, bias: Value | None, dy: Value) -> None:
    """Write db, the sum of dy for each channel."""
    if bias is None or not bias.needs_grad:
        return
    batch, channels, places = *dy.shape[:2], product(dy.shape[2:])
    with code.gradient(bias) as db:
        code(f"""
            grads = {dy.view(batch, channels, places)}
            for o in range({channels}):
                total = real(0)
                for b in range({batch}):
                    line = grads[b, o]
                    for p in range({places}):
                        total += line[p]
                {db}[o] = total
        """)


# ---- matrix products ----


def _by_products(layer: Conv, code: Code, x: Value) -> Any:
    """Matrix products: the windows of a sample are copied to the columns of a matrix.

    An input gets the sum of dX over the windows that it lies in.
    """
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
    each_input: dict[str, Size] = {"c": channels}
    each_input |= zip(letters.inputs, (axis.inputs for axis in axes), strict=True)
    at_input = ", ".join(each_input)
    in_padded = ", ".join(("c", *map(plus, letters.inputs, [axis.padding for axis in axes])))
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
            image = nest(each_input, f"image[{in_padded}] = images[b, {at_input}]")
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
        _bias_gradient(code, bias, dy)
        if weight.needs_grad:
            with code.gradient(weight) as dw:
                code(f"""
                    grads, total = {out(dy)}, {dw}.reshape(-1)
                    product = np.empty(({layer.out_channels}, {rows}), real)
                    part = product.reshape(-1)
                    for k in range({layer.out_channels * rows}):
                        total[k] = 0
                """)
                code(buffers())
                each_sample(
                    windows(),
                    f"np.dot(grads[b], {columns}.T, product)",
                    nest({"k": layer.out_channels * rows}, "total[k] += part[k]"),
                )
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
                    nest(each_input, f"d_images[b, {at_input}] = d_image[{in_padded}]"),
                )

    return y, backward


# ---- loops ----


class _Lines(NamedTuple):
    """The padded channels of a sample, each as one line of pixels, row after row.

    Window p begins at pixel p, so that a row of the kernel is one loop over the windows. Those that
    begin too far to the right are computed too; they are not used.
    """

    rows: Axis
    columns: Axis

    @property
    def width(self) -> int:
        """Pixels of a row."""
        return self.columns.outputs + self.columns.span - 1

    @property
    def pixels(self) -> int:
        """Pixels of a channel."""
        return (self.rows.outputs + self.rows.span - 1) * self.width

    @property
    def windows(self) -> int:
        """Number of windows."""
        return (self.rows.outputs - 1) * self.width + self.columns.outputs

    @property
    def is_padded(self) -> bool:
        """Whether there are pixels beside those of the image."""
        return self.pixels != self.rows.inputs * self.columns.inputs

    def each_input(self, statement: str) -> str:
        """Return loops over the pixels of an image: {place} in the line, and {pixel} without."""
        start = self.rows.padding * self.width + self.columns.padding
        place = plus(f"h * {self.width} + w", start)
        text = statement.format(place=place, pixel=f"h * {self.columns.inputs} + w")
        return nest({"h": self.rows.inputs, "w": self.columns.inputs}, text)

    def each_output(self, statement: str) -> str:
        """Return loops over the outputs: {window} among all windows, and {output} without."""
        window, output = f"i * {self.width} + j", f"i * {self.columns.outputs} + j"
        text = statement.format(window=window, output=output)
        return nest({"i": self.rows.outputs, "j": self.columns.outputs}, text)

    def kernel_row(self, channel: str) -> str:
        """Return the part of a line that begins with the first pixel of row u of the kernel."""
        return f"{channel}[{times('u', self.rows.dilation * self.width)}:]"


def _by_loops(layer: Conv, code: Code, x: Value) -> Any:
    """Loops over the windows, one for each row of the kernels: see `_Lines`."""
    axes = layer.axes(fixed(x.shape, 1))
    rows, columns = axes if len(axes) == 2 else (_ONE_ROW, axes[0])
    lines = _Lines(rows, columns)
    batch, channels, kernels = x.shape[0], layer.in_channels, layer.out_channels
    outputs, inputs = rows.outputs * columns.outputs, rows.inputs * columns.inputs
    weight = code.parameter(layer.weight, "weight")
    bias = None if layer.bias is None else code.parameter(layer.bias, "bias")
    y = code.new((batch, kernels, *(axis.outputs for axis in axes)))
    by_tap = f"{kernels}, {channels}, {rows.taps}, {columns.taps}"
    weights, sums = ([f"{name}{v}" for v in range(columns.taps)] for name in ("w", "total"))
    steps = [v * columns.dilation for v in range(columns.taps)]
    reach = columns.span - 1
    load_weights = (
        f"{', '.join(weights)} = {', '.join(f'factors[o, c, u, {v}]' for v in range(columns.taps))}"
    )

    def load_images() -> str:
        """Write arrays; return the statement that loads the image of sample b."""
        code(f"images = {x.view(batch, channels, inputs)}")
        if not lines.is_padded:
            return "image = images[b]"
        code(f"image = np.zeros(({channels}, {lines.pixels}), real)")
        return nest({"c": channels}, lines.each_input("image[c, {place}] = images[b, c, {pixel}]"))

    load = load_images()
    code(f"""
        factors, out = {weight}.reshape({by_tap}), {y.view(batch, kernels, outputs)}
        line = np.empty({lines.windows}, real)
    """)
    terms = [f"{w} * row[{plus('p', step)}]" for w, step in zip(weights, steps, strict=True)]
    row = joined(
        f"row = {lines.kernel_row('image[c]')}",
        load_weights,
        nest({"p": lines.windows}, f"line[p] += {' + '.join(terms)}"),
    )
    kernel = joined(
        nest({"p": lines.windows}, f"line[p] = {f'{bias}[o]' if bias else 'real(0)'}"),
        nest({"c": channels, "u": rows.taps}, row),
        lines.each_output("out[b, o, {output}] = line[{window}]"),
    )
    code(nest({"b": batch}, joined(load, nest({"o": kernels}, kernel))))

    def backward(dy: Value) -> None:
        _bias_gradient(code, bias, dy)
        code(f"grads = {dy.view(batch, kernels, outputs)}")
        if weight.needs_grad:
            with code.gradient(weight) as dw:
                weight_gradient(dw)
        if x.needs_grad:
            with code.gradient(x) as dx:
                input_gradient(dx)

    def weight_gradient(dw: Value) -> None:
        """Write dW, with a gradient of zero for the windows that are not used."""
        load = load_images()
        code(f"d_factors, line = {dw}.reshape({by_tap}), np.zeros({lines.windows}, real)")
        code("d_factors[:] = 0")
        terms = [
            f"{total} += line[p] * row[{plus('p', step)}]"
            for total, step in zip(sums, steps, strict=True)
        ]
        row = joined(
            f"row = {lines.kernel_row('image[c]')}",
            f"{' = '.join(sums)} = real(0)",
            nest({"p": lines.windows}, joined(*terms)),
            *[f"d_factors[o, c, u, {v}] += {total}" for v, total in enumerate(sums)],
        )
        kernel = joined(
            lines.each_output("line[{window}] = grads[b, o, {output}]"),
            nest({"c": channels, "u": rows.taps}, row),
        )
        code(nest({"b": batch}, joined(load, nest({"o": kernels}, kernel))))

    def input_gradient(dx: Value) -> None:
        """Write dX: a pixel gets the gradients of the windows that it lies in."""
        count = lines.windows + reach
        code(f"""
            factors, d_images = {weight}.reshape({by_tap}), {dx.view(batch, channels, inputs)}
            line = np.empty({lines.pixels}, real)
            flows = np.zeros(({kernels}, {count + reach}), real)
        """)
        terms = [
            f"{w} * flow[{plus('p', reach - step)}]" for w, step in zip(weights, steps, strict=True)
        ]
        row = joined(
            f"row, flow = {lines.kernel_row('line')}, flows[o]",
            load_weights,
            nest({"p": count}, f"row[p] += {' + '.join(terms)}"),
        )
        flow = lines.each_output(f"flows[o, {reach} + {{window}}] = grads[b, o, {{output}}]")
        channel = joined(
            nest({"p": lines.pixels}, "line[p] = 0"),
            nest({"o": kernels, "u": rows.taps}, row),
            lines.each_input("d_images[b, c, {pixel}] = line[{place}]"),
        )
        code(nest({"b": batch}, joined(nest({"o": kernels}, flow), nest({"c": channels}, channel))))

    return y, backward


# ---- Winograd's algorithm ----


def _by_winograd(layer: Conv, code: Code, x: Value) -> Any:
    """Winograd's algorithm for kernels of 3x3: see `winograd`."""
    rows, columns = layer.axes(fixed(x.shape, 1))
    padding = rows.padding, columns.padding
    weight = code.parameter(layer.weight, "weight")
    bias = None if layer.bias is None else code.parameter(layer.bias, "bias")
    y = code.new((x.shape[0], layer.out_channels, rows.outputs, columns.outputs))
    shift = f"{bias}" if bias else f"np.zeros({layer.out_channels}, real)"
    code(f"winograd({x.view(*x.shape)}, {weight}, {shift}, {padding}, {y.view(*y.shape)})")

    def backward(dy: Value) -> None:
        grads = dy.view(*y.shape)
        _bias_gradient(code, bias, dy)
        if weight.needs_grad:
            with code.gradient(weight) as dw:
                code(f"winograd_kernels({x.view(*x.shape)}, {grads}, {padding}, {dw})")
        if x.needs_grad:
            around = 2 - rows.padding, 2 - columns.padding
            with code.gradient(x) as dx:
                code(f"""
                    zeros = np.zeros({layer.in_channels}, real)
                    winograd({grads}, turned({weight}), zeros, {around}, {dx.view(*x.shape)})
                """)

    return y, backward
