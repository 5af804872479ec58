"""Masks with a pattern: runs of elements along a row or a column, each coded as one symbol.

Of 2:4 six kinds of runs of four occur in place of sixteen, and of blocks two, so that a mask costs what its pattern
leaves open: log2(6) / 4 bits for an element of 2:4, a fourth of a bit at most for one of blocks of four.

Example:
    >>> kinds = np.array([[1, 1, 0, 0], [0, 1, 0, 1], [1, 0, 0, 1]], bool)
    >>> mask = kinds[np.random.default_rng(0).integers(0, 3, 4000)].T.reshape(4, 4000)
    >>> find_runs(mask)
    Runs(length=4, along_rows=False)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitwidth.coder.bitio import counts_of
from bitwidth.coder.tables import entropy_of

LENGTHS = range(2, 9)
_WORTH = 0.97  # of the bits that single elements cost: more is not worth the trouble
_CORNER = 840  # rows and columns by which runs are chosen; every length divides it
_KIND_BITS = 6.0  # what a kind of run costs in a table, roughly


@dataclass(frozen=True)
class Runs:
    """How a mask is cut into runs, which lie side by side.

    Attributes:
        length: elements of a run, 2 to 8.
        along_rows: whether a run lies within a row, beside each other; else within a column, beneath each other.
    """

    length: int
    along_rows: bool

    def fit(self, shape: Sequence[int]) -> bool:
        """Whether the runs divide the side of a table that they lie along."""
        side = shape[1 if self.along_rows else 0]
        return side > 0 and side % self.length == 0

    def cut(self, table: NDArray[np.bool_]) -> NDArray[np.uint8]:
        """The kinds of the runs of a table whose side they divide: the first element is the lowest bit."""
        lines = table if self.along_rows else table.T
        kinds = np.zeros((lines.shape[0], lines.shape[1] // self.length), np.uint8)
        for place in range(self.length):
            kinds |= lines[:, place :: self.length].view(np.uint8) << np.uint8(place)
        return kinds

    def joined(self, kinds: NDArray[np.uint8], shape: tuple[int, int]) -> NDArray[np.bool_]:
        """The table of `shape` whose runs have these kinds."""
        rows, columns = shape if self.along_rows else shape[::-1]
        lines = np.empty((rows, columns), np.bool_)
        kinds = kinds.reshape(rows, columns // self.length)
        for place in range(self.length):
            lines[:, place :: self.length] = kinds >> np.uint8(place) & np.uint8(1)
        return lines if self.along_rows else np.ascontiguousarray(lines.T)


def find_runs(table: NDArray[np.bool_]) -> Runs | None:
    """The runs in which a mask of rows and columns costs least, by its first corner; None where they gain little."""
    corner = table[:_CORNER, :_CORNER]
    best, least = None, _WORTH * _bits(corner)
    for along_rows in (False, True):
        for length in LENGTHS:
            runs = Runs(length, along_rows)
            if runs.fit(table.shape):
                bits = _bits(runs.cut(corner))
                if bits < least:
                    best, least = runs, bits
    return best


def _bits(symbols: NDArray[np.uint8] | NDArray[np.bool_]) -> float:
    counts = counts_of(np.ascontiguousarray(symbols).reshape(-1).view(np.uint8))
    return entropy_of(counts) + _KIND_BITS * int(np.count_nonzero(counts))
