"""Interim."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bitwidth.encodings.blocks import block_reduce, spread
from bitwidth.encodings.encoding import Encoding
from bitwidth.encodings.levels import IntegerLevels
from bitwidth.encodings.masked import rebased
from bitwidth.encodings.prefix import ordered
from bitwidth.encodings.quantized import Quantized
from bitwidth.typing import Array


def steps(
    codes: NDArray[np.int32], grid: Quantized, bits: int, mask: NDArray[np.bool_] | None = None
) -> NDArray[np.int32]:
    top = (1 << bits - 1) - 1
    most = block_reduce(np.abs(codes).astype(np.float32), grid.block, np.maximum)
    return np.maximum(1, np.ceil(most / top)).astype(np.int32).reshape(grid.scale.shape)


def narrowed_grid(encoding: Encoding, bits: int, step: NDArray[np.int32]) -> Encoding:
    grid = ordered(encoding)
    assert grid is not None
    top = (1 << bits - 1) - 1
    return rebased(
        encoding, Quantized(IntegerLevels(-top, top), grid.scale * step.astype(np.float32), grid.block, bias=grid.bias)
    )


def narrow(
    encoding: Encoding, codes: Array, bits: int, step: NDArray[np.int32] | None = None
) -> tuple[Encoding, Array]:
    grid = ordered(encoding)
    if grid is None or grid.bits <= bits or not grid.levels.is_integer:
        return encoding, codes
    c = codes
    if grid.zero_point is not None:
        c = c - spread(grid.zero_point, grid.block, codes.shape)
        if encoding.mask is not None:
            c = np.where(encoding.mask, c, 0)
    s = steps(c, grid, bits) if step is None else step
    top = (1 << bits - 1) - 1
    wide = spread(s, grid.block, codes.shape)
    t = np.clip(np.sign(c) * ((np.abs(c) + wide // 2) // wide), -top, top).astype(np.int32)
    return rebased(
        encoding, Quantized(IntegerLevels(-top, top), grid.scale * s.astype(np.float32), grid.block, bias=grid.bias)
    ), t
