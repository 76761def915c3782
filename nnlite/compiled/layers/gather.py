"""Values at chosen positions along an axis."""

from __future__ import annotations

import numpy as np

from ...engine.arrays import Array
from ..source import Code, Shape, Size, Value, lines_along, nest


def gathered(code: Code, x: Value, axis: int, positions: Array, t: Array | None = None) -> Value:
    """Write y_i = x_k along an axis, or (1 - t) x_k + t x_(k+1), and keep its backward."""
    before, size, behind = lines_along(x.shape, axis)
    shape: Shape = (*x.shape[:axis], len(positions), *x.shape[axis + 1 :])
    y = code.new(shape)
    k = code.argument("positions", positions.astype(np.int64))
    sizes: dict[str, Size] = {"i": before, "o": len(positions), "j": behind}
    if t is None:
        at, back = f"a[i, {k}[o], j]", f"d[i, {k}[o], j] += g[i, o, j]"
    else:
        part = code.argument("parts", t.astype(code.dtype))
        following = f"min({k}[o] + 1, {size - 1})"
        at = f"(real(1) - {part}[o]) * a[i, {k}[o], j] + {part}[o] * a[i, {following}, j]"
        back = (
            f"d[i, {k}[o], j] += (real(1) - {part}[o]) * g[i, o, j]\n"
            f"d[i, {following}, j] += {part}[o] * g[i, o, j]"
        )
    code(f"a, b = {x.view(before, size, behind)}, {y.view(*sizes.values())}")
    code(nest(sizes, f"b[i, o, j] = {at}"))

    def backward(dy: Value) -> None:
        with code.gradient(x) as dx:
            code(f"d, g = {dx.view(before, size, behind)}, {dy.view(*sizes.values())}")
            code(f"{dx}[:] = 0")
            code(nest(sizes, back))

    code.tape(y, backward)
    return Value(y.name, y.shape, x.needs_grad)
