"""Vectors of 16-bit floats, bit for bit: biases, scales and statistics of many layers in one stream.

A number's leading bits (sign, exponent and as many of the mantissa as pay) are a symbol, in a context for each array;
arrays with much the same symbols share a table, so that forty small arrays need few. The mantissa bits below are raw;
those that are zero in a whole array are left out. float16 and bfloat16 differ only in how many bits are worth coding.

    side:    its length; a scalar rANS number: how many leading bits are coded, and each array's trailing zero bits
    symbols: their length and the stream (`bitwidth.coder.streams`)
    raw:     the bits between, array by array, by width

Example:
    >>> arrays = [np.array([1.0, 0.5], np.float16).view(np.uint16), np.zeros(3, np.uint16)]
    >>> [back.tolist() for back in decode_floats(encode_floats(arrays), [2, 3])]
    [[15360, 14336], [0, 0, 0]]
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from bitwidth.coder import streams
from bitwidth.coder.bitio import Reader, pack_raw, unpack_raw, varint
from bitwidth.coder.contexts import cluster
from bitwidth.coder.scalar import Bit, Decoder, Encoder
from bitwidth.errors import CorruptFileError, EncodingError

_WIDTH = 16
_LEADING = range(5, 14)  # how many bits may be coded as a symbol
_PER_SYMBOL = 4.0  # bits that a table takes for each symbol that occurs, about, beside its place
_ALIKE = 7  # leading bits by which arrays are told to be alike
_CONTEXTS = 1 << 10  # of more arrays, neighbours share a context


def encode_floats(arrays: Sequence[NDArray[np.uint16]]) -> bytes:
    """Code 16-bit floats losslessly, every bit pattern included.

    Args:
        arrays: the bit patterns of float16 or bfloat16 numbers as uint16, each array of any shape.

    Returns:
        A self-contained stream; empty for no numbers.

    Raises:
        EncodingError: not uint16.

    Example:
        >>> len(encode_floats([np.full(64, 0x3C00, np.uint16)] * 40)) < 12
        True
    """
    flat = [np.asarray(array).reshape(-1) for array in arrays]
    for array in flat:
        if array.dtype != np.uint16:
            raise EncodingError(f"floats: bit patterns as uint16 expected, got {array.dtype}")
    flat = [array for array in flat if array.size]
    if not flat:
        return b""
    whole = np.concatenate(flat)
    zeros = [_trailing_zeros(array) for array in flat]
    sizes = [array.size for array in flat]
    context = _contexts(sizes)
    leading = _choose_leading(whole, sizes, zeros)
    symbols = whole >> np.uint16(_WIDTH - leading)
    symbols = symbols if int(symbols.max()) > 255 else symbols.astype(np.uint8)
    counts = _counts(symbols, sizes)
    body = streams.encode(symbols, counts, lambda assigned: assigned[context])
    side = Encoder()
    side.bits(leading - _LEADING[0], 4)
    _write_zeros(side, zeros)
    head = side.finish()
    raw = pack_raw(_raw_groups(flat, zeros, leading))
    return varint(len(head)) + head + varint(len(body)) + body + raw


def _raw_groups(
    flat: Sequence[NDArray[np.uint16]], zeros: Sequence[int], leading: int
) -> list[tuple[NDArray[np.uint32], int]]:
    """The bits between the coded ones and the trailing zeros; arrays of one width are together."""
    by_width: dict[int, list[NDArray[np.uint32]]] = {}
    for array, cut in zip(flat, zeros, strict=True):
        width = _WIDTH - leading - cut
        if width > 0:
            low = array & np.uint16((1 << _WIDTH - leading) - 1)
            by_width.setdefault(width, []).append((low >> np.uint16(cut)).astype(np.uint32))
    return [(np.concatenate(parts), width) for width, parts in sorted(by_width.items())]


def _trailing_zeros(array: NDArray[np.uint16]) -> int:
    """How many low bits, at most 15, are zero in the whole array."""
    bits = int(np.bitwise_or.reduce(array))
    return min((bits & -bits).bit_length() - 1, _WIDTH - 1) if bits else _WIDTH - 1


def _sharing(count: int) -> int:
    """How many neighbouring arrays share a context."""
    return -(-count // _CONTEXTS)


def _contexts(sizes: Sequence[int]) -> NDArray[np.uint16]:
    """The context of each number."""
    return np.repeat(np.arange(len(sizes)) // _sharing(len(sizes)), sizes).astype(np.uint16)


def _counts(symbols: NDArray[np.uint16] | NDArray[np.uint8], sizes: Sequence[int]) -> NDArray[np.int64]:
    """How often each symbol stands in each context: int64 [context, symbol]."""
    share, alphabet = _sharing(len(sizes)), int(symbols.max()) + 1
    ends = np.concatenate([[0], np.cumsum(sizes)])[::share]
    ends = ends if ends[-1] == symbols.size else np.append(ends, symbols.size)
    return np.stack([np.bincount(symbols[begin:end], minlength=alphabet) for begin, end in pairwise(ends)])


def _choose_leading(whole: NDArray[np.uint16], sizes: Sequence[int], zeros: Sequence[int]) -> int:
    """How many leading bits to code: those that cost least with the bits below them raw.

    Which arrays share a table is taken from their first bits.
    """
    coarse = _counts(whole >> np.uint16(_WIDTH - _ALIKE), sizes)
    assigned = cluster(coarse[:, coarse.any(axis=0)], min(streams.MAX_TABLES, len(coarse)))
    finest = _LEADING[-1]
    keys = (assigned[_contexts(sizes)] << finest) | (whole >> np.uint16(_WIDTH - finest))
    counts = np.bincount(keys)
    prices = {}
    for leading in reversed(_LEADING):
        places = np.flatnonzero(counts)
        held = counts[places]
        gap = (int(places[-1]) - int(places[0]) + 1) / len(places)
        raw = sum(size * max(_WIDTH - leading - cut, 0) for size, cut in zip(sizes, zeros, strict=True))
        table = len(places) * (_PER_SYMBOL + float(np.log2(gap)))
        prices[leading] = raw + table - float(held @ np.log2(held))
        counts = np.add.reduceat(counts, np.arange(0, len(counts), 2))
    return min(prices, key=lambda leading: (prices[leading], leading))


def _write_zeros(coder: Encoder, zeros: Sequence[int]) -> None:
    same, before = Bit(), 0
    for cut in zeros:
        coder.bit(same, int(cut != before))
        if cut != before:
            coder.bits(cut, 4)
        before = cut


def _read_zeros(coder: Decoder, count: int) -> list[int]:
    same, before, out = Bit(), 0, []
    for _ in range(count):
        if coder.bit(same):
            before = coder.bits(4)
        out.append(before)
    return out


def decode_floats(data: bytes, sizes: Sequence[int]) -> list[NDArray[np.uint16]]:
    """Decode what `encode_floats` wrote.

    Args:
        data: the whole stream; untrusted.
        sizes: how many numbers each array has.

    Returns:
        The bit patterns of each array, uint16, 1-D.

    Raises:
        CorruptFileError: `data` is not a stream of these arrays.

    Example:
        >>> decode_floats(encode_floats([np.array([7], np.uint16)]), [1])
        [array([7], dtype=uint16)]
    """
    reader = Reader(data)
    held = [size for size in sizes if size]
    whole = np.zeros(0, dtype=np.uint16)
    if held:
        side = Decoder(reader.take(reader.varint()))
        leading = side.bits(4) + _LEADING[0]
        if leading not in _LEADING:
            raise CorruptFileError("coded floats: an unknown header")
        zeros = _read_zeros(side, len(held))
        side.end()
        context = _contexts(held)
        symbols = streams.decode(
            reader.take(reader.varint()), context.size, int(context[-1]) + 1, lambda assigned: assigned[context]
        )
        if int(symbols.max()) >> leading:
            raise CorruptFileError("coded floats: a symbol of too many bits")
        whole = symbols.astype(np.uint16) << np.uint16(_WIDTH - leading)
        _add_raw(reader, whole, held, zeros, leading)
    reader.end()
    ends = np.cumsum(sizes).tolist()
    return [whole[end - size : end] for size, end in zip(sizes, ends, strict=True)]


def _add_raw(
    reader: Reader, whole: NDArray[np.uint16], sizes: Sequence[int], zeros: Sequence[int], leading: int
) -> None:
    """Put the raw bits below the coded ones."""
    widths = [max(_WIDTH - leading - cut, 0) for cut in zeros]
    totals: dict[int, int] = {}
    for size, width in zip(sizes, widths, strict=True):
        if width:
            totals[width] = totals.get(width, 0) + size
    groups = [(count, width) for width, count in sorted(totals.items())]
    parts = {width: part for (_, width), part in zip(groups, unpack_raw(reader, groups), strict=True)}
    at, used = 0, dict.fromkeys(totals, 0)
    for size, width, cut in zip(sizes, widths, zeros, strict=True):
        if width:
            part = parts[width][used[width] : used[width] + size].astype(np.uint16)
            whole[at : at + size] |= part << np.uint16(cut)
            used[width] += size
        at += size
