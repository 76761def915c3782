"""Recurrent layers: the same weights at every step of a sequence, and backpropagation through time.

A batch of sequences is (N, L, features) for whoever uses it. Inside, time comes first and the batch
last, (L, features, N): what belongs to one step lies together, and every formula runs over long
stretches of memory.

- **Forward.** A step multiplies the state before it by the recurrent weights and its input by the
  input weights, and adds the biases. With state, input and a row of ones below each other, and all
  weights in one matrix, that is one product::

      a_t = [W_hh  W_ih  b] [h_{t-1}; x_t; 1]

  Then comes the formula of the cell, which leaves the state in the place where the next step
  multiplies it.
- **Backward.** For a block of steps that fits into the processor's cache the local derivatives, all
  at once; then step by step, from the last to the first, one product back; and for each weight
  gradient one product over many steps.

The blocks of a_t, one for each gate, follow each other in memory, (L, blocks, H, N). Their rows are
many, and the columns mostly fewer: of such a product OpenBLAS gives each of its threads rows or
columns of its own, so that none waits for another.

`_Recurrent` does all of this, and stacks layers and directions: the reverse direction is the same
cell on the sequence turned round. `RNN`, `LSTM` and `GRU` hold the formulas of one step: `_step`,
`_local_derivatives` and `_step_back`.
"""

from __future__ import annotations

import warnings
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from .. import init
from ..checks import as_floats, as_output_grad, boolean, integer, number, one_of
from ..engine.arrays import Array
from ..engine.memory import empty
from ..layer import Layer, is_grad_enabled
from ..parameter import Parameter
from ..random import RandomState, generator

# How many elements the gates of a block of steps may have: with their factors, half a megabyte.
_BLOCK = 1 << 16
# How many elements the gradients of the steps may have over which a weight gradient is one product:
# four megabytes, so that a long sequence takes no more.
_CHUNK = 1 << 20
# So many steps are worth one matrix of all weights forward, and a transposed copy of W_hh back.
_MANY_STEPS = 4

Arrays = tuple[Any, ...]


class _Weights(NamedTuple):
    """The parameters of one layer in one direction."""

    ih: Parameter
    hh: Parameter
    bias_ih: Parameter | None
    bias_hh: Parameter | None


class _Run(NamedTuple):
    """What the forward of one layer in one direction leaves for its backward.

    Time runs as the direction does: ``states[k][t + 1]`` is the state after step t, and
    ``states[k][0]`` the initial one. ``states[0]`` is the hidden state, the output.
    """

    weights: _Weights
    columns: Array  # (L + 1, H + features + 1, N): what the steps multiply; without bias, no ones
    states: Arrays  # of shape (L + 1, H, N)
    kept: Arrays  # what else the cell's backward needs
    started: bool  # whether an initial state was given
    absent: Array | None  # (L, 1, N): where the state stands still


