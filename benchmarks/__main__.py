"""The command line: ``python -m benchmarks --help``."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import io
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from .case import Case
from .cases import select
from .harness import (
    BUSY,
    BUSY_ONE_THREAD,
    ROOT,
    CaseError,
    Measurement,
    Options,
    Participant,
    Session,
)
from .report import Table, print_head, print_notes, write_json


def main() -> int:
    """Run the command line; return its exit status."""
    arguments = parse_arguments()
    cases = arguments.cases
    if arguments.list:
        print("\n".join(case.name for case in cases))
        return 0

    options = Options(
        threads=arguments.threads,
        rounds=arguments.rounds or (3 if arguments.quick else 11),
        seconds=0.05 if arguments.quick else 0.2,
        memory=arguments.memory,
    )
    with (
        participant_at(arguments.against) as against,
        Session(options, arguments.torchvision_python, against, arguments.extras) as session,
    ):
        print_head(session)
        if arguments.growth:
            from . import growth

            growth.plot(session, arguments.growth)
            return 0
        return print_table(session, cases, arguments.json)


def print_table(session: Session, cases: Sequence[Case], json: Path | None) -> int:
    """Measure the cases and print a row for each; return the exit status."""
    against = session.against
    table = Table(
        cases,
        against.title if against else "PyTorch",
        [extra.title for extra in session.extras],
        session.options.memory,
        goals=against is None,
    )
    measurements: list[Measurement] = []
    failed = False
    try:
        for case in cases:
            measurement = _measured(session, case)
            failed |= measurement is None
            if measurement is not None:
                measurements.append(measurement)
                table.print_row(measurement)
    finally:
        print_notes(session)
        if json:
            write_json(json, session, measurements)
    return int(failed)


def _measured(session: Session, case: Case) -> Measurement | None:
    """Measure a case; if that fails, print the reason and return None."""
    try:
        return session.measure(case)
    except CaseError as error:
        print(f"benchmarks: error: {error}", file=sys.stderr, flush=True)
        return None


@contextlib.contextmanager
def participant_at(commit: str | None) -> Iterator[Participant | None]:
    """Context with the nnlite of a commit in a temporary folder; None if `commit` is None."""
    if commit is None:
        yield None
        return
    archive = subprocess.run(
        ["git", "archive", "--format=zip", commit, "nnlite"],
        cwd=ROOT, capture_output=True, check=False,
    )  # fmt: skip
    if archive.returncode:
        raise CaseError(f"--against {commit}: git says {archive.stderr.decode().strip()!r}")
    with tempfile.TemporaryDirectory() as folder:
        with zipfile.ZipFile(io.BytesIO(archive.stdout)) as files:
            files.extractall(folder)
        yield Participant(commit, "nnlite", root=Path(folder))


def parse_arguments() -> argparse.Namespace:
    """Return the options of the command line, or exit with an error message."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Time nnlite and PyTorch side by side."
    )
    parser.add_argument(
        "patterns", nargs="*", metavar="PATTERN",
        help="part of the name of a case, or a glob; all cases if there is none",
    )  # fmt: skip
    add = parser.add_argument
    add("--list", action="store_true", help="print the names of the cases, and end")
    add("--quick", action="store_true", help="few and short rounds: for a first look")
    add("--rounds", type=int, metavar="N", help="rounds of each side (11; 3 with --quick)")
    add("--threads", type=int, default=_cores(), metavar="N", help="of each side (all cores)")
    add("--memory", action="store_true", help="measure the peak memory too")
    add("--json", type=Path, metavar="FILE", help="write every round of every case there")
    group = parser.add_argument_group("more sides")
    for option, side, what in (
        ("--compiled", Participant.of("nnlite.compile"), "nnlite with the whole step compiled"),
        ("--torch-compile", Participant.of("torch.compile"), "PyTorch's model compiled"),
        ("--jax", Participant.of("jax"), "JAX, with the whole step under jit"),
        ("--sklearn", Participant.of("sklearn"), "scikit-learn's MLPClassifier"),
        (
            "--floor",
            Participant.of("floor"),
            "the NumPy calls that a step cannot do without, and with --compiled for the least work "
            "of machine code",
        ),
        ("--busy", BUSY, "nnlite, with --compiled both, beside another busy process"),
        ("--busy-one-thread", BUSY_ONE_THREAD, "the same with one thread"),
    ):
        group.add_argument(
            option, dest="extras", action="append_const", const=side, default=[],
            help=f"a column for {what}",
        )  # fmt: skip
    group.add_argument(
        "--torchvision-python", default=sys.executable, metavar="PATH",
        help="interpreter for the cases with torchvision (this one)",
    )  # fmt: skip
    group.add_argument(
        "--against", metavar="COMMIT",
        help="compare with nnlite as of a commit of this repository, not with PyTorch",
    )  # fmt: skip
    group = parser.add_argument_group("instead of the table")
    group.add_argument(
        "--growth", type=Path, metavar="FILE",
        help="plot the time of a step against batch size and width (.svg, .png, …)",
    )  # fmt: skip
    arguments = parser.parse_args()
    compiled = Participant.of("nnlite.compile")
    if compiled in arguments.extras:
        if Participant.of("floor") in arguments.extras:
            arguments.extras.append(Participant.of("compiled floor"))
        arguments.extras += [
            dataclasses.replace(extra, title=f"{extra.title}, compiled", side=compiled.side)
            for extra in arguments.extras
            if extra.beside
        ]
    for name in ("rounds", "threads"):
        value = getattr(arguments, name)
        if value is not None and value < 1:
            parser.error(f"--{name} must be at least 1, got {value}")
    for name in ("json", "growth"):
        path = getattr(arguments, name)
        if path and not path.absolute().parent.is_dir():
            parser.error(f"--{name}: there is no folder {path.absolute().parent}")
    try:
        arguments.cases = select(arguments.patterns)
    except ValueError as error:
        parser.error(str(error))
    return arguments


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except CaseError as error:
        sys.exit(f"benchmarks: error: {error}")
    except KeyboardInterrupt:
        print("benchmarks: interrupted", file=sys.stderr)
        sys.exit(130)
