"""Assembling the source of a compiled model.

Every value of the model is a flat array of the source, in C order, one sample after the other; a
`Value` knows its name and its shape. So elementwise layers are one loop, and `Flatten` and
`Reshape` are no code at all. The batch size is the variable ``n`` of the source.
"""

from __future__ import annotations

import ast
import builtins
import contextlib
import functools
import inspect
import math
import re
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import nnlite as nn

from ..engine.arrays import Array
from ..parameter import Parameter
from .forms import backward_of, form_of, methods_of, place_in_model
from .routines import functions
from .routines.table import ROUTINES

Size = int | str  # a number, `BATCH`, or a product of both
Shape = tuple[Size, ...]
Made = Mapping[int, Sequence[Any]]  # by the id of a layer, the shapes of each of its outputs

_HEADER = '''\
"""{title}."""

import math

import numpy as np
{functions}
real = np.{dtype}
'''

# Names that `Code` gives carry this mark within a statement; variables of the statement itself do
# not, so the two cannot clash.
_MARK = "__"
_WORD = re.compile(rf"(?<![\w.])({_MARK})?([A-Za-z]\w*)")
_CODE_OR_TEXT = re.compile(r"[^'#]+|'[^'\n]*'|#[^\n]*|'")
# Arguments of the functions, and what their module defines.
_RESERVED = re.compile(
    r"n|x\d*|x_\w*[^\W_]|target|sample_weight|grad(_\d+)?|group\d+_\w*[^\W_]|loss|real|np|math|view|part|"
    + "|".join((*functions.NAMES, *ROUTINES))
)


class Name(str):
    """A name of the source that no variable of a statement clashes with."""

    def __format__(self, spec: str) -> str:
        return _MARK + str(self)


BATCH = Name("n")
"""The batch size."""


def product(sizes: Shape) -> str:
    """Return the product of sizes as text: ``product((3, 4))`` is "12"."""
    number = 1
    names = []
    for size in sizes:
        if isinstance(size, int):
            number *= size
        else:
            names.append(f"{size}")
    return " * ".join([*names, str(number)] if number != 1 or not names else names)


def nest(sizes: dict[str, Size], body: str) -> str:
    """Return nested loops, over the variables of `sizes`, around the statements `body`."""
    text = textwrap.dedent(body).strip("\n")
    for variable, size in reversed(sizes.items()):
        text = f"for {variable} in range({size}):\n{textwrap.indent(text, '    ')}"
    return text


def elements(formula: str, **arrays: Value) -> str:
    """Return a formula with element i of each array in place of its name."""
    return re.sub(
        r"\b\w+\b", lambda word: f"{arrays[word[0]]}[i]" if word[0] in arrays else word[0], formula
    )


def largest(size: Size, element: Callable[[str], str]) -> str:
    """Return statements that compute ``top``, the largest ``element(j)``: NaN if there is one."""
    return f"""
        last = key({element("0")})
        for j in range({size}):
            last = max(last, key({element("j")}))
        top = of_key(last)
    """


def joined(*parts: str) -> str:
    """Return the statements of all parts, one after the other."""
    return "\n".join(textwrap.dedent(part).strip("\n") for part in parts if part)


@functools.lru_cache(1024)
def fixed(shape: Shape, n: int) -> tuple[int, ...]:
    """Return the shape for the batch size `n`."""
    return tuple(size if isinstance(size, int) else _number(size, n) for size in shape)


def shapes_of(output: Any, shape_of: Callable[[Any], Any] = np.shape) -> Any:
    """Return the shape of an output, or a tuple of the shapes of several."""
    is_one = not isinstance(output, tuple)
    return shape_of(output) if is_one else tuple(shapes_of(part, shape_of) for part in output)


def _number(size: str, n: int) -> int:
    factors = f"{size}".split(" * ")
    return math.prod(n if factor == f"{BATCH}" else int(factor) for factor in factors)


