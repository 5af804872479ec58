"""Codes of a grid in two layers: a base of 4 bits, which is a grid of its own, and the rest.

The base t counts codes c, less their zero points, in steps of an integer s for each block, -7 to 7. It is what a reader
of 4 bits takes: a symmetric grid whose scales are s times those of the codes (see `bitwidth.encodings.narrow`). The
rest is `c - s * t`. Where a grid was trained so that its first bits make a good model (`PrefixLevels`), t is these
bits. Both together cost about what the codes do.

Source: layers of quality as in H. Schwarz et al., "Overview of the Scalable Video Coding Extension of the H.264/AVC
Standard", 2007, section V.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray

from bitwidth.artifact.format.held import placed
from bitwidth.encodings import Encoding, Quantized, narrow, narrowed, ordered, prefix, signed, spread, steps
from bitwidth.errors import EncodingError
from bitwidth.typing import Array

BITS = 4  # of the base layer
_MANY = 1 << 12  # so many codes are worth a chunk of their own


@final
@dataclass(frozen=True)
class Layers:
    """Codes in layers.

    Attributes:
        step: int32, one for each block: what the base counts in.
        base: int32, of the shape of the codes: -7 to 7; 0 where a mask drops the value.
        rest: of the values that are stored, what the coder of the rest takes: codes less their zero points, base, and
            the step of each; see `of_stored`.
    """

    step: NDArray[np.int32]
    base: NDArray[np.int32]
    rest: tuple[NDArray[np.int32], ...]


def layered(encoding: Encoding, codes: NDArray[np.int32], wanted: bool | None) -> Layers | None:
    """The layers of codes; None where they are not of a grid of integers of more than 4 bits, or not to be layered.

    Args:
        encoding: how the values are held.
        codes: all of them.
        wanted: True for any number of codes, False for none, None for many.
    """
    grid = ordered(encoding)
    if grid is None or not can_be_layered(encoding) or wanted is False or not codes.size:
        return None
    if wanted is None and codes.size < _MANY:
        return None
    step = steps(codes, grid, BITS, encoding.mask) if grid.levels.is_integer else _of_prefix(grid)
    held, base = narrow(encoding, codes, BITS, step)
    if held is encoding:  # no code needs more bits
        return None
    return Layers(step, base, of_stored([signed(codes, grid, encoding.mask), base], step, encoding))


def _of_prefix(grid: Quantized) -> NDArray[np.int32]:
    """The steps of a grid that was trained so that its first bits make a good model: their place value."""
    short = ordered(prefix(grid, BITS))
    dropped = 0 if short is None else short.levels.dropped_bits - grid.levels.dropped_bits
    return np.full(grid.scale.shape, 1 << dropped, np.int32)


def can_be_layered(encoding: Encoding) -> bool:
    """Whether codes are those of a grid of integers of more bits than the base layer has."""
    grid = ordered(encoding)
    return grid is not None and grid.bits > BITS


def of_stored(
    arrays: Sequence[NDArray[np.int32]], step: NDArray[np.int32], encoding: Encoding
) -> tuple[NDArray[np.int32], ...]:
    """Arrays, and the step of each element behind them, of the values that are stored: 1-D under a mask, else as given.

    Args:
        arrays: codes or base layer, of the parameter's shape.
        step: one for each block.
        encoding: how the whole codes are held.
    """
    grid, mask, shape = _grid(encoding), encoding.mask, arrays[0].shape
    wide = np.broadcast_to(spread(step, grid.block, shape), shape)
    return tuple(part if mask is None else part[mask] for part in (*arrays, wide))


def joined(parts: Sequence[tuple[Array, ...]]) -> tuple[Array, ...]:
    """The arrays of several parameters one after the other, 1-D; those of one as they are.

    Steps of one parameter are a view in which those of a block repeat, which the coder makes use of.
    """
    if len(parts) == 1:
        return parts[0]
    return tuple(np.concatenate([array.reshape(-1) for array in arrays]) for arrays in zip(*parts, strict=True))


def whole(codes: NDArray[np.int32], encoding: Encoding, shape: tuple[int, ...]) -> NDArray[np.int32]:
    """The codes, with their zero points, of all values, from those that are stored without.

    Args:
        codes: less their zero points, 1-D.
        encoding: how they are held.
        shape: of the parameter.
    """
    grid, mask = _grid(encoding), encoding.mask
    full = codes.reshape(shape) if mask is None else placed(codes, mask)
    if grid.zero_point is None:
        return full
    full = full + spread(grid.zero_point, grid.block, shape)
    return full if mask is None else np.where(mask, full, np.int32(0))


def encoding_of_base(encoding: Encoding, step: NDArray[np.int32]) -> Encoding:
    """The encoding of which the base layer holds the codes.

    Raises:
        EncodingError: it is not such a layer.
    """
    grid = _grid(encoding)
    if step.shape != grid.scale.shape or (step < 1).any():
        raise EncodingError("a base layer needs a step of at least 1 for each block")
    if not grid.levels.is_integer:
        if not np.array_equal(step, _of_prefix(grid)):
            raise EncodingError("the base layer of first bits counts in their place value")
        return prefix(encoding, BITS)
    return narrowed(encoding, BITS, step)


def _grid(encoding: Encoding) -> Quantized:
    grid = ordered(encoding)
    if grid is None:
        raise EncodingError(f"{encoding.describe()} has no codes that could be in layers")
    return grid
