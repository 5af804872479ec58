from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from bitwidth.artifact.earlier import parse
from bitwidth.artifact.earlier.streams import unpack_parameter
from bitwidth.artifact.format.header import Entry
from bitwidth.coder import encode_array, encode_integers, encode_mask
from bitwidth.encodings import (
    Dense,
    Encoding,
    IntegerLevels,
    Masked,
    PrefixLevels,
    Quantized,
    TableLevels,
    ordered,
    prefix,
    spread,
    uniform_levels,
)
from bitwidth.errors import CorruptFileError, EncodingError
from tests.artifact.earlier import pack_parameter
from tests.golden.make import encodings

SHAPE = (6, 4)
GRID = Quantized(uniform_levels(4), np.full((2, 4), 0.5, np.float32), (4, 1))


def round_trip(encoding: Encoding, values: NDArray[Any]) -> tuple[Encoding, NDArray[Any]]:
    config, packed = pack_parameter(encoding, values, str(values.dtype))
    config, description = json.loads(json.dumps([config, packed.description]))
    assert [item[4] for item in description] == [len(stream) for stream in packed.streams]
    return unpack(config, description, packed.streams, values.shape, str(values.dtype))


def unpack(
    config: Any, description: Any, streams: list[bytes], shape: tuple[int, ...], dtype: str = "float32"
) -> tuple[Encoding, NDArray[Any]]:
    """What a reader makes of one parameter, the check of its header included."""
    return unpack_parameter(entry_of(config, description, shape, dtype), streams, "m.bw: a/kernel")


def entry_of(config: Any, description: Any, shape: tuple[int, ...], dtype: str = "float32") -> Entry:
    item = {"path": "a/kernel", "role": "kernel", "shape": list(shape), "dtype": dtype}
    header: dict[str, Any] = {"name": "m", "framework": "keras", "architecture": None, "reason": "", "inputs": None}
    header |= {"variables": [], "parameters": [{**item, "encoding": config, "streams": description}], "assets": []}
    return parse(json.dumps(header).encode(), "m.bw").entries[0]


def same_bits(left: NDArray[Any], right: NDArray[Any]) -> bool:
    return left.dtype == right.dtype and left.shape == right.shape and left.tobytes() == right.tobytes()


@pytest.mark.parametrize("path", list(encodings()))
def test_round_trip_of_every_encoding(path: str) -> None:
    encoding, values = encodings()[path]
    again, back = round_trip(encoding, values)
    assert same_bits(back, values)
    before, after = encoding.state(), again.state()
    assert before.kind == after.kind
    assert dict(before.config) == dict(after.config)
    assert {name: array.tobytes() for name, array in before.arrays.items()} == {
        name: array.tobytes() for name, array in after.arrays.items()
    }


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([Dense(), Dense("float16"), Dense("bfloat16"), GRID]),
    hnp.arrays(np.float32, SHAPE, elements=st.floats(-100, 100, width=32)),
    hnp.arrays(np.bool_, SHAPE),
)
def test_round_trip_under_any_mask(base: Encoding, x: NDArray[np.float32], keep: NDArray[np.bool_]) -> None:
    encoding = Masked(keep, base)
    values = encoding.project(x)
    again, back = round_trip(encoding, values)
    assert same_bits(back, values)
    assert again.mask is not None
    assert np.array_equal(again.mask, keep)


@settings(max_examples=60, deadline=None)
@given(hnp.arrays(np.float32, st.integers(0, 9), elements=st.floats(width=32)))
def test_dense_float32_keeps_every_bit(x: NDArray[np.float32]) -> None:
    assert same_bits(round_trip(Dense(), x)[1], x)


@pytest.mark.parametrize("dtype", ["int8", "uint16", "int64", "uint64", "float16", "float64", "bool"])
def test_every_bit_pattern_of_other_dtypes(dtype: str) -> None:
    octets = np.random.default_rng(0).bytes(64)
    values = np.frombuffer(octets, dtype if dtype != "bool" else "uint8")
    values = values % 2 == 1 if dtype == "bool" else values
    assert same_bits(round_trip(Dense(), values.reshape(2, -1))[1], values.reshape(2, -1))


