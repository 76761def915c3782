"""The update rules NAdam, RAdam and Lion."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from ..checks import boolean, number
from ..engine.arrays import Array
from ..parameter import Parameter
from .base import Optimizer
from .optimizers import checked_betas, decay_moments


class _Adaptive(Optimizer):
    """Base class of optimizers with decayed moments, and weight decay of either kind."""

    state_names = ("exp_avg", "exp_avg_sq")

    def check(self, group: dict[str, Any]) -> None:
        super().check(group)
        for name in ("eps", "weight_decay"):
            group[name] = number(group[name], f"{self._name}: {name}", minimum=0)
        group["betas"] = checked_betas(group["betas"], self._name)
        group["decoupled_weight_decay"] = boolean(
            group["decoupled_weight_decay"], f"{self._name}: decoupled_weight_decay"
        )

    def _decayed(self, group: dict[str, Any], value: Array, grad: Array) -> Array:
        """Apply the weight decay to the value, or return the gradient with it."""
        if not group["weight_decay"]:
            return grad
        if group["decoupled_weight_decay"]:
            value *= 1 - group["lr"] * group["weight_decay"]
            return grad
        return grad + group["weight_decay"] * value


class NAdam(_Adaptive):
    """Adam with Nesterov momentum.

    Parameters
    ----------
    params : iterable of Parameter, or iterable of dict
        ``model.parameters()``, or groups with options of their own: see `Optimizer`.
    lr : float, default 2e-3
        Learning rate, at least 0.
    betas : pair of float in [0, 1), default (0.9, 0.999)
        Decay rates of the running means of the gradient and of its square.
    eps : float, default 1e-8
        Added to the root of the mean square, to avoid a division by 0.
    weight_decay : float, default 0
        Factor λ of the penalty (λ/2)·‖θ‖² that is added to the loss.
    momentum_decay : float, default 4e-3
        How fast the momentum μ rises to β₁, at least 0.
    decoupled_weight_decay : bool, default False
        Whether the weights decay directly, as in `AdamW`, and not as part of the gradient.
    maximize : bool, default False
        Whether the gradient is followed upwards.

    Raises
    ------
    ValueError
        If an option is out of range.

    Notes
    -----
    With parameter θ, gradient g and step t = 1, 2, …, and Π_t the product of μ₁, …, μ_t, as in
    PyTorch::

        μ_t = β₁ (1 - 0.96^(t · momentum_decay) / 2)
        m ← β₁ m + (1 - β₁) g
        v ← β₂ v + (1 - β₂) g²
        d = √(v / (1 - β₂ᵗ)) + eps
        θ ← θ - lr · ((1 - μ_t) / (1 - Π_t) · g + μ_(t+1) / (1 - Π_(t+1)) · m) / d

    The products are computed from the options of each step. Where betas or momentum_decay are
    changed during a run, PyTorch keeps the factors of earlier steps as they were.

    References
    ----------
    T. Dozat, "Incorporating Nesterov momentum into Adam", ICLR workshop 2016.

    Examples
    --------
    >>> import nnlite as nn
    >>> p = nn.Parameter([1.0, 2.0])
    >>> optimizer = nn.NAdam([p], lr=0.1)
    >>> p.accumulate([0.5, -20.0])
    >>> optimizer.step()
    >>> p.data.round(4)
    array([0.8944, 2.1056], dtype=float32)
    """

    def __init__(
        self,
        params: Iterable[Parameter] | Iterable[Mapping[str, Any]],
        lr: float = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum_decay: float = 4e-3,
        decoupled_weight_decay: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(
            params,
            {
                "lr": lr,
                "betas": betas,
                "eps": eps,
                "weight_decay": weight_decay,
                "momentum_decay": momentum_decay,
                "decoupled_weight_decay": decoupled_weight_decay,
                "maximize": maximize,
            },
        )

    def check(self, group: dict[str, Any]) -> None:
        super().check(group)
        group["momentum_decay"] = number(group["momentum_decay"], "NAdam: momentum_decay", 0)

    def update(
        self, group: dict[str, Any], step: int, value: Array, grad: Array, *state: Array
    ) -> None:
        mean, square = state
        grad = self._decayed(group, value, grad)
        decay_moments(mean, square, grad, group["betas"])
        rates = nadam_rates(group, step)
        scale = np.sqrt(square)
        scale *= rates.correction
        scale += group["eps"]
        value -= (rates.of_grad * grad + rates.of_mean * mean) / scale

    def state_dict(self) -> dict[str, Any]:
        """Return the state, with the product Π of each parameter, as PyTorch needs it."""
        state = super().state_dict()
        for group in state["param_groups"]:
            for index in set(group["params"]) & set(state["state"]):
                entry = state["state"][index]
                entry["mu_product"] = _product_of_momenta(group, entry["step"])
        return state


class NAdamRates(NamedTuple):
    """The factors of gradient, mean and root of the mean square in a step of `NAdam`."""

    of_grad: float
    of_mean: float
    correction: float


def nadam_rates(group: Mapping[str, Any], step: int) -> NAdamRates:
    """Return the factors of a step, after `step` steps."""
    second = group["betas"][1]
    lr = group["lr"]
    product = _product_of_momenta(group, step + 1)
    now, after = (float(_momenta(group, np.array(t))) for t in (step + 1, step + 2))
    return NAdamRates(
        lr * (1 - now) / (1 - product),
        lr * after / (1 - product * after),
        1 / math.sqrt(1 - second ** (step + 1)),
    )


def _product_of_momenta(group: Mapping[str, Any], count: int) -> float:
    first = group["betas"][0]
    if first:
        # Each factor is at most β₁: further ones no longer change 1 - product.
        count = min(count, math.ceil(math.log(1e-20) / math.log(first)))
    return float(_momenta(group, np.arange(1, count + 1)).prod())


def _momenta(group: Mapping[str, Any], t: Array) -> Array:
    momenta: Array = group["betas"][0] * (1 - 0.5 * 0.96 ** (t * group["momentum_decay"]))
    return momenta


class RAdam(_Adaptive):
    """Adam whose adaptive rates are rectified while their variance is still large.

    Parameters
    ----------
    params : iterable of Parameter, or iterable of dict
        ``model.parameters()``, or groups with options of their own: see `Optimizer`.
    lr : float, default 1e-3
        Learning rate, at least 0.
    betas : pair of float in [0, 1), default (0.9, 0.999)
        Decay rates of the running means of the gradient and of its square.
    eps : float, default 1e-8
        Added to the root of the mean square, to avoid a division by 0.
    weight_decay : float, default 0
        Factor λ of the penalty (λ/2)·‖θ‖² that is added to the loss.
    decoupled_weight_decay : bool, default False
        Whether the weights decay directly, as in `AdamW`, and not as part of the gradient.
    maximize : bool, default False
        Whether the gradient is followed upwards.

    Raises
    ------
    ValueError
        If an option is out of range.

    Notes
    -----
    With parameter θ, gradient g and step t = 1, 2, …, as in PyTorch::

        m ← β₁ m + (1 - β₁) g
        v ← β₂ v + (1 - β₂) g²
        ρ_∞ = 2 / (1 - β₂) - 1,     ρ = ρ_∞ - 2 t β₂ᵗ / (1 - β₂ᵗ)
        r = √((ρ - 4) (ρ - 2) ρ_∞ / ((ρ_∞ - 4) (ρ_∞ - 2) ρ))
        θ ← θ - lr · m / (1 - β₁ᵗ) · r √(1 - β₂ᵗ) / (√v + eps)      for ρ > 5
        θ ← θ - lr · m / (1 - β₁ᵗ)                                  before

    References
    ----------
    L. Liu et al., "On the variance of the adaptive learning rate and beyond", ICLR 2020.

    Examples
    --------
    >>> import nnlite as nn
    >>> p = nn.Parameter([1.0, 2.0])
    >>> optimizer = nn.RAdam([p], lr=0.1)
    >>> p.accumulate([0.5, -2.0])
    >>> optimizer.step()  # the first steps are those of the mean gradient
    >>> p.data
    array([0.95, 2.2 ], dtype=float32)
    """

    def __init__(
        self,
        params: Iterable[Parameter] | Iterable[Mapping[str, Any]],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        decoupled_weight_decay: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(
            params,
            {
                "lr": lr,
                "betas": betas,
                "eps": eps,
                "weight_decay": weight_decay,
                "decoupled_weight_decay": decoupled_weight_decay,
                "maximize": maximize,
            },
        )

    def update(
        self, group: dict[str, Any], step: int, value: Array, grad: Array, *state: Array
    ) -> None:
        mean, square = state
        change = decay_moments(mean, square, self._decayed(group, value, grad), group["betas"])
        rate, rectified = radam_rates(group, step)
        np.multiply(mean, rate, out=change)
        if rectified:
            change *= rectified
            change /= np.sqrt(square) + group["eps"]
        value -= change


def radam_rates(group: Mapping[str, Any], step: int) -> tuple[float, float]:
    """Return lr / (1 - β₁ᵗ) and r √(1 - β₂ᵗ) after `step` steps; 0 for the latter if ρ ≤ 5."""
    first, second = group["betas"]
    t = step + 1
    correction = 1 - second**t
    last = 2 / (1 - second) - 1
    rho = last - 2 * t * second**t / correction
    rectified = 0.0
    if rho > 5:
        ratio = (rho - 4) * (rho - 2) * last / ((last - 4) * (last - 2) * rho)
        rectified = math.sqrt(ratio * correction)
    return group["lr"] / (1 - first**t), rectified


class Lion(Optimizer):
    """Step by the sign of a momentum, so that every element moves by the learning rate.

    Parameters
    ----------
    params : iterable of Parameter, or iterable of dict
        ``model.parameters()``, or groups with options of their own: see `Optimizer`.
    lr : float, default 1e-4
        Learning rate, at least 0: a third to a tenth of that of `AdamW`.
    betas : pair of float in [0, 1), default (0.9, 0.99)
        How much of the mean is in a step, and its decay rate.
    weight_decay : float, default 0
        Weight decay λ: each step subtracts ``lr · λ · θ`` from the parameter θ.
    maximize : bool, default False
        Whether the gradient is followed upwards.

    Raises
    ------
    ValueError
        If an option is out of range.

    Notes
    -----
    With parameter θ and gradient g::

        θ ← θ - lr · weight_decay · θ
        θ ← θ - lr · sign(β₁ m + (1 - β₁) g)
        m ← β₂ m + (1 - β₂) g

    References
    ----------
    X. Chen et al., "Symbolic discovery of optimization algorithms", NeurIPS 2023.

    Examples
    --------
    >>> import nnlite as nn
    >>> p = nn.Parameter([1.0, 2.0])
    >>> optimizer = nn.Lion([p], lr=0.1)
    >>> p.accumulate([0.5, -20.0])
    >>> optimizer.step()
    >>> p.data
    array([0.9, 2.1], dtype=float32)
    """

    state_names = ("exp_avg",)

    def __init__(
        self,
        params: Iterable[Parameter] | Iterable[Mapping[str, Any]],
        lr: float = 1e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(
            params, {"lr": lr, "betas": betas, "weight_decay": weight_decay, "maximize": maximize}
        )

    def check(self, group: dict[str, Any]) -> None:
        super().check(group)
        group["betas"] = checked_betas(group["betas"], "Lion")
        group["weight_decay"] = number(group["weight_decay"], "Lion: weight_decay", minimum=0)

    def update(
        self, group: dict[str, Any], step: int, value: Array, grad: Array, *state: Array
    ) -> None:
        (mean,) = state
        first, second = group["betas"]
        if group["weight_decay"]:
            value *= 1 - group["lr"] * group["weight_decay"]
        value -= group["lr"] * np.sign(first * mean + (1 - first) * grad)
        mean *= second
        mean += (1 - second) * grad
