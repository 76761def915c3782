"""The memory of this process: how much is in use, and the most that was."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

_STATUS = Path("/proc/self/status")


def start() -> int | None:
    """Begin a new measurement; return the bytes in use now, or None if it cannot be measured.

    Where the system's record of the peak cannot be reset, it is the peak so far that is returned,
    so that what a case adds comes out too small rather than too large.
    """
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # see proc(5)
        return _kilobytes("VmRSS") * 1024
    try:
        return peak()
    except ImportError:  # there is no `resource` on Windows
        return None


def peak() -> int:
    """Return the most bytes that were in use at once."""
    # Linux hands the `ru_maxrss` of the process that started this one on to it, so the status,
    # which begins anew with each program, is the better source.
    with contextlib.suppress(OSError):
        return _kilobytes("VmHWM") * 1024
    import resource

    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest if sys.platform == "darwin" else largest * 1024


def _kilobytes(name: str) -> int:
    for line in _STATUS.read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1])
    raise OSError(f"{_STATUS} has no {name}")
