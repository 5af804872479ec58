"""Many rANS lanes stepped together: one numpy call a row of symbols.

Symbol i goes through lane `i % lanes` at row `i // lanes`. Each lane is a 32-bit state in [2**16, 2**32) that moves
16-bit words to and from one shared sequence, in the order in which the decoder needs them. Rows are short enough to
stay in the processor's cache; every call writes into a buffer made beforehand.

Files of versions 1 and 2 have such lanes; `bitwidth.coder.growing` has those that are written now.

Source: F. Giesen, "Interleaved entropy coders" (arXiv:1402.3392), for lanes that share one word sequence.

Example:
    >>> import numpy as np
    >>> decode(bytes([0, 0, 1, 0, 0, 0, 1, 0]), 2, np.array([4096]), np.array([7]), 12, 2)
    array([7, 7])
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bitwidth.errors import CorruptFileError
from bitwidth.typing import Array

_LOW = np.uint32(1 << 16)
_WORD = np.uint32(16)


def starts_of(freqs: NDArray[np.int64], bits: int) -> NDArray[np.int64]:
    """The first slot of each symbol, for frequencies of one or more tables laid end to end, `2**bits` slots each.

    Example:
        >>> starts_of(np.array([3, 1, 2, 2]), 2).tolist()
        [0, 3, 0, 2]
    """
    return (np.cumsum(freqs) - freqs) & ((1 << bits) - 1)


def decode(
    data: bytes,
    count: int,
    freqs: NDArray[np.int64],
    values: Array,
    bits: int,
    lanes: int,
    tables: NDArray[np.uint8] | None = None,
) -> Array:
    """Decode symbols of lanes that are all there from the start.

    Args:
        data: the states, 4 bytes a lane, then the words, 2 bytes each; untrusted.
        count: how many symbols.
        freqs: int64, each table's frequencies sum to `2**bits`, table by table.
        values: what to return for each index of `freqs`, any dtype.
        bits: 12..15.
        lanes: 1 or more.
        tables: the table of each position, where there are several.

    Returns:
        [count] of the dtype of `values`.

    Raises:
        CorruptFileError: words missing or left over, or states that do not end where an encoder's start.

    Example:
        >>> decode(bytes([0, 0, 1, 0]), 3, np.array([4096]), np.array([7]), 12, 1)
        array([7, 7, 7])
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
