from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from bitwidth.coder import decode_integers, encode_integers, entropy_bits
from bitwidth.errors import CorruptFileError, EncodingError

INT64 = np.iinfo(np.int64)


def round_trip(codes: NDArray[Any], context: NDArray[Any] | None = None) -> int:
    data = encode_integers(codes, context)
    assert data == encode_integers(codes, context)
    back = decode_integers(data, codes.size, context)
    assert back.dtype in (np.int32, np.int64)
    assert back.shape == (codes.size,)
    assert (back == codes.reshape(-1)).all()
    return len(data)


@settings(max_examples=120, deadline=None)
@given(st.data())
def test_round_trip(data: st.DataObject) -> None:
    low, high = data.draw(
        st.sampled_from(
            [(0, 0), (-1, 1), (-8, 7), (-128, 127), (-(2**31), 2**31 - 1), (INT64.min, INT64.max), (2**40, 2**41)]
        )
    )
    codes = np.array(data.draw(st.lists(st.integers(low, high), max_size=100)), dtype=np.int64)
    context = None
    if data.draw(st.booleans()):
        places = st.lists(st.integers(0, 4), min_size=codes.size, max_size=codes.size)
        context = np.array(data.draw(places), dtype=np.uint8)
    size = round_trip(codes, context)
    if codes.size:
        width = (int(codes.max()) - int(codes.min())).bit_length()
        assert size <= codes.size * width / 8 + 13


@pytest.mark.parametrize("dtype", [np.bool_, np.int8, np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64])
def test_every_integer_type(dtype: type[Any]) -> None:
    rng = np.random.default_rng(0)
    values = rng.integers(0, 2, 40).astype(np.bool_) if dtype is np.bool_ else None
    if values is None:
        info = np.iinfo(dtype)
        values = rng.integers(info.min, info.max, 40, dtype=dtype, endpoint=True)
        values[:2] = info.min, info.max
    round_trip(values)
    round_trip(values.reshape(2, 20))
    round_trip(values[:0])
    round_trip(values[:1])
    round_trip(np.full(50, values[1]))


def test_extremes_and_offsets() -> None:
    round_trip(np.array([INT64.min, INT64.max, 0, -1]))
    round_trip(np.full(1000, INT64.min))
    rng = np.random.default_rng(1)
    for origin in (INT64.min, -(2**33), 2**33, 2**31 - 5, -(2**31) - 3, INT64.max - 2**40):
        codes = origin + rng.geometric(1e-7, 2000).astype(np.int64)
        assert round_trip(codes) < 2000 * 26 / 8
        round_trip(origin + rng.integers(0, 9, 2000))


@pytest.mark.parametrize("bits", [4, 8, 16])
@pytest.mark.parametrize("count", [300, 5000, 500_000])
def test_gaussian_codes_near_entropy(bits: int, count: int) -> None:
    rng = np.random.default_rng(2)
    scale = {4: 2.5, 8: 32.0, 16: 8000.0}[bits]
    codes = np.clip(np.rint(rng.standard_normal(count) * scale), -(1 << bits - 1), (1 << bits - 1) - 1).astype(np.int32)
    ideal = count * (np.log2(scale) + 2.0471) / 8 if bits == 16 else entropy_bits(codes) / 8
    slack = {4: 15, 8: 40, 16: 50}[bits]
    assert round_trip(codes) <= ideal * 1.005 + slack


def test_spiked_and_heavy_tailed_codes() -> None:
    rng = np.random.default_rng(3)
    codes = np.where(rng.random(3000) < 0.8, 0, np.rint(rng.standard_normal(3000) * 20)).astype(np.int64)
    assert round_trip(codes) <= entropy_bits(codes) / 8 + 45
    cauchy = np.rint(rng.standard_cauchy(100_000) * 1000).clip(-(2**40), 2**40).astype(np.int64)
    # log2(4 pi gamma) is the entropy of a Cauchy distribution.
    assert round_trip(cauchy) <= 100_000 * np.log2(4 * np.pi * 1000) / 8 * 1.01


def test_context_helps() -> None:
    rng = np.random.default_rng(4)
    context = rng.integers(0, 10, 20_000)
    codes = np.rint(rng.standard_normal(20_000) * 2.0**context).astype(np.int64)
    assert round_trip(codes, context) < round_trip(codes) * 0.9


@pytest.mark.parametrize("bad", [np.array([1.0]), np.array([2**63], np.uint64), np.array(["a"])])
def test_bad_codes_are_refused(bad: NDArray[Any]) -> None:
    with pytest.raises(EncodingError):
        encode_integers(bad)


@pytest.mark.parametrize("scale", [0, 2, 1000, 2**50])
def test_corruption(scale: int) -> None:
    rng = np.random.default_rng(5)
    codes = np.rint(rng.standard_normal(60) * scale).astype(np.int64)
    data = encode_integers(codes)
    bad = [data[:end] for end in range(len(data))] + [data + b"\0"]
    bad += [data[:i] + bytes([data[i] ^ flip]) + data[i + 1 :] for i in range(len(data)) for flip in (1, 2, 64, 255)]
    for stream in bad:
        with contextlib.suppress(CorruptFileError):
            assert decode_integers(stream, 60).shape == (60,)
    for end in range(len(data)):
        if scale == 2**50:
            with pytest.raises(CorruptFileError):
                decode_integers(data[:end], 60)


@settings(max_examples=120, deadline=None)
@given(st.binary(max_size=60), st.integers(0, 100))
def test_any_bytes_decode_or_are_corrupt(data: bytes, count: int) -> None:
    with contextlib.suppress(CorruptFileError):
        assert decode_integers(data, count).shape == (count,)
