"""Padding: constants or repeated values around images and sequences."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from ..checks import as_output_grad, integer, number
from ..engine.arrays import Array
from ..engine.gather import border, gather, scatter
from ..layer import Layer
from .window import as_signals, check_border

Widths = int | tuple[int, ...]
"""One int for all sides, or (left, right) or (left, right, top, bottom)."""


class _Pad(Layer):
    """Base of padding layers: the width of the border at each end of each axis."""

    rank: ClassVar[int]
    padding: Widths

    def __init__(self, padding: Widths) -> None:
        what = f"{type(self).__name__}: padding"
        if not isinstance(padding, (tuple, list)):
            self.padding = integer(padding, what, 0)
            return
        self.padding = tuple(integer(width, what, 0) for width in padding)
        if len(self.padding) != 2 * self.rank:
            sides = "(left, right)" if self.rank == 1 else "(left, right, top, bottom)"
            raise ValueError(f"{what} must be an int or {sides}, got {padding!r}")

    def borders(self) -> tuple[tuple[int, int], ...]:
        """Return the widths before and after the values of each axis, rows first."""
        widths = self.padding
        if isinstance(widths, int):
            return ((widths, widths),) * self.rank
        pairs = zip(widths[::2], widths[1::2], strict=True)
        return tuple(pairs)[::-1]  # PyTorch begins with the last axis


class _ConstantPad(_Pad):
    """Padding with a constant, over any number of axes: see `ConstantPad2d`."""

    value: float

    def __init__(self, padding: Widths, value: float) -> None:
        super().__init__(padding)
        self.value = number(value, f"{type(self).__name__}: value")

    def forward(self, x: Array) -> Array:
        x = as_signals(self, x, self.rank)
        inside: tuple[slice, ...] = (slice(None), slice(None))
        shape = x.shape[:2]
        for size, (before, after) in zip(x.shape[2:], self.borders(), strict=True):
            inside += (slice(before, before + size),)
            shape += (before + size + after,)
        y = np.full(shape, self.value, x.dtype)
        y[inside] = x
        self.cache(inside, shape, x.dtype)
        return y

    def backward(self, grad: Array, input_grad: bool = True) -> Array | None:
        inside, shape, dtype = self.cached()
        grad = as_output_grad(self, grad, shape, dtype)
        return np.array(grad[inside]) if input_grad else None


class _RepeatingPad(_Pad):
    """Padding with values of the input, over any number of axes: see `ReflectionPad2d`."""

    mode: ClassVar[str]

    def forward(self, x: Array) -> Array:
        y = x = as_signals(self, x, self.rank)
        sources = []
        for axis, (before, after) in enumerate(self.borders(), start=2):
            size = x.shape[axis]
            check_border(self, self.mode, size, max(before, after))
            sources.append((axis, border(self.mode, size, before, after), size))
            y = gather(y, *sources[-1][:2])
        self.cache(sources, y.shape, y.dtype)
        return y

    def backward(self, grad: Array, input_grad: bool = True) -> Array | None:
        sources, shape, dtype = self.cached()
        grad = as_output_grad(self, grad, shape, dtype)
        if not input_grad:
            return None
        for axis, positions, size in reversed(sources):
            grad = scatter(grad, axis, positions, size)
        return grad


class ConstantPad2d(_ConstantPad):
    """Put a border of a constant around images.

    Parameters
    ----------
    padding : int or (left, right, top, bottom)
        Width of the border; one int for all sides.
    value : float
        The constant.

    Notes
    -----
    Shapes: x (N, C, H, W), y (N, C, top + H + bottom, left + W + right). The gradient of x is the
    part of dL/dy inside the border.

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> nn.ConstantPad2d((1, 0, 0, 1), 9.0)(np.array([[[[1.0, 2.0]]]]))
    array([[[[9., 1., 2.],
             [9., 9., 9.]]]])
    """

    rank = 2


class ConstantPad1d(_ConstantPad):
    """Put a border of a constant around sequences.

    Parameters as in `ConstantPad2d`; padding is an int or (left, right).

    Notes
    -----
    Shapes: x (N, C, L), y (N, C, left + L + right).

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> nn.ConstantPad1d(1, 9.0)(np.array([[[1.0, 2.0]]]))
    array([[[9., 1., 2., 9.]]])
    """

    rank = 1


class ZeroPad2d(_ConstantPad):
    """Put a border of zeros around images: a `ConstantPad2d` of 0.

    Parameters
    ----------
    padding : int or (left, right, top, bottom)
        Width of the border; one int for all sides.

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> nn.ZeroPad2d((1, 0, 0, 1))(np.array([[[[1.0, 2.0]]]]))
    array([[[[0., 1., 2.],
             [0., 0., 0.]]]])
    """

    rank = 2

    def __init__(self, padding: Widths) -> None:
        super().__init__(padding, 0.0)


class ZeroPad1d(_ConstantPad):
    """Put a border of zeros around sequences: a `ConstantPad1d` of 0.

    Parameters
    ----------
    padding : int or (left, right)

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> nn.ZeroPad1d((2, 0))(np.array([[[1.0, 2.0]]]))
    array([[[0., 0., 1., 2.]]])
    """

    rank = 1

    def __init__(self, padding: Widths) -> None:
        super().__init__(padding, 0.0)


class ReflectionPad2d(_RepeatingPad):
    """Put a border around images that mirrors them at the edge.

    Parameters
    ----------
    padding : int or (left, right, top, bottom)
        Width of the border; one int for all sides.

    Raises
    ------
    ValueError
        If the image is too small: the border must be narrower than the image.

    Notes
    -----
    Shapes: x (N, C, H, W), y (N, C, top + H + bottom, left + W + right). A pixel gets the sum of
    the gradients of its copies.

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> nn.ReflectionPad2d((0, 2, 0, 0))(np.array([[[[1.0, 2.0, 3.0]]]]))
    array([[[[1., 2., 3., 2., 1.]]]])
    """

    rank = 2
    mode = "reflect"


class ReflectionPad1d(_RepeatingPad):
    """Put a border around sequences that mirrors them at the ends.

    Parameters and errors as in `ReflectionPad2d`; padding is an int or (left, right).

    Notes
    -----
    Shapes: x (N, C, L), y (N, C, left + L + right).

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> pad = nn.ReflectionPad1d(1)
    >>> pad(np.array([[[1.0, 2.0, 3.0]]]))
    array([[[2., 1., 2., 3., 2.]]])
    >>> pad.backward(np.array([[[1.0, 1.0, 1.0, 1.0, 1.0]]]))
    array([[[1., 3., 1.]]])
    """

    rank = 1
    mode = "reflect"


class ReplicationPad2d(_RepeatingPad):
    """Put a border around images that repeats their edge.

    Parameters
    ----------
    padding : int or (left, right, top, bottom)
        Width of the border; one int for all sides.

    Notes
    -----
    Shapes: x (N, C, H, W), y (N, C, top + H + bottom, left + W + right). A pixel gets the sum of
    the gradients of its copies.

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> nn.ReplicationPad2d((0, 2, 0, 0))(np.array([[[[1.0, 2.0, 3.0]]]]))
    array([[[[1., 2., 3., 3., 3.]]]])
    """

    rank = 2
    mode = "replicate"


class ReplicationPad1d(_RepeatingPad):
    """Put a border around sequences that repeats their ends.

    Parameters and errors as in `ReplicationPad2d`; padding is an int or (left, right).

    Notes
    -----
    Shapes: x (N, C, L), y (N, C, left + L + right).

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> nn.ReplicationPad1d(1)(np.array([[[1.0, 2.0, 3.0]]]))
    array([[[1., 1., 2., 3., 3.]]])
    """

    rank = 1
    mode = "replicate"


class CircularPad2d(_RepeatingPad):
    """Put a border around images that continues each side with the opposite one.

    Parameters
    ----------
    padding : int or (left, right, top, bottom)
        Width of the border; one int for all sides.

    Raises
    ------
    ValueError
        If the image is too small: the border must be at most as wide as the image.

    Notes
    -----
    Shapes: x (N, C, H, W), y (N, C, top + H + bottom, left + W + right). A pixel gets the sum of
    the gradients of its copies.

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> nn.CircularPad2d((0, 2, 0, 0))(np.array([[[[1.0, 2.0, 3.0]]]]))
    array([[[[1., 2., 3., 1., 2.]]]])
    """

    rank = 2
    mode = "circular"


class CircularPad1d(_RepeatingPad):
    """Put a border around sequences that continues each end with the other one.

    Parameters and errors as in `CircularPad2d`; padding is an int or (left, right).

    Notes
    -----
    Shapes: x (N, C, L), y (N, C, left + L + right).

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> nn.CircularPad1d(1)(np.array([[[1.0, 2.0, 3.0]]]))
    array([[[3., 1., 2., 3., 1.]]])
    """

    rank = 1
    mode = "circular"
