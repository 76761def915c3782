"""The memory of this process: current use and peak."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

_STATUS = Path("/proc/self/status")


def start() -> int | None:
    """Start a new measurement; return the bytes in use now, or None if it cannot be measured.

    If the system's record of the peak cannot be reset, return the peak so far, so that the memory
    of a case is underestimated rather than overestimated.
    """
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # see proc(5)
        return _kilobytes("VmRSS") * 1024
    try:
        return peak()
    except ImportError:  # Windows has no `resource`
        return None


def peak() -> int:
    """Return the peak number of bytes in use."""
    # On Linux a process inherits `ru_maxrss` from its parent, so prefer the status file, which
    # starts from zero with each program.
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
