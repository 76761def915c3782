"""Read an ONNX file as a model that can be trained: `nn.from_onnx`."""

from __future__ import annotations

import contextlib
import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import nnlite as nn

from ...files.model import sequential_arguments
from ...files.reading import as_path
from . import functions
from .file import load, shortened
from .metadata import TRAINING

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, eq=False)
class Constant:
    """An array in the file, or made of such: integers and floats, or the sizes of a shape."""

    array: Array
    trained: bool = False


@dataclass(frozen=True)
class Value:
    """The output of a node: the value `source` of the graph of layers, with other axes.

    The differences are of axes only, and many cancel out before a layer needs the value: nnlite's
    recurrent layers have the batch first and both directions in one axis, ONNX's do not.

    Attributes
    ----------
    source : str
        A node, or an input, of the graph of layers.
    directions : int
        If above 0, the last axis is split into two, of which the first has this size.
    axes : tuple of int, optional
        The axes, with the last one split, in another order.
    ones : int
        How many axes of size 1 follow.
    """

    source: str
    directions: int = 0
    axes: tuple[int, ...] | None = None
    ones: int = 0


@dataclass(frozen=True)
class Size:
    """A size in a shape that is known only when the model runs.

    It is that of an axis of a value, or of all axes with this symbol if `axis` is -1.
    """

    value: str
    axis: int

    def __mul__(self, other: Any) -> Size:
        return Size("", -1)

    __rmul__ = __mul__


@dataclass(frozen=True)
class Filled:
    """An array of one number, of any shape."""

    number: float


class Model:
    """The graph of layers that grows while the nodes of a file are read."""

    def __init__(self, path: str, proto: onnx.ModelProto, opset: int) -> None:
        self.path = path
        self.opset = opset
        self.is_own = proto.producer_name == "nnlite"
        # Whether all nodes so far are named by the paths that their layers had in containers.
        self.has_paths = self.is_own
        self.layers: dict[str, tuple[Any, ...]] = {}
        self.wanted: dict[str, str] = {}  # the names of the nodes if they were not taken
        self.values: dict[str, Any] = {}
        self.uses = Counter(name for node in proto.graph.node for name in node.input)
        self.uses.update(output.name for output in proto.graph.output)
        self._paths = {node.name: _module_path(node) for node in proto.graph.node}
        self._parents = {
            path[: dot.start()] for path in self._paths.values() for dot in re.finditer("[.]", path)
        }
        self._parameters: dict[int, nn.Parameter] = {}
        self._transposed: dict[int, Constant] = {}
        self._shapes = {
            info.name: _shape(info)
            for info in (*proto.graph.value_info, *proto.graph.input, *proto.graph.output)
        }
        self._symbols = {
            (info.name, axis): dim.dim_param
            for info in (*proto.graph.value_info, *proto.graph.input, *proto.graph.output)
            for axis, dim in enumerate(info.type.tensor_type.shape.dim)
        }
        self.integers = {
            info.name
            for info in (*proto.graph.value_info, *proto.graph.input)
            if _is_integer(info.type.tensor_type.elem_type)
        }
        for tensor in proto.graph.initializer:
            array = self.array(tensor)
            # Other programs also keep constants of formulas here, which are single numbers.
            trained = array.dtype.kind == "f" and (array.ndim > 0 or self.is_own)
            self.values[tensor.name] = Constant(array, trained)
            self._shapes[tensor.name] = list(array.shape)
        self.inputs: list[str] = []
        for info in proto.graph.input:
            if info.name not in self.values:
                name = self.unique(info.name)
                self.inputs.append(name)
                self.layers[name] = ()
                self.values[info.name] = Value(name)

    def array(self, tensor: TensorProto) -> Array:
        try:
            array = numpy_helper.to_array(tensor)
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(f"{self.path}: tensor {shortened(tensor.name)!r}: {error}") from error
        return np.asarray(array)

    def unique(self, name: str) -> str:
        """Return a name for a node: without dots, which separate the names in a state dict."""
        name = wanted = name.replace(".", "/") or "node"
        count = 1
        while name in self.layers:
            count += 1
            name = f"{wanted}_{count}"
            self.has_paths = False
        self.wanted[name] = wanted
        return name

    def name_of(self, proto: onnx.NodeProto) -> str:
        """Return what the layer of a node is called: as PyTorch's module, if it is known."""
        if self.is_own or not self._paths.get(proto.name):
            return _base(proto)
        path = self._paths[proto.name]
        # A module with modules in it computes more than they do.
        return f"{path}.{proto.op_type.lower()}" if path in self._parents else path

    def shape(self, name: str) -> list[Any] | None:
        """Return the shape of a value of the file, with None for sizes that vary, or None."""
        return self._shapes.get(name)

    def size(self, name: str, axis: int) -> Size:
        """Return the size of an axis that varies."""
        symbol = self._symbols.get((name, axis))
        return Size(symbol, -1) if symbol else Size(name, axis)

    def parameter(self, constant: Constant) -> nn.Parameter:
        """Return the parameter of a constant: for the same constant always the same."""
        if id(constant) not in self._parameters:
            parameter = nn.Parameter(constant.array, constant.trained)
            self._parameters[id(constant)] = parameter
        return self._parameters[id(constant)]

    def transposed(self, constant: Constant) -> Constant:
        """Return the transposed of a matrix; twice transposed, it is the same constant again."""
        if id(constant) not in self._transposed:
            other = Constant(constant.array.T, constant.trained)
            self._transposed |= {id(constant): other, id(other): constant}
        return self._transposed[id(constant)]


