"""Parallel calls: all of them run, and no thread is left running."""

from __future__ import annotations

import gc
import os
import queue
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from nnlite.engine import threads


def test_all_calls_run_at_the_same_time_and_the_first_in_this_thread() -> None:
    together, seen = threading.Barrier(4, timeout=10), {}

    def call(index: int) -> None:
        together.wait()  # nobody passes before all are here
        seen[index] = threading.get_ident()

    threads.run([lambda index=index: call(index) for index in range(4)])  # type: ignore[misc]
    assert len(set(seen.values())) == 4
    assert seen[0] == threading.get_ident()


def apart(first: Callable[[], object], second: Callable[[], object]) -> list[threads.Call]:
    """Return two calls that wait for each other, so that each runs in a thread of its own."""
    together = threading.Barrier(2, timeout=10)

    def call(work: Callable[[], object]) -> None:
        together.wait()
        work()

    return [partial(call, first), partial(call, second)]


def test_threads_are_used_again() -> None:
    seen: set[int] = set()
    for _ in range(20):
        threads.run(apart(lambda: None, lambda: seen.add(threading.get_ident())))
    assert len(seen) == 1
    assert threading.get_ident() not in seen


def test_what_no_thread_has_begun_runs_in_this_one() -> None:
    held, end, seen = threading.Event(), threading.Event(), []

    def hold() -> None:
        held.set()
        end.wait()

    # The worker is kept by another caller, as it may be by a processor that is busy.
    blocked = threading.Thread(target=lambda: threads.run(apart(lambda: None, hold)))
    blocked.start()
    try:
        assert held.wait(10)
        for _ in range(3):
            threads.run([lambda: None, lambda: seen.append(threading.get_ident())])
        assert seen == [threading.get_ident()] * 3
    finally:
        end.set()
        blocked.join()
    threads.run(apart(lambda: None, lambda: None))  # the worker has passed over what is done
    assert len(seen) == 3


def test_one_call_needs_no_other_thread() -> None:
    seen: list[int] = []
    threads.run([lambda: seen.append(threading.get_ident())])
    assert seen == [threading.get_ident()]


def test_where_no_thread_can_start_all_calls_run_in_this_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threads, "_workers", threads._Workers())
    monkeypatch.setattr(threading.Thread, "start", refuse)
    seen: list[int] = []
    calls: list[Any] = [lambda: seen.append(threading.get_ident())] * 3
    threads.run(calls)
    assert seen == [threading.get_ident()] * 3
    with pytest.raises(ZeroDivisionError):
        threads.run([*calls, lambda: 1 / 0, *calls])
    assert len(seen) == 9
    assert not threads.is_busy()


@pytest.mark.parametrize("failing", [0, 1, 2])
def test_an_error_is_raised_when_all_calls_are_done(failing: int) -> None:
    done: list[int] = []

    def call(index: int) -> None:
        if index == failing:
            raise ZeroDivisionError
        time.sleep(0.05)
        done.append(index)

    with pytest.raises(ZeroDivisionError):
        threads.run([lambda index=index: call(index) for index in range(3)])  # type: ignore[misc]
    assert sorted(done) == [index for index in range(3) if index != failing]
    threads.run([lambda: None, lambda: done.append(9)])  # and the threads go on
    assert done[-1] == 9


def test_what_numpy_does_about_errors_holds_for_all_calls() -> None:
    def divide() -> None:
        np.ones(1) / np.zeros(1)

    with np.errstate(divide="ignore"):
        threads.run([divide, divide])
    with np.errstate(divide="raise"), pytest.raises(FloatingPointError):
        threads.run([lambda: None, divide])


def test_of_several_errors_the_first_call_s_is_raised() -> None:
    def fail(error: type[Exception], seconds: float) -> None:
        time.sleep(seconds)
        raise error

    calls = [lambda: None, lambda: fail(KeyError, 0.1), lambda: fail(ZeroDivisionError, 0)]
    with pytest.raises(KeyError):
        threads.run(calls)


def test_an_exit_in_another_thread_is_raised_in_this_one() -> None:
    seen: list[BaseException] = []

    def call() -> None:
        try:
            threads.run([lambda: None, sys.exit])
        except SystemExit as error:
            seen.append(error)

    caller = threading.Thread(target=call, daemon=True)  # so that a hanging one ends with pytest
    caller.start()
    caller.join(10)
    assert len(seen) == 1


