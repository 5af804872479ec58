"""The bytes of a .bw file."""

from __future__ import annotations

import logging
import tempfile
import weakref
from collections.abc import Iterator
from threading import Lock
from typing import IO, final

from bitwidth.artifact.format.agreement import check_assets
from bitwidth.artifact.format.layout import beginning, chunk
from bitwidth.artifact.format.stored import StoredModel
from bitwidth.artifact.reader import OpenFile
from bitwidth.artifact.updates import ValuesHash
from bitwidth.artifact.version3 import packed_chunks, with_pieces, written
from bitwidth.errors import CorruptFileError, FileError

_LOG = logging.getLogger(__name__)
_MEMORY = 1 << 26  # bytes of a file that are held in memory; more go to a temporary file
_PART = 1 << 20


@final
class PackedFile:
    """The bytes of a file, and how many of them each parameter takes.

    Attributes:
        size: bytes of the whole file.
        parameter_bytes: bytes of each parameter by path, its share of what it shares with others; the rest is the
            header and the assets.
    """

    def __init__(self, head: bytes, bodies: list[_Body], parameter_bytes: dict[str, int]) -> None:
        self._head, self._bodies = head, bodies
        self.size = len(head) + sum(body.size for body in bodies)
        self.parameter_bytes = parameter_bytes

    def parts(self) -> Iterator[bytes]:
        """The bytes of the file, a part at a time."""
        yield self._head
        for body in self._bodies:
            yield from body.parts()

    @property
    def data(self) -> bytes:
        """The bytes of the whole file."""
        return b"".join(self.parts())


@final
class _Body:
    """Bytes that follow each other, in memory or, where they are many, in a temporary file."""

    def __init__(self) -> None:
        self._file: IO[bytes] = tempfile.SpooledTemporaryFile(_MEMORY)  # noqa: SIM115 - closed with its owner
        self.size = 0
        self._lock = Lock()
        weakref.finalize(self, self._file.close)

    def write(self, data: bytes) -> None:
        """Add bytes behind those that there are.

        Raises:
            FileError: there is no room for them.
        """
        try:
            self._file.write(data)
        except OSError as error:
            raise FileError(f"a temporary file for the model cannot be written: {error.strerror or error}") from error
        self.size += len(data)

    def parts(self) -> Iterator[bytes]:
        """All of them, a part at a time; several readers may be under way."""
        for start in range(0, self.size, _PART):
            with self._lock:
                self._file.seek(start)
                part = self._file.read(_PART)
            yield part


def pack(model: StoredModel, layers: bool | None = None, base: OpenFile | None = None) -> PackedFile:
    """The bytes of the file that holds `model`; equal models give equal bytes.

    Args:
        model: the model.
        layers: whether codes of grids of more than 4 bits are coded in layers; None where there are many of them.
        base: a file that readers have; the new one then holds what changed since.

    Raises:
        EncodingError: values that are not finite, or of a dtype that a file cannot hold.
        FileError: names that a file cannot hold, no room for the bytes, or a base with other parameters.
    """
    _check_names(model)
    _check_base(model, base)
    body, behind = _Body(), _Body()
    before = None if base is None else ValuesHash(base.parameters())
    chunks = packed_chunks(model.parameters, body.write, behind.write, layers, before)
    known = None if base is None or before is None else (before.digits(), _without_parameters(base))
    if known is None or model.architecture.assets != known[1].architecture.assets:
        for data in model.architecture.assets.values():
            body.write(chunk([data]))
    try:
        text = written(model, chunks.entries, chunks.groups, known, chunks.places)
    except UnicodeEncodeError as error:
        half = error.object[error.start : error.start + 1]
        raise FileError(f"the model's configuration or names hold half a character ({half!r})") from error
    head = beginning(text, body.size + behind.size)
    entries = with_pieces(chunks.entries, chunks.groups, model.name)
    sizes = {entry.path: entry.bytes for entry in entries}
    packed = PackedFile(head, [body, behind], sizes)
    _LOG.debug("%s: %d parameters packed into %d bytes", model.name, len(sizes), packed.size)
    return packed


def _without_parameters(base: OpenFile) -> StoredModel:
    return StoredModel(base.header.name, base.architecture(), (), base.header.activations)


def _check_base(model: StoredModel, base: OpenFile | None) -> None:
    if base is None:
        return
    paths, known = [parameter.path for parameter in model.parameters], [entry.path for entry in base.header.entries]
    if len(paths) != len(known):
        raise FileError(f"{base.name}: a file of {len(known)} parameters is no base for this model of {len(paths)}")
    for own, other in zip(paths, known, strict=True):  # names of layers may have other numbers
        if own.rpartition("/")[2] != other.rpartition("/")[2]:
            raise FileError(f"{base.name}: no base for this model: it has {other!r} in the place of {own!r}")


def _check_names(model: StoredModel) -> None:
    try:
        check_assets(list(model.architecture.assets), f"{model.name!r}")
    except CorruptFileError as error:
        raise FileError(f"{error}; it cannot be stored") from error
