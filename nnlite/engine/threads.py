"""Threads that wait for calls and run them beside the caller's own.

NumPy lets other threads run while it computes. To hand a call to a thread that sleeps takes some
50 µs, most of it until the processor has woken up, and several times that with the executors of
``concurrent.futures``.
"""

from __future__ import annotations

import atexit
import contextvars
import os
import queue
import threading
from collections.abc import Callable, Sequence

Call = Callable[[], object]


class _Task:
    """A call that a worker runs in the caller's context, and what came of it."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._context = contextvars.copy_context()  # which holds numpy.errstate
        self._unfinished = threading.Lock()  # quicker to wait for than an Event
        self._unfinished.acquire()
        self.is_done = False
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            self._context.run(self._call)
        except BaseException as error:  # it is raised where the task is awaited
            self.error = error
        self.is_done = True
        self._unfinished.release()

    def wait(self) -> None:
        self._unfinished.acquire()


class _Workers:
    """Threads, each with a queue of tasks; there are as many as were ever needed at once."""

    def __init__(self) -> None:
        self._queues: list[queue.SimpleQueue[_Task]] = []
        self._lock = threading.Lock()

    def start(self, index: int, call: Call) -> _Task:
        """Hand the call to the worker of this index; where no thread can start, run it here."""
        task = _Task(call)
        try:
            self._have(index)
        except RuntimeError:  # in a browser, or at the limit of the system
            task.run()
        else:
            self._queues[index].put(task)
        return task

    def _have(self, index: int) -> None:
        with self._lock:
            while len(self._queues) <= index:
                tasks: queue.SimpleQueue[_Task] = queue.SimpleQueue()
                threading.Thread(
                    target=_work, args=(tasks,), name=f"nnlite-{len(self._queues)}", daemon=True
                ).start()
                self._queues.append(tasks)


class _State(threading.local):
    """Whether the thread runs one of several calls: then it runs further ones by itself."""

    is_busy = False


_workers = _Workers()
_state = _State()
_is_ending = False


def _work(tasks: queue.SimpleQueue[_Task]) -> None:
    _state.is_busy = True
    while True:
        tasks.get().run()


def _begin_anew() -> None:
    """Begin anew in a forked process, which has none of the threads."""
    global _workers
    _workers = _Workers()


def _end() -> None:
    """Leave the workers alone once the interpreter ends, which does not let them run any more."""
    global _is_ending
    _is_ending = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew)
atexit.register(_end)


def is_busy() -> bool:
    """Whether this thread runs one of the calls of `run`."""
    return _state.is_busy


def run(calls: Sequence[Call]) -> None:
    """Run all calls at the same time, the first of them in this thread, and wait for them.

    Within one of the calls, at the end of the interpreter, and where no thread can start, they run
    one after the other.

    Raises
    ------
    BaseException
        The first error of a call, when all are done; or a KeyboardInterrupt and the like that
        arrived meanwhile.
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
            del errors  # an error holds its traceback, and that this frame


def _errors_of(calls: Sequence[Call]) -> list[BaseException]:
    """Run all calls, and return their errors; before them, what interrupted the waiting."""
    tasks: list[_Task] = []
    errors: list[BaseException] = []
    try:
        for index, call in enumerate(calls[1:]):
            tasks.append(_workers.start(index, call))
        calls[0]()
    except BaseException as error:
        errors.append(error)
    for task in tasks:
        while not task.is_done:
            try:
                task.wait()
            except BaseException as interruption:  # noqa: PERF203 - the task is not done yet
                errors.insert(0, interruption)
        if task.error is not None:
            errors.append(task.error)
            task.error = None  # its traceback holds the task
    try:
        return errors
    finally:
        del errors  # the traceback of the own call's error holds this frame too
