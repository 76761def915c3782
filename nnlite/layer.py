"""The contract that everything else keeps: ``Layer``, its cache, its state, the tree of sub-layers.

`forward` caches what `backward` needs; `backward` returns input gradients and adds to the gradients
of the parameters.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from .checks import boolean
from .engine.arrays import FLOATS, Array
from .modes import current
from .parameter import Parameter

if TYPE_CHECKING:
    from .debug.summary import Summary

Self = TypeVar("Self", bound="Layer")
Member = TypeVar("Member")

# Stands for one forward of one layer: a new list each time, with the thread that it ran in.
Token = list[int | None]


class IncompatibleKeys(NamedTuple):
    """The names that a state dict lacked, and those that the layer does not have."""

    missing_keys: list[str]
    unexpected_keys: list[str]


class Layer:
    """Base class of everything with a ``forward`` and a ``backward``.

    A layer of your own defines these two. `forward` hands what `backward` needs to `cache`;
    `backward` gets it from `cached`, adds to its parameters' gradients and returns dL/d(input).
    Parameters and sub-layers are plain attributes, or items of lists and dicts that are: they are
    found in the order in which they were set. `register_buffer` adds an array to the state that no
    gradient changes.

    Attributes
    ----------
    training : bool
        Whether the layer is in training mode; set it with `train` and `eval`. Within
        `nnlite.evaluate` and `nnlite.predict` it is False, and what it is set to holds until their
        end.

    Notes
    -----
    A layer keeps the cache of its latest `forward` only. To use the same weights twice before a
    backward, use `tied`; containers raise a RuntimeError if one of their layers was called between
    their forward and their backward. `backward` may be called again: it gives the same input
    gradient and adds to the parameters' gradients once more.

    Copies (`copy`, pickle) have no caches. An error of a sub-layer ends with its dotted name and
    the shapes that it was given.

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> class Scale(nn.Layer):
    ...     def __init__(self):
    ...         self.factor = nn.Parameter(np.ones(1))
    ...     def forward(self, x):
    ...         self.cache(x)
    ...         return self.factor.data * x
    ...     def backward(self, grad, input_grad=True):
    ...         (x,) = self.cached()
    ...         self.factor.accumulate(np.sum(grad * x, keepdims=True).reshape(1))
    ...         return self.factor.data * grad if input_grad else None
    >>> nn.gradcheck(Scale(), np.array([[1.0, 2.0]])).passed
    True
    """

    _training: bool = True
    _cache: tuple[Any, ...] | None = None
    _token: Token = [None]  # noqa: RUF012 - never changed; of the forward that the cache is of
    _buffer_names: tuple[str, ...] = ()

    # ---- the two that every layer defines ----

    def forward(self, *inputs: Any, **options: Any) -> Any:
        """Return the output for `inputs`, and cache what `backward` needs."""
        raise NotImplementedError(f"{type(self).__name__} does not define forward")

    def backward(self, grad: Array, input_grad: bool = True) -> Any:
        """Return dL/d(input) for `grad` = dL/d(output), and sum up the parameters' gradients.

        Parameters
        ----------
        grad : ndarray
            dL/d(output), of the shape of the output.
        input_grad : bool, default True
            False skips the work that only dL/d(input) needs, and returns None.

        Returns
        -------
        ndarray, tuple of ndarray, or None
            One array for each input of `forward`.

        Raises
        ------
        RuntimeError
            If `forward` was not called before.
        ValueError
            If `grad` has another shape than the output.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define backward")

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        try:
            output = self.forward(*inputs, **options)
            if output is None:
                raise TypeError(f"{self.label}: forward returned None; it has to return the output")
        except (TypeError, ValueError, RuntimeError) as error:
            add_path(error, self, self, inputs)
            raise
        return output

    # ---- the cache ----

    def cache(self, *values: Any) -> None:
        """Store `values` for `backward` in place of the last ones; nothing under `no_grad`."""
        thread = current.caching
        if thread is None:
            self.drop_cache()
        else:
            attributes = self.__dict__  # faster than through __setattr__
            attributes["_cache"] = values
            attributes["_token"] = [thread]

    def cached(self) -> tuple[Any, ...]:
        """Return what `forward` cached, or raise a RuntimeError if it did not."""
        if self._cache is None:
            raise RuntimeError(
                f"{self.label}: backward needs what forward hands to self.cache(...), and there is "
                f"nothing; call forward before it, outside of no_grad"
            )
        return self._cache

    def drop_cache(self) -> None:
        """Forget what `forward` cached in this thread."""
        if self._token[0] == current.thread:
            self.__dict__["_cache"] = None

    def __getstate__(self) -> dict[str, Any]:
        return {
            name: value for name, value in vars(self).items() if name not in ("_cache", "_token")
        }

    # ---- attributes ----

    def __setattr__(self, name: str, value: Any) -> None:
        _check_name(self, name, value)
        if isinstance(vars(self).get(name), Parameter) and not isinstance(
            value, (Parameter, type(None))
        ):
            raise TypeError(
                f"{self.label}: {name} is a Parameter, which a {type(value).__name__} cannot "
                f"replace; assign to layer.{name}.data, or wrap the value in nnlite.Parameter"
            )
        object.__setattr__(self, name, value)

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        for name, value in vars(cls).items():
            if not hasattr(value, "__get__"):
                _check_name(cls, name, value)
        begins = vars(cls).get("training")
        if isinstance(begins, bool):
            # It would stand in front of the property.
            cls._training = begins
            del cls.training

    def register_buffer(self, name: str, value: ArrayLike | None) -> None:
        """Set attribute `name` to a copy of `value`, an array of the state that is not trained.

        It is saved with the parameters, and `astype` converts it if it is of floats. The layer
        changes it in place, or assigns another array to the attribute.

        Parameters
        ----------
        name : str
        value : array_like or None
            An array keeps its dtype, Python floats become float32. None is left out of the state.

        Raises
        ------
        TypeError, ValueError
            If `name` is no name of an attribute, or there is one of this name that is no buffer.

        Examples
        --------
        >>> import numpy as np
        >>> import nnlite as nn
        >>> layer = nn.Layer()
        >>> layer.register_buffer("count", np.zeros((), np.int64))
        >>> layer.count += 1
        >>> layer.state_dict()
        {'count': array(1)}
        """
        if not isinstance(name, str) or not name.isidentifier():
            raise TypeError(f"{self.label}: a buffer needs the name of an attribute, got {name!r}")
        if name not in self._buffer_names:
            if hasattr(self, name):
                raise ValueError(f"{self.label}: {name!r} exists already; choose another name")
            self._buffer_names = (*self._buffer_names, name)
        if value is not None:
            is_array = isinstance(value, (np.ndarray, np.generic))
            value = np.array(value)
            if value.dtype.kind == "f" and not is_array:
                value = value.astype(np.float32)
        setattr(self, name, value)

    # ---- what the layer holds ----

    def named_children(self) -> Iterator[tuple[str, Layer]]:
        """Yield the name and the layer of each direct sub-layer."""
        return iter(_held(self, Layer))

    def children(self) -> Iterator[Layer]:
        """Yield each direct sub-layer."""
        for _, child in self.named_children():
            yield child

    def layers(self) -> list[Layer]:
        """Return this layer and all below it, as `named_layers` yields them."""
        found: list[Layer] = [self]
        for _, child in self.named_children():
            found += child.layers()
        return found

    def named_layers(self, prefix: str = "") -> Iterator[tuple[str, Layer]]:
        """Yield the dotted name and the layer of this layer (named `prefix`) and all below it."""
        yield prefix, self
        for name, child in self.named_children():
            yield from child.named_layers(f"{prefix}.{name}" if prefix else name)

    def modules(self) -> Iterator[Layer]:
        """Yield what `layers` returns: PyTorch's name for it."""
        return iter(self.layers())

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Layer]]:
        """Yield what `named_layers` yields: PyTorch's name for it."""
        return self.named_layers(prefix)

    def apply(self: Self, function: Callable[[Layer], object]) -> Self:
        """Call `function` with every layer below this one, and with it; return the layer."""
        for child in self.children():
            child.apply(function)
        function(self)
        return self

    def _own_parameters(self) -> list[tuple[str, Parameter]]:
        return _held(self, Parameter)

    def named_parameters(
        self, prefix: str = "", recurse: bool = True
    ) -> Iterator[tuple[str, Parameter]]:
        """Yield the dotted name and the parameter of each parameter, a shared one once.

        `prefix` stands before the names; without `recurse`, those of the layers below are left out.
        """
        seen: set[int] = set()
        for path, layer in self.named_layers(prefix) if recurse else [(prefix, self)]:
            for name, parameter in layer._own_parameters():
                if id(parameter) not in seen:
                    seen.add(id(parameter))
                    yield f"{path}.{name}" if path else name, parameter

    def parameters(self, recurse: bool = True) -> Iterator[Parameter]:
        """Yield each parameter of the layer and of all below it, a shared one once."""
        for _, parameter in self.named_parameters(recurse=recurse):
            yield parameter

    def named_buffers(self, prefix: str = "", recurse: bool = True) -> Iterator[tuple[str, Array]]:
        """Yield the dotted name and the array of each buffer that there is."""
        for path, layer in self.named_layers(prefix) if recurse else [(prefix, self)]:
            for name in layer._buffer_names:
                buffer = getattr(layer, name)
                if buffer is not None:
                    yield f"{path}.{name}" if path else name, buffer

    def buffers(self, recurse: bool = True) -> Iterator[Array]:
        """Yield each buffer of the layer and of all below it."""
        for _, buffer in self.named_buffers(recurse=recurse):
            yield buffer

    def requires_grad_(self: Self, requires_grad: bool = True) -> Self:
        """Make all parameters take gradients, or freeze them with False; return the layer."""
        wanted = boolean(requires_grad, f"{type(self).__name__}: requires_grad")
        for parameter in self.parameters():
            parameter.requires_grad = wanted
        return self

    def trainable(self) -> bool:
        """Whether any parameter of the layer or below it takes a gradient."""
        for _, parameter in self._own_parameters():
            if parameter.requires_grad:
                return True
        return any(child.trainable() for child in self.children())

    def zero_grad(self) -> None:
        """Forget the gradients of all parameters."""
        for layer in self.layers():
            for _, parameter in layer._own_parameters():
                parameter.zero_grad()

    # ---- state ----

    def _entries(self) -> Iterator[tuple[str, Parameter | Array]]:
        """Yield every entry of the state dict: parameters, and buffers as the arrays they are."""
        for path, layer in self.named_layers():
            dot = f"{path}." if path else ""
            for name, parameter in layer._own_parameters():
                yield dot + name, parameter
            yield from layer.named_buffers(path, recurse=False)

    def state_dict(self) -> dict[str, Array]:
        """Return copies of all parameters and buffers by dotted name, with PyTorch's names.

        Examples
        --------
        >>> import nnlite as nn
        >>> model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1, bias=False))
        >>> {name: value.shape for name, value in model.state_dict().items()}
        {'0.weight': (3, 2), '0.bias': (3,), '2.weight': (1, 3)}
        """
        return {
            name: (entry.data if isinstance(entry, Parameter) else entry).copy()
            for name, entry in self._entries()
        }

    def load_state_dict(
        self, state_dict: Mapping[str, ArrayLike], strict: bool = True
    ) -> IncompatibleKeys:
        """Copy the values of `state_dict` into the parameters and buffers of the same names.

        Parameters
        ----------
        state_dict : mapping of str to array_like
            As `state_dict` returns it. Floats are converted to the dtype of the layer.
        strict : bool, default True
            Whether missing and unexpected names are an error.

        Returns
        -------
        IncompatibleKeys
            ``missing_keys`` and ``unexpected_keys``: both empty when strict.

        Raises
        ------
        ValueError
            If names are missing or unexpected (when strict), or if a shape differs. Nothing is
            loaded then.
        TypeError
            If an entry is not numeric, or is not a mapping of names to arrays at all.
        """
        if not isinstance(state_dict, Mapping):
            raise TypeError(
                f"{self.label}: expected a state dict (names to arrays), "
                f"got {type(state_dict).__name__}"
            )
        entries = dict(self._entries())
        missing = [name for name in entries if name not in state_dict]
        unexpected = [str(name) for name in state_dict if name not in entries]
        if strict and (missing or unexpected):
            faults = [f"lacks {_listed(missing)}"] * bool(missing)
            faults += [f"has the unknown {_listed(unexpected)}"] * bool(unexpected)
            raise ValueError(
                f"{self.label}: the state dict {' and '.join(faults)}; "
                f"load it into the model that it was saved from, or pass strict=False"
            )
        values: list[tuple[Array, Array]] = []
        for name, entry in entries.items():
            if name not in state_dict:
                continue
            target = entry.data if isinstance(entry, Parameter) else entry
            value = np.asarray(state_dict[name])
            if value.dtype.kind not in ("f" if target.dtype.kind == "f" else "iu"):
                raise TypeError(
                    f"{self.label}: {name!r} is of dtype {target.dtype}, "
                    f"the state dict has {value.dtype}"
                )
            if value.shape != target.shape:
                raise ValueError(
                    f"{self.label}: {name!r} is of shape {target.shape}, "
                    f"the state dict has {value.shape}"
                )
            values.append((target, value))
        for target, value in values:
            target[...] = value
        return IncompatibleKeys(missing, unexpected)

    def astype(self: Self, dtype: DTypeLike) -> Self:
        """Convert all parameters and buffers to float32 or float64, in place; return the layer."""
        wanted = np.dtype(dtype)
        if wanted not in FLOATS:
            raise TypeError(f"{self.label}: dtype must be float32 or float64, got {wanted}")
        # By identity, so that buffers that tied layers share stay shared.
        converted: dict[int, Array] = {}
        for layer in self.layers():
            for _, parameter in layer._own_parameters():
                parameter.astype(wanted)
            for name in layer._buffer_names:
                buffer = getattr(layer, name)
                if buffer is not None and buffer.dtype.kind == "f":
                    new = converted.setdefault(id(buffer), buffer.astype(wanted, copy=False))
                    converted[id(new)] = new
                    setattr(layer, name, new)
            vars(layer)["_cache"] = None
        return self

    def float(self: Self) -> Self:
        """Convert all parameters and buffers to float32, in place; return the layer."""
        return self.astype(np.float32)

    def double(self: Self) -> Self:
        """Convert all parameters and buffers to float64, in place; return the layer."""
        return self.astype(np.float64)

    # ---- modes ----

    @property
    def training(self) -> bool:
        """Whether the layer is in training mode, for the calling thread."""
        if current.trained is None:
            return self._training
        return any(layer is self for layer in current.trained)

    @training.setter
    def training(self, mode: bool) -> None:
        mode = boolean(mode, f"{type(self).__name__}: training", "nn.fit trains on data")
        if current.trained is None:
            self._training = mode
        else:
            current.trained[:] = [layer for layer in current.trained if layer is not self]
            current.trained += [self] * mode

    def train(self: Self, mode: bool = True) -> Self:
        """Put the layer and all below it into training mode; return the layer."""
        self.training = mode
        for child in self.children():
            child.train(mode)
        return self

    def eval(self: Self) -> Self:
        """Put the layer and all below it into evaluation mode; return the layer."""
        return self.train(False)

    def tied(self: Self) -> Self:
        """Return a second layer that shares the parameters but has a cache of its own.

        It is the way to use one weight twice: both layers add to the gradient of the same
        `Parameter` objects.

        Examples
        --------
        >>> import nnlite as nn
        >>> step = nn.Linear(4, 4)
        >>> twice = nn.Sequential(step, nn.Tanh(), step.tied())
        >>> [name for name, _ in twice.named_parameters()]
        ['0.weight', '0.bias']
        """
        twin = copy.copy(self)
        for name, value in vars(twin).items():
            vars(twin)[name] = _tied(value)
        return twin

    # ---- how it shows ----

    def multiply_adds(
        self, input_shapes: tuple[tuple[int, ...], ...], output_shape: tuple[int, ...]
    ) -> int:
        """Return how many multiply-adds `forward` takes for inputs and an output of these shapes.

        As is usual, it is those of matrix products and convolutions that count: 0 for a layer
        without any, as here, and without those of the layers in it.
        """
        return 0

    def summary(self, input_shape: Any, batch_size: int = 1, dtype: Any = None) -> Summary:
        """Return a table of all layers: output shapes, parameters, multiply-adds and memory.

        Parameters
        ----------
        input_shape : int, tuple of int, or list of these
            The shape of a sample, without the batch axis; for several inputs, a list of shapes.
        batch_size : int, default 1
            How many samples go through the model.
        dtype : dtype or list of dtype, optional
            The dtype of the input, or of each: integers for an `Embedding`. Left out, that of the
            parameters.

        Returns
        -------
        Summary
            It prints as the table, shows as HTML in a notebook, and has the numbers as attributes.

        Raises
        ------
        ValueError, TypeError
            If the shape, batch size or dtype makes no sense. If a layer does not take what it
            gets, its own error, with its name in the model in front.

        See Also
        --------
        nnlite.summary.Summary : What is counted, and how.

        Examples
        --------
        >>> import nnlite as nn
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
        >>> print(model.summary((1, 28, 28)))
        summary of Sequential for input (1, 1, 28, 28) of float32
        name  layer              output shape  parameters  multiply-adds  memory
              Sequential         (1, 10)
        0       Flatten()        (1, 784)               0              0     0 B
        1       Linear(784, 10)  (1, 10)            7,850          7,840    40 B
        7,850 parameters: 7,850 trainable
        7,840 multiply-adds for one forward of the batch
        31.4 kB of parameters and buffers, 3.18 kB of inputs and outputs of layers
        """
        from .debug.summary import summarize

        return summarize(self, input_shape, batch_size, dtype)

    @property
    def label(self) -> str:
        """The layer as an error message names it: the constructor call, or its class if long."""
        text = repr(self)
        return text if len(text) <= 80 and "\n" not in text else type(self).__name__

    def __repr__(self) -> str:
        """Return the constructor call, with the options that differ from their defaults."""
        arguments = []
        for name, option in inspect.signature(type(self).__init__).parameters.items():
            if name in ("self", "rng"):
                continue
            if option.kind in (option.VAR_POSITIONAL, option.VAR_KEYWORD):
                continue
            value = getattr(self, name, option.default)
            if isinstance(value, Parameter):
                value = True
            elif isinstance(value, np.ndarray):
                value = value.tolist()
            elif value is None and isinstance(option.default, bool):
                value = False
            if value is option.empty:
                arguments.append(f"{name}=...")
            elif option.default is option.empty:
                arguments.append(repr(value))
            elif value is not option.default and value != option.default:
                arguments.append(f"{name}={value!r}")
        return f"{type(self).__name__}({', '.join(arguments)})"


