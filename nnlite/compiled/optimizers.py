"""The update rules of the optimizers, element by element."""

from __future__ import annotations

import ast
import math
import operator
import textwrap
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

import nnlite as nn

from ..optim.adaptive import nadam_rates, radam_rates
from ..optim.base import Run
from .forms import form, form_of
from .native import Native, Plain, functions_of
from .source import Code, function, header

Options = dict[str, Any]


class Rule(NamedTuple):
    """The compiled form of an optimizer.

    Attributes
    ----------
    text : callable
        ``text(group)`` returns the statements for one element ``i`` of ``value``, ``grad`` and
        the arrays of the state. They depend only on which options are 0.
    scalars : callable
        ``scalars(group, step)`` returns the numbers that the statements use, by name.
    settled : int or None
        The first step from which the numbers no longer depend on the step; None if they always do.
    """

    text: Callable[[Options], str]
    scalars: Callable[[Options, int], dict[str, float]]
    settled: int | None = 0


class Update:
    """The part of a step that moves the parameters that have a gradient, clipped to `max_norm`.

    With `keeps`, it copies what it moves.

    Attributes
    ----------
    lines : list of str
        The statements.
    names : list of str
        The numbers of the source, such as learning rates.
    arrays : dict of str to ndarray
        The arrays of the source.
    kept : list of (ndarray, ndarray)
        The arrays that it moves, and the copies.
    checks : list of str
        With `keeps`: statements that return False if a gradient is not finite.
    """

    def __init__(
        self,
        optimizer: nn.Optimizer,
        runs: list[Run],
        max_norm: float | None,
        keeps: bool = False,
    ) -> None:
        self._optimizer = optimizer
        self._rule: Rule = form_of(optimizer)()
        self._runs = runs
        self._groups = optimizer.checked_groups()
        self._flags = [_flags(group) for group in self._groups]
        self._steps = [run.step for run in runs]
        self._latest_step = optimizer.latest_step
        self._unsettled = self._places_unsettled()
        self._used: list[list[str]] = []
        self._numbers: list[float] | None = None  # until they are asked for
        self.names: list[str] = []
        self.arrays = _arrays(optimizer, runs)
        self.kept = [(run.value, np.empty_like(run.value)) for run in runs if keeps]
        self.arrays |= {f"group{i}_kept": copy for i, (_, copy) in enumerate(self.kept)}
        self.checks = _check(len(runs)) if keeps else []
        self.lines = _clipping(len(runs), max_norm) if max_norm and runs else []
        title = f"\n# {type(optimizer).__name__}"
        for index, run in enumerate(runs):
            arrays = [*optimizer.state_names, "value", "grad", "kept"]
            text = ("kept[i] = value[i]\n" if keeps else "") + self._rule.text(run.group)
            read = {n.id for n in ast.walk(ast.parse(text)) if isinstance(n, ast.Name)}
            numbers = [name for name in self._rule.scalars(run.group, run.step) if name in read]
            self._used.append(numbers)
            self.names += [f"group{index}_{name}" for name in numbers]
            self.lines.append(title if len(runs) == 1 else f"{title}: group {index}")
            self.lines += [f"{name} = group{index}_{name}" for name in arrays if name in read]
            self.lines += [f"{name} = real(group{index}_{name})" for name in numbers]
            self.lines.append(f"for i in range(value.size):\n{textwrap.indent(text, '    ')}")

    def numbers_of(self, groups: list[Options], steps: list[int]) -> list[float]:
        """Return the numbers for groups, given their steps so far, in the order of `names`."""
        numbers = []
        for group, step, used in zip(groups, steps, self._used, strict=True):
            scalars = self._rule.scalars(group, step)
            numbers += [float(scalars[name]) for name in used]
        return numbers

    def numbers(self, ahead: int = 0) -> list[float]:
        """Return the numbers of the step after `ahead` others, in the order of `names`."""
        if ahead:
            groups = [run.group for run in self._runs]
            counts = [ahead * self._optimizer.counts(group) for group in groups]
            return self.numbers_of(groups, [*map(operator.add, self._steps, counts)])
        if self._numbers is None:
            self._numbers = self.numbers_of([run.group for run in self._runs], self._steps)
        return self._numbers

    def advance(self) -> None:
        """Count a step."""
        optimizer = self._optimizer
        optimizer.advance()
        self._latest_step = optimizer.latest_step
        if self._unsettled:
            self._numbers = None
            for index in self._unsettled:
                self._steps[index] += 1
            if self._rule.settled is not None:
                self._unsettled = self._places_unsettled()

    def _places_unsettled(self) -> list[int]:
        """Return the places of the runs whose numbers the next step changes."""
        settled, counts = self._rule.settled, self._optimizer.counts
        return [
            index
            for index, (run, step) in enumerate(zip(self._runs, self._steps, strict=True))
            if (settled is None or step < settled) and counts(run.group)
        ]

    def is_current(self) -> bool:
        """Whether it fits, and no other steps were made meanwhile: a quick test."""
        optimizer = self._optimizer
        return optimizer.latest_step is self._latest_step and (
            optimizer.checked_groups() is self._groups or self.fits()
        )

    def is_overtaken(self) -> bool:
        """Whether the optimizer has counted other steps meanwhile."""
        return self._optimizer.latest_step is not self._latest_step

    def fits(self) -> bool:
        """Whether the same options are 0 as when the text was written."""
        groups = self._optimizer.checked_groups()
        if groups is self._groups:
            return True
        if [_flags(group) for group in groups] == self._flags:
            self._groups, self._numbers = groups, None
            self._unsettled = self._places_unsettled()
        return groups is self._groups


