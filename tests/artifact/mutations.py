"""Honest files made dishonest by one who speaks the format: checksums and most lengths fit what was changed.

`mutate` changes a file in a few places; what it does is drawn from `mutations_of` by default, and others may bring
their own (those of Keras configurations, for one). A mutation changes the parts of a file in place.
"""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitwidth.artifact.version3.configs import restored
from bitwidth.artifact.version3.names import with_names
from bitwidth.coder import (
    encode_array,
    encode_codes,
    encode_floats,
    encode_integers,
    encode_mask,
    encode_residuals,
)
from tests.artifact.files import Grouped, Parts, taken_apart
from tests.coder.released import encode_planes

AnyParts = Parts | Grouped
Mutation = Callable[[AnyParts, random.Random], None]
Place = tuple[Any, Any]  # a list or dict, and an index or key of it

NUMBERS: list[Any] = [
    *(-1, 0, 1, 2, 3, 7, 8, 15, 16, 17, 31, 32, 63, 64, 127, 128, 255, 256, 65535, 65536),
    *(2**20, 2**21, 2**31 - 1, 2**31, 2**32, 2**63, 2**64, 10**30, -(2**31), 0.5, -0.0, 1.0, 1e-45, 1e39, 1e300),
    *(float("inf"), float("-inf"), float("nan"), True, False),
]
WORDS = [
    *(
        "",
        "a",
        "codes",
        "scale",
        "levels",
        "zero_point",
        "bias",
        "row",
        "keep",
        "plane",
        "values",
        "base",
        "base.scale",
    ),
    *("base.values", "kind", "parts", "config", "format", "width", "low", "high", "block", "dropped", "rows"),
    *(
        "dense",
        "quantized",
        "masked",
        "escaped",
        "bytes",
        "integers",
        "mask",
        "planes",
        "codes",
        "layers",
        "floats",
        "base",
        "change",
        "kernel",
        "state",
        "other",
    ),
    *("codes", "layers", "joint", "floats", "change", "step", "keep"),
    *("float16", "float32", "float64", "bfloat16", "int8", "uint8", "int32", "uint32", "int64", "bool", "string"),
    *("keras", "torch", "é\u202e", "\x1b[2J", "a\0b", "../a", "0/a", "2/a/b", "a/b/c", "x" * 300, "\ud800"),
]
ODD: list[Any] = [None, [], {}, [[]], [0], [None], {"kind": "dense"}, {"a": {}}, *NUMBERS, *WORDS]
DTYPES = ["bool", "float16", "float32", "float64", "bfloat16", "int8", "uint8", "int16", "int32", "uint32", "int64"]
DENSE = {"kind": "dense", "format": None, "width": 32}


def mutate(data: bytes, rng: random.Random, mutations: Sequence[Mutation] | None = None) -> bytes:
    """An honest file with one to three changes.

    Args:
        data: an honest file.
        rng: where the changes are drawn from.
        mutations: what may be done; all of `mutations_of` by default.
    """
    parts = taken_apart(data)
    if isinstance(parts, Grouped) and isinstance(parts.header.get("architecture"), dict) and rng.random() < 0.5:
        parts.header["architecture"] = [
            restored(with_names(parts.header["architecture"]))
        ]  # as it was, which is allowed
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        change = rng.choice(mutations_of(parts) if mutations is None else mutations)
        try:
            change(parts, rng)
        except (
            LookupError,
            TypeError,
            ValueError,
            AttributeError,
            RecursionError,
        ):  # there is no such thing in this file any more
            continue
    try:
        return parts.file()
    except (LookupError, TypeError, ValueError, RecursionError):
        return data


# ---- the header as a tree


def places(node: Any) -> Iterator[Place]:
    """Every place in a tree of lists and dicts, however deep."""
    left = [node]
    while left:
        node = left.pop()
        items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
        for key, value in items:
            yield node, key
            left.append(value)


def some_place(node: Any, rng: random.Random) -> Place:
    """A place, as likely a high as a low one."""
    found, key = node, None
    for _ in range(rng.randint(1, 6)):
        keys = list(node) if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ()
        if not keys:
            break
        found, key = node, rng.choice(list(keys))
        node = found[key]
    return found, key


