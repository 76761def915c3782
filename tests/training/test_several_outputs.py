"""fit, evaluate and predict with models of several outputs, and losses of several predictions."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import nnlite as nn

Array = np.ndarray[Any, Any]

RNG = np.random.default_rng(0)
X, Y, Z = RNG.normal(size=(3, 10, 4)).astype(np.float32)
SIGNS = np.where(np.arange(10) % 3, 1, -1)
NUMBERS = RNG.normal(size=(10, 1)).astype(np.float32)


def siamese(count: int) -> nn.Graph:
    """Return a graph that applies one encoder to each of its inputs."""
    nn.seed(0)
    encoder, names = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)), "abc"[:count]
    nodes = {name: (encoder if name == "a" else encoder.tied(), f"x{name}") for name in names}
    return nn.Graph(nodes, inputs=tuple(f"x{name}" for name in names), outputs=tuple(names))


def with_variance() -> nn.Graph:
    nn.seed(0)
    nodes = {
        "mean": (nn.Linear(4, 1), "x"),
        "log": (nn.Linear(4, 1), "x"),
        "var": (nn.Exp(), "log"),
    }
    return nn.Graph(nodes, inputs=("x",), outputs=("mean", "var"))


def call_triplet(loss: Any, outputs: Any, batch: Any) -> float:
    return float(loss(*outputs))


def call_cosine(loss: Any, outputs: Any, batch: Any) -> float:
    return float(loss(*outputs, batch[-1]))


def call_gaussian(loss: Any, outputs: Any, batch: Any) -> float:
    mean, var = outputs
    return float(loss(mean, batch[-1], var))


CASES: dict[str, Any] = {
    "TripletMargin": (nn.TripletMargin, lambda: siamese(3), (X, Y, Z), (X, Y, Z), call_triplet),
    "CosineEmbedding": (
        *(nn.CosineEmbedding, lambda: siamese(2), (X, Y), ((X, Y), SIGNS), call_cosine),
    ),
    "GaussianNLL": (nn.GaussianNLL, with_variance, (X,), (X, NUMBERS), call_gaussian),
}
every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


@every_case
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_fit_is_the_loop_by_hand(case: Any, reduction: str) -> None:
    kind, make, inputs, data, call = case
    model, loss = make(), kind(reduction)
    optimizer = nn.SGD(model.parameters(), lr=0.05)
    by_hand, other = copy.deepcopy((model, optimizer))
    loader = nn.DataLoader(*data, batch_size=4)
    history = nn.fit(model, loss, optimizer, loader, validation=data, epochs=2, progress=False)
    for _ in range(2):
        for batch in loader:
            flat = [*batch[0], *batch[1:]] if isinstance(batch[0], tuple) else batch
            outputs = by_hand(*flat[: len(inputs)])
            call(loss, outputs, flat)
            other.zero_grad()
            by_hand.backward(loss.backward(), input_grad=False)
            other.step()
    for one, two in zip(model.parameters(), by_hand.parameters(), strict=True):
        assert_array_equal(one.data, two.data)
    whole = call(loss, model.eval()(*inputs), data)
    assert_allclose(history["validation_loss"][-1], whole, rtol=1e-5)


@every_case
def test_the_loss_does_not_depend_on_the_size_of_batches(case: Any) -> None:
    kind, make, _, data, _ = case
    model = make()
    losses = [
        nn.evaluate(model, kind(), batches, batch_size=size)["loss"]
        for size in (3, 10)
        for batches in (data, nn.DataLoader(*data, batch_size=size))
    ]
    assert_allclose(losses, losses[0], rtol=1e-6)


@every_case
def test_predict_returns_a_tuple(case: Any) -> None:
    _, make, inputs, _, _ = case
    model = make()
    predicted = nn.predict(model, inputs, batch_size=4)
    assert isinstance(predicted, tuple)
    for one, other in zip(predicted, model(*inputs), strict=True):
        assert_allclose(one, other, rtol=1e-6)


@every_case
def test_a_loss_of_several_predictions_needs_as_many_outputs(case: Any) -> None:
    data = (X, NUMBERS) if case[0].takes_target else (X,)
    with pytest.raises(TypeError, match=r"expected a model of [23] outputs, .* got one output"):
        nn.evaluate(nn.Linear(4, 1), case[0](), data)


def test_triplets_may_have_weights() -> None:
    model, weights = siamese(3), np.arange(10.0)
    loss = nn.TripletMargin()
    expected = loss(*model(X, Y, Z), weights)
    assert_allclose(
        nn.evaluate(model, loss, nn.DataLoader((X, Y, Z), weights, batch_size=3))["loss"],
        expected,
        rtol=1e-6,
    )


def test_metrics_get_the_outputs_as_a_tuple_and_no_target_where_there_is_none() -> None:
    seen: list[Any] = []

    def count(outputs: Any, targets: Any) -> float:
        seen.append(targets)
        return float(len(outputs))

    metrics = {"count": count, "rows": nn.EpochMetric(lambda outputs, _: len(outputs[2]))}
    figures = nn.evaluate(siamese(3), nn.TripletMargin(), (X, Y, Z), metrics=metrics, batch_size=4)
    assert figures["count"] == 3
    assert figures["rows"] == 10
    assert seen == [None] * 3
    figures = nn.evaluate(
        with_variance(), nn.GaussianNLL(), (X, NUMBERS), batch_size=4,
        metrics={"error": nn.EpochMetric(lambda outputs, t: float(abs(outputs[0] - t).mean()))},
    )  # fmt: skip
    mean, _ = nn.predict(with_variance(), X)
    assert_allclose(figures["error"], abs(mean - NUMBERS).mean(), rtol=1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: nn.evaluate(
                with_variance(), nn.GaussianNLL(), (X, NUMBERS), metrics=[nn.r2_score]
            ),
            "the metric 'r2_score' got a tuple of 2 outputs: .*lambda outputs, targets",
        ),
        (
            lambda: nn.evaluate(with_variance(), nn.MeanSquaredError(), (X, NUMBERS)),
            "expected predictions as one array, got a tuple of 2",
        ),
        (
            lambda: nn.evaluate(with_variance(), nn.CrossEntropy(), (X, SIGNS > 0)),
            "expected predictions as one array, got a tuple of 2",
        ),
        (
            lambda: nn.evaluate(siamese(3), nn.TripletMargin(), [((X, Y, Z), SIGNS, SIGNS)]),
            "takes no target: a batch must have the inputs, or be a pair",
        ),
        (
            lambda: nn.fit(
                siamese(3), nn.TripletMargin(), nn.SGD(siamese(3).parameters(), lr=0.1),
                nn.DataLoader(X, Y, Z),
            ),
            "not in the model",
        ),
    ],
    ids=["metric", "one prediction", "classes", "three items", "optimizer"],
)  # fmt: skip
def test_errors(make: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        make()


def test_diagnose_takes_them_too() -> None:
    assert nn.diagnose(with_variance(), nn.GaussianNLL(), (X, NUMBERS)).checks
    assert nn.diagnose(siamese(3), nn.TripletMargin(), (X, Y, Z)).checks
