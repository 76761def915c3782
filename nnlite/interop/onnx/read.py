"""Read an ONNX file as a model that can be trained: `nn.from_onnx`."""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import nnlite as nn

from ...files.model import sequential_arguments
from ...files.reading import as_path
from ...layers.elementwise import Elementwise
from . import functions
from .file import load, shortened
from .metadata import TRAINING

Array = np.ndarray[Any, Any]

# Numbers in an array that the file says how to compute; it could say so of any number of them.
MOST = 1 << 24


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


_UNKNOWN = itertools.count()


@dataclass(frozen=True)
class Size:
    """A size in a shape that is known only when the model runs.

    It is that of an axis of a value, or of all axes with this symbol if `axis` is -1. What is
    computed from sizes is another, of which no more is known than that.
    """

    value: str
    axis: int

    def _computed(self, *others: Any) -> Size:
        return Size("", next(_UNKNOWN))

    __mul__ = __rmul__ = __add__ = __radd__ = __sub__ = __rsub__ = _computed
    __floordiv__ = __rfloordiv__ = __mod__ = __rmod__ = __neg__ = _computed


@dataclass(frozen=True)
class Filled:
    """An array of one number, with an integer or a `Size` for each axis; any shape if None."""

    number: float
    shape: tuple[Any, ...] | None = None

    def spread(self) -> Array | None:
        """Return an array that broadcasts to this one: of size 1 where a size is not known."""
        if self.shape is None:
            return None
        sizes = [size if isinstance(size, int) else 1 for size in self.shape]
        return np.full(sizes, self.number, np.float32) if math.prod(sizes) <= MOST else None


