"""``Parameter``: a trainable array and its gradient."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from .changes import changes
from .checks import boolean, check_is_array
from .engine.arrays import Array
from .engine.blas import product
from .engine.limit import claim
from .engine.memory import aligned, is_held, ones
from .hints import Hinted
from .tables import Table


class Parameter(Hinted):
    """A trainable array, and the gradient of the loss with respect to it.

    Parameters
    ----------
    data : array_like of float
        The initial value, copied. A float64 array stays float64; everything else becomes float32.
    requires_grad : bool, default True
        False freezes the parameter: its gradient is not computed, and optimizers skip it.

    Attributes
    ----------
    data : ndarray
        The value. An assigned array must have the same shape; it is copied and converted to the
        dtype of the parameter, which only `Layer.astype` changes.
    grad : ndarray or None
        The gradient, with the shape and dtype of `data`; None before the first backward and after
        `zero_grad`. Each backward adds to it, as in PyTorch.
    requires_grad : bool

    Raises
    ------
    TypeError
        If the data are not floats, or `requires_grad` is neither True nor False.
    ValueError
        If a value or gradient of another shape is assigned or added.

    Examples
    --------
    >>> import nnlite as nn
    >>> p = nn.Parameter([1.0, 2.0])
    >>> p.accumulate([0.5, 0.5])
    >>> p.accumulate([0.5, 0.5])
    >>> p.grad
    array([1., 1.], dtype=float32)
    """

    __slots__ = ("_data", "_grad", "_requires_grad", "_storage")

    def __init__(self, data: ArrayLike, requires_grad: bool = True) -> None:
        self.requires_grad = requires_grad
        check_is_array(data, "Parameter")
        value = np.asarray(data)
        if value.dtype.kind != "f":
            raise TypeError(f"Parameter: expected an array of floats, got dtype {value.dtype}")
        claim(value.size)
        is_double = isinstance(data, np.ndarray) and value.dtype.itemsize >= 8
        dtype = np.float64 if is_double else np.float32
        self._data: Array = _aligned_copy(value, np.dtype(dtype))
        self._grad: Array | None = None
        self._storage: Array | None = None

    @property
    def requires_grad(self) -> bool:
        """Whether the gradient is computed, and optimizers change the value."""
        return self._requires_grad

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        self._requires_grad = boolean(value, "Parameter: requires_grad")
        changes.attributes = object()

    @property
    def data(self) -> Array:
        """The value."""
        return self._data

    @data.setter
    def data(self, value: ArrayLike) -> None:
        if value is not self._data:
            self._data = self._conformed(value, "a value")
            changes.attributes = object()

    @property
    def grad(self) -> Array | None:
        """The gradient, or None."""
        return self._grad

    @grad.setter
    def grad(self, value: ArrayLike | None) -> None:
        if value is not self._grad:
            grad = None if value is None else self._conformed(value, "a gradient")
            self._grad, changes.gradients = grad, object()

    def _conformed(self, value: ArrayLike, what: str) -> Array:
        """Check the shape of `value`; return a copy in the dtype of the parameter."""
        check_is_array(value, "Parameter")
        array = np.asarray(value)
        if array.dtype.kind not in "fiu":
            raise TypeError(f"{self}: expected numbers for {what}, got dtype {array.dtype}")
        if array.shape != self._data.shape:
            raise ValueError(f"{self} has got {what} of shape {array.shape}; the shapes must agree")
        return _aligned_copy(array, self._data.dtype)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of `data` and `grad`."""
        return self._data.shape

    @property
    def size(self) -> int:
        """The number of elements."""
        return self._data.size

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of `data` and `grad`: float32 or float64."""
        return self._data.dtype

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Set `grad` to None until the next backward, or with ``set_to_none=False`` to zero."""
        if self._grad is None:
            return
        if set_to_none:
            self._grad, changes.gradients = None, object()
        else:
            self._grad[...] = 0

    def requires_grad_(self, requires_grad: bool = True) -> Parameter:
        """Set `requires_grad`; return the parameter."""
        self.requires_grad = requires_grad
        return self

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> Array:
        """Return the value, as ``numpy.asarray(parameter)`` does."""
        return np.array(self._data, dtype, copy=copy)

    def accumulate(self, grad: ArrayLike) -> None:
        """Add `grad`, of the parameter's shape, to the gradient."""
        grad = np.asarray(grad)
        if grad.shape != self._data.shape:
            raise ValueError(
                f"{self} has got a gradient of shape {grad.shape}; the shapes must agree"
            )
        if not self._requires_grad:
            return
        if self._grad is None:
            storage = self._grad_storage()
            np.copyto(storage, grad, casting="same_kind")
            self._grad, changes.gradients = storage, object()
        else:
            np.add(self._grad, grad, out=self._grad, casting="same_kind")

    def astype(self, dtype: DTypeLike) -> None:
        """Convert value and gradient to float32 or float64."""
        if self._data.dtype != dtype:
            self._data = _aligned_copy(self._data, np.dtype(dtype))
            changes.attributes = object()
            grad = None if self._grad is None else self._grad.astype(dtype)
            self._grad, changes.gradients = grad, object()
            self._storage = None

    def __str__(self) -> str:
        return f"Parameter(shape={self.shape}, dtype={self.dtype})"

    def __repr__(self) -> str:
        """Return the value too, with dots if it is large."""
        value = np.array2string(self._data, separator=", ", prefix="Parameter(")
        frozen = "" if self.requires_grad else ", requires_grad=False"
        return f"Parameter({value}, dtype={self.dtype}{frozen})"

    def _repr_html_(self) -> str:
        arrays = (
            {"data": self._data} if self._grad is None else {"data": self._data, "grad": self._grad}
        )
        statistics = ("mean", "std", "min", "max")
        rows = [
            (name, *(f"{getattr(array, each)():.4g}" if array.size else "" for each in statistics))
            for name, array in arrays.items()
        ]
        frozen = "" if self.requires_grad else ", frozen"
        table = Table(("", *statistics), rows, numeric=statistics, title=f"{self}{frozen}")
        values = np.array2string(self._data, precision=4, threshold=100)
        return f"{table.to_html()}\n<pre>{values}</pre>"

    def __getstate__(self) -> tuple[None, dict[str, Any]]:
        # The memory for the next gradient may be part of a flat array, which a copy does not use.
        state = {name: getattr(self, name) for name in self.__slots__}
        return None, {**state, "_storage": None}

    # ---- for nnlite's own layers and optimizers ----

    @property
    def is_moving(self) -> bool:
        """Whether a step of an optimizer moves it: it has a gradient and is not frozen.

        :meta private:
        """
        return self._grad is not None and self._requires_grad

    def accumulate_product(self, left: Array, right: Array) -> None:
        """Add the matrix product ``left @ right`` to the gradient, reshaped to its shape.

        The first product after `zero_grad` is written directly into the gradient's memory.

        :meta private:
        """
        if not self._requires_grad:
            return
        if self._grad is None:
            storage = self._grad_storage()
            is_matrix = storage.ndim == 2 and len(storage) == len(left)
            matrix = storage if is_matrix else storage.reshape(len(left), -1)
            product(left, right, matrix)
            self._grad, changes.gradients = storage, object()
        else:
            self._grad += product(left, right).reshape(self.shape)

    def accumulate_sums(self, rows: Array) -> None:
        """Add the sum of each column of a matrix to the gradient, reshaped to its shape.

        :meta private:
        """
        if len(rows) == 1:
            self.accumulate(rows[0].reshape(self.shape))
        else:
            # A product with ones is faster than `sum`.
            self.accumulate_product(ones((1, len(rows)), rows.dtype), rows)

    def keep_in(self, data: Array | None = None, grad: Array | None = None) -> None:
        """Move the value to the memory of `data`, and the gradient to that of `grad`.

        Optimizers use it to store many parameters in one flat array. The arrays that held the value
        and the gradient before are not changed.

        :meta private:
        """
        if data is not None:
            data[...] = self._data
            self._data = data
            changes.attributes = object()
        if grad is not None:
            if self._grad is not None:
                grad[...] = self._grad
                self._grad, changes.gradients = grad, object()
            self._storage = grad

    def has_grad_outside(self, flat: Array) -> bool:
        """Whether there is a gradient that is no part of `flat`, where `keep_in` put it.

        :meta private:
        """
        return self._grad is not None and self._grad.base is not flat.base

    def _grad_storage(self) -> Array:
        """Memory for the next gradient: that of the last one, unless it has references left."""
        storage = self._storage
        if storage is None or is_held(storage):
            self._storage = storage = aligned(self._data.shape, self._data.dtype)
        return storage


def _aligned_copy(array: Array, dtype: np.dtype[Any]) -> Array:
    copy = aligned(array.shape, dtype)
    copy[...] = array
    return copy


def rooms_for_grads(parameters: Sequence[Parameter], others: Sequence[Array]) -> list[Array]:
    """Return memory to fill with the gradients, for `take_grads`.

    It is that of `others` for the parameters that have a gradient already, or are of another dtype.

    :meta private:
    """
    rooms = []
    for parameter, room in zip(parameters, others):  # noqa: B905 - quicker
        if parameter._grad is None and parameter._requires_grad:
            storage = parameter._storage
            if storage is None or is_held(storage):
                storage = parameter._grad_storage()
            if storage.dtype is room.dtype:
                room = storage
        rooms.append(room)
    return rooms


def take_grads(
    parameters: Sequence[Parameter], rooms: Sequence[Array], others: Sequence[Array]
) -> None:
    """Let the arrays that `rooms_for_grads` has returned be the gradients, or add to them.

    :meta private:
    """
    for parameter, room, other in zip(parameters, rooms, others):  # noqa: B905 - quicker
        if room is other:
            parameter.accumulate(room)
        else:
            parameter._grad = room
    changes.gradients = object()
