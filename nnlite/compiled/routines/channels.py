"""Convolution of many channels in NHWC order: those of a pixel are copied to be neighbours.

The padded image of a sample is (H, W, C) then. At a tap of the kernel, a window is a row of
channels, and neighbouring windows are a fixed distance apart, whatever the stride: they are
multiplied where they lie, and none is computed that is not used. Gradients of few windows copy
them.

A convolution and its gradients take images (N, C, H, W), kernels (O, C / groups, U, V), results (N,
O, H', W') and then padding, stride and dilation of rows and of columns, as those of `correlation`
do. Each group of channels is a convolution of its own.
"""

from __future__ import annotations

import numpy as np

from nnlite.compiled.routines.functions import extent, odd_lines, view
from nnlite.compiled.routines.products import copy_transposed, dot_columns, matmul
from nnlite.compiled.routines.table import Images, Matrix, Vector
from nnlite.compiled.routines.tiles import multiply, strided

# `correlation` is faster with at least `LONG_LINE` windows, of which few are not used, and where a
# product would have fewer than `FULL_TILE` columns, which leaves vectors of a tile empty.
LONG_LINE, FULL_TILE = 128, 32

# Terms of a product at a time: what a tile multiplies stays in the first-level cache.
_DEPTH = 128
# Windows that are multiplied together: about this many, of a part of a sample or of several.
_WINDOWS = 256
# Channels that are enough columns for a tile.
_MANY = 48
# Channels of kernels that are computed at a time, so that their gradients stay in the cache.
_BLOCK = 96


