"""Names and packages: what nnlite says to somebody who asks for one that is not there."""

from __future__ import annotations

import functools
import importlib
import math
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import nnlite as nn
from nnlite.hints import EXPLAINED, RENAMED

ROOT = Path(nn.__file__).parents[1]
THIS = Path(__file__)


def test_no_text_tells_to_install_the_other_distribution_of_this_name() -> None:
    texts = [path for end in ("py", "md") for path in ROOT.rglob(f"*.{end}") if path != THIS]
    wrong = [
        path.relative_to(ROOT).as_posix()
        for path in texts
        if any(f"pip install {quote}nnlite" in path.read_text("utf-8") for quote in ("", "'", '"'))
    ]
    assert wrong == []


@pytest.mark.parametrize("name", ["to_onnx", "from_onnx", "to_torch", "from_torch"])
def test_a_function_whose_package_is_missing_says_what_to_install(name: str) -> None:
    package = name.rpartition("_")[2]
    script = f"import sys; sys.modules[{package!r}] = None; import nnlite; nnlite.{name}"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=False
    )
    message = f"nnlite.{name} needs {package}; install it with: pip install {package}"
    assert done.stderr.endswith(f"ImportError: {message}\n")


@pytest.mark.parametrize(
    "name",
    [
        *RENAMED,
        *EXPLAINED,
        "relu",
        "Conv2D",
        "LazyLinear",
        "Conv3d",
        "huber_loss",
        "GlorotUniform",
        "MNIST",
        "zeros",
    ],
)
def test_a_name_of_pytorch_or_keras_is_answered_with_the_name_here(name: str) -> None:
    with pytest.raises(AttributeError, match=f"nnlite has no '{name}'; "):
        getattr(nn, name)


@pytest.mark.parametrize("cure", RENAMED.values())
def test_the_answers_exist(cure: str) -> None:
    names = [cure.split("(")[0].split(" or ")[0].split(" and ")[0].split(":")[0].split(",")[0]]
    names += re.findall(r"nnlite\.([\w.]+)", cure)
    for name in names:
        if name not in nn._ON_FIRST_USE:  # which may need an extra
            functools.reduce(getattr, name.split("."), nn)


def test_names_of_the_folders_are_those_of_the_package() -> None:
    assert nn.optim.SGD is nn.SGD
    assert nn.layers.Linear is nn.Linear
    with pytest.raises(AttributeError, match=r"'Dense'; use nnlite.Linear"):
        nn.layers.Dense  # noqa: B018
    with pytest.raises(AttributeError, match=r"'he_normal'; use nnlite.init.kaiming_normal_"):
        nn.init.he_normal  # noqa: B018
    with pytest.raises(AttributeError, match=r"'xavier_uniform'; use nnlite.init.xavier_uniform_"):
        nn.init.xavier_uniform  # noqa: B018
    with pytest.raises(ImportError, match=r"use nnlite.CrossEntropy"):
        from nnlite import CrossEntropyLoss  # noqa: F401
    with pytest.raises(ImportError, match=r"use nnlite.datasets.mnist"):
        from nnlite.datasets import MNIST  # noqa: F401


def test_an_unknown_name_at_the_top_level_of_a_script_is_answered() -> None:
    script = "import nnlite\nassert not hasattr(nnlite.losses, 'x')\nnnlite.losses.NLLLoss"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert "nnlite has no 'NLLLoss'; use nnlite.NegativeLogLikelihood" in done.stderr


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nnlite.nn", "nnlite has no module 'nn'; its names are in nnlite itself"),
        ("nnlite.utils.data", "nnlite has no module 'utils'; its names are in nnlite itself"),
        ("nnlite.functional", "nnlite has no module 'functional'; functions are layers"),
        ("nnlite.optim.lr_scheduler", "nnlite.optim has no module 'lr_scheduler'; use nnlite.Step"),
        ("nnlite.nonsense", "No module named 'nnlite.nonsense'"),
    ],
)
def test_a_module_of_pytorch_or_keras_is_answered(name: str, message: str) -> None:
    with pytest.raises(ModuleNotFoundError, match=re.escape(message)):
        importlib.import_module(name)


def test_an_unknown_name_is_no_more_than_unknown() -> None:
    assert not hasattr(nn, "nonsense")
    with pytest.raises(AttributeError, match=r"^nnlite has no 'nonsense'$"):
        nn.nonsense  # noqa: B018


def test_dir_has_the_public_names_and_no_others() -> None:
    assert set(nn.__all__) < set(dir(nn))
    assert {"fit", "compile", "Linear"} <= set(dir(nn))
    assert not {"layer", "hints", "engine", "annotations"} & set(dir(nn))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: nn.Linear(1, 2, inplace=True), "Linear: there is no option 'inplace'; layers do"),
        (lambda: nn.Conv2d(1, filters=2), "Conv2d: there is no option 'filters'; it is called"),
        (lambda: nn.Conv2d(1), "Conv2d: missing a required argument: 'out_channels'; it is Conv2d"),
        (lambda: nn.LSTM(1, 2, batch_first=False), "LSTM: there is no option 'batch_first'; seq"),
        (
            lambda: nn.LSTM(1, units=2),
            "LSTM: there is no option 'units'; it is called 'hidden_size",
        ),
        (lambda: nn.Linear(1, units=2), "Linear: there is no option 'units'; it is called 'out_f"),
        (lambda: nn.Linear(1, 2, out_feature=2), "'out_feature'; it is called 'out_features'"),
        (lambda: nn.Softmax(axis=1), "Softmax: there is no option 'axis'; it is called 'dim'"),
        (lambda: nn.Adam([], learning_rate=1), "Adam: there is no option 'learning_rate'; .* 'lr'"),
        (
            lambda: nn.Sequential(nonsense=1),
            "Sequential: there is no option 'nonsense'; it takes none",
        ),
        (lambda: nn.fit(verbose=0), "fit: there is no option 'verbose'; it is called 'progress'"),
        (lambda: nn.DataLoader([1], num_workers=2), "DataLoader: there is no option 'num_workers'"),
        (lambda: nn.fit(validation_split=0.1), "no option 'validation_split'; slice the arrays"),
        (lambda: nn.datasets.mnist(train=True), "mnist: there is no option 'train'; train, test ="),
        (lambda: nn.gradcheck(None, loss=None), "gradcheck: there is no option 'loss'; a loss is"),
        (lambda: nn.GRU(1, 1)(1, h0=1), "GRU.forward: there is no option 'h0'; the state is the s"),
        (lambda: nn.ReLU()(1, training=True), "ReLU.forward: .* 'training'; model.train"),
        (lambda: nn.ReLU()(1, 2), "ReLU.forward: too many positional arguments; it is ReLU.forw"),
    ],
)
def test_wrong_options_are_answered_with_the_right_ones(
    call: Callable[[], object], message: str
) -> None:
    with pytest.raises(TypeError, match=message):
        call()


