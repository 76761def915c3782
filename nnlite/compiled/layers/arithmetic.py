"""Arithmetic nodes, whose operands broadcast."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import nnlite as nn

from ..forms import form
from ..source import Code, FixedBatchError, Shape, Size, Value, nest, product

# For a number of operands, called a0, a1, …: the output, and dL/da of each of them.
Formulas = Callable[[int], tuple[str, list[str]]]


def _product(count: int) -> tuple[str, list[str]]:
    names = [f"a{index}" for index in range(count)]
    slopes = [" * ".join(["dy", *names[:i], *names[i + 1 :]]) for i in range(count)]
    return " * ".join(names), slopes


def _largest(is_larger: str) -> Formulas:
    """Return the formulas of `Maximum` for ">", and of `Minimum` for "<"."""

    def slope(a: str, b: str) -> str:
        return f"real(0) if {b} {is_larger} {a} else (dy / real(2) if a0 == a1 else dy)"

    value = f"a0 if a0 {is_larger} a1 or a0 != a0 else a1"
    return lambda count: (value, [slope("a0", "a1"), slope("a1", "a0")])


FORMULAS: dict[type, Formulas] = {
    nn.Add: lambda count: (" + ".join(f"a{i}" for i in range(count)), ["dy"] * count),
    nn.Subtract: lambda count: ("a0 - a1", ["dy", "-dy"]),
    nn.Multiply: _product,
    nn.Divide: lambda count: ("a0 / a1", ["dy / a1", "-dy * y / a1"]),
    nn.Maximum: _largest(">"),
    nn.Minimum: _largest("<"),
}


@form(*FORMULAS)
def pointwise(layer: nn.Layer, code: Code, *operands: Value) -> Any:
    """Write y[i] = f(a[i], b[i], …); an operand that is repeated gets the sum of the gradient."""
    value, slopes = FORMULAS[type(layer)](len(operands))
    names = {f"a{index}": operand for index, operand in enumerate(operands)}
    shape = broadcast(*[operand.shape for operand in operands])
    y = code.new(shape)
    code(_loop(shape, names | {"y": y}, f"y = {value}"))

    def backward(dy: Value) -> None:
        for operand, slope in zip(operands, slopes, strict=True):
            if not operand.needs_grad:
                continue
            with code.gradient(operand) as da:
                is_repeated = operand.shape != shape
                if is_repeated:
                    code(f"{da}[:] = 0")
                statement = f"da {'+=' if is_repeated else '='} {slope}"
                code(_loop(shape, names | {"y": y, "dy": dy, "da": da}, statement))

    return y, backward


def broadcast(*shapes: Shape) -> Shape:
    """Return the common shape, as NumPy has it."""
    rank = max(map(len, shapes))
    padded = [(1,) * (rank - len(shape)) + tuple(shape) for shape in shapes]
    common: list[Size] = []
    for sizes in zip(*padded, strict=True):
        larger = {size for size in sizes if size != 1}
        if len(larger) > 1:  # the check before the assembly has let this batch size pass
            raise FixedBatchError
        common.append(larger.pop() if larger else 1)
    return tuple(common)


def _loop(shape: Shape, arrays: dict[str, Value], statement: str) -> str:
    """Return loops over `shape` of a statement about elements of the arrays, by name."""
    is_flat = all(array.shape == shape for array in arrays.values())
    letters = ["i"] if is_flat else [f"i{axis}" for axis in range(len(shape))]
    sizes: dict[str, Size] = dict(zip(letters, [product(shape)] if is_flat else shape, strict=True))
    used = re.findall(r"\b(?:a\d+|y|dy|da)\b", statement)
    setup, elements = [], {}
    for name in dict.fromkeys(used):
        array = arrays[name]
        if is_flat:
            elements[name] = f"{array}[i]"
            continue
        rank = len(array.shape)
        index = [
            letter
            for letter, size in zip(letters[len(letters) - rank :], array.shape, strict=True)
            if size != 1
        ]
        sizes_of_view = [size for size in array.shape if size != 1]
        setup.append(f"{name} = {array.view(*sizes_of_view) if index else array}")
        elements[name] = f"{name}[{', '.join(index) or 0}]"
    body = re.sub(r"\b(?:a\d+|y|dy|da)\b", lambda match: elements[match[0]], statement)
    return "\n".join([*setup, nest({i: size for i, size in sizes.items() if size != 1}, body)])


@form(nn.Weight)
def weight(layer: nn.Weight, code: Code) -> Any:
    """Y = w."""
    w = code.parameter(layer.weight, "weight")
    y = code.new(layer.weight.shape)
    code(f"""
        values = {w}.reshape(-1)
        for i in range({y.size}):
            {y}[i] = values[i]
    """)

    def backward(dy: Value) -> None:
        with code.gradient(w) as dw:
            code(f"""
                values = {dw}.reshape(-1)
                for i in range({y.size}):
                    values[i] = {dy}[i]
            """)

    return y, backward


@form(nn.Sum, nn.Mean)
def reduction(layer: nn.Sum | nn.Mean, code: Code, x: Value) -> Any:
    """Y = Σ x over some axes, or their mean; dx = dy, repeated."""
    rank = len(x.shape)
    dims = layer.dim if isinstance(layer.dim, tuple) else (layer.dim,)
    axes = range(rank) if layer.dim is None else {dim % rank for dim in dims if dim is not None}
    kept = tuple(1 if axis in axes else size for axis, size in enumerate(x.shape))
    shape = kept
    if not layer.keepdim:
        shape = tuple(size for axis, size in enumerate(x.shape) if axis not in axes)
    count = product(tuple(x.shape[axis] for axis in axes))
    y = code.new(shape)
    code(f"{y}[:] = 0")
    code(_loop(x.shape, {"a0": x, "y": y.with_shape(kept)}, "y += a0"))
    is_mean = isinstance(layer, nn.Mean)
    if is_mean:
        code(f"{y} /= real({count})")

    def backward(dy: Value) -> None:
        slope = f"dy / real({count})" if is_mean else "dy"
        with code.gradient(x) as dx:
            code(_loop(x.shape, {"da": dx, "dy": dy.with_shape(kept)}, f"da = {slope}"))

    return y, backward


@form(nn.MatMul)
def matmul(layer: nn.MatMul, code: Code, a: Value, b: Value) -> Any:
    """Y = A B; dA = dY Bᵀ, dB = Aᵀ dY, summed over the stacks that broadcast."""
    a_shape = a.shape if len(a.shape) > 1 else (1, *a.shape)
    b_shape = b.shape if len(b.shape) > 1 else (*b.shape, 1)
    if a_shape[-1] != b_shape[-2]:  # there are as many columns as samples
        raise FixedBatchError
    stack = broadcast(a_shape[:-2], b_shape[:-2])
    rows, columns = a_shape[-2], b_shape[-1]
    shape = (
        *stack,
        *((rows,) if len(a.shape) > 1 else ()),
        *((columns,) if len(b.shape) > 1 else ()),
    )
    y = code.new(shape)
    letters = [f"i{axis}" for axis in range(len(stack))]
    sizes = dict(zip(letters, stack, strict=True))

    def matrix(name: str, own: Shape, *element: str) -> str:
        """Return the expression for the matrix of an operand, or its element, in the loops."""
        places = letters[len(letters) - (len(own) - 2) :] if len(own) > 2 else []
        index = ["0" if size == 1 else place for place, size in zip(places, own[:-2], strict=True)]
        index += element
        return f"{name}[{', '.join(index)}]" if index else name

    y_shape = (*stack, rows, columns)
    code(f"a, b, y = {a.view(*a_shape)}, {b.view(*b_shape)}, {y.view(*y_shape)}")
    left, right = matrix("a", a_shape), matrix("b", b_shape)
    code(nest(sizes, f"matmul({left}, {right}, {matrix('y', y_shape)})"))

    def backward(dy: Value) -> None:
        code(f"a, b, dy = {a.view(*a_shape)}, {b.view(*b_shape)}, {dy.view(*y_shape)}")
        grad = matrix("dy", y_shape)
        products = (f"dot_rows({grad}, {right}, part)", f"dot_columns({left}, {grad}, part)")
        for operand, own, part in zip((a, b), (a_shape, b_shape), products, strict=True):
            if operand.needs_grad:
                with code.gradient(operand) as total:
                    code(f"""
                        total, part = {total.view(*own)}, np.empty(({own[-2]}, {own[-1]}), real)
                        total[:] = 0
                    """)
                    add = f"{matrix('total', own, 'i', 'j')} += part[i, j]"
                    addition = nest({"i": own[-2], "j": own[-1]}, add)
                    code(nest(sizes, f"{part}\n{addition}"))

    return y, backward