def drop(parts: Any, rng: random.Random) -> None:
    node, key = some_place(parts.header, rng)
    del node[key]


def odd_value(parts: Any, rng: random.Random) -> None:
    node, key = some_place(parts.header, rng)
    node[key] = copy.deepcopy(rng.choice(ODD))


def near_value(parts: Any, rng: random.Random) -> None:
    """A number near the one that was there, or a word of the same kind."""
    found = [place for place in places(parts.header) if isinstance(place[0][place[1]], int | float | str)]
    node, key = rng.choice(found)
    value = node[key]
    if isinstance(value, str):
        node[key] = rng.choice([value + "x", value[:-1], value.upper(), value * 2, rng.choice(WORDS)])
    else:
        node[key] = rng.choice(
            [value + 1, value - 1, -value, value * 2, float(value), value + 0.5, str(value), [value]]
        )


def exchange(parts: Any, rng: random.Random) -> None:
    """The values of two places with the same key."""
    by_key: dict[Any, list[Place]] = {}
    for node, key in places(parts.header):
        by_key.setdefault(key, []).append((node, key))
    (left, a), (right, b) = rng.sample(rng.choice([held for held in by_key.values() if len(held) > 1]), 2)
    left[a], right[b] = copy.deepcopy(right[b]), copy.deepcopy(left[a])


def repeat(parts: Any, rng: random.Random) -> None:
    """An item of a list twice, or lists in another order."""
    lists = [node[key] for node, key in places(parts.header) if isinstance(node[key], list) and node[key]]
    chosen = rng.choice(lists)
    if rng.random() < 0.5:
        chosen.insert(rng.randrange(len(chosen) + 1), copy.deepcopy(rng.choice(chosen)))
    else:
        rng.shuffle(chosen)


def written_oddly(parts: Any, rng: random.Random) -> None:
    """The header's text: keys twice, other encodings, bytes behind it."""
    text = json.dumps(parts.header, ensure_ascii=rng.random() < 0.5)
    choice = rng.randrange(6)
    if choice == 0:
        key = rng.choice(["name", "path", "kind", "parameters", "kinds", "shapes", "low", "assets", "$"])
        text = text.replace(f'"{key}":', f'"{key}": {json.dumps(rng.choice(["x", 1, [], None]))}, "{key}":', 1)
    elif choice == 1:
        text += rng.choice([" ", "\n", "{}", "\0", ","])
    elif choice == 2:
        text = text[: rng.randrange(len(text))]
    encoding = rng.choice(["utf-16", "utf-32", "utf-8-sig", "latin-1"]) if choice == 3 else "utf-8"
    parts.text = text.encode(encoding, "surrogatepass" if choice != 3 else "replace")
    if choice == 4:
        parts.behind = rng.randbytes(rng.randint(1, 8))
    elif choice == 5:
        raw = bytearray(parts.text)
        raw[rng.randrange(len(raw))] = rng.randrange(256)
        parts.text = bytes(raw)


def version(parts: Any, rng: random.Random) -> None:
    parts.version = rng.choice([0, 1, 1, 2, 3, 3, 4, 65535])
    parts.flags = rng.choice([0, 0, 0, 1, 0x8000])


# ---- parameters


def of_entry(parts: Any, rng: random.Random) -> None:
    """A field of a parameter, of the kind that it should be."""
    index = rng.randrange(len(parts.header["parameters"]))
    entry = parts.header["parameters"][index]
    variable = parts.header["variables"][min(index, len(parts.header["variables"]) - 1)]
    key = rng.choice(["shape", "dtype", "role", "frozen", "path"])
    if key == "dtype":
        entry["dtype"] = rng.choice(DTYPES)
        variable[2] = rng.choice([entry["dtype"], variable[2]])
    elif key == "shape":
        entry["shape"] = other_shape(entry["shape"], rng)
        variable[1] = rng.choice([entry["shape"], variable[1]])
    elif key == "role":
        entry["role"] = rng.choice(["kernel", "bias", "state", "mean", "embedding", "weights", ""])
    elif key == "frozen":
        entry["frozen"] = rng.choice([True, False, 1, None])
    else:
        entry["path"] = rng.choice([parts.header["parameters"][0]["path"], "", "a/b", "\x1b]0;x\x07"])


