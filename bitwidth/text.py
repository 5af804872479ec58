"""Plain text: aligned tables and sizes for people, and texts from strangers made safe to print.

Here belongs what formats strings and knows nothing else of the package.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_BRIEF = 300  # characters of another library's message


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns aligned under their heads; those that hold only numbers are aligned to the right.

    Example:
        >>> print(table(["name", "bits"], [["a", "4"], ["bc", "16"]]))
        name  bits
        ----  ----
        a        4
        bc      16
    """
    widths = [max(len(head), *(len(row[i]) for row in rows)) if rows else len(head) for i, head in enumerate(columns)]
    right = [bool(rows) and all(_is_number(row[i]) for row in rows) for i in range(len(columns))]

    def line(cells: Sequence[str]) -> str:
        parts = [
            cell.rjust(width) if flush else cell.ljust(width)
            for cell, width, flush in zip(cells, widths, right, strict=True)
        ]
        return "  ".join(parts).rstrip()

    return "\n".join([line(columns), line(["-" * width for width in widths]), *(line(row) for row in rows)])


def bytes_text(count: int) -> str:
    """A number of bytes with thousands separated.

    Example:
        >>> bytes_text(12345)
        '12,345'
    """
    return f"{count:,}"


def shape_text(shape: Sequence[int]) -> str:
    """A shape for a table.

    Example:
        >>> shape_text((3, 3, 16))
        '3x3x16'
    """
    return "x".join(map(str, shape)) or "scalar"


def brief(error: BaseException) -> str:
    r"""The message of another library's error on one line, without colours and without its tail.

    Where it quotes the error behind it (after a whole configuration, say), what is cut is what stands between.

    Example:
        >>> brief(ValueError("first\n\nsecond"))
        'first second'
        >>> brief(TypeError("cannot be read: " + "x" * 999 + " Exception encountered: no field 'size'"))[-60:]
        "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx...: no field 'size'"
    """
    words = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).split()
    text = " ".join(words).partition(" Arguments received by")[0]
    if not text:
        return type(error).__name__
    if len(text) <= _BRIEF:
        return text
    head, _, cause = text.rpartition("Exception encountered: ")
    if not head:
        return f"{text[: _BRIEF - 3]}..."
    cause = cause if len(cause) <= _BRIEF else f"{cause[: _BRIEF - 3]}..."
    return f"{head[: _BRIEF // 3]}...: {cause}"


def printable(text: str, longest: int | None = None) -> str:
    r"""`text` with every character escaped that a terminal would obey and not show: controls, line ends, directions.

    Args:
        text: any text.
        longest: how many of its characters are shown at most; None for all.

    Example:
        >>> printable("a\x1b[2Jb\u202ec é\n")
        'a\\x1b[2Jb\\u202ec é\\n'
        >>> printable("parameter", longest=5)
        'param...'
    """
    if longest is not None and len(text) > longest:
        return printable(text[:longest]) + "..."
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def quoted(value: object, limit: int = 80) -> str:
    r"""A value of somebody else's for a message: its `repr`, cut, which no terminal obeys.

    Example:
        >>> print(quoted("a\x1b[2Jb"), quoted("x" * 9, limit=8))
        'a\x1b[2Jb' 'xxxx...
    """
    text = printable(repr(value))
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def _is_number(cell: str) -> bool:
    return cell.strip(" +-,.%0123456789eE") == "" or cell in {"-", ""}
