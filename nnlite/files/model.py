"""Files of whole models: the layers and how they were made, and the state dict.

A file is a ``.npz`` file as `save` writes it, with one more entry, the JSON text ``model.json``. A
layer is described by the name of its class and the arguments of its constructor, and is made by
calling that class: nothing in a file is executed, and no class is called but those of nnlite and
those that the caller names.
"""

from __future__ import annotations

import inspect
import math
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from ..engine.limit import at_most
from ..hints import cure_of_compiled
from ..layer import Layer
from ..parameter import Parameter
from ..random import generator, unmoved
from .reading import as_path, reading
from .state import MODEL_TEXT, ZIP, checked_path, kind

_VERSION = 1
_HEAD = re.compile(r'\{"format": "nnlite model", "version": (\d{1,9}), "parts": \{')
# An integer among the arguments may be this much above the number of elements in the file.
_ALWAYS_ALLOWED = 1 << 12


def save_model(model: Layer, path: str | os.PathLike[str]) -> None:
    """Write a model to a file, its layers and its state: `load_model` needs nothing else.

    Parameters
    ----------
    model : Layer
    path : str or path-like
        The file. Its name ends in ``.npz``. It is replaced in one step, as by `save`.

    Raises
    ------
    TypeError
        If a layer holds something that a file cannot have, such as the functions of a `Lambda`; or
        if the arguments of the constructor of a layer of your own are not known.
    ValueError
        If the name of the file has another ending.
    OSError
        If the file cannot be written: see `save`. The old file is unchanged.

    See Also
    --------
    load_model : Reads the file.
    save : Writes the state alone, also as ``.safetensors``.

    Notes
    -----
    The file has the class and the arguments of each layer, the values and dtypes of all parameters
    and buffers, which parameters are shared (`Layer.tied`) and which are not trained, and the mode
    of each layer. It has no gradients and no random generators: `save_checkpoint` has.

    The arguments of the constructor are read from attributes of the same names, as they are for
    `repr`. A layer of your own that keeps them so needs nothing else; sub-layers may be among them.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import numpy as np
    >>> import nnlite as nn
    >>> model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).eval()
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     nn.save_model(model, Path(folder, "model.npz"))
    ...     again = nn.load_model(Path(folder, "model.npz"))
    >>> again
    Sequential(
        Linear(3, 4),
        ReLU(),
        Linear(4, 2),
    )
    >>> x = np.ones((5, 3), dtype=np.float32)
    >>> bool((again(x) == model(x)).all())
    True
    """
    from . import npz, tree
    from .atomic import replacing

    if not isinstance(model, Layer):
        raise TypeError(f"save_model: expected a model, got {type(model).__name__}")
    path = checked_path(path, "save_model")
    parts = {
        "layers": _described(model),
        "shared": shared(model),
        "frozen": [name for name, each in model.named_parameters() if not each.requires_grad],
        "evaluating": [name for name, each in model.named_layers() if not each.training],
        "model": model.state_dict(),
    }
    try:
        text, arrays = tree.pack(parts, npz.fits)
    except (TypeError, ValueError) as error:
        raise type(error)(f"save_model: {error}") from None
    head = f'{{"format": "nnlite model", "version": {_VERSION}, "parts": {text}}}\n'
    with replacing(path) as file:
        npz.write(file, arrays, {MODEL_TEXT: head})


def load_model(path: str | os.PathLike[str], classes: Iterable[type[Layer]] = ()) -> Layer:
    """Read a model from a file of `save_model`, which need not be trusted.

    Parameters
    ----------
    path : str or path-like
        The file.
    classes : iterable of Layer classes
        Layers of your own that the model may have. No others but those of nnlite are made.

    Returns
    -------
    Layer
        The model, in the mode in which it was saved.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is no such file, is damaged, has a class that is not known, or arguments or arrays
        that do not fit it. The message names the file and the layer.

    See Also
    --------
    save_model : The way there, with an example.

    Notes
    -----
    No code in the file is run, and the memory taken is in proportion to its size. The package's
    generator of random numbers is left as it is.
    """
    path = as_path(path, "load_model")
    known = _known(classes)
    parts = _read(path)
    try:
        return _loaded(parts, known)
    except Exception as error:
        raise ValueError(f"{path}: {error!s:.500}") from error


