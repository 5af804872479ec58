"""What every encoding can do, and the registry that reads one back from plain data."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import isinf
from typing import TYPE_CHECKING, ClassVar, TypeVar, final

import numpy as np
from numpy.typing import NDArray

from bitwidth.encodings.affine import Affine
from bitwidth.encodings.summary import EncodingSummary
from bitwidth.errors import ConfigError, EncodingError, Refused
from bitwidth.typing import Array, Integers, JsonMapping

if TYPE_CHECKING:
    from bitwidth.encodings.quantized import Quantized


@final
@dataclass(frozen=True)
class EncodingState:
    """An encoding taken apart, so that it can be written to a file and built again.

    Attributes:
        kind: registered name of the encoding's class.
        config: plain data (JSON).
        arrays: named arrays: scales, levels, masks.
        parts: encodings inside this one.
    """

    kind: str
    config: JsonMapping = field(default_factory=dict)
    arrays: Mapping[str, Array] = field(default_factory=dict)
    parts: Mapping[str, EncodingState] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Encoding(ABC):
    """How the values of one tensor are held. Immutable, numpy only, and without the values themselves.

    Three laws hold for every encoding: `decode(encode(x))` is `project(x)`; projecting twice is projecting once, to the
    bit; and `packed_bits` is the exact cost of the codes and side data when packed without an entropy coder.
    `bitwidth.testing.check_encoding` checks these and the others.
    """

    kind: ClassVar[str]

    @abstractmethod
    def encode(self, values: Array) -> Array:
        """The codes nearest to `values`: an array of the same shape."""

    @abstractmethod
    def decode(self, codes: Array) -> Array:
        """The values that `codes` stand for: an array of the same shape."""

    def project(self, values: Array) -> Array:
        """The values nearest to `values` that this encoding can hold."""
        return self.decode(self.encode(values))

    @abstractmethod
    def check(self, shape: Sequence[int], name: str = "tensor") -> None:
        """Raise EncodingError unless the encoding fits a tensor of this shape; `name` goes into the message."""

    def check_codes(self, codes: Array) -> None:  # noqa: B027 - most encodings can decode any code
        """Raise EncodingError unless each of `codes` (any shape, from a file) is one that the encoding can decode."""

    @abstractmethod
    def packed_bits(self, shape: Sequence[int]) -> int:
        """Bits of a tensor of this shape with its scales, levels and masks, packed, before entropy coding."""

    @abstractmethod
    def take(self, axis: int, indices: Integers) -> Encoding:
        """The encoding of `values.take(indices, axis)`.

        Raises:
            EncodingError: the selection cuts through a group that shares a scale.
        """

    @abstractmethod
    def broken_by(self, later: Encoding) -> str | None:
        """Why `later` would not keep what this encoding promised, or None if it does."""

    def describe(self) -> str:
        """A few words for a table: by default those of `summary`."""
        return self.summary().words()

    def summary(self) -> EncodingSummary:
        """What the encoding is, as values: for tables, JSON, and whatever else shows it.

        By default the kind, the bits, and the words of `describe` where that is overridden.

        Example:
            >>> from bitwidth.encodings import Dense
            >>> Dense("float16").summary().bits
            16
        """
        own = type(self).describe is not Encoding.describe
        bits = None if isinf(self.bits) else self.bits
        kind = getattr(type(self), "kind", type(self).__name__)
        return EncodingSummary(kind=kind, bits=bits, label=self.describe() if own else None)

    def affine(self, values: Array) -> Affine:
        """`project(values)` as integer codes, scales and zero points: what LiteRT, ONNX and others store.

        Args:
            values: the tensor, float32.

        Returns:
            Codes with `(codes - zero_point) * scale`, in float32, equal to `project(values)` to the last bit, but for
            the sign of zeros.

        Raises:
            Refused: the values cannot be held so; `reason` says why.
            EncodingError: the encoding does not fit the shape.

        Example:
            >>> from bitwidth.encodings import Dense, Quantized, uniform_levels
            >>> grid = Quantized(uniform_levels(4), np.array([[0.5, 0.25]], np.float32), block=(2, 1))
            >>> found = grid.affine(np.array([[1.1, 1.1], [-9.0, 0.0]], np.float32))
            >>> found.codes.tolist(), found.scale.tolist(), found.axis, found.bits
            ([[2, 4], [-7, 0]], [[0.5, 0.25]], 1, 4)
            >>> try:
            ...     Dense("float16").affine(np.ones(3, np.float32))
            ... except Refused as refusal:
            ...     print(refusal.reason)
            float16 values have no integer codes
        """
        raise Refused(f"values held as {self.describe()!r} have no integer codes that are known here")

    @property
    @abstractmethod
    def bits(self) -> float:
        """Width of one code in bits, without side data; infinite where it has no bound."""

    @property
    def mask(self) -> NDArray[np.bool_] | None:
        """True where a value is kept, False where it is zero for good; None where nothing is masked."""
        return None

    @property
    def escape_bits(self) -> int:
        """Width of the values that are held one by one beside the codes (see `Escaped`); 0 where there are none."""
        return 0

    @property
    def grid(self) -> Quantized | None:
        """The grid that values lie on which neither a mask nor escapes take out of it; None for other encodings."""
        return None

    def code_bits(self, where: NDArray[np.bool_]) -> int:
        """Bits of the packed codes at the places where `where`, of the tensor's shape, is True."""
        return int(self.bits) * int(np.count_nonzero(where))

    def within(self, keep: NDArray[np.bool_]) -> Encoding:
        """The encoding to put under a mask: without side data for the values that the mask drops."""
        return self

    @property
    def unmasked(self) -> Encoding:
        """How unmasked values are held: the encoding itself, or the one under its mask."""
        return self

    @abstractmethod
    def state(self) -> EncodingState:
        """The encoding as plain data and arrays."""

    @classmethod
    @abstractmethod
    def from_state(cls, state: EncodingState) -> Encoding:
        """Build the encoding that `state` describes; every invariant is checked again."""


E = TypeVar("E", bound=type[Encoding])
_KINDS: dict[str, type[Encoding]] = {}


def register_encoding(kind: str) -> Callable[[E], E]:
    """Class decorator: make an encoding readable from files under the name `kind`.

    Raises:
        ConfigError: another class has that name already.
    """

    def decorate(cls: E) -> E:
        if _KINDS.get(kind, cls) is not cls:
            raise ConfigError(f"an encoding named {kind!r} is registered already: {_KINDS[kind].__qualname__}")
        cls.kind = kind
        _KINDS[kind] = cls
        return cls

    return decorate


def is_registered(kind: str) -> bool:
    """Whether this process knows an encoding by that name."""
    return kind in _KINDS


def encoding_from_state(state: EncodingState) -> Encoding:
    """Build an encoding from plain data.

    Raises:
        EncodingError: the kind is not known here, or the state does not make a valid encoding.
    """
    if state.kind not in _KINDS:
        raise EncodingError(f"unknown encoding {state.kind!r}; known: {', '.join(sorted(_KINDS))}")
    try:
        return _KINDS[state.kind].from_state(state)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise EncodingError(f"not a valid {state.kind!r} encoding: {error}") from error


def locked(array: Array) -> Array:
    """A read-only copy of `array`, so that a frozen encoding is frozen to the last element."""
    array = np.array(array)
    array.setflags(write=False)
    return array
