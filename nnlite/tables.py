"""Tables: aligned text in a terminal, HTML in a notebook."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from .hints import options_of

# Of verdicts in a notebook, on light and on dark paper.
_COLOURS = {
    "ok": "; color: #2da44e",
    "FAIL": "; color: #e5534b; font-weight: bold",
    "kink": "; color: #bf8700",
}


class Table:
    """Rows of cells under a header, with lines of text above and below.

    Parameters
    ----------
    header : sequence of str
        The names of the columns.
    rows : iterable of sequence of str
        The cells.
    numeric : container of str
        The right-aligned columns.
    title : str
        A line above the table.
    notes : iterable of str
        Lines below the table.
    """

    def __init__(
        self,
        header: Sequence[str],
        rows: Iterable[Sequence[str]],
        numeric: Iterable[str] = (),
        title: str = "",
        notes: Iterable[str] = (),
    ) -> None:
        self.header = tuple(header)
        self.rows = [tuple(row) for row in rows]
        self.numeric = frozenset(numeric)
        self.title = title
        self.notes = tuple(notes)

    def __str__(self) -> str:
        widths = [max(map(len, column)) for column in zip(self.header, *self.rows, strict=True)]
        lines = [self._line(row, widths) for row in (self.header, *self.rows)]
        return "\n".join([self.title] * bool(self.title) + lines + list(self.notes))

    def _line(self, row: Sequence[str], widths: Sequence[int]) -> str:
        cells = (
            cell.rjust(width) if name in self.numeric else cell.ljust(width)
            for name, cell, width in zip(self.header, row, widths, strict=True)
        )
        return "  ".join(cells).rstrip()

    def to_html(self) -> str:
        """Return the table as HTML, with every text escaped."""
        import html  # here, since few programs need it

        aligns = ["right" if name in self.numeric else "left" for name in self.header]

        def row_of(tag: str, cells: Sequence[str]) -> str:
            return "".join(
                f'<{tag} style="text-align: {align}{_COLOURS.get(cell, "")}">'
                f"{html.escape(cell)}</{tag}>"
                for align, cell in zip(aligns, cells, strict=True)
            )

        body = "\n".join(f"<tr>{row_of('td', row)}</tr>" for row in self.rows)
        title = f"<caption>{html.escape(self.title)}</caption>\n" if self.title else ""
        notes = "".join(f"\n<p>{html.escape(note)}</p>" for note in self.notes)
        return (
            f"<table>\n{title}<thead><tr>{row_of('th', self.header)}</tr></thead>\n"
            f"<tbody>\n{body}\n</tbody>\n</table>{notes}"
        )


def options_table(owner: object, **more: Any) -> str:
    """Return the HTML of a table of the options of `owner` and of `more`, without what is None."""
    rows = {**options_of(owner), **more}
    cells = [(name, short(value)) for name, value in rows.items() if value is not None]
    return Table(("option", "value"), cells, title=type(owner).__name__).to_html()


def short(value: Any) -> str:
    """Return a text of a few words: of an array, its shape and dtype."""
    if isinstance(value, np.ndarray):
        return f"{value.shape} of {value.dtype}"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, (tuple, list)):
        return ", ".join(map(short, value))
    text = " ".join(str(value).split()) if isinstance(value, str) else " ".join(repr(value).split())
    return text if len(text) <= 80 else f"{text[:77]}..."
