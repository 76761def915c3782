"""Averages of the weights of a training: `AveragedModel`, and the callbacks `EMA` and `SWA`."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from ..checks import boolean, integer, number
from ..engine.arrays import Array
from ..layer import Layer
from ..modes import no_grad
from ..random import unmoved
from .arguments import check_layer
from .callbacks import Callback
from .state import Training
from .together import generators_of

_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


class AveragedModel(Layer):
    """A copy of a model whose parameters are averages over the updates of the model.

    Parameters
    ----------
    model : Layer
    decay : float in [0, 1), optional
        Decay rate of an exponential moving average (EMA). By default all updates count alike, as in
        stochastic weight averaging (SWA).
    use_buffers : bool, default False
        Whether buffers such as running statistics are averaged too. By default they are copied;
        `update_bn` then computes the statistics that belong to the averaged weights.

    Attributes
    ----------
    module : Layer
        The model with the averages.
    n_averaged : ndarray
        The number of updates.

    Notes
    -----
    With the parameters θ of the model, n updates before and the average a::

        a ← θ                               for n = 0
        a ← a + (θ - a) / (n + 1)           SWA
        a ← a + (1 - decay) (θ - a)         EMA

    The keys of the state dict are PyTorch's.

    References
    ----------
    P. Izmailov et al., "Averaging weights leads to wider optima and better generalization", UAI
    2018. B. Polyak, A. Juditsky, "Acceleration of stochastic approximation by averaging", SIAM
    Journal on Control and Optimization 30, 1992.

    Examples
    --------
    >>> import nnlite as nn
    >>> model = nn.Linear(1, 1, bias=False)
    >>> average = nn.AveragedModel(model)
    >>> for weight in (1.0, 2.0, 6.0):
    ...     model.weight.data[...] = weight
    ...     average.update_parameters(model)
    >>> average.module.weight.data
    array([[3.]], dtype=float32)
    """

    module: Layer
    decay: float | None
    use_buffers: bool
    n_averaged: Array

    def __init__(self, model: Layer, decay: float | None = None, use_buffers: bool = False) -> None:
        check_layer(model, "model", "AveragedModel")
        self.decay = None if decay is None else _checked_decay(decay, "AveragedModel")
        self.use_buffers = boolean(use_buffers, "AveragedModel: use_buffers")
        self.register_buffer("n_averaged", np.zeros((), np.int64))
        self.module = copy.deepcopy(model)

    def forward(self, *inputs: Any, **options: Any) -> Any:
        return self.module(*inputs, **options)

    def backward(self, grad: Any, input_grad: bool = True) -> Any:
        return self.module.backward(grad, input_grad)

    def update_parameters(self, model: Layer) -> None:
        """Let the present parameters of `model` into the averages.

        Raises
        ------
        ValueError
            If its parameters have other names or shapes. Nothing is changed then.
        """
        names = [(name, p.shape) for name, p in self.module.named_parameters()]
        if names != [(name, p.shape) for name, p in model.named_parameters()]:
            raise ValueError(
                f"{self.label}: the parameters of {model.label} are not those averaged"
            )
        count = int(self.n_averaged)
        weight = 1 / (count + 1) if self.decay is None or not count else 1 - self.decay
        for average, parameter in zip(self.module.parameters(), model.parameters(), strict=True):
            _move(average.data, parameter.data, weight)
        for buffer, value in zip(_buffers(self.module), _buffers(model), strict=True):
            averaged = self.use_buffers and value.dtype.kind == "f"
            _move(buffer, value, weight if averaged else 1.0)
        self.n_averaged += 1


def _move(average: Array, value: Array, weight: float) -> None:
    average[...] = value if weight == 1 else average + weight * (value - average)


def _buffers(model: Layer) -> Iterator[Array]:
    for layer in model.layers():
        for name in layer._buffer_names:
            value = getattr(layer, name)
            if value is not None:
                yield value


def _checked_decay(decay: Any, name: str) -> float:
    return number(decay, f"{name}: decay", 0, 1)


def update_bn(batches: Iterable[Any], model: Layer) -> None:
    """Compute the running statistics of batch normalisation anew, for the present weights.

    Parameters
    ----------
    batches : iterable
        Inputs, or pairs (inputs, targets), such as a `DataLoader`. A tuple of inputs is several.
    model : Layer
        In any mode, which it keeps.

    Raises
    ------
    ValueError
        If there are no batches. After an error the statistics are as before.

    Notes
    -----
    The statistics become the averages over all batches, each of which counts alike.

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> model = nn.Sequential(nn.BatchNorm1d(1))
    >>> nn.update_bn([np.array([[1.0], [3.0]]), np.array([[5.0], [7.0]])], model)
    >>> model[0].running_mean
    array([4.], dtype=float32)
    """
    check_layer(model, "model", "update_bn")
    layers: list[Any] = [layer for layer in model.layers() if _has_statistics(layer)]
    if not layers:
        return
    modes = [(layer, layer.training) for layer in model.layers()]
    momenta = [layer.momentum for layer in layers]
    before = [[getattr(layer, name).copy() for name in _STATISTICS] for layer in layers]
    try:
        model.train()
        for layer in layers:
            layer.momentum = None
            for name, value in zip(_STATISTICS, (0, 1, 0), strict=True):
                getattr(layer, name)[...] = value
        with no_grad():
            for batch in batches:
                if isinstance(batch, tuple) and not batch:  # in the parts of other processes
                    continue
                inputs = batch[0] if isinstance(batch, (tuple, list)) else batch
                model(*inputs) if isinstance(inputs, tuple) else model(inputs)
        if not any(layer.num_batches_tracked for layer in layers):
            raise ValueError("update_bn: there are no batches")
    except BaseException:
        for layer, values in zip(layers, before, strict=True):
            for name, value in zip(_STATISTICS, values, strict=True):
                getattr(layer, name)[...] = value
        raise
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
        for layer, mode in modes:
            layer.training = mode


def _has_statistics(layer: Any) -> bool:
    return all(getattr(layer, name, None) is not None for name in _STATISTICS)


class _Averaging(Callback):
    """Average the weights in a run of `fit`, and leave the averages in the model.

    While the model has the averages, `_average` has the weights of the last step.
    """

    _average: AveragedModel

    def __init__(self, decay: float | None, update_bn: bool) -> None:
        name = type(self).__name__
        self.decay = None if decay is None else _checked_decay(decay, name)
        self.update_bn = boolean(update_bn, f"{name}: update_bn")
        self._swapped = False

    def on_fit_begin(self, training: Training) -> None:
        self._average = AveragedModel(training.model, self.decay)
        self._swapped = False

    def on_resume(self, training: Training) -> None:
        if self._swapped:
            self._swap(training.model)

    def on_fit_end(self, training: Training) -> None:
        if self._average.n_averaged:
            self._swap(training.model)
            if self.update_bn:
                with _unmoved(training):
                    update_bn(training.train, training.model)
                    training.processes.average(list(training.model.buffers()))

    def _swap(self, model: Layer) -> None:
        weights = model.state_dict()
        model.load_state_dict(self._average.module.state_dict())
        self._average.module.load_state_dict(weights)
        self._swapped = not self._swapped

    def state_dict(self) -> dict[str, Any]:
        """Return the state, with the averages, for `load_state_dict`."""
        return {
            "decay": self.decay,
            "swapped": self._swapped,
            "average": self._average.state_dict(),
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restore a state.

        Raises
        ------
        ValueError
            If it is of another decay or model.
        """
        if state_dict["decay"] != self.decay:
            raise ValueError(
                f"{type(self).__name__}: the state is of decay={state_dict['decay']!r:.80}, this "
                f"one has {self.decay!r}"
            )
        self._average.load_state_dict(state_dict["average"])
        self._swapped = bool(state_dict["swapped"])


