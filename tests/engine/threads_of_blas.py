"""Run layers, losses and optimizers on large arrays, and print those that use the threads of BLAS.

The last one is a product of NumPy's own, which does: it shows that this would be seen.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

import nnlite as nn

rng = np.random.default_rng(0)


def normal(*shape: int) -> Any:
    return rng.normal(size=shape).astype(np.float32)


def both_ways(layer: nn.Layer, *shapes: tuple[int, ...]) -> None:
    y = layer(*(normal(*shape) for shape in shapes))
    layer.backward(tuple(map(np.ones_like, y)) if isinstance(y, tuple) else np.ones_like(y))


def step(make: Callable[..., nn.Optimizer]) -> None:
    # BLAS divides dot products of float64 alone.
    model, loss = nn.Linear(1024, 1024, bias=False).astype(np.float64), nn.MeanSquaredError()
    optimizer, x, y = make(model.parameters()), normal(32, 1024), normal(32, 1024)

    def closure() -> Any:
        optimizer.zero_grad()
        value = loss(model(x), y)
        model.backward(loss.backward())
        nn.clip_grad_norm(model.parameters(), 0.1)
        return value

    closure()
    if make is nn.LBFGS:
        optimizer.step(closure)
    else:
        optimizer.step()


def classify() -> None:
    loss = nn.CrossEntropy()
    loss(normal(1000, 1000), rng.integers(0, 1000, 1000))
    loss.backward()


def fit() -> None:
    model = nn.Sequential(nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 10))
    data = nn.DataLoader(normal(512, 784), rng.integers(0, 10, 512), batch_size=256)
    optimizer = nn.SGD(model.parameters(), lr=0.1)
    nn.fit(model, nn.CrossEntropy(), optimizer, data, validation=data, progress=False)


def work() -> Iterator[tuple[str, Callable[[], object]]]:
    """Yield every kind of work, with its name."""
    layers: dict[nn.Layer, list[tuple[int, ...]]] = {
        nn.Linear(784, 256): [(128, 784)],
        nn.Linear(2048, 2048): [(1, 2048)],
        nn.Sequential(nn.RNN(28, 128)): [(64, 28, 28)],
        nn.Sequential(nn.LSTM(28, 128)): [(64, 28, 28)],
        nn.Sequential(nn.LSTM(64, 512)): [(64, 3, 64)],
        nn.Sequential(nn.GRU(28, 512)): [(64, 28, 28)],
        nn.LSTMCell(512, 512): [(64, 512)],
        nn.Conv2d(16, 32, 3): [(16, 16, 28, 28)],
        nn.Conv2d(64, 64, 3, groups=64): [(16, 64, 28, 28)],
        nn.ConvTranspose2d(16, 32, 3): [(16, 16, 28, 28)],
        nn.TransformerEncoderLayer(128, 4, 512): [(64, 28, 128)],
        nn.LayerNorm(1024): [(1024, 1024)],
        nn.RMSNorm(1024): [(1024, 1024)],
        nn.BatchNorm2d(64): [(64, 64, 28, 28)],
        nn.GroupNorm(8, 64): [(64, 64, 28, 28)],
        nn.MatMul(): [(512, 512), (512, 512)],
        nn.MatMul(): [(4, 512, 512), (512, 512)],
    }
    for layer, shapes in layers.items():
        yield f"{layer} {shapes}", lambda layer=layer, shapes=shapes: both_ways(layer, *shapes)
    optimizers = nn.SGD, nn.Adam, nn.RMSprop, nn.Adagrad, nn.NAdam, nn.RAdam, nn.Lion, nn.Muon
    for make in (*optimizers, nn.LBFGS):
        yield make.__name__, lambda make=make: step(make)
    yield "CrossEntropy", classify
    yield "fit", fit
    yield "NumPy", lambda: np.dot(normal(512, 512), normal(512, 512))


def nanoseconds() -> dict[str, int]:
    """Return the processor time of each thread that Python did not start."""
    python = {str(each.native_id) for each in threading.enumerate()}
    tasks = [task for task in Path("/proc/self/task").iterdir() if task.name not in python]
    return {task.name: int((task / "schedstat").read_text().split()[0]) for task in tasks}


if __name__ == "__main__":
    for name, run in work():
        before = nanoseconds()
        run()
        time.sleep(0.01)  # those of BLAS go on for a while
        after = nanoseconds()
        if any(spent > before.get(task, 0) for task, spent in after.items()):
            print(name)
            time.sleep(0.2)