def other_shape(shape: list[int], rng: random.Random) -> list[int]:
    """As many elements or not, with as many axes or not."""
    count = int(np.prod(shape, dtype=np.int64))
    kinds = [
        shape[::-1],
        [count],
        [1, *shape],
        [*shape, 1],
        [],
        [0],
        shape[1:],
        [length + 1 for length in shape],
        [2**31],
    ]
    return list(rng.choice(kinds))


def whole_parameter(parts: Any, rng: random.Random) -> None:
    """A parameter with its streams: gone, twice, or in another place."""
    lists = [parts.header["parameters"], parts.parameters, parts.together]
    left, right = (rng.randrange(len(parts.parameters)) for _ in range(2))
    choice = rng.randrange(4)
    if choice == 0:
        lists = [*lists, parts.header["variables"]] if rng.random() < 0.5 else lists
        for items in lists:
            del items[left]
    elif choice == 1:
        for items in [*lists, parts.header["variables"]]:
            items.append(copy.deepcopy(items[left]))
        parts.header["parameters"][-1]["path"] += rng.choice(["", "2"])
    elif choice == 2:
        for items in lists:
            items[left], items[right] = items[right], items[left]
    else:
        keys = rng.sample(["path", "role", "shape", "dtype", "encoding", "streams"], 2)
        first, second = parts.header["parameters"][left], parts.header["parameters"][right]
        for key in keys:
            first[key], second[key] = second[key], first[key]


# ---- streams


def some_stream(parts: Any, rng: random.Random) -> tuple[int, int]:
    index = rng.randrange(len(parts.parameters))
    return index, rng.randrange(len(parts.parameters[index]))


def flip(parts: Any, rng: random.Random) -> None:
    index, place = some_stream(parts, rng)
    data = bytearray(parts.parameters[index][place])
    for _ in range(rng.choice((1, 1, 2, 4))):
        where = rng.choice([0, min(1, len(data) - 1), rng.randrange(len(data))])
        data[where] = rng.choice([data[where] ^ 1 << rng.randrange(8), rng.randrange(256), 0, 255])
    parts.parameters[index][place] = bytes(data)


def cut(parts: Any, rng: random.Random) -> None:
    """A stream shorter or longer, and its length with it as a rule."""
    index, place = some_stream(parts, rng)
    data = parts.parameters[index][place]
    parts.parameters[index][place] = rng.choice(
        [data[: rng.randrange(len(data) + 1)], data + rng.randbytes(3), b"", data * 2]
    )
    if rng.random() < 0.9:
        parts.relength()


def splice(parts: Any, rng: random.Random) -> None:
    """A stream, or the tail of one, from another."""
    (index, place), (other, there) = some_stream(parts, rng), some_stream(parts, rng)
    ours, theirs = parts.parameters[index][place], parts.parameters[other][there]
    at = rng.randrange(len(ours) + 1)
    parts.parameters[index][place] = rng.choice([theirs, ours[:at] + theirs[at:], theirs[:at] + ours[at:]])
    parts.relength()


def describe(parts: Any, rng: random.Random) -> None:
    """What is said of a stream: its name, coder, dtype, shape or length."""
    entry = rng.choice(parts.header["parameters"])
    stream = rng.choice(entry["streams"])
    field = rng.randrange(5)
    choices: list[list[Any]] = [
        [*WORDS[:16], "codes"],
        ["bytes", "integers", "mask", "planes", "huffman"],
        [*DTYPES, "float8", ">f4", "V2"],
        [other_shape(stream[3], rng)],
        [[stream[4]], stream[4], 0, -1, 2**40, [1, 2]],
    ]
    stream[field] = rng.choice(choices[field])


def shift(parts: Any, rng: random.Random) -> None:
    """Bytes moved from one stream of a parameter to the next."""
    streams = rng.choice(parts.parameters)
    place, count = rng.randrange(len(streams) - 1), rng.randint(1, 3)
    streams[place + 1] = streams[place][-count:] + streams[place + 1]
    streams[place] = streams[place][:-count]
    parts.relength()


