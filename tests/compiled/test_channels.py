"""Convolutions of windows in place are the sums that define them, in lines and by channels."""

import functools

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from nnlite.compiled.native import functions_of
from nnlite.compiled.routines import channels, correlation


def check(functions, shapes, options, dtype, seed):
    """Compare the functions, given shapes of images, kernels and results, with plain sums."""
    (batch, total, height, width), (count, depth, rows, taps), places = shapes
    top, left, row_stride, column_stride, row_step, column_step = options
    rng = np.random.default_rng(seed)
    images, kernels, bias, grads = (
        rng.normal(size=shape).astype(dtype)
        for shape in ((batch, total, height, width), shapes[1], count, (batch, count, *places))
    )
    high = max(top + height, (places[0] - 1) * row_stride + (rows - 1) * row_step + 1)
    wide = max(left + width, (places[1] - 1) * column_stride + (taps - 1) * column_step + 1)
    padded, padded_grads = np.zeros((2, batch, total, high, wide), dtype)
    padded[:, :, top : top + height, left : left + width] = images
    expected, kernel_grads = np.zeros_like(grads), np.zeros_like(kernels)
    for o, u, v in np.ndindex(count, rows, taps):
        first = o // (count * depth // total) * depth
        window = (
            slice(None),
            slice(first, first + depth),
            slice(u * row_step, u * row_step + (places[0] - 1) * row_stride + 1, row_stride),
            slice(
                v * column_step,
                v * column_step + (places[1] - 1) * column_stride + 1,
                column_stride,
            ),
        )
        expected[:, o] += np.einsum("c,bcij->bij", kernels[o, :, u, v], padded[window])
        kernel_grads[o, :, u, v] = np.einsum("bij,bcij->c", grads[:, o], padded[window])
        padded_grads[window] += kernels[o, :, u, v, None, None] * grads[:, o, None]
    expected += bias[:, None, None]
    image_grads = padded_grads[:, :, top : top + height, left : left + width]
    close = functools.partial(assert_allclose, rtol=0, atol=5000 * np.finfo(dtype).eps)
    forward, of_kernels, of_images = functions
    out = np.full_like(grads, np.nan)
    forward(images, kernels, bias, out, *options)
    close(out, expected)
    out = np.full_like(kernels, np.nan)
    of_kernels(images, grads, out, *options)
    close(out, kernel_grads)
    out = np.full_like(images, np.nan)
    of_images(grads, kernels, out, *options)
    close(out, image_grads)


few, some = st.integers(1, 3), st.integers(1, 9)


@pytest.mark.parametrize("place", ["channels", "correlation"])
@settings(deadline=None)
@given(
    sizes=st.tuples(few, few, few, few, some, some, few, few, some, some),
    options=st.tuples(st.integers(0, 4), st.integers(0, 4), few, few, few, few),
    numbers=st.tuples(*[st.sampled_from([1, 2, 5, 100])] * 4),
    seed=st.integers(0, 9),
)
@example(  # few windows
    sizes=(2, 1, 2, 9, 3, 3, 3, 2, 2, 1), options=(1, 0, 2, 1, 1, 2), numbers=(100,) * 4, seed=0
)
@example(  # windows in the padding alone
    sizes=(2, 1, 2, 2, 3, 3, 1, 2, 11, 10), options=(4, 4, 1, 1, 1, 1), numbers=(100,) * 4, seed=0
)
def test_they_are_plain_sums(place, sizes, options, numbers, seed):
    batch, groups, depth, group, height, width, rows, taps, *places = sizes
    # With windows beyond the padding only where it is.
    spans = (rows - 1) * options[4] + 1, (taps - 1) * options[5] + 1
    limits = [
        max(1, (size + 2 * padding - span) // stride + 1)
        for size, padding, span, stride in zip(
            (height, width), options[:2], spans, options[2:4], strict=True
        )
    ]
    places = tuple(map(min, places, limits))
    shapes = (batch, groups * depth, height, width), (groups * group, depth, rows, taps), places
    with pytest.MonkeyPatch.context() as patch:
        for name, number in zip(("_DEPTH", "_WINDOWS", "_MANY", "_BLOCK"), numbers, strict=True):
            patch.setattr(channels, name, number)
        if place == "channels":
            functions = channels.convolve, channels.convolve_kernels, channels.convolve_images
        else:
            functions = (
                correlation.correlate,
                correlation.correlate_kernels,
                correlation.correlate_images,
            )
        check(functions, shapes, options, np.float64, seed)


@functools.cache
def native(name, count, dtype):
    arguments = ", ".join(f"a{i}" for i in range(count))
    return functions_of(f"""
from nnlite.compiled.routines.channels import {name}
import numpy as np
real = np.{dtype}


def call({arguments}):
    {name}({arguments})
""", True)["call"]  # fmt: skip


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("shapes", "options"),
    [
        (((5, 17, 7, 8), (18, 17, 3, 3), (7, 8)), (1, 1, 1, 1, 1, 1)),
        (((1, 100, 4, 5), (33, 100, 3, 3), (2, 3)), (1, 1, 2, 2, 1, 1)),  # blocks of channels
        (((2, 8, 27, 29), (20, 8, 5, 3), (27, 29)), (2, 1, 1, 1, 1, 1)),  # bands of rows
        (((3, 50, 9, 9), (10, 25, 3, 2), (9, 9)), (2, 1, 1, 1, 2, 2)),  # groups, and dilation
        (((1, 20, 5, 7), (50, 20, 3, 2), (2, 4)), (1, 1, 2, 2, 2, 1)),  # few windows
        (((3, 20, 2, 1), (25, 20, 1, 3), (2, 1)), (0, 1, 1, 1, 1, 1)),
        (((2, 48, 1, 40), (48, 48, 1, 5), (1, 40)), (0, 2, 1, 1, 1, 1)),
    ],
)
def test_machine_code(shapes, options, dtype):
    pytest.importorskip("numba")
    names = {"convolve": 10, "convolve_kernels": 9, "convolve_images": 9}
    check([native(*each, dtype) for each in names.items()], shapes, options, np.dtype(dtype), 0)
