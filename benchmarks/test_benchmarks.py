"""The steps of nnlite as pytest-benchmark tests, to follow them over time.

They are not part of the test suite and do not assert times. They need ``pip install
pytest-benchmark`` and are run from the root of the repository. Save the times of one commit, check
out another, and compare::

    python -m pytest benchmarks/test_benchmarks.py --benchmark-autosave
    python -m pytest benchmarks/test_benchmarks.py --benchmark-compare

``-k "LeNet and train"`` selects cases. On a busy machine, ``python -m benchmarks --against COMMIT``
is the better comparison, since the two commits take turns.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from .case import Case
from .cases import CASES


@pytest.mark.parametrize(
    "case", [case for case in CASES if case.in_process], ids=lambda case: case.name
)
def test_step(benchmark: Any, case: Case) -> None:
    """Time one step, using the batches of the case in turn."""
    runner = case.runners["nnlite"](case)
    batches = itertools.cycle(case.batches(np.random.default_rng(0)))
    benchmark(lambda: runner.step(*next(batches)))
