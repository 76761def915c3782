"""Models of PyTorch as models of nnlite, and back: `nn.from_torch` and `nn.to_torch`.

State-dict keys and shapes are the same on both sides. What is left is how the options of a module
are written for a layer, and back: a row of `PAIRS` for each pair of classes, and one of `FUNCTIONS`
for each layer without parameters that PyTorch has as a function and not as a module.
"""

from __future__ import annotations

import functools
import operator
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.nn import functional

import nnlite as nn

from ..files.model import replace, sequential_arguments, shared
from ..hints import cure_of_compiled
from ..layers.embedding import sinusoids
from ..layers.graph import split_arguments

Options = dict[str, Any]


class RNN(torch.nn.RNN):
    """A recurrent module that returns its outputs alone, as nnlite's layer does."""

    outputs = "all"

    def forward(self, x: Any, *state: Any) -> Any:
        return _outputs(self, super().forward(x, *state))


class LSTM(torch.nn.LSTM):
    """A recurrent module that returns its outputs alone, as nnlite's layer does."""

    outputs = "all"

    def forward(self, x: Any, *state: Any) -> Any:
        return _outputs(self, super().forward(x, state if len(state) > 1 else None))


class GRU(torch.nn.GRU):
    """A recurrent module that returns its outputs alone, as nnlite's layer does."""

    outputs = "all"

    def forward(self, x: Any, *state: Any) -> Any:
        return _outputs(self, super().forward(x, *state))


class LSTMCell(torch.nn.LSTMCell):
    """A cell that takes both of its states one by one too, as nnlite's layer does."""

    def forward(self, x: Any, *state: Any) -> Any:
        return super().forward(x, state if len(state) > 1 else next(iter(state), None))


def _outputs(module: Any, returned: Any) -> Any:
    """Return the outputs after all steps, or that after the last step in each direction."""
    sequence, final = returned
    if module.outputs == "all":
        return sequence
    hidden = final[0] if isinstance(final, tuple) else final
    return torch.cat(tuple(hidden[-2 if module.bidirectional else -1 :]), dim=1)


class MultiheadAttention(torch.nn.MultiheadAttention):
    """Attention that takes the inputs, and returns the output, of nnlite's layer."""

    def forward(  # type: ignore[override]
        self,
        query: Any,
        key: Any = None,
        value: Any = None,
        key_padding_mask: Any = None,
        attn_mask: Any = None,
    ) -> Any:
        key = query if key is None else key
        value = key if value is None else value
        attn_mask = causal_mask(self, query, attn_mask, key.shape[1])
        return super().forward(query, key, value, key_padding_mask, False, attn_mask)[0]


class TransformerEncoderLayer(torch.nn.TransformerEncoderLayer):
    """A layer that can see earlier steps alone, without a mask."""

    def forward(self, src: Any, src_mask: Any = None, src_key_padding_mask: Any = None) -> Any:  # type: ignore[override]
        src_mask = causal_mask(self, src, src_mask)
        return super().forward(src, src_mask, src_key_padding_mask)


class TransformerDecoderLayer(torch.nn.TransformerDecoderLayer):
    """A layer that can see earlier steps alone, without a mask."""

    def forward(
        self, tgt: Any, memory: Any, tgt_mask: Any = None, *masks: Any, **options: Any
    ) -> Any:
        tgt_mask = causal_mask(self, tgt, tgt_mask)
        return super().forward(tgt, memory, tgt_mask, *masks, **options)


def causal_mask(module: Any, query: Any, mask: Any, steps: int | None = None) -> Any:
    """Return `mask`, with later steps masked too if the module is causal."""
    if not getattr(module, "is_causal", False):
        return mask
    shape = query.shape[1], query.shape[1] if steps is None else steps
    later = torch.ones(shape, dtype=torch.bool, device=query.device).triu(1)
    if mask is None:
        return later
    return mask | later if mask.dtype == torch.bool else mask.masked_fill(later, -torch.inf)


