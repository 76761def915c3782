"""Conversion of models from PyTorch and to PyTorch."""

from __future__ import annotations

import re
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose

import nnlite as nn

from ..registry import LAYERS, LayerCase

torch = pytest.importorskip("torch")

CASES = [case for case in LAYERS if not case.name.startswith("Lambda")]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_outputs_gradients_and_state_dicts_agree_both_ways(case: LayerCase) -> None:
    layer = case.make().astype(np.float64)
    if "Dropout" in repr(layer):
        layer.eval()
    inputs = case.inputs(np.random.default_rng(0), 3)
    module = nn.to_torch(layer)
    again = nn.from_torch(module)
    assert repr(again) == repr(layer)
    assert module.training == again.training == layer.training
    assert list(module.state_dict()) == list(again.state_dict()) == list(layer.state_dict())

    y = layer(*inputs)
    tensors = [torch.tensor(x, requires_grad=x.dtype.kind == "f") for x in inputs]
    output = module(*tensors)
    assert_allclose(output.detach().numpy(), y, rtol=1e-7, atol=1e-7)
    assert_allclose(again(*inputs), y)

    grad = np.random.default_rng(1).normal(size=y.shape)
    output.backward(torch.tensor(grad))
    found = layer.backward(grad)
    found = found if isinstance(found, tuple) else (found,)
    again.backward(grad)
    for x_grad, tensor in zip(found, tensors, strict=True):
        if x_grad is not None:
            assert_allclose(x_grad, tensor.grad.numpy(), rtol=1e-7, atol=1e-7)
    for parameter, twin, theirs in zip(
        layer.parameters(), again.parameters(), module.parameters(), strict=True
    ):
        assert_allclose(parameter.grad, theirs.grad.numpy(), rtol=1e-7, atol=1e-7)
        assert_allclose(twin.grad, parameter.grad)


def test_modules_that_are_nested_shared_frozen_or_in_another_mode() -> None:
    t = torch.nn
    inner = t.Sequential(t.Linear(4, 4), t.BatchNorm1d(4)).eval()
    shared = t.Linear(4, 4)
    module = t.Sequential(t.Linear(3, 4), inner, shared, t.Tanh(), shared, t.Softmax(1))
    module[0].bias.requires_grad = False
    model = nn.from_torch(module)
    assert list(model.state_dict()) == list(module.state_dict())
    modes = {name: each.training for name, each in model.named_layers()}
    assert modes["0"]
    assert not modes["1.1"]
    assert [name for name, p in model.named_parameters() if not p.requires_grad] == ["0.bias"]
    assert len(list(model.parameters())) == len(list(module.parameters())) == 8
    x = torch.randn(5, 3)
    y = module(x)
    assert_allclose(model(x.numpy()), y.detach().numpy(), rtol=1e-5, atol=1e-6)
    grad = torch.randn_like(y)
    y.backward(grad)
    model.backward(grad.numpy())
    for parameter, theirs in zip(model.parameters(), module.parameters(), strict=True):
        if theirs.requires_grad:
            assert_allclose(parameter.grad, theirs.grad.numpy(), rtol=1e-4, atol=1e-6)


def test_names_of_children_are_the_same() -> None:
    t = torch.nn
    inner = t.Sequential(OrderedDict(hidden=t.Linear(3, 4), act=t.ReLU()))
    module = t.Sequential(OrderedDict(body=inner, head=t.Linear(4, 2)))
    for each in (module, t.Sequential(t.ReLU(), t.Tanh(), t.Linear(3, 2))[1:]):
        model = nn.from_torch(each)
        assert list(model.state_dict()) == list(each.state_dict())
        assert list(nn.to_torch(model).state_dict()) == list(each.state_dict())
        x = torch.randn(5, 3)
        expected = each(x).detach().numpy()
        assert_allclose(model(x.numpy()), expected, rtol=1e-5, atol=1e-6)
        assert_allclose(nn.to_torch(model)(x).detach().numpy(), expected, rtol=1e-5, atol=1e-6)
    assert repr(nn.from_torch(module)[0]).startswith("Sequential({\n    'hidden': Linear(3, 4)")  # type: ignore[index]


def test_global_pooling() -> None:
    t = torch.nn
    module = t.Sequential(t.AdaptiveAvgPool2d(1), t.Flatten(), t.Linear(2, 3))
    x = torch.randn(4, 2, 5, 5)
    expected = module(x).detach().numpy()
    assert_allclose(nn.from_torch(module)(x.numpy()), expected, rtol=1e-5, atol=1e-6)


def test_what_nnlite_has_not_is_named() -> None:
    t = torch.nn

    class Net(t.Module):
        pass

    for module, what in (
        (Net(), "module '1': nnlite has no layer for the module Net"),
        (t.LSTM(3, 4), "module '1': nnlite has no layer for LSTM with batch_first=False"),
        (t.Embedding(3, 4, max_norm=1.0), "Embedding with max_norm=1.0"),
    ):
        with pytest.raises(ValueError, match=what):
            nn.from_torch(t.Sequential(t.ReLU(), module))
    with pytest.raises(TypeError, match="expected a torch.nn.Module"):
        nn.from_torch(nn.ReLU())
    with pytest.raises(ValueError, match=r"layer '0': PyTorch has no module for Lambda"):
        nn.to_torch(nn.Sequential(nn.Lambda(np.sin, np.cos)))
    with pytest.raises(TypeError, match="expected a model"):
        nn.to_torch(t.ReLU())


def test_the_page_has_what_its_example_prints(capsys: pytest.CaptureFixture[str]) -> None:
    page = (Path(__file__).parents[2] / "docs/saving.md").read_text()
    _, _, section = page.partition("### Modules of PyTorch\n")
    code, output = (
        part.partition("```")[0] for part in re.split("```(?:python|text)\n", section)[1:3]
    )
    exec(code, {})
    assert capsys.readouterr().out == output
