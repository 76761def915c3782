"""Winograd convolution: 3x3 kernels with 16 multiplications for four outputs, in place of 36.

Two neighbouring outputs y₀ and y₁ depend on four inputs d₀ … d₃. With the taps g₀, g₁, g₂ of the
kernel they take four products (Winograd's F(2, 3))::

    m₀ = (d₀ - d₂) g₀                        m₁ = (d₁ + d₂) (g₀ + g₁ + g₂)/2
    m₃ = (d₁ - d₃) g₂                        m₂ = (d₂ - d₁) (g₀ - g₁ + g₂)/2

    y₀ = m₀ + m₁ + m₂                        y₁ = m₁ - m₂ - m₃

In two dimensions this is done with rows and then with columns. A tile of 2x2 outputs has 4x4 sums
of inputs, and each of the 16 is multiplied by a factor of its own and summed over the channels: 16
matrix products for all tiles of a sample. With G₀ and G₁ the gradients of y₀ and y₁, those of the
products are::

    dm₀ = G₀        dm₁ = G₀ + G₁        dm₂ = G₀ - G₁        dm₃ = -G₁

16 matrix products of them with the sums are the gradients of the factors, and 16 with the factors
those of the sums, e₀ … e₃. A pixel gets what the tiles around it add::

    dd₀ += e₀       dd₁ += e₁ - e₂ + e₃  dd₂ += e₁ + e₂ - e₀  dd₃ -= e₃

Loops run over long lines. The even rows of an image are one line, and so are the odd ones: sums of
rows are one loop. Then the tiles of a group of samples are one line, in which tile t begins at
pixel 2t, and sums along the rows are one loop over t. For this each row of tiles has one tile more
than there are outputs; its results are not used.

References
----------
A. Lavin, S. Gray, "Fast algorithms for convolutional neural networks", CVPR 2016.
"""

from __future__ import annotations

import numpy as np

from nnlite.compiled.routines.channels import (
    FULL_TILE,
    LONG_LINE,
    convolve,
    convolve_images,
    convolve_kernels,
)
from nnlite.compiled.routines.correlation import correlate, correlate_images
from nnlite.compiled.routines.functions import view
from nnlite.compiled.routines.products import copy_transposed, dot_columns, dot_rows, matmul
from nnlite.compiled.routines.table import Cube, Images, Matrix, Real, Vector
from nnlite.compiled.routines.tiles import lanes

# Tiles of several small samples are multiplied together: about this many at a time.
_TILES = 144
# The time for the factors of a kernel, in multiply-adds of vectors, and for a sum of a tile, in
# multiply-adds.
_OF_KERNEL, _OF_SUM = 45, 13
# Kernels whose factors are computed at a time, so that their taps stay in the cache.
_KERNELS = 512


def winograd(images: Images, kernels: Images, bias: Vector, out: Images) -> None:
    """Write the correlation of images (N, C, H, W) with kernels (O, C, 3, 3), plus bias.

    The size of the result tells how many zeros there are around the images. Of few or small images
    the windows are multiplied as they are: see `channels` and `correlation`.
    """
    batch, channels = images.shape[:2]
    top, left, width, tiles, group = _geometry(images, out)
    if not _saves(kernels, out, tiles):
        if out.shape[2] * out.shape[3] >= LONG_LINE or len(kernels) < FULL_TILE:
            correlate(images, kernels, bias, out, top, left, 1, 1, 1, 1)
        else:
            convolve(images, kernels, bias, out, top, left, 1, 1, 1, 1)
        return
    factors = np.empty((16, len(kernels), channels), images.dtype)
    kernel_sums(kernels, factors)
    pixels = np.zeros((2, 2 * (tiles + width)), images.dtype)
    lines = np.zeros((4, 2 * group * tiles + 2), images.dtype)
    sums = np.zeros((16, channels, group * tiles), images.dtype)
    products = np.empty((16, len(kernels), group * tiles), images.dtype)
    for first in range(0, batch, group):
        count = min(group, batch - first)
        for c in range(channels):
            for b in range(count):
                spread(images[first + b, c], top, left, width, pixels)
                row_sums(pixels, width, b * tiles, lines)
            tile_sums(lines, count * tiles, sums, c)
        for k in range(len(factors)):
            matmul(factors[k], sums[k], products[k])
        for o in range(len(kernels)):
            merge(products, o, count * tiles, lines)
            for b in range(count):
                merge_rows(lines, width, b * tiles, bias[o], out[first + b, o])


