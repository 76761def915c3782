"""The demo as a command, on a few hundred of the bundled images."""

from __future__ import annotations

import importlib.util
import math
import re
import shlex
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import nnlite as nn

ROOT = Path(__file__).resolve().parent.parent
# A file that is there, with the ending of a checkpoint.
THERE = str(next((ROOT / "tests").rglob("*.npz")))
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


@pytest.fixture(scope="module")
def demo() -> ModuleType:
    """Return the demo as a module."""
    spec = importlib.util.spec_from_file_location("train_mnist", ROOT / "train_mnist.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(*options: object) -> subprocess.CompletedProcess[str]:
    """Run the demo, and return what it printed."""
    command = [sys.executable, ROOT / "train_mnist.py", *map(str, options)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_it_prints_a_line_for_each_epoch_and_the_accuracy_at_the_end(data_dir: Path) -> None:
    done = run(*QUICK, "--data-dir", data_dir)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    # 784 · 16 + 16 + 16 · 10 + 10
    assert lines[-5] == "12,730 parameters, 550 training images, 50 for validation"
    first, second = lines[-4:-2]
    assert first.startswith("epoch 1/2  loss ")
    assert second.startswith("epoch 2/2  loss ")
    assert second.index("val_accuracy") == first.index("val_accuracy")
    assert lines[-2].startswith("test accuracy ")
    assert lines[-2].endswith("%")
    assert "--plot run.png" in lines[-1]


def test_the_same_seed_prints_the_same_and_another_seed_something_else(data_dir: Path) -> None:
    first, second, other = (
        timeless(run(*QUICK, "--data-dir", data_dir, "--seed", seed).stdout) for seed in (1, 1, 2)
    )
    assert first == second != other


def test_quiet_prints_the_accuracy_alone(data_dir: Path) -> None:
    done = run(*QUICK, "--data-dir", data_dir, "--quiet")
    assert done.stdout.startswith("test accuracy ")
    assert (done.stdout.count("\n"), done.stderr) == (1, "")


@pytest.mark.parametrize("ending", [".npz", ".safetensors"])
def test_what_it_saves_is_the_network_that_it_reports(
    data_dir: Path, tmp_path: Path, ending: str
) -> None:
    path = tmp_path / f"model{ending}"
    done = run(*QUICK, "--data-dir", data_dir, "--quiet", "--save", path)
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 16), nn.ReLU(), nn.Linear(16, 10))
    model.load_state_dict(nn.load_state(path))
    _, (images, labels) = nn.datasets.mnist(data_dir)
    score = np.mean(model(images).argmax(axis=1) == labels)
    assert done.stdout == f"test accuracy {score:.2%}\n"


def test_it_loads_what_it_has_saved_and_reads_an_image(data_dir: Path, tmp_path: Path) -> None:
    pyplot = pytest.importorskip("matplotlib.pyplot")
    path, options = tmp_path / "model.npz", ("--hidden", 64, "--data-dir", data_dir, "--quiet")
    saved = run(*options, "--epochs", 10, "--optimizer", "adam", "--save", path)
    assert run(*options, "--load", path).stdout == saved.stdout
    _, (images, labels) = nn.datasets.mnist(data_dir, normalize=False)
    # Black on white, larger, and not in the middle.
    image = np.pad(np.kron(255 - images[0, 0], np.ones((5, 5))), ((9, 70), (50, 3)), "edge")
    pyplot.imsave(tmp_path / "digit.png", image, cmap="gray", vmin=0, vmax=255)
    done = run(*options, "--load", path, "--read", tmp_path / "digit.png")
    assert done.stdout.startswith(f"{tmp_path / 'digit.png'}: {labels[0]} (")
    (tmp_path / "broken.png").write_bytes(b"no image")
    done = run(*options, "--load", path, "--read", tmp_path / "broken.png")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)


def test_an_image_becomes_one_like_those_of_mnist(demo: ModuleType, tmp_path: Path) -> None:
    pyplot = pytest.importorskip("matplotlib.pyplot")
    images, labels = nn.datasets.mnist(normalize=False)[1]
    tall = images[labels == 1][0, 0]
    for name, image in (("large", np.kron(tall, np.ones((3, 3)))), ("inverse", 255 - tall)):
        pyplot.imsave(tmp_path / f"{name}.png", image, cmap="gray", vmin=0, vmax=255)
        digit = demo.as_mnist(tmp_path / f"{name}.png")
        # MNIST's digits are centred and scaled in the same way.
        assert np.abs(digit - tall / 255).mean() < 0.01


