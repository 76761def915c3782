"""Losses compared with those of ``torch.nn``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import strategies as st

import nnlite as nn

from ..case import Array, Case

REDUCTIONS = ("mean", "sum", "none")

# ---- losses of class indices ----


def classes(
    name: str,
    shape: tuple[int, ...],
    reduction: str = "mean",
    scale: float = 2.0,
    dtype: str = "float64",
    ignored: int | None = None,
    soft: bool = False,
    **options: Any,
) -> Case:
    """Compare predictions of `shape` (N, C, …) with labels (N, …), or if `soft` probabilities."""
    from_probabilities = options.get("from_logits") is False
    last = options.get("dim") == -1  # shapes are still (N, C, …), and the classes move at the end

    def module(torch: Any) -> Any:
        kept = {key: value for key, value in options.items() if key not in ("from_logits", "dim")}
        if "weight" in kept:
            kept["weight"] = torch.tensor(kept["weight"], dtype=getattr(torch, dtype))
        # Functions, since PyTorch's modules of losses keep the weights as buffers.
        f = torch.nn.functional
        if last:
            return lambda x, target: f.cross_entropy(
                x.movedim(-1, 1),
                target.movedim(-1, 1) if soft else target,
                reduction=reduction,
                **kept,
            )
        if name == "MultiMargin":
            return lambda x, target: f.multi_margin_loss(x, target, reduction=reduction, **kept)
        if name == "NegativeLogLikelihood":
            return lambda x, target: f.nll_loss(x, target, reduction=reduction, **kept)
        if from_probabilities:
            return lambda p, target: f.nll_loss(p.log(), target, reduction=reduction, **kept)
        return lambda x, target: f.cross_entropy(x, target, reduction=reduction, **kept)

    def inputs(rng: np.random.Generator) -> tuple[Array, Array]:
        prediction = scale * rng.normal(size=shape)
        if from_probabilities:
            prediction = rng.uniform(0.1, 1, size=shape)
            prediction /= prediction.sum(axis=1, keepdims=True)
        if name == "NegativeLogLikelihood":
            prediction -= np.logaddexp.reduce(prediction, axis=1, keepdims=True)
        if last:
            prediction = np.moveaxis(prediction, 1, -1).copy()
        if soft:
            target = rng.uniform(size=prediction.shape)
            axis = -1 if last else 1
            return prediction, target / target.sum(axis=axis, keepdims=True)
        target = rng.integers(shape[1], size=shape[:1] + shape[2:])
        if ignored is not None:
            target.reshape(-1)[1::2] = ignored
        return prediction, target

    listed = "".join(f", {key}={value}" for key, value in options.items())
    listed += "" if ignored is None else f", every other label {ignored}"
    listed += ", target probabilities" if soft else ""
    return Case(
        f"{name} {shape} times {scale:g}{listed}, {reduction}, {dtype}",
        layer=lambda: getattr(nn, name)(reduction, **options),
        module=module,
        inputs=inputs,
        constants=(1,) if soft else (),
        dtype=dtype,
    )


# ---- losses of numbers ----

NUMBERS: dict[str, str] = {
    "MeanSquaredError": "mse_loss",
    "MeanAbsoluteError": "l1_loss",
    "Huber": "huber_loss",
    "SmoothL1": "smooth_l1_loss",
    "PoissonNLL": "poisson_nll_loss",
    "BinaryCrossEntropy": "binary_cross_entropy_with_logits",
}


def numbers(
    name: str,
    shape: tuple[int, ...] = (3, 2),
    reduction: str = "mean",
    scale: float = 2.0,
    dtype: str = "float64",
    **options: Any,
) -> Case:
    """Compare predictions with targets of the same shape."""
    from_probabilities = options.get("from_logits") is False

    def module(torch: Any) -> Any:
        kept = {key: value for key, value in options.items() if key != "from_logits"}
        for weight in kept.keys() & {"weight", "pos_weight"}:
            kept[weight] = torch.tensor(kept[weight], dtype=getattr(torch, dtype))
        of_torch = "binary_cross_entropy" if from_probabilities else NUMBERS[name]
        function = getattr(torch.nn.functional, of_torch)
        return lambda x, target: function(x, target, reduction=reduction, **kept)

    def inputs(rng: np.random.Generator) -> tuple[Array, Array]:
        prediction = scale * rng.normal(size=shape)
        if from_probabilities:
            prediction = rng.uniform(0.05, 0.95, size=shape)
        if name == "PoissonNLL":
            rates = rng.exponential(2.0, size=shape)
            logs = np.minimum(prediction, 5)  # an overflow would be an error
            return rates if options.get("log_input") is False else logs, rng.poisson(
                2.0, size=shape
            ) * 1.0
        between_0_and_1 = name == "BinaryCrossEntropy"
        target = rng.uniform(0, 1, size=shape) if between_0_and_1 else rng.normal(size=shape)
        return prediction, target

    listed = "".join(f", {key}={value}" for key, value in options.items())
    return Case(
        f"{name} {shape} times {scale:g}{listed}, {reduction}, {dtype}",
        layer=lambda: getattr(nn, name)(reduction, **options),
        module=module,
        inputs=inputs,
        constants=(1,),
        dtype=dtype,
    )


# ---- losses that PyTorch has as no class, or of other inputs ----


def divergence(
    reduction: str = "mean",
    shape: tuple[int, ...] = (4, 5),
    dtype: str = "float64",
    log_target: bool = False,
) -> Case:
    """Compare log-probabilities with probabilities, some of them 0, or their logarithms."""

    def inputs(rng: np.random.Generator) -> tuple[Array, Array]:
        prediction = rng.normal(size=shape)
        prediction -= np.logaddexp.reduce(prediction, axis=1, keepdims=True)
        target = rng.uniform(0.1, 1, size=shape)
        if not log_target and shape[1] > 1:
            target[0, 0] = 0
        target /= target.sum(axis=1, keepdims=True)
        return prediction, np.log(target) if log_target else target

    def kl_div(f: Any, x: Any, target: Any) -> Any:
        if reduction == "mean":  # of which PyTorch warns
            return f.kl_div(x, target, reduction="none", log_target=log_target).mean()
        return f.kl_div(x, target, reduction=reduction, log_target=log_target)

    return Case(
        f"KLDivergence {shape}, log_target={log_target}, {reduction}, {dtype}",
        layer=lambda: nn.KLDivergence(reduction, log_target),
        module=lambda torch: lambda x, target: kl_div(torch.nn.functional, x, target),
        inputs=inputs,
        constants=(1,),
        dtype=dtype,
    )


def _reduced(losses: Any, reduction: str) -> Any:
    return losses if reduction == "none" else getattr(losses, reduction)()


def hinge(reduction: str = "mean", dtype: str = "float64", p: int = 1, margin: float = 1.0) -> Case:
    """Compare with PyTorch's derivative of the formula."""
    return Case(
        f"Hinge p={p}, margin={margin}, {reduction}, {dtype}",
        layer=lambda: nn.Hinge(reduction, margin, p),
        module=lambda torch: (
            lambda x, target: _reduced(torch.relu(margin - target * x) ** p, reduction)
        ),
        inputs=lambda rng: (rng.normal(size=(3, 2)), rng.choice([-1.0, 1.0], size=(3, 2))),
        constants=(1,),
        dtype=dtype,
    )


