"""MultiheadAttention, and the layers of transformers, which are made of it and of others."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import nnlite as nn

from ..forms import form
from ..source import BATCH, Code, FixedBatchError, Value, product
from .containers import add, child_path


@form(nn.MultiheadAttention)
def attention(
    layer: nn.MultiheadAttention,
    code: Code,
    query: Value,
    key: Value | None = None,
    value: Value | None = None,
    key_padding_mask: Value | None = None,
    attn_mask: Value | None = None,
) -> Any:
    """Y = [A_1 V_1, …, A_H V_H] W_oᵀ + b_o with A = softmax(Q Kᵀ / √D + M)."""
    key = query if key is None else key
    value = key if value is None else value
    if (
        attn_mask is not None
        and code.n_is_free
        and (len(attn_mask.shape) == 3 or attn_mask.shape[0] == BATCH)
    ):
        raise FixedBatchError  # the batch size is a factor of its shape, or happens to be equal
    q, k, v = _projections(layer, code, [query, key, value])
    weights = _weights(layer, code, q, k, key_padding_mask, attn_mask)
    path = code.path
    dropped = code.apply(layer.weights_dropout, child_path(path, "weights_dropout"), weights)
    heads = _heads(layer, code, dropped, v)
    return code.apply(layer.out_proj, child_path(path, "out_proj"), heads)


def _projections(layer: nn.MultiheadAttention, code: Code, inputs: list[Value]) -> list[Value]:
    """Write Q, K and V, (N, H, steps, D): x Wᵀ + b for each, with the heads in front."""
    width, heads = layer.embed_dim, layer.num_heads
    size = width // heads
    bias = None if layer.in_proj_bias is None else code.parameter(layer.in_proj_bias, "bias")
    is_packed = layer.in_proj_weight is not None
    if layer.in_proj_weight is not None:
        packed = code.parameter(layer.in_proj_weight, "weight")
        weights = [packed] * 3
        texts = [f"{packed}[{start}:{start + width}]" for start in range(0, 3 * width, width)]
    else:
        weights = [code.parameter(getattr(layer, f"{c}_proj_weight"), c) for c in "qkv"]
        texts = [f"{weight}" for weight in weights]

    outputs = []
    for index, (x, text) in enumerate(zip(inputs, texts, strict=True)):
        steps = x.shape[1]
        rows = product(x.shape[:2])
        y = code.new((x.shape[0], heads, steps, size), "qkv"[index])
        added = f" + {bias}[{index * width} + h * {size} + d]" if bias is not None else ""
        code(f"""
            rows = np.empty(({rows}, {width}), real)
            dot_rows({x.view(rows, x.shape[2])}, {text}, rows)
            split = rows.reshape({x.shape[0]}, {steps}, {heads}, {size})
            out = {y.view(*y.shape)}
            for b in range({x.shape[0]}):
                for t in range({steps}):
                    for h in range({heads}):
                        for d in range({size}):
                            out[b, h, t, d] = split[b, t, h, d]{added}
        """)
        outputs.append(y)

    def backward(*grads: Value) -> None:
        flows, matrices = [], []  # dQ, dK and dV without heads, and the inputs, as rows
        for x, y, dy in zip(inputs, outputs, grads, strict=True):
            rows = product(x.shape[:2])
            flow = code.new((*x.shape[:2], width), "flow")
            code(f"""
                split = {flow.view(*x.shape[:2], heads, size)}
                out = {dy.view(*y.shape)}
                for b in range({x.shape[0]}):
                    for t in range({x.shape[1]}):
                        for h in range({heads}):
                            for d in range({size}):
                                split[b, t, h, d] = out[b, h, t, d]
            """)
            flows.append(flow.view(rows, width))
            matrices.append(x.view(rows, x.shape[2]))
        if bias is not None and bias.needs_grad:
            with code.gradient(bias) as db:
                for index, flow_rows in enumerate(flows):
                    part = f"{db}[{index * width}:{(index + 1) * width}]"
                    code(f"column_sums({flow_rows}, {part})")
        if is_packed and weights[0].needs_grad:
            with code.gradient(weights[0]) as dw:
                for index, (flow_rows, matrix) in enumerate(zip(flows, matrices, strict=True)):
                    part = f"{dw}[{index * width}:{(index + 1) * width}]"
                    code(f"dot_columns({flow_rows}, {matrix}, {part})")
        elif not is_packed:
            for weight, flow_rows, matrix in zip(weights, flows, matrices, strict=True):
                if weight.needs_grad:
                    with code.gradient(weight) as dw:
                        code(f"dot_columns({flow_rows}, {matrix}, {dw})")
        for x, text, flow_rows in zip(inputs, texts, flows, strict=True):
            if x.needs_grad:
                with code.gradient(x) as dx:
                    target = dx.view(product(x.shape[:2]), x.shape[2])
                    code(f"matmul({flow_rows}, {text}, {target})")

    code.tape(tuple(outputs), backward)
    return outputs


def _weights(
    layer: nn.MultiheadAttention,
    code: Code,
    q: Value,
    k: Value,
    padding: Value | None,
    mask: Value | None,
) -> Value:
    """Write A = softmax(Q Kᵀ / √D + M); dS = A (dA - Σ A dA), dQ = dS K / √D, dK = dSᵀ Q / √D."""
    n, heads, length, _ = q.shape
    steps = k.shape[2]
    scale = f"real({1 / math.sqrt(layer.embed_dim // layer.num_heads)!r})"
    a = code.new((n, heads, length, steps), "weights")
    masked = []
    setup = f"q, k, a = {q.view(*q.shape)}, {k.view(*k.shape)}, {a.view(*a.shape)}"
    if padding is not None:
        setup += f"\npadding = {padding.view(n, steps)}"
        masked.append(_masked(code, padding, "padding[b, j]"))
    if mask is not None:
        per_head = len(mask.shape) == 3
        shape = (n, heads, length, steps) if per_head else (length, steps)
        setup += f"\nmask = {mask.view(*shape)}"
        masked.append(_masked(code, mask, "mask[b, h, i, j]" if per_head else "mask[i, j]"))
    if layer.is_causal:
        masked.append("-math.inf if j > i else 0.0")
    score = " + ".join([f"a[b, h, i, j] * {scale}", *(f"real({each})" for each in masked)])
    code(setup)
    code(f"""
        for b in range({n}):
            for h in range({heads}):
                dot_rows(q[b, h], k[b, h], a[b, h])
                for i in range({length}):
                    last = key(real(-math.inf))
                    for j in range({steps}):
                        a[b, h, i, j] = {score}
                        last = max(last, key(a[b, h, i, j]))
                    top = of_key(last)
                    top = real(0) if top == -math.inf else top
                    total = real(0)
                    for j in range({steps}):
                        a[b, h, i, j] = {_exp("a[b, h, i, j]", bool(masked))}
                        total += a[b, h, i, j]
                    factor = real(1) / (real(1) if total == real(0) else total)
                    for j in range({steps}):
                        a[b, h, i, j] *= factor
    """)

    def backward(da: Value) -> None:
        with code.gradient(q) as dq, code.gradient(k) as dk:
            code(f"""
                q, k, a = {q.view(*q.shape)}, {k.view(*k.shape)}, {a.view(*a.shape)}
                da, dq, dk = {da.view(*a.shape)}, {dq.view(*q.shape)}, {dk.view(*k.shape)}
                ds = np.empty(({length}, {steps}), real)
                for b in range({n}):
                    for h in range({heads}):
                        for i in range({length}):
                            total = real(0)
                            for j in range({steps}):
                                total += a[b, h, i, j] * da[b, h, i, j]
                            for j in range({steps}):
                                ds[i, j] = a[b, h, i, j] * (da[b, h, i, j] - total) * {scale}
                        matmul(ds, k[b, h], dq[b, h])
                        dot_columns(ds, q[b, h], dk[b, h])
            """)

    code.tape(a, backward)
    return a


def _masked(code: Code, mask: Value, element: str) -> str:
    """Return what a mask adds to a score."""
    is_boolean = code.kinds[mask.name].kind == "b"
    return f"-math.inf if {element} else 0.0" if is_boolean else element


def _exp(score: str, can_be_masked: bool) -> str:
    """Return exp(score - top), exactly 0 where the score is -inf."""
    value = f"exp({score} - top)"
    return f"real(0) if {score} == -math.inf else {value}" if can_be_masked else value


def _heads(layer: nn.MultiheadAttention, code: Code, a: Value, v: Value) -> Value:
    """Write A V for each head, side by side; dA = dO Vᵀ, dV = Aᵀ dO."""
    n, heads, length, _ = a.shape
    size = v.shape[3]
    y = code.new((n, length, layer.embed_dim), "heads")
    code(f"""
        a, v, y = {a.view(*a.shape)}, {v.view(*v.shape)}, {y.view(n, length, heads, size)}
        out = np.empty(({length}, {size}), real)
        for b in range({n}):
            for h in range({heads}):
                matmul(a[b, h], v[b, h], out)
                for t in range({length}):
                    for d in range({size}):
                        y[b, t, h, d] = out[t, d]
    """)

    def backward(dy: Value) -> None:
        with code.gradient(a) as da, code.gradient(v) as dv:
            code(f"""
                a, v, dy = {a.view(*a.shape)}, {v.view(*v.shape)}, {dy.view(n, length, heads, size)}
                da, dv = {da.view(*a.shape)}, {dv.view(*v.shape)}
                for b in range({n}):
                    for h in range({heads}):
                        flow = np.ascontiguousarray(dy[b, :, h])
                        dot_rows(flow, v[b, h], da[b, h])
                        dot_columns(a[b, h], flow, dv[b, h])
            """)

    code.tape(y, backward)
    return y


@form(nn.TransformerEncoderLayer)
def encoder_layer(
    layer: nn.TransformerEncoderLayer,
    code: Code,
    src: Value,
    src_mask: Value | None = None,
    src_key_padding_mask: Value | None = None,
) -> Value:
    """Two parts, each with a shortcut: attention, and the network of each step."""
    masks = _given(attn_mask=src_mask, key_padding_mask=src_key_padding_mask)
    parts = _Parts(layer, code)
    x = parts.around(1, src, lambda x: parts.child("self_attn", x, **masks))
    return parts.around(2, x, parts.feed_forward)


@form(nn.TransformerDecoderLayer)
def decoder_layer(
    layer: nn.TransformerDecoderLayer,
    code: Code,
    tgt: Value,
    memory: Value,
    tgt_mask: Value | None = None,
    memory_mask: Value | None = None,
    tgt_key_padding_mask: Value | None = None,
    memory_key_padding_mask: Value | None = None,
) -> Value:
    """Three parts: attention to itself, attention to the memory, and the network of each step."""
    own = _given(attn_mask=tgt_mask, key_padding_mask=tgt_key_padding_mask)
    others = _given(attn_mask=memory_mask, key_padding_mask=memory_key_padding_mask)
    parts = _Parts(layer, code)
    x = parts.around(1, tgt, lambda x: parts.child("self_attn", x, **own))
    x = parts.around(2, x, lambda x: parts.child("multihead_attn", x, memory, **others))
    return parts.around(3, x, parts.feed_forward)


def _given(**masks: Value | None) -> dict[str, Value]:
    return {name: mask for name, mask in masks.items() if mask is not None}


class _Parts:
    """The sub-layers of a layer of a transformer, as it calls them."""

    def __init__(self, layer: nn.Layer, code: Code) -> None:
        self._layer: Any = layer
        self._code = code
        self._path = code.path

    def child(self, name: str, *inputs: Value, **masks: Value) -> Value:
        path = child_path(self._path, name)
        y: Value = self._code.apply(getattr(self._layer, name), path, *inputs, **masks)
        return y

    def around(self, index: int, x: Value, part: Callable[[Value], Value]) -> Value:
        given = self.child(f"norm{index}", x) if self._layer.norm_first else x
        y, backward = add(self._code, x, self.child(f"dropout{index}", part(given)))
        self._code.tape(y, backward)
        return y if self._layer.norm_first else self.child(f"norm{index}", y)

    def feed_forward(self, x: Value) -> Value:
        for name in ("linear1", "hidden_activation", "hidden_dropout", "linear2"):
            x = self.child(name, x)
        return x
