"""Files that are replaced in one step: a crash leaves the old one or the new one, whole."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
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
    temporary = target.with_name(f".nnlite-{secrets.token_hex(8)}.tmp")
    try:
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileNotFoundError):
            shutil.copymode(target, temporary)
        temporary.replace(target)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError) and error.errno is not None:
            raise OSError(error.errno, error.strerror, path) from error
        raise
    _sync_directory(target.parent)


def check_target(path: str) -> Path:
    """Return the file that `path` leads to, having checked that it can be replaced.

    Raises
    ------
    OSError
        If it is a directory, or if its folder is missing or cannot be written to.
    """
    target = Path(path).resolve()
    if target.is_dir():
        raise IsADirectoryError(f"{path}: this is a directory, and no file to be written")
    if not target.parent.is_dir():
        raise FileNotFoundError(f"{path}: there is no folder {target.parent}")
    if not os.access(target.parent, os.W_OK | os.X_OK):
        raise PermissionError(f"{path}: no file can be written to the folder {target.parent}")
    return target


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