def _loaded(parts: Mapping[str, Any], known: Mapping[str, type[Layer]]) -> Layer:
    state = parts["model"]
    elements = sum(array.size for array in state.values())
    # A layer may make a parameter out of another one.
    with unmoved([generator()]), at_most(2 * elements):
        model = _made(parts["layers"], known, elements)
    floats = [array.dtype for array in state.values() if array.dtype.kind == "f"]
    if floats and all(dtype == np.float64 for dtype in floats):
        model.astype(np.float64)
    for first, *others in parts["shared"]:
        for name in others:
            replace(model, name, first)
    model.load_state_dict(state)
    parameters = dict(model.named_parameters())
    for name in parts["frozen"]:
        parameters[name].requires_grad = False
    layers = dict(model.train().named_layers())
    for name in parts["evaluating"]:
        layers[name].training = False
    return model


# ---- descriptions of layers ----


def _described(layer: Layer) -> dict[str, Any]:
    """Return the class of a layer and the arguments of its constructor, with layers among them."""
    positional, named = _arguments(layer)
    return {
        "class": type(layer).__name__,
        "positional": [_packed(value, layer) for value in positional],
        "named": {name: _packed(value, layer) for name, value in named.items()},
    }


def _packed(value: Any, owner: Layer) -> Any:
    """Return an argument as numbers, texts, arrays, and lists and dicts of these."""
    if isinstance(value, Layer):
        return {"layer": _described(value)}
    if isinstance(value, (list, tuple)):
        return type(value)([_packed(item, owner) for item in value])
    if isinstance(value, Mapping):
        return {"dict": [[key, _packed(item, owner)] for key, item in value.items()]}
    if value is None or isinstance(value, (bool, int, float, str, np.ndarray, np.generic)):
        return value
    raise TypeError(
        f"save_model: {owner.label} has an argument {value!r:.80}, which cannot be in a file"
    )


def _arguments(layer: Layer) -> tuple[list[Any], dict[str, Any]]:
    """Return the arguments with which the constructor of a layer makes one like it."""
    import nnlite as nn

    kind: Any = type(layer)
    cure = cure_of_compiled(layer)
    if cure is not None:
        raise TypeError(f"save_model: {layer.label} cannot be in a file; {cure}")
    if isinstance(layer, nn.Sequential) and kind.__init__ is nn.Sequential.__init__:
        return sequential_arguments(dict(layer.named_children())), {}
    if isinstance(layer, nn.Residual) and kind.__init__ is nn.Residual.__init__:
        return list(layer.body), {}
    if isinstance(layer, nn.Graph) and kind.__init__ is nn.Graph.__init__:
        nodes = {name: (layer[name], *layer.arguments[name]) for name in layer}
        return [nodes], {"inputs": layer.inputs, "outputs": layer.outputs}
    if isinstance(layer, nn.Weight) and kind.__init__ is nn.Weight.__init__:
        return [layer.weight.data], {}
    positional: list[Any] = []
    named: dict[str, Any] = {}
    for name, option in inspect.signature(kind).parameters.items():
        value = getattr(layer, name, option.default)
        if name == "rng" or option.kind is option.VAR_KEYWORD:
            continue
        if value is option.empty:
            raise TypeError(
                f"save_model: the constructor of {kind.__name__} takes {name!r}, but the layer has "
                f"no attribute of this name; keep the argument as self.{name}"
            )
        if option.kind is option.VAR_POSITIONAL:
            positional = list(value)
        elif isinstance(value, Parameter):
            named[name] = True  # such as bias: whether there is one
        elif value is None and isinstance(option.default, bool):
            named[name] = False
        else:
            named[name] = value
    return positional, named


def sequential_arguments(children: Mapping[str, Layer]) -> list[Any]:
    """Return the arguments of a `Sequential` whose layers have these names."""
    is_list = [*children] == [str(index) for index in range(len(children))]
    return [*children.values()] if is_list else [children]


