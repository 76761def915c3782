"""Experiments for single optimizations: ``python -m benchmarks.experiments``.

Each experiment does the same work in two ways, alternating in one process, and compares the
medians. The first way is plain NumPy or a rejected alternative; the second is nnlite's.
"""

from __future__ import annotations

import functools
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import nnlite as nn
from nnlite.compiled.native import functions_of
from nnlite.datasets import digits
from nnlite.engine import blas as cores
from nnlite.engine import threads, windows

from .networks import LeNet

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
            _on_one_thread(functools.partial(np.dot, x, weight.T)),
            _on_one_thread(functools.partial(np.dot, weight, x.T)),
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
    labels = rng.integers(0, 10, 32)
    yield Experiment(
        "the largest of few numbers by its place",
        "32 labels",
        lambda: labels.max(),
        lambda: labels.item(labels.argmax()),
    )
    row, bias = normal(1, 128), normal(128)

    def add_to_vector() -> None:
        vector = row[0]
        np.add(vector, bias, out=vector)

    yield Experiment(
        "one row is added to as a vector",
        "1×128",
        lambda: np.add(row, bias, out=row),
        add_to_vector,
    )
    yield from _of_compiled_products(normal)
    yield _of_one_thread(normal)
    yield from _of_shared_work(normal)
    yield from _of_convolution(normal)
    yield _of_halves_of_the_batch(normal)
    yield from _of_recurrent(normal)
    yield from _of_pooling(normal)
    yield from _of_relu(normal)
    yield from _of_activations(normal)
    yield from _of_optimizer(normal)
    pixels = nn.datasets.mnist(normalize=False)[1][0]
    table = digits._normalized(np.arange(256, dtype=np.uint8))
    yield Experiment(
        "tried: a table of the 256 values of a pixel",
        "the test images of MNIST",
        lambda: table[pixels],
        lambda: digits._normalized(pixels),
    )


_PRODUCTS = """
import numpy as np

from nnlite.compiled.routines.products import dot_columns, dot_rows, matmul

real = np.float32


def rows(a, b, out):
    dot_rows(a, b, out)


def columns(a, b, out):
    matmul(a, b, out)


def columns_of_both(a, b, out):
    dot_columns(a, b, out)
"""


def _of_compiled_products(normal: Callable[..., Array]) -> Iterator[Experiment]:
    """Yield the products of compiled steps, beside those of BLAS on one thread."""
    try:
        ours = functions_of(_PRODUCTS, native=True)
    except ImportError:
        return

    def blas(a: Array, b: Array, out: Array) -> None:
        with cores._one_thread:
            np.dot(a, b, out)

    small = (8, 784, 128), (32, 784, 32), (64, 784, 32), (32, 784, 128), (64, 784, 128)
    large = (128, 784, 128), (256, 784, 128), (256, 784, 1024), (64, 9216, 128)
    steps = (512, 157, 64), (128, 512, 64), (128, 157, 64), (64, 32, 144), (256, 1024, 1024)
    gradients = (128, 32, 784), (128, 64, 784), (256, 128, 784), (1024, 64, 784)
    for kind, name, sizes in (
        ("rows with rows", "rows", (*small, *large)),
        ("rows with columns", "columns", steps),
        ("columns with columns", "columns_of_both", gradients),
    ):
        for rows, inner, columns in sizes:
            a = normal(inner, rows) if name == "columns_of_both" else normal(rows, inner)
            b = normal(columns, inner) if name == "rows" else normal(inner, columns)
            out = normal(rows, columns)
            left, right = a.T if name == "columns_of_both" else a, b.T if name == "rows" else b
            ours[name](a, b, out)
            yield Experiment(
                f"compiled: products of {kind}",
                f"{rows}×{inner} by {inner}×{columns}",
                functools.partial(blas, left, right, out),
                functools.partial(ours[name], a, b, out),
            )


def _of_one_thread(normal: Callable[..., Array]) -> Experiment:
    """Return the experiment of a whole step with divided products and with one thread."""
    model = nn.Sequential(nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 10))
    loss, optimizer = nn.CrossEntropy(), nn.SGD(model.parameters(), lr=0.01, momentum=0.9)
    x, y = normal(32, 784), np.arange(32) % 10

    def step() -> None:
        loss(model(x), y)
        optimizer.zero_grad()
        model.backward(loss.backward(), input_grad=False)
        optimizer.step()

    return Experiment(
        "one thread for small products",
        "training step of 784-128-10, batch 32",
        _with(cores, "_LARGE", cores._TINY, _with(cores, "_LEAD", 0, step)),
        step,
    )