@dataclass(frozen=True)
class Value:
    """An array of the source.

    Attributes
    ----------
    name : str
    shape : tuple
        Of ints, and `BATCH` for the batch size. The array itself is flat, unless it is a parameter.
    needs_grad : bool
        Whether the gradient with respect to it is computed.
    """

    name: str
    shape: Shape
    needs_grad: bool = False

    def __str__(self) -> str:
        return _MARK + self.name

    @property
    def size(self) -> str:
        """The number of elements, as text."""
        return product(self.shape)

    def view(self, *sizes: Size) -> str:
        """Return the expression for the array with the shape `sizes`."""
        shape = ", ".join(f"{size}" for size in sizes)
        return f"{self}.reshape({shape})" if -1 in sizes else f"{_MARK}view({self}, {shape})"

    def with_shape(self, shape: Shape) -> Value:
        """Return the same array as a value of another shape."""
        return Value(self.name, shape, self.needs_grad)


class Sums(str):
    """A comment between statements: these arrays become their sums over all parts of a batch."""

    names: tuple[str, ...]

    def __new__(cls, *names: str) -> Sums:
        line = super().__new__(cls, f"# the whole batch: {', '.join(names)}")
        line.names = names
        return line


Backward = Callable[..., None]


class FixedBatchError(Exception):
    """An axis broadcasts with the batch, whose size is then part of the source."""


