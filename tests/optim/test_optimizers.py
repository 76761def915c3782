"""Optimizers: their update rules, and parameters that are replaced, shared, frozen or copied.

Parity with PyTorch over hundreds of steps is in ``parity/``.
"""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

import nnlite as nn

from ..registry import Array


class PlainSGD:
    """The update rule of `SGD`'s docstring, one parameter at a time, with no cleverness at all."""

    def __init__(self, values: list[Array], **options: Any) -> None:
        self.values = [value.copy() for value in values]
        self.options = {"momentum": 0.0, "dampening": 0.0, "weight_decay": 0.0, "nesterov": False}
        self.options |= options
        self.directions: list[Array | None] = [None] * len(values)

    def step(self, grads: list[Array | None]) -> None:
        o = self.options
        for index, g in enumerate(grads):
            if g is None:
                continue
            g = g + o["weight_decay"] * self.values[index]
            if o["momentum"]:
                v = self.directions[index]
                v = g if v is None else o["momentum"] * v + (1 - o["dampening"]) * g
                self.directions[index] = v
                g = g + o["momentum"] * v if o["nesterov"] else v
            self.values[index] = self.values[index] - o["lr"] * g


def parameters(*shapes: tuple[int, ...], seed: int = 0) -> list[nn.Parameter]:
    rng = np.random.default_rng(seed)
    return [nn.Parameter(rng.normal(size=shape)) for shape in shapes]


def values(params: list[nn.Parameter]) -> list[Array]:
    return [parameter.data.copy() for parameter in params]


def give(params: list[nn.Parameter], grads: list[Array | None]) -> None:
    for parameter, grad in zip(params, grads, strict=True):
        parameter.zero_grad()
        if grad is not None:
            parameter.accumulate(grad)


def assert_close(params: list[nn.Parameter], expected: list[Array], rtol: float = 1e-12) -> None:
    for parameter, value in zip(params, expected, strict=True):
        assert_allclose(parameter.data, value, rtol=rtol, atol=rtol / 100)


OPTIONS: list[dict[str, Any]] = [
    {"lr": 0.1},
    {"lr": 0.1, "weight_decay": 0.3},
    {"lr": 0.1, "momentum": 0.9},
    {"lr": 0.1, "momentum": 0.9, "dampening": 0.4},
    {"lr": 0.1, "momentum": 0.9, "nesterov": True},
    {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.3},
    {"lr": 0.1, "momentum": 0.9, "dampening": -0.5, "weight_decay": 0.3},
    {"lr": 0.0, "momentum": 0.9},
]
every_option = pytest.mark.parametrize("options", OPTIONS, ids=str)


# ---- the update rule ----


def test_a_step_goes_against_the_gradient() -> None:
    p = nn.Parameter(np.array([1.0, 2.0]))
    optimizer = nn.SGD([p], lr=0.5)
    p.accumulate(np.array([1.0, -2.0]))
    optimizer.step()
    assert_array_equal(p.data, [0.5, 3.0])
    optimizer.step()  # the gradient is still there
    assert_array_equal(p.data, [0.0, 4.0])
    optimizer.zero_grad()
    optimizer.step()
    assert_array_equal(p.data, [0.0, 4.0])


def test_momentum_by_hand() -> None:
    # v = 1, 1.5, 1.75 for momentum ½ and a gradient of 1; θ falls by their sum.
    p = nn.Parameter(np.array([0.0]))
    optimizer = nn.SGD([p], lr=1.0, momentum=0.5)
    seen = []
    for _ in range(3):
        give([p], [np.ones(1)])
        optimizer.step()
        seen.append(float(p.data[0]))
    assert seen == [-1.0, -2.5, -4.25]


@every_option
@given(data=st.data())
def test_steps_follow_the_update_rule_whichever_parameters_have_a_gradient(
    options: dict[str, Any], data: st.DataObject
) -> None:
    shapes = [(3, 2), (4,), (), (1, 2, 3), (5,)]
    params = parameters(*shapes)
    plain, optimizer = PlainSGD(values(params), **options), nn.SGD(params, **options)
    rng = np.random.default_rng(1)
    for _ in range(6):
        present = data.draw(st.lists(st.booleans(), min_size=5, max_size=5))
        grads = [
            rng.normal(size=shape) if there else None
            for shape, there in zip(shapes, present, strict=True)
        ]
        give(params, grads)
        optimizer.step()
        plain.step(grads)
        assert_close(params, plain.values)


@every_option
def test_large_parameters_are_moved_to_their_last_element(options: dict[str, Any]) -> None:
    shapes = [(7,), (200, 333), (3,), (65536,), (1,)]
    params = parameters(*shapes)
    plain, optimizer = PlainSGD(values(params), **options), nn.SGD(params, **options)
    rng = np.random.default_rng(1)
    for _ in range(3):
        grads = [rng.normal(size=shape) for shape in shapes]
        give(params, grads)
        optimizer.step()
        plain.step(grads)
    assert_close(params, plain.values)


@every_option
def test_a_step_leaves_the_gradient_as_it_is(options: dict[str, Any]) -> None:
    params = parameters((3, 2), (2,))
    optimizer = nn.SGD(params, **options)
    grads = [np.full((3, 2), 0.25), np.full(2, 0.5)]
    give(params, grads)
    for _ in range(2):
        optimizer.step()
        for parameter, grad in zip(params, grads, strict=True):
            assert_array_equal(parameter.grad, grad)


@every_option
def test_groups_have_options_of_their_own(options: dict[str, Any]) -> None:
    params = parameters((3, 2), (2,), (4,))
    own = {"lr": 0.5, "weight_decay": 0.1}
    optimizer = nn.SGD([{"params": params[:2]}, {"params": params[2], **own}], **options)
    plain = [PlainSGD(values(params[:2]), **options), PlainSGD(values(params[2:]), **options | own)]
    rng = np.random.default_rng(1)
    for _ in range(4):
        grads = [rng.normal(size=p.shape) for p in params]
        give(params, grads)
        optimizer.step()
        plain[0].step(grads[:2])
        plain[1].step(grads[2:])
    assert_close(params, plain[0].values + plain[1].values)


def test_a_changed_option_holds_from_the_next_step_on() -> None:
    params = parameters((3,))
    plain = PlainSGD(values(params), lr=0.1, momentum=0.9)
    optimizer = nn.SGD(params, lr=0.1, momentum=0.9)
    for step in range(6):
        if step == 2:
            optimizer.lr = plain.options["lr"] = 0.01
        if step == 4:
            optimizer.param_groups[0]["weight_decay"] = plain.options["weight_decay"] = 0.5
        give(params, [np.ones(3)])
        optimizer.step()
        plain.step([np.ones(3)])
    assert_close(params, plain.values)


