"""The losses. Their source leaves the reduced loss in ``loss``, a Python float."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable
from typing import Any

import numpy as np

import nnlite as nn

from .forms import form
from .source import Code, Size, Value, nest, product


def _finite(code: Code, x: Value) -> None:
    code(f"""
        finite = True
        for i in range({x.size}):
            finite &= abs({x}[i]) <= real({float(np.finfo(code.dtype).max)!r})
    """)
    code.fail_if("not finite", "the predictions are not finite")


def _weights(code: Code, weight: Value) -> None:
    """Write the check of sample weights."""
    code(f"""
        total, valid = 0.0, True
        for i in range({weight.size}):
            valid &= {weight}[i] >= 0
            total += {weight}[i]
    """)
    code.fail_if(
        "not valid or not (0 < total < math.inf)",
        "sample weights must be finite, not negative and not all zero",
    )


# ---- one number against one ----

# The loss of prediction x and target t, and its derivative with respect to x.
Formulas = Callable[[Any, Code], tuple[str, str]]


def _binary(loss: nn.BinaryCrossEntropy, code: Code) -> tuple[str, str]:
    yes, tiny = f"real({loss.pos_weight!r}) * t", f"real({float(np.finfo(code.dtype).tiny)!r})"
    if loss.from_logits:
        return (
            f"{yes} * log1p_exp(-x) + (real(1) - t) * log1p_exp(x)",
            f"(real(1) - t) * sigmoid(x) - {yes} * sigmoid(-x)",
        )
    p, q = f"max(x, {tiny})", f"max(real(1) - x, {tiny})"
    return (
        f"-({yes} * math.log({p}) + (real(1) - t) * math.log({q}))",
        f"(real(1) - t) / {q} - {yes} / {p}",
    )


FORMULAS: dict[type, Formulas] = {
    nn.MeanSquaredError: lambda loss, code: ("(x - t) * (x - t)", "real(2) * (x - t)"),
    nn.MeanAbsoluteError: lambda loss, code: ("abs(x - t)", "np.sign(x - t)"),
    nn.Huber: lambda loss, code: (
        f"min(abs(x - t), real({loss.delta!r})) * "
        f"(abs(x - t) - min(abs(x - t), real({loss.delta!r})) / real(2))",
        f"min(max(x - t, real({-loss.delta!r})), real({loss.delta!r}))",
    ),
    nn.BinaryCrossEntropy: _binary,
}


@form(*FORMULAS)
def elementwise(loss: Any, code: Code, prediction: Value, target: Value, *weight: Value) -> Any:
    """Loss = Σ w ℓ(x, t), over Σ w for the mean; dx = w ℓ'(x, t), over the same."""
    formula, slope = FORMULAS[type(loss)](loss, code)

    def at(formula: str) -> str:
        arrays = {"x": prediction, "t": target}
        return re.sub(r"\b[xt]\b", lambda match: f"{arrays[match[0]]}[i]", formula)

    code.kinds[target.name] = code.dtype
    _finite(code, prediction)
    code(f"""
        valid = True
        for i in range({target.size}):
            valid &= abs({target}[i]) < math.inf
    """)
    code.fail_if("not valid", "the targets are not finite")
    if isinstance(loss, nn.BinaryCrossEntropy):
        for array in (target,) if loss.from_logits else (target, prediction):
            code(f"""
                valid = True
                for i in range({array.size}):
                    valid &= real(0) <= {array}[i] <= real(1)
            """)
            code.fail_if("not valid", "targets and probabilities must be in [0, 1]")
    places = product(prediction.shape[1:])
    factor = ""
    if weight:
        code.kinds[weight[0].name] = code.dtype
        _weights(code, weight[0])
        factor = f"{weight[0]}[i // ({places})] * "
    is_mean = loss.reduction == "mean"
    norm = f"total * ({places})" if weight else prediction.size
    code(f"""
        norm = {f"1 / ({norm})" if is_mean else "1.0"}
        loss = 0.0
        for i in range({prediction.size}):
            loss += {factor}({at(formula)})
        loss *= norm
    """)

    def backward() -> None:
        if prediction.needs_grad:
            with code.gradient(prediction) as dx:
                code(f"""
                    for i in range({prediction.size}):
                        {dx}[i] = {factor}({at(slope)}) * real(norm)
                """)

    return backward


# ---- scores against labels ----


