"""Files: state dicts as ``.npz``, without pickle, written so that a crash leaves no half file.

What a file says of itself is only a claim. Every size in it is checked against the size of the
file before memory is taken for it, and nothing in it is ever executed.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import secrets
import shutil
import stat
import struct
import textwrap
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any, BinaryIO

import numpy as np
from numpy.typing import ArrayLike

from .layer import Array, Layer

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
_ENCRYPTED, _UTF8 = 0x1, 0x800

# The record at the end of a ZIP archive: signature, number of entries, length of a comment.
_END = struct.Struct("<4s6xH8xH")

# A compressed file may unpack to so many times its size, and to so many bytes in any case.
_EXPANSION = 100
_ALWAYS_ALLOWED = 1 << 20


def save(model_or_state: Layer | Mapping[str, ArrayLike], path: str | os.PathLike[str]) -> None:
    """Write the state dict of a model, or any state dict, to a ``.npz`` file.

    The file at `path` is replaced in one step when the new one is complete and on the disk: a
    crash at any moment leaves the old file or the new one, and no half of either.

    Parameters
    ----------
    model_or_state : Layer, or mapping of str to array_like
        A model, whose `Layer.state_dict` is taken; or a state dict: arrays of numbers by name.
    path : str or path-like
        The file. Its name has to end in ``.npz``; nothing is appended to it.

    Raises
    ------
    ValueError
        If the name of the file does not end in ``.npz``, or if the name of an entry is empty or
        cannot stand in the file.
    TypeError
        If something is neither a model nor a state dict, or if an entry is not made of numbers.
    OSError
        If the file cannot be written. What was there before is then left as it was.

    See Also
    --------
    load_state : The way back.

    Notes
    -----
    The format is that of `numpy.savez`: a ZIP archive of one ``.npy`` file for each entry, of the
    entry's name, shape and dtype, not compressed. `numpy.load` reads it too. The same state gives
    the same bytes. Files of many entries or of gigabytes are ZIP64.

    The new file is written beside the old one, under a name that begins with ``.nnlite-``, and
    then renamed. Only a process that is killed while it writes leaves a file of such a name; it
    can be deleted.

    References
    ----------
    R. Kern, "A simple file format for NumPy arrays", NumPy Enhancement Proposal 1, 2007.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import numpy as np
    >>> import nnlite as nn
    >>> model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     nn.save(model, Path(folder, "model.npz"))
    ...     state = nn.load_state(Path(folder, "model.npz"))
    >>> list(state)
    ['0.weight', '0.bias', '2.weight', '2.bias']
    >>> other = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    >>> other.load_state_dict(state)
    IncompatibleKeys(missing_keys=[], unexpected_keys=[])
    >>> bool((other[0].weight.data == model[0].weight.data).all())
    True
    """
    if isinstance(path, (Layer, Mapping)):
        raise TypeError("save: expected the model first and the path after it")
    path = os.fspath(path)
    if isinstance(model_or_state, Layer):
        state: Mapping[str, ArrayLike] = model_or_state.state_dict()
    elif isinstance(model_or_state, Mapping):
        state = model_or_state
    else:
        raise TypeError(
            f"save: expected a model or a state dict, got {type(model_or_state).__name__}"
        )
    if Path(path).suffix.lower() != ".npz":
        raise ValueError(f"save: the name of the file has to end in .npz, got {path!r}")
    arrays = {_checked_name(name): _checked_array(name, value) for name, value in state.items()}
    with _replacing(path) as file:
        _write_npz(file, arrays)


def load_state(path: str | os.PathLike[str]) -> dict[str, Array]:
    """Read the arrays in a ``.npz`` file, which may come from anywhere.

    Parameters
    ----------
    path : str or path-like
        A file that `save` has written, or `numpy.savez` or `numpy.savez_compressed` without
        objects. It is recognised by its content, not by its name.

    Returns
    -------
    dict of str to ndarray
        The entries in the order of the file, with their names, shapes and dtypes, for
        `Layer.load_state_dict`. The arrays can be written to.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is no such file: truncated, altered, of another kind, with objects or names that
        occur twice, or with sizes that contradict each other. The message names the file and the
        entry.

    See Also
    --------
    save : The way there.

    Notes
    -----
    No code in the file is run: pickled objects are refused, and headers are not evaluated. The
    memory taken is at most the size of the file; of a compressed file, which may hold what is
    very regular, it is at most 100 times that and 1 MiB.

    A changed byte in an array or in its name is found by the checksums of the format. They protect
    against accidents: whoever can change the file can also change them.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import numpy as np
    >>> import nnlite as nn
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "state.npz")
    ...     np.savez(path, weight=np.eye(2), steps=np.array(7))
    ...     nn.load_state(path)
    {'weight': array([[1., 0.],
           [0., 1.]]), 'steps': array(7)}
    """
    path = os.fspath(path)
    mode = Path(path).stat().st_mode
    if not stat.S_ISREG(mode):
        kind = "a directory" if stat.S_ISDIR(mode) else "no regular file"
        raise ValueError(f"{path}: expected a .npz file, this is {kind}")
    with open(path, "rb") as file:
        try:
            return _read_npz(file)
        except _BROKEN as error:
            raise ValueError(f"{path}: {_reason(error)}") from None


# ---- writing ----


def _checked_name(name: Any) -> str:
    if not isinstance(name, str):
        raise TypeError(f"save: the names of the entries must be str, got {name!r}")
    member = f"{name}.npy"
    try:
        # ZipInfo cuts names at a null character, and replaces separators of the system.
        fits = zipfile.ZipInfo(member).filename == member and len(member.encode()) < 1 << 16
    except UnicodeEncodeError:
        fits = False
    if not name or not fits:
        raise ValueError(f"save: {name[:80]!r} cannot be the name of an entry in a file")
    return name


def _checked_array(name: str, value: ArrayLike) -> Array:
    array = np.asarray(value)
    if array.dtype.kind not in _NUMBERS:
        raise TypeError(f"save: expected {name!r} to be an array of numbers, got {array.dtype}")
    return array


@contextlib.contextmanager
def _replacing(path: str) -> Iterator[BinaryIO]:
    """Context with a new file that takes the place of the one at `path` if all goes well."""
    target = Path(path).resolve()
    if target.is_dir():
        raise IsADirectoryError(f"{path}: this is a directory, and no file to be written")
    if not target.parent.is_dir():
        raise FileNotFoundError(f"{path}: there is no folder {target.parent}")
    temporary = target.with_name(f".nnlite-{secrets.token_hex(8)}.tmp")
    try:
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileNotFoundError):
            shutil.copymode(target, temporary)
        temporary.replace(target)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    _sync_directory(target.parent)


def _sync_directory(folder: Path) -> None:
    """Bring the new name onto the disk as well, where the system can do that."""
    if os.name != "posix":
        return
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _write_npz(file: BinaryIO, arrays: Mapping[str, Array]) -> None:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            # The time in it is fixed, so that the same state gives the same bytes.
            member = zipfile.ZipInfo(f"{name}.npy")
            with archive.open(member, "w", force_zip64=True) as stream:
                np.lib.format.write_array(stream, array, allow_pickle=False)


# ---- reading ----

# What zipfile raises for a broken file; a ValueError is also how this module says so.
_BROKEN = (
    ValueError,
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    OverflowError,
    RuntimeError,
)


def _reason(error: Exception) -> str:
    if type(error) is ValueError:
        return str(error)
    # zipfile may quote long stretches of the file.
    return f"damaged or truncated: {textwrap.shorten(str(error), 120, placeholder=' …')}"


def _read_npz(file: BinaryIO) -> dict[str, Array]:
    start = file.read(8)
    if start[:4] not in (b"PK\3\4", b"PK\5\6"):
        raise ValueError(f"expected a .npz file, {_kind(start)}")
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - _END.size))
    end = file.read(_END.size)
    state: dict[str, Array] = {}
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        _check_end(end, members)
        _check_sizes(members, size)
        for member in members:
            name = member.filename.removesuffix(".npy")
            try:
                _check_member(member, size)
                if name in state:
                    raise ValueError("the name occurs twice")
                with archive.open(member) as stream:
                    state[name] = _read_array(stream, member.file_size)
            except _BROKEN as error:
                raise ValueError(f"entry {name[:80]!r}: {_reason(error)}") from error
    return state


def _kind(start: bytes) -> str:
    if not start:
        return "this one is empty"
    if start.startswith(b"\x93NUMPY"):
        return "this is a .npy file of a single array; write it with numpy.savez and a name"
    if start[0] == 0x80:
        return "this is a file of pickled objects, which are never loaded"
    return f"this one begins with {start!r}"


def _check_end(end: bytes, members: list[zipfile.ZipInfo]) -> None:
    """Check that there is nothing before or after the archive, and that no entry is lost."""
    signature, count, comment_length = _END.unpack(end)
    begins = min((member.header_offset for member in members), default=0)
    if signature != b"PK\5\6" or comment_length or begins != 0:
        raise ValueError("damaged or truncated: it does not begin and end as a .npz file does")
    # Of more entries than two bytes can count, the record has the largest such number.
    if count != min(len(members), 0xFFFF):
        raise ValueError(f"damaged or truncated: of {count} entries {len(members)} are found")


def _check_sizes(members: list[zipfile.ZipInfo], size: int) -> None:
    """Check that what the entries take, in the file and in memory, fits the size of the file."""
    if sum(member.compress_size for member in members) > size:
        raise ValueError(f"its entries claim more than the {size} bytes of the file")
    unpacked = sum(member.file_size for member in members)
    if unpacked > _EXPANSION * size + _ALWAYS_ALLOWED:
        raise ValueError(
            f"it claims to unpack from {size} to {unpacked} bytes; "
            f"write what is so regular with numpy.savez, which does not compress"
        )


def _check_member(member: zipfile.ZipInfo, size: int) -> None:
    if member.filename.endswith("/data.pkl"):
        raise ValueError(
            "this is a file of torch.save, whose pickled objects are never loaded; "
            "write the arrays of the state dict with numpy.savez"
        )
    if not member.filename.endswith(".npy"):
        raise ValueError("it is no .npy file")
    if member.flag_bits & _ENCRYPTED:
        raise ValueError("it is encrypted")
    if not (member.filename.isascii() or member.flag_bits & _UTF8):
        raise ValueError("its name is not in UTF-8")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"it is compressed by method {member.compress_type}, which is not read")
    stored = member.compress_type == zipfile.ZIP_STORED
    if stored and member.compress_size != member.file_size:
        raise ValueError(
            f"it claims {member.file_size} bytes, of which the file has {member.compress_size}"
        )
    if not 0 <= member.header_offset < size:
        raise ValueError("it claims to lie outside of the file")


def _read_array(stream: IO[bytes], size: int) -> Array:
    """Read a ``.npy`` file that has `size` bytes."""
    magic = _read(stream, 8)
    lengths = {b"\x93NUMPY\1\0": "<H", b"\x93NUMPY\2\0": "<I", b"\x93NUMPY\3\0": "<I"}
    if magic not in lengths:
        raise ValueError(f"expected a .npy file, this begins with {magic!r}")
    length_format = lengths[magic]
    length_size = struct.calcsize(length_format)
    (length,) = struct.unpack(length_format, _read(stream, length_size))
    if length > _LONGEST_HEADER:
        raise ValueError(f"its header claims {length} bytes")
    dtype, fortran_order, shape = _parsed(_read(stream, length))

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
        chunk = _read(stream, min(_CHUNK, expected - filled))
        data[filled : filled + len(chunk)] = np.frombuffer(chunk, np.uint8)
        filled += len(chunk)
    return array.reshape(shape, order="F" if fortran_order else "C")


def _read(stream: IO[bytes], count: int) -> bytes:
    data = stream.read(count)
    if len(data) < count:
        raise EOFError("it ends too early")
    return data


def _parsed(header: bytes) -> tuple[np.dtype[Any], bool, tuple[int, ...]]:
    """Return dtype, order and shape of a header, which is the text of a dictionary."""
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
