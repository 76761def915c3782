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
    count = f"total * ({places})" if weight else prediction.size
    if is_mean:
        code.divisor = code.resolved(count)
    norm = code.name("norm")
    code(f"""
        {norm} = {f"1 / ({count})" if is_mean else "1.0"}
        loss = 0.0
        for i in range({prediction.size}):
            loss += {factor}({at(formula)})
        loss *= {norm}
    """)

    def backward() -> None:
        if prediction.needs_grad:
            with code.gradient(prediction) as dx:
                code(f"""
                    for i in range({prediction.size}):
                        {dx}[i] = {factor}({at(slope)}) * real({norm})
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

    For target probabilities y, q_j = c_j ((1 - ε) y_j + ε / C). Of logits dℓ/dx_j = p_j Σ_k q_k -
    q_j; of probabilities -q_j / p_j; of their logarithms -q_j.
    """
    classes = scores.shape[1]
    assert isinstance(classes, int)
    places = product(scores.shape[2:])  # labels of each sample
    loops: dict[str, Size] = {"i": scores.shape[0]} | ({"k": places} if places != "1" else {})
    sizes = [scores.shape[0], classes, places][: 1 + len(loops)]
    has_labels = code.kinds[labels.name].kind == "i"
    log_scores = not isinstance(loss, nn.CrossEntropy)
    logits = isinstance(loss, nn.CrossEntropy) and loss.from_logits
    smoothing = loss.label_smoothing

    def at(j: str) -> str:
        return f"[i, {j}, k]" if "k" in loops else f"[i, {j}]"

    # Logits and log-probabilities of -inf mask their class.
    code(f"""
        valid = True
        for i in range({scores.size}):
            valid &= {scores}[i] < math.inf
    """)
    code.fail_if("not valid", "the predictions are not finite")
    if not log_scores and not logits:
        _check_distributions(code, scores.view(*sizes), classes, loops, at)

    class_weight = "1.0"
    if loss.weight is not None:
        class_weight = f"{code.buffer(loss, 'weight', 'class_weight')}[{{}}]"
    of_sample = "1.0"
    if weight:
        code.kinds[weight[0].name] = code.dtype
        _weights(code, weight[0])
        of_sample = f"{weight[0]}[i]"

    if has_labels:
        _check_labels(code, labels, classes, loss.ignore_index)
        peak = f"{1 - smoothing!r} * {class_weight.format('t')}"
        q = f"{smoothing / classes!r} * {class_weight.format('j')}"
        counted = f"{of_sample} * {class_weight.format('t')}"
        label = f"{labels}[i]" if places == "1" else f"{labels}[i * {places} + k]"
        begin = f"t = {label}\nif t == {loss.ignore_index}:\n    continue"
    else:
        _check_distributions(code, labels.view(*sizes), classes, loops, at)
        target = code.name("target_rows")
        code(f"{target} = {labels.view(*sizes)}")
        y = f"({1 - smoothing!r} * {target}{at('j')} + {smoothing / classes!r})"
        q = f"{class_weight.format('j')} * {y}"
        counted, begin = of_sample, ""

    tiny = f"real({float(np.finfo(code.dtype).tiny)!r})"
    largest = f"real({float(np.finfo(code.dtype).max)!r})"
    p = code.new(scores.shape, "p") if logits else None
    norm = code.name("norm")
    lines = [f"a = {scores.view(*sizes)}", f"loss, {norm} = 0.0, 0.0"]
    body = [begin]
    if p:
        lines.append(f"b = {p.view(*sizes)}")
        body.append(f"""
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
        """)
    of_logits, of_probabilities = "(a{} - log_total)", f"math.log(max(a{{}}, {tiny}))"
    log_p = "a{}" if log_scores else of_logits if logits else of_probabilities
    body.append("entropy = 0.0")
    if has_labels:
        body.append(f"entropy -= {peak} * {log_p.format(at('t'))}")
    if smoothing or not has_labels:
        body.append(f"""
            for j in range({classes}):
                q = {q}
                if q > 0:
                    entropy -= q * {log_p.format(at("j"))}
        """)
    body.append(f"loss += {of_sample} * entropy\n{norm} += {counted}")
    code("\n".join(lines))
    code(nest(loops, "\n".join(textwrap.dedent(part).strip("\n") for part in body if part)))
    if loss.reduction == "mean":
        code.fail_if(f"{norm} == 0", "every label of the batch is ignored or has a weight of 0")
        code(f"loss /= {norm}")
        code.divisor = str(norm)

    def backward() -> None:
        if not scores.needs_grad:
            return
        scale = of_sample + (f" / {norm}" if loss.reduction == "mean" else "")

        def slope(q: str, j: str) -> str:
            """Return the part of the gradient that q_j makes."""
            if log_scores or logits:
                return f"real({q})"
            return f"min(real({q}) / max(a{at(j)}, {tiny}), {largest})"

        terms = []
        if p:
            terms.append(f"real(total) * b{at('j')}")
        if smoothing or not has_labels:
            terms.append(f"-{slope(f'scale * {q}', 'j')}")
        body = []
        if has_labels:
            body.append(f"""
                t = {label}
                if t == {loss.ignore_index}:
                    for j in range({classes}):
                        c{at("j")} = 0
                    continue
            """)
        body.append(f"scale = {scale}")
        if p:
            body.append(f"total = {f'scale * {peak}' if has_labels else '0.0'}")
            if smoothing or not has_labels:
                body.append(f"for j in range({classes}):\n    total += scale * {q}")
        body.append(f"for j in range({classes}):\n    c{at('j')} = {' '.join(terms) or 'real(0)'}")
        if has_labels:
            body.append(f"c{at('t')} -= {slope(f'scale * {peak}', 't')}")
        with code.gradient(scores) as dx:
            views = f"a, c = {scores.view(*sizes)}, {dx.view(*sizes)}"
            code(f"{views}\nb = {p.view(*sizes)}" if p else views)
            code(nest(loops, "\n".join(textwrap.dedent(part).strip("\n") for part in body)))

    return backward


def _check_labels(code: Code, labels: Value, classes: int, ignored: int) -> None:
    code(f"""
        valid = True
        for i in range({labels.size}):
            t = {labels}[i]
            valid &= (0 <= t < {classes}) or t == {ignored}
    """)
    code.fail_if("not valid", f"labels must be in [0, {classes})")


def _check_distributions(
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
