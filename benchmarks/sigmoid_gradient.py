"""The gradient of the logarithm of a network of two sigmoid layers, a textbook exercise.

l(x) = log σ(W₂ σ(W₁ x + b₁) + b₂) for one x of two features and a hidden layer of three. The step
computes the gradients of all weights and of x. The arithmetic takes hardly any time, so the case
measures the overhead of a library.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import floor
from .case import Array, Batch, BlasRunner, Case, FloorRunner, Runner
from .compiled_floor import CompiledFloorRunner, Passes
from .products import Call, Product, products_of

X0 = [0.5, -0.5]
W1 = [[0.5, -2.5], [1.2, 0.1], [-0.7, -1.2]]
B1 = [-1.5, -1.3, 2.0]
W2 = [[-1.5, 0.2, 0.5]]
B2 = [1.0]


@dataclass(frozen=True)
class SigmoidGradient(Case):
    """Forward and backward, including the gradient of the input."""

    goal: float | None = None
    compiled_goal: float | None = None

    @property
    def name(self) -> str:
        return "log of two sigmoid layers, gradient"

    @property
    def runners(self) -> Mapping[str, Callable[[Any], Runner]]:
        return {
            "nnlite": NnliteGradient,
            "nnlite.compile": CompiledGradient,
            "torch": TorchGradient,
            "blas": BlasRunner,
            "floor": FloorRunner,
            "compiled floor": _floor_of_compiled,
        }

    def products(self) -> list[Product]:
        return products_of(_model(), (1, 2), input_grad=True)

    def passes(self) -> list[Call]:
        return floor.of_model(_model(), (1, 2))


def _model() -> Any:
    import nnlite as nn

    return nn.Sequential(nn.Linear(2, 3), nn.Sigmoid(), nn.Linear(3, 1), nn.Sigmoid(), nn.Log())


def _floor_of_compiled(case: SigmoidGradient) -> CompiledFloorRunner:
    """Return the runner of a call that writes as many gradients."""
    return CompiledFloorRunner(case, Passes(sum(map(np.size, (W1, B1, W2, B2))), 0))


class NnliteGradient(Runner):
    """nnlite: layers in sequence, and a batch of one."""

    def __init__(self, case: SigmoidGradient) -> None:
        self.model = _model()
        weights: dict[str, Any] = {"0.weight": W1, "0.bias": B1, "2.weight": W2, "2.bias": B2}
        self.model.load_state_dict(weights)
        self.parameters = list(self.model.parameters())
        self.x = np.array([X0], np.float32)
        self.one = np.ones((1, 1), np.float32)

    def step(self, *batch: Any) -> Any:
        for parameter in self.parameters:
            parameter.grad = None
        value = self.model(self.x)
        self.x_grad = self.model.backward(self.one)
        return value

    def results(self, batches: Sequence[Batch]) -> dict[str, Array]:
        value = self.step()
        grads = {name: parameter.grad for name, parameter in self.model.named_parameters()}
        return _named(value, self.x_grad, *grads.values())


class CompiledGradient(NnliteGradient):
    """nnlite with forward and backward compiled."""

    def __init__(self, case: SigmoidGradient) -> None:
        import nnlite as nn

        super().__init__(case)
        self.model = nn.compile(self.model)


class TorchGradient(Runner):
    """PyTorch: products of matrices with column vectors, and a tape."""

    def __init__(self, case: SigmoidGradient) -> None:
        import torch

        self.torch = torch
        self.inputs = [
            torch.tensor(value).reshape(shape).requires_grad_()
            for value, shape in [
                (X0, (2, 1)), (W1, (3, 2)), (B1, (3, 1)), (W2, (1, 3)), (B2, (1, 1)),
            ]
        ]  # fmt: skip

    def step(self, *batch: Any) -> Any:
        torch = self.torch
        x, w1, b1, w2, b2 = self.inputs
        for array in self.inputs:
            array.grad = None
        x1 = torch.sigmoid(torch.matmul(w1, x) + b1)
        x2 = torch.sigmoid(torch.matmul(w2, x1) + b2)
        value = torch.log(x2)
        value.backward()
        return value

    def results(self, batches: Sequence[Batch]) -> dict[str, Array]:
        value = self.step().detach()
        return _named(value, *[array.grad for array in self.inputs])


def _named(value: Any, *grads: Any) -> dict[str, Array]:
    """Name the results as on the other side, and remove the difference of rows and columns."""
    names = ["the gradient of " + name for name in ("x", "W₁", "b₁", "W₂", "b₂")]
    results = dict(zip(["the value", *names], [value, *grads], strict=True))
    return {name: np.array(array).reshape(-1) for name, array in results.items()}