def test_momentum_that_begins_later_begins_with_the_gradient() -> None:
    # As in PyTorch: the first direction is the gradient itself, undampened.
    params = parameters((3,))
    plain = PlainSGD(values(params), lr=0.1)
    optimizer = nn.SGD(params, lr=0.1)
    for step in range(6):
        if step == 2:
            for options in (plain.options, optimizer.param_groups[0]):
                options |= {"momentum": 0.9, "dampening": 0.5}
        give(params, [np.ones(3)])
        optimizer.step()
        plain.step([np.ones(3)])
    assert_close(params, plain.values)


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda p: nn.SGD(p, lr=0.1, momentum=0.9), "momentum_buffer"),
        (lambda p: nn.Adam(p, betas=(0.9, 0.9)), "exp_avg"),
        (lambda p: nn.RMSprop(p, alpha=0.9), "square_avg"),
    ],
)
def test_averages_do_not_stay_below_the_smallest_normal_number(
    make: Callable[..., Any], name: str
) -> None:
    # 0.9ⁿ goes below it after 829 steps, and rounding would keep it from ever reaching 0. The
    # second element has gradients that do not end.
    parameter = nn.Parameter(np.zeros(2, np.float32))
    optimizer = make([parameter])
    averages = []
    for step in range(1000):
        parameter.grad = np.array([step == 0, 1.0], np.float32)
        optimizer.step()
        averages.append(optimizer.state_dict()["state"][0][name])
    first, second = np.array(averages).T
    assert first[750] > 0
    assert first[-1] == 0
    assert second[-1] > 0.9


def test_lr_is_that_of_the_first_group_and_sets_all() -> None:
    a, b = parameters((2,), (2,))
    optimizer = nn.SGD([{"params": [a], "lr": 0.5}, {"params": [b]}], lr=0.1)
    assert optimizer.lr == 0.5
    optimizer.lr = 0.25
    assert [group["lr"] for group in optimizer.param_groups] == [0.25, 0.25]


def test_a_float32_parameter_stays_float32_whatever_the_options() -> None:
    p = nn.Parameter(np.ones(3, np.float32))
    optimizer = nn.SGD([p], lr=np.float64(0.1), momentum=np.float64(0.9), weight_decay=0.1)
    optimizer.param_groups[0]["lr"] = np.float64(0.2)
    for _ in range(3):
        give([p], [np.ones(3)])
        optimizer.step()
    assert p.dtype == np.float32
    assert p.grad.dtype == np.float32


def test_parameters_of_both_dtypes_keep_theirs() -> None:
    params = [nn.Parameter(np.ones(2, dtype)) for dtype in (np.float32, np.float64, np.float32)]
    plain = PlainSGD([np.ones(2)] * 3, lr=0.1, momentum=0.9)
    optimizer = nn.SGD(params, lr=0.1, momentum=0.9)
    for _ in range(3):
        give(params, [np.ones(2)] * 3)
        optimizer.step()
        plain.step([np.ones(2)] * 3)
    assert [p.dtype.name for p in params] == ["float32", "float64", "float32"]
    for p, value in zip(params, plain.values, strict=True):
        assert_allclose(p.data, value, rtol=1e-6)


def test_empty_and_single_parameters_are_parameters() -> None:
    params = [nn.Parameter(np.zeros((0, 3))), nn.Parameter(np.array(1.0)), nn.Parameter(np.ones(1))]
    optimizer = nn.SGD(params, lr=0.5, momentum=0.9)
    give(params, [np.zeros((0, 3)), np.array(1.0), np.ones(1)])
    optimizer.step()
    assert params[0].shape == (0, 3)
    assert params[1].data == 0.5
    assert params[1].shape == ()
    assert params[2].data == [0.5]


# ---- Adam, AdamW and RMSprop ----


@pytest.mark.parametrize("kind", [nn.Adam, nn.AdamW])
def test_the_first_step_of_adam_is_as_long_as_the_learning_rate(kind: Any) -> None:
    # m / (1-β₁) = g and v / (1-β₂) = g², whatever the betas.
    p = nn.Parameter(np.zeros(3))
    give([p], [np.array([1e-3, -5.0, 700.0])])
    kind([p], lr=0.25, betas=(0.7, 0.8), eps=0, weight_decay=0).step()
    assert_allclose(p.data, [-0.25, 0.25, -0.25], rtol=1e-12)


def test_adam_by_hand() -> None:
    # β₁ = β₂ = ½ and gradients 1 and 3: m = ½, 7/4 and v = ½, 19/4, over 1 - ½ᵗ = ½ and ¾.
    p = nn.Parameter(np.zeros(1))
    optimizer = nn.Adam([p], lr=1.0, betas=(0.5, 0.5), eps=0)
    for grad, expected in ((1.0, -1.0), (3.0, -1.0 - (7 / 3) / np.sqrt(19 / 3))):
        give([p], [np.array([grad])])
        optimizer.step()
        assert_allclose(p.data, expected, rtol=1e-14)


def test_adamw_shrinks_the_values_by_themselves() -> None:
    p = nn.Parameter(np.array([8.0]))
    give([p], [np.zeros(1)])
    nn.AdamW([p], lr=0.5, weight_decay=0.25).step()
    assert_array_equal(p.data, [7.0])


def test_rmsprop_by_hand() -> None:
    # α = ¾ and a gradient of 1: v = ¼, 7/16.
    p = nn.Parameter(np.zeros(1))
    optimizer = nn.RMSprop([p], lr=1.0, alpha=0.75, eps=0)
    for expected in (-2.0, -2.0 - 4 / np.sqrt(7)):
        give([p], [np.ones(1)])
        optimizer.step()
        assert_allclose(p.data, expected, rtol=1e-14)


EVERY_OPTIMIZER = pytest.mark.parametrize(
    "make",
    [
        lambda p: nn.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.1),
        lambda p: nn.Adam(p, lr=0.1, weight_decay=0.1),
        lambda p: nn.AdamW(p, lr=0.1),
        lambda p: nn.RMSprop(p, lr=0.1, momentum=0.9, centered=True),
    ],
    ids=["SGD", "Adam", "AdamW", "RMSprop"],
)