def test_options_that_change_nothing_are_accepted() -> None:
    for layer in nn.ReLU(inplace=True), nn.Dropout(0.5, inplace=False):  # type: ignore[call-arg]
        assert "inplace" not in repr(layer)
    for kind in nn.RNN, nn.LSTM, nn.GRU, nn.MultiheadAttention:
        assert repr(kind(4, 2, batch_first=True)) == repr(kind(4, 2))  # type: ignore[operator]
    for kind in nn.TransformerEncoderLayer, nn.TransformerDecoderLayer:
        assert repr(kind(4, 2, 8, batch_first=True)) == repr(kind(4, 2, 8))  # type: ignore[operator]


def test_a_loss_that_is_made_of_arrays_says_how_to_call_it() -> None:
    with pytest.raises(ValueError, match=r"call the loss: CrossEntropy\(\)\(prediction, target\)"):
        nn.CrossEntropy(np.ones((2, 3)), np.ones(2))  # type: ignore[arg-type,call-arg]


def test_a_type_error_within_a_constructor_is_left_alone() -> None:
    with pytest.raises(TypeError, match=r"^Linear: in_features must be an int, got 'x'$"):
        nn.Linear("x", 2)  # type: ignore[arg-type]


def test_attributes_of_pytorch_and_keras_are_answered() -> None:
    layer, weight = nn.Linear(1, 1), nn.Parameter([1.0])
    optimizer = nn.SGD([weight])
    for owner, name, cure in (
        (layer, "cuda", "everything runs on the CPU"),
        (nn.Sequential(layer), "fit", "use nnlite.fit"),
        (weight, "numpy", "use the array parameter.data"),
        (weight, "numel", "use parameter.size"),
        (optimizer, "learning_rate", "use lr"),
        (nn.History(), "history", "the History itself is a mapping"),
        (nn.StepLR(optimizer, 1), "get_lr", "use get_last_lr()"),
    ):
        with pytest.raises(AttributeError, match=re.escape(f"{name!r}; {cure}")):
            getattr(owner, name)
        with pytest.raises(AttributeError, match="nonsense'$"):
            owner.nonsense  # noqa: B018


def test_the_error_of_a_property_is_not_hidden() -> None:
    class Broken(nn.Layer):
        @property
        def size(self) -> int:
            return self.missing  # type: ignore[attr-defined,no-any-return]

    with pytest.raises(AttributeError, match="missing"):
        Broken().size  # noqa: B018


def test_the_number_of_a_loss_says_where_its_gradient_is() -> None:
    value = nn.MeanSquaredError()(np.ones(2, np.float32), np.zeros(2, np.float32))
    assert value.item() == value == 1.0
    assert type(value.item()) is float
    with pytest.raises(TypeError, match=r"model.backward\(loss.backward\(\)\)"):
        value.backward()


def test_what_pytorch_writes_with_parameters_works() -> None:
    p = nn.Parameter([1.0, 2.0])
    assert np.asarray(p) is p.data
    assert np.array(p, np.float64).dtype == np.float64
    assert p.requires_grad_(False) is p
    assert not p.requires_grad
    optimizer = nn.SGD([p.requires_grad_()], lr=0.5)
    p.accumulate([1.0, 1.0])
    optimizer.zero_grad(set_to_none=False)
    assert p.grad is not None
    assert p.grad.tolist() == [0, 0]
    optimizer.zero_grad(set_to_none=True)
    assert p.grad is None
    assert nn.StepLR(optimizer, 3).get_last_lr() == [0.5]
    assert nn.ReduceLROnPlateau(optimizer).get_last_lr() == [0.5]


def test_truncated_normal_values() -> None:
    p = nn.init.trunc_normal_(nn.Parameter(np.empty(20000, np.float32)), 1.0, 2.0, 0.0, 2.0, rng=0)
    assert p.data.min() >= 0
    assert p.data.max() <= 2
    # By symmetry around the mean, and Var = 4 (1 - 2 (1/2) phi(1/2) / (2 Phi(1/2) - 1)).
    phi, probability = math.exp(-1 / 8) / math.sqrt(2 * math.pi), math.erf(0.5 / math.sqrt(2))
    assert abs(p.data.mean() - 1) < 0.02
    assert abs(p.data.var() - 4 * (1 - phi / probability)) < 0.01
    with pytest.raises(ValueError, match="too few values"):
        nn.init.trunc_normal_(p, 0.0, 1.0, 6.0, 7.0)
