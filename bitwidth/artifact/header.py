"""The header of a .bw file: parsed from untrusted JSON into values whose types and limits were checked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

from bitwidth.artifact.layout import PREAMBLE, chunk_size
from bitwidth.artifact.limits import (
    MAX_ELEMENTS,
    MAX_PARAMETERS,
    MAX_SIDE_ELEMENTS,
    checked_count,
    checked_encoding,
    checked_shape,
)
from bitwidth.errors import CorruptFileError

CODES = "codes"
_TEXTS = ("name", "framework", "reason")
_ENTRY = {"path": str, "role": str, "shape": list, "dtype": str, "encoding": dict, "streams": list}


@dataclass(frozen=True)
class Stream:
    """One stream of a chunk: what it is called, how it is coded, its dtype and shape, and its bytes in the file."""

    name: str
    coder: str
    dtype: str
    shape: tuple[int, ...]
    bytes: int


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
        """Bytes of each stream."""
        return [stream.bytes for stream in self.streams]

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
        return next((prod(stream.shape) for stream in self.streams if stream.name == CODES), 0)

    @property
    def kind(self) -> str:
        """The encoding in words."""
        config = self.encoding
        masked = config["kind"] == "masked"
        config = config.get("parts", {}).get("base", config) if masked else config
        low, high = config.get("low"), config.get("high")
        if config["kind"] != "quantized":
            words = str(config.get("format") or self.dtype)
        elif isinstance(low, int) and isinstance(high, int):
            words = f"{(high - low).bit_length()}-bit"
        else:
            words = "table" if any(stream.name.endswith("levels") for stream in self.streams) else "integer steps"
        return f"{1 - self.kept / max(1, self.count):.1%} zero, {words}" if masked else words


@dataclass(frozen=True)
class Header:
    """The header of a file; see `bitwidth.artifact.Content` for the fields that it shares."""

    name: str
    framework: str
    architecture: Any
    reason: str
    inputs: Any
    variables: list[Any]
    entries: tuple[Entry, ...]
    assets: tuple[tuple[str, int], ...]

    def file_bytes(self, stored: int) -> int:
        """Bytes of the whole file, if its header takes `stored` of them."""
        chunks = [entry.bytes for entry in self.entries] + [chunk_size([size]) for _, size in self.assets]
        return PREAMBLE + stored + sum(chunks)


def parse(text: bytes, name: str) -> Header:
    """The header from its JSON.

    Args:
        text: the JSON.
        name: of the file, for messages.

    Raises:
        CorruptFileError: it does not describe a model, or asks for more than a file may hold.
    """
    try:
        data = json.loads(text)
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
    assets = tuple(_asset(item, name) for item in data["assets"])
    for what in ([entry.path for entry in entries], [asset for asset, _ in assets]):
        if len(set(what)) != len(what):
            raise CorruptFileError(f"{name}: its header names something twice")
    return Header(
        name=data["name"],
        framework=data["framework"],
        architecture=data["architecture"],
        reason=data["reason"],
        inputs=data["inputs"],
        variables=data["variables"],
        entries=entries,
        assets=assets,
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
    checked_encoding(item["encoding"], f"{name}: {path}")
    return Entry(path, item["role"], shape, item["dtype"], not frozen, item["encoding"], streams)


def _stream(item: Any, count: int, where: str) -> Stream:
    if not isinstance(item, list) or len(item) != 5 or not all(isinstance(part, str) for part in item[:3]):
        raise CorruptFileError(f"{where}: a stream that makes no sense: {str(item)[:80]}")
    shape = checked_shape(item[3], where)
    if prod(shape) > (count if item[0] == CODES else max(count, MAX_SIDE_ELEMENTS)):
        raise CorruptFileError(f"{where}: stream {item[0]!r} of {prod(shape):,} elements for {count:,} values")
    return Stream(item[0], item[1], item[2], shape, checked_count(item[4], where))


def _asset(item: Any, name: str) -> tuple[str, int]:
    if not isinstance(item, list) or len(item) != 2 or not isinstance(item[0], str):
        raise CorruptFileError(f"{name}: an asset that makes no sense: {str(item)[:80]}")
    return item[0], checked_count(item[1], f"{name}: asset {item[0]!r}")
