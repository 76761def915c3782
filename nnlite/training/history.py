"""History: what a training run has measured, epoch by epoch."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from ..checks import integer, number
from ..engine.arrays import Array
from ..figures import new_figure
from ..hints import Hinted
from ..tables import Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, FigureBase

_VALIDATION = "validation_"


class History(Hinted, Mapping[str, Array]):
    """The figures of each epoch, by name: a mapping of names to arrays.

    `fit` fills it. ``dict(history)`` makes a plain dictionary of it.

    Attributes
    ----------
    epochs : ndarray of int
        The numbers of the epochs: 1, 2, …

    Notes
    -----
    `fit` records "loss", the mean over the training data as it was while the weights changed; each
    metric by its name; "validation_loss" and so on, measured after the epoch; and
    "lr", the learning rate of the epoch's last step.

    Examples
    --------
    >>> import nnlite as nn
    >>> history = nn.History()
    >>> history.append({"loss": 0.5, "validation_loss": 0.75})
    >>> history.append({"loss": 0.25, "validation_loss": 0.625})
    >>> history
    History(2 epochs, the last with loss 0.25, validation_loss 0.625)
    >>> history["loss"]
    array([0.5 , 0.25])
    >>> history.epochs
    array([1, 2])
    """

    def __init__(self) -> None:
        self._figures: dict[str, list[float]] = {}
        self._count = 0

    @property
    def epochs(self) -> Array:
        """The numbers of the epochs."""
        return np.arange(1, self._count + 1)

    def append(self, figures: Mapping[str, float]) -> None:
        """Add the figures of an epoch; what other epochs have and this one lacks is NaN."""
        added = {str(name): _as_figure(name, value) for name, value in figures.items()}
        for name in added:
            self._figures.setdefault(name, [np.nan] * self._count)
        for name, values in self._figures.items():
            values.append(added.get(name, np.nan))
        self._count += 1

    def __getitem__(self, name: str) -> Array:
        if name not in self._figures:
            raise KeyError(f"no {name!r} in the history; it has {', '.join(map(repr, self))}")
        return np.array(self._figures[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._figures)

    def __len__(self) -> int:
        """Return the number of epochs."""
        return self._count

    def to_dict(self) -> dict[str, list[float]]:
        """Return the figures of the epochs as lists by name, as ``pandas.DataFrame`` takes them."""
        return {name: values.copy() for name, values in self._figures.items()}

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Write a table with a row for each epoch to a file of comma-separated values."""
        with open(path, "w", encoding="utf-8", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["epoch", *self._figures])
            rows.writerows(zip(self.epochs.tolist(), *self._figures.values(), strict=True))

    def __eq__(self, other: object) -> bool:
        """Whether `other` is a history with the same figures, bit by bit; NaN is itself."""
        if not isinstance(other, History):
            return NotImplemented
        return list(self) == list(other) and all(
            np.array_equal(values, other[name], equal_nan=True) for name, values in self.items()
        )

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        epochs = "1 epoch" if self._count == 1 else f"{self._count} epochs"
        if not self._count:
            return f"History({epochs})"
        last = {name: values[-1] for name, values in self._figures.items()}
        return f"History({epochs}, the last with {named_figures(last)})"

    def _repr_html_(self) -> str:
        names = ("epoch", *self)
        rows = (
            (str(epoch), *(f"{value:.4g}" for value in figures))
            for epoch, *figures in zip(self.epochs, *self._figures.values(), strict=True)
        )
        return Table(names, rows, numeric=names).to_html()

    @overload
    def plot(self) -> Figure: ...
    @overload
    def plot(self, figure: FigureBase) -> FigureBase: ...
    def plot(self, figure: FigureBase | None = None) -> FigureBase:
        """Draw the figures over the epochs, training and validation together.

        The epoch with the lowest validation loss is marked.

        Parameters
        ----------
        figure : matplotlib.figure.Figure or SubFigure, optional
            Where to draw; by default a new figure.

        Returns
        -------
        matplotlib.figure.Figure or SubFigure
            With ``savefig("history.svg")`` a figure becomes a file.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        ValueError
            If there are no epochs yet.
        """
        if not self._count:
            raise ValueError("History.plot: there are no epochs to draw yet")
        panels = list(dict.fromkeys(name.removeprefix(_VALIDATION) for name in self))
        if "lr" in panels and len(set(self._figures["lr"])) == 1:
            panels.remove("lr")
        if figure is None:
            figure = new_figure((4.2 * len(panels), 3.2), "History.plot")
        from matplotlib.ticker import MaxNLocator

        (row,) = figure.subplots(1, len(panels), squeeze=False)
        for axes, name in zip(row, panels, strict=True):
            self._draw(axes, name)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        return figure

    def _draw(self, axes: Axes, name: str) -> None:
        marker = "o" if self._count == 1 else ""
        best = None
        if f"{_VALIDATION}loss" in self and not np.isnan(self[f"{_VALIDATION}loss"]).all():
            best = int(np.nanargmin(self[f"{_VALIDATION}loss"]))
        for line, colour, label in (
            (name, "tab:blue", "training"),
            (_VALIDATION + name, "tab:orange", "validation"),
        ):
            if line not in self:
                continue
            axes.plot(self.epochs, self[line], color=colour, marker=marker, label=label)
            if best is not None and line != name:
                value = self[line][best]
                below = name in self and self[name][best] > value
                axes.plot(best + 1, value, "o", color=colour)
                axes.annotate(
                    f"{value:.4g}",
                    (best + 1, value),
                    xytext=(0, -7 if below else 7),  # away from the other line
                    textcoords="offset points",
                    horizontalalignment="right" if best > self._count / 2 else "left",
                    verticalalignment="top" if below else "bottom",
                    color=colour,
                )
        title = {"lr": "learning rate"}.get(name, name.replace("_", " "))
        axes.set_title(title, loc="left")
        axes.set_xlabel("epoch")
        axes.margins(y=0.15)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        if _VALIDATION + name in self:
            axes.legend(frameon=False)

    # ---- for checkpoints ----

    def state_dict(self) -> dict[str, Any]:
        """Return what `load_state_dict` needs to have the same history again."""
        return {"epochs": self._count, "figures": dict(self)}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over the history that `state_dict` was taken of.

        Raises
        ------
        TypeError, ValueError
            If it is not the state of a history. Nothing is changed then.
        """
        try:
            count = integer(state_dict["epochs"], "History: the epochs of the state", 0)
            columns = {
                str(name): np.asarray(values, np.float64)
                for name, values in state_dict["figures"].items()
            }
        except (AttributeError, KeyError, TypeError, ValueError):
            raise TypeError(
                f"History: expected the state_dict of a history, got {state_dict!r:.80}"
            ) from None
        for name, values in columns.items():
            if values.shape != (count,):
                raise ValueError(
                    f"History: the state has {count} epochs, but {name!r} is of shape "
                    f"{values.shape}"
                )
        if count and not columns:  # nothing would speak against a count of any size
            raise ValueError(f"History: the state has {count} epochs, but no figures")
        self._count = count
        self._figures = {name: values.tolist() for name, values in columns.items()}


def _as_figure(name: str, value: Any) -> float:
    # NaN and infinity are figures too: a metric may have no value in an epoch.
    if isinstance(value, (float, np.floating)):
        return float(value)
    return number(value, f"History: {name}")


def columns(figures: Mapping[str, float]) -> str:
    """Return the figures by name in columns of one width, to be printed below each other."""
    cells = []
    for name, value in figures.items():
        shown = f"{value:.2%}" if name.endswith("accuracy") else f"{value:#.4g}"
        cells.append(f"{name.replace(_VALIDATION, 'val_')} {shown:9}")
    return " ".join(cells)


def named_figures(figures: Mapping[str, float]) -> str:
    """Return the figures by name in a line."""
    return ", ".join(f"{name} {value:.4g}" for name, value in figures.items())
