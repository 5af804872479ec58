"""The header of version 3 as JSON: what parameters have in common is said once, and nothing that follows from the rest.

::

    name           of the model
    framework      left out where it is "keras"
    architecture   its configuration in short form (`configs`), or null
    reason         why there is none; left out where there is
    inputs         as in `Architecture`
    variables      left out where name, shape and dtype of each are those of its parameter
    kinds          [last part of the path, role, dtype, 0 or 1 (frozen), encoding, streams]: each once
    parameters     [first part of the path, kind, kind, ...] of parameters that follow each other; where that part is
                   the last one with the same stem and the next number, the number of the stem stands for it
    shapes         one for each parameter
    kept           how many values each parameter with a mask stores
    more           [number of the parameter, object] of those that have such (see `StoredParameter`); left out if none
    groups         [how many parameters, [bytes of each stream], bytes of the rest of their codes if there are such]
    assets         [name, bytes] of each; left out where there are none
    activations    as `activations` writes them, and `layers`: paths of the layers; both left out where there are none
    base           hash of the values of the file that this one holds changes of; it says of the model what is not as
                   there, and lists the parameters that changed
    kept_inputs    [number of the input, features at first, features after each cut, ...], these as lists of the numbers
                   that they had at first; left out where no features were removed
    places         with `base`: the numbers of these parameters, rising, counted from 0

In an encoding, a block that is as long as its axis is 0. A stream is [name, coder, dtype, shape]; as its shape stand 0
for that of the parameter, 1 for one value a block, 2 for one value for each that is stored, or a list.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import prod
from typing import Any, final

from bitwidth.artifact.format import activations
from bitwidth.artifact.format.agreement import checked_dtype, checked_variables
from bitwidth.artifact.format.header import CODES, ROLES, Entry, Group, Header, Stream, checked_layers
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
from bitwidth.artifact.version3.configs import restored
from bitwidth.artifact.version3.describing import KERAS, variables_of
from bitwidth.artifact.version3.fields import JOINT, LAYERS
from bitwidth.artifact.version3.kinds import BLOCKS, KEPT, WHOLE, blocks_of, kind_of, with_blocks
from bitwidth.artifact.version3.names import next_name, stem_of, with_names
from bitwidth.artifact.version3.shares import with_pieces
from bitwidth.errors import CorruptFileError, ModelError
from bitwidth.graph import KeptInputs
from bitwidth.typing import Json, JsonDict

MAX_KINDS = 1 << 16
_HASH = re.compile("[0-9a-f]{32}")
_LISTS = ("kinds", "parameters", "shapes", "kept", "groups", "assets", "more")


def parse(text: bytes, name: str) -> Header:
    """The header from its JSON.

    Args:
        text: the JSON; untrusted.
        name: of the file, for messages.

    Raises:
        CorruptFileError: it does not describe a model, asks for more than a file may hold, or says it otherwise than a
            writer does.
    """
    data = _read(text, name)
    lists = {key: data.get(key, []) for key in _LISTS}
    groups = tuple(_group(item, name) for item in lists["groups"])
    found = _with_more(
        list(_entries(lists["kinds"], lists["parameters"], lists["shapes"], lists["kept"], name)), lists["more"], name
    )
    entries = with_pieces(found, groups, name)
    variables = checked_variables(data["variables"], name) if "variables" in data else variables_of(entries)
    header = Header(
        name=data.get("name", ""),
        architecture=Architecture(
            framework=data.get("framework", KERAS),
            config=_config(data.get("architecture"), name),
            reason=data.get("reason", ""),
            inputs=data.get("inputs"),
            variables=variables,
            layers=checked_layers(data.get("layers", []), data.get("activations"), name),
            paths=tuple(entry.path for entry in entries),
            kept_inputs=_kept_inputs(data.get("kept_inputs"), name),
        ),
        entries=entries,
        groups=groups,
        assets=tuple(checked_asset(item, name) for item in lists["assets"]),
        activations=activations.read(data.get("activations", {}), name),
        base=data.get("base", ""),
        given=frozenset(data) if data.get("base") else frozenset(),
        places=_places(data, len(entries), name),
    )
    header.check_parts(name)
    return header


def _read(text: bytes, name: str) -> JsonDict:
    """The JSON of a header whose parts are there and of the types that they should be, one level deep."""
    try:
        data = strict_json(text)
    except (ValueError, RecursionError, MemoryError) as error:
        raise CorruptFileError(f"{name}: its header does not describe a model: {error}") from error
    if not isinstance(data, dict):
        raise CorruptFileError(f"{name}: its header does not describe a model")
    texts = [data.get("base", ""), data.get("name", ""), data.get("framework", ""), data.get("reason", "")]
    good = all(isinstance(data.get(key, []), list) for key in _LISTS) and all(isinstance(item, str) for item in texts)
    whole = data.get("base") or {"name", "architecture", "inputs"} <= set(data)
    if not good or not whole:
        raise CorruptFileError(f"{name}: its header does not describe a model")
    if len(data.get("shapes", [])) > MAX_PARAMETERS or len(data.get("kinds", [])) > MAX_KINDS:
        raise CorruptFileError(f"{name}: more parameters than a file may hold")
    return data


def _places(data: JsonDict, count: int, name: str) -> tuple[int, ...]:
    if not data.get("base"):
        return ()
    if not _HASH.fullmatch(data["base"]):
        raise CorruptFileError(f"{name}: its header does not name a base by 32 hexadecimal digits")
    places = data.get("places")
    if not isinstance(places, list) or len(places) != count or not all(type(place) is int for place in places):
        raise CorruptFileError(f"{name}: its header does not say which parameters it changes")
    if any(later <= before for before, later in pairwise([-1, *places])):
        raise CorruptFileError(f"{name}: its header changes parameters in another order than that of its base")
    return tuple(places)


def _kept_inputs(item: Json, name: str) -> KeptInputs | None:
    if item is None or item == []:  # of an update, where they are as at first
        return None
    good = isinstance(item, list) and len(item) > 2 and all(type(number) is int for number in item[:2])
    if not good or not all(isinstance(cut, list) and all(type(n) is int for n in cut) for cut in item[2:]):
        raise CorruptFileError(f"{name}: its header does not say which inputs are left: {str(item)[:80]}")
    try:
        return KeptInputs(item[0], checked_count(item[1], name), tuple(map(tuple, item[2:])))
    except ModelError as error:
        raise CorruptFileError(f"{name}: its header does not say which inputs are left: {error}") from error


def _config(data: Json, name: str) -> Json:
    if isinstance(data, list) and len(data) == 1:
        return data[0]
    try:
        return restored(with_names(data))
    except (CorruptFileError, RecursionError) as error:
        raise CorruptFileError(f"{name}: its header does not describe a model: {error}") from error


@final
@dataclass(frozen=True)
class _Kind:
    last: str
    role: str
    dtype: str
    trainable: bool
    encoding: JsonDict
    streams: tuple[tuple[str, str, str, Any], ...]


def _kinds(items: Sequence[Json], name: str) -> Iterator[_Kind]:
    for item in items:
        types = (str, str, str, int, dict, list)
        if not isinstance(item, list) or [type(part) for part in item] != list(types) or item[3] not in (0, 1):
            raise CorruptFileError(f"{name}: its header does not describe a kind of parameter: {str(item)[:80]}")
        last, role, dtype, frozen, encoding, streams = item
        where = f"{name}: {last}"
        if role not in ROLES:
            raise CorruptFileError(f"{where}: an unknown role {role[:80]!r}")
        checked_dtype(dtype, where)
        checked_encoding(encoding, where)
        described = tuple(_described(stream, where) for stream in streams)
        names = [stream[0] for stream in described]
        if names[-1:] != [CODES] or len(set(names)) != len(names):
            raise CorruptFileError(f"{where}: each stream once, the codes as the last; got {str(names)[:200]}")
        yield _Kind(last, role, dtype, not frozen, encoding, described)


def _described(item: Json, where: str) -> tuple[str, str, str, Any]:
    if not isinstance(item, list) or len(item) != 4 or not all(isinstance(part, str) for part in item[:3]):
        raise CorruptFileError(f"{where}: malformed stream: expected [name, coder, dtype, shape], got {str(item)[:80]}")
    if type(item[3]) is not int:
        checked_shape(item[3], where)
    elif item[3] not in (WHOLE, BLOCKS, KEPT):
        raise CorruptFileError(f"{where}: not the shape of a stream: {item[3]}")
    checked_dtype(item[2], where)
    return item[0], item[1], item[2], item[3]


def _entries(
    kinds: Sequence[Json], rows: Sequence[Json], shapes: Sequence[Json], kept: Sequence[Json], name: str
) -> Iterator[Entry]:
    known, left = list(_kinds(kinds, name)), iter([checked_count(count, name) for count in kept])
    shape = iter(shapes)
    for first, index in _indices(rows, len(known), name):
        kind = known[index]
        where = f"{name}: {first}{kind.last}"
        found = next(shape, None)
        yield _entry(first + kind.last, kind, checked_shape(found, where), left, where)
    if next(shape, None) is not None or next(left, None) is not None:
        raise CorruptFileError(f"{name}: its header describes more than its parameters")


def _indices(rows: Sequence[Json], kinds: int, name: str) -> Iterator[tuple[str, int]]:
    """The first part of the path of each parameter, and its kind."""
    stems: dict[str, str] = {}  # in the order of their numbers, the last name of each
    for row in rows:
        if not isinstance(row, list) or not all(type(index) is int and 0 <= index < kinds for index in row[1:]):
            raise CorruptFileError(f"{name}: its header does not list parameters: {str(row)[:80]}")
        first = row[0] if row else None
        if type(first) is int and 0 <= first < len(stems):
            first = next_name(list(stems.values())[first]) + "/"
        if not isinstance(first, str) or len(row) < 2:
            raise CorruptFileError(f"{name}: its header does not list parameters: {str(row)[:80]}")
        plain = first.removesuffix("/")
        stems[stem_of(plain)] = plain
        yield from ((first, index) for index in row[1:])


def _entry(path: str, kind: _Kind, shape: tuple[int, ...], left: Iterator[int], where: str) -> Entry:
    encoding = with_blocks(kind.encoding, shape, short=False)
    count = prod(shape)
    masked = any(coder == JOINT or marker == KEPT for _, coder, _, marker in kind.streams)
    kept = next(left, None) if masked else count
    if kept is None or kept > count:
        raise CorruptFileError(f"{where}: more values stored than there are, or it is not said how many")
    blocks = blocks_of(encoding, shape)
    streams = []
    for name, coder, dtype, marker in kind.streams:
        found = {WHOLE: shape, BLOCKS: blocks, KEPT: (kept,)}[marker] if type(marker) is int else tuple(marker)
        if found is None or prod(found) > (count if name == CODES else max(count, MAX_SIDE_ELEMENTS)):
            raise CorruptFileError(f"{where}: stream {name!r} of {found} for {count:,} values")
        streams.append(Stream(name, coder, dtype, found))
    coded = "4 bits + rest" if streams[-1].coder == LAYERS else "whole"
    entry = Entry(path, kind.role, shape, kind.dtype, kind.trainable, encoding, tuple(streams), kept, coded=coded)
    if kind_of(entry, kind.last)[5] != [list(stream) for stream in kind.streams]:
        raise CorruptFileError(f"{where}: shapes of streams that are not said as a writer says them")
    return entry


def _with_more(entries: list[Entry], items: Sequence[Json], name: str) -> list[Entry]:
    for item in items:
        good = isinstance(item, list) and len(item) == 2 and type(item[0]) is int and isinstance(item[1], dict)
        if not good or not 0 <= item[0] < len(entries) or not item[1] or entries[item[0]].more:
            raise CorruptFileError(f"{name}: its header does not say more of a parameter: {str(item)[:80]}")
        entries[item[0]] = replace(entries[item[0]], more=item[1])
    return entries


def _group(item: Json, name: str) -> Group:
    if not isinstance(item, list) or len(item) not in (2, 3) or not isinstance(item[1], list):
        raise CorruptFileError(f"{name}: its header does not describe a group: {str(item)[:80]}")
    count, lengths, *later = item
    where = f"{name}: a group"
    sizes = tuple(checked_count(size, where) for size in lengths)
    return Group(checked_count(count, where), sizes, tuple(checked_count(size, where) for size in later))
