"""The layer for each operator of ONNX: a table of operators and of functions that add layers.

A function gets the `Node`. It adds layers to the graph and returns what the output stands for: a
`Value`, a `Constant` or `Filled`, or a tuple of these for several outputs.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import helper

import nnlite as nn

from . import functions
from .read import MOST, Constant, Filled, Node, Size, Value

Array = np.ndarray[Any, Any]
Reader = Callable[[Node], Any]

OPERATORS: dict[str, Reader] = {}


def operator(*names: str) -> Callable[[Reader], Reader]:
    """Enter a function into the table."""

    def enter(function: Reader) -> Reader:
        OPERATORS.update(dict.fromkeys(names, function))
        return function

    return enter


# ---- constants and shapes, which are computed here and now ----


def _quotient(a: Any, b: Any) -> Any:
    return np.divide(a, b) if np.result_type(a, b).kind == "f" else np.floor_divide(a, b)


def _range(start: Any, end: Any, step: Any) -> Any:
    if abs(end - start) > MOST * abs(step):
        raise ValueError("the range has too many numbers")
    return np.arange(start, end, step)


# Operators of constants that are computed when the file is read. Sizes of shapes that are not known
# are in arrays of objects, which the first can take.
_OF_SIZES: dict[str, Callable[..., Any]] = {
    "Add": np.add, "Div": _quotient, "Mod": np.mod, "Mul": np.multiply, "Sub": np.subtract,
}  # fmt: skip
_COMPARISONS: dict[str, Callable[..., Any]] = {
    "And": np.logical_and, "Equal": np.equal, "Greater": np.greater,
    "GreaterOrEqual": np.greater_equal, "Less": np.less, "LessOrEqual": np.less_equal,
    "Not": np.logical_not, "Or": np.logical_or,
}  # fmt: skip
_OF_NUMBERS: dict[str, Callable[..., Any]] = {
    **_OF_SIZES, **_COMPARISONS,
    "Abs": np.abs, "Cos": np.cos, "Exp": np.exp, "Log": np.log, "Max": np.maximum,
    "Min": np.minimum, "Neg": np.negative, "Pow": np.power, "Range": _range,
    "Reciprocal": np.reciprocal, "Sin": np.sin, "Sqrt": np.sqrt, "Where": np.where,
}  # fmt: skip


def folded(node: Node) -> Constant | None:
    """Return what a node computes of constants that are not trained, or None.

    A comparison has no gradient, so it may be of parameters: a buffer with a mask looks like one.
    """
    found = node.inputs() if all(map(node.has, range(len(node.names)))) else []
    if not found or not all(isinstance(each, Constant) for each in found):
        return None
    arrays = [each.array for each in found]
    has_sizes = any(array.dtype == object for array in arrays)
    if has_sizes and node.operator in ("Equal", "Where"):
        return _folded_sizes(node.operator, arrays)
    if any(each.trained for each in found) and node.operator not in _COMPARISONS:
        return None
    function = (_OF_SIZES if has_sizes else _OF_NUMBERS).get(node.operator)
    if (
        node.domain not in ("", "ai.onnx")
        or function is None
        or (node.operator in ("Max", "Min") and len(found) != 2)
    ):
        return None
    if (
        node.operator != "Range"
        and math.prod(np.broadcast_shapes(*(a.shape for a in arrays))) > MOST
    ):
        raise node.refusal("its output is too large for a constant")
    if node.operator == "Mod" and node.option("fmod", 0):
        function = np.fmod
    with np.errstate(all="ignore"):
        result = np.asarray(function(*arrays))
    # The dtype is that of ONNX, where NumPy has another for scalars.
    is_same = node.operator in _COMPARISONS or has_sizes
    return Constant(result if is_same else result.astype(arrays[-1].dtype, copy=False))


def _folded_sizes(operator: str, arrays: list[Array]) -> Constant:
    """Return where sizes are equal, or one of two; an unknown size is equal to itself alone."""
    function = np.equal if operator == "Equal" else np.where
    result = np.asarray(function(*arrays))
    return Constant(result.astype(np.bool_) if operator == "Equal" else result)


@operator("Constant")
def _constant(node: Node) -> Constant:
    for name, kind in (("value_float", np.float32), ("value_floats", np.float32)):
        if node.option(name) is not None:
            return Constant(np.asarray(node.option(name), kind))
    for name in ("value_int", "value_ints"):
        if node.option(name) is not None:
            return Constant(np.asarray(node.option(name), np.int64))
    if node.option("value") is None:
        raise node.refusal("it is not an array of numbers")
    return Constant(node.model.array(node.option("value")))


@operator("Shape")
def _shape(node: Node) -> Constant:
    name, sizes = node.names[0], node.shape(0)
    if sizes is None:
        raise node.refusal("the number of axes of its input is not known")
    found = [
        node.model.size(name, axis) if size is None else size for axis, size in enumerate(sizes)
    ]
    return Constant(np.array(found[node.option("start", 0) : node.option("end")], object))


@operator("ConstantOfShape")
def _constant_of_shape(node: Node) -> Constant | Filled:
    value = node.option("value")
    number = np.zeros((), np.float32) if value is None else node.model.array(value).reshape(())
    return _filled(number, node.array(0))


def _filled(number: Array, sizes: Array) -> Constant | Filled:
    """Return an array of one number: as it is, if its shape is known and not too large."""
    shape = tuple(sizes.reshape(-1).tolist())
    is_known = not any(isinstance(size, Size) for size in shape)
    if is_known and math.prod(shape) <= MOST:
        return Constant(np.full(shape, number))
    return Filled(float(number), shape)


@operator("Expand")
def _expand(node: Node) -> Any:
    found, target = node.input(0), node.array(1).reshape(-1)
    if isinstance(found, Value):
        return _repeated(node, found, target)
    if isinstance(found, Filled):
        if found.shape is None:
            return found
        return Filled(found.number, _broadcast(node, found.shape, target))
    array = found.array
    shape = _broadcast(node, array.shape, target)
    if shape == array.shape:
        return found
    if array.size and not found.trained and (array == array.flat[0]).all():
        return _filled(array.flat[0], np.array(shape, object))
    raise node.refusal("only a single number can be expanded")


def _repeated(node: Node, x: Value, target: Array) -> Value:
    """Return a value with axes of size 1 repeated: zeros are added that it is broadcast to."""
    shape = node.shape(0)
    if shape is None or len(target) > len(shape):
        raise node.refusal("nnlite has no layer for a value with more axes")
    sizes = []
    for axis, size in enumerate(target, start=len(shape) - len(target)):
        is_kept = size in (1, shape[axis], node.model.size(node.names[0], axis))
        if not is_kept and (isinstance(size, Size) or shape[axis] != 1):
            raise node.refusal("nnlite has no layer that repeats a value along the batch")
        sizes.append(1 if is_kept else size)
    if all(size == 1 for size in sizes):
        return x
    zeros = _filled(np.zeros((), np.float32), np.array(sizes, object))
    return node.add(nn.Add(), x, node.source(zeros))


def _broadcast(node: Node, shape: tuple[Any, ...], target: Array) -> tuple[Any, ...]:
    """Return the shape to which both are broadcast."""
    rank = max(len(shape), len(target))
    pairs = zip([1] * (rank - len(shape)) + [*shape], [1] * (rank - len(target)) + [*target],
                strict=True)  # fmt: skip
    return tuple(a if b == 1 else b for a, b in pairs)


# Layers compute in the last two; in a file of mixed precision they take the place of the first.
_FLOATS = (np.float16, np.float32, np.float64)


@operator("Cast")
def _cast(node: Node) -> Any:
    found = node.input(0)
    dtype = helper.tensor_dtype_to_np_dtype(node.option("to"))
    if isinstance(found, Constant):
        if found.array.dtype == object:
            return found
        return Constant(found.array.astype(dtype), found.trained)
    is_exact = dtype in _FLOATS or (dtype.kind == "i" and node.is_of_integers(0))
    if isinstance(found, Value) and not is_exact:
        raise node.refusal(f"nnlite has no layer that rounds to {dtype}")
    # Layers convert floats as they need them, and take any integers for indices.
    return found


@operator("Identity")
def _identity(node: Node) -> Any:
    found = node.input(0)
    return node.add(nn.Identity(), found) if isinstance(found, Value) else found


# ---- products ----


@operator("Gemm")
def _gemm(node: Node) -> Value:
    a, b = node.input(0), node.input(1)
    alpha, beta = node.option("alpha", 1.0), node.option("beta", 1.0)
    if node.option("transA", 0):
        a = _transposed(node, a)
    if not isinstance(b, Constant):
        b = _transposed(node, b) if node.option("transB", 0) else b
        product = node.add(nn.MatMul(), node.source(a), node.source(b))
        product = node.add(nn.Multiply(), product, alpha) if alpha != 1 else product
    else:
        weight = b if node.option("transB", 0) else node.model.transposed(b)
        product = _linear(node, a, _scaled(weight, alpha))
    if not node.has(2):
        return product
    c = node.input(2)
    if isinstance(c, Constant):
        return _plus(node, product, _scaled(c, beta))
    return node.add(nn.Add(), product, node.add(nn.Multiply(), c, beta) if beta != 1 else c)


def _transposed(node: Node, found: Any) -> Any:
    if isinstance(found, Constant):
        return node.model.transposed(found)
    return node.add(nn.Permute(1, 0), found)


def _scaled(constant: Constant, factor: float) -> Constant:
    return constant if factor == 1 else Constant(constant.array * factor, constant.trained)


def _linear(node: Node, x: Any, weight: Constant) -> Value:
    """Add a layer without bias; `weight` is (out_features, in_features)."""
    out_features, in_features = weight.array.shape
    layer = nn.Linear(in_features, out_features, bias=False, rng=0)
    layer.weight = node.model.parameter(weight)
    return node.add(layer, node.source(x))


def _plus(node: Node, product: Value, c: Constant) -> Value:
    """Add a constant, as the bias of the product if it is one."""
    layer = node.layer_of(product)
    if isinstance(layer, nn.Linear) and layer.bias is None and _is_row(c, layer.out_features):
        if c.array.shape != (layer.out_features,):
            row = np.broadcast_to(c.array.reshape(-1), (layer.out_features,))
            c = Constant(row.astype(layer.weight.dtype), c.trained)
        layer.bias = node.model.parameter(c)
        return product
    return node.add(nn.Add(), product, node.source(c))


def _is_row(c: Constant, size: int) -> bool:
    array = c.array
    return array.dtype.kind == "f" and array.size in (1, size) and array.shape[-1:] in (
        (), (1,), (size,)
    ) and array.ndim <= 2  # fmt: skip


@operator("MatMul")
def _matmul(node: Node) -> Value:
    a, b = node.input(0), node.input(1)
    if isinstance(b, Constant) and b.array.ndim == 2 and node.rank(0) > 1:
        return _linear(node, a, node.model.transposed(b))
    return node.add(nn.MatMul(), node.source(a), node.source(b))


@operator("Gather")
def _gather(node: Node) -> Any:
    data, indices, axis = node.input(0), node.input(1), node.option("axis", 0)
    if isinstance(data, Filled):
        return data
    if isinstance(indices, Constant):
        index = indices.array.astype(np.int64)
        if isinstance(data, Constant):
            return Constant(np.asarray(np.take(data.array, index, axis)), data.trained)
        if _is_only_direction(data, axis) and index.tolist() in (0, -1):
            return _without_direction(data, axis)
        return _taken(node, index, axis)
    if isinstance(data, Constant) and data.array.ndim == 2 and axis == 0:
        layer = nn.Embedding(*data.array.shape, rng=0)
        layer.weight = node.model.parameter(data)
        return node.add(layer, indices)
    raise node.refusal("indices that vary need a matrix that is in the file, and axis=0")


def _taken(node: Node, index: Array, axis: int) -> Value:
    """Return the parts of the first input at some indices along an axis."""
    if index.ndim == 0:
        return node.chain([_part(axis, int(index), int(index)), nn.Squeeze(axis)])
    x = node.source(node.input(0))
    flat = index.reshape(-1)
    # Indices that count upwards one by one, from the same end, are one part.
    starts = np.flatnonzero((np.diff(flat) != 1) | (flat[1:] == 0)) + 1
    parts = [
        node.add(_part(axis, int(run[0]), int(run[-1])), x).source for run in np.split(flat, starts)
    ]
    taken = node.add(nn.Concatenate(axis), *parts) if len(parts) > 1 else Value(parts[0])
    return taken if index.ndim == 1 else node.add(nn.Unflatten(axis, index.shape), taken)


def _part(axis: int, first: int, last: int) -> nn.Slice:
    """Return the layer that takes the items from `first` to `last`."""
    return nn.Slice(first, None if last == -1 else last + 1, dim=axis)


# ---- elementwise ----


def _without_options(layer: type[nn.Layer]) -> Reader:
    """Return the function for an operator of one input that is a layer without arguments."""
    return lambda node: node.add(layer(), node.source(node.input(0)))


for _name, _layer in {
    "Abs": nn.Abs,
    "Exp": nn.Exp,
    "HardSwish": nn.Hardswish,
    "Log": nn.Log,
    "Mish": nn.Mish,
    "Neg": nn.Negative,
    "Reciprocal": nn.Reciprocal,
    "Relu": nn.ReLU,
    "Sigmoid": nn.Sigmoid,
    "Softplus": nn.Softplus,
    "Softsign": nn.Softsign,
    "Sqrt": nn.Sqrt,
    "Tanh": nn.Tanh,
}.items():
    OPERATORS[_name] = _without_options(_layer)


@operator("Erf")
def _erf(node: Node) -> Value:
    return node.function(functions.Erf())


@operator("LeakyRelu")
def _leaky_relu(node: Node) -> Value:
    return node.add(nn.LeakyReLU(_float(node.option("alpha", 0.01))), node.source(node.input(0)))


@operator("Elu")
def _elu(node: Node) -> Value:
    return node.add(nn.ELU(_float(node.option("alpha", 1.0))), node.source(node.input(0)))


@operator("Selu")
def _selu(node: Node) -> Value:
    if any(node.option(name) is not None for name in ("alpha", "gamma")):
        raise node.refusal("nnlite has no alpha or gamma but those of the operator")
    return node.add(nn.SELU(), node.source(node.input(0)))


@operator("HardSigmoid")
def _hardsigmoid(node: Node) -> Value:
    if node.option("beta", 0.5) != 0.5 or _float(node.option("alpha", 0.2)) != _float(1 / 6):
        raise node.refusal("nnlite has alpha=1/6 and beta=1/2 only")
    return node.add(nn.Hardsigmoid(), node.source(node.input(0)))


@operator("Clip")
def _clip(node: Node) -> Value:
    low, high = (_bound(node, index, name) for index, name in ((1, "min"), (2, "max")))
    x = node.source(node.input(0))
    if low is None:
        return node.add(nn.Identity(), x) if high is None else node.add(nn.Minimum(), x, high)
    if high is None:
        return node.add(nn.ReLU(), x) if low == 0 else node.add(nn.Maximum(), x, low)
    return node.add(nn.ReLU6() if (low, high) == (0, 6) else nn.Hardtanh(low, high), x)


def _bound(node: Node, index: int, name: str) -> float | None:
    """Return a bound of a Clip: an attribute before opset 11, an input from there on."""
    found = node.array(index).item() if node.has(index) else node.option(name)
    return None if found is None or not math.isfinite(found) else _float(found)


@operator("PRelu")
def _prelu(node: Node) -> Value:
    slope = node.constant(1)
    shape, size = slope.array.shape, slope.array.size
    if size > 1 and shape != (size, *[1] * (node.rank(0) - 2)):
        raise node.refusal(f"slopes of shape {shape} are not one for each channel")
    if slope.array.ndim != 1:
        slope = Constant(slope.array.reshape(-1), slope.trained)
    layer = nn.PReLU(size)
    layer.weight = node.model.parameter(slope)
    return node.add(layer, node.source(node.input(0)))


@operator("Gelu")
def _gelu(node: Node) -> Value:
    return node.add(nn.GELU(node.option("approximate", "none")), node.source(node.input(0)))


def _float(value: float) -> float:
    """Return an attribute, which is of float32, as the shortest number that it can have been."""
    return float(str(np.float32(value)))


@operator("Add", "Sum")
def _add(node: Node) -> Any:
    found = node.inputs()
    if len(found) == 1:
        return found[0]
    if len(found) == 2:
        value, other = found if isinstance(found[0], Value) else found[::-1]
        if isinstance(other, Constant) and _is_used_once(node, value):
            return _plus(node, value, other)
    return node.add(nn.Add(), *map(node.source, found))


def _is_used_once(node: Node, value: Value) -> bool:
    """Whether this node alone uses a value of its inputs."""
    name = next(name for name in node.names if node.model.values.get(name) is value)
    return node.model.uses[name] == 1


@operator("Sub")
def _subtract(node: Node) -> Any:
    return node.add(nn.Subtract(), *map(node.source, node.inputs()))


@operator("Mul")
def _multiply(node: Node) -> Any:
    found = node.inputs()
    for x, gate in (found, found[::-1]):
        is_gate = isinstance(node.layer_of(gate), nn.Sigmoid) and _is_used_once(node, gate)
        if is_gate and isinstance(x, Value) and node.arguments_of(gate) == (x.source,):
            node.remove(gate)
            return node.add(nn.SiLU(), x)
    source = _source_of_gelu(node, [*map(node.source, found)])
    if source is not None:
        return node.add(nn.GELU(), source)
    return node.add(nn.Multiply(), *map(node.source, found))


def _source_of_gelu(node: Node, factors: list[str | float]) -> str | None:
    """Return x if the product of `factors` is x (1 + erf(x / √2)) / 2, as many exporters write it.

    Values that only this formula uses are left out of the model, since no output depends on them.
    """
    layers = node.model.layers
    sources, number = [], 1.0
    while factors:
        factor = factors.pop()
        if isinstance(factor, float):
            number *= factor
        elif isinstance(next(iter(layers.get(factor, ())), None), nn.Multiply):
            factors += layers[factor][1:]
        else:
            sources.append(factor)
    if len(sources) != 2 or not math.isclose(number, 0.5, rel_tol=1e-6):
        return None
    for x, other in (sources, sources[::-1]):
        if _is_one_plus_erf(layers, other, x):
            return x
    return None


def _is_one_plus_erf(layers: dict[str, tuple[Any, ...]], name: str, x: str) -> bool:
    """Whether a value is 1 + erf(x / √2)."""
    layer, *terms = layers.get(name) or (None,)
    if not isinstance(layer, nn.Add) or 1.0 not in terms or len(terms) != 2:
        return False
    erf, *arguments = layers.get(str(terms[terms[0] == 1.0])) or (None,)
    if not isinstance(erf, nn.Lambda) or not isinstance(erf.function, functions.Erf):
        return False
    scaling, *scaled = layers.get(str(arguments[0])) or (None,)
    if x not in scaled or len(scaled) != 2:
        return False
    factor = scaled[scaled[0] == x]
    wanted = {nn.Divide: math.sqrt(2), nn.Multiply: math.sqrt(0.5)}.get(type(scaling), math.nan)
    return isinstance(factor, float) and math.isclose(factor, wanted, rel_tol=1e-6)


@operator("Div")
def _divide(node: Node) -> Any:
    found = node.inputs()
    softplus = _scaled_softplus(node, *found)
    return softplus or node.add(nn.Divide(), *map(node.source, found))


def _scaled_softplus(node: Node, value: Any, beta: Any) -> Value | None:
    """Return log(1 + exp(beta x)) / beta as one layer."""
    if not isinstance(beta, Constant) or beta.trained or beta.array.ndim:
        return None
    if not isinstance(node.layer_of(value), nn.Softplus) or not _is_used_once(node, value):
        return None
    (source,) = node.arguments_of(value)
    scaled = node.model.layers[source]
    factor = float(beta.array)
    if not scaled or not isinstance(scaled[0], nn.Multiply) or scaled[2:] != (factor,):
        return None
    node.remove(value)
    return node.add(nn.Softplus(_float(factor)), scaled[1])


@dataclass(frozen=True)
class _Above:
    """Where a value is above a number."""

    value: Value
    number: float


@operator("Greater")
def _greater(node: Node) -> _Above:
    value, number = node.inputs()
    if isinstance(value, Value) and isinstance(number, Constant) and not number.array.ndim:
        return _Above(value, float(number.array))
    raise node.refusal("it compares other things than a value with a number")


@dataclass(frozen=True)
class _IsNaN:
    """Where a value is not a number."""

    value: Value


@operator("IsNaN")
def _is_nan(node: Node) -> _IsNaN:
    value = node.input(0)
    if isinstance(value, Value):
        return _IsNaN(value)
    raise node.refusal("it is of other things than a value")


@operator("Where")
def _where(node: Node) -> Value:
    condition, x, value = node.inputs()
    if isinstance(condition, Constant):
        return _chosen(node, condition.array.astype(np.bool_), x, value)
    layer = node.layer_of(value)
    if isinstance(condition, _Above) and isinstance(layer, nn.Softplus):
        # A Softplus with its threshold: x where beta x is above it.
        scaled = node.model.layers[condition.value.source]
        is_same = node.arguments_of(value) == (node.source(x),)
        is_scaled = layer.beta == 1 or scaled[1:] == (node.source(x), layer.beta)
        if is_same and is_scaled and _is_used_once(node, value):
            layer.threshold = _float(condition.number)
            return value
    if isinstance(condition, _IsNaN) and condition.value == value and _reads_something(node, value):
        return value
    raise node.refusal("nnlite has no layer for a condition that is not in the file")


def _chosen(node: Node, condition: Array, x: Any, value: Any) -> Value:
    """Return x where a constant is true, and the other value elsewhere."""
    if isinstance(value, Constant) and not isinstance(x, Constant):
        condition, x, value = ~condition, value, x
    if isinstance(x, Constant) and x.array.dtype.kind == "f" and (x.array == -math.inf).all():
        mask = np.where(condition, np.float32(-math.inf), np.float32(0))
        return node.add(nn.Add(), node.source(value), node.source(Constant(mask)))
    parts = []
    for part, given in ((condition, x), (~condition, value)):
        if isinstance(given, Constant) and not np.isfinite(given.array).all():
            raise node.refusal("it takes infinite numbers from a constant")
        factor = Constant(part.astype(np.float32))
        parts.append(node.add(nn.Multiply(), node.source(given), node.source(factor)))
    return node.add(nn.Add(), *parts)


def _reads_something(node: Node, value: Any) -> bool:
    """Whether a value is a softmax of scores of which a mask leaves some in every row."""
    if not isinstance(node.layer_of(value), nn.Softmax):
        return False
    scores = node.model.layers[str(node.arguments_of(value)[0])]
    if not scores or not isinstance(scores[0], nn.Add):
        return False
    weights = [node.model.layers[each.partition(".")[0]][:1] for each in map(str, scores[1:])]
    masks = [layer.weight for (layer,) in filter(None, weights) if isinstance(layer, nn.Weight)]
    return any(np.isfinite(mask.data).any(axis=-1).all() for mask in masks)


@operator("Trilu")
def _trilu(node: Node) -> Constant:
    found = node.constant(0)
    place = int(node.array(1).reshape(())) if node.has(1) else 0
    triangle = np.triu if node.option("upper", 1) else np.tril
    return Constant(triangle(found.array, place))


@operator("Max")
def _maximum(node: Node) -> Any:
    return _pairwise(node, nn.Maximum)


@operator("Min")
def _minimum(node: Node) -> Any:
    return _pairwise(node, nn.Minimum)


def _pairwise(node: Node, layer: type[nn.Layer]) -> Any:
    result, *others = node.inputs()
    for other in others:
        result = node.add(layer(), node.source(result), node.source(other))
    return result


@operator("Pow")
def _power(node: Node) -> Value:
    exponent = node.array(1)
    if exponent.size != 1:
        raise node.refusal("the exponent must be a single number")
    return node.add(nn.Power(float(exponent.reshape(()))), node.source(node.input(0)))


@operator("Dropout")
def _dropout(node: Node) -> Value:
    ratio = node.option("ratio", 0.5)
    if node.has(1):
        ratio = float(node.array(1).reshape(()))
    if node.has(2) and bool(node.array(2).reshape(())):
        raise node.refusal(
            "training_mode is on, but a file should compute what the trained model does"
        )
    return node.add(nn.Dropout(_float(ratio)), node.source(node.input(0)))


@operator("Softmax")
def _softmax(node: Node) -> Value:
    return node.add(nn.Softmax(_softmax_axis(node)), node.source(node.input(0)))


@operator("LogSoftmax")
def _log_softmax(node: Node) -> Value:
    return node.add(nn.LogSoftmax(_softmax_axis(node)), node.source(node.input(0)))


def _softmax_axis(node: Node) -> int:
    axis = node.option("axis", -1 if node.opset >= 13 else 1)
    if node.opset < 13 and axis not in (-1, node.rank(0) - 1):
        raise node.refusal(f"before opset 13, axis={axis} stands for all axes from there on")
    return int(axis)


# ---- over axes ----


@operator("ReduceSum")
def _reduce_sum(node: Node) -> Any:
    return _reduction(node, nn.Sum)


# Norms: a function of each number, before the sum, and one of the sum.
_NORMS: dict[str, tuple[type[nn.Layer], type[nn.Layer] | None]] = {
    "ReduceL1": (nn.Abs, None),
    "ReduceL2": (nn.Square, nn.Sqrt),
    "ReduceSumSquare": (nn.Square, None),
}


@operator("ReduceL1", "ReduceL2", "ReduceSumSquare")
def _reduce_norm(node: Node) -> Value:
    axes = node.integers(1, "axes")
    if not axes and node.option("noop_with_empty_axes", 0):
        raise node.refusal("it has no axes")
    before, after = _NORMS[node.operator]
    dim = tuple(axes) if axes else None
    layers = [before(), nn.Sum(dim, bool(node.option("keepdims", 1)))]
    return node.chain([*layers, after()] if after else layers)


@operator("ReduceMean")
def _reduce_mean(node: Node) -> Any:
    if _is_over_image(node):
        pooled = node.add(nn.GlobalAvgPool2d(), node.source(node.input(0)))
        return Value(pooled.source, ones=2 if node.option("keepdims", 1) else 0)
    return _reduction(node, nn.Mean)


@operator("ReduceMax")
def _reduce_max(node: Node) -> Any:
    keepdims = bool(node.option("keepdims", 1))
    if not _is_over_image(node):
        axes = node.integers(1, "axes")
        if not axes and node.option("noop_with_empty_axes", 0):
            return node.input(0)
        return node.function(functions.Max(tuple(axes) if axes else None, keepdims))
    pooled = node.add(nn.GlobalMaxPool2d(), node.source(node.input(0)))
    return Value(pooled.source, ones=2 if keepdims else 0)


def _is_over_image(node: Node) -> bool:
    axes = node.integers(1, "axes")
    sizes = node.shape(0)
    if axes is None or sizes is None or len(sizes) != 4:
        return False
    return sorted(axis % 4 for axis in axes) == [2, 3]


def _reduction(node: Node, layer: type[nn.Sum] | type[nn.Mean]) -> Any:
    axes = node.integers(1, "axes")
    if not axes and node.option("noop_with_empty_axes", 0):
        return node.input(0)
    dim = None if not axes else axes[0] if len(axes) == 1 else tuple(axes)
    keepdim = bool(node.option("keepdims", 1))
    return node.add(layer(dim, keepdim), node.source(node.input(0)))


@operator("GlobalAveragePool")
def _global_average(node: Node) -> Value:
    rank = node.rank(0)
    if rank == 4:
        return Value(node.add(nn.GlobalAvgPool2d(), node.source(node.input(0))).source, ones=2)
    return node.add(nn.Mean(tuple(range(2, rank)), keepdim=True), node.source(node.input(0)))


@operator("GlobalMaxPool")
def _global_max(node: Node) -> Value:
    rank = node.rank(0)
    if rank != 4:
        return node.function(functions.Max(tuple(range(2, rank)), keepdims=True))
    return Value(node.add(nn.GlobalMaxPool2d(), node.source(node.input(0))).source, ones=2)


# ---- axes and shapes ----


@operator("Flatten")
def _flatten(node: Node) -> Value:
    x, axis, rank = node.input(0), node.option("axis", 1), node.rank(0)
    axis += rank if axis < 0 else 0
    if axis == 1 and isinstance(x, Value):
        return Value(x.source) if _is_vector_of_ones(x) else node.add(nn.Flatten(), x)
    rest = rank - axis
    if axis == 0:
        return node.chain([nn.Flatten(0), nn.Unsqueeze(0)])
    layers = [nn.Flatten(0, axis - 1), nn.Flatten() if rest else nn.Unsqueeze(1)]
    return node.chain(layers)


def _is_vector_of_ones(x: Value) -> bool:
    """Whether a value is a row of features, but for axes of size 1 at the end."""
    return x == Value(x.source, ones=x.ones) and x.ones > 0


@operator("Reshape")
def _reshape(node: Node) -> Any:
    x = node.input(0)
    if isinstance(x, Filled):
        return x
    target = node.array(1).reshape(-1).tolist()
    if 0 in target and node.option("allowzero", 0):
        raise node.refusal("nnlite has no empty arrays")
    if isinstance(x, Constant):
        sizes = [x.array.shape[axis] if size == 0 else size for axis, size in enumerate(target)]
        return Constant(x.array.reshape(sizes), x.trained)
    before = node.shape(0)
    if before is None:
        raise node.refusal("the number of axes of its input is not known")
    kept = [
        size in (0, node.model.size(node.names[0], axis), *before[axis : axis + 1])
        for axis, size in enumerate(target)
    ]
    if x.directions and _merges_directions(x, len(before), target, kept):
        return Value(x.source, axes=x.axes[:-1])
    sizes = [
        before[axis] if axis and size == 0 and axis < len(before) else size
        for axis, size in enumerate(target)
    ]
    if sum(isinstance(size, Size) or size is None for size in sizes[1:]) + sizes[1:].count(-1) > 1:
        raise node.refusal("more than one size of a sample is unknown")
    sizes = [-1 if axis and (isinstance(size, Size) or size is None) else size
             for axis, size in enumerate(sizes)]  # fmt: skip
    sample = None if None in before[1:] else math.prod(before[1:])
    keeps_batch = kept[:1] == [True] or (
        sizes[:1] == [-1] and before[:1] == [None] and _is_as_large(node, before, target)
    )
    if keeps_batch and len(sizes) > 1:
        return _reshaped_samples(node, x, before, sizes[1:], sample)
    return _regrouped(node, before, target)


def _is_as_large(node: Node, before: list[Any], target: list[Any]) -> bool:
    """Whether a sample is as large as before, or may be, as far as its size is known."""
    name = node.names[0]
    shape = [node.model.size(name, axis) if size is None else size
             for axis, size in enumerate(before)]  # fmt: skip
    goal = [shape[axis] if size == 0 else size for axis, size in enumerate(target)][1:]
    unknown = [size for size in shape[1:] if isinstance(size, Size)]
    others = [size for size in goal if isinstance(size, Size)]
    if -1 in goal or Counter(unknown) != Counter(others):
        return None in before[1:]
    old, new = (math.prod(size for size in sizes if isinstance(size, int))
                for sizes in (shape[1:], goal))  # fmt: skip
    return old == new


def _regrouped(node: Node, before: list[Any], target: list[Any]) -> Value:
    """Return the input with some axes merged or split, the first of them included."""
    name = node.names[0]
    shape = [node.model.size(name, axis) if size is None else size
             for axis, size in enumerate(before)]  # fmt: skip
    goal = [shape[axis] if size == 0 else size for axis, size in enumerate(target)]
    if not goal:
        return node.chain([nn.Flatten(0) if shape else nn.Unsqueeze(0), nn.Squeeze(0)])
    # Equal sizes at both ends stay as they are; what is between them becomes one axis, or several.
    start = 0
    while start < min(len(shape), len(goal)) and shape[start] == goal[start]:
        start += 1
    end = 0
    while end < min(len(shape), len(goal)) - start and shape[-1 - end] == goal[-1 - end]:
        end += 1
    old, new = shape[start : len(shape) - end], goal[start : len(goal) - end]
    sizes = tuple(size if isinstance(size, int) else -1 for size in new)
    if sizes.count(-1) > 1:
        raise node.refusal("it moves the batch axis, and more than one size is unknown")
    layers: list[nn.Layer] = []
    if not old:
        layers += [nn.Unsqueeze(start)]
    elif len(old) > 1:
        layers += [nn.Flatten(start, start + len(old) - 1)]
    if not new:
        layers += [nn.Squeeze(start)]
    elif len(new) > 1:
        layers += [nn.Unflatten(start, sizes)]
    return node.chain(layers)


def _merges_directions(x: Value, rank: int, target: list[Any], kept: list[bool]) -> bool:
    """Whether the target merges the two directions of a recurrent layer, side by side again."""
    if x.axes is None or len(target) != rank - 1 or x.axes[-2:] != (rank - 2, rank - 1):
        return False
    return all(kept[:-1])


def _reshaped_samples(
    node: Node, x: Value, before: list[Any], sizes: list[Any], sample: int | None
) -> Value:
    if sizes == before[1:]:
        return x
    if len(sizes) == 1 and (sizes == [-1] or sizes == [sample]):
        if _is_vector_of_ones(x):
            return Value(x.source)
        return x if len(before) == 2 else node.add(nn.Flatten(), x)
    return node.add(nn.Reshape(*sizes), x)


@operator("Transpose")
def _transpose(node: Node) -> Any:
    x = node.input(0)
    if isinstance(x, Filled):
        return x
    if isinstance(x, Constant):
        order = node.option("perm") or list(range(x.array.ndim))[::-1]
        if order == [1, 0]:
            return node.model.transposed(x)
        return Constant(x.array.transpose(order), x.trained)
    order = node.option("perm") or list(range(node.rank(0)))[::-1]
    axes = x.axes if x.axes is not None else tuple(range(len(order)))
    if x.ones or len(axes) != len(order):
        return node.chain([nn.Permute(*order)])
    return Value(x.source, x.directions, tuple(axes[axis] for axis in order))


def _is_only_direction(x: Value, axis: int) -> bool:
    """Whether an axis of size 1 is that of the directions of a recurrent layer."""
    return x.directions == 1 and x.axes is not None and x.axes[axis] == len(x.axes) - 2


def _without_direction(x: Value, axis: int) -> Value:
    """Return the value without the axis of the directions, of which there is one."""
    assert x.axes is not None
    last = len(x.axes) - 1
    left = [each for place, each in enumerate(x.axes) if place != axis % (last + 1)]
    return Value(x.source, axes=tuple(last - 1 if each == last else each for each in left))


@operator("Squeeze")
def _squeeze(node: Node) -> Any:
    x, axes = node.input(0), node.integers(1, "axes")
    if isinstance(x, Filled):
        return x
    chosen = None if axes is None else tuple(axes)
    if isinstance(x, Constant):
        return Constant(np.squeeze(x.array, chosen), x.trained)
    if axes is not None and len(axes) == 1 and _is_only_direction(x, axes[0]):
        return _without_direction(x, axes[0])
    if axes is not None and _is_vector_of_ones(x):
        rank = 2 + x.ones
        if sorted(axis % rank for axis in axes) == list(range(2, rank)):
            return Value(x.source)
    if axes is None:
        sizes = node.shape(0)
        if sizes is None:
            raise node.refusal("the number of axes of its input is not known")
        axes = [axis for axis, size in enumerate(sizes) if size == 1]
    return node.chain(nn.Squeeze(axis) for axis in reversed(_places(node, axes)))


def _places(node: Node, axes: list[int], more: int = 0) -> list[int]:
    """Return axes counted from the start and sorted; their input has `more` axes."""
    rank = node.rank(0) + more if min(axes, default=0) < 0 else 1 + max(axes, default=0)
    return sorted(axis % rank for axis in axes)


@operator("Unsqueeze")
def _unsqueeze(node: Node) -> Any:
    x, axes = node.input(0), node.integers(1, "axes")
    if isinstance(x, Filled) or axes is None:
        return x
    if isinstance(x, Constant):
        return Constant(np.expand_dims(x.array, axes), x.trained)
    return node.chain(nn.Unsqueeze(axis) for axis in _places(node, axes, len(axes)))


@operator("Concat")
def _concat(node: Node) -> Any:
    found, axis = node.inputs(), node.option("axis", 0)
    if not all(isinstance(each, Constant) for each in found):
        return _stacked(node, found, axis) or node.add(
            nn.Concatenate(axis), *map(node.source, found)
        )
    array = np.concatenate([each.array for each in found], axis)
    return Constant(array, any(each.trained for each in found))


def _stacked(node: Node, found: list[Any], axis: int) -> Value | None:
    """Return values along a new axis as one layer, if each has got that axis for it."""
    for each in found:
        layer = node.layer_of(each)
        if not isinstance(layer, nn.Unsqueeze) or layer.dim != axis:
            return None
        if not _is_used_once(node, each):
            return None
    sources = [node.arguments_of(each)[0] for each in found]
    for each in found:
        node.remove(each)
    return node.add(nn.Stack(axis), *sources)


@operator("Split")
def _split(node: Node) -> Any:
    x, axis, sizes = node.input(0), node.option("axis", 0), node.integers(1, "split")
    if sizes is None:
        shape, parts = node.shape(0), node.outputs
        if shape is None or not isinstance(shape[axis], int):
            raise node.refusal("the size of the axis that it splits is not known")
        size = -(-shape[axis] // parts)
        sizes = [size] * (parts - 1) + [shape[axis] - size * (parts - 1)]
    if isinstance(x, Constant):
        arrays = np.split(x.array, np.cumsum(sizes)[:-1], axis)
        return tuple(Constant(array, x.trained) for array in arrays)
    is_even = len(set(sizes[:-1])) == 1 and 0 < sizes[-1] <= sizes[0]
    split = node.chain([nn.Split(sizes[0] if is_even else tuple(sizes), axis)])
    return tuple(Value(f"{split.source}.{place}") for place in range(len(sizes)))


@operator("Slice")
def _slice(node: Node) -> Any:
    x = node.input(0)
    if isinstance(x, Filled):
        return x
    starts, ends = node.integers(1, "starts"), node.integers(2, "ends")
    if starts is None or ends is None:
        raise node.refusal("starts or ends are missing")
    axes = node.integers(3, "axes") or list(range(len(starts)))
    steps = node.integers(4, "steps") or [1] * len(starts)
    # An end far outside of the axis stands for all that is left.
    slices = {
        axis: slice(
            None if start == 0 and step > 0 else start,
            None if (end if step > 0 else -end) > _FAR else end,
            step,
        )
        for axis, start, end, step in zip(axes, starts, ends, steps, strict=True)
    }
    if isinstance(x, Constant):
        return Constant(functions.Slice(slices)(x.array), x.trained)
    if min(steps) < 0:
        return node.function(functions.Slice(slices))
    return node.chain(
        nn.Slice(part.start, part.stop, part.step, dim=axis) for axis, part in slices.items()
    )


_FAR = 1 << 30


# ---- normalisation ----


@operator("BatchNormalization")
def _batch_normalization(node: Node) -> Value:
    if node.option("training_mode", 0):
        raise node.refusal(
            "training_mode is on, but a file should compute what the trained model does"
        )
    scale, shift, mean, variance = (node.constant(index) for index in range(1, 5))
    kinds = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d}
    rank = node.rank(0)
    if rank not in kinds:
        raise node.refusal(f"nnlite has it for 2 to 4 axes, this input has {rank}")
    affine, has_bias = not _is_neutral(scale, shift), _has_bias(shift)
    momentum = _float(1 - _float(node.option("momentum", 0.9)))
    layer = kinds[rank](
        scale.array.size, _float(node.option("epsilon", 1e-5)), momentum, affine, bias=has_bias
    )
    if affine:
        layer.weight = node.model.parameter(scale)
        layer.bias = node.model.parameter(shift) if has_bias else None
    layer.astype(scale.array.dtype if scale.array.dtype == np.float64 else np.float32)
    layer.load_state_dict({"running_mean": mean.array, "running_var": variance.array}, strict=False)
    return node.add(layer, node.source(node.input(0)))


def _is_neutral(scale: Constant, shift: Constant | None) -> bool:
    """Whether scale and shift are constants that change nothing."""
    if scale.trained or (shift is not None and shift.trained):
        return False
    return bool((scale.array == 1).all() and (shift is None or not shift.array.any()))


def _has_bias(shift: Constant | None) -> bool:
    """Whether a shift is more than a constant 0."""
    return shift is not None and (shift.trained or bool(shift.array.any()))


@operator("InstanceNormalization")
def _instance_normalization(node: Node) -> Value:
    scale, shift = node.constant(1), node.constant(2)
    kinds = {3: nn.InstanceNorm1d, 4: nn.InstanceNorm2d}
    rank = node.rank(0)
    if rank not in kinds:
        raise node.refusal(f"nnlite has it for 3 and 4 axes, this input has {rank}")
    affine = not _is_neutral(scale, shift)
    layer = kinds[rank](scale.array.size, _float(node.option("epsilon", 1e-5)), affine=affine)
    if affine:
        layer.weight, layer.bias = node.model.parameter(scale), node.model.parameter(shift)
    return node.add(layer, node.source(node.input(0)))


@operator("LayerNormalization")
def _layer_normalization(node: Node) -> Value:
    scale = node.constant(1)
    shift = node.constant(2) if node.has(2) else None
    axis = node.option("axis", -1)
    rank = scale.array.ndim
    if (axis if axis < 0 else axis - node.rank(0)) != -rank:
        raise node.refusal(f"axis={axis} does not fit a scale of {rank} axes")
    layer = nn.LayerNorm(scale.array.shape, _float(node.option("epsilon", 1e-5)), False)
    if not _is_neutral(scale, shift):
        has_bias = _has_bias(shift)
        layer = nn.LayerNorm(scale.array.shape, layer.eps, bias=has_bias)
        layer.weight = node.model.parameter(scale)
        if has_bias and shift is not None:
            layer.bias = node.model.parameter(shift)
    return node.add(layer, node.source(node.input(0)))


# ---- windows ----


class _Window:
    """The options of a window that slides over images or sequences."""

    def __init__(self, node: Node, kernel: list[int]) -> None:
        self.rank = rank = len(kernel)
        if rank not in (1, 2):
            raise node.refusal(
                f"nnlite has it for sequences and images, this kernel has {rank} axes"
            )
        self.kernel = kernel
        self.strides = list(node.option("strides") or [1] * rank)
        self.dilations = list(node.option("dilations") or [1] * rank)
        pads = list(node.option("pads") or [0] * 2 * rank)
        if not len(self.strides) == len(self.dilations) == len(pads) / 2 == rank:
            raise node.refusal("its attributes are for different numbers of axes")
        self.before, self.after = pads[:rank], pads[rank:]
        auto = node.option("auto_pad", "NOTSET")
        if auto in ("SAME_UPPER", "SAME_LOWER"):
            self._pad_to_same(node, auto == "SAME_UPPER")
        elif auto == "VALID":
            self.before = self.after = [0] * rank

    @property
    def spans(self) -> list[int]:
        pairs = zip(self.kernel, self.dilations, strict=True)
        return [dilation * (size - 1) + 1 for size, dilation in pairs]

    def _pad_to_same(self, node: Node, upper: bool) -> None:
        margins = [span - 1 for span in self.spans]
        if set(self.strides) != {1}:
            sizes = (node.shape(0) or [None] * 4)[2:]
            if None in sizes:
                raise node.refusal("auto_pad needs the size of its input")
            margins = [
                max(0, (-(-size // stride) - 1) * stride + span - size)
                for size, stride, span in zip(sizes, self.strides, self.spans, strict=True)
            ]
        less = [margin // 2 for margin in margins]
        more = [margin - half for margin, half in zip(margins, less, strict=True)]
        self.before, self.after = (less, more) if upper else (more, less)

    def is_same(self) -> bool:
        """Whether the padding is that of ``padding="same"``, odd ones at the end."""
        totals = [a + b for a, b in zip(self.before, self.after, strict=True)]
        is_even = all(0 <= b - a <= 1 for a, b in zip(self.before, self.after, strict=True))
        return is_even and set(self.strides) == {1} and totals == [s - 1 for s in self.spans]

    def one(self, sizes: list[int]) -> Any:
        """Return sizes as the layers take them: one int if all are alike."""
        return sizes[0] if len(set(sizes)) == 1 else tuple(sizes)

    def pool_stride(self) -> Any:
        """Return the stride as the pooling layers take it: None if windows do not overlap."""
        return None if self.strides == self.kernel else self.one(self.strides)

    def padded(self, node: Node, value: float) -> str | float:
        """Return the input with the padding around it, which is none of the window's then."""
        widths = zip(reversed(self.before), reversed(self.after), strict=True)
        padding = tuple(width for pair in widths for width in pair)
        self.before = self.after = [0] * self.rank
        return node.chain([_constant_pad(self.rank, padding, value)]).source


