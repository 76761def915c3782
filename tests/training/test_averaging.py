"""Averages of weights: the formulas, PyTorch's averages, and runs that are resumed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import nnlite as nn


def network() -> nn.Sequential:
    nn.seed(0)
    return nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 1))


def loader() -> nn.DataLoader:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 2)).astype(np.float32)
    return nn.DataLoader(x, x[:, :1] * x[:, 1:], batch_size=10, shuffle=True, rng=1)


def trained(callbacks: list[Any], epochs: int, **options: Any) -> nn.Sequential:
    model, data = network(), loader()
    optimizer = nn.SGD(model.parameters(), lr=0.1, momentum=0.9)
    nn.fit(
        model, nn.MeanSquaredError(), optimizer, data, epochs=epochs, callbacks=callbacks,
        progress=False, **options,
    )  # fmt: skip
    return model


class Record(nn.Callback):
    """Keeps the weights after every step and every epoch."""

    def __init__(self) -> None:
        self.steps: list[dict[str, Any]] = []
        self.epochs: list[dict[str, Any]] = []

    def on_step_end(self, training: nn.Training) -> None:
        self.steps.append(training.model.state_dict())

    def on_epoch_end(self, training: nn.Training) -> None:
        self.epochs.append(training.model.state_dict())


# ---- AveragedModel ----


@pytest.mark.parametrize("use_buffers", [False, True])
@pytest.mark.parametrize("decay", [None, 0.9])
def test_averages_and_state_dict_are_pytorchs(decay: float | None, use_buffers: bool) -> None:
    torch = pytest.importorskip("torch")
    swa = torch.optim.swa_utils
    model = network()
    theirs = torch.nn.Sequential(
        torch.nn.Linear(2, 4), torch.nn.BatchNorm1d(4), torch.nn.Tanh(), torch.nn.Linear(4, 1)
    )
    theirs.load_state_dict({k: torch.tensor(v) for k, v in model.state_dict().items()})
    average = nn.AveragedModel(model, decay, use_buffers)
    multi_avg_fn = None if decay is None else swa.get_ema_multi_avg_fn(decay)
    expected = swa.AveragedModel(theirs, multi_avg_fn=multi_avg_fn, use_buffers=use_buffers)
    rng = np.random.default_rng(0)
    for step in range(4):
        for name, value in theirs.state_dict().items():
            if value.dtype.is_floating_point:
                value += torch.tensor(rng.normal(size=value.shape), dtype=value.dtype)
            else:
                value += step
            model.load_state_dict({name: value.numpy()}, strict=False)
        average.update_parameters(model)
        expected.update_parameters(theirs)
    state = average.state_dict()
    assert set(state) == set(expected.state_dict())
    for name, value in expected.state_dict().items():
        if not use_buffers or "num_batches" not in name:  # PyTorch averages counts in integers
            assert_allclose(state[name], value.numpy(), rtol=1e-5, atol=1e-6, err_msg=name)


def test_the_average_computes_and_differentiates_as_its_module() -> None:
    average = nn.AveragedModel(nn.Linear(3, 2, rng=0))
    assert nn.gradcheck(average, np.random.default_rng(0).normal(size=(4, 3))).passed


def test_another_model_is_an_error_and_changes_nothing() -> None:
    average = nn.AveragedModel(nn.Linear(3, 2, rng=0))
    before = average.state_dict()
    with pytest.raises(ValueError, match="AveragedModel.*are not those averaged"):
        average.update_parameters(nn.Linear(2, 2))
    np.testing.assert_equal(average.state_dict(), before)
    with pytest.raises(ValueError, match="AveragedModel: decay must be between 0 and 1"):
        nn.AveragedModel(nn.Linear(1, 1), decay=1.5)
    with pytest.raises(TypeError, match="AveragedModel: the model must be a layer"):
        nn.AveragedModel([])  # type: ignore[arg-type]


# ---- update_bn ----


def test_statistics_are_pytorchs() -> None:
    torch = pytest.importorskip("torch")
    model = network()
    theirs = torch.nn.Sequential(
        torch.nn.Linear(2, 4), torch.nn.BatchNorm1d(4), torch.nn.Tanh(), torch.nn.Linear(4, 1)
    )
    theirs.load_state_dict({k: torch.tensor(v) for k, v in model.state_dict().items()})
    batches = [np.random.default_rng(s).normal(size=(8, 2)).astype(np.float32) for s in range(3)]
    model.eval()
    nn.update_bn([(x, None) for x in batches], model)
    torch.optim.swa_utils.update_bn([torch.tensor(x) for x in batches], theirs)
    for name, value in theirs.state_dict().items():
        assert_allclose(model.state_dict()[name], value.numpy(), rtol=1e-5, atol=1e-6)
    assert not any(layer.training for layer in model.layers())
    assert model[1].momentum == 0.1


def test_an_error_leaves_the_statistics() -> None:
    model = network()
    model(np.ones((3, 2), np.float32) * np.arange(3, dtype=np.float32)[:, None])
    before = model.state_dict()
    good, wrong = np.ones((4, 2), np.float32), np.ones((4, 3), np.float32)
    for batches, message in (([good, wrong], "Linear"), ([], "there are no batches")):
        with pytest.raises(ValueError, match=message):
            nn.update_bn(batches, model)
        np.testing.assert_equal(model.state_dict(), before)
        assert model[1].momentum == 0.1
    nn.update_bn([], nn.Linear(1, 1))  # there is nothing to compute


# ---- the callbacks ----


def test_ema_is_the_decayed_mean_over_the_steps() -> None:
    record = Record()
    model = trained([record, nn.EMA(decay=0.75, update_bn=False)], epochs=2)
    expected = record.steps[0]["0.weight"].astype(np.float64)
    for weights in record.steps[1:]:
        expected = 0.75 * expected + 0.25 * weights["0.weight"]
    assert_allclose(model[0].weight.data, expected, rtol=1e-5)


def test_swa_is_the_mean_over_the_epochs_with_statistics_of_its_own() -> None:
    record = Record()
    model = trained([record, nn.SWA(start=3)], epochs=5)
    for name in ("0.weight", "3.bias"):
        mean = np.mean([weights[name] for weights in record.epochs[2:]], axis=0)
        assert_allclose(model.state_dict()[name], mean, rtol=1e-5, atol=1e-6)
    x, _ = loader().arrays
    features = model[0](x)
    assert_allclose(model[1].running_mean, features.mean(axis=0), rtol=1e-4, atol=1e-5)
    assert int(model[1].num_batches_tracked) == 4


def test_a_run_that_ends_before_the_start_keeps_its_weights() -> None:
    plain, averaged = trained([], 2), trained([nn.SWA(start=3)], 2)
    for name, value in plain.state_dict().items():
        assert_array_equal(averaged.state_dict()[name], value)


@pytest.mark.parametrize("make", [lambda: nn.EMA(0.9), lambda: nn.SWA(start=2)], ids=["EMA", "SWA"])
def test_a_run_resumed_after_its_end_gives_the_same_bits(make: Any, tmp_path: Path) -> None:
    whole = trained([make()], 5)
    trained([make()], 3, checkpoint=tmp_path / "run.npz")
    resumed = trained([make()], 5, checkpoint=tmp_path / "run.npz", resume=True)
    for name, value in whole.state_dict().items():
        assert_array_equal(resumed.state_dict()[name], value, err_msg=name)


def test_a_run_resumed_with_another_decay_is_an_error(tmp_path: Path) -> None:
    trained([nn.EMA(0.9)], 1, checkpoint=tmp_path / "run.npz")
    with pytest.raises(ValueError, match=r"EMA: the state is of decay=0\.9, this one has 0\.5"):
        trained([nn.EMA(0.5)], 2, checkpoint=tmp_path / "run.npz", resume=True)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nn.EMA(decay=-0.1), "EMA: decay must be between 0 and 1"),
        (lambda: nn.SWA(start=0), "SWA: start must be at least 1"),
    ],
)
def test_options_out_of_range_are_an_error(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        make()
