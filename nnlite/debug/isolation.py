"""Tools to inspect a model without changing it."""

from __future__ import annotations

import contextlib
import copy
import functools
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import numpy as np

from ..layer import Layer
from ..random import generator

AnyLayer = TypeVar("AnyLayer", bound=Layer)


def isolated_copy(layer: AnyLayer) -> AnyLayer:
    """Return a deep copy of `layer` without caches and gradients."""
    # Copies have no caches anyway.
    return copy.deepcopy(layer, {id(parameter.grad): None for parameter in layer.parameters()})


@contextlib.contextmanager
def package_generator_kept() -> Iterator[None]:
    """Context that restores the state of the package's generator."""
    package = generator()
    state = package.bit_generator.state
    try:
        yield
    finally:
        package.bit_generator.state = state


def intercept(layer: Layer, method: str, handler: Callable[..., Any]) -> None:
    """Have `handler` called in place of a method of `layer`, with the method before its arguments.

    Undone by `stop_intercepting`.
    """
    original = getattr(layer, method)
    # The instance's own attribute hides the method of its class.
    vars(layer)[method] = functools.wraps(original)(functools.partial(handler, original))


def stop_intercepting(layer: Layer) -> None:
    """Undo `intercept` for all methods, which ends the cycle of references that it makes."""
    for method in ("forward", "backward"):
        vars(layer).pop(method, None)


def named_innermost(model: Layer) -> Iterator[tuple[str, Layer]]:
    """Yield the layers without sub-layers, with their dotted names."""
    for name, layer in model.named_layers():
        if next(layer.children(), None) is None:
            yield name, layer


def leaves(values: Any) -> Iterator[Any]:
    """Yield the items of a nested tuple; any other value is its only item."""
    if isinstance(values, tuple):
        for item in values:
            yield from leaves(item)
    else:
        yield values


def map_leaves(function: Callable[[Any], Any], values: Any) -> Any:
    """Return `values` with `function` applied to each leaf, nested as before."""
    if isinstance(values, tuple):
        return tuple(map_leaves(function, item) for item in values)
    return function(values)


def is_floats(value: Any) -> bool:
    """Whether `value` is an array of floats."""
    return isinstance(value, np.ndarray) and value.dtype.kind == "f"


def match_inputs(returned: Any, inputs: tuple[Any, ...]) -> list[Any] | None:
    """Return the gradient for each leaf of `inputs`, or None if their numbers differ.

    Gradients of inputs that are not floats, such as labels, may be left out.
    """
    given, wanted = list(leaves(returned)), list(leaves(inputs))
    if len(given) == len(wanted):
        return given
    if not wanted and given == [None]:
        return []
    if len(given) == sum(map(is_floats, wanted)):
        floats = iter(given)
        return [next(floats) if is_floats(value) else None for value in wanted]
    return None


def input_names(layer: Layer, inputs: tuple[Any, ...]) -> list[str]:
    """Return a name for each leaf of `inputs`.

    A layer can name them in an attribute ``inputs``, as `Graph` does.
    """
    names = getattr(layer, "inputs", None)
    if not isinstance(names, tuple) or [*map(type, names)] != [str] * len(inputs):
        names = ["input"] if len(inputs) == 1 else [f"input[{i}]" for i in range(len(inputs))]
    taken = {name for name, _ in layer.named_layers()}
    return [
        leaf_name
        for index, (name, value) in enumerate(zip(names, inputs, strict=True))
        for leaf_name in _leaf_names(f"input[{index}]" if name in taken else name, value)
    ]


def _leaf_names(name: str, value: Any) -> Iterator[str]:
    if isinstance(value, tuple):
        for index, item in enumerate(value):
            yield from _leaf_names(f"{name}[{index}]", item)
    else:
        yield name
