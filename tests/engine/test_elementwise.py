"""Elementwise functions compared with NumPy's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from nnlite.engine.elementwise import where


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("given", [True, False])
def test_where_selects_numbers_as_they_are_and_leaves_zeros(dtype: Any, given: bool) -> None:
    values = np.array([[1.5, -2.0, np.inf], [-np.inf, np.nan, 5e-324]], dtype)
    condition = np.array([[True, False, False], [True, True, False]])
    out = np.full_like(values, 7) if given else None
    expected = condition.copy()
    selected = where(condition, values, out)
    assert_array_equal(selected, np.where(expected, values, 0))
    assert selected.dtype == dtype
    assert out is None or np.shares_memory(selected, out)


def test_where_selects_from_and_into_parts_of_arrays() -> None:
    values, out = np.arange(12.0).reshape(3, 4), np.full((3, 4), -1.0)
    where(np.array([[True, False]] * 3), values[:, ::2], out[:, 1::2])
    assert_array_equal(out, [[-1, 0, -1, 0], [-1, 4, -1, 0], [-1, 8, -1, 0]])
