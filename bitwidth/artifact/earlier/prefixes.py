"""The first bits of codes that lie whole in a file."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bitwidth.encodings import Encoding, Quantized, magnitude_bits, ordered, prefix, spread
from bitwidth.typing import Array


def truncated(encoding: Encoding, codes: Array, shape: tuple[int, ...], bits: int) -> tuple[Encoding, Array]:
    """The first bits of codes in sign and magnitude, and the encoding that reads them; see `bitwidth.encodings.prefix`.

    Args:
        encoding: how the values are held.
        codes: where its mask keeps a value, 1-D, or all of them.
        shape: of the parameter.
        bits: at least 2.
    """
    grid = ordered(encoding)
    if grid is None:
        return encoding, codes
    signed = codes - zero_points(grid, encoding.mask, shape)
    width = magnitude_bits(grid) or _width_of(signed)
    short = prefix(encoding, bits, width)
    if short is encoding:
        return encoding, codes
    return short, np.sign(signed) * (np.abs(signed) >> width - (bits - 1))


def zero_points(grid: Quantized, mask: NDArray[np.bool_] | None, shape: tuple[int, ...]) -> NDArray[np.int32]:
    """The zero point of each code that is stored; broadcasts against them."""
    if grid.zero_point is None:
        return np.zeros((), np.int32)
    zero = spread(grid.zero_point, grid.block, shape)
    return zero if mask is None else np.broadcast_to(zero, shape)[mask]


def _width_of(codes: NDArray[np.int32]) -> int:
    """Bits of the greatest magnitude, one at least."""
    return max(1, int(codes.max(initial=0)).bit_length(), int(-codes.min(initial=0)).bit_length())
