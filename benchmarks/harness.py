"""Measurement of a case: each side has its own process, and they take turns.

The workers of all sides exist at the same time, and only one works at a time. First, all must get
the same results as nnlite from the same weights and data. After a warm-up they run rounds in turn,
so that a temporary slowdown of the machine affects all of them. A round is a number of steps of
about a given total duration; it is recorded as the time of one step.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .case import Array, Batch, Case, State
from .sides import LIMITS, SIDES

ROOT = Path(__file__).resolve().parent.parent

# After a product, the threads of a BLAS or of OpenMP wait actively for the next one for some
# hundredths of a second. They must be asleep before the other side's turn.
_PAUSE = 0.05
# Allowed difference of results, relative to their norm. In float64 it covers the rounding of sums.
# In float32, rounding can also switch a ReLU or a maximum, and so change the gradient of a sample.
_TOLERANCE = {"float64": 1e-9, "float32": 2e-2}
# Libraries whose number of threads is set by an environment variable.
THREADED = ("OMP", "OPENBLAS", "MKL", "BLIS", "VECLIB_MAXIMUM", "NUMEXPR")


class CaseError(Exception):
    """A case cannot be measured; the message says why."""


@dataclass(frozen=True)
class Participant:
    """A column of the table: a side and its installation.

    Attributes
    ----------
    title : str
    side : str
        A key of `SIDES`.
    python : str
        The interpreter.
    root : Path
        The working folder, from which nnlite is imported.
    threads : int or None
        The number of threads, if not that of all sides.
    beside : bool
        Whether another process is busy meanwhile.
    """

    title: str
    side: str
    python: str = sys.executable
    root: Path = ROOT
    threads: int | None = None
    beside: bool = False

    @classmethod
    def of(cls, side: str, **options: Any) -> Participant:
        """Return a side under its own title."""
        return cls(SIDES[side].title, side, **options)


BUSY = Participant("busy", "nnlite", beside=True)
BUSY_ONE_THREAD = Participant("busy, one thread", "nnlite", threads=1, beside=True)


@dataclass(frozen=True)
class Options:
    """Options of the measurement.

    Attributes
    ----------
    threads : int
        Threads of each side.
    rounds : int
        Rounds of each side.
    seconds : float
        Duration of a round.
    limit : float
        Maximum duration of all rounds of a case in seconds; at least three rounds are run.
    memory : bool
        Whether to measure memory too.
    """

    threads: int
    rounds: int = 11
    seconds: float = 0.2
    limit: float = 60.0
    memory: bool = False


@dataclass
class Measurement:
    """The measurements of a case.

    Attributes
    ----------
    case : Case
    rival : str
        The title of the participant that nnlite is compared with.
    times : dict of str to ndarray
        Seconds per step of each round, by the title of the participant.
    operations : int
        Floating-point operations of the step's matrix products.
    memory : dict of str to (int, int)
        Bytes added by the case at the peak, and total bytes at the peak.
    """

    case: Case
    rival: str
    times: dict[str, NDArray[np.float64]]
    operations: int = 0
    memory: dict[str, tuple[int, int]] = field(default_factory=dict)

    def quartiles(self, title: str) -> tuple[float, float, float]:
        """Return the lower quartile, the median and the upper quartile of a step's time."""
        return _quartiles(self.times[title])

    def ratio(self, title: str, of: str = "nnlite") -> tuple[float, float, float] | None:
        """Return the quartiles of a side's time over that of another, computed for each round."""
        others, own = self.times.get(title), self.times.get(of)
        return None if others is None or own is None else _quartiles(others / own)

    def blas_share(self, of: str = "nnlite") -> float | None:
        """Return the time of the matrix products as a fraction of the step of a side."""
        share = self.ratio("BLAS", of)
        return None if share is None else share[1]


def _quartiles(values: NDArray[np.float64]) -> tuple[float, float, float]:
    low, middle, high = np.percentile(values, [25, 50, 75])
    return float(low), float(middle), float(high)


