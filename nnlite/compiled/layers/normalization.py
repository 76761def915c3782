"""BatchNorm, LayerNorm, RMSNorm, GroupNorm and InstanceNorm.

Means are computed in float64: where values vary little but are far from 0, the rounding error of a
mean of float32 is as large as the deviations from it.
"""

from __future__ import annotations

import contextlib
import math
import textwrap
from typing import Any

import numpy as np

import nnlite as nn

from ..forms import form
from ..source import Code, Value, joined, nest, number, product


@form(nn.BatchNorm1d, nn.BatchNorm2d)
def batch_norm(layer: Any, code: Code, x: Value) -> Any:
    """Y = weight x̂ + bias with x̂ = (x - μ) / √(σ² + eps); μ and σ² are the batch's in training.

    dx = weight / √(σ² + eps) (dy - Σ dy / M - x̂ Σ dy x̂ / M), without the sums in evaluation.
    """
    features = layer.num_features
    sizes, kind = x.shape[:2], "row"
    if len(x.shape) > 2:
        sizes, kind = (*sizes, product(x.shape[2:])), "line"
    weight = None if layer.weight is None else code.parameter(layer.weight, "weight")
    bias = None if layer.bias is None else code.parameter(layer.bias, "bias")
    training = code.is_training(layer)
    of_batch = training or layer.running_mean is None

    y, values = code.new(x.shape), x.view(*sizes)
    mean, squares, count, scale = map(code.name, ("mean", "squares", "count", "scale"))
    empty = f"np.empty({features})"
    code(f"{mean}, {squares}, {scale} = {empty}, {empty}, {empty}")
    if of_batch:
        total, of_part = code.name("total"), product((x.shape[0], *x.shape[2:]))
        code(f"""
            {total}, {count} = {empty}, np.full(1, float({of_part}))
            {kind}_moments({values}, {mean}, {squares}, {total})
        """)
        code.sum_over_batch(count, total)
        if product(x.shape[2:]) == "1":
            code.fail_if(f"{count}[0] == 1", "one value for each feature has no variance")
        code(f"center_{kind}s({values}, {count}, {total}, {mean}, {squares})")
        code.sum_over_batch(squares)
    else:
        running_mean, running_var = (code.buffer(layer, f"running_{of}") for of in ("mean", "var"))
        code(f"{count} = np.ones(1)")
        start = f"{mean}[j], {squares}[j] = {running_mean}[j], {running_var}[j]"
        code(nest({"j": features}, start))
    w = f"{weight}" if weight else f"np.ones({features}, real)"
    b = f"{bias}" if bias else f"np.zeros({features}, real)"
    moments = f"{mean}, {squares}, {count}, {float(layer.eps)!r}, {scale}"
    code(f"normalize_{kind}s({values}, {w}, {b}, {moments}, {y.view(*sizes)})")
    if training and layer.running_mean is not None:
        tracked = code.buffer(layer, "num_batches_tracked")
        momentum = f"1 / {tracked}[()]" if layer.momentum is None else repr(layer.momentum)
        unbiased = f"{squares}[j] / ({count}[0] - 1)"
        _track(layer, code, f"{mean}[j]", unbiased, momentum, f"{tracked}[()] += 1")

    def backward(dy: Value) -> None:
        sums, products = code.name("sums"), code.name("products")
        grads = dy.view(*sizes)
        code(f"{sums}, {products} = {empty}, {empty}")
        with contextlib.ExitStack() as gradients:
            dw, db = (
                gradients.enter_context(code.gradient(parameter))
                if parameter is not None and parameter.needs_grad
                else f"np.empty({features}, real)"
                for parameter in (weight, bias)
            )
            results = f"{sums}, {products}, {dw}, {db}"
            code(f"{kind}_products({values}, {grads}, {mean}, {scale}, {results})")
        if not x.needs_grad:
            return
        if of_batch:
            code.sum_over_batch(sums, products)
        else:
            code(f"{sums}[:] = 0\n{products}[:] = 0")
        with code.gradient(x) as dx:
            moments = f"{mean}, {scale}, {sums}, {products}, {count}"
            code(f"{kind}_gradients({values}, {grads}, {w}, {moments}, {dx.view(*sizes)})")

    return y, backward


def _track(
    layer: Any, code: Code, mean: str, unbiased: str, momentum: str, counting: str = ""
) -> None:
    """Write the change of the running statistics towards those of feature j in this batch.

    A batch with NaN, infinity or an overflow must not enter the statistics.
    """
    running_mean, running_var = (code.buffer(layer, f"running_{of}") for of in ("mean", "var"))
    change = f"""
        for j in range({layer.num_features}):
            {running_mean}[j] += {momentum} * ({mean} - {running_mean}[j])
            {running_var}[j] += {momentum} * ({unbiased} - {running_var}[j])
    """
    code.at_end(f"""
        finite = True
        for j in range({layer.num_features}):
            finite &= math.isfinite(real({mean})) and math.isfinite(real({unbiased}))
    """)
    code.at_end(f"if finite:\n{textwrap.indent(joined(counting, change), '    ')}")


