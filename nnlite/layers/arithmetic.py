"""Arithmetic as layers, to build formulas as a ``Graph``.

Operands broadcast as in NumPy and PyTorch, and may be scalars. The gradient of a broadcast operand
is summed over the axes along which it was repeated. In the formulas below, G is dL/dy and Σ is that
sum; without broadcasting, Σ G is G.

If one operand is float32 and another float64, the result is float32, so that a stray float64 does
not promote a float32 network. Outside the domain of an operation the result is inf or NaN, as in
NumPy and PyTorch; ``numpy.seterr`` decides whether NumPy ignores it, warns or raises.
"""

from __future__ import annotations

import functools
import itertools
import math
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike

from ..checks import as_floats, as_output_grad, boolean, floats_of_one_dtype, integer, number
from ..engine.arrays import Array
from ..engine.blas import stacked_product
from ..layer import Layer
from ..parameter import Parameter
from .elementwise import Elementwise

# ---- no operand ----


class Weight(Layer):
    """A parameter as a layer without inputs: ``y = w``.

    Parameters
    ----------
    data : array_like of float
        The initial value. A float64 array stays float64; Python numbers become float32.
    requires_grad : bool, default True
        False makes it a constant: it is saved and converted with the model, but never trained.

    Attributes
    ----------
    weight : Parameter of the shape of `data`

    Raises
    ------
    TypeError
        If `data` is not made of floats or Python numbers.

    Notes
    -----
    Shapes: y has the shape of `data`. The output is a copy, because an optimizer updates the
    parameter in place::

        dL/dw = G

    Examples
    --------
    Two steps of the recursion h(t) = w · h(t-1):

    >>> import nnlite as nn
    >>> recursion = nn.Graph({
    ...     "w": nn.Weight(2.0),
    ...     "h1": (nn.Multiply(), "w", "h0"),
    ...     "h2": (nn.Multiply(), "w", "h1"),
    ... }, inputs="h0")
    >>> float(recursion(0.5))
    2.0
    >>> float(recursion.backward())  # dh2/dh0 = w²
    4.0
    >>> float(recursion["w"].weight.grad)  # dh2/dw = h1 + w · h0
    2.0
    """

    weight: Parameter

    def __init__(self, data: ArrayLike, requires_grad: bool = True) -> None:
        value = np.asarray(data)
        if not isinstance(data, (np.ndarray, np.generic)) and value.dtype.kind in "fiu":
            value = value.astype(np.float32)
        if value.dtype.kind != "f":
            raise TypeError(f"Weight: expected an array of floats, got dtype {value.dtype}")
        self.weight = Parameter(value, boolean(requires_grad, "Weight: requires_grad"))

    def forward(self) -> Array:
        self.cache()
        return np.array(self.weight.data)

    def backward(self, grad: Array, input_grad: bool = True) -> None:
        self.cached()
        weight = self.weight
        weight.accumulate(as_output_grad(self, grad, weight.shape, weight.dtype))

    def __repr__(self) -> str:
        data = self.weight.data
        if data.size <= 6:
            # The fewest digits that read back as the same float.
            value = repr(np.reshape([float(str(x)) for x in data.flat], data.shape).tolist())
        else:
            value = f"numpy.zeros({data.shape})"
        return f"Weight({value}{'' if self.weight.requires_grad else ', requires_grad=False'})"


# ---- two or more operands ----


class Add(Layer):
    """Sum of two or more operands: ``y = a + b + …``.

    Raises
    ------
    ValueError
        If the shapes do not broadcast.
    TypeError
        If there are fewer than two operands, or one is not of floats.

    Notes
    -----
    Shapes: any that broadcast; y has the common shape. Every operand has the same gradient::

        dL/da = Σ G        dL/db = Σ G        …

    Without broadcasting, the gradients are the array G itself, not copies of it.

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> add = nn.Add()
    >>> add(np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([10.0, 20.0]))
    array([[11., 22.],
           [13., 24.]])
    >>> da, db = add.backward(np.ones((2, 2)))
    >>> db
    array([2., 2.])
    """

    def forward(self, *operands: ArrayLike) -> Array:
        arrays = _broadcastable(self, *operands)
        y = functools.reduce(np.add, arrays)
        self.cache([array.shape for array in arrays], y.shape, y.dtype)
        return y

    def backward(self, grad: Array, input_grad: bool = True) -> tuple[Array, ...] | None:
        shapes, shape, dtype = self.cached()
        grad = as_output_grad(self, grad, shape, dtype)
        return tuple(_summed_to(shape, grad) for shape in shapes) if input_grad else None