class LearnedPositions(torch.nn.Module):
    """A learned vector that is added at each position."""

    def __init__(self, max_len: int, embed_dim: int) -> None:
        super().__init__()
        self.max_len, self.embed_dim = max_len, embed_dim
        self.weight = torch.nn.Parameter(torch.empty(max_len, embed_dim))

    def forward(self, x: Any) -> Any:
        return x + self.weight[: x.shape[1]]


class Pair(NamedTuple):
    """A layer of nnlite and the module that it equals.

    Attributes
    ----------
    layer, module : class
    options : str
        The names of attributes that are arguments of both constructors.
    to_module, to_layer : callable
        Functions from a layer, or a module, to further arguments of the other's constructor.
    fault : callable
        Function from a module to what it has that no layer has, or to an empty string.
    """

    layer: type[nn.Layer]
    module: type[torch.nn.Module]
    options: str = ""
    to_module: Callable[[Any], Options] = lambda layer: {}
    to_layer: Callable[[Any], Options] = lambda module: {}
    fault: Callable[[Any], str] = lambda module: ""


def _bias(either: Any) -> Options:
    return {"bias": either.bias is not None}


def _no_bias(either: Any) -> Options:
    """Return ``bias=False`` where there is a weight alone: an option of newer PyTorch."""
    return {} if (either.weight is None) == (either.bias is None) else {"bias": False}


def _has_scale_alone(module: Any) -> str:
    return "bias=False" if _no_bias(module) else ""


def _window(module: Any) -> Options:
    """Return the options of a convolution, one number where it is the same for all axes."""
    names = ("stride", *_WINDOW.split(), "output_padding")
    is_transposed = isinstance(module, (torch.nn.ConvTranspose1d, torch.nn.ConvTranspose2d))
    return _bias(module) | {
        name: _one_if_alike(getattr(module, name)) for name in names[: 4 + is_transposed]
    }


def _one_if_alike(sizes: Any) -> Any:
    """Return one number for several that are the same."""
    return sizes[0] if isinstance(sizes, tuple) and len(set(sizes)) == 1 else sizes


def _border(module: Any) -> Options:
    return {"padding": _one_if_alike(module.padding)}


def _stride_of_module(layer: Any) -> Options:
    return {"stride": layer.kernel_size if layer.stride is None else layer.stride}


def _stride_of_layer(module: Any) -> Options:
    return {"stride": None if module.stride == module.kernel_size else module.stride}


def _unless(**expected: Any) -> Callable[[Any], str]:
    """Return a function that finds an option that differs from the one that nnlite has."""

    def fault(module: Any) -> str:
        for name, value in expected.items():
            found = getattr(module, name, value)
            if found != value:
                return f"{name}={found!r}"
        return ""

    return fault


def _dim_is_given(module: Any) -> str:
    return "dim=None" if module.dim is None else ""


_WINDOW = "kernel_size padding dilation"
_CONVOLUTION = f"in_channels out_channels stride {_WINDOW} groups"
_AVERAGE = "kernel_size padding ceil_mode count_include_pad"
_CELL = "input_size hidden_size num_layers bias dropout bidirectional"
_NORM = "num_features eps momentum affine track_running_stats"

_is_plain_cell = _unless(batch_first=True, proj_size=0)


def _cell(layer: type[nn.Layer], module: type[torch.nn.Module], options: str = _CELL) -> Pair:
    return Pair(layer, module, options, lambda layer: {"batch_first": True}, fault=_is_plain_cell)


def _pool(layer: type[nn.Layer], module: type[torch.nn.Module], options: str) -> Pair:
    return Pair(layer, module, options, _stride_of_module, _stride_of_layer)


