"""Training on several processes: the same as on one, and an end to all where one fails."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nnlite as nn

from . import mpi_cases
from .mpi_launch import (
    ENVIRONMENT,
    MPIEXEC,
    ROOT,
    Hosts,
    loopback_hosts,
    mpiexec,
    namespace_hosts,
    namespaces_work,
    run,
)

if MPIEXEC is None:
    pytest.skip("there is no mpiexec", allow_module_level=True)

# A model, data and a run that scripts begin with; what they add to `STOP` happens in rank 1.
BEGIN = """
import os, signal, sys
import numpy as np
import nnlite as nn
from nnlite.interop import mpi

rank = mpi.shard().rank
rng = np.random.default_rng(0)
x, y = rng.normal(size=(40, 6)).astype(np.float32), rng.integers(0, 3, 40)
nn.seed(0)

def perceptron(*layers):
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), *layers, nn.Linear(8, 3))

def run(model, *callbacks, arrays=(x, y), epochs=3, lr=0.1, **options):
    loader = nn.DataLoader(*arrays, batch_size=8, shuffle=True, shard=mpi.shard())
    optimizer = mpi.DistributedOptimizer(nn.SGD(model.parameters(), lr=lr, momentum=0.9))
    return nn.fit(model, nn.CrossEntropy(), optimizer, loader, epochs=epochs, callbacks=callbacks,
                  progress=False, **options)
