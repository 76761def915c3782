"""``LBFGS``: a quasi-Newton method for full batches, with a strong-Wolfe line search."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from ..checks import integer, number, one_of
from ..engine.arrays import Array
from ..engine.blas import vdot
from ..parameter import Parameter
from .base import Optimizer
from .flat import FlatBlock
from .state import checked_groups

# The constants of the Wolfe conditions: the least decrease, and the largest slope that is left.
_DECREASE, _CURVATURE = 1e-4, 0.9

# An objective along a direction: from a step length to the loss and its gradient there.
Objective = Callable[[float], tuple[float, Array]]


class LBFGS(Optimizer):
    """Quasi-Newton steps from the last gradients: for small problems on the whole batch.

    `step` takes a closure, which is called several times in a step. It clears the gradients,
    computes the loss and its gradients, and returns the loss.

    Parameters
    ----------
    params : iterable of Parameter
        Of one dtype; there are no groups.
    lr : float, default 1
        Length of a step in units of the quasi-Newton step, or with a line search the first trial.
    max_iter : int, default 20
        Largest number of iterations in a step.
    max_eval : int, optional
        Largest number of calls of the closure in a step; by default 1.25 `max_iter`.
    tolerance_grad : float, default 1e-7
        The step ends when no element of the gradient is larger.
    tolerance_change : float, default 1e-9
        The step ends when neither the loss nor any parameter changes by more.
    history_size : int, default 100
        Number of gradients that the curvature is estimated from.
    line_search_fn : {"strong_wolfe"}, optional
        By default there is no line search, and each step has the length `lr`.

    Raises
    ------
    TypeError
        If `step` is called without a closure, or the closure does not return a number.
    ValueError
        If an option is out of range, or there are several groups or dtypes. If the closure fails,
        parameters and state are as they were before the step.

    Notes
    -----
    With y and s the last changes of gradient and parameters, as in PyTorch::

        d = -H g                H from pairs (y, s) with y·s > 1e-10, by the two-loop recursion,
                                and from H₀ = (y·s / y·y) I
        θ ← θ + t d             t = lr; or from the line search, with
                                f(θ + t d) ≤ f(θ) + 1e-4 t g·d  and  |g(θ + t d)·d| ≤ 0.9 |g·d|

    In the very first step, d = -g and t = min(1, 1 / Σ|g|) lr.

    References
    ----------
    J. Nocedal, S. Wright, "Numerical optimization", Springer 2006, algorithms 7.4, 3.5 and 3.6.

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> x = np.linspace(-1, 1, 20)[:, None]
    >>> y = 3 * x + 1
    >>> model = nn.Linear(1, 1, rng=0).astype(np.float64)
    >>> loss = nn.MeanSquaredError()
    >>> optimizer = nn.LBFGS(model.parameters(), line_search_fn="strong_wolfe")
    >>> def closure():
    ...     optimizer.zero_grad()
    ...     value = loss(model(x), y)
    ...     model.backward(loss.backward())
    ...     return value
    >>> first = optimizer.step(closure)
    >>> model.weight.data.round(4), model.bias.data.round(4)
    (array([[3.]]), array([1.]))
    """

    needs_closure = True

    def __init__(
        self,
        params: Iterable[Parameter] | Iterable[Mapping[str, Any]],
        lr: float = 1.0,
        max_iter: int = 20,
        max_eval: int | None = None,
        tolerance_grad: float = 1e-7,
        tolerance_change: float = 1e-9,
        history_size: int = 100,
        line_search_fn: str | None = None,
    ) -> None:
        max_iter = integer(max_iter, "LBFGS: max_iter")
        super().__init__(
            params,
            {
                "lr": lr,
                "max_iter": max_iter,
                "max_eval": max_iter * 5 // 4 if max_eval is None else max_eval,
                "tolerance_grad": tolerance_grad,
                "tolerance_change": tolerance_change,
                "history_size": history_size,
                "line_search_fn": line_search_fn,
            },
        )
        self._memory = _Memory()

    def _add(self, groups: list[dict[str, Any]]) -> None:
        if len(self.param_groups) + len(groups) > 1:
            raise ValueError("LBFGS: there is one group of parameters, with the same options")
        super()._add(groups)
        self._block_of_all()

    def _block_of_all(self) -> FlatBlock:
        """Return the flat arrays, with values and gradients in them."""
        self._blocks[0][:] = [part for block in self._blocks[0] for part in block.gathered()]
        if len(self._blocks[0]) > 1:
            raise ValueError("LBFGS: the parameters are of several dtypes; use model.astype")
        return self._blocks[0][0]

    def check(self, group: dict[str, Any]) -> None:
        super().check(group)
        for name in ("max_iter", "max_eval", "history_size"):
            group[name] = integer(group[name], f"LBFGS: {name}")
        for name in ("tolerance_grad", "tolerance_change"):
            group[name] = number(group[name], f"LBFGS: {name}", minimum=0)
        if group["line_search_fn"] is not None:
            one_of(group["line_search_fn"], ("strong_wolfe",), "LBFGS: line_search_fn")

    def step(self, closure: Callable[[], float] | None = None) -> float:  # type: ignore[override]
        """Make up to `max_iter` iterations.

        Parameters
        ----------
        closure : callable
            Clears the gradients, computes the loss and its gradients, and returns the loss.

        Returns
        -------
        float
            The loss before the step.
        """
        if not callable(closure):
            raise TypeError(
                "LBFGS: step needs a closure, a function without arguments that clears the "
                "gradients, computes the loss, calls backward and returns the loss"
            )
        (group,) = self.checked_groups()
        block = self._block_of_all()
        start, memory = block.values.copy(), self._memory
        try:
            loss = self._iterate(group, closure, memory.copy())
        except BaseException:
            block.values[...] = start
            raise
        self.advance()
        return loss

    def _iterate(
        self, group: dict[str, Any], closure: Callable[[], float], memory: _Memory
    ) -> float:
        """Make the iterations of a step, keep the new memory, and return the first loss."""
        first, gradient = self._evaluate(closure)
        memory.func_evals += 1
        loss, evaluations, iterations = first, 1, 0
        done = _largest(gradient) <= group["tolerance_grad"]
        while not done:
            iterations += 1
            memory.n_iter += 1
            d = memory.direction(gradient, group["history_size"])
            memory.prev_flat_grad, memory.prev_loss = gradient, loss
            length = group["lr"]
            if memory.n_iter == 1:
                length *= min(1.0, 1.0 / float(np.abs(gradient).sum()))
            slope = vdot(gradient, d)
            memory.d, memory.t = d, length
            if slope > -group["tolerance_change"]:
                break
            values = self._block_of_all().values
            last = iterations == group["max_iter"]
            used = 0
            if group["line_search_fn"] is None:
                values += length * d
                if not last:  # with random batches there is no use for another evaluation
                    loss, gradient = self._evaluate(closure)
                    used = 1
            else:
                start = Point(0.0, loss, gradient, slope)
                point, used = strong_wolfe(
                    self._along(closure, d), start, length, d, group["max_eval"] - evaluations,
                    group["tolerance_change"],
                )  # fmt: skip
                loss, gradient, memory.t = point.loss, point.gradient, point.t
                values += point.t * d
            evaluations += used
            memory.func_evals += used
            done = (
                last
                or evaluations >= group["max_eval"]
                or _largest(gradient) <= group["tolerance_grad"]
                or _largest(memory.t * d) <= group["tolerance_change"]
                or abs(loss - memory.prev_loss) < group["tolerance_change"]
            )
        self._memory = memory
        return first

    def _evaluate(self, closure: Callable[[], float]) -> tuple[float, Array]:
        """Call the closure; return the loss and the gradient of all parameters."""
        name = "LBFGS: the loss that the closure returns"
        (loss,) = self.processes.sum(lambda: [number(closure(), name)])
        self._synchronized = False
        self.synchronize()
        block = self._block_of_all()
        gradient = np.zeros_like(block.values)
        for parameter, (start, stop) in zip(block.parameters, block.bounds, strict=True):
            if parameter.is_moving:
                gradient[start:stop] = block.grads[start:stop]
        return loss, gradient

    def _along(self, closure: Callable[[], float], d: Array) -> Objective:
        """Return the loss and its gradient as a function of the length of the step along d."""

        def objective(t: float) -> tuple[float, Array]:
            values = self._block_of_all().values
            start = values.copy()
            values += t * d
            result = self._evaluate(closure)
            values[...] = start
            return result

        return objective

    def state_dict(self) -> dict[str, Any]:
        """Return the state, laid out as in PyTorch: that of all parameters is of the first."""
        (group,) = self.checked_groups()
        options = {name: value for name, value in group.items() if name != "params"}
        options["params"] = list(range(len(group["params"])))
        state = {0: self._memory.state_dict()} if self._memory.func_evals else {}
        return {"state": state, "param_groups": [options]}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restore a state, including the options.

        Raises
        ------
        TypeError, ValueError
            If it is not the state of such an optimizer of as many elements. Nothing is changed
            then.
        """
        groups, _ = checked_groups(self, state_dict)
        states = state_dict["state"]
        if not isinstance(states, Mapping) or set(states) - {0}:
            raise ValueError("LBFGS: the state must be that of the first parameter alone")
        memory = _Memory()
        if states:
            memory = _Memory.of_state(states[0], self._block_of_all().values)
        self.param_groups[0].clear()
        self.param_groups[0].update(groups[0])
        self._memory = memory
        self.latest_step = object()