class EMA(_Averaging):
    """Callback: the exponential moving average of the weights over the steps.

    Parameters
    ----------
    decay : float in [0, 1), default 0.999
        Decay rate: the average is over about ``1 / (1 - decay)`` steps.
    update_bn : bool, default True
        Whether the running statistics of batch normalisation are computed anew at the end, for the
        averaged weights, from another pass over the training data.

    Notes
    -----
    The model has the averages when `fit` returns, and during it the weights that are trained. For
    an average of a loop of your own, see `AveragedModel`. A run that is resumed continues from the
    weights of its last step.

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> x = np.linspace(-1, 1, 20, dtype=np.float32)[:, None]
    >>> model = nn.Linear(1, 1, rng=0)
    >>> history = nn.fit(
    ...     model, nn.MeanSquaredError(), nn.SGD(model.parameters(), lr=0.1), [(x, 2 * x)],
    ...     epochs=100, callbacks=[nn.EMA(decay=0.9)], progress=False,
    ... )
    >>> bool(abs(model.weight.data.item() - 2) < 0.1)
    True
    """

    def __init__(self, decay: float = 0.999, update_bn: bool = True) -> None:
        super().__init__(decay, update_bn)

    def on_step_end(self, training: Training) -> None:
        self._average.update_parameters(training.model)


class SWA(_Averaging):
    """Callback: stochastic weight averaging, the mean of the weights after the last epochs.

    Parameters
    ----------
    start : int
        The first epoch, counted from 1, whose weights are averaged. Those of every later epoch are
        too.
    update_bn : bool, default True
        As for `EMA`.

    Notes
    -----
    The model has the averages when `fit` returns. The learning rate of the epochs that are averaged
    is constant or cyclic, and rather high: see `ConstantLR` and `CyclicLR`.

    References
    ----------
    P. Izmailov et al., "Averaging weights leads to wider optima and better generalization", UAI
    2018.

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> x = np.linspace(-1, 1, 20, dtype=np.float32)[:, None]
    >>> model = nn.Linear(1, 1, rng=0)
    >>> history = nn.fit(
    ...     model, nn.MeanSquaredError(), nn.SGD(model.parameters(), lr=0.1), [(x, 2 * x)],
    ...     epochs=100, callbacks=[nn.SWA(start=81)], progress=False,
    ... )
    >>> bool(abs(model.weight.data.item() - 2) < 0.1)
    True
    """

    def __init__(self, start: int, update_bn: bool = True) -> None:
        super().__init__(None, update_bn)
        self.start = integer(start, "SWA: start")

    def on_epoch_end(self, training: Training) -> None:
        if training.epoch >= self.start:
            self._average.update_parameters(training.model)


@contextlib.contextmanager
def _unmoved(training: Training) -> Iterator[None]:
    """Context after which the loader and all generators are as before."""
    loader: Any = training.train
    with unmoved(generators_of(training)):
        position = loader.state_dict() if hasattr(loader, "state_dict") else None
        try:
            yield
        finally:
            if position is not None:
                loader.load_state_dict(position)
