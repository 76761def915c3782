"""Optimizers: they move parameters against their gradients, with PyTorch's update rules.

The parameters of a group lie one after the other in one flat array, and so do their gradients and
the optimizer's state; ``Parameter.data`` and ``Parameter.grad`` are views of them. So a step is a
few NumPy operations, however many parameters there are.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from ..checks import fraction, number
from ..engine.arrays import Array
from ..parameter import Parameter
from .flat import _Block, _by_dtype

# A step goes through the flat arrays in pieces of this many elements, which stay in the cache
# from the first operation of the update rule to the last.
_PIECE = 32768
# Averages whose gradient has become 0 decay towards it and end below the smallest normal number of
# their dtype, where arithmetic takes many times as long. After so many steps these are set to 0.
_STEPS_TO_FLUSH = 64


class Run(NamedTuple):
    """A stretch of the flat arrays whose parameters have gradients and have moved alike.

    Attributes
    ----------
    group : dict
        The options.
    step : int
        How many steps that count have moved these values before.
    value, grad : ndarray, one-dimensional
    state : list of ndarray
        The arrays of `Optimizer.state_names`.
    """

    group: dict[str, Any]
    step: int
    value: Array
    grad: Array
    state: list[Array]


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
        The arrays kept for each parameter, of its shape, zero at first. What is below the smallest
        normal number of their dtype becomes 0 now and then: arithmetic with it takes long.

    Raises
    ------
    TypeError
        If something else than parameters is given.
    ValueError
        If there are no parameters, if one is given twice, or if an option is unknown or out of
        range.

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> class SignDescent(nn.Optimizer):
    ...     def __init__(self, params, lr=0.1):
    ...         super().__init__(params, {"lr": lr})
    ...     def update(self, group, step, value, grad):
    ...         value -= group["lr"] * np.sign(grad)
    >>> p = nn.Parameter([1.0, 2.0])
    >>> optimizer = SignDescent([p])
    >>> p.accumulate([0.01, -50.0])
    >>> optimizer.step()
    >>> p.data
    array([0.9, 2.1], dtype=float32)

    Groups have options of their own:

    >>> model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    >>> optimizer = nn.SGD([
    ...     {"params": model[0].parameters(), "lr": 0.01},
    ...     {"params": model[1].parameters()},
    ... ], lr=0.1)
    >>> [group["lr"] for group in optimizer.param_groups]
    [0.01, 0.1]
    """

    state_names: tuple[str, ...] = ()
    param_groups: list[dict[str, Any]]

    # Options of PyTorch's that have one value here.
    _implied: Mapping[str, Any] = {}

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
            [self._block(parameters) for parameters in _by_dtype(group["params"])]
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
        known = {"params", "initial_lr", *defaults}
        unknown = [name for name in item if name not in known]
        if unknown:
            raise ValueError(
                f"{self._name}: unknown option {unknown[0]!r}; it has {', '.join(defaults)}"
            )
        params = item["params"]
        params = list(params) if isinstance(params, Iterable) else [params]
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

    def _block(self, parameters: list[Parameter]) -> _Block:
        state = [[np.zeros_like(p.data) for p in parameters] for _ in self.state_names]
        return _Block(parameters, [0] * len(parameters), state)

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
        """Move every parameter that has a gradient; the others keep their value and state."""
        for run in self.runs():
            for low in range(0, run.value.size, _PIECE):
                value, grad, *state = [
                    a[low : low + _PIECE] for a in (run.value, run.grad, *run.state)
                ]
                self.update(run.group, run.step, value, grad, *state)
        self.advance()

    def runs(self) -> list[Run]:
        """Return the stretches of the flat arrays that `step` is going to move."""
        for blocks in self._blocks:
            blocks[:] = [part for block in blocks for part in block.gathered()]
        return [
            Run(
                group,
                step,
                block.values[start:stop],
                block.grads[start:stop],
                [array[start:stop] for array in block.state],
            )
            for group, blocks in zip(self.param_groups, self._blocks, strict=True)
            for block in blocks
            for step, start, stop in block.runs()
        ]

    def step_counts(self) -> list[int]:
        """Return how many steps that count have moved each parameter, in the order of `runs`."""
        return [step for blocks in self._blocks for block in blocks for step in block.steps]

    def advance(self) -> None:
        """Count a step of every parameter that has a gradient, after `update` has moved them."""
        for group, blocks in zip(self.param_groups, self._blocks, strict=True):
            for block in blocks:
                block.count(self.counts(group))
                if any(step and step % _STEPS_TO_FLUSH == 0 for step in block.steps):
                    for array in block.state:
                        array[np.abs(array) < np.finfo(array.dtype).tiny] = 0

    def check(self, group: dict[str, Any]) -> None:
        """Raise a ValueError or TypeError if an option of `group` is out of range."""
        group["lr"] = number(group["lr"], f"{self._name}: lr", minimum=0)

    def counts(self, group: dict[str, Any]) -> bool:
        """Whether a step with these options counts in the `step` that `update` gets."""
        return True

    def update(
        self, group: dict[str, Any], step: int, value: Array, grad: Array, *state: Array
    ) -> None:
        """Move `value` in place, given its gradient; change `state` in place; leave `grad` alone.

        Parameters
        ----------
        group : dict
            The options.
        step : int
            How many steps that count have moved these values before.
        value, grad, *state : ndarray, one-dimensional
            A piece of the parameters, of their gradients and of each array of `state_names`.
        """
        raise NotImplementedError(f"{self._name} does not define update")

    def state_dict(self) -> dict[str, Any]:
        """Return what `load_state_dict` needs to go on from here, laid out as in PyTorch.

        Returns
        -------
        dict
            "state": for the index of each parameter that has moved, "step" and a copy of each array
            of `state_names`. "param_groups": the options of each group, with the indices of its
            parameters as "params".

        Examples
        --------
        >>> import nnlite as nn
        >>> p = nn.Parameter([1.0, 2.0])
        >>> optimizer = nn.SGD([p], lr=0.1, momentum=0.9)
        >>> p.accumulate([1.0, -1.0])
        >>> optimizer.step()
        >>> optimizer.state_dict()["state"]
        {0: {'step': 1, 'momentum_buffer': array([ 1., -1.], dtype=float32)}}
        """
        index = {id(parameter): place for place, parameter in enumerate(self._parameters())}
        state = {}
        for block in itertools.chain.from_iterable(self._blocks):
            for parameter, step, (start, stop) in zip(
                block.parameters, block.steps, block.bounds, strict=True
            ):
                parts = [array[start:stop].reshape(parameter.shape) for array in block.state]
                if step or any(part.any() for part in parts):
                    arrays = {
                        name: part.copy()
                        for name, part in zip(self.state_names, parts, strict=True)
                    }
                    state[index[id(parameter)]] = {"step": step, **arrays}
        groups = []
        for group in self.param_groups:
            options = {name: value for name, value in group.items() if name != "params"}
            options["params"] = [index[id(parameter)] for parameter in group["params"]]
            groups.append(options)
        return {"state": dict(sorted(state.items())), "param_groups": groups}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from where `state_dict` was taken, with its options in every group.

        Parameters
        ----------
        state_dict : mapping
            As `state_dict` returns it; or that of the same optimizer of PyTorch. Options that only
            PyTorch has must be off.

        Raises
        ------
        TypeError, ValueError
            If it is not the state of such an optimizer of as many parameters, of the same shapes
            and in the same groups. Nothing is changed then.
        """
        groups, indices = self._checked_groups(state_dict)
        states = self._checked_states(state_dict["state"], indices)
        for group, options in zip(self.param_groups, groups, strict=True):
            group.clear()
            group.update(options)
        for block in itertools.chain.from_iterable(self._blocks):
            for place, (parameter, (start, stop)) in enumerate(
                zip(block.parameters, block.bounds, strict=True)
            ):
                block.steps[place], arrays = states[id(parameter)]
                for flat, array in zip(block.state, arrays, strict=True):
                    flat[start:stop] = 0 if array is None else array.reshape(-1)

    def _parameters(self) -> list[Parameter]:
        return [parameter for group in self.param_groups for parameter in group["params"]]

    def _checked_groups(self, state_dict: Any) -> tuple[list[dict[str, Any]], list[Any]]:
        """Return the groups as they will be, and the state's index of each parameter."""
        if not isinstance(state_dict, Mapping) or not {"state", "param_groups"} <= set(state_dict):
            raise TypeError(f"{self._name}: expected the state_dict of an optimizer")
        given = state_dict["param_groups"]
        if not isinstance(given, (list, tuple)) or len(given) != len(self.param_groups):
            count = len(given) if isinstance(given, (list, tuple)) else "no"
            raise ValueError(
                f"{self._name}: the state is of {count} parameter groups, "
                f"the optimizer has {len(self.param_groups)}"
            )
        groups: list[dict[str, Any]] = []
        indices: list[Any] = []
        for place, (item, group) in enumerate(zip(given, self.param_groups, strict=True)):
            what = f"{self._name}: group {place} of the state"
            numbers = item.get("params") if isinstance(item, Mapping) else None
            if not isinstance(numbers, (list, tuple)) or len(numbers) != len(group["params"]):
                count = len(numbers) if isinstance(numbers, (list, tuple)) else "no"
                raise ValueError(
                    f"{what} has {count} parameters, that of the optimizer {len(group['params'])}"
                )
            options = {name: value for name, value in item.items() if name != "params"}
            for name in set(options) - {*group, "initial_lr"}:
                # What is off in PyTorch, or is what this optimizer always does.
                if not any(options[name] is off for off in (False, None, self._implied.get(name))):
                    raise ValueError(f"{what} has the unknown option {name!r}")
                del options[name]
            for name, value in group.items():
                if name in ("params", "initial_lr"):
                    continue
                if name not in options:
                    raise ValueError(f"{what} lacks the option {name!r}")
                if isinstance(value, bool) != isinstance(options[name], bool):
                    raise TypeError(f"{what}: {name} cannot be {options[name]!r:.80}")
            if "initial_lr" in options:
                options["initial_lr"] = number(options["initial_lr"], f"{what}: initial_lr", 0)
            options = {"params": group["params"], **options}
            self.check(options)
            groups.append(options)
            indices += numbers
        return groups, indices

    def _checked_states(
        self, given: Any, indices: list[Any]
    ) -> dict[int, tuple[int, list[Array | None]]]:
        """Return, by the id of each parameter, its number of steps and its arrays."""
        known = set(indices) if all(isinstance(index, int) for index in indices) else set()
        if len(known) != len(indices) or not isinstance(given, Mapping) or set(given) - known:
            raise ValueError(f"{self._name}: the state is not of the parameters that it lists")
        states = {}
        for place, (index, parameter) in enumerate(zip(indices, self._parameters(), strict=True)):
            what = f"{self._name}: the state of parameter {place}"
            entry = given.get(index, {})
            if not isinstance(entry, Mapping):
                raise TypeError(f"{what} is no mapping")
            arrays = [
                _checked_part(entry.get(name), parameter, f"{what}: {name}")
                for name in self.state_names
            ]
            # PyTorch's SGD does not count.
            step = entry.get("step", int(any(array is not None for array in arrays)))
            steps = number(step, f"{what}: step", minimum=0)
            if steps != int(steps):
                raise ValueError(f"{what}: step must be a whole number, got {steps}")
            states[id(parameter)] = int(steps), arrays
        return states

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

    def counts(self, group: dict[str, Any]) -> bool:
        return bool(group["momentum"])  # the direction begins with the first step that has one

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


