"""Programs: a source for inputs of certain shapes, with the arrays that its functions work on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

import nnlite as nn

from ..engine.arrays import FLOATS, Array
from .native import Native, Plain
from .optimizers import Update
from .source import BATCH, Code, FixedBatchError, Shape, Value, carried, function, header, used


class Batch(NamedTuple):
    """The arguments of a call of a compiled object, as arrays."""

    inputs: tuple[Array, ...]
    target: Array | None = None
    sample_weight: Array | None = None

    def named(self) -> dict[str, Array]:
        """Return the arrays by their names in the source."""
        names = ["x"] if len(self.inputs) == 1 else [f"x{i}" for i in range(len(self.inputs))]
        arrays = dict(zip(names, self.inputs, strict=True))
        if self.target is not None:
            arrays["target"] = self.target
        if self.sample_weight is not None:
            arrays["sample_weight"] = self.sample_weight
        return arrays


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
        self._bound: dict[str, Any] = {}
        self._flags = [(p, p.requires_grad) for p in (*code.trained.values(), *code.frozen)]

    # ---- assembly ----

    def define(self, name: str, given: Sequence[str], lines: list[str], doc: str) -> None:
        """Add a function of these statements; of the arguments it gets those that they read."""
        given = used([*given, *self.code.per_call], lines)
        bound = used([*self.code.arrays, *self.bindings()], lines)
        self._arguments[name] = given, bound
        self._texts.append(function(name, ["n", *given, *bound], lines, doc))

    def finish(self, title: str) -> None:
        """Make the functions that were defined callable."""
        body = "\n\n".join(self._texts)
        self.source = f"{header(title, self.code.dtype, body)}\n\n{body}"
        self._run = (Native if self._native else Plain)(self.source).call

    # ---- the arrays ----

    def fits(self) -> bool:
        """Whether modes, options, dtype and frozen parameters are those of the source."""
        for layer, mode in self.code.modes:
            if layer.training is not mode:
                return False
        for options, layer, values in self.code.options:
            if options(layer) != values:
                return False
        dtype = self.code.dtype
        for parameter, flag in self._flags:
            if parameter.requires_grad is not flag or parameter.dtype != dtype:
                return False
        return True

    def bindings(self) -> dict[str, Any]:
        """Return the arrays that the functions use beside parameters and buffers: gradients."""
        return {name: np.empty_like(p.data) for name, p in self.code.trained.items()}

    def bind(self) -> None:
        """Let the functions work on the current arrays, if they are others than before."""
        bound = self._bound
        for name, get in self.code.arrays.items():
            if not bound or get() is not bound[name]:
                self._bound = self.bindings() | {
                    name: get() for name, get in self.code.arrays.items()
                }
                return

    def accumulate(self) -> None:
        """Add the gradients that a call has computed to those of the parameters."""
        for name, parameter in self.code.trained.items():
            parameter.accumulate(self._bound[name])

    # ---- calls ----

    def values(self, batch: Batch, n: int) -> dict[str, Any]:
        """Return the arguments of a call by name."""
        kinds = self.code.kinds
        values: dict[str, Any] = {}
        for name, array in batch.named().items():
            flat = np.ascontiguousarray(array, kinds[name]).reshape(-1)
            values[name] = flat if flat.flags.writeable else flat.copy()
        for name, make in self.code.per_call.items():
            values[name] = make(n)
        return values

    def call(self, name: str, n: int, values: dict[str, Any]) -> Any:
        """Call a function with what it takes of `values` and of the bound arrays."""
        given, bound = self._arguments[name]
        arrays = self._bound
        return self._run(name, n, *[values[g] for g in given], *[arrays[b] for b in bound])


class ModelProgram(Program):
    """The functions ``forward``, ``backward`` and ``backward_parameters`` of a model.

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
        given = [x.name for x in inputs]
        grads = self.grad_names = [f"grad_{i}" if i else "grad" for i in range(len(outputs))]
        input_grads = code.write_backward(outputs, grads, inputs)
        self.carried = carried(code.forward, code.backward)
        results = [y.name for y in outputs] + self.carried
        self.define(
            "forward",
            given,
            [*code.forward, *code.commits, _returned(results)],
            "Return the output, and what backward needs.",
        )
        given = [*grads, *given, *self.carried]
        lines = [*code.backward, _returned(input_grads)]
        self.define("backward", given, lines, "Return dL/d(input), for dL/d(output).")
        code, inputs, outputs = _forward(model, batch, n, free, input_grads=False)
        code.write_backward(outputs, grads, [])
        lines = code.backward or ["pass"]
        self.define("backward_parameters", given, lines, "Compute the parameters' gradients.")
        self.finish(f"Compiled {model.label}")


class LossProgram(Program):
    """The function ``gradients`` of a model with its loss, or ``step`` with an optimizer too."""

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
        if len(outputs) > 1:
            raise ValueError(
                f"compile: {loss.label} takes one output, the model has {len(outputs)}"
            )
        code.apply_loss(loss, outputs[0], *_values(code, batch, n)[len(inputs) :])
        code.write_backward([], [], [])
        self._assemble(model, loss, list(batch.named()))

    def _assemble(self, model: nn.Layer, loss: nn.Layer, given: list[str]) -> None:
        code = self.code
        lines = [*code.forward, *code.backward, *code.commits, "return loss"]
        self.define("gradients", given, lines, "Return the loss, and compute the gradients.")
        self.finish(f"Compiled {model.label} with {loss.label}")


