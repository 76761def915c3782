"""The usual optimizers that scale each step: Adam, AdamW, RMSprop and Adagrad, as in PyTorch."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from ..checks import boolean, fraction, number
from ..engine.arrays import Array
from ..parameter import Parameter
from .base import Optimizer


class Adam(Optimizer):
    """Adaptive moment estimation: steps scaled by running means of the gradient and its square.

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
        Factor λ of the penalty (λ/2)·‖θ‖² that is added to the loss; `AdamW` decays the weights
        directly.
    amsgrad : bool, default False
        Whether the largest mean square so far takes the place of the mean square. It cannot be
        switched on later.
    maximize : bool, default False
        Whether the gradient is followed upwards.

    Raises
    ------
    ValueError
        If an option is out of range.

    Notes
    -----
    With parameter θ, gradient g and step t = 1, 2, …, as in PyTorch::

        g ← g + weight_decay · θ
        m ← β₁ m + (1 - β₁) g
        v ← β₂ v + (1 - β₂) g²
        θ ← θ - lr · (m / (1 - β₁ᵗ)) / (√(v / (1 - β₂ᵗ)) + eps)

    With `amsgrad`, the maximum of v over all steps takes the place of v in the last line.

    References
    ----------
    D. Kingma, J. Ba, "Adam: a method for stochastic optimization", ICLR 2015. S. Reddi, S. Kale,
    S. Kumar, "On the convergence of Adam and beyond", ICLR 2018 (amsgrad).

    Examples
    --------
    >>> import nnlite as nn
    >>> p = nn.Parameter([1.0, 2.0])
    >>> optimizer = nn.Adam([p], lr=0.1)
    >>> p.accumulate([0.5, -20.0])
    >>> optimizer.step()  # the first step is lr long, whatever the gradient
    >>> p.data
    array([0.9, 2.1], dtype=float32)
    """

    state_names: tuple[str, ...] = ("exp_avg", "exp_avg_sq")

    def __init__(
        self,
        params: Iterable[Parameter] | Iterable[Mapping[str, Any]],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        if amsgrad is True:
            self.state_names = (*Adam.state_names, "max_exp_avg_sq")
        super().__init__(
            params,
            {
                "lr": lr,
                "betas": betas,
                "eps": eps,
                "weight_decay": weight_decay,
                "amsgrad": amsgrad,
                "maximize": maximize,
            },
        )

    def check(self, group: dict[str, Any]) -> None:
        super().check(group)
        for name in ("eps", "weight_decay"):
            group[name] = number(group[name], f"{self._name}: {name}", minimum=0)
        group["betas"] = checked_betas(group["betas"], self._name)
        group["amsgrad"] = boolean(group["amsgrad"], f"{self._name}: amsgrad")
        if group["amsgrad"] and "max_exp_avg_sq" not in self.state_names:
            raise ValueError(
                f"{self._name}: amsgrad cannot be switched on in a group alone or later; make the "
                f"optimizer with amsgrad=True"
            )

    def update(
        self, group: dict[str, Any], step: int, value: Array, grad: Array, *state: Array
    ) -> None:
        if group["weight_decay"]:
            grad = grad + group["weight_decay"] * value
        self._move(group, step, value, grad, *state)

    def _move(
        self,
        group: dict[str, Any],
        step: int,
        value: Array,
        grad: Array,
        mean: Array,
        square: Array,
        *largest: Array,
    ) -> None:
        first, second = group["betas"]
        change = decay_moments(mean, square, grad, group["betas"])
        if group["amsgrad"]:
            square = np.maximum(largest[0], square, out=largest[0])
        np.sqrt(square, out=change)
        change *= 1 / math.sqrt(1 - second ** (step + 1))
        change += group["eps"]
        np.divide(mean, change, out=change)
        change *= group["lr"] / (1 - first ** (step + 1))
        value -= change


class AdamW(Adam):
    """Adam with decoupled weight decay, which is not part of the gradient.

    Parameters
    ----------
    params, lr, betas, eps, amsgrad, maximize
        As for `Adam`.
    weight_decay : float, default 0.01
        Weight decay λ: each step subtracts ``lr · λ · θ`` from the parameter θ.

    Notes
    -----
    `Adam` adds ``weight_decay · θ`` to the gradient. Here each step begins with::

        θ ← θ - lr · weight_decay · θ

    References
    ----------
    I. Loshchilov, F. Hutter, "Decoupled weight decay regularization", ICLR 2019.

    Examples
    --------
    >>> import nnlite as nn
    >>> p = nn.Parameter([1.0])
    >>> optimizer = nn.AdamW([p], lr=0.1, weight_decay=0.5)
    >>> p.accumulate([0.0])
    >>> optimizer.step()
    >>> p.data  # 1 - 0.1 · 0.5
    array([0.95], dtype=float32)
    """

    _implied: Mapping[str, Any] = {"decoupled_weight_decay": True}

    def __init__(
        self,
        params: Iterable[Parameter] | Iterable[Mapping[str, Any]],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay, amsgrad, maximize=maximize)

    def update(
        self, group: dict[str, Any], step: int, value: Array, grad: Array, *state: Array
    ) -> None:
        if group["weight_decay"]:
            value *= 1 - group["lr"] * group["weight_decay"]
        self._move(group, step, value, grad, *state)


class RMSprop(Optimizer):
    """Divide the gradient by the root of its running mean square.

    Parameters
    ----------
    params : iterable of Parameter, or iterable of dict
        ``model.parameters()``, or groups with options of their own: see `Optimizer`.
    lr : float, default 1e-2
        Learning rate, at least 0.
    alpha : float in [0, 1), default 0.99
        Decay rate of the running mean of the squared gradient.
    eps : float, default 1e-8
        Added to the root, to avoid a division by 0.
    weight_decay : float, default 0
        Factor λ of the penalty (λ/2)·‖θ‖² that is added to the loss.
    momentum : float, default 0
        Momentum factor, at least 0.
    centered : bool, default False
        Whether to divide by the standard deviation of the gradient instead of its root mean square.
    maximize : bool, default False
        Whether the gradient is followed upwards.

    Raises
    ------
    ValueError
        If an option is out of range.

    Notes
    -----
    With parameter θ and gradient g, as in PyTorch::

        g ← g + weight_decay · θ
        v ← alpha · v + (1 - alpha) · g²
        a ← alpha · a + (1 - alpha) · g                    if centered
        d ← √v + eps                                       or √max(v - a², 0) + eps, if centered
        b ← momentum · b + g / d
        θ ← θ - lr · b

    References
    ----------
    G. Hinton, "Neural networks for machine learning", lecture 6e, 2012.

    Examples
    --------
    >>> import nnlite as nn
    >>> p = nn.Parameter([1.0])
    >>> optimizer = nn.RMSprop([p], lr=0.01)
    >>> p.accumulate([3.0])
    >>> optimizer.step()  # 3 / √(0.01 · 3²) is 10
    >>> p.data
    array([0.9], dtype=float32)
    """

    state_names = ("square_avg", "grad_avg", "momentum_buffer")

    def __init__(
        self,
        params: Iterable[Parameter] | Iterable[Mapping[str, Any]],
        lr: float = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
        centered: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(
            params,
            {
                "lr": lr,
                "alpha": alpha,
                "eps": eps,
                "weight_decay": weight_decay,
                "momentum": momentum,
                "centered": centered,
                "maximize": maximize,
            },
        )

    def check(self, group: dict[str, Any]) -> None:
        super().check(group)
        group["alpha"] = fraction(group["alpha"], "RMSprop: alpha")
        for name in ("eps", "weight_decay", "momentum"):
            group[name] = number(group[name], f"RMSprop: {name}", minimum=0)
        group["centered"] = boolean(group["centered"], "RMSprop: centered")

    def update(
        self, group: dict[str, Any], step: int, value: Array, grad: Array, *state: Array
    ) -> None:
        square, mean, buffer = state
        alpha = group["alpha"]
        if group["weight_decay"]:
            grad = grad + group["weight_decay"] * value
        square *= alpha
        square += (1 - alpha) * (grad * grad)
        variance = square
        if group["centered"]:
            mean += (1 - alpha) * (grad - mean)
            variance = square - mean * mean
            np.maximum(variance, 0, out=variance)  # rounding may leave it below 0
        scale = np.sqrt(variance)
        scale += group["eps"]
        change = grad / scale
        if group["momentum"]:
            buffer *= group["momentum"]
            buffer += change
            change = buffer
        value -= group["lr"] * change


class Adagrad(Optimizer):
    """Divide the gradient by the root of the sum of all its squares.

    Parameters
    ----------
    params : iterable of Parameter, or iterable of dict
        ``model.parameters()``, or groups with options of their own: see `Optimizer`.
    lr : float, default 1e-2
        Learning rate, at least 0.
    lr_decay : float, default 0
        Decay of the learning rate with the number of steps, at least 0.
    weight_decay : float, default 0
        Factor λ of the penalty (λ/2)·‖θ‖² that is added to the loss.
    initial_accumulator_value : float, default 0
        The sum of squares before the first step.
    eps : float, default 1e-10
        Added to the root, to avoid a division by 0.
    maximize : bool, default False
        Whether the gradient is followed upwards.

    Raises
    ------
    ValueError
        If an option is out of range.

    Notes
    -----
    With parameter θ, gradient g and step t = 0, 1, …, as in PyTorch::

        g ← g + weight_decay · θ
        s ← s + g²
        θ ← θ - lr / (1 + t · lr_decay) · g / (√s + eps)

    References
    ----------
    J. Duchi, E. Hazan, Y. Singer, "Adaptive subgradient methods for online learning and stochastic
    optimization", JMLR 12, 2011.

    Examples
    --------
    >>> import nnlite as nn
    >>> p = nn.Parameter([1.0, 2.0])
    >>> optimizer = nn.Adagrad([p], lr=0.1)
    >>> p.accumulate([0.5, -20.0])
    >>> optimizer.step()  # the first step is lr long, whatever the gradient
    >>> p.data
    array([0.9, 2.1], dtype=float32)
    """

    state_names = ("sum",)

    def __init__(
        self,
        params: Iterable[Parameter] | Iterable[Mapping[str, Any]],
        lr: float = 1e-2,
        lr_decay: float = 0.0,
        weight_decay: float = 0.0,
        initial_accumulator_value: float = 0.0,
        eps: float = 1e-10,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(
            params,
            {
                "lr": lr,
                "lr_decay": lr_decay,
                "weight_decay": weight_decay,
                "initial_accumulator_value": initial_accumulator_value,
                "eps": eps,
                "maximize": maximize,
            },
        )

    def check(self, group: dict[str, Any]) -> None:
        super().check(group)
        for name in ("lr_decay", "weight_decay", "initial_accumulator_value", "eps"):
            group[name] = number(group[name], f"Adagrad: {name}", minimum=0)

    def update(
        self, group: dict[str, Any], step: int, value: Array, grad: Array, *state: Array
    ) -> None:
        (total,) = state
        if group["weight_decay"]:
            grad = grad + group["weight_decay"] * value
        if step == 0:
            total[...] = group["initial_accumulator_value"]
        total += grad * grad
        scale = np.sqrt(total)
        scale += group["eps"]
        value -= group["lr"] / (1 + step * group["lr_decay"]) * (grad / scale)


def checked_betas(betas: Any, name: str) -> tuple[float, float]:
    """Return a pair of decay rates in [0, 1), or raise an error."""
    try:
        first, second = betas
    except (TypeError, ValueError):
        raise TypeError(f"{name}: betas must be a pair of numbers, got {betas!r}") from None
    return (
        fraction(first, f"{name}: the first of betas"),
        fraction(second, f"{name}: the second of betas"),
    )


def decay_moments(mean: Array, square: Array, grad: Array, betas: tuple[float, float]) -> Array:
    """Let a gradient into the running means of it and of its square, in place.

    Returns
    -------
    ndarray
        An array of the same shape, to be overwritten.
    """
    first, second = betas
    change = grad - mean
    # Both branches are the same formula; each is the one with the smaller rounding error.
    if first > 0.5:
        change *= 1 - first
        mean += change
    else:
        change *= first
        np.subtract(grad, change, out=mean)
    np.multiply(grad, grad, out=change)
    change *= 1 - second
    square *= second
    square += change
    return change
