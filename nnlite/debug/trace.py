"""Trace a model: the value and the gradient at every layer."""

from __future__ import annotations

import copy
import functools
import math
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..checks import number
from ..layer import Layer
from ..parameter import Parameter
from ..tables import Table
from .isolation import (
    input_names,
    intercept,
    isolated_copy,
    leaves,
    map_leaves,
    match_inputs,
    package_generator_kept,
)
from .replay import Replay

if TYPE_CHECKING:
    from ..web.document import Document


@dataclass(eq=False, repr=False)
class TraceEntry:
    """The value and the gradient at one place in a model.

    Attributes
    ----------
    name : str
        The dotted name of the layer or parameter; or ``input``, ``output`` or ``loss``.
    label : str
        The layer as it prints, or ``Parameter``.
    sources : tuple of str
        The names of the entries that are inputs of the layer or loss.
    value : ndarray, float, or tuple of them
        The input, output of the layer, parameter or loss; None for a layer that was not called.
    grad : ndarray, float, or tuple of them
        The derivative of the loss with respect to `value`; None if backward gave none.
    """

    name: str
    label: str = ""
    value: Any = None
    grad: Any = None
    sources: tuple[str, ...] = ()

    @property
    def shape(self) -> Any:
        """The shape of the value; of a tuple, the shapes; None if there is no value."""
        return None if self.value is None else map_leaves(np.shape, self.value)

    def __repr__(self) -> str:
        return f"TraceEntry({self._title}, shape={self.shape})"

    @property
    def _title(self) -> str:
        return f"{self.name} ({self.label})" if self.label else self.name


class Problem(NamedTuple):
    """A problem in a model, at the place where it begins.

    Attributes
    ----------
    kind : {"not finite", "dead", "exploding", "vanishing", "no gradient"}
    name : str
        The name of the `TraceEntry` at which it begins.
    message : str
        A description in one sentence.
    """

    kind: str
    name: str
    message: str

    def __str__(self) -> str:
        return self.message