def test_bfloat16_of_ml_dtypes() -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    values = np.array([1.0, -0.0, 3.140625, 1e30, -1e-30], ml_dtypes.bfloat16)
    back = round_trip(Dense(), values)[1]
    assert back.astype(np.float32).tobytes() == values.astype(np.float32).tobytes()


def test_only_what_the_mask_keeps_is_stored() -> None:
    x = np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32)
    keep = np.zeros(x.shape, bool)
    keep[:4] = True
    encoding = Masked(keep)
    _, packed = pack_parameter(encoding, encoding.project(x), "float32")
    codes = next(item for item in packed.description if item[0] == "codes")
    assert codes[3] == [4 * 64]
    assert sum(map(len, packed.streams)) < 4 * 64 * 4 + 64


def test_scales_take_two_bytes_where_that_is_exact() -> None:
    config, packed = pack_parameter(GRID, GRID.project(np.ones(SHAPE, np.float32)), "float32")
    streams = {item[0]: item for item in packed.description}
    assert streams["scale"][2] == "float16"
    assert streams["codes"][1:3] == ["integers", "int32"]
    assert config == {"kind": "quantized", "low": -7, "high": 7, "block": [4, 1]}
    third = Quantized(uniform_levels(4), GRID.scale / np.float32(3), (4, 1))
    assert pack_parameter(third, np.zeros(SHAPE, np.float32), "float32")[1].description[0][2] == "float32"


def test_few_bits_are_few_bytes() -> None:
    """Entropy coding beats packing on normal weights: less than 4 bits a code with all side data."""
    x = np.random.default_rng(0).normal(size=(256, 64)).astype(np.float32)
    grid = Quantized(uniform_levels(4), np.full((1, 64), 0.5, np.float32), (256, 1))
    _, packed = pack_parameter(grid, grid.project(x), "float32")
    assert 8 * sum(map(len, packed.streams)) < 3.5 * x.size


@pytest.mark.parametrize("values", [np.array(["a", "b"]), np.array([b"a"]), np.array(["a", 1], object)])
def test_text_cannot_be_stored(values: NDArray[Any]) -> None:
    with pytest.raises(EncodingError):
        pack_parameter(Dense(), values, str(values.dtype))


CODES = np.array([[1, -2], [0, 7]], np.int32)
SCALE = encode_array(np.ones((1, 1), np.float16))
CONFIG: dict[str, Any] = {"kind": "quantized", "low": -7, "high": 7, "block": [2, 2]}
DENSE: dict[str, Any] = {"kind": "dense", "format": None, "width": 32}
KEEP = np.array([[True, False], [True, True]])
MASKED = {"kind": "masked", "parts": {"base": DENSE}}
FLOATS = np.arange(4, dtype=np.float32)

Stream = tuple[str, str, str, list[int], bytes]
SCALES: Stream = ("scale", "bytes", "float16", [1, 1], SCALE)
GOOD: Stream = ("codes", "integers", "int32", [2, 2], encode_integers(CODES))
MASK: Stream = ("keep", "mask", "bool", [2, 2], encode_mask(KEEP))
KEPT: Stream = ("codes", "bytes", "float32", [3], encode_array(FLOATS[:3]))
ALL: Stream = ("codes", "bytes", "float32", [2, 2], encode_array(FLOATS))


def scales(*values: float, shape: tuple[int, ...] = (1, 1)) -> Stream:
    return "scale", "bytes", "float16", list(shape), encode_array(np.array(values, np.float16))


def codes(*values: int, shape: tuple[int, ...] = (2, 2)) -> Stream:
    return "codes", "integers", "int32", list(shape), encode_integers(np.array(values, np.int32))


def table(*values: float) -> Stream:
    return "levels", "bytes", "float16", [len(values)], encode_array(np.array(values, np.float16))


TABLE = table(-1, 0, 2)

