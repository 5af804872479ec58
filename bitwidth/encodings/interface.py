"""`Levels`: what every kind of levels can do and say of itself, whoever asks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from math import gcd
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from bitwidth.errors import EncodingError
from bitwidth.typing import Integers, JsonDict

if TYPE_CHECKING:
    from bitwidth.encodings.levels import TableLevels

LevelKind = Literal["integers", "prefix", "table", "tables"]


class Levels(ABC):
    """The numbers that codes stand for before scale and bias.

    `IntegerLevels` and `PrefixLevels` compute them, `TableLevels` and `LevelRows` look them up in the tables that
    `tables` holds. What code outside of `bitwidth.encodings` needs to know of a kind of levels it asks here.

    Attributes:
        kind: `"integers"`, `"prefix"` (the leading bits of integers), `"table"`, or `"tables"` (one for each block).
    """

    kind: ClassVar[LevelKind]

    @property
    @abstractmethod
    def bounds(self) -> tuple[int, int]:
        """Least and greatest code."""

    @property
    @abstractmethod
    def bits(self) -> float:
        """Bits of a packed code; infinite where codes have no bound."""

    @property
    @abstractmethod
    def extent(self) -> float:
        """The greatest magnitude of a level; infinite where there is no bound."""

    @property
    @abstractmethod
    def step(self) -> float | None:
        """A number that every level is a multiple of, by a factor within +-2^15; None where there is none.

        For integers it is 1, whatever their bounds; for tables a power of two if possible.

        Example:
            >>> from bitwidth.encodings import TableLevels
            >>> TableLevels((-1.5, 0.25, 2.0)).step
            0.25
        """

    @abstractmethod
    def nearest(self, x: NDArray[np.float32], row: Integers | None = None) -> NDArray[np.int32]:
        """Codes of the levels nearest to `x`, in its shape.

        Args:
            x: float32 of any shape.
            row: which of `tables` each value reads; broadcasts against `x`. Only where `by_block`.
        """

    @abstractmethod
    def at(self, codes: Integers, row: Integers | None = None) -> NDArray[np.float32]:
        """The levels of `codes`, in their shape; `row` as for `nearest`."""

    @abstractmethod
    def config(self) -> JsonDict:
        """What a file holds of the levels besides `array`: plain data (JSON)."""

    @property
    def tables(self) -> tuple[TableLevels, ...]:
        """The tables that levels are looked up in; empty where they are computed from the code."""
        return ()

    @property
    def array(self) -> NDArray[np.float32]:
        """The levels of all tables, one table after the other, shape (levels,); empty where there is no table."""
        return np.concatenate([table.array for table in self.tables] or [np.zeros(0, np.float32)])

    @property
    def by_block(self) -> bool:
        """Whether each block reads one of several tables, so that a grid has a `row` beside its scale."""
        return False

    @property
    def is_integer(self) -> bool:
        """Whether a code, less its zero point, is the level itself."""
        return False

    @property
    def integer_bounds(self) -> tuple[int, int]:
        """Least and greatest of the integers that are rounded to, before any of their low bits are dropped.

        Raises:
            EncodingError: levels from a table are not integers in order.
        """
        raise EncodingError(f"levels of the kind {self.kind!r} are not integers in order")

    @property
    def dropped_bits(self) -> int:
        """How many low bits of the integers are left out of the codes."""
        return 0

    def code_widths(self, row: Integers) -> NDArray[np.int64]:
        """Bits of a packed code in each block, of the shape of `row`."""
        return np.full(np.shape(row), int(self.bits), np.int64)

    def checked_row(self, row: Any, grid: tuple[int, ...]) -> NDArray[np.int32] | None:
        """`row` as int32: which of `tables` each block reads; None where levels are the same for all blocks.

        Args:
            row: integers of the shape of the scales, or None.
            grid: shape of the scales.

        Raises:
            EncodingError: it does not belong to these levels, or is out of their range.
        """
        if row is not None:
            raise EncodingError("which row a block reads belongs to several rows of levels")
        return None


def common_step(levels: NDArray[np.float32]) -> float | None:
    """The greatest number that all of `levels` (any shape) are multiples of, by factors within +-2^15.

    A power of two where there is one: a scale is multiplied by it without rounding.

    Returns:
        The step, or None where factors would be greater.

    Example:
        >>> common_step(np.array([-3.0, 0.0, 0.5], np.float32)), common_step(np.array([0.1, 1.0], np.float32))
        (0.5, None)
    """
    ratios = [number.as_integer_ratio() for number in levels[levels != 0].astype(np.float64).tolist()]
    if not ratios:
        return 1.0
    denominator = max(below for _, below in ratios)
    whole = [abs(above) * (denominator // below) for above, below in ratios]
    common, greatest = gcd(*whole), max(whole)
    for step in (common & -common, common):
        if greatest <= step << 15:
            return float(step / denominator)
    return None
