"""The format ``.npz``: arrays of numbers by name in a ZIP archive, without pickle.

Files need not be trusted. Every size in a file is checked against the size of the file before
memory is taken for it, and nothing in it is executed.
"""

from __future__ import annotations

import math
import os
import re
import struct
import textwrap
import zipfile
import zlib
from collections.abc import Mapping
from typing import IO, Any, BinaryIO

import numpy as np

from ..engine.arrays import Array
from .reading import check_expansion

# The kinds of dtype that are numbers.
_NUMBERS = "biufc"

_CHUNK = 1 << 20

# The header of an array of numbers is far shorter.
_LONGEST_HEADER = 4096
_PAIR = r"""\s*['"](\w+)['"]\s*:\s*('[^']*'|"[^"]*"|True|False|\([\d,\s]*\))"""
_HEADER = re.compile(rf"\{{{_PAIR}\s*,{_PAIR}\s*,{_PAIR}\s*(?:,\s*)?\}}\s*")
_DTYPE = re.compile(rf"[<>|=]?[{_NUMBERS}]\d{{1,2}}")
_MOST_AXES = 64
_LENGTH = re.compile(r"\d{1,19}")

# Bits of the flags that ZIP gives to an entry.
_ENCRYPTED, _HAS_DESCRIPTOR, _UTF8 = 0x1, 0x8, 0x800

# The header in front of an entry, with the lengths of the name and of the extra field; and the
# possible lengths of the descriptor behind an entry that was written to a pipe.
_LOCAL = struct.Struct("<26xHH")
_DESCRIPTORS = (12, 16, 20, 24)

# The record at the end of a ZIP archive: signature, number of entries, length of a comment.
_END = struct.Struct("<4s6xH8xH")


# ---- writing ----


def fits(name: str) -> bool:
    """Whether an array can have this name in a file."""
    member = f"{name}.npy"
    try:
        # ZipInfo cuts names at a null character, and replaces separators of the system.
        return zipfile.ZipInfo(member).filename == member and len(member.encode()) < 1 << 16
    except UnicodeEncodeError:
        return False


class _Archive(zipfile.ZipFile):
    """An archive that an exception leaves incomplete.

    ``ZipFile`` completes it even then, and its error about an entry that is not closed takes the
    place of the exception, such as Ctrl-C.
    """

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        if kind is None:
            self.close()

    def __del__(self) -> None:
        """Do nothing, where `ZipFile` would complete the archive."""


def write(
    file: BinaryIO, arrays: Mapping[str, Array], texts: Mapping[str, str] | None = None
) -> None:
    """Write `texts` under their full names, and then each array as a ``.npy`` entry."""
    with _Archive(file, "w", zipfile.ZIP_STORED) as archive:
        # The time in an entry is fixed, so that the same state gives the same bytes.
        for name, text in (texts or {}).items():
            archive.writestr(zipfile.ZipInfo(name), text)
        for name, array in arrays.items():
            member = zipfile.ZipInfo(f"{name}.npy")
            with archive.open(member, "w", force_zip64=True) as stream:
                np.lib.format.write_array(stream, array, allow_pickle=False)


# ---- reading ----

# Errors of zipfile and of this module for a damaged file.
_BROKEN = (
    ValueError,
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    OverflowError,
    RuntimeError,
)


def read(file: BinaryIO, *text_names: str) -> tuple[dict[str, Array], str | None]:
    """Return the arrays by name, and the text entry of one of these names if there is one.

    Raises
    ------
    ValueError
        If the file is damaged or has anything but arrays of numbers. The message names the entry.
    """
    try:
        return _read(file, text_names)
    except _BROKEN as error:
        raise ValueError(_reason(error)) from error


def _reason(error: Exception) -> str:
    if type(error) is ValueError:
        return str(error)
    # zipfile may quote long stretches of the file.
    return f"damaged or truncated: {textwrap.shorten(str(error), 120, placeholder=' ...')}"


def _read(file: BinaryIO, text_names: tuple[str, ...]) -> tuple[dict[str, Array], str | None]:
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - _END.size))
    end = file.read(_END.size)
    arrays: dict[str, Array] = {}
    text: str | None = None
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        _check_end(end, members)
        _check_sizes(members, size)
        _check_covered(file, members, archive.start_dir)
        for member in members:
            name = member.filename.removesuffix(".npy")
            try:
                is_text = member.filename in text_names
                _check_member(member, size, is_text)
                if name in arrays or (is_text and text is not None):
                    raise ValueError("the name occurs twice")
                with archive.open(member) as stream:
                    if is_text:
                        text = _exactly(stream, member.file_size).decode("utf-8")
                    else:
                        arrays[name] = _read_array(stream, member.file_size)
            except _BROKEN as error:
                raise ValueError(f"entry {name[:80]!r}: {_reason(error)}") from error
    return arrays, text


def _check_end(end: bytes, members: list[zipfile.ZipInfo]) -> None:
    """Check that the archive ends with the file, and that all entries of its directory are read."""
    signature, count, comment_length = _END.unpack(end)
    if signature != b"PK\5\6" or comment_length:
        raise ValueError("damaged or truncated: it does not end as a .npz file does")
    # The record has two bytes for the count, and their maximum for any larger number.
    if count != min(len(members), 0xFFFF):
        raise ValueError(f"damaged or truncated: of {count} entries {len(members)} are found")


