"""Signed integers of any width: tokens for the entropy coder, raw bits for what no table can predict.

A small range is coded directly, one symbol a value. A wide one is cut into buckets as floating-point numbers are:
magnitudes below 2**(m + 1) are tokens of their own, larger ones a token for the exponent and the `m` bits below the
leading one, with the remaining low bits raw. `m` is chosen by the cost of the tokens' histogram.

Source: the hybrid integers of JPEG XL (ISO/IEC 18181-1), here with a sign in the token.

Example:
    >>> import numpy as np
    >>> decode_integers(encode_integers(np.array([[-1, 70000]])), 2).tolist()
    [-1, 70000]
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bitwidth.coder.bitio import Reader, counts_of, pack_groups, unpack_groups, varint
from bitwidth.coder.rans import decode_symbols, encode_symbols
from bitwidth.coder.tables import MAX_SYMBOLS
from bitwidth.coder.tokens import MANTISSAS, choose_mantissa, least_of, tokens_of
from bitwidth.errors import CorruptFileError, EncodingError
from bitwidth.typing import Array

_CONSTANT, _PACKED, _DIRECT, _TOKENS = range(4)
_TRY_BOTH = 1 << 14  # up to this many codes, both codings are tried rather than estimated
_NARROW = 1 << 8
_BLOCK = 1 << 18
_INT64 = np.iinfo(np.int64)
_INT32 = np.iinfo(np.int32)


def encode_integers(codes: Array, context: Array | None = None) -> bytes:
    """Code integers losslessly in about their entropy.

    Args:
        codes: integers (or bools) of any shape and width, each within int64.
        context: integers 0..65535, as many as codes, that the decoder will know; see `encode_symbols`.

    Returns:
        A self-contained stream; empty for no codes. Never more than 12 bytes above fixed-width packing of the range.

    Raises:
        EncodingError: not integers, beyond int64, or a context out of range.

    Example:
        >>> len(encode_integers(np.full((100, 100), -7)))
        2
    """
    flat = np.asarray(codes).reshape(-1)
    if flat.dtype.kind not in "biu":
        raise EncodingError(f"codes: integers expected, got {flat.dtype}")
    if flat.size == 0:
        return b""
    if flat.dtype == np.bool_:
        flat = flat.view(np.uint8)
    low, high = int(flat.min()), int(flat.max())
    if high > _INT64.max:
        raise EncodingError(f"codes: values within int64 expected, got {high}")
    if low == high:
        return bytes([_CONSTANT]) + _zigzag(low)
    width = (high - low).bit_length()
    best: bytes | None = None
    if high - low < MAX_SYMBOLS:
        symbols = _difference(flat, low)
        best = bytes([_DIRECT]) + _zigzag(low) + encode_symbols(symbols, context)
    if high - low >= MAX_SYMBOLS or (high - low >= _NARROW) or (flat.size <= _TRY_BOTH and high - low >= 16):
        tokens = _encode_tokens(flat.astype(np.int64), low, high, context, len(best) if best is not None else None)
        best = tokens if best is None or (tokens is not None and len(tokens) < len(best)) else best
    packed_size = flat.size * width + 7 >> 3
    if best is None or packed_size + 2 + len(_zigzag(low)) <= len(best):
        offsets = flat.astype(np.int64).view(np.uint64) - np.uint64(low % (1 << 64))
        best = bytes([_PACKED]) + _zigzag(low) + bytes([width]) + pack_groups([(offsets, width)])
    return best


def _difference(flat: Array, low: int) -> NDArray[np.uint16]:
    """`flat - low` for a range below 2**14, without a wider copy: differences modulo 2**16 are enough."""
    return flat.astype(np.uint16) - np.uint16(low % (1 << 16))


def _zigzag(value: int) -> bytes:
    return varint(2 * value if value >= 0 else -2 * value - 1)


def _unzigzag(reader: Reader) -> int:
    code = reader.varint()
    value = -(code + 1 >> 1) if code & 1 else code >> 1
    if not _INT64.min <= value <= _INT64.max:
        raise CorruptFileError("coded integers: an offset beyond int64")
    return value


def _encode_tokens(
    flat: NDArray[np.int64], low: int, high: int, context: Array | None, rival: int | None
) -> bytes | None:
    """Code as tokens and raw bits; None where a rival of so many bytes is sure to be smaller and the array is large."""
    origin = 0 if low <= 0 <= high else low if low > 0 else high
    away = flat.view(np.uint64) - np.uint64(origin % (1 << 64))
    negative = away.view(np.int64) < 0
    magnitude = np.where(negative, np.uint64(0) - away, away)
    mantissa, estimate = choose_mantissa(magnitude, negative)
    if rival is not None and estimate / 8 > rival + (64 if flat.size <= _TRY_BOTH else 0):
        return None
    tokens, shifts = tokens_of(magnitude, mantissa)
    below = int(tokens[negative].max()) if negative.any() else 0
    stream = encode_symbols(np.where(negative, below - tokens, below + tokens), context)
    extras = magnitude & ((np.uint64(1) << shifts) - np.uint64(1))
    groups = [(extras[shifts == width], int(width)) for width in np.unique(shifts) if width]
    head = bytes([_TOKENS | mantissa << 2]) + _zigzag(origin) + varint(below) + varint(len(stream))
    return head + stream + pack_groups(groups)


def decode_integers(data: bytes, count: int, context: Array | None = None) -> Array:
    """Decode what `encode_integers` wrote.

    Args:
        data: the whole stream; untrusted.
        count: how many integers.
        context: as given to `encode_integers`.

    Returns:
        int32 [count] where all values fit, int64 otherwise.

    Raises:
        CorruptFileError: `data` is not a stream of `count` integers.

    Example:
        >>> decode_integers(encode_integers(np.array([5, 5, 6])), 3)
        array([5, 5, 6], dtype=int32)
    """
    reader = Reader(data)
    if count == 0:
        reader.end()
        return np.zeros(0, dtype=np.int32)
    header = reader.byte()
    mode, mantissa = header & 3, header >> 2
    if mantissa > (MANTISSAS[0] if mode == _TOKENS else 0):
        raise CorruptFileError("coded integers: an unknown header")
    origin = _unzigzag(reader)
    if mode == _DIRECT:
        symbols = decode_symbols(reader.rest(), count, context)
        if _INT32.min <= origin <= _INT32.max - MAX_SYMBOLS:
            small: NDArray[np.int32] = np.add(symbols, np.int32(origin), dtype=np.int32)
            return small
        away = symbols.astype(np.uint64)
    elif mode == _TOKENS:
        away = _decode_tokens(reader, count, mantissa, context)
    elif mode == _PACKED:
        width = reader.byte()
        if width > 64:
            raise CorruptFileError("coded integers: a width above 64")
        away = unpack_groups(reader, [(count, width)])[0]
        reader.end()
    else:
        reader.end()
        return np.full(count, origin, dtype=np.int32 if _INT32.min <= origin <= _INT32.max else np.int64)
    away += np.uint64(origin % (1 << 64))
    out = away.view(np.int64)
    narrow = _INT32.min <= int(out.min()) and int(out.max()) <= _INT32.max
    return out.astype(np.int32) if narrow else out


def _decode_tokens(reader: Reader, count: int, mantissa: int, context: Array | None) -> NDArray[np.uint64]:
    """What `_encode_tokens` wrote behind the origin, as differences from it modulo 2**64."""
    below = reader.varint()
    if below >= MAX_SYMBOLS:
        raise CorruptFileError("coded integers: more negative tokens than symbols")
    symbols = decode_symbols(reader.take(reader.varint()), count, context)
    magnitude, widths = np.empty(count, dtype=np.uint64), np.empty(count, dtype=np.uint8)
    blocks = [slice(begin, begin + _BLOCK) for begin in range(0, count, _BLOCK)]
    for block in blocks:
        magnitude[block], shifts = least_of(np.abs(symbols[block].astype(np.int64) - below), mantissa)
        if int(shifts.max()) + mantissa >= 64:
            raise CorruptFileError("coded integers: a token beyond 64 bits")
        widths[block] = shifts
    groups = [(size, width) for width, size in enumerate(counts_of(widths).tolist()) if width and size]
    extras = unpack_groups(reader, groups)
    reader.end()
    used = [0] * len(groups)
    for block in blocks:
        part = magnitude[block]
        for index, (_, width) in enumerate(groups):
            places = np.flatnonzero(widths[block] == width)
            part[places] |= extras[index][used[index] : used[index] + places.size]
            used[index] += places.size
        np.subtract(np.uint64(0), part, out=part, where=symbols[block] < below)
    return magnitude
