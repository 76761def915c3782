"""Optimizers: they move parameters against their gradients, with PyTorch's update rules.

The parameters of a group lie one after the other in one flat array, and so do their gradients and
the optimizer's state; ``Parameter.data`` and ``Parameter.grad`` are views of them. So a step is a
few NumPy operations, however many parameters there are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from .checks import number
from .layer import Array, Parameter
from .memory import lay_out

# A step goes through the flat arrays in pieces of this many elements, which stay in the cache
# from the first operation of the update rule to the last.
_PIECE = 32768


class Optimizer:
    """Base class: the parameters in groups, each with options of its own.

    An optimizer of your own names its `defaults` and the arrays it keeps for each parameter, and
    defines `update`.

    Parameters
    ----------
    params : iterable of Parameter, or iterable of dict
        ``model.parameters()``; or dicts, each with "params" and the options that it sets itself.
    defaults : mapping
        The options of the groups that do not set them.

    Attributes
    ----------
    param_groups : list of dict
        "params" (a list) and the options of each group. A changed option holds from the next
        `step` on.
    state_names : tuple of str
        The arrays kept for each parameter, of its shape, zero at first.

    Raises
    ------
    TypeError
        If something else than parameters is given.
    ValueError
        If there are no parameters, if one is given twice, or if an option is unknown or out of
        range.
    """

    state_names: tuple[str, ...] = ()
    param_groups: list[dict[str, Any]]

    def __init__(
        self,
        params: Iterable[Parameter] | Iterable[Mapping[str, Any]],
        defaults: Mapping[str, Any],
    ) -> None:
        if isinstance(params, (Parameter, Mapping)) or not isinstance(params, Iterable):
            raise TypeError(
                f"{self._name}: expected an iterable of parameters such as model.parameters(), "
                f"got {type(params).__name__}"
            )
        given = list(params)
        if not any(isinstance(item, Mapping) for item in given):
            given = [{"params": given}]
        self.param_groups = [self._group(item, defaults) for item in given]
        everything = [p for group in self.param_groups for p in group["params"]]
        if len({id(parameter) for parameter in everything}) != len(everything):
            raise ValueError(f"{self._name}: a parameter is given more than once")
        self._blocks = [
            [_Block(parameters, self.state_names) for parameters in _by_dtype(group["params"])]
            for group in self.param_groups
        ]

    @property
    def _name(self) -> str:
        return type(self).__name__

    def _group(self, item: Any, defaults: Mapping[str, Any]) -> dict[str, Any]:
        if not isinstance(item, Mapping) or "params" not in item:
            raise TypeError(
                f'{self._name}: expected parameters, or dicts with "params"; got {item!r}'
            )
        unknown = [name for name in item if name != "params" and name not in defaults]
        if unknown:
            raise ValueError(
                f"{self._name}: unknown option {unknown[0]!r}; it has {', '.join(defaults)}"
            )
        params = item["params"]
        params = [params] if isinstance(params, Parameter) else list(params)
        if not params:
            raise ValueError(
                f"{self._name}: there are no parameters; model.parameters() is an iterator that "
                f"can be used once, and a model without Linear or the like has none"
            )
        for parameter in params:
            if not isinstance(parameter, Parameter):
                raise TypeError(
                    f"{self._name}: expected parameters, got {type(parameter).__name__}"
                )
        group = {**defaults, **item, "params": params}
        self.check(group)
        return group

    @property
    def lr(self) -> float:
        """The learning rate of the first group; setting it sets that of every group."""
        return float(self.param_groups[0]["lr"])

    @lr.setter
    def lr(self, value: float) -> None:
        value = number(value, f"{self._name}: lr", minimum=0)
        for group in self.param_groups:
            group["lr"] = value

    def zero_grad(self) -> None:
        """Forget the gradients of all parameters: `grad` is None until the next backward."""
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.grad = None

    def step(self) -> None:
        """Move every parameter that has a gradient; the others keep their value and state.

        Raises
        ------
        ValueError
            If a gradient or a value has changed its shape. Nothing is moved then.
        """
        for blocks in self._blocks:
            for block in blocks:
                block.gather()
        for group, blocks in zip(self.param_groups, self._blocks, strict=True):
            for block in blocks:
                for step, start, stop in block.runs():
                    for low in range(start, stop, _PIECE):
                        piece = slice(low, min(low + _PIECE, stop))
                        state = [array[piece] for array in block.state]
                        self.update(group, step, block.values[piece], block.grads[piece], *state)
                block.count()

    def check(self, group: dict[str, Any]) -> None:
        """Raise a ValueError or TypeError if an option of `group` is out of range."""
        group["lr"] = number(group["lr"], f"{self._name}: lr", minimum=0)

    def update(
        self, group: dict[str, Any], step: int, value: Array, grad: Array, *state: Array
    ) -> None:
        """Move `value` in place, given its gradient; change `state` in place; leave `grad` alone.

        Parameters
        ----------
        group : dict
            The options.
        step : int
            How often these values have been moved before.
        value, grad, *state : ndarray, one-dimensional
            A piece of the parameters, of their gradients and of each array of `state_names`.
        """
        raise NotImplementedError(f"{self._name} does not define update")

    def __repr__(self) -> str:
        options = [
            ", ".join(f"{name}={value!r}" for name, value in group.items() if name != "params")
            for group in self.param_groups
        ]
        return f"{self._name}({'; '.join(options)})"


class SGD(Optimizer):
    """Stochastic gradient descent, with momentum, Nesterov's variant and weight decay.

    Parameters
    ----------
    params : iterable of Parameter, or iterable of dict
        ``model.parameters()``, or groups with options of their own: see `Optimizer`.
    lr : float, default 1e-3
        Learning rate, at least 0.
    momentum : float, default 0
        Share of the last direction that is kept, at least 0.
    dampening : float, default 0
        Share of the gradient that is left out of the direction.
    weight_decay : float, default 0
        Factor λ of the penalty (λ/2)·‖θ‖² that is added to the loss, at least 0.
    nesterov : bool, default False
        Whether to look ahead along the new direction.

    Raises
    ------
    ValueError
        If an option is out of range, or if `nesterov` is used without momentum or with dampening.

    Notes
    -----
    With parameter θ, gradient g, direction v and step t, as in PyTorch::

        g ← g + weight_decay · θ
        v ← g                                     for t = 0
        v ← momentum · v + (1 - dampening) · g    for t > 0
        θ ← θ - lr · v                            or, with nesterov, θ - lr · (g + momentum · v)

    References
    ----------
    I. Sutskever, J. Martens, G. Dahl, G. Hinton, "On the importance of initialization and momentum
    in deep learning", ICML 2013.

    Examples
    --------
    >>> import nnlite as nn
    >>> p = nn.Parameter([1.0, 2.0])
    >>> optimizer = nn.SGD([p], lr=0.1)
    >>> p.accumulate([1.0, -1.0])
    >>> optimizer.step()
    >>> p.data
    array([0.9, 2.1], dtype=float32)
    """

    state_names = ("momentum_buffer",)

    def __init__(
        self,
        params: Iterable[Parameter] | Iterable[Mapping[str, Any]],
        lr: float = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
    ) -> None:
        super().__init__(
            params,
            {
                "lr": lr,
                "momentum": momentum,
                "dampening": dampening,
                "weight_decay": weight_decay,
                "nesterov": nesterov,
            },
        )

    def check(self, group: dict[str, Any]) -> None:
        super().check(group)
        for name in ("momentum", "weight_decay"):
            group[name] = number(group[name], f"SGD: {name}", minimum=0)
        group["dampening"] = number(group["dampening"], "SGD: dampening")
        if group["nesterov"] and (not group["momentum"] or group["dampening"]):
            raise ValueError("SGD: nesterov needs a momentum above 0 and a dampening of 0")

    def update(
        self, group: dict[str, Any], step: int, value: Array, grad: Array, *state: Array
    ) -> None:
        (direction,) = state
        momentum = group["momentum"]
        if group["weight_decay"]:
            grad = grad + group["weight_decay"] * value
        if momentum:
            if step == 0:
                direction[...] = grad
            else:
                direction *= momentum
                direction += grad if not group["dampening"] else (1 - group["dampening"]) * grad
            grad = grad + momentum * direction if group["nesterov"] else direction
        value -= group["lr"] * grad


class _Block:
    """Parameters of one dtype laid out in one flat array, with their gradients and state."""

    def __init__(self, parameters: list[Parameter], state_names: tuple[str, ...]) -> None:
        self.parameters = parameters
        self.shapes = [parameter.shape for parameter in parameters]
        ends = np.cumsum([parameter.size for parameter in parameters]).tolist()
        self.bounds = list(zip([0, *ends[:-1]], ends, strict=True))
        self.steps = [0] * len(parameters)
        self.values, self.value_views = self._lay_out_values()
        self.grads = self._lay_out_grads()
        self.state = [np.zeros_like(self.values) for _ in state_names]

    def gather(self) -> None:
        """Bring values and gradients back into the flat arrays, if somebody has replaced them."""
        values_moved = grads_moved = False
        for parameter, view in zip(self.parameters, self.value_views, strict=True):
            if parameter.data is not view:
                values_moved = True
                self._check_shape(parameter.data, view)
            if parameter.grad is not None and not parameter.grad_lies_in(self.grads):
                grads_moved = True
                self._check_shape(parameter.grad, view)
        if values_moved:
            self.values, self.value_views = self._lay_out_values()
            self.state = [array.astype(self.values.dtype, copy=False) for array in self.state]
        if grads_moved or self.grads.dtype != self.values.dtype:
            self.grads = self._lay_out_grads()

    @staticmethod
    def _check_shape(array: Array, view: Array) -> None:
        if array.shape != view.shape:
            raise ValueError(
                f"a parameter of shape {view.shape} has got a value or gradient of shape "
                f"{array.shape} since the optimizer was made; make a new optimizer for it"
            )

    def runs(self) -> Iterator[tuple[int, int, int]]:
        """Yield (step, start, stop) of each stretch that has gradients and has moved alike."""
        run: tuple[int, int, int] | None = None
        for parameter, (start, stop), step in zip(
            self.parameters, self.bounds, self.steps, strict=True
        ):
            if parameter.grad is None:
                continue
            if run is not None and run[0] == step and run[2] == start:
                run = (step, run[1], stop)
                continue
            if run is not None:
                yield run
            run = (step, start, stop)
        if run is not None:
            yield run

    def count(self) -> None:
        """Count a step of every parameter that has a gradient."""
        for index, parameter in enumerate(self.parameters):
            if parameter.grad is not None:
                self.steps[index] += 1

    def _lay_out_values(self) -> tuple[Array, list[Array]]:
        flat, views = lay_out(self.shapes, self.parameters[0].dtype)
        for parameter, view in zip(self.parameters, views, strict=True):
            view[...] = parameter.data
            parameter.data = view
        return flat, views

    def _lay_out_grads(self) -> Array:
        flat, views = lay_out(self.shapes, self.values.dtype)
        for parameter, view in zip(self.parameters, views, strict=True):
            parameter.keep_grad_in(view)
        return flat


def _by_dtype(parameters: list[Parameter]) -> list[list[Parameter]]:
    groups: dict[Any, list[Parameter]] = {}
    for parameter in parameters:
        groups.setdefault(parameter.dtype, []).append(parameter)
    return list(groups.values())
