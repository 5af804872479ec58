"""Narrowing: from the codes of a grid of integers to those of a true grid of fewer bits.

A block of codes c, less their zero points, is divided by a step s, an integer: `t = clip(round(c / s), -top, top)` with
halves away from zero, and top the greatest integer of the narrower symmetric grid. `t` on a grid of `scale * s` is what
quantizing to so few bits at once would make, but for the steps in between; `c - s * t` is what is left to hold of c.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitwidth.encodings.blocks import block_reduce, grid_shape, spread
from bitwidth.encodings.encoding import Encoding
from bitwidth.encodings.evening import block_columns, divided
from bitwidth.encodings.leading import PrefixLevels
from bitwidth.encodings.levels import MAX_BITS, IntegerLevels, uniform_levels
from bitwidth.encodings.masked import rebased
from bitwidth.encodings.prefix import ordered, prefix
from bitwidth.encodings.quantized import Quantized
from bitwidth.errors import EncodingError
from bitwidth.typing import Array, is_integer

Ints = NDArray[np.int32]

# Steps are tried from the one that clips nothing down to this share of it, and so many of them.
_TRIED = {2: (0.15, 24), 3: (0.25, 20), 4: (0.3, 17), 5: (0.5, 12), 6: (0.7, 8), 7: (0.8, 6)}
_LOOKED_AT = 1 << 11  # codes of a block by which its step is chosen, at most
_FEW_BLOCKS = 1 << 17  # codes of the whole tensor, where it has few blocks
_PIECE = 1 << 18  # codes that are worked on at a time
_BINS = 256  # magnitudes of a block that are told apart


def steps(codes: Ints, grid: Quantized, bits: int, mask: NDArray[np.bool_] | None = None) -> Ints:
    """The step of each block that narrows its codes to `bits` bits with the least squared error.

    Steps that clip are tried too, as `Quantize` searches its scales; from 8 bits on nothing is clipped, as there. Of a
    large block the error is that of an even selection of its codes, and of its greatest one.

    Args:
        codes: int32 of the tensor's shape, of `grid`; those that the mask drops do not matter.
        grid: integers, bounded or not, with or without zero points and biases.
        bits: 2 to 16.
        mask: True where a value is kept; None for everywhere.

    Returns:
        int32 of the scale's shape, at least 1. No step takes a value of the narrower grid out of the range of float32.

    Raises:
        EncodingError: bits are out of range, or codes do not fit the grid.

    Example:
        >>> grid = Quantized(IntegerLevels.symmetric(8), np.array([[0.5], [0.5]], np.float32), (1, 4))
        >>> steps(np.array([[70, 50, -30, 10], [7, -4, 2, 0]]), grid, 4)
        array([[10],
               [ 1]], dtype=int32)
    """
    _check(bits)
    grid.check(codes.shape)
    return _steps(signed(codes, grid, mask), grid, bits)


def narrow(encoding: Encoding, codes: Ints, bits: int, step: Ints | None = None) -> tuple[Encoding, Ints]:
    """The true grid of `bits` bits that is nearest to wider codes, and its codes.

    Scales are `scale * step`, in float32; biases and masks stay, and there is no zero point any more. Of a prefix (see
    `PrefixLevels`) the first bits are read, as `prefix` does. Tables, floats, escapes and grids of no more than `bits`
    bits (integers without bounds whose codes need no more) are returned as they are given.

    Args:
        encoding: any encoding.
        codes: int32 of the tensor's shape, of `encoding`.
        bits: 2 to 16.
        step: int32 of the scale's shape, at least 1; None for those of `steps`.

    Returns:
        The encoding, and codes of the same shape: 0 where a mask drops the value.

    Raises:
        EncodingError: bits or steps are out of range, or codes do not fit the encoding.

    Example:
        >>> grid = Quantized(IntegerLevels.symmetric(8), np.array([[0.5]], np.float32), (1, 4))
        >>> four, codes = narrow(grid, np.array([[70, 50, -30, 14]], np.int32), 4)
        >>> codes, four.decode(codes), four.bits
        (array([[ 7,  5, -3,  1]], dtype=int32), array([[ 35.,  25., -15.,   5.]], dtype=float32), 4)
    """
    _check(bits)
    grid = ordered(encoding)
    if grid is None or grid.bits <= bits:
        return encoding, codes
    encoding.check(codes.shape)
    if isinstance(grid.levels, PrefixLevels):
        return _first_bits(encoding, grid.levels, codes, bits)
    held, top = signed(codes, grid, encoding.mask), uniform_levels(bits).bounds[1]
    if np.isinf(grid.bits) and -top <= held.min(initial=0) and held.max(initial=0) <= top:
        return encoding, codes
    chosen = _steps(held, grid, bits) if step is None else _checked(step, grid)
    return narrowed(encoding, bits, chosen), divided(held, chosen, grid.block, top)


def _check(bits: int) -> None:
    if not is_integer(bits) or not 2 <= bits <= MAX_BITS:
        raise EncodingError(f"codes are narrowed to 2 to {MAX_BITS} bits, got {bits!r}")


def _checked(step: Any, grid: Quantized) -> Ints:
    found = np.asarray(step)
    if found.dtype.kind not in "iu" or found.shape != grid.scale.shape:
        raise EncodingError(
            f"steps are integers of the scale's shape {grid.scale.shape}, got {found.dtype} of {found.shape}"
        )
    if found.min(initial=1) < 1 or found.max(initial=1) > 1 << 22:
        raise EncodingError(f"steps are 1 to {1 << 22}, got {found.min()} to {found.max()}")
    return found.astype(np.int32)


def narrowed(encoding: Encoding, bits: int, step: Ints) -> Encoding:
    """The encoding whose grid of `bits` bits has the scales `scale * step`, and no zero point.

    Args:
        encoding: with a grid of integers.
        bits: 2 to 16.
        step: int32 of the scale's shape, at least 1.

    Example:
        >>> grid = Quantized(IntegerLevels.symmetric(8), np.array([[0.5]], np.float32), (1, 4))
        >>> narrowed(grid, 4, np.array([[10]], np.int32)).scale
        array([[5.]], dtype=float32)
    """
    grid = ordered(encoding)
    assert grid is not None
    with np.errstate(over="ignore"):
        scale = grid.scale * step.astype(np.float32)
    return rebased(encoding, Quantized(IntegerLevels.symmetric(bits), scale, grid.block, bias=grid.bias))


def signed(codes: Ints, grid: Quantized, mask: NDArray[np.bool_] | None) -> Ints:
    """The codes less their zero points, 0 where the mask drops them.

    Example:
        >>> grid = Quantized(IntegerLevels(-8, 7), np.ones((1, 1), np.float32), (1, 4), np.array([[-2]]))
        >>> signed(np.array([[-2, 5]], np.int32), grid, None)
        array([[0, 7]], dtype=int32)
    """
    if grid.zero_point is not None:
        codes = codes - spread(grid.zero_point, grid.block, codes.shape)
    found: Ints = codes if mask is None else np.where(mask, codes, np.int32(0))
    return found.astype(np.int32, copy=False)


def _first_bits(encoding: Encoding, levels: PrefixLevels, codes: Ints, bits: int) -> tuple[Encoding, Ints]:
    short = prefix(encoding, bits)
    grid = ordered(short)
    assert grid is not None
    return short, np.sign(codes) * (np.abs(codes) >> grid.levels.dropped_bits - levels.dropped_bits)


def _steps(signed: Ints, grid: Quantized, bits: int) -> Ints:
    """The steps of codes that have no zero points any more."""
    shape, block = signed.shape, grid.block or signed.shape
    counts = grid_shape(shape, block)
    top = uniform_levels(bits).bounds[1]
    greatest: Array = np.zeros(counts, np.int64)
    if signed.size:
        greatest = np.maximum(-block_reduce(signed, block, np.minimum), block_reduce(signed, block, np.maximum))
    greatest = greatest.reshape(-1)
    with np.errstate(divide="ignore", over="ignore"):
        room = np.floor(np.float64(np.finfo(np.float32).max) / (grid.scale.astype(np.float64).reshape(-1) * (top + 1)))
    most = np.clip(np.minimum(-(-greatest // top), room), 1, None).astype(np.int32)
    if bits in _TRIED and signed.size and most.max(initial=1) > 1:
        most = _searched(signed, block, counts, greatest, most, bits)
    found: Ints = most.reshape(grid.scale.shape)
    return found


def _searched(
    signed: Ints, block: Sequence[int], counts: tuple[int, ...], greatest: NDArray[np.int64], most: Ints, bits: int
) -> Ints:
    """The step of least error of each block, (blocks,), among `most` and less."""
    columns, share = _selection(signed, block, counts)
    found = most.copy()
    lowest, count = _TRIED[bits]
    span = max(1, _PIECE // max(_BINS, len(columns)))
    for start in range(0, len(found), span):
        part = slice(start, start + span)
        rows, great = np.ascontiguousarray(columns[:, part].T), greatest[part]
        if great.max() < _BINS:
            found[part] = _exact(rows, share, great, most[part], bits)
            continue
        search = _Search(rows, share, great, bits)
        for ratio in np.linspace(1.0, lowest, count):
            search.offer(np.rint(most[part] * ratio))
        width, centre = np.maximum(most[part] * (1 - lowest) / (3 * count - 3), 1), search.best
        for times in (-2, -1, 1, 2):
            search.offer(np.minimum(np.rint(centre + times * width), most[part]))
        found[part] = search.best
    return found


def _exact(rows: Ints, share: float, greatest: NDArray[np.int64], most: Ints, bits: int) -> Ints:
    """The step of least error of each block of small codes, all steps tried; of equals the greatest.

    Squared errors are a table by step and magnitude, and all sums are of integers below 2**53: the same everywhere.
    """
    _, weights = _histogram(np.abs(rows), greatest)
    tried = np.arange(int(most.max()), 0, -1)
    sizes = np.arange(weights.shape[1])
    levels = np.minimum((sizes + tried[:, None] // 2) // tried[:, None], uniform_levels(bits).bounds[1])
    table = np.square(levels * tried[:, None] - sizes).astype(np.float64)
    errors = weights.astype(np.float64) @ table.T
    if share > 1:  # the greatest may not be among those that are looked at
        errors = errors * share + table.T[greatest]
    lowest = most[:, None] * _TRIED[bits][0]
    errors[(tried > most[:, None]) | (tried < np.floor(lowest))] = np.inf
    chosen: Ints = tried[errors.argmin(axis=1)].astype(np.int32)
    return chosen


class _Search:
    """Offers of steps for blocks; each takes the step of least squared error.

    Attributes:
        best: of each block, float32 (blocks,).
    """

    def __init__(self, rows: Ints, share: float, greatest: NDArray[np.int64], bits: int) -> None:
        """Of blocks: an even selection of codes, (blocks, codes), which stand for `share` codes each."""
        few = rows.shape[1] <= _BINS  # these are looked at one by one
        size, weights = (np.abs(rows), np.ones(rows.shape)) if few else _histogram(np.abs(rows), greatest)
        self._size, self._weights = size.astype(np.float32), weights.astype(np.float32)
        self._share = share
        self._greatest = greatest[:, None].astype(np.float32)
        self._top = np.float32(uniform_levels(bits).bounds[1])
        self._error, self.best = np.full(len(rows), np.inf), np.ones(len(rows), np.float32)

    def offer(self, step: Array) -> None:
        """Take each block's step, (blocks,), where that errs less than the best so far."""
        step = np.maximum(step, 1).astype(np.float32)
        off = self._off(self._size, step)
        error = np.einsum("ij,ij,ij->i", off, off, self._weights).astype(np.float64)
        if self._share > 1:  # the greatest may not be among those that are looked at
            error = error * self._share + np.square(self._off(self._greatest, step))[:, 0]
        better = error < self._error
        self._error = np.where(better, error, self._error)
        self.best = np.where(better, step, self.best)

    def _off(self, size: NDArray[np.float32], step: NDArray[np.float32]) -> NDArray[np.float32]:
        """What each step makes of magnitudes, (blocks, magnitudes), less these."""
        column = step[:, None]
        level = size + np.floor(column / 2)
        level /= column
        np.floor(level, out=level)
        np.minimum(level, self._top, out=level)
        level *= column
        level -= size
        return level


