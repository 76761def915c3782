"""Groups added later, or changed between two steps."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import nnlite as nn

OPTIMIZERS = [
    lambda params: nn.SGD(params, lr=0.1, momentum=0.9),
    lambda params: nn.Adam(params, lr=0.1),
    lambda params: nn.AdamW(params, lr=0.1),
    lambda params: nn.RMSprop(params, lr=0.1, momentum=0.9, centered=True),
    lambda params: nn.Adagrad(params, lr=0.1),
    lambda params: nn.NAdam(params, lr=0.1),
    lambda params: nn.RAdam(params, lr=0.1),
    lambda params: nn.Lion(params, lr=0.1),
]
every_optimizer = pytest.mark.parametrize(
    "make",
    OPTIMIZERS,
    ids=["SGD", "Adam", "AdamW", "RMSprop", "Adagrad", "NAdam", "RAdam", "Lion"],
)


def two_groups(make: Callable[..., nn.Optimizer]) -> tuple[nn.Optimizer, list[nn.Parameter]]:
    """Return an optimizer of two groups that has taken a step, and its parameters."""
    parameters = [nn.Parameter([1.0, 2.0]), nn.Parameter([3.0])]
    optimizer = make([{"params": [parameter]} for parameter in parameters])
    step(optimizer, parameters)
    return optimizer, parameters


def step(optimizer: nn.Optimizer, parameters: list[nn.Parameter]) -> None:
    for parameter in parameters:
        parameter.grad = np.full(parameter.shape, 0.5)
    optimizer.step()


def contents(optimizer: nn.Optimizer, parameters: list[nn.Parameter]) -> Any:
    states = optimizer.state_dict()["state"]
    return [parameter.data.copy() for parameter in parameters], copy.deepcopy(states)


def assert_untouched(before: Any, after: Any) -> None:
    np.testing.assert_equal(after, before)


# ---- a group that is added ----


@every_optimizer
def test_a_group_added_later_moves_as_from_the_start_and_the_others_keep_their_state(
    make: Callable[..., nn.Optimizer],
) -> None:
    first, second = nn.Parameter([1.0, 2.0]), nn.Parameter([3.0])
    optimizer = make([first])
    step(optimizer, [first])
    optimizer.add_param_group({"params": [second], "lr": 0.01})
    step(optimizer, [first, second])

    alone, late = nn.Parameter([1.0, 2.0]), nn.Parameter([3.0])
    one = make([alone])
    step(one, [alone])
    step(one, [alone])
    other = make([{"params": [late], "lr": 0.01}])
    step(other, [late])
    assert_array_equal(first.data, alone.data)
    assert_array_equal(second.data, late.data)
    assert [group["lr"] for group in optimizer.param_groups] == [0.1, 0.01]


def test_an_added_group_moves_as_in_pytorch() -> None:
    torch = pytest.importorskip("torch")
    values, grads = (
        [np.array([1.0, 2.0]), np.array([3.0])],
        [np.array([0.5, -1.0]), np.array([2.0])],
    )
    ours = [nn.Parameter(value) for value in values]
    theirs = [torch.nn.Parameter(torch.tensor(value)) for value in values]
    optimizer, their_optimizer = nn.Adam(ours[:1], lr=0.1), torch.optim.Adam(theirs[:1], lr=0.1)
    for count in (1, 2, 2):
        if count == 2 and len(optimizer.param_groups) == 1:
            optimizer.add_param_group({"params": ours[1:], "betas": (0.5, 0.9)})
            their_optimizer.add_param_group({"params": theirs[1:], "betas": (0.5, 0.9)})
        for parameter, twin, grad in zip(ours[:count], theirs[:count], grads, strict=False):
            parameter.grad, twin.grad = grad, torch.tensor(grad)
        optimizer.step()
        their_optimizer.step()
    for parameter, twin in zip(ours, theirs, strict=True):
        assert_allclose(parameter.data, twin.detach().numpy(), rtol=1e-12)


@every_optimizer
def test_the_state_of_an_optimizer_with_an_added_group_can_be_loaded(
    make: Callable[..., nn.Optimizer],
) -> None:
    def grown() -> tuple[nn.Optimizer, list[nn.Parameter]]:
        parameters = [nn.Parameter([1.0, 2.0]), nn.Parameter([3.0])]
        optimizer = make(parameters[:1])
        optimizer.add_param_group({"params": parameters[1:]})
        return optimizer, parameters

    optimizer, parameters = grown()
    step(optimizer, parameters)
    other, twins = grown()
    other.load_state_dict(optimizer.state_dict())
    for parameter, twin in zip(parameters, twins, strict=True):
        twin.data = parameter.data
    step(optimizer, parameters)
    step(other, twins)
    for parameter, twin in zip(parameters, twins, strict=True):
        assert_array_equal(parameter.data, twin.data)


WRONG_GROUPS: list[tuple[Any, Any, str]] = [
    ([nn.Parameter([1.0])], TypeError, 'expected parameters, or dicts with "params"'),
    ({"params": []}, ValueError, "there are no parameters"),
    ({"params": [1.0]}, TypeError, "expected parameters, got float"),
    ({"params": [nn.Parameter([1.0])], "lr": -1}, ValueError, "lr must be at least 0"),
    ({"params": [nn.Parameter([1.0])], "mass": 1}, ValueError, "unknown option 'mass'"),
]


@pytest.mark.parametrize(("group", "error", "message"), WRONG_GROUPS)
def test_a_group_that_cannot_be_added_changes_nothing(group: Any, error: Any, message: str) -> None:
    optimizer, parameters = two_groups(OPTIMIZERS[0])
    before = contents(optimizer, parameters)
    with pytest.raises(error, match=f"^SGD: {message}"):
        optimizer.add_param_group(group)
    with pytest.raises(ValueError, match="^SGD: a parameter is given more than once"):
        optimizer.add_param_group({"params": parameters[0]})
    assert len(optimizer.param_groups) == 2
    assert_untouched(before, contents(optimizer, parameters))


# ---- options changed by hand ----

CHANGES: list[tuple[str, Any]] = [
    ("lr", None), ("lr", -1.0), ("lr", np.nan), ("lr", np.inf), ("lr", "0.1"), ("lr", 10**400),
    ("lr", np.ones(2)), ("weight_decay", -1.0),
]  # fmt: skip


@every_optimizer
@pytest.mark.parametrize(("name", "value"), CHANGES)
def test_an_option_out_of_range_in_the_last_group_moves_no_group(
    make: Callable[..., nn.Optimizer], name: str, value: Any
) -> None:
    optimizer, parameters = two_groups(make)
    before = contents(optimizer, parameters)
    good = optimizer.param_groups[1][name]
    optimizer.param_groups[1][name] = value
    with pytest.raises((TypeError, ValueError), match=f"{name} must be"):
        step(optimizer, parameters)
    optimizer.param_groups[1][name] = good
    assert_untouched(before, contents(optimizer, parameters))


@pytest.mark.parametrize(
    ("make", "name", "value"),
    [
        (nn.SGD, "momentum", -0.5),
        (nn.SGD, "nesterov", True),  # without momentum
        (nn.SGD, "nesterov", "no"),
        (nn.SGD, "dampening", None),
        (nn.Adam, "betas", 0.9),
        (nn.Adam, "betas", (0.9, 1.0)),
        (nn.AdamW, "eps", -1e-8),
        (nn.RMSprop, "alpha", 1.0),
        (nn.RMSprop, "centered", "no"),
    ],
)
def test_every_option_is_checked_before_any_group_moves(make: Any, name: str, value: Any) -> None:
    optimizer, parameters = two_groups(make)
    before = contents(optimizer, parameters)
    optimizer.param_groups[1][name] = value
    with pytest.raises((TypeError, ValueError), match=f"^{make.__name__}: "):
        step(optimizer, parameters)
    optimizer.param_groups[1][name] = optimizer.param_groups[0][name]
    assert_untouched(before, contents(optimizer, parameters))


def test_an_option_that_was_deleted_is_named() -> None:
    optimizer, parameters = two_groups(OPTIMIZERS[0])
    del optimizer.param_groups[1]["momentum"]
    with pytest.raises(ValueError, match="^SGD: group 1 lacks the option 'momentum'"):
        optimizer.step()
    assert len(parameters) == 2


@every_optimizer
def test_parameters_appended_by_hand_move_no_group(make: Callable[..., nn.Optimizer]) -> None:
    optimizer, parameters = two_groups(make)
    before = contents(optimizer, parameters)
    late = nn.Parameter([1.0])
    late.grad = np.ones(1)

    optimizer.param_groups[1]["params"].append(late)
    with pytest.raises(ValueError, match="the parameters of group 1 .* add_param_group"):
        step(optimizer, parameters)
    with pytest.raises(ValueError, match="add_param_group"):
        optimizer.state_dict()
    optimizer.param_groups[1]["params"].pop()

    optimizer.param_groups.append({**optimizer.param_groups[0], "params": [late]})
    with pytest.raises(ValueError, match="3 groups, the optimizer was given 2; .*add_param_group"):
        step(optimizer, parameters)
    optimizer.param_groups.pop()

    assert_untouched(before, contents(optimizer, parameters))
    assert_array_equal(late.data, [1.0])


@pytest.mark.parametrize("value", ["no", 1, None])
@pytest.mark.parametrize(("make", "name"), [(nn.SGD, "nesterov"), (nn.RMSprop, "centered")])
def test_a_switch_is_true_or_false(make: Any, name: str, value: Any) -> None:
    with pytest.raises(TypeError, match=f"^{make.__name__}: {name} must be True or False"):
        make([nn.Parameter([1.0])], **{name: value})


# ---- centered RMSprop ----


@pytest.mark.parametrize("alpha", [0.5, 0.9, 0.99])
def test_centered_rmsprop_of_constant_gradients_stays_finite(alpha: float) -> None:
    # The variance of a constant is 0: what rounding leaves of the difference may be below it.
    grad = (10 ** np.random.default_rng(0).uniform(-3, 3, 2000)).astype(np.float32)
    parameter = nn.Parameter(np.zeros(2000, np.float32))
    optimizer = nn.RMSprop([parameter], lr=1e-3, alpha=alpha, centered=True)
    for _ in range(int(20 / (1 - alpha))):
        parameter.grad = grad
        optimizer.step()
    assert np.isfinite(parameter.data).all()


def test_centered_rmsprop_divides_by_the_standard_deviation() -> None:
    # v = 1/2 g², a = 1/2 g, √(v - a²) = 1/2 g: a step of 2 lr, whatever the gradient is.
    parameter = nn.Parameter(np.array([1.0, 1.0]))
    optimizer = nn.RMSprop([parameter], lr=0.1, alpha=0.5, eps=0.0, centered=True)
    parameter.grad = np.array([3.0, -1e-3])
    optimizer.step()
    assert_allclose(parameter.data, [0.8, 1.2], rtol=1e-12)
