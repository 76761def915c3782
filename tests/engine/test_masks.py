"""Masks: against numpy.where, and against what a product would do."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from nnlite.engine.masks import pick


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("given", [True, False])
def test_picks_numbers_as_they_are_and_leaves_zeros(dtype: Any, given: bool) -> None:
    values = np.array([[1.5, -2.0, np.inf], [-np.inf, np.nan, 5e-324]], dtype)
    where = np.array([[True, False, False], [True, True, False]])
    out = np.full_like(values, 7) if given else None
    picked = pick(values, where.copy(), out)
    assert_array_equal(picked, np.where(where, values, 0))
    assert picked.dtype == dtype
    assert out is None or np.shares_memory(picked, out)


def test_picks_from_and_into_parts_of_arrays() -> None:
    values, out = np.arange(12.0).reshape(3, 4), np.full((3, 4), -1.0)
    pick(values[:, ::2], np.array([[True, False]] * 3), out[:, 1::2])
    assert_array_equal(out, [[-1, 0, -1, 0], [-1, 4, -1, 0], [-1, 8, -1, 0]])
