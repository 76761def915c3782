"""The format ``.safetensors``: PyTorch's state dicts and others, without pickle.

The package ``safetensors``, an extra, writes and reads it. This module adds bfloat16, which NumPy
does not have, and checks that the package does not make.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

import numpy as np

from ..engine.arrays import Array
from .npz import has_valid_flags

try:
    import safetensors
    import safetensors.numpy
except ImportError as error:
    raise ImportError(
        "files of the format .safetensors need the package safetensors: pip install safetensors"
    ) from error

# The dtypes of the format by name.
_DTYPES = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "|i1",
    "U64": "<u8",
    "U32": "<u4",
    "U16": "<u2",
    "U8": "|u1",
    "BOOL": "|b1",
}


def fits(name: str) -> bool:
    """Whether an array can have this name in a file."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return name != "__metadata__"


def write(file: BinaryIO, arrays: Mapping[str, Array]) -> None:
    """Write `arrays`, with names that `fits` accepts."""
    known = {np.dtype(name) for name in _DTYPES.values()}
    plain = {}
    for name, array in arrays.items():
        little = array.dtype.newbyteorder("<")
        if little not in known:
            raise TypeError(
                f"save: entry {name!r} is of {array.dtype}, not written to .safetensors"
            )
        plain[name] = np.asarray(array, little, order="C")
    # PyTorch's loaders expect this metadata.
    file.write(safetensors.numpy.save(plain, metadata={"format": "pt"}))


def read(file: BinaryIO) -> dict[str, Array]:
    """Return the arrays by name; bfloat16 is converted to float32, which has all of its values.

    Raises
    ------
    ValueError
        If the file is damaged or has a dtype that is not read. The message names the entry.
    """
    content = file.read()
    deserialize: Callable[[bytes], list[tuple[str, dict[str, Any]]]] = safetensors.deserialize
    try:
        entries = deserialize(content)
    except safetensors.SafetensorError as error:
        raise ValueError(f"damaged or truncated: {str(error)[:200]}") from error
    (length,) = struct.unpack("<Q", content[:8])
    json.loads(content[8 : 8 + length], object_pairs_hook=_without_repetition)
    # The entries are copies; release each one when its array is made.
    del content
    entries.reverse()
    arrays = {}
    while entries:
        name, entry = entries.pop()
        arrays[name] = _array(f"entry {name[:80]!r}", entry)
    return arrays


def _without_repetition(pairs: list[tuple[str, Any]]) -> None:
    seen = set()
    for name, _ in pairs:
        if name in seen:
            raise ValueError(f"entry {name[:80]!r}: the name occurs twice")
        seen.add(name)


def _array(what: str, entry: Mapping[str, Any]) -> Array:
    kind, shape, data = entry["dtype"], entry["shape"], entry["data"]
    if kind == "BF16":  # the upper half of a float32
        bits = np.frombuffer(data, "<u2").astype(np.uint32)
        bits <<= 16
        return _shaped(bits.view(np.float32), shape, what)
    if kind not in _DTYPES:
        raise ValueError(f"{what} is of {kind}, which is not read; convert it to float32 first")
    array = np.frombuffer(data, _DTYPES[kind])
    if not has_valid_flags(array):
        raise ValueError(f"{what} is of flags, and has other values")
    return _shaped(array, shape, what)


def _shaped(array: Array, shape: list[int], what: str) -> Array:
    try:
        return array.reshape(shape)
    except (ValueError, OverflowError) as error:  # more axes, or longer ones, than NumPy has
        raise ValueError(f"{what}: {error}") from None
