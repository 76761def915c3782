"""Training and what comes after it: `fit`, `evaluate`, and `predict`.

`fit` is the loop that one would write oneself, and what people add to it over time: progress,
figures, checkpoints, and a stop where training has diverged.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..checks import integer, one_of, positive
from ..data.loader import DataLoader
from ..engine.arrays import Array
from ..files.atomic import check_target
from ..layer import Layer, evaluating
from ..losses import Loss
from ..optim.base import Optimizer
from ..optim.clipping import clip_grad_norm
from ..optim.schedules import Schedule
from ..parameter import Parameter
from .batches import Batch, Tally, as_batch, averages
from .callbacks import Checkpoint, check_monitor, checked
from .history import History, listed
from .metrics import Metric, named_metrics
from .safeguards import Interrupts, LastGood, NotFiniteError, NotFiniteInputError, check_gradients
from .state import Training

_BATCH_SIZE = 256

Metrics = Sequence[Metric] | Mapping[str, Metric]


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
    checkpoint: str | os.PathLike[str] | Checkpoint | None = None,
    resume: bool = False,
    history: History | None = None,
    progress: bool = True,
) -> History:
    """Train a model, and return the figures of each epoch.

    Parameters
    ----------
    model : Layer
        In evaluation mode it is put into training mode meanwhile. Layers of a model in training
        mode that are in evaluation mode stay so.
    loss : Loss
        With the reduction "mean" or "sum".
    optimizer : Optimizer
        Of parameters of the model, or of the loss.
    train : iterable of (inputs, targets) or (inputs, targets, sample_weight)
        The batches, normally a `DataLoader`; each iteration over it is an epoch. Inputs that are a
        tuple are several inputs of the model. With `accumulate`, a batch must not be written into
        before its step.
    validation : iterable as `train`, or tuple of arrays (inputs, targets), optional
        What each epoch ends with an `evaluate` of.
    epochs : int, default 1
        How many epochs the history has at the end: those that it has already, or that are resumed
        from a checkpoint, count.
    schedule : Schedule or ReduceLROnPlateau, optional
        Of this optimizer.
    schedule_every : {"epoch", "step"}
        When to call the schedule's ``step``: after each epoch, or, as `OneCycleLR` is meant to be
        used, after each step of the optimizer.
    monitor : str, optional
        The name of the figure that `ReduceLROnPlateau` gets: by default "validation_loss", or
        "loss" without validation data. Other schedules take none.
    metrics : sequence of callable, or mapping of str to callable
        Functions of (predictions, targets) that give a number, such as `accuracy`. The figure of
        several batches is their mean: see `evaluate`.
    callbacks : iterable of Callback or callable
        See `Callback`. They are called in this order.
    accumulate : int, default 1
        The number of batches whose gradients make a step. The step is that of one batch of all
        their samples. The rest at the end of an epoch makes a step of its own. The batches of a
        step are in memory together, but only one of them goes through the model at a time.
    max_grad_norm : float, optional
        Gradients that are longer are scaled to it: see `clip_grad_norm`.
    checkpoint : path or Checkpoint, optional
        Where to save a checkpoint after each epoch, or how often `Checkpoint` says. The last one
        has the model as `fit` returns it.
    resume : bool, default False
        Whether to go on from `checkpoint`, if there is such a file. The run then ends with the same
        bits as one that was never interrupted.
    history : History, optional
        What to add the figures to. It has those of all whole epochs even if `fit` ends with an
        exception. When a checkpoint is resumed, it takes over the history in it.
    progress : bool, default True
        Whether to print a line for each epoch and, on a terminal, to show a bar.

    Returns
    -------
    History

    Raises
    ------
    ValueError
        If the loss or a gradient is not finite: the message says in which epoch and batch, and
        which weights the model has: the last with which the loss was finite, or, where the data
        are not finite, those of before that batch. The state of the optimizer is not taken back.
        If the data give no batch, or if model, data, loss and options do not fit together.
    TypeError
        If something is of another type than is described above.
    KeyboardInterrupt
        After Ctrl-C, when the step under way is over. A second Ctrl-C does not wait for that.

    Notes
    -----
    After any exception within a step, a second Ctrl-C included, the model is as it was before that
    step, its buffers too. The state of the optimizer may have moved, if it was in its own step.

    But for checks, figures and progress, it is this loop::

        for epoch in range(epochs):
            for inputs, targets in train:
                loss(model(inputs), targets)
                optimizer.zero_grad()
                model.backward(loss.backward(), input_grad=False)
                optimizer.step()

    and it gives the same bits. The training loss is the mean over the epoch, as it was while the
    weights changed.

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
    _check_model_and_loss(model, loss, "fit")
    parameters = _checked_parameters(model, loss, optimizer)
    named = named_metrics(metrics, loss, "fit")
    callbacks = checked(callbacks)
    training = Training(
        model, loss, optimizer, schedule, train, _checked_history(history), Tally(loss, named),
        _names(named, validation is not None), integer(epochs, "fit: epochs", 0), callbacks,
    )  # fmt: skip
    _check_repeatable(training)
    accumulate = integer(accumulate, "fit: accumulate")
    max_norm = None if max_grad_norm is None else positive(max_grad_norm, "fit: max_grad_norm")
    after_step, after_epoch = _schedule_steps(training, schedule_every, monitor)
    saver = _checked_checkpoint(checkpoint, resume)
    if validation is not None:
        validation = _checked_validation(model, loss, validation)

    # That a number is too large is said by the loss.
    quiet = np.errstate(over="ignore", invalid="ignore")
    with quiet, _in_training(model), Interrupts() as interrupts:
        training.call("on_fit_begin")
        if saver is not None and resume:
            saver.resume(training)
        good = LastGood(model, parameters)
        before = training.epoch
        while training.begin_epoch():
            with _locating(training, good), _bar(training, progress) as advance:
                for group in _groups(training, accumulate):
                    with interrupts.held():
                        with good.step():
                            optimizer.zero_grad()
                            for training.batch, batch, share in group:
                                predictions, value = model(*batch.inputs), 0.0
                                if share:
                                    value = batch.loss_of(loss, predictions)
                                    good.prove()
                                    model.backward(loss.backward(share), input_grad=False)
                                training.tally.add(value, predictions, batch)
                            check_gradients(parameters)
                            if max_norm is not None:
                                clip_grad_norm(parameters, max_norm)
                            good.keep_parameters()
                            optimizer.step()
                        training.lr = optimizer.lr
                        after_step()
                    training.call("on_step_end")
                    if saver is not None:
                        saver.after_step(training, len(group))
                    advance(len(group))
                tested = _validated(model, loss, validation, named)
                with interrupts.held():
                    training.end_epoch(tested)
                    after_epoch()
            training.call("on_epoch_end")
            if saver is not None:
                saver.after_epoch(training)
            if progress:
                print(training.describe(), flush=True)
        trained = training.epoch > before
        if progress and not trained:
            print(training.describe_nothing(), flush=True)
        training.call("on_fit_end")
        if saver is not None and (trained or resume):
            saver.after_fit(training)
    return training.history


