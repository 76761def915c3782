"""A history returns its values, plots them, and can be saved to a file."""

from __future__ import annotations

import builtins
from typing import Any

import matplotlib
import numpy as np
import pytest
from matplotlib import pyplot
from numpy.testing import assert_array_equal

import nnlite as nn


@pytest.fixture
def history() -> nn.History:
    history = nn.History()
    history.append({"loss": 1.0, "validation_loss": 1.5, "accuracy": 0.5, "lr": 0.1})
    history.append({"loss": 0.5, "validation_loss": 1.25, "accuracy": 0.75, "lr": 0.1})
    history.append({"loss": 0.25, "validation_loss": 2.0, "accuracy": 1.0, "lr": 0.1})
    return history


def test_gives_plain_arrays_by_name(history: nn.History) -> None:
    assert list(history) == ["loss", "validation_loss", "accuracy", "lr"]
    assert_array_equal(history["loss"], [1.0, 0.5, 0.25])
    assert type(history["loss"]) is np.ndarray
    assert_array_equal(history.epochs, [1, 2, 3])
    assert_array_equal(dict(history)["validation_loss"], [1.5, 1.25, 2.0])


def test_its_arrays_are_copies(history: nn.History) -> None:
    history["loss"][:] = 0
    assert_array_equal(history["loss"], [1.0, 0.5, 0.25])


def test_a_name_it_has_not_is_an_error_that_lists_those_it_has(history: nn.History) -> None:
    with pytest.raises(KeyError, match="no 'val_loss' in the history; it has 'loss', 'validation"):
        history["val_loss"]
    assert "val_loss" not in history


def test_what_an_epoch_lacks_is_nan() -> None:
    history = nn.History()
    history.append({"loss": 1.0})
    history.append({"loss": 0.5, "accuracy": 0.75})
    history.append({"accuracy": 1.0})
    assert_array_equal(history["loss"], [1.0, 0.5, np.nan])
    assert_array_equal(history["accuracy"], [np.nan, 0.75, 1.0])


def test_equals_a_history_of_the_same_figures(history: nn.History) -> None:
    other = nn.History()
    other.load_state_dict(history.state_dict())
    assert history == other
    for equal in (history, other):
        equal.append({"loss": float("nan")})
    assert history == other
    other.append({"loss": 1.0})
    assert history != other
    assert history != dict(history)


def test_a_figure_that_is_no_number_leaves_it_as_it_was(history: nn.History) -> None:
    with pytest.raises(TypeError, match="History: accuracy must be a number"):
        history.append({"loss": 0.1, "accuracy": "high"})  # type: ignore[dict-item]
    assert_array_equal(history["loss"], [1.0, 0.5, 0.25])


def test_repr_has_the_last_figures(history: nn.History) -> None:
    assert repr(nn.History()) == "History(0 epochs)"
    assert repr(history) == (
        "History(3 epochs, the last with loss 0.25, validation_loss 2, accuracy 1, lr 0.1)"
    )


def test_its_state_makes_the_same_history(history: nn.History) -> None:
    history.append({"loss": float("inf")})
    other = nn.History()
    other.append({"something else": 7.0})
    other.load_state_dict(history.state_dict())
    assert list(other) == list(history)
    for name, values in history.items():
        assert_array_equal(other[name], values)
    assert_array_equal(other.epochs, [1, 2, 3, 4])


@pytest.mark.parametrize(
    "state",
    [
        {},
        None,
        {"epochs": 1},
        {"epochs": 2, "figures": {"loss": [1.0]}},
        {"epochs": 1, "figures": 3},
    ],
)
def test_another_state_is_refused_and_changes_nothing(history: nn.History, state: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="History: "):
        history.load_state_dict(state)
    assert_array_equal(history["loss"], [1.0, 0.5, 0.25])


class TestPlot:
    @pytest.fixture(autouse=True)
    def _no_window(self) -> Any:
        matplotlib.use("Agg")
        yield
        pyplot.close("all")

    def test_has_a_panel_for_each_figure_with_training_and_validation(
        self, history: nn.History
    ) -> None:
        panels = history.plot().axes
        # A learning rate that has not changed says nothing.
        assert [axes.get_title(loc="left") for axes in panels] == ["loss", "accuracy"]
        training, validation = (line for line in panels[0].lines if line.get_label()[0] != "_")
        assert (training.get_label(), validation.get_label()) == ("training", "validation")
        assert_array_equal(training.get_xydata(), [(1, 1.0), (2, 0.5), (3, 0.25)])
        assert_array_equal(validation.get_xydata(), [(1, 1.5), (2, 1.25), (3, 2.0)])

    def test_marks_the_epoch_of_the_lowest_validation_loss(self, history: nn.History) -> None:
        (mark,) = (line for line in history.plot().axes[0].lines if line.get_marker() == "o")
        assert_array_equal(mark.get_xydata(), [(2, 1.25)])

    def test_draws_a_learning_rate_that_changes(self) -> None:
        history = nn.History()
        history.append({"loss": 1.0, "lr": 0.1})
        history.append({"loss": 0.5, "lr": 0.05})
        assert history.plot().axes[1].get_title(loc="left") == "learning rate"

    def test_draws_validation_alone(self) -> None:
        history = nn.History()
        for value in (2.0, 1.0):
            history.append({"validation_loss": value})
        (mark,) = (line for line in history.plot().axes[0].lines if line.get_marker() == "o")
        assert_array_equal(mark.get_xydata(), [(2, 1.0)])

    def test_draws_a_single_epoch(self, tmp_path: Any) -> None:
        history = nn.History()
        history.append({"loss": 1.0, "validation_loss": float("nan"), "lr": 0.1})
        history.plot().savefig(tmp_path / "history.png")
        assert (tmp_path / "history.png").stat().st_size > 1000

    def test_without_epochs_there_is_nothing_to_draw(self) -> None:
        with pytest.raises(ValueError, match="no epochs to draw yet"):
            nn.History().plot()


def test_without_matplotlib_plot_says_how_to_install_it(
    history: nn.History, monkeypatch: pytest.MonkeyPatch
) -> None:
    import_ = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return import_(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r"pip install matplotlib"):
        history.plot()