BAD: dict[str, tuple[dict[str, Any], list[Stream]]] = {
    "no codes": (CONFIG, [SCALES]),
    "no scales": (CONFIG, [GOOD]),
    "codes twice": (CONFIG, [SCALES, GOOD, GOOD]),
    "scales twice": (CONFIG, [SCALES, SCALES, GOOD]),
    "codes of another shape": (CONFIG, [SCALES, codes(1, -2, 0, shape=(3,))]),
    "codes beyond the range": (CONFIG, [SCALES, codes(1, -200, 0, 700)]),
    "codes beyond the table": (CONFIG, [SCALES, TABLE, codes(0, 0, 1, 2)]),
    "codes before the table": (CONFIG, [SCALES, TABLE, codes(-2, 0, 1, 1)]),
    "codes that are floats": (CONFIG, [SCALES, ALL]),
    "scales of another shape": (CONFIG, [scales(1, 1, shape=(1, 2)), GOOD]),
    "scales that are a mask": (CONFIG, [("scale", "mask", "bool", [1, 1], encode_mask(np.ones((1, 1), bool))), GOOD]),
    "a scale below zero": (CONFIG, [scales(-1), GOOD]),
    "an unknown coder": (CONFIG, [SCALES, ("codes", "huffman", "int32", [2, 2], b"")]),
    "an unknown dtype": (CONFIG, [SCALES, ("codes", "bytes", "float8", [2, 2], b"")]),
    "complex numbers": (DENSE, [("codes", "bytes", "complex64", [2, 2], b"\0" * 33)]),
    "bytes left over": (CONFIG, [SCALES, (*GOOD[:4], GOOD[4] + b"\0")]),
    "an empty stream": (CONFIG, [SCALES, (*GOOD[:4], b"")]),
    "no kind": ({"format": None, "width": 32}, [ALL]),
    "a kind that is a list": ({"kind": ["dense"]}, [ALL]),
    "no base": ({"kind": "masked"}, [MASK, KEPT]),
    "parts that are a list": ({"kind": "masked", "parts": [DENSE]}, [MASK, KEPT]),
    "a part that is a number": ({"kind": "masked", "parts": {"base": 5}}, [MASK, KEPT]),
    "a mask over a mask": ({"kind": "masked", "parts": {"base": MASKED}}, [MASK, ("base.keep", *MASK[1:]), KEPT]),
    "no mask": (MASKED, [KEPT]),
    "a mask of numbers": (MASKED, [("keep", "bytes", "uint8", [2, 2], encode_array(KEEP.astype(np.uint8) * 2)), KEPT]),
    "a mask of another shape": (MASKED, [("keep", "mask", "bool", [4], MASK[4]), KEPT]),
    "more codes than are kept": (MASKED, [MASK, ALL]),
    "one code for all that are kept": (MASKED, [MASK, ("codes", "bytes", "float32", [1], encode_array(FLOATS[:1]))]),
    "an infinite block": ({**CONFIG, "block": [float("inf"), 2]}, [SCALES, GOOD]),
    "an infinite width": ({**DENSE, "width": float("inf")}, [ALL]),
    "a width that is no number": ({**DENSE, "width": "wide"}, [ALL]),
    "an unknown format": ({**DENSE, "format": "float8"}, [ALL]),
    "a level that is infinite": (CONFIG, [SCALES, table(0, np.inf), GOOD]),
    "a bound that is a fraction": ({**CONFIG, "low": -7.5}, [SCALES, GOOD]),
}


@pytest.mark.parametrize("name", list(BAD))
def test_streams_that_make_no_parameter_are_refused(name: str) -> None:
    config, streams = BAD[name]
    description = [[*stream[:4], len(stream[4])] for stream in streams]
    with pytest.raises(CorruptFileError):
        unpack(config, description, [stream[4] for stream in streams], (2, 2))


def test_the_streams_above_are_good_but_for_their_one_fault() -> None:
    for config, streams in ((CONFIG, [SCALES, GOOD]), (DENSE, [ALL]), (MASKED, [MASK, KEPT])):
        description = [[*stream[:4], len(stream[4])] for stream in streams]
        unpack(config, description, [stream[4] for stream in streams], (2, 2))


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(["plain/four_bits", "masked/powers", "plain/bfloat16", "masked/asymmetric"]), st.data())
def test_altered_streams_make_another_parameter_or_are_refused(path: str, data: st.DataObject) -> None:
    """Behind a checksum that fits: never anything but CorruptFileError, and never values of another shape."""
    encoding, values = encodings()[path]
    config, packed = pack_parameter(encoding, values, "float32")
    streams = list(packed.streams)
    which = data.draw(st.integers(0, len(streams) - 1))
    stream = bytearray(streams[which])
    for _ in range(data.draw(st.integers(1, 3))):
        stream[data.draw(st.integers(0, len(stream) - 1))] = data.draw(st.integers(0, 255))
    streams[which] = bytes(stream)
    try:
        with np.errstate(all="ignore"):
            _, back = unpack(config, packed.description, streams, values.shape)
    except CorruptFileError:
        return
    assert back.shape == values.shape
    assert back.dtype == np.float32


