"""Gradient checking: compare ``backward`` with finite differences of ``forward``."""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ..checks import integer, number
from ..engine.arrays import Array
from ..hints import explained
from ..layer import Layer
from ..random import RandomState, generator
from ..tables import Table
from .contract import Promises, gradient_fault, output_fault
from .differences import (
    Judgement,
    Outputs,
    finest_step_at,
    judge,
    relative_error,
    slopes,
    step_at,
)
from .isolation import (
    input_names,
    is_floats,
    leaves,
    map_leaves,
    match_inputs,
    package_generator_kept,
)
from .probe import Probe

# Elements of a gradient below this fraction of the largest are compared on its scale.
_SMALL = 1e-3
# The distance of the point nearby at which kinks are avoided: more than the largest step.
_SHIFT = 2.0**-12


@dataclass(frozen=True)
class GradCheckRow:
    """The result of `gradcheck` for one input or parameter.

    Attributes
    ----------
    name : str
        ``input``, or the parameter's name in the state dict.
    shape : tuple of int
    compared, size : int
        Number of elements compared, and in all.
    kinks : int
        Number of compared elements that lie on a kink and were compared at a point nearby.
    error : float
        The largest relative error.
    where : tuple of int or None
        The element with that error; None for the derivative along a random direction.
    analytic, numeric : float
        The derivative there: from `backward`, and from differences of `forward`.
    verdict : {"ok", "FAIL", "kink", "frozen", "constant"}
        "kink" if there is no derivative to compare with nearby either; "frozen" for a
        parameter that takes no gradient and "constant" for an input without a gradient.
    """

    name: str
    shape: tuple[int, ...]
    compared: int
    size: int
    kinks: int = 0
    error: float = math.nan
    where: tuple[int, ...] | None = None
    analytic: float = math.nan
    numeric: float = math.nan
    verdict: str = "ok"


@dataclass(frozen=True, repr=False)
class GradCheckResult:
    """The result of `gradcheck`: true if the check passed, printed as a table.

    Attributes
    ----------
    layer : str
        The layer as it prints.
    rows : tuple of GradCheckRow
        One for each input of floats and each parameter.
    faults : tuple of str
        Violations of the layer contract other than wrong derivatives, a sentence each.
    tolerance : float
    """

    layer: str
    rows: tuple[GradCheckRow, ...]
    faults: tuple[str, ...]
    tolerance: float

    @property
    def passed(self) -> bool:
        """Whether every gradient agrees and there are no faults."""
        return not self.faults and all(row.verdict not in ("FAIL", "kink") for row in self.rows)

    def __bool__(self) -> bool:
        return self.passed

    def raise_if_failed(self) -> None:
        """Raise an AssertionError with the whole table if the check failed."""
        if not self.passed:
            raise AssertionError(str(self))

    def _table(self) -> Table:
        outcome = "passed" if self.passed else "FAILED"
        return Table(
            ("name", "shape", "compared", "error", "where", "analytic", "numeric", "verdict"),
            map(_cells, self.rows),
            numeric=("compared", "error", "analytic", "numeric"),
            title=f"gradcheck of {self.layer}: {outcome} (tolerance {self.tolerance:g})",
            notes=[note for row in self.rows for note in _notes(row)]
            + [f"FAULT: {fault}" for fault in self.faults],
        )

    def __repr__(self) -> str:
        return str(self._table())

    def _repr_html_(self) -> str:
        return self._table().to_html()