"""


def run_script(text: str, processes: int = 2) -> subprocess.CompletedProcess[str]:
    """Run a script that begins with `BEGIN`."""
    return run(mpiexec(processes, "-c", BEGIN + textwrap.dedent(text)))


def output(text: str, processes: int = 2) -> list[str]:
    """Return the lines that a script prints, sorted, having checked that it ends well."""
    done = run_script(text, processes)
    assert done.returncode == 0, done.stderr
    return sorted(done.stdout.splitlines())


# ---- the same training ----


@pytest.fixture(scope="module")
def in_one_process() -> dict[str, dict[str, Any]]:
    return mpi_cases.run(mpi_cases.Setup())


def check_results(
    command: list[str], file: Path, expected: dict[str, dict[str, Any]], *names: str
) -> None:
    """Check the results that a command writes, of these cases or of all."""
    done = run([*command, *names])
    assert done.returncode == 0, done.stderr
    with np.load(file) as found:
        for name in names or expected:
            for key, value in expected[name].items():
                np.testing.assert_allclose(
                    found[f"{name}/{key}"], value, rtol=1e-9, atol=1e-9, err_msg=f"{name}: {key}"
                )


@pytest.mark.parametrize("processes", [2, 3])
def test_the_training_is_that_of_one_process(
    processes: int, in_one_process: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    file = tmp_path / "results.npz"
    command = mpiexec(processes, "-m", "tests.interop.mpi_cases", file)
    check_results(command, file, in_one_process)


@pytest.mark.parametrize("options", [[], ["--compile"]], ids=["plain", "compiled"])
def test_the_demo_prints_once_and_reaches_the_accuracy_of_one_process(options: list[str]) -> None:
    demo = ["train_mnist.py", "--epochs", "1", "--hidden", "16", "--batch-size", "500"]
    alone = subprocess.run(
        [sys.executable, *demo], cwd=ROOT, capture_output=True, text=True, check=True
    )
    done = run(mpiexec(2, *demo, "--distributed", *options))
    assert done.returncode == 0, done.stderr
    lines, expected = done.stdout.splitlines(), alone.stdout.splitlines()
    assert lines[:-3] == expected[:-3]  # the network
    assert lines[-1] == expected[-1]  # what one can do next
    for line, other in zip(lines[-3:-1], expected[-3:-1], strict=True):
        without_seconds = (re.sub(r" \d+\.\d s$", "", text) for text in (line, other))
        figures, others = (np.array(re.findall(r"\d+\.\d+", x), float) for x in without_seconds)
        np.testing.assert_allclose(figures, others, rtol=2e-3)


def test_the_masks_of_dropout_differ_and_are_repeatable() -> None:
    text = """
    package, own = nn.Dropout(0.5), nn.Dropout(0.5, rng=3)
    model = nn.Sequential(package, own, nn.Linear(6, 3))
    masks = []
    def keep(training):
        masks.append([layer(np.ones(20)).astype(int).tolist() for layer in (package, own)])
    run(model, keep, epochs=2)
    print(masks)
    """
    first, second = output(text)
    assert first != second
    masks, others = eval(first), eval(second)
    for epoch in range(2):
        for place in range(2):
            assert masks[epoch][place] != others[epoch][place]
    assert output(text) == [first, second]


def test_batchnorm_averages_its_running_statistics() -> None:
    text = """
    model = nn.Sequential(nn.BatchNorm1d(6), nn.Linear(6, 3))
    run(model, epochs=1)
    print(model[0].running_mean.tolist(), int(model[0].num_batches_tracked))
    """
    first, second = output(text)
    assert first == second
    # The mean of a batch is the average of those of its halves, so it is that of one process.
    assert np.allclose(eval(first.split(" 5")[0]), eval(output(text, 1)[0].split(" 5")[0]))


def test_statistics_for_averaged_weights_are_those_of_all_processes() -> None:
    text = """
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(32, 3))
    images = rng.normal(size=(9, 1, 6, 6)).astype(np.float32)
    arrays = images, rng.integers(0, 3, 9)  # the last batch has one image
    loader = nn.DataLoader(*arrays, batch_size=4, shuffle=True, shard=mpi.shard())
    optimizer = mpi.DistributedOptimizer(nn.SGD(model.parameters(), lr=0.1))
    nn.fit(model, nn.CrossEntropy(), optimizer, loader, callbacks=[nn.EMA(0.5)], progress=False)
    print(model[1].running_mean.tolist(), model[1].running_var.tolist())
    """
    first, second = output(text)
    assert first == second


# ---- two hosts ----


@pytest.fixture(params=["loopback", *(["namespaces"] if namespaces_work() else [])])
def two_hosts(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Hosts]:
    """Two hosts that have nothing in common but the files and a network."""
    make = {"loopback": loopback_hosts, "namespaces": namespace_hosts}[request.param]
    with make(tmp_path) as hosts:
        yield hosts


def test_two_hosts_share_no_memory(two_hosts: Hosts) -> None:
    text = """
    from mpi4py import MPI
    print(MPI.COMM_WORLD.Split_type(MPI.COMM_TYPE_SHARED).size, "of", mpi.shard().size)
    """
    done = run(two_hosts.mpiexec("-c", BEGIN + textwrap.dedent(text)))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["1 of 2", "1 of 2"]


def test_the_training_on_two_hosts_is_that_of_one_process(
    two_hosts: Hosts, in_one_process: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    file = tmp_path / "results.npz"
    command = two_hosts.mpiexec("-m", "tests.interop.mpi_cases", file)
    check_results(command, file, in_one_process, "weights", "clipping", "by hand", "images")


@pytest.mark.parametrize(
    "event",
    ["raise RuntimeError('on the second host')", "os.kill(os.getpid(), 9)"],
    ids=["exception", "killed"],
)
def test_an_end_on_one_of_two_hosts_ends_both(two_hosts: Hosts, event: str) -> None:
    text = f"""
    def fail(training):
        if rank == 1:
            {event}
    run(perceptron(), fail)
    """
    done = run(two_hosts.mpiexec("-c", BEGIN + textwrap.dedent(text)))
    assert done.returncode != 0
    assert ("RuntimeError: on the second host" in done.stderr) == ("raise" in event)


# ---- checkpoints ----


CHECKPOINTED = """
    path, stop_at, epochs = {path!r}, {stop_at}, {epochs}
    def crash(training):
        if (training.epoch, training.batch) == stop_at:
            raise RuntimeError("power cut")
    class Crash(nn.Callback):
        def on_step_end(self, training):
            crash(training)
    model = perceptron(*[nn.Dropout(0.5, rng=1), nn.Dropout(0.5)][:{dropouts}])
    try:
        run(model, Crash(), epochs=epochs, checkpoint=nn.Checkpoint(path, every_batches=2),
            resume=True)
    except RuntimeError:
        print("crashed", end="")
    print([p.data.tolist() for p in model.parameters()])
