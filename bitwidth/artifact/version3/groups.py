"""Parameters that follow each other share streams, so that small ones share tables and checksums.

A group takes parameters in until it holds 65,536 values: one large parameter with the small ones before it, or many
small ones. Its first chunk holds, where there are such, one stream of all its 32-bit integers and one of all its 16-bit
floats, and then a stream for each other array; a second chunk holds the rest of the codes that are in layers.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import prod
from typing import final

import numpy as np
from numpy.typing import NDArray

from bitwidth.artifact.format.header import CODES, Entry, Stream
from bitwidth.artifact.format.held import check_dtype, check_known, check_values, codes_dtype, is_code, placed, within
from bitwidth.artifact.format.states import arrays_of, config_of, state_of
from bitwidth.artifact.format.stored import StoredParameter
from bitwidth.artifact.version3.changes import changed, predicted, side_of
from bitwidth.artifact.version3.fields import (
    BASE,
    BYTES,
    CHANGE,
    FLOATS,
    JOINT,
    KEEP,
    LAYERS,
    MASK,
    MORE,
    STEP,
    TakenApart,
    coder_of,
    restored,
    stored,
    stream_of,
)
from bitwidth.artifact.version3.layers import can_be_layered, encoding_of_base, joined, of_stored, whole
from bitwidth.coder import (
    decode_array,
    decode_codes,
    decode_floats,
    decode_mask,
    decode_residuals,
    encode_array,
    encode_codes,
    encode_floats,
    encode_mask,
    encode_residuals,
)
from bitwidth.encodings import Encoding, encoding_from_state, narrow, ordered
from bitwidth.errors import CorruptFileError, EncodingError
from bitwidth.typing import Array


def _is_together(stream: Stream) -> bool:
    """Whether an array goes into the stream of integers."""
    return stream.coder in (CODES, LAYERS) or (stream.coder == CHANGE and stream.dtype != "bool")


def _is_mask(stream: Stream) -> bool:
    """Whether an array is a mask with a stream of its own."""
    return stream.coder == MASK or (stream.coder == CHANGE and stream.dtype == "bool")


# ---- writing


def pack_group(members: Sequence[TakenApart]) -> tuple[list[bytes], list[bytes]]:
    """The streams of the first chunk, and the chunks behind it: none, or the rest of the codes in layers."""
    fields = [(field, member) for member in members for field in member.fields]
    streams = []
    whole = [
        (field.array, member.mask if field.stream.name == CODES else None)
        for field, member in fields
        if _is_together(field.stream)
    ]
    if whole:
        streams.append(encode_codes(whole))
    floats = [field.array.view(np.uint16).reshape(-1) for field, _ in fields if field.stream.coder == FLOATS]
    if floats:
        streams.append(encode_floats(floats))
    for one, _ in fields:
        if _is_mask(one.stream):
            streams.append(encode_mask(one.array))
        elif one.stream.coder == BYTES:
            streams.append(encode_array(one.array))
    rest = [member.layers.rest for member in members if member.layers is not None]
    if not rest:
        return streams, []
    codes, base, step = joined(rest)
    return streams, [encode_residuals(codes, base, step)]


# ---- reading


@final
@dataclass
class _Member:
    """What was decoded of one parameter.

    Attributes:
        entry: what the header says of it.
        encoding: how it is held.
        codes: all of them, or those of the base layer.
        step: of the base layer; None where there is none.
        arrays: as in `StoredParameter`.
    """

    entry: Entry
    encoding: Encoding
    codes: Array
    step: NDArray[np.int32] | None
    arrays: dict[str, Array]


def unpack_group(
    entries: Sequence[Entry],
    streams: Sequence[bytes],
    rest: bytes | None,
    name: str,
    bits: int | None,
    base: Sequence[StoredParameter | None],
) -> Iterator[StoredParameter]:
    """The parameters of a group, one at a time.

    Args:
        entries: what the header says of each.
        streams: of the first chunk.
        rest: the second chunk; None where there is none, or only the base layer is wanted.
        name: of the file, for messages.
        bits: read only the first bits of each code; None for all.
        base: of a file that holds changes, what each entry is a change of.

    Raises:
        UnknownEncodingError: an encoding that is not registered in this process.
        CorruptFileError: the streams do not make such parameters.
    """
    for entry in entries:
        check_known(entry.encoding, f"{name}: {entry.path}")
    last = f" to {entries[-1].path}" if len(entries) > 1 else ""
    with _corrupt(f"{name}: {entries[0].path}{last}"):
        found = _decoded(entries, list(streams))
    members = []
    for entry, arrays, before in zip(entries, found, base, strict=True):
        with _corrupt(f"{name}: {entry.path}"):
            members.append(_member(entry, arrays, before))
    if rest is not None:
        with _corrupt(f"{name}: {entries[0].path}{last}"):
            _add_rest([member for member in members if member.step is not None], rest)
    del found, streams
    members.reverse()
    while members:  # each is let go of before the next one is decoded
        member = members.pop()
        entry = member.entry
        with _corrupt(f"{name}: {entry.path}"):
            encoding, values = _values(member, bits)
        check_dtype(values, entry.dtype, f"{name}: {entry.path}")
        described = entry.path, entry.role, entry.dtype, entry.trainable
        yield StoredParameter(*described, encoding, values, entry.more, member.arrays)


@contextmanager
def _corrupt(where: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # an encoding of a user's own may raise anything
        raise CorruptFileError(f"{where}: {error}") from error


def _decoded(entries: Sequence[Entry], streams: list[bytes]) -> list[dict[str, Array]]:
    """The arrays of each parameter by name."""
    described = [(stream, entry) for entry in entries for stream in entry.streams]
    joint = {entry.path for stream, entry in described if stream.coder == JOINT}
    whole = [
        (stream.shape, stream.name == CODES and entry.path in joint)
        for stream, entry in described
        if _is_together(stream)
    ]
    sizes = [prod(stream.shape) for stream, _ in described if stream.coder == FLOATS]
    expected = bool(whole) + bool(sizes) + sum(_is_mask(stream) or stream.coder == BYTES for stream, _ in described)
    if len(streams) != expected:
        raise CorruptFileError(f"{len(streams)} streams, expected {expected}")
    streams.reverse()
    codes = iter(decode_codes(streams.pop(), whole) if whole else [])
    floats = iter(decode_floats(streams.pop(), sizes) if sizes else [])
    found: list[dict[str, Array]] = []
    for entry in entries:
        arrays: dict[str, Array] = {}
        for stream in entry.streams:
            if _is_together(stream):
                array, mask = next(codes)
                arrays[stream.name] = array if stream.coder == CHANGE else restored(stream, array)
                if mask is not None:
                    arrays[KEEP] = mask
            elif stream.coder == FLOATS:
                arrays[stream.name] = restored(stream, next(floats))
            elif stream.coder not in (JOINT, BASE):
                arrays[stream.name] = _own(stream, streams.pop())
        found.append(arrays)
    return found


def _own(stream: Stream, data: bytes) -> Array:
    """An array that has a stream of its own."""
    if _is_mask(stream):
        return decode_mask(data, stream.shape)
    if stream.coder != BYTES:
        raise CorruptFileError(f"a stream of unknown coder {stream.coder!r}")
    dtype = np.dtype(np.uint16) if stream.dtype == "bfloat16" else np.dtype(stream.dtype)
    return restored(stream, decode_array(data, dtype, stream.shape))


def _member(entry: Entry, arrays: dict[str, Array], base: StoredParameter | None) -> _Member:
    """The encoding of a parameter, whose description is the one that a writer gives, and its codes."""
    codes, step = arrays.pop(CODES), arrays.pop(STEP, None)
    if any(stream.coder in (BASE, CHANGE) for stream in entry.streams):
        if base is None or base.values.shape != entry.shape or base.dtype != entry.dtype:
            raise EncodingError("it is a change of a parameter that the base does not have")
        arrays |= _changed_sides(entry, arrays, base)
    more = {name: arrays.pop(name) for name in list(arrays) if name.startswith(MORE)}
    encoding = encoding_from_state(state_of(entry.encoding, arrays))
    encoding.check(entry.shape)
    _check_described(entry, encoding, more)
    if base is not None and entry.streams[-1].coder == CHANGE:
        codes = _changed_codes(entry, codes, encoding, base)
    if step is not None:
        encoding_of_base(encoding, step).unmasked.check_codes(codes)
    elif encoding.mask is not None and codes.shape != entry.shape:
        codes = placed(codes, encoding.mask)
    return _Member(entry, encoding, codes, step, {name.removeprefix(MORE): array for name, array in more.items()})


def _changed_sides(entry: Entry, arrays: Mapping[str, Array], base: StoredParameter) -> dict[str, Array]:
    """The arrays beside the codes that are those of the base, or changes of them."""
    known, found = dict(arrays_of(base.encoding.state())), {}
    for stream in entry.streams[:-1]:
        if stream.coder == BASE:
            found[stream.name] = side_of(stream, known)
        elif stream.coder == CHANGE:
            before = side_of(stream, known)
            before = before if stream.dtype == "bool" else stored(before, stream.dtype)
            found[stream.name] = restored(stream, changed(stream, arrays[stream.name], before))
    return found


def _changed_codes(entry: Entry, difference: Array, encoding: Encoding, base: StoredParameter) -> Array:
    """All the codes, or those that a mask keeps, from how they differ from those of the base's values."""
    stream = entry.streams[-1]
    before = predicted(encoding, base, entry.dtype)
    if encoding.mask is not None and difference.shape != entry.shape:
        before = before[encoding.mask]
    return restored(stream, changed(stream, difference, before))


