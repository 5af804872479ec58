"""`PrefixLevels`: what the leading bits of integers stand for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from bitwidth.encodings.interface import LevelKind, Levels
from bitwidth.errors import EncodingError
from bitwidth.typing import Integers, JsonDict, is_integer

MAX_HIGH = 1 << 21  # a code of the widest integer levels less its zero point


@final
@dataclass(frozen=True)
class PrefixLevels(Levels):
    """The leading bits of the integers within +-`high`, in sign and magnitude.

    The code of an integer c is `sign(c) * (|c| >> dropped)`: it is truncated, not rounded, so that it can be read off
    the first bit planes of c. The level of a code q other than 0 is the middle of the 2^dropped integers that it
    stands for, `sign(q) * ((|q| + 1/2) * 2^dropped - 1/2)`, which is exact in float32 and has the code q again; the
    level of 0 is 0. The middle of the outermost code is the same formula, though the integers end at `high`. With
    nothing dropped the levels are the integers.

    Attributes:
        high: the greatest magnitude of an integer, 1 to 2^21.
        dropped: how many low bits are left out; at least one bit of `high` stays.

    Example:
        >>> levels = PrefixLevels(high=7, dropped=1)
        >>> levels.nearest(np.array([-9.0, -1.0, 0.7, 2.0, 3.0, 4.4], np.float32))
        array([-3,  0,  0,  1,  1,  2], dtype=int32)
        >>> levels.at(np.arange(-3, 4)).tolist()
        [-6.5, -4.5, -2.5, 0.0, 2.5, 4.5, 6.5]
    """

    kind: ClassVar[LevelKind] = "prefix"
    high: int
    dropped: int

    def __post_init__(self) -> None:
        for number in (self.high, self.dropped):
            if not is_integer(number):
                raise EncodingError(f"high and dropped are integers, got {self.high!r} and {self.dropped!r}")
        if not 1 <= self.high <= MAX_HIGH:
            raise EncodingError(f"high must be 1 to {MAX_HIGH}, got {self.high}")
        if not 0 <= self.dropped < self.high.bit_length():
            width = self.high.bit_length()
            raise EncodingError(f"of {width} bits of magnitude 0 to {width - 1} can be dropped, got {self.dropped}")

    @property
    @override
    def bounds(self) -> tuple[int, int]:
        top = self.high >> self.dropped
        return -top, top

    @property
    @override
    def bits(self) -> float:
        return (2 * (self.high >> self.dropped)).bit_length()

    @property
    @override
    def integer_bounds(self) -> tuple[int, int]:
        return -self.high, self.high

    @property
    @override
    def dropped_bits(self) -> int:
        return self.dropped

    @property
    @override
    def step(self) -> float | None:
        step = 0.5 if self.dropped else 1.0
        return step if self.extent / step <= 1 << 15 or not self.dropped else None

    @override
    def config(self) -> JsonDict:
        return {"low": -self.high, "high": self.high, "dropped": self.dropped}

    @property
    @override
    def extent(self) -> float:
        return float(self.at(np.array(self.high >> self.dropped)))

    @override
    def nearest(self, x: NDArray[np.float32], row: Integers | None = None) -> NDArray[np.int32]:
        """Codes of the integers nearest to `x`, truncated; halves go to the even integer before that."""
        rounded = np.asarray(np.rint(x))
        whole = np.clip(rounded, -self.high, self.high, out=rounded).astype(np.int32)
        return self.truncated(whole)

    def truncated(self, codes: NDArray[np.int32]) -> NDArray[np.int32]:
        """The leading bits of integers within +-`high`: towards zero."""
        short: NDArray[np.int32] = (np.sign(codes) * (np.abs(codes) >> self.dropped)).astype(np.int32)
        return short

    @override
    def at(self, codes: Integers, row: Integers | None = None) -> NDArray[np.float32]:
        step = np.float32(1 << self.dropped)
        middle = (step - np.float32(1)) / np.float32(2)
        levels: NDArray[np.float32] = codes.astype(np.float32) * step + np.sign(codes).astype(np.float32) * middle
        return levels
