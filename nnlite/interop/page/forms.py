"""The form of each layer on a page: a table of layers and of functions that add what it computes.

A function gets the `Page`, the name of the layer in the model, the layer and its inputs, and
returns its output. What it adds are *forms*: arrays and plain options, of which "kind" is the entry
in the scripts of ``nnlite.web`` that computes it.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import nnlite as nn

from ...engine.arrays import Array
from ...engine.gather import border
from ...hints import cure_of_compiled
from ...layers.embedding import sinusoids
from ...layers.graph import traversed
from ...modes import evaluating
from ...web.document import packed

Form = dict[str, Any]

FORMS: dict[type[nn.Layer], Callable[..., Any]] = {}


@dataclass
class Value:
    """A value on the page, and what it is for a batch of one sample of zeros."""

    sample: Array
    # 0 is the input and k + 1 the output of form k; None as long as the page lacks a constant.
    number: int | None
    # A constant is the same for every sample: a weight, or computed from weights alone.
    constant: Form | None = None


class Page:
    """The forms of a model in the order in which the page computes them.

    Parameters
    ----------
    sample : ndarray
        A batch of one sample of zeros.
    dtype : str
        How weights are stored.
    """

    def __init__(self, sample: Array, dtype: str) -> None:
        self.forms: list[Form] = []
        self.input = Value(sample, 0)
        # If the input is of indices, the number of vectors in the smallest table that they look up.
        self.indices: int | None = None
        self._dtype = dtype

    def layer(self, name: str, layer: nn.Layer, *inputs: Value, **by_keyword: Value) -> Any:
        """Add a layer; return its output, or a tuple of several."""
        title = _title(name, layer.label)
        if by_keyword:
            raise _refusal(title, f"the page has no {', '.join(by_keyword)}")
        if inputs and all(value.constant for value in inputs):
            found = self.evaluate(layer, *inputs)
            if isinstance(found, tuple):
                return tuple(constant(name, layer.label, each) for each in found)
            return constant(name, layer.label, found)
        if type(layer) not in FORMS:
            usual = "its formula is Python alone: build it as a Graph of nnlite's layers"
            cure = cure_of_compiled(layer) or usual
            raise ValueError(f"to_html: the page has no form for {title}; {cure}")
        return FORMS[type(layer)](self, name, layer, *inputs)

    def add(self, name: str, label: str, form: Form, sample: Array, *inputs: Value) -> Value:
        """Add a form, and return its output, which is `sample` for the sample of zeros."""
        if sample.ndim == 0 or len(sample) != 1:
            raise _refusal(
                _title(name, label), "it works along the batch, and the page has one sample"
            )
        numbers = [self._number(value) for value in inputs]
        self._append(name, label, {**form, "inputs": numbers, "shape": sample.shape[1:]})
        return Value(np.ascontiguousarray(sample), len(self.forms))

    def evaluate(self, layer: nn.Layer, *inputs: Value) -> Any:
        """Return the output of a layer for the samples of its inputs."""
        with evaluating(), np.errstate(all="ignore"):
            return layer(*(value.sample for value in inputs))

    def _number(self, value: Value) -> int:
        """Return the number of a value; add a constant when it is used first."""
        if value.number is None:
            assert value.constant is not None
            form = dict(value.constant)
            self._append(form.pop("name"), form.pop("label"), form)
            value.number = len(self.forms)
        return value.number

    def _append(self, name: str, label: str, form: Form) -> None:
        try:
            stored = {key: self._packed(value) for key, value in form.items()}
        except ValueError as error:
            raise _refusal(_title(name, label), str(error)) from None
        self.forms.append({**stored, "name": name, "label": label})

    def _packed(self, value: Any) -> Any:
        if isinstance(value, nn.Parameter):
            if not np.isfinite(value.data).all():
                raise ValueError("it has a weight that is NaN or infinite")
            return packed(value.data, self._dtype)
        return packed(value) if isinstance(value, np.ndarray) else value


def constant(name: str, label: str, sample: Array, weight: nn.Parameter | None = None) -> Value:
    """Return a constant, which is stored as a weight if it is one."""
    sample = np.array(sample, order="C")
    form: Form = {
        "kind": "Weight", "weight": sample if weight is None else weight, "inputs": [],
        "shape": sample.shape, "name": name, "label": label,
    }  # fmt: skip
    return Value(sample, None, form)


def _title(name: str, label: str) -> str:
    return f"{name} ({label})" if name else label


def _refusal(title: str, fault: str) -> ValueError:
    return ValueError(f"to_html: {title} cannot be shown: {fault}")


def _joined(prefix: str, name: str) -> str:
    return f"{prefix}.{name}" if prefix else name


def _form(*layers: type[nn.Layer]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Enter a function into the table, for these layers."""

    def enter(function: Callable[..., Any]) -> Callable[..., Any]:
        FORMS.update(dict.fromkeys(layers, function))
        return function

    return enter


