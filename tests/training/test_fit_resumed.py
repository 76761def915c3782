"""A run that was killed and resumed ends with the same bits as an uninterrupted one."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import nnlite as nn

from ..registry import Array

ROOT = Path(__file__).resolve().parents[2]


class StopError(Exception):
    """Ends a run from the inside."""


def stop_after(monkeypatch: pytest.MonkeyPatch, saves: int) -> None:
    """Have the next run end right after it has saved so many checkpoints."""

    def save(*arguments: Any, **parts: Any) -> None:
        nonlocal saves
        nn.save_checkpoint(*arguments, **parts)
        saves -= 1
        if not saves:
            raise StopError

    monkeypatch.setattr("nnlite.training.callbacks.save_checkpoint", save)


def train(path: Any, *callbacks: Any, **changes: Any) -> tuple[dict[str, Array], nn.History]:
    """Train with everything that has a state, and return the weights and the history."""
    rng = np.random.default_rng(0)
    points = rng.normal(size=(130, 4)).astype(np.float32)
    labels = (points[:, 0] * points[:, 1] > 0).astype(int)
    nn.seed(3)
    model = nn.Sequential(
        nn.Linear(4, 16), nn.BatchNorm1d(16), nn.Tanh(), nn.Dropout(0.2), nn.Dropout(0.1, rng=5),
        nn.Linear(16, 2),
    )  # fmt: skip
    optimizer = nn.Adam(model.parameters(), lr=0.02)
    options = {
        "schedule": nn.ReduceLROnPlateau(optimizer, factor=0.5, patience=1),
        "validation": (points[100:], labels[100:]),
        "metrics": [nn.accuracy],
        "epochs": 8,
        "accumulate": 2,
        "checkpoint": nn.Checkpoint(path, every_batches=3),
        **changes,
    }
    history = nn.fit(
        model, nn.CrossEntropy(), optimizer,
        nn.DataLoader(points[:97], labels[:97], batch_size=11, shuffle=True),
        callbacks=[*callbacks, nn.EarlyStopping(patience=4)], resume=True, progress=False,
        **options,
    )  # fmt: skip
    return model.state_dict(), history


def assert_same(first: Any, second: Any) -> None:
    for name, array in first[0].items():
        assert_array_equal(second[0][name], array)
    assert list(first[1]) == list(second[1])
    for name, figures in first[1].items():
        assert_array_equal(second[1][name], figures)


# Nine batches in pairs: after 4, 6 and 9 of them, where the last is alone, and after the epoch; in
# the first epoch and in the second.
@pytest.mark.parametrize("saves", range(1, 9))
@pytest.mark.parametrize("accumulate", [1, 2])
def test_from_each_checkpoint_a_run_goes_on_to_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, saves: int, accumulate: int
) -> None:
    options = {"epochs": 3, "accumulate": accumulate}
    whole = train(tmp_path / "whole.npz", **options)
    with monkeypatch.context() as patch:
        stop_after(patch, saves)
        with pytest.raises(StopError):
            train(tmp_path / "run.npz", **options)
    assert_same(whole, train(tmp_path / "run.npz", **options))


def test_a_finished_run_is_not_trained_again_and_has_its_best_weights(tmp_path: Path) -> None:
    whole = train(tmp_path / "run.npz")
    assert len(whole[1].epochs) < 8  # it was stopped early
    before = (tmp_path / "run.npz").read_bytes()
    assert_same(whole, train(tmp_path / "run.npz"))
    assert (tmp_path / "run.npz").read_bytes() == before


def test_the_last_checkpoint_has_the_weights_that_fit_leaves(tmp_path: Path) -> None:
    weights, history = train(tmp_path / "run.npz")
    assert history["validation_loss"].argmin() < len(history.epochs) - 1
    saved = nn.load_state(tmp_path / "run.npz")
    for name, array in weights.items():
        assert_array_equal(saved[name], array)


def test_a_larger_patience_goes_on_to_the_bits_of_a_run_that_had_it(tmp_path: Path) -> None:
    def run(path: Path, patience: int) -> Any:
        nn.seed(0)
        model = nn.Sequential(nn.Linear(1, 1))
        history = nn.fit(
            model, nn.MeanSquaredError(), nn.Adam(model.parameters(), lr=0.1),
            [(ones, ones)], validation=(ones, -ones), epochs=9, checkpoint=path, resume=True,
            callbacks=[nn.EarlyStopping(patience=patience, restore_best=True)], progress=False,
        )  # fmt: skip
        return model.state_dict(), history

    ones = np.ones((4, 1), np.float32)
    run(tmp_path / "run.npz", patience=2)
    resumed = run(tmp_path / "run.npz", patience=4)
    whole = run(tmp_path / "whole.npz", patience=4)
    assert_array_equal(whole[1].epochs, [1, 2, 3, 4, 5])
    assert_same(whole, resumed)


def test_a_finished_run_says_that_there_is_nothing_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def three(training: nn.Training) -> None:
        if training.epoch == 3:
            training.stop("three are enough")

    def run() -> None:
        model = nn.Sequential(nn.Linear(1, 1))
        nn.fit(
            model, nn.MeanSquaredError(), nn.SGD(model.parameters()), BATCHES, epochs=9,
            checkpoint=tmp_path / "run.npz", resume=True,
            callbacks=[three, nn.EarlyStopping("loss", patience=9)],
        )  # fmt: skip

    run()
    capsys.readouterr()
    run()
    expected = "nothing to do: the history has 3 epochs already; stopped, as three are enough\n"
    assert capsys.readouterr().out == expected


def test_a_run_that_was_stopped_within_an_epoch_and_killed_ends_with_its_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stop(nn.Callback):
        def on_step_end(self, training: nn.Training) -> None:
            if (training.epoch, training.batch) == (2, 2):
                training.stop("the time is over")

    whole = fitted(BATCHES, tmp_path / "whole.npz", Stop())
    with monkeypatch.context() as patch:
        stop_after(patch, 6)  # three batches and the epoch, and two batches
        with pytest.raises(StopError):
            fitted(BATCHES, tmp_path / "run.npz", Stop())
    assert_same(whole, fitted(BATCHES, tmp_path / "run.npz", Stop()))


def test_the_recorded_learning_rate_survives_a_stop_between_the_last_step_and_the_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(path: Path) -> nn.History:
        model = nn.Sequential(nn.Linear(1, 1))
        optimizer = nn.SGD(model.parameters(), lr=0.8)
        return nn.fit(
            model, nn.MeanSquaredError(), optimizer, BATCHES, progress=False,
            schedule=nn.ExponentialLR(optimizer, 0.5), schedule_every="step",
            checkpoint=nn.Checkpoint(path, every_batches=3), resume=True,
        )  # fmt: skip

    with monkeypatch.context() as patch:
        stop_after(patch, 1)
        with pytest.raises(StopError):
            run(tmp_path / "run.npz")
    assert run(tmp_path / "run.npz")["lr"] == pytest.approx([0.2])


def test_more_epochs_go_on_from_where_fewer_ended(tmp_path: Path) -> None:
    options = {"schedule": None, "accumulate": 1}
    train(tmp_path / "run.npz", epochs=2, **options)
    more = train(tmp_path / "run.npz", epochs=4, **options)
    assert_same(train(tmp_path / "whole.npz", epochs=4, **options), more)


def test_a_checkpoint_is_not_replaced_where_nothing_was_trained(tmp_path: Path) -> None:
    history = train(tmp_path / "run.npz", epochs=1)[1]
    before = (tmp_path / "run.npz").read_bytes()
    model = nn.Sequential(nn.Linear(1, 1))
    nn.fit(
        model, nn.MeanSquaredError(), nn.SGD(model.parameters()), BATCHES, history=history,
        checkpoint=tmp_path / "run.npz", progress=False,
    )  # fmt: skip
    assert (tmp_path / "run.npz").read_bytes() == before


def test_without_resume_a_run_begins_anew(tmp_path: Path) -> None:
    first = fitted([*BATCHES], tmp_path / "run.npz")
    assert_same(first, fitted([*BATCHES], tmp_path / "run.npz", resume=False))


BATCHES = [
    (np.full((2, 1), value, np.float32), np.full((2, 1), value / 2, np.float32))
    for value in (1, 2, 3)
]


def fitted(data: Any, path: Path, *callbacks: Any, resume: bool = True) -> Any:
    nn.seed(0)
    model = nn.Sequential(nn.Linear(1, 1))
    history = nn.fit(
        model, nn.MeanSquaredError(), nn.SGD(model.parameters(), lr=0.01), data, epochs=2,
        checkpoint=nn.Checkpoint(path, every_batches=1), resume=resume, callbacks=callbacks,
        progress=False,
    )  # fmt: skip
    return model.state_dict(), history


@pytest.mark.parametrize("saves", range(1, 8))
def test_of_a_plain_list_the_batches_that_are_done_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, saves: int
) -> None:
    with monkeypatch.context() as patch:
        stop_after(patch, saves)
        with pytest.raises(StopError):
            fitted(BATCHES, tmp_path / "run.npz")
    resumed = fitted(BATCHES, tmp_path / "run.npz")
    assert_same(fitted(BATCHES, tmp_path / "whole.npz"), resumed)


def test_other_callbacks_or_metrics_than_before_are_refused(tmp_path: Path) -> None:
    fitted(BATCHES, tmp_path / "run.npz")
    with pytest.raises(ValueError, match=r"callbacks \[\], this one has \[EarlyStopping\]"):
        fitted(BATCHES, tmp_path / "run.npz", nn.EarlyStopping("loss"))
    train(tmp_path / "other.npz", epochs=1)
    with pytest.raises(ValueError, match=r"metrics \[accuracy\], this one has \[\]"):
        train(tmp_path / "other.npz", epochs=1, metrics=[])


KILLED = """
import sys, time
import numpy as np
from tests.training.test_fit_resumed import train

def slowly(training):
    print(training.epoch, flush=True)

class Slow:
    def on_step_end(self, training):
        time.sleep(0.002)  # or it would be over before anybody can kill it

weights, history = train(sys.argv[1], Slow(), slowly)
np.savez(sys.argv[2], **weights, **{f"history {name}": history[name] for name in history})
"""


def test_a_run_that_is_killed_again_and_again_ends_with_the_same_bits(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    checkpoint, result = tmp_path / "run.npz", tmp_path / "result.npz"
    command = [sys.executable, "-c", KILLED, checkpoint, result]
    kills = 0
    for _ in range(5):
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()  # an epoch is over
        time.sleep(rng.uniform(0, 0.03))
        process.kill()
        process.communicate()
        kills += process.returncode != 0
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    assert kills > 0
    whole = train(tmp_path / "whole.npz")
    with np.load(result) as resumed:
        for name, array in whole[0].items():
            assert_array_equal(resumed[name], array)
        for name, figures in whole[1].items():
            assert_array_equal(resumed[f"history {name}"], figures)
    # What the kills have left behind is the checkpoint, and no half of one under its name.
    assert set(nn.load_state(checkpoint)) == set(whole[0])
