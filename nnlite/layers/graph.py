"""Layers that branch and join: ``Graph``, a directed acyclic graph of named layers."""

from __future__ import annotations

import inspect
import itertools
import math
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from typing import Any, NamedTuple

import numpy as np

from ..checks import as_floats, as_output_grad, number
from ..engine.arrays import Array
from ..layer import Layer, add_path, check_latest_forwards, latest_forwards
from ..parameter import Parameter
from .containers import check_used_once

# An input of a node: the name of a value, or a constant.
_Source = str | float

_FLOAT64 = np.dtype(np.float64)


class Graph(Layer):
    """A directed acyclic graph of named nodes, for skip connections and for formulas.

    A node is a layer and the names of its inputs. A value that is used more than once gets the
    sum of the gradients of its uses.

    Parameters
    ----------
    nodes : mapping of str to ``(Layer, *inputs)``
        The nodes, in any order. Each input is the name of a node, the name of an input of the
        graph, or a number. A layer without inputs, such as `Weight`, needs no tuple. If a node
        returns a tuple, ``"name.0"`` is its first item; if that node is a `Graph`, its outputs
        can also be named, as in ``"encoder.mean"``. A dictionary as the last item has inputs that
        `forward` takes by keyword, such as ``{"mask": "mask"}``; they get no gradient.
    inputs : str or sequence of str, default "x"
        The names of the arguments of `forward`, in order; () if there are none.
    outputs : str or sequence of str, optional
        The nodes whose values `forward` returns: one value, or a tuple of several. By default the
        only node that no other node uses.

    Attributes
    ----------
    inputs, outputs : tuple of str

    Raises
    ------
    TypeError
        If `nodes` is not a mapping, a node is not a layer, an input is neither a name nor a number,
        or a layer takes another number of inputs than its node lists.
    ValueError
        If there are no nodes, a name is unknown, duplicate or contains a dot, the nodes form a
        cycle, a node or an input is unused, or two nodes hold the same layer (use `Layer.tied`).

    Notes
    -----
    If the nodes u₁, u₂, … use a value v, the chain rule is::

        dL/dv = Σ_k  dL/du_k · du_k/dv          plus the gradient given for v, if v is an output

    so `backward` visits the nodes in reverse order, each after all nodes that use it.

    - `backward` takes one gradient, or a tuple for several outputs. None in the tuple means that
      the loss does not depend on that output. If the only output has one element, its gradient may
      be omitted and is then 1, as in PyTorch.
    - `backward` returns one gradient, or a tuple for several inputs. The gradient is None for an
      input that no gradient reaches, and for labels, indices and other inputs that are not floats.
    - If a layer has several inputs and its `backward` returns one array, that is the gradient of
      the first input; the others have none. So a loss can be a node, with its target as an input.
      None in a returned tuple means no gradient too.
    - ``graph.backward(grad, input_grad=False)`` skips all nodes that have no parameter to train,
      neither themselves nor in a node before them, and passes ``input_grad=False`` to the first
      nodes that have one.
    - Float inputs are converted to the dtype of the graph's first parameter, if it has any.
      Integers and booleans are passed unchanged.
    - The message of an error raised inside a node starts with the name of the node. After a
      `forward` that failed, `backward` raises an error until a `forward` succeeds.

    ``graph["name"]`` is the layer of a node, and ``graph.arguments["name"]`` lists its inputs as
    they were given: names, constants, and the dictionary of those by keyword. ``graph.order`` has
    the names of the nodes in the order in which `forward` computes them. `len`, ``in`` and
    iteration work as for the dictionary of nodes.

    References
    ----------
    A. Griewank, A. Walther, "Evaluating Derivatives", 2nd edition, SIAM 2008, section 3.2.

    Examples
    --------
    A residual block, after K. He et al., "Deep residual learning for image recognition", CVPR
    2016:

    >>> import numpy as np
    >>> import nnlite as nn
    >>> block = nn.Graph({
    ...     "h": (nn.Linear(4, 8), "x"),
    ...     "a": (nn.ReLU(), "h"),
    ...     "r": (nn.Linear(8, 4), "a"),
    ...     "y": (nn.Add(), "x", "r"),
    ... })
    >>> model = nn.Sequential(block, block.tied(), nn.Linear(4, 2))
    >>> model(np.ones((5, 4), dtype=np.float32)).shape
    (5, 2)
    >>> list(block.state_dict())
    ['h.weight', 'h.bias', 'r.weight', 'r.bias']

    The formula f(x, y) = (x + σ(y)) / (σ(x) + (x + y)²):

    >>> f = nn.Graph({
    ...     "σ(y)": (nn.Sigmoid(), "y"),
    ...     "numerator": (nn.Add(), "x", "σ(y)"),
    ...     "σ(x)": (nn.Sigmoid(), "x"),
    ...     "x+y": (nn.Add(), "x", "y"),
    ...     "(x+y)²": (nn.Square(), "x+y"),
    ...     "denominator": (nn.Add(), "σ(x)", "(x+y)²"),
    ...     "f": (nn.Divide(), "numerator", "denominator"),
    ... }, inputs=("x", "y"))
    >>> round(float(f(3.0, -4.0)), 12)
    1.545644884107
    >>> [round(float(gradient), 12) for gradient in f.backward()]
    [2.059569795572, 1.592232751484]

    Sequences of different lengths, with the mask as a second input:

    >>> model = nn.Graph({
    ...     "h": (nn.LSTM(3, 8, outputs="last"), "x", {"mask": "present"}),
    ...     "y": (nn.Linear(8, 2), "h"),
    ... }, inputs=("x", "present"))
    >>> lengths = np.array([4, 2])
    >>> model(np.ones((2, 4, 3), np.float32), np.arange(4) < lengths[:, None]).shape
    (2, 2)

    `fit` takes batches ``((x, present), targets)`` for it.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    arguments: dict[str, tuple[Any, ...]]
    order: tuple[str, ...]

    def __init__(
        self,
        nodes: Mapping[str, Layer | Sequence[Any]],
        inputs: str | Sequence[str] = "x",
        outputs: str | Sequence[str] | None = None,
    ) -> None:
        self.inputs = _names(inputs, "inputs")
        self._layers: dict[str, Layer] = {}
        self.arguments = {}
        for name, node in _checked_mapping(nodes).items():
            _check_name(name, "node")
            self._layers[name], self.arguments[name] = _parsed(name, node)
        for name in self.inputs:
            _check_name(name, "input")
            if name in self._layers:
                raise ValueError(
                    f"Graph: {name!r} is the name of an input and of a node; rename one"
                )
        check_used_once(
            "Graph", [(f"in node {name!r}", layer) for name, layer in self._layers.items()]
        )
        # The tuple hides the parameter: as an attribute it would be one of the graph itself.
        self._first_parameter = tuple(itertools.islice(self.parameters(), 1))

        self._keywords = {}
        # All inputs of a node, with items by position: "encoder.0" for "encoder.mean".
        self._sources = {}
        for name, arguments in self.arguments.items():
            positional, by_keyword = split_arguments(arguments)
            self._keywords[name] = tuple(by_keyword)
            self._sources[name] = tuple(
                argument if isinstance(argument, float) else self._resolved(argument, name)
                for argument in (*positional, *by_keyword.values())
            )
        self._parents = {
            name: {_node(source) for source in sources if isinstance(source, str)}
            for name, sources in self._sources.items()
        }
        self.order = self._sorted()
        used = set[str]().union(*self._parents.values())
        self._ends = tuple(name for name in self._layers if name not in used)
        if outputs is None and len(self._ends) > 1:
            raise ValueError(
                f"Graph: the nodes {_listed(self._ends)} are used by no other node; "
                f"say with outputs= which of them are outputs, and drop the others"
            )
        self.outputs = self._ends if outputs is None else _names(outputs, "outputs")
        if not self.outputs:
            raise ValueError("Graph: outputs is empty; name one node at least")
        self._results = tuple(self._resolved(output) for output in self.outputs)
        self._check_all_used(used)
        self._last_used_by = self._last_uses()

    # ---- forward and backward ----

    def forward(self, *inputs: Any) -> Any:
        values = self._given(inputs)
        specs = {name: _spec(value) for name, value in values.items()}
        item_counts: dict[str, int] = {}
        name = self.order[0]
        try:
            for name in self.order:
                given = [
                    source if isinstance(source, float) else self._value(source, values, specs)
                    for source in self._sources[name]
                ]
                keywords = self._keywords[name]
                if keywords:
                    count = len(given) - len(keywords)
                    options = dict(zip(keywords, given[count:], strict=True))
                    output = self._layers[name](*given[:count], **options)
                else:
                    output = self._layers[name](*given)
                if isinstance(output, tuple):
                    item_counts[name] = len(output)
                    for item, value in enumerate(output):
                        values[f"{name}.{item}"] = value
                        specs[f"{name}.{item}"] = _spec(value)
                else:
                    values[name] = output
                    specs[name] = _spec(output)
                for source in self._last_used_by[name]:
                    del values[source]
        except BaseException as error:
            if name != self.order[0]:
                self.drop_cache()  # the nodes hold caches of two different forwards
            _add_node(error, name)
            raise
        results = tuple(self._value(result, values, specs) for result in self._results)
        self.cache(
            specs,
            item_counts,
            dict(zip(self._layers, latest_forwards(self._layers.values()), strict=True)),
        )
        return results[0] if len(results) == 1 else results

    def backward(self, grad: Any = None, input_grad: bool = True) -> Any:
        specs, item_counts, forwards = self.cached()
        sums = _Sums()
        for result, output_grad in self._output_grads(grad, specs):
            sums.add(result, output_grad)

        wanted = {name: input_grad and specs[name].dtype.kind == "f" for name in self.inputs}
        wanted_below = {}
        for name in self.order:
            wanted_below[name] = any(wanted[parent] for parent in self._parents[name])
            wanted[name] = wanted_below[name] or self._layers[name].trainable()
        check_latest_forwards(
            self,
            [layer for name, layer in self._layers.items() if wanted[name]],
            [forwards[name] for name in self._layers if wanted[name]],
        )

        try:
            for name in reversed(self.order):
                count = item_counts.get(name)
                total: Any = sums.pop(name) if count is None else sums.pop_items(name, count)
                if total is None or not wanted[name]:
                    continue
                found = self._layers[name].backward(total, wanted_below[name])
                if not wanted_below[name]:
                    continue
                for source, part in self._parts(name, found, specs):
                    if wanted[_node(source)]:
                        sums.add(source, part)
        except Exception as error:
            given = total if isinstance(total, tuple) else (total,)
            add_path(error, self, self._layers[name], given, "gradient")
            _add_node(error, name)
            raise
        if not input_grad:
            return None
        grads = tuple(sums.pop(name) for name in self.inputs)
        return grads[0] if len(grads) == 1 else grads

    def _given(self, inputs: tuple[Any, ...]) -> dict[str, Any]:
        """Return the inputs by name, with floats in the dtype of the parameters."""
        if len(inputs) != len(self.inputs):
            raise TypeError(
                f"{self.label}: expected {len(self.inputs)} input(s), {_listed(self.inputs)}, "
                f"got {len(inputs)}"
            )
        dtype = self._first_parameter[0].dtype if self._first_parameter else None
        values = {}
        for name, value in zip(self.inputs, inputs, strict=True):
            array = np.asarray(value)
            is_integer = array.dtype.kind in "biu"
            values[name] = (
                array if is_integer else as_floats(self, array, dtype, name=f"input {name!r}")
            )
        return values

    def _value(self, source: str, values: dict[str, Any], specs: dict[str, _Spec]) -> Any:
        try:
            return values[source]
        except KeyError:
            node, _, item = source.partition(".")
            count = sum(name.startswith(f"{node}.") for name in specs)
            got = f"returns a tuple of {count}" if count else "returns one value"
            cure = f"'{node}.0' to '{node}.{count - 1}'" if count else repr(node)
            asked = f"item {item} of it" if item else "it"
            raise ValueError(
                f"Graph: node {node!r} {got}, so {asked} is not a value; use {cure}"
            ) from None

    def _output_grads(self, grad: Any, specs: dict[str, _Spec]) -> list[tuple[str, Array]]:
        """Check the gradients of the outputs; return the name and gradient of each that has one."""
        if len(self.outputs) > 1:
            if not isinstance(grad, (tuple, list)) or len(grad) != len(self.outputs):
                got = f"{len(grad)}" if isinstance(grad, (tuple, list)) else type(grad).__name__
                raise ValueError(
                    f"{self.label}: backward expects a tuple of {len(self.outputs)} gradients, one "
                    f"for each output (None where there is none), got {got}"
                )
            if all(item is None for item in grad):
                raise ValueError(f"{self.label}: backward got no gradient for any output")
            grads = tuple(grad)
        elif grad is None:
            shape = specs[self._results[0]].shape
            if math.prod(shape) != 1:
                raise ValueError(
                    f"{self.label}: backward needs the gradient of its output, of shape {shape}; "
                    f"only an output of one element can do without"
                )
            grads = (np.ones(shape),)
        else:
            grads = (grad,)
        return [
            (result, as_output_grad(self, item, specs[result].shape, specs[result].dtype))
            for result, item in zip(self._results, grads, strict=True)
            if item is not None
        ]

    def _parts(self, name: str, found: Any, specs: dict[str, _Spec]) -> Iterator[tuple[str, Array]]:
        """Yield the inputs of a node for which its layer returned a gradient, with the gradient."""
        if found is None:
            raise TypeError(
                f"{self._layers[name].label}: backward returned None; return dL/d(input), or "
                f"(None,) where there is none"
            )
        parts = found if isinstance(found, tuple) else (found,)
        sources = self._sources[name]
        sources = sources[: len(sources) - len(self._keywords[name])]
        if len(parts) > len(sources):
            raise RuntimeError(
                f"{self._layers[name].label}: backward returned {len(parts)} gradients "
                f"for {len(sources)} input(s)"
            )
        for source, part in zip(sources, parts, strict=False):
            if part is None or isinstance(source, float):
                continue
            if _spec(part).shape != specs[source].shape:
                raise RuntimeError(
                    f"{self._layers[name].label}: backward returned a gradient of shape "
                    f"{_spec(part).shape} for {source!r}, which is of shape {specs[source].shape}"
                )
            yield source, part

    # ---- checks of the constructor ----

    def _resolved(self, reference: str, user: str | None = None) -> str:
        """Return `reference` with the name of an item, if any, replaced by its position."""
        node, dot, item = reference.partition(".")
        layer = self._layers.get(node)
        if layer is None and (dot or user is None or node not in self.inputs):
            kind = "a node" if dot or user is None else "a node or an input"
            who = "outputs" if user is None else f"node {user!r}"
            raise ValueError(
                f"Graph: {who} names {reference!r}, but {node!r} is not {kind}; "
                f"the nodes are {_listed(self._layers)}, the inputs {_listed(self.inputs)}"
            )
        if not dot:
            return node
        if isinstance(layer, Graph) and item in layer.outputs:
            return f"{node}.{layer.outputs.index(item)}"
        if not item.isdecimal():
            raise ValueError(
                f"Graph: {reference!r} is not a value; of a node that returns a tuple, "
                f"name an item by its position, as in '{node}.0'"
            )
        return f"{node}.{int(item)}"

    def _sorted(self) -> tuple[str, ...]:
        try:
            order = tuple(TopologicalSorter(self._parents).static_order())
        except CycleError as error:
            cycle = " -> ".join(repr(name) for name in error.args[1])
            raise ValueError(
                f"Graph: the nodes {cycle} form a cycle; a graph has to be acyclic"
            ) from None
        return tuple(name for name in order if name in self._layers)

    def _last_uses(self) -> dict[str, list[str]]:
        """Return for each node the values that are not needed after it."""
        needed = set(self._results)
        last_uses = {}
        for name in reversed(self.order):
            sources = {source for source in self._sources[name] if isinstance(source, str)}
            last_uses[name] = sorted(sources - needed)
            needed |= sources
        return last_uses

    def _check_all_used(self, used: set[str]) -> None:
        for name in self.inputs:
            if name not in used:
                raise ValueError(
                    f"Graph: no node uses the input {name!r}; "
                    f"inputs= has to name what the nodes take, and nothing else"
                )
        reached: set[str] = set()
        waiting = [_node(result) for result in self._results]
        while waiting:
            name = waiting.pop()
            if name not in reached:
                reached.add(name)
                waiting.extend(self._parents.get(name, ()))
        for name in self._layers:
            if name not in reached:
                raise ValueError(
                    f"Graph: no output depends on node {name!r}; "
                    f"use it, name it in outputs, or drop it"
                )

    # ---- a mapping of names to layers ----

    def __getitem__(self, name: str) -> Layer:
        try:
            return self._layers[name]
        except KeyError:
            raise KeyError(
                f"Graph has no node {name!r}; the nodes are {_listed(self._layers)}"
            ) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._layers)

    def __len__(self) -> int:
        return len(self._layers)

    def __contains__(self, name: object) -> bool:
        return name in self._layers

    def named_children(self) -> Iterator[tuple[str, Layer]]:
        """Yield the name and the layer of each node, in the order of the dictionary."""
        yield from self._layers.items()

    def __repr__(self) -> str:
        lines = ""
        for name, layer in self._layers.items():
            node = ", ".join(map(repr, (layer, *self.arguments[name])))
            lines += f"{name!r}: {f'({node})' if self.arguments[name] else node},\n"
        options = "" if self.inputs == ("x",) else f", inputs={_shown(self.inputs)}"
        if len(self.outputs) > 1 or self.outputs != self._ends:
            options += f", outputs={_shown(self.outputs)}"
        return f"Graph({{\n{textwrap.indent(lines, '    ')}}}{options})"


class _Spec(NamedTuple):
    """Shape and dtype of a value, to check its gradient."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]


