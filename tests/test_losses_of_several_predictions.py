"""Losses of several predictions: each gets its gradient, and wrong input changes nothing."""

from __future__ import annotations

import copy
import math
import pickle
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import nnlite as nn

Array = np.ndarray[Any, Any]

LOSSES: dict[str, Any] = {
    "TripletMargin": lambda r: nn.TripletMargin(r),
    "TripletMargin, swapped": lambda r: nn.TripletMargin(r, 3.0, p=3.0, swap=True),
    "CosineEmbedding": lambda r: nn.CosineEmbedding(r, 0.1),
    "GaussianNLL": lambda r: nn.GaussianNLL(r, full=True),
}
every_loss = pytest.mark.parametrize("make", LOSSES.values(), ids=LOSSES.keys())


def inputs_of(loss: nn.Loss, dtype: Any = np.float64) -> tuple[Array, ...]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3, 4, 2, 3)).astype(dtype)
    if isinstance(loss, nn.TripletMargin):
        return tuple(x)
    if isinstance(loss, nn.CosineEmbedding):
        return x[0], x[1], rng.choice([-1, 1], size=(4, 2))
    return x[0], x[1], np.exp(x[2])


def of_predictions(loss: nn.Loss, inputs: tuple[Array, ...]) -> list[Array]:
    """Return the inputs that are predictions, and get a gradient."""
    constant = {nn.CosineEmbedding: 2, nn.GaussianNLL: 1}.get(type(loss))
    return [x for position, x in enumerate(inputs) if position != constant]


@every_loss
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_every_gradient_agrees_with_central_differences(make: Any, reduction: str) -> None:
    loss = make(reduction)
    inputs = inputs_of(loss)
    if isinstance(loss, nn.GaussianNLL):
        # The gradient checker takes a gradient for each input, the target's included.
        class Fixed(nn.Loss):
            def forward(self, mean: Array, var: Array) -> Any:  # type: ignore[override]
                value = loss(mean, inputs[1], var)
                self.cache()
                return value

            def backward(self, grad: Any = 1.0, input_grad: bool = True) -> Any:
                return loss.backward(grad, input_grad)

        assert nn.gradcheck(Fixed(reduction), inputs[0], inputs[2]).passed
    else:
        assert nn.gradcheck(loss, *inputs).passed


@every_loss
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_gradients_have_shape_and_dtype_of_the_predictions(make: Any, dtype: Any) -> None:
    loss = make("mean")
    inputs = inputs_of(loss, dtype)
    assert isinstance(loss(*inputs), float)
    first, second = loss.backward(), loss.backward()
    for prediction, grad, again in zip(of_predictions(loss, inputs), first, second, strict=True):
        assert grad.shape == prediction.shape
        assert grad.dtype == dtype
        assert_array_equal(grad, again)
    assert loss.backward(input_grad=False) is None


@every_loss
def test_weights_count_a_sample_as_often_as_they_say(make: Any) -> None:
    for reduction in ("mean", "sum"):
        weighted, repeated = make(reduction), make(reduction)
        inputs, times = inputs_of(weighted), np.array([2, 0, 1, 3])
        value = weighted(*inputs, sample_weight=times)
        many = repeated(*(x.repeat(times, axis=0) for x in inputs))
        assert value == pytest.approx(many, rel=1e-12)
        for grad, of_many in zip(weighted.backward(), repeated.backward(), strict=True):
            sums = np.insert(np.add.reduceat(of_many, [0, 2, 3]), 1, 0, axis=0)
            assert_allclose(grad, sums, rtol=1e-12, atol=1e-15)


@every_loss
def test_wrong_input_is_an_error_and_leaves_the_last_gradients(make: Any) -> None:
    loss = make("mean")
    inputs = inputs_of(loss)
    loss(*inputs)
    expected = loss.backward()
    for position, value in enumerate(inputs):
        for wrong in (value[:3], value[..., None], value[:0], value * np.nan, value.astype(str)):
            with pytest.raises((ValueError, TypeError), match=f"^{type(loss).__name__}\\("):
                loss(*inputs[:position], wrong, *inputs[position + 1 :])
    for grad, before in zip(loss.backward(), expected, strict=True):
        assert_array_equal(grad, before)


