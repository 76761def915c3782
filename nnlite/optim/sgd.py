"""``SGD``: gradient descent, with momentum."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ..checks import boolean, number
from ..engine.arrays import Array
from ..parameter import Parameter
from .base import Optimizer


class SGD(Optimizer):
    """Stochastic gradient descent, with momentum, Nesterov's variant and weight decay.

    Parameters
    ----------
    params : iterable of Parameter, or iterable of dict
        ``model.parameters()``, or groups with options of their own: see `Optimizer`.
    lr : float, default 1e-3
        Learning rate, at least 0.
    momentum : float, default 0
        Momentum factor, at least 0.
    dampening : float, default 0
        Dampening of the gradient in the direction: it is multiplied by ``1 - dampening``.
    weight_decay : float, default 0
        Factor λ of the penalty (λ/2)·‖θ‖² that is added to the loss, at least 0.
    nesterov : bool, default False
        Whether to use Nesterov momentum.
    maximize : bool, default False
        Whether the gradient is followed upwards.

    Raises
    ------
    ValueError
        If an option is out of range, or if `nesterov` is used without momentum or with dampening.

    Notes
    -----
    With parameter θ, gradient g, direction v and step t, as in PyTorch::

        g ← g + weight_decay · θ
        v ← g                                     for t = 0
        v ← momentum · v + (1 - dampening) · g    for t > 0
        θ ← θ - lr · v                            or, with nesterov, θ - lr · (g + momentum · v)

    References
    ----------
    I. Sutskever, J. Martens, G. Dahl, G. Hinton, "On the importance of initialization and momentum
    in deep learning", ICML 2013.

    Examples
    --------
    >>> import nnlite as nn
    >>> p = nn.Parameter([1.0, 2.0])
    >>> optimizer = nn.SGD([p], lr=0.1)
    >>> p.accumulate([1.0, -1.0])
    >>> optimizer.step()
    >>> p.data
    array([0.9, 2.1], dtype=float32)
    """

    state_names = ("momentum_buffer",)

    def __init__(
        self,
        params: Iterable[Parameter] | Iterable[Mapping[str, Any]],
        lr: float = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(
            params,
            {
                "lr": lr,
                "momentum": momentum,
                "dampening": dampening,
                "weight_decay": weight_decay,
                "nesterov": nesterov,
                "maximize": maximize,
            },
        )

    def check(self, group: dict[str, Any]) -> None:
        super().check(group)
        for name in ("momentum", "weight_decay"):
            group[name] = number(group[name], f"SGD: {name}", minimum=0)
        group["dampening"] = number(group["dampening"], "SGD: dampening")
        group["nesterov"] = boolean(group["nesterov"], "SGD: nesterov")
        if group["nesterov"] and (not group["momentum"] or group["dampening"]):
            raise ValueError("SGD: nesterov needs a momentum above 0 and a dampening of 0")

    def counts(self, group: dict[str, Any]) -> bool:
        return bool(group["momentum"])  # the direction starts at the first step with momentum

    def update(
        self, group: dict[str, Any], step: int, value: Array, grad: Array, *state: Array
    ) -> None:
        (direction,) = state
        momentum = group["momentum"]
        if group["weight_decay"]:
            grad = grad + group["weight_decay"] * value
        if momentum:
            if step == 0:
                direction[...] = grad
            else:
                direction *= momentum
                direction += grad if not group["dampening"] else (1 - group["dampening"]) * grad
            grad = grad + momentum * direction if group["nesterov"] else direction
        value -= group["lr"] * grad
