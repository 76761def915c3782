"""A worker process: it holds one library and does, one at a time, what it is told over a pipe.

``python -m benchmarks.worker SIDE THREADS`` reads pickled pairs from its standard input: the name
of a method, and its arguments. It answers each with a pair: whether it worked, and the value or the
fault.
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
        """Forget the last case and build this one, on NumPy arrays; return whether it worked.

        It does not if it is asked for in float64 and this side has it in float32 only.
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
        """Return the weights that a new runner of the case starts with."""
        return case.runners[self._side](case).state()

    def results(self) -> dict[str, Array]:
        """Return what the sides must agree on."""
        return self._runner.results(self._batches)

    def is_complete(self) -> bool:
        """Whether the results lack nothing that nnlite's have."""
        return self._runner.complete

    def operations(self) -> int:
        """Return the floating-point operations of the products of a step (side "blas")."""
        assert isinstance(self._runner, BlasRunner)
        return self._runner.operations

    def warm_up(self, seconds: float) -> float:
        """Run steps for some time, and settle how many make a round of that time; return it."""
        count, taken = 1, self._steps(1)
        while taken < seconds / 2:
            count *= 2
            taken = self._steps(count)
        self._count = max(1, round(seconds * count / taken))
        return self._count * taken / count

    def run_round(self) -> float:
        """Run a round of steps; return the seconds of one."""
        if self._count > 1:
            self._steps(1)  # the other sides have had the caches since
        return self._steps(self._count) / self._count

    def memory(
        self, case: Case, batches: Sequence[Batch], state: State, seconds: float
    ) -> tuple[int, int] | None:
        """Return how far a case raises the memory over what was in use before it, and the peak.

        Both in bytes; None if the case works in other processes, or if it cannot be measured.
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
    """Keep this process to as many cores as it is to have threads, where the system allows it."""
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, cores[:threads])


def main() -> None:
    """Answer requests until the pipe is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends the worker
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    # What a library prints must not get between the answers.
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
