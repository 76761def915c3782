"""The node tests of ONNX itself, for the operators that `from_onnx` reads."""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nnlite as nn

onnx = pytest.importorskip("onnx")
helper, numpy_helper = onnx.helper, onnx.numpy_helper

from nnlite.interop.onnx.file import NEWEST  # noqa: E402 - it needs onnx
from nnlite.interop.onnx.operators import OPERATORS  # noqa: E402

# Their other outputs, statistics, masks and indices, are for training.
FIRST_OUTPUT_ONLY = ("LayerNormalization", "Dropout", "MaxPool")


class Case:
    """A graph of one node, or of the nodes that a function stands for, with inputs and outputs."""

    def __init__(self, case: Any) -> None:
        self.name: str = case.name
        self.model = case.model
        ((inputs, outputs),) = case.data_sets
        self.inputs, self.outputs = [[*map(_array, arrays)] for arrays in (inputs, outputs)]
        self.nodes = {node.op_type: node for node in case.model.graph.node}
        self.opset = max(each.version for each in case.model.opset_import)

    def is_claimed(self) -> bool:
        arrays = (*self.inputs, *self.outputs)
        is_of_arrays = all(isinstance(each, np.ndarray) for each in arrays)
        return is_of_arrays and self.nodes.keys() <= OPERATORS.keys()

    def has(self, *operators: str) -> bool:
        return not self.nodes.keys().isdisjoint(operators)

    def option(self, operator: str, name: str, default: Any = None) -> Any:
        """Return an attribute, or the default, also where there is no such operator."""
        for attribute in self.nodes[operator].attribute if self.has(operator) else ():
            if attribute.name == name:
                return helper.get_attribute_value(attribute)
        return default

    def input(self, operator: str, index: int) -> Any:
        """Return the array that is an input of an operator, or None."""
        names = self.nodes[operator].input[index : index + 1] if self.has(operator) else ()
        given = {info.name: x for info, x in zip(self.model.graph.input, self.inputs, strict=True)}
        return next((given.get(name) for name in names), None)

    def write(self, path: Path, count: int) -> None:
        """Write a file in which the inputs but for the first `count` are constants."""
        model = onnx.ModelProto()
        model.CopyFrom(self.model)
        graph = model.graph
        for info, array in [*zip(graph.input, self.inputs, strict=True)][count:]:
            graph.initializer.append(numpy_helper.from_array(array, info.name))
        del graph.input[count:]
        if self.has(*FIRST_OUTPUT_ONLY):
            del graph.output[1:], graph.node[-1].output[1:]
        path.write_bytes(model.SerializeToString())

    def read(self, path: Path) -> tuple[Any, ...]:
        """Return the outputs of the file as nnlite reads it."""
        count = len(self.inputs)
        try:
            self.write(path, count)
            model = nn.from_onnx(path)
        except ValueError as error:
            if "in the file" not in str(error):
                raise
            # Weights, sizes and axes are constants in the file of a trained network.
            count = 1
            self.write(path, count)
            model = nn.from_onnx(path)
        found = model(*self.inputs[:count])
        return found if isinstance(found, tuple) else (found,)

    def fault(self, path: Path) -> str:
        """Return where the outputs differ from those expected, or an empty string."""
        for found, expected in zip(self.read(path), self.outputs, strict=False):
            if found.shape != expected.shape:
                return f"{self.name}: shape {found.shape}, expected {expected.shape}"
            if not np.allclose(found, expected, rtol=1e-3, atol=1e-5, equal_nan=True):
                return f"{self.name}: {found}, expected {expected}"
        return ""


def _array(value: Any) -> Any:
    return numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else value


def is_of_floats(array: Any) -> bool:
    return array.dtype in (np.float32, np.float64)


def is_mean_with_padding(case: Case) -> bool:
    """Whether a mean leaves out padding that is uneven, or more than half of the kernel."""
    if not case.has("AveragePool") or case.option("AveragePool", "count_include_pad"):
        return False
    kernel = case.option("AveragePool", "kernel_shape")
    pads = case.option("AveragePool", "pads", [0] * 2 * len(kernel))
    before, after = pads[: len(kernel)], pads[len(kernel) :]
    is_large = any(2 * pad > size for pad, size in zip(before, kernel, strict=True))
    return (
        before != after or is_large or b"SAME" in case.option("AveragePool", "auto_pad", b"NOTSET")
    )


def is_resized_otherwise(case: Case) -> bool:
    """Whether a Resize computes what `Upsample` does not."""
    if not case.has("Resize"):
        return False
    mode = case.option("Resize", "mode", b"nearest")
    coordinates = case.option("Resize", "coordinate_transformation_mode", b"half_pixel")
    rounding = case.option("Resize", "nearest_mode", b"round_prefer_floor")
    if mode == b"nearest":
        return coordinates != b"asymmetric" or rounding != b"floor"
    scales = case.input("Resize", 2)
    fractional = scales is not None and (scales * case.inputs[0].shape % 1).any()
    return (
        mode != b"linear"
        or coordinates not in (b"half_pixel", b"pytorch_half_pixel", b"align_corners")
        or (coordinates == b"align_corners" and fractional)
        or (coordinates == b"pytorch_half_pixel" and 1 in case.outputs[0].shape[2:])
        or case.option("Resize", "antialias", 0) == 1
    )


