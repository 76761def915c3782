"""The scripts of ``examples/``, run in a code cell as a reader would run them."""

from __future__ import annotations

import runpy
from pathlib import Path

from matplotlib_inline.backend_inline import set_matplotlib_formats


def run(name: str) -> None:
    """Run a script; what it prints and draws is the output of the cell."""
    set_matplotlib_formats("svg")
    runpy.run_path(str(Path(__file__).parent / "examples" / name), run_name="__main__")
