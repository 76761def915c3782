"""Messages are plain ASCII, since consoles and log files may use other encodings."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import nnlite

ROOT = Path(nnlite.__file__).parent

# Their strings are shown in figures and in web pages.
SHOWN = {"diagrams.py", "plots.py", "debug/steps.py"}
NO_BREAK_SPACE = "\u00a0"  # in the HTML of a table

MODULES = [
    path.relative_to(ROOT).as_posix()
    for path in sorted(ROOT.rglob("*.py"))
    if path.relative_to(ROOT).as_posix() not in SHOWN
]


def strings(tree: ast.Module) -> list[tuple[int, str]]:
    """Return the line and the value of each string in the code that is no docstring."""
    alone = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    return [
        (node.lineno, node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in alone
    ]


@pytest.mark.parametrize("module", MODULES)
def test_strings_that_may_end_in_a_message_are_ascii(module: str) -> None:
    tree = ast.parse((ROOT / module).read_text("utf-8"))
    assert [
        each for each in strings(tree) if not each[1].replace(NO_BREAK_SPACE, "").isascii()
    ] == []
