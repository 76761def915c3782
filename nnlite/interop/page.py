"""A trained network as one web page: ``to_html``."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from .. import (
    ELU,
    GELU,
    GLU,
    SELU,
    AvgPool1d,
    AvgPool2d,
    BatchNorm1d,
    BatchNorm2d,
    CircularPad1d,
    CircularPad2d,
    ConstantPad1d,
    ConstantPad2d,
    Conv1d,
    Conv2d,
    Dropout,
    Dropout1d,
    Dropout2d,
    Flatten,
    GlobalAvgPool1d,
    GlobalAvgPool2d,
    GlobalMaxPool1d,
    GlobalMaxPool2d,
    GroupNorm,
    Hardsigmoid,
    Hardswish,
    Hardtanh,
    Identity,
    InstanceNorm1d,
    InstanceNorm2d,
    LayerNorm,
    LeakyReLU,
    Linear,
    LogSigmoid,
    LogSoftmax,
    MaxPool1d,
    MaxPool2d,
    Mish,
    PReLU,
    ReflectionPad1d,
    ReflectionPad2d,
    ReLU,
    ReLU6,
    ReplicationPad1d,
    ReplicationPad2d,
    Reshape,
    Residual,
    Sequential,
    Sigmoid,
    SiLU,
    Softmax,
    Softplus,
    Softsign,
    Tanh,
    Upsample,
    ZeroPad1d,
    ZeroPad2d,
)
from ..checks import one_of
from ..datasets.digits import MNIST_MEAN, MNIST_STD
from ..engine.arrays import Array
from ..engine.gather import border
from ..layer import Layer
from ..modes import evaluating
from ..parameter import Parameter
from ..web.document import DTYPES, Document, packed

Shape = tuple[int, ...]
# A layer as the page computes it: arrays and plain options; "kind" is its entry in network.js.
Form = dict[str, Any]


def to_html(
    model: Layer,
    path: str | os.PathLike[str] | None = None,
    *,
    input_shape: Sequence[int] | None = None,
    labels: Sequence[str] | None = None,
    features: Sequence[str] | None = None,
    mean: ArrayLike | None = None,
    std: ArrayLike | None = None,
    activation: str | None = None,
    examples: ArrayLike | None = None,
    targets: ArrayLike | None = None,
    title: str | None = None,
    dtype: str = "float16",
) -> Document:
    """Return a trained network as one web page that computes it, and write the page to a file.

    The page is self-contained: it needs no server and no connection, and works on a phone. It
    shows the output and the values of every layer, live, and the gradient of the winning score
    with respect to the input. A click on a unit shows the gradient of that unit. How an input is
    given depends on its shape:

    - (1, H, W): a drawing, which is scaled and centred as MNIST's digits are;
    - (3, H, W): an image file;
    - (2,): a point in the plane, over the decision surface;
    - any other: a form, or a file of numbers.

    Parameters
    ----------
    model : Layer
        A `Sequential` whose output is a vector: `Linear`, convolutions, pools, padding, `Upsample`,
        normalisations, activations, `Dropout`, `Flatten`, `Reshape`, `Identity`, `Softmax`,
        `LogSoftmax`, and `Residual` and `Sequential` of them. The page shows it in evaluation mode.
    path : str or path-like, optional
        The file, which is replaced in one step.
    input_shape : sequence of int, optional
        The shape of a sample, without the batch axis. It can be left out where the first layer
        tells it, and for MNIST's images.
    labels : sequence of str, optional
        Names of the outputs; by default their indices.
    features : sequence of str, optional
        Names of the inputs of a form or plane.
    mean, std : float or array_like, optional
        The network gets ``(x - mean) / std``, for the numbers x that are typed or the pixels from
        0 to 1. An array has a value for each entry of the first axis. The default is that of
        `nnlite.datasets.mnist` for images of shape (1, 28, 28), otherwise 0 and 1.
    activation : {"softmax", "sigmoid", "none"}, optional
        The function applied to the outputs before they are shown. The default is "softmax" for
        several outputs, and "none" for one and after a layer that gives probabilities.
    examples : array_like of shape (N, ...), optional
        Inputs to choose from, before `mean` and `std`; in a plane they are dots.
    targets : array_like of shape (N,), optional
        The classes or values of the examples, for the colours of the dots.
    title : str, optional
        The heading.
    dtype : {"float16", "float32"}, default "float16"
        How the weights are stored. float16 halves the file; a weight is then rounded to 11
        significant bits.

    Returns
    -------
    Document
        The page. A notebook shows it; ``save(path)`` writes it.

    Raises
    ------
    TypeError
        If `model` is not a layer.
    ValueError
        If the page has no form for a layer, if a weight is not finite, or if shapes, names and
        options do not fit the model.
    OSError
        If the file cannot be written.

    Examples
    --------
    >>> import nnlite as nn
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(784, 16), nn.ReLU(), nn.Linear(16, 10))
    >>> page = nn.to_html(model)
    >>> "Linear(784, 16)" in str(page)
    True
    """
    if not isinstance(model, Layer):
        raise TypeError(f"to_html: expected a model, got {type(model).__name__}")
    one_of(dtype, DTYPES, "to_html: dtype")
    shape = _input_shape(model, input_shape)
    chain = _Chain(dtype)
    output = chain.add(model, "", 0, np.zeros((1, *shape), _dtype_of(model)))[1]
    if not chain.forms:
        raise ValueError("to_html: the model has no layers")
    if output.ndim != 2:
        raise ValueError(
            f"to_html: expected a model whose output is a vector for each sample, "
            f"got the shape {output.shape[1:]}"
        )
    outputs = output.shape[1]
    names = _names(labels, outputs, "labels", "outputs") or [str(k) for k in range(outputs)]
    is_digit = shape == (1, 28, 28)
    means = _per_feature(mean, MNIST_MEAN if is_digit else 0.0, shape, "mean")
    stds = _per_feature(std, MNIST_STD if is_digit else 1.0, shape, "std")
    if not (stds > 0).all():
        raise ValueError(f"to_html: std must be above 0, got {stds.min():g}")
    points = _examples(examples, shape)
    kind = _input_kind(shape)
    last = chain.forms[-1]["kind"]
    is_probability = last in ("Softmax", "Sigmoid") and activation is None
    parameters = sum(parameter.size for parameter in model.parameters())
    document = Document(
        "page.html",
        ("network.js", "inputs.js", "page.js"),
        {
            "title": title or ("Draw a digit" if is_digit and outputs == 10 else "A network"),
            "subtitle": f"{len(chain.forms)} layers, {parameters:,} parameters, computed here",
            "input": kind,
            "input_shape": shape,
            "layers": chain.forms,
            "labels": names,
            "features": _names(features, int(np.prod(shape)), "features", "inputs"),
            "mean": packed(means),
            "std": packed(stds),
            "examples": [packed(point) for point in points],
            "targets": _targets(targets, len(points)),
            "range": _range(points, means, stds) if kind == "point" else None,
            "activation": _activation(activation, last, outputs),
            "probabilities": is_probability,
            # The value whose gradient is shown: the input of a last layer that saturates.
            "score": len(chain.forms) - (last in ("Softmax", "LogSoftmax", "Sigmoid")),
        },
        height=900,
    )
    if path is not None:
        document.save(path)
    return document


# ---- layers ----


def _elementwise(*options: str) -> Callable[..., Form]:
    """Return the form of a function of one number, which has these options."""
    return lambda layer, x, y: {
        "kind": type(layer).__name__,
        **{name: getattr(layer, name) for name in options},
    }


def _gelu(layer: GELU, x: Array, y: Array) -> Form:
    return {"kind": "GELUTanh" if layer.approximate == "tanh" else "GELU"}


def _prelu(layer: PReLU, x: Array, y: Array) -> Form:
    return {"kind": "PReLU", "weight": layer.weight}


def _hardtanh(layer: Hardtanh, x: Array, y: Array) -> Form:
    return {"kind": "Hardtanh", "low": layer.min_val, "high": layer.max_val}


def _glu(layer: GLU, x: Array, y: Array) -> Form:
    return {"kind": "GLU", "block": int(np.prod(y.shape[_own_axis(layer, x) :]))}


def _reshape(layer: Layer, x: Array, y: Array) -> Form:
    return {"kind": "Reshape"}


def _linear(layer: Linear, x: Array, y: Array) -> Form:
    return {"kind": "Linear", "weight": layer.weight, "bias": layer.bias}


def _conv(layer: Conv1d | Conv2d, x: Array, y: Array) -> Form:
    if layer.padding_mode != "zeros":
        raise ValueError("the page pads with zeros; put a padding layer before it")
    return {
        "kind": "Conv", "weight": layer.weight, "bias": layer.bias, "groups": layer.groups,
        **_window(layer, x, y),
    }  # fmt: skip


def _max_pool(layer: MaxPool1d | MaxPool2d, x: Array, y: Array) -> Form:
    return {"kind": "MaxPool", **_window(layer, x, y)}


def _avg_pool(layer: AvgPool1d | AvgPool2d, x: Array, y: Array) -> Form:
    window = _window(layer, x, y)
    counts = [_counts(axis, layer.count_include_pad) for axis in window.values()]
    areas = np.outer(*counts)
    if layer.divisor_override is not None:
        areas[...] = layer.divisor_override
    return {"kind": "AvgPool", "areas": areas, **window}


def _constant_pad(layer: Any, x: Array, y: Array) -> Form:
    axes = []
    for size, (before, after) in zip(x.shape[2:], layer.borders(), strict=True):
        first = np.full(before + size + after, -1)
        first[before : before + size] = np.arange(size)
        axes.append((first, None))
    return _gather(x, axes, layer.value)


def _repeating_pad(layer: Any, x: Array, y: Array) -> Form:
    sizes = zip(x.shape[2:], layer.borders(), strict=True)
    return _gather(x, [(border(layer.mode, size, *widths), None) for size, widths in sizes])


def _upsample(layer: Upsample, x: Array, y: Array) -> Form:
    rank = x.ndim - 2
    return _gather(x, [layer.positions(k, rank, size) for k, size in enumerate(x.shape[2:])])


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


def _global_pool(layer: Layer, x: Array, y: Array) -> Form:
    height, width = x.shape[2:] if x.ndim == 4 else (1, x.shape[2])
    whole = {"stride": 1, "dilation": 1, "padding": 0, "outputs": 1}
    form: Form = {
        "kind": "MaxPool" if type(layer) in (GlobalMaxPool1d, GlobalMaxPool2d) else "AvgPool",
        "rows": {"inputs": height, "taps": height, **whole},
        "columns": {"inputs": width, "taps": width, **whole},
    }
    if form["kind"] == "AvgPool":
        form["areas"] = np.array([height * width])
    return form


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


def _layer_norm(layer: LayerNorm, x: Array, y: Array) -> Form:
    count = int(np.prod(layer.normalized_shape))
    return {
        "kind": "LayerNorm", "weight": layer.weight, "bias": layer.bias, "eps": layer.eps,
        "count": count, "area": 1,
    }  # fmt: skip


def _group_norm(layer: GroupNorm, x: Array, y: Array) -> Form:
    return _normalized_groups(layer, layer.num_groups, x)


def _instance_norm(layer: InstanceNorm1d | InstanceNorm2d, x: Array, y: Array) -> Form:
    if layer.running_mean is not None:
        return _batch_norm(layer, x, y)
    return _normalized_groups(layer, layer.num_features, x)


def _normalized_groups(layer: Any, groups: int, x: Array) -> Form:
    """Return the form of a normalisation with one weight per channel, which has an area."""
    return {
        "kind": "LayerNorm", "weight": layer.weight, "bias": layer.bias, "eps": layer.eps,
        "count": x[0].size // groups, "area": x[0, 0].size,
    }  # fmt: skip


def _softmax(layer: Softmax | LogSoftmax, x: Array, y: Array) -> Form:
    axis = _own_axis(layer, x)
    stride = int(np.prod(x.shape[axis + 1 :]))
    return {"kind": type(layer).__name__, "count": x.shape[axis], "stride": stride}


def _own_axis(layer: GLU | Softmax | LogSoftmax, x: Array) -> int:
    axis = layer.dim % x.ndim
    if axis == 0:
        raise ValueError("it works along the batch, and the page has one sample")
    return axis


# How each layer is written into the page: (layer, input, output) -> form. For every kind there is
# an entry in network.js.
FORMS: dict[type[Layer], Callable[..., Form]] = {
    Linear: _linear,
    Conv1d: _conv,
    Conv2d: _conv,
    MaxPool1d: _max_pool,
    MaxPool2d: _max_pool,
    AvgPool1d: _avg_pool,
    AvgPool2d: _avg_pool,
    **dict.fromkeys((ConstantPad1d, ConstantPad2d, ZeroPad1d, ZeroPad2d), _constant_pad),
    **dict.fromkeys((ReflectionPad1d, ReflectionPad2d), _repeating_pad),
    **dict.fromkeys((ReplicationPad1d, ReplicationPad2d), _repeating_pad),
    **dict.fromkeys((CircularPad1d, CircularPad2d), _repeating_pad),
    Upsample: _upsample,
    GlobalAvgPool1d: _global_pool,
    GlobalAvgPool2d: _global_pool,
    GlobalMaxPool1d: _global_pool,
    GlobalMaxPool2d: _global_pool,
    BatchNorm1d: _batch_norm,
    BatchNorm2d: _batch_norm,
    LayerNorm: _layer_norm,
    GroupNorm: _group_norm,
    InstanceNorm1d: _instance_norm,
    InstanceNorm2d: _instance_norm,
    ReLU: _elementwise(),
    LeakyReLU: _elementwise("negative_slope"),
    ELU: _elementwise("alpha"),
    SELU: _elementwise(),
    SiLU: _elementwise(),
    Mish: _elementwise(),
    Hardtanh: _hardtanh,
    ReLU6: _hardtanh,
    Hardswish: _elementwise(),
    Hardsigmoid: _elementwise(),
    Softplus: _elementwise("beta", "threshold"),
    Softsign: _elementwise(),
    LogSigmoid: _elementwise(),
    PReLU: _prelu,
    GLU: _glu,
    GELU: _gelu,
    Sigmoid: _elementwise(),
    Tanh: _elementwise(),
    Softmax: _softmax,
    LogSoftmax: _softmax,
    Flatten: _reshape,
    Reshape: _reshape,
    Identity: _reshape,
    Dropout: _reshape,
    Dropout1d: _reshape,
    Dropout2d: _reshape,
}


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


class _Chain:
    """The layers of a model in the order in which they are computed, as the page gets them."""

    def __init__(self, dtype: str) -> None:
        self.forms: list[Form] = []
        self._dtype = dtype

    def add(self, layer: Layer, name: str, source: int, x: Array) -> tuple[int, Array]:
        """Add a layer that takes value number `source`, which is `x`; return those of its output.

        Value 0 is the input, and value k + 1 the output of layer k.
        """
        if type(layer) is Sequential:
            for child_name, child in layer.named_children():
                source, x = self.add(child, _joined(name, child_name), source, x)
            return source, x
        if type(layer) is Residual:
            end, y = self.add(layer.body, _joined(name, "body"), source, x)
            form = {"kind": "Add"}
            return self._append(form, _joined(name, "+"), "x + body(x)", [source, end], x + y)
        title = f"{name} ({layer.label})" if name else layer.label
        if type(layer) not in FORMS:
            known = ", ".join(sorted(kind.__name__ for kind in (*FORMS, Residual, Sequential)))
            raise ValueError(f"to_html: the page has no form for {title}; it shows {known}")
        if getattr(layer, "return_indices", False):
            raise ValueError(f"to_html: {title} cannot be shown: the page has no indices")
        with evaluating():
            y = layer(x)
        try:
            form = FORMS[type(layer)](layer, x, y)
            packed_form = {key: self._packed(value) for key, value in form.items()}
        except ValueError as error:
            raise ValueError(f"to_html: {title} cannot be shown: {error}") from None
        return self._append(packed_form, name, layer.label, [source], y)

    def _append(
        self, form: Form, name: str, label: str, inputs: list[int], y: Array
    ) -> tuple[int, Array]:
        self.forms.append(
            {**form, "name": name, "label": label, "inputs": inputs, "shape": y.shape[1:]}
        )
        return len(self.forms), y

    def _packed(self, value: Any) -> Any:
        if isinstance(value, Parameter):
            if not np.isfinite(value.data).all():
                raise ValueError("it has a weight that is NaN or infinite")
            return packed(value.data, self._dtype)
        return packed(value) if isinstance(value, np.ndarray) else value


def _joined(prefix: str, name: str) -> str:
    return f"{prefix}.{name}" if prefix else name


# ---- input and output ----


def _dtype_of(model: Layer) -> np.dtype[Any]:
    parameter = next(model.parameters(), None)
    return np.dtype(np.float32) if parameter is None else parameter.dtype


def _input_shape(model: Layer, given: Sequence[int] | None) -> Shape:
    """Return the shape of a sample: the given one, or what the first layers tell."""
    if given is not None:
        shape = tuple(given) if isinstance(given, Sequence) else (given,)
        if not shape or not all(isinstance(size, int) and size > 0 for size in shape):
            raise ValueError(
                f"to_html: input_shape must be the shape of a sample, such as (1, 28, 28), "
                f"got {given!r}"
            )
        return shape
    first: list[Any] = [layer for layer in model.layers() if type(layer) in FORMS][:2]
    kinds = [type(layer) for layer in first]
    if kinds[:1] == [Linear]:
        return (first[0].weight.shape[1],)
    if kinds[:1] == [Conv2d] and first[0].weight.shape[1] == 1:
        return (1, 28, 28)
    if kinds == [Flatten, Linear]:
        size = first[1].weight.shape[1]
        return (1, 28, 28) if size == 28 * 28 else (size,)
    raise ValueError(
        "to_html: the layers do not tell the shape of a sample; give it, such as "
        "input_shape=(3, 32, 32)"
    )


def _input_kind(shape: Shape) -> str:
    if len(shape) == 3 and shape[0] in (1, 3):
        return "drawing" if shape[0] == 1 else "image"
    return "point" if shape == (2,) else "numbers"


def _activation(given: str | None, last: str, outputs: int) -> str:
    if given is not None:
        return one_of(given, ("softmax", "sigmoid", "none"), "to_html: activation")
    if last == "LogSoftmax":
        return "exp"
    return "softmax" if outputs > 1 and last not in ("Softmax", "Sigmoid") else "none"


def _names(given: Sequence[str] | None, count: int, option: str, of_what: str) -> list[str] | None:
    if given is None:
        return None
    if isinstance(given, str) or len(given) != count:
        raise ValueError(f"to_html: expected {count} {option}, one for each of the {of_what}")
    return [str(name) for name in given]


def _per_feature(given: ArrayLike | None, default: float, shape: Shape, option: str) -> Array:
    """Return a value for each number of a sample."""
    array = np.asarray(default if given is None else given, np.float64)
    if not np.isfinite(array).all():
        raise ValueError(f"to_html: {option} must be finite")
    if array.ndim == 1 and array.size == shape[0]:
        array = array.reshape(-1, *(1 for _ in shape[1:]))
    try:
        return np.broadcast_to(array, shape)
    except ValueError:
        raise ValueError(
            f"to_html: {option} must be a number, or an array that fits a sample of shape "
            f"{shape}; got shape {array.shape}"
        ) from None


def _examples(given: ArrayLike | None, shape: Shape) -> Array:
    if given is None:
        return np.zeros((0, *shape))
    array = np.asarray(given, np.float64)
    if array.shape[1:] != shape or not np.isfinite(array).all():
        raise ValueError(
            f"to_html: examples must be finite numbers of shape {('N', *shape)}, "
            f"got shape {array.shape}"
        )
    return array


def _targets(given: ArrayLike | None, count: int) -> list[float] | None:
    if given is None:
        return None
    array = np.asarray(given, np.float64)
    if array.shape != (count,) or not np.isfinite(array).all():
        raise ValueError(
            f"to_html: targets must be {count} finite numbers, one for each example, "
            f"got shape {array.shape}"
        )
    return [float(value) for value in array]


def _range(points: Array, means: Array, stds: Array) -> list[tuple[float, float]]:
    """Return the lowest and highest value that is shown of each axis of a plane."""
    low, high = means - 3 * stds, means + 3 * stds
    if len(points):
        low, high = points.min(axis=0), points.max(axis=0)
    margin = np.maximum(0.1 * (high - low), 1e-6)
    return [(float(a), float(b)) for a, b in zip(low - margin, high + margin, strict=True)]