PAIRS = [
    Pair(nn.Linear, torch.nn.Linear, "in_features out_features", _bias, _bias),
    Pair(
        nn.Embedding, torch.nn.Embedding, "num_embeddings embedding_dim padding_idx",
        fault=_unless(max_norm=None, scale_grad_by_freq=False),
    ),
    *(
        Pair(getattr(nn, kind), getattr(torch.nn, kind), options, _bias, _window)
        for rank in (1, 2)
        for kind, options in (
            (f"Conv{rank}d", f"{_CONVOLUTION} padding_mode"),
            (f"ConvTranspose{rank}d", f"{_CONVOLUTION} output_padding"),
        )
    ),
    _pool(nn.MaxPool1d, torch.nn.MaxPool1d, f"{_WINDOW} return_indices ceil_mode"),
    _pool(nn.MaxPool2d, torch.nn.MaxPool2d, f"{_WINDOW} return_indices ceil_mode"),
    _pool(nn.AvgPool1d, torch.nn.AvgPool1d, _AVERAGE),
    _pool(nn.AvgPool2d, torch.nn.AvgPool2d, f"{_AVERAGE} divisor_override"),
    Pair(nn.AdaptiveAvgPool1d, torch.nn.AdaptiveAvgPool1d, "output_size"),
    Pair(nn.AdaptiveAvgPool2d, torch.nn.AdaptiveAvgPool2d, "output_size"),
    Pair(nn.AdaptiveMaxPool1d, torch.nn.AdaptiveMaxPool1d, "output_size return_indices"),
    Pair(nn.AdaptiveMaxPool2d, torch.nn.AdaptiveMaxPool2d, "output_size return_indices"),
    Pair(
        nn.Upsample, torch.nn.Upsample, "size scale_factor mode align_corners",
        fault=_unless(recompute_scale_factor=None),
    ),
    Pair(nn.PixelShuffle, torch.nn.PixelShuffle, "upscale_factor"),
    *(
        Pair(getattr(nn, kind), getattr(torch.nn, kind), options, to_layer=_border)
        for rank in (1, 2)
        for kind, options in (
            (f"ConstantPad{rank}d", "padding value"),
            *((f"{name}Pad{rank}d", "padding")
              for name in ("Zero", "Reflection", "Replication", "Circular")),
        )
    ),
    Pair(nn.BatchNorm1d, torch.nn.BatchNorm1d, _NORM, _no_bias, _no_bias),
    Pair(nn.BatchNorm2d, torch.nn.BatchNorm2d, _NORM, _no_bias, _no_bias),
    Pair(nn.InstanceNorm1d, torch.nn.InstanceNorm1d, _NORM, fault=_has_scale_alone),
    Pair(nn.InstanceNorm2d, torch.nn.InstanceNorm2d, _NORM, fault=_has_scale_alone),
    Pair(
        nn.GroupNorm, torch.nn.GroupNorm, "num_groups num_channels eps affine", _no_bias, _no_bias
    ),
    Pair(nn.LayerNorm, torch.nn.LayerNorm, "normalized_shape eps elementwise_affine", _bias, _bias),
    Pair(nn.RMSNorm, torch.nn.RMSNorm, "normalized_shape eps elementwise_affine"),
    Pair(nn.Dropout, torch.nn.Dropout, "p"),
    Pair(nn.Dropout1d, torch.nn.Dropout1d, "p"),
    Pair(nn.Dropout2d, torch.nn.Dropout2d, "p"),
    _cell(nn.RNN, RNN, f"{_CELL} nonlinearity"),
    _cell(nn.LSTM, LSTM),
    _cell(nn.GRU, GRU),
    Pair(nn.RNNCell, torch.nn.RNNCell, "input_size hidden_size bias nonlinearity"),
    Pair(nn.LSTMCell, LSTMCell, "input_size hidden_size bias"),
    Pair(nn.GRUCell, torch.nn.GRUCell, "input_size hidden_size bias"),
    Pair(nn.Flatten, torch.nn.Flatten, "start_dim end_dim"),
    Pair(nn.Unflatten, torch.nn.Unflatten, "dim unflattened_size"),
    Pair(nn.Identity, torch.nn.Identity),
    Pair(nn.ReLU, torch.nn.ReLU),
    Pair(nn.LeakyReLU, torch.nn.LeakyReLU, "negative_slope"),
    Pair(nn.ELU, torch.nn.ELU, "alpha"),
    Pair(nn.SiLU, torch.nn.SiLU),
    Pair(nn.PReLU, torch.nn.PReLU, "num_parameters init"),
    Pair(nn.SELU, torch.nn.SELU),
    Pair(nn.Mish, torch.nn.Mish),
    Pair(nn.ReLU6, torch.nn.ReLU6),
    Pair(nn.Hardtanh, torch.nn.Hardtanh, "min_val max_val"),
    Pair(nn.Hardswish, torch.nn.Hardswish),
    Pair(nn.Hardsigmoid, torch.nn.Hardsigmoid),
    Pair(nn.Softplus, torch.nn.Softplus, "beta threshold"),
    Pair(nn.Softsign, torch.nn.Softsign),
    Pair(nn.LogSigmoid, torch.nn.LogSigmoid),
    Pair(nn.GLU, torch.nn.GLU, "dim"),
    Pair(nn.GELU, torch.nn.GELU, "approximate"),
    Pair(nn.Sigmoid, torch.nn.Sigmoid),
    Pair(nn.Tanh, torch.nn.Tanh),
    Pair(nn.Softmax, torch.nn.Softmax, "dim", fault=_dim_is_given),
    Pair(nn.LogSoftmax, torch.nn.LogSoftmax, "dim", fault=_dim_is_given),
]  # fmt: skip

