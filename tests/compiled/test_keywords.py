"""A compiled model takes the keywords that its forward takes."""

import copy

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import nnlite as nn

RNG = np.random.default_rng(0)
X = RNG.normal(size=(3, 5, 4)).astype(np.float32)
MASK = np.arange(5) < np.array([[5], [2], [3]])
BIAS = RNG.normal(size=(5, 5)).astype(np.float32)


def both(layer, native=False):
    return layer, nn.compile(copy.deepcopy(layer), native=native)


def assert_same(layer, compiled, *inputs, **by_keyword):
    expected, found = layer(*inputs, **by_keyword), compiled(*inputs, **by_keyword)
    assert_allclose(found, expected, atol=1e-5)
    grad = RNG.normal(size=expected.shape).astype(np.float32)
    wanted, got = layer.backward(grad), compiled.backward(grad)
    for a, b in zip(np.atleast_1d(*[wanted]), np.atleast_1d(*[got]), strict=True):
        assert_allclose(b, a, atol=1e-5)
    for p, q in zip(layer.parameters(), compiled.parameters(), strict=True):
        assert_allclose(q.grad, p.grad, atol=1e-4)
    layer.zero_grad()
    compiled.zero_grad()


@pytest.mark.parametrize("kind", [nn.RNN, nn.LSTM, nn.GRU])
def test_the_mask_of_a_recurrent_layer(kind):
    layer, compiled = both(kind(4, 3, outputs="all", bidirectional=True, rng=0))
    assert_same(layer, compiled, X, mask=MASK)
    assert_same(layer, compiled, X)
    assert_same(layer, compiled, X[:2], mask=MASK[:2].tolist())
    assert_same(layer, compiled, X, mask=None)


def test_the_mask_as_machine_code():
    pytest.importorskip("numba")
    assert_same(*both(nn.GRU(4, 3, rng=0), native=True), X, mask=MASK)


def test_the_masks_of_attention():
    layer, compiled = both(nn.MultiheadAttention(4, 2, rng=0))
    assert_same(layer, compiled, X, attn_mask=BIAS)
    assert_same(layer, compiled, X, key_padding_mask=~MASK)
    assert_same(layer, compiled, X, key_padding_mask=~MASK, attn_mask=BIAS > 1)
    assert_same(layer, compiled, X, None, None, ~MASK, need_weights=False)


@pytest.mark.parametrize(
    ("layer", "inputs", "by_keyword"),
    [
        (nn.MultiheadAttention(4, 2), (X, X, X, ~MASK, BIAS), {}),
        (nn.MultiheadAttention(4, 2), (X, X, X), {"key_padding_mask": ~MASK}),
        (nn.TransformerEncoderLayer(4, 2, 3), (X, BIAS), {}),
        (nn.TransformerEncoderLayer(4, 2, 3), (X,), {"src_mask": BIAS}),
        (nn.TransformerDecoderLayer(4, 2, 3), (X, X, BIAS), {}),
        (nn.TransformerDecoderLayer(4, 2, 3), (X, X), {"tgt_mask": BIAS, "memory_mask": BIAS > 1}),
    ],
    ids=lambda given: type(given).__name__,
)
def test_masks_have_no_gradients(layer, inputs, by_keyword):
    assert_same(*both(layer.eval()), *inputs, **by_keyword)


def test_an_input_is_not_taken_for_the_mask_of_the_call_before():
    layer, compiled = both(nn.MultiheadAttention(4, 1, rng=0))
    x, other = RNG.normal(size=(2, 2, 4, 4)).astype(np.float32)
    expected = layer(x, other)
    for _ in range(2):
        compiled(x, attn_mask=other)
    assert_allclose(compiled(x, other), expected, atol=1e-5)


def test_inputs_by_keyword_have_gradients():
    layer, compiled = both(nn.MultiheadAttention(4, 2, rng=0))
    other = X[:, ::-1].copy()
    expected, found = layer(X, key=other, value=X), compiled(X, key=other, value=X)
    assert_allclose(found, expected, atol=1e-5)
    grad = np.ones_like(expected)
    for wanted, got in zip(layer.backward(grad), compiled.backward(grad), strict=True):
        assert_allclose(got, wanted, atol=1e-5)


def test_a_keyword_of_the_model_alone_is_an_error():
    compiled = nn.compile(nn.MultiheadAttention(4, 2, rng=0), native=False)
    with pytest.raises(
        TypeError, match=r"^compile: Multihead.* no compiled form with need_weights=$"
    ):
        compiled(X, need_weights=True)


@pytest.mark.parametrize(
    ("layer", "by_keyword"),
    [
        (nn.LSTM(4, 3), {"masks": MASK}),
        (nn.LSTM(4, 3), {"mask": MASK[:, :4]}),
        (nn.LSTM(4, 3), {"mask": MASK.astype(int)}),
        (nn.Sequential(nn.LSTM(4, 3)), {"mask": MASK}),
        (nn.Linear(4, 3), {"mask": MASK}),
    ],
    ids=["misspelt", "shape", "dtype", "Sequential", "Linear"],
)
def test_a_wrong_keyword_is_an_error_as_without_compile(layer, by_keyword):
    with pytest.raises((TypeError, ValueError)) as expected:
        layer(X, **by_keyword)
    with pytest.raises(type(expected.value)) as raised:
        nn.compile(layer, native=False)(X, **by_keyword)
    assert str(raised.value) == str(expected.value)


