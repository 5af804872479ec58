r"""Bytes and bits: variable-length integers, a checked reader, and fixed-width bit packing in numpy.

Example:
    >>> from bitwidth.coder import bitio
    >>> bitio.varint(300)
    b'\xac\x02'
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import final

import numpy as np
from numpy.typing import NDArray

from bitwidth.errors import CorruptFileError
from bitwidth.typing import Array

_VARINT_BYTES = 10
_BLOCK = 1 << 18


def varint(value: int) -> bytes:
    r"""Write a non-negative integer below 2**70 as LEB128: seven bits a byte, low bits first.

    Example:
        >>> varint(5)
        b'\x05'
    """
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


@final
class Reader:
    r"""Reads an untrusted byte string from its start; every read past the end raises `CorruptFileError`.

    Example:
        >>> reader = Reader(b"\xac\x02ab")
        >>> reader.varint(), reader.take(2), reader.end()
        (300, b'ab', None)
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def at(self) -> int:
        """How many bytes were read."""
        return self._at

    def byte(self) -> int:
        """One byte as an integer."""
        return self.take(1)[0]

    def take(self, count: int) -> bytes:
        """The next `count` bytes."""
        end = self._at + count
        if count < 0 or end > len(self._data):
            raise CorruptFileError(
                f"coded stream: {count} bytes expected at {self._at}, the stream has {len(self._data)}"
            )
        part = self._data[self._at : end]
        self._at = end
        return part

    def rest(self) -> bytes:
        """Every byte that is left."""
        return self.take(len(self._data) - self._at)

    def varint(self) -> int:
        """One LEB128 integer of at most ten bytes."""
        value = 0
        for index in range(_VARINT_BYTES):
            byte = self.byte()
            value |= (byte & 127) << 7 * index
            if byte < 128:
                return value
        raise CorruptFileError("coded stream: a length of more than ten bytes")

    def end(self) -> None:
        """Check that nothing is left."""
        if self._at != len(self._data):
            raise CorruptFileError(f"coded stream: {len(self._data) - self._at} bytes left over")


def pack_groups(groups: Iterable[tuple[NDArray[np.uint64], int]]) -> bytes:
    """Pack groups of (1-D uint64 values, width): values are below 2**width, widths 0..64.

    The whole low bytes of every value come first, then the `width % 8` bits above them as one run of bits. Splitting
    off the whole bytes keeps the work at one byte copy a byte; only the odd bits pass through a bit array.

    Example:
        >>> pack_groups([(np.array([1, 2, 3], np.uint64), 2)]).hex()
        '6c'
    """
    whole, odd = [], [np.zeros(0, dtype=np.uint8)]
    for values, width in groups:
        octets = np.ascontiguousarray(values, dtype="<u8").view(np.uint8).reshape(-1, 8)
        size, rest = width >> 3, width & 7
        whole.append(octets[:, :size].tobytes())
        if rest:
            odd.append(np.unpackbits(octets[:, size : size + 1], axis=1)[:, 8 - rest :].reshape(-1))
    return b"".join(whole) + np.packbits(np.concatenate(odd)).tobytes()


def unpack_groups(reader: Reader, groups: Sequence[tuple[int, int]]) -> list[NDArray[np.uint64]]:
    r"""Read what `pack_groups` wrote, for groups of (count, width); a uint64 array for each.

    Example:
        >>> unpack_groups(Reader(b"\x6c"), [(3, 2)])[0].tolist()
        [1, 2, 3]
    """
    whole = [reader.take(count * (width >> 3)) for count, width in groups]
    total = sum(count * (width & 7) for count, width in groups)
    packed = np.frombuffer(reader.take(total + 7 >> 3), dtype=np.uint8)
    _check_padding(packed, total)
    out, at = [], 0
    for (count, width), part in zip(groups, whole, strict=True):
        size, rest = width >> 3, width & 7
        octets = np.zeros((count, 8), dtype=np.uint8)
        octets[:, :size] = np.frombuffer(part, dtype=np.uint8).reshape(count, size)
        for begin in range(0, count if rest else 0, _BLOCK):
            some = min(_BLOCK, count - begin)
            bits = np.zeros((some, 8), dtype=np.uint8)
            bits[:, 8 - rest :] = _bits(packed, at, some * rest).reshape(some, rest)
            octets[begin : begin + some, size] = np.packbits(bits, axis=1)[:, 0]
            at += some * rest
        out.append(octets.view("<u8")[:, 0].astype(np.uint64, copy=False))
    return out