# What most attributes are: they hold nothing of the kind.
_OPTIONS = {bool, float, int, str, type(None), np.ndarray}
_PLAIN: dict[type, set[type]] = {Parameter: _OPTIONS, Layer: _OPTIONS | {Parameter}}


def _held(layer: Layer, kind: type[Member]) -> list[tuple[str, Member]]:
    """Return what is of `kind` in the attributes of `layer`, with dotted names."""
    found: list[tuple[str, Member]] = []
    plain = _PLAIN[kind]
    for name, value in vars(layer).items():
        if type(value) in plain:
            continue
        if isinstance(value, kind):
            found.append((name, value))
        elif isinstance(value, (list, tuple, dict)) and not name.startswith("_"):
            found += _members(name, value, kind)
    return found


def _members(name: str, value: Any, kind: type[Member]) -> Iterator[tuple[str, Member]]:
    """Yield what is of `kind` in an attribute: the value, or items of lists and dicts.

    Private lists and dicts are left out: caches, and what a container keeps in its own order.
    """
    if isinstance(value, kind):
        yield name, value
    elif name.startswith("_"):
        return
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from _members(f"{name}.{index}", item, kind)
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _members(f"{name}.{key}", item, kind)


def _check_name(owner: Layer | type[Layer], name: str, value: Any) -> None:
    """Raise a TypeError if a value that is no function would hide a method of `Layer`."""
    hides = name in vars(Layer) and not name.startswith("_") and name != "training"
    if hides and (isinstance(value, Layer) or not callable(value)):
        kind = owner.__name__ if isinstance(owner, type) else type(owner).__name__
        cure = "choose another name for the attribute"
        if name == "trainable":
            cure = "freeze parameters with layer.requires_grad_(False)"
        raise TypeError(f"{kind}: {name!r} is a method of every layer; {cure}")


