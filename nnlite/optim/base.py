"""``Optimizer``: groups of parameters, their options and state, and the step over flat arrays.

The parameters of a group lie one after the other in one flat array, and so do their gradients and
the optimizer's state; ``Parameter.data`` and ``Parameter.grad`` are views of them. A step is
therefore a few NumPy operations, however many parameters there are.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from ..checks import boolean, number
from ..engine.arrays import Array
from ..hints import Hinted
from ..parameter import Parameter
from ..processes import ALONE, Processes
from ..tables import Table, short
from .flat import FlatBlock, by_dtype
from .state import checked_groups, checked_states

# A step goes through the flat arrays in pieces of this many elements, which stay in the processor's
# cache from the first operation of the update rule to the last.
_PIECE = 32768


class Run(NamedTuple):
    """A stretch of the flat arrays whose parameters have gradients and equal numbers of steps.

    Attributes
    ----------
    group : dict
        The options.
    step : int
        The number of steps counted so far.
    value, grad : ndarray, one-dimensional
        Or of a parameter's shape, if `Optimizer.by_parameter` is set.
    state : list of ndarray
        The arrays of `Optimizer.state_names`.
    """

    group: dict[str, Any]
    step: int
    value: Array
    grad: Array
    state: list[Array]


class Optimizer(Hinted):
    """Base class: the parameters in groups, each with its own options.

    An optimizer of your own passes its default options to `__init__`, names the arrays that it
    keeps for each parameter in `state_names`, and defines `update`.

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
        `step` on. Parameters are added with `add_param_group` only.
    defaults : dict
        The options of a group that does not set them.
    state_names : tuple of str
        The arrays kept for each parameter, of its shape, zero at first. Subnormal elements are
        flushed to zero from time to time, since arithmetic on them is slow.
    by_parameter : bool
        Whether `update` gets each parameter by itself, in its shape. By default it gets pieces of
        flat arrays, in which many parameters lie.
    needs_closure : bool
        Whether `step` needs a function that evaluates the loss again.

    Raises
    ------
    TypeError
        If something other than parameters is given.
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

    Groups have their own options:

    >>> model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    >>> optimizer = nn.SGD([
    ...     {"params": model[0].parameters(), "lr": 0.01},
    ...     {"params": model[1].parameters()},
    ... ], lr=0.1)
    >>> [group["lr"] for group in optimizer.param_groups]
    [0.01, 0.1]
    """

    state_names: tuple[str, ...] = ()
    by_parameter: bool = False
    needs_closure: bool = False
    param_groups: list[dict[str, Any]]
    defaults: dict[str, Any]

    # Those that sum their gradients, and whether they have done so since the last step.
    processes: Processes = ALONE
    _synchronized = False

    # Replaced when steps have been counted, or loaded.
    latest_step: object = None

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
        self.defaults = dict(defaults)
        self.param_groups = []
        self._blocks: list[list[FlatBlock]] = []
        # Copies of the groups as they were laid out and checked, to find changes made by hand.
        self._checked: list[dict[str, Any]] = []
        given = list(params)
        if not any(isinstance(item, Mapping) for item in given):
            given = [{"params": given}]
        self._add([self._group(item) for item in given])

    def add_param_group(self, param_group: Mapping[str, Any]) -> None:
        """Add parameters that came later; the others keep their options and state.

        Parameters
        ----------
        param_group : dict
            "params" and the options that differ from `defaults`.

        Raises
        ------
        TypeError, ValueError
            As when the optimizer is made. Nothing is changed then.

        Examples
        --------
        >>> import nnlite as nn
        >>> model = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2))
        >>> optimizer = nn.Adam(model[2].parameters())
        >>> optimizer.add_param_group({"params": model[0].parameters(), "lr": 1e-4})
        >>> [group["lr"] for group in optimizer.param_groups]
        [0.001, 0.0001]
        """
        self.checked_groups()
        self._add([self._group(param_group)])

    def _group(self, item: Any) -> dict[str, Any]:
        """Return a group with all its options, having checked it."""
        if not isinstance(item, Mapping) or "params" not in item:
            raise TypeError(
                f'{self._name}: expected parameters, or dicts with "params"; got {item!r}'
            )
        known = {"params", "initial_lr", *self.defaults}
        unknown = [name for name in item if name not in known]
        if unknown:
            raise ValueError(
                f"{self._name}: unknown option {unknown[0]!r}; it has {', '.join(self.defaults)}"
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
        group = {**self.defaults, **item, "params": params}
        self.check(group)
        return group

    def _add(self, groups: list[dict[str, Any]]) -> None:
        """Add groups, having checked that no parameter is in two."""
        everything = [p for group in (*self.param_groups, *groups) for p in group["params"]]
        if len({id(parameter) for parameter in everything}) != len(everything):
            raise ValueError(f"{self._name}: a parameter is given more than once")
        for group in groups:
            self.param_groups.append(group)
            self._checked = [*self._checked, _copied(group)]
            self._blocks.append([self._block(members) for members in by_dtype(group["params"])])

    def _block(self, parameters: list[Parameter]) -> FlatBlock:
        state = [[np.zeros_like(p.data) for p in parameters] for _ in self.state_names]
        return FlatBlock(parameters, [0] * len(parameters), state)

    @property
    def _name(self) -> str:
        return type(self).__name__

    @property
    def lr(self) -> float:
        """The learning rate of the first group; setting it sets that of every group."""
        return float(self.param_groups[0]["lr"])

    @lr.setter
    def lr(self, value: float) -> None:
        value = number(value, f"{self._name}: lr", minimum=0)
        for group in self.param_groups:
            group["lr"] = value

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients of all parameters: `grad` is None until the next backward.

        With ``set_to_none=False`` it is zero instead.
        """
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.zero_grad(set_to_none)
        self._synchronized = False

    # ---- the step ----

    def synchronize(self) -> None:
        """Sum the gradients over all processes, if there are several.

        `step` does it, unless it is done before, in order to clip or read the gradients.
        """
        if not self._synchronized:
            self.processes.sum_gradients(self)
            self._synchronized = True

    def step(self) -> None:
        """Move every parameter that has a gradient; the others keep their value and state.

        Raises
        ------
        TypeError, ValueError
            If an option has been set out of range, or if `param_groups` has other parameters than
            were given. No parameter of any group has moved then.
        """
        self.synchronize()
        for group, step, value, grad, state in self.runs():
            if group.get("maximize"):
                grad = -grad
            if value.size <= _PIECE or self.by_parameter:
                self.update(group, step, value, grad, *state)
                continue
            for low in range(0, value.size, _PIECE):
                piece = slice(low, low + _PIECE)
                self.update(group, step, value[piece], grad[piece], *[a[piece] for a in state])
        self.advance()

    def runs(self) -> list[Run]:
        """Return the stretches of the flat arrays that `step` moves, having checked all groups."""
        self.checked_groups()
        for blocks in self._blocks:
            blocks[:] = [part for block in blocks for part in block.gathered()]
        runs = self._runs_by_parameter if self.by_parameter else self._flat_runs
        return [
            run
            for group, blocks in zip(self.param_groups, self._blocks, strict=True)
            for block in blocks
            for run in runs(group, block)
        ]

    def _flat_runs(self, group: dict[str, Any], block: FlatBlock) -> Iterator[Run]:
        for step, start, stop in block.runs():
            state = [array[start:stop] for array in block.state]
            yield Run(group, step, block.values[start:stop], block.grads[start:stop], state)

    def _runs_by_parameter(self, group: dict[str, Any], block: FlatBlock) -> Iterator[Run]:
        for place, parameter in enumerate(block.parameters):
            if parameter.is_moving:
                start, stop = block.bounds[place]
                value, grad, *state = (
                    array[start:stop].reshape(parameter.shape)
                    for array in (block.values, block.grads, *block.state)
                )
                yield Run(group, block.steps[place], value, grad, state)

    def advance(self) -> None:
        """Count a step of every parameter that has a gradient."""
        for group, blocks in zip(self.param_groups, self._blocks):  # noqa: B905 - quicker
            if self.counts(group):
                for block in blocks:
                    block.count()
        self._synchronized = False
        self.latest_step = object()

    def take_back(self) -> None:
        """Count one step less, after one that `advance` has counted could not be made.

        :meta private:
        """
        for group, blocks in zip(self.param_groups, self._blocks, strict=True):
            if self.counts(group):
                for block in blocks:
                    block.take_back()
        self.latest_step = object()

    def steps_to_flush(self) -> int:
        """Return the number of steps until subnormals are flushed: see `state_names`.

        :meta private:
        """
        return min(block.steps_to_flush() for blocks in self._blocks for block in blocks)

    def checked_groups(self) -> list[dict[str, Any]]:
        """Return copies of the groups, having checked changes made by hand since the last step.

        While nothing is changed, it is the same list.
        """
        try:
            if self.param_groups == self._checked:
                return self._checked
        except ValueError:  # an option is an array, which does not compare to one bool
            pass
        if len(self.param_groups) != len(self._checked):
            raise ValueError(
                f"{self._name}: param_groups has {len(self.param_groups)} groups, the optimizer "
                f"was given {len(self._checked)}; add one with add_param_group"
            )
        for place, group in enumerate(self.param_groups):
            self._check_group(place, group)
        self._checked = [_copied(group) for group in self.param_groups]
        return self._checked

    def _check_group(self, place: int, group: dict[str, Any]) -> None:
        if group.get("params") != self._checked[place]["params"]:
            raise ValueError(
                f"{self._name}: the parameters of group {place} are not those that the optimizer "
                f"was given; add parameters with add_param_group"
            )
        lacking = [name for name in self.defaults if name not in group]
        if lacking:
            raise ValueError(f"{self._name}: group {place} lacks the option {lacking[0]!r}")
        self.check(group)

    # ---- what an optimizer of your own defines ----

    def check(self, group: dict[str, Any]) -> None:
        """Raise a ValueError or TypeError if an option of `group` is out of range."""
        group["lr"] = number(group["lr"], f"{self._name}: lr", minimum=0)
        if "maximize" in group:
            group["maximize"] = boolean(group["maximize"], f"{self._name}: maximize")

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
            The number of steps, of those that count, that have moved these values before.
        value, grad, *state : ndarray, one-dimensional
            A piece of the parameters, of their gradients and of each array of `state_names`. With
            the option "maximize", the gradients are negated.
        """
        raise NotImplementedError(f"{self._name} does not define update")

    # ---- state ----

    def state_dict(self) -> dict[str, Any]:
        """Return the state, laid out as in PyTorch, for `load_state_dict`.

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
        self.checked_groups()
        index = {id(parameter): place for place, parameter in enumerate(self.parameters())}
        state = {}
        for block in self._all_blocks():
            flats = [block.parts(array) for array in block.state]
            for place, (parameter, step) in enumerate(
                zip(block.parameters, block.steps, strict=True)
            ):
                arrays = {
                    name: parts[place].reshape(parameter.shape).copy()
                    for name, parts in zip(self.state_names, flats, strict=True)
                }
                if step or any(array.any() for array in arrays.values()):
                    state[index[id(parameter)]] = {"step": step, **arrays}
        groups = []
        for group in self.param_groups:
            options = {name: value for name, value in group.items() if name != "params"}
            options["params"] = [index[id(parameter)] for parameter in group["params"]]
            groups.append(options)
        return {"state": dict(sorted(state.items())), "param_groups": groups}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restore a state, including the options of every group.

        Parameters
        ----------
        state_dict : mapping
            As `state_dict` returns it; or that of the same optimizer of PyTorch. Options that only
            PyTorch has must be off.

        Raises
        ------
        TypeError, ValueError
            If it is not the state of such an optimizer with the same number of parameters, of the
            same shapes and in the same groups. Nothing is changed then.
        """
        self.checked_groups()
        groups, indices = checked_groups(self, state_dict)
        states = checked_states(self, state_dict["state"], indices)
        for group, options in zip(self.param_groups, groups, strict=True):
            group.clear()
            group.update(options)
        for block in self._all_blocks():
            for place, (parameter, (start, stop)) in enumerate(
                zip(block.parameters, block.bounds, strict=True)
            ):
                block.steps[place], arrays = states[id(parameter)]
                for flat, array in zip(block.state, arrays, strict=True):
                    flat[start:stop] = 0 if array is None else array.reshape(-1)
        self.latest_step = object()

    def parameters(self) -> list[Parameter]:
        """Return the parameters of all groups."""
        return [parameter for group in self.param_groups for parameter in group["params"]]

    def _all_blocks(self) -> Iterator[FlatBlock]:
        return itertools.chain.from_iterable(self._blocks)

    def __repr__(self) -> str:
        options = [
            ", ".join(f"{name}={value!r}" for name, value in group.items() if name != "params")
            for group in self.param_groups
        ]
        return f"{self._name}({'; '.join(options)})"

    def _repr_html_(self) -> str:
        names = ("parameters", *(name for name in self.param_groups[0] if name != "params"))
        rows = [
            (str(len(group["params"])), *(short(group.get(name)) for name in names[1:]))
            for group in self.param_groups
        ]
        return Table(names, rows, title=self._name).to_html()


def _copied(group: dict[str, Any]) -> dict[str, Any]:
    return {**group, "params": list(group["params"])}
