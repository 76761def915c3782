"""Figures that others have printed, in a table beside what nnlite computes.

The recorded text is the template: each number in it is replaced by nnlite's, with as many digits.
If a number would not round to the one that was recorded, the page fails.
"""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

NUMBER = re.compile(r"-?\d+\.?\d*")


@dataclass(frozen=True)
class Row:
    """One quantity: what nnlite computes, and what a notebook and PyTorch have printed for it.

    nnlite's figures are written like the notebook's, or else like PyTorch's, and have to agree with
    them; `differs` names the column, "notebook" or "pytorch", with which they need not.
    """

    name: str
    computed: Any
    notebook: str = ""
    pytorch: str = ""
    differs: str = ""

    def text(self) -> str:
        """Return nnlite's figures, in the form of those that were recorded."""
        like = "notebook" if self.notebook and self.differs != "notebook" else "pytorch"
        recorded = getattr(self, like)
        values = np.ravel(self.computed).tolist()
        numbers = NUMBER.findall(recorded)
        if len(values) != len(numbers):
            raise ValueError(f"{self.name}: {len(values)} values for the numbers of {recorded!r}")
        if self.differs != like:
            for value, number in zip(values, numbers, strict=True):
                if not _rounds_to(value, number):
                    raise ValueError(f"{self.name}: {value} was computed for {number}")
        texts = iter(map(_written_like, values, numbers))
        return NUMBER.sub(lambda match: next(texts), recorded)


def _rounds_to(value: float, number: str) -> bool:
    _, _, decimals = number.partition(".")
    half_a_digit = 0.5 * 10.0 ** -len(decimals)
    # All sixteen digits of a float64 may change with the order in which a machine adds.
    return abs(value - float(number)) <= half_a_digit + 1e-15 * abs(value)


def _written_like(value: float, number: str) -> str:
    _, point, decimals = number.partition(".")
    text = f"{value:.{len(decimals)}f}"
    if float(text) == 0:
        text = text.removeprefix("-")
    return text if decimals else text + point


def compare(*rows: Sequence[Any]) -> Comparison:
    """Return a table of `rows`, each of them the arguments of a `Row`."""
    return Comparison([Row(*row) for row in rows])


class Comparison:
    """A table of rows, for a notebook to show."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self.rows = rows
        self.texts = [row.text() for row in rows]

    def _repr_html_(self) -> str:
        columns = {
            "notebook": [row.notebook for row in self.rows],
            "nnlite": self.texts,
            "PyTorch": [row.pytorch for row in self.rows],
        }
        columns = {title: figures for title, figures in columns.items() if any(figures)}
        lines = [_line("th", ["", *columns])]
        for row, *figures in zip(self.rows, *columns.values(), strict=True):
            name = html.escape(row.name).replace(" ", "&nbsp;")
            lines.append(_line("td", [name, *map(_as_code, figures)]))
        return f'<table style="font-size: 0.7rem">{"".join(lines)}</table>'


def _line(tag: str, cells: Sequence[str]) -> str:
    style = "text-align: left; vertical-align: top; padding-right: 0.6rem"
    return "".join(["<tr>", *(f'<{tag} style="{style}">{cell}</{tag}>' for cell in cells), "</tr>"])


def _as_code(text: str) -> str:
    # A matrix keeps its lines; a vector may be broken where the page is narrow.
    wrap = "pre" if "\n" in text else "pre-wrap"
    return f'<code style="white-space: {wrap}">{html.escape(text)}</code>' if text else "–"
