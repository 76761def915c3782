"""Training steps: forward, loss, backward, and a step of the optimizer."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import floor
from .case import Array, Batch, BlasRunner, Case, FloorRunner, Runner, State, as_number
from .compiled_floor import CompiledFloorRunner, Passes
from .networks import MLP, Network
from .products import Call, Product, products_of
from .sides import JaxRunner, NnliteRunner, TorchRunner

LR = 0.01
MOMENTUM = 0.9
OPTIONS: Mapping[str, Mapping[str, float]] = {
    "SGD": {"lr": LR, "momentum": MOMENTUM},
    "Adam": {"lr": LR},
}


@dataclass(frozen=True)
class Training(Case):
    """Train a network on batches of random inputs and labels."""

    network: Network
    batch_size: int
    optimizer: str = "SGD"
    goal: float | None = None
    compiled_goal: float | None = None

    @property
    def name(self) -> str:
        how = "" if self.optimizer == "SGD" else f" with {self.optimizer}"
        return f"{self.network.name}, train{how}, batch {self.batch_size}"

    @property
    def runners(self) -> Mapping[str, Callable[[Any], Runner]]:
        runners: dict[str, Callable[[Any], Runner]] = {
            "nnlite": NnliteTraining,
            "nnlite.compile": CompiledTraining,
            "torch": TorchTraining,
            "torch.compile": TorchCompiledTraining,
            "blas": BlasRunner,
            "floor": FloorRunner,
            "compiled floor": _floor_of_compiled,
        }
        if self.optimizer == "SGD" and self.network.has_jax:
            runners["jax"] = JaxTraining
        if self.optimizer == "SGD" and isinstance(self.network, MLP):
            runners["sklearn"] = SklearnTraining
        return runners

    def batches(self, rng: np.random.Generator) -> list[Batch]:
        # Several batches, so that the network does not overfit one until its gradients vanish.
        return [
            (rng.standard_normal(self._shape, np.float32), rng.integers(0, 10, self.batch_size))
            for _ in range(8)
        ]

    def products(self) -> list[Product]:
        import nnlite

        return products_of(self.network.nnlite(nnlite), self._shape)

    def passes(self) -> list[Call]:
        import nnlite

        model = self.network.nnlite(nnlite)
        size = sum(parameter.size for parameter in model.parameters())
        passes = floor.of_model(model, self._shape)
        optimizer = floor.OPTIMIZERS[self.optimizer](size)
        return passes + floor.of_cross_entropy(self.batch_size, 10) + optimizer

    @property
    def _shape(self) -> tuple[int, ...]:
        return (self.batch_size, *self.network.input_shape)


def _floor_of_compiled(case: Training) -> CompiledFloorRunner:
    import nnlite

    parameters = sum(parameter.size for parameter in case.network.nnlite(nnlite).parameters())
    return CompiledFloorRunner(case, Passes(parameters, {"SGD": 1, "Adam": 2}[case.optimizer]))


class TrainingRunner(Runner):
    """Base of the runners: a step returns the loss."""

    def results(self, batches: Sequence[Batch]) -> dict[str, Array]:
        """Return loss, gradients and weights of two steps; momentum only affects the second."""
        results = {}
        for number, batch in enumerate(batches[:2], start=1):
            results[f"the loss of step {number}"] = as_number(self.step(*batch))
            for name, grad in self.gradients().items():
                results[f"the gradient of {name} in step {number}"] = np.array(grad)
            for name, weight in self.state().items():
                results[f"{name} after step {number}"] = weight
        return results

    @abstractmethod
    def gradients(self) -> Mapping[str, Array]:
        """Return the gradients of the latest step by the name of the weight."""


class NnliteTraining(NnliteRunner, TrainingRunner):
    """nnlite."""

    def __init__(self, case: Training) -> None:
        import nnlite as nn

        self.model = case.network.nnlite(nn)
        self.loss = nn.CrossEntropy()
        self.optimizer = getattr(nn, case.optimizer)(
            self.model.parameters(), **OPTIONS[case.optimizer]
        )

    def step(self, *batch: Any) -> Any:
        x, y = batch
        loss = self.loss(self.model(x), y)
        self.optimizer.zero_grad()
        self.model.backward(self.loss.backward(), input_grad=False)
        self.optimizer.step()
        return loss

    def gradients(self) -> Mapping[str, Array]:
        return {name: parameter.grad for name, parameter in self.model.named_parameters()}


class CompiledTraining(NnliteTraining):
    """nnlite with the whole step compiled."""

    def __init__(self, case: Training) -> None:
        import nnlite as nn

        super().__init__(case)
        self.compiled = nn.compile(self.model, self.loss, self.optimizer)

    def step(self, *batch: Any) -> Any:
        return self.compiled(*batch)


class TorchTraining(TorchRunner, TrainingRunner):
    """PyTorch."""

    def __init__(self, case: Training) -> None:
        import torch

        self.model = case.network.torch(torch.nn)
        self.forward = self.model
        self.loss = torch.nn.CrossEntropyLoss()
        self.optimizer = getattr(torch.optim, case.optimizer)(
            self.model.parameters(), **OPTIONS[case.optimizer]
        )

    def step(self, *batch: Any) -> Any:
        x, y = batch
        loss = self.loss(self.forward(x), y)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss

    def gradients(self) -> Mapping[str, Array]:
        return {name: weight.grad.numpy() for name, weight in self.model.named_parameters()}


class TorchCompiledTraining(TorchTraining):
    """PyTorch with the model compiled by ``torch.compile``."""

    def __init__(self, case: Training) -> None:
        super().__init__(case)
        import torch

        self.forward = torch.compile(self.model)

    def to_float64(self) -> bool:
        return False  # float64 would compile everything again


class JaxTraining(JaxRunner, TrainingRunner):
    """JAX: the whole step is one function under ``jit``."""

    grads: Mapping[str, Any]
    directions: Mapping[str, Any]

    def __init__(self, case: Training) -> None:
        import jax

        def loss(weights: Any, x: Any, y: Any) -> Any:
            logs = jax.nn.log_softmax(case.network.jax(jax, weights, x))
            return -jax.numpy.take_along_axis(logs, y[:, None], axis=1).mean()

        def train(weights: Any, directions: Any, x: Any, y: Any) -> Any:
            value, grads = jax.value_and_grad(loss)(weights, x, y)
            directions = jax.tree.map(lambda d, g: MOMENTUM * d + g, directions, grads)
            weights = jax.tree.map(lambda w, d: w - LR * d, weights, directions)
            return value, grads, weights, directions

        # The buffers of the old weights and directions are donated to hold the new ones.
        self.train = jax.jit(train, donate_argnums=(0, 1))

    def step(self, *batch: Any) -> Any:
        loss, self.grads, self.weights, self.directions = self.train(
            self.weights, self.directions, *batch
        )
        return loss.block_until_ready()

    def load(self, state: State) -> None:
        import jax

        super().load(state)
        self.directions = jax.tree.map(jax.numpy.zeros_like, self.weights)

    def gradients(self) -> Mapping[str, Array]:
        return dict(self.grads)


class SklearnTraining(TrainingRunner):
    """scikit-learn: ``partial_fit`` of one batch is one step."""

    complete = False  # it does not store gradients

    def __init__(self, case: Training) -> None:
        from sklearn.neural_network import MLPClassifier

        assert isinstance(case.network, MLP)
        self.sizes = case.network.sizes
        self.batch_size = case.batch_size
        self.model = MLPClassifier(
            self.sizes[1:-1], solver="sgd", alpha=0, batch_size=self.batch_size, shuffle=False,
            learning_rate_init=LR, momentum=MOMENTUM, nesterovs_momentum=False,
        )  # fmt: skip

    def step(self, *batch: Any) -> Any:
        self.model.partial_fit(*batch)
        return self.model.loss_

    def state(self) -> dict[str, Array]:
        return {name: array.T.copy() for name, array in self._weights()}

    def load(self, state: State) -> None:
        # The first partial_fit sets the classes and creates the weights, which are then replaced.
        x = np.zeros((self.batch_size, self.sizes[0]), np.float32)
        self.model.partial_fit(x, np.zeros(len(x), int), classes=range(self.sizes[-1]))
        for name, array in self._weights():
            array[...] = state[name].T
        del self.model._optimizer  # it contains the momentum of that step

    def gradients(self) -> Mapping[str, Array]:
        return {}

    def _weights(self) -> list[tuple[str, Array]]:
        weights = [(f"{2 * i}.weight", array) for i, array in enumerate(self.model.coefs_)]
        biases = [(f"{2 * i}.bias", array) for i, array in enumerate(self.model.intercepts_)]
        return weights + biases
