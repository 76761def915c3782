"""The IDX format: a header with the type and the shape, then the elements of the array.

Files need not be trusted. Memory grows with the bytes that are read, so a header that promises
gigabytes does not fill it, and a gzip file may not unpack to far more than its size.
"""

from __future__ import annotations

import gzip
import io
import math
import os
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..files.reading import as_path, check_expansion, reading

# The third byte of a file is the type of the elements, which are big-endian.
_DTYPES: dict[int, np.dtype[Any]] = {
    0x08: np.dtype("u1"),
    0x09: np.dtype("i1"),
    0x0B: np.dtype(">i2"),
    0x0C: np.dtype(">i4"),
    0x0D: np.dtype(">f4"),
    0x0E: np.dtype(">f8"),
}
_GZIP_MAGIC = b"\x1f\x8b"
_CHUNK = 1 << 16


def read_idx(path: str | os.PathLike[str]) -> NDArray[Any]:
    """Read the array in an IDX file, gzip-compressed or not.

    Compression is detected from the file's first bytes, not from its name.

    Parameters
    ----------
    path : str or path-like
        The file.

    Returns
    -------
    ndarray
        The array, writeable and C-contiguous, in the byte order of this machine. The header
        determines its shape and its dtype: uint8, int8, int16, int32, float32 or float64.

    Raises
    ------
    ValueError
        If the file is not an IDX file, or is truncated, corrupt, or longer than its header says;
        or if it unpacks to more than 100 times its size and 1 MiB.
    OSError
        If there is no such file, or if it cannot be read.

    Notes
    -----
    All numbers are big-endian::

        bytes             content
        2                 zero
        1                 type: 08 uint8, 09 int8, 0B int16, 0C int32, 0D float32, 0E float64
        1                 number of dimensions d
        4 d               length of each dimension, uint32
        the rest          the elements, the last index changing fastest

    References
    ----------
    Y. LeCun, C. Cortes and C. J. C. Burges, "The MNIST database of handwritten digits", section
    "File formats", http://yann.lecun.com/exdb/mnist/.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import nnlite as nn
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "labels-idx1-ubyte")
    ...     _ = path.write_bytes(bytes([0, 0, 0x08, 1, 0, 0, 0, 3, 5, 0, 4]))
    ...     nn.datasets.read_idx(path)
    array([5, 0, 4], dtype=uint8)
    """
    with reading(as_path(path, "read_idx")) as file:
        size = os.fstat(file.fileno()).st_size
        if not file.peek(2).startswith(_GZIP_MAGIC):
            return _parse(file, size)
        try:
            with gzip.GzipFile(fileobj=file) as stream:
                return _parse(stream, size)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise ValueError(f"damaged gzip file: {error}") from error


def _parse(stream: io.BufferedIOBase, size: int) -> NDArray[Any]:
    """Read the array from the content of a file of `size` bytes."""
    magic = stream.read(4)
    if not magic:
        raise ValueError("not an IDX file: it is empty")
    if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in _DTYPES:
        raise ValueError(
            "not an IDX file: expected it to begin with two zero bytes, the code of a type and a "
            f"number of dimensions, got {magic!r}"
        )
    dtype, ndim = _DTYPES[magic[2]], magic[3]
    lengths = stream.read(4 * ndim)
    if len(lengths) < 4 * ndim:
        raise ValueError(f"truncated: the header ends before the lengths of its {ndim} dimensions")
    shape = tuple(np.frombuffer(lengths, ">u4").tolist())
    expected = math.prod(shape) * dtype.itemsize

    data = _read_up_to(expected, stream, size)
    if len(data) < expected:
        raise ValueError(
            f"truncated: its header promises {expected!s:.20} bytes for the shape {shape!s:.80}, "
            f"it has {len(data)}"
        )
    # This read also verifies the checksum at the end of a gzip file.
    if stream.read(1):
        raise ValueError(f"it goes on after the {expected} bytes of the shape {shape!s:.80}")
    array: NDArray[Any] = np.frombuffer(data, dtype)
    return array.astype(dtype.newbyteorder("="), copy=False).reshape(shape)


def _read_up_to(count: int, stream: io.BufferedIOBase, size: int) -> bytearray:
    """Read `count` bytes, or fewer at the end of the stream; memory grows as they arrive."""
    data = bytearray()
    while len(data) < count and (chunk := stream.read(min(count - len(data), _CHUNK))):
        data += chunk
        check_expansion(size, len(data))
    return data
