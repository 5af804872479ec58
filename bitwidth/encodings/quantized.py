"""`Quantized`: values held as `scale * levels[code] + bias`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isinf
from typing import Any, final

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from bitwidth.encodings.affine import Affine, affine_of
from bitwidth.encodings.blocks import check_blocks, spread, take_blocks
from bitwidth.encodings.encoding import Encoding, EncodingState, locked, register_encoding
from bitwidth.encodings.floats import least_format
from bitwidth.encodings.interface import Levels
from bitwidth.encodings.leading import PrefixLevels
from bitwidth.encodings.levels import IntegerLevels, TableLevels
from bitwidth.encodings.rows import rows_of
from bitwidth.encodings.summary import EncodingSummary
from bitwidth.errors import EncodingError
from bitwidth.typing import Array, Integers


@final
@register_encoding("quantized")
@dataclass(frozen=True, eq=False)
class Quantized(Encoding):
    """Values on a grid: `scale * levels[code] + bias`, with one scale per block.

    The arithmetic is float32 multiplication by the scale, and by its reciprocal on the way in, in that order, so that
    numpy, TensorFlow and XLA agree to the bit wherever there is no bias.

    Attributes:
        levels: what the codes stand for: any kind of `Levels`; `LevelRows` for tables that differ from block to block.
        scale: float32, one per block; zero for a block of zeros, else positive and finite.
        block: lengths of a block, one per axis (see `bitwidth.encodings.blocks`).
        zero_point: int32 of the scale's shape, or None for 0: the code that stands for zero in each block, so that
            the value is `scale * (code - zero_point)`; within the bounds of the (integer) levels, so zero is exact.
        bias: float32 of the scale's shape, or None for 0.
        row: int32 of the scale's shape: which row of `LevelRows` a block reads; None for one row for all.

    Raises:
        EncodingError: an array that is not finite, not of the scale's shape, or out of its range.

    Example:
        >>> grid = Quantized(IntegerLevels(-7, 7), np.array([[0.5]], np.float32), block=(2, 2))
        >>> grid.project(np.array([[0.6, -9.0], [0.2, 0.0]], np.float32))
        array([[ 0.5, -3.5],
               [ 0. ,  0. ]], dtype=float32)
    """

    levels: Levels
    scale: NDArray[np.float32]
    block: tuple[int, ...]
    zero_point: NDArray[np.int32] | None = None
    bias: NDArray[np.float32] | None = None
    row: NDArray[np.int32] | None = None

    def __post_init__(self) -> None:
        scale = _float32("scales", self.scale)
        if (scale < 0).any():
            raise EncodingError("scales must be finite and not negative")
        object.__setattr__(self, "scale", locked(scale))
        object.__setattr__(self, "block", _lengths(self.block))
        if len(self.block) != scale.ndim or min(self.block, default=1) < 1:
            raise EncodingError(
                f"block must have one length of at least 1 per axis, got {self.block} for {scale.ndim} axes"
            )
        if self.zero_point is not None:
            if not self.levels.is_integer:
                raise EncodingError("a zero point belongs to integer levels; tables and prefixes hold their own zero")
            object.__setattr__(self, "zero_point", locked(self._checked_zero_point(np.asarray(self.zero_point))))
        if self.bias is not None:
            bias = _float32("bias", self.bias)
            if bias.shape != self.scale.shape:
                shape = self.scale.shape
                raise EncodingError(f"bias must be finite and of the scale's shape {shape}, got {bias.shape}")
            object.__setattr__(self, "bias", locked(bias))
        row = self.levels.checked_row(self.row, scale.shape)
        object.__setattr__(self, "row", None if row is None else locked(row))

    def _checked_zero_point(self, array: Array) -> NDArray[np.int32]:
        if array.shape != self.scale.shape or array.dtype.kind not in "iu":
            raise EncodingError(
                f"zero_point must be finite and of the scale's shape {self.scale.shape}, integers; "
                f"got {array.dtype} of {array.shape}"
            )
        low, high = self.levels.bounds
        if not (low <= array.min(initial=low) and array.max(initial=high) <= high):
            raise EncodingError(f"zero points must lie within the codes {low} to {high}, so that zero is exact")
        return array.astype(np.int32)

    @property
    def reciprocal(self) -> NDArray[np.float32]:
        """1 / scale in float32, of the scale's shape; 0 where the scale is 0 or too small to be divided by."""
        with np.errstate(divide="ignore", over="ignore"):
            inverse = np.float32(1) / self.scale
        return np.where(np.isfinite(inverse), inverse, np.float32(0)).astype(np.float32)

    @override
    def encode(self, values: Array) -> NDArray[np.int32]:
        self.check(values.shape)
        x = np.asarray(values, np.float32)
        if self.bias is not None:
            x = x - spread(self.bias, self.block, values.shape)
        x = x * spread(self.reciprocal, self.block, values.shape)
        if self.zero_point is None:
            return self.levels.nearest(x, self._rows(values.shape))
        low, high = self.levels.bounds
        zero = spread(self.zero_point, self.block, values.shape)
        codes: NDArray[np.int32] = np.clip(np.rint(x), low - zero, high - zero).astype(np.int32) + zero
        return codes

    @override
    def decode(self, codes: Array) -> NDArray[np.float32]:
        self.check(codes.shape)
        if self.zero_point is not None:
            codes = codes - spread(self.zero_point, self.block, codes.shape)
        levels = self.levels.at(codes, self._rows(codes.shape))
        values: NDArray[np.float32] = levels * spread(self.scale, self.block, codes.shape)
        return values if self.bias is None else values + spread(self.bias, self.block, codes.shape)

    @override
    def check_codes(self, codes: Array) -> None:
        low, high = self.levels.bounds
        if codes.dtype.kind not in "iu" or codes.min(initial=low) < low or codes.max(initial=high) > high:
            raise EncodingError(f"codes must be integers from {low} to {high}")

    def _rows(self, shape: Sequence[int]) -> NDArray[np.int32] | None:
        return None if self.row is None else spread(self.row, self.block, shape)

    @override
    def check(self, shape: Sequence[int], name: str = "tensor") -> None:
        check_blocks(shape, self.block, self.scale.shape, name)

    @override
    def packed_bits(self, shape: Sequence[int]) -> int:
        if isinf(self.bits):
            raise EncodingError("integers without bounds have no packed width; their cost is the entropy coder's")
        return self.code_bits(np.broadcast_to(np.True_, tuple(shape))) + self.side_bits

    @override
    def code_bits(self, where: NDArray[np.bool_]) -> int:
        if self.row is None:
            return super().code_bits(where)
        widths = spread(self.levels.code_widths(self.row), self.block, where.shape)
        return int(np.where(where, widths, 0).sum(dtype=np.int64))

    @property
    def side_bits(self) -> int:
        """Bits of scales, zero points, biases, rows and level tables, each in the smallest format that holds it."""
        bits = self.scale.size * least_format(self.scale).width
        if self.zero_point is not None:
            bits += self.zero_point.size * _least_integer(*self.levels.bounds).itemsize * 8
        if self.bias is not None:
            bits += self.bias.size * least_format(self.bias).width
        if self.levels.tables:
            bits += self.levels.array.size * least_format(self.levels.array).width
        if self.row is not None:
            bits += self.row.size * 8
        return bits

    @override
    def take(self, axis: int, indices: Integers) -> Quantized:
        scale, block = take_blocks(self.scale, self.block, axis, indices)

        def taken(side: Any) -> Any:
            return None if side is None else take_blocks(side, self.block, axis, indices)[0]

        return Quantized(self.levels, scale, block, taken(self.zero_point), taken(self.bias), taken(self.row))

    @override
    def broken_by(self, later: Encoding) -> str | None:
        if max(later.bits, later.escape_bits) > self.bits:
            return f"it was promised to be {self.describe()} and would be {later.describe()}"
        return None

    @override
    def summary(self) -> EncodingSummary:
        low, high = self.levels.bounds
        count = self.levels.array.size or high - low + 1
        even = low == -high and self.zero_point is None and self.bias is None
        return EncodingSummary(
            kind=self.kind,
            bits=None if isinf(self.bits) else int(self.bits),
            levels=self.levels.kind,
            level_count=None if isinf(self.bits) else count,
            tables=len(self.levels.tables),
            dropped_bits=self.levels.dropped_bits,
            symmetric=None if self.levels.tables else even,
            scale_shape=self.scale.shape,
            block=self.block,
            zero_points=self.zero_point is not None,
            biases=self.bias is not None,
        )

    @override
    def affine(self, values: Array) -> Affine:
        return affine_of(self, values)

    @property
    @override
    def grid(self) -> Quantized:
        return self

    @property
    @override
    def bits(self) -> float:
        return self.levels.bits

    @override
    def state(self) -> EncodingState:
        arrays: dict[str, Array] = {"scale": self.scale}
        if self.zero_point is not None:
            arrays["zero_point"] = self.zero_point.astype(_least_integer(*self.levels.bounds))
        if self.bias is not None:
            arrays["bias"] = self.bias
        if self.row is not None:
            arrays["row"] = self.row.astype(np.uint8)
        if self.levels.tables:
            arrays["levels"] = self.levels.array
        return EncodingState(self.kind, {**self.levels.config(), "block": list(self.block)}, arrays)

    @override
    @classmethod
    def from_state(cls, state: EncodingState) -> Quantized:
        sides = (state.arrays.get(name) for name in ("zero_point", "bias", "row"))
        return cls(_levels_of(state), state.arrays["scale"], tuple(state.config["block"]), *sides)


