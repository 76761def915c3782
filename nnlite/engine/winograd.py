"""Winograd convolution: kernels of three rows with two thirds of the multiplications.

Two neighbouring rows of the output, y₀ and y₁, depend on four rows d₀ … d₃ of the image. With the
rows g₀, g₁, g₂ of the kernel this takes six products, or only four products of sums (Winograd's
F(2, 3))::

    m₀ = (d₀ - d₂) g₀                        m₁ = (d₁ + d₂) (g₀ + g₁ + g₂)/2
    m₃ = (d₁ - d₃) g₂                        m₂ = (d₂ - d₁) (g₀ - g₁ + g₂)/2

    y₀ = d₀ g₀ + d₁ g₁ + d₂ g₂ = m₀ + m₁ + m₂
    y₁ = d₁ g₀ + d₂ g₁ + d₃ g₂ = m₁ - m₂ - m₃

The gradient of the kernel's rows uses the same sums, and four products instead of six too. With G₀
and G₁ the gradients of y₀ and y₁, summed over all pairs of rows::

    M₀ = Σ (d₀ - d₂) G₀                      M₁ = Σ (d₁ + d₂) (G₀ + G₁)
    M₃ = Σ (d₃ - d₁) G₁                      M₂ = Σ (d₂ - d₁) (G₀ - G₁)

    dL/dg₀ = M₀ + (M₁ + M₂)/2    dL/dg₁ = (M₁ - M₂)/2    dL/dg₂ = M₃ + (M₁ + M₂)/2

In the forward pass the sums are stored as (W, C, N). The values that a row of the kernel covers at
one pixel, kW·C rows of N numbers, are then contiguous: each pixel is one matrix product with the
kernel's row, without a copy of the sums. These matrices are so small that OpenBLAS does not pack
them. For the gradient of the kernels the sums are copied kW times, so that one product covers all
pixels of a row.

Near an infinite pixel the sums can be ∞ - ∞ = NaN where the true output is ±∞. The sum of two
pixels can also overflow where the true output does not.

References
----------
S. Winograd, "Arithmetic complexity of computations", SIAM, 1980.

A. Lavin, S. Gray, "Fast algorithms for convolutional neural networks", CVPR 2016.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from .arrays import Array
from .blas import share, share_sum
from .memory import empty

# Samples in one part of the batch: enough for long contiguous sums, few enough for small matrices.
_SAMPLES = 128


def convolve(
    image: Array, kernels: Array, bias: Array | None, padding: tuple[int, int], out: Array
) -> None:
    """Write the convolution of `image` with `kernels`, plus `bias`, into `out`.

    Parameters
    ----------
    image : ndarray of shape (H, W, C, N)
    kernels : ndarray of shape (3, O, kW, C)
    bias : ndarray of shape (O,), or None
    padding : (int, int)
        Number of rows of zeros above and of columns of zeros left of the image. The zeros below
        and to the right follow from the shape of `out`.
    out : ndarray of shape (H', W', O, N)
    """
    rows, columns, out_channels, batch = out.shape
    _, _, taps, channels = kernels.shape
    g0, g1, g2 = kernels.reshape(3, out_channels, taps * channels)
    factors = np.array([g0, (g0 + g1 + g2) / 2, (g0 - g1 + g2) / 2, g2])[:, None]

    def convolve_pairs(start: int, stop: int) -> None:
        for samples in _parts(batch):
            part, target = image[..., samples], out[..., samples]
            shift = None if bias is None else np.repeat(bias[:, None], part.shape[3], axis=1)
            products = empty((4, *target.shape[1:]), out.dtype)
            m0, m1, m2, m3 = products
            pairs = range(2 * start, min(2 * stop, rows), 2)
            for row, windows in _sums_of_rows(part, pairs, padding, columns, taps):
                np.matmul(factors, windows, out=products)
                if shift is not None:
                    m1 += shift
                m0 += m1
                np.add(m0, m2, out=target[row])
                if row + 1 < rows:
                    m1 -= m2
                    np.subtract(m1, m3, out=target[row + 1])

    # Two rows take four products of kW·C terms.
    share(convolve_pairs, (rows + 1) // 2, out.nbytes, out.size * 2 * taps * channels)


def kernel_gradient(
    image: Array, lines: Array, taps: Sequence[tuple[slice, slice]], top: int
) -> Array:
    """Return the gradient of the kernels, an array (3, C, kW, O).

    Parameters
    ----------
    image : ndarray of shape (H, C, W, N)
    lines : ndarray of shape (H', O, W'·N)
        The gradient of the output.
    taps : sequence of (slice, slice)
        For each column of the kernel, the columns of the output where it lies inside the image,
        and the columns of the image that it covers there.
    top : int
        Number of rows of zeros above the image.
    """
    _, channels, width, batch = image.shape
    rows, out_channels, pixels = lines.shape

    def correlate_pairs(start: int, stop: int) -> Array:
        total = np.zeros((4, channels * len(taps), out_channels), image.dtype)
        zeros = np.zeros(image.shape[1:], image.dtype)
        sums = empty((channels, width, batch), image.dtype)
        # Each column of the kernel is multiplied with the image shifted, padded with zeros.
        shifted = empty((channels, len(taps), pixels // batch, batch), image.dtype)
        shifted.fill(0)
        windows = shifted.reshape(len(total[0]), -1)
        both = empty((2, *lines.shape[1:]), image.dtype)
        for row in range(2 * start, min(2 * stop, rows), 2):
            d0, d1, d2, d3 = _rows(image, row - top, zeros)
            first = lines[row]
            second = lines[row + 1] if row + 1 < rows else np.zeros_like(first)
            np.add(first, second, out=both[0])
            np.subtract(first, second, out=both[1])
            for left, combine, right, line, product in (
                (d0, np.subtract, d2, first, total[0]),
                (d1, np.add, d2, both[0], total[1]),
                (d2, np.subtract, d1, both[1], total[2]),
                (d3, np.subtract, d1, second, total[3]),
            ):
                combine(left, right, out=sums)
                for tap, (outputs, inputs) in enumerate(taps):
                    shifted[:, tap, outputs] = sums[:, inputs]
                product += np.dot(windows, line.T)
        return total

    multiply_adds = lines.size * 2 * channels * len(taps)
    m0, m1, m2, m3 = share_sum(correlate_pairs, (rows + 1) // 2, lines.nbytes, multiply_adds)
    half = (m1 + m2) / 2
    return np.array([m0 + half, (m1 - m2) / 2, m3 + half]).reshape(
        3, channels, len(taps), out_channels
    )


def _sums_of_rows(
    image: Array, output_rows: range, padding: tuple[int, int], columns: int, taps: int
) -> Iterator[tuple[int, Array]]:
    """Yield each of `output_rows` with the windows of the sums for it and the next row.

    The windows, of shape (4, W', kW·C, N), are overwritten in the next iteration.
    """
    _, width, channels, batch = image.shape
    top, left = padding
    # Position j along the sums is column j - left of the image, from `first` to `end`.
    positions = columns + taps - 1
    first, end = max(left, 0), min(left + width, positions)
    sums = empty((4, positions, channels, batch), image.dtype)
    sums[:, :first] = 0
    sums[:, end:] = 0
    inside = image[:, first - left : end - left]
    zeros = np.zeros(inside.shape[1:], image.dtype)
    windows: Array = np.ndarray(
        (4, columns, taps * channels, batch), image.dtype, buffer=sums, strides=sums.strides
    )
    s0, s1, s2, s3 = sums[:, first:end]
    for row in output_rows:
        d0, d1, d2, d3 = _rows(inside, row - top, zeros)
        np.subtract(d0, d2, out=s0)
        np.add(d1, d2, out=s1)
        np.subtract(d2, d1, out=s2)
        np.subtract(d1, d3, out=s3)
        yield row, windows


def _rows(image: Array, first: int, zeros: Array) -> list[Array]:
    """Return four rows of the image, with `zeros` for rows outside of it."""
    return [image[i] if 0 <= i < len(image) else zeros for i in range(first, first + 4)]


def _parts(batch: int) -> list[slice]:
    """Return slices of about the same length that cover the batch."""
    count = -(-batch // _SAMPLES)
    return [slice(batch * part // count, batch * (part + 1) // count) for part in range(count)]