def _add_rest(members: list[_Member], rest: bytes) -> None:
    """The whole codes of members, in the place of those of their base layers."""
    flat = [of_stored([member.codes], _step(member), member.encoding) for member in members]
    base, step = joined(flat)
    sizes = [part.size for part, _ in flat]
    del flat
    codes = decode_residuals(rest, base, step).reshape(-1)
    start = 0
    for member, size in zip(members, sizes, strict=True):
        member.codes = whole(codes[start : start + size], member.encoding, member.entry.shape)
        member.step, start = None, start + size


def _step(member: _Member) -> NDArray[np.int32]:
    if member.step is None:
        raise CorruptFileError("a base layer without a step")
    return member.step


def _values(member: _Member, bits: int | None) -> tuple[Encoding, Array]:
    """The encoding and the values; `member` lets go of its codes."""
    encoding = member.encoding
    codes, member.codes = member.codes, np.zeros(0)
    if member.step is not None:
        encoding = encoding_of_base(encoding, member.step)
    encoding.unmasked.check_codes(codes if encoding.mask is None else codes[encoding.mask])
    if bits is not None:
        encoding, codes = narrow(encoding, codes, bits)
    with np.errstate(over="ignore", invalid="ignore"):  # whoever uses the values asks whether they are finite
        values = encoding.decode(codes)
    del codes
    check_values(encoding, values)
    return encoding, values


