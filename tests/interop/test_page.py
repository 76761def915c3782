"""The web page of a network: its JavaScript and the drawing area."""

import copy
import re
import struct
import zlib
from itertools import pairwise

import numpy as np
import pytest

import nnlite as nn
from nnlite.interop.page.forms import FORMS

from ..browser import WINDOWS, browser, opened, until

SAMPLES = 300


@pytest.fixture(scope="module")
def chromium():
    with browser() as chromium:
        yield chromium


@pytest.fixture(scope="module")
def digits():
    """A small convolutional network that reads MNIST, trained for a few seconds."""
    nn.seed(0)
    (images, labels), _ = nn.datasets.mnist()
    model = nn.Sequential(
        nn.Conv2d(1, 8, 5, stride=2), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Dropout(0.1), nn.Linear(288, 64), nn.ReLU(), nn.Linear(64, 10),
    )  # fmt: skip
    transform = nn.RandomAffine(degrees=10, shift=1, fill=images.min())
    loader = nn.DataLoader(
        images[:20_000], labels[:20_000], batch_size=64, shuffle=True, transform=transform
    )
    optimizer = nn.AdamW(model.parameters(), lr=0.003)
    nn.fit(model, nn.CrossEntropy(), optimizer, loader, epochs=2, progress=False)
    return model.eval()


@pytest.fixture(scope="module")
def computed(chromium, tmp_path_factory):
    """A function: outputs and input gradients as the JavaScript of a page computes them."""
    path = tmp_path_factory.mktemp("any") / "page.html"
    nn.to_html(nn.Sequential(nn.Linear(3, 2)), path)
    with opened(chromium, path) as page:

        def compute(document, inputs, grads):
            data = re.search(
                r'<script type="application/json" id="data">(.*?)</script>', str(document)
            )
            outputs, input_grads = page.evaluate(
                """([data, inputs, grads]) => {
                    const network = new Network(JSON.parse(data));
                    const runs = inputs.map((x) => network.forward(x));
                    return [
                        runs.map((values) => Array.from(values.at(-1).data)),
                        runs.map((values, n) => Array.from(network.backward(values, grads[n]))),
                    ];
                }""",
                [data[1], inputs.reshape(len(inputs), -1).tolist(), grads.tolist()],
            )
            return np.array(outputs), np.array(input_grads).reshape(inputs.shape)

        yield compute


def with_statistics(layer):
    """Return a batch norm as if it had been trained."""
    rng = np.random.default_rng(2)
    layer.running_mean[...] = rng.normal(size=layer.num_features)
    layer.running_var[...] = rng.uniform(0.5, 2, layer.num_features)
    return varied(layer)


def varied(layer):
    """Return the layer with other parameters than the initial ones."""
    rng = np.random.default_rng(3)
    for parameter in layer.parameters():
        parameter.data[...] = rng.normal(size=parameter.shape)
    return layer


