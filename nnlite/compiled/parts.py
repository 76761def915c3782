"""Long functions as several short ones.

The time that Numba takes for a function grows faster than the function, and that of a deep model
has thousands of lines. The statements of a layer that is long, or like another one, become a
function of their own, which is compiled once.
"""

from __future__ import annotations

import ast
import itertools
import keyword
import re
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from .source import assigned_and_read, function, names_of, renamed

# Lines of a function from which on it is divided, and of a layer that is like no other one.
_LONG, _LONG_LAYER = 250, 50

# The first line of the statements of a layer: a comment with its path in the model, and its kind.
_COMMENT = "\n# "
_TITLE = re.compile(r"\n# ((?:[^ ]+: )?(\w+).*)\n")


class _Layer(NamedTuple):
    """The statements of a layer, or of its backward, as a function.

    Attributes
    ----------
    title, kind : str
        The layer with its path in the model, and the name of its class.
    arguments, results : list of str
        The variables that a call is given, and those that it assigns.
    parameters : list of str
        The names of the arguments in the function.
    text : str
        The statements of the function, whose names are those of no particular layer.
    """

    title: str
    kind: str
    arguments: list[str]
    results: list[str]
    parameters: list[str]
    text: str


def in_parts(name: str, known: Sequence[str], text: str) -> tuple[list[str], str]:
    """Return functions for the statements of some layers, and statements that call them.

    Parameters
    ----------
    name : str
        Name of the function.
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
    layers = _as_functions(sections, set(known))
    times = Counter(layer.text for layer in layers if layer)
    names: dict[str, str] = {}
    functions, statements = [], []
    for section, layer in zip(sections, layers, strict=True):
        if layer is None or (times[layer.text] == 1 and section.count("\n") < _LONG_LAYER):
            statements.append(section)
            continue
        if layer.text not in names:
            names[layer.text] = f"_{name}_{layer.kind.lower()}_{len(names) + 1}"
            doc = f"{layer.title}, or one like it."
            functions.append(function(names[layer.text], layer.parameters, [layer.text], doc))
        call = f"{names[layer.text]}({', '.join(layer.arguments)})"
        returned = f"{', '.join(layer.results)} = " if layer.results else ""
        statements.append(f"{_COMMENT}{layer.title}\n{returned}{call}")
    return functions, "\n".join(statements)


def _as_functions(sections: list[str], known: set[str]) -> list[_Layer | None]:
    """Return the statements of each layer as a function, or None if they have to stay in another.

    `known` are the variables that there are before the first statement.
    """
    stored = [set(names_of(section)[0]) for section in sections]
    before = itertools.accumulate(stored[:-1], set.union, initial=known)
    layers: list[_Layer | None] = []
    later: set[str] = set()  # the variables that later statements read
    for section, variables in reversed(list(zip(sections, before, strict=True))):
        assigned, read = assigned_and_read(section)
        layers.append(_as_function(section, assigned, read, variables, later))
        later = read | (later - assigned)
    return layers[::-1]


def _as_function(
    section: str, assigned: set[str], read: set[str], variables: set[str], later: set[str]
) -> _Layer | None:
    title = _TITLE.match(section)
    if not title or any(isinstance(node, ast.Return) for node in ast.walk(ast.parse(section))):
        return None
    text = re.sub(r"# .*\n", "", section[title.end() :])
    stored, loaded = names_of(text)
    results = [variable for variable in dict.fromkeys(stored) if variable in later]
    needed = variables & (read | (set(results) - assigned))
    own = needed.union(stored)
    words = list(dict.fromkeys(re.findall(r"\w+", text)))
    names = _common_names([word for word in words if word in own], set(loaded) - own)
    lines = [renamed(text, names)]
    if results:
        lines.append(f"return {', '.join(map(names.__getitem__, results))}")
    arguments = [word for word in words if word in needed]
    parameters = list(map(names.__getitem__, arguments))
    return _Layer(title[1], title[2], arguments, results, parameters, "\n".join(lines))


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
