"""Winograd convolution: 3x3 kernels with 16 multiplications for four outputs, in place of 36.

Two neighbouring outputs y₀ and y₁ depend on four inputs d₀ … d₃. With the taps g₀, g₁, g₂ of the
kernel they take four products (Winograd's F(2, 3))::

    m₀ = (d₀ - d₂) g₀                        m₁ = (d₁ + d₂) (g₀ + g₁ + g₂)/2
    m₃ = (d₁ - d₃) g₂                        m₂ = (d₂ - d₁) (g₀ - g₁ + g₂)/2

    y₀ = m₀ + m₁ + m₂                        y₁ = m₁ - m₂ - m₃

In two dimensions this is done with rows and then with columns. A tile of 2x2 outputs has 4x4 sums
of inputs, and each of the 16 is multiplied by a factor of its own and summed over the channels: 16
matrix products for all tiles of a sample. The gradients of the factors are 16 products of the same
sums, with G₀ and G₁ the gradients of y₀ and y₁::

    dm₀ = G₀        dm₁ = G₀ + G₁        dm₂ = G₀ - G₁        dm₃ = -G₁

Rows of pixels are added first. Then the tiles of a sample are one long line, in which tile t begins
at pixel 2t, and the sums along the rows are one loop over t. For this each row of tiles has one
tile more than there are outputs; its results are not used.

The functions are plain Python that Numba compiles: once for each dtype, and not for each layer.

References
----------
A. Lavin, S. Gray, "Fast algorithms for convolutional neural networks", CVPR 2016.
"""

from __future__ import annotations

import numpy as np

from nnlite.compiled.routines import Cube, Images, Matrix, Real, Vector

# Tiles of several small samples are multiplied together: about this many at a time.
_TILES = 144


