"""The parameters of a model as the chunks of a file, a group at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import final

import numpy as np

from bitwidth.artifact.format.header import Entry, Group, Stream
from bitwidth.artifact.format.held import all_finite
from bitwidth.artifact.format.layout import chunk
from bitwidth.artifact.format.stored import StoredParameter
from bitwidth.artifact.version3.changes import against, is_same
from bitwidth.artifact.version3.fields import TakenApart, taken_apart
from bitwidth.artifact.version3.groups import pack_group
from bitwidth.artifact.version3.shares import FULL
from bitwidth.errors import EncodingError

Keep = Callable[[bytes], object]


@final
@dataclass(frozen=True)
class Chunks:
    """What was written of the parameters of a model.

    Attributes:
        entries: what the header says of each, without pieces.
        groups: the chunks that hold them.
        places: the number of each among all parameters.
    """

    entries: tuple[Entry, ...]
    groups: tuple[Group, ...]
    places: tuple[int, ...]


def packed_chunks(
    parameters: Iterable[StoredParameter],
    first: Keep,
    second: Keep,
    layers: bool | None,
    base: Iterable[StoredParameter] | None = None,
) -> Chunks:
    """Write the chunks of all parameters; those of one group are held at a time.

    Args:
        parameters: in the model's order.
        first: takes the bytes of each first chunk, in order.
        second: takes the bytes of each second chunk, in order.
        layers: whether codes of grids of more than 4 bits are coded in layers; None where there are many of them.
        base: the parameters of the file against which this one is written, in the same order; those that are the same
            are left out.

    Raises:
        EncodingError: values that are not finite, or of a dtype that a file cannot hold.
    """
    entries: list[Entry] = []
    groups: list[Group] = []
    places: list[int] = []
    for members in _grouped(parameters, base):
        packed = _packed(members, layers)
        entries += packed.entries
        places += packed.places
        groups.append(Group(len(packed.entries), tuple(map(len, packed.streams)), tuple(map(len, packed.later))))
        first(chunk(packed.streams))
        if packed.later:
            second(chunk(packed.later))
    return Chunks(tuple(entries), tuple(groups), tuple(places))


_Member = tuple[int, StoredParameter, StoredParameter | None]  # number, parameter, what the base has in its place


@final
@dataclass(frozen=True)
class _Packed:
    """One group: what the header says of its parameters, their numbers, and its streams."""

    entries: list[Entry]
    places: list[int]
    streams: list[bytes]
    later: list[bytes]


def _grouped(parameters: Iterable[StoredParameter], base: Iterable[StoredParameter] | None) -> Iterator[list[_Member]]:
    """The parameters of each group; those that are the same in the base are in none."""
    members: list[_Member] = []
    held = 0
    pairs = ((one, None) for one in parameters) if base is None else zip(parameters, base, strict=True)
    for place, (parameter, before) in enumerate(pairs):
        held += parameter.values.size  # of what is left out too: a reader passes it by within the group
        if before is None or not is_same(parameter, before):
            members.append((place, parameter, before))
        if held >= FULL:
            if members:
                yield members
            members, held = [], 0
    if members:
        yield members


def _packed(members: list[_Member], layers: bool | None) -> _Packed:
    taken = [_apart(parameter, layers, before) for _, parameter, before in members]
    streams, later = pack_group(taken)
    entries = [_entry(parameter, apart) for (_, parameter, _), apart in zip(members, taken, strict=True)]
    return _Packed(entries, [place for place, _, _ in members], streams, later)


def _apart(parameter: StoredParameter, layers: bool | None, base: StoredParameter | None) -> TakenApart:
    if not all_finite(parameter.values):
        raise EncodingError(f"{parameter.path}: values that are not finite cannot be stored")
    apart = taken_apart(parameter, layers)
    return apart if base is None else against(apart, parameter.encoding, base, parameter.dtype)


def _entry(parameter: StoredParameter, apart: TakenApart) -> Entry:
    mask = parameter.encoding.mask
    kept = parameter.values.size if mask is None else int(np.count_nonzero(mask))
    streams: tuple[Stream, ...] = tuple(field.stream for field in apart.fields)
    shape = tuple(parameter.values.shape)
    return Entry(
        *(parameter.path, parameter.role, shape, parameter.dtype, parameter.trainable, apart.config, streams, kept),
        more=parameter.more,
    )