class Subtract(Layer):
    """Difference of two operands: ``y = a - b``.

    Raises
    ------
    ValueError
        If the shapes do not broadcast.
    TypeError
        If an operand is not of floats.

    Notes
    -----
    Shapes: any two that broadcast; y has the common shape::

        dL/da = Σ G        dL/db = -Σ G

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> subtract = nn.Subtract()
    >>> subtract(np.array([5.0, 7.0]), 4.0)
    array([1., 3.])
    >>> da, db = subtract.backward(np.array([1.0, 1.0]))
    >>> da, float(db)
    (array([1., 1.]), -2.0)
    """

    def forward(self, a: ArrayLike, b: ArrayLike) -> Array:
        a, b = _broadcastable(self, a, b)
        y = a - b
        self.cache(a.shape, b.shape, y.shape, y.dtype)
        return y

    def backward(self, grad: Array, input_grad: bool = True) -> tuple[Array, Array] | None:
        a_shape, b_shape, shape, dtype = self.cached()
        grad = as_output_grad(self, grad, shape, dtype)
        return (_summed_to(a_shape, grad), -_summed_to(b_shape, grad)) if input_grad else None


class Multiply(Layer):
    """Elementwise product of two or more operands: ``y = a · b · …``.

    Raises
    ------
    ValueError
        If the shapes do not broadcast.
    TypeError
        If there are fewer than two operands, or one is not of floats.

    Notes
    -----
    Shapes: any that broadcast; y has the common shape. The gradient of an operand is G times the
    product of the others. It is computed without a division, so operands may be zero::

        dL/da = Σ G · b · …        dL/db = Σ G · a · …

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> multiply = nn.Multiply()
    >>> multiply(np.array([1.0, 2.0]), np.array([3.0, 4.0]))
    array([3., 8.])
    >>> multiply.backward(np.array([1.0, 1.0]))
    (array([3., 4.]), array([1., 2.]))
    """

    def forward(self, *operands: ArrayLike) -> Array:
        arrays = _broadcastable(self, *operands)
        y = functools.reduce(np.multiply, arrays)
        self.cache(arrays, y.shape, y.dtype)
        return y

    def backward(self, grad: Array, input_grad: bool = True) -> tuple[Array, ...] | None:
        arrays, shape, dtype = self.cached()
        grad = as_output_grad(self, grad, shape, dtype)
        if not input_grad:
            return None
        # For each operand: G times all operands before it, and the product of all after it.
        before = list(itertools.accumulate(arrays[:-1], np.multiply, initial=grad))
        behind = list(itertools.accumulate(arrays[:0:-1], np.multiply))[::-1]
        products = [left * right for left, right in zip(before, behind, strict=False)]
        products.append(before[-1])
        return tuple(
            _summed_to(array.shape, product)
            for array, product in zip(arrays, products, strict=True)
        )


class Divide(Layer):
    """Elementwise quotient of two operands: ``y = a / b``.

    Raises
    ------
    ValueError
        If the shapes do not broadcast.
    TypeError
        If an operand is not of floats.

    Notes
    -----
    Shapes: any two that broadcast; y has the common shape. Division by zero gives ±inf or NaN::

        dL/da = Σ G / b        dL/db = -Σ G · y / b

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> divide = nn.Divide()
    >>> divide(np.array([3.0, 6.0]), np.array([4.0, 2.0]))
    array([0.75, 3.  ])
    >>> divide.backward(np.array([1.0, 1.0]))
    (array([0.25, 0.5 ]), array([-0.1875, -1.5   ]))
    """

    def forward(self, a: ArrayLike, b: ArrayLike) -> Array:
        a, b = _broadcastable(self, a, b)
        y = a / b
        self.cache(a.shape, b, y)
        return y

    def backward(self, grad: Array, input_grad: bool = True) -> tuple[Array, Array] | None:
        a_shape, b, y = self.cached()
        grad = as_output_grad(self, grad, y.shape, y.dtype)
        if not input_grad:
            return None
        quotient = grad / b
        return _summed_to(a_shape, quotient), -_summed_to(b.shape, quotient * y)


