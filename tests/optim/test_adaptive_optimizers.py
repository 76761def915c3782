"""Adam, AdamW and RMSprop beside their update rules, written down without any cleverness.

Parity with PyTorch over hundreds of steps is in ``parity/``.
"""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

import nnlite as nn

from ..registry import Array


class PlainAdam:
    """Kingma and Ba's algorithm for one parameter; decoupled decay is Loshchilov and Hutter's."""

    decoupled = False

    def __init__(self, value: Array, **options: Any) -> None:
        self.value, self.options = value.astype(np.float64), options
        self.m, self.v, self.t = np.zeros(value.shape), np.zeros(value.shape), 0

    def step(self, grad: Array) -> None:
        lr, decay = self.options["lr"], self.options.get("weight_decay", 0)
        first, second = self.options.get("betas", (0.9, 0.999))
        if self.decoupled:
            self.value = self.value - lr * decay * self.value
        else:
            grad = grad + decay * self.value
        self.t += 1
        self.m = first * self.m + (1 - first) * grad
        self.v = second * self.v + (1 - second) * grad**2
        m, v = self.m / (1 - first**self.t), self.v / (1 - second**self.t)
        self.value = self.value - lr * m / (np.sqrt(v) + self.options.get("eps", 1e-8))


class PlainAdamW(PlainAdam):
    """Adam that decays the values themselves."""

    decoupled = True

    def __init__(self, value: Array, **options: Any) -> None:
        super().__init__(value, **{"weight_decay": 0.01} | options)


class PlainRMSprop:
    """Hinton's division by the root of the mean square, for one parameter."""

    def __init__(self, value: Array, **options: Any) -> None:
        self.value, self.options = value.astype(np.float64), options
        self.v, self.a, self.b = (np.zeros(value.shape) for _ in range(3))

    def step(self, grad: Array) -> None:
        alpha = self.options.get("alpha", 0.99)
        grad = grad + self.options.get("weight_decay", 0) * self.value
        self.v = alpha * self.v + (1 - alpha) * grad**2
        self.a = alpha * self.a + (1 - alpha) * grad
        variance = self.v - self.a**2 if self.options.get("centered") else self.v
        direction = grad / (np.sqrt(variance) + self.options.get("eps", 1e-8))
        self.b = self.options.get("momentum", 0) * self.b + direction
        self.value = self.value - self.options["lr"] * self.b


KINDS: list[tuple[Any, Any, dict[str, Any]]] = [
    (nn.Adam, PlainAdam, {"lr": 0.1}),
    (nn.Adam, PlainAdam, {"lr": 0.1, "betas": (0.6, 0.8), "eps": 1e-3, "weight_decay": 0.2}),
    (nn.Adam, PlainAdam, {"lr": 0.1, "betas": (0.0, 0.5), "eps": 1e-3}),
    (nn.AdamW, PlainAdamW, {"lr": 0.1}),
    (nn.AdamW, PlainAdamW, {"lr": 0.1, "betas": (0.6, 0.0), "weight_decay": 0.5}),
    (nn.RMSprop, PlainRMSprop, {"lr": 0.1}),
    (nn.RMSprop, PlainRMSprop, {"lr": 0.1, "alpha": 0.5, "eps": 0.1, "weight_decay": 0.2}),
    (nn.RMSprop, PlainRMSprop, {"lr": 0.1, "alpha": 0.0, "eps": 0.1, "momentum": 0.5}),
    (nn.RMSprop, PlainRMSprop, {"lr": 0.1, "eps": 0.1, "centered": True, "momentum": 0.9}),
]
every_kind = pytest.mark.parametrize(("kind", "plain", "options"), KINDS, ids=str)


def parameters(*shapes: tuple[int, ...], dtype: Any = np.float64) -> list[nn.Parameter]:
    rng = np.random.default_rng(0)
    return [nn.Parameter(rng.normal(size=shape).astype(dtype)) for shape in shapes]


