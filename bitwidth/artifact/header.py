"""The header of a .bw file: parsed from untrusted JSON into values whose types and limits were checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, final, get_args

from bitwidth.artifact.activations import read
from bitwidth.artifact.agreement import (
    check_assets,
    check_owners,
    check_variables,
    checked_dtype,
    checked_variables,
)
from bitwidth.artifact.layout import PREAMBLE, chunk_size
from bitwidth.artifact.limits import (
    MAX_ELEMENTS,
    MAX_PARAMETERS,
    MAX_SIDE_ELEMENTS,
    checked_count,
    checked_encoding,
    checked_shape,
)
from bitwidth.artifact.stored import Architecture
from bitwidth.artifact.strict_json import strict_json
from bitwidth.artifact.summaries import code_bits, summary_of
from bitwidth.coder import MAX_PLANES
from bitwidth.encodings import Encoding, EncodingSummary
from bitwidth.errors import CorruptFileError
from bitwidth.graph import Role

CODES = "codes"
PLANES = "planes"  # a coder
_ROLES = get_args(Role)
_TEXTS = ("name", "framework", "reason")
_ENTRY = {"path": str, "role": str, "shape": list, "dtype": str, "encoding": dict, "streams": list}


@final
@dataclass(frozen=True)
class Stream:
    """One stream of a parameter.

    Attributes:
        name: what it is called.
        coder: how it is coded.
        dtype: of the array.
        shape: of the array.
        bytes: its bytes in the parameter's first chunk.
        later: where it is coded in bit planes, the bytes of each plane after the first, a chunk each.
    """

    name: str
    coder: str
    dtype: str
    shape: tuple[int, ...]
    bytes: int
    later: tuple[int, ...] = ()


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
        streams: its streams, in order.
    """

    path: str
    role: str
    shape: tuple[int, ...]
    dtype: str
    trainable: bool
    encoding: Mapping[str, Any]
    streams: tuple[Stream, ...]

    @property
    def lengths(self) -> list[int]:
        """Bytes of each stream in the first chunk."""
        return [stream.bytes for stream in self.streams]

    @property
    def count(self) -> int:
        """How many values it has."""
        return prod(self.shape)

    @property
    def bytes(self) -> int:
        """Bytes in the file."""
        return self._bytes(len(self.later))

    @property
    def later(self) -> tuple[int, ...]:
        """Bytes of each plane of the codes after the first; empty where they are not coded in planes."""
        return self.streams[-1].later

    @property
    def planes(self) -> int:
        """How many bit planes its codes have in the file; 0 where they are not coded in planes."""
        return 1 + len(self.later) if self.streams[-1].coder == PLANES else 0

    def planes_read(self, bits: int | None) -> int:
        """How many bit planes a reader needs for the first `bits` bits of each code, the sign included."""
        width = code_bits(self._held)
        if bits is None or (width is not None and width <= bits):
            return self.planes
        return min(self.planes, bits - 1)

    def prefix_bytes(self, bits: int) -> int:
        """Bytes in the file that `load(path, bits=bits)` reads of it: all, where its codes are not coded in planes."""
        return self._bytes(max(self.planes_read(bits) - 1, 0))

    def _bytes(self, later: int) -> int:
        return chunk_size(self.lengths) + sum(chunk_size([size]) for size in self.later[:later])

    @property
    def _held(self) -> Mapping[str, Any]:
        """The configuration of the encoding, or of the one under its mask."""
        config = self.encoding
        base: Mapping[str, Any] = config.get("parts", {}).get("base", config) if config["kind"] == "masked" else config
        return base

    @property
    def kept(self) -> int:
        """How many values are stored; the others are masked."""
        return next((prod(stream.shape) for stream in self.streams if stream.name == CODES), 0)

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
class Header:
    """The header of a file.

    Attributes:
        name: the model's name.
        architecture: what it takes to build it, but for the assets.
        entries: what it says of each parameter.
        assets: name and bytes of each asset.
        activations: as in `StoredModel`.
    """

    name: str
    architecture: Architecture
    entries: tuple[Entry, ...]
    assets: tuple[tuple[str, int], ...]
    activations: Mapping[str, tuple[Encoding | None, ...]]

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


