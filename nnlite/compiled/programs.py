"""Programs: a source for inputs of certain shapes, with the arrays that its functions work on."""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

import nnlite as nn

from ..changes import changes
from ..engine import threads
from ..engine.arrays import FLOATS, Array
from ..modes import current
from .native import functions_of
from .optimizers import Update
from .source import (
    BATCH,
    Code,
    FixedBatchError,
    Shape,
    Sums,
    Value,
    carried,
    fixed,
    function,
    handed_on,
    header,
    stages,
    used,
)
from .split import bounds_of_parts, is_separable, samples_to_divide


class Batch(NamedTuple):
    """The arguments of a call of a compiled object, as arrays.

    Attributes
    ----------
    arrays : sequence of ndarray
        The inputs, the target and the sample weights, as far as they are given.
    inputs : int
        The number of inputs.
    keywords : tuple of str
        The names of the last inputs, as far as the model is given them by keyword.
    """

    arrays: Sequence[Array]
    inputs: int
    keywords: tuple[str, ...] = ()

    @property
    def positional(self) -> int:
        """The number of inputs that are not given by keyword."""
        return self.inputs - len(self.keywords)

    @property
    def by_keyword(self) -> dict[str, Array]:
        """The inputs that are given by keyword."""
        return dict(zip(self.keywords, self.arrays[self.positional :], strict=False))

    @property
    def names(self) -> list[str]:
        """The names of the arrays in the source."""
        inputs = ["x"] if self.positional == 1 else [f"x{i}" for i in range(self.positional)]
        others = ("target", "sample_weight")[: len(self.arrays) - self.inputs]
        return [*inputs, *[f"x_{name}" for name in self.keywords], *others]


class OutdatedError(Exception):
    """The source is of other arrays than those that there are now: of other dtypes or pieces."""


