"""Files that need not be trusted, opened for reading."""

from __future__ import annotations

import contextlib
import io
import os
import stat
from collections.abc import Iterator

# A compressed file may unpack to this many times its size, and to this many bytes in any case.
_EXPANSION = 100
_ALWAYS_ALLOWED = 1 << 20


def as_path(path: str | os.PathLike[str], who: str) -> str:
    """Return `path` as a string, or raise an error that begins with the caller's name `who`."""
    try:
        name = os.fsdecode(path)
    except TypeError:
        raise TypeError(
            f"{who}: expected the path of a file (str or os.PathLike), got {path!r:.80}"
        ) from None
    if "\0" in name:
        raise ValueError(f"{who}: the path of a file has no null character, got {name!r:.80}")
    return name


@contextlib.contextmanager
def reading(path: str) -> Iterator[io.BufferedReader]:
    """Open a regular file; an error while it is read names the file.

    Raises
    ------
    ValueError
        If it is a directory, a pipe or a device, or for a ValueError within the context.
    OSError
        If the file cannot be opened or read.
    """
    mode = os.stat(path).st_mode  # before it is opened, which would wait for the writer of a pipe
    if not stat.S_ISREG(mode):
        what = "a directory" if stat.S_ISDIR(mode) else "no regular file"
        raise ValueError(f"{path}: expected a file of arrays, this is {what}")
    try:
        with open(path, "rb") as file:
            yield file
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    except OSError as error:
        raise with_path(error, path) from error


def with_path(error: OSError, path: str) -> OSError:
    """Return an OSError of the same kind that names `path`."""
    if error.errno is None:
        return type(error)(f"{path}: {error}")
    return OSError(error.errno, error.strerror, path)


def check_expansion(size: int, unpacked: int) -> None:
    """Raise a ValueError if a file of `size` bytes may not unpack to `unpacked` bytes."""
    if unpacked > _EXPANSION * size + _ALWAYS_ALLOWED:
        raise ValueError(
            f"it claims to unpack from {size} to {unpacked} bytes; write arrays that are so "
            f"regular without compression"
        )