# ---- what a writer says


def _check_described(entry: Entry, encoding: Encoding, more: Mapping[str, Array]) -> None:
    """Raise unless `entry` describes `encoding`, for its parameter, as a writer does.

    Raises:
        EncodingError: saying what a writer would have put there.
    """
    if not within(entry.encoding, json.loads(json.dumps(config_of(encoding.state())))):
        raise EncodingError(f"{encoding.describe()} is not described as {str(dict(entry.encoding))[:200]}")
    expected = [*_expected(entry, encoding, more)]
    if list(entry.streams) != expected:
        raise EncodingError(f"{encoding.describe()} has the streams {_words(expected)}; got {_words(entry.streams)}")
    mask = encoding.mask
    if entry.kept != (entry.count if mask is None else np.count_nonzero(mask)):
        raise EncodingError(f"{entry.kept:,} values said to be stored, which is not what the mask says")


def _expected(entry: Entry, encoding: Encoding, more: Mapping[str, Array]) -> Iterator[Stream]:
    """The streams as a writer describes them, of its choices the one that was made."""
    codes, said = entry.streams[-1], {stream.name: stream for stream in entry.streams}
    arrays = dict(arrays_of(encoding.state()))
    dtype = codes_dtype(encoding.unmasked, entry.dtype) or codes.dtype
    of_grid, mask = is_code(dtype, entry.dtype), encoding.mask
    together = of_grid and mask is not None and KEEP in arrays and np.array_equal(arrays[KEEP], mask)
    for name, array in arrays.items():
        stream, given = stream_of(name, array, together), said.get(name)
        if given is not None and given.coder in (BASE, CHANGE):
            stream = replace(stream, coder=given.coder)
            together = together and name != KEEP
        yield stream
    for name, array in more.items():
        yield stream_of(name, array, False)
    grid = ordered(encoding)
    if of_grid and codes.coder == LAYERS and grid is not None and can_be_layered(encoding):
        yield Stream(STEP, CODES, "int32", grid.scale.shape)
        yield Stream(CODES, LAYERS, "int32", entry.shape)
        return
    shape = entry.shape if mask is None or together else (int(np.count_nonzero(mask)),)
    named = "bfloat16" if entry.dtype == "bfloat16" and dtype == "uint16" else dtype
    coder = CHANGE if codes.coder == CHANGE else CODES if of_grid else coder_of(dtype, prod(shape))
    yield Stream(CODES, coder, named, shape)


def _words(streams: Sequence[Stream]) -> str:
    return ", ".join(f"{one.name} ({one.coder}, {one.dtype}, {one.shape})" for one in streams)[:400]
