"""Files that hold what changed since another file, their base.

A device that has the base needs the changes only. The base is known by a hash of its decoded values, so that it does
not matter in which version or how it was written; a chain of updates is read from the first file on.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import final

import numpy as np
from typing_extensions import override

from bitwidth.artifact.format.header import Header
from bitwidth.artifact.format.stored import StoredParameter
from bitwidth.encodings import narrow
from bitwidth.errors import FileError
from bitwidth.typing import Array

Read = Callable[[Callable[[int], StoredParameter]], Iterator[StoredParameter]]
_DIGITS = 32  # of the hash: 128 bits


@final
class ValuesHash(Iterator[StoredParameter]):
    """Passes parameters on, and knows the hash of those that it has passed; see `values_hash`."""

    def __init__(self, parameters: Iterable[StoredParameter]) -> None:
        self._parameters = iter(parameters)
        self._found = hashlib.sha256()

    @override
    def __next__(self) -> StoredParameter:
        parameter = next(self._parameters)
        described = [parameter.path, parameter.dtype, list(parameter.values.shape)]
        text = json.dumps(described, separators=(",", ":"), ensure_ascii=False)
        self._found.update(text.encode() + b"\n")
        self._found.update(_octets(parameter.values, parameter.dtype))
        return parameter

    def digits(self) -> str:
        """The hash of the parameters up to here."""
        return self._found.hexdigest()[:_DIGITS]


def values_hash(parameters: Iterable[StoredParameter]) -> str:
    """The hash by which a file is known as a base: of path, dtype, shape and decoded values of each parameter.

    Args:
        parameters: of the file, in its order.

    Returns:
        32 hexadecimal digits: the first 128 bits of SHA-256. Of each parameter it takes in the JSON text
        `[path, dtype, shape]` (UTF-8, no blanks), a line feed, and the values in C order, little endian; bfloat16 as
        the float32 of the same value.
    """
    found = ValuesHash(parameters)
    for _ in found:
        pass
    return found.digits()


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
        CorruptFileError: both together do not make the header of a model.
    """
    entries = list(base.entries)
    if own.places and own.places[-1] >= len(entries):
        raise FileError(f"{name}: changes parameter {own.places[-1]}, and its base has {len(entries)}")
    for place, entry in zip(own.places, own.entries, strict=True):
        entries[place] = entry
    one, other = own.architecture, base.architecture
    architecture = replace(
        one,
        framework=one.framework if "framework" in own.given else other.framework,
        config=one.config if "architecture" in own.given else other.config,
        reason=one.reason if "reason" in own.given else other.reason,
        inputs=one.inputs if "inputs" in own.given else other.inputs,
        variables=one.variables if "variables" in own.given else other.variables,
        layers=one.layers if "layers" in own.given else other.layers,
        kept_inputs=one.kept_inputs if "kept_inputs" in own.given else other.kept_inputs,
        paths=tuple(entry.path for entry in entries),
    )
    found = replace(
        own,
        name=own.name if "name" in own.given else base.name,
        architecture=architecture,
        entries=tuple(entries),
        assets=own.assets if "assets" in own.given else base.assets,
        activations=own.activations if "activations" in own.given else base.activations,
    )
    found.check_parts(name)
    return found


def merged_parameters(
    own: Header, base: Iterator[StoredParameter], read: Read, bits: int | None
) -> Iterator[StoredParameter]:
    """Each parameter of the model in the base's order: the changed one, or that of the base.

    Parameters of the base are held from the first to the last one that a group needs.

    Args:
        own: header of the file with the changes.
        base: parameters of the base.
        read: reads the changes, given a function that returns a parameter of the base by its number.
        bits: see `OpenFile.parameters`; what `read` returns is read so already.
    """
    held: dict[int, StoredParameter] = {}
    numbered = enumerate(base)

    def known(place: int) -> StoredParameter:
        while place not in held:
            number, parameter = next(numbered)
            held[number] = parameter
        return held[place]

    changes = read(known)
    for place, change in zip(own.places, changes, strict=True):
        known(place)
        for number in sorted(number for number in held if number <= place):
            parameter = held.pop(number)
            if number != place:
                yield narrowed(parameter, bits)
        yield change
    yield from (narrowed(parameter, bits) for _, parameter in sorted(held.items()))
    yield from (narrowed(parameter, bits) for _, parameter in numbered)


def narrowed(parameter: StoredParameter, bits: int | None) -> StoredParameter:
    """A parameter on the grid of so many bits that is nearest to its own; unchanged where there is none."""
    if bits is None:
        return parameter
    encoding, codes = narrow(parameter.encoding, parameter.encoding.encode(parameter.values), bits)
    if encoding is parameter.encoding:
        return parameter
    return replace(parameter, encoding=encoding, values=encoding.decode(codes))
