"""Open a file for reading: a regular one, whatever path a caller names, without waiting for anybody."""

from __future__ import annotations

import errno
import os
import stat
from typing import Any, BinaryIO

from bitwidth.errors import ConfigError, FileError
from bitwidth.text import printable

FilePath = str | bytes | os.PathLike[str] | os.PathLike[bytes]


def path_text(path: Any) -> str:
    """`path` as text.

    Args:
        path: a string, bytes in the encoding of the file system, or an `os.PathLike`.

    Raises:
        ConfigError: it is anything else.
        FileError: it holds a NUL, which no path does.
    """
    try:
        text = os.fsdecode(path)
    except TypeError:
        kind = type(path).__name__
        raise ConfigError(f"a path expected (str, bytes or os.PathLike), got {path!r:.80} ({kind})") from None
    if "\0" in text:
        raise FileError(f"{printable(text)}: a path cannot hold a NUL character")
    return text


def opened(path: FilePath) -> BinaryIO:
    """A regular file, open for reading.

    What is not a regular file is refused: a FIFO or a device would let a reader wait for ever, or never end.

    Raises:
        ConfigError: `path` is not a path.
        FileError: it cannot be opened, or is not a regular file.
    """
    text = path_text(path)
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        descriptor = os.open(text, flags)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise FileError(f"{printable(text)}: cannot be opened: {reason}") from error
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        reason = os.strerror(errno.EISDIR) if stat.S_ISDIR(mode) else "not a regular file"
        raise FileError(f"{printable(text)}: cannot be opened: {reason}")
    return os.fdopen(descriptor, "rb")
