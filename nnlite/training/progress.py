"""``Progress``: a line for each epoch and, on a terminal or in a notebook, a bar."""

from __future__ import annotations

import contextlib
import importlib
import sys
import time
import warnings
from collections.abc import Iterator, Sized
from typing import Any

from .history import named_figures
from .state import Training


class Progress:
    """Prints how far a run is, in the process of rank 0; nothing if it is not `shown`.

    The first bar has the text `first`, until there are figures.
    """

    def __init__(self, training: Training, shown: bool, first: str = "") -> None:
        self._training = training
        self._shown = shown and training.processes.rank == 0
        self._text = first
        self._bar: Any = None
        self._begun = 0.0

    @contextlib.contextmanager
    def epoch(self) -> Iterator[None]:
        """Context of an epoch, with a bar on a terminal or in a notebook."""
        self._begun = time.perf_counter()
        notebook = is_notebook()
        if not self._shown or not (notebook or (sys.stderr is not None and sys.stderr.isatty())):
            yield
            return
        # Importing it takes longer than a small training.
        tqdm = _notebook_bar() if notebook else importlib.import_module("tqdm").tqdm

        training = self._training
        with tqdm(
            total=len(training.train) if isinstance(training.train, Sized) else None,
            initial=training.batch,
            desc=f"epoch {training.epoch}/{training.epochs}",
            unit=" batches",
            leave=False,
            dynamic_ncols=True,
            postfix=self._text,
        ) as self._bar:
            yield
        self._bar, self._text = None, ""

    def advance(self, batches: int) -> None:
        """Move the bar."""
        if self._bar is not None and self._bar.update(batches):
            # It was drawn just now: these figures are shown from the next time on.
            self._bar.set_postfix_str(named_figures(self._training.figures), refresh=False)

    def print_epoch(self) -> None:
        """Print the figures of the epoch that has ended."""
        if self._shown:
            print(self._training.describe(time.perf_counter() - self._begun), flush=True)

    def print_nothing_to_do(self) -> None:
        """Print why no epoch was trained."""
        if self._shown:
            print(self._training.describe_nothing(), flush=True)


def is_notebook() -> bool:
    """Whether the code runs in the kernel of a notebook."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return shell is not None and "IPKernelApp" in shell.config


def _notebook_bar() -> Any:
    """Return the bar of notebooks, or without ipywidgets that of terminals."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that ipywidgets is missing
        return importlib.import_module("tqdm.auto").tqdm