def _check_covered(file: BinaryIO, members: list[zipfile.ZipInfo], directory: int) -> None:
    """Check that the entries follow each other from the start of the file to the directory.

    Otherwise the directory does not list all of the entries.
    """
    place = 0
    gaps: tuple[int, ...] = (0,)
    for member in sorted(members, key=lambda member: member.header_offset):
        if member.header_offset - place not in gaps:
            break
        file.seek(member.header_offset)
        name_length, extra_length = _LOCAL.unpack(_exactly(file, _LOCAL.size))
        place = member.header_offset + _LOCAL.size + name_length + extra_length
        place += member.compress_size
        gaps = _DESCRIPTORS if member.flag_bits & _HAS_DESCRIPTOR else (0,)
    else:
        if directory - place in gaps:
            return
    raise ValueError(f"damaged or truncated: its directory does not list byte {place}")


def _check_sizes(members: list[zipfile.ZipInfo], size: int) -> None:
    """Check the total size of the entries, in the file and in memory."""
    if sum(member.compress_size for member in members) > size:
        raise ValueError(f"its entries claim more than the {size} bytes of the file")
    check_expansion(size, sum(member.file_size for member in members))


def _check_member(member: zipfile.ZipInfo, size: int, is_text: bool) -> None:
    if member.filename.endswith("/data.pkl"):
        raise ValueError(
            "this is a file of torch.save, whose pickled objects are never loaded; "
            "write the arrays of the state dict with numpy.savez"
        )
    if not is_text and not member.filename.endswith(".npy"):
        raise ValueError("it is no .npy file")
    if member.flag_bits & _ENCRYPTED:
        raise ValueError("it is encrypted")
    if not (member.filename.isascii() or member.flag_bits & _UTF8):
        raise ValueError("its name is not in UTF-8")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"it is compressed by method {member.compress_type}, which is not read")
    stored = member.compress_type == zipfile.ZIP_STORED
    if is_text and not stored:
        raise ValueError("it is compressed, as no text in these files is")
    if stored and member.compress_size != member.file_size:
        raise ValueError(
            f"it claims {member.file_size} bytes, of which the file has {member.compress_size}"
        )
    if not 0 <= member.header_offset < size:
        raise ValueError("it claims to lie outside of the file")


def _read_array(stream: IO[bytes], size: int) -> Array:
    """Read a ``.npy`` file that has `size` bytes."""
    magic = _exactly(stream, 8)
    lengths = {b"\x93NUMPY\1\0": "<H", b"\x93NUMPY\2\0": "<I", b"\x93NUMPY\3\0": "<I"}
    if magic not in lengths:
        raise ValueError(f"expected a .npy file, this begins with {magic!r}")
    length_format = lengths[magic]
    length_size = struct.calcsize(length_format)
    (length,) = struct.unpack(length_format, _exactly(stream, length_size))
    if length > _LONGEST_HEADER:
        raise ValueError(f"its header claims {length} bytes")
    dtype, fortran_order, shape = _parsed(_exactly(stream, length))

    count = math.prod(shape)
    expected, given = count * dtype.itemsize, size - len(magic) - length_size - length
    if expected != given:
        raise ValueError(
            f"its header claims {expected} bytes for {dtype} of shape {shape}, it has {given}"
        )
    array: Array = np.empty(count, dtype)
    data = array.view(np.uint8)
    filled = 0
    while filled < expected:
        chunk = _exactly(stream, min(_CHUNK, expected - filled))
        data[filled : filled + len(chunk)] = np.frombuffer(chunk, np.uint8)
        filled += len(chunk)
    if not has_valid_flags(array):
        raise ValueError("it is of flags, and has other values")
    return array.reshape(shape, order="F" if fortran_order else "C")


def has_valid_flags(array: Array) -> bool:
    """Return False if a flat array of dtype bool has other bytes than 0 and 1."""
    return array.dtype != np.bool_ or int(array.view(np.uint8).max(initial=0)) <= 1


def _exactly(stream: IO[bytes], count: int) -> bytes:
    data = stream.read(count)
    if len(data) < count:
        raise EOFError("it ends too early")
    return data


def _parsed(header: bytes) -> tuple[np.dtype[Any], bool, tuple[int, ...]]:
    """Return dtype, order and shape from a header, which is the text of a dictionary."""
    # A pattern, and not literal_eval, which a text of many brackets can crash.
    text = header.decode("latin-1")
    match = _HEADER.fullmatch(text)
    pairs = dict(zip(match.groups()[::2], match.groups()[1::2], strict=True)) if match else {}
    description = pairs.get("descr", "")[1:-1]
    order, shape = pairs.get("fortran_order"), pairs.get("shape", "")
    if order not in ("True", "False") or not shape.startswith("("):
        if "'O" in text or "|O" in text:
            raise ValueError("it has objects, which are never loaded")
        raise ValueError(f"its header cannot be read: {text[:80]!r}")
    if not _DTYPE.fullmatch(description):
        what = "objects, which are never loaded" if "O" in description else repr(description)
        raise ValueError(f"expected an array of numbers, it is of {what}")
    try:
        dtype = np.dtype(description)
    except TypeError as error:
        raise ValueError(f"its dtype {description!r} is unknown here") from error
    lengths = [part.strip() for part in shape[1:-1].split(",")]
    if lengths[-1] == "":
        del lengths[-1]
    if len(lengths) > _MOST_AXES or not all(map(_LENGTH.fullmatch, lengths)):
        raise ValueError(f"its shape {shape[:80]} cannot be read")
    return dtype, order == "True", tuple(map(int, lengths))