@every_loss
def test_copies_and_the_repr_are_the_same_loss(make: Any) -> None:
    loss = make("sum")
    inputs = inputs_of(loss)
    value = loss(*inputs)
    typed = eval(repr(loss), dict(vars(nn)))
    for twin in (copy.deepcopy(loss), pickle.loads(pickle.dumps(loss)), typed):
        assert repr(twin) == repr(loss)
        assert twin(*inputs) == value


# ---- TripletMargin ----


def test_equal_embeddings_have_finite_gradients() -> None:
    x = np.ones((2, 3), np.float32)
    for eps in (1e-6, 0.0):
        loss = nn.TripletMargin(eps=eps)
        assert loss(x, x, x) == 1.0
        assert all(np.isfinite(grad).all() for grad in loss.backward())


def test_triplets_that_are_far_enough_apart_cost_nothing() -> None:
    loss = nn.TripletMargin("none", margin=0.5)
    a, p, n = np.zeros((1, 2)), np.array([[1.0, 0.0]]), np.array([[0.0, 2.0]])
    assert_array_equal(loss(a, p, n), [0])
    assert all((grad == 0).all() for grad in loss.backward())


# ---- CosineEmbedding ----


def test_the_cosine_by_hand() -> None:
    x, y = np.array([[3.0, 0.0], [3.0, 0.0]]), np.array([[1.0, 1.0], [1.0, 1.0]])
    c = math.sqrt(0.5)
    loss = nn.CosineEmbedding("none", margin=0.25)
    assert_allclose(loss(x, y, [1, -1]), [1 - c, c - 0.25], rtol=1e-12)
    # ∂c/∂x is the part of y/‖y‖ that is perpendicular to x, over ‖x‖.
    assert_allclose(loss.backward()[0], [[0, -c / 3], [0, c / 3]], atol=1e-12)


def test_embeddings_of_zero_have_finite_gradients() -> None:
    loss = nn.CosineEmbedding()
    assert loss(np.zeros((1, 2)), np.ones((1, 2)), [1]) == 1.0
    assert all(np.isfinite(grad).all() for grad in loss.backward())


# ---- GaussianNLL ----


def test_the_best_variance_is_the_squared_error() -> None:
    loss = nn.GaussianNLL()
    loss(np.array([[1.0]]), np.array([[4.0]]), np.array([[9.0]]))
    assert_allclose(loss.backward()[1], 0, atol=1e-15)


def test_a_variance_of_zero_counts_as_eps_and_can_rise() -> None:
    loss = nn.GaussianNLL(eps=0.5)
    assert loss(np.array([[1.0]]), np.array([[2.0]]), np.array([[0.0]])) == pytest.approx(
        (math.log(0.5) + 2) / 2
    )
    assert_allclose(loss.backward()[1], [[(2 - 4) / 2]])


