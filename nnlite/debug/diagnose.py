"""``diagnose``: what keeps a model from learning, and the cure."""

from __future__ import annotations

import copy
import math
import textwrap
import warnings
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..engine.arrays import Array
from ..figures import new_figure
from ..layer import Layer
from ..losses import (
    BinaryCrossEntropy,
    CrossEntropy,
    ElementwiseLoss,
    Loss,
    NegativeLogLikelihood,
)
from ..optim.base import Optimizer
from ..optim.optimizers import Adam
from ..optim.sgd import SGD
from ..processes import ALONE
from ..training.arguments import check_model_and_loss, checked_parameters
from ..training.batches import as_batch
from .isolation import leaves, named_innermost, package_generator_kept
from .trace import Trace, trace

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# The test on one batch: as many samples, and as many steps of Adam with each learning rate. A model
# learns if its loss falls below this fraction of that of a constant prediction, and has memorised
# the batch below the next.
_SAMPLES = 32
_STEPS = 250
_RATES = (0.01, 0.001)
_LEARNS, _MEMORISES = 0.5, 0.05

# The range test: the learning rate grows from the first to the last number in this many steps.
_LOWEST, _HIGHEST, _RANGE_STEPS = 1e-6, 10.0, 90

# A unit is saturated if it passes less than this fraction of its gradient back for every sample.
_SATURATED = 1e-3
_DEAD_FRACTION = 0.5

# The values that a last layer can give.
_RANGES = {
    "ReLU": (0.0, math.inf),
    "Softplus": (0.0, math.inf),
    "Sigmoid": (0.0, 1.0),
    "Softmax": (0.0, 1.0),
    "Tanh": (-1.0, 1.0),
}


class Check(NamedTuple):
    """One check of `diagnose`.

    Attributes
    ----------
    name : str
        "input", "output", "first loss", "units", "gradients", "one batch", "learning rate" or
        "updates".
    is_ill : bool
        Whether something is wrong.
    message : str
        What was found.
    cure : str
        What to do about it; empty if nothing is wrong.
    """

    name: str
    is_ill: bool
    message: str
    cure: str = ""


class Diagnosis:
    """The report of `diagnose`: printed, it is a line for each check, and the cures.

    Attributes
    ----------
    checks : list of Check
    healthy : bool
        Whether nothing is wrong.
    first_loss : float
        The loss of the model as it is.
    expected_loss : float or None
        The loss of a prediction that knows nothing: equal probabilities, or the mean of the
        targets. None for losses of other kinds.
    batch_loss : float
        The lowest loss that training on a few samples has reached.
    dead_units : dict of str to ndarray
        The indices of the units of each layer that pass no gradient back for any sample.
    update_ratios : dict of str to float
        The norm of the first update of each weight, divided by the norm of the weight.
    rates, losses : ndarray
        The learning rates of the range test, and the loss at each.
    lr : float or None
        The learning rate at which the loss falls fastest; None if it never falls.
    """

    def __init__(self, title: str) -> None:
        self.checks: list[Check] = []
        self.first_loss = self.batch_loss = math.nan
        self.expected_loss: float | None = None
        self.dead_units: dict[str, Array] = {}
        self.update_ratios: dict[str, float] = {}
        self.rates, self.losses = np.zeros(0), np.zeros(0)
        self.lr: float | None = None
        self._title = title

    @property
    def healthy(self) -> bool:
        """Whether nothing is wrong."""
        return not any(check.is_ill for check in self.checks)

    def __repr__(self) -> str:
        width = max(len(check.name) for check in self.checks)
        lines = [self._title]
        for check in self.checks:
            texts = [check.message, f"cure: {check.cure}"] if check.is_ill else [check.message]
            wrapped = [line for text in texts for line in textwrap.wrap(text, 96 - width)]
            mark = "!" if check.is_ill else " "
            lines.append(f"{mark} {check.name.ljust(width)}  {wrapped[0]}")
            lines += [f"  {'':{width}}  {line}" for line in wrapped[1:]]
        return "\n".join(lines)

    def plot(self) -> Figure:
        """Draw the loss of the range test over the learning rate.

        Returns
        -------
        matplotlib.figure.Figure

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        ValueError
            If there was no range test, since the loss is not finite.
        """
        if not self.rates.size:
            raise ValueError("Diagnosis.plot: there was no range test, as the loss is not finite")
        figure = new_figure((6, 3.4), "Diagnosis.plot")
        axes = figure.add_subplot()
        axes.plot(self.rates, self.losses)
        if self.lr is not None:
            axes.axvline(self.lr, color="0.6", linestyle="--")
            axes.annotate(
                f" {self.lr:.2g}: the loss falls fastest", (self.lr, self.first_loss),
                verticalalignment="bottom",
            )  # fmt: skip
        axes.set(xscale="log", xlabel="learning rate", ylabel="loss")
        axes.set_ylim(0.98 * self.losses.min() - 0.02, 1.6 * self.first_loss)
        axes.set_title("learning-rate range test", loc="left")
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        return figure


