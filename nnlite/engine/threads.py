"""Worker threads that run calls in parallel with the caller's thread.

NumPy releases the global interpreter lock while it computes. Passing a call to a sleeping thread
takes about 30 µs, mostly for waking the processor; the executors of ``concurrent.futures`` take
several times as long. Where other programs keep the processor busy, it may take many times longer:
the caller then runs itself what no worker has begun.
"""

from __future__ import annotations

import atexit
import contextlib
import contextvars
import ctypes
import itertools
import os
import queue
import threading
from collections.abc import Callable, Sequence

Call = Callable[[], object]

_NONE = -1


class _Task:
    """A call that one thread runs in the caller's context, and its state."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self.core = _core_of_thread()  # the caller's
        self._context = contextvars.copy_context()  # includes numpy.errstate
        self._owner: dict[str, int] = {}  # the thread that runs the call
        self._unfinished = threading.Lock()  # faster to wait for than an Event
        self._unfinished.acquire()
        self.is_done = False
        self.error: BaseException | None = None

    def run(self) -> None:
        """Run the call, unless another thread has begun to."""
        this = threading.get_ident()
        if self._owner.setdefault("thread", this) != this:
            return
        try:
            call, self._call = self._call, _nothing  # not again, if a signal interrupts this
            self._context.run(call)
        except BaseException as error:  # raised later, by the thread that waits for the task
            self.error = error
        self.is_done = True
        self._unfinished.release()

    def wait(self) -> None:
        self._unfinished.acquire()


def _nothing() -> None:
    """Do nothing."""


def _find_core_of_thread() -> Callable[[], int]:
    """Return the C library's function for the number of this thread's core; on Linux alone."""
    if not hasattr(os, "sched_setaffinity"):
        return _unknown
    # Other than with CDLL, a call keeps the interpreter's lock.
    return getattr(ctypes.PyDLL(None), "sched_getcpu", _unknown)


def _unknown() -> int:
    """Return the number that is no core's."""
    return _NONE


_core_of_thread = _find_core_of_thread()


def _leave_core(core: int) -> None:
    """Keep this thread away from a core, if the process may run on others.

    Linux may wake a thread on the core of the thread that wakes it, again and again for some
    hundredths of a second, while another core has nothing to do.
    """
    with contextlib.suppress(OSError):
        others = os.sched_getaffinity(os.getpid()) - {core}
        if others:
            os.sched_setaffinity(0, others)


class _Workers:
    """Threads, each with a queue of tasks. They are started when first needed."""

    def __init__(self) -> None:
        self._queues: list[queue.SimpleQueue[_Task]] = []
        self._lock = threading.Lock()

    def start(self, index: int, task: _Task) -> None:
        """Pass the task to the worker with this index; run it here if no thread can start."""
        try:
            self._have(index)
        except RuntimeError:  # in a browser, or at the limit of the system
            task.run()
        else:
            self._queues[index].put(task)

    def _have(self, index: int) -> None:
        with self._lock:
            while len(self._queues) <= index:
                tasks: queue.SimpleQueue[_Task] = queue.SimpleQueue()
                threading.Thread(
                    target=_work, args=(tasks,), name=f"nnlite-{len(self._queues)}", daemon=True
                ).start()
                self._queues.append(tasks)


class _State(threading.local):
    """Whether this thread already runs one of several calls; nested calls then run in sequence."""

    is_busy = False


_workers = _Workers()
_state = _State()
_is_ending = False


def _work(tasks: queue.SimpleQueue[_Task]) -> None:
    _state.is_busy = True
    while True:
        task = tasks.get()
        if task.core == _core_of_thread() != _NONE:
            _leave_core(task.core)
        task.run()


def _begin_anew() -> None:
    """Start without workers in a forked process, where the threads do not exist."""
    global _workers
    _workers = _Workers()


def _end() -> None:
    """Stop using the workers when the interpreter exits, since it stops their threads."""
    global _is_ending
    _is_ending = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew)
atexit.register(_end)


def is_busy() -> bool:
    """Whether this thread runs one of the calls of `run`."""
    return _state.is_busy


def parts(
    length: int, limit: int, work: float, cost: float, lead: float, multiple: int = 1
) -> list[tuple[int, int]]:
    """Return the bounds of the parts of range(length) that threads compute.

    Parameters
    ----------
    length : int
    limit : int
        The largest number of parts.
    work : float
        The work of the whole, in some unit.
    cost : float
        The least work that one more thread has to save.
    lead : float
        The work that the first thread does beyond its equal part.
    multiple : int
        Parts begin at multiples of this, if `length` has at least two for each part.
    """
    count = 1
    # One more part saves work / count - work / (count + 1).
    while count < min(limit, length) and work >= cost * count * (count + 1):
        count += 1
    if count == 1:
        return [(0, length)]
    part = length * (1 - min(1, lead / max(1, work))) / count
    if length < 2 * multiple * count:
        multiple = 1
    starts = [length - part * left for left in range(count - 1, 0, -1)]
    edges = [min(round(start / multiple) * multiple, length) for start in starts]
    bounds = itertools.pairwise([0, *edges, length])
    return [(start, stop) for start, stop in bounds if start < stop]


def run(calls: Sequence[Call]) -> None:
    """Run all calls in parallel, the first of them in this thread, and wait for them.

    Inside one of the calls, while the interpreter exits, or if no thread can start, they run one
    after the other.

    Raises
    ------
    BaseException
        The first error of a call, after all calls are done; or an interruption, such as
        KeyboardInterrupt, that arrived while waiting.
    """
    if _state.is_busy or _is_ending:
        for call in calls:
            call()
        return
    _state.is_busy = True
    try:
        errors = _errors_of(calls)
    finally:
        _state.is_busy = False
    if errors:
        try:
            raise errors[0]
        finally:
            del errors  # break the cycle: error, traceback, this frame


def _errors_of(calls: Sequence[Call]) -> list[BaseException]:
    """Run all calls; return interruptions of the waiting first, then the errors of the calls."""
    tasks = [_Task(call) for call in calls[1:]]
    errors: list[BaseException] = []
    try:
        for index, task in enumerate(tasks):
            _workers.start(index, task)
        calls[0]()
    except BaseException as error:
        errors.append(error)
    for task in tasks:
        while not task.is_done:
            try:
                task.run()
                task.wait()
            except BaseException as interruption:  # noqa: PERF203 - the task is not done yet
                errors.insert(0, interruption)
        if task.error is not None:
            # Ctrl-C may have arrived in a call that ran in this thread.
            errors.insert(len(errors) if isinstance(task.error, Exception) else 0, task.error)
            task.error = None  # break the cycle: error, traceback, task
    try:
        return errors
    finally:
        del errors  # break the cycle: the traceback of the first call's error holds this frame