class _Memory:
    """What LBFGS keeps from one iteration to the next, by PyTorch's names.

    Attributes
    ----------
    func_evals, n_iter : int
        The numbers of evaluations and of iterations.
    d : ndarray
        The last direction.
    t : float
        The last length of a step.
    old_dirs, old_stps : list of ndarray
        The last changes of the gradient, and of the parameters.
    ro : list of float
        1 / (y·s) of each pair of them.
    H_diag : float
    prev_flat_grad : ndarray
    prev_loss : float
    """

    _arrays = ("d", "prev_flat_grad")
    _lists = ("old_dirs", "old_stps")
    _numbers = ("t", "H_diag", "prev_loss")
    _counts = ("func_evals", "n_iter")

    def __init__(self) -> None:
        self.func_evals = self.n_iter = 0
        self.d = self.prev_flat_grad = np.zeros(0)
        self.t = self.prev_loss = 0.0
        self.H_diag = 1.0
        self.old_dirs: list[Array] = []
        self.old_stps: list[Array] = []
        self.ro: list[float] = []

    def copy(self) -> _Memory:
        """Return a copy whose lists can be changed."""
        twin = _Memory()
        vars(twin).update(vars(self))
        twin.old_dirs, twin.old_stps, twin.ro = [*self.old_dirs], [*self.old_stps], [*self.ro]
        return twin

    def direction(self, gradient: Array, history_size: int) -> Array:
        """Return -H g, having put the last step into the memory."""
        if self.n_iter == 1:
            return -gradient
        y, s = gradient - self.prev_flat_grad, self.d * self.t
        ys = vdot(y, s)
        if ys > 1e-10:
            surplus = max(0, len(self.ro) - history_size + 1)
            del self.old_dirs[:surplus], self.old_stps[:surplus], self.ro[:surplus]
            self.old_dirs.append(y)
            self.old_stps.append(s)
            self.ro.append(1.0 / ys)
            self.H_diag = ys / vdot(y, y)
        q = -gradient
        alphas = []
        pairs = list(zip(self.old_dirs, self.old_stps, self.ro, strict=True))
        for y, s, ro in reversed(pairs):
            alphas.append(vdot(s, q) * ro)
            q -= alphas[-1] * y
        q *= self.H_diag
        for (y, s, ro), alpha in zip(pairs, reversed(alphas), strict=True):
            q += (alpha - vdot(y, q) * ro) * s
        return q

    def state_dict(self) -> dict[str, Any]:
        """Return the state, with copies of the arrays."""
        state = vars(self) | {name: getattr(self, name).copy() for name in self._arrays}
        for name in self._lists:
            state[name] = [array.copy() for array in getattr(self, name)]
        return state | {"ro": list(self.ro)}

    @classmethod
    def of_state(cls, state: Any, like: Array) -> _Memory:
        """Return the memory of a state, having checked that its arrays fit `like`."""
        names = (*cls._counts, *cls._arrays, *cls._lists, *cls._numbers, "ro")
        needed = names if isinstance(state, Mapping) and state.get("n_iter") else cls._counts
        if not isinstance(state, Mapping) or not set(needed) <= set(state):
            raise ValueError(f"LBFGS: the state needs {', '.join(needed)}")
        memory = cls()
        for name in cls._counts:
            setattr(memory, name, integer(state[name], f"LBFGS: {name} of the state", 0))
        if not memory.n_iter:
            return memory
        for name in cls._numbers:
            setattr(memory, name, number(_plain(state[name]), f"LBFGS: {name} of the state"))
        for name in cls._arrays:
            setattr(memory, name, _checked_array(state[name], name, like))
        for name in cls._lists:
            setattr(memory, name, [_checked_array(item, name, like) for item in state[name]])
        memory.ro = [number(_plain(item), "LBFGS: ro of the state") for item in state["ro"]]
        if not len(memory.ro) == len(memory.old_dirs) == len(memory.old_stps):
            raise ValueError("LBFGS: the lists of the state are of several lengths")
        return memory