_attention = Pair(
    nn.MultiheadAttention, MultiheadAttention, "embed_dim num_heads dropout",
    lambda layer: {
        "bias": layer.bias, "kdim": layer.kdim, "vdim": layer.vdim, "batch_first": True
    },
    lambda module: {
        "bias": module.in_proj_bias is not None,
        "kdim": None if module.kdim == module.embed_dim else module.kdim,
        "vdim": None if module.vdim == module.embed_dim else module.vdim,
        "is_causal": getattr(module, "is_causal", False),
    },
    _unless(batch_first=True, bias_k=None, add_zero_attn=False),
)  # fmt: skip


def _transformer(layer: type[nn.Layer], module: type[torch.nn.Module]) -> Pair:
    def to_module(layer: Any) -> Options:
        names = "d_model nhead dim_feedforward dropout activation layer_norm_eps norm_first bias"
        return {name: getattr(layer, name) for name in names.split()} | {"batch_first": True}

    def to_layer(module: Any) -> Options:
        return {
            "d_model": module.self_attn.embed_dim,
            "nhead": module.self_attn.num_heads,
            "dim_feedforward": module.linear1.out_features,
            "dropout": module.dropout.p,
            "activation": _activation(module),
            "layer_norm_eps": module.norm1.eps,
            "norm_first": module.norm_first,
            "bias": module.linear1.bias is not None,
            "is_causal": getattr(module, "is_causal", False),
        }

    def fault(module: Any) -> str:
        if not module.self_attn.batch_first:
            return "batch_first=False"
        return "" if _activation(module) else "an activation other than relu and gelu"

    return Pair(layer, module, "", to_module, to_layer, fault)


def _activation(module: Any) -> str:
    """Return the name of the activation of a layer of a transformer, empty for any other."""
    found = module.activation
    for name, function, kind in (
        ("relu", functional.relu, torch.nn.ReLU),
        ("gelu", functional.gelu, torch.nn.GELU),
    ):
        if found is function or type(found) is kind:
            return name
    return ""


PAIRS += [
    Pair(nn.LearnedPositions, LearnedPositions, "max_len embed_dim"),
    _attention,
    _transformer(nn.TransformerEncoderLayer, TransformerEncoderLayer),
    _transformer(nn.TransformerDecoderLayer, TransformerDecoderLayer),
]

_BY_LAYER = {pair.layer: pair for pair in PAIRS}
_BY_MODULE = {pair.module: pair for pair in PAIRS} | {
    getattr(torch.nn, pair.module.__name__, pair.module): pair for pair in PAIRS
}