class Program:
    """The functions of one source, and the arrays of the model that they work on.

    Attributes
    ----------
    code : Code
        The statements and names that the source is assembled from.
    source : str
    """

    def __init__(self, code: Code, native: bool) -> None:
        self.code = code
        self.source = ""
        self._native = native
        self._texts: list[str] = []
        # Of each function: the names of what a call gives it, and of the arrays that are bound.
        self._arguments: dict[str, tuple[list[str], list[str]]] = {}
        self._attributes: object = object()  # of `changes`, when `fits` was true
        self._evaluates: bool | None = None
        self._arrays = Watch([])
        self._gradients: dict[str, Any] = {}
        self._compiled: set[str] = set()  # the functions that threads have called
        self._bound: dict[str, tuple[Any, ...]] = {}

    # ---- assembly ----

    def define(
        self,
        name: str,
        given: Sequence[str],
        lines: list[str],
        doc: str,
        numbers: Sequence[str] = (),
    ) -> None:
        """Add a function of these statements; of the arguments it gets those that they read.

        A call gives it the arrays of the names `given`, and then `numbers`.
        """
        given = used([*given, *self.code.per_call], lines)
        bound = used([*self.code.arrays, *self.bindings()], lines)
        self._arguments[name] = given, bound
        self._texts.append(function(name, ["n", *given, *numbers, *bound], lines, doc))

    def finish(self, title: str) -> None:
        """Make the functions that were defined callable."""
        self._options = Watch(self.code.options)
        self._kinds = self._kinds_of_arrays()
        body = "\n\n".join(self._texts)
        self.source = f"{header(title, self.code.dtype, body)}\n\n{body}"
        self._run = functions_of(self.source, self._native).call

    # ---- the arrays ----

    def is_current(self) -> bool:
        """Whether nothing can have changed since `fits` was true: a quick test."""
        # Where single layers are in another mode than the others, `fits` has to look.
        return (
            changes.attributes is self._attributes
            and current.evaluates is self._evaluates
            and self._evaluates is not None
        )

    def fits(self) -> bool:
        """Whether modes, options, frozen parameters and sub-layers are those of the source.

        The functions then work on the current arrays.

        Raises
        ------
        OutdatedError
            If the source does not fit the arrays.
        """
        attributes, evaluates = changes.attributes, current.evaluates
        if not self._options.are_equal():
            return False
        if attributes is not self._attributes and not self.code.has_same_layers():
            return False
        self.bind()
        self._attributes, self._evaluates = attributes, evaluates
        return True

    def bindings(self) -> dict[str, Any]:
        """Return the arrays that the functions use beside parameters and buffers: gradients."""
        return {name: np.empty_like(p.data) for name, p in self.code.trained.items()}

    def bind(self) -> None:
        """Let the functions work on the current arrays, if they are others than before."""
        if not self._arrays.are_same():
            self.bind_anew()

    def bind_anew(self) -> None:
        """Let the functions work on the current arrays."""
        if self._kinds_of_arrays() != self._kinds:
            raise OutdatedError
        self._gradients = self.bindings()
        self._arrays = Watch([(owner, name, getattr(owner, name)) for owner, name in self.places()])
        arrays = {name: getattr(*place) for name, place in self.code.arrays.items()}
        arrays |= self._gradients
        self._bound = {
            function: tuple(arrays[name] for name in bound)
            for function, (_, bound) in self._arguments.items()
        }

    def _kinds_of_arrays(self) -> list[Any]:
        """Return what machine code depends on in parameters and buffers, beside their shapes."""
        arrays = [getattr(*place) for place in self.code.arrays.values()]
        return [(array.dtype, array.flags.carray) for array in arrays]

    def places(self) -> list[tuple[Any, str]]:
        """Return owners and attributes of the arrays that must stay the same between two calls."""
        return list(self.code.arrays.values())

    def accumulate(self, scale: float = 1.0) -> None:
        """Add the gradients that a call has computed, times `scale`, to those of the parameters."""
        for name, parameter in self.code.trained.items():
            grad = self._gradients[name]
            parameter.accumulate(grad if scale == 1 else grad * self.code.dtype.type(scale))

    # ---- calls ----

    def values(self, batch: Batch, n: int) -> dict[str, Any]:
        """Return the arguments of a call by name."""
        values: dict[str, Any] = {}
        for array, (name, dtype) in zip(batch.arrays, self.code.kinds.items(), strict=True):
            is_ready = array.dtype is dtype and array.flags.carray
            values[name] = array.ravel() if is_ready else _flat(array, dtype)
        for name, make in self.code.per_call.items():
            values[name] = make(n)
        return values

    def call(self, name: str, n: int, values: dict[str, Any], numbers: Sequence[float] = ()) -> Any:
        """Call a function with what it takes of `values`, with `numbers`, and the bound arrays."""
        given = [values[name] for name in self._arguments[name][0]]
        return self._run(name, n, *given, *numbers, *self._bound[name])

    def _run_parts(self, name: str, calls: Sequence[Callable[[], object]]) -> None:
        """Make calls of a function for parts of a batch, each in a thread."""
        if name in self._compiled:
            threads.run(calls)
            return
        for call in calls:  # one thread compiles for all
            call()
        self._compiled.add(name)

    def _of_samples(self, array: Array, name: str, n: int, start: int, stop: int) -> Array:
        """Return the part of some of n samples of an argument, all of it if they share it."""
        code = self.code
        if name in code.per_call and name not in code.divided:
            return array
        size = len(array) // n
        return array[start * size : stop * size]


class Watch:
    """Attributes of objects, and the values that they had: a quick test for changes."""

    def __init__(self, entries: Iterable[tuple[Any, str, Any]]) -> None:
        entries = list(entries)
        self._owners = [owner for owner, _, _ in entries]
        self._names = [name for _, name, _ in entries]
        self._values = [value for _, _, value in entries]

    def are_equal(self) -> bool:
        """Whether all attributes are equal to what they were; arrays, whether in their shapes."""
        values = map(getattr, self._owners, self._names)
        return all(map(_are_equal, values, self._values))

    def are_same(self) -> bool:
        """Whether all attributes are the same objects."""
        return all(map(operator.is_, map(getattr, self._owners, self._names), self._values))


def _are_equal(one: Any, other: Any) -> bool:
    if type(one) is not type(other):
        return False
    return bool(one.shape == other.shape if isinstance(one, np.ndarray) else one == other)


