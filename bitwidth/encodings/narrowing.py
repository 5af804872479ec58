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
_LOOKED_AT = 1 << 13  # codes of a block by which its step is chosen, at most
_FEW_BLOCKS = 1 << 17  # codes of the whole tensor, where it has few blocks
_MEAN = 0.5  # squared mean of an input, as a share of its variance
_LONGEST = 1 << 16  # codes of a block whose errors are evened out
_PIECE = 1 << 18  # codes that are worked on at a time


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
    return _steps(_signed(codes, grid, mask), grid, bits)


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
    signed, top = _signed(codes, grid, encoding.mask), uniform_levels(bits).bounds[1]
    if np.isinf(grid.bits) and -top <= signed.min(initial=0) and signed.max(initial=0) <= top:
        return encoding, codes
    chosen = _steps(signed, grid, bits) if step is None else _checked(step, grid)
    with np.errstate(over="ignore"):
        scale = grid.scale * chosen.astype(np.float32)
    base = Quantized(IntegerLevels.symmetric(bits), scale, grid.block, bias=grid.bias)
    short = divided(signed, spread(chosen, grid.block, codes.shape), bits)
    return rebased(encoding, base), _balanced(short, signed, chosen, grid.block, top)


def divided(signed: Ints, step: Ints, bits: int) -> Ints:
    """`clip(sign(c) * ((|c| + s // 2) // s), -top, top)`, top the greatest integer of a symmetric grid.

    Args:
        signed: the codes c less their zero points, int32.
        step: s, int32 of at least 1; broadcasts against `signed`.
        bits: 2 to 16.

    Example:
        >>> divided(np.array([-25, -4, 5, 14, 15, 99], np.int32), np.array([10], np.int32), 4)
        array([-3,  0,  1,  1,  2,  7], dtype=int32)
    """
    size = np.abs(signed)
    size += step // 2
    size //= step
    np.minimum(size, np.int32(uniform_levels(bits).bounds[1]), out=size)
    np.negative(size, out=size, where=signed < 0)
    return size


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