# Functions of a layer without parameters and of its inputs.
FUNCTIONS: dict[type[nn.Layer], Callable[..., Any]] = {
    nn.Abs: lambda layer, x: torch.abs(x),
    nn.Add: lambda layer, *inputs: functools.reduce(operator.add, inputs),
    nn.Divide: lambda layer, a, b: a / b,
    nn.Exp: lambda layer, x: torch.exp(x),
    nn.GlobalAvgPool1d: lambda layer, x: x.mean(2),
    nn.GlobalAvgPool2d: lambda layer, x: x.mean((2, 3)),
    nn.GlobalMaxPool1d: lambda layer, x: functional.adaptive_max_pool1d(x, 1).flatten(1),
    nn.GlobalMaxPool2d: lambda layer, x: functional.adaptive_max_pool2d(x, 1).flatten(1),
    nn.Log: lambda layer, x: torch.log(x),
    nn.MatMul: lambda layer, a, b: torch.matmul(a, b),
    nn.Maximum: lambda layer, a, b: torch.maximum(a, b),
    nn.Mean: lambda layer, x: x.mean(layer.dim, layer.keepdim),
    nn.Minimum: lambda layer, a, b: torch.minimum(a, b),
    nn.Multiply: lambda layer, *inputs: functools.reduce(operator.mul, inputs),
    nn.Negative: lambda layer, x: -x,
    nn.Power: lambda layer, x: x**layer.exponent,
    nn.Reciprocal: lambda layer, x: torch.reciprocal(x),
    nn.Reshape: lambda layer, x: x.reshape(len(x), *layer.shape),
    nn.Sqrt: lambda layer, x: torch.sqrt(x),
    nn.Square: lambda layer, x: torch.square(x),
    nn.Concatenate: lambda layer, *inputs: torch.cat(inputs, layer.dim),
    nn.Permute: lambda layer, x: x.permute(layer.dims),
    nn.SinusoidalPositions: lambda layer, x: x + torch.tensor(_sinusoids(x), device=x.device),
    nn.Slice: lambda layer, x: x[
        (slice(None),) * (layer.dim % x.ndim) + (slice(layer.start, layer.stop, layer.step),)
    ],
    nn.Split: lambda layer, x: x.split(layer.split_size_or_sections, layer.dim),
    nn.Squeeze: lambda layer, x: x.squeeze(layer.dim),
    nn.Stack: lambda layer, *inputs: torch.stack(inputs, layer.dim),
    nn.Unsqueeze: lambda layer, x: x.unsqueeze(layer.dim),
    nn.Subtract: lambda layer, a, b: a - b,
    nn.Sum: lambda layer, x: x.sum(layer.dim, layer.keepdim),
}


def _sinusoids(x: Any) -> Any:
    return sinusoids(*x.shape[1:], np.dtype(str(x.dtype).removeprefix("torch.")))


class Function(torch.nn.Module):
    """A layer without parameters as a module."""

    def __init__(self, layer: nn.Layer) -> None:
        super().__init__()
        self.layer = layer.tied()  # without the cache

    def forward(self, *inputs: Any) -> Any:
        return FUNCTIONS[type(self.layer)](self.layer, *inputs)

    def extra_repr(self) -> str:
        return repr(self.layer)