class Code:
    """The source while it is written, forward and then backward.

    An axis of the batch size is `BATCH`; where `n_is_free` is False there are none, and a source is
    for one batch size. `made` are the shapes that the layers have returned for `n` samples.

    A layer's form writes statements with ``code("...")`` and gets names from the methods below.
    Variables that the statements assign themselves are those of this forward, or this backward,
    alone: they are renamed where another name of the source is the same.
    """

    def __init__(
        self, dtype: np.dtype[Any], n_is_free: bool, n: int = 1, made: Made | None = None
    ) -> None:
        self.dtype = dtype
        self.n_is_free = n_is_free
        self._n = n
        self._made = made or {}
        self.forward: list[str] = []
        self.backward: list[str] = []
        self.commits: list[str] = []
        # By name: the owner and the attribute of each parameter's value and each buffer, and the
        # parameters of gradients.
        self.arrays: dict[str, tuple[Any, str]] = {}
        self.trained: dict[str, Parameter] = {}
        self.per_call: dict[str, Callable[[int], Any]] = {}
        # Those of `per_call` that have a part for each sample, and whether all values have one.
        self.divided: set[str] = set()
        self.is_by_sample = True
        # The dtype of each array that a call is given, in their order.
        self.kinds: dict[str, np.dtype[Any]] = {}
        # Modes, options and frozen parameters that the source holds for: owner, attribute, value.
        self.options: list[tuple[Any, str, Any]] = []
        # Each layer with its sub-layers, parameters and replaced methods by name.
        self._parts: list[tuple[nn.Layer, list[tuple[str, Any]]]] = []
        # The divisor of a loss that is a mean, if its form has set it.
        self.divisor = ""
        self.multiply_adds = 0  # in forward, of one sample
        self._lines = self.forward
        self._tape: list[tuple[str, tuple[Value, ...], Backward]] = []
        self._gradients: dict[str, Value] = {}
        self._parameters: dict[int, Value] = {}
        self._parameter_grads: dict[str, str] = {}
        self._users: dict[str, set[str]] = {}  # of each of these parameters: titles of layers
        self._taken: set[str] = set()
        self._variables: set[str] = set()
        self._renamed: dict[str, str] = {}
        self._path = self.label = ""
        self._needs_grad = False

    # ---- what forms call ----

    @property
    def path(self) -> str:
        """The name of the layer within the model."""
        return self._path

    def __call__(self, text: str) -> None:
        """Append statements; common indentation is removed."""
        self._lines.append(self.resolved(text))

    def name(self, stem: str) -> Name:
        """Return a name that is not taken yet, such as ``mean_3`` in the layer "3"."""
        path = re.sub(r"\W", "_", self._path)
        return self._unique(f"{stem}_{path}" if path else stem)

    def new(self, shape: Shape, stem: str = "y", kind: str = "real") -> Value:
        """Write the allocation of a new array for a value of this shape."""
        value = Value(self.name(stem), shape, self._needs_grad)
        self(f"{value} = np.empty({value.size}, {kind})")
        return value

    def parameter(self, parameter: Parameter, stem: str) -> Value:
        """Return the parameter as a value, whose array has the parameter's shape."""
        value = self._parameters.get(id(parameter))
        if value is None:
            value = Value(self.name(stem), parameter.shape, parameter.requires_grad)
            self._parameters[id(parameter)] = value
            self.arrays[value.name] = parameter, "data"
            self.options.append((parameter, "requires_grad", parameter.requires_grad))
            if parameter.requires_grad:
                grad = self._parameter_grads[value.name] = self._unique(f"d_{value.name!s}")
                self.trained[grad] = parameter
        self._users.setdefault(value.name, set()).add(self._title)
        return value

    def buffer(self, layer: nn.Layer, attribute: str, stem: str = "") -> Name:
        """Return the name of a buffer of the layer, which statements may change `at_end`."""
        name = self.name(stem or attribute)
        self.arrays[name] = layer, attribute
        return name

    def subtitle(self, text: str) -> None:
        """Append a comment: here a part of the layer, or of its backward, begins."""
        ending = ", backward" if self._lines is self.backward else ""
        self._lines.append(f"\n# {self._title}, {text}{ending}")

    @property
    def _title(self) -> str:
        """The layer with its path in the model."""
        return f"{self._path}: {self.label}" if self._path else self.label

    def constant(self, number: float) -> Value:
        """Return a scalar."""
        value = Value(self.name("constant"), ())
        self(f"{value} = np.full(1, {number!r}, real)")
        return value

    def each_call(self, stem: str, make: Callable[[int], Any], by_sample: bool = False) -> Name:
        """Return the name of an argument that is ``make(n)`` in each call.

        With `by_sample`, the samples are parts of its first axis, one after the other.
        """
        name = self.name(stem)
        self.per_call[name] = make
        if by_sample:
            self.divided.add(name)
        return name

    def argument(self, stem: str, array: Array) -> Name:
        """Return the name of an argument that is this array in each call."""
        return self.each_call(stem, lambda n: array)

    def is_training(self, layer: nn.Layer) -> bool:
        """Return whether the layer is in training mode; the source holds for this mode alone."""
        self.options.append((layer, "training", layer.training))
        return layer.training

    def fail_if(self, condition: str, message: str) -> None:
        """Write that the function ends here, with nothing changed, if the input is at fault.

        The uncompiled model is then given the same input and raises its own error; `message`, with
        the layer in front, is for what it does not find.
        """
        fault = f"{self.label}: {message}"
        self._lines.append(f"if {self.resolved(condition)}:\n    raise ValueError({fault!r})")

    def sum_over_batch(self, *names: Name) -> None:
        """Let arrays, to which each sample has added, be those of the whole batch from here on.

        Where threads compute parts of the batch, they wait here for each other.
        """
        self._lines.append(Sums(*[f"{name!s}" for name in names]))

    def at_end(self, text: str) -> None:
        """Append statements that change buffers, after all that can fail."""
        self.commits.append(self.resolved(text))

    @contextlib.contextmanager
    def gradient(self, x: Value) -> Iterator[Value]:
        """Context whose statements fill the array of dL/dx that it gives, for one use of x.

        The gradients of several uses are added.
        """
        earlier = self._gradients.get(x.name)
        is_parameter = x.name in self._parameter_grads
        if is_parameter and earlier is None:
            part = Value(self._parameter_grads[x.name], x.shape)
        else:
            part = Value(self._gradient_name(x), x.shape)
            like = f"np.empty_like({x})" if is_parameter else f"np.empty({x.size}, real)"
            self(f"{part} = {like}")
        yield part
        if earlier is None:
            self._gradients[x.name] = part
        elif is_parameter:
            self(f"{earlier} += {part}")
        else:
            self(f"{part} += {earlier}")
            self._gradients[x.name] = part

    def pass_gradient(self, x: Value, grad: Value) -> None:
        """Let the array `grad` be dL/dx for one use of x."""
        if x.name not in self._gradients:
            self._gradients[x.name] = grad
        else:
            with self.gradient(x) as dx:
                self(nest({"i": x.size}, f"{dx}[i] = {grad}[i]"))

    def tape(self, output: Any, backward: Backward) -> None:
        """Keep the function that writes the backward of a part of the layer, given dL/d(output).

        A form of several parts calls this for each of them in the order of the forward, and
        returns its output alone.
        """
        if self._needs_grad:
            outputs = output if isinstance(output, tuple) else (output,)
            self._tape.append((self._title, outputs, backward))

    def apply(self, layer: nn.Layer, path: str, *inputs: Value, **by_keyword: Value) -> Any:
        """Write the forward of a layer, and keep its backward; return its output."""
        before = self._path, self.label, self._needs_grad, self._renamed
        self._path, self.label, self._renamed = path, layer.label, {}
        self._needs_grad = layer.trainable() or any(x.needs_grad for x in inputs)
        form = form_of(layer, path)
        for name in by_keyword:
            parameters = inspect.signature(form).parameters
            takes_all = any(each.kind is each.VAR_KEYWORD for each in parameters.values())
            if name not in parameters and not takes_all:
                raise TypeError(f"compile: {layer.label} has no compiled form with {name}=")
        self._record_options(layer)
        if not any(True for _ in layer.named_children()):
            self._lines.append(f"\n# {self._title}")
        taped = len(self._tape)
        output, backward = backward_of(form(layer, self, *inputs, **by_keyword))
        outputs = output if isinstance(output, tuple) else (output,)
        self._check_form(inputs, outputs, backward is None and len(self._tape) == taped)
        self._check_shapes(layer, inputs, output)
        given, made = (tuple(fixed(x.shape, 1) for x in each) for each in (inputs, outputs))
        shape: Any = made if isinstance(output, tuple) else made[0]
        self.multiply_adds += layer.multiply_adds(given, shape)
        self.is_by_sample &= _is_by_sample([*inputs, *by_keyword.values()], outputs)
        if backward is not None:
            self.tape(output, backward)
        self._path, self.label, self._needs_grad, self._renamed = before
        return output

    def _check_form(
        self, inputs: Sequence[Value], outputs: Sequence[Any], has_no_backward: bool
    ) -> None:
        """Raise a TypeError if the form of a layer has returned something else than it should."""
        if not all(isinstance(y, Value) for y in outputs):
            raise TypeError(
                f"compile: the form of {self.label} must return its output, which code.new gives, "
                f"or the output and a function that writes the backward; got {outputs!r:.80}"
            )
        given = {x.name for x in inputs}
        if has_no_backward and any(y.needs_grad and y.name not in given for y in outputs):
            raise TypeError(
                f"compile: the form of {self.label} returns no function that writes the backward"
            )

    def _check_shapes(self, layer: nn.Layer, inputs: Sequence[Value], output: Any) -> None:
        """Raise a TypeError if the shapes that a form declares are not those of the layer.

        Machine code would read wrong elements, or beyond an array.
        """
        declared = shapes_of(output, lambda y: fixed(y.shape, self._n))
        where = place_in_model(self._path)
        # None if the layer around this one computes without its forward.
        made = self._made.get(id(layer))
        if made and declared not in made:
            raise TypeError(
                f"compile: the form of {self.label}{where} declares the shape {declared} for its "
                f"output, but forward returned {made[-1]}"
            )
        given = {x.name: fixed(x.shape, self._n) for x in inputs}
        for y in output if isinstance(output, tuple) else (output,):
            shape, new = given.get(y.name), fixed(y.shape, self._n)
            if shape is not None and math.prod(shape) != math.prod(new):
                raise TypeError(
                    f"compile: the form of {self.label}{where} returns its input of shape {shape} "
                    f"with the shape {new}; an output of another size needs code.new"
                )

    # ---- what the assembly calls ----

    def apply_loss(self, loss: nn.Layer, *given: Value) -> None:
        """Write the loss, as the variable ``loss``, of predictions, a target and weights."""
        self.label, self._needs_grad = loss.label, True
        self._renamed = {"loss": "loss"}
        self._record_options(loss)
        self._lines.append(f"\n# {loss.label}")
        backward = form_of(loss)(loss, self, *given)
        self.fail_if("not math.isfinite(loss)", "the loss is not finite")
        self._tape.append((loss.label, (), backward))

    def write_backward(
        self, outputs: list[Value], grads: list[str], inputs: list[Value], of_part: bool = False
    ) -> dict[str, Value]:
        """Write the backward of all layers, the last one first.

        The gradients of the outputs are arrays of the names `grads`. Return those of the inputs, by
        the names of the inputs that they reach. With `of_part`, they are those of the loss of the
        whole batch. Parameters of layers that no gradient reaches have none.
        """
        reached = set()
        self._lines = self.backward
        for y, grad in zip(outputs, grads, strict=True):
            self.pass_gradient(y, Value(grad, y.shape))
        for title, results, backward in reversed(self._tape):
            if results and not any(y.name in self._gradients for y in results):
                continue
            self.label, self._renamed = title, {}
            reached.add(title)
            self._lines.append(f"\n# {title}, backward")
            backward(*[self._grad_or_zeros(y) for y in results])
            if of_part and not results and self.divisor and self._gradients:
                self._scale_part()
        for name, part in self._parameter_grads.items():
            if reached.isdisjoint(self._users[name]):
                del self.trained[part]
            elif name not in self._gradients:
                self(f"{part}[:] = 0")
        return {
            x.name: Value(self._gradients[x.name].name, x.shape)
            for x in inputs
            if x.needs_grad and x.name in self._gradients
        }

    def _scale_part(self) -> None:
        """Write the factor of the loss of a part in the mean over the batch."""
        whole = self.name("whole")
        self._lines.append(f"{whole!s} = np.full(1, float({self.divisor}))")
        self.sum_over_batch(whole)
        for grad in self._gradients.values():
            factor = f"real(float({self.divisor}) / {whole!s}[0])"
            self._lines.append(nest({"i": f"{grad.name!s}.size"}, f"{grad.name!s}[i] *= {factor}"))

    def has_same_parts(self) -> bool:
        """Whether layers have the sub-layers and parameters that their forms were written for."""
        return all(_parts_of(layer) == given for layer, given in self._parts)

    def _grad_or_zeros(self, y: Value) -> Value:
        grad = self._gradients.get(y.name)
        if grad is None:
            grad = Value(self._gradient_name(y), y.shape)
            self(f"{grad} = np.zeros({y.size}, real)")
        return Value(grad.name, y.shape)

    def _gradient_name(self, x: Value) -> Name:
        return self._unique(f"d_{x.name!s}")

    def resolved(self, text: str) -> str:
        """Return statements or an expression with final names.

        Raises
        ------
        NameError
            If a variable is read that the same forward or backward has not assigned.
        """
        text = textwrap.dedent(text).strip("\n")
        try:
            nodes = ast.walk(ast.parse(text))
            starts = [node.lineno for node in nodes if isinstance(node, ast.stmt)]
            if len({*starts}) < len(starts):
                raise SyntaxError("expected one statement in each line")
            stored, loaded = names_of(text)
        except SyntaxError as error:
            raise SyntaxError(f"compile: the form of {self.label}: {error}:\n{text}") from None
        for name in stored:
            if not name.startswith(_MARK) and name not in self._renamed:
                free = name
                while free in self._taken or _RESERVED.fullmatch(free):
                    free += "_"
                self._renamed[name] = free
                self._variables.add(free)
        for name in loaded:
            is_known = name in self._renamed or name in self._taken or hasattr(builtins, name)
            if not (is_known or name.startswith(_MARK) or _RESERVED.fullmatch(name)):
                raise NameError(
                    f"compile: the form of {self.label} reads {name!r}, which it has not assigned; "
                    f"names that its backward shares with its forward are those of code.name"
                )
        return renamed(text, self._renamed)

    def _unique(self, name: str) -> Name:
        unique, count = name, 1
        while unique in self._taken or unique in self._variables or _RESERVED.fullmatch(unique):
            count += 1
            unique = f"{name}_{count}"
            if _RESERVED.fullmatch(unique):
                unique += "_"  # no reserved name ends with it
        self._taken.add(unique)
        return Name(unique)

    def _record_options(self, layer: nn.Layer) -> None:
        for name in inspect.signature(type(layer).__init__).parameters:
            value = getattr(layer, name, ...)
            if isinstance(value, (int, float, str, tuple, type(None), np.ndarray)):
                self.options.append((layer, name, value))
        self._parts.append((layer, _parts_of(layer)))


