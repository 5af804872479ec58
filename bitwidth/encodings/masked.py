"""`Masked`: an encoding with some values held at zero for good."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from bitwidth.encodings.affine import Affine
from bitwidth.encodings.dense import Dense
from bitwidth.encodings.encoding import Encoding, EncodingState, encoding_from_state, locked, register_encoding
from bitwidth.encodings.summary import EncodingSummary
from bitwidth.errors import EncodingError
from bitwidth.typing import Array, Integers

if TYPE_CHECKING:
    from bitwidth.encodings.quantized import Quantized


@register_encoding("masked")
@dataclass(frozen=True, eq=False)
class Masked(Encoding):
    """Values of another encoding where the mask is True, exactly zero where it is False: a mask overrides a grid.

    Attributes:
        keep: bool, the shape of the tensor; True where the value is kept.
        base: how the kept values are held.
        pattern: what the mask was chosen to be, `"2:4"` or `"4x1"` (blocks of inputs and outputs) say; empty for
            single values. A pass that moves values about has to put them into the pattern again, or leave them.

    Example:
        >>> Masked(np.array([True, False])).project(np.array([3.0, 4.0], np.float32))
        array([3., 0.], dtype=float32)
    """

    keep: NDArray[np.bool_]
    base: Encoding = field(default_factory=Dense)
    pattern: str = ""

    def __post_init__(self) -> None:
        keep = np.asarray(self.keep)
        if keep.dtype != np.bool_:
            raise EncodingError(f"a mask holds booleans, got {keep.dtype}")
        if isinstance(self.base, Masked):
            raise EncodingError("a mask over a mask: intersect them with `masked()`")
        self.base.check(keep.shape, "mask")
        object.__setattr__(self, "keep", locked(keep))
        object.__setattr__(self, "base", self.base.within(self.keep))

    @override
    def encode(self, values: Array) -> Array:
        self.check(values.shape)
        codes = self.base.encode(values)
        return np.where(self.keep, codes, np.zeros((), codes.dtype))

    @override
    def decode(self, codes: Array) -> Array:
        self.check(codes.shape)
        values = self.base.decode(codes)
        return np.where(self.keep, values, np.zeros((), values.dtype))

    @override
    def check(self, shape: Sequence[int], name: str = "tensor") -> None:
        if tuple(shape) != self.keep.shape:
            raise EncodingError(f"{name}: expected the mask's shape {self.keep.shape}, got {tuple(shape)}")

    @override
    def packed_bits(self, shape: Sequence[int]) -> int:
        self.check(shape)
        return self.keep.size + self.base.packed_bits(shape) - self.base.code_bits(~self.keep)

    @override
    def code_bits(self, where: NDArray[np.bool_]) -> int:
        return self.base.code_bits(where & self.keep)

    @override
    def take(self, axis: int, indices: Integers) -> Masked:
        return Masked(self.keep.take(indices, axis=axis), self.base.take(axis, indices))

    @override
    def broken_by(self, later: Encoding) -> str | None:
        if later.mask is None:
            return f"{self.keep.size - int(self.keep.sum()):,} values were pruned and would have no mask"
        back = int((later.mask & ~self.keep).sum()) if later.mask.shape == self.keep.shape else self.keep.size
        if back:
            return f"{back:,} pruned values would come back"
        return self.base.broken_by(later)

    @override
    def summary(self) -> EncodingSummary:
        sparsity = 1 - int(np.count_nonzero(self.keep)) / self.keep.size if self.keep.size else 0.0
        return replace(self.base.summary(), sparsity=sparsity)

    @override
    def affine(self, values: Array) -> Affine:
        """As the base holds them, with the code of zero where the mask is False."""
        return self.base.affine(self.project(values)).masked(self.keep)

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
        return self.base.escape_bits

    @property
    @override
    def mask(self) -> NDArray[np.bool_]:
        return self.keep

    @property
    @override
    def unmasked(self) -> Encoding:
        return self.base

    @override
    def state(self) -> EncodingState:
        config = {"pattern": self.pattern} if self.pattern else {}
        return EncodingState(self.kind, config, {"keep": self.keep}, {"base": self.base.state()})

    @override
    @classmethod
    def from_state(cls, state: EncodingState) -> Masked:
        pattern = state.config.get("pattern", "")
        if not isinstance(pattern, str):
            raise EncodingError(f"the pattern of a mask is a text, got {pattern!r}")
        return cls(state.arrays["keep"], encoding_from_state(state.parts["base"]), pattern)


def masked(encoding: Encoding, keep: NDArray[np.bool_], pattern: str = "") -> Masked:
    """`encoding` with a mask over it; a mask that it has already is intersected, so pruned values stay pruned.

    Args:
        encoding: how the values are held.
        keep: the mask.
        pattern: of the mask; empty for that which `encoding` has.

    Example:
        >>> first = masked(Dense(), np.array([True, True, False]))
        >>> masked(first, np.array([True, False, True])).keep
        array([ True, False, False])
    """
    if isinstance(encoding, Masked):
        return Masked(encoding.keep & keep, encoding.base, pattern or encoding.pattern)
    return Masked(keep, encoding, pattern)


def rebased(encoding: Encoding, base: Encoding) -> Encoding:
    """`base` under the mask that `encoding` has, if it has one."""
    return Masked(encoding.mask, base, pattern_of_mask(encoding)) if encoding.mask is not None else base


def pattern_of_mask(encoding: Encoding) -> str:
    """What the mask of an encoding was chosen to be; empty without."""
    return encoding.pattern if isinstance(encoding, Masked) else ""
