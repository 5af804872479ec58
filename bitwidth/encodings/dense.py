"""`Dense`: values held one by one, in a floating point format or unchanged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from bitwidth.encodings.affine import Affine
from bitwidth.encodings.encoding import Encoding, EncodingState, register_encoding
from bitwidth.encodings.summary import EncodingSummary
from bitwidth.errors import EncodingError, Refused
from bitwidth.typing import Array, Integers

Format = Literal["float32", "float16", "bfloat16", "e8m6", "e8m5", "e8m4", "e8m3", "e8m2", "e8m1"]
FEW_MANTISSA_BITS: tuple[Format, ...] = ("e8m6", "e8m5", "e8m4", "e8m3", "e8m2", "e8m1")
_WIDTHS: dict[str, int] = {"float32": 32, "float16": 16, "bfloat16": 16}
_WIDTHS |= {name: 9 + int(name[-1]) for name in FEW_MANTISSA_BITS}


@register_encoding("dense")
@dataclass(frozen=True, eq=False)
class Dense(Encoding):
    """Every value by itself.

    Attributes:
        format: `None` holds the values unchanged, whatever their dtype; `"float32"`, `"float16"` (11 significant
            bits, 6e-5 to 65504), `"bfloat16"` (8 significant bits, the range of float32) or `"e8m6"` to `"e8m1"` (a
            sign, the 8 exponent bits of float32 and so many mantissa bits, of which bfloat16 has 7) round them to that
            format, halves to the even neighbour. The codes of bfloat16 and below are the bits of a bfloat16, uint16.
        width: bits of one value; given by `format` unless that is None.

    Example:
        >>> Dense("bfloat16").project(np.array([1.001], np.float32))
        array([1.], dtype=float32)
        >>> few = Dense("e8m2")
        >>> few.project(np.array([1.1, 1.13, -7.5], np.float32)), few.width
        (array([ 1.  ,  1.25, -8.  ], dtype=float32), 11)
    """

    format: Format | None = None
    width: int = 32

    def __post_init__(self) -> None:
        if self.format is not None:
            if self.format not in _WIDTHS:
                raise EncodingError(f"format must be one of {', '.join(_WIDTHS)} or None, got {self.format!r}")
            object.__setattr__(self, "width", _WIDTHS[self.format])
        if not 1 <= self.width <= 128:
            raise EncodingError(f"width must be 1 to 128 bits, got {self.width}")

    @override
    def encode(self, values: Array) -> Array:
        if self.format is None:
            return values
        values = np.asarray(values, np.float32)
        if self.mantissa_bits is not None:
            return _shortened(values, self.mantissa_bits)
        with np.errstate(over="ignore"):
            return values.astype(self.format)

    @override
    def decode(self, codes: Array) -> Array:
        if self.format is None:
            return codes
        if self.mantissa_bits is not None:
            return (codes.astype(np.uint32) << 16).view(np.float32)
        return codes.astype(np.float32)

    @property
    def mantissa_bits(self) -> int | None:
        """How many mantissa bits of a float32 are kept: 7 in bfloat16, less in shorter formats; None for the others."""
        if self.format == "bfloat16":
            return 7
        return int(self.format[-1]) if self.format in FEW_MANTISSA_BITS else None

    @override
    def check(self, shape: Sequence[int], name: str = "tensor") -> None:
        """Dense fits every shape."""

    @override
    def check_codes(self, codes: Array) -> None:
        """Raise EncodingError where a code has mantissa bits that its format does not have."""
        if self.mantissa_bits is None or not codes.size:
            return
        if (codes & np.uint16((1 << (7 - self.mantissa_bits)) - 1)).any():
            raise EncodingError(f"codes with more than the {self.mantissa_bits} mantissa bits of {self.format}")

    @override
    def packed_bits(self, shape: Sequence[int]) -> int:
        return self.width * int(np.prod(shape, dtype=np.int64))

    @override
    def take(self, axis: int, indices: Integers) -> Dense:
        return self

    @override
    def broken_by(self, later: Encoding) -> str | None:
        later = later.unmasked
        if self.format is None:
            return None
        if later.escape_bits > self.width:
            return f"it was held as {self.describe()} and some values would be held in {later.escape_bits} bits"
        if isinstance(later, Dense) and (later.format is None or later.width > self.width):
            return f"it was held as {self.describe()} and would be held as {later.describe()}"
        if self.format in FEW_MANTISSA_BITS and later.bits > self.width:
            return f"it was held as {self.describe()} and would be held as {later.describe()}"
        return None

    @override
    def summary(self) -> EncodingSummary:
        return EncodingSummary(kind=self.kind, bits=self.width, format=self.format)

    @override
    def affine(self, values: Array) -> Affine:
        raise Refused(f"{self.format or 'floating point'} values have no integer codes")

    @property
    @override
    def bits(self) -> float:
        return self.width

    @override
    def state(self) -> EncodingState:
        return EncodingState(self.kind, {"format": self.format, "width": self.width})

    @override
    @classmethod
    def from_state(cls, state: EncodingState) -> Dense:
        return cls(format=state.config["format"], width=int(state.config["width"]))


def _shortened(values: NDArray[np.float32], mantissa_bits: int) -> NDArray[np.uint16]:
    """The upper halves of float32 bits, rounded to so many mantissa bits (1 to 7) with zeros below them."""
    drop = np.uint32(23 - mantissa_bits)
    bits = np.ascontiguousarray(values).view(np.uint32)
    rounded = (bits + np.uint32((1 << (22 - mantissa_bits)) - 1) + ((bits >> drop) & np.uint32(1))) >> drop << drop
    quiet = (bits >> drop << drop) | np.uint32(0x400000)
    return (np.where(np.isnan(values), quiet, rounded) >> np.uint32(16)).astype(np.uint16).reshape(values.shape)
