"""Inference: the outputs of a network in evaluation mode."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import floor
from .case import Array, Batch, BlasRunner, Case, FloorRunner, Runner
from .compiled_floor import CompiledFloorRunner, Passes
from .networks import Network
from .products import Call, Product, products_of
from .sides import JaxRunner, NnliteRunner, TorchRunner


@dataclass(frozen=True)
class Inference(Case):
    """Apply a network to batches of random inputs."""

    network: Network
    batch_size: int
    goal: float | None = None
    compiled_goal: float | None = None

    @property
    def name(self) -> str:
        return f"{self.network.name}, predict, batch {self.batch_size}"

    @property
    def runners(self) -> Mapping[str, Callable[[Any], Runner]]:
        runners: dict[str, Callable[[Any], Runner]] = {
            "nnlite": NnliteInference,
            "nnlite.compile": CompiledInference,
            "torch": TorchInference,
            "torch.compile": TorchCompiledInference,
            "blas": BlasRunner,
            "floor": FloorRunner,
            "compiled floor": _floor_of_compiled,
        }
        return runners | {"jax": JaxInference} if self.network.has_jax else runners

    def batches(self, rng: np.random.Generator) -> list[Batch]:
        return [(rng.standard_normal(self._shape, np.float32),) for _ in range(8)]

    def products(self) -> list[Product]:
        import nnlite

        return products_of(self.network.nnlite(nnlite), self._shape, backward=False)

    def passes(self) -> list[Call]:
        import nnlite

        return floor.of_model(self.network.nnlite(nnlite), self._shape, backward=False)

    @property
    def _shape(self) -> tuple[int, ...]:
        return (self.batch_size, *self.network.input_shape)


def _floor_of_compiled(case: Inference) -> CompiledFloorRunner:
    import nnlite

    parameters = sum(parameter.size for parameter in case.network.nnlite(nnlite).parameters())
    return CompiledFloorRunner(case, Passes(parameters, None))


class InferenceRunner(Runner):
    """Base of the runners: a step returns the outputs."""

    def results(self, batches: Sequence[Batch]) -> dict[str, Array]:
        return {"the output": np.array(self.step(*batches[0]))}


class NnliteInference(NnliteRunner, InferenceRunner):
    """nnlite: ``predict``, in evaluation mode and without caches."""

    def __init__(self, case: Inference) -> None:
        import nnlite as nn

        self.model = case.network.nnlite(nn)
        self.predict = nn.predict

    def step(self, *batch: Any) -> Any:
        (x,) = batch
        return self.predict(self.model, x)


class CompiledInference(NnliteInference):
    """nnlite: ``predict`` of the compiled model."""

    def __init__(self, case: Inference) -> None:
        import nnlite as nn

        super().__init__(case)
        self.compiled = nn.compile(self.model)

    def step(self, *batch: Any) -> Any:
        (x,) = batch
        return self.predict(self.compiled, x)


class TorchInference(TorchRunner, InferenceRunner):
    """PyTorch in evaluation mode, within ``inference_mode``."""

    def __init__(self, case: Inference) -> None:
        import torch

        self.inference_mode = torch.inference_mode
        self.model = case.network.torch(torch.nn).eval()
        self.forward = self.model

    def step(self, *batch: Any) -> Any:
        (x,) = batch
        with self.inference_mode():
            return self.forward(x)


class TorchCompiledInference(TorchInference):
    """PyTorch with the model compiled by ``torch.compile``."""

    def __init__(self, case: Inference) -> None:
        super().__init__(case)
        import torch

        self.forward = torch.compile(self.model)

    def to_float64(self) -> bool:
        return False  # float64 would compile everything again


class JaxInference(JaxRunner, InferenceRunner):
    """JAX under ``jit``."""

    def __init__(self, case: Inference) -> None:
        import jax

        self.forward = jax.jit(lambda weights, x: case.network.jax(jax, weights, x))

    def step(self, *batch: Any) -> Any:
        (x,) = batch
        return self.forward(self.weights, x).block_until_ready()
