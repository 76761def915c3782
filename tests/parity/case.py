"""A comparison with PyTorch: how to build both layers, their inputs, and their results.

The data of a case is a dict of named arrays: inputs (``input.0``, ``parameter.weight``,
``grad_output``) and results (``output``, ``grad.input.0``, ``grad.parameter.weight``,
``buffer.running_mean``).
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.testing import assert_allclose
from numpy.typing import NDArray

import nnlite as nn

Array = NDArray[Any]
Figures = dict[str, Array]

# Tolerance for the rounding errors of a few operations on numbers of order 1.
TOLERANCE = {"float64": 1e-11, "float32": 2e-5}


def generator_of(name: str, seed: int = 0) -> np.random.Generator:
    """Return a case's generator, seeded with its name: no case depends on its neighbours."""
    return np.random.default_rng([zlib.crc32(name.encode()), seed])


def assert_figures(actual: Figures, expected: Figures, tolerance: float) -> None:
    """Fail unless the figures have the same names, shapes and, but for rounding, values."""
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        assert actual[name].shape == value.shape, name
        assert_allclose(actual[name], value, rtol=tolerance, atol=tolerance, err_msg=name)


# ---- layers and losses ----


@dataclass(frozen=True)
class Case:
    """A layer or loss of nnlite, and the module or function of PyTorch that it is to equal.

    Attributes
    ----------
    name : str
        The test's name, and the figures' name in the record.
    layer : callable
        ``layer()`` returns a new nnlite layer or loss.
    module : callable
        ``module(torch)`` returns a new PyTorch module, or a function. Its parameters have the
        names and shapes of the layer's: that is part of what is compared.
    inputs : callable
        ``inputs(rng)`` returns the inputs of both; those of floats get a gradient.
    pick : callable
        ``pick(output)`` returns the tensor to compare where PyTorch returns several.
    constants : tuple of int
        Positions of inputs of floats that get no gradient, such as the target of a loss.
    training : bool
        Whether both sides are in training mode.
    dtype : {"float64", "float32"}
    """

    name: str
    layer: Callable[[], nn.Layer]
    module: Callable[[Any], Any]
    inputs: Callable[[np.random.Generator], tuple[Array, ...]]
    pick: Callable[[Any], Any] = lambda output: output
    constants: tuple[int, ...] = ()
    training: bool = True
    dtype: str = "float64"

    def __repr__(self) -> str:
        return self.name

    def takes_gradient(self, position: int, value: Array) -> bool:
        """Whether the input at `position` gets a gradient."""
        return value.dtype.kind == "f" and position not in self.constants


def torch_figures(case: Case, torch: Any, seed: int = 0) -> Figures:
    """Draw what goes in, and return it with all figures that PyTorch gives for it."""
    rng = generator_of(case.name, seed)
    dtype = getattr(torch, case.dtype)
    module = case.module(torch)
    figures: Figures = {}
    tensors = []
    for position, drawn in enumerate(case.inputs(rng)):
        value = drawn.astype(case.dtype) if drawn.dtype.kind == "f" else drawn
        figures[f"input.{position}"] = value
        tensors.append(torch.tensor(value, requires_grad=case.takes_gradient(position, value)))
    is_module = isinstance(module, torch.nn.Module)
    parameters = dict(module.named_parameters()) if is_module else {}
    if is_module:
        module.to(dtype).train(case.training)
        for name, parameter in parameters.items():
            value = rng.uniform(-1, 1, parameter.shape).astype(case.dtype)
            parameter.data = torch.tensor(value)
            figures[f"parameter.{name}"] = value
    output = case.pick(module(*tensors))
    grad_output = np.asarray(rng.normal(size=tuple(output.shape)), case.dtype)
    output.backward(torch.tensor(grad_output))
    figures["grad_output"] = grad_output
    figures["output"] = output.detach().numpy()
    for position, tensor in enumerate(tensors):
        if tensor.requires_grad:
            figures[f"grad.input.{position}"] = tensor.grad.numpy()
    for name, parameter in parameters.items():
        figures[f"grad.parameter.{name}"] = parameter.grad.numpy()
    if is_module:
        for name, buffer in module.named_buffers():
            figures[f"buffer.{name}"] = buffer.numpy()
    return {name: np.array(value) for name, value in figures.items()}


