"""The parameters of a file of version 3, a group at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import BinaryIO

from bitwidth.artifact.format.header import Header
from bitwidth.artifact.format.layout import chunk_size, split_chunk
from bitwidth.artifact.format.stored import StoredParameter
from bitwidth.artifact.version3.groups import unpack_group
from bitwidth.artifact.version3.layers import BITS


def parameters(
    file: BinaryIO,
    place: int,
    header: Header,
    name: str,
    bits: int | None,
    base: Callable[[int], StoredParameter] | None = None,
) -> Iterator[StoredParameter]:
    """Each parameter in the file's order, read and checked when it is asked for; one group is held at a time.

    Args:
        file: open, to read from.
        place: where the chunks begin.
        header: of the file.
        name: of the file, for messages.
        bits: read only the first bits of each code; None for all.
        base: returns a parameter of the file that a file with changes was written against, by its number; asked in
            rising order.

    Raises:
        UnknownEncodingError: an encoding that is not registered in this process.
        CorruptFileError: a chunk was cut off or altered, or does not hold what the header says.
    """
    second = place + sum(chunk_size(group.lengths) for group in header.groups)
    second += sum(chunk_size([size]) for _, size in header.assets)
    start = 0
    for group in header.groups:
        entries = header.entries[start : start + group.count]
        start += group.count
        what = entries[0].path if group.count == 1 else f"{entries[0].path} to {entries[-1].path}"
        file.seek(place)
        streams = split_chunk(file.read(chunk_size(group.lengths)), group.lengths, name, what)
        place += chunk_size(group.lengths)
        rest = None
        if group.later and (bits is None or bits > BITS):
            file.seek(second)
            rest = split_chunk(file.read(chunk_size(group.later)), group.later, name, what)[0]
        second += chunk_size(group.later) if group.later else 0
        before = (
            [None] * group.count
            if base is None
            else [base(place) for place in header.places[start - group.count : start]]
        )
        yield from unpack_group(entries, streams, rest, name, bits, before)