# The cases that are outside of what `from_onnx` claims: why, and by which rule.
OUTSIDE: dict[str, Callable[[Case], bool]] = {
    "opset": lambda case: case.opset > NEWEST,
    "layers compute float32 and float64": lambda case: (
        not all(map(is_of_floats, (*case.inputs[:1], *case.outputs)))
    ),
    "layers take no empty arrays": lambda case: any(
        x.size == 0 for x in (*case.inputs, *case.outputs)
    ),
    "windows are of sequences and images, not of volumes": lambda case: (
        case.has("Conv", "ConvTranspose", "MaxPool", "AveragePool") and case.inputs[0].ndim == 5
    ),
    "a transposed convolution has output_padding, and pads alike on both sides": lambda case: (
        case.option("ConvTranspose", "output_shape") is not None
        or b"SAME" in case.option("ConvTranspose", "auto_pad", b"NOTSET")
    ),
    "sizes are in the file, or they are computed as PyTorch's exporter does": lambda case: (
        len(case.nodes) > 1 and case.has("Shape", "Split")
    ),
    "images are resized as in PyTorch": is_resized_otherwise,
    "pixels are shuffled as in PyTorch": lambda case: (
        case.has("DepthToSpace") and case.option("DepthToSpace", "mode") != b"CRD"
    ),
    "activations have PyTorch's constants": lambda case: (
        case.has("HardSigmoid") or case.option("Selu", "alpha") is not None
    ),
    "a PReLU has one slope, or one for each channel": lambda case: (
        np.shape(case.input("PRelu", 1)) in ((5,), (3, 4, 5))
    ),
    "means have no dilation": lambda case: set(case.option("AveragePool", "dilations", [1])) != {1},
    "means count the padding, or it is even and small": is_mean_with_padding,
    "a file computes what a trained model does": lambda case: (
        case.option("BatchNormalization", "training_mode", 0) == 1
        or case.input("Dropout", 2) is not None
    ),
    "a recurrent layer goes forward or in both directions": lambda case: any(
        case.option(cell, "direction") == b"reverse" for cell in ("RNN", "GRU", "LSTM")
    ),
    "sequences of different lengths need a mask": lambda case: any(
        case.input(cell, 4) is not None for cell in ("RNN", "GRU", "LSTM")
    ),
    "gates are PyTorch's": lambda case: (
        (case.has("GRU") and not case.option("GRU", "linear_before_reset"))
        or case.input("LSTM", 7) is not None
    ),
    "layers return no state of the cell": lambda case: (
        case.has("LSTM") and len(case.nodes["LSTM"].output) == 3
    ),
    "layers keep the batch axis": lambda case: (
        np.ndim(case.input("LayerNormalization", 1)) == case.inputs[0].ndim
        if case.has("LayerNormalization")
        else False
    ),
    "an exponent is one number": lambda case: np.size(case.input("Pow", 1)) > 1,
    "these are read in the formulas of PyTorch's exporter alone": lambda case: case.has(
        "Greater", "Where", "Expand"
    ),
}


def is_outside(case: Case) -> bool:
    return any(applies(case) for applies in OUTSIDE.values())


@functools.cache
def cases() -> dict[str, list[Case]]:
    """Return the cases of each operator, and under ``""`` those of several nodes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they compute infinities on purpose
        from onnx.backend.test.case.node import collect_testcases

        collected = collect_testcases(None)
    found = defaultdict(list)
    for case in map(Case, collected):
        if case.is_claimed():
            found["".join(case.nodes) if len(case.model.graph.node) == 1 else ""].append(case)
    return found


@pytest.mark.parametrize("operator", ["", *sorted(OPERATORS)])
def test_outputs_are_those_that_onnx_expects(operator: str, tmp_path: Path) -> None:
    inside = [case for case in cases()[operator] if not is_outside(case)]
    faults = [case.fault(tmp_path / "a.onnx") for case in inside]
    assert [*filter(None, faults)] == []


@pytest.mark.parametrize("operator", ["", *sorted(OPERATORS)])
def test_what_is_outside_is_an_error_or_computed_alike(operator: str, tmp_path: Path) -> None:
    faults = []
    for case in cases()[operator]:
        if is_outside(case):
            with contextlib.suppress(TypeError, ValueError):
                faults.append(case.fault(tmp_path / "a.onnx"))
    assert [*filter(None, faults)] == []


def test_every_operator_has_cases_inside() -> None:
    in_formulas = {"ConstantOfShape", "Expand", "Greater", "IsNaN", "Shape", "Trilu", "Where"}
    lacking = {name for name in OPERATORS if all(map(is_outside, cases()[name]))}
    # The cases of these have other gates, constants or slopes than PyTorch, or are of integers.
    assert lacking == {*in_formulas, "GRU", "HardSigmoid", "PRelu", "Pad"}
