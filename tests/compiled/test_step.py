"""A compiled step gives the same results as the uncompiled step."""

import copy
import signal
import warnings

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import nnlite as nn
from nnlite.compiled import native
from nnlite.compiled.native import Plain
from nnlite.compiled.optimizers import CompiledUpdate

from .division import divide

OPTIMIZERS = {
    "SGD": lambda p: nn.SGD(p, lr=0.1),
    "SGD with momentum": lambda p: nn.SGD(p, lr=0.05, momentum=0.9, dampening=0.1),
    "SGD with everything": lambda p: nn.SGD(
        p, lr=0.05, momentum=0.9, nesterov=True, weight_decay=0.01
    ),
    "Adam": lambda p: nn.Adam(p, lr=0.01),
    "Adam with decay": lambda p: nn.Adam(p, lr=0.01, betas=(0.3, 0.9), weight_decay=0.1),
    "AdamW": lambda p: nn.AdamW(p, lr=0.01, weight_decay=0.1),
    "Adam with amsgrad": lambda p: nn.Adam(p, lr=0.01, betas=(0.5, 0.6), amsgrad=True),
    "AdamW upwards": lambda p: nn.AdamW(p, lr=0.001, maximize=True),
    "Adagrad": lambda p: nn.Adagrad(p, lr=0.05, lr_decay=0.1, initial_accumulator_value=0.1),
    "NAdam": lambda p: nn.NAdam(p, lr=0.01, weight_decay=0.1, decoupled_weight_decay=True),
    "RAdam": lambda p: nn.RAdam(p, lr=0.01, betas=(0.5, 0.9), weight_decay=0.1),
    "RMSprop": lambda p: nn.RMSprop(p, lr=0.01),
    "RMSprop with everything": lambda p: nn.RMSprop(
        p, lr=0.01, momentum=0.5, centered=True, weight_decay=0.01
    ),
}


def mlp(dtype=np.float64):
    nn.seed(0)
    layers = nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Dropout(0.2, rng=3), nn.Linear(5, 4)
    return nn.Sequential(nn.Flatten(), *layers).astype(dtype)


def batches(count, dtype=np.float64):
    rng = np.random.default_rng(1)
    for index in range(count):
        size = 4 + index % 3
        yield rng.normal(size=(size, 2, 3)).astype(dtype), rng.integers(4, size=size)


def uncompiled(model, loss, optimizer, max_grad_norm=None):
    def step(inputs, targets):
        value = loss(model(inputs), targets)
        optimizer.zero_grad()
        model.backward(loss.backward(), input_grad=False)
        if max_grad_norm is not None:
            nn.clip_grad_norm(model.parameters(), max_grad_norm)
        optimizer.step()
        return value

    return step


def both(make_optimizer, model=None, **options):
    """Return a model with its compiled step, and a copy with the step that is not compiled."""
    model = mlp() if model is None else model
    twin = copy.deepcopy(model)
    loss, optimizer = nn.CrossEntropy(), make_optimizer(model.parameters())
    options = {"native": False, **options}
    if options["native"]:
        pytest.importorskip("numba")
    compiled = nn.compile(model, loss, optimizer, **options)
    norm = options.get("max_grad_norm")
    plain = uncompiled(twin, nn.CrossEntropy(), make_optimizer(twin.parameters()), norm)
    return model, compiled, twin, plain


