"""Several level tables for one tensor: each block of values reads its own row of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, final

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from bitwidth.encodings.interface import LevelKind, Levels, common_step
from bitwidth.encodings.levels import TableLevels
from bitwidth.errors import EncodingError
from bitwidth.typing import Array, Integers, JsonDict, is_integer

MAX_ROWS = 1 << 8


@final
@dataclass(frozen=True)
class LevelRows(Levels):
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

    kind: ClassVar[LevelKind] = "tables"
    rows: tuple[TableLevels, ...]

    def __post_init__(self) -> None:
        if not 1 <= len(self.rows) <= MAX_ROWS or not all(isinstance(row, TableLevels) for row in self.rows):
            raise EncodingError(f"rows of levels are 1 to {MAX_ROWS} tables, got {len(self.rows)}")
        object.__setattr__(self, "rows", tuple(self.rows))

    @property
    @override
    def bounds(self) -> tuple[int, int]:
        return min(row.bounds[0] for row in self.rows), max(row.bounds[1] for row in self.rows)

    @property
    @override
    def bits(self) -> float:
        return max(row.bits for row in self.rows)

    @property
    def widths(self) -> NDArray[np.int64]:
        """Bits of a packed code in each row, shape (rows,)."""
        return np.array([int(row.bits) for row in self.rows], np.int64)

    @override
    def code_widths(self, row: Integers) -> NDArray[np.int64]:
        widths: NDArray[np.int64] = self.widths[row]
        return widths

    @property
    @override
    def step(self) -> float | None:
        return common_step(self.array)

    @property
    @override
    def tables(self) -> tuple[TableLevels, ...]:
        return self.rows

    @property
    @override
    def by_block(self) -> bool:
        return True

    @override
    def config(self) -> JsonDict:
        return {"rows": [len(table.values) for table in self.rows]}

    @override
    def checked_row(self, row: Any, grid: tuple[int, ...]) -> NDArray[np.int32] | None:
        row = np.asarray(row)
        if row.shape != grid or row.dtype.kind not in "iu":
            raise EncodingError(f"row must be integers of the scale's shape {grid}, got {row.dtype}")
        if row.min(initial=0) < 0 or row.max(initial=0) >= len(self.rows):
            raise EncodingError(f"row must be 0 to {len(self.rows) - 1}: which row of levels each block reads")
        found: NDArray[np.int32] = row.astype(np.int32)
        return found

    @property
    @override
    def extent(self) -> float:
        return max(row.extent for row in self.rows)

    @override
    def nearest(self, x: NDArray[np.float32], row: Integers | None = None) -> NDArray[np.int32]:
        """Codes of the levels nearest to `x`; `row`, which broadcasts against `x`, says in which row."""
        row = np.broadcast_to(np.asarray(row), x.shape)
        codes = np.zeros(x.shape, np.int32)
        for index, table in enumerate(self.rows):
            here = row == index
            if here.any():
                codes[here] = table.nearest(x[here])
        return codes

    @override
    def at(self, codes: Integers, row: Integers | None = None) -> NDArray[np.float32]:
        """The levels of `codes`, each in its `row`.

        Raises:
            EncodingError: a code that its row does not have.
        """
        row = np.asarray(row)
        low, high = (np.array([table.bounds[end] for table in self.rows])[row] for end in (0, 1))
        if (codes < low).any() or (codes > high).any():
            raise EncodingError("a code that its row of levels does not have")
        starts = np.cumsum([0, *(len(table.values) for table in self.rows[:-1])])
        first = starts + np.array([table.origin for table in self.rows])
        levels: NDArray[np.float32] = self.array[codes + first[row]]
        return levels


def rows_of(array: Array, lengths: Any) -> LevelRows:
    """Rows of levels from the levels of all of them, shape (levels,), and how many each row has.

    Raises:
        EncodingError: they do not make rows.
    """
    if any(not is_integer(length) or length < 1 for length in lengths):
        raise EncodingError(f"rows of levels have integer lengths, got {str(lengths)[:80]}")
    if array.ndim != 1 or sum(lengths) != array.size or len(lengths) > MAX_ROWS:
        raise EncodingError(f"{array.size} levels do not make rows of {str(lengths)[:80]}")
    parts = np.split(array, np.cumsum(lengths)[:-1])
    return LevelRows(tuple(TableLevels(tuple(part.tolist())) for part in parts))
