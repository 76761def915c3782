"""``fit``: the training loop, with its checks and bookkeeping in the modules beside it."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

import numpy as np

from ..checks import boolean, integer, positive
from ..hints import explained
from ..layer import Layer
from ..losses import Loss
from ..optim.base import Optimizer
from ..optim.clipping import clip_grad_norm
from .arguments import (
    Metrics,
    check_model_and_loss,
    check_training_data,
    checked_checkpoint,
    checked_history,
    checked_parameters,
    checked_validation,
    figure_names,
)
from .callbacks import Checkpoint, checked_callbacks
from .evaluation import BATCH_SIZE, evaluate
from .history import History
from .metrics import Metric, means_of, named_metrics
from .pace import Pace
from .progress import Progress
from .safeguards import LastGood, check_gradients, naming
from .state import Training
from .supervisor import Supervisor
from .tally import Tally
from .terms import terms_of


@explained
def fit(
    model: Layer,
    loss: Loss,
    optimizer: Optimizer,
    train: Iterable[Any],
    *,
    validation: Iterable[Any] | None = None,
    epochs: int = 1,
    schedule: Any = None,
    schedule_every: str = "epoch",
    monitor: str | None = None,
    metrics: Metrics = (),
    callbacks: Iterable[Any] = (),
    accumulate: int = 1,
    max_grad_norm: float | None = None,
    rollback: bool = True,
    compile: bool = False,
    checkpoint: str | os.PathLike[str] | Checkpoint | None = None,
    resume: bool = False,
    history: History | None = None,
    progress: bool = True,
) -> History:
    """Train a model, and return the figures of each epoch.

    Parameters
    ----------
    model : Layer
        A model in evaluation mode is in training mode meanwhile. Layers of a model in training
        mode that are in evaluation mode stay so.
    loss : Loss
        With the reduction "mean" or "sum". A loss of several predictions, such as `GaussianNLL`,
        takes a model that returns a tuple of as many outputs.
    optimizer : Optimizer
        Its parameters are parameters of the model or of the loss.
    train : iterable of (inputs, targets) or (inputs, targets, sample_weight)
        The batches, normally a `DataLoader`; each iteration over it is an epoch. Inputs that are a
        tuple are several inputs of the model. For a loss without targets, such as `TripletMargin`,
        a batch has the inputs of the model alone: (anchors, positives, negatives). With
        `accumulate`, a batch must not be written into before its step. A batch in which every
        target is ignored, or has a weight of 0, goes through the model but has no gradient.
    validation : iterable as `train`, or tuple of arrays (inputs, targets), optional
        Data evaluated at the end of every epoch: see `evaluate`.
    epochs : int, default 1
        Number of epochs in the history at the end, including those that it has already or that are
        resumed from a checkpoint.
    schedule : Schedule or ReduceLROnPlateau, optional
        A learning-rate schedule of this optimizer.
    schedule_every : {"epoch", "step"}
        When to call the schedule's ``step``: after each epoch, or after each step of the optimizer,
        as `OneCycleLR` is meant to be used.
    monitor : str, optional
        Name of the figure that `ReduceLROnPlateau` gets: by default "validation_loss", or "loss"
        without validation data. Other schedules take none.
    metrics : sequence of callable or str, or mapping of str to such
        As for `evaluate`. The figure of an epoch is the mean over its batches. Scorers of
        scikit-learn and each `EpochMetric` are computed for the validation data alone.
    callbacks : iterable of Callback or callable
        See `Callback`. They are called in this order.
    accumulate : int, default 1
        Number of batches whose gradients are accumulated for one step: exactly the step that one
        large batch would give, also for the last batches of an epoch if they are fewer. The batches
        of a step are in memory together, but go through the model one at a time.
    max_grad_norm : float, optional
        Upper bound of the norm of all gradients: see `clip_grad_norm`.
    rollback : bool, default True
        Whether an exception within a step undoes the step, and a loss that is not finite restores
        the last good weights. It costs a copy of the parameters in each step.
    compile : bool, default False
        Whether the steps and the validation are native functions: see `nnlite.compile`. The
        figures are the same but for rounding. One call makes many steps if it can, and the metrics
        of these steps are computed after it: if a metric raises an exception, they are not undone.
    checkpoint : path or Checkpoint, optional
        The file of a checkpoint after each epoch, or a `Checkpoint` to save at other intervals. The
        last one has the model as `fit` returns it.
    resume : bool, default False
        Whether to continue from `checkpoint`, if the file exists. The run then ends with the same
        bits as one that was never interrupted. `epochs` may be larger, and a schedule may be made
        for more steps; its own rates hold. Other options, of `fit` and of model, loss and
        optimizer, must be those that the run began with.
    history : History, optional
        The history to add the figures to. It has those of all whole epochs even if `fit` ends with
        an exception. When a checkpoint is resumed, it becomes the history of the checkpoint.
    progress : bool, default True
        Whether to print a line for each epoch and, on a terminal, to show a bar.

    Returns
    -------
    History

    Raises
    ------
    ValueError
        If the loss or a gradient is not finite. The message names the epoch and the batch, and the
        weights that the model has: the last with which the loss was finite or, where the data are
        not finite, those of before that batch. The state of the optimizer is not restored.
        If the data give no batch, or none in which a target counts, or if model, data, loss and
        options do not fit together.
    TypeError
        If something is of another type than described above.
    KeyboardInterrupt
        After Ctrl-C, when the current step has ended or the checkpoint has been written; after a
        second Ctrl-C, at once.

    Warns
    -----
    UserWarning
        If `OneCycleLR` has more steps than it is called for with ``schedule_every="epoch"``.

    Notes
    -----
    After any exception within a step, including a second Ctrl-C, the parameters and buffers of the
    model are as they were before that step. The state of the optimizer may have changed, if the
    exception came from the optimizer.

    Apart from checks, figures and progress, it is this loop::

        for epoch in range(epochs):
            for inputs, targets in train:
                loss(model(inputs), targets)
                optimizer.zero_grad()
                model.backward(loss.backward(), input_grad=False)
                optimizer.step()

    and it gives the same bits. The training loss is averaged over the epoch while the weights still
    change.

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> rng = np.random.default_rng(0)
    >>> points = rng.normal(size=(500, 2)).astype(np.float32)
    >>> labels = (points[:, 0] * points[:, 1] > 0).astype(int)  # which quadrants they lie in
    >>> nn.seed(0)
    >>> model = nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 2))
    >>> loader = nn.DataLoader(points[:400], labels[:400], batch_size=20, shuffle=True)
    >>> history = nn.fit(
    ...     model, nn.CrossEntropy(), nn.Adam(model.parameters(), lr=0.02), loader,
    ...     validation=(points[400:], labels[400:]), epochs=10, metrics=[nn.accuracy],
    ...     progress=False,
    ... )
    >>> bool(history["validation_accuracy"][-1] > 0.9)
    True
    """
    check_model_and_loss(model, loss, "fit")
    parameters = checked_parameters(model, loss, optimizer)
    named = named_metrics(metrics, loss, "fit")
    epochs = integer(epochs, "fit: epochs", 0)
    accumulate = integer(accumulate, "fit: accumulate")
    max_norm = None if max_grad_norm is None else positive(max_grad_norm, "fit: max_grad_norm")
    resume = boolean(resume, "fit: resume")
    history = checked_history(history)
    check_training_data(train, epochs - len(history.epochs), optimizer.processes)
    tally = Tally(loss, means_of(named), optimizer.processes)
    training = Training(
        model, loss, optimizer, schedule, train, history, tally,
        figure_names(named, validation is not None), epochs, checked_callbacks(callbacks),
    )  # fmt: skip
    pace = Pace(training, schedule_every, monitor)
    good = LastGood(model, parameters, enabled=boolean(rollback, "fit: rollback"))
    compiled, step, tested = None, optimizer.step, model
    if boolean(compile, "fit: compile"):
        from ..compiled.fitting import CompiledFit

        with naming(lambda: "fit"):
            compiled = CompiledFit(model, loss, optimizer, max_norm)
        step, tested = compiled.step, compiled.model
    saver = checked_checkpoint(checkpoint, resume)
    if saver is not None or optimizer.processes.size > 1:
        training.terms = terms_of(
            model, loss, optimizer, train, accumulate=accumulate, max_grad_norm=max_norm,
            schedule_every=pace.every, monitor=pace.monitor,
        )  # fmt: skip
    # The first compiled step may take seconds.
    text = "" if compiled is None else "compiling"
    bar = Progress(training, boolean(progress, "fit: progress"), text)
    supervisor = Supervisor(training, pace, good, saver, resume, bar)
    validation = checked_validation(model, loss, validation, BATCH_SIZE, optimizer.processes)

    with supervisor.run():
        while training.begin_epoch():
            with supervisor.epoch():
                if compiled is not None and accumulate == 1:
                    compiled.make_steps(supervisor)
                for batches in supervisor.steps(accumulate):
                    with supervisor.step():
                        optimizer.zero_grad()
                        for batch in batches:
                            training.batch = batch.number
                            if compiled is not None and batch.scale:
                                supervisor.measure(batch, *compiled.passes(batch))
                                continue
                            predictions = model(*batch.inputs) if batch.inputs else None
                            supervisor.measure(batch, predictions)
                            if batch.scale:
                                model.backward(loss.backward(batch.scale), input_grad=False)
                            elif batch.elsewhere and predictions is not None:
                                # The SyncBatchNorm of other processes waits for it.
                                model.backward(_zeros_like(predictions), input_grad=False)
                        optimizer.synchronize()
                        check_gradients(parameters)
                        if max_norm is not None:
                            clip_grad_norm(parameters, max_norm)
                        good.keep_parameters()
                        step()
                    supervisor.after_step(len(batches))
                figures = {} if validation is None else _validate(tested, loss, validation, named)
                supervisor.end_epoch(figures)
            supervisor.after_epoch()
    return training.history


def _zeros_like(predictions: Any) -> Any:
    if isinstance(predictions, tuple):
        return tuple(map(np.zeros_like, predictions))
    return np.zeros_like(predictions)


def _validate(
    model: Layer, loss: Loss, data: Iterable[Any], metrics: dict[str, Metric]
) -> dict[str, float]:
    """Return the figures of the validation data by the names that they have in the history."""
    with naming(lambda: "validation"):
        figures = evaluate(model, loss, data, metrics=metrics)
    return {f"validation_{name}": value for name, value in figures.items()}
