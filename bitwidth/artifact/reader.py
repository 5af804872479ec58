"""Read a .bw file, one parameter at a time or all of it. Nothing in a file is trusted."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from io import SEEK_END, BytesIO
from typing import BinaryIO, final

from bitwidth.artifact import earlier, version3
from bitwidth.artifact.format.header import Header
from bitwidth.artifact.format.held import all_finite
from bitwidth.artifact.format.layout import (
    PREAMBLE,
    WITH_GROUPS,
    WITH_PLANES,
    Preamble,
    chunk_size,
    parse_header,
    parse_preamble,
    split_chunk,
)
from bitwidth.artifact.format.opening import FilePath, opened, path_text
from bitwidth.artifact.format.stored import Architecture, StoredModel, StoredParameter
from bitwidth.artifact.updates import merged, merged_parameters, values_hash
from bitwidth.encodings import MAX_BITS
from bitwidth.errors import BitwidthError, ConfigError, CorruptFileError, FileError
from bitwidth.text import printable, quoted
from bitwidth.typing import Array, is_integer

_LONGEST = 500  # of a message behind the name of the file: names in a file may be as long as its header


@final
@dataclass(frozen=True, eq=False)
class OpenFile:
    """A .bw file whose header was read and checked; `open_file` returns one.

    Values are read through one descriptor, so that what a first reading checked is what a second one returns, unless
    the file itself is written to in between: even then each reading checks all it reads.

    Attributes:
        name: the file, for messages.
        preamble: its first bytes.
        header: what it says of itself; where it holds changes, of the model that they make of the base.
        base: the file that it holds changes of; None where it is whole.
    """

    name: str
    preamble: Preamble
    header: Header
    base: OpenFile | None
    _own: Header = field(repr=False)
    _file: BinaryIO = field(repr=False)

    def parameters(self, bits: int | None = None) -> Iterator[StoredParameter]:
        """Each parameter in the file's order, read and checked when it is asked for; one is held at a time.

        May be called again, for another reading from the first parameter; and each reading finds its own place, so
        that several may be under way.

        Args:
            bits: at least 2, or None for all. Codes on wider grids of integers are read on the grid of so many bits
                that is nearest to theirs; see `bitwidth.encodings.narrow`. Up to 4 bits, what lies in a second layer
                is neither read nor checked. In files of version 2, bit planes beyond are not; see
                `bitwidth.encodings.prefix`.

        Raises:
            FileError: the file cannot be read.
            CorruptFileError: the parameter was cut off or altered, or could not have been written by this library.
        """
        found = self._parameters(bits)
        while True:
            with _library_errors(self.name):
                parameter = next(found, None)
                if parameter is not None and not all_finite(parameter.values):
                    raise CorruptFileError(f"{self.name}: {parameter.path}: values that are not finite")
            if parameter is None:
                return
            yield parameter

    def _parameters(self, bits: int | None) -> Iterator[StoredParameter]:
        if self.preamble.version < WITH_GROUPS:
            return earlier.parameters(self._file, self._first, self._own, self.name, bits)
        if self.base is None:
            return version3.parameters(self._file, self._first, self._own, self.name, bits)

        def changes(known: Callable[[int], StoredParameter]) -> Iterator[StoredParameter]:
            return version3.parameters(self._file, self._first, self._own, self.name, bits, known)

        return merged_parameters(self._own, self.base.parameters(), changes, bits)

    def architecture(self) -> Architecture:
        """What it takes to build the model, assets included.

        Raises:
            FileError: the file cannot be read.
            CorruptFileError: it was cut off or altered.
        """
        assets: dict[str, bytes] = {}
        if self.base is not None and "assets" not in self._own.given:
            return replace(self.header.architecture, assets=self.base.architecture().assets)
        with _library_errors(self.name):
            self._file.seek(self._assets)
            for asset, size in self._own.assets:
                data = self._file.read(chunk_size([size]))
                assets[asset] = split_chunk(data, [size], self.name, f"the asset {asset!r}")[0]
        return replace(self.header.architecture, assets=assets)

    def stored(self, bits: int | None = None) -> StoredModel:
        """All that the file holds; see `parameters` for `bits`.

        Raises:
            FileError: the file cannot be read.
            CorruptFileError: it was cut off or altered anywhere that is read.
        """
        parameters = tuple(self.parameters(bits))
        return StoredModel(self.header.name, self.architecture(), parameters, self.header.activations)

    @property
    def _first(self) -> int:
        """Where the chunks begin."""
        return PREAMBLE + self.preamble.stored

    @property
    def _assets(self) -> int:
        """Where the assets begin: in front of the second chunks of groups, where there are groups."""
        behind = self.preamble.version < WITH_GROUPS
        sizes = [entry.bytes if behind else entry.pieces[0].bytes for entry in self._own.entries]
        return self._first + sum(sizes)


Base = FilePath | Sequence[FilePath] | None


def bases(base: Base) -> list[FilePath]:
    """The files of a `base` argument, the first of them whole; none for None.

    Raises:
        ConfigError: it is neither a path nor paths.
    """
    if base is None:
        return []
    given: Sequence[object] = base if isinstance(base, list | tuple) else [base]
    found = [path for path in given if isinstance(path, str | bytes | os.PathLike)]
    if not found or len(found) != len(given):
        raise ConfigError(f"base must be a path or a list of paths, got {quoted(base)}")
    return found


@contextlib.contextmanager
def open_file(path: FilePath, base: Base = None) -> Iterator[OpenFile]:
    """A .bw file that holds a model, to read from; it is closed behind the block.

    Args:
        path: the file.
        base: the file that it holds changes of, or several, each the base of the next, the first of them whole. A file
            that is whole needs none, and none is read for it.

    Raises:
        ConfigError: `path` or `base` is not a path.
        FileError: it cannot be opened, or holds changes of another file than `base`.
        CorruptFileError: it is not a .bw file, or its header was cut off or altered, or describes what no file holds.
        VersionError: a newer version of the format.

    Example:
        >>> with open_file("model.bw") as file:  # doctest: +SKIP
        ...     for parameter in file.parameters():
        ...         print(parameter.path, parameter.values.shape)
    """
    with _open_any(path, base) as file:
        with _library_errors(file.name):
            file.header.check_model(file.name)
        yield file


@contextlib.contextmanager
def open_bytes(data: bytes, name: str) -> Iterator[OpenFile]:
    """A .bw file that is held in memory, as `open_file` returns one of a file on a disk.

    Args:
        data: the bytes of the file, which is whole.
        name: what to call it in messages.

    Raises:
        FileError: it holds changes of another file.
        CorruptFileError: as `open_file`.
        VersionError: a newer version of the format.
    """
    with _library_errors(name):
        file = BytesIO(data)
        preamble, header = _read_header(file, name)
        found = _on_base(name, preamble, header, None, file)
        found.header.check_model(name)
    yield found


@contextlib.contextmanager
def _open_any(path: FilePath, base: Base = None) -> Iterator[OpenFile]:
    """A file whose parts are sound each by itself, though they need not make a model."""
    given = bases(base)
    name = printable(path_text(path))
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(opened(path))
        with _library_errors(name):
            preamble, header = _read_header(file, name)
        known = stack.enter_context(_open_any(given[-1], given[:-1] or None)) if header.base and given else None
        with _library_errors(name):
            found = _on_base(name, preamble, header, known, file)
        yield found


def _on_base(name: str, preamble: Preamble, header: Header, base: OpenFile | None, file: BinaryIO) -> OpenFile:
    """An open file; one that holds changes together with its base.

    Raises:
        FileError: there is no base, or it is another.
    """
    if not header.base:
        return OpenFile(name, preamble, header, None, header, file)
    needed = f"{name}: holds what changed since a file whose values have the hash {header.base}"
    if base is None:
        raise FileError(f"{needed}: pass that file as base=")
    found = values_hash(base.parameters())
    if found != header.base:
        raise FileError(f"{needed}; those of {base.name} have {found}")
    return OpenFile(name, preamble, merged(header, base.header, name), base, header, file)


def read_header(path: FilePath) -> tuple[str, Preamble, Header]:
    """The path as text, and the beginning of a file, of which changes need no base; raises as `read_content` does."""
    name = printable(path_text(path))
    with opened(path) as file, _library_errors(name):
        return path_text(path), *_read_header(file, name)


def read_content(path: FilePath, bits: int | None = None, base: Base = None) -> StoredModel:
    """All that a .bw file holds, or the first `bits` bits of each of its codes.

    Each part is checked by itself; that they make a model together is what `open_file` asks.

    Args:
        path: the file.
        bits: at least 2, or None for all; see `OpenFile.parameters`.
        base: as in `open_file`.

    Raises:
        ConfigError: `path` or `base` is not a path.
        FileError: it cannot be opened, or holds changes of another file than `base`.
        CorruptFileError: it is not a .bw file, or was cut off or altered anywhere.
        VersionError: a newer version of the format.
    """
    with _open_any(path, base) as file:
        return file.stored(bits)


def read(path: FilePath, *, bits: int | None = None, base: Base = None) -> dict[str, Array]:
    """The arrays of a .bw file by the path of their parameter, without TensorFlow and without building the model.

    Args:
        path: the file.
        bits: 2 to 16, or None for all; as in `bitwidth.load`.
        base: as in `bitwidth.load`.

    Returns:
        Arrays of the parameters' shapes and dtypes, in the model's order; bfloat16 as the float32 of the same values.

    Raises:
        ConfigError: `path` or `base` is not a path, or `bits` not an integer from 2 to 16.
        FileError: it cannot be opened, or holds changes of another file than `base`.
        CorruptFileError: it is not a .bw file, or was cut off or altered.
        VersionError: a newer version of the format.

    Example:
        >>> import keras, bitwidth as bw
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4, name="out")])
        >>> bw.PassManager([bw.Quantize(bits=4)]).run(model).save("model.bw")
        >>> {path: array.shape for path, array in bw.artifact.read("model.bw").items()}
        {'out/kernel': (8, 4), 'out/bias': (4,)}
    """
    if bits is not None and (not is_integer(bits) or not 2 <= bits <= MAX_BITS):
        raise ConfigError(f"read: bits must be an integer of 2 to {MAX_BITS}, got {bits!r}")
    with open_file(path, base) as file:
        return {parameter.path: parameter.values for parameter in file.parameters(bits)}


@contextlib.contextmanager
def _library_errors(name: str) -> Iterator[None]:
    """Whatever goes wrong in here is an error of the library whose message a terminal can show.

    A reader checks what it knows to check and says what is wrong; what slips through is a corrupt file all the same.
    """
    try:
        yield
    except BitwidthError as error:
        if str(error) == (message := printable(str(error), len(name) + _LONGEST)):
            raise
        raise type(error)(message) from error
    except OSError as error:
        raise FileError(f"{name}: cannot be read: {error.strerror or error}") from error
    except Exception as error:
        message = f"{name}: cannot be understood: {type(error).__name__}: {error}"
        raise CorruptFileError(printable(message, len(name) + _LONGEST)) from error


def _read_header(file: BinaryIO, name: str) -> tuple[Preamble, Header]:
    preamble = parse_preamble(file.read(PREAMBLE), name)
    parse = earlier.parse if preamble.version < WITH_GROUPS else version3.parse
    header = parse(parse_header(preamble, file.read(preamble.stored), name), name)
    in_planes = any(stream.coder == earlier.PLANES for entry in header.entries for stream in entry.streams)
    if preamble.version < WITH_PLANES and in_planes:
        raise CorruptFileError(f"{name}: bit planes in a file of version {preamble.version}, which has none")
    found = file.seek(0, SEEK_END)
    if header.file_bytes(preamble.stored) != preamble.total or found != preamble.total:
        what = "cut off" if found < preamble.total else "not as long as its header says"
        raise CorruptFileError(f"{name}: {what}: {found:,} bytes, expected {preamble.total:,}")
    return preamble, header
