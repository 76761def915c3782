"""`RNN`, `LSTM` and `GRU` compared with PyTorch's."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

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
]


def drawn() -> st.SearchStrategy[Case]:
    """Return cases of random shapes and options."""
    return st.builds(
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