# Every layer that the page has a form for, with a shape that shows its options.
CASES = {
    "Linear": ([nn.Linear(6, 4, rng=0)], (6,)),
    "Linear of rows": ([nn.Linear(6, 4, bias=False, rng=0), nn.Flatten()], (3, 6)),
    "Conv1d": ([nn.Conv1d(3, 4, 3, stride=2, padding=2, dilation=2, rng=0), nn.Flatten()], (3, 11)),
    "Conv1d same": ([nn.Conv1d(2, 3, 4, padding="same", rng=0), nn.Flatten()], (2, 7)),
    "Conv2d": (
        [nn.Conv2d(2, 3, (3, 2), (2, 1), (1, 0), (1, 2), rng=0), nn.Flatten()],
        (2, 9, 8),
    ),
    "Conv2d same": ([nn.Conv2d(1, 2, (4, 3), padding="same", rng=0), nn.Flatten()], (1, 6, 7)),
    "Conv2d valid": (
        [nn.Conv2d(1, 2, 3, padding="valid", bias=False, rng=0), nn.Flatten()],
        (1, 6, 7),
    ),
    "Conv2d in groups": ([nn.Conv2d(4, 6, 3, groups=2, rng=0), nn.Flatten()], (4, 5, 4)),
    "AvgPool2d with a divisor": ([nn.AvgPool2d(2, divisor_override=3), nn.Flatten()], (2, 4, 5)),
    "GlobalAvgPool1d": ([nn.GlobalAvgPool1d()], (3, 5)),
    "GlobalMaxPool1d": ([nn.GlobalMaxPool1d()], (3, 5)),
    "MaxPool1d": ([nn.MaxPool1d(3, 2, padding=1, ceil_mode=True), nn.Flatten()], (2, 10)),
    "MaxPool2d": (
        [nn.MaxPool2d((3, 2), (2, 1), (1, 1), (1, 2), ceil_mode=True), nn.Flatten()],
        (2, 8, 9),
    ),
    "AvgPool1d": ([nn.AvgPool1d(3, 2, padding=1, ceil_mode=True), nn.Flatten()], (2, 10)),
    "AvgPool2d": ([nn.AvgPool2d(3, 2, 1, ceil_mode=True), nn.Flatten()], (2, 8, 9)),
    "AvgPool2d without padding": (
        [nn.AvgPool2d((2, 3), 2, 1, count_include_pad=False), nn.Flatten()],
        (2, 7, 8),
    ),
    "GlobalAvgPool2d": ([nn.GlobalAvgPool2d()], (3, 4, 5)),
    "GlobalMaxPool2d": ([nn.GlobalMaxPool2d()], (3, 4, 5)),
    "BatchNorm1d": ([with_statistics(nn.BatchNorm1d(5))], (5,)),
    "BatchNorm1d of sequences": ([with_statistics(nn.BatchNorm1d(2)), nn.Flatten()], (2, 6)),
    "BatchNorm2d": ([with_statistics(nn.BatchNorm2d(2)), nn.Flatten()], (2, 3, 4)),
    "LayerNorm": ([nn.LayerNorm((3, 4)), nn.Flatten()], (2, 3, 4)),
    "GroupNorm": ([varied(nn.GroupNorm(2, 6)), nn.Flatten()], (6, 3, 2)),
    "GroupNorm of features": ([nn.GroupNorm(2, 6, affine=False)], (6,)),
    "InstanceNorm1d": ([varied(nn.InstanceNorm1d(2, affine=True)), nn.Flatten()], (2, 5)),
    "InstanceNorm2d": (
        [with_statistics(nn.InstanceNorm2d(2, 1e-5, 0.1, True, True)), nn.Flatten()],
        (2, 3, 4),
    ),
    "ReLU": ([nn.ReLU()], (20,)),
    "LeakyReLU": ([nn.LeakyReLU(0.2)], (20,)),
    "ELU": ([nn.ELU(0.7)], (20,)),
    "SiLU": ([nn.SiLU()], (20,)),
    "SELU": ([nn.SELU()], (20,)),
    "Mish": ([nn.Mish()], (20,)),
    "Hardtanh": ([nn.Hardtanh(-0.5, 0.8)], (20,)),
    "ReLU6": ([nn.ReLU6()], (20,)),
    "Hardswish": ([nn.Hardswish()], (20,)),
    "Hardsigmoid": ([nn.Hardsigmoid()], (20,)),
    "Softplus": ([nn.Softplus(2.5)], (20,)),
    "Softplus with a threshold": ([nn.Softplus(2.5, 0.5)], (20,)),
    "Softsign": ([nn.Softsign()], (20,)),
    "LogSigmoid": ([nn.LogSigmoid()], (20,)),
    "ConstantPad1d": ([nn.ConstantPad1d((1, 2), 0.7), nn.Flatten()], (2, 5)),
    "ConstantPad2d": ([nn.ConstantPad2d((1, 2, 0, 3), -0.7), nn.Flatten()], (2, 4, 5)),
    "ZeroPad1d": ([nn.ZeroPad1d(2), nn.Flatten()], (2, 5)),
    "ZeroPad2d": ([nn.ZeroPad2d((0, 2, 1, 0)), nn.Flatten()], (2, 4, 5)),
    "ReflectionPad1d": ([nn.ReflectionPad1d((3, 1)), nn.Flatten()], (2, 5)),
    "ReflectionPad2d": ([nn.ReflectionPad2d((1, 2, 3, 0)), nn.Flatten()], (2, 4, 5)),
    "ReplicationPad1d": ([nn.ReplicationPad1d((3, 1)), nn.Flatten()], (2, 5)),
    "ReplicationPad2d": ([nn.ReplicationPad2d((1, 2, 3, 0)), nn.Flatten()], (2, 4, 5)),
    "CircularPad1d": ([nn.CircularPad1d((3, 1)), nn.Flatten()], (2, 5)),
    "CircularPad2d": ([nn.CircularPad2d((1, 2, 3, 0)), nn.Flatten()], (2, 4, 5)),
    "Upsample": ([nn.Upsample(scale_factor=1.7), nn.Flatten()], (2, 4, 5)),
    "Upsample linear": ([nn.Upsample(7, mode="linear"), nn.Flatten()], (2, 4)),
    "Upsample bilinear": (
        [nn.Upsample(scale_factor=(2, 1.5), mode="bilinear", align_corners=True), nn.Flatten()],
        (2, 4, 5),
    ),
    "PReLU": ([nn.PReLU()], (20,)),
    "PReLU of channels": ([nn.PReLU(2, 0.3), nn.Flatten()], (2, 5)),
    "GLU": ([nn.GLU()], (20,)),
    "GLU of channels": ([nn.GLU(1), nn.Flatten()], (4, 3)),
    "GELU": ([nn.GELU()], (20,)),
    "GELU tanh": ([nn.GELU("tanh")], (20,)),
    "Sigmoid": ([nn.Sigmoid()], (20,)),
    "Tanh": ([nn.Tanh()], (20,)),
    "Softmax": ([nn.Softmax()], (7,)),
    "Softmax of channels": ([nn.Softmax(1), nn.Flatten()], (3, 5)),
    "LogSoftmax": ([nn.LogSoftmax()], (7,)),
    "Flatten": ([nn.Flatten()], (2, 3)),
    "Reshape": ([nn.Reshape(6), nn.Linear(6, 2, rng=0)], (2, 3)),
    "Identity": ([nn.Identity()], (3,)),
    "Dropout": ([nn.Dropout(0.5)], (9,)),
    "Dropout1d": ([nn.Dropout1d(0.5), nn.Flatten()], (2, 3)),
    "Dropout2d": ([nn.Dropout2d(0.5), nn.Flatten()], (2, 3, 2)),
    "Conv1d reflect": (
        [nn.Conv1d(2, 3, 4, padding="same", padding_mode="reflect", rng=0), nn.Flatten()],
        (2, 7),
    ),
    "Conv2d replicate": (
        [nn.Conv2d(2, 4, (3, 2), 2, (1, 2), (2, 1), 2, padding_mode="replicate", rng=0),
         nn.Flatten()],
        (2, 6, 7),
    ),
    "Conv2d circular": (
        [nn.Conv2d(1, 2, (4, 3), padding="same", padding_mode="circular", rng=0), nn.Flatten()],
        (1, 6, 7),
    ),
    "ConvTranspose1d": (
        [nn.ConvTranspose1d(4, 6, 3, 2, 1, 1, groups=2, rng=0), nn.Flatten()],
        (4, 5),
    ),
    "ConvTranspose2d": (
        [nn.ConvTranspose2d(2, 3, (3, 2), (2, 3), (1, 0), (1, 0), 1, False, 2, rng=0),
         nn.Flatten()],
        (2, 4, 3),
    ),
    "PixelShuffle": ([nn.PixelShuffle(2), nn.Flatten()], (8, 3, 2)),
    "AdaptiveAvgPool1d": ([nn.AdaptiveAvgPool1d(3), nn.Flatten()], (2, 7)),
    "AdaptiveAvgPool2d": ([nn.AdaptiveAvgPool2d((3, None)), nn.Flatten()], (2, 7, 3)),
    "AdaptiveMaxPool1d": ([nn.AdaptiveMaxPool1d(3), nn.Flatten()], (2, 7)),
    "AdaptiveMaxPool2d": ([nn.AdaptiveMaxPool2d((3, 2)), nn.Flatten()], (2, 7, 5)),
    "RMSNorm": ([varied(nn.RMSNorm((3, 4))), nn.Flatten()], (2, 3, 4)),
    "RMSNorm without weight": ([nn.RMSNorm(4, 0.1, False), nn.Flatten()], (3, 4)),
    "Abs": ([nn.Abs()], (20,)),
    "Exp": ([nn.Exp()], (20,)),
    "Log": ([nn.Square(), nn.Log()], (20,)),
    "Negative": ([nn.Negative()], (20,)),
    "Power": ([nn.Abs(), nn.Power(1.7)], (20,)),
    "Power of an integer": ([nn.Power(3)], (20,)),
    "Reciprocal": ([nn.Exp(), nn.Reciprocal()], (20,)),
    "Sqrt": ([nn.Exp(), nn.Sqrt()], (20,)),
    "Square": ([nn.Square()], (20,)),
    "Sum": ([nn.Sum(2, keepdim=True), nn.Flatten()], (3, 4, 2)),
    "Sum of samples": ([nn.Sum((1, -1))], (3, 4, 2)),
    "Mean": ([nn.Mean((-1, 1))], (3, 4, 2)),
    "Permute": ([nn.Permute(0, 3, 1, 2), nn.Slice(0, 3, 2), nn.Flatten()], (3, 4, 3)),
    "Slice": ([nn.Slice(-4, None, 2, dim=-1), nn.Flatten()], (2, 6)),
    "Unflatten": ([nn.Unflatten(1, (2, -1)), nn.Unsqueeze(-1), nn.Squeeze(3), nn.Mean(1)], (6,)),
    "Graph": (
        [nn.Graph({
            "parts": (nn.Split((2, 1, 3)), "x"),
            "w": nn.Weight(np.array([[0.5, -2, 1, 3]], np.float32)),
            "positive": (nn.Softplus(), "w"),
            "scaled": (nn.Multiply(), "parts.0", "positive", 0.5),
            "a": (nn.Add(), "scaled", "parts.1"),
            "b": (nn.Subtract(), "w", "parts.1"),
            "c": (nn.Divide(), "a", "positive"),
            "high": (nn.Maximum(), "b", "c"),
            "low": (nn.Minimum(), "high", "parts.0"),
            "joint": (nn.Concatenate(), "low", "parts.2", "a"),
            "stack": (nn.Stack(2), "joint", "joint"),
            "y": (nn.Flatten(), "stack"),
        })],
        (6, 4),
    ),
    "MatMul": (
        [nn.Graph({
            "t": (nn.Permute(0, 1, 3, 2), "x"),
            "w": nn.Weight(np.arange(6, dtype=np.float32).reshape(2, 3) / 3),
            "v": nn.Weight(np.array([1, -2], np.float32)),
            "a": (nn.MatMul(), "x", "t"),
            "b": (nn.MatMul(), "a", "w"),
            "c": (nn.MatMul(), "t", "v"),
            "b flat": (nn.Flatten(), "b"),
            "c flat": (nn.Flatten(), "c"),
            "y": (nn.Concatenate(), "b flat", "c flat"),
        })],
        (3, 2, 2),
    ),
    "RNN": ([nn.RNN(3, 4, rng=0), nn.Flatten()], (5, 3)),
    "RNN relu": (
        [nn.RNN(3, 4, 2, "relu", bias=False, bidirectional=True, rng=0), nn.Flatten()], (5, 3)
    ),
    "LSTM": ([nn.LSTM(3, 4, 2, bidirectional=True, rng=0), nn.Flatten()], (5, 3)),
    "LSTM last": ([nn.LSTM(3, 4, bidirectional=True, outputs="last", rng=0)], (5, 3)),
    "GRU": ([nn.GRU(3, 4, 2, outputs="last", rng=0)], (5, 3)),
    "GRU truncated": (
        [nn.GRU(3, 4, truncate=2, bidirectional=True, rng=0), nn.Flatten()], (5, 3)
    ),
    "RNN truncated": ([nn.RNN(3, 4, truncate=3, outputs="last", rng=0)], (7, 3)),
    "cells": (
        [nn.Graph({
            "steps": (nn.Split(1), "x"),
            **{f"x{t}": (nn.Squeeze(1), f"steps.{t}") for t in range(3)},
            "lstm0": (nn.LSTMCell(3, 4, rng=0), "x0"),
            "lstm1": (nn.LSTMCell(3, 4, rng=1), "x1", "lstm0.0", "lstm0.1"),
            "gru0": (nn.GRUCell(3, 4, rng=2), "x2"),
            "gru1": (nn.GRUCell(3, 4, False, rng=3), "x0", "gru0"),
            "rnn0": (nn.RNNCell(3, 4, rng=4), "x1"),
            "rnn1": (nn.RNNCell(3, 4, nonlinearity="relu", rng=5), "x2", "rnn0"),
            "y": (nn.Concatenate(), "lstm1.0", "lstm1.1", "gru1", "rnn1"),
        })],
        (3, 3),
    ),
    "SinusoidalPositions": ([nn.SinusoidalPositions(), nn.Flatten()], (5, 6)),
    "LearnedPositions": ([varied(nn.LearnedPositions(7, 6)), nn.Flatten()], (5, 6)),
    "MultiheadAttention": ([varied(nn.MultiheadAttention(6, 3)), nn.Flatten()], (5, 6)),
    "MultiheadAttention of several inputs": (
        [nn.Graph({
            "q": (nn.Slice(0, 3), "x"),
            "k": (nn.Slice(2, 6, dim=2), "x"),
            "v": (nn.Slice(1, 6, dim=2), "x"),
            "y": (varied(nn.MultiheadAttention(6, 2, 0.1, False, kdim=4, vdim=5, is_causal=True)),
                  "q", "k", "v"),
            "flat": (nn.Flatten(), "y"),
        })],
        (5, 6),
    ),
    "TransformerEncoderLayer": (
        [varied(nn.TransformerEncoderLayer(6, 2, 7)),
         varied(nn.TransformerEncoderLayer(6, 3, 7, 0.1, "gelu", norm_first=True, bias=False)),
         nn.Flatten()],
        (4, 6),
    ),
    "TransformerDecoderLayer": (
        [nn.Graph({
            "memory": (varied(nn.TransformerEncoderLayer(6, 2, 7, is_causal=True)), "x"),
            "start": (nn.Slice(0, 3), "x"),
            "h": (varied(nn.TransformerDecoderLayer(6, 2, 7, is_causal=True)), "start", "memory"),
            "y": (varied(nn.TransformerDecoderLayer(6, 2, 7, norm_first=True)), "h", "memory"),
            "flat": (nn.Flatten(), "y"),
        })],
        (4, 6),
    ),
    "AveragedModel": ([nn.AveragedModel(nn.Sequential(nn.Linear(5, 4, rng=0), nn.Tanh()))], (5,)),
    "Residual": (
        [nn.Residual(nn.Linear(5, 5, rng=0), nn.Residual(nn.Tanh()), nn.Linear(5, 5, rng=1))],
        (5,),
    ),
    "a network": (
        [
            nn.Conv2d(1, 4, 3, rng=0), with_statistics(nn.BatchNorm2d(4)), nn.ReLU(),
            nn.MaxPool2d(2), nn.Sequential(nn.Flatten(), nn.Linear(36, 8, rng=1), nn.GELU()),
            nn.LayerNorm(8), nn.Linear(8, 3, rng=2), nn.Softmax(),
        ],
        (1, 8, 8),
    ),
}  # fmt: skip


