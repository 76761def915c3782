"""`Graph`: the chain rule over branches and joins, and errors."""

from __future__ import annotations

import copy
import functools
import pickle
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

import nnlite as nn

from ..registry import Array


def residual(width: int = 4, rng: int = 0) -> nn.Graph:
    return nn.Graph(
        {
            "h": (nn.Linear(width, 2 * width, rng=rng), "x"),
            "a": (nn.Tanh(), "h"),
            "r": (nn.Linear(2 * width, width, rng=rng + 1), "a"),
            "y": (nn.Add(), "x", "r"),
        }
    )


def formula() -> nn.Graph:
    """Return f(x, y) = (x + σ(y)) / (σ(x) + (x + y)²)."""
    return nn.Graph(
        {
            "σ(y)": (nn.Sigmoid(), "y"),
            "numerator": (nn.Add(), "x", "σ(y)"),
            "σ(x)": (nn.Sigmoid(), "x"),
            "x+y": (nn.Add(), "x", "y"),
            "(x+y)²": (nn.Square(), "x+y"),
            "denominator": (nn.Add(), "σ(x)", "(x+y)²"),
            "f": (nn.Divide(), "numerator", "denominator"),
        },
        inputs=("x", "y"),
    )


class Recorder(nn.Layer):
    """The identity, which stores the arguments of its backward."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, bool]] = []

    def forward(self, x: Array) -> Array:
        self.cache(x)
        return np.array(x)

    def backward(self, grad: Array, input_grad: bool = True) -> Array | None:
        self.cached()
        self.calls.append((grad, input_grad))
        return np.array(grad) if input_grad else None


class Split(nn.Layer):
    """Two layers' worth of outputs: the first and the last columns."""

    def __init__(self, columns: int) -> None:
        self.columns = columns

    def forward(self, x: Array) -> tuple[Array, Array]:
        self.cache(x)
        return x[:, : self.columns], x[:, self.columns :]

    def backward(
        self, grad: tuple[Array | None, Array | None], input_grad: bool = True
    ) -> Array | None:
        (x,) = self.cached()
        first, last = grad
        result = np.zeros_like(x)
        if first is not None:
            result[:, : self.columns] = first
        if last is not None:
            result[:, self.columns :] = last
        return result if input_grad else None


class Take(nn.Layer):
    """Rows of a table, chosen by integers."""

    def __init__(self, rows: int, columns: int) -> None:
        self.table = nn.Parameter(np.random.default_rng(0).normal(size=(rows, columns)))

    def forward(self, index: Array) -> Array:
        assert index.dtype.kind == "i"
        self.cache(index)
        return self.table.data[index]

    def backward(self, grad: Array, input_grad: bool = True) -> None:
        (index,) = self.cached()
        table_grad = np.zeros_like(self.table.data)
        np.add.at(table_grad, index, grad)
        self.table.accumulate(table_grad)


class Faulty(nn.Layer):
    """Returns for its input whatever it was told to."""

    def __init__(self, returned: Any) -> None:
        self.returned = returned

    def forward(self, x: Array) -> Array:
        self.cache()
        return np.array(x)

    def backward(self, grad: Array, input_grad: bool = True) -> Any:
        return self.returned


# ---- formulas ----


def test_the_formula_of_cs231n_has_the_gradients_that_were_derived_by_hand() -> None:
    f = formula()
    assert_allclose(f(3.0, -4.0), 1.5456448841066441, rtol=1e-15)
    assert f.backward() == (2.0595697955721652, 1.5922327514838093)


def test_the_formula_agrees_with_central_differences() -> None:
    rng = np.random.default_rng(0)
    assert nn.gradcheck(formula(), rng.normal(size=(3, 1)), rng.normal(size=4)).passed


def test_a_weight_that_is_used_in_every_step_of_a_recursion_gets_the_sum() -> None:
    # h2 = w (w h0): dh2/dw = h1 + w h0 = 2 and dh2/dh0 = w² = 4 at w = 2, h0 = 0.5.
    recursion = nn.Graph(
        {
            "w": nn.Weight(2.0),
            "h1": (nn.Multiply(), "w", "h0"),
            "h2": (nn.Multiply(), "w", "h1"),
        },
        inputs="h0",
    )
    assert recursion(0.5) == 2
    assert recursion.backward() == 4
    assert recursion["w"].weight.grad == 2


def test_numbers_are_inputs_that_stand_for_themselves() -> None:
    # d/dx (x² - 10)² = 4 x (x² - 10) = -36 at x = 1
    loss = nn.Graph(
        {
            "prediction": (nn.Square(), "x"),
            "difference": (nn.Subtract(), "prediction", 10),
            "loss": (nn.Square(), "difference"),
        }
    )
    assert loss(1.0) == 81
    assert loss.backward() == -36


def test_a_number_does_not_promote_float32() -> None:
    graph = nn.Graph({"y": (nn.Multiply(), 0.1, "x")})
    y = graph(np.ones(3, np.float32))
    assert y.dtype == np.float32
    assert graph.backward(np.ones(3)).dtype == np.float32


# ---- against PyTorch ----


