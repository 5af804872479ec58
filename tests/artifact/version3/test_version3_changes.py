"""Arrays as numbers that differences are taken of, and parameters that are the same as those of a base."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitwidth.artifact import StoredParameter
from bitwidth.artifact.format.header import Stream
from bitwidth.artifact.version3.changes import changed, from_numbers, is_same, numbers, same_bits, side_of
from bitwidth.encodings import Dense, Masked, Quantized, uniform_levels
from bitwidth.errors import EncodingError
from bitwidth.typing import Array

DTYPES = ["float16", "uint16", "int8", "int16", "int32", "float32", "uint32"]


def values_of(dtype: str, bits: list[int]) -> Array:
    """An array of a dtype from bit patterns."""
    size = np.dtype(dtype).itemsize
    return np.array([each % (1 << 8 * size) for each in bits], f"u{size}").view(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@given(st.lists(st.integers(0, (1 << 32) - 1), max_size=20))
def test_every_bit_pattern_comes_back(dtype: str, bits: list[int]) -> None:
    array = values_of(dtype, bits)
    found = numbers(array)
    assert found is not None
    assert found.dtype == np.int64
    assert same_bits(from_numbers(found, array.dtype), array)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_numbers_are_in_the_order_of_floats(dtype: str) -> None:
    info = np.finfo(np.dtype(dtype).type)
    tiny = info.smallest_subnormal
    floats = np.array(
        [-np.inf, info.min, -1, -info.tiny, -tiny, -0.0, 0.0, tiny, info.tiny, 1, info.max, np.inf], dtype
    )
    found = numbers(floats)
    assert found is not None
    assert (np.diff(found) > 0).all()
    assert np.diff(found)[4:7].tolist() == [1, 1, 1]  # -0.0, 0.0 and the least subnormals are next to each other
    assert same_bits(from_numbers(found, floats.dtype), floats)


def test_what_has_no_numbers() -> None:
    for dtype in ("float64", "int64", "uint64", "uint8", "bool"):
        assert numbers(np.zeros(3, dtype)) is None


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_change_out_of_range_is_refused(dtype: str) -> None:
    half = 1 << 8 * np.dtype(dtype).itemsize - 1
    ends = np.array([-half, half - 1])
    assert numbers(from_numbers(ends, np.dtype(dtype))) is not None
    stream = Stream("a", "change", dtype, (1,))
    for end, away in ((-half, -1), (half - 1, 1)):
        with pytest.raises(EncodingError):
            from_numbers(np.array([0, end + away]), np.dtype(dtype))
        with pytest.raises(EncodingError):
            changed(stream, np.array([away], np.int32), from_numbers(np.array([end]), np.dtype(dtype)))


def test_changes_of_arrays() -> None:
    stream = Stream("a", "change", "float16", (2,))
    found = changed(stream, np.array([1, -1], np.int32), np.array([0.0, 0.0], np.float16))
    assert found.view(np.uint16).tolist() == [1, 0x8000]
    mask = np.array([True, False])
    assert changed(stream, np.array([True, True]), mask).tolist() == [False, True]
    for difference, base in ((np.zeros(3, np.int32), mask), (mask, found), (np.zeros(3, np.int32), found)):
        with pytest.raises(EncodingError):
            changed(stream, difference, base)
    assert side_of(stream, {"a": found}) is found
    for known in ({}, {"a": found[:1]}):
        with pytest.raises(EncodingError):
            side_of(stream, known)


def test_is_same() -> None:
    values, keep = np.array([[0.0, 1.0, 2.0]], np.float32), np.array([[True, True, False]])
    grid = Quantized(uniform_levels(4), np.ones((1, 1), np.float32), (1, 3))
    one = StoredParameter("a", "kernel", "float32", True, grid, values, {"x": 1}, {"y": values})
    assert is_same(one, replace(one, values=values.copy(), arrays={"y": values.copy()}))
    for other in (
        replace(one, path="b"),
        replace(one, role="bias"),
        replace(one, trainable=False),
        replace(one, values=values * np.float32(-1)),  # -0.0 too
        replace(one, values=np.array([[-0.0, 1.0, 2.0]], np.float32)),
        replace(one, values=values[0]),
        replace(one, encoding=Dense()),
        replace(one, encoding=Masked(keep, grid)),
        replace(one, encoding=replace(grid, scale=np.full((1, 1), 2, np.float32))),
        replace(one, more={}),
        replace(one, arrays={}),
        replace(one, arrays={"y": values.astype(np.float64)}),
    ):
        assert not is_same(one, other)
        assert not is_same(other, one)