def test_without_hidden_layers_it_is_a_linear_classifier(data_dir: Path) -> None:
    done = run("--epochs", 1, "--data-dir", data_dir, "--hidden")
    assert "7,850 parameters" in done.stdout  # 784 · 10 + 10


@pytest.mark.parametrize(
    ("model", "parameters"),
    [
        # Four convolutions of 3 × 3, four batch normalisations of two numbers a channel, and the
        # last layer over 32 images of 4 × 4.
        ("cnn", 9 * (16 + 16 * 16 + 16 * 32 + 32 * 32) + 2 * (16 + 16 + 32 + 32) + 512 * 10 + 10),
        # Four gates, each with 28 inputs, 128 states and two biases for each of 128 units.
        ("rnn", 4 * 128 * (28 + 128 + 2) + 128 * 10 + 10),
    ],
)
def test_the_other_networks_learn_too(data_dir: Path, model: str, parameters: int) -> None:
    done = run("--model", model, "--data-dir", data_dir, "--epochs", 3, "--batch-size", 20)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"{parameters:,} parameters" in done.stdout
    assert accuracy_in(done.stdout) > 50  # guessing would be right in 10 %


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw", "rmsprop"])
def test_each_optimizer_learns_with_its_own_learning_rate(data_dir: Path, optimizer: str) -> None:
    done = run(*QUICK, "--data-dir", data_dir, "--optimizer", optimizer, "--quiet")
    assert done.returncode == 0
    assert accuracy_in(done.stdout) > 50


@pytest.mark.parametrize(
    ("schedule", "rates"),
    [
        # The rates of the steps 3 and 7 of 8, which end the two epochs: what is left of 0.1.
        ("constant", [0.1, 0.1]),
        ("linear", [0.1 * 5 / 8, 0.1 * 1 / 8]),
        ("cosine", [0.05 * (1 + math.cos(math.pi * step / 8)) for step in (3, 7)]),
        # It ends at 1 / 250,000 of the highest rate.
        ("onecycle", [None, 4e-7]),
    ],
)
def test_a_schedule_changes_the_learning_rate(
    data_dir: Path, schedule: str, rates: list[float | None]
) -> None:
    done = run(
        "--data-dir", data_dir, "--schedule", schedule, "--lr", 0.1, "--hidden", 8,
        "--epochs", 2, "--batch-size", 150,
    )  # fmt: skip
    printed = [float(lr) for lr in re.findall(r"^epoch .* lr (\S+)", done.stdout, re.MULTILINE)]
    assert len(printed) == 2
    for rate, expected in zip(printed, rates, strict=True):
        assert expected is None or rate == pytest.approx(expected, rel=1e-3)  # as it is printed