def test_a_single_output_needs_a_gradient():
    layer, compiled = both(nn.Linear(4, 3, rng=0))
    for each in (layer, compiled):
        each(X)
        with pytest.raises(TypeError, match="expected a gradient of floats, got dtype object"):
            each.backward(None)


def test_the_gradient_of_a_single_output_may_be_nested_lists():
    layer, compiled = both(nn.Linear(4, 3, rng=0))
    grad = RNG.normal(size=(3, 5, 3)).astype(np.float32).tolist()
    for each in (layer, compiled):
        each(X)
    assert_allclose(compiled.backward(grad), layer.backward(grad), atol=1e-6)


@pytest.mark.parametrize("count", [None, 1, 3])
def test_several_outputs_need_a_gradient_each(count):
    layer, compiled = both(nn.Split([1, 3], dim=-1))
    grad = np.ones((3, 5, 1), np.float32)
    for each in (layer, compiled):
        each(X)
        with pytest.raises(ValueError, match="backward expects a tuple of 2 gradients"):
            each.backward(grad if count is None else (grad,) * count)


@pytest.mark.parametrize("native", [False, True])
@pytest.mark.parametrize("given", ["100", "010", "001", "101", "110"])
def test_what_no_given_gradient_reaches_has_none(given, native):
    if native:
        pytest.importorskip("numba")
    nodes = {
        "shared": (nn.Linear(4, 3, rng=0), "a"),
        "first": (nn.Linear(3, 2, rng=1), "shared"),
        "other": (nn.Linear(4, 3, rng=2), "b"),
        "second": (nn.Multiply(), "shared", "other"),
        "third": (nn.ReLU(), "c"),
    }
    layer = nn.Graph(nodes, inputs=["a", "b", "c"], outputs=["first", "second", "third"])
    layer, compiled = both(layer, native)
    inputs = tuple(RNG.normal(size=(6, 4)).astype(np.float32) for _ in "abc")
    for _ in range(2):  # the second one adds to what there is
        outputs = layer(*inputs)
        compiled(*inputs)
        grads = [
            np.ones_like(y) if each == "1" else None for y, each in zip(outputs, given, strict=True)
        ]
        expected, found = layer.backward(tuple(grads)), compiled.backward(tuple(grads))
        expected += tuple(parameter.grad for parameter in layer.parameters())
        found += tuple(parameter.grad for parameter in compiled.parameters())
        for one, other in zip(found, expected, strict=True):
            if other is None:
                assert one is None
            else:
                assert_allclose(one, other, rtol=1e-5, atol=1e-5)
    for each in (layer, compiled):
        each(*inputs)
        assert each.backward(tuple(grads), input_grad=False) is None
        each(*inputs)
        with pytest.raises(ValueError, match="Graph: backward got no gradient for any output"):
            each.backward((None, None, None))


def test_no_gradient_at_all_is_zero_as_without_compile():
    layer, compiled = both(nn.Sequential(nn.Linear(4, 4, rng=0), nn.Split([1, 3], dim=-1)))
    for each in (layer, compiled):
        each(X)
        assert_array_equal(each.backward((None, None)), np.zeros_like(X))
        assert all((parameter.grad == 0).all() for parameter in each.parameters())


def test_a_compiled_model_within_another_takes_its_keywords():
    inner = nn.compile(nn.GRU(4, 3, rng=0), native=False)
    outer = nn.Graph({"y": (inner, "x", {"mask": "m"})}, inputs=["x", "m"], outputs=["y"])
    assert_allclose(nn.compile(outer, native=False)(X, MASK), outer(X, MASK), atol=1e-6)


def test_a_mask_as_an_input_of_a_graph_has_no_gradient():
    nodes = {"y": (nn.MultiheadAttention(4, 2, rng=0), "x", "x", "x", {"attn_mask": "m"})}
    layer, compiled = both(nn.Graph(nodes, inputs=["x", "m"], outputs=["y"]))
    for each in (layer, compiled):
        y = each(X, BIAS)
        assert [grad is None for grad in each.backward(np.ones_like(y))] == [False, True]


def test_a_loss_within_a_model_is_an_error_that_names_it():
    nodes = {"y": (nn.Linear(4, 3), "x"), "loss": (nn.CrossEntropy(), "y", "t")}
    model = nn.Graph(nodes, inputs=["x", "t"], outputs=["loss"])
    message = r"compile: CrossEntropy\(\) \('loss' in the model\) is a loss; give it with the model"
    with pytest.raises(TypeError, match=message):
        nn.compile(model, native=False)
