"""A checkpoint: a compressed model with all that a later run needs to go on as if it had not been interrupted.

::

    offset  size  what
    0       8     magic: 0x89 "BWC" CR LF 0x1A LF
    8       2     version of the checkpoint, little endian like every number here
    10      2     flags, 0
    12      8     bytes of the model
    20      8     bytes of the masters
    28      8     bytes of the report
    36      4     CRC-32 of bytes 0 to 35 and of the report
    40            the model, a .bw file; the masters, a .bw file of the float arrays behind the parameters of the model
                  that have one; the report: JSON, UTF-8

A released file is smaller by the masters, which take as much as the model before it was compressed.
"""

from __future__ import annotations

import contextlib
import json
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, final

from bitwidth.artifact.format import layout
from bitwidth.artifact.format.limits import MAX_HEADER_BYTES
from bitwidth.artifact.format.stored import Architecture, StoredModel, StoredParameter
from bitwidth.artifact.format.strict_json import strict_json
from bitwidth.artifact.reader import OpenFile, open_bytes
from bitwidth.artifact.writer import pack
from bitwidth.encodings import Dense
from bitwidth.errors import CorruptFileError, VersionError
from bitwidth.typing import Array

MAGIC = layout.CHECKPOINT
_VERSION = 1
_PREFIX = struct.Struct("<8sHHQQQ")
_CRC = struct.Struct("<I")
_START = _PREFIX.size + _CRC.size
_NAME = "checkpoint"  # in messages


@final
@dataclass(frozen=True, eq=False)
class Checkpoint:
    """What a checkpoint holds.

    Attributes:
        file: the compressed model.
        masters: the float array behind each parameter that has one, by path; of the parameter's shape.
        report: of the run, as plain data.
    """

    file: OpenFile
    masters: Mapping[str, Array]
    report: Any


def pack_checkpoint(model: StoredModel, data: bytes, masters: Mapping[str, Array], report: Any) -> bytes:
    """The bytes of a checkpoint.

    Args:
        model: the model.
        data: the bytes of its .bw file.
        masters: the float array behind each parameter that has one, by path.
        report: of the run, as plain data.

    Raises:
        EncodingError: masters that are not finite.
    """
    kept = tuple(_as_float(p, masters[p.path]) for p in model.parameters if p.path in masters)
    variables = [[p.path, list(p.values.shape), p.dtype] for p in kept]
    nothing = Architecture("none", None, "the masters of a checkpoint", None, variables)
    floats = pack(StoredModel("masters", nothing, kept)).data
    text = json.dumps(report, separators=(",", ":")).encode()
    prefix = _PREFIX.pack(MAGIC, _VERSION, 0, len(data), len(floats), len(text))
    return b"".join([prefix, _CRC.pack(zlib.crc32(text, zlib.crc32(prefix))), data, floats, text])


@contextlib.contextmanager
def open_checkpoint(data: bytes) -> Iterator[Checkpoint]:
    """A checkpoint, every part of it checked but the values of the model, which are when they are read.

    Args:
        data: its bytes; untrusted.

    Raises:
        CorruptFileError: they are not a checkpoint, or were cut off or altered.
        VersionError: a newer version of the format.
    """
    model, floats, report = _parts(data)
    with open_bytes(model, _NAME) as file, open_bytes(floats, f"{_NAME}, masters") as second:
        shapes = {entry.path: entry.shape for entry in file.header.entries}
        for entry in second.header.entries:
            if shapes.get(entry.path) != entry.shape or "float" not in entry.dtype:
                raise CorruptFileError(f"{_NAME}: a master {entry.path[:80]!r} that fits no parameter")
        masters = {parameter.path: parameter.values for parameter in second.parameters()}
        yield Checkpoint(file, masters, report)


def is_checkpoint(data: bytes) -> bool:
    """Whether bytes begin as those of a checkpoint do."""
    return data[: len(MAGIC)] == MAGIC


def _parts(data: bytes) -> tuple[bytes, bytes, Any]:
    if not is_checkpoint(data):
        hint = ": a .bw file; save it and use bitwidth.load" if data[: len(layout.MAGIC)] == layout.MAGIC else ""
        raise CorruptFileError(f"{_NAME}: not what Result.to_bytes returns{hint}")
    if len(data) < _START:
        raise CorruptFileError(f"{_NAME}: cut off after {len(data)} bytes, within its first {_START}")
    _, version, flags, *sizes = _PREFIX.unpack_from(data)
    if version != _VERSION or flags:
        raise VersionError(f"{_NAME}: version {version} (flags {flags:#x}); this library reads version {_VERSION}")
    if _START + sum(sizes) != len(data):
        raise CorruptFileError(f"{_NAME}: {len(data):,} bytes, expected {_START + sum(sizes):,}")
    ends = [_START + sum(sizes[:place]) for place in range(4)]
    model, floats, text = (data[start:end] for start, end in pairwise(ends))
    (crc,) = _CRC.unpack_from(data, _PREFIX.size)
    if crc != zlib.crc32(text, zlib.crc32(data[: _PREFIX.size])):
        raise CorruptFileError(f"{_NAME}: its first bytes or its report were altered (checksum)")
    return model, floats, _report(text)


def _report(text: bytes) -> Any:
    if len(text) > MAX_HEADER_BYTES:
        raise CorruptFileError(f"{_NAME}: a report of {len(text):,} bytes is more than one may hold")
    try:
        return strict_json(text)
    except (ValueError, RecursionError, MemoryError) as error:
        raise CorruptFileError(f"{_NAME}: its report cannot be read: {error}") from error


def _as_float(parameter: StoredParameter, master: Array) -> StoredParameter:
    width = 16 if parameter.dtype.endswith("16") else 8 * master.itemsize
    return replace(parameter, encoding=Dense(width=width), values=master)