def assert_same_state(model, twin, rtol=1e-9):
    for one, other in zip(model.state_dict().values(), twin.state_dict().values(), strict=True):
        assert_allclose(one, other, rtol=rtol, atol=rtol)


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("max_grad_norm", [None, 0.1])
def test_it_trains_as_the_step_that_is_not_compiled(name, max_grad_norm):
    model, compiled, twin, plain = both(OPTIMIZERS[name], max_grad_norm=max_grad_norm)
    for inputs, targets in batches(12):
        assert compiled(inputs, targets) == pytest.approx(plain(inputs, targets))
    assert_same_state(model, twin)
    for one, other in zip(model.parameters(), twin.parameters(), strict=True):
        assert_allclose(one.grad, other.grad, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize(
    ("name", "dtype", "rtol"), [("Adam", np.float64, 1e-6), ("SGD", np.float32, 2e-3)]
)
def test_machine_code_trains_as_the_step_that_is_not_compiled(name, dtype, rtol):
    model, compiled, twin, plain = both(OPTIMIZERS[name], mlp(dtype), native=True)
    for inputs, targets in batches(200, dtype):
        assert compiled(inputs, targets) == pytest.approx(plain(inputs, targets), rel=rtol)
    assert_same_state(model, twin, rtol)


def test_compiled_and_other_steps_take_turns():
    model, compiled, twin, plain = both(OPTIMIZERS["SGD with everything"])
    turns = uncompiled(model, nn.CrossEntropy(), compiled.optimizer)
    for index, (inputs, targets) in enumerate(batches(9)):
        step = turns if index % 3 == 1 else compiled
        assert step(inputs, targets) == pytest.approx(plain(inputs, targets))
        if index == 4:
            state = compiled.optimizer.state_dict()
            compiled.optimizer.load_state_dict(state)
            model.load_state_dict(model.state_dict())
    assert_same_state(model, twin)


def test_options_of_the_optimizer_and_modes_hold_from_the_next_step_on():
    model, compiled, twin, _ = both(OPTIMIZERS["SGD"])
    optimizer = nn.SGD(twin.parameters(), lr=0.1)
    plain = uncompiled(twin, nn.CrossEntropy(), optimizer)
    for index, (inputs, targets) in enumerate(batches(8)):
        for one in (optimizer, compiled.optimizer):
            one.lr = 0.1 / (1 + index)
            one.param_groups[0]["momentum"] = 0.9 * (index > 2)
        for one in (model, twin):
            one[2].train(index != 4)
            one[4].train(index != 5)
            one[1].weight.requires_grad = index < 6
        assert compiled(inputs, targets) == pytest.approx(plain(inputs, targets))
    assert_same_state(model, twin)


def replaced_layer(model, loss):
    model[1] = nn.ReLU()


def appended_layer(model, loss):
    model.append(nn.Tanh())


def replaced_parameter(model, loss):
    model[2].weight = nn.Parameter(np.arange(12.0).reshape(3, 4) / 10)


def removed_parameter(model, loss):
    model[0].bias = None


def smoothing(model, loss):
    loss.label_smoothing = 0.3


def reduction(model, loss):
    loss.reduction = "sum"


def class_weights(model, loss):
    loss.weight = np.array([1.0, 2.0, 3.0])


@pytest.mark.parametrize(
    "change",
    [
        replaced_layer,
        appended_layer,
        replaced_parameter,
        removed_parameter,
        smoothing,
        reduction,
        class_weights,
    ],
    ids=lambda change: change.__name__,
)
def test_layers_and_options_of_the_loss_hold_from_the_next_call_on(change):
    nn.seed(0)
    model = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3)).astype(np.float64)
    loss, optimizer = nn.CrossEntropy(), nn.SGD(model.parameters(), lr=0.0)
    x, labels = np.random.default_rng(0).normal(size=(8, 5)), np.arange(8) % 3
    predict = nn.compile(model, native=False)
    others = [nn.compile(model, loss, *rest, native=False) for rest in ((), (optimizer,))]
    for _ in range(2):
        assert_allclose(predict(x), model(x), rtol=1e-12)
        for compiled in others:
            assert compiled(x, labels) == pytest.approx(loss(model(x), labels), rel=1e-12)
        change(model, loss)


def test_the_divisor_of_a_loss_is_no_variable_of_a_layer():
    """Layer norm has a variable `total` in its backward."""
    nn.seed(0)
    model = nn.Sequential(nn.LayerNorm(4), nn.Linear(4, 2)).astype(np.float64)
    loss = nn.MeanSquaredError()
    rng = np.random.default_rng(0)
    x, target, weights = rng.normal(size=(6, 4)), rng.normal(size=(6, 2)), rng.uniform(size=6)
    value = nn.compile(model, loss, native=False)(x, target, weights)
    assert value == pytest.approx(loss(model(x), target, weights), rel=1e-12)


def test_arrays_that_were_replaced_hold_from_the_next_step_on():
    model, compiled, twin, plain = both(OPTIMIZERS["SGD with momentum"])
    for index, (inputs, targets) in enumerate(batches(6)):
        for one in (model, twin):
            if index == 1:
                one[1].weight.data = one[1].weight.data / 2
            if index == 2:
                one[2].running_mean = one[2].running_mean + 1
            if index == 3:
                one[5].weight.zero_grad()
            if index == 4:
                one[2].eps = 0.1
        assert compiled(inputs, targets) == pytest.approx(plain(inputs, targets))
    assert_same_state(model, twin)