def evaluate(
    model: Layer,
    loss: Loss,
    data: Iterable[Any],
    *,
    metrics: Metrics = (),
    batch_size: int = _BATCH_SIZE,
) -> dict[str, float]:
    """Return the loss and the metrics of a model over a whole data set.

    Meanwhile the model counts as in evaluation mode for the calling thread, and keeps no caches.

    Parameters
    ----------
    model : Layer
    loss : Loss
        With the reduction "mean" or "sum".
    data : tuple of arrays (inputs, targets), or iterable of batches (inputs, targets)
        A third array or item has the weights of the samples. Inputs that are a tuple are several
        inputs of the model.
    metrics : sequence of callable, or mapping of str to callable
        Functions of (predictions, targets) that give a number, such as `accuracy`.
    batch_size : int, default 256
        How many samples go through the model at a time, if `data` are arrays.

    Returns
    -------
    dict of str to float
        "loss", and each metric by its name.

    Raises
    ------
    ValueError
        If there are no data, if every target is ignored, if the loss is not finite, or if data,
        model and loss do not fit together.

    Notes
    -----
    The loss is that of one batch of all samples, whatever the batches are: what the mean of a batch
    was divided by is the weight of that batch. With ``w`` the weight of a sample and ``c`` the
    class weight of its label, 0 where it is ignored, this is Σ w c. It is taken from the attributes
    ``weight`` and ``ignore_index`` of the loss; a loss without them divides by the number of
    targets.

    A metric is the mean over the batches, weighted by their numbers of targets, without those that
    the loss ignores; a batch of which all are ignored is left out. What is no mean over targets,
    such as an F-score, should be computed from all outputs: see `predict`.

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> data = np.array([[2.0, 0.0], [0.0, 0.0], [0.0, 3.0]]), np.array([0, 0, 0])
    >>> figures = nn.evaluate(nn.Identity(), nn.CrossEntropy(), data, metrics=[nn.accuracy])
    >>> {name: round(value, 4) for name, value in figures.items()}
    {'loss': 1.2896, 'accuracy': 0.6667}
    """
    _check_model_and_loss(model, loss, "evaluate")
    tally = Tally(loss, named_metrics(metrics, loss, "evaluate"))
    batch_size = integer(batch_size, "evaluate: batch_size")
    if _are_arrays(data):
        data = _batches_of(data, batch_size)
    if not isinstance(data, Iterable):
        raise TypeError(
            f"evaluate: expected a tuple of arrays or batches, got {type(data).__name__}"
        )
    with evaluating():
        for given in data:
            batch = as_batch(given, loss)
            predictions = model(*batch.inputs)
            # A batch of which nothing counts has no mean, but the others may have one.
            value = batch.loss_of(loss, predictions) if batch.weight else 0.0
            tally.add(value, predictions, batch)
    if not tally.batches:
        raise ValueError("evaluate: the data gave no batch")
    if not tally.weight:
        raise ValueError("evaluate: every target is ignored or has no weight")
    return tally.figures()


