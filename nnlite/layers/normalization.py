"""Normalization to mean 0 and variance 1, followed by a learned scale and shift."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np

from ..checks import as_floats, as_output_grad, boolean, integer, number
from ..engine.arrays import Array
from ..engine.blas import product
from ..engine.elementwise import multiply
from ..engine.moments import (
    Mean,
    by_channel,
    gradient_sums,
    moments,
    normalize,
    normalize_grad,
    standardize,
)
from ..layer import Layer
from ..parameter import Parameter


def _weight_and_bias(
    shape: tuple[int, ...], affine: bool, bias: bool
) -> tuple[Parameter | None, Parameter | None]:
    """Return the initial scale, if `affine`, and the initial shift, if also `bias`."""
    return (
        Parameter(np.ones(shape, np.float32)) if affine else None,
        Parameter(np.zeros(shape, np.float32)) if affine and bias else None,
    )


class _BatchNorm(Layer):
    """Base of `BatchNorm1d` and `BatchNorm2d`, which differ only in the shape of the input."""

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
        *,
        bias: bool = True,
    ) -> None:
        name = type(self).__name__
        self.num_features = integer(num_features, f"{name}: num_features")
        self.eps = number(eps, f"{name}: eps", minimum=0)
        self.momentum = momentum
        if momentum is not None:
            self.momentum = number(momentum, f"{name}: momentum", minimum=0, maximum=1)
        self.affine = boolean(affine, f"{name}: affine")
        self.track_running_stats = boolean(track_running_stats, f"{name}: track_running_stats")
        self.weight, self.bias = _weight_and_bias(
            (self.num_features,), self.affine, boolean(bias, f"{name}: bias")
        )
        self.running_mean = self.running_var = self.num_batches_tracked = None
        if track_running_stats:
            self.running_mean = np.zeros(self.num_features, np.float32)
            self.running_var = np.ones(self.num_features, np.float32)
            self.num_batches_tracked = np.zeros((), np.int64)

    def forward(self, x: Array) -> Array:
        x = self._checked(x)
        of_batch = self.training or self.running_mean is None
        if of_batch:
            mean, variance, count = self._moments(x)
        else:
            (mean, variance), count = self._running_moments(x.dtype), 0
        if count == 1:
            raise ValueError(
                f"{self.label}: one value for each feature has no variance to "
                f"{'train' if self.training else 'normalize'} with, got an input of shape "
                f"{x.shape}; use a larger batch, or "
                f"{'drop_last=True' if self.training else 'track_running_stats=True'}"
            )
        if self.training:
            self._track(mean.near, variance * (count / (count - 1)))
        scale = 1 / np.sqrt(variance + x.dtype.type(self.eps))
        self.cache(x, mean, scale, count)
        factor = scale if self.weight is None else scale * self.weight.data
        return normalize(x, mean, factor, None if self.bias is None else self.bias.data)

    def backward(self, grad: Array, input_grad: bool = True) -> Array | None:
        x, mean, scale, count = self.cached()
        grad = as_output_grad(self, grad, x.shape, x.dtype)
        factor = scale if self.weight is None else scale * self.weight.data
        sums = gradient_sums(x, mean, grad)  # Σ G, and Σ G (x - μ)
        sums[1] *= scale  # Σ G x̂
        d_bias, d_weight = sums
        if self.weight is not None:
            self.weight.accumulate(d_weight)
        if self.bias is not None:
            self.bias.accumulate(d_bias)
        if not input_grad:
            return None
        if not count:
            return grad * factor.reshape(-1, *[1] * (x.ndim - 2))
        d_bias, d_weight = self._total(sums)
        slope, level = d_weight * scale / -count, d_bias / count
        return normalize_grad(x, mean, grad, factor, slope * factor, level * factor)

    def _moments(self, x: Array) -> tuple[Mean, Array, int]:
        """Return the mean, the biased variance and the number of the values of each feature."""
        return *moments(x), x.size // self.num_features

    def _total(self, sums: Array) -> Array:
        """Return sums over this part of the batch as sums over the whole."""
        return sums

    def _checked(self, x: Array) -> Array:
        """Check the input's shape; return it as floats."""
        x = as_floats(self, x, None if self.weight is None else self.weight.dtype)
        if x.ndim not in self._ranks or x.shape[1] != self.num_features:
            raise ValueError(
                f"{self.label}: expected input of shape {self._expected} with "
                f"{self.num_features} features, got {x.shape}"
            )
        return x

    def _running_moments(self, dtype: np.dtype[Any]) -> tuple[Mean, Array]:
        """Return the running statistics, which must exist, in the dtype of the input."""
        assert self.running_mean is not None
        assert self.running_var is not None
        return Mean(self.running_mean.astype(dtype)), self.running_var.astype(dtype)

    def _track(self, mean: Array, variance: Array) -> None:
        """Update the running statistics, if there are any, with those of a batch."""
        # A batch with NaN, which the loss rejects, must not enter the statistics.
        if self.num_batches_tracked is not None and np.isfinite(variance).all():
            self.num_batches_tracked += 1
            count = int(self.num_batches_tracked)
            self._move(mean, variance, 1 / count if self.momentum is None else self.momentum)

    def _move(self, mean: Array, variance: Array, momentum: float) -> None:
        """Move the running statistics, which must exist, in place."""
        assert self.running_mean is not None
        assert self.running_var is not None
        self.running_mean += momentum * (mean - self.running_mean)
        self.running_var += momentum * (variance - self.running_var)


