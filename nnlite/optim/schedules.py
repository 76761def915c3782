"""Learning-rate schedules: how the learning rate of an optimizer changes from step to step.

Each is a function of the number of `step` calls, so that its state is one number, but for
`ReduceLROnPlateau`. Call `step` after each epoch, or after each batch if the schedule counts
batches.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ..checks import boolean, fraction, integer, number, one_of
from ..hints import Hinted, call_of
from ..tables import options_table
from .base import Optimizer


class Schedule(Hinted):
    """Base class: the learning rate of each group is its first one times `factor`.

    A schedule of your own defines `factor`, or `learning_rate`. Several schedules of one optimizer
    multiply their factors, and a learning rate that is changed by hand is scaled from there on, as
    in PyTorch.

    Parameters
    ----------
    optimizer : Optimizer
        The factors multiply the learning rates that it had before its first schedule, which it
        keeps as the option "initial_lr" of each group. If they have been changed since, by another
        schedule or by hand, the changed rates are multiplied.

    Attributes
    ----------
    optimizer : Optimizer
    base_lrs : list of float
        The first learning rate of each group.
    count : int
        The number of calls of `step`.

    Examples
    --------
    >>> import nnlite as nn
    >>> class InverseTime(nn.Schedule):
    ...     def factor(self, count):
    ...         return 1 / (1 + count)
    >>> optimizer = nn.SGD([nn.Parameter([0.0])], lr=1.0)
    >>> schedule = InverseTime(optimizer)
    >>> rates = []
    >>> for epoch in range(3):
    ...     rates.append(round(optimizer.lr, 6))
    ...     schedule.step()
    >>> rates
    [1.0, 0.5, 0.333333]
    """

    optimizer: Optimizer
    base_lrs: list[float]
    count: int

    def __init__(self, optimizer: Optimizer) -> None:
        self.optimizer = _checked(optimizer, type(self).__name__)
        self.base_lrs = [self._base_of(group) for group in optimizer.param_groups]
        self.count = 0
        self._last_lrs = self.base_lrs  # what this schedule alone has set
        self._move_to(0)

    def factor(self, count: int) -> float:
        """Return what the first learning rate is multiplied by after `count` steps."""
        raise NotImplementedError(f"{type(self).__name__} does not define factor")

    def learning_rate(self, base: float, count: int) -> float:
        """Return the learning rate after `count` steps of a group that began with `base`."""
        return base * self.factor(count)

    def _base_of(self, group: dict[str, Any]) -> float:
        """Return the first learning rate of a group, and keep it as its option "initial_lr"."""
        return float(group.setdefault("initial_lr", group["lr"]))

    def _momentum(self, count: int) -> float | None:
        """Return the momentum after `count` steps, or None if the schedule leaves it alone."""
        return None

    def step(self) -> None:
        """Count a step, and set the learning rates for the next one."""
        self._move_to(self.count + 1)

    def __repr__(self) -> str:
        return call_of(self)

    def _repr_html_(self) -> str:
        return options_table(self, steps=self.count, lr=self.get_last_lr())

    def get_last_lr(self) -> list[float]:
        """Return the learning rate of each parameter group."""
        return [float(group["lr"]) for group in self.optimizer.param_groups]

    def _move_to(self, count: int) -> None:
        if len(self.optimizer.param_groups) != len(self.base_lrs):
            self._include_added_groups()
        lrs = [self.learning_rate(base, count) for base in self.base_lrs]
        for group, last, lr in zip(self.optimizer.param_groups, self._last_lrs, lrs, strict=True):
            group["lr"] = (
                lr if group["lr"] == last else self._rescaled(group["lr"], last, lr, count)
            )
        self._set_momentum(count)
        self.count, self._last_lrs = count, lrs

    def _set_momentum(self, count: int) -> None:
        momentum = self._momentum(count)
        if momentum is None:
            return
        for group in self.optimizer.param_groups:
            if "betas" in group:
                group["betas"] = (momentum, group["betas"][1])
            else:
                group["momentum"] = momentum

    def _include_added_groups(self) -> None:
        """Give the groups that were added to the optimizer a base: the rate that they came with."""
        for group in self.optimizer.param_groups[len(self.base_lrs) :]:
            base = self._base_of(group)
            self.base_lrs = [*self.base_lrs, base]
            self._last_lrs = [*self._last_lrs, self.learning_rate(base, self.count)]

    def _floor(self, count: int) -> float:
        """Return the rate that the schedule falls towards."""
        return 0.0

    def _rescaled(self, rate: float, last: float, lr: float, count: int) -> float:
        """Return the rate at step `count` where it was `rate` in place of `last` one step before.

        Without the change it would be `lr`. As in PyTorch's recursive rule, the distance from the
        floor is multiplied by the schedule's factor.
        """
        if lr == last:
            return rate
        floor = self._floor(count)
        if last == floor:
            return rate + (lr - last)
        return floor + (rate - floor) * ((lr - floor) / (last - floor))

    def state_dict(self) -> dict[str, Any]:
        """Return the state, for `load_state_dict`.

        Returns
        -------
        dict
            "count"; and for each group "base_lrs"; "last_lrs", the rates that this schedule alone
            gives; and "lrs", those of the optimizer, which other schedules may have changed.
        """
        self._include_added_groups()
        return {
            "count": self.count,
            "base_lrs": list(self.base_lrs),
            "last_lrs": list(self._last_lrs),
            "lrs": [group["lr"] for group in self.optimizer.param_groups],
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restore a state, and the optimizer's learning rates.

        The order in which optimizer and schedules are loaded does not matter. The options of this
        schedule hold, not those of the saved one: the rates become those that it gives after the
        same number of steps. For this the optimizer has to be loaded first.

        Raises
        ------
        TypeError, ValueError
            If it is not the state of such a schedule. Nothing is changed then.
        """
        name = type(self).__name__
        if not isinstance(state_dict, Mapping) or not {"count", "base_lrs"} <= set(state_dict):
            raise TypeError(
                f"{name}: expected the state_dict of a schedule, got {state_dict!r:.80}"
            )
        self._include_added_groups()
        count = integer(state_dict["count"], f"{name}: the count of the state", 0)
        base_lrs = self._checked_bases(state_dict["base_lrs"])
        lrs = [self.learning_rate(base, count) for base in base_lrs]
        # Earlier versions saved neither.
        saved = self._checked_lrs(state_dict.get("lrs", lrs))
        last_lrs = self._checked_lrs(state_dict.get("last_lrs", lrs))
        for place, group in enumerate(self.optimizer.param_groups):
            rate, last, lr = saved[place], last_lrs[place], lrs[place]
            group["initial_lr"] = base_lrs[place]
            if lr == last:
                group["lr"] = rate
            else:  # the schedule has other options now
                group["lr"] = lr if rate == last else self._rescaled(rate, last, lr, count)
        self._set_momentum(count)
        self.count, self.base_lrs, self._last_lrs = count, base_lrs, lrs

    def _checked_bases(self, given: Any) -> list[float]:
        """Return the first rates of the groups, as the state has them."""
        return self._checked_lrs(given)

    def _checked_lrs(self, given: Any) -> list[float]:
        name = type(self).__name__
        if not isinstance(given, (list, tuple)):
            raise TypeError(f"{name}: the rates of the state must be a list, got {given!r:.80}")
        if len(given) != len(self.base_lrs):
            raise ValueError(
                f"{name}: the state is of {len(given)} parameter groups, "
                f"the optimizer has {len(self.base_lrs)}"
            )
        return [number(lr, f"{name}: a rate of the state", 0) for lr in given]