class Model:
    """The graph of layers that grows while the nodes of a file are read."""

    def __init__(self, path: str, proto: onnx.ModelProto, opset: int) -> None:
        self.path = path
        self.opset = opset
        self.is_own = proto.producer_name == "nnlite"
        # Whether all nodes so far are named by the paths that their layers had in containers.
        self.has_paths = self.is_own
        self.layers: dict[str, tuple[Any, ...]] = {}
        # The nodes that do not depend on an input: False, or True if they have one sample in place
        # of a batch whose size is not known.
        self.fixed: dict[str, bool] = {}
        self.wanted: dict[str, str] = {}  # the names of the nodes if they were not taken
        self.values: dict[str, Any] = {}
        self.uses = Counter(name for node in proto.graph.node for name in node.input)
        self.uses.update(output.name for output in proto.graph.output)
        self._paths = {node.name: _module_path(node) for node in proto.graph.node}
        self._parents = {
            path[: dot.start()] for path in self._paths.values() for dot in re.finditer("[.]", path)
        }
        self._parameters: dict[Constant, nn.Parameter] = {}
        self._transposed: dict[Constant, Constant] = {}
        self._types = {
            info.name: info.type
            for info in (*proto.graph.value_info, *proto.graph.input, *proto.graph.output)
        }
        self.integers = {
            info.name
            for info in (*proto.graph.value_info, *proto.graph.input)
            if _is_integer(info.type.tensor_type.elem_type)
        }
        for tensor in proto.graph.initializer:
            array = self.array(tensor)
            self.values[tensor.name] = Constant(array, self._is_trained(tensor.name, array))
            self._types[tensor.name] = helper.make_tensor_type_proto(tensor.data_type, array.shape)
        self.inputs: list[str] = []
        for info in proto.graph.input:
            if info.name not in self.values:
                name = self.unique(info.name)
                self.inputs.append(name)
                self.layers[name] = ()
                self.values[info.name] = Value(name)

    def _is_trained(self, name: str, array: Array) -> bool:
        """Whether an initializer is a parameter.

        Other programs also keep constants of formulas there, which are single numbers or masks.
        """
        if array.dtype.kind != "f" or self.is_own:
            return array.dtype.kind == "f"
        is_number = array.ndim == 0 or (array.shape == (1,) and _COMPUTED.fullmatch(name))
        return not is_number and bool((np.abs(array) < _MASKED).all())

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
        return _shape(self._types[name]) if name in self._types else None

    def size(self, name: str, axis: int) -> Size:
        """Return the size of an axis that varies."""
        dims = self._types[name].tensor_type.shape.dim if name in self._types else []
        symbol = dims[axis].dim_param if axis < len(dims) else ""
        return Size(symbol, -1) if symbol else Size(name, axis)

    def infer(self, proto: onnx.NodeProto) -> None:
        """Find the shapes of the outputs of a node, if they are not all known.

        The inference of the whole file does not know what has been computed from shapes by now.
        """
        for name in proto.output:
            found = self.values.get(name)
            if isinstance(found, Constant):
                dtype = np.dtype(np.int64) if found.array.dtype == object else found.array.dtype
                kind = helper.np_dtype_to_tensor_dtype(dtype)
                self._types[name] = helper.make_tensor_type_proto(kind, found.array.shape)
            elif isinstance(found, Filled) and proto.op_type in ("ConstantOfShape", "Expand"):
                dims = [_dim(size) for size in found.shape or ()]
                self._types[name] = helper.make_tensor_type_proto(TensorProto.FLOAT, dims)
        shapes = [self.shape(name) for name in proto.output if name]
        if all(shape is not None and None not in shape for shape in shapes):
            return
        if proto.op_type == "Reshape":
            inferred = {proto.output[0]: self._type_of_reshape(*proto.input)}
        else:
            inferred = self._inferred(proto)
        for name, kind in inferred.items():
            if kind.tensor_type.HasField("shape"):
                self._types[name] = _merged(kind, self._types.get(name))

    def reshape_filled(self, name: str) -> None:
        """Give an array of one number the shape of the output that it is."""
        found, shape = self.values.get(name), self.shape(name)
        if isinstance(found, Filled):
            sizes = None if shape is None else tuple(
                self.size(name, axis) if size is None else size for axis, size in enumerate(shape)
            )  # fmt: skip
            self.values[name] = Filled(found.number, sizes)

    def _inferred(self, proto: onnx.NodeProto) -> dict[str, onnx.TypeProto]:
        known = {name: self._types[name] for name in proto.input if name in self._types}
        arrays = {name: found.array for name in proto.input
                  if isinstance(found := self.values.get(name), Constant)}  # fmt: skip
        data = {
            name: numpy_helper.from_array(array)
            for name, array in arrays.items()
            if array.dtype != object
        }
        try:
            schema = onnx.defs.get_schema(proto.op_type, self.opset, proto.domain)
            opsets = [helper.make_opsetid("", self.opset)]
            return onnx.shape_inference.infer_node_outputs(
                schema, proto, known, data, opset_imports=opsets
            )
        except (onnx.shape_inference.InferenceError, RuntimeError, ValueError):
            return {}  # the shape stays unknown, and the operator that needs it says so

    def _type_of_reshape(self, data: str, target: str) -> onnx.TypeProto:
        """Return the type of the output of a Reshape to the sizes that it is given."""
        before = self._dims(data)
        dims: list[Any] = []
        for axis, size in enumerate(self.values[target].array.reshape(-1).tolist()):
            if size == 0 and axis < len(before):
                dims.append(before[axis])
            else:
                dims.append(None if size == -1 else _dim(size))
        unknown = [size for size in before if not isinstance(size, int)]
        others = [size for size in dims if size is not None and not isinstance(size, int)]
        if before and dims.count(None) == 1 and len(unknown) - len(others) < 2:
            # The one size that is not given takes what the others leave.
            left = [size for size in unknown if size not in others]
            whole, parts = (
                math.prod(size for size in sizes if isinstance(size, int))
                for sizes in (before, dims)
            )
            if not left and parts and len(unknown) == len(others):
                dims[dims.index(None)] = whole // parts
            elif len(left) == 1 and whole == parts and len(unknown) == len(others) + 1:
                dims[dims.index(None)] = left[0]
        kind = self._types[data].tensor_type.elem_type if data in self._types else 0
        return helper.make_tensor_type_proto(kind, dims)

    def _dims(self, name: str) -> list[Any]:
        """Return the sizes of a value: an integer, a symbol, or None for each."""
        shape = self.shape(name) or []
        return [
            _dim(self.size(name, axis)) if size is None else size for axis, size in enumerate(shape)
        ]

    def parameter(self, constant: Constant) -> nn.Parameter:
        """Return the parameter of a constant: for the same constant always the same."""
        if constant not in self._parameters:
            self._parameters[constant] = nn.Parameter(constant.array, constant.trained)
        return self._parameters[constant]

    def transposed(self, constant: Constant) -> Constant:
        """Return the transposed of a matrix; twice transposed, it is the same constant again."""
        if constant not in self._transposed:
            other = Constant(constant.array.T, constant.trained)
            self._transposed |= {constant: other, other: constant}
        return self._transposed[constant]


