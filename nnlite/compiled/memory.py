"""Memory that the caller of a function brings, in place of arrays that it would return.

Numba takes half a microsecond for each array that it returns, which is more than the arithmetic of
a small layer. An array that the caller brings takes a fraction of that.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import numpy as np

from ..engine.arrays import Array
from .source import BATCH, Code, Shape, Value, fixed, names_of, product, used


def allocation_of(name: str, lines: list[str]) -> tuple[int, str] | None:
    """Return the place of the statement that allocates a variable, and its size as text.

    None if that is no array of floats, or if there is another assignment.
    """
    places = [place for place, line in enumerate(lines) if name in names_of(line)[0]]
    if len(places) != 1:
        return None
    found = re.fullmatch(rf"{name} = np\.empty\((.*), real\)", lines[places[0]])
    return found and (places[0], found[1])


class Memory:
    """The arrays that a caller brings.

    Attributes
    ----------
    names : list of str
        The arguments that they are.
    lines : dict of str to str
        By variable of the function: the statement in place of its allocation.
    """

    def __init__(self, code: Code) -> None:
        self.names: list[str] = []
        self.lines: dict[str, str] = {}
        self._code = code
        self._shapes: list[Shape] = []
        self._latest: tuple[int, list[tuple[int, ...]]] = -1, []

    def copy(self) -> Memory:
        """Return the same memory, to which more can be added."""
        memory = Memory(self._code)
        memory.names, memory.lines = [*self.names], dict(self.lines)
        memory._shapes = [*self._shapes]
        return memory

    def add_results(self, results: Iterable[Value], lines: list[str]) -> list[int]:
        """Add an array for each result that the statements allocate; return the other places."""
        others = []
        for index, y in enumerate(results):
            name = str(y.name)
            found = allocation_of(name, lines) if y.shape else None
            if found is None:
                others.append(index)
                continue
            place, size = found
            memory = self._added("result", y.shape)
            lines[place] = self.lines[name] = f"{name} = view({memory}, {size})"
        return others

    def add_parts(self, variables: Iterable[str], lines: list[str]) -> list[str]:
        """Add one array for all variables that the statements allocate; return the others."""
        others, parts, total = [], {}, 0
        for variable in variables:
            found = allocation_of(variable, lines)
            size = found and self._number(found[1])
            if not found or not size:
                others.append(variable)
                continue
            parts[variable] = found[0], self._text(total), found[1]
            total += size
        if total:
            sizes = (BATCH, total) if self._code.n_is_free else (total,)
            memory = self._added("kept", (product(sizes),))
        for variable, (place, start, length) in parts.items():
            lines[place] = self.lines[variable] = f"{variable} = part({memory}, {start}, {length})"
        return others

    def unpacked(self, lines: list[str]) -> list[str]:
        """Return the statements that assign the variables which the statements `lines` read."""
        return [self.lines[variable] for variable in used(self.lines, lines)]

    def _added(self, stem: str, shape: Shape) -> str:
        name = str(self._code.name(stem))
        self.names.append(name)
        self._shapes.append(shape)
        return name

    def _number(self, size: str) -> int:
        """Return the size, of a sample if the batch size is free; 0 if it is not that for each."""
        found = re.fullmatch(r"n( \* (\d+))?" if self._code.n_is_free else r"()(\d+)", size)
        return int(found[2] or 1) if found else 0

    def _text(self, size: int) -> str:
        return f"{BATCH!s} * {size}" if self._code.n_is_free and size else f"{size}"

    def make(self, n: int) -> list[Array]:
        """Return the memory for n samples."""
        latest, shapes = self._latest
        if n != latest:
            shapes = [fixed(shape, n) for shape in self._shapes]
            self._latest = n, shapes
        arrays, dtype = [], self._code.dtype
        for shape in shapes:
            arrays.append(np.empty(shape, dtype))  # noqa: PERF401 - quicker for few
        return arrays
