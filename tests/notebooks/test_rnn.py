"""The vanilla RNN of seed notebook 004: `RNN` and `Linear` give every figure that it prints.

The notebook's weights are random and not printed, but its gradients give them away. It reads
x_1 = 1 and x_2 = 2 and wants y_1 = 5 and y_2 = 10, with h_0 = 0::

    z_t = x_t W_xᵀ + B_x + h_{t-1} W_hᵀ + B_h    h_t = tanh(z_t)    ŷ_t = h_t W_yᵀ + B_y
    J = Σ_t (y_t - ŷ_t)²

Write g for gradients of J. From the errors e_t = y_t - ŷ_t, gŷ_t = -2 e_t. The figures printed are
these, gB_h = gz_1 + gz_2, gW_x = x_1 gz_1 + x_2 gz_2, gW_h = gz_2ᵀ h_1 (since h_0 = 0) and
gW_y = gŷ_1 h_1 + gŷ_2 h_2. They are solved for gz_1, gz_2, h_1 and h_2 in turn. Then
gz_2 = gŷ_2 W_y (1 - h_2²) gives W_y, and ŷ_t = h_t W_yᵀ + B_y gives B_y, twice. For the other 18
numbers there remain nine equations::

    W_x + B_x + B_h = artanh(h_1)
    2 W_x + B_x + B_h + h_1 W_hᵀ = artanh(h_2)
    gz_2 W_h = gz_1 / (1 - h_1²) - gŷ_1 W_y

All their solutions have the same states and gradients; the one of least norm is taken.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose
from numpy.typing import NDArray

import nnlite as nn

Array = NDArray[Any]

# As the notebook prints them: "by hand", in float64.
J_SUM = 147.34589557
ERRORS = np.array([5.6724266, 10.73170406])
WY_GRAD = np.array([[-31.68331576, -25.52391181, -5.94494814]])
BY_GRAD = np.array([-32.80826132])
WH_GRAD = np.array(
    [
        [0.47715462, 0.30275505, 0.12216023],
        [0.94172597, 0.59752601, 0.24109892],
        [2.93996332, 1.86540947, 0.75268389],
    ]
)
BH_GRAD = np.array([1.30710812, 1.06500711, 3.66852105])
WX_GRAD = np.array([[1.81332578], [2.06409273], [6.78755478]])
# By PyTorch, in four decimals. By hand the notebook has 0.
BX_GRAD = np.array([1.3071, 1.0650, 3.6685])

INPUTS = np.array([[[1.0], [2.0]]])
TARGETS = np.array([[[5.0], [10.0]]])


def recovered_weights() -> dict[str, Array]:
    """Return the weights that the figures determine, under the names of the state dict."""
    z2_grad = WX_GRAD[:, 0] - BH_GRAD
    z1_grad = BH_GRAD - z2_grad
    y1_grad, y2_grad = -2 * ERRORS
    h1 = z2_grad @ WH_GRAD / (z2_grad @ z2_grad)
    h2 = (WY_GRAD[0] - y1_grad * h1) / y2_grad
    Wy = z2_grad / (1 - h2**2) / y2_grad
    By = TARGETS[0, :, 0] - ERRORS - np.array([h1 @ Wy, h2 @ Wy])
    # The two agree to the precision that was printed: the derivation is right.
    assert abs(By[0] - By[1]) < 1e-8

    one, no = np.eye(3), np.zeros((3, 3))
    equations = np.block(
        [
            [one, one, one, np.zeros((3, 9))],
            [2 * one, one, one, np.kron(one, h1)],
            [no, no, no, np.kron(z2_grad, one)],
        ]
    )
    right = [np.arctanh(h1), np.arctanh(h2), z1_grad / (1 - h1**2) - y1_grad * Wy]
    solution = np.linalg.lstsq(equations, np.concatenate(right), rcond=None)[0]
    return {
        "0.weight_ih_l0": solution[:3, None],
        "0.weight_hh_l0": solution[9:].reshape(3, 3),
        "0.bias_ih_l0": solution[3:6],
        "0.bias_hh_l0": solution[6:9],
        "1.weight": Wy[None],
        "1.bias": By.mean(keepdims=True),
    }


@pytest.fixture(params=["one sequence", "a layer call for each step"])
def figures(request: pytest.FixtureRequest) -> dict[str, Array]:
    """Return what nnlite makes of the notebook's network, by the names that the notebook uses."""
    model = nn.Sequential(nn.RNN(1, 3), nn.Linear(3, 1)).astype(np.float64)
    model.load_state_dict(recovered_weights())
    rnn, linear = model
    assert isinstance(rnn, nn.RNN)
    loss = nn.MeanSquaredError(reduction="sum")
    if request.param == "one sequence":
        prediction = model(INPUTS)
        value = loss(prediction, TARGETS)
        model.backward(loss.backward(), input_grad=False)
    else:
        # As the notebook does it: a loop over the steps that hands the state on.
        first, second = rnn, rnn.tied()
        h1 = first(INPUTS[:, :1], np.zeros((1, 1, 3)))
        h2 = second(INPUTS[:, 1:], first.last_state)
        prediction = linear(np.concatenate([h1, h2], axis=1))
        value = loss(prediction, TARGETS)
        h_grad = linear.backward(loss.backward())
        _, h1_grad = second.backward(h_grad[:, 1:])
        first.backward(h_grad[:, :1], state_grad=h1_grad)
    return {
        "J_sum": value,
        "diffs": (TARGETS - prediction).ravel(),
        "dB_y": linear.bias.grad,
        "dW_y": linear.weight.grad,
        "dW_H": rnn.weight_hh_l0.grad,
        "dB_H": rnn.bias_hh_l0.grad,
        "dW_X": rnn.weight_ih_l0.grad,
        "dB_X": rnn.bias_ih_l0.grad,
    }


@pytest.mark.parametrize(
    ("name", "printed", "decimals"),
    [
        ("J_sum", J_SUM, 8),
        ("diffs", ERRORS, 8),
        ("dB_y", BY_GRAD, 8),
        ("dW_y", WY_GRAD, 8),
        ("dW_H", WH_GRAD, 8),
        ("dB_H", BH_GRAD, 8),
        ("dW_X", WX_GRAD, 8),
        ("dB_X", BX_GRAD, 4),
    ],
)
def test_every_printed_digit_comes_out(
    figures: dict[str, Array], name: str, printed: Array, decimals: int
) -> None:
    # Half a unit of the last digit printed.
    assert_allclose(figures[name], printed, rtol=0, atol=0.5 * 10.0**-decimals)


def test_the_input_bias_which_the_notebook_leaves_at_zero_has_the_state_biass_gradient(
    figures: dict[str, Array],
) -> None:
    # Both biases stand in the same sum.
    assert_allclose(figures["dB_X"], figures["dB_H"], rtol=1e-12)
    assert (figures["dB_X"] > 1).all()


def test_the_recovered_weights_are_weights_that_pytorch_might_have_drawn_for_the_output() -> None:
    # The last layer is determined wholly; PyTorch draws it within ±1/√3.
    weights = recovered_weights()
    for name in ("1.weight", "1.bias"):
        assert (np.abs(weights[name]) < 1 / np.sqrt(3)).all()
