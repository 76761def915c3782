"""Programs: a source for inputs of certain shapes, with the arrays that its functions work on."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..changes import changes
from ..engine.arrays import Array
from ..modes import current
from ..parameter import Parameter
from .native import functions_of, interruption_of
from .parts import in_parts
from .pruning import pruned
from .source import (
    BATCH,
    Code,
    FixedBatchError,
    Shape,
    Value,
    function,
    header,
    used,
)

_ndarray = np.ndarray


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


class Rooms(dict[tuple[Parameter, int], Array]):
    """Arrays for the gradients of parameters, which all programs of a compiled object share.

    Their values are valid until the next call of any of these programs. A parameter has several, by
    number, where a batch is divided.
    """

    def of(self, trained: Mapping[str, Parameter], number: int = 0) -> dict[str, Array]:
        """Return an array for each of these parameters, by the names that they have."""
        return {name: self._of(parameter, number) for name, parameter in trained.items()}

    def _of(self, parameter: Parameter, number: int) -> Array:
        room, data = self.get((parameter, number)), parameter.data
        if room is None or room.shape != data.shape or room.dtype != data.dtype:
            room = self[parameter, number] = np.empty_like(data)
        return room


class OutdatedError(Exception):
    """The source is of other arrays than those that there are now: of other dtypes or pieces."""


class Program:
    """The functions of one source, and the arrays of the model that they work on.

    Attributes
    ----------
    code : Code
        The statements and names that the source is assembled from.
    source : str
    rooms : Rooms
        For the gradients.
    """

    def __init__(self, code: Code, native: bool) -> None:
        self.code = code
        self.source = ""
        self.rooms = Rooms()
        self._native = native
        self._texts: list[str] = []
        # Of each function: the names of what a call gives it, and of the arrays that are bound;
        # and what picks that from the values of a call, or None if it takes all.
        self._arguments: dict[str, tuple[list[str], list[str]]] = {}
        self._taken: dict[str, Callable[[Any], Sequence[Any]] | None] = {}
        self._attributes: object = object()  # of `changes`, when `fits` was true
        self._evaluates: bool | None = None
        self._arrays = Watch([])
        self._kinds: list[Any] | None = None  # of the arrays that are bound
        self._gradients: dict[str, Any] = {}
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

        A call has the arrays of the names `given`, and then `numbers`.
        """
        text = pruned("\n".join(lines))
        taken = used(dict.fromkeys(given), [text])
        bound = used(self.bound_names(), [text])
        self._arguments[name] = taken, bound
        self._taken[name] = None if taken == list(given) else _picker(map([*given].index, taken))
        arguments = ["n", *taken, *numbers, *bound]
        parts, text = in_parts(name, arguments, text)
        self._texts += [*parts, function(name, arguments, [text], doc)]

    def finish(self, title: str) -> None:
        """Make the functions that were defined callable."""
        self._options = Watch(self.code.options)
        body = "\n\n".join(self._texts)
        self.source = f"{header(title, self.code.dtype, body)}\n\n{body}"
        # Arrays are of the types that they had in the first call. Values that are made in each call
        # may be of any type.
        checks = bool(self.code.per_call)
        self._functions = functions_of(self.source, self._native, checks)

    # ---- the arrays ----

    def is_current(self, evaluates: bool | None) -> bool:
        """Whether nothing can have changed since `fits` was true: a quick test.

        `evaluates` is whether all layers are in evaluation mode now, or None: where some were put
        into training, `fits` has to look.
        """
        return (
            changes.attributes is self._attributes
            and evaluates is self._evaluates
            and evaluates is not None
        )

    def suits(self, n: int) -> bool:
        """Whether the functions compute n samples well: those of few may not divide many."""
        return True

    def fits(self) -> bool:
        """Whether modes, options, sub-layers and (frozen) parameters are those of the source.

        The functions then work on the current arrays.

        Raises
        ------
        OutdatedError
            If the source does not fit the arrays.
        """
        attributes, evaluates = changes.attributes, current.evaluates
        if not self._options.are_equal():
            return False
        if attributes is not self._attributes and not self.code.has_same_parts():
            return False
        self.bind()
        self._attributes, self._evaluates = attributes, evaluates
        return True

    def bindings(self) -> dict[str, Any]:
        """Return the arrays that the functions use beside parameters and buffers: gradients."""
        return self.rooms.of(self.code.trained)

    def bound_names(self) -> list[str]:
        """Return the names of the arrays that a function may be bound to."""
        return [*self.code.arrays, *self.bindings()]

    def bind(self) -> None:
        """Let the functions work on the current arrays, if they are others than before."""
        if not self._arrays.are_same():
            self.bind_anew()

    def bind_anew(self) -> None:
        """Let the functions work on the current arrays."""
        gradients = self.bindings()
        watch = Watch([(owner, name, getattr(owner, name)) for owner, name in self.places()])
        arrays = {name: getattr(*place) for name, place in self.code.arrays.items()} | gradients
        kinds = [_kind_of(array) for array in arrays.values()]
        if self._kinds is None:
            self._kinds = kinds
        if self._kinds != kinds:
            raise OutdatedError
        self._bound = {
            function: tuple(arrays[name] for name in bound)
            for function, (_, bound) in self._arguments.items()
        }
        # At the end, because another thread may look at it.
        self._gradients, self._arrays = gradients, watch

    def places(self) -> list[tuple[Any, str]]:
        """Return owners and attributes of the arrays that must stay the same between two calls."""
        return list(self.code.arrays.values())

    def accumulate(self, scale: float = 1.0) -> None:
        """Add the gradients that a call has computed, times `scale`, to those of the parameters."""
        for name, parameter in self.code.trained.items():
            grad = self._gradients[name]
            parameter.accumulate(grad if scale == 1 else grad * self.code.dtype.type(scale))

    # ---- calls ----

    @property
    def names(self) -> list[str]:
        """The names of the values of a call."""
        return [*self.code.kinds, *self.code.per_call]

    def values(self, arrays: Sequence[Array], n: int) -> list[Any]:
        """Return the values of a call with these arrays."""
        kinds = self.code.kinds.values()
        values = [flat(array, dtype) for array, dtype in zip(arrays, kinds, strict=True)]
        return [*values, *self.drawn(n)]

    def drawn(self, n: int) -> list[Any]:
        """Return the values of a call that are not given: random numbers and states."""
        return [make(n) for make in self.code.per_call.values()]

    def call(
        self,
        name: str,
        n: int,
        values: Sequence[Any],
        numbers: Sequence[float] = (),
        bound: Sequence[Array] | None = None,
    ) -> Any:
        """Call a function with what it takes of `values`, and `numbers`; return its results.

        It works on the arrays `bound`, by default those of the model.
        """
        pick = self._taken[name]
        if pick is not None:
            values = pick(values)
        arrays = self._bound[name] if bound is None else bound
        try:
            return self._functions[name](n, *values, *numbers, *arrays)
        except SystemError as error:
            raise interruption_of(error) from None


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