@explained
def gradcheck(
    layer: Layer,
    *inputs: Any,
    options: Mapping[str, Any] | None = None,
    constants: Sequence[int] = (),
    tolerance: float = 1e-6,
    max_elements: int = 1000,
    rng: RandomState = None,
) -> GradCheckResult:
    """Check the gradients of a layer, a model or a loss against central differences.

    The check runs in float64 on a copy: the layer, its caches, gradients, mode and buffers, the
    inputs, and the package's generator are left unchanged.

    Parameters
    ----------
    layer : Layer
        A layer, model or loss, in the mode to be checked.
    *inputs : array_like, or tuple of array_like
        The inputs of `forward`. Inputs of floats are checked; all others (labels, indices, None)
        are passed on unchanged.
    options : mapping, optional
        Keyword arguments of `forward`.
    constants : sequence of int
        Positions of inputs of floats without a gradient, such as a target or a mask.
    tolerance : float, default 1e-6
        The largest relative error that passes.
    max_elements : int, default 1000
        In an array with more elements, this many are drawn at random and compared, and so are the
        derivatives along two random directions through all elements.
    rng : int, numpy.random.Generator or None
        Source of the weights of the outputs, the directions, and the elements of large arrays.

    Returns
    -------
    GradCheckResult
        True if every gradient is right, so that ``assert nn.gradcheck(layer, x)`` is a test.
        Printed, it is a table. Its method `raise_if_failed` raises an AssertionError with the
        whole table, which pytest shortens after ``assert``.

    Raises
    ------
    TypeError
        If `layer` is not a layer.
    ValueError
        If an input or a parameter is not finite, if there is no input of floats and no parameter
        to check, or if a position in `constants` is out of range.

    Notes
    -----
    The outputs y are weighted with random numbers w of magnitude 1/2 to 1, drawn once, to give a
    scalar function; a loss is multiplied by such a number::

        F(θ) = Σ w · y(θ)            ∂F/∂θ_i, analytic: backward(w)
                                     numeric: (F(θ + h e_i) - F(θ - h e_i)) / 2h

    for every element of every input and parameter θ, with the step ``h ≈ ∛ε · max(1, |θ_i|)``,
    which balances truncation and rounding. The relative error is::

        |analytic - numeric| / max(|analytic|, |numeric|, floor)

    where floor is a thousandth of the largest gradient in the array, or the rounding error of a
    derivative of zero. Where the two disagree, seven steps from 8h to h/32768 are tried, then
    smaller ones, as a logarithm or a root needs near 0. Rounding inside `forward`, which limits all
    differences at a saturated softmax or a large offset, is estimated from the scatter of the
    differences over those steps, and no agreement beyond it is asked for.

    *Large arrays.* Of the two directions, the first has random magnitudes, so that neither a
    wrong element nor two that are swapped cancel. The second is longer where the gradient is
    small, so that a small wrong element is not lost among large ones.

    *Kinks.* At a point such as 0 of a ReLU or a tie of a maximum there is no derivative. A
    disagreement is attributed to a kink only if the slopes on both sides stay apart by the same
    amount as the step shrinks, which no smooth function does. The same elements then have to
    agree at a point nearby, off the kink. If moving all of them together is smooth, as with a tie,
    the sum of their gradients has to be right. And in a layer without sub-layers, the gradient at
    the kink has to lie between the one-sided slopes of the outputs. In a composition it need not:
    for 2 relu(x) - relu(-x), which has the slopes 2 and 1 at 0, relu'(0) = 0 gives 0.

    *Randomness.* Every forward starts from the same buffers and the same states of the package's
    generator and of each generator that is an attribute of a layer: a dropout drops the same
    elements each time.

    *Contract.* It is also a fault if forward returns None, other dtypes than float64, or other
    values for the same input; if backward returns another number of gradients than there are
    inputs, or other shapes or dtypes; if a second backward gives another input gradient or does
    not add to the parameters' gradients exactly what the first did; if backward is not linear in
    the gradient, up to sizes of 1e12 and down to 1e-12; if ``input_grad=False`` changes the
    parameters' gradients; if forward or backward changes an array that it was given or has
    returned, or a parameter; or if the results depend on the memory order of inputs or gradients.

    A layer is taken for a loss if the gradient that its backward takes has a number for default.
    A loss may return the gradient of its first input alone. `fit` calls its backward with and
    without a gradient, so both have to work.

    References
    ----------
    J. Nocedal, S. Wright, "Numerical Optimization", 2nd edition, Springer 2006, section 8.1.

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> x = np.array([[1.0, -2.0, 0.5], [0.3, 0.1, -1.0]])
    >>> assert nn.gradcheck(nn.Linear(3, 2), x)
    >>> assert nn.gradcheck(nn.CrossEntropy(), x, np.array([0, 2]))

    A layer with an error:

    >>> class Cube(nn.Layer):
    ...     def forward(self, x):
    ...         self.cache(x)
    ...         return x**3
    ...     def backward(self, grad, input_grad=True):
    ...         (x,) = self.cached()
    ...         return 2 * x**2 * grad
    >>> result = nn.gradcheck(Cube(), x)
    >>> result.passed, result.rows[0].verdict, round(result.rows[0].error, 6)
    (False, 'FAIL', 0.333333)
    """
    if not isinstance(layer, Layer):
        got = f"the class {layer.__name__}" if isinstance(layer, type) else type(layer).__name__
        raise TypeError(f"gradcheck: expected a layer, a model or a loss, got {got}")
    tolerance = number(tolerance, "gradcheck: tolerance", minimum=1e-12)
    max_elements = integer(max_elements, "gradcheck: max_elements")
    for position in constants:
        if position not in range(len(inputs)):
            raise ValueError(
                f"gradcheck: of {len(inputs)} inputs, none has the position {position}"
            )
    with package_generator_kept():
        # Of its own, since the package's generator is set back before every forward.
        draws = np.random.default_rng(generator(rng).integers(2**63))
        probe = Probe(layer, inputs, options or {})
        names = input_names(layer, inputs)
        check = _Check(probe, names, constants, tolerance, max_elements, draws)
        rows = check.run()
        return GradCheckResult(layer.label, tuple(rows), tuple(check.faults), tolerance)