class ModelProgram(Program):
    """The functions ``predict``, ``forward``, ``backward`` and ``backward_parameters`` of a model.

    Attributes
    ----------
    inputs, outputs : list of Value
    carried : list of str
        What ``forward`` returns behind the outputs, for ``backward``.
    """

    def __init__(self, model: nn.Layer, batch: Batch, n: int, free: bool, native: bool) -> None:
        code, inputs, outputs = _forward(model, batch, n, free, input_grads=True)
        super().__init__(code, native)
        self.inputs, self.outputs = inputs, outputs
        given = batch.names
        grads = self.grad_names = [f"grad_{i}" if i else "grad" for i in range(len(outputs))]
        input_grads = code.write_backward(outputs, grads, inputs)
        self.carried = carried(code.forward, code.backward)
        results = [y.name for y in outputs]
        lines = [*code.forward, *code.commits]
        self.define("predict", given, [*lines, _returned(results)], "Return the output.")
        has_sums = any(isinstance(line, Sums) for line in code.forward)
        can_split = not has_sums and is_separable(code, [*inputs, *outputs], model)
        self._divided_from = samples_to_divide(code) if can_split else math.inf
        results += self.carried
        doc = "Return the output, and what backward needs."
        self.define("forward", given, [*lines, _returned(results)], doc)
        given = [*grads, *given, *self.carried]
        lines = [*code.backward, _returned(input_grads)]
        self.define("backward", given, lines, "Return dL/d(input), for dL/d(output).")
        code, inputs, outputs = _forward(model, batch, n, free, input_grads=False)
        code.write_backward(outputs, grads, [])
        lines = code.backward or ["pass"]
        self.define("backward_parameters", given, lines, "Compute the parameters' gradients.")
        self.finish(f"Compiled {model.label}")

    def predict(self, values: dict[str, Any], n: int) -> Sequence[Array]:
        """Return the outputs; threads compute parts of a large batch."""
        if n < self._divided_from:
            return self.call("predict", n, values)
        bounds = bounds_of_parts(self.code, n, False)
        results: list[Any] = [None] * len(bounds)

        def compute(part: int) -> None:
            start, stop = bounds[part]
            rows = {name: self._of_samples(a, name, n, start, stop) for name, a in values.items()}
            results[part] = self.call("predict", stop - start, rows)

        self._run_parts(
            "predict", [functools.partial(compute, part) for part in range(len(bounds))]
        )
        return [np.concatenate(parts) for parts in zip(*results, strict=True)]


_ADDITION = """\
for i in range(total.size):
    total[i] = real(factor) * total[i] + real(weight) * part[i]"""