def _plain(value: Any) -> Any:
    """Return a tensor of one number, as PyTorch saves it, as an array."""
    return value if isinstance(value, (int, float, str)) else np.asarray(value)


def _checked_array(value: Any, name: str, like: Array) -> Array:
    array = np.asarray(value)
    if array.dtype.kind != "f" or array.shape != like.shape:
        raise ValueError(
            f"LBFGS: {name} of the state must be {like.size} floats, got shape {array.shape} and "
            f"dtype {array.dtype}"
        )
    return array.astype(like.dtype)


def _largest(values: Array) -> float:
    return float(np.abs(values).max())


# ---- the line search ----


class Point(NamedTuple):
    """A length of the step, with loss, gradient and slope along the direction there."""

    t: float
    loss: float
    gradient: Array
    slope: float


def strong_wolfe(
    objective: Objective, start: Point, t: float, d: Array, max_ls: int, tolerance_change: float
) -> tuple[Point, int]:
    """Return a point that fulfils the strong Wolfe conditions, and the number of evaluations.

    If `max_ls` trials do not find one, it is the best point so far.
    """

    def at(t: float) -> Point:
        loss, gradient = objective(t)
        return Point(t, loss, gradient, vdot(gradient, d))

    def rises(point: Point) -> bool:
        return point.loss > start.loss + _DECREASE * point.t * start.slope

    def is_flat(point: Point) -> bool:
        return abs(point.slope) <= -_CURVATURE * start.slope

    # Lengthen the step until an interval contains a point that fulfils the conditions.
    trials, before, point = 0, start, at(t)
    while trials < max_ls:
        if rises(point) or (trials > 1 and point.loss >= before.loss):
            break
        if is_flat(point):
            return point, trials + 1
        if point.slope >= 0:
            break
        bounds = point.t + 0.01 * (point.t - before.t), point.t * 10
        before, point = point, at(cubic_minimum(before, point, bounds))
        trials += 1
    else:
        before = start
    bracket = [before, point]
    low = _lower(bracket)

    # Shrink the interval. Two trials in a row near its end are one too many.
    was_near_end = False
    while trials < max_ls and abs(bracket[1].t - bracket[0].t) * _largest(d) >= tolerance_change:
        left, right = sorted((bracket[0].t, bracket[1].t))
        t = cubic_minimum(bracket[0], bracket[1], (left, right))
        margin = 0.1 * (right - left)
        is_near_end = min(right - t, t - left) < margin
        if is_near_end and (was_near_end or t >= right or t <= left):
            t = right - margin if abs(t - right) < abs(t - left) else left + margin
            is_near_end = False
        was_near_end = is_near_end
        point = at(t)
        trials += 1
        if rises(point) or point.loss >= bracket[low].loss:
            bracket[1 - low] = point
            low = _lower(bracket)
            continue
        if is_flat(point):
            return point, trials + 1
        if point.slope * (bracket[1 - low].t - bracket[low].t) >= 0:
            bracket[1 - low] = bracket[low]
        bracket[low] = point
    return bracket[low], trials + 1


def _lower(bracket: list[Point]) -> int:
    """Return the place of the point with the lower loss."""
    return 0 if bracket[0].loss <= bracket[1].loss else 1


def cubic_minimum(a: Point, b: Point, bounds: tuple[float, float]) -> float:
    """Return the minimum of the cubic through two points with their slopes, within bounds."""
    low, high = bounds
    if a.t == b.t:
        return a.t
    d1 = a.slope + b.slope - 3 * (a.loss - b.loss) / (a.t - b.t)
    square = d1 * d1 - a.slope * b.slope
    if square < 0:
        return (low + high) / 2
    d2 = math.sqrt(square)
    if a.t > b.t:
        a, b = b, a
    divisor = b.slope - a.slope + 2 * d2
    if not divisor:
        return (low + high) / 2
    t = b.t - (b.t - a.t) * ((b.slope + d2 - d1) / divisor)
    return min(max(t, low), high)
