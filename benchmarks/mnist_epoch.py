"""Imports, data and one epoch of MNIST, from the start of Python to a trained network.

The folder `scripts` has the scripts, written as users would write them.
"""

from __future__ import annotations

import gzip
import importlib
import importlib.util
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from .case import Array, Batch, Case, FloorRunner, Runner, State, as_number
from .networks import MLP
from .sides import NnliteRunner, TorchRunner
from .training import Training


@dataclass(frozen=True)
class Import(Case):
    """Start Python and import the library."""

    goal: float | None = None
    compiled_goal: float | None = None

    @property
    def name(self) -> str:
        return "import, whole process"

    @property
    def in_process(self) -> bool:
        return False

    @property
    def runners(self) -> Mapping[str, Callable[[Any], Runner]]:
        return {
            "nnlite": lambda case: Process("-c", "import nnlite"),
            "torch": lambda case: Process("-c", "import torch"),
            "floor": lambda case: Process("-c", "import numpy, numpy.random"),
        }


class Process(Runner):
    """A step is a Python process with these arguments, from its start to its end.

    It may write bytecode even if the environment forbids it: an installed library has bytecode,
    and a checkout has it from the second run on.
    """

    def __init__(self, *arguments: str) -> None:
        self.command = [sys.executable, *arguments]
        self.environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": ""}

    def step(self, *batch: Any) -> None:
        subprocess.run(self.command, env=self.environment, check=True, stdin=subprocess.DEVNULL)


@dataclass(frozen=True)
class Epoch(Case):
    """Load MNIST and train a network for one epoch.

    `rival` is "torchvision", or "torch" for PyTorch without torchvision. `whole_process` includes
    the start of Python and the imports.
    """

    rival: str
    whole_process: bool = False
    goal: float | None = None
    compiled_goal: float | None = None

    @property
    def name(self) -> str:
        what = "first MNIST epoch, whole process" if self.whole_process else "MNIST epoch"
        return f"{what}, with {'torchvision' if self.rival == 'torchvision' else 'tensors'}"

    @property
    def in_process(self) -> bool:
        return not self.whole_process

    @property
    def runners(self) -> Mapping[str, Callable[[Any], Runner]]:
        rivals: dict[str, Callable[[Any], Runner]] = {
            "torch": TorchEpoch,
            "torchvision": TorchvisionEpoch,
        }
        runners = {
            "nnlite": NnliteEpoch,
            "nnlite.compile": CompiledEpoch,
            self.rival: rivals[self.rival],
        }
        return runners if self.whole_process else runners | {"floor": EpochFloor}


class EpochRunner(Runner):
    """Base of the runners: a script that makes a loader and a model, and trains it."""

    model: Any

    def __init__(self, case: Epoch, script: str, *arguments: str) -> None:
        name = f"{__package__}.scripts.{script}"
        self.script = importlib.import_module(name)
        self.arguments = arguments
        self.model = self.script.make_model()
        self.process = Process("-m", name, *arguments) if case.whole_process else None

    def step(self, *batch: Any) -> None:
        if self.process is not None:
            self.process.step()
        else:
            loader = self.script.make_loader(*self.arguments)
            self.script.train_epoch(self.script.make_model(), loader)

    def to_float64(self) -> bool:
        return False  # the images are float32

    def results(self, batches: Sequence[Batch]) -> dict[str, Array]:
        """Return the loss and the weights after some steps on the images without shuffling."""
        loader = self.script.make_loader(*self.arguments, shuffle=False)
        loss = self.script.train_epoch(self.model, islice(loader, 10))
        results = {"the loss of step 10": as_number(loss)}
        return results | {f"{name} after step 10": value for name, value in self.state().items()}


class NnliteEpoch(EpochRunner, NnliteRunner):
    """nnlite."""

    def __init__(self, case: Epoch) -> None:
        super().__init__(case, "mnist_nnlite")


class CompiledEpoch(EpochRunner, NnliteRunner):
    """nnlite with the training step compiled."""

    def __init__(self, case: Epoch) -> None:
        super().__init__(case, "mnist_nnlite_compiled")


class EpochFloor(Runner):
    """Decompression of the files, and the floor of each training step."""

    def __init__(self, case: Epoch) -> None:
        self.files = [path.read_bytes() for path in _bundled_files().glob("*.gz")]
        self.training = FloorRunner(Training(MLP(784, 128, 10), 128))

    def load(self, state: State) -> None:
        """Ignore the weights: only shapes matter."""

    def step(self, *batch: Any) -> None:
        for file in self.files:
            gzip.decompress(file)
        for _ in range(60_000 // 128):
            self.training.step()


class TorchEpoch(EpochRunner, TorchRunner):
    """PyTorch alone, on the files bundled with nnlite."""

    def __init__(self, case: Epoch) -> None:
        super().__init__(case, "mnist_torch", str(_bundled_files()))


class TorchvisionEpoch(EpochRunner, TorchRunner):
    """PyTorch with torchvision, which reads the same files uncompressed."""

    def __init__(self, case: Epoch) -> None:
        self.folder = tempfile.TemporaryDirectory()
        raw = Path(self.folder.name, "MNIST", "raw")
        raw.mkdir(parents=True)
        for file in _bundled_files().glob("*.gz"):
            (raw / file.stem).write_bytes(gzip.decompress(file.read_bytes()))
        super().__init__(case, "mnist_torchvision", self.folder.name)


def _bundled_files() -> Path:
    """Return the folder of nnlite's copy of MNIST, without importing nnlite."""
    found = importlib.util.find_spec("nnlite")
    assert found is not None
    assert found.submodule_search_locations is not None
    return Path(found.submodule_search_locations[0], "datasets")