class Adam(Optimizer):
    """Adaptive moments: each step is scaled by how large and how steady the gradient has been.

    Parameters
    ----------
    params : iterable of Parameter, or iterable of dict
        ``model.parameters()``, or groups with options of their own: see `Optimizer`.
    lr : float, default 1e-3
        Learning rate, at least 0.
    betas : pair of float in [0, 1), default (0.9, 0.999)
        Shares of the mean gradient and of the mean squared gradient that are kept.
    eps : float, default 1e-8
        Added to the root of the mean square, so that nothing is divided by 0.
    weight_decay : float, default 0
        Factor λ of the penalty (λ/2)·‖θ‖² that is added to the loss; see `AdamW` for another way.

    Raises
    ------
    ValueError
        If an option is out of range.

    Notes
    -----
    With parameter θ, gradient g and step t = 1, 2, …, as in PyTorch::

        g ← g + weight_decay · θ
        m ← β₁ m + (1 - β₁) g
        v ← β₂ v + (1 - β₂) g²
        θ ← θ - lr · (m / (1 - β₁ᵗ)) / (√(v / (1 - β₂ᵗ)) + eps)

    References
    ----------
    D. Kingma, J. Ba, "Adam: a method for stochastic optimization", ICLR 2015.

    Examples
    --------
    >>> import nnlite as nn
    >>> p = nn.Parameter([1.0, 2.0])
    >>> optimizer = nn.Adam([p], lr=0.1)
    >>> p.accumulate([0.5, -20.0])
    >>> optimizer.step()  # the first step is lr long, whatever the gradient
    >>> p.data
    array([0.9, 2.1], dtype=float32)
    """

    state_names = ("exp_avg", "exp_avg_sq")

    def __init__(
        self,
        params: Iterable[Parameter] | Iterable[Mapping[str, Any]],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(
            params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        )

    def check(self, group: dict[str, Any]) -> None:
        super().check(group)
        for name in ("eps", "weight_decay"):
            group[name] = number(group[name], f"{self._name}: {name}", minimum=0)
        try:
            first, second = group["betas"]
        except (TypeError, ValueError):
            raise TypeError(
                f"{self._name}: betas must be a pair of numbers, got {group['betas']!r}"
            ) from None
        group["betas"] = (
            fraction(first, f"{self._name}: the first of betas"),
            fraction(second, f"{self._name}: the second of betas"),
        )

    def update(
        self, group: dict[str, Any], step: int, value: Array, grad: Array, *state: Array
    ) -> None:
        if group["weight_decay"]:
            grad = grad + group["weight_decay"] * value
        self._move(group, step, value, grad, *state)

    def _move(
        self,
        group: dict[str, Any],
        step: int,
        value: Array,
        grad: Array,
        mean: Array,
        square: Array,
    ) -> None:
        first, second = group["betas"]
        change = grad - mean
        # Of two ways to say the same, the one that keeps the smaller share of the rounding.
        if first > 0.5:
            change *= 1 - first
            mean += change
        else:
            change *= first
            np.subtract(grad, change, out=mean)
        np.multiply(grad, grad, out=change)
        change *= 1 - second
        square *= second
        square += change
        np.sqrt(square, out=change)
        change *= 1 / math.sqrt(1 - second ** (step + 1))
        change += group["eps"]
        np.divide(mean, change, out=change)
        change *= group["lr"] / (1 - first ** (step + 1))
        value -= change


class AdamW(Adam):
    """Adam with decoupled weight decay: the parameters shrink by themselves, not by the gradient.

    Parameters
    ----------
    params, lr, betas, eps
        As for `Adam`.
    weight_decay : float, default 0.01
        Share of the parameter, times the learning rate, that each step takes away.

    Notes
    -----
    In place of adding ``weight_decay · θ`` to the gradient, as `Adam` does::

        θ ← θ - lr · weight_decay · θ

    goes before each step.

    References
    ----------
    I. Loshchilov, F. Hutter, "Decoupled weight decay regularization", ICLR 2019.

    Examples
    --------
    >>> import nnlite as nn
    >>> p = nn.Parameter([1.0])
    >>> optimizer = nn.AdamW([p], lr=0.1, weight_decay=0.5)
    >>> p.accumulate([0.0])
    >>> optimizer.step()
    >>> p.data  # 1 - 0.1 · 0.5
    array([0.95], dtype=float32)
    """

    _implied: Mapping[str, Any] = {"decoupled_weight_decay": True}

    def __init__(
        self,
        params: Iterable[Parameter] | Iterable[Mapping[str, Any]],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay)

    def update(
        self, group: dict[str, Any], step: int, value: Array, grad: Array, *state: Array
    ) -> None:
        if group["weight_decay"]:
            value *= 1 - group["lr"] * group["weight_decay"]
        self._move(group, step, value, grad, *state)


class RMSprop(Optimizer):
    """Each step is scaled by the root of the mean squared gradient.

    Parameters
    ----------
    params : iterable of Parameter, or iterable of dict
        ``model.parameters()``, or groups with options of their own: see `Optimizer`.
    lr : float, default 1e-2
        Learning rate, at least 0.
    alpha : float in [0, 1), default 0.99
        Share of the mean squared gradient that is kept.
    eps : float, default 1e-8
        Added to the root, so that nothing is divided by 0.
    weight_decay : float, default 0
        Factor λ of the penalty (λ/2)·‖θ‖² that is added to the loss.
    momentum : float, default 0
        Share of the last step that is kept.
    centered : bool, default False
        Whether to scale by the standard deviation of the gradient in place of its mean square.

    Raises
    ------
    ValueError
        If an option is out of range.

    Notes
    -----
    With parameter θ and gradient g, as in PyTorch::

        g ← g + weight_decay · θ
        v ← alpha · v + (1 - alpha) · g²
        a ← alpha · a + (1 - alpha) · g                    if centered
        d ← √v + eps                                       or √(v - a²) + eps, if centered
        b ← momentum · b + g / d
        θ ← θ - lr · b

    References
    ----------
    G. Hinton, "Neural networks for machine learning", lecture 6e, 2012.

    Examples
    --------
    >>> import nnlite as nn
    >>> p = nn.Parameter([1.0])
    >>> optimizer = nn.RMSprop([p], lr=0.01)
    >>> p.accumulate([3.0])
    >>> optimizer.step()  # 3 / √(0.01 · 3²) is 10
    >>> p.data
    array([0.9], dtype=float32)
    """

    state_names = ("square_avg", "grad_avg", "momentum_buffer")

    def __init__(
        self,
        params: Iterable[Parameter] | Iterable[Mapping[str, Any]],
        lr: float = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
        centered: bool = False,
    ) -> None:
        super().__init__(
            params,
            {
                "lr": lr,
                "alpha": alpha,
                "eps": eps,
                "weight_decay": weight_decay,
                "momentum": momentum,
                "centered": centered,
            },
        )

    def check(self, group: dict[str, Any]) -> None:
        super().check(group)
        group["alpha"] = fraction(group["alpha"], "RMSprop: alpha")
        for name in ("eps", "weight_decay", "momentum"):
            group[name] = number(group[name], f"RMSprop: {name}", minimum=0)

    def update(
        self, group: dict[str, Any], step: int, value: Array, grad: Array, *state: Array
    ) -> None:
        square, mean, buffer = state
        alpha = group["alpha"]
        if group["weight_decay"]:
            grad = grad + group["weight_decay"] * value
        square *= alpha
        square += (1 - alpha) * (grad * grad)
        variance = square
        if group["centered"]:
            mean += (1 - alpha) * (grad - mean)
            variance = square - mean * mean
        scale = np.sqrt(variance)
        scale += group["eps"]
        change = grad / scale
        if group["momentum"]:
            buffer *= group["momentum"]
            buffer += change
            change = buffer
        value -= group["lr"] * change


def _checked_part(value: Any, parameter: Parameter, what: str) -> Array | None:
    """Return an array of a state, or None where it has none, having checked that it fits."""
    if value is None:
        return None
    array = np.asarray(value)
    if array.dtype.kind != "f":
        raise TypeError(f"{what} must be of floats, got dtype {array.dtype}")
    if array.shape != parameter.shape:
        raise ValueError(
            f"{what} is of shape {array.shape}, the parameter of shape {parameter.shape}"
        )
    return array
