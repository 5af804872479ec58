"""Files that were altered, cut off, or built to harm: an error of one kind, soon, in little memory."""

from __future__ import annotations

import copy
import json
import resource
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bitwidth.artifact import StoredModel, StoredParameter, inspect, read_content
from bitwidth.artifact.format.layout import MAGIC
from bitwidth.coder import encode_array, encode_integers, encode_mask
from bitwidth.encodings import Dense, Encoding, IntegerLevels, Masked, Quantized, TableLevels, uniform_levels
from bitwidth.errors import CorruptFileError, UnknownEncodingError, VersionError
from tests.artifact import earlier
from tests.artifact.earlier import framed
from tests.coder.released import encode_planes
from tests.stored import stored_model

REFUSED = (CorruptFileError, VersionError, UnknownEncodingError)
Header = dict[str, Any]


def content() -> StoredModel:
    """A grid, a masked table, a vector in half precision, and a masked grid with zero points."""
    x = ((np.arange(24) * 37 % 101 - 50) / 16).astype(np.float32)
    held: dict[str, Encoding] = {
        "grid": Quantized(uniform_levels(4), np.full((1, 4), 0.5, np.float32), (6, 1)),
        "table": Masked(
            np.arange(24).reshape(6, 4) % 3 > 0,
            Quantized(TableLevels((-2.0, -1.0, 0.0, 1.0, 2.0)), np.ones((1, 1), np.float32), (6, 4)),
        ),
        "half": Dense("float16"),
        "lopsided": Masked(
            np.arange(24).reshape(6, 4) % 5 > 0,
            Quantized(IntegerLevels(0, 15), np.full((1, 4), 0.5, np.float32), (6, 1), np.array([[3, 7, 8, 9]])),
        ),
    }
    parameters = [
        StoredParameter(path, "kernel", "float32", True, encoding, encoding.project(x.reshape(6, 4)))
        for path, encoding in held.items()
    ]
    variables = [["kernel", [6, 4], "float32"]] * len(held)
    assets = {"0/words": b"a\nb"}
    return stored_model("small", "keras", {"class_name": "Sequential"}, "", [], variables, tuple(parameters), assets)


DATA = earlier.pack(content(), planes=True)


def unframed(data: bytes) -> tuple[Header, list[bytes]]:
    """Header and chunks of a file, by the documented layout."""
    (stored,) = struct.unpack_from("<I", data, 12)
    header = json.loads(zlib.decompress(data[32 : 32 + stored]))
    sizes = []
    for entry in header["parameters"]:
        *side, codes = (stream[4] for stream in entry["streams"])
        first, *planes = codes if isinstance(codes, list) else [codes]
        sizes += [sum(side) + first, *planes]
    chunks, place = [], 32 + stored
    for size in [*sizes, *(size for _, size in header["assets"])]:
        chunks.append(data[place + 4 : place + 4 + size])
        place += 4 + size
    assert place == len(data)
    return header, chunks


HEADER, CHUNKS = unframed(DATA)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "m.bw"


def test_the_unaltered_file_reads(path: Path) -> None:
    path.write_bytes(framed(json.dumps(HEADER).encode(), CHUNKS))
    found = read_content(path)
    for back, given_one in zip(found.parameters, content().parameters, strict=True):
        assert back.values.tobytes() == given_one.values.tobytes()


@pytest.mark.parametrize("flip", [0xFF, 0])
def test_every_byte_altered(path: Path, flip: int) -> None:
    """All of its bits (0xFF), or one of them (0): never read, neither as itself nor as anything else."""
    rng = np.random.default_rng(0)
    for place in range(len(DATA)):
        data = bytearray(DATA)
        data[place] ^= flip or 1 << int(rng.integers(8))
        path.write_bytes(data)
        with pytest.raises(REFUSED):
            read_content(path)


@pytest.mark.parametrize("bits", [2, 3])
def test_every_byte_altered_that_a_prefix_reads(path: Path, bits: int) -> None:
    """What is read is checked; what is not read does not matter."""
    path.write_bytes(DATA)
    expected = [parameter.values.tobytes() for parameter in read_content(path, bits).parameters]
    unread = set(range(len(DATA))) - read_places(bits)
    assert 0 < len(unread) == len(DATA) - inspect(path).prefix_bytes(bits)
    for place in range(len(DATA)):
        data = bytearray(DATA)
        data[place] ^= 0x41
        path.write_bytes(data)
        if place in unread:
            assert [parameter.values.tobytes() for parameter in read_content(path, bits).parameters] == expected
        else:
            with pytest.raises(REFUSED):
                read_content(path, bits)