def recode(parts: Any, rng: random.Random) -> None:
    """Other values in the place of a stream, well coded and as described, or in another coder or dtype."""
    index = rng.randrange(len(parts.parameters))
    entry = parts.header["parameters"][index]
    place = rng.randrange(len(entry["streams"]))
    _, coder, dtype, shape, _ = entry["streams"][place]
    coder = rng.choice([coder, coder, "bytes", "integers", "mask", "planes"])
    dtype = rng.choice([dtype, dtype, rng.choice(DTYPES)])
    shape = rng.choice([shape, shape, shape, other_shape(shape, rng)])
    if np.prod(shape, dtype=np.float64) > 10_000:
        return
    data = coded(coder, some_values(dtype, shape, rng), rng)
    entry["streams"][place] = [entry["streams"][place][0], coder, dtype, list(shape), [0] if coder == "planes" else 0]
    if place == len(entry["streams"]) - 1:
        parts.parameters[index][place:] = data
    else:
        parts.parameters[index][place] = data[0]
    parts.relength()


def some_values(dtype: str, shape: Sequence[int], rng: random.Random) -> NDArray[Any]:
    draw = np.random.default_rng(rng.getrandbits(32))
    values = draw.normal(0, rng.choice([0.5, 3, 100, 1e6, 1e30]), shape)
    if values.size and rng.random() < 0.3:
        values.flat[rng.randrange(values.size)] = rng.choice([np.nan, np.inf, -np.inf, 1e300, -0.0, 1e-45, -1])
    if rng.random() < 0.2:
        values = np.full(shape, rng.choice([0.0, 1.0, -1.0, 1e38, np.nan]))
    with np.errstate(all="ignore"):
        if dtype == "bfloat16":
            return np.asarray(values.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16).reshape(shape)
        return np.asarray(values).astype(dtype)


def coded(coder: str, values: NDArray[Any], rng: random.Random) -> list[bytes]:
    """The streams of a coder; several for planes."""
    with np.errstate(all="ignore"):
        if coder == "mask":
            return [encode_mask(values > 0)]
        if coder == "integers":
            return [encode_integers(values.astype(np.int64))]
        if coder == "planes":
            codes = np.clip(np.nan_to_num(values.astype(np.float64)), -(2**20), 2**20).astype(np.int32)
            width = max(1, int(np.abs(codes).max(initial=0)).bit_length())
            return encode_planes(codes, min(width + rng.choice([0, 0, 1]), 21))
        return [encode_array(values)]


# ---- encodings


def configs(parts: Any) -> Iterator[Place]:
    """Where each configuration of an encoding is, those inside others too."""

    def inside(node: Any, key: Any) -> Iterator[Place]:
        yield node, key
        held = node[key].get("parts", {})
        for name in held:
            yield from inside(held, name)

    for kind in parts.header.get("kinds", []):
        yield from inside(kind, 4)
    for entry in parts.header["parameters"]:
        if isinstance(entry, dict):
            yield from inside(entry, "encoding")


def of_encoding(parts: Any, rng: random.Random) -> None:
    """A number or word in the configuration of an encoding."""
    node, key = rng.choice(list(configs(parts)))
    config = node[key]
    name = rng.choice([*config, "low", "high", "dropped", "rows", "block", "width", "format"])
    choices: dict[str, list[Any]] = {
        "kind": ["dense", "quantized", "masked", "escaped", "wavelet"],
        "format": ["float32", "float16", "bfloat16", None, "float8"],
        "block": [[1, 1], [6, 4], [], [6], [2, 2], [0, 1], [1.0, 1], [2**40, 1]],
        "rows": [[3, 5], [5, 3], [8], [2] * 4, [], [1, 7], [2**40, 1], 8],
        "parts": [{}, {"base": dict(DENSE)}, {"base": {"kind": "masked"}}, {"base": copy.deepcopy(config)}],
    }
    config[name] = rng.choice(choices.get(name, NUMBERS))


