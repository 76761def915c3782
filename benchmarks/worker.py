"""A worker process, which imports one library and executes requests from a pipe one at a time.

``python -m benchmarks.worker SIDE THREADS`` reads pickled pairs from its standard input: the name
of a method and its arguments. It answers each with a pair: whether it succeeded, and the value or
the error.
"""

from __future__ import annotations

import gc
import itertools
import os
import pickle
import signal
import sys
import time
import traceback
from collections.abc import Iterator, Sequence

import numpy as np

from . import memory
from .case import Array, Batch, BlasRunner, Case, Runner, State
from .sides import SIDES


class Worker:
    """The methods that can be called over the pipe."""

    _runner: Runner
    _batches: list[Batch]
    _cycle: Iterator[Batch]
    _count: int

    def __init__(self, side: str, threads: int) -> None:
        self._side = side
        self._threads = threads

    def load_library(self) -> dict[str, str] | None:
        """Import the library of this side; return its versions, or None if it is not installed."""
        side = SIDES[self._side]
        try:
            return side.load(self._threads)
        except ModuleNotFoundError as error:
            if error.name not in side.modules:
                raise
            return None

    def receive(
        self, case: Case, batches: Sequence[Batch], state: State, float64: bool = False
    ) -> bool:
        """Replace the last case by this one, with NumPy arrays as batches; return the success.

        It fails if float64 is requested and this side only supports float32.
        """
        self._forget()
        self._runner = case.runners[self._side](case)
        if float64:
            if not self._runner.to_float64():
                return False
            batches = [tuple(map(_as_float64, batch)) for batch in batches]
        self._runner.load(state)
        self._batches = [self._runner.batch(*batch) for batch in batches]
        self._cycle = itertools.cycle(self._batches)
        return True

    def initial_state(self, case: Case) -> dict[str, Array]:
        """Return the initial weights of a new runner of the case."""
        return case.runners[self._side](case).state()

    def results(self) -> dict[str, Array]:
        """Return the results that must agree on all sides."""
        return self._runner.results(self._batches)

    def is_complete(self) -> bool:
        """Whether the results include all of nnlite's."""
        return self._runner.complete

    def operations(self) -> int:
        """Return the floating-point operations of the products of a step (side "blas")."""
        assert isinstance(self._runner, BlasRunner)
        return self._runner.operations

    def warm_up(self, seconds: float) -> float:
        """Set the number of steps in a round of about `seconds`; return its expected duration."""
        count, taken = 1, self._steps(1)
        while taken < seconds / 2:
            count *= 2
            taken = self._steps(count)
        self._count = max(1, round(seconds * count / taken))
        return self._count * taken / count

    def run_round(self) -> float:
        """Run a round of steps; return the seconds of one."""
        if self._count > 1:
            self._steps(1)  # reload the caches, which the other sides have used since
        return self._steps(self._count) / self._count

    def memory(
        self, case: Case, batches: Sequence[Batch], state: State, seconds: float
    ) -> tuple[int, int] | None:
        """Return the memory added by a case and the peak, in bytes.

        Return None if the case works in other processes, or if it cannot be measured.
        """
        before = memory.start()
        self.receive(case, batches, state)
        if before is None or not case.in_process:
            return None
        self.warm_up(seconds)
        peak = memory.peak()
        return peak - before, peak

    def _forget(self) -> None:
        for name in ("_runner", "_batches", "_cycle"):
            self.__dict__.pop(name, None)
        gc.collect()

    def _steps(self, count: int) -> float:
        step, cycle = self._runner.step, self._cycle
        start = time.perf_counter()
        for _ in range(count):
            step(*next(cycle))
        return time.perf_counter() - start


def _as_float64(array: Array) -> Array:
    return array.astype(np.float64) if array.dtype.kind == "f" else array


def pin_to_cores(threads: int) -> None:
    """Restrict this process to as many cores as threads, if the system supports it."""
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, cores[:threads])


def main() -> None:
    """Answer requests until the pipe is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C and ends the worker
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    # Output printed by a library must not mix with the answers.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    side, threads = sys.argv[1], int(sys.argv[2])
    pin_to_cores(threads)
    worker = Worker(side, threads)
    while True:
        try:
            method, arguments = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        try:
            answer = True, getattr(worker, method)(*arguments)
        except Exception as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            answer = False, f"{type(error).__name__}: {error} ({last.filename}:{last.lineno})"
        pickle.dump(answer, answers)
        answers.flush()


if __name__ == "__main__":
    main()