def test_an_update_is_of_the_dtype_of_the_parameters():
    layer = nn.Linear(3, 2, rng=0)
    update = CompiledUpdate(nn.SGD(layer.parameters(), lr=0.1), native=False)
    for dtype in (np.float32, np.float64):
        layer.astype(dtype)
        for parameter in layer.parameters():
            parameter.data[...] = 1 / 3
            parameter.accumulate(np.full(parameter.shape, 1 / 3, dtype))
        update()
        assert_allclose(layer.bias.data, 0.9 / 3, rtol=4 * np.finfo(dtype).eps)
        layer.zero_grad()


def test_an_option_of_the_optimizer_out_of_range_is_an_error():
    _, compiled, *_ = both(OPTIMIZERS["SGD"])
    batch = next(batches(1))
    compiled(*batch)
    compiled.optimizer.param_groups[0]["lr"] = -1.0
    with pytest.raises(ValueError, match="lr must be"):
        compiled(*batch)


def test_groups_tied_and_frozen_parameters():
    def make():
        nn.seed(0)
        square = nn.Linear(4, 4)
        frozen = nn.Linear(4, 4)
        frozen.weight.requires_grad = False
        model = nn.Sequential(
            nn.Linear(6, 4), nn.Residual(square, nn.Tanh(), square.tied()), frozen, nn.Linear(4, 3)
        )
        groups = [
            {"params": list(model[0].parameters()), "lr": 0.01},
            {"params": [*model[1].parameters(), *model[2].parameters()]},
            {"params": model[3].parameters(), "momentum": 0.5},
        ]
        return model.astype(np.float64), nn.SGD(groups, lr=0.1)

    (model, optimizer), (twin, other) = make(), make()
    compiled = nn.compile(model, nn.CrossEntropy(), optimizer, native=False)
    plain = uncompiled(twin, nn.CrossEntropy(), other)
    rng = np.random.default_rng(0)
    for size in (5, 5, 3):
        x, labels = rng.normal(size=(size, 6)), rng.integers(3, size=size)
        assert compiled(x, labels) == pytest.approx(plain(x, labels))
    assert_same_state(model, twin)


def test_a_step_clears_gradients_that_are_not_its_own():
    frozen, outside = nn.Linear(6, 4, rng=0), nn.Parameter([1.0])
    frozen.bias.requires_grad = False
    step = nn.compile(
        frozen, nn.CrossEntropy(), nn.SGD([*frozen.parameters(), outside], lr=0.1), native=False
    )
    x, labels = np.ones((4, 6), np.float32), np.array([0, 1, 2, 3])
    for _ in range(3):
        step(x, labels)
        assert frozen.bias.grad is None
        assert outside.grad is None
        assert outside.data == 1
        frozen.bias.grad = np.ones(4)
        outside.accumulate([1.0])


@pytest.mark.parametrize("kind", ["model", "gradients", "step"])
def test_parameters_that_no_gradient_reaches_stay_as_they_are(kind):
    heads = {"used": (nn.Linear(3, 2, rng=0), "x"), "unused": (nn.Linear(3, 2, rng=1), "x")}
    inner = nn.Graph(heads, outputs=("used", "unused"))
    model = nn.Graph({"heads": (inner, "x"), "y": (nn.Tanh(), "heads.used")})
    loss, optimizer = nn.MeanSquaredError(), nn.AdamW(model.parameters(), lr=0.1, weight_decay=0.1)
    parts = {"model": (), "gradients": (loss,), "step": (loss, optimizer)}[kind]
    compiled = nn.compile(model, *parts, native=False)
    before = copy.deepcopy(model.state_dict())
    x, targets = np.ones((4, 3), np.float32), np.zeros((4, 2), np.float32)
    if kind == "model":
        loss(compiled(x), targets)
        compiled.backward(loss.backward())
    else:
        compiled(x, targets)
    if kind != "step":
        optimizer.step()
    for name, parameter in model.named_parameters():
        is_used = "unused" not in name
        assert (parameter.grad is not None) == is_used
        assert (parameter.data != before[name]).all() == is_used
    assert [*optimizer.state_dict()["state"]] == [0, 1]