class Node:
    """A node of the file that is being read, with what its inputs stand for."""

    def __init__(self, model: Model, proto: onnx.NodeProto) -> None:
        self.model = model
        self.operator: str = proto.op_type
        self.opset = model.opset
        self.names = list(proto.input)
        self.output: str = proto.output[0]
        self.outputs = len(proto.output)
        self._proto = proto
        self._options = {each.name: helper.get_attribute_value(each) for each in proto.attribute}
        self._base = model.name_of(proto)

    def refusal(self, reason: str) -> ValueError:
        """Return the error that says why the node cannot be read; it names file and node."""
        name = shortened(self._proto.name or self.output)
        return ValueError(f"{self.model.path}: node {name!r} ({self.operator}): {reason}")

    # ---- options and inputs ----

    def option(self, name: str, default: Any = None) -> Any:
        """Return an attribute; texts are str."""
        value = self._options.get(name, default)
        return value.decode("utf-8", "replace") if isinstance(value, bytes) else value

    def has(self, index: int) -> bool:
        """Whether there is an input at this place."""
        return index < len(self.names) and self.names[index] != ""

    def input(self, index: int) -> Any:
        """Return what an input stands for: a `Value`, a `Constant` or `Filled`."""
        if not self.has(index):
            raise self.refusal(f"input {index} is missing")
        return self.model.values[self.names[index]]

    def inputs(self) -> list[Any]:
        return [self.input(index) for index in range(len(self.names))]

    def shape(self, index: int) -> list[Any] | None:
        """Return the shape of an input, with None for sizes that vary, or None."""
        return self.model.shape(self.names[index])

    def rank(self, index: int) -> int:
        """Return the number of axes of an input."""
        shape = self.shape(index)
        if shape is None:
            raise self.refusal("the number of axes of its input is not known")
        return len(shape)

    def is_of_integers(self, index: int) -> bool:
        """Whether an input, or what a node computes for it, is known to be of integers."""
        return self.names[index] in self.model.integers

    def constant(self, index: int) -> Constant:
        """Return an input that is in the file."""
        found = self.input(index)
        if not isinstance(found, Constant):
            raise self.refusal(f"input {index} must be in the file, it cannot be computed or given")
        return found

    def array(self, index: int) -> Array:
        return self.constant(index).array

    def integers(self, index: int, option: str) -> list[int] | None:
        """Return the list of integers that is an input, or in older versions an attribute."""
        if option in self._options:
            return list(np.atleast_1d(self._options[option]))
        return self.array(index).reshape(-1).tolist() if self.has(index) else None

    def uses(self, output: int = 0) -> int:
        """Return how often an output is used."""
        names = self._proto.output
        return self.model.uses[names[output]] if output < len(names) and names[output] else 0

    # ---- the graph of layers ----

    def source(self, found: Any) -> str | float:
        """Return what a layer takes for what an input stands for."""
        if isinstance(found, Value):
            return self.plain(found)
        if not isinstance(found, Constant) or found.array.dtype.kind not in "iuf":
            raise self.refusal("an input is not of numbers")
        if not found.array.ndim and not found.trained:
            return float(found.array)
        if found.array.dtype.kind != "f":
            found = Constant(found.array.astype(np.float32))
        weight = nn.Weight(found.array, found.trained)
        weight.weight = self.model.parameter(found)
        return self.add(weight).source

    def plain(self, value: Value) -> str:
        """Return the source of a value, with layers for its different axes if it has any."""
        if value.directions:
            rank = len(value.axes or ())
            split = self.add(nn.Unflatten(rank - 2, (value.directions, -1)), value.source)
            value = Value(split.source, 0, value.axes)
        if value.axes is not None and value.axes != tuple(range(len(value.axes))):
            value = self.add(nn.Permute(*value.axes), value.source)
        if value.ones:
            return self.add(nn.Reshape(-1, *[1] * value.ones), value.source).source
        return value.source

    def add(self, layer: nn.Layer, *inputs: Value | str | float) -> Value:
        """Add a layer to the graph, and return its output."""
        # Sources first: they may add layers, which must have other names than this one.
        sources = [self.plain(each) if isinstance(each, Value) else each for each in inputs]
        name = self.model.unique(self._base)
        self.model.has_paths &= "/" in self._proto.name
        self.model.layers[name] = (layer, *sources)
        return Value(name)

    def chain(self, layers: Iterable[nn.Layer], index: int = 0) -> Value:
        """Add layers to the graph of which the first takes an input, and return their output."""
        value: Value | str | float = self.source(self.input(index))
        for layer in layers:
            value = self.add(layer, value)
        return value if isinstance(value, Value) else Value(str(value))

    def function(self, function: functions.Function) -> Value:
        """Add a function of the first input to the graph, and return its output."""
        return self.chain([functions.as_layer(function)])

    def layer_of(self, found: Any) -> nn.Layer | None:
        """Return the layer that computes a value, if it is that layer's output as it is."""
        if isinstance(found, Value) and found == Value(found.source):
            return next(iter(self.model.layers.get(found.source, ())), None)
        return None

    def arguments_of(self, value: Value) -> tuple[Any, ...]:
        return self.model.layers[value.source][1:]

    def remove(self, value: Value) -> None:
        """Take back the layer that computes a value, which nothing else uses."""
        del self.model.layers[value.source]


