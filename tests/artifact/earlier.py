"""Writes files of version 2, which the library reads and no longer writes."""

from __future__ import annotations

import json
import struct
import zlib
from dataclasses import dataclass, field
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from bitwidth.artifact import StoredModel
from bitwidth.artifact.earlier import PLANES
from bitwidth.artifact.earlier.prefixes import zero_points
from bitwidth.artifact.format.activations import written
from bitwidth.artifact.format.header import CODES
from bitwidth.artifact.format.held import all_finite, is_code
from bitwidth.artifact.format.layout import MAGIC
from bitwidth.artifact.format.states import arrays_of, config_of
from bitwidth.artifact.version3.fields import stored_codes
from bitwidth.coder import encode_array, encode_integers, encode_mask
from bitwidth.encodings import Encoding, least_format, magnitude_bits, ordered
from bitwidth.errors import EncodingError
from bitwidth.typing import Array
from tests.coder.released import encode_planes

_PREFIX = struct.Struct("<8sHHIIQ")
_CRC = struct.Struct("<I")
_PLANE_BYTES = 7
_DEARER = 0.01


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
    codes = stored_codes(encoding.encode(values), dtype)
    if encoding.mask is not None:
        codes = codes[encoding.mask]
    coder = "integers" if is_code(str(codes.dtype), dtype) else "bytes"
    integers = coder == "integers"
    data = encode_integers(codes) if integers else encode_array(codes)
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
    codes = codes - zero_points(grid, encoding.mask, shape)
    width = magnitude_bits(grid)
    return encode_planes(codes, _width_of(codes) if width is None else width)


def _width_of(codes: NDArray[np.int32]) -> int:
    """Bits of the greatest magnitude, one at least."""
    return max(1, int(codes.max(initial=0)).bit_length(), int(-codes.min(initial=0)).bit_length())


def _pack_array(packed: Packed, name: str, array: Array) -> None:
    if array.dtype == np.bool_:
        packed.add(name, "mask", "bool", array.shape, encode_mask(array))
    elif array.dtype == np.float32:
        smallest = least_format(array)
        packed.add(name, "bytes", str(smallest.format), array.shape, encode_array(smallest.encode(array)))
    else:
        packed.add(name, "bytes", str(array.dtype), array.shape, encode_array(array))


def pack(model: StoredModel, planes: bool | None = None) -> bytes:
    """The bytes of the file that holds `model`; as version 2 had it.

    Args:
        model: the model.
        planes: whether integer codes are coded in bit planes; None where that costs no more than a percent.

    Raises:
        EncodingError: values that are not finite, or of a dtype that a file cannot hold.
        FileError: names that a file cannot hold.
    """
    chunks: list[bytes] = []
    entries: list[dict[str, Any]] = []
    for parameter in model.parameters:
        if not all_finite(parameter.values):
            raise EncodingError(f"{parameter.path}: values that are not finite cannot be stored")
        config, packed = pack_parameter(parameter.encoding, parameter.values, parameter.dtype, planes)
        entry = {
            "path": parameter.path,
            "role": parameter.role,
            "shape": list(parameter.values.shape),
            "dtype": parameter.dtype,
            "encoding": config,
            "streams": packed.description,
        }
        entries.append(entry if parameter.trainable else {**entry, "frozen": True})
        parts = [b"".join(packed.first), *packed.later]
        chunks += parts
    built = model.architecture
    header = {
        "name": model.name,
        "framework": built.framework,
        "architecture": built.config,
        "reason": built.reason,
        "inputs": built.inputs,
        "variables": built.variables,
        "parameters": entries,
        "assets": [[name, len(data)] for name, data in built.assets.items()],
    }
    if model.activations:
        header["activations"] = written(model.activations)
        header["layers"] = list(built.layers)
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False, allow_nan=True)
    return framed(text.encode(), [*chunks, *built.assets.values()])


def framed(header: bytes, chunks: list[bytes]) -> bytes:
    """A whole file from its header (JSON) and chunks (without checksums)."""
    stored = zlib.compress(header, 9)
    total = _PREFIX.size + _CRC.size + len(stored) + sum(_CRC.size + len(chunk) for chunk in chunks)
    prefix = _PREFIX.pack(MAGIC, 2, 0, len(stored), len(header), total)
    parts = [prefix, _CRC.pack(zlib.crc32(stored, zlib.crc32(prefix))), stored]
    for chunk in chunks:
        parts += [_CRC.pack(zlib.crc32(chunk)), chunk]
    return b"".join(parts)
