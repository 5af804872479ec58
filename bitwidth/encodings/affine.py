"""`Affine`: values as integer codes with scales and zero points, as LiteRT and ONNX store them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, final

import numpy as np
from numpy.typing import NDArray

from bitwidth.encodings.blocks import spread
from bitwidth.errors import Refused
from bitwidth.typing import Array

if TYPE_CHECKING:
    from bitwidth.encodings.quantized import Quantized

_FARTHEST = 1 << 22  # zero points: a code less its zero point is exact in float32
_WIDEST = 1 << 15  # codes that count fractions of a step


@final
@dataclass(frozen=True, eq=False)
class Affine:
    """A tensor as integers: its values are `(codes - zero_point) * scale`, in float32, per block.

    Scales have the rank of the tensor, one entry per block; an axis along which all values share them has length 1.
    Three forms occur: one scale for the tensor (`axis` and `group` are None), one per channel (`axis`), and blockwise,
    where each run of `group` values along `group_axis` has its own (`axis` is that of the channels, if there is one).

    Attributes:
        codes: int32 of the tensor's shape, from `-2^(bits-1)` to `2^(bits-1) - 1` where signed, else 0 to `2^bits - 1`.
        scale: float32, one per block, positive.
        zero_point: int32 of the scale's shape, within the range of codes; None for 0.
        block: lengths of a block, one per axis; the last block of an axis may be shorter.
        bits: the least width that holds every code of the encoding and every zero point. That of tables may be greater
            than the encoding's own: 3-bit powers of two (-4 to 4) need 4.
        signed: whether codes may be negative.

    Example:
        >>> from bitwidth.encodings import IntegerLevels, Quantized
        >>> grid = Quantized(IntegerLevels(0, 15), np.array([[0.5], [2.0]], np.float32), (1, 2), np.array([[8], [0]]))
        >>> found = grid.affine(np.array([[-4.0, 1.0], [3.9, 30.0]], np.float32))
        >>> found.codes.tolist(), found.zero_point.tolist(), (found.axis, found.group, found.bits, found.signed)
        ([[0, 10], [2, 15]], [[8], [0]], (0, None, 4, False))
        >>> found.values().tolist()
        [[-4.0, 1.0], [4.0, 30.0]]
    """

    codes: NDArray[np.int32]
    scale: NDArray[np.float32]
    zero_point: NDArray[np.int32] | None
    block: tuple[int, ...]
    bits: int
    signed: bool

    @property
    def axes(self) -> tuple[int, ...]:
        """The axes along which each element has a scale of its own: two for depthwise kernels and attention heads."""
        return tuple(a for a, count in enumerate(self.scale.shape) if count > 1 and self.block[a] == 1)

    @property
    def axis(self) -> int | None:
        """The axis of the channels, if there is exactly one; then `scale.ravel()` is their scales, unless `group`."""
        return self.axes[0] if len(self.axes) == 1 else None

    @property
    def group_axis(self) -> int | None:
        """The axis along which groups of several values have a scale each; None where there are no groups."""
        return next((a for a, count in enumerate(self.scale.shape) if count > 1 and self.block[a] > 1), None)

    @property
    def group(self) -> int | None:
        """How many values along `group_axis` share a scale; the last group may be shorter."""
        return None if self.group_axis is None else self.block[self.group_axis]

    def values(self) -> NDArray[np.float32]:
        """`(codes - zero_point) * scale`: float32 of the tensor's shape."""
        shape = self.codes.shape
        values: NDArray[np.float32] = (self.codes - self._zero()).astype(np.float32) * spread(
            self.scale, self.block, shape
        )
        return values

    def as_signed(self) -> Affine:
        """The same values in signed codes of the same width, as LiteRT and int8 kernels want them.

        Example:
            >>> from bitwidth.encodings import IntegerLevels, Quantized
            >>> grid = Quantized(IntegerLevels(0, 255), np.array([0.5], np.float32), (2,), np.array([128]))
            >>> found = grid.affine(np.array([-64.0, 1.0], np.float32)).as_signed()
            >>> found.codes.tolist(), found.zero_point.tolist()
            ([-128, 2], [0])
        """
        if self.signed:
            return self
        half = np.int32(1 << (self.bits - 1))
        zero = np.zeros(self.scale.shape, np.int32) if self.zero_point is None else self.zero_point
        return replace(self, codes=self.codes - half, zero_point=zero - half, signed=True)

    def masked(self, keep: NDArray[np.bool_]) -> Affine:
        """With the code of zero where `keep`, bool of the tensor's shape, is False."""
        return replace(self, codes=np.asarray(np.where(keep, self.codes, self._zero()), np.int32))

    def _zero(self) -> NDArray[np.int32]:
        return (
            np.zeros((), np.int32) if self.zero_point is None else spread(self.zero_point, self.block, self.codes.shape)
        )


