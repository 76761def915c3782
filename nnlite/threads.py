"""Threads that wait for calls and run them beside the caller's own.

NumPy lets other threads run while it computes. To hand a call to a thread that sleeps takes some
50 µs, most of it until the processor has woken up, and several times that with the executors of
``concurrent.futures``.
"""

from __future__ import annotations

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
        self._running = threading.Lock()
        self._running.acquire()
        self._is_done = False
        self._error: BaseException | None = None

    def run(self) -> None:
        try:
            self._context.run(self._call)
        except BaseException as error:  # it is raised where the task is awaited
            self._error = error
        self._is_done = True
        self._running.release()

    def wait(self) -> BaseException | None:
        """Return the error of the call when it is done, also after a Ctrl-C, or None."""
        interruption: BaseException | None = None
        while not self._is_done:
            try:
                self._running.acquire()
            except KeyboardInterrupt as error:  # noqa: PERF203 - the loop is there for its sake
                interruption = error
        return interruption or self._error


class _Workers:
    """Threads, each with a queue of tasks; there are as many as were ever needed at once."""

    def __init__(self) -> None:
        self._queues: list[queue.SimpleQueue[_Task]] = []
        self._lock = threading.Lock()

    def start(self, index: int, call: Call) -> _Task:
        """Hand the call to the worker of this index."""
        with self._lock:
            while len(self._queues) <= index:
                tasks: queue.SimpleQueue[_Task] = queue.SimpleQueue()
                threading.Thread(
                    target=_work, args=(tasks,), name=f"nnlite-{len(self._queues)}", daemon=True
                ).start()
                self._queues.append(tasks)
        task = _Task(call)
        self._queues[index].put(task)
        return task


def _work(tasks: queue.SimpleQueue[_Task]) -> None:
    while True:
        tasks.get().run()


_workers = _Workers()


def _forget() -> None:
    """Begin anew in a forked process, which has none of the threads."""
    global _workers
    _workers = _Workers()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def run(calls: Sequence[Call]) -> None:
    """Run all calls at the same time, the first of them in this thread, and wait for them.

    The first error that one of them raises is raised here, when all are done.
    """
    tasks: list[_Task] = []
    errors: list[BaseException | None] = []
    try:
        for index, call in enumerate(calls[1:]):
            tasks.append(_workers.start(index, call))
        calls[0]()
    finally:
        errors += [task.wait() for task in tasks]
    for error in errors:
        if error is not None:
            raise error
