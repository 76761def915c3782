"""A recurrent cell over all steps of a sequence, forward and backward.

A cell is the formulas of one step; `scan` applies them from the first step to the last, and
`scan_back` runs backpropagation through time. Both know arrays and the functions of a `Cell` only.

**Layout.** Sequences are (L, features, N), time first and the batch last. The values of one step
are contiguous, and every formula works on long contiguous rows.

**Forward.** The previous state, the input and a row of ones are stacked in one array, and all
weights in one matrix, so that each step is a single product::

    a_t = [W_hh  W_ih  b] [h_{t-1}; x_t; 1]

The cell then writes its state to where the next step reads it.

**Backward.** The local derivatives are computed for a block of steps at once, small enough for the
processor's cache. The steps of the block follow from last to first, with one product each. The
gradient of each weight matrix is one product over a chunk of many steps.

The blocks of a_t, one for each gate, are contiguous: (L, blocks, H, N).
"""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from .arrays import Array
from .blas import product, products_with
from .memory import empty

# Elements of the gates in a block of steps: half a megabyte with their local derivatives.
_BLOCK = 1 << 16
# Elements of the gates in a chunk of steps: four megabytes, which bounds the memory of a backward
# over a long sequence.
_CHUNK = 1 << 20
# From this number of steps on, copies of the weights pay: one matrix of all of them for the
# forward, and W_hh transposed for the backward.
_MANY_STEPS = 4

Arrays = Sequence[Array]
Activation = Literal["sigmoid", "tanh", "linear"]


class Layout(NamedTuple):
    """The arrays of a cell.

    The sums a_t consist of blocks of H rows. Usually each gate has one block, the sum
    u = x_t W_ihᵀ + b_ih plus v = h_{t-1} W_hhᵀ + b_hh. The last `separate` gates have two, with
    their v in the first blocks and their u in the last ones.
    """

    activations: tuple[Activation, ...]  # applied to the blocks before `Cell.step` sees them
    separate: int = 0
    states: int = 1  # number of arrays in a state; the first is the hidden state
    extras: int = 0  # further arrays (H, N) that a step stores for the backward
    in_place: bool = False  # whether the hidden state overwrites the sum, the only block

    @property
    def gates(self) -> int:
        """Number of gates: W_ih and W_hh have H rows for each."""
        return len(self.activations) - self.separate


class Cell(NamedTuple):
    """The formulas of one step.

    Attributes
    ----------
    layout : Layout
    step : callable
        ``step(gates, before, after)`` computes one step. From the activated blocks of the sums and
        the state before the step, it writes the state after it and the extras. All arrays are
        (H, N).
    local_derivatives : callable
        ``local_derivatives(gates, before, after)`` gets the same arrays for several steps,
        (steps, H, N). It returns all values for `step_back` that do not depend on later steps.
    step_back : callable
        ``step_back(local, d_state, d_sums)`` writes the gradients of the blocks of the sums, from
        the local derivatives of the step and the gradients of the state after it. It returns the
        gradients of the state before the step, without the path through the sums; None for the
        hidden state if there is no other path.
    """

    layout: Layout
    step: Callable[[Arrays, Arrays, Arrays], None]
    local_derivatives: Callable[[Arrays, Arrays, Arrays], Arrays]
    step_back: Callable[[Arrays, Arrays, Arrays], Sequence[Array | None]]


class Weights(NamedTuple):
    """The weights of a cell, with H rows for each gate."""

    ih: Array
    hh: Array
    biases: tuple[Array, Array] | None  # b_ih, b_hh


class Steps(NamedTuple):
    """The arrays of a scan. ``states[k][t]`` is the state before step t."""

    columns: Array  # (L + 1, H + features + 1, N): factors of the products; no ones without bias
    sums: Array  # (L, blocks, H, N)
    states: list[Array]  # (L + 1, H, N)
    extras: list[Array]  # (L, H, N)
    absent: Array | None

    @property
    def after(self) -> list[Array]:
        """The arrays that each step writes: the state after it, and the extras."""
        return [state[1:] for state in self.states] + self.extras


