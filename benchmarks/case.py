"""What a case is: the same computation on several sides.

A `Case` makes the data and names a `Runner` for each side; a `Runner` is what is timed on one side.
Cases are sent to worker processes, so they are small dataclasses; a runner is made within its
worker and imports its library there.
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
        Whether `results` has all that the results of nnlite have; False for a library that does
        not give out its gradients.
    """

    complete: bool = True

    @abstractmethod
    def step(self, *batch: Any) -> Any:
        """Do once what is timed."""

    def batch(self, *arrays: Array) -> Batch:
        """Return a batch of NumPy arrays as the arrays of this side."""
        return arrays

    def state(self) -> dict[str, Array]:
        """Return the weights, by their names in PyTorch's state dict."""
        return {}

    def load(self, state: State) -> None:
        """Start from these weights."""
        if state:
            raise NotImplementedError(f"{type(self).__name__} has no weights")

    def to_float64(self) -> bool:
        """Go over to float64 for a stricter comparison of results; return whether that worked."""
        return False

    def results(self, batches: Sequence[Batch]) -> dict[str, Array]:
        """Return, by name, all that must be the same on every side that started alike."""
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
    goal : float or None
        The rival's time over nnlite's that the project wants to reach.
    """

    rival: str = "torch"
    goal: float | None

    @property
    @abstractmethod
    def name(self) -> str:
        """What the row says; a pattern on the command line is compared with it."""

    @property
    def in_process(self) -> bool:
        """Whether a step is done in the process of its runner, so that its memory can be told."""
        return True

    @property
    @abstractmethod
    def runners(self) -> Mapping[str, Callable[[Any], Runner]]:
        """The runner of each side that has the case; it is made with the case as argument."""

    def batches(self, rng: np.random.Generator) -> list[Batch]:
        """Return the batches that the steps go round, as NumPy arrays."""
        return [()]

    def products(self) -> list[Product]:
        """Return the matrix products of a step, for the side "blas"."""
        raise NotImplementedError

    def passes(self) -> list[Call]:
        """Return the other calls that a step cannot do without, for the side "floor"."""
        raise NotImplementedError


class BlasRunner(Runner):
    """The side "blas" of every case that has it: the matrix products alone."""

    def __init__(self, case: Case) -> None:
        rng = np.random.default_rng(0)
        products = case.products()
        self.calls = [call for product in products for call in product.calls(rng)]
        self.operations = sum(product.operations for product in products)

    def load(self, state: State) -> None:
        """Leave the weights alone: it is the shapes that count."""

    def step(self, *batch: Any) -> None:
        for call in self.calls:
            call()


class FloorRunner(BlasRunner):
    """The side "floor" of every case that has it: the matrix products and the passes."""

    def __init__(self, case: Case) -> None:
        super().__init__(case)
        self.calls += case.passes()
