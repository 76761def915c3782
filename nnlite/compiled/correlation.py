"""Convolution of a few channels, in loops.

The padded channels of a sample are each one line of pixels, row after row. Window p begins at pixel
p, so that a row of the kernel is one loop over the windows. Those that begin too far to the right,
or that a stride skips, are computed too; they are not used.

All functions take images (N, C, H, W), kernels (O, C / groups, U, V), results (N, O, H', W') and
then padding, stride and dilation of rows and of columns. A sequence is an image of one row.
"""

from __future__ import annotations

import numpy as np

from nnlite.compiled.routines import Cube, Images, Matrix, Vector


def correlate(
    images: Images, kernels: Images, bias: Vector, out: Images,
    top: int, left: int, row_stride: int, column_stride: int, row_step: int, column_step: int,
) -> None:  # fmt: skip
    """Write the correlation of images with kernels, plus bias.

    Two kernels of a group are applied at a time, as far as there are two.
    """
    batch, channels, height, columns = images.shape
    count, depth, rows, taps = kernels.shape
    width = _extent(columns, out.shape[3], taps, column_stride, left, column_step)
    pixels = _extent(height, out.shape[2], rows, row_stride, top, row_step) * width
    image = np.zeros((channels, pixels), images.dtype)
    windows = (out.shape[2] - 1) * row_stride * width + (out.shape[3] - 1) * column_stride + 1
    line0, line1 = np.empty(windows, images.dtype), np.empty(windows, images.dtype)
    per_group = count * depth // channels
    for b in range(batch):
        pad(images[b], image, top, left, width)
        for first in range(0, count, per_group):
            start = first // per_group * depth
            for o0 in range(first, first + per_group, 2):
                o1 = o0 + 1
                if o1 == first + per_group:
                    for p in range(windows):
                        line0[p] = bias[o0]
                    for c in range(depth):
                        channel, row = image[start + c], row_step * width
                        add_row(channel, row, kernels[o0, c], line0, windows, 0, column_step)
                    take(line0, row_stride * width, column_stride, out[b, o0])
                    continue
                for p in range(windows):
                    line0[p] = bias[o0]
                    line1[p] = bias[o1]
                for c in range(depth):
                    add_rows(
                        image[start + c], row_step * width, kernels[o0, c], kernels[o1, c],
                        line0, line1, windows, 0, column_step,
                    )  # fmt: skip
                take(line0, row_stride * width, column_stride, out[b, o0])
                take(line1, row_stride * width, column_stride, out[b, o1])


def correlate_kernels(
    images: Images, grads: Images, out: Images,
    top: int, left: int, row_stride: int, column_stride: int, row_step: int, column_step: int,
) -> None:  # fmt: skip
    """Write the gradient of the kernels, given that of the result.

    The gradient of windows that are not used is zero.
    """
    batch, channels, height, columns = images.shape
    count, depth, rows, taps = out.shape
    width = _extent(columns, grads.shape[3], taps, column_stride, left, column_step)
    pixels = _extent(height, grads.shape[2], rows, row_stride, top, row_step) * width
    image = np.zeros((channels, pixels), images.dtype)
    windows = (grads.shape[2] - 1) * row_stride * width + (grads.shape[3] - 1) * column_stride + 1
    line0, line1 = np.zeros(windows, images.dtype), np.zeros(windows, images.dtype)
    per_group = count * depth // channels
    out[:] = 0
    for b in range(batch):
        pad(images[b], image, top, left, width)
        for first in range(0, count, per_group):
            start = first // per_group * depth
            for o0 in range(first, first + per_group, 2):
                o1, row = o0 + 1, row_step * width
                spread(grads[b, o0], line0, row_stride * width, column_stride)
                if o1 == first + per_group:
                    for c in range(depth):
                        add_sum(image[start + c], row, line0, out[o0, c], column_step)
                    continue
                spread(grads[b, o1], line1, row_stride * width, column_stride)
                for c in range(depth):
                    channel = image[start + c]
                    add_sums(channel, row, line0, line1, out[o0, c], out[o1, c], column_step)


