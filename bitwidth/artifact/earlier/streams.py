"""One parameter of version 1 or 2 from its streams: side arrays, mask, and codes, each in a coder of its own.

A mask is coded once and codes only where it keeps a value; integer codes are entropy-coded, in version 2 those of a
grid in bit planes unless they are few; floats go byte by byte; scales and level tables lie in the smallest float format
that holds them exactly.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from bitwidth.artifact.earlier.header import PLANES
from bitwidth.artifact.earlier.prefixes import truncated, zero_points
from bitwidth.artifact.earlier.written import check_written
from bitwidth.artifact.format.header import CODES, Entry, Header, Stream
from bitwidth.artifact.format.held import check_dtype, check_known, check_values, placed
from bitwidth.artifact.format.layout import chunk_size, split_chunk
from bitwidth.artifact.format.limits import DTYPES
from bitwidth.artifact.format.states import state_of
from bitwidth.artifact.format.stored import StoredParameter
from bitwidth.coder import decode_array, decode_integers, decode_mask, decode_planes
from bitwidth.encodings import (
    Dense,
    Encoding,
    encoding_from_state,
    magnitude_bits,
    ordered,
    prefix,
)
from bitwidth.errors import CorruptFileError, EncodingError
from bitwidth.typing import Array


def unpack_parameter(entry: Entry, streams: list[bytes], where: str, bits: int | None = None) -> tuple[Encoding, Array]:
    """The encoding and the values of one parameter.

    Args:
        entry: what the header says of it.
        streams: its streams, in order; where its codes are bit planes, the planes of the pieces that are read.
        where: file and parameter, for messages.
        bits: read only the first bits of each code; None for all.

    Raises:
        UnknownEncodingError: an encoding that is not registered in this process.
        CorruptFileError: the streams do not make such a parameter.
    """
    check_known(entry.encoding, where)
    in_planes = entry.streams[-1].coder == PLANES
    try:
        parts = streams[len(entry.streams) - 1 :] if in_planes else []
        whole = entry.streams[:-1] if parts else entry.streams
        found = streams[: len(whole)] if parts else streams
        arrays = {s.name: _unpack_array(s, data) for s, data in zip(whole, found, strict=True)}
        codes = arrays.pop(CODES, None)
        encoding = encoding_from_state(state_of(entry.encoding, arrays))
        encoding.check(entry.shape)
        check_written(entry, encoding)
        if codes is None:
            encoding, codes = _from_planes(encoding, entry, parts, bits)
        encoding.unmasked.check_codes(codes)
        if not parts and bits is not None:
            encoding, codes = truncated(encoding, codes, entry.shape, bits)
        mask = encoding.mask
        with np.errstate(over="ignore", invalid="ignore"):  # whoever uses the values asks whether they are finite
            values = encoding.decode(codes.reshape(entry.shape) if mask is None else placed(codes, mask))
        check_values(encoding, values)
    except Exception as error:  # an encoding of a user's own may raise anything
        raise CorruptFileError(f"{where}: {error}") from error
    check_dtype(values, entry.dtype, where)
    return encoding, values


def _from_planes(
    encoding: Encoding, entry: Entry, parts: list[bytes], bits: int | None
) -> tuple[Encoding, NDArray[np.int32]]:
    """The codes from their first bit planes, and the encoding that reads so many of them."""
    grid, kept = ordered(encoding), entry.streams[-1].shape
    if grid is None or magnitude_bits(grid) not in (None, len(entry.pieces)):
        raise EncodingError(f"{len(entry.pieces)} bit planes do not make codes of {encoding.describe()}")
    codes = decode_planes(parts, prod(kept)).reshape(kept)
    if len(parts) == len(entry.pieces) or bits is None:
        return encoding, codes + zero_points(grid, encoding.mask, entry.shape)
    return prefix(encoding, bits, len(entry.pieces)), codes


def _unpack_array(stream: Stream, data: bytes) -> Array:
    if stream.dtype not in DTYPES:
        raise CorruptFileError(f"a stream of unknown dtype {stream.dtype!r}")
    if stream.coder == "mask":
        return decode_mask(data, stream.shape)
    if stream.coder == "integers":
        return decode_integers(data, prod(stream.shape)).reshape(stream.shape)
    if stream.coder != "bytes":
        raise CorruptFileError(f"a stream of unknown coder {stream.coder!r}")
    if stream.dtype == "bfloat16":
        return Dense("bfloat16").decode(decode_array(data, np.dtype(np.uint16), stream.shape))
    return decode_array(data, np.dtype(stream.dtype), stream.shape)


def parameters(file: BinaryIO, place: int, header: Header, name: str, bits: int | None) -> Iterator[StoredParameter]:
    """Each parameter in the file's order, read and checked when it is asked for; each has chunks of its own.

    Args:
        file: open, to read from.
        place: where the chunks begin.
        header: of the file.
        name: of the file, for messages.
        bits: read only the first bits of each code; None for all.

    Raises:
        CorruptFileError: a chunk was cut off or altered, or does not hold what the header says.
    """
    for entry, group in zip(header.entries, header.groups, strict=True):
        file.seek(place)
        streams = split_chunk(file.read(chunk_size(group.lengths)), group.lengths, name, entry.path)
        for piece in entry.pieces[1:]:
            if bits is None or piece.bits <= bits:
                streams += split_chunk(file.read(piece.bytes), [piece.bytes - chunk_size([])], name, entry.path)
        encoding, values = unpack_parameter(entry, streams, f"{name}: {entry.path}", bits)
        yield StoredParameter(entry.path, entry.role, entry.dtype, entry.trainable, encoding, values)
        place += entry.bytes
