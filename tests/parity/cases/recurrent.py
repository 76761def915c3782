"""`RNN`, `LSTM` and `GRU`, and their cells, compared with PyTorch's."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

import nnlite as nn

from ..case import Case


def recurrent(
    kind: str, shape: tuple[int, int, int], options: dict[str, Any], dtype: str = "float64"
) -> Case:
    """Return the case of all outputs for sequences of `shape`, with three hidden features."""
    return Case(
        f"{kind} {shape}, {options}, {dtype}",
        layer=lambda: getattr(nn, kind)(shape[2], 3, **options),
        module=lambda torch: _outputs_of(getattr(torch.nn, kind))(
            shape[2], 3, batch_first=True, **options
        ),
        inputs=lambda rng: (rng.normal(size=shape),),
        dtype=dtype,
    )


def _outputs_of(kind: type) -> Any:
    """Return PyTorch's layer without the final state that it returns beside the outputs."""

    class Outputs(kind):
        def forward(self, x: Any) -> Any:
            outputs, _ = super().forward(x)
            return outputs

    return Outputs


class LSTMCell(nn.LSTMCell):
    """An LSTM cell with h and c side by side as its one output."""

    def forward(self, x: NDArray[Any], *state: Any) -> Any:
        return np.concatenate(super().forward(x, *state), axis=1)

    def backward(self, grad: Any, input_grad: bool = True) -> Any:
        return super().backward(np.split(grad, 2, axis=1), input_grad)


def cell(
    kind: str, sizes: tuple[int, int, int], options: dict[str, Any], dtype: str = "float64"
) -> Case:
    """Return the case of a step from a given state: batch, input size and hidden size."""
    batch, inputs, hidden = sizes
    state = [(batch, hidden)] * (2 if kind == "LSTMCell" else 1)
    mine = LSTMCell if kind == "LSTMCell" else getattr(nn, kind)
    return Case(
        f"{kind} {sizes}, {options}, {dtype}",
        layer=lambda: mine(inputs, hidden, **options),
        module=lambda torch: _cell_of(torch, getattr(torch.nn, kind))(inputs, hidden, **options),
        inputs=lambda rng: tuple(rng.normal(size=shape) for shape in [(batch, inputs), *state]),
        dtype=dtype,
    )


def _cell_of(torch: Any, kind: type) -> Any:
    """Return PyTorch's cell, with the two states of an LSTM as one output."""

    class Cell(kind):
        def forward(self, x: Any, *state: Any) -> Any:
            if len(state) == 1:
                return super().forward(x, *state)
            return torch.cat(super().forward(x, state), dim=1)

    return Cell


SEQUENCES = (2, 4, 3)

CASES = [
    recurrent("RNN", SEQUENCES, {}),
    recurrent("RNN", SEQUENCES, {}, "float32"),
    recurrent("RNN", SEQUENCES, {"nonlinearity": "relu", "bias": False}),
    recurrent("RNN", SEQUENCES, {"num_layers": 2, "bidirectional": True}),
    recurrent("LSTM", SEQUENCES, {}),
    recurrent("LSTM", SEQUENCES, {"num_layers": 2}),
    recurrent("LSTM", SEQUENCES, {"bidirectional": True, "bias": False}),
    recurrent("GRU", SEQUENCES, {}),
    recurrent("GRU", SEQUENCES, {"num_layers": 2}),
    recurrent("GRU", SEQUENCES, {"bidirectional": True, "bias": False}),
    cell("RNNCell", (2, 3, 4), {}),
    cell("RNNCell", (2, 3, 4), {}, "float32"),
    cell("RNNCell", (2, 3, 4), {"nonlinearity": "relu", "bias": False}),
    cell("LSTMCell", (2, 3, 4), {}),
    cell("LSTMCell", (2, 3, 4), {"bias": False}),
    cell("GRUCell", (2, 3, 4), {}),
    cell("GRUCell", (2, 3, 4), {"bias": False}),
]


def drawn() -> st.SearchStrategy[Case]:
    """Return cases of random shapes and options."""
    layers = st.builds(
        recurrent,
        st.sampled_from(["RNN", "LSTM", "GRU"]),
        st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(1, 4)),
        st.fixed_dictionaries(
            {
                "num_layers": st.integers(1, 3),
                "bias": st.booleans(),
                "bidirectional": st.booleans(),
            }
        ),
    )
    cells = st.builds(
        cell,
        st.sampled_from(["RNNCell", "LSTMCell", "GRUCell"]),
        st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 4)),
        st.fixed_dictionaries({"bias": st.booleans()}),
    )
    return layers | cells
