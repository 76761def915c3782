"""The attributes of a layer: its parameters, sub-layers and options, and how values are loaded."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import ArrayLike

from .checks import Labelled
from .engine.arrays import Array
from .parameter import Parameter

Member = TypeVar("Member")

# Types of most attributes, which cannot contain parameters or layers.
_OPTIONS = {bool, float, int, str, type(None), np.ndarray}


def held(owner: object, kind: type[Member]) -> list[tuple[str, Member]]:
    """Return all members of type `kind` in the attributes of `owner`, with dotted names.

    A member is an attribute, or an item of lists and dicts. Private lists and dicts are skipped:
    caches, and lists that a container yields itself.
    """
    found: list[tuple[str, Member]] = []
    for name, value in vars(owner).items():
        if type(value) in _OPTIONS:
            continue
        if isinstance(value, kind):
            found.append((name, value))
        elif isinstance(value, (list, tuple, dict)) and not name.startswith("_"):
            found += _items(name, value, kind)
    return found


def _items(name: str, value: Any, kind: type[Member]) -> Iterator[tuple[str, Member]]:
    """Yield the members of type `kind` in `value`: itself, or its items if it is a list or dict."""
    if isinstance(value, kind):
        yield name, value
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from _items(f"{name}.{index}", item, kind)
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _items(f"{name}.{key}", item, kind)


def replaced(value: Any, kind: type[Member], function: Callable[[Member], Any]) -> Any:
    """Return `value`, with each member of type `kind` replaced by ``function(member)``."""
    if isinstance(value, kind):
        return function(value)
    if type(value) is tuple or hasattr(value, "_make"):  # of a NamedTuple
        items = [replaced(item, kind, function) for item in value]
        return tuple(items) if type(value) is tuple else value._make(items)
    if isinstance(value, (list, dict)):  # a copy is of the same class, such as OrderedDict
        twin: Any = copy.copy(value)
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            twin[key] = replaced(item, kind, function)
        return twin
    return value


def constructor_call(owner: object) -> str:
    """Return the constructor call of a layer, with all options that differ from their defaults."""
    arguments = []
    for name, option in inspect.signature(type(owner).__init__).parameters.items():
        if name in ("self", "rng") or option.kind in (option.VAR_POSITIONAL, option.VAR_KEYWORD):
            continue
        value = getattr(owner, name, option.default)
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
    return f"{type(owner).__name__}({', '.join(arguments)})"


# ---- loading ----


class IncompatibleKeys(NamedTuple):
    """The names missing from a state dict, and the names in it that the layer does not have."""

    missing_keys: list[str]
    unexpected_keys: list[str]


def matched(
    entries: Mapping[str, Parameter | Array],
    state_dict: Mapping[str, ArrayLike],
    strict: bool,
    owner: Labelled,
) -> tuple[list[tuple[Array, Array]], IncompatibleKeys]:
    """Return the array of each entry with its new value, and the names without a counterpart.

    Raises
    ------
    ValueError
        If names are missing or unexpected (when strict), or a shape differs.
    TypeError
        If a value is not numeric.
    """
    missing = [name for name in entries if name not in state_dict]
    unexpected = [str(name) for name in state_dict if name not in entries]
    if strict and (missing or unexpected):
        faults = [f"lacks {_listed(missing)}"] * bool(missing)
        faults += [f"has the unknown {_listed(unexpected)}"] * bool(unexpected)
        raise ValueError(
            f"{owner.label}: the state dict {' and '.join(faults)}; "
            f"load it into the model that it was saved from, or pass strict=False"
        )
    pairs: list[tuple[Array, Array]] = []
    for name, entry in entries.items():
        if name not in state_dict:
            continue
        target = entry.data if isinstance(entry, Parameter) else entry
        value = np.asarray(state_dict[name])
        if value.dtype.kind not in ("f" if target.dtype.kind == "f" else "iu"):
            raise TypeError(
                f"{owner.label}: {name!r} is of dtype {target.dtype}, "
                f"the state dict has {value.dtype}"
            )
        if value.shape != target.shape:
            raise ValueError(
                f"{owner.label}: {name!r} is of shape {target.shape}, "
                f"the state dict has {value.shape}"
            )
        pairs.append((target, value))
    return pairs, IncompatibleKeys(missing, unexpected)


def _listed(names: list[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:5])
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5} more"