def affine_of(grid: Quantized, values: Array) -> Affine:
    """See `Encoding.affine`: the levels as multiples of their step, the bias as a part of the zero point.

    Raises:
        Refused: the levels are not multiples of one step, or the bias is not one of the scale, or float32 rounds.
    """
    codes, shape = grid.encode(values), tuple(values.shape)
    step = grid.levels.step
    if step is None:
        raise Refused(f"the levels of its {grid.levels.kind} are not multiples of one step")
    row = None if grid.row is None else spread(grid.row, grid.block, shape)
    whole = codes if grid.levels.is_integer else np.rint(grid.levels.at(codes, row) / np.float32(step))
    low, high = _ends(grid, step, whole)
    factor, (scale, zero) = 1, _sides(grid, step, 1)
    if not (scale > 0).all():
        raise Refused("float32 holds no scale as small as a step of its levels")
    while zero is None and 2 * factor * max(-low, high, 1) <= _WIDEST:
        factor *= 2
        scale, zero = _sides(grid, step, factor)
    if zero is None or not (scale > 0).all():
        raise Refused("its bias is not a multiple of its scale")
    own = 0 if grid.zero_point is None else spread(grid.zero_point, grid.block, shape)
    whole = np.asarray(np.where(spread(grid.scale == 0, grid.block, shape), own, whole) * factor, np.int32)
    bits, signed = _width(low * factor, high * factor, zero)
    block, sides = _one_group(grid.block, shape, [scale, zero])
    found = Affine(whole, sides[0], sides[1] if sides[1].any() else None, block, bits, signed)
    if not np.array_equal(found.values(), grid.decode(codes)):
        raise Refused("float32 rounds its values otherwise than one multiplication by the scale does")
    return found


def _ends(grid: Quantized, step: float, whole: Array) -> tuple[int, int]:
    """Least and greatest multiple of the step among the levels; among those that occur where there is no bound."""
    if np.isinf(grid.bits):
        return int(whole.min(initial=0)), int(whole.max(initial=0))
    if grid.levels.is_integer:
        return grid.levels.bounds
    levels = grid.levels.array if grid.levels.tables else np.array([-grid.levels.extent, grid.levels.extent])
    return round(float(levels.min()) / step), round(float(levels.max()) / step)


def _sides(grid: Quantized, step: float, factor: int) -> tuple[NDArray[np.float32], NDArray[np.int32] | None]:
    """Scales of codes that count steps divided by `factor`, and zero points that hold the bias too.

    A block of scale zero holds one value, its bias: its scale is that, or 1.

    Returns:
        Both of the scale's shape; no zero points where a bias is not a multiple of the scale.
    """
    bias = np.zeros_like(grid.scale) if grid.bias is None else grid.bias
    alone = np.where(bias == 0, np.float32(1), np.abs(bias))
    scale = np.asarray(np.where(grid.scale == 0, alone, grid.scale * np.float32(step / factor)), np.float32)
    wide = scale.astype(np.float64)
    times = np.divide(bias.astype(np.float64), wide, out=np.zeros_like(wide), where=wide > 0)
    if not np.array_equal(np.rint(times) * wide, bias) or np.abs(times).max(initial=0) > _FARTHEST:
        return scale, None
    own = np.zeros(scale.shape, np.int64) if grid.zero_point is None else grid.zero_point.astype(np.int64) * factor
    return scale, np.asarray(own - np.rint(times), np.int32)


def _width(low: int, high: int, zero: NDArray[np.int32]) -> tuple[int, bool]:
    """Bits that hold codes from `low` to `high` and the zero points, and whether one of them is negative."""
    low, high = min(low, int(zero.min(initial=low))), max(high, int(zero.max(initial=high)))
    if low < 0:
        return max((-low - 1).bit_length(), high.bit_length()) + 1, True
    return max(1, high.bit_length()), False


def _one_group(block: Sequence[int], shape: tuple[int, ...], sides: list[Array]) -> tuple[tuple[int, ...], list[Array]]:
    """Block and sides at the tensor's rank, with groups along one axis at most, that of the longest.

    Where blocks have several values along several axes, sides are repeated along the others.
    """
    if not len(block):
        return tuple(max(1, length) for length in shape), [side.reshape((1,) * len(shape)) for side in sides]
    counts = sides[0].shape
    lengths = [max(1, min(size, length)) for size, length in zip(block, shape, strict=True)]
    grouped = sorted((a for a, count in enumerate(counts) if count > 1 < lengths[a]), key=lambda a: lengths[a])
    for axis in grouped[:-1]:
        sides = [np.repeat(side, lengths[axis], axis=axis).take(range(shape[axis]), axis=axis) for side in sides]
        lengths[axis] = 1
    return tuple(lengths), sides