def give(params: list[nn.Parameter], grads: list[Array | None]) -> None:
    for parameter, grad in zip(params, grads, strict=True):
        parameter.zero_grad()
        if grad is not None:
            parameter.accumulate(grad)


@every_kind
@given(data=st.data())
def test_steps_follow_the_update_rule_whichever_parameters_have_a_gradient(
    kind: Any, plain: Any, options: dict[str, Any], data: st.DataObject
) -> None:
    shapes = [(3, 2), (4,), (), (1, 2, 3), (5,)]
    params = parameters(*shapes)
    expected = [plain(p.data, **options) for p in params]
    optimizer = kind(params, **options)
    rng = np.random.default_rng(1)
    for _ in range(6):
        present = data.draw(st.lists(st.booleans(), min_size=5, max_size=5))
        grads = [
            rng.normal(size=shape) if there else None
            for shape, there in zip(shapes, present, strict=True)
        ]
        give(params, grads)
        optimizer.step()
        for reference, grad in zip(expected, grads, strict=True):
            if grad is not None:
                reference.step(grad)
    for parameter, reference in zip(params, expected, strict=True):
        assert_allclose(parameter.data, reference.value, rtol=1e-10, atol=1e-12)


@every_kind
def test_large_parameters_are_moved_to_their_last_element(
    kind: Any, plain: Any, options: dict[str, Any]
) -> None:
    shapes = [(7,), (200, 333), (3,), (65536,), (1,)]
    params = parameters(*shapes)
    expected = [plain(p.data, **options) for p in params]
    optimizer = kind(params, **options)
    rng = np.random.default_rng(1)
    for _ in range(3):
        grads = [rng.normal(size=shape) for shape in shapes]
        give(params, grads)
        optimizer.step()
        for reference, grad in zip(expected, grads, strict=True):
            reference.step(grad)
    for parameter, reference in zip(params, expected, strict=True):
        assert_allclose(parameter.data, reference.value, rtol=1e-9, atol=1e-11)


@every_kind
def test_float32_follows_float64_over_a_thousand_steps(
    kind: Any, plain: Any, options: dict[str, Any]
) -> None:
    (p,) = parameters((20,), dtype=np.float32)
    reference = plain(p.data, **options)
    optimizer = kind([p], **options)
    rng = np.random.default_rng(1)
    for _ in range(1000):
        grad = rng.normal(size=20).astype(np.float32)
        give([p], [grad])
        optimizer.step()
        reference.step(grad.astype(np.float64))
    assert p.dtype == np.float32
    # A thousand roundings of 2⁻²⁴ each, were they all in the same direction.
    scale = np.abs(reference.value).max()
    assert_allclose(p.data, reference.value, atol=1000 * 2**-24 * max(scale, 1))


@every_kind
def test_groups_have_options_of_their_own(kind: Any, plain: Any, options: dict[str, Any]) -> None:
    params = parameters((3, 2), (2,), (4,))
    own = {"lr": 0.03, "weight_decay": 0.3}
    optimizer = kind([{"params": params[0]}, {"params": params[1:], **own}], **options)
    expected = [plain(params[0].data, **options)]
    expected += [plain(p.data, **options | own) for p in params[1:]]
    rng = np.random.default_rng(1)
    for _ in range(5):
        grads = [rng.normal(size=p.shape) for p in params]
        give(params, grads)
        optimizer.step()
        for reference, grad in zip(expected, grads, strict=True):
            reference.step(grad)
    for parameter, reference in zip(params, expected, strict=True):
        assert_allclose(parameter.data, reference.value, rtol=1e-10, atol=1e-12)


@every_kind
def test_a_changed_option_holds_from_the_next_step_on(
    kind: Any, plain: Any, options: dict[str, Any]
) -> None:
    (p,) = parameters((3,))
    reference, optimizer = plain(p.data, **options), kind([p], **options)
    rng = np.random.default_rng(1)
    for step in range(8):
        if step == 3:
            optimizer.lr = 0.02
            reference.options["lr"] = 0.02
        if step == 5:
            optimizer.param_groups[0]["weight_decay"] = reference.options["weight_decay"] = 0.7
        grad = rng.normal(size=3)
        give([p], [grad])
        optimizer.step()
        reference.step(grad)
    assert_allclose(p.data, reference.value, rtol=1e-10)


