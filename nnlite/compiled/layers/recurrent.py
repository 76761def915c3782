"""RNN, LSTM and GRU: products for each step, then the formulas of the cell for all its elements.

With a one above the input, and the biases and the weights of the input in one matrix, the sums of a
step are two products::

    a_t = [b  W_ih] [1; x_t] + W_hh h_{t-1}

The sums of a GRU are in four blocks: the third is a sum of the state and its bias alone, and the
last of the input and its bias. In the third block the matrix has zeros in place of weights, and
W_hh ends before the last block.

Backward there is one product a step, dh_{t-1} = W_hhᵀ da_t, and one sum over all steps for each
matrix, its gradient: Σ_t da_t [1; x_t]ᵀ and Σ_t da_t h_{t-1}ᵀ.

The batch is the last axis of all arrays, as in `nnlite.engine.scan`: it fills the vectors of a
product, and the formulas are one long loop for a small batch too.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

import nnlite as nn

from ...engine.arrays import Array
from ...random import generator, own_generators
from ..forms import form
from ..source import Code, Name, Value, fixed, joined, nest, number, product, used
from .dropout import dropped
from .windows import plus

Recurrent = nn.RNN | nn.LSTM | nn.GRU


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
    of_state : int
        The number of blocks that are sums of the state: the first ones, one for each gate of W_hh.
    of_input : tuple of int or None
        The gate of W_ih that each block is a sum of; None if it is no sum of the input.
    """

    sums: tuple[str, ...]
    step: str
    kept: tuple[str, ...]
    step_back: str
    of_state: int
    of_input: tuple[int | None, ...]


def _rnn(layer: nn.RNN | nn.RNNCell) -> Cell:
    is_tanh = layer.nonlinearity == "tanh"
    return Cell(
        sums=("a",),
        step=f"h = {'tanh(a)' if is_tanh else 'real(0) if a < 0 else a'}",
        kept=("h",),
        step_back=f"d_a = {'dh * (real(1) - h * h)' if is_tanh else 'dh if h > 0 else real(0)'}",
        of_state=1,
        of_input=(0,),
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
        of_state=4,
        of_input=(0, 1, 2, 3),
    )


