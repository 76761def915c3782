"""Grouped and transposed convolution, borders, enlarged images and adaptive pooling.

Parity with PyTorch is in ``parity/``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

import nnlite as nn

from ..registry import Array

sizes = st.integers(1, 4)


def images(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=shape)


# ---- convolution ----


@given(
    batch=st.integers(1, 2), groups=st.integers(1, 3), inputs=st.integers(1, 2),
    outputs=st.integers(1, 2), mode=st.sampled_from(["zeros", "reflect", "replicate", "circular"]),
    padding=st.sampled_from([0, 1, (1, 2), "same"]),
)  # fmt: skip
def test_gradients_of_grouped_convolution_agree_with_central_differences(
    batch: int, groups: int, inputs: int, outputs: int, mode: str, padding: Any
) -> None:
    layer = nn.Conv2d(
        groups * inputs, groups * outputs, (2, 3), padding=padding, groups=groups,
        padding_mode=mode, rng=0,
    )  # fmt: skip
    assert nn.gradcheck(layer, images(batch, groups * inputs, 3, 4)).passed


@given(
    groups=st.integers(1, 2), kernel=st.tuples(sizes, sizes), stride=st.integers(1, 3),
    extra=st.integers(0, 2), dilation=st.integers(1, 2), padding=st.integers(0, 2),
)  # fmt: skip
def test_gradients_of_transposed_convolution_agree_with_central_differences(
    groups: int, kernel: tuple[int, int], stride: int, extra: int, dilation: int, padding: int
) -> None:
    extra = min(extra, max(stride, dilation) - 1)
    padding = min(padding, (2 * stride + dilation * (min(kernel) - 1) + extra) // 2)
    layer = nn.ConvTranspose2d(
        2 * groups, groups, kernel, stride, padding, extra, groups, dilation=dilation, rng=0
    )
    assert nn.gradcheck(layer, images(2, 2 * groups, 3, 3)).passed


def test_a_group_is_a_convolution_of_its_own() -> None:
    layer = nn.Conv2d(4, 6, 3, groups=2, rng=0).astype(np.float64)
    x = images(2, 4, 5, 5)
    parts = []
    for group in range(2):
        part = nn.Conv2d(2, 3, 3).astype(np.float64)
        rows = slice(3 * group, 3 * group + 3)
        part.weight.data, part.bias.data = layer.weight.data[rows], layer.bias.data[rows]  # type: ignore[union-attr]
        parts.append(part(x[:, 2 * group : 2 * group + 2]))
    assert_allclose(layer(x), np.concatenate(parts, axis=1), rtol=1e-12)


def test_a_transposed_convolution_is_the_input_gradient_of_a_convolution() -> None:
    conv = nn.Conv2d(3, 2, 3, stride=2, padding=1, bias=False, rng=0).astype(np.float64)
    transposed = nn.ConvTranspose2d(2, 3, 3, stride=2, padding=1, output_padding=1, bias=False)
    transposed.astype(np.float64).weight.data = conv.weight.data
    grad = images(2, 2, 3, 4)
    conv(images(2, 3, 6, 8))
    assert_allclose(transposed(grad), conv.backward(grad), rtol=1e-12)


# ---- borders ----


@pytest.mark.parametrize("name", ["Zero", "Reflection", "Replication", "Circular"])
@given(
    widths=st.lists(st.integers(0, 2), min_size=4, max_size=4), batch_last=st.booleans()
)  # fmt: skip
def test_gradients_of_borders_agree_with_central_differences(
    name: str, widths: list[int], batch_last: bool
) -> None:
    x = images(2, 2, 3, 4)
    if batch_last:
        x = x.transpose(2, 1, 3, 0).copy().transpose(3, 1, 0, 2)
    assert nn.gradcheck(getattr(nn, f"{name}Pad2d")(tuple(widths)), x).passed
    assert nn.gradcheck(getattr(nn, f"{name}Pad1d")(tuple(widths[:2])), x[:, :, 0]).passed


@pytest.mark.parametrize(
    ("name", "mode"), [("Reflection", "reflect"), ("Replication", "edge"), ("Circular", "wrap")]
)
def test_borders_are_those_of_numpy(name: str, mode: Any) -> None:
    x = images(2, 3, 4, 5)
    expected = np.pad(x, [(0, 0), (0, 0), (3, 0), (1, 2)], mode)
    assert_array_equal(getattr(nn, f"{name}Pad2d")((1, 2, 3, 0))(x), expected)


# ---- enlarging ----


@given(
    size=st.tuples(sizes, sizes), target=st.tuples(sizes, sizes),
    mode=st.sampled_from(["nearest", "bilinear"]), corners=st.sampled_from([None, True]),
)  # fmt: skip
def test_gradients_of_upsample_agree_with_central_differences(
    size: tuple[int, int], target: tuple[int, int], mode: str, corners: bool | None
) -> None:
    layer = nn.Upsample(target, mode=mode, align_corners=None if mode == "nearest" else corners)
    assert nn.gradcheck(layer, images(2, 2, *size)).passed


def test_interpolation_keeps_a_straight_line_between_the_corners() -> None:
    line = np.linspace(1.0, 3.0, 4)[None, None]
    found = nn.Upsample(10, mode="linear", align_corners=True)(line)
    assert_allclose(found, np.linspace(1.0, 3.0, 10)[None, None], rtol=1e-14)


def test_an_infinite_pixel_stays_where_it_is() -> None:
    x = np.array([[[[1.0, np.inf, 2.0]]]])
    assert_array_equal(nn.Upsample((1, 6))(x)[0, 0, 0], [1, 1, np.inf, np.inf, 2, 2])


@given(r=st.integers(1, 3), channels=st.integers(1, 2), size=st.tuples(sizes, sizes))
def test_gradients_of_pixel_shuffle_agree_with_central_differences(
    r: int, channels: int, size: tuple[int, int]
) -> None:
    assert nn.gradcheck(nn.PixelShuffle(r), images(2, channels * r * r, *size)).passed


# ---- pooling ----


@pytest.mark.parametrize("kind", ["Avg", "Max"])
@given(size=st.tuples(sizes, sizes), target=st.tuples(sizes, sizes))
def test_gradients_of_adaptive_pooling_agree_with_central_differences(
    kind: str, size: tuple[int, int], target: tuple[int, int]
) -> None:
    layer = getattr(nn, f"Adaptive{kind}Pool2d")(target)
    assert nn.gradcheck(layer, images(2, 2, *size)).passed


@given(
    kernel=st.integers(1, 3), stride=st.integers(1, 3), padding=st.integers(0, 1),
    batch=st.integers(1, 3), adaptive=st.booleans(),
)  # fmt: skip
def test_indices_are_those_of_pytorch(
    kernel: int, stride: int, padding: int, batch: int, adaptive: bool
) -> None:
    torch = pytest.importorskip("torch")
    x = images(batch, 2, 5, 4).round(1)
    options: dict[str, Any] = {"return_indices": True}
    if adaptive:
        options["output_size"] = (kernel, stride)
    else:
        options |= {"kernel_size": kernel, "stride": stride, "padding": min(padding, kernel // 2)}
    name = "AdaptiveMaxPool2d" if adaptive else "MaxPool2d"
    layer = getattr(nn, name)(**options)
    y, indices = layer(x)
    expected, places = getattr(torch.nn, name)(**options)(torch.tensor(x))
    assert_array_equal(y, expected.numpy())
    assert_array_equal(indices, places.numpy())
    grad = images(*y.shape, seed=1)
    assert_array_equal(layer.backward(grad), layer.backward((grad, None)))


# ---- errors ----


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (lambda: nn.Conv2d(4, 6, 3, groups=3), "Conv2d: groups must divide in_channels=4 and"),
        (lambda: nn.Conv1d(2, 2, 3, padding_mode="x"), "Conv1d: padding_mode must be one of"),
        (
            lambda: nn.Conv1d(1, 1, 3, padding=4, padding_mode="reflect")(images(1, 1, 4)),
            "Conv1d.*: a reflect border of 4 needs an input larger than 4",
        ),
        (lambda: nn.ConvTranspose1d(2, 2, 3, 2, output_padding=2), "ConvTranspose1d: output"),
        (
            lambda: nn.ConvTranspose2d(2, 2, 3, padding_mode="reflect"),
            "ConvTranspose2d: padding_mode must be 'zeros', got 'reflect'",
        ),
        (
            lambda: nn.ConvTranspose2d(1, 1, 1, padding=2)(images(1, 1, 3, 3)),
            "ConvTranspose2d.*: padding=2 leaves nothing of the output for an input of size 3",
        ),
        (lambda: nn.ZeroPad2d((1, 2)), "ZeroPad2d: padding must be an int or .left, right, top"),
        (lambda: nn.ZeroPad2d(-1), "ZeroPad2d: padding must be at least 0"),
        (lambda: nn.CircularPad1d(4)(images(1, 1, 3)), "CircularPad1d.*: a circular border of 4"),
        (lambda: nn.Upsample(), "Upsample: give either size or scale_factor"),
        (lambda: nn.Upsample(2, 2), "Upsample: give either size or scale_factor"),
        (lambda: nn.Upsample(2, align_corners=True), "Upsample: align_corners is for the modes"),
        (lambda: nn.Upsample(scale_factor=0.2)(images(1, 1, 3)), "Upsample.*: nothing is left"),
        (lambda: nn.Upsample((2, 2))(images(1, 1, 3)), "Upsample.*: expected input with 2 axes"),
        (lambda: nn.Upsample(2, mode="linear")(images(1, 1, 3, 3)), "Upsample.*: expected seq"),
        (lambda: nn.PixelShuffle(2)(images(1, 6, 1, 1)), "PixelShuffle.*: expected a multiple"),
        (lambda: nn.AdaptiveAvgPool2d((1, 2, 3)), "AdaptiveAvgPool2d: output_size must be"),
        (lambda: nn.AdaptiveMaxPool1d(0), "AdaptiveMaxPool1d: output_size must be at least 1"),
        (lambda: nn.AvgPool2d(2, divisor_override=0), "AvgPool2d: divisor_override must be"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_a_sentence(run: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        run()
