"""fit(compile=True) is fit, but for rounding."""

from __future__ import annotations

import functools
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose

import nnlite as nn
from nnlite.compiled import fitting, split, steps
from nnlite.compiled.epochs import EpochProgram
from nnlite.training import supervisor

from .test_fit import blobs


@pytest.fixture(autouse=True)
def as_plain_python(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = functools.partial(fitting.CompiledFit, native=False)
    monkeypatch.setattr(fitting, "CompiledFit", plain)


def classifier(dropout: float = 0.2, norm: type[nn.Layer] = nn.BatchNorm1d) -> nn.Sequential:
    """Return a network, of which a call makes many steps only without dropout."""
    nn.seed(1)
    layers = [nn.Linear(5, 8), norm(8), nn.Tanh(), nn.Linear(8, 3)]
    if dropout:
        layers.insert(3, nn.Dropout(dropout))
    return nn.Sequential(*layers).astype(np.float64)


def trained(
    compile: bool, loss: nn.Loss | None = None, model: nn.Layer | None = None, **options: Any
) -> Any:
    """Return model, optimizer and history of a run."""
    model = model or classifier()
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
        # Adam divides the gradient of a bias before batch norm, all of it rounding, by its size.
        assert_allclose(a, b, rtol=1e-8, atol=1e-9)
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


@pytest.fixture(params=[0.0, 1e9], ids=["steps", "stretches"])
def seconds(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> float:
    """Let each call make one step, or as many as it may."""
    monkeypatch.setattr(supervisor, "_SECONDS", request.param)
    return float(request.param)


@pytest.mark.parametrize("dropout", [0.2, 0.0])
@pytest.mark.parametrize("name", CASES)
@pytest.mark.usefixtures("seconds")
def test_it_is_the_run_that_is_not_compiled(name: str, dropout: float) -> None:
    runs = [trained(compile, model=classifier(dropout), **CASES[name]) for compile in (True, False)]
    assert_same_run(*runs)


def in_two_parts(work: Any, length: int, size: int) -> None:
    work(0, length // 2)
    work(length // 2, length)


@pytest.mark.parametrize("norm", [nn.LayerNorm, nn.BatchNorm1d])
@pytest.mark.parametrize("name", CASES)
def test_batches_divided_among_threads(
    name: str, norm: type[nn.Layer], monkeypatch: pytest.MonkeyPatch
) -> None:
    for constant in ("_WAITING", "_ADDING"):
        monkeypatch.setattr(split, constant, 0)
    monkeypatch.setattr(split, "threads_of_products", lambda: 3)
    monkeypatch.setattr(steps, "share", in_two_parts)
    runs = [trained(compile, model=classifier(0, norm), **CASES[name]) for compile in (True, False)]
    assert_same_run(*runs)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return the list of the numbers of steps that native calls have made."""
    monkeypatch.setattr(supervisor, "_SECONDS", 1e9)
    made: list[int] = []
    steps = EpochProgram.steps

    def counted(self: EpochProgram, *arguments: Any) -> Any:
        losses, outputs = steps(self, *arguments)
        made.append(len(losses))
        return losses, outputs

    monkeypatch.setattr(EpochProgram, "steps", counted)
    return made


def test_a_call_makes_many_steps(calls: list[int]) -> None:
    trained(True, model=classifier(0), epochs=2)  # of 5 steps each
    assert calls == [0, 1, 4, 5]  # the first compiles, the second takes the time


def test_calls_end_where_subnormals_are_flushed(calls: list[int]) -> None:
    trained(True, model=classifier(0), optimizer=functools.partial(nn.Adam, lr=0.01), epochs=14)
    assert np.cumsum(calls)[-1] == 70
    assert 64 in np.cumsum(calls)


def test_calls_end_where_checkpoints_are_saved(calls: list[int], tmp_path: Path) -> None:
    checkpoint = nn.Checkpoint(tmp_path / "run.npz", every_batches=2)
    whole = trained(True, model=classifier(0), epochs=2, checkpoint=checkpoint)
    assert calls == [0, 1, 1, 2, 1, 2, 2, 1]
    assert_same_run(whole, trained(False, model=classifier(0), epochs=2))


def test_callbacks_see_each_step(calls: list[int]) -> None:
    seen = []

    class Watch(nn.Callback):
        def on_step_end(self, training: nn.Training) -> None:
            seen.append((training.batch, training.lr, training.figures["loss"]))
            if training.epoch == 2 and training.batch == 3:
                training.stop("it is enough")

    runs = [
        trained(
            compile, model=classifier(0), callbacks=[Watch()], epochs=3, schedule_every="step",
            schedule=lambda o: nn.LinearLR(o, 1.0, 0.0, 15),
        )
        for compile in (True, False)
    ]  # fmt: skip
    assert_same_run(*runs)
    assert_allclose(seen[:8], seen[8:])
    assert set(calls) == {0, 1}


@pytest.mark.parametrize("dropout", [0.2, 0.0])
@pytest.mark.parametrize("schedule_every", ["step", "epoch"])
@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.usefixtures("seconds")
def test_a_step_that_fails_is_as_if_it_was_not_compiled(
    batch: int, schedule_every: str, dropout: float
) -> None:
    points, labels = blobs(70)
    points[16 * batch - 1] = np.inf
    errors, states = [], []
    for compile in (True, False):
        model = classifier(dropout)
        optimizer = nn.SGD(model.parameters(), lr=0.01, momentum=0.9)
        schedule = nn.StepLR(optimizer, 2)
        if schedule_every == "step":
            schedule = nn.OneCycleLR(optimizer, 0.1, 30)  # moves the momentum too
        loader = nn.DataLoader(points, labels, batch_size=16)
        history = nn.History()
        nn.seed(2)
        with pytest.raises(ValueError, match=rf"epoch 1, batch {batch}: .*NaN or inf") as error:
            nn.fit(
                model, nn.CrossEntropy(), optimizer, loader, schedule=schedule, epochs=2,
                schedule_every=schedule_every, compile=compile, history=history, progress=False,
            )  # fmt: skip
        errors.append(str(error.value))
        states.append((model, optimizer, history))
        assert schedule.count == (batch - 1 if schedule_every == "step" else 0)
        assert loader.epoch == 1
        assert len(list(loader)) == 5
        states[-1] += (nn.random.generator().random(),)
    assert errors[0] == errors[1]
    assert states[0][3] == states[1][3]
    for one, other in zip(*[state[0].state_dict().values() for state in states], strict=True):
        assert_allclose(one, other, rtol=1e-8, atol=1e-12)
    one, other = (state[1].state_dict() for state in states)
    assert one["param_groups"] == other["param_groups"]
    for place, state in one["state"].items():
        for name, value in state.items():
            assert_allclose(value, other["state"][place][name], rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("times", [1, 2])
def test_an_interrupt_waits_for_the_end_of_a_call(calls: list[int], times: int) -> None:
    """The metric stands for the moment in which a call is under way."""

    def interrupting(outputs: Any, targets: Any) -> float:
        if sum(calls) == 5:
            for _ in range(times):
                signal.raise_signal(signal.SIGINT)
        return 0.0

    model = classifier(dropout=0)
    optimizer = nn.Adam(model.parameters(), lr=0.01)
    loader = nn.DataLoader(*blobs(70), batch_size=16)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            nn.fit(
                model, nn.CrossEntropy(), optimizer, loader, metrics=[interrupting], epochs=2,
                compile=True, progress=False,
            )  # fmt: skip
    finally:
        signal.signal(signal.SIGINT, before)
    assert calls == [0, 1, 4]
    assert optimizer.state_dict()["state"][0]["step"] == 5
    assert loader.epoch == 1


def test_a_run_may_begin_within_an_epoch_of_the_loader(calls: list[int]) -> None:
    runs = []
    for compile in (True, False):
        model = classifier(dropout=0)
        optimizer = nn.SGD(model.parameters(), lr=0.1, momentum=0.9)
        loader = nn.DataLoader(*blobs(70), batch_size=16, shuffle=True, rng=0)
        for _ in loader:
            state = loader.state_dict()
            break
        loader.load_state_dict(state)
        history = nn.fit(
            model, nn.CrossEntropy(), optimizer, loader, compile=compile, progress=False
        )
        runs.append((model, optimizer, history))
    assert sum(calls) == 4
    assert_same_run(*runs)


@pytest.mark.parametrize(
    "data",
    [
        {"points": np.asfortranarray(blobs(70)[0])},
        {"points": blobs(70)[0].astype(np.float32)},
        {"points": blobs(70)[0].astype(np.float16)},
        {"points": blobs(70)[0].astype(">f8")},
        {"labels": blobs(70)[1].astype(np.int8)},
        {"labels": blobs(70)[1].astype(np.uint64)},
    ],
    ids=["another order", "float32", "float16", "another byte order", "int8", "uint64"],
)
@pytest.mark.usefixtures("seconds")
def test_arrays_of_other_kinds(data: dict[str, Any]) -> None:
    points, labels = blobs(70)
    runs = []
    for compile in (True, False):
        model = classifier(dropout=0)
        optimizer = nn.SGD(model.parameters(), lr=0.1, momentum=0.9)
        arrays = {"points": points, "labels": labels, **data}.values()
        loader = nn.DataLoader(*arrays, batch_size=16, shuffle=True, rng=0)
        history = nn.fit(
            model, nn.CrossEntropy(), optimizer, loader, compile=compile, progress=False
        )
        runs.append((model, optimizer, history))
    assert_same_run(*runs)


@pytest.mark.parametrize(
    "loss", [nn.GaussianNLL(), nn.CosineEmbedding(), nn.TripletMargin()], ids=repr
)
def test_losses_of_several_predictions(loss: Any) -> None:
    rng = np.random.default_rng(0)
    names = ("a", "b", "c")[: 3 if isinstance(loss, nn.TripletMargin) else 2]
    inputs = tuple(rng.normal(size=(50, 4)) for _ in names)
    target = rng.choice([-1.0, 1.0], (50, 4) if isinstance(loss, nn.GaussianNLL) else 50)
    data: Any = inputs if isinstance(loss, nn.TripletMargin) else (inputs, target)

    def run(compile: bool) -> Any:
        nn.seed(0)
        nodes = {f"of_{x}": (nn.Sequential(nn.Linear(4, 4), nn.Sigmoid()), x) for x in names}
        model = nn.Graph(nodes, inputs=names, outputs=[*nodes]).astype(np.float64)
        train = nn.DataLoader(*data, batch_size=16)
        optimizer = nn.SGD(model.parameters(), lr=0.1, momentum=0.9)
        options: Any = {"epochs": 2, "progress": False}
        history = nn.fit(model, loss, optimizer, train, compile=compile, **options)
        return model, optimizer, history

    assert_same_run(run(True), run(False))


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


def replace_layer(training: nn.Training) -> None:
    training.model[2] = nn.ReLU()


def set_reduction(training: nn.Training) -> None:
    training.loss.reduction = "sum"


def set_class_weights(training: nn.Training) -> None:
    training.loss.weight = np.array([1.0, 2.0, 0.5])


def set_smoothing(training: nn.Training) -> None:
    training.loss.label_smoothing = 0.2


def begin_another_epoch(training: nn.Training) -> None:
    for _ in training.train:
        break


@pytest.mark.parametrize("every", ["epoch", "step"])
@pytest.mark.parametrize(
    "change",
    [replace_layer, set_reduction, set_class_weights, set_smoothing, begin_another_epoch],
    ids=lambda change: change.__name__,
)
@pytest.mark.usefixtures("seconds")
def test_what_a_callback_changes_holds_from_the_next_step_on(
    change: Callable[[nn.Training], Any], every: str
) -> None:
    runs = [
        trained(
            compile, model=classifier(0), loss=nn.CrossEntropy(),
            callbacks=[type("Change", (), {f"on_{every}_end": staticmethod(change)})()],
        )
        for compile in (True, False)
    ]  # fmt: skip
    assert_same_run(*runs)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.usefixtures("seconds")
def test_a_batch_without_targets_that_count_moves_no_weight(reduction: str) -> None:
    points, labels = blobs(70)
    labels[32:48] = -1
    runs, counts = [], []
    for compile in (True, False):
        model = classifier(0)
        optimizer = nn.SGD(model.parameters(), lr=0.02, momentum=0.9)
        loader = nn.DataLoader(points, labels, batch_size=16)
        seen = []

        class Watch(nn.Callback):
            def on_step_end(self, training: nn.Training) -> None:
                seen.append(training.batch)  # noqa: B023

        history = nn.fit(
            model, nn.CrossEntropy(ignore_index=-1, reduction=reduction), optimizer, loader,
            callbacks=[Watch()] * (reduction == "mean"), compile=compile, progress=False,
        )  # fmt: skip
        runs.append((model, optimizer, history))
        counts.append(seen)
    assert_same_run(*runs)
    assert counts[0] == counts[1]


class Slowing(nn.StepLR):
    """A schedule with a state that its `state_dict` does not have."""

    steps = 0

    def step(self) -> None:
        super().step()
        self.steps += 1
        self.optimizer.lr /= self.steps


@pytest.mark.usefixtures("seconds")
def test_a_schedule_with_a_step_of_its_own_is_stepped_after_steps_alone() -> None:
    points, labels = blobs(70)
    points[50] = np.nan
    rates = []
    for compile in (True, False):
        model = classifier(0)
        optimizer = nn.SGD(model.parameters(), lr=1.0)
        with pytest.raises(ValueError, match="batch 4"):
            nn.fit(
                model, nn.CrossEntropy(), optimizer, nn.DataLoader(points, labels, batch_size=16),
                schedule=Slowing(optimizer, 2), schedule_every="step", compile=compile,
                progress=False,
            )  # fmt: skip
        rates.append(optimizer.lr)
    assert rates[0] == rates[1] == pytest.approx(0.1 / 6)


@pytest.mark.usefixtures("seconds")
def test_a_schedule_that_ends_is_the_error_of_the_same_step() -> None:
    runs, errors = [], []
    for compile in (True, False):
        model, history = classifier(0), nn.History()
        optimizer = nn.SGD(model.parameters(), lr=0.1, momentum=0.9)
        with pytest.raises(ValueError, match="epoch 2, batch 3: OneCycleLR") as error:
            nn.fit(
                model, nn.CrossEntropy(), optimizer, nn.DataLoader(*blobs(70), batch_size=16),
                schedule=nn.OneCycleLR(optimizer, 0.1, 7), schedule_every="step", epochs=2,
                history=history, compile=compile, progress=False,
            )  # fmt: skip
        runs.append((model, optimizer, history))
        errors.append(str(error.value))
    assert errors[0] == errors[1]
    assert_same_run(*runs)


def test_dropout_in_divided_batches_draws_as_if_it_was_not_compiled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for constant in ("_WAITING", "_ADDING"):
        monkeypatch.setattr(split, constant, 0)
    monkeypatch.setattr(split, "threads_of_products", lambda: 3)
    assert_same_run(*[trained(compile, model=classifier(0.2)) for compile in (True, False)])


@pytest.mark.parametrize("dtype", ["<f4", ">f8", "<f2", "<f8"])
@pytest.mark.parametrize("labels", ["|u1", ">i4"])
def test_machine_code_and_arrays_of_other_kinds(
    dtype: str, labels: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("numba")
    monkeypatch.undo()
    data = blobs(40)
    runs = []
    for compile in (True, False):
        nn.seed(0)
        model = nn.Sequential(nn.Linear(5, 3)).astype(np.float64)
        optimizer = nn.SGD(model.parameters(), lr=0.1, momentum=0.9)
        loader = nn.DataLoader(data[0].astype(dtype), data[1].astype(labels), batch_size=16)
        history = nn.fit(
            model, nn.CrossEntropy(), optimizer, loader, compile=compile, progress=False
        )
        runs.append((model, optimizer, history))
    assert_same_run(*runs)


def test_machine_code_too(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("numba")
    monkeypatch.undo()
    for dropout in (0.2, 0):
        options = CASES["validation and metrics"]
        assert_same_run(
            *[trained(compile, model=classifier(dropout), **options) for compile in (True, False)]
        )


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


@pytest.mark.parametrize("is_divided", [False, True])
def test_a_gradient_that_is_not_finite_moves_nothing(
    is_divided: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if is_divided:
        for constant in ("_WAITING", "_ADDING"):
            monkeypatch.setattr(split, constant, 0)
        monkeypatch.setattr(split, "threads_of_products", lambda: 2)
    points, targets = np.full((32, 5), 3e38, np.float32), np.ones((32, 3), np.float32)
    points[:16] = 1
    errors, weights = [], []
    for compile in (True, False):
        model = nn.Sequential(nn.Linear(5, 3, rng=0))
        model[0].weight.data[...] = 0
        optimizer, loader = (
            nn.Adam(model.parameters()),
            nn.DataLoader(points, targets, batch_size=16),
        )
        with pytest.raises(ValueError, match="batch 2: .*gradient") as error:
            nn.fit(
                model, nn.MeanAbsoluteError(reduction="sum"), optimizer, loader, compile=compile,
                progress=False,
            )  # fmt: skip
        errors.append(str(error.value))
        weights.append(model[0].weight.data)
    assert errors[0] == errors[1]
    assert_allclose(*weights, rtol=1e-5)
    assert np.isfinite(weights[0]).all()


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
    message = r"^fit: compile: Lambda\(sin, cos\) \('1' in the model\) has no compiled form"
    with pytest.raises(TypeError, match=message):
        nn.fit(
            model, nn.CrossEntropy(), nn.SGD(model.parameters(), 0.1),
            nn.DataLoader(*blobs(), batch_size=16), compile=True, progress=False,
        )  # fmt: skip


def test_the_bar_says_that_the_first_step_is_compiled(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    model = classifier()
    nn.fit(
        model, nn.CrossEntropy(), nn.SGD(model.parameters(), 0.1),
        nn.DataLoader(*blobs(), batch_size=16), epochs=2, compile=True, progress=True,
    )  # fmt: skip
    first, *later = capsys.readouterr().err.split("epoch 2/2")
    assert "0/4" in first
    assert "compiling" in first
    assert "compiling" not in "".join(later)
