"""``Window``: the options that convolution and pooling share."""

from __future__ import annotations

import functools
from typing import Any, ClassVar, NamedTuple

from ..checks import as_floats, integer
from ..engine.arrays import Array
from ..engine.axis import Axes, Axis
from ..layer import Layer

Size = int | tuple[int, ...]
"""One int for all axes, or one per axis."""


class _Words(NamedTuple):
    """Words for an input with this number of axes after the channels, for error messages."""

    noun: str
    sizes: str
    positions: tuple[str, ...]
    larger: str
    channels_last: str


_WORDS = {
    1: _Words(
        noun="sequence",
        sizes="L",
        positions=("steps",),
        larger="longer",
        channels_last="; the channels come before the length: x.transpose(0, 2, 1)",
    ),
    2: _Words(
        noun="image",
        sizes="H, W",
        positions=("rows", "columns"),
        larger="larger",
        channels_last="; the channels come before height and width: x.transpose(0, 3, 1, 2)",
    ),
}


class Window(Layer):
    """A window that slides over an image (`rank` 2) or a sequence (`rank` 1).

    Attributes
    ----------
    kernel_size : int or tuple of int
        Size of the window along each axis: height and width. Here and below, one int stands for
        all axes.
    stride : int or tuple of int, or None
        Distance from one window to the next; None for `kernel_size`.
    padding : int, tuple of int, "same" or "valid"
        Number of positions added at both ends of each axis. "same" pads so that the output has the
        size of the input (an odd position goes at the end; stride 1 only). "valid" adds none.
    dilation : int or tuple of int
        Distance between the positions that neighbouring entries of the window cover.
    ceil_mode : bool
        Whether remaining positions at the end, too few for a full window, get a smaller window.
        By default they are dropped.

    Notes
    -----
    Along an axis of size H, with kernel size k, stride s, padding p and dilation d, there are
    ``H' = floor((H + 2p - d(k - 1) - 1) / s) + 1`` windows. In ceil mode this is rounded up, but no
    window starts in the padding at the end. Entry u of window i covers the position
    ``h = i·s + u·d - p``.
    """

    rank: ClassVar[int]

    kernel_size: Size
    stride: Size | None
    padding: Size | str
    dilation: Size = 1
    ceil_mode: bool = False

    def axes(self, shape: tuple[int, ...]) -> Axes:
        """Return the positions of the windows along each axis of an input of this shape."""
        options = self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode
        try:
            return _axes(shape[2:], *options)
        except ValueError as fault:
            raise ValueError(f"{self.label}: {fault}") from None


@functools.lru_cache(maxsize=256)
def _axes(
    shape: tuple[int, ...],
    kernel_size: Size,
    stride: Size | None,
    padding: Size | str,
    dilation: Size,
    ceil_mode: bool,
) -> Axes:
    """Return the axes of a window with these options, for images or sequences of this shape."""
    axes = []
    for index, inputs in enumerate(shape):
        taps, apart = at(index, kernel_size), at(index, dilation)
        step = taps if stride is None else at(index, stride)
        span = apart * (taps - 1) + 1
        if isinstance(padding, str):
            added = span - 1 if padding == "same" else 0
        else:
            added = 2 * at(index, padding)
        room = inputs + added - span
        outputs = (room + (step - 1 if ceil_mode else 0)) // step + 1
        if outputs < 1:
            words = _WORDS[len(shape)]
            raise ValueError(
                f"the kernel spans {span} {words.positions[index]}, but the padded {words.noun} "
                f"has only {inputs + added}; use a smaller kernel, a {words.larger} {words.noun} "
                f"or more padding"
            )
        if ceil_mode and (outputs - 1) * step >= inputs + added // 2:
            outputs -= 1
        axes.append(Axis(inputs, outputs, taps, step, added // 2, apart))
    return tuple(axes)


def as_signals(
    layer: Layer, x: Any, rank: int, channels: int | None = None, dtype: Any = None
) -> Array:
    """Check that `x` is a batch of images or sequences; return it as floats.

    Raises
    ------
    ValueError
        If `x` does not have `rank` + 2 axes, or has another number of `channels`.
    """
    x = as_floats(layer, x, dtype)
    shape = x.shape
    if len(shape) == rank + 2 and channels in (None, shape[1]):
        return x
    words = _WORDS[rank]
    cure = ""
    if len(shape) == rank + 2 and shape[-1] == channels:
        cure = words.channels_last
    elif len(shape) == rank + 1 and channels in (None, shape[0]):
        cure = "; add a batch axis: x[None]"
    elif len(shape) == rank + 1 and channels == 1:
        cure = "; add a channel axis: x[:, None]"
    expected = f"(N, {'C' if channels is None else channels}, {words.sizes})"
    raise ValueError(
        f"{layer.label}: expected {words.noun}s of shape {expected}, got {shape}{cure}"
    )


def check_border(layer: Layer, mode: str, size: int, width: int) -> None:
    """Raise a ValueError if an axis is too small for a border of this width."""
    widest = {"reflect": size - 1, "circular": size}.get(mode, width)
    if width > widest:
        raise ValueError(
            f"{layer.label}: a {mode} border of {width} needs an input larger than {size}; "
            f"here it is at most {widest} wide"
        )


def at(index: int, size: Size) -> int:
    """Return the size along one axis."""
    return size if isinstance(size, int) else size[index]


def sizes(value: Any, rank: int, what: str, minimum: int = 1) -> Size:
    """Check `value`, one int or one per axis, and return it; `what` names it in errors."""
    if not isinstance(value, (tuple, list)) or (rank == 1 and len(value) != 1):
        return integer(value, what, minimum)
    if len(value) != rank:
        raise ValueError(f"{what} must be an int or a pair (height, width), got {value!r}")
    checked = tuple(integer(size, what, minimum) for size in value)
    return checked if rank > 1 else checked[0]
