"""Files that hold what changed since another file, their base.

A device that has the base needs the changes only. The base is known by a hash of its decoded values, so that it does
not matter in which version or how it was written; a chain of updates is read from the first file on.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import final

import numpy as np
from typing_extensions import override

from bitwidth.artifact.format.header import Entry, Header
from bitwidth.artifact.format.stored import StoredParameter
from bitwidth.encodings import narrow
from bitwidth.errors import FileError
from bitwidth.typing import Array

_DIGITS = 32  # of the hash: 128 bits


def values_hash(parameters: Iterable[StoredParameter]) -> str:
    """The hash by which a file is known as a base: of path, dtype, shape and decoded values of each parameter.

    Args:
        parameters: of the file, in its order.

    Returns:
        32 hexadecimal digits: the first 128 bits of SHA-256. Of each parameter it takes in the JSON text
        `[path, dtype, shape]` (UTF-8, no blanks), a line feed, and the values in C order, little endian; bfloat16 as
        the float32 of the same value.
    """
    found = hashlib.sha256()
    for parameter in parameters:
        described = [parameter.path, parameter.dtype, list(parameter.values.shape)]
        found.update(json.dumps(described, separators=(",", ":"), ensure_ascii=False).encode() + b"\n")
        found.update(_octets(parameter.values, parameter.dtype))
    return found.hexdigest()[:_DIGITS]


def _octets(values: Array, dtype: str) -> bytes:
    plain = values.astype(np.float32) if dtype == "bfloat16" else values
    return plain.astype(plain.dtype.newbyteorder("<"), copy=False).tobytes()


def merged(own: Header, base: Header, name: str) -> Header:
    """The header of the model that changes make of their base.

    Args:
        own: of the file with the changes.
        base: of the model that it is a change of.
        name: of the file, for messages.

    Raises:
        FileError: the file changes parameters that the base does not have.
    """
    changed = {entry.path: entry for entry in own.entries}
    missing = changed.keys() - {entry.path for entry in base.entries}
    if missing:
        raise FileError(f"{name}: changes {min(missing)!r}, which its base does not have")
    entries: tuple[Entry, ...] = tuple(changed.get(entry.path, entry) for entry in base.entries)
    one, other = own.architecture, base.architecture
    architecture = replace(
        one,
        framework=one.framework if "framework" in own.given else other.framework,
        config=one.config if "architecture" in own.given else other.config,
        reason=one.reason if "reason" in own.given else other.reason,
        inputs=one.inputs if "inputs" in own.given else other.inputs,
        variables=one.variables if "variables" in own.given else other.variables,
        layers=one.layers if "layers" in own.given else other.layers,
        paths=tuple(entry.path for entry in entries),
    )
    return replace(
        own,
        name=own.name if "name" in own.given else base.name,
        architecture=architecture,
        entries=entries,
        assets=own.assets if "assets" in own.given else base.assets,
        activations=own.activations if "activations" in own.given else base.activations,
    )


@final
class Passing(Mapping[str, StoredParameter]):
    """Parameters of the base by path, as far as they were passed by: those of the group that is being read."""

    def __init__(self, base: Iterator[StoredParameter]) -> None:
        self._base = base
        self._held: dict[str, StoredParameter] = {}

    @override
    def __getitem__(self, path: str) -> StoredParameter:
        while path not in self._held:
            parameter = next(self._base, None)
            if parameter is None:
                raise KeyError(path)
            self._held[parameter.path] = parameter
        return self._held[path]

    @override
    def __iter__(self) -> Iterator[str]:
        return iter(self._held)

    @override
    def __len__(self) -> int:
        return len(self._held)

    def upto(self, path: str | None) -> Iterator[StoredParameter]:
        """Those before `path`, or all that are left: each is let go of as it is returned, `path` itself in the end."""
        if path is not None:
            self[path]
        for one in list(self._held):
            parameter = self._held.pop(one)
            if one == path:
                return
            yield parameter
        yield from self._base


def merged_parameters(changes: Iterator[StoredParameter], base: Passing, bits: int | None) -> Iterator[StoredParameter]:
    """Each parameter of the model in the base's order: the changed one, or that of the base.

    Args:
        changes: the parameters that changed, in the base's order, read with the help of `base`.
        base: those of the base.
        bits: see `OpenFile.parameters`; what is in `changes` is read so already.
    """
    for change in changes:
        yield from (narrowed(parameter, bits) for parameter in base.upto(change.path))
        yield change
    yield from (narrowed(parameter, bits) for parameter in base.upto(None))


def narrowed(parameter: StoredParameter, bits: int | None) -> StoredParameter:
    """A parameter on the grid of so many bits that is nearest to its own; unchanged where there is none."""
    if bits is None:
        return parameter
    encoding, codes = narrow(parameter.encoding, parameter.encoding.encode(parameter.values), bits)
    if encoding is parameter.encoding:
        return parameter
    return replace(parameter, encoding=encoding, values=encoding.decode(codes))
