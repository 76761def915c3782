"""Write a model as an ONNX file: `nn.to_onnx`."""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import ArrayLike, DTypeLike
from onnx import helper, numpy_helper

import nnlite as nn

from ...checks import integer
from ...files.atomic import replacing
from ...files.reading import as_path
from ...hints import cure_of_compiled
from ...layers.graph import split_arguments
from ...modes import evaluating
from .metadata import TRAINING

# The newest operator that is written is Gelu, of version 20; onnxruntime reads it from 1.17 on.
OPSET = 20
_IR_VERSION = 9

_BATCH = "N"
# Samples in the batch with which the shapes of all values are found.
_SAMPLES = 2


@dataclass(frozen=True)
class Value:
    """A value of the file: its name, and what it is for a batch of two samples of ones."""

    name: str
    sample: Any


class Scope:
    """Where a layer writes its nodes: a file, and the name of the layer in the model."""

    def __init__(self, file: _File, path: str, layer: nn.Layer) -> None:
        self._file = file
        self._path = path
        self._layer = layer

    def add(self, operator: str, *inputs: Value | str, outputs: int = 1, **options: Any) -> Any:
        """Add a node, and return the name of its output, or a tuple of several.

        An option of None is left out.
        """
        file, given = self._file, [each if isinstance(each, str) else each.name for each in inputs]
        names = tuple(file.unique(f"{self._path}/{operator}".lstrip("/")) for _ in range(outputs))
        options = {name: value for name, value in options.items() if value is not None}
        file.nodes.append(helper.make_node(operator, given, names, name=names[0], **options))
        return names if outputs > 1 else names[0]

    def constant(self, value: ArrayLike, dtype: DTypeLike | None = None) -> str:
        """Add a constant, and return its name; integers are int64, as ONNX has its shapes."""
        array = np.asarray(value, dtype)
        array = array.astype(np.int64) if array.dtype.kind in "iu" else array
        return self._file.constant(f"{self._path}/Constant".lstrip("/"), array)

    def parameter(self, name: str) -> str:
        """Add a parameter or a buffer of the layer, and return its name in the state dict.

        A parameter that is not trained is a constant, so that a reader can tell.
        """
        entry = getattr(self._layer, name)
        path = f"{self._path}.{name}".lstrip(".")
        return self._file.parameter(path, entry)

    def child(self, name: str, layer: nn.Layer, *inputs: Value, **by_keyword: Value) -> Any:
        """Write a sub-layer, and return its output: a value, or a tuple of values."""
        return self._file.layer(f"{self._path}.{name}".lstrip("."), layer, *inputs, **by_keyword)

    def evaluate(self, layer: nn.Layer, *inputs: Value, **by_keyword: Value) -> Any:
        """Return the output of `layer` for the samples of its inputs."""
        options = {name: value.sample for name, value in by_keyword.items()}
        with evaluating(), np.errstate(all="ignore"):
            return layer(*(value.sample for value in inputs), **options)


