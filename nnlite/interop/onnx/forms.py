"""The form of each layer in ONNX: a table of layers and of functions that add nodes.

A function gets the `Scope` to add its nodes to, the layer and its inputs. It returns the name of
the output, or a `Value` where it knows the sample already.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from onnx import TensorProto

import nnlite as nn

from ...layers.embedding import sinusoids
from ...layers.graph import traversed
from .write import Scope, Value

Form = Callable[..., Any]

LAYERS: dict[type[nn.Layer], Form] = {}


def form_of(layer: nn.Layer) -> Form | None:
    """Return the function that writes `layer`; a subclass has that of its base.

    A subclass with a forward of its own computes something else, so it has none.
    """
    kind = type(layer)
    base = next((base for base in kind.__mro__ if base in LAYERS), None)
    return None if base is None or kind.forward is not base.forward else LAYERS[base]


def form(*layers: type[nn.Layer]) -> Callable[[Form], Form]:
    """Enter a function into the table that returns the name of its output, for these layers."""

    def enter(function: Form) -> Form:
        @functools.wraps(function)
        def write(scope: Scope, layer: Any, *inputs: Value, **by_keyword: Value) -> Value:
            sample = scope.evaluate(layer, *inputs, **by_keyword)
            return Value(function(scope, layer, *inputs, **by_keyword), sample)

        LAYERS.update(dict.fromkeys(layers, write))
        return function

    return enter


def container(*layers: type[nn.Layer]) -> Callable[[Form], Form]:
    """Enter a function into the table that returns the values of its sub-layers."""

    def enter(function: Form) -> Form:
        LAYERS.update(dict.fromkeys(layers, function))
        return function

    return enter


# ---- containers ----


@container(nn.Sequential)
def _sequential(scope: Scope, layer: nn.Sequential, *inputs: Value) -> Any:
    for name, child in layer.named_children():
        inputs = (scope.child(name, child, *inputs),)
    return inputs[0] if len(inputs) == 1 else inputs


@container(nn.Residual)
def _residual(scope: Scope, layer: nn.Residual, x: Value) -> Value:
    through = scope.child("body", layer.body, x)
    return Value(scope.add("Add", x, through), x.sample + through.sample)


@container(nn.Graph)
def _graph(scope: Scope, layer: nn.Graph, *inputs: Value) -> Any:
    def constant(number: float) -> Value:
        dtype = _float_dtype(layer, inputs)
        return Value(scope.constant(number, dtype), np.asarray(number, dtype))

    return traversed(layer, inputs, scope.child, constant)


def _float_dtype(layer: nn.Layer, inputs: tuple[Value, ...]) -> np.dtype[Any]:
    """Return the dtype in which a layer computes."""
    dtypes = [parameter.dtype for parameter in layer.parameters()]
    dtypes += [value.sample.dtype for value in inputs if value.sample.dtype.kind == "f"]
    return dtypes[0] if dtypes else np.dtype(np.float32)


# ---- products ----


@form(nn.Linear)
def _linear(scope: Scope, layer: nn.Linear, x: Value) -> str:
    weight = scope.parameter("weight")
    bias = None if layer.bias is None else scope.parameter("bias")
    if x.sample.ndim == 2:
        return scope.add("Gemm", x, weight, *([bias] if bias else []), transB=1)
    return _affine(scope, x, weight, bias)


@form(nn.Embedding)
def _embedding(scope: Scope, layer: nn.Embedding, x: Value) -> str:
    return scope.add("Gather", scope.parameter("weight"), x, axis=0)


@form(nn.MatMul)
def _matmul(scope: Scope, layer: nn.MatMul, a: Value, b: Value) -> str:
    return scope.add("MatMul", *_of_one_dtype(scope, a, b))


# ---- elementwise ----


def _operator(name: str) -> Form:
    """Return the form of a layer that is one operator without attributes."""
    return lambda scope, layer, *inputs: scope.add(name, *_of_one_dtype(scope, *inputs))


for _layer, _name in {
    nn.Abs: "Abs",
    nn.Divide: "Div",
    nn.Exp: "Exp",
    nn.Hardswish: "HardSwish",
    nn.Identity: "Identity",
    nn.Log: "Log",
    nn.Maximum: "Max",
    nn.Minimum: "Min",
    nn.Mish: "Mish",
    nn.Negative: "Neg",
    nn.ReLU: "Relu",
    nn.Reciprocal: "Reciprocal",
    nn.Sigmoid: "Sigmoid",
    nn.Softsign: "Softsign",
    nn.Sqrt: "Sqrt",
    nn.Subtract: "Sub",
    nn.Tanh: "Tanh",
}.items():
    form(_layer)(_operator(_name))


def _of_one_dtype(scope: Scope, *inputs: Value) -> list[Value | str]:
    """Return the inputs; in float32 where dtypes differ, as the layers do it."""
    if len({value.sample.dtype for value in inputs}) == 1:
        return list(inputs)
    return [scope.add("Cast", value, to=TensorProto.FLOAT) for value in inputs]


@form(nn.Add)
def _add(scope: Scope, layer: nn.Add, *inputs: Value) -> str:
    return scope.add("Add" if len(inputs) == 2 else "Sum", *_of_one_dtype(scope, *inputs))


@form(nn.Weight)
def _weight(scope: Scope, layer: nn.Weight) -> str:
    return scope.parameter("weight")


@form(nn.Multiply)
def _multiply(scope: Scope, layer: nn.Multiply, *inputs: Value) -> str:
    first, *others = _of_one_dtype(scope, *inputs)
    for other in others:
        first = scope.add("Mul", first, other)
    return first if isinstance(first, str) else first.name


@form(nn.Square)
def _square(scope: Scope, layer: nn.Square, x: Value) -> str:
    return scope.add("Mul", x, x)


@form(nn.Power)
def _power(scope: Scope, layer: nn.Power, x: Value) -> str:
    return scope.add("Pow", x, scope.constant(layer.exponent, x.sample.dtype))


@form(nn.LeakyReLU)
def _leaky_relu(scope: Scope, layer: nn.LeakyReLU, x: Value) -> str:
    return scope.add("LeakyRelu", x, alpha=layer.negative_slope)


@form(nn.ELU)
def _elu(scope: Scope, layer: nn.ELU, x: Value) -> str:
    return scope.add("Elu", x, alpha=layer.alpha)


@form(nn.SiLU)
def _silu(scope: Scope, layer: nn.SiLU, x: Value) -> str:
    return scope.add("Mul", x, scope.add("Sigmoid", x))


@form(nn.SELU)
def _selu(scope: Scope, layer: nn.SELU, x: Value) -> str:
    return scope.add("Selu", x)


@form(nn.Hardtanh, nn.ReLU6)
def _hardtanh(scope: Scope, layer: nn.Hardtanh, x: Value) -> str:
    bounds = (layer.min_val, layer.max_val)
    return scope.add("Clip", x, *(scope.constant(bound, x.sample.dtype) for bound in bounds))


@form(nn.Hardsigmoid)
def _hardsigmoid(scope: Scope, layer: nn.Hardsigmoid, x: Value) -> str:
    return scope.add("HardSigmoid", x, alpha=1 / 6, beta=0.5)


@form(nn.LogSigmoid)
def _log_sigmoid(scope: Scope, layer: nn.LogSigmoid, x: Value) -> str:
    return scope.add("Neg", scope.add("Softplus", scope.add("Neg", x)))


@form(nn.PReLU)
def _prelu(scope: Scope, layer: nn.PReLU, x: Value) -> str:
    slope = scope.parameter("weight")
    if layer.num_parameters > 1 and x.sample.ndim > 2:
        slope = scope.add("Reshape", slope, scope.constant([-1] + [1] * (x.sample.ndim - 2)))
    return scope.add("PRelu", x, slope)


@form(nn.GLU)
def _glu(scope: Scope, layer: nn.GLU, x: Value) -> str:
    half, axis = x.sample.shape[layer.dim] // 2, scope.constant([layer.dim])
    if layer.dim % x.sample.ndim == 0:
        raise ValueError(f"to_onnx: {layer.label} halves the batch, whose size is free in a file")
    a, b = (
        scope.add("Slice", x, scope.constant([start]), scope.constant([start + half]), axis)
        for start in (0, half)
    )
    return scope.add("Mul", a, scope.add("Sigmoid", b))


@form(nn.Softplus)
def _softplus(scope: Scope, layer: nn.Softplus, x: Value) -> str:
    dtype = x.sample.dtype
    beta = scope.constant(layer.beta, dtype)
    scaled = x if layer.beta == 1 else scope.add("Mul", x, beta)
    y = scope.add("Softplus", scaled)
    y = y if layer.beta == 1 else scope.add("Div", y, beta)
    if layer.threshold == 20:  # above it, the operator gives x up to rounding
        return y
    above = scope.add("Greater", scaled, scope.constant(layer.threshold, dtype))
    return scope.add("Where", above, x, y)


@form(nn.GELU)
def _gelu(scope: Scope, layer: nn.GELU, x: Value) -> str:
    return scope.add("Gelu", x, approximate=layer.approximate)


@form(nn.Softmax)
def _softmax(scope: Scope, layer: nn.Softmax, x: Value) -> str:
    return scope.add("Softmax", x, axis=layer.dim)


@form(nn.LogSoftmax)
def _log_softmax(scope: Scope, layer: nn.LogSoftmax, x: Value) -> str:
    return scope.add("LogSoftmax", x, axis=layer.dim)


@form(nn.Dropout, nn.Dropout1d, nn.Dropout2d)
def _dropout(scope: Scope, layer: nn.Dropout, x: Value) -> str:
    # Without an input training_mode it hands on x; a reader finds out what p was.
    return scope.add("Dropout", x, scope.constant(layer.p, np.float32))


# ---- over axes, and shapes ----


@form(nn.Sum)
def _total(scope: Scope, layer: nn.Sum, x: Value) -> str:
    return _reduced(scope, "ReduceSum", layer, x)


@form(nn.Mean)
def _mean(scope: Scope, layer: nn.Mean, x: Value) -> str:
    return _reduced(scope, "ReduceMean", layer, x)


def _reduced(scope: Scope, operator: str, layer: nn.Sum | nn.Mean, x: Value) -> str:
    dims = [] if layer.dim is None else [scope.constant(np.atleast_1d(layer.dim))]
    return scope.add(operator, x, *dims, keepdims=int(layer.keepdim))


@form(nn.Flatten)
def _flatten(scope: Scope, layer: nn.Flatten, x: Value) -> str:
    rank = x.sample.ndim
    start, end = layer.start_dim % rank, layer.end_dim % rank
    if (start, end) == (1, rank - 1):
        return scope.add("Flatten", x, axis=1)
    # 0 keeps the size of the axis at the same place, and -1 stands for what is left.
    sizes = [0] * start + [-1] + list(x.sample.shape[end + 1 :])
    return scope.add("Reshape", x, scope.constant(sizes))


@form(nn.Reshape)
def _reshape(scope: Scope, layer: nn.Reshape, x: Value) -> str:
    return scope.add("Reshape", x, scope.constant([0, *layer.shape]))


@form(nn.Unflatten)
def _unflatten(scope: Scope, layer: nn.Unflatten, x: Value) -> str:
    axis = layer.dim % x.sample.ndim
    sizes = [0] * axis + [*layer.unflattened_size] + list(x.sample.shape[axis + 1 :])
    return scope.add("Reshape", x, scope.constant(sizes))


@form(nn.Squeeze)
def _squeeze(scope: Scope, layer: nn.Squeeze, x: Value) -> str:
    return scope.add("Squeeze", x, scope.constant([layer.dim]))


@form(nn.Unsqueeze)
def _unsqueeze(scope: Scope, layer: nn.Unsqueeze, x: Value) -> str:
    return scope.add("Unsqueeze", x, scope.constant([layer.dim]))


@form(nn.Permute)
def _permute(scope: Scope, layer: nn.Permute, x: Value) -> str:
    return scope.add("Transpose", x, perm=[dim % x.sample.ndim for dim in layer.dims])


@form(nn.Slice)
def _slice(scope: Scope, layer: nn.Slice, x: Value) -> str:
    start = 0 if layer.start is None else layer.start
    stop = np.iinfo(np.int64).max if layer.stop is None else layer.stop
    limits = (start, stop, layer.dim, layer.step)
    return scope.add("Slice", x, *(scope.constant([each]) for each in limits))


@container(nn.Split)
def _split(scope: Scope, layer: nn.Split, x: Value) -> tuple[Value, ...]:
    samples = scope.evaluate(layer, x)
    sizes = scope.constant(layer.sections(x.sample.shape[layer.dim]))
    names = scope.add("Split", x, sizes, outputs=len(samples), axis=layer.dim)
    names = names if isinstance(names, tuple) else (names,)
    return tuple(Value(name, sample) for name, sample in zip(names, samples, strict=True))


@form(nn.Concatenate)
def _concatenate(scope: Scope, layer: nn.Concatenate, *inputs: Value) -> str:
    return scope.add("Concat", *_of_one_dtype(scope, *inputs), axis=layer.dim)


@form(nn.Stack)
def _stack(scope: Scope, layer: nn.Stack, *inputs: Value) -> str:
    axis = layer.dim % (inputs[0].sample.ndim + 1)
    place = scope.constant([axis])
    parts = [scope.add("Unsqueeze", x, place) for x in _of_one_dtype(scope, *inputs)]
    return scope.add("Concat", *parts, axis=axis)


@form(nn.SinusoidalPositions)
def _sinusoidal_positions(scope: Scope, layer: nn.SinusoidalPositions, x: Value) -> str:
    table = sinusoids(*x.sample.shape[1:], x.sample.dtype)
    return scope.add("Add", x, scope.constant(table))


@form(nn.LearnedPositions)
def _learned_positions(scope: Scope, layer: nn.LearnedPositions, x: Value) -> str:
    weight, steps = scope.parameter("weight"), x.sample.shape[1]
    if steps < layer.max_len:
        weight = scope.add("Slice", weight, *(scope.constant([each]) for each in (0, steps, 0)))
    return scope.add("Add", x, weight)


# ---- normalisation ----


@form(nn.BatchNorm1d, nn.BatchNorm2d)
def _batch_norm(scope: Scope, layer: Any, x: Value) -> str:
    dtype, features = x.sample.dtype, layer.num_features
    scale, shift = _scale_and_shift(scope, layer, (features,), dtype)
    if layer.running_mean is not None:
        mean, variance = scope.parameter("running_mean"), scope.parameter("running_var")
        momentum = None if layer.momentum is None else 1 - layer.momentum
        return scope.add(
            "BatchNormalization", x, scale, shift, mean, variance,
            epsilon=layer.eps, momentum=momentum,
        )  # fmt: skip
    # Without running statistics they are those of the batch, which onnxruntime's operator lacks.
    axes = scope.constant([axis for axis in range(x.sample.ndim) if axis != 1])
    centred = scope.add("Sub", x, scope.add("ReduceMean", x, axes))
    variance = scope.add("ReduceMean", scope.add("Mul", centred, centred), axes)
    deviation = scope.add("Sqrt", scope.add("Add", variance, scope.constant(layer.eps, dtype)))
    normalized = scope.add("Div", centred, deviation)
    if layer.weight is None:
        return normalized
    column = scope.constant([-1] + [1] * (x.sample.ndim - 2))
    for operator, name in (("Mul", scale), ("Add", shift)):
        normalized = scope.add(operator, normalized, scope.add("Reshape", name, column))
    return normalized


@form(nn.InstanceNorm1d, nn.InstanceNorm2d)
def _instance_norm(scope: Scope, layer: nn.InstanceNorm1d | nn.InstanceNorm2d, x: Value) -> str:
    if layer.running_mean is not None:
        return _batch_norm(scope, layer, x)
    scale, shift = _scale_and_shift(scope, layer, (layer.num_features,), x.sample.dtype)
    return scope.add("InstanceNormalization", x, scale, shift, epsilon=layer.eps)


@form(nn.GroupNorm)
def _group_norm(scope: Scope, layer: nn.GroupNorm, x: Value) -> str:
    # The operator of opset 20 has a scale per group; so a group is here a channel of a sequence.
    rows = scope.add("Reshape", x, scope.constant([0, layer.num_groups, -1]))
    neutral = [scope.constant(np.full(layer.num_groups, v, x.sample.dtype)) for v in (1, 0)]
    rows = scope.add("InstanceNormalization", rows, *neutral, epsilon=layer.eps)
    y = scope.add("Reshape", rows, scope.constant([0, *x.sample.shape[1:]]))
    column = scope.constant([-1] + [1] * (x.sample.ndim - 2))
    for operator, name in (("Mul", "weight"), ("Add", "bias")):
        if getattr(layer, name) is not None:
            y = scope.add(operator, y, scope.add("Reshape", scope.parameter(name), column))
    return y


@form(nn.LayerNorm)
def _layer_norm(scope: Scope, layer: nn.LayerNorm, x: Value) -> str:
    scale, shift = _scale_and_shift(scope, layer, layer.normalized_shape, x.sample.dtype)
    return scope.add(
        "LayerNormalization", x, scale, shift,
        axis=-len(layer.normalized_shape), epsilon=layer.eps,
    )  # fmt: skip


def _scale_and_shift(
    scope: Scope, layer: Any, shape: tuple[int, ...], dtype: np.dtype[Any]
) -> tuple[str, str]:
    """Return weight and bias, or constants 1 and 0 in place of what the layer lacks."""
    scale, shift = (
        scope.constant(np.full(shape, value, dtype))
        if getattr(layer, name) is None
        else scope.parameter(name)
        for name, value in (("weight", 1), ("bias", 0))
    )
    return scale, shift


@form(nn.RMSNorm)
def _rms_norm(scope: Scope, layer: nn.RMSNorm, x: Value) -> str:
    dtype = x.sample.dtype
    eps = np.finfo(dtype).eps if layer.eps is None else layer.eps
    axes = scope.constant(range(-len(layer.normalized_shape), 0))
    mean = scope.add("ReduceMean", scope.add("Mul", x, x), axes)
    root = scope.add("Sqrt", scope.add("Add", mean, scope.constant(eps, dtype)))
    normalized: str = scope.add("Div", x, root)
    if layer.weight is None:
        return normalized
    return scope.add("Mul", normalized, scope.parameter("weight"))


# ---- attention ----


@container(nn.MultiheadAttention)
def _attention(
    scope: Scope,
    layer: nn.MultiheadAttention,
    query: Value,
    key: Value | None = None,
    value: Value | None = None,
    key_padding_mask: Value | None = None,
    attn_mask: Value | None = None,
) -> Any:
    key = query if key is None else key
    value = key if value is None else value
    dtype, (_, length, width) = query.sample.dtype, query.sample.shape
    steps, size = key.sample.shape[1], width // layer.num_heads
    heads = scope.constant([0, 0, layer.num_heads, size])
    q, k, v = (
        scope.add("Transpose", scope.add("Reshape", rows, heads), perm=perm)
        for rows, perm in zip(
            _projections(scope, layer, [query, key, value]),
            ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3]),
            strict=True,
        )
    )
    factor = scope.constant(1 / np.sqrt(size), dtype)
    scores = scope.add("Mul", scope.add("MatMul", q, k), factor)
    hidden = []
    for mask, shape in (
        (key_padding_mask, [-1, 1, 1, steps]),
        (attn_mask, [1, 1, length, steps] if attn_mask is None or attn_mask.sample.ndim == 2
         else [-1, layer.num_heads, length, steps]),
    ):  # fmt: skip
        if mask is not None:
            name = scope.add("Reshape", mask, scope.constant(shape))
            if mask.sample.dtype == np.bool_:
                hidden.append(name)
            else:
                scores = scope.add("Add", scores, name)
    if layer.is_causal:
        later = np.triu(np.full((length, steps), -np.inf, dtype), 1)
        scores = scope.add("Add", scores, scope.constant(later))
    for name in hidden:
        scores = scope.add("Where", name, scope.constant(-np.inf, dtype), scores)
    weights = scope.add("Softmax", scores, axis=-1)
    for name in hidden:  # a row in which all is masked is NaN until here
        weights = scope.add("Where", name, scope.constant(0, dtype), weights)
    if layer.dropout:
        weights = scope.add("Dropout", weights, scope.constant(layer.dropout, np.float32))
    read = scope.add("Transpose", scope.add("MatMul", weights, v), perm=[0, 2, 1, 3])
    merged = scope.add("Reshape", read, scope.constant([0, 0, width]))
    return scope.child("out_proj", layer.out_proj, Value(merged, np.ones_like(query.sample)))


def _projections(scope: Scope, layer: nn.MultiheadAttention, inputs: list[Value]) -> list[str]:
    """Return Q, K and V, of all heads side by side."""
    is_packed = layer.in_proj_weight is not None
    bias = None if layer.in_proj_bias is None else scope.parameter("in_proj_bias")
    if is_packed and len({x.name for x in inputs}) == 1:
        product = _affine(scope, inputs[0], scope.parameter("in_proj_weight"), bias)
        return list(scope.add("Split", product, outputs=3, axis=2, num_outputs=3))
    weights = [f"{letter}_proj_weight" for letter in "qkv"]
    if is_packed:
        packed = scope.parameter("in_proj_weight")
        weights = scope.add("Split", packed, outputs=3, axis=0, num_outputs=3)
    else:
        weights = [scope.parameter(name) for name in weights]
    biases = [None] * 3
    if bias is not None:
        biases = scope.add("Split", bias, outputs=3, axis=0, num_outputs=3)
    return [
        _affine(scope, x, weight, part)
        for x, weight, part in zip(inputs, weights, biases, strict=True)
    ]


def _affine(scope: Scope, x: Value, weight: str, bias: str | None) -> str:
    """Return x Wᵀ + b for an input of more than two axes."""
    product: str = scope.add("MatMul", x, scope.add("Transpose", weight, perm=[1, 0]))
    return scope.add("Add", product, bias) if bias else product


@container(nn.TransformerEncoderLayer)
def _encoder_layer(
    scope: Scope,
    layer: nn.TransformerEncoderLayer,
    src: Value,
    src_mask: Value | None = None,
    src_key_padding_mask: Value | None = None,
) -> Value:
    masks = _given(attn_mask=src_mask, key_padding_mask=src_key_padding_mask)
    x = _around(
        scope, layer, 1, src, lambda x: scope.child("self_attn", layer.self_attn, x, **masks)
    )
    return _around(scope, layer, 2, x, lambda x: _feed_forward(scope, layer, x))


@container(nn.TransformerDecoderLayer)
def _decoder_layer(
    scope: Scope,
    layer: nn.TransformerDecoderLayer,
    tgt: Value,
    memory: Value,
    tgt_mask: Value | None = None,
    memory_mask: Value | None = None,
    tgt_key_padding_mask: Value | None = None,
    memory_key_padding_mask: Value | None = None,
) -> Value:
    own = _given(attn_mask=tgt_mask, key_padding_mask=tgt_key_padding_mask)
    others = _given(attn_mask=memory_mask, key_padding_mask=memory_key_padding_mask)
    x = _around(scope, layer, 1, tgt, lambda x: scope.child("self_attn", layer.self_attn, x, **own))
    x = _around(
        scope, layer, 2, x,
        lambda x: scope.child("multihead_attn", layer.multihead_attn, x, memory, **others),
    )  # fmt: skip
    return _around(scope, layer, 3, x, lambda x: _feed_forward(scope, layer, x))


def _given(**masks: Value | None) -> dict[str, Value]:
    return {name: mask for name, mask in masks.items() if mask is not None}


def _around(
    scope: Scope, layer: Any, index: int, x: Value, part: Callable[[Value], Value]
) -> Value:
    """Write a part of a layer of a transformer with its normalization, dropout and shortcut."""

    def child(name: str, x: Value) -> Value:
        y: Value = scope.child(name, getattr(layer, name), x)
        return y

    y = part(child(f"norm{index}", x) if layer.norm_first else x)
    if layer.dropout:
        y = child(f"dropout{index}", y)
    y = Value(scope.add("Add", x, y), x.sample)
    return y if layer.norm_first else child(f"norm{index}", y)


def _feed_forward(scope: Scope, layer: Any, x: Value) -> Value:
    names = ["linear1", "hidden_activation", "hidden_dropout", "linear2"]
    for name in names if layer.dropout else [name for name in names if "dropout" not in name]:
        x = scope.child(name, getattr(layer, name), x)
    return x


# ---- windows ----


def _pair(size: Any, rank: int) -> list[int]:
    return list(size) if isinstance(size, tuple) else [size] * rank


@form(nn.Conv1d, nn.Conv2d)
def _convolution(scope: Scope, layer: nn.Conv1d | nn.Conv2d, x: Value) -> str:
    rank = x.sample.ndim - 2
    kernel, dilations = _pair(layer.kernel_size, rank), _pair(layer.dilation, rank)
    if layer.padding == "same":
        margins = [dilation * (size - 1) for size, dilation in zip(kernel, dilations, strict=True)]
        pads = [margin // 2 for margin in margins] + [margin - margin // 2 for margin in margins]
    else:
        pads = _pair(0 if layer.padding == "valid" else layer.padding, rank) * 2
    source: Value | str = x
    if layer.padding_mode != "zeros":
        source, pads = _padded(scope, x, pads, layer.padding_mode), [0] * 2 * rank
    names = ["weight"] + ["bias"] * (layer.bias is not None)
    return scope.add(
        "Conv", source, *map(scope.parameter, names), kernel_shape=kernel,
        strides=_pair(layer.stride, rank), pads=pads, dilations=dilations, group=layer.groups,
    )  # fmt: skip


@form(nn.ConvTranspose1d, nn.ConvTranspose2d)
def _transposed_convolution(
    scope: Scope, layer: nn.ConvTranspose1d | nn.ConvTranspose2d, x: Value
) -> str:
    rank = x.sample.ndim - 2
    names = ["weight"] + ["bias"] * (layer.bias is not None)
    return scope.add(
        "ConvTranspose", x, *map(scope.parameter, names),
        kernel_shape=_pair(layer.kernel_size, rank), strides=_pair(layer.stride, rank),
        pads=_pair(layer.padding, rank) * 2, output_padding=_pair(layer.output_padding, rank),
        dilations=_pair(layer.dilation, rank), group=layer.groups,
    )  # fmt: skip


# The modes of padding by the names of ONNX.
_MODES = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}


def _padded(scope: Scope, x: Value, pads: list[int], mode: str, value: float = 0.0) -> str:
    """Pad the axes after the channels; `pads` are all widths before them, then all after them."""
    rank = len(pads) // 2
    widths = scope.constant([0, 0, *pads[:rank], 0, 0, *pads[rank:]])
    constant = [scope.constant(value, x.sample.dtype)] if mode == "constant" else []
    return scope.add("Pad", x, widths, *constant, mode=_MODES.get(mode, mode))


def _widths(layer: Any) -> list[int]:
    befores, afters = zip(*layer.borders(), strict=True)
    return [*befores, *afters]


@form(nn.ConstantPad1d, nn.ConstantPad2d, nn.ZeroPad1d, nn.ZeroPad2d)
def _constant_pad(scope: Scope, layer: Any, x: Value) -> str:
    return _padded(scope, x, _widths(layer), "constant", layer.value)


@form(
    *(nn.ReflectionPad1d, nn.ReflectionPad2d, nn.ReplicationPad1d, nn.ReplicationPad2d),
    *(nn.CircularPad1d, nn.CircularPad2d),
)
def _repeating_pad(scope: Scope, layer: Any, x: Value) -> str:
    return _padded(scope, x, _widths(layer), layer.mode)


@form(nn.Upsample)
def _upsample(scope: Scope, layer: nn.Upsample, x: Value) -> str:
    rank = x.sample.ndim - 2
    axes = list(range(2, 2 + rank))
    given: Any = layer.size if layer.scale_factor is None else layer.scale_factor
    each = list(given) if isinstance(given, tuple) else [given] * rank
    if layer.scale_factor is None:
        sizes = ["", "", scope.constant(each)]
    else:
        sizes = ["", scope.constant(np.array(each, np.float32))]
    if layer.mode == "nearest":
        return scope.add(
            "Resize", x, *sizes, axes=axes, mode="nearest", nearest_mode="floor",
            coordinate_transformation_mode="asymmetric",
        )  # fmt: skip
    coordinates = "align_corners" if layer.align_corners else "half_pixel"
    return scope.add(
        "Resize", x, *sizes, axes=axes, mode="linear", coordinate_transformation_mode=coordinates
    )


@form(nn.PixelShuffle)
def _pixel_shuffle(scope: Scope, layer: nn.PixelShuffle, x: Value) -> str:
    return scope.add("DepthToSpace", x, blocksize=layer.upscale_factor, mode="CRD")


def _check_one_output(layer: Any) -> None:
    if layer.return_indices:
        raise ValueError(f"to_onnx: {layer.label} has no form in ONNX that returns indices")


@form(nn.MaxPool1d, nn.MaxPool2d)
def _max_pool(scope: Scope, layer: nn.MaxPool1d | nn.MaxPool2d, x: Value) -> str:
    _check_one_output(layer)
    rank = x.sample.ndim - 2
    return scope.add("MaxPool", x, **_window(layer, rank), dilations=_pair(layer.dilation, rank))


@form(nn.AvgPool1d, nn.AvgPool2d)
def _average_pool(scope: Scope, layer: nn.AvgPool1d | nn.AvgPool2d, x: Value) -> str:
    options, divisor = _window(layer, x.sample.ndim - 2), layer.divisor_override
    if divisor is None:
        includes = int(layer.count_include_pad)
        return scope.add("AveragePool", x, **options, count_include_pad=includes)
    if layer.ceil_mode:
        raise ValueError(f"to_onnx: {layer.label} has no form in ONNX with ceil_mode=True")
    mean = scope.add("AveragePool", x, **options, count_include_pad=1)
    area = math.prod(options["kernel_shape"])
    return scope.add("Mul", mean, scope.constant(area / divisor, x.sample.dtype))


@form(nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d)
def _adaptive_average(scope: Scope, layer: Any, x: Value) -> str:
    """Write a product with the matrix of the means for each axis, where the sizes don't divide."""
    shape, windows = x.sample.shape, layer.windows(x.sample.shape)
    if tiles := _tiles(shape, windows):
        return scope.add("AveragePool", x, **tiles)
    *rows, columns = [
        _means(size, parts, x.sample.dtype) for size, parts in zip(shape[2:], windows, strict=True)
    ]
    y: str = scope.add("MatMul", x, scope.constant(columns.T))
    for matrix in rows:
        y = scope.add("MatMul", scope.constant(matrix), y)
    return y


