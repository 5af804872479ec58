"""What every encoding can do, and the registry that reads one back from plain data."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray

from bitwidth.errors import ConfigError, EncodingError


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
    config: Mapping[str, Any] = field(default_factory=dict)
    arrays: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    parts: Mapping[str, EncodingState] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Encoding(ABC):
    """How the values of one tensor are held. Immutable, numpy only, and without the values themselves.

    Three laws hold for every encoding and are tested for each: `decode(encode(x))` is `project(x)`; projecting twice is
    projecting once, to the bit; and `packed_bits` is the exact cost of the codes and side data when packed without an
    entropy coder.
    """

    kind: ClassVar[str]

    @abstractmethod
    def encode(self, values: NDArray[Any]) -> NDArray[Any]:
        """The codes nearest to `values`: an array of the same shape."""

    @abstractmethod
    def decode(self, codes: NDArray[Any]) -> NDArray[Any]:
        """The values that `codes` stand for: an array of the same shape."""

    def project(self, values: NDArray[Any]) -> NDArray[Any]:
        """The values nearest to `values` that this encoding can hold."""
        return self.decode(self.encode(values))

    @abstractmethod
    def check(self, shape: Sequence[int], name: str = "tensor") -> None:
        """Raise EncodingError unless the encoding fits a tensor of this shape; `name` goes into the message."""

    def check_codes(self, codes: NDArray[Any]) -> None:  # noqa: B027 - most encodings can decode any code
        """Raise EncodingError unless each of `codes` (any shape, from a file) is one that the encoding can decode."""

    @abstractmethod
    def packed_bits(self, shape: Sequence[int]) -> int:
        """Bits of a tensor of this shape with its scales, levels and masks, packed, before entropy coding."""

    @abstractmethod
    def take(self, axis: int, indices: NDArray[np.integer[Any]]) -> Encoding:
        """The encoding of `values.take(indices, axis)`.

        Raises:
            EncodingError: the selection cuts through a group that shares a scale.
        """

    @abstractmethod
    def broken_by(self, later: Encoding) -> str | None:
        """Why `later` would not keep what this encoding promised, or None if it does."""

    @abstractmethod
    def describe(self) -> str:
        """A few words for a table."""

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


def locked(array: NDArray[Any]) -> NDArray[Any]:
    """A read-only copy of `array`, so that a frozen encoding is frozen to the last element."""
    array = np.array(array)
    array.setflags(write=False)
    return array
