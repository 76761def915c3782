"""Checks of an optimizer's state before any of it is loaded: the layout is PyTorch's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ..checks import number
from ..engine.arrays import Array
from ..parameter import Parameter

if TYPE_CHECKING:
    from .base import Optimizer


def checked_groups(optimizer: Optimizer, state_dict: Any) -> tuple[list[dict[str, Any]], list[Any]]:
    """Return the groups with the options of the state, and the state's index of each parameter."""
    name = type(optimizer).__name__
    if not isinstance(state_dict, Mapping) or not {"state", "param_groups"} <= set(state_dict):
        raise TypeError(f"{name}: expected the state_dict of an optimizer")
    given = state_dict["param_groups"]
    if not isinstance(given, (list, tuple)) or len(given) != len(optimizer.param_groups):
        raise ValueError(
            f"{name}: the state is of {_count(given)} parameter groups, "
            f"the optimizer has {len(optimizer.param_groups)}"
        )
    groups: list[dict[str, Any]] = []
    indices: list[Any] = []
    for place, (item, group) in enumerate(zip(given, optimizer.param_groups, strict=True)):
        what = f"{name}: group {place} of the state"
        numbers = item.get("params") if isinstance(item, Mapping) else None
        if not isinstance(numbers, (list, tuple)) or len(numbers) != len(group["params"]):
            raise ValueError(
                f"{what} has {_count(numbers)} parameters, "
                f"that of the optimizer {len(group['params'])}"
            )
        options = _checked_options(optimizer, group, item, what)
        optimizer.check(options)
        groups.append(options)
        indices += numbers
    return groups, indices


def _count(items: Any) -> int | str:
    return len(items) if isinstance(items, (list, tuple)) else "no"


def _checked_options(
    optimizer: Optimizer, group: Mapping[str, Any], item: Mapping[str, Any], what: str
) -> dict[str, Any]:
    """Return `group` with the options of `item`, a group of the state."""
    options = {name: value for name, value in item.items() if name != "params"}
    for name in set(options) - {*group, "initial_lr"}:
        # Off in PyTorch, or what this optimizer always does.
        if not any(options[name] is off for off in (False, None, optimizer._implied.get(name))):
            raise ValueError(f"{what} has the unknown option {name!r}")
        del options[name]
    for name, value in group.items():
        if name in ("params", "initial_lr"):
            continue
        if name not in options:
            if optimizer.defaults[name] is not False:
                raise ValueError(f"{what} lacks the option {name!r}")
            options[name] = False  # an earlier version did not have it
        if isinstance(value, bool) != isinstance(options[name], bool):
            raise TypeError(f"{what}: {name} cannot be {options[name]!r:.80}")
    if "initial_lr" in options:
        options["initial_lr"] = number(options["initial_lr"], f"{what}: initial_lr", 0)
    return {"params": group["params"], **options}


def checked_states(
    optimizer: Optimizer, given: Any, indices: list[Any]
) -> dict[int, tuple[int, list[Array | None]]]:
    """Return, by the id of each parameter, its number of steps and its arrays."""
    name = type(optimizer).__name__
    known = set(indices) if all(isinstance(index, int) for index in indices) else set()
    if len(known) != len(indices) or not isinstance(given, Mapping) or set(given) - known:
        raise ValueError(f"{name}: the state is not of the parameters that it lists")
    states = {}
    for place, (index, parameter) in enumerate(zip(indices, optimizer.parameters(), strict=True)):
        what = f"{name}: the state of parameter {place}"
        entry = given.get(index, {})
        if not isinstance(entry, Mapping):
            raise TypeError(f"{what} is no mapping")
        arrays = [
            _checked_array(entry.get(key), parameter, f"{what}: {key}")
            for key in optimizer.state_names
        ]
        # PyTorch's SGD does not count.
        step = entry.get("step", int(any(array is not None for array in arrays)))
        steps = number(step, f"{what}: step", minimum=0)
        if steps != int(steps):
            raise ValueError(f"{what}: step must be a whole number, got {steps}")
        states[id(parameter)] = int(steps), arrays
    return states


def _checked_array(value: Any, parameter: Parameter, what: str) -> Array | None:
    """Return an array of a state, or None where it has none, having checked that it fits."""
    if value is None:
        return None
    array = np.asarray(value)
    if array.dtype.kind != "f":
        raise TypeError(f"{what} must be of floats, got dtype {array.dtype}")
    if array.shape != parameter.shape:
        raise ValueError(
            f"{what} is of shape {array.shape}, the parameter of shape {parameter.shape}"
        )
    return array
