"""`Quantized`: values held as `scale * levels[code] + bias`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isinf
from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from bitwidth.errors import EncodingError
from bitwidth.tensors.blocks import check_blocks, spread, take_blocks
from bitwidth.tensors.encoding import Encoding, EncodingState, locked, register_encoding
from bitwidth.tensors.floats import least_format
from bitwidth.tensors.leading import PrefixLevels
from bitwidth.tensors.levels import IntegerLevels, Levels, TableLevels


@register_encoding("quantized")
@dataclass(frozen=True, eq=False)
class Quantized(Encoding):
    """Values on a grid: `scale * levels[code] + bias`, with one scale per block.

    The arithmetic is float32 multiplication by the scale, and by its reciprocal on the way in, in that order, so that
    numpy, TensorFlow and XLA agree to the bit wherever there is no bias.

    Attributes:
        levels: what the codes stand for.
        scale: float32, one per block; zero for a block of zeros, else positive and finite.
        block: lengths of a block, one per axis (see `bitwidth.tensors.blocks`).
        zero_point: int32 of the scale's shape, or None for 0: the code that stands for zero in each block, so that
            the value is `scale * (code - zero_point)`; within the bounds of the (integer) levels, so zero is exact.
        bias: float32 of the scale's shape, or None for 0.

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
            if not isinstance(self.levels, IntegerLevels):
                raise EncodingError("a zero point belongs to integer levels; tables and prefixes hold their own zero")
            object.__setattr__(self, "zero_point", locked(self._checked_zero_point(np.asarray(self.zero_point))))
        if self.bias is not None:
            bias = _float32("bias", self.bias)
            if bias.shape != self.scale.shape:
                shape = self.scale.shape
                raise EncodingError(f"bias must be finite and of the scale's shape {shape}, got {bias.shape}")
            object.__setattr__(self, "bias", locked(bias))

    def _checked_zero_point(self, array: NDArray[Any]) -> NDArray[np.int32]:
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
    def encode(self, values: NDArray[Any]) -> NDArray[np.int32]:
        self.check(values.shape)
        x = np.asarray(values, np.float32)
        if self.bias is not None:
            x = x - spread(self.bias, self.block, values.shape)
        x = x * spread(self.reciprocal, self.block, values.shape)
        if self.zero_point is None:
            return self.levels.nearest(x)
        low, high = self.levels.bounds
        zero = spread(self.zero_point, self.block, values.shape)
        codes: NDArray[np.int32] = np.clip(np.rint(x), low - zero, high - zero).astype(np.int32) + zero
        return codes

    @override
    def decode(self, codes: NDArray[Any]) -> NDArray[np.float32]:
        self.check(codes.shape)
        if self.zero_point is not None:
            codes = codes - spread(self.zero_point, self.block, codes.shape)
        values: NDArray[np.float32] = self.levels.at(codes) * spread(self.scale, self.block, codes.shape)
        return values if self.bias is None else values + spread(self.bias, self.block, codes.shape)

    @override
    def check_codes(self, codes: NDArray[Any]) -> None:
        low, high = self.levels.bounds
        if codes.dtype.kind not in "iu" or codes.min(initial=low) < low or codes.max(initial=high) > high:
            raise EncodingError(f"codes must be integers from {low} to {high}")

    @override
    def check(self, shape: Sequence[int], name: str = "tensor") -> None:
        check_blocks(shape, self.block, self.scale.shape, name)

    @override
    def packed_bits(self, shape: Sequence[int]) -> int:
        if isinf(self.bits):
            raise EncodingError("integers without bounds have no packed width; their cost is the entropy coder's")
        count = int(np.prod(shape, dtype=np.int64))
        return count * int(self.bits) + self.side_bits

    @property
    def side_bits(self) -> int:
        """Bits of scales, zero points, biases and a level table, each in the smallest format that holds it exactly."""
        bits = self.scale.size * least_format(self.scale).width
        if self.zero_point is not None:
            bits += self.zero_point.size * 32
        if self.bias is not None:
            bits += self.bias.size * least_format(self.bias).width
        if isinstance(self.levels, TableLevels):
            bits += len(self.levels.values) * least_format(self.levels.array).width
        return bits

    @override
    def take(self, axis: int, indices: NDArray[np.integer[Any]]) -> Quantized:
        scale, block = take_blocks(self.scale, self.block, axis, indices)
        zero_point = None if self.zero_point is None else take_blocks(self.zero_point, self.block, axis, indices)[0]
        bias = None if self.bias is None else take_blocks(self.bias, self.block, axis, indices)[0]
        return Quantized(self.levels, scale, block, zero_point, bias)

    @override
    def broken_by(self, later: Encoding) -> str | None:
        if later.bits > self.bits:
            return f"it was promised to be {self.describe()} and would be {later.describe()}"
        return None

    @override
    def describe(self) -> str:
        width = "integer steps" if isinf(self.bits) else f"{int(self.bits)}-bit"
        table = " table" if isinstance(self.levels, TableLevels) else ""
        return f"{width}{table} x{self.scale.size}"

    @property
    @override
    def bits(self) -> float:
        return self.levels.bits

    @override
    def state(self) -> EncodingState:
        levels = self.levels
        config: dict[str, Any] = {}
        if isinstance(levels, IntegerLevels):
            config = {"low": levels.low, "high": levels.high}
        elif isinstance(levels, PrefixLevels):
            config = {"low": -levels.high, "high": levels.high, "dropped": levels.dropped}
        arrays: dict[str, NDArray[Any]] = {"scale": self.scale}
        if self.zero_point is not None:
            arrays["zero_point"] = self.zero_point
        if self.bias is not None:
            arrays["bias"] = self.bias
        if isinstance(levels, TableLevels):
            arrays["levels"] = levels.at(np.arange(levels.bounds[0], levels.bounds[1] + 1))
        return EncodingState(self.kind, {**config, "block": list(self.block)}, arrays)

    @override
    @classmethod
    def from_state(cls, state: EncodingState) -> Quantized:
        arrays, config = state.arrays, state.config
        levels: Levels
        if "levels" in arrays:
            levels = TableLevels(tuple(arrays["levels"].tolist()))
        elif "dropped" in config:
            levels = PrefixLevels(config["high"], config["dropped"])
        else:
            levels = IntegerLevels(config["low"], config["high"])
        return cls(levels, arrays["scale"], tuple(config["block"]), arrays.get("zero_point"), arrays.get("bias"))


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