def test_a_residual_block_is_pytorchs() -> None:
    torch = pytest.importorskip("torch")
    block = residual().astype(np.float64)
    x = np.random.default_rng(0).normal(size=(5, 4))
    grad = np.random.default_rng(1).normal(size=(5, 4))

    tensors = {
        name: torch.tensor(value, requires_grad=True) for name, value in block.state_dict().items()
    }
    x_tensor = torch.tensor(x, requires_grad=True)
    h = torch.nn.functional.linear(x_tensor, tensors["h.weight"], tensors["h.bias"])
    r = torch.nn.functional.linear(torch.tanh(h), tensors["r.weight"], tensors["r.bias"])
    y = x_tensor + r
    y.backward(torch.tensor(grad))

    assert_allclose(block(x), y.detach().numpy(), rtol=1e-12)
    assert_allclose(block.backward(grad), x_tensor.grad.numpy(), rtol=1e-12)
    for name, parameter in block.named_parameters():
        assert_allclose(parameter.grad, tensors[name].grad.numpy(), rtol=1e-12)


Node = tuple[Any, ...]
WIDTH = 3


@st.composite
def dags(draw: st.DrawFn) -> tuple[dict[str, Node], tuple[str, ...], tuple[str, ...]]:
    """Draw nodes as {name: (operation, *inputs)}, in any order, with inputs and outputs."""
    inputs = [f"x{i}" for i in range(draw(st.integers(1, 3)))]
    ranks = dict.fromkeys(inputs, 2)
    nodes: dict[str, Node] = {}
    for index in range(draw(st.integers(1, 9))):
        operation = draw(
            st.sampled_from(["add", "multiply", "subtract", "tanh", "square", "linear", "weight"])
        )
        name = f"{operation}{index}"
        names = st.sampled_from(
            [n for n, rank in ranks.items() if rank == 2 or operation != "linear"]
        )
        if operation in ("add", "multiply"):
            sources = draw(st.lists(names | st.sampled_from([0.5, -2.0]), min_size=1, max_size=2))
            sources.append(draw(names))
        elif operation == "subtract":
            sources = [draw(names), draw(names)]
        else:
            sources = [] if operation == "weight" else [draw(names)]
        ranks[name] = max((ranks[s] for s in sources if isinstance(s, str)), default=1)
        nodes[name] = (operation, *sources)
    used = {s for _, *sources in nodes.values() for s in sources}
    idle = [name for name in inputs if name not in used]
    if idle:
        nodes["join"] = ("add", *idle, next(reversed(nodes)))
        used.update(nodes["join"])
    ends = [name for name in nodes if name not in used]
    extra = draw(st.sets(st.sampled_from(list(nodes)), max_size=2))
    outputs = tuple(dict.fromkeys([*ends, *sorted(extra)]))
    order = draw(st.permutations(list(nodes)))
    return {name: nodes[name] for name in order}, tuple(inputs), outputs


def weight_of(name: str) -> Array:
    return np.random.default_rng(len(name) + ord(name[-1])).normal(size=WIDTH)


def layer_of(name: str, operation: str) -> nn.Layer:
    if operation == "weight":
        return nn.Weight(weight_of(name))
    if operation == "linear":
        return nn.Linear(WIDTH, WIDTH, rng=ord(name[-1])).astype(np.float64)
    return {
        "add": nn.Add,
        "multiply": nn.Multiply,
        "subtract": nn.Subtract,
        "tanh": nn.Tanh,
        "square": nn.Square,
    }[operation]()


def torch_values(
    torch: Any, nodes: dict[str, Node], values: dict[str, Any], state: dict[str, Any]
) -> dict[str, Any]:
    """Return the value of each node, by PyTorch and by recursion."""

    def value(source: str | float) -> Any:
        if isinstance(source, float):
            return source
        if source not in values:
            operation, *sources = nodes[source]
            values[source] = apply(source, operation, *(value(s) for s in sources))
        return values[source]

    def apply(name: str, operation: str, *operands: Any) -> Any:
        if operation == "weight":
            return state[f"{name}.weight"]
        if operation == "linear":
            return operands[0] @ state[f"{name}.weight"].T + state[f"{name}.bias"]
        if operation in ("add", "multiply", "subtract"):
            return functools.reduce(
                getattr(torch.Tensor, operation), map(torch.as_tensor, operands)
            )
        return getattr(torch, operation)(*operands)

    for name in nodes:
        value(name)
    return values


@given(dag=dags(), data=st.data())
def test_every_acyclic_graph_has_the_values_and_gradients_of_pytorch(
    dag: tuple[dict[str, Node], tuple[str, ...], tuple[str, ...]], data: st.DataObject
) -> None:
    torch = pytest.importorskip("torch")
    nodes, inputs, outputs = dag
    graph = nn.Graph(
        {name: (layer_of(name, op), *sources) for name, (op, *sources) in nodes.items()},
        inputs,
        outputs,
    )
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=(2, WIDTH)) for _ in inputs]
    tensors = {
        name: torch.tensor(array, requires_grad=True)
        for name, array in zip(inputs, arrays, strict=True)
    }
    state = {
        name: torch.tensor(array, requires_grad=True) for name, array in graph.state_dict().items()
    }
    values = torch_values(torch, nodes, dict(tensors), state)

    result = graph(*arrays)
    results = result if len(outputs) > 1 else (result,)
    for name, mine in zip(outputs, results, strict=True):
        assert_allclose(mine, values[name].detach().numpy(), rtol=1e-9)

    given_grads = data.draw(st.sets(st.sampled_from(outputs), min_size=1))
    grads = [
        rng.normal(size=np.shape(r)) if n in given_grads else None
        for n, r in zip(outputs, results, strict=True)
    ]
    expected = torch.autograd.grad(
        [values[n] for n, g in zip(outputs, grads, strict=True) if g is not None],
        [*tensors.values(), *state.values()],
        [torch.tensor(g) for g in grads if g is not None],
        allow_unused=True,
    )
    found = graph.backward(tuple(grads) if len(outputs) > 1 else grads[0])
    found = list(found if len(inputs) > 1 else (found,))
    found += [parameter.grad for parameter in graph.parameters()]
    for mine, theirs in zip(found, expected, strict=True):
        if theirs is None:
            assert mine is None
        else:
            # Where large terms cancel, the two differ by rounding of the terms.
            scale = max(1.0, float(theirs.abs().max()))
            assert_allclose(mine, theirs.numpy(), rtol=1e-9, atol=1e-9 * scale)