def wrap(parts: Any, rng: random.Random) -> None:
    """An encoding put into another, taken out of it, or exchanged for another parameter's."""
    found = list(configs(parts))
    node, key = rng.choice(found)
    other, there = rng.choice(found)
    inner = node[key].get("parts", {}).get("base")
    wrapped: dict[str, Any] = {"kind": rng.choice(["masked", "escaped"]), "parts": {"base": node[key]}}
    if wrapped["kind"] == "escaped":
        wrapped["format"] = rng.choice(("float32", "float16", None))
    node[key] = copy.deepcopy(rng.choice([wrapped, inner or wrapped, other[there], DENSE]))


# ---- groups, from version 3 on


def of_kind(parts: Any, rng: random.Random) -> None:
    """A field of a kind of parameter, of the kind that it should be, or which parameters are of it."""
    kinds, rows = parts.header["kinds"], parts.header["parameters"]
    kind, place = rng.choice(kinds), rng.randrange(5)
    if place == 4:
        row = rng.choice(rows)
        row[rng.randrange(len(row))] = rng.choice([rng.randrange(len(kinds) + 1), row[0], "a/", 0, -1, True])
    else:
        choices: list[list[Any]] = [["kernel", "a", ""], ["kernel", "bias", "state", "other"], DTYPES, [0, 1, 2, True]]
        kind[place] = rng.choice(choices[place])


def of_streams(parts: Any, rng: random.Random) -> None:
    """How a stream is described."""
    streams = rng.choice(parts.header["kinds"])[5]
    stream = rng.choice(streams)
    coders = ["codes", "layers", "joint", "floats", "mask", "bytes", "base", "change", "other"]
    choices: list[list[Any]] = [WORDS, coders, DTYPES, [0, 1, 2, 3, [2, 3], [], [24], [0], [2**31]]]
    place = rng.randrange(5)
    if place < 4:
        stream[place] = rng.choice(choices[place])
    else:
        rng.choice([streams.reverse, streams.pop, lambda: streams.insert(0, copy.deepcopy(stream))])()


def of_numbers(parts: Any, rng: random.Random) -> None:
    """Shapes, how many values are stored, and how many parameters are in a group."""
    choice = rng.randrange(3)
    if choice == 0:
        shapes = parts.header["shapes"]
        index = rng.randrange(len(shapes))
        shapes[index] = other_shape(shapes[index], rng)
    elif choice == 1:
        kept = parts.header["kept"]
        kept[rng.randrange(len(kept))] = rng.choice([0, 1, 15, 16, 24, 2**31, -1])
    else:
        rng.choice(parts.header["groups"])[0] = rng.choice([0, 1, 2, 3, 2**31, -1])


def of_groups(parts: Any, rng: random.Random) -> None:
    """Groups joined, cut in two, exchanged, or with another second chunk."""
    groups = parts.header["groups"]
    index, other = rng.randrange(len(groups)), rng.randrange(len(groups))
    choice = rng.randrange(4)
    if choice == 0:
        for items in (groups, parts.parameters, parts.later):
            items[index], items[other] = items[other], items[index]
    elif choice == 1:
        parts.later[index] = rng.choice([None, b"", b"\0", rng.randbytes(9), parts.later[other]])
    elif choice == 2:
        parts.parameters[index].insert(0, rng.choice([b"", b"\1", rng.randbytes(5), parts.parameters[other][0]]))
    else:
        count = rng.randrange(groups[index][0])
        groups.insert(index, [count, [], *groups[index][2:]])
        groups[index + 1][0] -= count
        parts.parameters.insert(index, list(parts.parameters[index]))
        parts.later.insert(index, parts.later[index])
    parts.relength()


def recode_group(parts: Any, rng: random.Random) -> None:
    """Other integers or floats in the place of those of a group, well coded."""
    index = rng.randrange(len(parts.parameters))
    streams, draw = parts.parameters[index], np.random.default_rng(rng.getrandbits(32))
    counts = [min(int(np.prod(shape, dtype=np.float64)), 10_000) for shape in parts.header["shapes"]][:6]
    spread = rng.choice([0, 1, 9, 200, 2**20])
    tensors: list[Any] = []
    for count in counts:
        codes = draw.integers(-spread, spread, count, np.int32, endpoint=True)
        tensors.append((codes, draw.random(count) < 0.5 if rng.random() < 0.3 else None))
    floats = [draw.integers(0, 1 << 16, count).astype(np.uint16) for count in counts]
    place = rng.randrange(len(streams))
    data = encode_codes(tensors) if rng.random() < 0.5 else encode_floats(floats)
    if parts.later[index] is not None and rng.random() < 0.5:
        codes = np.concatenate([codes for codes, _ in tensors])
        parts.later[index] = encode_residuals(codes, np.clip(codes, -7, 7), np.ones_like(codes))
    else:
        streams[place] = data
    parts.relength()


