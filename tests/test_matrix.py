"""The tables of layers and forms in the documentation."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import nnlite as nn

pytest.importorskip("onnx")

sys.path.append(str(Path(__file__).parents[1] / "docs"))
import matrix

sys.path.pop()


def rows(table: str) -> dict[str, list[bool]]:
    """Return for each class in a table which of its cells have a mark."""
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    return {name.strip("`"): [mark == "✓" for mark in marks] for name, *marks in cells[2:]}


def test_the_tables_have_a_row_for_each_public_class() -> None:
    print(matrix.layers(), matrix.losses_and_optimizers(), sep="\n\n")  # pytest -s shows the gaps
    found = {**rows(matrix.layers()), **rows(matrix.losses_and_optimizers())}
    bases = {nn.Layer, nn.Loss, nn.Optimizer}
    values = [getattr(nn, name) for name in nn.__all__]
    kinds = {value for value in values if isinstance(value, type)} - bases
    assert set(found) == {kind.__name__ for kind in kinds if issubclass(kind, tuple(bases))}


def test_marks_are_entries_of_the_tables() -> None:
    found = rows(matrix.layers())
    assert all(found["Linear"])
    assert not any(found["Lambda"])
    assert rows(matrix.losses_and_optimizers())["CrossEntropy"] == [True]
    for name, having in matrix.tables().items():
        assert nn.ReLU in having, name
        assert nn.Lambda not in having, name