"""


def checkpointed(path: Path, processes: int, stop_at: Any = None, dropouts: int = 2) -> list[str]:
    text = CHECKPOINTED.format(path=str(path), stop_at=stop_at, epochs=2, dropouts=dropouts)
    return output(text, processes)


def test_a_checkpoint_resumes_with_the_same_bits(tmp_path: Path) -> None:
    whole = checkpointed(tmp_path / "whole.npz", 2)
    assert all(line.startswith("crashed") for line in checkpointed(tmp_path / "a.npz", 2, (2, 3)))
    assert checkpointed(tmp_path / "a.npz", 2) == whole


def test_a_checkpoint_resumes_with_another_number_of_processes(tmp_path: Path) -> None:
    whole = checkpointed(tmp_path / "whole.npz", 2, dropouts=0)
    checkpointed(tmp_path / "a.npz", 3, (1, 3), dropouts=0)
    for processes in (2, 1):
        shutil.copy(tmp_path / "a.npz", tmp_path / "b.npz")
        resumed = checkpointed(tmp_path / "b.npz", processes, dropouts=0)
        assert len(set(resumed)) == 1
        for first, second in zip(eval(whole[0]), eval(resumed[0]), strict=True):
            np.testing.assert_allclose(first, second, rtol=1e-5, atol=1e-6)


# ---- ends ----


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            """
            class Fails(nn.ReLU):
                def forward(self, x):
                    if rank == 1 and self.training:
                        raise KeyError("in the forward")
                    return super().forward(x)
            run(perceptron(Fails()))
            """,
            "KeyError: 'in the forward'",
        ),
        (
            """
            class Fails(nn.ReLU):
                def backward(self, grad, input_grad=True):
                    if rank == 1:
                        raise OSError("in the backward")
                    return super().backward(grad, input_grad)
            run(nn.Sequential(Fails(), mpi.SyncBatchNorm(6), Fails(), nn.Linear(6, 3)))
            """,
            "OSError: in the backward",
        ),
        (
            """
            def fails(training):
                if rank == 1 and training.epoch == 3:
                    raise RuntimeError("after the last epoch")
            run(perceptron(), fails)
            """,
            "RuntimeError: after the last epoch",
        ),
        (
            """
            if rank == 1:
                raise RuntimeError("before the training")
            run(perceptron())
            """,
            "RuntimeError: before the training",
        ),
        (
            """
            model = perceptron()
            optimizer = mpi.DistributedOptimizer(nn.SGD(model.parameters(), lr=0.1))
            step = nn.compile(model, nn.CrossEntropy(), optimizer, native=False)
            before = [p.data.copy() for p in model.parameters()]
            try:
                step(x, y + 2 * rank)
            finally:
                assert all((a == p.data).all() for a, p in zip(before, model.parameters()))
            """,
            "ValueError: CrossEntropy(): labels must be in [0, 3) for 3 classes, got 3",
        ),
    ],
    ids=["forward", "backward", "callback", "before", "compiled"],
)
def test_an_exception_in_one_process_ends_all(text: str, message: str) -> None:
    done = run_script(text)
    assert done.returncode != 0
    # Its traceback is printed once, by the process that it comes from.
    assert [line for line in done.stderr.splitlines() if line == message] == [message]


def test_a_process_that_is_killed_ends_all() -> None:
    done = run_script("run(perceptron(), lambda t: rank and os.kill(os.getpid(), signal.SIGKILL))")
    assert done.returncode != 0


def test_a_process_that_leaves_early_ends_all() -> None:
    done = run_script("if rank == 1: sys.exit(0)\nrun(perceptron())", processes=3)
    assert done.returncode != 0
    assert "ProcessError: the process of rank 1 has reached the end of its script" in done.stderr


def test_nan_in_one_process_stops_all_alike() -> None:
    lines = output(
        """
        model = perceptron()
        x[3] = np.nan
        def describe(error):
            weights = [p.data.tobytes() for p in model.parameters()]
            return f"{error} {hash(b''.join(weights))}"
        try:
            run(model)
        except ValueError as error:
            print(error, [p.data.tolist() for p in model.parameters()])
        """
    )
    assert len(lines) == 2
    assert lines[0] == lines[1]
    assert "the data of this batch contain NaN" in lines[0]
    assert "the model has the weights of before this batch" in lines[0]


def test_a_diverging_loss_stops_all_alike() -> None:
    lines = output(
        """
        model = perceptron()
        x[:20] *= 1e30
        try:
            run(model, lr=1e38)
        except ValueError as error:
            print(error, [p.data.tolist() for p in model.parameters()])
        """
    )
    assert len(lines) == 2
    assert lines[0] == lines[1]
    assert "the model has the" in lines[0]


def test_an_interrupt_of_one_process_interrupts_all() -> None:
    lines = output(
        """
        model = perceptron()
        class Interrupt(nn.Callback):
            def on_step_end(self, training):
                if rank == 1 and training.batch == 2:
                    signal.raise_signal(signal.SIGINT)
        try:
            run(model, Interrupt())
        except KeyboardInterrupt:
            print("interrupted", [p.data.tolist() for p in model.parameters()])
        """
    )
    assert len(lines) == 2
    assert lines[0] == lines[1]


def test_ctrl_c_ends_mpiexec() -> None:
    text = BEGIN + "print('running', flush=True)\nrun(perceptron(), epochs=10**9)\n"
    with subprocess.Popen(
        mpiexec(2, "-c", text), cwd=ROOT, env=ENVIRONMENT, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == "running\n"
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) != 0


def test_a_process_may_have_callbacks_of_its_own() -> None:
    text = """
    def report(training):
        print(training.epoch, training.figures)
    run(perceptron(), *[report][rank:])
    """
    assert [line[0] for line in output(text)] == ["1", "2", "3"]


def test_a_callback_of_one_process_stops_all() -> None:
    text = """
    class Deadline(nn.Callback):
        def on_step_end(self, training):
            if rank == 1 and training.batch == 3:
                training.stop("time is up")
    history = run(perceptron(), Deadline())
    print(history.epochs.tolist(), float(history["loss"][-1]))
    """
    first, second = output(text)
    assert first == second
    assert first.startswith("[1] ")


# ---- processes that differ ----


@pytest.mark.parametrize(
    ("text", "messages"),
    [
        (
            "run(perceptron(), arrays=(x[:40 - rank], y[:40 - rank]))",
            ["DataLoader: the shape and dtype of the arrays", "(39, 6)", "of rank 1", "(40, 6)"],
        ),
        (
            "run(nn.Sequential(nn.Linear(6, 8 + rank), nn.Linear(8 + rank, 3)))",
            ["DistributedOptimizer: the shape of parameter 0 is (9, 6)", "of rank 1", "(8, 6)"],
        ),
        (
            "run(perceptron(), lr=0.1 + rank)",
            ["DistributedOptimizer: the optimizer is SGD(lr=1.1", "of rank 1", "SGD(lr=0.1"],
        ),
        (
            "run(perceptron(), epochs=3 + rank)",
            ["fit: the number of epochs is 4", "of rank 1", "3 in that of rank 0"],
        ),
        (
            "run(perceptron(), accumulate=1 + rank)",
            ["fit: accumulate is 2 in the process of rank 1, and 1 in that of rank 0"],
        ),
        (
            "model = perceptron()\nmodel[0].weight.requires_grad = not rank\nrun(model)",
            ["parameter 0 of shape (8, 6) is frozen in the process of rank 1"],
        ),
        (
            """
            model = perceptron()
            def change(training):
                model[0].weight.data[0, 0] += rank
            run(model, change, epochs=40)
            """,
            ["the checksum of the weights is", "of rank 1"],
        ),
        (
            """
            model = perceptron()
            optimizer = mpi.DistributedOptimizer(nn.SGD(model.parameters(), lr=0.1))
            batches = [(x[:4], y[:4])] * (3 - rank)
            nn.fit(model, nn.CrossEntropy(), optimizer, batches, progress=False)
            """,
            ["the processes have [1, 0] batches for this step"],
        ),
        (
            "run(perceptron(mpi.SyncBatchNorm(8)), arrays=(x[:33], y[:33]))",
            ["layer '2', SyncBatchNorm(8), needs samples in all 2 processes", "has 1"],
        ),
        (
            """
            model = perceptron()
            loader = nn.DataLoader(x, y, batch_size=8)
            optimizer = mpi.DistributedOptimizer(nn.SGD(model.parameters(), lr=0.1))
            nn.fit(model, nn.CrossEntropy(), optimizer, loader)
            """,
            ["the loader gives its batches to 1 process(es)", "DataLoader(shard=mpi.shard())"],
        ),
    ],
    ids=[
        "data", "shapes", "optimizer", "epochs", "options", "frozen", "weights", "batches",
        "parts", "no shard",
    ],
)  # fmt: skip
def test_processes_that_differ_are_an_error(text: str, messages: list[str]) -> None:
    done = run_script(text)
    assert done.returncode != 0
    for message in messages:
        assert message in done.stderr


def test_processes_of_another_launcher_are_an_error() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from nnlite.interop import mpi; mpi.shard()"], cwd=ROOT,
        env={**ENVIRONMENT, "PMI_SIZE": "2"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "RuntimeError: 2 processes were started, but the MPI library of mpi4py" in done.stderr


# ---- one process ----


def test_the_parts_of_a_batch_are_the_batch() -> None:
    from nnlite.processes import Processes

    for size in (1, 2, 3, 7):
        parts = []
        for rank in range(size):
            processes = Processes()
            processes.rank, processes.size = rank, size
            parts.append(processes.part(10, 15))
        samples = [i for part in parts for i in range(100)[part]]
        assert samples == list(range(10, 15))
        lengths = [part.stop - part.start for part in parts]
        assert max(lengths) - min(lengths) <= 1


def test_a_synchronized_batchnorm_of_one_process_is_a_batchnorm() -> None:
    from nnlite.interop import mpi

    rng = np.random.default_rng(0)
    for kind, shape in ((nn.BatchNorm1d, (9, 4)), (nn.BatchNorm2d, (3, 4, 5, 5))):
        x, grad = rng.normal(3, 2, size=(2, *shape))
        plain = nn.Sequential(kind(4))
        plain.astype(np.float64)
        expected, expected_grad = plain(x), plain.backward(grad)
        plain.zero_grad()
        mpi.SyncBatchNorm.convert(plain)
        np.testing.assert_allclose(plain(x), expected)
        np.testing.assert_allclose(plain.backward(grad), expected_grad)
        assert nn.gradcheck(mpi.SyncBatchNorm(4), x)