# ---- options and targets ----


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nn.TripletMargin(margin=-1.0), "TripletMargin: margin must be at least 0"),
        (lambda: nn.TripletMargin(margin=0), "TripletMargin: margin must be above 0"),
        (lambda: nn.TripletMargin(p=0.5), "TripletMargin: p must be at least 1"),
        (lambda: nn.CosineEmbedding(margin=-1.5), "CosineEmbedding: margin must be between -1"),
        (lambda: nn.GaussianNLL(eps=0), "GaussianNLL: eps must be above 0"),
        (lambda: nn.MultiMargin(margin=-1), "MultiMargin: margin must be at least 0"),
        (lambda: nn.MultiMargin(p=3), "MultiMargin: p must be 1 or 2"),
        (lambda: nn.Hinge(margin=-1), "Hinge: margin must be at least 0"),
        (lambda: nn.Focal(gamma=-1), "Focal: gamma must be at least 0"),
        (lambda: nn.Quantile(quantile=1.5), "Quantile: quantile must be between 0 and 1"),
        (lambda: nn.SmoothL1(beta=-1), "SmoothL1: beta must be at least 0"),
        (lambda: nn.CrossEntropy(dim=2), "CrossEntropy: dim must be 1 or -1"),
        (lambda: nn.BinaryCrossEntropy(weight=[-1.0]), "BinaryCrossEntropy: weight must be finite"),
        (lambda: nn.BinaryCrossEntropy(pos_weight=[np.nan]), "BinaryCrossEntropy: pos_weight must"),
    ],
)
def test_options_out_of_range_are_an_error(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        make()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: nn.CosineEmbedding()(np.ones((1, 2)), np.ones((1, 2)), [0]), "-1 or 1.*2 . lab"),
        (lambda: nn.Hinge()(np.ones(2), [0, 1]), r"-1 or 1.*2 \* labels - 1"),
        (
            lambda: nn.GaussianNLL()(np.ones((1, 2)), np.ones((1, 2)), -np.ones((1, 2))),
            "variances of at least 0",
        ),
        (
            lambda: nn.GaussianNLL()(np.ones((1, 2)), np.ones((1, 2)), np.ones((2, 2))),
            r"variances of the same shape, or of \(1, 1\), got \(2, 2\)",
        ),
        (lambda: nn.PoissonNLL()(np.ones(2), [-1, 1]), "targets are counts, got -1"),
        (lambda: nn.PoissonNLL(log_input=False)(-np.ones(2), [1, 1]), "rates of at least 0"),
        (
            lambda: nn.KLDivergence()(-np.ones((1, 2)), np.array([[0.5, 0.6]])),
            "probabilities with a sum of 1",
        ),
        (
            lambda: nn.KLDivergence(log_target=True)(-np.ones((1, 2)), np.zeros((1, 2))),
            "logarithms of probabilities with a sum of 1",
        ),
        (
            lambda: nn.BinaryCrossEntropy(weight=[1.0, 2.0])(np.ones((1, 3)), np.ones((1, 3))),
            r"weight of shape \(2,\) does not broadcast to predictions of shape \(1, 3\)",
        ),
        (lambda: nn.MultiMargin()(np.ones((1, 3)), [3]), r"labels must be in \[0, 3\)"),
        (lambda: nn.MultiMargin()(np.ones((1, 3, 2)), [[0, 1]]), r"shape \(N, classes\)"),
        (lambda: nn.MultiMargin(weight=[1.0])(np.ones((1, 3)), [0]), "1 class weights do not fit"),
    ],
)
def test_predictions_and_targets_out_of_range_are_an_error(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=rf"^\w+\(.*\): .*{message}"):
        call()


def test_raw_logits_given_to_a_divergence_are_warned_of() -> None:
    with pytest.warns(UserWarning, match=r"expects log-probabilities.*LogSoftmax"):
        nn.KLDivergence()(np.array([[1.0, -1.0]]), np.array([[0.5, 0.5]]))


def test_focal_with_gamma_0_is_cross_entropy(rng: np.random.Generator) -> None:
    x, target, weight = rng.normal(size=(6, 4)), rng.integers(4, size=6), [1.0, 2.0, 0.5, 0.0]
    focal, plain = nn.Focal(gamma=0, weight=weight), nn.CrossEntropy(weight=weight)
    assert focal(x, target) == pytest.approx(plain(x, target), rel=1e-12)
    assert_allclose(focal.backward(), plain.backward(), rtol=1e-10, atol=1e-15)


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
def test_focal_of_certain_labels_is_finite(gamma: float) -> None:
    loss = nn.Focal("none", gamma=gamma)
    with np.errstate(all="raise", under="ignore"):
        losses = loss(np.array([[1e4, 0.0], [0.0, 1e4]]), [0, 0])
        grad = loss.backward()
    assert_allclose(losses, [0, 1e4])
    assert_allclose(grad, [[0, 0], [-1, 1]], atol=1e-12)


def test_class_weights_of_multi_margin_and_binary_losses_do_not_count_batches() -> None:
    # Their means divide by the number of samples, so batches of an epoch count by their sizes.
    x, y = np.array([[1.0], [2.0], [3.0]], np.float32), np.array([[0], [1], [1]])
    model = nn.Sequential(nn.Linear(1, 1, rng=0))
    loss = nn.BinaryCrossEntropy(weight=[2.0], pos_weight=[3.0])
    whole = nn.evaluate(model, loss, (x, y), batch_size=3)
    assert nn.evaluate(model, loss, (x, y), batch_size=2) == pytest.approx(whole)