def test_augmentation_makes_other_images_and_repeats_with_the_seed(data_dir: Path) -> None:
    options = (*QUICK, "--data-dir", data_dir)
    plain, first, second = run(*options), run(*options, "--augment"), run(*options, "--augment")
    assert timeless(first.stdout) == timeless(second.stdout) != timeless(plain.stdout)
    assert accuracy_in(first.stdout) > 50


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_a_run_that_is_killed_and_resumed_ends_with_the_same_bits(
    data_dir: Path, tmp_path: Path
) -> None:
    options = ["--data-dir", data_dir, "--epochs", 6, "--batch-size", 2, "--hidden", 64]
    options += ["--optimizer", "adamw", "--schedule", "onecycle", "--augment"]
    whole = run(*options, "--save", tmp_path / "a.npz")

    options += ["--checkpoint", tmp_path / "run.npz", "--resume", "--save", tmp_path / "b.npz"]
    command = [sys.executable, ROOT / "train_mnist.py", *map(str, options)]
    kills = 0
    for last in (1, 3):  # epochs: after them it is killed, somewhere in the next
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for line in process.stdout:
                if line.startswith(f"epoch {last}/6"):
                    break
            time.sleep(0.02)
            process.kill()
        kills += process.returncode == -signal.SIGKILL
    assert kills == 2
    resumed = run(*options)
    assert "epoch 3/6" not in resumed.stdout
    assert resumed.returncode == 0
    assert accuracy_in(resumed.stdout) == accuracy_in(whole.stdout)
    expected, weights = nn.load_state(tmp_path / "a.npz"), nn.load_state(tmp_path / "b.npz")
    assert list(weights) == list(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(weights[name], array)


@pytest.fixture
def compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the compiled models of a test be in a folder of its own."""
    pytest.importorskip("numba")
    monkeypatch.setenv("NNLITE_CACHE_DIR", str(tmp_path / "cache"))


@pytest.mark.usefixtures("compiler")
def test_a_compiled_run_is_the_same_but_for_rounding(data_dir: Path) -> None:
    plain, compiled = (run(*QUICK, "--data-dir", data_dir, *more) for more in ((), ("--compile",)))
    assert (compiled.returncode, compiled.stderr) == (0, "")
    losses = [
        [float(loss) for loss in re.findall(r"loss (\S+)", done.stdout)]
        for done in (plain, compiled)
    ]
    assert len(losses[0]) == 4  # of training and validation, in two epochs
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)
    assert accuracy_in(compiled.stdout) == pytest.approx(accuracy_in(plain.stdout), abs=1)


@pytest.mark.usefixtures("compiler")
def test_a_compiled_run_is_resumed_with_the_same_bits(data_dir: Path, tmp_path: Path) -> None:
    options = ["--data-dir", data_dir, "--hidden", 16, "--batch-size", 32, "--compile", "--augment"]
    options += ["--schedule", "constant"]
    whole = run(*options, "--epochs", 2, "--save", tmp_path / "a.npz")
    options += ["--checkpoint", tmp_path / "run.npz"]
    assert run(*options, "--epochs", 1).returncode == 0
    options += ["--resume", "--plot", tmp_path / "run.svg"]
    resumed = run(*options, "--epochs", 2, "--save", tmp_path / "b.npz")
    assert (resumed.returncode, resumed.stderr) == (0, "")
    assert re.findall(r"^epoch (.)/2", resumed.stdout, re.MULTILINE) == ["2"]
    assert accuracy_in(resumed.stdout) == accuracy_in(whole.stdout)
    expected, weights = nn.load_state(tmp_path / "a.npz"), nn.load_state(tmp_path / "b.npz")
    for name, array in expected.items():
        np.testing.assert_array_equal(weights[name], array)
    assert (tmp_path / "run.svg").read_text(encoding="utf-8").startswith("<?xml")


def test_a_checkpoint_of_another_network_is_one_clear_line(data_dir: Path, tmp_path: Path) -> None:
    options = ("--data-dir", data_dir, "--checkpoint", tmp_path / "run.npz")
    assert run(*options, "--hidden", 8, "--epochs", 1).returncode == 0
    more = run(*options, "--hidden", 8, "--epochs", 2, "--resume", "--seed", 3)
    assert "--seed: the random numbers are those of the run in " in more.stdout
    assert re.findall(r"^epoch (.)/2", more.stdout, re.MULTILINE) == ["2"]
    options = (*options, "--epochs", 1)
    done = run(*options, "--hidden", 9, "--resume", "--quiet")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1
    assert "run.npz: model: " in done.stderr
    assert "--lr" not in done.stderr


def test_it_draws_what_it_has_learned(data_dir: Path, tmp_path: Path) -> None:
    path = tmp_path / "run.svg"
    done = run(*QUICK, "--data-dir", data_dir, "--plot", path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith(f"pictures saved to {path}\n")
    assert path.read_text(encoding="utf-8").startswith("<?xml")


def test_it_writes_itself_as_a_page(data_dir: Path, tmp_path: Path) -> None:
    path = tmp_path / "digits.html"
    done = run(*QUICK, "--data-dir", data_dir, "--page", path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith(f"page saved to {path}; open it in a browser and draw\n")
    assert path.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


@pytest.mark.parametrize(
    ("package", "options", "option"),
    [
        ("matplotlib", ("--plot", "run.png"), "--plot"),
        ("safetensors", ("--save", "model.safetensors"), "--save to .safetensors"),
    ],
)
def test_without_a_package_it_says_so_before_it_trains(
    demo: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    package: str,
    options: tuple[str, ...],
    option: str,
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setattr(sys, "argv", ["train_mnist.py", *options])
    with pytest.raises(SystemExit):
        demo.parse_arguments()
    message = f"error: {option} needs {package}; install it with: pip install {package}\n"
    assert capsys.readouterr().err.endswith(message)


def test_the_commands_in_the_readme_are_right(
    demo: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    commands = re.findall(r"^\$ \S*python train_mnist\.py(.*)$", readme, re.MULTILINE)
    assert {"mlp", "cnn", "rnn"} == set(demo.EPOCHS)
    models = []
    for command in commands:
        monkeypatch.setattr(sys, "argv", ["train_mnist.py", *shlex.split(command)])
        models.append(demo.parse_arguments().model)  # it ends the test if an option is wrong
    assert set(models) == set(demo.EPOCHS)


def timeless(stdout: str) -> str:
    """Return what was printed without the seconds of the epochs."""
    return re.sub(r"[\d.]+ s$", "", stdout, flags=re.MULTILINE)


def accuracy_in(stdout: str) -> float:
    """Return the test accuracy in percent that was printed."""
    found = re.search(r"^test accuracy ([\d.]+)%$", stdout, re.MULTILINE)
    assert found is not None
    return float(found[1])


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
        (("--plot", "run.txt"), "--plot: the name of the file has to end in .png or .svg or .pdf"),
        (("--page", "digits.htm"), "--page: the name of the file has to end in .html"),
        (("--page", "d.html", "--model", "rnn"), "--page is for --model mlp or cnn"),
        (("--checkpoint", "run.bin"), "--checkpoint: the name of the file has to end in .npz"),
        (("--checkpoint", "nowhere/run.npz"), "--checkpoint: there is no folder "),
        (("--resume",), "--resume needs --checkpoint"),
        (("--checkpoint", THERE), "exists already; add --resume to continue that run, or name"),
        (("--model", "cnn", "--hidden", "8"), "--hidden is for --model mlp, not cnn"),
        (("--optimizer", "adam", "--momentum", "0"), "--momentum is for --optimizer sgd, not adam"),
        (("--model", "cnn", "--momentum", "0.5"), "--momentum is for --optimizer sgd, not adamw"),
        (("--load", "nowhere.npz"), "--load: there is no file nowhere.npz"),
        (("--load", THERE, "--epochs", "2"), "--epochs is for training; --load does not train"),
        (("--load", THERE, "--plot", "run.png"), "--plot is for training; --load does not train"),
        (("--read", "nowhere.png"), "--read: there is no file nowhere.png"),
        (("--model", "gpt"), "argument --model: invalid choice: 'gpt'"),
        (("--optimizer", "lion"), "argument --optimizer: invalid choice: 'lion'"),
        (("--schedule", "step"), "argument --schedule: invalid choice: 'step'"),
        (("--download",), "--download needs --data-dir"),
        (("--data-dir", "nowhere"), "nowhere: no train-images-idx3-ubyte"),
    ],
)
def test_a_bad_value_is_one_clear_line(
    demo: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: tuple[str, ...],
    message: str,
) -> None:
    monkeypatch.setattr(sys, "argv", ["train_mnist.py", *options])
    try:
        status = demo.main()
    except SystemExit as exit:
        status = exit.code
    printed = capsys.readouterr()
    assert status not in (0, None)
    assert printed.out == ""
    assert message in printed.err.splitlines()[-1]


def test_a_training_that_diverges_ends_with_one_line_that_says_so(data_dir: Path) -> None:
    done = run(*QUICK, "--data-dir", data_dir, "--lr", "1e9", "--quiet")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1
    assert "training has diverged" in done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT for one process")
@pytest.mark.parametrize("with_checkpoint", [False, True])
def test_an_interrupt_ends_the_training_and_still_reports(
    data_dir: Path, tmp_path: Path, with_checkpoint: bool
) -> None:
    command = [sys.executable, ROOT / "train_mnist.py", "--data-dir", data_dir]
    command += ["--epochs", "100000", "--hidden", "16"]
    lines = ["interrupted; as trained so far:"]
    if with_checkpoint:
        command += ["--checkpoint", tmp_path / "run.npz"]
        lines.append(f"--resume goes on from {tmp_path / 'run.npz'}")

    def restore_interrupts() -> None:  # a job in the background is started with SIGINT ignored
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=restore_interrupts,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        for line in process.stdout:
            if re.match(r"epoch +2/", line):
                break
        time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert stderr.strip().splitlines() == lines
    assert stdout.splitlines()[-2].startswith("test accuracy ")
