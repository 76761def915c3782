"""Muon and Lion, and the options that several optimizers share."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import nnlite as nn
from nnlite.optim.muon import orthogonalized

Array = np.ndarray[Any, Any]


@pytest.mark.parametrize("shape", [(4, 6), (6, 4), (5, 5), (1, 3)])
def test_newton_schulz_keeps_the_singular_vectors_and_evens_the_values(
    shape: tuple[int, int],
) -> None:
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=shape)
    u, s, vt = np.linalg.svd(matrix, full_matrices=False)
    result = orthogonalized(matrix, (3.4445, -4.7750, 2.0315), 5, 1e-7)
    # The iteration is an odd polynomial of the singular values alone.
    values = s / np.linalg.norm(s)
    for _ in range(5):
        values = 3.4445 * values - 4.7750 * values**3 + 2.0315 * values**5
    assert_allclose(result, (u * values) @ vt, atol=1e-12)
    assert values.min() > 0.4
    assert values.max() < 1.3


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"nesterov": False, "momentum": 0.5, "weight_decay": 0.0},
        {"adjust_lr_fn": "match_rms_adamw", "ns_steps": 3},
    ],
    ids=str,
)
def test_muon_makes_the_steps_of_pytorch_but_for_its_bfloat16(options: dict[str, Any]) -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    starts = [rng.normal(size=shape).astype(np.float32) for shape in ((4, 6), (8, 3))]
    mine = [nn.Parameter(value) for value in starts]
    theirs = [torch.nn.Parameter(torch.tensor(value)) for value in starts]
    optimizer = nn.Muon(mine, lr=0.1, **options)
    their_optimizer = torch.optim.Muon(theirs, lr=0.1, **options)
    for _ in range(5):
        for p, q in zip(mine, theirs, strict=True):
            grad = rng.normal(size=p.shape).astype(np.float32)
            p.grad, q.grad = grad, torch.tensor(grad)
        optimizer.step()
        their_optimizer.step()
    for p, q in zip(mine, theirs, strict=True):
        # 5 steps of up to 0.16, with elements of three digits.
        assert_allclose(p.data, q.detach().numpy(), atol=0.02)
    for place, state in optimizer.state_dict()["state"].items():
        expected = their_optimizer.state_dict()["state"][place]["momentum_buffer"]
        assert_allclose(state["momentum_buffer"], expected.numpy(), rtol=1e-5, atol=1e-6)


def test_muon_takes_matrices_alone() -> None:
    model = nn.Linear(2, 3)
    with pytest.raises(ValueError, match=r"^Muon: expected matrices, .* \(3,\); .*AdamW"):
        nn.Muon(model.parameters())
    optimizer = nn.Muon([model.weight])
    with pytest.raises(TypeError, match="^compile: Muon has no compiled form"):
        nn.compile(model, nn.MeanSquaredError(), optimizer)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"momentum": 1.5}, "momentum must be between 0 and 1"),
        ({"ns_coefficients": (1.0, 2.0)}, "ns_coefficients must be three numbers"),
        ({"ns_steps": 0}, "ns_steps must be at least 1"),
        ({"adjust_lr_fn": "other"}, "adjust_lr_fn must be one of"),
    ],
)
def test_options_of_muon_out_of_range_are_an_error(options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"^Muon: {message}"):
        nn.Muon([nn.Parameter(np.ones((2, 2)))], **options)


def test_lion_by_hand() -> None:
    # sign(0.9 m + 0.1 g) with m = 0, and then with m = 0.01 g₁ = (0.02, -0.03).
    p = nn.Parameter(np.array([1.0, 2.0]))
    optimizer = nn.Lion([p], lr=0.1, weight_decay=0.5)
    p.grad = np.array([2.0, -3.0])
    optimizer.step()
    assert_allclose(p.data, [0.95 - 0.1, 1.9 + 0.1], rtol=1e-12)
    p.grad = np.array([-0.1, 0.5])  # 0.018 - 0.01 > 0 and -0.027 + 0.05 > 0
    optimizer.step()
    assert_allclose(p.data, [0.95 * 0.85 - 0.1, 0.95 * 2.0 - 0.1], rtol=1e-12)
    assert_allclose(optimizer.state_dict()["state"][0]["exp_avg"], [0.0188, -0.0247], rtol=1e-12)


def test_a_compiled_step_of_lion_is_that_of_lion(rng: np.random.Generator) -> None:
    # No normalisation: the sign of a gradient that is 0 but for rounding is that of the rounding.
    model, twin = (nn.Sequential(nn.Linear(3, 4, rng=0), nn.Tanh(), nn.Linear(4, 2, rng=1))
                   .astype(np.float64) for _ in range(2))  # fmt: skip
    optimizers = [nn.Lion(m.parameters(), lr=0.01, weight_decay=0.1) for m in (model, twin)]
    loss = nn.CrossEntropy()
    step = nn.compile(model, loss, optimizers[0], native=False)
    for _ in range(4):
        x, y = rng.normal(size=(5, 3)), rng.integers(2, size=5)
        value = loss(twin(x), y)
        optimizers[1].zero_grad()
        twin.backward(loss.backward())
        optimizers[1].step()
        assert step(x, y) == pytest.approx(value)
    for one, other in zip(model.parameters(), twin.parameters(), strict=True):
        assert_allclose(one.data, other.data, rtol=1e-12)


def test_amsgrad_cannot_be_switched_on_later() -> None:
    p = nn.Parameter([1.0])
    optimizer = nn.Adam([p])
    optimizer.param_groups[0]["amsgrad"] = True
    p.grad = np.ones(1)
    with pytest.raises(ValueError, match="^Adam: amsgrad cannot be switched on"):
        optimizer.step()
    assert_array_equal(p.data, [1])
    with pytest.raises(TypeError, match="^Adam: amsgrad must be True or False"):
        nn.Adam([p], amsgrad=1)  # type: ignore[arg-type]


def test_without_amsgrad_there_is_no_array_for_it() -> None:
    p = nn.Parameter([1.0])
    optimizer = nn.AdamW([p])
    p.grad = np.ones(1)
    optimizer.step()
    assert set(optimizer.state_dict()["state"][0]) == {"step", "exp_avg", "exp_avg_sq"}


def test_a_state_from_before_an_option_was_known_has_it_off() -> None:
    p = nn.Parameter([1.0])
    optimizer = nn.Adam([p])
    state = optimizer.state_dict()
    for name in ("amsgrad", "maximize"):
        del state["param_groups"][0][name]
    optimizer.load_state_dict(state)
    assert optimizer.param_groups[0]["amsgrad"] is False
    assert optimizer.param_groups[0]["maximize"] is False
    del state["param_groups"][0]["eps"]
    with pytest.raises(ValueError, match="lacks the option 'eps'"):
        optimizer.load_state_dict(state)


@pytest.mark.parametrize("kind", [nn.SGD, nn.Adam, nn.RMSprop, nn.Adagrad, nn.Lion])
def test_maximize_climbs_where_the_descent_of_the_negative_gradient_would_go(kind: Any) -> None:
    up, down = nn.Parameter(np.array([1.0, -2.0])), nn.Parameter(np.array([1.0, -2.0]))
    climber, walker = kind([up], lr=0.1, maximize=True), kind([down], lr=0.1)
    for step in range(4):
        grad = np.array([0.5, -1.0]) * (step + 1)
        up.grad, down.grad = grad, -grad
        climber.step()
        walker.step()
        assert_array_equal(up.grad, grad)
    assert_array_equal(up.data, down.data)
    with pytest.raises(TypeError, match="maximize must be True or False"):
        kind([up], maximize="yes")