def _spec(value: Any) -> _Spec:
    # A loss returns a Python float, which has no shape or dtype.
    return _Spec(getattr(value, "shape", ()), getattr(value, "dtype", _FLOAT64))


class _Sums:
    """Gradients by name. Several gradients of one value are summed in an array of their own."""

    def __init__(self) -> None:
        self._sums: dict[str, Array] = {}
        self._own: set[str] = set()

    def add(self, name: str, grad: Array) -> None:
        if name not in self._sums:
            self._sums[name] = grad
        elif name in self._own:
            self._sums[name] += grad
        else:
            # The first gradient belongs to a layer or to the caller: do not add in place.
            self._sums[name] = self._sums[name] + grad
            self._own.add(name)

    def pop(self, name: str) -> Array | None:
        return self._sums.pop(name, None)

    def pop_items(self, name: str, count: int) -> tuple[Array | None, ...] | None:
        """Return the gradients of the items of a tuple, or None if no item has one."""
        items = tuple(self.pop(f"{name}.{item}") for item in range(count))
        return None if all(item is None for item in items) else items


def _node(source: str) -> str:
    """Return the node or input in `source`: "encoder" for "encoder.0"."""
    return source.partition(".")[0]


def _names(names: str | Sequence[str], what: str) -> tuple[str, ...]:
    if not isinstance(names, (str, Sequence)):
        raise TypeError(f"Graph: {what} must be a name or a sequence of names, got {names!r}")
    result = (names,) if isinstance(names, str) else tuple(names)
    for name in result:
        if not isinstance(name, str):
            raise TypeError(f"Graph: {what} must be names, got {name!r}")
        if result.count(name) > 1:
            raise ValueError(f"Graph: {what} names {name!r} twice")
    return result


