"""`nn.compile`: prediction, gradients or a whole training step as native functions."""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

import nnlite as nn

from ..checks import as_output_grad, check_is_array, positive
from ..layer import hand_over
from ..modes import current, evaluating, is_grad_enabled, no_grad
from ..optim.clipping import clip_grad_norm
from ..random import generators_of_layers, unmoved
from ..training.batches import as_batch, averages
from . import losses
from .forms import form, form_of
from .gradients import LossProgram, write_passes
from .layers import (  # noqa: F401 - they register forms
    activations,
    arithmetic,
    attention,
    cells,
    containers,
    convolution,
    dropout,
    embedding,
    linear,
    normalization,
    padding,
    pooling,
    recurrent,
    resampling,
    shape,
    softmax,
)
from .layers.containers import check_forms, child_path
from .models import ModelProgram
from .optimizers import CompiledUpdate
from .programs import Batch, Program, Programs, flat
from .source import Code, Made, Value, fixed, shapes_of
from .steps import DividedStepProgram, StepProgram


def compile(
    model: nn.Layer,
    loss: nn.Loss | None = None,
    optimizer: nn.Optimizer | None = None,
    *,
    max_grad_norm: float | None = None,
    native: bool = True,
) -> CompiledModel | Gradients | Step:
    """Compile a model, alone, with its loss, or with loss and optimizer.

    Parameters
    ----------
    model : Layer
        Of layers that have a compiled form: those of nnlite, but for `Lambda` and losses, and those
        that ``nnlite.compiled.forms.form`` has registered. Compile again after layers were added,
        removed or given other options.
    loss : Loss, optional
        With the reduction "mean" or "sum".
    optimizer : Optimizer, optional
        Of parameters of the model: any of nnlite but `Muon` and `LBFGS`. It may be a
        `DistributedOptimizer`.
    max_grad_norm : float, optional
        Largest norm of all gradients together; longer ones are scaled to it, as by
        `clip_grad_norm`. Only with an optimizer.
    native : bool, default True
        Whether Numba compiles the source. False runs it as the Python that it is: slowly, but
        without Numba, and with a debugger if need be.

    Returns
    -------
    CompiledModel, Gradients, Step or DistributedStep
        ``compile(model)`` is a layer that computes what the model does.
        ``compile(model, loss)(inputs, targets)`` returns the loss and adds to the gradients of
        the parameters. ``compile(model, loss, optimizer)(inputs, targets)`` returns the loss and
        makes the step of the optimizer. All have the attribute `source`.

    Raises
    ------
    TypeError
        If a layer, the loss or the optimizer has no compiled form; the message names it. Or if a
        call gives the model an argument by a keyword that its compiled form does not take.
    ImportError
        If Numba is missing: ``pip install numba``.

    Notes
    -----
    The source is assembled in the first call, which tells the shapes, and compiled within a few
    seconds; the machine code is cached on disk for the next process. The batch size is free.

    Parameters, buffers, gradients and the state of the optimizer are those of the objects at all
    times, so that everything else may be done between two steps as if nothing was compiled.
    Errors are those of the uncompiled model, and no parameter, buffer or state of the optimizer is
    changed then. The gradients after a step that fails are undefined, and random numbers may have
    been drawn. A loss that is not finite is an error too.

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> nn.seed(0)
    >>> model = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 1))
    >>> step = nn.compile(model, nn.MeanSquaredError(), nn.SGD(model.parameters(), lr=0.1),
    ...                   native=False)
    >>> x = np.array([[0.0, 1.0], [1.0, 1.0]], np.float32)
    >>> y = np.array([[1.0], [0.0]], np.float32)
    >>> first = step(x, y)
    >>> step(x, y) < first
    True
    """
    if not isinstance(model, nn.Layer):
        raise TypeError(f"compile: the model must be a layer, got {model!r:.80}")
    if loss is None:
        if optimizer is not None:
            raise TypeError(
                "compile: an optimizer needs a loss; give compile(model, loss, optimizer)"
            )
        check_forms(model)
        return CompiledModel(model, native)
    if not isinstance(loss, nn.Layer):
        raise TypeError(
            f"compile: the loss must be a loss such as CrossEntropy(), got {loss!r:.80}"
        )
    losses.check_reduction(loss)
    check_forms(model, loss)
    if optimizer is None:
        if max_grad_norm is not None:
            raise TypeError("compile: max_grad_norm is of a step; give an optimizer too")
        return Gradients(model, loss, native)
    if not isinstance(optimizer, nn.Optimizer):
        raise TypeError(f"compile: expected an optimizer, got {optimizer!r:.80}")
    form_of(optimizer)
    norm = None if max_grad_norm is None else positive(max_grad_norm, "compile: max_grad_norm")
    kind = Step if optimizer.processes.size == 1 else DistributedStep
    return kind(model, loss, optimizer, norm, native)


