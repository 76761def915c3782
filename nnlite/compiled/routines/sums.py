"""Sums over the samples of a batch, and their counterpart."""

from __future__ import annotations

from nnlite.compiled.routines.table import Cube, Matrix, Places, Vector


def add_to_rows(row: Vector, out: Matrix) -> None:
    """Add `row` to each row of `out`."""
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            out[i, j] += row[j]


def column_sums(rows: Matrix, out: Vector) -> None:
    """Write the sums of the columns."""
    for j in range(len(out)):
        out[j] = 0
    for i in range(rows.shape[0]):
        for j in range(rows.shape[1]):
            out[j] += rows[i, j]


def channel_sums(lines: Cube, out: Vector) -> None:
    """Write the sums of all values (N, C, places) of each channel."""
    for c in range(len(out)):
        total = lines.dtype.type(0)
        for b in range(lines.shape[0]):
            line = lines[b, c]
            for p in range(len(line)):
                total += line[p]
        out[c] = total


def add_at(places: Places, values: Matrix, out: Matrix) -> None:
    """Write the values of each line to their places in it, or to none if the place is -1."""
    for i in range(out.shape[0]):
        line = out[i]
        for j in range(len(line)):
            line[j] = 0
        for k in range(values.shape[1]):
            place = places[i, k]
            if place >= 0:
                line[place] += values[i, k]