def latest_forwards(layers: Iterable[Layer]) -> list[Token]:
    """Return what tells the latest forward of each layer from an earlier or a later one."""
    return [layer._token for layer in layers]


def check_latest_forwards(container: Layer, layers: list[Layer], forwards: list[Token]) -> None:
    """Raise a RuntimeError if a layer of `container` was called after one of the `forwards`."""
    for layer, forward in zip(layers, forwards, strict=True):
        if layer._token is not forward:
            name = next(name for name, child in container.named_children() if child is layer)
            raise RuntimeError(
                f"{container.label}: layer {name!r}, {layer.label}, was called again after this "
                f"forward, and a layer keeps the cache of its latest call only; call forward again "
                f"before backward, or use layer.tied() for the other call"
            )


def add_path(
    error: Exception, model: Layer, layer: Layer, given: tuple[Any, ...], kind: str = "input"
) -> None:
    """Let the message of an error end with the path in `model` of the layer that raised it.

    `layer` was given the arrays `given`. It raised the error, unless a layer within it did.
    """
    # The arguments of any other class of errors may be more than a message.
    if type(error) not in (TypeError, ValueError, RuntimeError):
        return
    shapes = " and ".join(str(getattr(array, "shape", type(array).__name__)) for array in given)
    # By number, so that the error can be pickled without its layer.
    number, what, old = vars(error).get("_place", (id(layer), f"{kind} of shape {shapes}", ""))
    path = next((path for path, part in model.named_layers() if id(part) == number), "")
    suffix = f" (layer {path!r}, {what})" if path else old
    error.args = (str(error).removesuffix(old) + suffix,)
    vars(error)["_place"] = number, what, suffix


def _tied(value: Any) -> Any:
    """Return `value` with each layer that it is or contains tied."""
    if isinstance(value, Layer):
        return value.tied()
    if type(value) in (list, tuple):
        return type(value)(_tied(item) for item in value)
    if type(value) is dict:
        return {key: _tied(item) for key, item in value.items()}
    return value


def _listed(names: list[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:5])
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5} more"