class LossProgram(Program):
    """The function ``gradients`` of a model with its loss."""

    def __init__(
        self,
        model: nn.Layer,
        loss: nn.Layer,
        batch: Batch,
        n: int,
        free: bool,
        native: bool,
    ) -> None:
        code, inputs, outputs = _forward(model, batch, n, free, input_grads=False)
        super().__init__(code, native)
        self.outputs = outputs
        others = _values(code, batch, n)[len(inputs) :]
        code.apply_loss(loss, *outputs, *others)
        self._can_split = is_separable(code, [*inputs, *others, *outputs], model, loss)
        # Where layers need sums over the batch, the function ends there, and another goes on.
        self._meets = any(isinstance(line, Sums) for line in code.forward)
        if self._meets:
            self._can_split = self._meets = len(self.bounds(n)) > 1
        code.write_backward([], [], [], of_part=self._meets)
        self._averages = bool(code.divisor)
        # Of each thread but the first: its gradients by name.
        self._gradients_of_parts: list[dict[str, Array]] = []
        self._assemble(model, loss, [*inputs, *others])

    def _assemble(self, model: nn.Layer, loss: nn.Layer, given: Sequence[Value]) -> None:
        self._define_gradients(given)
        self.finish(f"Compiled {model.label} with {loss.label}")

    def _define_gradients(self, given: Sequence[Value]) -> None:
        code = self.code
        outputs = [y.name for y in self.outputs]
        end = f"return {', '.join(['loss', f'float({code.divisor or 1})', *outputs])}"
        parts = [[*code.forward, *code.backward, *code.commits]]
        commits: list[str] = []
        self._sums: list[tuple[str, ...]] = []
        if self._meets:
            parts, self._sums = stages([*code.forward, *code.backward])
            commits = code.commits
        # The functions of the stages, and the names of what they return.
        self._stages: list[tuple[str, list[str]]] = []
        known = [x.name for x in given]
        for index, lines in enumerate(parts):
            if index < len(parts) - 1:
                after = [line for part in parts[index + 1 :] for line in part]
                handed = results = handed_on(lines, [*after, end, *commits])
                name, returned = f"gradients_{index}", _returned(handed)
                doc = "Return what the functions after this one need."
            else:
                handed = handed_on(lines, commits)
                results = ["loss", "divisor", *self._output_names, *handed]
                name, returned = "gradients", ", ".join([end, *handed])
                doc = "Compute the gradients; return the loss, its divisor and the outputs."
            self.define(name, known, [*lines, returned], doc)
            self._stages.append((name, results))
            known = list(dict.fromkeys([*known, *handed]))
        if commits:
            self.define("commit", known, commits, "Change the buffers.")
        if self._can_split:
            doc = "Add the gradients of a part of the batch to those of others."
            arguments = ["total", "factor", "part", "weight"]
            self._texts.append(function("add", arguments, [_ADDITION], doc))

    def bind_anew(self) -> None:
        super().bind_anew()
        self._gradients_of_parts = []

    def bounds(self, n: int) -> list[tuple[int, int]]:
        """Return the bounds of the parts that threads compute of a batch of n samples."""
        return bounds_of_parts(self.code, n, True) if self._can_split else [(0, n)]

    def compute(self, batch: Batch, n: int) -> tuple[float, Any]:
        """Compute the gradients, for `accumulate`; return the loss and the output, or outputs."""
        loss, output = self._computed(batch, n)
        self._commit(n)
        return loss, output

    def _computed(self, batch: Batch, n: int) -> tuple[float, Any]:
        """Compute the gradients; what is divided leaves the buffers to `_commit`."""
        values, bounds = self.values(batch, n), self.bounds(n)
        if len(bounds) > 1:
            try:
                return self._compute_parts(values, n, bounds)
            except ValueError:  # labels of a part may all be ignored, where those of all are not
                pass
        if self._meets:
            return self._compute_parts(values, n, [(0, n)])
        loss, _, *outputs = self.call("gradients", n, values)
        return float(loss), self._shaped(outputs, n)

    @property
    def _output_names(self) -> list[str]:
        """What the outputs are called beside the values of a call."""
        return [f"output_{index}" for index in range(len(self.outputs))]

    def _shaped(self, flat: Sequence[Array], n: int) -> Any:
        """Return the output of n samples, or the tuple of several."""
        arrays = [y.reshape(fixed(of.shape, n)) for y, of in zip(flat, self.outputs, strict=True)]
        return arrays[0] if len(arrays) == 1 else tuple(arrays)

    def _commit(self, n: int) -> None:
        """Change the buffers, by what was computed last."""
        if self._meets and self.code.commits:
            self.call("commit", n, self._parts[0])

    def _compute_parts(
        self, values: dict[str, Any], n: int, bounds: list[tuple[int, int]]
    ) -> tuple[float, Any]:
        """Let each thread compute the gradients of a part, and add them."""
        while len(self._gradients_of_parts) < len(bounds) - 1:
            self._gradients_of_parts.append(super().bindings())
        # The variables of each part, by name.
        parts = self._parts = [
            {name: self._of_samples(a, name, n, *part) for name, a in values.items()}
            for part in bounds
        ]
        for stage in range(len(self._stages)):
            calls = [
                functools.partial(self._compute_part, stage, part, stop - start)
                for part, (start, stop) in enumerate(bounds)
            ]
            self._run_parts(self._stages[stage][0], calls)
            for name in self._sums[stage] if stage < len(self._sums) else ():
                total = functools.reduce(np.add, [part[name] for part in parts])
                for part in parts:
                    part[name][...] = total
        divisors = [float(part["divisor"]) for part in parts]
        weights = [1.0] * len(parts)
        if self._averages:
            weights = [divisor / sum(divisors) for divisor in divisors]
        self._add_parts([1.0] * len(parts) if self._meets else weights)
        loss = sum(weight * part["loss"] for weight, part in zip(weights, parts, strict=True))
        outputs = [np.concatenate([part[name] for part in parts]) for name in self._output_names]
        return float(loss), self._shaped(outputs, n)

    def _compute_part(self, stage: int, part: int, n: int) -> None:
        """Call the function of a stage for a part of the batch, of n samples."""
        name, results = self._stages[stage]
        given, bound = self._arguments[name]
        variables = self._parts[part]
        gradients = self._gradients_of_parts[part - 1] if part else {}
        arrays = zip(bound, self._bound[name], strict=True)
        returned = self._run(
            name, n, *[variables[each] for each in given], *[gradients.get(b, a) for b, a in arrays]
        )
        variables.update(zip(results, returned or (), strict=True))

    def _add_parts(self, weights: list[float]) -> None:
        """Add the gradients of the other parts to those of the first."""
        for part, gradients in enumerate(self._gradients_of_parts[: len(weights) - 1], 1):
            factor = weights[0] if part == 1 else 1.0
            for name, grad in gradients.items():
                total = self._gradients[name].reshape(-1)
                self._run("add", total, factor, grad.reshape(-1), weights[part])