def quantile(reduction: str = "mean", dtype: str = "float64", q: float = 0.9) -> Case:
    """Compare with PyTorch's derivative of the formula."""

    def losses(torch: Any, x: Any, target: Any) -> Any:
        d = target - x
        return _reduced(torch.maximum(q * d, (q - 1) * d), reduction)

    return Case(
        f"Quantile {q}, {reduction}, {dtype}",
        layer=lambda: nn.Quantile(reduction, q),
        module=lambda torch: lambda x, target: losses(torch, x, target),
        inputs=lambda rng: (rng.normal(size=(3, 2)), rng.normal(size=(3, 2))),
        constants=(1,),
        dtype=dtype,
    )


def focal(
    reduction: str = "mean", dtype: str = "float64", gamma: float = 2.0, alpha: float = 0.25
) -> Case:
    """Compare with the binary loss of the paper, as in ``torchvision.ops.sigmoid_focal_loss``.

    The two classes have the logits 0 and x. The mean is over the labels' weights.
    """

    def losses(torch: Any, x: Any, target: Any) -> Any:
        f = torch.nn.functional
        x = x[:, 1] - x[:, 0]
        t = target.to(x.dtype)
        p = torch.sigmoid(x)
        entropy = f.binary_cross_entropy_with_logits(x, t, reduction="none")
        p_t = p * t + (1 - p) * (1 - t)
        alpha_t = alpha * t + (1 - alpha) * (1 - t)
        values = alpha_t * (1 - p_t) ** gamma * entropy
        return values.sum() / alpha_t.sum() if reduction == "mean" else _reduced(values, reduction)

    return Case(
        f"Focal gamma={gamma}, alpha={alpha}, {reduction}, {dtype}",
        layer=lambda: nn.Focal(reduction, gamma, weight=[1 - alpha, alpha]),
        module=lambda torch: lambda x, target: losses(torch, x, target),
        inputs=lambda rng: (2 * rng.normal(size=(6, 2)), rng.integers(2, size=6)),
        dtype=dtype,
    )