class _Extremum(Layer):
    """Base of `Maximum` and `Minimum`."""

    # `_select` picks one of two operands; `_loses` tells whether it is not the first.
    _select: ClassVar[np.ufunc]
    _loses: ClassVar[np.ufunc]

    def forward(self, a: ArrayLike, b: ArrayLike) -> Array:
        a, b = _broadcastable(self, a, b)
        y: Array = self._select(a, b)
        self.cache(a, b, y.shape)
        return y

    def backward(self, grad: Array, input_grad: bool = True) -> tuple[Array, Array] | None:
        a, b, shape = self.cached()
        grad = as_output_grad(self, grad, shape, a.dtype)
        if not input_grad:
            return None
        shared = np.where(a == b, grad / 2, grad)
        return (
            _summed_to(a.shape, np.where(self._loses(a, b), 0, shared)),
            _summed_to(b.shape, np.where(self._loses(b, a), 0, shared)),
        )


class Maximum(_Extremum):
    """Elementwise maximum of two operands: ``y = max(a, b)``.

    Raises
    ------
    ValueError
        If the shapes do not broadcast.
    TypeError
        If an operand is not of floats.

    Notes
    -----
    Shapes: any two that broadcast; y has the common shape. The gradient goes to the larger
    operand. Where both are equal there is no derivative, and each gets half, as in PyTorch::

        dL/da = Σ G · ([a > b] + ½ [a = b])        dL/db = Σ G · ([b > a] + ½ [a = b])

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> maximum = nn.Maximum()
    >>> maximum(np.array([1.0, 2.0, 3.0]), 2.0)
    array([2., 2., 3.])
    >>> da, db = maximum.backward(np.array([1.0, 1.0, 1.0]))
    >>> da, float(db)
    (array([0. , 0.5, 1. ]), 1.5)
    """

    _select = np.maximum
    _loses = np.less


class Minimum(_Extremum):
    """Elementwise minimum of two operands: ``y = min(a, b)``.

    Raises
    ------
    ValueError
        If the shapes do not broadcast.
    TypeError
        If an operand is not of floats.

    Notes
    -----
    Shapes: any two that broadcast; y has the common shape. The gradient goes to the smaller
    operand. Where both are equal there is no derivative, and each gets half, as in PyTorch::

        dL/da = Σ G · ([a < b] + ½ [a = b])        dL/db = Σ G · ([b < a] + ½ [a = b])

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> nn.Minimum()(np.array([1.0, 2.0, 3.0]), 2.0)
    array([1., 2., 2.])
    """

    _select = np.minimum
    _loses = np.greater


class MatMul(Layer):
    """Matrix product: ``y = A B``.

    Raises
    ------
    ValueError
        If the last axis of A differs from the second to last of B, the axes before these do not
        broadcast, or an operand is a scalar.
    TypeError
        If an operand is not of floats.

    Notes
    -----
    Shapes: A (…, n, k), B (…, k, m), y (…, n, m). The axes before the last two broadcast. As in
    NumPy and PyTorch, a vector A of shape (k,) is a row, a vector B of shape (k,) is a column, and
    y lacks that axis. Bᵀ and Aᵀ have their last two axes exchanged::

        dL/dA = Σ G Bᵀ        dL/dB = Σ Aᵀ G

    References
    ----------
    K. B. Petersen, M. S. Pedersen, "The Matrix Cookbook", 2012, section 2.5.

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> matmul = nn.MatMul()
    >>> matmul(np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([1.0, 10.0]))
    array([21., 43.])
    >>> matmul.backward(np.array([1.0, 1.0]))
    (array([[ 1., 10.],
           [ 1., 10.]]), array([4., 6.]))
    """

    def forward(self, a: ArrayLike, b: ArrayLike) -> Array:
        a, b = floats_of_one_dtype(self, a, b)
        try:
            y = stacked_product(a, b)
        except ValueError:
            raise ValueError(
                f"{self}: expected operands of shapes (..., n, k) and (..., k, m), "
                f"got {a.shape} and {b.shape}"
            ) from None
        # `backward` needs matrices: make a vector the row or the column that it stands for.
        left, right = np.atleast_2d(a), b if b.ndim > 1 else b[:, None]
        self.cache(left, right, a.shape, b.shape, y.shape)
        return y

    def backward(self, grad: Array, input_grad: bool = True) -> tuple[Array, Array] | None:
        left, right, a_shape, b_shape, shape = self.cached()
        grad = as_output_grad(self, grad, shape, left.dtype)
        if not input_grad:
            return None
        stack = np.broadcast_shapes(left.shape[:-2], right.shape[:-2])
        grad = grad.reshape(*stack, left.shape[-2], right.shape[-1])
        left_grad = _summed_to(left.shape, stacked_product(grad, right.swapaxes(-1, -2)))
        if right.ndim == 2:
            # One product over all rows of the stack, instead of one for each matrix and a sum.
            left = left.reshape(-1, left.shape[-1])
            grad = grad.reshape(-1, grad.shape[-1])
        right_grad = _summed_to(right.shape, stacked_product(left.swapaxes(-1, -2), grad))
        return left_grad.reshape(a_shape), right_grad.reshape(b_shape)

    def multiply_adds(
        self, input_shapes: tuple[tuple[int, ...], ...], output_shape: tuple[int, ...]
    ) -> int:
        return math.prod(output_shape) * input_shapes[0][-1]


