"""The contents of an ONNX file, checked: what a file says of itself is only a claim."""

from __future__ import annotations

import os
import stat
import textwrap
from collections.abc import Iterator

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto, helper

# The versions of the operators that `operators` reads.
OLDEST, NEWEST = 9, 28


def load(path: str) -> tuple[onnx.ModelProto, int]:
    """Return the model in a file, with its external data and inferred shapes, and its opset.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is no ONNX file, is damaged, or needs a newer version. The message names the file.
    """
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise ValueError(f"{path}: expected an ONNX file, this is no regular file")
    with open(path, "rb") as stream:
        content = stream.read()
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(content)
    except (DecodeError, RuntimeError) as error:
        raise ValueError(f"{path}: no ONNX file, or a damaged or truncated one") from error
    if not proto.HasField("graph") or not proto.opset_import:
        raise ValueError(f"{path}: no ONNX file, or a damaged or truncated one: it has no graph")
    opset = _checked_opset(path, proto)
    for tensor in _tensors(proto):
        if tensor.data_location == TensorProto.EXTERNAL:
            _load_external(path, tensor)
    try:
        onnx.checker.check_model(proto)
        proto = onnx.shape_inference.infer_shapes(proto, data_prop=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError, ValueError) as error:
        reason = shortened(str(error).strip().split("\n")[0])
        raise ValueError(f"{path}: not a valid ONNX file: {reason}") from error
    return proto, opset


def shortened(text: str) -> str:
    """Return what a file calls something, or says, short enough for an error message."""
    return textwrap.shorten(text, 200, placeholder=" ...")[:200]


def _checked_opset(path: str, proto: onnx.ModelProto) -> int:
    versions = [each.version for each in proto.opset_import if each.domain in ("", "ai.onnx")]
    newest = min(NEWEST, onnx.defs.onnx_opset_version())
    if not versions:
        raise ValueError(f"{path}: the file uses no standard operators of ONNX")
    if not OLDEST <= versions[0] <= newest:
        raise ValueError(
            f"{path}: the file is of opset {versions[0]}, but {OLDEST} to {newest} are read; "
            f"export it for one of these"
        )
    return int(versions[0])


def _tensors(proto: onnx.ModelProto) -> Iterator[TensorProto]:
    yield from proto.graph.initializer
    for node in proto.graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors


def _load_external(path: str, tensor: TensorProto) -> None:
    """Read the data of a tensor that are in a file of their own, in the same folder or below."""
    given = {entry.key: entry.value for entry in tensor.external_data}
    what = f"{path}: tensor {shortened(tensor.name)!r}"
    location = given.get("location", "")
    folder = os.path.realpath(os.path.dirname(path))
    target = os.path.realpath(os.path.join(folder, location))
    if not location or os.path.commonpath([folder, target]) != folder:
        raise ValueError(f"{what} is in {shortened(location)!r}, outside of the folder of the file")
    if not os.path.isfile(target):
        raise ValueError(f"{what} is in {shortened(location)!r}, and there is no such file")
    try:
        offset, dtype = (
            int(given.get("offset", 0)),
            helper.tensor_dtype_to_np_dtype(tensor.data_type),
        )
        size = dtype.itemsize * int(np.prod(np.array(tensor.dims, object)))
        length = int(given.get("length", size))
    except (KeyError, ValueError, TypeError) as error:
        raise ValueError(f"{what} has no valid type, offset or length") from error
    if length != size or offset < 0 or offset + size > os.path.getsize(target):
        raise ValueError(
            f"{what} should have {size} bytes from {offset} on in {shortened(location)!r}, "
            f"which are not there"
        )
    with open(target, "rb") as stream:
        stream.seek(offset)
        tensor.raw_data = stream.read(size)
    tensor.data_location = TensorProto.DEFAULT
    del tensor.external_data[:]