class _File:
    """The nodes and initializers that have been added so far."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self._names: set[str] = set()
        self._parameters: dict[int, str] = {}

    def unique(self, name: str) -> str:
        wanted, count = name, 1
        while name in self._names:
            count += 1
            name = f"{wanted}_{count}"
        self._names.add(name)
        return name

    def constant(self, name: str, array: np.ndarray[Any, Any]) -> str:
        name = self.unique(name)
        tensor = numpy_helper.from_array(array)
        self.nodes.append(helper.make_node("Constant", [], [name], value=tensor))
        return name

    def parameter(self, path: str, entry: nn.Parameter | np.ndarray[Any, Any]) -> str:
        if id(entry) not in self._parameters:
            if isinstance(entry, nn.Parameter) and not entry.requires_grad:
                self._parameters[id(entry)] = self.constant(path, entry.data)
            else:
                array = entry.data if isinstance(entry, nn.Parameter) else entry
                self._parameters[id(entry)] = path = self.unique(path)
                self.initializers.append(numpy_helper.from_array(array, path))
        return self._parameters[id(entry)]

    def layer(self, path: str, layer: nn.Layer, *inputs: Value, **by_keyword: Value) -> Any:
        from .forms import form_of

        form = form_of(layer)
        name = f"layer {path!r}: " if path else ""
        if form is None:
            cure = cure_of_compiled(layer) or "build it as a Graph of layers that have one"
            raise ValueError(f"to_onnx: {name}{layer.label} has no form in ONNX; {cure}")
        for keyword in by_keyword:
            if keyword not in inspect.signature(form).parameters:
                raise ValueError(f"to_onnx: {name}{layer.label} has no form with {keyword}=")
        return form(Scope(self, path, layer), layer, *inputs, **by_keyword)

    def rename(self, names: dict[str, str]) -> None:
        for node in self.nodes:
            for part in (node.input, node.output):
                part[:] = [names.get(name, name) for name in part]


def to_onnx(
    model: nn.Layer,
    path: str | os.PathLike[str],
    input_shape: Any,
    dtype: Any = None,
) -> None:
    """Write a model as an ONNX file, for onnxruntime and other programs that run networks.

    The file computes what the model computes in evaluation mode, for batches of any size.

    Parameters
    ----------
    model : Layer
        Layers of nnlite, in `Sequential`, `Residual` and `Graph`.
    path : str or path-like
        The file. It is replaced in one step when the new one is complete.
    input_shape : int, tuple of int, or list of these
        The shape of a sample, without the batch axis; for several inputs, a list of shapes.
    dtype : dtype or list of dtype, optional
        The dtype of the input, or of each. Left out, it is int64 for what goes to an `Embedding`,
        bool for a mask that a node of a `Graph` takes by keyword, and that of the parameters for
        all else.

    Raises
    ------
    ValueError
        If a layer has no form in ONNX, such as a `Lambda`; if the model does not take inputs of
        this shape; or if the file would have more than 2 GB, the limit of the format.
    ImportError
        If the package ``onnx`` is missing: ``pip install onnx``.

    See Also
    --------
    from_onnx : The way back.

    Notes
    -----
    The operators are those of opset 20, which onnxruntime reads from version 1.17 on. The
    initializers have the names, shapes and values of the state dict; parameters that are not
    trained (``requires_grad`` is False) are constants. Inputs and outputs are named as in the
    `Graph`; for any other model they are ``x`` and ``y``, or ``x0``, ``x1``, … if there are
    several. The batch axis is called ``N``. The file has been checked, with full shape inference,
    when this function returns.

    References
    ----------
    ONNX, "Open neural network exchange: operators", https://onnx.ai/onnx/operators.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import numpy as np
    >>> import nnlite as nn
    >>> model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    >>> x = np.ones((5, 3), dtype=np.float32)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     nn.to_onnx(model, Path(folder, "model.onnx"), 3)
    ...     again = nn.from_onnx(Path(folder, "model.onnx"))
    >>> again
    Sequential(
        Linear(3, 4),
        ReLU(),
        Linear(4, 2),
    )
    >>> bool(np.allclose(again(x), model(x)))
    True
    """
    if not isinstance(model, nn.Layer):
        raise TypeError(f"to_onnx: expected a model, got {type(model).__name__}")
    shapes = _shapes(input_shape)
    dtypes = _dtypes(dtype, model, len(shapes))
    names = _input_names(model, len(shapes))
    # The caches of the model stay as they are.
    model = model.tied()
    file = _File()
    inputs = [
        Value(file.unique(name), np.ones((_SAMPLES, *shape), kind))
        if kind.kind == "f"
        else Value(file.unique(name), np.zeros((_SAMPLES, *shape), kind))
        for name, shape, kind in zip(names, shapes, dtypes, strict=True)
    ]
    found = file.layer("", model, *inputs)
    outputs = _named_outputs(model, file, found if isinstance(found, tuple) else (found,), inputs)
    graph = helper.make_graph(
        file.nodes,
        type(model).__name__,
        [_declared(value.name, value, (_BATCH, *value.sample.shape[1:])) for value in inputs],
        [_declared(name, value) for name, value in outputs.items()],
        file.initializers,
    )
    proto = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=_IR_VERSION,
        producer_name="nnlite",
        producer_version=nn.__version__,
    )
    helper.set_model_props(proto, {TRAINING: str(model.training)})
    if proto.ByteSize() >= onnx.checker.MAXIMUM_PROTOBUF:
        raise ValueError(
            f"to_onnx: the file would have {proto.ByteSize()} bytes, but an ONNX file has at most "
            f"{onnx.checker.MAXIMUM_PROTOBUF}"
        )
    proto = onnx.shape_inference.infer_shapes(proto, check_type=True, strict_mode=True)
    onnx.checker.check_model(proto, full_check=True)
    with replacing(as_path(path, "to_onnx")) as stream:
        stream.write(proto.SerializeToString(deterministic=True))


def _declared(
    name: str, value: Value, shape: Sequence[str | int] | None = None
) -> onnx.ValueInfoProto:
    kind = helper.np_dtype_to_tensor_dtype(np.asarray(value.sample).dtype)
    return helper.make_tensor_value_info(name, kind, shape)


def _named_outputs(
    model: nn.Layer, file: _File, found: tuple[Value, ...], inputs: list[Value]
) -> dict[str, Value]:
    """Give the outputs their names; return them by name."""
    names = model.outputs if isinstance(model, nn.Graph) else _numbered("y", len(found))
    given = {value.name for value in inputs} | {tensor.name for tensor in file.initializers}
    renamed: dict[str, str] = {}
    outputs: dict[str, Value] = {}
    for name, value in zip(names, found, strict=True):
        if value.name in given or value.name in renamed:
            # Neither an input, nor a parameter, nor another output can have a second name.
            file.nodes.append(helper.make_node("Identity", [value.name], [file.unique(name)]))
            outputs[file.nodes[-1].output[0]] = value
        else:
            renamed[value.name] = name = file.unique(name)
            outputs[name] = value
    file.rename(renamed)
    return outputs


def _numbered(letter: str, count: int) -> list[str]:
    return [letter] if count == 1 else [f"{letter}{index}" for index in range(count)]


def _input_names(model: nn.Layer, count: int) -> Iterable[str]:
    if not isinstance(model, nn.Graph):
        return _numbered("x", count)
    if len(model.inputs) != count:
        raise ValueError(
            f"to_onnx: input_shape gives {count} shape(s) for a Graph of "
            f"{len(model.inputs)} input(s); give a list with a shape for each"
        )
    return model.inputs


def _shapes(input_shape: Any) -> list[tuple[int, ...]]:
    """Return the shape of a sample of each input."""
    several = isinstance(input_shape, list) or (
        isinstance(input_shape, tuple) and any(isinstance(item, tuple) for item in input_shape)
    )
    return [_shape(item) for item in (input_shape if several else [input_shape])]


def _shape(sizes: Any) -> tuple[int, ...]:
    sizes = sizes if isinstance(sizes, (tuple, list)) else (sizes,)
    return tuple(integer(size, "to_onnx: a size in input_shape") for size in sizes)


def _dtypes(dtype: Any, model: nn.Layer, count: int) -> list[np.dtype[Any]]:
    """Return the dtype of each input."""
    if dtype is None:
        parameter = next(model.parameters(), None)
        floats = np.dtype(np.float32) if parameter is None else parameter.dtype
        return [
            np.dtype(np.bool_) if _takes_mask(model, position)
            else np.dtype(np.int64) if _takes_indices(model, position)
            else floats
            for position in range(count)
        ]  # fmt: skip
    given = dtype if isinstance(dtype, (list, tuple)) else [dtype] * count
    if len(given) != count:
        raise ValueError(f"to_onnx: got {len(given)} dtypes for {count} input(s)")
    return [np.dtype(each) for each in given]


def _takes_indices(layer: nn.Layer, position: int) -> bool:
    """Whether the input of `layer` at this position goes to an `Embedding`."""
    if isinstance(layer, nn.Sequential):
        return len(layer) > 0 and _takes_indices(layer[0], position)
    if isinstance(layer, nn.Graph):
        if position >= len(layer.inputs):
            return False
        return any(
            _takes_indices(layer[node], place)
            for node, arguments in layer.arguments.items()
            for place, argument in enumerate(split_arguments(arguments)[0])
            if argument == layer.inputs[position]
        )
    return isinstance(layer, nn.Embedding)


def _takes_mask(layer: nn.Layer, position: int) -> bool:
    """Whether a node of a `Graph` takes the input at this position by the keyword of a mask."""
    return isinstance(layer, nn.Graph) and any(
        keyword.endswith("mask") and source == layer.inputs[position]
        for arguments in layer.arguments.values()
        for keyword, source in split_arguments(arguments)[1].items()
    )
