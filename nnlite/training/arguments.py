"""Checks of the arguments of `fit`, `evaluate` and `predict`, before anything is computed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from typing import Any

import numpy as np

from ..data.loader import DataLoader
from ..files.atomic import check_target
from ..layer import Layer
from ..losses import Loss
from ..modes import evaluating
from ..optim.base import Optimizer
from ..parameter import Parameter
from ..processes import Processes
from .batches import are_arrays, as_batch, batches_of
from .callbacks import Checkpoint
from .history import History
from .metrics import Metric, means_of
from .safeguards import naming

Metrics = Sequence[Metric | str] | Mapping[str, Metric | str]


def check_layer(value: Any, what: str, who: str, cure: str = "") -> None:
    """Raise a TypeError unless `value` is a layer."""
    if isinstance(value, type):
        raise TypeError(
            f"{who}: the {what} must be an object, got the class {value.__name__}; "
            f"write {value.__name__}()"
        )
    if not isinstance(value, Layer):
        raise TypeError(f"{who}: the {what} must be a layer, got {type(value).__name__}{cure}")


def check_model_and_loss(model: Any, loss: Any, who: str) -> None:
    """Raise an error unless these are a model and a loss that gives a number."""
    if isinstance(model, Loss) and isinstance(loss, Layer) and not isinstance(loss, Loss):
        raise TypeError(f"{who}: expected the model first and the loss after it")
    check_layer(model, "model", who)
    check_layer(loss, "loss", who, f"; write {who}(model, loss, ...) with loss = CrossEntropy()")
    if getattr(loss, "reduction", None) == "none":
        raise ValueError(f"{who}: {loss.label} gives no single number; use reduction='mean'")


def checked_parameters(model: Layer, loss: Loss, optimizer: Any) -> list[Parameter]:
    """Return the parameters of the optimizer, having checked that they are in the model or loss."""
    if not isinstance(optimizer, Optimizer):
        got = f"the class {optimizer.__name__}" if isinstance(optimizer, type) else repr(optimizer)
        raise TypeError(
            f"fit: expected an optimizer such as SGD(model.parameters()), got {got:.80}"
        )
    if optimizer.needs_closure:
        raise TypeError(
            f"fit: {type(optimizer).__name__} evaluates each batch several times, which fit does "
            f"not; call optimizer.step(closure) in a loop of your own"
        )
    known = {id(parameter) for layer in (model, loss) for parameter in layer.parameters()}
    moved = optimizer.parameters()
    foreign = [parameter for parameter in moved if id(parameter) not in known]
    if foreign:
        raise ValueError(
            f"fit: {len(foreign)} of the {len(moved)} parameters of the optimizer are not in the "
            f"model, the first of shape {foreign[0].shape}; make the optimizer with the "
            f"parameters() of this model"
        )
    return moved


def checked_history(history: Any) -> History:
    """Return the history, or a new one for None."""
    if history is None:
        return History()
    if not isinstance(history, History):
        raise TypeError(f"fit: history must be a History, got {type(history).__name__}")
    return history


def checked_checkpoint(checkpoint: Any, resume: bool) -> Checkpoint | None:
    """Return the checkpoint, having checked that its file can be written."""
    if checkpoint is None:
        if resume:
            raise ValueError("fit: resume needs the checkpoint to go on from; give checkpoint=")
        return None
    checkpoint = checkpoint if isinstance(checkpoint, Checkpoint) else Checkpoint(checkpoint)
    check_target(checkpoint.file)  # better now than after an epoch
    return checkpoint


def check_training_data(train: Any, epochs: int, processes: Processes) -> None:
    """Raise an error unless `train` are batches, which can be iterated over `epochs` times."""
    if not isinstance(train, Iterable) or isinstance(train, (str, np.ndarray)):
        raise TypeError(
            f"fit: the training data must be batches, such as a DataLoader, "
            f"got {type(train).__name__}"
        )
    if are_arrays(train):
        raise TypeError(
            "fit: the training data must be batches, got arrays; write "
            "DataLoader(*arrays, batch_size=32, shuffle=True)"
        )
    if isinstance(train, Iterator) and epochs > 1:
        raise TypeError(
            f"fit: a {type(train).__name__} is used up after one epoch; give a DataLoader, or a "
            f"list of the batches"
        )
    if isinstance(train, DataLoader) and train.shard.size != processes.size:
        raise ValueError(
            f"fit: the loader gives its batches to {train.shard.size} process(es), and the "
            f"optimizer sums the gradients of {processes.size}; use both "
            f"DataLoader(shard=mpi.shard()) and mpi.DistributedOptimizer(optimizer)"
        )


def checked_validation(
    model: Layer, loss: Loss, validation: Any, batch_size: int, processes: Processes
) -> Iterable[Any] | None:
    """Return the validation data as batches, having tried the first where there is one to take.

    The targets of arrays and of lists of batches are all looked at, and one must count. A
    `DataLoader` is not iterated over, since that would draw an order for its samples.
    """
    if validation is None:
        return None
    if isinstance(validation, Iterator):
        raise TypeError(
            f"fit: a {type(validation).__name__} of validation data is used up after one epoch; "
            f"give a tuple of arrays, or a DataLoader"
        )
    if not isinstance(validation, Iterable) or isinstance(validation, (str, np.ndarray, Mapping)):
        raise TypeError(
            f"fit: the validation data must be a tuple of arrays (inputs, targets) or batches, "
            f"got {type(validation).__name__}"
        )
    with naming(lambda: "fit: validation"), evaluating():
        if isinstance(validation, Sized) and not len(validation):
            raise ValueError("the data have no batch")
        everything: list[Any] = []
        if are_arrays(validation):
            everything = [tuple(validation)]
            validation = batches_of(validation, batch_size, processes)
            first = [next(iter(validation))]
        elif isinstance(validation, DataLoader):
            first = []
            if validation.transform is None:
                arrays, size = validation.arrays, validation.batch_size
                everything = [validation.grouped(arrays)]
                first = [validation.grouped(tuple(array[:size] for array in arrays))]
        else:
            everything = list(validation) if isinstance(validation, (list, tuple)) else []
            first = everything[:1]
        for given in first:
            batch = as_batch(given, loss)
            if batch.inputs:
                predictions = model(*batch.inputs)
                if batch.weight:
                    batch.loss_of(loss, predictions)
        if everything and not any(as_batch(given, loss).weight for given in everything):
            raise ValueError("every target is ignored or has no weight")
    data: Iterable[Any] = validation
    return data


def figure_names(metrics: Mapping[str, Metric], validation: bool) -> tuple[str, ...]:
    """Return the names of the figures of an epoch."""
    means = means_of(metrics)
    whole = [name for name in metrics if name not in means]
    if whole and not validation:
        raise ValueError(
            f"fit: the metric {whole[0]!r} is computed from all outputs for the validation data; "
            f"give validation="
        )
    tested = tuple(f"validation_{name}" for name in ("loss", *metrics)) if validation else ()
    return ("loss", *means, *tested, "lr")


@contextlib.contextmanager
def in_training(model: Layer) -> Iterator[None]:
    """Context in which a model in evaluation mode is in training mode."""
    modes = [(layer, layer.training) for layer in model.layers()]
    if not model.training:
        model.train()
    try:
        yield
    finally:
        for layer, mode in modes:
            layer.training = mode