class StepProgram(LossProgram):
    """The function ``step`` of a model, its loss and its optimizer.

    Attributes
    ----------
    update : Update
        The part of the optimizer.
    """

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
        self.optimizer = optimizer
        self._max_norm = max_norm
        self._steps: list[int] = []
        super().__init__(model, loss, batch, n, free, native)

    def _assemble(self, model: nn.Layer, loss: nn.Layer, given: list[str]) -> None:
        code = self.code
        self._gather()
        update = code.resolved("\n".join(self.update.lines))
        lines = [*code.forward, *code.backward, update, *code.commits, "return loss"]
        given = [*given, *self.update.scalars()]
        self.define("step", given, lines, "Make a training step, and return the loss before it.")
        kind = type(self.optimizer).__name__
        self.finish(f"Compiled step of {model.label} with {loss.label} and {kind}")

    def _gather(self) -> None:
        """Make a gradient for each parameter, and write the update of all that have one."""
        self.optimizer.zero_grad()
        for parameter in self.code.trained.values():
            parameter.accumulate(np.zeros_like(parameter.data))
        self.update = Update(self.optimizer, self.optimizer.runs(), self._max_norm)
        self._steps = self.optimizer.step_counts()

    def fits(self) -> bool:
        return super().fits() and self.update.fits()

    def bindings(self) -> dict[str, Any]:
        grads = {name: parameter.grad for name, parameter in self.code.trained.items()}
        return grads | self.update.arrays

    def bind(self) -> None:
        bound = self._bound
        for name, parameter in self.code.trained.items():
            if not bound or parameter.grad is not bound[name]:
                return self._bind_anew()
        if self.optimizer.step_counts() != self._steps:
            return self._bind_anew()
        return super().bind()

    def _bind_anew(self) -> None:
        lines = self.update.lines
        self._gather()
        if self.update.lines != lines:
            raise _OutdatedError
        self._bound = {}
        super().bind()

    def advance(self) -> None:
        """Let the optimizer count the step."""
        self.optimizer.advance()
        self.update.advance(self.optimizer)
        self._steps = self.optimizer.step_counts()


class _OutdatedError(Exception):
    """Parameters have moved apart: the optimizer's flat arrays are in other pieces."""


class Programs:
    """The programs of a compiled object, by the dtypes and shapes of what it is called with."""

    def __init__(self, build: Callable[[Batch, int, bool], Program]) -> None:
        self._build = build
        self._programs: dict[Any, list[Program]] = {}
        self._fixed: set[Any] = set()
        self.source = ""

    def __reduce__(self) -> tuple[Any, ...]:
        return Programs, (self._build,)  # a copy is of another model, and builds its own

    def find(self, batch: Batch) -> tuple[Any, int]:
        """Return the program for this batch, bound to the current arrays, and the batch size."""
        arrays = batch.named().values()
        n = next((len(array) for array in arrays if array.ndim), 0)
        key: Any = (
            len(batch.inputs),
            *[(array.dtype.char, _free(array.shape, n)) for array in arrays],
        )
        if key in self._fixed:
            key = n, key
        for program in self._programs.get(key, ()):
            if program.fits():
                try:
                    program.bind()
                except _OutdatedError:
                    self._programs[key].remove(program)
                    break
                self.source = program.source
                return program, n
        try:
            program = self._build(batch, n, key not in self._fixed and n > 0)
        except FixedBatchError:
            self._fixed.add(key)
            key = n, key
            program = self._build(batch, n, False)
        program.bind()
        self._programs.setdefault(key, []).append(program)
        self.source = program.source
        return program, n


def _free(shape: tuple[int, ...], n: int) -> Shape:
    """Return the shape, with the batch size by its name."""
    return (BATCH, *shape[1:]) if shape[:1] == (n,) else shape


def _dtype_of(model: nn.Layer, batch: Batch) -> np.dtype[Any]:
    """Return the dtype of all floats of a program: that of the parameters, if there are any."""
    dtypes = {parameter.dtype for parameter in model.parameters()}
    if len(dtypes) > 1:
        raise TypeError("compile: the parameters are of several dtypes; use model.astype")
    if dtypes:
        return dtypes.pop()
    floats = [array.dtype.itemsize for array in batch.inputs if array.dtype.kind == "f"]
    return FLOATS[bool(floats) and min(floats) >= 8]


def _values(code: Code, batch: Batch, n: int) -> list[Value]:
    """Return what a call is given as values of the source."""
    values = []
    for name, array in batch.named().items():
        integers = np.dtype(np.int64)
        code.kinds[name] = {"i": integers, "u": integers, "b": array.dtype}.get(
            array.dtype.kind, code.dtype
        )
        values.append(Value(name, _free(array.shape, n) if code.n_is_free else array.shape))
    return values


def _forward(
    model: nn.Layer, batch: Batch, n: int, free: bool, input_grads: bool
) -> tuple[Code, list[Value], list[Value]]:
    """Write the forward of a model; return the code, the inputs and the outputs."""
    code = Code(_dtype_of(model, batch), free)
    inputs = _values(code, Batch(batch.inputs), n)
    if input_grads:
        inputs = [Value(x.name, x.shape, needs_grad=code.kinds[x.name].kind == "f") for x in inputs]
    output = code.apply(model, "", *inputs)
    return code, inputs, list(output) if isinstance(output, tuple) else [output]


def _returned(names: list[str]) -> str:
    return f"return {', '.join(names)}," if names else "pass"
