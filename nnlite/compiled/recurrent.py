"""RNN, LSTM and GRU: products for each step, then the formulas of the cell for all its elements.

With the state before a step, a one and the input below each other, and the weights of a gate and
its biases in one matrix, the sums of a step are one product::

    a_t = [W_hh  b  W_ih] [h_{t-1}; 1; x_t]

A GRU has sums of the state alone, [W_hh b] [h_{t-1}; 1], and of the input alone, [b W_ih] [1; x_t],
too.

Backward there is one product a step, dh_{t-1} = W_hhᵀ da_t, and one sum over all steps for each
such matrix, its gradient Σ_t da_t [h_{t-1}; 1; x_t]ᵀ.

The batch is the last axis of all arrays, as in `nnlite.engine.scan`: it fills the vectors of a
product, and the formulas are one long loop for a small batch too.
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
from .source import Code, Name, Size, Value, fixed, joined, nest, number, product, used
from .windows import plus

Recurrent = nn.RNN | nn.LSTM | nn.GRU


class Gates(NamedTuple):
    """Blocks of a_t that follow each other, and the weights that they are sums of.

    Attributes
    ----------
    first, number : int
        The first block, and the number of blocks.
    of_state, of_input : int, optional
        The gates of W_hh, and of W_ih, by the first one; None if they are no sums of them.
    """

    first: int
    number: int
    of_state: int | None
    of_input: int | None


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
    gates : list of Gates
        All blocks in their order. Those of the state follow each other, as do those of the input.
    """

    sums: tuple[str, ...]
    step: str
    kept: tuple[str, ...]
    step_back: str
    gates: list[Gates]


def _rnn(layer: nn.RNN | nn.RNNCell) -> Cell:
    is_tanh = layer.nonlinearity == "tanh"
    return Cell(
        sums=("a",),
        step=f"h = {'tanh(a)' if is_tanh else 'real(0) if a < 0 else a'}",
        kept=("h",),
        step_back=f"d_a = {'dh * (real(1) - h * h)' if is_tanh else 'dh if h > 0 else real(0)'}",
        gates=[Gates(0, 1, of_state=0, of_input=0)],
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
        gates=[Gates(0, 4, of_state=0, of_input=0)],
    )


