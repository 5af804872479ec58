"""Encoders of released versions that the package has no use for: what they wrote is still read.

Example:
    >>> [len(part) for part in encode_planes(np.zeros(1000, np.int32), 2)]
    [5, 5]
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bitwidth.coder import MAX_PLANES, encode_symbols
from bitwidth.coder.bitio import counts_of, varint
from bitwidth.coder.lanes import starts_of
from bitwidth.coder.planes import _contexts, _word
from bitwidth.coder.tables import entropy_of
from bitwidth.errors import EncodingError
from bitwidth.typing import Array

_WORTH = 0.985  # a part is coded where that is likely to save 1.5 % of it: less costs more time than it is worth
_STREAM_BITS = 32.0  # what a coded part costs besides, roughly
_CONTEXT_BITS = 12.0  # what a context costs, roughly
_LOW = np.uint32(1 << 16)
_WORD = np.uint32(16)
_UP = 1.0 + 2.0**-46


def encode_planes(codes: Array, planes: int) -> list[bytes]:
    """Code integers plane by plane.

    Args:
        codes: integers of any shape.
        planes: 1 to 31; magnitudes are below `2**planes`.

    Returns:
        One stream a plane, most significant first.

    Raises:
        EncodingError: not integers, or a magnitude that the planes do not hold.

    Example:
        >>> [len(part) for part in encode_planes(np.zeros(1000, np.int32), 2)]
        [5, 5]
    """
    flat = np.asarray(codes).reshape(-1)
    if flat.dtype.kind not in "iu" or not 1 <= planes <= MAX_PLANES:
        raise EncodingError(f"planes: integers and 1 to {MAX_PLANES} planes expected, got {flat.dtype} and {planes}")
    low, high = int(flat.min(initial=0)), int(flat.max(initial=0))
    if max(-low, high) >> planes:
        raise EncodingError(f"planes: {planes} do not hold {low} to {high}")
    negative = flat < 0
    magnitude = np.abs(flat).astype(_word(planes))
    return [_encode_plane(magnitude, negative, shift) for shift in range(planes - 1, -1, -1)]


def _encode_plane(magnitude: Array, negative: NDArray[np.bool_], shift: int) -> bytes:
    """One plane: bit `shift` of each magnitude."""
    word = magnitude.dtype.type
    bits = (magnitude >> word(shift) & word(1)).view(np.uint8)[:: magnitude.itemsize].view(np.bool_)
    zero = magnitude < word(1) << word(shift) + word(1) if (shift + 1) < 8 * magnitude.itemsize else None
    fresh = bits if zero is None else bits[zero]
    modes, out = 0, []
    if zero is None:
        older, contexts = bits[:0], magnitude[:0]
        signs = negative[bits]
    else:
        beyond = ~zero
        older = bits[beyond]
        contexts = _contexts(magnitude[beyond] >> word(shift + 1), negative[beyond])
        signs = negative[bits & zero]
    for index, (part, context) in enumerate(((fresh, None), (older, contexts), (signs, None))):
        coded = _encode_part(part, context)
        if coded is not None:
            modes |= 1 << index
        out.append(np.packbits(part).tobytes() if coded is None else varint(len(coded)) + coded)
    return bytes([modes]) + b"".join(out)


def _encode_part(part: NDArray[np.bool_], context: NDArray[np.uint8] | None) -> bytes | None:
    """The coded part; None where it is better packed."""
    if part.size == 0:
        return None
    if context is None:
        ones = np.count_nonzero(part)
        price = entropy_of(np.array([ones, part.size - ones])) + _STREAM_BITS
    else:
        joint = counts_of(context << np.uint8(1) | part.view(np.uint8), 256).reshape(-1, 2)
        price = sum(min(entropy_of(row) + _CONTEXT_BITS, float(row.sum())) for row in joint if row.any())
        price += _STREAM_BITS
    if price > part.size * _WORTH:
        return None
    coded = encode_symbols(part, context)
    return coded if len(coded) + len(varint(len(coded))) < part.size + 7 >> 3 else None


def encode_lanes(symbols: Array, freqs: NDArray[np.int64], bits: int, lanes: int) -> bytes:
    """Code symbols in `lanes` lanes.

    Args:
        symbols: unsigned integers, 1-D: indices into `freqs` (table * alphabet + symbol if there are several tables).
        freqs: int64, each table's frequencies sum to `2**bits`.
        bits: 12..15.
        lanes: 1 or more.

    Returns:
        The states, 4 bytes a lane, then the words, 2 bytes each, in the decoder's order.

    Example:
        >>> len(encode_lanes(np.zeros(8, np.uint8), np.array([4096]), 12, 2))
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
