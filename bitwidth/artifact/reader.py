"""Read a .bw file: its header alone, or all of it. Nothing in a file is trusted."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

from typing_extensions import override

from bitwidth.artifact.content import Content, StoredParameter
from bitwidth.artifact.layout import PREAMBLE, Preamble, chunk_size, parse_header, parse_preamble, split_chunk
from bitwidth.artifact.limits import MAX_PARAMETERS, checked_shape
from bitwidth.artifact.streams import unpack_parameter
from bitwidth.errors import CorruptFileError, FileError
from bitwidth.text import bytes_text, shape_text, table

_ENTRY = {"path": str, "role": str, "shape": list, "dtype": str, "encoding": dict, "streams": list}


@dataclass(frozen=True)
class Entry:
    """What the header says of one parameter.

    Attributes:
        path: its path.
        role: what it does in the model.
        shape: sizes of its axes.
        dtype: numpy name of its dtype.
        trainable: whether training may change it.
        encoding: the encoding's configuration.
        streams: name, coder, dtype, shape and bytes of each stream.
    """

    path: str
    role: str
    shape: tuple[int, ...]
    dtype: str
    trainable: bool
    encoding: Mapping[str, Any]
    streams: list[Any]

    @property
    def lengths(self) -> list[int]:
        """Bytes of each stream."""
        return [int(stream[4]) for stream in self.streams]

    @property
    def count(self) -> int:
        """How many values it has."""
        return prod(self.shape)

    @property
    def bytes(self) -> int:
        """Bytes in the file."""
        return chunk_size(self.lengths)

    @property
    def kept(self) -> int:
        """How many values are stored; the others are masked."""
        return next((prod(stream[3]) for stream in self.streams if stream[0] == "codes"), 0)

    @property
    def kind(self) -> str:
        """The encoding in words."""
        config: Mapping[str, Any] = self.encoding
        masked = config.get("kind") == "masked"
        config = config.get("parts", {}).get("base", {}) if masked else config
        if config.get("kind") == "quantized":
            low, high = config.get("low"), config.get("high")
            if low is not None and high is not None:
                words = f"{(int(high) - int(low)).bit_length()}-bit"
            else:
                words = "table" if any("levels" in str(s[0]) for s in self.streams) else "integer steps"
        else:
            words = str(config.get("format") or self.dtype)
        zeros = 1 - self.kept / max(1, self.count)
        return f"{zeros:.1%} zero, {words}" if masked else words


@dataclass(frozen=True)
class Inspection:
    """What is inside a file, from its header alone.

    Attributes:
        path: the file.
        name: the model's name.
        framework: package of the framework that builds it.
        bytes: size of the file.
        header_bytes: size of the preamble and the header.
        has_architecture: whether the model can be built from the file alone.
        reason: why not, where it cannot.
        parameters: what the header says of each parameter.
        assets: bytes of each asset, by name.
    """

    path: str
    name: str
    framework: str
    bytes: int
    header_bytes: int
    has_architecture: bool
    reason: str
    parameters: tuple[Entry, ...]
    assets: Mapping[str, int]

    @override
    def __str__(self) -> str:
        rows = [
            [e.path, shape_text(e.shape), e.role, e.kind, bytes_text(e.bytes), f"{8 * e.bytes / max(1, e.count):.2f}"]
            for e in self.parameters
        ]
        count = sum(entry.count for entry in self.parameters)
        head = f"{self.path}: {self.name!r}, {count:,} values in {self.bytes:,} bytes ({self.header_bytes:,} of header)"
        tail = [f"asset {name}: {size:,} bytes" for name, size in self.assets.items()]
        tail += [] if self.has_architecture else [f"no architecture: {self.reason}"]
        return "\n".join([head, table(["parameter", "shape", "role", "held as", "bytes", "bits/value"], rows), *tail])


def inspect(path: str | os.PathLike[str]) -> Inspection:
    """What is inside a .bw file: reads its header only, builds nothing.

    Args:
        path: the file.

    Raises:
        FileError: it cannot be opened.
        CorruptFileError: it is no .bw file, or was cut off or altered.
        VersionError: a newer version of the format.
    """
    with _opened(path) as file:
        preamble, header, entries = _read_header(file, str(path))
    return Inspection(
        path=str(path),
        name=header["name"],
        framework=header["framework"],
        bytes=preamble.total,
        header_bytes=PREAMBLE + preamble.stored,
        has_architecture=header["architecture"] is not None,
        reason=header["reason"],
        parameters=tuple(entries),
        assets=dict(header["assets"]),
    )


def read_content(path: str | os.PathLike[str]) -> Content:
    """All that a .bw file holds.

    Raises:
        FileError: it cannot be opened.
        CorruptFileError: it is no .bw file, or was cut off or altered anywhere.
        VersionError: a newer version of the format.
    """
    name = str(path)
    with _opened(path) as file:
        _, header, entries = _read_header(file, name)
        parameters = tuple(_read_parameter(file, entry, name) for entry in entries)
        assets = {}
        for asset, size in header["assets"]:
            data = file.read(chunk_size([size]))
            assets[asset] = split_chunk(data, [size], name, f"the asset {asset!r}")[0]
    return Content(
        name=header["name"],
        framework=header["framework"],
        architecture=header["architecture"],
        reason=header["reason"],
        inputs=header["inputs"],
        variables=header["variables"],
        parameters=parameters,
        assets=assets,
    )


def _opened(path: str | os.PathLike[str]) -> BinaryIO:
    try:
        return Path(path).open("rb")
    except OSError as error:
        raise FileError(f"{path}: cannot be opened: {error.strerror or error}") from error


def _read_header(file: BinaryIO, name: str) -> tuple[Preamble, dict[str, Any], list[Entry]]:
    preamble = parse_preamble(file.read(PREAMBLE), name)
    text = parse_header(preamble, file.read(preamble.stored), name)
    try:
        header = json.loads(text)
        entries = [_entry(item, name) for item in header["parameters"]]
        assets = [(str(asset), int(size)) for asset, size in header["assets"]]
        described = all(key in header for key in ("name", "framework", "architecture", "reason", "inputs", "variables"))
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise CorruptFileError(f"{name}: its header does not describe a model: {error}") from error
    if not described or len(entries) > MAX_PARAMETERS or min((size for _, size in assets), default=0) < 0:
        raise CorruptFileError(f"{name}: its header does not describe a model")
    expected = PREAMBLE + preamble.stored + sum(e.bytes for e in entries) + sum(chunk_size([n]) for _, n in assets)
    found = os.fstat(file.fileno()).st_size
    if expected != preamble.total or found != preamble.total:
        what = "cut off" if found < preamble.total else "not as long as its header says"
        raise CorruptFileError(f"{name}: {what}: {found:,} bytes, expected {preamble.total:,}")
    return preamble, header, entries


def _entry(item: Any, name: str) -> Entry:
    if not all(isinstance(item.get(key), kind) for key, kind in _ENTRY.items()):
        raise CorruptFileError(f"{name}: its header does not describe a parameter: {str(item)[:80]}")
    streams = item["streams"]
    for stream in streams:
        well_formed = isinstance(stream, list) and len(stream) == 5 and isinstance(stream[4], int) and stream[4] >= 0
        if not well_formed or not all(isinstance(part, str) for part in stream[:3]):
            raise CorruptFileError(f"{name}: {item['path']} has a stream that makes no sense: {str(stream)[:80]}")
        checked_shape(stream[3], item["path"])
    shape = checked_shape(item["shape"], item["path"])
    trainable = not item.get("frozen", False)
    return Entry(item["path"], item["role"], shape, item["dtype"], trainable, item["encoding"], streams)


def _read_parameter(file: BinaryIO, entry: Entry, name: str) -> StoredParameter:
    streams = split_chunk(file.read(entry.bytes), entry.lengths, name, entry.path)
    encoding, values = unpack_parameter(
        dict(entry.encoding), entry.streams, streams, entry.shape, f"{name}: {entry.path}"
    )
    return StoredParameter(entry.path, entry.role, entry.dtype, entry.trainable, encoding, values)