def _histogram(size: Ints, greatest: NDArray[np.int64]) -> tuple[Ints, NDArray[np.int64]]:
    """Magnitudes in each block, and how many codes have each: both of shape (blocks, magnitudes).

    There is a bin for each magnitude up to 255, else 256 bins for those of a block.
    """
    bins = min(int(greatest.max(initial=0)) + 1, _BINS)
    drop = np.array([max(0, int(most).bit_length() - 8) for most in greatest], np.int32)[:, None]
    if drop.any():
        size = size >> drop
    size = size + np.arange(len(size), dtype=np.int32)[:, None] * bins
    found = np.bincount(size.reshape(-1), minlength=len(size) * bins).reshape(-1, bins)
    middles = (np.arange(bins, dtype=np.int32) << drop) + ((1 << drop) - 1 >> 1)
    return middles, found


def _selection(signed: Ints, block: Sequence[int], counts: tuple[int, ...]) -> tuple[Ints, float]:
    """An even selection of the codes of each block, (codes, blocks), and how many codes each of them stands for."""
    sizes = [min(size, length) for size, length in zip(block, signed.shape, strict=True)]
    left = max(_LOOKED_AT, _FEW_BLOCKS // max(1, prod(counts)))
    taken = [1] * len(sizes)
    for rank, axis in enumerate(sorted(range(len(sizes)), key=lambda axis: sizes[axis])):
        taken[axis] = min(sizes[axis], max(1, int(left ** (1 / (len(sizes) - rank)) + 1e-9)))
        left = max(1, left // taken[axis])
    return block_columns(signed, block, counts, taken), prod(sizes) / max(1, prod(taken))
