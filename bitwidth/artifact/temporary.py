"""Files on their way to a name: locked while they are written, so that those of writers that are gone are known.

A process that is killed may leave its file behind. Process ids mean nothing in a folder that several machines share, so
a writer holds a lock on its file, and the next writer to the folder removes the files whose lock is free. A file is
created before it can be locked; a writer that finds, once it holds the lock, that its file was taken for a left one
begins another. Where there are no such locks (Windows), nothing is removed.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

_NAME = re.compile(r"\.bitwidth-[0-9a-f]{16}\.tmp")
_TRIES = 100


@contextlib.contextmanager
def temporary(folder: Path, mode: int) -> Iterator[tuple[BinaryIO, Path]]:
    """An open, locked file in `folder`, and the name that it has or is to get (`give_name`) before it is renamed.

    Args:
        folder: an existing folder.
        mode: permissions, less the process's mask.

    Raises:
        OSError: the folder cannot be written to.
    """
    descriptor, name = _without_name(folder, mode) or _with_name(folder, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file, name
    finally:
        name.unlink(missing_ok=True)


def give_name(descriptor: int, name: Path) -> None:
    """Give an open file without a name its name.

    Raises:
        OSError: the system does not allow it.
    """
    folder = os.open(name.parent, os.O_RDONLY)
    try:
        # given a folder descriptor, Python follows the link in /proc to the file (AT_SYMLINK_FOLLOW)
        os.link(f"/proc/self/fd/{descriptor}", name.name, dst_dir_fd=folder, follow_symlinks=True)
    finally:
        os.close(folder)


def remove_left(folder: Path) -> None:
    """Remove the files in `folder` that writers left behind; those that one is writing stay."""
    if sys.platform == "win32":
        return
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        names = [entry.path for entry in entries if _NAME.fullmatch(entry.name)]
        for name in names:
            with contextlib.suppress(OSError):
                _remove_unlocked(name)


def _remove_unlocked(name: str) -> None:
    descriptor = os.open(name, os.O_RDWR | os.O_NONBLOCK | os.O_NOFOLLOW)
    try:
        if stat.S_ISREG(os.fstat(descriptor).st_mode) and _lock(descriptor) and _is_named(descriptor, name):
            os.unlink(name)
    finally:
        os.close(descriptor)


def _new_name(folder: Path) -> Path:
    return folder / f".bitwidth-{secrets.token_hex(8)}.tmp"


def _without_name(folder: Path, mode: int) -> tuple[int, Path] | None:
    """A file without a name (Linux); None where there is no such."""
    try:
        descriptor = os.open(folder, os.O_TMPFILE | os.O_WRONLY, mode)
    except (OSError, AttributeError):
        return None
    if not Path(f"/proc/self/fd/{descriptor}").exists():
        os.close(descriptor)
        return None
    _lock(descriptor)  # before it has a name by which another could find it
    return descriptor, _new_name(folder)


def _with_name(folder: Path, mode: int) -> tuple[int, Path]:
    """A hidden file; where there are locks, one that no other writer has taken for a left one."""
    for _ in range(_TRIES):
        name = _new_name(folder)
        descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), mode)
        locked = _lock(descriptor)
        if locked is None or (locked and _is_named(descriptor, name)):
            return descriptor, name
        os.close(descriptor)
        name.unlink(missing_ok=True)
    raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))


def _lock(descriptor: int) -> bool | None:
    """Whether the file is locked by us from now on, until it is closed; None where there are no locks."""
    if sys.platform == "win32":
        return None
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _is_named(descriptor: int, name: str | Path) -> bool:
    """Whether `name` is (still) the name of an open file."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(name, follow_symlinks=False))
    except FileNotFoundError:
        return False