def diagnose(
    model: Layer, loss: Loss, batch: Any, *, optimizer: Optimizer | None = None
) -> Diagnosis:
    """Examine a model before or during training, and say what keeps it from learning.

    It works on copies: model, loss, optimizer and random generators are left unchanged.

    Parameters
    ----------
    model : Layer
        In training mode, but without dropout, while it is examined.
    loss : Loss
        With the reduction "mean" or "sum".
    batch : tuple (inputs, targets) or (inputs, targets, sample_weight)
        A batch as `fit` takes it: some tens of samples of all classes. Inputs that are a tuple are
        several inputs of the model.
    optimizer : Optimizer, optional
        The optimizer whose learning rate and updates are judged. Without it, the range test is that
        of `SGD`.

    Returns
    -------
    Diagnosis
        Printed, it is a short report. ``diagnosis.plot()`` draws the range test.

    Raises
    ------
    TypeError, ValueError
        If the batch does not fit the model and the loss, if nothing can be trained, or if the loss
        has the reduction "none".

    Notes
    -----
    The checks are these:

    - "input": it is finite, and neither far from 0 nor far from a standard deviation of 1;
    - "output": the last layer suits the loss and the range of the targets;
    - "first loss": it is near that of a prediction that knows nothing: log C for C classes, and
      the loss of the mean of the targets for regression;
    - "units": fewer than half of those of an activation are dead, which means that they pass no
      gradient back for any sample, and not all of a layer are alike;
    - "gradients": they reach every parameter, and neither vanish nor explode: see
      `nnlite.debug.trace.Trace.problems`;
    - "one batch": Adam lets the loss of up to 32 samples fall far below that of a constant
      prediction;
    - "learning rate": in a range test, the rate grows with each step on the batch until the loss
      grows; the rate of the optimizer is neither beyond that point nor far below the rate at which
      the loss falls fastest;
    - "updates": the first step changes each weight by less than its own size, and by more than a
      millionth of it.

    References
    ----------
    L. Smith, "Cyclical learning rates for training neural networks", WACV 2017.
    A. Karpathy, "A recipe for training neural networks", 2019.

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> rng = np.random.default_rng(0)
    >>> points = rng.normal(size=(64, 2)).astype(np.float32)
    >>> labels = (points[:, 0] * points[:, 1] > 0).astype(int)
    >>> nn.seed(0)
    >>> model = nn.Sequential(nn.Linear(2, 32), nn.ReLU(), nn.Linear(32, 2), nn.Softmax())
    >>> diagnosis = nn.diagnose(model, nn.CrossEntropy(), (points, labels))
    >>> diagnosis.healthy
    False
    >>> [check.cure for check in diagnosis.checks if check.is_ill]
    ['leave out the Softmax at the end of the model, or use CrossEntropy(from_logits=False)']
    """
    check_model_and_loss(model, loss, "diagnose")
    if optimizer is not None:
        checked_parameters(model, loss, optimizer)
    if not model.trainable():
        raise ValueError(f"diagnose: {model.label} has no parameters to train")
    given = as_batch(batch, loss)
    if not given.inputs or not np.size(next(leaves(given.inputs), ())):
        raise ValueError("diagnose: the batch has no samples")
    with package_generator_kept(), np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _Examination(model, loss, given.inputs, given.targets, optimizer).report()