class Latest(NamedTuple):
    """The latest call of a compiled object.

    Attributes
    ----------
    inputs : int
        The number of inputs; -1 if some of them were given by keyword.
    given : list of (dtype, tuple, dtype)
        The dtype and the shape of each array, and the dtype that machine code takes.
    program : Program
    n : int
        The batch size.
    """

    inputs: int
    given: list[tuple[np.dtype[Any], tuple[int, ...], np.dtype[Any]]]
    program: Any
    n: int


class Programs:
    """The programs of a compiled object, by the dtypes and shapes of what it is called with."""

    def __init__(self, build: Callable[[Batch, int, bool], Program]) -> None:
        self._build = build
        self._programs: dict[Any, list[Program]] = {}
        self._fixed: set[Any] = set()
        self._rooms = Rooms()
        # It is replaced as a whole, because several threads may call at the same time.
        self._latest = Latest(-1, [], None, 0)

    def __reduce__(self) -> tuple[Any, ...]:
        return Programs, (self._build,)  # a copy is of another model, and builds its own

    @property
    def source(self) -> str:
        """The source of the program that was found last."""
        return self.latest.source if self.latest else ""

    @property
    def latest(self) -> Any:
        """The program that was found last, or None."""
        return self._latest.program

    def find(self, batch: Batch) -> tuple[Any, int]:
        """Return the program for this batch, bound to the current arrays, and the batch size."""
        given = [(array.dtype, array.shape) for array in batch.arrays]
        key, n = _kind((batch.inputs, batch.keywords), *given)
        if key in self._fixed or n == 0:  # an empty batch is refused while its source is written
            key = n, key
        programs = self._programs.setdefault(key, [])
        program = self._fitting(programs, n) or self._built(batch, n, key)
        taken = [(*one, kind) for one, kind in zip(given, program.code.kinds.values(), strict=True)]
        self._latest = Latest(-1 if batch.keywords else batch.inputs, taken, program, n)
        return program, n

    def prepare(self, batch: Batch) -> tuple[Any, int, list[Any]]:
        """Return the program for this batch, the batch size, and the values of the call."""
        found = None
        if not batch.keywords:
            found = self.again(batch.inputs, batch.arrays, current.evaluates)
        if found is None:
            program, n = self.find(batch)
            found = program, n, program.values(batch.arrays, n)
        return found

    def again(
        self, inputs: int, arrays: Sequence[Any], evaluates: bool | None
    ) -> tuple[Any, int, list[Any]] | None:
        """Return what `prepare` returns if this call is like the latest one; otherwise None.

        It is like it with arrays of the same dtypes and shapes, and if nothing has changed since.
        The first arrays are the `inputs`, none given by keyword; for `evaluates` see
        `Program.is_current`.
        """
        latest_inputs, given, program, n = self._latest
        if inputs != latest_inputs or len(arrays) != len(given):
            return None
        values = []
        for array, (dtype, shape, taken) in zip(arrays, given):  # noqa: B905 - quicker
            if type(array) is not _ndarray or array.dtype is not dtype or array.shape != shape:
                return None
            if dtype is taken and array.flags.carray:
                values.append(array if len(shape) == 1 else array.ravel())
            else:
                values.append(flat(array, taken))
        if not program.is_current(evaluates):
            return None
        if program.code.per_call:
            values += program.drawn(n)
        return program, n, values

    def _fitting(self, programs: list[Program], n: int) -> Program | None:
        suitable = [program for program in programs if program.suits(n)]
        for program in suitable:
            if program.is_current(current.evaluates):
                return program
        for program in suitable:
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
        program.rooms = self._rooms
        program.bind_anew()
        self._programs.setdefault(key, []).append(program)
        return program


