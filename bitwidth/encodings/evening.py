"""Division of the codes of blocks by a step, with the errors of a block evened out.

Inputs of a layer have means other than zero more often than not (those behind a ReLU do), so the sum of the errors of
an output's weights counts besides the sum of their squares. Of each block the sum of squares, plus `MEAN` times the
square of the sum, is made as small as rounding codes to their other side can, those first that cost least. Zero stays
zero.

Work is done on pieces that fit into a cache, of a view whose columns are blocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitwidth.encodings.blocks import grid_shape
from bitwidth.typing import Array

Ints = NDArray[np.int32]

MEAN = 0.25  # squared mean of an input, as a share of its variance
_LONGEST = 1 << 16  # codes of a block whose errors are evened out
_PIECE = 1 << 15  # codes that are worked on at a time
_KEPT = 1 << 20  # codes whose errors are kept at a time
_NARROW = 256  # columns below which what is told of each column is repeated over a piece
_SURPLUS = 4  # times as many codes are looked at as will be rounded to their other side
_SCATTER = 0x9E3779B1  # odd: its multiples modulo a power of two are each number once, in no order


def divided(signed: Ints, step: Ints, block: Sequence[int], top: int) -> Ints:
    """Codes of blocks over their steps, rounded and clipped, with the errors of each block evened out.

    Args:
        signed: codes less their zero points.
        step: one integer for each block, at least 1.
        block: elements along each axis that share a step; none for all of them.
        top: the greatest magnitude.

    Example:
    >>> divided(np.array([[24], [24], [24], [24], [24]], np.int32), np.array([[10]], np.int32), (5, 1), 7).T
        array([[3, 3, 2, 2, 2]], dtype=int32)
    """
    shape, block = signed.shape, block or signed.shape
    if not signed.size:
        return np.zeros(shape, np.int32)
    rows = _length_of_columns(shape, block)
    if rows:
        return _columns(signed.reshape(rows, -1), step.reshape(-1), top).reshape(shape)
    counts, taken = grid_shape(shape, block), [min(size, length) for size, length in zip(block, shape, strict=True)]
    found = _columns(block_columns(signed, block, counts, taken), step.reshape(-1), top)
    return _from_columns(found, shape, counts, taken)


def block_columns(array: Ints, block: Sequence[int], counts: Sequence[int], taken: Sequence[int]) -> Ints:
    """So many elements of each block along each axis, evenly apart: (elements, blocks).

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
    order = [*range(1, len(split), 2), *range(0, len(split), 2)]
    return array.reshape(split).transpose(order).reshape(prod(taken), prod(counts))


def _from_columns(columns: Ints, shape: tuple[int, ...], counts: Sequence[int], taken: Sequence[int]) -> Ints:
    """What `block_columns` made of an array of `shape`, put back; `taken` are all elements of a block."""
    order = [place for axis in range(len(counts)) for place in (len(counts) + axis, axis)]
    whole = columns.reshape(*taken, *counts).transpose(order)
    whole = whole.reshape([count * kept for count, kept in zip(counts, taken, strict=True)])
    return np.ascontiguousarray(whole[tuple(slice(length) for length in shape)])


def _length_of_columns(shape: Sequence[int], block: Sequence[int]) -> int:
    """How many rows a view has whose columns are the blocks; 0 where no view has."""
    whole = [size >= length for size, length in zip(block, shape, strict=True)]
    single = [min(size, length) == 1 for size, length in zip(block, shape, strict=True)]
    lead = next((axis for axis, held in enumerate(whole) if not held), len(shape))
    return prod(shape[:lead]) if all(single[lead:]) else 0


