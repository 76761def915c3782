"""Convolution of images and pooling compared with PyTorch's."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

import nnlite as nn

from ..case import Case


def conv2d(
    shape: tuple[int, ...], out_channels: int, options: dict[str, Any], dtype: str = "float64"
) -> Case:
    return Case(
        f"Conv2d {shape} to {out_channels}, {options}, {dtype}",
        layer=lambda: nn.Conv2d(shape[1], out_channels, **options),
        module=lambda torch: torch.nn.Conv2d(shape[1], out_channels, **options),
        inputs=lambda rng: (rng.normal(size=shape),),
        dtype=dtype,
    )


def transposed(
    shape: tuple[int, ...], out_channels: int, options: dict[str, Any], dtype: str = "float64"
) -> Case:
    name = f"ConvTranspose{len(shape) - 2}d"
    return Case(
        f"{name} {shape} to {out_channels}, {options}, {dtype}",
        layer=lambda: getattr(nn, name)(shape[1], out_channels, **options),
        module=lambda torch: getattr(torch.nn, name)(shape[1], out_channels, **options),
        inputs=lambda rng: (rng.normal(size=shape),),
        dtype=dtype,
    )


def pool(kind: str, shape: tuple[int, ...], options: dict[str, Any]) -> Case:
    return Case(
        f"{kind} {shape}, {options}",
        layer=lambda: getattr(nn, kind)(**options),
        module=lambda torch: getattr(torch.nn, kind)(**options),
        # Rounded: many windows have several largest pixels, of which the first counts.
        inputs=lambda rng: (rng.normal(size=shape).round(1),),
    )


IMAGES = (2, 2, 6, 5)

CASES = [
    conv2d(IMAGES, 3, {"kernel_size": 3}),
    conv2d(IMAGES, 3, {"kernel_size": 3}, "float32"),
    conv2d(IMAGES, 3, {"kernel_size": 3, "bias": False}),
    conv2d(IMAGES, 3, {"kernel_size": 3, "padding": "same"}),
    conv2d(IMAGES, 3, {"kernel_size": (3, 5), "padding": "same", "dilation": 2}),
    conv2d(IMAGES, 3, {"kernel_size": 5, "padding": "valid"}),
    conv2d(IMAGES, 3, {"kernel_size": (2, 3), "stride": (3, 2), "padding": (1, 2)}),
    conv2d(IMAGES, 3, {"kernel_size": 3, "stride": 2, "dilation": (1, 2), "padding": 2}),
    conv2d(IMAGES, 3, {"kernel_size": 1, "stride": 2}),
    conv2d((2, 4, 6, 5), 6, {"kernel_size": 3, "groups": 2}),
    conv2d((2, 4, 6, 5), 8, {"kernel_size": 3, "groups": 4, "padding": 1, "stride": 2}),
    conv2d((2, 4, 6, 5), 4, {"kernel_size": 3, "groups": 4, "padding": "same"}, "float32"),
    conv2d((32, 4, 5, 5), 4, {"kernel_size": 3, "groups": 2, "padding": 1}, "float32"),
    *(
        conv2d(IMAGES, 3, {"kernel_size": (3, 4), "padding_mode": mode, "padding": padding})
        for mode in ("reflect", "replicate", "circular")
        for padding in ((1, 2), "same")
    ),
    transposed(IMAGES, 3, {"kernel_size": 3}),
    transposed(IMAGES, 3, {"kernel_size": 4, "stride": 2, "padding": 1}, "float32"),
    transposed(IMAGES, 3, {"kernel_size": (2, 3), "stride": (3, 2), "output_padding": (2, 1)}),
    transposed(
        (2, 4, 3, 2),
        6,
        {"kernel_size": 3, "groups": 2, "dilation": (1, 2), "padding": (2, 1), "bias": False},
    ),
    pool("AvgPool2d", IMAGES, {"kernel_size": 2, "padding": 1, "divisor_override": 3}),
    pool("MaxPool2d", IMAGES, {"kernel_size": 2}),
    pool("MaxPool2d", IMAGES, {"kernel_size": 2, "ceil_mode": True}),
    pool("MaxPool2d", IMAGES, {"kernel_size": 3, "stride": 1, "padding": 1}),
    pool("MaxPool2d", IMAGES, {"kernel_size": (2, 3), "stride": (3, 1), "dilation": (3, 2)}),
    pool("AvgPool2d", IMAGES, {"kernel_size": 2}),
    pool("AvgPool2d", IMAGES, {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True}),
    pool(
        "AvgPool2d",
        IMAGES,
        {"kernel_size": (3, 2), "stride": 1, "padding": 1, "count_include_pad": False},
    ),
]


@st.composite
def _drawn_window(draw: st.DrawFn) -> Case:
    """Draw a layer with all its options, and images that a window of it fits into."""
    kind = draw(st.sampled_from(["Conv2d", "MaxPool2d", "AvgPool2d"]))
    kernel = draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    dilation = draw(st.tuples(st.integers(1, 2), st.integers(1, 2)))
    options: dict[str, Any] = {
        "kernel_size": kernel,
        "stride": draw(st.tuples(st.integers(1, 3), st.integers(1, 3))),
    }
    if kind == "AvgPool2d":
        options["count_include_pad"] = draw(st.booleans())
        dilation = (1, 1)
    else:
        options["dilation"] = dilation
    if kind == "Conv2d":
        options["padding"] = draw(st.tuples(st.integers(0, 3), st.integers(0, 3)))
    else:
        # With both padding and dilation a window may hold padding alone, for which PyTorch's
        # gradient goes to a pixel that is not in it, or outside the image's memory.
        options["padding"] = tuple(
            draw(st.integers(0, k // 2)) if d == 1 else 0
            for k, d in zip(kernel, dilation, strict=True)
        )
        options["ceil_mode"] = draw(st.booleans())
    image = [
        max(1, d * (k - 1) + 1 - 2 * p) + draw(st.integers(0, 3))
        for k, p, d in zip(kernel, options["padding"], dilation, strict=True)
    ]
    shape = (draw(st.integers(1, 3)), draw(st.integers(1, 3)), *image)
    if kind == "Conv2d":
        options["bias"] = draw(st.booleans())
        options["groups"] = groups = draw(st.integers(1, 3))
        shape = (shape[0], shape[1] * groups, *shape[2:])
        modes = ["zeros", "replicate"]
        paddings = list(zip(shape[2:], options["padding"], strict=True))
        modes += ["circular"] * all(p <= size for size, p in paddings)
        modes += ["reflect"] * all(p < size for size, p in paddings)
        options["padding_mode"] = draw(st.sampled_from(modes))
        dtype = draw(st.sampled_from(["float64", "float32"]))
        return conv2d(shape, draw(st.integers(1, 3)) * groups, options, dtype)
    if kind == "AvgPool2d":
        options["divisor_override"] = draw(st.none() | st.integers(1, 9))
    return pool(kind, shape, options)


@st.composite
def _drawn_transposed(draw: st.DrawFn) -> Case:
    """Draw a transposed convolution with all its options, whose output has some pixels."""
    rank, groups = draw(st.integers(1, 2)), draw(st.integers(1, 2))

    def each(low: int, high: int) -> tuple[int, ...]:
        return tuple(draw(st.integers(low, high)) for _ in range(rank))

    kernel, stride, dilation, sizes = each(1, 4), each(1, 3), each(1, 2), each(1, 4)
    axes = list(zip(kernel, stride, dilation, sizes, strict=True))
    options: dict[str, Any] = {
        "kernel_size": kernel,
        "stride": stride,
        "padding": tuple(
            draw(st.integers(0, min(3, ((n - 1) * s + d * (k - 1)) // 2))) for k, s, d, n in axes
        ),
        "output_padding": tuple(draw(st.integers(0, max(s, d) - 1)) for _, s, d, _ in axes),
        "groups": groups,
        "bias": draw(st.booleans()),
        "dilation": dilation,
    }
    shape = (draw(st.integers(1, 3)), groups * draw(st.integers(1, 2)), *sizes)
    dtype = draw(st.sampled_from(["float64", "float32"]))
    return transposed(shape, groups * draw(st.integers(1, 2)), options, dtype)


def drawn() -> st.SearchStrategy[Case]:
    """Draw a convolution, a transposed one, or a pool."""
    return _drawn_window() | _drawn_transposed()
