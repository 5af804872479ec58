"""What each parameter of a group takes of the bytes that they share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import isinf, prod

from bitwidth.artifact.format.header import CODES, Entry, Group, Piece
from bitwidth.artifact.format.layout import chunk_size
from bitwidth.artifact.version3.fields import LAYERS
from bitwidth.artifact.version3.layers import BITS
from bitwidth.errors import CorruptFileError

FULL = 1 << 16  # a group of so many values takes in no further parameter
_WIDTH = 16  # bits that a value is counted as where its encoding does not tell


def with_pieces(entries: Sequence[Entry], groups: Sequence[Group], name: str) -> tuple[Entry, ...]:
    """The entries with their pieces: shares of the chunks of their group by the bits of what they store, unpacked.

    Args:
        entries: in the order of the groups.
        groups: their chunks.
        name: of the file, for messages.

    Raises:
        CorruptFileError: the groups are not those of these parameters, as a writer makes them.
    """
    found: list[Entry] = []
    for group in groups:
        members = entries[len(found) : len(found) + group.count]
        layered = [entry.streams[-1].coder == LAYERS for entry in members]
        if len(members) != group.count or not members or any(layered) != (len(group.later) == 1):
            raise CorruptFileError(f"{name}: a group that does not hold the parameters it should")
        if sum(entry.count for entry in members[:-1]) >= FULL:
            raise CorruptFileError(f"{name}: a group of more parameters than a writer puts into one")
        first = _shared(chunk_size(group.lengths), [_weight(entry, BITS) for entry in members])
        pieces = [[Piece(0, size)] for size in first]
        if group.later:
            weights = [entry.count if flag else 0 for entry, flag in zip(members, layered, strict=True)]
            sizes = _shared(chunk_size(group.later), weights)
            for piece, size, flag in zip(pieces, sizes, layered, strict=True):
                piece += [Piece(BITS + 1, size)] if flag else []
        found += [replace(entry, pieces=tuple(parts)) for entry, parts in zip(members, pieces, strict=True)]
    if len(found) != len(entries):
        raise CorruptFileError(f"{name}: {len(entries)} parameters, {len(found)} of them in groups")
    return tuple(found)


def _weight(entry: Entry, base: int) -> int:
    """Bits of what is stored of a parameter in its first chunk, before entropy coding."""
    bits = entry.summary.bits
    width = _WIDTH if bits is None or isinf(bits) else int(bits)
    codes = entry.streams[-1]
    side = sum(prod(stream.shape) for stream in entry.streams if stream.name != CODES)
    return entry.kept * (min(base, width) if codes.coder == LAYERS else width) + side * _WIDTH + 1


def _shared(total: int, weights: Sequence[int]) -> list[int]:
    """`total` in shares by weight, which add up to it."""
    whole, past, given, shares = sum(weights), 0, 0, []
    for weight in weights:
        past += weight
        upto = total * past // whole
        shares.append(upto - given)
        given = upto
    return shares