def correlate_images(
    grads: Images, kernels: Images, out: Images,
    top: int, left: int, row_stride: int, column_stride: int, row_step: int, column_step: int,
) -> None:  # fmt: skip
    """Write the gradient of the images: a pixel gets those of the windows that it lies in.

    It is a correlation of the gradients, with zeros around them, with the turned kernels.
    """
    batch, channels, height, columns = out.shape
    count, depth, rows, taps = kernels.shape
    width = _extent(columns, grads.shape[3], taps, column_stride, left, column_step)
    pixels = _extent(height, grads.shape[2], rows, row_stride, top, row_step) * width
    line0, line1 = np.empty(pixels, out.dtype), np.empty(pixels, out.dtype)
    reach = (taps - 1) * column_step
    windows = (grads.shape[2] - 1) * row_stride * width + (grads.shape[3] - 1) * column_stride + 1
    flows = np.zeros((count, windows + 2 * reach), out.dtype)
    turned = np.empty(kernels.shape, out.dtype)
    for o in range(count):
        for c in range(depth):
            for u in range(rows):
                for v in range(taps):
                    turned[o, c, u, v] = kernels[o, c, u, taps - 1 - v]
    per_group = count * depth // channels
    for b in range(batch):
        for o in range(count):
            spread(grads[b, o], flows[o, reach:], row_stride * width, column_stride)
        for first in range(0, channels, depth):
            start = first // depth * per_group
            for c0 in range(0, depth, 2):
                c1 = c0 + 1
                if c1 == depth:
                    for p in range(pixels):
                        line0[p] = 0
                    for o in range(start, start + per_group):
                        add_row(
                            flows[o], 0, turned[o, c0], line0, windows + reach,
                            row_step * width, column_step,
                        )  # fmt: skip
                    take(line0[top * width + left :], width, 1, out[b, first + c0])
                    continue
                for p in range(pixels):
                    line0[p] = 0
                    line1[p] = 0
                for o in range(start, start + per_group):
                    add_rows(
                        flows[o], 0, turned[o, c0], turned[o, c1],
                        line0, line1, windows + reach, row_step * width, column_step,
                    )  # fmt: skip
                take(line0[top * width + left :], width, 1, out[b, first + c0])
                take(line1[top * width + left :], width, 1, out[b, first + c1])


def pad(images: Cube, out: Matrix, top: int, left: int, width: int) -> None:
    """Write the channels of a sample into their lines, whose rows have this width."""
    for c in range(images.shape[0]):
        spread(images[c], out[c, top * width + left :], width, 1)


def spread(values: Matrix, line: Vector, row: int, column: int) -> None:
    """Write values into a line, in which rows and columns are this far apart."""
    for i in range(values.shape[0]):
        part, source = line[i * row :], values[i]
        if column == 1:
            for j in range(len(source)):
                part[j] = source[j]
        else:
            for j in range(len(source)):
                part[j * column] = source[j]


def take(line: Vector, row: int, column: int, out: Matrix) -> None:
    """Read values from a line, in which rows and columns are this far apart."""
    for i in range(out.shape[0]):
        part, target = line[i * row :], out[i]
        if column == 1:
            for j in range(len(target)):
                target[j] = part[j]
        else:
            for j in range(len(target)):
                target[j] = part[j * column]


def _extent(inputs: int, outputs: int, taps: int, stride: int, padding: int, dilation: int) -> int:
    """Return the number of positions along an axis, with padding."""
    return max(padding + inputs, (outputs - 1) * stride + (taps - 1) * dilation + 1)


def add_rows(
    image: Vector, image_row: int, kernel0: Matrix, kernel1: Matrix,
    line0: Vector, line1: Vector, count: int, line_row: int, step: int,
) -> None:  # fmt: skip
    """Add the products of a channel and two kernels to the sums of `count` windows.

    From one row of the kernels to the next the first pixel is `image_row` further on, and the first
    sum `line_row`. Of neighbouring pixels, those of several taps are added at a time.
    """
    rows, taps = kernel0.shape
    for u in range(rows):
        row, f, g = image[u * image_row :], kernel0[u], kernel1[u]
        sums0, sums1 = line0[u * line_row :], line1[u * line_row :]
        v = 0
        while step == 1 and taps - v >= 5:
            f0, f1, f2, f3, f4 = f[v], f[v + 1], f[v + 2], f[v + 3], f[v + 4]
            g0, g1, g2, g3, g4 = g[v], g[v + 1], g[v + 2], g[v + 3], g[v + 4]
            x = row[v:]
            for p in range(count):
                x0, x1, x2, x3, x4 = x[p], x[p + 1], x[p + 2], x[p + 3], x[p + 4]
                sums0[p] += f0 * x0 + f1 * x1 + f2 * x2 + f3 * x3 + f4 * x4
                sums1[p] += g0 * x0 + g1 * x1 + g2 * x2 + g3 * x3 + g4 * x4
            v += 5
        while step == 1 and taps - v >= 3:
            f0, f1, f2 = f[v], f[v + 1], f[v + 2]
            g0, g1, g2 = g[v], g[v + 1], g[v + 2]
            x = row[v:]
            for p in range(count):
                x0, x1, x2 = x[p], x[p + 1], x[p + 2]
                sums0[p] += f0 * x0 + f1 * x1 + f2 * x2
                sums1[p] += g0 * x0 + g1 * x1 + g2 * x2
            v += 3
        while v < taps:
            f0, g0, x = f[v], g[v], row[v * step :]
            for p in range(count):
                sums0[p] += f0 * x[p]
                sums1[p] += g0 * x[p]
            v += 1


