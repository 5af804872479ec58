"""Write a file whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import stat
from collections.abc import Iterable
from pathlib import Path

from bitwidth.artifact.format.opening import FilePath, path_text
from bitwidth.artifact.temporary import give_name, remove_left, temporary
from bitwidth.errors import FileError
from bitwidth.text import printable

_LOG = logging.getLogger(__name__)
_NEW = 0o666  # less the process's mask, as any new file


def write_file(path: FilePath, data: bytes | Iterable[bytes]) -> None:
    """Write `data` to `path`, so that at any moment there is the old file (or none) or the new one, whole.

    The bytes go to a file without a name where the system has such (Linux), else to a hidden one beside `path`; only
    when they are on the disk does the file get its name. A file that is replaced leaves its permissions to the new one;
    a symbolic link stays, and the file that it leads to is replaced. Hidden files that writers left in the folder when
    they were killed are removed.

    Args:
        path: the file.
        data: all of its bytes, or its parts in order.

    Raises:
        ConfigError: `path` is not a path.
        FileError: the folder does not exist or cannot be written to, or there is something else than a file at `path`.
    """
    text = path_text(path)
    shown, size = printable(text), 0
    try:
        target = _followed(text)
        kept = _kept_mode(target)
        remove_left(target.parent)
        with temporary(target.parent, _NEW if kept is None else stat.S_IRUSR | stat.S_IWUSR) as (file, name):
            for part in [data] if isinstance(data, bytes) else data:
                size += file.write(part)
            file.flush()
            if kept is not None and hasattr(os, "fchmod"):
                with contextlib.suppress(OSError):  # a file system without permissions
                    os.fchmod(file.fileno(), kept)
            os.fsync(file.fileno())
            if not name.exists():
                give_name(file.fileno(), name)
            os.replace(name, target)
        _LOG.info("%s: %d bytes written", shown, size)
    except OSError as error:
        raise FileError(f"{shown}: cannot be written: {error.strerror or error}") from error
    except ValueError as error:
        raise FileError(f"{shown!r}: cannot be written: {error}") from error


def _followed(text: str) -> Path:
    """The file that a path names; where it is a link, that which it leads to, whether there is one or not."""
    path = Path(text)
    if not path.name or path.name == "..":
        raise ValueError("it names no file")
    if not path.is_symlink():
        return path
    target = Path(os.path.realpath(path))
    if target.is_symlink():
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
    return target


def _kept_mode(target: Path) -> int | None:
    """Permissions of the file that is replaced; None where there is none."""
    try:
        mode = target.stat().st_mode
    except FileNotFoundError:
        return None
    if stat.S_ISDIR(mode):
        raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "not a regular file")
    return stat.S_IMODE(mode) & 0o777