def _single(*layers: type[nn.Layer]) -> Callable[[Callable[..., Form]], Callable[..., Form]]:
    """Enter a function into the table that returns the one form of a layer of one input.

    It gets the layer, and the samples of its input and output.
    """

    def enter(function: Callable[..., Form]) -> Callable[..., Form]:
        def add(page: Page, name: str, layer: Any, x: Value, *others: Value) -> Value:
            title = _title(name, layer.label)
            if others:
                raise _refusal(title, "it has several inputs")
            if getattr(layer, "return_indices", False):
                raise _refusal(title, "the page has no indices")
            y = page.evaluate(layer, x)
            try:
                form = function(layer, x.sample, y)
            except ValueError as error:
                raise _refusal(title, str(error)) from None
            return page.add(name, layer.label, form, y, x)

        FORMS.update(dict.fromkeys(layers, add))
        return function

    return enter


# ---- containers ----


@_form(nn.Sequential)
def _sequential(page: Page, name: str, layer: nn.Sequential, *inputs: Value) -> Any:
    for child_name, child in layer.named_children():
        found = page.layer(_joined(name, child_name), child, *inputs)
        inputs = found if isinstance(found, tuple) else (found,)
    return inputs[0] if len(inputs) == 1 else inputs


@_form(nn.AveragedModel)
def _averaged(page: Page, name: str, layer: nn.AveragedModel, *inputs: Value) -> Any:
    return page.layer(_joined(name, "module"), layer.module, *inputs)


@_form(nn.Residual)
def _residual(page: Page, name: str, layer: nn.Residual, x: Value) -> Value:
    through = page.layer(_joined(name, "body"), layer.body, x)
    return _binary(page, _joined(name, "+"), "x + body(x)", "Add", x, through)


@_form(nn.Graph)
def _graph(page: Page, name: str, layer: nn.Graph, *inputs: Value) -> Any:
    if len(inputs) != len(layer.inputs):
        raise _refusal(
            _title(name, layer.label),
            f"it has {len(layer.inputs)} inputs, and the page gives it {len(inputs)}",
        )
    dtype = page.input.sample.dtype
    return traversed(
        layer,
        inputs,
        lambda node, *given, **by_keyword: page.layer(_joined(name, node), *given, **by_keyword),
        lambda number: constant("", str(number), np.asarray(number, dtype)),
    )


# ---- arithmetic ----


@_form(nn.Weight)
def _weight(page: Page, name: str, layer: nn.Weight, *inputs: Value) -> Value:
    return constant(name, layer.label, page.evaluate(layer, *inputs), layer.weight)