def triplet(
    reduction: str = "mean",
    shape: tuple[int, ...] = (5, 4),
    dtype: str = "float64",
    **options: Any,
) -> Case:
    """Compare the gradients of all three embeddings."""
    listed = "".join(f", {key}={value}" for key, value in options.items())
    return Case(
        f"TripletMargin {shape}{listed}, {reduction}, {dtype}",
        layer=lambda: nn.TripletMargin(reduction, **options),
        module=lambda torch: torch.nn.TripletMarginLoss(reduction=reduction, **options),
        inputs=lambda rng: tuple(rng.normal(size=(3, *shape))),
        dtype=dtype,
    )


def cosine(
    reduction: str = "mean",
    shape: tuple[int, ...] = (5, 4),
    dtype: str = "float64",
    margin: float = 0.0,
) -> Case:
    """Compare the gradients of both embeddings."""
    return Case(
        f"CosineEmbedding {shape}, margin={margin}, {reduction}, {dtype}",
        layer=lambda: nn.CosineEmbedding(reduction, margin),
        module=lambda torch: torch.nn.CosineEmbeddingLoss(margin, reduction=reduction),
        inputs=lambda rng: (*rng.normal(size=(2, *shape)), rng.choice([-1, 1], size=shape[0])),
        dtype=dtype,
    )


def gaussian(
    reduction: str = "mean",
    shape: tuple[int, ...] = (4, 3),
    var_shape: tuple[int, ...] | None = None,
    dtype: str = "float64",
    **options: Any,
) -> Case:
    """Compare the gradients of mean and variance."""
    var_shape = shape if var_shape is None else var_shape
    listed = "".join(f", {key}={value}" for key, value in options.items())
    return Case(
        f"GaussianNLL {shape} {var_shape}{listed}, {reduction}, {dtype}",
        layer=lambda: nn.GaussianNLL(reduction, **options),
        module=lambda torch: torch.nn.GaussianNLLLoss(reduction=reduction, **options),
        inputs=lambda rng: (
            rng.normal(size=shape),
            rng.normal(size=shape),
            rng.uniform(0.1, 2, size=var_shape),
        ),
        constants=(1,),
        dtype=dtype,
    )


