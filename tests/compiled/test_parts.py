"""Long sources, in which like layers are one function, train as the layers do."""

import copy
import re

import numpy as np
import pytest
from numpy.testing import assert_allclose

import nnlite as nn
from nnlite.compiled import parts
from nnlite.compiled.parts import in_parts


@pytest.fixture
def shortest(monkeypatch):
    """Every layer is a function of its own."""
    monkeypatch.setattr(parts, "_LONG", 1)
    monkeypatch.setattr(parts, "_LONG_LAYER", 0)


MODELS = {
    "perceptron": lambda: nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Tanh(),
                                        nn.Linear(5, 5), nn.BatchNorm1d(5), nn.Tanh(),
                                        nn.Linear(5, 4)),
    "convolution": lambda: nn.Sequential(nn.Reshape(1, 2, 3), nn.Conv2d(1, 3, 2, padding=1),
                                         nn.GroupNorm(3, 3), nn.MaxPool2d(2), nn.Flatten(),
                                         nn.Linear(6, 4)),
    "residual": lambda: nn.Sequential(nn.Residual(nn.Linear(6, 6), nn.ReLU()),
                                      nn.Residual(nn.Linear(6, 6), nn.ReLU()), nn.Linear(6, 4)),
    "recurrent": lambda: nn.Sequential(nn.Reshape(3, 2),
                                       nn.GRU(2, 3, num_layers=3, bidirectional=True,
                                              outputs="last"), nn.Linear(6, 4)),
    "transformer": lambda: nn.Sequential(nn.Reshape(3, 2),
                                         *(nn.TransformerEncoderLayer(2, 1, 4, dropout=0.0)
                                           for _ in range(2)), nn.Flatten(), nn.Linear(6, 4)),
}  # fmt: skip


def train(model, native):
    """Return the losses and parameters of an uncompiled and a compiled training."""
    twin = copy.deepcopy(model)
    loss = nn.CrossEntropy(label_smoothing=0.1)
    optimizer, other = nn.Adam(model.parameters()), nn.Adam(twin.parameters())
    step = nn.compile(twin, copy.deepcopy(loss), other, max_grad_norm=0.5, native=native)
    rng = np.random.default_rng(1)
    for n in (5, 5, 3, 8):
        x, labels = rng.normal(size=(n, 6)), rng.integers(0, 4, n)
        expected = loss(model(x), labels)
        optimizer.zero_grad()
        model.backward(loss.backward(), input_grad=False)
        nn.clip_grad_norm(model.parameters(), 0.5)
        optimizer.step()
        assert_allclose(step(x, labels), expected, rtol=1e-9)
    for name, value in model.state_dict().items():
        assert_allclose(twin.state_dict()[name], value, rtol=0, atol=1e-9)
    return step.source


@pytest.mark.usefixtures("shortest")
@pytest.mark.parametrize("name", MODELS)
def test_a_step_in_parts(name):
    nn.seed(0)
    source = train(MODELS[name]().astype(np.float64), native=False)
    assert source.count("def _step_") > 3


@pytest.mark.usefixtures("shortest")
def test_a_step_in_parts_as_machine_code():
    pytest.importorskip("numba")
    nn.seed(0)
    train(MODELS["residual"]().astype(np.float64), native=True)


@pytest.mark.usefixtures("shortest")
def test_an_epoch_in_parts():
    pytest.importorskip("numba")
    nn.seed(0)
    rng = np.random.default_rng(0)
    x, labels = rng.normal(size=(40, 6)).astype(np.float32), rng.integers(0, 4, 40)
    histories = []
    model = MODELS["perceptron"]()
    for compiled in (False, True):
        twin = copy.deepcopy(model)
        loader = nn.DataLoader(x, labels, batch_size=16)
        optimizer = nn.SGD(twin.parameters(), lr=0.1)
        history = nn.fit(twin, nn.CrossEntropy(), optimizer, loader, epochs=3, compile=compiled,
                         progress=False)  # fmt: skip
        histories.append(history["loss"])
    assert_allclose(histories[1], histories[0], rtol=1e-5)


def test_like_layers_are_one_function():
    layers = [layer for _ in range(12) for layer in (nn.Linear(4, 4), nn.Tanh())]
    model = nn.Sequential(*layers)
    step = nn.compile(model, nn.MeanSquaredError(), nn.SGD(model.parameters(), 0.1), native=False)
    step(np.zeros((2, 4), np.float32), np.zeros((2, 4), np.float32))
    functions = re.findall(r"def _step_([a-z]+)_\d+\(", step.source)
    # Forward and backward; the first Linear and the last Tanh are like no other layer.
    assert sorted(functions) == ["linear", "linear", "tanh", "tanh"]
    for i in range(24):
        assert f"# {i}: " in step.source


@pytest.mark.usefixtures("shortest")
def test_a_variable_that_may_be_assigned_keeps_its_value():
    text = "\n# a: A()\nvalue = 1\n\n# b: B()\nif flag:\n    value = 2\n\n# c: C()\nreturn value"
    functions, statements = in_parts("f", ["flag"], text)
    code = "\n\n".join(functions) + "\ndef f(flag):\n    " + statements.replace("\n", "\n    ")
    names = {}
    exec(code, names)
    assert [names["f"](False), names["f"](True)] == [1, 2]
