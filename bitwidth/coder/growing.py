"""Many rANS lanes that cost next to nothing: lanes are split off a lane, and merged into one again, by coding them.

Lanes are those of `bitwidth.coder.lanes`: 32-bit states that move 16-bit words to and from one shared stack, a numpy
call a row. There, a stream holds every lane's state whole and every lane starts at 2**16, about three bytes a lane.
Here an encoder starts with one lane. After some rows it splits every lane in two: the new lane's state, whose size is
log-uniform as that of a running lane is, is taken from the old lane's state and from the words written so far, as a
decoder would take a symbol. At the end all lanes are merged into one: each second lane's state is coded into the
other's. What goes in by splitting comes out by merging, so a lane costs about a tenth of a bit. The decoder does the
same backwards.

    stream: the one state (4 bytes), then the words in the decoder's order
    order of the symbols: rows of all lanes, then `rows` rows of half the lanes, a quarter, ... one lane

Sources: J. Townsend, T. Bird, D. Barber, "Practical lossless compression with latent variables using bits back coding"
(arXiv:1901.04866), for coding by decoding; F. Giesen (arXiv:1402.3392) for lanes that share words.

Example:
    >>> freqs = np.array([3072, 1024])
    >>> symbols = np.zeros(999, np.uint8)
    >>> data, padding = encode(symbols, freqs, 12, 3, 99)
    >>> len(data), padding
    (54, 0)
    >>> bool((decode(data, 999, freqs, np.array([0, 1], np.uint8), 12, 3, 99, padding) == symbols).all())
    True
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bitwidth.coder.lanes import starts_of
from bitwidth.errors import CorruptFileError
from bitwidth.typing import Array

_LOW = np.uint32(1 << 16)
_WORD = np.uint32(16)
_LOW_BITS = np.uint32(0xFFFF)
_SIZE_BITS = np.uint32(4)  # the size of a state above 2**16: 16 octaves
_UP = 1.0 + 2.0**-46
_CHUNK = 1 << 15  # symbols whose table entries are looked up in one call
_MOST_WORDS = 3  # that splitting takes for a lane


def tail_of(log_lanes: int, rows: int) -> int:
    """How many symbols are coded while lanes are being split off.

    Example:
        >>> tail_of(3, 10)
        70
    """
    return rows * ((1 << log_lanes) - 1)


def encode(
    symbols: Array,
    freqs: NDArray[np.int64],
    bits: int,
    log_lanes: int,
    rows: int,
    tables: NDArray[np.uint8] | None = None,
    most_padding: int | None = None,
) -> tuple[bytes, int] | None:
    """Code symbols in up to `2**log_lanes` lanes.

    Args:
        symbols: unsigned integers, 1-D, `tail_of(log_lanes, rows)` of them or more.
        freqs: int64, each table's frequencies sum to `2**bits`; [symbol] or [table, symbol].
        bits: 12..15.
        log_lanes: log2 of the most lanes, 0..15.
        rows: how many rows are coded between one splitting and the next, 1 or more. Where they are too few to fill the
            new lanes with what they wrote, padding does it.
        tables: uint8, the table of each symbol, where there are several.
        most_padding: give up where more words of padding are needed; None to pad in any case.

    Returns:
        The stream, and how many 16-bit words of it are padding; None where that would be too many.

    Example:
        >>> len(encode(np.zeros(8, np.uint8), np.array([4095, 1]), 12, 0, 1)[0])
        4
    """
    lanes = 1 << log_lanes
    room = _MOST_WORDS * lanes
    words = np.zeros(symbols.size + 2 * room, dtype=np.uint16)
    bottom = deepest = at = words.size - room
    coding = _Coding(freqs, bits)
    states = np.full(1, _LOW, dtype=np.uint32)
    end = symbols.size
    for _ in range(log_lanes):
        begin = end - rows * states.size
        at = coding.rows(symbols[begin:end], _part(tables, begin, end), states, words, at)
        states, at = _split(states, words, at)
        deepest, end = max(deepest, at), begin
        if most_padding is not None and deepest - bottom > most_padding:
            return None
    at = coding.rows(symbols[:end], _part(tables, 0, end), states, words, at)
    for _ in range(log_lanes):
        states, at = _merge(states, words, at)
    return states.astype("<u4").tobytes() + words[at:deepest].astype("<u2").tobytes(), deepest - bottom


def _part(tables: NDArray[np.uint8] | None, begin: int, end: int) -> NDArray[np.uint8] | None:
    return None if tables is None else tables[begin:end]


class _Coding:
    """What an encoder looks up for each symbol."""

    def __init__(self, freqs: NDArray[np.int64], bits: int) -> None:
        flat = freqs.reshape(-1)
        safe = np.maximum(flat, 1)
        self.alphabet = freqs.shape[-1]
        self.most = ((safe << (32 - bits)) - 1).astype(np.uint32)  # a state above this is a word too large
        self.reciprocals = _UP / safe
        self.beyond = ((1 << bits) - safe).astype(np.uint32)  # what a quotient adds beside the frequency
        self.starts = starts_of(flat, bits).astype(np.uint32)

    def rows(
        self,
        symbols: Array,
        tables: NDArray[np.uint8] | None,
        states: NDArray[np.uint32],
        words: NDArray[np.uint16],
        at: int,
    ) -> int:
        """Code a row of lanes at a time, the last one first, moving `states` on; where the words begin now."""
        lanes = states.size
        chunk = max(_CHUNK // lanes, 1) * lanes
        for begin in range((symbols.size - 1) // chunk * chunk, -1, -chunk):
            index = symbols[begin : begin + chunk].astype(np.intp)
            if tables is not None:
                index += np.multiply(tables[begin : begin + chunk], self.alphabet, dtype=np.intp)
            at = self._chunk(index, states, words, at)
        return at

    def _chunk(self, index: NDArray[np.intp], states: NDArray[np.uint32], words: NDArray[np.uint16], at: int) -> int:
        most, starts = self.most.take(index), self.starts.take(index)
        reciprocals, beyond = self.reciprocals.take(index), self.beyond.take(index)
        lanes = states.size
        over = np.empty(lanes, dtype=np.bool_)
        quotient = np.empty(lanes, dtype=np.int32)
        unsigned = quotient.view(np.uint32)
        x, o, q, u = states, over, quotient, unsigned
        greater, multiply, add, copyto = np.greater, np.multiply, np.add, np.copyto
        for begin in range((index.size - 1) // lanes * lanes, -1, -lanes):
            row = slice(begin, begin + lanes)
            if (size := min(lanes, index.size - begin)) != x.size:
                x, o, q, u = states[:size], over[:size], quotient[:size], unsigned[:size]
            greater(x, most[row], o)
            places = o.nonzero()[0]
            moved = x.take(places)
            at -= places.size
            words[at : at + places.size] = moved
            moved >>= _WORD
            x[places] = moved
            real = reciprocals[row]
            multiply(real, x, real)
            copyto(q, real, casting="unsafe")
            multiply(u, beyond[row], u)
            add(x, u, x)
            add(x, starts[row], x)
        return at


def _split(states: NDArray[np.uint32], words: Array, at: int) -> tuple[NDArray[np.uint32], int]:
    """Twice as many lanes: (states, where the words begin now)."""
    old = states.copy()
    size = old & np.uint32((1 << int(_SIZE_BITS)) - 1)
    old >>= _SIZE_BITS
    at = _refill(old, words, at)
    lead = np.uint32(1) << size
    high = (old & (lead - np.uint32(1))) | lead
    old >>= size
    at = _refill(old, words, at)
    low = words[at : at + old.size]
    if low.size < old.size:
        raise CorruptFileError("coded stream: its words are truncated")
    return np.concatenate([old, (high << _WORD) | low]).astype(np.uint32, copy=False), at + old.size


def _refill(states: NDArray[np.uint32], words: Array, at: int) -> int:
    under = (states < _LOW).nonzero()[0]
    fresh = words[at : at + under.size]
    if fresh.size < under.size:
        raise CorruptFileError("coded stream: its words are truncated")
    states[under] = (states.take(under) << _WORD) | fresh
    return at + under.size


def _merge(states: NDArray[np.uint32], words: Array, at: int) -> tuple[NDArray[np.uint32], int]:
    """Half as many lanes: what `_split` does, backwards."""
    half = states.size // 2
    old, new = states[:half].astype(np.uint64), states[half:]
    high = (new >> _WORD).astype(np.uint64)
    size = (np.frexp(high.astype(np.float64))[1] - 1).astype(np.uint64)
    at = _push(new, words, at)
    for value, width in ((high ^ (np.uint64(1) << size), size), (size, np.full(half, _SIZE_BITS, np.uint64))):
        over = (old >> (np.uint64(32) - width)).nonzero()[0]
        moved = old.take(over)
        at = _push(moved, words, at)
        old[over] = moved >> np.uint64(16)
        old = (old << width) | value
    return old.astype(np.uint32), at


def _push(values: Array, words: Array, at: int) -> int:
    """Put the low 16 bits of each value in front of the words."""
    begin = at - values.size
    if begin < 0:
        raise CorruptFileError("coded stream: more words than it holds")
    words[begin:at] = values & values.dtype.type(0xFFFF)
    return begin


def decode(
    data: bytes,
    count: int,
    freqs: NDArray[np.int64],
    values: Array,
    bits: int,
    log_lanes: int,
    rows: int,
    padding: int,
    tables: NDArray[np.uint8] | None = None,
) -> Array:
    """Decode what `encode` wrote.

    Args:
        data: exactly the bytes that `encode` returned; untrusted.
        count: how many symbols.
        freqs: as given to `encode`.
        values: what to return for each index of the flattened `freqs`, any dtype.
        bits: as given to `encode`.
        log_lanes: as given to `encode`.
        rows: as given to `encode`.
        padding: as returned by `encode`.
        tables: as given to `encode`.

    Returns:
        [count] of the dtype of `values`.

    Raises:
        CorruptFileError: words missing or left over, or a state that does not end where an encoder's starts.

    Example:
        >>> data, padding = encode(np.zeros(2, np.uint8), np.array([4095, 1]), 12, 0, 1)
        >>> decode(data, 2, np.array([4095, 1]), np.array([7, 8]), 12, 0, 1, padding)
        array([7, 7])
    """
    if len(data) < 4 or len(data) % 2 or count < tail_of(log_lanes, rows):
        raise CorruptFileError("coded stream: its lanes are truncated")
    states = np.frombuffer(data, dtype="<u4", count=1).astype(np.uint32)
    words = np.frombuffer(data, dtype="<u2", offset=4).astype(np.uint32)
    if int(states[0]) < int(_LOW):
        raise CorruptFileError("coded stream: a lane's state is out of range")
    out = np.empty(count, dtype=values.dtype)
    state, at = _decode_all(out, states, words, _slots(freqs.reshape(-1), values, bits), bits, log_lanes, rows, tables)
    if at + padding != words.size or state != int(_LOW) or words[at:].any():
        raise CorruptFileError("coded stream: it does not end where its symbols do")
    return out


def _decode_all(
    out: Array,
    states: NDArray[np.uint32],
    words: NDArray[np.uint32],
    slots: tuple[NDArray[np.uint32], Array],
    bits: int,
    log_lanes: int,
    rows: int,
    tables: NDArray[np.uint8] | None,
) -> tuple[int, int]:
    """Split all lanes off, decode into `out` and merge them again: (the one state, how many words were taken)."""
    at = begin = 0
    for _ in range(log_lanes):
        states, at = _split(states, words, at)
    end = out.size - tail_of(log_lanes, rows)
    for _ in range(log_lanes):
        at = _decode_rows(out[begin:end], states, words, at, slots, bits, _part(tables, begin, end))
        states, at = _merge(states, words, at)
        begin, end = end, end + rows * states.size
    at = _decode_rows(out[begin:], states, words, at, slots, bits, _part(tables, begin, out.size))
    return int(states[0]), at


def _slots(freqs: NDArray[np.int64], values: Array, bits: int) -> tuple[NDArray[np.uint32], Array]:
    """For each slot of the probability range: its frequency and offset in one word, and the value it stands for."""
    packed = ((freqs << 16) - starts_of(freqs, bits)).astype(np.int64)
    slots = np.repeat(packed, freqs).reshape(-1, 1 << bits)
    slots += np.arange(1 << bits)
    return slots.astype(np.uint32).reshape(-1), np.repeat(values, freqs)


def _decode_rows(
    out: Array,
    states: NDArray[np.uint32],
    words: NDArray[np.uint32],
    at: int,
    slots: tuple[NDArray[np.uint32], Array],
    bits: int,
    tables: NDArray[np.uint8] | None,
) -> int:
    """Decode a row of lanes at a time into `out`, moving `states` on; where the words begin now."""
    lanes = states.size
    chunk = max(_CHUNK // lanes, 1) * lanes
    for begin in range(0, out.size, chunk):
        part = out[begin : begin + chunk]
        bases = None
        if tables is not None:
            bases = np.left_shift(tables[begin : begin + chunk], bits, dtype=np.intp)
        at = _decode_chunk(part, states, words, at, slots, bits, bases)
    return at


def _decode_chunk(
    out: Array,
    states: NDArray[np.uint32],
    words: NDArray[np.uint32],
    at: int,
    slots: tuple[NDArray[np.uint32], Array],
    bits: int,
    bases: NDArray[np.intp] | None,
) -> int:
    packed, meaning = slots
    lanes, mask, shift = states.size, np.uint32((1 << bits) - 1), np.uint32(bits)
    places = np.empty(out.size, dtype=np.intp)
    span, work, under = (np.empty(lanes, dtype=kind) for kind in (np.uint32, np.uint32, np.bool_))
    x, s, t, u = states, span, work, under
    both, right, multiply, add, less, copyto = (
        np.bitwise_and,
        np.right_shift,
        np.multiply,
        np.add,
        np.less,
        np.copyto,
    )
    for begin in range(0, out.size, lanes):
        index = places[begin : begin + lanes]
        if index.size != x.size:
            x, s, t, u = states[: index.size], span[: index.size], work[: index.size], under[: index.size]
        both(x, mask, s)
        if bases is None:
            copyto(index, s)
        else:
            add(bases[begin : begin + lanes], s, index)
        packed.take(index, None, s, "wrap")
        right(x, shift, x)
        right(s, _WORD, t)
        multiply(x, t, x)
        both(s, _LOW_BITS, s)
        add(x, s, x)
        less(x, _LOW, u)
        low = u.nonzero()[0]
        fresh = words[at : at + low.size]
        if fresh.size != low.size:
            raise CorruptFileError("coded stream: its words are truncated")
        at += low.size
        moved = x.take(low)
        moved <<= _WORD
        moved |= fresh
        x[low] = moved
    meaning.take(places, None, out, "wrap")
    return at
