"""Callbacks are called at the documented times, and early stopping follows its definition."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import nnlite as nn

BATCHES = [(np.ones((2, 1), np.float32), np.zeros((2, 1), np.float32))] * 3


def run(callbacks: Iterable[Any], epochs: int = 2, **options: Any) -> nn.History:
    model = nn.Sequential(nn.Linear(1, 1))
    optimizer = nn.SGD(model.parameters(), lr=0.1)
    return nn.fit(
        model, nn.MeanSquaredError(), optimizer, BATCHES,
        epochs=epochs, callbacks=callbacks, progress=False, **options,
    )  # fmt: skip


class TestHooks:
    def test_are_called_in_order(self) -> None:
        calls: list[Any] = []

        class Log:
            def on_fit_begin(self, training: nn.Training) -> None:
                calls.append("begin")

            def on_step_end(self, training: nn.Training) -> None:
                calls.append((training.epoch, training.batch))

            def on_epoch_end(self, training: nn.Training) -> None:
                calls.append(f"epoch {training.epoch}")

            def on_fit_end(self, training: nn.Training) -> None:
                calls.append("end")

        run([Log(), lambda training: calls.append("function")])
        epochs = [[(e, 1), (e, 2), (e, 3), f"epoch {e}", "function"] for e in (1, 2)]
        assert calls == ["begin", *epochs[0], *epochs[1], "end"]

    def test_see_the_figures_of_the_epoch_so_far(self) -> None:
        seen = []

        class Log(nn.Callback):
            def on_step_end(self, training: nn.Training) -> None:
                seen.append(training.figures["loss"])

        history = run([Log()], epochs=1)
        assert seen == sorted(seen, reverse=True)
        assert seen[-1] == history["loss"][0]

    def test_can_stop_the_run(self, capsys: pytest.CaptureFixture[str]) -> None:
        def enough(training: nn.Training) -> None:
            if training.epoch == 2:
                training.stop("two are enough")

        assert_array_equal(run([enough], epochs=9).epochs, [1, 2])

    def test_can_stop_the_run_after_a_step(self) -> None:
        losses: list[float] = []

        class Enough(nn.Callback):
            def on_step_end(self, training: nn.Training) -> None:
                losses.append(training.figures["loss"])
                if (training.epoch, training.batch) == (2, 2):
                    training.stop("the time is over")

        loader = nn.DataLoader(*map(np.concatenate, zip(*BATCHES, strict=True)), batch_size=2)
        model = nn.Sequential(nn.Linear(1, 1))
        history = nn.fit(
            model, nn.MeanSquaredError(), nn.SGD(model.parameters(), lr=0.1), loader,
            epochs=9, callbacks=[Enough()], progress=False,
        )  # fmt: skip
        assert len(losses) == 3 + 2
        # The epoch that was cut short has the figures of its two batches, and has ended.
        assert_array_equal(history["loss"], [losses[2], losses[4]])
        assert loader.state_dict()["batches"] is None

    def test_a_state_that_cannot_be_loaded_is_refused_before_training(self) -> None:
        class Forgetful(nn.Callback):
            def state_dict(self) -> dict[str, Any]:
                return {}

        with pytest.raises(TypeError, match="Forgetful has a state_dict, but no load_state_dict"):
            run([Forgetful()])

    @pytest.mark.parametrize(
        ("callbacks", "message"),
        [
            ([nn.EarlyStopping], r"got the class EarlyStopping; write EarlyStopping\(\)"),
            ([7], "must be a function or have one of the methods on_fit_begin"),
            (nn.EarlyStopping(), r"callbacks must be a list"),
            ([nn.Checkpoint("run.npz")], "give it as checkpoint="),
        ],
    )
    def test_what_is_no_callback_is_refused(self, callbacks: Any, message: str) -> None:
        with pytest.raises(TypeError, match=message):
            run(callbacks)

    def test_a_method_that_nothing_calls_is_refused(self) -> None:
        class Misspelt:
            def on_epoch_begin(self, training: nn.Training) -> None: ...

        with pytest.raises(ValueError, match="nothing calls on_epoch_begin of the callback Miss"):
            run([Misspelt()])


class Figures(nn.Callback):
    """Sets what the history has as the validation loss, and the weight to the epoch."""

    def __init__(self, figures: list[float]) -> None:
        self.figures = figures

    def on_epoch_end(self, training: nn.Training) -> None:
        training.history._figures["validation_loss"][-1] = self.figures[training.epoch - 1]
        for parameter in training.model.parameters():
            parameter.data = np.full(parameter.shape, training.epoch)


class TestEarlyStopping:
    def stopped(self, figures: list[float], **options: Any) -> tuple[int, float]:
        """Return after how many epochs a run with these figures ends, and the weight it has."""
        model = nn.Sequential(nn.Linear(1, 1))
        history = nn.fit(
            model, nn.MeanSquaredError(), nn.SGD(model.parameters()), BATCHES,
            validation=BATCHES, epochs=len(figures), progress=False,
            callbacks=[Figures(figures), nn.EarlyStopping(**options)],
        )  # fmt: skip
        return len(history.epochs), float(model[0].weight.data[0, 0])  # type: ignore[attr-defined]

    def test_ends_after_patience_epochs_without_improvement(self) -> None:
        assert self.stopped([5, 4, 4.5, 4, 3, 2], patience=2) == (4, 2)

    def test_an_improvement_starts_the_count_again(self) -> None:
        assert self.stopped([5, 4, 4.5, 3, 4, 5, 1], patience=2) == (6, 4)

    def test_changes_up_to_min_delta_are_no_improvement(self) -> None:
        assert self.stopped([5, 4.75, 4.5, 1], patience=2, min_delta=0.5) == (3, 1)
        assert self.stopped([5, 4.75, 4.5, 1], patience=2, min_delta=0.25) == (4, 4)

    def test_the_best_weights_are_restored_at_the_last_epoch_too(self) -> None:
        assert self.stopped([5, 4, 3, 4], patience=9) == (4, 3)
        assert self.stopped([5, 4, 3, 4], patience=9, restore_best=False) == (4, 4)

    def test_a_figure_that_should_rise(self) -> None:
        assert self.stopped([1, 2, 1, 1, 9], patience=2, mode="max") == (4, 2)

    def test_nan_is_no_improvement(self) -> None:
        nan = float("nan")
        assert self.stopped([nan, 5, nan, nan, 1], patience=2) == (4, 2)
        assert self.stopped([nan, nan, 1], patience=2) == (2, 2)  # there is no best one

    def test_begins_anew_with_each_fit(self) -> None:
        stopping = nn.EarlyStopping("loss", patience=2)
        run([stopping], epochs=3)
        stopping.best = -1.0
        assert len(run([stopping], epochs=4).epochs) == 4
        assert stopping.best_epoch == 4

    def test_knows_which_way_a_loss_and_an_accuracy_should_go(self) -> None:
        assert nn.EarlyStopping("validation_loss").mode == "min"
        assert nn.EarlyStopping("validation_top_k_accuracy").mode == "max"
        with pytest.raises(ValueError, match="say mode='min' or mode='max', whether 'f1' should"):
            nn.EarlyStopping("f1")

    def test_a_figure_that_there_is_not_is_an_error_before_training(self) -> None:
        with pytest.raises(ValueError, match="no 'validation_loss' to monitor, only 'loss', 'lr'"):
            run([nn.EarlyStopping()])

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"patience": 0}, "patience must be at least 1, got 0"),
            ({"min_delta": -1}, "min_delta must be at least 0"),
            ({"mode": "up"}, "mode must be one of 'min', 'max'"),
        ],
    )
    def test_options_out_of_range_are_named(self, options: Any, message: str) -> None:
        with pytest.raises(ValueError, match=f"EarlyStopping: {message}"):
            nn.EarlyStopping(**options)

    def test_restore_best_is_no_word(self) -> None:
        with pytest.raises(TypeError, match="restore_best must be True or False, got 'no'"):
            nn.EarlyStopping(restore_best="no")  # type: ignore[arg-type]


class TestState:
    """What a checkpoint says of the run is checked before anything is changed."""

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"batch": -3}, "the batch of the state must be at least 0, got -3"),
            ({"batch": 999}, "999 batches into an epoch, which has 3"),
            ({"stopped": [1, 2]}, r"stopped must be the reason or None, got \[1, 2\]"),
            ({"exhausted": 1}, "exhausted must be True or False, got 1"),
            ({"lr": "fast"}, "the learning rate of the state must be a number"),
            ({"callbacks": 7}, "the states of the callbacks must be a list, got 7"),
            ({"callbacks": [7]}, "the state of a callback must be a dict, got 7"),
            ({"callbacks": [{"name": "Log"}]}, "the state of a callback lacks 'state'"),
            ({"tally": {}}, "the state of the tally lacks 'loss'"),
            ({"history": {}}, "History: "),
            ({"history": {"epochs": 0, "figures": {}}, "tally": 7}, "the state of the tally must"),
        ],
    )
    def test_what_is_out_of_range_is_refused(self, change: Any, message: str) -> None:
        trainings: list[nn.Training] = []
        run([trainings.append])
        (training, *_) = trainings
        before, seen = training.state_dict(), repr(training.state_dict())
        with pytest.raises((ValueError, TypeError), match=message):
            training.load_state_dict({**before, **change})
        assert repr(training.state_dict()) == seen
        with pytest.raises(ValueError, match="the state of the run lacks"):
            training.load_state_dict({name: before[name] for name in before if name not in change})


class TestCheckpoint:
    @pytest.mark.parametrize(
        ("options", "saved"),  # after how many epochs, and batches of the next one
        [
            ({}, [(1, 0), (2, 0), (3, 0), (4, 0), (5, 0)]),
            ({"every": 3}, [(3, 0), (5, 0)]),
            ({"every": 9, "every_batches": 2}, [(0, 2), (1, 2), (2, 2), (3, 2), (4, 2), (5, 0)]),
        ],
    )
    def test_is_saved_as_often_as_it_says_after_the_last_epoch_and_at_the_end(
        self, monkeypatch: pytest.MonkeyPatch, options: Any, saved: list[tuple[int, int]]
    ) -> None:
        saves = []

        def save(path: str, training: nn.Training, **parts: Any) -> None:
            assert path == str(Path.cwd() / "run.npz")
            saves.append((len(training.history.epochs), training.batch))

        monkeypatch.setattr("nnlite.training.callbacks.save_checkpoint", save)
        run([], epochs=5, checkpoint=nn.Checkpoint("run.npz", **options))
        assert saves == [*saved, (5, 0)]

    def test_a_run_that_is_stopped_is_saved_before_and_after_the_callbacks_end_it(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        calls: list[str] = []

        class Two(nn.Callback):
            def on_epoch_end(self, training: nn.Training) -> None:
                if training.epoch == 2:
                    training.stop("two are enough")

            def on_fit_end(self, training: nn.Training) -> None:
                calls.append("end")

        monkeypatch.setattr(
            "nnlite.training.callbacks.save_checkpoint", lambda path, **parts: calls.append("save")
        )
        run([Two()], epochs=9, checkpoint=nn.Checkpoint("run.npz", every=5))
        assert calls == ["save", "end", "save"]

    def test_has_the_parameters_of_the_loss(self, tmp_path: Path) -> None:
        class Scaled(nn.Loss):
            def __init__(self) -> None:
                super().__init__()
                self.scale = nn.Parameter([0.0])
                self.inner = nn.MeanSquaredError()

            def forward(self, prediction: Any, target: Any, sample_weight: Any = None) -> Any:
                return self.inner(prediction, target)

            def backward(self, grad: Any = 1.0, input_grad: bool = True) -> Any:
                self.scale.accumulate([1.0])
                return self.inner.backward(grad)

        def scale(epochs: int, path: Path) -> float:
            model, loss = nn.Sequential(nn.Linear(1, 1)), Scaled()
            optimizer = nn.SGD([*model.parameters(), *loss.parameters()], lr=0.5)
            nn.fit(
                model, loss, optimizer, BATCHES, epochs=epochs, checkpoint=path, resume=True,
                progress=False,
            )  # fmt: skip
            return float(loss.scale.data[0])

        scale(1, tmp_path / "run.npz")
        # A step takes 0.5 · 1, and there are three in an epoch.
        assert scale(2, tmp_path / "run.npz") == -3.0

    def test_within_an_epoch_it_is_saved_at_the_next_step(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        saves = []
        monkeypatch.setattr(
            "nnlite.training.callbacks.save_checkpoint",
            lambda path, training, **parts: saves.append(training.batch),
        )
        run([], epochs=1, accumulate=2, checkpoint=nn.Checkpoint("run.npz", every_batches=1))
        assert saves == [2, 3, 0, 0]

    def test_what_cannot_be_saved_is_an_error_before_training(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="the name of the file has to end in .npz, got 'run'"):
            run([], checkpoint="run")
        with pytest.raises(FileNotFoundError, match="run.npz: there is no folder .*missing"):
            run([], checkpoint=tmp_path / "missing" / "run.npz")
        (tmp_path / "folder.npz").mkdir()
        with pytest.raises(IsADirectoryError, match="folder.npz: this is a directory"):
            run([], checkpoint=tmp_path / "folder.npz")

    def test_numbers_below_one_are_refused(self) -> None:
        with pytest.raises(ValueError, match="Checkpoint: every must be at least 1"):
            nn.Checkpoint("run.npz", every=0)
        with pytest.raises(ValueError, match="Checkpoint: every_batches must be at least 1"):
            nn.Checkpoint("run.npz", every_batches=0)
