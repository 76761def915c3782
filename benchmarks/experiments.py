"""The ideas behind the speed, one at a time: ``python -m benchmarks.experiments``.

Each experiment does the same work in two ways, in turn in one process, and compares the medians.
The first way is the plain one, the second the one that nnlite takes.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import nnlite as nn
from nnlite import memory

Array = NDArray[Any]
Work = Callable[[], object]


class Experiment(NamedTuple):
    """The same work done in two ways."""

    idea: str
    case: str
    plain: Work
    ours: Work


def experiments() -> Iterator[Experiment]:
    """Yield every experiment."""
    rng = np.random.default_rng(0)

    def normal(*shape: int) -> Array:
        return rng.normal(size=shape).astype(np.float32)

    for batch in (16, 32, 64):
        x, weight = normal(batch, 784), normal(128, 784)
        yield Experiment(
            "BLAS packs the smaller matrix",
            f"{batch}×784 by 784×128",
            lambda x=x, weight=weight: x @ weight.T,  # type: ignore[misc]
            lambda x=x, weight=weight: np.dot(weight, x.T).T,  # type: ignore[misc]
        )
    x, grad, product = normal(1, 784), normal(1, 128), np.empty((128, 784), np.float32)
    yield Experiment(
        "np.dot for outer products",
        "128×1 by 1×784",
        lambda: np.matmul(grad.T, x, out=product),
        lambda: np.dot(grad.T, x, out=product),
    )
    columns, ones = normal(128, 256), np.ones((1, 128), np.float32)
    yield Experiment(
        "a sum of columns is a product with ones",
        "128×256",
        lambda: columns.sum(axis=0),
        lambda: np.dot(ones, columns),
    )
    scores = normal(128, 10)
    by_class = np.ascontiguousarray(scores.T)
    yield Experiment(
        "reductions over classes run along samples",
        "128×10, maximum",
        lambda: np.maximum.reduce(scores, axis=1),
        lambda: np.maximum.reduce(by_class, axis=0),
    )
    yield from _of_optimizer(normal)
    yield from _of_memory()


def _of_optimizer(normal: Callable[..., Array]) -> Iterator[Experiment]:
    """Parameters side by side in one array, against one after the other."""
    shapes = [(32, 784), (32,), (32, 32), (32,), (10, 32), (10,)]
    for name, options in (("SGD", {"lr": 1e-6, "momentum": 0.9}), ("Adam", {"lr": 1e-6})):
        together = [nn.Parameter(normal(*shape)) for shape in shapes]
        apart = [nn.Parameter(normal(*shape)) for shape in shapes]
        kind = getattr(nn, name)
        flat = kind(together, **options)
        single = [kind([parameter], **options) for parameter in apart]
        for parameter in (*together, *apart):
            parameter.accumulate(normal(*parameter.shape))
        yield Experiment(
            "parameters in one flat array",
            f"{name}, six parameters, 26,506 numbers",
            lambda single=single: [optimizer.step() for optimizer in single],  # type: ignore[misc]
            flat.step,
        )


def _of_memory() -> Iterator[Experiment]:
    """Arrays in memory that is used again, against fresh ones."""
    for megabytes in (0.5, 9):
        shape, dtype = (int(megabytes * 2**18),), np.dtype(np.float32)

        def fresh(shape: Any = shape, dtype: Any = dtype) -> None:
            np.empty(shape, dtype).fill(1)

        def reused(shape: Any = shape, dtype: Any = dtype) -> None:
            memory.empty(shape, dtype).fill(1)

        yield Experiment("memory that is used again", f"fill {megabytes:g} MiB", fresh, reused)


def compare(experiment: Experiment, rounds: int = 15, seconds: float = 0.02) -> tuple[float, float]:
    """Return the median time of each way, in seconds, measured in turn."""
    ways = (experiment.plain, experiment.ours)
    for way in ways:
        way()
    start = time.perf_counter()
    experiment.plain()
    count = max(1, int(seconds / max(time.perf_counter() - start, 1e-7)))
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        for way, found in zip(ways, times, strict=True):
            start = time.perf_counter()
            for _ in range(count):
                way()
            found.append((time.perf_counter() - start) / count)
    return statistics.median(times[0]), statistics.median(times[1])


def main() -> int:
    """Print a row for each experiment; return the exit status."""
    print("| idea | case | plain, µs | nnlite's way, µs | ratio |")
    print("| --- | --- | ---: | ---: | ---: |")
    for experiment in experiments():
        plain, ours = compare(experiment)
        print(
            f"| {experiment.idea} | {experiment.case} | {plain * 1e6:.1f} | {ours * 1e6:.1f} "
            f"| {plain / ours:.2f} |",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