def _levels_of(state: EncodingState) -> Levels:
    config, arrays = state.config, state.arrays
    if "rows" in config:
        return rows_of(arrays["levels"], config["rows"])
    if "levels" in arrays:
        return TableLevels(tuple(arrays["levels"].tolist()))
    if "dropped" in config:
        return PrefixLevels(config["high"], config["dropped"])
    return IntegerLevels(config["low"], config["high"])


def _least_integer(low: int, high: int) -> np.dtype[Any]:
    """The smallest integer dtype that holds `low` to `high`, one of one to four bytes."""
    names = ("int8", "uint8", "int16", "uint16", "int32")
    return next(np.dtype(name) for name in names if np.iinfo(name).min <= low and high <= np.iinfo(name).max)


def _float32(name: str, given: Any) -> NDArray[np.float32]:
    array = np.asarray(given)
    with np.errstate(over="ignore"):
        numbers = array.astype(np.float32) if array.dtype.kind in "fiu" else np.full(1, np.nan, np.float32)
    if not np.isfinite(numbers).all():
        rule = "finite and not negative" if name == "scales" else "finite"
        raise EncodingError(f"{name} must be {rule}, got {array.dtype}")
    return numbers


def _lengths(block: Any) -> tuple[int, ...]:
    if not isinstance(block, list | tuple) or any(isinstance(size, bool) or int(size) != size for size in block):
        raise EncodingError(f"block must be one whole length per axis, got {block!r}")
    return tuple(int(size) for size in block)
