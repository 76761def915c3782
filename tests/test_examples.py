"""The example scripts of the documentation do what their pages say.

They run as they are, in this process, so that what they have computed can be looked at.
"""

from __future__ import annotations

import itertools
import os
import re
import runpy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import nnlite as nn

EXAMPLES = Path(__file__).resolve().parents[1] / "docs" / "examples"
SCRIPTS = sorted(path.name for path in EXAMPLES.glob("*.py"))


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    yield
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")


def run(name: str) -> dict[str, Any]:
    """Run a script, and return what its names stand for at the end."""
    return runpy.run_path(str(EXAMPLES / name), run_name="__main__")


def with_fewer_images(monkeypatch: pytest.MonkeyPatch, train: int, test: int) -> None:
    """Have the scripts find the first images of MNIST only."""
    whole = nn.datasets.mnist

    def part(**options: Any) -> Any:
        splits = zip(whole(**options), (train, test), strict=True)
        return tuple((images[:count], labels[:count]) for (images, labels), count in splits)

    monkeypatch.setattr(nn.datasets, "mnist", part)


# ---- the files ----


def test_each_script_and_each_file_is_on_a_page() -> None:
    pages = "".join(path.read_text(encoding="utf-8") for path in EXAMPLES.glob("*.md"))
    shown = set(re.findall(r"^```{literalinclude} (\S+)$", pages, re.MULTILINE))
    offered = set(re.findall(r"{download}`(\S+)`", pages))
    here = {path.name for path in EXAMPLES.iterdir() if path.is_file()}
    assert shown == set(SCRIPTS)
    assert offered == {name for name in here if not name.endswith(".md")}


def test_script_runs_alone(tmp_path: Path) -> None:
    (tmp_path / "spiral.py").write_bytes((EXAMPLES / "spiral.py").read_bytes())
    root = str(EXAMPLES.parents[1])
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, "spiral.py"],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("accuracy on new points: 9")
    assert {path.name for path in tmp_path.iterdir()} == {"spiral.py", "spiral.svg"}


# ---- claims of the pages ----


def test_spiral_is_classified() -> None:
    names = run("spiral.py")
    points, arms = names["test"]
    assert (names["model"](points).argmax(axis=1) == arms).mean() > 0.99
    # The arms themselves, without noise.
    radius = np.linspace(0.1, 1, 200)
    for arm in range(3):
        angle = 8 * radius + arm * np.radians(120)
        middle = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
        answers = names["model"](middle.astype(np.float32)).argmax(axis=1)
        assert_array_equal(answers, arm)


def test_regression_ends_at_the_noise() -> None:
    names = run("regression.py")
    sigma, count = 0.3, 2000
    # The error of the true curve is the noise's standard deviation, known up to σ / √(2 n).
    assert abs(names["true_error"] - sigma) < 4 * sigma / np.sqrt(2 * count)
    # A least squares fit of p parameters to n points with noise σ is off by σ √(p / n), in the root
    # mean square. Here n is 500, and a few dozens of parameters are enough for so few bends.
    x = np.linspace(-3, 3, 1001)
    found = names["model"](x[:, None].astype(np.float32))[:, 0]
    off = np.sqrt(np.mean((found - (np.sin(3 * x) + x * x / 4)) ** 2))
    assert off < sigma * np.sqrt(60 / 500)
    assert Path("regression.svg").stat().st_size > 0


