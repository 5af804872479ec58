"""One-lane rANS in plain integers: small streams, frequency tables and side information.

A rANS state is one number; coding a symbol that owns `freq` of 2**15 slots multiplies it by about 2**15 / freq. The
number starts at zero and its last value is written in as few bytes as it needs, so a stream costs about two bytes above
the information in it: what counts when a stream is ten symbols long. A rANS stream is written last symbol first,
therefore the encoder collects its symbols and codes them in `finish`.

Source: J. Duda, "Asymmetric numeral systems" (arXiv:1311.2540); adaptive bits follow the Krichevsky-Trofimov estimator.

Example:
    >>> coder = Encoder()
    >>> coder.bits(9, 4)
    >>> decoder = Decoder(coder.finish())
    >>> decoder.bits(4), decoder.end()
    (9, None)
"""

from __future__ import annotations

import math
from typing import final

from bitwidth.errors import CorruptFileError

PRECISION = 15
SCALE = 1 << PRECISION
_LOW = 1 << 32  # far above SCALE, so that the rounding of a state costs nothing
_SETTLED = 30  # an adaptive bit averages over about this many of its last values
_LEAST = 64  # no bit is held for more certain than 1 - 64 / 2**15


@final
class Bit:
    """The adaptive probability of one kind of yes/no decision; encoder and decoder change theirs alike."""

    __slots__ = ("seen", "zero")

    def __init__(self) -> None:
        self.zero = SCALE >> 1
        self.seen = 0

    def slots(self, value: int) -> tuple[int, int]:
        """The (start, freq) of `value`."""
        return (self.zero, SCALE - self.zero) if value else (0, self.zero)

    def update(self, value: int) -> None:
        """Learn that `value` was coded."""
        target = 0 if value else SCALE
        zero = self.zero + (target - self.zero) // (self.seen + 2)
        self.zero = min(max(zero, _LEAST), SCALE - _LEAST)
        self.seen = min(self.seen + 1, _SETTLED)


@final
class Encoder:
    """Collects symbols and codes them into bytes; also counts their cost in bits."""

    def __init__(self) -> None:
        self.spans: list[tuple[int, int]] = []

    def bit(self, model: Bit, value: int) -> None:
        """Code one decision with its adaptive probability."""
        self.spans.append(model.slots(value))
        model.update(value)

    def bits(self, value: int, width: int) -> None:
        """Code `width` equally likely bits."""
        while width > 0:
            step = min(width, 12)
            width -= step
            freq = SCALE >> step
            self.spans.append(((value >> width & (1 << step) - 1) * freq, freq))

    def number(self, value: int) -> None:
        """Code any non-negative integer, small ones in few bits (Elias gamma of value + 1)."""
        width = (value + 1).bit_length() - 1
        for index in range(width + 1):
            self.bits(int(index < width), 1)
        self.bits(value + 1 - (1 << width), width)

    def cost(self) -> float:
        """The information collected so far, in bits."""
        return sum(PRECISION - math.log2(freq) for _, freq in self.spans)

    def finish(self) -> bytes:
        """The coded bytes: the last state, little-endian without leading zeros, then 16-bit words in reading order."""
        state = 0
        words: list[int] = []
        for start, freq in reversed(self.spans):
            if state >= freq << 33:
                words.append(state & 0xFFFF)
                state >>= 16
            state = (state // freq << PRECISION) + state % freq + start
        head = state.to_bytes((state.bit_length() + 7) // 8, "little")
        return head + b"".join(word.to_bytes(2, "little") for word in reversed(words))


@final
class Decoder:
    """Reads what an `Encoder` wrote; untrusted bytes give arbitrary values or `CorruptFileError`, nothing else."""

    def __init__(self, data: bytes) -> None:
        # A state with words behind it is at least 2**32 and so five or six bytes long: the parity of the length tells.
        head = len(data) if len(data) <= 6 else 6 - len(data) % 2
        self.state = int.from_bytes(data[:head], "little")
        if (head and not data[head - 1]) or len(data) - head & 1:
            raise CorruptFileError("coded stream: not a whole rANS stream")
        self._words = memoryview(data)[head:]
        self._at = 0

    @property
    def ended(self) -> bool:
        """Whether no words are left behind the state."""
        return self._at == len(self._words)

    def slot(self) -> int:
        """The slot (0..2**15 - 1) that the next symbol owns."""
        return self.state & SCALE - 1

    def advance(self, start: int, freq: int) -> None:
        """Remove the symbol that owns `freq` slots from `start` on."""
        state = freq * (self.state >> PRECISION) + (self.state & SCALE - 1) - start
        if state < _LOW and self._at < len(self._words):
            at = self._at
            state = state << 16 | self._words[at] | self._words[at + 1] << 8
            self._at = at + 2
        self.state = state

    def bit(self, model: Bit) -> int:
        """One decision, see `Encoder.bit`."""
        value = int(self.slot() >= model.zero)
        self.advance(*model.slots(value))
        model.update(value)
        return value

    def bits(self, width: int) -> int:
        """An integer of `width` equally likely bits."""
        value = 0
        while width > 0:
            step = min(width, 12)
            width -= step
            freq = SCALE >> step
            part = self.slot() // freq
            self.advance(part * freq, freq)
            value = value << step | part
        return value

    def number(self, limit: int) -> int:
        """A non-negative integer of at most `limit`, see `Encoder.number`."""
        width = 0
        while self.bits(1):
            width += 1
            if width > limit.bit_length() + 1:
                raise CorruptFileError(f"coded stream: a number above {limit}")
        value = (1 << width | self.bits(width)) - 1
        if value > limit:
            raise CorruptFileError(f"coded stream: a number above {limit}")
        return value

    def left(self) -> float:
        """About how many bits of information are left."""
        return 8.0 * (len(self._words) - self._at) + math.log2(max(self.state, 1))

    def end(self) -> None:
        """Check that the stream is exactly consumed."""
        if self.state or self._at != len(self._words):
            raise CorruptFileError("coded stream: the rANS stream does not end where its symbols do")
