"""Integers as bit planes, most significant first, so that the first planes alone say the leading bits of each.

Each plane is coded given those above it, as embedded image coders do (J. M. Shapiro, "Embedded image coding using
zerotrees of wavelet coefficients", 1993, sections 2 and 4, without the trees): where the magnitude was zero so far, one
bit says whether it still is, and a sign follows where it is not; where it was not, one bit refines it, in the context
of the bits above and of the sign. All planes together cost what the integers' histogram costs, up to a few bytes a
plane. What cannot be compressed is packed raw: signs, and the low planes.

    a plane: one byte (which of its three parts are coded), then new digits, refinements, signs
    a part: packed bits where raw; where coded, its length (a varint) and the stream

Files of versions 1 and 2 have them; nothing writes them any more.

Example:
    >>> parts = [bytes([0, 0x90, 0]), bytes([0, 0x80, 0x40, 0x80]), bytes([0, 0, 0xA0])]
    >>> decode_planes(parts, 4).tolist(), decode_planes(parts[:1], 4).tolist()
    ([5, -2, 0, 7], [1, 0, 0, 1])
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitwidth.coder.bitio import Reader
from bitwidth.coder.rans import decode_symbols
from bitwidth.errors import CorruptFileError
from bitwidth.typing import Array

MAX_PLANES = 31
_PREFIXES = 63  # longer prefixes share a context


def decode_planes(parts: Sequence[bytes], count: int) -> NDArray[np.int32]:
    """Decode the first planes of what encoders of versions 1 and 2 wrote.

    Args:
        parts: one stream a plane, from the most significant on; all or only the first; untrusted.
        count: how many integers.

    Returns:
        int32 [count]: the leading bits of each magnitude, with its sign.

    Raises:
        CorruptFileError: these are not planes of `count` integers.

    Example:
        >>> decode_planes([bytes([0, 0xC0, 0x80])], 2)
        array([-1,  1], dtype=int32)
    """
    if not 1 <= len(parts) <= MAX_PLANES:
        raise CorruptFileError(f"coded planes: {len(parts)} of them")
    magnitude = np.zeros(count, dtype=_word(len(parts)))
    negative = np.zeros(count, dtype=np.bool_)
    for part in parts:
        _decode_plane(part, magnitude, negative)
    codes = magnitude.astype(np.int32)
    np.negative(codes, out=codes, where=negative)
    return codes


def _word(planes: int) -> type[np.unsignedinteger[Any]]:
    return np.uint8 if planes <= 8 else np.uint16 if planes <= 16 else np.uint32


def _contexts(prefix: Array, negative: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """The context of a refinement: the bits above, and the sign."""
    context: NDArray[np.uint8] = np.minimum(prefix, prefix.dtype.type(_PREFIXES)).astype(np.uint8)
    context <<= np.uint8(1)
    context |= negative.view(np.uint8)
    return context


def _decode_plane(data: bytes, magnitude: Array, negative: NDArray[np.bool_]) -> None:
    """Shift the magnitudes up by one bit and put the plane below it; signs of those that were zero until now."""
    reader = Reader(data)
    modes = reader.byte()
    if modes > 7:
        raise CorruptFileError("coded planes: an unknown header")
    zero = magnitude == 0
    beyond = ~zero
    count = int(np.count_nonzero(zero))
    fresh = _decode_part(reader, count, bool(modes & 1), None)
    context = _contexts(magnitude[beyond], negative[beyond]) if modes & 2 else None
    older = _decode_part(reader, magnitude.size - count, bool(modes & 2), context)
    magnitude <<= magnitude.dtype.type(1)
    if count == magnitude.size:
        magnitude |= fresh
    else:
        magnitude[zero] = fresh
        magnitude[beyond] |= older
    began = zero
    began[zero] = fresh
    signs = _decode_part(reader, int(np.count_nonzero(fresh)), bool(modes & 4), None)
    negative[began] = signs
    reader.end()


def _decode_part(reader: Reader, count: int, coded: bool, context: NDArray[np.uint8] | None) -> NDArray[np.bool_]:
    """A part of `count` bits."""
    if not coded:
        bits = np.unpackbits(np.frombuffer(reader.take(count + 7 >> 3), dtype=np.uint8))
        if bits[count:].any():
            raise CorruptFileError("coded planes: padding bits are not zero")
        return bits[:count].view(np.bool_)
    if count == 0:
        raise CorruptFileError("coded planes: a coded part of no bits")
    symbols = decode_symbols(reader.take(reader.varint()), count, context)
    if int(symbols.max()) > 1:
        raise CorruptFileError("coded planes: a digit that is neither 0 nor 1")
    return symbols.astype(np.uint8, copy=False).view(np.bool_)
