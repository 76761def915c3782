"""The figures that five notebooks print, to the last digit.

Their authors work out gradients by hand in NumPy and compare them with PyTorch's. They are called
000 to 004 here; ``docs/backpropagation/`` derives what they compute, and says what is wrong with
some of it. The recurrent network of 004 has a file of its own.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import nnlite as nn

from ..registry import Array


def assert_rounds_to(values: Any, printed: str) -> None:
    """Assert that `values` give the numbers that were printed, to the last digit of each."""
    numbers = re.findall(r"-?\d+\.?\d*", printed)
    flat = np.ravel(values).tolist()
    assert len(flat) == len(numbers)
    for value, number in zip(flat, numbers, strict=True):
        half_a_digit = 0.5 * 10.0 ** -len(number.partition(".")[2])
        # The sixteenth digit depends on the order in which a machine adds.
        assert abs(value - float(number)) <= half_a_digit + 1e-15 * abs(value), (value, number)


def central_differences(function: Callable[[Array], Any], x: Array, h: float = 1e-6) -> Array:
    steps = h * np.eye(x.size).reshape(-1, *x.shape)
    quotients = [(function(x + step) - function(x - step)) / (2 * h) for step in steps]
    return np.reshape(quotients, x.shape)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


class Test000Convolution:
    """A 2×2 convolution of a 3×3 image, ReLU, a weighted sum, sigmoid and the squared error."""

    X = np.arange(1.0, 10.0).reshape(1, 1, 3, 3)
    W = np.array([[0.1, -0.1], [0.2, 0.01]])
    H = np.array([0.05, -0.2, 0.2, 0.5])

    def model(self) -> nn.Sequential:
        model = nn.Sequential(
            nn.Conv2d(1, 1, 2, bias=False),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(4, 1, bias=False),
            nn.Sigmoid(),
        ).astype(np.float64)
        model.load_state_dict({"0.weight": self.W[None, None], "3.weight": self.H[None]})
        return model

    def trace(self) -> Any:
        return nn.trace(self.model(), self.X, loss=nn.MeanSquaredError(), target=np.ones((1, 1)))

    def test_values(self) -> None:
        trace = self.trace()
        assert_rounds_to(trace["0"].value, "[[0.75 0.96] [1.38 1.59]]")
        assert_rounds_to(trace["3"].value, "0.9165000000000001")
        assert_rounds_to(trace["4"].value, "0.7143284201512767")
        assert_rounds_to(trace["loss"].value, "0.08160825153326548")

    def test_gradients_of_all_values(self) -> None:
        trace = self.trace()
        assert_rounds_to(trace["4"].grad, "[-0.57134316]")
        assert_rounds_to(trace["3"].grad, "[-0.11659019]")
        d_A = "[-0.00582951  0.02331804 -0.02331804 -0.05829509]"
        assert_rounds_to(trace["1"].grad, d_A)
        assert_rounds_to(trace["0"].grad, d_A)

    def test_gradients_of_the_weights(self) -> None:
        trace = self.trace()
        d_H = "[-0.08744264 -0.11192658 -0.16089446 -0.1853784 ]"
        assert_rounds_to(trace["3.weight"].grad, d_H)
        d_W = trace["0.weight"].grad[0, 0]
        assert_rounds_to(d_W[0, 0], "[-0.34394105]")
        # The notebook has the other three from PyTorch alone, in float32.
        in_float32 = [[-0.34394106, -0.40806568], [-0.5363149, -0.6004395]]
        assert_allclose(d_W, in_float32, rtol=1e-7)

    def test_the_gradient_of_the_image_is_that_of_its_definition(self) -> None:
        model, loss = self.model(), nn.MeanSquaredError()
        expected = central_differences(lambda X: loss(model(X), np.ones((1, 1))), self.X)
        assert_allclose(self.trace()["input"].grad, expected, atol=1e-9)

    def test_window_by_window_the_shared_kernel_gets_the_same_gradient(self) -> None:
        places = ["00", "01", "10", "11"]
        nodes: dict[str, Any] = {"W": nn.Weight(self.W.ravel())}
        for place, weight in zip(places, self.H, strict=True):
            nodes |= {
                f"A{place}": (nn.MatMul(), f"X{place}", "W"),
                f"R{place}": (nn.ReLU(), f"A{place}"),
                f"H{place}": nn.Weight(weight),
                f"T{place}": (nn.Multiply(), f"R{place}", f"H{place}"),
            }
        nodes |= {
            "B": (nn.Add(), *(f"T{place}" for place in places)),
            "Z": (nn.Sigmoid(), "B"),
            "Z-Y": (nn.Subtract(), "Z", 1),
            "L": (nn.Square(), "Z-Y"),
        }
        graph = nn.Graph(nodes, inputs=[f"X{place}" for place in places])
        image = self.X[0, 0]
        windows = [image[i : i + 2, j : j + 2].ravel() for i in (0, 1) for j in (0, 1)]
        trace = nn.trace(graph, *windows)
        assert_rounds_to(trace["L"].value, "0.08160825153326548")
        assert_rounds_to(trace["W"].grad[0], "[-0.34394105]")
        assert_allclose(trace["W"].grad, self.trace()["0.weight"].grad.ravel(), rtol=1e-14)


class Test001TwoSigmoidLayersAndALogarithm:
    X0 = np.array([[0.5, -0.5]])

    def model(self) -> nn.Sequential:
        model = nn.Sequential(
            nn.Linear(2, 3), nn.Sigmoid(), nn.Linear(3, 1), nn.Sigmoid(), nn.Log()
        ).astype(np.float64)
        model.load_state_dict(
            {
                "0.weight": np.array([[0.5, -2.5], [1.2, 0.1], [-0.7, -1.2]]),
                "0.bias": np.array([-1.5, -1.3, 2.0]),
                "2.weight": np.array([[-1.5, 0.2, 0.5]]),
                "2.bias": np.array([1.0]),
            }
        )
        return model

    def test_gradients_of_the_values(self) -> None:
        trace = nn.trace(self.model(), self.X0)
        assert_rounds_to(trace["input"].grad, "[[-0.05246989  0.28237541]]")
        assert_rounds_to(trace["1"].grad, "[[-0.47585847  0.0634478   0.15861949]]")
        assert_rounds_to(trace["3"].grad, "[[1.46464132]]")

    def test_gradients_of_the_parameters(self) -> None:
        model = self.model()
        model(self.X0)
        model.backward(np.ones((1, 1)))
        grads = {name: parameter.grad for name, parameter in model.named_parameters()}
        W1 = "[[-0.05948231 0.05948231] [0.00691248 -0.00691248] [0.0068411 -0.0068411 ]]"
        assert_rounds_to(grads["0.weight"], W1)
        assert_rounds_to(grads["0.bias"], "[-0.11896462  0.01382496  0.01368219]")
        assert_rounds_to(grads["2.weight"], "[[0.15861949 0.10177702 0.28699041]]")
        assert_rounds_to(grads["2.bias"], "[0.31723898]")


class Test002TapeOfComputeNodes:
    def test_a_product_and_its_square(self) -> None:
        graph = nn.Graph(
            {"f": (nn.Multiply(), "x", "y"), "g": (nn.Square(), "f")}, inputs=("x", "y")
        )
        trace = nn.trace(graph, 3.0, 2.0)
        assert (trace["f"].value, trace["g"].value) == (6, 36)
        assert trace["f"].grad == 12
        assert (trace["x"].grad, trace["y"].grad) == (24, 36)

    def test_the_intricate_formula_with_every_value_and_gradient(self) -> None:
        # f(x, y) = (x + σ(y)) / (σ(x) + (x + y)²), step by step as the notebook has it.
        graph = nn.Graph(
            {
                "sigy": (nn.Sigmoid(), "y"),
                "num": (nn.Add(), "x", "sigy"),
                "sigx": (nn.Sigmoid(), "x"),
                "xpy": (nn.Add(), "x", "y"),
                "xpysqr": (nn.Square(), "xpy"),
                "den": (nn.Add(), "sigx", "xpysqr"),
                "invden": (nn.Reciprocal(), "den"),
                "f": (nn.Multiply(), "num", "invden"),
            },
            inputs=("x", "y"),
        )
        trace = nn.trace(graph, 3.0, -4.0)
        assert_rounds_to(trace["x"].grad, "2.0595697955721652")
        assert_rounds_to(trace["y"].grad, "1.5922327514838093")

        sigx, sigy = sigmoid(3), sigmoid(-4)
        num, den = 3 + sigy, sigx + 1
        values = {"sigx": sigx, "sigy": sigy, "num": num, "xpy": -1, "xpysqr": 1, "den": den}
        values |= {"invden": 1 / den, "f": num / den}
        dden = -num / den**2
        grads = {"f": 1, "num": 1 / den, "invden": num, "den": dden, "sigx": dden, "xpysqr": dden}
        grads |= {"xpy": -2 * dden, "sigy": 1 / den}
        for name in graph:
            assert_allclose(trace[name].value, values[name], rtol=1e-15)
            assert_allclose(trace[name].grad, grads[name], rtol=1e-15)


class Test002GradientCheck:
    """Two affine layers, and a check that takes their gradient for wrong."""

    x = np.array([[0.6, -0.7, 0.4], [-2.9, 0.0, 2.2], [-0.4, 0.1, -0.2], [-1.9, 0.9, 0.3]])
    # What the notebook prints of another run, with weights that it does not print.
    computed = np.array([-0.00606117, -0.00531535, 0.00386817])
    expected = np.array(
        [
            [0.00922265, -0.00670196, 0.00447652],
            [-0.00492004, -0.05007442, -0.01144147],
            [-0.91965244, 0.00449755, 0.00177827],
            [0.04859474, -0.01594757, 0.00488759],
        ]
    )

    def model(self) -> nn.Sequential:
        model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1)).astype(np.float64)
        model[0].weight.data[...] = [[0.2, 0.2, 0.7], [0.1, 0.2, 1.4]]
        model[1].weight.data[...] = [[-1.3, 1.6]]
        model[0].bias.data[...] = model[1].bias.data[...] = 0
        return model

    def test_values_and_gradients(self) -> None:
        model = self.model()
        assert_rounds_to(model(self.x), "[[ 0.43 ] [ 3.216] [-0.22 ] [ 0.643]]")
        x_grad = model.backward(np.ones((4, 1)))
        assert_rounds_to(x_grad, 4 * "[-0.1   0.06  1.33] ")
        assert_rounds_to(model[0].weight.grad, "[[ 5.98 -0.39 -3.51] [-7.36  0.48  4.32]]")
        assert_rounds_to(model[0].bias.grad, "[-5.2  6.4]")

    def test_gradcheck_finds_these_gradients_right(self) -> None:
        nn.gradcheck(self.model(), self.x).raise_if_failed()

    def test_what_the_notebook_calls_numerical_gradient_mixes_all_derivatives(self) -> None:
        # It moves all numbers of a sample by δ at once and divides by each of them, which gives
        # e_j = Σ_k g_k δ_k / δ_j. With δ = 1 that is the sum of all derivatives.
        model = self.model()
        quotient = (model(self.x + 1) - model(self.x - 1)) / (2 * np.ones_like(self.x))
        assert_rounds_to(quotient, 12 * "1.29 ")
        assert_rounds_to(model.backward(np.ones((4, 1))).sum(axis=1), 4 * "1.29 ")
        # With any δ, g is the gradient only if Σ_k g_k / e_k = 1: the notebook's own one is.
        assert_allclose((self.computed / self.expected).sum(axis=1), np.ones(4), atol=2e-6)

    def test_the_notebooks_measure_of_the_error_adds_up_the_derivatives_first(self) -> None:
        summed = np.full((4, 1), self.computed.sum())
        difference = summed - self.expected
        assert_allclose(difference.sum(), 0.8451804221722929, atol=1e-7)
        scale = np.abs(self.expected).max()
        assert_allclose(np.mean(np.abs(difference) / scale), 0.09867718857347035, atol=1e-8)

    def test_its_layers_give_a_multiple_of_the_gradient_after_several_forwards(self) -> None:
        # It sums up the local derivatives in forward; a layer of nnlite replaces them.
        model = self.model()
        for _ in range(3):
            model(self.x)
        assert_rounds_to(model.backward(np.ones((4, 1))), 4 * "[-0.1   0.06  1.33] ")


class Test002ClassifierOfDigits:
    """The network 784-32-10, with a ReLU after each affine map and a softmax at the end."""

    def model(self, *last: nn.Layer) -> nn.Sequential:
        first, second = nn.Linear(784, 32), nn.Linear(32, 10)
        for layer in (first, second):
            nn.init.kaiming_normal_(layer.weight)
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)
        return nn.Sequential(nn.Flatten(), first, nn.ReLU(), second, *last)

    def test_the_whole_network_has_the_right_gradient(self, rng: np.random.Generator) -> None:
        graph = nn.Graph(
            {
                "p": (self.model(nn.ReLU(), nn.Softmax()), "images"),
                "L": (nn.CrossEntropy(from_logits=False), "p", "labels"),
            },
            inputs=("images", "labels"),
        )
        images, labels = rng.normal(size=(3, 1, 28, 28)), np.array([3, 1, 4])
        nn.gradcheck(graph, images, labels, max_elements=40).raise_if_failed()

    def test_it_trains_as_in_pytorch(self) -> None:
        torch = pytest.importorskip("torch")
        (images, labels), _ = nn.datasets.mnist()
        model = self.model(nn.ReLU(), nn.Softmax())
        theirs = torch.nn.Sequential(
            torch.nn.Flatten(),
            torch.nn.Linear(784, 32),
            torch.nn.ReLU(),
            torch.nn.Linear(32, 10),
            torch.nn.ReLU(),
            torch.nn.Softmax(dim=1),
        )
        theirs.load_state_dict({k: torch.from_numpy(v) for k, v in model.state_dict().items()})
        loss, optimizer = nn.CrossEntropy(from_logits=False), nn.SGD(model.parameters(), lr=0.01)
        their_optimizer = torch.optim.SGD(theirs.parameters(), lr=0.01)
        for start in range(0, 50 * 32, 32):
            x, y = images[start : start + 32], labels[start : start + 32]
            value = loss(model(x), y)
            optimizer.zero_grad()
            model.backward(loss.backward(), input_grad=False)
            optimizer.step()
            log_p = torch.log(theirs(torch.from_numpy(x)))
            their_value = torch.nn.functional.nll_loss(log_p, torch.from_numpy(y.astype(np.int64)))
            their_optimizer.zero_grad()
            their_value.backward()
            their_optimizer.step()
            assert value == pytest.approx(their_value.item(), rel=1e-4)
        for name, value in theirs.state_dict().items():
            assert_allclose(model.state_dict()[name], value, rtol=1e-4, atol=1e-5)

    def test_without_the_relu_in_front_of_the_softmax_it_learns_in_one_epoch(self) -> None:
        # The same in PyTorch, over 8 seeds, reaches 92.2 % to 92.7 %.
        train, (images, labels) = nn.datasets.mnist()
        model, loss = self.model(nn.Softmax()), nn.CrossEntropy(from_logits=False)
        optimizer = nn.SGD(model.parameters(), lr=0.01)
        for x, y in nn.DataLoader(*train, batch_size=32, shuffle=True):
            loss(model(x), y)
            optimizer.zero_grad()
            model.backward(loss.backward(), input_grad=False)
            optimizer.step()
        assert nn.accuracy(nn.predict(model, images), labels) > 0.915


class Test003SquaredLengthOfASigmoid:
    """One sample as a column: Z = W x, y = σ(Z), f = ‖y‖²."""

    W = np.array([[2.0, 1.0, 2.0], [1.0, 3.0, 1.0], [7.0, 4.0, 7.0]])
    x = np.array([[1.0], [0.0], [-1.0]])

    def graph(self) -> nn.Graph:
        return nn.Graph(
            {
                "W": nn.Weight(self.W),
                "Z": (nn.MatMul(), "W", "x"),
                "y": (nn.Sigmoid(), "Z"),
                "y²": (nn.Square(), "y"),
                "f": (nn.Sum(), "y²"),
            }
        )

    def test_values_and_gradients(self) -> None:
        trace = nn.trace(self.graph(), self.x)
        assert_array_equal(trace["Z"].value, np.zeros((3, 1)))
        assert_array_equal(trace["y"].value, np.full((3, 1), 0.5))
        assert trace["f"].value == 0.75
        assert trace["f"].grad == 1
        assert_array_equal(trace["y"].grad, np.ones((3, 1)))
        assert_array_equal(trace["Z"].grad, np.full((3, 1), 0.25))
        assert_array_equal(trace["W"].grad, 3 * [[0.25, 0, -0.25]])
        assert_array_equal(trace["x"].grad, [[2.5], [2], [2.5]])

    def test_the_notebooks_value_has_the_rounding_error_of_a_square_root_in_float32(self) -> None:
        length = nn.Sequential(nn.Square(), nn.Sum(), nn.Sqrt())(np.full((3, 1), 0.5, np.float32))
        assert length.dtype == np.float32
        assert_rounds_to(float(length) ** 2, "0.749999973077653")

    def test_its_sigmoid_has_the_wrong_sign_which_zeros_hide(self) -> None:
        def their_f(x: Array) -> Any:
            y = 1 / (1 + np.exp(self.W @ x))
            return np.sum(y**2)

        def their_gradient(x: Array) -> Array:
            y = 1 / (1 + np.exp(self.W @ x))
            return self.W.T @ (2 * y * y * (1 - y))

        graph = self.graph()
        for x in (self.x, np.array([[1.0], [0.0], [-0.5]])):
            assert_allclose(their_gradient(x), -central_differences(their_f, x), atol=1e-9)
            assert_allclose(nn.trace(graph, x)["x"].grad, central_differences(graph, x), atol=1e-9)
        assert their_f(self.x) == graph(self.x)
        assert abs(their_f(x) - graph(x)) > 1


class Test004ScalarsAndLosses:
    def test_square(self) -> None:
        square = nn.Square()
        square(0.4311157464981079)
        assert square.backward(np.array(1.0)) == 0.8622314929962158

    def test_difference_from_the_truth(self) -> None:
        loss = nn.Graph({"y": (nn.Square(), "x"), "L": (nn.Subtract(), 10, "y")})
        loss(0.772921085357666)
        assert loss.backward() == -1.545842170715332

    def test_squared_error(self) -> None:
        loss = nn.Graph(
            {"y": (nn.Square(), "x"), "d": (nn.Subtract(), "y", 10), "L": (nn.Square(), "d")}
        )
        loss(1.0)
        assert loss.backward() == -36

    def test_line(self) -> None:
        line = nn.Graph(
            {
                "w": nn.Weight(5.0),
                "b": nn.Weight(4.0),
                "wx": (nn.Multiply(), "w", "x"),
                "z": (nn.Add(), "wx", "b"),
            }
        )
        trace = nn.trace(line, 2.5)
        assert (trace["w"].grad, trace["b"].grad) == (2.5, 1)


class Test004Vectors:
    # The notebook prints four decimals of its random numbers. The fifth is chosen such that all
    # of its results round to what it prints.
    X = np.array(
        [
            [1.19390, 0.13428],
            [-0.11303, 0.00773],
            [-0.22773, -1.15337],
            [1.65450, -0.72408],
            [-0.48707, 0.50437],
        ]
    )
    W = np.array([[-0.32803, 1.19773, 0.41103], [1.83430, -0.78911, 0.85150]])
    B = np.array([[1.17143, 0.16351, 0.99867]])

    def test_sum_of_squares(self) -> None:
        model = nn.Sequential(nn.Square(), nn.Sum())
        assert model(np.array([1.0, 5.0, 6.0])) == 62
        assert_array_equal(model.backward(np.array(1.0)), [2, 10, 12])

    def test_the_inputs_are_those_that_the_notebook_prints(self) -> None:
        assert_rounds_to(
            self.X,
            "1.1939 0.1343 -0.1130 0.0077 -0.2277 -1.1534 1.6545 -0.7241 -0.4871 0.5044",
        )
        assert_rounds_to(self.W, "-0.3280 1.1977 0.4110 1.8343 -0.7891 0.8515")
        assert_rounds_to(self.B, "1.1714 0.1635 0.9987")

    def test_the_sum_of_an_affine_map(self) -> None:
        graph = nn.Graph(
            {
                "W": nn.Weight(self.W),
                "B": nn.Weight(self.B),
                "Q": (nn.MatMul(), "X", "W"),
                "Z": (nn.Add(), "Q", "B"),
                "O": (nn.Sum(), "Z"),
            },
            inputs="X",
        )
        trace = nn.trace(graph, self.X)
        assert_rounds_to(
            trace["Q"].value,
            """[[-0.1453,  1.3240,  0.6051],
                [ 0.0513, -0.1415, -0.0399],
                [-2.0409,  0.6374, -1.0757],
                [-1.8709,  2.5530,  0.0635],
                [ 1.0849, -0.9814,  0.2293]]""",
        )
        assert_rounds_to(
            trace["Z"].value,
            """[[ 1.0261,  1.4875,  1.6037],
                [ 1.2227,  0.0220,  0.9588],
                [-0.8695,  0.8009, -0.0770],
                [-0.6995,  2.7165,  1.0622],
                [ 2.2564, -0.8179,  1.2279]]""",
        )
        assert_rounds_to(trace["O"].value, "11.9209")
        assert_rounds_to(trace["W"].grad, 3 * "2.0206 " + 3 * "-1.2311 ")
        assert_rounds_to(trace["X"].grad, 5 * "[1.2807, 1.8967] ")
        # What the notebook prints breaks off here. Each B_o is added once for each sample.
        assert_array_equal(trace["B"].grad, [[5, 5, 5]])

    def test_linear_is_the_same_map(self) -> None:
        layer = nn.Linear(2, 3).astype(np.float64)
        layer.load_state_dict({"weight": self.W.T, "bias": self.B[0]})
        assert_rounds_to(layer(self.X).sum(), "11.9209")
        assert_rounds_to(layer.backward(np.ones((5, 3))), 5 * "[1.2807, 1.8967] ")
        assert_rounds_to(layer.weight.grad, 3 * "[2.0206 -1.2311] ")


class RoundedTanh(nn.Tanh):
    """A tanh rounded to float32 in a float64 network, as the notebook takes it from PyTorch."""

    def value(self, x: Array) -> tuple[Array, Array]:
        y = np.tanh(x).astype(np.float32).astype(np.float64)
        return y, y


class Test004Recursion:
    def test_a_product_with_the_same_weight_twice(self) -> None:
        step = nn.Linear(1, 1, bias=False)
        step.weight.data[...] = 2
        model = nn.Sequential(step, step.tied())
        assert model(np.array([[0.5]])) == 2
        assert model.backward(np.array([[1.0]])) == 4
        assert step.weight.grad == 2

    def tanh_recursion(self, tanh: type[nn.Layer]) -> tuple[Any, Any]:
        """Return the gradients of w_h and w_y in y = w_y tanh(w_h tanh(w_h h0))."""
        step, last = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
        model = nn.Sequential(step, tanh(), step.tied(), tanh(), last).astype(np.float64)
        step.weight.data[...], last.weight.data[...] = 2, 40
        model(np.array([[0.5]]))
        model.backward(np.array([[1.0]]))
        return step.weight.grad, last.weight.grad

    def test_with_tanh_from_states_in_float32_as_the_notebook_has_them(self) -> None:
        w_h_grad, w_y_grad = self.tanh_recursion(RoundedTanh)
        assert_rounds_to(w_h_grad, "8.18880672682621")
        assert_rounds_to(w_y_grad, "0.9092516899108887")

    def test_with_tanh(self) -> None:
        w_h_grad, w_y_grad = self.tanh_recursion(nn.Tanh)
        h1 = math.tanh(1)
        h2 = math.tanh(2 * h1)
        assert_allclose(w_y_grad, h2, rtol=1e-15)
        assert_allclose(w_h_grad, 40 * (1 - h2**2) * (h1 + 2 * (1 - h1**2) * 0.5), rtol=1e-14)
        # PyTorch's figures, in float32.
        assert_rounds_to(w_h_grad, "8.1888")
        assert_rounds_to(w_y_grad, "0.9093")