# ---- the comparison ----


class _Slope(NamedTuple):
    """A derivative to compare: for one element, or along a direction through all of them."""

    where: tuple[int, ...] | None
    direction: Any
    step: float
    finest: float
    # Of the variables; at least 1.
    magnitude: float


class _Subject:
    """An input or a parameter under check, with its gradient and the results so far."""

    def __init__(self, name: str, array: Array, verdict: str = "") -> None:
        self.name = name
        self.array = array
        self.verdict = verdict
        self.gradient: Array | None = None
        self.examined = 0
        self.on_kink: list[_Slope] = []
        self.off_kink = 0
        self._small = 0.0
        self._worst: tuple[float, tuple[int, ...] | None, float, float]
        self._worst = (-math.inf, None, math.nan, math.nan)

    def assign(self, gradient: Any) -> None:
        self.gradient = None if gradient is None else np.array(gradient)
        self._small = (
            0.0 if gradient is None else _SMALL * float(np.max(np.abs(gradient), initial=0))
        )

    def derivative(self, slope: _Slope) -> tuple[float, float]:
        """Return the analytic derivative, and the size below which it counts as small."""
        if self.gradient is None:
            return 0.0, 0.0
        if slope.where is None:
            terms = self.gradient * slope.direction
            return float(np.sum(terms)), float(np.linalg.norm(terms))
        return float(self.gradient[slope.where]), self._small

    def levels(self) -> Any:
        """Return factors up to 1 that make the elements of the gradient about equally large."""
        if self.gradient is None or self._small == 0:
            return 1.0
        return self._small / np.maximum(np.abs(self.gradient), self._small)

    def note(self, slope: _Slope, analytic: float, numeric: float, error: float) -> None:
        if error > self._worst[0]:
            self._worst = (error, slope.where, analytic, numeric)

    def row(self) -> GradCheckRow:
        error, where, analytic, numeric = self._worst
        return GradCheckRow(
            name=self.name,
            shape=self.array.shape,
            compared=self.examined - _count_elements(self.on_kink),
            size=self.array.size,
            kinks=self.off_kink,
            error=error if error >= 0 else math.nan,
            where=where,
            analytic=analytic,
            numeric=numeric,
            verdict=self.verdict or ("kink" if self.on_kink else "ok"),
        )


