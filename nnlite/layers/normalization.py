"""Normalisation: activations shifted and scaled to mean 0 and variance 1, then as is learned."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from typing import ClassVar

import numpy as np

from ..checks import as_floats, as_output_grad, boolean, integer, number
from ..engine.arrays import Array
from ..engine.blas import share, share_sum
from ..engine.memory import empty_like
from ..layer import Layer
from ..parameter import Parameter

# Batch normalisation goes through its input as lines (A, C, B), however it lies in memory: C is the
# axis of features, and A and B are what lies outside and inside of it. It goes block by block, so
# that what one operation has computed is still in the cache for the next. A block has about so many
# bytes.
_BLOCK = 1 << 19


class _BatchNorm(Layer):
    """What `BatchNorm1d` and `BatchNorm2d` share: all but the shape of their input."""

    num_features: int
    eps: float
    momentum: float | None
    affine: bool
    track_running_stats: bool
    weight: Parameter | None
    bias: Parameter | None
    running_mean: Array | None
    running_var: Array | None
    num_batches_tracked: Array | None

    _buffer_names = ("running_mean", "running_var", "num_batches_tracked")
    _ranks: ClassVar[tuple[int, ...]]
    _expected: ClassVar[str]

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
    ) -> None:
        name = type(self).__name__
        self.num_features = integer(num_features, f"{name}: num_features")
        self.eps = number(eps, f"{name}: eps", minimum=0)
        self.momentum = momentum
        if momentum is not None:
            self.momentum = number(momentum, f"{name}: momentum", minimum=0, maximum=1)
        self.affine = boolean(affine, f"{name}: affine")
        self.track_running_stats = boolean(track_running_stats, f"{name}: track_running_stats")
        self.weight = Parameter(np.ones(self.num_features, np.float32)) if affine else None
        self.bias = Parameter(np.zeros(self.num_features, np.float32)) if affine else None
        self.running_mean = self.running_var = self.num_batches_tracked = None
        if track_running_stats:
            self.running_mean = np.zeros(self.num_features, np.float32)
            self.running_var = np.ones(self.num_features, np.float32)
            self.num_batches_tracked = np.zeros((), np.int64)

    def forward(self, x: Array) -> Array:
        dtype = None if self.weight is None else self.weight.dtype
        x = as_floats(self, x, dtype)
        if x.ndim not in self._ranks or x.shape[1] != self.num_features:
            raise ValueError(
                f"{self.label}: expected input of shape {self._expected} with "
                f"{self.num_features} features, got {x.shape}"
            )
        of_batch = self.training or self.running_mean is None
        count = x.size // self.num_features
        if count == 1 and self.training:
            raise ValueError(
                f"{self.label}: one value for each feature has no variance to train with, "
                f"got an input of shape {x.shape}; use a larger batch, or drop_last=True"
            )
        batch_last = _is_batch_last(x)
        lines = _as_lines(x, batch_last)
        if of_batch:
            mean, variance = _moments(lines, count)
            if self.training:
                self._track(mean, variance * (count / (count - 1)))
        else:
            assert self.running_mean is not None
            assert self.running_var is not None
            mean, variance = (
                buffer.astype(x.dtype) for buffer in (self.running_mean, self.running_var)
            )
        scale = 1 / np.sqrt(variance + x.dtype.type(self.eps))
        self.cache(lines, mean, scale, of_batch, x.shape, batch_last)
        factor = _column(scale if self.weight is None else scale * self.weight.data)
        shift = None if self.bias is None else _column(self.bias.data)
        y = empty_like(lines)

        def normalize(start: int, stop: int) -> None:
            for block in _blocks(lines, start, stop):
                centred = np.subtract(lines[block], _column(mean), out=y[block])
                centred *= factor
                if shift is not None:
                    centred += shift

        share(normalize, len(lines), y.nbytes)
        return _from_lines(y, x.shape, batch_last)

    def backward(self, grad: Array, input_grad: bool = True) -> Array | None:
        lines, mean, scale, of_batch, shape, batch_last = self.cached()
        grad = _as_lines(as_output_grad(self, grad, shape, lines.dtype), batch_last)
        factor = scale if self.weight is None else scale * self.weight.data

        def sums(block: slice) -> Array:
            products = lines[block] - _column(mean)
            products *= grad[block]
            return np.array([_sum(grad[block]), _sum(products)])

        d_bias, d_weight = _total(sums, lines)
        d_weight *= scale
        if self.weight is not None and self.bias is not None:
            self.weight.accumulate(d_weight)
            self.bias.accumulate(d_bias)
        if not input_grad:
            return None
        if not of_batch:
            return _from_lines(grad * _column(factor), shape, batch_last)
        count = grad.size // self.num_features
        slope, level = _column(d_weight * scale / -count), _column(d_bias / count)
        dx = empty_like(lines)

        def spread(start: int, stop: int) -> None:
            for block in _blocks(lines, start, stop):
                result = np.subtract(lines[block], _column(mean), out=dx[block])
                result *= slope
                result += grad[block]
                result -= level
                result *= _column(factor)

        share(spread, len(lines), dx.nbytes)
        return _from_lines(dx, shape, batch_last)

    def _track(self, mean: Array, variance: Array) -> None:
        """Move the running statistics towards those of a batch, in place."""
        if (
            self.running_mean is None
            or self.running_var is None
            or self.num_batches_tracked is None
        ):
            return
        self.num_batches_tracked += 1
        momentum = 1 / int(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean += momentum * (mean - self.running_mean)
        self.running_var += momentum * (variance - self.running_var)


def _is_batch_last(x: Array) -> bool:
    """Whether the samples lie side by side in memory, as they do behind a convolution."""
    return x.ndim > 2 and len(x) > 1 and x.strides[0] == x.itemsize


def _as_lines(x: Array, batch_last: bool) -> Array:
    """Return x (N, C, …) as (A, C, B)."""
    if x.ndim == 2:
        return x.T[None]
    if batch_last:
        x = np.moveaxis(x, (2, 1, 0), (0, 1, -1))
    return x.reshape(*x.shape[:2], -1)


def _from_lines(lines: Array, shape: tuple[int, ...], batch_last: bool) -> Array:
    """Return the array of this shape that has these lines."""
    if len(shape) == 2:
        return lines[0].T
    if batch_last:
        rows = lines.reshape(shape[2], shape[1], *shape[3:], shape[0])
        return np.moveaxis(rows, (0, 1, -1), (2, 1, 0))
    return lines.reshape(shape)


def _blocks(lines: Array, start: int, stop: int) -> Iterator[slice]:
    step = max(1, _BLOCK * len(lines) // lines.nbytes)
    for first in range(start, stop, step):
        yield slice(first, min(first + step, stop))


def _column(values: Array) -> Array:
    return values[:, None]


def _moments(lines: Array, count: int) -> tuple[Array, Array]:
    """Return the mean and the biased variance of each feature."""
    mean = _total(lambda block: _sum(lines[block]), lines) / count

    def of_centred(block: slice) -> Array:
        centred = lines[block] - _column(mean)
        rest = _sum(centred)
        return np.array([rest, _sum(np.square(centred, out=centred))])

    # The mean of what is left is what rounding took from the mean.
    rest, squares = _total(of_centred, lines) / count
    return mean + rest, squares - rest * rest


def _total(term: Callable[[slice], Array], lines: Array) -> Array:
    """Return the sum of ``term(block)`` over the blocks of the lines."""

    def of_part(start: int, stop: int) -> Array:
        return functools.reduce(np.add, [term(block) for block in _blocks(lines, start, stop)])

    return share_sum(of_part, len(lines), lines.nbytes)


def _sum(lines: Array) -> Array:
    """Return the sum of each feature: a product with ones, which BLAS is fast at."""
    total: Array = np.matmul(lines, np.ones(lines.shape[2], lines.dtype)).sum(axis=0)
    return total


class BatchNorm1d(_BatchNorm):
    """Normalise each feature over the batch, and over the length if there is one.

    Parameters
    ----------
    num_features : int
        Size C of the second axis.
    eps : float, default 1e-5
        Added to the variance, so that nothing is divided by 0.
    momentum : float or None, default 0.1
        Share of the latest batch in the running statistics; None for their plain average.
    affine : bool, default True
        Whether to learn a `weight` and a `bias` for each feature.
    track_running_stats : bool, default True
        Whether to keep running statistics for evaluation. Without them the batch's serve.

    Attributes
    ----------
    weight, bias : Parameter of shape (C,), or None
        Initially 1 and 0.
    running_mean, running_var : ndarray of shape (C,), or None
        Of the training batches; the variance is the unbiased one.

    Raises
    ------
    ValueError
        If the input has another shape, or in training one value for each feature only.

    Notes
    -----
    Shapes: x and y (N, C) or (N, C, L). In training, with the mean μ and the biased variance σ²
    over the M values of a feature::

        x̂ = (x - μ) / √(σ² + eps)          y = weight · x̂ + bias

        dL/dweight = Σ G x̂                  dL/dbias = Σ G                for G = dL/dy
        dL/dx = weight / √(σ² + eps) · (G - (Σ G) / M - x̂ (Σ G x̂) / M)

    The last two terms come from μ and σ², which depend on x too. In evaluation μ and σ² are the
    running statistics, which do not, and ``dL/dx = weight / √(σ² + eps) · G``.

    References
    ----------
    S. Ioffe, C. Szegedy, "Batch normalization: accelerating deep network training by reducing
    internal covariate shift", ICML 2015.

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> norm = nn.BatchNorm1d(1)
    >>> norm(np.array([[1.0], [3.0]], dtype=np.float32)).round(3)
    array([[-1.],
           [ 1.]], dtype=float32)
    """

    _ranks = (2, 3)
    _expected = "(N, C) or (N, C, L)"


class BatchNorm2d(_BatchNorm):
    """Normalise each channel over the batch and the image.

    Parameters, attributes, formulas and errors are those of `BatchNorm1d`.

    Notes
    -----
    Shapes: x and y (N, C, H, W).

    References
    ----------
    S. Ioffe, C. Szegedy, "Batch normalization: accelerating deep network training by reducing
    internal covariate shift", ICML 2015.

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> norm = nn.BatchNorm2d(3)
    >>> norm(np.ones((2, 3, 4, 4), dtype=np.float32)).shape
    (2, 3, 4, 4)
    """

    _ranks = (4,)
    _expected = "(N, C, H, W)"


class LayerNorm(Layer):
    """Normalise each sample over its last axes.

    Parameters
    ----------
    normalized_shape : int or tuple of int
        The sizes of the last axes, which are normalised together.
    eps : float, default 1e-5
        Added to the variance, so that nothing is divided by 0.
    elementwise_affine : bool, default True
        Whether to learn a `weight`, and a `bias`, of the normalised shape.
    bias : bool, default True
        Whether to learn a bias beside the weight.

    Attributes
    ----------
    weight, bias : Parameter of shape `normalized_shape`, or None
        Initially 1 and 0.

    Raises
    ------
    ValueError
        If the last axes of the input have other sizes.

    Notes
    -----
    Shapes: x and y alike, (N, …) and then `normalized_shape`. With the mean μ and the biased
    variance σ² over the M values of a sample, G = dL/dy and H = G · weight::

        x̂ = (x - μ) / √(σ² + eps)          y = weight · x̂ + bias

        dL/dweight = Σ_n G x̂                dL/dbias = Σ_n G
        dL/dx = (H - (Σ H) / M - x̂ (Σ H x̂) / M) / √(σ² + eps)

    References
    ----------
    J. Ba, J. Kiros, G. Hinton, "Layer normalization", arXiv:1607.06450.

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> nn.LayerNorm(2)(np.array([[1.0, 3.0]], dtype=np.float32)).round(3)
    array([[-1.,  1.]], dtype=float32)
    """

    normalized_shape: tuple[int, ...]
    eps: float
    elementwise_affine: bool
    weight: Parameter | None
    bias: Parameter | None

    def __init__(
        self,
        normalized_shape: int | tuple[int, ...],
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
    ) -> None:
        sizes = (
            normalized_shape if isinstance(normalized_shape, (tuple, list)) else (normalized_shape,)
        )
        self.normalized_shape = tuple(integer(s, "LayerNorm: normalized_shape") for s in sizes)
        if not self.normalized_shape:
            raise ValueError("LayerNorm: normalized_shape must have one size at least")
        self.eps = number(eps, "LayerNorm: eps", minimum=0)
        self.elementwise_affine = boolean(elementwise_affine, "LayerNorm: elementwise_affine")
        bias = boolean(bias, "LayerNorm: bias")
        self.weight = self.bias = None
        if elementwise_affine:
            self.weight = Parameter(np.ones(self.normalized_shape, np.float32))
            if bias:
                self.bias = Parameter(np.zeros(self.normalized_shape, np.float32))

    def forward(self, x: Array) -> Array:
        x = as_floats(self, x, None if self.weight is None else self.weight.dtype)
        rank = len(self.normalized_shape)
        if x.ndim <= rank or x.shape[-rank:] != self.normalized_shape:
            sizes = ", ".join(str(size) for size in self.normalized_shape)
            raise ValueError(f"{self}: expected input of shape (N, ..., {sizes}), got {x.shape}")
        # One row for each sample. Sums along rows and columns are products, which BLAS is fast at.
        rows = x.reshape(-1, math.prod(self.normalized_shape))
        count = rows.shape[1]
        normalized = rows - (rows @ np.ones(count, rows.dtype) / count)[:, None]
        variance = np.einsum("ij,ij->i", normalized, normalized) / count
        scale = 1 / np.sqrt(variance + x.dtype.type(self.eps))[:, None]
        normalized *= scale
        self.cache(normalized, scale, x.shape)
        if self.weight is None:
            return normalized.reshape(x.shape)
        y = normalized * self.weight.data.reshape(-1)
        if self.bias is not None:
            y += self.bias.data.reshape(-1)
        return y.reshape(x.shape)

    def backward(self, grad: Array, input_grad: bool = True) -> Array | None:
        normalized, scale, shape = self.cached()
        grad = as_output_grad(self, grad, shape, normalized.dtype).reshape(normalized.shape)
        samples, count = normalized.shape
        products = grad * normalized
        weight = np.ones(count, grad.dtype)
        if self.weight is not None:
            of_samples = np.ones(samples, grad.dtype)
            self.weight.accumulate((of_samples @ products).reshape(self.normalized_shape))
            if self.bias is not None:
                self.bias.accumulate((of_samples @ grad).reshape(self.normalized_shape))
            weight = self.weight.data.reshape(-1)
        if not input_grad:
            return None
        dx = normalized * (products @ weight / -count)[:, None]
        dx -= (grad @ weight / count)[:, None]
        dx += grad if self.weight is None else np.multiply(grad, weight, out=products)
        dx *= scale
        return dx.reshape(shape)
