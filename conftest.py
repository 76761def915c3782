"""Files that need an extra are no tests where it is missing."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib.util import find_spec

import pytest

NEEDED = {
    "nnlite/compiled/lowering.py": ["numba"],
    "nnlite/interop/onnx/*": ["onnx"],
    "nnlite/interop/mpi.py": ["mpi4py"],
    "nnlite/interop/scoring.py": ["sklearn"],
    "nnlite/interop/sklearn.py": ["sklearn"],
    "nnlite/interop/tensorboard.py": ["tensorboard"],
    "nnlite/interop/torch.py": ["torch"],
    "tests/compiled/test_native.py": ["numba"],
    "tests/interop/record_onnx.py": ["onnx"],
    "tests/interop/test_many_models.py": ["sklearn"],
    "tests/interop/test_mpi.py": ["mpi4py"],
    "tests/interop/test_sklearn.py": ["pandas", "polars", "sklearn"],
    "tests/interop/test_tensorboard.py": ["tensorboard"],
    "tests/interop/test_trackers.py": ["alembic", "mlflow"],
}

collect_ignore_glob = [
    path for path, packages in NEEDED.items() if not all(map(find_spec, packages))
]


@pytest.fixture(autouse=True)
def _figures_closed() -> Iterator[None]:
    """Close the figures of every test and example, which pyplot keeps."""
    yield
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")
