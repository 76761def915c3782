"""``Progress``: a line for each epoch and, on a terminal, a bar."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sized
from typing import Any

from .history import named_figures
from .state import Training


class Progress:
    """Prints how far a run is, in the process of rank 0; nothing if it is not `shown`."""

    def __init__(self, training: Training, shown: bool) -> None:
        self._training = training
        self._shown = shown and training.processes.rank == 0
        self._bar: Any = None

    @contextlib.contextmanager
    def epoch(self) -> Iterator[None]:
        """Context of an epoch, with a bar if there is a terminal."""
        if not self._shown or sys.stderr is None or not sys.stderr.isatty():
            yield
            return
        from tqdm import tqdm  # importing it takes longer than a small training

        training = self._training
        with tqdm(
            total=len(training.train) if isinstance(training.train, Sized) else None,
            initial=training.batch,
            desc=f"epoch {training.epoch}/{training.epochs}",
            unit=" batches",
            leave=False,
            dynamic_ncols=True,
        ) as self._bar:
            yield
        self._bar = None

    def advance(self, batches: int) -> None:
        """Move the bar."""
        if self._bar is not None and self._bar.update(batches):
            # It was drawn just now: these figures are shown from the next time on.
            self._bar.set_postfix_str(named_figures(self._training.figures), refresh=False)

    def print_epoch(self) -> None:
        """Print the figures of the epoch that has ended."""
        if self._shown:
            print(self._training.describe(), flush=True)

    def print_nothing_to_do(self) -> None:
        """Print why no epoch was trained."""
        if self._shown:
            print(self._training.describe_nothing(), flush=True)