def winograd(images: Images, kernels: Images, bias: Vector, out: Images) -> None:
    """Write the correlation of images (N, C, H, W) with kernels (O, C, 3, 3), plus bias.

    The size of the result tells how many zeros there are around the images.
    """
    batch, channels = images.shape[:2]
    top, left = (out.shape[2] - images.shape[2]) // 2 + 1, (out.shape[3] - images.shape[3]) // 2 + 1
    height, width = (out.shape[2] + 1) // 2, (out.shape[3] + 1) // 2 + 1
    tiles = height * width
    group = max(1, _TILES // tiles)
    factors = np.empty((16, len(kernels), channels), images.dtype)
    kernel_sums(kernels, factors)
    sums = np.zeros((16, channels, group * tiles), images.dtype)
    products = np.empty((16, len(kernels), group * tiles), images.dtype)
    lines = np.zeros((4, 2 * tiles + 2), images.dtype)
    halves = np.empty((4, 2 * tiles), images.dtype)
    for first in range(0, batch, group):
        count = min(group, batch - first)
        for b in range(count):
            for c in range(channels):
                tile_sums(images[first + b, c], top, left, width, lines, sums, c, b * tiles)
        for k in range(len(factors)):
            np.dot(factors[k], sums[k], products[k])
        for b in range(count):
            for o in range(len(kernels)):
                merge(products, o, b * tiles, width, halves, bias[o], out[first + b, o])


def winograd_kernels(images: Images, grads: Images, out: Images) -> None:
    """Write the gradient of the kernels of `winograd`, given that of its result."""
    batch, channels = images.shape[:2]
    top = (grads.shape[2] - images.shape[2]) // 2 + 1
    left = (grads.shape[3] - images.shape[3]) // 2 + 1
    height, width = (grads.shape[2] + 1) // 2, (grads.shape[3] + 1) // 2 + 1
    tiles = height * width
    group = max(1, _TILES // tiles)
    sums = np.zeros((16, channels, group * tiles), images.dtype)
    flows = np.zeros((16, len(out), group * tiles), images.dtype)
    lines = np.zeros((4, 2 * tiles + 2), images.dtype)
    of_grads = np.zeros((4, 2 * tiles), images.dtype)
    total = np.zeros((16, len(out), channels), images.dtype)
    part = np.empty((len(out), channels), images.dtype)
    for first in range(0, batch, group):
        count = min(group, batch - first)
        for b in range(count):
            for c in range(channels):
                tile_sums(images[first + b, c], top, left, width, lines, sums, c, b * tiles)
            for o in range(len(out)):
                tile_flows(grads[first + b, o], width, of_grads, flows, o, b * tiles)
        for k in range(len(flows)):
            for o in range(len(out)):
                for t in range(count * tiles, group * tiles):
                    flows[k, o, t] = 0
            np.dot(flows[k], sums[k].T, part)
            for o in range(len(out)):
                for c in range(channels):
                    total[k, o, c] += part[o, c]
    kernel_gradients(total, out)


def turn(kernels: Images, out: Images) -> None:
    """Write the kernels of the input's gradient: rotated by 180°, channels exchanged."""
    out_channels, channels, _, _ = kernels.shape
    for o in range(out_channels):
        for c in range(channels):
            for u in range(3):
                for v in range(3):
                    out[c, o, u, v] = kernels[o, c, 2 - u, 2 - v]


def tile_sums(
    image: Matrix, top: int, left: int, width: int, lines: Matrix, sums: Cube, c: int, start: int
) -> None:
    """Write the 4x4 sums of all tiles into ``sums[:, c, start:]``; `lines` are zero at the ends."""
    rows, columns = image.shape
    tiles = lines.shape[1] // 2 - 1
    zeros = np.zeros(columns, image.dtype)
    for i in range(tiles // width):
        row = 2 * i - top
        d0 = image[row] if 0 <= row < rows else zeros
        d1 = image[row + 1] if 0 <= row + 1 < rows else zeros
        d2 = image[row + 2] if 0 <= row + 2 < rows else zeros
        d3 = image[row + 3] if 0 <= row + 3 < rows else zeros
        at = 2 * width * i + left
        s0, s1, s2, s3 = lines[0, at:], lines[1, at:], lines[2, at:], lines[3, at:]
        for j in range(columns):
            s0[j] = d0[j] - d2[j]
            s1[j] = d1[j] + d2[j]
            s2[j] = d2[j] - d1[j]
            s3[j] = d1[j] - d3[j]
    for k in range(len(lines)):
        line = lines[k]
        s0, s1 = sums[4 * k, c, start:], sums[4 * k + 1, c, start:]
        s2, s3 = sums[4 * k + 2, c, start:], sums[4 * k + 3, c, start:]
        for t in range(tiles):
            s0[t] = line[2 * t] - line[2 * t + 2]
            s1[t] = line[2 * t + 1] + line[2 * t + 2]
            s2[t] = line[2 * t + 2] - line[2 * t + 1]
            s3[t] = line[2 * t + 1] - line[2 * t + 3]


def merge(
    products: Cube, o: int, start: int, width: int, lines: Matrix, bias: Real, out: Matrix
) -> None:
    """Write the outputs of all tiles of a sample, of their products."""
    tiles = lines.shape[1] // 2
    rows, columns = out.shape
    for k in range(len(lines)):
        line = lines[k]
        m0, m1 = products[4 * k, o, start:], products[4 * k + 1, o, start:]
        m2, m3 = products[4 * k + 2, o, start:], products[4 * k + 3, o, start:]
        for t in range(tiles):
            line[2 * t] = m0[t] + m1[t] + m2[t]
            line[2 * t + 1] = m1[t] - m2[t] - m3[t]
    for i in range(rows):
        at = i // 2 * 2 * width
        y, m0, m1, m2, m3 = out[i], lines[0, at:], lines[1, at:], lines[2, at:], lines[3, at:]
        if i % 2:
            for j in range(columns):
                y[j] = m1[j] - m2[j] - m3[j] + bias
        else:
            for j in range(columns):
                y[j] = m0[j] + m1[j] + m2[j] + bias


def tile_flows(grad: Matrix, width: int, lines: Matrix, flows: Cube, o: int, start: int) -> None:
    """Write the gradients of the 4x4 products of all tiles into ``flows[:, o, start:]``."""
    rows, columns = grad.shape
    tiles = lines.shape[1] // 2
    zeros = np.zeros(columns, grad.dtype)
    for i in range(tiles // width):
        g0, g1 = grad[2 * i], grad[2 * i + 1] if 2 * i + 1 < rows else zeros
        at = 2 * width * i
        f0, f1, f2, f3 = lines[0, at:], lines[1, at:], lines[2, at:], lines[3, at:]
        for j in range(columns):
            f0[j] = g0[j]
            f1[j] = g0[j] + g1[j]
            f2[j] = g0[j] - g1[j]
            f3[j] = -g1[j]
    for k in range(len(lines)):
        line = lines[k]
        f0, f1 = flows[4 * k, o, start:], flows[4 * k + 1, o, start:]
        f2, f3 = flows[4 * k + 2, o, start:], flows[4 * k + 3, o, start:]
        for t in range(tiles):
            f0[t] = line[2 * t]
            f1[t] = line[2 * t] + line[2 * t + 1]
            f2[t] = line[2 * t] - line[2 * t + 1]
            f3[t] = -line[2 * t + 1]


def kernel_sums(kernels: Images, factors: Cube) -> None:
    """Write the factors, (16, O, C)."""
    out_channels, channels, _, _ = kernels.shape
    half = kernels.dtype.type(0.5)
    by_row = np.empty((4, 3), kernels.dtype)
    for o in range(out_channels):
        for c in range(channels):
            for v in range(3):
                g0, g1, g2 = kernels[o, c, 0, v], kernels[o, c, 1, v], kernels[o, c, 2, v]
                by_row[0, v], by_row[3, v] = g0, g2
                by_row[1, v], by_row[2, v] = half * (g0 + g1 + g2), half * (g0 - g1 + g2)
            for k in range(4):
                g0, g1, g2 = by_row[k, 0], by_row[k, 1], by_row[k, 2]
                factors[4 * k, o, c], factors[4 * k + 3, o, c] = g0, g2
                factors[4 * k + 1, o, c] = half * (g0 + g1 + g2)
                factors[4 * k + 2, o, c] = half * (g0 - g1 + g2)


def kernel_gradients(factors: Cube, out: Images) -> None:
    """Write the gradient of the kernels, (O, C, 3, 3), given that of the factors."""
    half = out.dtype.type(0.5)
    by_row = np.empty((4, 3), out.dtype)
    for o in range(out.shape[0]):
        for c in range(out.shape[1]):
            for k in range(4):
                f0, f1 = factors[4 * k, o, c], half * factors[4 * k + 1, o, c]
                f2, f3 = half * factors[4 * k + 2, o, c], factors[4 * k + 3, o, c]
                by_row[k, 0], by_row[k, 1], by_row[k, 2] = f0 + f1 + f2, f1 - f2, f1 + f2 + f3
            for v in range(3):
                f0, f1 = by_row[0, v], half * by_row[1, v]
                f2, f3 = half * by_row[2, v], by_row[3, v]
                out[o, c, 0, v] = f0 + f1 + f2
                out[o, c, 1, v] = f1 - f2
                out[o, c, 2, v] = f1 + f2 + f3