def _picker(places: Iterable[int]) -> Callable[[Any], Sequence[Any]]:
    """Return a function that picks the elements at these places of a sequence."""
    chosen = [*places]
    if len(chosen) > 1:
        return operator.itemgetter(*chosen)
    return lambda values: [values[place] for place in chosen]


@functools.lru_cache
def _kind(inputs: Any, *arrays: tuple[np.dtype[Any], tuple[int, ...]]) -> tuple[Any, int]:
    """Return what the programs of batches have in common, and the size of this one."""
    n = next((shape[0] for _, shape in arrays if shape), 0)
    return (inputs, *[(dtype, _free(shape, n)) for dtype, shape in arrays]), n


def _free(shape: tuple[int, ...], n: int) -> Shape:
    """Return the shape, with the batch size by its name."""
    return (BATCH, *shape[1:]) if shape[:1] == (n,) else shape


def flat(array: Array, dtype: np.dtype[Any]) -> Array:
    """Return the array with one axis, as machine code takes it: contiguous and writable."""
    if array.dtype is dtype and array.flags.carray:
        return array if array.ndim == 1 else array.ravel()
    line = np.ascontiguousarray(array, dtype).ravel()
    return line if line.flags.writeable else line.copy()


def _kind_of(array: Array) -> tuple[Any, ...]:
    """Return what the source and its machine code depend on in an array."""
    flags = array.flags
    order = flags.c_contiguous, flags.f_contiguous
    return array.dtype, array.shape, order, flags.aligned, flags.writeable


def call_values(code: Code, batch: Batch, n: int) -> list[Value]:
    """Return what a call is given as values of the source."""
    values = []
    kinds = {"i": np.dtype(np.int64), "u": np.dtype(np.int64), "b": np.dtype(np.bool_)}
    for name, array in zip(batch.names, batch.arrays, strict=True):
        code.kinds[name] = kinds.get(array.dtype.kind, code.dtype)
        values.append(Value(name, _free(array.shape, n) if code.n_is_free else array.shape))
    return values


def returned(names: list[str]) -> list[str]:
    """Return the statement that returns a tuple of variables, if there are any."""
    return [f"return {', '.join(names)},"] if names else []
