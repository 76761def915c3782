"""Recurrent layers: the same weights at every step of a sequence, and backpropagation through time.

`RNN`, `LSTM` and `GRU` are the formulas of one step, forward and backward. `_Recurrent` stacks
layers and directions, and ``nnlite.engine.scan`` applies a cell to all steps of a sequence. The
reverse direction is the same cell on the reversed sequence.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Sequence
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from .. import init
from ..checks import as_floats, as_output_grad, boolean, integer, number, one_of
from ..engine.arrays import Array
from ..engine.blas import column_sums, product
from ..engine.memory import empty
from ..engine.scan import (
    Arrays,
    Cell,
    Layout,
    Steps,
    Terms,
    Weights,
    batch_first,
    in_gates,
    scan,
    scan_back,
    time_first,
)
from ..layer import Layer
from ..modes import is_grad_enabled
from ..parameter import Parameter
from ..random import RandomState, generator


class _Weights(NamedTuple):
    """The parameters of one layer in one direction."""

    ih: Parameter
    hh: Parameter
    biases: tuple[Parameter, Parameter] | None  # b_ih, b_hh

    @property
    def data(self) -> Weights:
        biases = None
        if self.biases is not None:
            biases = (self.biases[0].data, self.biases[1].data)
        return Weights(self.ih.data, self.hh.data, biases)


class _Recurrent(Layer):
    """Layers, directions, initial and final states of `RNN`, `LSTM` and `GRU`.

    A subclass defines the formulas of one step: see `nnlite.engine.scan.Cell`. Between `forward`
    and `backward` sequences are (L, features, N).
    """

    input_size: int
    hidden_size: int
    num_layers: int
    bias: bool
    dropout: float
    bidirectional: bool
    outputs: str
    truncate: int | None
    last_state: Any
    weight_ih_l0: Parameter
    weight_hh_l0: Parameter

    _accepted = MappingProxyType({"batch_first": (True,)})
    _layout: ClassVar[Layout]

    def _step(self, gates: Arrays, before: Arrays, after: Arrays) -> None:
        raise NotImplementedError

    def _local_derivatives(self, gates: Arrays, before: Arrays, after: Arrays) -> Arrays:
        raise NotImplementedError

    def _step_back(self, local: Arrays, d_state: Arrays, d_sums: Arrays) -> Sequence[Array | None]:
        raise NotImplementedError

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        *,
        dropout: float = 0.0,
        bidirectional: bool = False,
        outputs: str = "all",
        truncate: int | None = None,
        rng: RandomState = None,
    ) -> None:
        name = type(self).__name__
        self.input_size = integer(input_size, f"{name}: input_size")
        self.hidden_size = integer(hidden_size, f"{name}: hidden_size")
        self.num_layers = integer(num_layers, f"{name}: num_layers")
        self.bias = boolean(bias, f"{type(self).__name__}: bias")
        self.dropout = number(dropout, f"{name}: dropout", 0, 1)
        if self.dropout and self.num_layers == 1:
            warnings.warn(
                f"{name}: dropout acts between layers, so dropout={dropout} with num_layers=1 "
                f"drops nothing; put nn.Dropout({dropout}) behind it",
                UserWarning,
                # A subclass with a constructor of its own is one call further from the user.
                stacklevel=5 if "__init__" in vars(type(self)) else 3,
            )
        self.bidirectional = boolean(bidirectional, f"{type(self).__name__}: bidirectional")
        self.outputs = one_of(outputs, ("all", "last"), f"{name}: outputs")
        self.truncate = truncate if truncate is None else integer(truncate, f"{name}: truncate")
        self.last_state = None
        self._rng = rng if rng is None else generator(rng)
        rows = self._layout.gates * self.hidden_size
        for layer in range(self.num_layers):
            features = self._directions * self.hidden_size if layer else self.input_size
            for direction in range(self._directions):
                shapes: dict[str, tuple[int, ...]] = {
                    "weight_ih": (rows, features),
                    "weight_hh": (rows, self.hidden_size),
                }
                if self.bias:
                    shapes |= {"bias_ih": (rows,), "bias_hh": (rows,)}
                for kind, shape in shapes.items():
                    parameter = Parameter(np.empty(shape, np.float32))
                    init.default_(parameter, self.hidden_size, rng=self._rng)
                    setattr(self, f"{kind}_{_suffix(layer, direction)}", parameter)

    @property
    def _directions(self) -> int:
        return 2 if self.bidirectional else 1

    @property
    def _cell(self) -> Cell:
        return Cell(self._layout, self._step, self._local_derivatives, self._step_back)

    def _weights(self, layer: int, direction: int) -> _Weights:
        suffix, biases = _suffix(layer, direction), None
        if self.bias:
            biases = (getattr(self, f"bias_ih_{suffix}"), getattr(self, f"bias_hh_{suffix}"))
        return _Weights(
            getattr(self, f"weight_ih_{suffix}"), getattr(self, f"weight_hh_{suffix}"), biases
        )

    def __getstate__(self) -> dict[str, Any]:
        return {
            **super().__getstate__(),
            "last_state": None,
        }  # it is of the last batch, as caches are

    # ---- forward ----

    def forward(self, x: Array, *state: Any, mask: ArrayLike | None = None) -> Array:
        """Return the outputs for the sequences `x`.

        Parameters
        ----------
        x : ndarray of shape (N, L, input_size)
        *state : ndarray of shape (num_layers · directions, N, hidden_size), optional
            The initial state: ``h0``; for an `LSTM` ``h0, c0``, or both in a tuple, as in
            `last_state`. Zero by default.
        mask : array_like of bool, shape (N, L), optional
            False where a shorter sequence is padded. There the state does not change, the output
            is 0 and the input is ignored. A `Graph` passes it as ``{"mask": "name"}``, so that it
            can be an input of a model that `fit` trains.

        Returns
        -------
        ndarray of shape (N, L, directions · hidden_size) or (N, directions · hidden_size)
            For ``outputs="all"`` and ``outputs="last"``.

        Raises
        ------
        ValueError
            If the input, the state or the mask has a wrong shape, or if the sequences are empty.
        TypeError
            If the input or the state is not of floats, or the mask not of booleans.
        """
        x = self._sequences(x)
        initial = self._states(state, len(x), "the initial state")
        absent = self._absent(mask, x.shape)
        # The memory of the last forward is free for this one, unless its output is still in use.
        self.drop_cache()

        sequence = time_first(x, absent)
        runs: list[tuple[_Weights, Steps]] = []
        drops: list[Array | None] = []
        for layer in range(self.num_layers):
            sequence, drop = self._drop(sequence) if layer else (sequence, None)
            drops.append(drop)
            hidden: list[Array] = []
            for direction in range(self._directions):
                turn, weights = _turn(direction), self._weights(layer, direction)
                steps = scan(
                    self._cell,
                    weights.data,
                    sequence[turn],
                    [array[len(runs)].T for array in initial] or None,
                    None if absent is None else absent[turn],
                    keep=is_grad_enabled(),
                )
                runs.append((weights, steps))
                hidden.append(steps.states[0][1:][turn])
            sequence = hidden[0]
            if self.bidirectional:
                both = empty((len(sequence), 2 * self.hidden_size, len(x)), sequence.dtype)
                sequence = np.concatenate(hidden, axis=1, out=both)

        final = tuple(
            np.array([state[-1].T for state in states])
            for states in zip(*(steps.states for _, steps in runs), strict=True)
        )
        # A prediction leaves the state of a forward of another thread, as it leaves its cache.
        if is_grad_enabled() or self._cache.values is None:
            self.last_state = final if len(final) > 1 else final[0]
        self.cache(x.shape, state, runs, drops, absent)
        output: Array
        if self.outputs == "last":
            output = np.concatenate(final[0][-self._directions :], axis=1)
        else:
            output = batch_first(sequence, absent)
        return output

    # ---- backward ----

    def backward(self, grad: Array, input_grad: bool = True, state_grad: Any = None) -> Any:
        """Return dL/dx, and the gradient of the initial state if `forward` was given one.

        Parameters
        ----------
        grad : ndarray
            dL/d(output), of the shape of the output.
        input_grad : bool, default True
            False skips the gradients of the inputs and returns None.
        state_grad : ndarray or tuple of ndarray, optional
            dL/d(`last_state`), for a loss that also depends on the final state, for example as the
            initial state of another layer.

        Returns
        -------
        ndarray, tuple, or None
            dL/dx alone; or (dL/dx, dL/dh0); for an `LSTM` (dL/dx, dL/dh0, dL/dc0), or
            (dL/dx, (dL/dh0, dL/dc0)) if the state was given as a tuple.

        Raises
        ------
        RuntimeError
            If `forward` was not called before.
        ValueError
            If `grad` or `state_grad` has a wrong shape.
        """
        shape, state, runs, drops, absent = self.cached()
        batch, length, _ = shape
        width = self._directions * self.hidden_size
        last_only = self.outputs == "last"
        output_shape = (batch, width) if last_only else (batch, length, width)
        grad = as_output_grad(self, grad, output_shape, self.weight_hh_l0.dtype)
        # dL/d(final state) of each run, and later dL/d(initial state).
        d_states = self._final_gradients(state_grad, batch)
        flow = None  # dL/d(output of the layer)
        started = bool(state) and state[0] is not None
        if last_only:
            for direction in range(self._directions):
                d_hidden = d_states[direction - self._directions][0]
                d_hidden += grad[:, self._features_of(direction)].T
        else:
            flow = np.ascontiguousarray(time_first(grad, absent))

        for layer in reversed(range(self.num_layers)):
            below: Array | None = None
            for direction in range(self._directions):
                index = layer * self._directions + direction
                turn, (weights, steps) = _turn(direction), runs[index]
                d_sequence, d_states[index] = scan_back(
                    self._cell,
                    weights.data,
                    steps,
                    None if flow is None else flow[turn, self._features_of(direction)],
                    d_states[index],
                    functools.partial(self._accumulate, weights),
                    truncate=self.truncate,
                    start_grad=input_grad and started,
                    input_grad=input_grad or layer > 0,
                )
                if below is None:
                    below = d_sequence
                elif d_sequence is not None:
                    below += d_sequence[turn]
            flow = below
            if flow is not None and drops[layer] is not None:
                flow *= drops[layer]

        if flow is None:
            return None
        dx = flow.transpose(2, 0, 1)
        if not state:
            return dx
        if not started:
            return dx, None
        d_initial = tuple(np.array(arrays).swapaxes(1, 2) for arrays in zip(*d_states, strict=True))
        return (dx, d_initial) if isinstance(state[0], tuple) else (dx, *d_initial)

    def _accumulate(self, weights: _Weights, terms: Terms) -> None:
        """Add the terms of a chunk of steps to the gradients of the weights."""
        d_u, d_v, x, h = terms
        weights.ih.accumulate_product(d_u, x.T)  # dL/dW_ih = Σ_t dL/du_tᵀ x_t
        is_shared = not self._layout.separate  # u and v are added, and have one gradient
        if is_shared:
            weights.hh.accumulate_product(d_v, h.T)  # dL/dW_hh = Σ_t dL/dv_tᵀ h_{t-1}
        else:
            weights.hh.accumulate(in_gates(self._layout, product(d_v, h.T)))
        if weights.biases is not None:
            bias_ih, bias_hh = weights.biases
            sums = column_sums(d_u.T)
            bias_ih.accumulate(sums)
            bias_hh.accumulate(sums if is_shared else in_gates(self._layout, column_sums(d_v.T)))

    # ---- inputs ----

    def multiply_adds(
        self, input_shapes: tuple[tuple[int, ...], ...], output_shape: tuple[int, ...]
    ) -> int:
        batch, length, _ = input_shapes[0]
        # Every weight is used once in each step.
        return batch * length * sum(p.size for p in self.parameters() if len(p.shape) == 2)

    def _sequences(self, x: Array) -> Array:
        """Return the input as an array (N, L, input_size) of the parameters' dtype."""
        shape = np.shape(x)
        if len(shape) == 3 and shape[1] == 0:
            raise ValueError(
                f"{self.label}: expected sequences of one step at least, "
                f"got input of shape {shape}, which is empty"
            )
        x = as_floats(self, x, self.weight_ih_l0.dtype)
        if x.ndim != 3 or shape[2] != self.input_size:
            raise ValueError(self._shape_fault(shape))
        return x

    def _shape_fault(self, shape: tuple[int, ...]) -> str:
        fault = f"{self.label}: expected input of shape (N, L, {self.input_size}), got {shape}"
        if len(shape) == 2 and shape[1] == self.input_size:
            return f"{fault}; add a batch axis: x[None]"
        if len(shape) == 4 and shape[1] == 1 and shape[3] == self.input_size:
            return f"{fault}; take the rows of the images as steps: x[:, 0]"
        if len(shape) == 3 and shape[1] == self.input_size:
            return f"{fault}; put the features last: x.swapaxes(1, 2)"
        return fault

    def _states(self, values: tuple[Any, ...], batch: int, what: str) -> list[Array]:
        """Check the arrays of a state, or of its gradient, and return them; none for None."""
        if not values or (len(values) == 1 and values[0] is None):
            return []
        if len(values) == 1 and isinstance(values[0], tuple):
            values = values[0]
        names = ("h0", "c0")[: self._layout.states]
        if len(values) != len(names):
            raise ValueError(
                f"{self.label}: expected {what} as {' and '.join(names)}, got {len(values)} "
                f"array{'' if len(values) == 1 else 's'}; last_state has the right form"
            )
        shape = (self.num_layers * self._directions, batch, self.hidden_size)
        arrays = []
        for name, value in zip(names, values, strict=True):
            array = as_floats(self, value, self.weight_hh_l0.dtype, f"{what} {name}")
            if array.shape != shape:
                raise ValueError(
                    f"{self.label}: expected {what} {name} of shape {shape} "
                    f"(layers * directions, N, hidden_size), got {array.shape}"
                )
            arrays.append(array)
        return arrays

    def _final_gradients(self, state_grad: Any, batch: int) -> list[list[Array]]:
        """Return dL/d(final state) of each run, (H, N), in arrays that may be overwritten."""
        given = self._states((state_grad,), batch, "state_grad, the gradient of last_state,")
        runs = self.num_layers * self._directions
        if given:
            return [[np.array(array[run].T, order="C") for array in given] for run in range(runs)]
        shape, dtype = (self.hidden_size, batch), self.weight_hh_l0.dtype
        return [[np.zeros(shape, dtype) for _ in range(self._layout.states)] for _ in range(runs)]

    def _absent(self, mask: ArrayLike | None, shape: tuple[int, ...]) -> Array | None:
        """Return where a step is absent, (L, 1, N), or None if all sequences have all steps."""
        if mask is None:
            return None
        present = np.asarray(mask)
        if present.dtype != np.bool_:
            raise TypeError(
                f"{self.label}: expected a mask of booleans, got dtype {present.dtype}; "
                f"from lengths, it is np.arange(L) < lengths[:, None]"
            )
        if present.shape != shape[:2]:
            raise ValueError(
                f"{self.label}: input of shape {shape} needs a mask of shape {shape[:2]}, "
                f"got {present.shape}"
            )
        return None if present.all() else ~present.T[:, None]

    # ---- layers and directions ----

    def _drop(self, sequence: Array) -> tuple[Array, Array | None]:
        """Apply dropout; return the result and its factors, None if nothing is dropped."""
        if not (self.dropout and self.training):
            return sequence, None
        kept = generator(self._rng).random(sequence.shape, np.float32) >= self.dropout
        scale = 1 / (1 - self.dropout) if self.dropout < 1 else 0
        factors: Array = np.multiply(kept, scale, dtype=sequence.dtype)
        return sequence * factors, factors

    def _features_of(self, direction: int) -> slice:
        """Return which features of the output belong to `direction`."""
        return slice(direction * self.hidden_size, (direction + 1) * self.hidden_size)


