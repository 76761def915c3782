"""Cells: one step of a recurrent layer, and a loop of steps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

import nnlite as nn

CELLS = [nn.RNNCell, nn.LSTMCell, nn.GRUCell]
LAYERS = {nn.RNNCell: nn.RNN, nn.LSTMCell: nn.LSTM, nn.GRUCell: nn.GRU}
sizes = st.integers(1, 4)


class Joined(nn.Layer):
    """A cell whose states are joined to one output, as `gradcheck` takes it."""

    def __init__(self, cell: nn.Layer) -> None:
        self.cell = cell

    def forward(self, *inputs: Any) -> Any:
        after = self.cell(*inputs)
        self.cache()
        return np.concatenate(after, axis=1) if isinstance(after, tuple) else after

    def backward(self, grad: Any, input_grad: bool = True) -> Any:
        if isinstance(self.cell, nn.LSTMCell):
            grad = tuple(np.split(grad, 2, axis=1))
        return self.cell.backward(grad, input_grad)


@pytest.mark.parametrize("kind", CELLS)
@given(batch=sizes, inputs=sizes, hidden=sizes, bias=st.booleans(), with_state=st.booleans())
def test_gradients_agree_with_central_differences(
    kind: Any, batch: int, inputs: int, hidden: int, bias: bool, with_state: bool
) -> None:
    rng = np.random.default_rng(0)
    states = [rng.normal(size=(batch, hidden)) for _ in range(with_state * kind.states)]
    cell = Joined(kind(inputs, hidden, bias, rng=0))
    assert nn.gradcheck(cell, rng.normal(size=(batch, inputs)), *states).passed


def test_gradients_of_relu_agree_with_central_differences() -> None:
    rng = np.random.default_rng(0)
    cell = nn.RNNCell(3, 5, nonlinearity="relu", rng=0)
    assert nn.gradcheck(cell, rng.normal(size=(4, 3)), rng.normal(size=(4, 5))).passed


@pytest.mark.parametrize("kind", CELLS)
def test_a_loop_of_steps_is_the_layer(kind: Any) -> None:
    layer = LAYERS[kind](3, 4, rng=0).astype(np.float64)
    cell = kind(3, 4).astype(np.float64)
    cell.load_state_dict({k.removesuffix("_l0"): v for k, v in layer.state_dict().items()})
    rng = np.random.default_rng(0)
    x, grad = rng.normal(size=(2, 5, 3)), rng.normal(size=(2, 5, 4))
    y = layer(x)
    state: tuple[Any, ...] = ()
    steps = [cell.tied() for _ in range(5)]
    for place, step in enumerate(steps):
        after = step(x[:, place], *state)
        state = after if isinstance(after, tuple) else (after,)
        assert_allclose(state[0], y[:, place], rtol=1e-12)
    expected = layer.backward(grad)
    d_state = [0.0] * kind.states
    for place in reversed(range(5)):
        flows = (grad[:, place] + d_state[0], *(d + np.zeros((2, 4)) for d in d_state[1:]))
        found = steps[place].backward(flows if kind.states > 1 else flows[0])
        dx, *d_state = found if isinstance(found, tuple) else (found,)
        assert_allclose(dx, expected[:, place], rtol=1e-11, atol=1e-14)
    for parameter, other in zip(cell.parameters(), layer.parameters(), strict=True):
        assert_allclose(parameter.grad, other.grad, rtol=1e-11, atol=1e-14)


@pytest.mark.parametrize("kind", CELLS)
@pytest.mark.parametrize("with_state", [True, False])
def test_a_step_and_its_keys_are_those_of_pytorch(kind: Any, with_state: bool) -> None:
    torch = pytest.importorskip("torch")
    module = getattr(torch.nn, kind.__name__)(3, 4)
    cell = kind(3, 4)
    cell.load_state_dict(module.state_dict())
    assert list(cell.state_dict()) == list(module.state_dict())
    x = torch.randn(2, 3, requires_grad=True)
    states = [torch.randn(2, 4, requires_grad=True) for _ in range(with_state * kind.states)]
    given = () if not states else (tuple(states) if kind.states > 1 else states[0],)
    after = module(x, *given)
    after = after if isinstance(after, tuple) else (after,)
    found = cell(x.detach().numpy(), *(state.detach().numpy() for state in states))
    found = found if isinstance(found, tuple) else (found,)
    grads = [torch.randn(2, 4) for _ in after]
    torch.autograd.backward(after, grads)
    flows = tuple(grad.numpy() for grad in grads)
    back = cell.backward(flows if kind.states > 1 else flows[0])
    back = back if isinstance(back, tuple) else (back,)
    for mine, theirs in zip(
        (*found, *back, *(p.grad for p in cell.parameters())),
        (*after, x.grad, *(s.grad for s in states), *(p.grad for p in module.parameters())),
        strict=True,
    ):
        assert_allclose(mine, theirs.detach().numpy(), rtol=1e-5, atol=1e-6)


def test_a_state_that_has_no_gradient_counts_as_zero() -> None:
    cell, x = nn.LSTMCell(3, 4, rng=0), np.ones((2, 3), np.float32)
    cell(x)
    ones = np.ones((2, 4), np.float32)
    expected = cell.backward((ones, np.zeros((2, 4), np.float32)))
    assert_allclose(cell.backward((ones, None)), expected)


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (lambda: nn.RNNCell(3, 4)(np.ones((2, 5))), r"RNNCell\(3, 4\): expected input of shape"),
        (lambda: nn.GRUCell(3, 4)(np.ones((2, 3)), np.ones((1, 4))), "GRUCell.*: expected h of"),
        (lambda: nn.LSTMCell(3, 4)(np.ones((2, 3)), np.ones((2, 4))), "LSTMCell.* h and c of"),
        (lambda: nn.RNNCell(3, 4, nonlinearity="x"), "RNNCell: nonlinearity must be one of"),
    ],
)
def test_shapes_and_options_that_do_not_fit(run: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        run()
