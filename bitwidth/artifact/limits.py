"""Limits on what a file may ask for, checked before anything is allocated."""

from __future__ import annotations

from typing import Any

from bitwidth.errors import CorruptFileError

MAX_HEADER_BYTES = 1 << 27
MAX_AXES = 16
MAX_ELEMENTS = 1 << 33
MAX_PARAMETERS = 1 << 20


def checked_shape(sizes: Any, name: str) -> tuple[int, ...]:
    """`sizes` as a shape.

    Raises:
        CorruptFileError: it is no list of at most 16 lengths with at most 2^33 elements in all.
    """
    if not isinstance(sizes, list) or len(sizes) > MAX_AXES:
        raise CorruptFileError(f"{name}: not a shape: {str(sizes)[:80]}")
    count = 1
    for length in sizes:
        if isinstance(length, bool) or not isinstance(length, int) or length < 0:
            raise CorruptFileError(f"{name}: not a shape: {str(sizes)[:80]}")
        count *= max(length, 1)
    if count > MAX_ELEMENTS:
        raise CorruptFileError(f"{name}: {count:,} elements are more than a file may hold")
    return tuple(sizes)
