from __future__ import annotations

import contextlib
import doctest
import importlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from bitwidth.coder import decode_array, encode_array
from bitwidth.errors import CorruptFileError, EncodingError

TYPES = [
    "bool",
    "int8",
    "uint8",
    "int16",
    "uint16",
    "int32",
    "uint32",
    "int64",
    "uint64",
    "float16",
    "float32",
    "float64",
]


def round_trip(values: NDArray[Any]) -> int:
    data = encode_array(values)
    assert data == encode_array(values)
    back = decode_array(data, values.dtype, values.shape)
    assert back.dtype == values.dtype
    assert back.shape == values.shape
    assert back.tobytes() == values.tobytes()
    assert len(data) <= values.nbytes + 1
    return len(data)


@settings(max_examples=120, deadline=None)
@given(st.data())
def test_round_trip(data: st.DataObject) -> None:
    dtype = np.dtype(data.draw(st.sampled_from(TYPES)))
    shape = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=9)
    round_trip(data.draw(hnp.arrays(dtype, shape)))


@pytest.mark.parametrize("dtype", [name for name in TYPES if name != "bool"])
@pytest.mark.parametrize("count", [1, 10, 3000])
def test_every_bit_pattern(dtype: str, count: int) -> None:
    octets = np.random.default_rng(0).bytes(count * np.dtype(dtype).itemsize)
    round_trip(np.frombuffer(octets, dtype=dtype))
    round_trip(np.zeros(count, dtype=dtype))


def test_special_floats() -> None:
    for dtype in (np.float16, np.float32, np.float64):
        round_trip(np.array([np.nan, -0.0, 0.0, np.inf, -np.inf, np.finfo(dtype).tiny, np.finfo(dtype).max], dtype))


def test_byte_order_and_strides() -> None:
    values = np.arange(24, dtype=">i4").reshape(4, 6)
    round_trip(values)
    turned = values.T[::2]
    assert (decode_array(encode_array(turned), turned.dtype, turned.shape) == turned).all()


def test_floats_of_a_layer_shrink() -> None:
    rng = np.random.default_rng(1)
    weights = (rng.standard_normal(20_000) * 0.05).astype(np.float32)
    assert round_trip(weights) < weights.nbytes * 0.84
    assert round_trip(weights.astype(np.float16)) < weights.nbytes / 2 * 0.86
    # What was rounded to bfloat16 has empty low bytes.
    rounded = (weights.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)
    assert round_trip(rounded) <= round_trip((rounded.view(np.uint32) >> np.uint32(16)).astype(np.uint16)) + 12
    assert round_trip(weights[:10].astype(np.float16)) <= 23


@pytest.mark.parametrize("bad", [np.array([1j]), np.array(["a"]), np.array([None])])
def test_other_types_are_refused(bad: NDArray[Any]) -> None:
    with pytest.raises(EncodingError):
        encode_array(bad)


@pytest.mark.parametrize("dtype", ["bool", "float16", "float32"])
def test_corruption(dtype: str) -> None:
    values = np.rint(np.random.default_rng(2).standard_normal(100) * 0.6).astype(dtype)
    data = encode_array(values)
    bad = [data[:end] for end in range(len(data))] + [data + b"\0"]
    bad += [data[:i] + bytes([data[i] ^ flip]) + data[i + 1 :] for i in range(len(data)) for flip in (1, 8, 128, 255)]
    for stream in bad:
        with contextlib.suppress(CorruptFileError):
            assert decode_array(stream, dtype, (100,)).shape == (100,)


@settings(max_examples=120, deadline=None)
@given(st.binary(max_size=40), st.sampled_from(["bool", "uint16", "float64"]), st.sampled_from([(0,), (1,), (5, 7)]))
def test_any_bytes_decode_or_are_corrupt(data: bytes, dtype: str, shape: tuple[int, ...]) -> None:
    with contextlib.suppress(CorruptFileError):
        assert decode_array(data, dtype, shape).shape == shape


@pytest.mark.parametrize(
    "name",
    ["", ".arrays", ".bitio", ".contexts", ".integers", ".lanes", ".masks", ".rans", ".scalar", ".shapes", ".tables"],
)
def test_examples(name: str) -> None:
    module = importlib.import_module("bitwidth.coder" + name)
    outcome = doctest.testmod(module)
    assert outcome.attempted > 0
    assert outcome.failed == 0
