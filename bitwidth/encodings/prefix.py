"""The first bits of a grid: the encoding that the leading bit planes of its codes make."""

from __future__ import annotations

from math import isinf

import numpy as np

from bitwidth.encodings.encoding import Encoding
from bitwidth.encodings.leading import PrefixLevels
from bitwidth.encodings.masked import rebased
from bitwidth.encodings.quantized import Quantized
from bitwidth.errors import EncodingError
from bitwidth.typing import Array, is_integer

__all__ = ["PrefixLevels", "magnitude_bits", "ordered", "prefix"]


def ordered(encoding: Encoding) -> Quantized | None:
    """The grid under a mask, if its codes are integers in order (so that they are readable as bit planes)."""
    grid = encoding.grid
    alone = grid is not None and grid is encoding.unmasked and not grid.levels.tables
    return grid if alone else None


def magnitude_bits(grid: Quantized) -> int | None:
    """How many bit planes the magnitudes of a grid's codes have, less their zero points; None where there is no bound.

    Example:
        >>> from bitwidth.encodings import IntegerLevels
        >>> magnitude_bits(Quantized(IntegerLevels(-7, 7), np.ones((1, 1), np.float32), (2, 2)))
        3
    """
    highest = _highest(grid)
    return None if highest is None else highest.bit_length()


def prefix(encoding: Encoding, bits: int, planes: int | None = None) -> Encoding:
    """The encoding that reads only the first `bits` bits of each code, the sign being one of them.

    The codes less their zero points are sign and magnitude; the low bits of the magnitude are dropped (see
    `PrefixLevels`). Scale, bias and mask stay; there is no zero point any more. Tables, floats, and grids of no more
    than `bits` bits are returned unchanged. A prefix of a prefix is that of the whole grid.

    Args:
        encoding: any encoding.
        bits: at least 2.
        planes: how many bit planes the magnitudes of the codes have; needed for integers without bounds, whose codes
            alone can tell.

    Raises:
        EncodingError: `bits` is not an integer of at least 2; no `planes` for integers without bounds.

    Example:
        >>> from bitwidth.encodings import IntegerLevels
        >>> grid = Quantized(IntegerLevels.symmetric(8), np.array([[0.5]], np.float32), (1, 3))
        >>> four = prefix(grid, 4)
        >>> four.project(np.array([[0.0, 20.0, -63.0]], np.float32)), four.bits
        (array([[  0.  ,  19.75, -59.75]], dtype=float32), 4)
    """
    if not is_integer(bits) or bits < 2:
        raise EncodingError(f"bits of a prefix must be an integer of at least 2, got {bits!r}")
    grid = ordered(encoding)
    if grid is None or grid.bits <= bits:
        return encoding
    highest = _highest(grid)
    if highest is None:
        if planes is None:
            raise EncodingError("integers without bounds: say how many bit planes their codes have (planes=)")
        highest = (1 << planes) - 1
    before = grid.levels.dropped_bits
    dropped = highest.bit_length() - (bits - 1)
    if dropped <= 0:
        return encoding
    high = highest if grid.levels.is_integer else grid.levels.integer_bounds[1]
    return rebased(encoding, Quantized(PrefixLevels(high, before + dropped), grid.scale, grid.block, bias=grid.bias))


def _highest(grid: Quantized) -> int | None:
    """The greatest magnitude of a code less its zero point."""
    if isinf(grid.bits):
        return None
    low, high = grid.levels.bounds
    zero: Array = np.zeros(1, np.int32) if grid.zero_point is None else grid.zero_point
    return max(high - int(zero.min(initial=high)), int(zero.max(initial=low)) - low)