class _Patient:
    """Copies of a model, a loss and an optimizer, which can be trained without changing them."""

    def __init__(self, model: Layer, loss: Loss, optimizer: Optimizer | None) -> None:
        kept: dict[int, Any] = {id(p.grad): None for p in model.parameters()}
        if optimizer is not None:
            kept[id(optimizer.processes)] = ALONE
        # So that the copies of model and optimizer share their parameters.
        self.model, self.loss, self.optimizer = copy.deepcopy((model, loss, optimizer), kept)
        self.model.train()
        for layer in self.model.layers():
            if "Drop" in type(layer).__name__:
                layer.eval()

    def value(self, output: Any, targets: Any) -> Any:
        """Return the loss of what the model returned."""
        return getattr(self.loss, "of_outputs", self.loss)(output, *targets)

    def loss_of(self, inputs: Any, targets: Any) -> float:
        """Return the loss, which is infinite if it is not finite."""
        try:
            value = float(self.value(self.model(*inputs), targets))
        except ValueError:  # of a prediction that is not finite
            return math.inf
        return value if math.isfinite(value) else math.inf

    def step(self, optimizer: Optimizer, inputs: Any, targets: Any) -> float:
        """Move the parameters, and return the loss from before that."""
        value = self.loss_of(inputs, targets)
        if math.isfinite(value):
            optimizer.zero_grad()
            self.model.backward(self.loss.backward(), input_grad=False)
            optimizer.step()
        return value