_weight = [0.5, 1.0, 2.0, 0.25, 1.5]


def _each(make: Callable[..., Case], *args: Any, **options: Any) -> list[Case]:
    return [make(*args, reduction=reduction, **options) for reduction in REDUCTIONS]


CASES = [
    *_each(classes, "CrossEntropy", (4, 5)),
    *_each(classes, "CrossEntropy", (2, 3, 2, 2)),
    *_each(classes, "CrossEntropy", (4, 5), from_logits=False),
    *_each(classes, "CrossEntropy", (4, 5), weight=_weight, label_smoothing=0.1, ignored=-100),
    classes("CrossEntropy", (1, 3, 2, 2)),
    classes("CrossEntropy", (1, 3, 4), "none", from_logits=False),
    classes("CrossEntropy", (4, 5), scale=1e4),
    classes("CrossEntropy", (4, 1)),
    classes("CrossEntropy", (4, 5), weight=_weight),
    classes("CrossEntropy", (4, 5), label_smoothing=0.3),
    classes("CrossEntropy", (4, 5), ignored=2, ignore_index=2),
    classes("CrossEntropy", (4, 5), dtype="float32"),
    classes("CrossEntropy", (4, 5), weight=_weight, label_smoothing=0.1, dtype="float32"),
    classes("CrossEntropy", (4, 5), from_logits=False, dtype="float32"),
    *_each(classes, "CrossEntropy", (4, 5), soft=True),
    *_each(classes, "CrossEntropy", (2, 5, 3), weight=_weight, label_smoothing=0.1, soft=True),
    classes("CrossEntropy", (4, 5), dtype="float32", soft=True),
    *_each(classes, "NegativeLogLikelihood", (4, 5), weight=_weight, ignored=-100),
    classes("NegativeLogLikelihood", (2, 3, 2)),
    *(case for name in NUMBERS for case in _each(numbers, name)),
    numbers("Huber", delta=0.3),
    *_each(numbers, "BinaryCrossEntropy", from_logits=False),
    numbers("BinaryCrossEntropy", pos_weight=3.0),
    numbers("BinaryCrossEntropy", scale=1e4),
    *(numbers(name, dtype="float32") for name in NUMBERS),
    *_each(classes, "CrossEntropy", (2, 5, 3), dim=-1, weight=_weight, ignored=-100),
    classes("CrossEntropy", (2, 5, 3, 2), dim=-1, soft=True),
    *_each(classes, "MultiMargin", (4, 5)),
    *_each(classes, "MultiMargin", (4, 5), weight=_weight, p=2, margin=0.5),
    classes("MultiMargin", (4, 5), dtype="float32", weight=_weight),
    numbers("SmoothL1", beta=0.3),
    numbers("SmoothL1", beta=0.0),
    *_each(numbers, "PoissonNLL", log_input=False, full=True),
    numbers("PoissonNLL", full=True),
    *_each(numbers, "BinaryCrossEntropy", weight=[1.0, 0.5], pos_weight=[2.0, 3.0]),
    numbers(
        "BinaryCrossEntropy", reduction="none", weight=[[1.0], [0.5], [2.0]], from_logits=False
    ),
    numbers("BinaryCrossEntropy", weight=[1.0, 0.5], pos_weight=[2.0, 3.0], dtype="float32"),
    *_each(divergence),
    divergence("batchmean"),
    divergence("batchmean", (3, 4, 2), log_target=True),
    divergence(dtype="float32"),
    *_each(hinge),
    hinge(p=2, margin=0.5),
    hinge(dtype="float32"),
    *_each(quantile),
    quantile(dtype="float32"),
    *_each(focal),
    focal(gamma=0.5),
    focal(dtype="float32"),
    *_each(triplet),
    triplet(p=1.0),
    triplet(p=3.0, margin=0.2, swap=True),
    triplet("none", (4, 2, 3), swap=True),
    triplet(dtype="float32"),
    *_each(cosine),
    cosine(margin=0.4),
    cosine(dtype="float32"),
    *_each(gaussian),
    gaussian(full=True, eps=0.5),
    gaussian(var_shape=(4, 1)),
    gaussian("sum", (4, 2, 3), (4, 2)),
    gaussian(dtype="float32"),
]