class BatchNorm1d(_BatchNorm):
    """Normalise each feature over the batch, and over the steps of a sequence if there are any.

    Parameters
    ----------
    num_features : int
        Size C of the second axis.
    eps : float, default 1e-5
        Added to the variance to avoid division by zero.
    momentum : float or None, default 0.1
        Weight of the newest batch in the running statistics. None averages all batches equally.
    affine : bool, default True
        Whether to learn a `weight` and a `bias` for each feature.
    track_running_stats : bool, default True
        Whether to keep running statistics for evaluation. If False, evaluation uses the statistics
        of its own batch too.
    bias : bool, default True
        Whether to learn the bias. It has no effect if `affine` is False.

    Attributes
    ----------
    weight, bias : Parameter of shape (C,), or None
        Initially 1 and 0.
    running_mean, running_var : ndarray of shape (C,), or None
        Running mean and unbiased variance of the training batches, initially 0 and 1.

    Raises
    ------
    ValueError
        If the input has another shape, or if the batch statistics are needed and each feature has
        only one value.

    Notes
    -----
    Shapes: x and y (N, C) or (N, C, L). In training, μ and σ² are the mean and the biased variance
    of the M values of a feature in the batch::

        x̂ = (x - μ) / √(σ² + eps)          y = weight · x̂ + bias

        dL/dweight = Σ G x̂                  dL/dbias = Σ G                for G = dL/dy
        dL/dx = weight / √(σ² + eps) · (G - (Σ G) / M - x̂ (Σ G x̂) / M)

    The last two terms appear because μ and σ² depend on x. In evaluation μ and σ² are the running
    statistics, which do not, so ``dL/dx = weight / √(σ² + eps) · G``.

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

    _ranks: ClassVar[tuple[int, ...]] = (2, 3)
    _expected = "(N, C) or (N, C, L)"


class BatchNorm2d(_BatchNorm):
    """Normalise each channel over the batch and the image.

    Parameters, attributes, formulas and errors as in `BatchNorm1d`.

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