def _parts_of(layer: nn.Layer) -> list[tuple[str, Any]]:
    """Return the direct sub-layers, the own parameters and replaced methods of a layer, by name."""
    parts = [*layer.named_children(), *layer.named_parameters(recurse=False)]
    return [*parts, *methods_of(layer).items()]


def number(size: Size) -> int:
    """Return a size that has to be a number of the source.

    Raises
    ------
    FixedBatchError
        If it depends on the batch size.
    """
    if isinstance(size, str):
        raise FixedBatchError
    return size


def numbers(sizes: Shape) -> tuple[int, ...]:
    """Return sizes that have to be numbers of the source, as `number` does."""
    return tuple(map(number, sizes))


def of_one_sample(shape: Shape) -> tuple[int, ...]:
    """Return the shape for a batch of one; the other sizes have to be numbers of the source."""
    return 1, *numbers(shape[1:])


def counted_axis(dim: int, shape: Shape) -> int:
    """Return the axis `dim` counted from the first, if its size is a `number`."""
    axis = dim % len(shape)
    number(shape[axis])
    return axis


def lines_along(shape: Shape, dim: int) -> tuple[str, int, str]:
    """Return the product of the sizes before the axis `dim`, its size, and that of those behind."""
    axis = counted_axis(dim, shape)
    return product(shape[:axis]), number(shape[axis]), product(shape[axis + 1 :])


