"""Callbacks that show a run while it lasts: ``CSVLogger`` and ``LivePlot``."""

from __future__ import annotations

import csv
import io
import os
from typing import Any

from ..files.atomic import check_target, replacing
from ..files.reading import as_path
from .callbacks import Callback
from .history import History
from .progress import is_notebook
from .state import Training


class CSVLogger(Callback):
    """Write the figures of each epoch into a file of comma-separated values.

    The first row has the names, "epoch" first; each epoch adds a row, which is on the disk when the
    next epoch begins. When a checkpoint is resumed, the rows are those of its history.

    Parameters
    ----------
    path : str or path-like
        The file; an existing one is replaced when `fit` begins. A relative path is relative to the
        working directory at this moment.

    Raises
    ------
    OSError
        At the start of `fit`, if the file cannot be written.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> import numpy as np
    >>> import nnlite as nn
    >>> x = np.ones((4, 1), np.float32)
    >>> model = nn.Sequential(nn.Linear(1, 1, bias=False))
    >>> model[0].weight.data[...] = 0
    >>> optimizer = nn.SGD(model.parameters(), lr=0.25)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     history = nn.fit(
    ...         model, nn.MeanSquaredError(), optimizer, [(x, x)], epochs=2, progress=False,
    ...         callbacks=[nn.CSVLogger(f"{folder}/run.csv")],
    ...     )
    ...     print(pathlib.Path(folder, "run.csv").read_text())
    epoch,loss,lr
    1,1.0,0.25
    2,0.25,0.25
    <BLANKLINE>
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = as_path(path, "CSVLogger")
        self._file = os.path.abspath(self.path)

    def on_fit_begin(self, training: Training) -> None:
        self._write(training, "w", 0)

    def on_resume(self, training: Training) -> None:
        self._write(training, "w", 0)

    def on_epoch_end(self, training: Training) -> None:
        self._write(training, "a", training.epoch - 1)

    def _write(self, training: Training, mode: str, first: int) -> None:
        """Write the rows of the epochs from index `first` on, and in a new file the names."""
        if training.processes.rank:
            return
        history = training.history
        names = list(dict.fromkeys([*history, *training.names]))
        columns = [history[name].tolist() for name in names if name in history]
        with open(self._file, mode, newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            if mode == "w":
                writer.writerow(["epoch", *names])
            for index in range(first, len(history.epochs)):
                writer.writerow([index + 1, *(column[index] for column in columns)])


class LivePlot(Callback):
    """Draw the curves of the run after each epoch: in a notebook, or into a file.

    It is the picture of `History.plot`, which replaces the one of the epoch before.

    Parameters
    ----------
    path : str or path-like, optional
        A file, whose name ends in ``.png``, ``.svg`` or ``.pdf``. Without it, the picture is shown
        in the notebook.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    ValueError
        If the name of the file has another ending.
    RuntimeError
        At the start of `fit`, if there is no notebook to show the picture in.
    OSError
        At the start of `fit`, if the file cannot be written.

    Examples
    --------
    >>> import os, tempfile
    >>> import numpy as np
    >>> import nnlite as nn
    >>> x = np.ones((4, 1), np.float32)
    >>> model = nn.Sequential(nn.Linear(1, 1))
    >>> optimizer = nn.SGD(model.parameters(), lr=0.25)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     history = nn.fit(
    ...         model, nn.MeanSquaredError(), optimizer, [(x, x)], epochs=2, progress=False,
    ...         callbacks=[nn.LivePlot(f"{folder}/run.svg")],
    ...     )
    ...     os.listdir(folder)
    ['run.svg']
    """

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        try:
            import matplotlib.figure  # noqa: F401
        except ImportError as error:
            raise ImportError(
                "LivePlot needs matplotlib; install it with: pip install matplotlib"
            ) from error
        self.path = None if path is None else as_path(path, "LivePlot")
        self._file = None if self.path is None else os.path.abspath(self.path)
        self._format = "png" if path is None else os.path.splitext(str(self._file))[1][1:].lower()
        if self._format not in ("png", "svg", "pdf"):
            raise ValueError(
                f"LivePlot: the name of the file has to end in .png, .svg or .pdf, got {path!r}"
            )
        self._shown: Any = None

    def on_fit_begin(self, training: Training) -> None:
        self._shown = None
        if training.processes.rank:
            return
        if self._file is not None:
            check_target(self._file)
        elif not is_notebook():
            raise RuntimeError(
                "LivePlot: there is no notebook to show the picture in; write it into a file with "
                "LivePlot('run.svg')"
            )

    def on_epoch_end(self, training: Training) -> None:
        if training.processes.rank:
            return
        picture = self._picture(training.history)
        if self._file is not None:
            with replacing(self._file) as file:
                file.write(picture)
            return
        import IPython.display

        notebook: Any = IPython.display
        image = notebook.Image(picture, format="png", retina=True)
        if self._shown is None:
            self._shown = notebook.display(image, display_id=True)
        else:
            self._shown.update(image)

    def _picture(self, history: History) -> bytes:
        from matplotlib.figure import Figure

        figure = Figure(layout="constrained")
        history.plot(figure)
        figure.set_size_inches(4.2 * len(figure.axes), 3.2)
        buffer = io.BytesIO()
        figure.savefig(buffer, format=self._format, dpi=144)
        return buffer.getvalue()
