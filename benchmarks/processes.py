"""Two processes of one thread against one process of two: ``python -m benchmarks.processes``.

The training step of a perceptron, in nnlite and in PyTorch (DistributedDataParallel on gloo), and
the time of an Allreduce of its gradients.
"""

from __future__ import annotations

import itertools
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

SIZES = (784, 512, 512, 10)
BATCH = 1024
WARMUP, STEPS = 10, 40
ROUNDS = 4
ALLREDUCES = (1, 1_000, 10_000, 100_000, 670_000)  # numbers of float32; the last, of gradients

# The participants: title, arguments of this script, processes, threads of each.
PARTICIPANTS = [
    ("nnlite, 1 process of 1 thread", "nnlite", 1, 1),
    ("nnlite, 1 process of 2 threads", "nnlite", 1, 2),
    ("nnlite, 2 processes of 1 thread", "nnlite", 2, 1),
    ("PyTorch, 1 process of 2 threads", "torch", 1, 2),
    ("PyTorch DDP, 2 processes of 1 thread", "torch", 2, 1),
]


def main() -> None:
    """Print the milliseconds of a step for each participant, then those of an Allreduce."""
    times: dict[str, list[list[str]]] = {title: [] for title, *_ in PARTICIPANTS}
    for _ in range(ROUNDS):  # in turn, so that a busy machine is unfair to none
        for title, worker, processes, threads in PARTICIPANTS:
            times[title].append(run(worker, processes, threads).split())
    print(f"milliseconds of a step of {BATCH} images: median and least of {ROUNDS} x {STEPS}")
    for title, found in times.items():
        medians, leasts = np.array(found, float).T
        print(f"{title:38}{np.median(medians):8.1f}{leasts.min():8.1f}")
    print("\nmicroseconds of an Allreduce of float32 between 2 processes: bytes, median, least")
    print(run("allreduce", 2, 1))


def run(worker: str, processes: int, threads: int) -> str:
    """Run a worker in some processes, and return what it prints."""
    environment = {
        **os.environ,
        "OMPI_ALLOW_RUN_AS_ROOT": "1",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
        "OPENBLAS_NUM_THREADS": str(threads),
        "OMP_NUM_THREADS": str(threads),
    }
    if worker == "torch":
        launcher = [sys.executable, "-m", "torch.distributed.run"]
        launcher += ["--standalone", f"--nproc-per-node={processes}", "-m"]
    else:
        mpiexec = shutil.which("mpiexec", path=str(Path(sys.executable).parent)) or "mpiexec"
        launcher = [mpiexec, "--bind-to", "none", "-n", str(processes), sys.executable, "-m"]
    command = [*launcher, "benchmarks.processes", worker]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return done.stdout.strip()


def milliseconds(step: Callable[[], object]) -> tuple[float, float]:
    """Return the median and the least time of a step."""
    for _ in range(WARMUP):
        step()
    times = []
    for _ in range(STEPS):
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    return 1e3 * statistics.median(times), 1e3 * min(times)


def part(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return one of `size` equal parts of a batch."""
    rng = np.random.default_rng(0)
    images = rng.normal(size=(BATCH // size, SIZES[0])).astype(np.float32)
    return images, rng.integers(0, SIZES[-1], BATCH // size)


def nnlite_worker() -> None:
    """Print the time of a step of nnlite."""
    import nnlite as nn
    from nnlite.interop import mpi

    processes = mpi.shard()
    images, labels = part(processes.size)
    layers: list[nn.Layer] = []
    for before, after in itertools.pairwise(SIZES):
        layers += [nn.Linear(before, after), nn.ReLU()]
    model, loss = nn.Sequential(*layers[:-1]), nn.CrossEntropy()
    optimizer = mpi.DistributedOptimizer(nn.SGD(model.parameters(), lr=0.01))

    def step() -> None:
        loss(model(images), labels)
        optimizer.zero_grad()
        model.backward(loss.backward(mpi.fraction(len(labels))), input_grad=False)
        optimizer.step()

    times = milliseconds(step)
    if processes.rank == 0:
        print(*times)


def torch_worker() -> None:
    """Print the time of a step of PyTorch."""
    import torch

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    torch.distributed.init_process_group("gloo")
    size = torch.distributed.get_world_size()
    images, labels = map(torch.from_numpy, part(size))
    layers: list[torch.nn.Module] = []
    for before, after in itertools.pairwise(SIZES):
        layers += [torch.nn.Linear(before, after), torch.nn.ReLU()]
    model: torch.nn.Module = torch.nn.Sequential(*layers[:-1])
    if size > 1:
        model = torch.nn.parallel.DistributedDataParallel(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)

    def step() -> None:
        value = torch.nn.functional.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()

    times = milliseconds(step)
    if torch.distributed.get_rank() == 0:
        print(*times)
    torch.distributed.destroy_process_group()


def allreduce_worker() -> None:
    """Print the time of an Allreduce for several lengths."""
    from mpi4py import MPI

    for length in ALLREDUCES:
        array = np.ones(length, np.float32)
        times = milliseconds(lambda array=array: MPI.COMM_WORLD.Allreduce(MPI.IN_PLACE, array))
        if MPI.COMM_WORLD.rank == 0:
            print(f"{array.nbytes:12,}" + "".join(f"{1e3 * time:10.1f}" for time in times))


if __name__ == "__main__":
    workers = {"nnlite": nnlite_worker, "torch": torch_worker, "allreduce": allreduce_worker}
    workers[sys.argv[1]]() if len(sys.argv) > 1 else main()