def test_every_form_has_a_case():
    shown = {
        type(layer) for layers, _ in CASES.values() for layer in nn.Sequential(*layers).layers()
    }
    assert set(FORMS) - {nn.Embedding} <= shown  # which has a test of its own


@pytest.mark.parametrize("name", CASES)
def test_page_computes_outputs_and_gradients_as_nnlite_does(computed, name):
    layers, shape = CASES[name]
    rng = np.random.default_rng(1)
    inputs = rng.normal(size=(SAMPLES if name == "a network" else 20, *shape))
    model = nn.Sequential(*layers)
    document = nn.to_html(model, input_shape=shape, dtype="float32")
    model = model.eval().astype(np.float64)
    outputs = model(inputs)
    grads = rng.normal(size=outputs.shape)
    expected = model.backward(grads)
    actual = computed(document, inputs, grads)
    np.testing.assert_allclose(actual[0], outputs, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(actual[1], expected, rtol=1e-4, atol=1e-4)


def test_page_looks_up_indices_and_computes_how_far_each_vector_counts(computed):
    model = nn.Sequential(
        nn.Embedding(5, 4, rng=0), nn.TransformerEncoderLayer(4, 2, 6, rng=1), nn.Flatten(),
        nn.Linear(12, 2, rng=2),
    ).eval()  # fmt: skip
    rng = np.random.default_rng(0)
    indices = rng.integers(5, size=(20, 3))
    document = nn.to_html(model, input_shape=3, dtype="float32")
    outputs = model(indices)
    grads = rng.normal(size=outputs.shape).astype(np.float32)
    vectors = model[0](indices)
    by_vector = model[1:]
    by_vector(vectors)
    expected = (by_vector.backward(grads) * vectors).sum(axis=-1)
    actual = computed(document, indices, grads)
    np.testing.assert_allclose(actual[0], outputs, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(actual[1], expected, rtol=1e-4, atol=1e-4)


def test_indices_of_several_tables_are_those_of_the_smallest():
    model = nn.Graph({
        "a": (nn.Embedding(4, 2), "x"), "b": (nn.Embedding(3, 2), "x"), "c": (nn.Add(), "a", "b"),
        "d": (nn.Embedding(5, 2), "x"), "e": (nn.Add(), "c", "d"), "y": (nn.Sum(1), "e"),
    })  # fmt: skip
    assert '"indices":3' in str(nn.to_html(model, input_shape=2))


def test_a_layer_that_takes_no_input_gets_none():
    with pytest.raises(TypeError, match="forward"):
        nn.to_html(nn.Sequential(nn.Weight([[1.0]])), input_shape=2)


def test_page_computes_the_transformer_of_the_gallery(computed):
    options = {"activation": "gelu", "norm_first": True, "is_causal": True, "rng": 0}
    layers = [nn.TransformerEncoderLayer(64, 4, 128, 0.0, **options) for _ in range(2)]
    model = nn.Sequential(
        nn.Embedding(61, 64, rng=0), nn.LearnedPositions(50, 64, rng=1), *layers,
        nn.LayerNorm(64), nn.Linear(64, 61, rng=2), nn.Permute(0, 2, 1),
        nn.Slice(-1, dim=2), nn.Squeeze(2),
    )  # fmt: skip
    codes = np.random.default_rng(0).integers(61, size=(5, 50))
    document = nn.to_html(model, dtype="float32")
    actual = computed(document, codes, np.zeros((5, 61)))[0]
    np.testing.assert_allclose(actual, nn.predict(model, codes), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", [nn.Maximum, nn.Minimum])
def test_equal_operands_share_the_gradient(computed, kind):
    model = nn.Sequential(nn.Graph({"p": (nn.Split(2), "x"), "y": (kind(), "p.0", "p.1")}))
    inputs = np.array([[1.0, 2, 1, 3], [0, 5, 0, 5]])
    document = nn.to_html(model, input_shape=4)
    model(inputs)
    actual = computed(document, inputs, np.ones((2, 2)))
    np.testing.assert_array_equal(actual[1], model.backward(np.ones((2, 2))))


@pytest.mark.parametrize("name", [name for name in CASES if "MaxPool" in name])
def test_the_first_of_equal_pixels_gets_the_gradient(computed, name):
    layers, shape = CASES[name]
    rng = np.random.default_rng(3)
    inputs = rng.integers(-1, 2, (20, *shape)).astype(np.float64)
    model = nn.Sequential(*layers)
    document = nn.to_html(model, input_shape=shape)
    grads = rng.normal(size=model(inputs).shape)
    actual = computed(document, inputs, grads)
    np.testing.assert_allclose(actual[1], model.backward(grads), atol=1e-6)


def test_page_computes_a_trained_network_on_test_images(computed, digits):
    # In the black background all pixels of a pool are alike, and the first gets the gradient. Sums
    # of multiples of a power of 2 are exact, so that rounding makes no other pixel the largest.
    digits = copy.deepcopy(digits)
    digits[0].weight.data = np.round(digits[0].weight.data * 256) / 256
    digits[0].bias.data = np.round(digits[0].bias.data * 256) / 256
    images = np.round(nn.datasets.mnist()[1][0][:SAMPLES].astype(np.float64) * 64) / 64
    document = nn.to_html(digits, dtype="float32")
    digits.astype(np.float64)
    outputs = digits(images)
    grads = np.eye(10)[outputs.argmax(axis=1)]
    expected = digits.backward(grads)
    actual = computed(document, images, grads)
    np.testing.assert_allclose(actual[0], outputs, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(actual[1], expected, rtol=1e-4, atol=1e-4)


def test_float16_rounds_the_weights_and_nothing_else(computed):
    model = nn.Sequential(nn.Linear(5, 8, rng=0), nn.Tanh(), nn.Linear(8, 3, rng=1))
    document = nn.to_html(model)
    for parameter in model.parameters():
        parameter.data = parameter.data.astype(np.float16)
    inputs = np.random.default_rng(0).normal(size=(SAMPLES, 5)).astype(np.float32)
    outputs = model(inputs)
    grads = np.ones_like(outputs)
    actual = computed(document, inputs, grads)
    np.testing.assert_allclose(actual[0], outputs, atol=1e-5)
    np.testing.assert_allclose(actual[1], model.backward(grads), atol=1e-5)


# ---- drawing ----

# Digits as a person writes them, which is not MNIST's style: small, in a corner, of few strokes.
STROKES = {
    "0": [[(0.3, 0.1), (0.15, 0.2), (0.12, 0.4), (0.2, 0.55), (0.35, 0.55), (0.45, 0.4),
           (0.45, 0.2), (0.3, 0.1)]],
    "1": [[(0.8, 0.3), (0.8, 0.9)]],
    "2": [[(0.5, 0.35), (0.6, 0.25), (0.72, 0.28), (0.74, 0.4), (0.62, 0.55), (0.5, 0.7),
           (0.62, 0.7), (0.78, 0.7)]],
    "3": [[(0.3, 0.25), (0.45, 0.15), (0.62, 0.2), (0.65, 0.35), (0.5, 0.47), (0.66, 0.55),
           (0.7, 0.72), (0.5, 0.85), (0.3, 0.78)]],
    "4": [[(0.3, 0.1), (0.2, 0.5), (0.65, 0.5)], [(0.55, 0.15), (0.52, 0.9)]],
    "5": [[(0.7, 0.15), (0.35, 0.15), (0.32, 0.45), (0.55, 0.42), (0.7, 0.55), (0.66, 0.8),
           (0.45, 0.88), (0.28, 0.8)]],
    "6": [[(0.6, 0.1), (0.42, 0.3), (0.34, 0.55), (0.38, 0.8), (0.55, 0.85), (0.66, 0.72),
           (0.6, 0.58), (0.45, 0.56), (0.36, 0.66)]],
    "7": [[(0.1, 0.1), (0.5, 0.1), (0.35, 0.45), (0.28, 0.8)]],
    "8": [[(0.6, 0.2), (0.45, 0.12), (0.35, 0.25), (0.5, 0.42), (0.64, 0.6), (0.6, 0.8),
           (0.42, 0.85), (0.34, 0.7), (0.46, 0.48), (0.62, 0.32), (0.6, 0.2)]],
    "9": [[(0.62, 0.3), (0.5, 0.15), (0.36, 0.25), (0.4, 0.42), (0.56, 0.42), (0.62, 0.28),
           (0.62, 0.55), (0.58, 0.88)]],
}  # fmt: skip


def draw(page, strokes):
    box = page.locator("#drawing").bounding_box()
    for stroke in strokes:
        points = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in stroke]
        page.mouse.move(*points[0])
        page.mouse.down()
        for point in points[1:]:
            page.mouse.move(*point, steps=4)
        page.mouse.up()


def touch(page, strokes):
    """Draw with a finger: the touch events that a phone's screen sends."""
    box = page.locator("#drawing").bounding_box()
    session = page.context.new_cdp_session(page)

    def send(kind, *points):
        found = [{"x": box["x"] + x * box["width"], "y": box["y"] + y * box["height"]}
                 for x, y in points]  # fmt: skip
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": found})

    for stroke in strokes:
        send("touchStart", stroke[0])
        for before, after in pairwise(stroke):
            for t in (0.25, 0.5, 0.75, 1):
                send("touchMove", [(1 - t) * a + t * b for a, b in zip(before, after, strict=True)])
        send("touchEnd")


@pytest.mark.parametrize(("window", "hand"), [("desktop", draw), ("phone", touch)])
def test_drawn_digits_are_read(chromium, tmp_path, digits, window, hand):
    nn.to_html(digits, tmp_path / "digits.html")
    with opened(chromium, tmp_path / "digits.html", window) as page:
        for digit, strokes in STROKES.items():
            page.get_by_role("button", name="Clear").click()
            page.locator("#drawing").scroll_into_view_if_needed()
            hand(page, strokes)
            until(page, f"byId('answer').textContent === 'It looks like {digit}'")
        assert page.evaluate("document.documentElement.scrollWidth") <= WINDOWS[window][0]


def test_drawing_is_scaled_and_centred_as_mnist_is(chromium, tmp_path, digits):
    nn.to_html(digits, tmp_path / "digits.html")
    with opened(chromium, tmp_path / "digits.html") as page:
        for strokes in STROKES.values():
            page.get_by_role("button", name="Clear").click()
            draw(page, strokes)
            image = page.evaluate("Array.from(state.raw)")
            image = np.array(image).reshape(28, 28)
            # The two rules of MNIST's own page: a box of 20 x 20, the centre of mass in the middle.
            # Antialiasing lets a pixel at either end be a little grey.
            rows, columns = (np.flatnonzero(image.max(axis) > 0.3) for axis in (1, 0))
            assert 19 <= max(np.ptp(rows), np.ptp(columns)) + 1 <= 21
            places = np.arange(28)
            mass = image.sum()
            assert image.sum(axis=1) @ places / mass == pytest.approx(14, abs=0.1)
            assert image.sum(axis=0) @ places / mass == pytest.approx(14, abs=0.1)
            assert 0.99 < image.max() <= 1.0001
            assert np.any((image > 0.05) & (image < 0.95))


def test_undo_and_clear(chromium, tmp_path, digits):
    nn.to_html(digits, tmp_path / "digits.html")
    with opened(chromium, tmp_path / "digits.html") as page:
        draw(page, STROKES["4"])
        both = page.evaluate("state.raw")
        page.get_by_role("button", name="Undo").click()
        assert page.evaluate("input.strokes.length") == 1
        assert page.evaluate("state.raw") != both
        page.get_by_role("button", name="Clear").click()
        assert page.evaluate("largest(state.raw)") == 0


def test_a_click_on_a_unit_shows_its_gradient(chromium, tmp_path, digits):
    nn.to_html(digits, tmp_path / "digits.html", dtype="float32")
    with opened(chromium, tmp_path / "digits.html") as page:
        draw(page, STROKES["3"])
        page.get_by_role("button", name=re.compile("^7")).click()
        until(page, "state.picked?.index === 7 && seen.text.textContent.endsWith('7')")
        raw, grad = page.evaluate("[Array.from(state.raw), Array.from(seen.grad)]")
    image = np.array(raw, np.float32).reshape(1, 1, 28, 28)
    model = copy.deepcopy(digits)
    model((image - np.float32(0.1307)) / np.float32(0.3081))
    expected = model.backward(np.eye(10, dtype=np.float32)[[7]]) / 0.3081
    np.testing.assert_allclose(np.reshape(grad, (28, 28)), expected[0, 0], atol=1e-4)


# ---- other inputs ----


def test_a_form_takes_numbers_and_says_what_it_cannot_take(chromium, tmp_path):
    model = nn.Sequential(nn.Linear(3, 2, rng=0))
    mean, std = [1.0, 2.0, 3.0], [2.0, 1.0, 0.5]
    nn.to_html(model, tmp_path / "form.html", features=["a", "b", "c"], mean=mean, std=std,
               activation="none", dtype="float32")  # fmt: skip
    with opened(chromium, tmp_path / "form.html") as page:
        for name, value in (("a", "4"), ("b", "-1"), ("c", "0.5")):
            page.get_by_label(name, exact=True).fill(value)
        until(page, "state.raw[2] === 0.5")
        shown = page.locator(".output .value").all_text_contents()
        page.get_by_label("a", exact=True).fill("")
        assert page.get_by_role("alert").text_content() == "Every field needs a number."
        page.set_input_files("input[type=file]", files=[
            {"name": "row.csv", "mimeType": "text/csv", "buffer": b"1.5, 2; 3\n"}])  # fmt: skip
        until(page, "state.raw[0] === 1.5")
        page.set_input_files("input[type=file]", files=[
            {"name": "row.csv", "mimeType": "text/csv", "buffer": b"1.5, two"}])  # fmt: skip
        until(page, "document.querySelector('[role=alert]').textContent !== ''")
        assert page.get_by_role("alert").text_content() == "Expected 3 numbers, got 2 words."
    expected = model((np.array([[4, -1, 0.5]], np.float32) - mean) / std)[0]
    np.testing.assert_allclose([float(text) for text in shown], expected, rtol=1e-3)


def test_a_form_of_indices_takes_whole_numbers(chromium, tmp_path):
    model = nn.Sequential(nn.Embedding(4, 2, rng=0), nn.Flatten())
    nn.to_html(model, tmp_path / "form.html", input_shape=2, activation="none", dtype="float32")
    with opened(chromium, tmp_path / "form.html") as page:
        for name, value in (("x0", "3"), ("x1", "1")):
            page.get_by_label(name, exact=True).fill(value)
        until(page, "state.raw[0] === 3 && state.raw[1] === 1")
        shown = page.locator(".output .value").all_text_contents()
        for value in ("4", "0.5", "-1"):
            page.get_by_label("x0", exact=True).fill(value)
            assert page.get_by_role("alert").text_content() == "Expected whole numbers from 0 to 3."
        page.set_input_files("input[type=file]", files=[
            {"name": "row.csv", "mimeType": "text/csv", "buffer": b"2 9"}])  # fmt: skip
        until(page, "document.querySelector('[role=alert]').textContent !== ''")
        assert page.evaluate("Array.from(state.raw)") == [3, 1]
    expected = model(np.array([[3, 1]]))[0]
    np.testing.assert_allclose([float(text) for text in shown], expected, rtol=1e-3)


def follower():
    """Return a model of the alphabet "\n", "a", "b", in which each character has a successor."""
    model = nn.Sequential(
        nn.Embedding(3, 3), nn.Slice(-1), nn.Squeeze(1), nn.Linear(3, 3, bias=False)
    )
    model[0].weight.data[...] = np.eye(3)
    model[3].weight.data[...] = 20 * np.array([[0, 0, 1], [1, 0, 0], [0, 1, 0]])
    return model


@pytest.mark.parametrize("window", WINDOWS)
def test_a_text_is_written_on(chromium, tmp_path, window):
    nn.to_html(follower(), tmp_path / "text.html", input_shape=4, alphabet="\nab")
    with opened(chromium, tmp_path / "text.html", window) as page:
        text = page.get_by_label("Text", exact=True)
        until(page, "byId('answer').textContent === 'The next is a'")  # after the line of code 0
        text.fill("ba")
        until(page, "byId('answer').textContent === 'The next is b'")
        assert page.evaluate("Array.from(state.raw)") == [0, 0, 2, 1]
        assert page.locator(".codes span").all_text_contents() == ["⏎", "⏎", "b", "a"]
        text.fill("bax")
        assert page.get_by_role("alert").text_content() == "“x” is not in the alphabet."
        assert page.evaluate("Array.from(state.raw)") == [0, 0, 2, 1]
        text.fill("\na")
        page.get_by_role("button", name="Write").click()
        until(page, "input.text.value.length > 9")
        page.get_by_role("button", name="Stop").click()
        until(page, "!input.isWriting")
        written = text.input_value()
        assert written == ("\nab" * len(written))[: len(written)]
        page.get_by_role("button", name="Clear").click()
        assert text.input_value() == ""


def test_characters_are_drawn_at_a_temperature(chromium, tmp_path):
    model = follower()
    model[3].weight.data[...] = np.log([[1], [2], [5]])  # for every character
    nn.to_html(model, tmp_path / "text.html", input_shape=4, alphabet="\nab", dtype="float32")
    with opened(chromium, tmp_path / "text.html") as page:
        until(page, "state.values !== null")
        for temperature, powers in ((1, [1, 2, 5]), (0.5, [1, 4, 25]), (0.01, [0, 0, 1])):
            drawn = page.evaluate(f"Array.from({{ length: 9000 }}, () => next({temperature}))")
            frequencies = np.bincount(drawn, minlength=3) / 9000
            np.testing.assert_allclose(frequencies, np.array(powers) / sum(powers), atol=0.03)


def test_a_text_that_is_classified(chromium, tmp_path):
    model = nn.Sequential(nn.Embedding(3, 2), nn.Sum(1))
    model[0].weight.data[...] = [[0, 0], [1, 0], [0, 1]]
    nn.to_html(model, tmp_path / "text.html", input_shape=5, alphabet="_ab",
               labels=["more a", "more b"],
               examples=[[1, 1, 2, 0, 1], [2, 2, 2, 2, 1]])  # fmt: skip
    with opened(chromium, tmp_path / "text.html") as page:
        until(page, "byId('answer').textContent === 'It looks like more a'")
        page.get_by_role("button", name="2").click()
        until(page, "byId('answer').textContent === 'It looks like more b'")
        assert page.get_by_label("Text", exact=True).input_value() == "bbbba"
        assert page.get_by_role("button", name="Write").count() == 0


@pytest.mark.parametrize("window", WINDOWS)
def test_a_plane_shows_the_decision_at_the_point(chromium, tmp_path, window):
    model = nn.Sequential(nn.Linear(2, 2, bias=False))
    model[0].weight.data[...] = [[5, 0], [-5, 0]]  # the sign of x0 decides
    points, labels = np.array([[1.0, 1], [-1, -1], [2, -2]]), [0, 1, 0]
    nn.to_html(model, tmp_path / "plane.html", examples=points, targets=labels,
               labels=["right", "left"])  # fmt: skip
    with opened(chromium, tmp_path / "plane.html", window) as page:
        box = page.locator("#plane").bounding_box()
        for at, answer in ((0.9, "right"), (0.1, "left")):
            page.mouse.click(box["x"] + at * box["width"], box["y"] + 0.5 * box["height"])
            until(page, f"byId('answer').textContent.endsWith('{answer}')")
        outputs = np.array(page.evaluate("plane.outputs.map((p) => p[0])")).reshape(72, 72)
        low = page.evaluate("input.range[0]")
        page.get_by_role("button", name="Zoom out").click()
        until(page, f"input.range[0][0] < {low[0]}")
    places = low[0] + (np.arange(72) + 0.5) / 72 * (low[1] - low[0])
    np.testing.assert_allclose(outputs, np.tile(1 / (1 + np.exp(-10 * places)), (72, 1)), atol=1e-3)


def png(colour, side):
    """Return a file with a square of one colour."""

    def chunk(kind, data):
        crc = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc)

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    lines = (b"\0" + bytes(colour) * side) * side
    signature = b"\x89PNG\r\n\x1a\n"
    parts = (b"IHDR", header), (b"IDAT", zlib.compress(lines)), (b"IEND", b"")
    return signature + b"".join(chunk(*part) for part in parts)


def test_an_image_file_is_read(chromium, tmp_path):
    model = nn.Sequential(nn.GlobalAvgPool2d())
    nn.to_html(model, tmp_path / "image.html", input_shape=(3, 4, 4), activation="none")
    with opened(chromium, tmp_path / "image.html") as page:
        page.set_input_files(
            "input[type=file]",
            files=[
                {"name": "orange.png", "mimeType": "image/png", "buffer": png((255, 128, 0), 8)}
            ],
        )
        until(page, "state.raw[0] === 1")
        shown = page.locator(".output .value").all_text_contents()
        page.set_input_files(
            "input[type=file]",
            files=[{"name": "note.txt", "mimeType": "text/plain", "buffer": b"no image"}],
        )
        until(page, "document.querySelector('[role=alert]').textContent !== ''")
        assert page.get_by_role("alert").text_content() == "note.txt cannot be read as an image."
    np.testing.assert_allclose([float(text) for text in shown], [1, 128 / 255, 0], atol=1e-3)


# ---- nothing becomes code ----


@pytest.mark.parametrize("size", [2, 3])
def test_names_never_become_code(chromium, tmp_path, size):
    evil = "</script><script>alert(1)</script><img src=x onerror=alert(2)>{{script}}<!--"
    model = nn.Sequential(nn.Linear(size, 2))
    nn.to_html(model, tmp_path / "evil.html", title=evil, labels=[evil, "b"],
               features=[evil] * size)  # fmt: skip
    with opened(chromium, tmp_path / "evil.html") as page:  # which fails if a dialog opens
        until(page, "byId('answer').textContent !== ''")
        assert page.locator("#title").text_content() == evil
        assert page.title() == evil
        assert page.locator(".output .name").first.text_content() == evil
        assert page.locator("img").count() == 0
        assert page.locator("script").count() == 2


def test_page_asks_nothing_of_the_network(chromium, tmp_path):
    nn.to_html(nn.Sequential(nn.Linear(3, 2)), tmp_path / "page.html")
    assert not re.search(r"(https?:)?//[a-z]", (tmp_path / "page.html").read_text())
    with opened(chromium, tmp_path / "page.html") as page:
        asked = []
        page.on("request", lambda request: asked.append(request.url))
        page.reload()
        until(page, "byId('answer').textContent !== ''")
    assert asked == [(tmp_path / "page.html").as_uri()]


# ---- errors ----


class Double(nn.Layer):
    def forward(self, x):
        return 2 * x


class Unlike(nn.ReLU):
    pass


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nn.Sequential(nn.Lambda(abs, np.sign)), r"no form for 0 \(Lambda"),
        (lambda: nn.Sequential(nn.Linear(2, 2), Double()), r"no form for 1 \(Double"),
        (lambda: nn.Sequential(nn.Linear(2, 2), Unlike()), r"no form for 1 \(Unlike"),
        (lambda: nn.Sequential(nn.BatchNorm1d(28, track_running_stats=False), nn.Flatten()),
         r"0 \(BatchNorm1d.*\) cannot be shown: it has no running statistics"),
        (lambda: nn.Sequential(nn.Softmax(0), nn.Flatten()), "works along the batch"),
        (lambda: nn.Sequential(nn.Permute(1, 0, 2), nn.Flatten()), r"0 \(Permute.*along the batch"),
        (lambda: nn.Sequential(nn.Flatten(0, 1)), "works along the batch"),
        (lambda: nn.Sequential(nn.Sum()), "works along the batch"),
        (lambda: nn.Sequential(nn.Flatten(), nn.Embedding(3, 2)), "not the input of the model"),
        (lambda: nn.Sequential(nn.MaxPool1d(2, return_indices=True)), "the page has no indices"),
        (lambda: nn.Graph({"y": (nn.Add(), "x", "z")}, ("x", "z")), "has 2 inputs, .* gives it 1"),
        (lambda: nn.Graph({"y": (nn.Split(14), "x")}), r"got the shape \(14, 28\) and \(14, 28\)"),
        (lambda: nn.Graph({"y": (nn.LSTM(28, 3), "x", {"mask": "x"})}), "the page has no mask"),
        (lambda: nn.Graph({"h": nn.Weight(np.ones((1, 1, 3))), "y": (nn.RNN(28, 3), "x", "h")}),
         "begins with a state of zeros"),
        (lambda: nn.Graph({"y": (nn.MultiheadAttention(28, 2), "x", "x", "x", "x")}), "no masks"),
        (lambda: nn.Graph({"y": (nn.TransformerEncoderLayer(28, 2, 3), "x", "x")}), "no masks"),
        (lambda: nn.Sequential(nn.ReLU()), r"vector for each sample, got the shape \(28, 28\)"),
        (lambda: nn.Sequential(), "no layers"),
    ],
)  # fmt: skip
def test_models_without_a_page(tmp_path, make, message):
    path = tmp_path / "page.html"
    with pytest.raises(ValueError, match=message):
        nn.to_html(make(), path, input_shape=(28, 28) if "Linear(2" not in repr(make()) else (2,))
    assert not path.exists()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"labels": ["a"]}, ValueError, "expected 2 labels, one for each of the outputs"),
        ({"labels": "ab"}, ValueError, "expected 2 labels"),
        ({"features": ["a"]}, ValueError, "expected 3 features"),
        ({"std": 0}, ValueError, "std must be above 0, got 0"),
        ({"mean": [1, 2]}, ValueError, r"mean must be a number, or an array that fits .*\(3,\)"),
        ({"mean": np.nan}, ValueError, "mean must be finite"),
        ({"examples": np.ones((4, 2))}, ValueError, r"examples must be .*\('N', 3\)"),
        ({"targets": [1]}, ValueError, "targets must be 0 finite numbers"),
        ({"activation": "relu"}, ValueError, "activation must be one of"),
        ({"dtype": "float64"}, ValueError, "dtype must be one of"),
        ({"input_shape": (0,)}, ValueError, "input_shape must be the shape"),
        ({"input_shape": (4,)}, ValueError, r"Linear\(3, 2\): expected input of shape"),
    ],
)
def test_options_that_do_not_fit(tmp_path, options, error, message):
    path = tmp_path / "page.html"
    with pytest.raises(error, match=message):
        nn.to_html(nn.Sequential(nn.Linear(3, 2)), path, **options)
    assert not path.exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alphabet": "aab"}, "single characters, each of them once"),
        ({"alphabet": ["ab", "c"]}, "single characters"),
        ({"alphabet": "abcdef"}, "at most 5 characters, .* got 6"),
        ({"alphabet": ""}, "at most 5 characters, .* got 0"),
        ({"mean": 1.0}, "indices, which mean and std do not fit"),
        ({"examples": [[0, 5, 1]]}, r"examples must be of indices in \[0, 5\)"),
        ({"examples": [[0, 0.5, 1]]}, "examples must be of indices"),
        ({"input_shape": (2, 3), "alphabet": "ab"}, r"Embedding of sequences \(N, L\)"),
    ],
)
def test_options_that_do_not_fit_indices(options, message):
    model = nn.Sequential(nn.Embedding(5, 2), nn.Flatten())
    with pytest.raises(ValueError, match=message):
        nn.to_html(model, **{"input_shape": 3, **options})


