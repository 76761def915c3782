"""The tables of forms on the page "Layers and their forms"."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from importlib.util import find_spec

import nnlite as nn

Tables = dict[str, set[type]]


def tables() -> Tables:
    """Return the classes that have each form; without PyTorch, its column is missing."""
    assert nn.compile  # its module enters the forms into their table

    def module(name: str) -> object:
        return importlib.import_module(f"nnlite.{name}")

    found: Tables = {
        "compiled": set(module("compiled.forms").FORMS),
        "ONNX": set(module("interop.onnx.forms").LAYERS),
    }
    if find_spec("torch") is not None:
        torch = module("interop.torch")
        found["PyTorch"] = {pair.layer for pair in torch.PAIRS}
        found["PyTorch"] |= set(torch.FUNCTIONS)
        found["PyTorch"] |= {nn.Sequential, nn.Residual, nn.Graph, nn.Weight}
    found["web page"] = set(module("interop.page.forms").FORMS)
    return found


def public(base: type) -> list[type]:
    """Return the public classes that derive from `base`, but for it, by name."""
    values = [getattr(nn, name) for name in sorted(nn.__all__, key=str.lower)]
    return [value for value in values if isinstance(value, type) and issubclass(value, base)
            and value is not base]  # fmt: skip


def layers() -> str:
    """Return the table of layers, in Markdown."""
    classes = [kind for kind in public(nn.Layer) if not issubclass(kind, nn.Loss)]
    return "\n".join(_rows("layer", classes, tables()))


def losses_and_optimizers() -> str:
    """Return the table of losses and optimizers, which have a compiled form at most."""
    compiled = {"compiled": tables()["compiled"]}
    return "\n".join(_rows("loss or optimizer", public(nn.Loss) + public(nn.Optimizer), compiled))


def _rows(title: str, classes: list[type], found: Tables) -> Iterator[str]:
    yield f"| {title} | {' | '.join(found)} |"
    yield f"| --- | {' | '.join([':---:'] * len(found))} |"
    for kind in classes:
        marks = ["✓" if kind in having else "" for having in found.values()]
        yield f"| `{kind.__name__}` | {' | '.join(marks)} |"