class Worker:
    """The parent's end of a worker process; see `benchmarks.worker`."""

    def __init__(self, participant: Participant, threads: int) -> None:
        self.participant = participant
        threads = participant.threads or threads
        environment = {f"{library}_NUM_THREADS": str(threads) for library in THREADED}
        environment["PYTHONPATH"] = os.pathsep.join(
            [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        )
        self._process = subprocess.Popen(
            [participant.python, "-m", "benchmarks.worker", participant.side, str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=participant.root,
            env=os.environ | environment,
        )

    def __call__(self, method: str, *arguments: Any) -> Any:
        """Call a method in the worker and return its result.

        Raises
        ------
        CaseError
            If the method fails or the worker ends.
        """
        title = self.participant.title
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            pickle.dump((method, arguments), self._process.stdin)
            self._process.stdin.flush()
            worked, value = pickle.load(self._process.stdout)
        except (EOFError, BrokenPipeError):
            status = self._process.wait()
            raise CaseError(f"{title}: the worker ended with exit status {status}") from None
        if not worked:
            raise CaseError(f"{title}: {value}")
        return value

    def close(self) -> None:
        """End the process, even in the middle of a step."""
        self._process.terminate()
        try:
            self._process.communicate(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()


class Session:
    """The workers of one run, started when a case first needs them.

    It is a context manager; on exit it ends the workers.

    Parameters
    ----------
    options : Options
    torchvision_python : str, optional
        The interpreter of the side "torchvision".
    against : Participant, optional
        Compare nnlite with this participant instead of the rival of each case.
    extras : sequence of Participant
        Further columns.

    Attributes
    ----------
    versions : dict of str to dict
        The versions of the modules of each side, by its title.
    missing : dict of str to str
        How to install the missing sides.
    """

    def __init__(
        self,
        options: Options,
        torchvision_python: str = sys.executable,
        against: Participant | None = None,
        extras: Sequence[Participant] = (),
    ) -> None:
        self.options = options
        self.against = against
        self.extras = list(extras)
        self.versions: dict[str, dict[str, str]] = {}
        self.missing: dict[str, str] = {}
        self._torchvision_python = torchvision_python
        self._workers: dict[str, Worker] = {}

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for title in list(self._workers):
            self._close(title)

    def _close(self, title: str) -> None:
        self._workers.pop(title).close()

    def measure(self, case: Case) -> Measurement:
        """Check that the sides of a case agree, and time them.

        Raises
        ------
        CaseError
            If a side fails or its result differs from nnlite's.
        """
        try:
            return self._measure(case)
        except CaseError as error:
            raise CaseError(f"{case.name}: {error}") from None

    def _measure(self, case: Case) -> Measurement:
        rival = self._rival_of(case)
        everyone = [Participant.of("nnlite"), rival, Participant.of("blas"), *self.extras]
        workers = self._workers_of([one for one in everyone if one.side in case.runners])
        if "nnlite" in self.missing:
            raise CaseError("nnlite cannot be imported")
        checked = [one for one in workers if one.participant.side not in LIMITS]
        batches = case.batches(np.random.default_rng(0))
        state = checked[0]("initial_state", case)
        float64 = [worker for worker in checked if worker("receive", case, batches, state, True)]
        check_agreement(float64, "float64")
        for worker in workers:
            worker("receive", case, batches, state)
        check_agreement(checked, "float32")

        measurement = Measurement(case, rival.title, self._time(workers))
        for worker in workers:
            title = worker.participant.title
            if worker.participant.side == "blas":
                measurement.operations = worker("operations")
            elif worker in checked and self.options.memory:
                measured = self._memory(worker.participant, case, batches, state)
                if measured is not None:
                    measurement.memory[title] = measured
        return measurement

    def _rival_of(self, case: Case) -> Participant:
        if self.against is not None:
            return self.against
        if case.rival == "torchvision":
            return Participant.of("torchvision", python=self._torchvision_python)
        return Participant.of(case.rival)

    def _workers_of(self, participants: Sequence[Participant]) -> list[Worker]:
        """Return the workers of those participants whose libraries are installed."""
        for participant in participants:
            title = participant.title
            if title in self._workers or title in self.missing:
                continue
            worker = self._workers[title] = Worker(participant, self.options.threads)
            try:
                version = worker("load_library")
            except CaseError:
                self._close(title)
                raise
            if version is None:
                self._close(title)
                self.missing[title] = SIDES[participant.side].cure
            else:
                self.versions[title] = version
        titles = [participant.title for participant in participants]
        return [self._workers[title] for title in titles if title in self._workers]

    def _time(self, workers: list[Worker]) -> dict[str, NDArray[np.float64]]:
        """Return the seconds per step of each round, by the title of the participant."""
        options = self.options
        length = 0.0
        for worker in workers:
            with _busy_process(worker.participant.beside):
                length += worker("warm_up", options.seconds) + _PAUSE
        rounds = min(options.rounds, max(3, int(options.limit / length)))
        times = {worker.participant.title: np.empty(rounds) for worker in workers}
        for number in range(rounds):
            # Reverse the order in each round, so that a steady drift of the machine favours none.
            for worker in workers if number % 2 == 0 else reversed(workers):
                time.sleep(_PAUSE)
                with _busy_process(worker.participant.beside):
                    times[worker.participant.title][number] = worker("run_round")
        return times

    def _memory(
        self, participant: Participant, case: Case, batches: list[Batch], state: State
    ) -> tuple[int, int] | None:
        """Measure in a new process, which contains no memory of earlier cases."""
        worker = Worker(participant, self.options.threads)
        try:
            worker("load_library")
            measured: tuple[int, int] | None = worker(
                "memory", case, batches, state, self.options.seconds
            )
            return measured
        finally:
            worker.close()


@contextlib.contextmanager
def _busy_process(wanted: bool) -> Iterator[None]:
    """Context in which another process uses a core, if `wanted`."""
    if not wanted:
        yield
        return
    process = subprocess.Popen([sys.executable, "-S", "-c", "while True: pass"])
    try:
        time.sleep(_PAUSE)
        yield
    finally:
        process.kill()
        process.wait()


def check_agreement(workers: Sequence[Worker], dtype: str) -> None:
    """Compare the results of all workers with those of the first.

    Raises
    ------
    CaseError
        If a result is missing or differs; the message names the sides and the result.
    """
    expected: dict[str, Array] = workers[0]("results") if len(workers) > 1 else {}
    for other in workers[1:]:
        found: dict[str, Array] = other("results")
        titles = f"{workers[0].participant.title} and {other.participant.title}"
        lacking = set(expected) - set(found) if other("is_complete") else set()
        for name in sorted(lacking | (set(found) - set(expected))):
            raise CaseError(f"only one of {titles} has {name}")
        for name in filter(found.__contains__, expected):
            fault = _difference(expected[name], found[name], _TOLERANCE[dtype])
            if fault:
                raise CaseError(f"{titles} differ in {name} ({dtype}): {fault}")


def _difference(expected: Array, found: Array, tolerance: float) -> str | None:
    """Describe how two arrays differ; return None if they agree within the tolerance."""
    if expected.shape != found.shape:
        return f"the shapes are {expected.shape} and {found.shape}"
    distance = float(np.linalg.norm(np.subtract(found, expected, dtype=np.float64)))
    norm = float(np.linalg.norm(expected.astype(np.float64)))
    if distance <= tolerance * norm:
        return None
    return f"by {distance / norm if norm else distance:.2g} of the norm"