def _checked_mapping(nodes: Any) -> Mapping[str, Any]:
    if not isinstance(nodes, Mapping):
        raise TypeError(
            f"Graph: expected a dictionary of name: (layer, *input names), "
            f"got {type(nodes).__name__}"
        )
    if not nodes:
        raise ValueError("Graph: the dictionary of nodes is empty; a graph needs one at least")
    return nodes


def _check_name(name: Any, what: str) -> None:
    if not isinstance(name, str):
        raise TypeError(f"Graph: the name of a {what} must be a str, got {name!r}")
    if not name or "." in name:
        raise ValueError(
            f"Graph: the {what} name {name!r} is empty or has a dot; "
            f"a dot separates the names in a state dict"
        )


def split_arguments(arguments: Sequence[Any]) -> tuple[list[_Source], dict[str, _Source]]:
    """Return the inputs of a node by position, and those by keyword."""
    if arguments and isinstance(arguments[-1], Mapping):
        return list(arguments[:-1]), dict(arguments[-1])
    return list(arguments), {}


def traversed(
    graph: Graph,
    inputs: Sequence[Any],
    call: Callable[..., Any],
    constant: Callable[[float], Any],
) -> Any:
    """Return the output, or outputs, of a graph in another form, node by node in its order.

    ``call(name, layer, *inputs, **by_keyword)`` returns the value of a node, or a tuple of them,
    and ``constant(number)`` that of a number among the inputs.
    """
    values: dict[str, Any] = dict(zip(graph.inputs, inputs, strict=True))

    def value(source: str | float) -> Any:
        if not isinstance(source, str):
            return constant(source)
        node, dot, item = source.partition(".")
        if not dot:
            return values[node]
        child: Any = graph[node]
        is_named = isinstance(child, Graph) and item in child.outputs
        return values[node][child.outputs.index(item) if is_named else int(item)]

    for name in graph.order:
        positional, by_keyword = split_arguments(graph.arguments[name])
        values[name] = call(
            name,
            graph[name],
            *map(value, positional),
            **{keyword: value(source) for keyword, source in by_keyword.items()},
        )
    outputs = tuple(map(value, graph.outputs))
    return outputs[0] if len(outputs) == 1 else outputs