@form(nn.CrossEntropy, nn.NegativeLogLikelihood)
def cross_entropy(
    loss: nn.CrossEntropy | nn.NegativeLogLikelihood,
    code: Code,
    scores: Value,
    labels: Value,
    *weight: Value,
) -> Any:
    """ℓ = -Σ_j q_j log p_j with q_j = c_j ((1 - ε) [j = t] + ε / C) for class weights c.

    Of logits dℓ/dx_j = p_j Σ_k q_k - q_j; of probabilities -q_j / p_j; of their logarithms -q_j.
    """
    classes = scores.shape[1]
    assert isinstance(classes, int)
    places = product(scores.shape[2:])  # labels of each sample
    loops: dict[str, Size] = {"i": scores.shape[0]} | ({"k": places} if places != "1" else {})
    sizes = [scores.shape[0], classes, places][: 1 + len(loops)]
    label = f"{labels}[i]" if places == "1" else f"{labels}[i * {places} + k]"

    def at(j: str) -> str:
        return f"[i, {j}, k]" if "k" in loops else f"[i, {j}]"

    _finite(code, scores)
    code(f"""
        valid = True
        for i in range({labels.size}):
            t = {labels}[i]
            valid &= (0 <= t < {classes}) or t == {loss.ignore_index}
    """)
    code.fail_if("not valid", f"labels must be in [0, {classes})")
    class_weight = None if loss.weight is None else code.buffer(loss, "weight", "class_weight")
    smoothing = loss.label_smoothing
    peak, floor = f"{1 - smoothing!r}", f"{smoothing / classes!r}"
    if class_weight:
        peak, floor = f"{peak} * {class_weight}[t]", f"{floor} * {class_weight}[j]"
    of_sample = "1.0"
    if weight:
        code.kinds[weight[0].name] = code.dtype
        _weights(code, weight[0])
        of_sample = f"{weight[0]}[i]"
    counted = f"{of_sample} * {class_weight}[t]" if class_weight else of_sample

    p = None
    tiny = f"real({float(np.finfo(code.dtype).tiny)!r})"
    if isinstance(loss, nn.NegativeLogLikelihood):
        setup, log_p = "", "a{}"
    elif loss.from_logits:
        p = code.new(scores.shape, "p")
        code(f"b = {p.view(*sizes)}")
        setup = f"""
            top = a{at("0")}
            for j in range({classes}):
                top = max(top, a{at("j")})
            total = real(0)
            for j in range({classes}):
                b{at("j")} = exp(a{at("j")} - top)
                total += b{at("j")}
            for j in range({classes}):
                b{at("j")} /= total
            log_total = top + real(math.log(total))
        """
        log_p = "(a{} - log_total)"
    else:
        setup, log_p = "", f"math.log(max(a{{}}, {tiny}))"
        _probabilities(code, scores.view(*sizes), classes, loops, at)
    smooth = f"""
        for j in range({classes}):
            entropy -= {floor} * {log_p.format(at("j"))}
    """
    body = [
        f"t = {label}\nif t == {loss.ignore_index}:\n    continue",
        setup,
        f"entropy = -{peak} * {log_p.format(at('t'))}",
        smooth if smoothing else "",
        f"loss += {of_sample} * entropy\nnorm += {counted}",
    ]
    code(f"a = {scores.view(*sizes)}\nloss, norm = 0.0, 0.0")
    code(nest(loops, "\n".join(textwrap.dedent(part).strip("\n") for part in body)))
    code.fail_if("norm == 0", "every label of the batch is ignored or has no weight")
    if loss.reduction == "mean":
        code("loss /= norm")

    def backward() -> None:
        if not scores.needs_grad:
            return
        scale = f"real({of_sample}{' / norm' if loss.reduction == 'mean' else ''})"
        total = "real(1)"
        if class_weight:
            total = f"real({peak} + {smoothing / classes!r} * {class_weight}.sum())"
        over = "" if p or not hasattr(loss, "from_logits") else f" / max(a{{}}, {tiny})"
        first = f"scale * {total} * b{at('j')}" if p else "real(0)"
        if smoothing:
            first += f" - scale * real({floor}){over.format(at('j'))}"
        with code.gradient(scores) as dx:
            views = f"a, c = {scores.view(*sizes)}, {dx.view(*sizes)}"
            code(f"{views}\nb = {p.view(*sizes)}" if p else views)
            code(
                nest(
                    loops,
                    f"""
                    t = {label}
                    if t == {loss.ignore_index}:
                        for j in range({classes}):
                            c{at("j")} = 0
                        continue
                    scale = {scale}
                    for j in range({classes}):
                        c{at("j")} = {first}
                    c{at("t")} -= scale * real({peak}){over.format(at("t"))}
                    """,
                )
            )

    return backward


def _probabilities(
    code: Code, scores: str, classes: int, loops: dict[str, Size], at: Callable[[str], str]
) -> None:
    """Write the check that the scores of each label are a distribution over the classes."""
    code(f"a, valid = {scores}, True")
    body = f"""
        total = 0.0
        for j in range({classes}):
            valid &= a{at("j")} >= 0
            total += a{at("j")}
        valid &= abs(total - 1) < 1e-3
    """
    code(nest(loops, body))
    code.fail_if("not valid", "expected probabilities")