@operator("Conv")
def _convolution(node: Node) -> Value:
    weight = node.constant(1)
    window = _Window(node, list(weight.array.shape[2:]))
    groups = node.option("group", 1)
    if list(node.option("kernel_shape") or window.kernel) != window.kernel:
        raise node.refusal("kernel_shape is not that of the weight")
    kind = nn.Conv1d if window.rank == 1 else nn.Conv2d
    x = node.source(node.input(0))
    if window.before == window.after:
        padding = window.one(window.before)
    elif window.is_same():
        padding = "same"
    else:
        x, padding = window.padded(node, 0.0), 0
    layer = kind(
        weight.array.shape[1] * groups, weight.array.shape[0], window.one(window.kernel),
        window.one(window.strides), padding, window.one(window.dilations), groups,
        bias=node.has(2), rng=0,
    )  # fmt: skip
    return _with_kernels(node, layer, weight, x)


def _with_kernels(node: Node, layer: Any, weight: Constant, x: str | float) -> Value:
    layer.weight = node.model.parameter(weight)
    if node.has(2):
        layer.bias = node.model.parameter(node.constant(2))
    return node.add(layer, x)


@operator("ConvTranspose")
def _transposed_convolution(node: Node) -> Value:
    weight = node.constant(1)
    window = _Window(node, list(weight.array.shape[2:]))
    groups = node.option("group", 1)
    if window.before != window.after or node.option("auto_pad", "NOTSET") != "NOTSET":
        raise node.refusal("nnlite pads alike on both sides")
    if node.option("output_shape"):
        raise node.refusal("nnlite has output_padding, and not output_shape")
    kind = nn.ConvTranspose1d if window.rank == 1 else nn.ConvTranspose2d
    extra = list(node.option("output_padding") or [0] * window.rank)
    layer = kind(
        weight.array.shape[0], weight.array.shape[1] * groups, window.one(window.kernel),
        window.one(window.strides), window.one(window.before), window.one(extra), groups,
        node.has(2), window.one(window.dilations), rng=0,
    )  # fmt: skip
    return _with_kernels(node, layer, weight, node.source(node.input(0)))


