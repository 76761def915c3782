"""Convolution without a copy of the windows.

The padded channels of a sample are each one line of pixels, row after row. Window p begins at pixel
p, and a tap lies a fixed distance further on: the values of all windows at all taps are a matrix
whose rows overlap in memory, and the convolution is the product of the kernels with it. Windows
that begin too far to the right, or that a stride skips, are computed too; they are not used.

All functions take images (N, C, H, W), kernels (O, C / groups, U, V), results (N, O, H', W') and
then padding, stride and dilation of rows and of columns. A sequence is an image of one row.
"""

from __future__ import annotations

import numpy as np

from nnlite.compiled.routines.functions import extent, odd_lines, view
from nnlite.compiled.routines.table import Cube, Images, Matrix, Real, Vector
from nnlite.compiled.routines.tiles import multiply, multiply_rows, strided

# Windows of several small samples whose gradients are summed together: about this many.
_WINDOWS = 800


def correlate(
    images: Images, kernels: Images, bias: Vector, out: Images,
    top: int, left: int, row_stride: int, column_stride: int, row_step: int, column_step: int,
) -> None:  # fmt: skip
    """Write the correlation of images with kernels, plus bias."""
    batch, channels, height, columns = images.shape
    count, depth, rows, taps = kernels.shape
    width = _width(columns, out.shape[3], taps, column_stride, left, column_step)
    pixels = odd_lines(extent(height, out.shape[2], rows, row_stride, top, row_step) * width + left)
    windows = (out.shape[2] - 1) * row_stride * width + (out.shape[3] - 1) * column_stride + 1
    image = np.zeros((channels, pixels), images.dtype)
    group = count * depth // channels
    lines = np.empty((group, windows), images.dtype)
    shape, strides = (depth, rows, taps, windows), (pixels, row_step * width, column_step, 1)
    for b in range(batch):
        pad(images[b], image, top, left, width)
        for first in range(0, count, group):
            matrix = strided(image[first // group * depth :], shape, strides)
            multiply(kernels[first : first + group], matrix, lines, False)
            for o in range(group):
                target = out[b, first + o]
                take(lines[o], row_stride * width, column_stride, bias[first + o], target)


def correlate_kernels(
    images: Images, grads: Images, out: Images,
    top: int, left: int, row_stride: int, column_stride: int, row_step: int, column_step: int,
) -> None:  # fmt: skip
    """Write the gradient of the kernels, given that of the result.

    The gradient of windows that are not used is zero.
    """
    batch, channels, height, columns = images.shape
    count, depth, rows, taps = out.shape
    width = _width(columns, grads.shape[3], taps, column_stride, left, column_step)
    pixels = odd_lines(
        extent(height, grads.shape[2], rows, row_stride, top, row_step) * width + left
    )
    windows = (grads.shape[2] - 1) * row_stride * width + (grads.shape[3] - 1) * column_stride + 1
    reach = (taps - 1) * column_step
    length = windows + 2 * reach
    samples = max(1, _WINDOWS // windows)
    group, kernel = count * depth // channels, rows * taps
    padded = np.zeros((samples, channels, pixels), images.dtype)
    flows = np.zeros((samples, count, length), images.dtype)
    lines, flow_lines = view(padded, padded.size), view(flows, flows.size)
    out[:] = 0
    totals = view(out, out.size)
    for start in range(0, batch, samples):
        present = min(samples, batch - start)
        for b in range(present):
            pad(images[start + b], padded[b], top, left, width)
            for o in range(count):
                line = flows[b, o, reach:]
                spread(grads[start + b, o], line, row_stride * width, column_stride)
        of_image, of_flow = channels * pixels, count * length  # distances between samples
        for o in range(0, count, group):
            flow = flow_lines[o * length :]
            for c in range(depth):
                line = lines[(o // group * depth + c) * pixels :]
                total = totals[(o * depth + c) * kernel :]
                if group == 1:  # all taps at once: rows of the image by gradients further on
                    far = windows + reach
                    image = strided(line, (rows, present, far), (row_step * width, of_image, 1))
                    shifted = strided(flow, (taps, present, far), (column_step, of_flow, 1))
                    last = strided(total[taps - 1 :], (rows, taps), (taps, -1))
                    multiply_rows(image, shifted, last, True)
                    continue
                unshifted = strided(flow[reach:], (group, present, windows), (length, of_flow, 1))
                for u in range(rows):
                    row = line[u * row_step * width :]
                    image = strided(row, (taps, present, windows), (column_step, of_image, 1))
                    sums = strided(total[u * taps :], (group, taps), (depth * kernel, 1))
                    multiply_rows(unshifted, image, sums, True)


def correlate_images(
    grads: Images, kernels: Images, out: Images,
    top: int, left: int, row_stride: int, column_stride: int, row_step: int, column_step: int,
) -> None:  # fmt: skip
    """Write the gradient of the images: a pixel gets those of the windows that it lies in.

    It is a correlation of the gradients, with zeros before them, with the turned kernels.
    """
    batch, channels, height, columns = out.shape
    count, depth, rows, taps = kernels.shape
    width = _width(columns, grads.shape[3], taps, column_stride, left, column_step)
    pixels = odd_lines(
        extent(height, grads.shape[2], rows, row_stride, top, row_step) * width + left
    )
    reach = (rows - 1) * row_step * width + (taps - 1) * column_step
    length = odd_lines(reach + pixels)
    flows = np.zeros((count, length), out.dtype)
    flow_lines = view(flows, flows.size)
    group = count * depth // channels
    weights, kernel = view(kernels, kernels.size), rows * taps
    of_kernel = (depth, group, rows, taps)
    lines = np.empty((depth, height * width), out.dtype)
    shape = (group, rows, taps, height * width)
    strides = (length, row_step * width, column_step, 1)
    for b in range(batch):
        for o in range(count):
            spread(grads[b, o], flows[o, reach:], row_stride * width, column_stride)
        for first in range(0, channels, depth):
            line = flow_lines[first // depth * group * length + top * width :]
            matrix = strided(line, shape, strides)
            last = weights[(first * group + 1) * kernel - 1 :]  # the first kernel's last tap
            turned = strided(last, of_kernel, (kernel, depth * kernel, -taps, -1))
            multiply(turned, matrix, lines, False)
            for c in range(depth):
                take(lines[c, left:], width, 1, out.dtype.type(0), out[b, first + c])


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


def take(line: Vector, row: int, column: int, shift: Real, out: Matrix) -> None:
    """Read values, to which a number is added, from a line with such distances between them."""
    for i in range(out.shape[0]):
        part, target = line[i * row :], out[i]
        if column == 1:
            for j in range(len(target)):
                target[j] = part[j] + shift
        else:
            for j in range(len(target)):
                target[j] = part[j * column] + shift


def _width(inputs: int, outputs: int, taps: int, stride: int, padding: int, dilation: int) -> int:
    """Return the width of a padded row; the zeros before the next row are also those behind it."""
    return max(padding + inputs, (outputs - 1) * stride + (taps - 1) * dilation + 1 - padding)
