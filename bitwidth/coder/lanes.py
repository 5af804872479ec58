"""Many rANS lanes stepped together: one numpy call a row of symbols.

Symbol i goes through lane `i % lanes` at row `i // lanes`. Each lane is a 32-bit state in [2**16, 2**32) that moves
16-bit words to and from one shared sequence, in the order in which the decoder needs them. Rows are short enough to
stay in the processor's cache; every call writes into a buffer made beforehand.

Sources: F. Giesen, "Interleaved entropy coders" (arXiv:1402.3392), for lanes that share one word sequence; division by
a reciprocal in doubles is exact here because state / freq < 2**20 and the reciprocal is rounded up by 2**-46.

Example:
    >>> import numpy as np
    >>> freqs = np.array([3072, 1024])
    >>> symbols = np.zeros(99, np.uint8)
    >>> data = encode(symbols, freqs, 12, 4)
    >>> bool((decode(data, 99, freqs, np.array([0, 1], np.uint8), 12, 4) == symbols).all())
    True
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bitwidth.errors import CorruptFileError
from bitwidth.typing import Array

_LOW = np.uint32(1 << 16)
_WORD = np.uint32(16)
_UP = 1.0 + 2.0**-46


def starts_of(freqs: NDArray[np.int64], bits: int) -> NDArray[np.int64]:
    """The first slot of each symbol, for frequencies of one or more tables laid end to end, `2**bits` slots each.

    Example:
        >>> starts_of(np.array([3, 1, 2, 2]), 2).tolist()
        [0, 3, 0, 2]
    """
    return (np.cumsum(freqs) - freqs) & ((1 << bits) - 1)


def encode(symbols: Array, freqs: NDArray[np.int64], bits: int, lanes: int) -> bytes:
    """Code symbols in `lanes` lanes.

    Args:
        symbols: unsigned integers, 1-D: indices into `freqs` (table * alphabet + symbol if there are several tables).
        freqs: int64, each table's frequencies sum to `2**bits`.
        bits: 12..15.
        lanes: 1 or more.

    Returns:
        The states, 4 bytes a lane, then the words, 2 bytes each, in the decoder's order.

    Example:
        >>> len(encode(np.zeros(8, np.uint8), np.array([4096]), 12, 2))
        8
    """
    count = symbols.size
    safe = np.maximum(freqs, 1)
    reciprocals = _UP / safe
    # One gather for both: how much a quotient adds to the state beyond its freq, and where the symbol's slots start.
    packed = ((((1 << bits) - safe) << 16) | starts_of(freqs, bits)).astype(np.uint32)
    words = np.empty(count + lanes, dtype="<u2")
    states = np.full(lanes, _LOW, dtype=np.uint32)
    at = _encode_rows(symbols, states, words, packed, reciprocals, bits)
    return states.astype("<u4").tobytes() + words[at:].tobytes()


def _encode_rows(
    symbols: Array,
    states: NDArray[np.uint32],
    words: NDArray[np.uint16],
    packed: NDArray[np.uint32],
    reciprocals: NDArray[np.float64],
    bits: int,
) -> int:
    """Code a row of lanes at a time, the last one first, moving `states` on; where the words begin in `words`."""
    count, lanes, at = symbols.size, states.size, words.size
    full, high = np.uint32(1 << bits), np.uint32(32 - bits)
    index = np.empty(lanes, dtype=np.intp)
    span, quotient, work = (np.empty(lanes, dtype=np.uint32) for _ in range(3))
    real = np.empty(lanes, dtype=np.float64)
    whole = quotient.view(np.int32)
    rows = -(-count // lanes)
    x, i, s, w, r, q, qi = states, index, span, work, real, quotient, whole
    for row in range(rows - 1, -1, -1):
        part = symbols[row * lanes : (row + 1) * lanes]
        if part.size != x.size or row == rows - 1:
            x, i, s, w = states[: part.size], index[: part.size], span[: part.size], work[: part.size]
            r, q, qi = real[: part.size], quotient[: part.size], whole[: part.size]
        np.copyto(i, part, casting="unsafe")
        np.take(packed, i, out=s, mode="wrap")
        np.right_shift(s, _WORD, out=w)
        np.subtract(full, w, out=q)
        np.right_shift(x, high, out=w)
        over = np.flatnonzero(w >= q)
        moved = x.take(over)
        at -= over.size
        words[at : at + over.size] = moved & 0xFFFF
        x[over] = moved >> _WORD
        np.take(reciprocals, i, out=r, mode="wrap")
        np.multiply(r, x, out=r)
        np.copyto(qi, r, casting="unsafe")
        np.right_shift(s, _WORD, out=w)
        np.multiply(q, w, out=q)
        np.bitwise_and(s, 0xFFFF, out=s)
        np.add(x, s, out=x)
        np.add(x, q, out=x)
    return at


def decode(
    data: bytes,
    count: int,
    freqs: NDArray[np.int64],
    values: Array,
    bits: int,
    lanes: int,
    tables: NDArray[np.uint8] | None = None,
) -> Array:
    """Decode what `encode` wrote.

    Args:
        data: exactly the bytes that `encode` returned.
        count: how many symbols.
        freqs: int64, as given to `encode`.
        values: what to return for each index of `freqs`, any dtype.
        bits: as given to `encode`.
        lanes: as given to `encode`.
        tables: the table of each position, where there are several.

    Returns:
        [count] of the dtype of `values`.

    Raises:
        CorruptFileError: words missing or left over, or states that do not end where an encoder's start.

    Example:
        >>> data = encode(np.zeros(2, np.uint8), np.array([4096]), 12, 2)
        >>> decode(data, 2, np.array([4096]), np.array([7]), 12, 2)
        array([7, 7])
    """
    if len(data) < 4 * lanes or len(data) % 2:
        raise CorruptFileError("coded stream: its lanes are truncated")
    states = np.frombuffer(data, dtype="<u4", count=lanes).astype(np.uint32)
    words = np.frombuffer(data, dtype="<u2", offset=4 * lanes).astype(np.uint16)
    if states.size and int(states.min()) < int(_LOW):
        raise CorruptFileError("coded stream: a lane's state is out of range")
    slots = _slots(freqs, values, bits)
    out = np.empty(count, dtype=values.dtype)
    at = _decode_rows(out, states, words, slots, bits, tables)
    if at != words.size or (states != _LOW).any():
        raise CorruptFileError("coded stream: it does not end where its symbols do")
    return out


def _slots(freqs: NDArray[np.int64], values: Array, bits: int) -> tuple[NDArray[np.uint32], Array]:
    """For each slot of the probability range: its frequency and offset in one word, and the value it stands for."""
    owner = np.repeat(np.arange(freqs.size), freqs)
    offset = (np.arange(owner.size) & ((1 << bits) - 1)) - starts_of(freqs, bits)[owner]
    return ((freqs[owner] << 16) | offset).astype(np.uint32), values[owner]


def _decode_rows(
    out: Array,
    states: NDArray[np.uint32],
    words: NDArray[np.uint16],
    slots: tuple[NDArray[np.uint32], Array],
    bits: int,
    tables: NDArray[np.uint8] | None,
) -> int:
    """Decode a row of lanes at a time into `out`, moving `states` on; how many words were taken."""
    packed, meaning = slots
    lanes, mask, shift = states.size, np.uint32((1 << bits) - 1), np.uint32(bits)
    index = np.empty(lanes, dtype=np.intp)
    slot, span = np.empty(lanes, dtype=np.uint32), np.empty(lanes, dtype=np.uint32)
    x, i, s, t = states, index, slot, span
    at = 0
    for begin in range(0, out.size, lanes):
        row = out[begin : begin + lanes]
        if row.size != x.size:
            x, i, s, t = states[: row.size], index[: row.size], slot[: row.size], span[: row.size]
        np.bitwise_and(x, mask, out=s)
        np.copyto(i, s)
        if tables is not None:
            np.left_shift(tables[begin : begin + lanes], shift, out=s, casting="unsafe", dtype=np.uint32)
            np.add(i, s, out=i)
        np.take(meaning, i, out=row, mode="wrap")
        np.take(packed, i, out=s, mode="wrap")
        np.right_shift(x, shift, out=x)
        np.right_shift(s, _WORD, out=t)
        np.multiply(x, t, out=x)
        np.bitwise_and(s, 0xFFFF, out=s)
        np.add(x, s, out=x)
        under = np.flatnonzero(x < _LOW)
        fresh = words[at : at + under.size]
        if fresh.size != under.size:
            raise CorruptFileError("coded stream: its words are truncated")
        at += under.size
        x[under] = (x.take(under) << _WORD) | fresh
    return at