def read_places(bits: int) -> set[int]:
    """The bytes of the file that a prefix needs, by the documented layout."""
    places = set(range(len(DATA) - sum(4 + len(chunk) for chunk in CHUNKS)))
    place, chunks = len(places), iter(CHUNKS)
    kinds = [entry["streams"][-1][4] for entry in HEADER["parameters"]] + [size for _, size in HEADER["assets"]]
    for kind in kinds:
        for index in range(len(kind) if isinstance(kind, list) else 1):
            size = 4 + len(next(chunks))
            places |= set(range(place, place + size)) if index < bits - 1 else set()
            place += size
    return places


def test_every_truncation(path: Path) -> None:
    for length in range(len(DATA)):
        path.write_bytes(DATA[:length])
        with pytest.raises(CorruptFileError):
            read_content(path)
        with pytest.raises(CorruptFileError):
            inspect(path)


@pytest.mark.parametrize("tail", [b"\0", b"\n", b"x" * 1000, DATA])
def test_trailing_bytes(path: Path, tail: bytes) -> None:
    path.write_bytes(DATA + tail)
    for read in (read_content, inspect):
        with pytest.raises(CorruptFileError, match="not as long as its header says"):
            read(path)


def test_two_bytes_exchanged_and_runs_zeroed(path: Path) -> None:
    rng = np.random.default_rng(1)
    for _ in range(150):
        data = bytearray(DATA)
        first, second = sorted(rng.integers(0, len(data), 2).tolist())
        if rng.random() < 0.5:
            data[first], data[second] = data[second], data[first]
        else:
            data[first:second] = bytes(second - first)
        if bytes(data) == DATA:
            continue
        path.write_bytes(data)
        with pytest.raises(REFUSED):
            read_content(path)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tail=st.binary(max_size=200))
def test_anything_behind_the_magic(path: Path, tail: bytes) -> None:
    path.write_bytes(MAGIC + tail)
    for read in (read_content, inspect):
        with pytest.raises(REFUSED):
            read(path)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=64))
