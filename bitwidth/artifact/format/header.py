"""What the header of a file says, whatever its version: values whose types and limits were checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from typing import final, get_args

from bitwidth.artifact.format.agreement import check_assets, check_owners, check_variables
from bitwidth.artifact.format.layout import PREAMBLE, chunk_size
from bitwidth.artifact.format.limits import MAX_ELEMENTS, MAX_PARAMETERS
from bitwidth.artifact.format.stored import Architecture
from bitwidth.artifact.format.summaries import summary_of
from bitwidth.encodings import Encoding, EncodingSummary
from bitwidth.errors import CorruptFileError
from bitwidth.graph import Role
from bitwidth.typing import Json, JsonMapping

CODES = "codes"
ROLES = get_args(Role)


@final
@dataclass(frozen=True)
class Stream:
    """One array of a parameter, as it lies in the file.

    Attributes:
        name: what it is called; `"codes"` for the codes.
        coder: how it is coded.
        dtype: of the array.
        shape: of the array.
    """

    name: str
    coder: str
    dtype: str
    shape: tuple[int, ...]


@final
@dataclass(frozen=True)
class Piece:
    """A part of a parameter that lies together in the file.

    Attributes:
        bits: `load(path, bits=...)` reads it from so many bits on; 0 for the first piece, which is always read.
        bytes: in the file.
    """

    bits: int
    bytes: int


@final
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
        streams: its arrays, in order; the codes are the last.
        kept: how many values are stored; the others are masked.
        pieces: where they lie. Of streams that it shares with others, its share.
        more: as in `StoredParameter`.
        coded: in words, how the codes lie in the file: `"whole"`, `"7 planes"`, `"4 bits + rest"`.
    """

    path: str
    role: str
    shape: tuple[int, ...]
    dtype: str
    trainable: bool
    encoding: JsonMapping
    streams: tuple[Stream, ...]
    kept: int
    pieces: tuple[Piece, ...] = ()
    more: JsonMapping = field(default_factory=dict)
    coded: str = "whole"

    @property
    def count(self) -> int:
        """How many values it has."""
        return prod(self.shape)

    @property
    def bytes(self) -> int:
        """Bytes in the file."""
        return sum(piece.bytes for piece in self.pieces)

    def prefix_bytes(self, bits: int) -> int:
        """Bytes in the file that `load(path, bits=bits)` reads of it: all, where its codes lie there whole."""
        return sum(piece.bytes for piece in self.pieces if piece.bits <= bits)

    @property
    def summary(self) -> EncodingSummary:
        """What the encoding is, as far as the header tells: of a user's own, the name it is registered under."""
        shapes = {stream.name: stream.shape for stream in self.streams}
        return summary_of(self.encoding, shapes, self.count, self.kept)

    @property
    def kind(self) -> str:
        """The encoding in words, as `Encoding.describe` has them; the dtype where values are held as they are."""
        return self.summary.words(self.dtype)


@final
@dataclass(frozen=True)
class Group:
    """Parameters that lie together in the file.

    Attributes:
        count: how many they are; they follow those of the group before.
        lengths: bytes of each stream in their first chunk.
        later: bytes of each of their further chunks, which hold less significant bits of codes.
    """

    count: int
    lengths: tuple[int, ...]
    later: tuple[int, ...] = ()


@final
@dataclass(frozen=True)
class Header:
    """The header of a file.

    Attributes:
        name: the model's name.
        architecture: what it takes to build it, but for the assets.
        entries: what it says of each parameter.
        groups: which parameters lie together, and in what chunks.
        assets: name and bytes of each asset.
        activations: as in `StoredModel`.
        base: hash of the values of the file that it holds changes of (see `bitwidth.artifact.updates`), or empty. The
            entries are then those of the parameters that changed.
        given: names of what such a file says of the model; the rest is as in the base.
        places: of such a file, for each entry the number of the parameter of the base in whose place it is.
    """

    name: str
    architecture: Architecture
    entries: tuple[Entry, ...]
    groups: tuple[Group, ...]
    assets: tuple[tuple[str, int], ...]
    activations: Mapping[str, tuple[Encoding | None, ...]]
    base: str = ""
    given: frozenset[str] = frozenset()
    places: tuple[int, ...] = ()

    def file_bytes(self, stored: int) -> int:
        """Bytes of the whole file, if its header takes `stored` of them."""
        chunks = [entry.bytes for entry in self.entries] + [chunk_size([size]) for _, size in self.assets]
        return PREAMBLE + stored + sum(chunks)

    def check_model(self, name: str) -> None:
        """Raise unless the parts make a model: a parameter for each variable, and a layer for each asset.

        Args:
            name: of the file, for messages.

        Raises:
            CorruptFileError: saying what does not belong together.
        """
        check_variables(self.architecture.variables, [(entry.shape, entry.dtype) for entry in self.entries], name)
        check_owners([asset for asset, _ in self.assets], name)

    def check_parts(self, name: str) -> None:
        """Raise unless each part is sound by itself: not too much, nothing twice, names that a file may hold.

        Raises:
            CorruptFileError: saying what is wrong.
        """
        if len(self.entries) > MAX_PARAMETERS:
            raise CorruptFileError(f"{name}: {len(self.entries):,} parameters are more than a file may hold")
        if sum(entry.count for entry in self.entries) > MAX_ELEMENTS:
            raise CorruptFileError(f"{name}: more than {MAX_ELEMENTS:,} values")
        assets = [asset for asset, _ in self.assets]
        for what in ([entry.path for entry in self.entries], assets):
            if len(set(what)) != len(what):
                raise CorruptFileError(f"{name}: its header names something twice")
        check_assets(assets, name)


def checked_layers(item: Json, activations: Json, name: str) -> tuple[str, ...]:
    """The paths of the layers; a file names them only where some have activations on grids.

    Raises:
        CorruptFileError: it is anything else than a list of names, or there are no activations.
    """
    if not isinstance(item, list) or not all(isinstance(path, str) for path in item):
        raise CorruptFileError(f"{name}: its header does not name layers: {str(item)[:80]}")
    if item and not activations:
        raise CorruptFileError(f"{name}: its header names layers, and none of them has activations on a grid")
    return tuple(item)