def from_onnx(path: str | os.PathLike[str]) -> nn.Sequential | nn.Graph:
    """Read an ONNX file as a model that can be trained on.

    Parameters
    ----------
    path : str or path-like
        A file that `to_onnx`, PyTorch or another program has written, of opset 9 to 28. It may
        come from anywhere.

    Returns
    -------
    Sequential or Graph
        A `Sequential` if each layer takes the output of the one before it, otherwise a `Graph`. A
        file that `to_onnx` has written gives a model in the mode of the one that was written, its
        layers in the same containers; any other is in evaluation mode, which is what the file
        computes: call ``train()`` to train it.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is damaged or no ONNX file; if it has an operator, or an option of one, that
        nnlite has no layer for; or if its opset is newer. The message names the file and the node.
    ImportError
        If the package ``onnx`` is missing: ``pip install onnx``.

    See Also
    --------
    to_onnx : The way there.

    Notes
    -----
    The layers of a file that PyTorch has written are named as its modules. Initializers become
    parameters, with the values and the dtype of the file; constants, and
    single numbers in the files of other programs, are not trained. Nothing in a file is executed,
    and no memory is taken that its size does not justify. Tensors may be in files of their own, in
    the same folder or below it; those elsewhere are refused.

    Some of a model is not in the file: the dropout between recurrent layers, `padding_idx`,
    `truncate`, and a `momentum` of None.

    Examples
    --------
    See `to_onnx`.
    """
    from .operators import OPERATORS

    path = as_path(path, "from_onnx")
    proto, opset = load(path)
    model = Model(path, proto, opset)
    for node_proto in _needed(proto.graph):
        node = Node(model, node_proto)
        if node_proto.domain not in ("", "ai.onnx") or node.operator not in OPERATORS:
            domain = f" of domain {node_proto.domain!r}" if node_proto.domain else ""
            raise node.refusal(
                shortened(f"nnlite has no layer for the operator {node.operator}{domain}")
            )
        try:
            found = OPERATORS[node.operator](node)
        except (TypeError, ValueError) as error:
            if str(error).startswith(f"{path}: "):
                raise
            raise node.refusal(shortened(str(error))) from error
        results = found if isinstance(found, tuple) else (found,)
        for index, name in enumerate(node_proto.output):
            if index < len(results):
                model.values[name] = results[index]
            elif name and model.uses[name]:
                raise node.refusal(f"its output {index} is used, and nnlite has none but the first")
    result = _assembled(model, proto)
    is_training = {each.key: each.value for each in proto.metadata_props}.get(TRAINING) == "True"
    return result.train(model.is_own and is_training)


def _shape(info: onnx.ValueInfoProto) -> list[Any] | None:
    tensor = info.type.tensor_type
    if not tensor.HasField("shape"):
        return None
    return [dim.dim_value if dim.HasField("dim_value") else None for dim in tensor.shape.dim]


def _is_integer(kind: int) -> bool:
    return kind != TensorProto.UNDEFINED and helper.tensor_dtype_to_np_dtype(kind).kind in "iu"


def _base(proto: onnx.NodeProto) -> str:
    """Return what a layer is called in the graph: the node's name without that of the operator."""
    name = (proto.name or proto.output[0]).strip("/").removeprefix("node_")
    first, slash, last = name.rpartition("/")
    return first if slash and last.startswith(proto.op_type) else name


