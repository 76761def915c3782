"""Ctrl-C at every place of a function where it can arrive, one after the other."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable
from types import FrameType, ModuleType
from typing import Any


def interrupt_on_each_line(call: Callable[[], object], *modules: ModuleType) -> None:
    """Call again and again, with a KeyboardInterrupt on another line of the modules each time.

    Raises
    ------
    AssertionError
        If the call ends in another way than with the KeyboardInterrupt.
    """
    files = [module.__file__ for module in modules]
    line = 0

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal line
        code = frame.f_code
        if code.co_filename not in files or code.co_name == "__del__":
            return None  # Python ignores what a __del__ raises
        line += event == "line"
        if line == last:
            sys.settrace(None)
            raise KeyboardInterrupt
        return trace

    given, failed = sys.gettrace(), []
    for last in itertools.count(1):
        line = 0
        sys.settrace(trace)
        try:
            call()
        except KeyboardInterrupt:
            continue
        except Exception as error:
            failed.append((last, error))
        finally:
            sys.settrace(given)
        if line < last:
            break
    assert last > 10
    assert not failed
