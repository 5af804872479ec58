"""A tensor in strips: some of its blocks at a time, one block per row, small enough to stay in the processor's cache.

Whatever is fitted per block (scales, zero points, biases) is fitted strip by strip, so a search costs a few strips of
memory and not several copies of the tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitwidth.encodings.blocks import grid_shape
from bitwidth.errors import EncodingError
from bitwidth.typing import Array

STRIP = 1 << 17  # elements
Piece = tuple[NDArray[np.float32], NDArray[np.float32] | None]


@dataclass(frozen=True, eq=False)
class Strip:
    """Some blocks of a tensor, one per row.

    Attributes:
        values: float32 of shape (blocks, elements of a block).
        weights: how much each value counts, bool or float32 of the same shape; None for one each.
        place: where the blocks are in the grid of blocks.
    """

    values: NDArray[np.float32]
    weights: Array | None
    place: tuple[slice, ...]

    def pieces(self) -> Iterator[Piece]:
        """Values and weights, both float32, of some columns at a time; what has no weight is zero."""
        rows, columns = self.values.shape
        step = max(1, STRIP // max(rows, 1)) if self.values.size > 2 * STRIP else max(columns, 1)
        for start in range(0, columns, step):
            values = self.values[:, start : start + step]
            if self.weights is None:
                yield values, None
                continue
            weights = self.weights[:, start : start + step].astype(np.float32, copy=False)
            yield np.where(weights > 0, values, np.float32(0)), weights

    def total(self, function: Callable[[NDArray[np.float32], NDArray[np.float32] | None], Any]) -> NDArray[np.float64]:
        """The sum over the pieces of `function`, which returns an array for a piece."""
        found = [function(*piece) for piece in self.pieces()]
        summed: NDArray[np.float64] = np.sum(found, axis=0, dtype=np.float64)
        return summed

    def range(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Least and greatest of zero and the values of each block: two arrays of shape (blocks,)."""
        zero = np.float32(0)
        ends = [(x.min(axis=1, initial=zero), x.max(axis=1, initial=zero)) for x, _ in self.pieces()]
        low, high = (np.array(end) for end in zip(*ends, strict=True))
        return low.min(axis=0), high.max(axis=0)

    def span(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Least and greatest value that counts in each block, both 0 where none does: arrays of shape (blocks,)."""
        low, high = [], []
        for x, weights in self.pieces():
            counts = np.True_ if weights is None else weights > 0
            low.append(x.min(axis=1, initial=np.inf, where=counts))
            high.append(x.max(axis=1, initial=-np.inf, where=counts))
        least, most = np.min(low, axis=0), np.max(high, axis=0)
        none = least > most
        return np.where(none, np.float32(0), least), np.where(none, np.float32(0), most)


def strips(
    values: NDArray[np.float32],
    block: Sequence[int],
    keep: NDArray[np.bool_] | None = None,
    weights: Array | None = None,
) -> Iterator[Strip]:
    """The tensor in strips.

    Args:
        values: the tensor.
        block: lengths of a block, one per axis.
        keep: True where a value counts; None for everywhere.
        weights: how much each value counts, not negative; None for one each.

    Example:
        >>> [strip.values.tolist() for strip in strips(np.array([[1, 2], [3, 4]], np.float32), (2, 1))]
        [[[1.0, 3.0], [2.0, 4.0]]]
    """
    block = tuple(min(size, max(length, 1)) for size, length in zip(block, values.shape, strict=True))
    grid = grid_shape(values.shape, block)
    if not values.size:
        return
    axis = int(np.argmax(grid)) if grid else 0
    count = grid[axis] if grid else 1
    step = max(1, STRIP * count // values.size, min(8, count // 4))
    ragged = any(length % size for length, size in zip(values.shape, block, strict=True))
    for start in range(0, count, step):
        own = slice(start, min(start + step, count))
        place = tuple(own if index == axis else slice(None) for index in range(len(grid)))
        part: tuple[slice, ...] = place
        if grid:
            cut = slice(start * block[axis], (start + step) * block[axis])
            part = tuple(cut if index == axis else slice(None) for index in range(len(grid)))
        counted = _counted(values[part].shape, part, keep, weights, ragged)
        rows = None if counted is None else _rows(counted, block)
        yield Strip(_rows(values[part], block), rows, place)


def _counted(shape: tuple[int, ...], part: tuple[slice, ...], keep: Any, weights: Any, ragged: bool) -> Any:
    """The weights of a part of the tensor: bool where there are none but a mask, or a block that is padded."""
    if weights is None:
        return keep[part] if keep is not None else np.ones(shape, np.bool_) if ragged else None
    own = weights[part].astype(np.float32, copy=False)
    return own if keep is None else np.where(keep[part], own, np.float32(0))


def _rows(array: Array, block: Sequence[int]) -> Array:
    counts = grid_shape(array.shape, block)
    pads = [(0, count * size - length) for count, size, length in zip(counts, block, array.shape, strict=True)]
    if any(pad for _, pad in pads):
        array = np.pad(array, pads)
    split = array.reshape([length for pair in zip(counts, block, strict=True) for length in pair])
    axes = 2 * len(counts)
    rows = split.transpose(*range(0, axes, 2), *range(1, axes, 2)).reshape(prod(counts), prod(block))
    return np.ascontiguousarray(rows)


def per_block(
    found: Iterator[tuple[Strip, tuple[Array, ...]]], grid: Sequence[int], dtypes: Sequence[Any]
) -> list[Array]:
    """Arrays over the whole grid of blocks, from those of each strip.

    Args:
        found: strips, each with arrays of shape (blocks of the strip,).
        grid: shape of the grid of blocks.
        dtypes: of the arrays.
    """
    arrays = [np.zeros(tuple(grid), dtype) for dtype in dtypes]
    for strip, own in found:
        for array, part in zip(arrays, own, strict=True):
            array[strip.place] = part.reshape(array[strip.place].shape)
    return arrays


def check_counted(shape: Sequence[int], keep: Any, weights: Any) -> None:
    """Raise EncodingError unless mask and weights are of the tensor's shape, and weights finite and not negative."""
    for name, array in (("keep", keep), ("weights", weights)):
        if array is not None and np.shape(array) != tuple(shape):
            raise EncodingError(f"{name}: expected the shape {tuple(shape)} of the values, got {np.shape(array)}")
    if weights is not None and not (np.isfinite(weights).all() and np.min(weights, initial=0) >= 0):
        raise EncodingError("weights must be finite and not negative")
