"""TensorBoard's own reader finds the figures of a run, and the distributions of its weights."""

from __future__ import annotations

import builtins
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util import tensor_util

import nnlite as nn

X = np.random.default_rng(0).normal(size=(32, 2)).astype(np.float32)
Y = (X[:, 0] > 0).astype(int)


def run(folder: Path, epochs: int = 3, **options: Any) -> tuple[nn.Sequential, nn.History]:
    nn.seed(0)
    model = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 2))
    history = nn.fit(
        model, nn.CrossEntropy(), nn.SGD(model.parameters(), lr=0.1), [(X, Y)],
        epochs=epochs, validation=(X, Y), metrics=[nn.accuracy], progress=False,
        callbacks=[nn.TensorBoard(folder)], **options,
    )  # fmt: skip
    return model, history


def read(folder: Path) -> dict[str, list[tuple[int, np.ndarray]]]:
    events = EventAccumulator(str(folder), size_guidance={"tensors": 0})
    events.Reload()
    return {
        tag: [(event.step, tensor_util.make_ndarray(event.tensor_proto))
              for event in events.Tensors(tag)]
        for tag in events.Tags()["tensors"]
    }  # fmt: skip


def test_scalars_are_read_back(tmp_path: Path) -> None:
    _, history = run(tmp_path)
    train, validation = read(tmp_path / "train"), read(tmp_path / "validation")
    assert set(validation) == {"loss", "accuracy"}
    assert {"loss", "accuracy", "lr"} < set(train)
    for found, prefix in ((train, ""), (validation, "validation_")):
        for tag in ("loss", "accuracy"):
            assert [step for step, _ in found[tag]] == [1, 2, 3]
            values = [float(value) for _, value in found[tag]]
            np.testing.assert_allclose(values, history[prefix + tag], rtol=1e-6)


def test_distributions_of_the_weights_are_read_back(tmp_path: Path) -> None:
    model, _ = run(tmp_path)
    found = read(tmp_path / "train")
    for name, parameter in model.named_parameters():
        step, buckets = found[name][-1]  # rows (left edge, right edge, count)
        assert step == 3
        assert buckets[:, 2].sum() == parameter.size
        assert buckets[0, 0] == pytest.approx(parameter.data.min())
        assert buckets[-1, 1] == pytest.approx(parameter.data.max())


def test_histograms_can_be_left_out(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(2, 2))
    nn.fit(
        model, nn.CrossEntropy(), nn.SGD(model.parameters(), lr=0.1), [(X, Y)], progress=False,
        callbacks=[nn.TensorBoard(tmp_path, histograms=False)],
    )  # fmt: skip
    assert set(read(tmp_path / "train")) == {"loss", "lr"}
    assert not (tmp_path / "validation").exists()


def test_a_resumed_run_continues_the_curves(tmp_path: Path) -> None:
    run(tmp_path / "board", epochs=2, checkpoint=tmp_path / "run.npz")
    _, history = run(tmp_path / "board", epochs=4, checkpoint=tmp_path / "run.npz", resume=True)
    found = read(tmp_path / "board" / "train")["loss"]
    assert [step for step, _ in found] == [1, 2, 3, 4]
    np.testing.assert_allclose([float(value) for _, value in found], history["loss"], rtol=1e-6)


def test_it_needs_neither_pytorch_nor_tensorflow(tmp_path: Path) -> None:
    code = f"""
import sys
import numpy as np
import nnlite as nn
x = np.ones((4, 1), np.float32)
model = nn.Sequential(nn.Linear(1, 1))
nn.fit(model, nn.MeanSquaredError(), nn.SGD(model.parameters()), [(x, x)], progress=False,
       callbacks=[nn.TensorBoard({str(tmp_path)!r})])
assert not {{"torch", "tensorflow"}} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_folder_that_cannot_be_made_ends_the_run_before_it_begins(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        run(tmp_path / "file" / "board")
    with pytest.raises(TypeError, match="TensorBoard: expected the path"):
        nn.TensorBoard(3)


def test_without_tensorboard_it_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    real_import = builtins.__import__

    def without_tensorboard(name: str, *args: Any, **options: Any) -> Any:
        if name.startswith("tensorboard"):
            raise ImportError(name)
        return real_import(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", without_tensorboard)
    with pytest.raises(ImportError, match=r"pip install tensorboard"):
        nn.TensorBoard("runs")
