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
from bitwidth.tensors import Encoding
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
        activations: how the input tensors of layers are held, by the layer's path; None for as they are.
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
    activations: Mapping[str, tuple[Encoding | None, ...]]

    @override
    def __str__(self) -> str:
        rows = [
            [e.path, shape_text(e.shape), e.role, e.kind, bytes_text(e.bytes), f"{8 * e.bytes / max(1, e.count):.2f}"]
            for e in self.parameters
        ]
        count = sum(entry.count for entry in self.parameters)
        head = f"{self.path}: {self.name!r}, {count:,} values in {self.bytes:,} bytes ({self.header_bytes:,} of header)"
        tail = [f"asset {name}: {size:,} bytes" for name, size in self.assets.items()]
        for path, held in self.activations.items():
            grids = ", ".join("as it is" if grid is None else f"{grid.bits}-bit" for grid in held)
            tail.append(f"inputs of {path}: {grids}")
        if any(entry.later for entry in self.parameters):
            prefixes = ", ".join(f"bits={bits} {self.prefix_bytes(bits):,}" for bits in _PREFIXES)
            tail.append(f"bytes that load reads: {prefixes}, all {self.bytes:,}")
        tail += [] if self.has_architecture else [f"no architecture: {self.reason}"]
        return "\n".join([head, table(["parameter", "shape", "role", "held as", "bytes", "bits/value"], rows), *tail])

    def prefix_bytes(self, bits: int) -> int:
        """Bytes of the file that `bitwidth.load(path, bits=bits)` reads: the first `bits` bits of each code.

        Args:
            bits: 2 to 16.
        """
        return self.bytes - sum(entry.bytes - entry.prefix_bytes(bits) for entry in self.parameters)


_PREFIXES = (2, 4, 8)


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
        activations=header.activations,
    )


def read_content(path: str | os.PathLike[str], bits: int | None = None) -> Content:
    """All that a .bw file holds, or the first `bits` bits of each of its codes.

    Args:
        path: the file.
        bits: at least 2, or None for all. Bit planes beyond are neither read nor checked; see
            `bitwidth.tensors.prefix` for what becomes of the encodings. Tensors that are not coded in planes are read
            whole and, if they are grids of integers, truncated.

    Raises:
        FileError: it cannot be opened.
        CorruptFileError: it is no .bw file, or was cut off or altered anywhere.
        VersionError: a newer version of the format.
    """
    name = str(path)
    with _opened(path) as file:
        _, header = _read_header(file, name)
        parameters = tuple(_read_parameter(file, entry, name, bits) for entry in header.entries)
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
        activations=header.activations,
        layers=header.layers,
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


def _read_parameter(file: BinaryIO, entry: Entry, name: str, bits: int | None) -> StoredParameter:
    streams = split_chunk(file.read(chunk_size(entry.lengths)), entry.lengths, name, entry.path)
    read = max(entry.planes_read(bits) - 1, 0)
    for size in entry.later[:read]:
        streams += split_chunk(file.read(chunk_size([size])), [size], name, entry.path)
    file.seek(sum(chunk_size([size]) for size in entry.later[read:]), os.SEEK_CUR)
    encoding, values = unpack_parameter(entry, streams, f"{name}: {entry.path}", bits)
    return StoredParameter(entry.path, entry.role, entry.dtype, entry.trainable, encoding, values)
