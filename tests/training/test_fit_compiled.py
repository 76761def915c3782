"""fit(compile=True) is fit, but for rounding."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose

import nnlite as nn
from nnlite.compiled import fitting

from .test_fit import blobs


@pytest.fixture(autouse=True)
def as_plain_python(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = functools.partial(fitting.CompiledFit, native=False)
    monkeypatch.setattr(fitting, "CompiledFit", plain)


def classifier() -> nn.Sequential:
    nn.seed(1)
    layers = nn.Linear(5, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Dropout(0.2), nn.Linear(8, 3)
    return nn.Sequential(*layers).astype(np.float64)


def trained(compile: bool, loss: nn.Loss | None = None, **options: Any) -> Any:
    """Return model, optimizer and history of a run."""
    model = classifier()
    make = options.pop("optimizer", functools.partial(nn.SGD, lr=0.1, momentum=0.9))
    optimizer = make(model.parameters())
    schedule = options.pop("schedule", None)
    nn.seed(2)
    data = (*blobs(70), *options.pop("weights", ()))
    train = nn.DataLoader(
        *data, batch_size=16, shuffle=True, transform=options.pop("transform", None)
    )
    history = nn.fit(
        model, loss or nn.CrossEntropy(), optimizer, train, progress=False, compile=compile,
        **{"epochs": 2, **options, "schedule": schedule and schedule(optimizer)},
    )  # fmt: skip
    return model, optimizer, history


def assert_same_run(one: Any, other: Any) -> None:
    for a, b in zip(one[0].state_dict().values(), other[0].state_dict().values(), strict=True):
        assert_allclose(a, b, rtol=1e-8, atol=1e-10)
    assert dict(one[2]).keys() == dict(other[2]).keys()
    for name, values in one[2].items():
        assert_allclose(values, other[2][name], rtol=1e-8)
    steps = [run[1].state_dict()["state"][0]["step"] for run in (one, other)]
    assert steps[0] == steps[1]


def jittered(points: Any, labels: Any) -> Any:
    return points + nn.random.generator().normal(size=points.shape), labels


CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "validation and metrics": {"validation": blobs(30, 1), "metrics": [nn.accuracy]},
    "Adam": {"optimizer": functools.partial(nn.Adam, lr=0.01)},
    "groups": {
        "optimizer": lambda p: nn.RMSprop(
            [{"params": [q], "lr": 0.01 / (1 + i)} for i, q in enumerate(p)]
        )
    },
    "a schedule of steps": {
        "schedule": lambda o: nn.LinearLR(o, 1.0, 0.0, 15),
        "schedule_every": "step",
    },
    "plateaus": {"schedule": lambda o: nn.ReduceLROnPlateau(o, patience=0)},
    "clipping": {"max_grad_norm": 0.1},
    "accumulation": {"accumulate": 3},
    "sample weights": {"weights": (np.linspace(0, 2, 70),), "accumulate": 2},
    "class weights": {"loss": nn.CrossEntropy(weight=[1.0, 2.0, 0.5], label_smoothing=0.1)},
    "ignored labels": {"loss": nn.CrossEntropy(ignore_index=1)},
    "a sum": {"loss": nn.CrossEntropy(reduction="sum"), "max_grad_norm": 1.0},
    "augmentation": {"transform": jittered},
    "early stopping": {
        "callbacks": [nn.EarlyStopping(patience=1)], "validation": blobs(30, 1), "epochs": 9
    },
    "no rollback": {"rollback": False},
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_it_is_the_run_that_is_not_compiled(name: str) -> None:
    assert_same_run(*[trained(compile, **CASES[name]) for compile in (True, False)])


def test_sequences_of_different_lengths() -> None:
    rng = np.random.default_rng(0)
    present = np.arange(6) < rng.integers(1, 7, size=(40, 1))
    sequences = np.where(present[..., None], rng.normal(size=(40, 6, 3)), np.nan)
    data = (sequences, present), rng.integers(2, size=40)
    runs = []
    for compile in (True, False):
        nn.seed(0)
        model = nn.Graph(
            {
                "h": (nn.GRU(3, 4, outputs="last"), "x", {"mask": "present"}),
                "y": (nn.Linear(4, 2), "h"),
            },
            inputs=("x", "present"),
        ).astype(np.float64)
        optimizer = nn.Adam(model.parameters(), lr=0.01)
        loader = nn.DataLoader(*data, batch_size=12, shuffle=True)
        history = nn.fit(
            model, nn.CrossEntropy(), optimizer, loader, validation=data, epochs=2,
            compile=compile, progress=False,
        )  # fmt: skip
        runs.append((model, optimizer, history))
    assert_same_run(*runs)


def test_machine_code_too(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("numba")
    pytest.importorskip("scipy")
    monkeypatch.undo()
    options = CASES["validation and metrics"]
    assert_same_run(*[trained(compile, **options) for compile in (True, False)])


def test_a_checkpoint_is_resumed_with_the_same_bits(tmp_path: Path) -> None:
    file = tmp_path / "run.npz"
    whole = trained(True, epochs=4)
    trained(True, epochs=2, checkpoint=file)
    resumed = trained(True, epochs=4, checkpoint=file, resume=True)
    for a, b in zip(whole[0].parameters(), resumed[0].parameters(), strict=True):
        assert (a.data == b.data).all()


def test_a_checkpoint_may_go_on_uncompiled(tmp_path: Path) -> None:
    file = tmp_path / "run.npz"
    whole = trained(False, epochs=4)
    trained(True, epochs=2, checkpoint=file)
    assert_same_run(whole, trained(False, epochs=4, checkpoint=file, resume=True))


@pytest.mark.parametrize("rollback", [True, False])
def test_a_loss_that_is_not_finite_is_the_same_error(rollback: bool) -> None:
    errors, models = [], []
    for compile in (True, False):
        nn.seed(0)
        model = nn.Sequential(nn.Linear(5, 3))
        optimizer = nn.SGD(model.parameters(), lr=1e38)
        points, _ = blobs()
        loader = nn.DataLoader(points, 1e3 * points[:, :3], batch_size=16)
        with pytest.raises(ValueError, match=r"batch 2: .*(last weights|off)") as error:
            nn.fit(
                model, nn.MeanSquaredError(), optimizer, loader, compile=compile, rollback=rollback,
                progress=False, epochs=3,
            )  # fmt: skip
        errors.append(str(error.value))
        models.append(model)
    assert errors[0] == errors[1]
    if rollback:
        for a, b in zip(*[model.parameters() for model in models], strict=True):
            assert_allclose(a.data, b.data, rtol=1e-4)


def test_data_that_are_not_finite_are_named() -> None:
    points, labels = blobs()
    points[20] = np.nan
    model = classifier()
    with pytest.raises(ValueError, match=r"epoch 1, batch 2: the data of this batch contain NaN"):
        nn.fit(
            model, nn.CrossEntropy(), nn.SGD(model.parameters(), 0.1),
            nn.DataLoader(points, labels, batch_size=16), compile=True, progress=False,
        )  # fmt: skip


def test_a_layer_without_a_compiled_form_is_named() -> None:
    model = nn.Sequential(nn.Linear(5, 3), nn.Lambda(np.sin, np.cos))
    with pytest.raises(TypeError, match=r"Lambda\(sin, cos\) \('1' in the model\) has no compiled"):
        nn.fit(
            model, nn.CrossEntropy(), nn.SGD(model.parameters(), 0.1),
            nn.DataLoader(*blobs(), batch_size=16), compile=True, progress=False,
        )  # fmt: skip