def parse(text: bytes, name: str) -> Header:
    """The header from its JSON.

    Args:
        text: the JSON.
        name: of the file, for messages.

    Raises:
        CorruptFileError: it does not describe a model, or asks for more than a file may hold.
    """
    try:
        data = strict_json(text)
    except (ValueError, RecursionError, MemoryError) as error:
        raise CorruptFileError(f"{name}: its header does not describe a model: {error}") from error
    if not isinstance(data, dict) or not all(isinstance(data.get(key), str) for key in _TEXTS):
        raise CorruptFileError(f"{name}: its header does not describe a model")
    lists = [data.get(key) for key in ("variables", "parameters", "assets")]
    if not all(isinstance(item, list) for item in lists) or not {"architecture", "inputs"} <= set(data):
        raise CorruptFileError(f"{name}: its header does not describe a model")
    if len(data["parameters"]) > MAX_PARAMETERS:
        raise CorruptFileError(f"{name}: {len(data['parameters']):,} parameters are more than a file may hold")
    entries = tuple(_entry(item, name) for item in data["parameters"])
    if sum(entry.count for entry in entries) > MAX_ELEMENTS:
        raise CorruptFileError(f"{name}: more than {MAX_ELEMENTS:,} values")
    if "layers" in data and not data.get("activations"):
        raise CorruptFileError(f"{name}: its header names layers, and none of them has activations on a grid")
    assets = tuple(_asset(item, name) for item in data["assets"])
    for what in ([entry.path for entry in entries], [asset for asset, _ in assets]):
        if len(set(what)) != len(what):
            raise CorruptFileError(f"{name}: its header names something twice")
    check_assets([asset for asset, _ in assets], name)
    return Header(
        name=data["name"],
        architecture=Architecture(
            framework=data["framework"],
            config=data["architecture"],
            reason=data["reason"],
            inputs=data["inputs"],
            variables=checked_variables(data["variables"], name),
            layers=_layers(data.get("layers", []), name),
            paths=tuple(entry.path for entry in entries),
        ),
        entries=entries,
        assets=assets,
        activations=read(data.get("activations", {}), name),
    )


def _entry(item: Any, name: str) -> Entry:
    if not isinstance(item, dict) or not all(isinstance(item.get(key), kind) for key, kind in _ENTRY.items()):
        raise CorruptFileError(f"{name}: its header does not describe a parameter: {str(item)[:80]}")
    path, frozen = item["path"], item.get("frozen", False)
    shape = checked_shape(item["shape"], f"{name}: {path}")
    streams = tuple(_stream(stream, prod(shape), f"{name}: {path}") for stream in item["streams"])
    names = [stream.name for stream in streams]
    if len(set(names)) != len(names) or CODES not in names or not isinstance(frozen, bool):
        raise CorruptFileError(f"{name}: {path} needs codes, and each stream once; it has {', '.join(names) or 'none'}")
    if any(stream.coder == PLANES and (stream.name != CODES or stream is not streams[-1]) for stream in streams):
        raise CorruptFileError(f"{name}: {path}: only codes, as the last stream, are coded in planes")
    checked_encoding(item["encoding"], f"{name}: {path}")
    checked_dtype(item["dtype"], f"{name}: {path}")
    if item["role"] not in _ROLES:
        raise CorruptFileError(f"{name}: {path}: an unknown role {item['role'][:80]!r}")
    return Entry(path, item["role"], shape, item["dtype"], not frozen, item["encoding"], streams)


def _stream(item: Any, count: int, where: str) -> Stream:
    if not isinstance(item, list) or len(item) != 5 or not all(isinstance(part, str) for part in item[:3]):
        raise CorruptFileError(
            f"{where}: malformed stream entry: expected [name, coder, dtype, shape, size], got {str(item)[:80]}"
        )
    shape = checked_shape(item[3], where)
    if prod(shape) > (count if item[0] == CODES else max(count, MAX_SIDE_ELEMENTS)):
        raise CorruptFileError(f"{where}: stream {item[0]!r} of {prod(shape):,} elements for {count:,} values")
    if item[1] != PLANES:
        return Stream(item[0], item[1], item[2], shape, checked_count(item[4], where))
    if not isinstance(item[4], list) or not 1 <= len(item[4]) <= MAX_PLANES:
        raise CorruptFileError(f"{where}: not the lengths of bit planes: {str(item[4])[:80]}")
    first, *later = (checked_count(size, where) for size in item[4])
    return Stream(item[0], item[1], item[2], shape, first, tuple(later))


def _layers(item: Any, name: str) -> tuple[str, ...]:
    if not isinstance(item, list) or not all(isinstance(path, str) for path in item):
        raise CorruptFileError(f"{name}: its header does not name layers: {str(item)[:80]}")
    return tuple(item)


def _asset(item: Any, name: str) -> tuple[str, int]:
    if not isinstance(item, list) or len(item) != 2 or not isinstance(item[0], str):
        raise CorruptFileError(f"{name}: malformed asset entry: expected name and size, got {str(item)[:80]}")
    return item[0], checked_count(item[1], f"{name}: asset {item[0]!r}")
