"""Files that are replaced in one step: after a crash there is the old file or the new one."""

from __future__ import annotations

import contextlib
import os
import stat
import sys
from collections.abc import Iterator
from typing import BinaryIO

from .reading import with_path

if sys.platform != "win32":
    import fcntl

# A file is written under such a name before it replaces the one of its own name.
_PREFIX, _SUFFIX = ".nnlite-", ".tmp"


@contextlib.contextmanager
def replacing(path: str) -> Iterator[BinaryIO]:
    """Open a new file, which replaces the one at `path` if the block raises no error.

    Files that killed processes have left in the same folder are deleted.

    Raises
    ------
    OSError
        If the file cannot be written. The message names it, and not the temporary one.
    """
    target = check_target(path)
    folder = os.path.dirname(target)
    _remove_leftovers(folder)
    temporary = lock = None
    try:
        temporary, lock = _create(folder)
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileNotFoundError):
            os.chmod(temporary, stat.S_IMODE(os.stat(target).st_mode))
        os.replace(temporary, target)
    except BaseException as error:
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
        if isinstance(error, OSError) and error.errno is not None:
            raise with_path(error, path) from error
        raise
    finally:
        if lock is not None:
            os.close(lock)
    _sync_directory(folder)


def check_target(path: str) -> str:
    """Return the file that `path` leads to, having checked that it can be replaced.

    Raises
    ------
    OSError
        If it is read-only or no regular file, or if its folder is missing or read-only.
    """
    target = os.path.realpath(path)
    folder = os.path.dirname(target)
    if os.path.isdir(target):
        raise IsADirectoryError(f"{path}: this is a directory, and no file to be written")
    if not os.path.isdir(folder):
        raise FileNotFoundError(f"{path}: there is no folder {folder}")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(f"{path}: no file can be written to the folder {folder}")
    if os.path.exists(target):
        mode = os.stat(target).st_mode
        if not stat.S_ISREG(mode):
            raise OSError(f"{path}: this is a pipe, socket or device, which no file replaces")
        # The superuser may write to any file, but the mode says what its owner wants.
        if not (os.access(target, os.W_OK) and mode & 0o222):
            raise PermissionError(f"{path}: this file is read-only; delete it or save to another")
    return target


def _create(folder: str) -> tuple[str, int | None]:
    """Create a file; return its name and a descriptor that marks it as in use until it is closed.

    On Windows there is no such descriptor, and leftovers are not removed.
    """
    while True:
        path = os.path.join(folder, f"{_PREFIX}{os.urandom(8).hex()}{_SUFFIX}")
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        if sys.platform == "win32":
            os.close(descriptor)
            return path, None
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if os.path.exists(path):
            return path, descriptor
        os.close(descriptor)  # another process took it for a leftover before it was locked


def _remove_leftovers(folder: str) -> None:
    """Delete the temporary files of processes that have been killed."""
    if sys.platform == "win32":
        return
    with contextlib.suppress(OSError):
        for name in os.listdir(folder):
            if name.startswith(_PREFIX) and name.endswith(_SUFFIX):
                _remove_unless_locked(os.path.join(folder, name))


def _remove_unless_locked(path: str) -> None:
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.unlink(path)
        finally:
            os.close(descriptor)


def _sync_directory(folder: str) -> None:
    """Write the new name to the disk too, where the system can do that."""
    if os.name != "posix":
        return
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