_PADS: dict[str, tuple[type[Any], type[Any]]] = {
    "reflect": (nn.ReflectionPad1d, nn.ReflectionPad2d),
    "edge": (nn.ReplicationPad1d, nn.ReplicationPad2d),
    "wrap": (nn.CircularPad1d, nn.CircularPad2d),
}


@operator("Pad")
def _pad(node: Node) -> Value:
    mode, all_axes = node.option("mode", "constant"), list(range(node.rank(0)))
    pads = node.integers(1, "pads") or []
    axes = [axis % len(all_axes) for axis in (node.integers(3, "axes") or all_axes)]
    widths = dict(zip(axes, zip(pads[: len(axes)], pads[len(axes) :], strict=True), strict=True))
    around = [widths.get(axis, (0, 0)) for axis in all_axes]
    rank = len(all_axes) - 2
    if rank not in (1, 2) or any(map(any, around[:2])) or min(pads) < 0:
        raise node.refusal("nnlite pads the axes of sequences and images, outwards")
    # The layers begin with the last axis.
    flat = tuple(width for pair in reversed(around[2:]) for width in pair)
    padding = flat[0] if len(set(flat)) == 1 else flat
    x = node.source(node.input(0))
    if mode in _PADS:
        return node.add(_PADS[mode][rank - 1](padding), x)
    value = node.array(2).item() if node.has(2) else float(node.option("value", 0.0))
    return node.add(_constant_pad(rank, padding, _float(value)), x)