def test_whoever_is_woken_early_finds_the_call_done() -> None:
    class Slow:
        """A lock whose release takes a while after the lock is free."""

        def __init__(self, lock: Any) -> None:
            self.lock, self.acquire = lock, lock.acquire

        def release(self) -> None:
            self.lock.release()
            time.sleep(0.1)

    task = threads._Task(lambda: None)
    task._unfinished = Slow(task._unfinished)  # type: ignore[assignment]
    waiting = threading.Thread(target=task.wait, daemon=True)
    waiting.start()
    task.run()
    waiting.join(10)
    assert not waiting.is_alive()


def test_two_callers_share_the_threads_they_begin(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Any] = []

    class Slow(threading.Thread):
        def start(self) -> None:
            if self.name == "nnlite-0":
                started.append(self)
                time.sleep(0.1)
            super().start()

    together = threading.Barrier(2)
    callers = [
        threading.Thread(
            target=lambda: together.wait() is None or threads.run([lambda: None, lambda: None])
        )
        for _ in range(2)
    ]
    monkeypatch.setattr(threads, "_workers", threads._Workers())
    monkeypatch.setattr(threads.threading, "Thread", Slow)
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert len(started) == 1


def test_several_callers_do_not_disturb_each_other() -> None:
    totals: list[int] = []

    def caller() -> None:
        count = []
        for _ in range(50):
            threads.run([lambda: count.append(1), lambda: count.append(1)])
        totals.append(len(count))

    callers = [threading.Thread(target=caller) for _ in range(4)]
    for thread in callers:
        thread.start()
    for thread in callers:
        thread.join()
    assert totals == [100] * 4


def test_calls_within_a_call_take_turns() -> None:
    seen: list[tuple[int, int]] = []

    def outer(index: int) -> None:
        here = threading.get_ident()
        threads.run([lambda: seen.append((index, threading.get_ident() == here))] * 3)

    threads.run([lambda: outer(0), lambda: outer(1)])
    assert sorted(seen) == [(0, True)] * 3 + [(1, True)] * 3


@pytest.mark.skipif(sys.platform == "win32", reason="there is no signal for one process")
def test_ctrl_c_waits_for_the_other_calls() -> None:
    done: list[bool] = []

    def interrupted() -> None:
        time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.2)
        done.append(True)

    # Where the tests run in the background, Ctrl-C is ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        check_an_interruption(done, interrupted)
    finally:
        signal.signal(signal.SIGINT, before)


def check_an_interruption(done: list[bool], interrupted: Callable[[], None]) -> None:
    with pytest.raises(KeyboardInterrupt):
        threads.run(apart(lambda: None, interrupted))
    assert done == [True]

    def fail() -> None:
        raise ZeroDivisionError

    with pytest.raises(KeyboardInterrupt):  # it comes before an error of a call
        threads.run(apart(fail, interrupted))
    assert done == [True, True]


def test_a_call_that_was_passed_on_as_ctrl_c_came_is_waited_for_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Interrupted(queue.SimpleQueue[Any]):
        def put(self, task: Any) -> None:  # type: ignore[override]
            super().put(task)
            raise KeyboardInterrupt

    def slow() -> None:
        time.sleep(0.2)
        done.append(True)

    done: list[bool] = []
    monkeypatch.setattr(threads, "_workers", threads._Workers())
    monkeypatch.setattr(queue, "SimpleQueue", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        threads.run([lambda: None, slow])
    assert done == [True]


@pytest.mark.skipif(sys.platform == "win32", reason="there is no signal for one process")
def test_so_does_whatever_else_a_signal_raises() -> None:
    done: list[bool] = []

    def stop(*arguments: object) -> None:
        raise SystemExit

    def interrupted() -> None:
        time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGUSR1)
        time.sleep(0.1)
        done.append(True)

    before = signal.signal(signal.SIGUSR1, stop)
    try:
        with pytest.raises(SystemExit):
            threads.run(apart(lambda: None, interrupted))
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert done == [True]


def test_an_error_leaves_nothing_behind() -> None:
    array = np.zeros(3)
    watch = weakref.ref(array)

    def fail(array: Any) -> None:
        raise ZeroDivisionError

    gc.disable()
    try:
        for calls in ([partial(fail, array), lambda: None], [lambda: None, partial(fail, array)]):
            with pytest.raises(ZeroDivisionError):
                threads.run(calls)
        del array, calls
        assert watch() is None
    finally:
        gc.enable()


