"""The terms of a run: options that a resumed run must share with the run that it continues."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ..layer import Layer
from ..optim.base import Optimizer

# Where an object without a repr of its own lies in memory, which differs from run to run.
_ADDRESS = re.compile(r" at 0x[0-9A-Fa-f]+")


def terms_of(
    model: Layer, loss: Layer, optimizer: Optimizer, train: Any, **options: Any
) -> dict[str, Any]:
    """Return the layers of model and loss, the optimizer's options, the transform and `options`."""
    transform = _description(getattr(train, "transform", None))
    return {
        "model": _layers(model),
        "loss": _layers(loss),
        "optimizer": _options(optimizer),
        "options": {"transform": transform, **options},
    }


def check_terms(saved: Any, here: Mapping[str, Any], optimizer: Optimizer) -> None:
    """Raise a ValueError if a run of other terms has saved the state.

    `optimizer` has loaded its state. An option of it may be what the run began with, or what it
    has become since: an optimizer that goes on in the same process has changed options.
    """
    try:
        for part in ("model", "loss"):
            _check_layers(part, saved[part], here[part])
        for name, value in here["options"].items():
            if name == "transform" and name not in saved["options"]:
                continue  # earlier versions did not save it
            began = saved["options"][name]
            if began != value:
                raise _refusal(name, began, value)
        groups = zip(saved["optimizer"], here["optimizer"], _options(optimizer), strict=True)
        for first, now, loaded in groups:
            for name, value in now.items():
                if value not in (first[name], loaded[name]):
                    raise _refusal(f"the optimizer's {name}", first[name], value)
    except (KeyError, TypeError, IndexError):
        raise ValueError(f"the terms of the run are damaged: {saved!r:.80}") from None


def _layers(layer: Layer) -> dict[str, str]:
    return {path: _description(part) for path, part in layer.named_layers()}


def _description(part: Any) -> str:
    try:
        return _ADDRESS.sub("", repr(part))
    except Exception:  # a part of the user's own that cannot be shown is known by its class
        return type(part).__name__


def _options(optimizer: Optimizer) -> list[dict[str, str]]:
    """Return the options of each group as text, with the learning rate before any schedule."""
    groups = []
    for group in optimizer.param_groups:
        options = {**group, "lr": group.get("initial_lr", group["lr"])}
        groups.append({name: repr(options[name]) for name in optimizer.defaults})
    return groups


def _check_layers(part: str, saved: Mapping[str, str], here: Mapping[str, str]) -> None:
    if saved == here:
        return
    # The deepest layer that differs is the cause; those around it have it in their repr.
    differing = [path for path in {**saved, **here} if saved.get(path) != here.get(path)]
    path = max(differing, key=lambda path: path.count(".") + bool(path))
    name = f"layer {path!r} of the {part}" if path else f"the {part}"
    raise _refusal(name, saved.get(path, "missing"), here.get(path, "missing"))


def _refusal(name: str, saved: Any, here: Any) -> ValueError:
    return ValueError(
        f"{name} was {saved!s:.80} in the run of the checkpoint, and is {here!s:.80} here; "
        f"resume with the options that it began with"
    )
