from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from bitwidth.coder import decode_planes, encode_integers
from bitwidth.errors import CorruptFileError, EncodingError
from tests.coder.released import encode_planes

RNG = np.random.default_rng(3)


def truncated(codes: NDArray[Any], dropped: int) -> NDArray[Any]:
    return np.asarray(np.sign(codes) * (np.abs(codes.astype(np.int64)) >> dropped))


def check_every_prefix(codes: NDArray[Any], planes: int) -> list[bytes]:
    parts = encode_planes(codes, planes)
    assert len(parts) == planes
    for count in range(1, planes + 1):
        back = decode_planes(parts[:count], codes.size)
        assert back.dtype == np.int32
        assert back.tolist() == truncated(codes.reshape(-1), planes - count).tolist()
    return parts


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 31), st.data())
def test_every_prefix_of_any_integers(planes: int, data: st.DataObject) -> None:
    top = 2**planes - 1
    codes = data.draw(hnp.arrays(np.int64, st.integers(0, 40), elements=st.integers(-top, top)))
    check_every_prefix(codes, planes)


@pytest.mark.parametrize("planes", [1, 2, 7, 8, 9, 15, 16, 17, 31])
@pytest.mark.parametrize("shape", ["narrow", "wide", "non-negative", "zeros", "constant"])
def test_every_prefix_of_many_integers(planes: int, shape: str) -> None:
    top = 2**planes - 1
    narrow = np.rint(RNG.normal(0, max(1, top / 40), 3000))
    made = {
        "narrow": narrow,
        "wide": RNG.integers(-top, top + 1, 3000),
        "non-negative": np.abs(narrow),
        "zeros": np.zeros(3000),
        "constant": np.full(3000, -top),
    }
    check_every_prefix(np.clip(made[shape], -top, top).astype(np.int64), planes)


@pytest.mark.parametrize(("scale", "planes"), [(36, 7), (2.6, 3), (2, 20)])
def test_all_planes_cost_what_whole_codes_cost(scale: float, planes: int) -> None:
    """Twenty planes of small integers, too: the empty ones are a few bytes."""
    top = 2**planes - 1
    codes = np.clip(np.rint(RNG.normal(0, scale, 100_000)), -top, top).astype(np.int32)
    parts = check_every_prefix(codes, planes)
    assert sum(map(len, parts)) <= 1.005 * len(encode_integers(codes)) + 8 * planes


def test_signs_and_low_bits_that_are_not_even_are_coded() -> None:
    codes = 4 * np.rint(RNG.exponential(3, 50_000)).clip(0, 30).astype(np.int32)
    assert sum(map(len, encode_planes(codes, 7))) <= 1.01 * len(encode_integers(codes))


@pytest.mark.parametrize(
    ("codes", "planes"), [([8], 3), ([-8], 3), ([1], 0), ([1], 32), ([1.0], 3), ([True], 1), ([-(2**31)], 31)]
)
def test_what_the_planes_do_not_hold_is_refused(codes: list[Any], planes: int) -> None:
    with pytest.raises(EncodingError, match="planes"):
        encode_planes(np.array(codes), planes)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_altered_planes_are_other_integers_or_are_refused(data: st.DataObject) -> None:
    codes = np.rint(np.random.default_rng(5).normal(0, 9, 400)).astype(np.int32).clip(-31, 31)
    parts = encode_planes(codes, 5)
    which = data.draw(st.integers(0, 4))
    part = bytearray(parts[which])
    part[data.draw(st.integers(0, len(part) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.sampled_from([len(part), len(part), len(part) - 1, 0]))
    parts[which] = bytes(part[:cut])
    try:
        back = decode_planes(parts, codes.size)
    except CorruptFileError:
        return
    assert back.shape == codes.shape
    assert np.abs(back).max() < 32


@pytest.mark.parametrize("parts", [[], [b""], [b"\x08\x00\x00"], [b"\x00"], [b"\x00\x03\x00"], [b"\x00\x01\x00\x00"]])
def test_what_are_no_planes_is_refused(parts: list[bytes]) -> None:
    with pytest.raises(CorruptFileError):
        decode_planes(parts, 1)
