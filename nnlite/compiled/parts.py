"""Long functions as several short ones.

The time that Numba takes for a function grows faster than the function, and that of a deep model
has thousands of lines. The statements of a layer that is long, or like another one, become a
function of their own, which is compiled once.
"""

from __future__ import annotations

import ast
import keyword
import re
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from .source import assigned_and_read, function, handed_on, names_of, renamed

# Lines of a function from which on it is divided, and of a layer that is like no other one.
_LONG, _LONG_LAYER = 250, 50

# The first line of the statements of a layer: a comment with its path in the model, and its kind.
_COMMENT = "\n# "
_TITLE = re.compile(r"\n# ((?:[^ ]+: )?(\w+).*)\n")


class _Layer(NamedTuple):
    """The statements of a layer, or of its backward, as a function.

    Attributes
    ----------
    arguments, results : list of str
        The variables that a call is given, and those that it assigns.
    parameters : list of str
        The names of the arguments in the function.
    text : str
        The statements of the function, whose names are those of no particular layer.
    """

    arguments: list[str]
    results: list[str]
    parameters: list[str]
    text: str


def in_parts(name: str, known: Sequence[str], text: str) -> tuple[list[str], str]:
    """Return functions for the statements of some layers, and statements that call them.

    Parameters
    ----------
    name : str
        That of the function whose statements they are.
    known : sequence of str
        The variables that there are before the first statement.
    text : str
        The statements. Those that return, and those of no layer, stay where they are.
    """
    if text.count("\n") <= _LONG:
        return [], text
    start, _, end = text.rpartition("\n")
    sections = re.split(rf"\n(?={_COMMENT})", start if end.startswith("return") else text)
    if end.startswith("return"):
        sections.append(end)
    variables, layers = set(known), []
    for index, section in enumerate(sections):
        layers.append(_as_function(section, variables, sections[index + 1 :]))
        variables |= set(names_of(section)[0])
    times = Counter(layer.text for layer in layers if layer)
    names: dict[str, str] = {}
    functions, statements = [], []
    for section, layer in zip(sections, layers, strict=True):
        if layer is None or (times[layer.text] == 1 and section.count("\n") < _LONG_LAYER):
            statements.append(section)
            continue
        title = _TITLE.match(section)
        assert title is not None
        if layer.text not in names:
            names[layer.text] = f"_{name}_{title[2].lower()}_{len(names) + 1}"
            doc = f"{title[1]}, or one like it."
            functions.append(function(names[layer.text], layer.parameters, [layer.text], doc))
        call = f"{names[layer.text]}({', '.join(layer.arguments)})"
        returned = f"{', '.join(layer.results)} = " if layer.results else ""
        statements.append(f"{title[0]}{returned}{call}")
    return functions, "\n".join(statements)


def _as_function(section: str, variables: set[str], later: list[str]) -> _Layer | None:
    """Return the statements of a layer as a function, or None if they have to stay in another.

    `variables` are those that there are before, and `later` the statements that follow.
    """
    title = _TITLE.match(section)
    if not title or any(isinstance(node, ast.Return) for node in ast.walk(ast.parse(section))):
        return None
    text = re.sub(r"# .*\n", "", section[title.end() :])
    results = handed_on([text], later)
    assigned, read = assigned_and_read(text)
    needed = variables & (read | (set(results) - assigned))
    stored, loaded = map(set, names_of(text))
    words = list(dict.fromkeys(re.findall(r"\w+", text)))
    names = _common_names(
        [word for word in words if word in needed | stored], loaded - needed - stored
    )
    lines = [renamed(text, names)]
    if results:
        lines.append(f"return {', '.join(map(names.__getitem__, results))}")
    arguments = [word for word in words if word in needed]
    parameters = list(map(names.__getitem__, arguments))
    return _Layer(arguments, results, parameters, "\n".join(lines))


def _common_names(variables: list[str], taken: set[str]) -> dict[str, str]:
    """Return names that do not tell of a particular layer: ``weight_3`` becomes ``weight``."""
    taken, names = {*taken, *keyword.kwlist}, {}
    for variable in variables:
        stem = re.sub(r"_?\d+", "", variable).strip("_") or "value"
        count, name = 1, stem
        while name in taken:
            count += 1
            name = f"{stem}_{count}"
        names[variable] = name
        taken.add(name)
    return names
