"""`Sequential`: the chain rule, the list methods, and errors."""

from __future__ import annotations

import copy
import itertools
import pickle
from collections import OrderedDict
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

import nnlite as nn
from nnlite import layer as base
from nnlite.layers import containers, graph

from ..interrupts import interrupt_on_each_line
from ..registry import Array


@pytest.fixture
def layers() -> list[nn.Layer]:
    return [nn.Linear(4, 3, rng=0), nn.ReLU(), nn.Linear(3, 2, rng=1), nn.Tanh()]


# ---- the chain rule ----


def test_forward_and_backward_are_those_of_the_layers_in_turn(
    layers: list[nn.Layer], rng: np.random.Generator
) -> None:
    model = nn.Sequential(*copy.deepcopy(layers)).astype(np.float64)
    x = rng.normal(size=(5, 4))
    y = x
    for layer in layers:
        y = layer.astype(np.float64)(y)
    assert_array_equal(model(x), y)
    grad = rng.normal(size=y.shape)
    model_grad = model.backward(grad)
    for layer in reversed(layers):
        grad = layer.backward(grad)
    assert_array_equal(model_grad, grad)
    for mine, theirs in zip(model.parameters(), nn.Sequential(*layers).parameters(), strict=True):
        assert_array_equal(mine.grad, theirs.grad)


@given(
    widths=st.lists(st.integers(1, 4), min_size=2, max_size=5),
    batch=st.integers(1, 4),
    activation=st.sampled_from([nn.Sigmoid, nn.Tanh, nn.Softmax]),
)
def test_gradients_agree_with_central_differences_for_all_depths(
    widths: list[int], batch: int, activation: type[nn.Layer]
) -> None:
    model = nn.Sequential()
    for fan_in, fan_out in itertools.pairwise(widths):
        model.append(nn.Linear(fan_in, fan_out, rng=len(model))).append(activation())
    x = np.random.default_rng(0).normal(size=(batch, widths[0]))
    assert nn.gradcheck(model, x).passed


def test_without_input_grad_no_layer_computes_what_nobody_wants(rng: np.random.Generator) -> None:
    asked: list[tuple[str, bool]] = []

    class Spy(nn.Linear):
        def backward(self, grad: Array, input_grad: bool = True) -> Array | None:
            asked.append((f"{self.in_features}", input_grad))
            return super().backward(grad, input_grad)

    model = nn.Sequential(nn.Flatten(), Spy(4, 3), nn.ReLU(), nn.Sequential(Spy(3, 2)))
    model(rng.normal(size=(5, 4)))
    assert model.backward(np.ones((5, 2)), input_grad=False) is None
    assert asked == [("3", True), ("4", False)]


def test_frozen_layers_in_front_are_not_gone_through(rng: np.random.Generator) -> None:
    class Frozen(nn.Linear):
        def backward(self, grad: Array, input_grad: bool = True) -> Array | None:
            raise AssertionError("nobody needs this gradient")

    model = nn.Sequential(Frozen(4, 3), nn.ReLU(), nn.Linear(3, 2))
    for parameter in model[0].parameters():
        parameter.requires_grad = False
    model(rng.normal(size=(5, 4)))
    assert model.backward(np.ones((5, 2)), input_grad=False) is None
    assert model[2].weight.grad is not None


def test_an_empty_container_is_the_identity(rng: np.random.Generator) -> None:
    x = rng.normal(size=(2, 3))
    model = nn.Sequential()
    assert_array_equal(model(x), x)
    assert_array_equal(model.backward(2 * x), 2 * x)
    assert model.backward(x, input_grad=False) is None
    assert list(model.parameters()) == []
    assert repr(model) == "Sequential()"


def test_containers_nest(layers: list[nn.Layer], rng: np.random.Generator) -> None:
    flat = nn.Sequential(*copy.deepcopy(layers))
    nested = nn.Sequential(
        nn.Sequential(layers[0], nn.Sequential(layers[1])), nn.Sequential(), *layers[2:]
    )
    x = rng.normal(size=(5, 4)).astype(np.float32)
    assert_array_equal(nested(x), flat(x))
    grad = rng.normal(size=(5, 2)).astype(np.float32)
    assert_array_equal(nested.backward(grad), flat.backward(grad))
    assert list(nested.state_dict()) == ["0.0.weight", "0.0.bias", "2.weight", "2.bias"]