# ---- one operand, element by element ----


class Negative(Elementwise):
    """Sign change: ``y = -x``.

    Notes
    -----
    Shapes: x and y alike, any::

        dL/dx = -G

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> nn.Negative()(np.array([1.0, -2.0]))
    array([-1.,  2.])
    """

    def value(self, x: Array) -> tuple[Array, None]:
        return -x, None

    def vjp(self, saved: None, grad: Array) -> Array:
        return -grad


class Abs(Elementwise):
    """Absolute value: ``y = |x|``.

    Notes
    -----
    Shapes: x and y alike, any. At x = 0 there is no derivative, and the gradient is 0, as in
    PyTorch. For NaN it is NaN::

        dL/dx = G · sign(x)

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> absolute = nn.Abs()
    >>> absolute(np.array([-2.0, 0.0, 3.0]))
    array([2., 0., 3.])
    >>> absolute.backward(np.array([1.0, 1.0, 1.0]))
    array([-1.,  0.,  1.])
    """

    def value(self, x: Array) -> tuple[Array, Array]:
        return np.abs(x), x

    def vjp(self, x: Array, grad: Array) -> Array:
        return grad * np.sign(x)


class Reciprocal(Elementwise):
    """Reciprocal: ``y = 1 / x``.

    Notes
    -----
    Shapes: x and y alike, any; 1 / ±0 is ±inf::

        dL/dx = -G · y²

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> reciprocal = nn.Reciprocal()
    >>> reciprocal(np.array([2.0, -4.0]))
    array([ 0.5 , -0.25])
    >>> reciprocal.backward(np.array([1.0, 1.0]))
    array([-0.25  , -0.0625])
    """

    def value(self, x: Array) -> tuple[Array, Array]:
        y = 1 / x
        return y, y

    def vjp(self, y: Array, grad: Array) -> Array:
        return -grad * (y * y)


class Square(Elementwise):
    """Square: ``y = x²``.

    Notes
    -----
    Shapes: x and y alike, any::

        dL/dx = 2 G · x

    Examples
    --------
    The squared L2 norm of a vector and its gradient:

    >>> import numpy as np
    >>> import nnlite as nn
    >>> norm = nn.Sequential(nn.Square(), nn.Sum())
    >>> float(norm(np.array([1.0, 5.0, 6.0])))
    62.0
    >>> norm.backward(np.array(1.0))
    array([ 2., 10., 12.])
    """

    def value(self, x: Array) -> tuple[Array, Array]:
        return x * x, x

    def vjp(self, x: Array, grad: Array) -> Array:
        return grad * (2 * x)