def test_integers_are_the_codes_of_a_table_too() -> None:
    table = Quantized(TableLevels((-2.0, 0.0, 1.0)), np.ones((1, 1), np.float32), (2, 2))
    values = table.decode(np.array([[-1, 0], [1, 1]]))
    again, back = round_trip(table, values)
    assert same_bits(back, values)
    assert isinstance(again, Quantized)
    assert again.levels == table.levels
    free = Quantized(IntegerLevels(), np.ones((1, 1), np.float32), (2, 2))
    assert round_trip(free, free.decode(np.array([[2**20, -(2**20)], [0, 1]])))[1][0].tolist() == [2**20, -(2**20)]


# ---- bit planes

grids = st.one_of(
    st.integers(2, 10).map(uniform_levels),
    st.builds(IntegerLevels, st.integers(-40, 0), st.integers(1, 300)),
    st.just(IntegerLevels()),
    st.builds(PrefixLevels, st.integers(64, 200), st.integers(0, 4)),
)


@settings(max_examples=150, deadline=None)
@given(grids, st.booleans(), st.booleans(), st.integers(0, 2**32 - 1), st.integers(2, 12))
def test_every_prefix_of_every_grid(levels: Any, with_mask: bool, with_zero: bool, seed: int, bits: int) -> None:
    """Planes or whole codes, the first bits are those of the encoding's prefix."""
    rng = np.random.default_rng(seed)
    low, high = levels.bounds
    zero = rng.integers(max(low, -100), min(high, 100), (2, 4), np.int32, endpoint=True)
    zero_point = zero if with_zero and isinstance(levels, IntegerLevels) else None
    held: Encoding = Quantized(levels, rng.uniform(0.1, 1, (2, 4)).astype(np.float32), (4, 1), zero_point)
    held = Masked(rng.random(SHAPE) < 0.6, held) if with_mask else held
    values = held.project(rng.normal(0, 30, SHAPE).astype(np.float32))
    for planes in (True, False, None):
        config, packed = pack_parameter(held, values, "float32", planes)
        assert same_bits(unpack(config, packed.description, packed.streams, SHAPE)[1], values)
        coded = len(packed.description[-1][4]) if packed.description[-1][1] == "planes" else None
        entry = entry_of(json.loads(json.dumps(config)), packed.description, SHAPE)
        read = sum(piece.bits <= bits for piece in entry.pieces)
        streams = packed.streams[: len(packed.first) + read - 1]
        short, back = unpack_parameter(entry, streams, "m.bw: a/kernel", bits)
        grid = ordered(held)
        assert grid is not None
        codes = np.rint(held.unmasked.decode(held.unmasked.encode(values)) / scale_of(grid))
        width = coded or max(1, int(np.abs(codes * (held.mask if with_mask else 1)).max()).bit_length())
        assert same_bits(back, prefix(held, bits, width).project(values))
        assert short.describe() == prefix(held, bits, width).describe()


def scale_of(grid: Quantized) -> NDArray[np.float32]:
    return spread(grid.scale, grid.block, SHAPE)


@pytest.mark.parametrize("bits", [3, 4, 8, None])
@pytest.mark.parametrize("count", [1, 60, 5_000, 50_000])
@pytest.mark.parametrize("keep", [1.0, 0.3])
def test_planes_cost_a_percent_at_most(bits: int | None, count: int, keep: float) -> None:
    rng = np.random.default_rng(0)
    levels, step = (IntegerLevels(), 0.5) if bits is None else (uniform_levels(bits), 3 / 2 ** (bits - 1))
    held: Encoding = Quantized(levels, np.full(1, step, np.float32), (count,))
    held = held if keep == 1 else Masked(rng.random(count) < keep, held)
    values = held.project(rng.normal(size=count).astype(np.float32))
    chosen, whole = (pack_parameter(held, values, "float32", planes)[1] for planes in (None, False))
    cost = sum(map(len, chosen.streams)) + 7 * len(chosen.later)
    assert cost <= 1.01 * sum(map(len, whole.streams))
    assert bool(chosen.later) or count * keep < 50_000