def test_a_tied_layer_gets_the_sum_of_the_gradients_of_its_uses(rng: np.random.Generator) -> None:
    step = nn.Linear(3, 3, rng=0).astype(np.float64)
    model = nn.Sequential(step, nn.Tanh(), step.tied())
    assert len(list(model.parameters())) == 2
    assert nn.gradcheck(model, rng.normal(size=(4, 3))).passed


def test_a_container_that_is_tied_shares_all_parameters(
    layers: list[nn.Layer], rng: np.random.Generator
) -> None:
    model = nn.Sequential(*layers)
    twin = model.tied()
    assert all(p is q for p, q in zip(model.parameters(), twin.parameters(), strict=True))
    assert not any(a is b for a, b in zip(model, twin, strict=True))
    twin.append(nn.ReLU())
    assert len(model) == 4


# ---- a list of layers ----


def test_length_index_and_iteration(layers: list[nn.Layer]) -> None:
    model = nn.Sequential(*layers)
    assert len(model) == 4
    assert list(model) == layers
    assert [model[i] for i in range(-4, 4)] == layers + layers
    assert model[np.int64(1)] is layers[1]
    assert layers[1] in model
    assert nn.ReLU() not in model
    assert list(reversed(model)) == layers[::-1]
    for index in (4, -5):
        with pytest.raises(IndexError):
            model[index]


@given(st.slices(4))
def test_a_slice_is_a_container_of_the_same_layers(piece: slice) -> None:
    layers = [nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2), nn.Tanh()]
    model = nn.Sequential(*layers)
    part = model[piece]
    assert type(part) is nn.Sequential
    assert list(part) == layers[piece]
    part.append(nn.ReLU())
    assert list(model) == layers


def test_append_extend_and_insert_return_the_container(layers: list[nn.Layer]) -> None:
    a, b, c, d = layers
    model = nn.Sequential(b)
    assert model.append(d) is model
    assert model.insert(0, a) is model
    assert model.insert(-1, c) is model
    assert list(model) == layers
    more = [nn.ReLU(), nn.Tanh()]
    assert model.extend(iter(more)) is model
    assert list(model) == layers + more
    assert [name for name, _ in model.named_children()] == ["0", "1", "2", "3", "4", "5"]


def test_assignment_and_deletion(layers: list[nn.Layer]) -> None:
    model = nn.Sequential(*layers)
    new = nn.Sigmoid()
    model[1] = new
    model[-1] = layers[1]
    assert list(model) == [layers[0], new, layers[2], layers[1]]
    model[1] = new  # in its own place it does not stand twice
    del model[0]
    assert list(model) == [new, layers[2], layers[1]]
    del model[::2]
    assert list(model) == [layers[2]]
    with pytest.raises(IndexError):
        model[5] = nn.ReLU()
    with pytest.raises(IndexError):
        del model[5]
    assert list(model) == [layers[2]]


def test_slices_can_be_assigned(layers: list[nn.Layer]) -> None:
    model = nn.Sequential(*layers)
    new = [nn.Sigmoid(), nn.Sigmoid(), nn.Sigmoid()]
    model[1:3] = new
    assert list(model) == [layers[0], *new, layers[3]]
    model[1:1] = nn.Sequential(layers[1], layers[2])
    assert list(model) == [*layers[:3], *new, layers[3]]


def test_a_shallow_copy_is_another_list_of_the_same_layers(layers: list[nn.Layer]) -> None:
    model = nn.Sequential(*layers)
    twin = copy.copy(model)
    del twin[0]
    twin.append(nn.ReLU())
    assert list(model) == layers


def test_repr_is_one_line_for_each_layer(layers: list[nn.Layer]) -> None:
    model = nn.Sequential(nn.Sequential(*layers[:2]), layers[2])
    assert repr(model) == (
        "Sequential(\n"
        "    Sequential(\n"
        "        Linear(4, 3),\n"
        "        ReLU(),\n"
        "    ),\n"
        "    Linear(3, 2),\n"
        ")"
    )