def _is_by_sample(inputs: Iterable[Value], outputs: Iterable[Value]) -> bool:
    """Whether the samples are the first axis of the outputs, if the inputs are of samples."""
    sizes = {size for x in inputs for size in x.shape}
    first = (BATCH,) if any(isinstance(size, str) for size in sizes) else ()
    return all(
        y.shape[: len(first)] == first
        and all(isinstance(size, int) for size in y.shape[len(first) :])
        for y in outputs
    )


def header(title: str, dtype: np.dtype[Any], body: str) -> str:
    """Return the first lines of a source file: imports of what `body` uses, and ``real``."""
    used = set(names_of(body)[1])
    kind = "single" if dtype == np.float32 else "double"
    imports = [f"{name}_{kind} as {name}" for name in functions.NAMES if name in used]
    imports += [name for name in ("part", "view") if name in used]
    by_module = {"functions": imports}
    for name, module in ROUTINES.items():
        if name in used:
            by_module.setdefault(module, []).append(name)
    lines = [
        f"\nfrom nnlite.compiled.routines.{module} import {', '.join(names)}"
        for module, names in by_module.items()
        if names
    ]
    functions_text = "".join([*lines, "\n"]) if lines else ""
    return _HEADER.format(title=title, functions=functions_text, dtype=dtype.name)