@pytest.mark.parametrize("name", ["sonnets.py", "transformer.py"])
def test_sonnets_are_read_better_than_by_any_model_of_pairs(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    names = run(name)
    text = (EXAMPLES / "sonnets.txt").read_text(encoding="ascii")
    printed = re.split(r"--- epoch \d+, test loss ([\d.]+) ---\n", capsys.readouterr().out)[1:]
    losses, samples = [float(value) for value in printed[::2]], printed[1::2]
    assert losses[0] == pytest.approx(np.log(len(set(text))), abs=0.25)  # it knows nothing
    # No model that looks at the last character alone is below the conditional entropy of a
    # character given the last one, H(pair) - H(last), even if it was fitted to the test text.
    tested = text[86_000:]
    pairs = list(itertools.pairwise(tested))
    assert losses[-1] < entropy(pairs) - entropy(list(tested[:-1])) - 0.2
    # That text is not what it has learnt from.
    assert names["loader"].arrays[0].size == len(text) - len(tested)
    # What it writes consists more and more of words of the sonnets.
    words = set(re.findall(r"[a-z']+", text.lower()))
    shares = [np.mean([word in words for word in sample.lower().split()]) for sample in samples]
    assert shares[0] < shares[1] < shares[2]


def entropy(symbols: list[Any]) -> float:
    _, counts = np.unique(np.array(symbols), axis=0, return_counts=True)
    shares = counts / counts.sum()
    return float(-(shares * np.log(shares)).sum())


def test_autoencoder_beats_principal_components(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with_fewer_images(monkeypatch, 8_000, 2_000)
    names = run("autoencoder.py")
    train, test = names["train"], names["test"]
    assert names["codes"].shape == (2_000, 2)
    # By the singular value decomposition of the training images, in place of the covariance.
    mean = train.mean(axis=0)
    directions = np.linalg.svd(train - mean, full_matrices=False)[2][:2].T
    linear = mean + (test - mean) @ directions @ directions.T
    principal = np.mean((linear - test) ** 2)
    printed = re.search(r"two principal components: loss ([\d.]+)", capsys.readouterr().out)
    assert printed is not None
    assert float(printed[1]) == pytest.approx(principal, abs=1e-4)
    assert np.mean((nn.predict(names["model"], test) - test) ** 2) < principal


# ---- weights from PyTorch, and to PyTorch ----


def torch_network(torch: Any) -> Any:
    layers = torch.nn
    return layers.Sequential(
        layers.Conv2d(1, 8, 3),
        layers.BatchNorm2d(8),
        layers.ReLU(),
        layers.MaxPool2d(2),
        layers.Conv2d(8, 16, 3),
        layers.ReLU(),
        layers.MaxPool2d(2),
        layers.Flatten(),
        layers.Linear(400, 10),
    ).eval()


def test_weights_from_pytorch_give_the_answers_of_pytorch(
    capsys: pytest.CaptureFixture[str],
) -> None:
    names = run("from_pytorch.py")
    expected = names["expected"]
    assert_allclose(names["logits"][:500], expected, rtol=1e-4, atol=1e-4)
    assert_array_equal(names["logits"][:500].argmax(axis=1), expected.argmax(axis=1))
    assert "the same answers: True" in capsys.readouterr().out


def test_recorded_answers_are_those_of_pytorch() -> None:
    torch = pytest.importorskip("torch")
    from safetensors.torch import load_file

    module = torch_network(torch)
    module.load_state_dict(load_file(EXAMPLES / "digits.safetensors"))
    _, (images, _) = nn.datasets.mnist()
    with torch.no_grad():
        logits = module(torch.from_numpy(images[:500]))
    recorded = load_file(EXAMPLES / "logits.safetensors")["logits"]
    assert_allclose(logits, recorded, rtol=1e-4, atol=1e-4)


def test_script_that_wrote_them_writes_what_the_other_reads(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("torch")
    with_fewer_images(monkeypatch, 1_000, 500)
    run("train_in_pytorch.py")
    (tmp_path / "from_pytorch.py").write_bytes((EXAMPLES / "from_pytorch.py").read_bytes())
    names = runpy.run_path("from_pytorch.py")
    assert_allclose(names["logits"], names["expected"], rtol=1e-4, atol=1e-4)


def test_weights_to_pytorch_give_the_answers_of_nnlite(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    with_fewer_images(monkeypatch, 2_000, 1_000)
    names = run("to_pytorch.py")
    assert_allclose(names["answers"], names["logits"], rtol=1e-4, atol=1e-4)
    assert (names["answers"].argmax(axis=1) == names["test_labels"]).mean() > 0.5
