"""Programs whose functions threads call for parts of a batch."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..engine import threads
from ..engine.arrays import Array
from .native import interruption_of
from .programs import Program, returned
from .source import Code, function, handed_on, stages
from .split import Chunks

_ADDITION = """\
for i in range(total.size):
    total[i] = real(factor) * total[i] + real(weight) * part[i]"""

# The values of a chunk of a batch, and the variables that functions have returned for it, by name.
Variables = dict[str, Any]

# The name of the divisor of a loss among them: with spaces, as no variable has.
DIVISOR = "divisor of the loss"

# From the first sample and the end of a part of a batch to its values.
PartOf = Callable[[int, int], Variables]


class Stage(NamedTuple):
    """A function that threads call for parts of a batch: one of several, or the only one.

    Attributes
    ----------
    name : str
    results : list of str
        The variables that it returns.
    sums : tuple of str
        Those of them that are then summed over the parts.
    """

    name: str
    results: list[str]
    sums: tuple[str, ...] = ()


def result(place: int) -> str:
    """Return the name of an output, or of the gradient of an input, among variables."""
    return f"result {place}"


class ParallelProgram(Program):
    """A program whose functions threads call for parts of a batch.

    Each thread computes the gradients of its part; they are then added.
    """

    # Whether the gradients of a part are means: they are weighted by `DIVISOR`.
    _weighs = False

    def __init__(self, code: Code, native: bool) -> None:
        super().__init__(code, native)
        self._compiled: set[str] = set()  # the functions that threads have called
        self._spare: list[dict[str, Array]] = []  # rooms for gradients of parts and of chunks

    def define_addition(self) -> None:
        """Add the function with which the gradients of parts are added."""
        doc = "Add the gradients of a part of the batch to those of others."
        self._texts.append(function("add", ["total", "factor", "part", "weight"], [_ADDITION], doc))

    def define_stages(
        self,
        name: str,
        known: Sequence[str],
        lines: list[str],
        results: dict[str, str],
        after: list[str],
        doc: str,
    ) -> list[Stage]:
        """Add a function for the statements between each two sums over the batch.

        Parameters
        ----------
        name : str
            The last function; the names of those before it have a number.
        known : sequence of str
            The names of what the variables of a chunk begin with.
        lines : list of str
        results : dict of str to str
            The expressions that the last function returns, by name.
        after : list of str
            Statements that read variables afterwards.
        doc : str
            The docstring of the last function.
        """
        parts, sums = stages(lines)
        end, found = returned([*results.values()]), []
        for index, (part, names) in enumerate(zip(parts, sums, strict=False)):
            later = itertools.chain(*parts[index + 1 :])
            handed = handed_on(part, [*later, *end, *after])
            found.append(Stage(f"{name}_{index}", handed, names))
            needed = "Return what the functions after this one need."
            self.define(f"{name}_{index}", known, [*part, *returned(handed)], needed)
            known = list(dict.fromkeys([*known, *handed]))
        handed = handed_on(parts[-1], after)
        self.define(name, known, [*parts[-1], *returned([*results.values(), *handed])], doc)
        return [*found, Stage(name, [*results, *handed])]

    def bind_anew(self) -> None:
        super().bind_anew()
        self._spare = []

    def of_samples(
        self, names: Iterable[str], arrays: Iterable[Any], n: int, start: int, stop: int
    ) -> Variables:
        """Return the parts of some of n samples of arrays, by name; all of what they share."""
        named = zip(names, arrays, strict=True)
        if stop - start == n:
            return dict(named)
        shared = self.code.per_call.keys() - self.code.divided
        found = {}
        for name, array in named:
            if name not in shared:
                size = len(array) // n
                array = array[start * size : stop * size]
            found[name] = array
        return found

    def compute_parts(
        self,
        functions: Sequence[Stage],
        chunks: Chunks,
        part_of: PartOf,
        gradients: dict[str, Array],
    ) -> list[list[Variables]]:
        """Let threads call the functions, one after the other, each for the chunks of its part.

        Parameters
        ----------
        functions : sequence of Stage
        chunks : Chunks
            With sums, each part is one chunk.
        part_of : callable
            Called by the thread.
        gradients : dict of str to ndarray
            The arrays for the gradients of the whole batch, if there are any, by name. If a call
            fails, they are of no use.

        Returns
        -------
        list of list of dict
            The variables of each chunk of each part.
        """
        of_parts, of_chunks = self._rooms(chunks, gradients)
        parts: list[list[Variables]] = [[{} for _ in part] for part in chunks]
        divisors = [0.0 for _ in chunks]

        def compute(stage: Stage, part: int) -> None:
            for index, (start, stop) in enumerate(chunks[part]):
                variables = parts[part][index]
                own = of_chunks[part] if index else of_parts[part]
                if not variables:
                    variables.update(part_of(start, stop))
                self._compute_chunk(stage, variables, stop - start, own)
                divisor = variables.get(DIVISOR, 0.0)  # which the last stage returns
                if index:
                    self._add(of_parts[part], divisors[part], own, divisor)
                divisors[part] += divisor

        for stage in functions:
            calls = [functools.partial(compute, stage, part) for part in range(len(chunks))]
            self._run_parts(stage.name, calls)
            for name in stage.sums:
                total = functools.reduce(np.add, [part[0][name] for part in parts])
                for part in parts:
                    part[0][name][...] = total
        for index in range(1, len(chunks)):
            self._add(gradients, sum(divisors[:index]), of_parts[index], divisors[index])
        return parts

    def _rooms(
        self, chunks: Chunks, gradients: dict[str, Array]
    ) -> tuple[list[dict[str, Array]], list[dict[str, Array]]]:
        """Return the arrays for the gradients of each part, and for those of a chunk of it.

        The first part has `gradients`, and chunks are only needed where a part has several.
        """
        count, has_several = len(chunks), max(map(len, chunks)) > 1
        if not gradients:
            return [gradients] * count, [gradients] * count
        needed = 2 * count - 1 if has_several else count - 1
        while len(self._spare) < needed:
            self._spare.append(self.rooms.of(self.code.trained, 1 + len(self._spare)))
        return [gradients, *self._spare[: count - 1]], self._spare[count - 1 : needed]

    def _run_parts(self, name: str, calls: Sequence[Callable[[], object]]) -> None:
        """Make calls of a function for parts of a batch, each in a thread."""
        if name in self._compiled:
            threads.run(calls)
            return
        for call in calls:  # one thread compiles for all
            call()
        self._compiled.add(name)

    def _compute_chunk(
        self, stage: Stage, variables: Variables, n: int, gradients: dict[str, Array]
    ) -> None:
        """Call the function of a stage for n samples, with arrays for their gradients."""
        arrays = zip(self._arguments[stage.name][1], self._bound[stage.name], strict=True)
        bound = [gradients.get(name, array) for name, array in arrays]
        results = self.call_with(stage.name, n, variables, bound)
        variables.update(zip(stage.results, results or (), strict=True))

    def call_with(self, name: str, n: int, variables: Variables, bound: Sequence[Array]) -> Any:
        """Call a function with what it takes of the variables of a chunk."""
        given = [variables[name] for name in self._arguments[name][0]]
        try:
            return self._functions[name](n, *given, *bound)
        except SystemError as error:
            raise interruption_of(error) from None

    def _add(
        self,
        total: dict[str, Array],
        divisor: float,
        gradients: dict[str, Array],
        other_divisor: float,
    ) -> None:
        """Add gradients of other samples to a total; those of means are weighted by divisors."""
        factor = weight = 1.0
        if self._weighs:
            whole = divisor + other_divisor
            factor, weight = divisor / whole, other_divisor / whole
        for name, grad in gradients.items():
            self._functions["add"](total[name].reshape(-1), factor, grad.reshape(-1), weight)