# ---- errors ----


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([nn.ReLU()], r"^Sequential: expected layers, got list; write Sequential\(\*layers\)$"),
        ((nn.ReLU(),), r"^Sequential: expected layers, got tuple; write Sequential\(\*layers\)$"),
        ((x for x in [nn.ReLU()]), "^Sequential: expected layers, got generator"),
        ("relu", "^Sequential: expected layers, got str"),
        (None, "^Sequential: expected layers, got NoneType"),
        (np.tanh, "^Sequential: expected layers, got ufunc"),
        (nn.ReLU, "^Sequential: expected layers, got .*ReLU"),
        (nn.Parameter([1.0]), "^Sequential: expected layers, got Parameter"),
    ],
    ids=["list", "tuple", "generator", "string", "None", "function", "class", "parameter"],
)
def test_what_is_not_a_layer_is_an_error_and_changes_nothing(
    given: Any, message: str, layers: list[nn.Layer]
) -> None:
    with pytest.raises(TypeError, match=message):
        nn.Sequential(given)
    model = nn.Sequential(*layers)
    for put in (
        lambda: model.append(given),
        lambda: model.insert(0, given),
        lambda: model.extend([nn.ReLU(), given]),
        lambda: model.__setitem__(0, given),
    ):
        with pytest.raises(TypeError, match=message):
            put()
        assert list(model) == layers


def test_the_same_layer_twice_is_an_error_that_names_tied(layers: list[nn.Layer]) -> None:
    message = r"^Sequential: Linear\(4, 3\) stands at 0 and again at {}, .*tied\(\)"
    first = layers[0]
    with pytest.raises(ValueError, match=message.format(2)):
        nn.Sequential(first, nn.ReLU(), first)
    model = nn.Sequential(*layers)
    for place, put in (
        (4, lambda: model.append(first)),
        (2, lambda: model.insert(2, first)),
        (5, lambda: model.extend([nn.ReLU(), first])),
        (3, lambda: model.__setitem__(3, first)),
        (4, lambda: model.append(nn.Sequential(first))),
    ):
        with pytest.raises(ValueError, match=message.format(place)):
            put()
        assert list(model) == layers
    nn.Sequential(first, nn.ReLU(), first.tied(), first.tied())


def test_an_input_that_does_not_fit_is_an_error_of_the_layer_that_refuses_it(
    layers: list[nn.Layer],
) -> None:
    model = nn.Sequential(nn.ReLU(), *layers)
    before = model.state_dict()
    with pytest.raises(
        ValueError, match=r"^Linear\(4, 3\): expected input of shape \(N, \.\.\., 4\)"
    ):
        model(np.ones((2, 5)))
    for name, value in model.state_dict().items():
        assert_array_equal(value, before[name])


def test_layers_that_do_not_fit_one_another_are_an_error_of_the_second() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(5, 2))
    with pytest.raises(ValueError, match=r"^Linear\(5, 2\): .*got \(2, 3\)"):
        model(np.ones((2, 4)))


def test_after_a_forward_that_failed_backward_leaves_no_half_updated_gradients() -> None:
    model = nn.Sequential(nn.Tanh(), nn.Linear(4, 2, rng=0))
    model(np.ones((2, 4)))
    with pytest.raises(ValueError, match="expected input"):
        model(np.ones((3, 5)))
    try:
        model.backward(np.ones((2, 2)))
    except (RuntimeError, ValueError):
        assert model[1].weight.grad is None
    else:
        assert_allclose(model[1].bias.grad, [2, 2])


# ---- names ----


def test_named_layers_have_pytorchs_keys() -> None:
    torch = pytest.importorskip("torch")

    def build(nn: Any) -> Any:
        return nn.Sequential(OrderedDict([("hidden", nn.Linear(2, 3)), ("out", nn.Linear(3, 1))]))

    mine, theirs = build(nn), build(torch.nn)
    assert list(mine.state_dict()) == list(theirs.state_dict())
    assert mine.hidden is mine[0]
    mine.append(nn.Linear(1, 1))
    theirs.append(torch.nn.Linear(1, 1))
    assert list(mine.state_dict()) == list(theirs.state_dict())
    assert list(mine[:1].state_dict()) == ["hidden.weight", "hidden.bias"]
    del mine[0]
    assert [name for name, _ in mine.named_children()] == ["out", "1"]
    assert repr(eval(repr(mine), vars(nn))) == repr(mine)
    assert copy.deepcopy(mine).out is not mine.out
    assert pickle.loads(pickle.dumps(mine)).out.weight.shape == (1, 3)
    with pytest.raises(AttributeError, match="Sequential has no attribute or layer 'hidden'"):
        _ = mine.hidden


