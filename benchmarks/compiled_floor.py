"""The floor of a compiled step: the necessary work of its machine code.

The side "compiled floor" is one call of a native function, in each thread if the step is large. It
makes about as many multiply-adds as the matrix products of the step, with matrices that stay in the
first-level cache, and passes over the parameters: a prediction reads them, and a training step also
writes the gradients and moves the parameters with the optimizer's state. The computed numbers are
meaningless. A real step can be faster than this floor if its convolutions need fewer products, by
Winograd's algorithm.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from .case import Array, Case, Runner, State

# Rows, terms and columns of a product that runs near the processor's peak.
SIZES = 64, 128, 48
# Multiply-adds from which on threads share them.
_SHARED = 20_000_000

_SOURCE = """\
import numpy as np

from nnlite.compiled.routines.products import matmul

real = np.float32


def multiply(left, right, out, count, rest):
    for _ in range(count):
        matmul(left, right, out)
    matmul(left[:rest], right, out[:rest])


def step(left, right, out, count, rest, {arrays}):
    for _ in range(count):
        matmul(left, right, out)
    matmul(left[:rest], right, out[:rest])
    total = real(0)
    for i in range(len(value)):
        total += value[i]
{passes}    return total
"""
_OF_GRADIENT = """\
    for i in range(len(grad)):
        grad[i] = total
"""
_OF_UPDATE = """    for i in range(len(value)):
{moves}
"""
_MOVE = """\
        {state}[i] = real(0.9) * {state}[i] + grad[i]
        value[i] -= real(0.1) * {state}[i]
"""


class Passes(NamedTuple):
    """What a step passes over.

    Attributes
    ----------
    parameters : int
        The number of parameters.
    states : int or None
        The number of arrays of the optimizer's state; 0 for gradients alone, None for a prediction.
    """

    parameters: int
    states: int | None


class CompiledFloorRunner(Runner):
    """Runner of the side "compiled floor"."""

    def __init__(self, case: Case, passes: Passes) -> None:
        from nnlite.compiled.native import functions_of
        from nnlite.engine.blas import threads_of_products

        functions: Any = functions_of(_source(passes.states), native=True)
        multiply_adds = sum(product.operations for product in case.products()) // 2
        threads = threads_of_products() if multiply_adds >= _SHARED else 1
        rows, *others = SIZES
        # The last product has fewer rows.
        count, rest = divmod(round(multiply_adds / (math.prod(others) * threads)), rows)
        names = 1 if passes.states is None else 2 + passes.states
        arrays = [np.zeros(passes.parameters, np.float32) for _ in range(names)]
        for name, more in (("multiply", []), ("step", arrays)):
            functions[name](*_operands(), 0, 0, *more)  # which compiles it
        self.calls = [partial(functions["step"], *_operands(), count, rest, *arrays)]
        for _ in range(threads - 1):
            self.calls.append(partial(functions["multiply"], *_operands(), count, rest))

    def load(self, state: State) -> None:
        """Ignore the weights: only shapes matter."""

    def step(self, *batch: Any) -> None:
        from nnlite.engine import threads

        if len(self.calls) == 1:
            self.calls[0]()
        else:
            threads.run(self.calls)


def _operands() -> list[Array]:
    rows, terms, columns = SIZES
    return [
        np.ones(sizes, np.float32) for sizes in ((rows, terms), (terms, columns), (rows, columns))
    ]


def _source(states: int | None) -> str:
    if states is None:
        return _SOURCE.format(arrays="value", passes="")
    names = [f"state{index}" for index in range(states)]
    moves = "".join(_MOVE.format(state=name) for name in names).rstrip()
    passes = _OF_GRADIENT + (_OF_UPDATE.format(moves=moves) if names else "")
    return _SOURCE.format(arrays=", ".join(["value", "grad", *names]), passes=passes)
