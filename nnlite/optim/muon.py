"""``Muon``: steps of the momentum of a matrix, made orthogonal."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from ..checks import boolean, integer, number, one_of
from ..engine.arrays import Array
from ..engine.blas import product, vdot
from ..parameter import Parameter
from .base import Optimizer


class Muon(Optimizer):
    """Momentum, orthogonalised by Newton-Schulz iterations: for the matrices of hidden layers.

    Parameters
    ----------
    params : iterable of Parameter, or iterable of dict
        Matrices. Biases, embeddings and the last layer are for another optimizer, such as `AdamW`.
    lr : float, default 1e-3
        Learning rate, at least 0.
    weight_decay : float, default 0.1
        Weight decay λ: each step subtracts ``lr · λ · θ`` from the parameter θ.
    momentum : float in [0, 1], default 0.95
        Decay rate of the running mean of the gradient.
    nesterov : bool, default True
        Whether to use Nesterov momentum.
    ns_coefficients : three floats, default (3.4445, -4.775, 2.0315)
        Coefficients a, b and c of the iteration.
    eps : float, default 1e-7
        The smallest norm that a direction is divided by.
    ns_steps : int, default 5
        Number of iterations.
    adjust_lr_fn : {"original", "match_rms_adamw"}, optional
        How the learning rate depends on the shape (A, B) of a matrix: √max(1, A/B) times it, also
        by default; or 0.2 √max(A, B) times it, so that steps are as long as those of `AdamW`.

    Raises
    ------
    ValueError
        If an option is out of range, or a parameter is no matrix.

    Notes
    -----
    With parameter θ and gradient g::

        m ← momentum · m + (1 - momentum) · g
        u = m                                   or, with nesterov, momentum · m + (1 - momentum) · g
        X = u / ‖u‖,   then ns_steps times   X ← a X + (b S + c S²) X   with S = X Xᵀ
        θ ← θ - lr · weight_decay · θ
        θ ← θ - lr(A, B) · X

    With the singular value decomposition u = U S Vᵀ, X is about U Vᵀ: each singular value moves to
    an interval around 1. PyTorch iterates in bfloat16, of three decimal digits, and this in the
    dtype of the parameter.

    References
    ----------
    K. Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024.
    J. Liu et al., "Muon is scalable for LLM training", 2025.

    Examples
    --------
    >>> import nnlite as nn
    >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU())
    >>> matrices = [p for p in model.parameters() if len(p.shape) == 2]
    >>> vectors = [p for p in model.parameters() if len(p.shape) == 1]
    >>> optimizers = [nn.Muon(matrices, lr=0.02), nn.AdamW(vectors)]
    """

    state_names = ("momentum_buffer",)
    by_parameter = True

    def __init__(
        self,
        params: Iterable[Parameter] | Iterable[Mapping[str, Any]],
        lr: float = 1e-3,
        weight_decay: float = 0.1,
        momentum: float = 0.95,
        nesterov: bool = True,
        ns_coefficients: tuple[float, float, float] = (3.4445, -4.7750, 2.0315),
        eps: float = 1e-7,
        ns_steps: int = 5,
        adjust_lr_fn: str | None = None,
    ) -> None:
        super().__init__(
            params,
            {
                "lr": lr,
                "weight_decay": weight_decay,
                "momentum": momentum,
                "nesterov": nesterov,
                "ns_coefficients": ns_coefficients,
                "eps": eps,
                "ns_steps": ns_steps,
                "adjust_lr_fn": adjust_lr_fn,
            },
        )

    def check(self, group: dict[str, Any]) -> None:
        super().check(group)
        group["weight_decay"] = number(group["weight_decay"], "Muon: weight_decay", minimum=0)
        group["momentum"] = number(group["momentum"], "Muon: momentum", 0, 1)
        group["nesterov"] = boolean(group["nesterov"], "Muon: nesterov")
        group["eps"] = number(group["eps"], "Muon: eps", minimum=0)
        group["ns_steps"] = integer(group["ns_steps"], "Muon: ns_steps")
        coefficients = group["ns_coefficients"]
        if not isinstance(coefficients, (tuple, list)) or len(coefficients) != 3:
            raise ValueError(f"Muon: ns_coefficients must be three numbers, got {coefficients!r}")
        group["ns_coefficients"] = tuple(
            number(value, "Muon: each of ns_coefficients") for value in coefficients
        )
        if group["adjust_lr_fn"] is not None:
            one_of(group["adjust_lr_fn"], ("original", "match_rms_adamw"), "Muon: adjust_lr_fn")
        for parameter in group["params"]:
            if len(parameter.shape) != 2:
                raise ValueError(
                    f"Muon: expected matrices, got a parameter of shape {parameter.shape}; give "
                    f"biases and other parameters to another optimizer, such as AdamW"
                )

    def update(
        self, group: dict[str, Any], step: int, value: Array, grad: Array, *state: Array
    ) -> None:
        (mean,) = state
        momentum = group["momentum"]
        mean += (1 - momentum) * (grad - mean)
        direction = grad + momentum * (mean - grad) if group["nesterov"] else mean
        rows, columns = value.shape
        ratio = math.sqrt(max(1, rows / columns))
        if group["adjust_lr_fn"] == "match_rms_adamw":
            ratio = 0.2 * math.sqrt(max(rows, columns))
        value *= 1 - group["lr"] * group["weight_decay"]
        value -= (group["lr"] * ratio) * orthogonalized(
            direction, group["ns_coefficients"], group["ns_steps"], group["eps"]
        )


def orthogonalized(
    matrix: Array, coefficients: tuple[float, float, float], steps: int, eps: float
) -> Array:
    """Return the matrix with singular values near 1, by Newton-Schulz iterations."""
    a, b, c = coefficients
    x = matrix / max(math.sqrt(vdot(matrix, matrix)), eps)
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x  # the smaller of both products X Xᵀ
    for _ in range(steps):
        s = product(x, x.T)
        x = a * x + product(b * s + c * product(s, s), x)
    return x.T if tall else x