class StepLR(Schedule):
    """Multiply the learning rate by `gamma` after every `step_size` steps.

    Parameters
    ----------
    optimizer : Optimizer
    step_size : int
    gamma : float, default 0.1

    Notes
    -----
    After t steps::

        lr = base · gamma^⌊t / step_size⌋

    Examples
    --------
    >>> import nnlite as nn
    >>> optimizer = nn.SGD([nn.Parameter([0.0])], lr=1.0)
    >>> schedule = nn.StepLR(optimizer, step_size=2, gamma=0.5)
    >>> rates = []
    >>> for epoch in range(5):
    ...     rates.append(optimizer.lr)
    ...     schedule.step()
    >>> rates
    [1.0, 1.0, 0.5, 0.5, 0.25]
    """

    def __init__(self, optimizer: Optimizer, step_size: int, gamma: float = 0.1) -> None:
        self.step_size = integer(step_size, "StepLR: step_size")
        self.gamma = number(gamma, "StepLR: gamma", minimum=0)
        super().__init__(optimizer)

    def factor(self, count: int) -> float:
        return float(self.gamma ** (count // self.step_size))


class MultiStepLR(Schedule):
    """Multiply the learning rate by `gamma` at each of the `milestones`.

    Parameters
    ----------
    optimizer : Optimizer
    milestones : sequence of int
        Numbers of steps.
    gamma : float, default 0.1

    Notes
    -----
    After t steps, of which m milestones are at most t::

        lr = base · gamma^m

    Examples
    --------
    >>> import nnlite as nn
    >>> optimizer = nn.SGD([nn.Parameter([0.0])], lr=1.0)
    >>> schedule = nn.MultiStepLR(optimizer, milestones=[1, 3], gamma=0.5)
    >>> rates = []
    >>> for epoch in range(4):
    ...     rates.append(round(optimizer.lr, 6))
    ...     schedule.step()
    >>> rates
    [1.0, 0.5, 0.5, 0.25]
    """

    def __init__(self, optimizer: Optimizer, milestones: Sequence[int], gamma: float = 0.1) -> None:
        self.milestones = sorted(_integers(milestones, "MultiStepLR", 0))
        self.gamma = number(gamma, "MultiStepLR: gamma", minimum=0)
        super().__init__(optimizer)

    def factor(self, count: int) -> float:
        return float(self.gamma ** bisect.bisect_right(self.milestones, count))


class ExponentialLR(Schedule):
    """Multiply the learning rate by `gamma` after each step.

    Parameters
    ----------
    optimizer : Optimizer
    gamma : float

    Notes
    -----
    After t steps::

        lr = base · gamma^t

    Examples
    --------
    >>> import nnlite as nn
    >>> optimizer = nn.SGD([nn.Parameter([0.0])], lr=1.0)
    >>> schedule = nn.ExponentialLR(optimizer, gamma=0.5)
    >>> rates = []
    >>> for epoch in range(3):
    ...     rates.append(round(optimizer.lr, 6))
    ...     schedule.step()
    >>> rates
    [1.0, 0.5, 0.25]
    """

    def __init__(self, optimizer: Optimizer, gamma: float) -> None:
        self.gamma = number(gamma, "ExponentialLR: gamma", minimum=0)
        super().__init__(optimizer)

    def factor(self, count: int) -> float:
        return float(self.gamma**count)


class LinearLR(Schedule):
    """Change the learning rate linearly: a warm-up by default.

    Parameters
    ----------
    optimizer : Optimizer
    start_factor, end_factor : float, default 1/3 and 1
        Factors of the learning rate at the ends of the line.
    total_iters : int, default 5
        Number of steps from one to the other; after them the rate stays.

    Notes
    -----
    After t steps, with s = min(t / total_iters, 1)::

        lr = base · (start_factor + (end_factor - start_factor) · s)

    Examples
    --------
    >>> import nnlite as nn
    >>> optimizer = nn.SGD([nn.Parameter([0.0])], lr=1.0)
    >>> schedule = nn.LinearLR(optimizer, start_factor=0.5, total_iters=2)
    >>> rates = []
    >>> for epoch in range(4):
    ...     rates.append(optimizer.lr)
    ...     schedule.step()
    >>> rates
    [0.5, 0.75, 1.0, 1.0]
    """

    def __init__(
        self,
        optimizer: Optimizer,
        start_factor: float = 1 / 3,
        end_factor: float = 1.0,
        total_iters: int = 5,
    ) -> None:
        self.start_factor = number(start_factor, "LinearLR: start_factor", minimum=0)
        self.end_factor = number(end_factor, "LinearLR: end_factor", minimum=0)
        self.total_iters = integer(total_iters, "LinearLR: total_iters")
        super().__init__(optimizer)

    def factor(self, count: int) -> float:
        progress = min(count / self.total_iters, 1)
        return self.start_factor + (self.end_factor - self.start_factor) * progress


class CosineAnnealingLR(Schedule):
    """Let the learning rate fall along half a cosine.

    Parameters
    ----------
    optimizer : Optimizer
    T_max : int
        Number of steps to the lowest rate; after as many more it is back.
    eta_min : float, default 0
        The lowest rate.

    Notes
    -----
    After t steps::

        lr = eta_min + (base - eta_min) · (1 + cos(π t / T_max)) / 2

    References
    ----------
    I. Loshchilov, F. Hutter, "SGDR: stochastic gradient descent with warm restarts", ICLR 2017.

    Examples
    --------
    >>> import nnlite as nn
    >>> optimizer = nn.SGD([nn.Parameter([0.0])], lr=1.0)
    >>> schedule = nn.CosineAnnealingLR(optimizer, T_max=4)
    >>> rates = []
    >>> for epoch in range(5):
    ...     rates.append(round(optimizer.lr, 6))
    ...     schedule.step()
    >>> rates
    [1.0, 0.853553, 0.5, 0.146447, 0.0]
    """

    def __init__(self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0) -> None:
        self.T_max = integer(T_max, "CosineAnnealingLR: T_max")
        self.eta_min = number(eta_min, "CosineAnnealingLR: eta_min", minimum=0)
        super().__init__(optimizer)

    def learning_rate(self, base: float, count: int) -> float:
        return self.eta_min + (base - self.eta_min) * _half_cosine(count / self.T_max)

    def _floor(self, count: int) -> float:
        return self.eta_min


class CosineAnnealingWarmRestarts(Schedule):
    """Let the learning rate fall along half a cosine, again and again.

    Parameters
    ----------
    optimizer : Optimizer
    T_0 : int
        Number of steps of the first fall.
    T_mult : int, default 1
        Each fall is this many times as long as the one before it.
    eta_min : float, default 0
        The lowest rate.

    Notes
    -----
    With t steps since the last restart, and T steps from it to the next::

        lr = eta_min + (base - eta_min) · (1 + cos(π t / T)) / 2

    A learning rate that is changed by hand holds for one step, as in PyTorch.

    References
    ----------
    I. Loshchilov, F. Hutter, "SGDR: stochastic gradient descent with warm restarts", ICLR 2017.

    Examples
    --------
    >>> import nnlite as nn
    >>> optimizer = nn.SGD([nn.Parameter([0.0])], lr=1.0)
    >>> schedule = nn.CosineAnnealingWarmRestarts(optimizer, T_0=2, T_mult=2)
    >>> rates = []
    >>> for epoch in range(7):
    ...     rates.append(round(optimizer.lr, 6))
    ...     schedule.step()
    >>> rates
    [1.0, 0.5, 1.0, 0.853553, 0.5, 0.146447, 1.0]
    """

    def __init__(
        self, optimizer: Optimizer, T_0: int, T_mult: int = 1, eta_min: float = 0.0
    ) -> None:
        self.T_0 = integer(T_0, "CosineAnnealingWarmRestarts: T_0")
        self.T_mult = integer(T_mult, "CosineAnnealingWarmRestarts: T_mult")
        self.eta_min = number(eta_min, "CosineAnnealingWarmRestarts: eta_min", minimum=0)
        super().__init__(optimizer)

    def learning_rate(self, base: float, count: int) -> float:
        length = self.T_0
        if self.T_mult == 1:
            count %= length
        while count >= length:
            count -= length
            length *= self.T_mult
        return self.eta_min + (base - self.eta_min) * _half_cosine(count / length)

    def _rescaled(self, rate: float, last: float, lr: float, count: int) -> float:
        return lr


class PolynomialLR(Schedule):
    """Let the learning rate fall to 0 as a power of the steps that are left.

    Parameters
    ----------
    optimizer : Optimizer
    total_iters : int, default 5
        Number of steps to a rate of 0, which then stays.
    power : float, default 1
        At least 0. 1 is a straight line.

    Notes
    -----
    After t steps, up to total_iters::

        lr = base · (1 - t / total_iters)^power

    Examples
    --------
    >>> import nnlite as nn
    >>> optimizer = nn.SGD([nn.Parameter([0.0])], lr=1.0)
    >>> schedule = nn.PolynomialLR(optimizer, total_iters=4, power=2.0)
    >>> rates = []
    >>> for epoch in range(6):
    ...     rates.append(optimizer.lr)
    ...     schedule.step()
    >>> rates
    [1.0, 0.5625, 0.25, 0.0625, 0.0, 0.0]
    """

    def __init__(self, optimizer: Optimizer, total_iters: int = 5, power: float = 1.0) -> None:
        self.total_iters = integer(total_iters, "PolynomialLR: total_iters")
        self.power = number(power, "PolynomialLR: power", minimum=0)
        super().__init__(optimizer)

    def factor(self, count: int) -> float:
        return float((1 - min(count / self.total_iters, 1)) ** self.power)


class ConstantLR(Schedule):
    """Multiply the learning rate by `factor` for the first steps.

    Parameters
    ----------
    optimizer : Optimizer
    factor : float in [0, 1], default 1/3
    total_iters : int, default 5
        Number of steps after which the rate is the first one.

    Notes
    -----
    After t steps::

        lr = base · factor      for t < total_iters
        lr = base               after them

    Examples
    --------
    >>> import nnlite as nn
    >>> optimizer = nn.SGD([nn.Parameter([0.0])], lr=1.0)
    >>> schedule = nn.ConstantLR(optimizer, factor=0.5, total_iters=2)
    >>> rates = []
    >>> for epoch in range(4):
    ...     rates.append(optimizer.lr)
    ...     schedule.step()
    >>> rates
    [0.5, 0.5, 1.0, 1.0]
    """

    def __init__(self, optimizer: Optimizer, factor: float = 1 / 3, total_iters: int = 5) -> None:
        self._factor = number(factor, "ConstantLR: factor", 0, 1)
        self.total_iters = integer(total_iters, "ConstantLR: total_iters", 0)
        super().__init__(optimizer)

    def factor(self, count: int) -> float:
        return self._factor if count < self.total_iters else 1.0


class LambdaLR(Schedule):
    """Multiply the first learning rate by a function of the number of steps.

    Parameters
    ----------
    optimizer : Optimizer
    lr_lambda : callable
        ``lr_lambda(count)`` returns the factor after `count` steps, for all groups. It is not part
        of the state.

    Raises
    ------
    TypeError
        If it is no function, or does not return a number.

    Notes
    -----
    After t steps::

        lr = base · lr_lambda(t)

    A learning rate that is changed by hand holds for one step, as in PyTorch.

    Examples
    --------
    >>> import nnlite as nn
    >>> optimizer = nn.SGD([nn.Parameter([0.0])], lr=1.0)
    >>> schedule = nn.LambdaLR(optimizer, lambda epoch: 0.5**epoch)
    >>> rates = []
    >>> for epoch in range(3):
    ...     rates.append(optimizer.lr)
    ...     schedule.step()
    >>> rates
    [1.0, 0.5, 0.25]
    """

    def __init__(self, optimizer: Optimizer, lr_lambda: Callable[[int], float]) -> None:
        if not callable(lr_lambda):
            raise TypeError(
                f"LambdaLR: lr_lambda must be a function of the number of steps, for all groups, "
                f"got {lr_lambda!r:.80}"
            )
        self.lr_lambda = lr_lambda
        super().__init__(optimizer)

    def factor(self, count: int) -> float:
        return number(self.lr_lambda(count), "LambdaLR: what lr_lambda returns", minimum=0)

    def _rescaled(self, rate: float, last: float, lr: float, count: int) -> float:
        return lr


class _Cycle(Schedule):
    """Base class of schedules with learning rates of their own, and a momentum if they cycle it."""

    def __init__(
        self,
        optimizer: Optimizer,
        cycle_momentum: bool,
        base_momentum: float,
        max_momentum: float,
    ) -> None:
        name = type(self).__name__
        self.cycle_momentum = boolean(cycle_momentum, f"{name}: cycle_momentum")
        self.base_momentum = fraction(base_momentum, f"{name}: base_momentum")
        self.max_momentum = fraction(max_momentum, f"{name}: max_momentum")
        defaults = _checked(optimizer, name).defaults
        if self.cycle_momentum and not {"momentum", "betas"} & set(defaults):
            raise ValueError(
                f"{name}: {type(optimizer).__name__} has neither momentum nor betas to cycle; use "
                f"cycle_momentum=False"
            )
        super().__init__(optimizer)

    def _first_rate(self) -> float:
        """Return the rate that the schedule, and another after it, begin with."""
        raise NotImplementedError

    def _base_of(self, group: dict[str, Any]) -> float:
        group["initial_lr"] = self._first_rate()
        return self._first_rate()

    def _checked_bases(self, given: Any) -> list[float]:
        return [self._first_rate() for _ in super()._checked_bases(given)]

    def _rescaled(self, rate: float, last: float, lr: float, count: int) -> float:
        return lr  # the rates of a cycle are absolute


class CyclicLR(_Cycle):
    """Let the learning rate go up and down between two rates.

    Parameters
    ----------
    optimizer : Optimizer
    base_lr, max_lr : float
        The lowest and the highest rate.
    step_size_up : int, default 2000
        Number of steps from the lowest to the highest rate.
    step_size_down : int, optional
        Number of steps back; by default as many.
    mode : {"triangular", "triangular2", "exp_range"}
        Whether the peaks stay, are halved from cycle to cycle, or decay by `gamma` in each step.
    gamma : float, default 1
    cycle_momentum : bool, default True
        Whether the momentum, or the first of betas, goes down and up in the meantime.
    base_momentum, max_momentum : float in [0, 1), default 0.8 and 0.9
        The momentum at the highest and at the lowest rate.

    Raises
    ------
    ValueError
        If an option is out of range, or the optimizer has no momentum to cycle.

    Notes
    -----
    With h rising from 0 to 1 and falling back in each cycle c = 1, 2, …, and a scale s of 1,
    2^(1-c) or gamma^t after t steps::

        lr = base_lr + (max_lr - base_lr) · h · s
        momentum = max_momentum - (max_momentum - base_momentum) · h · s

    References
    ----------
    L. Smith, "Cyclical learning rates for training neural networks", WACV 2017.

    Examples
    --------
    >>> import nnlite as nn
    >>> optimizer = nn.SGD([nn.Parameter([0.0])], lr=1.0, momentum=0.9)
    >>> schedule = nn.CyclicLR(optimizer, base_lr=0.5, max_lr=1.0, step_size_up=2)
    >>> rates = []
    >>> for step in range(5):
    ...     rates.append((optimizer.lr, round(optimizer.param_groups[0]["momentum"], 6)))
    ...     schedule.step()
    >>> rates
    [(0.5, 0.9), (0.75, 0.85), (1.0, 0.8), (0.75, 0.85), (0.5, 0.9)]
    """

    def __init__(
        self,
        optimizer: Optimizer,
        base_lr: float,
        max_lr: float,
        step_size_up: int = 2000,
        step_size_down: int | None = None,
        mode: str = "triangular",
        gamma: float = 1.0,
        *,
        cycle_momentum: bool = True,
        base_momentum: float = 0.8,
        max_momentum: float = 0.9,
    ) -> None:
        self.base_lr = number(base_lr, "CyclicLR: base_lr", minimum=0)
        self.max_lr = number(max_lr, "CyclicLR: max_lr", minimum=0)
        self.step_size_up = integer(step_size_up, "CyclicLR: step_size_up")
        down = step_size_up if step_size_down is None else step_size_down
        self.step_size_down = integer(down, "CyclicLR: step_size_down")
        self.mode = one_of(mode, ("triangular", "triangular2", "exp_range"), "CyclicLR: mode")
        self.gamma = number(gamma, "CyclicLR: gamma", minimum=0)
        super().__init__(optimizer, cycle_momentum, base_momentum, max_momentum)

    def _first_rate(self) -> float:
        return self.base_lr

    def _height(self, count: int) -> float:
        """Return how far the rate is between the lowest, 0, and the highest, 1."""
        cycle, step = divmod(count, self.step_size_up + self.step_size_down)
        height = step / self.step_size_up
        if step > self.step_size_up:
            height = 1 - (step - self.step_size_up) / self.step_size_down
        if self.mode == "triangular2":
            return float(height * 0.5**cycle)
        return float(height * self.gamma**count) if self.mode == "exp_range" else height

    def learning_rate(self, base: float, count: int) -> float:
        return self.base_lr + (self.max_lr - self.base_lr) * self._height(count)

    def _momentum(self, count: int) -> float | None:
        if not self.cycle_momentum:
            return None
        return self.max_momentum - (self.max_momentum - self.base_momentum) * self._height(count)


class OneCycleLR(_Cycle):
    """Warm up to a high learning rate, then fall far below the first one.

    Parameters
    ----------
    optimizer : Optimizer
    max_lr : float
        The highest rate.
    total_steps : int, optional
        Number of steps in the cycle: epochs times batches, as it is meant for steps of batches.
    pct_start : float in [0, 1), default 0.3
        Fraction of the steps in which the rate rises.
    anneal_strategy : {"cos", "linear"}
        Whether it rises and falls along half cosines or straight lines.
    div_factor : float, default 25
        The first rate is ``max_lr / div_factor``.
    final_div_factor : float, default 1e4
        The last rate is ``max_lr / div_factor / final_div_factor``.
    epochs, steps_per_epoch : int, optional
        Their product is `total_steps`, if that is left out.
    cycle_momentum : bool, default False
        Whether the momentum, or the first of betas, falls while the rate rises, and rises while it
        falls. In PyTorch it is True by default.
    base_momentum, max_momentum : float in [0, 1), default 0.85 and 0.95
        The momentum at the highest rate, and at both ends.
    three_phase : bool, default False
        Whether the rate falls to the first one as fast as it has risen, and then to the last one.

    Raises
    ------
    ValueError
        If an option is out of range, if the optimizer has no momentum to cycle, or at the step
        after the last of the cycle.
    TypeError
        If neither `total_steps` nor `epochs` and `steps_per_epoch` are given.

    Notes
    -----
    A schedule that is made after this one begins with ``max_lr / div_factor``, as in PyTorch.

    References
    ----------
    L. Smith, N. Topin, "Super-convergence: very fast training of neural networks using large
    learning rates", 2018.

    Examples
    --------
    >>> import nnlite as nn
    >>> optimizer = nn.SGD([nn.Parameter([0.0])], lr=1.0)
    >>> schedule = nn.OneCycleLR(optimizer, max_lr=1.0, total_steps=5, pct_start=0.6)
    >>> rates = []
    >>> for epoch in range(5):
    ...     rates.append(round(optimizer.lr, 6))
    ...     schedule.step()
    >>> rates
    [0.04, 0.52, 1.0, 0.500002, 4e-06]
    """

    def __init__(
        self,
        optimizer: Optimizer,
        max_lr: float,
        total_steps: int | None = None,
        pct_start: float = 0.3,
        anneal_strategy: str = "cos",
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
        *,
        epochs: int | None = None,
        steps_per_epoch: int | None = None,
        cycle_momentum: bool = False,
        base_momentum: float = 0.85,
        max_momentum: float = 0.95,
        three_phase: bool = False,
    ) -> None:
        self.max_lr = number(max_lr, "OneCycleLR: max_lr", minimum=0)
        if total_steps is None:
            if epochs is None or steps_per_epoch is None:
                raise TypeError("OneCycleLR: give total_steps, or epochs and steps_per_epoch")
            total_steps = integer(epochs, "OneCycleLR: epochs") * integer(
                steps_per_epoch, "OneCycleLR: steps_per_epoch"
            )
        self.total_steps = integer(total_steps, "OneCycleLR: total_steps")
        self.pct_start = fraction(pct_start, "OneCycleLR: pct_start")
        self.anneal_strategy = one_of(
            anneal_strategy, ("cos", "linear"), "OneCycleLR: anneal_strategy"
        )
        self.div_factor = number(div_factor, "OneCycleLR: div_factor", minimum=1)
        self.final_div_factor = number(final_div_factor, "OneCycleLR: final_div_factor", minimum=1)
        self.three_phase = boolean(three_phase, "OneCycleLR: three_phase")
        super().__init__(optimizer, cycle_momentum, base_momentum, max_momentum)

    def _first_rate(self) -> float:
        return self.max_lr / self.div_factor

    def learning_rate(self, base: float, count: int) -> float:
        if count > self.total_steps:
            raise ValueError(
                f"OneCycleLR: the cycle has total_steps={self.total_steps} and this is step "
                f"{count}; total_steps is epochs times batches"
            )
        first = self._first_rate()
        phase, progress = self._phase(count)
        ends = [first, self.max_lr, first / self.final_div_factor]
        if self.three_phase:
            ends.insert(2, first)
        return self._between(ends[phase], ends[phase + 1], progress)

    def _momentum(self, count: int) -> float | None:
        if not self.cycle_momentum:
            return None
        phase, progress = self._phase(count)
        ends = [self.max_momentum, self.base_momentum, self.max_momentum, self.max_momentum]
        return self._between(ends[phase], ends[phase + 1], progress)

    def _phase(self, count: int) -> tuple[int, float]:
        """Return the number of the phase of a step, and how far it is in it, from 0 to 1."""
        top = self.pct_start * self.total_steps - 1
        last = self.total_steps - 1
        ends = [top, 2 * top, last] if self.three_phase else [top, last]
        phase = sum(count > end for end in ends[:-1])
        start, end = ends[phase - 1] if phase else 0.0, ends[phase]
        return phase, min((count - start) / (end - start), 1.0) if end > start else 1.0

    def _between(self, start: float, end: float, progress: float) -> float:
        if self.anneal_strategy == "cos":
            return end + (start - end) * _half_cosine(progress)
        return start + (end - start) * progress


class SequentialLR(Schedule):
    """One schedule after the other: a warm-up and then a decay, say.

    Parameters
    ----------
    optimizer : Optimizer
    schedulers : sequence of Schedule
        Each counts its steps from when its turn comes.
    milestones : sequence of int
        The numbers of steps at which the turn passes on: one less than there are schedules.

    Examples
    --------
    >>> import nnlite as nn
    >>> optimizer = nn.SGD([nn.Parameter([0.0])], lr=1.0)
    >>> schedule = nn.SequentialLR(
    ...     optimizer,
    ...     [nn.LinearLR(optimizer, 0.5, total_iters=2), nn.ExponentialLR(optimizer, 0.1)],
    ...     milestones=[2],
    ... )
    >>> rates = []
    >>> for epoch in range(4):
    ...     rates.append(round(optimizer.lr, 6))
    ...     schedule.step()
    >>> rates
    [0.5, 0.75, 1.0, 0.1]
    """

    def __init__(
        self, optimizer: Optimizer, schedulers: Sequence[Schedule], milestones: Sequence[int]
    ) -> None:
        self.schedulers = list(schedulers)
        self.milestones = _integers(milestones, "SequentialLR", 1)
        if not self.schedulers or len(self.milestones) != len(self.schedulers) - 1:
            raise ValueError(
                f"SequentialLR: {len(self.schedulers)} schedules need one milestone less, "
                f"got {len(self.milestones)}"
            )
        if self.milestones != sorted(set(self.milestones)):
            raise ValueError(f"SequentialLR: milestones must increase, got {self.milestones}")
        for schedule in self.schedulers:
            if not isinstance(schedule, Schedule):
                raise TypeError(
                    f"SequentialLR: expected schedules that count steps, "
                    f"got {type(schedule).__name__}"
                )
            if schedule.optimizer is not optimizer:
                raise ValueError("SequentialLR: every schedule must be of the same optimizer")
        # Each of the schedules has changed the rates when it was made.
        for group in _checked(optimizer, "SequentialLR").param_groups:
            group["lr"] = group["initial_lr"]
        super().__init__(optimizer)

    def learning_rate(self, base: float, count: int) -> float:
        schedule, steps = self._turn(count)
        return schedule.learning_rate(base, steps)

    def _turn(self, count: int) -> tuple[Schedule, int]:
        """Return the schedule whose turn it is, and the number of steps that it has had."""
        turn = bisect.bisect_right(self.milestones, count)
        return self.schedulers[turn], count - (self.milestones[turn - 1] if turn else 0)

    def _momentum(self, count: int) -> float | None:
        schedule, steps = self._turn(count)
        return schedule._momentum(steps)

    def _rescaled(self, rate: float, last: float, lr: float, count: int) -> float:
        schedule, steps = self._turn(count)
        if not steps:
            return lr  # a schedule begins with its own rate, as in PyTorch
        return schedule._rescaled(rate, last, lr, steps)


class ReduceLROnPlateau(Hinted):
    """Multiply the learning rate by `factor` when a figure has not improved for a while.

    Parameters
    ----------
    optimizer : Optimizer
    mode : {"min", "max"}
        Whether the figure should fall, as a loss, or rise, as an accuracy.
    factor : float in [0, 1), default 0.1
    patience : int, default 10
        Number of steps without improvement that are tolerated.
    threshold : float, default 1e-4
        The smallest change that counts as an improvement.
    threshold_mode : {"rel", "abs"}
        Whether `threshold` is a fraction of the absolute value of the best figure, or a difference
        from it.
    cooldown : int, default 0
        Number of steps after a reduction in which none is counted.
    min_lr : float, default 0
        Lower bound of the learning rate.
    eps : float, default 1e-8
        Smaller reductions than this are skipped.

    Notes
    -----
    With ``threshold_mode="rel"``, a figure is an improvement if it is::

        < best - threshold · |best|    for mode="min"
        > best + threshold · |best|    for mode="max"

    For figures of at least 0 this is PyTorch's rule. PyTorch multiplies the best figure by
    ``1 - threshold`` also if it is negative, such as a log-likelihood. The bound is then on the
    wrong side: a constant or a worse figure counts as an improvement, and the rate is not reduced.

    Examples
    --------
    >>> import nnlite as nn
    >>> optimizer = nn.SGD([nn.Parameter([0.0])], lr=1.0)
    >>> schedule = nn.ReduceLROnPlateau(optimizer, factor=0.5, patience=1)
    >>> for loss in (3.0, 2.0, 2.0, 2.0):
    ...     schedule.step(loss)
    >>> optimizer.lr
    0.5
    """

    def __init__(
        self,
        optimizer: Optimizer,
        mode: str = "min",
        factor: float = 0.1,
        patience: int = 10,
        threshold: float = 1e-4,
        threshold_mode: str = "rel",
        cooldown: int = 0,
        min_lr: float = 0.0,
        eps: float = 1e-8,
    ) -> None:
        self.optimizer = _checked(optimizer, "ReduceLROnPlateau")
        self.mode = one_of(mode, ("min", "max"), "ReduceLROnPlateau: mode")
        self.factor = fraction(factor, "ReduceLROnPlateau: factor")
        self.patience = integer(patience, "ReduceLROnPlateau: patience", 0)
        self.threshold = number(threshold, "ReduceLROnPlateau: threshold", minimum=0)
        self.threshold_mode = one_of(
            threshold_mode, ("rel", "abs"), "ReduceLROnPlateau: threshold_mode"
        )
        self.cooldown = integer(cooldown, "ReduceLROnPlateau: cooldown", 0)
        self.min_lr = number(min_lr, "ReduceLROnPlateau: min_lr", minimum=0)
        self.eps = number(eps, "ReduceLROnPlateau: eps", minimum=0)
        self.best = math.inf if mode == "min" else -math.inf
        self.bad_steps = 0
        self.rest = 0

    def step(self, metric: float) -> None:
        """Take note of `metric`, and reduce the learning rates if it is time."""
        if isinstance(metric, str) or np.ndim(metric) != 0 or metric is None:
            raise TypeError(f"ReduceLROnPlateau: the metric must be a number, got {metric!r}")
        metric = float(metric)
        if self._improves(metric):
            self.best, self.bad_steps = metric, 0
        else:
            self.bad_steps += 1
        if self.rest > 0:
            self.rest -= 1
            self.bad_steps = 0
        if self.bad_steps > self.patience:
            for group in self.optimizer.param_groups:
                reduced = max(group["lr"] * self.factor, self.min_lr)
                if group["lr"] - reduced > self.eps:
                    group["lr"] = reduced
            self.rest, self.bad_steps = self.cooldown, 0

    def __repr__(self) -> str:
        return call_of(self)

    def _repr_html_(self) -> str:
        return options_table(self, lr=self.get_last_lr())

    def get_last_lr(self) -> list[float]:
        """Return the learning rate of each parameter group."""
        return [float(group["lr"]) for group in self.optimizer.param_groups]

    def _improves(self, metric: float) -> bool:
        sign = -1 if self.mode == "min" else 1
        if math.isinf(self.best):
            limit = self.best  # there is no figure yet, or only infinite ones
        elif self.threshold_mode == "abs":
            limit = self.best + sign * self.threshold
        else:  # best ± threshold · |best|
            limit = self.best * (1 + sign * math.copysign(self.threshold, self.best))
        return metric < limit if self.mode == "min" else metric > limit

    def state_dict(self) -> dict[str, Any]:
        """Return what `load_state_dict` needs to go on from here."""
        return {
            "best": self.best,
            "bad_steps": self.bad_steps,
            "rest": self.rest,
            "mode": self.mode,
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from where `state_dict` was taken; the optimizer has the learning rates.

        Raises
        ------
        TypeError, ValueError
            If it is not the state of such a schedule. Nothing is changed then.
        """
        name = type(self).__name__
        names = {"best", "bad_steps", "rest"}
        if not isinstance(state_dict, Mapping) or not names <= set(state_dict):
            raise TypeError(
                f"{name}: expected the state_dict of a schedule, got {state_dict!r:.80}"
            )
        mode = state_dict.get("mode", self.mode)  # earlier versions did not save it
        if mode != self.mode:
            raise ValueError(
                f"{name}: the state is of a schedule with mode={mode!r:.80}, this one has "
                f"mode={self.mode!r}"
            )
        best = state_dict["best"]
        if isinstance(best, bool) or not isinstance(best, (int, float)):
            raise TypeError(f"{name}: the best of the state must be a number, got {best!r:.80}")
        bad_steps = integer(state_dict["bad_steps"], f"{name}: the bad_steps of the state", 0)
        rest = integer(state_dict["rest"], f"{name}: the rest of the state", 0)
        self.best, self.bad_steps, self.rest = float(best), bad_steps, rest


def _checked(optimizer: Any, name: str) -> Optimizer:
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"{name}: expected an optimizer, got {type(optimizer).__name__}")
    return optimizer


def _integers(values: Any, who: str, minimum: int) -> list[int]:
    if not isinstance(values, Iterable) or isinstance(values, str):
        raise TypeError(f"{who}: milestones must be a list of ints, got {values!r}")
    return [integer(value, f"{who}: a milestone", minimum) for value in values]


def _half_cosine(progress: float) -> float:
    """Return half a cosine: 1 at a progress of 0, and 0 at 1."""
    return (1 + math.cos(math.pi * progress)) / 2