class _Examination:
    """The checks, in an order in which each may use what the others have found."""

    def __init__(
        self,
        model: Layer,
        loss: Loss,
        inputs: tuple[Any, ...],
        targets: tuple[Any, ...],
        optimizer: Optimizer | None,
    ) -> None:
        self._of = (model, loss, optimizer)
        self._inputs, self._targets = inputs, targets
        samples = _length(inputs)
        beside = "" if optimizer is None else f" and {type(optimizer).__name__}"
        self.found = Diagnosis(
            f"diagnosis of {model.label} with {loss.label}{beside}, batch of {samples}"
        )

    def report(self) -> Diagnosis:
        """Return the diagnosis."""
        if not self._check_input():
            return self.found
        patient = _Patient(*self._of)
        output = patient.model(*self._inputs)
        if not self._check_first_loss(patient, output):
            return self.found
        self._check_output(patient, output)
        traced = trace(patient.model, *self._inputs, grad=patient.loss.backward())
        self._check_units(traced, patient.model)
        self._check_gradients(traced)
        self._check_one_batch()
        self._check_rates()
        self._check_updates()
        return self.found

    def _add(self, name: str, message: str, cure: str = "") -> None:
        self.found.checks.append(Check(name, bool(cure), message, cure))

    # ---- before the first step ----

    def _check_input(self) -> bool:
        """Check the input; return whether it is finite."""
        arrays = [x for x in map(np.asarray, leaves(self._inputs)) if x.dtype.kind == "f"]
        for x in arrays:
            message, cure = _fault_of_input(x)
            if cure:
                self._add("input", message, cure)
                return all(np.isfinite(x).all() for x in arrays)
        found = [f"mean {x.mean():.2g}, standard deviation {x.std():.2g}" for x in arrays]
        self._add("input", "; ".join(found) or "integers, such as the indices of an Embedding")
        return True

    def _check_output(self, patient: _Patient, output: Any) -> None:
        loss = patient.loss
        loss._warned = False  # it may have warned of an earlier batch
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            patient.value(output, self._targets)
        for warning in caught:
            doubt, _, cure = str(warning.message).partition("; ")
            self._add("output", doubt, cure)
            return
        last = type([*named_innermost(patient.model)][-1][1]).__name__
        low, high = _RANGES.get(last, (-math.inf, math.inf))
        if isinstance(loss, (CrossEntropy, BinaryCrossEntropy)) and loss.from_logits:
            if low > -math.inf or high < math.inf:
                self._add(
                    "output",
                    f"{loss.label} takes logits of any sign, but {last} gives values in "
                    f"[{low:g}, {high:g}] only",
                    f"leave out the {last} at the end of the model",
                )
                return
        elif isinstance(loss, ElementwiseLoss) and not isinstance(loss, BinaryCrossEntropy):
            target = np.asarray(self._targets[0])
            if target.min() < low or target.max() > high:
                self._add(
                    "output",
                    f"the targets are in [{target.min():.3g}, {target.max():.3g}], but {last} "
                    f"gives values in [{low:g}, {high:g}] only",
                    f"leave out the {last} at the end of the model, or scale the targets",
                )
                return
        self._add("output", f"{last} suits {loss.label}")

    def _check_first_loss(self, patient: _Patient, output: Any) -> bool:
        """Check the loss of the model as it is; return whether it is finite."""
        found = self.found
        first = found.first_loss = patient.loss_of(self._inputs, self._targets)
        if not math.isfinite(first):
            where = trace(patient.model, *self._inputs).problems()
            if not where:
                patient.value(output, self._targets)  # says what is wrong with the targets
            place = f": {where[0].message}" if where else ""
            self._add(
                "first loss", f"it is not finite{place}",
                "look at trace(model, x).problems(), and keep Log, Divide and Sqrt away from 0",
            )  # fmt: skip
            return False
        expected = found.expected_loss = _loss_of_nothing(patient.loss, output, self._targets)
        if expected is None:
            self._add("first loss", f"{first:.4g}; there is no rule for {patient.loss.label}")
            return True
        is_of_numbers = _is_regression(patient.loss)
        of_what = "that of the mean of the targets" if is_of_numbers else "that of a guess"
        message = f"{first:.4g}, beside {of_what}, {expected:.4g}"
        if not is_of_numbers and first > 2 * expected:
            cure = (
                "the first predictions are sure and wrong: make the weights of the last layer "
                "smaller, for example with nn.init.normal_(std=0.01)"
            )
            self._add("first loss", message, cure)
        elif is_of_numbers and first > 4 * expected > 0:
            target = np.asarray(self._targets[0])
            cure = (
                f"subtract the mean of the targets ({target.mean():.3g}) and divide by their "
                f"standard deviation ({target.std():.3g}), or start with that bias"
            )
            self._add("first loss", message, cure)
        else:
            self._add("first loss", message)
        return True

    # ---- units and gradients ----

    def _check_units(self, traced: Trace, model: Layer) -> None:
        layers = dict(named_innermost(model))
        worst: tuple[float, str] = (0.0, "")
        count = total = 0
        of_features = False  # whether the units are along the last axis
        for name, entry in traced.items():
            layer = layers.get(name)
            if layer is None:
                continue
            y = entry.value
            if any(True for _ in layer.parameters(recurse=False)):
                of_features = not hasattr(layer, "out_channels")
                if _are_alike(y, of_features):
                    self._add(
                        "units", f"all units of {name} ({layer.label}) give the same output",
                        "their weights are equal and would stay so: initialise them at random",
                    )  # fmt: skip
                    return
                continue
            dead = _dead_units(traced, name, of_features)
            if dead is None:
                continue
            count, total = count + int(dead.sum()), total + dead.size
            if dead.any():
                self.found.dead_units[name] = np.flatnonzero(dead)
            worst = max(worst, (dead.mean(), name))
        fraction, name = worst
        if fraction >= _DEAD_FRACTION:
            number, label = len(self.found.dead_units[name]), layers[name].label
            size = round(number / fraction)
            self._add(
                "units", f"{number} of the {size} units of {name} ({label}) are dead: they pass "
                f"no gradient back for any sample", _cure_of_dead(label),
            )  # fmt: skip
        elif total:
            self._add("units", f"{count} of {total} units of activations are dead")

    def _check_gradients(self, traced: Trace) -> None:
        problems = traced.problems()
        if not problems:
            self._add("gradients", "they reach every parameter")
            return
        cures = {
            "vanishing": "use ReLU in place of Sigmoid or Tanh, a normalisation or Residual, and "
            "nn.init.kaiming_normal_",
            "exploding": "use smaller weights or a normalisation, and max_grad_norm in fit",
            "dead": "see that no layer before it gives only zeros, and that no weight matrix is 0",
            "no gradient": "see that its layer adds to the gradient in backward",
            "not finite": "keep Log, Divide and Sqrt away from 0",
        }
        self._add("gradients", problems[0].message, cures[problems[0].kind])

    # ---- training ----

    def _check_one_batch(self) -> None:
        inputs, targets = (_first(values, _SAMPLES) for values in (self._inputs, self._targets))
        lowest = math.inf
        reference = 0.0
        for rate in _RATES:
            patient = _Patient(*self._of)
            output = patient.model(*inputs)
            expected = _loss_of_nothing(patient.loss, output, targets)
            reference = patient.loss_of(inputs, targets) if expected is None else expected
            if expected == 0:
                self._add("one batch", "all its targets are equal, which says nothing")
                return
            optimizer = Adam(patient.model.parameters(), lr=rate)
            for _ in range(_STEPS):
                lowest = min(lowest, patient.step(optimizer, inputs, targets))
                if lowest < _MEMORISES * reference:
                    break
            if lowest < _LEARNS * reference:
                break
        self.found.batch_loss = lowest
        message = f"training on {_length(inputs)} samples brings the loss to {lowest:.3g}"
        if reference > 0 and lowest >= _LEARNS * reference:
            self._add(
                "one batch", f"{message}: no better than half of {reference:.3g}, that of a "
                f"constant prediction",
                "find out why it cannot memorise these few: wrong pairs of inputs and "
                "targets, too few units, no activation between the layers, or one of the above",
            )  # fmt: skip
        else:
            self._add("one batch", message)

    def _check_rates(self) -> None:
        found = self.found
        patient = _Patient(*self._of)
        optimizer = patient.optimizer or SGD(patient.model.parameters())
        given = None if patient.optimizer is None else optimizer.lr
        rates, losses = _range_test(patient, optimizer, self._inputs, self._targets)
        found.rates, found.losses = rates, losses
        lowest = int(losses.argmin())
        if losses[lowest] > 0.99 * losses[0]:
            self._add("learning rate", "the loss falls at no learning rate", "see the other checks")
            return
        lr = found.lr = float(rates[_steepest(losses[: lowest + 1])])
        beyond = np.flatnonzero((losses > losses[0]) & (np.arange(len(losses)) > lowest))
        limit = float(rates[beyond[0]]) if beyond.size else math.inf
        kind = type(optimizer).__name__
        grows = f", and grows from {limit:.2g} on" if beyond.size else ""
        message = f"with {kind} the loss falls fastest at {lr:.2g}{grows}"
        if given is not None and given >= limit:
            self._add("learning rate", f"{message}; {given:.2g} is too large", f"try lr={lr:.1g}")
        elif given is not None and given < lr / 100:
            self._add("learning rate", f"{message}; {given:.2g} is too small", f"try lr={lr:.1g}")
        else:
            self._add("learning rate", message)

    def _check_updates(self) -> None:
        found = self.found
        patient = _Patient(*self._of)
        optimizer = patient.optimizer
        if optimizer is None:
            if found.lr is None:
                return
            optimizer = SGD(patient.model.parameters(), lr=found.lr)
        before = patient.model.state_dict()
        patient.step(optimizer, self._inputs, self._targets)
        for name, parameter in patient.model.named_parameters():
            size = np.linalg.norm(before[name])
            if parameter.data.ndim > 1 and parameter.requires_grad and size > 0:
                update = np.linalg.norm(parameter.data - before[name])
                found.update_ratios[name] = float(update / size)
        if not found.update_ratios:
            return
        most = max(found.update_ratios, key=found.update_ratios.__getitem__)
        least = min(found.update_ratios, key=found.update_ratios.__getitem__)
        high, low = found.update_ratios[most], found.update_ratios[least]
        of = f"{type(optimizer).__name__} with lr={optimizer.lr:.2g}"
        message = f"a step of {of} changes the weights by {low:.2g} to {high:.2g} of their size"
        cure = ""
        if patient.optimizer is not None and high > 1:
            cure = f"{most} would be overwritten: use a smaller learning rate"
        elif patient.optimizer is not None and high < 1e-6:
            cure = "they hardly move: use a larger learning rate"
        self._add("updates", message, cure)