def predict(
    model: Layer, inputs: ArrayLike | tuple[ArrayLike, ...], batch_size: int = _BATCH_SIZE
) -> Array:
    """Return the model's outputs for all `inputs`, computed batch by batch.

    Meanwhile the model counts as in evaluation mode for the calling thread, and keeps no caches.

    Parameters
    ----------
    model : Layer
    inputs : array_like of shape (N, …), or tuple of such
        A tuple is several inputs of the model.
    batch_size : int, default 256
        How many samples go through the model at a time. It bounds the memory and, but for
        rounding, does not change the outputs.

    Returns
    -------
    ndarray of shape (N, …)
        An array of its own, also where the model returns its input.

    Raises
    ------
    ValueError
        If there are no inputs, or if several are of different lengths.

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> model = nn.Sequential(nn.Linear(4, 3), nn.Softmax())
    >>> nn.predict(model, np.zeros((1000, 4), dtype=np.float32)).shape
    (1000, 3)
    """
    batch_size = integer(batch_size, "predict: batch_size")
    arrays = [np.asarray(array) for array in (inputs if isinstance(inputs, tuple) else (inputs,))]
    lengths = {array.shape[:1] for array in arrays}
    is_empty = not lengths or () in lengths or (0,) in lengths
    if is_empty or len(lengths) > 1:
        shapes = " and ".join(str(array.shape) for array in arrays)
        if is_empty:
            raise ValueError(f"predict: expected at least one input, got shape {shapes or '()'}")
        raise ValueError(f"predict: all inputs need the same length, got the shapes {shapes}")
    samples = len(arrays[0])
    with evaluating():
        outputs = model(*[array[:batch_size] for array in arrays])
        if samples <= batch_size:
            return np.array(outputs)
        everything = np.empty((samples, *outputs.shape[1:]), outputs.dtype)
        everything[:batch_size] = outputs
        for start in range(batch_size, samples, batch_size):
            stop = start + batch_size
            everything[start:stop] = model(*(array[start:stop] for array in arrays))
    return everything


# ---- the parts of fit ----


def _groups(training: Training, accumulate: int) -> Iterator[list[tuple[int, Batch, Any]]]:
    """Yield the batches of each step: their numbers, and the factors of their gradients.

    A batch of which nothing counts has the factor 0, unless it is so with the whole step.
    """
    batches = iter(()) if training.exhausted else training.batches()
    mean = averages(training.loss)
    while not training.exhausted and training.stopped is None:
        given = list(itertools.islice(batches, accumulate))
        # A checkpoint after this step has to know that the loader's epoch is over.
        training.exhausted = len(given) < accumulate
        if not given:
            break
        group = []
        for item in given:
            training.batch += 1
            group.append((training.batch, as_batch(item, training.loss)))
        total = sum(batch.weight for _, batch in group)
        yield [(number, batch, _share(batch.weight, total, mean)) for number, batch in group]


def _share(weight: float, total: float, mean: bool) -> float:
    if not total:
        return 1.0
    return weight / total if mean else float(weight != 0)


