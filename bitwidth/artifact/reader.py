"""Read a .bw file: its header alone, or all of it. Nothing in a file is trusted."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from typing_extensions import override

from bitwidth.artifact.content import Content, StoredParameter
from bitwidth.artifact.header import Entry, Header, parse
from bitwidth.artifact.layout import PREAMBLE, Preamble, chunk_size, parse_header, parse_preamble, split_chunk
from bitwidth.artifact.streams import unpack_parameter
from bitwidth.errors import CorruptFileError, FileError
from bitwidth.text import bytes_text, shape_text, table


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
        preamble, header = _read_header(file, str(path))
    return Inspection(
        path=str(path),
        name=header.name,
        framework=header.framework,
        bytes=preamble.total,
        header_bytes=PREAMBLE + preamble.stored,
        has_architecture=header.architecture is not None,
        reason=header.reason,
        parameters=header.entries,
        assets=dict(header.assets),
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
        _, header = _read_header(file, name)
        parameters = tuple(_read_parameter(file, entry, name) for entry in header.entries)
        assets = {}
        for asset, size in header.assets:
            data = file.read(chunk_size([size]))
            assets[asset] = split_chunk(data, [size], name, f"the asset {asset!r}")[0]
    return Content(
        name=header.name,
        framework=header.framework,
        architecture=header.architecture,
        reason=header.reason,
        inputs=header.inputs,
        variables=header.variables,
        parameters=parameters,
        assets=assets,
    )


def _opened(path: str | os.PathLike[str]) -> BinaryIO:
    try:
        return Path(path).open("rb")
    except OSError as error:
        raise FileError(f"{path}: cannot be opened: {error.strerror or error}") from error


def _read_header(file: BinaryIO, name: str) -> tuple[Preamble, Header]:
    preamble = parse_preamble(file.read(PREAMBLE), name)
    header = parse(parse_header(preamble, file.read(preamble.stored), name), name)
    found = os.fstat(file.fileno()).st_size
    if header.file_bytes(preamble.stored) != preamble.total or found != preamble.total:
        what = "cut off" if found < preamble.total else "not as long as its header says"
        raise CorruptFileError(f"{name}: {what}: {found:,} bytes, expected {preamble.total:,}")
    return preamble, header


def _read_parameter(file: BinaryIO, entry: Entry, name: str) -> StoredParameter:
    streams = split_chunk(file.read(entry.bytes), entry.lengths, name, entry.path)
    encoding, values = unpack_parameter(entry, streams, f"{name}: {entry.path}")
    return StoredParameter(entry.path, entry.role, entry.dtype, entry.trainable, encoding, values)