# ---- the input ----


def _fault_of_input(x: Array) -> tuple[str, str]:
    """Return what is wrong with an input, and the cure; two empty strings if nothing is."""
    if not np.isfinite(x).all():
        place = tuple(np.argwhere(~np.isfinite(x))[0].tolist())
        return f"it has {x[place]} at {place}", "remove or replace missing and infinite values"
    standardise = (
        "subtract the mean and divide by the standard deviation of the training data, feature by "
        "feature; the images of nn.datasets are so already"
    )
    # The features of a table and the channels of an image each have a scale of their own.
    axes = tuple(axis for axis in range(x.ndim) if axis != 1)
    means, stds = x.mean(axis=axes), x.std(axis=axes)
    sizes = np.sqrt(means**2 + stds**2)
    if sizes.max() > 10:
        where = f"feature {int(sizes.argmax())} " if x.ndim == 2 else ""
        large = f"mean {means.flat[sizes.argmax()]:.3g}, standard deviation "
        return f"{where}is not standardised: {large}{stds.flat[sizes.argmax()]:.3g}", standardise
    if sizes.max() < 0.01:
        what = "all numbers are 0" if not sizes.any() else f"at most {np.abs(x).max():.2g} in size"
        return f"not standardised: {what}", standardise
    if x.ndim == 2 and np.ptp(x, axis=0).any():
        spans = np.ptp(x, axis=0)
        least = int(np.where(spans > 0, spans, np.inf).argmin())
        if spans[least] < 1e-3 * spans.max():
            message = (
                f"feature {least} varies by {spans[least]:.2g} only, others by {spans.max():.2g}"
            )
            return message, standardise
    return "", ""


