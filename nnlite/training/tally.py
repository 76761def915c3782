"""``Tally``: the running loss and metrics of an epoch or a data set."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..checks import integer, number
from ..layer import Layer
from ..processes import ALONE, Processes
from .batches import Batch, averages, takes_target
from .metrics import Metric, means_of


class Tally:
    """The loss and the metrics of all batches so far, as those of one batch of all their samples.

    For the reduction "sum" the loss is the sum. Metrics are means, weighted by the targets that are
    not ignored; they are not computed for a batch in which all targets are ignored. For an
    `EpochMetric` the outputs and targets of these batches are kept. The parts that
    several processes have of a batch count as one batch.
    """

    def __init__(
        self, loss: Layer, metrics: Mapping[str, Metric], processes: Processes = ALONE
    ) -> None:
        self._loss, self._processes = loss, processes
        self.averages = averages(loss)
        self.metrics = dict(metrics)
        self.means = means_of(metrics)
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self.loss = self.weight = 0.0
        self.batches = self.counted = 0
        self.totals = dict.fromkeys(self.means, 0.0)
        self.kept: list[tuple[Any, Any]] = []

    def add(self, predictions: Any, batch: Batch, loss: float | None = None) -> float:
        """Add the loss and the metrics of a batch, and return its weight, over all processes.

        The loss is computed, unless it is given.

        Raises
        ------
        NotFiniteError
            If the loss is not finite. Nothing is added then.
        """
        sums = self._processes.sum(lambda: self._terms(predictions, batch, loss))
        part, weight, counted, *totals = sums
        self.loss += part
        self.weight += weight
        self.batches += 1
        self.counted += int(counted)
        for name, total in zip(self.means, totals, strict=True):
            self.totals[name] += total
        return weight

    def _terms(self, predictions: Any, batch: Batch, loss: float | None) -> list[float]:
        """Return what a batch adds to the loss, the weight, the count and the totals."""
        # A batch in which no target counts has no mean, but the others may have one.
        if loss is None:
            loss = batch.loss_of(self._loss, predictions) if batch.weight else 0.0
        terms = [loss * batch.weight if self.averages else loss, batch.weight, batch.counted]
        if predictions is None or not batch.counted:
            return [*terms, *[0.0] * len(self.means)]
        targets = batch.targets[0] if takes_target(self._loss) else None
        for name, metric in self.means.items():
            terms.append(_figure(name, metric, predictions, targets) * batch.counted)
        if len(self.means) < len(self.metrics):
            self.kept.append((predictions, targets))
        return terms

    def figures(self) -> dict[str, float]:
        """Return the loss and the metrics by name; NaN is the mean over nothing."""
        loss = _ratio(self.loss, self.weight) if self.averages else self.loss
        means = {name: _ratio(total, self.counted) for name, total in self.totals.items()}
        epoch_metrics = len(self.means) < len(self.metrics)
        of_processes = self._processes.gather(self.kept) if epoch_metrics else []
        kept = list(itertools.chain.from_iterable(of_processes))
        everything = [_joined(parts) for parts in zip(*kept, strict=True)]
        whole = {
            name: _figure(name, metric, *everything)
            for name, metric in self.metrics.items()
            if name not in means
        }
        return {"loss": loss, **{name: (means | whole)[name] for name in self.metrics}}

    def state_dict(self) -> dict[str, Any]:
        """Return the state, for `load_state_dict`."""
        return {
            "loss": self.loss,
            "weight": self.weight,
            "batches": self.batches,
            "counted": self.counted,
            "totals": dict(self.totals),
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restore a state; if it does not fit, nothing is changed."""
        check_state(state_dict, self.state_dict(), "the tally")
        totals = state_dict["totals"]
        check_state(totals, {}, "the totals of the metrics")
        if set(totals) != set(self.means):
            raise ValueError(
                f"the checkpoint is of a run with the metrics [{', '.join(totals)}], this one "
                f"has [{', '.join(self.means)}]; resume with the metrics that it began with"
            )
        loss = number(state_dict["loss"], "the loss of the epoch so far")
        weight = number(state_dict["weight"], "the weight of the epoch so far", 0)
        batches = integer(state_dict["batches"], "the batches of the epoch so far", 0)
        counted = integer(state_dict["counted"], "the targets of the epoch so far", 0)
        # A metric may be NaN.
        totals = {name: float(totals[name]) for name in self.means}
        self.loss, self.weight, self.totals = loss, weight, totals
        self.batches, self.counted = batches, counted


def check_state(state: Any, names: Mapping[str, Any], what: str) -> None:
    """Raise a ValueError unless `state` is a mapping that has all of `names`."""
    if not isinstance(state, Mapping):
        raise ValueError(f"the state of {what} must be a dict, got {state!r:.80}")
    missing = [name for name in names if name not in state]
    if missing:
        raise ValueError(f"the state of {what} lacks {missing[0]!r}")


def _joined(parts: tuple[Any, ...]) -> Any:
    """Return the arrays of all batches as one; of tuples of arrays, a tuple."""
    if parts[0] is None:
        return None
    if isinstance(parts[0], tuple):
        return tuple(np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return np.concatenate(parts)


def _figure(name: str, metric: Metric, predictions: Any, targets: Any) -> float:
    try:
        figure = metric(predictions, targets)
    except (TypeError, ValueError) as error:
        if not isinstance(predictions, tuple):
            raise
        raise ValueError(
            f"the metric {name!r} got a tuple of {len(predictions)} outputs: {error}; give a "
            f"function of them, such as lambda outputs, targets: r2_score(outputs[0], targets)"
        ) from error
    if np.ndim(figure) != 0:
        raise TypeError(
            f"the metric {name!r} must give a number, got an array of shape {np.shape(figure)}"
        )
    return float(figure)


def _ratio(total: float, count: float) -> float:
    return total / count if count else math.nan
