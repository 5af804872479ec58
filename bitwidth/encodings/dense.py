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

Format = Literal["float32", "float16", "bfloat16"]
_WIDTHS: dict[str, int] = {"float32": 32, "float16": 16, "bfloat16": 16}


@register_encoding("dense")
@dataclass(frozen=True, eq=False)
class Dense(Encoding):
    """Every value by itself.

    Attributes:
        format: `None` holds the values unchanged, whatever their dtype; `"float32"`, `"float16"` (11 significant
            bits, 6e-5 to 65504) or `"bfloat16"` (8 significant bits, the range of float32) round them to that format.
        width: bits of one value; given by `format` unless that is None.

    Example:
        >>> Dense("bfloat16").project(np.array([1.001], np.float32))
        array([1.], dtype=float32)
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
        if self.format == "bfloat16":
            return _to_bfloat16(values)
        with np.errstate(over="ignore"):
            return values.astype(self.format)

    @override
    def decode(self, codes: Array) -> Array:
        if self.format is None:
            return codes
        if self.format == "bfloat16":
            return (codes.astype(np.uint32) << 16).view(np.float32)
        return codes.astype(np.float32)

    @override
    def check(self, shape: Sequence[int], name: str = "tensor") -> None:
        """Dense fits every shape."""

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


def _to_bfloat16(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    bits = np.ascontiguousarray(values).view(np.uint32)
    rounded = (bits + np.uint32(0x7FFF) + ((bits >> 16) & np.uint32(1))) >> 16
    quiet = (bits >> 16) | np.uint32(0x40)
    return np.where(np.isnan(values), quiet, rounded).astype(np.uint16).reshape(values.shape)
