"""The layers of transformers and positions: masks, dropout, stacks and errors.

Parity with PyTorch, of values and gradients, is in ``parity/``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

import nnlite as nn

sizes = st.integers(1, 3)


def normal(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).normal(size=shape)


@settings(max_examples=8)
@given(
    shape=st.tuples(sizes, sizes), steps=sizes, heads=sizes, hidden=sizes, norm_first=st.booleans(),
    dropout=st.sampled_from([0.0, 0.4]), is_causal=st.booleans(),
)  # fmt: skip
def test_gradients_are_right_for_all_options(
    shape: tuple[int, int], steps: int, heads: int, hidden: int,
    norm_first: bool, dropout: float, is_causal: bool,
) -> None:  # fmt: skip
    width = 2 * heads
    options = {"norm_first": norm_first, "is_causal": is_causal, "rng": 0, "layer_norm_eps": 0.1}
    x, memory = normal(*shape, width), normal(shape[0], steps, width, seed=1)
    encoder = nn.TransformerEncoderLayer(width, heads, hidden, dropout, "gelu", **options)
    assert nn.gradcheck(encoder, x).passed
    decoder = nn.TransformerDecoderLayer(width, heads, hidden, dropout, "gelu", **options)
    assert nn.gradcheck(decoder, x, memory).passed


def test_a_row_in_which_all_is_masked_has_finite_gradients() -> None:
    decoder = nn.TransformerDecoderLayer(4, 2, 8, 0.0)
    x, memory = normal(2, 3, 4), normal(2, 5, 4, seed=1)
    nothing = np.ones((2, 5), bool)
    y = decoder(x, memory, memory_key_padding_mask=nothing)
    dx, d_memory = decoder.backward(np.ones_like(y))
    assert np.isfinite(y).all()
    assert np.isfinite(dx).all()
    assert_array_equal(d_memory, np.zeros_like(memory))
    for parameter in decoder.parameters():
        assert np.isfinite(parameter.grad).all()


def test_masks_reach_attention_in_a_graph() -> None:
    layers = [nn.TransformerEncoderLayer(4, 2, 8, 0.0) for _ in range(2)]
    graph = nn.Graph(
        {
            "first": (layers[0], "x", {"src_key_padding_mask": "padding"}),
            "second": (layers[1], "first", {"src_key_padding_mask": "padding"}),
        },
        inputs=("x", "padding"),
    )
    x = normal(2, 5, 4)
    padding = np.arange(5) >= np.array([3, 5])[:, None]
    y = graph(x, padding)
    assert_allclose(y[0, :3], nn.Sequential(*layers)(x[:1, :3])[0], rtol=1e-5, atol=1e-5)
    graph(x, padding)
    dx, of_mask = graph.backward(np.where(padding[..., None], 0, np.ones_like(y)))
    assert of_mask is None
    assert_array_equal(dx[0, 3:], np.zeros((2, 4)))


def test_dropout_acts_in_training_only() -> None:
    encoder = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.5, rng=0)
    x = normal(2, 3, 4)
    assert (encoder(x) != encoder(x)).any()
    encoder.eval()
    assert_array_equal(encoder(x), encoder(x))


def test_backward_after_another_forward_of_a_part_is_an_error() -> None:
    encoder = nn.TransformerEncoderLayer(4, 2, 8)
    x = normal(2, 3, 4)
    y = encoder(x)
    encoder.linear1(x)
    with pytest.raises(RuntimeError, match="'linear1'.*was called again"):
        encoder.backward(y)


def test_a_stack_has_the_keys_of_pytorchs() -> None:
    torch = pytest.importorskip("torch")
    layer = torch.nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    theirs = torch.nn.TransformerEncoder(
        layer, 2, torch.nn.LayerNorm(8), enable_nested_tensor=False
    ).eval()
    ours = nn.from_torch(theirs)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    x = normal(2, 3, 8).astype(np.float32)
    expected = theirs(torch.tensor(x)).detach().numpy()
    assert_allclose(ours(x), expected, rtol=1e-4, atol=1e-5)
    again = nn.to_torch(ours)(torch.tensor(x)).detach().numpy()
    assert_allclose(again, expected, rtol=1e-4, atol=1e-5)


# ---- positions ----


def test_sinusoids_are_those_of_the_formula() -> None:
    y = nn.SinusoidalPositions()(np.zeros((1, 50, 6)))
    for t, i in ((0, 0), (7, 1), (49, 2)):
        angle = t / 10000 ** (2 * i / 6)
        assert y[0, t, 2 * i] == pytest.approx(np.sin(angle))
        assert y[0, t, 2 * i + 1] == pytest.approx(np.cos(angle))


def test_the_rotation_to_another_position_is_the_same_everywhere() -> None:
    # Therefore attention can look a number of steps back: p_(t+k) is a linear function of p_t.
    p = nn.SinusoidalPositions()(np.zeros((1, 40, 8)))[0]
    solution, *_ = np.linalg.lstsq(p[:-3], p[3:], rcond=None)
    assert_allclose(p[:-3] @ solution, p[3:], atol=1e-9)


def test_errors() -> None:
    x = normal(2, 3, 4)
    with pytest.raises(ValueError, match="have 3 steps, more than max_len"):
        nn.LearnedPositions(2, 4)(x)
    with pytest.raises(ValueError, match=r"shape \(N, L, 5\), got \(2, 3, 4\)"):
        nn.LearnedPositions(3, 5)(x)
    with pytest.raises(ValueError, match=r"shape \(N, L, E\), got \(3, 4\)"):
        nn.SinusoidalPositions()(x[0])
    with pytest.raises(ValueError, match="nhead must divide d_model"):
        nn.TransformerEncoderLayer(6, 4)
    with pytest.raises(ValueError, match="activation must be one of 'relu', 'gelu'"):
        nn.TransformerDecoderLayer(6, 2, activation="tanh")
    with pytest.raises(ValueError, match="key_padding_mask of shape"):
        nn.TransformerEncoderLayer(4, 2)(x, src_key_padding_mask=np.ones((3, 2), bool))


def test_a_training_takes_pytorchs_course() -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    model = nn.Sequential(
        nn.Embedding(9, 8, rng=rng),
        nn.SinusoidalPositions(),
        nn.TransformerEncoderLayer(8, 2, 16, 0.0, norm_first=True, is_causal=True, rng=rng),
        nn.Linear(8, 9, rng=rng),
        nn.Permute(0, 2, 1),
    ).double()
    theirs = nn.to_torch(model)
    loss, optimizer = nn.CrossEntropy(), nn.Adam(model.parameters(), lr=0.01)
    their_loss = torch.nn.CrossEntropyLoss()
    their_optimizer = torch.optim.Adam(theirs.parameters(), lr=0.01)
    values, expected = [], []
    for _ in range(20):
        x = rng.integers(9, size=(4, 6))
        y = (x.cumsum(axis=1) // 3) % 9
        values.append(loss(model(x), y))
        optimizer.zero_grad()
        model.backward(loss.backward(), input_grad=False)
        optimizer.step()
        value = their_loss(theirs(torch.tensor(x)), torch.tensor(y))
        expected.append(value.item())
        their_optimizer.zero_grad()
        value.backward()
        their_optimizer.step()
    assert_allclose(values, expected, rtol=1e-9)
    assert values[-1] < values[0]
