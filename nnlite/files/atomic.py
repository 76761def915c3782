"""Files that are replaced in one step: a crash leaves the old one or the new one, whole."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from typing import BinaryIO


@contextlib.contextmanager
def replacing(path: str) -> Iterator[BinaryIO]:
    """Context with a new file that takes the place of the one at `path` if all goes well.

    Raises
    ------
    OSError
        If the file cannot be written. The message names it, and not the temporary one.
    """
    target = check_target(path)
    folder = os.path.dirname(target)
    temporary = os.path.join(folder, f".nnlite-{os.urandom(8).hex()}.tmp")
    try:
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileNotFoundError):
            os.chmod(temporary, stat.S_IMODE(os.stat(target).st_mode))
        os.replace(temporary, target)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        if isinstance(error, OSError) and error.errno is not None:
            raise OSError(error.errno, error.strerror, path) from error
        raise
    _sync_directory(folder)


def check_target(path: str) -> str:
    """Return the file that `path` leads to, having checked that it can be replaced.

    Raises
    ------
    OSError
        If it is a directory, or if its folder is missing or cannot be written to.
    """
    target = os.path.realpath(path)
    folder = os.path.dirname(target)
    if os.path.isdir(target):
        raise IsADirectoryError(f"{path}: this is a directory, and no file to be written")
    if not os.path.isdir(folder):
        raise FileNotFoundError(f"{path}: there is no folder {folder}")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(f"{path}: no file can be written to the folder {folder}")
    return target


def _sync_directory(folder: str) -> None:
    """Bring the new name onto the disk as well, where the system can do that."""
    if os.name != "posix":
        return
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