def _constant_pad(rank: int, padding: Any, value: float) -> nn.Layer:
    """Return the layer that pads sequences or images with a number."""
    if value == 0:
        return (nn.ZeroPad1d, nn.ZeroPad2d)[rank - 1](padding)
    return (nn.ConstantPad1d, nn.ConstantPad2d)[rank - 1](padding, value)


@operator("Resize")
def _resize(node: Node) -> Value:
    rank = node.rank(0) - 2
    mode = node.option("mode", "nearest")
    coordinates = node.option("coordinate_transformation_mode", "half_pixel")
    linear = {1: "linear", 2: "bilinear"}.get(rank)
    if mode == "nearest" and coordinates == "asymmetric" and linear:
        if node.option("nearest_mode", "round_prefer_floor") != "floor":
            raise node.refusal("nnlite has nearest_mode='floor' only")
        options: dict[str, Any] = {}
    elif mode == "linear" and coordinates in _CORNERS and linear:
        options = {"mode": linear, "align_corners": _CORNERS[coordinates]}
    else:
        raise node.refusal(f"nnlite has no {mode} with {coordinates} for {rank + 2} axes")
    if (
        node.option("antialias", 0)
        or node.option("keep_aspect_ratio_policy", "stretch") != "stretch"
    ):
        raise node.refusal("nnlite has neither antialias nor keep_aspect_ratio_policy")
    axes = [axis % (rank + 2) for axis in node.option("axes") or range(rank + 2)]
    name, given = ("size", 3) if node.has(3) else ("scale_factor", 2)
    values = dict(zip(axes, node.array(given).tolist(), strict=True))
    before = node.shape(0) or []
    for axis in range(2):
        if values.get(axis, 1) not in (1, before[axis]):
            raise node.refusal("nnlite resizes the axes of sequences and images")
    chosen = [values[axis] for axis in range(2, rank + 2)]
    if coordinates == "pytorch_half_pixel" and name == "size" and 1 in chosen:
        raise node.refusal("nnlite reads a size of 1 with half_pixel only")
    if coordinates == "align_corners" and name == "scale_factor":
        for scale, length in zip(chosen, before[2:], strict=True):
            if not (scale * (length or 1)).is_integer():
                raise node.refusal("nnlite has align_corners for sizes that are whole numbers only")
    options[name] = chosen[0] if len(set(chosen)) == 1 else tuple(chosen)
    return node.add(nn.Upsample(**options), node.source(node.input(0)))


