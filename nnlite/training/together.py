"""Several processes in one run of `fit`: they begin alike, but draw random numbers of their own."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..data.loader import DataLoader
from ..layer import Layer
from ..processes import Processes
from ..random import (
    generator_state,
    generators_of_layers,
    generators_within,
    load_generator_state,
)
from .batches import Batch
from .state import Training


def begin_together(training: Training) -> None:
    """Give all processes the model and the loss of rank 0, and random numbers of their own.

    Raises
    ------
    ValueError
        If a process has another model, loss, optimizer or number of epochs.
    """
    processes = training.processes
    if processes.size == 1:
        return
    facts = {
        "the number of epochs": training.epochs,
        "the length of the history": len(training.history.epochs),
        "the list of figures": training.names,
        "the loss": repr(training.loss),
        "the optimizer": repr(training.optimizer),
        **training.terms["options"],
        **_shapes("model", training.model),
        **_shapes("loss", training.loss),
    }
    processes.check_same(facts, "fit", "all processes must run the same script")
    _check_parts(training)
    for layer in (training.model, training.loss):
        layer.load_state_dict(processes.broadcast(layer.state_dict()))
    processes.spread(generators_of(training))


def weight_of_step(step: list[Batch], processes: Processes) -> float:
    """Return the weight of the batches of a step, over all processes.

    Raises
    ------
    ValueError
        If a process has fewer batches than another.
    """
    everywhere = processes.gather((len(step), sum(batch.weight for batch in step)))
    lengths = [length for length, _ in everywhere]
    if len(set(lengths)) > 1:
        raise ValueError(
            f"the processes have {lengths} batches for this step, by rank; give each the same "
            f"number of batches, as DataLoader(shard=mpi.shard()) does"
        )
    return sum(weight for _, weight in everywhere)


def keep_generators(training: Training) -> None:
    """Keep the states of the generators of all processes for the checkpoint."""
    if training.processes.size > 1:
        states = [generator_state(rng) for rng in generators_of(training)]
        training.generators = training.processes.gather(states)


def load_generators(training: Training) -> None:
    """Continue with the generators of a checkpoint.

    Another number of processes than it was saved with continues from those of rank 0.
    """
    processes, generators = training.processes, generators_of(training)
    if len(training.generators) != processes.size:
        processes.spread(generators)
        return
    for rng, state in zip(generators, training.generators[processes.rank], strict=True):
        load_generator_state(rng, state)


def generators_of(training: Training) -> list[np.random.Generator]:
    """Return the package's generator and those that layers and the loader's transform keep."""
    found = generators_of_layers([*training.model.layers(), *training.loss.layers()])
    return [*found, *generators_within(getattr(training.train, "transform", None)).values()]


def _check_parts(training: Training) -> None:
    """Raise a ValueError if a layer waits for processes that get no sample of the last batch."""
    loader, processes = training.train, training.processes
    if not isinstance(loader, DataLoader) or loader.smallest_batch >= processes.size:
        return
    for path, layer in training.model.named_layers():
        if getattr(layer, "of_all_processes", False):
            raise ValueError(
                f"fit: layer {path!r}, {layer.label}, needs samples in all {processes.size} "
                f"processes, and the smallest batch has {loader.smallest_batch}; use "
                f"drop_last=True or another batch_size"
            )


def _shapes(name: str, layer: Layer) -> dict[str, Any]:
    return {
        f"the shape of {path!r} of the {name}": array.shape
        for path, array in layer.state_dict().items()
    }
