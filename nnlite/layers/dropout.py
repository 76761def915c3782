"""Dropout: random zeros, so that a network does not rely on any single activation."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike

from ..checks import number
from ..engine.arrays import Array
from ..engine.elementwise import multiply
from ..random import RandomState, generator
from .elementwise import Elementwise
from .window import as_signals


class Dropout(Elementwise):
    """Set each input to zero with probability `p` in training; do nothing in evaluation.

    Parameters
    ----------
    p : float in [0, 1], default 0.5
        Probability that an input is set to zero.
    rng : int, numpy.random.Generator or None
        Source of the random mask.

    Raises
    ------
    ValueError
        If `p` is not a probability.

    Notes
    -----
    Shapes: x and y alike, any. The remaining inputs are scaled by 1 / (1 - p), so that the expected
    output is x. Each forward draws a new mask m of zeros (with probability p) and ones::

        y = x · m / (1 - p)        dL/dx = dL/dy · m / (1 - p)

    References
    ----------
    N. Srivastava et al., "Dropout: a simple way to prevent neural networks from overfitting",
    Journal of Machine Learning Research 15, 2014.

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> dropout = nn.Dropout(0.5, rng=1)
    >>> dropout(np.ones(6))
    array([0., 2., 2., 2., 0., 0.])
    >>> dropout.eval()(np.ones(6))
    array([1., 1., 1., 1., 1., 1.])
    """

    p: float

    def __init__(self, p: float = 0.5, *, rng: RandomState = None) -> None:
        self.p = number(p, f"{type(self).__name__}: p", minimum=0, maximum=1)
        # None is kept: the package's generator is looked up in each forward.
        self._rng = None if rng is None else generator(rng)

    def value(self, x: Array) -> tuple[Array, Array | None]:
        if not self.training or not self.p:
            return x, None
        keep = generator(self._rng).random(self.mask_shape(x.shape), np.float32) >= self.p
        scale = x.dtype.type(1 / (1 - self.p) if self.p < 1 else 0)
        mask: Array = np.multiply(keep, scale, dtype=x.dtype)
        return multiply(x, mask), mask

    def mask_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of the mask, which is broadcast to an input of this shape."""
        return shape

    def vjp(self, mask: Array | None, grad: Array) -> Array:
        return grad if mask is None else multiply(grad, mask)


class _ChannelDropout(Dropout):
    """Dropout of whole channels: see `Dropout2d`."""

    rank: ClassVar[int]

    def forward(self, x: ArrayLike) -> Array:
        return super().forward(as_signals(self, x, self.rank))

    def mask_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return (*shape[:2], *[1] * self.rank)


class Dropout2d(_ChannelDropout):
    """Set whole channels of images to zero with probability `p` in training.

    Neighbouring pixels of a feature map say nearly the same, so zeros at single pixels would hide
    little.

    Parameters
    ----------
    p : float in [0, 1], default 0.5
        Probability that a channel of a sample is set to zero.
    rng : int, numpy.random.Generator or None
        Source of the random mask.

    Raises
    ------
    ValueError
        If `p` is not a probability, or the input is not (N, C, H, W).

    Notes
    -----
    Shapes: x and y (N, C, H, W). As `Dropout`, with a mask m of shape (N, C, 1, 1)::

        y = x · m / (1 - p)        dL/dx = dL/dy · m / (1 - p)

    References
    ----------
    J. Tompson, R. Goroshin, A. Jain, Y. LeCun, C. Bregler, "Efficient object localization using
    convolutional networks", CVPR 2015.

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> nn.Dropout2d(0.5, rng=1)(np.ones((1, 3, 1, 2)))
    array([[[[0., 0.]],
    <BLANKLINE>
            [[2., 2.]],
    <BLANKLINE>
            [[2., 2.]]]])
    """

    rank = 2


class Dropout1d(_ChannelDropout):
    """Set whole channels of sequences to zero with probability `p` in training.

    Parameters, formulas and errors as in `Dropout2d`.

    Notes
    -----
    Shapes: x and y (N, C, L).

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> nn.Dropout1d(0.5, rng=1)(np.ones((1, 3, 2)))
    array([[[0., 0.],
            [2., 2.],
            [2., 2.]]])
    """

    rank = 1