class CompiledModel(nn.Layer):
    """A model whose forward and backward are native functions: see `compile`.

    Attributes
    ----------
    model : Layer
        The model itself, whose parameters, buffers and modes these are.
    """

    model: nn.Layer

    def __init__(self, model: nn.Layer, native: bool) -> None:
        self.model = model
        self._programs = Programs(self._build)
        self._native = native

    def _build(self, batch: Batch, n: int, free: bool) -> Program:
        made = _check(batch, self.model)
        return ModelProgram(self.model, batch, n, free, self._native, made)

    @property
    def source(self) -> str:
        """The source of the latest call's functions."""
        return self._programs.source

    def forward(self, *inputs: Any, **by_keyword: Any) -> Any:
        found = None if by_keyword else self._programs.again(len(inputs), inputs, current.evaluates)
        program, n, values = found or self._prepared(inputs, by_keyword)
        is_cached = is_grad_enabled()
        try:
            if is_cached:
                outputs, needed = program.forward(values, n)
            else:
                outputs = program.predict(values, n)
        except ValueError:
            _check(_as_inputs(self.model, inputs, by_keyword), self.model)
            raise
        if is_cached:
            self.cache(program, n, needed)
        else:
            self.drop_cache()
        return outputs[0] if len(outputs) == 1 else tuple(outputs)

    __call__ = forward  # an error of the model names the layer already

    def output_at_once(self, inputs: Sequence[Any]) -> Any:
        found = self._programs.again(len(inputs), inputs, True)
        if found is None:
            return None
        program, n, values = found
        try:
            outputs = program.predict(values, n)
        except ValueError:
            return None  # the usual way has the message
        self.drop_cache()
        if not program.returns_new:
            outputs = [y.copy() for y in outputs]
        return outputs[0] if len(outputs) == 1 else tuple(outputs)

    def _prepared(self, inputs: Any, by_keyword: dict[str, Any]) -> tuple[Any, int, list[Any]]:
        return self._programs.prepare(_as_inputs(self.model, inputs, by_keyword))

    def backward(self, grad: Any, input_grad: bool = True) -> Any:
        try:
            program, n, needed = self.cached()
        except RuntimeError as error:  # the message names the model
            message = str(error).replace(self.label, self.model.label, 1)
            raise RuntimeError(message) from None
        dtype, outputs = program.code.dtype, program.outputs
        grads = (grad,) if len(outputs) == 1 else grad
        if not isinstance(grads, (tuple, list)) or len(grads) != len(outputs):
            raise ValueError(
                f"{self.model.label}: backward expects a tuple of {len(outputs)} gradients, one "
                f"for each output"
            )
        given, missing = [], []
        for place, (y, part) in enumerate(zip(outputs, grads)):  # noqa: B905 - quicker
            sizes = fixed(y.shape, n)
            if part is None and len(outputs) > 1:
                missing.append(place)
                part = np.zeros(sizes)
            given.append(flat(as_output_grad(self.model, part, sizes, dtype), dtype))
        if len(missing) == len(outputs):
            if isinstance(self.model, nn.Graph):
                raise ValueError(f"{self.model.label}: backward got no gradient for any output")
            missing = []
        results = program.backward(n, given, needed, input_grad, missing)
        if not input_grad:
            return None
        if len(results) == len(program.inputs) == 1:
            return results[0]
        found = iter(results)
        parts = [next(found) if x.needs_grad else None for x in program.inputs]
        return parts[0] if len(parts) == 1 else tuple(parts)

    def tied(self) -> CompiledModel:
        twin = super().tied()
        twin._programs = Programs(twin._build)  # for the modes of its own layers
        return twin

    def summary(self, input_shape: Any, batch_size: int = 1, dtype: Any = None) -> Any:
        return self.model.summary(input_shape, batch_size, dtype)

    def __repr__(self) -> str:
        return f"compile({self.model!r})"


@form(CompiledModel)
def compiled_model(layer: CompiledModel, code: Code, *inputs: Value, **by_keyword: Value) -> Any:
    """Write the model."""
    path = child_path(code.path, "model")
    return code.apply(layer.model, path, *inputs, **by_keyword)


