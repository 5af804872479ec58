"""The level nearest to each of many values, fast: what a search over grids asks millions of times."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitwidth.encodings.interface import Levels
from bitwidth.encodings.levels import TableLevels

Snap = Callable[[NDArray[np.float32]], NDArray[np.float32]]
COMPARED = 64  # as many thresholds are compared with one by one, faster than a binary search
CELLS = 1 << 13


def snapper(levels: Levels) -> Snap:
    """A function that returns the levels nearest to scaled values: those of `levels.at(levels.nearest(x))`, to the bit.

    Args:
        levels: integers, leading bits of integers, or one table.

    Returns:
        A function of float32 values of any shape, which it may overwrite, to their levels in the same shape.

    Example:
        >>> snapper(TableLevels((-1.0, 0.5, 4.0)))(np.array([-0.2, 9.0], np.float32))
        array([0.5, 4. ], dtype=float32)
    """
    if levels.is_integer:
        return _integers(levels)
    if not levels.tables:
        return lambda x: levels.at(levels.nearest(x))
    (table,) = levels.tables
    thresholds = table.thresholds
    if thresholds.size <= COMPARED:
        return _compared(table)
    cell = _cell(thresholds)
    cells = cell(thresholds)
    if np.unique(cells).size < cells.size:  # two thresholds in a cell, which the table of cells could not tell apart
        array = table.array
        return lambda x: array.take(np.searchsorted(thresholds, x))
    below = np.searchsorted(cells, np.arange(CELLS)).astype(np.int32)
    within = np.full(CELLS, np.inf, np.float32)
    within[cells] = thresholds
    return _celled(table, cell, below, within)


def _integers(levels: Levels) -> Snap:
    low, high = (np.float32(bound) for bound in levels.bounds)

    def snap(x: NDArray[np.float32]) -> NDArray[np.float32]:
        np.rint(x, out=x)
        return np.clip(x, low, high, out=x)

    return snap


def _compared(levels: TableLevels) -> Snap:
    array, thresholds = levels.array, levels.thresholds

    def snap(x: NDArray[np.float32]) -> NDArray[np.float32]:
        position = np.zeros(x.shape, np.uint8)
        for threshold in thresholds:
            position += x > threshold
        found: NDArray[np.float32] = array.take(position)
        return found

    return snap


def _cell(thresholds: NDArray[np.float32]) -> Callable[[NDArray[np.float32]], NDArray[np.int32]]:
    """Which of `CELLS` cells a value lies in: rises with the value, whatever is rounded."""
    low, high = float(thresholds[0]), float(thresholds[-1])
    factor = np.float32(CELLS * 0.98 / (high - low))
    shift = np.float32(CELLS * 0.01 - low * float(factor))

    def cell(x: NDArray[np.float32]) -> NDArray[np.int32]:
        place = x * factor
        place += shift
        return np.clip(place, np.float32(0), np.float32(CELLS - 1), out=place).astype(np.int32)

    return cell


def _celled(levels: TableLevels, cell: Any, below: NDArray[np.int32], within: NDArray[np.float32]) -> Snap:
    """Thresholds in the cells before a value's are below it; the one in its own cell is compared with."""
    array = levels.array

    def snap(x: NDArray[np.float32]) -> NDArray[np.float32]:
        cells = cell(x)
        position = below.take(cells)
        position += x > within.take(cells)
        found: NDArray[np.float32] = array.take(position)
        return found

    return snap