def winograd_backward(
    images: Images, grads: Images, kernels: Images, kernel_grads: Images, image_grads: Images
) -> None:
    """Write the gradients of the kernels and the images of `winograd`, given that of its result.

    A gradient whose array is empty is left out.
    """
    batch, channels = images.shape[:2]
    out_channels = len(kernels)
    top, left, width, tiles, group = _geometry(images, grads)
    if not _saves(kernels, grads, tiles):
        if kernel_grads.size:
            convolve_kernels(images, grads, kernel_grads, top, left, 1, 1, 1, 1)
        if image_grads.size:
            if grads.shape[2] * grads.shape[3] >= LONG_LINE or channels < FULL_TILE:
                correlate_images(grads, kernels, image_grads, top, left, 1, 1, 1, 1)
            else:
                convolve_images(grads, kernels, image_grads, top, left, 1, 1, 1, 1)
        return
    factors = np.empty((16, out_channels, channels), grads.dtype)
    if image_grads.size:
        kernel_sums(kernels, factors)
    pixels = np.zeros((2, 2 * (tiles + width)), grads.dtype)
    grad_pixels = np.zeros((2, 2 * (tiles + width)), grads.dtype)
    lines = np.zeros((4, 2 * group * tiles + 2), grads.dtype)
    result = np.empty((2, 2 * (tiles + width)), grads.dtype)
    grad_lines = np.zeros((4, 2 * tiles + 4 * width), grads.dtype)
    sums = np.zeros((16, channels, group * tiles), grads.dtype)
    flows = np.zeros((16, out_channels, group * tiles), grads.dtype)
    part = np.empty((out_channels, channels), grads.dtype)
    total = np.zeros((16, out_channels, channels), grads.dtype)
    for first in range(0, batch, group):
        count = min(group, batch - first)
        for o in range(out_channels):
            for b in range(count):
                spread(grads[first + b, o], 0, 0, width, grad_pixels)
                row_flows(grad_pixels, width, b * tiles, lines)
            tile_flows(lines, count * tiles, flows, o)
        if kernel_grads.size:
            for c in range(channels):
                for b in range(count):
                    spread(images[first + b, c], top, left, width, pixels)
                    row_sums(pixels, width, b * tiles, lines)
                tile_sums(lines, count * tiles, sums, c)
            for k in range(len(flows)):
                for o in range(out_channels):
                    for t in range(count * tiles, group * tiles):
                        flows[k, o, t] = 0
                dot_rows(flows[k], sums[k], part)
                for o in range(out_channels):
                    for c in range(channels):
                        total[k, o, c] += part[o, c]
        if image_grads.size:
            for k in range(len(flows)):
                dot_columns(factors[k], flows[k], sums[k])
            for b in range(count):
                for c in range(channels):
                    merge_sums(sums, c, b * tiles, width, grad_lines, result)
                    collect(result, top, left, width, image_grads[first + b, c])
    if kernel_grads.size:
        kernel_gradients(total, kernel_grads)