def function(name: str, arguments: list[str], lines: list[str], doc: str) -> str:
    """Return the text of a function."""
    body = "\n".join(lines)
    signature = ", ".join(arguments)
    if len(signature) > 80:
        signature = "\n" + textwrap.fill(signature, 96, initial_indent="    ",
                                         subsequent_indent="    ") + ",\n"  # fmt: skip
    return f'def {name}({signature}):\n    """{doc}"""\n{textwrap.indent(body, "    ")}\n'


def used(names: Iterable[str], lines: list[str]) -> list[str]:
    """Return those of `names` that the statements read."""
    read = set(names_of("\n".join(lines))[1])
    return [name for name in names if name in read]


def stages(lines: list[str]) -> tuple[list[list[str]], list[tuple[str, ...]]]:
    """Divide statements where arrays are summed; return the stages and the sums between them."""
    parts: list[list[str]] = [[]]
    sums = []
    for line in lines:
        if isinstance(line, Sums):
            sums.append(line.names)
            parts.append([])
        else:
            parts[-1].append(line)
    return parts, sums


def handed_on(before: list[str], after: list[str]) -> list[str]:
    """Return the variables that statements assign, and others after them read."""
    _, read = assigned_and_read("\n".join(after))
    stored = names_of("\n".join(before))[0]
    return [name for name in dict.fromkeys(stored) if name in read]