def test_an_alphabet_needs_an_embedding():
    with pytest.raises(ValueError, match="first layer is an Embedding"):
        nn.to_html(nn.Sequential(nn.Linear(3, 2)), alphabet="abc")


def test_weights_that_cannot_be_written():
    model = nn.Sequential(nn.Linear(3, 2))
    model[0].weight.data[0, 0] = 1e6
    with pytest.raises(ValueError, match=r"0 \(Linear\(3, 2\)\).*1e\+06 does not fit into float16"):
        nn.to_html(model)
    nn.to_html(model, dtype="float32")
    model[0].weight.data[0, 0] = np.nan
    with pytest.raises(ValueError, match="a weight that is NaN or infinite"):
        nn.to_html(model, dtype="float32")


def test_a_file_that_cannot_be_written(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        nn.to_html(nn.Sequential(nn.Linear(3, 2)), tmp_path / "nowhere" / "page.html")
    with pytest.raises(TypeError, match="expected a model, got int"):
        nn.to_html(3, tmp_path / "page.html")
    assert list(tmp_path.iterdir()) == []


def test_the_model_stays_as_it_is():
    model = nn.Sequential(nn.LSTM(3, 2, outputs="last"), nn.Dropout(0.5))
    before = model.state_dict()
    nn.to_html(model, input_shape=(4, 3))
    assert model.training
    assert model[0].last_state is None
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(value, before[name])