# ---- the chain rule ----


def test_a_chain_is_what_sequential_is() -> None:
    layers = [nn.Linear(4, 3, rng=0), nn.ReLU(), nn.Linear(3, 2, rng=1)]
    chain = nn.Sequential(*layers)
    graph = nn.Graph(
        {
            name: (layer.tied(), source)
            for name, layer, source in zip("abc", layers, "xab", strict=True)
        }
    )
    x = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    grad = np.ones((5, 2), np.float32)
    assert_array_equal(graph(x), chain(x))
    assert_array_equal(graph.backward(grad), chain.backward(grad))


@given(order=st.permutations(["h", "a", "r", "y"]))
def test_the_order_of_the_dictionary_does_not_matter(order: list[str]) -> None:
    block, reference = residual().astype(np.float64), residual().astype(np.float64)
    sources = {"h": ("x",), "a": ("h",), "r": ("a",), "y": ("x", "r")}
    block = nn.Graph({name: (block[name], *sources[name]) for name in order})
    x = np.random.default_rng(0).normal(size=(5, 4))
    assert_array_equal(block(x), reference(x))
    assert_array_equal(block.backward(x), reference.backward(x))
    assert list(block) == order


def test_a_value_that_is_used_twice_by_one_node_gets_both_gradients() -> None:
    square = nn.Graph({"y": (nn.Multiply(), "x", "x")})
    square(np.array([3.0, -2.0]))
    assert_array_equal(square.backward(np.ones(2)), [6, -4])


def test_an_output_that_other_nodes_use_gets_the_sum_of_both_gradients() -> None:
    graph = nn.Graph(
        {"a": (nn.Multiply(), 2, "x"), "b": (nn.Multiply(), 3, "a")}, outputs=("b", "a")
    )
    assert graph(1.0) == (6, 2)
    # x.grad = 2 (a.grad + 3 b.grad)
    assert graph.backward((10.0, 1.0)) == 62
    assert graph.backward((None, 1.0)) == 2
    assert graph.backward((10.0, None)) == 60


def test_nodes_that_no_gradient_reaches_are_left_out() -> None:
    graph = nn.Graph(
        {"a": (nn.Linear(2, 2), "x"), "b": (nn.Linear(2, 2), "y")}, ("x", "y"), ("a", "b")
    )
    graph(np.ones((1, 2)), np.ones((1, 2)))
    x_grad, y_grad = graph.backward((None, np.ones((1, 2))))
    assert x_grad is None
    assert y_grad.shape == (1, 2)
    assert graph["a"].weight.grad is None
    assert graph["b"].weight.grad is not None


def test_the_gradient_may_be_left_out_where_the_output_is_one_number() -> None:
    graph = nn.Graph({"y": (nn.Sum(), "x")})
    graph(np.ones((2, 3)))
    assert_array_equal(graph.backward(), np.ones((2, 3)))
    chain = nn.Graph({"y": (nn.Tanh(), "x")})
    chain(np.ones((2, 3)))
    with pytest.raises(ValueError, match=r"^Graph: backward needs the gradient .* \(2, 3\)"):
        chain.backward()


def test_a_second_backward_gives_the_same_and_doubles_the_parameters_gradients() -> None:
    block = residual().astype(np.float64)
    x = np.random.default_rng(0).normal(size=(5, 4))
    block(x)
    first = block.backward(x).copy()
    once = {name: p.grad.copy() for name, p in block.named_parameters()}
    assert_array_equal(block.backward(x), first)
    for name, parameter in block.named_parameters():
        assert_allclose(parameter.grad, 2 * once[name], rtol=1e-14)


def test_summing_gradients_writes_into_no_array_of_a_layer() -> None:
    recorders = {name: Recorder() for name in "abc"}
    graph = nn.Graph(
        {
            "x2": (Recorder(), "x"),
            **{name: (recorder, "x2") for name, recorder in recorders.items()},
            "y": (nn.Add(), "a", "b", "c"),
        }
    )
    graph(np.ones(3))
    grad = np.array([1.0, 2.0, 3.0])
    given_before = grad.copy()
    assert_array_equal(graph.backward(grad), 3 * given_before)
    assert_array_equal(grad, given_before)
    for recorder in recorders.values():
        # Add returns the very array that it was given.
        assert recorder.calls[0][0] is grad


def test_nothing_given_or_returned_is_written_into() -> None:
    model = nn.Sequential(residual(), residual(rng=2)).astype(np.float64)
    seen: list[tuple[Array, Array]] = []
    for seed in range(3):
        rng = np.random.default_rng(seed)
        x, grad = rng.normal(size=(5, 4)), rng.normal(size=(5, 4))
        seen += [(x, x.copy()), (grad, grad.copy())]
        y = model(x)
        x_grad = model.backward(grad)
        seen += [(y, y.copy()), (x_grad, x_grad.copy())]
        model.zero_grad()
        for array, before in seen:
            assert_array_equal(array, before)