@pytest.mark.parametrize("name", ["", "a.b", 1])
def test_a_name_that_is_no_key_is_an_error(name: Any) -> None:
    with pytest.raises(ValueError, match="^Sequential: each layer needs a name of its own"):
        nn.Sequential({name: nn.Tanh()})


def test_a_name_that_is_the_position_of_another_layer_is_an_error_and_changes_nothing() -> None:
    model = nn.Sequential({"1": nn.Tanh()})
    with pytest.raises(ValueError, match="got '1'"):
        model.append(nn.Tanh())
    assert len(model) == 1


# ---- another forward between forward and backward ----


def graph_of(*layers: nn.Layer) -> nn.Graph:
    nodes = {f"n{i}": (layer, f"n{i - 1}" if i else "x") for i, layer in enumerate(layers)}
    return nn.Graph(nodes)


@pytest.mark.parametrize(
    "container",
    [nn.Sequential, graph_of, nn.Residual, lambda *layers: nn.Sequential(nn.Sequential(*layers))],
    ids=["Sequential", "Graph", "Residual", "nested"],
)
def test_a_layer_that_was_called_in_between_is_an_error(
    container: Any, rng: np.random.Generator
) -> None:
    layers = nn.Linear(3, 3, rng=0), nn.Tanh(), nn.Linear(3, 3, rng=1)
    model, other = container(*layers), container(*layers)
    x, grad = rng.normal(size=(2, 3)), np.ones((2, 3))
    model(x)
    expected = model.backward(grad)
    for between in (
        lambda: layers[1](x + 1),
        lambda: nn.Sequential(*layers[:2])(x),
        lambda: other(x),
    ):
        model(x)
        between()
        for parameter in model.parameters():
            parameter.zero_grad()
        with pytest.raises(
            RuntimeError, match=r"was called again after this .* call forward again"
        ):
            model.backward(grad)
        assert all(parameter.grad is None for parameter in model.parameters())
        model(x)
        assert_array_equal(model.backward(grad), expected)


def test_a_frozen_front_that_two_models_share_needs_no_cache(rng: np.random.Generator) -> None:
    front = nn.Linear(3, 3, rng=0).requires_grad_(False)
    first, second = (nn.Sequential(front, nn.Linear(3, 1, rng=seed)) for seed in (1, 2))
    for model in (first, second):
        model(rng.normal(size=(2, 3)))
    for model in (first, second):
        model.backward(np.ones((2, 1)), input_grad=False)
        assert model[1].weight.grad is not None


@pytest.mark.parametrize("container", [nn.Sequential, graph_of, nn.Residual])
def test_an_overridden_call_of_a_layer_is_called(container: Any) -> None:
    class Doubling(nn.Identity):
        def __call__(self, *inputs: Any, **options: Any) -> Any:
            return 2 * super().__call__(*inputs, **options)

    x = np.ones((1, 2))
    expected = 3 * x if container is nn.Residual else 2 * x
    assert_array_equal(container(Doubling())(x), expected)


@pytest.mark.parametrize(
    "change",
    [
        lambda model: model.append(nn.ReLU()),
        lambda model: model.insert(0, nn.ReLU()),
        lambda model: model.__setitem__(0, nn.ReLU()),
        lambda model: model.__delitem__(0),
    ],
)
def test_backward_after_a_change_of_the_layers_is_an_error(change: Any) -> None:
    model = nn.Sequential(nn.Linear(3, 3, rng=0), nn.Tanh())
    x = np.ones((2, 3), np.float32)
    model(x)
    change(model)
    with pytest.raises(RuntimeError, match="layers changed after this forward; call forward again"):
        model.backward(x)
    assert model.backward(model(x)).shape == x.shape


@pytest.mark.parametrize("container", [nn.Sequential, graph_of, nn.Residual])
def test_an_interrupt_on_any_line_is_what_the_caller_sees(container: Any) -> None:
    model, x = container(nn.Linear(3, 3, rng=0)), np.ones((2, 3), np.float32)
    expected = model(x), model.backward(x)
    interrupt_on_each_line(lambda: model.backward(model(x)), base, containers, graph)
    assert_array_equal(model(x), expected[0])
    assert_array_equal(model.backward(x), expected[1])
