"""What a notebook shows: figures once, models as pictures, figures and verdicts as tables."""

from __future__ import annotations

import csv
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import nnlite as nn
from nnlite.tables import Table
from nnlite.training import progress


def two_epochs() -> nn.History:
    history = nn.History()
    history.append({"loss": 0.5, "lr": 1.0})
    history.append({"loss": 0.25, "lr": 1.0})
    return history


def test_a_figure_is_displayed_once_and_then_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    pyplot = pytest.importorskip("matplotlib.pyplot")
    assert not hasattr(two_epochs().plot(), "_ipython_display_")  # no notebook
    shown: list[bytes] = []
    ipython = SimpleNamespace(display=shown.append, Image=lambda data: data)
    monkeypatch.setitem(sys.modules, "IPython.display", ipython)
    monkeypatch.setattr(pyplot, "get_backend", lambda: "module://matplotlib_inline.backend_inline")
    figure = two_epochs().plot()
    assert pyplot.fignum_exists(figure.number)  # so that pyplot.show() shows it
    figure._ipython_display_()
    assert not pyplot.fignum_exists(figure.number)
    assert len(shown) == 1
    assert shown[0].startswith(b"\x89PNG")


def test_a_bar_is_shown_in_a_notebook(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "is_notebook", lambda: True)
    model = nn.Linear(1, 1)
    loader = nn.DataLoader(np.ones((4, 1), np.float32), np.ones((4, 1), np.float32))
    nn.fit(model, nn.MeanSquaredError(), nn.SGD(model.parameters()), loader)
    assert "epoch 1/1:" in capsys.readouterr().err


def test_small_models_are_pictures_and_others_text() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.Tanh())
    html = model._repr_html_()
    assert html is not None
    for text in ("Linear(2, 3)", "weight", "bias"):
        assert f">{text}</text>" in html
    graph = nn.Graph({"y": (nn.Exp(), "x")})
    assert "exp" in (graph._repr_html_() or "")
    assert nn.Sequential(*[nn.Tanh() for _ in range(30)])._repr_html_() is None
    assert nn.Linear(1, 1)._repr_html_() is None
    assert nn.Sequential()._repr_html_() is None


def test_a_picture_of_a_trace_has_values_and_gradients(tmp_path: Path) -> None:
    graph = nn.Graph({"y": (nn.Square(), "x")})
    picture = nn.plot_model(graph, nn.trace(graph, 3.0))
    texts = re.findall(r">([^<]+)</text>", picture.svg)
    assert {"x", "y", "3", "9", "∂ 6", "∂ 1"} <= set(texts)
    picture.save(tmp_path / "graph.svg")
    assert (tmp_path / "graph.svg").read_text("utf-8").startswith("<svg")
    with pytest.raises(TypeError, match="plot_model: expected a Graph or a Sequential, got Tanh"):
        nn.plot_model(nn.Tanh())


def test_verdicts_have_colours() -> None:
    html = Table(("verdict",), [("ok",), ("FAIL",), ("other",)]).to_html()
    assert re.search(r"color: #\w+\">ok<", html)
    assert re.search(r"color: #\w+; font-weight: bold\">FAIL<", html)
    assert 'left">other<' in html


def test_a_history_is_a_table(tmp_path: Path) -> None:
    history = two_epochs()
    assert len(history) == 2
    assert history.to_dict() == {"loss": [0.5, 0.25], "lr": [1.0, 1.0]}
    assert history._repr_html_().count("<tr>") == 3
    history.to_csv(tmp_path / "run.csv")
    with open(tmp_path / "run.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    assert rows == [["epoch", "loss", "lr"], ["1", "0.5", "1.0"], ["2", "0.25", "1.0"]]


def test_objects_print_what_they_are() -> None:
    p = nn.Parameter([1.0, 2.0])
    assert repr(p) == "Parameter([1., 2.], dtype=float32)"
    assert repr(p.requires_grad_(False)).endswith("requires_grad=False)")
    optimizer = nn.SGD([nn.Parameter([1.0])], lr=0.5)
    assert repr(nn.StepLR(optimizer, 3)).endswith("), step_size=3, gamma=0.1)")
    assert repr(nn.EarlyStopping()).startswith("EarlyStopping(monitor='validation_loss', pat")
    loader = nn.DataLoader(np.zeros((3, 2)), np.arange(3), batch_size=2, shuffle=True)
    shapes = "(3, 2) of float64 and (3,) of int64"
    assert repr(loader) == f"DataLoader({shapes}, batch_size=2, shuffle=True: 2 batches)"


def test_parts_of_a_training_run_show_their_options_and_their_state() -> None:
    parameter = nn.Parameter([[1.0, 2.0], [3.0, 4.0]])
    optimizer = nn.SGD([parameter], lr=0.1, momentum=0.9)
    schedule = nn.StepLR(optimizer, step_size=3)
    for _ in range(3):
        schedule.step()
    for shown, texts in (
        (optimizer, ("SGD", "momentum", "0.9")),
        (schedule, ("StepLR", "step_size", "steps", "3", "0.01")),
        (nn.ReduceLROnPlateau(optimizer, patience=7), ("patience", "7")),
        (nn.EarlyStopping(patience=7), ("EarlyStopping", "validation_loss", "7", "best_epoch")),
        (nn.Checkpoint("run.npz"), ("Checkpoint", "run.npz")),
        (nn.EMA(0.75), ("EMA", "decay", "0.75")),
        (nn.DataLoader(np.ones((5, 2)), batch_size=2), ("(5, 2) of float64", "batches", "3")),
        (parameter, ("Parameter(shape=(2, 2), dtype=float32)", "mean", "2.5")),
    ):
        cells = re.findall(r">([^<]+)</(?:td|th|caption)>", shown._repr_html_())
        assert set(texts) <= set(cells), shown


def test_values_and_gradient_of_a_parameter_are_shown() -> None:
    parameter = nn.Parameter([1.0, 2.0])
    assert "[1. 2.]" in parameter._repr_html_()
    assert "grad" not in parameter._repr_html_()
    parameter.accumulate([8.0, 8.0])
    assert ">grad<" in parameter._repr_html_()


def test_a_trace_draws_a_small_model_above_its_table() -> None:
    html = nn.trace(nn.Sequential(nn.Linear(2, 3), nn.Tanh()), np.ones((4, 2)))._repr_html_()
    assert 0 < html.index("<svg") < html.index("<table")
    large = nn.Sequential(*[nn.Tanh() for _ in range(30)])
    assert "<svg" not in nn.trace(large, np.ones((4, 2)))._repr_html_()


@pytest.mark.parametrize("callback", [nn.EMA(), nn.SWA(2), nn.CSVLogger("a.csv"), nn.LivePlot()])
def test_callbacks_print_as_their_call(callback: nn.Callback) -> None:
    assert repr(callback).startswith(f"{type(callback).__name__}(")