# ---- nodes that backward skips ----


def test_nodes_learn_whether_anything_below_them_wants_a_gradient() -> None:
    flat, after, side = Recorder(), Recorder(), Recorder()
    graph = nn.Graph(
        {
            "flat": (flat, "x"),
            "h": (nn.Linear(2, 2), "flat"),
            "after": (after, "h"),
            "side": (side, "x"),
            "y": (nn.Add(), "after", "side"),
        }
    )
    x = np.ones((1, 2), np.float32)
    graph(x)
    assert graph.backward(x, input_grad=False) is None
    # Nothing to train at or above `flat` and `side`: their backward is not called at all.
    assert [len(recorder.calls) for recorder in (flat, after, side)] == [0, 1, 0]
    assert after.calls[0][1] is True
    assert graph["h"].weight.grad is not None

    graph.backward(x)
    assert [len(recorder.calls) for recorder in (flat, after, side)] == [1, 2, 1]


def test_an_output_with_nothing_to_train_above_it_is_left_out() -> None:
    last = Recorder()
    graph = nn.Graph({"y": (last, "x")})
    graph(np.ones(2))
    assert graph.backward(np.ones(2), input_grad=False) is None
    assert not last.calls


def test_a_first_layer_is_told_that_nobody_wants_its_input_gradient() -> None:
    class Watched(nn.Linear):
        flags: tuple[bool, ...] = ()

        def backward(self, grad: Array, input_grad: bool = True) -> Array | None:
            self.flags += (input_grad,)
            return super().backward(grad, input_grad)

    first, second = Watched(2, 2), Watched(2, 2)
    graph = nn.Graph({"a": (first, "x"), "b": (second, "a")})
    x = np.ones((1, 2), np.float32)
    for input_grad in (False, True):
        graph(x)
        graph.backward(x, input_grad)
    assert first.flags == (False, True)
    assert second.flags == (True, True)


def test_frozen_parameters_need_no_gradient_below_them() -> None:
    below = Recorder()
    graph = nn.Graph({"a": (nn.Linear(2, 2), "x"), "b": (below, "a"), "c": (nn.Linear(2, 2), "b")})
    for parameter in graph["a"].parameters():
        parameter.requires_grad = False
    graph(np.ones((1, 2)))
    graph.backward(np.ones((1, 2)), input_grad=False)
    assert not below.calls
    assert graph["a"].weight.grad is None
    assert graph["c"].weight.grad is not None


# ---- integers and losses ----


def test_a_loss_can_be_a_node_and_its_target_an_input() -> None:
    model = nn.Linear(3, 4, rng=0)
    loss = nn.CrossEntropy()
    graph = nn.Graph(
        {"logits": (model.tied(), "x"), "loss": (nn.CrossEntropy(), "logits", "labels")},
        inputs=("x", "labels"),
    )
    x = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    labels = np.array([0, 1, 2, 3, 0])
    assert graph(x, labels) == loss(model(x), labels)
    expected = model.backward(loss.backward())
    expected_weight = model.weight.grad.copy()
    model.zero_grad()
    x_grad, labels_grad = graph.backward()
    assert_array_equal(x_grad, expected)
    assert labels_grad is None
    assert_array_equal(model.weight.grad, expected_weight)
    assert graph.backward(input_grad=False) is None
    assert nn.gradcheck(graph, x, labels).passed


def test_a_target_of_floats_gets_no_gradient_from_a_loss() -> None:
    graph = nn.Graph(
        {"y": (nn.Square(), "x"), "loss": (nn.MeanSquaredError(), "y", "target")},
        inputs=("x", "target"),
    )
    # (x² - 10)² = 81 and 4 x (x² - 10) = -36 at x = 1
    assert graph(np.ones((1, 1)), np.full((1, 1), 10.0)) == 81
    x_grad, target_grad = graph.backward()
    assert x_grad == -36
    assert target_grad is None


def test_losses_add_up_to_a_loss() -> None:
    labels = np.array([0, 1])
    x = np.random.default_rng(0).normal(size=(2, 3))
    graph = nn.Graph(
        {
            "a": (nn.CrossEntropy(), "x", "labels"),
            "b": (nn.CrossEntropy(reduction="sum"), "x", "labels"),
            "weighted": (nn.Multiply(), 0.5, "b"),
            "total": (nn.Add(), "a", "weighted"),
        },
        inputs=("x", "labels"),
    )
    loss = nn.CrossEntropy()
    # The sum is twice the mean of two samples.
    assert_allclose(graph(x, labels), 2 * loss(x, labels), rtol=1e-12)
    assert_allclose(graph.backward()[0], 2 * loss.backward(), rtol=1e-12)


def test_indices_pass_as_integers_and_get_no_gradient() -> None:
    graph = nn.Graph({"rows": (Take(4, 3), "index"), "y": (nn.Tanh(), "rows")}, inputs="index")
    index = np.array([1, 1, 3])
    assert graph(index).shape == (3, 3)
    assert graph.backward(np.ones((3, 3))) is None
    assert_array_equal(np.any(graph["rows"].table.grad != 0, axis=1), [False, True, False, True])


# ---- several outputs, and graphs in graphs ----