def _sum_over_rows(code: Code, parameter: Value | None, rows: str, count: int, term: str) -> None:
    """Write the gradient of a parameter that all rows share: the sum of a term over them."""
    if parameter is None or not parameter.needs_grad:
        return
    with code.gradient(parameter) as grad:
        code(f"""
            total = {grad}.reshape(-1)
            total[:] = 0
            for i in range({rows}):
                for j in range({count}):
                    total[j] += {term}
        """)


@form(nn.LayerNorm)
def layer_norm(layer: nn.LayerNorm, code: Code, x: Value) -> Any:
    """Y = weight x̂ + bias with x̂ = (x - μ) / √(σ² + eps) over the last axes of each sample.

    dx = (h - Σ h / M - x̂ Σ h x̂ / M) / √(σ² + eps) with h = weight dy.
    """
    rank = len(layer.normalized_shape)
    count = math.prod(layer.normalized_shape)
    rows = product(x.shape[:-rank])
    weight = None if layer.weight is None else code.parameter(layer.weight, "weight")
    bias = None if layer.bias is None else code.parameter(layer.bias, "bias")
    y = code.new(x.shape)
    near, scale, level = (code.new(x.shape[:-rank], stem) for stem in ("near", "scale", "level"))
    normal = f"((values[i, j] - {near}[i]) * {scale}[i] - {level}[i])"
    w, b = code.name("w"), code.name("b")
    if weight:
        code(f"{w} = {weight}.reshape(-1)")
    if bias:
        code(f"{b} = {bias}.reshape(-1)")
    factor, shift = f" * {w}[j]" if weight else "", f" + {b}[j]" if bias else ""
    code(f"""
        values, out = {x.view(rows, count)}, {y.view(rows, count)}
        for i in range({rows}):
            mean = np.float64(0)
            for j in range({count}):
                mean += values[i, j]
            mean /= {count}
            {near}[i] = mean
            rest = mean - {near}[i]
            squares = real(0)
            for j in range({count}):
                squares += (values[i, j] - {near}[i]) * (values[i, j] - {near}[i])
            variance = max(squares / {count} - rest * rest, 0)
            {scale}[i] = 1 / math.sqrt(variance + {layer.eps!r})
            {level}[i] = rest * {scale}[i]
            for j in range({count}):
                out[i, j] = {normal}{factor}{shift}
    """)

    def backward(dy: Value) -> None:
        code(f"rows, values = {dy.view(rows, count)}, {x.view(rows, count)}")
        _sum_over_rows(code, weight, rows, count, f"rows[i, j] * {normal}")
        _sum_over_rows(code, bias, rows, count, "rows[i, j]")
        if not x.needs_grad:
            return
        with code.gradient(x) as dx:
            code(f"""
                out = {dx.view(rows, count)}
                for i in range({rows}):
                    mean = real(0)
                    product = real(0)
                    for j in range({count}):
                        mean += rows[i, j]{factor}
                        product += rows[i, j]{factor} * {normal}
                    mean /= real({count})
                    product /= real({count})
                    for j in range({count}):
                        centred = rows[i, j]{factor} - mean - {normal} * product
                        out[i, j] = centred * {scale}[i]
            """)

    return y, backward


@form(nn.InstanceNorm1d, nn.InstanceNorm2d)
def instance_norm(layer: nn.InstanceNorm1d | nn.InstanceNorm2d, code: Code, x: Value) -> Any:
    """Normalise a group for each channel, or with running statistics as a batch norm does."""
    if not code.is_training(layer) and layer.running_mean is not None:
        return batch_norm(layer, code, x)
    return _group_norm(layer, layer.num_features, code, x)


@form(nn.GroupNorm)
def group_norm(layer: nn.GroupNorm, code: Code, x: Value) -> Any:
    """Y = weight x̂ + bias with x̂ = (x - μ) / √(σ² + eps) over groups of a sample's channels."""
    return _group_norm(layer, layer.num_groups, code, x)


