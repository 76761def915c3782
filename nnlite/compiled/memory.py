"""Memory that the caller of a function brings, in place of arrays that it would return.

Numba takes half a microsecond for each array that it returns, which is more than the arithmetic of
a small layer. An array that the caller brings takes a fraction of that.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

import numpy as np

from ..engine.arrays import Array
from .source import BATCH, Code, Shape, Value, fixed, names_of, product, used

_empty = np.empty

# Numbers of a sample up to which variables share an array. The memory of very large arrays is not
# kept for the next call, and beside the arithmetic one array more takes no time.
_LARGE = 1 << 14


def _allocations(lines: list[str]) -> dict[str, tuple[int, str]]:
    """Return the place and the size, as text, of each array of floats that is assigned once."""
    assigned = Counter(name for line in lines for name in names_of(line)[0])
    found = {}
    for place, line in enumerate(lines):
        allocation = re.fullmatch(r"(\w+) = np\.empty\((.*), real\)", line)
        if allocation and assigned[allocation[1]] == 1:
            found[allocation[1]] = place, allocation[2]
    return found


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
        self._dtype = code.dtype
        self._latest: tuple[int, list[tuple[int, ...]]] = -1, []

    def copy(self) -> Memory:
        """Return the same memory, to which more can be added."""
        memory = Memory(self._code)
        memory.names, memory.lines = [*self.names], dict(self.lines)
        memory._shapes = [*self._shapes]
        return memory

    def add_results(self, results: Iterable[Value], lines: list[str]) -> list[int]:
        """Add an array for each result that the statements allocate; return the other places."""
        allocations, others = _allocations(lines), []
        for index, y in enumerate(results):
            name = str(y.name)
            if not y.shape or name not in allocations:
                others.append(index)
                continue
            place, size = allocations.pop(name)
            memory = self._added("result", y.shape)
            lines[place] = self.lines[name] = f"{name} = view({memory}, {size})"
        return others

    def add_parts(self, variables: Iterable[str], lines: list[str]) -> list[str]:
        """Add one array for small variables that the statements allocate; return the others."""
        allocations, others, starts, total = _allocations(lines), [], {}, 0
        for variable in variables:
            size = self._number(allocations[variable][1]) if variable in allocations else 0
            if not 0 < size <= _LARGE - total:
                others.append(variable)
                continue
            starts[variable], total = self._text(total), total + size
        if total:
            sizes = (BATCH, total) if self._code.n_is_free else (total,)
            memory = self._added("kept", (product(sizes),))
        for variable, start in starts.items():
            place, size_text = allocations[variable]
            line = f"{variable} = part({memory}, {start}, {size_text})"
            lines[place] = self.lines[variable] = line
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
        arrays, dtype = [], self._dtype
        for shape in shapes:
            arrays.append(_empty(shape, dtype))  # noqa: PERF401 - quicker for few
        return arrays
