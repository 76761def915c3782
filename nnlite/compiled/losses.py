"""The losses. Their source leaves the reduced loss in ``loss``, a Python float."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

import nnlite as nn

from .forms import form
from .layers.softmax import softmax_of
from .source import Code, Name, Shape, Size, Value, elements, joined, nest, number, product


def _require(code: Code, condition: str, size: str, fault: str) -> None:
    """Write the check that a condition holds for each i below `size`."""
    code(f"valid = True\n{nest({'i': size}, f'valid &= {condition}')}")
    code.fail_if("not valid", fault)


def _finite(code: Code, x: Value) -> None:
    _require(code, f"abs({x}[i]) < real(math.inf)", x.size, "the predictions are not finite")


def _sum_of_weights(loss: Any, code: Code, weight: Value) -> Name:
    """Write the sum of the sample weights, having checked them; return its name.

    It may be 0 where the losses are not divided by it.
    """
    total = code.name("total_weight")
    code(f"""
        {total}, valid = 0.0, True
        for i in range({weight.size}):
            valid &= {weight}[i] >= 0
            {total} += {weight}[i]
    """)
    relation = "<=" if loss.reduction == "sum" else "<"
    code.fail_if(
        f"not valid or not (0 {relation} {total} < math.inf)",
        "sample weights must be finite, not negative and not all zero",
    )
    return total


def _check_numbers(code: Code, target: Value) -> None:
    """Take a target as numbers, and write the check that they are finite."""
    code.kinds[target.name] = code.dtype
    _require(code, f"abs({target}[i]) < real(math.inf)", target.size, "the targets are not finite")


# ---- one number against one ----

# The loss of prediction x and target t, and its derivative with respect to x.
Formulas = Callable[[Any, Code], tuple[str, str]]


def check_reduction(loss: Any) -> None:
    """Raise a ValueError if a loss gives a number for each sample."""
    if getattr(loss, "reduction", None) == "none":
        raise ValueError(f"compile: {loss.label} gives no single number; use reduction='mean'")


def _binary(loss: nn.BinaryCrossEntropy, code: Code) -> tuple[str, str]:
    tiny = f"real({float(np.finfo(code.dtype).tiny)!r})"
    yes, no = f"{_output_weight(loss, 'pos_weight', code)} * t", "(real(1) - t)"
    if loss.weight is not None:
        weight = _output_weight(loss, "weight", code)
        yes, no = f"{weight} * {yes}", f"{weight} * {no}"
    if loss.from_logits:
        return (
            f"{yes} * log1p_exp(-x) + {no} * log1p_exp(x)",
            f"{no} * sigmoid(x) - {yes} * sigmoid(-x)",
        )
    p, q = f"max(x, {tiny})", f"max(real(1) - x, {tiny})"
    largest = f"real({float(np.finfo(code.dtype).max)!r})"
    return (
        f"-({yes} * log({p}) + {no} * log({q}))",
        f"min(max({no} / {q} - {yes} / {p}, -{largest}), {largest})",
    )


def _output_weight(loss: nn.BinaryCrossEntropy, name: str, code: Code) -> str:
    """Return a weight of the loss with index i: one number, or one for each output."""
    weight = getattr(loss, name)
    if isinstance(weight, float):
        return f"real({weight!r})"
    if weight.ndim != 1:
        raise TypeError(
            f"compile: {loss.label} has a {name} of shape {weight.shape}; in a compiled step it is "
            f"one number, or one for each output"
        )
    return f"real({code.buffer(loss, name)}[i % {weight.size}])"


def _smooth_l1(loss: nn.SmoothL1, code: Code) -> tuple[str, str]:
    if not loss.beta:
        return "abs(x - t)", "np.sign(x - t)"
    beta = f"real({loss.beta!r})"
    near = f"min(abs(x - t), {beta})"
    return (
        f"{near} / {beta} * (abs(x - t) - {near} / real(2))",
        f"min(max((x - t) / {beta}, real(-1)), real(1))",
    )


def _quantile(loss: nn.Quantile, code: Code) -> tuple[str, str]:
    low, high = f"real({loss.quantile!r})", f"real({1 - loss.quantile!r})"
    return (
        f"max({low} * (t - x), {high} * (x - t))",
        f"({high} if x > t else (-{low} if x < t else real(0)))",
    )


def _poisson(loss: nn.PoissonNLL, code: Code) -> tuple[str, str]:
    eps = f"real({loss.eps!r})"
    formula, slope = f"x - t * log(x + {eps})", f"real(1) - t / (x + {eps})"
    if loss.log_input:
        formula, slope = "exp(x) - t * x", "exp(x) - t"
    if loss.full:
        stirling = f"t * log(t) - t + real(0.5) * log(real({2 * math.pi!r}) * t)"
        formula += f" + ({stirling} if t > real(1) else real(0))"
    return formula, slope


def _hinge(loss: nn.Hinge, code: Code) -> tuple[str, str]:
    z = f"max(real({loss.margin!r}) - t * x, real(0))"
    if loss.p == 1:
        return z, f"-t * np.sign({z})"
    return f"{z} * {z}", f"real(-2) * t * {z}"


def _divergence(loss: nn.KLDivergence, code: Code) -> tuple[str, str]:
    if loss.log_target:
        return "exp(t) * (t - x)", "-exp(t)"
    return "(t * (log(t) - x) if t > real(0) else real(0))", "-t"


FORMULAS: dict[type, Formulas] = {
    nn.MeanSquaredError: lambda loss, code: ("(x - t) * (x - t)", "real(2) * (x - t)"),
    nn.MeanAbsoluteError: lambda loss, code: ("abs(x - t)", "np.sign(x - t)"),
    nn.Huber: lambda loss, code: (
        f"min(abs(x - t), real({loss.delta!r})) * "
        f"(abs(x - t) - min(abs(x - t), real({loss.delta!r})) / real(2))",
        f"min(max(x - t, real({-loss.delta!r})), real({loss.delta!r}))",
    ),
    nn.BinaryCrossEntropy: _binary,
    nn.SmoothL1: _smooth_l1,
    nn.Quantile: _quantile,
    nn.PoissonNLL: _poisson,
    nn.Hinge: _hinge,
    nn.KLDivergence: _divergence,
}

# What a prediction x and a target t of a loss have to fulfil.
DOMAINS: dict[type, Callable[[Any], str]] = {
    nn.BinaryCrossEntropy: lambda loss: (
        "real(0) <= t <= real(1)" + ("" if loss.from_logits else " and real(0) <= x <= real(1)")
    ),
    nn.PoissonNLL: lambda loss: "t >= real(0)" + ("" if loss.log_input else " and x >= real(0)"),
    nn.Hinge: lambda loss: "abs(t) == real(1)",
    nn.KLDivergence: lambda loss: "t <= real(0.001)" if loss.log_target else "t >= real(0)",
}


@form(*FORMULAS)
def elementwise(loss: Any, code: Code, prediction: Value, target: Value, *weight: Value) -> Any:
    """Loss = Σ w ℓ(x, t), over Σ w for the mean; dx = w ℓ'(x, t), over the same."""
    formula, slope = FORMULAS[type(loss)](loss, code)

    at = functools.partial(elements, x=prediction, t=target)
    weights = [getattr(loss, name, None) for name in ("weight", "pos_weight")]
    if len(prediction.shape) == 1 and any(each is not None and np.ndim(each) for each in weights):
        number(prediction.shape[0])  # there is a weight for each sample
    _finite(code, prediction)
    _check_numbers(code, target)
    if type(loss) in DOMAINS:
        domain = at(DOMAINS[type(loss)](loss))
        _require(code, domain, target.size, "targets or predictions are out of range")
    if isinstance(loss, nn.KLDivergence):
        _check_divergence_targets(loss, code, target)
    factor, norm = _reduction(loss, code, prediction.shape, *weight)
    code(f"""
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


def _reduction(loss: Any, code: Code, shape: Shape, *weight: Value) -> tuple[str, Name]:
    """Return the weight of loss i, as a factor, and the name of what the sum is multiplied by.

    There are as many losses as a value of this shape has elements.
    """
    places = product(shape[1:])
    factor, samples = "", product(shape[:1])
    if weight:
        code.kinds[weight[0].name] = code.dtype
        samples = f"{_sum_of_weights(loss, code, weight[0])}"
        factor = f"{weight[0]}[i // ({places})] * "
    count = {"mean": f"{samples} * ({places})", "batchmean": samples, "sum": "1.0"}
    if loss.reduction != "sum":
        code.divisor = code.resolved(count[loss.reduction])
    norm = code.name("norm")
    code(f"{norm} = 1 / ({count[loss.reduction]})")
    return factor, norm


def _check_divergence_targets(loss: nn.KLDivergence, code: Code, target: Value) -> None:
    """Write the check that the targets sum to 1 over axis 1, or over the last one."""
    shape = target.shape
    axes = (1, len(shape) - 1) if len(shape) > 1 else (0,)
    t = "exp(a[i, j, k])" if loss.log_target else "a[i, j, k]"
    for axis, valid in zip(axes, ("first", "last"), strict=False):
        sizes = product(shape[:axis]), shape[axis], product(shape[axis + 1 :])
        code(f"a, {valid} = {target.view(*sizes)}, True")
        body = f"""
            total = 0.0
            for j in range({sizes[1]}):
                total += {t}
            {valid} &= abs(total - 1) <= 1e-3
        """
        code(nest({"i": sizes[0], "k": sizes[2]}, body))
    code.fail_if(
        "not (first or last)" if len(axes) > 1 else "not first",
        "the targets must be probabilities with a sum of 1 over the classes",
    )


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
    classes, places, loops, sizes, at = _layout(loss, scores)
    has_labels = code.kinds[labels.name].kind == "i"
    log_scores = not isinstance(loss, nn.CrossEntropy)
    logits = isinstance(loss, nn.CrossEntropy) and loss.from_logits
    smoothing = loss.label_smoothing

    _check_scores(code, scores)
    if not log_scores and not logits:
        _check_distributions(code, scores.view(*sizes), classes, loops, at)

    class_weight, of_sample = _class_weight(loss, code), _sample_weight(loss, code, *weight)

    if has_labels:
        _check_labels(code, labels, classes, loss.ignore_index)
        peak = _times(f"{1 - smoothing!r}", class_weight.format("t"))
        q = _times(f"{smoothing / classes!r}", class_weight.format("j"))
        counted = _times(of_sample, class_weight.format("t"))
        label = f"{labels}[i]" if places == "1" else f"{labels}[i * {places} + k]"
        begin = f"t = {label}\nif t == {loss.ignore_index}:\n    continue"
    else:
        _check_distributions(code, labels.view(*sizes), classes, loops, at)
        target = code.name("target_rows")
        code(f"{target} = {labels.view(*sizes)}")
        y = f"({1 - smoothing!r} * {target}{at('j')} + {smoothing / classes!r})"
        q = _times(class_weight.format("j"), y)
        counted, begin = of_sample, ""

    tiny = f"real({float(np.finfo(code.dtype).tiny)!r})"
    largest = f"real({float(np.finfo(code.dtype).max)!r})"
    p = code.new(scores.shape, "p") if logits else None
    norm = code.name("norm")
    lines = [f"a = {scores.view(*sizes)}", f"loss, {norm} = 0.0, 0.0"]
    body = [begin]
    if p:
        lines.append(f"b = {p.view(*sizes)}")
        body.append(softmax_of(classes, at))
        body.append("log_total = top + real(math.log(total))")
    of_logits, of_probabilities = "(a{} - log_total)", f"math.log(max(a{{}}, {tiny}))"
    log_p = "a{}" if log_scores else of_logits if logits else of_probabilities
    body.append("entropy = 0.0")
    if has_labels:
        body.append(f"entropy -= {_times(peak, log_p.format(at('t')))}")
    if smoothing or not has_labels:
        body.append(f"""
            for j in range({classes}):
                q = {q}
                if q > 0:
                    entropy -= q * {log_p.format(at("j"))}
        """)
    body.append(f"loss += {_times(of_sample, 'entropy')}")
    body.append(f"{norm} += {counted}" if loss.reduction == "mean" else "")
    code("\n".join(lines))
    code(nest(loops, joined(*body)))
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
            terms.append(f"{'- ' if p else '-'}{slope(_times('scale', q), 'j')}")
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
            body.append(f"total = {_times('scale', peak) if has_labels else '0.0'}")
            if smoothing or not has_labels:
                body.append(f"for j in range({classes}):\n    total += {_times('scale', q)}")
        body.append(f"for j in range({classes}):\n    c{at('j')} = {' '.join(terms) or 'real(0)'}")
        if has_labels:
            body.append(f"c{at('t')} -= {slope(_times('scale', peak), 't')}")
        with code.gradient(scores) as dx:
            views = f"a, c = {scores.view(*sizes)}, {dx.view(*sizes)}"
            code(f"{views}\nb = {p.view(*sizes)}" if p else views)
            code(nest(loops, joined(*body)))

    return backward


At = Callable[[str], str]


def _layout(loss: Any, scores: Value) -> tuple[int, str, dict[str, Size], list[Size], At]:
    """Return how the scores of a batch are indexed.

    Returns
    -------
    classes : int
    places : str
        The number of labels of each sample.
    loops : dict
        The variables, and their sizes, of the loops over labels.
    sizes : list
        The shape of the scores in which ``at(j)`` indexes the score of class j.
    at : callable
    """
    dim = 1 if loss.dim == 1 else len(scores.shape) - 1
    classes = number(scores.shape[dim])
    places = product((*scores.shape[1:dim], *scores.shape[dim + 1 :]))
    if places == "1":
        return classes, places, {"i": scores.shape[0]}, [scores.shape[0], classes], "[i, {}]".format
    loops: dict[str, Size] = {"i": scores.shape[0], "k": places}
    if dim == 1:
        return classes, places, loops, [scores.shape[0], classes, places], "[i, {}, k]".format
    return classes, places, loops, [scores.shape[0], places, classes], "[i, k, {}]".format


def _check_scores(code: Code, scores: Value) -> None:
    """Write the check of scores; those of -inf mask their class."""
    _require(code, f"{scores}[i] < real(math.inf)", scores.size, "the predictions are not finite")


def _class_weight(loss: Any, code: Code) -> str:
    """Return the weight of a class, whose index is to be formatted into it."""
    if loss.weight is None:
        return "1.0"
    return f"{code.buffer(loss, 'weight', 'class_weight')}[{{}}]"


def _times(*factors: str) -> str:
    """Return the product of factors as text, without those that are 1."""
    return " * ".join([factor for factor in factors if factor != "1.0"]) or "1.0"


def _sample_weight(loss: Any, code: Code, *weight: Value) -> str:
    """Write the check of sample weights, if there are any; return the weight of sample i."""
    if not weight:
        return "1.0"
    code.kinds[weight[0].name] = code.dtype
    _sum_of_weights(loss, code, weight[0])
    return f"{weight[0]}[i]"


@form(nn.Focal)
def focal(loss: nn.Focal, code: Code, scores: Value, labels: Value, *weight: Value) -> Any:
    """ℓ = -w (1 - q)^γ log q for the probability q of the label; dx_j = s (p_j - [j = t])."""
    classes, places, loops, sizes, at = _layout(loss, scores)
    _check_scores(code, scores)
    class_weight, of_sample = _class_weight(loss, code), _sample_weight(loss, code, *weight)
    _check_labels(code, labels, classes, loss.ignore_index)
    p, slopes = code.new(scores.shape, "p"), code.new(labels.shape, "slopes")
    norm = code.name("norm")
    label = "i" if places == "1" else f"i * {places} + k"
    code(f"a, b = {scores.view(*sizes)}, {p.view(*sizes)}\nloss, {norm} = 0.0, 0.0")
    begin = f"""
        t = {labels}[{label}]
        if t == {loss.ignore_index}:
            {slopes}[{label}] = 0
            for j in range({classes}):
                b{at("j")} = 0
            continue
    """
    end = f"""
        log_q = float(a{at("t")} - top) - math.log(total)
        rest = -math.expm1(log_q)
        w = {_times(of_sample, class_weight.format("t"))}
        hardness = w * rest ** {loss.gamma!r}
        ratio = -math.exp(log_q) * log_q / rest if rest > 0 else 1.0
        loss -= hardness * log_q
        {slopes}[{label}] = hardness * (1 + {loss.gamma!r} * ratio)
    """
    counting = f"{norm} += w" if loss.reduction == "mean" else ""
    code(nest(loops, joined(begin, softmax_of(classes, at), end, counting)))
    if loss.reduction == "mean":
        code.fail_if(f"{norm} == 0", "every label of the batch is ignored or has a weight of 0")
        code(f"loss /= {norm}")
        code.divisor = str(norm)

    def backward() -> None:
        if not scores.needs_grad:
            return
        divisor = f" / real({norm})" if loss.reduction == "mean" else ""
        with code.gradient(scores) as dx:
            code(f"b, c = {p.view(*sizes)}, {dx.view(*sizes)}")
            code(nest(loops, f"""
                slope = {slopes}[{label}]{divisor}
                for j in range({classes}):
                    c{at("j")} = slope * b{at("j")}
                t = {labels}[{label}]
                if t != {loss.ignore_index}:
                    c{at("t")} -= slope
            """))  # fmt: skip

    return backward


@form(nn.MultiMargin)
def multi_margin(
    loss: nn.MultiMargin, code: Code, scores: Value, labels: Value, *weight: Value
) -> Any:
    """ℓ = w Σ_{j≠t} max(margin - x_t + x_j, 0)^p / C."""
    n, classes = scores.shape[0], number(scores.shape[1])
    _finite(code, scores)
    _check_labels(code, labels, classes, None)
    class_weight, of_sample = _class_weight(loss, code), _sample_weight(loss, code, *weight)
    norm = code.name("norm")
    code(f"""
        a = {scores.view(n, classes)}
        loss, {norm} = 0.0, 0.0
        for i in range({n}):
            t = {labels}[i]
            excess = 0.0
            for j in range({classes}):
                if j != t:
                    excess += max(real({loss.margin!r}) + a[i, j] - a[i, t], real(0)) ** {loss.p}
            loss += {_times(of_sample, class_weight.format("t"), "excess")} / {classes}
            {f"{norm} += {of_sample}" if loss.reduction == "mean" else ""}
    """)
    if loss.reduction == "mean":
        code(f"loss /= {norm}")
        code.divisor = str(norm)

    def backward() -> None:
        if not scores.needs_grad:
            return
        divisor = f" / {norm}" if loss.reduction == "mean" else ""
        slope = "scale" if loss.p == 1 else "scale * real(2) * z"
        with code.gradient(scores) as dx:
            code(f"""
                a, c = {scores.view(n, classes)}, {dx.view(n, classes)}
                for i in range({n}):
                    t = {labels}[i]
                    scale = real({_times(of_sample, class_weight.format("t"))}{divisor} / {classes})
                    total = real(0)
                    for j in range({classes}):
                        z = max(real({loss.margin!r}) + a[i, j] - a[i, t], real(0))
                        c[i, j] = {slope} if z > 0 and j != t else real(0)
                        total += c[i, j]
                    c[i, t] = -total
            """)

    return backward


def _check_labels(code: Code, labels: Value, classes: int, ignored: int | None) -> None:
    is_ignored = "" if ignored is None else f" or {labels}[i] == {ignored}"
    condition = f"(0 <= {labels}[i] < {classes}){is_ignored}"
    _require(code, condition, labels.size, f"labels must be in [0, {classes})")


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


# ---- several predictions ----


@form(nn.GaussianNLL)
def gaussian_nll(
    loss: nn.GaussianNLL, code: Code, mean: Value, var: Value, target: Value, *weight: Value
) -> Any:
    """ℓ = (log v + d²/v) / 2 with d = x - t and v = max(var, eps).

    dx = d / v, dv = (1/v - d²/v²) / 2, summed over the numbers that share a variance.
    """
    _finite(code, mean)
    _finite(code, var)
    _check_numbers(code, target)
    _require(code, f"{var}[i] >= 0", var.size, "variances are negative")
    factor, norm = _reduction(loss, code, mean.shape, *weight)
    place = "i" if var.shape == mean.shape else f"i // {mean.shape[-1]}"
    d, v = f"({mean}[i] - {target}[i])", f"max({var}[{place}], real({loss.eps!r}))"
    constant = math.log(2 * math.pi) / 2 if loss.full else 0.0
    code(f"""
        loss = 0.0
        for i in range({mean.size}):
            d, v = {d}, {v}
            loss += {factor}((math.log(v) + d * d / v) / 2 + {constant!r})
        loss *= {norm}
    """)

    def backward() -> None:
        if mean.needs_grad:
            with code.gradient(mean) as part:
                code(f"""
                    for i in range({mean.size}):
                        {part}[i] = {factor}{d} / {v} * real({norm})
                """)
        if var.needs_grad:
            with code.gradient(var) as part:
                code(f"""
                    {part}[:] = 0
                    for i in range({mean.size}):
                        v = {v}
                        ratio = {d} / v
                        slope = (real(1) / v - ratio * ratio) / real(2)
                        {part}[{place}] += {factor}slope * real({norm})
                """)

    return backward


@form(nn.CosineEmbedding)
def cosine_embedding(
    loss: nn.CosineEmbedding, code: Code, x: Value, y: Value, target: Value, *weight: Value
) -> Any:
    """ℓ = 1 - c for a target of 1, and max(c - margin, 0) for one of -1; c is the cosine.

    dc/dx = (y / ‖y‖ - c x / ‖x‖) / ‖x‖, and likewise for y.
    """
    _finite(code, x)
    _finite(code, y)
    _check_numbers(code, target)
    _require(code, f"abs({target}[i]) == real(1)", target.size, "targets must be -1 or 1")
    factor, norm = _reduction(loss, code, target.shape, *weight)
    rows, size = target.size, x.shape[-1]
    cosine, x_norm, y_norm = (
        code.new(target.shape, name) for name in ("cosine", "first_norm", "second_norm")
    )
    code(f"""
        a, b = {x.view(rows, size)}, {y.view(rows, size)}
        loss = 0.0
        for i in range({rows}):
            aa, bb, ab = real(0), real(0), real(0)
            for j in range({size}):
                aa += a[i, j] * a[i, j]
                bb += b[i, j] * b[i, j]
            {x_norm}[i] = math.sqrt(aa + real(1e-12))
            {y_norm}[i] = math.sqrt(bb + real(1e-12))
            for j in range({size}):
                ab += (a[i, j] / {x_norm}[i]) * (b[i, j] / {y_norm}[i])
            {cosine}[i] = ab
            excess = max(ab - real({loss.margin!r}), real(0))
            loss += {factor}(real(1) - ab if {target}[i] > 0 else excess)
        loss *= {norm}
    """)

    def backward() -> None:
        for this, length, other, other_length in ((x, x_norm, y, y_norm), (y, y_norm, x, x_norm)):
            if not this.needs_grad:
                continue
            with code.gradient(this) as part:
                code(f"""
                    a, b = {this.view(rows, size)}, {other.view(rows, size)}
                    out = {part.view(rows, size)}
                    for i in range({rows}):
                        c = {cosine}[i]
                        of_other = real(1) if c > real({loss.margin!r}) else real(0)
                        slope = real(-1) if {target}[i] > 0 else of_other
                        slope *= {factor}real({norm})
                        for j in range({size}):
                            across = b[i, j] / {other_length}[i] - c * a[i, j] / {length}[i]
                            out[i, j] = slope * across / {length}[i]
                """)

    return backward


@form(nn.TripletMargin)
def triplet_margin(
    loss: nn.TripletMargin,
    code: Code,
    anchor: Value,
    positive: Value,
    negative: Value,
    *weight: Value,
) -> Any:
    """ℓ = max(margin + d(a, p) - d(a, n), 0) with d(x, y) = ‖x - y + eps‖_p.

    With `swap`, d(p, n) takes the place of d(a, n) where it is smaller.
    """
    for each in (anchor, positive, negative):
        _finite(code, each)
    losses = anchor.shape[:-1]
    factor, norm = _reduction(loss, code, losses, *weight)
    rows, size = product(losses), anchor.shape[-1]
    near, far = code.new(losses, "near"), code.new(losses, "far")
    swapped = code.new(losses, "swapped", "np.bool_")
    views = [each.view(rows, size) for each in (anchor, positive, negative)]

    def power(base: str, exponent: float) -> str:
        if exponent in (0, 1):
            return base if exponent else "real(1)"
        return f"{base} ** real({exponent!r})"

    def difference(x: str, y: str) -> str:
        return f"({x}[i, j] - {y}[i, j] + real({loss.eps!r}))"

    def distance(x: str, y: str) -> str:
        """Return statements for the distance `d`, in which no power overflows."""
        return f"""
            top = real(0)
            for j in range({size}):
                top = max(top, abs({difference(x, y)}))
            top = top if top > 0 else real(1)
            powers = real(0)
            for j in range({size}):
                powers += {power(f"(abs({difference(x, y)}) / top)", loss.p)}
            d = top * {power("powers", 1 / loss.p)}
        """

    def slope(x: str, y: str, d: str) -> str:
        scaled = f"(abs({difference(x, y)}) / ({d} if {d} > 0 else real(1)))"
        return f"np.sign({difference(x, y)}) * {power(scaled, loss.p - 1)}"

    body = joined(
        distance("a", "q"),
        f"{near}[i] = d",
        distance("a", "n"),
        f"{far}[i], {swapped}[i] = d, False",
        joined(distance("q", "n"), f"if d < {far}[i]:\n    {far}[i], {swapped}[i] = d, True")
        if loss.swap
        else "",
        f"loss += {factor}max(real({loss.margin!r}) + {near}[i] - {far}[i], real(0))",
    )
    code(f"a, q, n = {', '.join(views)}\nloss = 0.0")
    code(nest({"i": rows}, body))
    code(f"loss *= {norm}")

    def backward() -> None:
        of_near = slope("a", "q", f"{near}[i]")
        of_far = slope("a", "n", f"{far}[i]")
        if loss.swap:
            of_far = f"{slope('q', 'n', f'{far}[i]')} if {swapped}[i] else {of_far}"
        terms = (
            (anchor, "of_near - (real(0) if swaps else of_far)"),
            (positive, "(real(0) - of_far if swaps else real(0)) - of_near"),
            (negative, "of_far"),
        )
        code(f"a, q, n = {', '.join(views)}")
        for each, term in terms:
            if not each.needs_grad:
                continue
            with code.gradient(each) as part:
                code(f"""
                    out = {part.view(rows, size)}
                    for i in range({rows}):
                        swaps = {swapped}[i]
                        is_far = real({loss.margin!r}) + {near}[i] - {far}[i] <= 0
                        scale = real(0) if is_far else {factor}real({norm})
                        for j in range({size}):
                            of_near = {of_near}
                            of_far = {of_far}
                            out[i, j] = scale * ({term})
                """)

    return backward
