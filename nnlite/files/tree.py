"""Nested states as JSON and arrays.

Types that JSON does not have are objects with one key that begins with ``$``: an array by its name,
a tuple, or a dict whose keys are not all plain strings.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ..engine.arrays import Array

_ARRAY, _DICT, _TUPLE = "$array", "$dict", "$tuple"


def pack(state: Any, fits: Callable[[str], bool]) -> tuple[str, dict[str, Array]]:
    """Return JSON that describes `state`, and its arrays by their path, as ``model/0.weight``.

    Parameters
    ----------
    state : mapping, list, tuple, array, NumPy scalar, int, float, str, bool or None
        Nested as deep as JSON allows. NumPy's scalars become Python's. Infinity and NaN are written
        as by Python's `json`.
    fits : callable
        Whether a string can be the name of an array; otherwise another name is used.

    Raises
    ------
    TypeError
        If `state` has a value of another type. The message has its path.
    ValueError
        If `state` contains itself.
    """
    packer = _Packer(fits)
    try:
        return json.dumps(packer.packed(state, ())), packer.arrays
    except RecursionError:
        raise ValueError("the state is nested too deep, or contains itself") from None


def unpack(text: str, arrays: Mapping[str, Array]) -> Any:
    """Return the state from the text and the arrays of `pack`.

    Raises
    ------
    ValueError
        If they do not belong together, or do not come from `pack`.
    """
    remaining = dict(arrays)

    def value(pairs: list[tuple[str, Any]]) -> Any:
        content = dict(pairs)
        if len(content) != len(pairs):
            raise ValueError("a name occurs twice")
        tag = next((name for name in content if name.startswith("$")), None)
        if tag is None:
            return content
        inner = content[tag]
        if len(content) > 1:
            raise ValueError(f"{tag[:80]!r} does not stand alone")
        if tag == _ARRAY and isinstance(inner, str):
            if inner not in remaining:
                raise ValueError(f"the array {inner[:80]!r} is missing")
            return remaining.pop(inner)
        if tag == _TUPLE and isinstance(inner, list):
            return tuple(inner)
        if tag == _DICT and isinstance(inner, list):
            return _dict(inner)
        raise ValueError(f"{tag[:80]!r} is unknown")

    try:
        state = json.loads(text, object_pairs_hook=value)
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    if remaining:
        raise ValueError(f"the array {next(iter(remaining))[:80]!r} belongs to nothing")
    return state


def _dict(items: list[Any]) -> dict[Any, Any]:
    content = {}
    for item in items:
        if not isinstance(item, list) or len(item) != 2 or not isinstance(item[0], (str, int)):
            raise ValueError("a key is neither a string nor an int")
        content[item[0]] = item[1]
    if len(content) != len(items):
        raise ValueError("a key occurs twice")
    return content


class _Packer:
    """Converts a state to JSON values and collects its arrays."""

    def __init__(self, fits: Callable[[str], bool]) -> None:
        self.arrays: dict[str, Array] = {}
        self.fits = fits

    def packed(self, value: Any, path: tuple[str, ...]) -> Any:
        if isinstance(value, np.ndarray):
            return {_ARRAY: self.kept(value, path)}
        if isinstance(value, np.generic):
            value = value.item()
        if value is None or isinstance(value, (str, bool, int, float)):
            return value
        if isinstance(value, Mapping):
            return self.packed_dict(value, path)
        if isinstance(value, (list, tuple)):
            items = [self.packed(item, (*path, str(place))) for place, item in enumerate(value)]
            return items if isinstance(value, list) else {_TUPLE: items}
        raise TypeError(
            f"{'/'.join(path)}: a state is made of arrays, numbers, strings, lists and dicts, "
            f"got {type(value).__name__}"
        )

    def packed_dict(self, content: Mapping[Any, Any], path: tuple[str, ...]) -> Any:
        for key in content:
            if not isinstance(key, (str, int)) or isinstance(key, bool):
                raise TypeError(f"{'/'.join(path)}: a key must be a str or an int, got {key!r:.80}")
        pairs = [(key, self.packed(item, (*path, str(key)))) for key, item in content.items()]
        plain = all(isinstance(key, str) and not key.startswith("$") for key in content)
        return dict(pairs) if plain else {_DICT: pairs}

    def kept(self, array: Array, path: tuple[str, ...]) -> str:
        if array.dtype.kind not in "biufc":
            raise TypeError(
                f"{'/'.join(path)}: expected an array of numbers, got dtype {array.dtype}"
            )
        wanted = "/".join(path)
        if not self.fits(wanted):
            wanted = f"{path[0]}/array"
        name, count = wanted, 1
        while name in self.arrays:
            count += 1
            name = f"{wanted}~{count}"
        self.arrays[name] = array
        return name