def _means(size: int, parts: list[slice], dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    """Return the matrix whose product with an axis is the mean of each of its parts."""
    matrix = np.zeros((len(parts), size), dtype)
    for row, part in zip(matrix, parts, strict=True):
        row[part] = 1 / (part.stop - part.start)
    return matrix


@form(nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d)
def _adaptive_max(scope: Scope, layer: Any, x: Value) -> str:
    """Write the largest of each window along each axis, where the sizes don't divide."""
    _check_one_output(layer)
    windows = layer.windows(x.sample.shape)
    if tiles := _tiles(x.sample.shape, windows):
        return scope.add("MaxPool", x, **tiles)
    y = x.name
    for axis, parts in enumerate(windows, start=2):
        # The windows have one size or two; the last place of the smaller ones counts twice.
        places = np.arange(max(part.stop - part.start for part in parts))
        chosen = [np.minimum(part.start + places, part.stop - 1) for part in parts]
        y = scope.add("Gather", y, scope.constant(chosen), axis=axis)
        y = scope.add("ReduceMax", y, scope.constant([axis + 1]), keepdims=0)
    return y


def _tiles(shape: tuple[int, ...], windows: list[list[slice]]) -> dict[str, Any] | None:
    """Return the options of pooling with these windows, if they are alike and do not overlap."""
    if any(size % len(parts) for size, parts in zip(shape[2:], windows, strict=True)):
        return None
    tiles = [size // len(parts) for size, parts in zip(shape[2:], windows, strict=True)]
    return {"kernel_shape": tiles, "strides": tiles}


def _window(layer: Any, rank: int) -> dict[str, Any]:
    stride = layer.kernel_size if layer.stride is None else layer.stride
    return {
        "kernel_shape": _pair(layer.kernel_size, rank),
        "strides": _pair(stride, rank),
        "pads": _pair(layer.padding, rank) * 2,
        "ceil_mode": int(layer.ceil_mode),
    }


@form(nn.GlobalAvgPool1d, nn.GlobalAvgPool2d)
def _global_average(scope: Scope, layer: nn.Layer, x: Value) -> str:
    return scope.add("Flatten", scope.add("GlobalAveragePool", x), axis=1)


@form(nn.GlobalMaxPool1d, nn.GlobalMaxPool2d)
def _global_max(scope: Scope, layer: nn.Layer, x: Value) -> str:
    return scope.add("Flatten", scope.add("GlobalMaxPool", x), axis=1)


# ---- recurrent layers ----

# The operator of each cell; the order of its gates, by their place in the rows of PyTorch's
# weights; and its attributes.
_CELLS: dict[tuple[type[nn.Layer], ...], tuple[str, tuple[int, ...], dict[str, Any]]] = {
    (nn.RNN, nn.RNNCell): ("RNN", (0,), {}),
    (nn.LSTM, nn.LSTMCell): ("LSTM", (0, 3, 1, 2), {}),
    (nn.GRU, nn.GRUCell): ("GRU", (1, 0, 2), {"linear_before_reset": 1}),
}


class _Recurrent:
    """What the operator of a recurrent layer or cell takes from it."""

    def __init__(self, scope: Scope, layer: Any) -> None:
        self.operator, order, options = next(
            cell for kinds, cell in _CELLS.items() if isinstance(layer, kinds)
        )
        self._scope, self._layer = scope, layer
        self._directions = 2 if getattr(layer, "bidirectional", False) else 1
        rows = [np.arange(layer.hidden_size) + gate * layer.hidden_size for gate in order]
        self._rows, self._first = scope.constant(np.concatenate(rows)), scope.constant([0])
        self.options = {"hidden_size": layer.hidden_size, **options}
        if self.operator == "RNN":
            activation = layer.nonlinearity.capitalize()
            self.options["activations"] = [activation] * self._directions

    def weights(self, *suffixes: str) -> list[str]:
        """Return the inputs W, R and B; the parameters have one suffix for each direction."""
        bias = self._stacked(("bias_ih", "bias_hh"), suffixes) if self._layer.bias else ""
        matrices = [self._stacked((kind,), suffixes) for kind in ("weight_ih", "weight_hh")]
        return [*matrices, bias]

    def _stacked(self, kinds: tuple[str, ...], suffixes: tuple[str, ...]) -> str:
        """Return the parameters of all directions, their rows in the order of ONNX."""
        scope = self._scope
        parts = []
        for suffix in suffixes:
            gates = [
                scope.add("Gather", scope.parameter(kind + suffix), self._rows, axis=0)
                for kind in kinds
            ]
            part = gates[0] if len(gates) == 1 else scope.add("Concat", *gates, axis=0)
            parts.append(scope.add("Unsqueeze", part, self._first))
        return parts[0] if len(parts) == 1 else scope.add("Concat", *parts, axis=0)


@form(nn.RNN, nn.LSTM, nn.GRU)
def _recurrent(scope: Scope, layer: nn.RNN | nn.LSTM | nn.GRU, x: Value, *state: Value) -> str:
    cell = _Recurrent(scope, layer)
    directions = 2 if layer.bidirectional else 1
    sequence = scope.add("Transpose", x, perm=[1, 0, 2])
    for depth in range(layer.num_layers):
        weights = cell.weights(*[f"_l{depth}", f"_l{depth}_reverse"][:directions])
        start = [_initial(scope, value, depth, layer.num_layers, directions) for value in state]
        sequence, final = scope.add(
            cell.operator, sequence, *weights, *(["", *start] if start else []), outputs=2,
            direction="bidirectional" if layer.bidirectional else "forward", **cell.options,
        )  # fmt: skip
        if depth < layer.num_layers - 1:
            # (L, directions, N, H) → (L, N, directions · H)
            sequence = scope.add("Transpose", sequence, perm=[0, 2, 1, 3])
            sequence = scope.add("Reshape", sequence, scope.constant([0, 0, -1]))
    if layer.outputs == "last":
        final = scope.add("Transpose", final, perm=[1, 0, 2])
        return scope.add("Reshape", final, scope.constant([0, -1]))
    sequence = scope.add("Transpose", sequence, perm=[2, 0, 1, 3])
    return scope.add("Reshape", sequence, scope.constant([0, 0, -1]))


def _initial(scope: Scope, state: Value, depth: int, depths: int, directions: int) -> str:
    """Return the initial state of one layer of several."""
    if depths == 1:
        return state.name
    start, stop = depth * directions, (depth + 1) * directions
    return scope.add(
        "Slice", state, scope.constant([start]), scope.constant([stop]), scope.constant([0])
    )


@container(nn.RNNCell, nn.LSTMCell, nn.GRUCell)
def _recurrent_cell(scope: Scope, layer: Any, x: Value, *state: Value) -> Any:
    """Write a sequence of one step."""
    cell = _Recurrent(scope, layer)
    first = scope.constant([0])
    step, *before = [scope.add("Unsqueeze", value, first) for value in (x, *state)]
    inputs = [step, *cell.weights(""), *(["", *before] if before else [])]
    _, *after = scope.add(cell.operator, *inputs, outputs=1 + layer.states, **cell.options)
    names = [scope.add("Squeeze", value, first) for value in after]
    samples = scope.evaluate(layer, x, *state)
    if layer.states == 1:
        return Value(names[0], samples)
    return tuple(Value(name, sample) for name, sample in zip(names, samples, strict=True))