def _count_elements(slopes: list[_Slope]) -> int:
    return sum(slope.where is not None for slope in slopes)


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Context without warnings, since functions may be undefined beside the point."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        yield


class _Check:
    """One run of `gradcheck`."""

    def __init__(
        self,
        probe: Probe,
        names: list[str],
        constants: Sequence[int],
        tolerance: float,
        max_elements: int,
        draws: np.random.Generator,
    ) -> None:
        self._probe = probe
        self._tolerance = tolerance
        self._max_elements = max_elements
        self._draws = draws
        self._promises = Promises(probe)
        # The chain rule may leave the interval between the one-sided slopes of a composition.
        self._is_single = not any(probe.layer.named_children())
        self.faults = self._promises.faults

        positions = [p for p, value in enumerate(probe.inputs) for _ in leaves(value)]
        self._inputs = [
            _Subject(name, leaf, "constant" if position in constants else "")
            for name, leaf, position in zip(names, leaves(probe.inputs), positions, strict=True)
            if is_floats(leaf)
        ]
        self._subjects = self._inputs + [
            _Subject(name, parameter.data, "" if parameter.requires_grad else "frozen")
            for name, parameter in probe.parameters.items()
        ]
        if all(subject.verdict for subject in self._subjects):
            raise ValueError(
                f"gradcheck: {probe.layer.label} has no input of floats and no parameter to check"
            )
        for subject in self._subjects:
            if not np.isfinite(subject.array).all():
                raise ValueError(
                    f"gradcheck: {subject.name} has values that are not finite, "
                    f"so there is no derivative to check; give other values"
                )

    def run(self) -> list[GradCheckRow]:
        probe, promises = self._probe, self._promises
        self._go_elsewhere_first()
        for subject in self._subjects:
            promises.watch(subject.name, subject.array)
        output = probe.forward()
        fault = next(filter(None, map(output_fault, leaves(output))), None)
        if fault:
            self.faults.append(fault)
            return []
        promises.report_changes("forward")
        weights = map_leaves(self._random_weights, output)
        promises.watch("an output that forward has returned", output)
        promises.watch("the gradient that it is given", weights)
        returned = probe.backward(weights)
        promises.report_changes("backward")
        promises.watch("a gradient that backward has returned", returned)
        promises.keep_first(output, weights, returned)
        self._base = [np.array(leaf) for leaf in leaves(output)]
        self._weights = weights
        self._weight_list = [np.asarray(leaf) for leaf in leaves(weights)]
        if not self._assign(returned):
            return []
        promises.check_further_backwards()
        promises.check_memory_order()
        with _quietly():
            for subject in self._subjects:
                self._compare(subject)
            self._compare_off_kinks()
        promises.check_another_forward()
        return [subject.row() for subject in self._subjects]

    def _go_elsewhere_first(self) -> None:
        """Run at another point first, so that any state kept from it shows in later runs."""
        # An error here either recurs below, or the point is outside the domain.
        with contextlib.suppress(Exception), self._shifted(_SHIFT), _quietly():
            output = self._probe.forward()
            self._probe.backward(map_leaves(lambda leaf: np.ones(np.shape(leaf))[()], output))
        self._probe.layer.zero_grad()

    @contextlib.contextmanager
    def _shifted(self, shift: float) -> Iterator[None]:
        """Context in which every input and parameter is shifted a little."""
        arrays = [s.array for s in self._subjects if s.verdict != "constant"]
        points = [array.copy() for array in arrays]
        try:
            for array, point in zip(arrays, points, strict=True):
                sizes = np.maximum(1, np.abs(point))
                array[...] = point + shift * sizes * self._signed(point.shape)
            yield
        finally:
            for array, point in zip(arrays, points, strict=True):
                array[...] = point

    def _random_weights(self, output: Any) -> Any:
        shape = np.shape(output)
        weights = self._signed(shape) if self._probe.takes_grad else np.ones(shape)
        return float(weights) if isinstance(output, float) else np.asarray(weights)

    def _assign(self, returned: Any) -> bool:
        """Assign to each subject its gradient; return False if their number is wrong."""
        matched = match_inputs(returned, self._probe.inputs)
        if matched is not None:
            of_floats = map(is_floats, leaves(self._probe.inputs))
            found = [g for g, floats in zip(matched, of_floats, strict=True) if floats]
        elif self._probe.is_loss and not isinstance(returned, tuple):
            found = [returned] + [None] * (len(self._inputs) - 1)
            for subject in self._inputs[1:]:
                subject.verdict = "constant"
        else:
            given, wanted = list(leaves(returned)), list(leaves(self._probe.inputs))
            self.faults.append(f"backward returns {len(given)} gradients for {len(wanted)} inputs")
            return False
        found = [*found, *self._probe.gradients()]
        for subject, gradient in zip(self._subjects, found, strict=True):
            fault = gradient is not None and gradient_fault(
                subject.name, gradient, subject.array.shape
            )
            if fault:
                self.faults.append(fault)
                subject.verdict = "FAIL"
            else:
                subject.assign(gradient)
        return True

    def _compare(self, subject: _Subject) -> None:
        """Compare the gradient of `subject` with differences, except on kinks."""
        if subject.verdict:
            return
        doubtful: list[tuple[float, _Slope]] = []
        for slope in self._slopes(subject):
            analytic, floor = subject.derivative(slope)
            outputs = self._outputs(subject, slope)
            found = slopes(outputs, self._base, self._weight_list, slope.step)
            error = relative_error(analytic, found.central, floor)
            if error <= self._tolerance and found.are_alike(floor):
                subject.note(slope, analytic, found.central, error)
            else:
                doubtful.append((error, slope))
            subject.examined += slope.where is not None
        doubtful.sort(key=lambda item: -item[0])
        subject.on_kink = self._judge(subject, [slope for _, slope in doubtful])

    def _slopes(self, subject: _Subject) -> Iterator[_Slope]:
        array = subject.array
        if array.size <= self._max_elements:
            places: Any = np.ndindex(array.shape)
        else:
            drawn = np.sort(self._draws.choice(array.size, self._max_elements, replace=False))
            places = zip(*np.unravel_index(drawn, array.shape), strict=True)
            yield from self._random_directions(subject)
        for place in places:
            where = tuple(map(int, place))
            x = float(array[where])
            yield _Slope(where, 1.0, step_at(x), finest_step_at(x), max(1.0, abs(x)))

    def _random_directions(self, subject: _Subject) -> Iterator[_Slope]:
        """Yield two directions: one through all elements alike, one that favours small gradients.

        In the second, elements with small and with large gradients add about as much to the slope.
        """
        sizes = np.abs(subject.array)
        largest, smallest = float(np.max(sizes)), float(np.min(sizes, where=sizes > 0, initial=1))
        for levels in (1.0, subject.levels()):
            direction = levels * self._signed(sizes.shape)
            # The step along the direction is as long as that of one element.
            halvings = round(math.log2(np.linalg.norm(direction)))
            step = math.ldexp(step_at(largest), -halvings)
            yield _Slope(None, direction, step, finest_step_at(smallest), max(1.0, largest))

    def _signed(self, shape: tuple[int, ...]) -> Any:
        """Draw numbers of either sign and of magnitude 1/2 to 1."""
        return self._draws.uniform(0.5, 1, shape) * self._draws.choice([-1.0, 1.0], shape)

    def _outputs(self, subject: _Subject, slope: _Slope) -> Outputs:
        index = ... if slope.where is None else slope.where
        return self._probe.along((subject.array, index, slope.direction))

    def _judge(self, subject: _Subject, doubtful: list[_Slope]) -> list[_Slope]:
        """Judge doubtful slopes until one is wrong; return those on a kink."""
        on_kink = []
        for slope in doubtful:
            analytic, floor = subject.derivative(slope)
            outputs = self._outputs(subject, slope)
            verdict, numeric, error = self._judgement(outputs, analytic, slope, floor)
            if verdict == "kink":
                on_kink.append(slope)
                continue
            subject.note(slope, analytic, numeric, error)
            if verdict == "FAIL":
                subject.verdict = "FAIL"
                if subject.gradient is None:
                    self.faults.append(
                        f"backward gives no gradient for {subject.name}, "
                        f"although the output depends on it"
                    )
                break
        return on_kink

    def _judgement(
        self, outputs: Outputs, analytic: float, slope: _Slope, floor: float
    ) -> Judgement:
        return judge(
            outputs,
            self._base,
            self._weight_list,
            analytic,
            slope.step,
            self._tolerance,
            floor,
            finest=slope.finest,
            magnitude=slope.magnitude,
            convex=self._is_single,
        )

    # ---- kinks ----

    def _compare_off_kinks(self) -> None:
        """Compare the slopes on a kink at a point nearby."""
        pending = [s for s in self._subjects if s.on_kink and not s.verdict]
        if not pending:
            return
        self._check_ties(pending)
        for shift in (_SHIFT, _SHIFT / 4):
            with self._shifted(shift):
                if self._moves_there():
                    for subject in pending:
                        left = self._judge(subject, subject.on_kink)
                        subject.off_kink = _count_elements(subject.on_kink) - _count_elements(left)
                        subject.on_kink = left
                    return

    def _moves_there(self) -> bool:
        """Compute outputs and gradients at the present point; return False if it has none."""
        self._probe.layer.zero_grad()
        try:
            self._base = [np.array(leaf) for leaf in leaves(self._probe.forward())]
        except (ValueError, ArithmeticError):
            return False
        if not all(np.isfinite(values).all() for values in self._base):
            return False
        return self._assign(self._probe.backward(self._weights))

    def _check_ties(self, pending: list[_Subject]) -> None:
        """Move all elements on a kink by the same amount, which is smooth where values tie."""
        moves, gradients = [], []
        for subject in pending:
            elements = [slope.where for slope in subject.on_kink if slope.where is not None]
            index = tuple(np.array(elements, int).reshape(len(elements), subject.array.ndim).T)
            moves.append((subject.array, index, 1.0))
            if subject.gradient is not None:
                gradients.append(np.ravel(subject.gradient[index]))
        together = np.concatenate([np.zeros(1), *gradients])
        largest = max((slope for s in pending for slope in s.on_kink), key=lambda slope: slope.step)
        verdict, numeric, _ = self._judgement(
            self._probe.along(*moves),
            float(together.sum()),
            largest,
            float(np.linalg.norm(together)),
        )
        if verdict == "FAIL":
            self.faults.append(
                f"where values tie, the gradients of all that tie add up to {together.sum():.6g} "
                f"instead of {numeric:.6g}"
            )