def _signed(codes: Ints, grid: Quantized, mask: NDArray[np.bool_] | None) -> Ints:
    """The codes less their zero points, 0 where the mask drops them."""
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
    rows, share = _selection(signed, block, counts)
    found = most.copy()
    span = max(1, _PIECE // max(1, rows.shape[1]))
    for start in range(0, len(rows), span):
        part = slice(start, start + span)
        search = _Search(rows[part], share, greatest[part], bits)
        widest = int(most[part].max())
        lowest, count = _TRIED[bits]
        if widest <= count:  # every integer that is worth trying
            for step in range(widest, max(0, int(widest * lowest) - 1), -1):
                search.offer(np.minimum(most[part], step))
        else:
            for ratio in np.linspace(1.0, lowest, count):
                search.offer(np.rint(most[part] * ratio))
            width, centre = np.maximum(most[part] * (1 - lowest) / (3 * count - 3), 1), search.best
            for times in (-2, -1, 1, 2):
                search.offer(np.minimum(np.rint(centre + times * width), most[part]))
        found[part] = search.best
    return found


class _Search:
    """Offers of steps for blocks; each takes the step of least squared error.

    Attributes:
        best: of each block, float32 (blocks,).
    """

    def __init__(self, rows: Ints, share: float, greatest: NDArray[np.int64], bits: int) -> None:
        """Of blocks: an even selection of codes, (blocks, codes), which stand for `share` codes each."""
        size, weights = _histogram(np.abs(rows), greatest)
        self._size, self._weights, self._share = size, weights, share
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


def _histogram(size: Ints, greatest: NDArray[np.int64]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Magnitudes in each block, and how many codes have each: both float32 of shape (blocks, magnitudes).

    Of few codes the magnitudes are their own, one each; of many those of a histogram, with a bin for each magnitude up
    to 255, or 256 bins for those of a block.
    """
    bins = min(int(greatest.max(initial=0)) + 1, 256)
    if size.shape[1] <= bins:
        return size.astype(np.float32), np.ones(size.shape, np.float32)
    drop = np.array([max(0, int(most).bit_length() - 8) for most in greatest], np.int32)[:, None]
    if drop.any():
        size = size >> drop
    size = size + np.arange(len(size), dtype=np.int32)[:, None] * bins
    found = np.bincount(size.reshape(-1), minlength=len(size) * bins).reshape(-1, bins).astype(np.float32)
    middles = (np.arange(bins, dtype=np.int32) << drop) + ((1 << drop) - 1 >> 1)
    return middles.astype(np.float32), found


def _balanced(short: Ints, signed: Ints, step: Ints, block: Sequence[int], top: int) -> Ints:
    """`short`, with the codes nearest to a tie rounded to the other side where that evens out the errors of a block.

    Inputs of a layer have means other than zero more often than not (those behind a ReLU do), so the sum of the errors
    of an output's weights counts besides the sum of their squares. Of each block the sum of squares, plus `_MEAN` times
    the square of the sum, is made as small as flips can, those first that cost least. What is zero stays zero.
    """
    shape, block = signed.shape, block or signed.shape
    counts, sizes = grid_shape(shape, block), [min(size, length) for size, length in zip(block, shape, strict=True)]
    if not 1 < prod(sizes) <= _LONGEST or not signed.size or step.max() == 1:
        return short
    rows, codes = (_rows(array, block, counts, sizes) for array in (signed, short))
    codes = codes.copy()
    widths, span = step.reshape(-1, 1), max(1, _PIECE // rows.shape[1])
    order = (np.arange(rows.shape[1], dtype=np.int64) * 0x9E3779B1) & 0xFFFFFFFF  # each place once, in no order
    for start in range(0, len(rows), span):
        part = slice(start, start + span)
        _flip(rows[part], codes[part], widths[part], order, top)
    return _from_rows(codes, shape, counts, sizes)


def _flip(rows: Ints, codes: Ints, step: Ints, order: NDArray[np.int64], top: int) -> None:
    """Flip codes of blocks, (blocks, codes), in place."""
    off = codes * step - rows
    total = off.sum(axis=1, dtype=np.int64)[:, None]
    side = np.where(total < 0, -1, 1).astype(np.int32)
    off *= side
    off[(off <= 0) | (codes * side == -top)] = 0
    most = min(int((np.abs(total) / step).max()) + 2, off.shape[1])
    key = (off.astype(np.int64) << 32) + order
    places = np.argpartition(-key, most - 1, axis=1)[:, :most] if most < off.shape[1] else np.argsort(-key, axis=1)
    places = np.take_along_axis(places, np.argsort(-np.take_along_axis(key, places, 1), axis=1), 1)
    found = np.take_along_axis(off, places, 1)
    left = np.abs(total) - np.arange(most) * step
    flips = (found > 0) & (found + _MEAN * left > step * ((1 + _MEAN) / 2))
    flips = np.logical_and.accumulate(flips, axis=1)
    held = np.take_along_axis(codes, places, 1)
    np.put_along_axis(codes, places, held - np.where(flips, side, 0), 1)


def _selection(signed: Ints, block: Sequence[int], counts: tuple[int, ...]) -> tuple[Ints, float]:
    """An even selection of the codes of each block, (blocks, codes), and how many codes each of them stands for."""
    sizes = [min(size, length) for size, length in zip(block, signed.shape, strict=True)]
    left = max(_LOOKED_AT, _FEW_BLOCKS // max(1, prod(counts)))
    taken = [1] * len(sizes)
    for rank, axis in enumerate(sorted(range(len(sizes)), key=lambda axis: sizes[axis])):
        taken[axis] = min(sizes[axis], max(1, int(left ** (1 / (len(sizes) - rank)) + 1e-9)))
        left = max(1, left // taken[axis])
    return _rows(signed, block, counts, taken), prod(sizes) / max(1, prod(taken))


def _rows(array: Ints, block: Sequence[int], counts: tuple[int, ...], taken: Sequence[int]) -> Ints:
    """So many elements of each block along each axis, evenly apart: (blocks, elements).

    Where the last block of an axis is shorter, zeros stand for what it does not have.
    """
    for axis, (count, kept) in enumerate(zip(counts, taken, strict=True)):
        length = array.shape[axis]
        size = min(block[axis], length)
        if kept == size and count * size == length:
            continue
        offsets = (np.arange(kept) * 2 + 1) * size // (2 * kept)
        places = (np.arange(count)[:, None] * size + offsets).reshape(-1)
        inside = places < length
        array = array.take(np.minimum(places, length - 1), axis=axis)
        if not inside.all():
            array = array * inside.reshape([-1 if a == axis else 1 for a in range(array.ndim)])
    split = [length for pair in zip(counts, taken, strict=True) for length in pair]
    order = [*range(0, len(split), 2), *range(1, len(split), 2)]
    return array.reshape(split).transpose(order).reshape(prod(counts), prod(taken))


def _from_rows(rows: Ints, shape: tuple[int, ...], counts: tuple[int, ...], taken: Sequence[int]) -> Ints:
    """What `_rows` made of an array of `shape`, put back; `taken` are all elements of a block."""
    order = [place for axis in range(len(counts)) for place in (axis, len(counts) + axis)]
    whole = rows.reshape(*counts, *taken).transpose(order)
    whole = whole.reshape([count * kept for count, kept in zip(counts, taken, strict=True)])
    return np.ascontiguousarray(whole[tuple(slice(length) for length in shape)])
