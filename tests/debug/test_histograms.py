"""Histograms of weights and activations are those of NumPy, in each epoch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nnlite as nn
from nnlite.debug.histograms import outputs_of

X = np.random.default_rng(0).normal(size=(32, 2)).astype(np.float32)


def start() -> tuple[Any, ...]:
    nn.seed(1)
    model = nn.Sequential(nn.Linear(2, 8), nn.Dropout(0.5), nn.Tanh(), nn.Linear(8, 1))
    optimizer = nn.SGD(model.parameters(), lr=0.1)
    return model, nn.MeanSquaredError(), optimizer, [(X, X[:, :1])]


def test_they_are_those_of_each_epoch() -> None:
    model, *rest = start()
    weights, outputs = [model[0].weight.data.copy()], [nn.predict(model[:3], X)]

    def keep(training: nn.Training) -> None:
        weights.append(model[0].weight.data.copy())
        outputs.append(nn.predict(model[:3], X))

    histograms = nn.Histograms(X, bins=7)
    nn.fit(model, *rest, epochs=3, callbacks=[keep, histograms], progress=False)
    assert histograms.epochs == [0, 1, 2, 3]
    for recorded, values in ((histograms.weights["0.weight"], weights),
                             (histograms.activations["2"], outputs)):  # fmt: skip
        for (counts, edges), array in zip(recorded, values, strict=True):
            expected = np.histogram(array, bins=7)
            np.testing.assert_array_equal(counts, expected[0])
            np.testing.assert_array_equal(edges, expected[1])


def test_training_is_the_same_with_them() -> None:
    states = []
    for callbacks in ([], [nn.Histograms(X)]):
        model, *rest = start()
        nn.fit(model, *rest, epochs=3, callbacks=callbacks, progress=False)
        states.append(model.state_dict())
    np.testing.assert_equal(*states)


def test_without_inputs_there_are_no_activations() -> None:
    histograms = nn.Histograms()
    nn.fit(*start(), epochs=1, callbacks=[histograms], progress=False)
    assert histograms.activations == {}
    assert list(histograms.weights) == ["0.weight", "0.bias", "3.weight", "3.bias"]


def test_a_resumed_run_has_them_all(tmp_path: Path) -> None:
    whole, parts = nn.Histograms(X), nn.Histograms(X)
    nn.fit(*start(), epochs=4, callbacks=[whole], progress=False)
    nn.fit(*start(), epochs=2, callbacks=[nn.Histograms(X)], checkpoint=tmp_path / "run.npz",
           progress=False)  # fmt: skip
    nn.fit(*start(), epochs=4, callbacks=[parts], checkpoint=tmp_path / "run.npz", resume=True,
           progress=False)  # fmt: skip
    assert parts.epochs == whole.epochs
    np.testing.assert_equal(parts.weights, whole.weights)
    np.testing.assert_equal(parts.activations, whole.activations)


def test_what_is_not_finite_is_left_out() -> None:
    class Bad(nn.Layer):
        def forward(self, x: np.ndarray) -> np.ndarray:
            return np.where(x > 0, np.nan, x)

    found = outputs_of(nn.Sequential(Bad()), (np.array([1.0, -1.0, -2.0]),))
    assert np.isnan(found["0"]).sum() == 1
    model, *rest = start()
    histograms = nn.Histograms(np.array([[np.nan, 1], [2, 3]], np.float32))
    nn.fit(model, *rest, epochs=1, callbacks=[histograms], progress=False)
    assert histograms.activations["0"][0][0].sum() == 8  # of the second sample alone


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="Histograms: bins"):
        nn.Histograms(bins=0)
    with pytest.raises(ValueError, match=r"Linear\(2, 8\): expected input of shape"):
        nn.fit(*start(), callbacks=[nn.Histograms(X[:, :1])], progress=False)
