"""The header of version 1 or 2: parsed from untrusted JSON into values whose types and limits were checked."""

from __future__ import annotations

from math import prod
from typing import Any

from bitwidth.artifact.format.activations import read
from bitwidth.artifact.format.agreement import checked_dtype, checked_variables
from bitwidth.artifact.format.header import CODES, ROLES, Entry, Group, Header, Piece, Stream, checked_layers
from bitwidth.artifact.format.layout import chunk_size
from bitwidth.artifact.format.limits import (
    MAX_PARAMETERS,
    MAX_SIDE_ELEMENTS,
    checked_asset,
    checked_count,
    checked_encoding,
    checked_shape,
)
from bitwidth.artifact.format.stored import Architecture
from bitwidth.artifact.format.strict_json import strict_json
from bitwidth.artifact.format.summaries import code_bits
from bitwidth.coder import MAX_PLANES
from bitwidth.errors import CorruptFileError
from bitwidth.typing import JsonMapping

PLANES = "planes"  # a coder
_TEXTS = ("name", "framework", "reason")
_ENTRY = {"path": str, "role": str, "shape": list, "dtype": str, "encoding": dict, "streams": list}


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
    parameters = [_parameter(item, name) for item in data["parameters"]]
    entries = tuple(entry for entry, _ in parameters)
    header = Header(
        name=data["name"],
        architecture=Architecture(
            framework=data["framework"],
            config=data["architecture"],
            reason=data["reason"],
            inputs=data["inputs"],
            variables=checked_variables(data["variables"], name),
            layers=checked_layers(data.get("layers", []), data.get("activations"), name),
            paths=tuple(entry.path for entry in entries),
        ),
        entries=entries,
        groups=tuple(_group(entry, lengths) for entry, lengths in parameters),
        assets=tuple(checked_asset(item, name) for item in data["assets"]),
        activations=read(data.get("activations", {}), name),
    )
    header.check_parts(name)
    return header


def _parameter(item: Any, name: str) -> tuple[Entry, tuple[int, ...]]:
    """A parameter, and the bytes of each stream in its first chunk."""
    if not isinstance(item, dict) or not all(isinstance(item.get(key), kind) for key, kind in _ENTRY.items()):
        raise CorruptFileError(f"{name}: its header does not describe a parameter: {str(item)[:80]}")
    path, frozen, where = item["path"], item.get("frozen", False), f"{name}: {item['path']!s}"
    shape = checked_shape(item["shape"], where)
    described = [_stream(stream, prod(shape), where) for stream in item["streams"]]
    streams = tuple(stream for stream, _ in described)
    names = [stream.name for stream in streams]
    if len(set(names)) != len(names) or CODES not in names or not isinstance(frozen, bool):
        raise CorruptFileError(f"{where} needs codes, and each stream once; it has {', '.join(names) or 'none'}")
    if any(stream.coder == PLANES and (stream.name != CODES or stream is not streams[-1]) for stream in streams):
        raise CorruptFileError(f"{where}: only codes, as the last stream, are coded in planes")
    checked_encoding(item["encoding"], where)
    checked_dtype(item["dtype"], where)
    if item["role"] not in ROLES:
        raise CorruptFileError(f"{where}: an unknown role {item['role'][:80]!r}")
    first = tuple(sizes[0] for _, sizes in described)
    later = described[-1][1][1:]
    in_planes = streams[-1].coder == PLANES
    entry = Entry(
        path,
        item["role"],
        shape,
        item["dtype"],
        not frozen,
        item["encoding"],
        streams,
        kept=next(prod(stream.shape) for stream in streams if stream.name == CODES),
        pieces=(Piece(0, chunk_size(list(first))), *_pieces(later, item["encoding"])),
        coded=f"{1 + len(later)} planes" if in_planes else "whole",
    )
    return entry, first


def _group(entry: Entry, lengths: tuple[int, ...]) -> Group:
    return Group(1, lengths, tuple(piece.bytes - chunk_size([]) for piece in entry.pieces[1:]))


def _pieces(later: list[int], encoding: JsonMapping) -> list[Piece]:
    """A piece for each plane after the first: with the sign, the first bits of a code take one plane less."""
    config = encoding.get("parts", {}).get("base", encoding) if encoding["kind"] == "masked" else encoding
    width = code_bits(config)
    return [
        Piece(place + 2 if width is None else min(place + 2, width), chunk_size([size]))
        for place, size in enumerate(later, start=1)
    ]


def _stream(item: Any, count: int, where: str) -> tuple[Stream, list[int]]:
    """A stream, and its bytes; where it is coded in bit planes, those of each plane."""
    if not isinstance(item, list) or len(item) != 5 or not all(isinstance(part, str) for part in item[:3]):
        raise CorruptFileError(
            f"{where}: malformed stream entry: expected [name, coder, dtype, shape, size], got {str(item)[:80]}"
        )
    shape = checked_shape(item[3], where)
    if prod(shape) > (count if item[0] == CODES else max(count, MAX_SIDE_ELEMENTS)):
        raise CorruptFileError(f"{where}: stream {item[0]!r} of {prod(shape):,} elements for {count:,} values")
    stream = Stream(item[0], item[1], item[2], shape)
    if item[1] != PLANES:
        return stream, [checked_count(item[4], where)]
    if not isinstance(item[4], list) or not 1 <= len(item[4]) <= MAX_PLANES:
        raise CorruptFileError(f"{where}: not the lengths of bit planes: {str(item[4])[:80]}")
    return stream, [checked_count(size, where) for size in item[4]]
