"""LBFGS: PyTorch's iterates, its state, and errors that change nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import nnlite as nn

OPTIONS: dict[str, dict[str, Any]] = {
    "line search": {"line_search_fn": "strong_wolfe"},
    "line search of long trials": {"line_search_fn": "strong_wolfe", "lr": 20.0},
    "line search of short trials": {"line_search_fn": "strong_wolfe", "lr": 1e-3},
    "few evaluations": {"line_search_fn": "strong_wolfe", "max_eval": 3, "max_iter": 7},
    "short history": {"line_search_fn": "strong_wolfe", "history_size": 2},
    "fixed steps": {"lr": 0.1, "max_iter": 4},
}
every_option = pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())

# Rosenbrock's function of x and y, in two parameters: 5 (y - x²)² + (1 - x)², summed over three.
START = np.array([-1.2, 0.3, 2.0]), np.array([1.0, -0.5, 0.7])

# The losses before two steps, and the parameters after them.
RECORDED: tuple[float, float, list[list[float]]] = (
    63.488499999999995,
    4.337803041817659,
    [
        [-0.010270599098096076, 0.8888648192673776, 0.9238933688088309],
        [-0.25803332881471447, 0.8811329216520837, 0.8688907232471504],
    ],
)


def rosenbrock(p: nn.Parameter, q: nn.Parameter) -> float:
    """Return the value, and accumulate the gradients."""
    x, y = p.data, q.data
    p.accumulate(-20 * x * (y - x**2) - 2 * (1 - x))
    q.accumulate(10 * (y - x**2))
    return float((5 * (y - x**2) ** 2 + (1 - x) ** 2).sum())


def problem(**options: Any) -> tuple[nn.LBFGS, list[nn.Parameter], Callable[[], float]]:
    parameters = [nn.Parameter(value) for value in START]
    optimizer = nn.LBFGS(parameters, **options)

    def closure() -> float:
        optimizer.zero_grad()
        return rosenbrock(*parameters)

    return optimizer, parameters, closure


@every_option
def test_iterates_are_those_of_pytorch(options: dict[str, Any]) -> None:
    torch = pytest.importorskip("torch")
    optimizer, parameters, closure = problem(**options)
    theirs = [torch.nn.Parameter(torch.tensor(value)) for value in START]
    their_optimizer = torch.optim.LBFGS(theirs, **options)

    def their_closure() -> Any:
        their_optimizer.zero_grad()
        x, y = theirs
        value = (5 * (y - x**2) ** 2 + (1 - x) ** 2).sum()
        value.backward()
        return value

    for _ in range(3):
        expected = their_optimizer.step(their_closure).item()
        assert optimizer.step(closure) == pytest.approx(expected, rel=1e-6, abs=1e-9)
        for p, q in zip(parameters, theirs, strict=True):
            assert_allclose(p.data, q.detach().numpy(), rtol=1e-6, atol=1e-9)
        mine = optimizer.state_dict()["state"][0]
        state = their_optimizer.state_dict()["state"][0]
        for name in ("func_evals", "n_iter"):
            assert mine[name] == state[name]


def test_iterates_are_those_that_pytorch_gave() -> None:
    # torch.optim.LBFGS(line_search_fn="strong_wolfe", max_iter=5), PyTorch 2.13, float64: two
    # steps.
    optimizer, parameters, closure = problem(line_search_fn="strong_wolfe", max_iter=5)
    assert optimizer.step(closure) == pytest.approx(RECORDED[0], rel=1e-12)
    assert optimizer.step(closure) == pytest.approx(RECORDED[1], rel=1e-9)
    assert_allclose([p.data for p in parameters], RECORDED[2], rtol=1e-9)


def test_a_line_search_finds_the_minimum() -> None:
    optimizer, parameters, closure = problem(line_search_fn="strong_wolfe", max_iter=100)
    for _ in range(3):
        optimizer.step(closure)
    for parameter in parameters:
        assert_allclose(parameter.data, 1, rtol=1e-4)
    at_the_minimum = [p.data.copy() for p in parameters]
    optimizer.step(closure)
    assert_allclose([p.data for p in parameters], at_the_minimum, rtol=1e-4)


@every_option
def test_a_run_continues_from_a_checkpoint_bit_by_bit(
    options: dict[str, Any], tmp_path: Path
) -> None:
    whole, parameters, closure = problem(**options)
    whole.step(closure)
    model = nn.Weight(np.zeros(1))
    nn.save_checkpoint(tmp_path / "run.npz", model=model, optimizer=whole)
    values = [p.data.copy() for p in parameters]
    whole.step(closure)

    resumed, others, other_closure = problem(**options)
    nn.load_checkpoint(tmp_path / "run.npz", model=model, optimizer=resumed)
    for p, value in zip(others, values, strict=True):
        p.data[...] = value
    resumed.step(other_closure)
    for p, q in zip(parameters, others, strict=True):
        assert_array_equal(p.data, q.data)


def test_the_state_of_pytorch_is_taken_over() -> None:
    torch = pytest.importorskip("torch")
    theirs = [torch.nn.Parameter(torch.tensor(value)) for value in START]
    their_optimizer = torch.optim.LBFGS(theirs, line_search_fn="strong_wolfe", max_iter=3)

    def their_closure() -> Any:
        their_optimizer.zero_grad()
        x, y = theirs
        value = (5 * (y - x**2) ** 2 + (1 - x) ** 2).sum()
        value.backward()
        return value

    their_optimizer.step(their_closure)
    optimizer, parameters, closure = problem(line_search_fn="strong_wolfe", max_iter=3)
    optimizer.load_state_dict(their_optimizer.state_dict())
    for p, q in zip(parameters, theirs, strict=True):
        p.data[...] = q.detach().numpy()
    their_optimizer.step(their_closure)
    optimizer.step(closure)
    for p, q in zip(parameters, theirs, strict=True):
        assert_allclose(p.data, q.detach().numpy(), rtol=1e-9)


def test_parameters_without_a_gradient_stay() -> None:
    parameters = [nn.Parameter(np.ones(2)), nn.Parameter(np.ones(2))]
    optimizer = nn.LBFGS(parameters, line_search_fn="strong_wolfe")

    def closure() -> float:
        optimizer.zero_grad()
        parameters[0].accumulate(2 * parameters[0].data)
        return float((parameters[0].data ** 2).sum())

    optimizer.step(closure)
    assert_allclose(parameters[0].data, 0, atol=1e-6)
    assert_array_equal(parameters[1].data, 1)


def test_a_model_in_float32_learns() -> None:
    nn.seed(0)
    model = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 1))
    x = np.random.default_rng(0).normal(size=(50, 2)).astype(np.float32)
    y = x[:, :1] * x[:, 1:]
    loss = nn.MeanSquaredError()
    optimizer = nn.LBFGS(model.parameters(), line_search_fn="strong_wolfe", max_iter=50)

    def closure() -> float:
        optimizer.zero_grad()
        value: float = loss(model(x), y)
        model.backward(loss.backward(), input_grad=False)
        return value

    first = optimizer.step(closure)
    for _ in range(3):
        optimizer.step(closure)
    assert loss(model(x), y) < first / 50
    assert all(p.dtype == np.float32 for p in model.parameters())


def test_a_closure_that_fails_leaves_parameters_and_state() -> None:
    for fault in (RuntimeError("broken"), None):
        optimizer, parameters, closure = problem(line_search_fn="strong_wolfe")
        calls = 0

        def failing(
            closure: Callable[[], float] = closure, fault: Exception | None = fault
        ) -> float:
            nonlocal calls
            calls += 1
            value = closure()
            if calls == 4:
                if fault is not None:
                    raise fault
                return float("nan")
            return value

        with pytest.raises((RuntimeError, ValueError), match="broken|must be finite, got nan"):
            optimizer.step(failing)
        for p, value in zip(parameters, START, strict=True):
            assert_array_equal(p.data, value)
        assert optimizer.state_dict()["state"] == {}
        assert calls == 4
        calls = 10
        twin, others, other_closure = problem(line_search_fn="strong_wolfe")
        optimizer.step(closure)
        twin.step(other_closure)
        for p, q in zip(parameters, others, strict=True):
            assert_array_equal(p.data, q.data)


@pytest.mark.parametrize("closure", [None, 3.0, "closure"])
def test_a_step_without_a_closure_is_an_error(closure: Any) -> None:
    optimizer, parameters, _ = problem()
    with pytest.raises(TypeError, match="^LBFGS: step needs a closure, .* returns the loss$"):
        optimizer.step(closure)
    assert_array_equal(parameters[0].data, START[0])


def test_a_closure_that_returns_no_number_is_an_error() -> None:
    optimizer, _, _ = problem()
    with pytest.raises(TypeError, match="^LBFGS: the loss that the closure returns must be a num"):
        optimizer.step(lambda: None)  # type: ignore[arg-type, return-value]


def test_what_needs_a_single_evaluation_refuses_it() -> None:
    model = nn.Linear(1, 1, rng=0)
    optimizer = nn.LBFGS(model.parameters())
    x = np.ones((2, 1), np.float32)
    with pytest.raises(TypeError, match=r"^fit: LBFGS .*optimizer\.step\(closure\)"):
        nn.fit(model, nn.MeanSquaredError(), optimizer, [(x, x)], epochs=1)
    with pytest.raises(TypeError, match="^compile: LBFGS has no compiled form"):
        nn.compile(model, nn.MeanSquaredError(), optimizer)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr": -1}, "lr must be at least 0"),
        ({"max_iter": 0}, "max_iter must be at least 1"),
        ({"max_eval": 0}, "max_eval must be at least 1"),
        ({"history_size": 0}, "history_size must be at least 1"),
        ({"tolerance_grad": -1}, "tolerance_grad must be at least 0"),
        ({"line_search_fn": "armijo"}, "line_search_fn must be one of 'strong_wolfe'"),
    ],
)
def test_options_out_of_range_are_an_error(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^LBFGS: {message}"):
        nn.LBFGS([nn.Parameter([1.0])], **options)


def test_groups_and_several_dtypes_are_an_error() -> None:
    p, q = nn.Parameter(np.ones(1)), nn.Parameter(np.ones(1, np.float32))
    with pytest.raises(ValueError, match="LBFGS: there is one group"):
        nn.LBFGS([{"params": [p]}, {"params": [q]}])
    with pytest.raises(ValueError, match="LBFGS: the parameters are of several dtypes"):
        nn.LBFGS([p, q])
    optimizer = nn.LBFGS([p])
    with pytest.raises(ValueError, match="LBFGS: there is one group"):
        optimizer.add_param_group({"params": [nn.Parameter([1.0])]})


@pytest.mark.parametrize("name", ["d", "old_dirs", "ro", "n_iter", "t"])
def test_a_state_that_does_not_fit_is_an_error_and_changes_nothing(name: str) -> None:
    optimizer, _, closure = problem(line_search_fn="strong_wolfe", max_iter=3)
    optimizer.step(closure)
    state = optimizer.state_dict()
    before = optimizer.state_dict()
    wrong = {"d": np.ones(2), "old_dirs": [np.ones(6)] * 9, "ro": [], "n_iter": -1, "t": "a"}
    state["state"][0][name] = wrong[name]
    with pytest.raises((ValueError, TypeError), match="^LBFGS: "):
        optimizer.load_state_dict(state)
    np.testing.assert_equal(optimizer.state_dict(), before)