def convolve(
    images: Images, kernels: Images, bias: Vector, out: Images,
    top: int, left: int, row_stride: int, column_stride: int, row_step: int, column_step: int,
) -> None:  # fmt: skip
    """Write the correlation of images with kernels, plus bias."""
    batch, channels = images.shape[:2]
    count, depth, rows, taps = kernels.shape
    height, width = out.shape[2:]
    places, group, kernel = height * width, count * depth // channels, rows * taps
    samples = max(1, min(batch, _WINDOWS // places))
    lines = _lines(height, width, _WINDOWS)
    high = (lines - 1) * row_stride + (rows - 1) * row_step + 1
    wide = extent(images.shape[3], width, taps, column_stride, left, column_step)
    pixel, result = odd_lines(depth), odd_lines(group)
    row = wide * pixel
    pixels = np.zeros((samples, high, wide, pixel), out.dtype)
    factors = np.empty((depth * kernel, result), out.dtype)
    results = np.empty((samples, lines, width, result), out.dtype)
    line, factor_line = view(pixels, pixels.size), view(factors, factors.size)
    result_rows = view(results, samples * lines * width, result)
    blocks = max(1, (depth * kernel + _DEPTH // 2) // _DEPTH)
    step = (depth + blocks - 1) // blocks
    for first in range(0, count, group):
        own = view(kernels[first : first + group], group, depth * kernel)
        copy_transposed(own, factors[:, :group])
        for start in range(0, batch, samples):
            present = min(samples, batch - start)
            for i in range(0, height, lines):
                some = min(lines, height - i)
                above, channel = top - i * row_stride, first // group * depth
                place(images, start, present, channel, depth, above, left, pixels)
                for c in range(0, depth, step):
                    terms = min(step, depth - c)
                    windows = strided(
                        line[c:],
                        (present, some, width, rows, taps, terms),
                        (
                            *(high * row, row_stride * row, column_stride * pixel),
                            *(row_step * row, column_step * pixel, 1),
                        ),
                    )
                    block = strided(
                        factor_line[c * kernel * result :],
                        (rows, taps, terms, group),
                        (taps * result, result, kernel * result, 1),
                    )
                    multiply(windows, block, results[:present, :some, :, :group], c > 0)
                for b in range(present):
                    target = view(out[start + b, first : first + group], group, places)
                    target = target[:, i * width : (i + some) * width]
                    source = result_rows[b * lines * width : (b * lines + some) * width, :group]
                    copy_transposed(source, target)
                    for o in range(group):
                        for p in range(some * width):
                            target[o, p] += bias[first + o]


def convolve_kernels(
    images: Images, grads: Images, out: Images,
    top: int, left: int, row_stride: int, column_stride: int, row_step: int, column_step: int,
) -> None:  # fmt: skip
    """Write the gradient of the kernels, given that of the result.

    Few channels are multiplied at several taps at once, where those are neighbours too.
    """
    batch, channels = images.shape[:2]
    count, depth, rows, taps = out.shape
    height, width = grads.shape[2:]
    places, group, kernel = height * width, count * depth // channels, rows * taps
    if _are_few(batch * places, count, group):
        kernels_of_few(
            images, grads, out, top, left, row_stride, column_stride, row_step, column_step
        )
        return
    samples, lines = max(1, min(batch, _DEPTH // places)), _lines(height, width, _DEPTH)
    high = (lines - 1) * row_stride + (rows - 1) * row_step + 1
    wide = extent(images.shape[3], width, taps, column_stride, left, column_step)
    are_joined = column_step == 1 and depth < _MANY
    step = depth if are_joined else min(depth, _BLOCK)
    pixel, joined = (depth, taps) if are_joined else (odd_lines(step), 1)
    row, columns = wide * pixel, joined * pixel
    pixels = np.zeros((samples, high, wide, pixel), out.dtype)
    totals = np.empty((kernel // joined, group, columns), out.dtype)
    line, flow_line = view(pixels, pixels.size), view(grads, grads.size)
    total_line = view(totals, totals.size)
    parts, distance = (rows, pixel) if are_joined else (1, group * pixel)  # of a kernel
    part = kernel // parts
    for first in range(0, count, group):
        for c in range(0, depth, step):
            size = min(step, depth - c)
            for start in range(0, batch, samples):
                present = min(samples, batch - start)
                for i in range(0, height, lines):
                    above, channel = top - i * row_stride, first // group * depth + c
                    place(images, start, present, channel, size, above, left, pixels)
                    some = min(lines, height - i)
                    flows = strided(
                        flow_line[(start * count + first) * places + i * width :],
                        (group, present, some, width),
                        (places, count * places, width, 1),
                    )
                    for k in range(kernel // joined):
                        u, v = k * joined // taps, k * joined % taps
                        windows = strided(
                            line[u * row_step * row + v * column_step * pixel :],
                            (present, some, width, joined * size),
                            (high * row, row_stride * row, column_stride * pixel, 1),
                        )
                        target = totals[k, :, : joined * size]
                        multiply(flows, windows, target, start > 0 or i > 0)
            for o in range(group):
                own = view(out[first + o], depth, kernel)[c : c + size]
                for k in range(parts):
                    each = strided(
                        total_line[(k * group + o) * columns :], (part, size), (distance, 1)
                    )
                    copy_transposed(each, own[:, k * part : (k + 1) * part])


def convolve_images(
    grads: Images, kernels: Images, out: Images,
    top: int, left: int, row_stride: int, column_stride: int, row_step: int, column_step: int,
) -> None:  # fmt: skip
    """Write the gradient of the images: a pixel gets those of the windows that it lies in."""
    batch, channels, height, width = out.shape
    count, depth, rows, taps = kernels.shape
    lines, columns = grads.shape[2:]
    places, group, kernel = lines * columns, count * depth // channels, rows * taps
    if _are_few(batch * places, count, group):
        images_of_few(
            grads, kernels, out, top, left, row_stride, column_stride, row_step, column_step
        )
        return
    samples, step = max(1, min(batch, _WINDOWS // places)), min(depth, _BLOCK)
    high = extent(height, lines, rows, row_stride, top, row_step)
    wide = extent(width, columns, taps, column_stride, left, column_step)
    pixel, flow = odd_lines(step), odd_lines(group)
    row = wide * pixel
    pixels = np.empty((samples, high, wide, pixel), out.dtype)
    flows = np.empty((samples, places, flow), out.dtype)
    factors = np.empty((kernel, group, pixel), out.dtype)
    line, flow_line = view(pixels, pixels.size), view(flows, flows.size)
    factor_line = view(factors, factors.size)
    for first in range(0, count, group):
        for c in range(0, depth, step):
            some, channel = min(step, depth - c), first // group * depth + c
            for o in range(group):
                own = view(kernels[first + o], depth, kernel)[c : c + some]
                by_tap = strided(factor_line[o * pixel :], (kernel, some), (group * pixel, 1))
                copy_transposed(own, by_tap)
            for start in range(0, batch, samples):
                present = min(samples, batch - start)
                for b in range(present):
                    source = view(grads[start + b, first : first + group], group, places)
                    copy_transposed(source, flows[b, :, :group])
                pixels[:] = 0
                for o in range(0, group, _DEPTH):
                    terms = min(_DEPTH, group - o)
                    each = strided(
                        flow_line[o:],
                        (present, lines, columns, terms),
                        (places * flow, columns * flow, flow, 1),
                    )
                    for k in range(kernel):
                        tap = k // taps * row_step * row + k % taps * column_step * pixel
                        windows = strided(
                            line[tap:],
                            (present, lines, columns, some),
                            (high * row, row_stride * row, column_stride * pixel, 1),
                        )
                        multiply(each, factors[k, o : o + terms, :some], windows, True)
                for b in range(present):
                    for i in range(height):
                        source = pixels[b, top + i, left : left + width, :some]
                        copy_transposed(source, out[start + b, channel : channel + some, i])


def kernels_of_few(
    images: Images, grads: Images, out: Images,
    top: int, left: int, row_stride: int, column_stride: int, row_step: int, column_step: int,
) -> None:  # fmt: skip
    """Write the gradient of the kernels, given few windows.

    They are copied in the order of the kernels, so that the gradient is in its order too.
    """
    batch, depth = images.shape[:2]
    count, rows, taps = out.shape[0], out.shape[2], out.shape[3]
    height, width = grads.shape[2:]
    places, kernel = height * width, rows * taps
    high = extent(images.shape[2], height, rows, row_stride, top, row_step)
    wide = extent(images.shape[3], width, taps, column_stride, left, column_step)
    pixel = odd_lines(depth)
    pixels = np.zeros((1, high, wide, pixel), out.dtype)
    line = view(pixels, pixels.size)
    windows = np.empty((batch * places, depth * kernel), out.dtype)
    for b in range(batch):
        place(images, b, 1, 0, depth, top, left, pixels)
        for p in range(places):
            window = view(windows[b * places + p], depth, kernel)
            for u in range(rows):
                row = (p // width * row_stride + u * row_step) * wide
                first = (row + p % width * column_stride) * pixel
                each = strided(line[first:], (taps, depth), (column_step * pixel, 1))
                copy_transposed(each, window[:, u * taps : (u + 1) * taps])
    flows = np.empty((count, batch * places), out.dtype)
    join(grads, flows)
    matmul(flows, windows, view(out, count, depth * kernel))


def images_of_few(
    grads: Images, kernels: Images, out: Images,
    top: int, left: int, row_stride: int, column_stride: int, row_step: int, column_step: int,
) -> None:  # fmt: skip
    """Write the gradient of the images, given few windows: see `kernels_of_few`."""
    batch, depth, height, width = out.shape
    count, rows, taps = kernels.shape[0], kernels.shape[2], kernels.shape[3]
    lines, columns = grads.shape[2:]
    places, kernel = lines * columns, rows * taps
    high = extent(height, lines, rows, row_stride, top, row_step)
    wide = extent(width, columns, taps, column_stride, left, column_step)
    pixels = np.empty((high, wide, depth), out.dtype)
    windows = np.empty((batch * places, depth * kernel), out.dtype)
    flows = np.empty((count, batch * places), out.dtype)
    join(grads, flows)
    dot_columns(flows, view(kernels, count, depth * kernel), windows)
    for b in range(batch):
        pixels[:] = 0
        for p in range(places):
            window = view(windows[b * places + p], depth, kernel)
            for k in range(kernel):
                i = p // columns * row_stride + k // taps * row_step
                target = pixels[i, p % columns * column_stride + k % taps * column_step]
                for c in range(depth):
                    target[c] += window[c, k]
        for i in range(height):
            copy_transposed(pixels[top + i, left : left + width], out[b, :, i])


def join(grads: Images, flows: Matrix) -> None:
    """Write the gradients of all samples as one line for each channel."""
    batch, count, places = len(grads), len(flows), flows.shape[1] // len(grads)
    lines = view(grads, batch, count, places)
    for o in range(count):
        for b in range(batch):
            for p in range(places):
                flows[o, b * places + p] = lines[b, o, p]


def place(
    images: Images, start: int, present: int, channel: int, depth: int,
    top: int, left: int, pixels: Images,
) -> None:  # fmt: skip
    """Write some channels of some samples into padded images, as neighbours.

    These may be a part of the rows, of which the first is `top` above that of the samples.
    """
    height, width = images.shape[2:]
    for b in range(present):
        for i in range(pixels.shape[1]):
            target = pixels[b, i, left : left + width, :depth]
            if 0 <= i - top < height:
                copy_transposed(images[start + b, channel : channel + depth, i - top], target)
            else:
                for j in range(width):
                    for c in range(depth):
                        target[j, c] = 0


def _are_few(windows: int, count: int, group: int) -> bool:
    """Whether copying the windows takes less time than bringing the kernels into another order."""
    return count == group and 2 * windows < count


def _lines(height: int, width: int, windows: int) -> int:
    """Return how many rows of the result to compute at a time, for about this many windows."""
    bands = max(1, (height * width + windows // 2) // windows)
    return (height + bands - 1) // bands
