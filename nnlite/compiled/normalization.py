"""BatchNorm, LayerNorm, RMSNorm, GroupNorm and InstanceNorm.

Means are computed in float64: where values vary little but are far from 0, the rounding error of a
mean of float32 is as large as the deviations from it.
"""

from __future__ import annotations

import contextlib
import math
from typing import Any

import numpy as np

import nnlite as nn

from .forms import form
from .source import Code, Size, Value, joined, nest, product


@form(nn.BatchNorm1d, nn.BatchNorm2d)
def batch_norm(layer: Any, code: Code, x: Value) -> Any:
    """Y = weight x̂ + bias with x̂ = (x - μ) / √(σ² + eps); μ and σ² are the batch's in training.

    dx = weight / √(σ² + eps) (dy - Σ dy / M - x̂ Σ dy x̂ / M), without the sums in evaluation.
    """
    features = layer.num_features
    sizes: dict[str, Size] = {"i": x.shape[0], "j": features}
    if len(x.shape) > 2:
        sizes["k"] = product(x.shape[2:])
    at = ", ".join(sizes)
    count = product((x.shape[0], *x.shape[2:]))
    weight = None if layer.weight is None else code.parameter(layer.weight, "weight")
    bias = None if layer.bias is None else code.parameter(layer.bias, "bias")
    training = code.is_training(layer)
    of_batch = training or layer.running_mean is None

    y = code.new(x.shape)
    mean, scale = code.name("mean"), code.name("scale")
    code(f"a, b = {x.view(*sizes.values())}, {y.view(*sizes.values())}")
    if of_batch:
        variance, values = code.name("variance"), code.name("count")
        code(f"{mean}, {variance} = np.empty({features}), np.empty({features})")
        code(f"{values} = np.full(1, float({count}))")
        _sums(code, sizes, {mean: f"a[{at}]"})
        code.sum_over_batch(values, mean)
        count = f"{values}[0]"
        if product(x.shape[2:]) == "1":
            code.fail_if(f"{count} == 1", "one value for each feature has no variance")
        code(nest({"j": features}, f"{mean}[j] /= {count}"))
        _sums(code, sizes, {variance: f"(a[{at}] - {mean}[j]) ** 2"})
        code.sum_over_batch(variance)
    else:
        mean, variance = (code.buffer(layer, name) for name in ("running_mean", "running_var"))
    code(f"{scale} = np.empty({features})")
    divide = f"{variance}[j] /= {count}" if of_batch else ""
    invert = f"{scale}[j] = 1 / math.sqrt({variance}[j] + {layer.eps!r})"
    code(nest({"j": features}, joined(divide, invert)))
    factor = f"{scale}[j] * {weight}[j]" if weight else f"{scale}[j]"
    shift = f" + {bias}[j]" if bias else ""
    code(nest(sizes, f"b[{at}] = (a[{at}] - {mean}[j]) * {factor}{shift}"))
    if training and layer.running_mean is not None:
        _track(layer, code, mean, variance, count)

    def backward(dy: Value) -> None:
        sums, products = code.name("sums"), code.name("products")
        code(f"a, g = {x.view(*sizes.values())}, {dy.view(*sizes.values())}")
        code(f"{sums}, {products} = np.empty({features}), np.empty({features})")
        centred = f"(a[{at}] - {mean}[j])"
        _sums(code, sizes, {sums: f"g[{at}]", products: f"g[{at}] * {centred}"})
        with contextlib.ExitStack() as gradients:
            lines = [f"{products}[j] *= {scale}[j]"]
            for parameter, total in ((weight, products), (bias, sums)):
                if parameter is not None and parameter.needs_grad:
                    part = gradients.enter_context(code.gradient(parameter))
                    lines.append(f"{part}[j] = {total}[j]")
            code(nest({"j": features}, joined(*lines)))
        if not x.needs_grad:
            return
        if of_batch:
            code.sum_over_batch(sums, products)
        with code.gradient(x) as dx:
            code(f"b = {dx.view(*sizes.values())}")
            value = f"g[{at}]"
            if of_batch:
                # Divisions take as long as the loop over all samples does without them.
                code(nest({"j": features}, f"""
                    {sums}[j] /= {count}
                    {products}[j] *= {scale}[j] / {count}
                """))  # fmt: skip
                value = f"({value} - {sums}[j] - {centred} * {products}[j])"
            code(nest(sizes, f"b[{at}] = {value} * {factor}"))

    return y, backward