# ---- the table ----


def _cells(row: GradCheckRow) -> tuple[str, ...]:
    def shown(value: float, digits: str = "#.7g") -> str:
        return "" if math.isnan(value) else format(value + 0.0, digits)  # no -0

    where = "" if math.isnan(row.error) else "direction" if row.where is None else str(row.where)
    return (
        row.name,
        str(row.shape),
        f"{row.compared} of {row.size}",
        shown(row.error, ".1e"),
        where,
        shown(row.analytic),
        shown(row.numeric),
        row.verdict,
    )


def _notes(row: GradCheckRow) -> Iterator[str]:
    if row.verdict in ("frozen", "constant"):
        return
    if row.kinks:
        yield (
            f"{row.name}: {row.kinks} elements lie on a kink, where there is no derivative; "
            f"they were compared at a point nearby"
        )
    if row.verdict == "kink":
        yield (
            f"{row.name}: no derivative to compare with was found for the rest, "
            f"not nearby either; check at another point"
        )
    elif row.verdict == "ok" and row.compared < row.size:
        yield (
            f"{row.name}: the elements were drawn at random; "
            f"all of them enter the slope along a random direction"
        )
    elif row.verdict == "FAIL" and row.error == math.inf and math.isnan(row.numeric):
        yield (
            f"{row.name}: the output is not defined on both sides of the point; "
            f"check at another one"
        )