def nnlite_figures(
    case: Case, given: Figures, form: Callable[[nn.Layer], Any] = lambda layer: layer
) -> Figures:
    """Return all figures of the layer for what goes in according to `given`.

    They are computed by ``form(layer)``, which is called, and has `backward`, as the layer.
    """
    figures = {name: given[name] for name in given if name.startswith(("input.", "parameter."))}
    inputs = [figures[name] for name in figures if name.startswith("input.")]
    layer = case.layer().astype(case.dtype).train(case.training)
    parameters = dict(layer.named_parameters())
    for name, parameter in parameters.items():
        value = given[f"parameter.{name}"]
        assert parameter.shape == value.shape, name
        parameter.data[...] = value
    computed = form(layer)
    output = np.asarray(computed(*inputs))
    grad_output = given["grad_output"]
    grads = computed.backward(grad_output if grad_output.ndim else float(grad_output))
    figures["grad_output"] = grad_output
    figures["output"] = output
    positions = [k for k, value in enumerate(inputs) if case.takes_gradient(k, value)]
    grads = grads if isinstance(grads, tuple) else (grads,)
    for position, grad in zip(positions, (g for g in grads if g is not None), strict=True):
        figures[f"grad.input.{position}"] = grad
    for name, parameter in parameters.items():
        assert parameter.grad is not None, name
        figures[f"grad.parameter.{name}"] = parameter.grad
    for name, buffer in layer.state_dict().items():
        if name not in parameters:
            figures[f"buffer.{name}"] = buffer
    for name, value in figures.items():
        # A reduced loss is a Python float whatever the dtype.
        assert value.dtype.kind != "f" or not value.ndim or value.dtype == case.dtype, name
    return figures


# ---- optimizers ----


@dataclass(frozen=True)
class OptimizerCase:
    """An optimizer of nnlite, and that of PyTorch which is to move parameters alike.

    Attributes
    ----------
    name : str
    optimizer : callable
        ``optimizer(params)`` returns the nnlite optimizer of three parameters.
    torch_optimizer : callable
        ``torch_optimizer(torch, params)`` returns PyTorch's.
    change : callable
        ``change(optimizer, step)`` is called before every step, on both sides: it may change the
        options in ``optimizer.param_groups``.
    present : callable
        ``present(index, step)``: whether a parameter has a gradient in a step.
    steps : tuple of int
        After how many steps the values are compared.
    dtype : {"float64", "float32"}
    """

    name: str
    optimizer: Callable[[list[nn.Parameter]], nn.Optimizer]
    torch_optimizer: Callable[[Any, list[Any]], Any]
    change: Callable[[Any, int], None] = lambda optimizer, step: None
    present: Callable[[int, int], bool] = lambda index, step: True
    steps: tuple[int, ...] = (1, 2, 10, 300)
    dtype: str = "float64"

    def __repr__(self) -> str:
        return self.name


def _initial_values(case: OptimizerCase, seed: int) -> list[Array]:
    rng = generator_of(case.name, seed)
    return [rng.normal(size=shape).astype(case.dtype) for shape in ((2, 3), (3,), ())]


def _gradient(index: int, step: int, value: Array) -> Array:
    """Return the slope of a bowl whose middle moves: a function of the values, so errors add up.

    All numbers are multiples of 1/16, so that there is nothing to round but the values' part.
    """
    wave = (np.arange(value.size).reshape(value.shape) * 5 + step * 7 + index * 3) % 11 - 5
    return (0.25 * value.astype(np.float64) + wave / 16).astype(value.dtype)


def _steps(
    case: OptimizerCase,
    optimizer: Any,
    values: Callable[[], list[Array]],
    set_gradient: Callable[[int, Array | None], None],
) -> Iterator[tuple[str, Array]]:
    for step in range(1, max(case.steps) + 1):
        case.change(optimizer, step)
        for index, value in enumerate(values()):
            there = case.present(index, step)
            set_gradient(index, _gradient(index, step, value) if there else None)
        optimizer.step()
        if step in case.steps:
            for index, value in enumerate(values()):
                yield f"step.{step}.{index}", np.array(value)


def torch_steps(case: OptimizerCase, torch: Any, seed: int = 0) -> Figures:
    """Draw initial values, and return them with the values after each number of steps."""
    initial = _initial_values(case, seed)
    figures = {f"step.0.{index}": value for index, value in enumerate(initial)}
    params = [torch.nn.Parameter(torch.tensor(value)) for value in initial]

    def set_gradient(index: int, grad: Array | None) -> None:
        params[index].grad = None if grad is None else torch.tensor(grad)

    optimizer = case.torch_optimizer(torch, params)
    moved = _steps(case, optimizer, lambda: [p.detach().numpy() for p in params], set_gradient)
    return figures | dict(moved)


def nnlite_steps(case: OptimizerCase, given: Figures) -> Figures:
    """Move the initial values of `given`, and return them with those after each number of steps."""
    figures = {f"step.0.{index}": given[f"step.0.{index}"] for index in range(3)}
    params = [nn.Parameter(value) for value in figures.values()]

    def set_gradient(index: int, grad: Array | None) -> None:
        params[index].zero_grad()
        if grad is not None:
            params[index].accumulate(grad)

    optimizer = case.optimizer(params)
    return figures | dict(_steps(case, optimizer, lambda: [p.data for p in params], set_gradient))