@every_kind
def test_a_gradient_of_zero_moves_nothing_but_by_decay(
    kind: Any, plain: Any, options: dict[str, Any]
) -> None:
    (p,) = parameters((3,))
    optimizer = kind([p], **options | {"weight_decay": 0.0})
    before = p.data.copy()
    for _ in range(3):
        give([p], [np.zeros(3)])
        optimizer.step()
    assert_array_equal(p.data, before)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e6])
@pytest.mark.parametrize("kind", [nn.Adam, nn.RMSprop])
def test_the_scale_of_the_loss_does_not_matter(kind: Any, scale: float) -> None:
    a, b = (parameters((4,))[0] for _ in range(2))
    first, second = kind([a], lr=0.1, eps=0.0), kind([b], lr=0.1, eps=0.0)
    rng = np.random.default_rng(1)
    for _ in range(20):
        grad = rng.normal(size=4)
        give([a, b], [grad, scale * grad])
        first.step()
        second.step()
    assert_allclose(b.data, a.data, rtol=1e-10)


@every_kind
@pytest.mark.parametrize(
    "duplicate",
    [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))],
    ids=["deepcopy", "pickle"],
)
def test_a_training_that_goes_on_in_a_copy_ends_with_the_same_bits(
    kind: Any, plain: Any, options: dict[str, Any], duplicate: Callable[[Any], Any]
) -> None:
    def train(model: nn.Layer, optimizer: nn.Optimizer, steps: range) -> None:
        for step in steps:
            rng = np.random.default_rng(step)
            optimizer.zero_grad()
            y = model(rng.normal(size=(8, 4)))
            model.backward(rng.normal(size=y.shape), input_grad=False)
            nn.clip_grad_norm(model.parameters(), 1.0)
            optimizer.step()

    def new() -> tuple[nn.Layer, nn.Optimizer]:
        model = nn.Sequential(
            nn.Linear(4, 6, rng=0),
            nn.BatchNorm1d(6),
            nn.Dropout(0.3, rng=1),
            nn.Linear(6, 2, rng=2),
        )
        weights = [p for p in model.parameters() if len(p.shape) > 1]
        others = [p for p in model.parameters() if len(p.shape) == 1]
        groups = [{"params": weights}, {"params": others, "weight_decay": 0.0, "lr": 0.03}]
        return model, kind(groups, **options)

    model, optimizer = new()
    train(model, optimizer, range(12))
    other = new()
    train(*other, range(5))
    twin = duplicate(other)
    train(*twin, range(5, 12))
    for name, value in twin[0].state_dict().items():
        assert_array_equal(value, model.state_dict()[name], err_msg=name)


def test_weights_can_decay_without_the_biases() -> None:
    model = nn.Sequential(nn.Linear(3, 2, rng=0), nn.Linear(2, 2, rng=0))
    weights = [p for name, p in model.named_parameters() if name.endswith("weight")]
    biases = [p for name, p in model.named_parameters() if name.endswith("bias")]
    before = model.state_dict()
    optimizer = nn.AdamW([{"params": weights}, {"params": biases, "weight_decay": 0}], lr=0.5)
    for parameter in model.parameters():
        parameter.grad = np.zeros(parameter.shape)
    optimizer.step()
    for name, value in model.state_dict().items():
        factor = 1 - 0.5 * 0.01 if name.endswith("weight") else 1
        assert_allclose(value, factor * before[name], rtol=1e-6)


