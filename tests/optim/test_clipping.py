"""Gradient clipping: compared with PyTorch, and extreme values."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.testing import assert_allclose, assert_array_equal

import nnlite as nn

from ..registry import Array

_elements = st.floats(-100, 100).map(lambda value: round(value, 3))
gradients = st.lists(
    hnp.arrays(np.float64, hnp.array_shapes(min_dims=0, max_dims=3, max_side=4), elements=_elements)
    | st.none(),
    min_size=1,
    max_size=5,
).filter(lambda grads: any(grad is not None and grad.any() for grad in grads))
limits = st.floats(0.01, 1000)


def parameters(grads: list[Array | None], dtype: Any = np.float64) -> list[nn.Parameter]:
    """Return parameters that have these gradients, and one of no shape where there is none."""
    made = []
    for grad in grads:
        parameter = nn.Parameter(np.zeros(np.shape(grad), dtype))
        parameter.grad = grad
        made.append(parameter)
    return made


def norm_of(params: list[nn.Parameter]) -> float:
    return math.hypot(*(x for p in params if p.grad is not None for x in p.grad.ravel().tolist()))


@given(grads=gradients, limit=limits)
def test_the_norm_is_at_most_the_limit_and_the_direction_stays(
    grads: list[Array | None], limit: float
) -> None:
    params = parameters(grads)
    before = norm_of(params)
    assert nn.clip_grad_norm(params, limit) == pytest.approx(before, rel=1e-12)
    assert norm_of(params) == pytest.approx(min(before, limit), rel=1e-12)
    for parameter, grad in zip(params, grads, strict=True):
        if grad is None:
            assert parameter.grad is None
        elif before <= limit:
            assert_array_equal(parameter.grad, grad)
        else:
            assert_allclose(parameter.grad, grad * (limit / before), rtol=1e-12)


@given(grads=gradients, limit=limits)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_clip_grad_norm_is_pytorchs(dtype: str, grads: list[Array | None], limit: float) -> None:
    torch = pytest.importorskip("torch")
    params = parameters(grads, dtype)
    theirs = [torch.nn.Parameter(torch.zeros(p.shape, dtype=getattr(torch, dtype))) for p in params]
    for parameter, tensor in zip(params, theirs, strict=True):
        tensor.grad = None if parameter.grad is None else torch.tensor(parameter.grad)
    norm = nn.clip_grad_norm(params, limit)
    tolerance = {"float64": 1e-12, "float32": 1e-6}[dtype]
    assert norm == pytest.approx(
        torch.nn.utils.clip_grad_norm_(theirs, limit).item(), rel=tolerance
    )
    # PyTorch divides by the norm plus 1e-6.
    tolerance += 1e-6 / norm
    for parameter, tensor in zip(params, theirs, strict=True):
        if parameter.grad is not None:
            assert parameter.grad.dtype == dtype
            assert_allclose(parameter.grad, tensor.grad.numpy(), rtol=tolerance, atol=1e-30)


@given(grads=gradients, limit=limits)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_clip_grad_value_is_pytorchs(dtype: str, grads: list[Array | None], limit: float) -> None:
    torch = pytest.importorskip("torch")
    params = parameters(grads, dtype)
    theirs = [torch.nn.Parameter(torch.zeros(p.shape, dtype=getattr(torch, dtype))) for p in params]
    for parameter, tensor in zip(params, theirs, strict=True):
        tensor.grad = None if parameter.grad is None else torch.tensor(parameter.grad)
    nn.clip_grad_value(params, limit)
    torch.nn.utils.clip_grad_value_(theirs, limit)
    for parameter, tensor in zip(params, theirs, strict=True):
        if parameter.grad is not None:
            assert_array_equal(parameter.grad, tensor.grad.numpy())


@pytest.mark.parametrize("size", [1, 7, 5000])
@pytest.mark.parametrize("value", [1e19, 1e25, 1e35])
def test_the_squares_of_large_float32_gradients_do_not_overflow(size: int, value: float) -> None:
    params = parameters([np.full(size, value), np.full((2, size), -value)], np.float32)
    assert nn.clip_grad_norm(params, 1.0) == pytest.approx(value * math.sqrt(3 * size), rel=1e-6)
    expected = 1 / math.sqrt(3 * size)
    assert_allclose(params[0].grad, np.full(size, expected), rtol=1e-5)
    assert_allclose(params[1].grad, np.full((2, size), -expected), rtol=1e-5)


def test_one_large_gradient_among_small_ones_is_the_norm() -> None:
    params = parameters([np.array([1e-3, 2.0]), np.array(1e30)], np.float32)
    assert nn.clip_grad_norm(params, 5.0) == pytest.approx(1e30, rel=1e-6)
    assert_allclose(params[1].grad, 5, rtol=1e-6)


def test_parameters_of_both_dtypes_are_clipped_together() -> None:
    a, b = nn.Parameter(np.zeros(1, np.float32)), nn.Parameter(np.zeros(1))
    a.grad, b.grad = [3.0], [4.0]
    assert nn.clip_grad_norm([a, b], 1.0) == 5.0
    assert_allclose(a.grad, [0.6], rtol=1e-6)
    assert_allclose(b.grad, [0.8], rtol=1e-15)
    assert (a.grad.dtype, b.grad.dtype) == (np.float32, np.float64)


def test_no_gradients_have_norm_zero() -> None:
    assert nn.clip_grad_norm(parameters([None, None]), 1.0) == 0.0
    assert nn.clip_grad_norm(parameters([np.zeros(3)]), 1.0) == 0.0
    nn.clip_grad_value(parameters([None]), 1.0)


def test_one_parameter_needs_no_list() -> None:
    (parameter,) = parameters([np.array([3.0, 4.0])])
    assert nn.clip_grad_norm(parameter, 1.0) == 5.0
    nn.clip_grad_value(parameter, 0.7)
    assert_allclose(parameter.grad, [0.6, 0.7], rtol=1e-12)


def test_a_model_that_would_diverge_trains_with_clipping() -> None:
    # f(θ) = θ⁴ at 10 has the slope 4000: a step of 0.1 leads out, one clipped to 1 leads in.
    def last(clips: bool) -> float:
        parameter = nn.Parameter(np.array(10.0))
        optimizer = nn.SGD([parameter], lr=0.1)
        for _ in range(150):
            parameter.grad = np.clip(4 * parameter.data**3, -1e30, 1e30)
            if clips:
                nn.clip_grad_norm([parameter], 1.0)
            optimizer.step()
            if abs(parameter.data) > 1e9:
                break
        return abs(float(parameter.data))

    assert last(clips=True) < 1
    assert last(clips=False) > 1e9


@pytest.mark.parametrize("name", ["clip_grad_norm", "clip_grad_value"])
@pytest.mark.parametrize(
    ("limit", "error", "message"),
    [
        (0, ValueError, "must be above 0, got 0"),
        (-1.0, ValueError, "must be at least 0, got -1"),
        (math.inf, ValueError, "must be finite, got inf"),
        (math.nan, ValueError, "must be finite, got nan"),
        ("1", TypeError, "must be a number, got '1'"),
        (None, TypeError, "must be a number, got None"),
    ],
    ids=str,
)
def test_a_limit_out_of_range_is_an_error_and_changes_nothing(
    name: str, limit: Any, error: type[Exception], message: str
) -> None:
    params = parameters([np.array([3.0, 4.0])])
    with pytest.raises(error, match=f"^{name}: (max_norm|clip_value) {message}$"):
        getattr(nn, name)(params, limit)
    assert_array_equal(params[0].grad, [3, 4])


@pytest.mark.parametrize("clip", [nn.clip_grad_norm, nn.clip_grad_value])
@pytest.mark.parametrize("wrong", [nn.Linear(2, 2), [np.ones(2)], None, 5], ids=repr)
def test_clipping_what_are_no_parameters_is_an_error(
    clip: Callable[..., object], wrong: Any
) -> None:
    with pytest.raises(TypeError, match=f"^{clip.__name__}: expected .*parameters"):
        clip(wrong, 1.0)


def test_small_float32_gradients_have_a_norm() -> None:
    p = nn.Parameter(np.zeros(2, np.float32))
    p.grad = [3e-30, 4e-30]
    assert nn.clip_grad_norm([p], 1.0) == pytest.approx(5e-30, rel=1e-6, abs=0)
