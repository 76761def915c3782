"""RNN, LSTM and GRU: one product a step, then the formulas of the cell for one element at a time.

With the state before a step, its input and a one side by side, and all weights in one matrix, the
sums of a step are one product::

    a_t = [h_{t-1}  x_t  1] Mᵀ        M = [W_hh  W_ih  b]

Backward there is one product a step too, dh_{t-1} = da_t W_hh, and one over all steps for the
gradients of all weights: dM = Σ_t da_tᵀ [h_{t-1}  x_t  1].
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

import nnlite as nn

from ..engine.arrays import Array
from ..random import generator, own_generators
from .forms import form
from .layers import dropped
from .source import Code, Name, Value, fixed, joined, nest, product, used
from .windows import plus

Recurrent = nn.RNN | nn.LSTM | nn.GRU
# The first block, the first gate, and the number of both.
Pieces = list[tuple[int, int, int]]


class Cell(NamedTuple):
    """The formulas of a cell, for one element.

    Attributes
    ----------
    sums : tuple of str
        The blocks of a_t.
    step : str
        The state after the step, ``h`` and perhaps ``c``, of the sums, ``h_before`` and
        ``c_before``.
    kept : tuple of str
        Names of the values that are stored in place of the sums for the backward.
    step_back : str
        The gradients of the sums, ``d_`` in front of their names, of ``dh`` and ``dc``, those of
        the state after the step; with ``dh_before`` and ``dc_before``, what reaches the state
        before the step without the product.
    of_state, of_input : Pieces
        Which blocks of a_t are sums of which gates of W_hh and of W_ih.
    """

    sums: tuple[str, ...]
    step: str
    kept: tuple[str, ...]
    step_back: str
    of_state: Pieces
    of_input: Pieces


def _rnn(layer: nn.RNN | nn.RNNCell) -> Cell:
    is_tanh = layer.nonlinearity == "tanh"
    return Cell(
        sums=("a",),
        step=f"h = {'tanh(a)' if is_tanh else 'real(0) if a < 0 else a'}",
        kept=("h",),
        step_back=f"d_a = {'dh * (real(1) - h * h)' if is_tanh else 'dh if h > 0 else real(0)'}",
        of_state=[(0, 0, 1)],
        of_input=[(0, 0, 1)],
    )


def _lstm(layer: nn.LSTM | nn.LSTMCell) -> Cell:
    return Cell(
        sums=("a_i", "a_f", "a_g", "a_o"),
        step="""
            i, f, g, o = sigmoid(a_i), sigmoid(a_f), tanh(a_g), sigmoid(a_o)
            c = f * c_before + i * g
            h = o * tanh(c)
        """,
        kept=("i", "f", "g", "o"),
        step_back="""
            tanh_c = tanh(c)
            dc += dh * o * (real(1) - tanh_c * tanh_c)
            d_a_i = dc * g * i * (real(1) - i)
            d_a_f = dc * c_before * f * (real(1) - f)
            d_a_g = dc * i * (real(1) - g * g)
            d_a_o = dh * tanh_c * o * (real(1) - o)
            dc_before = dc * f
        """,
        of_state=[(0, 0, 4)],
        of_input=[(0, 0, 4)],
    )


def _gru(layer: nn.GRU | nn.GRUCell) -> Cell:
    return Cell(
        # r scales v_n with its bias, so that u_n and v_n are sums of their own.
        sums=("a_r", "a_z", "u_n", "v_n"),
        step="""
            r, z = sigmoid(a_r), sigmoid(a_z)
            n = tanh(u_n + r * v_n)
            h = (real(1) - z) * n + z * h_before
        """,
        kept=("r", "z", "n", "v_n"),
        step_back="""
            d_u_n = dh * (real(1) - z) * (real(1) - n * n)
            d_v_n = d_u_n * r
            d_a_r = d_u_n * v_n * r * (real(1) - r)
            d_a_z = dh * (h_before - n) * z * (real(1) - z)
            dh_before = dh * z
        """,
        of_state=[(0, 0, 2), (3, 2, 1)],
        of_input=[(0, 0, 3)],
    )


CELLS: dict[type, Callable[[Any], Cell]] = {
    **dict.fromkeys((nn.RNN, nn.RNNCell), _rnn),
    **dict.fromkeys((nn.LSTM, nn.LSTMCell), _lstm),
    **dict.fromkeys((nn.GRU, nn.GRUCell), _gru),
}


@form(nn.RNN, nn.LSTM, nn.GRU)
def recurrent(
    layer: Recurrent, code: Code, x: Value, *initial: Value, mask: Value | None = None
) -> Value:
    """Write the layers one after the other, each in its directions.

    Where the mask is False the state does not change, the output is 0, and the gradient of the
    state passes through.
    """
    batch, length = x.shape[:2]
    directions = 2 if layer.bidirectional else 1
    width = directions * layer.hidden_size
    states = ("h", "c") if isinstance(layer, nn.LSTM) else ("h",)
    final = _final_states(
        layer, code, (batch, layer.num_layers * directions, layer.hidden_size), states
    )
    for index in range(layer.num_layers):
        if index and layer.dropout and code.is_training(layer):
            x, back = dropped(code, x, layer.dropout, _noise(layer, x))
            code.tape(x, back)
        only_last = layer.outputs == "last" and index == layer.num_layers - 1
        y = code.new((batch, width) if only_last else (batch, length, width))
        runs = [
            _Run(layer, code, x, y, index, direction, initial, mask, final)
            for direction in range(directions)
        ]
        for run in runs:
            run.forward()

        def backward(dy: Value, runs: list[_Run] = runs) -> None:
            for run in runs:
                run.backward(dy)

        code.tape(y, backward)
        x = y
    return x


def _final_states(
    layer: Recurrent, code: Code, shape: tuple[Any, ...], names: Sequence[str]
) -> list[Name]:
    """Return the names of arrays of this shape, new in each call: ``last_state``, samples first."""
    arrays: dict[str, Array] = {}

    def new(name: str) -> Callable[[int], Array]:
        def array(n: int) -> Array:
            array = np.empty(fixed(shape, n), code.dtype)
            arrays[name] = array.swapaxes(0, 1)
            layer.last_state = tuple(arrays.values()) if len(names) > 1 else arrays[name]
            return array

        return array

    return [code.each_call(f"last_{name}", new(name), by_sample=True) for name in names]


def _noise(layer: Recurrent, x: Value) -> Callable[[int], Array]:
    """Return what draws the noise of the dropout in front of a layer, as the layer does."""
    rng = next(iter(own_generators(layer).values()), None)

    def draw(n: int) -> Array:
        batch, length, width = fixed(x.shape, n)
        noise = generator(rng).random((length, width, batch), np.float32)
        return np.ascontiguousarray(noise.transpose(2, 0, 1))

    return draw


class _Run:
    """One layer in one direction, from the sequences `x` to its part of `y`."""

    def __init__(
        self,
        layer: Recurrent,
        code: Code,
        x: Value,
        y: Value,
        index: int,
        direction: int,
        initial: tuple[Value, ...],
        mask: Value | None,
        final: list[Name],
    ) -> None:
        def parameter(kind: str) -> Value:
            suffix = f"l{index}{'_reverse' if direction else ''}"
            return code.parameter(getattr(layer, f"{kind}_{suffix}"), f"{kind}_{suffix}")

        self.code, self.x, self.y = code, x, y
        self.cell = CELLS[type(layer)](layer)
        self.index = index * (2 if layer.bidirectional else 1) + direction
        self.initial, self.mask, self.final = initial, mask, final
        self.truncate = layer.truncate
        batch, length, self.features = x.shape
        self.batch, self.length, self.size = batch, int(length), layer.hidden_size
        self.weight_ih, self.weight_hh = parameter("weight_ih"), parameter("weight_hh")
        self.biases = (parameter("bias_ih"), parameter("bias_hh")) if layer.bias else None
        self.rows = len(self.cell.sums) * self.size
        self.terms = self.size + int(self.features) + (1 if layer.bias else 0)
        self.matrix, self.columns, self.sums = map(code.name, ("matrix", "columns", "sums"))
        # The arrays of the states after each step; the hidden state is a part of the columns.
        self.states = {"h": self.columns}
        if len(final) > 1:
            self.states["c"] = code.name("cells")
        # The step of the sequence, and the features of the output.
        self.time = f"{self.length - 1} - t" if direction else "t"
        self.start = direction * self.size
        self.part = f"{self.start}:{self.start + self.size}"
        self.only_last = len(y.shape) == 2

    def forward(self) -> None:
        code, cell, size, batch = self.code, self.cell, self.size, self.batch
        matrix, columns, sums = self.matrix, self.columns, self.sums
        code(f"""
            {matrix} = np.zeros(({self.rows}, {self.terms}), real)
            {columns} = np.empty(({self.length + 1}, {batch}, {self.terms}), real)
            {sums} = np.empty(({self.length}, {batch}, {self.rows}), real)
        """)
        for weight, bias, pieces, first in self._weights():
            for rows, block, gate in self._rows(pieces):
                copy = f"{matrix}[{block}, {plus('j', first)}] = {weight}[{gate}, j]"
                add = bias and f"{matrix}[{block}, {self.terms - 1}] += {bias}[{gate}]"
                code(nest({"i": rows}, joined(nest({"j": weight.shape[1]}, copy), add or "")))
        code(f"inputs = {self.x.view(*self.x.shape)}")
        code(self._present())
        copy = nest({"k": self.features}, f"{columns}[t, b, {size} + k] = {self._input()}")
        one = f"{columns}[t, b, {self.terms - 1}] = 1" if self.biases else ""
        code(nest({"t": self.length, "b": batch}, joined(copy, one)))
        if "c" in self.states:
            code(f"{self.states['c']} = np.empty(({self.length + 1}, {batch}, {size}), real)")
        for position, array in enumerate(self.states.values()):
            start = "0"
            if self.initial:
                code(f"state = {self.initial[position].view(-1, batch, size)}")
                start = f"state[{self.index}, b, k]"
            code(nest({"b": batch, "k": size}, f"{array}[0, b, k] = {start}"))

        lines = {f"{name}_line": f"{array}[t + 1, b]" for name, array in self.states.items()}
        stored = [f"{name}_line[k] = {name}" for name in self.states]
        unchanged = [f"{name}_line[k] = {name}_before_line[k]" for name in self.states]
        if not self.only_last:
            lines["out_line"] = f"out[b, {self.time}, {self.part}]"
            stored.append("out_line[k] = h")
            unchanged.append("out_line[k] = 0")
        step = self._over_elements(
            lines,
            unchanged,
            f"{', '.join(cell.sums)} = {self._blocks('gates')}",
            *self._loaded(cell.step),
            cell.step,
            f"{self._blocks('gates')} = {', '.join(cell.kept)}",
            *stored,
        )
        code(f"out = {self.y.view(*self.y.shape)}")
        product_ = f"np.dot({columns}[t], {matrix}.T, {sums}[t])"
        code(nest({"t": self.length}, f"{product_}\n{step}"))
        last = [
            f"{final}[b, {self.index}, k] = {array}[{self.length}, b, k]"
            for final, array in zip(self.final, self.states.values(), strict=True)
        ]
        if self.only_last:
            last.append(f"out[b, {plus('k', self.start)}] = {columns}[{self.length}, b, k]")
        code(nest({"b": batch, "k": size}, joined(*last)))

    def backward(self, dy: Value) -> None:
        code, cell, size, batch = self.code, self.cell, self.size, self.batch
        carried = {name: f"d_{name}" for name in self.states}
        code(f"""
            grads = {dy.view(*self.y.shape)}
            d_sums = np.empty(({self.length}, {batch}, {self.rows}), real)
        """)
        code(self._present())
        of_state = self._of_blocks("of_state", self.weight_hh, self.cell.of_state)
        # What reaches the state before the step without the product.
        is_direct = "dh_before" in cell.step_back
        has_direct = is_direct or self.mask is not None
        for array in [*carried.values(), *(["direct"] if has_direct else [])]:
            code(f"{array} = np.zeros(({batch}, {size}), real)")
        if self.only_last:
            d_last = f"d_h[b, k] = grads[b, {plus('k', self.start)}]"
            code(nest({"b": batch, "k": size}, d_last))
        lines = {f"{array}_line": f"{array}[b]" for array in carried.values()}
        lines["d_gates"] = f"d_sums[t, b].reshape({len(cell.sums)}, {size})"
        loaded, stored = [f"d{name} = {array}_line[k]" for name, array in carried.items()], []
        if not self.only_last:
            lines["grads_line"] = f"grads[b, {self.time}, {self.part}]"
            loaded.append("dh += grads_line[k]")
        if "c" in carried:
            lines["c_line"] = f"{self.states['c']}[t + 1, b]"
            loaded.append("c = c_line[k]")
            stored.append("d_c_line[k] = dc_before")
        if has_direct:
            lines["direct_line"] = "direct[b]"
            stored.append(f"direct_line[k] = {'dh_before' if is_direct else '0'}")
        step = [
            self._over_elements(
                lines,
                [
                    f"{self._blocks('d_gates')} = {', '.join(['real(0)'] * len(cell.sums))}",
                    "direct_line[k] = d_h_line[k]",
                ],
                f"{', '.join(cell.kept)} = {self._blocks('gates')}",
                *self._loaded(cell.step_back),
                *loaded,
                cell.step_back,
                f"{self._blocks('d_gates')} = {', '.join(f'd_{name}' for name in cell.sums)}",
                *stored,
            ),
            f"np.dot(d_sums[t], {of_state}, d_h)",
            "d_h += direct" if has_direct else "",
        ]
        if self.truncate:
            zeros = "\n".join(f"    {array}[:] = 0" for array in carried.values())
            step.append(f"if t and ({self.length} - t) % {self.truncate} == 0:\n{zeros}")
        steps = textwrap.indent(joined(*step), "    ")
        code(f"for t in range({self.length - 1}, -1, -1):\n{steps}")
        self._gradients(carried)

    def _over_elements(self, lines: dict[str, str], absent: list[str], *body: str) -> str:
        """Return loops over the samples b and the features k, with the lines of a sample by name.

        With lines, which have no index but k, the inner loop becomes vector instructions. Where a
        step of a sample is masked, the statements `absent` take the place of the body.
        """
        gates = f"{self.sums}[t, b].reshape({len(self.cell.sums)}, {self.size})"
        before = {f"{name}_before_line": f"{array}[t, b]" for name, array in self.states.items()}
        elements = nest({"k": self.size}, joined(*body))
        if self.mask is not None:
            masked = textwrap.indent(nest({"k": self.size}, joined(*absent)), "    ")
            elements = f"if not present[b, {self.time}]:\n{masked}\n    continue\n{elements}"
        lines = lines | {name: before[name] for name in used(before, [elements])}
        starts = [f"{name} = {line}" for name, line in (lines | {"gates": gates}).items()]
        return nest({"b": self.batch}, joined(*starts, elements))

    def _gradients(self, carried: dict[str, str]) -> None:
        """Write the gradients of weights, inputs and initial states."""
        code, size, batch = self.code, self.size, self.batch
        steps = product((self.length, batch))
        code(f"rows = d_sums.reshape({steps}, {self.rows})")
        parameters = (self.weight_ih, self.weight_hh, *(self.biases or ()))
        if any(parameter.needs_grad for parameter in parameters):
            code(f"""
                terms = {self.columns}[:{self.length}].reshape({steps}, {self.terms})
                d_matrix = np.empty(({self.rows}, {self.terms}), real)
                np.dot(rows.T, terms, d_matrix)
            """)
        for weight, bias, pieces, first in self._weights():
            if weight.needs_grad:
                with code.gradient(weight) as part:
                    for rows, block, gate in self._rows(pieces):
                        copy = f"{part}[{gate}, j] = d_matrix[{block}, {plus('j', first)}]"
                        code(nest({"i": rows, "j": weight.shape[1]}, copy))
            if bias and bias.needs_grad:
                with code.gradient(bias) as part:
                    for rows, block, gate in self._rows(pieces):
                        copy = f"{part}[{gate}] = d_matrix[{block}, {self.terms - 1}]"
                        code(nest({"i": rows}, copy))
        if self.x.needs_grad:
            of_input = self._of_blocks("of_input", self.weight_ih, self.cell.of_input)
            with code.gradient(self.x) as dx:
                code(f"""
                    d_terms = np.empty(({steps}, {self.features}), real)
                    np.dot(rows, {of_input}, d_terms)
                    d_steps = d_terms.reshape({self.length}, {batch}, {self.features})
                    d_inputs = {dx.view(*self.x.shape)}
                """)
                loops = {"t": self.length, "b": batch, "k": self.features}
                code(nest(loops, f"d_inputs[b, {self.time}, k] = d_steps[t, b, k]"))
        for state, array in zip(self.initial, carried.values(), strict=bool(self.initial)):
            if state.needs_grad:
                with code.gradient(state) as d_state:
                    code(f"{d_state}[:] = 0\nd_states = {d_state.view(-1, batch, size)}")
                    copy = f"d_states[{self.index}, b, k] = {array}[b, k]"
                    code(nest({"b": batch, "k": size}, copy))

    def _present(self) -> str:
        """Return the view of the mask, if there is one."""
        return "" if self.mask is None else f"present = {self.mask.view(*self.mask.shape)}"

    def _input(self) -> str:
        """Return an input of step t, which counts only where the step is present."""
        value = f"inputs[b, {self.time}, k]"
        return value if self.mask is None else f"{value} if present[b, {self.time}] else real(0)"

    def _of_blocks(self, name: str, weight: Value, pieces: Pieces) -> str:
        """Return the matrix of a weight that multiplies the blocks, written if it is another."""
        if pieces == [(0, 0, len(self.cell.sums))]:
            return f"{weight}"
        self.code(f"{name} = np.zeros(({self.rows}, {weight.shape[1]}), real)")
        for rows, block, gate in self._rows(pieces):
            copy = f"{name}[{block}, j] = {weight}[{gate}, j]"
            self.code(nest({"i": rows, "j": weight.shape[1]}, copy))
        return name

    def _weights(self) -> list[tuple[Value, Value | None, Pieces, int]]:
        """Return weights and biases, with their blocks and their first column of the matrix."""
        bias_ih, bias_hh = self.biases or (None, None)
        return [
            (self.weight_hh, bias_hh, self.cell.of_state, 0),
            (self.weight_ih, bias_ih, self.cell.of_input, self.size),
        ]

    def _rows(self, pieces: Pieces) -> list[tuple[int, str, str]]:
        """Return a number of rows i, with the place of row i in the matrix and in the weight."""
        size = self.size
        return [
            (count * size, plus("i", block * size), plus("i", gate * size))
            for block, gate, count in pieces
        ]

    def _blocks(self, array: str) -> str:
        """Return the elements of all blocks."""
        return ", ".join(f"{array}[{block}, k]" for block in range(len(self.cell.sums)))

    def _loaded(self, formulas: str) -> list[str]:
        """Return statements that load the states before the step which the formulas read."""
        names = used([f"{name}_before" for name in self.states], [textwrap.dedent(formulas)])
        return [f"{name} = {name}_line[k]" for name in names]
