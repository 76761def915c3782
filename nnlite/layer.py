"""``Layer``, the base class of all layers and losses: contract, cache, state, tree of sub-layers.

`forward` caches values for `backward`; `backward` returns the gradients of the inputs and adds to
the gradients of the parameters.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from .changes import changes
from .checks import boolean
from .engine.arrays import FLOATS, Array
from .hints import Hinted, complaint_of
from .members import IncompatibleKeys, constructor_call, held, matched, replaced
from .modes import current
from .parameter import Parameter

if TYPE_CHECKING:
    from .debug.summary import Summary

Self = TypeVar("Self", bound="Layer")


class _Cache:
    """The values that a layer's latest `forward` cached, if they are not dropped, and its origin.

    One object for all forwards of a layer: its slots are set several times as fast as attributes of
    the layer, which `Layer.__setattr__` checks.
    """

    __slots__ = ("forwards", "replaced", "thread", "values")

    def __init__(self) -> None:
        self.values: tuple[Any, ...] | None = None
        self.forwards = 0  # the number of forwards that cached values
        self.thread = 0  # the thread of the latest one, or 0
        self.replaced: tuple[int, ...] = ()  # the threads whose latest forwards it replaced

    def begin_in(self, thread: int) -> None:
        """Note that `thread` replaces the values of another thread, or of none."""
        others = {self.thread, *self.replaced} - {thread, 0}
        self.thread, self.replaced = thread, tuple(others)


_NONE = _Cache()  # of all layers that have cached nothing yet; never changed


class Layer(Hinted):
    """Base class of all layers and losses: everything with a `forward` and a `backward`.

    Your own layer defines these two methods. `forward` stores values for `backward` with `cache`;
    `backward` gets them from `cached`, adds to the gradients of the parameters and returns
    dL/d(input). Parameters and sub-layers are plain attributes, or items of lists and dicts that
    are attributes; they are listed in the order of assignment. `register_buffer` adds an array that
    is saved with the layer but not trained.

    Attributes
    ----------
    training : bool
        Whether the layer is in training mode; set by `train` and `eval`. Within `nnlite.evaluate`
        and `nnlite.predict` it is False, and a mode set there lasts only until they return.

    Notes
    -----
    A layer caches only its latest `forward`. To use the same weights twice before `backward`, use
    `tied`. Containers raise a RuntimeError if one of their layers was called between their
    `forward` and their `backward`. `backward` may be called repeatedly: it returns the same input
    gradient and adds to the gradients of the parameters again.

    Copies (`copy`, pickle) have no caches. The message of an error in a sub-layer ends with its
    dotted name and the shapes of its inputs.

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
    _cache: _Cache = _NONE
    _buffer_names: tuple[str, ...] = ()

    def __init__(self) -> None:
        """Do nothing; layers without options need no ``__init__`` of their own."""

    # ---- the methods that every layer defines ----

    def forward(self, *inputs: Any, **options: Any) -> Any:
        """Return the output for `inputs`, and cache values for `backward`."""
        raise NotImplementedError(f"{type(self).__name__} does not define forward")

    def backward(self, grad: Array, input_grad: bool = True) -> Any:
        """Return dL/d(input) for `grad` = dL/d(output), and add to the gradients of the parameters.

        Parameters
        ----------
        grad : ndarray
            dL/d(output), with the shape of the output.
        input_grad : bool, default True
            False skips work that only dL/d(input) needs, and returns None.

        Returns
        -------
        ndarray, tuple of ndarray, or None
            One array for each input of `forward`.

        Raises
        ------
        RuntimeError
            If `forward` was not called before.
        ValueError
            If `grad` does not have the shape of the output.
        """
        raise NotImplementedError(
            f"{type(self).__name__} does not define backward, and there is no automatic "
            f"differentiation: write it, or build the model with nnlite.Sequential or "
            f"nnlite.Graph, which have one"
        )

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        try:
            output = self.forward(*inputs, **options)
            if output is None:
                raise without_output(self)
        except (TypeError, ValueError, RuntimeError) as error:
            explain(error, self, inputs, options)
            raise
        return output

    def output_at_once(self, inputs: Sequence[Any]) -> Any:
        """Return the output in evaluation mode, a new array, if that is there at once; else None.

        :meta private:
        """
        return None

    # ---- the cache ----

    def cache(self, *values: Any) -> None:
        """Store `values` for `backward`, replacing the last ones; under `no_grad`, do nothing."""
        thread, cache = current.caching, self._cache
        if cache.thread != thread:
            if thread is None:
                if cache.values is not None:
                    self.drop_cache()
                return
            if cache is _NONE:
                cache = self._cache = _Cache()
            cache.begin_in(thread)
        cache.values = values
        cache.forwards += 1

    def cached(self) -> tuple[Any, ...]:
        """Return the values that `forward` cached; raise a RuntimeError if there are none.

        It is also an error if another thread's `forward` replaced that of this thread. A thread
        without a `forward` of its own gets the values of the latest one.
        """
        cache = self._cache
        if cache.values is None:
            raise RuntimeError(
                f"{self.label}: backward needs what forward hands to self.cache(...), and there is "
                f"nothing; call forward before it, outside of no_grad"
            )
        if cache.replaced and current.thread in cache.replaced:
            raise RuntimeError(
                f"{self.label}: another thread called the layer after this thread's forward, and a "
                f"layer keeps the cache of its latest call only; call layer.tied() for each "
                f"thread, or use no_grad in the thread that does not train"
            )
        return cache.values

    def drop_cache(self) -> None:
        """Delete the values that `forward` cached in this thread."""
        if self._cache.thread == current.thread:
            self._cache.values = None

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_cache"}

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
        changes.attributes = object()

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        for name, value in vars(cls).items():
            if not hasattr(value, "__get__"):
                _check_name(cls, name, value)
        begins = vars(cls).get("training")
        if isinstance(begins, bool):
            # An entry in `__dict__` would hide the property.
            cls._training = begins
            del cls.training

    def register_buffer(self, name: str, value: ArrayLike | None) -> None:
        """Set attribute `name` to a copy of `value`, an array that is saved but not trained.

        It is part of the state dict, and `astype` converts it if it is of floats. The layer may
        change it in place or assign another array to the attribute.

        Parameters
        ----------
        name : str
        value : array_like or None
            An array keeps its dtype; Python floats become float32. None is not saved.

        Raises
        ------
        TypeError, ValueError
            If `name` is not a valid attribute name, or an attribute of this name exists that is not
            a buffer.

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

    # ---- sub-layers, parameters and buffers ----

    def named_children(self) -> Iterator[tuple[str, Layer]]:
        """Yield the name and the layer of each direct sub-layer."""
        return iter(held(self, Layer))

    def children(self) -> Iterator[Layer]:
        """Yield each direct sub-layer."""
        for _, child in self.named_children():
            yield child

    def layers(self) -> list[Layer]:
        """Return this layer and all layers inside it, in the order of `named_layers`."""
        found: list[Layer] = [self]
        for _, child in self.named_children():
            found += child.layers()
        return found

    def named_layers(self, prefix: str = "") -> Iterator[tuple[str, Layer]]:
        """Yield this layer (named `prefix`) and all layers inside it, with their dotted names."""
        yield prefix, self
        for name, child in self.named_children():
            yield from child.named_layers(f"{prefix}.{name}" if prefix else name)

    def modules(self) -> Iterator[Layer]:
        """Iterate over `layers()`; PyTorch's name for it."""
        return iter(self.layers())

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Layer]]:
        """Iterate over `named_layers()`; PyTorch's name for it."""
        return self.named_layers(prefix)

    def apply(self: Self, function: Callable[[Layer], object]) -> Self:
        """Call `function` with every layer inside this one, then with this one; return it."""
        for child in self.children():
            child.apply(function)
        function(self)
        return self

    def _own_parameters(self) -> list[tuple[str, Parameter]]:
        return held(self, Parameter)

    def named_parameters(
        self, prefix: str = "", recurse: bool = True
    ) -> Iterator[tuple[str, Parameter]]:
        """Yield each parameter with its dotted name; a shared parameter appears once.

        Names start with `prefix`. Without `recurse`, parameters of sub-layers are omitted.
        """
        seen: set[int] = set()
        for path, layer in self.named_layers(prefix) if recurse else [(prefix, self)]:
            for name, parameter in layer._own_parameters():
                if id(parameter) not in seen:
                    seen.add(id(parameter))
                    yield f"{path}.{name}" if path else name, parameter

    def parameters(self, recurse: bool = True) -> Iterator[Parameter]:
        """Yield each parameter of this layer and its sub-layers; a shared one appears once."""
        for _, parameter in self.named_parameters(recurse=recurse):
            yield parameter

    def named_buffers(self, prefix: str = "", recurse: bool = True) -> Iterator[tuple[str, Array]]:
        """Yield each buffer that is not None with its dotted name."""
        for path, layer in self.named_layers(prefix) if recurse else [(prefix, self)]:
            for name in layer._buffer_names:
                buffer = getattr(layer, name)
                if buffer is not None:
                    yield f"{path}.{name}" if path else name, buffer

    def buffers(self, recurse: bool = True) -> Iterator[Array]:
        """Yield each buffer of this layer and its sub-layers."""
        for _, buffer in self.named_buffers(recurse=recurse):
            yield buffer

    def requires_grad_(self: Self, requires_grad: bool = True) -> Self:
        """Make all parameters trainable, or freeze them with False; return the layer."""
        wanted = boolean(requires_grad, f"{type(self).__name__}: requires_grad")
        for parameter in self.parameters():
            parameter.requires_grad = wanted
        return self

    def trainable(self) -> bool:
        """Whether any parameter of this layer or its sub-layers requires a gradient."""
        for value in vars(self).values():
            if isinstance(value, Parameter) and value.requires_grad:
                return True
        # Parameters may also be items of lists and dicts.
        if any(parameter.requires_grad for _, parameter in self._own_parameters()):
            return True
        return any(child.trainable() for child in self.children())

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Set the gradients of all parameters to None, or with ``set_to_none=False`` to zero."""
        for layer in self.layers():
            for _, parameter in layer._own_parameters():
                parameter.zero_grad(set_to_none)

    # ---- state ----

    def _entries(self) -> Iterator[tuple[str, Parameter | Array]]:
        """Yield the entries of the state dict: parameters, and buffers as arrays, uncopied."""
        for path, layer in self.named_layers():
            dot = f"{path}." if path else ""
            for name, parameter in layer._own_parameters():
                yield dot + name, parameter
            yield from layer.named_buffers(path, recurse=False)

    def state_dict(self) -> dict[str, Array]:
        """Return copies of all parameters and buffers by dotted name, the same as in PyTorch.

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
            As returned by `state_dict`. Floats are converted to the dtype of the layer.
        strict : bool, default True
            Whether missing and unexpected names are errors.

        Returns
        -------
        IncompatibleKeys
            ``missing_keys`` and ``unexpected_keys``: both empty when strict.

        Raises
        ------
        ValueError
            If names are missing or unexpected (when strict), or a shape differs. Nothing is then
            loaded.
        TypeError
            If `state_dict` is not a mapping of names to arrays, an entry is not numeric, or
            `strict` is neither True nor False.
        """
        if not isinstance(state_dict, Mapping):
            raise TypeError(
                f"{self.label}: expected a state dict (names to arrays), "
                f"got {type(state_dict).__name__}; nnlite.load_state(path) reads one from a file"
            )
        strict = boolean(strict, f"{type(self).__name__}: strict")
        values, keys = matched(dict(self._entries()), state_dict, strict, self)
        for target, value in values:
            target[...] = value
        return keys

    def astype(self: Self, dtype: DTypeLike) -> Self:
        """Convert all parameters and buffers to float32 or float64, in place; return the layer."""
        wanted = np.dtype(dtype)
        if wanted not in FLOATS:
            raise TypeError(f"{self.label}: dtype must be float32 or float64, got {wanted}")
        # By identity, so that tied layers still share their buffers.
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
            layer._cache.values = None
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
        """Whether the layer is in training mode, as seen by the calling thread."""
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
            current.evaluates = None if current.trained else True

    def train(self: Self, mode: bool = True) -> Self:
        """Put this layer and its sub-layers into training mode; return the layer."""
        self.training = mode
        for child in self.children():
            child.train(mode)
        return self

    def eval(self: Self) -> Self:
        """Put this layer and its sub-layers into evaluation mode; return the layer."""
        return self.train(False)

    def tied(self: Self) -> Self:
        """Return a second layer with the same parameters and its own cache.

        Use it to apply the same weights twice: both layers add to the gradients of the same
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
            vars(twin)[name] = replaced(value, Layer, Layer.tied)
        return twin

    # ---- description ----

    def multiply_adds(
        self, input_shapes: tuple[tuple[int, ...], ...], output_shape: tuple[int, ...]
    ) -> int:
        """Return the number of multiply-adds in `forward` for inputs and an output of these shapes.

        As usual, only matrix products and convolutions count. The base class returns 0. Sub-layers
        are not included.
        """
        return 0

    def summary(self, input_shape: Any, batch_size: int = 1, dtype: Any = None) -> Summary:
        """Return a table of all layers: output shapes, parameters, multiply-adds and memory.

        Parameters
        ----------
        input_shape : int, tuple of int, or list of these
            The shape of a sample, without the batch axis; a list of shapes for several inputs.
        batch_size : int, default 1
            Number of samples in the batch.
        dtype : dtype or list of dtype, optional
            The dtype of each input, such as an integer type for an `Embedding`; by default that of
            the parameters.

        Returns
        -------
        Summary
            Prints as the table, displays as HTML in a notebook, and has the numbers as attributes.

        Raises
        ------
        ValueError, TypeError
            If the shape, batch size or dtype is invalid. If a layer rejects its input, its own
            error, with the name of the layer in the model.

        See Also
        --------
        nnlite.debug.summary.Summary : Definition of the counts.

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
        """The name of the layer in error messages: the constructor call, or the class if long."""
        text = repr(self)
        return text if len(text) <= 80 and "\n" not in text else type(self).__name__

    def _repr_html_(self) -> str | None:
        from .diagrams import picture

        return picture(self)

    def __repr__(self) -> str:
        """Return the constructor call, with all options that differ from their defaults."""
        return constructor_call(self)


def _check_name(owner: Layer | type[Layer], name: str, value: Any) -> None:
    """Raise a TypeError if a value other than a function would hide a method of `Layer`.

    `requires_grad` is an attribute of parameters only: on a layer it would have no effect.
    """
    if name != "requires_grad" and name not in vars(Layer):
        return
    kind = owner.__name__ if isinstance(owner, type) else type(owner).__name__
    cure = "freeze parameters with layer.requires_grad_(False)"
    if name == "requires_grad":
        raise TypeError(f"{kind}: a layer has no attribute 'requires_grad'; {cure}")
    hides = not name.startswith("_") and name != "training"
    if hides and (isinstance(value, Layer) or not callable(value)):
        if name != "trainable":
            cure = "choose another name for the attribute"
        raise TypeError(f"{kind}: {name!r} is a method of every layer; {cure}")


def latest_forwards(layers: Iterable[Layer]) -> list[int]:
    """Return the number of forwards of each layer so far, to recognise a later one."""
    return [layer._cache.forwards for layer in layers]


def check_latest_forwards(container: Layer, layers: list[Layer], forwards: list[int]) -> None:
    """Raise a RuntimeError if a layer of `container` was called after one of the `forwards`."""
    for layer, forward in zip(layers, forwards, strict=True):
        if layer._cache.forwards != forward:
            name = next(name for name, child in container.named_children() if child is layer)
            raise RuntimeError(
                f"{container.label}: layer {name!r}, {layer.label}, was called again after this "
                f"forward, and a layer keeps the cache of its latest call only; call forward again "
                f"before backward, or use layer.tied() for the other call"
            )


def without_output(layer: Layer) -> TypeError:
    """Return the error for a `forward` that returned None."""
    return TypeError(f"{layer.label}: forward returned None; it has to return the output")


def explain(
    error: Exception, layer: Layer, inputs: tuple[Any, ...], options: dict[str, Any]
) -> None:
    """Complete the message of an error that ``layer.forward(*inputs, **options)`` raised."""
    if isinstance(error, TypeError):
        complaint = complaint_of(layer.forward, inputs, options, f"{type(layer).__name__}.forward")
        error.args = (complaint,) if complaint else error.args
    add_path(error, layer, layer, inputs)


def hand_over(error: Exception, twin: Layer, model: Layer) -> None:
    """Let an error of a layer of `twin`, of ``model.tied()``, be that of the layer of `model`.

    Containers around the model then find its path, see `add_path`.
    """
    place = vars(error).get("_place")
    for layer, other in zip(model.layers(), twin.layers(), strict=True):
        if place and place[0] == id(other):
            vars(error)["_place"] = id(layer), *place[1:]


def add_path(
    error: Exception, model: Layer, layer: Layer, given: tuple[Any, ...], kind: str = "input"
) -> None:
    """Append the path in `model` of the layer that raised an error to the error's message.

    `layer`, called with the arrays `given`, raised the error, unless one of its sub-layers did.
    Without `given`, the message has no shapes.
    """
    # Other classes of errors may have arguments besides the message.
    if type(error) not in (TypeError, ValueError, RuntimeError):
        return
    shapes = " and ".join(str(getattr(array, "shape", type(array).__name__)) for array in given)
    # Store the layer's id, so that the error can be pickled without the layer.
    what = f", {kind} of shape {shapes}" if given else ""
    number, what, old = vars(error).get("_place", (id(layer), what, ""))
    path = next((path for path, part in model.named_layers() if id(part) == number), "")
    suffix = f" (layer {path!r}{what})" if path else old
    error.args = (str(error).removesuffix(old) + suffix,)
    vars(error)["_place"] = number, what, suffix