def test_at_the_end_of_the_interpreter_calls_take_turns() -> None:
    script = """
from nnlite.engine import threads
class Last:
    def __del__(self):
        threads.run([lambda: print("one"), lambda: print("two")])
threads.run([lambda: None, lambda: None])
last = Last()
last.itself = last
"""
    done = subprocess.run(
        [sys.executable, "-c", script], check=True, timeout=60, capture_output=True, text=True
    )
    assert done.stdout.split() == ["one", "two"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_forked_process_has_threads_of_its_own() -> None:
    script = """
import os, threading
from nnlite.engine import threads
def run():
    together, seen = threading.Barrier(2, timeout=10), set()
    threads.run([lambda: together.wait() is None or seen.add(threading.get_ident())] * 2)
    assert len(seen) == 2
run()
child = os.fork()
run()
if child:
    assert os.waitpid(child, 0)[1] == 0
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", script], check=True, timeout=60)


@pytest.mark.parametrize(
    ("core", "cores", "expected"),
    [(0, {0, 1, 2}, [{1, 2}]), (0, {0}, []), (1, {0, 1}, [])],
    ids=["the caller's", "the only one", "another one"],
)
def test_a_thread_leaves_the_core_of_its_caller(
    core: int, cores: set[int], expected: list[set[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    caller, kept = threading.get_ident(), []
    monkeypatch.setattr(threads, "_workers", threads._Workers())
    monkeypatch.setattr(
        threads, "_core_of_thread", lambda: 0 if threading.get_ident() == caller else core
    )
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: cores, raising=False)
    monkeypatch.setattr(
        os, "sched_setaffinity", lambda thread, others: kept.append(others), raising=False
    )
    threads.run(apart(lambda: None, lambda: None))
    assert kept == expected


def test_a_thread_that_may_not_leave_its_core_works_there(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(thread: int, cores: set[int]) -> None:
        raise PermissionError

    monkeypatch.setattr(threads, "_workers", threads._Workers())
    monkeypatch.setattr(threads, "_core_of_thread", lambda: 0)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1}, raising=False)
    monkeypatch.setattr(os, "sched_setaffinity", refuse, raising=False)
    threads.run(apart(lambda: None, lambda: None))


def test_where_cores_are_not_known_no_thread_leaves_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(os, "sched_setaffinity", raising=False)
    monkeypatch.setattr(threads, "_workers", threads._Workers())
    monkeypatch.setattr(threads, "_core_of_thread", threads._find_core_of_thread())
    threads.run(apart(lambda: None, lambda: None))


@given(
    length=st.integers(0, 2000),
    limit=st.integers(1, 70),
    work=st.floats(0, 1e9),
    cost=st.floats(0, 1e8),
    lead=st.floats(0, 1e9),
    multiple=st.integers(1, 20),
)
@example(length=38, limit=2, work=10, cost=5, lead=9.7, multiple=8)
def test_parts_make_up_the_whole_and_each_saves_what_it_costs(
    length: int, limit: int, work: float, cost: float, lead: float, multiple: int
) -> None:
    bounds = threads.parts(length, limit, work, cost, lead, multiple)
    count = len(bounds)
    assert count == 1 or count <= min(limit, length)
    assert count == 1 or work / (count - 1) - work / count >= cost * (1 - 1e-9)
    assert [start for start, _ in bounds] == [0, *[stop for _, stop in bounds[:-1]]]
    assert bounds[-1][1] == length
    assert all(start < stop for start, stop in bounds) or bounds == [(0, 0)]
    if length >= 2 * multiple * limit:
        assert all(start % multiple == 0 for start, _ in bounds)


@pytest.mark.parametrize(
    ("work", "expected"),
    [
        (9, [(0, 60)]),
        (10, [(0, 39), (39, 60)]),  # (60 - 60 · 3/10) / 2 for the second
        (30, [(0, 24), (24, 42), (42, 60)]),  # (60 - 60 · 3/30) / 3
        (60, [(0, 17), (17, 32), (32, 46), (46, 60)]),
        (1e9, [(0, 15), (15, 30), (30, 45), (45, 60)]),
    ],
)
def test_the_caller_does_more_and_more_work_has_more_parts(
    work: float, expected: list[tuple[int, int]]
) -> None:
    assert threads.parts(60, 4, work, cost=5, lead=3) == expected
