"""Layers that change the shape or the order of arrays, join them, or take parts of them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..checks import as_floats, as_output_grad, floats_of_one_dtype, integer
from ..engine.arrays import Array
from ..engine.memory import reshape
from ..layer import Layer
from .elementwise import Elementwise


class _Reshaping(Layer):
    """Base of layers that change the shape alone; a subclass defines the new one."""

    def _new_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        raise NotImplementedError(f"{type(self).__name__} does not define _new_shape")

    def forward(self, x: Array) -> Array:
        x = as_floats(self, x)
        y = reshape(x, self._new_shape(x.shape))
        self.cache(x.shape, y.shape, x.dtype)
        return y

    def backward(self, grad: Array, input_grad: bool = True) -> Array | None:
        shape, output_shape, dtype = self.cached()
        grad = as_output_grad(self, grad, output_shape, dtype)
        return grad.reshape(shape) if input_grad else None


class Flatten(_Reshaping):
    """Merge the axes from `start_dim` to `end_dim` into one.

    Parameters
    ----------
    start_dim : int, default 1
        The first axis to merge; 1 keeps the batch axis.
    end_dim : int, default -1
        The last axis to merge.

    Raises
    ------
    ValueError
        If the input has no such axes.

    Notes
    -----
    Shapes: x (N, C, H, W), y (N, C·H·W) by default. `backward` reshapes the gradient to the shape
    of x. The output is a view of the input if the memory order allows it.

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> nn.Flatten()(np.zeros((32, 1, 28, 28))).shape
    (32, 784)
    """

    start_dim: int
    end_dim: int

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        self.start_dim = integer(start_dim, "Flatten: start_dim", -math.inf)
        self.end_dim = integer(end_dim, "Flatten: end_dim", -math.inf)

    def _new_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        rank = len(shape)
        start = self.start_dim + rank if self.start_dim < 0 else self.start_dim
        end = self.end_dim + rank if self.end_dim < 0 else self.end_dim
        if not 0 <= start <= end < rank:
            raise ValueError(
                f"{self}: an input of shape {shape} has no axes "
                f"{self.start_dim} to {self.end_dim} to merge"
            )
        return (*shape[:start], math.prod(shape[start : end + 1]), *shape[end + 1 :])


class Reshape(_Reshaping):
    """Reshape each sample to `shape`.

    Parameters
    ----------
    *shape : int
        Sizes of the axes after the batch axis. One of them may be -1 and is then inferred.

    Raises
    ------
    ValueError
        If the values of a sample do not fit `shape`.

    Notes
    -----
    Shapes: x (N, …), y ``(N, *shape)``. `backward` reshapes the gradient to the shape of x.

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> nn.Reshape(1, 28, 28)(np.zeros((32, 784))).shape
    (32, 1, 28, 28)
    """

    shape: tuple[int, ...]

    def __init__(self, *shape: int) -> None:
        self.shape = tuple(integer(size, "Reshape: a size", minimum=-1) for size in shape)
        if self.shape.count(-1) > 1 or 0 in self.shape:
            raise ValueError(f"Reshape: sizes must be above 0, and one may be -1; got {shape}")

    def _new_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        sizes = filled(self.shape, math.prod(shape[1:]))
        if not shape or sizes is None:
            raise ValueError(
                f"{self}: a sample of shape {shape[1:]} does not fit into shape {self.shape}"
            )
        return (shape[0], *sizes)

    def __repr__(self) -> str:
        return f"Reshape({', '.join(str(size) for size in self.shape)})"


class Unflatten(_Reshaping):
    """Split an axis into several.

    Parameters
    ----------
    dim : int
        The axis to split.
    unflattened_size : tuple of int
        Sizes of the new axes. One of them may be -1 and is then inferred.

    Raises
    ------
    ValueError
        If the input has no such axis, or the sizes do not fit it.

    Notes
    -----
    Shapes: x (…, n, …), y (…, n₁, n₂, …, …) with n = n₁ n₂ …. `backward` merges the axes of the
    gradient again.

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> nn.Unflatten(1, (3, -1))(np.zeros((32, 12))).shape
    (32, 3, 4)
    """

    dim: int
    unflattened_size: tuple[int, ...]

    def __init__(self, dim: int, unflattened_size: tuple[int, ...]) -> None:
        self.dim = integer(dim, "Unflatten: dim", -math.inf)
        self.unflattened_size = tuple(
            integer(size, "Unflatten: a size", minimum=-1) for size in unflattened_size
        )
        if self.unflattened_size.count(-1) > 1 or 0 in self.unflattened_size:
            raise ValueError(
                f"Unflatten: sizes must be above 0, and one may be -1; got {unflattened_size}"
            )

    def _new_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        axis = _axis(self, self.dim, shape)
        sizes = filled(self.unflattened_size, shape[axis])
        if sizes is None:
            raise ValueError(
                f"{self}: axis {self.dim} of an input of shape {shape} does not fit into "
                f"{self.unflattened_size}"
            )
        return (*shape[:axis], *sizes, *shape[axis + 1 :])


class Squeeze(_Reshaping):
    """Remove an axis of size 1.

    Parameters
    ----------
    dim : int
        The axis.

    Raises
    ------
    ValueError
        If the input has no such axis, or its size is not 1.

    Notes
    -----
    Shapes: x (…, 1, …), y without this axis. Unlike ``torch.squeeze``, an axis of another size is
    an error.

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> nn.Squeeze(1)(np.zeros((32, 1, 5))).shape
    (32, 5)
    """

    dim: int

    def __init__(self, dim: int) -> None:
        self.dim = integer(dim, "Squeeze: dim", -math.inf)

    def _new_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        axis = _axis(self, self.dim, shape)
        if shape[axis] != 1:
            raise ValueError(f"{self}: expected an axis of size 1, got input of shape {shape}")
        return (*shape[:axis], *shape[axis + 1 :])


class Unsqueeze(_Reshaping):
    """Insert an axis of size 1.

    Parameters
    ----------
    dim : int
        The position of the axis in the output.

    Raises
    ------
    ValueError
        If the output can have no such axis.

    Notes
    -----
    Shapes: x any; y with an axis more.

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> nn.Unsqueeze(1)(np.zeros((32, 28, 28))).shape
    (32, 1, 28, 28)
    """

    dim: int

    def __init__(self, dim: int) -> None:
        self.dim = integer(dim, "Unsqueeze: dim", -math.inf)

    def _new_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        axis = _axis(self, self.dim, (*shape, 1))
        return (*shape[:axis], 1, *shape[axis:])


class Permute(Layer):
    """Put the axes into another order.

    Parameters
    ----------
    *dims : int
        For each axis of the output, the axis of the input, as in ``torch.permute``.

    Raises
    ------
    ValueError
        If `dims` does not name every axis of the input once.

    Notes
    -----
    Shapes: for ``Permute(0, 2, 1)``, x (N, L, C) and y (N, C, L). `backward` applies the inverse
    order to the gradient. The output is a view of the input.

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> nn.Permute(0, 2, 1)(np.zeros((32, 10, 3))).shape
    (32, 3, 10)
    """

    dims: tuple[int, ...]

    def __init__(self, *dims: int) -> None:
        self.dims = tuple(integer(dim, "Permute: an axis", -math.inf) for dim in dims)

    def forward(self, x: Array) -> Array:
        x = as_floats(self, x)
        axes = [dim % max(x.ndim, 1) for dim in self.dims]
        if sorted(axes) != list(range(x.ndim)):
            raise ValueError(
                f"{self}: an input of shape {x.shape} has {x.ndim} axes, and each must be named "
                f"once"
            )
        y = x.transpose(axes)
        self.cache(axes, y.shape, y.dtype)
        return y

    def backward(self, grad: Array, input_grad: bool = True) -> Array | None:
        axes, shape, dtype = self.cached()
        grad = as_output_grad(self, grad, shape, dtype)
        return grad.transpose(np.argsort(axes)) if input_grad else None

    def __repr__(self) -> str:
        return f"Permute({', '.join(map(str, self.dims))})"


class Slice(Layer):
    """Take a part along an axis: ``y = x[:, start:stop:step]``.

    Parameters
    ----------
    start, stop : int, optional
        As in Python: counted from the end if negative, and the ends of the axis if omitted.
    step : int, default 1
    dim : int, default 1
        The axis.

    Raises
    ------
    ValueError
        If the input has no such axis, or the part is empty.

    Notes
    -----
    Shapes: x any; y as x, but for the size of the axis. The gradient is that of y in the part, and
    0 elsewhere. ``Sequential(Slice(-1), Squeeze(1))`` takes the last step of sequences.

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> last = nn.Slice(-2)
    >>> last(np.array([[1.0, 2.0, 3.0]]))
    array([[2., 3.]])
    >>> last.backward(np.array([[10.0, 20.0]]))
    array([[ 0., 10., 20.]])
    """

    start: int | None
    stop: int | None
    step: int
    dim: int

    def __init__(
        self, start: int | None = None, stop: int | None = None, step: int = 1, *, dim: int = 1
    ) -> None:
        self.start = None if start is None else integer(start, "Slice: start", -math.inf)
        self.stop = None if stop is None else integer(stop, "Slice: stop", -math.inf)
        self.step = integer(step, "Slice: step")
        self.dim = integer(dim, "Slice: dim", -math.inf)

    def forward(self, x: Array) -> Array:
        x = as_floats(self, x)
        part = slice(self.start, self.stop, self.step)
        index = (*[slice(None)] * _axis(self, self.dim, x.shape), part)
        y = x[index]
        if not y.size:
            raise ValueError(f"{self}: the part of an input of shape {x.shape} is empty")
        self.cache(index, x.shape, y.shape, y.dtype)
        return y

    def backward(self, grad: Array, input_grad: bool = True) -> Array | None:
        index, shape, output_shape, dtype = self.cached()
        grad = as_output_grad(self, grad, output_shape, dtype)
        if not input_grad:
            return None
        dx = np.zeros(shape, dtype)
        dx[index] = grad
        return dx


class Split(Layer):
    """Split an array along an axis into several, a tuple.

    Parameters
    ----------
    split_size_or_sections : int or tuple of int
        The size of each part, as in ``torch.split``: one int for parts of this size, of which the
        last may be smaller; or the sizes of all parts.
    dim : int, default 1
        The axis.

    Raises
    ------
    ValueError
        If the input has no such axis, or the sizes do not add up to its size.

    Notes
    -----
    Shapes: x any; each output as x, but for the size of the axis. In a `Graph`, ``"split.0"`` is
    the first output. `backward` takes a tuple of gradients, one for each output (None where there
    is none), and returns them side by side.

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> split = nn.Split((1, 2))
    >>> split(np.array([[1.0, 2.0, 3.0]]))
    (array([[1.]]), array([[2., 3.]]))
    >>> split.backward((None, np.array([[10.0, 20.0]])))
    array([[ 0., 10., 20.]])
    """

    split_size_or_sections: int | tuple[int, ...]
    dim: int

    def __init__(self, split_size_or_sections: int | tuple[int, ...], dim: int = 1) -> None:
        if isinstance(split_size_or_sections, (tuple, list)):
            self.split_size_or_sections = tuple(
                integer(size, "Split: a size") for size in split_size_or_sections
            )
        else:
            self.split_size_or_sections = integer(split_size_or_sections, "Split: the size")
        self.dim = integer(dim, "Split: dim", -math.inf)

    def sections(self, size: int) -> tuple[int, ...]:
        """Return the sizes of the parts of an axis of this size."""
        sizes = self.split_size_or_sections
        if isinstance(sizes, int):
            whole, rest = divmod(size, sizes)
            sizes = (*[sizes] * whole, *[rest] * (rest > 0))
        if sum(sizes) != size:
            raise ValueError(f"{self}: the sizes do not add up to that of the axis, {size}")
        return sizes

    def forward(self, x: Array) -> tuple[Array, ...]:
        x = as_floats(self, x)
        axis = _axis(self, self.dim, x.shape)
        ends = np.cumsum(self.sections(x.shape[axis]))
        parts = tuple(np.split(x, ends[:-1], axis))
        self.cache([part.shape for part in parts], axis, x.dtype)
        return parts

    def backward(self, grad: Any, input_grad: bool = True) -> Array | None:
        shapes, axis, dtype = self.cached()
        if not isinstance(grad, (tuple, list)) or len(grad) != len(shapes):
            raise ValueError(
                f"{self}: backward expects a tuple of {len(shapes)} gradients, one for each output"
            )
        if not input_grad:
            return None
        parts = [
            np.zeros(shape, dtype) if part is None else as_output_grad(self, part, shape, dtype)
            for part, shape in zip(grad, shapes, strict=True)
        ]
        return np.concatenate(parts, axis)


class Concatenate(Layer):
    """Join arrays along an axis.

    Parameters
    ----------
    dim : int, default 1
        The axis: 1 joins features or channels.

    Raises
    ------
    ValueError
        If the inputs have no such axis, or differ in the size of another.
    TypeError
        If there is no input, or one is not of floats.

    Notes
    -----
    Shapes: as the inputs, but the axis has the sum of their sizes. Each input gets its part of the
    gradient.

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> join = nn.Concatenate()
    >>> join(np.array([[1.0]]), np.array([[2.0, 3.0]]))
    array([[1., 2., 3.]])
    >>> join.backward(np.array([[10.0, 20.0, 30.0]]))
    (array([[10.]]), array([[20., 30.]]))
    """

    dim: int

    def __init__(self, dim: int = 1) -> None:
        self.dim = integer(dim, "Concatenate: dim", -math.inf)

    def forward(self, *inputs: Array) -> Array:
        arrays = floats_of_one_dtype(self, *inputs)
        axis = _axis(self, self.dim, arrays[0].shape)
        others = {(*x.shape[:axis], *x.shape[axis + 1 :]) for x in arrays}
        if len(others) > 1 or len({x.ndim for x in arrays}) > 1:
            shapes = ", ".join(str(x.shape) for x in arrays)
            raise ValueError(
                f"{self}: the inputs may differ in the size of axis {self.dim} alone, got {shapes}"
            )
        y = np.concatenate(arrays, axis)
        self.cache(np.cumsum([x.shape[axis] for x in arrays])[:-1], axis, y.shape, y.dtype)
        return y

    def backward(self, grad: Array, input_grad: bool = True) -> tuple[Array, ...] | None:
        ends, axis, shape, dtype = self.cached()
        grad = as_output_grad(self, grad, shape, dtype)
        return tuple(np.split(grad, ends, axis)) if input_grad else None


class Stack(Layer):
    """Join arrays of one shape along a new axis.

    Parameters
    ----------
    dim : int, default 1
        The position of the new axis.

    Raises
    ------
    ValueError
        If the shapes of the inputs differ, or the output can have no such axis.
    TypeError
        If there is no input, or one is not of floats.

    Notes
    -----
    Shapes: K inputs (N, …), y (N, K, …). Each input gets its part of the gradient.

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> nn.Stack()(np.array([1.0, 2.0]), np.array([3.0, 4.0]))
    array([[1., 3.],
           [2., 4.]])
    """

    dim: int

    def __init__(self, dim: int = 1) -> None:
        self.dim = integer(dim, "Stack: dim", -math.inf)

    def forward(self, *inputs: Array) -> Array:
        arrays = floats_of_one_dtype(self, *inputs)
        shapes = {x.shape for x in arrays}
        if len(shapes) > 1:
            raise ValueError(f"{self}: expected inputs of one shape, got {sorted(shapes)}")
        axis = _axis(self, self.dim, (*arrays[0].shape, 1))
        y = np.stack(arrays, axis)
        self.cache(axis, y.shape, y.dtype)
        return y

    def backward(self, grad: Array, input_grad: bool = True) -> tuple[Array, ...] | None:
        axis, shape, dtype = self.cached()
        grad = as_output_grad(self, grad, shape, dtype)
        return tuple(np.moveaxis(grad, axis, 0)) if input_grad else None


class Identity(Elementwise):
    """Return the input unchanged: ``y = x`` and ``dL/dx = dL/dy``.

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> nn.Identity()(np.ones(3))
    array([1., 1., 1.])
    """

    def value(self, x: Array) -> tuple[Array, None]:
        return x, None

    def vjp(self, saved: None, grad: Array) -> Array:
        return grad


def _axis(layer: Layer, dim: int, shape: tuple[int, ...]) -> int:
    """Return the axis `dim` of an array of this shape, counted from the first."""
    if not -len(shape) <= dim < len(shape):
        raise ValueError(f"{layer}: an input of shape {shape} has no axis {dim}")
    return dim % len(shape)


def filled(sizes: tuple[int, ...], count: int) -> tuple[int, ...] | None:
    """Return sizes with -1 replaced so that their product is `count`; None if they do not fit."""
    if -1 in sizes:
        rest = count // -math.prod(sizes)
        sizes = tuple(rest if size == -1 else size for size in sizes)
    return sizes if math.prod(sizes) == count else None
