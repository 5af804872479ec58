"""Limits on what a file may ask for, checked before anything is allocated."""

from __future__ import annotations

from math import prod
from typing import Any

from bitwidth.errors import CorruptFileError
from bitwidth.typing import Json, is_integer

MAX_HEADER_BYTES = 1 << 24
MAX_AXES = 16
MAX_ELEMENTS = 1 << 31  # of all parameters together
MAX_SIDE_ELEMENTS = 1 << 16  # of a stream that is not the codes, where the parameter itself has fewer
MAX_PARAMETERS = 1 << 18
MAX_DEPTH = 8
_WIDTHS = ("8", "16", "32", "64")
DTYPES = (
    "bool",
    "float16",
    "float32",
    "float64",
    "bfloat16",
    *(f"{sign}int{w}" for sign in ("", "u") for w in _WIDTHS),
)


def checked_shape(sizes: Any, where: str) -> tuple[int, ...]:
    """`sizes` as a shape.

    Raises:
        CorruptFileError: it is not a list of at most 16 lengths, or asks for more elements than a file may hold.
    """
    if not isinstance(sizes, list) or len(sizes) > MAX_AXES:
        raise CorruptFileError(f"{where}: not a shape: {str(sizes)[:80]}")
    shape = tuple(checked_count(length, where) for length in sizes)
    if prod(max(length, 1) for length in shape) > MAX_ELEMENTS:
        raise CorruptFileError(f"{where}: shape {shape} has more elements than a file may hold")
    return shape


def checked_count(count: Any, where: str) -> int:
    """`count` as an integer of at least 0.

    Raises:
        CorruptFileError: it is anything else.
    """
    if not is_integer(count) or count < 0:
        raise CorruptFileError(f"{where}: expected an integer of at least 0, got {str(count)[:40]}")
    return count


def checked_asset(item: Json, name: str) -> tuple[str, int]:
    """The name of an asset in the file `name`, and its bytes.

    Raises:
        CorruptFileError: it is not such a pair.
    """
    if not isinstance(item, list) or len(item) != 2 or not isinstance(item[0], str):
        raise CorruptFileError(f"{name}: malformed asset entry: expected name and size, got {str(item)[:80]}")
    return item[0], checked_count(item[1], f"{name}: asset {item[0]!r}")


def checked_encoding(config: Json, where: str, depth: int = 0) -> None:
    """Raise unless `config` is an encoding's configuration: a kind, and parts that are such configurations.

    Raises:
        CorruptFileError: it is anything else.
    """
    if not isinstance(config, dict) or not isinstance(config.get("kind"), str) or depth > MAX_DEPTH:
        raise CorruptFileError(f"{where}: not an encoding: {str(config)[:80]}")
    parts = config.get("parts", {})
    if not isinstance(parts, dict):
        raise CorruptFileError(f"{where}: not the parts of an encoding: {str(parts)[:80]}")
    for part in parts.values():
        checked_encoding(part, where, depth + 1)