def test_a_graph_in_a_graph_is_the_graph_written_out() -> None:
    inner = residual()
    outer = nn.Graph(
        {
            "first": (inner, "x"),
            "second": (inner.tied(), "first"),
            "y": (nn.Multiply(), "second", "x"),
        }
    ).astype(np.float64)
    x = np.random.default_rng(0).normal(size=(5, 4))
    block = residual().astype(np.float64)
    assert_allclose(outer(x), block(block(x)) * x, rtol=1e-12)
    assert list(dict(outer.named_parameters())) == [
        "first.h.weight",
        "first.h.bias",
        "first.r.weight",
        "first.r.bias",
    ]
    assert nn.gradcheck(outer, x).passed


@pytest.mark.parametrize(
    "names", [("moments.mean", "moments.deviation"), ("moments.0", "moments.1")]
)
def test_the_outputs_of_a_graph_in_a_graph_are_named_or_numbered(names: tuple[str, str]) -> None:
    moments = nn.Graph(
        {
            "mean": (nn.Mean(dim=1, keepdim=True), "x"),
            "difference": (nn.Subtract(), "x", "mean"),
            "square": (nn.Square(), "difference"),
            "variance": (nn.Mean(dim=1, keepdim=True), "square"),
            "deviation": (nn.Sqrt(), "variance"),
        },
        outputs=("mean", "deviation"),
    )
    mean, deviation = names
    normalized = nn.Graph(
        {
            "moments": (moments, "x"),
            "centred": (nn.Subtract(), "x", mean),
            "y": (nn.Divide(), "centred", deviation),
        }
    )
    x = np.random.default_rng(0).normal(size=(3, 8))
    expected = (x - x.mean(axis=1, keepdims=True)) / x.std(axis=1, keepdims=True)
    assert_allclose(normalized(x), expected, rtol=1e-12)
    assert nn.gradcheck(normalized, x).passed


def test_an_item_that_nothing_uses_gets_none_for_a_gradient() -> None:
    x = np.arange(6.0).reshape(2, 3)
    graph = nn.Graph({"parts": (Split(1), "x"), "y": (nn.Square(), "parts.1")})
    assert_array_equal(graph(x), x[:, 1:] ** 2)
    assert_array_equal(graph.backward(np.ones((2, 2))), [[0, 2, 4], [0, 8, 10]])


def test_a_tuple_that_no_gradient_reaches_is_left_out() -> None:
    two = nn.Graph({"a": (nn.Tanh(), "x"), "b": (nn.Square(), "x")}, outputs=("a", "b"))
    graph = nn.Graph(
        {"two": (two, "x"), "ab": (nn.Multiply(), "two.a", "two.b"), "y": (nn.Square(), "z")},
        inputs=("x", "z"),
        outputs=("ab", "y"),
    )
    graph(np.ones(2), np.full(2, 3.0))
    x_grad, z_grad = graph.backward((None, np.ones(2)))
    assert x_grad is None
    assert_array_equal(z_grad, [6, 6])


def test_an_item_can_be_an_output() -> None:
    x = np.arange(6.0).reshape(2, 3)
    graph = nn.Graph({"parts": (Split(1), "x")}, outputs=("parts.1", "parts.0"))
    last, first = graph(x)
    assert_array_equal(last, x[:, 1:])
    assert_array_equal(first, x[:, :1])
    assert_array_equal(graph.backward((None, np.ones((2, 1)))), [[1, 0, 0], [1, 0, 0]])


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("parts", r"^Graph node 'y': Graph: node 'parts' returns a tuple of 2.* 'parts\.0'"),
        ("parts.2", r"node 'parts' returns a tuple of 2, so item 2 of it is not a value"),
        ("h.0", r"node 'h' returns one value, so item 0 of it is not a value; use 'h'"),
    ],
)
def test_an_item_that_there_is_not_is_an_error(source: str, message: str) -> None:
    graph = nn.Graph(
        {"h": (nn.Tanh(), "x"), "parts": (Split(1), "h"), "y": (nn.Add(), source, "h")},
        outputs=("y", "parts.0"),
    )
    with pytest.raises(ValueError, match=message):
        graph(np.ones((2, 3)))


def test_a_graph_without_inputs_is_a_function_of_its_weights() -> None:
    graph = nn.Graph(
        {"w": nn.Weight([3.0, 4.0]), "w²": (nn.Square(), "w"), "y": (nn.Sum(), "w²")}, ()
    )
    assert graph() == 25
    assert graph.backward() == ()
    assert_array_equal(graph["w"].weight.grad, [6, 8])


def test_a_graph_of_several_inputs_can_begin_a_sequential() -> None:
    model = nn.Sequential(nn.Graph({"y": (nn.Multiply(), "a", "b")}, ("a", "b")), nn.Square())
    assert model(np.array(2.0), np.array(3.0)) == 36
    # (ab)² = 36: 2 a b² = 36 and 2 a² b = 24
    assert model.backward(np.array(1.0)) == (36, 24)


# ---- a layer like any other ----


def test_training_a_residual_network_lowers_its_loss() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 2)).astype(np.float32)
    labels = (x[:, 0] * x[:, 1] > 0).astype(np.int64)
    model = nn.Sequential(
        nn.Linear(2, 8, rng=0), residual(8, rng=1), residual(8, rng=3), nn.Linear(8, 2, rng=5)
    )
    loss = nn.CrossEntropy()
    optimizer = nn.SGD(model.parameters(), lr=0.1, momentum=0.9)
    values = []
    for _ in range(200):
        values.append(loss(model(x), labels))
        optimizer.zero_grad()
        model.backward(loss.backward(), input_grad=False)
        optimizer.step()
    assert values[0] > 0.5
    assert values[-1] < 0.1