def _geometry(images: Images, out: Images) -> tuple[int, int, int, int, int]:
    """Return the zeros above and at the left, the tiles of a row, all, and the samples at a time.

    A row has one tile more than there are outputs, whose results are not used.
    """
    top, left = (out.shape[2] - images.shape[2]) // 2 + 1, (out.shape[3] - images.shape[3]) // 2 + 1
    width = (out.shape[3] + 1) // 2 + 1
    tiles = (out.shape[2] + 1) // 2 * width
    batch = images.shape[0]
    groups = max(1, (batch * tiles + _TILES // 2) // _TILES)
    return top, left, width, tiles, max(1, (batch + groups - 1) // groups)


def _saves(kernels: Images, out: Images, tiles: int) -> bool:
    """Whether the sums take less time than they save, for a result of these tiles for each sample.

    Sums of kernels take as long for one sample as for many.
    """
    batch, _, rows, columns = out.shape
    pairs, channels = kernels.shape[0] * kernels.shape[1], kernels.shape[0] + kernels.shape[1]
    products = pairs * (16 * tiles * batch + _OF_KERNEL * lanes(out))
    sums = _OF_SUM * 16 * channels * tiles * batch
    return products + sums < 9 * pairs * rows * columns * batch


def spread(image: Matrix, top: int, left: int, width: int, pixels: Matrix) -> None:
    """Write the rows of an image, with zeros around: even rows as one line, odd ones as another."""
    rows, columns = image.shape
    for i in range(rows):
        line = pixels[(i + top) % 2, (i + top) // 2 * 2 * width + left :]
        for j in range(columns):
            line[j] = image[i, j]


def collect(pixels: Matrix, top: int, left: int, width: int, image: Matrix) -> None:
    """Write an image of its even and its odd rows: the inverse of `spread`."""
    rows, columns = image.shape
    for i in range(rows):
        line = pixels[(i + top) % 2, (i + top) // 2 * 2 * width + left :]
        for j in range(columns):
            image[i, j] = line[j]


def row_sums(pixels: Matrix, width: int, start: int, lines: Matrix) -> None:
    """Write the sums of the rows of a sample, whose first tile is `start`."""
    d0, d1, d2, d3 = pixels[0], pixels[1], pixels[0, 2 * width :], pixels[1, 2 * width :]
    s0, s1 = lines[0, 2 * start :], lines[1, 2 * start :]
    s2, s3 = lines[2, 2 * start :], lines[3, 2 * start :]
    for j in range(len(d2)):
        s0[j] = d0[j] - d2[j]
        s1[j] = d1[j] + d2[j]
        s2[j] = d2[j] - d1[j]
        s3[j] = d1[j] - d3[j]


def tile_sums(lines: Matrix, tiles: int, sums: Cube, c: int) -> None:
    """Write the 4x4 sums of the tiles into ``sums[:, c]``."""
    for k in range(4):
        line = lines[k]
        s0, s1, s2, s3 = sums[4 * k, c], sums[4 * k + 1, c], sums[4 * k + 2, c], sums[4 * k + 3, c]
        for t in range(tiles):
            s0[t] = line[2 * t] - line[2 * t + 2]
            s1[t] = line[2 * t + 1] + line[2 * t + 2]
            s2[t] = line[2 * t + 2] - line[2 * t + 1]
            s3[t] = line[2 * t + 1] - line[2 * t + 3]


def merge(products: Cube, o: int, tiles: int, lines: Matrix) -> None:
    """Write the lines whose sums are the outputs, of the products of the tiles."""
    for k in range(4):
        line = lines[k]
        m0, m1 = products[4 * k, o], products[4 * k + 1, o]
        m2, m3 = products[4 * k + 2, o], products[4 * k + 3, o]
        for t in range(tiles):
            line[2 * t] = m0[t] + m1[t] + m2[t]
            line[2 * t + 1] = m1[t] - m2[t] - m3[t]


def merge_rows(lines: Matrix, width: int, start: int, bias: Real, out: Matrix) -> None:
    """Write the outputs of a sample, whose first tile is `start`."""
    rows, columns = out.shape
    for i in range(rows):
        at = 2 * (start + i // 2 * width)
        m0, m1, m2, m3 = lines[0, at:], lines[1, at:], lines[2, at:], lines[3, at:]
        if i % 2:
            for j in range(columns):
                out[i, j] = m1[j] - m2[j] - m3[j] + bias
        else:
            for j in range(columns):
                out[i, j] = m0[j] + m1[j] + m2[j] + bias


def row_flows(pixels: Matrix, width: int, start: int, lines: Matrix) -> None:
    """Write the gradients of the rows of a sample, whose first tile is `start`."""
    g0, g1 = pixels[0, : -2 * width], pixels[1, : -2 * width]
    f0, f1 = lines[0, 2 * start :], lines[1, 2 * start :]
    f2, f3 = lines[2, 2 * start :], lines[3, 2 * start :]
    for j in range(len(g0)):
        f0[j] = g0[j]
        f1[j] = g0[j] + g1[j]
        f2[j] = g0[j] - g1[j]
        f3[j] = -g1[j]


def tile_flows(lines: Matrix, tiles: int, flows: Cube, o: int) -> None:
    """Write the gradients of the 4x4 products of the tiles into ``flows[:, o]``."""
    for k in range(4):
        line = lines[k]
        f0, f1 = flows[4 * k, o], flows[4 * k + 1, o]
        f2, f3 = flows[4 * k + 2, o], flows[4 * k + 3, o]
        for t in range(tiles):
            f0[t] = line[2 * t]
            f1[t] = line[2 * t] + line[2 * t + 1]
            f2[t] = line[2 * t] - line[2 * t + 1]
            f3[t] = -line[2 * t + 1]


def merge_sums(sums: Cube, c: int, start: int, width: int, lines: Matrix, pixels: Matrix) -> None:
    """Write the gradients of the pixels of a sample, given those of the sums of its tiles.

    There is a row of zeros before the first and behind the last one of `lines`.
    """
    for k in range(4):
        line = lines[k, 2 * width : -2 * width]
        s0, s1 = sums[4 * k, c, start:], sums[4 * k + 1, c, start:]
        s2, s3 = sums[4 * k + 2, c, start:], sums[4 * k + 3, c, start:]
        line[0] = s0[0]
        line[1] = s1[0] - s2[0] + s3[0]
        for t in range(len(line) // 2 - 1):
            line[2 * t + 2] = s0[t + 1] + (s1[t] + s2[t] - s0[t])
            line[2 * t + 3] = s1[t + 1] - s2[t + 1] + s3[t + 1] - s3[t]
    s0, s1, s2, s3 = lines[0], lines[1], lines[2], lines[3]
    t0, t1, t2, t3 = s0[2 * width :], s1[2 * width :], s2[2 * width :], s3[2 * width :]
    for j in range(len(t0)):
        pixels[0, j] = t0[j] + (s1[j] + s2[j] - s0[j])
        pixels[1, j] = t1[j] - t2[j] + t3[j] - s3[j]


def kernel_sums(kernels: Images, factors: Cube) -> None:
    """Write the factors, (16, O, C)."""
    count = kernels.shape[0] * kernels.shape[1]
    each, lines = view(kernels, count, 9), view(factors, 16, count)
    taps = np.empty((9, _KERNELS), kernels.dtype)
    by_row = np.empty((12, _KERNELS), kernels.dtype)
    for start in range(0, count, _KERNELS):
        stop = min(start + _KERNELS, count)
        size = stop - start
        copy_transposed(each[start:stop], taps[:, :size])
        for v in range(3):  # by_row[3 k + v] is of row k and column v
            g0, g1, g2 = taps[v, :size], taps[3 + v, :size], taps[6 + v, :size]
            tap_sums(g0, g1, g2, by_row[v], by_row[3 + v], by_row[6 + v], by_row[9 + v])
        for k in range(4):
            g0, g1, g2 = by_row[3 * k, :size], by_row[3 * k + 1], by_row[3 * k + 2]
            f0, f1 = lines[4 * k, start:], lines[4 * k + 1, start:]
            f2, f3 = lines[4 * k + 2, start:], lines[4 * k + 3, start:]
            tap_sums(g0, g1, g2, f0, f1, f2, f3)


def tap_sums(
    g0: Vector, g1: Vector, g2: Vector, f0: Vector, f1: Vector, f2: Vector, f3: Vector
) -> None:
    """Write the four factors of the taps of some kernels."""
    half = g0.dtype.type(0.5)
    for i in range(len(g0)):
        f0[i] = g0[i]
        f1[i] = half * (g0[i] + g1[i] + g2[i])
        f2[i] = half * (g0[i] - g1[i] + g2[i])
        f3[i] = g2[i]


def kernel_gradients(factors: Cube, out: Images) -> None:
    """Write the gradient of the kernels, (O, C, 3, 3), given that of the factors."""
    count = out.shape[0] * out.shape[1]
    each, lines = view(out, count, 9), view(factors, 16, count)
    by_row = np.empty((12, _KERNELS), out.dtype)
    taps = np.empty((9, _KERNELS), out.dtype)
    for start in range(0, count, _KERNELS):
        stop = min(start + _KERNELS, count)
        size = stop - start
        for k in range(4):  # by_row[4 v + k] is of row k and column v
            f0, f1 = lines[4 * k, start:stop], lines[4 * k + 1, start:stop]
            f2, f3 = lines[4 * k + 2, start:stop], lines[4 * k + 3, start:stop]
            tap_gradients(f0, f1, f2, f3, by_row[k], by_row[4 + k], by_row[8 + k])
        for v in range(3):
            f0, f1 = by_row[4 * v, :size], by_row[4 * v + 1, :size]
            f2, f3 = by_row[4 * v + 2, :size], by_row[4 * v + 3, :size]
            tap_gradients(f0, f1, f2, f3, taps[v], taps[3 + v], taps[6 + v])
        copy_transposed(taps[:, :size], each[start:stop])


def tap_gradients(
    f0: Vector, f1: Vector, f2: Vector, f3: Vector, g0: Vector, g1: Vector, g2: Vector
) -> None:
    """Write the gradients of the taps of some kernels, given those of the four factors."""
    half = f0.dtype.type(0.5)
    for i in range(len(f0)):
        both = half * (f1[i] + f2[i])
        g0[i] = f0[i] + both
        g1[i] = half * (f1[i] - f2[i])
        g2[i] = f3[i] + both
