"""One parameter as streams of bytes, and back: side arrays, mask, and codes, each with the coder that suits it.

A mask is coded once and codes only where it keeps a value; integer codes are entropy-coded, those of a grid in bit
planes unless they are few; floats go byte by byte; scales and level tables are stored in the smallest float format that
holds them exactly.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from bitwidth.artifact.header import CODES, PLANES, Entry, Stream
from bitwidth.artifact.limits import DTYPES
from bitwidth.artifact.states import arrays_of, config_of, kinds_of, state_of
from bitwidth.artifact.written import check_values, check_written, coder_of
from bitwidth.coder import (
    decode_array,
    decode_integers,
    decode_mask,
    decode_planes,
    encode_array,
    encode_integers,
    encode_mask,
    encode_planes,
)
from bitwidth.encodings import (
    Dense,
    Encoding,
    Quantized,
    encoding_from_state,
    is_registered,
    least_format,
    magnitude_bits,
    ordered,
    prefix,
    spread,
)
from bitwidth.errors import CorruptFileError, EncodingError, UnknownEncodingError
from bitwidth.typing import Array

_PLANE_BYTES = 7  # of a plane after the first: its checksum, and its length in the header
_DEARER = 0.01  # what bit planes may cost more than whole codes


@final
@dataclass
class Packed:
    """Streams of one parameter: a description (JSON) and the bytes in the same order."""

    description: list[Any] = field(default_factory=list)
    streams: list[bytes] = field(default_factory=list)

    def add(self, name: str, coder: str, dtype: str, shape: tuple[int, ...], data: bytes) -> None:
        """Add one stream."""
        self.description.append([name, coder, dtype, list(shape), len(data)])
        self.streams.append(data)

    def add_planes(self, name: str, dtype: str, shape: tuple[int, ...], parts: list[bytes]) -> None:
        """Add the last stream, coded in bit planes."""
        self.description.append([name, PLANES, dtype, list(shape), [len(part) for part in parts]])
        self.streams += parts

    @property
    def first(self) -> list[bytes]:
        """The streams of the first chunk."""
        return self.streams[: len(self.description)]

    @property
    def later(self) -> list[bytes]:
        """The bit planes after the first, a chunk each."""
        return self.streams[len(self.description) :]


def pack_parameter(
    encoding: Encoding, values: Array, dtype: str, planes: bool | None = None
) -> tuple[dict[str, Any], Packed]:
    """The encoding as JSON without its arrays, and all arrays and codes as streams.

    Args:
        encoding: how the values are held.
        values: on the encoding.
        dtype: of the parameter.
        planes: whether integer codes are coded in bit planes; None where that costs no more than a percent.
    """
    packed = Packed()
    for name, array in arrays_of(encoding.state()):
        _pack_array(packed, name, array)
    codes = encoding.encode(values)
    if dtype == "bfloat16" and codes.dtype == np.float32:  # as `unpack_parameter` returns them
        codes = _as_bfloat16(codes)
    if encoding.mask is not None:
        codes = codes[encoding.mask]
    if codes.dtype.kind in "OSU":
        raise EncodingError(f"values of dtype {codes.dtype} cannot be stored")
    coder = coder_of(str(codes.dtype), dtype)
    integers = coder == "integers"
    data = encode_integers(codes) if integers else encode_array(_storable(codes))
    parts = None if planes is False or not integers else _planes(encoding, codes, values.shape)
    if parts is not None and (planes or planes_cost(parts) <= len(data) * (1 + _DEARER)):
        packed.add_planes(CODES, str(codes.dtype), codes.shape, parts)
    else:
        named = "bfloat16" if dtype == "bfloat16" and codes.dtype == np.uint16 else str(codes.dtype)
        packed.add(CODES, coder, named, codes.shape, data)
    return config_of(encoding.state()), packed


def planes_cost(parts: list[bytes]) -> int:
    """Bytes that bit planes take in the file, with the checksums and the words in the header that they need."""
    return sum(map(len, parts)) + _PLANE_BYTES * (len(parts) - 1)


def _planes(encoding: Encoding, codes: NDArray[np.int32], shape: tuple[int, ...]) -> list[bytes] | None:
    """The codes less their zero points in bit planes; None where they are not integers in order, or there are none."""
    grid = ordered(encoding)
    if grid is None or not codes.size:
        return None
    codes = codes - _zero_points(grid, encoding.mask, shape)
    width = magnitude_bits(grid)
    return encode_planes(codes, _width_of(codes) if width is None else width)


def _width_of(codes: NDArray[np.int32]) -> int:
    """Bits of the greatest magnitude, one at least."""
    return max(1, int(codes.max(initial=0)).bit_length(), int(-codes.min(initial=0)).bit_length())


def _zero_points(grid: Quantized, mask: NDArray[np.bool_] | None, shape: tuple[int, ...]) -> NDArray[np.int32]:
    """The zero point of each code that is stored; broadcasts against them."""
    if grid.zero_point is None:
        return np.zeros((), np.int32)
    zero = spread(grid.zero_point, grid.block, shape)
    return zero if mask is None else np.broadcast_to(zero, shape)[mask]


def unpack_parameter(entry: Entry, streams: list[bytes], where: str, bits: int | None = None) -> tuple[Encoding, Array]:
    """The encoding and the values of one parameter.

    Args:
        entry: what the header says of it.
        streams: its streams, in order; where its codes are bit planes, those that `entry.planes_read(bits)` counts.
        where: file and parameter, for messages.
        bits: read only the first bits of each code; None for all.

    Raises:
        UnknownEncodingError: an encoding that is not registered in this process.
        CorruptFileError: the streams do not make such a parameter.
    """
    unknown = next((kind for kind in kinds_of(entry.encoding) if not is_registered(kind)), None)
    if unknown is not None:
        raise UnknownEncodingError(
            f"{where}: held in an encoding {unknown!r} that is not registered in this process: import the package that "
            "calls register_encoding for it, and read the file again"
        )
    try:
        parts = streams[len(entry.streams) - 1 :] if entry.planes else []
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
            encoding, codes = _truncated(encoding, codes, entry.shape, bits)
        with np.errstate(over="ignore", invalid="ignore"):  # whoever uses the values asks whether they are finite
            values = encoding.decode(_placed(codes, encoding, entry.shape))
        check_values(encoding, values)
    except Exception as error:  # an encoding of a user's own may raise anything
        raise CorruptFileError(f"{where}: {error}") from error
    if str(values.dtype) != ("float32" if entry.dtype == "bfloat16" else entry.dtype):
        raise CorruptFileError(f"{where}: {values.dtype} values for a parameter of {entry.dtype}")
    return encoding, values


def _from_planes(
    encoding: Encoding, entry: Entry, parts: list[bytes], bits: int | None
) -> tuple[Encoding, NDArray[np.int32]]:
    """The codes from their first bit planes, and the encoding that reads so many of them."""
    grid, kept = ordered(encoding), entry.streams[-1].shape
    if grid is None or magnitude_bits(grid) not in (None, entry.planes):
        raise EncodingError(f"{entry.planes} bit planes do not make codes of {encoding.describe()}")
    codes = decode_planes(parts, prod(kept)).reshape(kept)
    if len(parts) == entry.planes or bits is None:
        return encoding, codes + _zero_points(grid, encoding.mask, entry.shape)
    return prefix(encoding, bits, entry.planes), codes


def _truncated(encoding: Encoding, codes: Array, shape: tuple[int, ...], bits: int) -> tuple[Encoding, Array]:
    """The first bits of whole codes, and the encoding that reads them."""
    grid = ordered(encoding)
    if grid is None:
        return encoding, codes
    signed = codes - _zero_points(grid, encoding.mask, shape)
    width = magnitude_bits(grid) or _width_of(signed)
    short = prefix(encoding, bits, width)
    if short is encoding:
        return encoding, codes
    return short, np.sign(signed) * (np.abs(signed) >> width - (bits - 1))


def _placed(codes: Array, encoding: Encoding, shape: tuple[int, ...]) -> Array:
    """The codes of the whole tensor, from those that the mask keeps."""
    if encoding.mask is None:
        return codes.reshape(shape)
    if codes.size != encoding.mask.sum():
        raise EncodingError(f"{codes.size:,} codes for {int(encoding.mask.sum()):,} values that the mask keeps")
    full = np.zeros(shape, codes.dtype)
    full[encoding.mask] = codes.ravel()
    return full


def _pack_array(packed: Packed, name: str, array: Array) -> None:
    if array.dtype == np.bool_:
        packed.add(name, "mask", "bool", array.shape, encode_mask(array))
    elif array.dtype == np.float32:
        smallest = least_format(array)
        packed.add(name, "bytes", str(smallest.format), array.shape, encode_array(_storable(smallest.encode(array))))
    else:
        packed.add(name, "bytes", str(array.dtype), array.shape, encode_array(_storable(array)))


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


def all_finite(values: Array) -> bool:
    """Whether there is no infinity among floating point numbers, and nothing that is no number."""
    if values.dtype.kind == "V":  # the floats of other packages
        values = values.astype(np.float32)
    return values.dtype.kind not in "fc" or bool(np.isfinite(values).all())


def _as_bfloat16(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    held = Dense("bfloat16")
    bits: NDArray[np.uint16] = held.encode(values)
    if not np.array_equal(held.decode(bits), values, equal_nan=True):
        raise EncodingError("values of a bfloat16 parameter that bfloat16 does not hold")
    return bits


def _storable(array: Array) -> Array:
    """`array` in a dtype that numpy itself knows: the 2-byte floats of other packages as their bits."""
    if array.dtype.kind == "V" and array.dtype.itemsize == 2:
        return array.view(np.uint16)
    return array
