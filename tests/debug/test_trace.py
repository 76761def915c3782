"""trace: values and gradients computed by hand, the first problem, and no side effects."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal, assert_equal

import nnlite as nn
from nnlite.random import generator

from ..registry import LAYERS, Array, LayerCase


class Times(nn.Layer):
    """y = factor · x, with a factor that need not be finite, and another one on the way back."""

    def __init__(self, factor: float, back: float | None = None) -> None:
        self.factor = factor
        self.back = factor if back is None else back

    def forward(self, x: Array) -> Any:
        self.cache(None)
        return np.multiply(x, self.factor, dtype=x.dtype)

    def backward(self, grad: Array, input_grad: bool = True) -> Any:
        self.cached()
        return np.multiply(grad, self.back, dtype=grad.dtype)


class Scale(nn.Layer):
    """y = weight · x."""

    def __init__(self, weight: float) -> None:
        self.weight = nn.Parameter([float(weight)])

    def forward(self, x: Array) -> Any:
        self.cache(x)
        return x * self.weight.data

    def backward(self, grad: Array, input_grad: bool = True) -> Any:
        (x,) = self.cached()
        self.weight.accumulate(np.sum(grad * x).reshape(1))
        return grad * self.weight.data


class Both(nn.Layer):
    """y = f(x) + g(x): a container with work of its own."""

    def __init__(self, f: nn.Layer, g: nn.Layer) -> None:
        self.f = f
        self.g = g

    def forward(self, x: Array) -> Any:
        return self.f(x) + self.g(x)

    def backward(self, grad: Array, input_grad: bool = True) -> Any:
        return self.f.backward(grad) + self.g.backward(grad)


class HalfSquare(nn.Layer):
    """Loss: half the sum of (p - t)²."""

    def forward(self, prediction: Array, target: Array) -> float:
        self.cache(prediction - target)
        return float(np.sum((prediction - target) ** 2) / 2)

    def backward(self, grad: float = 1.0, input_grad: bool = True) -> Any:
        (difference,) = self.cached()
        return grad * difference


def floats(*values: Any) -> Array:
    return np.array(values, dtype=np.float32)


def two_layers() -> nn.Sequential:
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1))
    model[0].weight.data = floats([1, 2], [3, 4])
    model[0].bias.data = floats(0, -10)
    model[2].weight.data = floats([5, 6])
    model[2].bias.data = floats(7)
    return model


def kinds(t: Any, **limits: float) -> list[tuple[str, str]]:
    return [(problem.kind, problem.name) for problem in t.problems(**limits)]


# ---- the figures ----


def test_every_value_and_gradient_is_that_of_the_calculation_by_hand() -> None:
    t = nn.trace(two_layers(), floats([1, 1]), loss=HalfSquare(), target=floats([20]))
    # z = (1·1 + 2·1, 3·1 + 4·1 - 10), a = max(z, 0), y = 5·3 + 6·0 + 7 = 22, L = (22 - 20)² / 2
    assert t["0"].value.tolist() == [[3, -3]]
    assert t["1"].value.tolist() == [[3, 0]]
    assert t["2"].value.tolist() == [[22]]
    assert t["loss"].value == 2
    # dL/dy = 2, dL/da = 2 · (5, 6), dL/dz = (10, 0), dL/dx = 10 · (1, 2)
    assert t["2"].grad.tolist() == [[2]]
    assert t["1"].grad.tolist() == [[10, 12]]
    assert t["0"].grad.tolist() == [[10, 0]]
    assert t["input"].grad.tolist() == [[10, 20]]
    # dL/dW2 = 2 · a, dL/db2 = 2, dL/dW1 = dL/dz · x
    assert t["2.weight"].grad.tolist() == [[6, 0]]
    assert t["2.bias"].grad.tolist() == [2]
    assert t["0.weight"].grad.tolist() == [[10, 10], [0, 0]]
    assert t["0.bias"].grad.tolist() == [10, 0]
    assert t["0.weight"].value.tolist() == [[1, 2], [3, 4]]
    assert t.problems() == []


def test_the_nodes_of_a_formula_have_the_gradients_of_its_derivation() -> None:
    # f = (x + σ(y)) / (σ(x) + (x + y)²), from Stanford's cs231n, at x = 3, y = -4.
    f = nn.Graph(
        {
            "sigy": (nn.Sigmoid(), "y"),
            "num": (nn.Add(), "x", "sigy"),
            "sigx": (nn.Sigmoid(), "x"),
            "xpy": (nn.Add(), "x", "y"),
            "xpysqr": (nn.Square(), "xpy"),
            "den": (nn.Add(), "sigx", "xpysqr"),
            "f": (nn.Divide(), "num", "den"),
        },
        inputs=("x", "y"),
    )
    t = nn.trace(f, 3.0, -4.0)
    sigy, sigx = 1 / (1 + math.exp(4)), 1 / (1 + math.exp(-3))
    num, den = 3 + sigy, sigx + 1
    values = {"sigy": sigy, "num": num, "sigx": sigx, "xpy": -1, "xpysqr": 1, "den": den}
    grads = {
        "f": 1,
        "num": 1 / den,
        "den": -num / den**2,
        "xpysqr": -num / den**2,
        "xpy": 2 * -1 * -num / den**2,
        "sigx": -num / den**2,
        "sigy": 1 / den,
        "x": 2.0595697955721652,
        "y": 1.5922327514838093,
    }
    for name, value in values.items():
        assert_allclose(t[name].value, value, rtol=1e-15)
    for name, grad in grads.items():
        assert_allclose(t[name].grad, grad, rtol=1e-15)


def test_without_a_loss_it_is_the_gradient_of_the_sum_of_the_outputs() -> None:
    x = floats([1, 1], [2, -1])
    model = two_layers()
    model(x)
    expected = model.backward(np.ones((2, 1), np.float32))
    assert_array_equal(nn.trace(model, x)["input"].grad, expected)


def test_a_gradient_can_be_given() -> None:
    t = nn.trace(two_layers(), floats([1, 1]), grad=floats([-3]).reshape(1, 1))
    assert t.output.grad.tolist() == [[-3]]
    assert t["input"].grad.tolist() == [[-15, -30]]


@pytest.mark.parametrize("case", LAYERS, ids=lambda case: case.name)
def test_any_layer_can_be_traced(case: LayerCase, rng: np.random.Generator) -> None:
    layer, inputs = case.make().astype(np.float64), case.inputs(rng, 3)
    nn.seed(0)
    output = layer(*inputs)
    nn.seed(0)
    t = nn.trace(case.make().astype(np.float64), *inputs)
    returned = layer.backward(np.ones_like(output))
    assert_array_equal(t.output.value, output)
    grads = returned if isinstance(returned, tuple) else (returned,)
    for entry, grad in zip(t.inputs, grads, strict=True):
        assert_equal(entry.grad, grad)
    for name, parameter in layer.named_parameters():
        assert_equal(t[name].grad, parameter.grad)


def test_every_gradient_agrees_with_pytorch() -> None:
    torch = pytest.importorskip("torch")
    model = nn.Sequential(
        nn.Linear(5, 4), nn.Tanh(), nn.Sequential(nn.Linear(4, 3), nn.Sigmoid()), nn.Linear(3, 2)
    ).astype(np.float64)
    x = np.random.default_rng(0).normal(size=(6, 5))
    labels = np.array([0, 1, 1, 0, 1, 1])
    t = nn.trace(model, x, loss=nn.CrossEntropy(), target=labels)

    state = {name: torch.tensor(value) for name, value in model.state_dict().items()}
    value = torch.tensor(x)
    kept = []
    for name, weight in (("0", "0"), ("1", None), ("2.0", "2.0"), ("2.1", None), ("3", "3")):
        if weight:
            value = torch.nn.functional.linear(
                value.requires_grad_(),
                state[f"{weight}.weight"].requires_grad_(),
                state[f"{weight}.bias"].requires_grad_(),
            )
        else:
            value = torch.tanh(value) if name == "1" else torch.sigmoid(value)
        value.retain_grad()
        kept.append((name, value))
    loss = torch.nn.functional.cross_entropy(value, torch.tensor(labels))
    loss.backward()
    assert_allclose(t["loss"].value, loss.item(), rtol=1e-12)
    for name, tensor in kept:
        assert_allclose(t[name].value, tensor.detach().numpy(), rtol=1e-12)
        assert_allclose(t[name].grad, tensor.grad.numpy(), rtol=1e-10, atol=1e-14)
    for name, tensor in state.items():
        assert_allclose(t[name].grad, tensor.grad.numpy(), rtol=1e-10, atol=1e-14)


# ---- names of entries ----


def test_names_are_in_the_order_of_the_forward() -> None:
    inner = nn.Sequential(nn.Linear(2, 2), nn.Tanh())
    t = nn.trace(nn.Sequential(inner, nn.Linear(2, 1)), floats([1, 1]), loss=HalfSquare(), target=1)
    assert list(t) == [
        "input",
        "0.0",
        "0.0.weight",
        "0.0.bias",
        "0.1",
        "0",
        "1",
        "1.weight",
        "1.bias",
        "output",
        "loss",
    ]
    assert len(t) == 11
    assert t["0"].value is not None
    assert_array_equal(t["0"].value, t["0.1"].value)
    assert_array_equal(t["output"].grad, t["1"].grad)
    assert t.output is t["output"]
    assert t.loss is t["loss"]


def test_a_single_layer_is_the_output() -> None:
    t = nn.trace(nn.Linear(2, 1), floats([1, 1]))
    assert list(t) == ["input", "output", "weight", "bias"]
    assert t["output"].shape == (1, 1)


def test_several_inputs_have_numbers_or_the_names_that_the_model_gives_them() -> None:
    assert list(nn.trace(nn.Multiply(), floats(2), floats(3)))[:2] == ["input[0]", "input[1]"]
    graph = nn.Graph({"product": (nn.Multiply(), "a", "b")}, inputs=("a", "b"))
    t = nn.trace(graph, floats(2), floats(3))
    assert (t["a"].grad, t["b"].grad) == (3, 2)
    assert [entry.name for entry in t.inputs] == ["a", "b"]


def test_names_that_are_taken_are_not_taken_twice() -> None:
    graph = nn.Graph(
        {"input": (Times(2), "x"), "loss": (Times(3), "input"), "output": (Times(5), "loss")}
    )
    t = nn.trace(nn.Sequential(graph), floats(1), loss=HalfSquare(), target=floats(0))
    assert (t["0.output"].value, t["output"].value, t["loss"].value) == (30, 30, 450)
    t = nn.trace(graph, floats(1), loss=HalfSquare(), target=floats(0))
    assert (t["x"].value, t["input"].value, t["loss"].value, t["output"].value) == (1, 2, 6, 30)
    assert (t.output.value, t.loss.value) == (30, 450)


def test_an_unknown_name_is_an_error_that_lists_the_names() -> None:
    with pytest.raises(KeyError, match=r"'5'; there are 'input', '0', '1'"):
        nn.trace(nn.Sequential(Times(1), Times(1)), floats(1))["5"]


def test_shared_weights_are_found_once_with_the_sum_of_their_gradients() -> None:
    step = Scale(3)
    t = nn.trace(nn.Sequential(step, step.tied()), floats(2))
    assert list(t) == ["input", "0", "0.weight", "1", "output"]
    assert t["0.weight"].grad == 2 * 3 * 2  # d(w² x)/dw = 2 w x


def test_integers_have_no_gradient() -> None:
    class Lookup(nn.Layer):
        def forward(self, indices: Array) -> Any:
            self.cache()
            return np.eye(3)[indices]

        def backward(self, grad: Array, input_grad: bool = True) -> Any:
            return None

    t = nn.trace(nn.Sequential(Lookup(), nn.Linear(3, 2).astype(np.float64)), np.array([0, 2]))
    assert t["input"].grad is None
    assert t["0"].grad.shape == (2, 3)
    assert t["input"].value.dtype.kind == "i"


def test_several_outputs_are_tuples() -> None:
    graph = nn.Graph({"a": (Times(2), "x"), "b": (Times(3), "x")}, outputs=("a", "b"))
    t = nn.trace(graph, floats(1))
    assert t.output.shape == ((1,), (1,))
    assert [float(v[0]) for v in t.output.value] == [2, 3]
    assert t["x"].grad == 5
    assert "((1,), (1,))" in str(t)


def test_a_layer_that_is_not_called_is_there_without_a_value() -> None:
    class Skips(Both):
        def forward(self, x: Array) -> Any:
            return self.f(x)

        def backward(self, grad: Array, input_grad: bool = True) -> Any:
            return self.f.backward(grad)

    t = nn.trace(Skips(Times(2), Scale(3)), floats(1))
    assert t["f"].value == 2
    assert t["g"].value is None
    assert t["g"].shape is None
    assert t["g.weight"].grad is None
    assert "none" in str(t)


def test_a_layer_that_is_called_twice_shows_its_last_call() -> None:
    class Again(nn.Layer):
        def __init__(self) -> None:
            self.step = Times(3)
            self.other = Times(1)

        def forward(self, x: Array) -> Any:
            return self.step(self.other(self.step(x)))

        def backward(self, grad: Array, input_grad: bool = True) -> Any:
            return self.step.backward(self.other.backward(self.step.backward(grad)))

    t = nn.trace(Again(), floats(1))
    assert list(t) == ["input", "other", "step", "output"]
    assert t["step"].value == 9


def test_gradients_that_do_not_fit_the_inputs_are_left_out() -> None:
    class Three(nn.Multiply):
        def backward(self, grad: Array, input_grad: bool = True) -> Any:
            return grad, grad, grad

    t = nn.trace(Three(), floats(2), floats(3))
    assert [entry.grad for entry in t.inputs] == [None, None]


# ---- the table ----


def test_the_table_shows_ranges_and_norms() -> None:
    t = nn.trace(two_layers(), floats([1, 1]), loss=HalfSquare(), target=floats([20]))
    rows = [line.split() for line in str(t).splitlines()]
    assert rows[1] == ["name", "layer", "shape", "min", "max", "norm", "grad", "norm"]
    # min, max, √(3² + 3²), and the gradient (10, 0)
    assert rows[3] == ["0", "Linear(2,", "2)", "(1,", "2)", "-3", "3", "4.243", "10"]
    assert [row[0] for row in rows[2:]] == (
        ["input", "0", "0.weight", "0.bias", "1", "2", "2.weight", "2.bias", "loss"]
    )


def test_a_container_is_shown_where_it_does_something_itself() -> None:
    model = nn.Sequential(Both(Times(2), Times(3)), nn.Sequential(Times(1)))
    shown = [line.split()[0] for line in str(nn.trace(model, floats(1))).splitlines()[2:]]
    assert shown == ["input", "0.f", "0.g", "0", "1.0"]


def test_the_table_is_html_in_a_notebook() -> None:
    class Odd(Times):
        def __repr__(self) -> str:
            return "<b>&"

    html = nn.trace(nn.Sequential(Odd(1)), floats(np.nan))._repr_html_()
    assert "<b>" not in html
    assert "&lt;b&gt;&amp;" in html
    assert "input has 1 NaN" in html


# ---- where it goes wrong ----


@pytest.mark.parametrize(
    ("model", "x", "problem"),
    [
        (lambda: nn.Sequential(Times(2), Times(3)), np.nan, ("not finite", "input")),
        (lambda: nn.Sequential(Times(2), Times(np.inf, 1), Times(2)), 1, ("not finite", "1")),
        (lambda: nn.Sequential(Times(2), Times(np.nan, 1), Times(2)), 1, ("not finite", "1")),
        (lambda: nn.Sequential(Times(1e30), Times(1e30), Times(1)), 1, ("not finite", "1")),
        (lambda: nn.Sequential(Times(2), Scale(np.nan), Times(2)), 1, ("not finite", "1.weight")),
        (
            lambda: nn.Sequential(
                Times(2), nn.Sequential(Times(2), nn.Sequential(Times(np.inf, 1)))
            ),
            1,
            ("not finite", "1.1.0"),
        ),
        (lambda: nn.Sequential(Times(2), nn.Log()), -1, ("not finite", "1")),
    ],
)
def test_the_first_value_that_is_not_finite_is_found(
    model: Callable[[], nn.Layer], x: float, problem: tuple[str, str]
) -> None:
    t = nn.trace(model(), floats(x))
    assert kinds(t)[0] == problem
    assert kinds(t).count(problem) == 1
    assert str(t).count("\n! ") == len(t.problems())


def test_a_layer_is_not_blamed_for_its_parameter() -> None:
    t = nn.trace(nn.Sequential(Times(2), nn.Sequential(Scale(np.nan))), floats(1))
    assert not any("makes" in problem.message for problem in t.problems())
    assert str(t.problems()[0]) == "1.0.weight has 1 NaN"


@pytest.mark.parametrize(
    ("model", "problems"),
    [
        ([Times(1), Times(2, back=np.inf), Times(3)], [("not finite", "1")]),
        ([Times(1), nn.Sequential(Times(2, back=np.nan)), Times(3)], [("not finite", "1.0")]),
        ([Times(2), Times(2, back=0), Times(3)], [("dead", "1")]),
        ([Times(2), nn.Sequential(Times(2, back=0)), Times(3)], [("dead", "1.0")]),
        ([Times(30), Times(30), Times(30)], [("exploding", "0")]),
        ([Times(30), Times(30), Times(30), Times(30)], [("exploding", "1")]),
        ([Times(30), Times(30), nn.Sequential(Times(3000))], [("exploding", "2.0")]),
        ([Times(1), Times(1, back=1e-4), Times(1, back=1e-4)], [("vanishing", "1")]),
        ([Times(40), Times(30)], [("exploding", "0")]),
        ([Times(30), Times(30)], []),
        (
            [Both(Times(1, back=0), Times(1, back=0)), Times(1)],
            [("dead", "0.f"), ("dead", "0.g")],
        ),
        ([Times(1), Times(1)], []),
    ],
)
def test_the_layer_at_which_a_gradient_goes_wrong_is_found(
    model: list[nn.Layer], problems: list[tuple[str, str]]
) -> None:
    assert kinds(nn.trace(nn.Sequential(*model), floats(1))) == problems


def test_a_gradient_for_many_elements_is_no_larger_for_being_many() -> None:
    class Total(Times):
        """The sum of each row: its gradient is the same for all elements."""

        def forward(self, x: Array) -> Any:
            self.cache(x.shape)
            return x.sum(axis=1, keepdims=True)

        def backward(self, grad: Array, input_grad: bool = True) -> Any:
            return np.broadcast_to(grad, *self.cached())

    t = nn.trace(nn.Sequential(Total(1)), np.ones((2, 10_000), np.float32))
    assert kinds(t, exploding=1.5, vanishing=0.5) == []


def test_the_sentence_has_the_factor() -> None:
    t = nn.trace(nn.Sequential(Times(40), Times(30)), floats(1), grad=floats(0.5))
    assert "Times" in str(t.problems()[0])
    assert "1.2e+03 times that of the output" in str(t.problems()[0])


def test_a_parameter_whose_gradient_is_not_finite_is_found() -> None:
    class Broken(Scale):
        def backward(self, grad: Array, input_grad: bool = True) -> Any:
            self.weight.accumulate(floats(np.inf))
            return grad

    t = nn.trace(nn.Sequential(Broken(1), Times(1)), floats(1))
    assert kinds(t) == [("not finite", "0.weight")]


def test_dead_units_are_told_from_where_they_stop_the_gradient() -> None:
    model = two_layers()
    model[0].bias.data = floats(-100, -100)
    t = nn.trace(model, floats([1, 1]))
    # The units are silent, so the weights above them get nothing either.
    assert kinds(t) == [("dead", "2.weight"), ("dead", "1")]
    assert "1 (ReLU()) passes back all zeros" in str(t)


def test_a_gradient_that_is_zero_from_the_start_is_told() -> None:
    t = nn.trace(two_layers(), floats([1, 1]), loss=HalfSquare(), target=floats([22]))
    assert kinds(t) == [("dead", "output")]


def test_a_parameter_that_is_forgotten_is_told() -> None:
    class Forgets(Scale):
        def backward(self, grad: Array, input_grad: bool = True) -> Any:
            return grad * self.weight.data

    assert kinds(nn.trace(nn.Sequential(Forgets(2)), floats(1))) == [("no gradient", "0.weight")]
    frozen = nn.Sequential(Forgets(2))
    frozen[0].weight.requires_grad = False
    assert kinds(nn.trace(frozen, floats(1))) == []


def test_the_factors_of_exploding_and_vanishing_can_be_set() -> None:
    t = nn.trace(nn.Sequential(Times(10), Times(10), Times(0.1)), floats(1))
    assert kinds(t) == []
    assert kinds(t, exploding=5) == [("exploding", "0")]
    assert kinds(t, vanishing=0.5) == [("vanishing", "2")]
    with pytest.raises(ValueError, match="exploding"):
        t.problems(exploding=0.5)


def test_a_loss_that_refuses_nan_does_not_hide_where_it_comes_from() -> None:
    model = nn.Sequential(nn.Linear(2, 3), Times(np.nan), nn.Linear(3, 2))
    t = nn.trace(model, floats([1, 1]), loss=nn.CrossEntropy(), target=np.array([0]))
    assert kinds(t) == [("not finite", "1")]
    assert isinstance(t.error, ValueError)
    assert "NaN" in str(t.error)
    assert t["2"].grad is None
    assert "ended there with ValueError" in str(t)


def test_a_loss_that_overflows_is_told() -> None:
    class Overflows(HalfSquare):
        def forward(self, prediction: Array, target: Array) -> float:
            return super().forward(prediction, target) * np.inf

    t = nn.trace(Times(1), floats(1), loss=Overflows(), target=floats(0))
    assert kinds(t) == [("not finite", "loss")]


def test_an_error_of_finite_values_is_passed_on() -> None:
    with pytest.raises(ValueError, match=r"Linear\(3, 2\)"):
        nn.trace(nn.Sequential(nn.Linear(2, 2), nn.Linear(3, 2)), floats([1, 1]))


# ---- no side effects ----


def plain(value: Any) -> Any:
    """Return copies of all that hangs on a layer but its cache, in a form that can be compared."""
    if isinstance(value, nn.Layer):
        return {name: plain(item) for name, item in vars(value).items() if name != "_cache"}
    if isinstance(value, nn.Parameter):
        return value.data.copy(), copy.copy(value.grad), value.dtype
    if isinstance(value, np.random.Generator):
        return value.bit_generator.state
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return copy.deepcopy(value)


class Moody(nn.Layer):
    """Draws from two generators and moves a buffer; spoils what it is given, and may raise."""

    _buffer_names = ("count",)

    def __init__(self, error: bool = False) -> None:
        self.count = np.zeros(1)
        self.rng = np.random.default_rng(0)
        self.error = error

    def forward(self, x: Array) -> Any:
        self.count += 1
        y = x * self.rng.random() * generator().random()
        x[...] = 0
        self.cache(None)
        return y.astype(x.dtype)

    def backward(self, grad: Array, input_grad: bool = True) -> Any:
        if self.error:
            raise ZeroDivisionError
        return grad


@pytest.mark.parametrize("raises", [False, True])
def test_nothing_is_touched(raises: bool) -> None:
    model = nn.Sequential(Moody(raises), nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Dropout(0.5))
    loss = nn.CrossEntropy()
    x, labels = floats([1, 2], [3, 4], [5, 7]), np.array([0, 1, 1])
    loss(model(x.copy()), labels)
    if not raises:
        model.backward(loss.backward())
    parameters = [(p, p.data, p.grad) for p in model.parameters()]
    caches = [layer._cache.values for _, layer in model.named_layers()]
    before = plain([model, loss, generator()])
    if raises:
        with pytest.raises(ZeroDivisionError):
            nn.trace(model, x, loss=loss, target=labels)
    else:
        nn.trace(model, x, loss=loss, target=labels)
    assert_equal(plain([model, loss, generator()]), before)
    assert x.tolist() == [[1, 2], [3, 4], [5, 7]]
    for parameter, data, grad in parameters:
        assert parameter.data is data
        assert parameter.grad is grad
    for (_, layer), cache in zip(model.named_layers(), caches, strict=True):
        assert layer._cache.values is cache
        assert "forward" not in vars(layer)


def test_what_a_layer_spoils_later_is_shown_as_it_was() -> None:
    class Spoils(Times):
        def forward(self, x: Array) -> Any:
            y = super().forward(x)
            x[...] = -1
            return y

        def backward(self, grad: Array, input_grad: bool = True) -> Any:
            result = super().backward(grad)
            grad[...] = -1
            return result

    t = nn.trace(nn.Sequential(Times(2), Spoils(3)), floats(1))
    assert (t["0"].value, t["1"].value, t["1"].grad, t["0"].grad) == (2, 6, 1, 3)


def test_the_mode_and_the_dtype_are_those_of_the_model() -> None:
    model = nn.Sequential(nn.Linear(2, 50), nn.Dropout(0.5))
    x = floats([1, 1])
    assert (nn.trace(model, x)["1"].value == 0).any()
    t = nn.trace(model.eval(), x)
    assert_array_equal(t["1"].value, t["0"].value)
    assert {t["0"].value.dtype, t["0"].grad.dtype} == {np.dtype(np.float32)}


def test_numpy_does_not_warn_of_what_the_trace_tells() -> None:
    t = nn.trace(nn.Log(), floats(0.0, -1.0))
    assert "1 NaN and 1 inf" in str(t)


# ---- bad input ----


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: nn.trace(nn.ReLU, floats(1)), TypeError, "the model, got the class ReLU"),
        (lambda: nn.trace(Times(1), floats(1), loss=np.sum), TypeError, "the loss, got"),
        (lambda: nn.trace(Times(1), floats(1), target=floats(1)), TypeError, "needs a loss"),
        (
            lambda: nn.trace(Times(1), floats(1), loss=HalfSquare(), grad=floats(1)),
            ValueError,
            "not both",
        ),
        (
            lambda: nn.trace(nn.Linear(1, 1), floats([1]), grad=floats(1, 2)),
            ValueError,
            r"Linear\(1, 1\).*\(1, 1\).*\(2,\)",
        ),
    ],
)
def test_bad_input_is_one_clear_sentence(
    call: Callable[[], Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        call()