class Node:
    """A node of the file that is being read, with what its inputs stand for."""

    def __init__(self, model: Model, proto: onnx.NodeProto) -> None:
        self.model = model
        self.operator: str = proto.op_type
        self.domain: str = proto.domain
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
        is_spread = False
        if isinstance(found, Filled):
            array = found.spread()
            if array is None:
                raise self.refusal("an input is filled with a number, and its shape is not known")
            is_spread = any(isinstance(size, Size) for size in found.shape or ())
            found = Constant(array)
        if not isinstance(found, Constant) or found.array.dtype.kind not in "iuf":
            raise self.refusal("an input is not of numbers")
        if not found.array.ndim and not found.trained:
            return float(found.array)
        if found.array.dtype.kind != "f":
            found = Constant(found.array.astype(np.float32))
        weight = nn.Weight(found.array, found.trained)
        weight.weight = self.model.parameter(found)
        source = self.add(weight).source
        self.model.fixed[source] = is_spread
        return source

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
        self._note_if_fixed(name, layer, sources)
        return Value(name)

    def _note_if_fixed(self, name: str, layer: nn.Layer, sources: list[str | float]) -> None:
        """Note whether a node depends on no input, and that one sample does for a batch in it."""
        names = [source.partition(".")[0] for source in sources if isinstance(source, str)]
        fixed = self.model.fixed
        is_spread = any(fixed.get(each, False) for each in names)
        if is_spread and not (
            isinstance(layer, _PER_SAMPLE) and getattr(layer, "dim", 1) in (1, -1)
        ):
            raise self.refusal(
                "an input has the size of a batch, but no number of the model's input"
            )
        if all(each in fixed for each in names):
            fixed[name] = is_spread

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


# Layers that compute for a batch of one sample what they compute for each of several, alike.
_PER_SAMPLE = (
    *(nn.Add, nn.Subtract, nn.Multiply, nn.Divide, nn.Maximum, nn.Minimum, nn.MatMul, nn.Linear),
    *(nn.Identity, nn.Slice, nn.Split, Elementwise),
)


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
    from .operators import folded

    path = as_path(path, "from_onnx")
    proto, opset = load(path)
    model = Model(path, proto, opset)
    for node_proto in _needed(proto.graph):
        node = Node(model, node_proto)
        try:
            found = folded(node)
            if found is None:
                found = _reader(node)(node)
        except (TypeError, ValueError) as error:
            if str(error).startswith(f"{path}: "):
                raise
            raise node.refusal(shortened(str(error))) from error
        results = found if isinstance(found, tuple) else (found,)
        for index, name in enumerate(node_proto.output):
            if index < len(results):
                model.values[name] = _in_numbers(results[index])
            elif name and model.uses[name]:
                raise node.refusal(f"its output {index} is used, and nnlite has none but the first")
        model.infer(node_proto)
        for name in node_proto.output:
            model.reshape_filled(name)
    result = _assembled(model, proto)
    is_training = {each.key: each.value for each in proto.metadata_props}.get(TRAINING) == "True"
    return result.train(model.is_own and is_training)


def _reader(node: Node) -> Callable[[Node], Any]:
    """Return the function that reads a node."""
    from .operators import OPERATORS

    if node.domain not in ("", "ai.onnx") or node.operator not in OPERATORS:
        of_domain = f" of domain {node.domain!r}" if node.domain else ""
        raise node.refusal(
            shortened(f"nnlite has no layer for the operator {node.operator}{of_domain}")
        )
    return OPERATORS[node.operator]


def _shape(kind: onnx.TypeProto) -> list[Any] | None:
    tensor = kind.tensor_type
    if not tensor.HasField("shape"):
        return None
    return [dim.dim_value if dim.HasField("dim_value") else None for dim in tensor.shape.dim]


def _dim(size: Any) -> Any:
    """Return a size as ONNX has it: an integer, a symbol, or None."""
    if isinstance(size, Size):
        return size.value if size.axis == -1 else None
    return size


def _in_numbers(found: Any) -> Any:
    """Return a constant of sizes, all of which are known, as one of integers."""
    if not isinstance(found, Constant) or found.array.dtype != object:
        return found
    is_known = all(not isinstance(size, Size) for size in found.array.flat)
    return Constant(found.array.astype(np.int64)) if is_known else found


def _merged(kind: onnx.TypeProto, other: onnx.TypeProto | None) -> onnx.TypeProto:
    """Return a type with the sizes that one of two knows, or the symbols."""
    if other is None or len(other.tensor_type.shape.dim) != len(kind.tensor_type.shape.dim):
        return kind
    for dim, known in zip(kind.tensor_type.shape.dim, other.tensor_type.shape.dim, strict=True):
        is_symbol = known.dim_param and not known.dim_param.startswith("unk__")
        if not dim.HasField("dim_value") and (known.HasField("dim_value") or is_symbol):
            dim.CopyFrom(known)
    return kind


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
        if model.fixed.get(source.partition(".")[0]):
            raise end.refusal("it has the size of a batch, but no number of the model's input")
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


# From here on a number in place of -inf begins, as masks have it.
_MASKED = 1e30

# What PyTorch's exporter calls an array that it has computed.
_COMPUTED = re.compile(r"val_\d+")

# Containers in each other; a name of thousands of parts would exhaust the stack.
_DEEPEST = 50