class Gradients:
    """The loss of a model and its gradients as one native function: see `compile`.

    Attributes
    ----------
    model : Layer
    loss : Loss
    """

    def __init__(self, model: nn.Layer, loss: nn.Layer, native: bool) -> None:
        self.model = model
        self.loss = loss
        self._programs = Programs(self._build)
        self._native = native

    def _build(self, batch: Batch, n: int, free: bool) -> Program:
        made = _check(batch, self.model, self.loss)
        passes = write_passes(self.model, self.loss, batch, n, free, made)
        return LossProgram(passes, self._native)

    @property
    def source(self) -> str:
        """The source of the latest call's function."""
        return self._programs.source

    def __call__(self, inputs: Any, target: Any = None, sample_weight: Any = None) -> float:
        """Return the loss, and add its gradients to those of the parameters.

        Parameters
        ----------
        inputs : ndarray, or tuple of ndarray
            A tuple is several inputs of the model.
        target : ndarray
            None for a loss without one, such as `TripletMargin`.
        sample_weight : array_like of shape (N,), optional
            As the loss takes them.
        """
        return self.passes(as_batch_of(self, inputs, target, sample_weight))[0]

    def passes(self, batch: Batch, scale: float = 1.0) -> tuple[float, Any]:
        """Return the loss and the output, and add the gradients times `scale`."""
        program, loss, output = self._computed(batch)
        program.accumulate(scale)
        return loss, output

    def _computed(self, batch: Batch) -> tuple[Program, float, Any]:
        """Return the program that has computed the gradients, the loss and the output."""
        program, n, values = self._programs.prepare(batch)
        try:
            return program, *program.compute(values, n)
        except ValueError:
            _check(batch, self.model, self.loss)
            raise


class Step(Gradients):
    """A whole training step as one native function: see `compile`.

    Attributes
    ----------
    model : Layer
    loss : Loss
    optimizer : Optimizer
    """

    def __init__(
        self,
        model: nn.Layer,
        loss: nn.Layer,
        optimizer: nn.Optimizer,
        max_grad_norm: float | None,
        native: bool,
    ) -> None:
        super().__init__(model, loss, native)
        self.optimizer = optimizer
        self._max_norm = max_grad_norm

    def _build(self, batch: Batch, n: int, free: bool) -> Program:
        made = _check(batch, self.model, self.loss)
        passes = write_passes(self.model, self.loss, batch, n, free, made)
        kind = DividedStepProgram if passes.is_divided else StepProgram
        return kind(passes, self._native, self.optimizer, self._max_norm)

    def __call__(self, inputs: Any, target: Any = None, sample_weight: Any = None) -> float:
        """Make a step, and return the loss before it.

        Afterwards the gradients of the parameters are those of this step.

        Parameters
        ----------
        inputs, target, sample_weight
            As for `Gradients`.
        """
        found = None
        if sample_weight is None:
            found = self._programs.again(1, (inputs, target), current.evaluates)
        program, n, values = found or self._programs.prepare(
            as_batch_of(self, inputs, target, sample_weight)
        )
        try:
            return program.step(values, n)
        except ValueError:
            _check(as_batch_of(self, inputs, target, sample_weight), self.model, self.loss)
            raise


class DistributedStep(Gradients):
    """A training step of several processes: see `compile`.

    The gradients of this process's part of a batch are one native function and the update is
    another; between them the gradients are summed over all processes.

    Attributes
    ----------
    model : Layer
    loss : Loss
    optimizer : Optimizer
        A `DistributedOptimizer`.
    """

    def __init__(
        self,
        model: nn.Layer,
        loss: nn.Layer,
        optimizer: nn.Optimizer,
        max_grad_norm: float | None,
        native: bool,
    ) -> None:
        super().__init__(model, loss, native)
        self.optimizer = optimizer
        self._max_norm = max_grad_norm
        self._update = CompiledUpdate(optimizer, native)

    @property
    def source(self) -> str:
        """The source of the latest call's functions."""
        return f"{super().source}\n\n{self._update.source}"

    def __call__(self, inputs: Any = (), target: Any = None, sample_weight: Any = None) -> float:
        """Make a step, and return the loss of the whole batch before it.

        Afterwards the gradients of the parameters are those of this step, and the running
        statistics of layers such as `BatchNorm1d` are averaged over the processes. An error of one
        process is raised in all.

        Parameters
        ----------
        inputs, target, sample_weight
            As for `Gradients`, this process's part of the batch. Without arguments, the whole batch
            is in the parts of others.
        """
        given = [array for array in (inputs, target, sample_weight) if array is not None]
        is_empty = isinstance(inputs, tuple) and not inputs
        program: Program | None = None

        def compute() -> tuple[float, float]:
            nonlocal program
            part = as_batch(() if is_empty else tuple(given), self.loss)
            if part.weight:
                program, loss, _ = self._computed(as_batch_of(self, *given))
                return part.weight, loss
            if part.inputs:  # no target counts; the running statistics do
                with no_grad():
                    self.model(*part.inputs)
            return 0.0, 0.0

        processes = self.optimizer.processes
        weights, values = zip(*processes.call(compute), strict=True)
        total = sum(weights)
        if not total:
            raise ValueError("compile: no target of this batch counts, in any process")
        scales = [weight / total if averages(self.loss) else 1.0 for weight in weights]
        self.optimizer.zero_grad()
        if program is not None:
            program.accumulate(scales[processes.rank])
        self.optimizer.synchronize()
        if self._max_norm is not None:
            clip_grad_norm(self.optimizer.parameters(), self._max_norm)
        self._update()
        processes.average(list(self.model.buffers()))
        return float(sum(scale * value for scale, value in zip(scales, values, strict=True)))


