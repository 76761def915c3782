"""``Histograms``: the distribution of weights and activations over training."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..checks import integer
from ..engine.arrays import Array
from ..layer import Layer
from ..modes import no_grad
from ..training.callbacks import Callback
from ..training.state import Training
from .isolation import (
    intercept,
    is_floats,
    isolated_copy,
    named_innermost,
    package_generator_kept,
)


class Histograms(Callback):
    """Record histograms of the weights, and of the activations for a fixed batch, in each epoch.

    `nnlite.plot_histograms` draws them.

    Parameters
    ----------
    *inputs : array_like
        A batch of inputs of the model. Without it, there are no activations.
    bins : int, default 40

    Attributes
    ----------
    epochs : list of int
        Before the first epoch it is 0.
    weights, activations : dict of str to list of (counts, edges)
        For the name of each parameter or layer, the histogram of each epoch, as `numpy.histogram`
        returns it. Values that are not finite are left out.

    Raises
    ------
    ValueError, TypeError
        If `bins` is not a number above 0; from `fit`, if the inputs do not fit the model.

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> x = np.random.default_rng(0).normal(size=(64, 2)).astype(np.float32)
    >>> model = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 1))
    >>> histograms = nn.Histograms(x)
    >>> history = nn.fit(
    ...     model, nn.MeanSquaredError(), nn.SGD(model.parameters(), lr=0.1), [(x, x[:, :1])],
    ...     epochs=3, callbacks=[histograms], progress=False,
    ... )
    >>> histograms.epochs
    [0, 1, 2, 3]
    >>> list(histograms.weights), list(histograms.activations)
    (['0.weight', '0.bias', '2.weight', '2.bias'], ['0', '1', '2'])
    """

    epochs: list[int]
    weights: dict[str, list[tuple[Array, Array]]]
    activations: dict[str, list[tuple[Array, Array]]]

    def __init__(self, *inputs: ArrayLike, bins: int = 40) -> None:
        self._inputs = tuple(map(np.asarray, inputs))
        self.bins = integer(bins, "Histograms: bins")
        self._reset()

    def _reset(self) -> None:
        self.epochs, self.weights, self.activations = [], {}, {}

    def on_fit_begin(self, training: Training) -> None:
        self._reset()
        self._record(training)

    def on_epoch_end(self, training: Training) -> None:
        self._record(training)

    def _record(self, training: Training) -> None:
        model = training.model
        outputs = outputs_of(model, self._inputs) if self._inputs else {}
        self.epochs.append(training.epoch)
        for name, parameter in model.named_parameters():
            self.weights.setdefault(name, []).append(self._histogram(parameter.data))
        for name, output in outputs.items():
            self.activations.setdefault(name, []).append(self._histogram(output))

    def _histogram(self, values: Array) -> tuple[Array, Array]:
        counts, edges = np.histogram(values[np.isfinite(values)], bins=self.bins)
        return counts, edges

    def state_dict(self) -> dict[str, Any]:
        """Return the histograms so far, for `load_state_dict`."""
        return {
            "epochs": list(self.epochs),
            "weights": _as_lists(self.weights),
            "activations": _as_lists(self.activations),
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restore the histograms of a checkpoint."""
        self.epochs = [int(epoch) for epoch in state_dict["epochs"]]
        self.weights = _as_pairs(state_dict["weights"])
        self.activations = _as_pairs(state_dict["activations"])


def outputs_of(model: Layer, inputs: tuple[Any, ...]) -> dict[str, Array]:
    """Return the output of each layer without sub-layers, in evaluation mode, by its name."""
    copy = isolated_copy(model).eval()
    found: dict[str, Array] = {}
    for name, layer in named_innermost(copy):
        intercept(layer, "forward", functools.partial(_keep, found, name or "output"))
    with no_grad(), package_generator_kept():
        copy(*inputs)
    return found


def _keep(
    found: dict[str, Array], name: str, forward: Callable[..., Any], *inputs: Any, **options: Any
) -> Any:
    output = forward(*inputs, **options)
    if is_floats(output):
        found[name] = np.array(output)
    return output


def _as_lists(histograms: Mapping[str, list[tuple[Array, Array]]]) -> dict[str, Any]:
    return {name: [list(pair) for pair in pairs] for name, pairs in histograms.items()}


def _as_pairs(saved: Mapping[str, Any]) -> dict[str, list[tuple[Array, Array]]]:
    return {
        str(name): [(np.asarray(counts), np.asarray(edges)) for counts, edges in pairs]
        for name, pairs in saved.items()
    }