_CORNERS = {"half_pixel": None, "pytorch_half_pixel": None, "align_corners": True}


@operator("DepthToSpace")
def _depth_to_space(node: Node) -> Value:
    if node.option("mode", "DCR") != "CRD":
        raise node.refusal("nnlite has mode='CRD' only, as PyTorch has")
    return node.add(nn.PixelShuffle(node.option("blocksize")), node.source(node.input(0)))


_LARGEST = float(np.finfo(np.float32).max)


@operator("MaxPool")
def _max_pool(node: Node) -> Value:
    window = _Window(node, list(node.option("kernel_shape")))
    x = _padded_for_pool(node, window, -_LARGEST)
    kind = nn.MaxPool1d if window.rank == 1 else nn.MaxPool2d
    layer = kind(
        window.one(window.kernel), window.pool_stride(), window.one(window.before),
        window.one(window.dilations), ceil_mode=bool(node.option("ceil_mode", 0)),
    )  # fmt: skip
    return node.add(layer, x)


@operator("AveragePool")
def _average_pool(node: Node) -> Value:
    window = _Window(node, list(node.option("kernel_shape")))
    if set(window.dilations) != {1}:
        raise node.refusal("nnlite has no dilation in a mean")
    counts_padding = bool(node.option("count_include_pad", 0))
    x = _padded_for_pool(node, window, 0.0 if counts_padding else None)
    kind = nn.AvgPool1d if window.rank == 1 else nn.AvgPool2d
    layer = kind(
        window.one(window.kernel), window.pool_stride(), window.one(window.before),
        bool(node.option("ceil_mode", 0)), counts_padding or not any(window.before),
    )  # fmt: skip
    return node.add(layer, x)


