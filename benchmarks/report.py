"""Output: the table, printed line by line as cases finish, and the same data as JSON."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .case import Case
from .harness import Measurement, Session
from .sides import SIDES

LEGEND = """\
Times are per step: the median of the rounds ± half the interquartile range. The ratio is the other
side's time over nnlite's: median and quartiles over pairs of rounds. BLAS is the time of the step's
matrix products alone, in NumPy, as a fraction of nnlite's step. Behind "nnlite compiled", the ratio
is the first other side's time over it, and BLAS is the fraction of its step: above 100% where its
own products of small batches are faster than those of BLAS."""
MEMORY_LEGEND = """\
MiB: peak memory added by the case to a new process; in brackets, the peak of the whole process."""

_COMPILED = SIDES["nnlite.compile"].title
_COMPILED_FLOOR = SIDES["compiled floor"].title
_QUARTILES = ("lower_quartile", "median", "upper_quartile")
_NONE = "–"
_UNITS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"))


class Table:
    """A table in Markdown whose rows are printed one by one.

    Parameters
    ----------
    cases : sequence of Case
        The cases to measure; their names set the width of the first column.
    rival : str
        The title of the column next to nnlite's.
    extras : sequence of str
        The titles of further sides; each has two columns, the median step and the ratio.
    memory : bool
        Whether to print columns for the memory of nnlite and of the rival.
    goals : bool, default True
        Whether the goals of the cases apply to this rival.
    """

    def __init__(
        self,
        cases: Sequence[Case],
        rival: str,
        extras: Sequence[str] = (),
        memory: bool = False,
        goals: bool = True,
    ) -> None:
        self._extras = extras
        self._memory = memory
        self._goals = goals
        head = ["case", "nnlite", rival, "ratio", "quartiles", "goal", "BLAS"]
        widths = [max(len(case.name) for case in cases), 13, 13, 5, 13, 5, 5]
        for extra in extras:
            head += [extra, "ratio"]
            widths += [13, 5]
            if extra == _COMPILED:
                head += ["goal", "BLAS"] if goals else ["BLAS"]
                widths += [5] * (2 if goals else 1)
        if memory:
            head += ["nnlite, MiB", f"{rival}, MiB"]
            widths += [14, 14]
        self._widths = list(map(max, widths, map(len, head)))
        self._print(head)
        self._print(["-" * self._widths[0], *["-" * (n - 1) + ":" for n in self._widths[1:]]])

    def print_row(self, measurement: Measurement) -> None:
        """Print the row of a case."""
        case, ratio = measurement.case, measurement.ratio(measurement.rival)
        cells = [
            case.name,
            _step(measurement, "nnlite"),
            _step(measurement, measurement.rival),
            _middle(ratio),
            f"{ratio[0]:.2f} – {ratio[2]:.2f}" if ratio else _NONE,
            _goal(case.goal if self._goals else None),
            _share(measurement.blas_share()),
        ]
        for extra in self._extras:
            if extra == _COMPILED:
                ratio = measurement.ratio(measurement.rival, of=extra)
                cells += [_step(measurement, extra), _middle(ratio)]
                cells += [_goal(case.compiled_goal)] if self._goals else []
                cells.append(_share(measurement.blas_share(extra)))
            else:
                of = _COMPILED if extra == _COMPILED_FLOOR else "nnlite"
                cells += [_step(measurement, extra), _middle(measurement.ratio(extra, of=of))]
        if self._memory:
            cells += [_mebibytes(measurement, title) for title in ("nnlite", measurement.rival)]
        self._print(cells)

    def _print(self, cells: list[str]) -> None:
        first, *others = zip(cells, self._widths, strict=True)
        padded = [first[0].ljust(first[1]), *[cell.rjust(width) for cell, width in others]]
        print(f"| {' | '.join(padded)} |", flush=True)


def _goal(goal: float | None) -> str:
    return f"{goal:.2f}".removesuffix("0") if goal else _NONE


def _share(share: float | None) -> str:
    return f"{share:.0%}" if share else _NONE


def _step(measurement: Measurement, title: str) -> str:
    """Return the median, and half the interquartile range as a fraction of it."""
    if title not in measurement.times:
        return _NONE
    low, median, high = measurement.quartiles(title)
    return f"{_seconds(median)} ±{(high - low) / 2 / median:.0%}"


def _seconds(value: float) -> str:
    """Return a time with three digits and its unit."""
    size, unit = next((pair for pair in _UNITS if value >= pair[0]), _UNITS[-1])
    value /= size
    return f"{value:.{max(0, 3 - len(str(int(value))))}f} {unit}"


def _middle(quartiles: tuple[float, float, float] | None) -> str:
    return f"{quartiles[1]:.2f}" if quartiles else _NONE


def _mebibytes(measurement: Measurement, title: str) -> str:
    if title not in measurement.memory:
        return _NONE
    added, peak = measurement.memory[title]
    return f"{added / 2**20:+.1f} ({peak / 2**20:.0f})"


def machine() -> str:
    """Return the processor and the Python version in one line."""
    processor = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                processor = line.partition(":")[2].strip()
                break
    return f"{processor}, {os.cpu_count()} cores, Python {platform.python_version()}"


def print_head(session: Session) -> None:
    """Print the machine and the settings, and a warning if the machine is busy."""
    options = session.options
    print(f"{machine()}; threads: {options.threads}; rounds: {options.rounds}\n", flush=True)
    load, cores = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0, os.cpu_count() or 1
    if load > cores / 2:
        print(
            f"benchmarks: warning: the machine is busy (load {load:.1f} on {cores} cores), and "
            f"threads that wait for each other then take many times as long",
            file=sys.stderr,
        )


def print_notes(session: Session) -> None:
    """Print the notes below the table: definitions of the numbers, and versions."""
    print(f"\n{LEGEND}")
    if session.options.memory:
        print(MEMORY_LEGEND)
    print()
    for title, versions in session.versions.items():
        print(f"{title}: {', '.join(f'{name} {version}' for name, version in versions.items())}.")
    for title, cure in session.missing.items():
        print(f"{title} is left out, since it is not installed here: {cure}.")


def write_json(path: Path, session: Session, measurements: Sequence[Measurement]) -> None:
    """Write every round of every case, with all settings, as JSON."""
    document = {
        "machine": machine(),
        "options": asdict(session.options),
        "versions": session.versions,
        "cases": [_entry(measurement) for measurement in measurements],
    }
    path.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _entry(measurement: Measurement) -> dict[str, Any]:
    sides = {}
    for title, times in measurement.times.items():
        side: dict[str, Any] = {
            "seconds_of_a_step": dict(zip(_QUARTILES, measurement.quartiles(title), strict=True)),
            "rounds": times.tolist(),
        }
        if title in measurement.memory:
            side["bytes_added"], side["bytes_at_peak"] = measurement.memory[title]
        sides[title] = side
    return {
        "name": measurement.case.name,
        "goal": measurement.case.goal,
        "rival": measurement.rival,
        "ratio_quartiles": measurement.ratio(measurement.rival),
        "blas_share": measurement.blas_share(),
        "operations_of_products": measurement.operations,
        "sides": sides,
    }