def test_the_state_dict_has_the_names_of_the_nodes() -> None:
    block, other = residual(rng=0), residual(rng=7)
    assert list(block.state_dict()) == ["h.weight", "h.bias", "r.weight", "r.bias"]
    other.load_state_dict(block.state_dict())
    x = np.ones((2, 4), np.float32)
    assert_array_equal(other(x), block(x))


def test_a_tied_graph_shares_the_parameters_and_not_the_caches() -> None:
    block = residual()
    twin = block.tied()
    ones, twos = np.ones((1, 4), np.float32), np.full((1, 4), 2, np.float32)
    block(ones)
    expected = block.backward(ones)
    block.zero_grad()
    block(ones)
    twin(twos)
    assert_array_equal(block.backward(ones), expected)
    assert [id(p) for p in twin.parameters()] == [id(p) for p in block.parameters()]
    assert twin["h"] is not block["h"]


def test_inputs_of_floats_take_the_dtype_of_the_parameters() -> None:
    block = residual()
    assert block(np.ones((2, 4))).dtype == np.float32
    assert block.backward(np.ones((2, 4))).dtype == np.float32
    block.astype(np.float64)
    assert block(np.ones((2, 4), np.float32)).dtype == np.float64
    assert block.backward(np.ones((2, 4), np.float32)).dtype == np.float64


def test_train_and_eval_reach_every_node() -> None:
    outer = nn.Graph({"y": (residual(), "x")})
    assert outer.eval() is outer
    assert not any(layer.training for _, layer in outer.named_layers())
    assert all(layer.training for _, layer in outer.train().named_layers())


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda graph: pickle.loads(pickle.dumps(graph))])
def test_a_copy_is_a_graph_of_its_own(copied: Callable[[nn.Graph], nn.Graph]) -> None:
    block = residual()
    x = np.ones((1, 4), np.float32)
    twin = copied(block)
    before = block(x)
    twin["r"].bias.data += 1
    assert_array_equal(block(x), before)
    assert_allclose(twin(x), before + 1, rtol=1e-6)
    twin.astype(np.float64)
    assert twin(x).dtype == np.float64
    assert block(x).dtype == np.float32


def test_no_grad_keeps_no_caches() -> None:
    block = residual()
    with nn.no_grad():
        block(np.ones((1, 4)))
    with pytest.raises(RuntimeError, match="call forward"):
        block.backward(np.ones((1, 4)))


def test_values_are_let_go_after_their_last_use() -> None:
    alive: list[weakref.ref[Array]] = []
    most = 0

    class Counting(nn.Layer):
        def forward(self, x: Array) -> Array:
            nonlocal most
            y = x + 1
            alive.append(weakref.ref(y))
            most = max(most, sum(reference() is not None for reference in alive))
            return y

    nodes = {f"{i + 1}": (Counting(), f"{i}") for i in range(10)}
    # Its input and its output are there when a node returns, and no others.
    assert nn.Graph(nodes, inputs="0")(np.zeros(2))[0] == 10
    assert most == 2


def test_a_graph_is_a_mapping_of_names_to_layers() -> None:
    block = residual()
    assert list(block) == ["h", "a", "r", "y"]
    assert len(block) == 4
    assert "h" in block
    assert "x" not in block
    assert repr(block["h"]) == "Linear(4, 8)"
    with pytest.raises(KeyError, match="no node 'z'; the nodes are 'h', 'a', 'r', 'y'"):
        block["z"]


@pytest.mark.parametrize(
    "graph",
    [
        residual(),
        formula(),
        nn.Graph({"w": nn.Weight(2.0), "y": (nn.Multiply(), "w", 3)}, inputs=()),
        nn.Graph({"a": (nn.Tanh(), "x"), "b": (nn.Tanh(), "a")}, outputs=("b", "a")),
        nn.Graph({"block": (residual(), "x"), "y": (nn.Sequential(nn.Tanh(), nn.ReLU()), "block")}),
        nn.Graph(
            {
                "inner": (
                    nn.Graph({"a": (nn.Tanh(), "x"), "b": (nn.Tanh(), "x")}, outputs=("a", "b")),
                    "z",
                ),
                "y": (nn.Add(), "inner.a", "inner.1"),
            },
            inputs="z",
        ),
    ],
    ids=["residual", "formula", "no inputs", "two outputs", "nested", "items"],
)
def test_the_repr_can_be_typed_back_in(graph: nn.Graph) -> None:
    again = eval(repr(graph), vars(nn))
    assert repr(again) == repr(graph)
    assert again.inputs == graph.inputs
    assert again.outputs == graph.outputs
    assert [*again.state_dict()] == [*graph.state_dict()]


def test_the_repr_shows_the_dictionary() -> None:
    assert repr(nn.Graph({"w": nn.Weight(2.0), "y": (nn.Multiply(), "w", "v")}, inputs="v")) == (
        "Graph({\n    'w': Weight(2.0),\n    'y': (Multiply(), 'w', 'v'),\n}, inputs='v')"
    )


# ---- graphs that are refused ----

TIED = nn.Linear(2, 2)