def _of_shared_work(normal: Callable[..., Array]) -> Iterator[Experiment]:
    """Layers of large arrays, with and without sharing their work among threads."""
    x, grad = (_with_rows_outermost(normal(64, 64, 24, 24)) for _ in range(2))
    small = _with_rows_outermost(normal(64, 64, 12, 12))
    relu, pool, norm = nn.ReLU(), nn.MaxPool2d(2), nn.BatchNorm2d(64)

    def both(layer: nn.Layer, grad: Array) -> Callable[[], None]:
        def forward_and_backward() -> None:
            layer(x)
            layer.backward(grad)

        return forward_and_backward

    for layer, gradient in ((relu, grad), (pool, small), (norm, grad)):
        work = both(layer, gradient)
        yield Experiment(
            "threads of our own",
            f"{type(layer).__name__}, 64 channels of 24×24, batch 64, both ways",
            _on_one_thread(work),
            work,
        )


def _on_one_thread(work: Work) -> Work:
    """Return `work` with one thread, both of ours and of BLAS."""

    def work_alone() -> None:
        with cores._one_thread:
            _with(cores, "_LARGE", 1 << 62, work)()

    return work_alone


def _with(module: ModuleType, name: str, value: int, work: Work) -> Work:
    """Return `work` with another value of a module's constant."""

    def work_with() -> None:
        usual = getattr(module, name)
        setattr(module, name, value)
        work()
        setattr(module, name, usual)

    return work_with


def _of_convolution(normal: Callable[..., Array]) -> Iterator[Experiment]:
    """Shifted lines in the order (H, C, W, N), compared with im2col and other memory orders."""
    x, grad = normal(64, 32, 26, 26), normal(64, 64, 24, 24)
    by_rows = _with_rows_outermost(x)
    conv = nn.Conv2d(32, 64, 3)
    weight = conv.weight.data

    def columns_forward() -> Array:
        windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(2, 3))
        columns = windows.transpose(0, 1, 4, 5, 2, 3).reshape(64, 32 * 9, 24 * 24)
        return np.matmul(weight.reshape(64, -1), columns).reshape(64, 64, 24, 24)

    def forward() -> None:
        conv(by_rows)

    by_lines = _with(windows, "_MANY_SAMPLES", 1 << 62, forward)
    ways = [_on_one_thread(way) for way in (columns_forward, by_lines, forward)]
    case = "32 to 64 channels, 3×3, batch 64, forward, on one thread"
    yield Experiment("rows outermost, kW shifted copies", case, *ways[:2])
    yield Experiment("Winograd's algorithm along the rows", case, *ways[1:])

    def columns_input_grad() -> Array:
        columns = np.matmul(weight.reshape(64, -1).T, grad.reshape(64, 64, -1))
        columns = columns.reshape(64, 32, 3, 3, 24, 24)
        dx = np.zeros_like(x)
        for i in range(3):
            for j in range(3):
                dx[:, :, i : i + 24, j : j + 24] += columns[:, :, i, j]
        return dx

    backward = nn.Conv2d(32, 64, 3)
    for parameter in backward.parameters():
        parameter.requires_grad = False  # only the input gradient is measured
    backward(by_rows)
    grad_by_rows = _with_rows_outermost(grad)

    def input_grad() -> None:
        backward.backward(grad_by_rows)

    by_lines = _with(windows, "_MANY_SAMPLES", 1 << 62, input_grad)
    ways = [_on_one_thread(way) for way in (columns_input_grad, by_lines, input_grad)]
    case = "the same, input gradient"
    yield Experiment("no scattered sums over the kernel's rows", case, *ways[:2])
    yield Experiment("the input gradient as such a convolution", case, *ways[1:])

    def weight_grad() -> None:
        conv.backward(grad_by_rows, input_grad=False)

    by_lines = _with(windows, "_MANY_SAMPLES", 1 << 62, weight_grad)
    ways = [_on_one_thread(way) for way in (by_lines, weight_grad)]
    yield Experiment(
        "the weight gradient by Winograd's algorithm", "the same, weight gradient", *ways
    )


def _of_halves_of_the_batch(normal: Callable[..., Array]) -> Experiment:
    """Run a whole network forward and backward with one thread for each half of the batch."""
    x, y = normal(64, 1, 28, 28), np.arange(64) % 10

    def work_on(part: slice) -> Work:
        model, loss = LeNet().build(nn), nn.CrossEntropy()

        def work() -> None:
            model.zero_grad()
            loss(model(x[part]), y[part])
            model.backward(loss.backward(), input_grad=False)

        return work

    halves, whole = [work_on(slice(0, 32)), work_on(slice(32, 64))], work_on(slice(0, 64))

    def at_the_same_time() -> None:
        with cores._one_thread:
            threads.run(halves)

    return Experiment(
        "tried: a thread for each half of the batch",
        "LeNet, batch 64, forward and back",
        at_the_same_time,
        whole,
    )


def _with_rows_outermost(images: Array) -> Array:
    return np.ascontiguousarray(images.transpose(2, 1, 3, 0)).transpose(3, 1, 0, 2)