class Sqrt(Elementwise):
    """Square root: ``y = √x``.

    Notes
    -----
    Shapes: x and y alike, any. For x < 0, y is NaN; at x = 0 the derivative is inf::

        dL/dx = G / (2 y)

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> root = nn.Sqrt()
    >>> root(np.array([4.0, 9.0]))
    array([2., 3.])
    >>> root.backward(np.array([1.0, 3.0]))
    array([0.25, 0.5 ])
    """

    def value(self, x: Array) -> tuple[Array, Array]:
        y = np.sqrt(x)
        return y, y

    def vjp(self, y: Array, grad: Array) -> Array:
        return grad / (2 * y)


class Power(Elementwise):
    """Power with a fixed exponent: ``y = xᵖ``.

    If the exponent is an operand too and x > 0, use ``xᵖ = exp(p log x)``.

    Parameters
    ----------
    exponent : float
        The exponent p.

    Notes
    -----
    Shapes: x and y alike, any. A fractional power of a negative number is NaN; a negative power of
    0 is inf::

        dL/dx = G · p xᵖ⁻¹

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> cube = nn.Power(3)
    >>> cube(np.array([-1.0, 2.0]))
    array([-1.,  8.])
    >>> cube.backward(np.array([1.0, 1.0]))
    array([ 3., 12.])
    """

    exponent: float

    def __init__(self, exponent: float) -> None:
        self.exponent = number(exponent, "Power: exponent")

    def value(self, x: Array) -> tuple[Array, Array]:
        return x**self.exponent, x

    def vjp(self, x: Array, grad: Array) -> Array:
        if self.exponent == 0:
            # The formula would be 0 · inf at x = 0.
            return np.zeros_like(grad)
        return grad * np.multiply(self.exponent, x ** (self.exponent - 1))


class Exp(Elementwise):
    """Exponential function: ``y = eˣ``.

    Notes
    -----
    Shapes: x and y alike, any::

        dL/dx = G · y

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> exp = nn.Exp()
    >>> exp(np.array([0.0, 1.0]))
    array([1.        , 2.71828183])
    >>> exp.backward(np.array([1.0, 2.0]))
    array([1.        , 5.43656366])
    """

    def value(self, x: Array) -> tuple[Array, Array]:
        y = np.exp(x)
        return y, y

    def vjp(self, y: Array, grad: Array) -> Array:
        return grad * y


class Log(Elementwise):
    """Natural logarithm: ``y = log x``.

    Notes
    -----
    Shapes: x and y alike, any. The logarithm of 0 is -inf; the logarithm of a negative number is
    NaN::

        dL/dx = G / x

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> log = nn.Log()
    >>> log(np.array([1.0, np.e]))
    array([0., 1.])
    >>> log.backward(np.array([1.0, np.e]))
    array([1., 1.])
    """

    def value(self, x: Array) -> tuple[Array, Array]:
        return np.log(x), x

    def vjp(self, x: Array, grad: Array) -> Array:
        return grad / x


# ---- one operand, over axes ----