class _SampleNorm(Layer):
    """Base of `LayerNorm` and `RMSNorm`: the shape over which a sample is normalised."""

    normalized_shape: tuple[int, ...]
    eps: float | None
    elementwise_affine: bool
    weight: Parameter | None

    def _sizes(self, normalized_shape: int | tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape as a tuple, checked."""
        name = type(self).__name__
        sizes = (
            normalized_shape if isinstance(normalized_shape, (tuple, list)) else (normalized_shape,)
        )
        if not sizes:
            raise ValueError(f"{name}: normalized_shape must have one size at least")
        return tuple(integer(size, f"{name}: normalized_shape") for size in sizes)

    def _rows(self, x: Array) -> tuple[Array, Array]:
        """Return the input as floats, and as a matrix with one row for each sample."""
        x = as_floats(self, x, None if self.weight is None else self.weight.dtype)
        rank = len(self.normalized_shape)
        if x.ndim <= rank or x.shape[-rank:] != self.normalized_shape:
            sizes = ", ".join(str(size) for size in self.normalized_shape)
            raise ValueError(f"{self}: expected input of shape (N, ..., {sizes}), got {x.shape}")
        return x, x.reshape(-1, math.prod(self.normalized_shape))


class LayerNorm(_SampleNorm):
    """Normalise each sample over its last axes.

    Parameters
    ----------
    normalized_shape : int or tuple of int
        Sizes of the last axes, which are normalised together.
    eps : float, default 1e-5
        Added to the variance to avoid division by zero.
    elementwise_affine : bool, default True
        Whether to learn a `weight` and a `bias` of shape `normalized_shape`.
    bias : bool, default True
        Whether to learn the bias. It has no effect if `elementwise_affine` is False.

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
    Shapes: x and y ``(N, …, *normalized_shape)``. μ and σ² are the mean and the biased variance of
    the M values of a sample; G = dL/dy and H = G · weight::

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

    eps: float
    bias: Parameter | None

    def __init__(
        self,
        normalized_shape: int | tuple[int, ...],
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
    ) -> None:
        self.normalized_shape = self._sizes(normalized_shape)
        self.eps = number(eps, "LayerNorm: eps", minimum=0)
        self.elementwise_affine = boolean(elementwise_affine, "LayerNorm: elementwise_affine")
        self.weight, self.bias = _weight_and_bias(
            self.normalized_shape, self.elementwise_affine, boolean(bias, "LayerNorm: bias")
        )

    def forward(self, x: Array) -> Array:
        x, rows = self._rows(x)
        normalized, scale = standardize(rows, self.eps)
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
        count = normalized.shape[1]
        products = grad * normalized
        weight = np.ones(count, grad.dtype)
        if self.weight is not None:
            self.weight.accumulate_sums(products)
            if self.bias is not None:
                self.bias.accumulate_sums(grad)
            weight = self.weight.data.reshape(-1)
        if not input_grad:
            return None
        column = weight[:, None]
        dx = normalized * (product(products, column) / -count)
        dx -= product(grad, column) / count
        dx += grad if self.weight is None else np.multiply(grad, weight, out=products)
        dx *= scale
        return dx.reshape(shape)


class _PerSample(Layer):
    """Base of `GroupNorm` and `InstanceNorm1d`: normalise groups of channels of each sample."""

    eps: float
    weight: Parameter | None
    bias: Parameter | None

    def forward(self, x: Array) -> Array:
        x = self._checked(x)
        mean, variance, count = self._statistics(x)
        scale = 1 / np.sqrt(variance + x.dtype.type(self.eps))
        self.cache(x, mean, scale, count)
        shift = None
        if self.bias is not None:
            shift = np.tile(self.bias.data, (len(x), 1))
        return normalize(x, mean, self._factor(scale, x), shift)

    def backward(self, grad: Array, input_grad: bool = True) -> Array | None:
        x, mean, scale, count = self.cached()
        grad = as_output_grad(self, grad, x.shape, x.dtype)
        sums = gradient_sums(x, mean, grad)  # Σ G, and Σ G (x - μ), of each channel of each sample
        sums[1] *= by_channel(scale, x)  # Σ G x̂
        d_bias, d_weight = sums.sum(axis=1)
        if self.weight is not None:
            self.weight.accumulate(d_weight)
            sums *= self.weight.data  # Σ H, and Σ H x̂
        if self.bias is not None:
            self.bias.accumulate(d_bias)
        if not input_grad:
            return None
        level, slope = sums.reshape(2, *scale.shape, -1).sum(axis=3) * (scale / count)
        return normalize_grad(x, mean, grad, self._factor(scale, x), slope * -scale, level)

    def _factor(self, scale: Array, x: Array) -> Array:
        """Return scale (N, groups) times the weight, for each channel of each sample."""
        factor = by_channel(scale, x)
        return factor if self.weight is None else factor * self.weight.data

    def _checked(self, x: Array) -> Array:
        """Check the input's shape; return it as floats."""
        raise NotImplementedError

    def _statistics(self, x: Array) -> tuple[Mean, Array, float]:
        """Return mean and variance of each group of each sample, and the group's size.

        The size is infinite for statistics that do not depend on x.
        """
        raise NotImplementedError


class GroupNorm(_PerSample):
    """Normalise groups of channels, in each sample by itself.

    Parameters
    ----------
    num_groups : int
        Number of groups that the channels are divided into. With 1, a sample is normalised as a
        whole; with `num_channels`, each channel by itself, as `InstanceNorm2d` does.
    num_channels : int
        Size C of the second axis, a multiple of `num_groups`.
    eps : float, default 1e-5
        Added to the variance to avoid division by zero.
    affine : bool, default True
        Whether to learn a `weight` and a `bias` for each channel.
    bias : bool, default True
        Whether to learn the bias. It has no effect if `affine` is False.

    Attributes
    ----------
    weight, bias : Parameter of shape (C,), or None
        Initially 1 and 0.

    Raises
    ------
    ValueError
        If the groups do not divide the channels, or the input has another number of channels.

    Notes
    -----
    Shapes: x and y (N, C, …). μ and σ² are the mean and the biased variance of the M values of a
    group: C / num_groups channels with all their positions. G = dL/dy and H = G · weight::

        x̂ = (x - μ) / √(σ² + eps)          y = weight · x̂ + bias

        dL/dweight = Σ G x̂                  dL/dbias = Σ G
        dL/dx = (H - (Σ H) / M - x̂ (Σ H x̂) / M) / √(σ² + eps)

    The sums for the parameters are over the samples and positions of a channel, those in dL/dx over
    a group of one sample. No sample depends on another one, so it works in batches of any size,
    and alike in training and evaluation.

    References
    ----------
    Y. Wu, K. He, "Group normalization", ECCV 2018.

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> norm = nn.GroupNorm(2, 4)
    >>> norm(np.array([[1.0, 3.0, 10.0, 50.0]], dtype=np.float32)).round(3)
    array([[-1.,  1., -1.,  1.]], dtype=float32)
    """

    num_groups: int
    num_channels: int
    affine: bool

    def __init__(
        self,
        num_groups: int,
        num_channels: int,
        eps: float = 1e-5,
        affine: bool = True,
        *,
        bias: bool = True,
    ) -> None:
        self.num_groups = integer(num_groups, "GroupNorm: num_groups")
        self.num_channels = integer(num_channels, "GroupNorm: num_channels")
        if self.num_channels % self.num_groups:
            raise ValueError(
                f"GroupNorm: num_channels must be a multiple of num_groups={num_groups}, "
                f"got {num_channels}"
            )
        self.eps = number(eps, "GroupNorm: eps", minimum=0)
        self.affine = boolean(affine, "GroupNorm: affine")
        self.weight, self.bias = _weight_and_bias(
            (self.num_channels,), self.affine, boolean(bias, "GroupNorm: bias")
        )

    def _checked(self, x: Array) -> Array:
        x = as_floats(self, x, None if self.weight is None else self.weight.dtype)
        if x.ndim < 2 or x.shape[1] != self.num_channels:
            raise ValueError(
                f"{self.label}: expected input of shape (N, {self.num_channels}, ...), "
                f"got {x.shape}"
            )
        return x

    def _statistics(self, x: Array) -> tuple[Mean, Array, float]:
        return *moments(x, self.num_groups), x[0].size // self.num_groups


class _InstanceNorm(_PerSample, _BatchNorm):
    """Base of `InstanceNorm1d` and `InstanceNorm2d`, which differ in the shape of the input."""

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float = 0.1,
        affine: bool = False,
        track_running_stats: bool = False,
    ) -> None:
        momentum = number(momentum, f"{type(self).__name__}: momentum", minimum=0, maximum=1)
        super().__init__(num_features, eps, momentum, affine, track_running_stats)

    def _checked(self, x: Array) -> Array:
        return _BatchNorm._checked(self, x)

    def _statistics(self, x: Array) -> tuple[Mean, Array, float]:
        if not self.training and self.running_mean is not None:
            mean, variance = self._running_moments(x.dtype)
            near, variance = (np.broadcast_to(each, x.shape[:2]) for each in (mean.near, variance))
            return Mean(near), variance, math.inf
        count = x[0, 0].size
        if count == 1:
            raise ValueError(
                f"{self.label}: one value for each channel has no variance to normalize with, "
                f"got an input of shape {x.shape}"
            )
        mean, variances = moments(x, self.num_features)
        if self.training:
            self._track(mean.near.mean(axis=0), variances.mean(axis=0) * (count / (count - 1)))
        return mean, variances, count

    def _track(self, mean: Array, variance: Array) -> None:
        if self.running_mean is not None and np.isfinite(variance).all():
            assert self.momentum is not None
            self._move(mean, variance, self.momentum)  # PyTorch does not count the batches here


