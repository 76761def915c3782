"""nnlite compared with the installed PyTorch: random values and shapes, and a whole training."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

import nnlite as nn

from .case import (
    TOLERANCE,
    Case,
    OptimizerCase,
    assert_figures,
    nnlite_figures,
    nnlite_steps,
    torch_figures,
    torch_steps,
)
from .cases import DRAWN_LAYERS, DRAWN_OPTIMIZERS, LAYERS, OPTIMIZERS
from .record import read

torch = pytest.importorskip("torch")

# PyTorch takes a single class too; nnlite warns of it.
pytestmark = pytest.mark.filterwarnings("ignore:.* a single class")

every_layer = pytest.mark.parametrize(
    ("group", "case"), [(group, case) for group, cases in LAYERS.items() for case in cases], ids=str
)
every_optimizer = pytest.mark.parametrize(
    ("group", "case"),
    [(group, case) for group, cases in OPTIMIZERS.items() for case in cases],
    ids=str,
)


# ---- the record ----


@every_layer
def test_the_recorded_figures_are_what_pytorch_gives(group: str, case: Case) -> None:
    assert_figures(torch_figures(case, torch), read(group)[case.name], TOLERANCE[case.dtype])


@every_optimizer
def test_the_recorded_steps_are_what_pytorch_makes(group: str, case: OptimizerCase) -> None:
    assert_figures(torch_steps(case, torch), read(group)[case.name], TOLERANCE[case.dtype])


# ---- other values and shapes ----


@every_layer
def test_outputs_and_gradients_are_pytorchs_for_other_values(group: str, case: Case) -> None:
    for seed in range(1, 4):
        expected = torch_figures(case, torch, seed)
        assert_figures(nnlite_figures(case, expected), expected, TOLERANCE[case.dtype])


@pytest.mark.parametrize("group", DRAWN_LAYERS)
@given(data=st.data(), seed=st.integers(0, 2**16))
def test_outputs_and_gradients_are_pytorchs_for_all_shapes_and_options(
    group: str, data: st.DataObject, seed: int
) -> None:
    case = data.draw(DRAWN_LAYERS[group])
    expected = torch_figures(case, torch, seed)
    assert_figures(nnlite_figures(case, expected), expected, TOLERANCE[case.dtype])


@pytest.mark.parametrize("group", DRAWN_OPTIMIZERS)
@given(data=st.data(), seed=st.integers(0, 2**16))
def test_values_after_optimizer_steps_are_pytorchs_for_all_options(
    group: str, data: st.DataObject, seed: int
) -> None:
    case = data.draw(DRAWN_OPTIMIZERS[group])
    expected = torch_steps(case, torch, seed)
    assert_figures(nnlite_steps(case, expected), expected, TOLERANCE[case.dtype])


# ---- names, shapes and files ----


@every_layer
def test_the_state_dict_has_pytorchs_keys_shapes_and_order(group: str, case: Case) -> None:
    module = case.module(torch)
    expected = module.state_dict() if isinstance(module, torch.nn.Module) else {}
    state = case.layer().state_dict()
    assert [(name, value.shape) for name, value in state.items()] == [
        (name, tuple(value.shape)) for name, value in expected.items()
    ]


def test_weights_move_both_ways_without_renaming() -> None:
    layers = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2, bias=False))
    modules = torch.nn.Sequential(
        torch.nn.Linear(4, 3), torch.nn.ReLU(), torch.nn.Linear(3, 2, bias=False)
    )
    x = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    layers.load_state_dict(modules.state_dict())
    assert_allclose(layers(x), modules(torch.tensor(x)).detach().numpy(), rtol=1e-5, atol=1e-6)
    for parameter in layers.parameters():
        parameter.data *= 2
    modules.load_state_dict({k: torch.tensor(v) for k, v in layers.state_dict().items()})
    assert_allclose(layers(x), modules(torch.tensor(x)).detach().numpy(), rtol=1e-5, atol=1e-6)


# ---- initialisation ----


@pytest.mark.parametrize("name", ["linear", "sigmoid", "tanh", "relu", "leaky_relu", "selu"])
def test_gains_are_pytorchs(name: str) -> None:
    assert nn.init.calculate_gain(name) == pytest.approx(torch.nn.init.calculate_gain(name))


@pytest.mark.parametrize("shape", [(30, 50), (20, 10, 3, 3), (16, 8, 5)])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("xavier_uniform_", {}),
        ("xavier_uniform_", {"gain": 1.5}),
        ("xavier_normal_", {}),
        ("kaiming_uniform_", {}),
        ("kaiming_uniform_", {"a": 0.3, "mode": "fan_out"}),
        ("kaiming_uniform_", {"nonlinearity": "relu"}),
        ("kaiming_normal_", {"nonlinearity": "tanh"}),
        ("kaiming_normal_", {"mode": "fan_out", "nonlinearity": "relu"}),
    ],
    ids=str,
)
def test_initial_values_have_pytorchs_deviation(
    shape: tuple[int, ...], name: str, options: dict[str, Any]
) -> None:
    # 40 draws of 640 elements or more: both deviations are known to √(1/2/25,600) = 0.4 %.
    mine, theirs = [], []
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for seed in range(40):
            parameter = nn.Parameter(np.zeros(shape, np.float32))
            mine.append(getattr(nn.init, name)(parameter, **options, rng=seed).data)
            theirs.append(getattr(torch.nn.init, name)(torch.empty(shape), **options).numpy())
    assert np.std(mine) == pytest.approx(np.std(theirs), rel=0.03)
    if "uniform" in name:
        assert np.abs(mine).max() == pytest.approx(np.abs(theirs).max(), rel=0.01)


def test_a_new_linear_is_distributed_like_pytorchs() -> None:
    layer, module = nn.Linear(100, 400, rng=0), torch.nn.Linear(100, 400)
    for name, value in layer.state_dict().items():
        theirs = getattr(module, name).detach().numpy()
        assert np.abs(value).max() == pytest.approx(np.abs(theirs).max(), rel=0.03)
        assert value.std() == pytest.approx(theirs.std(), rel=0.1)


# ---- all together ----


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_training_takes_pytorchs_course(dtype: str) -> None:
    rng = np.random.default_rng(0)
    images = rng.normal(size=(256, 1, 6, 6)).astype(dtype)
    labels = rng.integers(4, size=256)
    options = {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 1e-3}

    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 20), nn.Tanh(), nn.Linear(20, 4))
    model.astype(dtype)
    t = torch.nn
    theirs = t.Sequential(t.Flatten(), t.Linear(36, 20), t.Tanh(), t.Linear(20, 4))
    theirs.to(getattr(torch, dtype))
    theirs.load_state_dict({k: torch.tensor(v) for k, v in model.state_dict().items()})

    loss, their_loss = nn.CrossEntropy(), t.CrossEntropyLoss()
    optimizer = nn.SGD(model.parameters(), **options)
    their_optimizer = torch.optim.SGD(theirs.parameters(), **options)
    values, their_values = [], []
    for _ in range(3):
        for x, y in nn.DataLoader(images, labels, batch_size=32, shuffle=True):
            values.append(loss(model(x), y))
            optimizer.zero_grad()
            model.backward(loss.backward(), input_grad=False)
            optimizer.step()

            their_value = their_loss(theirs(torch.tensor(x)), torch.tensor(y))
            their_values.append(their_value.item())
            their_optimizer.zero_grad()
            their_value.backward()
            their_optimizer.step()
    tolerance = {"float64": 1e-10, "float32": 1e-3}[dtype]
    assert_allclose(values, their_values, rtol=tolerance)
    for name, value in model.state_dict().items():
        expected = theirs.state_dict()[name].numpy()
        assert_allclose(value, expected, rtol=tolerance, atol=tolerance, err_msg=name)
    # It did learn: 24 steps from log 4 downwards.
    assert values[-1] < values[0]