def _gru(layer: nn.GRU | nn.GRUCell) -> Cell:
    return Cell(
        # r scales v_n with its bias, so that u_n and v_n are sums of their own.
        sums=("v_n", "a_r", "a_z", "u_n"),
        step="""
            r, z = sigmoid(a_r), sigmoid(a_z)
            n = tanh(u_n + r * v_n)
            h = (real(1) - z) * n + z * h_before
        """,
        kept=("v_n", "r", "z", "n"),
        step_back="""
            d_u_n = dh * (real(1) - z) * (real(1) - n * n)
            d_v_n = d_u_n * r
            d_a_r = d_u_n * v_n * r * (real(1) - r)
            d_a_z = dh * (h_before - n) * z * (real(1) - z)
            dh_before = dh * z
        """,
        gates=[
            Gates(0, 1, of_state=2, of_input=None),
            Gates(1, 2, of_state=0, of_input=0),
            Gates(3, 1, of_state=None, of_input=2),
        ],
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
    for state in initial:
        number(state.shape[0])  # of layers: there may be as many samples
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
            state = tuple(arrays.values()) if len(names) > 1 else arrays[name]
            vars(layer)["last_state"] = state  # not a change that calls have to look for
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


class _Side(NamedTuple):
    """One of the weights, with its bias and its factors.

    Attributes
    ----------
    weight, bias : Value
    pieces : list of tuple of int
        The first block, the first gate, and the number of both, of blocks that follow each other.
    first, end : int
        The rows of the columns, [h; 1; x], that are its factors: the one is among them if there
        are biases.
    column, one : int
        Among these, the first that multiplies the weight, and that of the bias.
    """

    weight: Value
    bias: Value | None
    pieces: list[tuple[int, int, int]]
    first: int
    end: int
    column: int
    one: int

    @property
    def first_block(self) -> int:
        """The first block that is a sum of this weight."""
        return self.pieces[0][0]

    @property
    def parameters(self) -> list[Value]:
        """The weight, and the bias if there is one."""
        return [self.weight, self.bias] if self.bias else [self.weight]


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
        self.is_alone = layer.num_layers == 1 and not layer.bidirectional
        self.title = f"layer {index}{', reverse' if direction else ''}"
        self.initial, self.mask, self.final = initial, mask, final
        self.truncate = layer.truncate
        batch, length, features = x.shape
        self.batch, self.length, self.size = batch, number(length), layer.hidden_size
        self.features = number(features)
        self.rows = len(self.cell.sums) * self.size
        self.terms = self.size + layer.bias + self.features
        gates, one = self.cell.gates, 1 if layer.bias else 0

        def side(kind: str, of_gates: list[int | None], **places: int) -> _Side:
            pieces = [
                (g.first, gate, g.number)
                for g, gate in zip(gates, of_gates, strict=True)
                if gate is not None
            ]
            bias = parameter(f"bias_{kind}") if layer.bias else None
            return _Side(parameter(f"weight_{kind}"), bias, pieces, **places)

        self.of_state = side(
            "hh", [g.of_state for g in gates], first=0, end=self.size + one, column=0, one=self.size
        )
        self.of_input = side(
            "ih", [g.of_input for g in gates], first=self.size, end=self.terms, column=one, one=0
        )
        self.columns, self.sums = map(code.name, ("columns", "sums"))
        # The arrays of the states after each step; the hidden state is a part of the columns.
        self.states = {"h": self.columns}
        if len(final) > 1:
            self.states["c"] = code.name("cells")
        # The step of the sequence, and the first feature of the output.
        self.time = f"{self.length - 1} - t" if direction else "t"
        self.feature = direction * self.size
        self.only_last = len(y.shape) == 2
        # Whether the hidden state before a step is reached by a way beside the product.
        self.has_direct = "dh_before" in self.cell.step_back or mask is not None

    def forward(self) -> None:
        code, cell, size, batch = self.code, self.cell, self.size, self.batch
        columns = self.columns
        if not self.is_alone:
            code.subtitle(self.title)
        code(f"""
            {columns} = np.empty(({self.length + 1}, {self.terms}, {batch}), real)
            {self.sums} = np.empty(({self.length}, {self.rows}, {batch}), real)
        """)
        products = [self._product(gates) for gates in cell.gates]
        self._read_mask()
        code(f"inputs = {self.x.view(*self.x.shape)}")
        place = self.of_input.first + self.of_input.column
        rows = _slice(f"{columns}[t", place, self.terms, self.terms)
        copy = f"copy_transposed(inputs[:, {self.time}], {rows})"
        # The input counts only where the step is present.
        clear = self._where_absent(f"{columns}[t, {plus('k', place)}, b] = 0", self.features)
        one = nest({"b": batch}, f"{columns}[t, {size}, b] = 1") if self.of_state.bias else ""
        code(nest({"t": self.length}, joined(copy, clear, one)))
        if "c" in self.states:
            code(f"{self.states['c']} = np.empty(({self.length + 1}, {size}, {batch}), real)")
        for position, array in enumerate(self.states.values()):
            start = "0"
            if self.initial:
                code(f"state = {self.initial[position].view(-1, batch, size)}")
                start = f"state[{self.index}, b, k]"
            code(nest({"k": size, "b": batch}, f"{array}[0, k, b] = {start}"))

        before = ", ".join(f"{name}_before" for name in self.states)
        step = self._over_elements(
            {f"{name}_line": f"{array}[t + 1]" for name, array in self.states.items()},
            f"{', '.join(cell.sums)} = {self._blocks('gates')}",
            cell.step,
            self._if_absent(f"{', '.join(self.states)} = {before}"),
            f"{self._blocks('gates')} = {', '.join(cell.kept)}",
            *(f"{name}_line[e] = {name}" for name in self.states),
        )
        output = ""
        if not self.only_last:
            output = joined(
                f"copy_transposed({self._state('h', 't + 1')}, {self._of_output('out')})",
                self._where_absent(f"out[b, {self.time}, {plus('k', self.feature)}] = 0", size),
            )
        code(f"out = {self.y.view(*self.y.shape)}")
        code(nest({"t": self.length}, joined(*products, step, output)))
        for final, name in zip(self.final, self.states, strict=True):
            code(f"copy_transposed({self._state(name, self.length)}, {final}[:, {self.index}])")
        if self.only_last:
            code(f"copy_transposed({self._state('h', self.length)}, {self._of_output('out')})")

    def backward(self, dy: Value) -> None:
        code, size, batch = self.code, self.size, self.batch
        if not self.is_alone:
            code.subtitle(self.title)
        # The gradients of the state after a step; `direct` and `d_output` come to that of h.
        arrays = [f"d_{name}" for name in self.states]
        if self.has_direct:
            arrays.append("direct")
        code(f"""
            grads = {dy.view(*self.y.shape)}
            d_sums = np.empty(({self.length}, {self.rows}, {batch}), real)
        """)
        for array in arrays:
            code(f"{array} = np.zeros(({size}, {batch}), real)")
        self._read_mask()
        step = []
        if self.only_last:
            code(f"copy_transposed({self._of_output('grads')}, d_h)")
        else:
            code(f"d_output = np.empty(({size}, {batch}), real)")
            step.append(f"copy_transposed({self._of_output('grads')}, d_output)")
        step.append(self._elements_back(arrays))
        of_state = self._transposed("of_state", self.of_state)
        if not any(state.needs_grad for state in self.initial):
            step.append("if t == 0:\n    break")
        step.append(f"matmul({of_state}, {self._gradients_of(self.of_state)}, d_h)")
        if self.truncate:
            zeros = "\n".join(f"    {array}[:] = 0" for array in arrays)
            step.append(f"if t and ({self.length} - t) % {self.truncate} == 0:\n{zeros}")
        steps = textwrap.indent(joined(*step), "    ")
        code(f"for t in range({self.length - 1}, -1, -1):\n{steps}")
        self._write_gradients()
        if self.x.needs_grad:
            self._write_input_gradient()
        for state, name in zip(self.initial, self.states, strict=bool(self.initial)):
            if state.needs_grad:
                grad = f"d_{name}[k, b]"
                if name == "h" and self.has_direct:
                    grad += " + direct[k, b]"
                with code.gradient(state) as d_state:
                    code(f"{d_state}[:] = 0\nd_states = {d_state.view(-1, batch, size)}")
                    code(nest({"b": batch, "k": size}, f"d_states[{self.index}, b, k] = {grad}"))

    # ---- parts of arrays ----

    def _state(self, name: str, t: int | str) -> str:
        """Return a state after t steps, one row for each feature."""
        rows = self.terms if name == "h" else self.size
        return _slice(f"{self.states[name]}[{t}", 0, self.size, rows)

    def _of_output(self, array: str) -> str:
        """Return the features of this direction, in step t or in the only one that there is."""
        first, width = self.feature, number(self.y.shape[-1])
        if not self.only_last:
            return _slice(f"{array}[:, {self.time}", first, first + self.size, width)
        return array if width == self.size else f"{array}[:, {first}:{first + self.size}]"

    # ---- products ----

    def _sides(self, gates: Gates) -> list[tuple[_Side, int]]:
        """Return the weights that some gates are sums of, each with its first gate."""
        both = (self.of_state, gates.of_state), (self.of_input, gates.of_input)
        return [(side, gate) for side, gate in both if gate is not None]

    def _product(self, gates: Gates) -> str:
        """Write the matrix of some gates; return the statement of their sums in step t."""
        code, size, sides = self.code, self.size, self._sides(gates)
        first, end = sides[0][0].first, sides[-1][0].end
        matrix, rows = code.name("matrix"), gates.number * size
        code(f"{matrix} = np.zeros(({rows}, {end - first}), real)")
        for side, gate in sides:
            row, start = plus("i", gate * size), side.first - first
            copy = f"{matrix}[i, {plus('j', start + side.column)}] = {side.weight}[{row}, j]"
            add = f"{matrix}[i, {start + side.one}] += {side.bias}[{row}]" if side.bias else ""
            code(nest({"i": rows}, joined(nest({"j": side.weight.shape[1]}, copy), add)))
        column = _slice(f"{self.columns}[t", first, end, self.terms)
        sums = _slice(f"{self.sums}[t", gates.first * size, gates.first * size + rows, self.rows)
        return f"matmul({matrix}, {column}, {sums})"

    def _write_gradients(self) -> None:
        """Write the gradients of the matrices, and those of weights and biases, their parts."""
        code, size = self.code, self.size
        # For each parameter, the statements that copy its gradient from those of the matrices.
        copies: dict[str, list[str]] = {}
        parameters = [each for side in (self.of_state, self.of_input) for each in side.parameters]
        if not any(parameter.needs_grad for parameter in parameters):
            return
        for gates in self.cell.gates:
            sides = self._sides(gates)
            first, end = sides[0][0].first, sides[-1][0].end
            matrix, rows = code.name("d_matrix"), gates.number * size
            code(f"""
                {matrix} = np.empty(({rows}, {end - first}), real)
                sum_of_dots(d_sums, {gates.first * size}, {self.columns}, {first}, {matrix})
            """)
            for side, gate in sides:
                row, start = plus("i", gate * size), side.first - first
                value = f"{matrix}[i, {plus('j', start + side.column)}]"
                loops: dict[str, Size] = {"i": rows, "j": side.weight.shape[1]}
                copy = nest(loops, f"{{grad}}[{row}, j] = {value}")
                copies.setdefault(side.weight.name, []).append(copy)
                if side.bias:
                    copy = f"{{grad}}[{row}] = {matrix}[i, {start + side.one}]"
                    copies.setdefault(side.bias.name, []).append(nest({"i": rows}, copy))
        for parameter in parameters:
            if parameter.needs_grad:
                with code.gradient(parameter) as grad:
                    code(joined(*copies[parameter.name]).format(grad=grad))

    def _transposed(self, name: str, side: _Side) -> str:
        """Write the transpose of a weight, with its gates in the order of the blocks."""
        self.code(f"{name} = np.empty(({side.weight.shape[1]}, {side.weight.shape[0]}), real)")
        size = self.size
        for block, gate, count in side.pieces:
            row, column = gate * size, (block - side.first_block) * size
            gates, blocks = str(side.weight), name
            if len(side.pieces) > 1:
                gates += f"[{row}:{row + count * size}]"
                blocks += f"[:, {column}:{column + count * size}]"
            self.code(f"copy_transposed({gates}, {blocks})")
        return name

    def _gradients_of(self, side: _Side) -> str:
        """Return the gradients, in step t, of the blocks that are sums of a weight."""
        first = side.first_block * self.size
        return _slice("d_sums[t", first, first + int(side.weight.shape[0]), self.rows)

    def _write_input_gradient(self) -> None:
        """Write dx, one step after the other."""
        code, side = self.code, self.of_input
        of_input = self._transposed("of_input", side)
        with code.gradient(self.x) as dx:
            code(f"""
                d_input = np.empty(({self.features}, {self.batch}), real)
                d_inputs = {dx.view(*self.x.shape)}
            """)
            product = f"matmul({of_input}, {self._gradients_of(side)}, d_input)"
            copy = f"copy_transposed(d_input, d_inputs[:, {self.time}])"
            code(nest({"t": self.length}, joined(product, copy)))

    # ---- elements ----

    @property
    def _elements(self) -> str:
        """The number of elements of a state."""
        return product((self.size, self.batch))

    def _over_elements(self, lines: dict[str, str], *body: str) -> str:
        """Return a loop over the elements e of a state, with arrays of the step by name.

        They are flat, so that the loop becomes vector instructions. The states before the step are
        loaded if the body reads them.
        """
        before = {
            f"{name}_before": f"{array}[t]"
            for name, array in self.states.items()
            if used([f"{name}_before"], [joined(*body)])
        }
        lines = lines | {f"{name}_line": array for name, array in before.items()}
        blocks = f"reshape({len(self.cell.sums)}, {self._elements})"
        return joined(
            *(f"{name} = {array}.reshape(-1)" for name, array in lines.items()),
            f"gates = {self.sums}[t].{blocks}",
            f"d_gates = d_sums[t].{blocks}" if used(["d_gates"], [joined(*body)]) else "",
            self._step_of_mask(),
            nest(
                {"e": self._elements},
                joined(*(f"{name} = {name}_line[e]" for name in before), *body),
            ),
        )

    def _elements_back(self, arrays: list[str]) -> str:
        """Return the loop of the backward of a step, with the arrays of the gradients."""
        cell = self.cell
        lines = {f"{array}_line": array for array in arrays}
        after = {f"d{name}": f"d_{name}_line[e]" for name in self.states}
        stored = {}
        if not self.only_last:
            lines["d_output_line"] = "d_output"
            grad = "d_output_line[e]"
            if self.mask is not None:
                grad = f"({grad} if is_present[e] else real(0))"
            after["dh"] += f" + {grad}"
        if self.has_direct:
            after["dh"] += " + direct_line[e]"
            stored["direct_line"] = "dh_before"
        if "c" in self.states:
            lines["c_line"] = f"{self.states['c']}[t + 1]"
            stored["d_c_line"] = "dc_before"
        is_zero = self.has_direct and "dh_before" not in cell.step_back
        of_sums = ", ".join(f"d_{name}" for name in cell.sums)
        return self._over_elements(
            lines,
            f"{', '.join(cell.kept)} = {self._blocks('gates')}",
            *(f"{name} = {grad}" for name, grad in after.items()),
            "c = c_line[e]" if "c" in self.states else "",
            "dh_before = real(0)" if is_zero else "",
            cell.step_back,
            self._if_absent(
                f"{of_sums} = {', '.join(['real(0)'] * len(cell.sums))}",
                *(f"{name}_before = {grad}" for name, grad in after.items()),
            ),
            f"{self._blocks('d_gates')} = {of_sums}",
            *(f"{line}[e] = {grad}" for line, grad in stored.items()),
        )

    def _blocks(self, array: str) -> str:
        """Return the elements of all blocks."""
        return ", ".join(f"{array}[{block}, e]" for block in range(len(self.cell.sums)))

    # ---- mask ----

    def _read_mask(self) -> None:
        """Write the view of the mask, if there is one, and an array for the elements of a step."""
        if self.mask is not None:
            self.code(f"""
                present = {self.mask.view(*self.mask.shape)}
                is_present = np.empty({self._elements}, np.bool_)
            """)

    def _step_of_mask(self) -> str:
        """Return statements that fill this array for step t."""
        copy = f"is_present[k * {self.batch} + b] = present[b, {self.time}]"
        return nest({"k": self.size, "b": self.batch}, copy) if self.mask is not None else ""

    def _where_absent(self, statement: str, features: int) -> str:
        """Return the loop of a statement for each feature k of sample b where the mask is False."""
        if self.mask is None:
            return ""
        body = f"if not present[b, {self.time}]:\n    {statement}"
        return nest({"k": features, "b": self.batch}, body)

    def _if_absent(self, *statements: str) -> str:
        """Return statements for an element where the mask is False."""
        if self.mask is None:
            return ""
        return f"if not is_present[e]:\n{textwrap.indent(joined(*statements), '    ')}"


def _slice(array: str, first: int, end: int, size: int) -> str:
    """Return a slice of the next axis of an array, whose index is not closed yet."""
    if (first, end) == (0, size):
        return f"{array}]"
    return f"{array}, {first or ''}:{end if end < size else ''}]"