def _as_inputs(model: nn.Layer, inputs: Any, by_keyword: dict[str, Any]) -> Batch:
    """Return the arguments of a model as a batch; by position, where that is possible."""
    if by_keyword or any(value is None for value in inputs):
        parameters = inspect.signature(model.forward)
        try:
            bound = parameters.bind(*inputs, **by_keyword)
        except TypeError:
            with evaluating():
                model(*inputs, **by_keyword)  # its error names the layer
            raise
        for name, value in list(bound.arguments.items()):
            if value is None or value is parameters.parameters[name].default:
                del bound.arguments[name]
        inputs, by_keyword = bound.args, bound.kwargs
    given = [*inputs, *by_keyword.values()]
    return _of_arrays(Batch(given, len(given), tuple(by_keyword)), model)


def as_batch_of(compiled: Gradients, inputs: Any, *others: Any) -> Batch:
    """Return the arguments of a call, of which some of the `others` may be None, as a batch."""
    given = inputs if isinstance(inputs, tuple) else (inputs,)
    values = [*given, *[value for value in others if value is not None]]
    return _of_arrays(Batch(values, len(given)), compiled.model, compiled.loss)


def _of_arrays(batch: Batch, model: nn.Layer, loss: nn.Layer | None = None) -> Batch:
    """Return a batch whose values may be anything as one of arrays."""
    try:
        for value in batch.arrays:
            check_is_array(value, "compile")
        return batch._replace(arrays=[*map(np.asarray, batch.arrays)])
    except (TypeError, ValueError):
        _check(batch, model, loss)
        raise


def _check(batch: Batch, model: nn.Layer, loss: nn.Layer | None = None) -> Made:
    """Let the uncompiled model, and the loss, raise the error that they have for this batch.

    Otherwise, return the shapes of the outputs of each layer, by the layer's id. Twins compute
    them, so caches and attributes of the model and the loss stay as they are.
    """
    twin, judge = model.tied(), None if loss is None else loss.tied()
    made: dict[int, list[Any]] = {}
    for layer, other in zip(model.layers(), twin.layers(), strict=True):
        forward = other.forward
        recorded = functools.partial(_recorded, forward, made.setdefault(id(layer), []))
        vars(other)["forward"] = functools.wraps(forward)(recorded)
    try:
        with no_grad(), _unchanged(model, loss):
            prediction = twin(*batch.arrays[: batch.positional], **batch.by_keyword)
            if judge is not None:
                getattr(judge, "of_outputs", judge)(prediction, *batch.arrays[batch.inputs :])
    except Exception as error:
        hand_over(error, twin, model)
        raise
    finally:
        for other in twin.layers():
            vars(other).pop("forward", None)  # which ends a cycle of references
    return made


def _recorded(forward: Callable[..., Any], found: list[Any], *inputs: Any, **options: Any) -> Any:
    """Call `forward`, and append the shapes of its outputs to `found`."""
    output = forward(*inputs, **options)
    found.append(shapes_of(output))
    return output


@contextlib.contextmanager
def _unchanged(*owners: nn.Layer | None) -> Iterator[None]:
    """Context after which the buffers and the random generators are as they were before."""
    models = [owner for owner in owners if owner is not None]
    buffers = [(buffer, buffer.copy()) for model in models for buffer in model.buffers()]
    parts = [layer for model in models for layer in model.layers()]
    try:
        with unmoved(generators_of_layers(parts)):
            yield
    finally:
        for buffer, before in buffers:
            buffer[...] = before