def _suffix(layer: int, direction: int) -> str:
    return f"l{layer}_reverse" if direction else f"l{layer}"


def _turn(direction: int) -> slice:
    """Return the slice that reverses a sequence if `direction` is the reverse one."""
    return slice(None, None, -1 if direction else 1)


class RNN(_Recurrent):
    """Elman's recurrent layer: ``h_t = tanh(x_t W_ihᵀ + b_ih + h_{t-1} W_hhᵀ + b_hh)``.

    Parameters
    ----------
    input_size : int
        Number of features of the input.
    hidden_size : int
        Number of features of the hidden state.
    num_layers : int, default 1
        Number of stacked layers; the outputs of each are the inputs of the next.
    nonlinearity : {"tanh", "relu"}
        The activation function; with "relu", h_t = max(0, …).
    bias : bool, default True
        Whether to add the biases b_ih and b_hh.
    dropout : float, default 0
        Probability of setting a feature to 0 between two layers, in training mode.
    bidirectional : bool, default False
        Whether each layer also runs from the last step to the first, with weights of its own. The
        outputs of both directions are concatenated, forward direction first.
    outputs : {"all", "last"}
        "all" returns the hidden state of the last layer after every step, (N, L, features); "last"
        the one after the last step, (N, features). The last step of the reverse direction is the
        first of the sequence.
    truncate : int, optional
        Truncated backpropagation through time: gradients do not cross the boundaries between
        windows of this many steps, counted from the end of the sequence. Every step still gets the
        gradient of its output. By default gradients flow through the whole sequence.
    rng : int, numpy.random.Generator or None
        Random generator of the initial values, uniform on ±1/√hidden_size as in PyTorch, and of the
        dropout.

    Attributes
    ----------
    weight_ih_l0 : Parameter of shape (hidden_size, input_size)
        For layer k, ``weight_ih_l{k}``, of shape (hidden_size, directions · hidden_size) for k > 0;
        with the suffix ``_reverse`` for the reverse direction. The names are PyTorch's.
    weight_hh_l0 : Parameter of shape (hidden_size, hidden_size)
    bias_ih_l0, bias_hh_l0 : Parameter of shape (hidden_size,)
    last_state : ndarray of shape (num_layers · directions, N, hidden_size), or None
        The state after the last step of the latest forward, and thus the initial state for the
        next part of the sequence. None before the first forward.

    Raises
    ------
    ValueError, TypeError
        If an argument is out of range or of a wrong type.

    Notes
    -----
    Shapes: x (N, L, input_size), h0 (num_layers · directions, N, hidden_size), as PyTorch has them
    with ``batch_first=True``. a_t is the argument of the tanh, y_t = h_t the output, and
    dh = dL/dh_t the sum of dL/dy_t and the gradient from step t + 1::

        dL/da_t = dh (1 - h_t²)             relu: dh [h_t > 0]
        dL/dh_{t-1} = dL/dy_{t-1} + dL/da_t W_hh
        dL/dx_t = dL/da_t W_ih
        dL/dW_ih = Σ_t dL/da_tᵀ x_t         dL/dW_hh = Σ_t dL/da_tᵀ h_{t-1}
        dL/db_ih = dL/db_hh = Σ_t Σ_n dL/da_t

    References
    ----------
    J. Elman, "Finding structure in time", Cognitive Science 14, 1990.
    P. Werbos, "Backpropagation through time: what it does and how to do it", Proceedings of the
    IEEE 78, 1990.
    R. Williams, J. Peng, "An efficient gradient-based algorithm for on-line training of recurrent
    network trajectories", Neural Computation 2, 1990 (truncation).

    Examples
    --------
    The rows of an image as a sequence, classified by the state after the last row:

    >>> import numpy as np
    >>> import nnlite as nn
    >>> images = np.zeros((64, 28, 28), dtype=np.float32)
    >>> model = nn.Sequential(nn.RNN(28, 128, outputs="last"), nn.Linear(128, 10))
    >>> model(images).shape
    (64, 10)

    A long sequence in parts, each of which continues from the state of the one before:

    >>> rnn = nn.RNN(3, 5)
    >>> state = None
    >>> for part in np.split(np.zeros((2, 40, 3), dtype=np.float32), 4, axis=1):
    ...     y = rnn(part, state)
    ...     state = rnn.last_state
    >>> y.shape, state.shape
    ((2, 10, 5), (1, 2, 5))
    """

    nonlinearity: str

    _layout = Layout(("linear",), in_place=True)

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        bias: bool = True,
        *,
        dropout: float = 0.0,
        bidirectional: bool = False,
        outputs: str = "all",
        truncate: int | None = None,
        rng: RandomState = None,
    ) -> None:
        self.nonlinearity = one_of(nonlinearity, ("tanh", "relu"), "RNN: nonlinearity")
        super().__init__(
            input_size,
            hidden_size,
            num_layers,
            bias,
            dropout=dropout,
            bidirectional=bidirectional,
            outputs=outputs,
            truncate=truncate,
            rng=rng,
        )

    def _step(self, gates: Arrays, before: Arrays, after: Arrays) -> None:
        a, h = gates[0], after[0]
        if self.nonlinearity == "tanh":
            np.tanh(a, out=h)  # h_t = tanh(a_t)
        else:
            np.maximum(a, 0, out=h)  # h_t = max(0, a_t)

    def _local_derivatives(self, gates: Arrays, before: Arrays, after: Arrays) -> Arrays:
        (h,) = after
        slope = empty(h.shape, h.dtype)
        if self.nonlinearity == "tanh":
            np.multiply(h, h, out=slope)
            np.subtract(1, slope, out=slope)
        else:
            np.greater(h, 0, out=slope)
        return (slope,)

    def _step_back(self, local: Arrays, d_state: Arrays, d_sums: Arrays) -> Sequence[Array | None]:
        np.multiply(d_state[0], local[0], out=d_sums[0])  # dL/da_t = dh (1 - h_t²), or dh [h_t > 0]
        return (None,)


