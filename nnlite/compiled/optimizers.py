"""The update rules of the optimizers, element by element."""

from __future__ import annotations

import ast
import math
import textwrap
from collections.abc import Callable
from typing import Any, NamedTuple

import nnlite as nn

from ..optim.base import Run
from .forms import form, form_of

Options = dict[str, Any]


class Rule(NamedTuple):
    """The compiled form of an optimizer.

    Attributes
    ----------
    text : callable
        ``text(group)`` returns the statements for one element ``i`` of ``value``, ``grad`` and
        the arrays of the state. They depend on which options are 0 alone.
    scalars : callable
        ``scalars(group, step)`` returns the numbers that the statements use, by name.
    """

    text: Callable[[Options], str]
    scalars: Callable[[Options, int], dict[str, float]]


class Update:
    """The part of a step that moves the parameters of `runs`, after clipping to `max_norm`."""

    def __init__(self, optimizer: nn.Optimizer, runs: list[Run], max_norm: float | None) -> None:
        self.rule: Rule = form_of(optimizer)()
        self.runs = runs
        self.steps = [run.step for run in runs]
        self.flags = [_flags(run.group) for run in runs]
        self.arrays: dict[str, Any] = {}
        self.lines = [] if max_norm is None else _clipping(len(runs), max_norm)
        title = f"\n# {type(optimizer).__name__}"
        for index, run in enumerate(runs):
            arrays = dict(zip(optimizer.state_names, run.state, strict=True))
            arrays |= {"value": run.value, "grad": run.grad}
            self.arrays |= {f"group{index}_{name}": array for name, array in arrays.items()}
            text = self.rule.text(run.group)
            used = {n.id for n in ast.walk(ast.parse(text)) if isinstance(n, ast.Name)}
            numbers = self.rule.scalars(run.group, run.step)
            self.lines.append(title if len(runs) == 1 else f"{title}: group {index}")
            self.lines += [f"{name} = group{index}_{name}" for name in arrays if name in used]
            self.lines += [
                f"{name} = real(group{index}_{name})" for name in numbers if name in used
            ]
            self.lines.append(f"for i in range(value.size):\n{textwrap.indent(text, '    ')}")

    def scalars(self) -> dict[str, float]:
        """Return the numbers of the next step, by their names in the source."""
        return {
            f"group{index}_{name}": float(number)
            for index, (run, step) in enumerate(zip(self.runs, self.steps, strict=True))
            for name, number in self.rule.scalars(run.group, step).items()
        }

    def advance(self, optimizer: nn.Optimizer) -> None:
        """Count a step."""
        for index, run in enumerate(self.runs):
            self.steps[index] += optimizer.counts(run.group)

    def fits(self) -> bool:
        """Whether the same options are 0 as when the text was written."""
        return self.flags == [_flags(run.group) for run in self.runs]


def _flags(group: Options) -> list[bool]:
    return [bool(value) for name, value in group.items() if name not in ("params", "lr")]


def _clipping(runs: int, max_norm: float) -> list[str]:
    squares = " + ".join(f"np.dot(group{run}_grad, group{run}_grad)" for run in range(runs))
    lines = [f"\n# gradients of a norm above {max_norm:g} are scaled to it"]
    lines.append(f"norm = math.sqrt({squares})")
    # The squares of a float32 leave its range long before the float32 does.
    lines.append("if norm == 0 or not math.isfinite(norm):\n    square = 0.0")
    lines += [
        f"    for i in range(group{run}_grad.size):\n"
        f"        square += float(group{run}_grad[i]) ** 2"
        for run in range(runs)
    ]
    lines.append("    norm = math.sqrt(square)")
    fault = "raise ValueError('clip_grad_norm: the norm of the gradients is not finite')"
    lines.append(f"if not math.isfinite(norm):\n    {fault}")
    lines.append(f"if norm > {max_norm!r}:")
    lines += [f"    group{run}_grad[:] *= real({max_norm!r} / norm)" for run in range(runs)]
    return lines


def _gradient(group: Options) -> str:
    return "grad[i] + weight_decay * value[i]" if group["weight_decay"] else "grad[i]"


@form(nn.SGD)
def sgd() -> Rule:
    """V ← momentum v + keep g, θ ← θ - lr v; in the first step v ← g."""

    def text(group: Options) -> str:
        lines = [f"g = {_gradient(group)}"]
        if group["momentum"]:
            lines.append("v = decay * momentum_buffer[i] + keep * g")
            lines.append("momentum_buffer[i] = v")
            lines.append("g = g + momentum * v" if group["nesterov"] else "g = v")
        return "\n".join([*lines, "value[i] -= lr * g"])

    def scalars(group: Options, step: int) -> dict[str, float]:
        momentum = group["momentum"]
        return {
            "lr": group["lr"],
            "weight_decay": group["weight_decay"],
            "momentum": momentum,
            "decay": momentum if step else 0.0,
            "keep": 1 - group["dampening"] if step else 1.0,
        }

    return Rule(text, scalars)


_MOMENTS = """\
mean = exp_avg[i] + rest1 * (g - exp_avg[i])
square = beta2 * exp_avg_sq[i] + rest2 * g * g
exp_avg[i] = mean
exp_avg_sq[i] = square
value[i] -= rate * mean / (math.sqrt(square) * correction + eps)"""


def _moment_scalars(group: Options, step: int) -> dict[str, float]:
    first, second = group["betas"]
    return {
        "lr": group["lr"],
        "weight_decay": group["weight_decay"],
        "rest1": 1 - first,
        "beta2": second,
        "rest2": 1 - second,
        "eps": group["eps"],
        "rate": group["lr"] / (1 - first ** (step + 1)),
        "correction": 1 / math.sqrt(1 - second ** (step + 1)),
    }


@form(nn.Adam)
def adam() -> Rule:
    """M and v are the decayed means of g and g²; θ ← θ - rate m / (√v correction + eps)."""
    return Rule(lambda group: f"g = {_gradient(group)}\n{_MOMENTS}", _moment_scalars)


@form(nn.AdamW)
def adamw() -> Rule:
    """As Adam, after θ ← θ - lr · weight_decay · θ."""

    def text(group: Options) -> str:
        decay = "value[i] *= real(1) - lr * weight_decay\n" if group["weight_decay"] else ""
        return f"{decay}g = grad[i]\n{_MOMENTS}"

    return Rule(text, _moment_scalars)


@form(nn.RMSprop)
def rmsprop() -> Rule:
    """V and a are the decayed means of g² and g; θ ← θ - lr g / (√(v - a²) + eps)."""

    def text(group: Options) -> str:
        lines = [f"g = {_gradient(group)}", "square = alpha * square_avg[i] + rest * g * g"]
        lines.append("square_avg[i] = square")
        if group["centered"]:
            lines.append("grad_avg[i] += rest * (g - grad_avg[i])")
            lines.append("square -= grad_avg[i] * grad_avg[i]")
        lines.append("change = g / (math.sqrt(square) + eps)")
        if group["momentum"]:
            lines.append("change = momentum * momentum_buffer[i] + change")
            lines.append("momentum_buffer[i] = change")
        return "\n".join([*lines, "value[i] -= lr * change"])

    def scalars(group: Options, step: int) -> dict[str, float]:
        return {
            "lr": group["lr"],
            "alpha": group["alpha"],
            "rest": 1 - group["alpha"],
            "eps": group["eps"],
            "weight_decay": group["weight_decay"],
            "momentum": group["momentum"],
        }

    return Rule(text, scalars)