class CompiledUpdate:
    """The ``step`` of an optimizer as a native function.

    Attributes
    ----------
    source : str
        The source of the function that was written last.
    """

    def __init__(self, optimizer: nn.Optimizer, native: bool) -> None:
        form_of(optimizer)
        self._optimizer = optimizer
        self._native = native
        # By dtype and the options that are 0 in each run: the update, and its function by name.
        self._written: dict[Any, tuple[Update, Native | Plain]] = {}
        self.source = ""

    def __call__(self) -> None:
        """Move every parameter that has a gradient."""
        optimizer = self._optimizer
        runs = optimizer.runs()
        if runs:
            key = tuple((run.value.dtype, *_flags(run.group)) for run in runs)
            if key not in self._written:
                self._written[key] = self._write(runs)
            update, functions = self._written[key]
            numbers = update.numbers_of([run.group for run in runs], [run.step for run in runs])
            functions["update"](*numbers, *_arrays(optimizer, runs).values())
        optimizer.advance()

    def _write(self, runs: list[Run]) -> tuple[Update, Native | Plain]:
        update, dtype = Update(self._optimizer, runs, None), runs[0].value.dtype
        lines = [Code(dtype, False).resolved("\n".join(update.lines))]
        doc = "Move the parameters."
        body = function("update", [*update.names, *update.arrays], lines, doc)
        title = f"Step of {type(self._optimizer).__name__}"
        self.source = f"{header(title, dtype, body)}\n\n{body}"
        return update, functions_of(self.source, self._native)


def _arrays(optimizer: nn.Optimizer, runs: list[Run]) -> dict[str, Any]:
    """Return the arrays of the update by their names in the source."""
    return {
        f"group{index}_{name}": array
        for index, run in enumerate(runs)
        for name, array in zip(
            [*optimizer.state_names, "value", "grad"],
            [*run.state, run.value, run.grad],
            strict=True,
        )
    }


def _flags(group: Options) -> list[bool]:
    return [bool(value) for name, value in group.items() if name not in ("params", "lr")]


def _sum_of_squares(runs: int, kind: str) -> list[str]:
    """Return statements of the sum of the squares of all gradients, as numbers of a kind."""
    lines = [f"square = {kind}(0)"]
    for run in range(runs):
        lines.append(f"for i in range(group{run}_grad.size):")
        lines.append(f"    square += {kind}(group{run}_grad[i]) * {kind}(group{run}_grad[i])")
    return lines


def _check(runs: int) -> list[str]:
    """Return statements that return False if a gradient is not finite."""
    return [*_sum_of_squares(runs, "real"), "if not math.isfinite(square):\n    return False"]


def _clipping(runs: int, max_norm: float) -> list[str]:
    lines = [f"\n# gradients of a norm above {max_norm:g} are scaled to it"]
    # The square of a float32 leaves its range long before the float32 does.
    lines += _sum_of_squares(runs, "float")
    lines.append("norm = math.sqrt(square)")
    fault = "raise ValueError('clip_grad_norm: the norm of the gradients is not finite')"
    lines.append(f"if not math.isfinite(norm):\n    {fault}")
    lines.append(f"if norm > {max_norm!r}:")
    lines += [f"    group{run}_grad[:] *= real({max_norm!r} / norm)" for run in range(runs)]
    return lines


def _ascent(group: Options) -> str:
    """Return the gradient, of the sign of a descent."""
    return "-grad[i]" if group["maximize"] else "grad[i]"


def _gradient(group: Options) -> str:
    """Return the gradient with that of the penalty on the weights."""
    return _ascent(group) + (" + weight_decay * value[i]" if group["weight_decay"] else "")


def _decoupled(group: Options) -> str:
    """Return the statements of a weight decay that is no part of the gradient, and g."""
    decay = "value[i] *= real(1) - lr * weight_decay\n" if group["weight_decay"] else ""
    return f"{decay}g = {_ascent(group)}"


@form(nn.SGD)
def sgd() -> Rule:
    """θ ← θ - lr v with v ← momentum v + keep g; in the first step v ← g."""

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

    return Rule(text, scalars, settled=1)