@EVERY_OPTIMIZER
def test_a_parameter_moves_the_same_whatever_stands_beside_it(make: Callable[..., Any]) -> None:
    shapes = [(3, 2), (4,), (), (40_000,), (5,)]
    together, alone = parameters(*shapes), parameters(*shapes)
    optimizer, optimizers = make(together), [make([p]) for p in alone]
    rng = np.random.default_rng(1)
    for step in range(6):
        grads = [
            rng.normal(size=shape) if (step + index) % 3 else None
            for index, shape in enumerate(shapes)
        ]
        give(together, grads)
        give(alone, grads)
        for each in (optimizer, *optimizers):
            each.step()
    for p, q in zip(together, alone, strict=True):
        assert_array_equal(p.data, q.data)


@EVERY_OPTIMIZER
def test_a_step_changes_no_gradient_and_no_dtype(make: Callable[..., Any]) -> None:
    p = nn.Parameter(np.ones(4, np.float32))
    optimizer = make([p])
    grad = np.array([1.0, -2.0, 0.5, 0.0], np.float32)
    give([p], [grad])
    for _ in range(3):
        optimizer.step()
    assert_array_equal(p.grad, grad)
    assert p.dtype == np.float32
    assert np.isfinite(p.data).all()


@pytest.mark.parametrize(
    ("kind", "options", "error", "message"),
    [
        (nn.Adam, {"betas": (1.0, 0.9)}, ValueError, "Adam: the first of betas"),
        (nn.Adam, {"betas": (0.9, -0.1)}, ValueError, "Adam: the second of betas"),
        (nn.Adam, {"betas": 0.9}, TypeError, "Adam: betas must be a pair"),
        (nn.Adam, {"betas": (0.9, 0.9, 0.9)}, TypeError, "Adam: betas must be a pair"),
        (nn.Adam, {"eps": -1e-8}, ValueError, "Adam: eps must be at least 0"),
        (nn.AdamW, {"weight_decay": -0.1}, ValueError, "AdamW: weight_decay must be at least 0"),
        (nn.AdamW, {"lr": float("nan")}, ValueError, "AdamW: lr must be finite"),
        (nn.RMSprop, {"alpha": 1.0}, ValueError, "RMSprop: alpha"),
        (nn.RMSprop, {"momentum": -1}, ValueError, "RMSprop: momentum must be at least 0"),
    ],
    ids=str,
)
def test_an_option_of_another_optimizer_out_of_range_is_an_error(
    kind: Any, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=f"^{message}"):
        kind(parameters((2,)), **options)


# ---- clipping ----


def test_clip_grad_norm_scales_all_gradients_together() -> None:
    a, b, c = parameters((2,), (1, 1), (2,))
    give([a, b, c], [np.array([3.0, 0.0]), np.array([[4.0]]), None])
    assert nn.clip_grad_norm([a, b, c], 10.0) == 5.0
    assert_array_equal(a.grad, [3, 0])
    assert nn.clip_grad_norm([a, b, c], 2.5) == 5.0
    assert_allclose(a.grad, [1.5, 0], rtol=1e-12)
    assert_allclose(b.grad, [[2]], rtol=1e-12)
    assert c.grad is None


def test_clip_grad_norm_of_large_float32_gradients_does_not_overflow() -> None:
    p = nn.Parameter(np.zeros(2, np.float32))
    give([p], [np.array([3e30, 4e30])])
    assert nn.clip_grad_norm([p], 1.0) == pytest.approx(5e30)
    assert_allclose(p.grad, [0.6, 0.8], rtol=1e-6)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_clip_grad_norm_of_gradients_that_are_not_finite_is_an_error(value: float) -> None:
    a, b = parameters((2,), (2,))
    give([a, b], [np.ones(2), np.array([1.0, value])])
    with pytest.raises(ValueError, match="^clip_grad_norm: the norm of the gradients is"):
        nn.clip_grad_norm([a, b], 0.1)
    assert_array_equal(a.grad, [1, 1])


def test_clip_grad_value_limits_each_element() -> None:
    (p,) = parameters((4,))
    give([p], [np.array([3.0, -0.5, 0.5, -7.0])])
    nn.clip_grad_value([p], 1.0)
    assert_array_equal(p.grad, [1, -0.5, 0.5, -1])


@pytest.mark.parametrize("clip", [nn.clip_grad_norm, nn.clip_grad_value])
def test_clipped_gradients_are_those_that_the_step_takes(clip: Any) -> None:
    (p,) = parameters((1,))
    before = p.data.copy()
    optimizer = nn.SGD([p], lr=1.0)
    give([p], [np.array([8.0])])
    clip([p], 0.5)
    optimizer.step()
    assert_allclose(p.data, before - 0.5, rtol=1e-12)


@pytest.mark.parametrize("limit", [0, -1, float("nan"), "1", None])
@pytest.mark.parametrize("clip", [nn.clip_grad_norm, nn.clip_grad_value])
def test_a_limit_must_be_above_zero(clip: Any, limit: Any) -> None:
    params = parameters((2,))
    give(params, [np.ones(2)])
    with pytest.raises((ValueError, TypeError), match=f"^{clip.__name__}: .* must be"):
        clip(params, limit)
    assert_array_equal(params[0].grad, [1, 1])


@pytest.mark.parametrize("clip", [nn.clip_grad_norm, nn.clip_grad_value])
def test_clipping_no_parameters_is_an_error(clip: Any) -> None:
    with pytest.raises(ValueError, match=f"^{clip.__name__}: there are no parameters"):
        clip(iter([]), 1.0)


# ---- parameters that change behind the optimizer's back ----


def _replace_data(params: list[nn.Parameter]) -> None:
    for parameter in params:
        parameter.data = parameter.data * 2


def _write_into_data(params: list[nn.Parameter]) -> None:
    for parameter in params:
        parameter.data[...] *= 2


def _multiply_in_place(params: list[nn.Parameter]) -> None:
    for parameter in params:
        parameter.data *= 2


def _replace_one(params: list[nn.Parameter]) -> None:
    params[1].data = np.asfortranarray(params[1].data * 2)
    params[0].data[...] *= 2
    params[2].data *= 2


@pytest.mark.parametrize(
    "change",
    [_replace_data, _write_into_data, _multiply_in_place, _replace_one],
    ids=lambda f: f.__name__,
)
@every_option
def test_values_that_somebody_changes_are_the_values_that_are_moved(
    change: Callable[[list[nn.Parameter]], None], options: dict[str, Any]
) -> None:
    params = parameters((3, 2), (2, 2), (3, 2))
    plain, optimizer = PlainSGD(values(params), **options), nn.SGD(params, **options)
    rng = np.random.default_rng(1)
    for step in range(5):
        if step in (0, 2, 3):
            change(params)
            plain.values = [2 * value for value in plain.values]
        grads = [rng.normal(size=p.shape) for p in params]
        give(params, grads)
        optimizer.step()
        plain.step(grads)
        assert_close(params, plain.values)


