"""Entropy coding of small non-negative integers with static tables, one for each group of contexts.

How a stream is laid out stands in `bitwidth.coder.streams`.

Example:
    >>> import numpy as np
    >>> symbols = np.array([3, 3, 0, 3])
    >>> decode_symbols(encode_symbols(symbols), 4).tolist()
    [3, 3, 0, 3]
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bitwidth.coder import contexts as shared
from bitwidth.coder import streams
from bitwidth.coder.bitio import Reader, counts_of
from bitwidth.coder.tables import MAX_SYMBOLS, entropy_of
from bitwidth.errors import EncodingError
from bitwidth.typing import Array


def entropy_bits(codes: Array) -> float:
    """The empirical order-0 entropy of an integer array of any shape, in total bits (not per code).

    Example:
        >>> entropy_bits(np.array([1, 1, 2, 2]))
        4.0
    """
    return entropy_of(np.unique(np.asarray(codes), return_counts=True)[1].astype(np.int64))


def encode_symbols(symbols: Array, context: Array | None = None) -> bytes:
    """Entropy code small non-negative integers.

    Args:
        symbols: integers of any shape, each 0 .. 2**14 - 1.
        context: integers of as many elements, each 0 .. 2**16 - 1, that the decoder will know; symbols of one context
            share a table, and contexts with much the same symbols are given one table together.

    Returns:
        A self-contained stream; empty for no symbols.

    Raises:
        EncodingError: a symbol or a context out of range.

    Source:
        rANS (J. Duda, arXiv:1311.2540), interleaved as by F. Giesen (arXiv:1402.3392).

    Example:
        >>> len(encode_symbols(np.zeros(1000, np.uint8)))
        3
    """
    flat = np.asarray(symbols).reshape(-1)
    if flat.size == 0:
        return b""
    if flat.dtype.kind not in "biu":
        raise EncodingError(f"symbols: integers expected, got {flat.dtype}")
    if flat.dtype.kind != "u":
        if flat.dtype != np.bool_ and int(flat.min()) < 0:
            raise EncodingError(f"symbols: non-negative integers expected, got {flat.min()}")
        flat = flat.astype(np.uint16) if int(flat.max()) < MAX_SYMBOLS else flat.astype(np.uint64)
    if int(flat.max()) >= MAX_SYMBOLS:
        raise EncodingError(f"symbols: integers below {MAX_SYMBOLS} expected, got {flat.max()}")
    flat = flat.astype(np.uint8 if int(flat.max()) < 256 else np.uint16, copy=False)
    if context is None:
        return streams.encode(flat, counts_of(flat)[None])
    contexts, ranks = shared.dense(context, flat.size)
    joint = _joint_counts(flat, ranks, contexts.size)
    if joint is None:  # too many contexts to be of use: one table for all
        return streams.encode(flat, counts_of(flat)[None], contexts=contexts.size)
    return streams.encode(flat, joint, lambda assigned: assigned[ranks])


def _joint_counts(flat: Array, ranks: NDArray[np.uint16], contexts: int) -> NDArray[np.int64] | None:
    """Counts of [context, symbol], or None where that table would be far larger than the stream."""
    alphabet = int(flat.max()) + 1
    if contexts * alphabet > max(1 << 16, 4 * flat.size) or contexts > 4096:
        return None
    joint = ranks.astype(np.uint32)
    joint *= np.uint32(alphabet)
    joint += flat
    return counts_of(joint, contexts * alphabet).reshape(contexts, alphabet)


def decode_symbols(data: bytes, count: int, context: Array | None = None) -> Array:
    """Decode what `encode_symbols` wrote.

    Args:
        data: the whole stream; untrusted.
        count: how many symbols.
        context: as given to `encode_symbols`.

    Returns:
        uint8 or uint16 [count].

    Raises:
        CorruptFileError: `data` is not a stream of `count` symbols in these contexts.
        EncodingError: `context` is not of `count` integers in range.

    Example:
        >>> decode_symbols(encode_symbols(np.array([1, 5])), 2)
        array([1, 5], dtype=uint8)
    """
    reader = Reader(data)
    ranks, contexts = None, 1
    if context is not None:
        present, ranks = shared.dense(context, count)
        contexts = present.size
    if count == 0:
        reader.end()
        return np.zeros(0, dtype=np.uint8)
    if ranks is None:
        return streams.decode(reader.rest(), count, 1)
    positions = ranks
    return streams.decode(reader.rest(), count, contexts, lambda assigned: assigned[positions])