def _parsed(name: str, node: Any) -> tuple[Layer, tuple[Any, ...]]:
    """Check the type of a node; return its layer and its inputs."""
    layer, *given = node if isinstance(node, (tuple, list)) and node else (node,)
    if not isinstance(layer, Layer):
        cure = ""
        if isinstance(layer, type):
            cure = f"; write {layer.__name__}(...)"
        elif isinstance(layer, Parameter):
            cure = "; make it a layer with nn.Weight"
        got = layer.__name__ if isinstance(layer, type) else type(layer).__name__
        raise TypeError(f"Graph: node {name!r} must be (layer, *input names), got {got}{cure}")
    given_by_position, given_by_keyword = split_arguments(given)
    positional = [_source(item, name) for item in given_by_position]
    by_keyword = {keyword: _source(item, name) for keyword, item in given_by_keyword.items()}
    try:
        inspect.signature(layer.forward).bind(*positional, **by_keyword)
    except TypeError as error:
        count = len(positional) + len(by_keyword)
        raise TypeError(
            f"Graph: node {name!r} gives {count} input(s) to {layer.label}: {error}"
        ) from None
    return layer, (*positional, by_keyword) if by_keyword else tuple(positional)


def _source(item: Any, node: str) -> _Source:
    """Check the type of an input of a node."""
    if isinstance(item, (Layer, Parameter)):
        raise TypeError(
            f"Graph: node {node!r} has a {type(item).__name__} for an input; "
            f"make that a node of its own and name it here"
        )
    return (
        item
        if isinstance(item, str)
        else number(item, f"Graph: an input of node {node!r} that is not a name")
    )


def _add_node(error: BaseException, name: str) -> None:
    """Prefix the message of an error raised inside a node with the node's name."""
    # Other classes of errors may have arguments besides the message.
    if type(error) in (TypeError, ValueError, RuntimeError):
        error.args = (f"Graph node {name!r}: {error}",)


def _listed(names: Any) -> str:
    shown = [repr(name) for name in names]
    return ", ".join(shown[:8] + ["..."] * (len(shown) > 8)) or "none"


def _shown(names: tuple[str, ...]) -> str:
    return repr(names[0] if len(names) == 1 else names)
