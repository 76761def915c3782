"""Attention: formulas, masks in calls, in a `Graph` and through `fit`, and errors.

Parity with PyTorch, of values and gradients, is in ``parity/``.
"""

from __future__ import annotations

from pathlib import Path
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


def single_head() -> nn.MultiheadAttention:
    """Return attention whose projections are the identity, for one head of one feature."""
    attention = nn.MultiheadAttention(1, 1, bias=False).double()
    for parameter in attention.parameters():
        parameter.data[...] = 1
    return attention


def test_attention_at_known_points() -> None:
    # Scores 0 and log 3, so that the weights are 1/4 and 3/4.
    y, weights = single_head()(
        np.array([[[1.0]]]), np.array([[[0.0], [np.log(3)]]]), np.array([[[2.0], [6.0]]]),
        need_weights=True,
    )  # fmt: skip
    assert_allclose(weights, [[[1 / 4, 3 / 4]]], rtol=1e-14)
    assert_allclose(y, [[[5]]], rtol=1e-14)


def test_scores_are_divided_by_the_root_of_the_size_of_a_head() -> None:
    attention = nn.MultiheadAttention(8, 2, bias=False).double()
    attention.in_proj_weight.data[...] = np.tile(np.eye(8), (3, 1))
    x = np.zeros((1, 2, 8))
    x[0, 0, 0] = x[0, 1, 0] = 1
    x[0, 1, 1] = 1
    _, weights = attention(x, need_weights=True, average_attn_weights=False)
    # The first head has scores 1/√4 · ((1, 1), (1, 2)), the second has zeros.
    e = np.exp(0.5)
    assert_allclose(weights[0, 0], [[0.5, 0.5], [1 / (1 + e), e / (1 + e)]], rtol=1e-14)
    assert_allclose(weights[0, 1], np.full((2, 2), 0.5), rtol=1e-14)


@settings(max_examples=15)
@given(
    batch=sizes, length=sizes, steps=sizes, heads=sizes, head_size=sizes,
    inputs=st.integers(1, 3), masked=st.booleans(), is_causal=st.booleans(), bias=st.booleans(),
)  # fmt: skip
def test_gradients_are_right_for_all_shapes_and_masks(
    batch: int, length: int, steps: int, heads: int, head_size: int,
    inputs: int, masked: bool, is_causal: bool, bias: bool,
) -> None:  # fmt: skip
    width = heads * head_size
    layer = nn.MultiheadAttention(width, heads, bias=bias, is_causal=is_causal, rng=0)
    arrays = [normal(batch, length if k == 0 else steps, width, seed=k) for k in range(inputs)]
    model: nn.Layer = layer
    if masked:
        names = tuple("qkv"[:inputs])
        mask = "padding", "attn"
        model = nn.Graph(
            {"y": (layer, *names, {"key_padding_mask": "padding", "attn_mask": "attn"})},
            inputs=(*names, *mask),
        )
        rng, seen = np.random.default_rng(3), arrays[min(1, inputs - 1)].shape[1]
        # Whole rows may be masked, or a whole sequence.
        arrays += [rng.random((batch, seen)) < 0.5, rng.random((length, seen)) < 0.3]
    assert nn.gradcheck(model, *arrays).passed


def test_a_row_in_which_all_is_masked_reads_nothing() -> None:
    attention = nn.MultiheadAttention(4, 2, rng=0).double()
    x = normal(2, 3, 4)
    padding = np.array([[True, True, True], [False, True, False]])
    y, weights = attention(x, key_padding_mask=padding, need_weights=True)
    assert_array_equal(weights[0], np.zeros((3, 3)))
    assert_array_equal(weights[1, :, 1], np.zeros(3))
    assert_allclose(y[0], np.broadcast_to(attention.out_proj.bias.data, (3, 4)))
    dx = attention.backward(np.ones_like(y))
    assert_array_equal(dx[0], np.zeros((3, 4)))
    for parameter in attention.parameters():
        assert np.isfinite(parameter.grad).all()


def test_masks_of_booleans_and_of_minus_infinity_are_the_same() -> None:
    attention = nn.MultiheadAttention(4, 2, rng=0)
    x, rng = normal(2, 3, 4), np.random.default_rng(1)
    padding, mask = rng.random((2, 3)) < 0.3, rng.random((4, 3, 3)) < 0.3
    numbers = [np.where(each, -np.inf, 0.0) for each in (padding, mask)]
    assert_array_equal(attention(x, x, x, padding, mask), attention(x, x, x, *numbers))


def test_causal_attention_does_not_see_later_steps() -> None:
    attention = nn.MultiheadAttention(4, 2, is_causal=True, rng=0)
    x = normal(1, 5, 4)
    y = attention(x)
    x[:, 3:] = 100
    assert_array_equal(attention(x)[:, :3], y[:, :3])


def test_padding_is_not_read() -> None:
    attention = nn.MultiheadAttention(4, 2, rng=0)
    x = normal(2, 5, 4)
    padding = np.arange(5) >= np.array([3, 5])[:, None]
    y = attention(x, key_padding_mask=padding)
    assert_allclose(y[0, :3], attention(x[:1, :3])[0], rtol=1e-5, atol=1e-6)


