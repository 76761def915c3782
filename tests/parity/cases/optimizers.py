"""Optimizers compared with those of ``torch.optim``, over hundreds of steps."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

import nnlite as nn

from ..case import OptimizerCase


def _of_torch(torch: Any, name: str, params: Any, **options: Any) -> Any:
    optimizer = getattr(torch.optim, name)(params, **options)
    if name == "NAdam":
        # PyTorch keeps the product of the momenta in float32, also for parameters of float64.
        for group in optimizer.param_groups:
            for p in group["params"]:
                optimizer.state[p] = {
                    "step": torch.tensor(0.0),
                    "mu_product": torch.ones((), dtype=p.dtype),
                    "exp_avg": torch.zeros_like(p),
                    "exp_avg_sq": torch.zeros_like(p),
                }
    return optimizer


def optimizer(name: str, dtype: str = "float64", **options: Any) -> OptimizerCase:
    """Compare the optimizers of the same name and options."""
    listed = ", ".join(f"{key}={value}" for key, value in options.items())
    return OptimizerCase(
        f"{name}({listed}), {dtype}",
        optimizer=lambda params: getattr(nn, name)(params, **options),
        torch_optimizer=lambda torch, params: _of_torch(torch, name, params, **options),
        dtype=dtype,
    )


def _halve(optimizer: Any, step: int) -> None:
    if step % 50 == 5:
        for group in optimizer.param_groups:
            group["lr"] /= 2


def _begin_momentum(optimizer: Any, step: int) -> None:
    if step == 4:
        optimizer.param_groups[0].update(momentum=0.9, dampening=0.3)


def _groups(params: list[Any]) -> list[dict[str, Any]]:
    return [
        {"params": params[:1], "lr": 0.05, "weight_decay": 0.0},
        {"params": params[1:], "nesterov": True},
    ]


def _no_decay_of_biases(params: list[Any]) -> list[dict[str, Any]]:
    return [
        {"params": params[:1], "weight_decay": 0.1},
        {"params": params[1:2], "lr": 0.002, "weight_decay": 0.0},
        {"params": params[2:], "lr": 0.02, "eps": 1e-4},
    ]


def groups(name: str, dtype: str = "float64", **options: Any) -> OptimizerCase:
    """Compare with groups of their own learning rates, of which the second is not decayed."""
    listed = ", ".join(f"{key}={value}" for key, value in options.items())
    return OptimizerCase(
        f"{name}({listed}) with groups, {dtype}",
        optimizer=lambda params: getattr(nn, name)(_no_decay_of_biases(params), **options),
        torch_optimizer=lambda torch, params: _of_torch(
            torch, name, _no_decay_of_biases(params), **options
        ),
        change=_halve,
        present=lambda index, step: (step + index) % 4 != 1,
        dtype=dtype,
    )


_momentum = {"lr": 0.1, "momentum": 0.9}

CASES = [
    optimizer("SGD", lr=0.1),
    optimizer("SGD", lr=0.1, weight_decay=0.05),
    optimizer("SGD", **_momentum),
    optimizer("SGD", **_momentum, dampening=0.5),
    optimizer("SGD", **_momentum, nesterov=True),
    optimizer("SGD", **_momentum, nesterov=True, weight_decay=0.05),
    optimizer("SGD", **_momentum, dampening=0.2, weight_decay=0.05),
    optimizer("SGD", lr=0.0, momentum=0.9),
    optimizer("SGD", dtype="float32", lr=0.1),
    optimizer("SGD", dtype="float32", **_momentum),
    optimizer("SGD", dtype="float32", **_momentum, nesterov=True, weight_decay=0.05),
    optimizer("SGD", dtype="float32", **_momentum, dampening=0.2, weight_decay=0.05),
    OptimizerCase(
        "SGD with a learning rate that falls",
        optimizer=lambda params: nn.SGD(params, **_momentum),
        torch_optimizer=lambda torch, params: torch.optim.SGD(params, **_momentum),
        change=_halve,
    ),
    OptimizerCase(
        "SGD with momentum that begins later",
        optimizer=lambda params: nn.SGD(params, lr=0.1),
        torch_optimizer=lambda torch, params: torch.optim.SGD(params, lr=0.1),
        change=_begin_momentum,
    ),
    OptimizerCase(
        "SGD with groups",
        optimizer=lambda params: nn.SGD(_groups(params), **_momentum, weight_decay=0.05),
        torch_optimizer=lambda torch, params: torch.optim.SGD(
            _groups(params), **_momentum, weight_decay=0.05
        ),
        change=_halve,
    ),
    OptimizerCase(
        "SGD with gradients that are missing now and then",
        optimizer=lambda params: nn.SGD(params, **_momentum, dampening=0.5, weight_decay=0.05),
        torch_optimizer=lambda torch, params: torch.optim.SGD(
            params, **_momentum, dampening=0.5, weight_decay=0.05
        ),
        present=lambda index, step: (step + index) % 3 != 1,
    ),
    *(
        optimizer(name, dtype, **options)
        for dtype in ("float64", "float32")
        for name in ("Adam", "AdamW")
        for options in (
            {"lr": 0.01},
            {"lr": 0.01, "betas": (0.5, 0.9), "eps": 1e-3, "weight_decay": 0.1},
        )
    ),
    *(
        optimizer("RMSprop", dtype, lr=0.01, **options)
        for dtype in ("float64", "float32")
        for options in (
            {},
            {"alpha": 0.9, "eps": 1e-3, "weight_decay": 0.1},
            {"momentum": 0.9},
            {"momentum": 0.5, "centered": True},
        )
    ),
    OptimizerCase(
        "Adam with gradients that are missing now and then",
        optimizer=lambda params: nn.Adam(params, lr=0.01),
        torch_optimizer=lambda torch, params: torch.optim.Adam(params, lr=0.01),
        change=_halve,
        present=lambda index, step: (step + index) % 3 != 1,
    ),
    *(
        optimizer(name, lr=0.01, maximize=True, weight_decay=3.0)
        for name in ("SGD", "Adam", "AdamW", "RMSprop", "Adagrad", "NAdam", "RAdam")
    ),
    *(
        optimizer(name, dtype, lr=0.01, betas=(0.5, 0.6), amsgrad=True)
        for name in ("Adam", "AdamW")
        for dtype in ("float64", "float32")
    ),
    *(
        optimizer("Adagrad", dtype, **options)
        for dtype in ("float64", "float32")
        for options in (
            {},
            {"lr": 0.1, "lr_decay": 0.1, "initial_accumulator_value": 0.5, "eps": 1e-3},
            {"lr": 0.1, "weight_decay": 0.1},
        )
    ),
    *(
        optimizer(name, dtype, lr=0.01, **options)
        for name in ("NAdam", "RAdam")
        for dtype in ("float64", "float32")
        for options in (
            {},
            {"betas": (0.5, 0.9), "eps": 1e-3, "weight_decay": 0.1},
            {"weight_decay": 0.1, "decoupled_weight_decay": True},
        )
    ),
    optimizer("NAdam", lr=0.01, momentum_decay=0.1),
    *(groups(name, lr=0.01) for name in ("Adagrad", "NAdam", "RAdam")),
    groups("Adam", lr=0.01),
    groups("AdamW", lr=0.01),
    groups("AdamW", "float32", lr=0.01),
    groups("RMSprop", lr=0.01, momentum=0.5),
]


_rates = st.floats(0, 0.2)
_decays = st.sampled_from([0.0, 0.05])
_dtypes = st.sampled_from(["float64", "float32"])


@st.composite
def _drawn_sgd(draw: st.DrawFn) -> OptimizerCase:
    momentum = draw(st.sampled_from([0.0, 0.5, 0.9]))
    nesterov = bool(momentum) and draw(st.booleans())
    return optimizer(
        "SGD",
        draw(_dtypes),
        lr=draw(_rates),
        momentum=momentum,
        dampening=0.0 if nesterov else draw(st.floats(0, 1)),
        weight_decay=draw(_decays),
        nesterov=nesterov,
    )


@st.composite
def _drawn_adam(draw: st.DrawFn) -> OptimizerCase:
    return optimizer(
        draw(st.sampled_from(["Adam", "AdamW"])),
        draw(_dtypes),
        lr=draw(_rates),
        betas=(draw(st.floats(0, 0.95)), draw(st.floats(0.5, 0.999))),
        eps=draw(st.sampled_from([1e-3, 1e-6])),
        weight_decay=draw(_decays),
        amsgrad=draw(st.booleans()),
    )


@st.composite
def _drawn_adagrad(draw: st.DrawFn) -> OptimizerCase:
    return optimizer(
        "Adagrad",
        draw(_dtypes),
        lr=draw(_rates),
        lr_decay=draw(st.floats(0, 0.1)),
        weight_decay=draw(_decays),
        initial_accumulator_value=draw(st.floats(0.1, 2)),
        maximize=draw(st.booleans()),
    )


@st.composite
def _drawn_adaptive(draw: st.DrawFn) -> OptimizerCase:
    return optimizer(
        draw(st.sampled_from(["NAdam", "RAdam"])),
        draw(_dtypes),
        lr=draw(st.floats(0, 0.05)),
        betas=(draw(st.floats(0, 0.95)), draw(st.floats(0.5, 0.999))),
        eps=draw(st.sampled_from([1e-2, 1e-3])),
        weight_decay=draw(_decays),
        decoupled_weight_decay=draw(st.booleans()),
    )


@st.composite
def _drawn_rmsprop(draw: st.DrawFn) -> OptimizerCase:
    return optimizer(
        "RMSprop",
        draw(_dtypes),
        lr=draw(st.floats(0, 0.02)),
        alpha=draw(st.floats(0.5, 0.99)),
        eps=draw(st.sampled_from([1e-2, 1e-3])),
        weight_decay=draw(_decays),
        momentum=draw(st.sampled_from([0.0, 0.5, 0.9])),
        centered=draw(st.booleans()),
    )


def drawn() -> st.SearchStrategy[OptimizerCase]:
    """Draw an optimizer with any options that go together."""
    return _drawn_sgd() | _drawn_adam() | _drawn_rmsprop() | _drawn_adagrad() | _drawn_adaptive()