def assigned_and_read(text: str) -> tuple[set[str], set[str]]:
    """Return the variables that statements assign in any case, and those that they read before."""
    reader = _Reader()
    reader.visit(ast.parse(text))
    return reader.assigned, reader.read


class _Reader(ast.NodeVisitor):
    """Finds the variables that are read before they are assigned."""

    def __init__(self) -> None:
        self.read: set[str] = set()
        self.assigned: set[str] = set()

    def visit_Name(self, node: ast.Name) -> None:
        if isinstance(node.ctx, ast.Store):
            self.assigned.add(node.id)
        elif node.id not in self.assigned:
            self.read.add(node.id)

    def visit_Assign(self, node: ast.Assign) -> None:
        self.visit(node.value)
        for target in node.targets:
            self.visit(target)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        self.visit(node.value)
        if isinstance(node.target, ast.Name) and node.target.id not in self.assigned:
            self.read.add(node.target.id)
        self.visit(node.target)

    def visit_For(self, node: ast.For) -> None:
        self.visit(node.iter)
        before = set(self.assigned)
        for part in (node.target, *node.body):
            self.visit(part)
        self.assigned = before  # there may be no turn

    def visit_If(self, node: ast.If) -> None:
        self.visit(node.test)
        before = set(self.assigned)
        ends = []
        for branch in (node.body, node.orelse):
            self.assigned = set(before)
            for part in branch:
                self.visit(part)
            ends.append(self.assigned)
        self.assigned = ends[0] & ends[1]


def renamed(text: str, names: Mapping[str, str]) -> str:
    """Return statements with other names of variables, and without the marks of final ones.

    Variables in comments and strings are words.
    """

    def replaced(part: re.Match[str]) -> str:
        known = {} if part[0][0] in "'#" else names
        return _WORD.sub(lambda word: word[2] if word[1] else known.get(word[2], word[2]), part[0])

    return _CODE_OR_TEXT.sub(replaced, text)


@functools.lru_cache(4096)
def names_of(text: str) -> tuple[list[str], list[str]]:
    """Return the names that statements assign, and those that they read, in their order."""
    stored: list[str] = []
    loaded: list[str] = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Name):
            (stored if isinstance(node.ctx, ast.Store) else loaded).append(node.id)
        elif isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name):
            loaded.append(node.target.id)  # x += 1 reads x
    return stored, loaded
