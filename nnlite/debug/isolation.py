"""Looking at a model without touching it: what `gradcheck` and `trace` share."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import numpy as np

from ..layer import Layer
from ..random import generator

AnyLayer = TypeVar("AnyLayer", bound=Layer)


def isolated_copy(layer: AnyLayer) -> AnyLayer:
    """Return a deep copy of `layer` that has neither caches nor gradients yet."""
    left_out: list[Any] = [part._cache for part in layer.layers() if part._cache]
    for parameter in layer.parameters():
        left_out += [parameter.grad, parameter._storage]
    return copy.deepcopy(layer, {id(value): None for value in left_out})


@contextlib.contextmanager
def package_generator_kept() -> Iterator[None]:
    """Context after which the package's generator is where it was before."""
    package = generator()
    state = package.bit_generator.state
    try:
        yield
    finally:
        package.bit_generator.state = state


def leaves(values: Any) -> Iterator[Any]:
    """Yield the values in a value or in a tuple of them, which may be nested."""
    if isinstance(values, tuple):
        for item in values:
            yield from leaves(item)
    else:
        yield values


def map_leaves(function: Callable[[Any], Any], values: Any) -> Any:
    """Return `values` with `function` applied to each of its leaves, nested as it was."""
    if isinstance(values, tuple):
        return tuple(map_leaves(function, item) for item in values)
    return function(values)


def is_floats(value: Any) -> bool:
    """Whether `value` is an array of floats."""
    return isinstance(value, np.ndarray) and value.dtype.kind == "f"


def match_inputs(returned: Any, inputs: tuple[Any, ...]) -> list[Any] | None:
    """Return the gradient for each leaf of `inputs`, or None if `returned` has another number.

    What is not of floats, such as labels, may be left out.
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

    A layer that names its inputs in an attribute ``inputs``, as `Graph` does, is followed.
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
