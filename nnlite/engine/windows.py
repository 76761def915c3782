"""Sliding windows over images and sequences: correlation and pooling, row by row.

Images have shape (N, C, H, W) and sequences (N, C, L). A sequence is treated as an image of one
row, without a copy. The memory order is (H, C, W, N), rows outermost and the batch innermost. The
functions return transposed views of such arrays. They accept any other order and then copy;
`arrange` makes the copy once for several calls. In this order nearly all work is done by matrix
products:

- **`correlate`.** An output row depends on kH rows of the image. Column j of the kernel multiplies
  these rows shifted by j. `_windows` stores the kW shifted copies of the image in
  ``lines[h, c, j, w, n]``. The kH lines for an output row are then contiguous: a matrix of kH·C·kW
  rows and W·N columns, ready for the product with the weight. The matrices of neighbouring output
  rows overlap in memory. (The usual method, im2col, copies the image kH·kW times.)
- **`correlate_weight`.** The same matrices, times the output gradient of their row.
- **`correlate_input`.** The gradient of an image row depends on kH rows of the output gradient,
  which form such a matrix without a copy. One product sums over output channels and kernel rows and
  gives kW shifted lines; their sum is the row's gradient. (The usual method, col2im, sums kH·kW
  shifted images.)

The matrices of several groups of channels are one stack, with the group as its first axis: the "…"
in the shapes below. If each channel is a group, they would be vectors: see `depthwise`.

Kernels of three rows, the most common size, need a third fewer multiplications in all three
functions if the batch is large: see `winograd`. `_suits_winograd` decides this from shapes alone.

All functions work on blocks of rows that fit into the processor's cache. Stride, padding and
dilation are resolved for one axis at a time: see `Axis`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator

import numpy as np

from . import depthwise, winograd
from .arrays import Array
from .axis import Axes, Axis, by_input, by_tap
from .blas import share, share_sum
from .elementwise import where
from .memory import empty, ones

# Approximate bytes of lines in a block.
_BLOCK = 1 << 22
# Number of samples, and of products in the sum of one kernel row, from which on Winograd's
# algorithm is faster.
_MANY_SAMPLES, _MANY_TERMS = 32, 48

# The axis of rows for a sequence, which has none.
_ONE_ROW = Axis(inputs=1, outputs=1, taps=1, stride=1, padding=0, dilation=1)


def arrange(x: Array) -> Array:
    """Return `x` in the memory order of the functions below, copied if necessary."""
    return x if _is_arranged(x) else _as_given(_by_rows(x), x.ndim)


def correlate(x: Array, weight: Array, bias: Array | None, axes: Axes, groups: int = 1) -> Array:
    """Return the cross-correlation of `x` with the kernels of `weight`, plus `bias`.

    Parameters
    ----------
    x : ndarray of shape (N, C, H, W) or (N, C, L)
    weight : ndarray of shape (O, C / groups, kH, kW) or (O, C / groups, k)
    bias : ndarray of shape (O,), or None
    axes : tuple of Axis
    groups : int
        Number of equal parts of the channels and of the kernels; each part of the kernels is
        applied to its part of the channels alone.

    Returns
    -------
    ndarray of shape (N, O, H', W') or (N, O, L')
    """
    rows, columns = _row_and_column(axes)
    if _is_depthwise(x.shape[1], len(weight), groups):
        kernels = _with_rows(weight)[:, 0]
        return _as_given(depthwise.correlate(_by_rows(x), kernels, bias, rows, columns), x.ndim)
    y = empty((rows.outputs, len(weight), columns.outputs, len(x)), x.dtype)
    image, kernels = _by_group(_by_rows(x), groups), _kernels_by_group(weight, groups)
    _convolve(image, kernels, bias, rows, columns, _by_group(y, groups))
    return _as_given(y, x.ndim)


def correlate_weight(x: Array, grad: Array, axes: Axes, groups: int = 1) -> Array:
    """Return the gradient of `weight` in `correlate`, given the gradient of its result."""
    if _is_depthwise(x.shape[1], grad.shape[1], groups):
        of_kernels = depthwise.kernel_gradient(_by_rows(x), _by_rows(grad), *_row_and_column(axes))
        return of_kernels[:, None] if x.ndim == 4 else of_kernels
    image, lines = _by_group(_by_rows(x), groups), _by_group(_lines(grad), groups)
    of_kernels = _weight_grad(image, lines, *_row_and_column(axes))
    return of_kernels if x.ndim == 4 else of_kernels[:, :, 0]


def correlate_input(grad: Array, weight: Array, axes: Axes, groups: int = 1) -> Array:
    """Return the gradient of `x` in `correlate`, given the gradient of its result."""
    rows, columns = _row_and_column(axes)
    channels = weight.shape[1] * groups
    if _is_depthwise(channels, len(weight), groups):
        kernels = _with_rows(weight)[:, 0]
        dx = depthwise.input_gradient(_by_rows(grad), kernels, rows, columns)
        return _as_given(dx, grad.ndim)
    dx = empty((rows.inputs, channels, columns.inputs, len(grad)), grad.dtype)
    lines, kernels = _by_group(_lines(grad), groups), _kernels_by_group(weight, groups)
    _input_grad(lines, kernels, _by_group(dx, groups), rows, columns)
    return _as_given(dx, grad.ndim)


def channel_sums(grad: Array) -> Array:
    """Return the sum of each channel: the gradient of `bias` in `correlate`."""
    lines = _lines(grad)
    column = ones((lines.shape[2],), lines.dtype)

    def of_rows(start: int, stop: int) -> Array:
        # A product with ones, computed by BLAS, is faster than sum(axis=(0, 2)).
        total: Array = np.matmul(lines[start:stop], column).sum(axis=0)
        return total

    return share_sum(of_rows, len(lines), lines.nbytes)


def pool_max(x: Array, axes: Axes) -> Array:
    """Return the largest value in each window. NaN counts as larger than every number."""
    return _pool(np.maximum, -np.inf, x, axes)


def pool_sum(x: Array, axes: Axes) -> Array:
    """Return the sum of each window."""
    return _pool(np.add, 0, x, axes)


def spread_max(x: Array, y: Array, grad: Array, axes: Axes) -> Array:
    """Return the gradient of `x` in ``y = pool_max(x, axes)``, given the gradient of y.

    Each window passes its gradient to its first maximum, row by row.
    """
    rows, columns = _row_and_column(axes)
    image, maxima, flow = _by_rows(x), _by_rows(y), _by_rows(grad)
    result = empty(image.shape, image.dtype)

    def spread(part: Axis, inputs: slice, outputs: slice) -> None:
        _spread_to_maxima(
            image[inputs], maxima[outputs], flow[outputs], result[inputs], part, columns
        )

    _share_windows(spread, rows, result.nbytes)
    return _as_given(result, x.ndim)


def places_of_maxima(x: Array, y: Array, axes: Axes) -> Array:
    """Return where each window has its first maximum: the position in the image, row by row."""
    rows, columns = _row_and_column(axes)
    image = _by_rows(x)
    positions = np.arange(rows.inputs * columns.inputs).reshape(rows.inputs, 1, columns.inputs, 1)
    places = np.zeros((rows.outputs, image.shape[1], columns.outputs, len(x)), np.int64)
    for (i, h), (j, w), found in _first_maxima(image, _by_rows(y), rows, columns):
        places[i, :, j] += positions[h, :, w] * found
    return _as_given(places, x.ndim)


def spread_sum(grad: Array, axes: Axes) -> Array:
    """Return the gradient of `x` in ``pool_sum(x, axes)``, given the gradient of its result."""
    rows, columns = _row_and_column(axes)
    flow = _by_rows(grad)
    _, channels, _, batch = flow.shape
    lines = empty((rows.outputs, channels, columns.inputs, batch), grad.dtype)
    lines.fill(0)
    for outputs, inputs in by_tap(columns):
        lines[:, :, inputs] += flow[:, :, outputs]
    result = empty((rows.inputs, *lines.shape[1:]), grad.dtype)
    result.fill(0)
    for outputs, inputs in by_tap(rows):
        result[inputs] += lines[outputs]
    return _as_given(result, grad.ndim)


# ---- memory order ----


def _by_rows(x: Array) -> Array:
    """Return x as (H, C, W, N), copied if the batch is not innermost in memory."""
    rows = _with_rows(x).transpose(2, 1, 3, 0)
    return rows if _is_arranged(x) else np.ascontiguousarray(rows)


def _is_arranged(x: Array) -> bool:
    """Whether the batch is innermost in memory."""
    return x.strides[0] == x.itemsize or len(x) == 1


def _lines(grad: Array) -> Array:
    """Return the gradient of an output as (H', O, W'·N)."""
    rows = _by_rows(grad)
    return rows.reshape(*rows.shape[:2], -1)


def _by_group(rows: Array, groups: int) -> Array:
    """Return (H, C, ...) with its channels in groups, as (groups, H, C / groups, ...).

    One group has no axis of its own.
    """
    if groups == 1:
        return rows
    return rows.reshape(len(rows), groups, -1, *rows.shape[2:]).swapaxes(0, 1)


def _kernels_by_group(weight: Array, groups: int) -> Array:
    """Return kernels as (groups, O / groups, C, kH, kW), or as (O, C, kH, kW) for one group."""
    kernels = _with_rows(weight)
    return kernels if groups == 1 else kernels.reshape(groups, -1, *kernels.shape[1:])


def _as_given(rows: Array, rank: int) -> Array:
    """Return (H, C, W, N) as (N, C, H, W), or as (N, C, L) if `rank` is 3."""
    x = rows.transpose(3, 1, 0, 2)
    return x if rank == 4 else x[:, :, 0]


def _with_rows(x: Array) -> Array:
    """Return images or their kernels unchanged; give sequences or their kernels an axis of rows."""
    return x if x.ndim == 4 else x[:, :, None]


def _row_and_column(axes: Axes) -> tuple[Axis, Axis]:
    return (_ONE_ROW, axes[0]) if len(axes) == 1 else (axes[0], axes[1])


# ---- correlation ----


def _is_depthwise(in_channels: int, out_channels: int, groups: int) -> bool:
    """Whether each of several channels has one kernel of its own."""
    return in_channels == out_channels == groups > 1


def _suits_winograd(rows: Axis, columns: Axis, in_channels: int, batch: int) -> bool:
    """Whether Winograd's algorithm applies to a convolution and is faster."""
    is_large = batch >= _MANY_SAMPLES and columns.taps * in_channels >= _MANY_TERMS
    is_dense = rows.stride == rows.dilation == columns.stride == columns.dilation == 1
    return rows.taps == 3 and is_large and is_dense


def _convolve(
    image: Array, weight: Array, bias: Array | None, rows: Axis, columns: Axis, y: Array
) -> None:
    """Write the convolution of `image` (…, H, C, W, N) into `y` (…, H', O, W', N)."""
    *stack, out_channels, channels = weight.shape[:-2]
    if _suits_winograd(rows, columns, channels, image.shape[-1]):
        shifts = None if bias is None else bias.reshape(*stack, -1)
        for group in np.ndindex(*stack):
            winograd.convolve(
                image[group].swapaxes(1, 2),
                weight[group].transpose(2, 0, 3, 1),
                None if shifts is None else shifts[group],
                (rows.padding, columns.padding),
                y[group].swapaxes(1, 2),
            )
        return
    lines = y.reshape(*y.shape[:-2], -1)
    kernels = weight.swapaxes(-3, -2).reshape(*stack, 1, out_channels, -1)
    shift = None if bias is None else bias.reshape(*stack, 1, -1, 1)

    def convolve(start: int, stop: int) -> None:
        for block, windows in _windows(image, rows, columns, out_channels, start, stop):
            part = lines[..., block, :, :]
            np.matmul(kernels, windows, out=part)
            if shift is not None:
                part += shift

    share(convolve, rows.outputs, y.nbytes, y.size * kernels.shape[-1])


def _weight_grad(image: Array, lines: Array, rows: Axis, columns: Axis) -> Array:
    """Return dL/dweight (O, C, kH, kW), given the lines (…, H', O, W'·N) of dL/dy."""
    *stack, _, channels, _, batch = image.shape
    out_channels = lines.shape[-2]
    shape = -1, rows.taps, channels, columns.taps, out_channels
    if _suits_winograd(rows, columns, channels, batch):
        total = np.stack(
            [
                winograd.kernel_gradient(image[group], lines[group], by_tap(columns), rows.padding)
                for group in np.ndindex(*stack)
            ]
        )
    else:
        terms = math.prod(shape[1:4])

        def correlate(start: int, stop: int) -> Array:
            total = np.zeros((*stack, terms, out_channels), image.dtype)
            for block, windows in _windows(image, rows, columns, out_channels, start, stop):
                part = lines[..., block, :, :]
                total += np.matmul(windows, part.swapaxes(-2, -1)).sum(axis=-3)
            return total

        total = share_sum(correlate, rows.outputs, lines.nbytes, lines.size * terms)
    return (
        total.reshape(shape).transpose(0, 4, 2, 1, 3).reshape(-1, channels, rows.taps, columns.taps)
    )


def _windows(
    image: Array, rows: Axis, columns: Axis, out_channels: int, first_row: int, last_row: int
) -> Iterator[tuple[slice, Array]]:
    """Yield blocks of output rows, with their windows as matrices (…, rows, kH·C·kW, W'·N)."""
    *stack, _, channels, _, batch = image.shape
    line = (channels, columns.taps, columns.outputs, batch)
    if rows.taps == 1 and not rows.is_padded and columns.is_identity:
        pixels = image[..., :: rows.stride, :, :, :][..., first_row:last_row, :, :, :]
        yield slice(first_row, last_row), pixels.reshape(*pixels.shape[:-2], -1)
        return
    # Both the lines of a block and its products in the weight gradient fit into _BLOCK bytes.
    room = _BLOCK // (image.itemsize * math.prod(stack))
    fitting = (room // math.prod(line) - rows.span) // rows.stride + 1
    fitting = min(fitting, room // (rows.taps * channels * columns.taps * out_channels))
    step = min(last_row - first_row, max(rows.taps, fitting))
    lines = empty((*stack, (step - 1) * rows.stride + rows.span, *line), image.dtype)
    if columns.is_padded:
        lines.fill(0)
    # With the rows as the first axis.
    source, target = image.swapaxes(0, -4), lines.swapaxes(0, -5)
    for start in range(first_row, last_row, step):
        stop = min(start + step, last_row)
        top = start * rows.stride - rows.padding
        height = (stop - start - 1) * rows.stride + rows.span
        first, end = min(max(-top, 0), height), min(max(rows.inputs - top, 0), height)
        target[:first] = 0
        target[end:height] = 0
        for tap, (outputs, inputs) in enumerate(by_tap(columns)):
            target[first:end, ..., tap, outputs, :] = source[
                top + first : top + end, ..., inputs, :
            ]
        *to_group, to_line, _, to_row, _, to_pixel = lines.strides
        windows: Array = np.ndarray(
            (*stack, stop - start, rows.taps, channels * columns.taps, columns.outputs * batch),
            image.dtype,
            buffer=lines,
            strides=(*to_group, rows.stride * to_line, rows.dilation * to_line, to_row, to_pixel),
        )
        if rows.dilation > 1:
            # The lines of a window are not contiguous, so this copies.
            copied = empty(windows.shape, image.dtype)
            copied[...] = windows
            windows = copied
        yield slice(start, stop), windows.reshape(*stack, stop - start, -1, windows.shape[-1])


def _input_grad(lines: Array, weight: Array, grad: Array, rows: Axis, columns: Axis) -> None:
    """Write dL/dx into `grad` (…, H, C, W, N), given the lines (…, H', O, W'·N) of dL/dy."""
    *stack, height, channels, _, batch = grad.shape
    out_channels = lines.shape[-2]
    lines = np.ascontiguousarray(lines)
    if _suits_winograd(rows, columns, out_channels, batch):
        # The convolution of the output gradient with the kernels rotated by 180°.
        by_pixel = lines.reshape(*lines.shape[:-1], columns.outputs, batch)
        padding = 2 - rows.padding, columns.taps - 1 - columns.padding
        for group in np.ndindex(*stack):
            turned = weight[group][..., ::-1, ::-1].transpose(2, 1, 3, 0)
            dx = grad[group].swapaxes(1, 2)
            winograd.convolve(by_pixel[group].swapaxes(1, 2), turned, None, padding, dx)
        return
    # (…, kW·C, kH, O), with the kernel's rows in reverse order.
    kernels = weight[..., ::-1, :].swapaxes(-4, -1)
    kernels = kernels.reshape(*stack, -1, rows.taps, out_channels)
    line = (*stack, columns.taps, channels, columns.outputs, batch)

    def spread(first_row: int, last_row: int) -> None:
        step = min(last_row - first_row, max(1, _BLOCK // (math.prod(line) * grad.itemsize)))
        shifted = empty((step, *line), grad.dtype)
        products = shifted.reshape(step, *kernels.shape[:-2], -1)
        for start in range(first_row, last_row, step):
            stop = min(start + step, last_row)
            for row, (taps, outputs) in enumerate(by_input(rows)[start:stop]):
                kernel = kernels[..., taps, :].reshape(*kernels.shape[:-2], -1)
                flow = lines[..., outputs, :, :].reshape(*stack, -1, lines.shape[-1])
                # NumPy computes a product of one term without BLAS, several times slower.
                multiply = np.multiply if flow.shape[-2] == 1 else np.matmul
                multiply(kernel, flow, out=products[row])
            block = grad[..., start:stop, :, :, :].swapaxes(0, -4)
            block.fill(0)
            for tap, (outputs, inputs) in enumerate(by_tap(columns)):
                block[..., inputs, :] += shifted[: len(block), ..., tap, :, outputs, :]

    share(spread, height, grad.nbytes, lines.size * kernels.shape[-3] * rows.taps)


# ---- pooling ----


def _pool(combine: np.ufunc, neutral: float, x: Array, axes: Axes) -> Array:
    """Combine the pixels of each window, rows first.

    In memory the channels are outermost, so that a `Flatten` after the pool does not copy.
    """
    rows, columns = _row_and_column(axes)
    image = _by_rows(x)
    _, channels, width, batch = image.shape
    lines = empty((rows.outputs, channels, width, batch), image.dtype)
    shape = channels, rows.outputs, columns.outputs, batch
    pooled = empty(shape, image.dtype).swapaxes(0, 1)

    def pool(part: Axis, inputs: slice, outputs: slice) -> None:
        line, target = lines[outputs], pooled[outputs]
        _combine(combine, neutral, part, image[inputs], line)
        _combine(combine, neutral, columns, line.swapaxes(0, 2), target.swapaxes(0, 2))

    _share_windows(pool, rows, image.nbytes)
    return _as_given(pooled, x.ndim)


def _combine(combine: np.ufunc, neutral: float, axis: Axis, source: Array, target: Array) -> None:
    """Combine the inputs in each window along the first axis."""
    if axis.is_padded:
        target.fill(neutral)
    for tap, (outputs, inputs) in enumerate(by_tap(axis)):
        if tap == 0 and not axis.is_padded:
            target[outputs] = source[inputs]
        else:
            combine(target[outputs], source[inputs], out=target[outputs])


def _share_windows(work: Callable[[Axis, slice, slice], None], rows: Axis, size: int) -> None:
    """Call ``work(rows, inputs, outputs)`` for parts of the rows, if no two windows share a row."""
    if not rows.is_tiled:
        work(rows, slice(None), slice(None))
        return

    def work_on(start: int, stop: int) -> None:
        count, stride = stop - start, rows.stride
        if count == rows.outputs:
            work(rows, slice(None), slice(None))
            return
        part = rows._replace(inputs=count * stride, outputs=count)
        work(part, slice(start * stride, stop * stride), slice(start, stop))

    share(work_on, rows.outputs, size)


def _spread_to_maxima(
    image: Array, y: Array, grad: Array, result: Array, rows: Axis, columns: Axis
) -> None:
    """Write the gradient of each window to its first maximum in `result`, and 0 elsewhere."""
    grad = np.ascontiguousarray(grad)
    tiled = rows.is_tiled and columns.is_tiled
    if not tiled:
        result.fill(0)
    for (i, h), (j, w), found in _first_maxima(image, y, rows, columns):
        if tiled:
            result[h, :, w] = where(found, grad[i, :, j])
        else:
            result[h, :, w] += where(found, grad[i, :, j])


def _first_maxima(
    image: Array, y: Array, rows: Axis, columns: Axis
) -> Iterator[tuple[tuple[slice, slice], tuple[slice, slice], Array]]:
    """Yield for each tap its outputs and inputs on both axes, and the windows with a maximum there.

    Only the first maximum of a window counts.
    """
    y = np.ascontiguousarray(y)
    pending = np.ones(y.shape, bool)  # windows whose maximum has not been found yet
    with_nan = np.isnan(y).any()
    tiled = rows.is_tiled and columns.is_tiled
    last = rows.taps * columns.taps - 1
    taps = itertools.product(by_tap(rows), by_tap(columns))
    for index, ((i, h), (j, w)) in enumerate(taps):
        if tiled and index == last:
            found = pending  # the maximum must be at this last position
        else:
            found = image[h, :, w] == y[i, :, j]
            if with_nan:
                found |= np.isnan(image[h, :, w])
            found &= pending[i, :, j]
            pending[i, :, j] ^= found
        yield (i, h), (j, w), found
