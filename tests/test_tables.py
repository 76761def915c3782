"""Tables: aligned as text, escaped as HTML."""

from __future__ import annotations

from nnlite.tables import Table

TABLE = Table(
    ("name", "size"),
    [("a", "1"), ("longer", "1000"), ("<b>", "")],
    numeric=["size"],
    title="what & how",
    notes=["n < m"],
)


def test_text_is_aligned_left_and_numbers_right() -> None:
    assert str(TABLE).split("\n") == [
        "what & how",
        "name    size",
        "a          1",
        "longer  1000",
        "<b>",
        "n < m",
    ]


def test_html_is_escaped() -> None:
    assert TABLE.to_html().split("\n") == [
        "<table>",
        "<caption>what &amp; how</caption>",
        '<thead><tr><th style="text-align: left">name</th>'
        '<th style="text-align: right">size</th></tr></thead>',
        "<tbody>",
        '<tr><td style="text-align: left">a</td><td style="text-align: right">1</td></tr>',
        '<tr><td style="text-align: left">longer</td><td style="text-align: right">1000</td></tr>',
        '<tr><td style="text-align: left">&lt;b&gt;</td><td style="text-align: right"></td></tr>',
        "</tbody>",
        "</table>",
        "<p>n &lt; m</p>",
    ]


def test_a_table_without_rows_title_and_notes_is_its_header() -> None:
    assert str(Table(("name", "size"), [])) == "name  size"
