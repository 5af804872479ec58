"""The best grid so far of each block of a strip, and what it errs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitwidth.encodings.interface import Levels
from bitwidth.encodings.levels import IntegerLevels
from bitwidth.fitting.snap import snapper
from bitwidth.fitting.strips import Strip
from bitwidth.typing import Array

Row = NDArray[np.float32]


@dataclass
class Sums:
    """Weighted sums over each block, float64 of shape (blocks,).

    Attributes:
        error: of squared errors.
        level: of level * (value - bias).
        square: of level * level.
    """

    error: NDArray[np.float64]
    level: NDArray[np.float64]
    square: NDArray[np.float64]


class Search:
    """Offers of grids for the blocks of a strip; each block takes what lowers its squared error.

    Attributes:
        error: weighted squared error of each block.
        scale: float32, of each block.
        zero: int32 zero points, of each block.
        bias: float32, of each block.
        row: int32: which row of levels it is from, of each block.
    """

    def __init__(self, strip: Strip) -> None:
        self.strip, blocks = strip, len(strip.values)
        self.error = np.full(blocks, np.inf)
        self.scale, self.bias = np.zeros(blocks, np.float32), np.zeros(blocks, np.float32)
        self.zero, self.row = np.zeros(blocks, np.int32), np.zeros(blocks, np.int32)
        self._level, self._square = np.zeros(blocks), np.zeros(blocks)

    def offer(self, levels: Levels, scale: Row, zero: NDArray[np.int32] | None = None, bias: Row | None = None) -> None:
        """Take each block's new grid where that errs less than the best so far."""
        sums = measure(self.strip, levels, scale, zero, bias)
        better = sums.error < self.error
        self.error = np.where(better, sums.error, self.error)
        self.scale = np.where(better, scale, self.scale)
        self.zero = np.where(better, 0 if zero is None else zero, self.zero).astype(np.int32)
        self.bias = np.where(better, np.float32(0) if bias is None else bias, self.bias)
        self._level = np.where(better, sums.level, self._level)
        self._square = np.where(better, sums.square, self._square)

    def merge(self, other: Search, row: int) -> None:
        """Take each block's grid of another search, over the levels of `row`, where that errs less."""
        better = other.error < self.error
        self.error = np.where(better, other.error, self.error)
        self.scale = np.where(better, other.scale, self.scale)
        self.bias = np.where(better, other.bias, self.bias)
        self.row = np.where(better, np.int32(row), self.row)

    def least_squares(self) -> Row:
        """The scale of least error for the codes, zero points and biases of the best so far."""
        best = np.array(self.scale, np.float64)
        return np.divide(self._level, self._square, out=best, where=self._square > 0).astype(np.float32)


def measure(
    strip: Strip, levels: Levels, scale: Row, zero: NDArray[np.int32] | None = None, bias: Row | None = None
) -> Sums:
    """What a grid errs on each block, with the arithmetic of `Quantized`.

    Args:
        strip: the blocks.
        levels: what a code stands for.
        scale: shape (blocks,).
        zero: zero points, shape (blocks,); None for 0.
        bias: shape (blocks,); None for 0.
    """
    with np.errstate(divide="ignore", over="ignore"):
        inverse = np.float32(1) / scale
    inverse = np.where(np.isfinite(inverse), inverse, np.float32(0))[:, None]
    factor, snap = scale[:, None], snapper(levels)
    low, high = (None, None) if zero is None else ((bound - zero)[:, None] for bound in levels.bounds)
    if zero is not None:
        snap = snapper(IntegerLevels())
        low, high = np.asarray(low, np.float32), np.asarray(high, np.float32)

    def sums(x: NDArray[np.float32], weights: NDArray[np.float32] | None) -> list[Array]:
        target = x if bias is None else x - bias[:, None]
        level = snap(target * inverse)
        if low is not None and high is not None:
            np.minimum(np.maximum(level, low, out=level), high, out=level)
        held = level * factor
        if bias is not None:
            held += bias[:, None]
        held -= x
        if weights is None:
            return [_dot(held, held), _dot(level, target), _dot(level, level)]
        counted = level * weights
        error = _dot(np.square(held, out=held), weights)
        return [error, _dot(counted, target), _dot(counted, level)]

    error, level, square = strip.total(sums)
    return Sums(error, level, square)


def _dot(left: NDArray[np.float32], right: NDArray[np.float32]) -> NDArray[np.float32]:
    found: NDArray[np.float32] = np.einsum("ij,ij->i", left, right)
    return found
