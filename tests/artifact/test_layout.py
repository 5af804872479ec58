from __future__ import annotations

import struct
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitwidth.artifact.format.layout import (
    MAGIC,
    PREAMBLE,
    VERSION,
    beginning,
    chunk,
    chunk_size,
    dictionary,
    parse_header,
    parse_preamble,
    split_chunk,
)
from bitwidth.artifact.format.limits import MAX_HEADER_BYTES, checked_shape
from bitwidth.errors import CorruptFileError, FileError, VersionError


def preamble(version: int = VERSION, flags: int = 0, stored: int = 0, plain: int = 0) -> bytes:
    prefix = struct.pack("<8sHHIIQ", MAGIC, version, flags, stored, plain, PREAMBLE + stored)
    return prefix + struct.pack("<I", zlib.crc32(prefix))


def framed(header: bytes, chunks: list[list[bytes]]) -> bytes:
    """A file of the present version."""
    whole = [chunk(streams) for streams in chunks]
    return b"".join([beginning(header, sum(map(len, whole))), *whole])


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=400), st.lists(st.lists(st.binary(max_size=20), max_size=3), max_size=4))
def test_what_is_framed_is_read_back(header: bytes, chunks: list[list[bytes]]) -> None:
    data = framed(header, chunks)
    first = parse_preamble(data[:PREAMBLE], "m.bw")
    assert first.total == len(data)
    place = PREAMBLE + first.stored
    assert parse_header(first, data[PREAMBLE:place], "m.bw") == header
    for streams in chunks:
        lengths = [len(stream) for stream in streams]
        size = chunk_size(lengths)
        assert split_chunk(data[place : place + size], lengths, "m.bw", "a chunk") == streams
        place += size
    assert place == len(data)


def test_the_first_bytes_are_as_documented() -> None:
    data = framed(b"{}", [[b"abc"]])
    deflater = zlib.compressobj(9, zlib.DEFLATED, -15, 9, zdict=dictionary())
    stored = deflater.compress(b"{}") + deflater.flush()
    assert data[:8] == bytes([0x89]) + b"BW\r\n\x1a\n\0"
    assert data[8:12] == b"\x03\x00\x00\x00"
    assert data[12:20] == struct.pack("<II", len(stored), 2)
    assert data[20:28] == struct.pack("<Q", len(data))
    assert data[28:32] == zlib.crc32(data[:28] + stored).to_bytes(4, "little")
    assert data[32:] == stored + zlib.crc32(b"abc").to_bytes(4, "little") + b"abc"


def test_a_header_longer_than_a_file_may_hold_is_not_written() -> None:
    with pytest.raises(FileError, match="more than a file may hold"):
        beginning(b" " * (MAX_HEADER_BYTES + 1), 0)


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data.replace(b"\r\n", b"\n"),  # line ends changed in transfer
        lambda data: data.replace(b"\n", b"\r\n"),
        lambda data: bytes(byte & 0x7F for byte in data),  # bit 8 stripped
        lambda data: b"\xef\xbb\xbf" + data,
        lambda data: b"PK\x03\x04" + data[4:],
        lambda data: data[::-1],
        lambda data: b"\0" * len(data),
    ],
)
def test_what_is_no_bw_file_is_told(damage: object) -> None:
    assert callable(damage)
    with pytest.raises(CorruptFileError, match=r"m\.bw: not a \.bw file"):
        parse_preamble(damage(preamble()), "m.bw")


@pytest.mark.parametrize("length", range(PREAMBLE))
def test_a_cut_preamble_is_told(length: int) -> None:
    with pytest.raises(CorruptFileError, match=r"m\.bw: (cut off|not a \.bw file)"):
        parse_preamble(preamble()[:length], "m.bw")


@pytest.mark.parametrize(("version", "flags"), [(4, 0), (0, 0), (65535, 0), (1, 1), (2, 0x8000), (2, 1)])
def test_another_version_is_told(version: int, flags: int) -> None:
    with pytest.raises(VersionError, match=f"version {version} .*reads versions 1 to 3"):
        parse_preamble(preamble(version, flags), "m.bw")


@pytest.mark.parametrize("version", [1, 2])
def test_the_versions_before_are_read(version: int) -> None:
    assert parse_preamble(preamble(version=version), "m.bw").total == PREAMBLE


@pytest.mark.parametrize(("stored", "plain"), [(MAX_HEADER_BYTES + 1, 10), (10, MAX_HEADER_BYTES + 1), (2**32 - 1, 9)])
def test_a_header_that_is_too_long_is_refused_before_it_is_read(stored: int, plain: int) -> None:
    with pytest.raises(CorruptFileError, match="more than a file may hold"):
        parse_preamble(preamble(stored=stored, plain=plain), "m.bw")


def test_a_header_that_inflates_to_another_length_is_refused() -> None:
    for text, plain in ((b"x" * 50, 49), (b"x" * 50, 51), (b"x" * 100_000, 10)):
        stored = zlib.compress(text)
        prefix = struct.pack("<8sHHIIQ", MAGIC, 1, 0, len(stored), plain, PREAMBLE + len(stored))
        first = parse_preamble(prefix + struct.pack("<I", zlib.crc32(stored, zlib.crc32(prefix))), "m.bw")
        with pytest.raises(CorruptFileError, match="not as long as it says"):
            parse_header(first, stored, "m.bw")


def test_a_header_that_is_not_deflated_is_refused() -> None:
    for stored in (b"{}", b"", zlib.compress(b"{}")[:-1], zlib.compress(b"{}")[:-5] + b"12345"):
        prefix = struct.pack("<8sHHIIQ", MAGIC, 1, 0, len(stored), 2, PREAMBLE + len(stored))
        first = parse_preamble(prefix + struct.pack("<I", zlib.crc32(stored, zlib.crc32(prefix))), "m.bw")
        with pytest.raises(CorruptFileError, match=r"m\.bw: its header"):
            parse_header(first, stored, "m.bw")


def test_a_chunk_of_another_length_or_checksum_is_refused() -> None:
    chunk = zlib.crc32(b"abcd").to_bytes(4, "little") + b"abcd"
    assert split_chunk(chunk, [1, 3], "m.bw", "a/kernel") == [b"a", b"bcd"]
    for data, lengths in ((chunk[:-1], [4]), (chunk + b"x", [4]), (chunk, [3]), (b"", [0])):
        with pytest.raises(CorruptFileError, match=r"m\.bw: cut off within a/kernel"):
            split_chunk(data, lengths, "m.bw", "a/kernel")
    with pytest.raises(CorruptFileError, match=r"m\.bw: a/kernel was altered"):
        split_chunk(chunk[:-1] + b"x", [4], "m.bw", "a/kernel")


BEYOND: list[object] = [[0, 2**34], [10**30]]


@pytest.mark.parametrize("sizes", [[], [0], [3, 4], [1] * 16, [2**31], [2**18, 2**13], [0, 5]])
def test_a_shape(sizes: list[int]) -> None:
    assert checked_shape(sizes, "a/kernel") == tuple(sizes)


@pytest.mark.parametrize(
    "sizes",
    [
        None,
        5,
        "ab",
        {"0": 1},
        (1, 2),
        [-1],
        [1.0],
        [True],
        ["1"],
        [None],
        [[1]],
        [1] * 17,
        [2**33 + 1],
        [2**20, 2**14],
        [0, 2**34],
        [10**30],
    ],
)
def test_what_is_no_shape_is_refused(sizes: object) -> None:
    with pytest.raises(CorruptFileError, match="a/kernel"):
        checked_shape(sizes, "a/kernel")