def _sums(code: Code, sizes: dict[str, Size], terms: dict[str, str]) -> None:
    """Write the sums, in float64, of terms over batch and places: one for each feature j."""
    if "k" in sizes:  # the places of a feature are contiguous
        totals = [f"total_{index}" for index in range(len(terms))]
        adding = [f"{total} += {term}" for total, term in zip(totals, terms.values(), strict=True)]
        body = joined(
            *[f"{total} = np.float64(0)" for total in totals],
            nest({"i": sizes["i"], "k": sizes["k"]}, joined(*adding)),
            *[f"{name}[j] = {total}" for name, total in zip(terms, totals, strict=True)],
        )
        code(nest({"j": sizes["j"]}, body))
        return
    code(nest({"j": sizes["j"]}, joined(*[f"{name}[j] = 0" for name in terms])))
    code(nest(sizes, joined(*[f"{name}[j] += {term}" for name, term in terms.items()])))


def _track(layer: Any, code: Code, mean: str, variance: str, count: str) -> None:
    """Write the change of the running statistics towards those of the batch."""
    running_mean, running_var, tracked = (
        code.buffer(layer, name) for name in ("running_mean", "running_var", "num_batches_tracked")
    )
    momentum = f"1 / {tracked}[()]" if layer.momentum is None else repr(layer.momentum)
    code.at_end(f"""
        {tracked}[()] += 1
        for j in range({layer.num_features}):
            unbiased = {variance}[j] * ({count}) / ({count} - 1)
            {running_mean}[j] += ({momentum}) * ({mean}[j] - {running_mean}[j])
            {running_var}[j] += ({momentum}) * (unbiased - {running_var}[j])
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
    normalized = code.new(x.shape, "normalized")
    scale = code.new(x.shape[:-rank], "scale")
    w, b = code.name("w"), code.name("b")
    if weight:
        code(f"{w} = {weight}.reshape(-1)")
    if bias:
        code(f"{b} = {bias}.reshape(-1)")
    factor, shift = f" * {w}[j]" if weight else "", f" + {b}[j]" if bias else ""
    code(f"""
        rows, out = {x.view(rows, count)}, {y.view(rows, count)}
        normal = {normalized.view(rows, count)}
        for i in range({rows}):
            mean = np.float64(0)
            for j in range({count}):
                mean += rows[i, j]
            mean /= {count}
            near = real(mean)
            rest = mean - near
            squares = real(0)
            for j in range({count}):
                squares += (rows[i, j] - near) * (rows[i, j] - near)
            variance = max(squares / {count} - rest * rest, 0)
            {scale}[i] = 1 / math.sqrt(variance + {layer.eps!r})
            level = real(rest * {scale}[i])
            for j in range({count}):
                normal[i, j] = (rows[i, j] - near) * {scale}[i] - level
                out[i, j] = normal[i, j]{factor}{shift}
    """)

    def backward(dy: Value) -> None:
        code(f"rows, normal = {dy.view(rows, count)}, {normalized.view(rows, count)}")
        for parameter, term in ((weight, "rows[i, j] * normal[i, j]"), (bias, "rows[i, j]")):
            if parameter is not None and parameter.needs_grad:
                with code.gradient(parameter) as part:
                    code(f"""
                        total = {part}.reshape(-1)
                        total[:] = 0
                        for i in range({rows}):
                            for j in range({count}):
                                total[j] += {term}
                    """)
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
                        product += rows[i, j]{factor} * normal[i, j]
                    mean /= real({count})
                    product /= real({count})
                    for j in range({count}):
                        centred = rows[i, j]{factor} - mean - normal[i, j] * product
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
    channels, places = int(x.shape[1]) // groups, product(x.shape[2:])
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
        _track_mean(layer, code, mean, variance, count)

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


def _track_mean(layer: Any, code: Code, mean: Value, variance: Value, count: str) -> None:
    """Write the change of the running statistics towards the means of those of the samples."""
    code.is_by_sample = False
    running_mean, running_var = (
        code.buffer(layer, name) for name in ("running_mean", "running_var")
    )
    momentum, part = repr(layer.momentum), f"[j::{layer.num_features}].mean()"
    code.at_end(f"""
        for j in range({layer.num_features}):
            unbiased = {variance}{part} * {count} / ({count} - 1)
            {running_mean}[j] += {momentum} * ({mean}{part} - {running_mean}[j])
            {running_var}[j] += {momentum} * (unbiased - {running_var}[j])
    """)


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
        if weight is not None and weight.needs_grad:
            with code.gradient(weight) as part:
                code(f"""
                    total = {part}.reshape(-1)
                    total[:] = 0
                    for i in range({rows}):
                        for j in range({count}):
                            total[j] += grads[i, j] * rows[i, j] * {scale}[i]
                """)
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