def test_anything_at_all(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    with pytest.raises(CorruptFileError):
        read_content(path)


# ---- headers that a hostile writer gives a checksum that fits

HOSTILE: dict[str, Callable[[Header], Any]] = {}


def hostile(name: str) -> Callable[[Callable[[Header], Any]], Callable[[Header], Any]]:
    def add(change: Callable[[Header], Any]) -> Callable[[Header], Any]:
        HOSTILE[name] = change
        return change

    return add


def put(*keys: Any) -> Callable[[Header], Any]:
    """A change that sets `header[keys[0]][keys[1]]... = keys[-1]`."""

    def change(header: Header) -> None:
        *inner, last, value = keys
        node: Any = header
        for key in inner:
            node = node[key]
        node[last] = value

    return change


def drop(*keys: Any) -> Callable[[Header], Any]:
    def change(header: Header) -> None:
        node: Any = header
        for key in keys[:-1]:
            node = node[key]
        del node[keys[-1]]

    return change


for _key in ("name", "framework", "architecture", "reason", "inputs", "variables", "parameters", "assets"):
    HOSTILE[f"without {_key}"] = drop(_key)
for _key in ("path", "role", "shape", "dtype", "encoding", "streams"):
    HOSTILE[f"a parameter without {_key}"] = drop("parameters", 0, _key)
OF_HEADERS: list[tuple[str, Any]] = [
    ("name", 5),
    ("name", None),
    ("framework", ["keras"]),
    ("reason", 5),
    ("variables", 5),
    ("parameters", 5),
    ("parameters", {}),
    ("parameters", "abc"),
    ("parameters", None),
    ("assets", 5),
    ("assets", {"a": 1}),
    ("assets", [5]),
    ("assets", [["0/words", 3, 4]]),
    ("assets", [["0/words", -1]]),
    ("assets", [["0/words", "3"]]),
    ("assets", [["0/words", 3.0]]),
    ("assets", [["0/words", 3.5]]),
    ("assets", [["0/words", None]]),
    ("assets", [["0/words", float("inf")]]),
    ("assets", [["0/words", float("nan")]]),
    ("assets", [[["0/words"], 3]]),
    ("assets", [[5, 3]]),
    ("assets", [["0/words", 10**30]]),
    ("assets", [["0/words", 1], ["0/words", 2]]),
]
for _key, _wrong in OF_HEADERS:
    HOSTILE[f"{_key} is {_wrong}"] = put(_key, _wrong)
NO_ENTRIES: list[Any] = [5, None, "abc", [], {}, True]
for _item in NO_ENTRIES:
    HOSTILE[f"a parameter is {_item}"] = put("parameters", 0, _item)
OF_PARAMETERS: list[tuple[str, Any]] = [
    ("path", 5),
    ("path", None),
    ("role", []),
    ("dtype", 5),
    ("dtype", "float8"),
    ("dtype", "int32"),
    ("shape", "6x4"),
    ("shape", [-6, -4]),
    ("shape", [6.0, 4]),
    ("shape", [True, 24]),
    ("shape", [24]),
    ("shape", [4, 6]),
    ("shape", [6, 5]),
    ("shape", [2**40]),
    ("shape", [0]),
    ("shape", [10**30]),
    ("shape", [1] * 17),
    ("shape", [[6], 4]),
    ("shape", None),
    ("encoding", []),
    ("encoding", None),
    ("encoding", {}),
    ("streams", {}),
    ("streams", []),
    ("streams", [5]),
    ("streams", ["codes"]),
    ("streams", [[]]),
    ("streams", None),
]
for _key, _wrong in OF_PARAMETERS:
    HOSTILE[f"the {_key} of a parameter is {_wrong}"] = put("parameters", 0, _key, _wrong)
OF_STREAMS: list[tuple[int, Any]] = [
    (0, "other"),
    (0, 5),
    (0, "codes.codes"),
    (1, "huffman"),
    (1, "mask"),
    (1, None),
    (2, "float8"),
    (2, "object"),
    (2, "complex64"),
    (2, "int32"),
    (2, "V2"),
    (2, []),
    (3, [6, 5]),
    (3, [6, -4]),
    (3, [2**40]),
    (3, "shape"),
    (4, -1),
    (4, 1.5),
    (4, "9"),
    (4, None),
    (4, float("nan")),
    (4, 2**62),
    (4, 10**30),
]
for _place, _wrong in OF_STREAMS:
    HOSTILE[f"field {_place} of a stream is {_wrong}"] = put("parameters", 2, "streams", 0, _place, _wrong)
OF_PLANES: list[Any] = [5, None, "8", [], [[1]], [-1], [1.5], [None], [2**62], [0] * 32, {}, [True]]
for _wrong in OF_PLANES:
    HOSTILE[f"the lengths of planes are {_wrong}"] = put("parameters", 0, "streams", 1, 4, _wrong)
for _dropped in (1, -1, 3, 10**30, 0.5, None, "1", True):
    HOSTILE[f"a prefix that drops {_dropped} of planes that are whole"] = put(
        "parameters", 0, "encoding", "dropped", _dropped
    )
OF_GRIDS: list[tuple[str, Any]] = [
    ("kind", "wavelet"),
    ("kind", ["quantized"]),
    ("kind", None),
    ("kind", "dense"),
    ("kind", "masked"),
    ("low", "a"),
    ("low", None),
    ("low", [0]),
    ("low", 8),
    ("low", -7.5),
    ("low", float("nan")),
    ("high", 10**400),
    ("block", None),
    ("block", "61"),
    ("block", [6]),
    ("block", [6, 0]),
    ("block", [6, -1]),
    ("block", [6, float("inf")]),
    ("block", [float("nan"), 1]),
    ("block", [6, [1]]),
    ("block", [3, 1]),
    ("block", [1, 1]),
    ("parts", 5),
    ("parts", [5]),
    ("parts", {"base": 5}),
]
for _key, _wrong in OF_GRIDS:
    HOSTILE[f"the {_key} of a grid is {str(_wrong)[:20]}"] = put("parameters", 0, "encoding", _key, _wrong)
NO_PARTS: list[Any] = [
    None,
    5,
    [],
    {},
    {"base": None},
    {"base": []},
    {"base": {}},
    {"base": {"kind": "wavelet"}},
    {"top": {}},
]
for _wrong in NO_PARTS:
    HOSTILE[f"the parts of a mask are {_wrong}"] = put("parameters", 1, "encoding", "parts", _wrong)
HOSTILE["a mask without parts"] = drop("parameters", 1, "encoding", "parts")
HOSTILE["a mask of a mask"] = put("parameters", 1, "encoding", "parts", "base", {"kind": "masked"})


@hostile("the header is a list")
def _(header: Header) -> Any:
    return [header]


@hostile("the header is a number")
def _(header: Header) -> Any:
    return 5


@hostile("the header is null")
def _(header: Header) -> Any:
    return "null"


@hostile("no streams")
def _(header: Header) -> None:
    header["parameters"][0]["streams"].clear()


@hostile("a stream missing")
def _(header: Header) -> None:
    streams = header["parameters"][1]["streams"]
    streams[0][4] += streams[1][4]
    del streams[1]


@hostile("codes twice")
def _(header: Header) -> None:
    header["parameters"][2]["streams"].append(["codes", "bytes", "float16", [0], 0])


@hostile("scales twice")
def _(header: Header) -> None:
    header["parameters"][0]["streams"].append(["scale", "bytes", "float16", [0], 0])


@hostile("codes that nothing names")
def _(header: Header) -> None:
    for stream in header["parameters"][0]["streams"]:
        stream[0] = "scale"


@hostile("lengths shifted between streams")
def _(header: Header) -> None:
    streams = header["parameters"][0]["streams"]
    streams[0][4] += 1
    streams[1][4][0] -= 1


@hostile("a plane missing")
def _(header: Header) -> None:
    del header["parameters"][0]["streams"][1][4][-1]


@hostile("two planes as one")
def _(header: Header) -> None:
    planes = header["parameters"][0]["streams"][1][4]
    planes[-2:] = [sum(planes[-2:]) + 4]


@hostile("planes of what is no grid")
def _(header: Header) -> None:
    header["parameters"][0]["encoding"] = {"kind": "dense", "format": None, "width": 32}


@hostile("planes of a wider grid")
def _(header: Header) -> None:
    header["parameters"][0]["encoding"] |= {"low": -15, "high": 15}


@hostile("planes in front of another stream")
def _(header: Header) -> None:
    header["parameters"][0]["streams"].reverse()


@hostile("scales in planes")
def _(header: Header) -> None:
    header["parameters"][0]["streams"][0][1] = "planes"


@hostile("a parameter missing")
def _(header: Header) -> None:
    del header["parameters"][1]


@hostile("two parameters of one path")
def _(header: Header) -> None:
    header["parameters"][1]["path"] = header["parameters"][0]["path"]


@hostile("parameters in another order")
def _(header: Header) -> None:
    header["parameters"].reverse()


@hostile("an encoding nested deep")
def _(header: Header) -> None:
    node: Any = {"kind": "dense", "format": None, "width": 32}
    for _ in range(900):
        node = {"kind": "masked", "parts": {"base": node}}
    header["parameters"][1]["encoding"] = node


RAW: dict[str, bytes] = {
    "nothing": b"",
    "no JSON": b"{",
    "other text": b"\x00\x01\x02",
    "not UTF-8": json.dumps(HEADER).encode().replace(b"small", b"\xff\xfe\xfd"),
    "lists nested deep": b"[" * 1_000_000,
    "objects nested deep": b'{"a":' * 500_000 + b"1" + b"}" * 500_000,
    "a number of many digits": b'{"name": ' + b"9" * 100_000 + b"}",
    "a second value behind it": json.dumps(HEADER).encode() + b"{}",
}


def file_of(header: Any) -> bytes:
    text = header if isinstance(header, bytes) else b"null" if header == "null" else _dumps(header)
    return framed(text, CHUNKS)


def _dumps(header: Any) -> bytes:
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(10_000)
    try:
        return json.dumps(header).encode()
    finally:
        sys.setrecursionlimit(limit)


def hostile_file(name: str) -> bytes:
    if name in RAW:
        return file_of(RAW[name])
    header = copy.deepcopy(HEADER)
    changed = HOSTILE[name](header)
    return file_of(header if changed is None else changed)


@pytest.mark.parametrize("name", [*HOSTILE, *RAW])
def test_a_hostile_header_is_refused(path: Path, name: str) -> None:
    path.write_bytes(hostile_file(name))
    with pytest.raises(REFUSED):
        read_content(path)


@pytest.mark.parametrize("name", [*HOSTILE, *RAW])
def test_a_hostile_header_is_inspected_or_refused(path: Path, name: str) -> None:
    """A header may be good to look at though the values behind it are not; then it can be printed."""
    path.write_bytes(hostile_file(name))
    try:
        found = inspect(path)
    except REFUSED:
        return
    assert str(path) in str(found)
    assert [repr(entry.kind) for entry in found.parameters]


def places(node: Any, keys: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    return [keys, *(place for key, value in inner for place in places(value, (*keys, key)))]


WORDS = [
    "",
    "codes",
    "planes",
    "scale",
    "keep",
    "base",
    "dense",
    "masked",
    "quantized",
    "mask",
    "integers",
    "bytes",
    "float16",
]
numbers = st.one_of(st.integers(-3, 30), st.sampled_from([10**6, 2**63, 0.5, -1.5, float("inf"), float("nan")]))
scalars = st.one_of(st.none(), st.booleans(), numbers, st.sampled_from(WORDS))
nodes = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["kind", "parts", "base"]), inner),
    max_leaves=5,
)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.sampled_from(places(HEADER)[1:]), node=nodes, bits=st.sampled_from([None, None, 2, 3, 16]))
def test_any_part_of_the_header_exchanged(path: Path, place: tuple[Any, ...], node: Any, bits: int | None) -> None:
    header = copy.deepcopy(HEADER)
    put(*place, node)(header)
    path.write_bytes(file_of(header))
    try:
        found = read_content(path, bits)
    except REFUSED:
        return
    assert all(isinstance(parameter.values, np.ndarray) for parameter in found.parameters)
    str(inspect(path))