@pytest.mark.parametrize(
    ("make", "target"),
    [
        (lambda p: nn.Adam(p, lr=0.1), 1e-3),
        (lambda p: nn.AdamW(p, lr=0.1, weight_decay=0.0), 1e-3),
        (lambda p: nn.RMSprop(p, lr=0.01), 0.05),
        (lambda p: nn.RMSprop(p, lr=0.001, centered=True, momentum=0.9, eps=1e-3), 0.05),
    ],
)
def test_the_bottom_of_a_narrow_valley_is_found(make: Any, target: float) -> None:
    # f = (a - 1)² + 100 (b + 2)², where plain descent must step a hundred times shorter.
    p = nn.Parameter(np.zeros(2))
    optimizer = make([p])
    for _ in range(1000):
        p.grad = [2 * (p.data[0] - 1), 200 * (p.data[1] + 2)]
        optimizer.step()
    assert_allclose(p.data, [1, -2], atol=target)


@pytest.mark.parametrize("kind", [nn.Adam, nn.AdamW, nn.RMSprop])
@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"lr": -0.1}, ValueError, "lr must be at least 0, got -0.1"),
        ({"lr": math.inf}, ValueError, "lr must be finite, got inf"),
        ({"lr": "0.1"}, TypeError, "lr must be a number, got '0.1'"),
        ({"eps": -1.0}, ValueError, "eps must be at least 0, got -1"),
        ({"eps": math.nan}, ValueError, "eps must be finite, got nan"),
        ({"weight_decay": -1.0}, ValueError, "weight_decay must be at least 0, got -1"),
        ({"weight_decay": None}, TypeError, "weight_decay must be a number, got None"),
        ({"beta": 0.9}, ValueError, "unknown option 'beta'; it has lr, "),
    ],
    ids=str,
)
def test_an_option_of_a_group_out_of_range_is_an_error(
    kind: Any, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    (p,) = parameters((2,))
    data = p.data
    with pytest.raises(error, match=f"^{kind.__name__}: {message}"):
        kind([{"params": [p], **options}])
    assert p.data is data


@pytest.mark.parametrize("kind", [nn.Adam, nn.AdamW])
@pytest.mark.parametrize(
    ("betas", "error", "message"),
    [
        ((1.0, 0.999), ValueError, "the first of betas must be below 1, got 1"),
        ((0.9, 1), ValueError, "the second of betas must be below 1, got 1"),
        ((-0.1, 0.9), ValueError, "the first of betas must be between 0 and 1, got -0.1"),
        ((0.9, 1.5), ValueError, "the second of betas must be between 0 and 1, got 1.5"),
        ((0.9, math.nan), ValueError, "the second of betas must be finite, got nan"),
        ((0.9, "0.9"), TypeError, "the second of betas must be a number, got '0.9'"),
        (0.9, TypeError, "betas must be a pair of numbers, got 0.9"),
        ((0.9,), TypeError, "betas must be a pair of numbers, got"),
        (None, TypeError, "betas must be a pair of numbers, got None"),
    ],
    ids=str,
)
def test_betas_out_of_range_are_an_error(
    kind: Any, betas: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=f"^{kind.__name__}: {message}"):
        kind(parameters((2,)), betas=betas)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": 1.0}, "alpha must be below 1, got 1"),
        ({"alpha": -0.5}, "alpha must be between 0 and 1, got -0.5"),
        ({"momentum": -0.5}, "momentum must be at least 0, got -0.5"),
    ],
    ids=str,
)
def test_options_of_rmsprop_out_of_range_are_an_error(
    options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=f"^RMSprop: {message}$"):
        nn.RMSprop(parameters((2,)), **options)


def test_without_memory_adam_steps_by_the_sign_of_the_gradient_alone() -> None:
    # With β₁ = β₂ = 0 every step is lr long, also after a gradient that was far larger.
    p = nn.Parameter(np.zeros(1, np.float32))
    optimizer = nn.Adam([p], lr=1.0, betas=(0.0, 0.0), eps=0.0)
    for grad, expected in ((1e3, -1), (1e-5, -2), (-3e-5, -1), (2e-6, -2)):
        p.grad = [grad]
        optimizer.step()
        assert_allclose(p.data, [expected], rtol=1e-6)