class _Recurrent(Layer):
    """What `RNN`, `LSTM` and `GRU` share: layers, directions, the initial and the final state."""

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

    # How many gates there are: a weight has hidden_size rows for each.
    _gates: ClassVar[int]
    # What `_step` wants each block of a_t multiplied by. The state has a share in the first blocks,
    # the input in the last: each in as many as there are gates, which can be all of them.
    _scales: ClassVar[tuple[float, ...]]
    # How many gates of W_hh, from its end, come first in the order of the blocks.
    _rolled: ClassVar[int] = 0
    # The arrays that a state consists of.
    _state_names: ClassVar[tuple[str, ...]] = ("h0",)
    # Whether the hidden state enters the next one directly too, not only through the product.
    _has_direct_path: ClassVar[bool] = False

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
                # A cell with a constructor of its own is one call further from the user.
                stacklevel=2 + ("__init__" in vars(type(self))),
            )
        self.bidirectional = boolean(bidirectional, f"{type(self).__name__}: bidirectional")
        self.outputs = one_of(outputs, ("all", "last"), f"{name}: outputs")
        self.truncate = truncate if truncate is None else integer(truncate, f"{name}: truncate")
        self.last_state = None
        self._rng = rng if rng is None else generator(rng)
        rows = self._gates * self.hidden_size
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
                    setattr(self, _key(kind, layer, direction), parameter)

    @property
    def _directions(self) -> int:
        return 2 if self.bidirectional else 1

    def _weights(self, layer: int, direction: int) -> _Weights:
        biases = ("bias_ih", "bias_hh")
        return _Weights(
            getattr(self, _key("weight_ih", layer, direction)),
            getattr(self, _key("weight_hh", layer, direction)),
            *(getattr(self, _key(kind, layer, direction), None) for kind in biases),
        )

    # ---- the formulas of one step, which each cell defines ----

    def _begin(self, hidden: Array) -> tuple[Array, Arrays, Arrays]:
        """Return the array for the sums a_t, the states, and what else is kept.

        The first is of shape (L, blocks, H, N), `hidden` of shape (L + 1, H, N).
        """
        raise NotImplementedError

    def _step(self, step: int, states: Arrays, kept: Arrays) -> None:
        """Compute the states after `step`, where the sums are ready."""
        raise NotImplementedError

    def _local_derivatives(self, steps: slice, states: Arrays, kept: Arrays) -> Arrays:
        """Return the factors of the gradients that do not depend on later steps, time first."""
        raise NotImplementedError

    def _step_back(
        self, step: int, factors: list[Array], kept: Arrays, carried: list[Array], d_sums: Array
    ) -> None:
        """Compute the gradients of the sums, (blocks, H, N).

        `factors` are those of the step, and `carried` is dL/d(states after it). What is left in
        `carried` is the gradient that reaches the states before the step without the product; the
        hidden state's only where there is a direct path.
        """
        raise NotImplementedError

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
            `last_state`. Left out, or None, it is zero.
        mask : array_like of bool, shape (N, L), optional
            False where a shorter sequence is padded: there the state stands still, the output is
            0, and what the input holds does not matter.

        Returns
        -------
        ndarray of shape (N, L, directions · hidden_size) or (N, directions · hidden_size)
            As `outputs` says.

        Raises
        ------
        ValueError
            If the shape of the input, the state or the mask does not fit, or if the sequences
            have no step.
        TypeError
            If the input or the state is not of floats, or the mask not of booleans.
        """
        x = self._sequences(x)
        initial = self._states(state, len(x), "the initial state")
        absent = self._absent(mask, x.shape)
        # The memory of the last forward is free for this one, unless somebody holds the outputs.
        self._cache = None

        sequence = _without(x.transpose(1, 2, 0), absent)
        runs: list[_Run] = []
        kept_features: list[Array | None] = []
        for layer in range(self.num_layers):
            sequence, keep = self._drop(sequence) if layer else (sequence, None)
            kept_features.append(keep)
            hidden: list[Array] = []
            for direction in range(self._directions):
                turn = _turn(direction)
                run = self._run(
                    self._weights(layer, direction),
                    sequence[turn],
                    [array[len(runs)] for array in initial],
                    None if absent is None else absent[turn],
                )
                runs.append(run)
                hidden.append(run.states[0][1:][turn])
            sequence = hidden[0]
            if self.bidirectional:
                both = empty((len(sequence), 2 * self.hidden_size, len(x)), sequence.dtype)
                sequence = np.concatenate(hidden, axis=1, out=both)

        final = tuple(
            np.array([state[-1].T for state in states])
            for states in zip(*(run.states for run in runs), strict=True)
        )
        self.last_state = final if len(final) > 1 else final[0]
        self.cache(x.shape, state, runs, kept_features, absent)
        output: Array
        if self.outputs == "last":
            output = np.concatenate(final[0][-self._directions :], axis=1)
        else:
            if sequence.base is not None and sequence.base.nbytes > 3 * sequence.nbytes:
                # Whoever holds the output would hold all that the steps multiplied, inputs too.
                sequence = sequence.copy()
            output = _without(sequence, absent).transpose(2, 0, 1)
        return output

    def _run(
        self, weights: _Weights, sequence: Array, start: list[Array], absent: Array | None
    ) -> _Run:
        """Run one layer in one direction over `sequence` (L, features, N)."""
        length, features, batch = sequence.shape
        inputs = slice(self.hidden_size, self.hidden_size + features)
        columns = empty((length + 1, inputs.stop + self.bias, batch), sequence.dtype)
        columns[:length, inputs] = sequence
        columns[:, inputs.stop :] = 1
        matrix = self._matrix(weights) if length >= _MANY_STEPS else None
        sums, states, kept = self._begin(columns[:, : self.hidden_size])
        for index, state in enumerate(states):
            state[0] = start[index].T if start else 0
        products = sums.reshape(length, -1, batch)
        for step in range(length):
            before = [] if absent is None else [state[step].copy() for state in states]
            if matrix is not None:
                np.dot(matrix, columns[step], out=products[step])
            else:
                self._multiply(weights, columns[step], products[step])
            self._step(step, states, kept)
            if absent is not None:
                for state, unchanged in zip(states, before, strict=True):
                    np.copyto(state[step + 1], unchanged, where=absent[step])
        return _Run(weights, columns, states, kept, bool(start), absent)

    def _matrix(self, weights: _Weights) -> Array:
        """Return the matrix of a step's product, its rows scaled as `_step` has them."""
        size, of_input = self.hidden_size, weights.ih.data
        gates, inputs = self._gates * size, slice(size, size + of_input.shape[1])
        matrix = np.zeros((len(self._scales) * size, inputs.stop + self.bias), of_input.dtype)
        matrix[:gates, :size] = self._in_blocks(weights.hh.data)
        matrix[-gates:, inputs] = of_input
        if weights.bias_ih is not None and weights.bias_hh is not None:
            matrix[:gates, -1] = self._in_blocks(weights.bias_hh.data)
            matrix[-gates:, -1] += weights.bias_ih.data
        self._scale(matrix)
        return matrix

    def _multiply(self, weights: _Weights, column: Array, out: Array) -> None:
        """Write ``matrix @ column`` into `out`, without the matrix."""
        size = self.hidden_size
        gates, inputs = self._gates * size, slice(size, size + weights.ih.shape[1])
        of_state = self._in_blocks(np.dot(weights.hh.data, column[:size]))
        of_input = np.dot(weights.ih.data, column[inputs])
        if weights.bias_ih is not None and weights.bias_hh is not None:
            of_state += self._in_blocks(weights.bias_hh.data)[:, None]
            of_input += weights.bias_ih.data[:, None]
        out[:gates] = of_state
        out[gates:] = 0
        out[-gates:] += of_input
        self._scale(out)

    def _scale(self, rows: Array) -> None:
        """Multiply the rows of each block by what `_step` wants them multiplied by."""
        for block, scale in zip(rows.reshape(len(self._scales), -1), self._scales, strict=True):
            if scale != 1:
                block *= scale

    def _in_blocks(self, rows: Array) -> Array:
        """Return the rows of W_hh, or what is computed with them, in the order of the blocks."""
        return np.roll(rows, self._rolled * self.hidden_size, axis=0) if self._rolled else rows

    def _in_gates(self, rows: Array) -> Array:
        """Return what is in the order of the blocks in that of the rows of W_hh."""
        return np.roll(rows, -self._rolled * self.hidden_size, axis=0) if self._rolled else rows

    # ---- backward ----

    def backward(self, grad: Array, input_grad: bool = True, state_grad: Any = None) -> Any:
        """Return dL/dx, and the gradient of the initial state if `forward` was given one.

        Parameters
        ----------
        grad : ndarray
            dL/d(output), of the shape of the output.
        input_grad : bool, default True
            False skips the work that only the gradients of the inputs need, and returns None.
        state_grad : ndarray or tuple of ndarray, optional
            dL/d(`last_state`), where the loss depends on the final state too: because it is the
            initial state of another layer, say.

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
            If a gradient has another shape than what it is the gradient of.
        """
        shape, state, runs, kept_features, absent = self.cached()
        batch, length, _ = shape
        width = self._directions * self.hidden_size
        last_only = self.outputs == "last"
        output_shape = (batch, width) if last_only else (batch, length, width)
        grad = as_output_grad(self, grad, output_shape, self.weight_hh_l0.dtype)
        # dL/d(state) of each run: first of its final state, and of its initial one in the end.
        carried = self._final_gradients(state_grad, batch)
        flow = None
        if last_only:
            for direction in range(self._directions):
                carried[0][direction - self._directions] += grad[:, self._part(direction)].T
        else:
            flow = _without(np.ascontiguousarray(grad.transpose(1, 2, 0)), absent)

        for layer in reversed(range(self.num_layers)):
            below: Array | None = None
            for direction in range(self._directions):
                index = layer * self._directions + direction
                turn = _turn(direction)
                d_sequence = self._run_back(
                    runs[index],
                    None if flow is None else flow[turn, self._part(direction)],
                    [array[index] for array in carried],
                    start_grad=input_grad and runs[index].started,
                    input_grad=input_grad or layer > 0,
                )
                if below is None:
                    below = d_sequence
                elif d_sequence is not None:
                    below += d_sequence[turn]
            flow = below
            if flow is not None and kept_features[layer] is not None:
                flow *= kept_features[layer]

        if flow is None:
            return None
        dx = flow.transpose(2, 0, 1)
        if not state:
            return dx
        if state[0] is None:
            return dx, None
        d_state = tuple(array.swapaxes(1, 2) for array in carried)
        return (dx, d_state) if isinstance(state[0], tuple) else (dx, *d_state)

    def _run_back(
        self,
        run: _Run,
        grads: Array | None,
        carried: list[Array],
        start_grad: bool,
        input_grad: bool,
    ) -> Array | None:
        """Backpropagate through one layer in one direction; return dL/d(sequence) if wanted.

        `grads` is dL/d(outputs), None for zero; `carried`, arrays (H, N) that are written into,
        goes from dL/d(final state) to dL/d(initial state).
        """
        weights, columns = run.weights, run.columns
        length, batch, dtype = len(columns) - 1, columns.shape[2], columns.dtype
        size, gates = self.hidden_size, self._gates * self.hidden_size
        rows, inputs = len(self._scales) * size, slice(size, size + weights.ih.shape[1])
        of_state = self._in_blocks(weights.hh.data).T
        if length >= _MANY_STEPS:
            of_state = np.ascontiguousarray(of_state)
        d_sequence = empty((length, weights.ih.shape[1], batch), dtype) if input_grad else None
        chunk = max(1, _CHUNK // (rows * batch))
        for stop in range(length, 0, -chunk):
            steps = slice(max(stop - chunk, 0), stop)
            d_rows = self._chunk_back(run, steps, of_state, grads, carried, start_grad)
            d_gates, d_inputs = d_rows[:gates], d_rows[-gates:]
            terms = _side_by_side(columns[steps])
            if self._rolled:
                weights.hh.accumulate(self._in_gates(np.dot(d_gates, terms[:size].T)))
            else:
                weights.hh.accumulate_product(d_gates, terms[:size].T)
            weights.ih.accumulate_product(d_inputs, terms[inputs].T)
            if weights.bias_ih is not None and weights.bias_hh is not None:
                ones = terms[-1]
                sums = np.dot(d_inputs, ones)
                weights.bias_ih.accumulate(sums)
                if self._rolled:
                    sums = self._in_gates(np.dot(d_gates, ones))
                weights.bias_hh.accumulate(sums)
            if d_sequence is not None:
                d_terms = np.dot(weights.ih.data.T, d_inputs).reshape(
                    -1, steps.stop - steps.start, batch
                )
                d_sequence[steps] = d_terms.swapaxes(0, 1)
        return d_sequence

    def _chunk_back(
        self,
        run: _Run,
        steps: slice,
        of_state: Array,
        grads: Array | None,
        carried: list[Array],
        start_grad: bool,
    ) -> Array:
        """Go back through some steps; return dL/da_t of all of them as a matrix (rows, steps·N)."""
        _, columns, states, kept, _, absent = run
        length, batch, dtype = len(columns) - 1, columns.shape[2], columns.dtype
        d_sums = empty(
            (steps.stop - steps.start, len(self._scales), self.hidden_size, batch), dtype
        )
        products = d_sums.reshape(len(d_sums), -1, batch)
        gates = of_state.shape[1]
        through_product = np.empty((self.hidden_size, batch), dtype)
        block = max(1, _BLOCK // products[0].size)
        for stop in range(steps.stop, steps.start, -block):
            first = max(stop - block, steps.start)
            factors = self._local_derivatives(slice(first, stop), states, kept)
            for step in reversed(range(first, stop)):
                place = step - steps.start
                if grads is not None:
                    carried[0] += grads[step]
                after = [] if absent is None else [array.copy() for array in carried]
                now = [factor[step - first] for factor in factors]
                self._step_back(step, now, kept, carried, d_sums[place])
                if step or start_grad:
                    if self._has_direct_path:
                        np.dot(of_state, products[place, :gates], out=through_product)
                        carried[0] += through_product
                    else:
                        np.dot(of_state, products[place, :gates], out=carried[0])
                if absent is not None:
                    for array, unchanged in zip(carried, after, strict=True):
                        np.copyto(array, unchanged, where=absent[step])
                if step and self.truncate and (length - step) % self.truncate == 0:
                    for array in carried:
                        array.fill(0)
        if absent is not None:
            np.copyto(products, 0, where=absent[steps])
        return _side_by_side(products)

    # ---- inputs ----

    def multiply_adds(
        self, input_shapes: tuple[tuple[int, ...], ...], output_shape: tuple[int, ...]
    ) -> int:
        batch, length, _ = input_shapes[0]
        # Every weight meets every step once.
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
        """Return the arrays of a state, or of its gradient, checked; none for None."""
        if not values or (len(values) == 1 and values[0] is None):
            return []
        if len(values) == 1 and isinstance(values[0], tuple):
            values = values[0]
        names = self._state_names
        if len(values) != len(names):
            raise ValueError(
                f"{self.label}: expected {what} as {' and '.join(names)}, got {len(values)} "
                f"array{'s' * (len(values) != 1)}; they are what last_state holds"
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

    def _final_gradients(self, state_grad: Any, batch: int) -> list[Array]:
        """Return dL/d(last_state), as arrays (…, H, N) that are ours to write into."""
        given = self._states((state_grad,), batch, "state_grad, the gradient of last_state,")
        if given:
            return [np.array(array.swapaxes(1, 2), order="C") for array in given]
        shape = (self.num_layers * self._directions, self.hidden_size, batch)
        return [np.zeros(shape, self.weight_hh_l0.dtype) for _ in self._state_names]

    def _absent(self, mask: ArrayLike | None, shape: tuple[int, ...]) -> Array | None:
        """Return where there is no step, (L, 1, N), or None if every sequence has all of them."""
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
        """Return what the dropout leaves of `sequence`, and the factors by which it does so."""
        if not (self.dropout and self.training):
            return sequence, None
        kept = generator(self._rng).random(sequence.shape, np.float32) >= self.dropout
        scale = 1 / (1 - self.dropout) if self.dropout < 1 else 0
        factors: Array = np.multiply(kept, scale, dtype=sequence.dtype)
        return sequence * factors, factors

    def _part(self, direction: int) -> slice:
        """Return which of the output's features are those of `direction`."""
        return slice(direction * self.hidden_size, (direction + 1) * self.hidden_size)


def _key(kind: str, layer: int, direction: int) -> str:
    return f"{kind}_l{layer}{'_reverse' if direction else ''}"


def _turn(direction: int) -> slice:
    """Return the slice that puts a sequence into the order of `direction`, or back."""
    return slice(None, None, -1 if direction else 1)


def _without(sequence: Array, absent: Array | None) -> Array:
    """Return a sequence (L, features, N) with zeros where there is no step."""
    if absent is None:
        return sequence
    present: Array = np.where(absent, 0, sequence)
    return present


def _side_by_side(steps: Array) -> Array:
    """Return an array (steps, rows, N) as a matrix (rows, steps·N)."""
    if len(steps) == 1:
        return steps[0]
    count, rows, batch = steps.shape
    matrix = empty((rows, count, batch), steps.dtype)
    matrix[...] = steps.swapaxes(0, 1)
    return matrix.reshape(rows, -1)


def _for_each_step(length: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """Return an array (length, *shape); if no backward is to come, all steps share its memory."""
    if is_grad_enabled():
        return empty((length, *shape), dtype)
    once = empty(shape, dtype)
    shared: Array = np.ndarray((length, *shape), dtype, buffer=once, strides=(0, *once.strides))
    return shared


class RNN(_Recurrent):
    """Elman's recurrent layer: ``h_t = tanh(x_t W_ihᵀ + b_ih + h_{t-1} W_hhᵀ + b_hh)``.

    Parameters
    ----------
    input_size : int
        Features of a step of the input.
    hidden_size : int
        Features of the state.
    num_layers : int, default 1
        Each layer after the first takes the outputs of the one before it as its input.
    nonlinearity : {"tanh", "relu"}
        What stands around the sum.
    bias : bool, default True
        Whether there are the biases b_ih and b_hh.
    dropout : float, default 0
        Share of the features that are set to 0 between one layer and the next, while training.
    bidirectional : bool, default False
        Whether each layer also runs from the last step to the first, with weights of its own. Its
        outputs are the features of both directions, the forward ones first.
    outputs : {"all", "last"}
        What forward returns: the hidden state of the last layer after every step, (N, L, features);
        or the one after the last step, (N, features). The reverse direction's last step is the
        first of the sequence.
    truncate : int, optional
        Truncates backpropagation through time: the sequence counts as chunks of so many steps,
        from its end on (the first may be shorter), and no gradient goes back from one chunk to the
        chunk before it. Layers above and below are still reached at every step. None goes back all
        the way.
    rng : int, numpy.random.Generator or None
        Source of the initial values, uniform on ±1/√hidden_size as in PyTorch, and of the dropout.

    Attributes
    ----------
    weight_ih_l0 : Parameter of shape (hidden_size, input_size)
        For layer k, ``weight_ih_l{k}``, of shape (hidden_size, directions · hidden_size) for k > 0;
        with the suffix ``_reverse`` for the reverse direction. The names are PyTorch's.
    weight_hh_l0 : Parameter of shape (hidden_size, hidden_size)
    bias_ih_l0, bias_hh_l0 : Parameter of shape (hidden_size,)
    last_state : ndarray of shape (num_layers · directions, N, hidden_size), or None
        The state after the last step of the latest forward: the initial state for the chunk that
        comes next. None before the first forward.

    Raises
    ------
    ValueError, TypeError
        If an argument is out of range; by `forward`, if its inputs do not fit.

    Notes
    -----
    Shapes: x (N, L, input_size), h0 (num_layers · directions, N, hidden_size), as PyTorch has them
    with ``batch_first=True``. With a_t the sum under the tanh and G_t = dL/dh_t, that is the
    gradient of the output at step t plus what comes back from step t + 1::

        dL/da_t = G_t · (1 - h_t²)          relu: G_t · [h_t > 0]
        G_{t-1} = dL/dy_{t-1} + dL/da_t W_hh
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
    The rows of an image as a sequence, classified by the state after the last one:

    >>> import numpy as np
    >>> import nnlite as nn
    >>> images = np.zeros((64, 28, 28), dtype=np.float32)
    >>> model = nn.Sequential(nn.RNN(28, 128, outputs="last"), nn.Linear(128, 10))
    >>> model(images).shape
    (64, 10)

    A long sequence in chunks, each started from where the last one ended:

    >>> rnn = nn.RNN(3, 5)
    >>> state = None
    >>> for chunk in np.split(np.zeros((2, 40, 3), dtype=np.float32), 4, axis=1):
    ...     y = rnn(chunk, state)
    ...     state = rnn.last_state
    >>> y.shape, state.shape
    ((2, 10, 5), (1, 2, 5))
    """

    nonlinearity: str

    _gates = 1
    _scales = (1,)

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

    def _begin(self, hidden: Array) -> tuple[Array, Arrays, Arrays]:
        # The state of a step takes the place of the sum that it is the tanh of.
        return hidden[1:, None], (hidden,), ()

    def _step(self, step: int, states: Arrays, kept: Arrays) -> None:
        h = states[0][step + 1]
        if self.nonlinearity == "tanh":
            np.tanh(h, out=h)
        else:
            np.maximum(h, 0, out=h)

    def _local_derivatives(self, steps: slice, states: Arrays, kept: Arrays) -> Arrays:
        h = states[0][1:][steps]
        slope = empty(h.shape, h.dtype)
        if self.nonlinearity == "tanh":
            np.multiply(h, h, out=slope)
            np.subtract(1, slope, out=slope)
        else:
            np.greater(h, 0, out=slope)
        return (slope,)

    def _step_back(
        self, step: int, factors: list[Array], kept: Arrays, carried: list[Array], d_sums: Array
    ) -> None:
        (slope,), (dh,) = factors, carried
        np.multiply(slope, dh, out=d_sums[0])


class LSTM(_Recurrent):
    """Long short-term memory: a state that is kept, forgotten and read through gates.

    Parameters
    ----------
    input_size : int
        Features of a step of the input.
    hidden_size : int
        Features of the hidden state h and of the cell state c.
    num_layers : int, default 1
        Each layer after the first takes the outputs of the one before it as its input.
    bias : bool, default True
        Whether there are the biases b_ih and b_hh.
    dropout : float, default 0
        Share of the features that are set to 0 between one layer and the next, while training.
    bidirectional : bool, default False
        Whether each layer also runs from the last step to the first: see `RNN`.
    outputs : {"all", "last"}
        Whether forward returns the hidden state after every step or after the last: see `RNN`.
    truncate : int, optional
        How many steps a chunk has, from which no gradient goes back: see `RNN`.
    rng : int, numpy.random.Generator or None
        Source of the initial values, uniform on ±1/√hidden_size as in PyTorch, and of the dropout.

    Attributes
    ----------
    weight_ih_l0 : Parameter of shape (4 · hidden_size, input_size)
        The rows of the gates i, f, g, o, in this order. For layer k, ``weight_ih_l{k}``; with the
        suffix ``_reverse`` for the reverse direction. The names are PyTorch's.
    weight_hh_l0 : Parameter of shape (4 · hidden_size, hidden_size)
    bias_ih_l0, bias_hh_l0 : Parameter of shape (4 · hidden_size,)
    last_state : tuple of two ndarray of shape (num_layers · directions, N, hidden_size), or None
        h and c after the last step of the latest forward: the initial state for the chunk that
        comes next. None before the first forward.

    Raises
    ------
    ValueError, TypeError
        If an argument is out of range; by `forward`, if its inputs do not fit.

    Notes
    -----
    Shapes: x (N, L, input_size); h0 and c0 (num_layers · directions, N, hidden_size). With σ the
    logistic function, and the four blocks of ``a_t = x_t W_ihᵀ + b_ih + h_{t-1} W_hhᵀ + b_hh``::

        i, f, o = σ(a_i), σ(a_f), σ(a_o)    g = tanh(a_g)
        c_t = f c_{t-1} + i g               h_t = o tanh(c_t)

    Backward, with dh = dL/dh_t and dc = dL/dc_t, both with what comes back from step t + 1::

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

    _gates = 4
    _state_names = ("h0", "c0")
    # σ(a) = ½ tanh(½ a) + ½: with a factor of ½ for i, f, o and of 1 for g, one tanh does all.
    _scales = (0.5, 0.5, 1, 0.5)

    def _begin(self, hidden: Array) -> tuple[Array, Arrays, Arrays]:
        length, shape, dtype = len(hidden) - 1, hidden.shape[1:], hidden.dtype
        gates = _for_each_step(length, (4, *shape), dtype)
        cells = _for_each_step(length + 1, shape, dtype)
        tanh_cells = _for_each_step(length, shape, dtype)
        # For one sample in the shape of the gates, which spares NumPy the broadcasting.
        rows = len(hidden[0]) if shape[1] == 1 else 1
        factor = np.repeat(np.array(self._scales, dtype), rows).reshape(4, rows, 1)
        kept = (gates, tanh_cells, factor, 1 - factor, np.empty(shape, dtype))
        return gates, (hidden, cells), kept

    def _step(self, step: int, states: Arrays, kept: Arrays) -> None:
        hidden, cells = states
        gates, tanh_cells, factor, shift, work = kept
        now = gates[step]  # a_t, in whose place come i, f, g and o
        np.tanh(now, out=now)
        now *= factor
        now += shift
        i, f, g, o = now
        c, tanh_c = cells[step + 1], tanh_cells[step]
        np.multiply(f, cells[step], out=c)
        np.multiply(i, g, out=work)
        c += work
        np.tanh(c, out=tanh_c)
        np.multiply(o, tanh_c, out=hidden[step + 1])

    def _local_derivatives(self, steps: slice, states: Arrays, kept: Arrays) -> Arrays:
        gates, tanh_c = kept[0][steps], kept[1][steps]
        i, f, g, o = gates.swapaxes(0, 1)
        h, c_before = states[0][1:][steps], states[1][:-1][steps]
        factors = empty(gates.shape, h.dtype)
        da_i, da_f, da_g, da_o = factors.swapaxes(0, 1)
        through_tanh, added = (empty(h.shape, h.dtype) for _ in range(2))
        np.multiply(i, g, out=added)
        np.subtract(1, gates, out=factors)
        da_i *= added
        da_f *= f
        da_f *= c_before
        da_o *= h
        np.multiply(added, g, out=da_g)
        np.subtract(i, da_g, out=da_g)
        np.multiply(h, tanh_c, out=through_tanh)
        np.subtract(o, through_tanh, out=through_tanh)
        return factors, through_tanh

    def _step_back(
        self, step: int, factors: list[Array], kept: Arrays, carried: list[Array], d_sums: Array
    ) -> None:
        (by_gate, through_tanh), (dh, dc) = factors, carried
        through_tanh *= dh
        dc += through_tanh
        np.multiply(by_gate[:3], dc, out=d_sums[:3])
        np.multiply(by_gate[3], dh, out=d_sums[3])
        dc *= kept[0][step, 1]  # f


class GRU(_Recurrent):
    """Gated recurrent unit: a state that moves towards a new value as far as a gate lets it.

    Parameters
    ----------
    input_size : int
        Features of a step of the input.
    hidden_size : int
        Features of the state.
    num_layers : int, default 1
        Each layer after the first takes the outputs of the one before it as its input.
    bias : bool, default True
        Whether there are the biases b_ih and b_hh.
    dropout : float, default 0
        Share of the features that are set to 0 between one layer and the next, while training.
    bidirectional : bool, default False
        Whether each layer also runs from the last step to the first: see `RNN`.
    outputs : {"all", "last"}
        Whether forward returns the hidden state after every step or after the last: see `RNN`.
    truncate : int, optional
        How many steps a chunk has, from which no gradient goes back: see `RNN`.
    rng : int, numpy.random.Generator or None
        Source of the initial values, uniform on ±1/√hidden_size as in PyTorch, and of the dropout.

    Attributes
    ----------
    weight_ih_l0 : Parameter of shape (3 · hidden_size, input_size)
        The rows of r, z and n, in this order. For layer k, ``weight_ih_l{k}``; with the suffix
        ``_reverse`` for the reverse direction. The names are PyTorch's.
    weight_hh_l0 : Parameter of shape (3 · hidden_size, hidden_size)
    bias_ih_l0, bias_hh_l0 : Parameter of shape (3 · hidden_size,)
    last_state : ndarray of shape (num_layers · directions, N, hidden_size), or None
        The state after the last step of the latest forward: the initial state for the chunk that
        comes next. None before the first forward.

    Raises
    ------
    ValueError, TypeError
        If an argument is out of range; by `forward`, if its inputs do not fit.

    Notes
    -----
    Shapes: x (N, L, input_size), h0 (num_layers · directions, N, hidden_size). With σ the logistic
    function, and u_t = x_t W_ihᵀ + b_ih and v_t = h_{t-1} W_hhᵀ + b_hh in blocks r, z, n::

        r = σ(u_r + v_r)                    z = σ(u_z + v_z)
        n = tanh(u_n + r v_n)               h_t = (1 - z) n + z h_{t-1}

    The reset gate r acts after the product with the recurrent weights, as in PyTorch; in the paper
    it acts before. Backward, with dh = dL/dh_t, with what comes back from step t + 1::

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

    _gates = 3
    # r scales v_n with its bias, so u_n and v_n are sums of their own: v_n, r, z, u_n.
    _scales = (1, 0.5, 0.5, 1)  # σ(a) = ½ tanh(½ a) + ½
    _rolled = 1
    _has_direct_path = True

    def _begin(self, hidden: Array) -> tuple[Array, Arrays, Arrays]:
        shape = hidden.shape[1:]
        gates = _for_each_step(len(hidden) - 1, (4, *shape), hidden.dtype)
        return gates, (hidden,), (gates, np.empty(shape, hidden.dtype))

    def _step(self, step: int, states: Arrays, kept: Arrays) -> None:
        (hidden,) = states
        gates, work = kept
        r_and_z = gates[step, 1:3]
        np.tanh(r_and_z, out=r_and_z)
        r_and_z *= 0.5
        r_and_z += 0.5
        v_n, r, z, n = gates[step]
        np.multiply(r, v_n, out=work)
        n += work
        np.tanh(n, out=n)
        h = hidden[step + 1]
        np.subtract(hidden[step], n, out=h)
        h *= z
        h += n

    def _local_derivatives(self, steps: slice, states: Arrays, kept: Arrays) -> Arrays:
        gates = kept[0][steps]
        v_n, _, _, n = gates.swapaxes(0, 1)
        h_before = states[0][:-1][steps]
        factors = empty((len(gates), 3, *n.shape[1:]), n.dtype)
        du_r, du_z, du_n = factors.swapaxes(0, 1)
        np.subtract(1, gates[:, 1:3], out=factors[:, :2])
        np.multiply(n, n, out=du_n)
        np.subtract(1, du_n, out=du_n)
        du_n *= du_z
        factors[:, :2] *= gates[:, 1:3]
        du_r *= v_n
        du_z *= h_before - n
        return (factors,)

    def _step_back(
        self, step: int, factors: list[Array], kept: Arrays, carried: list[Array], d_sums: Array
    ) -> None:
        (by_gate,), (dh,) = factors, carried
        _, r, z, _ = kept[0][step]
        dv_n, du_r, _, du_n = d_sums
        np.multiply(by_gate[1:], dh, out=d_sums[2:])
        np.multiply(by_gate[0], du_n, out=du_r)
        np.multiply(du_n, r, out=dv_n)
        dh *= z
