"""Settings of the documentation: ``sphinx-build docs docs/_build/html``."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

import nnlite

project = "nnlite"
author = "the nnlite developers"
project_copyright = f"2026, {author}"
release = nnlite.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx-mathjax-offline",  # formulas show without a network
    "numpydoc",
    "myst_nb",
    "sphinx_copybutton",
]
exclude_patterns = ["_build"]

# A reference to nothing is an error under -W; but what stands in a class's list of attributes has
# no place of its own to link to, and NumPy's own pages are not looked up.
nitpicky = True
nitpick_ignore_regex = [("py:obj", "[a-z_]+"), ("py:obj", r"numpy\..*")]

# Pages are Markdown, with formulas between dollar signs.
myst_enable_extensions = ["amsmath", "deflist", "dollarmath"]
myst_heading_anchors = 3

# Code cells run in every build, each page in an empty folder. A cell that fails is a warning, which
# -W makes an error.
nb_execution_mode = "force"
nb_execution_in_temp = True
nb_execution_show_tb = True
nb_execution_timeout = 300
nb_merge_streams = True
nb_output_stderr = "remove"  # progress bars
nb_render_markdown_format = "myst"

# What lies beside this file can be imported in a code cell.
os.environ["PYTHONPATH"] = os.pathsep.join(
    [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
)

# The copy button leaves out prompts, and the output of commands.
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

# What follows a `::` is a formula; code says what language it is in.
highlight_language = "text"

# In docstrings, `name` links to what is called so in nnlite, if anything is.
default_role = "autolink"
autodoc_member_order = "bysource"
autodoc_typehints = "none"
autosummary_generate = False
toc_object_entries_show_parents = "hide"
numpydoc_show_class_members = False

html_theme = "furo"
html_title = f"nnlite {release}"
html_static_path = ["_static"]
html_css_files = ["tables.css", "figures.css"]


def list_references(
    app: Sphinx, what: str, name: str, value: object, options: Any, lines: list[str]
) -> None:
    """Make a list of a docstring's references, each of which ends with a full stop.

    As they are they would run together, and "I. Author" would be taken for number one of a list.
    """
    if "References" not in lines:
        return
    first = lines.index("References") + 2
    bullet = "- "
    for number, line in enumerate(lines[first:], first):
        if not line:
            break
        lines[number] = bullet + re.sub(r"^([A-Z])\.", r"\1\\.", line)
        bullet = "- " if line.endswith(".") else "  "


def setup(app: Sphinx) -> None:
    """Have references listed before numpydoc sees them."""
    app.connect("autodoc-process-docstring", list_references, priority=400)
