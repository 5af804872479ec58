"""Several level tables for one tensor: each block of values reads its own row of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitwidth.encodings.levels import TableLevels
from bitwidth.errors import EncodingError

MAX_ROWS = 1 << 8


@dataclass(frozen=True)
class LevelRows:
    """Level tables of different lengths. A code counts from its own row's origin, so it takes its own row's bits.

    Attributes:
        rows: the tables; at least one and at most 256.

    Raises:
        EncodingError: no table, too many, or something that is not a table.

    Example:
        >>> rows = LevelRows((TableLevels((1.0, 2.0, 4.0, 8.0)), TableLevels((10.0, 20.0))))
        >>> rows.bits, rows.widths.tolist()
        (2, [2, 1])
        >>> rows.nearest(np.array([3.5, 3.5], np.float32), np.array([0, 1]))
        array([2, 0], dtype=int32)
    """

    rows: tuple[TableLevels, ...]

    def __post_init__(self) -> None:
        if not 1 <= len(self.rows) <= MAX_ROWS or not all(isinstance(row, TableLevels) for row in self.rows):
            raise EncodingError(f"rows of levels are 1 to {MAX_ROWS} tables, got {len(self.rows)}")
        object.__setattr__(self, "rows", tuple(self.rows))

    @property
    def bounds(self) -> tuple[int, int]:
        """Least and greatest code of any row."""
        return min(row.bounds[0] for row in self.rows), max(row.bounds[1] for row in self.rows)

    @property
    def bits(self) -> float:
        """Bits of a packed code of the longest row."""
        return max(row.bits for row in self.rows)

    @property
    def widths(self) -> NDArray[np.int64]:
        """Bits of a packed code in each row, shape (rows,)."""
        return np.array([int(row.bits) for row in self.rows], np.int64)

    @property
    def extent(self) -> float:
        """The greatest magnitude of a level."""
        return max(row.extent for row in self.rows)

    @property
    def array(self) -> NDArray[np.float32]:
        """The levels of all rows, one row after the other, float32 of shape (levels of all rows,)."""
        return np.concatenate([row.array for row in self.rows])

    def nearest(self, x: NDArray[np.float32], row: NDArray[np.integer[Any]]) -> NDArray[np.int32]:
        """Codes of the levels nearest to `x`; `row`, which broadcasts against `x`, says in which row."""
        row = np.broadcast_to(row, x.shape)
        codes = np.zeros(x.shape, np.int32)
        for index, table in enumerate(self.rows):
            here = row == index
            if here.any():
                codes[here] = table.nearest(x[here])
        return codes

    def at(self, codes: NDArray[np.integer[Any]], row: NDArray[np.integer[Any]]) -> NDArray[np.float32]:
        """The levels of `codes`, each in its `row`.

        Raises:
            EncodingError: a code that its row does not have.
        """
        low, high = (np.array([table.bounds[end] for table in self.rows])[row] for end in (0, 1))
        if (codes < low).any() or (codes > high).any():
            raise EncodingError("a code that its row of levels does not have")
        starts = np.cumsum([0, *(len(table.values) for table in self.rows[:-1])])
        first = starts + np.array([table.origin for table in self.rows])
        levels: NDArray[np.float32] = self.array[codes + first[row]]
        return levels
