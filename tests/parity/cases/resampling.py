"""Borders, enlarged images and adaptive pooling compared with PyTorch's."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

import nnlite as nn

from ..case import Case


def same(name: str, shape: tuple[int, ...], dtype: str = "float64", **options: Any) -> Case:
    """Compare the layer with the module of the same name and options."""
    return Case(
        f"{name} {shape}, {options}, {dtype}",
        layer=lambda: getattr(nn, name)(**options),
        module=lambda torch: getattr(torch.nn, name)(**options),
        # Rounded: many windows have several largest values, of which the first counts.
        inputs=lambda rng: (rng.normal(size=shape).round(1),),
        dtype=dtype,
    )


PADS = ("ZeroPad", "ConstantPad", "ReflectionPad", "ReplicationPad", "CircularPad")


def pad(name: str, shape: tuple[int, ...], padding: Any, dtype: str = "float64") -> Case:
    options = {"value": 0.5} if name == "ConstantPad" else {}
    return same(f"{name}{len(shape) - 2}d", shape, dtype, padding=padding, **options)


IMAGES, SEQUENCES = (2, 2, 3, 4), (2, 3, 5)

CASES = [
    *(pad(name, IMAGES, (1, 3, 2, 0)) for name in PADS),
    *(pad(name, SEQUENCES, 2, "float32") for name in PADS),
    *(
        same("Upsample", IMAGES, **size, mode=mode, **options)
        for size in ({"size": (5, 3)}, {"scale_factor": 2}, {"scale_factor": (1.5, 2.7)})
        for mode, options in (
            ("nearest", {}),
            ("bilinear", {}),
            ("bilinear", {"align_corners": True}),
        )
    ),
    same("Upsample", SEQUENCES, "float32", scale_factor=3, mode="linear"),
    same("Upsample", SEQUENCES, size=1, mode="linear", align_corners=True),
    same("Upsample", SEQUENCES, size=7),
    same("PixelShuffle", (2, 8, 2, 3), upscale_factor=2),
    *(same(f"Adaptive{kind}Pool2d", IMAGES, output_size=(2, 3)) for kind in ("Avg", "Max")),
    *(same(f"Adaptive{kind}Pool2d", IMAGES, output_size=(None, 6)) for kind in ("Avg", "Max")),
    *(same(f"Adaptive{kind}Pool1d", SEQUENCES, output_size=3) for kind in ("Avg", "Max")),
]

_dtypes = st.sampled_from(["float64", "float32"])


@st.composite
def _drawn_pad(draw: st.DrawFn) -> Case:
    name, rank = draw(st.sampled_from(PADS)), draw(st.integers(1, 2))
    shape = tuple(draw(st.integers(1, 4)) for _ in range(2 + rank))
    widest = {"ReflectionPad": -1, "CircularPad": 0}.get(name, 3)
    padding = [
        draw(st.integers(0, size + widest)) for size in reversed(shape[2:]) for _ in range(2)
    ]
    return pad(name, shape, tuple(padding), draw(_dtypes))


@st.composite
def _drawn_upsample(draw: st.DrawFn) -> Case:
    rank = draw(st.integers(1, 2))
    shape = tuple(draw(st.integers(1, 4)) for _ in range(2 + rank))
    options: dict[str, Any] = {}
    if draw(st.booleans()):
        options["size"] = tuple(draw(st.integers(1, 6)) for _ in range(rank))
    else:
        factors = st.sampled_from([1.0, 1.25, 1.5, 2.0, 2.6, 3.0])
        options["scale_factor"] = tuple(draw(factors) for _ in range(rank))
    if draw(st.booleans()):
        options["mode"] = ("linear", "bilinear")[rank - 1]
        options["align_corners"] = draw(st.sampled_from([None, False, True]))
    return same("Upsample", shape, draw(_dtypes), **options)


@st.composite
def _drawn_adaptive(draw: st.DrawFn) -> Case:
    rank = draw(st.integers(1, 2))
    shape = tuple(draw(st.integers(1, 5)) for _ in range(2 + rank))
    sizes = tuple(draw(st.integers(1, 6)) for _ in range(rank))
    name = f"Adaptive{draw(st.sampled_from(['Avg', 'Max']))}Pool{rank}d"
    return same(name, shape, draw(_dtypes), output_size=sizes if rank > 1 else sizes[0])


def drawn() -> st.SearchStrategy[Case]:
    """Draw a border, an enlargement or an adaptive pool."""
    return _drawn_pad() | _drawn_upsample() | _drawn_adaptive()