class StepProgram(LossProgram):
    """The function ``step`` of a model, its loss and its optimizer."""

    _keeps = False  # whether a step copies what it moves

    def __init__(
        self,
        model: nn.Layer,
        loss: nn.Layer,
        batch: Batch,
        n: int,
        free: bool,
        native: bool,
        optimizer: nn.Optimizer,
        max_norm: float | None,
    ) -> None:
        self._optimizer = optimizer
        self._max_norm = max_norm
        super().__init__(model, loss, batch, n, free, native)

    def _assemble(self, model: nn.Layer, loss: nn.Layer, given: Sequence[Value]) -> None:
        code = self.code
        self._gather()
        update = "\n" + code.resolved("\n".join(self._update.lines))
        lines = [*code.forward, *code.backward, update, *code.commits, "return loss"]
        doc = "Make a training step, and return the loss before it."
        self.define("step", [x.name for x in given], lines, doc, self._update.names)
        kind = type(self._optimizer).__name__
        self.finish(f"Compiled step of {model.label} with {loss.label} and {kind}")

    def _gather(self) -> None:
        """Make a gradient for each parameter, and write the update of all that have one."""
        self._optimizer.zero_grad()
        for parameter in self.code.trained.values():
            parameter.accumulate(np.zeros_like(parameter.data))
        runs = self._optimizer.runs()
        self._update = Update(self._optimizer, runs, self._max_norm, self._keeps)

    def is_current(self) -> bool:
        return (
            super().is_current()
            and changes.gradients is self._seen_gradients
            and not self._update.is_overtaken()
            and self._update.fits()
        )

    def fits(self) -> bool:
        self._seen_gradients = changes.gradients
        return self._update.fits() and super().fits()

    def bindings(self) -> dict[str, Any]:
        grads = {name: parameter.grad for name, parameter in self.code.trained.items()}
        return grads | self._update.arrays

    def places(self) -> list[tuple[Any, str]]:
        return [*super().places(), *((p, "grad") for p in self.code.trained.values())]

    def bind(self) -> None:
        if not self._arrays.are_same() or self._update.is_overtaken():
            lines = self._update.lines
            self._gather()
            if self._update.lines != lines:  # the optimizer's flat arrays are in other pieces
                raise OutdatedError
            self.bind_anew()

    @property
    def kept(self) -> list[tuple[Array, Array]]:
        """The arrays that a step moves, each with a copy of what it was before the last step."""
        return self._update.kept

    def can_loop(self) -> bool:
        """Whether steps can be made one after the other, without what `fit` does between them."""
        moved = {id(parameter) for parameter in self._optimizer.parameters()}
        (output, *others) = self.outputs
        is_one = not others and output.shape[:1] == (BATCH,)
        return is_one and all(id(parameter) in moved for parameter in self.code.trained.values())

    def numbers(self, ahead: int) -> list[float] | None:
        """Return the numbers of the step after `ahead` others, with the options as they are now.

        None if the source is of other options.
        """
        return self._update.numbers(ahead) if self._update.fits() else None

    def step(self, batch: Batch, n: int) -> float:
        """Make a step; return the loss before it."""
        loss = self.call("step", n, self.values(batch, n), self._update.numbers())
        self._update.advance()
        return float(loss)


class DividedStepProgram(StepProgram):
    """A step whose gradients are computed by several threads, each for a part of the batch.

    The function ``gradients`` computes them, and ``update`` moves the parameters.
    """

    def _assemble(self, model: nn.Layer, loss: nn.Layer, given: Sequence[Value]) -> None:
        self._gather()
        self._define_gradients(given)
        update = self.code.resolved("\n".join(self._update.lines))
        lines = [*self._update.checks, update, "return True"]
        doc = "Move the parameters, and return True; or False if a gradient is not finite."
        self.define(
            "update", [], lines, doc if self._keeps else "Move the parameters.", self._update.names
        )
        kind = type(self._optimizer).__name__
        self.finish(f"Compiled step of {model.label} with {loss.label} and {kind}")

    def step(self, batch: Batch, n: int) -> float:
        loss, _ = self._computed(batch, n)
        self.call("update", n, {}, self._update.numbers())
        self._commit(n)
        self._update.advance()
        return loss