class InstanceNorm1d(_InstanceNorm):
    """Normalise each channel of each sequence.

    Parameters
    ----------
    num_features : int
        Size C of the second axis.
    eps : float, default 1e-5
        Added to the variance to avoid division by zero.
    momentum : float, default 0.1
        Weight of the newest batch in the running statistics.
    affine : bool, default False
        Whether to learn a `weight` and a `bias` for each channel.
    track_running_stats : bool, default False
        Whether to keep running statistics, and to use them in evaluation. By default evaluation
        uses the statistics of each sample too.

    Attributes
    ----------
    weight, bias : Parameter of shape (C,), or None
        Initially 1 and 0.
    running_mean, running_var : ndarray of shape (C,), or None
        Running averages, over the batches, of the samples' means and unbiased variances.

    Raises
    ------
    ValueError
        If the input has another shape, or if the statistics of the samples are needed and a
        channel has only one value.

    Notes
    -----
    Shapes: x and y (N, C, L). The formulas are those of `GroupNorm` with a group for each channel;
    with running statistics, those of `BatchNorm1d` in evaluation.

    References
    ----------
    D. Ulyanov, A. Vedaldi, V. Lempitsky, "Instance normalization: the missing ingredient for fast
    stylization", arXiv:1607.08022.

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> norm = nn.InstanceNorm1d(2)
    >>> norm(np.array([[[1.0, 3.0], [10.0, 50.0]]], dtype=np.float32)).round(3)
    array([[[-1.,  1.],
            [-1.,  1.]]], dtype=float32)
    """

    _ranks: ClassVar[tuple[int, ...]] = (3,)
    _expected = "(N, C, L)"