REFUSED: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "no dictionary": (
        lambda: nn.Graph([nn.Tanh()]),
        TypeError,
        r"expected a dictionary of name: \(layer, \*input names\), got list",
    ),
    "empty": (lambda: nn.Graph({}), ValueError, "the dictionary of nodes is empty"),
    "cycle": (
        lambda: nn.Graph({"a": (nn.Add(), "x", "b"), "b": (nn.Tanh(), "a"), "y": (nn.Tanh(), "b")}),
        ValueError,
        "the nodes '[ab]' -> '[ab]' -> '[ab]' form a cycle",
    ),
    "cycle of one": (
        lambda: nn.Graph({"a": (nn.Add(), "x", "a")}, outputs="a"),
        ValueError,
        "the nodes 'a' -> 'a' form a cycle",
    ),
    "unknown name": (
        lambda: nn.Graph({"h": (nn.Tanh(), "x"), "y": (nn.Tanh(), "z")}),
        ValueError,
        "node 'y' names 'z', but 'z' is not a node or an input; the nodes are 'h', 'y'",
    ),
    "unused node": (
        lambda: nn.Graph({"h": (nn.Tanh(), "x"), "y": (nn.Tanh(), "x")}, outputs="y"),
        ValueError,
        "no output depends on node 'h'",
    ),
    "unused branch": (
        lambda: nn.Graph(
            {"g": (nn.Tanh(), "x"), "h": (nn.Tanh(), "g"), "y": (nn.Tanh(), "x")}, outputs="y"
        ),
        ValueError,
        "no output depends on node 'g'",
    ),
    "several ends": (
        lambda: nn.Graph({"h": (nn.Tanh(), "x"), "y": (nn.Tanh(), "x")}),
        ValueError,
        "the nodes 'h', 'y' are used by no other node; say with outputs=",
    ),
    "unused input": (
        lambda: nn.Graph({"y": (nn.Tanh(), "x")}, inputs=("x", "z")),
        ValueError,
        "no node uses the input 'z'",
    ),
    "name of both": (
        lambda: nn.Graph({"x": (nn.Tanh(), "x")}),
        ValueError,
        "'x' is the name of an input and of a node",
    ),
    "input twice": (
        lambda: nn.Graph({"y": (nn.Add(), "x", "x")}, inputs=("x", "x")),
        ValueError,
        "inputs names 'x' twice",
    ),
    "output twice": (
        lambda: nn.Graph({"y": (nn.Tanh(), "x")}, outputs=("y", "y")),
        ValueError,
        "outputs names 'y' twice",
    ),
    "no output": (
        lambda: nn.Graph({"y": (nn.Tanh(), "x")}, outputs=()),
        ValueError,
        "outputs is empty",
    ),
    "output that is no node": (
        lambda: nn.Graph({"y": (nn.Tanh(), "x")}, outputs="z"),
        ValueError,
        "outputs names 'z', but 'z' is not a node; the nodes are 'y'",
    ),
    "output that is an input": (
        lambda: nn.Graph({"y": (nn.Tanh(), "x")}, outputs=("y", "x")),
        ValueError,
        "outputs names 'x', but 'x' is not a node",
    ),
    "output of a wrong type": (
        lambda: nn.Graph({"y": (nn.Tanh(), "x")}, outputs=(1,)),
        TypeError,
        "outputs must be names, got 1",
    ),
    "outputs of a wrong type": (
        lambda: nn.Graph({"y": (nn.Tanh(), "x")}, outputs={"y"}),
        TypeError,
        "outputs must be a name or a sequence of names, got {'y'}",
    ),
    "the same layer twice": (
        lambda: nn.Graph({"h": (TIED, "x"), "y": (TIED, "h")}),
        ValueError,
        r"Linear\(2, 2\) stands in node 'h' and again in node 'y'.*layer\.tied\(\)",
    ),
    "the same layer deeper": (
        lambda: nn.Graph({"h": (TIED, "x"), "y": (nn.Sequential(nn.Tanh(), TIED), "h")}),
        ValueError,
        r"Linear\(2, 2\) stands in node 'h' and again in node 'y'",
    ),
    "class for a layer": (
        lambda: nn.Graph({"y": (nn.Tanh, "x")}),
        TypeError,
        r"node 'y' must be \(layer, \*input names\), got Tanh; write Tanh\(\.\.\.\)",
    ),
    "name for a layer": (
        lambda: nn.Graph({"y": "x"}),
        TypeError,
        r"node 'y' must be \(layer, \*input names\), got str",
    ),
    "empty node": (
        lambda: nn.Graph({"y": ()}),
        TypeError,
        r"node 'y' must be \(layer, \*input names\), got tuple",
    ),
    "parameter for a layer": (
        lambda: nn.Graph({"w": nn.Parameter([1.0])}),
        TypeError,
        r"node 'w' must be .*got Parameter; make it a layer with nn\.Weight",
    ),
    "layer for a name": (
        lambda: nn.Graph({"y": (nn.Add(), "x", nn.Tanh())}),
        TypeError,
        "node 'y' has a Tanh for an input; make that a node of its own and name it here",
    ),
    "list for a name": (
        lambda: nn.Graph({"y": (nn.Add(), ["x", "x"])}),
        TypeError,
        "an input of node 'y' that is not a name must be a number",
    ),
    "too few inputs": (
        lambda: nn.Graph({"y": (nn.Subtract(), "x")}),
        TypeError,
        r"node 'y' gives 1 input\(s\) to Subtract\(\): missing a required argument: 'b'",
    ),
    "too many inputs": (
        lambda: nn.Graph({"y": (nn.Tanh(), "x", "x")}),
        TypeError,
        r"node 'y' gives 2 input\(s\) to Tanh\(\): too many",
    ),
    "no inputs": (
        lambda: nn.Graph({"y": nn.Tanh()}),
        TypeError,
        r"node 'y' gives 0 input\(s\) to Tanh\(\)",
    ),
    "name with a dot": (
        lambda: nn.Graph({"a.b": (nn.Tanh(), "x")}),
        ValueError,
        r"the node name 'a\.b' is empty or has a dot",
    ),
    "empty name": (
        lambda: nn.Graph({"y": (nn.Tanh(), "")}, inputs=""),
        ValueError,
        "the input name '' is empty or has a dot",
    ),
    "number for a name": (
        lambda: nn.Graph({1: (nn.Tanh(), "x")}),
        TypeError,
        "the name of a node must be a str, got 1",
    ),
    "item of an input": (
        lambda: nn.Graph({"y": (nn.Tanh(), "x.0")}),
        ValueError,
        r"node 'y' names 'x\.0', but 'x' is not a node",
    ),
    "item that is not an output": (
        lambda: nn.Graph({"block": (residual(), "x"), "y": (nn.Tanh(), "block.h")}),
        ValueError,
        r"'block\.h' is not a value.* 'block\.0'",
    ),
}


