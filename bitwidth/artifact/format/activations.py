"""How the inputs of layers are held, in the header of a file: one scale and zero point for each tensor, as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from bitwidth.encodings import Encoding, IntegerLevels, Quantized
from bitwidth.errors import CorruptFileError, EncodingError
from bitwidth.typing import Data

_MAX_LAYERS = 1 << 18
_MAX_INPUTS = 1 << 10


def written(activations: Mapping[str, tuple[Encoding | None, ...]]) -> dict[str, list[Any]]:
    """By the layer's path, for each input tensor null or `[low, high, scale, zero point]`.

    Raises:
        EncodingError: an encoding that is not an integer grid with one scale.
    """
    return {
        path: [None if encoding is None else _numbers(encoding) for encoding in held]
        for path, held in activations.items()
    }


def read(data: Data, name: str) -> dict[str, tuple[Encoding | None, ...]]:
    """What `written` gave.

    Args:
        data: JSON; untrusted.
        name: of the file, for messages.

    Raises:
        CorruptFileError: it is anything else.
    """
    if not isinstance(data, dict) or len(data) > _MAX_LAYERS:
        raise CorruptFileError(f"{name}: its header does not describe activations")
    return {path: _grids(held, f"{name}: inputs of {path}") for path, held in data.items()}


def _numbers(encoding: Encoding) -> list[Any]:
    grid = encoding.grid
    if grid is None or grid is not encoding or not grid.levels.is_integer or grid.scale.ndim:
        raise EncodingError(f"activations are held on integer grids with one scale, not as {encoding.describe()}")
    zero = 0 if grid.zero_point is None else int(grid.zero_point)
    return [*grid.levels.bounds, float(grid.scale), zero]


def _grids(held: Any, where: str) -> tuple[Encoding | None, ...]:
    if not isinstance(held, list) or len(held) > _MAX_INPUTS:
        raise CorruptFileError(f"{where}: expected a list of grids, got {str(held)[:80]}")
    return tuple(None if numbers is None else _grid(numbers, where) for numbers in held)


def _grid(numbers: Any, where: str) -> Quantized:
    whole = isinstance(numbers, list) and len(numbers) == 4 and all(type(numbers[place]) is int for place in (0, 1, 3))
    if not whole or not isinstance(numbers[2], float):
        raise CorruptFileError(f"{where}: expected low, high, scale and zero point, got {str(numbers)[:80]}")
    low, high, scale, zero = numbers
    with np.errstate(over="ignore"):
        if float(np.float32(scale)) != scale:
            raise CorruptFileError(f"{where}: the scale {scale!r} is not a float32")
    try:
        point = np.asarray(zero, np.int32) if zero else None
        return Quantized(IntegerLevels(low, high), np.asarray(scale, np.float32), (), point)
    except (EncodingError, OverflowError, ValueError) as error:
        raise CorruptFileError(f"{where}: {error}") from error
