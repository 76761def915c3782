"""Files of whole models: exact round trips, and no other objects are created."""

from __future__ import annotations

import json
import resource
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import nnlite as nn
from nnlite.files import npz

from ..registry import LAYERS, LOSSES, LayerCase

SAVED = [case for case in LAYERS if not case.name.startswith("Lambda")]


@pytest.mark.parametrize("case", SAVED, ids=lambda case: case.name)
def test_every_layer_comes_back(case: LayerCase, tmp_path: Path) -> None:
    layer = case.make().astype(np.float64)
    if "Dropout(" in repr(layer):
        layer.eval()
    nn.save_model(layer, tmp_path / "a.npz")
    again = nn.load_model(tmp_path / "a.npz")
    assert type(again) is type(layer)
    assert repr(again) == repr(layer)
    assert again.training == layer.training
    inputs = case.inputs(np.random.default_rng(0), 3)
    assert_array_equal(again(*inputs), layer(*inputs))
    assert list(nn.load_state(tmp_path / "a.npz")) == list(layer.state_dict())


@pytest.mark.parametrize("case", LOSSES, ids=lambda case: case.name)
def test_every_loss_comes_back(case: Any, tmp_path: Path) -> None:
    nn.save_model(case.make(), tmp_path / "a.npz")
    assert repr(nn.load_model(tmp_path / "a.npz")) == repr(case.make())


def test_tied_frozen_and_evaluating_layers_come_back_so(tmp_path: Path) -> None:
    step, norm = nn.Linear(3, 3), nn.BatchNorm1d(3)
    model = nn.Sequential(step, nn.Tanh(), step.tied(), norm, norm.tied(), nn.Linear(3, 2).eval())
    model[5].weight.requires_grad = False  # type: ignore[attr-defined]
    nn.save_model(model, tmp_path / "a.npz")
    again: Any = nn.load_model(tmp_path / "a.npz")
    assert again[0].weight is again[2].weight
    assert again[3].running_mean is again[4].running_mean
    assert [p.requires_grad for p in again.parameters()] == [
        p.requires_grad for p in model.parameters()
    ]
    assert [layer.training for layer in again] == [True] * 5 + [False]


def test_names_of_children_and_what_is_frozen_come_back(tmp_path: Path) -> None:
    model = nn.Sequential(
        {"body": nn.Sequential(nn.Linear(2, 3), nn.ReLU()), "head": nn.Linear(3, 2)}
    )
    model.append(nn.Tanh())
    model.body.requires_grad_(False)
    nn.save_model(model, tmp_path / "a.npz")
    again: Any = nn.load_model(tmp_path / "a.npz")
    assert repr(again) == repr(model)
    assert list(again.state_dict()) == list(model.state_dict())
    assert not again.body.trainable()
    assert again.head.trainable()


class Block(nn.Layer):
    """A layer with a sub-layer and options among its arguments."""

    def __init__(self, body: nn.Layer, sizes: tuple[int, ...], *, scale: float = 1.0) -> None:
        self.body = body
        self.sizes = sizes
        self.scale = scale
        self.weight = nn.Parameter(np.ones(sizes))

    def forward(self, x: Any) -> Any:
        return self.scale * self.body(x)


class Hidden(nn.Layer):
    def __init__(self, width: int) -> None:
        self._width = width


def test_layers_of_ones_own_are_made_if_they_are_named(tmp_path: Path) -> None:
    model = nn.Sequential(Block(nn.Linear(2, 2), (2, 3), scale=0.5))
    nn.save_model(model, tmp_path / "a.npz")
    with pytest.raises(ValueError, match=r"a.npz: the file has a layer Block, which is not nnlite"):
        nn.load_model(tmp_path / "a.npz")
    again: Any = nn.load_model(tmp_path / "a.npz", classes=[Block])
    assert (again[0].sizes, again[0].scale) == ((2, 3), 0.5)
    x = np.ones((1, 2), np.float32)
    assert_array_equal(again(x), model(x))
    with pytest.raises(TypeError, match="takes 'width', but the layer has no attribute"):
        nn.save_model(Hidden(3), tmp_path / "b.npz")
    with pytest.raises(TypeError, match=r"Lambda\(sin, cos\) has an argument"):
        nn.save_model(nn.Lambda(np.sin, np.cos), tmp_path / "b.npz")