def test_weights_are_dropped_in_training_only() -> None:
    attention = nn.MultiheadAttention(4, 1, dropout=0.5, rng=0)
    x = normal(8, 10, 4)
    _, weights = attention(x, need_weights=True)
    assert 0.4 < (weights == 0).mean() < 0.6
    assert nn.gradcheck(nn.MultiheadAttention(4, 2, dropout=0.5, rng=0), x[:2, :3]).passed
    _, weights = attention.eval()(x, need_weights=True)
    assert_allclose(weights.sum(axis=-1), np.ones((8, 10)), rtol=1e-5)


def test_initial_values_are_distributed_as_in_pytorch() -> None:
    state = nn.MultiheadAttention(100, 4, rng=0).state_dict()
    assert np.abs(state["in_proj_weight"]).max() == pytest.approx((6 / 400) ** 0.5, rel=1e-3)
    assert np.abs(state["out_proj.weight"]).max() == pytest.approx(0.1, rel=1e-3)
    assert not state["in_proj_bias"].any()
    assert not state["out_proj.bias"].any()


# ---- masks in a graph and through fit ----


def counting_task() -> tuple[Any, Any, Any]:
    """Return padded sequences, their masks of padding, and whether the last real step is above 0.

    The padding looks like real steps, so that a model that reads it cannot learn the task.
    """
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 6, 1)).astype(np.float32)
    lengths = rng.integers(1, 7, size=300)
    padding = np.arange(6) >= lengths[:, None]
    return x, padding, (x[np.arange(300), lengths - 1, 0] > 0).astype(int)


def test_the_mask_of_a_recurrent_layer_goes_through_fit() -> None:
    x, padding, labels = counting_task()
    nn.seed(0)
    model = nn.Graph(
        {
            "h": (nn.LSTM(1, 8, outputs="last"), "x", {"mask": "present"}),
            "y": (nn.Linear(8, 2), "h"),
        },
        inputs=("x", "present"),
    )
    data = ((x, ~padding), labels)
    history = nn.fit(
        model, nn.CrossEntropy(), nn.Adam(model.parameters(), lr=0.02),
        nn.DataLoader(x, ~padding, labels, batch_size=20, shuffle=True,
                      transform=lambda x, mask, y: ((x, mask), y)),
        validation=data, epochs=8, metrics=[nn.accuracy], progress=False,
    )  # fmt: skip
    assert history["validation_accuracy"][-1] > 0.9


def test_the_mask_of_attention_goes_through_fit() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 6, 4)).astype(np.float32)
    padding = np.arange(6) >= rng.integers(1, 7, size=300)[:, None]
    labels = (np.where(padding, -np.inf, x[:, :, 0]).max(axis=1) > 1).astype(int)
    x[padding, 0] = 3  # a model that reads the padding finds a maximum there
    nn.seed(0)
    model = nn.Graph(
        {
            "a": (nn.MultiheadAttention(4, 2), "x", {"key_padding_mask": "padding"}),
            "last": (nn.Lambda(lambda x: x[:, 0], vjp=_first), "a"),
            "h": (nn.Linear(4, 16), "last"),
            "t": (nn.Tanh(), "h"),
            "y": (nn.Linear(16, 2), "t"),
        },
        inputs=("x", "padding"),
    )
    loader = nn.DataLoader(
        x, padding, labels, batch_size=20, shuffle=True,
        transform=lambda x, mask, y: ((x, mask), y),
    )  # fmt: skip
    history = nn.fit(
        model, nn.CrossEntropy(), nn.Adam(model.parameters(), lr=0.02), loader,
        epochs=15, metrics=[nn.accuracy], progress=False,
    )  # fmt: skip
    assert history["accuracy"][-1] > 0.85


def _first(x: Any, grad: Any) -> Any:
    result = np.zeros_like(x)
    result[:, 0] = grad
    return result


# ---- errors ----


