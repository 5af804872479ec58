"""Levels: the numbers that a code can stand for before scale and bias.

Kinds with one interface, `Levels`. `IntegerLevels` are the integers of a range, bounded or not: the code is the level.
`TableLevels` are any sorted numbers: powers of two, a learned codebook, a user's table; the code is the position,
counted from zero's where zero is a level. `PrefixLevels` (in `leading.py`) are what the
leading bits of integers stand for. `LevelRows` (in `rows.py`) are several tables.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf
from typing import ClassVar, final

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from bitwidth.encodings.interface import LevelKind, Levels, common_step
from bitwidth.errors import EncodingError
from bitwidth.typing import Integers, JsonDict, is_integer

MAX_BITS = 16
MAX_INTEGER = 1 << 20  # beyond this, code * scale / scale need not round back to the code in float32
LEAST_GAP = 1e-6  # closer than this, level * scale / scale need not lead back to the level


@final
@dataclass(frozen=True)
class IntegerLevels(Levels):
    """The integers from `low` to `high`, both included; None for no bound.

    Example:
        >>> IntegerLevels.symmetric(4)
        IntegerLevels(low=-7, high=7)
        >>> IntegerLevels.symmetric(4).bits
        4
    """

    kind: ClassVar[LevelKind] = "integers"
    low: int | None = None
    high: int | None = None

    def __post_init__(self) -> None:
        for bound in (self.low, self.high):
            if bound is not None and not is_integer(bound):
                raise EncodingError(f"bounds are integers, got low={self.low}, high={self.high}")
        if (self.low is None) != (self.high is None):
            raise EncodingError(f"give both bounds or none, got low={self.low}, high={self.high}")
        if self.low is not None and self.high is not None:
            if self.low >= self.high:
                raise EncodingError(f"low must be below high, got low={self.low}, high={self.high}")
            if max(-self.low, self.high) > MAX_INTEGER:
                raise EncodingError(f"integer levels reach to +-{MAX_INTEGER}, got {self.low} to {self.high}")

    @classmethod
    def symmetric(cls, bits: int) -> IntegerLevels:
        """The symmetric range of a width: -(2^(b-1) - 1) to 2^(b-1) - 1, for 2 to 16 bits."""
        if not 2 <= bits <= MAX_BITS:
            raise EncodingError(f"a symmetric integer range has 2 to {MAX_BITS} bits, got {bits}")
        top = (1 << (bits - 1)) - 1
        return cls(-top, top)

    @property
    @override
    def bounds(self) -> tuple[int, int]:
        if self.low is None or self.high is None:
            return -MAX_INTEGER, MAX_INTEGER
        return self.low, self.high

    @property
    @override
    def bits(self) -> float:
        if self.low is None or self.high is None:
            return inf
        return (self.high - self.low).bit_length()

    @property
    @override
    def extent(self) -> float:
        return inf if self.low is None else float(max(map(abs, self.bounds)))

    @property
    @override
    def step(self) -> float | None:
        return 1.0

    @property
    @override
    def is_integer(self) -> bool:
        return True

    @property
    @override
    def integer_bounds(self) -> tuple[int, int]:
        return self.bounds

    @override
    def config(self) -> JsonDict:
        return {"low": self.low, "high": self.high}

    @override
    def nearest(self, x: NDArray[np.float32], row: Integers | None = None) -> NDArray[np.int32]:
        """Codes of the levels nearest to `x`; halves go to the even integer."""
        low, high = self.bounds
        rounded = np.asarray(np.rint(x))
        return np.clip(rounded, low, high, out=rounded).astype(np.int32)

    @override
    def at(self, codes: Integers, row: Integers | None = None) -> NDArray[np.float32]:
        return codes.astype(np.float32)


@final
@dataclass(frozen=True)
class TableLevels(Levels):
    """A table of numbers, sorted and distinct.

    Attributes:
        values: the levels, ascending; at least two and at most 65,536.
        free: whether training may move them, as those of a learned codebook. Files do not say: a loaded table is fixed.

    Example:
        >>> table = TableLevels((-4.0, -1.0, 0.0, 1.0, 4.0))
        >>> table.nearest(np.array([-3.0, 0.2, 9.0], np.float32))
        array([-2,  0,  2], dtype=int32)
    """

    kind: ClassVar[LevelKind] = "table"
    values: tuple[float, ...]
    free: bool = field(default=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        array = np.asarray(self.values, np.float32)
        if array.ndim != 1 or not 2 <= array.size <= 1 << MAX_BITS:
            raise EncodingError(f"a level table needs 2 to {1 << MAX_BITS} numbers, got shape {array.shape}")
        if not np.isfinite(array).all():
            raise EncodingError("a level table holds finite numbers only")
        greater = np.maximum(np.abs(array[1:]), np.abs(array[:-1]))
        if not (np.diff(array) > greater * np.float32(LEAST_GAP)).all():
            raise EncodingError("a level table is sorted and its numbers differ in float32, by 1e-6 of each at least")
        object.__setattr__(self, "values", tuple(float(value) for value in array))

    @property
    @override
    def array(self) -> NDArray[np.float32]:
        return np.asarray(self.values, np.float32)

    @property
    def thresholds(self) -> NDArray[np.float32]:
        """Midpoints between neighbouring levels, shape (levels - 1,): a value on one goes to the lower level."""
        array = self.array
        return array[:-1] + (array[1:] - array[:-1]) / np.float32(2)

    @property
    def origin(self) -> int:
        """Position of the level whose code is 0: that of zero, or 0 where zero is no level."""
        return self.values.index(0.0) if 0.0 in self.values else 0

    @property
    @override
    def bounds(self) -> tuple[int, int]:
        return -self.origin, len(self.values) - 1 - self.origin

    @property
    @override
    def bits(self) -> float:
        return (len(self.values) - 1).bit_length()

    @property
    @override
    def extent(self) -> float:
        return float(np.abs(self.array).max())

    @property
    @override
    def step(self) -> float | None:
        return common_step(self.array)

    @property
    @override
    def tables(self) -> tuple[TableLevels, ...]:
        return (self,)

    @override
    def config(self) -> JsonDict:
        return {}

    @override
    def nearest(self, x: NDArray[np.float32], row: Integers | None = None) -> NDArray[np.int32]:
        return (np.searchsorted(self.thresholds, x) - self.origin).astype(np.int32)

    @override
    def at(self, codes: Integers, row: Integers | None = None) -> NDArray[np.float32]:
        levels: NDArray[np.float32] = self.array[codes + self.origin]
        return levels


def uniform_levels(bits: int) -> Levels:
    """The levels of a uniform symmetric grid: -1 and +1 at one bit, else the symmetric integers.

    Raises:
        EncodingError: `bits` is not 1 to 16.
    """
    if bits == 1:
        return TableLevels((-1.0, 1.0))
    return IntegerLevels.symmetric(bits)