def _padded_for_pool(node: Node, window: _Window, value: float | None) -> str | float:
    """Return the input, padded with `value` if the layers of nnlite cannot pad it so."""
    halves = all(2 * pad <= size for pad, size in zip(window.before, window.kernel, strict=True))
    if window.before == window.after and halves:
        return node.source(node.input(0))
    if value is None or node.option("ceil_mode", 0):
        raise node.refusal("nnlite pads alike on both sides, and by half of the kernel at most")
    return window.padded(node, value)


# ---- recurrent layers ----

# The layers of each operator, for sequences and for one step, and for each gate in the order of
# PyTorch its place in that of ONNX.
_CELLS: dict[str, tuple[type[Any], type[Any], tuple[int, ...]]] = {
    "RNN": (nn.RNN, nn.RNNCell, (0,)),
    "LSTM": (nn.LSTM, nn.LSTMCell, (0, 2, 3, 1)),
    "GRU": (nn.GRU, nn.GRUCell, (1, 0, 2)),
}


@operator("RNN", "LSTM", "GRU")
def _recurrent(node: Node) -> Any:
    kind, kind_of_cell, order = _CELLS[node.operator]
    weight_ih, weight_hh = node.constant(1), node.constant(2)
    directions, rows, size = weight_hh.array.shape
    features = weight_ih.array.shape[2]
    if rows != len(order) * size or weight_ih.array.shape[:2] != (directions, rows):
        raise node.refusal("the shapes of its weights do not fit each other")
    options = _cell_options(node, size, directions)
    has_bias = node.has(3)
    batch_first = bool(node.option("layout", 0))

    def gates(array: Array) -> Array:
        return np.concatenate([array[gate * size : (gate + 1) * size] for gate in order])

    def with_weights(layer: Any, *suffixes: str) -> Any:
        for direction, suffix in enumerate(suffixes):
            parts = {
                "weight_ih": (weight_ih, weight_ih.array[direction]),
                "weight_hh": (weight_hh, weight_hh.array[direction]),
            }
            if has_bias:
                bias = node.constant(3)
                halves = bias.array[direction].reshape(2, rows)
                parts |= {"bias_ih": (bias, halves[0]), "bias_hh": (bias, halves[1])}
            for name, (whole, part) in parts.items():
                setattr(layer, name + suffix, nn.Parameter(gates(part), whole.trained))
        return layer

    if directions == 1 and not batch_first and not node.uses(0) and _is_of_one_step(node):
        cell = kind_of_cell(features, size, bias=has_bias, rng=0, **options)
        return _after_one_step(node, with_weights(cell, ""))

    def layer_of(outputs: str) -> Any:
        layer = kind(
            features, size, bias=has_bias, bidirectional=directions == 2, outputs=outputs, rng=0,
            **options,
        )  # fmt: skip
        return with_weights(layer, *("_l0", "_l0_reverse")[:directions])

    x = _with_batch_first(node, node.input(0), batch_first)
    state = [node.source(value) for value in _initial_states(node, batch_first)]
    if node.uses(2):
        raise node.refusal("its final cell state is used")
    sequence = final = None
    layer = None
    if node.uses(0):
        layer = layer_of("all")
        output = node.add(layer, x, *state)
        sequence = Value(output.source, directions, (0, 1, 2, 3) if batch_first else (1, 2, 0, 3))
    if node.uses(1):
        last = layer_of("last") if layer is None else layer.tied()
        last.outputs = "last"
        output = node.add(last, x, *state)
        final = Value(output.source, directions, (0, 1, 2) if batch_first else (1, 0, 2))
    return sequence, final


