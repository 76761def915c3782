"""Base classes of the cases: the same computation in several libraries, here called sides.

A `Case` makes the data and names a `Runner` for each side; a `Runner` does the timed work of one
side. Cases are sent to worker processes, so they are small dataclasses. A runner is made in its
worker, which imports the library.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .products import Call, Product

Array = NDArray[Any]
Batch = tuple[Any, ...]
State = Mapping[str, Array]


class Runner(ABC):
    """One side of a case.

    Attributes
    ----------
    complete : bool
        Whether `results` has all results of nnlite; False for a library that does not return its
        gradients.
    """

    complete: bool = True

    @abstractmethod
    def step(self, *batch: Any) -> Any:
        """Run one timed step."""

    def batch(self, *arrays: Array) -> Batch:
        """Convert a batch of NumPy arrays to the arrays of this side."""
        return arrays

    def state(self) -> dict[str, Array]:
        """Return the weights by their names in PyTorch's state dict."""
        return {}

    def load(self, state: State) -> None:
        """Set the weights."""
        if state:
            raise NotImplementedError(f"{type(self).__name__} has no weights")

    def to_float64(self) -> bool:
        """Switch to float64 for a stricter comparison of results; return whether that worked."""
        return False

    def results(self, batches: Sequence[Batch]) -> dict[str, Array]:
        """Return by name the results that must agree on all sides for the same weights."""
        return {}


def as_number(value: Any) -> Array:
    """Return a float, or any library's array of one element, as a NumPy array."""
    return np.asarray(value.item() if hasattr(value, "item") else value)


class Case(ABC):
    """A row of the table.

    Attributes
    ----------
    rival : str
        The side that nnlite is compared with.
    goal, compiled_goal : float or None
        Targets for the rival's time over nnlite's, and over that of nnlite compiled.
    """

    rival: str = "torch"
    goal: float | None
    compiled_goal: float | None

    @property
    @abstractmethod
    def name(self) -> str:
        """Name in the table; patterns on the command line are matched with it."""

    @property
    def in_process(self) -> bool:
        """Whether a step runs in the process of its runner, so that its memory can be measured."""
        return True

    @property
    @abstractmethod
    def runners(self) -> Mapping[str, Callable[[Any], Runner]]:
        """The runner class of each side that supports the case; its argument is the case."""

    def batches(self, rng: np.random.Generator) -> list[Batch]:
        """Return the batches, as NumPy arrays, that the steps use in turn."""
        return [()]

    def products(self) -> list[Product]:
        """Return the matrix products of a step, for the side "blas"."""
        raise NotImplementedError

    def passes(self) -> list[Call]:
        """Return the other necessary calls of a step, for the side "floor"."""
        raise NotImplementedError


class BlasRunner(Runner):
    """Runner of the side "blas": only the matrix products."""

    def __init__(self, case: Case) -> None:
        rng = np.random.default_rng(0)
        products = case.products()
        self.calls = [call for product in products for call in product.calls(rng)]
        self.operations = sum(product.operations for product in products)

    def load(self, state: State) -> None:
        """Ignore the weights: only shapes matter."""

    def step(self, *batch: Any) -> None:
        for call in self.calls:
            call()


class FloorRunner(BlasRunner):
    """Runner of the side "floor": the matrix products and the other passes."""

    def __init__(self, case: Case) -> None:
        super().__init__(case)
        self.calls += case.passes()