def test_values_can_be_swapped() -> None:
    params = parameters((3, 2), (2,), (3, 2))
    before = values(params)
    optimizer = nn.SGD(params, lr=1.0)
    params[0].data, params[2].data = params[2].data, params[0].data
    give(params, [np.ones((3, 2)), np.ones(2), np.zeros((3, 2))])
    optimizer.step()
    assert_close(params, [before[2] - 1, before[1] - 1, before[0]])
    give(params, [np.ones((3, 2)), None, np.zeros((3, 2))])
    optimizer.step()
    assert_close(params, [before[2] - 2, before[1] - 1, before[0]])


def test_gradients_can_be_swapped() -> None:
    params = parameters((3, 2), (2,), (3, 2))
    before = values(params)
    optimizer = nn.SGD(params, lr=1.0)
    give(params, [np.full((3, 2), 1.0), None, np.full((3, 2), 2.0)])
    params[0].grad, params[2].grad = params[2].grad, params[0].grad
    optimizer.step()
    assert_close(params, [before[0] - 2, before[1], before[2] - 1])


@pytest.mark.parametrize(
    "set_grad",
    [
        lambda p, g: setattr(p, "grad", g),
        lambda p, g: setattr(p, "grad", g.astype(np.float32)),
        lambda p, g: setattr(p, "grad", np.asfortranarray(g)),
        lambda p, g: setattr(p, "grad", np.flip(np.flip(g).copy())),
        lambda p, g: p.accumulate(g),
        lambda p, g: (p.accumulate(g / 2), p.accumulate(g / 2)),
        lambda p, g: (p.accumulate(2 * g), setattr(p, "grad", p.grad / 2)),
        lambda p, g: (p.accumulate(2 * g), p.grad.__itruediv__(2)),
        lambda p, g: (p.accumulate(np.flip(g)), setattr(p, "grad", np.flip(p.grad))),
    ],
    ids=[
        "set",
        "set in float32",
        "set in Fortran order",
        "set with negative strides",
        "accumulated",
        "accumulated twice",
        "scaled",
        "scaled in place",
        "a view of itself",
    ],
)
def test_a_gradient_may_be_set_from_outside(set_grad: Callable[[nn.Parameter, Array], Any]) -> None:
    params = parameters((3, 2), (2,))
    plain = PlainSGD(values(params), lr=0.1, momentum=0.9)
    optimizer = nn.SGD(params, lr=0.1, momentum=0.9)
    for step in range(4):
        # Halves and quarters are exact in float32 too.
        grads = [np.arange(6).reshape(3, 2) / 4 + step, np.array([0.5, -0.25])]
        for parameter, grad in zip(params, grads, strict=True):
            parameter.zero_grad()
            set_grad(parameter, grad)
        optimizer.step()
        plain.step(grads)
        assert_close(params, plain.values)


def test_a_gradient_that_was_set_is_not_written_into() -> None:
    (p,) = parameters((3,))
    optimizer = nn.SGD([p], lr=0.1, momentum=0.9, weight_decay=0.1)
    mine = np.ones(3)
    p.grad = mine
    for _ in range(3):
        optimizer.step()
        optimizer.zero_grad()
        p.accumulate(np.full(3, 5.0))
    assert_array_equal(mine, [1, 1, 1])


def test_a_held_gradient_does_not_change_across_steps(rng: np.random.Generator) -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2))
    optimizer = nn.SGD(model.parameters(), lr=0.1, momentum=0.9)
    held: list[tuple[Array, Array]] = []
    for step in range(6):
        optimizer.zero_grad()
        model(rng.normal(size=(5, 4)))
        model.backward(rng.normal(size=(5, 2)))
        for index, parameter in enumerate(model.parameters()):
            if (step + index) % 2:
                held.append((parameter.grad, parameter.grad.copy()))
                held.append((parameter.grad[:1], parameter.grad[:1].copy()))
        optimizer.step()
        optimizer.zero_grad()
        for array, before in held:
            assert_array_equal(array, before)


def test_two_optimizers_may_move_the_same_parameters() -> None:
    params = parameters((3, 2), (2,))
    plain = PlainSGD(values(params), lr=0.1, momentum=0.9)
    other = PlainSGD(values(params), lr=0.01)
    first = nn.SGD(params, lr=0.1, momentum=0.9)
    second = nn.SGD(reversed(params), lr=0.01)
    rng = np.random.default_rng(1)
    for step in range(8):
        grads = [rng.normal(size=p.shape) for p in params]
        give(params, grads)
        if step % 3 != 1:
            first.step()
            plain.step(grads)
        if step % 3 != 2:
            second.step()
            other.values = plain.values
            other.step(grads)
            plain.values = other.values
        assert_close(params, plain.values)


def test_an_optimizer_of_some_parameters_leaves_the_others_alone() -> None:
    a, b, c = parameters((2,), (2,), (2,))
    optimizer = nn.SGD([a, c], lr=1.0)
    before = values([a, b, c])
    give([a, b, c], [np.ones(2)] * 3)
    optimizer.step()
    assert_close([a, b, c], [before[0] - 1, before[1], before[2] - 1])
    optimizer.zero_grad()
    assert a.grad is None
    assert b.grad is not None


def test_parameters_without_a_gradient_keep_their_value_in_spite_of_weight_decay() -> None:
    a, b = parameters((2,), (2,))
    optimizer = nn.SGD([a, b], lr=0.1, momentum=0.9, weight_decay=0.5)
    before = values([a, b])
    give([a, b], [np.ones(2), None])
    optimizer.step()
    assert_array_equal(b.data, before[1])
    assert (a.data != before[0]).all()


def test_a_frozen_parameter_is_not_moved() -> None:
    model = nn.Sequential(nn.Linear(4, 3, rng=0), nn.Tanh(), nn.Linear(3, 2, rng=1))
    for parameter in model[0].parameters():
        parameter.requires_grad = False
    optimizer = nn.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    frozen, free = model[0].state_dict(), model[2].state_dict()
    for _ in range(2):
        optimizer.zero_grad()
        model(np.ones((2, 4)))
        model.backward(np.ones((2, 2)))
        optimizer.step()
    for name, value in model[0].state_dict().items():
        assert_array_equal(value, frozen[name])
    assert (model[2].weight.data != free["weight"]).all()
    model[0].weight.requires_grad = True
    optimizer.zero_grad()
    model(np.ones((2, 4)))
    model.backward(np.ones((2, 2)))
    optimizer.step()
    assert (model[0].weight.data != frozen["weight"]).all()
    assert_array_equal(model[0].bias.data, frozen["bias"])


