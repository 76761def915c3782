"""Files that need an extra are no tests where it is missing."""

from __future__ import annotations

from importlib.util import find_spec

NEEDED = {
    "nnlite/interop/onnx/*": ["onnx"],
    "nnlite/interop/mpi.py": ["mpi4py"],
    "nnlite/interop/scoring.py": ["sklearn"],
    "nnlite/interop/sklearn.py": ["sklearn"],
    "nnlite/interop/tensorboard.py": ["tensorboard"],
    "nnlite/interop/torch.py": ["torch"],
    "tests/compiled/test_native.py": ["numba", "scipy"],
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