def _validated(
    model: Layer, loss: Loss, validation: Iterable[Any] | None, metrics: Mapping[str, Metric]
) -> dict[str, float]:
    """Return the figures of the validation data by the names that they have in the history."""
    if validation is None:
        return {}
    with _naming(lambda: "validation"):
        figures = evaluate(model, loss, validation, metrics=metrics)
    return {f"validation_{name}": value for name, value in figures.items()}


@contextlib.contextmanager
def _locating(training: Training, good: LastGood) -> Iterator[None]:
    """Context in which an error says in which epoch and batch it is, and leaves good weights."""

    def place() -> str:
        batch = f", batch {training.batch}" if training.batch else ""
        return f"fit: epoch {training.epoch}{batch}"

    with _naming(place):
        try:
            yield
        except NotFiniteError as error:
            raise ValueError(f"{error}; {good.restore(error)}") from error


@contextlib.contextmanager
def _naming(place: Callable[[], str]) -> Iterator[None]:
    """Context in which the message of an error begins with its place."""
    try:
        yield
    except (ValueError, TypeError) as error:
        # Others, such as a UnicodeError, are not made of a message alone.
        if type(error) not in (ValueError, TypeError, NotFiniteError, NotFiniteInputError):
            raise
        raise type(error)(f"{place()}: {error}") from error


@contextlib.contextmanager
def _in_training(model: Layer) -> Iterator[None]:
    """Context in which a model in evaluation mode is in training mode."""
    modes = [(layer, layer.training) for layer in model.layers()]
    if not model.training:
        model.train()
    try:
        yield
    finally:
        for layer, mode in modes:
            layer.training = mode


@contextlib.contextmanager
def _bar(training: Training, progress: bool) -> Iterator[Callable[[int], None]]:
    """Context with a function that moves a bar on by some batches, where there is a terminal."""
    if not progress or sys.stderr is None or not sys.stderr.isatty():
        yield lambda batches: None
        return
    from tqdm import tqdm  # importing it takes longer than a small training

    with tqdm(
        total=len(training.train) if isinstance(training.train, Sized) else None,
        initial=training.batch,
        desc=f"epoch {training.epoch}/{training.epochs}",
        unit=" batches",
        leave=False,
        dynamic_ncols=True,
    ) as bar:

        def advance(batches: int) -> None:
            if bar.update(batches):  # it was drawn: what it shows from the next time on
                bar.set_postfix_str(listed(training.figures), refresh=False)

        yield advance


def _schedule_steps(
    training: Training, every: str, monitor: str | None
) -> tuple[Callable[[], None], Callable[[], None]]:
    """Return what is to be called after each step, and after each epoch."""
    schedule = training.schedule
    every = one_of(every, ("epoch", "step"), "fit: schedule_every")

    def nothing() -> None:
        pass

    if monitor is not None and (schedule is None or isinstance(schedule, Schedule)):
        raise ValueError(
            f"fit: monitor={monitor!r} is for a ReduceLROnPlateau, got schedule={schedule!r:.80}"
        )
    if schedule is None:
        return nothing, nothing
    if isinstance(schedule, type) or not hasattr(schedule, "step"):
        raise TypeError(f"fit: expected a schedule such as StepLR(optimizer, …), got {schedule!r}")
    if schedule.optimizer is not training.optimizer:
        raise ValueError("fit: the schedule is of another optimizer than the one that is given")
    if isinstance(schedule, Schedule):
        return (schedule.step, nothing) if every == "step" else (nothing, schedule.step)
    if every == "step":
        raise ValueError(
            f"fit: {type(schedule).__name__} needs the figures of whole epochs; "
            f"use schedule_every='epoch'"
        )
    default = "validation_loss" if "validation_loss" in training.names else "loss"
    name = default if monitor is None else monitor
    check_monitor(name, training.names, f"fit: {type(schedule).__name__}")
    return nothing, lambda: schedule.step(training.history[name][-1])


# ---- checks ----


def _check_model_and_loss(model: Any, loss: Any, who: str) -> None:
    for what, value in (("model", model), ("loss", loss)):
        if isinstance(value, type):
            raise TypeError(
                f"{who}: the {what} must be an object, got the class {value.__name__}; "
                f"write {value.__name__}()"
            )
        if not isinstance(value, Layer):
            raise TypeError(f"{who}: the {what} must be a layer, got {type(value).__name__}")
    if getattr(loss, "reduction", None) == "none":
        raise ValueError(f"{who}: {loss.label} gives no single number; use reduction='mean'")