def test_a_parameter_that_is_frozen_after_its_backward_is_not_moved() -> None:
    (p,) = parameters((2,))
    before = p.data.copy()
    optimizer = nn.SGD([p], lr=0.1)
    p.accumulate(np.ones(2))
    p.requires_grad = False
    optimizer.step()
    assert_array_equal(p.data, before)


def test_a_tied_parameter_is_moved_once_with_the_sum_of_its_gradients() -> None:
    layer = nn.Linear(2, 2, bias=False, rng=0).astype(np.float64)
    model = nn.Sequential(layer, layer.tied())
    before = layer.weight.data.copy()
    optimizer = nn.SGD(model.parameters(), lr=0.5)
    x = np.array([[1.0, 2.0]])
    model(x)
    model.backward(np.array([[1.0, -1.0]]))
    # y = W W x: dL/dW = g (W x)ᵀ + (Wᵀ g) xᵀ
    g, column = np.array([[1.0], [-1.0]]), x.T
    grad = g @ (before @ column).T + (before.T @ g) @ column.T
    optimizer.step()
    assert_allclose(layer.weight.data, before - 0.5 * grad, rtol=1e-12)
    assert model[1].weight is layer.weight


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_astype_after_the_optimizer_was_made(dtype: Any) -> None:
    model = nn.Sequential(nn.Linear(4, 3, rng=0), nn.Tanh(), nn.Linear(3, 2, rng=1))
    model.astype(np.float64 if dtype == np.float32 else np.float32)
    optimizer = nn.SGD(model.parameters(), lr=0.1, momentum=0.9)
    plain = PlainSGD([p.data.astype(float) for p in model.parameters()], lr=0.1, momentum=0.9)
    rng = np.random.default_rng(1)
    for step in range(4):
        if step == 2:
            model.astype(dtype)
        grads = [rng.normal(size=p.shape) for p in model.parameters()]
        give(list(model.parameters()), grads)
        optimizer.step()
        plain.step(grads)
    assert {p.dtype for p in model.parameters()} == {np.dtype(dtype)}
    assert {p.grad.dtype for p in model.parameters()} == {np.dtype(dtype)}
    for parameter, value in zip(model.parameters(), plain.values, strict=True):
        assert_allclose(parameter.data, value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("index", [0, 2])
def test_astype_of_one_layer_converts_no_other(index: int) -> None:
    model = nn.Sequential(nn.Linear(4, 3, rng=0), nn.Tanh(), nn.Linear(3, 2, rng=1))
    optimizer = nn.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model[index].astype(np.float64)
    for _ in range(2):
        give(list(model.parameters()), [np.ones(p.shape) for p in model.parameters()])
        optimizer.step()
    for place in (0, 2):
        expected = np.float64 if place == index else np.float32
        assert {p.dtype for p in model[place].parameters()} == {np.dtype(expected)}


def test_load_state_dict_after_the_optimizer_was_made() -> None:
    model = nn.Sequential(nn.Linear(4, 3, rng=0), nn.Linear(3, 2, rng=1))
    optimizer = nn.SGD(model.parameters(), lr=0.5)
    new = {name: np.ones_like(value) for name, value in model.state_dict().items()}
    model.load_state_dict(new)
    give(list(model.parameters()), [np.ones(p.shape) for p in model.parameters()])
    optimizer.step()
    for value in model.state_dict().values():
        assert_array_equal(value, np.full(value.shape, 0.5))
    assert all((value == 1).all() for value in new.values())


def test_a_state_dict_is_not_changed_by_later_steps() -> None:
    model = nn.Linear(3, 2)
    optimizer = nn.SGD(model.parameters(), lr=0.5)
    state = model.state_dict()
    before = copy.deepcopy(state)
    give(list(model.parameters()), [np.ones(p.shape) for p in model.parameters()])
    optimizer.step()
    for name in state:
        assert_array_equal(state[name], before[name])


# ---- copies ----

COPIES = pytest.mark.parametrize(
    "duplicate",
    [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))],
    ids=["deepcopy", "pickle"],
)


def train(model: nn.Layer, optimizer: nn.Optimizer, steps: int, seed: int = 0) -> None:
    rng = np.random.default_rng(seed)
    for _ in range(steps):
        optimizer.zero_grad()
        model(rng.normal(size=(5, 4)))
        model.backward(rng.normal(size=(5, 2)), input_grad=False)
        optimizer.step()


def trained(make: Callable[..., nn.Optimizer]) -> tuple[nn.Layer, nn.Optimizer]:
    model = nn.Sequential(nn.Linear(4, 3, rng=0), nn.Tanh(), nn.Linear(3, 2, rng=1))
    optimizer = make(model.parameters())
    train(model, optimizer, 3)
    return model, optimizer


@COPIES
@EVERY_OPTIMIZER
def test_training_a_copy_of_a_model_does_not_touch_the_model(
    make: Callable[..., Any], duplicate: Callable[[Any], Any]
) -> None:
    model, optimizer = trained(make)
    twin = duplicate(model)
    before = model.state_dict()
    grads = [p.grad.copy() for p in model.parameters()]
    train(twin, nn.SGD(twin.parameters(), lr=0.1), 3, seed=1)
    for name, value in model.state_dict().items():
        assert_array_equal(value, before[name])
    for parameter, grad in zip(model.parameters(), grads, strict=True):
        assert_array_equal(parameter.grad, grad)
    after = twin.state_dict()
    train(model, optimizer, 3, seed=2)
    for name, value in twin.state_dict().items():
        assert_array_equal(value, after[name])
        assert (value != before[name]).any()


@COPIES
@EVERY_OPTIMIZER
def test_a_model_and_its_optimizer_can_be_copied_together(
    make: Callable[..., Any], duplicate: Callable[[Any], Any]
) -> None:
    model, optimizer = trained(make)
    twin, twin_optimizer = duplicate((model, optimizer))
    before = model.state_dict()
    train(twin, twin_optimizer, 3, seed=1)
    for name, value in model.state_dict().items():
        assert_array_equal(value, before[name])
    train(model, optimizer, 3, seed=1)
    for name, value in twin.state_dict().items():
        assert_array_equal(value, model.state_dict()[name])