def _gru(layer: nn.GRU | nn.GRUCell) -> Cell:
    return Cell(
        # r scales v_n with its bias, so that u_n and v_n are sums of their own.
        sums=("a_r", "a_z", "v_n", "u_n"),
        step="""
            r, z = sigmoid(a_r), sigmoid(a_z)
            n = tanh(u_n + r * v_n)
            h = (real(1) - z) * n + z * h_before
        """,
        kept=("r", "z", "v_n", "n"),
        step_back="""
            d_u_n = dh * (real(1) - z) * (real(1) - n * n)
            d_v_n = d_u_n * r
            d_a_r = d_u_n * v_n * r * (real(1) - r)
            d_a_z = dh * (h_before - n) * z * (real(1) - z)
            dh_before = dh * z
        """,
        of_state=3,
        of_input=(0, 1, None, 2),
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
            array = np.zeros(fixed(shape, n), code.dtype)  # also after an error
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
        self.rows_of_state = self.cell.of_state * self.size
        self.has_bias, self.one = layer.bias, int(layer.bias)
        self.weight_ih, self.weight_hh = parameter("weight_ih"), parameter("weight_hh")
        if layer.bias:
            self.bias_ih, self.bias_hh = parameter("bias_ih"), parameter("bias_hh")
        self.inputs, self.sums = map(code.name, ("inputs", "sums"))
        # The arrays of the states before the first step and after each.
        names = ("hidden", "cells")[: len(final)]
        self.states = dict(zip(("h", "c"), map(code.name, names), strict=False))
        # The step of the sequence, and the first feature of the output.
        self.time = f"{self.length - 1} - t" if direction else "t"
        self.feature = direction * self.size
        self.only_last = len(y.shape) == 2
        # Whether dh_{t-1} has a term besides W_hhᵀ da_t.
        self.has_direct = "dh_before" in self.cell.step_back or mask is not None

    def forward(self) -> None:
        code, cell, size, batch = self.code, self.cell, self.size, self.batch
        length, inputs, sums = self.length, self.inputs, self.sums
        if not self.is_alone:
            code.subtitle(self.title)
        terms = self.one + self.features
        code(f"""
            {inputs} = np.empty(({length}, {terms}, {batch}), real)
            {sums} = np.empty(({length}, {self.rows}, {batch}), real)
        """)
        for array in self.states.values():
            code(f"{array} = np.empty(({length + 1}, {size}, {batch}), real)")
        self._read_mask()
        code(f"samples = {self.x.view(*self.x.shape)}")
        rows = f"{inputs}[t, 1:]" if self.one else f"{inputs}[t]"
        copy = f"copy_transposed(samples[:, {self.time}], {rows})"
        # The input counts only where the step is present.
        clear = self._where_absent(f"{inputs}[t, {plus('k', self.one)}, b] = 0", self.features)
        one = nest({"b": batch}, f"{inputs}[t, 0, b] = 1") if self.one else ""
        code(nest({"t": length}, joined(copy, clear, one)))
        self._write_matrix()
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
                f"copy_transposed({self.states['h']}[t + 1], {self._of_output('out')})",
                self._where_absent(f"out[b, {self.time}, {plus('k', self.feature)}] = 0", size),
            )
        # The inputs of all steps of one sample are the rows of a matrix.
        code(f"""
            out = {self.y.view(*self.y.shape)}
            if {batch} == 1:
                lines = view({inputs}, {length}, {terms})
                dot_rows(lines, matrix, view({sums}, {length}, {self.rows}))
        """)
        products = joined(
            f"if {batch} > 1:\n    matmul(matrix, {inputs}[t], {sums}[t])",
            f"add_matmul({self.weight_hh}, {self.states['h']}[t], {self._of_state(sums)})",
        )
        code(nest({"t": length}, joined(products, step, output)))
        for final, array in zip(self.final, self.states.values(), strict=True):
            code(f"copy_transposed({array}[{length}], {final}[:, {self.index}])")
        if self.only_last:
            code(f"copy_transposed({self.states['h']}[{length}], {self._of_output('out')})")

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
        code(f"""
            of_state = np.empty(({size}, {self.rows_of_state}), real)
            copy_transposed({self.weight_hh}, of_state)
        """)
        if not any(state.needs_grad for state in self.initial):
            step.append("if t == 0:\n    break")
        step.append(f"matmul(of_state, {self._of_state('d_sums')}, d_h)")
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

    def _of_state(self, array: str) -> str:
        """Return the blocks, in step t, that are sums of the state."""
        rows = "" if self.rows_of_state == self.rows else f", :{self.rows_of_state}"
        return f"{array}[t{rows}]"

    def _of_output(self, array: str) -> str:
        """Return the features of this direction, in step t or in the only one that there is."""
        first, width = self.feature, number(self.y.shape[-1])
        if not self.only_last:
            return _slice(f"{array}[:, {self.time}", first, first + self.size, width)
        return array if width == self.size else f"{array}[:, {first}:{first + self.size}]"

    # ---- products ----

    @property
    def _pieces(self) -> list[tuple[int, int, int]]:
        """Blocks that are sums of the input: the first row, that of W_ih, and their number."""
        pieces: list[tuple[int, int, int]] = []
        for block, gate in enumerate(self.cell.of_input):
            if gate is None:
                continue
            row, of_weight = block * self.size, gate * self.size
            if pieces and pieces[-1][0] + pieces[-1][2] == row:
                row, of_weight, _ = pieces.pop()
            pieces.append((row, of_weight, (block + 1) * self.size - row))
        return pieces

    def _write_matrix(self) -> None:
        """Write the matrix of the biases and the weights of the input."""
        code, one = self.code, self.one
        code(f"matrix = np.zeros(({self.rows}, {one + self.features}), real)")
        if self.has_bias:
            code(nest({"i": self.rows_of_state}, f"matrix[i, 0] = {self.bias_hh}[i]"))
        for first, row, count in self._pieces:
            i, k = plus("i", first), plus("i", row)
            bias = f"matrix[{i}, 0] += {self.bias_ih}[{k}]" if self.has_bias else ""
            copy = f"matrix[{i}, {plus('j', one)}] = {self.weight_ih}[{k}, j]"
            code(nest({"i": count}, joined(bias, nest({"j": self.features}, copy))))

    def _write_gradients(self) -> None:
        """Write the gradients of the weights and biases."""
        code, one = self.code, self.one
        if self.weight_hh.needs_grad:
            with code.gradient(self.weight_hh) as dw:
                code(f"sum_of_dots(d_sums, {self.states['h']}, {dw})")
        biases = [self.bias_ih, self.bias_hh] if self.has_bias else []
        if not any(parameter.needs_grad for parameter in (self.weight_ih, *biases)):
            return
        code(f"""
            d_matrix = np.empty(({self.rows}, {one + self.features}), real)
            sum_of_dots(d_sums, {self.inputs}, d_matrix)
        """)
        if self.has_bias and self.bias_hh.needs_grad:
            with code.gradient(self.bias_hh) as db:
                code(nest({"i": self.rows_of_state}, f"{db}[i] = d_matrix[i, 0]"))
        if self.has_bias and self.bias_ih.needs_grad:
            with code.gradient(self.bias_ih) as db:
                for first, row, count in self._pieces:
                    copy = f"{db}[{plus('i', row)}] = d_matrix[{plus('i', first)}, 0]"
                    code(nest({"i": count}, copy))
        if self.weight_ih.needs_grad:
            with code.gradient(self.weight_ih) as dw:
                for first, row, count in self._pieces:
                    value = f"d_matrix[{plus('i', first)}, {plus('j', one)}]"
                    copy = f"{dw}[{plus('i', row)}, j] = {value}"
                    code(nest({"i": count, "j": self.features}, copy))

    def _write_input_gradient(self) -> None:
        """Write dx, one step after the other."""
        code = self.code
        code(f"of_input = np.zeros(({self.features}, {self.rows}), real)")
        for first, row, count in self._pieces:
            gates, blocks = str(self.weight_ih), "of_input"
            if count < self.rows:
                gates += f"[{row}:{row + count}]"
                blocks += f"[:, {first}:{first + count}]"
            code(f"copy_transposed({gates}, {blocks})")
        with code.gradient(self.x) as dx:
            code(f"""
                d_input = np.empty(({self.features}, {self.batch}), real)
                d_inputs = {dx.view(*self.x.shape)}
            """)
            copy = f"copy_transposed(d_input, d_inputs[:, {self.time}])"
            code(nest({"t": self.length}, joined("matmul(of_input, d_sums[t], d_input)", copy)))

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
