"""`Escaped`: an encoding with some values held one by one beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, final

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from bitwidth.encodings.affine import Affine
from bitwidth.encodings.dense import Dense, Format
from bitwidth.encodings.encoding import Encoding, EncodingState, encoding_from_state, locked, register_encoding
from bitwidth.encodings.masked import Masked
from bitwidth.encodings.summary import EncodingSummary
from bitwidth.errors import EncodingError, Refused
from bitwidth.typing import Array, Integers

if TYPE_CHECKING:
    from bitwidth.encodings.quantized import Quantized


@final
@register_encoding("escaped")
@dataclass(frozen=True, eq=False)
class Escaped(Encoding):
    """Values of another encoding where the plane is False, values held one by one where it is True.

    A few outliers left in floating point let the grid of the others be finer: the dense-and-sparse decomposition of
    Kim et al. 2024, "SqueezeLLM", section 4.2. What is escaped is a constant of the encoding: `project` returns it
    whatever it is given. The code in an escaped place is that of zero and means nothing.

    Attributes:
        plane: bool, the shape of the tensor; True where the value is escaped.
        values: float32 of shape (escaped values,), in C order; rounded to `format`.
        base: how the others are held; neither masked (a mask goes over the escapes) nor escaped itself.
        format: how an escaped value is stored: `"float32"`, `"float16"` or `"bfloat16"`.

    Raises:
        EncodingError: plane, values and base do not fit each other, or a value is not finite in the format.

    Example:
        >>> from bitwidth.encodings import Quantized, uniform_levels
        >>> grid = Quantized(uniform_levels(3), np.array([0.5], np.float32), block=(3,))
        >>> held = Escaped(np.array([False, True, False]), np.array([9.75], np.float32), grid)
        >>> held.project(np.array([0.6, 1.0, -9.0], np.float32))
        array([ 0.5 ,  9.75, -1.5 ], dtype=float32)
    """

    plane: NDArray[np.bool_]
    values: NDArray[np.float32]
    base: Encoding = field(default_factory=Dense)
    format: Format = "float32"

    def __post_init__(self) -> None:
        plane = np.asarray(self.plane)
        if plane.dtype != np.bool_:
            raise EncodingError(f"a plane of escapes holds booleans, got {plane.dtype}")
        if isinstance(self.base, Masked | Escaped):
            raise EncodingError("a mask or escapes under escapes: a mask goes over them, and escapes are one plane")
        if self.format not in ("float32", "float16", "bfloat16"):
            raise EncodingError("escaped values have a format: float32, float16 or bfloat16")
        self.base.check(plane.shape, "plane of escapes")
        given = np.asarray(self.values)
        if given.dtype.kind != "f" or given.shape != (int(np.count_nonzero(plane)),):
            count = int(np.count_nonzero(plane))
            raise EncodingError(f"{count} escaped values expected, got {given.dtype} of shape {given.shape}")
        values = Dense(self.format).project(given)
        if not np.isfinite(values).all():
            raise EncodingError(f"escaped values must be finite in {self.format}")
        object.__setattr__(self, "plane", locked(plane))
        object.__setattr__(self, "values", locked(values))

    @classmethod
    def of(cls, values: Array, plane: NDArray[np.bool_], base: Encoding, format: Format = "float32") -> Escaped:
        """`base` with those of `values` (the whole tensor) escaped that `plane` names."""
        return cls(plane, np.asarray(values, np.float32)[plane], base, format)

    def holding(self, values: Array) -> Escaped:
        """The same escapes with the values of another tensor of the same shape."""
        self.check(values.shape)
        return Escaped.of(values, self.plane, self.base, self.format)

    @override
    def encode(self, values: Array) -> Array:
        """The codes of the base; where a value is escaped, that of zero."""
        self.check(values.shape)
        return self.base.encode(np.where(self.plane, np.zeros((), values.dtype), values))

    @override
    def decode(self, codes: Array) -> Array:
        self.check(codes.shape)
        values = np.array(self.base.decode(codes))
        values[self.plane] = self.values
        return values

    @override
    def check(self, shape: Sequence[int], name: str = "tensor") -> None:
        if tuple(shape) != self.plane.shape:
            raise EncodingError(f"{name}: expected the shape {self.plane.shape} of the escapes, got {tuple(shape)}")

    @override
    def check_codes(self, codes: Array) -> None:
        self.base.check_codes(codes)

    @override
    def packed_bits(self, shape: Sequence[int]) -> int:
        """A plane of one bit each, the escaped values, and the codes of the others with their side data."""
        self.check(shape)
        side = self.plane.size + self.values.size * Dense(self.format).width
        return side + self.base.packed_bits(shape) - self.base.code_bits(self.plane)

    @override
    def code_bits(self, where: NDArray[np.bool_]) -> int:
        return self.base.code_bits(where & ~self.plane)

    @override
    def within(self, keep: NDArray[np.bool_]) -> Escaped:
        if not (self.plane & ~keep).any():
            return self
        return Escaped(self.plane & keep, self.values[keep[self.plane]], self.base, self.format)

    @override
    def take(self, axis: int, indices: Integers) -> Escaped:
        whole = np.zeros(self.plane.shape, np.float32)
        whole[self.plane] = self.values
        plane = self.plane.take(indices, axis=axis)
        return Escaped.of(whole.take(indices, axis=axis), plane, self.base.take(axis, indices), self.format)

    @override
    def broken_by(self, later: Encoding) -> str | None:
        inner = later.unmasked
        if not isinstance(inner, Escaped):
            return self.base.broken_by(later)
        if inner.plane.shape != self.plane.shape:
            return self.base.broken_by(later)
        more = int(np.count_nonzero(inner.plane & ~self.plane))
        if more:
            return f"{more:,} more values would be held beside {self.base.describe()}"
        if inner.escape_bits > self.escape_bits:
            return f"escaped values were held as {self.format} and would be held as {inner.format}"
        return self.base.broken_by(inner.base)

    @override
    def summary(self) -> EncodingSummary:
        return replace(self.base.summary(), escapes=self.values.size, escape_format=self.format)

    @override
    def affine(self, values: Array) -> Affine:
        held = self.project(values)
        found = self.base.affine(held)
        if not np.array_equal(found.values(), held):
            raise Refused(f"{self.values.size:,} values are held beside the grid, as {self.format}")
        return found

    @property
    @override
    def grid(self) -> Quantized | None:
        return self.base.grid

    @property
    @override
    def bits(self) -> float:
        return self.base.bits

    @property
    @override
    def escape_bits(self) -> int:
        return Dense(self.format).width if self.values.size else 0

    @override
    def state(self) -> EncodingState:
        arrays: dict[str, Array] = {"plane": self.plane, "values": self.values}
        return EncodingState(self.kind, {"format": self.format}, arrays, {"base": self.base.state()})

    @override
    @classmethod
    def from_state(cls, state: EncodingState) -> Escaped:
        plane, values = state.arrays["plane"], state.arrays["values"]
        base = encoding_from_state(state.parts["base"])
        return cls(plane, np.asarray(values, np.float32), base, state.config["format"])


def escaped_places(encoding: Encoding) -> NDArray[np.bool_] | None:
    """True where a value is held by itself beside the codes, of the tensor's shape; None where there are no escapes.

    Example:
        >>> plane = np.array([False, True])
        >>> escaped_places(Escaped(plane, np.array([9.75], np.float32)))
        array([False,  True])
    """
    held = encoding.unmasked
    return held.plane if isinstance(held, Escaped) else None