# ---- its state ----

KINDS: dict[str, tuple[Callable[..., nn.Optimizer], dict[str, Any]]] = {
    "SGD": (nn.SGD, {"lr": 0.1}),
    "SGD with momentum": (nn.SGD, {"lr": 0.1, "momentum": 0.9, "dampening": 0.1}),
    "SGD with Nesterov": (nn.SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
    "Adam": (nn.Adam, {"lr": 0.05, "betas": (0.8, 0.95), "weight_decay": 0.1}),
    "AdamW": (nn.AdamW, {"lr": 0.05}),
    "SGD upwards": (nn.SGD, {"lr": 0.1, "momentum": 0.9, "maximize": True}),
    "Adam with amsgrad": (nn.Adam, {"lr": 0.05, "amsgrad": True}),
    "Adagrad": (nn.Adagrad, {"lr": 0.1, "lr_decay": 0.1, "initial_accumulator_value": 0.1}),
    "NAdam": (nn.NAdam, {"lr": 0.05}),
    "RAdam": (nn.RAdam, {"lr": 0.05, "betas": (0.8, 0.95)}),
    "RMSprop": (nn.RMSprop, {"lr": 0.02}),
    "RMSprop with all": (nn.RMSprop, {"lr": 0.02, "momentum": 0.5, "centered": True}),
}
every_state = pytest.mark.parametrize(("kind", "options"), KINDS.values(), ids=KINDS.keys())
SHAPES = [(2, 3), (4,), (), (0, 2)]


def in_groups(params: list[Any]) -> list[dict[str, Any]]:
    """Two groups that mix up the order, one with options of its own."""
    return [
        {"params": [params[2], params[0]], "weight_decay": 0.3, "lr": 0.03},
        {"params": [params[1], params[3]]},
    ]


def grads_at(step: int) -> list[Array]:
    rng = np.random.default_rng(step)
    return [rng.normal(size=shape) for shape in SHAPES]


def move(optimizer: nn.Optimizer, params: list[nn.Parameter], steps: range) -> None:
    for step in steps:
        given = grads_at(step)
        # The second parameter joins late, and the first has no gradient now and then.
        give(
            params,
            [None if step % 4 == 1 else given[0], given[1] if step > 2 else None, *given[2:]],
        )
        optimizer.step()


@every_state
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_an_optimizer_goes_on_from_its_state_with_the_same_bits(
    kind: Any, options: dict[str, Any], dtype: Any
) -> None:
    def new() -> tuple[list[nn.Parameter], nn.Optimizer]:
        params = parameters(*SHAPES)
        for parameter in params:
            parameter.astype(dtype)
        return params, kind(in_groups(params), **options)

    params, optimizer = new()
    move(optimizer, params, range(8))
    for stop in (0, 2, 5):
        first, before = new()
        move(before, first, range(stop))
        second, after = new()
        for parameter, moved in zip(second, first, strict=True):
            parameter.data = moved.data
        after.load_state_dict(before.state_dict())
        move(after, second, range(stop, 8))
        for parameter, expected in zip(second, params, strict=True):
            assert_array_equal(parameter.data, expected.data)


@every_state
def test_what_an_optimizer_has_done_before_it_is_loaded_leaves_no_trace(
    kind: Any, options: dict[str, Any]
) -> None:
    params, others = parameters(*SHAPES), parameters(*SHAPES, seed=1)
    optimizer, other = kind(in_groups(params), **options), kind(in_groups(others), **options)
    move(optimizer, params, range(1))
    move(other, others, range(5))
    other.param_groups[0]["lr"] = 7.0
    other.param_groups[1]["initial_lr"] = 7.0
    other.load_state_dict(optimizer.state_dict())
    assert repr(other.state_dict()) == repr(optimizer.state_dict())
    assert other.param_groups[0]["params"] == [others[2], others[0]]


def test_a_state_is_not_changed_by_later_steps() -> None:
    params = parameters(*SHAPES)
    optimizer = nn.Adam(params)
    move(optimizer, params, range(4))
    state = optimizer.state_dict()
    before = copy.deepcopy(state)
    move(optimizer, params, range(4, 6))
    optimizer.lr = 3.0
    assert repr(state) == repr(before)
    optimizer.load_state_dict(state)
    move(optimizer, params, range(4, 6))
    assert repr(state) == repr(before)


def test_the_state_follows_parameters_that_change_their_dtype() -> None:
    params = parameters((3,), (2,))
    optimizer = nn.Adam(params)
    give(params, [np.ones(3), np.ones(2)])
    optimizer.step()
    state = optimizer.state_dict()
    params[0].astype(np.float32)
    optimizer.load_state_dict(state)
    give(params, [np.ones(3), np.ones(2)])
    optimizer.step()
    assert optimizer.state_dict()["state"][0]["exp_avg"].dtype == np.float32
    assert optimizer.state_dict()["state"][1]["exp_avg"].dtype == np.float64
    assert [entry["step"] for entry in optimizer.state_dict()["state"].values()] == [2, 2]


class TestBesidePyTorch:
    """The layout is PyTorch's: either side goes on from the state of the other."""

    def tolerance(self, kind: Any) -> float:
        # PyTorch's NAdam keeps the product of the momenta in float32.
        return 1e-6 if kind is nn.NAdam else 1e-12

    def both(self, kind: Any, options: dict[str, Any]) -> tuple[Any, Any, Any, Any, Any]:
        torch = pytest.importorskip("torch")
        params = parameters(*SHAPES)
        tensors = [torch.tensor(p.data, requires_grad=True) for p in params]
        module = getattr(torch.optim, kind.__name__)(in_groups(tensors), **options)
        return torch, params, kind(in_groups(params), **options), tensors, module

    def move_torch(self, torch: Any, module: Any, tensors: list[Any], steps: range) -> None:
        for step in steps:
            for tensor, grad in zip(tensors, grads_at(step), strict=True):
                tensor.grad = torch.tensor(grad)
            module.step()

    def move_nnlite(
        self, optimizer: nn.Optimizer, params: list[nn.Parameter], steps: range
    ) -> None:
        for step in steps:
            give(params, list(grads_at(step)))
            optimizer.step()

    @every_state
    def test_the_names_of_pytorch_are_there(self, kind: Any, options: dict[str, Any]) -> None:
        torch, params, optimizer, tensors, module = self.both(kind, options)
        self.move_torch(torch, module, tensors, range(2))
        self.move_nnlite(optimizer, params, range(2))
        theirs, mine = module.state_dict(), optimizer.state_dict()
        assert set(mine["state"]) >= set(theirs["state"])
        for index, entry in theirs["state"].items():
            assert {name for name, value in entry.items() if value is not None} <= set(
                mine["state"][index]
            )
        for group, expected in zip(mine["param_groups"], theirs["param_groups"], strict=True):
            for name in group:
                assert group[name] == expected[name]

    @every_state
    def test_nnlite_goes_on_from_the_state_of_pytorch(
        self, kind: Any, options: dict[str, Any]
    ) -> None:
        torch, params, optimizer, tensors, module = self.both(kind, options)
        self.move_torch(torch, module, tensors, range(5))
        optimizer.load_state_dict(module.state_dict())
        for parameter, tensor in zip(params, tensors, strict=True):
            parameter.data = tensor.detach().numpy()
        self.move_torch(torch, module, tensors, range(5, 30))
        self.move_nnlite(optimizer, params, range(5, 30))
        expected = [tensor.detach().numpy() for tensor in tensors]
        assert_close(params, expected, self.tolerance(kind))

    @every_state
    def test_pytorch_goes_on_from_the_state_of_nnlite(
        self, kind: Any, options: dict[str, Any]
    ) -> None:
        torch, params, optimizer, tensors, module = self.both(kind, options)
        self.move_nnlite(optimizer, params, range(5))
        state = optimizer.state_dict()
        for entry in state["state"].values():
            for name, value in entry.items():
                entry[name] = torch.tensor(value)
        # What only PyTorch has stays as it is.
        for group, own in zip(
            state["param_groups"], module.state_dict()["param_groups"], strict=True
        ):
            group.update({name: value for name, value in own.items() if name not in group})
        module.load_state_dict(state)
        for parameter, tensor in zip(params, tensors, strict=True):
            tensor.data = torch.tensor(parameter.data)
        self.move_torch(torch, module, tensors, range(5, 30))
        self.move_nnlite(optimizer, params, range(5, 30))
        expected = [tensor.detach().numpy() for tensor in tensors]
        assert_close(params, expected, self.tolerance(kind))


def changed(*path: Any, to: Any) -> Callable[[dict[str, Any]], None]:
    """Return a function that puts something else in a place of a state."""

    def change(state: dict[str, Any]) -> None:
        inner: Any = state
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] = to

    return change