def _checked_parameters(model: Layer, loss: Loss, optimizer: Any) -> list[Parameter]:
    """Return the parameters that the optimizer moves."""
    if not isinstance(optimizer, Optimizer):
        got = f"the class {optimizer.__name__}" if isinstance(optimizer, type) else repr(optimizer)
        raise TypeError(
            f"fit: expected an optimizer such as SGD(model.parameters()), got {got:.80}"
        )
    known = {id(parameter) for layer in (model, loss) for parameter in layer.parameters()}
    moved = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    foreign = [parameter for parameter in moved if id(parameter) not in known]
    if foreign:
        raise ValueError(
            f"fit: {len(foreign)} of the {len(moved)} parameters of the optimizer are not in the "
            f"model, the first of shape {foreign[0].shape}; make the optimizer with the "
            f"parameters() of this model"
        )
    return moved


def _checked_history(history: Any) -> History:
    if history is None:
        return History()
    if not isinstance(history, History):
        raise TypeError(f"fit: history must be a History, got {type(history).__name__}")
    return history


def _checked_checkpoint(checkpoint: Any, resume: bool) -> Checkpoint | None:
    if checkpoint is None:
        if resume:
            raise ValueError("fit: resume needs the checkpoint to go on from; give checkpoint=")
        return None
    checkpoint = checkpoint if isinstance(checkpoint, Checkpoint) else Checkpoint(checkpoint)
    check_target(checkpoint.path)  # better now than after an epoch
    return checkpoint


def _check_repeatable(training: Training) -> None:
    train = training.train
    if not isinstance(train, Iterable) or isinstance(train, (str, np.ndarray)):
        raise TypeError(
            f"fit: the training data must be batches, such as a DataLoader, "
            f"got {type(train).__name__}"
        )
    if _are_arrays(train):
        raise TypeError(
            "fit: the training data must be batches, got arrays; write "
            "DataLoader(*arrays, batch_size=32, shuffle=True), with a transform that makes a "
            "tuple of several inputs"
        )
    if isinstance(train, Iterator) and training.epochs - training.epoch > 1:
        raise TypeError(
            f"fit: a {type(train).__name__} is used up after one epoch; give a DataLoader, or a "
            f"list of the batches"
        )


def _checked_validation(model: Layer, loss: Loss, validation: Any) -> Iterable[Any]:
    """Return the validation data as batches, having tried the first of those that are arrays."""
    if _are_arrays(validation):
        with _naming(lambda: "fit: validation"), evaluating():
            validation = _batches_of(validation, _BATCH_SIZE)
            batch = as_batch(next(iter(validation)), loss)
            predictions = model(*batch.inputs)
            if batch.weight:
                batch.loss_of(loss, predictions)
    elif isinstance(validation, Iterator):
        raise TypeError(
            f"fit: a {type(validation).__name__} of validation data is used up after one epoch; "
            f"give a tuple of arrays, or a DataLoader"
        )
    return validation


def _are_arrays(data: Any) -> bool:
    """Whether `data` are arrays of a whole data set, and not batches."""
    if not isinstance(data, (tuple, list)):
        return False
    # What can be an array is no batch; a batch is a pair that has arrays.
    return any(isinstance(item, np.ndarray) for item in data) or (
        isinstance(data, tuple) and not all(_has_arrays(item) for item in data)
    )


def _has_arrays(item: Any) -> bool:
    return isinstance(item, (tuple, list)) and any(
        isinstance(part, np.ndarray) or _has_arrays(part) for part in item
    )


def _batches_of(data: Iterable[Any], batch_size: int) -> DataLoader:
    """Return the batches of arrays (inputs, …), where inputs may be a tuple of several."""
    inputs, *others = data
    if not isinstance(inputs, tuple):
        return DataLoader(*data, batch_size=batch_size)

    def grouped(*arrays: Array) -> tuple[Any, ...]:
        return arrays[: len(inputs)], *arrays[len(inputs) :]

    return DataLoader(*inputs, *others, batch_size=batch_size, transform=grouped)


def _names(metrics: Iterable[str], validation: bool) -> tuple[str, ...]:
    """Return the names of the figures of an epoch."""
    figures = ("loss", *metrics)
    tested = tuple(f"validation_{name}" for name in figures) if validation else ()
    return (*figures, *tested, "lr")