class Trace(Mapping[str, TraceEntry]):
    """Values and gradients at every layer of a model: a mapping of names to `TraceEntry`.

    Entries are the inputs, the layers in the order in which their forward ended, each followed by
    its parameters, and the loss. The whole model is ``output``. Printed, it is a table.

    Attributes
    ----------
    inputs : tuple of TraceEntry
        The inputs: also under ``input``, or ``input[0]`` and so on, or the names in a `Graph`.
    output : TraceEntry
        The output: also under ``output``, or ``the output`` if a layer has that name.
    loss : TraceEntry or None
        The loss, if one was given: also under ``loss``, or ``the loss`` if a layer has that name.
    error : Exception or None
        The exception that ended the run after values that were not finite.
    """

    def __init__(self, label: str, run: Run, replay: Replay) -> None:
        self.inputs = tuple(run.inputs)
        self.output = run.output.entry
        self.loss = run.loss
        self.error = run.error
        self._label = label
        self._run = run
        self._replay = replay
        self._entries = {entry.name: entry for entry in run.entries()}

    def __getitem__(self, name: str) -> TraceEntry:
        try:
            return self._entries[name]
        except KeyError:
            listed = ", ".join(map(repr, self._entries))
            raise KeyError(f"nothing here is called {name!r}; there are {listed}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def problems(self, exploding: float = 1e3, vanishing: float = 1e-6) -> list[Problem]:
        """Return the problems in the model: those of forward first, then those of backward.

        Each is listed where it begins; layers that only pass it on are left out.

        Parameters
        ----------
        exploding, vanishing : float
            The factors by which the root mean square of a gradient may exceed, or fall below, that
            of the gradient of the output.

        Returns
        -------
        list of Problem
            - "not finite": an input, a parameter or a gradient with NaN or inf, or a layer that
              makes NaN or inf of finite values, in forward or backward;
            - "dead": a layer that gets a gradient but returns only zeros, or whose parameter
              gets only zeros;
            - "exploding", "vanishing": a layer that returns a gradient beyond the factor;
            - "no gradient": a parameter without a gradient after its layer's backward.
        """
        exploding = number(exploding, "problems: exploding", minimum=1)
        vanishing = number(vanishing, "problems: vanishing", minimum=0, maximum=1)
        forward = list(self._run.forward_problems())
        return forward + list(self._run.backward_problems(exploding, vanishing))

    def to_html(
        self, path: str | os.PathLike[str] | None = None, *, title: str | None = None
    ) -> Document:
        """Return a web page that steps through forward and backward, and write it to a file.

        The page is self-contained. The arrow keys and a slider go from step to step: the formula,
        the values and the gradients of a layer, as numbers or as heat maps, with histograms; beside
        each derivative stands its finite difference, computed in float64. Layers at which
        `problems` finds that something begins are marked.

        Parameters
        ----------
        path : str or path-like, optional
            The file, which is replaced in one step.
        title : str, optional
            The heading.

        Returns
        -------
        Document
            The page. A notebook shows it; ``save(path)`` writes it.

        Raises
        ------
        OSError
            If the file cannot be written.

        Notes
        -----
        Large arrays are cut, and the page says where; statistics and histograms are those of the
        whole arrays. Of each array, finite differences are computed for up to 64 elements, and for
        fewer in large models.
        """
        from .steps import steps

        document = steps(self, self._run, self._replay, title or f"{self._label}, step by step")
        if path is not None:
            document.save(path)
        return document

    def _table(self) -> Table:
        notes = [problem.message for problem in self.problems()]
        if self.error is not None:
            notes.append(f"it ended there with {type(self.error).__name__}: {self.error}")
        return Table(
            ("name", "layer", "shape", "min", "max", "norm", "grad norm"),
            [_cells(entry) for entry in self._run.entries(shown=True)],
            numeric=("min", "max", "norm", "grad norm"),
            title=f"trace of {self._label}",
            notes=[f"! {note}" for note in notes],
        )

    def __repr__(self) -> str:
        return str(self._table())

    def _repr_html_(self) -> str:
        from ..diagrams import picture

        table = self._table().to_html()
        drawn = picture(self._replay.model, self)  # None for a large model
        return f"{drawn}\n{table}" if drawn else table


def trace(
    model: Layer,
    *inputs: Any,
    loss: Layer | None = None,
    target: Any = None,
    grad: Any = None,
    options: Mapping[str, Any] | None = None,
) -> Trace:
    """Run a model forward and backward, and record the value and the gradient at every layer.

    It runs a copy in the model's dtype and mode: the model, its caches, gradients and buffers, the
    inputs, and the package's generator are left unchanged.

    Parameters
    ----------
    model : Layer
        Any layer or model.
    *inputs : array_like, or tuple of array_like
        The inputs of `forward`.
    loss : Layer, optional
        The gradients are those of ``loss(output, target)``.
    target : object, optional
        The second argument of `loss`. Without it, `loss` is called with the output alone.
    grad : ndarray, or tuple of ndarray, optional
        The gradient of the output, in place of a loss. With neither, it is ones: the gradient of
        the sum of the outputs.
    options : mapping, optional
        Keyword arguments of `forward`.

    Returns
    -------
    Trace
        A mapping of names to entries with ``value`` and ``grad``, and a table when printed. Its
        method `problems` says where NaN, inf, a dead or an exploding gradient first appears.

    Raises
    ------
    TypeError
        If `model` or `loss` is not a layer, or if there is a target without a loss.
    ValueError
        If both `loss` and `grad` are given. Errors of the model are passed on, except after a
        value that is not finite: then the trace ends there, with the exception as ``error``.

    Notes
    -----
    With layers y_k = f_k(y_{k-1}) and the loss L, the entry of layer k has::

        value = y_k        grad = dL/dy_k

    The norm in the table is the root of the sum of squares. The table leaves out containers whose
    output is that of a sub-layer. Of a layer called more than once, the last call is recorded.
    NumPy's warnings of overflow and the like are silenced, since `problems` tells more.

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> model = nn.Sequential(nn.Linear(2, 2, rng=0), nn.ReLU())
    >>> model[0].weight.data[...] = [[1, 2], [3, 4]]
    >>> model[0].bias.data[...] = [0, -9]
    >>> t = nn.trace(model, np.ones((1, 2), dtype=np.float32))
    >>> t
    trace of Sequential
    name      layer         shape   min  max   norm  grad norm
    input                   (1, 2)    1    1  1.414      2.236
    0         Linear(2, 2)  (1, 2)   -2    3  3.606          1
    0.weight  Parameter     (2, 2)    1    4  5.477      1.414
    0.bias    Parameter     (2,)     -9    0      9          1
    1         ReLU()        (1, 2)    0    3      3      1.414
    >>> t["0"].value, t["0"].grad
    (array([[ 3., -2.]], dtype=float32), array([[1., 0.]], dtype=float32))

    Where a NaN comes from:

    >>> model = nn.Sequential(nn.Tanh(), nn.Log(), nn.Linear(2, 2))
    >>> t = nn.trace(model, np.array([[1.0, -1.0]], dtype=np.float32))
    >>> print(t.problems()[0])
    1 (Log()) makes 1 NaN of finite values
    """
    for what, layer in (("model", model), ("loss", loss)):
        if not (isinstance(layer, Layer) or (what == "loss" and layer is None)):
            got = f"the class {layer.__name__}" if isinstance(layer, type) else type(layer).__name__
            raise TypeError(f"trace: expected a layer for the {what}, got {got}")
    if loss is None and target is not None:
        raise TypeError("trace: a target needs a loss that it is the target of")
    if loss is not None and grad is not None:
        raise ValueError("trace: give a loss or the gradient of the output, not both")
    options = dict(options or {})
    replay = Replay(model, inputs, options, loss, target, grad)
    run = Run(model, inputs)
    with package_generator_kept(), np.errstate(all="ignore"):
        run.go(loss, target, grad, options)
    return Trace(model.label, run, replay)


# ---- the run ----


class _Magnitude(NamedTuple):
    """The root mean square of some arrays, and whether all elements are finite."""

    rms: float
    finite: bool


@dataclass(eq=False)
class _Step:
    """A layer with its recorded values and gradients."""

    entry: TraceEntry
    parameters: list[tuple[TraceEntry, Parameter]]
    # Of the names of its sub-layers; None for the outermost layer, which contains all.
    prefix: str | None
    has_layers: bool
    kind: type[Layer]
    has_finite_inputs: bool = True
    is_repeated: bool = False
    returned: _Magnitude | None = None

    def contains(self, name: str) -> bool:
        return self.prefix is None or name.startswith(self.prefix)


class Run:
    """One forward and backward of a copy of the model, whose layers record values and gradients."""

    def __init__(self, model: Layer, inputs: tuple[Any, ...]) -> None:
        self.model = isolated_copy(model)
        self.given = map_leaves(_copied, inputs)
        self.inputs = [
            TraceEntry(name, value=None if leaf is None else np.asarray(leaf))
            for name, leaf in zip(input_names(model, inputs), leaves(self.given), strict=True)
        ]
        self.loss: TraceEntry | None = None
        self.loss_class: type[Layer] | None = None
        self.error: Exception | None = None
        self._forward: list[_Step] = []
        self._backward: list[_Step] = []
        self._outputs: list[Any] = []
        # Each value so far, with the name of the entry at which it first appeared.
        self._met = list(
            zip(leaves(self.given), (entry.name for entry in self.inputs), strict=True)
        )

        parameters = {id(p): name for name, p in self.model.named_parameters()}
        layers = list(self.model.named_layers())
        self._taken = {entry.name for entry in self.inputs}
        self._taken.update(parameters.values(), (name for name, _ in layers))
        self._steps: dict[int, _Step] = {}
        for name, layer in layers:
            if id(layer) in self._steps:
                continue
            own = [
                (TraceEntry(parameters.pop(id(p)), "Parameter"), p)
                for p in layer.parameters(recurse=False)
                if id(p) in parameters
            ]
            step = _Step(
                TraceEntry(name or self._free("output"), layer.label),
                own,
                f"{name}." if name else None,
                has_layers=any(True for _ in layer.named_children()),
                kind=type(layer),
            )
            self._steps[id(layer)] = step
            intercept(layer, "forward", functools.partial(self._report_forward, step))
            intercept(layer, "backward", functools.partial(self._report_backward, step))
        self.output = self._steps[id(self.model)]

    def _free(self, name: str) -> str:
        return f"the {name}" if name in self._taken else name

    def _report_forward(
        self, step: _Step, forward: Callable[..., Any], *inputs: Any, **options: Any
    ) -> Any:
        step.has_finite_inputs = _is_finite(inputs)
        step.entry.sources = self._names_of(inputs)
        output = forward(*inputs, **options)
        self._met += [(leaf, step.entry.name) for leaf in leaves(output)]
        step.entry.value = map_leaves(_copied, output)
        step.is_repeated = any(output is other for other in self._outputs)
        self._outputs.append(output)
        _put_last(self._forward, step)
        return output

    def _names_of(self, values: Any) -> tuple[str, ...]:
        """Return the names of the entries at which these values first appeared."""
        names = []
        for leaf in leaves(values):
            same = (name for value, name in self._met if value is leaf)
            equal = (name for value, name in reversed(self._met) if _is_equal(value, leaf))
            names += [name for name in (next(same, None) or next(equal, None),) if name]
        return tuple(dict.fromkeys(names))

    def _report_backward(
        self, step: _Step, backward: Callable[..., Any], *arguments: Any, **options: Any
    ) -> Any:
        grad = arguments[0] if arguments else options.get("grad")
        step.entry.grad = map_leaves(_copied, grad)
        returned = backward(*arguments, **options)
        step.returned = _measured(returned)
        _put_last(self._backward, step)
        return returned

    def go(self, loss: Layer | None, target: Any, grad: Any, options: dict[str, Any]) -> None:
        """Run forward and backward, and fill the entries."""
        try:
            output = self.model(*self.given, **copy.deepcopy(options))
            if loss is not None:
                grad = self._gradient_of(loss, output, target)
            elif grad is None:
                grad = map_leaves(_ones, output)
            returned = self.model.backward(grad)
            found = match_inputs(returned, self.given) or [None] * len(self.inputs)
            for entry, gradient in zip(self.inputs, found, strict=True):
                entry.grad = _copied(gradient)
        except Exception as error:
            if all(_is_finite((entry.value, entry.grad)) for entry in self.entries()):
                raise
            self.error = error
        finally:
            for step in self._steps.values():
                for entry, parameter in step.parameters:
                    entry.value, entry.grad = parameter.data, parameter.grad
            # Only the entries are kept: the copy, with all its caches, can go.
            del self.model, self.given, self._outputs, self._met

    def _gradient_of(self, loss: Layer, output: Any, target: Any) -> Any:
        self.loss, self.loss_class = TraceEntry(self._free("loss"), loss.label), type(loss)
        judge = isolated_copy(loss)
        self.loss.sources = self._names_of(output)
        arguments = (output,) if target is None else (output, copy.deepcopy(target))
        self.loss.value = map_leaves(_copied, judge(*arguments))
        backward: Any = judge.backward
        return backward()

    def entries(self, shown: bool = False) -> Iterator[TraceEntry]:
        """Yield all entries in order, or those that the table shows."""
        yield from self.inputs
        uncalled = [step for step in self._steps.values() if step not in self._forward]
        for step in self._forward + uncalled:
            called = step.entry.value is not None
            if not (shown and step.has_layers and (step.is_repeated or not called)):
                yield step.entry
            for entry, _ in step.parameters:
                yield entry
        if self.loss is not None:
            yield self.loss

    def steps(self) -> list[tuple[TraceEntry, list[TraceEntry], type[Layer]]]:
        """Return the layers in the order of forward, each with its parameters and its class.

        A container whose output is that of a layer in it is left out.
        """
        return [
            (step.entry, [entry for entry, _ in step.parameters], step.kind)
            for step in self._forward
            if not (step.has_layers and step.is_repeated)
        ]

    # ---- what goes wrong ----

    def forward_problems(self) -> Iterator[Problem]:
        """Yield the inputs, parameters and layers at which NaN or inf begins."""
        for entry in self.inputs:
            if not _is_finite(entry.value):
                yield Problem("not finite", entry.name, f"{entry.name} has {_bad(entry.value)}")
        blamed: list[str] = []
        for step in self._forward:
            for entry, _ in step.parameters:
                if not _is_finite(entry.value):
                    blamed.append(entry.name)
                    yield Problem("not finite", entry.name, f"{entry.name} has {_bad(entry.value)}")
            value = step.entry.value
            if _is_finite(value) or not step.has_finite_inputs or any(map(step.contains, blamed)):
                continue
            blamed.append(step.entry.name)
            yield _made_of_finite_values(step.entry)
        if self.loss and _is_finite(self.output.entry.value) and not _is_finite(self.loss.value):
            yield _made_of_finite_values(self.loss)

    def backward_problems(self, exploding: float, vanishing: float) -> Iterator[Problem]:
        """Yield the layers and parameters at which a problem of backward begins."""
        start = _measured(self.output.entry.grad)
        if start is None:
            return
        output = self.output.entry
        if not start.finite:
            message = f"the gradient of {output._title} has {_bad(output.grad)}"
            yield Problem("not finite", output.name, message)
        elif start.rms == 0:
            yield Problem("dead", output.name, f"the gradient of {output._title} is all zeros")
        blamed: list[Problem] = []
        for step in self._backward:
            received = _measured(step.entry.grad)
            if received is None or not received.finite:
                continue
            yield from _parameter_problems(step, received)
            found = _layer_problem(step, received, start.rms, exploding, vanishing)
            # A problem in a container belongs to the sub-layer that has it.
            if found and not any(p.kind == found.kind and step.contains(p.name) for p in blamed):
                blamed.append(found)
                yield found


def _made_of_finite_values(entry: TraceEntry) -> Problem:
    message = f"{entry._title} makes {_bad(entry.value)} of finite values"
    return Problem("not finite", entry.name, message)


def _parameter_problems(step: _Step, received: _Magnitude) -> Iterator[Problem]:
    for entry, parameter in step.parameters:
        name = entry.name
        if not parameter.requires_grad:
            continue
        size = _measured(entry.grad)
        if size is None:
            yield Problem("no gradient", name, f"{name} gets no gradient")
        elif not size.finite:
            yield Problem("not finite", name, f"the gradient of {name} has {_bad(entry.grad)}")
        elif size.rms == 0 and received.rms > 0:
            yield Problem("dead", name, f"the gradient of {name} is all zeros")


def _layer_problem(
    step: _Step, received: _Magnitude, start: float, exploding: float, vanishing: float
) -> Problem | None:
    returned, name, title = step.returned, step.entry.name, step.entry._title
    if returned is None:
        return None
    if not returned.finite:
        return Problem("not finite", name, f"{title} passes back NaN or inf for a finite gradient")
    if returned.rms == 0 and received.rms > 0:
        message = f"{title} passes back all zeros, so that nothing below it learns"
        return Problem("dead", name, message)
    kind = ""
    if received.rms <= exploding * start < returned.rms:
        kind = "exploding"
    elif received.rms >= vanishing * start > returned.rms:
        kind = "vanishing"
    if not kind:
        return None
    factor = returned.rms / start
    message = f"{title} passes back a gradient that is {factor:.3g} times that of the output"
    return Problem(kind, name, message)


def _put_last(steps: list[_Step], step: _Step) -> None:
    if step in steps:
        steps.remove(step)
    steps.append(step)


def _copied(value: Any) -> Any:
    return np.array(value) if isinstance(value, np.ndarray) else copy.deepcopy(value)


def _is_equal(value: Any, other: Any) -> bool:
    if isinstance(value, np.ndarray) and value.shape != np.shape(other):
        return False
    return bool(np.array_equal(value, other))


def _ones(output: Any) -> Any:
    return 1.0 if isinstance(output, float) else np.ones_like(output)


def _numbers(values: Any) -> list[Any]:
    """Return the leaves that are numbers, as arrays."""
    found = [np.asarray(leaf) for leaf in leaves(values) if leaf is not None]
    return [array for array in found if array.dtype.kind in "biuf" and array.size]


def _is_finite(values: Any) -> bool:
    return all(np.isfinite(array).all() for array in _numbers(values))


def _measured(values: Any) -> _Magnitude | None:
    arrays = _numbers(values)
    if not arrays:
        return None
    count = sum(array.size for array in arrays)
    return _Magnitude(_norm(arrays) / math.sqrt(count), _is_finite(values))


def _norm(arrays: list[Any]) -> float:
    norms = [float(np.linalg.norm(array.astype(np.float64, copy=False))) for array in arrays]
    return math.hypot(*norms)


def _bad(values: Any) -> str:
    arrays = _numbers(values)
    counts = {
        "NaN": sum(int(np.isnan(array).sum()) for array in arrays),
        "inf": sum(int(np.isinf(array).sum()) for array in arrays),
    }
    return " and ".join(f"{count} {what}" for what, count in counts.items() if count)


def _cells(entry: TraceEntry) -> tuple[str, ...]:
    arrays = _numbers(entry.value)
    grads = _numbers(entry.grad)
    shape = "none" if entry.value is None else str(entry.shape)
    numbers = ["", "", ""]
    if arrays:
        low, high = min(a.min() for a in arrays), max(a.max() for a in arrays)
        numbers = [f"{value:.4g}" for value in (low, high, _norm(arrays))]
    return (entry.name, entry.label, shape, *numbers, f"{_norm(grads):.4g}" if grads else "")