class _Reduction(Layer):
    """Base of `Sum` and `Mean`."""

    dim: int | tuple[int, ...] | None
    keepdim: bool

    def __init__(self, dim: int | tuple[int, ...] | None = None, keepdim: bool = False) -> None:
        name = type(self).__name__
        if isinstance(dim, (tuple, list)):
            self.dim = tuple(integer(axis, f"{name}: dim", -math.inf) for axis in dim)
            if not self.dim:
                raise ValueError(f"{name}: dim is empty; name an axis, or None for all of them")
        else:
            self.dim = None if dim is None else integer(dim, f"{name}: dim", -math.inf)
        self.keepdim = boolean(keepdim, f"{name}: keepdim")

    def _axes(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the axes to reduce, as non-negative numbers."""
        if self.dim is None:
            return tuple(range(len(shape)))
        dims = self.dim if isinstance(self.dim, tuple) else (self.dim,)
        axes = {dim + len(shape) if dim < 0 else dim for dim in dims}
        if len(axes) < len(dims) or not axes.issubset(range(len(shape))):
            raise ValueError(
                f"{self}: an input of shape {shape} has no axis {self.dim}"
                if len(dims) == 1
                else f"{self}: dim does not name different axes of an input of shape {shape}"
            )
        return tuple(axes)

    def _spread(self, grad: Array, shape: tuple[int, ...], axes: tuple[int, ...]) -> Array:
        """Return an array of `shape` with `grad` repeated along `axes`."""
        kept = [1 if axis in axes else size for axis, size in enumerate(shape)]
        return np.array(np.broadcast_to(grad.reshape(kept), shape), order="C")


class Sum(_Reduction):
    """Sum over all axes, or over the axes in `dim`: ``y = Σ_i x_i``.

    Parameters
    ----------
    dim : int or tuple of int, optional
        The axes to sum over; all if omitted.
    keepdim : bool, default False
        Whether to keep these axes, with size 1.

    Raises
    ------
    ValueError
        If the input has no such axis, or an axis is named twice.

    Notes
    -----
    Shapes: x any; y without the axes `dim`, a scalar by default. Every element gets the gradient
    of its sum::

        dL/dx_i = G

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> rows = nn.Sum(dim=1)
    >>> rows(np.array([[1.0, 2.0], [3.0, 4.0]]))
    array([3., 7.])
    >>> rows.backward(np.array([1.0, 10.0]))
    array([[ 1.,  1.],
           [10., 10.]])
    """

    def forward(self, x: ArrayLike) -> Array:
        x = as_floats(self, x)
        axes = self._axes(x.shape)
        y: Array = np.sum(x, axis=axes, keepdims=self.keepdim)
        self.cache(x.shape, axes, y.shape, y.dtype)
        return y

    def backward(self, grad: Array, input_grad: bool = True) -> Array | None:
        shape, axes, output_shape, dtype = self.cached()
        grad = as_output_grad(self, grad, output_shape, dtype)
        return self._spread(grad, shape, axes) if input_grad else None


class Mean(_Reduction):
    """Mean over all axes, or over the axes in `dim`: ``y = (1/n) Σ_i x_i``.

    Parameters
    ----------
    dim : int or tuple of int, optional
        The axes to average over; all if omitted.
    keepdim : bool, default False
        Whether to keep these axes, with size 1.

    Raises
    ------
    ValueError
        If the input has no such axis, or an axis is named twice.

    Notes
    -----
    Shapes: x any; y without the axes `dim`, a scalar by default. n is the number of elements in
    each mean::

        dL/dx_i = G / n

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> columns = nn.Mean(dim=0)
    >>> columns(np.array([[1.0, 2.0], [3.0, 4.0]]))
    array([2., 3.])
    >>> columns.backward(np.array([1.0, 10.0]))
    array([[0.5, 5. ],
           [0.5, 5. ]])
    """

    def forward(self, x: ArrayLike) -> Array:
        x = as_floats(self, x)
        axes = self._axes(x.shape)
        y: Array = np.mean(x, axis=axes, keepdims=self.keepdim)
        self.cache(x.shape, axes, y.shape, y.dtype)
        return y

    def backward(self, grad: Array, input_grad: bool = True) -> Array | None:
        shape, axes, output_shape, dtype = self.cached()
        grad = as_output_grad(self, grad, output_shape, dtype)
        count = math.prod(shape[axis] for axis in axes)
        return self._spread(grad / count, shape, axes) if input_grad else None


# ---- helpers ----


def _broadcastable(layer: Layer, *operands: ArrayLike) -> list[Array]:
    """Return two or more `operands` as arrays of one float dtype; check that they broadcast."""
    if len(operands) < 2:
        raise TypeError(f"{layer.label}: expected two operands or more, got {len(operands)}")
    arrays = floats_of_one_dtype(layer, *operands)
    if any(array.shape != arrays[0].shape for array in arrays):
        try:
            np.broadcast_shapes(*(array.shape for array in arrays))
        except ValueError:
            shapes = " and ".join(str(array.shape) for array in arrays)
            raise ValueError(
                f"{layer.label}: operands of shapes {shapes} do not broadcast; "
                f"counted from the last axis, sizes have to be equal or 1"
            ) from None
    return arrays


def _summed_to(shape: tuple[int, ...], grad: Array) -> Array:
    """Sum `grad` over the axes along which an operand of `shape` was broadcast."""
    if grad.shape == shape:
        return grad
    new = grad.ndim - len(shape)
    axes = [axis for axis in range(grad.ndim) if axis < new or shape[axis - new] == 1]
    total: Array = np.sum(grad, axis=tuple(axes))
    return total.reshape(shape)