@pytest.mark.parametrize("max_grad_norm", [None, 0.5])
def test_a_step_of_a_frozen_model_returns_the_loss(max_grad_norm):
    model, compiled, twin, _ = both(OPTIMIZERS["Adam"], max_grad_norm=max_grad_norm)
    for parameter in model.parameters():
        parameter.requires_grad = False
    x, labels = next(batches(1))
    assert compiled(x, labels) == pytest.approx(nn.CrossEntropy()(twin(x), labels))
    for one, other in zip(model.parameters(), twin.parameters(), strict=True):
        assert_array_equal(one.data, other.data)


@pytest.mark.parametrize("native", [False, True])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, t: (x[:, :1], t), "expected input of shape"),
        (lambda x, t: (x, t + 4), "labels must be in"),
        (lambda x, t: (x, t[:-1]), "need labels of shape"),
        (lambda x, t: (x * np.inf, t), "the predictions contain"),
        (lambda x, t: (x[:1], t[:1]), "no variance to train with"),
    ],
)
def test_an_error_is_that_of_the_objects_and_changes_nothing(native, change, message):
    model, compiled, *_ = both(OPTIMIZERS["Adam"], native=native)
    (x, labels), *_ = batches(1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        compiled(x, labels)
        before = model.state_dict(), compiled.optimizer.state_dict()["state"]
        with np.errstate(all="ignore"), pytest.raises(ValueError, match=message):
            compiled(*change(x, labels))
    for one, other in zip(before[0].values(), model.state_dict().values(), strict=True):
        assert_array_equal(one, other)
    after = compiled.optimizer.state_dict()["state"]
    assert {k: v["step"] for k, v in before[1].items()} == {k: v["step"] for k, v in after.items()}


def test_a_layer_without_a_form_is_named():
    model = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.Lambda(np.sin, np.cos)))
    with pytest.raises(TypeError, match=r"Lambda\(sin, cos\) \('1\.0' in the model\) has no comp"):
        nn.compile(model)


def test_the_source_shows_the_layers_one_after_the_other():
    _, compiled, *_ = both(OPTIMIZERS["SGD"])
    compiled(*next(batches(1)))
    places = [compiled.source.index(f"# {i}: ") for i in range(6)]
    assert places == sorted(places)
    assert "# 1: Linear(6, 5), backward" in compiled.source


def test_a_step_is_given_the_flat_arrays_of_the_optimizer_and_other_parameters_one_by_one():
    nn.seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 5), nn.Linear(5, 2))
    model[0].weight.requires_grad = False
    step = nn.compile(model, nn.CrossEntropy(), nn.SGD(model.parameters(), 0.1), native=False)
    step(np.ones((1, 3), np.float32), np.zeros(1, int))
    arguments = "(n, x, target, group0_lr, weight_0, group0_value, group0_grad)"
    assert f"def step{arguments}" in step.source
    for layer, name in ((0, "bias"), (1, "weight"), (2, "bias")):
        assert f"    d_{name}_{layer} = part(group0_grad, " in step.source


@pytest.mark.parametrize("is_norm", [False, True])
def test_a_parameter_on_both_sides_of_sums_over_a_divided_batch(is_norm, monkeypatch):
    divide(monkeypatch, 2, in_samples=False)
    shared = nn.BatchNorm1d(4) if is_norm else nn.Linear(4, 4, rng=0)
    between = nn.Linear(4, 4, rng=1) if is_norm else nn.BatchNorm1d(4)
    layers = nn.Linear(3, 4, rng=2), shared, between, shared.tied(), nn.Linear(4, 2, rng=3)
    model, loss, rng = nn.Sequential(*layers).astype(np.float64), nn.CrossEntropy(), np.random
    x, labels = rng.default_rng(0).normal(size=(10, 3)), np.arange(10) % 2
    twin = copy.deepcopy(model)
    expected = loss(twin(x), labels)
    twin.backward(loss.backward(), input_grad=False)
    assert nn.compile(model, loss, native=False)(x, labels) == pytest.approx(expected)
    for one, other in zip(model.parameters(), twin.parameters(), strict=True):
        assert_allclose(one.grad, other.grad, rtol=1e-9, atol=1e-12)


class LateError(Exception):
    """What the handler of a signal raises, as `alarm` does."""


