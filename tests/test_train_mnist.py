"""The demo as its users run it: a command that prints, on a few hundred of the bundled images."""

from __future__ import annotations

import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import nnlite as nn

ROOT = Path(__file__).resolve().parent.parent
QUICK = ("--epochs", "2", "--hidden", "16", "--batch-size", "32")


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder laid out as torchvision does it, with the first images of MNIST."""
    raw = tmp_path_factory.mktemp("data") / "MNIST" / "raw"
    raw.mkdir(parents=True)
    splits = zip(nn.datasets.mnist(normalize=False), ("train", "t10k"), (600, 200), strict=True)
    for (images, labels), name, count in splits:
        header = struct.pack(">IIII", 0x803, count, 28, 28)
        (raw / f"{name}-images-idx3-ubyte").write_bytes(header + images[:count].tobytes())
        header = struct.pack(">II", 0x801, count)
        content = header + labels[:count].astype(np.uint8).tobytes()
        (raw / f"{name}-labels-idx1-ubyte").write_bytes(content)
    return raw.parent.parent


def run(*options: object) -> subprocess.CompletedProcess[str]:
    """Run the demo, and return what it printed."""
    command = [sys.executable, ROOT / "train_mnist.py", *map(str, options)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_it_prints_a_line_for_each_epoch_and_the_accuracy_at_the_end(data_dir: Path) -> None:
    done = run(*QUICK, "--data-dir", data_dir)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[-4] == "12,730 parameters, 600 training images"  # 784 · 16 + 16 + 16 · 10 + 10
    assert [line.split(":")[0] for line in lines[-3:-1]] == ["epoch 1/2", "epoch 2/2"]
    assert lines[-1].startswith("test accuracy ")
    assert lines[-1].endswith("%")


def test_the_same_seed_prints_the_same_and_another_seed_something_else(data_dir: Path) -> None:
    first, second, other = (
        run(*QUICK, "--data-dir", data_dir, "--seed", seed).stdout for seed in (1, 1, 2)
    )
    assert first == second != other


def test_quiet_prints_the_accuracy_alone(data_dir: Path) -> None:
    done = run(*QUICK, "--data-dir", data_dir, "--quiet")
    assert done.stdout.startswith("test accuracy ")
    assert (done.stdout.count("\n"), done.stderr) == (1, "")


def test_what_it_saves_is_the_network_that_it_reports(data_dir: Path, tmp_path: Path) -> None:
    done = run(*QUICK, "--data-dir", data_dir, "--quiet", "--save", tmp_path / "model.npz")
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 16), nn.ReLU(), nn.Linear(16, 10))
    model.load_state_dict(nn.load_state(tmp_path / "model.npz"))
    _, (images, labels) = nn.datasets.mnist(data_dir)
    score = np.mean(model(images).argmax(axis=1) == labels)
    assert done.stdout == f"test accuracy {score:.2%}\n"


def test_without_hidden_layers_it_is_a_linear_classifier(data_dir: Path) -> None:
    done = run("--epochs", 1, "--data-dir", data_dir, "--hidden")
    assert "7,850 parameters" in done.stdout  # 784 · 10 + 10


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--lr", "-1"), "argument --lr: must be at least 0.0, got -1"),
        (("--lr", "nan"), "argument --lr: must be at least 0.0, got nan"),
        (("--lr", "fast"), "argument --lr: invalid float value: 'fast'"),
        (("--epochs", "0"), "argument --epochs: must be at least 1, got 0"),
        (("--hidden", "8", "0"), "argument --hidden: must be at least 1, got 0"),
        (("--batch-size", "1.5"), "argument --batch-size: invalid int value: '1.5'"),
        (("--save", "model.bin"), "--save: the name of the file has to end in .npz"),
        (("--save", "nowhere/model.npz"), "--save: there is no folder "),
        (("--download",), "--download needs --data-dir"),
        (("--data-dir", "nowhere"), "nowhere: no train-images-idx3-ubyte"),
    ],
)
def test_a_bad_value_is_one_clear_line(options: tuple[str, ...], message: str) -> None:
    done = run(*options)
    assert done.returncode != 0
    assert done.stdout == ""
    assert message in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_a_training_that_diverges_ends_with_one_line_that_says_so(data_dir: Path) -> None:
    done = run(*QUICK, "--data-dir", data_dir, "--lr", "1e9", "--quiet")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1
    assert "training has diverged" in done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT for one process")
def test_an_interrupt_ends_the_training_and_still_reports(data_dir: Path) -> None:
    command = [sys.executable, ROOT / "train_mnist.py", "--data-dir", data_dir]
    command += ["--epochs", "100000", "--hidden", "16"]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("epoch 2"):
                break
        time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted" in stderr
    assert "Traceback" not in stderr
    assert stdout.splitlines()[-1].startswith("test accuracy ")