_MOMENTS = """\
mean = exp_avg[i] + rest1 * (g - exp_avg[i])
square = beta2 * exp_avg_sq[i] + rest2 * g * g
exp_avg[i] = mean
exp_avg_sq[i] = square
"""


def _adam(group: Options) -> str:
    largest = ""
    if group["amsgrad"]:
        largest = "square = max(max_exp_avg_sq[i], square)\nmax_exp_avg_sq[i] = square\n"
    move = "value[i] -= rate * mean / (math.sqrt(square) * correction + eps)"
    return f"{_MOMENTS}{largest}{move}"


def _moment_scalars(group: Options) -> dict[str, float]:
    first, second = group["betas"]
    return {
        "lr": group["lr"],
        "weight_decay": group["weight_decay"],
        "rest1": 1 - first,
        "beta2": second,
        "rest2": 1 - second,
        "eps": group["eps"],
    }


def _adam_scalars(group: Options, step: int) -> dict[str, float]:
    first, second = group["betas"]
    return _moment_scalars(group) | {
        "rate": group["lr"] / (1 - first ** (step + 1)),
        "correction": 1 / math.sqrt(1 - second ** (step + 1)),
    }


@form(nn.Adam)
def adam() -> Rule:
    """θ ← θ - rate m / (√v correction + eps) with the decayed means m of g and v of g²."""

    def text(group: Options) -> str:
        return f"g = {_gradient(group)}\n{_adam(group)}"

    return Rule(text, _adam_scalars, settled=None)


@form(nn.AdamW)
def adamw() -> Rule:
    """As Adam, after θ ← θ - lr · weight_decay · θ."""

    def text(group: Options) -> str:
        return f"{_decoupled(group)}\n{_adam(group)}"

    return Rule(text, _adam_scalars, settled=None)


@form(nn.RMSprop)
def rmsprop() -> Rule:
    """θ ← θ - lr g / (√(v - a²) + eps) with the decayed means v of g² and a of g."""

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


@form(nn.Adagrad)
def adagrad() -> Rule:
    """θ ← θ - rate g / (√s + eps) with the sum s of all g²."""

    def text(group: Options) -> str:
        return f"""\
g = {_gradient(group)}
total = keep * sum[i] + begin + g * g
sum[i] = total
value[i] -= rate * g / (math.sqrt(total) + eps)"""

    def scalars(group: Options, step: int) -> dict[str, float]:
        return {
            "rate": group["lr"] / (1 + step * group["lr_decay"]),
            "keep": float(step > 0),
            "begin": 0.0 if step else group["initial_accumulator_value"],
            "eps": group["eps"],
            "weight_decay": group["weight_decay"],
        }

    return Rule(text, scalars, settled=None)


def _of_either_decay(group: Options) -> str:
    return _decoupled(group) if group["decoupled_weight_decay"] else f"g = {_gradient(group)}"


@form(nn.NAdam)
def nadam() -> Rule:
    """As Adam, with a part of the next step's momentum."""

    def text(group: Options) -> str:
        move = "(of_grad * g + of_mean * mean) / (math.sqrt(square) * correction + eps)"
        return f"{_of_either_decay(group)}\n{_MOMENTS}value[i] -= {move}"

    def scalars(group: Options, step: int) -> dict[str, float]:
        return _moment_scalars(group) | nadam_rates(group, step)._asdict()

    return Rule(text, scalars, settled=None)


@form(nn.RAdam)
def radam() -> Rule:
    """As Adam; and by the mean alone while `rectified` is 0."""

    def text(group: Options) -> str:
        return f"""\
{_of_either_decay(group)}
{_MOMENTS}scale = rectified / (math.sqrt(square) + eps) if rectified > 0 else real(1)
value[i] -= rate * mean * scale"""

    def scalars(group: Options, step: int) -> dict[str, float]:
        rate, rectified = radam_rates(group, step)
        return _moment_scalars(group) | {"rate": rate, "rectified": rectified}

    return Rule(text, scalars, settled=None)


@form(nn.Lion)
def lion() -> Rule:
    """θ ← θ - lr sign(β₁ m + (1 - β₁) g); m is the decayed mean of g."""

    def text(group: Options) -> str:
        return f"""\
{_decoupled(group)}
value[i] -= lr * np.sign(beta1 * exp_avg[i] + rest1 * g)
exp_avg[i] = beta2 * exp_avg[i] + rest2 * g"""

    def scalars(group: Options, step: int) -> dict[str, float]:
        first, second = group["betas"]
        return {
            "lr": group["lr"],
            "weight_decay": group["weight_decay"],
            "beta1": first,
            "rest1": 1 - first,
            "beta2": second,
            "rest2": 1 - second,
        }

    return Rule(text, scalars)
