from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

import bitwidth as bw
from bitwidth.encodings import IntegerLevels, PrefixLevels
from bitwidth.errors import EncodingError
from bitwidth.fitting import BitPlanes

DTYPES = ("int8", "uint8", "int16", "int32", "uint32", "int64", "uint64")
shapes = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5)
integers = st.sampled_from(DTYPES).flatmap(lambda dtype: hnp.arrays(dtype, shapes))


@settings(max_examples=150, deadline=None)
@given(integers, st.data())
def test_integers_come_back_and_their_first_planes_truncate_them(array: NDArray[Any], data: st.DataObject) -> None:
    planes = bw.bitplanes(array)
    back = planes.values()
    assert back.dtype == array.dtype
    assert back.shape == planes.sign.shape == array.shape
    assert (back == array).all()
    assert all(plane.dtype == np.bool_ and plane.shape == array.shape for plane in planes)
    bits = data.draw(st.integers(2, planes.bits))
    dropped = planes.bits - bits
    expected = [(abs(x) >> dropped << dropped) * (-1 if x < 0 else 1) for x in array.reshape(-1).tolist()]
    assert planes.values(bits).reshape(-1).tolist() == expected


@settings(max_examples=60, deadline=None)
@given(hnp.arrays(np.float32, hnp.array_shapes(max_side=6), elements=st.floats(-8, 8, width=32)), st.integers(2, 16))
def test_floats_are_quantized_first(array: NDArray[np.float32], bits: int) -> None:
    planes = bw.bitplanes(array, bits=bits)
    assert planes.bits == bits
    assert planes.grid is not None
    assert planes.grid.levels == IntegerLevels.symmetric(bits)
    assert planes.values().tobytes() == (planes.grid.project(array) + np.float32(0)).tobytes()
    for first in range(2, bits):
        short = planes.values(first)
        assert (short[planes.values() == 0] == 0).all()
        assert (np.sign(short) * np.sign(planes.values()) >= 0).all()


def test_one_scale_for_each_output_channel() -> None:
    kernel = np.random.default_rng(0).normal(size=(3, 3, 4, 5)).astype(np.float32)
    assert [bw.bitplanes(x).grid.scale.shape for x in (kernel, kernel[0, 0, 0])] == [(1, 1, 1, 5), (1,)]  # type: ignore[union-attr]
    assert bw.bitplanes(kernel.astype(np.float64)).values().dtype == np.float64


def test_the_sum_of_the_planes() -> None:
    array = np.array([[5, -3], [0, 7]])
    planes = bw.bitplanes(array, bits=5)
    assert len(planes) == 4
    total = sum(plane.astype(int) * 2 ** (3 - index) for index, plane in enumerate(planes))
    assert (np.where(planes.sign, -total, total) == array).all()
    assert planes[0].any() == np.False_
    assert [plane.tolist() for plane in planes[1:]] == [plane.tolist() for plane in planes][1:]


def test_planes_cannot_be_changed() -> None:
    planes = bw.bitplanes([1, 2])
    with pytest.raises(ValueError, match="read-only"):
        planes[0][0] = True


BAD: list[tuple[Any, Any, str]] = [
    ([5], 3, "need 4 bits"),
    ([5], 1, "2 to 65"),
    ([5], 66, "2 to 65"),
    ([5], True, "integer"),
    ([5], 4.0, "integer"),
    ([0.5], 1, "2 to 16"),
    ([0.5], 17, "2 to 16"),
    ([0.5], "8", "integer"),
    ([np.nan], None, "finite"),
    ([np.inf], None, "finite"),
    ([1e300], None, "finite"),
    ([True], None, "integers or floats"),
    (["a"], None, "integers or floats"),
    ([1j], None, "integers or floats"),
]


@pytest.mark.parametrize(("tensor", "bits", "words"), BAD)
def test_bad_input_is_refused(tensor: Any, bits: Any, words: str) -> None:
    with pytest.raises(EncodingError, match=words):
        bw.bitplanes(tensor, bits=bits)


@pytest.mark.parametrize("bits", [0, 1, 5, 2.0, True])
def test_bad_numbers_of_bits_are_refused(bits: Any) -> None:
    with pytest.raises(EncodingError, match="2 to 4"):
        bw.bitplanes([5, 1]).values(bits)


def test_planes_that_make_no_sense_are_refused() -> None:
    plane, dtype = np.ones((1, 2), bool), np.dtype(int)
    for magnitude, sign in ((plane.astype(int), plane[0]), (plane, plane), (plane[:0], plane[0]), (~plane, plane[0])):
        with pytest.raises(EncodingError):
            BitPlanes(magnitude, sign, dtype)


def test_a_prefix_of_floats_is_that_of_the_encoding() -> None:
    planes = bw.bitplanes(np.linspace(-1, 1, 50, dtype=np.float32))
    assert planes.grid is not None
    levels = PrefixLevels(127, 4)
    codes = levels.truncated(planes.grid.encode(planes.values()))
    assert planes.values(bits=4).tobytes() == (levels.at(codes) * planes.grid.scale).tobytes()
