"""`bitplanes`: a tensor as planes of bits, most significant first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray
from typing_extensions import override

from bitwidth.encodings.blocks import block_of
from bitwidth.encodings.encoding import locked
from bitwidth.encodings.levels import MAX_BITS, IntegerLevels
from bitwidth.encodings.prefix import prefix
from bitwidth.encodings.quantized import Quantized
from bitwidth.errors import EncodingError
from bitwidth.fitting.scales import fit_scale
from bitwidth.typing import Array, Integers, is_integer

MOST_PLANES = 64


@dataclass(frozen=True, eq=False)
class BitPlanes(Sequence[NDArray[np.bool_]]):
    """The bit planes W_0 ... W_k of integers in sign and magnitude; as a sequence, the planes of the magnitude.

    Attributes:
        magnitude: bool [planes, *shape], most significant plane first, 1 to 64 of them.
        sign: bool [*shape], True where the integer is negative; nowhere that it is zero.
        dtype: of the integers, or of the floats that were quantized.
        grid: the grid that the floats were quantized on; None for integers.

    Example:
        >>> planes = bitplanes(np.array([5, -2, 0]))
        >>> [plane.astype(int).tolist() for plane in planes], planes.sign.tolist()
        ([[1, 0, 0], [0, 1, 0], [1, 0, 0]], [False, True, False])
        >>> planes.values().tolist(), planes.values(bits=2).tolist()
        ([5, -2, 0], [4, 0, 0])
    """

    magnitude: NDArray[np.bool_]
    sign: NDArray[np.bool_]
    dtype: np.dtype[Any]
    grid: Quantized | None = None

    def __post_init__(self) -> None:
        magnitude, sign = np.asarray(self.magnitude), np.asarray(self.sign)
        if magnitude.dtype != np.bool_ or sign.dtype != np.bool_ or magnitude.shape[1:] != sign.shape:
            raise EncodingError("bit planes and sign are bool arrays, [planes, *shape] and [*shape]")
        if magnitude.ndim == 0 or not 1 <= len(magnitude) <= MOST_PLANES:
            raise EncodingError(f"1 to {MOST_PLANES} bit planes expected, got shape {magnitude.shape}")
        if (sign & ~magnitude.any(axis=0)).any():
            raise EncodingError("a zero has no sign")
        if self.grid is not None:
            self.grid.check(sign.shape, "bit planes")
        object.__setattr__(self, "magnitude", locked(magnitude))
        object.__setattr__(self, "sign", locked(sign))

    @property
    def bits(self) -> int:
        """Bits of one integer: its planes and the sign."""
        return 1 + len(self.magnitude)

    @override
    def __len__(self) -> int:
        return len(self.magnitude)

    @overload
    def __getitem__(self, index: int) -> NDArray[np.bool_]: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[NDArray[np.bool_]]: ...
    @override
    def __getitem__(self, index: int | slice) -> NDArray[np.bool_] | Sequence[NDArray[np.bool_]]:
        return list(self.magnitude[index]) if isinstance(index, slice) else self.magnitude[index]

    @override
    def __iter__(self) -> Iterator[NDArray[np.bool_]]:
        return iter(self.magnitude)

    def values(self, bits: int | None = None) -> Array:
        """The values that the first planes stand for; zeros stay zero.

        Args:
            bits: how many bits to read, the sign included, from 2 to `self.bits`; None for all.

        Returns:
            Array of `dtype` and the planes' shape. Integers: the bits that are not read are 0. Floats: the middle of
            the grid's levels that share these first bits (see `bitwidth.encodings.prefix`).

        Raises:
            EncodingError: `bits` is out of range.
        """
        bits = self.bits if bits is None else _checked(bits, 2, self.bits)
        read, left = bits - 1, self.bits - bits
        whole = np.zeros(self.sign.shape, np.uint64)
        for plane in self.magnitude[:read]:
            whole = whole << np.uint64(1) | plane
        if self.grid is None:
            whole = whole << np.uint64(left)
            return np.where(self.sign, _negated(whole), whole).astype(self.dtype)
        codes = whole.astype(np.int32)
        held = prefix(self.grid, bits)
        return held.decode(np.where(self.sign, -codes, codes)).astype(self.dtype)


def bitplanes(tensor: ArrayLike, bits: int | None = None) -> BitPlanes:
    """Take a tensor apart into bit planes, most significant first.

    Sign and magnitude: the value is `(-1)^sign * sum_i W_i * 2^(k - i)`, times the scale where there is one. The first
    planes alone say the leading bits of each value, and zeros stay zero.

    Args:
        tensor: integers or floats of any shape. Floats are quantized first, on a symmetric uniform grid with a scale
            for each index of the last axis (the output channels of a kernel), or one scale where there are fewer than
            two axes; the scales are those of least squared error (`bitwidth.fitting.fit_scale`).
        bits: bits of one integer, the sign included: 2 to 65 for integers, which must fit (None for as many as they
            need), 2 to 16 for floats (None for 8).

    Returns:
        `bits - 1` planes, the sign and, for floats, the grid.

    Raises:
        EncodingError: neither integers nor finite floats, `bits` out of range, or integers that do not fit.

    Example:
        >>> planes = bitplanes(np.array([[0.5, 2.0], [-0.25, 0.0]], np.float32), bits=4)
        >>> len(planes), planes.grid.scale.shape
        (3, (1, 2))
        >>> planes.values().round(2)
        array([[ 0.48,  2.  ],
               [-0.28,  0.  ]], dtype=float32)
    """
    array = np.asarray(tensor)
    if array.dtype.kind in "iu":
        return _of_integers(array, bits)
    if array.dtype.kind != "f":
        raise EncodingError(f"bitplanes: integers or floats expected, got {array.dtype}")
    bits = 8 if bits is None else _checked(bits, 2, MAX_BITS)
    with np.errstate(over="ignore"):
        values = array.astype(np.float32)
    if not np.isfinite(values).all():
        raise EncodingError("bitplanes: finite floats expected, within float32")
    axes = tuple(range(array.ndim))
    block = block_of(array.shape, "channel" if array.ndim > 1 else "tensor", axes[-1:], axes[:-1])
    grid = fit_scale(values, IntegerLevels.symmetric(bits), block)
    codes = grid.encode(values)
    return BitPlanes(_planes(np.abs(codes).astype(np.uint64), bits - 1), codes < 0, array.dtype, grid)


def _of_integers(array: Integers, bits: int | None) -> BitPlanes:
    negative = array < 0
    whole = array.astype(np.uint64)  # modulo 2^64, so that the least int64 has a magnitude too
    magnitude = np.where(negative, _negated(whole), whole)
    needed = max(1, int(magnitude.max(initial=0)).bit_length())
    bits = needed + 1 if bits is None else _checked(bits, 2, MOST_PLANES + 1)
    if needed > bits - 1:
        raise EncodingError(f"bitplanes: these integers need {needed + 1} bits with the sign, got bits={bits}")
    return BitPlanes(_planes(magnitude, bits - 1), negative, array.dtype)


def _negated(whole: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Modulo 2^64; numpy warns of it where there are no axes."""
    with np.errstate(over="ignore"):
        return np.asarray(np.uint64(0) - whole)


def _planes(magnitude: NDArray[np.uint64], count: int) -> NDArray[np.bool_]:
    planes = np.zeros((count, *magnitude.shape), np.bool_)
    for index in range(count):
        planes[index] = magnitude >> np.uint64(count - 1 - index) & np.uint64(1)
    return planes


def _checked(bits: Any, least: int, most: int) -> int:
    if not is_integer(bits) or not least <= bits <= most:
        raise EncodingError(f"bits must be an integer of {least} to {most}, the sign included, got {bits!r}")
    return bits