# ---- the loss ----


def _is_regression(loss: Layer) -> bool:
    return isinstance(loss, ElementwiseLoss) and not isinstance(loss, BinaryCrossEntropy)


def _loss_of_nothing(loss: Layer, output: Any, targets: tuple[Any, ...]) -> float | None:
    """Return the loss of a prediction that knows nothing, or None if that is not known."""
    if isinstance(loss, (CrossEntropy, NegativeLogLikelihood)):
        classes = output.shape[loss.dim]
        logits = isinstance(loss, CrossEntropy) and loss.from_logits
        logs = isinstance(loss, NegativeLogLikelihood)
        guess = 0.0 if logits else -math.log(classes) if logs else 1 / classes
    elif isinstance(loss, BinaryCrossEntropy):
        guess = 0.0 if loss.from_logits else 0.5
    elif isinstance(loss, ElementwiseLoss):
        mean = np.asarray(targets[0], output.dtype).mean(axis=0)
        return float(loss(np.broadcast_to(mean, output.shape), *targets))
    else:
        return None
    return float(loss(np.full_like(output, guess), *targets))


# ---- units ----


def _units(values: Array, of_features: bool) -> Array:
    """Return an array (places, units) of the values of each unit."""
    axis = -1 if of_features else 1
    return np.moveaxis(values, axis, -1).reshape(-1, values.shape[axis])


def _are_alike(y: Any, of_features: bool) -> bool:
    """Whether all units of a layer give the same, and not only zeros."""
    if not isinstance(y, np.ndarray) or y.ndim < 2 or y.dtype.kind != "f":
        return False
    units = _units(y, of_features)
    return bool(units.shape[1] > 1 and units.any() and (units == units[:, :1]).all())


def _dead_units(traced: Trace, name: str, of_features: bool) -> Array | None:
    """Return which units of an activation pass no gradient back; None for another layer."""
    entry = traced[name]
    if len(entry.sources) != 1:
        return None
    source = traced[entry.sources[0]]
    arriving, leaving = entry.grad, source.grad
    arrays = (entry.value, source.value, arriving, leaving)
    if not all(isinstance(array, np.ndarray) and array.ndim > 1 for array in arrays):
        return None
    if len({array.shape for array in arrays}) > 1 or source.value is entry.value:
        return None
    received = np.abs(_units(arriving, of_features)).max(axis=0)
    passed = np.abs(_units(leaving, of_features)).max(axis=0)
    return (passed <= _SATURATED * received) & (received > 0)


def _cure_of_dead(label: str) -> str:
    if "ReLU" in label:
        return (
            "use LeakyReLU, biases that are not far below 0, nn.init.kaiming_normal_, and a "
            "smaller learning rate"
        )
    return (
        "their inputs are far from 0, where the activation is flat: use smaller weights, "
        "standardised inputs, a normalisation, or ReLU"
    )


# ---- training ----


def _first(values: tuple[Any, ...], count: int) -> tuple[Any, ...]:
    """Return the first samples of each array of a nested tuple."""
    return tuple(
        _first(value, count) if isinstance(value, tuple) else value[:count] for value in values
    )


def _length(inputs: Any) -> int:
    return len(next(leaves(inputs)))


def _range_test(
    patient: _Patient, optimizer: Optimizer, inputs: Any, targets: Any
) -> tuple[Array, Array]:
    """Return learning rates, and the loss after a step with each, until it has grown."""
    rates: list[float] = []
    losses: list[float] = []
    for rate in np.geomspace(_LOWEST, _HIGHEST, _RANGE_STEPS):
        optimizer.lr = float(rate)
        patient.step(optimizer, inputs, targets)
        value = patient.loss_of(inputs, targets)
        if not math.isfinite(value):
            value = 10 * losses[0] if losses else math.nan
        rates.append(float(rate))
        losses.append(value)
        if value > 4 * losses[0]:
            break
    return np.array(rates), np.array(losses)


def _steepest(losses: Array) -> int:
    """Return where a curve falls fastest, over five points so that a single step counts little."""
    if len(losses) < 6:
        return len(losses) // 2
    falls = losses[:-5] - losses[5:]
    return int(falls.argmax()) + 2