def _has_new_first_axis(node: Node, value: Any) -> bool:
    layer = node.layer_of(value)
    return isinstance(layer, nn.Unsqueeze) and layer.dim == 0


def _is_of_one_step(node: Node) -> bool:
    """Whether the sequence is one step, which has got its axis by an operator of its own."""
    return _has_new_first_axis(node, node.input(0))


def _after_one_step(node: Node, cell: Any) -> Any:
    """Return the outputs of a cell as those of a sequence: (1, N, H) for each state."""
    sources: list[str] = []
    for value in (node.input(0), *_initial_states(node, batch_first=False)):
        if _has_new_first_axis(node, value):
            sources.append(*node.arguments_of(value))
            if _is_used_once(node, value):
                node.remove(value)
        else:
            sources.append(node.add(nn.Squeeze(0), value).source)
    output = node.add(cell, *sources).source
    names = [output] if cell.states == 1 else [f"{output}.{place}" for place in range(cell.states)]
    return None, *(Value(name, 1, (1, 0, 2)) for name in names)


def _cell_options(node: Node, size: int, directions: int) -> dict[str, Any]:
    """Return the options of the layer, having checked that there are no others."""
    if node.option("hidden_size", size) != size:
        raise node.refusal("hidden_size is not that of the weights")
    if node.option("direction", "forward") != ("forward", "bidirectional")[directions - 1]:
        raise node.refusal("nnlite has one direction, forward, or both")
    if node.option("clip") is not None or node.option("input_forget", 0):
        raise node.refusal("nnlite has neither clip nor input_forget")
    if node.has(4):
        raise node.refusal("nnlite takes sequences of different lengths by a mask alone")
    if node.has(7) and node.array(7).any():
        raise node.refusal("nnlite has no peepholes")
    if node.operator == "GRU" and not node.option("linear_before_reset", 0):
        raise node.refusal("nnlite has linear_before_reset=1 only, as PyTorch has")
    defaults = {"RNN": ["Tanh"], "LSTM": ["Sigmoid", "Tanh", "Tanh"], "GRU": ["Sigmoid", "Tanh"]}
    given = [name.decode("utf-8", "replace") for name in node.option("activations") or ()]
    if node.operator == "RNN" and given == ["Relu"] * directions:
        return {"nonlinearity": "relu"}
    if given not in ([], defaults[node.operator] * directions):
        raise node.refusal(f"nnlite has no activations {given}"[:120])
    return {}


def _with_batch_first(node: Node, x: Any, batch_first: bool) -> Value:
    if batch_first or not isinstance(x, Value):
        return Value(str(node.source(x)))
    if x.axes is None and not x.ones:
        return node.add(nn.Permute(1, 0, 2), x)
    if x.axes == (1, 0, 2) and not x.directions and not x.ones:
        return Value(x.source)
    return node.add(nn.Permute(1, 0, 2), node.plain(x))


def _initial_states(node: Node, batch_first: bool) -> list[Any]:
    """Return the initial states, or none if they are zero."""
    places = (5, 6) if node.operator == "LSTM" else (5,)
    found = [node.input(place) if node.has(place) else Filled(0.0) for place in places]
    if all(_is_zero(each) for each in found):
        return []
    if batch_first or any(not isinstance(each, Value) for each in found):
        raise node.refusal("its initial states must all be zero, or all be computed")
    return found


def _is_zero(found: Any) -> bool:
    if isinstance(found, Constant):
        return found.array.dtype.kind == "f" and not found.array.any()
    return isinstance(found, Filled) and not found.number