def deleted(*path: Any) -> Callable[[dict[str, Any]], None]:
    def change(state: dict[str, Any]) -> None:
        inner: Any = state
        for key in path[:-1]:
            inner = inner[key]
        del inner[path[-1]]

    return change


GROUP = ("param_groups", 1)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (deleted("state"), TypeError, "expected the state_dict of an optimizer"),
        (changed("param_groups", to=3), ValueError, "of no parameter groups, the optimizer has 2"),
        (deleted(*GROUP), ValueError, "is of 1 parameter groups, the optimizer has 2"),
        (changed(*GROUP, to=[1]), ValueError, "group 1 of the state has no parameters"),
        (deleted(*GROUP, "params", 0), ValueError, "group 1 of the state has 1 parameters, .* 2"),
        (changed(*GROUP, "params", 0, to=0), ValueError, "not of the parameters that it lists"),
        (changed(*GROUP, "params", 0, to=[0]), ValueError, "not of the parameters that it lists"),
        (changed("state", 9, to={}), ValueError, "not of the parameters that it lists"),
        (changed("state", to=[1]), ValueError, "not of the parameters that it lists"),
        (deleted(*GROUP, "lr"), ValueError, "group 1 of the state lacks the option 'lr'"),
        (changed(*GROUP, "lr", to=-1.0), ValueError, "lr must be at least 0"),
        (changed(*GROUP, "lr", to=True), TypeError, "lr must be a number|lr cannot be True"),
        (changed(*GROUP, "initial_lr", to=-1.0), ValueError, "initial_lr must be at least 0"),
        (changed(*GROUP, "betas", to=(0.9, 1.0)), ValueError, "second of betas must be below 1"),
        (changed(*GROUP, "fused", to=True), ValueError, "has the unknown option 'fused'"),
        (changed(*GROUP, "decoupled_weight_decay", to=True), ValueError, "unknown option 'decou"),
        (changed("state", 0, to=3), TypeError, "the state of parameter 0 is no mapping"),
        (changed("state", 0, "step", to=-1), ValueError, "0: step must be at least 0"),
        (changed("state", 0, "step", to=1.5), ValueError, "0: step must be a whole number"),
        (changed("state", 0, "step", to="x"), TypeError, "0: step must be a number"),
        (
            changed("state", 3, "exp_avg", to=np.ones(3)),
            ValueError,
            r"3: exp_avg .*\(3,\).*\(0, 2\)",
        ),
        (
            changed("state", 1, "exp_avg", to=np.ones((2, 3), int)),
            TypeError,
            "of floats, got dtype",
        ),
        (changed("state", 1, "exp_avg_sq", to="text"), TypeError, "exp_avg_sq must be of floats"),
    ],
)
def test_a_state_that_does_not_fit_is_an_error_and_nothing_is_loaded(
    change: Callable[[dict[str, Any]], None], error: type[Exception], message: str
) -> None:
    params = parameters(*SHAPES)
    optimizer = nn.Adam(in_groups(params))
    move(optimizer, params, range(4))
    before = repr(optimizer.state_dict())
    others = parameters(*SHAPES)
    other = nn.Adam(in_groups(others), lr=0.5)
    move(other, others, range(5))
    state = copy.deepcopy(other.state_dict())
    change(state)
    with pytest.raises(error, match=f"^Adam: .*{message}"):
        optimizer.load_state_dict(state)
    assert repr(optimizer.state_dict()) == before


def test_the_state_of_another_optimizer_is_an_error() -> None:
    params = parameters((2,))
    with pytest.raises(ValueError, match="^SGD: group 0 of the state has the unknown option"):
        nn.SGD(params).load_state_dict(nn.Adam(params).state_dict())
    with pytest.raises(TypeError, match="^SGD: group 0 of the state: nesterov cannot be 'yes'"):
        nn.SGD(params).load_state_dict(
            {
                "state": {},
                "param_groups": [
                    {**nn.SGD(params).state_dict()["param_groups"][0], "nesterov": "yes"}
                ],
            }
        )


