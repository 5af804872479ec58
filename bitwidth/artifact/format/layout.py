"""The bytes of a .bw file.

::

    offset  size  what
    0       8     magic: 0x89 "BW" CR LF 0x1A LF 0x00 (a transfer that changes line ends or strips bit 8 breaks it)
    8       2     version of the format, little endian like every number here
    10      2     flags, 0
    12      4     bytes of the header as stored
    16      4     bytes of the header as JSON
    20      8     bytes of the whole file
    28      4     CRC-32 of bytes 0 to 27 and of the stored header
    32      n     the header: JSON, UTF-8, deflated (RFC 1951) with a preset dictionary
    32+n          the first chunk of each group of parameters, one chunk per asset, the second chunks of groups

A chunk is a CRC-32 (4 bytes) and streams one after another; the header says how long each is. What a reader of 4 bits
needs lies together at the beginning of the file.

In versions 1 and 2 the header is deflated without a dictionary, in the zlib format (RFC 1950), and each parameter has a
chunk of its own, in version 2 followed by a chunk for each further bit plane of its codes.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import final

from bitwidth.artifact.format.limits import MAX_HEADER_BYTES
from bitwidth.errors import CorruptFileError, FileError, VersionError

MAGIC = b"\x89BW\r\n\x1a\n\x00"
CHECKPOINT = b"\x89BWC\r\n\x1a\n"  # of another kind of file: see `bitwidth.artifact.checkpoint`
VERSION = 3
OLDEST = 1  # the first version that is still read
WITH_PLANES = 2  # the first version that has bit planes
WITH_GROUPS = 3  # the first version whose parameters lie in groups, behind a header with a preset dictionary
_PREFIX = struct.Struct("<8sHHIIQ")
_CRC = struct.Struct("<I")
_RAW = -15  # deflate without the header and checksum of zlib
PREAMBLE = _PREFIX.size + _CRC.size


@final
@dataclass(frozen=True)
class Preamble:
    """The first 32 bytes of a file.

    Attributes:
        version: of the format.
        stored: bytes of the header as stored.
        plain: bytes of the header as JSON.
        total: bytes of the whole file.
        crc: checksum of the preamble before it and of the stored header.
        prefix: the bytes that the checksum begins with.
    """

    version: int
    stored: int
    plain: int
    total: int
    crc: int
    prefix: bytes


def beginning(header: bytes, chunks: int) -> bytes:
    """Preamble and header of a file of the present version.

    Args:
        header: JSON.
        chunks: bytes of all that follows.

    Raises:
        FileError: the header is longer than a file may hold.
    """
    if len(header) > MAX_HEADER_BYTES:
        raise FileError(f"a header of {len(header):,} bytes is more than a file may hold ({MAX_HEADER_BYTES:,})")
    deflater = zlib.compressobj(9, zlib.DEFLATED, _RAW, 9, zdict=dictionary())
    stored = deflater.compress(header) + deflater.flush()
    prefix = _PREFIX.pack(MAGIC, VERSION, 0, len(stored), len(header), PREAMBLE + len(stored) + chunks)
    return b"".join([prefix, _CRC.pack(zlib.crc32(stored, zlib.crc32(prefix))), stored])


def chunk(streams: Sequence[bytes]) -> bytes:
    """A chunk: the checksum of its streams, and the streams."""
    crc = 0
    for stream in streams:
        crc = zlib.crc32(stream, crc)
    return b"".join([_CRC.pack(crc), *streams])


@cache
def dictionary() -> bytes:
    """What the header of version 3 is deflated with: a part of the format, which never changes."""
    return resources.files("bitwidth.artifact.version3").joinpath("dictionary.txt").read_bytes()


def parse_preamble(data: bytes, name: str) -> Preamble:
    """The preamble of a file.

    Args:
        data: the first bytes of the file.
        name: of the file, for messages.

    Raises:
        CorruptFileError: this is no .bw file, or it is cut off.
        VersionError: a newer version of the format.
    """
    if data[: len(MAGIC)] != MAGIC[: len(data)] or not data:
        if data.startswith(CHECKPOINT):
            raise CorruptFileError(f"{name}: not a .bw file, but what Result.to_bytes returned: use Result.from_bytes")
        raise CorruptFileError(f"{name}: not a .bw file, or its first bytes were altered")
    if len(data) < PREAMBLE:
        raise CorruptFileError(f"{name}: cut off after {len(data)} bytes, within its first {PREAMBLE}")
    _, version, flags, stored, plain, total = _PREFIX.unpack_from(data)
    (crc,) = _CRC.unpack_from(data, _PREFIX.size)
    if stored > MAX_HEADER_BYTES or plain > MAX_HEADER_BYTES:
        raise CorruptFileError(f"{name}: a header of {plain:,} bytes is more than a file may hold")
    if not OLDEST <= version <= VERSION or flags:
        raise VersionError(
            f"{name}: version {version} of the format (flags {flags:#x}); this library reads versions "
            f"{OLDEST} to {VERSION}: a newer bitwidth wrote it, or its first bytes were altered"
        )
    return Preamble(version, stored, plain, total, crc, data[: _PREFIX.size])


def parse_header(preamble: Preamble, stored: bytes, name: str) -> bytes:
    """The header as JSON.

    Raises:
        CorruptFileError: it is cut off or altered.
    """
    if len(stored) < preamble.stored:
        raise CorruptFileError(f"{name}: cut off within its header")
    if zlib.crc32(stored, zlib.crc32(preamble.prefix)) != preamble.crc:
        raise CorruptFileError(f"{name}: its header was altered (checksum)")
    try:
        earlier = preamble.version < WITH_GROUPS
        inflater = zlib.decompressobj() if earlier else zlib.decompressobj(_RAW, zdict=dictionary())
        header = inflater.decompress(stored, preamble.plain + 1)
    except zlib.error as error:
        raise CorruptFileError(f"{name}: its header cannot be inflated: {error}") from error
    if len(header) != preamble.plain or not inflater.eof or inflater.unused_data:
        raise CorruptFileError(f"{name}: its header is not as long as it says")
    return header


def split_chunk(data: bytes, lengths: Sequence[int], name: str, what: str) -> list[bytes]:
    """The streams of a chunk (its checksum in front).

    Raises:
        CorruptFileError: the chunk is cut off or altered.
    """
    if len(data) != chunk_size(lengths):
        raise CorruptFileError(f"{name}: cut off within {what}")
    (crc,) = _CRC.unpack_from(data)
    if zlib.crc32(memoryview(data)[_CRC.size :]) != crc:
        raise CorruptFileError(f"{name}: {what} was altered (checksum)")
    streams, start = [], _CRC.size
    for length in lengths:
        streams.append(data[start : start + length])
        start += length
    return streams


def chunk_size(lengths: Sequence[int]) -> int:
    """Bytes of a chunk with streams of these lengths."""
    return _CRC.size + sum(lengths)