def _known(classes: Iterable[type[Layer]]) -> dict[str, type[Layer]]:
    """Return the classes that a file may name: those of nnlite, and those of the caller."""
    import nnlite as nn

    known = {
        name: each
        for name, each in vars(nn).items()
        if isinstance(each, type) and issubclass(each, Layer)
    }
    for each in classes:
        if not isinstance(each, type) or not issubclass(each, Layer):
            raise TypeError(f"load_model: classes must be subclasses of Layer, got {each!r:.80}")
        known[each.__name__] = each
    return known


def _made(description: Any, known: Mapping[str, type[Layer]], elements: int) -> Layer:
    """Return a new layer of a class and with arguments as described."""
    name = description["class"]
    if name not in known:
        raise ValueError(
            f"the file has a layer {name!s:.80}, which is not nnlite's; "
            f"pass load_model(path, classes=[...]) its class if you have it"
        )

    def unpacked(value: Any) -> Any:
        if isinstance(value, Mapping):
            if "layer" in value:
                return _made(value["layer"], known, elements)
            return {key: unpacked(item) for key, item in value["dict"]}
        if isinstance(value, (list, tuple)):
            return type(value)([unpacked(item) for item in value])
        return value

    positional = [unpacked(value) for value in description["positional"]]
    named = {key: unpacked(value) for key, value in description["named"].items()}
    for value in (*positional, *named.values()):
        if _size(value) > elements + _ALWAYS_ALLOWED:
            raise ValueError(f"{name}: an argument {value!r:.80} is too large for this file")
    return known[name](*positional, **named)


def _size(value: Any) -> int:
    """Return the number of elements that an array has whose shape is an argument, or one axis."""
    sizes = value if isinstance(value, (list, tuple)) else [value]
    return math.prod(abs(size) for size in sizes if isinstance(size, int) and size)


# ---- shared parameters and buffers ----


def _entries(model: Layer) -> dict[str, Any]:
    """Return all parameters and buffers that are attributes of layers, by their names."""
    names = model.state_dict()
    return {
        path: entry
        for prefix, layer in model.named_layers()
        for name, entry in vars(layer).items()
        if (path := f"{prefix}.{name}".lstrip(".")) in names
        and isinstance(entry, (Parameter, np.ndarray))
    }


def shared(model: Layer) -> list[list[str]]:
    """Return the names of each parameter or buffer that has several: those of tied layers."""
    names = defaultdict(list)
    for name, entry in _entries(model).items():
        names[id(entry)].append(name)
    return [group for group in names.values() if len(group) > 1]


def replace(model: Layer, name: str, source: str) -> None:
    """Give a layer of `model`, for the parameter or buffer `name`, the one that is `source`."""
    entries = _entries(model)
    if name not in entries or type(entries[name]) is not type(entries.get(source)):
        raise ValueError(f"{name!r:.80} and {source!r:.80} cannot be shared")
    path, _, attribute = name.rpartition(".")
    setattr(dict(model.named_layers())[path], attribute, entries[source])


# ---- the file ----


def _read(path: str) -> dict[str, Any]:
    from . import npz, tree

    with reading(path) as file:
        start = file.peek(9)
        if start[:4] not in ZIP:
            raise ValueError(f"expected a file of save_model, {kind(start)}")
        arrays, text = npz.read(file, MODEL_TEXT)
        if text is None:
            raise ValueError("this file has arrays, but no model; read it with load_state")
        head = _HEAD.match(text)
        if head is None:
            raise ValueError(f"entry {MODEL_TEXT!r}: this is no model of nnlite")
        if int(head[1]) != _VERSION:
            raise ValueError(
                f"this is a model of version {head[1]}; this nnlite reads version {_VERSION}"
            )
        parts = tree.unpack(text, arrays)["parts"]
        lacking = [name for name in _PARTS if name not in parts]
        if lacking or not isinstance(parts["model"], Mapping):
            raise ValueError(f"entry {MODEL_TEXT!r}: it lacks {lacking or 'a state'}")
    return parts


_PARTS = ("layers", "shared", "frozen", "evaluating", "model")
