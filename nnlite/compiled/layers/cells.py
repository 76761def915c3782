"""RNNCell, LSTMCell and GRUCell: one step, with the formulas of RNN, LSTM and GRU."""

from __future__ import annotations

from typing import Any

import nnlite as nn

from ..forms import form
from ..source import Code, Value, joined, nest, used
from .recurrent import CELLS
from .windows import plus


@form(nn.RNNCell, nn.LSTMCell, nn.GRUCell)
def recurrent_cell(
    layer: nn.RNNCell | nn.LSTMCell | nn.GRUCell, code: Code, x: Value, *state: Value
) -> Any:
    """Write x W_ihᵀ and h W_hhᵀ, and then the step of each unit; without a state, it is 0."""
    cell, batch, size = CELLS[type(layer)](layer), x.shape[0], layer.hidden_size
    width = layer.gates * size
    names = ("h", "c")[: layer.states]
    before = dict(zip(names, state, strict=bool(state)))
    at = f"b * {size} + k"

    def parameters(kind: str) -> dict[str, Value]:
        return {
            side: code.parameter(getattr(layer, f"{kind}_{side}"), f"{kind}_{side}")
            for side in ("ih", "hh")
        }

    weights, biases = parameters("weight"), parameters("bias") if layer.bias else {}
    operands = {"ih": x, "hh": before["h"]} if before else {"ih": x}
    products = {}
    for side, operand in operands.items():
        y = products[side] = code.new((batch, width), f"product_{side}")
        rows = operand.view(batch, operand.shape[1])
        code(f"dot_rows({rows}, {weights[side]}, {y.view(batch, width)})")

    # For each side, the blocks of the sums and their gates: see `Cell`.
    gates = {
        "ih": {block: gate for block, gate in enumerate(cell.of_input) if gate is not None},
        "hh": {block: block for block in range(cell.of_state)},
    }

    def total(block: int) -> str:
        terms = []
        for side, gate_of in gates.items():
            if block in gate_of:
                unit = plus("k", gate_of[block] * size)
                terms += [f"{products[side]}[b * {width} + {unit}]"] if side in products else []
                terms += [f"{biases[side]}[{unit}]"] if biases else []
        return " + ".join(terms) or "real(0)"

    def loaded(formulas: str) -> list[str]:
        """Return statements that load the states before the step which the formulas read."""
        read = used([f"{name}_before" for name in names], [joined(formulas)])
        return [
            f"{name}_before = {f'{before[name]}[{at}]' if before else 'real(0)'}"
            for name in names
            if f"{name}_before" in read
        ]

    after = {name: code.new((batch, size), name) for name in names}
    kept = code.new((batch, len(cell.kept), size), "kept")
    elements = ", ".join(
        f"{kept}[b * {len(cell.kept) * size} + {plus('k', index * size)}]"
        for index in range(len(cell.kept))
    )
    step = joined(
        f"{', '.join(cell.sums)} = {', '.join(total(block) for block in range(len(cell.sums)))}",
        *loaded(cell.step),
        cell.step,
        f"{elements} = {', '.join(cell.kept)}",
        *(f"{y}[{at}] = {name}" for name, y in after.items()),
    )
    code(nest({"b": batch, "k": size}, step))

    def backward(*grads: Value) -> None:
        flows = {
            side: code.new((batch, width), f"flow_{side}")
            for side in gates
            if side in operands or biases
        }
        direct = {
            name: code.new((batch, size), f"direct_{name}")
            for name in before
            if f"d{name}_before" in cell.step_back
        }
        step = joined(
            f"{', '.join(cell.kept)} = {elements}",
            *loaded(cell.step_back),
            *(f"d{name} = {grad}[{at}]" for name, grad in zip(names, grads, strict=True)),
            f"c = {after['c']}[{at}]" if "c" in after else "",
            cell.step_back,
            *(
                f"{flow}[b * {width} + {plus('k', gate * size)}] = d_{cell.sums[block]}"
                for side, flow in flows.items()
                for block, gate in gates[side].items()
            ),
            *(f"{part}[{at}] = d{name}_before" for name, part in direct.items()),
        )
        code(nest({"b": batch, "k": size}, step))
        for side, flow in flows.items():
            rows, weight = flow.view(batch, width), weights[side]
            if biases and biases[side].needs_grad:
                with code.gradient(biases[side]) as db:
                    code(f"column_sums({rows}, {db})")
            if side not in operands:
                continue
            operand = operands[side]
            shape = batch, operand.shape[1]
            if weight.needs_grad:
                with code.gradient(weight) as dw:
                    code(f"dot_columns({rows}, {operand.view(*shape)}, {dw})")
            if operand.needs_grad:
                with code.gradient(operand) as d_operand:
                    code(f"matmul({rows}, {weight}, {d_operand.view(*shape)})")
        for name, part in direct.items():
            if before[name].needs_grad:
                code.pass_gradient(before[name], part)

    return tuple(after.values()) if layer.states > 1 else after["h"], backward
