"""The sides of a case: the library of each, and the base class of its runners."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from .case import Array, Batch, Runner, State


@dataclass(frozen=True)
class Side:
    """A library, as a column of the table.

    Attributes
    ----------
    title : str
        The title of the column.
    modules : tuple of str
        Modules to import before any measurement.
    cure : str
        How to install them if they are missing.
    """

    title: str
    modules: tuple[str, ...]
    cure: str

    def load(self, threads: int) -> dict[str, str]:
        """Import the library, set its number of threads; return the versions of its modules."""
        versions = {}
        for name in self.modules:
            module = importlib.import_module(name)
            if hasattr(module, "__version__"):
                versions[name] = module.__version__
            if name == "torch":
                module.set_num_threads(threads)
        if "numpy" in versions:
            versions |= _blas_libraries()
        return versions


def _blas_libraries() -> dict[str, str]:
    """Return the versions and the numbers of threads of the BLAS libraries loaded by NumPy."""
    try:
        import threadpoolctl
    except ImportError:
        return {}
    return {
        library["internal_api"]: f"{library['version']} (threads: {library['num_threads']})"
        for library in threadpoolctl.threadpool_info()
        if library["user_api"] == "blas"
    }


_BENCH = "pip install -e '.[bench]'"
SIDES = {
    "nnlite": Side("nnlite", ("nnlite",), _BENCH),
    "nnlite.compile": Side("nnlite compiled", ("nnlite", "numba"), "pip install -e '.[compile]'"),
    "blas": Side("BLAS", ("numpy",), _BENCH),
    "floor": Side("floor", ("numpy",), _BENCH),
    "compiled floor": Side("compiled floor", ("nnlite", "numba"), "pip install -e '.[compile]'"),
    "torch": Side("PyTorch", ("torch",), _BENCH),
    "torch.compile": Side("torch.compile", ("torch",), _BENCH),
    "torchvision": Side(
        "torchvision",
        ("torch", "torchvision"),
        "install torchvision, or name an interpreter that has it with --torchvision-python",
    ),
    "jax": Side("JAX", ("jax",), "pip install jax"),
    "sklearn": Side(
        "scikit-learn", ("sklearn", "sklearn.neural_network"), "pip install scikit-learn"
    ),
}

LIMITS = ("blas", "floor", "compiled floor")
"""The sides that compute no results."""


class NnliteRunner(Runner):
    """A runner with an nnlite model in `model`."""

    model: Any

    def state(self) -> dict[str, Array]:
        return dict(self.model.state_dict())

    def load(self, state: State) -> None:
        self.model.load_state_dict(state)

    def to_float64(self) -> bool:
        self.model.astype(np.float64)
        return True


class TorchRunner(Runner):
    """A runner with a PyTorch model in `model`."""

    model: Any

    def batch(self, *arrays: Array) -> Batch:
        import torch

        return tuple(map(torch.from_numpy, arrays))

    def state(self) -> dict[str, Array]:
        return {name: weight.numpy().copy() for name, weight in self.model.state_dict().items()}

    def load(self, state: State) -> None:
        self.model.load_state_dict(dict(zip(state, self.batch(*state.values()), strict=True)))

    def to_float64(self) -> bool:
        self.model.double()
        return True


class JaxRunner(Runner):
    """A runner with JAX arrays in `weights`."""

    weights: Mapping[str, Any]

    def batch(self, *arrays: Array) -> Batch:
        import jax

        return tuple(map(jax.numpy.asarray, arrays))

    def state(self) -> dict[str, Array]:
        return {name: np.array(weight) for name, weight in self.weights.items()}

    def load(self, state: State) -> None:
        import jax

        self.weights = jax.tree.map(jax.numpy.array, dict(state))
