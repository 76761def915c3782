"""Schedules of an optimizer whose rates are not those that it began with.

A second schedule, a rate that is set by hand, a group that is added, a state that is loaded: the
rates are PyTorch's, or follow from the formula in the schedule's docstring.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

import nnlite as nn

# Each takes the schedules' module (nnlite, or torch.optim.lr_scheduler) and an optimizer.
KINDS: dict[str, Callable[[Any, Any], Any]] = {
    "StepLR": lambda m, o: m.StepLR(o, 2, 0.5),
    "MultiStepLR": lambda m, o: m.MultiStepLR(o, [1, 4], 0.3),
    "ExponentialLR": lambda m, o: m.ExponentialLR(o, 0.8),
    "LinearLR": lambda m, o: m.LinearLR(o, 0.2, 0.7, 4),
    "CosineAnnealingLR": lambda m, o: m.CosineAnnealingLR(o, 5, 0.01),
    "SequentialLR": lambda m, o: m.SequentialLR(
        o, [m.LinearLR(o, 0.1, total_iters=3), m.CosineAnnealingLR(o, 4, 0.02)], [3]
    ),
    "CosineAnnealingWarmRestarts": lambda m, o: m.CosineAnnealingWarmRestarts(o, 3, 2, 0.01),
    "PolynomialLR": lambda m, o: m.PolynomialLR(o, 40, 2.0),
    "ConstantLR": lambda m, o: m.ConstantLR(o, 0.5, 4),
    "LambdaLR": lambda m, o: m.LambdaLR(o, lambda count: 1 / (1 + count)),
    "CyclicLR": lambda m, o: m.CyclicLR(o, 0.1, 0.5, 3, cycle_momentum=False),
    "OneCycleLR": lambda m, o: m.OneCycleLR(o, 0.5, 30, cycle_momentum=False),
}
every_kind = pytest.mark.parametrize("kind", KINDS)


def optimizer(lr: float = 0.1) -> nn.Optimizer:
    return nn.SGD([nn.Parameter([0.0])], lr=lr)


def course(schedule: Any, steps: int) -> list[float]:
    rates = []
    for _ in range(steps):
        rates.append(schedule.optimizer.param_groups[0]["lr"])
        schedule.step()
    return rates


class Pair:
    """The same optimizer here and in PyTorch."""

    def __init__(self, lr: float = 0.1) -> None:
        torch = pytest.importorskip("torch")
        self.modules = nn, torch.optim.lr_scheduler
        self.optimizers = optimizer(lr), torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr)

    def make(self, kind: str) -> list[Any]:
        return [KINDS[kind](m, o) for m, o in zip(self.modules, self.optimizers, strict=True)]

    def set(self, lr: float) -> None:
        for o in self.optimizers:
            o.param_groups[0]["lr"] = lr

    def assert_equal_courses(self, schedules: list[Any], steps: int) -> None:
        for o in self.optimizers:  # PyTorch warns of a schedule that steps before its optimizer
            o.step()
        ours, theirs = (course(schedule, steps) for schedule in schedules)
        assert_allclose(ours, theirs, rtol=1e-10, atol=1e-15)


# ---- a second schedule, and rates set by hand, against PyTorch ----


# PyTorch's CyclicLR gives one step with the first rate of an earlier OneCycleLR.
PAIRS = [
    (first, kind)
    for first in KINDS
    for kind in KINDS
    if (first, kind) != ("OneCycleLR", "CyclicLR")
]


@pytest.mark.parametrize(("first", "kind"), PAIRS)
def test_a_second_schedule_gives_the_rates_of_pytorch(first: str, kind: str) -> None:
    pair = Pair()
    pair.assert_equal_courses(pair.make(first), 4)
    pair.assert_equal_courses(pair.make(kind), 12)


@every_kind
@pytest.mark.filterwarnings("ignore:Detected call of")
@settings(max_examples=15, deadline=None)
@given(changes=st.lists(st.tuples(st.integers(1, 4), st.floats(0.001, 1)), max_size=4))
def test_a_rate_set_by_hand_goes_on_as_in_pytorch(
    kind: str, changes: list[tuple[int, float]]
) -> None:
    pair = Pair()
    schedules = pair.make(kind)
    for steps, lr in changes:
        pair.assert_equal_courses(schedules, steps)
        pair.set(lr)
    pair.assert_equal_courses(schedules, 6)


@every_kind
def test_a_schedule_made_after_the_rate_was_set_by_hand(kind: str) -> None:
    pair = Pair()
    pair.make("ExponentialLR")
    pair.set(0.3)
    pair.assert_equal_courses(pair.make(kind), 12)


# ---- by hand ----


@pytest.mark.parametrize("strategy", ["cos", "linear"])
def test_a_second_cycle_has_the_rates_of_the_first(strategy: str) -> None:
    o = optimizer()
    first, second = (
        course(nn.OneCycleLR(o, 1.0, total_steps=5, anneal_strategy=strategy), 5) for _ in range(2)
    )
    assert first == second
    assert first[0] == pytest.approx(1 / 25)
    assert max(first) == pytest.approx(0.95 if strategy == "cos" else 0.857, abs=1e-3)


def test_a_cycle_after_the_state_of_a_finished_one_was_loaded() -> None:
    o, other = optimizer(), optimizer(0.5)
    expected = course(nn.OneCycleLR(o, 1.0, total_steps=5), 5)
    other.load_state_dict(o.state_dict())
    assert course(nn.OneCycleLR(other, 1.0, total_steps=5), 5) == expected


def test_no_rate_falls_below_eta_min_and_a_changed_one_ends_there() -> None:
    o = optimizer()
    first = nn.CosineAnnealingLR(o, 5, eta_min=0.01)
    course(first, 2)
    o.lr = 0.3
    course(first, 3)
    assert o.lr == pytest.approx(0.01)
    assert_allclose(course(nn.CosineAnnealingLR(o, 5, eta_min=0.01), 5), 0.01)


def test_a_rate_set_after_a_decay_to_zero_stays() -> None:
    o = optimizer()
    schedule = nn.LinearLR(o, 1.0, 0.0, total_iters=2)
    assert course(schedule, 3) == [0.1, 0.05, 0.0]
    o.lr = 0.02
    assert course(schedule, 3) == [0.02, 0.02, 0.02]


def test_two_schedules_still_multiply_their_factors_beside_a_sequence() -> None:
    o = optimizer(1.0)
    warm_up = nn.SequentialLR(
        o, [nn.LinearLR(o, 0.5, total_iters=2), nn.ExponentialLR(o, 0.5)], [4]
    )
    decay = nn.ExponentialLR(o, 0.9)
    seen = []
    for _ in range(3):
        warm_up.step()
        decay.step()
        seen.append(o.lr)
    assert_allclose(seen, [0.75 * 0.9, 1.0 * 0.9**2, 1.0 * 0.9**3], rtol=1e-12)


# ---- a group that is added ----


def test_a_group_added_later_follows_the_factors_from_there_on() -> None:
    o = optimizer(1.0)
    schedule = nn.ExponentialLR(o, 0.5)
    schedule.step()
    o.add_param_group({"params": [nn.Parameter([0.0])], "lr": 0.8})
    schedule.step()
    assert [group["lr"] for group in o.param_groups] == [0.25, 0.4]  # PyTorch's
    other = optimizer(1.0)
    other.add_param_group({"params": [nn.Parameter([0.0])]})
    resumed = nn.ExponentialLR(other, 0.5)
    resumed.load_state_dict(schedule.state_dict())
    resumed.step()
    assert [group["lr"] for group in other.param_groups] == [0.125, 0.2]


# ---- states ----


@pytest.mark.parametrize("order", ["optimizer first", "schedules first"])
@pytest.mark.parametrize("kinds", [("LinearLR", "ExponentialLR"), ("SequentialLR", "StepLR")])
def test_chained_schedules_resume_in_either_order_of_loading(
    kinds: tuple[str, str], order: str
) -> None:
    def run() -> tuple[nn.Optimizer, list[Any]]:
        o = optimizer()
        return o, [KINDS[kind](nn, o) for kind in kinds]

    def steps(o: nn.Optimizer, schedules: list[Any], count: int) -> list[float]:
        rates = []
        for _ in range(count):
            rates.append(o.lr)
            for schedule in schedules:
                schedule.step()
        return rates

    whole = steps(*run(), 12)
    o, schedules = run()
    steps(o, schedules, 5)
    states = [part.state_dict() for part in (o, *schedules)]
    other, twins = run()
    parts = list(zip((other, *twins), states, strict=True))
    for part, state in parts if order == "optimizer first" else parts[::-1]:
        part.load_state_dict(state)
    assert steps(other, twins, 7) == whole[5:]


def test_chained_schedules_by_hand() -> None:
    # After five steps: 0.1 · (0.1 + 0.9 · 5/10) · 0.97⁵.
    o = optimizer()
    schedules = [nn.LinearLR(o, 0.1, total_iters=10), nn.ExponentialLR(o, 0.97)]
    for schedule in schedules * 5:
        schedule.step()
    other = optimizer()
    twins = [nn.LinearLR(other, 0.1, total_iters=10), nn.ExponentialLR(other, 0.97)]
    other.load_state_dict(o.state_dict())
    for schedule, twin in zip(schedules, twins, strict=True):
        twin.load_state_dict(schedule.state_dict())
    assert other.lr == pytest.approx(0.1 * 0.55 * 0.97**5, rel=1e-12)


@every_kind
@pytest.mark.parametrize("order", ["optimizer first", "schedule first"])
def test_a_rate_set_by_hand_is_there_after_loading(kind: str, order: str) -> None:
    def run() -> tuple[nn.Optimizer, Any]:
        o = optimizer()
        return o, KINDS[kind](nn, o)

    o, schedule = run()
    course(schedule, 3)
    o.lr = 0.07
    states = o.state_dict(), schedule.state_dict()
    other, twin = run()
    parts = list(zip((other, twin), states, strict=True))
    for part, state in parts if order == "optimizer first" else parts[::-1]:
        part.load_state_dict(state)
    assert other.lr == 0.07
    assert course(twin, 6) == course(schedule, 6)


LONGER: dict[str, Callable[[nn.Optimizer, int], nn.Schedule]] = {
    "StepLR": lambda o, n: nn.StepLR(o, n // 2),
    "MultiStepLR": lambda o, n: nn.MultiStepLR(o, [n // 2, n - 1]),
    "ExponentialLR": lambda o, n: nn.ExponentialLR(o, 0.01 ** (1 / n)),
    "LinearLR": lambda o, n: nn.LinearLR(o, 1.0, 0.0, n),
    "CosineAnnealingLR": lambda o, n: nn.CosineAnnealingLR(o, n),
    "CosineAnnealingLR to 0.01": lambda o, n: nn.CosineAnnealingLR(o, n, 0.01),
    "OneCycleLR": lambda o, n: nn.OneCycleLR(o, 1.0, n),
    "SequentialLR": lambda o, n: nn.SequentialLR(
        o, [nn.LinearLR(o, 0.1, total_iters=2), nn.CosineAnnealingLR(o, n - 2)], [2]
    ),
}


@pytest.mark.parametrize("kind", LONGER)
def test_a_longer_schedule_goes_on_with_its_own_rates(kind: str) -> None:
    o, other = optimizer(), optimizer()
    short = LONGER[kind](o, 5)
    course(short, 5)
    expected = course(LONGER[kind](optimizer(), 10), 10)
    other_schedule = LONGER[kind](other, 10)
    other.load_state_dict(o.state_dict())
    other_schedule.load_state_dict(short.state_dict())
    assert course(other_schedule, 5) == expected[5:]


def test_a_longer_schedule_keeps_a_change_made_by_hand() -> None:
    # Half the rate: half of 1 - 5/10 and so on. PyTorch's rule, a factor from step to step.
    o, other = optimizer(1.0), optimizer(1.0)
    short = nn.LinearLR(o, 1.0, 0.0, 8)
    course(short, 4)
    o.lr = 0.25  # in place of 0.5
    course(short, 1)
    longer = nn.LinearLR(other, 1.0, 0.0, 10)
    other.load_state_dict(o.state_dict())
    longer.load_state_dict(short.state_dict())
    assert_allclose(course(longer, 4), [0.25, 0.2, 0.15, 0.1], rtol=1e-12)


def test_a_state_of_an_earlier_version_has_no_rates_of_the_optimizer() -> None:
    schedule = nn.CosineAnnealingLR(optimizer(), 4)
    schedule.load_state_dict({"count": 2, "base_lrs": [1.0]})
    assert schedule.optimizer.lr == pytest.approx(0.5)


@pytest.mark.parametrize("name", ["lrs", "last_lrs"])
@pytest.mark.parametrize("value", [[], [-1.0], [None], 0.1, [0.1, 0.1]])
def test_rates_of_a_state_that_do_not_fit_change_nothing(name: str, value: Any) -> None:
    schedule = nn.StepLR(optimizer(), 2)
    before = schedule.state_dict()
    with pytest.raises((TypeError, ValueError), match="^StepLR: "):
        schedule.load_state_dict({**before, "count": 7, name: value})
    assert schedule.state_dict() == before


# ---- a plateau of negative figures ----


@pytest.mark.parametrize(
    ("mode", "figures", "reduced", "best"),
    [
        ("min", [-1.0, -1.0, -1.0], True, -1.0),  # no better
        ("min", [-1.0, -0.95, -0.91], True, -1.0),  # worse
        ("min", [-1.0, -1.2, -1.5], False, -1.5),  # better by more than a tenth
        ("min", [-1.0, -1.05, -1.09], True, -1.0),  # better by less
        ("min", [1.0, -1.0, -1.2], False, -1.2),  # through 0
        ("min", [0.0, 0.0, 0.0], True, 0.0),
        ("max", [-1.0, -1.0, -1.0], True, -1.0),
        ("max", [-1.0, -1.05, -1.1], True, -1.0),
        ("max", [-1.0, -0.85, -0.7], False, -0.7),
        ("max", [-1.0, -0.95, -0.91], True, -1.0),
        ("max", [-1.0, 1.0, 1.2], False, 1.2),
    ],
)
def test_an_improvement_of_a_negative_figure(
    mode: str, figures: list[float], reduced: bool, best: float
) -> None:
    o = optimizer(1.0)
    schedule = nn.ReduceLROnPlateau(o, mode=mode, patience=1, threshold=0.1)
    for figure in figures:
        schedule.step(figure)
    assert (o.lr < 1, schedule.best) == (reduced, best)


@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("threshold", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("first", [-3.0, 0.0, 3.0])
def test_the_first_figure_is_the_best_whatever_the_threshold(
    mode: str, threshold: float, first: float
) -> None:
    schedule = nn.ReduceLROnPlateau(optimizer(), mode=mode, threshold=threshold)
    schedule.step(first)
    assert schedule.best == first


def test_the_state_of_a_plateau_of_the_other_mode_is_refused() -> None:
    state = nn.ReduceLROnPlateau(optimizer(), mode="max").state_dict()
    schedule = nn.ReduceLROnPlateau(optimizer(), mode="min")
    with pytest.raises(ValueError, match="mode='max', this one has mode='min'"):
        schedule.load_state_dict(state)
    schedule.load_state_dict({"best": 0.5, "bad_steps": 1, "rest": 0})  # of an earlier version
    assert schedule.best == 0.5


@pytest.mark.parametrize("milestones", [3, "12", None])
def test_milestones_are_a_list(milestones: Any) -> None:
    with pytest.raises(TypeError, match="^MultiStepLR: milestones must be a list of ints"):
        nn.MultiStepLR(optimizer(), milestones)
    o = optimizer()
    with pytest.raises(TypeError, match="^SequentialLR: milestones must be a list of ints"):
        nn.SequentialLR(o, [nn.StepLR(o, 1), nn.StepLR(o, 1)], milestones)


def test_an_int_beyond_the_range_of_float_is_not_finite() -> None:
    for make in (
        lambda: optimizer(10**400),
        lambda: setattr(optimizer(), "lr", 10**400),
        lambda: nn.ExponentialLR(optimizer(), 10**400),
        lambda: nn.ReduceLROnPlateau(optimizer(), threshold=10**400),
    ):
        with pytest.raises(ValueError, match="must be finite"):
            make()
    assert np.isfinite(optimizer().lr)
