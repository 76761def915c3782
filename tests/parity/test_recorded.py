"""nnlite compared with results recorded from PyTorch, which is not needed."""

from __future__ import annotations

import numpy as np
import pytest

from .case import (
    TOLERANCE,
    Case,
    OptimizerCase,
    assert_figures,
    nnlite_figures,
    nnlite_steps,
)
from .cases import LAYERS, OPTIMIZERS
from .record import read

# PyTorch takes a single class too; nnlite warns of it.
pytestmark = pytest.mark.filterwarnings("ignore:.* a single class")

GROUPS = {**LAYERS, **OPTIMIZERS}
RECORDED = {group: read(group) for group in GROUPS}


@pytest.mark.parametrize("group", GROUPS)
def test_the_record_holds_each_case_once_and_no_other(group: str) -> None:
    names = [case.name for case in GROUPS[group]]
    assert len(set(names)) == len(names)
    assert list(RECORDED[group]) == names


@pytest.mark.parametrize("group", GROUPS)
def test_recorded_figures_are_finite_and_not_all_zero(group: str) -> None:
    for figures in RECORDED[group].values():
        assert all(np.isfinite(value).all() for value in figures.values())
        assert any(value.any() for value in figures.values())


@pytest.mark.parametrize(
    ("group", "case"), [(group, case) for group, cases in LAYERS.items() for case in cases], ids=str
)
def test_outputs_and_gradients_are_pytorchs(group: str, case: Case) -> None:
    recorded = RECORDED[group][case.name]
    assert_figures(nnlite_figures(case, recorded), recorded, TOLERANCE[case.dtype])


@pytest.mark.parametrize(
    ("group", "case"),
    [(group, case) for group, cases in OPTIMIZERS.items() for case in cases],
    ids=str,
)
def test_values_after_optimizer_steps_are_pytorchs(group: str, case: OptimizerCase) -> None:
    recorded = RECORDED[group][case.name]
    assert_figures(nnlite_steps(case, recorded), recorded, TOLERANCE[case.dtype])