def _check_padding(packed: NDArray[np.uint8], total: int) -> None:
    if total & 7 and int(packed[-1]) & (255 >> (total & 7)):
        raise CorruptFileError("coded stream: padding bits are not zero")


def _bits(packed: NDArray[np.uint8], at: int, count: int) -> NDArray[np.uint8]:
    """`count` bits from bit `at` on, one a byte."""
    return np.unpackbits(packed[at >> 3 : at + count + 7 >> 3])[at & 7 : (at & 7) + count]


def pack_raw(groups: Sequence[tuple[NDArray[np.uint32], int]]) -> bytes:
    """Pack groups of (1-D uint32 values below 2**width, width): widths 1..32.

    The whole low bytes of each group come first, byte plane by byte plane; then the `width % 8` bits above them, bit
    plane by bit plane, of all groups as one run of bits.

    Example:
        >>> pack_raw([(np.array([1, 2, 3], np.uint32), 2)]).hex()
        'ac'
    """
    whole, odd = [], [np.zeros(0, dtype=np.uint8)]
    for values, width in groups:
        whole += [(values >> np.uint32(8 * index)).astype(np.uint8).tobytes() for index in range(width >> 3)]
        high = (values >> np.uint32(width & 24)).astype(np.uint8) if width & 7 else values
        odd += [high >> np.uint8(bit) & np.uint8(1) for bit in range(width & 7)]
    return b"".join(whole) + np.packbits(np.concatenate(odd)).tobytes()


def unpack_raw(reader: Reader, groups: Sequence[tuple[int, int]]) -> list[NDArray[np.uint32]]:
    r"""Read what `pack_raw` wrote, for groups of (count, width); a uint32 array for each.

    Raises:
        CorruptFileError: bytes missing, or padding that is not zero.

    Example:
        >>> unpack_raw(Reader(b"\xac"), [(3, 2)])[0].tolist()
        [1, 2, 3]
    """
    whole = [[reader.take(count) for _ in range(width >> 3)] for count, width in groups]
    total = sum(count * (width & 7) for count, width in groups)
    packed = np.frombuffer(reader.take(total + 7 >> 3), dtype=np.uint8)
    _check_padding(packed, total)
    out, at = [], 0
    for (count, width), parts in zip(groups, whole, strict=True):
        high = np.zeros(count, dtype=np.uint8)
        for bit in range(width & 7):
            high |= _bits(packed, at, count) << np.uint8(bit)
            at += count
        values = high.astype(np.uint32)
        for part in reversed(parts):
            values <<= np.uint32(8)
            values |= np.frombuffer(part, dtype=np.uint8)
        out.append(values)
    return out


def counts_of(symbols: Array, length: int = 0) -> NDArray[np.int64]:
    """How often each of 0..max occurs in a non-negative integer array (as `np.bincount`, in blocks to spare memory).

    Example:
        >>> counts_of(np.array([0, 2, 2], np.uint8)).tolist()
        [1, 0, 2]
    """
    flat = symbols.reshape(-1)
    length = max(length, int(flat.max()) + 1 if flat.size else 0)
    total = np.zeros(length, dtype=np.int64)
    for start in range(0, flat.size, 1 << 18):
        total += np.bincount(flat[start : start + (1 << 18)], minlength=length)
    return total