@pytest.mark.parametrize(
    ("masks", "error", "message"),
    [
        ({"key_padding_mask": np.ones((3, 2), bool)}, ValueError, r"shape \(2, 3\), got \(3, 2\)"),
        ({"attn_mask": np.ones((3, 4), bool)}, ValueError, r"\(3, 3\) or \(4, 3, 3\)"),
        ({"attn_mask": np.ones((3, 3), int)}, TypeError, r"\.astype\(bool\)"),
        ({"attn_mask": np.full((3, 3), np.nan)}, ValueError, "attn_mask contains NaN or"),
        ({"key_padding_mask": np.full((2, 3), np.inf)}, ValueError, "mask contains NaN or"),
        ({"key_padding_mask": np.ma.masked_array(np.ones((2, 3)), True)}, TypeError, "masked"),
    ],
)
def test_wrong_masks_are_named_and_change_nothing(
    masks: dict[str, Any], error: type[Exception], message: str
) -> None:
    attention = nn.MultiheadAttention(4, 2, rng=0)
    x = normal(2, 3, 4)
    y = attention(x)
    expected = attention.backward(np.ones_like(y))
    with pytest.raises(error, match=f"MultiheadAttention.*{message}"):
        attention(x, **masks)
    assert_array_equal(attention.backward(np.ones_like(y)), expected)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((6, 4), {}, "num_heads must divide embed_dim, got 4 heads for 6 features"),
        ((6, 0), {}, "num_heads must be at least 1"),
        ((6, 2), {"dropout": 2}, "dropout must be between 0 and 1"),
        ((6, 2), {"kdim": 0}, "kdim must be at least 1"),
    ],
)
def test_wrong_options(arguments: Any, options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        nn.MultiheadAttention(*arguments, **options)


def test_wrong_inputs() -> None:
    attention = nn.MultiheadAttention(4, 2)
    x = normal(2, 3, 4)
    with pytest.raises(ValueError, match=r"query of shape \(N, L, 4\), got \(3, 4\); add a batch"):
        attention(x[0])
    with pytest.raises(ValueError, match=r"value of shape \(N, S, 4\), got \(2, 3, 3\)"):
        attention(x, x, x[..., :3])
    with pytest.raises(ValueError, match="the same batch size"):
        attention(x, x[:1])
    with pytest.raises(ValueError, match="the same number of steps"):
        attention(x, x, x[:, :2])
    with pytest.raises(TypeError, match="a value needs a key"):
        attention(x, value=x)
    with pytest.raises(ValueError, match="query is empty"):
        attention(x[:, :0])


def test_inputs_by_keyword_are_checked_when_the_graph_is_made() -> None:
    with pytest.raises(TypeError, match=r"node 'y' gives 2 input\(s\).*'mask'"):
        nn.Graph({"y": (nn.MultiheadAttention(4, 2), "x", {"mask": "m"})}, inputs=("x", "m"))
    with pytest.raises(ValueError, match="'m' is not a node or an input"):
        nn.Graph({"y": (nn.LSTM(4, 2), "x", {"mask": "m"})})


# ---- other forms ----


def padded_model() -> tuple[nn.Graph, Any, Any]:
    """Return a model with a mask, and inputs one of which is all padding."""
    model = nn.Graph(
        {
            "a": (nn.MultiheadAttention(4, 2, rng=0), "x", {"key_padding_mask": "padding"}),
            "t": (
                nn.TransformerEncoderLayer(4, 2, 6, 0.0, is_causal=True, rng=1),
                "a",
                {"src_key_padding_mask": "padding"},
            ),
        },
        inputs=("x", "padding"),
    )
    x = normal(3, 5, 4).astype(np.float32)
    return model, x, np.arange(5) >= np.array([3, 5, 0])[:, None]


def test_a_model_with_a_mask_is_saved_and_loaded(tmp_path: Path) -> None:
    model, x, padding = padded_model()
    nn.save_model(model, tmp_path / "model.npz")
    again = nn.load_model(tmp_path / "model.npz")
    assert repr(again) == repr(model)
    assert_array_equal(again(x, padding), model(x, padding))


def test_a_model_with_a_mask_is_compiled() -> None:
    model, x, padding = padded_model()
    y = model(x, padding)
    dx, _ = model.backward(np.ones_like(y))
    compiled = nn.compile(model, native=False)
    assert_allclose(compiled(x, padding), y, rtol=1e-4, atol=1e-5)
    dx_compiled, of_mask = compiled.backward(np.ones_like(y))
    assert of_mask is None
    assert_allclose(dx_compiled, dx, rtol=1e-3, atol=1e-5)
    lstm = nn.Graph({"y": (nn.LSTM(4, 2), "x", {"mask": "m"})}, inputs=("x", "m"))
    found = nn.compile(lstm, native=False)(x, ~padding)
    assert_allclose(found, lstm(x, ~padding), rtol=1e-4, atol=1e-5)


def test_a_model_with_a_mask_is_an_onnx_file(tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    model, x, padding = padded_model()
    nn.to_onnx(model, tmp_path / "a.onnx", [(5, 4), (5,)])
    session = onnxruntime.InferenceSession(tmp_path / "a.onnx")
    (y,) = session.run(None, {"x": x, "padding": padding})
    assert_allclose(y, model(x, padding), rtol=1e-4, atol=1e-5)
    lstm = nn.Graph({"y": (nn.LSTM(4, 2), "x", {"mask": "m"})}, inputs=("x", "m"))
    with pytest.raises(ValueError, match=r"layer 'y': LSTM\(4, 2\) has no form with mask="):
        nn.to_onnx(lstm, tmp_path / "b.onnx", [(5, 4), (5,)])


def test_a_model_with_a_mask_is_a_module() -> None:
    torch = pytest.importorskip("torch")
    model, x, padding = padded_model()
    some = slice(0, 2)  # PyTorch has NaN where all is masked
    module = nn.to_torch(model)
    y = module(torch.tensor(x[some]), torch.tensor(padding[some])).detach().numpy()
    assert_allclose(y, model(x[some], padding[some]), rtol=1e-4, atol=1e-5)
    again = nn.from_torch(module)
    assert repr(again) == repr(model)
