"""CSV files and live pictures show the history of a run, also of one that is resumed."""

from __future__ import annotations

import builtins
import csv
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nnlite as nn

X = np.random.default_rng(0).normal(size=(32, 2)).astype(np.float32)
Y = (X[:, 0] > 0).astype(int)


def run(callback: Any, **options: Any) -> nn.History:
    nn.seed(0)
    model = nn.Sequential(nn.Linear(2, 2))
    loader = nn.DataLoader(X, Y, batch_size=8)
    options = {"epochs": 3, "progress": False, "validation": (X, Y), **options}
    return nn.fit(
        model, nn.CrossEntropy(), nn.SGD(model.parameters(), lr=0.1), loader,
        metrics=[nn.accuracy], callbacks=[callback], **options,
    )  # fmt: skip


class TestCSVLogger:
    def read(self, path: Path) -> dict[str, np.ndarray]:
        with path.open(newline="") as file:
            names, *rows = csv.reader(file)
        return dict(zip(names, np.array(rows, float).reshape(-1, len(names)).T, strict=True))

    def check(self, path: Path, history: nn.History) -> None:
        found = self.read(path)
        np.testing.assert_array_equal(found.pop("epoch"), history.epochs)
        assert list(found) == list(history)
        for name, values in history.items():
            np.testing.assert_array_equal(found[name], values)

    def test_the_file_has_the_history(self, tmp_path: Path) -> None:
        self.check(tmp_path / "run.csv", run(nn.CSVLogger(tmp_path / "run.csv")))

    def test_each_row_is_there_when_its_epoch_ends(self, tmp_path: Path) -> None:
        class Count(nn.CSVLogger):
            def on_epoch_end(self, training: nn.Training) -> None:
                super().on_epoch_end(training)
                assert path.read_text().count("\n") == 1 + training.epoch

        path = tmp_path / "run.csv"
        run(Count(path))

    def test_a_resumed_run_has_every_epoch_once(self, tmp_path: Path) -> None:
        path, checkpoint = tmp_path / "run.csv", tmp_path / "run.npz"
        run(nn.CSVLogger(path), checkpoint=checkpoint, epochs=2)
        history = run(nn.CSVLogger(path), checkpoint=checkpoint, resume=True, epochs=5)
        self.check(path, history)

    def test_a_history_that_is_continued_comes_first(self, tmp_path: Path) -> None:
        history = run(nn.CSVLogger(tmp_path / "run.csv"), epochs=2)
        run(nn.CSVLogger(tmp_path / "run.csv"), epochs=4, history=history)
        self.check(tmp_path / "run.csv", history)

    def test_a_file_that_cannot_be_written_ends_the_run_before_it_begins(
        self, tmp_path: Path
    ) -> None:
        with pytest.raises(FileNotFoundError):
            run(nn.CSVLogger(tmp_path / "nowhere" / "run.csv"))
        with pytest.raises(TypeError, match="CSVLogger: expected the path of a file"):
            nn.CSVLogger(3)


class TestLivePlot:
    @pytest.mark.parametrize("ending", ["png", "svg", "pdf"])
    def test_the_file_is_replaced_after_each_epoch(self, tmp_path: Path, ending: str) -> None:
        pictures = []

        class Keep(nn.LivePlot):
            def on_epoch_end(self, training: nn.Training) -> None:
                super().on_epoch_end(training)
                pictures.append(path.read_bytes())

        path = tmp_path / f"run.{ending}"
        run(Keep(path))
        starts = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}
        assert all(picture.startswith(starts[ending]) for picture in pictures)
        assert len(set(pictures)) == 3
        assert list(tmp_path.iterdir()) == [path]

    def test_a_notebook_shows_one_picture_that_changes(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        shown, updated = [], []

        class Image:
            def __init__(self, data: bytes, **options: Any) -> None:
                self.data = data

        def display(image: Any, display_id: bool) -> Any:
            assert display_id
            shown.append(image.data)
            return types.SimpleNamespace(update=lambda image: updated.append(image.data))

        module = types.ModuleType("IPython")
        shell = types.SimpleNamespace(config={"IPKernelApp": {}})
        module.get_ipython = lambda: shell  # type: ignore[attr-defined]
        module.display = types.ModuleType("IPython.display")  # type: ignore[attr-defined]
        module.display.Image, module.display.display = Image, display
        monkeypatch.setitem(sys.modules, "IPython", module)
        monkeypatch.setitem(sys.modules, "IPython.display", module.display)
        live = nn.LivePlot()
        run(live)
        assert (len(shown), len(updated)) == (1, 2)
        assert all(picture.startswith(b"\x89PNG") for picture in shown + updated)
        run(live)  # a second run has a picture of its own
        assert len(shown) == 2

    def test_it_shows_in_a_real_notebook(self) -> None:
        nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
        pytest.importorskip("ipykernel")
        cell = (
            "import numpy as np\nimport nnlite as nn\n"
            "x = np.ones((4, 1), np.float32)\nmodel = nn.Sequential(nn.Linear(1, 1))\n"
            "h = nn.fit(model, nn.MeanSquaredError(), nn.SGD(model.parameters()), [(x, x)],\n"
            "           epochs=2, progress=False, callbacks=[nn.LivePlot()])"
        )
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell)])
        nbclient.NotebookClient(notebook, kernel_name="python3").execute()
        (output,) = notebook.cells[0].outputs
        assert output["data"]["image/png"]

    def test_without_a_notebook_it_says_how_to_write_a_file(self) -> None:
        with pytest.raises(RuntimeError, match=r"no notebook .* LivePlot\('run.svg'\)"):
            run(nn.LivePlot())

    def test_a_file_that_cannot_be_written_ends_the_run_before_it_begins(
        self, tmp_path: Path
    ) -> None:
        with pytest.raises(FileNotFoundError, match="there is no folder"):
            run(nn.LivePlot(tmp_path / "nowhere" / "run.png"))
        with pytest.raises(ValueError, match=r"has to end in .png, .svg or .pdf, got 'run.bmp'"):
            nn.LivePlot("run.bmp")

    def test_without_matplotlib_it_says_how_to_install_it(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real_import = builtins.__import__

        def without_matplotlib(name: str, *args: Any, **options: Any) -> Any:
            if name.startswith("matplotlib"):
                raise ImportError(name)
            return real_import(name, *args, **options)

        monkeypatch.setattr(builtins, "__import__", without_matplotlib)
        with pytest.raises(ImportError, match=r"pip install matplotlib"):
            nn.LivePlot()
