"""Calls that run at the same time: all of them, and nothing is left running."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from nnlite import threads


def test_all_calls_run_at_the_same_time_and_the_first_in_this_thread() -> None:
    together, seen = threading.Barrier(4, timeout=10), {}

    def call(index: int) -> None:
        together.wait()  # nobody passes before all are here
        seen[index] = threading.get_ident()

    threads.run([lambda index=index: call(index) for index in range(4)])  # type: ignore[misc]
    assert len(set(seen.values())) == 4
    assert seen[0] == threading.get_ident()


def test_threads_are_used_again() -> None:
    seen: set[int] = set()
    for _ in range(20):
        threads.run([lambda: None, lambda: seen.add(threading.get_ident())])
    assert len(seen) == 1


def test_one_call_needs_no_other_thread() -> None:
    seen: list[int] = []
    threads.run([lambda: seen.append(threading.get_ident())])
    assert seen == [threading.get_ident()]


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


@pytest.mark.skipif(sys.platform == "win32", reason="there is no signal for one process")
def test_ctrl_c_waits_for_the_other_calls() -> None:
    done: list[bool] = []

    def interrupted() -> None:
        time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.2)
        done.append(True)

    with pytest.raises(KeyboardInterrupt):
        threads.run([lambda: None, interrupted])
    assert done == [True]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_forked_process_has_threads_of_its_own() -> None:
    script = """
import os, threading
from nnlite import threads
def run():
    seen = []
    threads.run([lambda: None, lambda: seen.append(threading.get_ident())])
    assert seen and seen[0] != threading.get_ident()
run()
child = os.fork()
run()
if child:
    assert os.waitpid(child, 0)[1] == 0
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", script], check=True, timeout=60)