class Weight(torch.nn.Module):
    """A parameter as a module without inputs."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.empty(shape))

    def forward(self) -> Any:
        return self.weight


class Residual(torch.nn.Module):
    """A module with a shortcut around it."""

    def __init__(self, body: torch.nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Any) -> Any:
        return x + self.body(x)


class Graph(torch.nn.Module):
    """Named modules with the names of their inputs, as in `nnlite.Graph`."""

    def __init__(self, graph: nn.Graph, modules: dict[str, torch.nn.Module]) -> None:
        super().__init__()
        for name, module in modules.items():
            self.add_module(name, module)
        self.inputs, self.outputs, self.arguments = graph.inputs, graph.outputs, graph.arguments
        self._order = graph.order

    def forward(self, *inputs: Any) -> Any:
        values = dict(zip(self.inputs, inputs, strict=True))
        dtype = next((each.dtype for each in (*self.parameters(), *inputs)), torch.float32)

        def value(source: str | float) -> Any:
            if not isinstance(source, str):
                return torch.tensor(source, dtype=dtype)
            node, dot, item = source.partition(".")
            if not dot:
                return values[node]
            child: Any = self.get_submodule(node)
            named = isinstance(child, Graph) and item in child.outputs
            return values[node][child.outputs.index(item) if named else int(item)]

        for name in self._order:
            positional, by_keyword = split_arguments(self.arguments[name])
            values[name] = self.get_submodule(name)(
                *map(value, positional),
                **{keyword: value(source) for keyword, source in by_keyword.items()},
            )
        results = tuple(value(output) for output in self.outputs)
        return results[0] if len(results) == 1 else results


# ---- from PyTorch ----

# A list of layers, of one input, and a normalization.
_STACKS = (torch.nn.TransformerEncoder,)


def from_torch(module: torch.nn.Module) -> nn.Layer:
    """Return a model of nnlite that computes what a module of PyTorch computes.

    Parameters
    ----------
    module : torch.nn.Module
        A module that nnlite has a layer for, or a ``torch.nn.Sequential`` of these and of others.

    Returns
    -------
    Layer
        With the same state dict, in the same mode; the weights are copied. What was not trained
        (``requires_grad`` is False) is not trained, and weights that were shared are shared.

    Raises
    ------
    TypeError
        If `module` is no module of PyTorch.
    ValueError
        If nnlite has no layer for a module in it, or for an option of one. The message names it.
        Modules with a ``forward`` of their own can come over as files: see `from_onnx`.
    ImportError
        If PyTorch is missing.

    See Also
    --------
    to_torch : The way back.

    Notes
    -----
    Recurrent modules must have ``batch_first=True``. A layer of nnlite returns the outputs alone,
    without the final state.

    Examples
    --------
    >>> import torch
    >>> import nnlite as nn
    >>> nn.from_torch(torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU()))
    Sequential(
        Linear(3, 4),
        ReLU(),
    )
    """
    if not isinstance(module, torch.nn.Module):
        raise TypeError(f"from_torch: expected a torch.nn.Module, got {type(module).__name__}")
    model = _layer(module, "", {})
    entries = [*module.named_parameters(remove_duplicate=False), *module.named_buffers()]
    if any(entry.dtype == torch.float64 for _, entry in entries):
        model.astype(np.float64)
    names = defaultdict(list)
    for name, entry in entries:
        names[id(entry)].append(name)
    for first, *others in names.values():
        for name in others:
            replace(model, name, first)
    model.load_state_dict(
        {name: entry.detach().cpu().numpy() for name, entry in module.state_dict().items()}
    )
    trained = dict(module.named_parameters())
    for name, parameter in model.named_parameters():
        parameter.requires_grad = trained[name].requires_grad
    modes = {name: each.training for name, each in module.named_modules(remove_duplicate=False)}
    for name, layer in model.named_layers():
        while name not in modes:  # a part of a layer that PyTorch has as one module
            name = name.rpartition(".")[0]
        layer.training = modes[name]
    return model


def _layer(module: Any, path: str, seen: dict[int, nn.Layer]) -> nn.Layer:
    """Return a new layer for a module, with other weights."""
    if id(module) in seen:
        return seen[id(module)].tied()
    kind = type(module)
    layer: nn.Layer
    if kind in (torch.nn.Sequential, torch.nn.ModuleList, *_STACKS):
        children = {
            name: _layer(child, f"{path}.{name}".lstrip("."), seen)
            for name, child in module._modules.items()
            if child is not None
        }
        layer = nn.Sequential(*sequential_arguments(children))
    elif kind is Residual:
        layer = nn.Residual(*_layer(module.body, f"{path}.body".lstrip("."), seen))  # type: ignore[misc]
    elif kind is Graph:
        layer = nn.Graph(
            {
                name: (_layer(child, f"{path}.{name}".lstrip("."), seen), *module.arguments[name])
                for name, child in module._modules.items()
            },
            inputs=module.inputs,
            outputs=module.outputs,
        )  # fmt: skip
    elif kind is Function:
        layer = module.layer.tied()
    elif kind is Weight:
        layer = nn.Weight(np.empty(module.weight.shape, np.float32))
    else:
        layer = _paired_layer(module, path)
    seen[id(module)] = layer
    return layer


def _paired_layer(module: Any, path: str) -> nn.Layer:
    pair = _BY_MODULE.get(type(module))
    if pair is None:
        raise ValueError(_unknown(path, f"the module {type(module).__name__}"))
    fault = pair.fault(module)
    if fault:
        raise ValueError(_unknown(path, f"{type(module).__name__} with {fault}"))
    options = {name: getattr(module, name) for name in pair.options.split()}
    layer: Any = pair.layer(**options | pair.to_layer(module))
    if isinstance(module, (RNN, LSTM, GRU)):
        layer.outputs = module.outputs
    return layer


def _unknown(path: str, what: str) -> str:
    place = f"module {path!r}: " if path else ""
    return (
        f"from_torch: {place}nnlite has no layer for {what}; "
        f"export the model with torch.onnx, and read it with nnlite.from_onnx"
    )


# ---- to PyTorch ----


def to_torch(model: nn.Layer) -> torch.nn.Module:
    """Return a module of PyTorch that computes what a model of nnlite computes.

    Parameters
    ----------
    model : Layer
        Layers of nnlite, in `Sequential`, `Residual` and `Graph`.

    Returns
    -------
    torch.nn.Module
        With the same state dict, in the same mode, on the CPU; the weights are copied.

    Raises
    ------
    TypeError
        If `model` is no layer.
    ValueError
        If PyTorch has no module for a layer, such as a `Lambda`. The message names it.
    ImportError
        If PyTorch is missing.

    See Also
    --------
    from_torch : The way back.

    Examples
    --------
    >>> import nnlite as nn
    >>> nn.to_torch(nn.Sequential(nn.Linear(3, 4), nn.ReLU()))
    Sequential(
      (0): Linear(in_features=3, out_features=4, bias=True)
      (1): ReLU()
    )
    """
    if not isinstance(model, nn.Layer):
        raise TypeError(f"to_torch: expected a model, got {type(model).__name__}")
    module = _module(model, "")
    state = model.state_dict()
    if any(array.dtype == np.float64 for array in state.values()):
        module.double()
    for first, *others in shared(model):
        for name in others:
            path, _, attribute = name.rpartition(".")
            start, _, source = first.rpartition(".")
            entry = getattr(module.get_submodule(start), source)
            setattr(module.get_submodule(path), attribute, entry)
    module.load_state_dict({name: torch.from_numpy(array) for name, array in state.items()})
    trained = {name: each.requires_grad for name, each in model.named_parameters()}
    for name, parameter in module.named_parameters():
        parameter.requires_grad = trained[name]
    modes = {name: layer.training for name, layer in model.named_layers()}
    for name, each in module.named_modules(remove_duplicate=False):
        each.training = modes.get(name, model.training)
    return module


def _module(layer: Any, path: str) -> torch.nn.Module:
    """Return a new module for a layer, with other weights."""
    kind = type(layer)
    children = {
        name: _module(child, f"{path}.{name}".lstrip("."))
        for name, child in layer.named_children()
    }  # fmt: skip
    if isinstance(layer, nn.Sequential) and kind.forward is nn.Sequential.forward:
        return torch.nn.Sequential(OrderedDict(children))
    if isinstance(layer, nn.Residual) and kind.forward is nn.Residual.forward:
        return Residual(children["body"])
    if isinstance(layer, nn.Graph) and kind.forward is nn.Graph.forward:
        return Graph(layer, children)
    if kind is nn.Weight:
        return Weight(layer.weight.shape)
    if kind in FUNCTIONS:
        return Function(layer)
    pair = _BY_LAYER.get(kind)
    if pair is None or getattr(layer, "truncate", None) is not None:
        place = f"layer {path!r}: " if path else ""
        cure = cure_of_compiled(layer)
        ending = f"; {cure}" if cure else ""
        raise ValueError(f"to_torch: {place}PyTorch has no module for {layer.label}{ending}")
    options = {name: getattr(layer, name) for name in pair.options.split()}
    module: Any = pair.module(**options | pair.to_module(layer))
    if isinstance(module, (RNN, LSTM, GRU)):
        module.outputs = layer.outputs
    if getattr(layer, "is_causal", False):
        module.is_causal = True
    return module