def test_an_optimizer_of_ones_own_has_a_state() -> None:
    class Heavy(nn.Optimizer):
        state_names = ("speed",)

        def counts(self, group: dict[str, Any]) -> bool:
            return False

        def update(
            self, group: dict[str, Any], step: int, value: Array, grad: Array, *state: Array
        ) -> None:
            (speed,) = state
            speed += grad
            value -= group["lr"] * speed

    p, q = nn.Parameter(np.zeros(2)), nn.Parameter(np.zeros(2))
    first, second = Heavy([p], {"lr": 1.0}), Heavy([q], {"lr": 0.5})
    p.accumulate(np.array([1.0, 2.0]))
    first.step()
    second.load_state_dict(first.state_dict())
    q.accumulate(np.zeros(2))
    second.step()
    assert_array_equal(q.data, [-1, -2])


# ---- errors ----


def test_a_parameter_given_twice_is_an_error() -> None:
    a, b = parameters((2,), (2,))
    message = "^SGD: a parameter is given more than once"
    with pytest.raises(ValueError, match=message):
        nn.SGD([a, b, a])
    with pytest.raises(ValueError, match=message):
        nn.SGD([{"params": [a, b]}, {"params": [a]}])


def test_a_generator_that_was_used_up_is_an_error_that_says_so() -> None:
    generator = nn.Linear(2, 2).parameters()
    nn.SGD(generator)
    with pytest.raises(ValueError, match=r"^SGD: there are no parameters; .*used once"):
        nn.SGD(generator)
    with pytest.raises(ValueError, match="^SGD: there are no parameters"):
        nn.SGD(nn.ReLU().parameters())
    with pytest.raises(ValueError, match="^SGD: there are no parameters"):
        nn.SGD([{"params": []}])


@pytest.mark.parametrize(
    "given",
    [
        nn.Linear(2, 2),
        nn.Sequential(nn.Linear(2, 2)),
        nn.Parameter([1.0]),
        np.ones(3),
        [np.ones(3)],
        {"params": [nn.Parameter([1.0])]},
        None,
        5,
        "params",
        [{"parameters": [nn.Parameter([1.0])]}],
        [{"params": 5}],
        [{"params": None}],
        [nn.Parameter([1.0]), {"params": [nn.Parameter([1.0])]}],
        nn.Linear(2, 2).state_dict(),
        list(nn.Linear(2, 2).named_parameters()),
    ],
    ids=[
        "layer",
        "model",
        "one parameter",
        "array",
        "arrays",
        "one group",
        "None",
        "number",
        "string",
        "group of another key",
        "number in a group",
        "None in a group",
        "parameters and groups",
        "state dict",
        "named parameters",
    ],
)
def test_what_are_not_parameters_are_an_error(given: Any) -> None:
    with pytest.raises(TypeError, match="^SGD: expected .*parameters"):
        nn.SGD(given)


@pytest.mark.parametrize("in_group", [False, True], ids=["default", "group"])
@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"lr": -0.1}, ValueError, r"SGD: lr must be at least 0, got -0\.1"),
        ({"lr": float("nan")}, ValueError, "SGD: lr must be finite, got nan"),
        ({"lr": float("inf")}, ValueError, "SGD: lr must be finite, got inf"),
        ({"lr": "0.1"}, TypeError, r"SGD: lr must be a number, got '0\.1'"),
        ({"lr": None}, TypeError, "SGD: lr must be a number, got None"),
        ({"lr": True}, TypeError, "SGD: lr must be a number, got True"),
        ({"lr": [0.1]}, TypeError, r"SGD: lr must be a number, got \[0\.1\]"),
        ({"lr": 1j}, TypeError, "SGD: lr must be a number, got 1j"),
        ({"momentum": -0.1}, ValueError, r"SGD: momentum must be at least 0, got -0\.1"),
        ({"momentum": float("nan")}, ValueError, "SGD: momentum must be finite, got nan"),
        ({"weight_decay": -1}, ValueError, "SGD: weight_decay must be at least 0, got -1"),
        ({"dampening": float("nan")}, ValueError, "SGD: dampening must be finite, got nan"),
        ({"nesterov": True}, ValueError, "SGD: nesterov needs a momentum above 0"),
        (
            {"nesterov": True, "momentum": 0.9, "dampening": 0.1},
            ValueError,
            "SGD: nesterov needs a momentum above 0 and a dampening of 0",
        ),
    ],
    ids=str,
)
def test_an_option_out_of_range_is_an_error(
    options: dict[str, Any], error: type[Exception], message: str, in_group: bool
) -> None:
    (p,) = parameters((2,))
    data = p.data
    with pytest.raises(error, match=f"^{message}"):
        nn.SGD([{"params": [p], **options}]) if in_group else nn.SGD([p], **options)
    assert p.data is data


def test_an_unknown_option_of_a_group_is_an_error_that_lists_the_known_ones() -> None:
    (p,) = parameters((2,))
    message = "^SGD: unknown option 'learning_rate'; it has lr, momentum"
    with pytest.raises(ValueError, match=message):
        nn.SGD([{"params": [p], "learning_rate": 0.1}])


@pytest.mark.parametrize("lr", [-1.0, float("nan")])
def test_a_learning_rate_out_of_range_cannot_be_set(lr: float) -> None:
    optimizer = nn.SGD(parameters((2,)), lr=0.1)
    with pytest.raises(ValueError, match="^SGD: lr must be"):
        optimizer.lr = lr
    assert optimizer.lr == 0.1


def test_the_groups_that_were_given_are_not_changed() -> None:
    (p,) = parameters((2,))
    group = {"params": [p], "lr": 0.5}
    nn.SGD([group], momentum=0.9)
    assert group == {"params": [p], "lr": 0.5}


def test_repr_shows_the_options() -> None:
    text = repr(nn.SGD(parameters((2,)), lr=0.1, momentum=0.9))
    assert text.startswith("SGD(lr=0.1, momentum=0.9")


def test_an_optimizer_of_ones_own_defines_update() -> None:
    class SignDescent(nn.Optimizer):
        def __init__(self, params: Any, lr: float = 0.1) -> None:
            super().__init__(params, {"lr": lr})

        def update(
            self, group: dict[str, Any], step: int, value: Array, grad: Array, *state: Array
        ) -> None:
            value -= group["lr"] * np.sign(grad)

    params = parameters((3, 2), (2,))
    before = values(params)
    optimizer = SignDescent(params, lr=0.5)
    give(params, [np.full((3, 2), -7.0), np.full(2, 0.1)])
    optimizer.step()
    assert_close(params, [before[0] + 0.5, before[1] - 0.5])
    with pytest.raises(ValueError, match="^SignDescent: lr must be at least 0"):
        SignDescent(params, lr=-1)