_sizes = st.integers(1, 5)
_reductions = st.sampled_from(REDUCTIONS)
_dtypes = st.sampled_from(["float64", "float32"])


@st.composite
def _drawn_classes(draw: st.DrawFn) -> Case:
    shape = tuple(draw(st.lists(_sizes, min_size=2, max_size=4)))
    name = draw(st.sampled_from(["CrossEntropy", "NegativeLogLikelihood", "MultiMargin"]))
    options: dict[str, Any] = {}
    if name == "MultiMargin":
        shape = shape[:2]
        options = {"p": draw(st.sampled_from([1, 2])), "margin": draw(st.floats(0, 3))}
    if draw(st.booleans()):
        count = shape[1]
        options["weight"] = draw(st.lists(st.floats(0.25, 4), min_size=count, max_size=count))
    if name == "CrossEntropy" and draw(st.booleans()):
        options["label_smoothing"] = draw(st.floats(0, 1))
    elif name == "CrossEntropy" and not options and draw(st.booleans()):
        options["from_logits"] = False
    soft = name == "CrossEntropy" and options.get("from_logits", True) and draw(st.booleans())
    if name == "CrossEntropy" and options.get("from_logits", True) and draw(st.booleans()):
        options["dim"] = -1
    scale = draw(st.sampled_from([0.1, 2.0, 100.0]))
    return classes(name, shape, draw(_reductions), scale, draw(_dtypes), soft=soft, **options)


@st.composite
def _drawn_numbers(draw: st.DrawFn) -> Case:
    shape = tuple(draw(st.lists(_sizes, min_size=1, max_size=4)))
    name = draw(st.sampled_from(list(NUMBERS)))
    options: dict[str, Any] = {}
    if name == "Huber":
        options["delta"] = draw(st.floats(0.1, 3))
    elif name == "SmoothL1":
        options["beta"] = draw(st.floats(0.1, 3))
    elif name == "PoissonNLL":
        options = {"log_input": draw(st.booleans()), "full": draw(st.booleans())}
    elif name == "BinaryCrossEntropy" and draw(st.booleans()):
        options["pos_weight"] = draw(st.floats(0.1, 5))
    scale = draw(st.sampled_from([0.1, 2.0, 100.0]))
    return numbers(name, shape, draw(_reductions), scale, draw(_dtypes), **options)


@st.composite
def _drawn_pairs(draw: st.DrawFn) -> Case:
    shape = tuple(draw(st.lists(_sizes, min_size=2, max_size=3)))
    reduction, dtype = draw(_reductions), draw(_dtypes)
    name = draw(
        st.sampled_from(["KLDivergence", "TripletMargin", "CosineEmbedding", "GaussianNLL"])
    )
    if name == "KLDivergence":
        return divergence(reduction, shape, dtype, draw(st.booleans()))
    if name == "TripletMargin":
        options = {"margin": draw(st.floats(0.1, 3)), "p": draw(st.sampled_from([1.0, 2.0, 2.5]))}
        return triplet(reduction, shape, dtype, **options, swap=draw(st.booleans()))
    if name == "CosineEmbedding":
        return cosine(reduction, (shape[0], shape[1] + 1), dtype, draw(st.floats(-1, 1)))
    var_shape = draw(st.sampled_from([shape, (*shape[:-1], 1)]))
    return gaussian(reduction, shape, var_shape, dtype, full=draw(st.booleans()))


def drawn() -> st.SearchStrategy[Case]:
    """Draw a loss for predictions with any number of axes."""
    return _drawn_classes() | _drawn_numbers() | _drawn_pairs()
