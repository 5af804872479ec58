"""What a writer can never write is refused, though every checksum fits: files of version 2."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from bitwidth.artifact import StoredParameter, inspect, open_file, pack, read_content
from bitwidth.coder import encode_array, encode_integers, encode_mask
from bitwidth.coder.masks import decode_mask
from bitwidth.encodings import Dense, Encoding, IntegerLevels, Masked, Quantized, uniform_levels
from bitwidth.errors import CorruptFileError, EncodingError, FileError
from tests.artifact import earlier
from tests.artifact.files import Parts
from tests.artifact.files import earlier as taken_apart
from tests.golden import make, make_v2
from tests.stored import rebuilt, stored_model

FLOATS = np.array([[1.0001, -2.5], [0.25, 3.0]], np.float32)
GRID = Quantized(IntegerLevels(0, 15), np.ones((1, 2), np.float32), (2, 1), np.array([[3, 7]], np.int32))
HELD: list[tuple[str, Encoding, NDArray[Any]]] = [
    ("a/kernel", Dense(), FLOATS),
    ("a/half", Dense("float16"), Dense("float16").project(FLOATS)),
    ("a/grid", GRID, GRID.project(FLOATS)),
    ("a/masked", Masked(FLOATS > 0), np.where(FLOATS > 0, FLOATS, np.float32(0))),
    ("a/count", Dense(), np.array([70001, 2], np.int32)),
    ("a/double", Dense(), np.array([1e300])),
]
KERNEL, HALF, ON_GRID, MASKED, COUNT, DOUBLE = range(len(HELD))
ACTIVATIONS = {"a": (Quantized(IntegerLevels(0, 255), np.asarray(0.5, np.float32), (), np.asarray(9, np.int32)),)}
CONTENT = stored_model(
    name="m",
    framework="keras",
    architecture={"class_name": "Sequential", "config": {}},
    reason="",
    inputs=[],
    variables=[[path[2:], list(values.shape), str(values.dtype)] for path, _, values in HELD],
    parameters=tuple(
        StoredParameter(path, "kernel", str(values.dtype), True, held, values) for path, held, values in HELD
    ),
    assets={"0/words": b"a\nb", "1/deep/er": b"c"},
    activations=ACTIVATIONS,
    layers=("a", "b"),
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "m.bw"


@pytest.fixture
def parts() -> Parts:
    return taken_apart(earlier.pack(CONTENT, planes=True))


def opened(path: Path) -> None:
    with open_file(path) as file:
        file.stored()


def refused(path: Path, data: bytes, words: str) -> None:
    path.write_bytes(data)
    with pytest.raises(CorruptFileError, match=words):
        opened(path)


def recode(parts: Parts, place: int, stream: int, description: list[Any], data: bytes) -> Parts:
    """Another stream in the place of one, with its lengths."""
    entry = parts.header["parameters"][place]
    entry["streams"][stream] = [*description, len(data)]
    parts.parameters[place][stream:] = [data]
    parts.together[place] = len(entry["streams"])
    return parts


def test_the_file_itself_is_good(path: Path, parts: Parts) -> None:
    path.write_bytes(parts.file())
    opened(path)
    found = read_content(path)
    assert [p.values.tobytes() for p in found.parameters] == [values.tobytes() for _, _, values in HELD]
    assert earlier.pack(found, planes=True) == earlier.pack(CONTENT, planes=True)


# ---- the header's text


def test_bytes_behind_the_deflated_header(path: Path, parts: Parts) -> None:
    parts.behind = b"more"
    refused(path, parts.file(), "not as long as it says")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32", "utf-8-sig", "latin-1"])
def test_only_utf_8(path: Path, parts: Parts, encoding: str) -> None:
    parts.header["name"] = "ö"
    parts.text = json.dumps(parts.header, ensure_ascii=False).encode(encoding)
    refused(path, parts.file(), "does not describe a model")


@pytest.mark.parametrize("key", ["name", "path", "kind"])
def test_a_key_twice(path: Path, parts: Parts, key: str) -> None:
    text = json.dumps(parts.header)
    parts.text = text.replace(f'"{key}":', f'"{key}": "x", "{key}":', 1).encode()
    refused(path, parts.file(), f"names '{key}' twice")


def test_half_a_character(path: Path, parts: Parts) -> None:
    parts.text = json.dumps({**parts.header, "name": "\ud800"}).encode()
    refused(path, parts.file(), "does not describe a model")


def test_a_whole_character_in_two_halves_is_read(path: Path, parts: Parts) -> None:
    parts.text = json.dumps({**parts.header, "name": "\U0001f600"}).encode()
    assert b"\\ud83d" in parts.text
    path.write_bytes(parts.file())
    assert inspect(path).name == "\U0001f600"


def test_planes_in_a_file_of_version_1(path: Path) -> None:
    parts = taken_apart(make_v2.FILE.read_bytes())
    parts.version = 1
    path.write_bytes(parts.file())
    for read in (read_content, inspect):
        with pytest.raises(CorruptFileError, match="bit planes in a file of version 1"):
            read(path)


# ---- variables, roles, dtypes


@pytest.mark.parametrize(
    "item",
    [
        *(5, None, "kernel", [], {}, ["kernel"], ["kernel", [2, 2]], [5, [2, 2], "float32"]),
        *(["kernel", None, "float32"], ["kernel", [2, -2], "float32"], ["kernel", [2, 2.0], "float32"]),
        *(["kernel", [2, 2], "float8"], ["kernel", [2, 2], None], ["kernel", [2, 2], "float32", 1]),
        *(["kernel", [2**40], "float32"], ["kernel", [[2], 2], "float32"], ["kernel", [2, 2], "string"]),
    ],
)
def test_an_item_of_variables_that_is_none(path: Path, parts: Parts, item: Any) -> None:
    parts.header["variables"][0] = item
    path.write_bytes(parts.file())
    for read in (read_content, inspect, opened):
        with pytest.raises(CorruptFileError):
            read(path)


CHANGES: dict[str, Callable[[list[Any]], Any]] = {
    "one too few": lambda items: items.pop(),
    "one too many": lambda items: items.append(["more", [], "float32"]),
    "none": lambda items: items.clear(),
    "another shape": lambda items: items[0].__setitem__(1, [4]),
    "another dtype": lambda items: items[0].__setitem__(2, "float64"),
    "another order": lambda items: items.reverse(),
}


@pytest.mark.parametrize("name", list(CHANGES))
def test_variables_that_are_not_the_parameters(path: Path, parts: Parts, name: str) -> None:
    CHANGES[name](parts.header["variables"])
    refused(path, parts.file(), "parameter")


@pytest.mark.parametrize("role", ["", "weights", "Kernel", "kernel "])
def test_an_unknown_role(path: Path, parts: Parts, role: str) -> None:
    parts.header["parameters"][0]["role"] = role
    refused(path, parts.file(), "unknown role")


@pytest.mark.parametrize("dtype", ["float8", "", "string", "complex64", "object", "<f4", "float"])
def test_an_unknown_dtype(path: Path, parts: Parts, dtype: str) -> None:
    parts.header["parameters"][0]["dtype"] = dtype
    refused(path, parts.file(), "unknown dtype")


@pytest.mark.parametrize(("place", "dtype"), [(KERNEL, "bfloat16"), (KERNEL, "float64"), (DOUBLE, "float32")])
def test_a_false_dtype(path: Path, parts: Parts, place: int, dtype: str) -> None:
    parts.header["parameters"][place]["dtype"] = dtype
    parts.header["variables"][place][2] = dtype
    refused(path, parts.file(), "codes in")


def test_grids_are_of_float32_only(path: Path, parts: Parts) -> None:
    for place in (HALF, ON_GRID):
        changed = copy.deepcopy(parts)
        changed.header["parameters"][place]["dtype"] = "bfloat16"
        changed.header["variables"][place][2] = "bfloat16"
        refused(path, changed.file(), "only float32 is held so")


# ---- formats and streams


@pytest.mark.parametrize(
    ("place", "config"),
    [
        (KERNEL, {"format": "float16", "width": 16}),
        (KERNEL, {"format": "bfloat16", "width": 16}),
        (HALF, {"format": "float32", "width": 32}),
        (HALF, {"format": None, "width": 32}),
        (COUNT, {"format": "float16", "width": 16}),
        (COUNT, {"format": "float32", "width": 32}),
        (DOUBLE, {"format": "float32", "width": 32}),
    ],
)
def test_a_format_that_its_stream_is_not_of(path: Path, parts: Parts, place: int, config: dict[str, Any]) -> None:
    """Read as they lie there, 1.0001 would be 1 and 70001 infinite after the next save."""
    entry = parts.header["parameters"][place]
    entry["encoding"] |= config
    refused(path, parts.file(), r"codes in|only float32")
    entry["dtype"] = parts.header["variables"][place][2] = "float32"
    refused(path, parts.file(), r"codes in|only float32")


@pytest.mark.parametrize("config", [{"width": 32.5}, {"width": 33}, {"more": 1}, {"width": True}])
def test_a_configuration_that_is_not_what_was_read(path: Path, parts: Parts, config: dict[str, Any]) -> None:
    parts.header["parameters"][HALF]["encoding"] |= config
    refused(path, parts.file(), "is not described as")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(("place", "dtype"), [(KERNEL, "float32"), (HALF, "float16"), (DOUBLE, "float64")])
def test_values_that_are_not_finite(path: Path, parts: Parts, value: float, place: int, dtype: str) -> None:
    """A writer refuses them too."""
    shape = HELD[place][2].shape
    data = encode_array(np.full(shape, value, dtype))
    refused(path, recode(parts, place, 0, ["codes", "bytes", dtype, list(shape)], data).file(), "not finite")
    bad = StoredParameter("a", "kernel", dtype, True, Dense(), np.full(shape, value, dtype))
    with pytest.raises(EncodingError, match="not finite"):
        pack(stored_model("m", "keras", None, "", [], [["a", list(shape), dtype]], (bad,)))


def test_a_grid_that_reaches_infinity(path: Path) -> None:
    grid = Quantized(uniform_levels(8), np.full((1, 1), 3e38, np.float32), (2, 2))
    stored = StoredParameter("a", "kernel", "float32", True, grid, grid.decode(np.eye(2, dtype=np.int32)))
    parts = taken_apart(earlier.pack(stored_model("m", "keras", None, "", [], [["a", [2, 2], "float32"]], (stored,))))
    path.write_bytes(parts.file())
    opened(path)
    data = encode_integers(np.full((2, 2), 7, np.int32))
    refused(path, recode(parts, 0, 1, ["codes", "integers", "int32", [2, 2]], data).file(), "not finite")


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32", "float64", "bool"])
def test_scales_of_a_dtype_that_no_scales_have(path: Path, parts: Parts, dtype: str) -> None:
    data = encode_array(np.ones((1, 2), dtype))
    entry = parts.header["parameters"][ON_GRID]
    entry["streams"][0] = ["scale", "bytes", dtype, [1, 2], len(data)]
    parts.parameters[ON_GRID][0] = data
    refused(path, parts.file(), "scale in bytes of|scales must be finite")


@pytest.mark.parametrize("dtype", ["int64", "uint8", "uint32", "bool", "float16"])
def test_zero_points_of_a_dtype_that_no_zero_points_have(path: Path, parts: Parts, dtype: str) -> None:
    data = encode_array(np.ones((1, 2), dtype))
    entry = parts.header["parameters"][ON_GRID]
    assert entry["streams"][1][:3] == ["zero_point", "bytes", "int8"]
    entry["streams"][1] = ["zero_point", "bytes", dtype, [1, 2], len(data)]
    parts.parameters[ON_GRID][1] = data
    refused(path, parts.file(), "zero_point")


def test_zero_points_as_earlier_files_have_them(path: Path, parts: Parts) -> None:
    data = encode_array(np.array([[3, 7]], np.int32))
    parts.header["parameters"][ON_GRID]["streams"][1] = ["zero_point", "bytes", "int32", [1, 2], len(data)]
    parts.parameters[ON_GRID][1] = data
    path.write_bytes(parts.file())
    opened(path)


def test_a_mask_as_bytes(path: Path, parts: Parts) -> None:
    data = encode_array(FLOATS > 0)
    parts.header["parameters"][MASKED]["streams"][0] = ["keep", "bytes", "bool", [2, 2], len(data)]
    parts.parameters[MASKED][0] = data
    refused(path, parts.file(), "keep in bytes")


@pytest.mark.parametrize("place", [KERNEL, MASKED, ON_GRID])
def test_a_stream_that_nothing_reads(path: Path, parts: Parts, place: int) -> None:
    data = encode_mask(np.ones((2, 2), bool))
    parts.header["parameters"][place]["streams"].insert(0, ["other", "mask", "bool", [2, 2], len(data)])
    parts.parameters[place].insert(0, data)
    parts.together[place] += 1
    refused(path, parts.file(), "has the streams")


def test_codes_of_another_shape_or_coder(path: Path, parts: Parts) -> None:
    floats = encode_array(FLOATS)
    refused(path, recode(copy.deepcopy(parts), KERNEL, 0, ["codes", "bytes", "float32", [4]], floats).file(), "codes")
    whole = encode_array(np.array([[1, 2], [3, 4]], np.int32))
    refused(path, recode(copy.deepcopy(parts), ON_GRID, 2, ["codes", "bytes", "int32", [2, 2]], whole).file(), "codes")
    counts = encode_integers(np.array([70001, 2]))
    refused(path, recode(parts, COUNT, 0, ["codes", "integers", "int32", [2]], counts).file(), "codes")


@pytest.mark.parametrize("scale", [0.0, 1e-45])
def test_codes_that_a_writer_does_not_give(path: Path, scale: float) -> None:
    """Where the scale is zero, or too small to be divided by, every value has the code of zero."""
    grid = Quantized(uniform_levels(4), np.full((1, 1), scale, np.float32), (2, 2))
    stored = StoredParameter("a", "kernel", "float32", True, grid, np.zeros((2, 2), np.float32))
    parts = taken_apart(earlier.pack(stored_model("m", "keras", None, "", [], [["a", [2, 2], "float32"]], (stored,))))
    path.write_bytes(parts.file())
    opened(path)
    data = encode_integers(np.full((2, 2), -7, np.int32))
    changed = recode(parts, 0, 1, ["codes", "integers", "int32", [2, 2]], data).file()
    refused(path, changed, "does not give to what they stand for")


def test_a_mask_of_no_axes_in_classes() -> None:
    for header in (5 | 1 << 3, 5 | 2 << 3, 5 | 3 << 3, 5):
        with pytest.raises(CorruptFileError):
            decode_mask(bytes([header, 1, 0]), ())


def test_bfloat16_parameters_as_they_are_read(path: Path) -> None:
    """They are read as float32, and written from it as the same file."""
    values = np.array([1.5, -2.0, 0.0], np.float32)
    stored = StoredParameter("a", "bias", "bfloat16", True, Dense(width=16), values)
    held = stored_model("m", "keras", None, "", [], [["a", [3], "bfloat16"]], (stored,))
    path.write_bytes(earlier.pack(held))
    assert inspect(path).parameters[0].streams[0].dtype == "bfloat16"
    found = read_content(path)
    assert found.parameters[0].values.tobytes() == values.tobytes()
    assert earlier.pack(found) == path.read_bytes()
    path.write_bytes(pack(held).data)
    again = read_content(path)
    assert again.parameters[0].values.tobytes() == values.tobytes()
    assert pack(again).data == path.read_bytes()
    off = StoredParameter("a", "bias", "bfloat16", True, Dense(width=16), FLOATS)
    with pytest.raises(EncodingError, match="bfloat16 does not hold"):
        pack(stored_model("m", "keras", None, "", [], [["a", [2, 2], "bfloat16"]], (off,)))


# ---- activations


@pytest.mark.parametrize(
    "numbers",
    [
        *([0, 255, float("nan"), 9], [0, 255, float("inf"), 9], [0, 255, 1e300, 9], [0, 255, -0.5, 9]),
        *([0, 255, 1, 9], [0, 255, 0.1, 9], [0, 255, True, 9], [0, 255, 0.5, 300], [0, 255, 0.5, 2**40]),
        *([0, 2**80, 0.5, 0], [255, 0, 0.5, 0], [0, 255, 0.5], [0, 255, 0.5, 9.0], "abcd"),
    ],
)
def test_a_grid_of_activations_that_is_none(path: Path, parts: Parts, numbers: Any) -> None:
    parts.header["activations"]["a"][0] = numbers
    refused(path, parts.file(), "inputs of a")


# ---- assets

NAMES = [
    *("", "/", "2/", "/2", "2//a", "2/.", "2/..", "2/../a", "../2/a", "2/./a", "2/a/", "2\\a", "2/a\\b"),
    *("2/a\0b", "2/a\nb", "2/\x1b[2J", "2/\x85", "2/C:", "2/c:/windows", "2/" + "x" * 256, "2/" + "é" * 128),
    "2/" + "/".join(["x" * 200] * 6),
    "2/" + "/".join("x" * 40),
]
NO_OWNERS = ["words", "x/a", "02/a", "-1/a", "+2/a", " 2/a", "2 /a", "\u0663/a", "2", "1e3/a", "9999999999/a"]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_of_an_asset_that_is_no_path(path: Path, parts: Parts, name: str) -> None:
    parts.header["assets"][0][0] = name
    path.write_bytes(parts.file())
    for read in (read_content, inspect, opened):
        with pytest.raises(CorruptFileError, match="asset") as caught:
            read(path)
        assert str(caught.value).isprintable()


@pytest.mark.parametrize("name", NO_OWNERS)
def test_a_name_of_an_asset_without_the_number_of_a_layer(path: Path, parts: Parts, name: str) -> None:
    parts.header["assets"][0][0] = name
    refused(path, parts.file(), "does not begin with the number of a layer")


@pytest.mark.parametrize(("first", "second"), [("2/a", "2/a/b"), ("2/a/b", "2/a"), ("2/a/b/c", "2/a")])
def test_an_asset_that_is_the_folder_of_another(path: Path, parts: Parts, first: str, second: str) -> None:
    parts.header["assets"][0][0], parts.header["assets"][1][0] = first, second
    refused(path, parts.file(), "'2/a' is the folder of another")


@pytest.mark.parametrize("name", ["0/a\x1b", "0/" + "x" * 300, "0//a", "0/a\\b"])
def test_a_writer_refuses_such_names_too(name: str) -> None:
    with pytest.raises(FileError, match="it cannot be stored"):
        pack(rebuilt(CONTENT, assets={name: b""}))


def test_a_writer_refuses_half_a_character() -> None:
    with pytest.raises(FileError, match="half a character"):
        pack(rebuilt(CONTENT, config={"words": ["\ud800"]}))


def test_names_of_assets_that_are_good(path: Path, parts: Parts) -> None:
    for name in ("0/vocabulary.txt", "12/a b/ü.txt", "2/.hidden", "2/...", "2/" + "é" * 127, "2/aa:b"):
        parts.header["assets"][0][0] = name
        path.write_bytes(parts.file())
        opened(path)


# ---- headers that are slow to check, or large to show, in proportion to more than their length


def test_many_keys_and_one_twice(path: Path, parts: Parts) -> None:
    keys = ",".join(f'"{index}":0' for index in range(300_000))
    parts.text = f'{{{keys},"1":0}}'.encode()
    started = time.process_time()
    refused(path, parts.file(), "names '1' twice")
    assert time.process_time() - started < 10


def test_one_long_name_among_many(path: Path, parts: Parts) -> None:
    """A table is as wide as its widest cell."""
    entry = {**parts.header["parameters"][KERNEL], "streams": [["codes", "bytes", "float32", [0], 0]], "shape": [0]}
    many = [{**entry, "path": str(index)} for index in range(2_000)]
    parts.header |= {"parameters": [{**entry, "path": "x" * 2_000_000}, *many], "assets": [], "name": "n" * 10**6}
    parts.parameters, parts.assets = [[b""]] * 2_001, []
    parts.together = [1] * 2_001
    path.write_bytes(parts.file())
    assert len(str(inspect(path))) < 2_000_000


# ---- files that were written before


@pytest.mark.parametrize("file", [make.FILE, make_v2.FILE])
def test_golden_files_are_read_though_they_are_no_models(file: Path) -> None:
    """Their parameters are more than their variables."""
    read_content(file)
    with pytest.raises(CorruptFileError, match="parameters for 1 variables"):
        opened(file)
