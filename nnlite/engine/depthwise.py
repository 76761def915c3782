"""Correlation of each channel with a kernel of its own, as in depthwise convolution.

The product of one kernel with the windows of an output row is that of a vector and a matrix: it
takes as long as reading the matrix. The windows of neighbouring rows share most of their lines, so
`_AT_ONCE` rows are computed as one product. The matrix of a channel holds its kernel once for each
of these rows, moved down to where the window of the row begins, and zeros elsewhere::

    y₀     g₀ g₁ g₂ 0      d₀            dL/dg₀     M₀₀ + M₁₁
        =              ·   d₁    and     dL/dg₁  =  M₀₁ + M₁₂    with  Mᵣᵢ = Σ Gᵣ dᵢ
    y₁     0  g₀ g₁ g₂     d₂            dL/dg₂     M₀₂ + M₁₃
                           d₃

for kernels of three rows g, rows d of the image, and the gradients G of two output rows y.

The gradient of the image is a correlation too, of the output gradient with the kernel rotated by
180°. With a stride, the columns of the output gradient are spread over those of the image, with
zeros in between. Its rows are not: as many rows of the image as the stride are computed at once,
each with the rows of the kernel that reach it.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from .arrays import Array
from .axis import Axis, Links, by_tap
from .blas import share
from .memory import empty

# Measured with kernels of three to seven rows: with more rows at once, the products with zeros
# cost more than is saved.
_AT_ONCE = 2
# Approximate bytes of lines in a block.
_BLOCK = 1 << 21


class _Tiles(NamedTuple):
    """The rows of a result in groups of `size`, each of them computed from `span` source rows.

    The source rows for tile t begin with row ``t·step + start``; rows outside the source are zero.
    Row `row` of the tile is a sum of correlations along the columns: of the kernel's row `tap` with
    source row `place` of the tile, for all (row, tap, place) in `terms`. The taps of a kernel's row
    link columns of the result with columns of the source by `links`.
    """

    size: int
    step: int
    start: int
    terms: tuple[tuple[int, int, int], ...]
    links: Links
    height: int
    width: int

    @property
    def span(self) -> int:
        return 1 + max(place for _, _, place in self.terms)

    @property
    def number(self) -> int:
        """Number of tiles; rows of the last one may lie beyond the result."""
        return -(-self.height // self.size)

    def traffic(self, result: Array) -> int:
        """Return the bytes of the result and of its windows, which are written and read."""
        return result.nbytes * (1 + 2 * self.span * len(self.links) // self.size)


@functools.lru_cache(maxsize=256)
def _of_output(rows: Axis, columns: Axis) -> _Tiles:
    """Return the tiles that compute the output from the image."""
    size = min(_AT_ONCE, rows.outputs)
    terms = tuple(
        (row, tap, row * rows.stride + tap * rows.dilation)
        for row, tap in itertools.product(range(size), range(rows.taps))
    )
    step, start = size * rows.stride, -rows.padding
    return _Tiles(size, step, start, terms, by_tap(columns), rows.outputs, columns.outputs)


@functools.lru_cache(maxsize=256)
def _of_input(rows: Axis, columns: Axis) -> _Tiles:
    """Return the tiles that compute the gradient of the image from that of the output."""
    step = 1 if rows.stride > 1 else min(_AT_ONCE, rows.inputs)
    size = step * rows.stride
    outputs = {}
    for row, tap in itertools.product(range(size), range(rows.taps)):
        output, rest = divmod(row + rows.padding - tap * rows.dilation, rows.stride)
        if rest == 0:
            outputs[row, tap] = output
    start = min(outputs.values())
    terms = tuple((row, tap, output - start) for (row, tap), output in outputs.items())
    links = tuple((result, source) for source, result in by_tap(columns))
    return _Tiles(size, step, start, terms, links, rows.inputs, columns.inputs)


def correlate(image: Array, kernels: Array, bias: Array | None, rows: Axis, columns: Axis) -> Array:
    """Return the correlation (H', C, W', N) of an image (H, C, W, N) with kernels (C, kH, kW)."""
    return _products(image, kernels, bias, _of_output(rows, columns))


def input_gradient(grad: Array, kernels: Array, rows: Axis, columns: Axis) -> Array:
    """Return the gradient (H, C, W, N) of the image, given that of the output (H', C, W', N)."""
    return _products(grad, kernels, None, _of_input(rows, columns))


def kernel_gradient(image: Array, grad: Array, rows: Axis, columns: Axis) -> Array:
    """Return the gradient (C, kH, kW) of the kernels, given that of the output (H', C, W', N)."""
    tiles = _of_output(rows, columns)
    channels, taps = grad.shape[1], len(tiles.links)
    if missing := tiles.number * tiles.size - len(grad):
        grad = np.concatenate([grad, np.zeros_like(grad[:missing])])
    flow = grad.reshape(tiles.number, tiles.size, channels, -1).transpose(2, 0, 3, 1)
    total = np.zeros((channels, tiles.span * taps, tiles.size), grad.dtype)

    def correlate(first: int, last: int) -> None:
        for part, block, windows in _windows(image, tiles, first, last):
            total[part] += np.matmul(windows, flow[part, block]).sum(axis=1)

    share(correlate, channels, tiles.traffic(grad), grad.size * rows.taps * taps)
    by_place = total.reshape(channels, tiles.span, taps, tiles.size)
    result = np.zeros((channels, rows.taps, taps), grad.dtype)
    for row, tap, place in tiles.terms:
        result[:, tap] += by_place[:, place, :, row]
    return result


def _products(source: Array, kernels: Array, bias: Array | None, tiles: _Tiles) -> Array:
    """Return the result (H, C, W, N) of the tiles."""
    channels, batch = source.shape[1], source.shape[3]
    shape = tiles.number * tiles.size, channels, tiles.width, batch
    result = empty(shape, source.dtype)
    by_tile = result.reshape(tiles.number, tiles.size, channels, -1).transpose(2, 0, 1, 3)
    by_place = np.zeros((channels, 1, tiles.size, tiles.span, kernels.shape[2]), kernels.dtype)
    for row, tap, place in tiles.terms:
        by_place[:, 0, row, place] = kernels[:, tap]
    matrices = by_place.reshape(channels, 1, tiles.size, -1)

    def multiply(first: int, last: int) -> None:
        for part, block, windows in _windows(source, tiles, first, last):
            y = by_tile[part, block]
            np.matmul(matrices[part], windows, out=y)
            if bias is not None:
                y += bias[part, None, None, None]

    share(multiply, channels, tiles.traffic(result), result.size * kernels[0].size)
    return result[: tiles.height]


def _windows(
    source: Array, tiles: _Tiles, first_channel: int, last_channel: int
) -> Iterator[tuple[slice, slice, Array]]:
    """Yield blocks of channels and tiles, with their windows (channels, tiles, span·kW, W·N).

    As in `windows`, the lines of neighbouring tiles overlap in memory.
    """
    height, _, _, batch = source.shape
    line = len(tiles.links), tiles.width, batch
    room = _BLOCK // (source.itemsize * math.prod(line))
    count = min(tiles.number, max(1, (room - tiles.span) // tiles.step + 1))
    length = (count - 1) * tiles.step + tiles.span
    channels = min(last_channel - first_channel, max(1, room // length))
    lines = empty((channels, length, *line), source.dtype)
    lines.fill(0)
    to_channel, to_line, to_row, _, to_pixel = lines.strides
    windows: Array = np.ndarray(
        (channels, count, tiles.span * len(tiles.links), tiles.width * batch),
        source.dtype,
        buffer=lines,
        strides=(to_channel, tiles.step * to_line, to_row, to_pixel),
    )
    for channel in range(first_channel, last_channel, channels):
        part = slice(channel, min(channel + channels, last_channel))
        of_part = slice(part.stop - part.start)
        for start in range(0, tiles.number, count):
            block = slice(start, min(start + count, tiles.number))
            top = start * tiles.step + tiles.start
            first, end = (min(max(edge - top, 0), length) for edge in (0, height))
            lines[of_part, :first] = 0
            lines[of_part, end:] = 0
            for tap, (results, sources) in enumerate(tiles.links):
                pixels = source[top + first : top + end, part, sources]
                lines[of_part, first:end, tap, results] = pixels.swapaxes(0, 1)
            yield part, block, windows[of_part, : block.stop - start]
