"""Schedules: formulas by hand, and PyTorch's learning rates over hundreds of steps."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

import nnlite as nn

BASES = [0.5, 0.02]


def optimizer(*lrs: float) -> nn.SGD:
    """Return an optimizer of one group for each learning rate."""
    lrs = lrs or (1.0,)
    return nn.SGD([{"params": [nn.Parameter([0.0])], "lr": lr} for lr in lrs])


def rates(of: Any) -> list[float]:
    return [group["lr"] for group in of.param_groups]


def course(schedule: nn.Schedule, steps: int) -> list[list[float]]:
    """Return the learning rates of all groups before each of a number of steps."""
    seen = []
    for _ in range(steps):
        seen.append(rates(schedule.optimizer))
        schedule.step()
    return seen


def first_rates(schedule: nn.Schedule, steps: int) -> list[float]:
    return [lrs[0] for lrs in course(schedule, steps)]


def _inverse_time(count: int) -> float:
    return 1 / (1 + count)


EVERY: dict[str, Callable[[nn.Optimizer], nn.Schedule]] = {
    "StepLR": lambda o: nn.StepLR(o, 3, 0.5),
    "MultiStepLR": lambda o: nn.MultiStepLR(o, [2, 5, 6], 0.5),
    "ExponentialLR": lambda o: nn.ExponentialLR(o, 0.9),
    "LinearLR": lambda o: nn.LinearLR(o, 0.1, 0.8, 6),
    "CosineAnnealingLR": lambda o: nn.CosineAnnealingLR(o, 7, 0.01),
    "CosineAnnealingWarmRestarts": lambda o: nn.CosineAnnealingWarmRestarts(o, 4, 2, 0.01),
    "PolynomialLR": lambda o: nn.PolynomialLR(o, 8, 2.0),
    "ConstantLR": lambda o: nn.ConstantLR(o, 0.25, 4),
    "LambdaLR": lambda o: nn.LambdaLR(o, _inverse_time),
    "CyclicLR": lambda o: nn.CyclicLR(o, 0.1, 0.4, 3, 5, "triangular2"),
    "OneCycleLR": lambda o: nn.OneCycleLR(o, 0.3, 30),
    "OneCycleLR with momentum": lambda o: nn.OneCycleLR(
        o, 0.3, epochs=5, steps_per_epoch=6, cycle_momentum=True, three_phase=True
    ),
    "SequentialLR": lambda o: nn.SequentialLR(
        o, [nn.LinearLR(o, 0.1, total_iters=4), nn.CosineAnnealingLR(o, 9)], [4]
    ),
}
every_schedule = pytest.mark.parametrize("make", EVERY.values(), ids=EVERY.keys())


# ---- by hand ----


def test_step_by_hand() -> None:
    assert first_rates(nn.StepLR(optimizer(), 2, 0.5), 6) == [1, 1, 0.5, 0.5, 0.25, 0.25]


def test_milestones_by_hand_in_any_order_and_twice() -> None:
    schedule = nn.MultiStepLR(optimizer(), [4, 1, 4], gamma=0.5)
    assert first_rates(schedule, 6) == [1, 0.5, 0.5, 0.5, 0.125, 0.125]


def test_exponential_by_hand() -> None:
    assert first_rates(nn.ExponentialLR(optimizer(), 0.5), 4) == [1, 0.5, 0.25, 0.125]
    assert first_rates(nn.ExponentialLR(optimizer(), 0.0), 3) == [1, 0, 0]


def test_linear_by_hand() -> None:
    assert first_rates(nn.LinearLR(optimizer(), 0.25, 1.0, 3), 5) == [0.25, 0.5, 0.75, 1, 1]
    assert first_rates(nn.LinearLR(optimizer(), 1.0, 0.0, 2), 4) == [1, 0.5, 0, 0]


def test_cosine_by_hand_there_and_back() -> None:
    # (1 + cos(πt/3)) / 2 is 1, 3/4, 1/4, 0, 1/4, 3/4, 1.
    schedule = nn.CosineAnnealingLR(optimizer(), 3, eta_min=0.2)
    expected = [0.2 + 0.8 * share for share in (1, 0.75, 0.25, 0, 0.25, 0.75, 1)]
    assert_allclose(first_rates(schedule, 7), expected, rtol=1e-14)


def test_one_cycle_by_hand() -> None:
    # Up for 2 of 7 steps and down for 4, from 1/10 to 1 to 1/1000.
    schedule = nn.OneCycleLR(
        optimizer(),
        max_lr=1.0,
        total_steps=7,
        pct_start=3 / 7,
        anneal_strategy="linear",
        div_factor=10,
        final_div_factor=100,
    )
    low = 1e-3
    expected = [0.1, 0.55, 1, *(1 - (1 - low) * k / 4 for k in (1, 2, 3)), low]
    assert_allclose(first_rates(schedule, 7), expected, rtol=1e-13)


def test_a_warm_up_and_then_a_decay_by_hand() -> None:
    o = optimizer()
    warm_up, decay = nn.LinearLR(o, 0.5, total_iters=2), nn.ExponentialLR(o, 0.5)
    schedule = nn.SequentialLR(o, [warm_up, decay], milestones=[2])
    assert first_rates(schedule, 5) == [0.5, 0.75, 1, 0.5, 0.25]


def test_plateau_by_hand() -> None:
    o = optimizer()
    schedule = nn.ReduceLROnPlateau(o, factor=0.5, patience=1, cooldown=1)
    seen = []
    for loss in (3.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 1.0, 2.0, 2.0):
        schedule.step(loss)
        seen.append(o.lr)
    # Two bad steps reduce; then one is not counted, and two more reduce again.
    assert seen == [1, 1, 1, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25, 0.125]


@pytest.mark.parametrize(
    ("mode", "threshold_mode", "short", "beyond"),
    [
        ("min", "rel", 1.85, 1.75),
        ("min", "abs", 1.95, 1.85),
        ("max", "rel", 2.15, 2.25),
        ("max", "abs", 2.05, 2.15),
    ],
)
def test_an_improvement_is_a_change_beyond_the_threshold(
    mode: str, threshold_mode: str, short: float, beyond: float
) -> None:
    # A tenth of 2, or 0.1.
    for metric, expected in ((short, 0.5), (beyond, 1.0)):
        o = optimizer()
        schedule = nn.ReduceLROnPlateau(o, mode, 0.5, 0, 0.1, threshold_mode)
        schedule.step(2.0)
        schedule.step(metric)
        assert o.lr == expected


def test_the_optimizer_takes_the_steps_of_the_schedule() -> None:
    p = nn.Parameter(np.zeros(1))
    o = nn.SGD([p], lr=1.0)
    schedule = nn.ExponentialLR(o, 0.5)
    for expected in (-1.0, -1.5, -1.75):
        p.grad = np.ones(1)
        o.step()
        schedule.step()
        assert p.data == expected


# ---- against PyTorch ----


def torch_optimizer(torch: Any, lrs: list[float], **options: Any) -> Any:
    groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": lr} for lr in lrs]
    return torch.optim.SGD(groups, **options)


def torch_course(theirs: Any, of: Any, steps: int) -> list[list[float]]:
    seen = []
    for _ in range(steps):
        seen.append(rates(of))
        of.step()  # PyTorch warns if no optimizer's step comes before the schedule's
        theirs.step()
    return seen


_gammas = st.floats(0.5, 1.0)
_small = st.integers(1, 40)
_factors = st.floats(0.01, 1)
ARGUMENTS: dict[str, st.SearchStrategy[dict[str, Any]]] = {
    "StepLR": st.fixed_dictionaries({"step_size": _small, "gamma": _gammas}),
    "MultiStepLR": st.fixed_dictionaries(
        {"milestones": st.lists(st.integers(0, 100), max_size=5), "gamma": _gammas}
    ),
    "ExponentialLR": st.fixed_dictionaries({"gamma": _gammas}),
    "LinearLR": st.fixed_dictionaries(
        {"start_factor": _factors, "end_factor": st.floats(0, 1), "total_iters": _small}
    ),
    "CosineAnnealingLR": st.fixed_dictionaries(
        {"T_max": st.integers(1, 150), "eta_min": st.floats(0, 0.3)}
    ),
    "CosineAnnealingWarmRestarts": st.fixed_dictionaries(
        {"T_0": _small, "T_mult": st.integers(1, 3), "eta_min": st.floats(0, 0.3)}
    ),
    "PolynomialLR": st.fixed_dictionaries({"total_iters": _small, "power": st.floats(0.5, 3)}),
    "ConstantLR": st.fixed_dictionaries({"factor": _factors, "total_iters": _small}),
    "LambdaLR": st.fixed_dictionaries({"lr_lambda": st.just(_inverse_time)}),
    "CyclicLR": st.fixed_dictionaries(
        {
            "base_lr": _factors,
            "max_lr": st.floats(1, 2),
            "step_size_up": _small,
            "step_size_down": _small,
            "mode": st.sampled_from(["triangular", "triangular2", "exp_range"]),
            "gamma": _gammas,
            "cycle_momentum": st.just(False),
        }
    ),
}


@pytest.mark.parametrize("name", ARGUMENTS)
@given(data=st.data())
def test_the_learning_rates_are_pytorchs_for_all_options(name: str, data: st.DataObject) -> None:
    torch = pytest.importorskip("torch")
    options = data.draw(ARGUMENTS[name])
    mine = course(getattr(nn, name)(optimizer(*BASES), **options), 200)
    of = torch_optimizer(torch, BASES)
    theirs = torch_course(getattr(torch.optim.lr_scheduler, name)(of, **options), of, 200)
    # PyTorch's are made from one another, and gather rounding errors.
    assert_allclose(mine, theirs, rtol=1e-9, atol=1e-9)


@given(
    total=st.integers(2, 200),
    pct_start=st.floats(0, 0.95),
    strategy=st.sampled_from(["cos", "linear"]),
    div_factor=st.floats(1, 50),
    final_div_factor=st.floats(1, 1e5),
)
def test_one_cycle_is_pytorchs_for_all_options(
    total: int, pct_start: float, strategy: str, div_factor: float, final_div_factor: float
) -> None:
    torch = pytest.importorskip("torch")
    if abs(pct_start * total - 1) < 1e-9:
        pct_start += 1e-3  # PyTorch divides by zero if the rate rises for exactly no steps
    options = {
        "max_lr": 0.7,
        "total_steps": total,
        "pct_start": pct_start,
        "anneal_strategy": strategy,
        "div_factor": div_factor,
        "final_div_factor": final_div_factor,
    }
    mine = course(nn.OneCycleLR(optimizer(*BASES), **options), total)
    of = torch_optimizer(torch, BASES)
    theirs = torch.optim.lr_scheduler.OneCycleLR(of, **options, cycle_momentum=False)
    assert_allclose(mine, torch_course(theirs, of, total), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", ["SGD", "Adam"])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("OneCycleLR", {"max_lr": 0.7, "epochs": 5, "steps_per_epoch": 8}),
        ("OneCycleLR", {"max_lr": 0.7, "total_steps": 40, "three_phase": True}),
        ("CyclicLR", {"base_lr": 0.1, "max_lr": 0.7, "step_size_up": 3, "step_size_down": 6}),
        ("CyclicLR", {"base_lr": 0.1, "max_lr": 0.7, "step_size_up": 4, "mode": "triangular2"}),
    ],
    ids=str,
)
def test_rates_and_momenta_of_cycles_are_pytorchs(
    kind: str, name: str, options: dict[str, Any]
) -> None:
    torch = pytest.importorskip("torch")

    def momenta(module: Any, schedules: Any, parameter: Any) -> list[tuple[float, float]]:
        of = getattr(module, kind)([parameter], lr=0.1)
        schedule = getattr(schedules, name)(of, **options, cycle_momentum=True)
        seen = []
        for _ in range(40):
            group = of.param_groups[0]
            seen.append((group["lr"], group["betas"][0] if kind == "Adam" else group["momentum"]))
            of.step()
            schedule.step()
        return seen

    theirs = momenta(torch.optim, torch.optim.lr_scheduler, torch.nn.Parameter(torch.zeros(1)))
    assert_allclose(momenta(nn, nn, nn.Parameter([0.0])), theirs, rtol=1e-9, atol=1e-12)


def test_a_momentum_is_cycled_by_its_turn_and_goes_on_from_a_state() -> None:
    def make(o: nn.Optimizer) -> nn.Schedule:
        cycle = nn.OneCycleLR(o, 1.0, 4, cycle_momentum=True)
        return nn.SequentialLR(o, [nn.ConstantLR(o, 1.0, 2), cycle], [2])

    whole, other = optimizer(), optimizer()
    schedule = make(whole)
    assert whole.param_groups[0]["momentum"] == 0.95  # the cycle has set it when it was made
    course(schedule, 4)
    resumed = make(other)
    resumed.load_state_dict(schedule.state_dict())
    assert other.param_groups[0]["momentum"] == whole.param_groups[0]["momentum"] < 0.95


def test_momenta_cannot_be_cycled_where_there_are_none() -> None:
    o = nn.Adagrad([nn.Parameter([0.0])])
    for make in (
        lambda o: nn.CyclicLR(o, 0.1, 1.0),
        lambda o: nn.OneCycleLR(o, 1.0, 9, cycle_momentum=True),
    ):
        with pytest.raises(ValueError, match="Adagrad has neither momentum nor betas to cycle"):
            make(o)
    assert o.lr == 0.01
    with pytest.raises(TypeError, match="OneCycleLR: give total_steps, or epochs and steps_per"):
        nn.OneCycleLR(o, 1.0, epochs=3)
    with pytest.raises(TypeError, match="LambdaLR: lr_lambda must be a function"):
        nn.LambdaLR(o, 0.5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="LambdaLR: what lr_lambda returns must be a number"):
        nn.LambdaLR(o, lambda epoch: None)  # type: ignore[arg-type, return-value]
    with pytest.raises(ValueError, match="ConstantLR: factor must be between 0 and 1"):
        nn.ConstantLR(o, 2.0)


@given(
    warm=st.integers(1, 20),
    middle=st.integers(1, 50),
    start=st.floats(0.01, 0.9),
    gamma=st.floats(0.5, 0.99),
)
def test_one_schedule_after_another_is_as_in_pytorch(
    warm: int, middle: int, start: float, gamma: float
) -> None:
    torch = pytest.importorskip("torch")

    def both(of: Any, schedules: Any) -> Any:
        parts = [
            schedules.LinearLR(of, start, total_iters=warm),
            schedules.CosineAnnealingLR(of, middle, 0.01),
            schedules.ExponentialLR(of, gamma),
        ]
        return schedules.SequentialLR(of, parts, milestones=[warm, warm + middle])

    mine = course(both(optimizer(*BASES), nn), 120)
    of = torch_optimizer(torch, BASES)
    theirs = torch_course(both(of, torch.optim.lr_scheduler), of, 120)
    assert_allclose(mine, theirs, rtol=1e-9, atol=1e-9)


@given(
    metrics=st.lists(st.floats(-2, 2), min_size=10, max_size=120),
    mode=st.sampled_from(["min", "max"]),
    factor=st.floats(0, 0.9),
    patience=st.integers(0, 4),
    threshold=st.sampled_from([0.0, 1e-4, 0.1]),
    threshold_mode=st.sampled_from(["rel", "abs"]),
    cooldown=st.integers(0, 3),
    min_lr=st.sampled_from([0.0, 0.01]),
    eps=st.sampled_from([1e-8, 1e-2]),
)
def test_plateau_is_pytorchs_for_all_options(metrics: list[float], **options: Any) -> None:
    torch = pytest.importorskip("torch")
    of, my_optimizer = torch_optimizer(torch, BASES), optimizer(*BASES)
    if options["threshold_mode"] == "rel":
        # Below 0 PyTorch's bound is on the other side of the best figure, as the docstring says.
        metrics = [abs(metric) for metric in metrics]
    mine = nn.ReduceLROnPlateau(my_optimizer, **options)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(of, **options)
    for metric in metrics:
        mine.step(metric)
        theirs.step(metric)
        assert_allclose(rates(my_optimizer), rates(of), rtol=1e-12)


def test_plateau_counts_a_loss_of_nan_as_no_improvement() -> None:
    o = optimizer()
    schedule = nn.ReduceLROnPlateau(o, factor=0.5, patience=1)
    for loss in (1.0, math.nan, math.nan):
        schedule.step(loss)
    assert o.lr == 0.5


# ---- the contract of all schedules ----


@every_schedule
def test_groups_keep_their_proportions_or_share_a_rate(make: Callable[..., nn.Schedule]) -> None:
    alone = [course(make(optimizer(lr)), 25) for lr in BASES]
    together = course(make(optimizer(*BASES)), 25)
    assert together == [[a, b] for (a,), (b,) in zip(*alone, strict=True)]


def test_two_schedules_of_one_optimizer_multiply_their_factors() -> None:
    o = optimizer(1.0)
    schedules, seen = [nn.ExponentialLR(o, 0.9), nn.StepLR(o, 2, 0.5)], []
    for _ in range(4):
        for schedule in schedules:
            schedule.step()
        seen.append(o.lr)
    assert_allclose(seen, [0.9, 0.405, 0.3645, 0.164025], rtol=1e-12)  # PyTorch's


def test_a_warm_up_beside_a_plateau_does_not_undo_its_reductions() -> None:
    o = optimizer(1.0)
    warm_up = nn.LinearLR(o, 0.5, total_iters=2)
    plateau = nn.ReduceLROnPlateau(o, patience=0, factor=0.1)
    seen = []
    for _ in range(6):
        warm_up.step()
        plateau.step(1.0)
        seen.append(o.lr)
    assert_allclose(seen, [0.75, 0.1, 0.01, 1e-3, 1e-4, 1e-5], rtol=1e-6)  # PyTorch's


def test_the_order_in_which_schedules_are_made_does_not_matter() -> None:
    o = optimizer(1.0)
    second = nn.LinearLR(o, 0.5, total_iters=2)
    first = nn.ExponentialLR(o, 0.9)
    nn.SequentialLR(o, [first, second], [2])
    assert o.lr == 1.0


def test_a_plateau_cannot_stand_in_a_sequence() -> None:
    o = optimizer(1.0)
    with pytest.raises(TypeError, match="^SequentialLR: expected schedules that count steps"):
        nn.SequentialLR(o, [nn.LinearLR(o, 0.5), nn.ReduceLROnPlateau(o)], [1])


@pytest.mark.parametrize("wrong", [None, "0.5", [0.5], np.ones(2)], ids=str)
def test_a_metric_that_is_no_number_is_an_error(wrong: Any) -> None:
    with pytest.raises(TypeError, match="^ReduceLROnPlateau: the metric must be a number"):
        nn.ReduceLROnPlateau(optimizer(1.0)).step(wrong)


def test_a_step_that_is_refused_does_not_count() -> None:
    schedule = nn.OneCycleLR(optimizer(1.0), 1.0, 3)
    for _ in range(3):
        schedule.step()
    for _ in range(2):
        with pytest.raises(ValueError, match="this is step 4"):
            schedule.step()
    assert schedule.count == 3


@pytest.mark.parametrize(
    "state", [{}, {"count": 1}, [1], None, {"count": -3, "base_lrs": [1.0]}], ids=str
)
def test_a_state_that_is_none_is_an_error_and_changes_nothing(state: Any) -> None:
    schedule = nn.StepLR(optimizer(1.0), 2)
    with pytest.raises((ValueError, TypeError), match="^StepLR: "):
        schedule.load_state_dict(state)
    assert (schedule.count, schedule.base_lrs) == (0, [1.0])


@pytest.mark.parametrize(
    "change",
    [{"best": "0"}, {"best": True}, {"bad_steps": -1}, {"bad_steps": 0.5}, {"rest": None}],
    ids=str,
)
def test_a_state_of_a_plateau_that_does_not_fit_is_an_error_and_changes_nothing(
    change: dict[str, Any],
) -> None:
    schedule = nn.ReduceLROnPlateau(optimizer(1.0))
    before = schedule.state_dict()
    state = {"best": 0.5, "bad_steps": 1, "rest": 2}
    for wrong in ({**state, **change}, {"best": 0.5}, None):
        with pytest.raises((ValueError, TypeError), match="^ReduceLROnPlateau: "):
            schedule.load_state_dict(wrong)  # type: ignore[arg-type]
        assert schedule.state_dict() == before


@every_schedule
@pytest.mark.parametrize("stop", [0, 3, 4, 11])
def test_a_schedule_goes_on_from_its_state(make: Callable[..., nn.Schedule], stop: int) -> None:
    expected = course(make(optimizer(*BASES)), 25)
    schedule = make(optimizer(*BASES))
    course(schedule, stop)
    state = schedule.state_dict()
    other = optimizer(9.0, 9.0)
    resumed = make(other)
    resumed.load_state_dict(state)
    assert resumed.count == stop
    assert course(resumed, 25 - stop) == expected[stop:]


def test_plateau_goes_on_from_its_state() -> None:
    losses = np.random.default_rng(0).normal(size=40).tolist()
    o, other = optimizer(), optimizer()
    schedule = nn.ReduceLROnPlateau(o, patience=2, cooldown=2, factor=0.5)
    resumed = nn.ReduceLROnPlateau(other, patience=2, cooldown=2, factor=0.5)
    for loss in losses[:17]:
        schedule.step(loss)
    resumed.load_state_dict(schedule.state_dict())
    other.lr = o.lr
    for loss in losses[17:]:
        schedule.step(loss)
        resumed.step(loss)
        assert other.lr == o.lr
    assert o.lr < 1


@every_schedule
@pytest.mark.parametrize(
    "duplicate",
    [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))],
    ids=["deepcopy", "pickle"],
)
def test_a_schedule_and_its_optimizer_can_be_copied_together(
    make: Callable[..., nn.Schedule], duplicate: Callable[[Any], Any]
) -> None:
    expected = course(make(optimizer(*BASES)), 25)
    o = optimizer(*BASES)
    schedule = make(o)
    course(schedule, 6)
    other, twin = duplicate((o, schedule))
    assert twin.optimizer is other
    assert course(twin, 19) == expected[6:]
    assert rates(o) == expected[6]


def test_a_schedule_inside_a_schedule() -> None:
    o = optimizer(2.0)
    inner = nn.SequentialLR(o, [nn.ExponentialLR(o, 0.5), nn.ExponentialLR(o, 0.1)], [2])
    outer = nn.SequentialLR(o, [inner, nn.ExponentialLR(o, 0.0)], [4])
    assert_allclose(first_rates(outer, 7), [2, 1, 2, 0.2, 2, 0, 0], rtol=1e-14)


def test_a_schedule_of_ones_own_defines_factor_or_learning_rate() -> None:
    class Root(nn.Schedule):
        def factor(self, count: int) -> float:
            return 1 / math.sqrt(1 + count)

    assert_allclose(first_rates(Root(optimizer(2.0)), 4), 2 / np.sqrt([1, 2, 3, 4]))
    with pytest.raises(NotImplementedError, match="^Schedule does not define factor"):
        nn.Schedule(optimizer())


def test_a_rate_of_zero_stops_the_training_and_no_more() -> None:
    p = nn.Parameter(np.ones(2))
    o = nn.AdamW([p], lr=0.1)
    nn.MultiStepLR(o, [0], gamma=0.0)
    p.grad = np.ones(2)
    o.step()
    assert_array_equal(p.data, [1, 1])


# ---- errors ----


def test_one_cycle_ends_with_an_error_that_says_how_long_it_is() -> None:
    schedule = nn.OneCycleLR(optimizer(), 1.0, total_steps=3)
    course(schedule, 3)
    message = "^OneCycleLR: the cycle has total_steps=3 and this is step 4; .*epochs times batches"
    with pytest.raises(ValueError, match=message):
        schedule.step()


@every_schedule
@pytest.mark.parametrize("wrong", [None, 0.1, nn.Linear(2, 2), [nn.Parameter([0.0])]], ids=str)
def test_what_is_no_optimizer_is_an_error(make: Callable[..., Any], wrong: Any) -> None:
    with pytest.raises(TypeError, match=r"^\w+: expected an optimizer, got \w+$"):
        make(wrong)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda o: nn.StepLR(o, 0), ValueError, "StepLR: step_size must be at least 1, got 0"),
        (lambda o: nn.StepLR(o, 1.5), TypeError, "StepLR: step_size must be an int, got 1.5"),
        (lambda o: nn.StepLR(o, 1, -0.1), ValueError, "StepLR: gamma must be at least 0"),
        (lambda o: nn.MultiStepLR(o, [-1]), ValueError, "MultiStepLR: a milestone must be at"),
        (lambda o: nn.MultiStepLR(o, [0.5]), TypeError, "MultiStepLR: a milestone must be an int"),
        (lambda o: nn.ExponentialLR(o, math.nan), ValueError, "ExponentialLR: gamma must be fin"),
        (lambda o: nn.ExponentialLR(o, None), TypeError, "ExponentialLR: gamma must be a number"),
        (lambda o: nn.LinearLR(o, -0.1), ValueError, "LinearLR: start_factor must be at least 0"),
        (lambda o: nn.LinearLR(o, 0.1, "1"), TypeError, "LinearLR: end_factor must be a number"),
        (
            lambda o: nn.LinearLR(o, total_iters=0),
            ValueError,
            "LinearLR: total_iters must be at least 1, got 0",
        ),
        (
            lambda o: nn.CosineAnnealingLR(o, 0),
            ValueError,
            "CosineAnnealingLR: T_max must be at least 1, got 0",
        ),
        (
            lambda o: nn.CosineAnnealingLR(o, 10, -1),
            ValueError,
            "CosineAnnealingLR: eta_min must be at least 0",
        ),
        (lambda o: nn.OneCycleLR(o, -1, 9), ValueError, "OneCycleLR: max_lr must be at least 0"),
        (lambda o: nn.OneCycleLR(o, 1, 0), ValueError, "OneCycleLR: total_steps must be at least"),
        (
            lambda o: nn.OneCycleLR(o, 1, 9, pct_start=1.0),
            ValueError,
            "OneCycleLR: pct_start must be below 1",
        ),
        (
            lambda o: nn.OneCycleLR(o, 1, 9, anneal_strategy="square"),
            ValueError,
            "OneCycleLR: anneal_strategy must be one of 'cos', 'linear'; got 'square'",
        ),
        (lambda o: nn.OneCycleLR(o, 1, 9, div_factor=0), ValueError, "OneCycleLR: div_factor must"),
        (lambda o: nn.SequentialLR(o, [], []), ValueError, "SequentialLR: 0 schedules need one"),
        (
            lambda o: nn.SequentialLR(o, [nn.StepLR(o, 1), nn.StepLR(o, 1)], []),
            ValueError,
            "SequentialLR: 2 schedules need one milestone less, got 0",
        ),
        (
            lambda o: nn.SequentialLR(o, [nn.StepLR(o, 1) for _ in range(3)], [4, 4]),
            ValueError,
            r"SequentialLR: milestones must increase, got \[4, 4\]",
        ),
        (
            lambda o: nn.SequentialLR(o, [nn.StepLR(o, 1), nn.StepLR(optimizer(), 1)], [4]),
            ValueError,
            "SequentialLR: every schedule must be of the same optimizer",
        ),
        (lambda o: nn.ReduceLROnPlateau(o, "low"), ValueError, "ReduceLROnPlateau: mode must be"),
        (
            lambda o: nn.ReduceLROnPlateau(o, factor=1.0),
            ValueError,
            "ReduceLROnPlateau: factor must be below 1",
        ),
        (
            lambda o: nn.ReduceLROnPlateau(o, patience=-1),
            ValueError,
            "ReduceLROnPlateau: patience must be at least 0",
        ),
        (
            lambda o: nn.ReduceLROnPlateau(o, threshold_mode="both"),
            ValueError,
            "ReduceLROnPlateau: threshold_mode must be one of 'rel', 'abs'",
        ),
        (
            lambda o: nn.ReduceLROnPlateau(o, min_lr=-1),
            ValueError,
            "ReduceLROnPlateau: min_lr must be at least 0",
        ),
    ],
)
def test_options_out_of_range_are_an_error(
    make: Callable[[nn.Optimizer], Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=f"^{message}"):
        make(optimizer())


@every_schedule
def test_a_state_of_another_number_of_groups_is_an_error_and_changes_nothing(
    make: Callable[..., nn.Schedule],
) -> None:
    o = optimizer(*BASES)
    schedule = make(o)
    course(schedule, 3)
    before = rates(o)
    with pytest.raises(ValueError, match=r"^\w+: the state is of 1 parameter groups, the .* has 2"):
        schedule.load_state_dict(make(optimizer()).state_dict())
    assert rates(o) == before
    assert schedule.count == 3