def _module_path(proto: onnx.NodeProto) -> str:
    """Return the path of the module of PyTorch that a node comes from, as in the state dict.

    It is empty for the whole network, and where it is not known.
    """
    for entry in proto.metadata_props:
        if entry.key == "pkg.torch.onnx.name_scopes":  # "['', '1', '1.0', 'relu']"
            return ["", *re.findall(r"'([^']*)'", entry.value)[:-1]][-1]
    if proto.name.startswith("/"):  # "/block/block.0/Gemm"
        parts: list[str] = []
        for part in proto.name.strip("/").split("/")[:-1]:
            if parts and part.startswith(f"{parts[-1]}."):
                parts.pop()
            parts.append(part)
        return ".".join(parts)
    weights = [name for name in proto.input[1:] if name.endswith(".weight")]
    return weights[0].removesuffix(".weight") if weights else ""


def _needed(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """Return the nodes that an output depends on, in the order of the file."""
    wanted = {output.name for output in graph.output}
    needed = []
    for node in reversed(graph.node):
        if not wanted.isdisjoint(node.output):
            wanted.update(node.input)
            needed.append(node)
    return needed[::-1]


def _assembled(model: Model, proto: onnx.ModelProto) -> nn.Sequential | nn.Graph:
    """Return the model of all layers that an output depends on."""
    outputs: list[str] = []
    for info in proto.graph.output:
        if info.name not in model.values:
            raise ValueError(f"{model.path}: output {shortened(info.name)!r} is not computed")
        end = Node(model, helper.make_node("Identity", [info.name], [info.name], name=info.name))
        source = end.source(end.input(0))
        if isinstance(source, float):
            raise end.refusal("it is a single number")
        if not model.layers.get(source) or source in outputs:
            # Neither an input, one of several outputs of a node, nor another output can be one.
            source = end.add(nn.Identity(), source).source
        outputs.append(source)
    layers = _reached(model.layers, outputs)
    chain = _chain(layers, model.inputs, outputs)
    if chain is not None:
        if model.has_paths or not model.is_own:
            with contextlib.suppress(ValueError):
                return _nested(_renamed(chain, model.wanted))
        return nn.Sequential(*chain.values())
    for name in model.inputs:
        if not any(name in sources for _, *sources in layers.values()):
            raise ValueError(f"{model.path}: no node uses the input {shortened(name)!r}")
    return nn.Graph(layers, inputs=model.inputs, outputs=outputs)


def _reached(
    layers: dict[str, tuple[Any, ...]], outputs: Sequence[str]
) -> dict[str, tuple[Any, ...]]:
    """Return the nodes that an output depends on, in the order in which they were added."""
    reached: set[str] = set()
    waiting = list(outputs)
    while waiting:
        name = waiting.pop().partition(".")[0]  # "split.1" is an output of the node "split"
        if name not in reached:
            reached.add(name)
            waiting += [source for source in layers[name][1:] if isinstance(source, str)]
    return {name: node for name, node in layers.items() if node and name in reached}


def _chain(
    layers: dict[str, tuple[Any, ...]], inputs: list[str], outputs: list[str]
) -> dict[str, nn.Layer] | None:
    """Return the layers if each takes the output of the one before it, and no more."""
    if len(inputs) != 1 or len(outputs) != 1:
        return None
    last, chain = inputs[0], {}
    for name, (layer, *sources) in layers.items():
        if sources != [last]:
            return None
        chain[name] = layer
        last = name
    return chain if last == outputs[0] else None


def _renamed(layers: dict[str, nn.Layer], wanted: dict[str, str]) -> dict[str, nn.Layer]:
    """Return the layers by the names that were wanted, as far as none of the others has them."""
    renamed: dict[str, nn.Layer] = {}
    for name, layer in layers.items():
        is_free = wanted[name] not in renamed and wanted[name] not in layers
        renamed[wanted[name] if is_free else name] = layer
    return renamed


def _nested(layers: dict[str, nn.Layer]) -> nn.Sequential:
    """Return the layers in containers, by the paths that are their names.

    Raises
    ------
    ValueError
        If the layers of a container do not follow each other, or a name cannot be that of a layer.
    """
    groups: dict[str, dict[str, nn.Layer]] = {}
    for path, layer in layers.items():
        name, _, rest = path.partition("/")
        if name in groups and (name != [*groups][-1] or not rest or "" in groups[name]):
            raise ValueError(f"{path!r} is not beside the others of its container")
        if path.count("/") > _DEEPEST:
            raise ValueError(f"{path!r:.80} is in too many containers")
        groups.setdefault(name, {})[rest] = layer
    children = {
        name: group[""] if "" in group else _nested(group) for name, group in groups.items()
    }
    return nn.Sequential(*sequential_arguments(children))


# Containers in each other; a name of thousands of parts would exhaust the stack.
_DEEPEST = 50