def _group_norm(layer: Any, groups: int, code: Code, x: Value) -> Any:
    """Dx = (h - Σ h / M - x̂ Σ h x̂ / M) / √(σ² + eps) with h = weight dy; M is a group's size."""
    channels, places = number(x.shape[1]) // groups, product(x.shape[2:])
    rows = product((x.shape[0], groups))
    view = rows, channels, places
    count = f"({channels} * {places})"
    weight = None if layer.weight is None else code.parameter(layer.weight, "weight")
    bias = None if layer.bias is None else code.parameter(layer.bias, "bias")
    factor, shift = f" * {weight}[c]" if weight else "", f" + {bias}[c]" if bias else ""
    y, normalized = code.new(x.shape), code.new(x.shape, "normalized")
    mean, variance = (
        code.new((x.shape[0], groups), stem, "np.float64") for stem in ("mean", "variance")
    )
    scale = code.new((x.shape[0], groups), "scale")
    code(f"""
        values, out, normal = {x.view(*view)}, {y.view(*view)}, {normalized.view(*view)}
        for i in range({rows}):
            total = np.float64(0)
            for j in range({channels}):
                for k in range({places}):
                    total += values[i, j, k]
            {mean}[i] = total / {count}
            near = real({mean}[i])
            rest = {mean}[i] - near
            squares = real(0)
            for j in range({channels}):
                for k in range({places}):
                    squares += (values[i, j, k] - near) * (values[i, j, k] - near)
            {variance}[i] = max(squares / {count} - rest * rest, 0)
            {scale}[i] = 1 / math.sqrt({variance}[i] + {layer.eps!r})
            level = real(rest * {scale}[i])
            for j in range({channels}):
                c = i % {groups} * {channels} + j
                for k in range({places}):
                    normal[i, j, k] = (values[i, j, k] - near) * {scale}[i] - level
                    out[i, j, k] = normal[i, j, k]{factor}{shift}
    """)
    if code.is_training(layer) and getattr(layer, "running_mean", None) is not None:
        code.is_by_sample = False
        of_feature = f"[j::{layer.num_features}].mean()"
        unbiased = f"{variance}{of_feature} * {count} / ({count} - 1)"
        _track(layer, code, f"{mean}{of_feature}", unbiased, repr(layer.momentum))

    def backward(dy: Value) -> None:
        code(f"flow, normal = {dy.view(*view)}, {normalized.view(*view)}")
        for parameter, term in (
            (weight, "flow[i, j, k] * normal[i, j, k]"),
            (bias, "flow[i, j, k]"),
        ):
            if parameter is not None and parameter.needs_grad:
                with code.gradient(parameter) as part:
                    code(f"""
                        {part}[:] = 0
                        for i in range({rows}):
                            for j in range({channels}):
                                total = real(0)
                                for k in range({places}):
                                    total += {term}
                                {part}[i % {groups} * {channels} + j] += total
                    """)
        if not x.needs_grad:
            return
        with code.gradient(x) as dx:
            code(f"""
                out = {dx.view(*view)}
                for i in range({rows}):
                    average = real(0)
                    slope = real(0)
                    for j in range({channels}):
                        c = i % {groups} * {channels} + j
                        for k in range({places}):
                            average += flow[i, j, k]{factor}
                            slope += flow[i, j, k]{factor} * normal[i, j, k]
                    average /= real({count})
                    slope /= real({count})
                    for j in range({channels}):
                        c = i % {groups} * {channels} + j
                        for k in range({places}):
                            centred = flow[i, j, k]{factor} - average - normal[i, j, k] * slope
                            out[i, j, k] = centred * {scale}[i]
            """)

    return y, backward


@form(nn.RMSNorm)
def rms_norm(layer: nn.RMSNorm, code: Code, x: Value) -> Any:
    """Y = weight x̂ with x̂ = x / √(Σ x² / M + eps) over the last axes of each sample.

    dx = (h - x̂ Σ h x̂ / M) / √(Σ x² / M + eps) with h = weight dy.
    """
    rank = len(layer.normalized_shape)
    count = math.prod(layer.normalized_shape)
    rows = product(x.shape[:-rank])
    eps = float(np.finfo(code.dtype).eps) if layer.eps is None else layer.eps
    weight = None if layer.weight is None else code.parameter(layer.weight, "weight")
    y = code.new(x.shape)
    scale = code.new(x.shape[:-rank], "scale")
    w = code.name("w")
    if weight:
        code(f"{w} = {weight}.reshape(-1)")
    factor = f" * {w}[j]" if weight else ""
    code(f"""
        rows, out = {x.view(rows, count)}, {y.view(rows, count)}
        for i in range({rows}):
            squares = real(0)
            for j in range({count}):
                squares += rows[i, j] * rows[i, j]
            {scale}[i] = real(1) / math.sqrt(squares / real({count}) + real({eps!r}))
            for j in range({count}):
                out[i, j] = rows[i, j] * {scale}[i]{factor}
    """)

    def backward(dy: Value) -> None:
        code(f"grads, rows = {dy.view(rows, count)}, {x.view(rows, count)}")
        _sum_over_rows(code, weight, rows, count, f"grads[i, j] * rows[i, j] * {scale}[i]")
        if not x.needs_grad:
            return
        with code.gradient(x) as dx:
            code(f"""
                out = {dx.view(rows, count)}
                for i in range({rows}):
                    product = real(0)
                    for j in range({count}):
                        product += grads[i, j]{factor} * rows[i, j]
                    product *= {scale}[i] * {scale}[i] / real({count})
                    for j in range({count}):
                        out[i, j] = (grads[i, j]{factor} - rows[i, j] * product) * {scale}[i]
            """)

    return y, backward