@pytest.mark.parametrize("error", [KeyboardInterrupt, LateError])
@pytest.mark.parametrize("kind", ["whole", "divided"])
def test_a_step_that_is_interrupted_behind_its_machine_code_counts(kind, error, monkeypatch):
    if kind == "divided":
        divide(monkeypatch, 2, in_samples=False)

    def alarm(*args):
        raise error

    before = signal.signal(signal.SIGTERM, alarm)
    model, loss = nn.Sequential(nn.Linear(3, 2, rng=0)), nn.CrossEntropy()
    optimizer = nn.Adam(model.parameters())
    rng = np.random.default_rng(0)
    batch = rng.normal(size=(8, 3)).astype(np.float32), np.arange(8) % 2
    step = nn.compile(model, loss, optimizer, native=False)
    step(*batch)
    last = {"whole": "step", "divided": "update"}[kind]
    get = Plain.__getitem__

    def interrupted(self, name):
        def call(*arguments):
            result = get(self, name)(*arguments)
            if name == last:
                signal.raise_signal(signal.SIGTERM)
            return result

        return call

    weights = model[0].weight.data.copy()
    monkeypatch.setattr(Plain, "__getitem__", interrupted)
    monkeypatch.setattr(Plain, "is_compiled", lambda self, name: True)
    try:
        with pytest.raises(error):
            step(*batch)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert (model[0].weight.data != weights).any()
    assert optimizer.state_dict()["state"][0]["step"] == 2


@pytest.mark.parametrize("kind", ["whole", "divided"])
def test_a_step_whose_compilation_is_interrupted_does_not_count(kind, monkeypatch):
    pytest.importorskip("numba")
    if kind == "divided":
        divide(monkeypatch, 2, in_samples=False)
    model = nn.Sequential(nn.Linear(3, 2, rng=0), nn.BatchNorm1d(2))
    optimizer = nn.Adam(model.parameters())
    step = nn.compile(model, nn.CrossEntropy(), optimizer)
    x, labels = np.eye(8, 3, dtype=np.float32), np.arange(8) % 2
    before = {name: array.copy() for name, array in model.state_dict().items()}
    shared = native._shared

    def interrupted(source, folder, name, types):
        if name in ("step", "update"):
            raise KeyboardInterrupt
        return shared(source, folder, name, types)

    with monkeypatch.context() as patched:
        patched.setattr(native, "_shared", interrupted)
        with pytest.raises(KeyboardInterrupt):
            step(x, labels)
    assert not optimizer.state_dict()["state"]
    for name, array in model.state_dict().items():
        assert_array_equal(array, before[name])
    step(x, labels)
    assert optimizer.state_dict()["state"][0]["step"] == 1


@pytest.mark.parametrize("kind", ["whole", "divided"])
def test_a_step_that_fails_does_not_count(kind, monkeypatch):
    if kind == "divided":
        divide(monkeypatch, 2, in_samples=False)
    model = nn.Sequential(nn.Linear(3, 2, rng=0))
    optimizer = nn.Adam(model.parameters())
    model[0].weight.data *= 0.01
    step = nn.compile(model, nn.CrossEntropy("sum"), optimizer, max_grad_norm=1, native=False)
    x, labels = np.ones((8, 3), np.float32), np.arange(8) % 2
    step(x, labels)
    # The gradient of the last but one is not finite.
    weights = model[0].weight.data.copy()
    for inputs, targets in ((x, labels + 5), (np.float32(3e38) * x, labels), (x[:, :2], labels)):
        with pytest.raises(ValueError, match="labels|finite|input"):
            step(inputs, targets)
        assert optimizer.state_dict()["state"][0]["step"] == 1
        assert_array_equal(model[0].weight.data, weights)
    step(x, labels)
    assert optimizer.state_dict()["state"][0]["step"] == 2


@pytest.mark.parametrize("loss", [nn.CrossEntropy(), nn.Focal(), nn.MeanSquaredError()], ids=repr)
def test_a_loss_that_was_made_one_for_each_sample_is_an_error(loss):
    model = nn.Sequential(nn.Linear(3, 2, rng=0))
    step = nn.compile(model, loss, nn.SGD(model.parameters(), lr=0.1), native=False)
    x = np.ones((4, 3), np.float32)
    target = np.ones((4, 2), np.float32) if type(loss) is nn.MeanSquaredError else np.arange(4) % 2
    step(x, target)
    loss.reduction = "none"
    with pytest.raises(ValueError, match="gives no single number"):
        step(x, target)