class Programs:
    """The programs of a compiled object, by the dtypes and shapes of what it is called with."""

    def __init__(self, build: Callable[[Batch, int, bool], Program]) -> None:
        self._build = build
        self._programs: dict[Any, list[Program]] = {}
        self._fixed: set[Any] = set()
        # The description of the latest batch, its program and its size. They are set together,
        # because several threads may call at the same time.
        self._latest: tuple[Any, Any, int] = None, None, 0

    def __reduce__(self) -> tuple[Any, ...]:
        return Programs, (self._build,)  # a copy is of another model, and builds its own

    @property
    def source(self) -> str:
        """The source of the program that was found last."""
        return self.latest.source if self.latest else ""

    @property
    def latest(self) -> Any:
        """The program that was found last, or None."""
        return self._latest[1]

    def find(self, batch: Batch) -> tuple[Any, int]:
        """Return the program for this batch, bound to the current arrays, and the batch size."""
        given = [
            (batch.inputs, batch.keywords),
            *[(array.dtype, array.shape) for array in batch.arrays],
        ]
        before, program, n = self._latest
        if given == before and program.is_current():
            return program, n
        key, n = _kind(*given)
        if key in self._fixed:
            key = n, key
        programs = self._programs.setdefault(key, [])
        program = self._fitting(programs) or self._built(batch, n, key)
        self._latest = given, program, n
        return program, n

    def _fitting(self, programs: list[Program]) -> Program | None:
        for program in programs:
            if program.is_current():
                return program
        for program in programs.copy():
            try:
                if program.fits():
                    return program
            except OutdatedError:  # noqa: PERF203 - there are hardly ever more than two
                programs.remove(program)
        return None

    def _built(self, batch: Batch, n: int, key: Any) -> Program:
        try:
            program = self._build(batch, n, key not in self._fixed and n > 0)
        except FixedBatchError:
            self._fixed.add(key)
            key = n, key
            program = self._build(batch, n, False)
        program.bind_anew()
        self._programs.setdefault(key, []).append(program)
        return program


@functools.lru_cache
def _kind(inputs: Any, *arrays: tuple[np.dtype[Any], tuple[int, ...]]) -> tuple[Any, int]:
    """Return what the programs of batches have in common, and the size of this one."""
    n = next((shape[0] for _, shape in arrays if shape), 0)
    return (inputs, *[(dtype, _free(shape, n)) for dtype, shape in arrays]), n


def _free(shape: tuple[int, ...], n: int) -> Shape:
    """Return the shape, with the batch size by its name."""
    return (BATCH, *shape[1:]) if shape[:1] == (n,) else shape


def _flat(array: Array, dtype: np.dtype[Any]) -> Array:
    """Return the array with one axis, as machine code takes it: contiguous and writable."""
    flat = np.ascontiguousarray(array, dtype).ravel()
    return flat if flat.flags.writeable else flat.copy()


def _dtype_of(model: nn.Layer, batch: Batch) -> np.dtype[Any]:
    """Return the dtype of all floats of a program: that of the parameters, if there are any."""
    dtypes = {parameter.dtype for parameter in model.parameters()}
    if len(dtypes) > 1:
        raise TypeError("compile: the parameters are of several dtypes; use model.astype")
    if dtypes:
        return dtypes.pop()
    floats = [array.dtype.itemsize for array in batch.arrays if array.dtype.kind == "f"]
    return FLOATS[bool(floats) and min(floats) >= 8]


def _values(code: Code, batch: Batch, n: int) -> list[Value]:
    """Return what a call is given as values of the source."""
    values = []
    kinds = {"i": np.dtype(np.int64), "u": np.dtype(np.int64), "b": np.dtype(np.bool_)}
    for name, array in zip(batch.names, batch.arrays, strict=True):
        code.kinds[name] = kinds.get(array.dtype.kind, code.dtype)
        values.append(Value(name, _free(array.shape, n) if code.n_is_free else array.shape))
    return values


def _forward(
    model: nn.Layer, batch: Batch, n: int, free: bool, input_grads: bool
) -> tuple[Code, list[Value], list[Value]]:
    """Write the forward of a model; return the code, the inputs and the outputs."""
    code = Code(_dtype_of(model, batch), free)
    given = batch._replace(arrays=batch.arrays[: batch.inputs])
    values = _values(code, given, n)
    inputs, others = values[: batch.positional], values[batch.positional :]
    if input_grads:
        inputs = [Value(x.name, x.shape, needs_grad=code.kinds[x.name].kind == "f") for x in inputs]
    by_keyword = dict(zip(batch.keywords, others, strict=True))
    output = code.apply(model, "", *inputs, **by_keyword)
    return code, inputs, list(output) if isinstance(output, tuple) else [output]


def _returned(names: list[str]) -> str:
    return f"return {', '.join(names)}," if names else "pass"
