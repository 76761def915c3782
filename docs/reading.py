"""The table of modules on the page "How nnlite is built"."""

from __future__ import annotations

import ast
import io
import tokenize
from pathlib import Path

from IPython.display import Markdown

import nnlite

ROOT = Path(nnlite.__file__).parent
_NO_CODE = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
}
_seen: set[Path] = set()


def lines_of_code(source: str) -> int:
    """Count the lines that are neither blank nor comments nor docstrings."""
    docstrings: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(
            node
        ):
            first = node.body[0]
            docstrings.update(range(first.lineno, (first.end_lineno or first.lineno) + 1))
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in _NO_CODE:
            lines.update(range(token.start[0], token.end[0] + 1))
    return len(lines - docstrings)


def reading_order(*names: str) -> Markdown:
    """Return a table of modules in this order; a folder stands for those not listed yet."""
    rows, total = ["| module | subject | lines |", "| --- | --- | ---: |"], 0
    for name in names:
        path = ROOT / name
        for module in sorted(path.rglob("*.py")) if path.is_dir() else [path.with_suffix(".py")]:
            if module in _seen or module.stem == "__init__":
                continue
            _seen.add(module)
            source = module.read_text(encoding="utf-8")
            subject = (ast.get_docstring(ast.parse(source)) or "").split("\n\n")[0]
            count = lines_of_code(source)
            total += count
            text = " ".join(subject.split()).replace("``", "`")
            rows.append(f"| `{module.relative_to(ROOT)}` | {text} | {count} |")
    rows.append(f"| | | **{total}** |")
    return Markdown("\n".join(rows))