class InstanceNorm2d(_InstanceNorm):
    """Normalise each channel of each image.

    Parameters, attributes, formulas and errors as in `InstanceNorm1d`.

    Notes
    -----
    Shapes: x and y (N, C, H, W).

    References
    ----------
    D. Ulyanov, A. Vedaldi, V. Lempitsky, "Instance normalization: the missing ingredient for fast
    stylization", arXiv:1607.08022.

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> norm = nn.InstanceNorm2d(3)
    >>> norm(np.random.rand(2, 3, 4, 4).astype(np.float32)).shape
    (2, 3, 4, 4)
    """

    _ranks = (4,)
    _expected = "(N, C, H, W)"


class RMSNorm(_SampleNorm):
    """Divide each sample by its root mean square over the last axes.

    Parameters
    ----------
    normalized_shape : int or tuple of int
        Sizes of the last axes, which are normalised together.
    eps : float, optional
        Added to the mean square to avoid division by zero; by default the machine epsilon of the
        input's dtype, as in PyTorch.
    elementwise_affine : bool, default True
        Whether to learn a `weight` of shape `normalized_shape`.

    Attributes
    ----------
    weight : Parameter of shape `normalized_shape`, or None
        Initially 1.

    Raises
    ------
    ValueError
        If the last axes of the input have other sizes.

    Notes
    -----
    Shapes: x and y ``(N, …, *normalized_shape)``. Unlike `LayerNorm`, it does not subtract the
    mean. For the M values of a sample, with G = dL/dy and H = G · weight::

        x̂ = x / √((Σ x²) / M + eps)        y = weight · x̂

        dL/dweight = Σ_n G x̂
        dL/dx = (H - x̂ (Σ H x̂) / M) / √((Σ x²) / M + eps)

    References
    ----------
    B. Zhang, R. Sennrich, "Root mean square layer normalization", NeurIPS 2019.

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> nn.RMSNorm(2)(np.array([[3.0, 4.0]], dtype=np.float32)).round(3)
    array([[0.849, 1.131]], dtype=float32)
    """

    def __init__(
        self,
        normalized_shape: int | tuple[int, ...],
        eps: float | None = None,
        elementwise_affine: bool = True,
    ) -> None:
        self.normalized_shape = self._sizes(normalized_shape)
        self.eps = None if eps is None else number(eps, "RMSNorm: eps", minimum=0)
        self.elementwise_affine = boolean(elementwise_affine, "RMSNorm: elementwise_affine")
        self.weight = None
        if elementwise_affine:
            self.weight = Parameter(np.ones(self.normalized_shape, np.float32))

    def forward(self, x: Array) -> Array:
        x, rows = self._rows(x)
        eps = np.finfo(x.dtype).eps if self.eps is None else x.dtype.type(self.eps)
        scale = 1 / np.sqrt(_mean_products(rows, rows) + eps)
        normalized = multiply(rows, scale)
        self.cache(normalized, scale, x.shape)
        if self.weight is None:
            return normalized.reshape(x.shape)
        return multiply(normalized, self.weight.data.reshape(-1)).reshape(x.shape)

    def backward(self, grad: Array, input_grad: bool = True) -> Array | None:
        normalized, scale, shape = self.cached()
        grad = as_output_grad(self, grad, shape, normalized.dtype).reshape(normalized.shape)
        if self.weight is not None:
            self.weight.accumulate_sums(multiply(grad, normalized))
            grad = multiply(grad, self.weight.data.reshape(-1))
        if not input_grad:
            return None
        dx = multiply(normalized, -_mean_products(grad, normalized))
        dx += grad
        dx *= scale
        return dx.reshape(shape)


def _mean_products(a: Array, b: Array) -> Array:
    """Return (Σ_j a_ij b_ij) / M for each row i of M elements, as a column."""
    means: Array = np.einsum("ij,ij->i", a, b)[:, None] / a.shape[1]
    return means