# ---- what is no parameter


def of_assets(parts: Any, rng: random.Random) -> None:
    names = [
        *("0/a", "1/a/b", "1/a", "2/", "/2", "2", "2//a", "../a", "0/../../a", "0/a\0", "0/\x1b[2J", "0/" + "x" * 300),
        *("0/\ud800", "0\\a", "007/a", "0/C:/a", "", "."),
    ]
    items, choice = parts.header.setdefault("assets", []), rng.randrange(4)
    if choice == 0 or not items:
        items.append([rng.choice(names), 3])
        parts.assets.append(b"abc")
    elif choice == 1:
        rng.choice(items)[0] = rng.choice(names)
    elif choice == 2:
        place = rng.randrange(len(items))
        del items[place], parts.assets[place]
    else:
        place = rng.randrange(len(items))
        parts.assets[place] = rng.randbytes(rng.randrange(6))
        parts.relength()


def of_variables(parts: Any, rng: random.Random) -> None:
    items, choice = parts.header.setdefault("variables", [["a", [6, 4], "float32"]]), rng.randrange(5)
    if choice == 0:
        items.append(rng.choice([["more", [2], "float32"], 5, [], ["a"], None]))
    elif choice == 1:
        rng.shuffle(items)
    elif choice == 2:
        items.pop()
    else:
        item = rng.choice(items)
        item[rng.randrange(3)] = rng.choice([other_shape([2, 3], rng), *DTYPES, None, 5, "\x1b"])


def of_activations(parts: Any, rng: random.Random) -> None:
    header = parts.header
    low, high = rng.choice([(0, 255), (-7, 7), (-127, 127), (3, 2), (-(2**31), 2**31), (0, 2**64)])
    scale = rng.choice([0.5, 0.1, 0.10000000149011612, 0.0, -1.0, 1e300, float("nan"), float("inf"), 1, True, "1"])
    grid = [low, high, scale, rng.choice([0, 9, 300, -1, 2**40, 0.5])]
    odd: list[Any] = [[grid], [None, grid], [None], [], [grid[:3]], grid, 5, None]
    held = rng.choice(odd)
    activations = header.setdefault("activations", {})
    activations[rng.choice([*activations, "a", "\x1b[2J", "\ud800"])] = held
    header["layers"] = rng.choice([header.get("layers", []), ["a"], [], ["a", "a"], [5], None, "ab"])


def configuration(parts: Any, rng: random.Random) -> None:
    """What the framework builds the model from: here any JSON; backends add mutations of their own."""
    node: Any = rng.choice(ODD)
    for _ in range(rng.choice((0, 1, 3, 50, 2000))):
        node = rng.choice([[node], {"config": node}, {"class_name": "Dense", "config": node}])
    parts.header[rng.choice(["architecture", "inputs", "reason", "framework"])] = node


GENERAL: list[Mutation] = [
    *(drop, odd_value, odd_value, near_value, near_value, exchange, repeat, written_oddly, version),
    *(flip, flip, flip, cut, splice, shift, of_encoding, of_encoding, wrap),
    *(of_assets, of_variables, of_activations, configuration),
]
PARAMETERS: list[Mutation] = [of_entry, of_entry, whole_parameter, describe, describe, recode, recode, recode]
GROUPS: list[Mutation] = [
    *(of_kind, of_kind, of_streams, of_streams, of_streams, of_numbers, of_numbers, of_groups, of_groups),
    *(recode_group, recode_group),
]


def mutations_of(parts: AnyParts) -> list[Mutation]:
    """What may be done to a file of its version."""
    return [*GENERAL, *(GROUPS if isinstance(parts, Grouped) else PARAMETERS)]