def add_row(
    image: Vector, image_row: int, kernel: Matrix, line: Vector, count: int, line_row: int,
    step: int,
) -> None:  # fmt: skip
    """Add the products of a channel and one kernel, as `add_rows` does for two."""
    rows, taps = kernel.shape
    for u in range(rows):
        row, f, sums = image[u * image_row :], kernel[u], line[u * line_row :]
        v = 0
        while step == 1 and taps - v >= 3:
            f0, f1, f2, x = f[v], f[v + 1], f[v + 2], row[v:]
            for p in range(count):
                sums[p] += f0 * x[p] + f1 * x[p + 1] + f2 * x[p + 2]
            v += 3
        while v < taps:
            f0, x = f[v], row[v * step :]
            for p in range(count):
                sums[p] += f0 * x[p]
            v += 1


def add_sum(image: Vector, image_row: int, line: Vector, out: Matrix, step: int) -> None:
    """Add the sums of pixels times gradients for one kernel, as `add_sums` does for two."""
    zero = line.dtype.type(0)
    rows, taps = out.shape
    for u in range(rows):
        row, s = image[u * image_row :], out[u]
        v = 0
        while step == 1 and taps - v >= 3:
            x = row[v:]
            s0 = s1 = s2 = zero
            for p in range(len(line)):
                s0 += line[p] * x[p]
                s1 += line[p] * x[p + 1]
                s2 += line[p] * x[p + 2]
            s[v] += s0
            s[v + 1] += s1
            s[v + 2] += s2
            v += 3
        while v < taps:
            x = row[v * step :]
            s0 = zero
            for p in range(len(line)):
                s0 += line[p] * x[p]
            s[v] += s0
            v += 1


def add_sums(
    image: Vector, image_row: int, line0: Vector, line1: Vector,
    out0: Matrix, out1: Matrix, step: int,
) -> None:  # fmt: skip
    """Add, for each tap of two kernels, the sum over all windows of pixel times gradient."""
    zero = line0.dtype.type(0)
    rows, taps = out0.shape
    for u in range(rows):
        row, s, t = image[u * image_row :], out0[u], out1[u]
        v = 0
        while step == 1 and taps - v >= 5:
            x = row[v:]
            s0 = s1 = s2 = s3 = s4 = t0 = t1 = t2 = t3 = t4 = zero
            for p in range(len(line0)):
                x0, x1, x2, x3, x4 = x[p], x[p + 1], x[p + 2], x[p + 3], x[p + 4]
                a, b = line0[p], line1[p]
                s0 += a * x0
                s1 += a * x1
                s2 += a * x2
                s3 += a * x3
                s4 += a * x4
                t0 += b * x0
                t1 += b * x1
                t2 += b * x2
                t3 += b * x3
                t4 += b * x4
            for k, (a, b) in enumerate(((s0, t0), (s1, t1), (s2, t2), (s3, t3), (s4, t4))):
                s[v + k] += a
                t[v + k] += b
            v += 5
        while step == 1 and taps - v >= 3:
            x = row[v:]
            s0 = s1 = s2 = t0 = t1 = t2 = zero
            for p in range(len(line0)):
                x0, x1, x2 = x[p], x[p + 1], x[p + 2]
                a, b = line0[p], line1[p]
                s0 += a * x0
                s1 += a * x1
                s2 += a * x2
                t0 += b * x0
                t1 += b * x1
                t2 += b * x2
            for k, (a, b) in enumerate(((s0, t0), (s1, t1), (s2, t2))):
                s[v + k] += a
                t[v + k] += b
            v += 3
        while v < taps:
            x = row[v * step :]
            s0 = t0 = zero
            for p in range(len(line0)):
                s0 += line0[p] * x[p]
                t0 += line1[p] * x[p]
            s[v] += s0
            t[v] += t0
            v += 1
