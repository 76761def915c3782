"""`Conv2d`, `MaxPool2d` and `AvgPool2d` compared with PyTorch's."""

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
def drawn(draw: st.DrawFn) -> Case:
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
        dtype = draw(st.sampled_from(["float64", "float32"]))
        return conv2d(shape, draw(st.integers(1, 3)), options, dtype)
    return pool(kind, shape, options)