@pytest.mark.parametrize(("make", "error", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_no_graph_is_an_error_at_construction(
    make: Callable[[], Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match="^Graph: .*" + message) as caught:
        make()
    assert "\n" not in str(caught.value)


# ---- errors on the way ----


def test_a_wrong_number_of_inputs_is_an_error_that_names_them() -> None:
    with pytest.raises(TypeError, match=r"^Graph: expected 2 input\(s\), 'x', 'y', got 1$"):
        formula()(1.0)


@pytest.mark.parametrize("wrong", [np.array(["a"]), np.array([None]), np.ones(1, complex), None])
def test_an_input_that_is_not_of_numbers_is_an_error_that_names_it(wrong: Any) -> None:
    with pytest.raises(TypeError, match=r"^Graph: expected input 'y' of floats"):
        formula()(1.0, wrong)


def test_an_error_inside_a_node_names_the_node() -> None:
    outer = nn.Graph({"block": (residual(), "x")})
    message = r"^Graph node 'block': Graph node 'h': Linear\(4, 8\): expected .* got \(2, 3\)"
    with pytest.raises(ValueError, match=message):
        outer(np.ones((2, 3)))


@pytest.mark.parametrize(
    ("grad", "message"),
    [
        (np.ones(2), r"a tuple of 2 gradients, .* got ndarray"),
        ((np.ones(2),), r"a tuple of 2 gradients, .* got 1"),
        ((None, None), "no gradient for any output"),
        ((np.ones(2), np.ones(3)), r"of shape \(2,\), got shape \(3,\)"),
    ],
)
def test_gradients_that_do_not_fit_the_outputs_are_an_error_and_change_nothing(
    grad: Any, message: str
) -> None:
    graph = nn.Graph(
        {"w": nn.Weight(2.0), "a": (nn.Multiply(), "w", "x"), "b": (nn.Tanh(), "a")},
        outputs=("a", "b"),
    )
    graph(np.ones(2))
    with pytest.raises(ValueError, match="^Graph: .*" + message):
        graph.backward(grad)
    assert graph["w"].weight.grad is None


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (
            np.ones((1, 2)),
            r"a gradient of shape \(1, 2\) for 'h', which is of shape \(2,\)",
        ),
        ((np.ones(2), np.ones(2)), r"backward returned 2 gradients for 1 input"),
    ],
)
def test_a_layer_that_returns_what_is_no_gradient_of_its_input_is_named(
    returned: Any, message: str
) -> None:
    graph = nn.Graph({"h": (nn.Tanh(), "x"), "y": (Faulty(returned), "h")})
    graph(np.ones(2))
    with pytest.raises(RuntimeError, match="^Graph node 'y': .*" + message):
        graph.backward(np.ones(2))


def test_a_forward_that_failed_half_way_leaves_no_mixed_caches_to_backward() -> None:
    graph = nn.Graph({"h": (nn.Tanh(), "x"), "y": (nn.Add(), "h", "z")}, ("x", "z"))
    graph(np.ones(3), np.ones(3))
    with pytest.raises(ValueError, match=r"^Graph node 'y': Add\(\): "):
        graph(np.zeros(3), np.ones(2))
    with pytest.raises(RuntimeError, match="call forward"):
        graph.backward(np.ones(3))


def test_a_forward_that_failed_before_its_first_node_changes_nothing() -> None:
    block = residual().astype(np.float64)
    x = np.random.default_rng(0).normal(size=(2, 4))
    block(x)
    expected = block.backward(x)
    for wrong in (np.ones((2, 4), int), np.ones((2, 3)), np.array(["a"])):
        with pytest.raises((TypeError, ValueError)):
            block(wrong)
    assert_array_equal(block.backward(x), expected)


def test_an_error_of_another_class_stays_as_it_is() -> None:
    class Failing(nn.Layer):
        def forward(self, x: Array) -> Array:
            raise KeyError("key", 7)

    with pytest.raises(KeyError) as caught:
        nn.Graph({"y": (Failing(), "x")})(1.0)
    assert caught.value.args == ("key", 7)
