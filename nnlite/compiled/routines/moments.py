"""Batch norm: the moments of each feature, and the loops over all values.

Samples (N, C) are rows; samples of channels (N, C, places) are lines. A line is read from memory
once for its moments, in the precision of its values; those of all lines are combined in float64.

In all functions `squares` are sums of squared deviations from the mean over `count` values, and
`scale` is 1 / √(squares / count + eps).
"""

from __future__ import annotations

import math

import numpy as np

from nnlite.compiled.routines.table import Cube, Doubles, Matrix, Vector

# ---- lines ----


def line_moments(lines: Cube, mean: Doubles, squares: Doubles, total: Doubles) -> None:
    """Write the moments of each channel, and its sum.

    T. Chan, G. Golub, R. LeVeque, "Updating formulae and a pairwise algorithm for computing sample
    variances", 1979.
    """
    zero, places = lines.dtype.type(0), lines.shape[2]
    for c in range(len(mean)):
        mean[c] = squares[c] = 0
    for b in range(len(lines)):
        for c in range(len(mean)):
            line = lines[b, c]
            first = line[0]
            offset = around = zero
            for p in range(places):
                offset += line[p] - first
            level = offset / lines.dtype.type(places)
            for p in range(places):
                deviation = line[p] - first - level
                around += deviation * deviation
            step = np.float64(first) + np.float64(offset) / places - mean[c]
            mean[c] += step / (b + 1)
            squares[c] += around + step * step * places * b / (b + 1)
    for c in range(len(mean)):
        total[c] = mean[c] * len(lines) * places


def normalize_lines(
    lines: Cube, weight: Vector, bias: Vector, mean: Doubles, squares: Doubles, count: Doubles,
    eps: float, scale: Doubles, out: Cube,
) -> None:  # fmt: skip
    """Write the scale, and (x - mean) scale weight + bias."""
    real = lines.dtype.type
    for c in range(len(mean)):
        scale[c] = 1 / math.sqrt(squares[c] / count[0] + eps)
    for b in range(len(lines)):
        for c in range(len(mean)):
            near, factor = real(mean[c]), scale[c] * weight[c]
            slope, level = real(factor), real(bias[c] - (mean[c] - near) * factor)
            line, result = lines[b, c], out[b, c]
            for p in range(len(line)):
                result[p] = (line[p] - near) * slope + level


def line_products(
    lines: Cube, grads: Cube, mean: Doubles, scale: Doubles,
    sums: Doubles, products: Doubles, weight_grad: Vector, bias_grad: Vector,
) -> None:  # fmt: skip
    """Write the sums of dy and of dy (x - mean) scale for each channel.

    They are the gradients of the bias and of the weight, too.
    """
    real, zero = lines.dtype.type, lines.dtype.type(0)
    for c in range(len(mean)):
        sums[c] = products[c] = 0
    for b in range(len(lines)):
        for c in range(len(mean)):
            near, line, flow = real(mean[c]), lines[b, c], grads[b, c]
            total = product = zero
            for p in range(len(line)):
                total += flow[p]
                product += flow[p] * (line[p] - near)
            sums[c] += total
            products[c] += (product - (mean[c] - near) * total) * scale[c]
    for c in range(len(mean)):
        weight_grad[c], bias_grad[c] = products[c], sums[c]


def line_gradients(
    lines: Cube, grads: Cube, weight: Vector, mean: Doubles, scale: Doubles,
    sums: Doubles, products: Doubles, count: Doubles, out: Cube,
) -> None:  # fmt: skip
    """Write (dy - sums / count - (x - mean) scale products / count) scale weight."""
    real = lines.dtype.type
    for b in range(len(lines)):
        for c in range(len(mean)):
            near, factor = real(mean[c]), scale[c] * weight[c]
            tilt = products[c] / count[0] * scale[c]
            level = real((sums[c] / count[0] - (mean[c] - near) * tilt) * factor)
            slope, tilt = real(factor), real(tilt * factor)
            line, flow, result = lines[b, c], grads[b, c], out[b, c]
            for p in range(len(line)):
                result[p] = flow[p] * slope - (line[p] - near) * tilt - level


# ---- rows ----


def row_moments(rows: Matrix, mean: Doubles, squares: Doubles, total: Doubles) -> None:
    """Write the moments of each column, and its sum."""
    for j in range(len(mean)):
        total[j] = squares[j] = 0
    for i in range(len(rows)):
        for j in range(len(mean)):
            total[j] += rows[i, j]
    for j in range(len(mean)):
        mean[j] = total[j] / len(rows)
    for i in range(len(rows)):
        for j in range(len(mean)):
            squares[j] += (rows[i, j] - mean[j]) ** 2


def normalize_rows(
    rows: Matrix, weight: Vector, bias: Vector, mean: Doubles, squares: Doubles, count: Doubles,
    eps: float, scale: Doubles, out: Matrix,
) -> None:  # fmt: skip
    """Write the scale, and (x - mean) scale weight + bias."""
    for j in range(len(mean)):
        scale[j] = 1 / math.sqrt(squares[j] / count[0] + eps)
    for i in range(len(rows)):
        for j in range(len(mean)):
            out[i, j] = (rows[i, j] - mean[j]) * scale[j] * weight[j] + bias[j]


def row_products(
    rows: Matrix, grads: Matrix, mean: Doubles, scale: Doubles,
    sums: Doubles, products: Doubles, weight_grad: Vector, bias_grad: Vector,
) -> None:  # fmt: skip
    """Write the sums of dy and of dy (x - mean) scale for each column, as above."""
    for j in range(len(mean)):
        sums[j] = products[j] = 0
    for i in range(len(rows)):
        for j in range(len(mean)):
            sums[j] += grads[i, j]
            products[j] += grads[i, j] * (rows[i, j] - mean[j]) * scale[j]
    for j in range(len(mean)):
        weight_grad[j], bias_grad[j] = products[j], sums[j]


def row_gradients(
    rows: Matrix, grads: Matrix, weight: Vector, mean: Doubles, scale: Doubles,
    sums: Doubles, products: Doubles, count: Doubles, out: Matrix,
) -> None:  # fmt: skip
    """Write (dy - sums / count - (x - mean) scale products / count) scale weight."""
    part = 1 / count[0]
    for i in range(len(rows)):
        for j in range(len(mean)):
            normal = (rows[i, j] - mean[j]) * scale[j]
            centred = grads[i, j] - (sums[j] + normal * products[j]) * part
            out[i, j] = centred * scale[j] * weight[j]


# ---- parts of a batch ----


def center_lines(
    lines: Cube, count: Doubles, total: Doubles, mean: Doubles, squares: Doubles
) -> None:  # fmt: skip
    """Turn the moments of these samples into the mean of all, and the squares around it."""
    for c in range(len(mean)):
        off = mean[c] - total[c] / count[0]
        mean[c] -= off
        squares[c] += off * off * len(lines) * lines.shape[2]


def center_rows(
    rows: Matrix, count: Doubles, total: Doubles, mean: Doubles, squares: Doubles
) -> None:  # fmt: skip
    """Turn the moments of these samples into the mean of all, and the squares around it."""
    for j in range(len(mean)):
        off = mean[j] - total[j] / count[0]
        mean[j] -= off
        squares[j] += off * off * len(rows)