def _of_recurrent(normal: Callable[..., Array]) -> Iterator[Experiment]:
    """Multiply the states of an LSTM by its weights in two ways."""
    steps, samples, features, size = 28, 64, 28, 128
    case = f"LSTM of {steps} steps, hidden {size}, batch {samples}"
    inputs, of_inputs = normal(steps, samples, features + 1), normal(features + 1, 4 * size)
    states, of_states = normal(steps, samples, size), normal(size, 4 * size)
    sums, product = normal(steps, samples, 4 * size), normal(samples, 4 * size)

    def apart() -> None:
        np.dot(inputs.reshape(-1, features + 1), of_inputs, out=sums.reshape(-1, 4 * size))
        for state, total in zip(states, sums, strict=True):
            np.dot(state, of_states, out=product)
            total += product

    columns, matrix = (
        normal(steps, size + features + 1, samples),
        normal(4 * size, size + features + 1),
    )
    blocks = normal(steps, 4 * size, samples)

    def together() -> None:
        for column, total in zip(columns, blocks, strict=True):
            np.dot(matrix, column, out=total)

    ways = [_on_one_thread(way) for way in (apart, together)]
    yield Experiment("each step one product, with the batch last", case, *ways)


def _of_pooling(normal: Callable[..., Array]) -> Iterator[Experiment]:
    """Ways to find the pixel of a window that gets its gradient."""
    x, grad = _with_rows_outermost(normal(64, 8, 28, 28)), normal(64, 8, 14, 14)
    grad = _with_rows_outermost(grad)
    pool = nn.MaxPool2d(2)
    y = pool(x)
    pairs = np.maximum(x[:, :, :, ::2], x[:, :, :, 1::2])

    def one_axis_at_a_time() -> Array:
        of_pairs, dx = np.empty_like(pairs), np.empty_like(x)
        # If it is not the first of two pixels, it is the second.
        first = pairs[:, :, ::2] == y
        of_pairs[:, :, ::2], of_pairs[:, :, 1::2] = grad * first, grad * ~first
        first = x[:, :, :, ::2] == pairs
        dx[:, :, :, ::2], dx[:, :, :, 1::2] = of_pairs * first, of_pairs * ~first
        return dx

    yield Experiment(
        "tried: the gradient of pooling one axis at a time",
        "8 channels of 28×28, windows of 2, batch 64",
        one_axis_at_a_time,
        lambda: pool.backward(grad),
    )


def _of_relu(normal: Callable[..., Array]) -> Iterator[Experiment]:
    """Ways to pass a gradient where the output is positive."""
    relu, grad = nn.ReLU(), normal(128, 256)
    y = relu(normal(128, 256))
    zero = np.float32(0)
    yield Experiment(
        "masking bits of the gradient of ReLU",
        "128×256, against np.where",
        lambda: np.where(y > 0, grad, zero),
        lambda: relu.backward(grad),
    )
    yield Experiment(
        "tried: a product with the mask, which makes NaN of ∞ · 0",
        "128×256",
        lambda: grad * (y > 0),
        lambda: relu.backward(grad),
    )
    x, weight = normal(32, 784), normal(128, 784)
    layer = nn.Linear(784, 128)
    yield Experiment(
        "tried: a transposed copy of the weight for each forward",
        "32×784 by 784×128",
        _on_one_thread(lambda: np.dot(x, np.ascontiguousarray(weight.T))),
        lambda: layer(x),
    )


def _of_activations(normal: Callable[..., Array]) -> Iterator[Experiment]:
    """Ways to compute elementwise functions, and sums over their results."""
    x, grad = normal(128, 256), normal(128, 256)
    leaky, norm = nn.LeakyReLU(), nn.LayerNorm(256)
    leaky(x)
    one, slope = np.float32(1), np.float32(0.01)
    yield Experiment(
        "a mask times a number, in place of np.where",
        "128×256, gradient of LeakyReLU",
        lambda: grad * np.where(x > 0, one, slope),
        lambda: leaky.backward(grad),
    )

    def normalized() -> Array:
        centred = x - x.mean(axis=1, keepdims=True)
        variance = np.square(centred).mean(axis=1, keepdims=True)
        return centred / np.sqrt(variance + norm.eps) * norm.weight.data + norm.bias.data

    yield Experiment(
        "sums along rows are products too",
        "128×256, LayerNorm",
        normalized,
        lambda: norm(x),
    )


def _of_optimizer(normal: Callable[..., Array]) -> Iterator[Experiment]:
    """Parameters in one flat array, compared with updates one by one."""
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


def compare(experiment: Experiment, rounds: int = 15, seconds: float = 0.02) -> tuple[float, float]:
    """Return the median time of each way in seconds, measured alternately."""
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
