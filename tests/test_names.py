"""Names and packages: what nnlite says to somebody who asks for one that is not there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import nnlite as nn

ROOT = Path(nn.__file__).parents[1]
THIS = Path(__file__)


def test_no_text_tells_to_install_the_other_distribution_of_this_name() -> None:
    texts = [path for end in ("py", "md") for path in ROOT.rglob(f"*.{end}") if path != THIS]
    wrong = [
        path.relative_to(ROOT).as_posix()
        for path in texts
        if any(f"pip install {quote}nnlite" in path.read_text("utf-8") for quote in ("", "'", '"'))
    ]
    assert wrong == []


@pytest.mark.parametrize("name", ["to_onnx", "from_onnx", "to_torch", "from_torch"])
def test_a_function_whose_package_is_missing_says_what_to_install(name: str) -> None:
    package = name.rpartition("_")[2]
    script = f"import sys; sys.modules[{package!r}] = None; import nnlite; nnlite.{name}"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=False
    )
    message = f"nnlite.{name} needs {package}; install it with: pip install {package}"
    assert done.stderr.endswith(f"ImportError: {message}\n")