def test_loading_leaves_the_packages_generator_alone(tmp_path: Path) -> None:
    nn.save_model(nn.Linear(3, 4), tmp_path / "a.npz")
    nn.seed(0)
    expected = nn.Linear(2, 2).weight.data
    nn.seed(0)
    nn.load_model(tmp_path / "a.npz")
    assert_array_equal(nn.Linear(2, 2).weight.data, expected)


# ---- hostile files ----


def forged(path: Path, layers: Any, **arrays: Any) -> Path:
    """Write a file with a description of layers, and these arrays as its state."""
    parts = {"layers": layers, "shared": [], "frozen": [], "evaluating": []}
    parts["model"] = {name: {"$array": f"model/{name}"} for name in arrays}
    text = f'{{"format": "nnlite model", "version": 1, "parts": {json.dumps(parts)}}}'
    with path.open("wb") as file:
        npz.write(
            file, {f"model/{k}": np.asarray(v) for k, v in arrays.items()}, {"model.json": text}
        )
    return path


def described(name: str, *positional: Any, **named: Any) -> dict[str, Any]:
    return {"class": name, "positional": list(positional), "named": named}


@pytest.mark.parametrize(
    "layers",
    [
        described("Linear", 10**9, 10**9),
        described("Linear", 40_000, 40_000),
        described("LSTM", 3, 4, 10**7),
        described("BatchNorm1d", 10**9),
        described("LayerNorm", [10**5, 10**5]),
        described("Embedding", 10**6, 10**5),
        described("Conv2d", 1000, 1000, 1000),
    ],
    ids=lambda layers: layers["class"],
)
def test_sizes_are_verified_before_memory_is_taken(tmp_path: Path, layers: Any) -> None:
    path = forged(tmp_path / "a.npz", layers, weight=np.ones((2, 2), np.float32))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match="a.npz: "):
        nn.load_model(path)
    # Memory may be reserved for what is claimed, as long as it is not filled.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1 << 15


@pytest.mark.parametrize(
    "layers",
    [described("Linear", 4000, 4000), described("LSTM", 1, 4000), described("Conv2d", 99, 99, 99)],
    ids=lambda layers: layers["class"],
)
def test_sizes_that_are_large_together_are_refused_too(tmp_path: Path, layers: Any) -> None:
    path = forged(tmp_path / "a.npz", layers, weight=np.ones((2, 2), np.float32))
    with pytest.raises(ValueError, match="more parameters than there are numbers for them"):
        nn.load_model(path)


@pytest.mark.parametrize(
    "layers",
    [
        described("Layer.__subclasses__"),
        described("os.system", "true"),
        described("datasets"),
        described("fit"),
        described("Parameter", [1.0]),
        described("Checkpoint"),
        {"class": ["Linear"]},
        {"class": "Linear"},
        [],
        None,
        described("Linear", 1, 1, forward=3),
        described("Sequential", {"layer": None}),
        described("Sequential", *[1] * 3),
    ],
    ids=str,
)
def test_nothing_but_known_layers_is_made(tmp_path: Path, layers: Any) -> None:
    with pytest.raises(ValueError, match="a.npz: "):
        nn.load_model(forged(tmp_path / "a.npz", layers))


def test_deep_nesting_is_read_or_an_error(tmp_path: Path) -> None:
    layers = described("ReLU")
    for _ in range(50):
        layers = described("Sequential", {"layer": layers})
    path = forged(tmp_path / "a.npz", layers)
    assert repr(nn.load_model(path)).count("Sequential") == 50
    text = '{"format": "nnlite model", "version": 1, "parts": {"layers": ' + "[" * 100_000
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model.json", text)
    with pytest.raises(ValueError, match="a.npz: it is nested too deep"):
        nn.load_model(path)


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    nn.save(nn.Linear(2, 2), path)
    with pytest.raises(ValueError, match="has arrays, but no model; read it with load_state"):
        nn.load_model(path)
    nn.save_model(nn.Linear(2, 2), path)
    with pytest.raises(ValueError, match="a.npz: "):
        nn.load_checkpoint(path, model=nn.Linear(2, 2))
    content = path.read_bytes()
    path.write_bytes(content[:-5])
    with pytest.raises(ValueError, match="damaged or truncated"):
        nn.load_model(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model.json", '{"format": "nnlite model", "version": 2, "parts": {}}')
    with pytest.raises(ValueError, match="this is a model of version 2"):
        nn.load_model(path)
    with pytest.raises(ValueError, match="has to end in .npz"):
        nn.save_model(nn.ReLU(), tmp_path / "a.onnx")
