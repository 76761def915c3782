"""Run the cases in PyTorch and write their figures into ``recorded/``.

Call it from the root of the repository, with PyTorch installed, after a case was added or changed::

    python -m tests.parity.record              # everything
    python -m tests.parity.record linear       # one file

The same PyTorch on the same machine writes the same bytes.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from .case import Array, Figures, torch_figures, torch_steps
from .cases import LAYERS, OPTIMIZERS

DIRECTORY = Path(__file__).parent / "recorded"


def path_of(group: str) -> Path:
    """Return the file of a group of cases."""
    return DIRECTORY / f"{group}.json"


def read(group: str) -> dict[str, Figures]:
    """Return the recorded figures of a group, by the name of the case."""
    cases = json.loads(path_of(group).read_text())["cases"]
    return {
        name: {figure: np.array(value, dtype) for figure, (dtype, value) in figures.items()}
        for name, figures in cases.items()
    }


def write(group: str, version: str, cases: dict[str, Figures]) -> None:
    """Write the figures of a group, one in a line."""
    path_of(group).write_text("".join(_lines(version, cases)))


def _lines(version: str, cases: dict[str, Figures]) -> Iterator[str]:
    yield f'{{"recorded with": "PyTorch {version}", "cases": {{\n'
    for last_case, (name, figures) in _marking_the_last(cases):
        yield f"  {json.dumps(name)}: {{\n"
        for last, (figure, value) in _marking_the_last(figures):
            comma = "" if last else ","
            yield f'    "{figure}": ["{value.dtype}", {_text(value)}]{comma}\n'
        yield "  }\n" if last_case else "  },\n"
    yield "}}\n"


def _marking_the_last(items: dict[str, Any]) -> Iterator[tuple[bool, tuple[str, Any]]]:
    for number, item in enumerate(items.items(), start=1):
        yield number == len(items), item


def _text(value: Array) -> str:
    """Return nested lists of the shortest decimals that are read back as the same bits."""
    if value.ndim:
        return f"[{', '.join(map(_text, value))}]"
    return str(value).lower()  # booleans as in JSON


def main(groups: list[str]) -> None:
    """Record the named groups, or all."""
    import torch

    torch.set_num_threads(1)
    version = torch.__version__.split("+")[0]
    for group, cases in LAYERS.items():
        if group in groups or not groups:
            write(group, version, {case.name: torch_figures(case, torch) for case in cases})
    for group, steps in OPTIMIZERS.items():
        if group in groups or not groups:
            write(group, version, {case.name: torch_steps(case, torch) for case in steps})


if __name__ == "__main__":
    main(sys.argv[1:])
