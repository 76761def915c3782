"""The contract that everything else keeps.

A ``Layer`` caches on ``forward`` and returns input gradients on ``backward``; a ``Parameter`` holds
an array and the gradient that is summed up for it.
"""

from __future__ import annotations

import contextlib
import copy
import inspect
import threading
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from .engine.arrays import FLOATS, Array

if TYPE_CHECKING:
    from .debug.summary import Summary
from .parameter import Parameter

Self = TypeVar("Self", bound="Layer")
Member = TypeVar("Member")


class _Mode(threading.local):
    """What `no_grad` and `evaluating` say about all layers: for each thread its own."""

    # Whether forward keeps caches.
    grad: bool = True
    # Within `evaluating`: the modes that layers are in other than evaluation, by their id.
    evaluation: dict[int, bool] | None = None

    def __init__(self) -> None:
        self.before: list[Any] = []  # what the contexts that this thread is in have changed


_mode = _Mode()


def is_grad_enabled() -> bool:
    """Whether layers keep what a backward needs: not so within `no_grad`."""
    return _mode.grad


class no_grad(contextlib.ContextDecorator):  # noqa: N801 - PyTorch's name
    """Context, or decorator, in which forward keeps no caches; a backward is then a RuntimeError.

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> relu = nn.ReLU()
    >>> with nn.no_grad():
    ...     relu(np.array([-1.0, 1.0]))
    array([0., 1.])
    """

    def __enter__(self) -> None:
        _mode.before.append(_mode.grad)
        _mode.grad = False

    def __exit__(self, *error: object) -> None:
        _mode.grad = _mode.before.pop()


class evaluating(no_grad):  # noqa: N801 - it is used as `no_grad` is
    """Context of `no_grad` that every layer enters in evaluation mode.

    It holds for the calling thread, and need not go through the layers: their own modes stay as
    they are, and hold again afterwards, whatever mode they are put into meanwhile.
    """

    def __enter__(self) -> None:
        _mode.before.append(_mode.evaluation)
        _mode.evaluation = {}
        super().__enter__()

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        _mode.evaluation = _mode.before.pop()


class IncompatibleKeys(NamedTuple):
    """What a state dict that was loaded with ``strict=False`` lacked, and what it had too much."""

    missing_keys: list[str]
    unexpected_keys: list[str]


class Layer:
    """Base class of everything with a ``forward`` and a ``backward``.

    A layer of your own defines these two. `forward` hands what `backward` needs to `cache`;
    `backward` gets it from `cached`, adds to its parameters' gradients and returns dL/d(input).
    Parameters and sub-layers are plain attributes, or items of lists and dicts that are: they are
    found in the order in which they were set.

    Attributes
    ----------
    training : bool
        Whether the layer is in training mode; set it with `train` and `eval`. Within
        `nnlite.evaluate` and `nnlite.predict` it is False, and what it is set to holds until their
        end.

    Notes
    -----
    A layer keeps the cache of its latest `forward` only. To use the same weights twice before a
    backward, use `tied`. `backward` may be called again: it gives the same input gradient and
    adds to the parameters' gradients once more.

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
    # Arrays that are part of the state but that no gradient changes, by attribute name.
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
        return self.forward(*inputs, **options)

    # ---- the cache ----

    def cache(self, *values: Any) -> None:
        """Keep `values` for `backward`, in place of what was kept before; nothing in `no_grad`."""
        self._cache = values if _mode.grad else None

    def cached(self) -> tuple[Any, ...]:
        """Return what `forward` kept, or raise a RuntimeError if there was no `forward`."""
        if self._cache is None:
            raise RuntimeError(
                f"{self.label}: backward needs what forward caches; "
                f"call forward before it, outside of no_grad"
            )
        return self._cache

    # ---- what the layer holds ----

    def named_children(self) -> Iterator[tuple[str, Layer]]:
        """Yield the name and the layer of each direct sub-layer."""
        return iter(_held(self, Layer))

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

    def _own_parameters(self) -> list[tuple[str, Parameter]]:
        return _held(self, Parameter)

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """Yield the dotted name and the parameter of each parameter, a shared one once."""
        seen: set[int] = set()
        for path, layer in self.named_layers():
            for name, parameter in layer._own_parameters():
                if id(parameter) not in seen:
                    seen.add(id(parameter))
                    yield f"{path}.{name}" if path else name, parameter

    def parameters(self) -> Iterator[Parameter]:
        """Yield each parameter of the layer and of all below it, a shared one once."""
        for _, parameter in self.named_parameters():
            yield parameter

    def trainable(self) -> bool:
        """Whether any parameter of the layer or below it takes a gradient."""
        for _, parameter in self._own_parameters():
            if parameter.requires_grad:
                return True
        return any(child.trainable() for _, child in self.named_children())

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
            for name in layer._buffer_names:
                buffer = getattr(layer, name)
                if buffer is not None:
                    yield dot + name, buffer

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
            layer._cache = None
        return self

    # ---- modes ----

    @property
    def training(self) -> bool:
        """Whether the layer is in training mode, for the calling thread."""
        if _mode.evaluation is None:
            return self._training
        return _mode.evaluation.get(id(self), False)

    @training.setter
    def training(self, mode: bool) -> None:
        if _mode.evaluation is None:
            self._training = mode
        else:
            _mode.evaluation[id(self)] = mode

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        begins = vars(cls).get("training")
        if isinstance(begins, bool):
            # It would stand in front of the property.
            cls._training = begins
            del cls.training

    def train(self: Self, mode: bool = True) -> Self:
        """Put the layer and all below it into training mode; return the layer."""
        for layer in self.layers():
            layer.training = mode
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
        for name, value in vars(self).items():
            if name != "_cache":
                vars(twin)[name] = _tied(value)
        twin._cache = None
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
