"""Figures of matplotlib that a notebook shows once, whatever the cell does with them."""

from __future__ import annotations

import functools
import importlib
import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def new_figure(size: tuple[float, float], who: str) -> Figure:
    """Return a new figure of pyplot, so that ``pyplot.show()`` shows it too.

    Raises
    ------
    ImportError
        If matplotlib is missing; the message begins with the caller's name `who`.
    """
    try:
        from matplotlib import pyplot
    except ImportError as error:
        raise ImportError(
            f"{who} needs matplotlib; install it with: pip install matplotlib"
        ) from error
    figure = pyplot.figure(figsize=size, layout="constrained")
    if "inline" in pyplot.get_backend():
        # A notebook shows the value of a cell's last line, and figures that are open at its end.
        vars(figure)["_ipython_display_"] = functools.partial(_display, figure)
    return figure


def _display(figure: Figure) -> None:
    """Display a figure in a notebook, and close it, so that it is not displayed again."""
    from matplotlib import pyplot

    pyplot.close(figure)
    ipython = importlib.import_module("IPython.display")
    png = io.BytesIO()
    figure.savefig(png, format="png")
    ipython.display(ipython.Image(data=png.getvalue()))