class LSTM(_Recurrent):
    """Long short-term memory: gates decide what a cell state takes in, keeps and shows.

    Parameters
    ----------
    input_size : int
        Number of features of the input.
    hidden_size : int
        Number of features of the hidden state h and of the cell state c.
    num_layers, bias, dropout, bidirectional, outputs, truncate, rng
        As in `RNN`.

    Attributes
    ----------
    weight_ih_l0 : Parameter of shape (4 · hidden_size, input_size)
        The rows of the gates i, f, g, o, in this order. For layer k, ``weight_ih_l{k}``; with the
        suffix ``_reverse`` for the reverse direction. The names are PyTorch's.
    weight_hh_l0 : Parameter of shape (4 · hidden_size, hidden_size)
    bias_ih_l0, bias_hh_l0 : Parameter of shape (4 · hidden_size,)
    last_state : tuple of two ndarray of shape (num_layers · directions, N, hidden_size), or None
        h and c after the last step of the latest forward: see `RNN`.

    Raises
    ------
    ValueError, TypeError
        If an argument is out of range or of a wrong type.

    Notes
    -----
    Shapes: x (N, L, input_size); h0 and c0 (num_layers · directions, N, hidden_size). With the
    logistic function σ and the four blocks of ``a_t = x_t W_ihᵀ + b_ih + h_{t-1} W_hhᵀ + b_hh``::

        i, f, o = σ(a_i), σ(a_f), σ(a_o)    g = tanh(a_g)
        c_t = f c_{t-1} + i g               h_t = o tanh(c_t)

    Backward, with dh = dL/dh_t and dc = dL/dc_t including the gradients from step t + 1::

        dc += dh o (1 - tanh²(c_t))
        dL/da_i = dc g i (1 - i)            dL/da_f = dc c_{t-1} f (1 - f)
        dL/da_g = dc i (1 - g²)             dL/da_o = dh tanh(c_t) o (1 - o)
        dL/dc_{t-1} = dc f                  dL/dh_{t-1} = dL/dy_{t-1} + dL/da_t W_hh

    The gradients of x, W_ih, W_hh and of both biases follow from dL/da_t as in `RNN`.

    References
    ----------
    S. Hochreiter, J. Schmidhuber, "Long short-term memory", Neural Computation 9, 1997.
    F. Gers, J. Schmidhuber, F. Cummins, "Learning to forget: continual prediction with LSTM",
    Neural Computation 12, 2000 (the gate f).

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> lstm = nn.LSTM(28, 128, num_layers=2, bidirectional=True)
    >>> lstm(np.zeros((64, 7, 28), dtype=np.float32)).shape
    (64, 7, 256)
    >>> h, c = lstm.last_state
    >>> h.shape, c.shape
    ((4, 64, 128), (4, 64, 128))
    """

    _layout = Layout(("sigmoid", "sigmoid", "tanh", "sigmoid"), states=2, extras=1)

    def _step(self, gates: Arrays, before: Arrays, after: Arrays) -> None:
        (i, f, g, o), (_, c_prev), (h, c, tanh_c) = gates, before, after
        np.multiply(f, c_prev, out=c)
        c += i * g  # c_t = f c_{t-1} + i g
        np.tanh(c, out=tanh_c)
        np.multiply(o, tanh_c, out=h)  # h_t = o tanh(c_t)

    def _local_derivatives(self, gates: Arrays, before: Arrays, after: Arrays) -> Arrays:
        (i, f, g, o), (_, c_prev), (h, _, tanh_c) = gates, before, after
        return (
            (1 - i) * (i * g),  # dc_t/da_i = g i (1 - i)
            (1 - f) * f * c_prev,  # dc_t/da_f = c_{t-1} f (1 - f)
            i - i * g * g,  # dc_t/da_g = i (1 - g²)
            (1 - o) * h,  # dh_t/da_o = tanh(c_t) o (1 - o)
            o - h * tanh_c,  # dh_t/dc_t = o (1 - tanh²(c_t))
            f,  # dc_t/dc_{t-1}
        )

    def _step_back(self, local: Arrays, d_state: Arrays, d_sums: Arrays) -> Sequence[Array | None]:
        (by_i, by_f, by_g, by_o, by_c, f), (dh, dc) = local, d_state
        da_i, da_f, da_g, da_o = d_sums
        dc = dc + dh * by_c  # dc += dh o (1 - tanh²(c_t))
        np.multiply(dc, by_i, out=da_i)
        np.multiply(dc, by_f, out=da_f)
        np.multiply(dc, by_g, out=da_g)
        np.multiply(dh, by_o, out=da_o)
        return None, dc * f  # dL/dc_{t-1} = dc f