# ---- little memory and little time

CHILD = """
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
resource.setrlimit(resource.RLIMIT_CPU, (20, 20))
from bitwidth.artifact import read_content
from tests.artifact import earlier
from tests.artifact.earlier import framed
from tests.stored import stored_model
try:
    read_content(sys.argv[1])
except BaseException as error:
    print(type(error).__name__)
"""
LARGE = [2**32]


def bomb(name: str) -> bytes:
    """A small file that asks for gigabytes."""
    dense = {"kind": "dense", "format": None, "width": 32}
    entry: dict[str, Any] = {"path": "a", "role": "kernel", "shape": LARGE, "dtype": "float32", "encoding": dense}
    header: Header = {**HEADER, "assets": [], "parameters": [entry]}
    if name == "header of many lists":
        return framed(b'{"parameters":[' + b"[]," * (16 << 20) + b"[]]}", [])
    if name == "header of blanks":
        return framed(b" " * (1 << 27), [])
    if name == "planes":
        streams = [encode_array(np.zeros(1, np.float16)), *encode_planes(np.zeros(4, np.int32), 3)]
        entry["encoding"] = {"kind": "quantized", "low": -7, "high": 7, "block": [2**31]}
        entry["shape"] = [2**31]
        entry["streams"] = [["scale", "bytes", "float16", [1], len(streams[0])]]
        entry["streams"] += [["codes", "planes", "int32", [2**31], [len(part) for part in streams[1:]]]]
        return framed(json.dumps(header).encode(), [streams[0] + streams[1], *streams[2:]])
    if name == "integers":
        streams = [encode_integers(np.zeros(8, np.int32))]
        entry["streams"] = [["codes", "integers", "int32", LARGE, len(streams[0])]]
    elif name == "floats":
        streams = [encode_array(np.zeros(1000, np.float32))]
        entry["streams"] = [["codes", "bytes", "float32", LARGE, len(streams[0])]]
    elif name == "mask":
        streams = [encode_mask(np.ones(8, bool)), encode_array(np.zeros(4, np.float32))]
        entry["encoding"] = {"kind": "masked", "parts": {"base": dense}}
        entry["streams"] = [["keep", "mask", "bool", LARGE, len(streams[0])]]
        entry["streams"] += [["codes", "bytes", "float32", [4], len(streams[1])]]
    else:
        streams = [encode_array(np.zeros(1, np.float16)), encode_integers(np.zeros(4, np.int32))]
        entry["shape"] = [2, 2]
        entry["encoding"] = {"kind": "quantized", "low": -7, "high": 7, "block": [2, 2]}
        entry["streams"] = [["scale", "bytes", "float16", [1, 1], len(streams[0])]]
        entry["streams"] += [["codes", "integers", "int32", LARGE, len(streams[1])]]
    return framed(json.dumps(header).encode(), [b"".join(streams)])


@pytest.mark.skipif(not hasattr(resource, "RLIMIT_AS") or sys.platform != "linux", reason="needs Linux")
@pytest.mark.parametrize(
    "name",
    [
        *("header of many lists", "header of blanks", "integers", "floats", "mask", "codes of another shape"),
        "planes",
    ],
)
def test_a_small_file_cannot_ask_for_gigabytes(path: Path, name: str) -> None:
    path.write_bytes(bomb(name))
    assert path.stat().st_size < 1 << 20
    command = [sys.executable, "-c", CHILD, str(path)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=60, check=False, cwd=Path(__file__).parents[2]
    )
    assert done.stdout.strip() == "CorruptFileError", done.stderr[-500:]
