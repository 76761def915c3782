"""Flags of layers: a string or a number instead of True or False is an error."""

from __future__ import annotations

from collections.abc import Callable

import pytest

import nnlite as nn


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nn.MaxPool2d(2, ceil_mode="no"), "^MaxPool2d: ceil_mode must be True or False"),
        (lambda: nn.MaxPool1d(2, ceil_mode=1), "^MaxPool1d: ceil_mode must be True or False"),
        (lambda: nn.AvgPool2d(2, 2, 0, "no"), "^AvgPool2d: ceil_mode must be True or False"),
        (lambda: nn.AvgPool1d(2, 2, 0, False, None), "^AvgPool1d: count_include_pad must be True"),
        (lambda: nn.Conv2d(1, 1, 2, bias="no"), "^Conv2d: bias must be True or False, got 'no'"),
        (lambda: nn.Conv1d(1, 1, 2, bias=0), "^Conv1d: bias must be True or False, got 0"),
        (lambda: nn.Linear(3, 2, "cpu"), "^Linear: bias must be True or False, got 'cpu'"),
        (lambda: nn.BatchNorm1d(3, affine="no"), "^BatchNorm1d: affine must be True or False"),
        (lambda: nn.Sum(0, "no"), "^Sum: keepdim must be True or False"),
        (lambda: nn.Weight(1.0, "no"), "^Weight: requires_grad must be True or False"),
    ],
)
def test_a_flag_is_true_or_false(make: Callable[[], nn.Layer], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        make()