class GRU(_Recurrent):
    """Gated recurrent unit: a gate mixes the previous state with a new one.

    Parameters
    ----------
    input_size : int
        Number of features of the input.
    hidden_size : int
        Number of features of the hidden state.
    num_layers, bias, dropout, bidirectional, outputs, truncate, rng
        As in `RNN`.

    Attributes
    ----------
    weight_ih_l0 : Parameter of shape (3 · hidden_size, input_size)
        The rows of r, z and n, in this order. For layer k, ``weight_ih_l{k}``; with the suffix
        ``_reverse`` for the reverse direction. The names are PyTorch's.
    weight_hh_l0 : Parameter of shape (3 · hidden_size, hidden_size)
    bias_ih_l0, bias_hh_l0 : Parameter of shape (3 · hidden_size,)
    last_state : ndarray of shape (num_layers · directions, N, hidden_size), or None
        The state after the last step of the latest forward, and thus the initial state for the
        next part of the sequence. None before the first forward.

    Raises
    ------
    ValueError, TypeError
        If an argument is out of range or of a wrong type.

    Notes
    -----
    Shapes: x (N, L, input_size), h0 (num_layers · directions, N, hidden_size). With the logistic
    function σ, and u_t = x_t W_ihᵀ + b_ih and v_t = h_{t-1} W_hhᵀ + b_hh in blocks r, z, n::

        r = σ(u_r + v_r)                    z = σ(u_z + v_z)
        n = tanh(u_n + r v_n)               h_t = (1 - z) n + z h_{t-1}

    The reset gate r acts after the product with the recurrent weights, as in PyTorch; in the paper
    it acts before. Backward, with dh = dL/dh_t including the gradient from step t + 1::

        dL/du_n = dh (1 - z) (1 - n²)       dL/dv_n = dL/du_n r
        dL/du_r = dL/dv_r = dL/du_n v_n r (1 - r)
        dL/du_z = dL/dv_z = dh (h_{t-1} - n) z (1 - z)
        dL/dh_{t-1} = dL/dy_{t-1} + dh z + dL/dv_t W_hh

    The gradients of x, W_ih and b_ih follow from dL/du_t as in `RNN`, those of W_hh and b_hh from
    dL/dv_t.

    References
    ----------
    K. Cho et al., "Learning phrase representations using RNN encoder-decoder for statistical
    machine translation", EMNLP 2014.

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> gru = nn.GRU(3, 5, outputs="last")
    >>> x, h0 = np.zeros((2, 7, 3), dtype=np.float32), np.ones((1, 2, 5), dtype=np.float32)
    >>> gru(x, h0).shape
    (2, 5)
    >>> dx, dh0 = gru.backward(np.ones((2, 5), dtype=np.float32))
    >>> dx.shape, dh0.shape
    ((2, 7, 3), (1, 2, 5))
    """

    # r multiplies v_n, so the sums are v_n, u_r + v_r, u_z + v_z and u_n.
    _layout = Layout(("linear", "sigmoid", "sigmoid", "linear"), separate=1)

    def _step(self, gates: Arrays, before: Arrays, after: Arrays) -> None:
        (v_n, r, z, n), (h_prev,), (h,) = gates, before, after
        n += r * v_n
        np.tanh(n, out=n)  # n = tanh(u_n + r v_n)
        np.subtract(h_prev, n, out=h)
        h *= z
        h += n  # h_t = (1 - z) n + z h_{t-1}

    def _local_derivatives(self, gates: Arrays, before: Arrays, after: Arrays) -> Arrays:
        (v_n, r, z, n), (h_prev,) = gates, before
        return (
            (1 - r) * r * v_n,  # dn/da_r, divided by dn/du_n
            (1 - z) * z * (h_prev - n),  # dh_t/da_z
            (1 - n * n) * (1 - z),  # dh_t/du_n
            r,  # dv_n enters n as r v_n
            z,  # dh_t/dh_{t-1}, without the path through the sums
        )

    def _step_back(self, local: Arrays, d_state: Arrays, d_sums: Arrays) -> Sequence[Array | None]:
        (by_r, by_z, by_n, r, z), (dh,), (dv_n, da_r, da_z, du_n) = local, d_state, d_sums
        np.multiply(dh, by_n, out=du_n)  # dL/du_n = dh (1 - z) (1 - n²)
        np.multiply(du_n, by_r, out=da_r)  # dL/du_r = dL/du_n v_n r (1 - r)
        np.multiply(dh, by_z, out=da_z)  # dL/du_z = dh (h_{t-1} - n) z (1 - z)
        np.multiply(du_n, r, out=dv_n)  # dL/dv_n = dL/du_n r
        return (dh * z,)