class Terms(NamedTuple):
    """Factors of the weight gradients: matrices with a column for each step and sample."""

    d_u: Array  # dL/du, (gates · H, steps · N)
    d_v: Array  # dL/dv, in the order of the blocks: see `in_gates`
    x: Array
    h: Array  # the hidden state before the step


def time_first(x: Array, absent: Array | None) -> Array:
    """Return sequences (N, L, features) as (L, features, N), with zeros where a step is absent."""
    return _without(x.transpose(1, 2, 0), absent)


def batch_first(sequence: Array, absent: Array | None) -> Array:
    """Return the output (L, features, N) of a scan as (N, L, features), zeros where absent."""
    base = sequence.base
    if base is not None and base.nbytes > 3 * sequence.nbytes:
        # A view would keep the memory of all columns, inputs included.
        sequence = sequence.copy()
    return _without(sequence, absent).transpose(2, 0, 1)


def in_gates(layout: Layout, rows: Array) -> Array:
    """Reorder rows, such as those of `Terms.d_v`, from the order of the blocks to that of W_hh."""
    return np.roll(rows, -layout.separate * (len(rows) // layout.gates), axis=0)


def scan(
    cell: Cell,
    weights: Weights,
    sequence: Array,
    start: Arrays | None,
    absent: Array | None,
    keep: bool,
) -> Steps:
    """Apply a cell to all steps of a sequence.

    Parameters
    ----------
    cell : Cell
    weights : Weights
    sequence : ndarray of shape (L, features, N)
    start : sequence of ndarray of shape (H, N), or None
        The state before the first step; None for zeros.
    absent : ndarray of bool, shape (L, 1, N), or None
        True where a sequence has no such step. Its state does not change there.
    keep : bool
        False if no backward follows. All steps then share the memory of the gates.
    """
    layout = cell.layout
    length, features, batch = sequence.shape
    size, dtype = weights.hh.shape[1], sequence.dtype
    inputs, has_bias = slice(size, size + features), weights.biases is not None
    columns = empty((length + 1, inputs.stop + has_bias, batch), dtype)
    columns[:length, inputs] = sequence
    columns[:, inputs.stop :] = 1
    hidden, shape = columns[:, :size], (size, batch)
    if layout.in_place:
        sums = hidden[1:, None]
    else:
        sums = _for_each_step(length, (len(layout.activations), *shape), dtype, keep)
    others = [_for_each_step(length + 1, shape, dtype, keep) for _ in range(1, layout.states)]
    extras = [_for_each_step(length, shape, dtype, keep) for _ in range(layout.extras)]
    steps = Steps(columns, sums, [hidden, *others], extras, absent)
    for index, state in enumerate(steps.states):
        state[0] = 0 if start is None else start[index]

    multiplying: contextlib.AbstractContextManager[Callable[[Array, Array], object]]
    if length >= _MANY_STEPS:
        multiplying = products_with(_matrix(layout, weights), batch)
    else:
        multiplying = contextlib.nullcontext(functools.partial(_multiply, layout, weights))
    active, factor, shift = _activation(layout, shape, dtype)
    advance = cell.step
    of_gates: Iterable[Any] = zip(*sums.swapaxes(0, 1), strict=True)
    if layout.in_place:
        of_gates = itertools.repeat(None)
    arrays: Iterable[Any] = zip(  # columns and states have L + 1 steps, the others L
        columns,
        sums.reshape(length, -1, batch),
        of_gates,
        zip(*steps.states, strict=True),
        zip(*steps.after, strict=True),
        strict=False,
    )
    with multiplying as multiply:
        for t, (column, rows, gates, before, after) in enumerate(arrays):
            multiply(column, rows)
            if gates is None:
                gates = after  # the same objects: NumPy then does not search for overlaps
            if factor is not None:
                squashed = sums[t, active]
                np.tanh(squashed, out=squashed)
                squashed *= factor
                squashed += shift
            if absent is None:
                advance(gates, before, after)
            else:
                unchanged = [array.copy() for array in before]
                advance(gates, before, after)
                _restore(after[: layout.states], unchanged, absent[t])
    return steps


def scan_back(
    cell: Cell,
    weights: Weights,
    steps: Steps,
    grads: Array | None,
    d_state: list[Array],
    accumulate: Callable[[Terms], None],
    *,
    truncate: int | None,
    start_grad: bool,
    input_grad: bool,
) -> tuple[Array | None, list[Array]]:
    """Backpropagate through all steps of a sequence.

    Parameters
    ----------
    cell : Cell
    weights : Weights
    steps : Steps
        The result of `scan`.
    grads : ndarray of shape (L, H, N), or None
        dL/d(outputs); None for zeros.
    d_state : list of ndarray of shape (H, N)
        dL/d(state after the last step). The arrays are overwritten.
    accumulate : callable
        Called with the `Terms` of each chunk of steps, from the last to the first.
    truncate : int or None
        No gradient crosses the boundaries between windows of this many steps, counted from the end.
    start_grad, input_grad : bool
        Whether the gradients of the initial state and of the sequence are needed.

    Returns
    -------
    d_sequence : ndarray of shape (L, features, N), or None
    d_start : list of ndarray of shape (H, N)
        dL/d(initial state), meaningless without `start_grad`.
    """
    layout, columns = cell.layout, steps.columns
    length, batch = len(steps.sums), columns.shape[2]
    size, features = weights.hh.shape[1], weights.ih.shape[1]
    gates = layout.gates * size
    of_state = _in_blocks(layout, weights.hh).T
    if length >= _MANY_STEPS:
        of_state = np.ascontiguousarray(of_state)
    d_sequence = empty((length, features, batch), columns.dtype) if input_grad else None
    count = max(1, _CHUNK // steps.sums[0].size)
    for stop in range(length, 0, -count):
        chunk = slice(max(stop - count, 0), stop)
        with products_with(of_state, batch) as multiply:
            d_sums, d_state = _chunk_back(
                cell, multiply, steps, chunk, grads, d_state, truncate, start_grad
            )
        d_rows, terms = _side_by_side(d_sums), _side_by_side(columns[chunk])
        d_u = d_rows[-gates:]
        accumulate(Terms(d_u, d_rows[:gates], terms[size : size + features], terms[:size]))
        if d_sequence is not None:
            d_x = product(weights.ih.T, d_u).reshape(features, -1, batch)
            d_sequence[chunk] = d_x.swapaxes(0, 1)
    return d_sequence, d_state


def _chunk_back(
    cell: Cell,
    multiply: Callable[[Array, Array], Array],
    steps: Steps,
    chunk: slice,
    grads: Array | None,
    d_state: list[Array],
    truncate: int | None,
    start_grad: bool,
) -> tuple[Array, list[Array]]:
    """Backpropagate through the steps of a chunk; `multiply` writes products with W_hhᵀ.

    Return the gradients of the sums, (steps, rows, N), and of the state before the first step.
    """
    length, blocks, size, batch = steps.sums.shape
    gates = cell.layout.gates * size
    d_sums = empty((chunk.stop - chunk.start, blocks, size, batch), steps.columns.dtype)
    d_rows = d_sums.reshape(len(d_sums), -1, batch)
    spare = np.empty((size, batch), d_sums.dtype)
    count = max(1, _BLOCK // d_sums[0].size)
    for stop in range(chunk.stop, chunk.start, -count):
        block = slice(max(stop - count, chunk.start), stop)
        local = cell.local_derivatives(
            steps.sums[block].swapaxes(0, 1),
            [array[block] for array in steps.states],
            [array[block] for array in steps.after],
        )
        for t in reversed(range(block.start, stop)):
            if grads is not None:
                d_state[0] += grads[t]
            local_now = [array[t - block.start] for array in local]
            d_direct, *d_others = cell.step_back(local_now, d_state, d_sums[t - chunk.start])
            if t == 0 and not start_grad:
                break
            d_hidden = multiply(d_rows[t - chunk.start, :gates], spare)
            if d_direct is not None:
                d_hidden += d_direct
            d_before: list[Any] = [d_hidden, *d_others]
            if steps.absent is not None:
                _restore(d_before, d_state, steps.absent[t])
            if t and truncate and (length - t) % truncate == 0:
                for array in d_before:
                    array.fill(0)
            spare, d_state = d_state[0], d_before
    if steps.absent is not None:
        np.copyto(d_rows, 0, where=steps.absent[chunk])
    return d_rows, d_state


def _matrix(layout: Layout, weights: Weights) -> Array:
    """Return ``[W_hh W_ih b]``, its rows in the order of the blocks, scaled for `_activation`."""
    (gates, features), size = weights.ih.shape, weights.hh.shape[1]
    inputs, has_bias = slice(size, size + features), weights.biases is not None
    rows = len(layout.activations) * size
    matrix = np.zeros((rows, inputs.stop + has_bias), weights.ih.dtype)
    matrix[:gates, :size] = _in_blocks(layout, weights.hh)
    matrix[-gates:, inputs] = weights.ih
    if weights.biases is not None:
        bias_ih, bias_hh = weights.biases
        matrix[:gates, -1] = _in_blocks(layout, bias_hh)
        matrix[-gates:, -1] += bias_ih
    _halve(layout, matrix)
    return matrix


def _multiply(layout: Layout, weights: Weights, column: Array, out: Array) -> None:
    """Write ``_matrix(layout, weights) @ column`` into `out`, without copying the weights."""
    (gates, features), size = weights.ih.shape, weights.hh.shape[1]
    v = _in_blocks(layout, product(weights.hh, column[:size]))
    u = product(weights.ih, column[size : size + features])
    if weights.biases is not None:
        bias_ih, bias_hh = weights.biases
        v += _in_blocks(layout, bias_hh)[:, None]
        u += bias_ih[:, None]
    out[:gates] = v
    out[gates:] = 0
    out[-gates:] += u
    _halve(layout, out)


def _in_blocks(layout: Layout, rows: Array) -> Array:
    """Reorder rows from the order of W_hh to that of the blocks."""
    if not layout.separate:
        return rows
    return np.roll(rows, layout.separate * (len(rows) // layout.gates), axis=0)


def _halve(layout: Layout, rows: Array) -> None:
    """Halve the rows of the blocks with a logistic function, as `_activation` expects them."""
    size = len(rows) // len(layout.activations)
    for block, activation in enumerate(layout.activations):
        if activation == "sigmoid":
            rows[block * size : (block + 1) * size] *= 0.5


def _activation(
    layout: Layout, shape: tuple[int, int], dtype: np.dtype[Any]
) -> tuple[slice, Array | None, Array | None]:
    """Return the blocks with an activation, and the factor and summand for their tanh.

    Since σ(a) = ½ tanh(½ a) + ½, a single tanh serves all blocks. The inner ½ is in the weights.
    """
    active = [k for k, activation in enumerate(layout.activations) if activation != "linear"]
    if not active:
        return slice(0), None, None
    outer = [0.5 if layout.activations[k] == "sigmoid" else 1 for k in active]
    # For one sample, use the full shape: NumPy broadcasts slowly along a last axis of size 1.
    repeats = shape[0] if shape[1] == 1 else 1
    factor = np.repeat(np.array(outer, dtype), repeats).reshape(len(active), repeats, 1)
    return slice(active[0], active[-1] + 1), factor, 1 - factor


def _restore(arrays: Arrays, unchanged: Arrays, absent: Array) -> None:
    """Copy `unchanged` into `arrays` for the sequences that do not have this step."""
    for array, values in zip(arrays, unchanged, strict=True):
        np.copyto(array, values, where=absent)


def _without(sequence: Array, absent: Array | None) -> Array:
    """Return a sequence (L, features, N) with zeros where a step is absent."""
    if absent is None:
        return sequence
    present: Array = np.where(absent, 0, sequence)
    return present


def _side_by_side(steps: Array) -> Array:
    """Return an array (steps, rows, N) as a matrix (rows, steps · N)."""
    if len(steps) == 1:
        return steps[0]
    count, rows, batch = steps.shape
    matrix = empty((rows, count, batch), steps.dtype)
    matrix[...] = steps.swapaxes(0, 1)
    return matrix.reshape(rows, -1)


def _for_each_step(length: int, shape: tuple[int, ...], dtype: np.dtype[Any], keep: bool) -> Array:
    """Return an array (length, *shape); without `keep`, all steps share the same memory."""
    if keep:
        return empty((length, *shape), dtype)
    once = empty(shape, dtype)
    shared: Array = np.ndarray((length, *shape), dtype, buffer=once, strides=(0, *once.strides))
    return shared