def _strides(array: Array, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return how far apart the numbers of an array are when it is broadcast to a shape."""
    contiguous = np.ascontiguousarray(array).reshape(array.shape)
    spread = np.broadcast_to(contiguous, shape)
    return tuple(stride // array.itemsize for stride in spread.strides)


# What the page calls each operation, and how its samples are computed.
_OPERATIONS: dict[str, Callable[..., Any]] = {
    "Add": np.add,
    "Subtract": np.subtract,
    "Multiply": np.multiply,
    "Divide": np.divide,
    "Maximum": np.maximum,
    "Minimum": np.minimum,
}


def _binary(page: Page, name: str, label: str, kind: str, a: Value, b: Value) -> Value:
    """Add an operation of two numbers, for arrays that are broadcast."""
    with np.errstate(all="ignore"):
        y = np.asarray(_OPERATIONS[kind](a.sample, b.sample))
    strides = [_strides(value.sample, y.shape)[1:] for value in (a, b)]
    return page.add(name, label, {"kind": kind, "strides": strides}, y, a, b)


@_form(nn.Add, nn.Subtract, nn.Multiply, nn.Divide, nn.Maximum, nn.Minimum)
def _arithmetic(page: Page, name: str, layer: nn.Layer, *operands: Value) -> Value:
    page.evaluate(layer, *operands)  # checks the shapes
    operation = functools.partial(_binary, page, name, layer.label, type(layer).__name__)
    return functools.reduce(operation, operands)


@_form(nn.MatMul)
def _matmul(page: Page, name: str, layer: nn.MatMul, a: Value, b: Value) -> Value:
    y = page.evaluate(layer, a, b)
    left = np.atleast_2d(a.sample)
    right = b.sample if b.sample.ndim > 1 else b.sample[:, None]
    (rows, inner), columns = left.shape[-2:], right.shape[-1]
    stack = np.broadcast_shapes(left.shape[:-2], right.shape[:-2])
    form = {
        "kind": "MatMul", "rows": rows, "inner": inner, "columns": columns, "stack": stack,
        "strides": [_strides(each, (*stack, *each.shape[-2:]))[:-2] for each in (left, right)],
    }  # fmt: skip
    return page.add(name, layer.label, form, y, a, b)


@_single(nn.Sum, nn.Mean)
def _reduction(layer: nn.Sum | nn.Mean, x: Array, y: Array) -> Form:
    with evaluating():
        kept = type(layer)(layer.dim, keepdim=True)(x)
    return {
        "kind": "Sum",
        "scale": 1.0 if type(layer) is nn.Sum else kept.size / x.size,
        "over": x.shape[1:],
        "strides": [_strides(kept, x.shape)[1:]],
    }


# ---- parts and shapes of arrays ----


def _view(x: Array, part: Array) -> Form:
    """Return the form of a view of a contiguous array: where it begins, and its strides."""
    offset = part.__array_interface__["data"][0] - x.__array_interface__["data"][0]
    return {
        "kind": "View",
        "offset": offset // x.itemsize,
        "sizes": part.shape[1:],
        "strides": [[stride // x.itemsize for stride in part.strides[1:]]],
    }


def _take(page: Page, name: str, label: str, x: Value, part: Array) -> Value:
    return page.add(name, label, _view(x.sample, part), part, x)


@_single(nn.Permute, nn.Slice)
def _part(layer: nn.Permute | nn.Slice, x: Array, y: Array) -> Form:
    return _view(x, y)


@_form(nn.Split)
def _split(page: Page, name: str, layer: nn.Split, x: Value) -> tuple[Value, ...]:
    parts = page.evaluate(layer, x)
    return tuple(
        _take(page, f"{name}.{index}", layer.label, x, part) for index, part in enumerate(parts)
    )


@_single(nn.PixelShuffle)
def _pixel_shuffle(layer: nn.PixelShuffle, x: Array, y: Array) -> Form:
    r = layer.upscale_factor
    parts = x.reshape(1, -1, r, r, *x.shape[2:])
    return _view(x, parts.transpose(0, 1, 4, 2, 5, 3))


@_form(nn.Concatenate)
def _concatenate(page: Page, name: str, layer: nn.Concatenate, *inputs: Value) -> Value:
    y = page.evaluate(layer, *inputs)
    return _joint(page, name, layer.label, layer.dim % y.ndim, y, *inputs)


@_form(nn.Stack)
def _stack(page: Page, name: str, layer: nn.Stack, *inputs: Value) -> Value:
    y = page.evaluate(layer, *inputs)
    return _joint(page, name, layer.label, layer.dim % y.ndim, y, *inputs)


def _joint(page: Page, name: str, label: str, axis: int, y: Array, *inputs: Value) -> Value:
    """Add arrays side by side: `y` has in turn a block of numbers of each."""
    rows = math.prod(y.shape[:axis])
    blocks = [value.sample.size // rows for value in inputs]
    return page.add(name, label, {"kind": "Concatenate", "blocks": blocks}, y, *inputs)


@_single(
    nn.Flatten, nn.Reshape, nn.Unflatten, nn.Squeeze, nn.Unsqueeze, nn.Identity,
    nn.Dropout, nn.Dropout1d, nn.Dropout2d,
)  # fmt: skip
def _reshape(layer: nn.Layer, x: Array, y: Array) -> Form:
    return {"kind": "Reshape"}


@_single(nn.GLU)
def _glu(layer: nn.GLU, x: Array, y: Array) -> Form:
    return {"kind": "GLU", "block": int(np.prod(y.shape[_own_axis(layer, x) :]))}


def _own_axis(layer: nn.GLU | nn.Softmax | nn.LogSoftmax, x: Array) -> int:
    axis = layer.dim % x.ndim
    if axis == 0:
        raise ValueError("it works along the batch, and the page has one sample")
    return axis


# ---- functions of one number ----


def _function(name: str, *options: str) -> Callable[..., Form]:
    """Return the form of a function of one number, which has these options."""
    return lambda layer, x, y: {
        "kind": name,
        **{option: getattr(layer, option) for option in options},
    }


for _layer, _options in {
    nn.Abs: (), nn.ELU: ("alpha",), nn.Exp: (), nn.Hardsigmoid: (), nn.Hardswish: (),
    nn.LeakyReLU: ("negative_slope",), nn.Log: (), nn.LogSigmoid: (), nn.Mish: (), nn.Negative: (),
    nn.Power: ("exponent",), nn.ReLU: (), nn.Reciprocal: (), nn.SELU: (), nn.SiLU: (),
    nn.Sigmoid: (), nn.Softplus: ("beta", "threshold"), nn.Softsign: (), nn.Sqrt: (),
    nn.Square: (), nn.Tanh: (),
}.items():  # fmt: skip
    _single(_layer)(_function(_layer.__name__, *_options))


@_single(nn.GELU)
def _gelu(layer: nn.GELU, x: Array, y: Array) -> Form:
    return {"kind": "GELUTanh" if layer.approximate == "tanh" else "GELU"}


@_single(nn.PReLU)
def _prelu(layer: nn.PReLU, x: Array, y: Array) -> Form:
    return {"kind": "PReLU", "weight": layer.weight}


@_single(nn.Hardtanh, nn.ReLU6)
def _hardtanh(layer: nn.Hardtanh, x: Array, y: Array) -> Form:
    return {"kind": "Hardtanh", "low": layer.min_val, "high": layer.max_val}


@_single(nn.Softmax, nn.LogSoftmax)
def _softmax(layer: nn.Softmax | nn.LogSoftmax, x: Array, y: Array) -> Form:
    axis = _own_axis(layer, x)
    stride = int(np.prod(x.shape[axis + 1 :]))
    return {"kind": type(layer).__name__, "count": x.shape[axis], "stride": stride}


# ---- products ----


@_single(nn.Linear)
def _linear(layer: nn.Linear, x: Array, y: Array) -> Form:
    return {"kind": "Linear", "weight": layer.weight, "bias": layer.bias}


def _project(page: Page, name: str, weight: Array, bias: Array | None, x: Value) -> Value:
    """Add ``x Wᵀ + b`` for arrays that are parts of parameters."""
    form = {
        "kind": "Linear",
        "weight": nn.Parameter(weight),
        "bias": None if bias is None else nn.Parameter(bias),
    }
    sample = np.zeros((*x.sample.shape[:-1], len(weight)), x.sample.dtype)
    return page.add(name, f"Linear{weight.shape[::-1]}", form, sample, x)


@_form(nn.Embedding)
def _embedding(page: Page, name: str, layer: nn.Embedding, x: Value) -> Value:
    if x is not page.input:
        raise _refusal(_title(name, layer.label), "its indices are not the input of the model")
    page.indices = min(page.indices or layer.num_embeddings, layer.num_embeddings)
    sample = np.zeros((*x.sample.shape, layer.embedding_dim), layer.weight.dtype)
    return page.add(name, layer.label, {"kind": "Embedding", "weight": layer.weight}, sample, x)


@_form(nn.SinusoidalPositions)
def _sinusoidal_positions(page: Page, name: str, layer: nn.SinusoidalPositions, x: Value) -> Value:
    table = sinusoids(*page.evaluate(layer, x).shape[1:], x.sample.dtype)
    added = constant(f"{name}.table", "positions", table)
    return _binary(page, name, layer.label, "Add", x, added)


@_form(nn.LearnedPositions)
def _learned_positions(page: Page, name: str, layer: nn.LearnedPositions, x: Value) -> Value:
    table = layer.weight.data[: page.evaluate(layer, x).shape[1]]
    added = constant(f"{name}.weight", "positions", table, nn.Parameter(table))
    return _binary(page, name, layer.label, "Add", x, added)


# ---- attention ----


@_form(nn.MultiheadAttention)
def _attention(
    page: Page,
    name: str,
    layer: nn.MultiheadAttention,
    query: Value,
    key: Value | None = None,
    value: Value | None = None,
    *masks: Value,
) -> Value:
    if masks:
        raise _refusal(_title(name, layer.label), "the page has no masks")
    key = query if key is None else key
    inputs = query, key, key if value is None else value
    page.evaluate(layer, *inputs)  # checks the shapes
    if layer.in_proj_weight is not None:
        weights = np.split(layer.in_proj_weight.data, 3)
    else:
        weights = [getattr(layer, f"{letter}_proj_weight").data for letter in "qkv"]
    biases = [None] * 3 if layer.in_proj_bias is None else np.split(layer.in_proj_bias.data, 3)
    q, k, v = (
        _project(page, _joined(name, letter), weight, bias, x)
        for letter, weight, bias, x in zip("qkv", weights, biases, inputs, strict=True)
    )
    heads = layer.num_heads
    shape = (1, heads, q.sample.shape[1], k.sample.shape[1])
    scores: Form = {"kind": "AttentionWeights", "heads": heads, "causal": layer.is_causal}
    label = "softmax(q k.T / sqrt(d))"
    read = page.add(_joined(name, "weights"), label, scores, np.zeros(shape, q.sample.dtype), q, k)
    form = {"kind": "Attention", "heads": heads}
    y = page.add(_joined(name, "heads"), "weights @ v", form, q.sample, read, v)
    out: Value = page.layer(_joined(name, "out_proj"), layer.out_proj, y)
    return out


@_form(nn.TransformerEncoderLayer, nn.TransformerDecoderLayer)
def _transformer(page: Page, name: str, layer: Any, x: Value, *others: Value) -> Value:
    memory = others[:1] if type(layer) is nn.TransformerDecoderLayer else ()
    if len(others) > len(memory):
        raise _refusal(_title(name, layer.label), "the page has no masks")

    def child(part: str, *inputs: Value) -> Value:
        found: Value = page.layer(_joined(name, part), getattr(layer, part), *inputs)
        return found

    def feed_forward(x: Value) -> Value:
        return child("linear2", child("hidden_activation", child("linear1", x)))

    parts: list[tuple[str, Callable[[Value], Value]]] = [
        ("self_attn", functools.partial(child, "self_attn")),
        ("feed_forward", feed_forward),
    ]
    if memory:
        parts.insert(1, ("multihead_attn", lambda x: child("multihead_attn", x, *memory)))
    for index, (part, apply) in enumerate(parts, start=1):
        norm = functools.partial(child, f"norm{index}")
        through = apply(norm(x) if layer.norm_first else x)
        inner = f"norm{index}(x)" if layer.norm_first else "x"
        label = f"x + {part}({inner})"
        x = _binary(page, _joined(name, f"sum{index}"), label, "Add", x, through)
        x = x if layer.norm_first else norm(x)
    return x


# ---- recurrence ----


@_form(nn.RNN, nn.LSTM, nn.GRU)
def _recurrent(
    page: Page, name: str, layer: nn.RNN | nn.LSTM | nn.GRU, x: Value, *state: Value
) -> Value:
    if state:
        raise _refusal(_title(name, layer.label), "the page begins with a state of zeros")
    page.evaluate(layer, x)  # checks the shape
    length, width = x.sample.shape[1], layer.hidden_size
    suffixes = ["", "_reverse"] if layer.bidirectional else [""]
    last_only = layer.outputs == "last"
    for index in range(layer.num_layers):
        hidden = []
        for suffix in suffixes:
            place = f"l{index}{suffix}"
            form: Form = {"kind": type(layer).__name__, "reverse": bool(suffix)}
            for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
                form[kind] = getattr(layer, f"{kind}_{place}", None)
            form["truncate"] = layer.truncate
            form["relu"] = isinstance(layer, nn.RNN) and layer.nonlinearity == "relu"
            sample = np.zeros((1, length, width), x.sample.dtype)
            y = page.add(_joined(name, place), layer.label, form, sample, x)
            if last_only and index == layer.num_layers - 1:
                end = 0 if suffix else length - 1
                last = y.sample[:, end]
                y = _take(page, _joined(name, f"{place}.last"), "the last step", y, last)
            hidden.append(y)
        x = hidden[0]
        if layer.bidirectional:
            both = np.concatenate([y.sample for y in hidden], axis=-1)
            label = "both directions"
            x = _joint(page, _joined(name, f"l{index}"), label, both.ndim - 1, both, *hidden)
    return x


@_form(nn.RNNCell, nn.LSTMCell, nn.GRUCell)
def _cell(page: Page, name: str, layer: Any, x: Value, *state: Value) -> Any:
    page.evaluate(layer, x, *state)  # checks the shapes
    zeros = np.zeros((1, layer.hidden_size), x.sample.dtype)
    before = state or tuple(constant("", "0", zeros) for _ in range(layer.states))
    biases = [None if bias is None else bias.data for bias in (layer.bias_ih, layer.bias_hh)]
    s = _project(page, _joined(name, "s"), layer.weight_ih.data, biases[0], x)
    t = _project(page, _joined(name, "t"), layer.weight_hh.data, biases[1], before[0])

    def function(part: str, kind: str, x: Value) -> Value:
        form = {"kind": kind}
        return page.add(_joined(name, part), kind.lower(), form, np.zeros_like(x.sample), x)

    def gates(part: str, x: Value) -> list[Value]:
        parts = np.split(x.sample, layer.gates, axis=1)
        names = [f"{part}_{letter}" for letter in ("rzn" if layer.gates == 3 else "ifgo")]
        return [
            _take(page, _joined(name, each), "", x, view)
            for each, view in zip(names, parts, strict=True)
        ]

    def combined(part: str, kind: str, a: Value, b: Value) -> Value:
        return _binary(page, _joined(name, part), kind.lower(), kind, a, b)

    if type(layer) is nn.RNNCell:
        kind = "Tanh" if layer.nonlinearity == "tanh" else "ReLU"
        return function("h", kind, combined("a", "Add", s, t))
    if type(layer) is nn.LSTMCell:
        a = gates("a", combined("a", "Add", s, t))
        kinds = "Sigmoid", "Sigmoid", "Tanh", "Sigmoid"
        i, f, g, o = map(function, "ifgo", kinds, a)
        kept, new = combined("f c", "Multiply", f, before[1]), combined("i g", "Multiply", i, g)
        c = combined("c", "Add", kept, new)
        return combined("h", "Multiply", o, function("tanh c", "Tanh", c)), c
    (s_r, s_z, s_n), (t_r, t_z, t_n) = gates("s", s), gates("t", t)
    r = function("r", "Sigmoid", combined("a_r", "Add", s_r, t_r))
    z = function("z", "Sigmoid", combined("a_z", "Add", s_z, t_z))
    n = function("n", "Tanh", combined("a_n", "Add", s_n, combined("r t_n", "Multiply", r, t_n)))
    # h' = (1 - z) n + z h = n + z (h - n)
    change = combined("z (h - n)", "Multiply", z, combined("h - n", "Subtract", before[0], n))
    return combined("h", "Add", n, change)


# ---- windows ----


@_form(nn.Conv1d, nn.Conv2d)
def _conv(page: Page, name: str, layer: nn.Conv1d | nn.Conv2d, x: Value) -> Value:
    y = page.evaluate(layer, x)
    window = _window(layer, x.sample, y)
    if layer.padding_mode != "zeros":
        x, window = _with_border(page, name, layer, x, window)
    form = {
        "kind": "Conv", "weight": layer.weight, "bias": layer.bias, "groups": layer.groups,
        **window,
    }  # fmt: skip
    return page.add(name, layer.label, form, y, x)


def _with_border(
    page: Page, name: str, layer: nn.Conv1d | nn.Conv2d, x: Value, window: Form
) -> tuple[Value, Form]:
    """Add the padding of a convolution that does not pad with zeros; return what is left of it."""
    places, sample, bare = [], x.sample, {}
    for key, axis in window.items():
        # Below the last row or column there is as much as its windows reach.
        span = (axis["taps"] - 1) * axis["dilation"]
        after = span - axis["padding"] if layer.padding == "same" else axis["padding"]
        found = border(layer.padding_mode, axis["inputs"], axis["padding"], after)
        bare[key] = {**axis, "inputs": len(found), "padding": 0}
        places.append((found, None))
    places = places[4 - sample.ndim :]
    for axis_index, (found, _) in enumerate(places, start=2):
        sample = np.take(sample, found, axis_index)
    form = _gather(x.sample, places)
    return page.add(_joined(name, "padding"), layer.padding_mode, form, sample, x), bare


@_single(nn.ConvTranspose1d, nn.ConvTranspose2d)
def _conv_transpose(layer: nn.ConvTranspose1d | nn.ConvTranspose2d, x: Array, y: Array) -> Form:
    return {
        "kind": "ConvTranspose", "weight": layer.weight, "bias": layer.bias,
        "groups": layer.groups,
        **_window(layer, y, x),  # of the convolution that goes the other way
    }  # fmt: skip


@_single(nn.MaxPool1d, nn.MaxPool2d)
def _max_pool(layer: nn.MaxPool1d | nn.MaxPool2d, x: Array, y: Array) -> Form:
    return {"kind": "MaxPool", **_window(layer, x, y)}


@_single(nn.AvgPool1d, nn.AvgPool2d)
def _avg_pool(layer: nn.AvgPool1d | nn.AvgPool2d, x: Array, y: Array) -> Form:
    window = _window(layer, x, y)
    counts = [_counts(axis, layer.count_include_pad) for axis in window.values()]
    areas = np.outer(*counts)
    if layer.divisor_override is not None:
        areas[...] = layer.divisor_override
    return {"kind": "AvgPool", "areas": areas, **window}


@_single(
    nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d,
    nn.GlobalAvgPool1d, nn.GlobalAvgPool2d, nn.GlobalMaxPool1d, nn.GlobalMaxPool2d,
)  # fmt: skip
def _pool_of_parts(layer: Any, x: Array, y: Array) -> Form:
    """Return the form of a pool whose windows are given by their ends, or are everything."""
    sizes = (1, *x.shape[2:])[-2:]
    found = [[(0, size)] for size in sizes]
    if hasattr(layer, "windows"):
        for axis, parts in enumerate(layer.windows(x.shape), start=4 - x.ndim):
            found[axis] = [(part.start, part.stop) for part in parts]
    rows, columns = (
        {"inputs": size, "outputs": len(parts), "parts": parts}
        for size, parts in zip(sizes, found, strict=True)
    )
    if "Max" in type(layer).__name__:
        return {"kind": "MaxPool", "rows": rows, "columns": columns}
    heights, widths = ([stop - start for start, stop in parts] for parts in found)
    areas = np.outer(heights, widths)
    return {"kind": "AvgPool", "areas": areas, "rows": rows, "columns": columns}


@_single(nn.ConstantPad1d, nn.ConstantPad2d, nn.ZeroPad1d, nn.ZeroPad2d)
def _constant_pad(layer: Any, x: Array, y: Array) -> Form:
    axes = []
    for size, (before, after) in zip(x.shape[2:], layer.borders(), strict=True):
        first = np.full(before + size + after, -1)
        first[before : before + size] = np.arange(size)
        axes.append((first, None))
    return _gather(x, axes, layer.value)


@_single(
    nn.ReflectionPad1d, nn.ReflectionPad2d, nn.ReplicationPad1d, nn.ReplicationPad2d,
    nn.CircularPad1d, nn.CircularPad2d,
)  # fmt: skip
def _repeating_pad(layer: Any, x: Array, y: Array) -> Form:
    sizes = zip(x.shape[2:], layer.borders(), strict=True)
    return _gather(x, [(border(layer.mode, size, *widths), None) for size, widths in sizes])


@_single(nn.Upsample)
def _upsample(layer: nn.Upsample, x: Array, y: Array) -> Form:
    rank = x.ndim - 2
    return _gather(x, [layer.positions(k, rank, size) for k, size in enumerate(x.shape[2:])])


def _window(layer: Any, x: Array, y: Array) -> Form:
    """Return how a window slides along rows and columns; a sequence is one row."""
    is_sequence = x.ndim == 3
    inputs = (1, *x.shape[2:]) if is_sequence else x.shape[2:]
    outputs = (1, *y.shape[2:]) if is_sequence else y.shape[2:]
    taps = _pair(layer.kernel_size, 1, is_sequence)
    stride = taps if layer.stride is None else _pair(layer.stride, 1, is_sequence)
    dilation = _pair(layer.dilation, 1, is_sequence)
    if layer.padding == "same":
        padding = tuple(d * (k - 1) // 2 for d, k in zip(dilation, taps, strict=True))
    else:
        padding = _pair(0 if layer.padding == "valid" else layer.padding, 0, is_sequence)
    axes = zip(inputs, outputs, taps, stride, padding, dilation, strict=True)
    names = ("inputs", "outputs", "taps", "stride", "padding", "dilation")
    rows, columns = (dict(zip(names, axis, strict=True)) for axis in axes)
    return {"rows": rows, "columns": columns}


def _pair(option: int | tuple[int, int], of_row: int, is_sequence: bool) -> tuple[int, int]:
    if isinstance(option, tuple):
        return option
    return (of_row, option) if is_sequence else (option, option)


def _counts(axis: dict[str, int], with_padding: bool) -> Array:
    """Return how many positions along an axis count in the mean of each window."""
    around = axis["padding"] if with_padding else 0
    starts = np.arange(axis["outputs"]) * axis["stride"] - axis["padding"]
    ends = np.minimum(starts + axis["taps"], axis["inputs"] + around)
    return ends - np.maximum(starts, -around)


def _gather(x: Array, axes: Sequence[tuple[Array, Array | None]], value: float = 0.0) -> Form:
    """Return the form of pixels at chosen places of each axis; -1 is outside, with this value."""
    if len(axes) == 1:
        axes = [(np.array([0]), None), *axes]
    rows, columns = (
        {
            "inputs": size,
            "first": first.tolist(),
            "part": (np.zeros(len(first)) if part is None else part).tolist(),
        }
        for size, (first, part) in zip((1, *x.shape[2:])[-2:], axes, strict=True)
    )
    return {"kind": "Gather", "rows": rows, "columns": columns, "value": value}


# ---- normalization ----


@_single(nn.BatchNorm1d, nn.BatchNorm2d)
def _batch_norm(layer: Any, x: Array, y: Array) -> Form:
    if layer.running_mean is None or layer.running_var is None:
        raise ValueError("it has no running statistics; use track_running_stats=True")
    factor = 1 / np.sqrt(layer.running_var + layer.eps)
    if layer.weight is not None:
        factor = factor * layer.weight.data
    shift = -layer.running_mean * factor
    if layer.bias is not None:
        shift = shift + layer.bias.data
    return {"kind": "BatchNorm", "factor": factor, "shift": shift}


@_single(nn.LayerNorm)
def _layer_norm(layer: nn.LayerNorm, x: Array, y: Array) -> Form:
    count = int(np.prod(layer.normalized_shape))
    return {
        "kind": "LayerNorm", "weight": layer.weight, "bias": layer.bias, "eps": layer.eps,
        "count": count, "area": 1,
    }  # fmt: skip


@_single(nn.RMSNorm)
def _rms_norm(layer: nn.RMSNorm, x: Array, y: Array) -> Form:
    eps = float(np.finfo(x.dtype).eps) if layer.eps is None else layer.eps
    count = int(np.prod(layer.normalized_shape))
    return {"kind": "RMSNorm", "weight": layer.weight, "eps": eps, "count": count}


@_single(nn.GroupNorm)
def _group_norm(layer: nn.GroupNorm, x: Array, y: Array) -> Form:
    return _normalized_groups(layer, layer.num_groups, x)


@_single(nn.InstanceNorm1d, nn.InstanceNorm2d)
def _instance_norm(layer: nn.InstanceNorm1d | nn.InstanceNorm2d, x: Array, y: Array) -> Form:
    if layer.running_mean is not None:
        return _batch_norm(layer, x, y)
    return _normalized_groups(layer, layer.num_features, x)


def _normalized_groups(layer: Any, groups: int, x: Array) -> Form:
    """Return the form of a normalisation with one weight per channel, which has an area."""
    return {
        "kind": "LayerNorm", "weight": layer.weight, "bias": layer.bias, "eps": layer.eps,
        "count": x[0].size // groups, "area": x[0, 0].size,
    }  # fmt: skip