def _columns(codes: Ints, step: Ints, top: int) -> Ints:
    """The same of columns, so many at a time that what is kept of them stays small."""
    greatest = max(int(codes.max()), -int(codes.min()))
    evened = 1 < len(codes) <= _LONGEST and bool((step > 1).any())
    exact = greatest * (len(codes) if evened else 1) < 1 << 23 and greatest < 1 << 18
    kinds = (np.float32, np.int16 if greatest < 1 << 14 else np.int32) if exact else (np.float64, np.int64)
    short = np.empty(codes.shape, np.int32)
    span = max(_NARROW, _KEPT // len(codes))
    for start in range(0, codes.shape[1], span):
        part = slice(start, start + span)
        work = _Work(codes[:, part], step[part], top, short[:, part], kinds, evened)
        if evened:
            for place, columns in _flips(work):
                work.short[place, columns] -= np.where(work.total[columns] < 0, np.int32(-1), np.int32(1))
    return short


class _Work:
    """Codes of columns that were divided.

    Attributes:
        step: of each column, int32.
        top: the greatest magnitude.
        short: the codes over their steps, int32; of the shape of the codes.
        off: `short * step` less the codes, integers; without rows where it is not asked for.
        total: the sum of `off` over each column, int64.
    """

    def __init__(self, codes: Ints, step: Ints, top: int, short: Ints, kinds: tuple[Any, Any], evened: bool) -> None:
        """Divide into `short`; kinds are of floats which are exact on codes and their sums, and of `off`."""
        (rows, columns), dtype = codes.shape, np.dtype(kinds[0])
        self.step, self.top, self.short = step, top, short
        self.off: Array = np.empty(codes.shape if evened else (0, columns), kinds[1])
        total = np.zeros(columns, dtype)
        span = min(rows, max(1, _PIECE // columns))
        # A little more than a reciprocal: halves go away from zero, and nothing else does that would not.
        share = 2.0**-21 if dtype == np.float32 else 2.0**-50
        factor = _repeated(((1 + share) / step.astype(np.float64)).astype(dtype), span)
        wide = _repeated(step.astype(dtype), span)
        held, level = np.empty((span, columns), dtype), np.empty((span, columns), dtype)
        for start in range(0, rows, span):
            part = slice(start, min(start + span, rows))
            count = part.stop - start
            value, found = held[:count], level[:count]
            np.copyto(value, codes[part])
            np.multiply(value, factor[:count], out=found)
            np.rint(found, out=found)
            np.clip(found, -top, top, out=found)
            np.copyto(self.short[part], found, casting="unsafe")
            if evened:
                found *= wide[:count]
                found -= value
                np.copyto(self.off[part], found, casting="unsafe")
                total += found.sum(axis=0)
        self.total = total.astype(np.int64)


def _repeated(row: Array, count: int) -> Array:
    """A row so often that operations on pieces of rows are fast."""
    whole: Array = np.tile(row, (count, 1)) if len(row) < _NARROW else np.broadcast_to(row, (count, len(row)))
    return whole


def _flips(work: _Work) -> list[tuple[Array, Array]]:
    """Rows and columns of the codes to round to their other side; at most two lists of them.

    The k-th of a column, from 0 on, lowers the measure where `off + MEAN * (|total| - k * step)` is more than
    `step * (1 + MEAN) / 2`. As no error that can be made up for exceeds half a step, that bounds how many there are; a
    few times as many of the greatest errors are looked at, and all where that was too few.
    """
    step, size = work.step.astype(np.int64), np.abs(work.total)
    most = -(-(2 * size - step) // (2 * step))
    rows = len(work.off)
    least = step // 2 - step * (_SURPLUS * most + 16) // rows
    least[most <= 0] = step.max() + 1
    found, few = _greatest(work, np.arange(len(step)), np.maximum(least, 1), most)
    again = np.flatnonzero(few & (least > 1))
    if not again.size:
        return [found]
    kept = ~np.isin(found[1], again)
    more, _ = _greatest(work, again, np.ones(len(again), np.int64), most[again])
    return [(found[0][kept], found[1][kept]), more]


def _greatest(
    work: _Work, columns: NDArray[np.int64], least: NDArray[np.int64], most: NDArray[np.int64]
) -> tuple[tuple[Array, Array], NDArray[np.bool_]]:
    """Flips of some columns among errors of at least so much, and which columns have fewer of these than wanted."""
    side = np.where(work.total[columns] < 0, -1, 1)
    off = work.off if len(columns) == work.off.shape[1] else work.off[:, columns]
    rows, places = _at_least(off, side, least)
    inside = work.short[rows, columns[places]] * side[places] != -work.top
    rows, places = rows[inside], places[inside]
    error = off[rows, places].astype(np.int64) * side[places]
    bits = max(1, (len(work.off) - 1).bit_length())
    width = max(1, int(error.max(initial=0)).bit_length())
    scattered = (rows * _SCATTER) & ((1 << bits) - 1)
    key = np.sort((places << bits + width) | (((1 << width) - 1 - error) << bits) | scattered)
    scattered, error = key & ((1 << bits) - 1), (1 << width) - 1 - (key >> bits & ((1 << width) - 1))
    places = key >> bits + width
    rows = (scattered * pow(_SCATTER, -1, 1 << bits)) & ((1 << bits) - 1)
    counts = np.bincount(places, minlength=len(columns))
    rank = np.arange(len(key)) - (np.cumsum(counts) - counts)[places]
    step = work.step[columns][places].astype(np.int64)
    left = np.abs(work.total[columns])[places] - rank * step
    flips = error + MEAN * left > step * ((1 + MEAN) / 2)
    return (rows[flips], columns[places[flips]]), counts < most


def _at_least(off: Array, side: Array, least: Array) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows and columns where errors on that side are at least so great."""
    rows, columns = off.shape
    span = min(rows, max(1, 2 * _PIECE // columns))
    limit = np.minimum(least, np.iinfo(off.dtype).max).astype(off.dtype)
    sides, limits = _repeated(side.astype(off.dtype), span), _repeated(limit, span)
    held, great, found = np.empty((span, columns), off.dtype), np.empty((span, columns), np.bool_), []
    for start in range(0, rows, span):
        count = min(span, rows - start)
        np.multiply(off[start : start + count], sides[:count], out=held[:count])
        np.greater_equal(held[:count], limits[:count], out=great[:count])
        found.append(np.flatnonzero(great[:count]) + start * columns)
    places = np.concatenate(found)
    return places // columns, places % columns
