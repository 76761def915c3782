"""README and documentation are true: their code runs, and no public name is left out.

The examples in the docstrings are tests of their own: pytest collects them from ``nnlite/``. The
pages under ``docs/`` run when they are built.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import nnlite as nn

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def code_blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def public_objects() -> Iterator[tuple[str, Any]]:
    """Every public class and function, with the name under which users know it."""
    for prefix, module in (("", nn), ("init.", nn.init), ("datasets.", nn.datasets)):
        for name in getattr(module, "__all__", vars(module)):
            value = getattr(module, name)
            here = value.__module__.startswith(module.__name__) if callable(value) else False
            if here and not name.startswith("_"):
                yield prefix + name, value


PUBLIC = dict(public_objects())
CLASSES = {name: value for name, value in PUBLIC.items() if inspect.isclass(value)}


class TestReadme:
    def test_has_two_commands_of_one_line_each(self) -> None:
        commands = code_blocks("bash")
        assert len(commands) == 2
        assert all(command.count("\n") == 1 for command in commands)

    def test_the_script_trains(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        train, test = nn.datasets.mnist()
        part = tuple(array[:6_000] for array in train)
        monkeypatch.setattr(nn.datasets, "mnist", lambda: (part, test))
        exec(code_blocks("python")[0], {})
        accuracy = re.search(r"test accuracy: ([\d.]+)%", capsys.readouterr().out)
        assert accuracy is not None
        # A tenth of the data; a linear classifier gets about 92 % with all of it.
        assert float(accuracy[1]) > 90

    def test_the_gradient_of_its_layer_is_proved(self, capsys: pytest.CaptureFixture[str]) -> None:
        exec(code_blocks("python")[1], {})
        assert "passed" in capsys.readouterr().out


class TestPublicNames:
    @pytest.mark.parametrize("name", PUBLIC)
    def test_has_a_docstring(self, name: str) -> None:
        assert inspect.getdoc(PUBLIC[name])

    @pytest.mark.parametrize("name", CLASSES)
    def test_methods_have_docstrings(self, name: str) -> None:
        methods = inspect.getmembers(CLASSES[name], inspect.isroutine)
        bare = [
            method for method, value in methods if method[0] != "_" and not inspect.getdoc(value)
        ]
        assert bare == []

    @pytest.mark.parametrize("name", CLASSES)
    def test_class_has_an_example(self, name: str) -> None:
        assert ">>> " in (CLASSES[name].__doc__ or "")

    def test_each_is_in_the_overview_of_the_reference(self) -> None:
        overview = (ROOT / "docs" / "api" / "index.md").read_text(encoding="utf-8")
        assert set(re.findall(r"^   (\w\S*)$", overview, re.MULTILINE)) == set(PUBLIC)

    def test_each_is_described_in_the_reference(self) -> None:
        pages = (ROOT / "docs" / "api").glob("*.md")
        directive = re.compile(
            r"^\.\. auto(?:class|function|data):: (?:nnlite\.)?(\S+)$", re.MULTILINE
        )
        described = [name for page in pages for name in directive.findall(page.read_text("utf-8"))]
        assert len(described) == len(set(described))
        assert set(described) >= set(PUBLIC)
