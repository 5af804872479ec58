"""Arrays of any numeric type, bit for bit: byte planes, each coded by itself or given the plane above it.

Byte planes separate what is alike in floats (signs and exponents) from what is not (low mantissa bits, left raw).

Example:
    >>> import numpy as np
    >>> values = np.array([[1.0, -0.0], [np.nan, 2.5]], np.float32)
    >>> decode_array(encode_array(values), np.dtype(np.float32), (2, 2)).tobytes() == values.tobytes()
    True
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from bitwidth.coder.bitio import Reader, counts_of, varint
from bitwidth.coder.rans import decode_symbols, encode_symbols
from bitwidth.coder.tables import entropy_of
from bitwidth.errors import CorruptFileError, EncodingError
from bitwidth.typing import Array

_RAW, _ALONE, _GIVEN = range(3)
_WORTH = 0.995  # a plane is coded where that is likely to save half a percent of it


def _checked(dtype: np.dtype[Any]) -> np.dtype[Any]:
    if dtype.kind not in "biuf" or dtype.itemsize not in (1, 2, 4, 8):
        raise EncodingError(f"array: bools, integers or floats of at most 8 bytes expected, got {dtype}")
    return dtype.newbyteorder("<")


def encode_array(values: Array) -> bytes:
    """Code an array losslessly, every bit pattern included (NaN payloads, -0.0).

    Args:
        values: bool, int*, uint*, float16, float32 or float64 of any shape; bfloat16 as the uint16 that holds it.

    Returns:
        A self-contained stream; empty for an empty array. At most one byte more than the array itself.

    Raises:
        EncodingError: another dtype.

    Example:
        >>> len(encode_array(np.zeros(1000, np.float32))) < 20
        True
    """
    values = np.asarray(values)
    dtype = _checked(values.dtype)
    if values.size == 0:
        return b""
    whole = np.ascontiguousarray(values, dtype=dtype).reshape(-1)
    planes = whole.view(np.uint8).reshape(-1, dtype.itemsize)
    modes, parts, above = 0, [], None
    for index in range(dtype.itemsize - 1, -1, -1):
        plane = np.ascontiguousarray(planes[:, index])
        mode, stream = _encode_plane(plane, above)
        modes |= mode << 2 * index
        parts.append(stream if mode == _RAW else varint(len(stream)) + stream)
        above = plane
    out = bytes([1]) + modes.to_bytes((dtype.itemsize + 3) // 4, "little") + b"".join(parts)
    return out if len(out) <= whole.nbytes else b"\0" + whole.tobytes()


def _encode_plane(plane: NDArray[np.uint8], above: NDArray[np.uint8] | None) -> tuple[int, bytes]:
    """The smallest of: raw, coded by itself, coded given the plane above."""
    best, stream = _RAW, plane.tobytes()
    alone = entropy_of(counts_of(plane))
    if alone < plane.size * 8 * _WORTH:
        coded = encode_symbols(plane)
        if len(coded) + 1 < len(stream):
            best, stream = _ALONE, coded
    if above is not None and alone > 0:
        joint = counts_of(above.astype(np.uint16) << np.uint16(8) | plane, 1 << 16)
        given = entropy_of(joint) - entropy_of(joint.reshape(256, 256).sum(axis=1))
        # A joint histogram of few values looks more orderly than it is: a byte for each of its entries.
        if (given + 8.0 * np.count_nonzero(joint)) / 8 < len(stream) * _WORTH:
            coded = encode_symbols(plane, above)
            if len(coded) + 1 < len(stream):
                best, stream = _GIVEN, coded
    return best, stream


def decode_array(data: bytes, dtype: DTypeLike, shape: Sequence[int]) -> Array:
    """Decode what `encode_array` wrote.

    Args:
        data: the whole stream; untrusted.
        dtype: of the array.
        shape: of the array.

    Returns:
        An array of `dtype` and `shape`.

    Raises:
        CorruptFileError: `data` is not an array of this type and shape.
        EncodingError: a dtype that `encode_array` does not take.

    Example:
        >>> decode_array(encode_array(np.arange(3)), np.int64, (3,))
        array([0, 1, 2])
    """
    wanted = np.dtype(dtype)
    little = _checked(wanted)
    count, size = math.prod(shape), little.itemsize
    reader = Reader(data)
    if count == 0:
        reader.end()
        return np.zeros(shape, dtype=wanted)
    kind = reader.byte()
    if kind == 0:
        octets = np.frombuffer(reader.take(count * size), dtype=np.uint8)
    elif kind == 1:
        octets = _decode_planes(reader, count, size).reshape(-1)
    else:
        raise CorruptFileError("coded array: an unknown header")
    reader.end()
    if wanted.kind == "b" and int(octets.max()) > 1:
        raise CorruptFileError("coded array: a bool that is neither false nor true")
    return octets.view(little).astype(wanted).reshape(shape)


def _decode_planes(reader: Reader, count: int, size: int) -> NDArray[np.uint8]:
    """The byte planes: uint8 [count, size]."""
    modes = int.from_bytes(reader.take((size + 3) // 4), "little")
    planes = np.empty((count, size), dtype=np.uint8)
    above: NDArray[np.uint8] | None = None
    for index in range(size - 1, -1, -1):
        mode = modes >> 2 * index & 3
        if mode == _RAW:
            plane = np.frombuffer(reader.take(count), dtype=np.uint8)
        elif mode == _ALONE or (mode == _GIVEN and above is not None):
            plane = decode_symbols(reader.take(reader.varint()), count, above if mode == _GIVEN else None)
        else:
            raise CorruptFileError("coded array: an unknown plane")
        if plane.dtype != np.uint8:
            raise CorruptFileError("coded array: a byte above 255")
        planes[:, index] = plane
        above = plane
    return planes
